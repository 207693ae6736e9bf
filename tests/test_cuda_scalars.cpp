// The Jacobian on the device: normal matrices and amplitudes as on the CPU, derivatives against differences, whole fits
// with several starts and systems, uncertainties, and the number of launches and synchronizations of a round.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "einfield/error.hpp"
#include "einfield/fitter.hpp"
#include "host/fit/cuda_scalar_batch.hpp"
#include "host/fit/fit_memory.hpp"
#include "host/fit/starts.hpp"
#include "host/fit/uncertainties.hpp"
#include "kernels/cuda_backend.hpp"
#include "tests/gradcheck.hpp"
#include "tests/step_problem.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

class CudaScalars : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices().empty()) GTEST_SKIP() << "no CUDA device";
  }
};

/// Sums of a thousand products in another order, and other rounding of the profiles, relative to the lengths of the
/// columns: the project's bound for double precision.
constexpr double kAgreement = 1e-11;

/// Every kind of content that has free profiles, PSFs on sub-pixels, and PSFs too large for the direct kernel. With
/// correlated noise this batch is not used (has_device_batch()).
std::vector<StepCase> scalar_cases() {
  std::vector<StepCase> cases;
  for (const StepCase& c : step_cases())
    if ((c.free_lens || c.free_light) && !c.correlated) cases.push_back(c);
  StepCase c;
  c.free_lens = c.free_light = c.lens_light = c.background = true;
  c.loss = LossKind::chi2;
  c.hidden = {};
  c.name = "psf_of_half_pixels";
  c.supersampling = 4;
  c.psf_supersampling = 2;
  c.psf_size = 7;
  cases.push_back(c);
  c.name = "psf_of_third_pixels";
  c.supersampling = c.psf_supersampling = 3;
  c.psf_size = 15;
  cases.push_back(c);
  c.name = "large_psf";
  c.nx = 23;
  c.supersampling = c.psf_supersampling = 1;
  c.psf_size = 25;
  c.masked = true;
  cases.push_back(c);
  c.name = "large_psf_of_half_pixels";
  c.supersampling = c.psf_supersampling = 2;
  cases.push_back(c);
  c.name = "no_psf";
  c.psf_size = 0;
  c.psf_supersampling = 1;
  cases.push_back(c);
  return cases;
}

std::vector<ScalarModel> models_of(const std::vector<Problem>& problems, LossKind loss,
                                   const std::vector<std::uint8_t>& moves, ThreadPool* pool) {
  std::vector<ScalarModel> models;
  for (const Problem& p : problems) models.emplace_back(p, p.initial_parameters, loss, moves, pool);
  return models;
}

void expect_same_answer(const ScalarAnswer& found, const ScalarAnswer& expected) {
  const ScalarPoint &a = found.point, &b = expected.point;
  ASSERT_EQ(a.finite, b.finite);
  ASSERT_EQ(found.curvature.has_value(), expected.curvature.has_value());
  if (!b.finite) return;
  EXPECT_NEAR(a.loss, b.loss, kAgreement * b.loss);
  EXPECT_NEAR(a.chi2_reduced, b.chi2_reduced, kAgreement * b.chi2_reduced);
  EXPECT_NEAR(a.penalty, b.penalty, kAgreement * (1 + b.penalty));
  EXPECT_EQ(a.pinned, b.pinned);
  ASSERT_EQ(a.u.size(), b.u.size());
  for (std::size_t i = 0; i < a.u.size(); ++i) EXPECT_NEAR(a.u[i], b.u[i], kAgreement * (1 + std::abs(b.u[i])));
  if (!expected.curvature) return;
  const SymmetricMatrix &n = found.curvature->normal, &m = expected.curvature->normal;
  ASSERT_EQ(n.n, m.n);
  for (std::size_t i = 0; i < n.n; ++i) {
    for (std::size_t j = 0; j < n.n; ++j)
      EXPECT_NEAR(n(i, j), m(i, j), kAgreement * std::sqrt(m(i, i) * m(j, j))) << i << ", " << j;
    EXPECT_NEAR(found.curvature->gradient[i], expected.curvature->gradient[i],
                kAgreement * std::sqrt(m(i, i) * (1 + b.loss)))
        << i;
  }
}

