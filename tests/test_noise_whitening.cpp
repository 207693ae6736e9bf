// Correlated noise: whitening against the dense covariance for masks of any shape, its adjoint, draws; what it does to
// a fit and to its error bars; the kernel measured in blank sky.
#include "host/cpu/noise_whitening.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <Eigen/Cholesky>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "einfield/error.hpp"
#include "einfield/random.hpp"
#include "host/config/sky_correlation.hpp"
#include "host/cpu/correlated_noise.hpp"
#include "host/fit/joint_model.hpp"
#include "host/fit/joint_posterior.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

using Matrix = NoiseWhitening::RowMatrix;

/// White noise averaged with the weights (1, 2, 1) along x and along y: what drizzle leaves, roughly.
NoiseCorrelation drizzled() {
  const double line[] = {1 / 6., 4 / 6., 1, 4 / 6., 1 / 6.};
  NoiseCorrelation kernel{5, 5, {}};
  for (const double y : line)
    for (const double x : line) kernel.values.push_back(x * y);
  return kernel;
}

struct Sky {
  Grid grid;
  std::vector<std::uint8_t> fitted;
  std::vector<int> pixels;  ///< fitted

  Sky(int nx, int ny, bool (*used)(int, int)) {
    grid.nx = nx;
    grid.ny = ny;
    for (int i = 0; i < nx * ny; ++i) {
      fitted.push_back(used(i % nx, i / nx));
      if (fitted.back()) pixels.push_back(i);
    }
  }
  Eigen::MatrixXd covariance(const NoiseCorrelation& k) const {
    const auto n = static_cast<Eigen::Index>(pixels.size());
    Eigen::MatrixXd r(n, n);
    for (Eigen::Index i = 0; i < n; ++i)
      for (Eigen::Index j = 0; j < n; ++j) {
        const int a = pixels[static_cast<std::size_t>(i)], b = pixels[static_cast<std::size_t>(j)];
        r(i, j) = (1 - kIndependentNoise) * k.at(a % grid.nx - b % grid.nx, a / grid.nx - b / grid.nx) +
                  (i == j ? kIndependentNoise : 0);
      }
    return r;
  }
};

std::vector<Sky> skies() {
  return {Sky(20, 17, [](int, int) { return true; }),
          Sky(21, 19, [](int x, int y) { return (x - 10) * (x - 10) + (y - 9) * (y - 9) < 70; }),
          Sky(30, 9, [](int x, int y) { return (7 * x + 3 * y) % 5 != 0 && x != 12; }),
          Sky(1, 1, [](int, int) { return true; })};
}

Eigen::VectorXd normals(Eigen::Index n, std::uint64_t stream) {
  const Philox philox{7};
  Eigen::VectorXd values(n);
  for (Eigen::Index i = 0; i < n; ++i) values[i] = philox.normal(static_cast<std::uint64_t>(i), stream);
  return values;
}

TEST(NoiseWhitening, IsTheFactorOfTheDenseCovariance) {
  for (const Sky& sky : skies()) {
    const NoiseWhitening whitening(drizzled(), sky.grid, sky.fitted);
    const auto n = static_cast<Eigen::Index>(sky.pixels.size());
    const Eigen::MatrixXd covariance = sky.covariance(drizzled());
    const Eigen::LLT<Eigen::MatrixXd> dense(covariance);
    const Eigen::VectorXd r = normals(n, 1), z = normals(n, 2);
    Eigen::VectorXd white = r, back = z, noise = z, solved = r;
    whitening.whiten(white.data());
    whitening.whiten_adjoint(back.data());
    whitening.color(noise.data());
    EXPECT_NEAR((white - dense.matrixL().solve(r)).norm(), 0, 1e-11 * white.norm());
    EXPECT_NEAR(white.dot(z), r.dot(back), 1e-11 * white.norm() * z.norm());
    EXPECT_NEAR((noise - dense.matrixL() * z).norm(), 0, 1e-12 * noise.norm());
    whitening.whiten(solved.data());
    whitening.whiten_adjoint(solved.data());
    EXPECT_NEAR((covariance * solved - r).norm(), 0, 1e-11 * r.norm());
    const Eigen::MatrixXd lower = dense.matrixL();
    EXPECT_NEAR(whitening.log_determinant(), lower.diagonal().array().log().sum(), 1e-10 * double(n));
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      Matrix columns(n, 70);
      for (Eigen::Index k = 0; k < columns.cols(); ++k) columns.col(k) = normals(n, 3 + static_cast<std::uint64_t>(k));
      const Eigen::MatrixXd expected = dense.matrixL().solve(Eigen::MatrixXd(columns));
      whitening.whiten(columns, pool);
      EXPECT_NEAR((columns - expected).norm(), 0, 1e-11 * expected.norm());
    }
    EXPECT_LE(whitening.bytes(), NoiseWhitening::planned_bytes(drizzled(), sky.grid, sky.pixels.size()));
  }
}

