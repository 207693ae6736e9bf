// A stage of Adam or L-BFGS. The backend moves the systems and judges every step; the host looks at them now and then:
// for the history, for snapshots, and to find out that all are done.
#include <algorithm>
#include <utility>

#include "host/fit/track.hpp"

namespace einfield::stages {
namespace {

template <class Real>
class BackendStage {
 public:
  explicit BackendStage(FitRun<Real>& run)
      : run_(run), backend_(run.backend()), adam_(run.stage().optimizer == OptimizerKind::adam) {}

  void run() {
    begin();
    while (!run_.all_done() && !run_.interrupted()) {
      backend_.advance(backend_.evaluations_per_look());
      look();
      if (!run_.all_done()) run_.ask_interrupted();
    }
    finish();
  }

 private:
  void begin() {
    const StageSettings& stage = run_.stage();
    std::vector<StageStart<Real>> starts;
    for (int i = 0; i < run_.count(); ++i) {
      Track<Real>& track = run_.track(i);
      const Snapshot<Real>& now = track.now;
      StageStart<Real> start;
      start.runs = !track.done;
      start.step = now.stage_step;
      start.pairs = now.memory;
      if (now.best_step >= 0)
        start.watch = {now.best_step - track.offset(), now.best_value, now.fall_step, now.fall_value};
      track.progress = {};
      track.progress.step = now.stage_step;
      track.counted = 0;
      first_steps_.push_back(now.stage_step);
      starts.push_back(std::move(start));
    }
    backend_.begin_stage(
        {stage.optimizer, stage.schedule, stage.memory, run_.stop_settings(), run_.settings().log_every}, starts);
    if (!run_.is_resumed()) return;
    if (adam_) {
      run_.upload(Field::first_moment,
                  [](const Track<Real>& t) -> const std::vector<Real>& { return t.now.first_moment; });
      run_.upload(Field::second_moment,
                  [](const Track<Real>& t) -> const std::vector<Real>& { return t.now.second_moment; });
    }
    for (int i = 0; i < run_.count(); ++i)
      if (const Snapshot<Real>& now = run_.track(i).now; now.best_step >= 0)
        backend_.upload(Field::best, i, now.best_parameters);
  }

  /// Takes over what the systems have done since the last look, and passes snapshots on when they are due.
  void look() {
    for (std::vector<StageRecord>& of_system : records_) of_system.clear();
    const std::vector<StageProgress> all = backend_.look(records_);
    bool save = false, first = true, any_moves = false;
    run_.each_active([&](int i, Track<Real>& track) {
      const std::int64_t before = saved_step(i, track.progress);
      track.progress = all[static_cast<std::size_t>(i)];
      track.now.time_s = run_.elapsed(track);
      for (const StageRecord& record : records_[static_cast<std::size_t>(i)])
        run_.record_free(i, record.state, track.offset() + record.step, record.free, track.now.time_s);
      if (track.progress.done) {
        track.done = true;
        track.reason = track.progress.reason;
        ended_.push_back(i);
        return;
      }
      any_moves = true;
      // The systems reach a step one after the other: once is enough.
      if (std::exchange(first, false)) save = run_.is_due(before, saved_step(i, track.progress));
    });
    if (!save || !any_moves) return;
    take_snapshots();
    run_.checkpoint();
  }

  /// The step of a snapshot: it holds a state whose evaluation is known to be finite. Adam has moved on since, or has
  /// found the last state not finite.
  std::int64_t saved_step(int i, const StageProgress& progress) const {
    const bool known = progress.evaluations == 0 || (progress.done && progress.reason != StopReason::non_finite);
    if (!adam_ || known) return progress.step;
    return std::max(progress.step - 1, first_steps_[static_cast<std::size_t>(i)]);
  }

