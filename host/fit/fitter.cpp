// The loop of a fit: stages, when to log, keep, stop and hand out snapshots. The work of an evaluation is the
// backend's.
#include "einfield/fitter.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numbers>
#include <optional>
#include <utility>

#include "einfield/error.hpp"
#include "host/fit/lbfgs.hpp"
#include "host/fit/starts.hpp"

namespace einfield {
namespace {

template <class Real>
std::vector<Real> flattened(const std::vector<typename Lbfgs<Real>::Pair>& pairs) {
  std::vector<Real> flat;
  for (const auto& pair : pairs) {
    flat.insert(flat.end(), pair.move.begin(), pair.move.end());
    flat.insert(flat.end(), pair.change.begin(), pair.change.end());
  }
  return flat;
}

template <class Real>
std::vector<typename Lbfgs<Real>::Pair> pairs_of(const std::vector<Real>& flat, std::size_t n) {
  std::vector<typename Lbfgs<Real>::Pair> pairs;
  for (auto at = flat.begin(); at != flat.end(); at += static_cast<std::ptrdiff_t>(2 * n)) {
    const auto middle = at + static_cast<std::ptrdiff_t>(n);
    pairs.push_back({{at, middle}, {middle, middle + static_cast<std::ptrdiff_t>(n)}});
  }
  return pairs;
}

bool has_finite_loss(const StepState& state) {
  return std::isfinite(state.loss) && std::isfinite(state.regularization);
}
bool is_finite(const StepState& state) {
  return has_finite_loss(state) && std::isfinite(state.gradient_norm);
}
/// What FitResult::message says of a step whose numbers cannot be used.
std::string not_finite(bool bad_loss, std::int64_t step) {
  return std::string(bad_loss ? "the loss" : "the gradient") + " is not finite in step " + std::to_string(step);
}

template <class Real>
class Fit {
 public:
  Fit(Backend<Real>& backend, const FitSettings& settings, const FitCallbacks<Real>& callbacks,
      const std::vector<Snapshot<Real>>& resume)
      : backend_(backend),
        settings_(settings),
        callbacks_(callbacks),
        start_(std::chrono::steady_clock::now()),
        stages_(settings.stages),
        lenses_(static_cast<std::size_t>(backend.lenses())) {
    EINFIELD_REQUIRE(!lenses_.empty(), "a backend without problems, expected at least one");
    if (stages_.empty()) {
      stages_.resize(1);
      stages_[0].steps = settings.steps;
      stages_[0].stop = settings.stop;
    }
    for (const StageSettings& stage : stages_) {
      EINFIELD_REQUIRE(stage.steps >= 0, "steps = " + std::to_string(stage.steps) + ", expected >= 0");
      EINFIELD_REQUIRE(stage.memory >= 1, "memory = " + std::to_string(stage.memory) + ", expected >= 1");
      EINFIELD_REQUIRE(stage.optimizer != OptimizerKind::levenberg_marquardt ||
                           (settings.problems && settings.problems->size() == lenses_.size()),
                       "a stage of Levenberg-Marquardt without the problems of the backend");
    }
    EINFIELD_REQUIRE(settings.log_every >= 1, "log_every = " + std::to_string(settings.log_every) + ", expected >= 1");
    EINFIELD_REQUIRE(settings.patience >= 1, "patience = " + std::to_string(settings.patience) + ", expected >= 1");
    EINFIELD_REQUIRE(settings.tolerance >= 0 && settings.tolerance < 1,
                     "tolerance = " + std::to_string(settings.tolerance) + ", expected >= 0 and < 1");
    EINFIELD_REQUIRE(settings.starts >= 1, "starts = " + std::to_string(settings.starts) + ", expected >= 1");
    EINFIELD_REQUIRE(settings.starts == 1 || stages_[0].optimizer == OptimizerKind::levenberg_marquardt,
                     "several starts of a fit that does not begin with Levenberg-Marquardt");
    EINFIELD_REQUIRE(resume.empty() || resume.size() == lenses_.size(),
                     std::to_string(resume.size()) + " snapshots for " + std::to_string(lenses_.size()) + " lenses");
    resumed_ = !resume.empty();
    for (std::size_t i = 0; i < resume.size(); ++i) {
      EINFIELD_REQUIRE(resume[i].stage == resume[0].stage && resume[i].stage < static_cast<int>(stages_.size()),
                       "snapshots of stages that do not fit");
      Track& lens = lenses_[i];
      lens.now = resume[i];
      lens.earlier_s = resume[i].time_s;
      // Rows of the last step and later are written again by the steps that follow.
      if (!resume[i].stage_done) lens.forget_rows_from(resume[i].step);
      // With more steps than before, the last ones begin later.
      stage_ = resume[i].stage;
      if (keeps_last(stage().stop) && lens.now.best_step >= 0 && !may_be_best(lens.now.best_step - lens.offset()))
        lens.forget_best();
    }
  }