TEST(NoiseWhitening, RefusesWhatIsNoCorrelation) {
  const Sky sky = skies()[0];
  EXPECT_THROW(NoiseWhitening({3, 1, {0.9, 1, 0.9}}, sky.grid, sky.fitted), InvalidInput);
  EXPECT_TRUE(whitening_of({}).empty());
}

/// The Jacobian of all parameters against finite differences of χ², and against the backend's gradient.
TEST(NoiseWhitening, GradientOfTheJointModel) {
  Problem problem = make_problem(step_cases()[24]);
  problem.regularization.source_curvature = 0.1;
  problem.regularization.weight_decay = 1e-3;
  ThreadPool pool(2);
  JointModel model(problem, {}, pool);
  const std::vector<double>& x = problem.initial_parameters;
  const Linearization l = model.linearize(x);
  ASSERT_EQ(l.whitened_source.rows(), model.n_data());
  const Eigen::VectorXd of_source = 2 * l.whitened_source.transpose() * l.residual,
                        of_rest = 2 * l.rest.transpose() * l.residual;
  const auto slope = [&](std::size_t i) {
    const double h = 1e-5;
    std::vector<double> up = x, down = x;
    up[i] += h;
    down[i] -= h;
    return (model.value(up).chi2 - model.value(down).chi2) / (2 * h);
  };
  for (std::size_t k = 0; k < model.pixels().size(); ++k)
    EXPECT_NEAR(of_source[static_cast<Eigen::Index>(k)], slope(model.pixels()[k]), 1e-5 * of_source.norm()) << k;
  for (std::size_t k = 0; k < model.rest().size(); ++k)
    EXPECT_NEAR(of_rest[static_cast<Eigen::Index>(k)], slope(model.rest()[k]), 1e-5 * of_rest.norm()) << k;
  const auto backend = make_backend<double>("cpu", {1, {}});
  backend->load({problem});
  backend->evaluate(true);
  EXPECT_NEAR(backend->state(0).chi2_reduced, l.value.chi2 / model.n_data(), 1e-11 * backend->state(0).chi2_reduced);
}

/// Normal equations of a dense A are those of its products, and the log evidence has ln det of the covariance.
TEST(NoiseWhitening, NormalEquationsAndEvidence) {
  Problem problem = make_problem(step_cases()[24]);
  problem.regularization.source_curvature = 0.1;
  problem.regularization.weight_decay = 1e-3;
  ThreadPool pool(2);
  JointModel model(problem, {}, pool);
  const Linearization l = model.linearize(problem.initial_parameters);
  const DataNormal normal(l, model.pixels().size(), pool);
  EXPECT_NEAR((normal.source_gradient - l.whitened_source.transpose() * l.residual).norm(), 0,
              1e-12 * normal.source_gradient.norm());
  const auto block = normal.eliminate(model.source_prior().precision(problem.regularization));
  ASSERT_TRUE(block->good());
  const Eigen::MatrixXd prior = model.source_prior().precision(problem.regularization).toDense();
  const Eigen::MatrixXd source = l.whitened_source.transpose() * l.whitened_source + prior,
                        mixed = l.whitened_source.transpose() * l.rest;
  const Eigen::MatrixXd schur = l.rest.transpose() * l.rest - mixed.transpose() * source.ldlt().solve(mixed);
  EXPECT_NEAR((block->schur() - schur).norm(), 0, 1e-9 * schur.norm());

  Problem without = problem;
  without.observation.noise_correlation = {};
  JointModel independent(without, {}, pool);
  independent.value(problem.initial_parameters);
  model.value(problem.initial_parameters);
  EXPECT_NEAR(model.log_constant() + model.whitening().log_determinant(), independent.log_constant(), 1e-9);
}

