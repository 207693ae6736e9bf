// The PSF: m = P ∗ I with zeros outside the image, and its transpose. Small kernels directly from shared memory,
// larger ones by cuFFT on images padded to a size with small prime factors.
#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "einfield/cuda.hpp"
#include "einfield/limits.hpp"
#include "kernels/arguments.cuh"
#include "kernels/convolve.cuh"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

constexpr int kMaxTileX = 128, kMaxTileY = 32;  ///< pixels of a block in the direct convolution
constexpr int kMaxDirectKernel = 31;            ///< largest side: image tile and kernel fit 48 KB in double
constexpr int kMaxDirectArea = 441;             ///< above, three launches and two transforms are cheaper
constexpr double kMaxDirectWork = 1 << 29;      ///< pixels × kernel pixels; likewise

template <class Real>
struct ComplexOf;
template <>
struct ComplexOf<float> {
  using type = cufftComplex;
  static constexpr cufftType kForward = CUFFT_R2C, kInverse = CUFFT_C2R;
};
template <>
struct ComplexOf<double> {
  using type = cufftDoubleComplex;
  static constexpr cufftType kForward = CUFFT_D2Z, kInverse = CUFFT_Z2D;
};

void transform_forward(const FftPlan& plan, float* in, cufftComplex* out) {
  EINFIELD_CUDA(cufftExecR2C(plan.get(), in, out));
}
void transform_forward(const FftPlan& plan, double* in, cufftDoubleComplex* out) {
  EINFIELD_CUDA(cufftExecD2Z(plan.get(), in, out));
}
void transform_inverse(const FftPlan& plan, cufftComplex* in, float* out) {
  EINFIELD_CUDA(cufftExecC2R(plan.get(), in, out));
}
void transform_inverse(const FftPlan& plan, cufftDoubleComplex* in, double* out) {
  EINFIELD_CUDA(cufftExecZ2D(plan.get(), in, out));
}

/// Pixels of a block: whole rows of a narrow image, so that a block reads and writes one piece of memory.
struct DirectTile {
  int nx, ny;
  explicit DirectTile(int image_nx) : nx(image_nx <= kMaxTileX ? image_nx : kMaxTileX / 2), ny(kThreads / nx) {
    if (ny > kMaxTileY) ny = kMaxTileY;
  }
};

/// out(x) = Σ_k P(k) in(x − k), or with `transpose` Σ_k P(k) in(x + k), k from −(size − 1)/2 to (size − 1)/2.
/// Shared: the tile of `in` with its border, then the kernel in the order in which it meets the tile.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    convolve_kernel(const int* list, const Real* __restrict__ in, const Real* __restrict__ psf, int psf_nx, int psf_ny,
                    int nx, int ny, DirectTile block, bool transpose, Real* __restrict__ out) {
  extern __shared__ double shared[];
  const int width = block.nx + psf_nx - 1, height = block.ny + psf_ny - 1, area = psf_nx * psf_ny;
  Real* tile = reinterpret_cast<Real*>(shared);
  Real* weights = tile + width * height;
  const int row_system = system_of_row(list, blockIdx.z);
  if (row_system < 0) return;
  const auto system = static_cast<std::size_t>(row_system),
             n = static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny);
  in += blockIdx.z * n;
  out += blockIdx.z * n;
  psf += system * static_cast<std::size_t>(area);

  const int thread = static_cast<int>(threadIdx.x);
  const int x0 = static_cast<int>(blockIdx.x) * block.nx, y0 = static_cast<int>(blockIdx.y) * block.ny;
  const int first_x = x0 - psf_nx / 2, first_y = y0 - psf_ny / 2;
  for (int i = thread; i < area; i += kThreads) weights[i] = psf[transpose ? i : area - 1 - i];
  // What of the tile lies in the image, row after row without a gap, then zeros around it.
  const int begin_x = first_x > 0 ? first_x : 0, end_x = first_x + width < nx ? first_x + width : nx;
  const int begin_y = first_y > 0 ? first_y : 0, end_y = first_y + height < ny ? first_y + height : ny;
  const int inside_nx = end_x - begin_x, inside = inside_nx * (end_y - begin_y);
  for (int i = thread; i < inside; i += kThreads) {
    const int x = begin_x + i % inside_nx, y = begin_y + i / inside_nx;
    tile[(y - first_y) * width + x - first_x] = in[static_cast<std::size_t>(y) * nx + x];
  }
  for (int i = thread; i < width * height; i += kThreads) {
    const int x = first_x + i % width, y = first_y + i / width;
    if (x < begin_x || x >= end_x || y < begin_y || y >= end_y) tile[i] = 0;
  }
  __syncthreads();
  const int column = thread % block.nx, row = thread / block.nx, x = x0 + column, y = y0 + row;
  if (row >= block.ny || x >= nx || y >= ny) return;
  Real sum = 0;
  for (int k = 0; k < psf_ny; ++k) {
    const Real* w = weights + k * psf_nx;
    const Real* values = tile + (row + k) * width + column;
#pragma unroll 4
    for (int l = 0; l < psf_nx; ++l) sum += w[l] * values[l];
  }
  out[static_cast<std::size_t>(y) * nx + x] = sum;
}

