// The loop of a fit through the library: recovery of known values, history, best state, stopping, resuming to the bit.
#include "einfield/fitter.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "einfield/adam.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

/// One stage of Adam.
FitSettings adam_settings(int steps, const std::vector<double>& rates = {1e-2}) {
  FitSettings settings;
  settings.stages[0].steps = steps;
  settings.stages[0].schedule.learning_rates = rates;
  return settings;
}

/// A mock lens: data from known values with noise of one, a start away from them, no network unless asked.
Problem mock(bool with_network) {
  StepCase c;
  c.nx = c.ny = 24;
  c.hidden = with_network ? std::vector<int>{12, 12} : std::vector<int>{};
  c.free_lens = c.free_light = !with_network;
  c.loss = LossKind::chi2;
  Problem problem = make_problem(c);
  problem.observation.grid.pixel_scale = 0.2;
  const auto backend = make_backend<double>("cpu", {2, 0});
  backend->load({problem});
  if (with_network)  // the truth lacks the network: α = 0
    backend->upload(Field::parameters, 0, std::vector<double>(problem.initial_parameters.size(), 0.0));
  backend->evaluate(false);
  problem.observation.image = backend->download(Field::model, 0);
  const Philox philox{8};
  for (std::size_t i = 0; i < problem.observation.image.size(); ++i) {
    problem.observation.noise[i] = 0.3;
    problem.observation.image[i] += 0.3 * philox.normal(i);
  }
  return problem;
}

TEST(Fit, RecoversTheLensThatMadeTheData) {
  Problem problem = mock(false);
  const double truth = problem.model.lens[0].values[0];
  problem.model.lens[0].values[0] = 1.25 * truth;
  problem.model.lens[0].values[3] += 0.1;
  const ParameterLayout layout(problem.model);
  problem.initial_parameters = layout.initial_scalars();
  const auto backend = make_backend<double>("cpu", {2, 0});
  backend->load({problem});
  FitSettings settings = adam_settings(1500);
  settings.log_every = 500;
  const FitResult<double> result = fit<double>(*backend, {problem}, settings, {}).front();
  EXPECT_EQ(result.stop_reason, StopReason::steps);
  // 576 pixels minus 14 parameters: 0.976 with a standard deviation of 0.059 for this noise.
  EXPECT_NEAR(result.final_state.chi2_reduced, 0.976, 3 * 0.059);
  const Model fitted = with_parameters(problem.model, layout, result.parameters);
  EXPECT_NEAR(fitted.lens[0].values[0], truth, 0.03);
}

FitSettings short_run(const std::vector<double>& rates = {1e-2}) {
  FitSettings settings = adam_settings(30, rates);
  settings.log_every = 7;
  return settings;
}

template <class Real>
FitResult<Real> run(const Problem& problem, const FitSettings& settings, const FitCallbacks<Real>& callbacks = {},
                    const Snapshot<Real>* resume = nullptr, int threads = 1) {
  const auto backend = make_backend<Real>("cpu", {threads, 0});
  backend->load({problem});
  return fit<Real>(*backend, {problem}, settings, callbacks,
                   resume ? std::vector<Snapshot<Real>>{*resume} : std::vector<Snapshot<Real>>{})
      .front();
}