  /// Brings the snapshots of all systems that this stage moves to the last look.
  void take_snapshots() {
    const auto fields = [this](Field field) { return Fields<Real>(backend_, field); };
    const Fields<Real> best = fields(Field::best), at = fields(adam_ ? Field::parameters : Field::position);
    if (!adam_) {
      std::vector<std::vector<Real>> pairs = backend_.pairs();
      for_moved([&](int i, Track<Real>& track) {
        if (track.reason != StopReason::non_finite) track.now.parameters = at.of(i);
        track.now.memory = std::move(pairs[static_cast<std::size_t>(i)]);
        set_counts(track, track.progress.step, best.of(i));
      });
      return;
    }
    const Fields<Real> first = fields(Field::first_moment), second = fields(Field::second_moment),
                       before = fields(Field::previous_parameters), first_before = fields(Field::previous_first_moment),
                       second_before = fields(Field::previous_second_moment);
    for_moved([&](int i, Track<Real>& track) {
      const bool moved = saved_step(i, track.progress) < track.progress.step;
      track.now.parameters = (moved ? before : at).of(i);
      track.now.first_moment = (moved ? first_before : first).of(i);
      track.now.second_moment = (moved ? second_before : second).of(i);
      set_counts(track, saved_step(i, track.progress), best.of(i));
    });
  }
  /// Those that this stage works or has worked on.
  template <class Work>
  void for_moved(Work&& work) {
    for (int i = 0; i < run_.count(); ++i)
      if (!run_.track(i).done || std::find(ended_.begin(), ended_.end(), i) != ended_.end()) work(i, run_.track(i));
  }

  /// Sets the counts and the best state of a snapshot from its progress. @param step  of this stage
  void set_counts(Track<Real>& track, std::int64_t step, std::vector<Real> best) const {
    Snapshot<Real>& now = track.now;
    const std::int64_t offset = track.offset();
    if (adam_)
      now.evaluations += step - now.stage_step;
    else
      now.evaluations += track.progress.evaluations - std::exchange(track.counted, track.progress.evaluations);
    now.step = offset + step;
    now.stage_step = step;
    const StopWatch& watch = track.progress.watch;
    if (watch.best_step < 0) return;
    now.best_step = offset + watch.best_step;
    now.best_value = watch.best_value;
    now.best_parameters = std::move(best);
    now.fall_step = watch.fall_step;
    now.fall_value = watch.fall_value;
  }

  void finish() {
    const bool interrupted = !run_.all_done();
    std::vector<StepState> states;
    if (interrupted && adam_) {  // the last update is checked as every other one is: by an evaluation
      backend_.evaluate(true);
      states = backend_.states();
    }
    run_.each_active([&](int i, Track<Real>& track) {
      ended_.push_back(i);
      track.end(StopReason::interrupted);
      if (!adam_) return;
      StepState& state = states[static_cast<std::size_t>(i)];
      refuse_non_finite(state);
      track.progress.state = state;
      if (state.bad_step != 0) track.reason = StopReason::non_finite;
      track.progress.reason = track.reason;
    });
    for (const int i : ended_) run_.track(i).progress.done = true;
    take_snapshots();
    std::vector<int> bad;
    for (const int i : ended_) {
      Track<Real>& track = run_.track(i);
      if (track.reason != StopReason::non_finite) {
        run_.record(i, track.progress.state, track.now.step, track.now.parameters, track.now.time_s);
      } else if (adam_) {
        bad.push_back(i);
      } else {
        track.fail(track.progress.state, track.now.step + 1);
        run_.record(i, track.progress.state, track.now.step, track.now.parameters, track.now.time_s);
      }
    }
    if (!bad.empty()) step_back(bad);
  }

  /// The parameters that gave a non-finite number are of no use: those before the last update, which the snapshots
  /// hold, are the result.
  void step_back(const std::vector<int>& bad) {
    for (const int i : bad) {
      Track<Real>& track = run_.track(i);
      Snapshot<Real>& now = track.now;
      track.fail(track.progress.state, track.offset() + track.progress.state.bad_step);
      backend_.upload(Field::parameters, i, now.parameters);
    }
    backend_.evaluate(true);
    const std::vector<StepState> states = backend_.states();
    for (const int i : bad)
      run_.record(i, states[static_cast<std::size_t>(i)], run_.track(i).now.step, run_.track(i).now.parameters,
                  run_.track(i).now.time_s);
  }

  FitRun<Real>& run_;
  Backend<Real>& backend_;
  bool adam_;
  std::vector<std::vector<StageRecord>> records_;  ///< per system, of the last look
  std::vector<std::int64_t> first_steps_;          ///< per system: of the stage, where this run began
  std::vector<int> ended_;                         ///< systems that this stage has ended for
};

}  // namespace

template <class Real>
void run_on_backend(FitRun<Real>& run) {
  BackendStage<Real>(run).run();
}

template void run_on_backend(FitRun<float>&);
template void run_on_backend(FitRun<double>&);

}  // namespace einfield::stages
