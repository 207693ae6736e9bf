// One system of the CPU backend: its data, its fields and the state of its optimizer. Every buffer is named once, in
// SystemBuffers::each: the same list counts the bytes before a run and allocates them.
//
// Sums over rays, pixels or parameters are made of kChunks partial sums over fixed ranges, added in order: the bits do
// not depend on the number of threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/likelihood.hpp"
#include "einfield/render.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/lbfgs.hpp"
#include "host/cpu/network.hpp"
#include "host/cpu/noise_whitening.hpp"
#include "host/cpu/rays.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/model/scene_tables.hpp"

namespace einfield::cpu {

constexpr int kChunks = 16;

struct Span {
  int begin, end;
};

inline Span chunk_of(int n, int chunk) {
  return {static_cast<int>(static_cast<std::int64_t>(n) * chunk / kChunks),
          static_cast<int>(static_cast<std::int64_t>(n) * (chunk + 1) / kChunks)};
}

/// Calls work(chunk, span) for every chunk of 0 … n − 1.
template <class Work>
void for_each_chunk(ThreadPool& pool, int n, Work&& work) {
  pool.parallel_for(kChunks, [&](int chunk, int) { work(chunk, chunk_of(n, chunk)); });
}

/// The partial sums work(span) of all chunks, in order.
template <class Work>
std::array<double, kChunks> chunk_sums(ThreadPool& pool, int n, Work&& work) {
  std::array<double, kChunks> parts{};
  for_each_chunk(pool, n, [&](int chunk, Span span) { parts[static_cast<std::size_t>(chunk)] = work(span); });
  return parts;
}

inline double sum_of(const std::array<double, kChunks>& parts) {
  double sum = 0;
  for (const double part : parts) sum += part;
  return sum;
}

/// What the sizes of the buffers of a system follow from.
struct SystemSizes {
  std::size_t rays, pixels, parameters, source_pixels;
  std::size_t held_out;             ///< pixels, or 0 when none are held out
  std::size_t sampled_rays;         ///< rays, or 0 with one ray per pixel
  std::size_t subpixels;            ///< samples of a PSF finer than the pixels, or 0
  std::size_t hessian_rays;         ///< rays, or 0 without a penalty on the network's potential
  std::size_t summed_pixels;        ///< source pixels, or 0 when none is free
  std::size_t light_rays;           ///< rays, or 0 without a NETWORK component
  std::size_t fixed_light_weights;  ///< of the NETWORK component, or 0 when they are free

  SystemSizes(const Problem& problem, const ParameterLayout& layout) {
    const Grid& grid = problem.observation.grid;
    const auto f = static_cast<std::size_t>(problem.observation.psf.supersampling);
    rays = static_cast<std::size_t>(grid.n_rays());
    pixels = static_cast<std::size_t>(grid.n_pixels());
    parameters = layout.size();
    source_pixels = layout.pixels.size();
    held_out = problem.held_out.empty() ? 0 : pixels;
    sampled_rays = grid.supersampling > 1 ? rays : 0;
    subpixels = f > 1 ? pixels * f * f : 0;
    hessian_rays = problem.model.network && problem.regularization.on_potential() ? rays : 0;
    summed_pixels = layout.free_pixels.empty() ? 0 : source_pixels;
    light_rays = network_light(problem.model) != nullptr ? rays : 0;
    fixed_light_weights = layout.light_weights.size() - layout.n_light_weights;
  }
};

template <class Real>
struct SystemBuffers {
  std::vector<Real> data;  ///< the observed image
  PixelWeights<Real> weights;
  SceneTables<Real> tables;
  std::vector<Real> theta, potential, deflection, deflection_bar;
  std::vector<Real> image, model_image, model_bar, image_bar;
  std::vector<Real> parameters, gradient, first_moment, second_moment;
  std::vector<Real> best, position, previous_parameters, previous_first_moment, previous_second_moment;
  std::vector<Real> ray_brightness;                  ///< of every ray, or its cotangent; empty with one ray per pixel
  std::vector<Real> subpixels, subpixels_convolved;  ///< before and after the PSF, or their cotangents; empty with a
                                                     ///< PSF on pixels
  std::vector<Real> hessian_bar;                     ///< of ψ_xx, ψ_yy, ψ_xy: (rows, columns) of the ray grid each
  std::vector<Real> kappa_macro;                     ///< κ of the smooth model at every ray
  std::vector<double> pixel_sums;                    ///< [kChunks][source pixels]: their gradient, chunk by chunk
  // The NETWORK component's network, at the positions of its rays; empty without one.
  std::vector<Real> fixed_light_weights;  ///< empty when the weights are free: then they are in `parameters`
  std::vector<Real> light_position, light_value, light_gradient, light_value_bar;

