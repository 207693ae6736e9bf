#include "host/fields/light_flux.hpp"

#include <cmath>
#include <numeric>

namespace einfield {
namespace {

/// ∫ I d²x over ellipses of area π R²:
///     2π ∫ R amp exp(−b ((R/R_s)^{1/n} − 1)) dR = 2π n R_s² amp e^b b^{−2n} Γ(2n)
/// (Graham & Driver 2005, equation 2). With the major axis, isophotes have the area π q R².
double sersic_flux(const LightComponent& light) {
  const std::vector<double>& p = light.values;
  const double n = p[2], b = kSersicSlope * n + kSersicOffset, e = std::hypot(p[3], p[4]);
  const double area = light.radius == RadiusKind::major_axis ? (1 - e) / (1 + e) : 1;
  return 2 * kPi * area * n * p[1] * p[1] * p[0] * std::exp(b) * std::pow(b, -2 * n) * std::tgamma(2 * n);
}

}  // namespace

double total_flux(const LightComponent& light, double pixel_scale) {
  const double pixel = pixel_scale * pixel_scale;
  switch (light.kind) {
    case LightKind::sersic_ellipse:
      return sersic_flux(light) / pixel;
    case LightKind::gaussian:
    case LightKind::gaussian_ellipse:
      return light.values[0] / pixel;
    case LightKind::pixelated:
      return std::accumulate(light.pixels.begin(), light.pixels.end(), 0.0) * light.grid.pixel_scale *
             light.grid.pixel_scale / pixel;
    case LightKind::network:
    case LightKind::uniform:
      break;
  }
  return std::nan("");
}

}  // namespace einfield
