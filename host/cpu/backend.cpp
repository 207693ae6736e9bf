// Stages of a training step on the CPU: loops around the formulas of the headers. Storage is in system.hpp.
#include "host/cpu/backend.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include "einfield/adam.hpp"
#include "einfield/error.hpp"
#include "host/cpu/regularize.hpp"
#include "host/cpu/system.hpp"

namespace einfield {
namespace {

using cpu::chunk_sums;
using cpu::for_each_chunk;
using cpu::kChunks;
using cpu::Span;
using cpu::sum_of;
using cpu::System;

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) {
      const std::size_t colon = line.find(": ");
      if (colon != std::string::npos) return line.substr(colon + 2);
    }
  return "CPU";
}

/// The buffer of a field; const when the system is.
template <class SomeSystem>
auto& field_of(SomeSystem& s, Field field) {
  switch (field) {
    case Field::parameters:
      return s.parameters;
    case Field::gradient:
      return s.gradient;
    case Field::first_moment:
      return s.first_moment;
    case Field::second_moment:
      return s.second_moment;
    case Field::best:
      return s.best;
    case Field::position:
      return s.position;
    case Field::previous_parameters:
      return s.previous_parameters;
    case Field::previous_first_moment:
      return s.previous_first_moment;
    case Field::previous_second_moment:
      return s.previous_second_moment;
    case Field::potential:
      return s.potential;
    case Field::deflection:
      return s.deflection;
    case Field::image:
      return s.image;
    case Field::model:
      return s.model_image;
    case Field::model_bar:
      return s.model_bar;
    case Field::image_bar:
      return s.image_bar;
    case Field::deflection_bar:
      return s.deflection_bar;
  }
  throw InvalidInput("an unknown field");
}

/// Means of the rays of a pixel over its sub-pixels, for a PSF that acts on them.
template <class Real>
void fill_subpixels(System<Real>& s, int pixel) {
  const int rays = s.grid.rays_per_pixel(), f = s.psf_supersampling, side = s.grid.supersampling;
  const int x = pixel % s.grid.nx, y = pixel / s.grid.nx;
  const View<const Real> brightness(s.ray_brightness);
  const auto target = [&](int ray) -> Real& { return s.subpixels[subpixel_of_ray(s.grid.nx, x, y, ray, side, f)]; };
  for (int ray = 0; ray < rays; ++ray) target(ray) = 0;
  const Real share = static_cast<Real>(f * f) / static_cast<Real>(rays);
  for (int ray = 0; ray < rays; ++ray) target(ray) += share * brightness[pixel * rays + ray];
}

/// Cotangents of the rays of a span of pixels, from those of the pixels or of the sub-pixels that the PSF acts on.
template <class Real>
void fill_ray_bars(System<Real>& s, Span span) {
  const int rays = s.grid.rays_per_pixel(), f = s.psf_supersampling;
  const View<const Real> image_bar(s.image_bar);
  for (int pixel = span.begin; pixel < span.end; ++pixel) {
    Real* const bar = s.ray_brightness.data() + pixel * rays;
    std::fill_n(bar, rays, image_bar[pixel] / static_cast<Real>(rays));
    if (f == 1) continue;
    const int x = pixel % s.grid.nx, y = pixel / s.grid.nx;
    for (int ray = 0; ray < rays; ++ray)
      bar[ray] = s.subpixels[subpixel_of_ray(s.grid.nx, x, y, ray, s.grid.supersampling, f)] *
                 static_cast<Real>(f * f) / static_cast<Real>(rays);
  }
}