/// Mass and source both unknown: the data have a shear and a Sérsic source, the model a fixed SIE, a network for the
/// rest of the potential, and a network for the source.
TEST(Fit, SourceAndPotentialTogetherReachTheNoise) {
  StepCase c;
  c.nx = c.ny = 24;
  c.hidden = {};
  c.free_light = true;
  Problem truth = make_problem(c);
  truth.observation.grid.pixel_scale = 0.2;
  truth.model.source[0].values = {10, 0.8, 0.8, -0.09, 0.03, 0.2, 0.1};
  truth.initial_parameters = ParameterLayout(truth.model).initial_parameters({});
  const auto backend = make_backend<float>("cpu", {2, 0});
  backend->load({truth});
  backend->evaluate(false);

  c.hidden = {24, 24};
  c.light_hidden = {32, 32};
  c.light_alone = true;
  c.free_light = false;
  c.loss = LossKind::chi2;
  Problem problem = make_problem(c);
  problem.model.lens.pop_back();  // the shear is missing
  problem.observation = truth.observation;
  const std::vector<float> image = backend->download(Field::model, 0);
  const Philox philox{8};
  constexpr double kNoise = 0.3;
  for (std::size_t i = 0; i < image.size(); ++i) {
    problem.observation.noise[i] = kNoise;
    problem.observation.image[i] = static_cast<double>(image[i]) + kNoise * philox.normal(i);
  }
  LightComponent& light = problem.model.source[0];
  light.network.input_scale = 3;
  light.weights = initial_weights(light.network, 1, false, {}, 2);
  problem.initial_parameters =
      ParameterLayout(problem.model).initial_parameters(initial_weights(*problem.model.network, 1, true));

  const auto train = [&problem](int threads) {
    const auto own = make_backend<float>("cpu", {threads, 0});
    own->load({problem});
    FitSettings settings = adam_settings(1200, {5e-3});
    settings.log_every = 1200;
    return fit<float>(*own, {problem}, settings, {}).at(0);
  };
  const FitResult<float> result = train(2);
  EXPECT_GT(result.snapshot.history.front().chi2_reduced, 50);
  EXPECT_LT(result.final_state.chi2_reduced, 1);
  EXPECT_EQ(train(1).parameters, result.parameters) << "same seed, same bits";
}

TEST(Fit, HistoryHasEveryRowOnce) {
  std::vector<std::int64_t> seen;
  FitCallbacks<float> callbacks;
  callbacks.progress = [&](int, const HistoryRow& row) { seen.push_back(row.step); };
  const FitResult<float> result = run<float>(mock(true), short_run(), callbacks);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{0, 7, 14, 21, 28, 30}));
  ASSERT_EQ(result.snapshot.history.size(), seen.size());
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(result.snapshot.history[i].step, seen[i]);
    EXPECT_GT(result.snapshot.history[i].gradient_norm, 0);
  }
  EXPECT_LT(result.snapshot.history.back().loss, result.snapshot.history.front().loss);
  EXPECT_EQ(result.snapshot.history.back().loss, result.final_state.loss);
  EXPECT_EQ(result.steps, 30);
  EXPECT_EQ(result.state_step, 30);
}

TEST(Fit, HistoryRowsBelongToTheirParameters) {
  // The free values of row k are those before update k: row 0 has the starting values.
  const Problem problem = mock(false);
  const FitResult<double> result = run<double>(problem, short_run());
  EXPECT_NEAR(result.snapshot.history.front().free.at(0), problem.model.lens[0].values[0], 1e-14);
  EXPECT_NE(result.snapshot.history.back().free.at(0), result.snapshot.history.front().free.at(0));
}

TEST(Fit, ResumedRunHasTheSameBits) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.checkpoint_every = 13;
  settings.best_of_last = 20;
  std::vector<Snapshot<float>> snapshots;
  FitCallbacks<float> callbacks;
  callbacks.checkpoint = [&](const std::vector<Snapshot<float>>& s) { snapshots.push_back(s.at(0)); };
  const FitResult<float> whole = run(problem, settings, callbacks);
  ASSERT_EQ(snapshots.size(), 2u);
  for (const Snapshot<float>& snapshot : snapshots) {
    const FitResult<float> resumed = run<float>(problem, settings, {}, &snapshot, 2);
    EXPECT_EQ(resumed.parameters, whole.parameters);
    EXPECT_EQ(resumed.snapshot.parameters, whole.snapshot.parameters);
    EXPECT_EQ(resumed.snapshot.second_moment, whole.snapshot.second_moment);
    EXPECT_EQ(resumed.state_step, whole.state_step);
    ASSERT_EQ(resumed.snapshot.history.size(), whole.snapshot.history.size());
    for (std::size_t i = 0; i < whole.snapshot.history.size(); ++i) {
      EXPECT_EQ(resumed.snapshot.history[i].step, whole.snapshot.history[i].step);
      EXPECT_EQ(resumed.snapshot.history[i].loss, whole.snapshot.history[i].loss);
    }
  }
}