TEST_F(CudaScalars, NormalMatricesAreThoseOfTheCpu) {
  ThreadPool pool(2);
  for (const StepCase& c : scalar_cases()) {
    SCOPED_TRACE(c.name);
    const std::vector<Problem> problems{make_problem(c)};
    CpuScalarBatch cpu(models_of(problems, c.loss, {}, &pool), 1, pool);
    CudaScalarBatch cuda(0, models_of(problems, c.loss, {}, nullptr), 4);
    const std::vector<double> u = cpu.model(0).initial_scalars();
    std::vector<double> moved = u;
    for (std::size_t i = 0; i < u.size(); ++i) moved[i] += 0.03 * std::sin(1.0 + static_cast<double>(i));
    const double value = cpu.evaluate({{0, u, true, 0}}).front().point.value();
    const std::vector<ScalarRequest> points = {
        {0, u}, {0, moved}, {0, moved, false}, {0, u, true, value * 0.999}, {0, u, true, value * 1.001}};
    const std::vector<ScalarAnswer> found = cuda.evaluate(points), expected = cpu.evaluate(points);
    ASSERT_EQ(found.size(), points.size());
    EXPECT_FALSE(found[3].curvature.has_value());
    EXPECT_TRUE(found[4].curvature.has_value());
    for (std::size_t k = 0; k < points.size(); ++k) {
      SCOPED_TRACE("point " + std::to_string(k));
      expect_same_answer(found[k], expected[k]);
    }
    const std::vector<ScalarAnswer> again = cuda.evaluate({points[1]});
    EXPECT_EQ(again[0].point.u, found[1].point.u) << "the same bits";
    EXPECT_EQ(again[0].curvature->normal.values, found[1].curvature->normal.values) << "the same bits";
  }
}

/// Amplitudes alone, a lens without any amplitude, everything but the lens.
TEST_F(CudaScalars, OnlyWhatMovesHasAColumn) {
  ThreadPool pool(1);
  const StepCase c = scalar_cases()[0];
  const std::vector<Problem> problems{make_problem(c)};
  using Names = std::vector<std::string>;
  for (const Names& names : {Names{"source.0.amp", "lens_light.0.amp"}, Names{"lens"}, Names{"source", "lens_light"}}) {
    SCOPED_TRACE(names[0]);
    const std::vector<std::uint8_t> moves = trainable(problems[0].model, names);
    CpuScalarBatch cpu(models_of(problems, c.loss, moves, &pool), 1, pool);
    CudaScalarBatch cuda(0, models_of(problems, c.loss, moves, nullptr), 1);
    const std::vector<ScalarRequest> point = {{0, cpu.model(0).initial_scalars()}};
    expect_same_answer(cuda.evaluate(point)[0], cpu.evaluate(point)[0]);
  }
}

/// Masks, and so cut-outs, of different sizes; data without a finite square.
TEST_F(CudaScalars, SystemsDoNotMeet) {
  ThreadPool pool(1);
  StepCase c = scalar_cases()[0];
  c.nx = c.ny = 15;
  std::vector<Problem> problems;
  for (c.seed = 3; c.seed < 6; ++c.seed) problems.push_back(make_problem(c));
  for (int i = 0; i < 15 * 15; ++i) {
    if (i % 15 > 6 || i / 15 > 8) problems[1].observation.mask[static_cast<std::size_t>(i)] = 0;
    if (i % 15 < 9) problems[2].observation.mask[static_cast<std::size_t>(i)] = 0;
  }
  problems[0].held_out.assign(15 * 15, 0);
  problems[0].held_out[40] = problems[0].held_out[90] = 1;
  Problem broken = problems[0];
  for (double& v : broken.observation.image) v *= 1e200;
  problems.push_back(broken);
  CpuScalarBatch cpu(models_of(problems, c.loss, {}, &pool), 1, pool);
  CudaScalarBatch cuda(0, models_of(problems, c.loss, {}, nullptr), 8);
  std::vector<ScalarRequest> points;
  for (const int system : {2, 0, 1, 1, 3, 0, 2}) {
    ScalarRequest& point = points.emplace_back();
    point.system = system;
    point.u = cpu.model(system).initial_scalars();
    for (double& u : point.u) u += 0.01 * static_cast<double>(points.size());
  }
  const std::vector<ScalarAnswer> found = cuda.evaluate(points), expected = cpu.evaluate(points);
  EXPECT_FALSE(found[4].point.finite);
  for (std::size_t k = 0; k < points.size(); ++k) {
    SCOPED_TRACE("point " + std::to_string(k));
    expect_same_answer(found[k], expected[k]);
  }
}

