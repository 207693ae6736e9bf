// The kernels of L-BFGS: sums of an evaluation and the decision, dot products with the pairs and the recursion, the
// move.
#include "kernels/lbfgs.cuh"

#include <algorithm>

#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// The arrays of SearchStorage; the members of one system are reached with its index.
template <class Real>
struct Search {
  Real *all_pairs, *position, *gradient;
  double* direction;
  SearchState* states;
  double *move_change, *change_change, *coefficients, *partial;
  unsigned* tickets;
  std::size_t n;
  int slots;

  __device__ Real* move(std::size_t system, int slot) const { return all_pairs + (system * slots + slot) * 2 * n; }
  __device__ Real* change(std::size_t system, int slot) const { return move(system, slot) + n; }
  /// The slot of the pair of some age, from the oldest one; that of age `pairs` takes the next one.
  __device__ int slot(const SearchState& s, int age) const { return (s.first + age) % slots; }
};

/// Adds up what the blocks have of kCount sums. Every thread of the last block must call.
template <int kCount>
__device__ void sum_partials(const double* partial, unsigned blocks, double (&sums)[kCount]) {
  for (double& sum : sums) sum = 0;
  for (unsigned b = threadIdx.x; b < blocks; b += kThreads)
    for (int k = 0; k < kCount; ++k) sums[k] += __ldcg(partial + kCount * b + k);
  block_sum(sums);
}

/// The sums of an evaluation: g · g, g · d, Σ |g|, and the number of parameters that have moved from the position.
/// Writes the move and the change of the gradient into the slot of the next pair, in case the point is accepted. The
/// last block of a system decides.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    measure_kernel(const int* list, Search<Real> search, Real* gradients, const Real* parameters,
                   View<const unsigned char> trainable, StepState* all_states, StageArrays<Real> stage) {
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const std::size_t n = search.n, stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  SearchState& s = search.states[system];
  Real* const gradient = gradients + system * n;
  const int next = search.slot(s, s.pairs);
  Real *const move = search.move(system, next), *const change = search.change(system, next);
  double sums[4] = {};
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    if (!trainable.empty() && trainable[i] == 0) gradient[i] = 0;
    const Real g = gradient[i], moved = parameters[system * n + i] - search.position[system * n + i];
    move[i] = moved;
    change[i] = g - search.gradient[system * n + i];
    const auto value = static_cast<double>(g);
    sums[0] += value * value;
    sums[1] += value * search.direction[system * n + i];
    sums[2] += fabs(value);
    sums[3] += moved != 0 ? 1 : 0;
  }
  block_sum(sums);
  double* const partial = search.partial + system * gridDim.x * 4;
  if (threadIdx.x == 0)
    for (int k = 0; k < 4; ++k) partial[4 * blockIdx.x + k] = sums[k];
  if (!is_last_block(search.tickets + system, gridDim.x)) return;
  sum_partials(partial, gridDim.x, sums);
  if (threadIdx.x != 0) return;

  StepState& state = all_states[system];
  state.gradient_norm = sqrt(sums[0]);
  const double value = state.loss + state.regularization;
  s.outcome = {LineAction::search, !s.line.started, sums[3] > 0, sums[0] == 0};
  if (!s.outcome.start || is_finite(state)) s.outcome.action = decide(s.line, value, sums[1], s.pairs, kRounding<Real>);
  if (s.outcome.action == LineAction::accept) {
    move_line(s.line, value, sums[0], sums[2]);
  } else {
    s.outcome.flat = false;
    if (s.outcome.action == LineAction::restart) {
      s.pairs = 0;
      s.gamma = 1;
      begin_line(s.line, -s.line.gradient_square, 0);
    }
  }
  s.before = s.pairs;
  StageProgress& progress = stage.progress[system];
  follow_line(progress, state, stage.stop, stage.log_every, s.outcome);
  if (progress.logs) stage.begin_record(system, progress.step);
}

