// The data of a configuration: what is masked with a warning, what is an error, and in which words.
#include "host/config/load_problem.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <tuple>

#include "einfield/error.hpp"
#include "einfield/psf.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// An observation of 4 x 3 pixels in data.fits, and the configuration that names it.
class LoadProblem : public testing::Test {
 protected:
  LoadProblem() {
    image_.name = "IMAGE";
    image_.nx = 4;
    image_.ny = 3;
    for (int i = 0; i < 12; ++i) image_.values.push_back(i + 0.5);
    image_.unit = "electron/s";
    noise_ = mask_ = image_;
    noise_.name = "NOISE";
    noise_.values.assign(12, 0.5);
    mask_.name = "MASK";
    mask_.values.assign(12, 1.0);
    psf_ = {"PSF", 3, 3, 1, {0, 0.125, 0, 0.125, 0.5, 0.125, 0, 0.125, 0}, -64, "", 0, 0, 0, {}};
  }

  Config config(const std::vector<Override>& more = {}) {
    const std::string text = R"(
recipe = "biggio2021"
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
mask = "data.fits[MASK]"
psf = "data.fits[PSF]"
pixel_scale = 0.1
center_x = 0.3
[[source]]
profile = "GAUSSIAN"
amp = 1.0
sigma = 0.5
fit = ["sigma"]
)";
    write_fits(directory_ / "data.fits", {image_, noise_, mask_, psf_});
    return read_config(directory_.write("lens.toml", text), more, false);
  }
  LoadedProblem load(const std::vector<Override>& more = {}) { return load_problem(config(more)); }
  std::string failure(const std::vector<Override>& more = {}) {
    try {
      load(more);
    } catch (const InvalidInput& error) {
      return error.what();
    }
    return "no InvalidInput";
  }
  std::string hdu(const std::string& name) const { return directory_ / ("data.fits[" + name + "]: "); }

  TemporaryDirectory directory_;
  FitsOutput image_, noise_, mask_, psf_;
};

TEST_F(LoadProblem, TakesGoodDataAsTheyAre) {
  const LoadedProblem loaded = load();
  const Observation& o = loaded.problem.observation;
  EXPECT_EQ(o.grid.nx, 4);
  EXPECT_EQ(o.grid.ny, 3);
  EXPECT_EQ(o.grid.pixel_scale, 0.1);
  EXPECT_EQ(o.grid.center_x, 0.3);
  EXPECT_EQ(o.image, image_.values);
  EXPECT_EQ(o.noise, noise_.values);
  EXPECT_EQ(o.n_used(), 12);
  EXPECT_EQ(o.psf.values, psf_.values);
  EXPECT_EQ(loaded.unit, "electron/s");
  EXPECT_EQ(loaded.pixel_scale, 0.1);
  EXPECT_FALSE(loaded.truth.has_value());
  EXPECT_TRUE(loaded.warnings.empty());
  ASSERT_EQ(loaded.problem.initial_parameters.size(), 1u);
  EXPECT_DOUBLE_EQ(loaded.problem.initial_parameters[0], std::log(0.5));
  o.validate();
}

TEST_F(LoadProblem, APartOfAnImageCutsItsMaps) {
  noise_.values[6] = 0.25;
  mask_.values[9] = 0;
  psf_ = {"PSF", 1, 1, 1, {1}, -64, "", 0, 0, 0, {}};
  const std::string part = "\"data.fits[IMAGE][2:3,2:3]\"";
  const Observation o = load({{"observation.image", part}}).problem.observation;
  EXPECT_EQ(o.grid.nx, 2);
  EXPECT_EQ(o.grid.ny, 2);
  EXPECT_EQ(o.grid.center_x, 0.3);  // of the part
  EXPECT_EQ(o.image, (std::vector<double>{5.5, 6.5, 9.5, 10.5}));
  EXPECT_EQ(o.noise, (std::vector<double>{0.5, 0.25, 0.5, 0.5}));
  EXPECT_EQ(o.mask, (std::vector<std::uint8_t>{1, 1, 0, 1}));
  // A map may have its own part, or the shape of the part already.
  noise_.values = {1, 2, 3, 4};
  noise_.nx = noise_.ny = 2;
  EXPECT_EQ(load({{"observation.image", part}}).problem.observation.noise, noise_.values);
  EXPECT_EQ(load({{"observation.image", part}, {"observation.noise", "\"data.fits[IMAGE][1:2,1:2]\""}})
                .problem.observation.noise,
            (std::vector<double>{0.5, 1.5, 4.5, 5.5}));
  noise_.nx = 1;
  noise_.ny = 4;
  EXPECT_NE(failure({{"observation.image", part}}).find("different shape, found 1 x 4 pixels, expected 2 x 2"),
            std::string::npos)
      << failure({{"observation.image", part}});
  EXPECT_NE(failure({{"observation.image", "\"data.fits[IMAGE][2:5,1:2]\""}})
                .find("a part beyond the image, found [2:5,1:2] of 4 x 3 pixels"),
            std::string::npos);
  EXPECT_NE(failure({{"observation.image", "\"data.fits[2-3,1:2]\""}}).find("no part of an image, found [2-3,1:2]"),
            std::string::npos);
}