TEST_F(CudaScalars, GradientsAreThoseOfDifferences) {
  for (const StepCase& c : scalar_cases()) {
    if (c.name != "network_source_on_sersic_all_free" && c.name != "psf_of_half_pixels" && c.name != "large_psf" &&
        c.name != "network_and_priors")
      continue;
    SCOPED_TRACE(c.name);
    const std::vector<Problem> problems{make_problem(c)};
    CudaScalarBatch cuda(0, models_of(problems, c.loss, {}, nullptr), 1);
    const ScalarModel& model = cuda.model(0);
    const ParameterLayout& layout = model.layout();
    const std::vector<double> u = model.initial_scalars();
    const ScalarAnswer answer = cuda.evaluate({{0, u, false}})[0];
    ASSERT_TRUE(answer.curvature.has_value());
    std::vector<double> bar(layout.table.size(), 0.0), gradient, scale(u.size(), 1.0);
    for (std::size_t k = 0; k < model.moving().size(); ++k)
      bar[static_cast<std::size_t>(layout.free[static_cast<std::size_t>(model.moving()[k])].slot)] =
          2 * answer.curvature->gradient[k];
    for (std::size_t i = 0; i < u.size(); ++i)
      gradient.push_back(transform_adjoint(layout.free.data(), static_cast<int>(i), u.data(), bar.data()));
    const auto value = [&](const std::vector<double>& at) {
      return cuda.evaluate({{0, at, false, -kInfinity}})[0].point.value();
    };
    EXPECT_LT(gradient_error(value, u, scale, gradient), tolerance::kDifference);
  }
}

/// However many points, a round is two copies, one synchronization and the same launches.
TEST_F(CudaScalars, ARoundWaitsOnce) {
  for (const StepCase& c : scalar_cases()) {
    const bool fft = c.name == "large_psf";
    if (c.name != "all_free" && !fft) continue;
    SCOPED_TRACE(c.name);
    const std::vector<Problem> problems{make_problem(c)};
    CudaScalarBatch cuda(0, models_of(problems, c.loss, {}, nullptr), 7);
    for (const std::size_t n : {1u, 7u}) {
      const cuda::ColumnsCounts before = cuda.counts();
      cuda.evaluate(std::vector<ScalarRequest>(n, {0, cuda.model(0).initial_scalars()}));
      const cuda::ColumnsCounts after = cuda.counts();
      EXPECT_EQ(after.rounds - before.rounds, 1);
      EXPECT_EQ(after.points - before.points, static_cast<std::int64_t>(n));
      EXPECT_EQ(after.synchronizations - before.synchronizations, 1);
      EXPECT_EQ(after.copies - before.copies, 2);
      EXPECT_EQ(after.launches - before.launches, fft ? 15 : 9);  // a transform counts as one
    }
  }
}

