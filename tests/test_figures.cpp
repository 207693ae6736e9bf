// Pictures and figures: what the pixels show, that words stay words, and that gnuplot's absence or failure costs no
// more than the pictures.
#include "host/report/figures.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "einfield/error.hpp"
#include "host/files/fits_io.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

/// Puts an environment variable back when the test ends.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Environment() {
    if (old_)
      setenv(name_, old_->c_str(), 1);
    else
      unsetenv(name_);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

bool has_gnuplot() {
  return std::system("gnuplot --version > /dev/null 2>&1") == 0;
}

#define NEEDS_GNUPLOT() \
  if (!has_gnuplot()) GTEST_SKIP() << "gnuplot is not installed"

/// Colours 0xrrggbb of a PNG by (x, y) from the lower left corner.
using Image = std::map<std::pair<int, int>, int>;

/// A PNG as gnuplot reads it back.
Image pixels(const TemporaryDirectory& directory, const std::string& png) {
  const std::string table = directory / "pixels.txt";
  const std::string script = directory.write(
      "read.gp", "set table '" + table + "'\nplot '" + png + "' binary filetype=png using 1:2:3 with rgbimage\n");
  EXPECT_EQ(std::system(("gnuplot -d " + script).c_str()), 0);
  std::ifstream file(table);
  Image result;
  std::string line;
  while (std::getline(file, line)) {
    int x = 0, y = 0, red = 0, green = 0, blue = 0;
    std::istringstream cells(line);
    if (cells >> x >> y >> red >> green >> blue) result[{x, y}] = red << 16 | green << 8 | blue;
  }
  return result;
}

/// Where one colour fills an area: count and bounding box. Specks, as letters have them, are left out.
struct Patch {
  int count = 0, left = 1 << 20, right = -1, bottom = 1 << 20, top = -1;
  int width() const { return right - left + 1; }
  int height() const { return top - bottom + 1; }
};

Patch patch(const Image& image, int color) {
  Patch found;
  for (const auto& [place, value] : image) {
    const auto [x, y] = place;
    const auto same = [&](int dx, int dy) {
      const auto neighbour = image.find({x + dx, y + dy});
      return neighbour != image.end() && neighbour->second == color;
    };
    if (value != color || !((same(4, 0) || same(-4, 0)) && (same(0, 4) || same(0, -4)))) continue;
    ++found.count;
    found.left = std::min(found.left, x);
    found.right = std::max(found.right, x);
    found.bottom = std::min(found.bottom, y);
    found.top = std::max(found.top, y);
  }
  return found;
}

Panel small_panel() {
  Panel panel;
  panel.nx = 4;
  panel.ny = 3;
  panel.values.assign(12, 0.5);
  panel.range = {0, 1};
  panel.pixel_scale = 0.5;
  return panel;
}

Picture picture_of(const std::string& path, const Panel& panel) {
  Picture picture;
  picture.path = path;
  picture.cells = {panel};
  return picture;
}

constexpr int kGrey = 0xb8b8b8, kLowest = 0x053061, kHighest = 0x67001f;

TEST(Picture, ShowsAMapTheRightWayUpInSquarePixelsWithMaskedOnesGrey) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  Panel panel = small_panel();
  panel.palette = Palette::diverging;
  panel.values[0] = NAN;   // lower left
  panel.values[3] = -7;    // lower right, below the scale
  panel.values[11] = 1.0;  // upper right, its end
  EXPECT_TRUE(draw({picture_of(directory / "map.png", panel)}).empty());
  const Image image = pixels(directory, directory / "map.png");
  const Patch masked = patch(image, kGrey);
  EXPECT_GT(masked.count, 10000);
  EXPECT_NEAR(masked.width(), masked.height(), 3);
  EXPECT_NEAR(masked.count, masked.width() * masked.height(), 0.02 * masked.count);

  // The colour bar and its arrow have the colours of the ends as well: only the map is looked at.
  const int middle_x = masked.left + 2 * masked.width(), right = masked.left + 4 * masked.width() - 4;
  EXPECT_EQ(image.at({right, masked.bottom + 4}), kLowest);
  EXPECT_EQ(image.at({right, masked.bottom + 3 * masked.height() - 4}), kHighest);
  EXPECT_EQ(image.at({middle_x, masked.bottom + masked.height() + 9}), 0xf7f7f7);
}

