// Images of the light of every amplitude, and of the derivatives with respect to every other parameter that moves,
// before the PSF. The physics per ray is that of tangent.hpp. One thread per sample of an image: a pixel, or a
// sub-pixel where the PSF acts on sub-pixels.
#pragma once

#include "einfield/tangent.hpp"
#include "kernels/column_arrays.cuh"

namespace einfield::cuda {

/// Components and table of a point in shared memory. Every thread of the block must call.
/// @param unit  amplitudes that move are 1
__device__ inline Scene<double> load_scene(const ColumnArrays& a, int point, bool unit, double* shared) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const SystemView& system = a.system(point);
  double* table = shared;
  auto* components = reinterpret_cast<Component*>(table + a.n_slots());
  for (int i = thread; i < a.n_slots(); i += threads) table[i] = a.table(point)[i];
  constexpr int kWords = sizeof(Component) / sizeof(int);
  for (int i = thread; i < a.n_components() * kWords; i += threads)
    reinterpret_cast<int*>(components)[i] = reinterpret_cast<const int*>(system.components)[i];
  __syncthreads();
  if (unit)
    for (int i = thread; i < a.n_linear; i += threads) table[a.linear_slot[i]] = 1;
  __syncthreads();
  return {components, a.n_lens, a.n_source, a.n_lens_light, table, system.pixels};
}

/// The rays of a sample of the cut-out.
struct SampleRays {
  int first = -1;           ///< ray of the pixel; −1 = none: the sample is dark
  int column = 0, row = 0;  ///< first of its rays within the pixel
  int side = 1;             ///< of its rays
  double share = 1;         ///< of a ray in the mean

  __device__ SampleRays(const ColumnArrays& a, const SystemView& system, int sample) {
    const int f = a.psf_supersampling, s = a.rays_per_side;
    const int x = sample % a.row_stride, y = sample / a.row_stride, pixel_x = x / f, pixel_y = y / f;
    if (pixel_x >= system.nx || pixel_y >= system.ny) return;
    const int place = system.rendered[pixel_y * system.nx + pixel_x];
    if (place < 0) return;
    side = s / f;
    first = place * s * s;
    column = x % f * side;
    row = y % f * side;
    share = static_cast<double>(f * f) / (s * s);
  }
  __device__ int count() const { return first < 0 ? 0 : side * side; }
  __device__ int ray(int i, int rays_per_side) const {
    return first + (row + i / side) * rays_per_side + column + i % side;
  }
};

/// θ, α and the network's light of a ray.
template <bool kNetwork>
struct RayView {
  Vec2<double> theta, alpha;
  NetworkSample<double> sample{};
  __device__ RayView(const ColumnArrays& a, const SystemView& system, int point, int ray)
      : theta{system.theta[ray], system.theta[system.n_rays + ray]},
        alpha{system.deflection[ray], system.deflection[system.n_rays + ray]} {
    if constexpr (kNetwork) {
      const std::size_t first = static_cast<std::size_t>(point) * a.max_rays;
      const double* gradient = a.light_gradient + 2 * first;
      sample = {a.light_value[first + ray], {gradient[ray], gradient[a.max_rays + ray]}};
    }
  }
};

/// Where the network of the NETWORK light is evaluated, and its weights for every point; one thread per ray or weight.
__global__ void __launch_bounds__(kThreads, 1) light_input_kernel(ColumnArrays a) {
  extern __shared__ double shared[];
  const int point = static_cast<int>(blockIdx.y), stride = static_cast<int>(gridDim.x * blockDim.x);
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const SystemView& system = a.system(point);
  const Scene<double> scene = load_scene(a, point, true, shared);
  double* at = a.light_position + static_cast<std::size_t>(point) * 2 * a.max_rays;
  for (int ray = first; ray < system.n_rays; ray += stride) {
    const RayView<false> view(a, system, point, ray);
    const Vec2<double> position = network_position(scene, a.light_component, view.theta, view.alpha);
    at[ray] = position.x;
    at[a.max_rays + ray] = position.y;
  }
  double* weights = a.light_weights + point * a.n_light_weights;
  for (std::size_t i = static_cast<std::size_t>(first); i < a.n_light_weights; i += static_cast<std::size_t>(stride))
    weights[i] = system.light_weights[i];
}

