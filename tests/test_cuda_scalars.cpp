// The Jacobian on the device: normal matrices and amplitudes as on the CPU, derivatives against differences, whole fits
// with several starts and systems, uncertainties, and the number of launches and synchronizations of a round.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "einfield/fitter.hpp"
#include "host/fit/cuda_scalar_batch.hpp"
#include "host/fit/uncertainties.hpp"
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

/// Every kind of content that has free profiles, PSFs on sub-pixels, and PSFs too large for the direct kernel.
std::vector<StepCase> scalar_cases() {
  std::vector<StepCase> cases;
  for (const StepCase& c : step_cases())
    if (c.free_lens || c.free_light) cases.push_back(c);
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

}  // namespace
}  // namespace einfield
