// The report: every piece that the results have is on it, none that they lack, hostile text stays text, and a browser
// shows it without a complaint on a phone and on a wide screen, in both colours.
#include "host/report/report.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "einfield/error.hpp"
#include "host/report/html.hpp"
#include "host/results/result_json.hpp"
#include "host/results/write_results.hpp"
#include "tests/browser.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

bool has_gnuplot() {
  return std::system("gnuplot --version > /dev/null 2>&1") == 0;
}

/// A PATH that leads nowhere, for as long as it lives.
class NoPath {
 public:
  NoPath() {
    if (const char* path = std::getenv("PATH")) path_ = path;
    setenv("PATH", "/nonexistent", 1);
  }
  ~NoPath() { setenv("PATH", path_.c_str(), 1); }
  NoPath(const NoPath&) = delete;
  NoPath& operator=(const NoPath&) = delete;

 private:
  std::string path_;
};

/// The results of a short fit.
class Report : public testing::Test {
 protected:
  void fit(const std::vector<Override>& settings = {}, const std::string& command = "") {
    const Config config = lens_.config(settings);
    const SmallFit<double> done(config);
    write_results(lens_.out(), config, done.loaded, done.results(), done.images(),
                  {"cpu", "a processor", "double", command}, 1);
  }
  /// Changes what result.json says.
  template <class Change>
  void edit(Change&& change) {
    ordered_json result = ordered_json::parse(lens_.folder().read("out/result.json"));
    change(result);
    lens_.folder().write("out/result.json", result.dump());
  }
  std::string page() {
    warnings_ = write_report(lens_.out(), 1);
    return lens_.folder().read("out/report.html");
  }
  std::string page_without_pictures() {
    const NoPath no_path;
    return page();
  }

  SmallLens lens_;
  std::vector<std::string> warnings_;
};