/// The coefficients of the direction, as lbfgs.cuh has them, and the slope along it; without a descent the pairs are
/// dropped, and it is that of the steepest one. Every thread of the block must call.
/// @param move_gradient, change_gradient  sₖ · g, yₖ · g by slot; the first is overwritten
/// @param weights                         [slots], overwritten
template <class Real>
__device__ void make_direction(const Search<Real>& search, std::size_t system, SearchState& s, double* move_gradient,
                               double* change_gradient, double* weights, double* products) {
  const int thread = static_cast<int>(threadIdx.x), pairs = s.pairs, slots = search.slots;
  const double *const sy = search.move_change + system * slots * slots, *const yy = search.change_change +
                                                                                    system * slots * slots;
  double* const coefficients = search.coefficients + system * slots * 2;
  const double square = s.line.gradient_square;
  for (int age = thread; age < pairs; age += kThreads) {
    const int k = search.slot(s, age);
    products[k] = move_gradient[k];
  }
  __syncthreads();
  for (int age = pairs - 1; age >= 0; --age) {  // products: sₖ · q
    const int k = search.slot(s, age);
    const double a = products[k] / sy[k * slots + k];
    __syncthreads();
    if (thread == 0) weights[k] = a;
    for (int other = thread; other < age; other += kThreads) {
      const int i = search.slot(s, other);
      products[i] -= a * sy[i * slots + k];
    }
    __syncthreads();
  }
  const int newest = search.slot(s, pairs > 0 ? pairs - 1 : 0);
  const double gamma = pairs > 0 ? sy[newest * slots + newest] / yy[newest * slots + newest] : 1;
  for (int age = thread; age < pairs; age += kThreads) {  // products: yₖ · r
    const int i = search.slot(s, age);
    double q = change_gradient[i];
    for (int other = 0; other < pairs; ++other) {
      const int k = search.slot(s, other);
      q -= weights[k] * yy[i * slots + k];
    }
    products[i] = gamma * q;
  }
  __syncthreads();
  for (int age = 0; age < pairs; ++age) {
    const int k = search.slot(s, age);
    const double c = weights[k] - products[k] / sy[k * slots + k];
    __syncthreads();
    if (thread == 0) {
      coefficients[2 * k] = c;
      coefficients[2 * k + 1] = -gamma * weights[k];
    }
    for (int other = age + 1 + thread; other < pairs; other += kThreads) {
      const int i = search.slot(s, other);
      products[i] += c * sy[k * slots + i];
    }
    __syncthreads();
  }
  if (thread != 0) return;
  double slope = -gamma * square;
  for (int age = 0; age < pairs; ++age) {
    const int k = search.slot(s, age);
    slope -= coefficients[2 * k] * move_gradient[k] + coefficients[2 * k + 1] * change_gradient[k];
  }
  s.gamma = gamma;
  if (pairs > 0 && !(slope < 0)) {  // rounding has made the pairs useless
    s.pairs = 0;
    s.gamma = 1;
    slope = -square;
  }
  begin_line(s.line, slope, s.pairs);
}

