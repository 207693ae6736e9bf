// Fits of profiles with a Jacobian: its columns against differences and against the adjoint of the backend, amplitudes
// that are solved for, descents and starts that find the truth, the same bits for any number of threads, uncertainties.
#include "host/fit/levenberg_marquardt.hpp"

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "einfield/error.hpp"
#include "einfield/fitter.hpp"
#include "host/fit/starts.hpp"
#include "host/fit/uncertainties.hpp"
#include "tests/gradcheck.hpp"
#include "tests/step_problem.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

/// Problems with free profiles: every kind of content.
std::vector<StepCase> scalar_cases() {
  std::vector<StepCase> cases;
  for (const StepCase& c : step_cases())
    if (c.free_lens || c.free_light) cases.push_back(c);
  return cases;
}

/// Cotangents of u from those of the physical values of the parameters that move.
std::vector<double> unconstrained_bar(const ScalarModel& model, const std::vector<double>& u,
                                      const std::vector<double>& physical_bar) {
  const ParameterLayout& layout = model.layout();
  std::vector<double> bar(layout.table.size(), 0.0), result;
  for (std::size_t k = 0; k < model.moving().size(); ++k)
    bar[static_cast<std::size_t>(layout.free[static_cast<std::size_t>(model.moving()[k])].slot)] = physical_bar[k];
  for (int i = 0; i < static_cast<int>(layout.n_free()); ++i)
    result.push_back(transform_adjoint(layout.free.data(), i, u.data(), bar.data()));
  return result;
}

TEST(ScalarModel, ColumnsTimesResidualAreTheAdjointOfTheBackend) {
  ThreadPool pool(2);
  for (const StepCase& c : scalar_cases()) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
    ScalarEvaluator evaluator(model, pool);
    const ScalarPoint point = evaluator.evaluate_fixed(model.initial_scalars());
    std::vector<double> gradient = unconstrained_bar(model, point.u, evaluator.curvature().gradient);

    Problem plain = problem;  // the terms on the network have no part in it
    plain.regularization = {};
    const auto backend = make_backend<double>("cpu", {1, 0});
    backend->load({plain});
    backend->evaluate(true);
    const StepState state = backend->state(0);
    EXPECT_NEAR(point.loss, state.loss, 1e-12 * state.loss);
    EXPECT_NEAR(point.chi2_reduced, state.chi2_reduced, 1e-12 * state.chi2_reduced);
    EXPECT_NEAR(point.penalty, state.regularization, 1e-12 * (1 + state.regularization));
    const std::vector<double> all = backend->download(Field::gradient, 0);
    double largest = 0;
    for (std::size_t i = 0; i < gradient.size(); ++i)
      largest = std::max(largest, std::abs(all[model.layout().n_network + i]));
    for (std::size_t i = 0; i < gradient.size(); ++i)
      EXPECT_NEAR(2 * gradient[i], all[model.layout().n_network + i], 1e-11 * largest) << model.layout().names[i];
  }
}

