// All that a backend holds on the device for the problems of one load(): fields, stages, the captured graphs, and the
// stage of a fit that runs.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "einfield/cuda.hpp"
#include "kernels/adam.cuh"
#include "kernels/convolve.cuh"
#include "kernels/lbfgs.cuh"
#include "kernels/network/fields.cuh"
#include "kernels/raii.cuh"
#include "kernels/range.cuh"
#include "kernels/render.cuh"
#include "kernels/stage.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {

/// Sets the sums to which the stages add to zero; one block per system.
static __global__ void zero_sums_kernel(StepState* states) {
  states[blockIdx.x].regularization = states[blockIdx.x].gradient_norm = 0;
}

/// Evaluations that the host enqueues before it looks at the systems: a look costs as much as one of a small network. A
/// record of each may wait for it.
inline constexpr int kEvaluationsPerLook = 16;

/// Numbers that fix the size of the backend's own fields.
struct FieldSizes {
  std::size_t systems, parameters, rays;
  std::size_t free;                 ///< free scalars
  std::size_t light_rays;           ///< `rays` with a NETWORK component, else 0
  std::size_t fixed_light_weights;  ///< of its network, when they are not among the parameters
  std::size_t pixels;               ///< of one image, if the PSF acts on sub-pixels, else 0
};

template <class Real>
struct FieldStorage {
  DeviceBuffer<Real> parameters, gradient, first_moment, second_moment, potential, deflection, deflection_bar;
  DeviceBuffer<Real> light_weights, light_position, light_value, light_gradient, light_value_bar;
  // Of a stage of a fit.
  DeviceBuffer<Real> best, previous_parameters, previous_first_moment, previous_second_moment;
  DeviceBuffer<StageProgress> progress;
  DeviceBuffer<int> list;  ///< the systems that are not done
  DeviceBuffer<RecordHead> record_heads;
  DeviceBuffer<Real> record_free;
  DeviceBuffer<Real> pixels;  ///< an image on its way from or to sub-pixels

  template <class Take>
  void each(Take&& take, const FieldSizes& s) {
    for (DeviceBuffer<Real>* vectors : {&parameters, &gradient, &first_moment, &second_moment, &best,
                                        &previous_parameters, &previous_first_moment, &previous_second_moment})
      take(*vectors, s.systems * s.parameters);
    take(progress, s.systems);
    take(list, s.systems);
    take(record_heads, s.systems * kEvaluationsPerLook);
    take(record_free, s.systems * kEvaluationsPerLook * s.free);
    take(potential, s.systems * s.rays);
    for (DeviceBuffer<Real>* vectors : {&deflection, &deflection_bar}) take(*vectors, s.systems * 2 * s.rays);
    take(light_weights, s.systems * s.fixed_light_weights);
    for (DeviceBuffer<Real>* vectors : {&light_position, &light_gradient}) take(*vectors, s.systems * 2 * s.light_rays);
    for (DeviceBuffer<Real>* vectors : {&light_value, &light_value_bar}) take(*vectors, s.systems * s.light_rays);
    take(pixels, s.pixels);
  }
};

inline std::vector<Model> models_of(const std::vector<Problem>& problems) {
  std::vector<Model> models;
  for (const Problem& p : problems) models.push_back(p.model);
  return models;
}

inline std::vector<Psf> psfs_of(const std::vector<Problem>& problems) {
  std::vector<Psf> psfs;
  for (const Problem& p : problems) psfs.push_back(p.observation.psf);
  return psfs;
}

/// Until begin(): one row per system.
inline std::vector<std::vector<double>> first_learning_rates(const std::vector<Problem>& problems) {
  return std::vector<std::vector<double>>(problems.size(), Schedule{}.learning_rates);
}

inline FieldSizes field_sizes(const std::vector<Problem>& problems) {
  const Problem& first = problems.front();
  const ParameterLayout layout(first.model);
  const auto rays = static_cast<std::size_t>(first.observation.grid.n_rays());
  return {problems.size(),
          layout.size(),
          rays,
          layout.n_free(),
          layout.light_weights.empty() ? 0 : rays,
          layout.light_weights.size() - layout.n_light_weights,
          first.observation.psf.supersampling > 1 ? static_cast<std::size_t>(first.observation.grid.n_pixels()) : 0};
}

