// PSF kernels from formulas: sampled, cut where they contain 99.9 % of the light, normalized.
#include "einfield/psf.hpp"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <string>

#include "einfield/error.hpp"

namespace einfield {
namespace {

constexpr double kShareInside = 0.999;  ///< of the light, in a kernel whose size is not given

std::string number(double value) {
  return fmt::format("{:g}", value);
}

void check(double fwhm, double pixel_scale, int size) {
  EINFIELD_REQUIRE(std::isfinite(fwhm) && fwhm > 0, "psf fwhm = " + number(fwhm) + " arcsec, expected > 0");
  EINFIELD_REQUIRE(std::isfinite(pixel_scale) && pixel_scale > 0,
                   "pixel_scale = " + number(pixel_scale) + " arcsec, expected > 0");
  EINFIELD_REQUIRE(
      size == 0 || (size > 0 && size % 2 == 1 && size <= kMaxPsfSide),
      "psf size = " + std::to_string(size) + ", expected an odd number up to " + std::to_string(kMaxPsfSide));
}

/// @param profile  of r² in pixels²
/// @param total    its integral over the plane [pixels²]
Psf sampled(const std::function<double(double)>& profile, double total, int size) {
  const auto at = [&](int x, int y) { return profile(static_cast<double>(x) * x + static_cast<double>(y) * y); };
  int half = size / 2;
  if (size == 0) {
    // Ring by ring. The samples of a narrow profile may exceed its integral: then the kernel is one pixel.
    double inside = at(0, 0);
    for (half = 0; inside < kShareInside * total; ++half) {
      EINFIELD_REQUIRE(2 * half + 3 <= kMaxPsfSide, "a psf kernel that contains 99.9 % of the light exceeds " +
                                                        std::to_string(kMaxPsfSide) +
                                                        " pixels, expected a smaller fwhm, a larger beta or a size");
      const int edge = half + 1;
      for (int k = -edge; k < edge; ++k) inside += at(edge, k) + at(-edge, -k) + at(-k, edge) + at(k, -edge);
    }
  }
  Psf psf;
  psf.nx = psf.ny = 2 * half + 1;
  double sum = 0;
  for (int y = -half; y <= half; ++y)
    for (int x = -half; x <= half; ++x) {
      psf.values.push_back(at(x, y));
      sum += psf.values.back();
    }
  EINFIELD_REQUIRE(sum > 0 && std::isfinite(sum),
                   "a psf kernel with the sum " + number(sum) + ", expected a fwhm closer to the pixel scale");
  for (double& value : psf.values) value /= sum;
  return psf;
}

}  // namespace

Psf gaussian_psf(double fwhm, double pixel_scale, int size) {
  check(fwhm, pixel_scale, size);
  const double variance = std::pow(fwhm / pixel_scale, 2) / (8 * std::log(2.0));
  return sampled([variance](double r2) { return std::exp(-r2 / (2 * variance)); }, 2 * kPi * variance, size);
}

Psf moffat_psf(double fwhm, double beta, double pixel_scale, int size) {
  check(fwhm, pixel_scale, size);
  EINFIELD_REQUIRE(std::isfinite(beta) && beta > 1, "psf beta = " + number(beta) + ", expected > 1");
  const double a2 = std::pow(fwhm / pixel_scale, 2) / (4 * (std::pow(2.0, 1 / beta) - 1));
  return sampled([=](double r2) { return std::pow(1 + r2 / a2, -beta); }, kPi * a2 / (beta - 1), size);
}

}  // namespace einfield