TEST(Fit, FinishedRunCanBeContinued) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  const FitResult<double> first = run<double>(problem, settings);
  settings.stages[0].steps = 50;
  const FitResult<double> more = run<double>(problem, settings, {}, &first.snapshot);
  const FitResult<double> whole = run<double>(problem, settings);
  EXPECT_EQ(more.parameters, whole.parameters);
}

TEST(Fit, InterruptedAfterTheStep) {
  int asked = 0;
  FitCallbacks<float> callbacks;
  callbacks.interrupted = [&] { return ++asked == 11; };
  const FitResult<float> part = run(mock(true), short_run(), callbacks);
  EXPECT_EQ(part.stop_reason, StopReason::interrupted);
  EXPECT_EQ(part.steps, 11);
  EXPECT_EQ(run<float>(mock(true), short_run(), {}, &part.snapshot).parameters,
            run<float>(mock(true), short_run()).parameters);
}

TEST(Fit, BestOfLastReturnsTheLowestLoss) {
  const Problem problem = mock(true);
  FitSettings settings = short_run({0.15});  // large enough to swing
  settings.log_every = 1;
  settings.best_of_last = 12;
  const FitResult<double> result = run<double>(problem, settings);
  double lowest = kInfinity;
  std::int64_t at = -1;
  for (const HistoryRow& row : result.snapshot.history)
    if (row.step > settings.stages[0].steps - settings.best_of_last && row.loss < lowest) {
      lowest = row.loss;
      at = row.step;
    }
  EXPECT_EQ(result.state_step, at);
  EXPECT_EQ(result.final_state.loss, lowest);
}

TEST(Fit, StopsWhenChi2IsReached) {
  FitSettings settings = short_run();
  settings.stages[0].steps = 2000;
  settings.stages[0].stop = StopRule::chi2;
  const Problem problem = mock(true);
  settings.stop_chi2 = 1.1;
  const FitResult<double> result = run<double>(problem, settings);
  EXPECT_EQ(result.stop_reason, StopReason::chi2);
  EXPECT_LT(result.steps, 2000);
  EXPECT_LE(result.final_state.chi2_reduced, 1.1);
}

/// Learning rates: good ones, then one that moves the weights beyond all bounds, in update number `last_good` + 1.
std::vector<double> exploding(std::size_t last_good) {
  std::vector<double> rates(last_good + 1, 1e-3);
  rates.back() = 1e38;
  return rates;
}

TEST(Fit, NonFiniteLossEndsAtTheLastGoodState) {
  const Problem problem = mock(true);
  FitSettings settings = short_run(exploding(7));
  settings.log_every = 5;
  const FitResult<float> result = run<float>(problem, settings);
  EXPECT_EQ(result.stop_reason, StopReason::non_finite);
  EXPECT_NE(result.message.find("is not finite in step 9"), std::string::npos) << result.message;
  EXPECT_EQ(result.steps, 7);
  EXPECT_TRUE(std::isfinite(result.final_state.loss));

  settings.stages[0].steps = 7;
  settings.stages[0].schedule.learning_rates.resize(7);
  EXPECT_EQ(run<float>(problem, settings).parameters, result.parameters);
}

/// Steps of the rows of the history.
template <class Real>
std::vector<std::int64_t> steps_of(const Snapshot<Real>& snapshot) {
  std::vector<std::int64_t> steps;
  for (const HistoryRow& row : snapshot.history) steps.push_back(row.step);
  return steps;
}

TEST(Fit, TheLastUpdateIsJudgedToo) {
  FitSettings settings = short_run(exploding(9));
  settings.stages[0].steps = 10;
  const FitResult<float> result = run<float>(mock(true), settings);
  EXPECT_EQ(result.stop_reason, StopReason::non_finite);
  EXPECT_EQ(result.message, "the loss is not finite in step 11");
  EXPECT_EQ(result.steps, 9);
  EXPECT_TRUE(std::isfinite(result.final_state.loss));
  settings.stages[0].steps = 9;
  EXPECT_EQ(run<float>(mock(true), settings).parameters, result.parameters);
}