TEST(ScalarModel, NormalMatrixIsThatOfDifferences) {
  ThreadPool pool(1);
  for (const StepCase& c : scalar_cases()) {
    SCOPED_TRACE(c.name);
    Problem problem = make_problem(c);
    const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
    ScalarEvaluator evaluator(model, pool);
    evaluator.evaluate_fixed(model.initial_scalars());
    const Curvature curvature = evaluator.curvature();

    // Columns of the weighted model image by central differences in the physical values.
    const ParameterLayout& layout = model.layout();
    const std::vector<double> values = layout.physical(model.initial_scalars().data());
    const auto backend = make_backend<double>("cpu", {1, 0});
    backend->load({problem});
    const PixelWeights<double> weights = pixel_weights<double>(problem.observation, problem.loss);
    const auto image = [&](const std::vector<double>& at) {
      std::vector<double> parameters = problem.initial_parameters;
      const std::vector<double> u = layout.unconstrained(at);
      std::copy(u.begin(), u.end(), parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network));
      backend->upload(Field::parameters, 0, parameters);
      backend->evaluate(false);
      return backend->download(Field::model, 0);
    };
    const double h = std::cbrt(tolerance::kEpsilon<double>);
    std::vector<std::vector<double>> columns;
    for (const int i : model.moving()) {
      std::vector<double> up = values, down = values;
      up[static_cast<std::size_t>(i)] += h;
      down[static_cast<std::size_t>(i)] -= h;
      const std::vector<double> high = image(up), low = image(down);
      std::vector<double>& column = columns.emplace_back();
      for (std::size_t k = 0; k < high.size(); ++k)
        if (weights.loss[k] > 0) column.push_back((high[k] - low[k]) / (2 * h) * std::sqrt(weights.loss[k]));
      model.whitening().whiten(column.data());
    }
    SymmetricMatrix priors(columns.size());
    for (const GaussianPrior<double>& prior : layout.priors) {
      std::vector<double> slope(columns.size(), 0.0);  // of z
      for (std::size_t k = 0; k < columns.size(); ++k) {
        if (model.moving()[k] == prior.free) slope[k] = 1 / prior.sigma;
        if (model.moving()[k] == prior.other) slope[k] = -prior.factor / prior.sigma;
      }
      for (std::size_t k = 0; k < columns.size(); ++k)
        for (std::size_t j = 0; j < columns.size(); ++j) priors(k, j) += slope[k] * slope[j] / model.n_fitted();
    }
    for (std::size_t i = 0; i < columns.size(); ++i)
      for (std::size_t j = 0; j < columns.size(); ++j) {
        const double expected = inner_product(columns[i], columns[j]);
        const double scale = std::sqrt(inner_product(columns[i], columns[i]) * inner_product(columns[j], columns[j]));
        // Columns of the Sérsic's core have third derivatives of 1e3.
        EXPECT_NEAR(curvature.normal(i, j) - priors(i, j), expected, 1e-6 * scale)
            << layout.names[static_cast<std::size_t>(model.moving()[i])] << ", "
            << layout.names[static_cast<std::size_t>(model.moving()[j])];
      }
  }
}

TEST(ScalarModel, ProjectedGradientIsThatOfDifferences) {
  ThreadPool pool(2);
  for (const StepCase& c : scalar_cases()) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
    ScalarEvaluator evaluator(model, pool);
    const ScalarPoint point = evaluator.evaluate(model.initial_scalars());
    std::vector<double> gradient = unconstrained_bar(model, point.u, evaluator.curvature().gradient);
    std::vector<double> scale(gradient.size(), 0.5);  // third derivatives of some are large
    for (double& g : gradient) g *= 2;
    for (std::size_t k = 0; k < model.n_linear(); ++k) {
      const auto i = static_cast<std::size_t>(model.moving()[k]);
      if (!point.pinned[k]) {
        EXPECT_NEAR(gradient[i], 0, 1e-9 * point.value()) << model.layout().names[i];
      }
      gradient[i] = scale[i] = 0;  // projected out
    }
    const auto value = [&](const std::vector<double>& u) { return evaluator.evaluate(u).value(); };
    EXPECT_LT(gradient_error(value, point.u, scale, gradient), tolerance::kDifference);
  }
}

TEST(ScalarModel, AmplitudesAreTheBestOnes) {
  ThreadPool pool(1);
  StepCase c;
  c.hidden = {};
  c.free_light = c.lens_light = c.background = true;
  c.loss = LossKind::chi2;
  Problem problem = make_problem(c);
  for (double& v : problem.observation.image) v -= 12;  // negative light, which no positive amplitude explains
  const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
  ASSERT_EQ(model.n_linear(), 3u);
  ScalarEvaluator evaluator(model, pool);
  const ScalarPoint best = evaluator.evaluate(model.initial_scalars());
  const std::vector<double> values = model.layout().physical(best.u.data());
  for (std::size_t k = 0; k < 3; ++k) {
    const auto i = static_cast<std::size_t>(model.moving()[k]);
    const bool background = model.layout().names[i] == "lens_light.1.amp";
    if (background)
      EXPECT_LT(values[i], -1);
    else
      EXPECT_GT(values[i], 0);
    for (const double factor : {0.99, 1.01}) {
      std::vector<double> other = values;
      other[i] *= factor;
      EXPECT_GE(evaluator.evaluate_fixed(model.layout().unconstrained(other)).value(), best.value() * (1 - 1e-12));
    }
  }
}

TEST(ScalarModel, NothingThatMovesIsRefused) {
  ThreadPool pool(1);
  const Problem problem = make_problem(step_cases()[0]);
  EXPECT_THROW(ScalarModel(problem, problem.initial_parameters, LossKind::chi2, {}, pool), InvalidInput);
}