/// Redrawn noise of a member has the covariance that the fit assumes: its χ² is that of independent numbers.
TEST(NoiseWhitening, DrawsHaveTheCovarianceOfTheFit) {
  const Sky sky = skies()[1];
  const NoiseWhitening whitening(drizzled(), sky.grid, sky.fitted);
  const auto n = static_cast<Eigen::Index>(sky.pixels.size());
  double neighbors = 0, squares = 0;
  const int draws = 400;
  Eigen::Index first = 0;  // a pair of neighbors in a row
  while (sky.pixels[static_cast<std::size_t>(first + 1)] != sky.pixels[static_cast<std::size_t>(first)] + 1) ++first;
  for (int k = 0; k < draws; ++k) {
    Eigen::VectorXd noise = normals(n, 100 + static_cast<std::uint64_t>(k));
    whitening.color(noise.data());
    neighbors += noise[first] * noise[first + 1] / draws;
    squares += noise[first] * noise[first] / draws;
  }
  EXPECT_NEAR(squares, 1, 4 * std::sqrt(2.0 / draws));
  EXPECT_NEAR(neighbors, 4 / 6., 4 * std::sqrt(2.0 / draws));
}

/// An amplitude fitted to an image with correlated noise: with the kernel its error bar is right, and without it is too
/// small.
TEST(NoiseWhitening, ErrorBarsHoldWithTheKernel) {
  const int side = 24, draws = 60;
  const Sky sky(side, side, [](int, int) { return true; });
  const NoiseWhitening whitening(drizzled(), sky.grid, sky.fitted);
  const auto n = static_cast<Eigen::Index>(sky.pixels.size());
  Eigen::VectorXd light(n);
  for (Eigen::Index i = 0; i < n; ++i) {
    const double x = double(i % side) - 11.5, y = double(i / side) - 11.5;
    light[i] = std::exp(-0.5 * (x * x + y * y) / 9);
  }
  Eigen::VectorXd white_light = light;
  whitening.whiten(white_light.data());
  double with = 0, without = 0;
  for (int k = 0; k < draws; ++k) {
    const std::vector<double> drawn = correlated_normals(drizzled(), side, side, 5, static_cast<std::uint64_t>(k));
    Eigen::VectorXd noise = Eigen::Map<const Eigen::VectorXd>(drawn.data(), n);
    without += std::pow(light.dot(noise) / light.norm(), 2) / draws;
    whitening.whiten(noise.data());
    with += std::pow(white_light.dot(noise) / white_light.norm(), 2) / draws;
  }
  // Means of 60 squares of normal numbers scatter by 0.18. A smooth light sees nearly the sum of all coefficients, 7.1.
  EXPECT_NEAR(with, 1, 0.6);
  EXPECT_GT(without, 3);
}

/// The small lens with a kernel.fits beside it.
class CorrelatedLens {
 public:
  CorrelatedLens() : lens_({{"observation.noise_correlation", "\"kernel.fits\""}}) {
    const NoiseCorrelation k = drizzled();
    write_fits(lens_.folder() / "kernel.fits", {{"K", k.nx, k.ny, 1, k.values, -64, "", 0, 0, 0, {}}});
  }
  Config config(const std::vector<Override>& more = {}) const { return lens_.config(more); }
  std::string out() const { return lens_.out(); }

 private:
  SmallLens lens_;
};

/// Optimizers that share nothing but the objective end at one minimum, whose χ² is that of the files.
TEST(NoiseWhitening, OptimizersEndAtOneMinimum) {
  const CorrelatedLens lens;
  const std::vector<Override> smooth = {{"recipe", "\"default\""},
                                        {"network.ensemble", "1"},
                                        {"optimizer.steps", "150"},
                                        {"optimizer.stop", "\"none\""},
                                        {"regularization.weight_decay", "1e-3"}};
  std::vector<double> chi2;
  for (const char* name : {"lbfgs", "levenberg_marquardt", "gauss_newton"}) {
    std::vector<Override> settings = smooth;
    settings.push_back({"optimizer.name", std::string("\"") + name + "\""});
    settings.push_back({"optimizer.free", "[\"lens\"]"});
    RunOptions options = run_options(lens.out());
    options.overwrite = options.double_precision = true;
    run_fit(lens.config(settings), options);
    const nlohmann::json result = nlohmann::json::parse(std::ifstream(lens.out() + "/result.json"));
    chi2.push_back(result.at("metrics").at("chi2_reduced"));
    const Problem problem = load_problem(lens.config(settings)).problem;
    const FitsImage model = read_fits(lens.out() + "/result.fits", "MODEL");
    std::vector<double> residual;
    for (std::size_t i = 0; i < model.values.size(); ++i)
      if (problem.observation.mask[i])
        residual.push_back((model.values[i] - problem.observation.image[i]) / problem.observation.noise[i]);
    whitening_of(problem.observation).whiten(residual.data());
    double sum = 0;
    for (const double z : residual) sum += z * z / problem.observation.n_used();
    EXPECT_NEAR(chi2.back(), sum, 1e-5 * sum) << name;
    EXPECT_EQ(read_fits(lens.out() + "/result.fits", "NOISE_CORRELATION").nx, 5);
  }
  EXPECT_NEAR(chi2[0], chi2[1], 1e-5 * chi2[1]);
  EXPECT_NEAR(chi2[2], chi2[1], 1e-5 * chi2[1]);
}

