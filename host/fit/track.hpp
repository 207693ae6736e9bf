// What the stages of a fit share: the systems on their way, and the rules for history, best state, stopping and
// snapshots. The optimizers are in adam_stage.cpp, lbfgs_stage.cpp and lm_stage.cpp.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "einfield/fitter.hpp"
#include "host/fit/lbfgs.hpp"

namespace einfield::stages {

/// What Adam moves, after a number of updates in this stage.
template <class Real>
struct AdamState {
  std::int64_t updates = 0;
  std::vector<Real> parameters, first_moment, second_moment;
};

/// The fit of one system.
template <class Real>
struct Track {
  Snapshot<Real> now;
  double earlier_s = 0;  ///< wall time spent before this run
  AdamState<Real> good;  ///< Adam: the last logged or saved state whose evaluation is finite
  bool bad = false;      ///< Adam: the last update was refused
  std::unique_ptr<Lbfgs<Real>> search;
  StepState evaluated;                       ///< L-BFGS: the evaluation that the search was given last
  typename Lbfgs<Real>::Answer answer = {};  ///< L-BFGS: the answer of the search to `evaluated`
  bool started = false;                      ///< L-BFGS: the start of this stage has been evaluated
  StepState accepted;                        ///< L-BFGS: the evaluation of its last position
  bool done = false;                         ///< with this stage
  bool failed = false;                       ///< for a non-finite number: later stages leave this system alone
  StopReason reason = StopReason::steps;
  std::string message;

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

  /// Asks the caller, once a step. From a `true` on the fit ends.
  bool ask_interrupted() {
    interrupted_ = interrupted_ || (callbacks_.interrupted && callbacks_.interrupted());
    return interrupted_;
  }
  void interrupt() { interrupted_ = true; }
  bool interrupted() const { return interrupted_; }

  /// Whether a snapshot is due after this step of the stage.
  bool is_due(std::int64_t step) const {
    return settings_.checkpoint_every > 0 && callbacks_.checkpoint && step > 0 &&
           step % settings_.checkpoint_every == 0;
  }
  /// Passes snapshots of all systems to the caller.
  void checkpoint() const;
  double elapsed(const Track<Real>& track) const {
    return track.earlier_s + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  bool logs(std::int64_t step) const { return step % settings_.log_every == 0; }

  /// Whether the state after this step of the stage is one of those that best_of_last chooses from.
  bool may_be_best(std::int64_t step) const {
    return keeps_last(stage().stop) && settings_.best_of_last > 0 &&
           stage_ + 1 == static_cast<int>(settings_.stages.size()) && step > stage().steps - settings_.best_of_last;
  }
  /// Keeps the parameters as the best ones when their value is the lowest so far.
  /// @param step  of this stage
  void keep_if_best(Track<Real>& track, std::int64_t step, double value, const std::vector<Real>& parameters) const {
    if (track.now.best_step >= 0 && value >= track.now.best_value) return;
    track.now.best_step = track.offset() + step;
    track.now.best_value = value;
    track.now.best_parameters = parameters;
  }
  /// Applies the stop rule of the stage to an evaluation; keeps the best state and the step of the last clear fall.
  /// @param parameters  returns those of the evaluation
  /// @return why the stage ends for this system, or nothing
  template <class Parameters>
  std::optional<StopReason> verdict(Track<Real>& track, std::int64_t step, const StepState& state,
                                    const Parameters& parameters) const {
    if (stage().stop == StopRule::none) return {};
    if (stage().stop == StopRule::chi2) {
      if (state.chi2_reduced <= settings_.stop_chi2) return StopReason::chi2;
      return {};
    }
    const bool held_out = stage().stop == StopRule::held_out;
    const double value = held_out ? state.held_out_chi2 : state.loss + state.regularization;
    Snapshot<Real>& now = track.now;
    if (now.best_step < 0 || value < now.fall_value * (1 - settings_.tolerance)) {
      now.fall_step = step;
      now.fall_value = value;
    }
    if (now.best_step < 0 || value < now.best_value) keep_if_best(track, step, value, parameters());
    if (step - now.fall_step < settings_.patience) return {};
    return held_out ? StopReason::held_out : StopReason::plateau;
  }

  /// Adds a row to the history and reports it. A stage begins where the one before it ended, so its first row replaces
  /// the last one.
  void record(int system, const StepState& state, std::int64_t step, const std::vector<Real>& parameters) {
    record(system, state, step, parameters, elapsed(track(system)));
  }
  void record(int system, const StepState& state, std::int64_t step, const std::vector<Real>& parameters,
              double time_s);

  AdamState<Real> download(int system, std::int64_t updates) const {
    return {updates, backend_.download(Field::parameters, system), backend_.download(Field::first_moment, system),
            backend_.download(Field::second_moment, system)};
  }
  void upload(int system, const AdamState<Real>& state) {
    backend_.upload(Field::parameters, system, state.parameters);
    backend_.upload(Field::first_moment, system, state.first_moment);
    backend_.upload(Field::second_moment, system, state.second_moment);
  }

 private:
  void require_settings() const;
  void require_problems() const;
  void resume_from(const std::vector<Snapshot<Real>>& resume);
  void enter_stage();
  std::vector<FitResult<Real>> results();
  std::vector<double> physical(const std::vector<Real>& parameters) const;

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
template <class Real>
void run_adam(FitRun<Real>& run);
template <class Real>
void run_lbfgs(FitRun<Real>& run);
template <class Real>
void run_levenberg_marquardt(FitRun<Real>& run);

/// The pairs of L-BFGS as Snapshot::memory.
template <class Real>
std::vector<Real> flattened(const std::vector<typename Lbfgs<Real>::Pair>& pairs);

}  // namespace einfield::stages