/// Light of every amplitude at the value 1, and all other light together.
template <bool kNetwork>
__global__ void __launch_bounds__(kThreads, 1) render_values_kernel(ColumnArrays a) {
  extern __shared__ double shared[];
  const int point = static_cast<int>(blockIdx.y);
  const SystemView& system = a.system(point);
  const Scene<double> scene = load_scene(a, point, true, shared);
  double* images = a.images + static_cast<std::size_t>(point) * a.value_images() * a.image_size;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int sample = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); sample < a.image_size; sample += stride) {
    const SampleRays rays(a, system, sample);
    double rest = 0;
    for (int k = 0; rays.count() == 0 && k < a.n_linear; ++k)
      images[static_cast<std::size_t>(k) * a.image_size + sample] = 0;
    for (int i = 0; i < rays.count(); ++i) {
      const RayView<kNetwork> view(a, system, point, rays.ray(i, a.rays_per_side));
      double others = 0;
      render_ray_components(
          scene, view.theta, view.alpha,
          [&](int c, double brightness) {
            const int image = a.image_of[c - a.n_lens];
            if (image == a.n_linear) {
              others += brightness;
              return;
            }
            double& sum = images[static_cast<std::size_t>(image) * a.image_size + sample];
            sum = i == 0 ? rays.share * brightness : sum + rays.share * brightness;
          },
          view.sample);
      rest += rays.share * others;
    }
    images[static_cast<std::size_t>(a.n_linear) * a.image_size + sample] = rest;
  }
}

/// ∂I/∂p of every other parameter that moves, for the points whose curvature is wanted.
template <bool kNetwork>
__global__ void __launch_bounds__(kThreads, 1) render_tangents_kernel(ColumnArrays a) {
  extern __shared__ double shared[];
  const int point = static_cast<int>(blockIdx.y);
  if (a.result(point)[kCurved] == 0) return;
  const SystemView& system = a.system(point);
  auto* column_of = reinterpret_cast<int*>(shared + a.n_slots());
  double* scene_memory = shared;
  const Scene<double> scene = load_scene(a, point, false, scene_memory);
  column_of += a.n_components() * static_cast<int>(sizeof(Component) / sizeof(int));
  for (int i = static_cast<int>(threadIdx.x); i < a.n_slots(); i += static_cast<int>(blockDim.x))
    column_of[i] = a.column_of[i];
  __syncthreads();
  const auto wants = [&](int c) {
    for (int k = 0; k < kMaxProfileParameters; ++k)
      if (column_of[c * kMaxProfileParameters + k] >= 0) return true;
    return false;
  };
  double* images = a.images + static_cast<std::size_t>(point) * a.n_other * a.image_size;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int sample = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); sample < a.image_size; sample += stride) {
    const SampleRays rays(a, system, sample);
    for (int k = 0; k < a.n_other; ++k) images[static_cast<std::size_t>(k) * a.image_size + sample] = 0;
    for (int i = 0; i < rays.count(); ++i) {
      const RayView<kNetwork> view(a, system, point, rays.ray(i, a.rays_per_side));
      render_ray_tangents(
          scene, view.theta, view.alpha, a.lenses_move, wants,
          [&](int c, const double* derivative) {
#pragma unroll
            for (int k = 0; k < kMaxProfileParameters; ++k) {
              const int image = column_of[c * kMaxProfileParameters + k];
              if (image < 0) continue;
              images[static_cast<std::size_t>(image) * a.image_size + sample] +=
                  rays.share * a.column_factor[c * kMaxProfileParameters + k] * derivative[k];
            }
          },
          view.sample);
    }
  }
}

}  // namespace einfield::cuda
