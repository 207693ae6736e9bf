// The kernels of L-BFGS: sums of an evaluation and the decision, dot products with the pairs and the recursion, the
// move.
#include "kernels/lbfgs.cuh"

#include <algorithm>

#include "kernels/arguments.cuh"
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
  double *inverse, *changes, *diagonal, *coefficients, *partial;
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
/// last block of a system decides. Without the 2 ptxas takes 64 registers and spills (sm_90).
template <class Real>
__global__ void __launch_bounds__(kThreads, 2)
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

/// The matrices of one system, by the age of pairs.
template <class Real>
struct Matrices {
  const Search<Real>& search;
  const SearchState& s;
  std::size_t system;

  __device__ std::size_t at(int row, int column) const {
    return (system * search.slots + search.slot(s, column)) * search.slots + search.slot(s, row);
  }
  __device__ double& inverse(int row, int column) const { return search.inverse[at(row, column)]; }
  __device__ double& changes(int row, int column) const { return search.changes[at(row, column)]; }
  __device__ double& diagonal(int age) const { return search.diagonal[system * search.slots + search.slot(s, age)]; }

  /// (R⁻¹ v)_row for the first n pairs. The rows of a warp's lanes are neighbors in memory.
  __device__ double inverse_times(const double* v, int row, int n) const {
    double sum = 0;
    for (int k = row; k < n; ++k) sum += inverse(row, k) * v[k];
    return sum;
  }
};

/// Coefficients of (1) and the slope along d; without a descent the pairs are dropped, and d is the steepest one. Every
/// thread of the block must call. Arrays in shared memory, by age.
/// @param u, v  Sᵀg, Yᵀg
/// @param w, t  [pairs] of working space
template <class Real>
__device__ void make_direction(const Matrices<Real>& m, SearchState& s, const double* u, const double* v, double* w,
                               double* t) {
  const int thread = static_cast<int>(threadIdx.x), pairs = s.pairs;
  double* const coefficients = m.search.coefficients + m.system * m.search.slots * 2;
  const double gamma = pairs > 0 ? m.diagonal(pairs - 1) / m.changes(pairs - 1, pairs - 1) : 1;
  for (int i = thread; i < pairs; i += kThreads) w[i] = m.inverse_times(u, i, pairs);
  __syncthreads();
  for (int i = thread; i < pairs; i += kThreads) {
    double sum = 0;
    for (int k = 0; k < pairs; ++k) sum += m.changes(i, k) * w[k];
    t[i] = m.diagonal(i) * w[i] + gamma * (sum - v[i]);
  }
  __syncthreads();
  double slope[1] = {0};
  const int lane = thread % 32;
  for (int i = thread / 32; i < pairs; i += kThreads / 32) {  // (R⁻ᵀ t)_i, from a column of R⁻¹, by a warp
    double c = 0;
    for (int k = lane; k <= i; k += 32) c += m.inverse(k, i) * t[k];
    c = warp_sum(c);
    if (lane != 0) continue;
    const int slot = m.search.slot(s, i);
    coefficients[2 * slot] = c;
    coefficients[2 * slot + 1] = -gamma * w[i];
    slope[0] -= c * u[i] - gamma * w[i] * v[i];
  }
  block_sum(slope);
  if (thread != 0) return;
  s.gamma = gamma;
  slope[0] -= gamma * s.line.gradient_square;
  if (pairs > 0 && !(slope[0] < 0)) {  // rounding has made the pairs useless
    s.pairs = 0;
    s.gamma = 1;
    slope[0] = -s.line.gradient_square;
  }
  begin_line(s.line, slope[0], s.pairs);
}

