// Loss, reduced χ² and the cotangent of the model in one pass over the pixels; the formulas are likelihood.hpp's.
// Sums are made in double, block by block in index order.
#include "einfield/likelihood.hpp"

#include <string>

#include "einfield/cuda.hpp"
#include "kernels/arguments.cuh"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// @param held_out_weight  null without held-out pixels
/// @param partial          [systems][blocks][3]
template <class Real>
__global__ void __launch_bounds__(kThreads)
    likelihood_kernel(const int* list, ImageView<const Real> model, const Real* data, const Real* loss_weight,
                      const Real* chi2_weight, const Real* held_out_weight, int n, int nx, ImageView<Real> model_bar,
                      LearningRates rates, StepState* states, double* partial, unsigned* tickets) {
  const int row_system = system_of_row(list, blockIdx.y);
  if (row_system < 0) return;
  const auto system = static_cast<std::size_t>(row_system), first = system * static_cast<std::size_t>(n);
  double sums[3] = {0, 0, 0};
  const int stride = static_cast<int>(gridDim.x) * kThreads;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < n; i += stride) {
    const std::size_t row = static_cast<std::size_t>(i / nx), column = static_cast<std::size_t>(i % nx);
    const Real m = model.data[blockIdx.y * model.system_stride + row * model.row_stride + column];
    const Real d = data[first + i], w = loss_weight[first + i];
    sums[0] += static_cast<double>(residual_loss(m, d, w));
    sums[1] += static_cast<double>(residual_loss(m, d, chi2_weight[first + i]));
    if (held_out_weight != nullptr) sums[2] += static_cast<double>(residual_loss(m, d, held_out_weight[first + i]));
    model_bar.data[blockIdx.y * model_bar.system_stride + row * model_bar.row_stride + column] =
        residual_loss_adjoint(m, d, w);
  }
  block_sum(sums);
  partial += system * gridDim.x * 3;
  if (threadIdx.x < 3)
    partial[3 * blockIdx.x + threadIdx.x] = threadIdx.x == 0 ? sums[0] : threadIdx.x == 1 ? sums[1] : sums[2];
  if (!is_last_block(tickets + system, gridDim.x)) return;

  sums[0] = sums[1] = sums[2] = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads) {
    sums[0] += __ldcg(partial + 3 * b);
    sums[1] += __ldcg(partial + 3 * b + 1);
    sums[2] += __ldcg(partial + 3 * b + 2);
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  StepState& state = states[system];
  state.loss = sums[0];
  state.chi2_reduced = sums[1];
  state.held_out_chi2 = sums[2];
  state.regularization = 0;
  state.gradient_norm = 0;
  state.learning_rate = rates.count > 0
                            ? rate_after(rates.values.data() + static_cast<std::int64_t>(system) * rates.count,
                                         rates.count, state.updates)
                            : 0;
}

/// Images of one row of blocks each, and of one system.
template <class Real>
struct CorrelatedView {
  ImageView<const Real> model;
  const Real *data, *weight;  ///< [systems][n]
  ImageView<Real> model_bar;
  const double* kernel;  ///< [systems][kernel_ny][kernel_nx]: R of likelihood.hpp by offset
  int nx, ny, kernel_nx, kernel_ny;
  double* scratch;  ///< [systems][kScratch][n]
};

constexpr int kScratch = 5;
/// Conjugate gradients end when the residual has this size relative to the right side, squared. The independent part of
/// the noise bounds the number of steps: the condition of R is at most Σ|K|/kIndependentNoise.
constexpr double kSolved = 1e-24;
constexpr int kMostSteps = 2000;

/// R p at a fitted pixel; p is 0 where a pixel is not fitted.
template <class Real>
__device__ double correlated_sum(const CorrelatedView<Real>& view, const double* kernel, const double* p, int i) {
  const int x = i % view.nx, y = i / view.nx, reach_x = view.kernel_nx / 2, reach_y = view.kernel_ny / 2;
  double sum = 0;
  for (int v = max(-reach_y, -y); v <= min(reach_y, view.ny - 1 - y); ++v)
    for (int w = max(-reach_x, -x); w <= min(reach_x, view.nx - 1 - x); ++w)
      sum += kernel[(v + reach_y) * view.kernel_nx + w + reach_x] * p[i + v * view.nx + w];
  return sum;
}

