// The data term: weights make the sum the loss that its name says; the adjoint is its derivative.
#include "einfield/likelihood.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/gradcheck.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

/// Six pixels, the second and last masked, with broken numbers under the mask.
Observation observation() {
  Observation o;
  o.grid = {3, 2, 0.1, 0, 0, 1};
  o.image = {1, std::numeric_limits<double>::quiet_NaN(), 3, -2, 5, 1e300};
  o.noise = {0.5, 0, 2, 1, 4, std::numeric_limits<double>::infinity()};
  o.mask = {1, 0, 1, 1, 1, 0};
  return o;
}

constexpr double kModel[] = {1.5, 7, 2, 0, 5.25, -3};

template <class Real>
class Likelihood : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(Likelihood, Precisions);

TYPED_TEST(Likelihood, MeanSquaredErrorIsAMeanOverUsedPixels) {
  const std::vector<TypeParam> weights = pixel_weights<TypeParam>(observation(), LossKind::mse).loss;
  EXPECT_EQ(weights, (std::vector<TypeParam>{0.25, 0, 0.25, 0.25, 0.25, 0}));
}

TYPED_TEST(Likelihood, ChiSquaredIsAMeanInUnitsOfTheNoise) {
  const std::vector<TypeParam> weights = pixel_weights<TypeParam>(observation(), LossKind::chi2).loss;
  EXPECT_EQ(weights, (std::vector<TypeParam>{1, 0, 0.0625, 0.25, 0.015625, 0}));
}

TYPED_TEST(Likelihood, SumOfWeightedResidualsIsTheLoss) {
  using Real = TypeParam;
  const Observation o = observation();
  for (const auto& [kind, expected] : {std::pair{LossKind::mse, (0.25 + 1 + 4 + 0.0625) / 4},
                                       std::pair{LossKind::chi2, (1 + 0.25 + 4 + 0.0625 / 16) / 4}}) {
    const std::vector<Real> weights = pixel_weights<Real>(o, kind).loss;
    Real loss = 0;
    for (std::size_t i = 0; i < weights.size(); ++i)
      if (o.mask[i]) loss += residual_loss(static_cast<Real>(kModel[i]), static_cast<Real>(o.image[i]), weights[i]);
    EXPECT_NEAR(loss, expected, 10 * tolerance::kEpsilon<Real> * expected);
  }
}

TEST(LikelihoodAdjoint, AgainstDifferences) {
  for (const double model : {-3.0, 0.0, 1.0, 1e6})
    for (const double data : {-2.0, 0.0, 1.0})
      for (const double weight : {0.0, 1e-4, 2.0}) {
        const auto f = [&](const std::vector<double>& x) { return residual_loss(x[0], data, weight); };
        const double scale = 1 + std::abs(model);
        EXPECT_LE(gradient_error(f, {model}, {scale}, {residual_loss_adjoint(model, data, weight)}, 1e-3 * weight),
                  tolerance::kDifference);
      }
}

TEST(LikelihoodAdjoint, MaskedPixelHasNone) {
  EXPECT_EQ(residual_loss_adjoint(3.0, 1.0, 0.0), 0);
}

TEST(PixelWeights, OnePixel) {
  Observation o;
  o.grid = {1, 1, 0.1, 0, 0, 1};
  o.image = {1};
  o.noise = {2};
  o.mask = {1};
  EXPECT_EQ(pixel_weights<double>(o, LossKind::mse).loss, std::vector<double>{1});
  EXPECT_EQ(pixel_weights<double>(o, LossKind::chi2).loss, std::vector<double>{0.25});
}

TEST(PixelWeights, HeldOutPixelsHaveTheirOwnMean) {
  // The second pixel is held out and masked: it counts nowhere.
  const PixelWeights<double> weights = pixel_weights<double>(observation(), LossKind::mse, {0, 1, 1, 0, 1, 0});
  EXPECT_EQ(weights.loss, (std::vector<double>{0.5, 0, 0, 0.5, 0, 0}));
  EXPECT_EQ(weights.chi2, (std::vector<double>{2, 0, 0, 0.5, 0, 0}));
  EXPECT_EQ(weights.held_out, (std::vector<double>{0, 0, 0.125, 0, 0.03125, 0}));
  EXPECT_TRUE(pixel_weights<double>(observation(), LossKind::mse).held_out.empty());
}

}  // namespace
}  // namespace einfield
