// The loop of a fit: when to log, keep, stop and hand out snapshots. The work of a step is the backend's.
#include "einfield/fitter.hpp"

#include <chrono>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"

namespace einfield {
namespace {

template <class Real>
class Fit {
 public:
  Fit(Backend<Real>& backend, const FitSettings& settings, const FitCallbacks<Real>& callbacks,
      const Snapshot<Real>* resume)
      : backend_(backend), settings_(settings), callbacks_(callbacks), start_(std::chrono::steady_clock::now()) {
    EINFIELD_REQUIRE(backend.lenses() == 1,
                     "a backend with " + std::to_string(backend.lenses()) + " lenses, expected one");
    EINFIELD_REQUIRE(settings.steps >= 0, "steps = " + std::to_string(settings.steps) + ", expected >= 0");
    EINFIELD_REQUIRE(settings.log_every >= 1, "log_every = " + std::to_string(settings.log_every) + ", expected >= 1");
    if (!resume) return;
    snapshot_ = *resume;
    // Rows of the last step and later are written again by the steps that follow.
    forget_rows_from(resume->step);
    // With more steps than before, the last ones begin later.
    if (snapshot_.best_step >= 0 && !may_be_best(snapshot_.best_step)) {
      snapshot_.best_step = -1;
      snapshot_.best_loss = 0;
      snapshot_.best_parameters.clear();
    }
    earlier_s_ = resume->time_s;
    good_ = {resume->step, resume->parameters, resume->first_moment, resume->second_moment};
    restore(good_);
  }

  FitResult<Real> run() {
    FitResult<Real> result;
    result.stop_reason = "steps";
    for (std::int64_t step = snapshot_.step; step < settings_.steps; ++step) {
      const bool log = step % settings_.log_every == 0;
      const bool keep = may_be_best(step);
      const bool save = settings_.checkpoint_every > 0 && callbacks_.checkpoint && step > snapshot_.step &&
                        step % settings_.checkpoint_every == 0;
      // The numbers of a step belong to the parameters before its update, so they are fetched first.
      Optimiser before;
      if (log || save)
        before = optimiser(step);
      else if (keep)
        before.parameters = backend_.download(Field::parameters, 0);

      if (settings_.stop == StopRule::chi2) {
        backend_.evaluate(true);
        if (backend_.state(0).chi2_reduced <= settings_.stop_chi2) {
          result.stop_reason = "chi2";
          break;
        }
        backend_.adam();
      } else {
        backend_.step();
      }

      if (log || keep || save) {
        const StepState state = backend_.state(0);
        if (state.bad_step != 0) break;
        // Only a state that has been evaluated and found good is handed out.
        if (save) callbacks_.checkpoint(taken(before));
        if (keep) offer(step, state, before.parameters);
        if (log) record(step, state, before.parameters);
        if (log || save) good_ = std::move(before);
      }
      if (callbacks_.interrupted && callbacks_.interrupted()) {
        result.stop_reason = "interrupted";
        break;
      }
    }
    finish(result);
    return result;
  }

 private:
  /// What the optimiser moves, at a number of updates.
  struct Optimiser {
    std::int64_t updates = 0;
    std::vector<Real> parameters, first_moment, second_moment;
  };
  Optimiser optimiser(std::int64_t updates) {
    return {updates, backend_.download(Field::parameters, 0), backend_.download(Field::first_moment, 0),
            backend_.download(Field::second_moment, 0)};
  }
  void restore(const Optimiser& state) {
    backend_.upload(Field::parameters, 0, state.parameters);
    backend_.upload(Field::first_moment, 0, state.first_moment);
    backend_.upload(Field::second_moment, 0, state.second_moment);
    backend_.set_updates(state.updates);
  }

