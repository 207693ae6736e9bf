// From configuration to directory of results: what fit_run.hpp computes is written here.
#include "host/app/run.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "einfield/error.hpp"
#include "host/app/fit_run.hpp"
#include "host/app/run_log.hpp"
#include "host/app/write_fit.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/directory_lock.hpp"
#include "host/files/text.hpp"
#include "host/results/checkpoint.hpp"
#include "host/results/result_files.hpp"

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

template <class Real>
RunOutcome run(const Config& config, const RunOptions& options) {
  Log log = log_of(config, options);
  refuse_results(options);
  FitRun<Real> fit_run(config, options, log);
  const LoadedProblem& loaded = fit_run.loaded();
  const std::string backend = fit_run.backend().name();
  // A checkpoint that does not fit is refused before anything is written. The one that counts is read under the lock.
  if (continues(options))
    read_checkpoint<Real>(options.out, config, loaded.problem);
  else if (options.resume)
    log.line("--resume: " + options.out + " has no checkpoint, the fit begins");
  if (options.dry_run) {
    log.line("dry run: nothing was fitted, nothing was written");
    return {std::nullopt, ""};
  }

  fit_run.load();
  prepare_output(options.out);
  const DirectoryLock lock(options.out);
  if (!lock.locked())
    log.warning(options.out + ": this file system has no locks; make sure that no other run writes there");
  refuse_results(options);
  remove_abandoned_temporaries(options.out);
  std::optional<Checkpoint<Real>> resume;
  if (continues(options)) resume = read_checkpoint<Real>(options.out, config, loaded.problem);
  if (resume && resume->backend != backend)
    log.warning("the checkpoint was made by " + resume->backend + "; the run continues on " + backend +
                ", but its results will differ in the last digits");

  const auto checkpoint = [&](const std::vector<Snapshot<Real>>& snapshots) {
    write_checkpoint(options.out, config, loaded.problem, backend, snapshots);
  };
  const bool ended = fit_run.fit(resume, checkpoint);
  if (fit_run.free()) checkpoint(fit_run.snapshots());  // else there is nothing to resume
  const std::vector<FitResult<Real>>& results = fit_run.results();
  if (!ended) {
    log.line("interrupted after step " + std::to_string(results.front().steps) + "; --resume continues from " +
             options.out);
    return {StopReason::interrupted, ""};
  }
  RunOutcome outcome;
  try {
    outcome = write_fit(log, fit_run.assess(), fit_run.info(), options);
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