TEST(Picture, AMapOfNegativeCoordinatesBeforeALogarithmicChart) {
  NEEDS_GNUPLOT();
  Panel panel = small_panel();
  panel.center_x = 12.5;
  panel.center_y = -7;
  Chart chart;
  chart.curves = {{"", {0, 1, 2}, {3, 2, 1}}};
  Picture picture;
  picture.cells = {panel, chart, panel};
  picture.columns = 3;
  EXPECT_EQ(draw_in_memory({picture}).warnings, std::vector<std::string>{});
}

TEST(Picture, OutlinesARegionAlongPixelEdges) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  Panel panel = small_panel();
  panel.nx = panel.ny = 5;
  panel.values.assign(25, 1.0);
  panel.palette = Palette::diverging;
  panel.outline.assign(25, 0);
  panel.outline[12] = 1;  // the one in the middle
  const auto dark = [&](const char* name) {
    const Image image = pixels(directory, directory / name);
    return static_cast<int>(
        std::count_if(image.begin(), image.end(), [](const auto& pixel) { return pixel.second == 0; }));
  };
  Panel plain = panel;
  plain.outline.clear();
  EXPECT_TRUE(draw({picture_of(directory / "with.png", panel), picture_of(directory / "without.png", plain)}).empty());
  // Four sides of a fifth of the box, one to two pixels wide.
  const int side = 460 / 5, added = dark("with.png") - dark("without.png");
  EXPECT_GT(added, 3 * side);
  EXPECT_LT(added, 10 * side);
}

TEST(Picture, LargeMapsAreShownByTheirMeans) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  Panel panel = small_panel();
  panel.nx = 2400;
  panel.ny = 1801;
  panel.values.resize(2400 * 1801);
  // Stripes along columns: −1, 0, 1, −1, …: a block of three has the mean of the scale's middle.
  for (int y = 0; y < panel.ny; ++y)
    for (int x = 0; x < panel.nx; ++x) panel.values[static_cast<std::size_t>(y * panel.nx + x)] = x % 3 - 1;
  panel.palette = Palette::diverging;
  panel.range = {-1, 1};
  panel.pixel_scale = 0.01;
  EXPECT_TRUE(draw({picture_of(directory / "large.png", panel)}).empty());
  // The frame's line lies over the outermost pixels.
  const Patch middle = patch(pixels(directory, directory / "large.png"), 0xf7f7f7);
  EXPECT_NEAR(middle.width(), 460, 6);
  EXPECT_NEAR(middle.height(), 345, 6);
  EXPECT_GT(middle.count, 0.95 * 460 * 345);
}

TEST(Picture, WordsNeverBecomeCommands) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  const std::string canary = directory / "canary";
  const std::string touch = "touch " + canary;
  const std::vector<std::string> hostile = {
      "'; system('" + touch + "'); '",
      "`" + touch + "`",
      "\"`" + touch + "`\"",
      "x'\n!" + touch + "\n'",
      "x\r\nsystem('" + touch + "')\r\n",
      "@macro ' . system(\"" + touch + "\") . '",
      "ends in a backslash \\",
      "'",
      "''",
      "\\'; system('" + touch + "') #",
      "%s %n %d {/Symbol a}_{b} ^",
      std::string("nul \0 in it", 11),
      "not UTF-8: \xff\xc3(\xe2\x82",
      std::string(100000, '\''),
  };
  for (const std::string& words : hostile) {
    Panel panel = small_panel();
    panel.title = panel.unit = panel.inset = words;
    Chart chart;
    chart.title = chart.x_label = chart.y_label = words;
    chart.curves = {{words, {0, 1, 2}, {3, 2, 1}}};
    Picture picture;
    picture.path = directory / "hostile.png";
    picture.title = picture.note = words;
    picture.columns = 2;
    picture.cells = {panel, chart};
    const std::vector<std::string> warnings = draw({picture});
    EXPECT_TRUE(warnings.empty()) << words.substr(0, 80) << ": " << warnings[0];
    EXPECT_FALSE(fs::exists(canary)) << words;
    EXPECT_TRUE(fs::remove(picture.path));
  }
}

