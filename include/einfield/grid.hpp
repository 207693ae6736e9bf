// The pixel grid of an image and the rays shot through it.
#pragma once

#include <cstddef>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Pixels of an image and their sub-pixels. Arrays are (ny, nx), row 0 at the bottom; x grows with the column.
///
/// Center of pixel (ix, iy):  θ = center + (i − (n − 1)/2) · pixel_scale                                  [arcsec]
/// With supersampling s every pixel is the mean of s × s rays at the centers of its sub-pixels. Rays are stored pixel
/// by pixel: ray = (iy · nx + ix) · s² + (sy · s + sx).
struct Grid {
  int nx = 0;
  int ny = 0;
  double pixel_scale = 1.0;  ///< arcsec
  double center_x = 0.0;     ///< arcsec; coordinate of the middle of the image
  double center_y = 0.0;     ///< arcsec
  int supersampling = 1;

  EINFIELD_HD int n_pixels() const { return nx * ny; }
  EINFIELD_HD int rays_per_pixel() const { return supersampling * supersampling; }
  EINFIELD_HD int n_rays() const { return n_pixels() * rays_per_pixel(); }

  /// Image-plane position of a ray [arcsec], in double: the only rounding is the caller's conversion.
  EINFIELD_HD Vec2<double> ray(int index) const {
    const int s = supersampling;
    const int pixel = index / (s * s);
    const int sub = index % (s * s);
    const int column = pixel % nx, row = pixel / nx, sub_column = sub % s, sub_row = sub / s;
    const double sub_x = (sub_column - 0.5 * (s - 1)) / s;
    const double sub_y = (sub_row - 0.5 * (s - 1)) / s;
    return {center_x + (column - 0.5 * (nx - 1) + sub_x) * pixel_scale,
            center_y + (row - 0.5 * (ny - 1) + sub_y) * pixel_scale};
  }
  /// Image-plane position of the center of a pixel [arcsec].
  EINFIELD_HD Vec2<double> pixel(int index) const {
    const int column = index % nx, row = index / nx;
    return {center_x + (column - 0.5 * (nx - 1)) * pixel_scale, center_y + (row - 0.5 * (ny - 1)) * pixel_scale};
  }
};

}  // namespace einfield
