// The joint linearization of pixels, weights and scalars against the backend and against differences; block Cholesky;
// the evidence against the Gaussian integral, and the weights that make it highest.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/LU>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/cpu/network_jacobian.hpp"
#include "host/fit/gauss_newton.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

constexpr double kLogTwoPi = 1.8378770664093453;

/// Every kind of content that a joint fit knows.
std::vector<StepCase> joint_cases() {
  std::vector<StepCase> cases;
  for (StepCase c : step_cases()) {
    if (c.light_features > 0 || !c.light_hidden.empty()) continue;
    c.loss = LossKind::chi2;
    if (c.pixel_source && !c.regularization.on_source_pixels()) c.regularization.source_curvature = 0.1;
    const bool network = !c.hidden.empty() || c.fourier_features > 0;
    if (network || c.free_lens || c.free_light || c.pixel_source) cases.push_back(c);
  }
  StepCase linear;
  linear.name = "linear_readout_and_pixels";
  linear.hidden = {};
  linear.fourier_features = 6;
  linear.pixel_source = linear.masked = true;
  linear.supersampling = 4;
  linear.psf_supersampling = 2;
  linear.psf_size = 7;
  linear.loss = LossKind::chi2;
  linear.regularization = {.smoothness = 0.3, .curvature = 0.2, .weight_decay = 1e-2, .source_gradient = 0.2};
  cases.push_back(linear);
  return cases;
}

std::vector<double> moved(const JointModel& model, std::vector<double> x, const Eigen::VectorXd& source,
                          const Eigen::VectorXd& rest, double length) {
  for (std::size_t k = 0; k < model.pixels().size(); ++k)
    x[model.pixels()[k]] += length * source[static_cast<Eigen::Index>(k)];
  for (std::size_t k = 0; k < model.rest().size(); ++k)
    x[model.rest()[k]] += length * rest[static_cast<Eigen::Index>(k)];
  return x;
}

Eigen::VectorXd normal_vector(std::size_t n, std::uint64_t seed) {
  Eigen::VectorXd v(static_cast<Eigen::Index>(n));
  for (Eigen::Index i = 0; i < v.size(); ++i) v[i] = Philox{seed}.normal(static_cast<std::uint64_t>(i));
  return v;
}

Eigen::VectorXd times(const SparseRows& a, const Eigen::VectorXd& x) {
  Eigen::VectorXd y = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(a.first.size() - 1));
  for (Eigen::Index i = 0; i < y.size(); ++i)
    for (std::size_t k = a.first[static_cast<std::size_t>(i)]; k < a.first[static_cast<std::size_t>(i) + 1]; ++k)
      y[i] += a.value[k] * x[a.column[k]];
  return y;
}

TEST(JointModel, ValueAndGradientAreThoseOfTheBackend) {
  ThreadPool pool(2);
  for (const StepCase& c : joint_cases()) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    JointModel model(problem, {}, pool);
    const Linearization l = model.linearize(problem.initial_parameters);
    const DataNormal normal(l, model.pixels().size(), pool);
    const JointPosterior posterior(model, l, normal, problem.regularization, pool);

    const auto backend = make_backend<double>("cpu", {1, {}});
    backend->load({problem});
    backend->evaluate(true);
    const StepState state = backend->state(0);
    const double n = model.n_data();
    EXPECT_NEAR(l.value.chi2, n * state.loss, 1e-11 * n * state.loss);
    EXPECT_NEAR(l.value.total(problem.regularization), n * (state.loss + state.regularization), 1e-11 * n * state.loss);
    const std::vector<double> expected = backend->download(Field::gradient, 0);
    double scale = 0;
    for (const double g : expected) scale = std::max(scale, n * std::abs(g));
    for (std::size_t k = 0; k < model.pixels().size(); ++k)
      EXPECT_NEAR(2 * posterior.source_gradient()[static_cast<Eigen::Index>(k)], n * expected[model.pixels()[k]],
                  1e-11 * scale);
    for (std::size_t k = 0; k < model.rest().size(); ++k)
      EXPECT_NEAR(2 * posterior.rest_gradient()[static_cast<Eigen::Index>(k)], n * expected[model.rest()[k]],
                  1e-11 * scale)
          << k;
  }
}

