// Ray-shooting and source brightness, and the adjoint; the physics per ray is render.hpp's.
// Sums over rays have a fixed order: scalars block by block, source pixels sorted by target and summed by segments.
#include <cub/device/device_radix_sort.cuh>

#include <algorithm>
#include <string>

#include "einfield/cuda.hpp"
#include "host/model/scene_tables.hpp"
#include "kernels/arguments.cuh"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/render.cuh"
#include "kernels/scene.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// Where the taps of bilinear sources go: [rows][taps][n_rays] keys, which are sorted together with their places,
/// and values, which stay.
template <class Real>
struct TapArrays {
  unsigned* keys = nullptr;  ///< row of blocks · n_free_pixels + index among the free pixels; n_targets = no tap
  Real* values = nullptr;
  const int* pixel_to_free = nullptr;  ///< index among the free pixels, or −1
  int taps = 0;                        ///< 4 per PIXELATED component; 0 = no pixel is free
  int n_free_pixels = 0;
  unsigned n_targets = 0;

  /// For a row of blocks without a system: no taps.
  __device__ void forget_row(int n_rays) const {
    const std::size_t n = static_cast<std::size_t>(taps) * n_rays,
                      stride = static_cast<std::size_t>(gridDim.x) * kThreads;
    for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride)
      keys[blockIdx.y * n + i] = n_targets;
  }
};

/// The rays of an image. A sample is a pixel, or one of its f × f sub-pixels for a PSF that acts on them.
template <class Real>
struct RayArrays {
  const Real* positions;  ///< [2][n_rays]
  int n_rays, n_samples, nx;
  int side;   ///< rays per pixel along a side
  int f;      ///< samples per pixel along a side
  int group;  ///< rays per sample along a side, side / f
  __device__ Vec2<Real> theta(int ray) const { return {positions[ray], positions[n_rays + ray]}; }
  /// Deflection of the network at a ray of one system.
  __device__ Vec2<Real> deflection(const Real* alpha_nn, int ray) const {
    if (alpha_nn == nullptr) return {};
    return {alpha_nn[ray], alpha_nn[n_rays + ray]};
  }
  __device__ int sample_of(int ray) const {
    const int pixel = ray / (side * side);
    if (f == 1) return pixel;
    return static_cast<int>(subpixel_of_ray(nx, pixel % nx, pixel / nx, ray % (side * side), side, f));
  }
  __device__ int first_ray(int sample) const {
    if (f == 1) return sample * side * side;
    return first_ray_of_subpixel(nx, sample % (nx * f), sample / (nx * f), side, f);
  }
  __device__ Real rays_per_sample() const { return static_cast<Real>(group * group); }
  /// Images lie by rows of blocks.
  template <class Pixel>
  __device__ std::size_t sample_offset(const ImageView<Pixel>& image, int sample) const {
    return blockIdx.y * image.system_stride + (sample / (nx * f)) * image.row_stride + sample % (nx * f);
  }
};

/// The networks of NETWORK components; `kNetwork` false: there are none, and kernels have no code for them.
template <class Real, bool kNetwork>
struct Samples {
  const Real *value, *gradient;
  Real* value_bar;
  int n_rays;
  __device__ NetworkSample<Real> at(int system, int ray) const {
    if constexpr (kNetwork) {
      const std::size_t first = static_cast<std::size_t>(system) * n_rays;
      return {value[first + ray], {gradient[2 * first + ray], gradient[2 * first + n_rays + ray]}};
    } else {
      return {};
    }
  }
  __device__ void put_bar(int system, int ray, Real bar) const {
    if constexpr (kNetwork) value_bar[static_cast<std::size_t>(system) * n_rays + ray] = bar;
  }
};

/// Where the network of NETWORK component `component` is evaluated; one thread per ray.
template <class Real, bool kShared>
__global__ void __launch_bounds__(kThreads, 2)
    network_positions_kernel(const int* list, SceneArrays<Real> scenes, RayArrays<Real> rays, int component,
                             const Real* parameters, const Real* alpha_nn, Real* positions) {
  extern __shared__ double shared[];
  const int system = system_of_row(list, blockIdx.y);
  if (system < 0) return;
  const Scene<Real> scene = unpack<kShared>(scenes, system, parameters, shared);
  const std::size_t first = static_cast<std::size_t>(system) * 2 * rays.n_rays;
  if (alpha_nn != nullptr) alpha_nn += first;
  positions += first;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int ray = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); ray < rays.n_rays; ray += stride) {
    const Vec2<Real> at = network_position(scene, component, rays.theta(ray), rays.deflection(alpha_nn, ray));
    positions[ray] = at.x;
    positions[rays.n_rays + ray] = at.y;
  }
}