TEST(Picture, OddNumbersAreDrawn) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  std::vector<Picture> pictures;
  const auto add = [&](double value, ColorRange range) {
    Panel panel = small_panel();
    panel.values.assign(12, value);
    panel.range = range;
    pictures.push_back(picture_of(directory / ("odd" + std::to_string(pictures.size()) + ".png"), panel));
  };
  add(0, {0, 0});
  add(NAN, {NAN, NAN});
  add(INFINITY, {-INFINITY, INFINITY});
  add(1e-300, {0, 1e-300});
  add(1e300, {-1e300, 1e300});
  add(5, {5, 5});
  add(1, {2, 1});
  for (const double softening : {1e-310, 1e-3, 1.0, 1e300}) {
    for (const ColorRange range : {ColorRange{0, 0}, {-2, 50}, {1e-300, 1e300}, {NAN, NAN}}) {
      add(1, range);
      std::get<Panel>(pictures.back().cells[0]).softening = softening;
    }
  }
  Chart chart;
  chart.curves = {{"nothing", {}, {}}, {"not positive", {0, 1}, {0, -1}}};
  Picture empty;
  empty.path = directory / "empty.png";
  empty.cells = {small_panel(), chart};
  pictures.push_back(empty);
  chart.curves = {{"one point", {0}, {1e-12}}};
  empty.path = directory / "point.png";
  empty.cells = {chart};
  pictures.push_back(empty);
  const std::vector<std::string> warnings = draw(pictures);
  EXPECT_TRUE(warnings.empty()) << warnings[0];
  for (const Picture& picture : pictures) EXPECT_TRUE(fs::exists(picture.path)) << picture.path;
}

TEST(Picture, ASofteningMakesFaintThingsSeen) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  // Between the ends 0 and 100, a value of 1: of asinh(v / 0.1) it is at 0.39, of v itself at the lowest colour. The
  // colours are told apart by where the same one stands on a linear scale.
  Panel soft = small_panel();
  soft.palette = Palette::diverging;
  soft.range = {0, 100};
  soft.softening = 0.1;
  soft.values.assign(12, 1.0);
  Panel linear = soft;
  linear.softening = 0;
  linear.values.assign(12, 100 * std::asinh(1 / 0.1) / std::asinh(100 / 0.1));
  ASSERT_TRUE(draw({picture_of(directory / "soft.png", soft), picture_of(directory / "linear.png", linear)}).empty());
  const auto middle = [&](const char* name) {
    const Image image = pixels(directory, directory / name);
    return image.at({image.rbegin()->first.first / 2, image.rbegin()->first.second / 2});
  };
  EXPECT_EQ(middle("soft.png"), middle("linear.png"));
  EXPECT_NE(middle("soft.png"), kLowest);
}

TEST(Picture, WithoutGnuplotThereIsAWarning) {
  const TemporaryDirectory directory;
  const Environment path("PATH", directory.path().string());
  const std::vector<std::string> warnings = draw({picture_of(directory / "map.png", small_panel())});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0], "gnuplot is not installed: no figures were drawn");
  EXPECT_EQ(directory.n_files(), 0u);
}

/// A stand-in for gnuplot, found before the real one.
void stand_in(const TemporaryDirectory& directory, const std::string& script) {
  fs::create_directory(directory.path() / "bin");
  const std::string program = directory.write("bin/gnuplot", "#!/bin/sh\n" + script);
  chmod(program.c_str(), 0755);
}

TEST(Picture, WhatGnuplotSaysIsAWarning) {
  const TemporaryDirectory directory;
  stand_in(directory, "printf 'line 0: no such terminal\\n\\tpngcairo\\n' >&2; exit 3\n");
  const Environment path("PATH", (directory / "bin") + ":/bin:/usr/bin");
  const std::vector<std::string> warnings = draw({picture_of(directory / "map.png", small_panel())});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0], "gnuplot failed with status 3: line 0: no such terminal pngcairo");
  EXPECT_FALSE(fs::exists(directory / "map.png"));
}