/// Bytes that malloc has handed out. 0: another allocator is in its place, as with sanitizers.
std::size_t allocated() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST(ScalarModel, TheBytesItTakesArePlanned) {
  for (const auto& [evaluators, supersampling, mask_radius] :
       {std::tuple{1, 1, 1e3}, {2, 1, 1e3}, {2, 3, 1e3}, {2, 2, 20}}) {
    SCOPED_TRACE(std::to_string(evaluators) + " evaluators, " + std::to_string(supersampling) +
                 "² rays, pixels within " + std::to_string(mask_radius));
    StepCase c;
    c.nx = c.ny = 120;
    c.hidden = {};
    c.free_lens = c.free_light = c.lens_light = true;
    c.supersampling = supersampling;
    Problem problem = make_problem(c);
    for (int i = 0; i < c.nx * c.ny; ++i)
      if (std::hypot(i % c.nx - 60, i / c.nx - 60) > mask_radius)
        problem.observation.mask[static_cast<std::size_t>(i)] = 0;
    ThreadPool pool(1);
    const std::size_t before = allocated();
    const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
    std::vector<ScalarEvaluator> several;
    several.reserve(2);
    for (int k = 0; k < evaluators; ++k) {
      several.emplace_back(model, pool).evaluate(model.initial_scalars());
      several.back().curvature();
    }
    const std::size_t taken = allocated() - before;
    if (taken == 0) GTEST_SKIP() << "this allocator does not say what it has handed out";
    const std::size_t planned = ScalarModel::planned_bytes(problem, evaluators, 1);
    EXPECT_GE(planned, taken);
    EXPECT_LE(planned, 2 * taken);
  }
}

/// A lens with its light, a background and noise; the truth is in the model.
Problem mock(int supersampling = 1) {
  StepCase c;
  c.nx = c.ny = 30;
  c.hidden = {};
  c.free_lens = c.free_light = c.lens_light = c.background = true;
  c.supersampling = supersampling;
  c.loss = LossKind::chi2;
  Problem problem = make_problem(c);
  problem.observation.grid.pixel_scale = 0.15;
  problem.observation.psf = gaussian_psf(0.3, 0.15, 5);
  problem.model.lens[0].values = {1.3, 0.12, -0.06, 0.02, -0.03};
  problem.model.source[0].values = {6, 0.3, 1.2, -0.09, 0.13, 0.1, 0.06};
  problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();
  const auto backend = make_backend<double>("cpu", {1, 0});
  backend->load({problem});
  backend->evaluate(false);
  problem.observation.image = backend->download(Field::model, 0);
  const Philox philox{8};
  for (std::size_t i = 0; i < problem.observation.image.size(); ++i) {
    problem.observation.noise[i] = 0.1;
    problem.observation.image[i] += 0.1 * philox.normal(i);
  }
  return problem;
}

FitSettings settings_for(int starts, int threads = 1) {
  FitSettings settings;
  settings.stages.resize(1);
  settings.stages[0].optimizer = OptimizerKind::levenberg_marquardt;
  settings.stages[0].steps = 100;
  settings.stages[0].schedule.learning_rates = {1e-3};
  settings.starts = starts;
  settings.threads = threads;
  settings.log_every = 5;
  return settings;
}

template <class Real>
FitResult<Real> fitted(const std::vector<Problem>& problems, const FitSettings& settings,
                       const FitCallbacks<Real>& callbacks = {}, const std::vector<Snapshot<Real>>& resume = {}) {
  const auto backend = make_backend<Real>("cpu", {settings.threads, 0});
  backend->load(problems);
  return fit<Real>(*backend, problems, settings, callbacks, resume).front();
}

/// The values that the mock was made from, with their uncertainties at the fit.
void expect_truth(const Problem& truth, const Problem& problem, const std::vector<double>& parameters) {
  ThreadPool pool(1);
  const ParameterLayout layout(problem.model);
  const std::vector<double> values = layout.physical(parameters.data());
  const std::vector<double> expected = layout.physical(ParameterLayout(truth.model).initial_scalars().data());
  const Uncertainties errors = scalar_uncertainties(problem, parameters, pool);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_TRUE(errors.sigma[i] > 0) << layout.names[i];
    EXPECT_NEAR(values[i], expected[i], 4 * errors.sigma[i]) << layout.names[i];
  }
}