/// Replaces loss, χ² and cotangent by those of correlated noise: R y = r by conjugate gradients, a block per system.
/// Every pixel belongs to one thread; others read it only as a neighbor in p.
template <class Real>
__global__ void __launch_bounds__(kThreads, 2)
    correlated_likelihood_kernel(const int* list, CorrelatedView<Real> view, StepState* states) {
  const int row_system = system_of_row(list, blockIdx.x);
  if (row_system < 0) return;
  const auto system = static_cast<std::size_t>(row_system), n = static_cast<std::size_t>(view.nx * view.ny);
  const double* kernel = view.kernel + system * static_cast<std::size_t>(view.kernel_nx * view.kernel_ny);
  double *const y = view.scratch + system * kScratch * n, *const r = y + n, *const p = r + n, *const b = p + n,
                *const q = b + n;
  const auto root_weight = [&](int i) {
    return sqrt(static_cast<double>(view.weight[system * n + static_cast<std::size_t>(i)]));
  };
  const int first = static_cast<int>(threadIdx.x), end = static_cast<int>(n);
  double rest[1] = {0};
  for (int i = first; i < end; i += kThreads) {
    const std::size_t row = static_cast<std::size_t>(i / view.nx), column = static_cast<std::size_t>(i % view.nx);
    const double model = view.model.data[blockIdx.x * view.model.system_stride + row * view.model.row_stride + column];
    const double weight = root_weight(i);
    y[i] = q[i] = 0;
    b[i] = weight > 0 ? weight * (model - static_cast<double>(view.data[system * n + static_cast<std::size_t>(i)])) : 0;
    r[i] = p[i] = b[i];
    rest[0] += r[i] * r[i];
  }
  block_sum(rest);
  const double small = kSolved * rest[0];
  for (int step = 0; step < kMostSteps && rest[0] > small; ++step) {
    __syncthreads();  // p is complete
    double product[1] = {0};
    for (int i = first; i < end; i += kThreads)
      if (root_weight(i) > 0) product[0] += p[i] * (q[i] = correlated_sum(view, kernel, p, i));
    block_sum(product);  // all have read p
    const double length = rest[0] / product[0], before = rest[0];
    rest[0] = 0;
    for (int i = first; i < end; i += kThreads) {
      r[i] -= length * q[i];
      y[i] += length * p[i];
      rest[0] += r[i] * r[i];
    }
    block_sum(rest);
    const double share = rest[0] / before;
    for (int i = first; i < end; i += kThreads) p[i] = r[i] + share * p[i];
  }
  double loss[1] = {0};
  for (int i = first; i < end; i += kThreads) {
    const std::size_t row = static_cast<std::size_t>(i / view.nx), column = static_cast<std::size_t>(i % view.nx);
    loss[0] += b[i] * y[i];
    view.model_bar.data[blockIdx.x * view.model_bar.system_stride + row * view.model_bar.row_stride + column] =
        static_cast<Real>(2 * root_weight(i) * y[i]);
  }
  block_sum(loss);
  if (threadIdx.x == 0) states[system].loss = states[system].chi2_reduced = loss[0];
}

/// Pixels of one system, and of its map of held-out ones.
struct LikelihoodSizes {
  std::size_t systems;
  int nx = 0, ny = 0;
  std::size_t pixels = 0, held_out = 0;
  unsigned blocks = 0;
  int kernel_nx = 0, kernel_ny = 0;  ///< of the correlation of the noise; 0 = independent

