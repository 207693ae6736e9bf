// Simulated images: lenstronomy's numbers, the truth of the missing mass alone, noise as asked for, the same bytes.
#include "host/app/simulate.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "einfield/grid.hpp"
#include "einfield/lens.hpp"
#include "einfield/psf.hpp"
#include "einfield/source.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "tests/reference_network.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

/// The system of the paper's Table 1, the observation of the stored reference.
const std::string kPaper = R"(
[observation]
image = "sim.fits"
psf = { fwhm = 0.2, size = 13 }
pixel_scale = 0.08
[[lens]]
profile = "SIE"
theta_E = 1.6
e1 = 0.15
e2 = -0.04
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 1.2
radius = "major_axis"
n_sersic = 1.5
e1 = -0.09
e2 = 0.03
center_x = 0.4
center_y = 0.15
[simulate]
noise = 0
)";
const std::string kSie =
    "[[perturbation]]\nprofile = 'SIE'\ntheta_E = 0.15\ne2 = 0.3\ncenter_x = 1.9\ncenter_y = -1.4\n";
const std::string kShear = "[[perturbation]]\nprofile = 'SHEAR'\ngamma1 = -0.1\ngamma2 = -0.1\n";

class Simulate : public testing::Test {
 protected:
  Config config(const std::string& text, const std::vector<Override>& overrides = {}) const {
    return read_config(directory_.write("sim.toml", text), overrides, true);
  }
  std::vector<std::string> run(const std::string& text, const std::vector<Override>& overrides = {}) const {
    return simulate(config(text, overrides), directory_ / "sim.fits", true);
  }
  std::vector<double> map(const std::string& name, int planes = 1) const {
    return read_fits(directory_ / "sim.fits", name, planes).values;
  }
  std::string failure(const std::string& text, const std::vector<Override>& overrides = {}) const {
    try {
      run(text, overrides);
    } catch (const InvalidInput& error) {
      return error.what();
    }
    return "no InvalidInput";
  }
  TemporaryDirectory directory_;
};

double largest(const std::vector<double>& values) {
  double result = 0;
  for (const double v : values) result = std::max(result, std::abs(v));
  return result;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double result = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) result = std::max(result, std::abs(a[i] - b[i]));
  return result;
}

TEST_F(Simulate, AgreesWithLenstronomy) {
  EXPECT_TRUE(run(kPaper + kSie).empty());
  nlohmann::json golden;
  std::ifstream(EINFIELD_GOLDEN_DIR "/sie_perturber_crop.json") >> golden;
  const auto crop = [&](const std::vector<double>& values, std::size_t plane = 0) {
    const auto column = golden.at("column").get<std::size_t>(), row = golden.at("row").get<std::size_t>();
    const auto size = golden.at("size").get<std::size_t>();
    std::vector<double> result;
    for (std::size_t y = row; y < row + size; ++y)
      for (std::size_t x = column; x < column + size; ++x) result.push_back(values[plane * 10000 + y * 100 + x]);
    return result;
  };
  const auto stored = [&](const char* name) { return golden.at(name).get<std::vector<double>>(); };
  // Rounding in sums of 169 terms of size 130; lenses are compared at 1e-12 in test_reference_profiles.cpp.
  EXPECT_LT(largest_difference(crop(map("IMAGE_TRUE")), stored("CONV")), 1e-10);
  EXPECT_LT(largest_difference(crop(map("PSI_TRUE")), stored("PERPSI")), 1e-13);
  EXPECT_LT(largest_difference(crop(map("ALPHA_TRUE", 2)), stored("PERAX")), 1e-13);
  EXPECT_LT(largest_difference(crop(map("ALPHA_TRUE", 2), 1), stored("PERAY")), 1e-13);
  EXPECT_LT(largest_difference(crop(map("KAPPA_TRUE")), stored("PERKAPPA")), 1e-12);
}