TEST(NoiseWhitening, WhatIsRefused) {
  const CorrelatedLens lens;
  const auto failure = [&](const std::vector<Override>& more) -> std::string {
    try {
      load_problem(lens.config(more));
    } catch (const InvalidInput& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(failure({{"optimizer.loss", "\"mse\""}})
                .find("observation.noise_correlation: correlated noise needs a "
                      "likelihood, found optimizer.loss = \"mse\", expected "
                      "\"chi2\""),
            std::string::npos);
  EXPECT_NE(failure({{"observation.measure_noise_correlation", "true"}})
                .find("observation.measure_noise_correlation: found true beside observation.noise_correlation"),
            std::string::npos);
  EXPECT_NE(failure({{"observation.noise_correlation", "\"absent.fits\""}}).find("absent.fits"), std::string::npos);
}

TEST(SkyCorrelation, IsThatOfTheNoiseBesideALens) {
  Observation o;
  o.grid.nx = o.grid.ny = 150;
  o.grid.pixel_scale = 0.05;
  const std::vector<double> noise = correlated_normals(drizzled(), 150, 150, 11, 1);
  for (int i = 0; i < o.grid.n_pixels(); ++i) {
    const Vec2<double> at = o.grid.pixel(i);
    const double r = hypot(at.x, at.y);
    const double galaxy = 300 * std::exp(-r / 0.4) + 40 * std::exp(-0.5 * std::pow((r - 1) / 0.1, 2));
    const double neighbor = 200 * std::exp(-hypot(at.x - 2.5, at.y + 2) / 0.2);
    o.noise.push_back(2);
    o.image.push_back(0.7 + galaxy + neighbor + 2 * noise[static_cast<std::size_t>(i)]);
  }
  std::vector<std::uint8_t> usable(o.image.size(), 1);
  o.image[77] = 1e9;  // a bad pixel that nothing marks
  const SkyCorrelation sky = sky_correlation(o, usable);
  EXPECT_GT(sky.sky_pixels, 8000);
  EXPECT_NEAR(sky.scatter, 1, 0.03);
  EXPECT_EQ(sky.kernel.nx, 5);
  const NoiseCorrelation expected = drizzled();
  for (int y = -3; y <= 3; ++y)
    for (int x = -3; x <= 3; ++x) EXPECT_NEAR(sky.kernel.at(x, y), expected.at(x, y), 0.06) << x << " " << y;
  EXPECT_EQ(sky.kernel.at(0, 0), 1);
  EXPECT_NO_THROW(correlated_normals(sky.kernel, 40, 40, 1, 1));

  // Independent noise stays so.
  const Philox philox{3};
  for (std::size_t i = 0; i < o.image.size(); ++i) o.image[i] = 2 * philox.normal(i);
  const NoiseCorrelation white = sky_correlation(o, usable).kernel;
  double most = 0;
  for (int y = -3; y <= 3; ++y)
    for (int x = -3; x <= 3; ++x)
      if (x != 0 || y != 0) most = std::max(most, std::abs(white.at(x, y)));
  EXPECT_LT(most, 0.04);
  for (double& v : o.noise) v *= 2;  // a noise map that is too large
  EXPECT_NEAR(sky_correlation(o, usable).scatter, 0.5, 0.01);
  std::fill(usable.begin() + 400, usable.end(), 0);
  EXPECT_THROW(sky_correlation(o, usable), InvalidInput);
}

}  // namespace
}  // namespace einfield
