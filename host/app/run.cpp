// From configuration to result directory: read, load, fit, write; progress as lines or as a bar.
#include "host/app/run.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <ostream>
#include <utility>

#include "einfield/error.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/exchange/fitted_lens.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/directory_lock.hpp"
#include "host/files/memory.hpp"
#include "host/fit/fit_memory.hpp"
#include "host/fit/strengths.hpp"
#include "host/report/figures.hpp"
#include "host/report/report.hpp"
#include "host/results/checkpoint.hpp"
#include "host/results/write_results.hpp"

namespace einfield {
namespace {

template <class... Arguments>
std::string text(const char* format, Arguments... arguments) {
  char buffer[256];
  std::snprintf(buffer, sizeof buffer, format, arguments...);
  return buffer;
}

/// The log of a run; silent without a stream.
class Log {
 public:
  /// @param at_most  the fit may end before `steps`
  Log(const RunOptions& options, int steps, bool at_most)
      : stream_(options.log),
        warnings_(options.warnings),
        terminal_(options.terminal),
        steps_(steps),
        at_most_(at_most) {}
  ~Log() { end_bar(); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void line(const std::string& message) {
    end_bar();
    if (stream_) *stream_ << message << std::endl;
  }
  void warning(const std::string& message) {
    end_bar();
    if (warnings_) *warnings_ << "einfield: warning: " << message << std::endl;
  }

  /// A line, or the bar redrawn: step, reduced χ², steps/s, time left.
  void progress(const HistoryRow& row) {
    if (!stream_ || row.step == last_step_) return;  // a state that is gone back to has been told
    last_step_ = row.step;
    if (first_step_ < 0) {
      first_step_ = row.step;
      first_time_ = row.time_s;
    }
    const double seconds = row.time_s - first_time_;
    const double rate = seconds > 0 ? static_cast<double>(row.step - first_step_) / seconds : 0;
    const char* const most = at_most_ ? "at most " : "";
    std::string status = text(at_most_ ? "step %lld of at most %d  chi2 %.5g" : "step %lld/%d  chi2 %.5g",
                              static_cast<long long>(row.step), steps_, row.chi2_reduced);
    if (rate > 0)
      status += text("  %.1f steps/s  %s%.0f s left", rate, most, static_cast<double>(steps_ - row.step) / rate);
    if (!terminal_) {
      line(status);
      return;
    }
    winsize size{};
    const int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    // A line that wraps could not be redrawn.
    if (static_cast<int>(status.size()) >= columns) status.resize(static_cast<std::size_t>(columns) - 1);
    const int width = columns - static_cast<int>(status.size()) - 5;
    *stream_ << '\r';
    if (width >= 10) {
      const int done = steps_ > 0 ? static_cast<int>(row.step * width / steps_) : width;
      std::string bar(static_cast<std::size_t>(done), '=');
      bar.resize(static_cast<std::size_t>(width), ' ');
      *stream_ << '[' << bar << "] ";
    }
    *stream_ << status << "\033[K" << std::flush;
    bar_shown_ = true;
  }

 private:
  /// What follows, errors included, begins on a line of its own.
  void end_bar() {
    if (bar_shown_) *stream_ << std::endl;
    bar_shown_ = false;
  }

  std::ostream* stream_;
  std::ostream* warnings_;
  bool terminal_;
  int steps_;
  bool at_most_;
  bool bar_shown_ = false;
  std::int64_t first_step_ = -1, last_step_ = -1;
  double first_time_ = 0;
};

/// What a dry run and the head of every run say about the model.
void describe(Log& log, const LoadedProblem& loaded, const ParameterLayout& layout) {
  const Problem& problem = loaded.problem;
  const Observation& observation = problem.observation;
  log.line(text("image: %d x %d pixels of %g arcsec, %d used; PSF %d x %d; supersampling %d", observation.grid.nx,
                observation.grid.ny, observation.grid.pixel_scale, observation.n_used(), observation.psf.nx,
                observation.psf.ny, observation.grid.supersampling));
  if (observation.psf.supersampling > 1)
    log.line(text("PSF: %d samples per pixel and side, on the CPU", observation.psf.supersampling));
  if (loaded.wcs)
    log.line(text("sky: +y points to position angle %g degrees (North towards East)",
                  std::round(loaded.wcs->position_angle(M_PI / 2) * 100) / 100 + 0.0) +
             (loaded.wcs->right_handed() ? "" : ", mirrored"));
  std::string model = "model:";
  const auto add = [&model](const std::string& name, const char* profile) {
    model += " " + name + " " + profile + ",";
  };
  for (std::size_t i = 0; i < problem.model.lens.size(); ++i)
    add("lens." + std::to_string(i), lens_info(problem.model.lens[i].kind).name);
  for (std::size_t i = 0; i < problem.model.source.size(); ++i)
    add("source." + std::to_string(i), light_info(problem.model.source[i].kind).name);
  for (std::size_t i = 0; i < problem.model.lens_light.size(); ++i)
    add("lens_light." + std::to_string(i), light_info(problem.model.lens_light[i].kind).name);
  const auto add_network = [&model](const std::string& name, const NetworkShape& shape) {
    model += " " + name + " 2";
    if (shape.fourier_features > 0) model += "-" + std::to_string(shape.fourier_features) + " Fourier";
    for (const int width : shape.hidden) model.append(1, '-').append(std::to_string(width));
    model += "-1,";
  };
  if (const LightComponent* const shining = network_light(problem.model))
    add_network("light network", shining->network);
  if (problem.model.network) add_network("network", *problem.model.network);
  model.pop_back();
  log.line(model);
  const auto count = [](std::size_t n, const std::string& noun) {
    return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
  };
  const LightComponent* const light = network_light(problem.model);
  const std::size_t fixed = problem.model.network ? problem.model.network->fixed_size() : 0;
  const std::size_t of_light = layout.n_light_weights > 0 ? layout.n_light_weights - light->network.fixed_size() : 0;
  log.line("free: " + count(layout.n_network - fixed, "network weight") + ", " + count(layout.n_free(), "parameter") +
           ", " + count(layout.free_pixels.size(), "source pixel") +
           (of_light > 0 ? ", " + count(of_light, "light network weight") : ""));
}

/// How far the best start can be trusted.
void tell_starts(Log& log, const std::vector<StartRecord>& starts) {
  if (starts.empty()) return;
  int redrawn = 0;
  double best = kInfinity;
  for (const StartRecord& start : starts) {
    redrawn += start.redrawn;
    if (start.best) best = start.chi2_reduced;
  }
  const int reached = reached_best(starts);
  log.line(
      text("starts: %d of %zu reached the best, reduced chi2 %.5g, within %g; %d without a finite value drawn again",
           reached, starts.size(), best, kSameValley, redrawn));
  if (reached < 2)
    log.warning(
        text("optimizer.starts: only %d of %zu starts reached the best chi2, expected several before it is "
             "taken for the lowest; raise optimizer.starts",
             reached, starts.size()));
}

/// [network] math is used as given or is an error.
void check_math(const Config& config, const std::string& backend, bool single) {
  if (!config.network || config.network->math == NetworkMath::fp32) return;
  const std::string key = config.at("network.math") + ": needs ",
                    found = std::string(", found \"") + name_of(config.network->math) + "\" with ";
  EINFIELD_REQUIRE(backend == "cuda",
                   key + "a CUDA device" + found + "the " + backend + " backend, expected \"fp32\" or --backend cuda");
  EINFIELD_REQUIRE(single, key + "single precision" + found + "double, expected \"fp32\" or --precision single");
}

void make_directory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw IoError(path + ": cannot make the directory (" + error.message() + ")");
  if (access(path.c_str(), W_OK | X_OK) != 0)
    throw IoError(path + ": cannot write into the directory (" + std::strerror(errno) + ")");
}

/// Of fits that have not begun.
template <class Real>
std::vector<Snapshot<Real>> first_snapshots(const std::vector<Problem>& problems) {
  std::vector<Snapshot<Real>> snapshots;
  for (const Problem& problem : problems) {
    Snapshot<Real>& snapshot = snapshots.emplace_back();
    snapshot.parameters.assign(problem.initial_parameters.begin(), problem.initial_parameters.end());
    snapshot.first_moment.assign(snapshot.parameters.size(), Real(0));
    snapshot.second_moment.assign(snapshot.parameters.size(), Real(0));
  }
  return snapshots;
}

/// Figures and report of a fit, from memory.
void draw_all(Log& log, const Assessment& fitted, const std::string& json, const std::string& out, ThreadPool& pool) {
  const FittedMaps maps = fitted_maps(fitted);
  const std::vector<std::string> complaints = draw_figures(maps, out);
  for (const std::string& warning : complaints) log.warning(warning);
  // What keeps gnuplot from drawing the figures keeps it from drawing the page's: one warning for both.
  const ReportContent content{json, maps, critical_curves_of(maps, stored_lens(fitted), pool), {}};
  for (const std::string& warning : write_report(content, out))
    if (std::find(complaints.begin(), complaints.end(), warning) == complaints.end()) log.warning(warning);
}

template <class Real>
RunOutcome run(const Config& config, const RunOptions& options) {
  int steps = 0;
  bool at_most = false;
  const std::vector<StageConfig> stages = config.optimizer.all_stages();
  for (const StageConfig& stage : stages) {
    steps += stage.steps;
    at_most |= stage.stop != StopRule::none || stage.name != OptimizerKind::adam;
  }
  Log log(options, steps, at_most);
  const auto refuse_results = [&options] {
    if (!options.resume && !options.overwrite && holds_results(options.out))
      throw InvalidInput("--out: " + options.out + " holds results, expected a new directory, --resume or --overwrite");
  };
  refuse_results();

  for (const std::string& warning : config.warnings) log.warning(warning);
  const LoadedProblem loaded = load_problem(config);
  for (const std::string& warning : loaded.warnings) log.warning(warning);

  const BackendOptions backend_options{options.threads, options.device};
  // "auto" takes what can do the work.
  const bool cpu_only = options.backend == "auto" && loaded.problem.observation.psf.supersampling > 1;
  const std::unique_ptr<Backend<Real>> backend =
      make_backend<Real>(cpu_only ? "cpu" : options.backend, backend_options);
  check_math(config, backend->name(), sizeof(Real) == sizeof(float));
  if (!config.title.empty()) log.line(config.title);
  const ParameterLayout layout(loaded.problem.model);
  describe(log, loaded, layout);
  const bool choose = config.regularization.automatic;
  const bool by_jacobian = std::any_of(
      stages.begin(), stages.end(), [](const StageConfig& s) { return s.name == OptimizerKind::levenberg_marquardt; });
  const int threads = ThreadPool::resolve(options.threads);
  FitSettings settings = fit_settings(config, loaded.problem.model, options.log_every);
  settings.threads = options.threads;
  const bool on_host = backend->name() == "cpu";
  // Before the members of an ensemble are made: of a backend on the host, as many times one.
  const int members = std::max(config.network ? config.network->ensemble : 1, choose ? kStrengths : 1);
  const std::size_t bytes_of_one = planned_bytes<Real>(backend->name(), {loaded.problem}, backend_options);
  const double host = planned_host_bytes<Real>(loaded.problem, members, settings);
  require_memory(host + (on_host ? members * static_cast<double>(bytes_of_one) : 0), "the fit");
  std::vector<Problem> problems = ensemble_problems(config, loaded.problem);
  std::size_t of_backend = planned_bytes<Real>(backend->name(), problems, backend_options);
  if (choose)
    of_backend = std::max(
        of_backend, planned_bytes<Real>(backend->name(), strength_problems(config, loaded.problem), backend_options));
  const std::size_t bytes = static_cast<std::size_t>(host) + (on_host ? of_backend : 0);
  log.line("backend: " + backend->name() + " (" + backend->device() + "), " +
           (sizeof(Real) == 4 ? "single" : "double") + " precision, " +
           (on_host ? "" : readable_bytes(of_backend) + " planned on the device, ") + readable_bytes(bytes) +
           (on_host ? " planned" : " on the host"));
  if (by_jacobian)
    log.line("levenberg_marquardt: on the CPU, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads") +
             ", double precision");
  // Before anything is written; what counts is read again under the lock.
  if (options.resume) read_checkpoint<Real>(options.out, config, loaded.problem);
  if (options.dry_run) {
    validate_problems(problems);
    log.line("dry run: nothing was fitted, nothing was written");
    return {std::nullopt, ""};
  }

