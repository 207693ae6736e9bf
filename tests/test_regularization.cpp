// Convergence from differences of the deflection, its penalties, those on source pixels, and their adjoints.
#include "einfield/regularization.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/gradcheck.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

std::vector<double> wave(std::size_t n, double phase) {
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = std::sin(1.7 * static_cast<double>(i) + phase);
  return values;
}

class RayGrids : public testing::TestWithParam<int> {};

TEST_P(RayGrids, NodesAreTheRaysInPlace) {
  Grid grid{5, 4, 0.2, 0.3, -0.1, GetParam()};
  const RayGrid nodes(grid);
  const double spacing = grid.pixel_scale / grid.supersampling;
  const Vec2<double> origin = grid.ray(nodes.ray(0, 0));
  for (int row = 0; row < nodes.rows; ++row)
    for (int column = 0; column < nodes.columns; ++column) {
      const Vec2<double> at = grid.ray(nodes.ray(column, row));
      EXPECT_NEAR(at.x, origin.x + column * spacing, 1e-14);
      EXPECT_NEAR(at.y, origin.y + row * spacing, 1e-14);
    }
}

TEST_P(RayGrids, QuadraticPotentialIsExact) {
  // ψ = a x² + b y² + c xy has ψ_xx = 2a, ψ_yy = 2b, ψ_xy = c everywhere and central differences without error.
  Grid grid{5, 4, 0.2, 0, 0, GetParam()};
  const RayGrid nodes(grid);
  const int n = grid.n_rays();
  std::vector<double> alpha(2 * static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    const Vec2<double> t = grid.ray(i);
    alpha[static_cast<std::size_t>(i)] = 2 * 0.7 * t.x + 0.3 * t.y;
    alpha[static_cast<std::size_t>(n + i)] = -2 * 0.2 * t.y + 0.3 * t.x;
  }
  for (int row = 1; row + 1 < nodes.rows; ++row)
    for (int column = 1; column + 1 < nodes.columns; ++column) {
      const Hessian<double> h =
          difference_hessian(nodes, alpha.data(), n, grid.pixel_scale / grid.supersampling, column, row);
      EXPECT_NEAR(h.xx, 1.4, 1e-13);
      EXPECT_NEAR(h.yy, -0.4, 1e-13);
      EXPECT_NEAR(h.xy, 0.3, 1e-13);
      EXPECT_NEAR(h.kappa(), 0.5, 1e-13);
    }
}

TEST_P(RayGrids, AdjointIsTheTranspose) {
  Grid grid{5, 4, 0.2, 0, 0, GetParam()};
  const RayGrid nodes(grid);
  const int n = grid.n_rays();
  const double spacing = grid.pixel_scale / grid.supersampling;
  const std::vector<double> alpha = wave(2 * static_cast<std::size_t>(n), 0.1);
  std::vector<double> bar = wave(3 * static_cast<std::size_t>(n), 0.9);
  double forward = 0, backward = 0;
  for (int row = 0; row < nodes.rows; ++row)
    for (int column = 0; column < nodes.columns; ++column) {
      const auto node = static_cast<std::size_t>(row * nodes.columns + column), part = static_cast<std::size_t>(n);
      double &xx = bar[node], &yy = bar[part + node], &xy = bar[2 * part + node];
      if (row == 0 || column == 0 || row + 1 == nodes.rows || column + 1 == nodes.columns) {
        xx = yy = xy = 0;
        continue;
      }
      const Hessian<double> h = difference_hessian(nodes, alpha.data(), n, spacing, column, row);
      forward += xx * h.xx + yy * h.yy + xy * h.xy;
    }
  for (int row = 0; row < nodes.rows; ++row)
    for (int column = 0; column < nodes.columns; ++column) {
      const Vec2<double> of_ray = difference_hessian_adjoint(nodes, bar.data(), spacing, column, row);
      const auto ray = static_cast<std::size_t>(nodes.ray(column, row));
      backward += of_ray.x * alpha[ray] + of_ray.y * alpha[static_cast<std::size_t>(n) + ray];
    }
  EXPECT_NEAR(forward, backward, 1e-12);
}

