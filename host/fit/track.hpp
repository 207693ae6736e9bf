// What the stages of a fit share: the systems on their way, and the rules for history, best state, stopping and
// snapshots. Adam and L-BFGS run on the backend (backend_stage.cpp), Levenberg–Marquardt in lm_stage.cpp,
// Gauss–Newton in gauss_newton_stage.cpp.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "einfield/fitter.hpp"

namespace einfield::stages {

/// The fit of one system.
template <class Real>
struct Track {
  Snapshot<Real> now;
  double earlier_s = 0;      ///< wall time spent before this run
  StageProgress progress;    ///< of a stage on the backend, at the last look
  std::int64_t counted = 0;  ///< of its evaluations, those that `now` counts
  bool done = false;         ///< with this stage
  bool failed = false;       ///< for a non-finite number: later stages leave this system alone
  StopReason reason = StopReason::steps;
  std::string message;
  std::vector<StageEnd> stages;

  /// Steps of the stages before this one.
  std::int64_t offset() const { return now.step - now.stage_step; }
  void forget_rows_from(std::int64_t step) {
    std::erase_if(now.history, [step](const HistoryRow& row) { return row.step >= step; });
  }
  void forget_best() {
    now.best_step = -1;
    now.best_value = 0;
    now.best_parameters.clear();
  }
  void end(StopReason why) {
    done = true;
    reason = why;
  }
  void fail(const StepState& bad_state, std::int64_t step) {
    message = std::string(bad_state.bad_loss ? "the loss" : "the gradient") + " is not finite in step " +
              std::to_string(step);
    failed = true;
  }
};

/// One field of all systems, copied at once.
template <class Real>
class Fields {
 public:
  Fields(const Backend<Real>& backend, Field field)
      : values_(backend.download(field)), size_(values_.size() / static_cast<std::size_t>(backend.systems())) {}
  std::vector<Real> of(int system) const {
    const auto first = values_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(system) * size_);
    return {first, first + static_cast<std::ptrdiff_t>(size_)};
  }

 private:
  std::vector<Real> values_;
  std::size_t size_;
};

/// One call of fit().
template <class Real>
class FitRun {
 public:
  FitRun(Backend<Real>& backend, const std::vector<Problem>& problems, const FitSettings& settings,
         const FitCallbacks<Real>& callbacks, const std::vector<Snapshot<Real>>& resume);

  std::vector<FitResult<Real>> run();

  Backend<Real>& backend() const { return backend_; }
  const std::vector<Problem>& problems() const { return problems_; }
  const FitSettings& settings() const { return settings_; }
  const FitCallbacks<Real>& callbacks() const { return callbacks_; }
  const StageSettings& stage() const { return settings_.stages[static_cast<std::size_t>(stage_)]; }
  bool is_first_stage() const { return stage_ == 0; }
  int stage_index() const { return stage_; }
  bool is_resumed() const { return resumed_; }

  int count() const { return static_cast<int>(tracks_.size()); }
  Track<Real>& track(int system) { return tracks_[static_cast<std::size_t>(system)]; }
  /// Calls work(system, track) for every system that this stage has not ended for.
  template <class Work>
  void each_active(Work&& work) {
    for (int i = 0; i < count(); ++i)
      if (!track(i).done) work(i, track(i));
  }
  bool all_done() const {
    return std::all_of(tracks_.begin(), tracks_.end(), [](const Track<Real>& track) { return track.done; });
  }

  /// Asks the caller, at every look. From a `true` on the fit ends.
  bool ask_interrupted() {
    interrupted_ = interrupted_ || (callbacks_.interrupted && callbacks_.interrupted());
    return interrupted_;
  }
  void interrupt() { interrupted_ = true; }
  bool interrupted() const { return interrupted_; }

  /// Whether a snapshot is due after this step of the stage, when the last look was at step `before`.
  bool is_due(std::int64_t before, std::int64_t step) const {
    const std::int64_t every = settings_.checkpoint_every;
    return every > 0 && callbacks_.checkpoint && step > 0 && step / every > before / every;
  }
  /// Passes snapshots of all systems to the caller.
  void checkpoint() const {
    std::vector<Snapshot<Real>> all;
    for (const Track<Real>& track : tracks_) all.push_back(track.now);
    callbacks_.checkpoint(all);
  }
  double elapsed(const Track<Real>& track) const {
    return track.earlier_s + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  bool logs(std::int64_t step) const { return step % settings_.log_every == 0; }
  /// The rules of the stage. best_of_last chooses among the last states of the last stage.
  StopSettings stop_settings() const {
    StopSettings stop{.rule = stage().stop,
                      .chi2 = settings_.stop_chi2,
                      .patience = settings_.patience,
                      .tolerance = settings_.tolerance,
                      .steps = stage().steps};
    if (stage().optimizer == OptimizerKind::adam && settings_.best_of_last > 0 &&
        stage_ + 1 == static_cast<int>(settings_.stages.size()))
      stop.keep_after = stage().steps - settings_.best_of_last;
    return stop;
  }
  /// Uploads a field of all systems in one copy. @param of  a vector of a track
  template <class Of>
  void upload(Field field, Of&& of) {
    std::vector<Real> all;
    for (const Track<Real>& track : tracks_) {
      const std::vector<Real>& part = of(track);
      all.insert(all.end(), part.begin(), part.end());
    }
    backend_.upload(field, all);
  }

  /// Adds a row to the history and reports it. A stage begins where the one before it ended, so its first row replaces
  /// the last one.
  void record(int system, const StepState& state, std::int64_t step, const std::vector<Real>& parameters) {
    record(system, state, step, parameters, elapsed(track(system)));
  }
  void record(int system, const StepState& state, std::int64_t step, const std::vector<Real>& parameters,
              double time_s);
  /// @param free  unconstrained values of the free scalars
  void record_free(int system, const StepState& state, std::int64_t step, const std::vector<double>& free,
                   double time_s);

 private:
  void require_settings() const;
  void require_problems() const;
  void resume_from(const std::vector<Snapshot<Real>>& resume);
  void enter_stage();
  std::vector<FitResult<Real>> results();

  Backend<Real>& backend_;
  const std::vector<Problem>& problems_;
  const FitSettings& settings_;
  const FitCallbacks<Real>& callbacks_;
  std::chrono::steady_clock::time_point start_;
  std::vector<Track<Real>> tracks_;
  int stage_ = 0;
  bool resumed_ = false, interrupted_ = false;
};

// The stages: each runs until it has ended for every system or the fit is interrupted.
/// Adam and L-BFGS.
template <class Real>
void run_on_backend(FitRun<Real>& run);
template <class Real>
void run_levenberg_marquardt(FitRun<Real>& run);
template <class Real>
void run_gauss_newton(FitRun<Real>& run);

}  // namespace einfield::stages
