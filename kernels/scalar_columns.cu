// Owns the arrays behind a Jacobian of many points and enqueues a round: light, PSF, amplitudes, residual, derivatives,
// PSF, products. A round copies its points to the device once and the results back once.
#include "kernels/scalar_columns.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "einfield/cuda.hpp"
#include "kernels/normal_equations.cuh"
#include "kernels/psf_columns.cuh"
#include "kernels/raii.cuh"
#include "kernels/ray_columns.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

constexpr std::size_t kImageBytes = std::size_t(256) << 20;  ///< of the images of the points evaluated at once, or one
constexpr int kMaxSegments = 32;                             ///< of the pixels, in sums over them
constexpr int kSegmentPixels = 256;
constexpr int kFftPoints = 8;  ///< evaluated at once where transforms have a fixed number of images
constexpr int kPsfRows = 8, kFewPsfRows = 2;
constexpr int kMaxGridZ = 65535;

/// Makes a device current for a scope, then restores the caller's choice.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    EINFIELD_CUDA(cudaGetDevice(&previous_));
    if (previous_ != device) EINFIELD_CUDA(cudaSetDevice(device));
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;
  ~DeviceScope() { EINFIELD_CUDA_NOEXCEPT(cudaSetDevice(previous_)); }

 private:
  int previous_ = 0;
};

