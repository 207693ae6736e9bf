// Stages of a training step on the CPU. Every sum over rays or pixels is made of kChunks partial sums over fixed
// ranges, added in order: the same bits for any number of threads. Formulas are in the headers; here are loops and
// storage.
#include "host/cpu/backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <string>
#include <utility>

#include "einfield/adam.hpp"
#include "einfield/error.hpp"
#include "einfield/likelihood.hpp"
#include "einfield/regularization.hpp"
#include "einfield/render.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/network.hpp"
#include "host/cpu/rays.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {
namespace {

constexpr int kChunks = 16;

struct Span {
  int begin, end;
};

Span chunk_of(int n, int chunk) {
  return {static_cast<int>(static_cast<std::int64_t>(n) * chunk / kChunks),
          static_cast<int>(static_cast<std::int64_t>(n) * (chunk + 1) / kChunks)};
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) {
      const std::size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  return "CPU";
}

template <class Real>
std::vector<Real> converted(const std::vector<double>& values) {
  return std::vector<Real>(values.begin(), values.end());
}

/// One lens: its data, its fields and its optimiser.
template <class Real>
struct Lens {
  Lens(const Problem& problem, ThreadPool& pool)
      : layout(problem.model),
        grid(problem.observation.grid),
        n_pixels(grid.n_pixels()),
        n_rays(grid.n_rays()),
        regularization(problem.regularization),
        shape(problem.model.network),
        schedule{problem.learning_rates, 0, {}},
        data(converted<Real>(problem.observation.image)),
        weights(pixel_weights<Real>(problem.observation, problem.loss, problem.held_out)),
        n_fitted(fitted_pixels(problem)),
        psf_supersampling(problem.observation.psf.supersampling),
        convolution(grid.nx * psf_supersampling, grid.ny * psf_supersampling, problem.observation.psf),
        table(converted<Real>(layout.table)),
        pixels(converted<Real>(layout.pixels)),
        parameters(converted<Real>(problem.initial_parameters)) {
    for (const FreeParameter<double>& f : layout.free)
      free.push_back({f.slot, f.partner, f.kind, static_cast<Real>(f.lower), static_cast<Real>(f.upper)});

    const Model& model = problem.model;
    n_lens = static_cast<int>(model.lens.size());
    n_source = static_cast<int>(model.source.size());
    n_lens_light = static_cast<int>(model.lens_light.size());
    for (const LensComponent& c : model.lens)
      components.push_back({static_cast<int>(c.kind), RadiusKind::product_average, 0, {}});
    int pixel_offset = 0;
    for (const std::vector<LightComponent>* lights : {&model.source, &model.lens_light})
      for (const LightComponent& c : *lights) {
        components.push_back({static_cast<int>(c.kind), c.radius, pixel_offset, c.grid});
        pixel_offset += static_cast<int>(c.pixels.size());
      }

    const auto rays = static_cast<std::size_t>(n_rays), image_size = static_cast<std::size_t>(n_pixels);
    theta.resize(2 * rays);
    for (int i = 0; i < n_rays; ++i) {
      const Vec2<double> position = grid.ray(i);
      theta[static_cast<std::size_t>(i)] = static_cast<Real>(position.x);
      theta[rays + static_cast<std::size_t>(i)] = static_cast<Real>(position.y);
    }
    potential.resize(rays);
    deflection.resize(2 * rays);
    deflection_bar.resize(2 * rays);
    for (std::vector<Real>* field : {&image, &model_image, &model_bar, &image_bar}) field->resize(image_size);
    for (std::vector<Real>* field : {&gradient, &first_moment, &second_moment}) field->resize(layout.size());
    if (grid.supersampling > 1) ray_brightness.resize(rays);
    if (psf_supersampling > 1)
      for (std::vector<Real>* field : {&subpixels, &subpixels_convolved})
        field->resize(image_size * static_cast<std::size_t>(psf_supersampling * psf_supersampling));
    if (shape && regularization.on_potential()) {
      hessian_bar.resize(3 * rays);
      kappa_macro.resize(rays);
    }
    lens_is_free = std::any_of(free.begin(), free.end(),
                               [&](const FreeParameter<Real>& f) { return f.slot < n_lens * kMaxProfileParameters; });
    if (shape) network = std::make_unique<CpuNetwork<Real>>(*shape, n_rays, pool);
    source_pixels = free_source_pixels(model);
    if (const LightComponent* const light = network_light(model)) {
      light_component = network_light_index(model);
      light_network = std::make_unique<CpuNetwork<Real>>(light->network, n_rays, pool);
      if (layout.n_light_weights == 0) fixed_light_weights = converted<Real>(layout.light_weights);
      for (std::vector<Real>* field : {&light_value, &light_value_bar}) field->resize(rays);
      for (std::vector<Real>* field : {&light_position, &light_gradient}) field->resize(2 * rays);
    }
  }

