// Loss, reduced χ² and the cotangent of the model in one pass over the pixels; the formulas are likelihood.hpp's.
// Sums are made in double, block by block in index order.
#include "kernels/likelihood.cuh"

#include "einfield/likelihood.hpp"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// @param held_out_weight  null without held-out pixels
/// @param partial          [systems][blocks][3]
template <class Real>
__global__ void __launch_bounds__(kThreads)
    likelihood_kernel(const int* list, ImageView<Real> model, const Real* data, const Real* loss_weight,
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
  state.learning_rate =
      rate_after(rates.values + static_cast<std::int64_t>(system) * rates.count, rates.count, state.updates);
}

}  // namespace

template <class Real>
LikelihoodStage<Real>::Sizes::Sizes(const std::vector<Problem>& problems)
    : systems(problems.size()),
      pixels(static_cast<std::size_t>(problems.front().observation.grid.n_pixels())),
      held_out(problems.front().held_out.empty() ? 0 : pixels),
      blocks(sum_blocks(problems.front().observation.grid.n_pixels())) {}

template <class Real>
LikelihoodStage<Real>::LikelihoodStage(const std::vector<Problem>& problems, cudaStream_t stream)
    : sizes_(problems), nx_(problems.front().observation.grid.nx) {
  allocate_all(storage_, stream, sizes_);
  upload(stream, 0, problems);
}

template <class Real>
void LikelihoodStage<Real>::upload(cudaStream_t stream, std::size_t first, const std::vector<Problem>& problems) {
  std::vector<Real> data, loss_weight, chi2_weight, held_out_weight;
  for (const Problem& problem : problems) {
    for (const double v : problem.observation.image) data.push_back(static_cast<Real>(v));
    const PixelWeights<Real> weights = pixel_weights<Real>(problem.observation, problem.loss, problem.held_out);
    loss_weight.insert(loss_weight.end(), weights.loss.begin(), weights.loss.end());
    chi2_weight.insert(chi2_weight.end(), weights.chi2.begin(), weights.chi2.end());
    held_out_weight.insert(held_out_weight.end(), weights.held_out.begin(), weights.held_out.end());
  }
  const std::size_t at = first * sizes_.pixels;
  storage_.data.upload(data.data(), data.size(), stream, at);
  storage_.loss_weight.upload(loss_weight.data(), loss_weight.size(), stream, at);
  storage_.chi2_weight.upload(chi2_weight.data(), chi2_weight.size(), stream, at);
  if (sizes_.held_out > 0) storage_.held_out_weight.upload(held_out_weight.data(), held_out_weight.size(), stream, at);
  EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
}

template <class Real>
std::size_t LikelihoodStage<Real>::planned_bytes(const std::vector<Problem>& problems) {
  return planned_bytes_of<Storage>(Sizes(problems));
}

template <class Real>
void LikelihoodStage<Real>::evaluate(const Queue& queue, ImageView<Real> model, ImageView<Real> model_bar,
                                     LearningRates rates, StepState* states) {
  likelihood_kernel<<<dim3(sizes_.blocks, rows_of(queue, sizes_.systems)), kThreads, 0, queue.stream>>>(
      queue.systems, model, storage_.data.get(), storage_.loss_weight.get(), storage_.chi2_weight.get(),
      sizes_.held_out > 0 ? storage_.held_out_weight.get() : nullptr, static_cast<int>(sizes_.pixels), nx_, model_bar,
      rates, states, storage_.partial.get(), storage_.tickets.get());
  EINFIELD_LAUNCH_CHECK();
}

template class LikelihoodStage<float>;
template class LikelihoodStage<double>;

}  // namespace einfield::cuda
