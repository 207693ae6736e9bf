// The numbers of all lenses go into the page as JSON, the pictures into separate files.
#include "host/batch/gallery.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "host/batch/survey_run.hpp"
#include "host/batch/survey_table.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"
#include "host/files/version.hpp"
#include "host/report/html.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// A column of numbers of the page.
struct Column {
  const char *title, *explanation;
  std::function<double(const LensRow&)> value;
};

const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"χ²", "reduced χ²", [](const LensRow& r) { return r.chi2; }},
      {"θ_E", "effective Einstein radius [arcsec]", [](const LensRow& r) { return r.einstein_radius; }},
      {"μ", "magnification", [](const LensRow& r) { return r.magnification; }},
      {"m source", "AB magnitude of the source", [](const LensRow& r) { return r.source_magnitude; }},
      {"m lens", "AB magnitude of the lens light", [](const LensRow& r) { return r.lens_magnitude; }},
      {"ln Z", "ln evidence", [](const LensRow& r) { return r.log_evidence; }},
      {"κ/σ", "largest significance of the network's convergence", [](const LensRow& r) { return r.kappa_peak_snr; }},
      {"κ", "the convergence there", [](const LensRow& r) { return r.kappa_peak; }},
      {"hits", "starts that reached the best one",
       [](const LensRow& r) { return r.starts > 0 ? static_cast<double>(r.starts_reached_best) : LensRow::kUnknown; }},
      {"s", "wall time [s]", [](const LensRow& r) { return r.seconds; }}};
  return all;
}

/// JSON inside of a script: no text may end the element.
std::string script_json(const ordered_json& json) {
  std::string text;
  for (const char c : json.dump(-1, ' ', false, ordered_json::error_handler_t::replace))
    text += c == '<' ? "\\u003c" : std::string(1, c);
  return text;
}

/// With five digits; null for what is unknown.
ordered_json number_json(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr);
}

