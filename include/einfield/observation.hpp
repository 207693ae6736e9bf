// What was observed: image, noise, mask, PSF and their grid.
#pragma once

#include <cstdint>
#include <vector>

#include "einfield/grid.hpp"

namespace einfield {

/// A convolution kernel of odd size, (ny, nx), normalised to 1, its centre in the middle; empty = no PSF.
struct Psf {
  int nx = 0;
  int ny = 0;
  std::vector<double> values;
  /// Samples of the kernel a pixel's side. With more than one the image is convolved on sub-pixels of that size, each
  /// the mean of its rays, and averaged over pixels behind the PSF: a divisor of the grid's supersampling.
  int supersampling = 1;
  bool empty() const { return values.empty(); }
};

/// One image of a lens. All maps are (ny, nx) of `grid`.
struct Observation {
  Grid grid;
  std::vector<double> image;       ///< brightness per pixel
  std::vector<double> noise;       ///< 1 σ, same unit; > 0 where the mask is 1
  std::vector<std::uint8_t> mask;  ///< 1 = used
  Psf psf;

  /// Number of used pixels.
  int n_used() const {
    int n = 0;
    for (const std::uint8_t m : mask) n += m != 0;
    return n;
  }
  /// @throws InvalidInput on shapes that disagree, a value out of range, non-finite used pixels or an empty mask.
  void validate() const;
};

}  // namespace einfield
