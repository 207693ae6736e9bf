// Adam (Kingma & Ba 2015) on flat vectors, one thread per parameter around adam.hpp. The gradient's norm comes first:
// it decides on the device whether a system takes the step. If a number is not finite, the system keeps its last good
// state.
#include "kernels/adam.cuh"

#include <algorithm>

#include "kernels/arguments.cuh"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// What follows the sum of a gradient norm.
enum class Next {
  nothing,
  update,  ///< decide on an update of Adam
  follow,  ///< judge the state first: a step of a stage
};

/// Zeroes the gradient of what is not to be moved, and takes the Euclidean norm of the rest, system by system. The last
/// block of a system decides what follows.
/// @param trainable  [n], or null: all are moved
/// @param partial    [systems][blocks]
template <class Real>
__global__ void __launch_bounds__(kThreads, 4)
    gradient_norm_kernel(const int* list, Real* gradient, std::size_t parameter_stride, std::size_t n,
                         const unsigned char* trainable, Next next, StageArrays<Real> stage, LearningRates rates,
                         StepState* states, double* partial, unsigned* tickets) {
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  gradient += system * parameter_stride;
  double sum[1] = {0};
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    if (trainable != nullptr && trainable[i] == 0) gradient[i] = 0;
    const auto g = static_cast<double>(gradient[i]);
    sum[0] += g * g;
  }
  block_sum(sum);
  partial += system * gridDim.x;
  if (threadIdx.x == 0) partial[blockIdx.x] = sum[0];
  if (!is_last_block(tickets + system, gridDim.x)) return;

  sum[0] = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads) sum[0] += __ldcg(partial + b);
  block_sum(sum);
  if (threadIdx.x != 0) return;
  StepState& state = states[system];
  state.gradient_norm = sqrt(sum[0]);
  const double* const own_rates = rates.values.data() + static_cast<std::int64_t>(system) * rates.count;
  if (next == Next::update) decide_update(state, own_rates, rates.count);
  if (next != Next::follow) return;
  const std::int64_t step = state.updates;
  follow_adam(stage.progress[system], state, stage.stop, stage.log_every, own_rates, rates.count);
  if (stage.progress[system].logs) stage.begin_record(system, step);
}

/// The update that gradient_norm_kernel has decided on and counted.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const int* list, AdamVectors<Real> vectors, std::size_t parameter_stride, std::size_t n,
                double clip_norm, const StepState* states, StageArrays<Real> stage, unsigned* tickets) {
  __shared__ AdamStep<Real> step;
  __shared__ Real scale;
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const StageProgress* const progress = stage.progress != nullptr ? stage.progress + system : nullptr;
  const bool moves = progress != nullptr ? !progress->done : states[system].bad_step == 0;
  if (threadIdx.x == 0) {  // also of a system that rests: the numbers are read in any case
    step = moves ? make_adam_step<Real>(states[system].learning_rate, states[system].updates) : AdamStep<Real>{};
    scale = static_cast<Real>(clip_factor(clip_norm, states[system].gradient_norm));
  }
  __syncthreads();
  const std::size_t first = system * parameter_stride;
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    if (progress != nullptr) {
      stage.keep(*progress, system, i, vectors.parameters[first + i]);
      if (moves) {
        vectors.previous_parameters[system * n + i] = vectors.parameters[first + i];
        vectors.previous_first_moment[system * n + i] = vectors.first_moment[first + i];
        vectors.previous_second_moment[system * n + i] = vectors.second_moment[first + i];
      }
    }
    if (moves)
      adam_update(step, scale * vectors.gradient[first + i], vectors.parameters[first + i],
                  vectors.first_moment[first + i], vectors.second_moment[first + i]);
  }
  if (progress != nullptr) stage.leave(*progress, blockIdx.y, tickets + system);
}

struct AdamSizes {
  std::size_t parameters, systems, rates;
  unsigned blocks() const { return sum_blocks(static_cast<int>(std::min<std::size_t>(parameters, 1 << 30))); }
};

