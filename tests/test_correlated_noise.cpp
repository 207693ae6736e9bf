// Noise with a given correlation: its covariance over many draws, and kernels that are no correlation.
#include "host/cpu/correlated_noise.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "einfield/error.hpp"
#include "einfield/random.hpp"

namespace einfield {
namespace {

TEST(CorrelatedNoise, HasTheCorrelationOfTheKernel) {
  // White noise averaged with the weights (1, 2, 1)/sqrt(6) along x has this correlation; along y it stays white.
  const NoiseCorrelation kernel{5, 1, {1 / 6., 4 / 6., 1, 4 / 6., 1 / 6.}};
  const int n = 100;
  const std::vector<double> noise = correlated_normals(kernel, n, n, 1, random_stream::kNoise);
  const auto mean_product = [&](int dx, int dy) {
    double sum = 0;
    for (int y = 0; y + dy < n; ++y)
      for (int x = 0; x + dx < n; ++x)
        sum += noise[static_cast<std::size_t>(y * n + x)] * noise[static_cast<std::size_t>((y + dy) * n + x + dx)];
    return sum / ((n - dx) * (n - dy));
  };
  // The sum of ρ² over all offsets is 1.94: a mean of 10⁴ products scatters by at most √(2 · 1.94 · 10⁻⁴) = 0.02.
  EXPECT_NEAR(mean_product(0, 0), 1, 0.08);
  EXPECT_NEAR(mean_product(1, 0), 4 / 6., 0.08);
  EXPECT_NEAR(mean_product(2, 0), 1 / 6., 0.08);
  EXPECT_NEAR(mean_product(3, 0), 0, 0.08);
  EXPECT_NEAR(mean_product(0, 1), 0, 0.08);
  EXPECT_NEAR(mean_product(n - 1, 0), 0, 0.4);  // 100 products: 0.67 if the noise ran around the edge
  EXPECT_EQ(correlated_normals(kernel, n, n, 1, random_stream::kNoise), noise);
}

TEST(CorrelatedNoise, RefusesANegativeEigenvalue) {
  // 1 + 1.6 cos π < 0.
  EXPECT_THROW(correlated_normals({3, 1, {0.8, 1, 0.8}}, 20, 20, 1, random_stream::kNoise), InvalidInput);
}

}  // namespace
}  // namespace einfield