TEST(Picture, SlowGnuplotIsStoppedAndNothingStays) {
  const TemporaryDirectory directory;
  const TemporaryDirectory scratch;
  stand_in(directory, "sleep 100\n");
  const Environment path("PATH", (directory / "bin") + ":/bin:/usr/bin");
  const Environment temporary("TMPDIR", scratch.path().string());
  const auto start = std::chrono::steady_clock::now();
  const std::vector<std::string> warnings =
      draw({picture_of(directory / "map.png", small_panel())}, std::chrono::milliseconds(200));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0], "gnuplot took longer than 0.2 s and was stopped");
  EXPECT_EQ(scratch.n_files(), 0u);
}

TEST(Picture, AHalfDrawnPictureDoesNotReplaceAnEarlierOne) {
  const TemporaryDirectory directory;
  stand_in(directory, "printf '\\211PNG\\r\\n\\032\\n half of it' > 0.png\n");
  const Environment path("PATH", (directory / "bin") + ":/bin:/usr/bin");
  directory.write("map.png", "earlier");
  const std::vector<std::string> warnings = draw({picture_of(directory / "map.png", small_panel())});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0], (directory / "map.png") + ": gnuplot did not draw it");
  EXPECT_EQ(directory.read("map.png"), "earlier");
}

TEST(Picture, WithoutScratchSpaceThereIsAWarning) {
  const TemporaryDirectory directory;
  const Environment temporary("TMPDIR", directory / "nowhere");
  const std::vector<std::string> warnings = draw({picture_of(directory / "map.png", small_panel())});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("no figures were drawn: "), std::string::npos) << warnings[0];
}

TEST(Picture, RangesIgnoreACuspAndWhatIsNotFinite) {
  std::vector<double> values;
  for (int i = 0; i <= 1000; ++i) values.push_back(i * 1e-3);
  values[500] = 1e30;
  values.push_back(NAN);
  values.push_back(-INFINITY);
  const ColorRange range = quantile_range(values, 0.01, 0.99);
  EXPECT_NEAR(range.low, 0.01, 2e-3);
  EXPECT_NEAR(range.high, 0.99, 2e-3);
  const ColorRange symmetric = symmetric_range({-3, 1, 2, NAN, 1}, 1);
  EXPECT_EQ(symmetric.low, -3);
  EXPECT_EQ(symmetric.high, 3);
}

// ---- the figures of a fit --------------------------------------------------------------------------------

constexpr int kSide = 12;

/// A directory of results as a fit leaves it; maps are smooth functions of x and y.
void write_fit(const TemporaryDirectory& directory, bool with_truth, double network,
               const std::string& title = "A fit") {
  std::vector<FitsOutput> hdus;
  const auto add = [&](const char* name, int planes, double scale, double offset) {
    FitsOutput hdu;
    hdu.name = name;
    hdu.nx = kSide;
    hdu.ny = kSide - 2;
    hdu.planes = planes;
    hdu.pixel_scale = 0.1;
    hdu.center_x = 0.5;
    for (int i = 0; i < hdu.nx * hdu.ny * planes; ++i)
      hdu.values.push_back(offset + scale * (i % kSide) + 0.5 * scale * (i / kSide));
    hdus.push_back(hdu);
  };
  add("DATA", 1, 1, 0);
  add("MODEL", 1, 1.01, 0);
  add("NOISE", 1, 0, 2);
  add("MASK", 1, 0, 1);
  hdus.back().values[17] = 0;
  add("RESIDUAL", 1, 0.1, -1);
  add("SOURCE", 1, 2, 0);
  for (const char* suffix : {"NN", "MACRO", "TRUE"}) {
    const double scale = std::string(suffix) == "NN" ? network : 0.3;
    if (std::string(suffix) == "TRUE" && !with_truth) continue;
    add((std::string("PSI_") + suffix).c_str(), 1, scale, 7 * scale);
    add((std::string("ALPHA_") + suffix).c_str(), 2, scale, 0);
    add((std::string("KAPPA_") + suffix).c_str(), 1, scale, 0);
  }
  if (with_truth) add("IMAGE_TRUE", 1, 1, 0);
  write_fits(directory / "result.fits", hdus);
  directory.write(
      "result.json",
      R"({"metrics": {"chi2_reduced": 1.0124, "psi_relative_rms_all": null}, "config": {"title": ")" + title + "\"}}");
  directory.write("history.csv",
                  "step,time_s,loss,chi2_reduced,regularization,learning_rate,gradient_norm\n"
                  "0,0,40,10,0,1e-3,1\n10,1,8,2,0,1e-3,1\n20,2,4.05,1.0124,0,1e-3,1\n");
}