/// data ∘= spectrum, or its complex conjugate. The data lie by rows of blocks, the spectra by systems.
template <class Complex>
__global__ void __launch_bounds__(kThreads)
    multiply_kernel(const int* list, Complex* data, const Complex* spectrum, std::size_t n, bool conjugate) {
  const int system = system_of_row(list, blockIdx.y);
  if (system < 0) return;
  data += blockIdx.y * n;
  spectrum += static_cast<std::size_t>(system) * n;
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
    const Complex a = data[i], b = spectrum[i];
    const auto b_imaginary = conjugate ? -b.y : b.y;
    Complex product;
    product.x = a.x * b.x - a.y * b_imaginary;
    product.y = a.x * b_imaginary + a.y * b.x;
    data[i] = product;
  }
}

/// Means of the f × f sub-pixels of every pixel, times `factor`; or (kSpread) every sub-pixel its share of that.
template <class Real, bool kSpread>
__global__ void __launch_bounds__(kThreads) subpixels_kernel(const int* list, ImageView<Real> fine, int nx, int ny,
                                                             int f, Real factor, ImageView<Real> pixels) {
  if (system_of_row(list, blockIdx.y) < 0) return;
  fine.data += blockIdx.y * fine.system_stride;
  pixels.data += blockIdx.y * pixels.system_stride;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < nx * ny; i += stride) {
    const int x = i % nx, y = i / nx;
    Real& pixel = pixels.data[static_cast<std::size_t>(y) * pixels.row_stride + x];
    if constexpr (kSpread)
      mean_of_subpixels_adjoint(factor * pixel, fine.row_stride, x, y, f, fine.data);
    else
      pixel = factor * mean_of_subpixels(fine.data, fine.row_stride, x, y, f);
  }
}

/// Smallest even number ≥ n of the form 2^a 3^b 5^c 7^d: sizes that cuFFT has fast kernels for.
int good_size(int n) {
  for (int size = n + n % 2;; size += 2) {
    int rest = size;
    for (const int prime : {2, 3, 5, 7})
      while (rest % prime == 0) rest /= prime;
    if (rest == 1) return size;
  }
}

enum class Path { identity, direct, fft };

/// Numbers that fix every size.
struct ConvolutionSizes {
  Path path;
  int pixels_nx, pixels_ny;  ///< of the model image
  int f;                     ///< sub-pixels per pixel and side, Psf::supersampling
  int nx, ny;                ///< of the image that is convolved, in sub-pixels
  int psf_nx, psf_ny;
  int padded_nx, padded_ny;  ///< of the images: those of the FFT, or nx and ny
  std::size_t systems;