  Scene<Real> scene() const { return {components.data(), n_lens, n_source, n_lens_light, table.data(), pixels.data()}; }
  Vec2<Real> theta_at(int ray) const {
    return {theta[static_cast<std::size_t>(ray)], theta[static_cast<std::size_t>(n_rays + ray)]};
  }
  /// Rays of the pixels of a span.
  Rays<Real> rays_of(Span span) const {
    const int rays = grid.rays_per_pixel(), first = span.begin * rays;
    const Real *const t = theta.data() + first, *const d = deflection.data() + first;
    Rays<Real> result{(span.end - span.begin) * rays, t, t + n_rays, d, d + n_rays};
    if (!light_network) return result;
    result.network_value = light_value.data() + first;
    result.network_gradient_x = light_gradient.data() + first;
    result.network_gradient_y = light_gradient.data() + n_rays + first;
    return result;
  }
  const Real* light_weights() const {
    return fixed_light_weights.empty() ? parameters.data() + layout.light_weights_offset() : fixed_light_weights.data();
  }

  /// Physical values of the free scalars and pixels from the flat vector.
  void place_parameters() {
    const Real* u = parameters.data() + layout.n_network;
    for (std::size_t i = 0; i < free.size(); ++i)
      table[static_cast<std::size_t>(free[i].slot)] = transform(free.data(), static_cast<int>(i), u);
    for (std::size_t k = 0; k < layout.free_pixels.size(); ++k)
      pixels[static_cast<std::size_t>(layout.free_pixels[k])] = u[free.size() + k];
  }

  ParameterLayout layout;
  Grid grid;
  int n_pixels, n_rays;
  Regularization regularization;
  std::optional<NetworkShape> shape;
  Schedule schedule;
  std::vector<Real> data;
  PixelWeights<Real> weights;
  int n_fitted;  ///< pixels that have a part in the loss
  int psf_supersampling;
  Convolution<Real> convolution;
  std::unique_ptr<CpuNetwork<Real>> network;

  std::vector<Component> components;
  int n_lens = 0, n_source = 0, n_lens_light = 0;
  std::vector<FreeParameter<Real>> free;
  std::vector<Real> table, pixels;

  std::vector<Real> theta, potential, deflection, deflection_bar, image, model_image, model_bar, image_bar;
  std::vector<Real> parameters, gradient, first_moment, second_moment;
  std::vector<Real> ray_brightness;  ///< of every ray, or its cotangent; empty with one ray a pixel
  /// Before and behind a PSF on sub-pixels, or their cotangents; empty with a PSF on pixels.
  std::vector<Real> subpixels, subpixels_convolved;
  std::vector<Real> hessian_bar;  ///< of ψ_xx, ψ_yy, ψ_xy: per node of the ray grid, (rows, columns) each
  std::vector<Real> kappa_macro;  ///< of every ray, once regularize() has filled it
  bool lens_is_free = false, kappa_macro_filled = false;
  std::vector<FreePixels> source_pixels;

  // The network of the NETWORK component; empty without one.
  std::unique_ptr<CpuNetwork<Real>> light_network;
  int light_component = -1;               ///< among all components
  std::vector<Real> fixed_light_weights;  ///< empty when they are free: then they are in `parameters`
  std::vector<Real> light_position, light_value, light_gradient, light_value_bar;
  StepState state;
};

template <class Real>
class CpuBackend final : public Backend<Real> {
 public:
  explicit CpuBackend(int threads) : pool_(threads) {}