std::set<std::string> drawn(const TemporaryDirectory& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory.path() / "figures")) names.insert(entry.path().filename());
  return names;
}

const std::set<std::string> kAlways = {"image.png",  "data.png",        "model.png",  "residual.png",
                                       "source.png", "convergence.png", "history.png"};

TEST(Figures, OfAMaskedImageThePartThatIsUsed) {
  const TemporaryDirectory directory;
  write_fit(directory, true, 0.25);
  const FittedMaps whole = read_fitted_maps(directory.path().string());
  EXPECT_EQ(whole.data.nx, kSide);
  EXPECT_EQ(whole.data.ny, kSide - 2);
  // Columns 5 to 8 and rows 2 to 5 are used.
  std::vector<FitsOutput> hdus;
  for (const char* name : {"DATA", "MODEL", "NOISE", "RESIDUAL", "SOURCE", "MASK", "PSI_NN", "ALPHA_NN", "KAPPA_NN",
                           "PSI_MACRO", "ALPHA_MACRO", "KAPPA_MACRO"}) {
    const int planes = std::string(name).rfind("ALPHA", 0) == 0 ? 2 : 1;
    const FitsImage image = read_fits(directory / "result.fits", name, planes);
    FitsOutput hdu{name, image.nx, image.ny, planes, image.values, -64, "", 0.1, 0.5, 0, {}};
    if (std::string(name) == "MASK")
      for (int i = 0; i < image.nx * image.ny; ++i) {
        const int x = i % kSide, y = i / kSide;
        hdu.values[static_cast<std::size_t>(i)] = x >= 5 && x <= 8 && y >= 2 && y <= 5;
      }
    hdus.push_back(hdu);
  }
  write_fits(directory / "result.fits", hdus);
  const FittedMaps part = read_fitted_maps(directory.path().string());
  ASSERT_EQ(part.data.nx, 5);  // four and a margin
  ASSERT_EQ(part.data.ny, 5);
  EXPECT_EQ(part.used.size(), 25u);
  EXPECT_EQ(part.n_pixels, whole.n_pixels);
  EXPECT_EQ(part.n_pixels, whole.used.size());
  EXPECT_EQ(std::count(part.used.begin(), part.used.end(), 1), 16);
  EXPECT_EQ(part.source.nx, kSide);
  for (const PlacedMap* map : {&part.model, &part.network.kappa, &part.macro.alpha_y})
    ASSERT_EQ(map->values.size(), 25u);
  // Every pixel keeps its place and value.
  const double x = part.model.center_x - 2 * 0.1, x_whole = whole.model.center_x - 0.5 * (kSide - 1) * 0.1;
  const double y = part.model.center_y - 2 * 0.1, y_whole = whole.model.center_y - 0.5 * (kSide - 3) * 0.1;
  const auto column = std::lround((x - x_whole) / 0.1), row = std::lround((y - y_whole) / 0.1);
  EXPECT_NEAR(x_whole + 0.1 * static_cast<double>(column), x, 1e-12);
  EXPECT_NEAR(y_whole + 0.1 * static_cast<double>(row), y, 1e-12);
  EXPECT_EQ(part.model.values[7], whole.model.values[static_cast<std::size_t>((row + 1) * kSide + column + 2)]);
}