TEST(Fit, NonFiniteRunsHaveEveryRowOnce) {
  // The last good state is one that has been logged, has not been, is the first.
  for (const std::size_t last_good : {14u, 15u, 0u}) {
    const FitResult<float> result = run<float>(mock(true), short_run(exploding(last_good)));
    EXPECT_EQ(result.stop_reason, StopReason::non_finite);
    EXPECT_EQ(result.steps, static_cast<std::int64_t>(last_good));
    const std::vector<std::int64_t> expected = last_good == 14   ? std::vector<std::int64_t>{0, 7, 14}
                                               : last_good == 15 ? std::vector<std::int64_t>{0, 7, 14, 15}
                                                                 : std::vector<std::int64_t>{0};
    EXPECT_EQ(steps_of(result.snapshot), expected);
  }
}

TEST(Fit, SnapshotsAreGoodStates) {
  // The bad update comes just before a snapshot is due, just after, and long after one.
  for (const std::size_t last_good : {9u, 10u, 13u}) {
    const Problem problem = mock(true);
    FitSettings settings = short_run(exploding(last_good));
    settings.checkpoint_every = 10;
    std::vector<Snapshot<float>> snapshots;
    FitCallbacks<float> callbacks;
    callbacks.checkpoint = [&](const std::vector<Snapshot<float>>& s) { snapshots.push_back(s.at(0)); };
    const FitResult<float> whole = run(problem, settings, callbacks);
    EXPECT_EQ(whole.steps, static_cast<std::int64_t>(last_good));
    ASSERT_EQ(snapshots.size(), last_good < 10 ? 0u : 1u);
    for (const Snapshot<float>& snapshot : snapshots) {
      EXPECT_EQ(snapshot.step, 10);
      EXPECT_EQ(steps_of(snapshot), (std::vector<std::int64_t>{0, 7}));
      // From there the run ends as it did, though no row is logged before the bad step.
      settings.log_every = 1000;
      const FitResult<float> resumed = run<float>(problem, settings, {}, &snapshot);
      EXPECT_EQ(resumed.message, whole.message);
      EXPECT_EQ(resumed.steps, whole.steps);
      EXPECT_EQ(resumed.parameters, whole.parameters);
      EXPECT_EQ(resumed.snapshot.second_moment, whole.snapshot.second_moment);
    }
  }
}

TEST(Fit, AnInterruptedBadStateIsNotHandedOut) {
  FitCallbacks<float> callbacks;
  int asked = 0;
  callbacks.interrupted = [&] { return ++asked == 10; };
  const FitResult<float> result = run<float>(mock(true), short_run(exploding(9)), callbacks);
  EXPECT_EQ(result.stop_reason, StopReason::non_finite);
  EXPECT_EQ(result.snapshot.step, 9);
  EXPECT_TRUE(std::isfinite(result.final_state.loss));
}

TEST(Fit, WithMoreStepsTheLastOnesBeginLater) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.best_of_last = 5;
  const FitResult<float> first = run<float>(problem, settings);
  ASSERT_GE(first.snapshot.best_step, 26);
  settings.stages[0].steps = 40;
  const FitResult<float> more = run<float>(problem, settings, {}, &first.snapshot),
                         whole = run<float>(problem, settings);
  EXPECT_EQ(more.snapshot.best_step, whole.snapshot.best_step);
  EXPECT_GT(more.snapshot.best_step, 35);
  EXPECT_EQ(more.parameters, whole.parameters);
  EXPECT_EQ(steps_of(more.snapshot), (std::vector<std::int64_t>{0, 7, 14, 21, 28, 35, 40}));
}

// ---- optimizers, stages, rules -----------------------------------------------------------------------------

StageSettings lbfgs_stage(int steps) {
  StageSettings stage;
  stage.optimizer = OptimizerKind::lbfgs;
  stage.steps = steps;
  stage.schedule.learning_rates = {1e-3};
  return stage;
}
StageSettings adam_stage(int steps, double rate) {
  StageSettings stage;
  stage.steps = steps;
  stage.schedule.learning_rates = {rate};
  return stage;
}

