// The sampler of the reference chain (tests/posterior_chain.cpp): densities whose moments are known, and how many
// independent samples a chain is worth.
#include <gtest/gtest.h>

#include <cmath>
#include <Eigen/Cholesky>
#include <Eigen/LU>

#include "tests/hmc.hpp"

namespace einfield {
namespace {

/// Samples of one quantity.
using Series = std::vector<double>;

/// Whether the mean of a quantity is the expected one within 5 of its standard errors.
void expect_mean(const std::vector<Series>& chains, double expected, double least_effective) {
  double mean = 0, square = 0, count = 0;
  for (const Series& chain : chains)
    for (const double v : chain) {
      ++count;
      mean += v;
      square += v * v;
    }
  mean /= count;
  const double effective = hmc::effective_samples(chains);
  EXPECT_GT(effective, least_effective);
  EXPECT_NEAR(mean, expected, 5 * std::sqrt((square / count - mean * mean) / effective));
}

TEST(Hmc, MomentsOfAGaussianOfKnownCovariance) {
  constexpr Eigen::Index n = 5;
  const Philox random{4};
  Eigen::MatrixXd mixed(n, n);
  for (Eigen::Index i = 0; i < mixed.size(); ++i) mixed.data()[i] = random.normal(static_cast<std::uint64_t>(i));
  // Widths from 0.05 to 20, and a mean far from the start.
  const Eigen::VectorXd widths = Eigen::VectorXd::LinSpaced(n, std::log(0.05), std::log(20.0)).array().exp();
  const Eigen::MatrixXd root = widths.asDiagonal() * mixed, covariance = root * root.transpose();
  const Eigen::LLT<Eigen::MatrixXd> factor(covariance);
  const Eigen::VectorXd center = 2 * widths;
  const auto density = [&](const Eigen::VectorXd& x, Eigen::VectorXd& gradient) {
    gradient = factor.solve(center - x);
    return (x - center).dot(gradient) / 2;
  };
  // What the caller thinks of the widths is wrong by up to a factor of four.
  Eigen::VectorXd guess = widths;
  for (Eigen::Index i = 0; i < n; ++i) guess[i] *= std::pow(4.0, double(i % 3) - 1);
  std::vector<std::vector<Series>> chains(static_cast<std::size_t>(n));
  double acceptance = 0;
  for (std::uint64_t c = 0; c < 4; ++c) {
    for (std::vector<Series>& quantity : chains) quantity.emplace_back();
    const hmc::Summary summary =
        hmc::run(density, Eigen::VectorXd::Zero(n), guess.asDiagonal(),
                 {.warmup = 1500, .samples = 3000, .seed = c + 1}, [&](const Eigen::VectorXd& x) {
                   for (Eigen::Index i = 0; i < n; ++i) chains[static_cast<std::size_t>(i)].back().push_back(x[i]);
                 });
    acceptance += summary.acceptance / 4;
    EXPECT_EQ(summary.divergent, 0);
  }
  EXPECT_NEAR(acceptance, 0.8, 0.15);
  for (Eigen::Index i = 0; i < n; ++i)
    for (Eigen::Index j = 0; j <= i; ++j) {
      std::vector<Series> product;
      for (std::size_t c = 0; c < 4; ++c) {
        const Series &a = chains[static_cast<std::size_t>(i)][c], &b = chains[static_cast<std::size_t>(j)][c];
        Series& p = product.emplace_back();
        for (std::size_t k = 0; k < a.size(); ++k) p.push_back((a[k] - center[i]) * (b[k] - center[j]));
      }
      expect_mean(product, covariance(i, j), 200);
      if (i == j) expect_mean(chains[static_cast<std::size_t>(i)], center[i], 200);
    }
}

/// u is standard normal, and v is normal about u² with width 1: a bent density.
TEST(Hmc, MomentsOfABentDensity) {
  const auto density = [](const Eigen::VectorXd& x, Eigen::VectorXd& gradient) {
    const double off = x[1] - x[0] * x[0];
    gradient = Eigen::Vector2d(-x[0] + 2 * x[0] * off, -off);
    return -(x[0] * x[0] + off * off) / 2;
  };
  std::vector<Series> u, v, squares;
  for (std::uint64_t c = 0; c < 2; ++c) {
    u.emplace_back();
    v.emplace_back();
    squares.emplace_back();
    hmc::run(density, Eigen::Vector2d::Zero(), Eigen::Matrix2d::Identity(),
             {.warmup = 1000, .samples = 20000, .acceptance = 0.9, .seed = c + 1}, [&](const Eigen::VectorXd& x) {
               u.back().push_back(x[0]);
               v.back().push_back(x[1]);
               squares.back().push_back((x[1] - 1) * (x[1] - 1));
             });
  }
  expect_mean(u, 0, 1000);
  expect_mean(v, 1, 500);
  expect_mean(squares, 3, 200);
}

TEST(Hmc, CountsSamplesThatResembleTheOneBefore) {
  constexpr int n = 10000;
  for (const double rho : {0.0, 0.5, 0.9}) {
    std::vector<Series> chains;
    for (std::uint64_t c = 0; c < 2; ++c) {
      const Philox random{c + 1};
      Series& chain = chains.emplace_back();
      double value = random.normal(0);
      for (std::uint64_t k = 1; k <= n; ++k)
        chain.push_back(value = rho * value + std::sqrt(1 - rho * rho) * random.normal(k));
    }
    const double expected = 2.0 * n * (1 - rho) / (1 + rho);
    EXPECT_NEAR(hmc::effective_samples(chains), expected, 0.15 * expected) << rho;
    // One chain elsewhere, by two widths: they are worth no more than a few samples.
    for (double& v : chains[1]) v += 2;
    EXPECT_LT(hmc::effective_samples(chains), 20) << rho;
  }
}

}  // namespace
}  // namespace einfield
