#include "python/src/memory_fit.hpp"

#include <algorithm>
#include <filesystem>
#include <new>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/units.hpp"
#include "host/app/refit_members.hpp"
#include "host/app/run_plan.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/exchange/fitted_lens.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/directory_lock.hpp"
#include "host/files/memory.hpp"
#include "host/files/text.hpp"
#include "host/fit/uncertainties.hpp"
#include "host/model/source_grids.hpp"
#include "host/report/figures.hpp"
#include "host/report/report.hpp"
#include "host/results/checkpoint.hpp"
#include "host/results/result_json.hpp"
#include "host/results/write_results.hpp"

namespace einfield::python {
namespace {

/// The backend of a fit. A model without a free parameter is evaluated once, which the CPU does.
BackendChoice choose(const Config& config, const FitOptions& options, const ParameterLayout& layout) {
  const bool only_cpu = layout.size() == 0;
  EINFIELD_REQUIRE(!only_cpu || options.backend != "cuda",
                   "backend: nothing is free, the model is evaluated once, found cuda, expected auto or cpu");
  const BackendChoice choice = resolve_backend(only_cpu ? "cpu" : options.backend, {options.threads, options.device});
  if (config.network && config.network->math != NetworkMath::fp32) {
    const std::string found = std::string("network: math \"") + name_of(config.network->math) + "\" ";
    EINFIELD_REQUIRE(choice.name == "cuda", found + "on the CPU, expected \"fp32\" or backend=\"cuda\"");
    EINFIELD_REQUIRE(!options.double_precision, found + "in double precision, expected \"fp32\" or single precision");
  }
  return choice;
}

/// Error bars by members with noise and priors drawn again; nothing for other methods, which assess() computes.
template <class Real>
ErrorBarsOf randomized(const Config& config, const LoadedProblem& loaded, const FitOptions& options,
                       Backend<Real>& backend, const FitSettings& settings, ThreadPool& pool) {
  if (config.uncertainty.method != UncertaintyKind::randomized) return nullptr;
  const int members = config.uncertainty.members;
  if (settings.stages.back().optimizer != OptimizerKind::gauss_newton)
    return refit_error_bars(config, loaded, backend, settings, pool, options.note, options.interrupted);
  return randomized_error_bars(loaded.problem, config.uncertainty, pool, [&options, members](int done) {
    options.note("error bars: " + std::to_string(done) + " of " + std::to_string(members) + " members");
    return options.interrupted();
  });
}

/// The directory of a checkpoint, locked for the time of a fit.
template <class Real>
class CheckpointFolder {
 public:
  CheckpointFolder(const std::string& dir, const Config& config, const Problem& problem, const Backend<Real>& backend)
      : dir_(dir), config_(config), problem_(problem), backend_(backend.name()) {
    if (dir.empty()) return;
    create_directory(dir);
    lock_.emplace(dir);
    remove_abandoned_temporaries(dir);
    if (!has_checkpoint(dir)) return;
    Checkpoint<Real> found = read_checkpoint<Real>(dir, config, problem);
    snapshots_ = std::move(found.snapshots);
    if (found.backend != backend_)
      warning_ = dir + ": the checkpoint was made by " + found.backend + "; the fit continues on " + backend_ +
                 ", but its results will differ in the last digits";
  }

  const std::vector<Snapshot<Real>>& snapshots() const { return snapshots_; }
  const std::string& warning() const { return warning_; }
  void write(const std::vector<Snapshot<Real>>& snapshots) const {
    if (lock_) write_checkpoint(dir_, config_, problem_, backend_, snapshots);
  }