  std::string name() const override { return "cpu"; }
  std::string device() const override {
    return processor_name() + ", " + std::to_string(pool_.threads()) + (pool_.threads() == 1 ? " thread" : " threads");
  }

  void load(const std::vector<Problem>& problems) override {
    validate_problems(problems);
    const NetworkMath math = problems.front().network_math;
    EINFIELD_REQUIRE(math == NetworkMath::fp32,
                     std::string("network_math = ") + name_of(math) + " on the CPU, expected fp32");
    lenses_.clear();
    for (const Problem& problem : problems) lenses_.push_back(std::make_unique<Lens<Real>>(problem, pool_));
  }
  int lenses() const override { return static_cast<int>(lenses_.size()); }
  const ParameterLayout& layout() const override { return lens(0).layout; }

  void upload(Field field, int index, const std::vector<Real>& values) override {
    std::vector<Real>& target = field_of(lens(index), field);
    EINFIELD_REQUIRE(values.size() == target.size(), "a field of " + std::to_string(target.size()) +
                                                         " values cannot take " + std::to_string(values.size()));
    target = values;
  }
  std::vector<Real> download(Field field, int index) override { return field_of(lens(index), field); }
  void set_updates(std::int64_t updates) override {
    for (auto& l : lenses_) {
      l->state = {};
      l->state.updates = updates;
    }
  }

  void begin(const Schedule& schedule) override {
    validate_schedule(schedule, layout().size());
    for (auto& l : lenses_) {
      l->schedule = schedule;
      std::fill(l->first_moment.begin(), l->first_moment.end(), Real(0));
      std::fill(l->second_moment.begin(), l->second_moment.end(), Real(0));
    }
    set_updates(0);
  }

  void network() override {
    for (auto& l : lenses_)
      if (l->network)
        l->network->forward(l->parameters.data(), l->theta.data(), l->n_rays, l->potential.data(),
                            l->deflection.data());
  }

  void render() override {
    for (auto& l : lenses_) {
      l->place_parameters();
      if (l->light_network) evaluate_light_network(*l);
      pool_.parallel_for(kChunks, [&](int chunk, int) {
        const int rays = l->grid.rays_per_pixel();
        const Span span = chunk_of(l->n_pixels, chunk);
        Real* const brightness = (rays == 1 ? l->image : l->ray_brightness).data();
        ray_kernels<Real>().render(l->scene(), l->rays_of(span), brightness + span.begin * rays);
        if (rays == 1) return;
        for (int pixel = span.begin; pixel < span.end; ++pixel) {
          Real sum = 0;
          for (int ray = pixel * rays; ray < (pixel + 1) * rays; ++ray) sum += brightness[ray];
          l->image[static_cast<std::size_t>(pixel)] = sum / static_cast<Real>(rays);
          if (l->psf_supersampling > 1) fill_subpixels(*l, pixel);
        }
      });
    }
  }

  void convolve() override {
    pool_.parallel_for(lenses(), [&](int i, int) {
      Lens<Real>& l = lens(i);
      const int f = l.psf_supersampling;
      if (f == 1) {
        l.convolution.apply(l.image.data(), l.model_image.data());
        return;
      }
      l.convolution.apply(l.subpixels.data(), l.subpixels_convolved.data());
      mean_of_subpixels(l.subpixels_convolved.data(), l.grid.nx, l.grid.ny, f, l.model_image.data());
    });
  }

