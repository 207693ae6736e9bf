// What coolest_write.cpp and coolest_read.cpp share: constants of the standard, and the conversions of coolest.hpp.
#pragma once

#include <cmath>
#include <vector>

#include "einfield/cosmology.hpp"
#include "einfield/model.hpp"
#include "einfield/source.hpp"
#include "host/exchange/exchange.hpp"

namespace einfield::coolest {

inline constexpr double kDegrees = 180 / kPi;
/// In files of lenses whose redshifts are not known.
inline constexpr Cosmology kPlaceholder{0.5, 2.0, 70, 0.3};
/// Smallest Sérsic index and largest shear of the standard.
inline constexpr double kMinSersic = 0.5, kMaxShear = 1;
inline constexpr const char* kPotential = "PixelatedRegularGridPotential";

/// b of the Sérsic profile (einfield/source.hpp).
inline double sersic_b(double n) {
  return kSersicSlope * n + kSersicOffset;
}

/// Two components of an ellipticity or a shear as a length and a position angle.
struct Polar {
  double size, angle;  ///< |e|; in (−90, 90] [degrees]
};

inline Polar polar(double first, double second) {
  const double phi = 0.5 * std::atan2(second, first) * kDegrees;  // [−90, 90]
  return {std::hypot(first, second), phi <= 0 ? phi + 90 : phi - 90};
}

/// The inverse of polar().
inline Vec2<double> components(double size, double angle) {
  const double twice = 2 * angle / kDegrees;  // 2(angle + 90°) = twice + 180°
  return {-size * std::cos(twice), -size * std::sin(twice)};
}

inline double axis_ratio(double ellipticity) {
  return (1 - ellipticity) / (1 + ellipticity);
}

/// The value of a parameter, by its name.
inline double value_of(const ProfileInfo& info, const std::vector<double>& values, const char* name) {
  return values.at(static_cast<std::size_t>(info.index_of(name)));
}
inline bool is_free(const ProfileInfo& info, const decltype(LensComponent::free)& free, const char* name) {
  return free.at(static_cast<std::size_t>(info.index_of(name)));
}

/// Shift of the source when shear and convergence are written about (0, 0): Σ Γ θ_0 [arcsec].
inline Vec2<double> constant_deflection(const std::vector<LensComponent>& lens) {
  Vec2<double> sum{};
  for (const LensComponent& c : lens) {
    const std::vector<double>& p = c.values;
    if (c.kind == LensKind::shear) sum += {p[0] * p[2] + p[1] * p[3], p[1] * p[2] - p[0] * p[3]};
    if (c.kind == LensKind::convergence) sum += {p[0] * p[1], p[0] * p[2]};
  }
  return sum;
}

inline bool is_uniform(const LightComponent& c) {
  return c.kind == LightKind::uniform;
}

inline void move(ParameterPrior& prior, double by) {
  prior.lower += by;  // infinite bounds stay infinite
  prior.upper += by;
  if (prior.gaussian()) prior.mean += by;
}

inline void move(LightComponent& c, Vec2<double> by) {
  const ProfileInfo& info = light_info(c.kind);
  const int x = info.index_of("center_x");
  if (x >= 0) {
    const auto i = static_cast<std::size_t>(x);
    c.values[i] += by.x;
    c.values[i + 1] += by.y;
    if (!c.priors.empty()) {
      move(c.priors[i], by.x);
      move(c.priors[i + 1], by.y);
    }
  }
  c.grid.center_x += by.x;
  c.grid.center_y += by.y;
}

}  // namespace einfield::coolest