TEST_F(CudaScalars, TheBytesItTakesArePlanned) {
  for (const StepCase& c : scalar_cases()) {
    const bool exact = c.name == "psf_of_half_pixels";
    if (!exact && c.name != "network_source_on_sersic_all_free" && c.name != "all_free" && c.name != "large_psf")
      continue;
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    const std::vector<Problem> problems(2, problem);
    const std::size_t before = cuda_free_bytes(0);
    const CudaScalarBatch cuda(0, models_of(problems, c.loss, {}, nullptr), 5);
    const std::size_t taken = before - cuda_free_bytes(0);
    ASSERT_GT(taken, 0u);
    const std::size_t planned = CudaScalarBatch::planned_bytes(0, cuda.model(0), 2, 5);
    EXPECT_GE(planned, taken);
    // The others count what cuFFT may take, and networks whose deflection is computed once.
    if (exact) {
      EXPECT_LE(planned, 1.1 * static_cast<double>(taken));
    }
  }
  const auto backend = make_backend<float>("cuda", {});
  EXPECT_NO_THROW(require_device_memory(*backend, cuda_free_bytes(0) / 2));
  EXPECT_THROW(require_device_memory(*backend, 2 * cuda_free_bytes(0)), CudaError);
}

/// A lens with its light, a background and noise, a second one like it, and starting values that are off.
std::vector<Problem> mocks() {
  StepCase c;
  c.nx = c.ny = 20;
  c.hidden = {};
  c.free_lens = c.free_light = c.lens_light = c.background = true;
  c.loss = LossKind::chi2;
  std::vector<Problem> problems;
  for (std::uint64_t k = 0; k < 2; ++k) {
    Problem problem = make_problem(c);
    problem.observation.grid.pixel_scale = 0.2;
    problem.observation.psf = gaussian_psf(0.3, 0.2, 5);
    problem.model.lens[0].values = {1.3 - 0.1 * static_cast<double>(k), 0.12, -0.06, 0.02, -0.03};
    problem.model.source[0].values = {6, 0.3, 1.2, -0.09, 0.13, 0.1, 0.06};
    problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();
    const auto backend = make_backend<double>("cpu", {1, 0});
    backend->load({problem});
    backend->evaluate(false);
    problem.observation.image = backend->download(Field::model, 0);
    const Philox philox{8 + k};
    for (std::size_t i = 0; i < problem.observation.image.size(); ++i) {
      problem.observation.noise[i] = 0.1;
      problem.observation.image[i] += 0.1 * philox.normal(i);
    }
    problem.model.lens[0].values = {1.15, 0, 0, 0, -0.03};
    problem.model.lens[1].values = {0, 0, 0, 0};
    problem.model.source[0].values = {1, 0.2, 1, 0, 0, -0.1, 0.1};
    problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();
    problems.push_back(problem);
  }
  return problems;
}

std::vector<FitResult<double>> fitted(const std::string& backend_name, const std::vector<Problem>& problems,
                                      bool ensemble = false) {
  const auto backend = make_backend<double>(backend_name, {2, 0});
  EXPECT_EQ(backend->name(), backend_name);
  backend->load(problems);
  FitSettings settings;
  settings.stages[0].optimizer = OptimizerKind::levenberg_marquardt;
  settings.stages[0].steps = 40;
  settings.starts = 6;
  settings.ensemble = ensemble;
  return fit<double>(*backend, problems, settings, {});
}

TEST_F(CudaScalars, FitsEndWhereThoseOfTheCpuEnd) {
  const std::vector<Problem> problems = mocks();
  const std::vector<FitResult<double>> cpu = fitted("cpu", problems), cuda = fitted("cuda", problems);
  for (std::size_t i = 0; i < problems.size(); ++i) {
    SCOPED_TRACE("system " + std::to_string(i));
    const FitResult<double>&a = cuda[i], &b = cpu[i];
    EXPECT_EQ(a.stop_reason, b.stop_reason);
    EXPECT_NEAR(a.final_state.loss, b.final_state.loss, 1e-9 * b.final_state.loss);
    EXPECT_NEAR(b.final_state.chi2_reduced, 0.96, 3 * 0.07);  // 400 pixels, 17 parameters
    ASSERT_EQ(a.parameters.size(), b.parameters.size());
    for (std::size_t k = 0; k < a.parameters.size(); ++k)
      EXPECT_NEAR(a.parameters[k], b.parameters[k], 1e-6 * (1 + std::abs(b.parameters[k])));
    ASSERT_EQ(a.snapshot.starts.size(), 6u);
    // Several starts may end in the same minimum, where the last digits decide which one is the best.
    EXPECT_EQ(reached_best(a.snapshot.starts), reached_best(b.snapshot.starts));
    double best = kInfinity;
    for (const StartRecord& start : b.snapshot.starts) best = std::min(best, start.value);
    for (std::size_t k = 0; k < 6; ++k)
      if (a.snapshot.starts[k].best) {
        EXPECT_LE(b.snapshot.starts[k].value, best * (1 + 1e-6)) << k;
      }
  }
  const std::vector<FitResult<double>> again = fitted("cuda", problems), one = fitted("cuda", {problems[1]});
  EXPECT_EQ(again[0].parameters, cuda[0].parameters) << "the same bits";
  EXPECT_EQ(one[0].parameters, cuda[1].parameters) << "the same bits without the other system";
}

