// Where pixels and rays are.
#include "einfield/grid.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <utility>

namespace einfield {
namespace {

TEST(Grid, PixelCentersAreThoseOfTheConvention) {
  // x_i = center + (i − (n − 1)/2) d: even and odd numbers of pixels.
  const Grid grid{4, 3, 0.5, 10, -20, 1};
  EXPECT_EQ(grid.n_pixels(), 12);
  EXPECT_EQ(grid.pixel(0).x, 10 - 0.75);
  EXPECT_EQ(grid.pixel(0).y, -20 - 0.5);
  EXPECT_EQ(grid.pixel(3).x, 10 + 0.75);
  EXPECT_EQ(grid.pixel(3).y, -20 - 0.5);  // x grows with the column,
  EXPECT_EQ(grid.pixel(8).x, 10 - 0.75);
  EXPECT_EQ(grid.pixel(8).y, -20 + 0.5);  // y with the row
  EXPECT_EQ(grid.pixel(5).y, -20);        // the middle row
}

TEST(Grid, OnePixelSitsInTheMiddle) {
  const Grid grid{1, 1, 0.08, 0.3, -0.1, 1};
  EXPECT_EQ(grid.pixel(0).x, 0.3);
  EXPECT_EQ(grid.pixel(0).y, -0.1);
  EXPECT_EQ(grid.ray(0).x, 0.3);
  EXPECT_EQ(grid.ray(0).y, -0.1);
}

class Supersampling : public testing::TestWithParam<int> {};

TEST_P(Supersampling, RaysOfAPixelTileItAroundItsCenter) {
  const int s = GetParam();
  const Grid grid{5, 4, 0.08, 0.05, -0.1, s};
  EXPECT_EQ(grid.rays_per_pixel(), s * s);
  EXPECT_EQ(grid.n_rays(), 20 * s * s);
  for (int pixel = 0; pixel < grid.n_pixels(); ++pixel) {
    const Vec2<double> center = grid.pixel(pixel);
    Vec2<double> mean{};
    for (int k = 0; k < s * s; ++k) {
      const Vec2<double> ray = grid.ray(pixel * s * s + k);
      mean += (1.0 / (s * s)) * ray;
      // Sub-pixel (sx, sy) in row-major order, at its own center.
      EXPECT_NEAR(ray.x, center.x + ((k % s + 0.5) / s - 0.5) * 0.08, 1e-15);
      EXPECT_NEAR(ray.y, center.y + ((k / s + 0.5) / s - 0.5) * 0.08, 1e-15);
    }
    EXPECT_NEAR(mean.x, center.x, 1e-15);
    EXPECT_NEAR(mean.y, center.y, 1e-15);
  }
}

TEST_P(Supersampling, RaysFormARegularGridWithoutRepetition) {
  const int s = GetParam();
  const Grid grid{5, 4, 0.08, 0.05, -0.1, s};
  std::set<std::pair<long, long>> nodes;
  const Vec2<double> origin = grid.ray(0);
  for (int i = 0; i < grid.n_rays(); ++i) {
    const Vec2<double> ray = grid.ray(i);
    const double column = (ray.x - origin.x) * s / 0.08, row = (ray.y - origin.y) * s / 0.08;
    EXPECT_NEAR(column, std::round(column), 1e-12);
    EXPECT_NEAR(row, std::round(row), 1e-12);
    nodes.insert({std::lround(column), std::lround(row)});
  }
  EXPECT_EQ(nodes.size(), static_cast<std::size_t>(grid.n_rays()));
  EXPECT_EQ(nodes.rbegin()->first, 5 * s - 1);
  EXPECT_EQ(nodes.begin()->first, 0);
}

INSTANTIATE_TEST_SUITE_P(PerSide, Supersampling, testing::Values(1, 2, 3, 4));

}  // namespace
}  // namespace einfield
