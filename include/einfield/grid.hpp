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

/// Sub-pixel that a ray of a pixel lies in, when a PSF acts on f × f sub-pixels of it: index into an image of
/// (ny f, nx f) sub-pixels, row by row.
/// @param ray  of the pixel, 0 … s² − 1, in the order of Grid
/// @param s    Grid::supersampling, a multiple of f
EINFIELD_HD inline std::size_t subpixel_of_ray(int nx, int pixel_x, int pixel_y, int ray, int s, int f) {
  const int group = s / f;
  const int x = pixel_x * f + ray % s / group, y = pixel_y * f + ray / s / group;
  return static_cast<std::size_t>(y) * static_cast<std::size_t>(nx * f) + static_cast<std::size_t>(x);
}

/// The inverse: first ray of a sub-pixel. Its others are in s / f rows of s / f rays, a row s rays after the one
/// before.
/// @param x, y  column and row of the sub-pixel
EINFIELD_HD inline int first_ray_of_subpixel(int nx, int x, int y, int s, int f) {
  const int group = s / f;
  return ((y / f * nx + x / f) * s + y % f * group) * s + x % f * group;
}

/// Mean of the f × f sub-pixels of pixel (x, y).
/// @param stride  from one row of sub-pixels to the next
template <class Real>
EINFIELD_HD Real mean_of_subpixels(const Real* fine, std::size_t stride, int x, int y, int f) {
  fine += static_cast<std::size_t>(y * f) * stride + static_cast<std::size_t>(x * f);
  Real sum = 0;
  for (int v = 0; v < f; ++v, fine += stride)
    for (int w = 0; w < f; ++w) sum += fine[w];
  return sum / static_cast<Real>(f * f);
}

/// Adjoint of mean_of_subpixels: sets the cotangent of each of the sub-pixels, m̄ / f².
template <class Real>
EINFIELD_HD void mean_of_subpixels_adjoint(Real mean_bar, std::size_t stride, int x, int y, int f, Real* fine_bar) {
  fine_bar += static_cast<std::size_t>(y * f) * stride + static_cast<std::size_t>(x * f);
  for (int v = 0; v < f; ++v, fine_bar += stride)
    for (int w = 0; w < f; ++w) fine_bar[w] = mean_bar / static_cast<Real>(f * f);
}

}  // namespace einfield
