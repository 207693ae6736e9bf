// `einfield new`, and `fit` of an image without a configuration: guesses on mocks whose truth is known, and every input
// that cannot be used.
#include "host/app/new.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "host/app/simulate.hpp"
#include "host/config/survey.hpp"
#include "host/files/fits_io.hpp"
#include "tests/run_binary.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

using json = nlohmann::json;

constexpr double kPixel = 0.06, kThetaE = 1.1, kX = 0.13, kY = -0.2;
constexpr int kSide = 90;

/// A galaxy off the middle, a source that is lensed, a sky that is not zero.
std::string mock(const std::string& source, const std::string& psf = "psf = { fwhm = 0.15, size = 9 }\n") {
  return "[observation]\npixel_scale = 0.06\nsupersampling = 2\n" + psf +
         "[[lens]]\nprofile = \"SIE\"\ntheta_E = 1.1\ne1 = 0.08\ne2 = -0.06\ncenter_x = 0.13\ncenter_y = -0.2\n" +
         source +
         "[[lens_light]]\nprofile = \"SERSIC_ELLIPSE\"\namp = 1.5\nR_sersic = 0.5\nn_sersic = 3.0\ne1 = 0.08\n"
         "e2 = -0.06\ncenter_x = 0.13\ncenter_y = -0.2\n"
         "[[lens_light]]\nprofile = \"UNIFORM\"\namp = 0.05\n"
         "[simulate]\nnx = 90\nny = 90\nnoise = 0.02\nseed = 5\n";
}

const std::string kSource =
    "[[source]]\nprofile = \"SERSIC_ELLIPSE\"\namp = 0.6\nR_sersic = 0.15\nn_sersic = 1.0\ne1 = 0.2\ncenter_x = 0.2\n"
    "center_y = -0.15\n";
const std::string kNoSource =
    "[[source]]\nprofile = \"GAUSSIAN\"\namp = 1e-9\nsigma = 0.1\ncenter_x = 0.13\ncenter_y = -0.2\n";

class NewLens : public ::testing::Test {
 protected:
  /// Simulates into sim.fits and splits it into data.fits, noise.fits and psf.fits.
  void make(const std::string& text) {
    simulate(read_config(folder_.write("sim.toml", text), {}, true), folder_ / "sim.fits", true);
    image_ = hdu("IMAGE");
    noise_ = hdu("NOISE");
    psf_ = hdu("PSF");
    write();
  }
  FitsOutput hdu(const std::string& name) const {
    const FitsImage image = read_fits(folder_ / "sim.fits", name);
    FitsOutput out;
    out.name = name;
    out.nx = image.nx;
    out.ny = image.ny;
    out.values = image.values;
    return out;
  }
  void write() const {
    for (const auto& [name, map] : {std::pair("data.fits", &image_), {"noise.fits", &noise_}, {"psf.fits", &psf_}}) {
      std::filesystem::remove(folder_.path() / name);
      write_fits(folder_ / name, {*map});
    }
  }
  NewOptions options() const {
    NewOptions o;
    o.image = folder_ / "data.fits";
    o.noise = folder_ / "noise.fits";
    o.psf = folder_ / "psf.fits";
    o.pixel_scale = kPixel;
    return o;
  }
  Config config(const FirstConfiguration& first) const {
    return read_config(folder_.write("lens.toml", first.toml), {}, false);
  }
  std::string failure(const NewOptions& o) const {
    try {
      first_configuration(o);
    } catch (const InvalidInput& error) {
      return std::regex_replace(error.what(), std::regex(folder_.path().string() + "/"), "");
    }
    return "nothing was thrown";
  }
  void expect_near_truth(const Config& c) const {
    const Model& m = c.model;
    EXPECT_NEAR(m.lens.at(0).values[0], kThetaE, 0.1 * kThetaE);
    EXPECT_NEAR(m.lens.at(0).values[3], kX, 0.5 * kPixel);
    EXPECT_NEAR(m.lens.at(0).values[4], kY, 0.5 * kPixel);
    EXPECT_NEAR(m.lens.at(0).values[1], 0.08, 0.05);
    EXPECT_NEAR(m.lens.at(0).values[2], -0.06, 0.05);
    EXPECT_NEAR(m.lens_light.at(2).values[0], 0.05, 0.05);  // the galaxy reaches far
  }

  TemporaryDirectory folder_;
  FitsOutput image_, noise_, psf_;
};