TEST_F(LoadProblem, TheZeroPointIsThatOfTheKeyOrTheHeader) {
  EXPECT_FALSE(load().zero_point);
  image_.unit = "nJy";
  EXPECT_NEAR(load().zero_point.value(), 31.4, 1e-4);
  EXPECT_EQ(load({{"observation.zero_point", "25.9"}}).zero_point, 25.9);
}

TEST_F(LoadProblem, MasksWhatIsNotFinite) {
  image_.values[2] = kNan;
  image_.values[5] = kInf;
  image_.values[7] = -kInf;
  mask_.values[7] = 0;  // already masked: not counted
  noise_.values[2] = kNan;
  const LoadedProblem loaded = load();
  EXPECT_EQ(loaded.problem.observation.mask, (std::vector<std::uint8_t>{1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1}));
  EXPECT_EQ(loaded.warnings, std::vector<std::string>{hdu("IMAGE") + "2 pixels not finite, masked"});
  loaded.problem.observation.validate();
}

TEST_F(LoadProblem, MasksLargeNoise) {
  noise_.values[0] = 1e8;
  noise_.values[1] = kInf;
  noise_.values[2] = 500;  // the limit itself, a thousand times the median, is good
  LoadedProblem loaded = load();
  EXPECT_EQ(loaded.problem.observation.n_used(), 10);
  EXPECT_EQ(loaded.warnings,
            std::vector<std::string>{hdu("NOISE") +
                                     "2 pixels with noise above max_noise = 1000 times the median of 0.5, masked"});
  loaded = load({{"observation.max_noise", "1e9"}});  // a limit that the user gives: a line of the log, no warning
  EXPECT_EQ(loaded.warnings, std::vector<std::string>{});
  EXPECT_EQ(loaded.notes,
            std::vector<std::string>{hdu("NOISE") +
                                     "1 pixel with noise above max_noise = 1e+09 times the median of 0.5, masked"});
}

TEST_F(LoadProblem, BadNoiseIsAnErrorWhereItIsUsed) {
  for (const double bad : {0.0, -1.0, -kInf, kNan}) {
    noise_.values.assign(12, 0.5);
    noise_.values[6] = noise_.values[9] = bad;
    mask_.values.assign(12, 1.0);
    EXPECT_NE(failure().find("NOISE]: invalid noise, found "), std::string::npos) << failure();
    EXPECT_NE(failure().find(" at column 3, row 2 (from 1), expected > 0 where the mask is 1"), std::string::npos);
    mask_.values[6] = mask_.values[9] = 0;
    EXPECT_EQ(load().problem.observation.n_used(), 10);
  }
}

TEST_F(LoadProblem, EveryMapHasTheShapeOfTheImage) {
  const std::string expected =
      "different shape, found 3 x 4 pixels, expected 4 x 3 as in " + (directory_ / "data.fits[IMAGE]");
  for (FitsOutput* map : {&noise_, &mask_}) {
    std::swap(map->nx, map->ny);
    EXPECT_EQ(failure(), hdu(map->name) + expected);
    std::swap(map->nx, map->ny);
  }
}

TEST_F(LoadProblem, AllMaskedIsAnError) {
  mask_.values.assign(12, 0);
  mask_.values[0] = mask_.values[1] = 1;
  image_.values[0] = kNan;
  noise_.values[1] = 1e8;
  EXPECT_EQ(failure(), hdu("IMAGE") +
                           "every pixel is masked, found 10 masked by observation.mask, 1 not finite, 1 with "
                           "noise above max_noise = 1000 times the median of 0.5, expected at least one used pixel");
}

TEST_F(LoadProblem, AMaskHoldsZerosAndOnes) {
  for (const auto& [bad, text] : {std::pair{0.5, "0.5"}, {2.0, "2"}, {kNan, "nan"}}) {
    mask_.values[5] = bad;
    EXPECT_EQ(failure(),
              hdu("MASK") + "a mask value other than 0 and 1, found " + text +
                  " at column 2, row 2 (from 1), expected 1 = used, 0 = masked, or observation.mask_used = 0");
  }
}

TEST_F(LoadProblem, AMaskMayMarkWhatIsNotUsed) {
  mask_.values.assign(12, 0.0);
  mask_.values[1] = 1;
  mask_.values[5] = 4096;  // a flag
  mask_.values[7] = -1;
  EXPECT_EQ(load({{"observation.mask_used", "0"}}).problem.observation.mask,
            (std::vector<std::uint8_t>{1, 0, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1}));
  mask_.values[6] = kNan;
  EXPECT_EQ(failure({{"observation.mask_used", "0"}}),
            hdu("MASK") + "not a number at column 3, row 2 (from 1), expected 0 = used, anything else = masked");
}

