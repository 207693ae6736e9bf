// Checks of an observation at the entry of the library. The readers of the binary check before, with messages that name
// file and HDU.
#include "einfield/observation.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/limits.hpp"
#include "host/model/median.hpp"

namespace einfield {

double typical_noise(const std::vector<double>& noise, const std::vector<std::uint8_t>& mask, double marks) {
  std::vector<double> values, others;
  values.reserve(noise.size());
  double largest = 0, smallest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < noise.size(); ++i) {
    if ((!mask.empty() && !mask[i]) || !(noise[i] > 0) || !std::isfinite(noise[i])) continue;
    values.push_back(noise[i]);
    largest = std::max(largest, noise[i]);
    smallest = std::min(smallest, noise[i]);
  }
  if (largest <= marks * smallest) return upper_median(std::move(values));  // no median is below the smallest value
  for (const double v : values)
    if (v < largest) others.push_back(v);
  if (!others.empty())
    if (const double of_others = upper_median(std::move(others)); largest > marks * of_others) return of_others;
  return upper_median(std::move(values));
}

namespace {

/// Change of longitude (East) and latitude (North) per pixel along columns and along rows.
struct SkySteps {
  std::array<double, 2> east, north;
};

bool latitude_first(const CelestialWcs& wcs) {
  return wcs.type[0].rfind("DEC", 0) == 0 || wcs.type[0].find("LAT") == 1;
}

SkySteps sky_steps(const CelestialWcs& wcs) {
  const bool first = latitude_first(wcs);
  return {wcs.cd[first ? 1 : 0], wcs.cd[first ? 0 : 1]};
}

/// Whether the projection is the gnomonic one with its axes as usual.
bool knows_projection(const CelestialWcs& wcs) {
  const auto gnomonic = [](const std::string& axis) { return axis.size() >= 8 && axis.compare(4, 4, "-TAN") == 0; };
  return gnomonic(wcs.type[0]) && gnomonic(wcs.type[1]) && wcs.pole_lon.value_or(180) == 180;
}

}  // namespace

double CelestialWcs::position_angle(double phi) const {
  const SkySteps steps = sky_steps(*this);
  const double c = std::cos(phi), s = std::sin(phi);
  const double angle =
      std::atan2(steps.east[0] * c + steps.east[1] * s, steps.north[0] * c + steps.north[1] * s) * 180 / kPi;
  return angle == -180 ? 180 : angle;
}

bool CelestialWcs::right_handed() const {
  const SkySteps steps = sky_steps(*this);
  return steps.east[0] * steps.north[1] - steps.east[1] * steps.north[0] < 0;
}

std::array<double, 2> CelestialWcs::longitude_latitude(std::array<double, 2> pixel) const {
  if (!knows_projection(*this)) return {std::nan(""), std::nan("")};
  const bool first = latitude_first(*this);
  const SkySteps steps = sky_steps(*this);
  const double degree = kPi / 180, dx = pixel[0] - reference_pixel[0], dy = pixel[1] - reference_pixel[1];
  const double east = degree * (steps.east[0] * dx + steps.east[1] * dy);
  const double north = degree * (steps.north[0] * dx + steps.north[1] * dy);
  const double lon = degree * reference_value[first ? 1 : 0], lat = degree * reference_value[first ? 0 : 1];
  const double forward = std::cos(lat) - north * std::sin(lat);
  return {(lon + std::atan2(east, forward)) / degree,
          std::atan2(std::sin(lat) + north * std::cos(lat), std::hypot(east, forward)) / degree};
}

std::array<double, 2> CelestialWcs::pixel(std::array<double, 2> sky) const {
  if (!knows_projection(*this)) return {std::nan(""), std::nan("")};
  const bool first = latitude_first(*this);
  const SkySteps steps = sky_steps(*this);
  const double degree = kPi / 180, lat = degree * sky[1];
  const double lon = degree * (sky[0] - reference_value[first ? 1 : 0]), lat0 = degree * reference_value[first ? 0 : 1];
  const double toward = std::sin(lat0) * std::sin(lat) + std::cos(lat0) * std::cos(lat) * std::cos(lon);
  if (!(toward > 0)) return {std::nan(""), std::nan("")};
  const double east = std::cos(lat) * std::sin(lon) / toward / degree;
  const double north =
      (std::cos(lat0) * std::sin(lat) - std::sin(lat0) * std::cos(lat) * std::cos(lon)) / toward / degree;
  const double determinant = steps.east[0] * steps.north[1] - steps.east[1] * steps.north[0];
  return {reference_pixel[0] + (steps.north[1] * east - steps.east[1] * north) / determinant,
          reference_pixel[1] + (steps.east[0] * north - steps.north[0] * east) / determinant};
}

