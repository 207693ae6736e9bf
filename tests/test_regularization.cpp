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
  // ψ = a x² + b y² + c xy has κ = a + b everywhere and central differences without error.
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
    for (int column = 1; column + 1 < nodes.columns; ++column)
      EXPECT_NEAR(difference_convergence(nodes, alpha.data(), n, grid.pixel_scale / grid.supersampling, column, row),
                  0.5, 1e-13);
}

TEST_P(RayGrids, AdjointIsTheTranspose) {
  Grid grid{5, 4, 0.2, 0, 0, GetParam()};
  const RayGrid nodes(grid);
  const int n = grid.n_rays();
  const double spacing = grid.pixel_scale / grid.supersampling;
  const std::vector<double> alpha = wave(2 * static_cast<std::size_t>(n), 0.1);
  std::vector<double> kappa_bar = wave(static_cast<std::size_t>(n), 0.9);
  double forward = 0, backward = 0;
  for (int row = 0; row < nodes.rows; ++row)
    for (int column = 0; column < nodes.columns; ++column) {
      double& bar = kappa_bar[static_cast<std::size_t>(row * nodes.columns + column)];
      if (row == 0 || column == 0 || row + 1 == nodes.rows || column + 1 == nodes.columns)
        bar = 0;
      else
        forward += bar * difference_convergence(nodes, alpha.data(), n, spacing, column, row);
    }
  for (int row = 0; row < nodes.rows; ++row)
    for (int column = 0; column < nodes.columns; ++column) {
      const Vec2<double> bar = difference_convergence_adjoint(nodes, kappa_bar.data(), spacing, column, row);
      const auto ray = static_cast<std::size_t>(nodes.ray(column, row));
      backward += bar.x * alpha[ray] + bar.y * alpha[static_cast<std::size_t>(n) + ray];
    }
  EXPECT_NEAR(forward, backward, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Supersampling, RayGrids, testing::Values(1, 2, 3));

TEST(Regularization, PenaltyAdjointAgainstDifferences) {
  const Regularization weights{0.3, 0.5, 0.7};
  const double h = std::cbrt(std::numeric_limits<double>::epsilon());
  for (const double kappa : {-2.0, -0.4, -1e-3, 1e-3, 0.2, 1.5})
    for (const double macro : {-0.3, 0.0, 0.35, 1.0}) {
      const double difference =
          (convergence_penalty(weights, kappa + h, macro) - convergence_penalty(weights, kappa - h, macro)) / (2 * h);
      EXPECT_NEAR(convergence_penalty_adjoint(weights, kappa, macro), difference, 1e-9);
    }
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
  EXPECT_EQ(convergence_penalty(Regularization{0, 1, 1}, 0.4, 0.1), 0);
  EXPECT_GT(convergence_penalty(Regularization{0, 1, 0}, -0.4, 1.0), 0);
  EXPECT_EQ(convergence_penalty(Regularization{0, 0, 1}, -0.4, 1.0), 0);
  EXPECT_GT(convergence_penalty(Regularization{0, 0, 1}, -0.4, 0.1), 0);
}

}  // namespace
}  // namespace einfield
