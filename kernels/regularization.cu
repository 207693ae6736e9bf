// Penalties on the network's potential and on source pixels, weight decay, Gaussian priors; the formulas are
// regularization.hpp's. Sums are made in double, block by block in index order.
#include "einfield/regularization.hpp"

#include <algorithm>
#include <string>

#include "einfield/cuda.hpp"
#include "kernels/arguments.cuh"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/render.cuh"
#include "kernels/storage.cuh"
#include "kernels/systems.cuh"

namespace einfield::cuda {
namespace {

/// Where the fitted kernels (not the biases) of a network lie in the flat vector.
struct NetworkKernels {
  int layers = 0;
  unsigned begin[kMaxHiddenLayers + 1] = {};
  unsigned end[kMaxHiddenLayers + 1] = {};
};

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
  if (thread == 0) {  // in order: two priors may share a parameter
    double sum = 0;
    for (int k = 0; k < n_priors; ++k) {
      const Real z = prior_deviation(priors[k], [&](int i) { return transform(free, i, u); });
      prior_adjoint(priors[k], z, [&](int i, Real bar) { table_bar[free[i].slot] += weight * bar; });
      sum += static_cast<double>(weight * z * z);
    }
    states[system].regularization += sum;
  }
  __syncthreads();
  for (int i = thread; i < scenes.n_free; i += kThreads) gradient[i] += transform_adjoint(free, i, u, table_bar);
}

/// What the problems ask for, and the numbers that fix every size.
struct RegularizationSizes {
  std::size_t systems, rays = 0, weights = 0;  ///< weights: network parameters
  bool potential = false, curvature = false, decay = false;
  std::size_t parameters = 0, free = 0, slots = 0, priors = 0;  ///< of a system
  std::vector<FreePixels> source_pixels;

  explicit RegularizationSizes(const std::vector<Problem>& problems) : systems(problems.size()) {
    EINFIELD_REQUIRE(systems > 0 && systems <= 65535,
                     "regularization: " + std::to_string(systems) + " systems, expected 1 ... 65535");
    const Problem& first = problems.front();
    rays = static_cast<std::size_t>(first.observation.grid.n_rays());
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
    parameters = layout.size();
    free = layout.n_free();
    slots = layout.table.size();
    priors = layout.priors.size();
    for (const Problem& p : problems) require_shape(p);
  }
  /// @throws InvalidInput for a problem of another shape than the first one
  void require_shape(const Problem& problem) const {
    const ParameterLayout layout(problem.model);
    EINFIELD_REQUIRE(layout.size() == parameters && layout.n_free() == free && layout.table.size() == slots &&
                         layout.priors.size() == priors &&
                         static_cast<std::size_t>(problem.observation.grid.n_rays()) == rays,
                     "regularization: problems of different shapes, expected the same grid, components, free "
                     "parameters and priors");
  }
  /// @throws InvalidInput for a penalty that the problems did not have
  void require_penalties(const RegularizationSizes& of) const {
    EINFIELD_REQUIRE((!of.potential || potential) && (!of.curvature || curvature) && (!of.decay || decay) &&
                         (of.source_pixels.empty() || !source_pixels.empty()),
                     "regularization: the new problem has a penalty that no problem had before, expected only "
                     "penalties of the problems "
                     "that were loaded together");
  }
  unsigned ray_blocks() const { return potential ? sum_blocks(static_cast<int>(rays)) : 0; }
  unsigned weight_blocks() const { return decay ? sum_blocks(static_cast<int>(weights)) : 0; }
  /// Of any kernel.
  unsigned most_blocks() const {
    unsigned most = std::max(ray_blocks(), weight_blocks());
    for (const FreePixels& block : source_pixels) most = std::max(most, sum_blocks(block.nx * block.ny));
    return most;
  }
};

template <class Real>
struct RegularizationStorage {
  DeviceBuffer<Regularization> weights;
  DeviceBuffer<Real> hessian_bar;
  DeviceBuffer<Hessian<Real>> mean_hessian;  ///< stays 0 where no curvature has a weight
  DeviceBuffer<double> partial;
  DeviceBuffer<unsigned> tickets;
  DeviceBuffer<GaussianPrior<Real>> priors;
  DeviceBuffer<Real> prior_weights;  ///< one over fitted_pixels()
  DeviceBuffer<Real> table_bar;      ///< of the priors