  ConvolutionSizes(int ny_in, int nx_in, const std::vector<Psf>& psfs, ConvolutionMethod method)
      : pixels_nx(nx_in), pixels_ny(ny_in), f(psfs.empty() ? 1 : psfs.front().supersampling), systems(psfs.size()) {
    EINFIELD_REQUIRE(f >= 1 && f <= kMaxSupersampling, "a PSF of " + std::to_string(f) +
                                                           " samples a pixel's side, expected 1 to " +
                                                           std::to_string(kMaxSupersampling));
    padded_nx = nx = nx_in * f;
    padded_ny = ny = ny_in * f;
    EINFIELD_REQUIRE(nx > 0 && ny > 0 && systems > 0 && systems <= 65535,
                     "convolution of " + std::to_string(systems) + " images of " + std::to_string(nx) + " x " +
                         std::to_string(ny) + " pixels, expected 1 ... 65535 images of at least 1 x 1");
    psf_nx = psfs.front().nx;
    psf_ny = psfs.front().ny;
    const auto area = static_cast<std::size_t>(psf_nx) * static_cast<std::size_t>(psf_ny);
    for (const Psf& psf : psfs) {
      EINFIELD_REQUIRE(psf.nx == psf_nx && psf.ny == psf_ny && psf.values.size() == area && psf.supersampling == f,
                       "PSFs of different sizes, expected one shape");
      EINFIELD_REQUIRE(
          psf.empty() || (psf.nx % 2 == 1 && psf.ny % 2 == 1),
          "a PSF of " + std::to_string(psf.nx) + " x " + std::to_string(psf.ny) + " pixels, expected odd sizes");
    }
    const bool fits = psf_nx <= kMaxDirectKernel && psf_ny <= kMaxDirectKernel;
    if (area == 0) {
      path = Path::identity;
    } else if (method == ConvolutionMethod::automatic) {
      const double work = static_cast<double>(systems) * nx * ny * static_cast<double>(area);
      path = fits && area <= kMaxDirectArea && work <= kMaxDirectWork ? Path::direct : Path::fft;
    } else {
      path = method == ConvolutionMethod::direct ? Path::direct : Path::fft;
      EINFIELD_REQUIRE(path == Path::fft || fits, "a PSF of " + std::to_string(psf_nx) + " x " +
                                                      std::to_string(psf_ny) + " pixels, expected at most " +
                                                      std::to_string(kMaxDirectKernel) +
                                                      " a side for the direct convolution");
    }
    if (path != Path::fft) return;
    // What wraps around falls into half a kernel beyond the image, on both sides the same place.
    padded_nx = good_size(std::max(nx + psf_nx / 2, psf_nx));
    padded_ny = good_size(std::max(ny + psf_ny / 2, psf_ny));
  }

  std::size_t area() const { return static_cast<std::size_t>(psf_nx) * static_cast<std::size_t>(psf_ny); }
  std::size_t pixels() const { return static_cast<std::size_t>(pixels_nx) * static_cast<std::size_t>(pixels_ny); }
  std::size_t image() const { return static_cast<std::size_t>(padded_nx) * static_cast<std::size_t>(padded_ny); }
  std::size_t spectrum() const {
    return static_cast<std::size_t>(padded_nx / 2 + 1) * static_cast<std::size_t>(padded_ny);
  }
  /// Images that are transformed together for a queue of `rows`: a power of two or all, so that there are few plans.
  unsigned plan_rows(unsigned rows) const { return std::min(std::bit_ceil(rows), static_cast<unsigned>(systems)); }
  std::size_t direct_shared_bytes(std::size_t real) const {
    const DirectTile block(nx);
    const auto tile = static_cast<std::size_t>(block.nx + psf_nx - 1) * static_cast<std::size_t>(block.ny + psf_ny - 1);
    return (tile + area()) * real;
  }
};

