// Penalties on the network's potential and on source pixels, weight decay, Gaussian priors; the formulas are
// regularization.hpp's. Sums are made in double, block by block in index order.
#include "kernels/regularization.cuh"

#include <algorithm>

#include "einfield/regularization.hpp"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// Adds the blocks' values to the system's StepState::regularization.
__device__ void add_to_state(double value, double* partial, unsigned* ticket, StepState& state) {
  double sum[1] = {value};
  block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum[0];
  if (!is_last_block(ticket, gridDim.x)) return;
  sum[0] = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads) sum[0] += __ldcg(partial + b);
  block_sum(sum);
  if (threadIdx.x == 0) state.regularization += sum[0];
}

/// Calls f(i, row, column, whether it is an interior node) for every node of the ray grid that is this thread's.
template <class F>
__device__ __forceinline__ void for_nodes(const RayGrid& nodes, F f) {
  const int n = nodes.rows * nodes.columns;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x) * kThreads) {
    const int row = i / nodes.columns, column = i % nodes.columns;
    f(i, row, column, row > 0 && column > 0 && row + 1 < nodes.rows && column + 1 < nodes.columns);
  }
}

/// Mean second derivatives of the network's potential over the interior nodes.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    mean_hessian_kernel(const int* list, RayGrid nodes, Real spacing, const Real* alpha_nn, double* partial,
                        unsigned* tickets, Hessian<Real>* means) {
  const int system = system_of_row(list, blockIdx.y), n = nodes.rows * nodes.columns;
  if (system < 0) return;
  const Real* alpha = alpha_nn + static_cast<std::size_t>(system) * 2 * n;
  partial += static_cast<std::size_t>(system) * 3 * gridDim.x;
  double sum[3] = {};
  for_nodes(nodes, [&](int, int row, int column, bool interior) {
    if (!interior) return;
    const Hessian<Real> h = difference_hessian(nodes, alpha, n, spacing, column, row);
    sum[0] += static_cast<double>(h.xx);
    sum[1] += static_cast<double>(h.yy);
    sum[2] += static_cast<double>(h.xy);
  });
  block_sum(sum);
  if (threadIdx.x == 0)
    for (int k = 0; k < 3; ++k) partial[3 * blockIdx.x + k] = sum[k];
  if (!is_last_block(tickets + system, gridDim.x)) return;
  for (double& part : sum) part = 0;
  for (unsigned b = threadIdx.x; b < gridDim.x; b += kThreads)
    for (int k = 0; k < 3; ++k) sum[k] += __ldcg(partial + 3 * b + k);
  block_sum(sum);
  const double count = nodes.interior();
  if (threadIdx.x == 0)
    means[system] = {static_cast<Real>(sum[0] / count), static_cast<Real>(sum[1] / count),
                     static_cast<Real>(sum[2] / count)};
}

/// Penalty and its cotangents at every node of the ray grid, as difference_hessian_adjoint() reads them.
template <class Real, bool kShared>
__global__ void __launch_bounds__(kThreads, 2)
    potential_penalty_kernel(const int* list, SceneArrays<Real> scenes, RayGrid nodes, Real spacing,
                             const Real* positions, const Real* parameters, const Real* alpha_nn,
                             const Regularization* weights, const Hessian<Real>* means, Real* hessian_bar,
                             double* partial, unsigned* tickets, StepState* states) {
  extern __shared__ double shared[];
  const int system = system_of_row(list, blockIdx.y), n = nodes.rows * nodes.columns;
  if (system < 0) return;
  const Scene<Real> scene = unpack<kShared>(scenes, system, parameters, shared);
  const Regularization w = weights[system];
  const Hessian<Real> mean = means[system];
  const Real* alpha = alpha_nn + static_cast<std::size_t>(system) * 2 * n;
  hessian_bar += static_cast<std::size_t>(system) * 3 * n;
  const Real share = Real(1) / static_cast<Real>(nodes.interior());
  double sum = 0;
  for_nodes(nodes, [&](int i, int row, int column, bool interior) {
    Hessian<Real> bar{};
    if (interior) {
      const int ray = nodes.ray(column, row);
      const Hessian<Real> hessian = difference_hessian(nodes, alpha, n, spacing, column, row);
      const Real kappa_macro = w.negative_total_convergence > 0
                                   ? macro_values(scene, Vec2<Real>{positions[ray], positions[n + ray]}).kappa
                                   : Real(0);
      sum += static_cast<double>(potential_penalty(w, hessian, mean, kappa_macro)) / nodes.interior();
      bar = potential_penalty_adjoint(w, hessian, mean, kappa_macro);
    }
    hessian_bar[i] = share * bar.xx;
    hessian_bar[n + i] = share * bar.yy;
    hessian_bar[2 * n + i] = share * bar.xy;
  });
  add_to_state(sum, partial + static_cast<std::size_t>(system) * gridDim.x, tickets + system, states[system]);
}

