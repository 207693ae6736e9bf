// Images of pixels and of the f × f sub-pixels that a finely sampled PSF acts on; the formulas are grid.hpp's.
#pragma once

#include "einfield/cuda.hpp"

namespace einfield::cuda {

/// Writes the mean of the sub-pixels of every pixel, times `factor`.
/// @param systems  number of all images
/// @param pixels   images of (ny, nx)
template <class Real>
void to_pixels(const Queue& queue, std::size_t systems, ImageView<Real> fine, int f, Real factor,
               ImageView<Real> pixels, int ny, int nx);
/// The transpose: writes into every sub-pixel its share of the pixel, 1/f², times `factor`.
template <class Real>
void to_subpixels(const Queue& queue, std::size_t systems, ImageView<Real> pixels, int ny, int nx, int f, Real factor,
                  ImageView<Real> fine);

extern template void to_pixels(const Queue&, std::size_t, ImageView<float>, int, float, ImageView<float>, int, int);
extern template void to_pixels(const Queue&, std::size_t, ImageView<double>, int, double, ImageView<double>, int, int);
extern template void to_subpixels(const Queue&, std::size_t, ImageView<float>, int, int, int, float, ImageView<float>);
extern template void to_subpixels(const Queue&, std::size_t, ImageView<double>, int, int, int, double,
                                  ImageView<double>);

}  // namespace einfield::cuda