template <class Real>
struct ConvolutionStorage {
  using Complex = typename ComplexOf<Real>::type;
  DeviceBuffer<Real> psf, image, image_bar;
  DeviceBuffer<Real> convolved, convolved_bar;  ///< P ∗ I
  DeviceBuffer<Real> model, model_bar;          ///< its means, for a PSF on sub-pixels
  DeviceBuffer<Complex> spectrum, work;

  template <class Take>
  void each(Take&& take, const ConvolutionSizes& s) {
    take(psf, s.path == Path::direct ? s.systems * s.area() : 0);
    for (DeviceBuffer<Real>* images : {&image, &image_bar, &convolved, &convolved_bar})
      take(*images, s.systems * s.image());
    for (DeviceBuffer<Real>* images : {&model, &model_bar}) take(*images, s.f > 1 ? s.systems * s.pixels() : 0);
    for (DeviceBuffer<Complex>* spectra : {&spectrum, &work})
      take(*spectra, s.path == Path::fft ? s.systems * s.spectrum() : 0);
  }
};

/// What the transforms of any queue need besides the images: they run one at a time, and share it.
template <class Real>
std::size_t fft_work_bytes(const ConvolutionSizes& s) {
  std::size_t bytes = 0;
  if (s.path != Path::fft) return bytes;
  for (unsigned rows = 1;; rows = s.plan_rows(rows + 1)) {
    for (const cufftType type : {ComplexOf<Real>::kForward, ComplexOf<Real>::kInverse})
      bytes =
          std::max(bytes, FftPlan(s.padded_ny, s.padded_nx, type, static_cast<int>(rows), nullptr, false).work_bytes());
    if (rows == s.systems) return bytes;
  }
}

}  // namespace

template <class Real>
void to_pixels(const Queue& queue, std::size_t systems, ImageView<Real> fine, int f, Real factor,
               ImageView<Real> pixels, int ny, int nx) {
  subpixels_kernel<Real, false><<<dim3(sum_blocks(ny * nx), rows_of(queue, systems)), kThreads, 0, queue.stream>>>(
      queue.systems, fine, nx, ny, f, factor, pixels);
  EINFIELD_LAUNCH_CHECK();
}
template <class Real>
void to_subpixels(const Queue& queue, std::size_t systems, ImageView<Real> pixels, int ny, int nx, int f, Real factor,
                  ImageView<Real> fine) {
  subpixels_kernel<Real, true><<<dim3(sum_blocks(ny * nx), rows_of(queue, systems)), kThreads, 0, queue.stream>>>(
      queue.systems, fine, nx, ny, f, factor, pixels);
  EINFIELD_LAUNCH_CHECK();
}

template <class Real>
struct ConvolutionStage<Real>::Impl {
  static constexpr const char* kName = "convolution";

  StageDevice device;
  using Complex = typename ComplexOf<Real>::type;

  ConvolutionSizes sizes;
  ConvolutionStorage<Real> storage;
  /// The transforms of a number of images.
  struct Plans {
    FftPlan to_spectrum, to_image;
  };
  std::map<unsigned, Plans> plans;       ///< by ConvolutionSizes::plan_rows()
  DeviceBuffer<unsigned char> fft_work;  ///< of all plans: one transform runs at a time

  Impl(int ny, int nx, const std::vector<Psf>& psfs, cudaStream_t stream, ConvolutionMethod method, Workspace workspace)
      : sizes(ny, nx, psfs, method) {
    const std::size_t fft_bytes = fft_work_bytes<Real>(sizes);
    BufferSource source(kName, workspace,
                        workspace_bytes_of<ConvolutionStorage<Real>>(sizes) + in_workspace(fft_bytes));
    take_all(source, storage, stream, sizes);
    fft_work = source.take<unsigned char>(fft_bytes);
    upload(stream, 0, psfs);
  }