  void loss() override {
    for (auto& l : lenses_) {
      const PixelWeights<Real>& weights = l->weights;
      std::array<double, kChunks> loss{}, chi2{}, held_out{};
      pool_.parallel_for(kChunks, [&](int chunk, int) {
        const Span span = chunk_of(l->n_pixels, chunk);
        double loss_sum = 0, chi2_sum = 0, held_out_sum = 0;
        for (auto i = static_cast<std::size_t>(span.begin); i < static_cast<std::size_t>(span.end); ++i) {
          loss_sum += static_cast<double>(residual_loss(l->model_image[i], l->data[i], weights.loss[i]));
          chi2_sum += static_cast<double>(residual_loss(l->model_image[i], l->data[i], weights.chi2[i]));
          if (!weights.held_out.empty())
            held_out_sum += static_cast<double>(residual_loss(l->model_image[i], l->data[i], weights.held_out[i]));
          l->model_bar[i] = residual_loss_adjoint(l->model_image[i], l->data[i], weights.loss[i]);
        }
        loss[static_cast<std::size_t>(chunk)] = loss_sum;
        chi2[static_cast<std::size_t>(chunk)] = chi2_sum;
        held_out[static_cast<std::size_t>(chunk)] = held_out_sum;
      });
      const std::vector<double>& rates = l->schedule.learning_rates;
      l->state.learning_rate = rates[std::min(static_cast<std::size_t>(l->state.updates), rates.size() - 1)];
      l->state.loss = l->state.chi2_reduced = l->state.held_out_chi2 = 0;
      for (const double part : loss) l->state.loss += part;
      for (const double part : chi2) l->state.chi2_reduced += part;
      for (const double part : held_out) l->state.held_out_chi2 += part;
    }
  }

  void convolve_adjoint() override {
    pool_.parallel_for(lenses(), [&](int i, int) {
      Lens<Real>& l = lens(i);
      const int f = l.psf_supersampling;
      if (f == 1) {
        l.convolution.apply_transpose(l.model_bar.data(), l.image_bar.data());
        return;
      }
      mean_of_subpixels_adjoint(l.model_bar.data(), l.grid.nx, l.grid.ny, f, l.subpixels_convolved.data());
      l.convolution.apply_transpose(l.subpixels_convolved.data(), l.subpixels.data());
      // What the image's cotangent would be if all sub-pixels of a pixel were one.
      mean_of_subpixels(l.subpixels.data(), l.grid.nx, l.grid.ny, f, l.image_bar.data());
      for (Real& bar : l.image_bar) bar *= static_cast<Real>(f * f);
    });
  }

  void zero_gradient() override {
    for (auto& l : lenses_) {
      std::fill(l->gradient.begin(), l->gradient.end(), Real(0));
      l->state.regularization = 0;
      l->state.gradient_norm = 0;
    }
  }

  void render_adjoint() override {
    for (auto& l : lenses_) render_adjoint(*l);
  }

  void regularize() override {
    for (auto& l : lenses_)
      if (l->regularization.any() || !l->layout.priors.empty()) regularize(*l);
  }

  void network_adjoint() override {
    for (auto& l : lenses_)
      if (l->network)
        l->network->adjoint(l->parameters.data(), l->theta.data(), l->n_rays, nullptr, l->deflection_bar.data(),
                            l->gradient.data());
  }

  void adam() override {
    for (auto& l : lenses_) {
      StepState& state = l->state;
      measure_gradient(*l);
      const bool finite_loss = std::isfinite(state.loss) && std::isfinite(state.regularization);
      if (state.bad_step == 0 && !(finite_loss && std::isfinite(state.gradient_norm))) {
        state.bad_step = state.updates + 1;
        state.bad_loss = !finite_loss;
      }
      if (state.bad_step != 0) continue;
      const AdamStep<Real> update = make_adam_step<Real>(state.learning_rate, ++state.updates);
      const Real scale = static_cast<Real>(clip_factor(l->schedule.clip_norm, state.gradient_norm));
      pool_.parallel_for(kChunks, [&](int chunk, int) {
        const Span span = chunk_of(static_cast<int>(l->parameters.size()), chunk);
        for (auto i = static_cast<std::size_t>(span.begin); i < static_cast<std::size_t>(span.end); ++i)
          adam_update(update, scale * l->gradient[i], l->parameters[i], l->first_moment[i], l->second_moment[i]);
      });
    }
  }