/// Arrays one after the other in one piece of memory, each at a multiple of 16 bytes.
class Packed {
 public:
  template <class T>
  std::size_t add(const std::vector<T>& values) {
    const std::size_t at = (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at + values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    return at;
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  std::vector<unsigned char> bytes_;
};

/// The places of a system's arrays in a Packed.
struct PackedSystem {
  std::size_t components, pixels, rendered, used, theta, deflection, weight, data, chi2_ratio, psf, amplitudes, light;

  PackedSystem(Packed& to, const ColumnsSystem& s)
      : components(to.add(s.tables.components)),
        pixels(to.add(s.tables.pixels)),
        rendered(to.add(s.rendered)),
        used(to.add(s.used)),
        theta(to.add(s.theta)),
        deflection(to.add(std::vector<double>(s.theta.size(), 0.0))),
        weight(to.add(s.weight)),
        data(to.add(s.data)),
        chi2_ratio(to.add(s.chi2_ratio)),
        psf(to.add(combined_psf(s.psf))),
        amplitudes(to.add(s.amplitudes)),
        light(to.add(s.light_weights)) {}

  SystemView view(unsigned char* base, const ColumnsSystem& s) const {
    const auto numbers = [base](std::size_t at) { return reinterpret_cast<double*>(base + at); };
    return {reinterpret_cast<Component*>(base + components),
            numbers(pixels),
            reinterpret_cast<int*>(base + rendered),
            reinterpret_cast<int*>(base + used),
            numbers(theta),
            numbers(deflection),
            numbers(weight),
            numbers(data),
            numbers(chi2_ratio),
            numbers(psf),
            reinterpret_cast<Amplitude*>(base + amplitudes),
            numbers(light),
            s.nx,
            s.ny,
            static_cast<int>(s.theta.size() / 2),
            static_cast<int>(s.weight.size())};
  }
};

/// Smallest even number ≥ n of the form 2^a 3^b 5^c 7^d: sizes that cuFFT has fast kernels for.
int fast_size(int n) {
  for (int size = n + n % 2;; size += 2) {
    int rest = size;
    for (const int prime : {2, 3, 5, 7})
      while (rest % prime == 0) rest /= prime;
    if (rest == 1) return size;
  }
}

/// Numbers that fix every size but that of the systems' arrays.
struct ColumnSizes {
  int nx = 0, ny = 0;  ///< of images [sub-pixels], zero-padded for an FFT
  int psf_nx = 1, psf_ny = 1, psf_rows = 0;
  bool fft = false;
  std::size_t systems = 0, points = 0, at_once = 0, rays = 0, used = 0, images = 0, columns = 0, linear = 0, slots = 0,
              light_rays = 0, light_weights = 0, segments = 1, result = 0;
  std::size_t image() const { return static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny); }
  std::size_t spectrum() const { return fft ? static_cast<std::size_t>(nx / 2 + 1) * static_cast<std::size_t>(ny) : 0; }
  std::size_t input_bytes() const { return points * (sizeof(PointView) + slots * sizeof(double)); }

  ColumnSizes(const ColumnsShape& shape, const std::vector<ColumnsSystem>& all, std::size_t copies, int max_points) {
    EINFIELD_REQUIRE(!all.empty() && max_points > 0, "a Jacobian of no system or no point, expected at least one");
    systems = all.size() * copies;
    points = static_cast<std::size_t>(max_points);
    const int f = shape.psf_supersampling, psf_x = all[0].psf.nx, psf_y = all[0].psf.ny;
    for (const ColumnsSystem& s : all) {
      EINFIELD_REQUIRE(s.psf.nx == psf_x && s.psf.ny == psf_y, "PSFs of different sizes, expected one shape");
      nx = std::max(nx, s.nx * f);
      ny = std::max(ny, s.ny * f);
      rays = std::max(rays, s.theta.size() / 2);
      used = std::max(used, s.weight.size());
    }
    psf_nx = std::max(psf_x, 1) - 1 + f;
    psf_ny = std::max(psf_y, 1) - 1 + f;
    for (const int rows : {kFewPsfRows, kPsfRows})
      if (psf_nx * psf_ny <= kMaxPsfArea && psf_shared_bytes(f, psf_nx, psf_ny, rows) <= kMaxPsfShared) psf_rows = rows;
    fft = psf_rows == 0;
    if (fft) {  // what wraps around falls into half a kernel beyond the image
      nx = fast_size(std::max(nx + psf_x / 2, psf_x));
      ny = fast_size(std::max(ny + psf_y / 2, psf_y));
    }
    columns = static_cast<std::size_t>(shape.n_columns());
    linear = static_cast<std::size_t>(shape.n_linear());
    slots = static_cast<std::size_t>(shape.n_slots());
    images = static_cast<std::size_t>(std::max(shape.n_linear() + 1, shape.n_other()));
    segments = std::clamp<std::size_t>(used / kSegmentPixels, 1, kMaxSegments);
    result = kAmplitudes + 2 * linear + columns * columns;
    light_rays = shape.light ? rays : 0;
    light_weights = shape.light ? shape.light_weights : 0;
    const std::size_t fit = std::max<std::size_t>(kImageBytes / (images * image() * sizeof(double)), 1);
    at_once = std::min({points, fit, kMaxGridZ / images, fft ? std::size_t(kFftPoints) : points});
    EINFIELD_REQUIRE(at_once > 0, std::to_string(images) + " columns of a Jacobian, expected at most " +
                                      std::to_string(kMaxGridZ) + " on a CUDA device");
  }
};

struct ColumnStorage {
  DeviceBuffer<unsigned char> systems, input;
  DeviceBuffer<SystemView> views;
  DeviceBuffer<double> results, images, columns, partial_products, partial_sums, numbers, light_weights, light_position,
      light_value, light_gradient, column_factor;
  DeviceBuffer<int> image_of, linear_slot, column_of, indices;
  DeviceBuffer<std::uint8_t> flags;
  DeviceBuffer<unsigned> tickets;
  DeviceBuffer<cufftDoubleComplex> psf_spectra, spectra;

