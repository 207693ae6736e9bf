// A stage of Adam: one update a step, on the device. The host looks at a step only to log, to save or to stop.
#include <utility>

#include "host/fit/track.hpp"

namespace einfield::stages {
namespace {

template <class Real>
class AdamStage {
 public:
  explicit AdamStage(FitRun<Real>& run) : run_(run), before_(static_cast<std::size_t>(run.count())) {}

  void run() {
    std::int64_t step = run_.stage().steps;
    run_.each_active([&](int, const Track<Real>& track) { step = std::min(step, track.now.stage_step); });
    const std::int64_t first = step;
    for (; step < run_.stage().steps; ++step) {
      const Looks looks{run_.logs(step), run_.may_be_best(step), run_.is_due(step) && step > first,
                        run_.stage().stop != StopRule::none};
      fetch(step, looks);
      if (looks.stop) {
        run_.backend().evaluate(true);
        apply_stop_rule(step);
        if (run_.all_done()) return;
        run_.backend().adam();
      } else {
        run_.backend().step();
      }
      if (looks.any() && !look_at(step, looks)) break;
      if (run_.ask_interrupted()) break;
    }
    finish();
  }

 private:
  /// What the host needs of a step.
  struct Looks {
    bool log, keep, save, stop;
    bool any() const { return log || keep || save || stop; }
    bool state() const { return log || save; }
  };

  /// The numbers of a step belong to the parameters before its update, so these are fetched first.
  void fetch(std::int64_t step, const Looks& looks) {
    run_.each_active([&](int i, Track<Real>&) {
      AdamState<Real>& state = before_[static_cast<std::size_t>(i)];
      if (looks.state())
        state = run_.download(i, step);
      else if (looks.keep)
        state.parameters = run_.backend().download(Field::parameters, i);
    });
  }

  /// Ends the stage for the systems whose evaluation meets the stop rule.
  void apply_stop_rule(std::int64_t step) {
    run_.each_active([&](int i, Track<Real>& track) {
      const StepState state = run_.backend().state(i);
      if (!is_finite(state)) return;  // the update will be refused
      const auto parameters = [&] { return run_.backend().download(Field::parameters, i); };
      const std::optional<StopReason> reason = run_.verdict(track, step, state, parameters);
      if (!reason) return;
      move_to(track, run_.download(i, step));
      run_.record(i, state, track.now.step, track.now.parameters);
      track.end(*reason);
    });
  }

  /// Logs, keeps and saves what the evaluation of a step has shown to be finite. @return whether any system still moves
  bool look_at(std::int64_t step, const Looks& looks) {
    std::vector<StepState> states(before_.size());
    bool any_good = false;
    run_.each_active([&](int i, Track<Real>& track) {
      const StepState state = states[static_cast<std::size_t>(i)] = run_.backend().state(i);
      track.bad = state.bad_step != 0;
      if (track.bad) return;
      any_good = true;
      const AdamState<Real>& good = before_[static_cast<std::size_t>(i)];
      if (looks.keep) run_.keep_if_best(track, step, state.loss + state.regularization, good.parameters);
      if (looks.state()) move_to(track, good);
    });
    if (!any_good) return false;
    // Only states whose evaluation is finite are saved.
    if (looks.save) run_.checkpoint();
    run_.each_active([&](int i, Track<Real>& track) {
      if (track.bad || !looks.state()) return;
      AdamState<Real>& good = before_[static_cast<std::size_t>(i)];
      if (looks.log) run_.record(i, states[static_cast<std::size_t>(i)], track.now.step, good.parameters);
      track.good = std::move(good);
    });
    return true;
  }

  /// The last update is checked as every other one is: by the evaluation that follows it.
  void finish() {
    if (run_.all_done()) return;
    std::vector<StepState> states(before_.size());
    run_.backend().evaluate(true);
    std::vector<int> bad;
    run_.each_active([&](int i, Track<Real>&) {
      StepState& state = states[static_cast<std::size_t>(i)] = run_.backend().state(i);
      refuse_non_finite(state);
      if (state.bad_step != 0) {
        bad.push_back(i);
        return;
      }
      conclude(i, state, run_.download(i, state.updates),
               run_.interrupted() ? StopReason::interrupted : StopReason::steps);
    });
    for (const int i : bad) recover(i, states[static_cast<std::size_t>(i)]);
  }

  /// The parameters that gave a non-finite number are of no use. Those of the step before are the result: the steps
  /// since the last state known to be finite are repeated, which gives the same bits. The other systems move too;
  /// FitRun::results() restores them.
  void recover(int i, const StepState& bad) {
    Track<Real>& track = run_.track(i);
    Backend<Real>& backend = run_.backend();
    track.fail(bad, track.offset() + bad.bad_step);
    run_.upload(i, track.good);
    backend.set_updates(track.good.updates);
    for (std::int64_t updates = track.good.updates; updates < bad.bad_step - 2; ++updates) backend.step();
    backend.evaluate(true);
    const StepState state = backend.state(i);
    conclude(i, state, run_.download(i, state.updates), StopReason::non_finite);
  }

  void conclude(int i, const StepState& state, const AdamState<Real>& last, StopReason reason) {
    Track<Real>& track = run_.track(i);
    move_to(track, last);
    if (reason == StopReason::steps) {
      if (run_.may_be_best(last.updates))
        run_.keep_if_best(track, last.updates, state.loss + state.regularization, last.parameters);
      reason = run_.verdict(track, last.updates, state, [&] { return last.parameters; }).value_or(reason);
    }
    run_.record(i, state, track.now.step, last.parameters);
    track.end(reason);
  }

  /// Puts a state of Adam into the snapshot of its system.
  void move_to(Track<Real>& track, const AdamState<Real>& state) const {
    track.now.evaluations += state.updates - track.now.stage_step;
    track.now.step += state.updates - track.now.stage_step;
    track.now.stage_step = state.updates;
    track.now.time_s = run_.elapsed(track);
    track.now.parameters = state.parameters;
    track.now.first_moment = state.first_moment;
    track.now.second_moment = state.second_moment;
  }

  FitRun<Real>& run_;
  std::vector<AdamState<Real>> before_;  ///< per system, before the update of the step
};

}  // namespace

template <class Real>
void run_adam(FitRun<Real>& run) {
  AdamStage<Real>(run).run();
}

template void run_adam(FitRun<float>&);
template void run_adam(FitRun<double>&);

}  // namespace einfield::stages