/// Free source pixels and, of scenes that are not unpacked, free scalars: from the flat vectors into the tables.
/// @param n_scalars  scenes.n_free, or 0 where every block unpacks them
template <class Real>
__global__ void __launch_bounds__(kThreads, 4)
    place_kernel(const int* list, SceneArrays<Real> scenes, const Real* parameters, int n_scalars,
                 const int* free_pixels, int n_pixels, Real* table, Real* pixels) {
  const int system = system_of_row(list, blockIdx.y), stride = static_cast<int>(gridDim.x * blockDim.x);
  if (system < 0) return;
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const Real* u = parameters + system * scenes.parameter_stride + scenes.n_network;
  const FreeParameter<Real>* free = scenes.free + static_cast<std::size_t>(system) * scenes.n_free;
  table += static_cast<std::size_t>(system) * scenes.n_slots();
  for (int i = first; i < n_scalars; i += stride) table[free[i].slot] = transform(free, i, u);
  const TiedParameter<Real>* tied = scenes.tied + static_cast<std::size_t>(system) * scenes.n_tied;
  for (int i = first; n_scalars > 0 && i < scenes.n_tied; i += stride)
    table[tied[i].slot] = tied_value(tied[i], free, u);
  pixels += static_cast<std::size_t>(system) * scenes.n_pixels;
  for (int i = first; i < n_pixels; i += stride) pixels[free_pixels[i]] = u[scenes.n_free + i];
}

template <class Real, bool kShared, bool kNetwork>
__global__ void __launch_bounds__(kThreads, 2)
    render_kernel(const int* list, SceneArrays<Real> scenes, RayArrays<Real> rays, Samples<Real, kNetwork> samples,
                  const Real* parameters, const Real* alpha_nn, ImageView<Real> image) {
  extern __shared__ double shared[];
  const int system = system_of_row(list, blockIdx.y);
  if (system < 0) return;
  const Scene<Real> scene = unpack<kShared>(scenes, system, parameters, shared);
  if (alpha_nn != nullptr) alpha_nn += static_cast<std::size_t>(system) * 2 * rays.n_rays;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int sample = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); sample < rays.n_samples;
       sample += stride) {
    Real sum = 0;
    int row = rays.first_ray(sample);
    for (int k = 0; k < rays.group; ++k, row += rays.side)
      for (int ray = row; ray < row + rays.group; ++ray)
        sum += render_ray(scene, rays.theta(ray), rays.deflection(alpha_nn, ray), samples.at(system, ray));
    image.data[rays.sample_offset(image, sample)] = sum / rays.rays_per_sample();
  }
}