  template <class Take>
  void each(Take&& take, const ColumnSizes& s, std::size_t system_bytes) {
    take(systems, system_bytes);
    take(views, s.systems);
    take(input, s.input_bytes());
    take(results, s.points * s.result);
    take(images, s.at_once * s.images * s.image());
    take(columns, s.at_once * s.columns * s.used);
    take(partial_products, s.at_once * products_per_point(static_cast<int>(s.columns), static_cast<int>(s.segments)));
    take(partial_sums, s.at_once * 2 * s.segments);
    const int linear = static_cast<int>(s.linear);
    take(numbers, s.at_once * static_cast<std::size_t>(ColumnArrays::numbers_for_amplitudes(linear)));
    take(indices, s.at_once * s.linear);
    take(flags, s.at_once * 2 * s.linear);
    take(tickets, s.at_once);
    take(image_of, s.slots / kMaxProfileParameters);
    take(linear_slot, s.linear);
    take(column_of, s.slots);
    take(column_factor, s.slots);
    take(light_weights, s.at_once * s.light_weights);
    for (DeviceBuffer<double>* vectors : {&light_position, &light_gradient})
      take(*vectors, s.at_once * 2 * s.light_rays);
    take(light_value, s.at_once * s.light_rays);
    take(psf_spectra, s.systems * s.spectrum());
    take(spectra, s.at_once * s.images * s.spectrum());
  }
};

std::size_t fft_bytes(const ColumnSizes& s, std::size_t images) {
  std::size_t bytes = 0;
  int n[2] = {s.ny, s.nx};
  for (const cufftType type : {CUFFT_D2Z, CUFFT_Z2D}) {
    std::size_t work = 0;
    EINFIELD_CUDA(cufftEstimateMany(2, n, nullptr, 1, 0, nullptr, 1, 0, type, static_cast<int>(images), &work));
    bytes += work;
  }
  return bytes;
}

/// Transforms of the images of all points that are evaluated at once.
struct Transforms {
  FftPlan forward, inverse;
  Transforms() = default;
  Transforms(const ColumnSizes& s, std::size_t images, cudaStream_t stream)
      : forward(s.ny, s.nx, CUFFT_D2Z, static_cast<int>(images), stream),
        inverse(s.ny, s.nx, CUFFT_Z2D, static_cast<int>(images), stream) {}
};

}  // namespace

struct ScalarColumns::Impl {
  int device;
  ColumnsShape shape;
  ColumnSizes sizes;
  Stream stream;
  ColumnStorage storage;
  ColumnArrays arrays{};
  std::optional<NetworkStage<double>> light;
  Transforms of_values, of_tangents;
  PinnedBuffer<unsigned char> input;
  PinnedBuffer<double> output;
  ColumnsCounts counts;