/// A path as a relative URL.
std::string url_of(const fs::path& path) {
  std::string url;
  for (const char c : path.generic_string()) {
    const bool plain =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string("/._-").find(c) != std::string::npos;
    url += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return url;
}

/// The page's link to the report of a lens; "" where none was kept.
std::string report_of(const std::string& id, const std::string& folder, const std::string& dir) {
  const std::string report = in(in(in(dir, "lenses"), folder_name(id)), "report.html");
  std::error_code error;
  if (!fs::exists(report, error)) return "";
  return url_of(fs::relative(report, folder, error));
}

/// Sorts, finds and shows; every lens is [id, status, flags, link, numbers of the columns …].
constexpr const char* kScript = R"(
'use strict';
const page = JSON.parse(document.getElementById('lenses').textContent);
const perPage = 50, fixed = 4, size = 96;
const element = id => document.getElementById(id);
const pictures = new Map(), wanted = new Map();
let order = [];

// What is shown is in the address, so that it can be sent and the browser's "back" works.
const asked = () => new URLSearchParams(location.hash.slice(1));
function ask(changes) {
  const now = asked();
  for (const [key, value] of Object.entries(changes)) value === '' ? now.delete(key) : now.set(key, value);
  location.hash = now.toString();
}

// Files of pictures call this.
function chunk(number, content) {
  pictures.set(number, content);
  for (const show of wanted.get(number) || []) show(content);
  wanted.delete(number);
}
function withPictures(index, show) {
  const number = Math.floor(index / page.perFile), at = index % page.perFile;
  if (pictures.has(number)) return show(pictures.get(number)[at]);
  if (!wanted.has(number)) {
    wanted.set(number, []);
    const script = document.createElement('script');
    script.src = 'pictures/' + String(number).padStart(4, '0') + '.js';
    document.head.append(script);
  }
  wanted.get(number).push(content => show(content[at]));
}

const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const gray = t => [255 * t, 255 * t, 255 * t];
const diverging = t => t < 0.5 ? [33 + 444 * t, 102 + 306 * t, 172 + 166 * t]
                               : [255 - 154 * (t - 0.5), 255 - 462 * (t - 0.5), 255 - 424 * (t - 0.5)];
function picture(text, nx, ny, name, color) {
  const canvas = document.createElement('canvas');
  canvas.width = nx;
  canvas.height = ny;
  const context = canvas.getContext('2d'), image = context.createImageData(nx, ny);
  for (let i = 0; i < nx * ny; ++i) {
    const level = digits.indexOf(text[i]), at = 4 * ((ny - 1 - Math.floor(i / nx)) * nx + i % nx);
    if (level < 0) continue;  // transparent
    image.data.set([...color(level / 63), 255], at);
  }
  context.putImageData(image, 0, 0);
  const img = document.createElement('img');
  img.src = canvas.toDataURL();
  img.width = img.height = size;
  img.alt = img.title = name;
  return img;
}

function cell(row, content, className) {
  const td = row.insertCell();
  if (className) td.className = className;
  td.append(content);
  return td;
}
function addRow(body, index) {
  const lens = page.lenses[index], row = body.insertRow();
  const name = document.createElement(lens[3] ? 'a' : 'span');
  name.textContent = lens[0];
  if (lens[3]) name.href = lens[3];
  cell(row, name);
  const shown = cell(row, '', 'pictures');
  const status = cell(row, lens[1], 'status ' + lens[1]);
  if (lens[2]) {
    const flags = document.createElement('small');
    flags.textContent = lens[2].split(',').join(', ');
    status.append(document.createElement('br'), flags);
  }
  for (const value of lens.slice(fixed)) cell(row, value === null ? '–' : String(value), 'number');
  if (lens[1] === 'unfinished') return;
  withPictures(index, ([message, nx, ny, data, model, residual, kappa]) => {
    if (message) row.title = message;
    if (!nx) return shown.append('–');
    const all = [[data, 'data', gray], [model, 'model', gray], [residual, 'residual, blue −6σ to red 6σ', diverging],
                 [kappa, 'κ of the network', gray]];
    for (const [text, title, color] of all) if (text) shown.append(picture(text, nx, ny, lens[0] + ': ' + title, color));
  });
}

function compare(a, b, at) {
  const x = page.lenses[a][at], y = page.lenses[b][at];
  if (x === null || y === null) return (x === null) - (y === null);  // what is unknown comes last
  return typeof x === 'string' ? (x < y ? -1 : x > y ? 1 : 0) : x - y;
}
function arrange() {
  const now = asked(), text = (now.get('find') || '').toLowerCase(), down = now.has('down');
  const at = page.columns.findIndex(column => column.name === now.get('sort'));
  order = page.lenses.map((_, i) => i);
  if (text) order = order.filter(i => page.lenses[i].slice(0, 3).join(' ').toLowerCase().includes(text));
  if (at >= 0) {
    const index = page.columns[at].index;
    order.sort((a, b) => (down && page.lenses[a][index] !== null && page.lenses[b][index] !== null ? -1 : 1) *
                         compare(a, b, index) || a - b);
  }
}
function show() {
  arrange();
  const now = asked(), pages = Math.max(1, Math.ceil(order.length / perPage));
  const number = Math.min(Math.max(1, Number(now.get('page')) || 1), pages);
  const body = element('rows');
  body.replaceChildren();
  for (const index of order.slice((number - 1) * perPage, number * perPage)) addRow(body, index);
  element('count').textContent = `${order.length} of ${page.lenses.length} lenses, page ${number} of ${pages}`;
  element('back').disabled = number <= 1;
  element('next').disabled = number >= pages;
  element('back').onclick = () => ask({page: number - 1});
  element('next').onclick = () => ask({page: number + 1});
  element('find').value = now.get('find') || '';
  for (const button of document.querySelectorAll('thead button')) {
    const sorted = button.value === now.get('sort');
    button.parentElement.ariaSort = sorted ? (now.has('down') ? 'descending' : 'ascending') : 'none';
    button.onclick = () => ask({sort: button.value, down: sorted && !now.has('down') ? '1' : '', page: ''});
  }
}
element('find').onchange = () => ask({find: element('find').value, page: ''});
addEventListener('hashchange', show);
show();
)";

constexpr const char* kStyle = R"(
main, header, footer { max-width: none; }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: 1rem 0; }
button, input { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; padding: .2rem .6rem; }
button:disabled { color: var(--soft); }
thead button { border: 0; padding: 0; color: var(--link); cursor: pointer; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
td.pictures img { image-rendering: pixelated; margin-right: 2px; background: var(--line); vertical-align: middle; }
td.status { white-space: normal; max-width: 16rem; }
td.failed, td.suspect { color: var(--warn); }
)";

class Gallery {
 public:
  Gallery(const std::string& folder, const Manifest& manifest, const RowStore& rows, const std::string& dir)
      : folder_(folder), manifest_(manifest), rows_(rows), dir_(dir) {}