template <class Real>
__global__ void __launch_bounds__(kThreads)
    potential_penalty_adjoint_kernel(const int* list, RayGrid nodes, Real spacing, const Real* hessian_bar,
                                     Real* alpha_bar) {
  const int system = system_of_row(list, blockIdx.y), n = nodes.rows * nodes.columns;
  if (system < 0) return;
  hessian_bar += static_cast<std::size_t>(system) * 3 * n;
  alpha_bar += static_cast<std::size_t>(system) * 2 * n;
  for_nodes(nodes, [&](int, int row, int column, bool) {
    const int ray = nodes.ray(column, row);
    const Vec2<Real> bar = difference_hessian_adjoint(nodes, hessian_bar, spacing, column, row);
    alpha_bar[ray] += bar.x;
    alpha_bar[n + ray] += bar.y;
  });
}

/// ½ λ Σ w² over the kernels of the network, and its gradient λ w.
template <class Real>
__global__ void __launch_bounds__(kThreads)
    weight_decay_kernel(const int* list, NetworkKernels kernels, std::size_t parameter_stride, const Real* parameters,
                        const Regularization* weights, Real* gradient, double* partial, unsigned* tickets,
                        StepState* states) {
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const double decay = weights[system].weight_decay;
  parameters += system * parameter_stride;
  gradient += system * parameter_stride;
  double sum = 0;
  for (int layer = 0; layer < kernels.layers; ++layer)
    for (unsigned i = kernels.begin[layer] + blockIdx.x * kThreads + threadIdx.x; i < kernels.end[layer];
         i += gridDim.x * kThreads) {
      const auto w = static_cast<double>(parameters[i]);
      sum += 0.5 * decay * w * w;
      gradient[i] += static_cast<Real>(decay * w);
    }
  add_to_state(sum, partial + system * gridDim.x, tickets + system, states[system]);
}

/// Penalty on the pixels of a component of the source, and its gradient.
template <class Real>
__global__ void __launch_bounds__(kThreads, 4)
    source_pixels_kernel(const int* list, FreePixels block, std::size_t parameter_stride, const Real* parameters,
                         const Regularization* weights, Real* gradient, double* partial, unsigned* tickets,
                         StepState* states) {
  const int row = system_of_row(list, blockIdx.y);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const Regularization w = weights[system];
  const Real* pixels = parameters + system * parameter_stride + block.offset;
  gradient += system * parameter_stride + block.offset;
  const int n = block.nx * block.ny;
  double sum = 0;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < n;
       i += static_cast<int>(gridDim.x) * kThreads) {
    const int iy = i / block.nx, ix = i % block.nx;
    sum += static_cast<double>(source_pixel_penalty(w, pixels, block.nx, block.ny, ix, iy)) / n;
    gradient[i] += source_pixel_penalty_adjoint(w, pixels, block.nx, block.ny, ix, iy) / static_cast<Real>(n);
  }
  add_to_state(sum, partial + system * gridDim.x, tickets + system, states[system]);
}