/// validate_problems() and the further conditions of the device, where all systems share their rays.
inline void validate(const std::vector<Problem>& problems) {
  validate_problems(problems);
  const Problem& first = problems.front();
  EINFIELD_REQUIRE(ParameterLayout(first.model).size() > 0,
                   "a model without a free parameter on a CUDA device, expected the CPU backend");
  for (const Problem& p : problems) {
    const Grid &a = first.observation.grid, &b = p.observation.grid;
    EINFIELD_REQUIRE(a.pixel_scale == b.pixel_scale && a.center_x == b.center_x && a.center_y == b.center_y,
                     "systems with different pixel scales or centers, expected one grid on a CUDA device");
    EINFIELD_REQUIRE(!p.model.network || p.model.network->input_scale == first.model.network->input_scale,
                     "networks with different input scales, expected one on a CUDA device");
  }
}

template <class Real>
std::size_t planned_bytes(const std::vector<Problem>& problems, int pairs) {
  const Problem& first = problems.front();
  const Grid& grid = first.observation.grid;
  const FieldSizes sizes = field_sizes(problems);
  std::size_t bytes =
      planned_bytes_of<FieldStorage<Real>>(sizes) + RenderStage<Real>::workspace_bytes(grid, models_of(problems)) +
      ConvolutionStage<Real>::workspace_bytes(grid.ny, grid.nx, psfs_of(problems)) +
      LikelihoodStage<Real>::workspace_bytes(problems) + RegularizationStage<Real>::workspace_bytes(problems) +
      AdamStage<Real>::workspace_bytes(sizes.parameters, sizes.systems, first_learning_rates(problems)[0].size());
  if (first.model.network)
    bytes += NetworkFieldsStage<Real>::planned_bytes(*first.model.network) +
             NetworkStage<Real>::workspace_bytes(*first.model.network, grid.n_rays(), static_cast<int>(problems.size()),
                                                 first.network_math);
  if (pairs > 0) bytes += SearchStage<Real>::planned_bytes(sizes.systems, sizes.parameters, pairs);
  if (const LightComponent* const light = network_light(first.model))
    bytes += NetworkStage<Real>::workspace_bytes(light->network, grid.n_rays(), static_cast<int>(problems.size()));
  return bytes;
}

/// Everything that belongs to the problems of one load().
template <class Real>
class Training {
 public:
  Training(const std::vector<Problem>& problems, cudaStream_t stream)
      : shape_(problems.front()),
        layout_(shape_.model),
        sizes_(field_sizes(problems)),
        nx_(problems.front().observation.grid.nx),
        ny_(problems.front().observation.grid.ny),
        psf_supersampling_(problems.front().observation.psf.supersampling),
        stream_(stream),
        render_(problems.front().observation.grid, models_of(problems), sizes_.parameters, stream, psf_supersampling_),
        convolution_(ny_, nx_, psfs_of(problems), stream),
        likelihood_(problems, stream),
        regularization_(problems, stream),
        adam_(sizes_.parameters, sizes_.parameters, first_learning_rates(problems), stream),
        queue_(stream) {
    allocate_all(fields_, stream, sizes_);
    if (problems.front().model.network) network_fields_.emplace(*problems.front().model.network);
    if (problems.front().model.network)
      network_.emplace(*problems.front().model.network, static_cast<int>(sizes_.rays), static_cast<int>(sizes_.systems),
                       problems.front().network_math);
    if (const LightComponent* const light = network_light(problems.front().model))
      light_network_.emplace(light->network, static_cast<int>(sizes_.rays), static_cast<int>(sizes_.systems));
    std::vector<Real> parameters, light_weights;
    for (const Problem& p : problems) {
      for (const double v : p.initial_parameters) parameters.push_back(static_cast<Real>(v));
      if (sizes_.fixed_light_weights > 0)
        for (const double v : network_light(p.model)->weights) light_weights.push_back(static_cast<Real>(v));
    }
    fields_.parameters.upload(parameters, stream);
    fields_.light_weights.upload(light_weights, stream);
    synchronize();  // the vectors end here
  }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;
  /// Work that still runs must not meet freed memory.
  ~Training() { EINFIELD_CUDA_NOEXCEPT(cudaStreamSynchronize(stream_)); }