TEST_F(LoadProblem, RegionsKeepOrMaskPixelsByTheirCentres) {
  // Columns at x = 0.15, 0.25, 0.35, 0.45, rows at y = -0.1, 0, 0.1.
  const auto mask = [&](const std::string& regions) {
    const LoadedProblem loaded = load({{"observation.region", regions}});
    EXPECT_TRUE(loaded.warnings.empty());
    return loaded.problem.observation.mask;
  };
  using Mask = std::vector<std::uint8_t>;
  EXPECT_EQ(mask("[{ shape = \"circle\", center_x = 0.25, radius = 0.101 }]"),
            (Mask{0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0}));
  EXPECT_EQ(mask("[{ shape = \"circle\", center_x = 0.25, radius = 0.101, keep = false }]"),
            (Mask{1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1}));
  EXPECT_EQ(mask("[{ shape = \"annulus\", center_x = 0.25, center_y = 0.1, inner = 0.05, outer = 0.15 }]"),
            (Mask{0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0}));
  // Those that are kept add up; one that is not is taken from them.
  EXPECT_EQ(mask("[{ shape = \"circle\", center_x = 0.15, radius = 0.11 }, { shape = \"circle\", center_x = 0.45, "
                 "radius = 0.01 }, { shape = \"circle\", center_x = 0.15, radius = 0.05, keep = false }]"),
            (Mask{1, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0}));
  mask_.values[5] = 0;
  EXPECT_EQ(mask("[{ shape = \"circle\", center_x = 0.25, radius = 0.101 }]"),
            (Mask{0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0}));
  EXPECT_EQ(failure({{"observation.region", "[{ shape = \"circle\", center_x = 9.0, radius = 0.1 }]"}}),
            hdu("IMAGE") +
                "every pixel is masked, found 12 masked by observation.mask and observation.region, 0 not "
                "finite, 0 with noise above max_noise = 1000 times the median of 0, expected at least one used pixel");
}