/// After an upload of an image or its cotangent: what a PSF that acts on sub-pixels reads. They are equal within a
/// pixel.
template <class Real>
void set_subpixels(System<Real>& s, Field field) {
  const int f = s.psf_supersampling;
  if (f == 1 || (field != Field::image && field != Field::image_bar)) return;
  const std::vector<Real>& pixels = field == Field::image ? s.image : s.image_bar;
  mean_of_subpixels_adjoint(pixels.data(), s.grid.nx, s.grid.ny, f, s.subpixels.data());
  if (field == Field::image)
    for (Real& value : s.subpixels) value *= static_cast<Real>(f * f);
}

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
    systems_.clear();
    for (const Problem& problem : problems) systems_.push_back(std::make_unique<System<Real>>(problem, pool_));
    shape_ = problems.front();
    run_ = {};
    stage_begun_ = false;
    pending_pairs_.clear();
    work_on_all();
  }
  void replace(int index, const Problem& problem) override {
    validate_problems({shape_, problem});
    (void)system(index);
    systems_[static_cast<std::size_t>(index)] = std::make_unique<System<Real>>(problem, pool_);
    system(index).progress.done = true;
    system(index).schedule = run_.schedule;
    pending_pairs_.erase(index);
    work_on_all();
  }
  int systems() const override { return static_cast<int>(systems_.size()); }
  const ParameterLayout& layout() const override { return system(0).layout; }

  void upload(Field field, int index, const std::vector<Real>& values) override {
    std::vector<Real>& target = field_of(system(index), field);
    EINFIELD_REQUIRE(values.size() == target.size(), "a field of " + std::to_string(target.size()) +
                                                         " values cannot take " + std::to_string(values.size()));
    target = values;
    set_subpixels(system(index), field);
  }
  std::vector<Real> download(Field field, int index) const override { return field_of(system(index), field); }
  void upload(Field field, const std::vector<Real>& values) override {
    const std::size_t size = field_of(system(0), field).size();
    EINFIELD_REQUIRE(values.size() == size * systems_.size(), "a field of " + std::to_string(size * systems_.size()) +
                                                                  " values of all systems cannot take " +
                                                                  std::to_string(values.size()));
    auto from = values.begin();
    for (auto& s : systems_) {
      std::copy_n(from, size, field_of(*s, field).begin());
      from += static_cast<std::ptrdiff_t>(size);
      set_subpixels(*s, field);
    }
  }
  std::vector<Real> download(Field field) const override {
    std::vector<Real> values;
    for (const auto& s : systems_) {
      const std::vector<Real>& part = field_of(std::as_const(*s), field);
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  }
  void set_updates(std::int64_t updates) override {
    for (auto& s : systems_) {
      s->state = {};
      s->state.updates = updates;
    }
  }

  void begin(const Schedule& schedule) override {
    validate_schedule(schedule, layout().size());
    run_.schedule = schedule;
    for (auto& s : systems_) {
      s->schedule = schedule;
      std::fill(s->first_moment.begin(), s->first_moment.end(), Real(0));
      std::fill(s->second_moment.begin(), s->second_moment.end(), Real(0));
    }
    set_updates(0);
  }

  void network() override {
    for (System<Real>* const s : working_)
      if (s->network)
        s->network->forward(s->parameters.data(), s->theta.data(), s->n_rays, s->potential.data(),
                            s->deflection.data());
  }

  void render() override {
    for (System<Real>* const s : working_) {
      s->place_parameters();
      if (s->light_network) evaluate_light_network(*s);
      const View<Real> image(s->image);
      for_each_chunk(pool_, s->n_pixels, [&](int, Span span) {
        const int rays = s->grid.rays_per_pixel();
        Real* const brightness = (rays == 1 ? s->image : s->ray_brightness).data();
        ray_kernels<Real>().render(s->scene(), s->rays_of(span), brightness + span.begin * rays);
        if (rays == 1) return;
        for (int pixel = span.begin; pixel < span.end; ++pixel) {
          Real sum = 0;
          for (int ray = pixel * rays; ray < (pixel + 1) * rays; ++ray) sum += brightness[ray];
          image[pixel] = sum / static_cast<Real>(rays);
          if (s->psf_supersampling > 1) fill_subpixels(*s, pixel);
        }
      });
    }
  }

  void convolve() override {
    pool_.parallel_for(static_cast<int>(working_.size()), [&](int i, int) {
      System<Real>& s = *working_[static_cast<std::size_t>(i)];
      const int f = s.psf_supersampling;
      if (f == 1) {
        s.convolution.apply(s.image.data(), s.model_image.data());
        return;
      }
      s.convolution.apply(s.subpixels.data(), s.subpixels_convolved.data());
      mean_of_subpixels(s.subpixels_convolved.data(), s.grid.nx, s.grid.ny, f, s.model_image.data());
    });
  }

  void loss() override {
    for (System<Real>* const s : working_) {
      const View<const Real> model(s->model_image), data(s->data), weight(s->weights.loss),
          chi2_weight(s->weights.chi2), held_out_weight(s->weights.held_out);
      const View<Real> model_bar(s->model_bar);
      std::array<double, kChunks> loss{}, chi2{}, held_out{};
      for_each_chunk(pool_, s->n_pixels, [&](int chunk, Span span) {
        double loss_sum = 0, chi2_sum = 0, held_out_sum = 0;
        for (int i = span.begin; i < span.end; ++i) {
          loss_sum += static_cast<double>(residual_loss(model[i], data[i], weight[i]));
          chi2_sum += static_cast<double>(residual_loss(model[i], data[i], chi2_weight[i]));
          if (!held_out_weight.empty())
            held_out_sum += static_cast<double>(residual_loss(model[i], data[i], held_out_weight[i]));
          model_bar[i] = residual_loss_adjoint(model[i], data[i], weight[i]);
        }
        const auto k = static_cast<std::size_t>(chunk);
        loss[k] = loss_sum;
        chi2[k] = chi2_sum;
        held_out[k] = held_out_sum;
      });
      s->state.learning_rate = rate_after(rates(*s), n_rates(*s), s->state.updates);
      s->state.loss = sum_of(loss);
      s->state.chi2_reduced = sum_of(chi2);
      s->state.held_out_chi2 = sum_of(held_out);
      if (!s->whitening.empty()) correlated_loss(*s);
    }
  }

  void convolve_adjoint() override {
    pool_.parallel_for(static_cast<int>(working_.size()), [&](int i, int) {
      System<Real>& s = *working_[static_cast<std::size_t>(i)];
      const int f = s.psf_supersampling;
      if (f == 1) {
        s.convolution.apply_transpose(s.model_bar.data(), s.image_bar.data());
        return;
      }
      mean_of_subpixels_adjoint(s.model_bar.data(), s.grid.nx, s.grid.ny, f, s.subpixels_convolved.data());
      s.convolution.apply_transpose(s.subpixels_convolved.data(), s.subpixels.data());
      // The cotangent that the image would have if a pixel had a single sample.
      mean_of_subpixels(s.subpixels.data(), s.grid.nx, s.grid.ny, f, s.image_bar.data());
      for (Real& bar : s.image_bar) bar *= static_cast<Real>(f * f);
    });
  }

  void zero_gradient() override {
    for (System<Real>* const s : working_) {
      std::fill(s->gradient.begin(), s->gradient.end(), Real(0));
      s->state.regularization = 0;
      s->state.gradient_norm = 0;
    }
  }

  void render_adjoint() override {
    for (System<Real>* const s : working_) render_adjoint(*s);
  }

  void regularize() override {
    for (System<Real>* const s : working_) cpu::regularize(*s, pool_);
  }

  void network_adjoint() override {
    for (System<Real>* const s : working_)
      if (s->network)
        s->network->adjoint(s->parameters.data(), s->theta.data(), s->n_rays, nullptr, s->deflection_bar.data(),
                            s->gradient.data());
  }

  void adam() override {
    for (System<Real>* const s : working_) {
      measure_gradient(*s);
      if (decide_update(s->state, rates(*s), n_rates(*s))) update(*s);
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
    for (System<Real>* const s : working_) measure_gradient(*s);
  }

  void step() override {
    evaluate(true);
    adam();
  }

  StepState state(int index) const override { return system(index).state; }
  std::vector<StepState> states() const override {
    std::vector<StepState> all;
    for (const auto& s : systems_) all.push_back(s->state);
    return all;
  }

  void begin_stage(const StageRun& run, const std::vector<StageStart<Real>>& starts) override {
    validate_stage(run, starts, systems(), layout().size());
    begin(run.schedule);
    run_ = run;
    stage_begun_ = true;
    for (int i = 0; i < systems(); ++i) enter(i, starts[static_cast<std::size_t>(i)]);
  }
  void begin_stage(int index, const StageStart<Real>& start) override {
    EINFIELD_REQUIRE(stage_begun_, "begin_stage(system) before begin_stage(run, starts)");
    validate_start(run_, start, layout().size());
    System<Real>& s = system(index);
    s.schedule = run_.schedule;
    std::fill(s.first_moment.begin(), s.first_moment.end(), Real(0));
    std::fill(s.second_moment.begin(), s.second_moment.end(), Real(0));
    s.state = {};
    enter(index, start);
  }
  void advance(int evaluations) override {
    for (; evaluations > 0; --evaluations) {
      work_on_running();
      if (working_.empty()) break;
      begin_searches();
      evaluate(true);
      if (run_.optimizer == OptimizerKind::adam)
        follow_adam_steps();
      else
        follow_searches();
    }
    work_on_all();
  }
  int evaluations_per_look() const override { return 1; }
  std::vector<StageProgress> look(std::vector<std::vector<StageRecord>>& records) override {
    records.resize(systems_.size());
    std::vector<StageProgress> progress;
    for (std::size_t i = 0; i < systems_.size(); ++i) {
      System<Real>& s = *systems_[i];
      progress.push_back(s.progress);
      std::move(s.records.begin(), s.records.end(), std::back_inserter(records[i]));
      s.records.clear();
    }
    return progress;
  }
  std::vector<std::vector<Real>> pairs() const override {
    std::vector<std::vector<Real>> all;
    for (const auto& s : systems_) {
      std::vector<Real>& flat = all.emplace_back();
      if (!s->search) continue;
      for (const auto& pair : s->search->pairs()) {
        flat.insert(flat.end(), pair.move.begin(), pair.move.end());
        flat.insert(flat.end(), pair.change.begin(), pair.change.end());
      }
    }
    return all;
  }

  NetworkFields<Real> network_fields(int index, const std::vector<Real>& theta) override {
    const System<Real>& s = system(index);
    const std::size_t n = theta.size() / 2;
    EINFIELD_REQUIRE(theta.size() == 2 * n,
                     std::to_string(theta.size()) + " coordinates, expected all x, then as many y");
    if (!s.network) return {std::vector<Real>(n), std::vector<Real>(2 * n), std::vector<Real>(n)};
    return evaluate_network(*s.shape, s.parameters, theta, pool_);
  }

 private:
  const System<Real>& system(int index) const {
    EINFIELD_REQUIRE(index >= 0 && index < systems(), "system " + std::to_string(index) + " of " +
                                                          std::to_string(systems()) + ", expected one that is loaded");
    return *systems_[static_cast<std::size_t>(index)];
  }
  System<Real>& system(int index) { return const_cast<System<Real>&>(std::as_const(*this).system(index)); }

  void enter(int index, const StageStart<Real>& start) {
    System<Real>& s = system(index);
    s.progress = {};
    s.progress.step = start.step;
    s.progress.watch = start.watch;
    s.progress.done = !start.runs;
    s.records.clear();
    s.search.reset();
    if (run_.optimizer == OptimizerKind::adam) s.state.updates = start.step;
    if (run_.optimizer == OptimizerKind::lbfgs && start.runs) pending_pairs_[index] = start.pairs;
  }

  /// The stages of a step work on all systems, but within a stage of a fit on those that are not done.
  void work_on_all() {
    working_.clear();
    for (auto& s : systems_) working_.push_back(s.get());
  }
  void work_on_running() {
    working_.clear();
    for (auto& s : systems_)
      if (!s->progress.done) working_.push_back(s.get());
  }

  /// The update of Adam that the state counts already.
  void update(System<Real>& s) {
    const AdamStep<Real> step = make_adam_step<Real>(s.state.learning_rate, s.state.updates);
    const Real scale = static_cast<Real>(clip_factor(s.schedule.clip_norm, s.state.gradient_norm));
    const View<Real> parameters(s.parameters), first(s.first_moment), second(s.second_moment);
    const View<Real> previous(s.previous_parameters), previous_first(s.previous_first_moment),
        previous_second(s.previous_second_moment);
    const View<const Real> gradient(s.gradient);
    for_each_chunk(pool_, static_cast<int>(parameters.size()), [&](int, Span span) {
      for (int i = span.begin; i < span.end; ++i) {
        previous[i] = parameters[i];
        previous_first[i] = first[i];
        previous_second[i] = second[i];
        adam_update(step, scale * gradient[i], parameters[i], first[i], second[i]);
      }
    });
  }

  static void record(System<Real>& s, std::int64_t step, const std::vector<Real>& parameters) {
    const auto first = parameters.begin() + static_cast<std::ptrdiff_t>(s.layout.n_network);
    s.records.push_back({step, s.progress.state, {first, first + static_cast<std::ptrdiff_t>(s.layout.n_free())}});
    ++s.progress.records;
  }

  void follow_adam_steps() {
    for (System<Real>* const s : working_) {
      const std::int64_t step = s->state.updates;
      const bool moves = follow_adam(s->progress, s->state, run_.stop, run_.log_every, rates(*s), n_rates(*s));
      if (s->progress.keeps) s->best = s->parameters;
      if (s->progress.logs) record(*s, step, s->parameters);
      if (moves) update(*s);
    }
  }

  /// The searches begin at the parameters that the caller may have uploaded after begin_stage().
  void begin_searches() {
    for (auto& [i, flat] : pending_pairs_) {
      System<Real>& s = system(i);
      std::vector<typename Lbfgs<Real>::Pair> pairs;
      const auto length = static_cast<std::ptrdiff_t>(s.parameters.size());
      for (auto at = flat.begin(); at != flat.end(); at += 2 * length)
        pairs.push_back({{at, at + length}, {at + length, at + 2 * length}});
      s.position = s.parameters;
      s.search = std::make_unique<Lbfgs<Real>>(s.parameters, run_.memory, std::move(pairs));
    }
    pending_pairs_.clear();
  }
  void follow_searches() {
    pool_.parallel_for(static_cast<int>(working_.size()), [&](int i, int) {
      System<Real>& s = *working_[static_cast<std::size_t>(i)];
      s.state.learning_rate = 0;
      LineOutcome outcome{.start = s.progress.evaluations == 0};
      if (!outcome.start || is_finite(s.state))
        outcome = s.search->tell(s.state.loss + s.state.regularization, s.gradient);
      follow_line(s.progress, s.state, run_.stop, run_.log_every, outcome);
      s.position = s.search->position();
      s.parameters = s.search->trial();
      if (s.progress.keeps) s.best = s.position;
      if (s.progress.logs) record(s, s.progress.step, s.position);
    });
  }

  static const double* rates(const System<Real>& s) { return s.schedule.learning_rates.data(); }
  static std::int64_t n_rates(const System<Real>& s) {
    return static_cast<std::int64_t>(s.schedule.learning_rates.size());
  }

  /// Sets the gradient of what must not move to zero, and measures the rest.
  void measure_gradient(System<Real>& s) {
    const std::vector<std::uint8_t>& trainable = s.schedule.trainable;
    for (std::size_t i = 0; i < trainable.size(); ++i)
      if (!trainable[i]) s.gradient[i] = 0;
    s.state.gradient_norm = norm(s.gradient);
  }

  double norm(const std::vector<Real>& values) {
    const View<const Real> v(values);
    return std::sqrt(sum_of(chunk_sums(pool_, static_cast<int>(v.size()), [&](Span span) {
      double sum = 0;
      for (int i = span.begin; i < span.end; ++i) sum += static_cast<double>(v[i]) * static_cast<double>(v[i]);
      return sum;
    })));
  }

  /// The network of the NETWORK component, at the positions of its rays.
  void evaluate_light_network(System<Real>& s) {
    for_each_chunk(pool_, s.n_pixels, [&](int, Span span) {
      Real* const position = s.light_position.data() + span.begin * s.grid.rays_per_pixel();
      ray_kernels<Real>().network_positions(s.scene(), s.rays_of(span), s.light_component, position,
                                            position + s.n_rays);
    });
    s.light_network->forward(s.light_weights(), s.light_position.data(), s.n_rays, s.light_value.data(),
                             s.light_gradient.data());
  }

  /// χ² and its adjoint for correlated noise: w |L⁻¹ r|² and 2 w L⁻ᵀ L⁻¹ r, noise_whitening.hpp (1); √w as in
  /// pixel_weights(). Residuals are whitened in double.
  void correlated_loss(System<Real>& s) {
    std::vector<double> residual;
    for (std::size_t i = 0; i < s.data.size(); ++i)
      if (s.weights.chi2[i] > 0)
        residual.push_back(std::sqrt(static_cast<double>(s.weights.chi2[i])) *
                           (static_cast<double>(s.model_image[i]) - static_cast<double>(s.data[i])));
    s.whitening.whiten(residual.data());
    double sum = 0;
    for (const double z : residual) sum += z * z;
    s.state.loss = s.state.chi2_reduced = sum;
    s.whitening.whiten_adjoint(residual.data());
    auto bar = residual.begin();
    for (std::size_t i = 0; i < s.data.size(); ++i)
      if (s.weights.chi2[i] > 0)
        s.model_bar[i] = static_cast<Real>(2 * std::sqrt(static_cast<double>(s.weights.chi2[i])) * *bar++);
  }

  void render_adjoint(System<Real>& s) {
    s.place_parameters();
    const bool scalars = !s.tables.free.empty(), source_pixels = !s.pixel_sums.empty();
    const std::size_t n_slots = s.tables.table.size(), n_source_pixels = s.tables.pixels.size();
    std::vector<std::vector<double>> table_sums(kChunks);
    std::fill(s.pixel_sums.begin(), s.pixel_sums.end(), 0.0);
    for_each_chunk(pool_, s.n_pixels, [&](int chunk, Span span) {
      const auto k = static_cast<std::size_t>(chunk);
      const int rays = s.grid.rays_per_pixel(), first = span.begin * rays;
      if (rays > 1) fill_ray_bars(s, span);
      if (scalars) table_sums[k].assign(n_slots, 0.0);
      const Real* const brightness_bar = (rays == 1 ? s.image_bar : s.ray_brightness).data() + first;
      Real* const alpha_bar = s.deflection_bar.data() + first;
      ray_kernels<Real>().adjoint(s.scene(), s.rays_of(span), brightness_bar, alpha_bar, alpha_bar + s.n_rays,
                                  scalars ? table_sums[k].data() : nullptr,
                                  source_pixels ? s.pixel_sums.data() + k * n_source_pixels : nullptr,
                                  s.light_network ? s.light_value_bar.data() + first : nullptr);
    });
    if (s.layout.n_light_weights > 0)
      s.light_network->adjoint(s.light_weights(), s.light_position.data(), s.n_rays, s.light_value_bar.data(), nullptr,
                               s.gradient.data() + s.layout.light_weights_offset());

    const View<Real> gradient = View<Real>(s.gradient).from(s.layout.n_network);
    const std::size_t n_free = s.tables.free.size();
    if (scalars) {
      std::vector<Real> table_bar(n_slots);
      for (std::size_t i = 0; i < n_slots; ++i) {
        double sum = 0;
        for (const std::vector<double>& part : table_sums) sum += part[i];
        table_bar[i] = static_cast<Real>(sum);
      }
      tied_adjoint(s.tables.tied.data(), static_cast<int>(s.tables.tied.size()), s.tables.free.data(),
                   table_bar.data());
      for (std::size_t i = 0; i < n_free; ++i)
        gradient[i] += transform_adjoint(s.tables.free.data(), static_cast<int>(i), s.scalars(), table_bar.data());
    }
    for (std::size_t i = 0; i < s.tables.free_pixels.size(); ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < kChunks; ++k)
        sum += s.pixel_sums[k * n_source_pixels + static_cast<std::size_t>(s.tables.free_pixels[i])];
      gradient[n_free + i] += static_cast<Real>(sum);
    }
  }

  ThreadPool pool_;
  std::vector<std::unique_ptr<System<Real>>> systems_;
  Problem shape_;                       ///< the first problem that was loaded: those that replace one have its shape
  std::vector<System<Real>*> working_;  ///< the systems that the stages of a step work on
  StageRun run_;
  bool stage_begun_ = false;
  std::map<int, std::vector<Real>> pending_pairs_;  ///< of searches that have not begun
};

}  // namespace

template <class Real>
std::unique_ptr<Backend<Real>> make_cpu_backend(int threads) {
  return std::make_unique<CpuBackend<Real>>(threads);
}

template <class Real>
std::size_t cpu_planned_bytes(const std::vector<Problem>& problems, int threads) {
  std::size_t bytes = 0;
  for (const Problem& problem : problems) bytes += System<Real>::planned_bytes(problem, threads);
  return bytes;
}

template std::unique_ptr<Backend<float>> make_cpu_backend(int);
template std::unique_ptr<Backend<double>> make_cpu_backend(int);
template std::size_t cpu_planned_bytes<float>(const std::vector<Problem>&, int);
template std::size_t cpu_planned_bytes<double>(const std::vector<Problem>&, int);

}  // namespace einfield