TEST_P(RayGrids, CurvatureAgainstDifferences) {
  // The whole term as a function of α, mean and all: what the mean gives back is zero.
  Grid grid{5, 4, 0.2, 0, 0, GetParam()};
  const RayGrid nodes(grid);
  const int n = grid.n_rays();
  const auto size = static_cast<std::size_t>(n);
  const double spacing = grid.pixel_scale / grid.supersampling;
  const Regularization weights{.smoothness = 0.3, .curvature = 0.7};
  const auto for_interior = [&](auto f) {
    for (int row = 1; row + 1 < nodes.rows; ++row)
      for (int column = 1; column + 1 < nodes.columns; ++column) f(column, row);
  };
  const auto mean_of = [&](const std::vector<double>& alpha) {
    Hessian<double> mean{};
    for_interior([&](int column, int row) {
      const Hessian<double> h = difference_hessian(nodes, alpha.data(), n, spacing, column, row);
      mean.xx += h.xx / nodes.interior();
      mean.yy += h.yy / nodes.interior();
      mean.xy += h.xy / nodes.interior();
    });
    return mean;
  };
  const auto f = [&](const std::vector<double>& alpha) {
    const Hessian<double> mean = mean_of(alpha);
    double sum = 0;
    for_interior([&](int column, int row) {
      sum += potential_penalty(weights, difference_hessian(nodes, alpha.data(), n, spacing, column, row), mean, 0.0);
    });
    return sum;
  };
  std::vector<double> alpha = wave(2 * size, 0.1), bar(3 * size), found(2 * size);
  const Hessian<double> mean = mean_of(alpha);
  for_interior([&](int column, int row) {
    const Hessian<double> of_node =
        potential_penalty_adjoint(weights, difference_hessian(nodes, alpha.data(), n, spacing, column, row), mean, 0.0);
    const auto node = static_cast<std::size_t>(row * nodes.columns + column);
    bar[node] = of_node.xx;
    bar[size + node] = of_node.yy;
    bar[2 * size + node] = of_node.xy;
  });
  for (int row = 0; row < nodes.rows; ++row)
    for (int column = 0; column < nodes.columns; ++column) {
      const Vec2<double> of_ray = difference_hessian_adjoint(nodes, bar.data(), spacing, column, row);
      const auto ray = static_cast<std::size_t>(nodes.ray(column, row));
      found[ray] = of_ray.x;
      found[size + ray] = of_ray.y;
    }
  EXPECT_LE(gradient_error(f, alpha, std::vector<double>(alpha.size(), 1.0), found), tolerance::kDifference);

  // A uniform shear on top costs nothing, a uniform sheet only its convergence.
  const double before = f(alpha);
  std::vector<double> sheared = alpha;
  for (int i = 0; i < n; ++i) {
    const Vec2<double> t = grid.ray(i);
    sheared[static_cast<std::size_t>(i)] += 0.3 * t.x + 0.2 * t.y;
    sheared[size + static_cast<std::size_t>(i)] += 0.2 * t.x - 0.3 * t.y;
  }
  EXPECT_NEAR(f(sheared), before, 1e-12 * before);
}

INSTANTIATE_TEST_SUITE_P(Supersampling, RayGrids, testing::Values(1, 2, 3));

TEST(Regularization, PenaltyAdjointAgainstDifferences) {
  const Regularization weights{
      .smoothness = 0.3, .curvature = 0.4, .negative_convergence = 0.5, .negative_total_convergence = 0.7};
  const Hessian<double> mean{0.1, -0.2, 0.3};
  for (const double kappa : {-2.0, -0.4, -1e-3, 1e-3, 0.2, 1.5})
    for (const double macro : {-0.3, 0.0, 0.35, 1.0}) {
      const auto f = [&](const std::vector<double>& h) {
        return potential_penalty(weights, Hessian<double>{h[0], h[1], h[2]}, mean, macro);
      };
      const std::vector<double> at = {kappa + 0.6, kappa - 0.6, -0.8};
      const Hessian<double> bar = potential_penalty_adjoint(weights, Hessian<double>{at[0], at[1], at[2]}, mean, macro);
      EXPECT_LE(gradient_error(f, at, {1, 1, 1}, {bar.xx, bar.yy, bar.xy}), tolerance::kDifference);
    }
}

TEST(Regularization, CurvatureCostsConvergenceAndShearAlike) {
  const Regularization weights{.curvature = 1};
  const double kappa = 0.2, gamma_1 = -0.3, gamma_2 = 0.1;
  const auto cost = [&](double k, double g1, double g2) {
    return potential_penalty(weights, Hessian<double>{k + g1, k - g1, g2}, Hessian<double>{}, 0.0);
  };
  EXPECT_NEAR(cost(kappa, gamma_1, gamma_2), 2 * (kappa * kappa + gamma_1 * gamma_1 + gamma_2 * gamma_2), 1e-15);
  EXPECT_NEAR(cost(kappa, 0, 0), cost(0, kappa, 0), 1e-15);
  EXPECT_NEAR(cost(kappa, 0, 0), cost(0, 0, kappa), 1e-15);
}