 private:
  std::string dir_;
  const Config& config_;
  const Problem& problem_;
  std::string backend_, warning_;
  std::optional<DirectoryLock> lock_;
  std::vector<Snapshot<Real>> snapshots_;
};

/// The configuration with files of a directory of results in the place of arrays.
Config config_in(Config config, const std::string& dir) {
  const auto put = [&dir](FitsReference& reference, const char* hdu) {
    if (reference.array) reference = {in(dir, "result.fits"), hdu, {}, nullptr};
  };
  ObservationConfig& o = config.observation;
  put(o.image, "DATA");
  if (o.noise.map.array) o.noise.kind = NoiseKind::sigma;
  put(o.noise.map, "NOISE");
  put(o.psf.kernel, "PSF");
  if (o.mask.array) o.mask_used = 1;
  put(o.mask, "MASK");
  return config;
}

}  // namespace

MemoryFit::MemoryFit(const Config& config, LoadedProblem loaded, const FitOptions& options)
    : threads_(options.threads) {
  if (options.double_precision)
    run<double>(config, std::move(loaded), options);
  else
    run<float>(config, std::move(loaded), options);
}

template <class Real>
void MemoryFit::run(const Config& config, LoadedProblem loaded, const FitOptions& options) {
  const ParameterLayout layout(loaded.problem.model);
  const BackendChoice choice = choose(config, options, layout);
  const std::unique_ptr<Backend<Real>> backend = make_backend<Real>(choice.name, choice.options);
  FitSettings settings = fit_settings(config, loaded.problem.model, options.log_every);
  settings.threads = options.threads;
  if (options.checkpoint.empty()) settings.checkpoint_every = 0;
  MemoryPlan plan = plan_memory(config, loaded, settings, *backend, choice.options);
  validate_problems(plan.problems);
  const Units units = units_of(loaded.problem);
  const std::vector<Problem> problems = in_units(std::move(plan.problems), units);
  try {
    backend->load(problems);
  } catch (const std::bad_alloc&) {
    throw IoError("out of memory on the host, " + readable_bytes(plan.on_host) + " planned for the fit");
  }
  const CheckpointFolder<Real> folder(options.checkpoint, config, loaded.problem, *backend);
  if (!folder.warning().empty()) loaded.warnings.push_back(folder.warning());
  FitCallbacks<Real> callbacks;
  callbacks.checkpoint = [&folder](const std::vector<Snapshot<Real>>& snapshots) { folder.write(snapshots); };
  callbacks.interrupted = options.interrupted;
  callbacks.progress = [&options](int member, const HistoryRow& row) {
    if (member == 0 && options.progress) options.progress(row);
  };
  settings.ensemble = problems.size() > 1;
  std::vector<FitResult<Real>> of_fit = fit(*backend, problems, settings, callbacks, folder.snapshots());
  std::vector<Snapshot<Real>> last;
  for (const FitResult<Real>& result : of_fit) last.push_back(result.snapshot);
  if (layout.size() > 0) folder.write(last);
  const std::vector<FitResult<Real>> results = in_data_units(std::move(of_fit), loaded.problem, units);

  set_source_grids(loaded.problem.model, results.front().snapshot.grids);
  const std::vector<double> centers = pixel_centers(loaded.problem.observation.grid);
  const std::vector<Real> theta(centers.begin(), centers.end());
  std::vector<std::vector<Real>> images;
  std::vector<NetworkFields<Real>> networks;
  for (int member = 0; member < backend->systems(); ++member) {
    images.push_back(model_image(*backend, member, units));
    networks.push_back(network_fields(*backend, member, theta, units));
  }
  ThreadPool pool(options.threads);
  const UncertaintiesOf uncertainties = [&](const Problem& problem, const std::vector<double>& at) {
    return scalar_uncertainties(*backend, problem, at, pool);
  };
  // What was interrupted gets no error bars: they take as long as a fit, and belong to its end.
  Config own = config;
  if (std::any_of(results.begin(), results.end(),
                  [](const auto& r) { return r.stop_reason == StopReason::interrupted; }))
    own.uncertainty.method = UncertaintyKind::spread;
  const auto assessed = [&](const ErrorBarsOf& bars) {
    return std::make_unique<Assessment>(assess(own, loaded, results, images, pool, uncertainties, networks, bars));
  };
  try {
    fit_ = assessed(randomized(own, loaded, options, *backend, settings, pool));
  } catch (const InterruptedMembers&) {
    own.uncertainty.method = UncertaintyKind::spread;
    fit_ = assessed(nullptr);
    fit_->warnings.push_back("uncertainty: interrupted, the error bars are those of method = \"spread\"");
  }
  info_ = {backend->name(), backend->device(), sizeof(Real) == sizeof(float) ? "single" : "double", ""};
  json_ = result_json(*fit_, info_);
}

std::vector<std::string> MemoryFit::save(const std::string& dir, bool figures, bool overwrite) const {
  std::error_code error;
  const auto status = std::filesystem::status(dir, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_directory(status))
    throw InvalidInput(dir + " is a file, expected the name of a directory");
  create_directory(dir);
  const DirectoryLock lock(dir);
  if (!overwrite && holds_results(dir))
    throw InvalidInput(dir + " holds results, expected a new directory or overwrite=True");
  Assessment fit = *fit_;
  fit.config = config_in(std::move(fit.config), std::filesystem::absolute(dir).lexically_normal().string());
  const std::string json = write_results(dir, fit, info_, {coolest_writer(fit, threads_)});
  if (!figures) return {};
  const FittedMaps maps = fitted_maps(fit);
  std::vector<std::string> warnings = draw_figures(maps, dir);
  for (const std::string& warning : write_report(ReportContent{json, maps, fit.derived.curves, {}}, dir))
    if (std::find(warnings.begin(), warnings.end(), warning) == warnings.end()) warnings.push_back(warning);
  return warnings;
}

}  // namespace einfield::python