  /// Calls visit(buffer, number of elements) for every buffer. Tables of a few hundred numbers are left out.
  template <class Visit>
  void each(Visit&& visit, const SystemSizes& s) {
    for (std::vector<Real>* v : {&data, &weights.loss, &weights.chi2, &image, &model_image, &model_bar, &image_bar})
      visit(*v, s.pixels);
    visit(weights.held_out, s.held_out);
    visit(tables.pixels, s.source_pixels);
    visit(potential, s.rays);
    for (std::vector<Real>* v : {&theta, &deflection, &deflection_bar}) visit(*v, 2 * s.rays);
    for (std::vector<Real>* v : {&parameters, &gradient, &first_moment, &second_moment, &best, &position,
                                 &previous_parameters, &previous_first_moment, &previous_second_moment})
      visit(*v, s.parameters);
    visit(ray_brightness, s.sampled_rays);
    for (std::vector<Real>* v : {&subpixels, &subpixels_convolved}) visit(*v, s.subpixels);
    visit(hessian_bar, 3 * s.hessian_rays);
    visit(kappa_macro, s.hessian_rays);
    visit(pixel_sums, kChunks * s.summed_pixels);
    visit(fixed_light_weights, s.fixed_light_weights);
    for (std::vector<Real>* v : {&light_value, &light_value_bar}) visit(*v, s.light_rays);
    for (std::vector<Real>* v : {&light_position, &light_gradient}) visit(*v, 2 * s.light_rays);
  }
};

template <class Real>
std::vector<Real> converted(const std::vector<double>& values) {
  return std::vector<Real>(values.begin(), values.end());
}

template <class Real>
struct System : SystemBuffers<Real> {
  System(const Problem& problem, ThreadPool& pool)
      : layout(problem.model),
        grid(problem.observation.grid),
        n_pixels(grid.n_pixels()),
        n_rays(grid.n_rays()),
        regularization(problem.regularization),
        shape(problem.model.network),
        n_fitted(fitted_pixels(problem)),
        psf_supersampling(problem.observation.psf.supersampling),
        whitening(whitening_of(problem.observation, problem.held_out)),
        convolution(grid.nx * psf_supersampling, grid.ny * psf_supersampling, problem.observation.psf),
        free_source_pixels(einfield::free_source_pixels(problem.model)),
        light_component(network_light_index(problem.model)) {
    this->each([](auto& buffer, std::size_t count) { buffer.assign(count, 0); }, SystemSizes(problem, layout));
    tables = SceneTables<Real>(problem.model, layout);
    this->data = converted<Real>(problem.observation.image);
    this->weights = pixel_weights<Real>(problem.observation, problem.loss, problem.held_out);
    this->parameters = converted<Real>(problem.initial_parameters);
    const View<Real> at(this->theta);
    for (int i = 0; i < n_rays; ++i) {
      const Vec2<double> ray = grid.ray(i);
      at[i] = static_cast<Real>(ray.x);
      at[n_rays + i] = static_cast<Real>(ray.y);
    }
    const auto in_lens = [this](const auto& parameter) {
      return parameter.slot < tables.n_lens * kMaxProfileParameters;
    };
    lens_is_free = std::any_of(tables.free.begin(), tables.free.end(), in_lens) ||
                   std::any_of(tables.tied.begin(), tables.tied.end(), in_lens);
    if (shape) network = std::make_unique<CpuNetwork<Real>>(*shape, n_rays, pool);
    if (const LightComponent* const light = network_light(problem.model)) {
      light_network = std::make_unique<CpuNetwork<Real>>(light->network, n_rays, pool);
      if (layout.n_light_weights == 0) this->fixed_light_weights = converted<Real>(layout.light_weights);
    }
  }