TEST(LevenbergMarquardt, FindsTheTruthFromAfar) {
  for (const int supersampling : {1, 2}) {
    const Problem truth = mock(supersampling);
    Problem start = truth;
    start.model.lens[0].values = {1.2, 0, 0, 0, -0.03};
    start.model.lens[1].values = {0, 0, 0, 0};
    start.model.source[0].values = {1, 0.4, 1, 0, 0, 0, 0};
    start.model.lens_light[0].values = {1, 0.4, 0.01, 0};
    start.model.lens_light[1].values = {0};
    start.initial_parameters = ParameterLayout(start.model).initial_scalars();
    const std::vector<Problem> problems{start};
    const FitResult<double> result = fitted<double>(problems, settings_for(1, 2));
    EXPECT_EQ(result.stop_reason, StopReason::converged);
    // 900 pixels minus 17 parameters: 0.98 with a standard deviation of 0.047.
    EXPECT_NEAR(result.final_state.chi2_reduced, 0.98, 3 * 0.047);
    expect_truth(truth, start, result.parameters);
    ASSERT_FALSE(result.snapshot.history.empty());
    EXPECT_EQ(result.snapshot.history.front().step, 0);
    EXPECT_EQ(result.snapshot.history.back().step, result.steps);
    for (std::size_t i = 1; i < result.snapshot.history.size(); ++i)
      EXPECT_LT(result.snapshot.history[i].loss, result.snapshot.history[i - 1].loss);
  }
}

/// A start far enough off for the descent to end in another valley, sometimes.
Problem far_start(const Problem& truth) {
  Problem start = truth;
  start.model.lens[0].values = {1.15, 0, 0, 0, -0.03};
  start.model.lens[1].values = {0, 0, 0, 0};
  start.model.source[0].values = {1, 0.2, 1, 0, 0, -0.1, 0.1};
  start.initial_parameters = ParameterLayout(start.model).initial_scalars();
  return start;
}

void expect_same_start(const StartRecord& a, const StartRecord& b) {
  EXPECT_EQ(a.value, b.value);
  EXPECT_EQ(a.chi2_reduced, b.chi2_reduced);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.redrawn, b.redrawn);
  EXPECT_EQ(a.finished, b.finished);
  EXPECT_EQ(a.best, b.best);
  EXPECT_EQ(a.free, b.free);
}

TEST(Starts, FindTheTruthWithTheSameBitsForAnyNumberOfThreads) {
  const Problem truth = mock();
  const std::vector<Problem> problems{far_start(truth)};
  const FitResult<double> one = fitted<double>(problems, settings_for(9, 1));
  expect_truth(truth, problems[0], one.parameters);
  const std::vector<StartRecord>& starts = one.snapshot.starts;
  ASSERT_EQ(starts.size(), 9u);
  EXPECT_GE(reached_best(starts), 2);
  const auto finished = std::count_if(starts.begin(), starts.end(), [](const auto& s) { return s.finished; });
  EXPECT_GE(finished, 4);
  EXPECT_LT(finished, 9);
  EXPECT_EQ(std::count_if(starts.begin(), starts.end(), [](const auto& s) { return s.best; }), 1);
  for (const int threads : {2, 3}) {
    const FitResult<double> more = fitted<double>(problems, settings_for(9, threads));
    EXPECT_EQ(more.parameters, one.parameters) << threads << " threads";
    ASSERT_EQ(more.snapshot.starts.size(), 9u);
    for (std::size_t i = 0; i < 9; ++i) expect_same_start(more.snapshot.starts[i], starts[i]);
  }
  FitSettings other = settings_for(9);
  other.starts_seed = 2;
  EXPECT_NE(fitted<double>(problems, other).snapshot.starts[1].free, starts[1].free);
}