  std::vector<FitResult<Real>> run() {
    for (stage_ = resumed_ ? lenses_[0].now.stage : 0;; ++stage_) {
      enter_stage();
      switch (stage().optimizer) {
        case OptimizerKind::adam:
          run_adam();
          break;
        case OptimizerKind::lbfgs:
          run_lbfgs();
          break;
        case OptimizerKind::levenberg_marquardt:
          run_levenberg_marquardt();
          break;
      }
      if (interrupted_ || stage_ + 1 == static_cast<int>(stages_.size())) break;
    }
    return results();
  }

 private:
  /// What the optimiser moves, at a number of updates of this stage.
  struct Optimiser {
    std::int64_t updates = 0;
    std::vector<Real> parameters, first_moment, second_moment;
  };
  /// One lens on its way.
  struct Track {
    Snapshot<Real> now;
    double earlier_s = 0;
    Optimiser good;  ///< Adam: of the last record with finite numbers
    std::unique_ptr<Lbfgs<Real>> search;
    StepState evaluated;                       ///< what it was told last
    typename Lbfgs<Real>::Answer answer = {};  ///< and what it said
    bool told = false;                         ///< L-BFGS: the start of this stage has been evaluated
    StepState accepted;                        ///< L-BFGS: of its last position
    bool bad = false;                          ///< Adam: the last update was refused
    bool done = false;                         ///< with this stage
    bool failed = false;                       ///< for good
    StopReason reason = StopReason::steps;
    std::string message;

    std::int64_t offset() const { return now.step - now.stage_step; }  ///< steps of the stages before
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
  };

  const StageSettings& stage() const { return stages_[static_cast<std::size_t>(stage_)]; }
  int count() const { return static_cast<int>(lenses_.size()); }
  Track& track(int lens) { return lenses_[static_cast<std::size_t>(lens)]; }
  template <class Work>
  void each_active(Work&& work) {
    for (int i = 0; i < count(); ++i)
      if (!track(i).done) work(i, track(i));
  }
  bool all_done() const {
    return std::all_of(lenses_.begin(), lenses_.end(), [](const Track& lens) { return lens.done; });
  }

  Optimiser optimiser(int lens, std::int64_t updates) {
    return {updates, backend_.download(Field::parameters, lens), backend_.download(Field::first_moment, lens),
            backend_.download(Field::second_moment, lens)};
  }
  void upload(int lens, const Optimiser& state) {
    backend_.upload(Field::parameters, lens, state.parameters);
    backend_.upload(Field::first_moment, lens, state.first_moment);
    backend_.upload(Field::second_moment, lens, state.second_moment);
  }

  /// Every lens starts the stage from its snapshot, or from the result of the stage before.
  void enter_stage() {
    if (!settings_.stages.empty()) backend_.begin(stage().schedule);
    std::int64_t updates = 0;
    for (int i = 0; i < count(); ++i) {
      Track& lens = track(i);
      Snapshot<Real>& now = lens.now;
      if (resumed_) {
        upload(i, {0, now.parameters, now.first_moment, now.second_moment});
        updates = std::max(updates, now.stage_step);
      } else if (stage_ == 0) {
        now.parameters = backend_.download(Field::parameters, i);
        now.first_moment.assign(now.parameters.size(), Real(0));
        now.second_moment = now.first_moment;
      } else {
        if (now.best_step >= 0) now.parameters = now.best_parameters;
        now.first_moment.assign(now.parameters.size(), Real(0));
        now.second_moment = now.first_moment;
        now.stage = stage_;
        now.stage_step = 0;
        now.stage_done = false;
        now.memory.clear();
        now.fall_step = 0;
        now.fall_value = 0;
        lens.forget_best();
        backend_.upload(Field::parameters, i, now.parameters);
      }
      lens.good = {now.stage_step, now.parameters, now.first_moment, now.second_moment};
      lens.told = lens.bad = false;
      lens.done = lens.failed;
    }
    if (resumed_ && stage().optimizer == OptimizerKind::adam) backend_.set_updates(updates);
    resumed_ = false;
  }