TEST(Fit, LbfgsNeedsFewerEvaluationsThanAdam) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.stages = {lbfgs_stage(40)};
  const FitResult<double> quick = run<double>(problem, settings);
  EXPECT_EQ(quick.stop_reason, StopReason::steps);
  EXPECT_EQ(quick.steps, 40);
  EXPECT_GE(quick.evaluations, 41);
  EXPECT_LT(quick.evaluations, 80);
  settings.stages = {adam_stage(static_cast<int>(quick.evaluations), 1e-2)};
  EXPECT_LT(quick.final_state.loss, run<double>(problem, settings).final_state.loss);
  // Every row is lower than the one before, and the last one is the result.
  for (std::size_t i = 1; i < quick.snapshot.history.size(); ++i)
    EXPECT_LT(quick.snapshot.history[i].loss, quick.snapshot.history[i - 1].loss);
  EXPECT_EQ(quick.snapshot.history.back().loss, quick.final_state.loss);
}

TEST(Fit, LbfgsResumesToTheSameBits) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.stages = {lbfgs_stage(25)};
  settings.stages[0].memory = 5;
  settings.checkpoint_every = 4;
  std::vector<Snapshot<float>> snapshots;
  FitCallbacks<float> callbacks;
  callbacks.checkpoint = [&](const std::vector<Snapshot<float>>& s) { snapshots.push_back(s.at(0)); };
  const FitResult<float> whole = run(problem, settings, callbacks);
  EXPECT_EQ(snapshots.size(), 6u);
  for (int evaluations : {1, 2, 9, 20}) {  // interrupted within a line, too
    FitCallbacks<float> stop;
    stop.interrupted = [evaluations, asked = 0]() mutable { return ++asked == evaluations; };
    snapshots.push_back(run(problem, settings, stop).snapshot);
  }
  for (const Snapshot<float>& snapshot : snapshots) {
    const FitResult<float> resumed = run<float>(problem, settings, {}, &snapshot, 2);
    EXPECT_EQ(resumed.parameters, whole.parameters);
    EXPECT_EQ(resumed.snapshot.memory, whole.snapshot.memory);
    EXPECT_EQ(steps_of(resumed.snapshot), steps_of(whole.snapshot));
  }
}

TEST(Fit, StagesFollowEachOtherAndResume) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.stages = {adam_stage(9, 1e-2), lbfgs_stage(6), adam_stage(8, 1e-3)};
  settings.checkpoint_every = 4;
  std::vector<Snapshot<double>> snapshots;
  FitCallbacks<double> callbacks;
  callbacks.checkpoint = [&](const std::vector<Snapshot<double>>& s) { snapshots.push_back(s.at(0)); };
  const FitResult<double> whole = run(problem, settings, callbacks);
  EXPECT_EQ(whole.steps, 23);
  EXPECT_EQ(steps_of(whole.snapshot), (std::vector<std::int64_t>{0, 7, 9, 15, 22, 23}));
  ASSERT_EQ(snapshots.size(), 4u);
  for (const Snapshot<double>& snapshot : snapshots)
    EXPECT_EQ(run<double>(problem, settings, {}, &snapshot).parameters, whole.parameters);
}

TEST(Fit, OnlyWhatAStageFreesMoves) {
  const Problem problem = mock(false);
  const ParameterLayout layout(problem.model);
  FitSettings settings = short_run();
  for (const OptimizerKind kind : {OptimizerKind::adam, OptimizerKind::lbfgs}) {
    StageSettings stage = adam_stage(5, 1e-2);
    stage.optimizer = kind;
    stage.schedule.trainable = trainable(problem.model, {"lens.0.theta_E", "source"});
    settings.stages = {stage};
    const FitResult<double> result = run<double>(problem, settings);
    for (std::size_t i = 0; i < layout.n_free(); ++i) {
      const std::string& name = layout.names[i];
      const bool free = name == "lens.0.theta_E" || name.rfind("source.", 0) == 0;
      EXPECT_EQ(result.parameters[i] != problem.initial_parameters[i], free) << name;
    }
  }
  EXPECT_THROW(trainable(problem.model, {"lens.0.theta"}), InvalidInput);
  EXPECT_THROW(trainable(problem.model, {"source.0.network"}), InvalidInput);
  EXPECT_THROW(trainable(problem.model, {"network"}), InvalidInput);
  EXPECT_TRUE(trainable(problem.model, {}).empty());
}