  /// Bytes that such a system allocates.
  static std::size_t planned_bytes(const Problem& problem, int threads) {
    std::size_t bytes = 0;
    SystemBuffers<Real>{}.each(
        [&bytes](const auto& buffer, std::size_t count) { bytes += count * sizeof(*buffer.data()); },
        SystemSizes(problem, ParameterLayout(problem.model)));
    const int rays = problem.observation.grid.n_rays();
    if (problem.model.network) bytes += CpuNetwork<Real>::planned_bytes(*problem.model.network, rays, threads);
    if (const LightComponent* const light = network_light(problem.model))
      bytes += CpuNetwork<Real>::planned_bytes(light->network, rays, threads);
    const Observation& o = problem.observation;
    return bytes + NoiseWhitening::planned_bytes(o.noise_correlation, o.grid, static_cast<std::size_t>(o.n_used()));
  }

  Scene<Real> scene() const { return tables.scene(); }
  Vec2<Real> theta_at(int ray) const {
    const View<const Real> at(this->theta);
    return {at[ray], at[n_rays + ray]};
  }
  /// Rays of the pixels of a span.
  Rays<Real> rays_of(Span span) const {
    const int rays = grid.rays_per_pixel(), first = span.begin * rays;
    const Real *const t = this->theta.data() + first, *const d = this->deflection.data() + first;
    Rays<Real> result{(span.end - span.begin) * rays, t, t + n_rays, d, d + n_rays};
    if (!light_network) return result;
    result.network_value = this->light_value.data() + first;
    result.network_gradient_x = this->light_gradient.data() + first;
    result.network_gradient_y = this->light_gradient.data() + n_rays + first;
    return result;
  }
  const Real* light_weights() const {
    return layout.n_light_weights > 0 ? this->parameters.data() + layout.light_weights_offset()
                                      : this->fixed_light_weights.data();
  }

  /// The free scalars and pixels of `parameters`, as they are: unconstrained.
  const Real* scalars() const { return this->parameters.data() + layout.n_network; }
  /// Puts the physical values of the free scalars and pixels into the tables.
  void place_parameters() { tables.place(scalars()); }

  using SystemBuffers<Real>::tables;

  ParameterLayout layout;
  Grid grid;
  int n_pixels, n_rays;
  Regularization regularization;
  std::optional<NetworkShape> shape;
  Schedule schedule;
  int n_fitted;  ///< pixels that enter the loss
  int psf_supersampling;
  NoiseWhitening whitening;  ///< empty = the noise of the pixels is independent
  Convolution<Real> convolution;
  std::vector<FreePixels> free_source_pixels;
  bool lens_is_free = false;        ///< a scalar of the smooth lens is free
  bool kappa_macro_filled = false;  ///< by an earlier regularize()
  std::unique_ptr<CpuNetwork<Real>> network;
  int light_component;  ///< the NETWORK component among all components, or −1
  std::unique_ptr<CpuNetwork<Real>> light_network;
  StepState state;
  StageProgress progress;               ///< of the stage that runs
  std::vector<StageRecord> records;     ///< since the last look
  std::unique_ptr<Lbfgs<Real>> search;  ///< of a stage of L-BFGS
};

}  // namespace einfield::cpu
