// Analytic kernels: their formula, their size, their sum, and what is refused.
#include "einfield/psf.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <string>

#include "einfield/error.hpp"
#include "host/files/fits_io.hpp"

namespace einfield {
namespace {

double at(const Psf& psf, int dx, int dy) {
  return psf.values[static_cast<std::size_t>((psf.ny / 2 + dy) * psf.nx + psf.nx / 2 + dx)];
}

void expect_kernel(const Psf& psf) {
  ASSERT_EQ(psf.nx % 2, 1);
  ASSERT_EQ(psf.nx, psf.ny);
  ASSERT_EQ(psf.values.size(), static_cast<std::size_t>(psf.nx * psf.ny));
  EXPECT_NEAR(std::accumulate(psf.values.begin(), psf.values.end(), 0.0), 1, 1e-13);
  for (int y = 0; y <= psf.ny / 2; ++y)
    for (int x = 0; x <= psf.nx / 2; ++x) {
      EXPECT_EQ(at(psf, x, y), at(psf, -x, y));
      EXPECT_EQ(at(psf, x, y), at(psf, x, -y));
      EXPECT_EQ(at(psf, x, y), at(psf, y, x));
      EXPECT_GE(at(psf, x, y), 0);
    }
}

TEST(Psf, GaussianFallsToHalfAtHalfItsWidth) {
  const Psf psf = gaussian_psf(0.8, 0.1, 21);
  expect_kernel(psf);
  EXPECT_NEAR(at(psf, 4, 0) / at(psf, 0, 0), 0.5, 1e-14);
  EXPECT_NEAR(at(psf, 3, 2) / at(psf, 0, 0), std::exp2(-4 * 0.13 / 0.64), 1e-14);
}

TEST(Psf, MoffatFallsToHalfAtHalfItsWidth) {
  for (const double beta : {1.5, 3.0, 10.0}) {
    const Psf psf = moffat_psf(0.8, beta, 0.1, 21);
    expect_kernel(psf);
    EXPECT_NEAR(at(psf, 4, 0) / at(psf, 0, 0), 0.5, 1e-14) << beta;
    EXPECT_NEAR(at(psf, 0, -8) / at(psf, 0, 0), std::pow(1 + 4 * (std::exp2(1 / beta) - 1), -beta), 1e-14) << beta;
  }
}

TEST(Psf, AutomaticKernelIsTheSmallestThatHoldsTheLight) {
  for (const double fwhm : {0.15, 0.2, 0.33, 1.0}) {
    const double pixel = 0.08;
    const Psf psf = gaussian_psf(fwhm, pixel);
    expect_kernel(psf);
    // Unnormalised samples against the integral of the profile over the plane.
    const double variance = std::pow(fwhm / pixel, 2) / (8 * std::log(2.0));
    const auto inside = [&](int half) {
      double sum = 0;
      for (int y = -half; y <= half; ++y)
        for (int x = -half; x <= half; ++x) sum += std::exp(-(x * x + y * y) / (2 * variance));
      return sum / (2 * M_PI * variance);
    };
    EXPECT_GE(inside(psf.nx / 2), 0.999);
    ASSERT_GT(psf.nx, 1);
    EXPECT_LT(inside(psf.nx / 2 - 1), 0.999);
  }
}

TEST(Psf, NarrowProfileIsOnePixel) {
  const Psf psf = gaussian_psf(0.01, 0.08);
  EXPECT_EQ(psf.nx, 1);
  EXPECT_EQ(psf.values, std::vector<double>{1});
}

TEST(Psf, WideWingsMakeALargeKernel) {
  const Psf gaussian = gaussian_psf(0.3, 0.1), moffat = moffat_psf(0.3, 3, 0.1);
  expect_kernel(moffat);
  EXPECT_GT(moffat.nx, 2 * gaussian.nx);
}

TEST(Psf, RefusesWhatIsNoKernel) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(gaussian_psf(0, 0.1), InvalidInput);
  EXPECT_THROW(gaussian_psf(-1, 0.1), InvalidInput);
  EXPECT_THROW(gaussian_psf(kNaN, 0.1), InvalidInput);
  EXPECT_THROW(gaussian_psf(0.2, 0), InvalidInput);
  EXPECT_THROW(gaussian_psf(0.2, 0.1, 4), InvalidInput);
  EXPECT_THROW(gaussian_psf(0.2, 0.1, -3), InvalidInput);
  EXPECT_THROW(gaussian_psf(0.2, 0.1, kMaxPsfSide + 2), InvalidInput);
  EXPECT_THROW(moffat_psf(0.2, 1, 0.1), InvalidInput);
  EXPECT_THROW(moffat_psf(0.2, kNaN, 0.1), InvalidInput);
  // So much light in the wings that no kernel of a sensible size holds 99.9 % of it.
  EXPECT_THROW(moffat_psf(2, 1.05, 0.1), InvalidInput);
  EXPECT_THROW(gaussian_psf(1000, 0.1), InvalidInput);
}

TEST(Psf, AgreesWithTheReference) {
  const char* folder = std::getenv("EINFIELD_REFERENCE");
  if (!folder) GTEST_SKIP() << "EINFIELD_REFERENCE is not set";
  const FitsImage reference = read_fits(std::string(folder) + "/sie_perturber.fits", "PSF");
  const Psf psf = gaussian_psf(0.2, 0.08, 13);
  ASSERT_EQ(psf.values.size(), reference.values.size());
  for (std::size_t i = 0; i < psf.values.size(); ++i) EXPECT_NEAR(psf.values[i], reference.values[i], 1e-14);
}

}  // namespace
}  // namespace einfield