TEST(Starts, AreDrawnFromPriorsWithinBounds) {
  Problem problem = mock();
  const auto with = [](auto& component, std::size_t i, const ParameterPrior& prior) {
    component.priors.resize(component.values.size());
    component.priors[i] = prior;
  };
  with(problem.model.lens[0], 0, {1.0, 1.6});
  with(problem.model.lens[0], 3, {-kInfinity, kInfinity, 0.5, 0.01});
  with(problem.model.source[0], 2, {0.5, 2, 1.9, 0.3});
  problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();
  ThreadPool pool(1);
  const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
  const auto index = [&](const std::string& name) {
    const auto& names = model.layout().names;
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
  };
  double theta_E = 0, center = 0, low = 2, high = 0;
  constexpr int kDraws = 400;
  for (int k = 0; k < kDraws; ++k) {
    const std::vector<double> u = drawn_scalars(problem.model, model, 7, k, 0);
    const std::vector<double> values = model.layout().physical(u.data());
    theta_E += values[index("lens.0.theta_E")] / kDraws;
    center += values[index("lens.0.center_x")] / kDraws;
    low = std::min(low, values[index("source.0.n_sersic")]);
    high = std::max(high, values[index("source.0.n_sersic")]);
    const double e1 = values[index("source.0.e1")], e2 = values[index("source.0.e2")];
    EXPECT_LT(std::hypot(e1, e2), 0.81);
    EXPECT_EQ(values[index("source.0.amp")], problem.model.source[0].values[0]);
  }
  EXPECT_NEAR(theta_E, 1.3, 4 * 0.6 / std::sqrt(12.0 * kDraws));
  EXPECT_NEAR(center, 0.5, 4 * 0.01 / std::sqrt(kDraws));
  EXPECT_GT(low, 0.5);
  EXPECT_LT(high, 2);
  EXPECT_EQ(drawn_scalars(problem.model, model, 7, 3, 0), drawn_scalars(problem.model, model, 7, 3, 0));
  EXPECT_NE(drawn_scalars(problem.model, model, 7, 3, 0), drawn_scalars(problem.model, model, 7, 3, 1));
}

TEST(LevenbergMarquardt, AnInterruptedStageIsDoneAgainWithTheSameBits) {
  const std::vector<Problem> problems{far_start(mock())};
  FitSettings settings = settings_for(5);
  StageSettings adam;
  adam.steps = 12;
  adam.schedule.learning_rates = {1e-3};
  settings.stages.push_back(adam);
  const FitResult<float> whole = fitted<float>(problems, settings);
  EXPECT_EQ(whole.snapshot.starts.size(), 5u);
  for (const int stop_after : {1, 4, 17}) {
    FitCallbacks<float> callbacks;
    int asked = 0;
    callbacks.interrupted = [&] { return ++asked == stop_after; };
    const FitResult<float> part = fitted<float>(problems, settings, callbacks);
    ASSERT_EQ(part.stop_reason, StopReason::interrupted) << stop_after;
    const FitResult<float> rest = fitted<float>(problems, settings, {}, {part.snapshot});
    EXPECT_EQ(rest.parameters, whole.parameters) << stop_after;
    EXPECT_EQ(rest.steps, whole.steps);
    ASSERT_EQ(rest.snapshot.starts.size(), 5u);
    for (std::size_t i = 0; i < 5; ++i) expect_same_start(rest.snapshot.starts[i], whole.snapshot.starts[i]);
    ASSERT_EQ(rest.snapshot.history.size(), whole.snapshot.history.size());
    for (std::size_t i = 0; i < rest.snapshot.history.size(); ++i)
      EXPECT_EQ(rest.snapshot.history[i].loss, whole.snapshot.history[i].loss);
  }
  // What has converged stays as it is.
  settings.stages.pop_back();
  const FitResult<float> done = fitted<float>(problems, settings);
  const FitResult<float> again = fitted<float>(problems, settings, {}, {done.snapshot});
  EXPECT_EQ(again.parameters, done.parameters);
  EXPECT_EQ(again.snapshot.history.size(), done.snapshot.history.size());
}

