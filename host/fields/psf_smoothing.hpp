// Maps at the resolution of the data: the PSF applied to a map of pixel values.
#pragma once

#include <vector>

#include "einfield/observation.hpp"
#include "host/cpu/convolve.hpp"

namespace einfield {

/// P ∗ map with zeros outside the image. A PSF on sub-pixels acts on a map that is constant within a pixel.
class PsfSmoothing {
 public:
  /// @param observation  its grid and its PSF
  explicit PsfSmoothing(const Observation& observation);
  /// @param map, result  (ny, nx), distinct. One call at a time.
  void apply(const double* map, double* result);
  std::vector<double> operator()(const std::vector<double>& map);

 private:
  int nx_, ny_, f_;
  Convolution<double> psf_;
  std::vector<double> fine_, convolved_;
};

}  // namespace einfield
