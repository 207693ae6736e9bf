// Adam against its definition in long double, its first step, its bounds, and its way down a valley.
#include "einfield/adam.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/tolerance.hpp"

namespace einfield {
namespace {

template <class Real>
class Adam : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(Adam, Precisions);

TYPED_TEST(Adam, FollowsAlgorithm1) {
  using Real = TypeParam;
  Real parameter = Real(0.3), first = 0, second = 0;
  long double p = parameter, m = 0, v = 0, power1 = 1, power2 = 1;
  for (int t = 1; t <= 300; ++t) {
    const Real gradient = static_cast<Real>(std::sin(0.7 * t) + 0.2);
    const double rate = t < 100 ? 1e-2 : 3e-3;
    adam_update(make_adam_step<Real>(rate, t), gradient, parameter, first, second);
    const long double g = gradient;
    m = 0.9L * m + 0.1L * g;
    v = 0.999L * v + 0.001L * g * g;
    power1 *= 0.9L;
    power2 *= 0.999L;
    p -= rate * (m / (1 - power1)) / (std::sqrt(v / (1 - power2)) + 1e-8L);
    // One rounding of the parameter a step, and what the moments' roundings make of the step of 1e-2.
    EXPECT_NEAR(parameter, static_cast<double>(p), tolerance::kEpsilon<Real> * (1 + 0.1 * t)) << t;
  }
}

TYPED_TEST(Adam, CorrectionsKeepTheirDigitsFromTheFirstToTheMillionthUpdate) {
  using Real = TypeParam;
  for (const std::int64_t t :
       {std::int64_t{1}, std::int64_t{2}, std::int64_t{1000}, std::int64_t{1000000}, std::int64_t{1} << 60}) {
    const AdamStep<Real> step = make_adam_step<Real>(1e-3, t);
    const long double n = static_cast<long double>(t), beta1 = kAdamBeta1, beta2 = kAdamBeta2;
    EXPECT_NEAR(step.correction1, static_cast<double>(-1 / std::expm1(n * std::log(beta1))),
                2 * tolerance::kEpsilon<Real> * step.correction1);
    EXPECT_NEAR(step.correction2, static_cast<double>(-1 / std::expm1(n * std::log(beta2))),
                2 * tolerance::kEpsilon<Real> * step.correction2);
  }
}

TYPED_TEST(Adam, FirstStepIsTheLearningRate) {
  using Real = TypeParam;
  // m/(1 − β₁) = g and √(v/(1 − β₂)) = |g|: the size of the gradient does not matter while it is above ε.
  for (const double gradient : {-1e15, -3.0, 1e-3, 1e5}) {
    Real parameter = 0, first = 0, second = 0;
    adam_update(make_adam_step<Real>(0.01, 1), static_cast<Real>(gradient), parameter, first, second);
    EXPECT_NEAR(parameter, gradient > 0 ? -0.01 : 0.01,
                0.01 * (1e-8 / std::abs(gradient) + 20 * tolerance::kEpsilon<Real>));
  }
}

TYPED_TEST(Adam, EpsilonIsOutsideTheRoot) {
  using Real = TypeParam;
  Real parameter = 0, first = 0, second = 0;
  adam_update(make_adam_step<Real>(0.01, 1), Real(1e-8), parameter, first, second);
  EXPECT_NEAR(parameter, -0.005, 1e-6);  // g/(|g| + ε) = ½; inside, √ε = 1e-4 would leave 1e-6
}

TYPED_TEST(Adam, NothingMovesWithoutAGradient) {
  using Real = TypeParam;
  Real parameter = Real(0.3), first = 0, second = 0;
  adam_update(make_adam_step<Real>(0.01, 1), Real(0), parameter, first, second);
  EXPECT_EQ(parameter, Real(0.3));
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, 0);
}

TYPED_TEST(Adam, FindsTheBottomOfAnIllConditionedValley) {
  using Real = TypeParam;
  std::vector<Real> p = {Real(1), Real(-2)}, first(2), second(2);
  for (int t = 1; t <= 4000; ++t) {
    const Real gradient[] = {2 * (p[0] - Real(0.3)), 2000 * (p[1] - Real(0.7))};
    for (std::size_t k = 0; k < 2; ++k)
      adam_update(make_adam_step<Real>(0.02 * std::pow(0.998, t), t), gradient[k], p[k], first[k], second[k]);
  }
  EXPECT_NEAR(p[0], 0.3, 1e-4);
  EXPECT_NEAR(p[1], 0.7, 1e-4);
}

TEST(Adam, AnUpdateIsCountedAndTakesItsRate) {
  const double rates[] = {3, 2};
  StepState state;
  for (const double expected : {3.0, 2.0, 2.0}) {
    EXPECT_EQ(rate_after(rates, 2, state.updates), expected);
    EXPECT_TRUE(decide_update(state, rates, 2));
    EXPECT_EQ(state.learning_rate, expected);
  }
  EXPECT_EQ(state.updates, 3);
  EXPECT_EQ(state.bad_step, 0);
}

TEST(Adam, ANonFiniteNumberRefusesThisUpdateAndAllLaterOnes) {
  const double rates[] = {1};
  for (double StepState::*number : {&StepState::loss, &StepState::regularization, &StepState::gradient_norm}) {
    StepState state;
    state.updates = 4;
    state.*number = std::nan("");
    EXPECT_FALSE(decide_update(state, rates, 1));
    EXPECT_EQ(state.bad_step, 5);
    EXPECT_EQ(state.bad_loss, number != &StepState::gradient_norm);
    state.*number = 1;
    EXPECT_FALSE(decide_update(state, rates, 1)) << "it stays refused";
    EXPECT_EQ(state.bad_step, 5);
    EXPECT_EQ(state.updates, 4);
    EXPECT_EQ(state.learning_rate, 0);
  }
}

}  // namespace
}  // namespace einfield
