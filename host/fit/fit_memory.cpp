#include "host/fit/fit_memory.hpp"

#include <algorithm>
#include <string>

#include "einfield/error.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/files/memory.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/make_scalar_batch.hpp"
#include "host/fit/scalar_model.hpp"
#ifdef EINFIELD_HAVE_CUDA
#include "host/fit/cuda_joint_algebra.hpp"
#include "host/fit/cuda_scalar_batch.hpp"
#include "kernels/cuda_backend.hpp"
#endif

namespace einfield {
namespace {

/// Copies of the pairs of L-BFGS: in the search, in its snapshot, and two more on the way of a checkpoint to the file.
constexpr double kPairCopies = 4;

}  // namespace

int most_pairs(const FitSettings& settings) {
  int pairs = 0;
  for (const StageSettings& stage : settings.stages)
    if (stage.optimizer == OptimizerKind::lbfgs) pairs = std::max(pairs, pairs_kept(stage.memory, stage.steps));
  return pairs;
}

namespace {

/// Bytes of one problem and of the vectors of its fit.
template <class Real>
double system_bytes(const Problem& problem, const FitSettings& settings) {
  const double pairs = most_pairs(settings);
  const ParameterLayout layout(problem.model);
  const auto size = static_cast<double>(layout.size()), pixels = static_cast<double>(problem.observation.mask.size());
  const auto model = static_cast<double>(layout.pixels.size() + layout.light_weights.size());
  double bytes = 0;
  bytes += sizeof(Real) * 4 * size;                        // Snapshot: parameters, moments, best_parameters
  bytes += sizeof(Real) * kPairCopies * 2 * pairs * size;  // a pair is two vectors
  bytes += sizeof(double) * (size + model + 2 * pixels);   // Problem: initial parameters, model, image, noise
  return bytes + pixels;                                   // its mask
}

bool uses(const FitSettings& settings, OptimizerKind optimizer) {
  return std::any_of(settings.stages.begin(), settings.stages.end(),
                     [optimizer](const StageSettings& stage) { return stage.optimizer == optimizer; });
}

/// Of any stage.
int most_starts(const FitSettings& settings) {
  int most = settings.starts;
  for (const StageSettings& stage : settings.stages) most = std::max({most, stage.starts, stage.valleys});
  return most;
}

}  // namespace

template <class Real>
double planned_host_bytes(const Backend<Real>& backend, const Problem& problem, int systems,
                          const FitSettings& settings) {
  const double of_systems = systems * system_bytes<Real>(problem, settings);
  // On a device: the rays and pixels of all systems, which are copied twice on their way.
  const int threads = ThreadPool::resolve(settings.threads);
  const std::size_t joint =
      uses(settings, OptimizerKind::gauss_newton) ? gauss_newton_bytes(problem, threads) : std::size_t(0);
  if (has_device_batch(backend, problem.observation))
    return of_systems + std::max(static_cast<double>(joint),
                                 3.0 * systems * static_cast<double>(ScalarModel::planned_bytes(problem, 0, 1)));
  // Several starts run side by side, one thread each. Otherwise one evaluator uses all threads, for a step or for the
  // uncertainties.
  const int starts = uses(settings, OptimizerKind::levenberg_marquardt) ? most_starts(settings) : 1;
  const std::size_t of_jacobian = starts > 1 ? ScalarModel::planned_bytes(problem, std::min(threads, starts), 1)
                                             : ScalarModel::planned_bytes(problem, 1, threads);
  // The stages follow each other.
  return of_systems + static_cast<double>(std::max(of_jacobian, joint));
}

template <class Real>
std::size_t planned_device_bytes([[maybe_unused]] const Backend<Real>& backend, [[maybe_unused]] const Problem& problem,
                                 [[maybe_unused]] int systems, [[maybe_unused]] const FitSettings& settings) {
#ifdef EINFIELD_HAVE_CUDA
  const int device = cuda_device_index(backend);
  if (device < 0) return 0;
  std::size_t rates = 0;  // of an update each, in double
  for (const StageSettings& stage : settings.stages) rates = std::max(rates, stage.schedule.learning_rates.size());
  const std::size_t bytes = static_cast<std::size_t>(systems) * rates * sizeof(double);
  // One system after the other; what follows comes after it.
  const std::size_t joint =
      uses(settings, OptimizerKind::gauss_newton) ? CudaJointAlgebra::planned_bytes(problem) : std::size_t(0);
  if (!has_device_batch(backend, problem.observation)) return bytes;
  if (ParameterLayout(problem.model).n_free() == 0) return bytes + joint;
  const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, nullptr);
  if (!uses(settings, OptimizerKind::levenberg_marquardt))
    return bytes + std::max(joint, CudaScalarBatch::planned_bytes(device, model, 1, 1));
  return bytes +
         std::max(joint, CudaScalarBatch::planned_bytes(device, model, systems, systems * most_starts(settings)));
#else
  return 0;
#endif
}

template <class Real>
void require_device_memory([[maybe_unused]] const Backend<Real>& backend, [[maybe_unused]] std::size_t bytes) {
#ifdef EINFIELD_HAVE_CUDA
  const int device = cuda_device_index(backend);
  if (device < 0) return;
  const std::size_t free = cuda_free_bytes(device);
  if (bytes > free)
    throw CudaError("CUDA device " + std::to_string(device) + " (" + backend.device() + "): the fit needs " +
                    readable_bytes(bytes) + " of device memory (" + std::to_string(bytes) + " bytes), free are " +
                    readable_bytes(free));
#endif
}

template double planned_host_bytes(const Backend<float>&, const Problem&, int, const FitSettings&);
template double planned_host_bytes(const Backend<double>&, const Problem&, int, const FitSettings&);
template std::size_t planned_device_bytes(const Backend<float>&, const Problem&, int, const FitSettings&);
template std::size_t planned_device_bytes(const Backend<double>&, const Problem&, int, const FitSettings&);
template void require_device_memory(const Backend<float>&, std::size_t);
template void require_device_memory(const Backend<double>&, std::size_t);

}  // namespace einfield
