#include "host/results/resolution.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace einfield {

Resolution resolution(const Observation& observation, const NetworkShape& shape, const std::vector<double>& weights) {
  const double pixel = observation.grid.pixel_scale;
  Resolution found{2 * pixel, "two pixels"};
  const auto raise = [&found](double fwhm, const char* limits) {
    if (fwhm > found.fwhm) found = {fwhm, limits};
  };
  if (const Psf& psf = observation.psf; !psf.empty()) {
    double squares = 0;
    for (const double v : psf.values) squares += v * v;
    // The Gaussian with this sum of squares, 1/(4πs²), has the width √(8 ln 2) s.
    raise(std::sqrt(8 * std::log(2.0) / (4 * kPi * squares)) * pixel / psf.supersampling, "the width of the PSF");
  }
  if (!shape.hidden.empty() || shape.fourier_features == 0) return found;
  const auto features = static_cast<std::size_t>(shape.outputs(0));
  double highest = 0;
  for (std::size_t f = 0; f < features; ++f)
    highest = std::max(highest, shape.input_scale * std::hypot(weights[f], weights[features + f]));
  if (highest > 0) raise(kPi / highest, "half the shortest wavelength of the network");
  return found;
}

std::string in_words(const Resolution& r) {
  return fmt::format(
      "The error bars hold for structure wider than {:.2g} arcsec (FWHM), {}: mass that is more compact is smeared out "
      "to this size, and they do not show it.",
      r.fwhm, r.limits);
}

}  // namespace einfield
