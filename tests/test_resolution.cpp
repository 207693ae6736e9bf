// Below which size the error bars of a fit say nothing.
#include "host/results/resolution.hpp"

#include <gtest/gtest.h>

#include "einfield/psf.hpp"

namespace einfield {
namespace {

TEST(Resolution, IsTheLargestOfPixelsPsfAndFeatures) {
  Observation observation;
  observation.grid = {20, 20, 0.1, 0, 0, 1};
  const NetworkShape hidden{{4}, 1.0};
  EXPECT_EQ(resolution(observation, hidden, {}).fwhm, 0.2);
  EXPECT_NE(in_words(resolution(observation, hidden, {})).find("0.2 arcsec (FWHM), two pixels"), std::string::npos);
  observation.psf = gaussian_psf(0.5, 0.1, 21);
  EXPECT_NEAR(resolution(observation, hidden, {}).fwhm, 0.5, 0.01);
  observation.psf = gaussian_psf(0.5, 0.05, 41);  // on sub-pixels
  observation.psf.supersampling = 2;
  EXPECT_NEAR(resolution(observation, hidden, {}).fwhm, 0.5, 0.01);
  // Features of 2 rad per unit of 1.5 θ: a wavelength of 2π/3 arcsec. Another one is longer.
  const NetworkShape readout{{}, 1.5, 1};
  std::vector<double> weights(readout.size(), 0.0);
  const auto outputs = static_cast<std::size_t>(readout.outputs(0));
  weights[0] = 1.2;
  weights[1] = 0.3;
  weights[outputs] = 1.6;
  const Resolution found = resolution(observation, readout, weights);
  EXPECT_NEAR(found.fwhm, kPi / 3, 1e-12);
  EXPECT_EQ(found.limits, "half the shortest wavelength of the network");
  // With hidden layers the network makes shorter waves than its features have.
  EXPECT_NEAR(resolution(observation, {{4}, 1.5, 1}, {}).fwhm, 0.5, 0.01);
}

}  // namespace
}  // namespace einfield