  /// Makes the transforms of a queue of `rows` systems.
  void prepare(cudaStream_t stream, unsigned rows) {
    const unsigned images = sizes.plan_rows(rows);
    if (sizes.path != Path::fft || plans.contains(images)) return;
    const auto plan = [&](cufftType type) {
      FftPlan made(sizes.padded_ny, sizes.padded_nx, type, static_cast<int>(images), stream, false);
      made.set_work_area(fft_work.get());
      return made;
    };
    plans.emplace(images, Plans{plan(ComplexOf<Real>::kForward), plan(ComplexOf<Real>::kInverse)});
  }

  /// The kernels of the systems from `first` on, and their spectra; waits for the stream.
  void upload(cudaStream_t stream, std::size_t first, const std::vector<Psf>& psfs) {
    std::vector<Real> values;
    if (sizes.path == Path::direct) {
      for (const Psf& psf : psfs)
        for (const double v : psf.values) values.push_back(static_cast<Real>(v));
      storage.psf.upload(values.data(), values.size(), stream, first * sizes.area());
    }
    if (sizes.path == Path::fft) {
      // The kernel with its center at pixel (0, 0), and the 1/size that the transforms leave out.
      values.assign(psfs.size() * sizes.image(), Real(0));
      const double scale = 1.0 / static_cast<double>(sizes.image());
      for (std::size_t i = 0; i < psfs.size(); ++i)
        for (int row = 0; row < sizes.psf_ny; ++row)
          for (int column = 0; column < sizes.psf_nx; ++column) {
            const int y = (row - sizes.psf_ny / 2 + sizes.padded_ny) % sizes.padded_ny;
            const int x = (column - sizes.psf_nx / 2 + sizes.padded_nx) % sizes.padded_nx;
            values[i * sizes.image() + static_cast<std::size_t>(y * sizes.padded_nx + x)] =
                static_cast<Real>(scale * psfs[i].values[static_cast<std::size_t>(row * sizes.psf_nx + column)]);
          }
      // Borrowed: forward() overwrites it.
      storage.convolved.upload(values.data(), values.size(), stream, first * sizes.image());
      const auto rows = static_cast<unsigned>(psfs.size());  // one or all
      prepare(stream, rows);
      FftPlan& plan = plans.at(rows).to_spectrum;
      plan.set_stream(stream);
      transform_forward(plan, storage.convolved.get() + first * sizes.image(),
                        storage.spectrum.get() + first * sizes.spectrum());
    }
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // `values` ends here
  }

  void replace(cudaStream_t stream, std::size_t system, const Psf& psf) {
    require_system("convolution", system, sizes.systems);
    EINFIELD_REQUIRE(psf.nx == sizes.psf_nx && psf.ny == sizes.psf_ny && psf.values.size() == sizes.area(),
                     "a PSF of " + std::to_string(psf.nx) + " x " + std::to_string(psf.ny) + " pixels, expected " +
                         std::to_string(sizes.psf_nx) + " x " + std::to_string(sizes.psf_ny));
    upload(stream, system, {psf});
  }

