// How the noise of the pixels of a resampled image is correlated.
#pragma once

#include <vector>

namespace einfield {

/// Correlation coefficients of the noise of two pixels by their offset, (ny, nx), both odd: 1 in the middle and the
/// same after a turn by 180°. Resampling (drizzle) makes such noise.
struct NoiseCorrelation {
  int nx = 0;
  int ny = 0;
  std::vector<double> values;
};

}  // namespace einfield