  template <class Take>
  void each(Take&& take, const RegularizationSizes& s) {
    take(weights, s.systems);
    take(hessian_bar, s.potential ? s.systems * 3 * s.rays : 0);
    take(mean_hessian, s.potential ? s.systems : 0);
    take(partial, s.systems * (s.curvature ? 3 : 1) * s.most_blocks());
    take(tickets, s.systems);
    take(priors, s.systems * s.priors);
    take(prior_weights, s.priors > 0 ? s.systems : 0);
    take(table_bar, s.priors > 0 ? s.systems * s.slots : 0);
  }
};

/// Device pointers of a call.
template <class Real>
struct RegularizedArrays {
  const Real *parameters, *alpha_nn;
  Real *alpha_bar, *gradient;
  StepState* states;
};

}  // namespace

template <class Real>
struct RegularizationStage<Real>::Impl {
  static constexpr const char* kName = "regularization";

  StageDevice device;
  RegularizationSizes sizes;
  Grid grid;
  NetworkKernels kernels;
  RegularizationStorage<Real> storage;

  Impl(const std::vector<Problem>& problems, cudaStream_t stream, Workspace workspace)
      : sizes(problems), grid(problems.front().observation.grid) {
    BufferSource source(kName, workspace, workspace_bytes_of<RegularizationStorage<Real>>(sizes));
    take_all(source, storage, stream, sizes);
    upload(stream, 0, problems);
    if (!problems.front().model.network) return;
    const NetworkShape& shape = *problems.front().model.network;
    for (int l = shape.fixed_layers(); l < shape.layers(); ++l) {
      kernels.begin[kernels.layers] = static_cast<unsigned>(shape.kernel_offset(l));
      kernels.end[kernels.layers++] = static_cast<unsigned>(shape.bias_offset(l));
    }
  }

  /// The weights and priors of the systems from `first` on; waits for the stream.
  void upload(cudaStream_t stream, std::size_t first, const std::vector<Problem>& problems) {
    std::vector<Regularization> weights;
    for (const Problem& problem : problems) weights.push_back(problem.regularization);
    storage.weights.upload(weights.data(), weights.size(), stream, first);
    std::vector<GaussianPrior<Real>> priors;
    std::vector<Real> prior_weights;
    for (const Problem& problem : problems) {
      for (const GaussianPrior<double>& prior : ParameterLayout(problem.model).priors)
        priors.push_back({prior.free, prior.other, static_cast<Real>(prior.factor), static_cast<Real>(prior.mean),
                          static_cast<Real>(prior.sigma)});
      if (sizes.priors > 0) prior_weights.push_back(static_cast<Real>(1.0 / fitted_pixels(problem)));
    }
    storage.priors.upload(priors.data(), priors.size(), stream, first * sizes.priors);
    if (sizes.priors > 0) storage.prior_weights.upload(prior_weights.data(), prior_weights.size(), stream, first);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));  // the vectors end here
  }

  /// Penalties on the network's potential.
  void on_potential(const Queue& queue, const SceneArrays<Real>& scenes, const Real* positions,
                    const RegularizedArrays<Real>& a) {
    const RayGrid nodes(grid);
    const Real spacing = static_cast<Real>(grid.pixel_scale / grid.supersampling);
    const dim3 blocks(sizes.ray_blocks(), rows_of(queue, sizes.systems));
    if (sizes.curvature) {
      mean_hessian_kernel<<<blocks, kThreads, 0, queue.stream>>>(queue.systems, nodes, spacing, a.alpha_nn,
                                                                 storage.partial.get(), storage.tickets.get(),
                                                                 storage.mean_hessian.get());
      EINFIELD_LAUNCH_CHECK();
    }
    with_placement(scenes, [&](auto shared) {
      potential_penalty_kernel<Real, shared.value><<<blocks, kThreads, scenes.shared_bytes(), queue.stream>>>(
          queue.systems, scenes, nodes, spacing, positions, a.parameters, a.alpha_nn, storage.weights.get(),
          storage.mean_hessian.get(), storage.hessian_bar.get(), storage.partial.get(), storage.tickets.get(),
          a.states);
      EINFIELD_LAUNCH_CHECK();
    });
    potential_penalty_adjoint_kernel<<<blocks, kThreads, 0, queue.stream>>>(queue.systems, nodes, spacing,
                                                                            storage.hessian_bar.get(), a.alpha_bar);
    EINFIELD_LAUNCH_CHECK();
  }
  /// Weight decay, penalties on source pixels, priors.
  void on_parameters(const Queue& queue, const SceneArrays<Real>& scenes, const RegularizedArrays<Real>& a) {
    const unsigned rows = rows_of(queue, sizes.systems);
    if (sizes.decay) {
      weight_decay_kernel<<<dim3(sizes.weight_blocks(), rows), kThreads, 0, queue.stream>>>(
          queue.systems, kernels, scenes.parameter_stride, a.parameters, storage.weights.get(), a.gradient,
          storage.partial.get(), storage.tickets.get(), a.states);
      EINFIELD_LAUNCH_CHECK();
    }
    for (const FreePixels& block : sizes.source_pixels) {
      source_pixels_kernel<<<dim3(sum_blocks(block.nx * block.ny), rows), kThreads, 0, queue.stream>>>(
          queue.systems, block, scenes.parameter_stride, a.parameters, storage.weights.get(), a.gradient,
          storage.partial.get(), storage.tickets.get(), a.states);
      EINFIELD_LAUNCH_CHECK();
    }
    if (sizes.priors > 0) {
      priors_kernel<<<rows, kThreads, 0, queue.stream>>>(queue.systems, scenes, storage.priors.get(),
                                                         static_cast<int>(sizes.priors), storage.prior_weights.get(),
                                                         a.parameters, storage.table_bar.get(), a.gradient, a.states);
      EINFIELD_LAUNCH_CHECK();
    }
  }
};