  void evaluate(bool with_gradient) override {
    network();
    render();
    convolve();
    loss();
    zero_gradient();
    if (!with_gradient) {
      regularize();
      return;
    }
    convolve_adjoint();
    render_adjoint();
    regularize();
    network_adjoint();
    for (auto& l : lenses_) measure_gradient(*l);
  }

  void step() override {
    evaluate(true);
    adam();
  }

  StepState state(int index) override { return lens(index).state; }

 private:
  Lens<Real>& lens(int index) const {
    EINFIELD_REQUIRE(index >= 0 && index < lenses(), "lens " + std::to_string(index) + " of " +
                                                         std::to_string(lenses()) + ", expected one that is loaded");
    return *lenses_[static_cast<std::size_t>(index)];
  }

  static std::vector<Real>& field_of(Lens<Real>& l, Field field) {
    switch (field) {
      case Field::parameters:
        return l.parameters;
      case Field::gradient:
        return l.gradient;
      case Field::first_moment:
        return l.first_moment;
      case Field::second_moment:
        return l.second_moment;
      case Field::potential:
        return l.potential;
      case Field::deflection:
        return l.deflection;
      case Field::image:
        return l.image;
      case Field::model:
        return l.model_image;
      case Field::model_bar:
        return l.model_bar;
      case Field::image_bar:
        return l.image_bar;
      case Field::deflection_bar:
        return l.deflection_bar;
    }
    throw InvalidInput("an unknown field");
  }

  /// Zeroes the gradient of what is not to be moved, and takes the norm of the rest.
  void measure_gradient(Lens<Real>& l) {
    const std::vector<std::uint8_t>& trainable = l.schedule.trainable;
    for (std::size_t i = 0; i < trainable.size(); ++i)
      if (!trainable[i]) l.gradient[i] = 0;
    l.state.gradient_norm = norm(l.gradient);
  }

  double norm(const std::vector<Real>& values) {
    std::array<double, kChunks> parts{};
    pool_.parallel_for(kChunks, [&](int chunk, int) {
      const Span span = chunk_of(static_cast<int>(values.size()), chunk);
      double sum = 0;
      for (auto i = static_cast<std::size_t>(span.begin); i < static_cast<std::size_t>(span.end); ++i)
        sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      parts[static_cast<std::size_t>(chunk)] = sum;
    });
    double sum = 0;
    for (const double part : parts) sum += part;
    return std::sqrt(sum);
  }

  /// Means of the rays of a pixel over its sub-pixels, for a PSF that acts on them.
  static void fill_subpixels(Lens<Real>& l, int pixel) {
    const int rays = l.grid.rays_per_pixel(), f = l.psf_supersampling, s = l.grid.supersampling;
    const int x = pixel % l.grid.nx, y = pixel / l.grid.nx;
    const auto target = [&](int ray) -> Real& { return l.subpixels[subpixel_of_ray(l.grid.nx, x, y, ray, s, f)]; };
    for (int ray = 0; ray < rays; ++ray) target(ray) = 0;
    const Real share = static_cast<Real>(f * f) / static_cast<Real>(rays);
    for (int ray = 0; ray < rays; ++ray)
      target(ray) += share * l.ray_brightness[static_cast<std::size_t>(pixel * rays + ray)];
  }

  /// The NETWORK component's network where its rays arrive.
  void evaluate_light_network(Lens<Real>& l) {
    pool_.parallel_for(kChunks, [&](int chunk, int) {
      const Span span = chunk_of(l.n_pixels, chunk);
      Real* const position = l.light_position.data() + span.begin * l.grid.rays_per_pixel();
      ray_kernels<Real>().network_positions(l.scene(), l.rays_of(span), l.light_component, position,
                                            position + l.n_rays);
    });
    l.light_network->forward(l.light_weights(), l.light_position.data(), l.n_rays, l.light_value.data(),
                             l.light_gradient.data());
  }