/// Gaussian priors of the free scalars, backend.hpp (1), and their gradient: a block a system, as there are only a few.
/// @param table_bar  [systems][n_slots], overwritten
/// Without the 1 ptxas takes 48 registers and spills around the double-precision functions (sm_90).
template <class Real>
__global__ void __launch_bounds__(kThreads, 1)
    priors_kernel(const int* list, SceneArrays<Real> scenes, const GaussianPrior<Real>* priors, int n_priors,
                  const Real* weights, const Real* parameters, Real* table_bar, Real* gradient, StepState* states) {
  const int row = system_of_row(list, blockIdx.x);
  if (row < 0) return;
  const auto system = static_cast<std::size_t>(row);
  const int thread = static_cast<int>(threadIdx.x);
  const FreeParameter<Real>* free = scenes.free + system * static_cast<std::size_t>(scenes.n_free);
  const Real* u = parameters + system * scenes.parameter_stride + scenes.n_network;
  gradient += system * scenes.parameter_stride + scenes.n_network;
  priors += system * static_cast<std::size_t>(n_priors);
  const Real weight = weights[system];
  table_bar += system * static_cast<std::size_t>(scenes.n_slots());
  for (int i = thread; i < scenes.n_slots(); i += kThreads) table_bar[i] = 0;
  __syncthreads();
  for (int k = thread; k < n_priors; k += kThreads)  // one at most for a parameter
    table_bar[free[priors[k].free].slot] =
        weight * prior_penalty_adjoint(priors[k], transform(free, priors[k].free, u));
  __syncthreads();
  for (int i = thread; i < scenes.n_free; i += kThreads) gradient[i] += transform_adjoint(free, i, u, table_bar);
  if (thread > 0) return;
  double sum = 0;
  for (int k = 0; k < n_priors; ++k)
    sum += static_cast<double>(weight * prior_penalty(priors[k], transform(free, priors[k].free, u)));
  states[system].regularization += sum;
}

}  // namespace

template <class Real>
RegularizationStage<Real>::Sizes::Sizes(const std::vector<Problem>& problems)
    : systems(problems.size()), rays(static_cast<std::size_t>(problems.front().observation.grid.n_rays())) {
  const Problem& first = problems.front();
  bool on_pixels = false;
  for (const Problem& p : problems) {
    potential |= p.regularization.on_potential();
    curvature |= p.regularization.curvature > 0;
    decay |= p.regularization.weight_decay > 0;
    on_pixels |= p.regularization.on_source_pixels();
  }
  potential &= first.model.network && RayGrid(first.observation.grid).interior() > 0;
  curvature &= potential;
  decay &= first.model.network.has_value();
  if (decay) weights = first.model.network->size();
  if (on_pixels) source_pixels = free_source_pixels(first.model);
  const ParameterLayout layout(first.model);
  priors = layout.priors.size();
  if (priors > 0) slots = layout.table.size();
}
template <class Real>
unsigned RegularizationStage<Real>::Sizes::ray_blocks() const {
  return potential ? sum_blocks(static_cast<int>(rays)) : 0;
}
template <class Real>
unsigned RegularizationStage<Real>::Sizes::weight_blocks() const {
  return decay ? sum_blocks(static_cast<int>(weights)) : 0;
}
template <class Real>
unsigned RegularizationStage<Real>::Sizes::most_blocks() const {
  unsigned most = std::max(ray_blocks(), weight_blocks());
  for (const FreePixels& block : source_pixels) most = std::max(most, sum_blocks(block.nx * block.ny));
  return most;
}

template <class Real>
RegularizationStage<Real>::RegularizationStage(const std::vector<Problem>& problems, cudaStream_t stream)
    : sizes_(problems), grid_(problems.front().observation.grid) {
  allocate_all(storage_, stream, sizes_);
  upload(stream, 0, problems);
  if (!problems.front().model.network) return;
  const NetworkShape& shape = *problems.front().model.network;
  for (int l = shape.fixed_layers(); l < shape.layers(); ++l) {
    kernels_.begin[kernels_.layers] = static_cast<unsigned>(shape.kernel_offset(l));
    kernels_.end[kernels_.layers++] = static_cast<unsigned>(shape.bias_offset(l));
  }
}