  void run(const Queue& queue, Real* in, Real* out, bool transpose) {
    switch (sizes.path) {
      case Path::identity:
        EINFIELD_CUDA(cudaMemcpyAsync(out, in, rows_of(queue, sizes.systems) * sizes.image() * sizeof(Real),
                                      cudaMemcpyDeviceToDevice, queue.stream));
        return;
      case Path::direct: {
        const DirectTile block(sizes.nx);
        const dim3 grid(static_cast<unsigned>((sizes.nx + block.nx - 1) / block.nx),
                        static_cast<unsigned>((sizes.ny + block.ny - 1) / block.ny), rows_of(queue, sizes.systems));
        convolve_kernel<<<grid, kThreads, sizes.direct_shared_bytes(sizeof(Real)), queue.stream>>>(
            queue.systems, in, storage.psf.get(), sizes.psf_nx, sizes.psf_ny, sizes.nx, sizes.ny, block, transpose,
            out);
        EINFIELD_LAUNCH_CHECK();
        return;
      }
      case Path::fft: {
        const unsigned rows = rows_of(queue, sizes.systems);
        const auto found = plans.find(sizes.plan_rows(rows));
        EINFIELD_REQUIRE(found != plans.end(), "convolution: " + std::to_string(rows) +
                                                   " systems in a queue, expected a number that prepare() has seen");
        auto& [to_spectrum, to_image] = found->second;
        to_spectrum.set_stream(queue.stream);
        to_image.set_stream(queue.stream);
        const std::size_t n = sizes.spectrum();
        const auto blocks = static_cast<unsigned>(std::min<std::size_t>((n + kThreads - 1) / kThreads, 65535));
        transform_forward(to_spectrum, in, storage.work.get());
        multiply_kernel<<<dim3(blocks, rows), kThreads, 0, queue.stream>>>(queue.systems, storage.work.get(),
                                                                           storage.spectrum.get(), n, transpose);
        EINFIELD_LAUNCH_CHECK();
        transform_inverse(to_image, storage.work.get(), out);
        return;
      }
    }
  }

  /// The stage's own images: of sub-pixels with their padding, and of pixels.
  ImageView<Real> fine_view(const DeviceBuffer<Real>& images) const {
    return {images, static_cast<std::size_t>(sizes.padded_nx), sizes.image()};
  }
  ImageView<Real> model() const {
    return sizes.f == 1 ? fine_view(storage.convolved)
                        : dense_images<Real>(storage.model, sizes.pixels_ny, sizes.pixels_nx);
  }
  ImageView<Real> model_bar() const {
    return sizes.f == 1 ? fine_view(storage.convolved_bar)
                        : dense_images<Real>(storage.model_bar, sizes.pixels_ny, sizes.pixels_nx);
  }

  void forward(const Queue& queue) {
    run(queue, storage.image.get(), storage.convolved.get(), false);
    if (sizes.f > 1)
      to_pixels(queue, sizes.systems, fine_view(storage.convolved), sizes.f, Real(1), model(), sizes.pixels_ny,
                sizes.pixels_nx);
  }
  void adjoint(const Queue& queue) {
    if (sizes.f > 1)
      to_subpixels(queue, sizes.systems, model_bar(), sizes.pixels_ny, sizes.pixels_nx, sizes.f, Real(1),
                   fine_view(storage.convolved_bar));
    run(queue, storage.convolved_bar.get(), storage.image_bar.get(), true);
  }

  /// The images of a queue, (ny, nx) each, from one place to another.
  void copy(const Queue& queue, ImageView<const Real> from, ImageView<Real> to, int ny, int nx) const {
    copy_images<Real>(queue.stream, rows_of(queue, sizes.systems), from, to, ny, nx);
  }
  std::size_t fine_pixels() const { return static_cast<std::size_t>(sizes.nx) * static_cast<std::size_t>(sizes.ny); }
};

template <class Real>
ConvolutionStage<Real>::ConvolutionStage(int ny, int nx, const std::vector<Psf>& psfs, cudaStream_t stream,
                                         ConvolutionMethod method, Workspace workspace)
    : impl_(std::make_unique<Impl>(ny, nx, psfs, stream, method, workspace)) {}
template <class Real>
ConvolutionStage<Real>::~ConvolutionStage() = default;
template <class Real>
ConvolutionStage<Real>::ConvolutionStage(ConvolutionStage&&) noexcept = default;
template <class Real>
ConvolutionStage<Real>& ConvolutionStage<Real>::operator=(ConvolutionStage&&) noexcept = default;

