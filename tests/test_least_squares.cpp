// Small dense systems: Cholesky against the matrix, the bounded problem against all of its active sets.
#include "host/fit/least_squares.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "einfield/network.hpp"

namespace einfield {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

/// N = AᵀA and b = Aᵀd of random numbers; columns of very different length.
struct System {
  SymmetricMatrix n;
  std::vector<double> b;

  System(std::size_t size, std::uint64_t seed, std::size_t rows = 30) : n(size), b(size, 0.0) {
    const Philox philox{seed};
    std::vector<double> a(rows * size), d(rows);
    for (std::size_t i = 0; i < a.size(); ++i)
      a[i] = (0.4 + philox.normal(i)) * std::pow(10.0, static_cast<double>(i % size));
    for (std::size_t i = 0; i < rows; ++i) d[i] = philox.normal(i, 1);
    for (std::size_t k = 0; k < rows; ++k)
      for (std::size_t i = 0; i < size; ++i) {
        b[i] += a[k * size + i] * d[k];
        for (std::size_t j = 0; j < size; ++j) n(i, j) += a[k * size + i] * a[k * size + j];
      }
  }
  double value(const std::vector<double>& c) const {
    double sum = 0;
    for (std::size_t i = 0; i < n.n; ++i) {
      sum -= b[i] * c[i];
      for (std::size_t j = 0; j < n.n; ++j) sum += 0.5 * c[i] * n(i, j) * c[j];
    }
    return sum;
  }
};

TEST(Cholesky, SolvesAndInverts) {
  for (const std::size_t size : {1u, 2u, 7u}) {
    const System s(size, 3);
    const Cholesky cholesky(s.n);
    ASSERT_TRUE(cholesky.good());
    const std::vector<double> x = cholesky.solve(s.b);
    const SymmetricMatrix inverse = cholesky.inverse();
    for (std::size_t i = 0; i < size; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < size; ++j) {
        sum += s.n(i, j) * x[j];
        double product = 0;
        for (std::size_t k = 0; k < size; ++k) product += s.n(i, k) * inverse(k, j);
        // In units of the rows: N_ij is of the order of √(N_ii N_jj).
        EXPECT_NEAR(product, i == j, 1e-10 * std::sqrt(s.n(i, i) / s.n(j, j)));
      }
      EXPECT_NEAR(sum, s.b[i], 1e-10 * std::sqrt(s.n(i, i)));
    }
  }
}

TEST(Cholesky, NamesTheColumnThatIsNotIndependent) {
  System s(4, 5);
  for (std::size_t i = 0; i < 4; ++i) s.n(i, 2) = s.n(2, i) = s.n(i, 0);  // column 2 = column 0
  s.n(2, 2) = s.n(0, 0);
  EXPECT_FALSE(Cholesky(s.n).good());
  EXPECT_EQ(Cholesky(s.n).failed(), 2u);
  EXPECT_TRUE(Cholesky(s.n.part({0, 1, 3})).good());
  s.n(1, 1) = 0;
  EXPECT_EQ(Cholesky(s.n).failed(), 1u);
}

TEST(SymmetricEigen, GivesTheMatrixBackAndNamesWhatItDoesNotDepend) {
  for (const std::size_t size : {1u, 2u, 7u, 20u}) {
    const System s(size, 3);
    SymmetricMatrix scaled(size);
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < size; ++j) scaled(i, j) = s.n(i, j) / std::sqrt(s.n(i, i) * s.n(j, j));
    const SymmetricEigen eigen = symmetric_eigen(scaled);
    for (std::size_t i = 0; i < size; ++i)
      for (std::size_t j = 0; j < size; ++j) {
        double sum = 0, dot = 0;
        for (std::size_t k = 0; k < size; ++k) {
          sum += eigen.values[k] * eigen.vectors(k, i) * eigen.vectors(k, j);
          dot += eigen.vectors(i, k) * eigen.vectors(j, k);
        }
        EXPECT_NEAR(sum, scaled(i, j), 1e-13);
        EXPECT_NEAR(dot, i == j, 1e-13);
      }
  }
  System s(4, 5);
  for (std::size_t i = 0; i < 4; ++i) s.n(i, 2) = s.n(2, i) = 3 * s.n(i, 0);  // column 2 = 3 column 0
  s.n(2, 2) = 9 * s.n(0, 0);
  const SymmetricEigen eigen = symmetric_eigen(s.n);
  const auto least =
      static_cast<std::size_t>(std::min_element(eigen.values.begin(), eigen.values.end()) - eigen.values.begin());
  EXPECT_NEAR(eigen.vectors(least, 0) / eigen.vectors(least, 2), -3, 1e-6);
  EXPECT_NEAR(eigen.vectors(least, 1), 0, 1e-6);
}