  int systems() const { return static_cast<int>(sizes_.systems); }
  const ParameterLayout& layout() const { return layout_; }
  void synchronize() const { EINFIELD_CUDA(cudaStreamSynchronize(stream_)); }

  void upload(Field field, std::size_t system, const std::vector<Real>& values) {
    const Place place = place_of(field, system);
    EINFIELD_REQUIRE(values.size() == place.size(), "a field of " + std::to_string(place.size()) +
                                                        " values cannot take " + std::to_string(values.size()));
    copy(place.data, place.row_stride, values.data(), place.width, place, cudaMemcpyHostToDevice);
    if (!on_subpixels(field)) return;
    const int f = psf_supersampling_;
    to_subpixels<Real>(stream_, 1, pixels(), ny_, nx_, f, static_cast<Real>(field == Field::image ? f * f : 1),
                       subpixels(field, system));
  }
  std::vector<Real> download(Field field, std::size_t system) {
    const Place place = place_of(field, system);
    std::vector<Real> values(place.size());
    const int f = psf_supersampling_;
    if (on_subpixels(field))
      to_pixels<Real>(stream_, 1, subpixels(field, system), f, static_cast<Real>(field == Field::image ? 1 : f * f),
                      pixels(), ny_, nx_);
    copy(values.data(), place.width, place.data, place.row_stride, place, cudaMemcpyDeviceToHost);
    return values;
  }
  /// A field of all systems: one copy, or one per system where the stages hold sub-pixels.
  void upload(Field field, const std::vector<Real>& values) {
    const std::size_t size = place_of(field, 0).size();
    EINFIELD_REQUIRE(values.size() == size * sizes_.systems, "a field of " + std::to_string(size * sizes_.systems) +
                                                                 " values of all systems cannot take " +
                                                                 std::to_string(values.size()));
    if (const std::optional<Place> all = place_of_all(field)) {
      copy(all->data, all->row_stride, values.data(), all->width, *all, cudaMemcpyHostToDevice);
      return;
    }
    for (std::size_t i = 0; i < sizes_.systems; ++i)
      upload(field, i, {values.data() + i * size, values.data() + (i + 1) * size});
  }
  std::vector<Real> download(Field field) {
    const std::size_t size = place_of(field, 0).size();
    std::vector<Real> values(size * sizes_.systems);
    if (const std::optional<Place> all = place_of_all(field)) {
      copy(values.data(), all->width, all->data, all->row_stride, *all, cudaMemcpyDeviceToHost);
      return values;
    }
    for (std::size_t i = 0; i < sizes_.systems; ++i) {
      const std::vector<Real> one = download(field, i);
      std::copy(one.begin(), one.end(), values.begin() + static_cast<std::ptrdiff_t>(i * size));
    }
    return values;
  }
  void set_updates(std::int64_t updates) { adam_.set_updates(stream_, updates); }
  void replace(std::size_t system, const Problem& problem) {
    validate(std::vector<Problem>{shape_, problem});
    regularization_.replace(stream_, system, problem);  // first: it may refuse
    render_.replace(stream_, system, problem.model);
    convolution_.replace(stream_, system, problem.observation.psf);
    likelihood_.replace(stream_, system, problem);
    upload(Field::parameters, system, {problem.initial_parameters.begin(), problem.initial_parameters.end()});
    if (!network_) upload(Field::deflection, system, std::vector<Real>(2 * sizes_.rays));
    forget_updates(system);
    if (sizes_.fixed_light_weights > 0) {
      const std::vector<double>& weights = network_light(problem.model)->weights;
      const std::vector<Real> values(weights.begin(), weights.end());
      fields_.light_weights.upload(values.data(), values.size(), stream_, system * values.size());
      synchronize();
    }
    if (progress_.empty()) return;
    fetch_progress();
    progress_[system].done = true;
    fields_.progress.upload(progress_.data() + system, 1, stream_, system);
    rows_ = 0;
    list_running();
  }
  void begin(const Schedule& schedule) {
    for (Graph* graph : {&step_, &evaluation_, &values_}) *graph = {};  // they hold addresses of the schedule before
    of_rows_.clear();
    adam_.begin(stream_, schedule);
    fields_.first_moment.zero(stream_);
    fields_.second_moment.zero(stream_);
  }
  /// Copies on a second stream: it waits for the work that is enqueued already, and later work does not wait for it.
  std::vector<StepState> states(std::size_t first, std::size_t count) {
    computed_.record(stream_);
    EINFIELD_CUDA(cudaStreamWaitEvent(copies_.get(), computed_.get(), 0));
    EINFIELD_CUDA(cudaMemcpyAsync(fetched_.get(), adam_.states().data() + first, count * sizeof(StepState),
                                  cudaMemcpyDeviceToHost, copies_.get()));
    copies_.synchronize();
    return {fetched_.get(), fetched_.get() + count};
  }