TEST(Fit, WeightsOfTheSourceAreAGroupOfTheirOwn) {
  StepCase c;
  c.light_hidden = {4};
  c.free_light = c.free_lens = true;
  const Problem problem = make_problem(c);
  const ParameterLayout layout(problem.model);
  for (const char* name : {"source.1.network", "network"}) {
    FitSettings settings = short_run();
    StageSettings stage = adam_stage(3, 1e-2);
    stage.schedule.trainable = trainable(problem.model, {name});
    settings.stages = {stage};
    const FitResult<double> result = run<double>(problem, settings);
    for (std::size_t i = 0; i < layout.size(); ++i) {
      const bool light = i >= layout.light_weights_offset(),
                 potential = i + 1 < layout.n_network;  // its last bias is idle
      if (i + 1 == layout.n_network) continue;
      EXPECT_EQ(result.parameters[i] != problem.initial_parameters[i],
                std::string(name) == "network" ? potential : light)
          << name << " " << i;
    }
  }
}

TEST(Fit, ClippedGradientsAreNoLongerThanAllowed) {
  // With equal moments Adam does not depend on a common factor of the gradient, except through ε: a tiny norm makes the
  // steps tiny.
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.stages = {adam_stage(1, 1e-2)};
  const auto moved = [&](double clip) {
    settings.stages[0].schedule.clip_norm = clip;
    const FitResult<double> result = run<double>(problem, settings);
    double sum = 0;
    for (const double m : result.snapshot.first_moment) sum += m * m;
    return std::sqrt(sum) / (1 - kAdamBeta1);
  };
  const double norm = run<double>(problem, settings).snapshot.history.front().gradient_norm;
  EXPECT_NEAR(moved(0), norm, 1e-12 * norm);
  EXPECT_NEAR(moved(2 * norm), norm, 1e-12 * norm);
  EXPECT_NEAR(moved(0.1 * norm), 0.1 * norm, 1e-12 * norm);
}

TEST(Fit, LearningRatesRiseAndFall) {
  EXPECT_EQ(learning_rates(0.5, 100, 0, false), std::vector<double>{0.5});
  EXPECT_EQ(learning_rates(0.5, 100, 1, false), (std::vector<double>{0.25, 0.5}));
  const std::vector<double> cosine = learning_rates(1, 10, 2, true);
  ASSERT_EQ(cosine.size(), 10u);
  EXPECT_NEAR(cosine[0], 1 / 3.0, 1e-15);
  EXPECT_EQ(cosine[2], 1);
  EXPECT_NEAR(cosine[6], 0.5, 1e-15);
  EXPECT_GT(cosine[9], 0);
  EXPECT_LT(cosine[9], 0.05);
}