TEST(LevenbergMarquardt, MembersOfAnEnsembleShareTheStarts) {
  const std::vector<Problem> problems(3, far_start(mock()));
  FitSettings settings = settings_for(9);
  const auto fit_all = [&](const FitCallbacks<double>& callbacks = {},
                           const std::vector<Snapshot<double>>& resume = {}) {
    const auto backend = make_backend<double>("cpu", {1, 0});
    backend->load(problems);
    return fit<double>(*backend, problems, settings, callbacks, resume);
  };
  const std::vector<FitResult<double>> each = fit_all();
  settings.ensemble = true;
  const std::vector<FitResult<double>> shared = fit_all();
  EXPECT_EQ(shared[0].parameters, each[0].parameters);
  EXPECT_EQ(shared[0].snapshot.starts.size(), 9u);
  for (std::size_t k : {1u, 2u}) {
    EXPECT_EQ(each[k].evaluations, each[0].evaluations);
    EXPECT_LT(shared[k].evaluations, each[0].evaluations / 10);
    EXPECT_EQ(shared[k].stop_reason, StopReason::converged);
    EXPECT_LE(shared[k].final_state.loss, each[k].final_state.loss * (1 + 1e-9));
    EXPECT_TRUE(shared[k].snapshot.starts.empty());
  }
  // Interrupted after the first member: the others continue from it.
  int asked = 0;
  FitCallbacks<double> count;
  count.interrupted = [&] { return ++asked < 0; };
  fit_all(count);
  for (const int stop_after : {1, asked - 1, asked}) {
    FitCallbacks<double> callbacks;
    int n = 0;
    callbacks.interrupted = [&] { return ++n == stop_after; };
    std::vector<Snapshot<double>> snapshots;
    for (const FitResult<double>& part : fit_all(callbacks)) snapshots.push_back(part.snapshot);
    const std::vector<FitResult<double>> rest = fit_all({}, snapshots);
    for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(rest[k].parameters, shared[k].parameters) << stop_after << " " << k;
  }
}

TEST(LevenbergMarquardt, MovesOnlyWhatTheStageFrees) {
  const std::vector<Problem> problems{far_start(mock())};
  FitSettings settings = settings_for(1);
  settings.stages[0].schedule.trainable = trainable(problems[0].model, {"source", "lens_light.1"});
  const FitResult<double> result = fitted<double>(problems, settings);
  const ParameterLayout layout(problems[0].model);
  for (std::size_t i = 0; i < layout.n_free(); ++i) {
    const bool free = layout.names[i].rfind("source", 0) == 0 || layout.names[i].rfind("lens_light.1", 0) == 0;
    EXPECT_EQ(result.parameters[i] != problems[0].initial_parameters[i], free) << layout.names[i];
  }
}

TEST(LevenbergMarquardt, WithoutStepsTheModelIsOnlyEvaluated) {
  const std::vector<Problem> problems{far_start(mock())};
  FitSettings settings = settings_for(4);
  settings.stages[0].steps = 0;
  const FitResult<double> result = fitted<double>(problems, settings);
  EXPECT_EQ(result.stop_reason, StopReason::steps);
  EXPECT_EQ(result.steps, 0);
  EXPECT_EQ(result.parameters, problems[0].initial_parameters);
  ASSERT_EQ(result.snapshot.history.size(), 1u);
  EXPECT_EQ(result.snapshot.history[0].loss, result.final_state.loss);
}

TEST(LevenbergMarquardt, SeveralStartsAreOfAFirstStage) {
  const std::vector<Problem> problems{mock()};
  FitSettings settings = settings_for(2);
  settings.stages[0].optimizer = OptimizerKind::adam;
  EXPECT_THROW(fitted<double>(problems, settings), InvalidInput);
}

TEST(LevenbergMarquardt, PixelsThatAStageLeavesOutDoNotMatter) {
  const Problem start = far_start(mock());
  FitSettings settings = settings_for(1);
  settings.stages[0].schedule.trainable = trainable(start.model, {"lens_light"});
  settings.stages[0].leave_out_inner = 0.7;
  settings.stages[0].leave_out_outer = 1.4;
  const FitResult<double> without = fitted<double>({start}, settings);
  // The same as masking them, and whatever they hold.
  Problem masked = start, spoilt = start;
  const Grid& grid = start.observation.grid;
  const double theta_E = start.model.lens[0].values[0];
  int left_out = 0;
  for (int i = 0; i < grid.n_pixels(); ++i) {
    const Vec2<double> theta = grid.pixel(i);
    const double r = std::hypot(theta.x, theta.y + 0.03) / theta_E;
    if (r < 0.7 || r > 1.4) continue;
    masked.observation.mask[static_cast<std::size_t>(i)] = 0;
    spoilt.observation.image[static_cast<std::size_t>(i)] += 100;
    ++left_out;
  }
  ASSERT_GT(left_out, 50);
  EXPECT_EQ(fitted<double>({spoilt}, settings).parameters, without.parameters);
  FitSettings plain = settings;
  plain.stages[0].leave_out_inner = plain.stages[0].leave_out_outer = 0;
  EXPECT_EQ(fitted<double>({masked}, plain).parameters, without.parameters);
  EXPECT_NE(fitted<double>({start}, plain).parameters, without.parameters);
  settings.stages[0].leave_out_inner = 0;
  settings.stages[0].leave_out_outer = 1000;
  EXPECT_THROW(fitted<double>({start}, settings), InvalidInput);
}