/// The lowest value over all choices of who lies at which bound.
double lowest_value(const System& s, const std::vector<double>& lower, const std::vector<double>& upper) {
  const std::size_t size = s.n.n;
  double lowest = kInf;
  std::size_t choices = 1;
  for (std::size_t i = 0; i < size; ++i) choices *= 3;
  for (std::size_t choice = 0; choice < choices; ++choice) {
    std::vector<double> c(size);
    std::vector<std::size_t> free;
    std::size_t digits = choice;
    bool possible = true;
    for (std::size_t i = 0; i < size; ++i, digits /= 3) {
      if (digits % 3 == 2) free.push_back(i);
      if (digits % 3 < 2) c[i] = digits % 3 == 0 ? lower[i] : upper[i];
      possible = possible && std::isfinite(c[i]);
    }
    if (!possible) continue;
    std::vector<double> right;
    for (const std::size_t i : free) {
      double sum = s.b[i];
      for (std::size_t j = 0; j < size; ++j)
        if (std::find(free.begin(), free.end(), j) == free.end()) sum -= s.n(i, j) * c[j];
      right.push_back(sum);
    }
    if (!free.empty()) {
      const std::vector<double> solved = Cholesky(s.n.part(free)).solve(right);
      for (std::size_t k = 0; k < free.size(); ++k) c[free[k]] = solved[k];
    }
    for (std::size_t i = 0; i < size; ++i) possible = possible && c[i] >= lower[i] && c[i] <= upper[i];
    if (possible) lowest = std::min(lowest, s.value(c));
  }
  return lowest;
}

TEST(BoundedLeastSquares, FindsTheLowestOfAllActiveSets) {
  int bound = 0, interior = 0;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    const Philox philox{seed};
    const std::size_t size = 1 + seed % 5;
    const System s(size, seed + 1000);
    std::vector<double> lower(size), upper(size);
    for (std::size_t i = 0; i < size; ++i) {
      const double unit = 0.2 / std::pow(10.0, static_cast<double>(i));  // of the solution
      const double kind = philox.uniform(i, 2);
      lower[i] = kind < 0.5 ? 0 : kind < 0.8 ? -unit : -kInf;
      upper[i] = philox.uniform(i, 3) < 0.3 ? unit : kInf;
    }
    const BoundedSolution x = bounded_least_squares(s.n, s.b, lower, upper);
    for (std::size_t i = 0; i < size; ++i) {
      EXPECT_GE(x.values[i], lower[i]);
      EXPECT_LE(x.values[i], upper[i]);
      EXPECT_EQ(x.free[i], x.values[i] != lower[i] && x.values[i] != upper[i]);
      ++(x.free[i] ? interior : bound);
    }
    const double lowest = lowest_value(s, lower, upper);
    EXPECT_NEAR(s.value(x.values), lowest, 1e-10 * (1 + std::abs(lowest))) << "seed " << seed;
  }
  EXPECT_GT(bound, 100);
  EXPECT_GT(interior, 100);
}

TEST(BoundedLeastSquares, SharesNothingBetweenTwoColumnsThatAreOne) {
  System s(3, 8);
  for (std::size_t i = 0; i < 3; ++i) s.n(i, 2) = s.n(2, i) = s.n(i, 1);
  s.n(2, 2) = s.n(1, 1);
  s.b = {1, 20, 20};
  const std::vector<double> lower(3, 0.0), upper(3, kInf);
  const BoundedSolution x = bounded_least_squares(s.n, s.b, lower, upper);
  EXPECT_EQ(std::min(x.values[1], x.values[2]), 0);
  const BoundedSolution two = bounded_least_squares(s.n.part({0, 1}), {1, 20}, {0, 0}, {kInf, kInf});
  EXPECT_NEAR(x.values[1] + x.values[2], two.values[1], 1e-12);
  EXPECT_NEAR(x.values[0], two.values[0], 1e-12);
}

TEST(BoundedLeastSquares, AColumnOfZerosStaysAtItsBound) {
  System s(2, 9);
  s.n(0, 1) = s.n(1, 0) = s.n(1, 1) = s.b[1] = 0;
  const BoundedSolution x = bounded_least_squares(s.n, s.b, {-kInf, 0.5}, {kInf, kInf});
  EXPECT_EQ(x.values[1], 0.5);
  EXPECT_FALSE(x.free[1]);
  EXPECT_NEAR(x.values[0], s.b[0] / s.n(0, 0), 1e-12);
}

}  // namespace
}  // namespace einfield