TEST(Fit, HeldOutPixelsAreNotFittedAndStopTheFit) {
  Problem problem = mock(true);
  const Philox philox{5};
  problem.held_out.resize(problem.observation.mask.size());
  for (std::size_t i = 0; i < problem.held_out.size(); ++i) problem.held_out[i] = philox.uniform(i) < 0.2;
  Problem other = problem;
  for (std::size_t i = 0; i < problem.held_out.size(); ++i)
    if (problem.held_out[i]) other.observation.image[i] += 3;
  FitSettings settings = short_run();
  settings.log_every = 1;
  settings.patience = 15;
  for (const OptimizerKind kind : {OptimizerKind::adam, OptimizerKind::lbfgs}) {
    StageSettings stage = adam_stage(3000, 1e-2);
    stage.optimizer = kind;
    settings.stages = {stage};
    settings.stages[0].steps = 5;
    EXPECT_EQ(run<double>(problem, settings).parameters, run<double>(other, settings).parameters);

    stage.stop = StopRule::held_out;
    settings.stages = {stage};
    const FitResult<double> result = run<double>(problem, settings);
    EXPECT_EQ(result.stop_reason, StopReason::held_out);
    double lowest = kInfinity;
    for (const HistoryRow& row : result.snapshot.history) lowest = std::min(lowest, row.held_out_chi2);
    EXPECT_EQ(result.final_state.held_out_chi2, lowest);
    EXPECT_LE(result.state_step, result.steps);
    // A run that has stopped is stopped when it is resumed.
    const FitResult<double> again = run<double>(problem, settings, {}, &result.snapshot);
    EXPECT_EQ(again.stop_reason, StopReason::held_out);
    EXPECT_EQ(again.steps, result.steps);
    EXPECT_EQ(again.parameters, result.parameters);
  }
}

TEST(Fit, PlateausStopTheFitAtItsLowestLoss) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.log_every = 1;
  settings.patience = 10;
  settings.tolerance = 0.02;
  settings.stages = {lbfgs_stage(2000)};
  settings.stages[0].stop = StopRule::plateau;
  const FitResult<double> result = run<double>(problem, settings);
  EXPECT_EQ(result.stop_reason, StopReason::plateau);
  EXPECT_LT(result.steps, 500);
  // The ten last steps together brought less than two per cent of the loss that they began with.
  const auto& history = result.snapshot.history;
  const double before = history[history.size() - 11].loss, last = history.back().loss;
  EXPECT_GE(last, before * (1 - 0.02));
  EXPECT_EQ(result.state_step, result.steps);
}

TEST(Fit, SystemsSideBySideAreAsAlone) {
  const Problem first = mock(true);
  Problem second = first;
  for (std::size_t i = 0; i < second.initial_parameters.size(); ++i) second.initial_parameters[i] *= 0.5;
  for (const OptimizerKind kind : {OptimizerKind::adam, OptimizerKind::lbfgs}) {
    FitSettings settings = short_run();
    StageSettings stage = adam_stage(400, 1e-2);
    stage.optimizer = kind;
    stage.stop = StopRule::chi2;
    settings.stop_chi2 = 1.2;
    settings.stages = {stage};
    const auto backend = make_backend<double>("cpu", {2, 0});
    backend->load({first, second});
    const std::vector<FitResult<double>> together = fit<double>(*backend, {first, second}, settings, {});
    ASSERT_EQ(together.size(), 2u);
    int k = 0;
    for (const Problem& problem : {first, second}) {
      const FitResult<double> alone = run<double>(problem, settings);
      EXPECT_EQ(alone.stop_reason, StopReason::chi2);
      EXPECT_EQ(together[static_cast<std::size_t>(k)].steps, alone.steps);
      EXPECT_EQ(together[static_cast<std::size_t>(k)].parameters, alone.parameters);
      EXPECT_EQ(together[static_cast<std::size_t>(k)].final_state.loss, alone.final_state.loss);
      ++k;
    }
    EXPECT_NE(together[0].steps, together[1].steps);
  }
}

/// After seven updates the parameters of system 0 are beyond all bounds, as after a diverging one.
FitCallbacks<double> exploding_system(Backend<double>& backend) {
  FitCallbacks<double> callbacks;
  callbacks.interrupted = [&backend, asked = 0]() mutable {
    if (++asked == 7) backend.upload(Field::parameters, 0, std::vector<double>(backend.layout().size(), 1e200));
    return false;
  };
  return callbacks;
}

TEST(Fit, ABadSystemDoesNotHoldUpTheOthers) {
  const Problem problem = mock(true);
  const FitSettings settings = short_run();
  const auto backend = make_backend<double>("cpu", {2, 0});
  const auto fitted = [&](const std::vector<Problem>& problems) {
    backend->load(problems);
    return fit<double>(*backend, problems, settings, exploding_system(*backend));
  };
  const std::vector<FitResult<double>> together = fitted({problem, problem});
  const FitResult<double> alone_bad = fitted({problem}).front(), alone_good = run<double>(problem, settings);
  EXPECT_EQ(together[0].stop_reason, StopReason::non_finite);
  EXPECT_EQ(together[0].message, "the loss is not finite in step 8");
  EXPECT_EQ(together[0].parameters, alone_bad.parameters);
  EXPECT_EQ(together[1].stop_reason, StopReason::steps);
  EXPECT_EQ(together[1].parameters, alone_good.parameters);
}