/// Starts and systems wait for each other only where the worse half is given up.
TEST_F(CudaScalars, AllStartsAdvanceInTheSameRounds) {
  ThreadPool pool(2);
  const std::vector<Problem> problems = mocks();
  CudaScalarBatch batch(0, models_of(problems, LossKind::chi2, {}, nullptr), 12);
  std::vector<StartsPlan> plans;
  for (const Problem& problem : problems) plans.push_back({&problem.model, 6, 1, 12});
  const std::vector<StartsResult> results = run_starts(batch, plans, pool, {});
  const cuda::ColumnsCounts counts = batch.counts();
  std::int64_t evaluations = 0, redrawn = 0;
  for (const StartsResult& result : results) {
    evaluations += result.evaluations;
    for (const StartRecord& start : result.starts) redrawn += start.redrawn;
  }
  EXPECT_EQ(counts.points, evaluations + redrawn);
  EXPECT_EQ(counts.synchronizations, counts.rounds);
  EXPECT_LT(3 * counts.rounds, counts.points);
}

TEST_F(CudaScalars, MembersOfAnEnsembleFollowTheFirst) {
  const std::vector<Problem> problems(3, mocks()[0]);
  const std::vector<FitResult<double>> each = fitted("cuda", problems, true);
  EXPECT_EQ(each[0].snapshot.starts.size(), 6u);
  for (const std::size_t k : {1u, 2u}) {
    EXPECT_TRUE(each[k].snapshot.starts.empty());
    EXPECT_LT(each[k].evaluations, each[0].evaluations / 5);
    EXPECT_LE(each[k].final_state.loss, each[0].final_state.loss * (1 + 1e-9));
  }
}

TEST_F(CudaScalars, UncertaintiesAreThoseOfTheCpu) {
  ThreadPool pool(1);
  const auto backend = make_backend<float>("cuda", {});
  for (const StepCase& c : scalar_cases()) {
    if (c.name != "network_and_priors" && c.name != "background_and_priors") continue;
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    const Uncertainties cpu = scalar_uncertainties(problem, problem.initial_parameters, pool),
                        cuda = scalar_uncertainties(*backend, problem, problem.initial_parameters, pool);
    ASSERT_EQ(cuda.sigma.size(), cpu.sigma.size());
    for (std::size_t i = 0; i < cpu.sigma.size(); ++i) {
      ASSERT_TRUE(cpu.sigma[i] > 0);
      EXPECT_NEAR(cuda.sigma[i], cpu.sigma[i], 1e-8 * cpu.sigma[i]);  // an inverse of a condition of 1e3 and more
    }
  }
}

TEST_F(CudaScalars, SystemsOfDifferentShapesAreRefused) {
  StepCase c = scalar_cases()[0];
  std::vector<Problem> problems{make_problem(c)};
  c.background = true;
  problems.push_back(make_problem(c));
  EXPECT_THROW(CudaScalarBatch(0, models_of(problems, c.loss, {}, nullptr), 2), InvalidInput);
}

}  // namespace
}  // namespace einfield