  NetworkFields<Real> network_fields(std::size_t system, const std::vector<Real>& theta) {
    const std::size_t n = theta.size() / 2;
    if (!network_fields_) return {std::vector<Real>(n), std::vector<Real>(2 * n), std::vector<Real>(n)};
    return network_fields_->evaluate(stream_, fields_.parameters.get() + system * sizes_.parameters, theta);
  }

  void network() {
    if (network_)
      network_->forward(queue_, fields_.parameters, sizes_.parameters, render_.positions(), fields_.potential,
                        fields_.deflection);
  }
  void render() {
    if (light_network_) {
      render_.network_positions(queue_, fields_.parameters, alpha_nn(), fields_.light_position);
      light_network_->forward(queue_, light_weights(), light_stride(), fields_.light_position, fields_.light_value,
                              fields_.light_gradient);
    }
    render_.forward(queue_, fields_.parameters, alpha_nn(), convolution_.image(), light());
  }
  void convolve() { convolution_.forward(queue_); }
  void loss() {
    likelihood_.evaluate(queue_, convolution_.model(), convolution_.model_bar(), adam_.states(),
                         adam_.learning_rates());
  }
  void convolve_adjoint() { convolution_.adjoint(queue_); }
  void zero_gradient() { fields_.gradient.zero(stream_); }
  /// For an evaluation that is put together from stages: within a step, loss() does this.
  void zero_sums() {
    zero_sums_kernel<<<static_cast<unsigned>(sizes_.systems), 1, 0, stream_>>>(adam_.states().data());
    EINFIELD_LAUNCH_CHECK();
  }
  void render_adjoint() {
    render_.adjoint(queue_, fields_.parameters, alpha_nn(), convolution_.image_bar(), fields_.deflection_bar,
                    fields_.gradient, light());
    if (layout_.n_light_weights > 0)
      light_network_->adjoint(queue_, light_weights(), light_stride(), fields_.light_position, {},
                              View<Real>(fields_.gradient).from(layout_.light_weights_offset()),
                              fields_.light_value_bar);
  }
  void regularize() {
    regularization_.apply(queue_, render_, fields_.parameters, fields_.deflection, fields_.deflection_bar,
                          fields_.gradient, adam_.states());
  }
  void network_adjoint() {
    if (network_)
      network_->adjoint(queue_, fields_.parameters, sizes_.parameters, render_.positions(), fields_.deflection_bar,
                        fields_.gradient);
  }
  void adam() {
    adam_.apply(queue_, fields_.gradient, fields_.parameters, fields_.first_moment, fields_.second_moment);
  }
  void gradient_norm() { adam_.gradient_norm(queue_, fields_.gradient); }

  void forward() {
    network();
    render();
    convolve();
    loss();
  }
  void backward() {
    zero_gradient();
    convolve_adjoint();
    render_adjoint();
    regularize();
    network_adjoint();
  }
  void step() {
    launch(step_, "einfield step", [this] {
      forward();
      backward();
      adam();
    });
  }
  void evaluate(bool with_gradient) {
    if (with_gradient)
      launch(evaluation_, "einfield evaluation", [this] {
        forward();
        backward();
        gradient_norm();
      });
    else
      launch(values_, "einfield values", [this] {
        forward();
        zero_gradient();
        regularize();  // for its value
      });
  }

