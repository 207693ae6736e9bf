// Two kernels: rays into images, images through the PSF into columns. An image has the columns of a sub-pixel side by
// side, so that threads of neighboring columns read neighboring numbers with the same weight of the PSF.
#include "kernels/joint_columns.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/combined_psf.hpp"
#include "kernels/device.cuh"
#include "kernels/raii.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

constexpr int kMaxRows = 65535;  ///< of a grid of blocks

struct RayColumns {
  const double *alpha, *slope, *scalars;
  int n_weights, n_columns, n_rays, nx, ny, side, f;  ///< pixels; rays and sub-pixels of a pixel's side
  EINFIELD_HD int wide() const { return nx * f; }
  EINFIELD_HD int samples() const { return nx * f * ny * f; }
};

/// The mean of a column's derivative over the rays of every sub-pixel; blocks (sub-pixels, columns).
/// @param images  (sub-pixels, columns)
__global__ void __launch_bounds__(kThreads) ray_images_kernel(RayColumns c, double* images) {
  const int sample = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), group = c.side / c.f;
  if (sample >= c.samples()) return;
  const int first = first_ray_of_subpixel(c.nx, sample % c.wide(), sample / c.wide(), c.side, c.f);
  for (int k = static_cast<int>(blockIdx.y); k < c.n_columns; k += static_cast<int>(gridDim.y)) {
    const double* const alpha = c.alpha + static_cast<std::size_t>(k) * 2 * c.n_rays;
    double sum = 0;
    for (int i = 0; i < group * group; ++i) {
      const int ray = first + i / group * c.side + i % group;
      sum += k < c.n_weights ? c.slope[ray] * alpha[ray] + c.slope[c.n_rays + ray] * alpha[c.n_rays + ray]
                             : c.scalars[static_cast<std::size_t>(k - c.n_weights) * c.n_rays + ray];
    }
    images[static_cast<std::size_t>(sample) * c.n_columns + k] = sum / (group * group);
  }
}

/// B of a fitted pixel: combined_psf.hpp (1) and 1/σ; one block per pixel.
/// @param psf  (psf_ny, psf_nx) weights of combined_psf()
__global__ void __launch_bounds__(kThreads)
    psf_rows_kernel(RayColumns c, const double* images, const double* psf, int psf_nx, int psf_ny, const int* pixel,
                    const double* inverse_sigma, double* b) {
  const int i = static_cast<int>(blockIdx.x), at = pixel[i];
  const int x0 = at % c.nx * c.f - (psf_nx - c.f) / 2, y0 = at / c.nx * c.f - (psf_ny - c.f) / 2;
  const int first_x = max(0, -x0), last_x = min(psf_nx, c.wide() - x0);
  const int first_y = max(0, -y0), last_y = min(psf_ny, c.ny * c.f - y0);
  for (int k = static_cast<int>(threadIdx.x); k < c.n_columns; k += kThreads) {
    double sum = 0;
    for (int y = first_y; y < last_y; ++y)
      for (int x = first_x; x < last_x; ++x)
        sum += psf[y * psf_nx + x] * images[static_cast<std::size_t>((y0 + y) * c.wide() + x0 + x) * c.n_columns + k];
    b[static_cast<std::size_t>(i) * c.n_columns + k] = inverse_sigma[i] * sum;
  }
}

struct ColumnsStorage {
  DeviceBuffer<double> alpha, slope, scalars, images, psf, inverse_sigma, b;
  DeviceBuffer<int> pixel;

  template <class Take>
  void each(Take&& take, const JointColumnsShape& s) {
    const auto f = static_cast<std::size_t>(s.psf.supersampling);
    take(alpha, 2 * s.rays() * s.weights);
    take(slope, 2 * s.rays());
    take(scalars, s.rays() * s.scalars);
    take(images, static_cast<std::size_t>(s.grid.n_pixels()) * f * f * s.columns());
    take(psf, combined_psf(s.psf).size());
    take(inverse_sigma, s.pixel.size());
    take(b, s.pixel.size() * s.columns());
    take(pixel, s.pixel.size());
  }
};

}  // namespace

struct JointColumns::Impl {
  int device;
  JointColumnsShape shape;
  Stream stream;
  ColumnsStorage storage;

  Impl(int on, JointColumnsShape of) : device(on), shape(std::move(of)) {
    allocate_all(storage, stream.get(), shape);
    const std::vector<double> psf = combined_psf(shape.psf);
    storage.psf.upload(psf, stream.get());
    storage.inverse_sigma.upload(shape.inverse_sigma, stream.get());
    storage.pixel.upload(shape.pixel, stream.get());
    stream.synchronize();  // `psf` ends here
  }
  ~Impl() { EINFIELD_CUDA_NOEXCEPT(cudaStreamSynchronize(stream.get())); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
};

JointColumns::JointColumns(int device, JointColumnsShape shape) {
  const CurrentDevice current(device);
  impl_ = std::make_unique<Impl>(device, std::move(shape));
}
JointColumns::~JointColumns() {
  if (!impl_) return;
  const CurrentDevice current(impl_->device, std::nothrow);
  impl_.reset();
}
JointColumns::JointColumns(JointColumns&&) noexcept = default;
JointColumns& JointColumns::operator=(JointColumns&&) noexcept = default;

std::size_t JointColumns::planned_bytes(const JointColumnsShape& shape) {
  return planned_bytes_of<ColumnsStorage>(shape);
}

void JointColumns::set_weights(const double* alpha) {
  const CurrentDevice current(impl_->device);
  impl_->storage.alpha.upload(alpha, impl_->storage.alpha.size(), impl_->stream.get());
  impl_->stream.synchronize();
}

void JointColumns::fill(const double* slope, const double* scalars, double* b) {
  const CurrentDevice current(impl_->device);
  const JointColumnsShape& shape = impl_->shape;
  ColumnsStorage& s = impl_->storage;
  if (shape.columns() == 0 || shape.pixel.empty()) return;
  const cudaStream_t stream = impl_->stream.get();
  const int f = shape.psf.supersampling;
  const RayColumns c{s.alpha.get(),
                     s.slope.get(),
                     s.scalars.get(),
                     static_cast<int>(shape.weights),
                     static_cast<int>(shape.columns()),
                     shape.grid.n_rays(),
                     shape.grid.nx,
                     shape.grid.ny,
                     shape.grid.supersampling,
                     f};
  s.slope.upload(slope, s.slope.size(), stream);
  s.scalars.upload(scalars, s.scalars.size(), stream);
  const auto blocks = static_cast<unsigned>((c.samples() + kThreads - 1) / kThreads);
  ray_images_kernel<<<dim3(blocks, static_cast<unsigned>(std::min(c.n_columns, kMaxRows))), kThreads, 0, stream>>>(
      c, s.images.get());
  EINFIELD_LAUNCH_CHECK();
  psf_rows_kernel<<<static_cast<unsigned>(shape.pixel.size()), kThreads, 0, stream>>>(
      c, s.images.get(), s.psf.get(), std::max(shape.psf.nx, 1) - 1 + f, std::max(shape.psf.ny, 1) - 1 + f,
      s.pixel.get(), s.inverse_sigma.get(), s.b.get());
  EINFIELD_LAUNCH_CHECK();
  s.b.download(b, s.b.size(), stream);
  impl_->stream.synchronize();
}

}  // namespace einfield::cuda