struct AdamStorage {
  DeviceBuffer<StepState> states;
  DeviceBuffer<double> rates, partial;
  DeviceBuffer<unsigned> tickets;
  template <class Take>
  void each(Take&& take, const AdamSizes& s) {
    take(states, s.systems);
    take(rates, s.systems * s.rates);
    take(partial, s.systems * s.blocks());
    take(tickets, s.systems);
  }
};

}  // namespace

template <class Real>
struct AdamStage<Real>::Impl {
  StageDevice device;
  AdamSizes sizes;
  std::size_t stride;
  AdamStorage storage;
  DeviceBuffer<unsigned char> trainable;  ///< empty: all
  double clip_norm = 0;

  Impl(std::size_t n_parameters, std::size_t parameter_stride, const std::vector<std::vector<double>>& learning_rates,
       cudaStream_t stream, Workspace workspace)
      : sizes{n_parameters, learning_rates.size(), learning_rates.empty() ? 0 : learning_rates.front().size()},
        stride(parameter_stride) {
    EINFIELD_REQUIRE(n_parameters > 0 && parameter_stride >= n_parameters,
                     "Adam: " + std::to_string(n_parameters) + " parameters at a stride of " +
                         std::to_string(parameter_stride) + ", expected > 0 and no overlap");
    EINFIELD_REQUIRE(sizes.systems > 0 && sizes.systems <= 65535 && sizes.rates > 0,
                     "Adam: " + std::to_string(sizes.systems) + " systems with " + std::to_string(sizes.rates) +
                         " learning rates, expected 1 ... 65535 systems with at least one");
    std::vector<double> rates;
    for (const std::vector<double>& row : learning_rates) {
      EINFIELD_REQUIRE(row.size() == sizes.rates, "Adam: learning rates of different lengths, expected one length");
      rates.insert(rates.end(), row.begin(), row.end());
    }
    BufferSource source("Adam", workspace, workspace_bytes_of<AdamStorage>(sizes));
    take_all(source, storage, stream, sizes);
    storage.rates.upload(rates, stream);
    set_updates(stream, 0);
  }

  void begin(cudaStream_t stream, const Schedule& schedule) {
    std::vector<double> rates;
    for (std::size_t system = 0; system < sizes.systems; ++system)
      rates.insert(rates.end(), schedule.learning_rates.begin(), schedule.learning_rates.end());
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // buffers may be replaced
    sizes.rates = schedule.learning_rates.size();
    if (storage.rates.size() < rates.size()) storage.rates = DeviceBuffer<double>(rates.size());
    storage.rates.upload(rates.data(), rates.size(), stream);
    if (trainable.size() != schedule.trainable.size())
      trainable = DeviceBuffer<unsigned char>(schedule.trainable.size());
    trainable.upload(schedule.trainable, stream);
    clip_norm = schedule.clip_norm;
    set_updates(stream, 0);  // waits for the copies
  }

  void set_updates(cudaStream_t stream, std::int64_t updates) {
    StepState state;
    state.updates = updates;
    const std::vector<StepState> states(sizes.systems, state);
    storage.states.upload(states, stream);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // `states` ends here
  }

  dim3 grid(const Queue& queue) const { return dim3(sizes.blocks(), rows_of(queue, sizes.systems)); }
  LearningRates rates() const {
    return {{storage.rates.get(), sizes.systems * sizes.rates}, static_cast<int>(sizes.rates)};
  }
  void require_vector(const char* name, View<Real> vector) const {
    require_vectors("Adam", name, vector, sizes.systems, stride, sizes.parameters);
  }
  void norm(const Queue& queue, Real* gradient, Next next, const StageArrays<Real>& stage = {}) {
    gradient_norm_kernel<<<grid(queue), kThreads, 0, queue.stream>>>(
        queue.systems, gradient, stride, sizes.parameters, trainable.get(), next, stage, rates(), storage.states.get(),
        storage.partial.get(), storage.tickets.get());
    EINFIELD_LAUNCH_CHECK();
  }
  void update(const Queue& queue, const AdamVectors<Real>& vectors, const StageArrays<Real>& stage = {}) {
    adam_kernel<<<grid(queue), kThreads, 0, queue.stream>>>(queue.systems, vectors, stride, sizes.parameters, clip_norm,
                                                            storage.states.get(), stage, storage.tickets.get());
    EINFIELD_LAUNCH_CHECK();
  }
};