  // ---- Adam ------------------------------------------------------------------------------------------------

  void run_adam() {
    const bool judged = stage().stop != StopRule::none;
    std::int64_t step = stage().steps;
    each_active([&](int, const Track& lens) { step = std::min(step, lens.now.stage_step); });
    const std::int64_t first = step;
    std::vector<Optimiser> before(lenses_.size());
    for (; step < stage().steps; ++step) {
      const bool log = step % settings_.log_every == 0;
      const bool keep = may_be_best(step);
      const bool save = due(step) && step > first;
      // The numbers of a step belong to the parameters before its update, so they are fetched first.
      each_active([&](int i, Track&) {
        Optimiser& state = before[static_cast<std::size_t>(i)];
        if (log || save)
          state = optimiser(i, step);
        else if (keep)
          state.parameters = backend_.download(Field::parameters, i);
      });

      if (judged) {
        backend_.evaluate(true);
        each_active([&](int i, Track& lens) {
          const StepState state = backend_.state(i);
          if (!is_finite(state)) return;  // the update will refuse
          const auto parameters = [&] { return backend_.download(Field::parameters, i); };
          const std::optional<StopReason> reason = verdict(lens, step, state, parameters);
          if (!reason) return;
          take(lens, optimiser(i, step));
          record(i, state, lens.now.step, lens.now.parameters);
          lens.end(*reason);
        });
        if (all_done()) return;
        backend_.adam();
      } else {
        backend_.step();
      }

      if (log || keep || save || judged) {
        std::vector<StepState> states(lenses_.size());
        bool any_good = false;
        each_active([&](int i, Track& lens) {
          const StepState state = states[static_cast<std::size_t>(i)] = backend_.state(i);
          lens.bad = state.bad_step != 0;
          if (lens.bad) return;
          any_good = true;
          const Optimiser& good = before[static_cast<std::size_t>(i)];
          if (keep) offer(lens, step, state.loss + state.regularization, good.parameters);
          if (log || save) take(lens, good);
        });
        if (!any_good) break;
        // Only states that have been evaluated and found good are handed out.
        if (save) hand_out();
        each_active([&](int i, Track& lens) {
          if (lens.bad || !(log || save)) return;
          Optimiser& good = before[static_cast<std::size_t>(i)];
          if (log) record(i, states[static_cast<std::size_t>(i)], lens.now.step, good.parameters);
          lens.good = std::move(good);
        });
      }
      if (callbacks_.interrupted && callbacks_.interrupted()) {
        interrupted_ = true;
        break;
      }
    }
    finish_adam();
  }

  /// The last update is judged as every other one is, by the evaluation that follows it.
  void finish_adam() {
    if (all_done()) return;
    std::vector<StepState> states(lenses_.size());
    backend_.evaluate(true);
    std::vector<int> bad;
    each_active([&](int i, Track&) {
      StepState& state = states[static_cast<std::size_t>(i)] = backend_.state(i);
      if (state.bad_step == 0 && !is_finite(state)) {
        state.bad_step = state.updates + 1;
        state.bad_loss = !has_finite_loss(state);
      }
      if (state.bad_step != 0) {
        bad.push_back(i);
        return;
      }
      conclude(i, state, optimiser(i, state.updates), interrupted_ ? StopReason::interrupted : StopReason::steps);
    });
    for (const int i : bad) recover(i, states[static_cast<std::size_t>(i)]);
  }