/// After a point was accepted: the dot products of the newest pair and of the gradient with all pairs; the last block
/// of a system keeps the pair and makes the coefficients of the direction. y: age of a pair; z: row of systems.
/// @param restored  −1, or the age of a pair of an earlier run, whose products with the older ones are made
template <class Real>
__global__ void __launch_bounds__(kThreads)
    pairs_kernel(const int* list, Search<Real> search, const Real* gradients, int restored) {
  const int row = system_of_row(list, blockIdx.z);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  SearchState& s = search.states[system];
  if (restored < 0 ? s.outcome.action != LineAction::accept || s.outcome.flat : restored >= s.pairs) return;
  const int newest_age = restored < 0 ? s.before : restored, age = static_cast<int>(blockIdx.y);
  if (age > newest_age) return;
  constexpr int kKinds = 5;
  const std::size_t n = search.n, stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  const int own = search.slot(s, age), newest = search.slot(s, newest_age), slots = search.slots;
  const Real *const move = search.move(system, own), *const change = search.change(system, own),
                    *const new_move = search.move(system, newest), *const new_change = search.change(system, newest),
                    *const gradient = gradients + system * n;
  double sums[kKinds] = {};
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    const auto m = static_cast<double>(move[i]), c = static_cast<double>(change[i]),
               new_c = static_cast<double>(new_change[i]), g = static_cast<double>(gradient[i]);
    sums[0] += m * new_c;
    sums[1] += static_cast<double>(new_move[i]) * c;
    sums[2] += c * new_c;
    sums[3] += m * g;
    sums[4] += c * g;
  }
  block_sum(sums);
  double* const partial = search.partial + system * slots * gridDim.x * kKinds;
  if (threadIdx.x == 0)
    for (int k = 0; k < kKinds; ++k) partial[(age * gridDim.x + blockIdx.x) * kKinds + k] = sums[k];
  const unsigned ages = static_cast<unsigned>(newest_age) + 1;
  if (!is_last_block(search.tickets + system, gridDim.x * ages)) return;

  extern __shared__ double shared[];  // four arrays by slot
  double *const move_gradient = shared, *const change_gradient = shared + slots;
  double *const sy = search.move_change + system * slots * slots, *const yy =
                                                                      search.change_change + system * slots * slots;
  for (int of_age = static_cast<int>(threadIdx.x); of_age <= newest_age; of_age += kThreads) {
    double total[kKinds] = {};
    for (unsigned b = 0; b < gridDim.x; ++b)
      for (int k = 0; k < kKinds; ++k) total[k] += __ldcg(partial + (of_age * gridDim.x + b) * kKinds + k);
    const int k = search.slot(s, of_age);
    sy[k * slots + newest] = total[0];
    sy[newest * slots + k] = total[1];
    yy[k * slots + newest] = yy[newest * slots + k] = total[2];
    move_gradient[k] = total[3];
    change_gradient[k] = total[4];
  }
  if (restored >= 0) return;
  __syncthreads();
  if (threadIdx.x == 0 && !s.outcome.start && keeps_pair(sy[newest * slots + newest], yy[newest * slots + newest])) {
    if (s.pairs + 1 == slots)
      s.first = search.slot(s, 1);
    else
      ++s.pairs;
  }
  __syncthreads();
  make_direction(search, system, s, move_gradient, change_gradient, shared + 2 * slots, shared + 3 * slots);
}

/// Moves the position to an accepted point, makes the direction of a new line, and places the next trial.
template <class Real>
__global__ void __launch_bounds__(kThreads) move_kernel(const int* list, Search<Real> search, const Real* gradients,
                                                        Real* parameters, StageArrays<Real> stage) {
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const SearchState& s = search.states[system];
  const StageProgress& progress = stage.progress[system];
  const bool accepts = s.outcome.action == LineAction::accept;
  const bool turns = (accepts && !s.outcome.flat) || s.outcome.action == LineAction::restart;
  const double* const coefficients = search.coefficients + system * search.slots * 2;
  const std::size_t n = search.n, stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
    const std::size_t at = system * n + i;
    if (accepts) {
      search.position[at] = parameters[at];
      search.gradient[at] = gradients[at];
      stage.keep(progress, system, i, parameters[at]);
    }
    if (progress.done) continue;
    if (turns) {
      double sum = s.gamma * static_cast<double>(search.gradient[at]);
      for (int age = 0; age < s.pairs; ++age) {
        const int k = search.slot(s, age);
        sum += coefficients[2 * k] * static_cast<double>(search.move(system, k)[i]) +
               coefficients[2 * k + 1] * static_cast<double>(search.change(system, k)[i]);
      }
      search.direction[at] = -sum;
    }
    parameters[at] =
        static_cast<Real>(static_cast<double>(search.position[at]) + s.line.now.step * search.direction[at]);
  }
  stage.leave(progress, blockIdx.y, search.tickets + system);
}

template <class Real>
Search<Real> arrays(const SearchStorage<Real>& s, const SearchSizes& sizes) {
  return {s.pairs.get(),   s.position.get(),    s.gradient.get(),      s.direction.get(),
          s.states.get(),  s.move_change.get(), s.change_change.get(), s.coefficients.get(),
          s.partial.get(), s.tickets.get(),     sizes.parameters,      static_cast<int>(sizes.slots)};
}

SearchSizes sizes_of(std::size_t systems, std::size_t n_parameters, int memory) {
  EINFIELD_REQUIRE(systems > 0 && systems <= 65535 && n_parameters > 0 && memory > 0,
                   "L-BFGS: " + std::to_string(systems) + " systems of " + std::to_string(n_parameters) +
                       " parameters with " + std::to_string(memory) + " pairs, expected 1 ... 65535 systems and > 0");
  return {systems, n_parameters, static_cast<std::size_t>(memory) + 1};
}

std::size_t shared_bytes(const SearchSizes& sizes) {
  return 4 * sizes.slots * sizeof(double);
}

}  // namespace

