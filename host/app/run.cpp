// From configuration to directory of results: read, load, fit, write.
#include "host/app/run.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/units.hpp"
#include "host/app/refit_members.hpp"
#include "host/app/run_log.hpp"
#include "host/app/run_plan.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/exchange/fitted_lens.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/directory_lock.hpp"
#include "host/files/memory.hpp"
#include "host/files/text.hpp"
#include "host/fit/make_scalar_batch.hpp"
#include "host/fit/uncertainties.hpp"
#include "host/model/source_grids.hpp"
#include "host/report/figures.hpp"
#include "host/report/report.hpp"
#include "host/results/checkpoint.hpp"
#include "host/results/write_results.hpp"

namespace einfield {
namespace {

/// Whether there is something to resume: a job that is started again repeats its command, whatever it had done.
bool continues(const RunOptions& options) {
  return options.resume && has_checkpoint(options.out);
}

void prepare_output(const std::string& path) {
  create_directory(path);
  if (access(path.c_str(), W_OK | X_OK) != 0)
    throw IoError(path + ": cannot write into the directory (" + std::strerror(errno) + ")");
}

/// Draws the figures and writes the report, from memory.
void draw_all(Log& log, const Assessment& fitted, const std::string& json, const std::string& out) {
  const FittedMaps maps = fitted_maps(fitted);
  const std::vector<std::string> complaints = draw_figures(maps, out);
  for (const std::string& warning : complaints) log.warning(warning);
  // A problem with gnuplot affects the figures and the page alike: one warning for both.
  const ReportContent content{json, maps, fitted.derived.curves, {}};
  for (const std::string& warning : write_report(content, out))
    if (std::find(complaints.begin(), complaints.end(), warning) == complaints.end()) log.warning(warning);
}

/// Runs what allocates the memory of a fit. @throws IoError when there is not enough
template <class Work>
void with_memory(const MemoryPlan& plan, const std::string& backend, const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    throw IoError("out of memory on the host, " + readable_bytes(plan.on_host) + " planned for the fit on the " +
                  backend + " backend");
  }
}

/// The log, with the number of steps that all stages make at most.
Log log_of(const Config& config, const RunOptions& options) {
  int steps = 0;
  bool at_most = false;
  for (const StageConfig& stage : config.optimizer.all_stages()) {
    steps += stage.steps;
    at_most |= stage.stop != StopRule::none || stage.name != OptimizerKind::adam;
  }
  return Log(options, steps, at_most);
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

/// The evidence and the weights that it belongs to.
void report_evidence(Log& log, const Evidence& evidence) {
  std::string weights;
  for (const Regularization::Weight& weight : Regularization::kWeights)
    if (evidence.weights.*weight.member > 0)
      weights +=
          fmt::format("{}{} = {:.3g}", weights.empty() ? "" : ", ", weight.name, evidence.weights.*weight.member);
  log.line(
      fmt::format("ln evidence {:.2f}; the data determine {:.0f} parameters of the source and {:.0f} of the network",
                  evidence.log_evidence, evidence.determined_source, evidence.determined_network));
  if (!weights.empty()) log.line("regularization: " + weights);
  const std::optional<double> gain = evidence.network_gain();
  if (!gain) return;
  log.line(fmt::format("without the network ln evidence is {:.2f}: ", *evidence.without_network) +
           (*gain > kStrongEvidence ? fmt::format("the data ask for it, by {:.1f}", *gain)
            : *gain > 0             ? fmt::format("the network raises it by {:.1f} only", *gain)
                                    : "the data do not ask for one"));
}

/// Every flag on a line, and the status on the last line of the run.
RunOutcome report_verdict(Log& log, const Assessment& fitted) {
  RunOutcome outcome;
  outcome.status = fitted.status();
  std::vector<std::string> names;
  for (const RaisedFlag& raised : fitted.flags) {
    const FlagInfo& info = flag_info(raised.flag);
    log.line(std::string("flag: ") + info.name + ": " + raised.text);
    if (std::find(names.begin(), names.end(), info.name) == names.end()) names.emplace_back(info.name);
    if (info.status == FitStatus::failed && outcome.message.empty()) outcome.message = raised.text;
  }
  log.line(std::string("status: ") + name_of(outcome.status) + (names.empty() ? "" : " (" + joined(names) + ")"));
  return outcome;
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

/// Means, files, figures and report of a finished fit. @param of_fit  in units_of() the problem
/// @return the verdict, and why the fit has failed
template <class Real>
RunOutcome finish(Log& log, const Config& config, LoadedProblem loaded, const RunOptions& options,
                  Backend<Real>& backend, const FitSettings& settings, const std::vector<FitResult<Real>>& of_fit) {
  const Units units = units_of(loaded.problem);
  const std::vector<FitResult<Real>> results = in_data_units(of_fit, loaded.problem, units);
  set_source_grids(loaded.problem.model, results.front().snapshot.grids);
  if (ParameterLayout(loaded.problem.model).size() > 0) report_stages(log, config, results.front().stages);
  report_starts(log, results.front().snapshot.starts);
  const std::vector<double> centers = pixel_centers(loaded.problem.observation.grid);
  const std::vector<Real> theta(centers.begin(), centers.end());
  std::vector<std::vector<Real>> images;
  std::vector<NetworkFields<Real>> networks;
  for (int member = 0; member < backend.systems(); ++member) {
    images.push_back(model_image(backend, member, units));
    networks.push_back(network_fields(backend, member, theta, units));
  }
  ThreadPool pool(options.threads);
  ErrorBarsOf error_bars;
  if (config.uncertainty.method == UncertaintyKind::randomized)
    error_bars = randomized(log, config, loaded, options, backend, settings, pool);
  const Assessment fitted = assess(
      config, loaded, results, images, pool,
      [&](const Problem& problem, const std::vector<double>& at) {
        return scalar_uncertainties(backend, problem, at, pool);
      },
      networks, error_bars);
  const std::size_t known = config.warnings.size() + loaded.warnings.size();
  for (std::size_t i = known; i < fitted.warnings.size(); ++i) log.warning(fitted.warnings[i]);
  const RunInfo info{backend.name(), backend.device(), sizeof(Real) == 4 ? "single" : "double", options.command};
  const std::string json = write_results(options.out, fitted, info, {coolest_writer(fitted, options.threads)});
  if (options.figures) draw_all(log, fitted, json, options.out);
  if (const std::optional<Evidence>& evidence = fitted.outcome().evidence) report_evidence(log, *evidence);
  log.line(summary(fitted));
  if (fitted.significance) log.line(in_words(*fitted.significance, !fitted.kappa_psf.empty()));
  if (fitted.layout.size() == 0) log.line("nothing was free: the model was evaluated as it is given");
  log.line("results: " + options.out);
  return report_verdict(log, fitted);
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

template <class Real>
RunOutcome run(const Config& config, const RunOptions& options) {
  Log log = log_of(config, options);
  refuse_results(options);
  for (const std::string& warning : config.warnings) log.warning(warning);
  const LoadedProblem loaded = load_problem(config);
  for (const std::string& warning : loaded.warnings) log.warning(warning);

  const ParameterLayout layout(loaded.problem.model);
  const BackendChoice choice = backend_for(config, options, layout);
  const std::unique_ptr<Backend<Real>> backend = make_backend<Real>(choice.name, choice.options);
  if (!config.title.empty()) log.line(config.title);
  describe(log, loaded, layout);
  for (const std::string& note : loaded.notes) log.line(note);
  FitSettings settings = fit_settings(config, loaded.problem.model, options.log_every);
  settings.threads = options.threads;
  MemoryPlan plan = plan_memory(config, loaded, settings, *backend, choice.options);
  std::vector<Problem>& problems = plan.problems;
  if (!choice.reason.empty()) log.line("backend: auto chose the CPU because " + choice.reason);
  report_plan(log, config, *backend, plan, ThreadPool::resolve(options.threads));
  // A checkpoint that does not fit is refused before anything is written. The one that counts is read under the lock.
  if (continues(options))
    read_checkpoint<Real>(options.out, config, loaded.problem);
  else if (options.resume)
    log.line("--resume: " + options.out + " has no checkpoint, the fit begins");
  validate_problems(problems);  // before their units are changed: messages have those of the configuration
  if (options.dry_run) {
    log.line("dry run: nothing was fitted, nothing was written");
    return {std::nullopt, ""};
  }

  problems = in_units(std::move(problems), units_of(loaded.problem));
  with_memory(plan, backend->name(), [&] { backend->load(problems); });
  prepare_output(options.out);
  const DirectoryLock lock(options.out);
  if (!lock.locked())
    log.warning(options.out + ": this file system has no locks; make sure that no other run writes there");
  refuse_results(options);
  remove_abandoned_temporaries(options.out);
  std::optional<Checkpoint<Real>> resume;
  if (continues(options)) resume = read_checkpoint<Real>(options.out, config, loaded.problem);
  if (resume && resume->backend != backend->name())
    log.warning("the checkpoint was made by " + resume->backend + "; the run continues on " + backend->name() +
                ", but its results will differ in the last digits");

  FitCallbacks<Real> callbacks;
  callbacks.progress = [&log](int member, const HistoryRow& row) {
    if (member == 0) log.progress(row);
  };
  callbacks.starts = [&](int member, const StartsProgress& now) {
    if (member == 0) log.starts(now, settings.stages.size());
  };
  callbacks.checkpoint = [&](const std::vector<Snapshot<Real>>& snapshots) {
    write_checkpoint(options.out, config, loaded.problem, backend->name(), snapshots);
  };
  callbacks.interrupted = options.interrupted;
  settings.ensemble = problems.size() > 1;
  const std::vector<FitResult<Real>> results =
      fit(*backend, problems, settings, callbacks, resume ? resume->snapshots : std::vector<Snapshot<Real>>{});

  std::vector<Snapshot<Real>> snapshots;
  for (const FitResult<Real>& result : results) snapshots.push_back(result.snapshot);
  if (layout.size() > 0) callbacks.checkpoint(snapshots);  // else there is nothing to resume
  if (std::any_of(results.begin(), results.end(),
                  [](const auto& r) { return r.stop_reason == StopReason::interrupted; })) {
    log.line("interrupted after step " + std::to_string(results.front().steps) + "; --resume continues from " +
             options.out);
    return {StopReason::interrupted, ""};
  }
  RunOutcome outcome;
  try {
    outcome = finish(log, config, loaded, options, *backend, settings, results);
  } catch (const InterruptedMembers&) {
    log.line("interrupted during the error bars; --resume repeats them from " + options.out);
    return {StopReason::interrupted, ""};
  }
  // A failure of any member is the outcome of the run.
  const auto failed = std::find_if(results.begin(), results.end(), [](const auto& r) { return !r.message.empty(); });
  const FitResult<Real>& reported = failed == results.end() ? results.front() : *failed;
  outcome.stop_reason = reported.stop_reason;
  if (!reported.message.empty()) outcome.message = reported.message;
  return outcome;
}

}  // namespace

void refuse_results(const RunOptions& options) {
  std::error_code error;
  const auto status = std::filesystem::status(options.out, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
    throw InvalidInput("--out: " + options.out + " is a file, expected the name of a directory");
  if (!continues(options) && !options.overwrite && holds_results(options.out))
    throw InvalidInput("--out: " + options.out + " holds results, expected a new directory, --resume or --overwrite");
}

RunOutcome run_fit(const Config& config, const RunOptions& options) {
  return options.double_precision ? run<double>(config, options) : run<float>(config, options);
}

}  // namespace einfield