/// One thread per ray. The last block of a system adds up the table's cotangents and transposes the transforms.
/// Shared: the scene, then n_slots sums (double); sums of larger scenes are made in the block's row of `partial`.
/// @param wanted     [n_components] 1 = some parameter of the component is free
/// @param partial    [systems][blocks][n_slots]
/// @param table_bar  [systems][n_slots]
template <class Real, bool kShared, bool kNetwork>
__global__ void __launch_bounds__(kThreads, 1)
    render_adjoint_kernel(const int* list, SceneArrays<Real> scenes, const unsigned char* wanted, RayArrays<Real> rays,
                          TapArrays<Real> taps, Samples<Real, kNetwork> samples, const Real* parameters,
                          const Real* alpha_nn, ImageView<const Real> image_bar, Real* alpha_bar, Real* gradient,
                          double* partial, Real* table_bar, unsigned* tickets) {
  extern __shared__ double shared[];
  const int system = system_of_row(list, blockIdx.y), thread = static_cast<int>(threadIdx.x);
  if (system < 0) {
    taps.forget_row(rays.n_rays);
    return;
  }
  const int blocks = static_cast<int>(gridDim.x), n_slots = scenes.n_slots();
  const Scene<Real> scene = unpack<kShared>(scenes, system, parameters, shared);
  const bool scalars = scenes.n_free > 0;
  partial += static_cast<std::size_t>(system) * blocks * n_slots;
  double* const row = partial + static_cast<std::size_t>(blockIdx.x) * n_slots;
  double* const sums = kShared ? shared + scenes.shared_bytes() / sizeof(double) : row;
  if (scalars)
    for (int i = thread; i < n_slots; i += kThreads) sums[i] = 0;
  __syncthreads();
  const std::size_t first_ray = static_cast<std::size_t>(system) * 2 * rays.n_rays;
  if (alpha_nn != nullptr) alpha_nn += first_ray;
  alpha_bar += first_ray;

  for (int first = static_cast<int>(blockIdx.x) * kThreads; first < rays.n_rays; first += blocks * kThreads) {
    const bool inside = first + thread < rays.n_rays;  // the others keep the block together: they add zeros
    const int ray = inside ? first + thread : rays.n_rays - 1;
    const Real sample_bar = image_bar.data[rays.sample_offset(image_bar, rays.sample_of(ray))];
    const Real bar = inside ? sample_bar / rays.rays_per_sample() : Real(0);
    const bool lit = bar != 0;

    const auto collect = [&](int c, const Real* p_bar) {
      if (wanted[c] == 0) return;
      Real sum[kMaxProfileParameters];
#pragma unroll
      for (int k = 0; k < kMaxProfileParameters; ++k) sum[k] = lit ? p_bar[k] : Real(0);
      block_sum(sum);
#pragma unroll
      for (int k = 0; k < kMaxProfileParameters; ++k)
        if (thread == k) sums[c * kMaxProfileParameters + k] += static_cast<double>(sum[k]);
    };
    int tap = 0;
    const auto put = [&](unsigned key, Real value) {
      const std::size_t place = (static_cast<std::size_t>(blockIdx.y) * taps.taps + tap++) * rays.n_rays + ray;
      taps.keys[place] = key;
      taps.values[place] = value;
    };
    const auto scatter = [&](int pixel, Real value) {
      if (taps.taps == 0 || !lit) return;
      const int target = taps.pixel_to_free[pixel];
      if (target >= 0)
        put(blockIdx.y * static_cast<unsigned>(taps.n_free_pixels) + static_cast<unsigned>(target), value);
    };
    Vec2<Real> ray_bar{};
    Real value_bar = 0;
    render_ray_adjoint_by_component(scene, rays.theta(ray), rays.deflection(alpha_nn, ray), bar, scalars, ray_bar,
                                    collect, scatter, samples.at(system, ray), kNetwork ? &value_bar : nullptr);
    if (!inside) continue;
    samples.put_bar(system, ray, lit ? value_bar : Real(0));
    while (tap < taps.taps) put(taps.n_targets, Real(0));
    alpha_bar[ray] = lit ? ray_bar.x : Real(0);
    alpha_bar[rays.n_rays + ray] = lit ? ray_bar.y : Real(0);
  }
  if (!scalars) return;

  __syncthreads();
  if constexpr (kShared)
    for (int i = thread; i < n_slots; i += kThreads) row[i] = sums[i];
  if (!is_last_block(tickets + system, gridDim.x)) return;

  // A strand of threads per slot takes every strands-th block; then the strands of a slot are added in order.
  __shared__ double strand_sums[kThreads];
  table_bar += static_cast<std::size_t>(system) * n_slots;
  const int width = n_slots < kThreads ? n_slots : kThreads, strands = kThreads / width;
  for (int first = 0; first < n_slots; first += width) {
    const int slot = first + thread % width, strand = thread / width;
    double sum = 0;
    if (strand < strands && slot < n_slots)
      for (int b = strand; b < blocks; b += strands)
        sum += __ldcg(partial + static_cast<std::size_t>(b) * n_slots + slot);
    strand_sums[thread] = sum;
    __syncthreads();
    if (strand == 0 && slot < n_slots) {
      for (int s = 1; s < strands; ++s) sum += strand_sums[s * width + thread];
      table_bar[slot] = static_cast<Real>(sum);
    }
    __syncthreads();
  }
  const std::size_t first_scalar = system * scenes.parameter_stride + scenes.n_network;
  const FreeParameter<Real>* free = scenes.free + static_cast<std::size_t>(system) * scenes.n_free;
  if (scenes.n_tied > 0) {
    if (thread == 0)
      tied_adjoint(scenes.tied + static_cast<std::size_t>(system) * scenes.n_tied, scenes.n_tied, free, table_bar);
    __syncthreads();
  }
  for (int i = thread; i < scenes.n_free; i += kThreads)
    gradient[first_scalar + i] += transform_adjoint(free, i, parameters + first_scalar, table_bar);
}