  const auto with_memory = [&](const auto& work) {
    try {
      work();
    } catch (const std::bad_alloc&) {
      throw IoError("out of memory on the host, " + readable_bytes(bytes) + " planned for the fit on the " +
                    backend->name() + " backend");
    }
  };
  with_memory([&] { backend->load(problems); });
  make_directory(options.out);
  const DirectoryLock lock(options.out);
  if (!lock.locked())
    log.warning(options.out + ": this file system has no locks; make sure that no other run writes there");
  refuse_results();
  remove_abandoned_temporaries(options.out);
  std::optional<Checkpoint<Real>> resume;
  if (options.resume) resume = read_checkpoint<Real>(options.out, config, loaded.problem);
  if (resume && resume->backend != backend->name())
    log.warning("the checkpoint was made by " + resume->backend + "; on " + backend->name() +
                " the run goes on, but not to the same bits");

  std::vector<TriedStrength> strengths = resume ? resume->strengths : std::vector<TriedStrength>{};
  const bool try_now = choose && strengths.empty();
  if (try_now) {
    with_memory([&] { strengths = try_strengths(*backend, config, loaded.problem, settings, options.interrupted); });
    if (strengths.empty()) {
      write_checkpoint(options.out, config, loaded.problem, backend->name(), first_snapshots<Real>(problems));
      log.line("interrupted before step 1; --resume continues from " + options.out);
      return {StopReason::interrupted, ""};
    }
    for (const TriedStrength& tried : strengths)
      log.line(text("regularization: %g times as strong: reduced chi2 of held-out pixels %.5g", tried.factor,
                    tried.held_out_chi2));
  }
  if (choose) {
    const double factor = best_strength(strengths);
    log.line(text("regularization: goes on %g times as strong", factor));
    for (Problem& problem : problems) problem.regularization = scaled(problem.regularization, factor);
    with_memory([&] { backend->load(problems); });
  }