TEST(JointModel, JacobianIsThatOfDifferences) {
  ThreadPool pool(2);
  for (const StepCase& c : joint_cases()) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    JointModel model(problem, {}, pool);
    std::vector<double> x = problem.initial_parameters;
    const Linearization l = model.linearize(x);
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const Eigen::VectorXd source = normal_vector(model.pixels().size(), seed),
                            rest = normal_vector(model.rest().size(), seed + 10);
      constexpr double h = 1e-6;
      const Eigen::VectorXd up = model.linearize(moved(model, x, source, rest, h)).residual,
                            down = model.linearize(moved(model, x, source, rest, -h)).residual;
      Eigen::VectorXd expected = (up - down) / (2 * h), found = l.rest * rest;
      if (l.whitened_source.size() > 0)
        found += l.whitened_source * source;
      else if (!model.pixels().empty())
        found += times(l.source, source);
      // A ray that crosses the border of a source pixel between the two ends has another slope.
      EXPECT_LT((found - expected).norm(), 1e-5 * expected.norm());
    }
  }
}

TEST(JointModel, PenaltiesOfALinearReadoutAreQuadraticForms) {
  ThreadPool pool(2);
  const Problem problem = make_problem(joint_cases().back());
  JointModel model(problem, {}, pool);
  const std::vector<double>& x = problem.initial_parameters;
  const Linearization l = model.linearize(x);
  const Eigen::VectorXd none = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(model.pixels().size()));
  const Eigen::VectorXd step = normal_vector(model.rest().size(), 4);
  const JointValue there = model.value(moved(model, x, none, step, 1));
  for (std::size_t k = 0; k < kNetworkTerms.size(); ++k) {
    const double expected = l.value.network[k] + 2 * l.gradient[k].dot(step) + step.dot(l.network[k] * step);
    EXPECT_NEAR(there.network[k], expected, 1e-10 * expected) << k;
  }
}

/// Where the lens moves, the network is held off what the lens can do. Value, gradient and Hessian of that are those of
/// a quadratic form; a weight vector that does what θ_E does costs much, and one that does nothing of the kind nothing.
TEST(JointModel, HoldsTheNetworkOffWhatTheLensCanDo) {
  ThreadPool pool(2);
  StepCase c = joint_cases().back();
  c.free_lens = true;
  Problem problem = make_problem(c);
  problem.network_off_lens = true;
  JointModel model(problem, {}, pool);
  const std::vector<double>& x = problem.initial_parameters;
  const double before = model.value(x).priors;
  model.hold_lens_directions(x);
  EXPECT_NEAR(model.value(x).priors, before, 1e-9) << "it starts where it is";

  const Eigen::VectorXd none = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(model.pixels().size()));
  const auto n = static_cast<Eigen::Index>(model.n_weights());
  Eigen::VectorXd step = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(model.rest().size()));
  step.head(n) = 1e-3 * normal_vector(model.n_weights(), 4);
  const std::vector<double> there = moved(model, x, none, step, 1);
  const Linearization l = model.linearize(there);
  const double cost = model.value(there).priors - before;
  EXPECT_GT(cost, 1);
  EXPECT_NEAR(step.dot(l.priors * step), cost, 1e-8 * cost);
  EXPECT_NEAR(step.dot(l.fixed_gradient), cost, 1e-8 * cost);
  const double further = model.value(moved(model, x, none, step, 1.5)).priors - before;
  EXPECT_NEAR(further, 2.25 * cost, 1e-8 * cost);

  // The form has as many directions as the lens has free parameters: any other change of the network is free.
  const Eigen::MatrixXd form = l.priors.topLeftCorner(n, n);
  const Eigen::VectorXd eigenvalues = Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(form).eigenvalues();
  Eigen::Index held = 0;
  for (const double value : eigenvalues) held += value > 1e-9 * eigenvalues.maxCoeff();
  Eigen::Index free_lens = 0;
  for (const FreeParameter<double>& f : model.layout().free)
    free_lens += f.slot < static_cast<int>(problem.model.lens.size()) * kMaxProfileParameters;
  EXPECT_GT(free_lens, 0);
  EXPECT_LE(held, free_lens);
  EXPECT_GT(held, 0);
}