/// After a point was accepted: the dot products of the newest pair and of the gradient with all pairs. The last block
/// of a system keeps the pair and makes the coefficients of the direction. Blocks: x shares the parameters, y the
/// pairs, z the systems.
/// @param restored  −1, or the age of a pair of an earlier run, which is added to the matrices
template <class Real>
__global__ void __launch_bounds__(kThreads)
    pairs_kernel(const int* list, Search<Real> search, const Real* gradients, int restored) {
  const int row = system_of_row(list, blockIdx.z);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  SearchState& s = search.states[system];
  if (restored < 0 ? s.outcome.action != LineAction::accept || s.outcome.flat : restored >= s.pairs) return;
  constexpr int kKinds = 4;
  const int newest = restored < 0 ? s.before : restored;  // its age
  const std::size_t n = search.n, stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  const Real *const new_change = search.change(system, search.slot(s, newest)), *const gradient =
                                                                                    gradients + system * n;
  double* const partial = search.partial + system * search.slots * gridDim.x * kKinds;
  for (int age = static_cast<int>(blockIdx.y); age <= newest; age += static_cast<int>(gridDim.y)) {
    const Real *const move = search.move(system, search.slot(s, age)), *const change =
                                                                           search.change(system, search.slot(s, age));
    double sums[kKinds] = {};
    for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; i < n; i += stride) {
      const auto m = static_cast<double>(move[i]), c = static_cast<double>(change[i]),
                 new_c = static_cast<double>(new_change[i]), g = static_cast<double>(gradient[i]);
      sums[0] += m * new_c;
      sums[1] += c * new_c;
      sums[2] += m * g;
      sums[3] += c * g;
    }
    block_sum(sums);
    if (threadIdx.x == 0)
      for (int k = 0; k < kKinds; ++k) partial[(age * gridDim.x + blockIdx.x) * kKinds + k] = sums[k];
  }
  if (!is_last_block(search.tickets + system, gridDim.x * gridDim.y)) return;

  extern __shared__ double shared[];  // five arrays by age
  double *const r = shared, *const u = r + search.slots, *const v = u + search.slots;
  const Matrices<Real> m{search, s, system};
  for (int age = static_cast<int>(threadIdx.x); age <= newest; age += kThreads) {
    double total[kKinds] = {};
    for (unsigned b = 0; b < gridDim.x; ++b)
      for (int k = 0; k < kKinds; ++k) total[k] += __ldcg(partial + (age * gridDim.x + b) * kKinds + k);
    r[age] = total[0];
    m.changes(age, newest) = m.changes(newest, age) = total[1];
    u[age] = total[2];
    v[age] = total[3];
  }
  __syncthreads();
  const double rho = r[newest];
  const bool keeps = restored >= 0 || (!s.outcome.start && keeps_pair(rho, m.changes(newest, newest)));
  if (keeps) {
    for (int i = static_cast<int>(threadIdx.x); i < newest; i += kThreads)
      m.inverse(i, newest) = -m.inverse_times(r, i, newest) / rho;
    if (threadIdx.x == 0) {
      m.inverse(newest, newest) = 1 / rho;
      m.diagonal(newest) = rho;
    }
  }
  if (restored >= 0) return;
  const bool drops = keeps && newest + 1 == search.slots;
  __syncthreads();
  if (threadIdx.x == 0) {
    if (drops)
      s.first = search.slot(s, 1);
    else if (keeps)
      ++s.pairs;
  }
  __syncthreads();
  const int shift = drops ? 1 : 0;
  make_direction(m, s, u + shift, v + shift, shared + 3 * search.slots, shared + 4 * search.slots);
}

/// A block of move_kernel moves kLanes parameters; its strands share the pairs.
constexpr int kLanes = 32, kStrands = kThreads / kLanes;