  void render_adjoint(Lens<Real>& l) {
    l.place_parameters();
    const bool scalars = !l.free.empty(), source_pixels = !l.layout.free_pixels.empty();
    std::vector<std::vector<double>> table_parts(kChunks), pixel_parts(kChunks);
    pool_.parallel_for(kChunks, [&](int chunk, int) {
      std::vector<double>& table_sum = table_parts[static_cast<std::size_t>(chunk)];
      std::vector<double>& pixel_sum = pixel_parts[static_cast<std::size_t>(chunk)];
      if (scalars) table_sum.assign(l.table.size(), 0.0);
      if (source_pixels) pixel_sum.assign(l.pixels.size(), 0.0);
      const int rays = l.grid.rays_per_pixel();
      const Span span = chunk_of(l.n_pixels, chunk);
      const int first = span.begin * rays;
      if (rays > 1)
        for (int pixel = span.begin; pixel < span.end; ++pixel) {
          Real* const bar = l.ray_brightness.data() + pixel * rays;
          std::fill_n(bar, rays, l.image_bar[static_cast<std::size_t>(pixel)] / static_cast<Real>(rays));
          const int f = l.psf_supersampling;
          if (f == 1) continue;
          const int x = pixel % l.grid.nx, y = pixel / l.grid.nx;
          for (int ray = 0; ray < rays; ++ray)
            bar[ray] = l.subpixels[subpixel_of_ray(l.grid.nx, x, y, ray, l.grid.supersampling, f)] *
                       static_cast<Real>(f * f) / static_cast<Real>(rays);
        }
      const Real* const brightness_bar = (rays == 1 ? l.image_bar : l.ray_brightness).data() + first;
      Real* const alpha_bar = l.deflection_bar.data() + first;
      ray_kernels<Real>().adjoint(l.scene(), l.rays_of(span), brightness_bar, alpha_bar, alpha_bar + l.n_rays,
                                  scalars ? table_sum.data() : nullptr, source_pixels ? pixel_sum.data() : nullptr,
                                  l.light_network ? l.light_value_bar.data() + first : nullptr);
    });
    if (l.layout.n_light_weights > 0)
      l.light_network->adjoint(l.light_weights(), l.light_position.data(), l.n_rays, l.light_value_bar.data(), nullptr,
                               l.gradient.data() + l.layout.light_weights_offset());

    Real* gradient = l.gradient.data() + l.layout.n_network;
    if (scalars) {
      std::vector<Real> table_bar(l.table.size());
      for (std::size_t k = 0; k < table_bar.size(); ++k) {
        double sum = 0;
        for (const auto& part : table_parts) sum += part[k];
        table_bar[k] = static_cast<Real>(sum);
      }
      const Real* u = l.parameters.data() + l.layout.n_network;
      for (std::size_t i = 0; i < l.free.size(); ++i)
        gradient[i] += transform_adjoint(l.free.data(), static_cast<int>(i), u, table_bar.data());
    }
    for (std::size_t k = 0; k < l.layout.free_pixels.size(); ++k) {
      double sum = 0;
      for (const auto& part : pixel_parts) sum += part[static_cast<std::size_t>(l.layout.free_pixels[k])];
      gradient[l.free.size() + k] += static_cast<Real>(sum);
    }
  }

  /// In every step where a lens is free, else once.
  void fill_kappa_macro(Lens<Real>& l) {
    if (l.kappa_macro_filled && !l.lens_is_free) return;
    l.kappa_macro_filled = true;
    pool_.parallel_for(kChunks, [&](int chunk, int) {
      const Span span = chunk_of(l.n_rays, chunk);
      for (int ray = span.begin; ray < span.end; ++ray)
        l.kappa_macro[static_cast<std::size_t>(ray)] = macro_values(l.scene(), l.theta_at(ray)).kappa;
    });
  }

