// The correlation of the noise of neighboring pixels, measured in the blank sky of an image.
#pragma once

#include <vector>

#include "einfield/observation.hpp"

namespace einfield {

/// The kernel that is measured: offsets of up to 3 pixels.
inline constexpr int kCorrelationReach = 3;

struct SkyCorrelation {
  NoiseCorrelation kernel;  ///< at most 7 × 7, as far as there is correlation
  double scatter = 0;       ///< 1 σ of blank sky in units of the noise map
  int sky_pixels = 0;       ///< that it was measured in
};

/// With z the residuals of blank sky in units of the noise, after subtraction of their local mean, the coefficient at
/// an offset d is the mean of z(p) z(p + d) over pairs of sky pixels, divided by that of z². Blank is what has no light
/// around it: the mean of 5 × 5 pixels lies within 3 σ of the median of such means. What is below three times its own
/// uncertainty counts as 0, and the whole is drawn towards independent noise as far as it takes to have no negative
/// power at any frequency. Noise maps of drizzled images often hold the noise that uncorrelated pixels would have, more
/// than the pixels scatter: kernel and scatter belong together.
/// @param o       image, noise and grid
/// @param usable  (ny, nx), 1 = a measurement, whether or not it is fitted
/// @throws InvalidInput with fewer than 500 pixels of sky
SkyCorrelation sky_correlation(const Observation& o, const std::vector<std::uint8_t>& usable);

}  // namespace einfield