TEST(LevenbergMarquardt, TheWeightOfThePriorsIsThatOfANarrowerOne) {
  Problem problem = far_start(mock());
  problem.model.lens[0].priors.resize(5);
  problem.model.lens[0].priors[0] = {-kInfinity, kInfinity, 1.0, 0.05};
  Problem narrower = problem;
  problem.model.prior_weight = 4;
  narrower.model.lens[0].priors[0].sigma = 0.025;
  const FitResult<double> weighted = fitted<double>({problem}, settings_for(1)),
                          same = fitted<double>({narrower}, settings_for(1));
  EXPECT_EQ(weighted.parameters, same.parameters);
  EXPECT_EQ(weighted.final_state.loss, same.final_state.loss);
  problem.model.prior_weight = 0;
  EXPECT_THROW(problem.model.validate(), InvalidInput);
}

StartRecord ended_at(double value, bool finished = true) {
  StartRecord record;
  record.value = record.chi2_reduced = value;
  record.steps = 10;
  record.alive = true;
  record.finished = finished;
  record.free = {value};
  return record;
}

TEST(Starts, ValleysAreCountedOnce) {
  // Two in the lowest valley, one that was given up, one alone, one dead.
  std::vector<StartRecord> starts = {ended_at(3), ended_at(1.0005), ended_at(0.9, false),
                                     ended_at(1), ended_at(2),      ended_at(0.5)};
  starts[5].alive = false;
  starts[3].best = true;
  EXPECT_EQ(lowest_valleys(starts, 9), (std::vector<std::size_t>{3, 4, 0}));
  EXPECT_EQ(lowest_valleys(starts, 2), (std::vector<std::size_t>{3, 4}));
  EXPECT_EQ(lowest_valleys({}, 2), std::vector<std::size_t>{});

  // The second valley becomes the lowest one.
  std::vector<StartRecord> after = {ended_at(0.8), ended_at(0.4)};
  after[1].best = true;
  const std::vector<StartRecord> now = continued_starts(starts, {3, 4}, after);
  ASSERT_EQ(now.size(), 6u);
  const std::vector<double> values = {3, 0.8, 0.9, 0.8, 0.4, 0.5};
  const std::vector<bool> finished = {false, true, false, true, true, false};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(now[i].value, values[i]) << i;
    EXPECT_EQ(now[i].finished, finished[i]) << i;
    EXPECT_EQ(now[i].best, i == 4) << i;
    EXPECT_EQ(now[i].steps, finished[i] ? 20 : 10) << i;
  }
  EXPECT_EQ(reached_best(now), 1);
}

TEST(Starts, ALaterStageBeginsFromEveryValley) {
  const Problem truth = mock();
  const std::vector<Problem> problems{far_start(truth)};
  FitSettings settings = settings_for(1);
  settings.stages.resize(3, settings.stages[0]);
  settings.stages[0].schedule.trainable = trainable(truth.model, {"lens_light"});
  settings.stages[1].schedule.trainable = trainable(truth.model, {"lens", "source"});
  settings.stages[1].starts = 9;
  settings.stages[2].valleys = 3;
  std::vector<StartsProgress> told;
  FitCallbacks<double> callbacks;
  callbacks.starts = [&](int, const StartsProgress& now) { told.push_back(now); };
  const FitResult<double> result = fitted<double>(problems, settings, callbacks);
  expect_truth(truth, problems[0], result.parameters);
  ASSERT_EQ(result.stages.size(), 3u);
  std::int64_t steps = 0;
  for (const StageEnd& stage : result.stages) {
    EXPECT_EQ(stage.reason, StopReason::converged);
    steps += stage.steps;
  }
  EXPECT_EQ(steps, result.steps);
  const std::vector<StartRecord>& starts = result.snapshot.starts;
  ASSERT_EQ(starts.size(), 9u);  // those of the second stage, and where they ended in the third
  EXPECT_GE(reached_best(starts), 1);
  double best = kInfinity;
  for (const StartRecord& start : starts) best = start.best ? start.value : best;
  EXPECT_NEAR(best, result.final_state.loss, 1e-9);
  // The starts of the second stage end one after the other; their number never falls.
  ASSERT_FALSE(told.empty());
  int before = 0, of_second = 0;
  for (const StartsProgress& now : told) {
    if (now.stage != 1) continue;
    EXPECT_GT(now.ended, before);
    EXPECT_EQ(now.count, 9);
    EXPECT_TRUE(std::isfinite(now.chi2_reduced));
    before = now.ended;
    ++of_second;
  }
  EXPECT_EQ(before, 9);
  EXPECT_GE(of_second, 2);

  // An interrupted stage is repeated with the same bits, also the one that begins from the valleys.
  for (const int stop_after : {2, 25, 40}) {
    FitCallbacks<double> interrupting;
    int n = 0;
    interrupting.interrupted = [&] { return ++n == stop_after; };
    const FitResult<double> part = fitted<double>(problems, settings, interrupting);
    if (part.stop_reason != StopReason::interrupted) continue;
    EXPECT_EQ(fitted<double>(problems, settings, {}, {part.snapshot}).parameters, result.parameters) << stop_after;
  }
}