/// First of n sorted keys that is not less than `key`.
__device__ std::size_t lower_bound(const unsigned* keys, std::size_t n, unsigned key) {
  std::size_t first = 0;
  while (n > 0) {
    const std::size_t half = n / 2;
    if (keys[first + half] < key) {
      first += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return first;
}

/// 0, 1, 2, …: the places of the taps before they are sorted.
__global__ void __launch_bounds__(kThreads) enumerate_kernel(unsigned* places, std::size_t n) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride)
    places[i] = static_cast<unsigned>(i);
}

/// One warp per free source pixel adds the segment of its taps.
/// @param keys    of all taps, sorted, and with them
/// @param places  where their values are
template <class Real>
__global__ void __launch_bounds__(kThreads)
    tap_segments_kernel(const int* list, unsigned n_rows, TapArrays<Real> taps, const unsigned* keys,
                        const unsigned* places, std::size_t n, std::size_t first_pixel, std::size_t parameter_stride,
                        Real* gradient) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::size_t warps = static_cast<std::size_t>(gridDim.x) * kThreads / 32;
  for (std::size_t target = (static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
       target < n_rows * static_cast<std::size_t>(taps.n_free_pixels); target += warps) {
    const int system = system_of_row(list, static_cast<unsigned>(target / taps.n_free_pixels));
    if (system < 0) continue;
    const auto key = static_cast<unsigned>(target);
    const std::size_t begin = lower_bound(keys, n, key), end = lower_bound(keys, n, key + 1);
    double sum = 0;
    for (std::size_t i = begin + lane; i < end; i += 32) sum += static_cast<double>(taps.values[places[i]]);
    sum = warp_sum(sum);
    const std::size_t pixel = target % taps.n_free_pixels;
    if (lane == 0)
      gradient[static_cast<std::size_t>(system) * parameter_stride + first_pixel + pixel] += static_cast<Real>(sum);
  }
}

/// Sorts the keys of all taps, and the places of their values with them. With a null `temporary` it only writes the
/// bytes that it needs. This is CUB and not thrust::sort_by_key, which sorts in place, over all 32 bits of a key and
/// with memory of its own; a captured step has none to allocate. The sums that follow are not thrust::reduce_by_key,
/// whose order, and so the last bits of a sum, may change from run to run.
void sort_taps(void* temporary, std::size_t& bytes, const unsigned* keys, unsigned* sorted_keys, const unsigned* places,
               unsigned* sorted_places, std::size_t n, unsigned n_targets, cudaStream_t stream) {
  int bits = 1;
  while (n_targets >> bits != 0) ++bits;
  EINFIELD_CUDA(cub::DeviceRadixSort::SortPairs(temporary, bytes, keys, sorted_keys, places, sorted_places,
                                                static_cast<int>(n), 0, bits, stream));
}

/// Numbers that fix every size.
template <class Real>
struct RenderSizes {
  std::size_t systems, rays, pixels, components, slots, free, tied, source_pixels, free_pixels, taps, targets, all_taps,
      sort_bytes = 0;
  unsigned ray_blocks;

  RenderSizes(const Grid& grid, const std::vector<Model>& models) {
    EINFIELD_REQUIRE(!models.empty(), "render: no model, expected at least one");
    const Model& model = models.front();
    const ParameterLayout layout(model);
    systems = models.size();
    EINFIELD_REQUIRE(systems <= 65535, std::to_string(systems) + " systems, expected at most 65535");
    rays = static_cast<std::size_t>(grid.n_rays());
    pixels = static_cast<std::size_t>(grid.n_pixels());
    components = model.lens.size() + model.source.size() + model.lens_light.size();
    slots = layout.table.size();
    free = layout.free.size();
    tied = layout.tied.size();
    source_pixels = layout.pixels.size();
    free_pixels = layout.free_pixels.size();
    std::size_t pixelated = 0;
    for (const std::vector<LightComponent>* lights : {&model.source, &model.lens_light})
      for (const LightComponent& c : *lights) pixelated += c.kind == LightKind::pixelated && c.pixels_free ? 1 : 0;
    taps = 4 * pixelated;
    targets = systems * free_pixels;
    all_taps = systems * taps * rays;
    EINFIELD_REQUIRE(all_taps < (std::size_t(1) << 31) && targets < (std::size_t(1) << 31),
                     std::to_string(all_taps) + " bilinear taps and " + std::to_string(targets) +
                         " free source pixels of all systems, expected fewer than 2^31");
    ray_blocks = sum_blocks(static_cast<int>(rays));
    if (all_taps > 0)
      sort_taps(nullptr, sort_bytes, nullptr, nullptr, nullptr, nullptr, all_taps, static_cast<unsigned>(targets),
                nullptr);
  }
};

