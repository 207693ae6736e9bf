// The random field: variance and slope as asked for, α = ∇ψ, κ = ½ ∇·α, the same field for the same seed.
#include "host/fields/random_field.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace einfield {
namespace {

constexpr double kSide = 8;

LensFields field_of(double variance, double slope, std::uint64_t seed, const std::vector<double>& theta,
                    int threads = 1) {
  ThreadPool pool(threads);
  return RandomField({variance, slope, seed}, kSide).fields(theta, pool);
}

TEST(RandomField, HasItsVarianceOverManyFields) {
  for (const double slope : {3.0, 5.5}) {
    double sum = 0, fourth = 0;
    constexpr int kFields = 2000;
    for (std::uint64_t seed = 0; seed < kFields; ++seed) {
      const double psi = field_of(0.04, slope, seed, {0.3, -1.1}).potential[0];
      sum += psi * psi;
      fourth += psi * psi * psi * psi;
    }
    // A normal number's square has the relative deviation √2, its fourth power √(96)/3 in units of its mean 3.
    EXPECT_NEAR(sum / kFields, 0.04, 4 * std::sqrt(2.0 / kFields) * 0.04);
    EXPECT_NEAR(fourth / kFields / (3 * 0.04 * 0.04), 1, 4 * std::sqrt(96.0 / kFields) / 3);
  }
}

TEST(RandomField, SteeperFieldsAreSmoother) {
  // ⟨|α|²⟩/⟨ψ²⟩ = Σ k² P/Σ P, compared as means over fields.
  for (const double slope : {3.0, 5.0}) {
    double power = 0, weighted = 0;
    for (int ny = -32; ny <= 32; ++ny)
      for (int nx = -32; nx <= 32; ++nx) {
        const double square = nx * nx + ny * ny;
        if (square == 0 || square > 32 * 32) continue;
        power += std::pow(square, -slope / 2);
        weighted += std::pow(square, 1 - slope / 2);
      }
    const double unit = 2 * M_PI / kSide, expected = unit * unit * weighted / power;
    double alpha = 0;
    constexpr int kFields = 1500;
    for (std::uint64_t seed = 0; seed < kFields; ++seed) {
      const LensFields f = field_of(1, slope, seed, {0, 0});
      alpha += f.deflection[0] * f.deflection[0] + f.deflection[1] * f.deflection[1];
    }
    EXPECT_NEAR(alpha / kFields / expected, 1, 4 / std::sqrt(double(kFields)));
  }
}

TEST(RandomField, DerivativesBelongTogether) {
  constexpr double h = 1e-4, x = 0.7, y = -0.4;
  const LensFields f = field_of(0.01, 5, 3, {x, x + h, x - h, x, x, y, y, y, y + h, y - h});
  const auto& psi = f.potential;
  EXPECT_NEAR(f.deflection[0], (psi[1] - psi[2]) / (2 * h), 1e-7);
  EXPECT_NEAR(f.deflection[5], (psi[3] - psi[4]) / (2 * h), 1e-7);
  const double divergence = f.deflection[1] - f.deflection[2] + f.deflection[5 + 3] - f.deflection[5 + 4];
  EXPECT_NEAR(f.convergence[0], divergence / (4 * h), 1e-6);
}

TEST(RandomField, SeedsMakeFields) {
  const std::vector<double> theta(1000, 0.5);
  EXPECT_EQ(field_of(1, 5, 7, theta, 1).potential, field_of(1, 5, 7, theta, 3).potential);
  EXPECT_NE(field_of(1, 5, 7, theta).potential, field_of(1, 5, 8, theta).potential);
}

}  // namespace
}  // namespace einfield