  /// The parameters that gave a bad number are of no use. Those of the step before are: the steps since the last state
  /// known to be good are repeated, which gives the same bits. The other lenses move too, and are restored by
  /// results().
  void recover(int i, const StepState& bad) {
    Track& lens = track(i);
    lens.message = not_finite(bad.bad_loss, lens.offset() + bad.bad_step);
    upload(i, lens.good);
    backend_.set_updates(lens.good.updates);
    for (std::int64_t updates = lens.good.updates; updates < bad.bad_step - 2; ++updates) backend_.step();
    backend_.evaluate(true);
    const StepState state = backend_.state(i);
    conclude(i, state, optimiser(i, state.updates), StopReason::non_finite);
    lens.failed = true;
  }

  void conclude(int i, const StepState& state, const Optimiser& last, StopReason reason) {
    Track& lens = track(i);
    take(lens, last);
    StopReason why = reason;
    if (reason == StopReason::steps) {
      if (may_be_best(last.updates)) offer(lens, last.updates, state.loss + state.regularization, last.parameters);
      why = verdict(lens, last.updates, state, [&] { return last.parameters; }).value_or(reason);
    }
    record(i, state, lens.now.step, last.parameters);
    lens.end(why);
  }

  /// The optimiser's state as the lens's snapshot.
  void take(Track& lens, const Optimiser& state) {
    lens.now.evaluations += state.updates - lens.now.stage_step;
    lens.now.step += state.updates - lens.now.stage_step;
    lens.now.stage_step = state.updates;
    lens.now.time_s = elapsed(lens);
    lens.now.parameters = state.parameters;
    lens.now.first_moment = state.first_moment;
    lens.now.second_moment = state.second_moment;
  }

  // ---- L-BFGS ----------------------------------------------------------------------------------------------

  void run_lbfgs() {
    each_active([&](int, Track& lens) {
      lens.search = std::make_unique<Lbfgs<Real>>(lens.now.parameters, stage().memory,
                                                  pairs_of(lens.now.memory, lens.now.parameters.size()));
    });
    ThreadPool pool(std::min(ThreadPool::resolve(settings_.threads), count()));
    while (!all_done() && !interrupted_) {
      each_active([&](int i, Track& lens) { backend_.upload(Field::parameters, i, lens.search->trial()); });
      backend_.evaluate(true);
      tell(pool);
      bool save = false, first = true;
      each_active([&](int i, Track& lens) {
        const bool due = told(i, lens);
        if (std::exchange(first, false)) save = due;  // lenses reach a step one after the other: once is enough
      });
      if (save) hand_out();
      interrupted_ = callbacks_.interrupted && callbacks_.interrupted();
    }
    for (int i = 0; i < count(); ++i) {
      Track& lens = track(i);
      if (!lens.search) continue;
      if (!lens.done) lens.end(StopReason::interrupted);
      if (!lens.failed) record(i, lens.accepted, lens.now.step, lens.now.parameters);
      lens.now.memory = flattened<Real>(lens.search->pairs());
      lens.search.reset();
    }
  }

  /// Passes the evaluations on, to the searches of all lenses at a time.
  void tell(ThreadPool& pool) {
    struct Told {
      Track* lens;
      std::vector<Real> gradient;
    };
    std::vector<Told> all;
    each_active([&](int i, Track& lens) {
      lens.evaluated = backend_.state(i);
      lens.evaluated.learning_rate = 0;
      if (lens.told || is_finite(lens.evaluated)) all.push_back({&lens, backend_.download(Field::gradient, i)});
    });
    pool.parallel_for(static_cast<int>(all.size()), [&all](int i, int) {
      const auto& [lens, gradient] = all[static_cast<std::size_t>(i)];
      lens->answer = lens->search->tell(lens->evaluated.loss + lens->evaluated.regularization, gradient);
    });
  }

  /// What follows from an answer. @return whether a snapshot is due
  bool told(int i, Track& lens) {
    const StepState& state = lens.evaluated;
    ++lens.now.evaluations;
    const bool start = !std::exchange(lens.told, true);
    if (start && !is_finite(state)) {
      lens.message = not_finite(!has_finite_loss(state), lens.now.step + 1);
      record(i, state, lens.now.step, lens.now.parameters);
      lens.failed = true;
      lens.end(StopReason::non_finite);
      return false;
    }
    using Answer = typename Lbfgs<Real>::Answer;
    const Answer answer = lens.answer;
    if (answer == Answer::searching) return false;
    Snapshot<Real>& now = lens.now;
    const bool moved = lens.search->position() != now.parameters;
    if (!start && moved) {
      ++now.step;
      ++now.stage_step;
      now.parameters = lens.search->position();
    }
    now.time_s = elapsed(lens);
    if (!moved && !start) {  // the line search has ended where it began
      lens.end(StopReason::converged);
      return false;
    }
    lens.accepted = state;
    const std::optional<StopReason> reason = verdict(lens, now.stage_step, state, [&] { return now.parameters; });
    const bool last = reason || now.stage_step >= stage().steps || answer == Answer::stuck;
    if (now.stage_step % settings_.log_every == 0) record(i, state, now.step, now.parameters);
    if (last) lens.end(reason.value_or(answer == Answer::stuck ? StopReason::converged : StopReason::steps));
    return due(now.stage_step) && !start && !last;
  }

