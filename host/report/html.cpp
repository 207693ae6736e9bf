// Escaping, base64 and the frame of a page.
#include "host/report/html.hpp"

#include <algorithm>
#include <cstdint>

#include "host/files/text.hpp"

namespace einfield {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --ink: #1b1f24; --soft: #59626d; --line: #dde1e6;
  --link: #1f57c3; --warn: #8a4b00; --warn-card: #fff4e2; --red: 178, 24, 43; --blue: 33, 102, 172; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0a0c0f; --card: #11151a; --ink: #e4e8ed; --soft: #99a3af; --line: #272d35; --link: #8ab4ff;
    --warn: #ffcf8a; --warn-card: #2a2113; --red: 214, 96, 77; --blue: 67, 147, 195; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main, header, footer { max-width: 80rem; margin: 0 auto; padding: 0 clamp(.9rem, 3vw, 2.5rem); }
header { padding-top: clamp(1.2rem, 4vw, 2.5rem); }
h1 { font-size: clamp(1.4rem, 1.1rem + 1.6vw, 2.1rem); line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { max-width: 46rem; }
p, li { overflow-wrap: anywhere; }
a { color: var(--link); }
header p, .soft, figcaption, footer { color: var(--soft); }
header p { margin: .2rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1rem 0 0; }
.notes { background: var(--warn-card); color: var(--warn); border-radius: .6rem; padding: .7rem 1rem; margin: 1.2rem 0 0; }
.notes ul { margin: 0; padding-left: 1.1rem; }
dl.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); gap: .7rem;
  margin: 1.4rem 0 0; }
dl.numbers div, figure, .scroll, pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
dl.numbers div { padding: .6rem .8rem; }
dl.numbers dt { color: var(--soft); font-size: .85rem; }
dl.numbers dd { margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
dl.numbers dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .9rem; }
.figures.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; padding: .6rem .7rem .8rem; min-width: 0; }
figure h3 { margin: 0 0 .2rem .2rem; font-size: .95rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: .85rem; margin: .3rem .2rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-width: 100%; width: fit-content; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .32rem .8rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 500; }
th[scope=rowgroup] { padding-top: .8rem; }
th[scope=rowgroup] .soft { font-weight: 400; white-space: normal; }
td.number { text-align: right; }
td.free { font-weight: 600; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .86rem; }
pre { margin: .5rem 0; padding: .8rem 1rem; overflow-x: auto; line-height: 1.45; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--link); }
footer { padding-top: 2rem; padding-bottom: 2.5rem; font-size: .85rem; }
@media print { details:not([open]) > * { display: block; } figure { break-inside: avoid; } }
)";

}  // namespace

std::string html_text(const std::string& text) {
  std::string html;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t n = utf8_length(text, i);
    if (n == 0 || byte == 0x7f || (byte < 0x20 && byte != '\n' && byte != '\t')) {
      html += "\xEF\xBF\xBD";
    } else if (n > 1) {
      html += text.substr(i, n);
    } else {
      switch (text[i]) {
        case '&':
          html += "&amp;";
          break;
        case '<':
          html += "&lt;";
          break;
        case '>':
          html += "&gt;";
          break;
        case '"':
          html += "&quot;";
          break;
        case '\'':
          html += "&#39;";
          break;
        default:
          html += text[i];
      }
    }
    i += std::max<std::size_t>(n, 1);
  }
  return html;
}

std::string base64(const std::string& bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = i; k < i + 3; ++k)
      group = group << 8 | (k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0U);
    for (const int shift : {18, 12, 6, 0}) text += digits[group >> shift & 63];
  }
  for (std::size_t k = 0; k < (3 - bytes.size() % 3) % 3; ++k) text[text.size() - 1 - k] = '=';
  return text;
}

std::string element(const std::string& tag, const std::string& content, const std::string& attributes) {
  return "<" + tag + (attributes.empty() ? "" : " " + attributes) + ">" + content + "</" + tag + ">";
}

std::string table(const std::string& head, const std::string& body) {
  return element("div",
                 element("table", (head.empty() ? "" : element("thead", element("tr", head))) + element("tbody", body)),
                 "class=\"scroll\" tabindex=\"0\"") +
         "\n";
}

std::string html_page(const std::string& title, const std::string& header, const std::string& main,
                      const std::string& footer, const std::string& scripts) {
  // The policy is a second barrier, should the escaping of a text have a gap.
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
         "style-src 'unsafe-inline'" +
         (scripts.empty() ? "" : "; script-src " + scripts) +
         "\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
         element("title", html_text(title)) + "\n<link rel=\"icon\" href=\"data:,\">\n" + element("style", kStyle) +
         "\n</head>\n<body>\n" + element("header", "\n" + header) + "\n" + element("main", "\n" + main) + "\n" +
         element("footer", footer) + "\n</body>\n</html>\n";
}

}  // namespace einfield