  double elapsed() const {
    return earlier_s_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  bool may_be_best(std::int64_t step) const {
    return settings_.best_of_last > 0 && step > settings_.steps - settings_.best_of_last;
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

  void record(std::int64_t step, const StepState& state, const std::vector<Real>& parameters) {
    HistoryRow row;
    row.step = step;
    row.time_s = elapsed();
    row.loss = state.loss;
    row.chi2_reduced = state.chi2_reduced;
    row.regularization = state.regularization;
    row.learning_rate = state.learning_rate;
    row.gradient_norm = state.gradient_norm;
    if (backend_.layout().n_free() > 0) row.free = physical(parameters);
    snapshot_.history.push_back(row);
    if (callbacks_.progress) callbacks_.progress(row);
  }
  void forget_rows_from(std::int64_t step) {
    std::erase_if(snapshot_.history, [step](const HistoryRow& row) { return row.step >= step; });
  }

  Snapshot<Real> taken(const Optimiser& state) const {
    Snapshot<Real> snapshot = snapshot_;
    snapshot.step = state.updates;
    snapshot.time_s = elapsed();
    snapshot.parameters = state.parameters;
    snapshot.first_moment = state.first_moment;
    snapshot.second_moment = state.second_moment;
    return snapshot;
  }

  /// Takes the parameters as the best ones when their total loss is the lowest so far.
  void offer(std::int64_t step, const StepState& state, const std::vector<Real>& parameters) {
    const double total = state.loss + state.regularization;
    if (snapshot_.best_step >= 0 && total >= snapshot_.best_loss) return;
    snapshot_.best_step = step;
    snapshot_.best_loss = total;
    snapshot_.best_parameters = parameters;
  }

  void finish(FitResult<Real>& result) {
    StepState state = backend_.state(0);
    if (state.bad_step == 0) {
      // The last update is judged as every other one is, by the evaluation that follows it.
      backend_.evaluate(true);
      state = backend_.state(0);
      const bool finite_loss = std::isfinite(state.loss) && std::isfinite(state.regularization);
      if (!finite_loss || !std::isfinite(state.gradient_norm)) {
        state.bad_step = state.updates + 1;
        state.bad_loss = !finite_loss;
      }
    }
    if (state.bad_step != 0) {
      result.stop_reason = "non-finite";
      result.message = std::string(state.bad_loss ? "the loss" : "the gradient") + " is not finite in step " +
                       std::to_string(state.bad_step);
      // The parameters that gave it are of no use. Those of the step before are: the steps since the last state known
      // to be good are repeated, which gives the same bits.
      if (!good_.parameters.empty()) {
        restore(good_);
        for (std::int64_t updates = good_.updates; updates < state.bad_step - 2; ++updates) backend_.step();
      }
      backend_.evaluate(true);
      state = backend_.state(0);
    }
    const std::int64_t updates = state.updates;
    snapshot_ = taken(optimiser(updates));
    forget_rows_from(updates);
    record(updates, state, snapshot_.parameters);
    result.state_step = updates;
    result.parameters = snapshot_.parameters;
    if (settings_.best_of_last > 0 && result.stop_reason == "steps") {
      offer(updates, state, snapshot_.parameters);
      if (snapshot_.best_step != updates) {
        backend_.upload(Field::parameters, 0, snapshot_.best_parameters);
        backend_.evaluate(true);
        state = backend_.state(0);
        result.state_step = snapshot_.best_step;
        result.parameters = snapshot_.best_parameters;
      }
    }
    result.steps = updates;
    result.final_state = state;
    result.time_s = snapshot_.time_s;
    result.snapshot = std::move(snapshot_);
  }

  Backend<Real>& backend_;
  const FitSettings& settings_;
  const FitCallbacks<Real>& callbacks_;
  std::chrono::steady_clock::time_point start_;
  double earlier_s_ = 0;
  Optimiser good_;  ///< of the last record with finite numbers
  Snapshot<Real> snapshot_;
};

}  // namespace

template <class Real>
FitResult<Real> fit(Backend<Real>& backend, const FitSettings& settings, const FitCallbacks<Real>& callbacks,
                    const Snapshot<Real>* resume) {
  return Fit<Real>(backend, settings, callbacks, resume).run();
}

template FitResult<float> fit(Backend<float>&, const FitSettings&, const FitCallbacks<float>&, const Snapshot<float>*);
template FitResult<double> fit(Backend<double>&, const FitSettings&, const FitCallbacks<double>&,
                               const Snapshot<double>*);

}  // namespace einfield