  /// Frees what a stage before had for another number of pairs. @return bytes that begin_stage() will allocate
  std::size_t make_room(const StageRun& run) {
    if (run.optimizer != OptimizerKind::lbfgs) return 0;
    const int memory = pairs_kept(run.memory, run.stop.steps);
    if (search_ && memory_ == memory) return 0;
    search_.reset();
    rows_ = 0;  // a stage that cannot begin leaves none
    memory_ = memory;
    return SearchStage<Real>::planned_bytes(sizes_.systems, sizes_.parameters, memory);
  }
  /// make_room() comes first.
  void begin_stage(const StageRun& run, const std::vector<StageStart<Real>>& starts) {
    run_ = run;
    begin(run.schedule);
    adam_runs_ = run.optimizer == OptimizerKind::adam;
    stage_ = {fields_.progress.get(),
              fields_.list.get(),
              run.stop,
              run.log_every,
              sizes_.parameters,
              fields_.best.get(),
              fields_.record_heads.get(),
              fields_.record_free.get(),
              kEvaluationsPerLook,
              layout_.n_network,
              sizes_.free};
    progress_.assign(sizes_.systems, {});
    records_read_.assign(sizes_.systems, 0);
    if (!adam_runs_ && !search_) search_.emplace(sizes_.systems, sizes_.parameters, memory_, stream_);
    enter(0, starts);
  }
  void begin_stage(std::size_t system, const StageStart<Real>& start) {
    EINFIELD_REQUIRE(!progress_.empty(), "begin_stage(system) before begin_stage(run, starts)");
    validate_start(run_, start, sizes_.parameters);
    fetch_progress();
    forget_updates(system);
    enter(system, {start});
  }

  void advance(int evaluations) {
    if (rows_ == 0) return;
    for (; evaluations > 0; --evaluations) {
      queue_ = {stream_, View<const int>(fields_.list).from(0, rows_)};
      convolution_.prepare(stream_, queue_.n_systems);
      launch(of_rows_[rows_], "einfield evaluation and move", [this] {
        forward();
        backward();
        if (adam_runs_)
          AdamAccess::follow(adam_, queue_,
                             {fields_.gradient.get(), fields_.parameters.get(), fields_.first_moment.get(),
                              fields_.second_moment.get(), fields_.previous_parameters.get(),
                              fields_.previous_first_moment.get(), fields_.previous_second_moment.get()},
                             stage_);
        else
          search_->follow(queue_, fields_.gradient.get(), fields_.parameters.get(), AdamAccess::trainable(adam_),
                          adam_.states().data(), stage_);
      });
      queue_ = {stream_};
    }
  }

  std::vector<StageProgress> look(std::vector<std::vector<StageRecord>>& records) {
    const Range range("einfield look");
    const std::size_t n = sizes_.systems, free = sizes_.free;
    if (looked_.progress.size() == 0) looked_ = Looked(sizes_);
    fields_.progress.download(looked_.progress.get(), n, stream_);
    fields_.record_heads.download(looked_.heads.get(), looked_.heads.size(), stream_);
    fields_.record_free.download(looked_.free.get(), looked_.free.size(), stream_);
    synchronize();
    progress_.assign(looked_.progress.get(), looked_.progress.get() + n);
    records.resize(n);
    for (std::size_t i = 0; i < n; ++i)
      for (; records_read_[i] < progress_[i].records; ++records_read_[i]) {
        const std::size_t at =
            i * kEvaluationsPerLook + static_cast<std::size_t>(records_read_[i]) % kEvaluationsPerLook;
        const Real* const u = looked_.free.get() + at * free;
        records[i].push_back({looked_.heads[at].step, looked_.heads[at].state, {u, u + free}});
      }
    list_running();
    return progress_;
  }
  std::vector<std::vector<Real>> pairs() const {
    if (search_ && !adam_runs_) return search_->pairs(stream_);
    return std::vector<std::vector<Real>>(sizes_.systems);
  }

 private:
  /// What look() fetches, in page-locked memory.
  struct Looked {
    PinnedBuffer<StageProgress> progress;
    PinnedBuffer<RecordHead> heads;
    PinnedBuffer<Real> free;
    Looked() = default;
    explicit Looked(const FieldSizes& s)
        : progress(s.systems), heads(s.systems * kEvaluationsPerLook), free(s.systems * kEvaluationsPerLook * s.free) {}
  };