/// Starts without a finite value: a source so small that its light overflows.
TEST(Starts, DeadOnesAreDrawnAgainAndCounted) {
  Problem problem = far_start(mock());
  problem.observation.psf = {};
  for (double& v : problem.observation.image) v *= 1e200;  // squares overflow: every start is dead
  const std::vector<Problem> problems{problem};
  const FitResult<double> result = fitted<double>(problems, settings_for(3));
  EXPECT_EQ(result.stop_reason, StopReason::non_finite);
  ASSERT_EQ(result.snapshot.starts.size(), 3u);
  for (const StartRecord& start : result.snapshot.starts) {
    EXPECT_FALSE(start.alive);
    EXPECT_EQ(start.redrawn, kRedraws + 1);
  }
  EXPECT_EQ(result.parameters, problem.initial_parameters);
}

TEST(Uncertainties, OfAnAmplitudeAndItsPriorAreKnown) {
  ThreadPool pool(1);
  Problem problem;
  problem.observation.grid = {7, 5, 0.3, 0, 0, 1};
  problem.observation.image.assign(35, 0.2);
  problem.observation.noise.assign(35, 0.5);
  problem.observation.mask.assign(35, 1);
  problem.observation.mask[4] = 0;
  LightComponent background;
  background.kind = LightKind::uniform;
  background.values = {0.1};
  background.free = {true};
  problem.model.lens_light = {background};
  problem.loss = LossKind::mse;  // the noise counts all the same
  problem.initial_parameters = {0.1};
  EXPECT_NEAR(scalar_uncertainties(problem, {0.1}, pool).sigma.at(0), 0.5 / std::sqrt(34.0), 1e-14);
  problem.model.lens_light[0].priors = {{-kInfinity, kInfinity, 0.3, 0.1}};
  const double expected = 1 / std::sqrt(34 / 0.25 + 1 / 0.01);
  const Uncertainties with_prior = scalar_uncertainties(problem, {0.1}, pool);
  EXPECT_NEAR(with_prior.sigma.at(0), expected, 1e-14);
  EXPECT_EQ(with_prior.correlations(0, 0), 1);

  // And the fit is the weighted mean of data and prior.
  problem.loss = LossKind::chi2;
  const std::vector<Problem> problems{problem};
  const FitResult<double> result = fitted<double>(problems, settings_for(1));
  EXPECT_NEAR(result.parameters.at(0), (34 / 0.25 * 0.2 + 0.3 / 0.01) * expected * expected, 1e-12);
  EXPECT_EQ(result.stop_reason, StopReason::converged);
}

TEST(Uncertainties, WhatTheDataDoNotSeeHasNone) {
  ThreadPool pool(1);
  Problem problem = mock();
  LightComponent invisible = problem.model.source[0];
  invisible.values[0] = 1e-12;
  problem.model.source.push_back(invisible);
  problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();
  const Uncertainties errors = scalar_uncertainties(problem, problem.initial_parameters, pool);
  const ParameterLayout layout(problem.model);
  for (std::size_t i = 0; i < layout.n_free(); ++i) {
    if (layout.names[i].find(".amp") != std::string::npos && layout.names[i].rfind("source", 0) == 0)
      continue;  // the same profile twice: only the sum of the amplitudes is seen
    EXPECT_EQ(std::isnan(errors.sigma[i]), layout.names[i].rfind("source.1", 0) == 0) << layout.names[i];
  }
}

}  // namespace
}  // namespace einfield