/// System 0 ends in step 8. The snapshots that the steps of system 1 cause later hold the state before its last update.
TEST(Fit, SnapshotsHoldTheLastGoodStateOfAFailedSystem) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.checkpoint_every = 4;
  const auto backend = make_backend<double>("cpu", {2, 0});
  backend->load({problem, problem});
  FitCallbacks<double> callbacks = exploding_system(*backend);
  std::vector<std::vector<Snapshot<double>>> snapshots;
  callbacks.checkpoint = [&](const std::vector<Snapshot<double>>& all) { snapshots.push_back(all); };
  const std::vector<FitResult<double>> results = fit<double>(*backend, {problem, problem}, settings, callbacks);
  ASSERT_EQ(results[0].stop_reason, StopReason::non_finite);
  ASSERT_EQ(results[1].stop_reason, StopReason::steps);

  FitSettings six = settings;
  six.stages[0].steps = 6;
  const Snapshot<double> good = run<double>(problem, six).snapshot;
  int later = 0;
  for (const std::vector<Snapshot<double>>& all : snapshots) {
    if (all[1].step < 8) continue;
    ++later;
    EXPECT_EQ(all[0].step, 6);
    EXPECT_EQ(all[0].parameters, good.parameters);
    EXPECT_EQ(all[0].first_moment, good.first_moment);
    EXPECT_EQ(all[0].second_moment, good.second_moment);
    EXPECT_NE(all[1].parameters, good.parameters);
  }
  EXPECT_GE(later, 4);
}

TEST(Fit, RefusesOtherProblemsThanTheBackendHolds) {
  const Problem problem = mock(true), other = mock(false);
  const auto backend = make_backend<double>("cpu", {1, 0});
  EXPECT_THROW(fit<double>(*backend, {}, short_run(), {}), InvalidInput) << "nothing is loaded";
  backend->load({problem});
  EXPECT_THROW(fit<double>(*backend, {}, short_run(), {}), InvalidInput);
  EXPECT_THROW(fit<double>(*backend, {problem, problem}, short_run(), {}), InvalidInput);
  EXPECT_THROW(fit<double>(*backend, {other}, short_run(), {}), InvalidInput);
  EXPECT_NO_THROW(fit<double>(*backend, {problem}, short_run(), {}));
}

TEST(Fit, NamesOfEnumsAreTheKeysAndTheReasons) {
  EXPECT_STREQ(name_of(StopReason::held_out), "heldout");
  EXPECT_STREQ(name_of(StopReason::non_finite), "non-finite");
  EXPECT_STREQ(name_of(StopRule::held_out), "heldout");
  EXPECT_STREQ(name_of(OptimizerKind::levenberg_marquardt), "levenberg_marquardt");
  EXPECT_STREQ(name_of(LossKind::chi2), "chi2");
  EXPECT_STREQ(name_of(RadiusKind::major_axis), "major_axis");
  EXPECT_STREQ(name_of(NetworkMath::tf32x3), "tf32x3");
  EXPECT_STREQ(name_of(static_cast<LossKind>(7)), "");
}

TEST(Fit, RefusesSettingsOutOfRange) {
  const Problem problem = mock(true);
  FitSettings settings = short_run();
  settings.log_every = 0;
  EXPECT_THROW(run<float>(problem, settings), InvalidInput);
  settings = short_run();
  settings.stages[0].steps = -1;
  EXPECT_THROW(run<float>(problem, settings), InvalidInput);
  settings.stages.clear();
  EXPECT_THROW(run<float>(problem, settings), InvalidInput);
}

}  // namespace
}  // namespace einfield