TEST_F(Simulate, RandomFieldsJoinTheOtherMass) {
  const std::string field = "[[perturbation]]\nprofile = 'GAUSSIAN_RANDOM_FIELD'\nvariance = 1e-3\nslope = 5\nseed = ";
  run(kPaper);
  const std::vector<double> smooth = map("IMAGE_TRUE");
  run(kPaper + field + "4");
  const std::vector<double> psi = map("PSI_TRUE"), image = map("IMAGE_TRUE");
  EXPECT_GT(largest(psi), 0.01);
  EXPECT_GT(largest_difference(image, smooth), 1);
  run(kPaper + kSie);
  const std::vector<double> sie = map("PSI_TRUE");
  run(kPaper + field + "4\n" + kSie);
  const std::vector<double> both = map("PSI_TRUE");
  for (std::size_t i = 0; i < both.size(); ++i) EXPECT_NEAR(both[i], psi[i] + sie[i], 1e-14);
  // What is rendered is deflected by what is stored: the gradient of the stored potential is the stored deflection.
  const std::vector<double> alpha = map("ALPHA_TRUE", 2);
  const std::size_t middle = 50 * 100 + 50;
  EXPECT_NEAR(alpha[middle], (both[middle + 1] - both[middle - 1]) / 0.16, 2e-3);
  EXPECT_NE(failure(kPaper + "[[perturbation]]\nprofile = 'GAUSSIAN_RANDOM_FIELD'\nslope = 5\n")
                .find("perturbation.0.variance: missing, expected number > 0 arcsec^4"),
            std::string::npos);
}

TEST_F(Simulate, AgreesWithLenstronomyEverywhere) {
  const char* reference = std::getenv("EINFIELD_REFERENCE");
  if (!reference) GTEST_SKIP() << "EINFIELD_REFERENCE is not set";
  for (const auto& [file, perturbation] : {std::pair<std::string, std::string>{"sie_perturber", kSie},
                                           {"shear_perturber", kShear},
                                           {"no_perturber", ""}}) {
    run(kPaper + perturbation);
    const std::string path = std::string(reference) + "/" + file + ".fits";
    const auto stored = [&](const char* name) { return read_fits(path, name).values; };
    EXPECT_LT(largest_difference(map("IMAGE_TRUE"), stored("CONV")), 1e-10) << file;
    EXPECT_LT(largest_difference(map("PSF"), stored("PSF")), 1e-15) << file;
    EXPECT_LT(largest_difference(map("PSI_TRUE"), stored("PERPSI")), 1e-12) << file;
    EXPECT_LT(largest_difference(map("KAPPA_TRUE"), stored("PERKAPPA")), 1e-11) << file;
    std::vector<double> alpha = stored("PERAX");
    const std::vector<double> alpha_y = stored("PERAY");
    alpha.insert(alpha.end(), alpha_y.begin(), alpha_y.end());
    EXPECT_LT(largest_difference(map("ALPHA_TRUE", 2), alpha), 1e-12) << file;
  }
}

TEST_F(Simulate, WithoutNoiseImageIsTheTruth) {
  run(kPaper + kSie);
  EXPECT_EQ(map("IMAGE"), map("IMAGE_TRUE"));
  EXPECT_EQ(largest(map("NOISE")), 0);
  const std::vector<double> mask = map("MASK");
  EXPECT_EQ(std::count(mask.begin(), mask.end(), 1.0), 10000);
  EXPECT_EQ(map("PSF"), gaussian_psf(0.2, 0.08, 13).values);
  EXPECT_EQ(read_fits(directory_ / "sim.fits", "PSI_TRUE").unit, "arcsec2");
  EXPECT_EQ(read_fits(directory_ / "sim.fits", "").hdu, "IMAGE");
}

TEST_F(Simulate, NoiseHasTheDeviationAskedFor) {
  run(kPaper, {{"simulate.noise", "2.0"}});
  const std::vector<double> image = map("IMAGE"), truth = map("IMAGE_TRUE");
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < image.size(); ++i) {
    sum += (image[i] - truth[i]) / 2;
    squares += std::pow((image[i] - truth[i]) / 2, 2);
  }
  // Of 10⁴ numbers the mean scatters by 0.01, the mean square by 0.014.
  EXPECT_NEAR(sum / 1e4, 0, 0.04);
  EXPECT_NEAR(squares / 1e4, 1, 0.056);
  EXPECT_EQ(map("NOISE"), std::vector<double>(10000, 2.0));
}