template <class Real>
RegularizationStage<Real>::RegularizationStage(const std::vector<Problem>& problems, cudaStream_t stream,
                                               Workspace workspace)
    : impl_(std::make_unique<Impl>(problems, stream, workspace)) {}
template <class Real>
RegularizationStage<Real>::~RegularizationStage() = default;
template <class Real>
RegularizationStage<Real>::RegularizationStage(RegularizationStage&&) noexcept = default;
template <class Real>
RegularizationStage<Real>& RegularizationStage<Real>::operator=(RegularizationStage&&) noexcept = default;

template <class Real>
std::size_t RegularizationStage<Real>::workspace_bytes(const std::vector<Problem>& problems) {
  return workspace_bytes_of<RegularizationStorage<Real>>(RegularizationSizes(problems));
}

template <class Real>
void RegularizationStage<Real>::replace(cudaStream_t stream, std::size_t system, const Problem& problem) {
  impl_->device.require_current(Impl::kName);
  require_system(Impl::kName, system, impl_->sizes.systems);
  impl_->sizes.require_shape(problem);
  impl_->sizes.require_penalties(RegularizationSizes(std::vector<Problem>{problem}));
  impl_->upload(stream, system, {problem});
}

template <class Real>
void RegularizationStage<Real>::apply(const Queue& queue, const RenderStage<Real>& render, View<const Real> parameters,
                                      View<const Real> alpha_nn, View<Real> alpha_bar, View<Real> gradient,
                                      View<StepState> states) {
  const RegularizationSizes& s = impl_->sizes;
  impl_->device.require_current(Impl::kName);
  if (!s.potential && !s.decay && s.source_pixels.empty() && s.priors == 0) return;
  const View<const Real> positions = render.positions();
  require_size(Impl::kName, "render.positions()", positions, 2 * s.rays);
  const SceneArrays<Real> scenes = SceneAccess::arrays(render);
  EINFIELD_REQUIRE(SceneAccess::systems(render) == s.systems && static_cast<std::size_t>(scenes.n_slots()) == s.slots &&
                       static_cast<std::size_t>(scenes.n_free) == s.free,
                   "regularization: a RenderStage of other models, expected those of the same problems");
  require_vectors(Impl::kName, "parameters", parameters, s.systems, scenes.parameter_stride, s.parameters);
  require_vectors(Impl::kName, "gradient", gradient, s.systems, scenes.parameter_stride, s.parameters);
  require_size(Impl::kName, "states", states, s.systems);
  const RegularizedArrays<Real> arrays{parameters.data(), alpha_nn.data(), alpha_bar.data(), gradient.data(),
                                       states.data()};
  if (s.potential) {
    require_size(Impl::kName, "alpha_nn", alpha_nn, 2 * s.systems * s.rays);
    require_size(Impl::kName, "alpha_bar", alpha_bar, 2 * s.systems * s.rays);
    SceneAccess::place(render, queue, parameters.data());
    impl_->on_potential(queue, scenes, positions.data(), arrays);
  }
  impl_->on_parameters(queue, scenes, arrays);
}

template class RegularizationStage<float>;
template class RegularizationStage<double>;

}  // namespace einfield::cuda