  /// A field of one system: rows of `width` elements.
  struct Place {
    Real* data;
    std::size_t width, rows, row_stride;
    std::size_t size() const { return width * rows; }
  };
  Place place_of(Field field, std::size_t system) const {
    const auto vector = [this, system](const DeviceBuffer<Real>& buffer) {
      const std::size_t size = buffer.size() / sizes_.systems;
      return Place{buffer.get() + system * size, size, 1, size};
    };
    const auto image = [this, system](const ImageView<Real>& view) {
      return Place{view.data + system * view.system_stride, static_cast<std::size_t>(nx_),
                   static_cast<std::size_t>(ny_), view.row_stride};
    };
    if (on_subpixels(field)) return {fields_.pixels.get(), sizes_.pixels, 1, sizes_.pixels};
    switch (field) {
      case Field::parameters:
        return vector(fields_.parameters);
      case Field::gradient:
        return vector(fields_.gradient);
      case Field::first_moment:
        return vector(fields_.first_moment);
      case Field::second_moment:
        return vector(fields_.second_moment);
      case Field::best:
        return vector(fields_.best);
      case Field::position:
        EINFIELD_REQUIRE(search_, "Field::position without a stage of L-BFGS");
        return vector(search_->position());
      case Field::previous_parameters:
        return vector(fields_.previous_parameters);
      case Field::previous_first_moment:
        return vector(fields_.previous_first_moment);
      case Field::previous_second_moment:
        return vector(fields_.previous_second_moment);
      case Field::potential:
        return vector(fields_.potential);
      case Field::deflection:
        return vector(fields_.deflection);
      case Field::image:
        return image(convolution_.image());
      case Field::model:
        return image(convolution_.model());
      case Field::model_bar:
        return image(convolution_.model_bar());
      case Field::image_bar:
        return image(convolution_.image_bar());
      case Field::deflection_bar:
        return vector(fields_.deflection_bar);
    }
    throw InvalidInput("an unknown field");
  }
  /// A field of all systems, whose rows lie at one distance; nothing for a field on sub-pixels.
  std::optional<Place> place_of_all(Field field) const {
    if (on_subpixels(field)) return std::nullopt;
    Place all = place_of(field, 0);
    if (sizes_.systems > 1 && place_of(field, 1).data != all.data + all.rows * all.row_stride) return std::nullopt;
    all.rows *= sizes_.systems;
    return all;
  }
  /// Whether the stages hold this field on sub-pixels; it is copied by way of pixels().
  bool on_subpixels(Field field) const {
    return psf_supersampling_ > 1 && (field == Field::image || field == Field::image_bar);
  }
  ImageView<Real> pixels() const { return dense_images<Real>(fields_.pixels, ny_, nx_); }
  ImageView<Real> subpixels(Field field, std::size_t system) const {
    const ImageView<Real> view = field == Field::image ? convolution_.image() : convolution_.image_bar();
    return {View<Real>(view.data, view.size).from(system * view.system_stride), view.row_stride, view.system_stride};
  }
  /// Launches the work of a graph, which is captured the first time. Before the first of all, an evaluation runs
  /// without capture: the kernels are loaded when they are first used, which a capture should not have to do.
  template <class Work>
  void launch(Graph& graph, const char* name, Work&& work) {
    const Range range(name);
#ifdef EINFIELD_SYNC_CHECKS
    work();  // every launch waits: nothing that a capture could hold
#else
    if (graph.empty()) {
      if (!std::exchange(warm_, true)) {
        forward();
        backward();
      }
      graph = Graph::capture(stream_, work);
    }
    graph.launch(stream_);
#endif
  }

  void fetch_progress() {
    fields_.progress.download(progress_.data(), progress_.size(), stream_);
    synchronize();
  }
  /// Moments and state of Adam of one system.
  void forget_updates(std::size_t system) {
    const std::vector<Real> zero(sizes_.parameters);
    upload(Field::first_moment, system, zero);
    upload(Field::second_moment, system, zero);
    const StepState state;
    EINFIELD_CUDA(
        cudaMemcpyAsync(adam_.states().data() + system, &state, sizeof state, cudaMemcpyHostToDevice, stream_));
    synchronize();  // `state` ends here
  }

