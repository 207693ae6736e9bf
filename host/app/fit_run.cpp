// Load, plan, fit, assess; nothing is written here.
#include "host/app/fit_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/units.hpp"
#include "host/app/refit_members.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/files/memory.hpp"
#include "host/files/text.hpp"
#include "host/fit/make_scalar_batch.hpp"
#include "host/fit/uncertainties.hpp"
#include "host/model/source_grids.hpp"

namespace einfield {
namespace {

/// Runs what allocates the memory of a fit. @throws OutOfMemory when there is not enough
template <class Work>
void with_memory(const MemoryPlan& plan, const std::string& backend, const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("out of memory on the host, " + readable_bytes(plan.on_host) + " planned for the fit on the " +
                      backend + " backend");
  }
}

/// The head of the log: title, model, backend, memory.
template <class Real>
void report_plan(Log& log, const Config& config, const Backend<Real>& backend, const MemoryPlan& plan, int threads) {
  const bool on_device = has_device_batch(backend, plan.problems.front().observation);
  log.line("backend: " + backend.name() + " (" + backend.device() + "), " + (sizeof(Real) == 4 ? "single" : "double") +
           " precision, " + plan.text());
  if (config.optimizer.uses(OptimizerKind::gauss_newton))
    log.line(std::string("gauss_newton: ") +
             (on_device ? "rays on the CPU; dense Jacobian, normal equations and their solution on the device"
                        : "on the CPU") +
             ", double precision");
  if (config.optimizer.uses(OptimizerKind::levenberg_marquardt))
    log.line("levenberg_marquardt: " +
             (on_device ? "on the device"
                        : "on the CPU, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads")) +
             ", double precision");
}

/// How each of several stages ended.
void report_stages(Log& log, const Config& config, const std::vector<StageEnd>& ends) {
  const std::vector<StageConfig> stages = config.optimizer.all_stages();
  if (stages.size() < 2) return;
  const std::size_t first = stages.size() - ends.size();  // a resumed run has not made the earlier ones
  for (std::size_t k = 0; k < ends.size(); ++k) {
    const StageConfig& stage = stages[first + k];
    const bool ended = ends[k].reason != StopReason::steps;
    log.line(fmt::format("stage {} of {}: {} of {}: {} after {} steps", first + k + 1, stages.size(),
                         name_of(stage.name), stage.free.empty() ? "all" : joined(stage.free),
                         ended                               ? name_of(ends[k].reason)
                         : stage.name == OptimizerKind::adam ? "ended"
                                                             : "not converged",
                         ends[k].steps));
  }
}

/// Members with noise and priors drawn again: around a fit of gauss_newton with everything that it has, else by fits on
/// the backend.
template <class Real>
ErrorBarsOf randomized(Log& log, const Config& config, const LoadedProblem& loaded, const RunOptions& options,
                       Backend<Real>& backend, const FitSettings& settings, ThreadPool& pool) {
  const auto say = [&log](const std::string& line) { log.line(line); };
  const int members = config.uncertainty.members;
  if (settings.stages.back().optimizer != OptimizerKind::gauss_newton)
    return refit_error_bars(config, loaded, backend, settings, pool, say, options.interrupted);
  return randomized_error_bars(loaded.problem, config.uncertainty, pool, [&log, &options, members](int done) {
    if (done == members) log.line(fmt::format("uncertainty: {} members with noise and priors drawn again", members));
    return options.interrupted && options.interrupted();
  });
}

/// A model without a free parameter is evaluated once, which the CPU does.
BackendChoice backend_for(const Config& config, const RunOptions& options, const ParameterLayout& layout) {
  if (layout.size() > 0) return choose_backend(config, options);
  if (options.backend == "cuda")
    throw InvalidInput("--backend: nothing is free in " + config.file +
                       ": the model is evaluated once, found cuda, expected auto or cpu");
  RunOptions on_cpu = options;
  on_cpu.backend = "cpu";
  return choose_backend(config, on_cpu);
}

}  // namespace