template <class Real>
struct RenderStorage {
  DeviceBuffer<Real> positions, table, table_bar, pixels, tap_values;
  DeviceBuffer<Component> components;
  DeviceBuffer<FreeParameter<Real>> free;
  DeviceBuffer<TiedParameter<Real>> tied;
  DeviceBuffer<int> free_pixels, pixel_to_free;
  DeviceBuffer<double> partial;
  DeviceBuffer<unsigned> tickets, tap_keys, tap_places, sorted_keys, sorted_places;
  DeviceBuffer<unsigned char> wanted, sort_workspace;

  template <class Take>
  void each(Take&& take, const RenderSizes<Real>& s) {
    take(positions, 2 * s.rays);
    take(components, s.systems * s.components);
    take(table, s.systems * s.slots);
    take(table_bar, s.free > 0 ? s.systems * s.slots : 0);
    take(wanted, s.components);
    take(free, s.systems * s.free);
    take(tied, s.systems * s.tied);
    take(pixels, s.systems * s.source_pixels);
    take(free_pixels, s.free_pixels);
    take(pixel_to_free, s.source_pixels);
    take(partial, s.free > 0 ? s.systems * s.ray_blocks * s.slots : 0);
    take(tickets, s.systems);
    take(tap_values, s.all_taps);
    for (DeviceBuffer<unsigned>* arrays : {&tap_keys, &tap_places, &sorted_keys, &sorted_places})
      take(*arrays, s.all_taps);
    take(sort_workspace, s.sort_bytes);
  }
};

template <class Real, class From>
void append(std::vector<Real>& to, const std::vector<From>& from) {
  for (const From& value : from) to.push_back(static_cast<Real>(value));
}

}  // namespace

template <class Real>
struct RenderStage<Real>::Impl {
  static constexpr const char* kName = "render";

  StageDevice device;
  RenderSizes<Real> sizes;
  RenderStorage<Real> storage;
  SceneArrays<Real> scenes{};
  RayArrays<Real> rays{};
  TapArrays<Real> taps;
  int network_component = -1;
  Model shape;             ///< the first model: the others have its components and free parameters
  std::size_t parameters;  ///< of a system