TEST_F(NewLens, TheGuessesAreNearTheTruthAndTheConfigurationLoadsWithoutWarning) {
  make(mock(kSource));
  const FirstConfiguration first = first_configuration(options());
  EXPECT_EQ(first.warnings, std::vector<std::string>{});
  EXPECT_EQ(first.doubts, std::vector<std::string>{});
  const Config c = config(first);
  expect_near_truth(c);
  EXPECT_EQ(c.recipe, "galaxy");
  EXPECT_EQ(c.warnings, std::vector<std::string>{});
  const LoadedProblem loaded = load_problem(c);
  EXPECT_EQ(loaded.warnings, std::vector<std::string>{});
  EXPECT_EQ(loaded.flags.size(), 0u);
  // The circle holds the arcs and fits into the image.
  ASSERT_EQ(c.observation.regions.size(), 1u);
  EXPECT_GT(c.observation.regions[0].radius, 1.5 * kThetaE);
  EXPECT_LE(c.observation.regions[0].radius, 0.5 * kSide * kPixel + 1e-9);
  // Every guess has a reason.
  for (const char* key : {"theta_E =", "supersampling =", "radius =", "amp = 0.05", "model_error ="}) {
    const std::size_t at = first.toml.find(std::string("\n") + key);
    ASSERT_NE(at, std::string::npos) << key;
    EXPECT_NE(first.toml.substr(at + 1, first.toml.find('\n', at + 1) - at - 1).find("# "), std::string::npos) << key;
  }
}

TEST_F(NewLens, SurvivesBadPixelsNeighborsAndADoubleImage) {
  make(
      mock("[[source]]\nprofile = \"SERSIC_ELLIPSE\"\namp = 0.8\nR_sersic = 0.08\nn_sersic = 1.0\ncenter_x = 0.55\n"
           "center_y = -0.1\n"));
  image_.values[5] = std::numeric_limits<double>::quiet_NaN();
  for (int y = 70; y < 80; ++y)
    for (int x = 70; x < 80; ++x) noise_.values[static_cast<std::size_t>(y * kSide + x)] = 1e8;
  for (int y = 62; y < 68; ++y)  // 2.6 arcsec from the lens: a star
    for (int x = 8; x < 14; ++x) image_.values[static_cast<std::size_t>(y * kSide + x)] += 3;
  write();
  const FirstConfiguration first = first_configuration(options());
  const Config c = config(first);
  EXPECT_NEAR(c.model.lens.at(0).values[0], kThetaE, 0.15 * kThetaE);
  EXPECT_NEAR(c.model.lens.at(0).values[3], kX, 0.5 * kPixel);
  bool star = false;  // is masked
  for (const RegionConfig& region : c.observation.regions)
    star |= !region.keep && region.contains({(10.5 - 44.5) * kPixel, (64.5 - 44.5) * kPixel});
  EXPECT_TRUE(star) << first.toml;
  EXPECT_EQ(load_problem(c).problem.observation.mask[static_cast<std::size_t>(75 * kSide + 75)], 0);
}

TEST_F(NewLens, AnImageWithoutALensIsSaidToBeOne) {
  make(mock(kNoSource));
  const FirstConfiguration first = first_configuration(options());
  ASSERT_EQ(first.doubts.size(), 1u);
  EXPECT_NE(first.doubts[0].find("no arcs were found beside the galaxy"), std::string::npos) << first.doubts[0];
  EXPECT_NE(first.toml.find("# no arcs were found"), std::string::npos);
  config(first);
  // A fit of it says so as well, and keeps it in the result.
  const Surroundings around{folder_.path().string(), {}, "", {}, {}, {}, false, 0, false};
  const Outcome outcome = run_binary(
      {"fit", "data.fits", "--noise", "noise.fits", "--psf", "psf.fits", "--pixel-scale", "0.06", "--backend", "cpu",
       "--threads", "1", "--out", "out", "--set", "optimizer.steps=2", "--set", "optimizer.starts=2"},
      around);
  EXPECT_NE(outcome.err.find("no arcs were found beside the galaxy"), std::string::npos) << outcome.err;
  const json result = json::parse(folder_.read("out/result.json"));
  EXPECT_NE(result["warnings"].dump().find("no arcs were found"), std::string::npos);
  EXPECT_NE(result["status"], "ok");
}

TEST_F(NewLens, AnImageThatShowsNothingStillGivesAConfiguration) {
  for (const int side : {4, 13}) {
    image_ = {};
    image_.name = "IMAGE";
    image_.nx = image_.ny = side;
    image_.values.assign(static_cast<std::size_t>(side * side), 0.0);
    std::filesystem::remove(folder_.path() / "data.fits");
    write_fits(folder_ / "data.fits", {image_});
    NewOptions o;
    o.image = folder_ / "data.fits";
    o.noise = "0.5";
    o.psf = "none";
    o.pixel_scale = kPixel;
    const FirstConfiguration first = first_configuration(o);
    EXPECT_EQ(first.doubts.size(), 1u);
    EXPECT_EQ(load_problem(config(first)).warnings, std::vector<std::string>{});
  }
}

