// What is wrong with one lens becomes a row with a flag; what is wrong with the machine ends the run.
#include "host/app/batch_lens.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <new>
#include <sstream>
#include <vector>

#include "einfield/error.hpp"
#include "host/app/fit_run.hpp"
#include "host/app/write_fit.hpp"
#include "host/batch/survey_run.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"
#include "host/results/checkpoint.hpp"

namespace einfield {
namespace {

using Clock = std::chrono::steady_clock;

/// Shorter fits leave no checkpoint on their way: killed, they begin again.
constexpr std::chrono::seconds kBetweenCheckpoints{60};

/// The machine cannot write: no fault of the lens. Not an exception of the standard library, so that no handler for
/// faults of lenses takes it.
struct CannotWrite {
  std::exception_ptr error;
};

template <class Work>
void writing(const Work& work) {
  try {
    work();
  } catch (const IoError&) {
    throw CannotWrite{std::current_exception()};
  }
}

void remove_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);  // a rest does not matter: it is written over
}

/// The folder of the checkpoint of a lens.
std::string checkpoint_folder(const SurveyLens& lens, const BatchOptions& options) {
  return in(in(options.out, "checkpoints"), folder_name(lens.id));
}

/// A checkpoint that fits to this lens; a damaged or foreign one is left out, and the fit begins.
template <class Real>
std::optional<Checkpoint<Real>> checkpoint_of(const std::string& folder, const Config& config,
                                              const FitRun<Real>& run) {
  if (!has_checkpoint(folder)) return std::nullopt;
  try {
    Checkpoint<Real> checkpoint = read_checkpoint<Real>(folder, config, run.loaded().problem);
    if (checkpoint.backend == run.backend().name()) return checkpoint;
  } catch (const InvalidInput&) {
    return std::nullopt;
  }
  return std::nullopt;
}

/// Writes the results of a lens that is kept; removes earlier ones of another.
void keep_results(Log& log, std::ostringstream& text, const Assessment& fitted, const RunInfo& info,
                  const BatchOptions& options, const RunOptions& run) {
  const bool kept = options.keep == Keep::all || (options.keep == Keep::flagged && fitted.status() != FitStatus::ok);
  if (!kept) {
    if (std::filesystem::exists(run.out)) remove_folder(run.out);
    return;
  }
  create_directory(run.out);
  write_fit(log, fitted, info, run);
  write_atomically(in(run.out, "log.txt"), text.str());
}

template <class Real>
std::optional<LensRow> fit_in(const Config& config, const SurveyLens& lens, const BatchOptions& options,
                              const std::function<bool()>& stopped) {
  std::ostringstream text;
  RunOptions run = options.run;
  run.out = in(in(options.out, "lenses"), folder_name(lens.id));
  run.threads = 1;
  run.terminal = false;
  run.log = run.warnings = options.keep == Keep::none ? nullptr : &text;
  run.interrupted = stopped;
  Log log = log_of(config, run);
  FitRun<Real> fit_run(config, run, log);
  fit_run.load();
  const bool writes = !options.out.empty();
  const std::string folder = writes ? checkpoint_folder(lens, options) : "";
  const auto write = [&](const std::vector<Snapshot<Real>>& snapshots) {
    writing([&] {
      create_directory(folder);
      write_checkpoint(folder, config, fit_run.loaded().problem, fit_run.backend().name(), snapshots);
    });
  };
  auto last = Clock::now();
  const auto now_and_then = [&](const std::vector<Snapshot<Real>>& snapshots) {
    if (!writes || Clock::now() - last < kBetweenCheckpoints) return;
    write(snapshots);
    last = Clock::now();
  };
  const auto interrupted = [&] {
    if (writes && fit_run.free()) write(fit_run.snapshots());
  };
  const std::optional<Checkpoint<Real>> resume =
      writes ? checkpoint_of<Real>(folder, config, fit_run) : std::optional<Checkpoint<Real>>();
  if (!fit_run.fit(resume, now_and_then)) {
    interrupted();
    return std::nullopt;
  }
  try {
    const Assessment fitted = fit_run.assess();
    LensRow row = row_of(fitted, fit_run.info());
    // A failure of any member is the outcome of the fit.
    for (const FitResult<Real>& result : fit_run.results())
      if (!result.message.empty()) row.message = result.message;
    if (writes) writing([&] { keep_results(log, text, fitted, fit_run.info(), options, run); });
    return row;
  } catch (const InterruptedMembers&) {
    interrupted();
    return std::nullopt;
  }
}

/// Runs what may fail because of one lens. What is wrong with the machine is thrown on.
template <class Work>
std::optional<LensRow> row_or_fault(const Work& work) {
  try {
    return work();
  } catch (const CannotWrite& fault) {
    std::rethrow_exception(fault.error);
  } catch (const BackendUnavailable&) {
    throw;
  } catch (const CudaError&) {
    throw;
  } catch (const CublasError&) {
    throw;
  } catch (const CufftError&) {
    throw;
  } catch (const InvalidInput& error) {
    return row_of(kBadInputFlag, error.what());
  } catch (const OutOfMemory& error) {
    return row_of(kNoMemoryFlag, error.what());
  } catch (const std::bad_alloc&) {
    return row_of(kNoMemoryFlag, "out of memory on the host");
  } catch (const std::exception& error) {
    return row_of(kNoFitFlag, error.what());
  }
}

/// The shape of a fit in words.
std::string shape_of(const LoadedProblem& loaded) {
  const Problem& problem = loaded.problem;
  const Grid& grid = problem.observation.grid;
  const ParameterLayout layout(problem.model);
  std::string text =
      fmt::format("{} x {} pixels, supersampling {}, PSF {} x {}, {} free parameters", grid.nx, grid.ny,
                  grid.supersampling, problem.observation.psf.nx, problem.observation.psf.ny, layout.n_free());
  if (!layout.free_pixels.empty()) text += fmt::format(", {} source pixels", layout.free_pixels.size());
  if (layout.n_network > 0) text += fmt::format(", {} network weights", layout.n_network);
  return text;
}

template <class Real>
LensPlan plan_in(const Config& config, RunOptions run) {
  run.threads = 1;
  run.log = run.warnings = nullptr;
  Log log = log_of(config, run);
  const FitRun<Real> fit_run(config, run, log);
  return {"", shape_of(fit_run.loaded()), static_cast<double>(fit_run.plan().on_host)};
}

}  // namespace

std::optional<LensRow> fit_lens(const SurveyLens& lens, const BatchOptions& options,
                                const std::function<bool()>& stopped) {
  const auto start = Clock::now();
  std::optional<LensRow> row = row_or_fault([&] {
    const Config config = config_of(lens);
    return options.run.double_precision ? fit_in<double>(config, lens, options, stopped)
                                        : fit_in<float>(config, lens, options, stopped);
  });
  if (row) {
    row->seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (!options.out.empty())
      if (const std::string folder = checkpoint_folder(lens, options); std::filesystem::exists(folder))
        remove_folder(folder);
  }
  return row;
}

LensPlan plan_lens(const SurveyLens& lens, const BatchOptions& options) {
  LensPlan plan;
  const std::optional<LensRow> fault = row_or_fault([&]() -> std::optional<LensRow> {
    const Config config = config_of(lens);
    plan = options.run.double_precision ? plan_in<double>(config, options.run) : plan_in<float>(config, options.run);
    return std::nullopt;
  });
  if (fault) plan.problem = fault->message;
  return plan;
}

}  // namespace einfield
