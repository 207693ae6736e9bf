// The stages of a fit one after the other, the history, and the result.
#include "einfield/fitter.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"
#include "host/fit/track.hpp"

namespace einfield {
namespace stages {

template <class Real>
FitRun<Real>::FitRun(Backend<Real>& backend, const std::vector<Problem>& problems, const FitSettings& settings,
                     const FitCallbacks<Real>& callbacks, const std::vector<Snapshot<Real>>& resume)
    : backend_(backend),
      problems_(problems),
      settings_(settings),
      callbacks_(callbacks),
      start_(std::chrono::steady_clock::now()),
      tracks_(static_cast<std::size_t>(backend.systems())) {
  require_problems();
  require_settings();
  EINFIELD_REQUIRE(resume.empty() || resume.size() == tracks_.size(),
                   std::to_string(resume.size()) + " snapshots for " + std::to_string(tracks_.size()) + " systems");
  resume_from(resume);
}

/// The problems must be those of the backend: their number, and the layout of their parameters.
template <class Real>
void FitRun<Real>::require_problems() const {
  EINFIELD_REQUIRE(!tracks_.empty(), "a backend without problems, expected at least one");
  EINFIELD_REQUIRE(problems_.size() == tracks_.size(), "a fit of " + std::to_string(problems_.size()) +
                                                           " problems with a backend of " +
                                                           std::to_string(tracks_.size()) + ", expected the same");
  const ParameterLayout& loaded = backend_.layout();
  for (const Problem& problem : problems_) {
    const ParameterLayout layout(problem.model);
    EINFIELD_REQUIRE(layout.size() == loaded.size() && layout.n_network == loaded.n_network &&
                         layout.names == loaded.names && layout.table.size() == loaded.table.size() &&
                         layout.free_pixels == loaded.free_pixels,
                     "a fit of other problems than the backend has loaded, expected the same free parameters");
  }
}

template <class Real>
void FitRun<Real>::require_settings() const {
  const FitSettings& s = settings_;
  EINFIELD_REQUIRE(!s.stages.empty(), "a fit without stages, expected at least one");
  for (const StageSettings& stage : s.stages) {
    EINFIELD_REQUIRE(stage.starts >= 0 && stage.valleys >= 0, "starts = " + std::to_string(stage.starts) +
                                                                  ", valleys = " + std::to_string(stage.valleys) +
                                                                  ", expected >= 0");
    EINFIELD_REQUIRE(stage.optimizer == OptimizerKind::levenberg_marquardt ||
                         (stage.starts <= 1 && stage.valleys <= 1 && !stage.leaves_out()),
                     "starts, valleys or pixels left out in a stage of another optimizer than Levenberg-Marquardt");
    EINFIELD_REQUIRE(stage.starts <= 1 || stage.valleys <= 1, "a stage with starts and valleys, expected one of them");
    EINFIELD_REQUIRE(stage.steps >= 0, "steps = " + std::to_string(stage.steps) + ", expected >= 0");
    EINFIELD_REQUIRE(stage.memory >= 1, "memory = " + std::to_string(stage.memory) + ", expected >= 1");
  }
  EINFIELD_REQUIRE(s.log_every >= 1, "log_every = " + std::to_string(s.log_every) + ", expected >= 1");
  EINFIELD_REQUIRE(s.patience >= 1, "patience = " + std::to_string(s.patience) + ", expected >= 1");
  EINFIELD_REQUIRE(s.tolerance >= 0 && s.tolerance < 1,
                   "tolerance = " + std::to_string(s.tolerance) + ", expected >= 0 and < 1");
  EINFIELD_REQUIRE(s.starts >= 1, "starts = " + std::to_string(s.starts) + ", expected >= 1");
  EINFIELD_REQUIRE(s.starts == 1 || s.stages[0].optimizer == OptimizerKind::levenberg_marquardt,
                   "several starts of a fit that does not begin with Levenberg-Marquardt");
}

template <class Real>
void FitRun<Real>::resume_from(const std::vector<Snapshot<Real>>& resume) {
  resumed_ = !resume.empty();
  for (std::size_t i = 0; i < resume.size(); ++i) {
    EINFIELD_REQUIRE(resume[i].stage == resume[0].stage && resume[i].stage < static_cast<int>(settings_.stages.size()),
                     "snapshots of stages that do not fit");
    Track<Real>& track = tracks_[i];
    track.now = resume[i];
    track.earlier_s = resume[i].time_s;
    // The steps that follow write the rows of the last step and later ones again.
    if (!resume[i].stage_done) track.forget_rows_from(resume[i].step);
    // With more steps than before, the last ones begin later.
    stage_ = resume[i].stage;
    if (keeps_last(stage().stop) && track.now.best_step >= 0 &&
        track.now.best_step - track.offset() <= stop_settings().keep_after)
      track.forget_best();
  }
}

template <class Real>
std::vector<FitResult<Real>> FitRun<Real>::run() {
  for (stage_ = resumed_ ? tracks_[0].now.stage : 0;; ++stage_) {
    enter_stage();
    switch (stage().optimizer) {
      case OptimizerKind::adam:
      case OptimizerKind::lbfgs:
        run_on_backend(*this);
        break;
      case OptimizerKind::levenberg_marquardt:
        run_levenberg_marquardt(*this);
        break;
      case OptimizerKind::gauss_newton:
        run_gauss_newton(*this);
        break;
    }
    resumed_ = false;
    if (!interrupted_)
      for (Track<Real>& track : tracks_) track.stages.push_back({track.reason, track.now.stage_step});
    if (interrupted_ || stage_ + 1 == static_cast<int>(settings_.stages.size())) break;
  }
  return results();
}

/// Every system starts the stage from its snapshot, or from the result of the stage before.
template <class Real>
void FitRun<Real>::enter_stage() {
  std::optional<Fields<Real>> first;
  if (!resumed_ && stage_ == 0) first.emplace(backend_, Field::parameters);
  for (int i = 0; i < count(); ++i) {
    Track<Real>& track = this->track(i);
    Snapshot<Real>& now = track.now;
    if (!resumed_) {
      if (first)
        now.parameters = first->of(i);
      else if (now.best_step >= 0)
        now.parameters = now.best_parameters;
      now.first_moment.assign(now.parameters.size(), Real(0));
      now.second_moment = now.first_moment;
      if (stage_ > 0) {
        now.stage = stage_;
        now.stage_step = 0;
        now.stage_done = false;
        now.evidence.reset();
        now.memory.clear();
        now.fall_step = 0;
        now.fall_value = 0;
        track.forget_best();
      }
    }
    track.done = track.failed;
  }
  if (!runs_on_backend(stage().optimizer)) backend_.begin(stage().schedule);
  upload(Field::parameters, [](const Track<Real>& track) -> const std::vector<Real>& { return track.now.parameters; });
}

template <class Real>
void FitRun<Real>::record(int i, const StepState& state, std::int64_t step, const std::vector<Real>& parameters,
                          double time_s) {
  const ParameterLayout& layout = backend_.layout();
  const auto first = parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network);
  record_free(i, state, step, {first, first + static_cast<std::ptrdiff_t>(layout.n_free())}, time_s);
}

template <class Real>
void FitRun<Real>::record_free(int i, const StepState& state, std::int64_t step, const std::vector<double>& free,
                               double time_s) {
  Track<Real>& track = this->track(i);
  track.forget_rows_from(step);
  HistoryRow row;
  row.step = step;
  row.time_s = time_s;
  row.loss = state.loss;
  row.chi2_reduced = state.chi2_reduced;
  row.held_out_chi2 = state.held_out_chi2;
  row.regularization = state.regularization;
  row.learning_rate = state.learning_rate;
  row.gradient_norm = state.gradient_norm;
  if (!free.empty()) row.free = backend_.layout().physical(free.data());
  track.now.history.push_back(row);
  if (callbacks_.progress) callbacks_.progress(i, row);
}

template <class Real>
std::vector<FitResult<Real>> FitRun<Real>::results() {
  std::vector<FitResult<Real>> results(tracks_.size());
  std::vector<Real> parameters;
  for (int i = 0; i < count(); ++i) {
    Track<Real>& track = this->track(i);
    FitResult<Real>& result = results[static_cast<std::size_t>(i)];
    const bool whole = track.reason == StopReason::steps || !keeps_last(settings_.stages.back().stop);
    const bool best = track.now.best_step >= 0 && whole && !interrupted_ && !track.failed;
    result.stop_reason = track.reason;
    result.message = track.message;
    result.steps = track.now.step;
    result.evaluations = track.now.evaluations;
    result.state_step = best ? track.now.best_step : track.now.step;
    result.parameters = best ? track.now.best_parameters : track.now.parameters;
    parameters.insert(parameters.end(), result.parameters.begin(), result.parameters.end());
  }
  backend_.upload(Field::parameters, parameters);
  backend_.evaluate(true);
  const std::vector<StepState> states = backend_.states();
  for (int i = 0; i < count(); ++i) {
    FitResult<Real>& result = results[static_cast<std::size_t>(i)];
    result.final_state = states[static_cast<std::size_t>(i)];
    // The backend's penalty is not quite that of the evidence: joint_model.hpp (3), and the variances of the source.
    if (track(i).now.evidence) result.final_state.regularization = track(i).now.history.back().regularization;
    result.time_s = track(i).now.time_s;
    result.stages = track(i).stages;
    result.snapshot = std::move(track(i).now);
  }
  return results;
}

template class FitRun<float>;
template class FitRun<double>;

}  // namespace stages

template <class Real>
std::vector<FitResult<Real>> fit(Backend<Real>& backend, const std::vector<Problem>& problems,
                                 const FitSettings& settings, const FitCallbacks<Real>& callbacks,
                                 const std::vector<Snapshot<Real>>& resume) {
  return stages::FitRun<Real>(backend, problems, settings, callbacks, resume).run();
}

template std::vector<FitResult<float>> fit(Backend<float>&, const std::vector<Problem>&, const FitSettings&,
                                           const FitCallbacks<float>&, const std::vector<Snapshot<float>>&);
template std::vector<FitResult<double>> fit(Backend<double>&, const std::vector<Problem>&, const FitSettings&,
                                            const FitCallbacks<double>&, const std::vector<Snapshot<double>>&);

}  // namespace einfield