template <class Real>
AdamStage<Real>::AdamStage(std::size_t n_parameters, std::size_t parameter_stride,
                           const std::vector<std::vector<double>>& learning_rates, cudaStream_t stream,
                           Workspace workspace)
    : impl_(std::make_unique<Impl>(n_parameters, parameter_stride, learning_rates, stream, workspace)) {}
template <class Real>
AdamStage<Real>::~AdamStage() = default;
template <class Real>
AdamStage<Real>::AdamStage(AdamStage&&) noexcept = default;
template <class Real>
AdamStage<Real>& AdamStage<Real>::operator=(AdamStage&&) noexcept = default;

template <class Real>
std::size_t AdamStage<Real>::workspace_bytes(std::size_t n_parameters, std::size_t n_systems,
                                             std::size_t n_learning_rates) {
  return workspace_bytes_of<AdamStorage>(AdamSizes{n_parameters, n_systems, n_learning_rates});
}
template <class Real>
View<StepState> AdamStage<Real>::states() const {
  return impl_->storage.states;
}
template <class Real>
LearningRates AdamStage<Real>::learning_rates() const {
  return impl_->rates();
}
template <class Real>
void AdamStage<Real>::gradient_norm(const Queue& queue, View<Real> gradient) {
  impl_->device.require_current("Adam");
  impl_->require_vector("gradient", gradient);
  impl_->norm(queue, gradient.data(), Next::nothing);
}
template <class Real>
void AdamStage<Real>::apply(const Queue& queue, View<Real> gradient, View<Real> parameters, View<Real> first_moment,
                            View<Real> second_moment) {
  impl_->device.require_current("Adam");
  impl_->require_vector("gradient", gradient);
  impl_->require_vector("parameters", parameters);
  impl_->require_vector("first_moment", first_moment);
  impl_->require_vector("second_moment", second_moment);
  impl_->norm(queue, gradient.data(), Next::update);
  impl_->update(queue, {gradient.data(), parameters.data(), first_moment.data(), second_moment.data(), nullptr, nullptr,
                        nullptr});
}
template <class Real>
void AdamStage<Real>::begin(cudaStream_t stream, const Schedule& schedule) {
  validate_schedule(schedule, impl_->sizes.parameters);
  impl_->device.require_current("Adam");
  impl_->begin(stream, schedule);
}
template <class Real>
void AdamStage<Real>::set_updates(cudaStream_t stream, std::int64_t updates) {
  impl_->device.require_current("Adam");
  impl_->set_updates(stream, updates);
}

template <class Real>
void AdamAccess::follow(AdamStage<Real>& adam, const Queue& queue, const AdamVectors<Real>& v,
                        const StageArrays<Real>& stage) {
  adam.impl_->norm(queue, v.gradient, Next::follow, stage);
  adam.impl_->update(queue, v, stage);
}
template <class Real>
View<const unsigned char> AdamAccess::trainable(const AdamStage<Real>& adam) {
  return {adam.impl_->trainable.get(), adam.impl_->trainable.size()};
}

template void AdamAccess::follow(AdamStage<float>&, const Queue&, const AdamVectors<float>&, const StageArrays<float>&);
template void AdamAccess::follow(AdamStage<double>&, const Queue&, const AdamVectors<double>&,
                                 const StageArrays<double>&);
template View<const unsigned char> AdamAccess::trainable(const AdamStage<float>&);
template View<const unsigned char> AdamAccess::trainable(const AdamStage<double>&);

template class AdamStage<float>;
template class AdamStage<double>;

}  // namespace einfield::cuda