  // ---- Levenberg–Marquardt ---------------------------------------------------------------------------------

  /// A stage that takes seconds is not cut in two: interrupted, it has not begun, and is done again by the run that
  /// goes on.
  void run_levenberg_marquardt() {
    ThreadPool pool(settings_.threads);
    each_active([&](int i, Track& lens) {
      if (interrupted_) {
        lens.end(StopReason::interrupted);
        return;
      }
      descend(i, lens, pool);
    });
  }

  void descend(int i, Track& lens, ThreadPool& pool) {
    const Problem& problem = settings_.problems->at(static_cast<std::size_t>(i));
    Snapshot<Real>& now = lens.now;
    if (now.stage_done) {
      lens.end(StopReason::converged);
      return;
    }
    if (stage().steps == 0) {  // the model is evaluated as it is
      backend_.evaluate(true);
      record(i, backend_.state(i), now.step, now.parameters);
      lens.end(StopReason::steps);
      return;
    }
    // A stage that has ended for want of steps goes on from where it is.
    const bool begins = now.stage_step == 0;
    const int steps = stage().steps - static_cast<int>(now.stage_step);
    // Members of an ensemble differ in weights alone: they go on from where the best start of the first has ended.
    const bool follows = settings_.ensemble && begins && stage_ == 0 && i > 0 && !track(0).failed;
    if (follows) {
      const auto scalars = static_cast<std::ptrdiff_t>(backend_.layout().n_network);
      std::copy_n(track(0).now.parameters.begin() + scalars, backend_.layout().n_free(),
                  now.parameters.begin() + scalars);
    }
    const int starts = begins && stage_ == 0 && !follows ? settings_.starts : 1;
    const std::vector<double> parameters(now.parameters.begin(), now.parameters.end());
    const ScalarModel model(problem, parameters, problem.loss, stage().schedule.trainable, pool);
    StartsResult result =
        run_starts(problem.model, model, starts, settings_.starts_seed, steps, pool, callbacks_.interrupted);
    interrupted_ = result.interrupted;
    if (interrupted_) {
      lens.end(StopReason::interrupted);
      return;
    }
    if (starts > 1) now.starts = result.starts;
    now.evaluations += result.evaluations;
    const double began = now.time_s;
    now.time_s = elapsed(lens);
    if (!result.best) {
      lens.message = not_finite(true, now.step + 1);
      lens.failed = true;
      lens.end(StopReason::non_finite);
      return;
    }
    const std::vector<LevenbergMarquardt::Record>& path = result.best->records();
    std::vector<Real> moved = now.parameters;
    for (std::size_t k = 0; k < path.size(); ++k) {
      std::copy(path[k].u.begin(), path[k].u.end(),
                moved.begin() + static_cast<std::ptrdiff_t>(backend_.layout().n_network));
      const bool last = k + 1 == path.size();
      if (!last && static_cast<int>(k) % settings_.log_every != 0) continue;
      StepState state;
      state.loss = path[k].loss;
      state.chi2_reduced = path[k].chi2_reduced;
      state.regularization = path[k].penalty;
      state.gradient_norm = path[k].gradient_norm;
      // The path of the best start is known when all have ended: its steps share the time of them all.
      const double share = path.size() > 1 ? static_cast<double>(k) / static_cast<double>(path.size() - 1) : 1;
      record(i, state, now.step + static_cast<std::int64_t>(k), moved, began + share * (now.time_s - began));
    }
    now.parameters = moved;
    now.step += result.best->steps();
    now.stage_step += result.best->steps();
    now.stage_done = result.best->converged();
    lens.end(result.best->converged() ? StopReason::converged : StopReason::steps);
  }