TEST_F(NewLens, TheMaskOfTheOtherPolarityIsRecognized) {
  make(mock(kSource));
  FitsOutput mask;
  mask.name = "MASK";
  mask.nx = mask.ny = kSide;
  for (const bool ones_are_used : {true, false}) {
    mask.values.clear();
    for (int i = 0; i < kSide * kSide; ++i)
      mask.values.push_back((std::hypot(i % kSide - 45, i / kSide - 45) < 40) == ones_are_used);
    std::filesystem::remove(folder_.path() / "mask.fits");
    write_fits(folder_ / "mask.fits", {mask});
    NewOptions o = options();
    o.mask = folder_ / "mask.fits";
    const FirstConfiguration first = first_configuration(o);
    const Config c = config(first);
    EXPECT_EQ(c.observation.mask_used, ones_are_used ? 1 : 0);
    EXPECT_EQ(first.toml.find("0 = used") == std::string::npos, ones_are_used);
    expect_near_truth(c);
  }
  mask.values[0] = 4;
  std::filesystem::remove(folder_.path() / "mask.fits");
  write_fits(folder_ / "mask.fits", {mask});
  NewOptions o = options();
  o.mask = folder_ / "mask.fits";
  EXPECT_NE(first_configuration(o).toml.find("a map of flags"), std::string::npos);
}

TEST_F(NewLens, AMapOfVariancesOrWeightsIsRecognizedByTheSky) {
  make(mock(kSource));
  for (double& v : noise_.values) v = v * v;
  write();
  EXPECT_EQ(config(first_configuration(options())).observation.noise.kind, NoiseKind::variance);
  for (double& v : noise_.values) v = 1 / v;
  write();
  const FirstConfiguration first = first_configuration(options());
  EXPECT_EQ(config(first).observation.noise.kind, NoiseKind::weight);
  EXPECT_NE(first.toml.find("# its values fit the scatter of blank sky"), std::string::npos);
  NewOptions o = options();
  o.noise_kind = "sigma";  // who says so is believed
  EXPECT_EQ(config(first_configuration(o)).observation.noise.kind, NoiseKind::sigma);
}

TEST_F(NewLens, NoiseBelowTheScatterOfTheSkyGetsAFloor) {
  make(mock(kSource));
  EXPECT_EQ(config(first_configuration(options())).observation.noise_floor, 0);
  for (double& v : noise_.values) v /= 2;
  write();
  const Config c = config(first_configuration(options()));
  EXPECT_NEAR(c.observation.noise_floor, 0.02, 0.002);
  const Observation o = load_problem(c).problem.observation;
  for (std::size_t i = 0; i < o.noise.size(); ++i) {
    if (!o.mask[i]) continue;
    const double error = c.observation.model_error * std::max(o.image[i], 0.0);
    EXPECT_NEAR(o.noise[i], std::hypot(c.observation.noise_floor, error), 1e-12);
  }
}

TEST_F(NewLens, ThePsfTellsItsSampling) {
  make(mock(kSource, "psf = { fwhm = 0.15, size = 9 }\npsf_supersampling = 2\n"));
  FitsOutput psf = psf_;
  psf.cards = {{"PIXELSCL", "0.03"}};
  std::filesystem::remove(folder_.path() / "psf.fits");
  write_fits(folder_ / "psf.fits", {psf});
  const FirstConfiguration first = first_configuration(options());
  const Config c = config(first);
  EXPECT_EQ(c.observation.psf_supersampling, 2);
  EXPECT_EQ(c.observation.supersampling % 2, 0);
  EXPECT_NE(first.toml.find("# PIXELSCL = 0.03 arcsec in the header of the PSF"), std::string::npos) << first.toml;
  EXPECT_EQ(load_problem(c).flags.size(), 0u);
}

TEST_F(NewLens, WidthOfAGaussianKernel) {
  for (const double fwhm : {1.5, 2.5, 6.0}) {
    Psf psf{15, 15, {}, 1};
    for (int i = 0; i < 15 * 15; ++i) {
      const double x = i % 15 - 7, y = i / 15 - 7;
      psf.values.push_back(std::exp(-4 * std::log(2) * (x * x + y * y) / (fwhm * fwhm)));
    }
    EXPECT_NEAR(width_of(psf), fwhm, 1e-9);
    psf.supersampling = 2;
    EXPECT_NEAR(width_of(psf), fwhm / 2, 1e-9);
  }
  EXPECT_EQ(width_of(Psf{}), 0);
  EXPECT_EQ(width_of(Psf{1, 1, {1}, 1}), 1);
}