  /// Enters the systems from `first` on into the stage.
  void enter(std::size_t first, const std::vector<StageStart<Real>>& starts) {
    std::vector<StepState> states(starts.size());
    std::vector<std::vector<Real>> pairs;
    for (std::size_t i = 0; i < starts.size(); ++i) {
      StageProgress& progress = progress_[first + i] = {};
      progress.step = starts[i].step;
      progress.watch = starts[i].watch;
      progress.done = !starts[i].runs;
      if (adam_runs_) states[i].updates = starts[i].step;
      pairs.push_back(starts[i].pairs);
      records_read_[first + i] = 0;
    }
    EINFIELD_CUDA(cudaMemcpyAsync(adam_.states().data() + first, states.data(), states.size() * sizeof(StepState),
                                  cudaMemcpyHostToDevice, stream_));
    fields_.progress.upload(progress_.data() + first, starts.size(), stream_, first);
    if (!adam_runs_) search_->begin(stream_, first, pairs);
    rows_ = 0;
    list_running();
  }

  /// Lists the systems that are not done. The rows of the grid are a power of two, so that few graphs are captured.
  /// Waits for the stream when the list changes.
  void list_running() {
    std::vector<int> running;
    for (std::size_t i = 0; i < progress_.size(); ++i)
      if (!progress_[i].done) running.push_back(static_cast<int>(i));
    if (rows_ > 0 && running.size() == running_) return;
    running_ = running.size();
    rows_ = running.empty() ? 0 : 1;
    while (rows_ < running.size()) rows_ *= 2;
    rows_ = std::min(rows_, static_cast<unsigned>(sizes_.systems));
    running.resize(sizes_.systems, -1);
    fields_.list.upload(running, stream_);
    synchronize();  // `running` ends here
  }

  void copy(Real* to, std::size_t to_stride, const Real* from, std::size_t from_stride, const Place& place,
            cudaMemcpyKind kind) {
    EINFIELD_CUDA(cudaMemcpy2DAsync(to, to_stride * sizeof(Real), from, from_stride * sizeof(Real),
                                    place.width * sizeof(Real), place.rows, kind, stream_));
    synchronize();
  }
  /// Zero without a network, unless the caller has uploaded a deflection of their own.
  View<const Real> alpha_nn() const {
    return fields_.deflection;
  }
  /// Weights of the NETWORK component's network: system k's begin at k · light_stride().
  View<const Real> light_weights() const {
    if (sizes_.fixed_light_weights > 0) return fields_.light_weights;
    return View<const Real>(fields_.parameters).from(layout_.light_weights_offset());
  }
  std::size_t light_stride() const {
    return sizes_.fixed_light_weights > 0 ? sizes_.fixed_light_weights : sizes_.parameters;
  }
  NetworkLight<Real> light() const {
    if (!light_network_) return {};
    return {fields_.light_value, fields_.light_gradient, fields_.light_value_bar};
  }

  Problem shape_;  ///< the first problem: those that replace one have its shape
  ParameterLayout layout_;
  FieldSizes sizes_;
  int nx_, ny_, psf_supersampling_;
  cudaStream_t stream_;
  FieldStorage<Real> fields_;
  RenderStage<Real> render_;
  ConvolutionStage<Real> convolution_;
  LikelihoodStage<Real> likelihood_;
  RegularizationStage<Real> regularization_;
  AdamStage<Real> adam_;
  std::optional<NetworkStage<Real>> network_;
  std::optional<NetworkFieldsStage<Real>> network_fields_;
  std::optional<NetworkStage<Real>> light_network_;  ///< of the NETWORK component
  Queue queue_;                                      ///< what the stages of a step work on
  Graph step_, evaluation_, values_;
  bool warm_ = false;  ///< the kernels are loaded

  // A stage of a fit.
  StageRun run_;
  bool adam_runs_ = true;
  StageArrays<Real> stage_;
  std::optional<SearchStage<Real>> search_;
  int memory_ = 0;                       ///< pairs that the search keeps
  std::size_t running_ = 0;              ///< systems that were not done at the last look
  unsigned rows_ = 0;                    ///< of the grids
  std::map<unsigned, Graph> of_rows_;    ///< an evaluation and its decision
  std::vector<StageProgress> progress_;  ///< at the last look; empty before the first stage
  std::vector<std::int64_t> records_read_;
  Looked looked_;

  Stream copies_;
  Event computed_;
  PinnedBuffer<StepState> fetched_{sizes_.systems};
};

}  // namespace einfield::cuda