/// Sum of the penalties of all pixels.
double pixel_penalty(const Regularization& weights, const std::vector<double>& pixels, int nx, int ny) {
  double sum = 0;
  for (int iy = 0; iy < ny; ++iy)
    for (int ix = 0; ix < nx; ++ix) sum += source_pixel_penalty(weights, pixels.data(), nx, ny, ix, iy);
  return sum;
}

struct PixelCase {
  int nx, ny;
};
class SourcePixels : public testing::TestWithParam<PixelCase> {};

TEST_P(SourcePixels, AdjointAgainstDifferences) {
  const auto [nx, ny] = GetParam();
  const std::vector<double> pixels = wave(static_cast<std::size_t>(nx * ny), 0.3);
  Regularization gradient, curvature, both;
  gradient.source_gradient = 0.7;
  curvature.source_curvature = 1.3;
  both.source_gradient = 0.2;
  both.source_curvature = 0.9;
  for (const Regularization& weights : {gradient, curvature, both}) {
    std::vector<double> found;
    for (int iy = 0; iy < ny; ++iy)
      for (int ix = 0; ix < nx; ++ix)
        found.push_back(source_pixel_penalty_adjoint(weights, pixels.data(), nx, ny, ix, iy));
    const auto f = [&](const std::vector<double>& at) { return pixel_penalty(weights, at, nx, ny); };
    EXPECT_LE(gradient_error(f, pixels, std::vector<double>(pixels.size(), 1.0), found), tolerance::kDifference);
    // Squares: half of the derivative along the pixels is the penalty itself.
    EXPECT_NEAR(inner_product(found, pixels) / 2, f(pixels), 1e-12 * f(pixels));
  }
}

TEST_P(SourcePixels, AMirroredSourceCostsTheSame) {
  const auto [nx, ny] = GetParam();
  const std::vector<double> pixels = wave(static_cast<std::size_t>(nx * ny), 0.8);
  std::vector<double> mirrored(pixels), turned(pixels);
  for (int iy = 0; iy < ny; ++iy)
    for (int ix = 0; ix < nx; ++ix) {
      const double value = pixels[static_cast<std::size_t>(iy * nx + ix)];
      mirrored[static_cast<std::size_t>(iy * nx + nx - 1 - ix)] = value;
      turned[static_cast<std::size_t>(ix * ny + iy)] = value;  // x and y exchanged
    }
  Regularization weights;
  weights.source_gradient = 0.7;
  weights.source_curvature = 1.3;
  const double cost = pixel_penalty(weights, pixels, nx, ny);
  EXPECT_NEAR(pixel_penalty(weights, mirrored, nx, ny), cost, 1e-12 * cost);
  EXPECT_NEAR(pixel_penalty(weights, turned, ny, nx), cost, 1e-12 * cost);
}

INSTANTIATE_TEST_SUITE_P(Grids, SourcePixels,
                         testing::Values(PixelCase{1, 1}, PixelCase{1, 4}, PixelCase{2, 2}, PixelCase{3, 1},
                                         PixelCase{7, 5}),
                         [](const auto& test) {
                           return std::to_string(test.param.nx) + "x" + std::to_string(test.param.ny);
                         });

TEST(Regularization, PixelsByHand) {
  // 0 1 3 0 along x, zeros around: differences 1 2 −3 and 0, second differences 1 1 −5 3; along y each pixel with two
  // zeros: differences twice its value, second difference minus twice it.
  const std::vector<double> pixels = {0, 1, 3, 0};
  Regularization weights;
  weights.source_gradient = 1;
  EXPECT_DOUBLE_EQ(pixel_penalty(weights, pixels, 4, 1), 1 + 4 + 9 + 2 * (1 + 9));
  weights.source_gradient = 0;
  weights.source_curvature = 1;
  EXPECT_DOUBLE_EQ(pixel_penalty(weights, pixels, 4, 1), 1 + 1 + 25 + 9 + 4 * (1 + 9));
}

TEST(Regularization, OnlyWhatIsUnphysicalCosts) {
  const Regularization both{.negative_convergence = 1, .negative_total_convergence = 1},
      network{.negative_convergence = 1}, total{.negative_total_convergence = 1};
  const auto cost = [](const Regularization& weights, double kappa, double kappa_macro) {
    return potential_penalty(weights, Hessian<double>{kappa, kappa, 0}, Hessian<double>{}, kappa_macro);
  };
  EXPECT_EQ(cost(both, 0.4, 0.1), 0);
  EXPECT_GT(cost(network, -0.4, 1.0), 0);
  EXPECT_EQ(cost(total, -0.4, 1.0), 0);
  EXPECT_GT(cost(total, -0.4, 0.1), 0);
}

}  // namespace
}  // namespace einfield