TEST_F(Simulate, NoiseHasTheCorrelationAskedFor) {
  const std::string kernel = directory_ / "kernel.fits";
  write_fits(kernel, {{"CORRELATION", 3, 1, 1, {0.5, 1, 0.5}, -64, "", 0, 0, 0, {}}});
  run(kPaper, {{"simulate.noise", "2.0"}, {"simulate.noise_correlation", "\"kernel.fits\""}});
  const std::vector<double> image = map("IMAGE"), truth = map("IMAGE_TRUE");
  double squares = 0, products = 0;
  for (std::size_t i = 0; i + 1 < image.size(); ++i) {
    squares += std::pow((image[i] - truth[i]) / 2, 2);
    if (i % 100 < 99) products += (image[i] - truth[i]) * (image[i + 1] - truth[i + 1]) / 4;
  }
  // Σρ² over all offsets is 1.5: means of 10⁴ products scatter by at most √(2 · 1.5 · 10⁻⁴) = 0.017.
  EXPECT_NEAR(squares / 1e4, 1, 0.07);
  EXPECT_NEAR(products / 9900, 0.5, 0.07);
  // A part of a larger map gives the same.
  write_fits(directory_ / "wide.fits", {{"K", 5, 1, 1, {7, 0.5, 1, 0.5, 7}, -64, "", 0, 0, 0, {}}});
  run(kPaper, {{"simulate.noise", "2.0"}, {"simulate.noise_correlation", "\"wide.fits[K][2:4,1:1]\""}});
  EXPECT_EQ(map("IMAGE"), image);
}

TEST_F(Simulate, SaysWhatIsWrongWithACorrelation) {
  const std::string kernel = directory_ / "kernel.fits";
  const auto failure_of = [&](int nx, const std::vector<double>& values) {
    write_fits(kernel, {{"K", nx, static_cast<int>(values.size()) / nx, 1, values, -64, "", 0, 0, 0, {}}});
    return failure(kPaper, {{"simulate.noise_correlation", "\"kernel.fits\""}});
  };
  EXPECT_EQ(failure_of(2, {1, 1}), kernel +
                                       "[K]: a correlation of even size, found 2 x 1 pixels, expected odd numbers, "
                                       "with offset 0 in the middle pixel");
  EXPECT_EQ(failure_of(3, {0.5, 0.9, 0.5}), kernel +
                                                "[K]: not a correlation, found 0.9 at column 2, row 1 (from 1), "
                                                "expected 1 in the middle pixel");
  EXPECT_EQ(failure_of(3, {0.5, 1, 0.4}), kernel +
                                              "[K]: not a correlation, found 0.5 at column 1, row 1 (from 1), "
                                              "expected 0.4 as at column 3, row 1 (from 1)");
  EXPECT_EQ(failure_of(3, {2, 1, 2}),
            kernel + "[K]: not a correlation, found 2 at column 1, row 1 (from 1), expected a number in [-1, 1]");
  // 1 + 2 · 0.8 cos π < 0.
  EXPECT_EQ(failure_of(3, {0.8, 1, 0.8}),
            kernel +
                "[K]: not a correlation, found a power of -0.6 at one frequency, expected "
                "none below 0");
}

TEST_F(Simulate, PhotonNoiseGrowsWithBrightness) {
  std::string text = kPaper;
  text.replace(text.find("noise = 0"), 9, "background_rms = 0.5\nexposure_time = 100");
  run(text);
  const std::vector<double> image = map("IMAGE"), truth = map("IMAGE_TRUE"), noise = map("NOISE");
  double squares = 0;
  for (std::size_t i = 0; i < image.size(); ++i) {
    EXPECT_NEAR(noise[i], std::sqrt(0.25 + truth[i] / 100), 1e-14);
    squares += std::pow((image[i] - truth[i]) / noise[i], 2);
  }
  EXPECT_NEAR(squares / 1e4, 1, 0.056);
}

TEST_F(Simulate, SameSeedSameBytes) {
  const std::vector<Override> noisy{{"simulate.noise", "2.0"}};
  run(kPaper + kSie, noisy);
  const std::string first = directory_.read("sim.fits");
  run(kPaper + kSie, noisy);
  EXPECT_EQ(directory_.read("sim.fits"), first);
  run(kPaper + kSie, {{"simulate.noise", "2.0"}, {"simulate.seed", "2"}});
  EXPECT_NE(directory_.read("sim.fits"), first);
}