  Impl(const Grid& grid, const std::vector<Model>& models, std::size_t parameter_stride, cudaStream_t stream,
       int psf_supersampling, Workspace workspace)
      : sizes(grid, models) {
    EINFIELD_REQUIRE(psf_supersampling >= 1 && grid.supersampling % psf_supersampling == 0,
                     "render: " + std::to_string(psf_supersampling) +
                         " samples a pixel's side for the PSF, expected a divisor of the supersampling " +
                         std::to_string(grid.supersampling));
    parameters = ParameterLayout(models.front()).size();
    EINFIELD_REQUIRE(sizes.systems == 1 || parameter_stride >= parameters,
                     "render: parameter_stride = " + std::to_string(parameter_stride) + ", expected at least the " +
                         std::to_string(parameters) + " parameters of a system");
    BufferSource source(kName, workspace, workspace_bytes_of<RenderStorage<Real>>(sizes));
    take_all(source, storage, stream, sizes);
    std::vector<Real> positions(2 * sizes.rays);
    for (std::size_t i = 0; i < sizes.rays; ++i) {
      const Vec2<double> theta = grid.ray(static_cast<int>(i));
      positions[i] = static_cast<Real>(theta.x);
      positions[sizes.rays + i] = static_cast<Real>(theta.y);
    }
    shape = models.front();
    const ParameterLayout first(shape);
    std::vector<unsigned char> wanted(sizes.components, 0);
    for (const FreeParameter<double>& f : first.free)
      wanted[static_cast<std::size_t>(f.slot / kMaxProfileParameters)] = 1;
    for (const TiedParameter<double>& t : first.tied)
      wanted[static_cast<std::size_t>(t.slot / kMaxProfileParameters)] = 1;
    std::vector<int> pixel_to_free(sizes.source_pixels, -1);
    for (std::size_t k = 0; k < first.free_pixels.size(); ++k)
      pixel_to_free[static_cast<std::size_t>(first.free_pixels[k])] = static_cast<int>(k);

    storage.positions.upload(positions, stream);
    storage.wanted.upload(wanted, stream);
    storage.free_pixels.upload(first.free_pixels, stream);
    storage.pixel_to_free.upload(pixel_to_free, stream);
    if (sizes.all_taps > 0) {
      enumerate_kernel<<<sum_blocks(static_cast<int>(sizes.all_taps)), kThreads, 0, stream>>>(storage.tap_places.get(),
                                                                                              sizes.all_taps);
      EINFIELD_LAUNCH_CHECK();
    }
    upload(stream, 0, models);  // waits: the vectors above end here

    const Model& model = shape;
    network_component = network_light_index(model);
    scenes = {storage.components.get(),
              storage.table.get(),
              storage.free.get(),
              storage.tied.get(),
              storage.pixels.get(),
              static_cast<int>(model.lens.size()),
              static_cast<int>(model.source.size()),
              static_cast<int>(model.lens_light.size()),
              static_cast<int>(sizes.free),
              static_cast<int>(sizes.tied),
              static_cast<int>(sizes.source_pixels),
              first.n_network,
              parameter_stride};
    rays = {storage.positions.get(),
            static_cast<int>(sizes.rays),
            static_cast<int>(sizes.pixels) * psf_supersampling * psf_supersampling,
            grid.nx,
            grid.supersampling,
            psf_supersampling,
            grid.supersampling / psf_supersampling};
    taps = {storage.tap_keys.get(),
            storage.tap_values.get(),
            storage.pixel_to_free.get(),
            static_cast<int>(sizes.taps),
            static_cast<int>(sizes.free_pixels),
            static_cast<unsigned>(sizes.targets)};
  }