CelestialWcs CelestialWcs::on(const Grid& own, const Grid& other) const {
  CelestialWcs result = *this;
  const double scale = other.pixel_scale / own.pixel_scale;
  result.pixel_scale *= scale;
  for (auto& axis : result.cd)
    for (double& step : axis) step *= scale;
  // The reference point stays where it is: θ = center + (p − (n + 1)/2) pixel_scale, p from 1.
  const auto moved = [](double p, int n, double center, const Grid& from, int n_to, double center_to, const Grid& to) {
    const double theta = center + (p - 0.5 * (n + 1)) * from.pixel_scale;
    return (theta - center_to) / to.pixel_scale + 0.5 * (n_to + 1);
  };
  result.reference_pixel = {moved(reference_pixel[0], own.nx, own.center_x, own, other.nx, other.center_x, other),
                            moved(reference_pixel[1], own.ny, own.center_y, own, other.ny, other.center_y, other)};
  return result;
}

void Observation::validate() const {
  EINFIELD_REQUIRE(grid.nx >= 1 && grid.ny >= 1, "an image of " + std::to_string(grid.nx) + " x " +
                                                     std::to_string(grid.ny) + " pixels, expected at least 1 x 1");
  EINFIELD_REQUIRE(std::isfinite(grid.pixel_scale) && grid.pixel_scale > 0,
                   "pixel_scale = " + std::to_string(grid.pixel_scale) + " arcsec, expected > 0");
  EINFIELD_REQUIRE(grid.supersampling >= 1,
                   "supersampling = " + std::to_string(grid.supersampling) + ", expected >= 1");
  const auto n = static_cast<std::size_t>(grid.nx) * static_cast<std::size_t>(grid.ny);
  // In double: no product overflows.
  EINFIELD_REQUIRE(static_cast<double>(n) * grid.supersampling * grid.supersampling < kMaxRays,
                   "an image of " + std::to_string(n) + " pixels and supersampling " +
                       std::to_string(grid.supersampling) + ", expected fewer than 2^30 rays");
  EINFIELD_REQUIRE(image.size() == n && noise.size() == n && mask.size() == n,
                   "image, noise and mask of " + std::to_string(image.size()) + ", " + std::to_string(noise.size()) +
                       " and " + std::to_string(mask.size()) + " pixels, expected " + std::to_string(n) + " each");
  for (std::size_t i = 0; i < n; ++i) {
    EINFIELD_REQUIRE(std::isfinite(image[i]), "the image is not finite at pixel " + std::to_string(i));
    EINFIELD_REQUIRE(!mask[i] || (std::isfinite(noise[i]) && noise[i] > 0),
                     "noise = " + std::to_string(noise[i]) + " at used pixel " + std::to_string(i) + ", expected > 0");
  }
  EINFIELD_REQUIRE(n_used() > 0, "every pixel is masked");
  const NoiseCorrelation& k = noise_correlation;
  EINFIELD_REQUIRE(k.empty() || (k.nx % 2 == 1 && k.ny % 2 == 1 &&
                                 k.values.size() == static_cast<std::size_t>(k.nx) * static_cast<std::size_t>(k.ny)),
                   "a noise_correlation of " + std::to_string(k.nx) + " x " + std::to_string(k.ny) + " pixels and " +
                       std::to_string(k.values.size()) + " values, expected odd sizes and nx x ny values");
  for (std::size_t i = 0; i < k.values.size(); ++i)
    EINFIELD_REQUIRE(k.values[i] == k.values[k.values.size() - 1 - i] || i == k.values.size() / 2,
                     "a noise_correlation that changes when it is turned by 180 degrees");
  EINFIELD_REQUIRE(
      psf.supersampling >= 1 && grid.supersampling % psf.supersampling == 0,
      "a PSF of " + std::to_string(psf.supersampling) +
          " samples per pixel and side, expected a divisor of supersampling = " + std::to_string(grid.supersampling));
  if (psf.empty()) return;
  EINFIELD_REQUIRE(psf.nx % 2 == 1 && psf.ny % 2 == 1 && psf.nx <= grid.nx * psf.supersampling &&
                       psf.ny <= grid.ny * psf.supersampling,
                   "a PSF of " + std::to_string(psf.nx) + " x " + std::to_string(psf.ny) +
                       " pixels, expected odd sizes no larger than the image");
  EINFIELD_REQUIRE(psf.values.size() == static_cast<std::size_t>(psf.nx) * static_cast<std::size_t>(psf.ny),
                   "a PSF of " + std::to_string(psf.values.size()) + " values, expected nx x ny");
  for (const double v : psf.values) EINFIELD_REQUIRE(std::isfinite(v), "the PSF is not finite");
}

}  // namespace einfield