template <class Real>
std::size_t ConvolutionStage<Real>::workspace_bytes(int ny, int nx, const std::vector<Psf>& psfs,
                                                    ConvolutionMethod method) {
  const ConvolutionSizes sizes(ny, nx, psfs, method);
  return workspace_bytes_of<ConvolutionStorage<Real>>(sizes) + in_workspace(fft_work_bytes<Real>(sizes));
}

template <class Real>
void ConvolutionStage<Real>::replace(cudaStream_t stream, std::size_t system, const Psf& psf) {
  impl_->device.require_current(Impl::kName);
  impl_->replace(stream, system, psf);
}
template <class Real>
void ConvolutionStage<Real>::prepare(cudaStream_t stream, int n_systems) {
  EINFIELD_REQUIRE(n_systems > 0 && static_cast<std::size_t>(n_systems) <= impl_->sizes.systems,
                   "convolution: a queue of " + std::to_string(n_systems) + " systems, expected 1 ... " +
                       std::to_string(impl_->sizes.systems));
  impl_->device.require_current(Impl::kName);
  impl_->prepare(stream, static_cast<unsigned>(n_systems));
}
template <class Real>
void ConvolutionStage<Real>::forward(const Queue& queue, View<const Real> image, View<Real> model) {
  const ConvolutionSizes& s = impl_->sizes;
  impl_->device.require_current(Impl::kName);
  require_size(Impl::kName, "image", image, s.systems * impl_->fine_pixels());
  require_size(Impl::kName, "model", model, s.systems * s.pixels());
  impl_->copy(queue, dense_images(image, s.ny, s.nx), this->image(), s.ny, s.nx);
  impl_->forward(queue);
  impl_->copy(queue, impl_->model(), dense_images(model, s.pixels_ny, s.pixels_nx), s.pixels_ny, s.pixels_nx);
}
template <class Real>
void ConvolutionStage<Real>::adjoint(const Queue& queue, View<const Real> model_bar, View<Real> image_bar) {
  const ConvolutionSizes& s = impl_->sizes;
  impl_->device.require_current(Impl::kName);
  require_size(Impl::kName, "model_bar", model_bar, s.systems * s.pixels());
  require_size(Impl::kName, "image_bar", image_bar, s.systems * impl_->fine_pixels());
  impl_->copy(queue, dense_images(model_bar, s.pixels_ny, s.pixels_nx), impl_->model_bar(), s.pixels_ny, s.pixels_nx);
  impl_->adjoint(queue);
  impl_->copy(queue, this->image_bar(), dense_images(image_bar, s.ny, s.nx), s.ny, s.nx);
}
template <class Real>
void ConvolutionStage<Real>::forward(const Queue& queue) {
  impl_->device.require_current(Impl::kName);
  impl_->forward(queue);
}
template <class Real>
void ConvolutionStage<Real>::adjoint(const Queue& queue) {
  impl_->device.require_current(Impl::kName);
  impl_->adjoint(queue);
}
template <class Real>
ImageView<Real> ConvolutionStage<Real>::image() const {
  return impl_->fine_view(impl_->storage.image);
}
template <class Real>
ImageView<Real> ConvolutionStage<Real>::model() const {
  return impl_->model();
}
template <class Real>
ImageView<Real> ConvolutionStage<Real>::model_bar() const {
  return impl_->model_bar();
}
template <class Real>
ImageView<Real> ConvolutionStage<Real>::image_bar() const {
  return impl_->fine_view(impl_->storage.image_bar);
}

template void to_pixels(const Queue&, std::size_t, ImageView<float>, int, float, ImageView<float>, int, int);
template void to_pixels(const Queue&, std::size_t, ImageView<double>, int, double, ImageView<double>, int, int);
template void to_subpixels(const Queue&, std::size_t, ImageView<float>, int, int, int, float, ImageView<float>);
template void to_subpixels(const Queue&, std::size_t, ImageView<double>, int, int, int, double, ImageView<double>);
template class ConvolutionStage<float>;
template class ConvolutionStage<double>;

}  // namespace einfield::cuda
