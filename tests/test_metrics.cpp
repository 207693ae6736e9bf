// Error measures against sums written out by hand, and where they do not exist.
#include "host/fields/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace einfield {
namespace {

/// Six pixels: the first masked, the last three on the arc.
struct Case {
  Observation observation;
  Truth truth;
  std::vector<double> model;
  LensFields fit;

  Case() {
    observation.grid = {3, 2, 0.1, 0, 0, 1};
    observation.image.assign(6, 0.0);
    observation.noise = {0, 1, 2, 2, 2, 0.5};
    observation.mask = {0, 1, 1, 1, 1, 1};
    truth.image = {1e9, 5, 3, 11, 12, 13};
    truth.potential = {9e9, 1, 2, 3, 5, 8};
    truth.deflection = {9e9, 1, -1, 2, 0, 1, 9e9, 0, 2, 1, 1, -3};
    truth.convergence = {9e9, 0.1, 0.2, 0.3, 0.4, 0.5};
    model = {0, 6, 3, 9, 12, 14};
    fit.potential = {-9e9, 11, 12.5, 13, 15, 17};
    fit.deflection = {-9e9, 1.5, -1, 2, 1, 1, -9e9, 0, 2, 2, 1, -3};
    fit.convergence = {-9e9, 0.1, 0.2, 0.3, 0.4, 0.9};
  }
  TruthErrors errors() const { return truth_errors(observation, truth, model, fit); }
};

TEST(Metrics, Regions) {
  const Case c;
  EXPECT_EQ(region(c.observation, nullptr), (std::vector<std::size_t>{1, 2, 3, 4, 5}));
  // The second pixel is at exactly 5 σ and does not exceed it.
  EXPECT_EQ(region(c.observation, &c.truth.image), (std::vector<std::size_t>{3, 4, 5}));
}

TEST(Metrics, AgreeWithSumsByHand) {
  const TruthErrors e = Case().errors();
  EXPECT_DOUBLE_EQ(e.image_rms_over_sigma, std::sqrt((1.0 + 0 + 1 + 0 + 4) / 5));

  // Potential, used pixels: means of 13.7 and 3.8, so an error is fit − truth − 9.9.
  const double all[] = {10 - 9.9, 10.5 - 9.9, 10 - 9.9, 10 - 9.9, 9 - 9.9};
  const double all_true[] = {1 - 3.8, 2 - 3.8, 3 - 3.8, 5 - 3.8, 8 - 3.8};
  double error = 0, truth = 0;
  for (const double v : all) error += v * v;
  for (const double v : all_true) truth += v * v;
  EXPECT_NEAR(e.all.psi_relative_rms, std::sqrt(error / truth), 1e-14);
  // The arc has its own means: 15 and 16/3.
  const double shift = 15 - 16.0 / 3;
  error = 2 * std::pow(10 - shift, 2) + std::pow(9 - shift, 2);
  truth = std::pow(3 - 16.0 / 3, 2) + std::pow(5 - 16.0 / 3, 2) + std::pow(8 - 16.0 / 3, 2);
  EXPECT_NEAR(e.arc.psi_relative_rms, std::sqrt(error / truth), 1e-14);

  EXPECT_NEAR(e.all.alpha_relative_rms, std::sqrt((0.25 + 1 + 1) / (1.0 + 5 + 5 + 1 + 10)), 1e-14);
  EXPECT_NEAR(e.arc.alpha_relative_rms, std::sqrt((1.0 + 1) / (5.0 + 1 + 10)), 1e-14);
  EXPECT_NEAR(e.all.kappa_rms, std::sqrt(0.16 / 5), 1e-14);
  EXPECT_NEAR(e.arc.kappa_rms, std::sqrt(0.16 / 3), 1e-14);
}

TEST(Metrics, AConstantOfThePotentialIsNoErrorAConstantDeflectionIs) {
  Case c;
  c.fit.potential = c.truth.potential;
  for (double& v : c.fit.potential) v += 42;
  c.fit.deflection = c.truth.deflection;
  for (double& v : c.fit.deflection) v += 0.5;
  const TruthErrors e = c.errors();
  EXPECT_NEAR(e.all.psi_relative_rms, 0, 1e-14);  // 42 has an ulp of 7e-15
  EXPECT_NEAR(e.arc.psi_relative_rms, 0, 1e-14);
  EXPECT_NEAR(e.all.alpha_relative_rms, std::sqrt(5 * 0.5 / 22.0), 1e-14);
}

TEST(Metrics, NoNumberWithoutARegionOrATruth) {
  Case c;
  c.truth.image.assign(6, 0.0);
  TruthErrors e = c.errors();
  EXPECT_TRUE(std::isnan(e.arc.psi_relative_rms) && std::isnan(e.arc.alpha_relative_rms) &&
              std::isnan(e.arc.kappa_rms));
  EXPECT_GT(e.all.psi_relative_rms, 0);

  c = Case();
  c.truth.potential.assign(6, 3.0);
  c.truth.deflection.assign(12, 0.0);
  e = c.errors();
  EXPECT_TRUE(std::isnan(e.all.psi_relative_rms) && std::isnan(e.all.alpha_relative_rms));
  EXPECT_GT(e.all.kappa_rms, 0);

  c = Case();
  c.truth = {};
  c.truth.convergence = Case().truth.convergence;
  e = c.errors();
  EXPECT_TRUE(std::isnan(e.image_rms_over_sigma) && std::isnan(e.all.psi_relative_rms) && std::isnan(e.arc.kappa_rms));
  EXPECT_GT(e.all.kappa_rms, 0);
}

}  // namespace
}  // namespace einfield