/// Moves the position to an accepted point, makes the direction of a new line, and places the next trial.
template <class Real>
__global__ void __launch_bounds__(kThreads) move_kernel(const int* list, Search<Real> search, const Real* gradients,
                                                        Real* parameters, StageArrays<Real> stage) {
  __shared__ double strands[kStrands][kLanes];
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const SearchState& s = search.states[system];
  const StageProgress& progress = stage.progress[system];
  const bool accepts = s.outcome.action == LineAction::accept;
  const bool turns = (accepts && !s.outcome.flat && !progress.done) || s.outcome.action == LineAction::restart;
  const int lane = static_cast<int>(threadIdx.x) % kLanes, strand = static_cast<int>(threadIdx.x) / kLanes;
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kLanes + lane, at = system * search.n + i;
  const bool on = i < search.n;
  if (turns) {
    const double* const coefficients = search.coefficients + system * search.slots * 2;
    double sum = 0;
    if (on)
      for (int age = strand; age < s.pairs; age += kStrands) {
        const int k = search.slot(s, age);
        sum += coefficients[2 * k] * static_cast<double>(search.move(system, k)[i]) +
               coefficients[2 * k + 1] * static_cast<double>(search.change(system, k)[i]);
      }
    strands[strand][lane] = sum;
    __syncthreads();
  }
  if (on && strand == 0) {
    if (accepts) {
      search.position[at] = parameters[at];
      search.gradient[at] = gradients[at];
      stage.keep(progress, system, i, parameters[at]);
    }
    if (turns) {
      double sum = s.gamma * static_cast<double>(search.gradient[at]);
      for (const double(&part)[kLanes] : strands) sum += part[lane];
      search.direction[at] = -sum;
    }
    if (!progress.done)
      parameters[at] =
          static_cast<Real>(static_cast<double>(search.position[at]) + s.line.now.step * search.direction[at]);
  }
  stage.leave(progress, blockIdx.y, search.tickets + system);
}

template <class Real>
Search<Real> arrays(const SearchStorage<Real>& s, const SearchSizes& sizes) {
  return {s.pairs.get(),
          s.position.get(),
          s.gradient.get(),
          s.direction.get(),
          s.states.get(),
          s.inverse.get(),
          s.changes.get(),
          s.diagonal.get(),
          s.coefficients.get(),
          s.partial.get(),
          s.tickets.get(),
          sizes.parameters,
          static_cast<int>(sizes.slots)};
}

/// The arrays by age of pairs_kernel stay below the 48 KB of shared memory that every kernel may use.
constexpr int kMaxPairs = 1000;

SearchSizes sizes_of(std::size_t systems, std::size_t n_parameters, int memory) {
  EINFIELD_REQUIRE(systems > 0 && systems <= 65535 && n_parameters > 0 && memory > 0 && memory <= kMaxPairs,
                   "L-BFGS: " + std::to_string(systems) + " systems of " + std::to_string(n_parameters) +
                       " parameters with " + std::to_string(memory) +
                       " pairs, expected 1 ... 65535 systems, parameters, and 1 ... " + std::to_string(kMaxPairs) +
                       " pairs");
  return {systems, n_parameters, static_cast<std::size_t>(memory) + 1};
}

/// Blocks that share the pairs of a system: enough for every multiprocessor of a large card.
unsigned pair_blocks(const SearchSizes& sizes, unsigned rows) {
  constexpr unsigned kEnough = 2048;
  return std::clamp(kEnough / (sizes.blocks() * rows), 1u, static_cast<unsigned>(sizes.slots));
}

std::size_t shared_bytes(const SearchSizes& sizes) {
  return 5 * sizes.slots * sizeof(double);
}

}  // namespace

unsigned SearchSizes::blocks() const {
  constexpr unsigned kMaxBlocks = 64;  // the pairs bring more blocks
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
  // The matrices of other systems come out as they were. The gradient is not there yet: its products are not used.
  for (std::size_t age = 0; age < most; ++age) {
    const auto all = static_cast<unsigned>(sizes_.systems);
    pairs_kernel<<<dim3(sizes_.blocks(), pair_blocks(sizes_, all), all), kThreads, shared_bytes(sizes_), stream>>>(
        nullptr, arrays(storage_, sizes_), storage_.gradient.get(), static_cast<int>(age));
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
  pairs_kernel<<<dim3(blocks, pair_blocks(sizes_, rows), rows), kThreads, shared_bytes(sizes_), queue.stream>>>(
      queue.systems, search, gradient, -1);
  EINFIELD_LAUNCH_CHECK();
  const auto groups = static_cast<unsigned>((sizes_.parameters + kLanes - 1) / kLanes);
  move_kernel<<<dim3(groups, rows), kThreads, 0, queue.stream>>>(queue.systems, search, gradient, parameters, stage);
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