  FitCallbacks<Real> callbacks;
  callbacks.progress = [&log](int system, const HistoryRow& row) {
    if (system == 0) log.progress(row);
  };
  callbacks.checkpoint = [&](const std::vector<Snapshot<Real>>& snapshots) {
    write_checkpoint(options.out, config, loaded.problem, backend->name(), snapshots, strengths);
  };
  callbacks.interrupted = options.interrupted;
  settings.ensemble = problems.size() > 1;
  const std::vector<FitResult<Real>> results = fit(
      *backend, problems, settings, callbacks, resume && !try_now ? resume->snapshots : std::vector<Snapshot<Real>>{});

  std::vector<Snapshot<Real>> snapshots;
  for (const FitResult<Real>& result : results) snapshots.push_back(result.snapshot);
  callbacks.checkpoint(snapshots);
  // What has gone wrong with any member is what the run has to tell.
  const FitResult<Real>* told = &results.front();
  for (const FitResult<Real>& result : results)
    if (told->message.empty() && !result.message.empty()) told = &result;
  RunOutcome outcome{told->stop_reason, told->message};
  if (std::any_of(results.begin(), results.end(),
                  [](const auto& r) { return r.stop_reason == StopReason::interrupted; })) {
    log.line("interrupted after step " + std::to_string(results.front().steps) + "; --resume continues from " +
             options.out);
    return {StopReason::interrupted, ""};
  }
  tell_starts(log, results.front().snapshot.starts);
  std::vector<std::vector<Real>> images;
  for (int system = 0; system < backend->systems(); ++system) images.push_back(backend->download(Field::model, system));
  ThreadPool pool(options.threads);
  const Assessment fitted = assess(config, loaded, results, images, strengths, pool);
  for (const MemberOutcome& member : fitted.outcomes)
    if (!member.left_out.empty() && member.message.empty()) log.warning(member.left_out);
  const RunInfo info{backend->name(), backend->device(), sizeof(Real) == 4 ? "single" : "double", options.command};
  const std::string json = write_results(options.out, fitted, info, {coolest_writer(fitted, options.threads)});
  if (options.figures) draw_all(log, fitted, json, options.out, pool);
  log.line(summary(fitted));
  log.line("results: " + options.out);
  return outcome;
}

}  // namespace

RunOutcome run_fit(const Config& config, const RunOptions& options) {
  return options.double_precision ? run<double>(config, options) : run<float>(config, options);
}

}  // namespace einfield