TEST(Figures, AFitWithTruthGetsEveryFigure) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory directory;
  write_fit(directory, true, 0.25);
  EXPECT_TRUE(draw_figures(directory.path().string()).empty());
  std::set<std::string> expected = kAlways;
  expected.insert({"potential.png", "deflection.png", "image_truth.png", "potential_truth.png", "deflection_truth.png",
                   "convergence_truth.png"});
  EXPECT_EQ(drawn(directory), expected);
  // Three maps of one frame side by side, in PNG's big-endian header.
  const std::string png = directory.read("figures/potential_truth.png");
  const auto number = [&](std::size_t at) {
    int value = 0;
    for (std::size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<unsigned char>(png[i]);
    return value;
  };
  EXPECT_GT(number(16), 3 * 460);
  EXPECT_GT(number(20), 460 * (kSide - 2) / kSide);
  EXPECT_LT(number(20), 700);
}

TEST(Figures, WithoutTruthOrNetworkTheyAreFewer) {
  NEEDS_GNUPLOT();
  const TemporaryDirectory with_network, smooth;
  write_fit(with_network, false, 0.25);
  EXPECT_TRUE(draw_figures(with_network.path().string()).empty());
  std::set<std::string> expected = kAlways;
  expected.insert({"potential.png", "deflection.png"});
  EXPECT_EQ(drawn(with_network), expected);
  write_fit(smooth, false, 0);
  EXPECT_TRUE(draw_figures(smooth.path().string()).empty());
  EXPECT_EQ(drawn(smooth), kAlways);
}

TEST(Figures, ShowTheMapsThatTheFitLeft) {
  const TemporaryDirectory directory;
  write_fit(directory, true, 0.25);
  const FittedMaps fit = read_fitted_maps(directory.path().string());
  EXPECT_EQ(fit.title, "A fit");
  EXPECT_EQ(fit.metric("chi2_reduced"), 1.0124);
  EXPECT_TRUE(std::isnan(fit.metric("psi_relative_rms_all")));
  EXPECT_TRUE(std::isnan(fit.data.values[17]));
  EXPECT_TRUE(std::isnan(fit.residual.values[17]));
  EXPECT_EQ(fit.data.center_x, 0.5);
  EXPECT_EQ(fit.steps, (std::vector<double>{0, 10, 20}));
  EXPECT_EQ(fit.loss[1], 8);
  // Arcs: data of slope 1 and 0.5 above 5 · 2, and used.
  EXPECT_EQ(fit.arc[17], 0);
  EXPECT_EQ(fit.arc[10], 0);
  EXPECT_EQ(fit.arc[11], 1);

  const Picture potential = picture_of_potential(fit);
  ASSERT_EQ(potential.cells.size(), 3u);
  const Panel& truth = std::get<Panel>(potential.cells[0]);
  const Panel& prediction = std::get<Panel>(potential.cells[1]);
  const Panel& error = std::get<Panel>(potential.cells[2]);
  EXPECT_EQ(truth.range.low, prediction.range.low);
  EXPECT_EQ(truth.range.high, prediction.range.high);
  EXPECT_EQ(error.range.low, -error.range.high);
  double sum = 0;
  for (std::size_t i = 0; i < truth.values.size(); ++i) {
    if (fit.used[i]) sum += truth.values[i];
    EXPECT_NEAR(error.values[i], prediction.values[i] - truth.values[i], 1e-12);
  }
  EXPECT_NEAR(sum, 0, 1e-9);  // the unobservable constant is gone
  EXPECT_EQ(std::get<Panel>(picture_of_image(fit).cells[2]).inset, "reduced χ² = 1.012");
  EXPECT_EQ(picture_of_deflection(fit).cells.size(), 6u);
}

TEST(Figures, NeedCompleteResults) {
  const TemporaryDirectory directory;
  EXPECT_THROW(draw_figures(directory.path().string()), InvalidInput);
  directory.write("result.json", "{");
  EXPECT_THROW(draw_figures(directory.path().string()), InvalidInput);
}

TEST(Figures, WithoutGnuplotThereIsOneWarning) {
  const TemporaryDirectory directory;
  write_fit(directory, true, 0.25);
  const Environment path("PATH", directory.path().string());
  EXPECT_EQ(draw_figures(directory.path().string()).size(), 1u);
}

}  // namespace
}  // namespace einfield