TEST_F(NewLens, BadInputIsRefusedByName) {
  make(mock(kSource));
  const auto with = [&](auto change) {
    NewOptions o = options();
    change(o);
    return failure(o);
  };
  EXPECT_EQ(with([](NewOptions& o) { o.noise = ""; }),
            "--noise: missing, expected \"FILE[HDU]\" with 1 sigma of every pixel, or a number > 0");
  EXPECT_EQ(with([](NewOptions& o) { o.noise = "-1"; }),
            "--noise: out of range, found -1, expected a number > 0 or \"FILE[HDU]\"");
  EXPECT_EQ(with([](NewOptions& o) { o.psf = ""; }),
            "--psf: missing, expected \"FILE[HDU]\" with the kernel, or none for an image without a PSF");
  EXPECT_EQ(with([](NewOptions& o) { o.pixel_scale.reset(); }),
            "--pixel-scale: missing, found no celestial WCS in data.fits, expected the side of a pixel in arcsec");
  EXPECT_EQ(with([](NewOptions& o) {
              o.noise = "0.02";
              o.noise_kind = "weight";
            }),
            "--noise-kind: has no effect, found weight with a number as noise, expected it with a map");
  EXPECT_EQ(with([this](NewOptions& o) { o.noise = folder_ / "psf.fits"; }),
            "psf.fits[PSF]: different shape, found 9 x 9 pixels, expected 90 x 90 as in data.fits[IMAGE]");
  EXPECT_EQ(with([this](NewOptions& o) { o.mask = folder_ / "psf.fits"; }),
            "psf.fits[PSF]: different shape, found 9 x 9 pixels, expected 90 x 90 as in data.fits[IMAGE]");
  EXPECT_EQ(with([this](NewOptions& o) { o.psf = folder_ / "data.fits"; }).rfind("data.fits[IMAGE]: a PSF", 0), 0u);
  EXPECT_NE(with([this](NewOptions& o) { o.image = folder_ / "nothing.fits"; }).find("nothing.fits"),
            std::string::npos);
  for (double& v : image_.values) v = std::numeric_limits<double>::quiet_NaN();
  write();
  EXPECT_EQ(failure(options()).rfind("data.fits[IMAGE]: every pixel is masked", 0), 0u) << failure(options());
  make(mock(kSource));
  noise_.values[100] = -1;
  write();
  EXPECT_EQ(failure(options()).rfind("noise.fits[NOISE]: invalid noise, found -1", 0), 0u) << failure(options());
}

TEST_F(NewLens, TheCommandWritesAConfigurationThatFitTakesWithoutWarning) {
  make(mock(kSource));
  const Surroundings around{folder_.path().string(), {}, "", {}, {}, {}, false, 0, false};
  const Outcome written =
      run_binary({"new", "data.fits", "--noise", "noise.fits", "--psf", "psf.fits", "--pixel-scale", "0.06"}, around);
  EXPECT_EQ(written.status, 0);
  EXPECT_EQ(written.err, "");
  folder_.write("lens.toml", written.out);
  const Outcome read = run_binary({"fit", "lens.toml", "--dry-run", "--backend", "cpu"}, around);
  EXPECT_EQ(read.status, 0) << read.err;
  EXPECT_EQ(read.err, "");
  const Outcome bad =
      run_binary({"new", "data.fits", "--noise", "noise.fits", "--psf", "psf.fits", "--pixel-scale", "-1"}, around);
  EXPECT_EQ(bad.status, 2);
  EXPECT_EQ(bad.err, "einfield: error: --pixel-scale: out of range, found -1, expected a number > 0 arcsec\n");
  const Outcome both = run_binary({"fit", "lens.toml", "--noise", "noise.fits"}, around);
  EXPECT_EQ(both.status, 2);
  EXPECT_NE(both.err.find("have no effect with the configuration lens.toml"), std::string::npos) << both.err;
}