TEST(JointModel, RefusesWhatItDoesNotCoverByName) {
  ThreadPool pool(1);
  const auto message = [&](const Problem& problem, const std::vector<std::uint8_t>& moves) {
    try {
      JointModel(problem, moves, pool);
    } catch (const InvalidInput& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  StepCase c;
  c.free_light = true;
  EXPECT_EQ(message(make_problem(c), {}), "gauss_newton: the loss is \"mse\", expected \"chi2\"");
  c.loss = LossKind::chi2;
  EXPECT_EQ(message(make_problem(c), {}), "");
  const std::vector<std::uint8_t> none(make_problem(c).initial_parameters.size(), 0);
  EXPECT_EQ(message(make_problem(c), none), "gauss_newton: no parameter moves, expected at least one");
  c.light_hidden = {3};
  EXPECT_EQ(message(make_problem(c), {}),
            "gauss_newton: a light with profile NETWORK, expected PIXELATED or a profile of a formula");
}

Eigen::MatrixXd banded(Eigen::Index n, Eigen::Index band) {
  Eigen::MatrixXd m = Eigen::MatrixXd::Zero(n, n);
  for (Eigen::Index i = 0; i < n; ++i)
    for (Eigen::Index j = std::max<Eigen::Index>(0, i - band); j <= i; ++j)
      m(i, j) = m(j, i) = i == j ? 4.0 * static_cast<double>(band) : std::cos(static_cast<double>(i * 7 + j));
  return m;
}

TEST(BlockCholesky, SolvesAndHasTheDeterminantOfTheMatrix) {
  ThreadPool one(1), three(3);
  for (const auto& [n, band] :
       {std::pair<Eigen::Index, Eigen::Index>{1, 1}, {7, 3}, {96, 95}, {97, 10}, {400, 130}, {500, 499}}) {
    const Eigen::MatrixXd m = banded(n, band);
    const BlockCholesky a(m, one), b(m, three);
    ASSERT_TRUE(a.good());
    const Eigen::LLT<Eigen::MatrixXd> known(m);
    const double determinant = 2 * known.matrixLLT().diagonal().array().log().sum();
    EXPECT_NEAR(a.log_determinant(), determinant, 1e-12 * std::abs(determinant));
    EXPECT_EQ(a.log_determinant(), b.log_determinant());
    Eigen::MatrixXd x = Eigen::MatrixXd::Random(n, 21), y = x;
    const Eigen::MatrixXd right = x;
    a.solve(x, one);
    b.solve(y, three);
    EXPECT_LT((m * x - right).norm(), 1e-11 * right.norm());
    EXPECT_TRUE(x == y);  // the same bits for any number of threads
  }
  Eigen::MatrixXd indefinite = banded(200, 20);
  indefinite(150, 150) = -1;
  EXPECT_FALSE(BlockCholesky(indefinite, three).good());
  EXPECT_TRUE(BlockCholesky(Eigen::MatrixXd(0, 0), one).good());
  EXPECT_EQ(BlockCholesky(Eigen::MatrixXd(0, 0), one).log_determinant(), 0);
}

/// A linear model: source pixels and a background with a Gaussian prior.
Problem linear_problem() {
  StepCase c;
  c.hidden = {};
  c.pixel_source = true;
  c.background = c.free_light = c.masked = true;
  c.nx = 15;
  c.ny = 13;
  c.loss = LossKind::chi2;
  c.regularization = {.source_gradient = 0.05, .source_curvature = 0.3};
  Problem problem = make_problem(c);
  problem.model.lens_light[0].priors = {{-kInfinity, kInfinity, 0.7, 1.3}};
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters({});
  return problem;
}

/// ln N(d; mean, 1 + J P⁻¹ Jᵀ) of the weighted data: the integral over all parameters, done in the space of the data.
double integral(JointModel& model, const Problem& problem) {
  std::vector<double> x = problem.initial_parameters;
  for (const std::size_t k : model.pixels()) x[k] = 0;
  const GaussianPrior<double> prior = model.layout().priors.at(0);
  x[model.rest().at(0)] = prior.mean;  // the background moves freely: u is its value
  const Linearization l = model.linearize(x);
  const Eigen::Index n = l.residual.size(), pixels = static_cast<Eigen::Index>(model.pixels().size());
  Eigen::MatrixXd a(n, pixels);
  for (Eigen::Index k = 0; k < pixels; ++k) a.col(k) = times(l.source, Eigen::VectorXd::Unit(pixels, k));
  const Eigen::MatrixXd precision = model.source_prior().precision(problem.regularization);
  Eigen::MatrixXd covariance = Eigen::MatrixXd::Identity(n, n) + a * precision.inverse() * a.transpose();
  covariance += l.rest * l.rest.transpose() * prior.sigma * prior.sigma;
  double noise = 0;
  for (std::size_t i = 0; i < problem.observation.mask.size(); ++i)
    if (problem.observation.mask[i]) noise += std::log(problem.observation.noise[i]);
  return -0.5 * l.residual.dot(covariance.ldlt().solve(l.residual)) - 0.5 * std::log(covariance.determinant()) -
         0.5 * static_cast<double>(n) * kLogTwoPi - noise;
}

TEST(Evidence, OfALinearModelIsTheGaussianIntegral) {
  ThreadPool pool(2);
  Problem problem = linear_problem();
  std::vector<double> variance(ParameterLayout(problem.model).free_pixels.size());
  for (std::size_t i = 0; i < variance.size(); ++i) variance[i] = Philox{3}.uniform(i);
  for (const std::vector<double>& v : {std::vector<double>(), variance}) {
    problem.source_variance = v;
    JointModel model(problem, {}, pool);
    const GaussNewtonResult fit = gauss_newton(model, problem.initial_parameters, problem.regularization,
                                               {.steps = 10, .tolerance = 1e-12}, pool, {}, {});
    ASSERT_TRUE(fit.evidence);
    EXPECT_NEAR(fit.evidence->log_evidence, integral(model, problem), 1e-7);
    EXPECT_EQ(fit.evidence->source_variance, v);
    EXPECT_GT(fit.evidence->determined_source, 0);
    EXPECT_LT(fit.evidence->determined_source, 30);
  }
  problem.source_variance.pop_back();
  EXPECT_THROW(JointModel(problem, {}, pool), InvalidInput);
}

/// Two grids, and a value for each of their pixels.
const std::vector<FreePixels> kGrids = {{40, 30, 0}, {7, 9, 1200}};
constexpr Eigen::Index kGridPixels = 1200 + 63;

TEST(SourcePrior, DividesTheDifferencesOfEveryPixelByItsVariance) {
  const Eigen::VectorXd s = normal_vector(static_cast<std::size_t>(kGridPixels), 4);
  std::vector<double> variance(static_cast<std::size_t>(kGridPixels));
  for (std::size_t i = 0; i < variance.size(); ++i) variance[i] = 0.1 + Philox{3}.uniform(i);
  const SourcePrior prior(kGrids, 50, variance);
  for (std::size_t k = 0; k < SourcePrior::kTerms.size(); ++k) {
    Regularization weights;
    weights.*SourcePrior::kTerms[k] = 1;
    double expected = 0;
    Eigen::Index i = 0;
    for (const FreePixels& grid : kGrids) {
      const double* const pixels = s.data() + i;
      for (int y = 0; y < grid.ny; ++y)
        for (int x = 0; x < grid.nx; ++x, ++i)
          expected += 50.0 / (grid.nx * grid.ny) * source_pixel_penalty(weights, pixels, grid.nx, grid.ny, x, y) /
                      variance[static_cast<std::size_t>(i)];
    }
    EXPECT_NEAR(s.dot(prior.matrix(k) * s), expected, 1e-11 * expected);
  }
}

TEST(SourcePrior, VarianceFollowsTheBrightness) {
  const SourcePrior prior(kGrids, 50, {});
  EXPECT_TRUE(prior.variance().empty());
  Eigen::VectorXd s = Eigen::VectorXd::Zero(kGridPixels);
  const auto at = [](int x, int y) { return static_cast<Eigen::Index>(y * 40 + x); };
  for (int y = 8; y < 13; ++y)
    for (int x = 28; x < 33; ++x) s[at(x, y)] = (x + y) % 2 ? 3 : -3;  // the sign has no part in it
  s[at(5, 20)] = 3;                                                    // one pixel is noise
  const std::vector<double> v = prior.variance_of(s, 5);
  ASSERT_EQ(v.size(), static_cast<std::size_t>(kGridPixels));
  const auto value = [&](int x, int y) { return v[static_cast<std::size_t>(at(x, y))]; };
  EXPECT_DOUBLE_EQ(value(30, 10), 1);
  EXPECT_GT(value(32, 12), 0.3);
  EXPECT_NEAR(value(0, 0), 1 / 26.0, 1e-6);
  EXPECT_GT(value(5, 20), value(0, 0));
  EXPECT_LT(value(5, 20), 0.15);
  for (std::size_t i = 1200; i < v.size(); ++i) EXPECT_EQ(v[i], 1.0) << "a dark component";
  const std::vector<double> brighter = prior.variance_of(1e20 * s, 5);
  for (std::size_t i = 0; i < v.size(); ++i) EXPECT_NEAR(brighter[i], v[i], 1e-12);
}

/// ln evidence of the best fit with these weights.
double log_evidence(const Problem& problem, const Regularization& weights, ThreadPool& pool) {
  JointModel model(problem, {}, pool);
  return gauss_newton(model, problem.initial_parameters, weights, {.steps = 30, .tolerance = 1e-10}, pool, {}, {})
      .evidence->log_evidence;
}

TEST(Evidence, IsHighestAtTheWeightsThatAreChosen) {
  ThreadPool pool(2);
  Problem problem = linear_problem();
  problem.regularization = {.source_curvature = 3};
  JointModel model(problem, {}, pool);
  const GaussNewtonResult fit = gauss_newton(model, problem.initial_parameters, problem.regularization,
                                             {.steps = 40, .tolerance = 1e-9, .choose_weights = true}, pool, {}, {});
  ASSERT_TRUE(fit.evidence);
  const double best = fit.evidence->log_evidence;
  // Within the error of the traces, which are estimated.
  for (const double factor : {0.1, 0.5, 2.0, 10.0}) {
    Regularization other = fit.weights;
    other.source_curvature *= factor;
    EXPECT_LT(log_evidence(problem, other, pool), best + (factor == 0.1 || factor == 10.0 ? -0.1 : 0.1)) << factor;
  }
}

/// The features of a linear readout, each `copies` times, and an image that such a potential makes.
Problem with_copies(int copies) {
  StepCase c;
  c.hidden = {};
  c.fourier_features = 4;
  c.nx = 17;
  c.ny = 15;
  c.loss = LossKind::chi2;
  c.regularization = {.smoothness = 0.3, .weight_decay = 1e-2};
  Problem problem = make_problem(c);
  std::vector<double> weights = problem.initial_parameters;
  for (std::size_t i = problem.model.network->fixed_size(); i < weights.size(); ++i) weights[i] *= 0.1;
  const auto backend = make_backend<double>("cpu", {1, {}});
  backend->load({problem});
  backend->upload(Field::parameters, 0, weights);
  backend->evaluate(false);
  problem.observation.image = backend->download(Field::model, 0);
  for (std::size_t i = 0; i < problem.observation.image.size(); ++i) {
    problem.observation.noise[i] = 0.1;
    problem.observation.image[i] += 0.1 * Philox{5}.normal(i);
  }
  problem.model.network->fourier_features = 4 * copies;
  const NetworkShape& shape = *problem.model.network;
  std::vector<double> many = initial_weights(shape, 1, true);
  for (std::size_t axis = 0; axis < 2; ++axis)
    for (std::size_t part = 0; part < 2; ++part)  // sines, cosines
      for (std::size_t f = 0; f < 4 * static_cast<std::size_t>(copies); ++f)
        many[axis * 8 * static_cast<std::size_t>(copies) + part * 4 * static_cast<std::size_t>(copies) + f] =
            weights[axis * 8 + part * 4 + f % 4];
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters(many);
  return problem;
}

TEST(Evidence, DoesNotCountRedundantWeights) {
  ThreadPool pool(2);
  const auto best = [&](int copies) {
    const Problem problem = with_copies(copies);
    JointModel model(problem, {}, pool);
    return gauss_newton(model, problem.initial_parameters, problem.regularization,
                        {.steps = 200, .tolerance = 1e-9, .choose_weights = true}, pool, {}, {})
        .evidence->log_evidence;
  };
  EXPECT_NEAR(best(2), best(1), 0.5);
}

TEST(NetworkJacobian, IsTheAdjointPointByPoint) {
  ThreadPool pool(3);
  for (const NetworkShape& shape :
       {NetworkShape{{5, 4, 6}, 0.7, 3}, NetworkShape{{7}, 1.2, 0}, NetworkShape{{}, 0.9, 4}}) {
    std::vector<double> parameters = initial_weights(shape, 5, false);
    for (std::size_t i = shape.fixed_size(); i < parameters.size(); ++i) parameters[i] += 0.2 * Philox{9}.normal(i);
    constexpr int n = 130;
    std::vector<double> theta(2 * n);
    for (std::size_t i = 0; i < theta.size(); ++i) theta[i] = 2 * Philox{2}.uniform(i) - 1;
    std::vector<std::size_t> weights;
    for (std::size_t i = shape.fixed_size(); i < shape.size(); ++i) weights.push_back(i);
    std::vector<double> alpha(2 * n * weights.size());
    network_jacobian(shape, parameters.data(), theta.data(), n, weights, alpha.data(), pool);

    CpuNetwork<double> network(shape, n, pool);
    std::vector<double> psi(n), deflection(2 * n), bar(2 * n, 0.0);
    network.forward(parameters.data(), theta.data(), n, psi.data(), deflection.data());
    for (const std::size_t i : {std::size_t(0), std::size_t(64), std::size_t(n + 129)}) {
      std::vector<double> gradient(shape.size(), 0.0);
      bar[i] = 1;
      network.adjoint(parameters.data(), theta.data(), n, nullptr, bar.data(), gradient.data());
      bar[i] = 0;
      for (std::size_t k = 0; k < weights.size(); ++k)
        EXPECT_NEAR(alpha[k * 2 * n + i], gradient[weights[k]], 1e-12) << weights[k];
    }
  }
}

}  // namespace
}  // namespace einfield