  Impl(int on, const ColumnsShape& of, const std::vector<ColumnsSystem>& systems, int points);
  ~Impl() { EINFIELD_CUDA_NOEXCEPT(cudaStreamSynchronize(stream.get())); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void upload_tables();
  void deflect(const std::vector<ColumnsSystem>& systems, const std::vector<SystemView>& views);
  void transform_psfs(const std::vector<ColumnsSystem>& systems);

  template <class Kernel, class... Arguments>
  void launch(Kernel kernel, dim3 blocks, int threads, std::size_t shared, const Arguments&... arguments) {
    kernel<<<blocks, static_cast<unsigned>(threads), shared, stream.get()>>>(arguments...);
    EINFIELD_LAUNCH_CHECK();
    ++counts.launches;
  }
  template <class T>
  void upload(const DeviceBuffer<T>& to, const T* from, std::size_t count) {
    if (count > 0)
      EINFIELD_CUDA(cudaMemcpyAsync(to.get(), from, count * sizeof(T), cudaMemcpyHostToDevice, stream.get()));
  }
  void enqueue(std::size_t first, unsigned count);
  void apply_psf(const ColumnArrays& a, unsigned count, bool values);
  void multiply(const ColumnArrays& a, unsigned count, int columns, bool wanted);
  void round(const ColumnsPoint* points, std::size_t count, std::vector<ColumnsResult>& results);
  ColumnsResult read(const double* row) const;
};

ScalarColumns::Impl::Impl(int on, const ColumnsShape& of, const std::vector<ColumnsSystem>& systems, int points)
    : device(on), shape(of), sizes(of, systems, 1, points) {
  Packed packed;
  std::vector<PackedSystem> places;
  for (const ColumnsSystem& s : systems) places.emplace_back(packed, s);
  allocate_all(storage, stream.get(), sizes, packed.bytes().size());
  upload(storage.systems, packed.bytes().data(), packed.bytes().size());
  std::vector<SystemView> views;
  for (std::size_t i = 0; i < systems.size(); ++i) views.push_back(places[i].view(storage.systems.get(), systems[i]));
  upload(storage.views, views.data(), views.size());
  arrays.systems = storage.views.get();
  arrays.results = storage.results.get();
  arrays.images = storage.images.get();
  arrays.columns = storage.columns.get();
  arrays.partial_products = storage.partial_products.get();
  arrays.partial_sums = storage.partial_sums.get();
  arrays.numbers = storage.numbers.get();
  arrays.indices = storage.indices.get();
  arrays.flags = storage.flags.get();
  arrays.tickets = storage.tickets.get();
  arrays.light_weights = storage.light_weights.get();
  arrays.light_position = storage.light_position.get();
  arrays.light_value = storage.light_value.get();
  arrays.light_gradient = storage.light_gradient.get();
  arrays.points = reinterpret_cast<PointView*>(storage.input.get());
  arrays.tables = reinterpret_cast<double*>(storage.input.get() + sizes.points * sizeof(PointView));
  arrays.n_lens = shape.n_lens;
  arrays.n_source = shape.n_source;
  arrays.n_lens_light = shape.n_lens_light;
  arrays.n_linear = shape.n_linear();
  arrays.n_other = shape.n_other();
  arrays.light_component = shape.light_component;
  arrays.rays_per_side = shape.rays_per_side;
  arrays.psf_supersampling = shape.psf_supersampling;
  arrays.psf_nx = sizes.psf_nx;
  arrays.psf_ny = sizes.psf_ny;
  arrays.row_stride = sizes.nx;
  arrays.image_size = static_cast<int>(sizes.image());
  arrays.max_rays = static_cast<int>(sizes.rays);
  arrays.column_stride = static_cast<int>(sizes.used);
  arrays.segments = static_cast<int>(sizes.segments);
  arrays.n_light_weights = sizes.light_weights;
  arrays.result_size = sizes.result;
  EINFIELD_REQUIRE(arrays.scene_bytes() <= kMaxPsfShared,
                   std::to_string(shape.n_components()) + " components, expected at most " +
                       std::to_string(kMaxPsfShared / (arrays.scene_bytes() / shape.n_components())) +
                       " on a CUDA device");
  upload_tables();
  if (shape.light)
    light.emplace(*shape.light, static_cast<int>(sizes.rays), static_cast<int>(sizes.at_once), NetworkMath::fp32,
                  NetworkTape::none);
  if (shape.network) deflect(systems, views);
  if (sizes.fft) transform_psfs(systems);
  input = PinnedBuffer<unsigned char>(sizes.input_bytes());
  output = PinnedBuffer<double>(sizes.points * sizes.result);
  stream.synchronize();  // what was copied ends here
  counts = {};
}

/// Which image a component or a slot goes to.
void ScalarColumns::Impl::upload_tables() {
  std::vector<int> image_of(static_cast<std::size_t>(shape.n_source + shape.n_lens_light), shape.n_linear()),
      column_of(sizes.slots, -1);
  std::vector<double> factor(sizes.slots, 1);
  for (int k = 0; k < shape.n_linear(); ++k)
    image_of[static_cast<std::size_t>(shape.linear_slot[static_cast<std::size_t>(k)] / kMaxProfileParameters -
                                      shape.n_lens)] = k;
  for (int k = 0; k < shape.n_other(); ++k) {
    for (const auto& [slot, share] : shape.other_slots[static_cast<std::size_t>(k)]) {
      column_of[static_cast<std::size_t>(slot)] = k;
      factor[static_cast<std::size_t>(slot)] = share;
      arrays.lenses_move = arrays.lenses_move || slot < shape.n_lens * kMaxProfileParameters;
    }
  }
  upload(storage.image_of, image_of.data(), image_of.size());
  upload(storage.linear_slot, shape.linear_slot.data(), shape.linear_slot.size());
  upload(storage.column_of, column_of.data(), column_of.size());
  upload(storage.column_factor, factor.data(), factor.size());
  arrays.image_of = storage.image_of.get();
  arrays.linear_slot = storage.linear_slot.get();
  arrays.column_of = storage.column_of.get();
  arrays.column_factor = storage.column_factor.get();
  stream.synchronize();  // the vectors end here
}

/// The deflection of every system's network at its rays. The stage is needed once.
void ScalarColumns::Impl::deflect(const std::vector<ColumnsSystem>& systems, const std::vector<SystemView>& views) {
  for (std::size_t i = 0; i < systems.size(); ++i) {
    const int rays = views[i].n_rays;
    NetworkStage<double> network(*shape.network, rays, 1, NetworkMath::fp32, NetworkTape::none);
    DeviceBuffer<double> weights(systems[i].network_weights.size()), potential(static_cast<std::size_t>(rays));
    weights.upload(systems[i].network_weights, stream.get());
    const auto two_rays = 2 * static_cast<std::size_t>(rays);
    network.forward(stream.get(), weights, weights.size(), {views[i].theta, two_rays}, potential,
                    {const_cast<double*>(views[i].deflection), two_rays});
    stream.synchronize();
  }
}

/// Spectra of the PSFs, centers at sample (0, 0), with the 1/size that the transforms leave out.
void ScalarColumns::Impl::transform_psfs(const std::vector<ColumnsSystem>& systems) {
  of_values = Transforms(sizes, sizes.at_once * static_cast<std::size_t>(arrays.value_images()), stream.get());
  if (shape.n_other() > 0)
    of_tangents = Transforms(sizes, sizes.at_once * static_cast<std::size_t>(shape.n_other()), stream.get());
  const FftPlan one(sizes.ny, sizes.nx, CUFFT_D2Z, 1, stream.get());
  const double scale = 1.0 / static_cast<double>(sizes.image());
  std::vector<double> values(sizes.image());
  for (std::size_t i = 0; i < systems.size(); ++i) {
    const Psf& psf = systems[i].psf;
    std::fill(values.begin(), values.end(), 0.0);
    for (int row = 0; row < psf.ny; ++row)
      for (int column = 0; column < psf.nx; ++column) {
        const int y = (row - psf.ny / 2 + sizes.ny) % sizes.ny, x = (column - psf.nx / 2 + sizes.nx) % sizes.nx;
        values[static_cast<std::size_t>(y * sizes.nx + x)] =
            scale * psf.values[static_cast<std::size_t>(row * psf.nx + column)];
      }
    upload(storage.images, values.data(), values.size());  // borrowed
    EINFIELD_CUDA(cufftExecD2Z(one.get(), storage.images.get(), storage.psf_spectra.get() + i * sizes.spectrum()));
    stream.synchronize();
  }
}

/// Images into columns.
void ScalarColumns::Impl::apply_psf(const ColumnArrays& a, unsigned count, bool values) {
  const int images = values ? a.value_images() : a.n_other;
  const auto tiles = [](int n, int size) { return static_cast<unsigned>((n + size - 1) / size); };
  const int nx = sizes.nx / shape.psf_supersampling, ny = sizes.ny / shape.psf_supersampling;
  if (!sizes.fft) {
    const dim3 blocks(tiles(nx, kPsfColumns), tiles(ny, kPsfLanes * sizes.psf_rows),
                      count * static_cast<unsigned>(images));
    const std::size_t shared = psf_shared_bytes(shape.psf_supersampling, sizes.psf_nx, sizes.psf_ny, sizes.psf_rows);
    if (sizes.psf_rows == kPsfRows)
      launch(psf_columns_kernel<kPsfRows>, blocks, kPsfColumns * kPsfLanes, shared, a, images, values);
    else
      launch(psf_columns_kernel<kFewPsfRows>, blocks, kPsfColumns * kPsfLanes, shared, a, images, values);
    return;
  }
  const Transforms& transforms = values ? of_values : of_tangents;
  const int size = static_cast<int>(sizes.spectrum());
  const auto blocks = [&](int n) {
    return dim3(std::min(tiles(n, kThreads), 64u), static_cast<unsigned>(images), count);
  };
  EINFIELD_CUDA(cufftExecD2Z(transforms.forward.get(), a.images, storage.spectra.get()));
  launch(psf_spectrum_kernel, blocks(size), kThreads, 0, a, images, storage.spectra.get(),
         static_cast<const cufftDoubleComplex*>(storage.psf_spectra.get()), size);
  EINFIELD_CUDA(cufftExecZ2D(transforms.inverse.get(), storage.spectra.get(), a.images));
  launch(pixel_columns_kernel, blocks(nx * ny), kThreads, 0, a, images, values);
  counts.launches += 2;
}

/// Inner products of the first columns.
void ScalarColumns::Impl::multiply(const ColumnArrays& a, unsigned count, int columns, bool wanted) {
  const auto kernel = columns <= 8 ? products_kernel<1> : columns <= 16 ? products_kernel<2> : products_kernel<4>;
  const dim3 blocks(static_cast<unsigned>(a.segments), static_cast<unsigned>(tile_pairs(columns)), count);
  launch(kernel, blocks, kThreads, 0, a, columns, wanted);
}

/// A group of points of the round, from the `first` one on.
void ScalarColumns::Impl::enqueue(std::size_t first, unsigned count) {
  ColumnArrays a = arrays;
  a.points += first;
  a.tables += first * sizes.slots;
  a.results += first * sizes.result;
  const unsigned segments = static_cast<unsigned>(a.segments);
  const auto blocks = [count](int n) { return dim3(sum_blocks(n), count); };
  if (light) {
    launch(light_input_kernel, blocks(a.max_rays), kThreads, a.scene_bytes(), a);
    light->forward(stream.get(), storage.light_weights, a.n_light_weights, storage.light_position, storage.light_value,
                   storage.light_gradient);
    launch(render_values_kernel<true>, blocks(a.image_size), kThreads, a.scene_bytes(), a);
  } else {
    launch(render_values_kernel<false>, blocks(a.image_size), kThreads, a.scene_bytes(), a);
  }
  apply_psf(a, count, true);
  multiply(a, count, 1 + a.n_linear, false);
  launch(solve_amplitudes_kernel, dim3(count), kThreads, 0, a);
  launch(residual_kernel, dim3(segments, count), kThreads, 0, a);
  if (a.n_other > 0) {
    launch(light ? render_tangents_kernel<true> : render_tangents_kernel<false>, blocks(a.image_size), kThreads,
           a.scene_bytes(), a);
    apply_psf(a, count, false);
  }
  multiply(a, count, a.n_columns(), true);
  launch(collect_products_kernel, blocks(a.n_columns() * a.n_columns()), kThreads, 0, a);
}

ColumnsResult ScalarColumns::Impl::read(const double* row) const {
  ColumnsResult result;
  const auto n = static_cast<std::size_t>(shape.n_linear());
  const double *amplitudes = row + kAmplitudes, *pinned = amplitudes + n, *products = pinned + n;
  result.finite = row[kFinite] != 0;
  result.curved = row[kCurved] != 0;
  result.loss = row[kLoss];
  result.chi2_reduced = row[kChi2];
  result.amplitudes.assign(amplitudes, pinned);
  for (const double* p = pinned; p != products; ++p) result.pinned.push_back(*p != 0);
  if (result.curved) result.products.assign(products, products + sizes.columns * sizes.columns);
  return result;
}

/// Points that fit the input at once.
void ScalarColumns::Impl::round(const ColumnsPoint* points, std::size_t count, std::vector<ColumnsResult>& results) {
  auto* views = reinterpret_cast<PointView*>(input.get());
  auto* tables = reinterpret_cast<double*>(input.get() + sizes.points * sizeof(PointView));
  for (std::size_t k = 0; k < count; ++k) {
    views[k] = {points[k].system, points[k].solve, points[k].curvature_up_to};
    std::copy(points[k].table.begin(), points[k].table.end(), tables + k * sizes.slots);
  }
  upload(storage.input, input.get(), sizes.points * sizeof(PointView) + count * sizes.slots * sizeof(double));
  for (std::size_t first = 0; first < count; first += sizes.at_once)
    enqueue(first, static_cast<unsigned>(std::min(sizes.at_once, count - first)));
  storage.results.download(output.get(), count * sizes.result, stream.get());
  stream.synchronize();
  counts.copies += 2;
  ++counts.synchronizations;
  ++counts.rounds;
  counts.points += static_cast<std::int64_t>(count);
  for (std::size_t k = 0; k < count; ++k) results.push_back(read(output.get() + k * sizes.result));
}

ColumnsPlan ScalarColumns::plan(int device, const ColumnsShape& shape, const std::vector<ColumnsSystem>& systems,
                                int copies, int points) {
  const DeviceScope current(device);
  const ColumnSizes s(shape, systems, static_cast<std::size_t>(copies), points);
  Packed packed;
  for (const ColumnsSystem& system : systems) PackedSystem(packed, system);
  std::size_t bytes =
      planned_bytes_of<ColumnStorage>(s, (packed.bytes().size() + 15) / 16 * 16 * static_cast<std::size_t>(copies));
  std::size_t setup = 0;
  if (shape.network) {
    setup = NetworkStage<double>::workspace_bytes(*shape.network, static_cast<int>(s.rays), 1, NetworkMath::fp32,
                                                  NetworkTape::none) +
            (shape.network->size() + s.rays) * sizeof(double);
  }
  if (s.fft)
    bytes += fft_bytes(s, s.at_once * s.linear + s.at_once) + fft_bytes(s, s.at_once * s.images) + fft_bytes(s, 1);
  if (shape.light)
    bytes += NetworkStage<double>::workspace_bytes(*shape.light, static_cast<int>(s.rays), static_cast<int>(s.at_once),
                                                   NetworkMath::fp32, NetworkTape::none);
  return {bytes + setup, static_cast<int>(s.at_once), s.fft};
}

ScalarColumns::ScalarColumns(int device, const ColumnsShape& shape, const std::vector<ColumnsSystem>& systems,
                             int points) {
  const DeviceScope current(device);
  const std::size_t planned = plan(device, shape, systems, 1, points).bytes;
  std::size_t free = 0, total = 0;
  EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
  if (planned > free)
    throw CudaError("CUDA device " + std::to_string(device) + ": the derivatives of the model at " +
                    std::to_string(points) + " points need " + std::to_string(planned) +
                    " bytes of device memory, free are " + std::to_string(free));
  impl_ = std::make_unique<Impl>(device, shape, systems, points);
}
ScalarColumns::~ScalarColumns() {
  if (!impl_) return;
  int previous = 0;
  EINFIELD_CUDA_NOEXCEPT(cudaGetDevice(&previous));
  EINFIELD_CUDA_NOEXCEPT(cudaSetDevice(impl_->device));
  impl_.reset();
  EINFIELD_CUDA_NOEXCEPT(cudaSetDevice(previous));
}
ScalarColumns::ScalarColumns(ScalarColumns&&) noexcept = default;
ScalarColumns& ScalarColumns::operator=(ScalarColumns&&) noexcept = default;

std::vector<ColumnsResult> ScalarColumns::evaluate(const std::vector<ColumnsPoint>& points) {
  const DeviceScope current(impl_->device);
  std::vector<ColumnsResult> results;
  for (std::size_t first = 0; first < points.size(); first += impl_->sizes.points)
    impl_->round(points.data() + first, std::min(impl_->sizes.points, points.size() - first), results);
  return results;
}

const ColumnsCounts& ScalarColumns::counts() const {
  return impl_->counts;
}

}  // namespace einfield::cuda