TEST_F(Simulate, NoiseIsNotTheNetworksNumbers) {
  run(kPaper, {{"simulate.noise", "1.0"}});
  const std::vector<double> image = map("IMAGE"), truth = map("IMAGE_TRUE");
  const Philox philox{1};
  EXPECT_GT(std::abs(image[5] - truth[5] - philox.normal(5)), 1e-3);
}

TEST_F(Simulate, TheNetworkHasNoPartInIt) {
  run(kPaper + kSie);
  const std::string without = directory_.read("sim.fits");
  run(kPaper + "[network]\n[[perturbation]]\n" + kSie.substr(kSie.find('\n') + 1));
  EXPECT_EQ(directory_.read("sim.fits"), without);
}

TEST_F(Simulate, TakesTheShapeSupersamplingAndPlaceAskedFor) {
  const std::vector<Override> small{
      {"simulate.nx", "7"}, {"simulate.ny", "5"}, {"observation.psf", "{fwhm=0.1,size=1}"}};
  std::vector<Override> fine = small;
  fine.insert(fine.end(), {{"observation.supersampling", "3"}, {"observation.center_x", "1.2"}});
  run(kPaper + kSie, fine);
  const FitsImage image = read_fits(directory_ / "sim.fits", "IMAGE");
  EXPECT_EQ(image.nx, 7);
  EXPECT_EQ(image.ny, 5);
  const std::vector<double> coarse = map("IMAGE");
  // The mean of nine images whose pixels are the sub-pixels.
  std::vector<double> mean(35, 0.0);
  for (int sy = -1; sy <= 1; ++sy)
    for (int sx = -1; sx <= 1; ++sx) {
      std::vector<Override> shifted = small;
      shifted.insert(shifted.end(), {{"observation.center_x", to_text(1.2 + sx * 0.08 / 3)},
                                     {"observation.center_y", to_text(sy * 0.08 / 3)}});
      run(kPaper + kSie, shifted);
      const std::vector<double> one = map("IMAGE");
      for (std::size_t i = 0; i < 35; ++i) mean[i] += one[i] / 9;
    }
  EXPECT_LT(largest_difference(coarse, mean), 1e-11);
}

TEST_F(Simulate, PsfOfItsOwn) {
  run(kPaper, {{"simulate.psf", "{ type = \"moffat\", fwhm = 0.3, beta = 3.0, size = 5 }"}});
  EXPECT_EQ(map("PSF"), moffat_psf(0.3, 3, 0.08, 5).values);
  // A kernel of another file, not normalised, is written as it was used.
  FitsOutput kernel;
  kernel.name = "PSF";
  kernel.nx = kernel.ny = 3;
  kernel.values = {0, 1, 0, 1, 4, 1, 0, 1, 0};
  write_fits(directory_ / "kernel.fits", {kernel});
  EXPECT_EQ(run(kPaper, {{"simulate.psf", "\"kernel.fits\""}}),
            std::vector<std::string>{directory_ / "kernel.fits[PSF]: the PSF sums to 8, normalized to 1"});
  EXPECT_EQ(map("PSF"), (std::vector<double>{0, 0.125, 0, 0.125, 0.5, 0.125, 0, 0.125, 0}));
  std::string without = kPaper;
  without.erase(without.find("psf ="), without.find("pixel_scale") - without.find("psf ="));
  run(without);
  EXPECT_EQ(map("PSF"), std::vector<double>{1});
}

TEST_F(Simulate, PixelatedSourceComesFromItsImage) {
  FitsOutput pixels;
  pixels.name = "SOURCE";
  pixels.nx = 2;
  pixels.ny = 1;
  pixels.values = {3, 5};
  write_fits(directory_ / "source.fits", {pixels});
  run("[observation]\npixel_scale = 0.5\n[[source]]\nprofile = 'PIXELATED'\nnx = 2\nny = 1\npixel_scale = 0.5\n"
      "image = 'source.fits'\nfit = ['pixels']\n[simulate]\nnx = 2\nny = 1\nnoise = 0\n");
  EXPECT_EQ(map("IMAGE"), (std::vector<double>{3, 5}));
}