  /// What belongs to the models of the systems from `first` on; waits for the stream.
  void upload(cudaStream_t stream, std::size_t first, const std::vector<Model>& models) {
    std::vector<Real> table, pixels;
    std::vector<Component> components;
    std::vector<FreeParameter<Real>> free;
    std::vector<TiedParameter<Real>> tied;
    const ParameterLayout expected(shape);
    for (const Model& model : models) {
      const ParameterLayout layout(model);
      EINFIELD_REQUIRE(layout.size() == expected.size() && layout.names == expected.names &&
                           layout.table.size() == expected.table.size() && layout.free_pixels == expected.free_pixels &&
                           layout.tied.size() == expected.tied.size() &&
                           std::equal(layout.tied.begin(), layout.tied.end(), expected.tied.begin(),
                                      [](const auto& a, const auto& b) { return a.slot == b.slot; }) &&
                           model.lens.size() == shape.lens.size() && model.source.size() == shape.source.size() &&
                           network_light_index(model) == network_light_index(shape),
                       "render: models of different shapes, expected the same components and free parameters");
      const SceneTables<Real> tables(model, layout);
      append(table, tables.table);
      append(pixels, tables.pixels);
      append(free, tables.free);
      append(tied, tables.tied);
      append(components, tables.components);
    }
    storage.components.upload(components.data(), components.size(), stream, first * sizes.components);
    storage.table.upload(table.data(), table.size(), stream, first * sizes.slots);
    storage.free.upload(free.data(), free.size(), stream, first * sizes.free);
    storage.tied.upload(tied.data(), tied.size(), stream, first * sizes.tied);
    storage.pixels.upload(pixels.data(), pixels.size(), stream, first * sizes.source_pixels);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));
  }

  std::size_t adjoint_shared_bytes() const {
    return scenes.shared_bytes() + (scenes.shared() ? sizes.slots * sizeof(double) : 0);
  }
  /// What the calls with rays have in common.
  void require(View<const Real> vectors, View<const Real> alpha_nn) const {
    device.require_current(kName);
    require_vectors(kName, "parameters", vectors, sizes.systems, scenes.parameter_stride, parameters);
    require_size_or_none(kName, "alpha_nn", alpha_nn, 2 * sizes.systems * sizes.rays);
  }
  void require_light(const NetworkLight<Real>& light) const {
    const bool given = !light.value.empty() && !light.gradient.empty();
    EINFIELD_REQUIRE(given == (network_component >= 0), std::string("render: a network of a NETWORK component is ") +
                                                            (given ? "given" : "missing") +
                                                            ", expected it with such a component and not without");
    if (!given) return;
    require_size(kName, "light.value", light.value, sizes.systems * sizes.rays);
    require_size(kName, "light.gradient", light.gradient, 2 * sizes.systems * sizes.rays);
  }
  template <class Pixel>
  void require_samples(const Queue& queue, const char* name, const ImageView<Pixel>& images) const {
    require_images(kName, name, images, rows_of(queue, sizes.systems), rays.n_samples / (rays.nx * rays.f),
                   rays.nx * rays.f);
  }
  /// Calls launch(shared, samples) with the networks of the NETWORK component, or with none.
  template <class Launch>
  void with_samples(const NetworkLight<Real>& light, Launch&& launch) const {
    with_placement(scenes, [&](auto shared) {
      if (network_component >= 0)
        launch(shared,
               Samples<Real, true>{light.value.data(), light.gradient.data(), light.value_bar.data(), rays.n_rays});
      else
        launch(shared, Samples<Real, false>{nullptr, nullptr, nullptr, rays.n_rays});
    });
  }
  dim3 grid(const Queue& queue, unsigned blocks) const { return dim3(blocks, rows_of(queue, sizes.systems)); }

  /// Brings the tables of the scenes up to date with the parameters.
  void place(const Queue& queue, const Real* parameters) {
    const int scalars = scenes.shared() ? 0 : scenes.n_free, free_pixels = static_cast<int>(sizes.free_pixels);
    const int most = std::max(scalars, free_pixels);
    if (most == 0) return;
    place_kernel<<<grid(queue, sum_blocks(most)), kThreads, 0, queue.stream>>>(
        queue.systems, scenes, parameters, scalars, storage.free_pixels.get(), free_pixels, storage.table.get(),
        storage.pixels.get());
    EINFIELD_LAUNCH_CHECK();
  }

  void add_taps(const Queue& queue, Real* gradient) {
    if (sizes.all_taps == 0) return;
    const unsigned n_rows = rows_of(queue, sizes.systems);
    const std::size_t n = n_rows * sizes.taps * sizes.rays;
    std::size_t bytes = sizes.sort_bytes;
    sort_taps(storage.sort_workspace.get(), bytes, taps.keys, storage.sorted_keys.get(), storage.tap_places.get(),
              storage.sorted_places.get(), n, taps.n_targets, queue.stream);
    const std::size_t blocks =
        std::min<std::size_t>((n_rows * sizes.free_pixels * 32 + kThreads - 1) / kThreads, 65535);
    tap_segments_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, queue.stream>>>(
        queue.systems, n_rows, taps, storage.sorted_keys.get(), storage.sorted_places.get(), n,
        scenes.n_network + sizes.free, scenes.parameter_stride, gradient);
    EINFIELD_LAUNCH_CHECK();
  }
};

template <class Real>
RenderStage<Real>::RenderStage(const Grid& grid, const std::vector<Model>& models, std::size_t parameter_stride,
                               cudaStream_t stream, int psf_supersampling, Workspace workspace)
    : impl_(std::make_unique<Impl>(grid, models, parameter_stride, stream, psf_supersampling, workspace)) {}
template <class Real>
RenderStage<Real>::~RenderStage() = default;
template <class Real>
RenderStage<Real>::RenderStage(RenderStage&&) noexcept = default;
template <class Real>
RenderStage<Real>& RenderStage<Real>::operator=(RenderStage&&) noexcept = default;

template <class Real>
std::size_t RenderStage<Real>::workspace_bytes(const Grid& grid, const std::vector<Model>& models) {
  return workspace_bytes_of<RenderStorage<Real>>(RenderSizes<Real>(grid, models));
}

template <class Real>
void RenderStage<Real>::replace(cudaStream_t stream, std::size_t system, const Model& model) {
  impl_->device.require_current(Impl::kName);
  require_system(Impl::kName, system, impl_->sizes.systems);
  impl_->upload(stream, system, {model});
}

template <class Real>
View<const Real> RenderStage<Real>::positions() const {
  return impl_->storage.positions;
}

