// Copies of images, and images of pixels and of the f × f sub-pixels that a finely sampled PSF acts on; the formulas
// are grid.hpp's.
#pragma once

#include <cstddef>
#include <utility>

#include "einfield/cuda.hpp"
#include "kernels/check.cuh"

namespace einfield::cuda {

/// Copies a number of images, (ny, nx) each, on the device. Without padding they are one block of rows.
template <class Real>
void copy_images(cudaStream_t stream, std::size_t images, ImageView<const Real> from, ImageView<Real> to, int ny,
                 int nx) {
  const auto rows = static_cast<std::size_t>(ny);
  std::size_t rows_at_once = rows;
  if (from.system_stride == rows * from.row_stride && to.system_stride == rows * to.row_stride)
    rows_at_once = rows * std::exchange(images, 1);
  for (std::size_t i = 0; i < images; ++i)
    EINFIELD_CUDA(cudaMemcpy2DAsync(to.data + i * to.system_stride, to.row_stride * sizeof(Real),
                                    from.data + i * from.system_stride, from.row_stride * sizeof(Real),
                                    static_cast<std::size_t>(nx) * sizeof(Real), rows_at_once, cudaMemcpyDeviceToDevice,
                                    stream));
}

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