TEST_F(Simulate, NetworkSourceComesFromItsWeights) {
  const NetworkShape shape{{4, 3}, 0.7};
  const std::vector<double> weights = initial_weights(shape, 5, false);
  write_network(directory_ / "source_network.safetensors", shape, weights, true);
  const std::string text =
      "[observation]\npixel_scale = 0.5\nsupersampling = 2\n[[lens]]\nprofile = 'SIS'\ntheta_E = 0.8\n"
      "[[source]]\nprofile = 'NETWORK'\namp = 3\ncenter_x = 0.2\ninitial = 'source_network.safetensors'\n"
      "[[lens_light]]\nprofile = 'GAUSSIAN'\namp = 2\nsigma = 0.6\n[simulate]\nnx = 5\nny = 4\nnoise = 0\n";
  run(text);
  const std::vector<double> image = map("IMAGE");
  const Grid grid{5, 4, 0.5, 0, 0, 2};
  const double sis[] = {0.8, 0, 0}, gaussian[] = {2, 0.6, 0, 0};
  for (int pixel = 0; pixel < 20; ++pixel) {
    double sum = 0;
    for (int ray = 4 * pixel; ray < 4 * pixel + 4; ++ray) {
      const Vec2<double> theta = grid.ray(ray), beta = theta - lens_deflection(LensKind::sis, sis, theta);
      const double v = reference_network(shape, weights, {beta.x - 0.2, beta.y}).psi[0];
      sum += (3 * std::log1p(std::exp(v)) + gaussian_brightness(gaussian, theta)) / 4;
    }
    EXPECT_NEAR(image[static_cast<std::size_t>(pixel)], sum, 1e-12 * sum) << pixel;
  }
}

TEST_F(Simulate, AnExistingFileIsSafe) {
  const Config paper = config(kPaper);
  const std::string target = directory_.write("sim.fits", "precious");
  try {
    simulate(paper, target, false);
    FAIL() << "no InvalidInput";
  } catch (const InvalidInput& error) {
    EXPECT_EQ(std::string(error.what()), "--out: " + target + " exists, expected a new file or --overwrite");
  }
  EXPECT_EQ(directory_.read("sim.fits"), "precious");
  simulate(paper, target, true);
  EXPECT_NE(directory_.read("sim.fits"), "precious");
  EXPECT_THROW(simulate(paper, directory_ / "absent/sim.fits", false), IoError);
  EXPECT_THROW(simulate(paper, "", false), InvalidInput);
}

TEST_F(Simulate, SaysWhatIsMissing) {
  const std::string file = directory_ / "sim.toml";
  EXPECT_EQ(failure(kPaper, {{"observation.psf", "\"sim.fits[PSF]\""}}),
            "--set: observation.psf: is in the file that the simulation writes, found " + (directory_ / "sim.fits") +
                ", expected another file or { fwhm = ... }, here or as simulate.psf");
  EXPECT_EQ(failure(kPaper.substr(0, kPaper.find("[simulate]"))),
            file + ":1: simulate: missing, expected a table [simulate]");
  std::string no_scale = kPaper;
  no_scale.erase(no_scale.find("pixel_scale"), 19);
  EXPECT_EQ(failure(no_scale),
            file + ":2: observation.pixel_scale: missing, expected a number > 0 arcsec for a simulation");
  std::string no_noise = kPaper;
  no_noise.erase(no_noise.find("noise = 0"));
  EXPECT_EQ(failure(no_noise), file +
                                   ":21: simulate.noise: missing, expected a number >= 0 image unit, or background_rms "
                                   "with exposure_time");
  EXPECT_EQ(failure(kPaper, {{"simulate.nx", "3"}}),
            file + ":4: observation.psf: a PSF larger than the image, found 13 x 13 pixels, expected at most 3 x 100");
  EXPECT_EQ(failure(kPaper, {{"simulate.nx", "16384"}, {"simulate.ny", "16384"}, {"observation.supersampling", "2"}}),
            "--set: simulate.nx: too many rays, found 16384 x 16384 pixels with supersampling 2, expected fewer than "
            "2^30 rays");
}

}  // namespace
}  // namespace einfield