template <class Real>
void RenderStage<Real>::network_positions(const Queue& queue, View<const Real> parameters, View<const Real> alpha_nn,
                                          View<Real> positions) {
  EINFIELD_REQUIRE(impl_->network_component >= 0, "render: no NETWORK component, expected one");
  impl_->require(parameters, alpha_nn);
  require_size(Impl::kName, "positions", positions, 2 * impl_->sizes.systems * impl_->sizes.rays);
  impl_->place(queue, parameters.data());
  with_placement(impl_->scenes, [&](auto shared) {
    network_positions_kernel<Real, shared.value>
        <<<impl_->grid(queue, impl_->sizes.ray_blocks), kThreads, impl_->scenes.shared_bytes(), queue.stream>>>(
            queue.systems, impl_->scenes, impl_->rays, impl_->network_component, parameters.data(), alpha_nn.data(),
            positions.data());
    EINFIELD_LAUNCH_CHECK();
  });
}

template <class Real>
void RenderStage<Real>::forward(const Queue& queue, View<const Real> parameters, View<const Real> alpha_nn,
                                ImageView<Real> image, const NetworkLight<Real>& light) {
  impl_->require(parameters, alpha_nn);
  impl_->require_light(light);
  impl_->require_samples(queue, "image", image);
  impl_->place(queue, parameters.data());
  impl_->with_samples(light, [&](auto shared, const auto& samples) {
    render_kernel<Real, shared.value><<<impl_->grid(queue, sum_blocks(impl_->rays.n_samples)), kThreads,
                                        impl_->scenes.shared_bytes(), queue.stream>>>(
        queue.systems, impl_->scenes, impl_->rays, samples, parameters.data(), alpha_nn.data(), image);
    EINFIELD_LAUNCH_CHECK();
  });
}

template <class Real>
void RenderStage<Real>::adjoint(const Queue& queue, View<const Real> parameters, View<const Real> alpha_nn,
                                ImageView<const Real> image_bar, View<Real> alpha_bar, View<Real> gradient,
                                const NetworkLight<Real>& light) {
  const RenderSizes<Real>& s = impl_->sizes;
  impl_->require(parameters, alpha_nn);
  impl_->require_light(light);
  impl_->require_samples(queue, "image_bar", image_bar);
  require_size(Impl::kName, "alpha_bar", alpha_bar, 2 * s.systems * s.rays);
  require_vectors(Impl::kName, "gradient", gradient, s.systems, impl_->scenes.parameter_stride, impl_->parameters);
  if (impl_->network_component >= 0) require_size(Impl::kName, "light.value_bar", light.value_bar, s.systems * s.rays);
  impl_->place(queue, parameters.data());
  impl_->with_samples(light, [&](auto shared, const auto& samples) {
    render_adjoint_kernel<Real, shared.value>
        <<<impl_->grid(queue, s.ray_blocks), kThreads, impl_->adjoint_shared_bytes(), queue.stream>>>(
            queue.systems, impl_->scenes, impl_->storage.wanted.get(), impl_->rays, impl_->taps, samples,
            parameters.data(), alpha_nn.data(), image_bar, alpha_bar.data(), gradient.data(),
            impl_->storage.partial.get(), impl_->storage.table_bar.get(), impl_->storage.tickets.get());
    EINFIELD_LAUNCH_CHECK();
  });
  impl_->add_taps(queue, gradient.data());
}

template <class Real>
SceneArrays<Real> SceneAccess::arrays(const RenderStage<Real>& stage) {
  return stage.impl_->scenes;
}
template <class Real>
void SceneAccess::place(const RenderStage<Real>& stage, const Queue& queue, const Real* parameters) {
  if (!stage.impl_->scenes.shared()) stage.impl_->place(queue, parameters);
}

template <class Real>
std::size_t SceneAccess::systems(const RenderStage<Real>& stage) {
  return stage.impl_->sizes.systems;
}

template class RenderStage<float>;
template class RenderStage<double>;
template SceneArrays<float> SceneAccess::arrays(const RenderStage<float>&);
template SceneArrays<double> SceneAccess::arrays(const RenderStage<double>&);
template void SceneAccess::place(const RenderStage<float>&, const Queue&, const float*);
template void SceneAccess::place(const RenderStage<double>&, const Queue&, const double*);
template std::size_t SceneAccess::systems(const RenderStage<float>&);
template std::size_t SceneAccess::systems(const RenderStage<double>&);

}  // namespace einfield::cuda
