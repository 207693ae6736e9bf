// The paper's experiments in full (Biggio et al. 2021: 2-200-200-200-1, Adam at 1e-3, full batches) against what the
// paper's own method reaches in JAX. Minutes long; the data are ours, and with EINFIELD_REFERENCE those of the
// reference as well.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "host/app/run.hpp"
#include "host/app/simulate.hpp"
#include "host/files/fits_io.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

/// The numbers of one fit.
nlohmann::json fit(const TemporaryDirectory& directory, const std::string& config_file, std::uint64_t seed) {
  Config config = read_config(config_file, {}, false);
  config.network.value().seed = seed;
  RunOptions options;
  options.backend = "cpu";
  options.figures = false;
  options.out = directory / ("fit_" + std::to_string(seed));
  EXPECT_EQ(run_fit(config, options).stop_reason, StopReason::steps);
  std::ifstream file(options.out + "/result.json");
  return nlohmann::json::parse(file).at("metrics");
}

/// Medians over three initial networks.
struct Medians {
  double chi2, image, psi_arc;
};

Medians fit_thrice(const TemporaryDirectory& directory, const std::string& config_file) {
  std::vector<double> chi2, image, psi_arc;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const nlohmann::json metrics = fit(directory, config_file, seed);
    chi2.push_back(metrics.at("chi2_reduced"));
    image.push_back(metrics.at("image_rms_over_sigma"));
    psi_arc.push_back(metrics.at("psi_relative_rms_arc"));
  }
  for (std::vector<double>* values : {&chi2, &image, &psi_arc}) std::sort(values->begin(), values->end());
  return {chi2[1], image[1], psi_arc[1]};
}

/// A copy of an example beside its simulated data.
std::string simulated(const TemporaryDirectory& directory, const std::string& name) {
  const std::string file = directory / (name + ".toml");
  std::filesystem::copy_file(std::string(EINFIELD_EXAMPLES_DIR) + "/" + name + ".toml", file);
  const Config config = read_config(file, {}, true);
  simulate(config, config.observation.image.path, false);
  return file;
}

/// The same example with the reference's data in place of the simulated ones.
std::string with_reference(const TemporaryDirectory& directory, const std::string& name, const std::string& reference) {
  const std::string file = simulated(directory, name);
  const std::string data = directory / (name + ".fits");
  const auto hdu = [&](const std::string& target, const std::vector<std::string>& from, double constant = 0) {
    FitsOutput output;
    output.name = target;
    for (const std::string& source : from) {
      const FitsImage image = read_fits(reference, source);
      output.nx = image.nx;
      output.ny = image.ny;
      output.values.insert(output.values.end(), image.values.begin(), image.values.end());
    }
    output.planes = static_cast<int>(from.size());
    if (constant != 0) output.values.assign(output.values.size(), constant);
    return output;
  };
  write_fits(data, {hdu("IMAGE", {"NOISY"}), hdu("NOISE", {"NOISY"}, 2), hdu("PSF", {"PSF"}), hdu("MASK", {"MASK"}),
                    hdu("IMAGE_TRUE", {"CONV"}), hdu("PSI_TRUE", {"PERPSI"}), hdu("ALPHA_TRUE", {"PERAX", "PERAY"}),
                    hdu("KAPPA_TRUE", {"PERKAPPA"})});
  return file;
}

// Bounds: the three networks of the reference in JAX reach χ² 1.005 to 1.008 (SIE) and 1.005 to 1.009 (shear) on noise
// of 0.987 and 1.007, image errors of 0.158 to 0.167 and 0.071 to 0.084 σ, ψ errors in the arcs of 2.8 to 3.3 and 1.3
// to 1.6 %.
void expect_sie(const Medians& medians) {
  EXPECT_LE(medians.image, 0.18);
  EXPECT_LE(medians.psi_arc, 0.035);
}

void expect_shear(const Medians& medians) {
  EXPECT_LE(medians.image, 0.09);
  EXPECT_LE(medians.psi_arc, 0.02);
}

TEST(Paper, SiePerturberInNoise) {
  const TemporaryDirectory directory;
  const Medians medians = fit_thrice(directory, simulated(directory, "sie_noisy"));
  expect_sie(medians);
  // The noise's own χ² has a standard deviation of 0.014 over 10⁴ pixels; the excess over it is the reference's.
  const FitsImage image = read_fits(directory / "sie_noisy.fits", "IMAGE"),
                  truth = read_fits(directory / "sie_noisy.fits", "IMAGE_TRUE");
  double noise = 0;
  for (std::size_t i = 0; i < image.values.size(); ++i) noise += std::pow((image.values[i] - truth.values[i]) / 2, 2);
  EXPECT_LE(medians.chi2 - noise / static_cast<double>(image.values.size()), 1.015 - 0.987);
}

TEST(Paper, ShearInNoise) {
  const TemporaryDirectory directory;
  expect_shear(fit_thrice(directory, simulated(directory, "shear_noisy")));
}

TEST(Paper, SiePerturberWithoutNoise) {
  const TemporaryDirectory directory;
  const nlohmann::json metrics = fit(directory, simulated(directory, "sie_noiseless"), 1);
  EXPECT_LE(metrics.at("psi_relative_rms_all").get<double>(), 0.06);
}

TEST(Paper, ReferenceImages) {
  const char* reference = std::getenv("EINFIELD_REFERENCE");
  if (!reference) GTEST_SKIP() << "EINFIELD_REFERENCE is not set";
  if (!std::getenv("EINFIELD_PAPER")) GTEST_SKIP() << "six more fits, with EINFIELD_PAPER=1";
  const TemporaryDirectory sie, shear;
  Medians medians = fit_thrice(sie, with_reference(sie, "sie_noisy", std::string(reference) + "/sie_perturber.fits"));
  expect_sie(medians);
  EXPECT_LE(medians.chi2, 1.015);
  medians = fit_thrice(shear, with_reference(shear, "shear_noisy", std::string(reference) + "/shear_perturber.fits"));
  expect_shear(medians);
  EXPECT_LE(medians.chi2, 1.015);
}

}  // namespace
}  // namespace einfield