  /// Of the network's potential, over the interior nodes.
  Hessian<Real> mean_hessian(const Lens<Real>& l, const RayGrid& nodes, Real spacing) {
    std::array<Hessian<double>, kChunks> parts{};
    pool_.parallel_for(kChunks, [&](int chunk, int) {
      const Span span = chunk_of(nodes.rows - 2, chunk);
      Hessian<double>& sum = parts[static_cast<std::size_t>(chunk)];
      for (int row = span.begin + 1; row < span.end + 1; ++row)
        for (int column = 1; column + 1 < nodes.columns; ++column) {
          const Hessian<Real> h = difference_hessian(nodes, l.deflection.data(), l.n_rays, spacing, column, row);
          sum.xx += static_cast<double>(h.xx);
          sum.yy += static_cast<double>(h.yy);
          sum.xy += static_cast<double>(h.xy);
        }
    });
    Hessian<double> mean{};
    for (const Hessian<double>& part : parts) {
      mean.xx += part.xx / nodes.interior();
      mean.yy += part.yy / nodes.interior();
      mean.xy += part.xy / nodes.interior();
    }
    return {static_cast<Real>(mean.xx), static_cast<Real>(mean.yy), static_cast<Real>(mean.xy)};
  }

  void regularize(Lens<Real>& l) {
    l.place_parameters();
    const Regularization& weights = l.regularization;
    double total = 0;

    const RayGrid nodes(l.grid);
    if (const int interior = nodes.interior(); l.network && weights.on_potential() && interior > 0) {
      const Real spacing = static_cast<Real>(l.grid.pixel_scale / l.grid.supersampling);
      if (weights.negative_total_convergence > 0) fill_kappa_macro(l);
      const Hessian<Real> mean = weights.curvature > 0 ? mean_hessian(l, nodes, spacing) : Hessian<Real>{};
      std::array<double, kChunks> parts{};
      pool_.parallel_for(kChunks, [&](int chunk, int) {
        const Span span = chunk_of(nodes.rows, chunk);
        double sum = 0;
        for (int row = span.begin; row < span.end; ++row)
          for (int column = 0; column < nodes.columns; ++column) {
            if (row == 0 || column == 0 || row + 1 == nodes.rows || column + 1 == nodes.columns) continue;
            const Hessian<Real> hessian =
                difference_hessian(nodes, l.deflection.data(), l.n_rays, spacing, column, row);
            const Real kappa_macro = l.kappa_macro[static_cast<std::size_t>(nodes.ray(column, row))];
            sum += static_cast<double>(potential_penalty(weights, hessian, mean, kappa_macro));
            const Hessian<Real> bar = potential_penalty_adjoint(weights, hessian, mean, kappa_macro);
            Real* const of_node = l.hessian_bar.data() + row * nodes.columns + column;  // the border stays 0
            of_node[0] = bar.xx / static_cast<Real>(interior);
            of_node[l.n_rays] = bar.yy / static_cast<Real>(interior);
            of_node[2 * l.n_rays] = bar.xy / static_cast<Real>(interior);
          }
        parts[static_cast<std::size_t>(chunk)] = sum;
      });
      for (const double part : parts) total += part / interior;
      pool_.parallel_for(kChunks, [&](int chunk, int) {
        const Span span = chunk_of(nodes.rows, chunk);
        for (int row = span.begin; row < span.end; ++row)
          for (int column = 0; column < nodes.columns; ++column) {
            const Vec2<Real> bar = difference_hessian_adjoint(nodes, l.hessian_bar.data(), spacing, column, row);
            const int ray = nodes.ray(column, row);
            l.deflection_bar[static_cast<std::size_t>(ray)] += bar.x;
            l.deflection_bar[static_cast<std::size_t>(l.n_rays + ray)] += bar.y;
          }
      });
    }

    if (weights.weight_decay > 0 && l.network)
      for (int layer = l.shape->fixed_layers(); layer < l.shape->layers(); ++layer)
        for (std::size_t i = l.shape->kernel_offset(layer); i < l.shape->bias_offset(layer); ++i) {
          const auto w = static_cast<double>(l.parameters[i]);
          total += 0.5 * weights.weight_decay * w * w;
          l.gradient[i] += static_cast<Real>(weights.weight_decay * w);
        }

    for (const GaussianPrior<double>& prior : l.layout.priors) {
      const FreeParameter<Real>& f = l.free[static_cast<std::size_t>(prior.free)];
      const GaussianPrior<Real> known{prior.free, static_cast<Real>(prior.mean), static_cast<Real>(prior.sigma)};
      const Real value = l.table[static_cast<std::size_t>(f.slot)], weight = static_cast<Real>(1.0 / l.n_fitted);
      total += static_cast<double>(weight * prior_penalty(known, value));
      std::vector<Real> table_bar(l.table.size(), Real(0));
      table_bar[static_cast<std::size_t>(f.slot)] = weight * prior_penalty_adjoint(known, value);
      const Real* const u = l.parameters.data() + l.layout.n_network;
      for (const int i : {prior.free, f.partner})
        if (i >= 0)
          l.gradient[l.layout.n_network + static_cast<std::size_t>(i)] +=
              transform_adjoint(l.free.data(), i, u, table_bar.data());
    }

    if (weights.on_source_pixels())
      for (const FreePixels& block : l.source_pixels) total += regularize_pixels(l, block);
    l.state.regularization += total;
  }

