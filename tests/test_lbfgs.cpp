// L-BFGS: minima of known functions, the Wolfe conditions, what rounding and non-finite values do, resuming to the bit.
#include "host/cpu/lbfgs.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "einfield/network.hpp"

namespace einfield {
namespace {

template <class Real>
using Function = std::function<double(const std::vector<Real>& x, std::vector<Real>& gradient)>;

/// Rosenbrock's valley in any even dimension: minimum 0 at (1, …, 1).
template <class Real>
double rosenbrock(const std::vector<Real>& x, std::vector<Real>& gradient) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); i += 2) {
    const double a = double(x[i]), b = double(x[i + 1]), slope = b - a * a;
    sum += 100 * slope * slope + (1 - a) * (1 - a);
    gradient[i] = static_cast<Real>(-400 * a * slope - 2 * (1 - a));
    gradient[i + 1] = static_cast<Real>(200 * slope);
  }
  return sum;
}

/// ½ Σ cᵢ xᵢ² with curvatures from 1 to 10⁴.
template <class Real>
double quadratic(const std::vector<Real>& x, std::vector<Real>& gradient) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double c = std::pow(10.0, 4.0 * double(i) / double(x.size() - 1));
    sum += 0.5 * c * double(x[i]) * double(x[i]);
    gradient[i] = static_cast<Real>(c * double(x[i]));
  }
  return sum;
}

template <class Real>
struct Search {
  std::vector<Real> position;
  double value = 0;
  int evaluations = 0, accepted = 0;
  bool stuck = false;
};

/// Runs until `steps` lines have been accepted or the search is stuck.
template <class Real>
Search<Real> minimise(Lbfgs<Real>& search, const Function<Real>& f, int steps, int most = 10000) {
  Search<Real> run;
  run.accepted = -1;  // the start counts
  while (run.evaluations < most && run.accepted < steps) {
    std::vector<Real> gradient(search.trial().size());
    const double value = f(search.trial(), gradient);
    ++run.evaluations;
    const LineOutcome outcome = search.tell(value, gradient);
    run.stuck = outcome.flat || outcome.action == LineAction::stuck;
    if (run.stuck) break;
    if (outcome.action != LineAction::accept) continue;
    ++run.accepted;
    run.value = value;
  }
  run.position = search.position();
  return run;
}

TEST(Lbfgs, FindsTheEndOfTheValley) {
  Lbfgs<double> search({-1.2, 1, 2, -1, 0.3, 0.1}, 10);
  const Search<double> run = minimise<double>(search, rosenbrock<double>, 95);
  for (const double x : run.position) EXPECT_NEAR(x, 1, 1e-6);
  EXPECT_LT(run.evaluations, 130);
}

TEST(Lbfgs, NeedsFewEvaluationsForAQuadratic) {
  std::vector<double> start(50);
  const Philox philox{3};
  for (std::size_t i = 0; i < start.size(); ++i) start[i] = philox.normal(i);
  Lbfgs<double> search(start, 50);
  // As far as scipy's L-BFGS-B comes: 5.5e-5 after 200 steps and 212 evaluations.
  const Search<double> run = minimise<double>(search, quadratic<double>, 200);
  EXPECT_LT(run.value, 1e-4);
  EXPECT_LT(run.evaluations, 225);
}

TEST(Lbfgs, EveryStepDescendsByTheWolfeConditions) {
  Lbfgs<double> search({-1.2, 1}, 5);
  std::vector<double> before = search.position(), gradient_before(2), gradient(2);
  double value_before = rosenbrock(before, gradient_before);
  for (int i = 0; i < 60; ++i) {
    const double value = rosenbrock(search.trial(), gradient);
    const std::vector<double> trial = search.trial();
    const LineOutcome outcome = search.tell(value, gradient);
    if (outcome.flat || outcome.action == LineAction::stuck) break;
    if (outcome.action != LineAction::accept || !outcome.moved) continue;
    double slope_before = 0, slope = 0;  // times the step's length
    for (std::size_t k = 0; k < 2; ++k) {
      slope_before += gradient_before[k] * (trial[k] - before[k]);
      slope += gradient[k] * (trial[k] - before[k]);
    }
    EXPECT_LT(slope_before, 0);
    EXPECT_LE(value, value_before + 1e-4 * slope_before + 1e-15 * value_before);
    EXPECT_LE(std::abs(slope), 0.9 * std::abs(slope_before));
    before = trial;
    value_before = value;
    gradient_before = gradient;
  }
  EXPECT_LT(value_before, 1e-10);
}

TEST(Lbfgs, EndsAtTheNoiseOfSinglePrecision) {
  Lbfgs<float> search({-1.2f, 1.0f, 2.0f, -1.0f}, 10);
  // The value as a sum in single precision would give it, with an offset that hides the last digits.
  const Function<float> f = [](const std::vector<float>& x, std::vector<float>& gradient) {
    return static_cast<double>(static_cast<float>(1 + rosenbrock(x, gradient)));
  };
  const Search<float> run = minimise<float>(search, f, 100000, 2000);
  EXPECT_TRUE(run.stuck);
  for (const float x : run.position) EXPECT_NEAR(x, 1, 2e-2);
}

TEST(Lbfgs, TurnsBackWhereTheFunctionEnds) {
  // −ln(1 − x²) + (x − 0.999)²: beyond |x| = 1 it is not a number.
  const Function<double> f = [](const std::vector<double>& x, std::vector<double>& gradient) {
    gradient[0] = 2 * x[0] / (1 - x[0] * x[0]) + 2e3 * (x[0] - 0.999);
    return std::abs(x[0]) < 1 ? -std::log(1 - x[0] * x[0]) + 1e3 * (x[0] - 0.999) * (x[0] - 0.999)
                              : std::numeric_limits<double>::quiet_NaN();
  };
  Lbfgs<double> search({-0.5}, 5);
  const Search<double> run = minimise<double>(search, f, 50, 400);
  std::vector<double> gradient(1);
  f(run.position, gradient);
  EXPECT_TRUE(std::isfinite(run.value));
  EXPECT_NEAR(gradient[0], 0, 1e-6);
}

TEST(Lbfgs, IsStuckWhereTheGradientIsZero) {
  Lbfgs<double> search({1, 1}, 5);
  std::vector<double> gradient(2);
  const double value = rosenbrock(search.trial(), gradient);
  EXPECT_TRUE(search.tell(value, gradient).flat);
  EXPECT_EQ(search.position(), (std::vector<double>{1, 1}));
}

TEST(Lbfgs, GoesOnFromItsPairsToTheSameBits) {
  const std::vector<float> start{-1.2f, 1, 2, -1, 0.3f, 0.1f};
  Lbfgs<float> whole(start, 4);
  const Search<float> expected = minimise<float>(whole, rosenbrock<float>, 25);
  for (const int first : {0, 1, 3, 12}) {
    Lbfgs<float> part(start, 4);
    minimise<float>(part, rosenbrock<float>, first);
    Lbfgs<float> rest(part.position(), 4, part.pairs());
    EXPECT_EQ(minimise<float>(rest, rosenbrock<float>, 25 - first).position, expected.position) << first;
  }
}

}  // namespace
}  // namespace einfield