TEST(ReportText, BecomesHtml) {
  EXPECT_EQ(html_text("<a href=\"x\">&'</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&lt;/a&gt;");
  EXPECT_EQ(html_text("κ\n\tβ"), "κ\n\tβ");
  EXPECT_EQ(html_text(std::string("\0\x1b\xff\xe2\x82", 5)), "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
}

TEST(ReportText, Base64) {
  // RFC 4648, section 10.
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foob"), "Zm9vYg==");
  EXPECT_EQ(base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xff\xfe\xfb"), "//77");
}

TEST_F(Report, HoldsEveryPicture) {
  if (!has_gnuplot()) GTEST_SKIP() << "gnuplot is not installed";
  fit();
  const std::string html = page();
  EXPECT_TRUE(warnings_.empty());
  // Three of the image, three of lens and source, three of the smooth model, four of the network, twelve against the
  // truth, two charts.
  EXPECT_EQ(count(html, "<img "), 27u);
  EXPECT_EQ(count(html, "src=\"data:image/png;base64,iVBORw0KGgo"), 27u);
  EXPECT_EQ(count(html, "src="), 27u);
  EXPECT_TRUE(has(html, "with the critical curves")) << "none was found";
  EXPECT_TRUE(has(html, "with the caustics"));
}

/// The page up to its footer, which has the time of day.
std::string without_footer(const std::string& html) {
  return html.substr(0, html.find("<footer>"));
}

/// Page and figures of a fit from memory, without a file of results on disk, are byte by byte those that are made from
/// its directory.
template <class Real>
void expect_the_same_from_memory(const SmallLens& lens, const Config& config) {
  const SmallFit<Real> done(config);
  std::vector<FitResult<Real>> results = done.results();
  std::vector<std::vector<Real>> images = done.images();
  if (config.network && config.network->ensemble > 1) {  // another member, so that there is a scatter
    results.push_back(results.front());
    for (Real& v : results.back().parameters) v *= Real(1.01);
    images.push_back(images.front());
  }
  ThreadPool pool(1);
  const Assessment fit = assess(config, done.loaded, results, images, pool,
                                [&pool](const Problem& problem, const std::vector<double>& at) {
                                  return scalar_uncertainties(problem, at, pool);
                                });
  const RunInfo info{"cpu", "a processor", sizeof(Real) == 4 ? "single" : "double"};
  const FittedMaps maps = fitted_maps(fit);
  const ReportContent content{result_json(fit, info), maps, fit.derived.curves, {}};
  const auto made = [&lens] {
    std::map<std::string, std::string> files{{"page", without_footer(lens.folder().read("out/report.html"))}};
    for (const auto& entry : fs::directory_iterator(lens.out() + "/figures"))
      files[entry.path().filename().string()] = lens.folder().read("out/figures/" + entry.path().filename().string());
    return files;
  };
  draw_figures(maps, lens.out());
  write_report(content, lens.out());
  const auto from_memory = made();
  EXPECT_FALSE(fs::exists(lens.out() + "/result.fits"));
  EXPECT_FALSE(fs::exists(lens.out() + "/result.json"));
  EXPECT_FALSE(content.curves.curves.empty());
  EXPECT_EQ(write_results(lens.out(), fit, info), content.result_json);
  EXPECT_TRUE(draw_figures(lens.out()).empty());
  EXPECT_TRUE(write_report(lens.out(), 1).empty());
  EXPECT_EQ(made(), from_memory);
  EXPECT_GT(from_memory.size(), 10u);
}

TEST_F(Report, IsTheSameFromMemoryAsFromTheDirectory) {
  if (!has_gnuplot()) GTEST_SKIP() << "gnuplot is not installed";
  // A place with more digits than a header has.
  const std::vector<Override> settings = {{"observation.center_x", "0.1234567890123456789"}};
  expect_the_same_from_memory<float>(lens_, lens_.config(settings));
  const SmallLens other;
  expect_the_same_from_memory<double>(other, other.config({{"network.ensemble", "2"}}));
}

TEST_F(Report, HoldsTheNumbers) {
  fit({}, "einfield fit lens.toml --set 'title=\"x\"'");
  const std::string html = page_without_pictures();
  const ordered_json result = ordered_json::parse(lens_.folder().read("out/result.json"));
  EXPECT_TRUE(has(html, "<title>small</title>"));
  EXPECT_TRUE(has(html, "<h1>small</h1>"));
  char chi2[32];
  std::snprintf(chi2, sizeof chi2, "<dd>%.6g</dd>", result["metrics"]["chi2_reduced"].get<double>());
  EXPECT_TRUE(has(html, chi2));
  EXPECT_TRUE(has(html, "<dd>166<small>of 168</small></dd>"));  // pixels
  EXPECT_TRUE(has(html, "lens.0 · SIE"));
  EXPECT_TRUE(has(html, "lens.1 · SHEAR"));
  EXPECT_TRUE(has(html, "source.0 · SERSIC_ELLIPSE"));
  EXPECT_EQ(count(html, "class=\"free\">free"), 2u);
  EXPECT_EQ(count(html, "<td>fixed</td>"), 14u);
  EXPECT_TRUE(has(html, "einfield fit lens.toml --set &#39;title=&quot;x&quot;&#39;"));
  EXPECT_TRUE(has(html, "einfield fit lens.toml --backend cpu --precision double"));
  EXPECT_TRUE(has(html, html_text(result["config_toml"].get<std::string>())));
  EXPECT_TRUE(has(html, "ended by: steps"));
  EXPECT_TRUE(has(html, "± 1 σ"));
  EXPECT_TRUE(has(html, "id=\"correlations\""));
  for (const char* absent : {"Prior", "Bounds", "id=\"starts\"", "id=\"ensemble\"", "went wrong"})
    EXPECT_FALSE(has(html, absent)) << absent;
}

TEST_F(Report, SaysWhatTwoComponentsMean) {
  fit();
  edit([](ordered_json& result) {
    // q = 0.6 at 30 degrees; a shear of 0.05 at −26.6.
    result["parameters"]["lens.0.e1"] = 0.25 * std::cos(M_PI / 3);
    result["parameters"]["lens.0.e2"] = 0.25 * std::sin(M_PI / 3);
    result["parameters"]["lens.1.gamma1"] = 0.03;
    result["parameters"]["lens.1.gamma2"] = -0.04;
    result["wcs"] = {{"position_angle_y", 53.13}, {"mirrored", false}};
  });
  std::string html = page_without_pictures();
  EXPECT_TRUE(has(html, "axis ratio 0.600, major axis at 30.0° from +x towards +y, position angle 173.1°"));
  EXPECT_TRUE(has(html, "strength 0.050 at -26.6° from +x towards +y, position angle 116.6°"));
  edit([](ordered_json& result) { result["wcs"]["mirrored"] = true; });
  EXPECT_TRUE(has(page_without_pictures(), "position angle 113.1°"));
  edit([](ordered_json& result) {
    result["wcs"] = nullptr;
    result["parameters"]["lens.0.e1"] = result["parameters"]["lens.0.e2"] = 0;
  });
  html = page_without_pictures();
  EXPECT_TRUE(has(html, "axis ratio 1.000<"));
  EXPECT_FALSE(has(html, "position angle"));
}

TEST_F(Report, WithoutGnuplotThereAreNoPicturesAndThePageSaysSo) {
  fit();
  const std::string html = page_without_pictures();
  EXPECT_EQ(warnings_, std::vector<std::string>{"gnuplot is not installed: no figures were drawn"});
  EXPECT_FALSE(has(html, "<img"));
  EXPECT_FALSE(has(html, "<figure"));
  EXPECT_TRUE(has(html, "gnuplot is not installed"));
  EXPECT_TRUE(has(html, "id=\"parameters\""));
}

TEST_F(Report, ShowsWhatAFitMayHaveBeside) {
  fit();
  edit([](ordered_json& result) {
    result["config"]["lens"][0]["prior"] = {{"theta_E", {{"mean", 1.2}, {"sigma", 0.1}}}};
    result["config"]["lens"][0]["bounds"] = {{"e1", {-0.5, 0.5}}};
    result["parameters"]["lens.0.theta_E"] = 1.23456;
    result["uncertainties"] = {
        {"method", "curvature"},
        {"sigma", {{"lens.0.theta_E", 0.0123}, {"lens.0.e1", nullptr}}},
        {"correlations", {{"names", {"lens.0.theta_E", "lens.0.e1"}}, {"matrix", {{1, -0.25}, {-0.25, nullptr}}}}}};
    result["starts"] = {{"count", 2},
                        {"runs",
                         {{{"chi2_reduced", 1.5}, {"parameters", {{"lens.0.theta_E", 1.25}}}},
                          {{"chi2_reduced", nullptr}, {"dead", true}}}}};
    result["warnings"] = {"the PSF sums to 2, normalized to 1"};
    result["message"] = "the loss is not finite in step 2";
  });
  const std::string html = page_without_pictures();
  // As many digits as the uncertainty has two of.
  EXPECT_TRUE(has(html, "<td class=\"number\">1.235</td><td class=\"number\">0.012</td>"));
  EXPECT_TRUE(has(html, "<td>mean = 1.2, sigma = 0.1</td>"));
  EXPECT_TRUE(has(html, "Uncertainties: curvature."));
  EXPECT_TRUE(has(html, "<td>-0.5, 0.5</td>"));
  EXPECT_EQ(count(html, ">-0.25</td>"), 2u);
  EXPECT_TRUE(has(html, "<th>Chi2 reduced</th><th>lens.0.theta_E</th><th>Dead</th>"));
  EXPECT_TRUE(has(html, "<td>yes</td>"));
  EXPECT_TRUE(has(html, "the PSF sums to 2"));
  EXPECT_TRUE(has(html, "The fit failed: the loss is not finite in step 2"));
}

TEST_F(Report, ParametersMayBeObjects) {
  fit();
  edit([](ordered_json& result) {
    for (auto& [name, value] : result["parameters"].items())
      value = {{"value", value}, {"free", name == "source.0.amp"}};
    result["parameters"]["source.0.amp"]["value"] = 10.0;
    result["parameters"]["source.0.amp"]["sigma"] = 0.5;
    result["parameters"]["source.0.amp"]["prior"] = "uniform";
  });
  const std::string html = page_without_pictures();
  EXPECT_EQ(count(html, "class=\"free\">free"), 1u);
  EXPECT_TRUE(has(html, "<td class=\"number\">10.00</td><td class=\"number\">0.50</td>"));
  EXPECT_TRUE(has(html, "<td>uniform</td>"));
}

TEST_F(Report, MissingPiecesAreLeftOut) {
  fs::create_directory(lens_.out());
  lens_.folder().write("out/result.json", "{}");
  const std::string html = page_without_pictures();
  EXPECT_TRUE(has(html, "<h1>Fit of a gravitational lens</h1>"));
  EXPECT_TRUE(has(html, "No pictures: "));
  EXPECT_FALSE(has(html, "<section"));
  lens_.folder().write("out/result.json", "[1, 2");
  EXPECT_THROW(write_report(lens_.out()), InvalidInput);
  fs::remove(lens_.out() + "/result.json");
  EXPECT_THROW(write_report(lens_.out()), InvalidInput);
}

TEST_F(Report, WithoutNetworkTruthOrCriticalCurves) {
  if (!has_gnuplot()) GTEST_SKIP() << "gnuplot is not installed";
  std::string text = lens_.folder().read("lens.toml");
  for (const auto& [from, to] : {std::pair{"[network]", "[optimizer]"}, {"[truth]", "[simulate]"}}) {
    const std::size_t begin = text.find(from);
    text.erase(begin, text.find(to) - begin);
  }
  text.replace(text.find("theta_E = 1.2"), 13, "theta_E = 0.01");
  lens_.folder().write("lens.toml", text);
  fit();
  const std::string html = page();
  EXPECT_EQ(count(html, "<img "), 11u);
  EXPECT_TRUE(has(html, "No critical curve was found"));
  EXPECT_FALSE(has(html, "id=\"truth\""));
  EXPECT_FALSE(has(html, ">Network<"));
}

const std::string kHostile = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&amp;${x}<!-- ]]> {{x}}";

TEST_F(Report, HostileTextStaysText) {
  fit({{"title", "'''" + kHostile + "'''"}}, "einfield fit '" + kHostile + "'");
  edit([](ordered_json& result) {
    result["starts"] = {{kHostile, {{{kHostile, kHostile}}}}};
    result["ensemble"] = {{"members", {{{kHostile, 1}}}}, {kHostile, kHostile}};
    result["uncertainties"] = {{"method", kHostile}, {"correlations", {{kHostile, {{kHostile, 0.5}}}}}};
    result["warnings"] = {kHostile};
    result["stop_reason"] = result["device"] = result["version"] = result["precision"] = result["backend"] = kHostile;
    result["profiles"]["lens.0"] = kHostile;
    result["parameters"][kHostile + "." + kHostile] = {{"value", kHostile}, {"prior", kHostile}, {"sigma", kHostile}};
    result["metrics"]["chi2_reduced"] = result["steps"] = kHostile;
  });
  const std::string html = page_without_pictures();
  EXPECT_FALSE(has(html, "<script"));
  EXPECT_FALSE(has(html, "<img"));
  EXPECT_FALSE(has(html, "<!--"));
  EXPECT_GT(count(html, "&lt;script&gt;alert(1)"), 10u);
  // Nothing is fetched.
  for (const char* external : {"http:", "https:", "url(", "@import", "src=\"", "javascript:"})
    EXPECT_FALSE(has(html, external)) << external;
}

// ---- a browser -------------------------------------------------------------------------------------------

/// What the browser says of a page in frames of several widths.
ordered_json shown(const TemporaryDirectory& directory, const std::string& html, bool dark) {
  std::string frames;
  for (const int width : {360, 768, 1440})
    frames += "<iframe width=\"" + std::to_string(width) + "\" height=\"900\" style=\"border:0\" srcdoc=\"" +
              html_text(html) + "\"></iframe>";
  directory.write("frames.html", "<!DOCTYPE html><meta charset=\"utf-8\"><body>" + frames + R"(<pre id="answer"></pre>
<script>
addEventListener('load', () => {
  const channels = color => { const v = color.match(/[\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
  const luminance = color => channels(color).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const answer = [...document.querySelectorAll('iframe')].map(frame => {
    const page = frame.contentDocument, root = page.documentElement, images = [...page.images];
    // What lies behind an element: the colours of its ancestors, each over the next.
    const behind = e => {
      const color = channels(frame.contentWindow.getComputedStyle(e).backgroundColor);
      if (color[3] === 1 || !e.parentElement) return 'rgb(' + color.slice(0, 3) + ')';
      const below = channels(behind(e.parentElement));
      return 'rgb(' + color.slice(0, 3).map((v, i) => v * color[3] + below[i] * (1 - color[3])) + ')';
    };
    const contrasts = [...page.querySelectorAll('h1, h2, h3, p, a, li, dt, dd, small, th, td, figcaption, pre, summary')]
        .map(e => [luminance(frame.contentWindow.getComputedStyle(e).color), luminance(behind(e))])
        .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    return {width: root.clientWidth, overflow: root.scrollWidth - root.clientWidth, images: images.length,
            missing: images.filter(i => !i.complete || i.naturalWidth === 0).length,
            narrow: images.filter(i => i.getBoundingClientRect().width < 200).length,
            dark: frame.contentWindow.matchMedia('(prefers-color-scheme: dark)').matches,
            paper: luminance(frame.contentWindow.getComputedStyle(page.body).backgroundColor),
            contrast: Math.min(...contrasts), title: page.title};
  });
  document.getElementById('answer').textContent = 'ANSWER' + JSON.stringify(answer) + 'END';
});
</script>)");
  const std::string dom = document_in_browser(directory, "file://" + (directory / "frames.html"), dark);
  const std::size_t begin = dom.rfind("ANSWER["), end = dom.rfind("]END");
  if (begin == std::string::npos || end == std::string::npos) return {};
  return ordered_json::parse(dom.substr(begin + 6, end - begin - 5), nullptr, false);
}

TEST_F(Report, ABrowserShowsItOnAnyScreen) {
  if (!browser()) GTEST_SKIP() << "no chromium is installed";
  fit({{"title", "'''" + kHostile + std::string(200, 'x') + "'''"}}, "einfield fit " + std::string(300, 'y'));
  edit([](ordered_json& result) {
    ordered_json row;
    for (int i = 0; i < 20; ++i) row["a_rather_long_column_" + std::to_string(i)] = 1.0 / (i + 3);
    result["starts"] = {{"runs", {row, row}}};
    result["warnings"] = {std::string(300, 'z')};
  });
  const std::string html = page();
  for (const bool dark : {false, true}) {
    const ordered_json answer = shown(lens_.folder(), html, dark);
    ASSERT_EQ(answer.size(), 3u) << "the page did not load";
    for (const ordered_json& frame : answer) {
      EXPECT_EQ(frame["overflow"], 0) << frame.dump();
      EXPECT_EQ(frame["missing"], 0) << frame.dump();
      EXPECT_EQ(frame["narrow"], 0) << frame.dump();
      EXPECT_EQ(frame["images"], has_gnuplot() ? 27 : 0) << frame.dump();
      EXPECT_EQ(frame["dark"], dark) << frame.dump();
      EXPECT_EQ(frame["paper"].get<double>() < 0.2, dark) << frame.dump();
      EXPECT_GE(frame["contrast"].get<double>(), 4.5) << frame.dump();  // WCAG 2.1, level AA
      EXPECT_EQ(frame["title"].get<std::string>().substr(0, 14), "&lt;/title&gt;") << frame.dump();
    }
  }
}

}  // namespace
}  // namespace einfield