  /// Adds the gradient of the penalty on a component's pixels and returns its value.
  double regularize_pixels(Lens<Real>& l, const FreePixels& block) {
    const Regularization& weights = l.regularization;
    const Real* const pixels = l.parameters.data() + block.offset;
    Real* const gradient = l.gradient.data() + block.offset;
    const int n = block.nx * block.ny;
    std::array<double, kChunks> parts{};
    pool_.parallel_for(kChunks, [&](int chunk, int) {
      const Span span = chunk_of(n, chunk);
      double sum = 0;
      for (int i = span.begin; i < span.end; ++i) {
        const int ix = i % block.nx, iy = i / block.nx;
        sum += static_cast<double>(source_pixel_penalty(weights, pixels, block.nx, block.ny, ix, iy));
        gradient[i] += source_pixel_penalty_adjoint(weights, pixels, block.nx, block.ny, ix, iy) / static_cast<Real>(n);
      }
      parts[static_cast<std::size_t>(chunk)] = sum;
    });
    double total = 0;
    for (const double part : parts) total += part / n;
    return total;
  }

  ThreadPool pool_;
  std::vector<std::unique_ptr<Lens<Real>>> lenses_;
};

}  // namespace

template <class Real>
std::unique_ptr<Backend<Real>> make_cpu_backend(int threads) {
  return std::make_unique<CpuBackend<Real>>(threads);
}

template <class Real>
std::size_t cpu_planned_bytes(const std::vector<Problem>& problems, int threads) {
  std::size_t bytes = 0;
  for (const Problem& problem : problems) {
    const Grid& grid = problem.observation.grid;
    const auto rays = static_cast<std::size_t>(grid.n_rays()), pixels = static_cast<std::size_t>(grid.n_pixels());
    const ParameterLayout layout(problem.model);
    bytes += sizeof(Real) *
             (7 * rays + (problem.held_out.empty() ? 7 : 8) * pixels + 4 * layout.size() + layout.pixels.size());
    if (grid.supersampling > 1) bytes += sizeof(Real) * rays;
    if (const int f = problem.observation.psf.supersampling; f > 1)
      bytes += sizeof(Real) * 2 * pixels * static_cast<std::size_t>(f * f);
    if (problem.model.network && problem.regularization.on_potential()) bytes += 4 * sizeof(Real) * rays;
    if (!layout.free_pixels.empty()) bytes += sizeof(double) * kChunks * layout.pixels.size();
    if (problem.model.network) bytes += CpuNetwork<Real>::planned_bytes(*problem.model.network, grid.n_rays(), threads);
    if (const LightComponent* const light = network_light(problem.model))
      bytes += sizeof(Real) * (6 * rays + layout.light_weights.size() - layout.n_light_weights) +
               CpuNetwork<Real>::planned_bytes(light->network, grid.n_rays(), threads);
  }
  return bytes;
}

template std::unique_ptr<Backend<float>> make_cpu_backend(int);
template std::unique_ptr<Backend<double>> make_cpu_backend(int);
template std::size_t cpu_planned_bytes<float>(const std::vector<Problem>&, int);
template std::size_t cpu_planned_bytes<double>(const std::vector<Problem>&, int);

}  // namespace einfield