  // ---- what all share --------------------------------------------------------------------------------------

  bool due(std::int64_t step) const {
    return settings_.checkpoint_every > 0 && callbacks_.checkpoint && step > 0 &&
           step % settings_.checkpoint_every == 0;
  }
  void hand_out() const {
    std::vector<Snapshot<Real>> all;
    for (const Track& lens : lenses_) {
      all.push_back(lens.now);
      if (lens.search) all.back().memory = flattened<Real>(lens.search->pairs());
    }
    callbacks_.checkpoint(all);
  }

  double elapsed(const Track& lens) const {
    return lens.earlier_s + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  bool may_be_best(std::int64_t step) const {
    return keeps_last(stage().stop) && settings_.best_of_last > 0 && stage_ + 1 == static_cast<int>(stages_.size()) &&
           step > stage().steps - settings_.best_of_last;
  }

  std::vector<double> physical(const std::vector<Real>& parameters) const {
    const ParameterLayout& layout = backend_.layout();
    std::vector<double> u, values;
    for (std::size_t i = 0; i < layout.n_free(); ++i)
      u.push_back(static_cast<double>(parameters[layout.n_network + i]));
    for (std::size_t i = 0; i < layout.n_free(); ++i)
      values.push_back(transform(layout.free.data(), static_cast<int>(i), u.data()));
    return values;
  }

  /// One row a step: a stage begins where the one before has ended.
  void record(int i, const StepState& state, std::int64_t step, const std::vector<Real>& parameters) {
    record(i, state, step, parameters, elapsed(track(i)));
  }
  void record(int i, const StepState& state, std::int64_t step, const std::vector<Real>& parameters, double time_s) {
    Track& lens = track(i);
    lens.forget_rows_from(step);
    HistoryRow row;
    row.step = step;
    row.time_s = time_s;
    row.loss = state.loss;
    row.chi2_reduced = state.chi2_reduced;
    row.held_out_chi2 = state.held_out_chi2;
    row.regularization = state.regularization;
    row.learning_rate = state.learning_rate;
    row.gradient_norm = state.gradient_norm;
    if (backend_.layout().n_free() > 0) row.free = physical(parameters);
    lens.now.history.push_back(row);
    if (callbacks_.progress) callbacks_.progress(i, row);
  }

  /// Takes the parameters as the best ones when their value is the lowest so far.
  /// @param step  of this stage
  void offer(Track& lens, std::int64_t step, double value, const std::vector<Real>& parameters) {
    if (lens.now.best_step >= 0 && value >= lens.now.best_value) return;
    lens.now.best_step = lens.offset() + step;
    lens.now.best_value = value;
    lens.now.best_parameters = parameters;
  }

  /// Applies the rule of the stage to an evaluation; keeps the best state and when it was last much better.
  /// @param parameters  gives those of the evaluation
  /// @return why the stage ends for this lens, or nothing
  template <class Parameters>
  std::optional<StopReason> verdict(Track& lens, std::int64_t step, const StepState& state,
                                    const Parameters& parameters) {
    if (stage().stop == StopRule::none) return {};
    if (stage().stop == StopRule::chi2) {
      if (state.chi2_reduced <= settings_.stop_chi2) return StopReason::chi2;
      return {};
    }
    const bool held_out = stage().stop == StopRule::held_out;
    const double value = held_out ? state.held_out_chi2 : state.loss + state.regularization;
    Snapshot<Real>& now = lens.now;
    if (now.best_step < 0 || value < now.fall_value * (1 - settings_.tolerance)) {
      now.fall_step = step;
      now.fall_value = value;
    }
    if (now.best_step < 0 || value < now.best_value) offer(lens, step, value, parameters());
    if (step - now.fall_step < settings_.patience) return {};
    return held_out ? StopReason::held_out : StopReason::plateau;
  }

  std::vector<FitResult<Real>> results() {
    std::vector<FitResult<Real>> results(lenses_.size());
    for (int i = 0; i < count(); ++i) {
      Track& lens = track(i);
      FitResult<Real>& result = results[static_cast<std::size_t>(i)];
      const bool whole = lens.reason == StopReason::steps || !keeps_last(stages_.back().stop);
      const bool best = lens.now.best_step >= 0 && whole && !interrupted_ && !lens.failed;
      result.stop_reason = lens.reason;
      result.message = lens.message;
      result.steps = lens.now.step;
      result.evaluations = lens.now.evaluations;
      result.state_step = best ? lens.now.best_step : lens.now.step;
      result.parameters = best ? lens.now.best_parameters : lens.now.parameters;
      backend_.upload(Field::parameters, i, result.parameters);
    }
    backend_.evaluate(true);
    for (int i = 0; i < count(); ++i) {
      Track& lens = track(i);
      FitResult<Real>& result = results[static_cast<std::size_t>(i)];
      result.final_state = backend_.state(i);
      result.time_s = lens.now.time_s;
      result.snapshot = std::move(lens.now);
    }
    return results;
  }

  Backend<Real>& backend_;
  const FitSettings& settings_;
  const FitCallbacks<Real>& callbacks_;
  std::chrono::steady_clock::time_point start_;
  std::vector<StageSettings> stages_;
  std::vector<Track> lenses_;
  int stage_ = 0;
  bool resumed_ = false, interrupted_ = false;
};

}  // namespace

template <class Real>
std::vector<FitResult<Real>> fit(Backend<Real>& backend, const FitSettings& settings,
                                 const FitCallbacks<Real>& callbacks, const std::vector<Snapshot<Real>>& resume) {
  return Fit<Real>(backend, settings, callbacks, resume).run();
}

std::vector<double> learning_rates(double rate, int steps, int warmup, bool cosine) {
  if (warmup == 0 && !cosine) return {rate};
  std::vector<double> rates;
  for (int i = 0; i < std::max(cosine ? steps : warmup + 1, 1); ++i) {
    if (i < warmup) {
      rates.push_back(rate * (i + 1) / (warmup + 1));
      continue;
    }
    const double part = cosine && steps > warmup ? double(i - warmup) / (steps - warmup) : 0;
    rates.push_back(0.5 * rate * (1 + std::cos(std::numbers::pi * part)));
  }
  return rates;
}

std::vector<std::uint8_t> trainable(const Model& model, const std::vector<std::string>& names) {
  if (names.empty()) return {};
  const ParameterLayout layout(model);
  // Parameters that are moved together, in their order: there may be very many.
  struct Group {
    std::string name;
    std::size_t count;
  };
  std::vector<Group> groups{{"network", layout.n_network}};
  for (const std::string& name : layout.names) groups.push_back({name, 1});
  const auto add = [&](const std::string& kind, bool LightComponent::*is_free, auto&& count) {
    for (const auto& [block, lights] :
         {std::pair("source.", &model.source), std::pair("lens_light.", &model.lens_light)})
      for (std::size_t i = 0; i < lights->size(); ++i)
        if ((*lights)[i].*is_free) groups.push_back({block + std::to_string(i) + kind, count((*lights)[i])});
  };
  add(".pixels", &LightComponent::pixels_free, [](const LightComponent& c) { return c.pixels.size(); });
  add(".network", &LightComponent::weights_free, [](const LightComponent& c) { return c.network.size(); });

  const auto frees = [](const std::string& name, const Group& group) {
    return group.count > 0 && (group.name == name || group.name.rfind(name + ".", 0) == 0);
  };
  for (const std::string& name : names)
    EINFIELD_REQUIRE(std::any_of(groups.begin(), groups.end(), [&](const Group& group) { return frees(name, group); }),
                     "nothing free of that name, found \"" + name +
                         "\", expected network, a block, a component or a parameter that is free");
  std::vector<std::uint8_t> result;
  for (const Group& group : groups)
    result.insert(result.end(), group.count,
                  std::any_of(names.begin(), names.end(), [&](const std::string& name) { return frees(name, group); }));
  return result;
}

template std::vector<FitResult<float>> fit(Backend<float>&, const FitSettings&, const FitCallbacks<float>&,
                                           const std::vector<Snapshot<float>>&);
template std::vector<FitResult<double>> fit(Backend<double>&, const FitSettings&, const FitCallbacks<double>&,
                                            const std::vector<Snapshot<double>>&);

}  // namespace einfield