template <class Real>
FitRun<Real>::FitRun(const Config& config, const RunOptions& options, Log& log)
    : config_(config), options_(options), log_(log) {
  for (const std::string& warning : config.warnings) log.warning(warning);
  loaded_ = load_problem(config);
  for (const std::string& warning : loaded_.warnings) log.warning(warning);

  const ParameterLayout layout(loaded_.problem.model);
  const BackendChoice choice = backend_for(config, options, layout);
  backend_ = make_backend<Real>(choice.name, choice.options);
  if (!config.title.empty()) log.line(config.title);
  if (log.speaks()) describe(log, loaded_, layout);
  for (const std::string& note : loaded_.notes) log.line(note);
  settings_ = fit_settings(config, loaded_.problem.model, options.log_every);
  settings_.threads = options.threads;
  plan_ = plan_memory(config, loaded_, settings_, *backend_, choice.options);
  settings_.ensemble = plan_.problems.size() > 1;
  if (!choice.reason.empty()) log.line("backend: auto chose the CPU because " + choice.reason);
  if (log.speaks()) report_plan(log, config, *backend_, plan_, ThreadPool::resolve(options.threads));
  validate_problems(plan_.problems);  // before their units are changed: messages have those of the configuration
}

template <class Real>
void FitRun<Real>::load() {
  plan_.problems = in_units(std::move(plan_.problems), units_of(loaded_.problem));
  with_memory(plan_, backend_->name(), [&] { backend_->load(plan_.problems); });
}

template <class Real>
bool FitRun<Real>::fit(const std::optional<Checkpoint<Real>>& resume,
                       const std::function<void(const std::vector<Snapshot<Real>>&)>& checkpoint) {
  FitCallbacks<Real> callbacks;
  callbacks.progress = [this](int member, const HistoryRow& row) {
    if (member == 0) log_.progress(row);
  };
  callbacks.starts = [this](int member, const StartsProgress& now) {
    if (member == 0) log_.starts(now, settings_.stages.size());
  };
  callbacks.checkpoint = checkpoint;
  callbacks.interrupted = options_.interrupted;
  results_ = einfield::fit(*backend_, plan_.problems, settings_, callbacks,
                           resume ? resume->snapshots : std::vector<Snapshot<Real>>{});
  return std::none_of(results_.begin(), results_.end(),
                      [](const auto& r) { return r.stop_reason == StopReason::interrupted; });
}

template <class Real>
std::vector<Snapshot<Real>> FitRun<Real>::snapshots() const {
  std::vector<Snapshot<Real>> snapshots;
  for (const FitResult<Real>& result : results_) snapshots.push_back(result.snapshot);
  return snapshots;
}

template <class Real>
Assessment FitRun<Real>::assess() {
  const Units units = units_of(loaded_.problem);
  const std::vector<FitResult<Real>> results = in_data_units(results_, loaded_.problem, units);
  set_source_grids(loaded_.problem.model, results.front().snapshot.grids);
  if (free()) report_stages(log_, config_, results.front().stages);
  report_starts(log_, results.front().snapshot.starts);
  const std::vector<double> centers = pixel_centers(loaded_.problem.observation.grid);
  const std::vector<Real> theta(centers.begin(), centers.end());
  std::vector<std::vector<Real>> images;
  std::vector<NetworkFields<Real>> networks;
  for (int member = 0; member < backend_->systems(); ++member) {
    images.push_back(model_image(*backend_, member, units));
    networks.push_back(network_fields(*backend_, member, theta, units));
  }
  ThreadPool pool(options_.threads);
  ErrorBarsOf error_bars;
  if (config_.uncertainty.method == UncertaintyKind::randomized)
    error_bars = randomized(log_, config_, loaded_, options_, *backend_, settings_, pool);
  Assessment fitted = einfield::assess(
      config_, loaded_, results, images, pool,
      [&](const Problem& problem, const std::vector<double>& at) {
        return scalar_uncertainties(*backend_, problem, at, pool);
      },
      networks, error_bars);
  const std::size_t known = config_.warnings.size() + loaded_.warnings.size();
  for (std::size_t i = known; i < fitted.warnings.size(); ++i) log_.warning(fitted.warnings[i]);
  return fitted;
}

template <class Real>
RunInfo FitRun<Real>::info() const {
  return {backend_->name(), backend_->device(), sizeof(Real) == 4 ? "single" : "double", options_.command};
}

template class FitRun<float>;
template class FitRun<double>;

}  // namespace einfield