template <class Real>
void RegularizationStage<Real>::upload(cudaStream_t stream, std::size_t first, const std::vector<Problem>& problems) {
  const Sizes needed(problems);
  EINFIELD_REQUIRE((!needed.potential || sizes_.potential) && (!needed.curvature || sizes_.curvature) &&
                       (!needed.decay || sizes_.decay) &&
                       (needed.source_pixels.empty() || !sizes_.source_pixels.empty()),
                   "a penalty that none of the problems loaded first has, expected one of theirs");
  std::vector<Regularization> weights;
  for (const Problem& problem : problems) weights.push_back(problem.regularization);
  storage_.weights.upload(weights.data(), weights.size(), stream, first);
  std::vector<GaussianPrior<Real>> priors;
  std::vector<Real> prior_weights;
  for (const Problem& problem : problems) {
    for (const GaussianPrior<double>& prior : ParameterLayout(problem.model).priors)
      priors.push_back({prior.free, static_cast<Real>(prior.mean), static_cast<Real>(prior.sigma)});
    if (sizes_.priors > 0) prior_weights.push_back(static_cast<Real>(1.0 / fitted_pixels(problem)));
  }
  storage_.priors.upload(priors.data(), priors.size(), stream, first * sizes_.priors);
  if (sizes_.priors > 0) storage_.prior_weights.upload(prior_weights.data(), prior_weights.size(), stream, first);
  EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
}

template <class Real>
std::size_t RegularizationStage<Real>::planned_bytes(const std::vector<Problem>& problems) {
  return planned_bytes_of<Storage>(Sizes(problems));
}

template <class Real>
void RegularizationStage<Real>::apply(const Queue& queue, const SceneArrays<Real>& scenes, const Real* positions,
                                      const Real* parameters, const Real* alpha_nn, Real* alpha_bar, Real* gradient,
                                      StepState* states) {
  const unsigned systems = rows_of(queue, sizes_.systems);
  const int* const list = queue.systems;
  if (sizes_.potential) {
    const RayGrid nodes(grid_);
    const Real spacing = static_cast<Real>(grid_.pixel_scale / grid_.supersampling);
    const dim3 blocks(sizes_.ray_blocks(), systems);
    if (sizes_.curvature) {
      mean_hessian_kernel<<<blocks, kThreads, 0, queue.stream>>>(list, nodes, spacing, alpha_nn, storage_.partial.get(),
                                                                 storage_.tickets.get(), storage_.mean_hessian.get());
      EINFIELD_LAUNCH_CHECK();
    }
    with_placement(scenes, [&](auto shared) {
      potential_penalty_kernel<Real, shared.value><<<blocks, kThreads, scenes.shared_bytes(), queue.stream>>>(
          list, scenes, nodes, spacing, positions, parameters, alpha_nn, storage_.weights.get(),
          storage_.mean_hessian.get(), storage_.hessian_bar.get(), storage_.partial.get(), storage_.tickets.get(),
          states);
      EINFIELD_LAUNCH_CHECK();
    });
    potential_penalty_adjoint_kernel<<<blocks, kThreads, 0, queue.stream>>>(list, nodes, spacing,
                                                                            storage_.hessian_bar.get(), alpha_bar);
    EINFIELD_LAUNCH_CHECK();
  }
  if (sizes_.decay) {
    weight_decay_kernel<<<dim3(sizes_.weight_blocks(), systems), kThreads, 0, queue.stream>>>(
        list, kernels_, scenes.parameter_stride, parameters, storage_.weights.get(), gradient, storage_.partial.get(),
        storage_.tickets.get(), states);
    EINFIELD_LAUNCH_CHECK();
  }
  for (const FreePixels& block : sizes_.source_pixels) {
    source_pixels_kernel<<<dim3(sum_blocks(block.nx * block.ny), systems), kThreads, 0, queue.stream>>>(
        list, block, scenes.parameter_stride, parameters, storage_.weights.get(), gradient, storage_.partial.get(),
        storage_.tickets.get(), states);
    EINFIELD_LAUNCH_CHECK();
  }
  if (sizes_.priors > 0) {
    priors_kernel<<<systems, kThreads, 0, queue.stream>>>(list, scenes, storage_.priors.get(),
                                                          static_cast<int>(sizes_.priors), storage_.prior_weights.get(),
                                                          parameters, storage_.table_bar.get(), gradient, states);
    EINFIELD_LAUNCH_CHECK();
  }
}

template class RegularizationStage<float>;
template class RegularizationStage<double>;

}  // namespace einfield::cuda