  explicit LikelihoodSizes(const std::vector<Problem>& problems) : systems(problems.size()) {
    EINFIELD_REQUIRE(systems > 0 && systems <= 65535,
                     "likelihood: " + std::to_string(systems) + " systems, expected 1 ... 65535");
    const Problem& first = problems.front();
    nx = first.observation.grid.nx;
    ny = first.observation.grid.ny;
    pixels = static_cast<std::size_t>(first.observation.grid.n_pixels());
    held_out = first.held_out.empty() ? 0 : pixels;
    blocks = sum_blocks(first.observation.grid.n_pixels());
    kernel_nx = first.observation.noise_correlation.nx;
    kernel_ny = first.observation.noise_correlation.ny;
    for (const Problem& problem : problems) require(problem);
  }
  void require(const Problem& problem) const {
    problem.observation.validate();
    const Grid& grid = problem.observation.grid;
    EINFIELD_REQUIRE(grid.nx == nx && grid.ny == ny, "likelihood: an image of " + std::to_string(grid.ny) + " x " +
                                                         std::to_string(grid.nx) + " pixels, expected " +
                                                         std::to_string(ny) + " x " + std::to_string(nx));
    EINFIELD_REQUIRE(problem.held_out.size() == held_out, "likelihood: " + std::to_string(problem.held_out.size()) +
                                                              " marks of held-out pixels, expected " +
                                                              std::to_string(held_out));
    const NoiseCorrelation& kernel = problem.observation.noise_correlation;
    EINFIELD_REQUIRE(kernel.nx == kernel_nx && kernel.ny == kernel_ny,
                     "likelihood: a noise_correlation of " + std::to_string(kernel.nx) + " x " +
                         std::to_string(kernel.ny) + " pixels, expected " + std::to_string(kernel_nx) + " x " +
                         std::to_string(kernel_ny));
    EINFIELD_REQUIRE(
        kernel.empty() || problem.loss == LossKind::chi2,
        std::string("likelihood: a noise_correlation with the loss ") + name_of(problem.loss) + ", expected chi2");
  }
  std::size_t kernel() const { return static_cast<std::size_t>(kernel_nx * kernel_ny); }
};

template <class Real>
struct LikelihoodStorage {
  DeviceBuffer<Real> data, loss_weight, chi2_weight, held_out_weight;
  DeviceBuffer<double> partial, kernel, scratch;
  DeviceBuffer<unsigned> tickets;

  template <class Take>
  void each(Take&& take, const LikelihoodSizes& s) {
    for (DeviceBuffer<Real>* images : {&data, &loss_weight, &chi2_weight}) take(*images, s.systems * s.pixels);
    take(held_out_weight, s.systems * s.held_out);
    take(partial, s.systems * s.blocks * 3);
    take(tickets, s.systems);
    take(kernel, s.systems * s.kernel());
    take(scratch, s.kernel() > 0 ? s.systems * kScratch * s.pixels : 0);
  }
};

}  // namespace

template <class Real>
struct LikelihoodStage<Real>::Impl {
  static constexpr const char* kName = "likelihood";

  StageDevice device;
  LikelihoodSizes sizes;
  LikelihoodStorage<Real> storage;

  Impl(const std::vector<Problem>& problems, cudaStream_t stream, Workspace workspace) : sizes(problems) {
    BufferSource source(kName, workspace, workspace_bytes_of<LikelihoodStorage<Real>>(sizes));
    take_all(source, storage, stream, sizes);
    upload(stream, 0, problems);
  }