unsigned SearchSizes::blocks() const {
  constexpr unsigned kMaxBlocks = 64;  // of a pair: there are as many more as there are pairs
  return std::min(kMaxBlocks, sum_blocks(static_cast<int>(std::min<std::size_t>(parameters, 1 << 30))));
}

template <class Real>
SearchStage<Real>::SearchStage(std::size_t systems, std::size_t n_parameters, int memory, cudaStream_t stream)
    : sizes_(sizes_of(systems, n_parameters, memory)) {
  allocate_all(storage_, stream, sizes_);
}

template <class Real>
std::size_t SearchStage<Real>::planned_bytes(std::size_t systems, std::size_t n_parameters, int memory) {
  return planned_bytes_of<SearchStorage<Real>>(sizes_of(systems, n_parameters, memory));
}

template <class Real>
void SearchStage<Real>::begin(cudaStream_t stream, std::size_t first, const std::vector<std::vector<Real>>& pairs) {
  const std::size_t pair = 2 * sizes_.parameters;
  std::vector<SearchState> states(pairs.size());
  std::size_t most = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const std::size_t count = pairs[i].size() / pair;
    EINFIELD_REQUIRE(count < sizes_.slots,
                     std::to_string(count) + " pairs of L-BFGS, expected at most " + std::to_string(sizes_.slots - 1));
    states[i].pairs = static_cast<int>(count);
    most = std::max(most, count);
    storage_.pairs.upload(pairs[i].data(), pairs[i].size(), stream, (first + i) * sizes_.slots * pair);
  }
  storage_.states.upload(states.data(), states.size(), stream, first);
  // The products of other systems come out as they were. The gradient is not there yet: its products are not used.
  for (std::size_t age = 0; age < most; ++age) {
    pairs_kernel<<<dim3(sizes_.blocks(), static_cast<unsigned>(age) + 1, static_cast<unsigned>(sizes_.systems)),
                   kThreads, shared_bytes(sizes_), stream>>>(nullptr, arrays(storage_, sizes_), storage_.gradient.get(),
                                                             static_cast<int>(age));
    EINFIELD_LAUNCH_CHECK();
  }
  EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
}

template <class Real>
void SearchStage<Real>::follow(const Queue& queue, Real* gradient, Real* parameters,
                               View<const unsigned char> trainable, StepState* states, const StageArrays<Real>& stage) {
  const Search<Real> search = arrays(storage_, sizes_);
  const unsigned rows = rows_of(queue, sizes_.systems), blocks = sizes_.blocks();
  measure_kernel<<<dim3(blocks, rows), kThreads, 0, queue.stream>>>(queue.systems, search, gradient, parameters,
                                                                    trainable, states, stage);
  EINFIELD_LAUNCH_CHECK();
  pairs_kernel<<<dim3(blocks, static_cast<unsigned>(sizes_.slots), rows), kThreads, shared_bytes(sizes_),
                 queue.stream>>>(queue.systems, search, gradient, -1);
  EINFIELD_LAUNCH_CHECK();
  move_kernel<<<dim3(blocks, rows), kThreads, 0, queue.stream>>>(queue.systems, search, gradient, parameters, stage);
  EINFIELD_LAUNCH_CHECK();
}

template <class Real>
std::vector<std::vector<Real>> SearchStage<Real>::pairs(cudaStream_t stream) const {
  std::vector<SearchState> states(sizes_.systems);
  storage_.states.download(states.data(), states.size(), stream);
  const std::vector<Real> values = storage_.pairs.to_vector(stream);
  std::vector<std::vector<Real>> all(sizes_.systems);
  const std::size_t pair = 2 * sizes_.parameters;
  for (std::size_t i = 0; i < sizes_.systems; ++i)
    for (int age = 0; age < states[i].pairs; ++age) {
      const std::size_t slot = static_cast<std::size_t>(states[i].first + age) % sizes_.slots;
      const auto from = values.begin() + static_cast<std::ptrdiff_t>((i * sizes_.slots + slot) * pair);
      all[i].insert(all[i].end(), from, from + static_cast<std::ptrdiff_t>(pair));
    }
  return all;
}

template class SearchStage<float>;
template class SearchStage<double>;

}  // namespace einfield::cuda
