#include "host/fit/fit_memory.hpp"

#include <algorithm>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/scalar_model.hpp"

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

}  // namespace

template <class Real>
double planned_host_bytes(const Problem& problem, int systems, const FitSettings& settings) {
  const bool by_jacobian = std::any_of(settings.stages.begin(), settings.stages.end(), [](const StageSettings& stage) {
    return stage.optimizer == OptimizerKind::levenberg_marquardt;
  });
  // Several starts run side by side, one thread each. Otherwise one evaluator uses all threads, for a step or for the
  // uncertainties.
  const int threads = ThreadPool::resolve(settings.threads), starts = by_jacobian ? settings.starts : 1;
  const std::size_t of_jacobian = starts > 1 ? ScalarModel::planned_bytes(problem, std::min(threads, starts), 1)
                                             : ScalarModel::planned_bytes(problem, 1, threads);
  return systems * system_bytes<Real>(problem, settings) + static_cast<double>(of_jacobian);
}

template double planned_host_bytes<float>(const Problem&, int, const FitSettings&);
template double planned_host_bytes<double>(const Problem&, int, const FitSettings&);

}  // namespace einfield