TEST_F(NewLens, CutsOutWhatTheFitNeeds) {
  make(mock(kSource));
  for (FitsOutput* map : {&image_, &noise_}) {  // much more sky around the lens
    FitsOutput wide = *map;
    wide.nx = 201;
    wide.ny = 231;
    wide.values.clear();
    for (int y = 0; y < wide.ny; ++y)
      for (int x = 0; x < wide.nx; ++x) {
        const int u = x - 56, v = y - 71;
        const bool inside = u >= 0 && v >= 0 && u < map->nx && v < map->ny;
        wide.values.push_back(inside           ? map->values[static_cast<std::size_t>(v * map->nx + u)]
                              : map == &noise_ ? 0.02
                                               : 0.05 + 0.02 * std::sin(12.9898 * x + 78.233 * y) * 1.4);
      }
    *map = wide;
  }
  write();
  const std::string text = first_configuration(options()).toml;
  std::smatch part;
  ASSERT_TRUE(std::regex_search(text, part, std::regex(R"(\[(\d+):(\d+),(\d+):(\d+)\]")"))) << text;
  const int x0 = std::stoi(part[1]), x1 = std::stoi(part[2]), y0 = std::stoi(part[3]), y1 = std::stoi(part[4]);
  EXPECT_EQ(x0 + x1, 202);  // the middle stays the middle
  EXPECT_EQ(y0 + y1, 232);
  const Config config = read_config(folder_.write("lens.toml", text), {}, false);
  const LoadedProblem cut = load_problem(config);
  Config whole = config;
  whole.observation.image.section.reset();
  const LoadedProblem all = load_problem(whole);
  EXPECT_LT(10 * cut.problem.observation.image.size(), 8 * all.problem.observation.image.size());
  EXPECT_EQ(cut.problem.observation.n_used(), all.problem.observation.n_used());
  EXPECT_EQ(cut.problem.observation.noise.size(), cut.problem.observation.image.size());
  // Nothing is lost: the circle and the PSF lie inside.
  const Observation& o = cut.problem.observation;
  for (int i = 0; i < o.grid.n_pixels(); ++i) {
    const int x = i % o.grid.nx, y = i / o.grid.nx, reach = o.psf.nx / 2;
    if (!o.mask[static_cast<std::size_t>(i)]) continue;
    EXPECT_TRUE(x >= reach && y >= reach && x + reach < o.grid.nx && y + reach < o.grid.ny);
  }
}

TEST_F(NewLens, PixelsAndNetworkComeOnRequest) {
  make(mock(kSource));
  NewOptions o = options();
  const auto config = [&] { return read_config(folder_.write("lens.toml", first_configuration(o).toml), {}, false); };
  EXPECT_EQ(config().optimizer.stages.size(), 3u);
  o.pixels = true;
  const Config pixels = config();
  ASSERT_EQ(pixels.model.source.size(), 2u);
  EXPECT_TRUE(pixels.model.source[1].pixels_free);
  EXPECT_EQ(pixels.optimizer.stages.size(), 4u);
  EXPECT_FALSE(pixels.network);
  o.network = true;
  EXPECT_TRUE(config().network);
  EXPECT_NO_THROW(load_problem(config()));
}

TEST_F(NewLens, FitOfAnImageFindsTheLens) {
  make(mock(kSource));
  const Surroundings around{folder_.path().string(), {}, "", {}, {}, {}, false, 0, false};
  const std::vector<std::string> command = {
      "fit",       "data.fits", "--noise",   "noise.fits", "--psf", "psf.fits", "--pixel-scale", "0.06",
      "--backend", "cpu",       "--threads", "1",          "--out", "out",      "--set",         "optimizer.starts=6"};
  std::vector<std::string> dry = command;
  dry.emplace_back("--dry-run");
  EXPECT_EQ(run_binary(dry, around).status, 0);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "out"));
  const Outcome outcome = run_binary(command, around);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("\nstage 2 of 3, starts: 6 of 6 ended, lowest reduced chi2 "), std::string::npos)
      << outcome.out;
  EXPECT_NE(outcome.out.find("\nstage 1 of 3: levenberg_marquardt of lens_light: converged after "), std::string::npos)
      << outcome.out;
  const json result = json::parse(folder_.read("out/result.json"));
  EXPECT_NEAR(result["parameters"]["lens.0.theta_E"], kThetaE, 0.01 * kThetaE);
  EXPECT_NEAR(result["parameters"]["lens.0.center_x"], kX, 0.03);
  EXPECT_LT(result["metrics"]["chi2_reduced"], 1.1);
  ASSERT_EQ(result["stages"].size(), 3u);
  EXPECT_EQ(result["stages"][2]["stop_reason"], "converged");
  EXPECT_EQ(result["starts"]["count"], 6);
  EXPECT_GE(result["starts"]["reached_best"], 2);
  EXPECT_TRUE(std::filesystem::exists(folder_.path() / "out/lens.toml"));
  const Outcome again = run_binary(command, around);
  EXPECT_EQ(again.status, 2);
  EXPECT_NE(again.err.find("--out: out holds results"), std::string::npos) << again.err;
}

}  // namespace
}  // namespace einfield