  /// The data of the systems from `first` on; waits for the stream.
  void upload(cudaStream_t stream, std::size_t first, const std::vector<Problem>& problems) {
    std::vector<Real> data, loss_weight, chi2_weight, held_out_weight;
    std::vector<double> kernel;
    for (const Problem& problem : problems) {
      for (const double v : problem.observation.image) data.push_back(static_cast<Real>(v));
      const PixelWeights<Real> weights = pixel_weights<Real>(problem.observation, problem.loss, problem.held_out);
      loss_weight.insert(loss_weight.end(), weights.loss.begin(), weights.loss.end());
      chi2_weight.insert(chi2_weight.end(), weights.chi2.begin(), weights.chi2.end());
      held_out_weight.insert(held_out_weight.end(), weights.held_out.begin(), weights.held_out.end());
      const std::vector<double>& values = problem.observation.noise_correlation.values;
      for (std::size_t i = 0; i < values.size(); ++i)
        kernel.push_back((1 - kIndependentNoise) * values[i] + (i == values.size() / 2 ? kIndependentNoise : 0.0));
    }
    const std::size_t at = first * sizes.pixels;
    storage.data.upload(data.data(), data.size(), stream, at);
    storage.loss_weight.upload(loss_weight.data(), loss_weight.size(), stream, at);
    storage.chi2_weight.upload(chi2_weight.data(), chi2_weight.size(), stream, at);
    if (sizes.held_out > 0) storage.held_out_weight.upload(held_out_weight.data(), held_out_weight.size(), stream, at);
    if (!kernel.empty()) storage.kernel.upload(kernel.data(), kernel.size(), stream, first * sizes.kernel());
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
  }
};

template <class Real>
LikelihoodStage<Real>::LikelihoodStage(const std::vector<Problem>& problems, cudaStream_t stream, Workspace workspace)
    : impl_(std::make_unique<Impl>(problems, stream, workspace)) {}
template <class Real>
LikelihoodStage<Real>::~LikelihoodStage() = default;
template <class Real>
LikelihoodStage<Real>::LikelihoodStage(LikelihoodStage&&) noexcept = default;
template <class Real>
LikelihoodStage<Real>& LikelihoodStage<Real>::operator=(LikelihoodStage&&) noexcept = default;

template <class Real>
std::size_t LikelihoodStage<Real>::workspace_bytes(const std::vector<Problem>& problems) {
  return workspace_bytes_of<LikelihoodStorage<Real>>(LikelihoodSizes(problems));
}

template <class Real>
void LikelihoodStage<Real>::replace(cudaStream_t stream, std::size_t system, const Problem& problem) {
  impl_->device.require_current(Impl::kName);
  require_system(Impl::kName, system, impl_->sizes.systems);
  impl_->sizes.require(problem);
  impl_->upload(stream, system, {problem});
}

template <class Real>
void LikelihoodStage<Real>::evaluate(const Queue& queue, ImageView<const Real> model, ImageView<Real> model_bar,
                                     View<StepState> states, const LearningRates& rates) {
  const LikelihoodSizes& s = impl_->sizes;
  const LikelihoodStorage<Real>& storage = impl_->storage;
  const unsigned rows = rows_of(queue, s.systems);
  impl_->device.require_current(Impl::kName);
  require_images(Impl::kName, "model", model, rows, s.ny, s.nx);
  require_images(Impl::kName, "model_bar", model_bar, rows, s.ny, s.nx);
  require_size(Impl::kName, "states", states, s.systems);
  require_size_or_none(Impl::kName, "rates", rates.values, s.systems * static_cast<std::size_t>(rates.count));
  EINFIELD_REQUIRE(rates.count == 0 || !rates.values.empty(),
                   "likelihood: no learning rates, expected " + std::to_string(rates.count) + " for every system");
  likelihood_kernel<<<dim3(s.blocks, rows), kThreads, 0, queue.stream>>>(
      queue.systems, model, storage.data.get(), storage.loss_weight.get(), storage.chi2_weight.get(),
      s.held_out > 0 ? storage.held_out_weight.get() : nullptr, static_cast<int>(s.pixels), s.nx, model_bar, rates,
      states.data(), storage.partial.get(), storage.tickets.get());
  EINFIELD_LAUNCH_CHECK();
  if (s.kernel() == 0) return;
  const CorrelatedView<Real> view{
      model,       storage.data.get(), storage.chi2_weight.get(), model_bar, storage.kernel.get(), s.nx, s.ny,
      s.kernel_nx, s.kernel_ny,        storage.scratch.get()};
  correlated_likelihood_kernel<<<rows, kThreads, 0, queue.stream>>>(queue.systems, view, states.data());
  EINFIELD_LAUNCH_CHECK();
}

template class LikelihoodStage<float>;
template class LikelihoodStage<double>;

}  // namespace einfield::cuda