TEST_F(LoadProblem, NoiseAsVarianceOrWeight) {
  for (std::size_t i = 0; i < 12; ++i) noise_.values[i] = 0.25 * static_cast<double>(i + 1);
  Observation o = load({{"observation.noise_kind", "\"variance\""}}).problem.observation;
  for (std::size_t i = 0; i < 12; ++i) EXPECT_DOUBLE_EQ(o.noise[i], std::sqrt(noise_.values[i]));
  o = load({{"observation.noise_kind", "\"weight\""}}).problem.observation;
  for (std::size_t i = 0; i < 12; ++i) EXPECT_DOUBLE_EQ(o.noise[i], 1 / std::sqrt(noise_.values[i]));

  // Weight 0 is no data, and 1e-8 is a noise of 1e4.
  noise_.values[2] = noise_.values[3] = 0;
  noise_.values[4] = 1e-8;
  const LoadedProblem loaded = load({{"observation.noise_kind", "\"weight\""}});
  EXPECT_EQ(loaded.problem.observation.mask, (std::vector<std::uint8_t>{1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(loaded.warnings,
            (std::vector<std::string>{hdu("NOISE") + "2 pixels of weight 0, masked",
                                      hdu("NOISE") + "1 pixel with noise above max_noise = 1000 times the median of " +
                                          rounded(std::sqrt(0.5)) + ", masked"}));
  loaded.problem.observation.validate();
  // A variance of 1e8 is a noise of 1e4; one of 0 is none.
  noise_.values.assign(12, 0.25);
  noise_.values[7] = 1e8;
  noise_.values[8] = kInf;
  EXPECT_EQ(load({{"observation.noise_kind", "\"variance\""}}).warnings,
            std::vector<std::string>{hdu("NOISE") +
                                     "2 pixels with noise above max_noise = 1000 times the median of 0.5, masked"});
  const std::string place = " at column 4, row 1 (from 1), expected > 0 where the mask is 1";
  for (const auto& [kind, bad, text] : {std::tuple{"variance", 0.0, "variance, found 0"},
                                        {"variance", -0.5, "variance, found -0.5"},
                                        {"weight", -0.5, "weight, found -0.5"},
                                        {"weight", kNan, "weight, found nan"},
                                        {"weight", kInf, "weight, found inf"}}) {
    noise_.values[3] = bad;
    EXPECT_EQ(failure({{"observation.noise_kind", '"' + std::string(kind) + '"'}}),
              hdu("NOISE") + "invalid " + text + place);
  }
  noise_.values.assign(12, 0.0);
  EXPECT_NE(failure({{"observation.noise_kind", "\"weight\""}}).find(", 12 of weight 0, 0 with noise above"),
            std::string::npos);
}

TEST_F(LoadProblem, NoiseFromSkyAndPhotons) {
  image_.values[0] = -3;  // below the sky: no negative photons
  const std::string text =
      "[observation]\nimage = 'data.fits'\nbackground_rms = 0.3\nexposure_time = 50.0\npixel_scale = 0.1\n"
      "[[source]]\nprofile = 'GAUSSIAN'\namp = 1\nsigma = 1\nfit = ['amp']\n";
  write_fits(directory_ / "data.fits", {image_});
  const LoadedProblem loaded = load_problem(read_config(directory_.write("sky.toml", text), {}, false));
  EXPECT_DOUBLE_EQ(loaded.problem.observation.noise[0], 0.3);
  EXPECT_DOUBLE_EQ(loaded.problem.observation.noise[11], std::sqrt(0.09 + 11.5 / 50));
  EXPECT_TRUE(loaded.problem.observation.psf.empty());
}

TEST_F(LoadProblem, OneNumberIsNoiseEverywhere) {
  EXPECT_EQ(load({{"observation.noise", "2"}}).problem.observation.noise, std::vector<double>(12, 2.0));
}

// ---- PSF
// ---------------------------------------------------------------------------------------------------------------

TEST_F(LoadProblem, PsfIsNormalisedWithAWarning) {
  for (double& v : psf_.values) v *= 2;
  LoadedProblem loaded = load();
  EXPECT_EQ(loaded.problem.observation.psf.values[4], 0.5);
  EXPECT_EQ(loaded.warnings, std::vector<std::string>{hdu("PSF") + "the PSF sums to 2, normalized to 1"});
  for (double& v : psf_.values) v *= 0.5 * (1 + 1e-7);  // rounding in single precision
  loaded = load();
  EXPECT_DOUBLE_EQ(loaded.problem.observation.psf.values[4], 0.5);
  EXPECT_TRUE(loaded.warnings.empty());
}

TEST_F(LoadProblem, AnOffCenterPsfIsAWarning) {
  psf_.values = {0, 0, 0, 0, 0.7, 0.3, 0, 0, 0};
  const LoadedProblem loaded = load();
  EXPECT_EQ(
      loaded.warnings,
      std::vector<std::string>{
          hdu("PSF") + "the PSF is off-center by (0.3, 0) pixels; the model image is shifted by the same amount"});
  EXPECT_EQ(loaded.problem.observation.psf.values, psf_.values);  // used as it is
  psf_.values = {0, 0, 0, 0, 0.76, 0.24, 0, 0, 0};
  EXPECT_TRUE(load().warnings.empty());
  // In pixels, not in samples of the kernel.
  psf_.values = {0, 0, 0, 0, 0.6, 0.4, 0, 0, 0};
  EXPECT_TRUE(load({{"observation.supersampling", "2"}, {"observation.psf_supersampling", "2"}}).warnings.empty());
  psf_.values = {0, 2, 0, 0, 0, 0, 0, 0, 0};  // of the normalized kernel
  EXPECT_EQ(load().warnings[1],
            hdu("PSF") + "the PSF is off-center by (0, -1) pixels; the model image is shifted by the same amount");
}

TEST_F(LoadProblem, BadPsfIsAnError) {
  const FitsOutput good = psf_;
  const auto expect = [&](const std::function<void()>& spoil, const std::string& message) {
    psf_ = good;
    spoil();
    EXPECT_EQ(failure(), hdu("PSF") + message);
  };
  expect([&] { psf_.nx = 2, psf_.values.assign(6, 0.1); },
         "a PSF of even size, found 2 x 3 pixels, expected odd numbers, centered on the middle pixel");
  expect([&] { psf_.values[4] = -1; }, "the PSF sums to -0.5, expected > 0");
  expect([&] { psf_.values.assign(9, 0.0); }, "the PSF sums to 0, expected > 0");
  expect([&] { psf_.values[5] = kNan; },
         "a PSF that is not finite, found nan at column 3, row 2 (from 1), expected finite values everywhere");
  expect([&] { psf_.nx = 5, psf_.ny = 1, psf_.values.assign(5, 0.2); },
         "a PSF larger than the image, found 5 x 1 pixels, expected at most 4 x 3");
}

TEST_F(LoadProblem, PsfFromAProfile) {
  EXPECT_EQ(load({{"observation.psf", "{ fwhm = 0.1 }"}}).problem.observation.psf.values,
            gaussian_psf(0.1, 0.1).values);
  EXPECT_EQ(load({{"observation.psf", "{ type = \"moffat\", fwhm = 0.1, beta = 4, size = 3 }"}})
                .problem.observation.psf.values,
            moffat_psf(0.1, 4, 0.1, 3).values);
  EXPECT_EQ(failure({{"observation.psf", "{ fwhm = 0.4 }"}}),
            "--set: observation.psf: a PSF larger than the image, found 13 x 13 pixels, expected at most 4 x 3");
  EXPECT_NE(failure({{"observation.psf", "{ type = \"moffat\", fwhm = 10.0, beta = 1.01 }"}})
                .find("--set: observation.psf: "),
            std::string::npos);
}

// ---- pixel scale
// -------------------------------------------------------------------------------------------------------

/// The image with a celestial WCS of 0.05 arcsec.
void with_wcs(FitsOutput& image) {
  image.pixel_scale = 0.05;
  image.cards = {{"CTYPE1", "RA---TAN"}, {"CTYPE2", "DEC--TAN"}};
}

TEST_F(LoadProblem, PixelScaleComesFromTheWcs) {
  with_wcs(image_);
  const std::string text =
      "[observation]\nimage = 'data.fits'\nnoise = 1\n[[source]]\nprofile = 'GAUSSIAN'\namp = 1\n"
      "sigma = 1\nfit = ['amp']\n";
  const std::string file = directory_.write("wcs.toml", text);
  write_fits(directory_ / "data.fits", {image_});
  EXPECT_DOUBLE_EQ(load_problem(read_config(file, {}, false)).pixel_scale, 0.05);
  EXPECT_EQ(load_problem(read_config(file, {{"observation.pixel_scale", "0.05004"}}, false)).pixel_scale, 0.05004);
  EXPECT_EQ(failure(),
            hdu("IMAGE") + "different pixel scale, found 0.05 arcsec in its WCS, expected 0.1 arcsec within 0.1 %");
  image_.cards.clear();  // a linear WCS does not count
  write_fits(directory_ / "data.fits", {image_});
  try {
    load_problem(read_config(file, {}, false));
    FAIL() << "no InvalidInput";
  } catch (const InvalidInput& error) {
    EXPECT_EQ(std::string(error.what()),
              hdu("IMAGE") + "no celestial WCS, expected one or observation.pixel_scale in " + file);
  }
}

TEST_F(LoadProblem, EveryMapHasTheScaleOfTheImage) {
  with_wcs(psf_);
  EXPECT_EQ(failure(),
            hdu("PSF") + "different pixel scale, found 0.05 arcsec in its WCS, expected 0.1 arcsec within 0.1 %");
  psf_.cards.clear();
  with_wcs(noise_);
  EXPECT_EQ(failure(),
            hdu("NOISE") + "different pixel scale, found 0.05 arcsec in its WCS, expected 0.1 arcsec within 0.1 %");
}

/// The image with a celestial WCS whose matrix is given in pixels of 0.1 arcsec. CFITSIO reads numbers from text as
/// well.
void with_matrix(FitsOutput& image, double a, double b, double c, double d) {
  image.cards = {{"CTYPE1", "RA---TAN"}, {"CTYPE2", "DEC--TAN"}};
  for (const auto& [key, value] : {std::pair{"CD1_1", a}, {"CD1_2", b}, {"CD2_1", c}, {"CD2_2", d}})
    image.cards.emplace_back(key, to_text(value * 0.1 / 3600));
}

TEST_F(LoadProblem, ATurnedImageIsFittedAsItStands) {
  with_matrix(image_, -0.6, 0.8, 0.8, 0.6);
  const LoadedProblem loaded = load();
  ASSERT_TRUE(loaded.wcs.has_value());
  EXPECT_NEAR(loaded.wcs->position_angle(M_PI / 2), 53.130102, 1e-6);
  EXPECT_TRUE(loaded.wcs->right_handed());
  EXPECT_EQ(loaded.problem.observation.image, image_.values);  // not resampled
  // A rotated or mirrored map is an error.
  with_matrix(noise_, -0.6, 0.8, 0.8, 0.6);
  EXPECT_NO_THROW(load());
  const std::string name = hdu("NOISE") + "different orientation on the sky, found ";
  with_matrix(noise_, -1, 0, 0, 1);
  EXPECT_EQ(
      failure(),
      name + "a map that is rotated by -53.1301 degrees according to its WCS, expected the orientation of the image");
  with_matrix(noise_, 0.6, 0.8, -0.8, 0.6);
  EXPECT_EQ(failure(), name + "a map that is mirrored according to its WCS, expected the orientation of the image");
  with_matrix(noise_, -0.6, 0.8, 0.8, 0.6);
  with_matrix(mask_, -0.6, -0.8, -0.8, 0.6);
  EXPECT_EQ(failure().rfind(hdu("MASK") + "different orientation on the sky, found a map that is rotated by", 0), 0u);
}

TEST_F(LoadProblem, TooManyRaysAreRefused) {
  FitsOutput& image = image_;
  image.nx = 2048;
  image.ny = 512;
  image.values.assign(1048576, 1.0);
  EXPECT_EQ(failure({{"observation.supersampling", "32"}}),
            hdu("IMAGE") +
                "too many rays, found 2048 x 512 pixels with observation.supersampling = 32, expected fewer than "
                "2^30 rays");
}

// ---- model, network, truth
// ------------------------------------------------------------------------------------------------

TEST_F(LoadProblem, PixelatedSourceStartsFromAnImageOrAValue) {
  FitsOutput start{"START", 3, 2, 1, {1, 2, 3, 4, 5, 6}, -64, "", 0, 0, 0, {}};
  write_fits(directory_ / "start.fits", {start});
  std::string source = "{ profile = \"PIXELATED\", nx = 3, ny = 2, pixel_scale = 0.2, fit = [\"pixels\"]";
  LoadedProblem loaded = load({{"source", "[" + source + ", image = \"start.fits\" }]"}});
  EXPECT_EQ(loaded.problem.model.source[0].pixels, start.values);
  EXPECT_EQ(loaded.problem.initial_parameters, start.values);
  loaded = load({{"source", "[" + source + ", value = 0.25 }]"}});
  EXPECT_EQ(loaded.problem.initial_parameters, std::vector<double>(6, 0.25));
  const std::string name = directory_ / "start.fits[START]: ";
  EXPECT_EQ(failure({{"source",
                      "[{ profile = \"PIXELATED\", nx = 2, ny = 3, pixel_scale = 0.2, image = \"start.fits\", fit = "
                      "[\"pixels\"] }]"}}),
            name + "different shape, found 3 x 2 pixels, expected 2 x 3 as in nx and ny of the PIXELATED component");
  start.values[4] = kNan;
  write_fits(directory_ / "start.fits", {start});
  EXPECT_EQ(failure({{"source", "[" + source + ", image = \"start.fits\" }]"}}),
            name + "not finite at column 2, row 2 (from 1), expected finite values everywhere");
}

/// Under a sheet of κ = ½ the rays of this image, 0.15″ to 0.45″ by −0.1″ to 0.1″, come from half of that.
TEST_F(LoadProblem, AGridWithoutAPixelScaleFollowsTheRays) {
  const std::vector<Override> settings{{"lens", "[{ profile = \"CONVERGENCE\", kappa = 0.5 }]"},
                                       {"source", "[{ profile = \"PIXELATED\", nx = 8, ny = 8, fit = [\"pixels\"] }]"}};
  const PixelGrid grid = load(settings).problem.model.source.at(0).grid;
  EXPECT_NEAR(grid.pixel_scale, 0.15 / 5, 1e-12);
  EXPECT_NEAR(grid.center_x, 0.15, 1e-12);
  EXPECT_NEAR(grid.center_y, 0, 1e-12);
  for (const std::size_t i : {3u, 7u, 11u}) mask_.values[i] = 0;  // the column at 0.45″
  EXPECT_NEAR(load(settings).problem.model.source.at(0).grid.center_x, 0.125, 1e-12);
  EXPECT_NEAR(load(settings).problem.model.source.at(0).grid.pixel_scale, 0.02, 1e-12);

  const auto with = [&](const std::string& keys) {
    return std::vector<Override>{{"source", "[{ profile = \"PIXELATED\", nx = 8, ny = 8" + keys + " }]"}};
  };
  const std::string missing =
      "source.0.pixel_scale: missing, expected a number > 0 arcsec: only the grid of free pixels of a [[source]] "
      "without "
      "image can follow the rays";
  EXPECT_NE(failure(with("")).find(missing), std::string::npos) << failure(with(""));
  EXPECT_NE(failure(with(", fit = [\"pixels\"], image = \"data.fits[IMAGE]\"")).find(missing), std::string::npos);
  EXPECT_NE(failure(with(", fit = [\"pixels\"], center_x = 1.0")).find("center_x: has no effect"), std::string::npos);
  std::fill(mask_.values.begin() + 1, mask_.values.end(), 0.0);  // one ray
  EXPECT_NE(failure(settings).find("source.0: pixel_scale is missing and the rays of the used pixels span no area"),
            std::string::npos)
      << failure(settings);
}

TEST_F(LoadProblem, NetworkStartsFromSeedOrFile) {
  const std::vector<Override> network{{"network", "{ hidden = [3, 2], seed = 7 }"}};
  const LoadedProblem loaded = load(network);
  const NetworkShape shape{{3, 2}, 1.0};
  std::vector<double> expected = initial_weights(shape, 7, false);
  expected.push_back(std::log(0.5));
  EXPECT_EQ(loaded.problem.initial_parameters, expected);

  std::vector<double> stored = initial_weights({{4}, 0.5}, 3, false);
  write_network(directory_ / "net.safetensors", {{4}, 0.5}, stored, true);
  const LoadedProblem from_file = load({{"network.initial", "\"net.safetensors\""}});
  stored.push_back(std::log(0.5));
  EXPECT_EQ(from_file.problem.initial_parameters, stored);
  EXPECT_EQ(from_file.problem.model.network->hidden, std::vector<int>{4});
  EXPECT_EQ(from_file.problem.model.network->input_scale, 0.5);
  EXPECT_EQ(load({{"network", "{ initial = \"net.safetensors\", hidden = [4], input_scale = 0.5 }"}})
                .problem.initial_parameters,
            stored);
  EXPECT_EQ(failure({{"network", "{ initial = \"net.safetensors\", hidden = [4, 4] }"}}),
            "--set: network.hidden: differs from the stored network, found [4, 4], expected [4] as in " +
                (directory_ / "net.safetensors"));
  EXPECT_EQ(
      failure({{"network", "{ initial = \"net.safetensors\", input_scale = 2 }"}}),
      "--set: network.input_scale: differs from the stored network, found 2 1/arcsec, expected 0.5 1/arcsec as in " +
          (directory_ / "net.safetensors"));
  EXPECT_EQ(failure({{"network", "{ initial = \"net.safetensors\", seed = 2 }"}}),
            "--set: network.seed: has no effect, found the integer 2, expected only without network.initial");
  EXPECT_NE(failure({{"network.initial", "\"data.fits\""}}).find("data.fits"), std::string::npos);
}

TEST_F(LoadProblem, FourierFeaturesAreDrawnOrRead) {
  const NetworkShape shape{{3}, 1.0, 4};
  std::vector<double> expected = initial_weights(shape, 7, false, {0.5});
  const LoadedProblem drawn = load(
      {{"network", "{ encoding = \"fourier\", fourier_features = 4, fourier_scale = 0.5, hidden = [3], seed = 7 }"}});
  write_network(directory_ / "net.safetensors", {{3}, 0.3, 4}, expected, true);
  expected.push_back(std::log(0.5));
  EXPECT_EQ(drawn.problem.initial_parameters, expected);
  EXPECT_EQ(drawn.problem.model.network, shape);

  for (const char* network : {"{ initial = \"net.safetensors\" }",
                              "{ initial = \"net.safetensors\", encoding = \"fourier\", fourier_features = 4 }"}) {
    const LoadedProblem read = load({{"network", network}});
    EXPECT_EQ(read.problem.initial_parameters, expected);
    EXPECT_EQ(read.problem.model.network, (NetworkShape{{3}, 0.3, 4}));
  }
  const std::string file = directory_ / "net.safetensors";
  EXPECT_EQ(
      failure({{"network", "{ initial = \"net.safetensors\", encoding = \"none\" }"}}),
      "--set: network.encoding: differs from the stored network, found \"none\", expected \"fourier\" as in " + file);
  EXPECT_EQ(failure({{"network", "{ initial = \"net.safetensors\", encoding = \"fourier\", fourier_features = 5 }"}}),
            "--set: network.fourier_features: differs from the stored network, found 5, expected 4 as in " + file);
  write_network(file, {{3}, 0.3, 0}, initial_weights({{3}, 0.3, 0}, 1, false), true);
  EXPECT_EQ(
      failure({{"network", "{ initial = \"net.safetensors\", encoding = \"fourier\" }"}}),
      "--set: network.encoding: differs from the stored network, found \"fourier\", expected \"none\" as in " + file);

  // Frequencies whose phases single precision cannot hold.
  const std::string message = failure({{"network", "{ encoding = \"fourier\", fourier_scale = 1e-6 }"}});
  EXPECT_EQ(message.rfind("--set: network.fourier_scale: frequencies too high, found phases up to ", 0), 0u) << message;
  EXPECT_NE(message.find(" rad in the image, expected at most 30000 rad"), std::string::npos) << message;
}

TEST_F(LoadProblem, NetworkSourceStartsFromSeedOrFile) {
  const std::string source = "{ profile = \"NETWORK\", amp = 2.0, ";
  const NetworkShape shape{{3, 2}, 1.0};
  LoadedProblem loaded =
      load({{"source", "[" + source + "hidden = [3, 2], seed = 7, fit = [\"network\", \"amp\"] }]"}});
  const std::vector<double> drawn = loaded.problem.model.source[0].weights;
  ASSERT_EQ(drawn.size(), shape.size());
  std::vector<double> expected = {std::log(2.0)};
  expected.insert(expected.end(), drawn.begin(), drawn.end());
  EXPECT_EQ(loaded.problem.initial_parameters, expected);
  EXPECT_EQ(load({{"source", "[" + source + "hidden = [3, 2], seed = 7, fit = [\"amp\"] }]"}})
                .problem.model.source[0]
                .weights,
            drawn);
  EXPECT_NE(load({{"source", "[" + source + "hidden = [3, 2], seed = 8, fit = [\"amp\"] }]"}})
                .problem.model.source[0]
                .weights,
            drawn);
  EXPECT_NE(initial_weights(shape, 7, false), drawn) << "the potential's weights of the same seed";

  // Fourier features, whose phases single precision must hold.
  const std::string fourier = source + "hidden = [3], encoding = \"fourier\", fit = [\"network\"], fourier_scale = ";
  loaded = load({{"source", "[" + fourier + "0.5 }]"}});
  EXPECT_EQ(loaded.problem.model.source[0].network, (NetworkShape{{3}, 3.0, 16}));
  EXPECT_EQ(
      failure({{"source", "[" + fourier + "1e-6 }]"}}).find("--set: source.0.fourier_scale: frequencies too high"), 0u);

  const std::vector<double> stored = initial_weights({{4}, 0.5}, 3, false);
  write_network(directory_ / "net.safetensors", {{4}, 0.5}, stored, true);
  loaded = load({{"source", "[" + source + "initial = \"net.safetensors\", fit = [\"network\"] }]"}});
  EXPECT_EQ(loaded.problem.initial_parameters, stored);
  EXPECT_EQ(loaded.problem.model.source[0].network.hidden, std::vector<int>{4});
  EXPECT_EQ(loaded.problem.model.source[0].network.input_scale, 0.5);
  // Fixed: in the model and not among the parameters.
  loaded = load({{"source", "[" + source + "initial = \"net.safetensors\", fit = [\"center_x\"] }]"}});
  EXPECT_EQ(loaded.problem.initial_parameters, std::vector<double>{0});
  EXPECT_EQ(loaded.problem.model.source[0].weights, stored);
  EXPECT_EQ(failure({{"source", "[" + source + "initial = \"net.safetensors\", hidden = [5] }]"}}),
            "--set: source.0.hidden: differs from the stored network, found [5], expected [4] as in " +
                (directory_ / "net.safetensors"));
  EXPECT_EQ(failure({{"source", "[" + source + "initial = \"absent.safetensors\" }]"}})
                .find(directory_ / "absent.safetensors"),
            0u);
}

TEST_F(LoadProblem, ReadsTheTruth) {
  const auto map = [](const std::string& name, int planes, double value) {
    return FitsOutput{name, 4, 3, planes, std::vector<double>(static_cast<std::size_t>(12 * planes), value), -64, "",
                      0,    0, 0, {}};
  };
  FitsOutput image = map("IMAGE_TRUE", 1, 1), psi = map("PSI_TRUE", 1, 2), alpha = map("ALPHA_TRUE", 2, 3),
             kappa = map("KAPPA_TRUE", 1, 4);
  alpha.values[12] = 5;
  const std::string path = directory_ / "truth.fits";
  write_fits(path, {image, psi, alpha, kappa});
  const std::vector<Override> truth{{"truth.file", "\"truth.fits\""}};
  const LoadedProblem loaded = load(truth);
  ASSERT_TRUE(loaded.truth.has_value());
  EXPECT_EQ(loaded.truth->image, image.values);
  EXPECT_EQ(loaded.truth->potential, psi.values);
  EXPECT_EQ(loaded.truth->deflection, alpha.values);
  EXPECT_EQ(loaded.truth->convergence, kappa.values);

  write_fits(path, {image, psi, alpha});
  EXPECT_EQ(failure(truth), path + "[KAPPA_TRUE]: no such HDU, expected one of IMAGE_TRUE, PSI_TRUE, ALPHA_TRUE");
  write_fits(path, {image, psi, map("ALPHA_TRUE", 1, 3), kappa});
  EXPECT_EQ(failure(truth), path + "[ALPHA_TRUE]: wrong dimensions, found 4 x 3, expected nx x ny x 2");
  alpha.values[17] = kNan;
  write_fits(path, {image, psi, alpha, kappa});
  EXPECT_EQ(failure(truth),
            path + "[ALPHA_TRUE]: not finite at column 2, row 2 (from 1), expected finite values everywhere");
  EXPECT_EQ(failure({{"truth.file", "\"truth.fits[1]\""}}),
            "--set: truth.file: not a file name, found \"" + path + "[1]\", expected \"FILE\" without [HDU]");
}

TEST_F(LoadProblem, NamesTheFileThatIsMissing) {
  for (const char* key : {"image", "noise", "mask", "psf"})
    EXPECT_EQ(failure({{std::string("observation.") + key, "\"absent.fits\""}}),
              directory_ / "absent.fits: no such file");
  EXPECT_EQ(failure({{"network.initial", "\"absent.safetensors\""}}).find(directory_ / "absent.safetensors"), 0u);
}

}  // namespace
}  // namespace einfield
