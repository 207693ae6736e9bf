// Images of sub-pixels through the PSF, averaged over pixels, weighted, at the pixels that enter the loss. Directly for
// small PSFs, by cuFFT for larger ones.
#pragma once

#include <cufft.h>

#include "kernels/column_arrays.cuh"
#include "kernels/combined_psf.hpp"

namespace einfield::cuda {

inline constexpr int kPsfColumns = 32, kPsfLanes = 4;  ///< threads of a block in the direct kernel
inline constexpr int kMaxPsfArea = 289;                ///< of W; above, transforms cost less by estimate
inline constexpr std::size_t kMaxPsfShared = 48 << 10;

/// Shared memory of a block that makes 32 columns × 4 kRows rows of pixels: samples, then W.
inline std::size_t psf_shared_bytes(int f, int psf_nx, int psf_ny, int rows) {
  const auto width = static_cast<std::size_t>((kPsfColumns - 1) * f + psf_nx),
             height = static_cast<std::size_t>((kPsfLanes * rows - 1) * f + psf_ny);
  return (width * height + static_cast<std::size_t>(psf_nx) * static_cast<std::size_t>(psf_ny)) * sizeof(double);
}

/// Puts the weighted model light m of a pixel into its column: that of the data minus the light for the image of all
/// other light.
__device__ inline void put_column(const ColumnArrays& a, int point, int image, bool values, const SystemView& system,
                                  int pixel, double m) {
  const int place = system.used[pixel];
  if (place < 0) return;
  const double weighted = system.weight[place] * m;
  if (!values)
    a.column(point, 1 + a.n_linear + image)[place] = weighted;
  else if (image < a.n_linear)
    a.column(point, 1 + image)[place] = weighted;
  else
    a.column(point, 0)[place] = system.data[place] - weighted;
}

/// combined_psf.hpp (1). A thread makes kRows pixels above each other. In y, t = f q + r: for every phase r and column
/// of W, a window of kRows samples f apart slides upwards in registers with q, so that a sample and a weight serve
/// kRows pixels.
/// @param values  whether the images are those of render_values_kernel; else the derivatives'
template <int kRows>
__global__ void __launch_bounds__(kPsfColumns* kPsfLanes)
    psf_columns_kernel(ColumnArrays a, int n_images, bool values) {
  extern __shared__ double shared[];
  const int point = static_cast<int>(blockIdx.z) / n_images, image = static_cast<int>(blockIdx.z) % n_images;
  if (!values && a.result(point)[kCurved] == 0) return;
  const SystemView& system = a.system(point);
  const int x0 = static_cast<int>(blockIdx.x) * kPsfColumns, y0 = static_cast<int>(blockIdx.y) * kPsfLanes * kRows;
  if (x0 >= system.nx || y0 >= system.ny) return;
  const int f = a.psf_supersampling, wide = system.nx * f, high = system.ny * f;
  const int width = (kPsfColumns - 1) * f + a.psf_nx, height = (kPsfLanes * kRows - 1) * f + a.psf_ny;
  double *tile = shared, *weights = tile + width * height;
  const double* in = a.images + (static_cast<std::size_t>(point) * n_images + image) * a.image_size;
  const int thread = static_cast<int>(threadIdx.x);
  // The middle of W is (size − f)/2 samples from its lower end.
  const int first_x = x0 * f - (a.psf_nx - f) / 2, first_y = y0 * f - (a.psf_ny - f) / 2;
  for (int i = thread; i < width * height; i += kPsfColumns * kPsfLanes) {
    const int x = first_x + i % width, y = first_y + i / width;
    tile[i] = x >= 0 && y >= 0 && x < wide && y < high ? in[y * a.row_stride + x] : 0;
  }
  for (int i = thread; i < a.psf_nx * a.psf_ny; i += kPsfColumns * kPsfLanes) weights[i] = system.psf[i];
  __syncthreads();

  const int column = thread % kPsfColumns, lane = thread / kPsfColumns, step = f * width;
  if (x0 + column >= system.nx || y0 + lane * kRows >= system.ny) return;
  double sum[kRows] = {}, window[kRows];
  for (int r = 0; r < f; ++r) {
    const int taps = (a.psf_ny - r + f - 1) / f;
    for (int l = 0; l < a.psf_nx; ++l) {
      const double* sample = tile + (lane * kRows * f + r) * width + column * f + l;
      const double* weight = weights + r * a.psf_nx + l;
#pragma unroll
      for (int j = 0; j + 1 < kRows; ++j) window[j] = sample[j * step];
      sample += (kRows - 1) * step;
      for (int first = 0; first < taps; first += kRows) {
#pragma unroll
        for (int u = 0; u < kRows; ++u) {  // q = first + u; sample q + j is in window[(u + j) % kRows]
          if (first + u >= taps) break;
          window[(u + kRows - 1) % kRows] = *sample;
          const double w = *weight;
#pragma unroll
          for (int j = 0; j < kRows; ++j) sum[j] += w * window[(u + j) % kRows];
          sample += step;
          weight += f * a.psf_nx;
        }
      }
    }
  }
  const int x = x0 + column;
#pragma unroll
  for (int j = 0; j < kRows; ++j) {
    const int y = y0 + lane * kRows + j;
    if (y < system.ny) put_column(a, point, image, values, system, y * system.nx + x, sum[j]);
  }
}

/// Images that have gone through the PSF by cuFFT: means over pixels, into the columns. One thread per pixel.
__global__ void __launch_bounds__(kThreads) pixel_columns_kernel(ColumnArrays a, int n_images, bool values) {
  const int point = static_cast<int>(blockIdx.z), image = static_cast<int>(blockIdx.y), f = a.psf_supersampling;
  if (!values && a.result(point)[kCurved] == 0) return;
  const SystemView& system = a.system(point);
  const double* in = a.images + (static_cast<std::size_t>(point) * n_images + image) * a.image_size;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int pixel = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); pixel < system.nx * system.ny;
       pixel += stride) {
    double sum = 0;
    for (int y = pixel / system.nx * f; y < (pixel / system.nx + 1) * f; ++y)
      for (int x = pixel % system.nx * f; x < (pixel % system.nx + 1) * f; ++x) sum += in[y * a.row_stride + x];
    put_column(a, point, image, values, system, pixel, sum / (f * f));
  }
}

/// Spectra of images times the spectrum of their system's PSF.
__global__ void __launch_bounds__(kThreads) psf_spectrum_kernel(ColumnArrays a, int n_images, cufftDoubleComplex* data,
                                                                const cufftDoubleComplex* spectra, int size) {
  const int point = static_cast<int>(blockIdx.z), image = static_cast<int>(blockIdx.y);
  cufftDoubleComplex* own = data + (static_cast<std::size_t>(point) * n_images + image) * size;
  const cufftDoubleComplex* psf = spectra + static_cast<std::size_t>(a.points[point].system) * size;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < size; i += stride) {
    const cufftDoubleComplex v = own[i], p = psf[i];
    own[i] = {v.x * p.x - v.y * p.y, v.x * p.y + v.y * p.x};
  }
}

}  // namespace einfield::cuda
