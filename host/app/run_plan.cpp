// Memory is planned before it is allocated, so that a fit that cannot run says so at once.
#include "host/app/run_plan.hpp"

#include <algorithm>

#include "einfield/error.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/files/memory.hpp"
#include "host/fit/fit_memory.hpp"
#include "host/fit/laplace.hpp"
#include "host/fit/randomized.hpp"
#include "host/results/error_bars.hpp"

namespace einfield {
namespace {

/// [network] math is used as given, or it is an error.
void check_math(const Config& config, const std::string& backend, bool single) {
  if (!config.network || config.network->math == NetworkMath::fp32) return;
  const std::string key = config.at("network.math") + ": needs ",
                    found = std::string(", found \"") + name_of(config.network->math) + "\" with ";
  EINFIELD_REQUIRE(backend == "cuda",
                   key + "a CUDA device" + found + "the " + backend + " backend, expected \"fp32\" or --backend cuda");
  EINFIELD_REQUIRE(single, key + "single precision" + found + "double, expected \"fp32\" or --precision single");
}

/// Memory for the error bars, which follow the fit. Members that are fits of their own take as much as there is.
std::size_t error_bar_bytes(const Config& config, const Problem& problem, const FitSettings& settings) {
  const ParameterLayout layout(problem.model);
  const int threads = ThreadPool::resolve(settings.threads);
  const bool marginal = layout.n_network > 0 || !layout.free_pixels.empty();
  if (marginal && possible_method(config, problem, threads).first == UncertaintyKind::laplace)
    return Laplace::planned_bytes(problem, threads);
  if (config.uncertainty.method == UncertaintyKind::randomized &&
      settings.stages.back().optimizer == OptimizerKind::gauss_newton)
    return randomized_bytes(problem, config.uncertainty.members, threads);
  return 0;
}

}  // namespace

BackendChoice choose_backend(const Config& config, const RunOptions& options) {
  const BackendChoice choice = resolve_backend(options.backend, {options.threads, options.device});
  check_math(config, choice.name, !options.double_precision);
  return choice;
}

std::string MemoryPlan::text() const {
  return on_device > 0
             ? readable_bytes(on_device) + " planned on the device, " + readable_bytes(on_host) + " on the host"
             : readable_bytes(on_host) + " planned";
}

template <class Real>
MemoryPlan plan_memory(const Config& config, const LoadedProblem& loaded, const FitSettings& settings,
                       const Backend<Real>& backend, const BackendOptions& options) {
  const int members = config.network ? config.network->ensemble : 1;
  const bool on_host = backend.name() == "cpu";
  // Checked before the problems of all members are made.
  const int pairs = most_pairs(settings);
  const std::size_t bytes_of_one = planned_bytes<Real>(backend.name(), {loaded.problem}, options, pairs);
  const double host = std::max(planned_host_bytes(backend, loaded.problem, members, settings),
                               static_cast<double>(error_bar_bytes(config, loaded.problem, settings)));
  require_memory(host + (on_host ? members * static_cast<double>(bytes_of_one) : 0), "the fit");
  MemoryPlan plan;
  plan.problems = ensemble_problems(config, loaded.problem);
  const std::size_t of_backend = planned_bytes<Real>(backend.name(), plan.problems, options, pairs);
  plan.on_host = static_cast<std::size_t>(host) + (on_host ? of_backend : 0);
  plan.on_device = on_host ? 0 : of_backend + planned_device_bytes(backend, loaded.problem, members, settings);
  require_device_memory(backend, plan.on_device);
  return plan;
}

template MemoryPlan plan_memory(const Config&, const LoadedProblem&, const FitSettings&, const Backend<float>&,
                                const BackendOptions&);
template MemoryPlan plan_memory(const Config&, const LoadedProblem&, const FitSettings&, const Backend<double>&,
                                const BackendOptions&);

}  // namespace einfield