  void write() {
    create_directory(folder_);
    create_directory(in(folder_, "pictures"));
    for (const SurveyLens& lens : manifest_.lenses) add(lens);
    write_pictures();
    write_atomically(in(folder_, "report.html"), html());
  }

 private:
  void add(const SurveyLens& lens) {
    const LensRow row = row_in(rows_, lens.id);
    ordered_json numbers = {lens.id, row.status, flag_names(row.flags), report_of(lens.id, folder_, dir_)};
    for (std::size_t i = 0; i < columns().size(); ++i) {
      numbers.push_back(number_json(columns()[i].value(row)));
      known_[i] = known_[i] || !numbers.back().is_null();
    }
    lenses_.push_back(std::move(numbers));
    const Thumbnails& t = row.thumbnails;
    pictures_.push_back({row.message, t.nx, t.ny, t.data, t.model, t.residual, t.kappa});
    if (pictures_.size() == kLensesPerFile) write_pictures();
  }

  void write_pictures() {
    if (pictures_.empty()) return;
    write_atomically(in(in(folder_, "pictures"), fmt::format("{:04}.js", files_)),
                     fmt::format("chunk({},{});\n", files_, script_json(pictures_)));
    pictures_ = ordered_json::array();
    ++files_;
  }

  /// The numbers without columns that no lens has.
  ordered_json content() const {
    ordered_json page = {{"perFile", kLensesPerFile}, {"columns", ordered_json::array()}, {"lenses", lenses_}};
    std::size_t index = 4;
    page["columns"].push_back({{"name", "id"}, {"index", 0}});
    page["columns"].push_back({{"name", "status"}, {"index", 1}});
    for (std::size_t i = 0; i < columns().size(); ++i)
      if (known_[i]) page["columns"].push_back({{"name", columns()[i].title}, {"index", index++}});
    for (ordered_json& lens : page["lenses"])
      for (std::size_t i = columns().size(); i-- > 0;)
        if (!known_[i]) lens.erase(4 + i);
    return page;
  }

  std::string html() const {
    const auto head = [](const std::string& title, const std::string& explanation) {
      return element("th", element("button", html_text(title), "type=\"button\" value=\"" + html_text(title) + "\""),
                     "scope=\"col\" title=\"" + html_text(explanation) + "\"");
    };
    std::string heads = head("id", "name of the lens; with a link where its results were kept") +
                        element("th", "data, model, residual, κ", "scope=\"col\"") +
                        head("status", "and its flags; einfield info --flags explains them");
    for (std::size_t i = 0; i < columns().size(); ++i)
      if (known_[i]) heads += head(columns()[i].title, columns()[i].explanation);
    const std::string controls =
        "<form onsubmit=\"return false\"><label>find an id, status or flag <input id=\"find\" type=\"search\"></label>"
        "<button id=\"back\" type=\"button\">back</button>"
        "<button id=\"next\" type=\"button\">next</button><span id=\"count\" class=\"soft\"></span></form>\n";
    const SurveyCounts counts = counts_of(manifest_, rows_);
    const std::string summary = fmt::format("{} lenses: {} ok, {} suspect, {} failed, {} unfinished", counts.lenses,
                                            counts.ok, counts.suspect, counts.failed, counts.unfinished());
    return html_page(
        "A survey of lenses",
        element("h1", "A survey of lenses") + "\n" + element("p", summary) +
            element("p",
                    "Click on the title of a column to sort by it. Data and model have one scale, "
                    "linear in asinh; residuals are in σ of a block of pixels.") +
            element("noscript", element("p", "The table is made by a script: allow it to run.")) + "\n",
        element("style", kStyle) + controls +
            element("div",
                    element("table", element("thead", element("tr", heads)) + element("tbody", "", "id=\"rows\"")),
                    "class=\"scroll\" tabindex=\"0\"") +
            "\n" + element("script", script_json(content()), "type=\"application/json\" id=\"lenses\"") + "\n" +
            element("script", kScript) + "\n",
        element("p", "einfield " + version()), "'self' file: 'unsafe-inline'");
  }

  std::string folder_;
  const Manifest& manifest_;
  const RowStore& rows_;
  std::string dir_;
  ordered_json lenses_ = ordered_json::array(), pictures_ = ordered_json::array();
  std::vector<bool> known_ = std::vector<bool>(columns().size());
  std::size_t files_ = 0;
};

}  // namespace

void write_gallery(const std::string& folder, const Manifest& manifest, const RowStore& rows, const std::string& dir) {
  Gallery(folder, manifest, rows, dir).write();
}

}  // namespace einfield
