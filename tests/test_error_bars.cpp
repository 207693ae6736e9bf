// Error bars: the derivatives that they propagate, Laplace against the analytic covariance, randomized members against
// the posterior that they are draws of, what is not determined, what is refused, what a run leaves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <Eigen/Cholesky>
#include <Eigen/LU>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "einfield/results.hpp"
#include "host/cpu/field_jacobian.hpp"
#include "host/fields/ensemble.hpp"
#include "host/files/safetensors.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/gram.hpp"
#include "host/fit/laplace.hpp"
#include "host/fit/member_objective.hpp"
#include "host/fit/randomized.hpp"
#include "host/results/error_bars.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

using nlohmann::json;

Eigen::MatrixXd normal_matrix(Eigen::Index rows, Eigen::Index columns, std::uint64_t seed) {
  Eigen::MatrixXd m(rows, columns);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = Philox{seed}.normal(static_cast<std::uint64_t>(i));
  return m;
}

TEST(FieldJacobian, IsThatOfDifferences) {
  ThreadPool pool(1);
  for (const NetworkShape& shape : {NetworkShape{{5, 4}, 1.3}, NetworkShape{{}, 0.8, 6}, NetworkShape{{4}, 0.7, 3}}) {
    std::vector<double> w = initial_weights(shape, 3, false);
    for (std::size_t i = shape.fixed_size(); i < w.size(); ++i) w[i] += 0.1 * Philox{9}.normal(i);
    const std::vector<double> theta = {0.4, -0.9};
    FieldJacobian jacobian(shape, w.data());
    const FieldJacobian::Gradients g = jacobian.at({theta[0], theta[1]});
    constexpr double h = 1e-5;
    for (std::size_t i = shape.fixed_size(); i < w.size(); ++i) {
      std::vector<double> up = w, down = w;
      up[i] += h;
      down[i] -= h;
      const LensFields a = network_fields<double>(shape, up, theta, pool),
                       b = network_fields<double>(shape, down, theta, pool);
      EXPECT_NEAR(g.psi[i], (a.potential[0] - b.potential[0]) / (2 * h), 1e-8);
      EXPECT_NEAR(g.alpha_x[i], (a.deflection[0] - b.deflection[0]) / (2 * h), 1e-8);
      EXPECT_NEAR(g.alpha_y[i], (a.deflection[1] - b.deflection[1]) / (2 * h), 1e-8);
      EXPECT_NEAR(g.kappa[i], (a.convergence[0] - b.convergence[0]) / (2 * h), 1e-8);
    }
  }
}

TEST(Gram, IsTheProduct) {
  for (const auto& [rows, columns] : {std::pair{3, 2}, std::pair{96, 96}, std::pair{3500, 101}}) {
    const Eigen::MatrixXd m = normal_matrix(rows, columns, 1);
    ThreadPool one(1), three(3);
    const Eigen::MatrixXd found = gram(m, three);
    EXPECT_LT((found - m.transpose() * m).norm(), 1e-12 * found.norm());
    EXPECT_TRUE(found == gram(m, one));
  }
}

TEST(Information, PropagatesAndFindsWhatIsNotDetermined) {
  ThreadPool pool(2);
  constexpr int n = 7;
  const Eigen::MatrixXd data = normal_matrix(20, n, 2) * Eigen::VectorXd::LinSpaced(n, 1e-3, 1e3).asDiagonal();
  const Eigen::MatrixXd matrix = data.transpose() * data, functions = normal_matrix(9, n, 3);
  const Eigen::VectorXd sigma = Information(matrix).deviations(functions, pool);
  const Eigen::MatrixXd expected = functions * matrix.inverse() * functions.transpose();
  for (int i = 0; i < 9; ++i) EXPECT_NEAR(sigma[i], std::sqrt(expected(i, i)), 1e-9 * sigma[i]);

  // One more parameter that does what the first one does: only their sum is determined.
  Eigen::MatrixXd twin(20, n + 1);
  twin << data, data.col(0);
  Eigen::MatrixXd both = Eigen::MatrixXd::Zero(3, n + 1);
  both(0, 0) = both(1, n) = both(2, 0) = both(2, n) = 1;
  const Information information(twin.transpose() * twin);
  EXPECT_EQ(information.free_directions().cols(), 1);
  const Eigen::VectorXd errors = information.deviations(both, pool);
  EXPECT_TRUE(std::isnan(errors[0]) && std::isnan(errors[1]));
  Eigen::MatrixXd first = Eigen::MatrixXd::Zero(1, n);
  first(0, 0) = 1;
  EXPECT_NEAR(errors[2], Information(matrix).deviations(first, pool)[0], 1e-5 * errors[2]);
}

/// A source of pixels and a linear readout: with the source's slope everywhere the same, the model would be linear.
StepCase linear_case() {
  StepCase c;
  c.name = "linear";
  c.hidden = {};
  c.fourier_features = 4;
  c.masked = true;
  c.loss = LossKind::chi2;
  c.regularization = {.smoothness = 0.3, .curvature = 0.2, .weight_decay = 1e-2};
  return c;
}

/// A potential that is all that moves. The source is a plane, so that the image is linear in the deflection, and the
/// PSF is absent: m = S₀ + ∇S·(θ − α_macro − α).
struct LinearLens {
  Problem problem = make_problem(linear_case());
  std::vector<double> x;

  LinearLens() {
    Model& model = problem.model;
    LightComponent plane;
    plane.kind = LightKind::pixelated;
    plane.grid = {41, 41, 1.0, 0, 0};
    for (int y = 0; y < 41; ++y)
      for (int x_ = 0; x_ < 41; ++x_) plane.pixels.push_back(50 + 3.0 * (x_ - 20) - 2.0 * (y - 20));
    model.source = {plane};
    model.lens_light.clear();
    const ParameterLayout layout(model);
    x.assign(problem.initial_parameters.begin(),
             problem.initial_parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network));
    problem.initial_parameters = x;
  }
};

/// H⁻¹ of the moving weights of a LinearLens in its own units, by dense algebra from JointModel's parts.
struct Analytic {
  Eigen::MatrixXd covariance;
  Eigen::VectorXd minimum;
  std::vector<std::size_t> weights;

  Analytic(const Problem& problem, const std::vector<double>& x, ThreadPool& pool) {
    JointModel model(problem, {}, pool);
    const Linearization l = model.linearize(x);
    Eigen::MatrixXd h = l.rest.transpose() * l.rest + l.priors;
    Eigen::VectorXd g = l.rest.transpose() * l.residual + l.fixed_gradient;
    for (std::size_t k = 0; k < kNetworkTerms.size(); ++k) {
      h += problem.regularization.*kNetworkTerms[k] * l.network[k];
      g += problem.regularization.*kNetworkTerms[k] * l.gradient[k];
    }
    covariance = h.inverse();
    weights = model.rest();
    Eigen::VectorXd at(static_cast<Eigen::Index>(weights.size()));
    for (std::size_t k = 0; k < weights.size(); ++k) at[static_cast<Eigen::Index>(k)] = x[weights[k]];
    minimum = at - covariance * g;
  }
};

TEST(Laplace, OfALinearModelIsTheAnalyticCovariance) {
  ThreadPool pool(2);
  const LinearLens lens;
  const Units units = units_of(lens.problem);
  const ParameterLayout layout(lens.problem.model);
  const Problem own = in_units(lens.problem, units);
  const Analytic analytic(own, parameters_in_units(lens.problem.model, layout, lens.x, units), pool);
  std::vector<double> ones(lens.problem.observation.mask.begin(), lens.problem.observation.mask.end());
  const FieldErrors errors = Laplace(lens.problem, lens.x, pool).fields(ones);

  // ψ of each basis function by itself: the readout is linear.
  const NetworkShape& shape = *own.model.network;
  const std::vector<double> theta = pixel_centers(own.observation.grid);
  const auto n = static_cast<Eigen::Index>(theta.size() / 2);
  Eigen::MatrixXd psi(n, analytic.covariance.rows()), alpha(2 * n, analytic.covariance.rows()),
      kappa(n, analytic.covariance.rows());
  const std::vector<double> network(own.initial_parameters.begin(), own.initial_parameters.end());
  for (Eigen::Index k = 0; k < psi.cols(); ++k) {
    std::vector<double> basis = network;
    std::fill(basis.begin() + static_cast<std::ptrdiff_t>(shape.fixed_size()), basis.end(), 0.0);
    basis[analytic.weights[static_cast<std::size_t>(k)]] = 1;
    LensFields f = network_fields<double>(shape, basis, theta, pool);
    const double mean = weighted_mean(f.potential, ones);
    for (double& v : f.potential) v -= mean;
    psi.col(k) = Eigen::Map<Eigen::VectorXd>(f.potential.data(), n);
    alpha.col(k) = Eigen::Map<Eigen::VectorXd>(f.deflection.data(), 2 * n);
    kappa.col(k) = Eigen::Map<Eigen::VectorXd>(f.convergence.data(), n);
  }
  const auto check = [&](const Eigen::MatrixXd& map, const std::vector<double>& found, double unit) {
    const Eigen::VectorXd expected = unit * (map * analytic.covariance).cwiseProduct(map).rowwise().sum().cwiseSqrt();
    for (Eigen::Index i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(found[static_cast<std::size_t>(i)], expected[i], 1e-7 * expected.maxCoeff());
  };
  check(psi, errors.sigma.potential, units.angle * units.angle);
  check(alpha, errors.sigma.deflection, units.angle);
  check(kappa, errors.sigma.convergence, 1);
}

TEST(Laplace, DoesNotDependOnTheUnitOfTheDataOrTheNumberOfThreads) {
  ThreadPool one(1), three(3);
  StepCase c = linear_case();
  c.pixel_source = c.free_lens = true;
  c.regularization.source_curvature = 0.1;
  const Problem problem = make_problem(c);
  const std::vector<double> weights(problem.observation.mask.begin(), problem.observation.mask.end());
  const Laplace first(problem, problem.initial_parameters, one), again(problem, problem.initial_parameters, three);
  EXPECT_TRUE(first.fields(weights).sigma.potential == again.fields(weights).sigma.potential);
  EXPECT_TRUE(first.scalars().sigma == again.scalars().sigma);

  const Units units{2.0, 8.0};
  const Problem other = in_units(problem, units);
  const Laplace scaled(other, other.initial_parameters, one);
  const std::vector<double> sizes = sizes_of_scalars(problem.model, ParameterLayout(problem.model), units);
  for (std::size_t i = 0; i < sizes.size(); ++i)
    EXPECT_NEAR(first.scalars().sigma[i], sizes[i] * scaled.scalars().sigma[i], 1e-8 * first.scalars().sigma[i]);
  const std::vector<double> psi = first.fields(weights).sigma.potential,
                            theirs = scaled.fields(weights).sigma.potential;
  for (std::size_t i = 0; i < psi.size(); ++i) EXPECT_NEAR(psi[i], 4 * theirs[i], 1e-8 * psi[i]);
}

TEST(Laplace, MarginalErrorsAreThoseOfTheInverseOfTheWholeHessian) {
  ThreadPool pool(2);
  StepCase c = linear_case();
  c.pixel_source = c.free_lens = true;
  c.regularization.source_curvature = 0.1;
  const Problem in_data = make_problem(c);
  const Units units = units_of(in_data);
  const Problem problem = in_units(in_data, units);  // weight decay is that of weights in the units of the fit
  const std::vector<double>& x = problem.initial_parameters;
  JointModel model(problem, {}, pool);
  const Linearization l = model.linearize(x);
  const auto pixels = static_cast<Eigen::Index>(model.pixels().size()), rest = l.rest.cols();
  Eigen::MatrixXd jacobian = Eigen::MatrixXd::Zero(model.n_data(), pixels + rest);
  for (Eigen::Index i = 0; i < model.n_data(); ++i)
    for (std::size_t k = l.source.first[static_cast<std::size_t>(i)];
         k < l.source.first[static_cast<std::size_t>(i) + 1]; ++k)
      jacobian(i, l.source.column[k]) = l.source.value[k];
  jacobian.rightCols(rest) = l.rest;
  Eigen::MatrixXd h = jacobian.transpose() * jacobian;
  h.topLeftCorner(pixels, pixels) += Eigen::MatrixXd(model.source_prior().precision(problem.regularization));
  h.bottomRightCorner(rest, rest) += l.priors;
  const auto n_weights = static_cast<Eigen::Index>(model.n_weights());
  for (std::size_t k = 0; k < kNetworkTerms.size(); ++k)
    h.block(pixels, pixels, n_weights, n_weights) += problem.regularization.*kNetworkTerms[k] * l.network[k];
  const Eigen::MatrixXd covariance = h.inverse();
  // From u to the physical parameter by differences.
  const ParameterLayout layout(problem.model);
  const Laplace laplace(in_data, in_data.initial_parameters, pool);
  const std::vector<double> sizes = sizes_of_scalars(in_data.model, layout, units);
  const double* const u = x.data() + layout.n_network;
  for (std::size_t i = 0; i < layout.n_free(); ++i) {
    Eigen::VectorXd tangent = Eigen::VectorXd::Zero(h.rows());
    for (std::size_t j = 0; j < layout.n_free(); ++j) {
      std::vector<double> up(u, u + layout.n_free()), down = up;
      constexpr double step = 1e-6;
      up[j] += step;
      down[j] -= step;
      tangent[pixels + n_weights + static_cast<Eigen::Index>(j)] =
          (layout.physical(up.data())[i] - layout.physical(down.data())[i]) / (2 * step);
    }
    const double expected = sizes[i] * std::sqrt(tangent.dot(covariance * tangent));
    EXPECT_NEAR(laplace.scalars().sigma[i], expected, 1e-6 * expected) << layout.names[i];
  }
  EXPECT_TRUE(laplace.scalars().degeneracies.empty());
}

/// A shear beside a network that can take its place at no cost.
TEST(Laplace, SaysWhatTheNetworkCanTakeThePlaceOf) {
  ThreadPool pool(1);
  StepCase c = linear_case();
  c.free_lens = true;
  Problem problem = make_problem(c);
  Model& model = problem.model;
  for (LensComponent& lens : model.lens) lens.free.assign(lens.values.size(), 0);
  LensComponent shear{LensKind::shear, {0.02, 0.01, 0, 0}, {1, 0, 0, 0}};
  model.lens.push_back(shear);
  model.lens.push_back(shear);  // and its twin
  for (LightComponent& light : model.source) light.free.assign(light.values.size(), 0);
  model.lens_light.clear();
  const ParameterLayout layout(model);
  ASSERT_EQ(layout.n_free(), 2u);
  problem.initial_parameters =
      layout.initial_parameters({problem.initial_parameters.begin(),
                                 problem.initial_parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network)});
  const Laplace laplace(problem, problem.initial_parameters, pool);
  for (const double sigma : laplace.scalars().sigma) EXPECT_TRUE(std::isnan(sigma));
  ASSERT_EQ(laplace.scalars().degeneracies.size(), 1u);
  const Degeneracy& degeneracy = laplace.scalars().degeneracies[0];
  EXPECT_FALSE(degeneracy.with_network);
  ASSERT_EQ(degeneracy.changes.size(), 2u);
  EXPECT_NEAR(degeneracy.changes[0].amount, -degeneracy.changes[1].amount, 1e-6);
}

/// What members are minima of, and what tests/posterior_chain.cpp samples.
TEST(MemberObjective, WithoutDrawsIsThatOfTheFit) {
  ThreadPool pool(1);
  StepCase c = linear_case();
  c.hidden = {6, 5};
  c.pixel_source = c.free_lens = true;
  c.regularization.source_curvature = 0.1;
  const Problem problem = make_problem(c);
  JointModel model(problem, {}, pool);
  const PixelPrior prior(model);
  MemberObjective objective(model, prior, std::nullopt);
  MemberObjective::Point at{problem.initial_parameters, 0, {}};
  objective.evaluate(at);
  const double expected = model.value(at.x).total(problem.regularization);
  EXPECT_NEAR(at.value, expected, 1e-10 * expected);
  // A displacement along random numbers: its slope by differences.
  const Eigen::VectorXd direction = normal_matrix(at.gradient.size(), 1, 8);
  constexpr double h = 1e-6;
  MemberObjective::Point up{objective.moved(at.x, h, direction), 0, {}},
      down{objective.moved(at.x, -h, direction), 0, {}};
  objective.evaluate(up);
  objective.evaluate(down);
  const double slope = 2 * at.gradient.dot(direction);
  EXPECT_NEAR((up.value - down.value) / (2 * h), slope, 1e-5 * std::abs(slope));
}

// ---- randomized members
// ------------------------------------------------------------------------------------------------

TEST(Randomized, MembersOfALinearProblemAreDrawsFromItsPosterior) {
  ThreadPool pool(2);
  const LinearLens lens;
  const Units units = units_of(lens.problem);
  const ParameterLayout layout(lens.problem.model);
  const Problem own = in_units(lens.problem, units);
  const std::vector<double> x = parameters_in_units(lens.problem.model, layout, lens.x, units);
  const Analytic analytic(own, x, pool);
  constexpr int kMembers = 400;
  const RandomizedFit fit = randomized_fit(own, x, {.members = kMembers, .seed = 3, .tolerance = 1e-10}, pool);
  const Eigen::LLT<Eigen::MatrixXd> root(analytic.covariance);
  const Eigen::Index n = analytic.minimum.size();
  const auto whitened = [&](const std::vector<double>& flat) {
    Eigen::VectorXd y(n);
    for (Eigen::Index k = 0; k < n; ++k) y[k] = flat[analytic.weights[static_cast<std::size_t>(k)]];
    return Eigen::VectorXd(root.matrixL().solve(y - analytic.minimum));
  };
  EXPECT_LT(whitened(fit.center.x).norm(), 1e-4);
  // Whitened members are n standard normal numbers each. Σ|y|² is χ² with n · kMembers degrees of freedom, and each
  // mean and mean product is normal: 6 sigma for n (n + 3) / 2 of them, a chance below 1e-7 that one is beyond.
  Eigen::VectorXd mean = Eigen::VectorXd::Zero(n);
  Eigen::MatrixXd products = Eigen::MatrixXd::Zero(n, n);
  for (const RandomizedMember& member : fit.members) {
    EXPECT_TRUE(member.converged);
    const Eigen::VectorXd y = whitened(member.x);
    mean += y / kMembers;
    products += y * y.transpose() / kMembers;
  }
  const double sigma = 1 / std::sqrt(double(kMembers));
  EXPECT_LT(mean.cwiseAbs().maxCoeff(), 6 * sigma);
  EXPECT_LT((products - Eigen::MatrixXd::Identity(n, n)).cwiseAbs().maxCoeff(), 6 * std::sqrt(2.0) * sigma);
  EXPECT_NEAR(products.trace() / static_cast<double>(n), 1, 5 * sigma * std::sqrt(2.0 / static_cast<double>(n)));
}

TEST(Randomized, PixelsAreDrawnFromTheirPriorWhereTheDataSayNothing) {
  ThreadPool pool(2);
  StepCase c = linear_case();
  c.hidden = {};
  c.fourier_features = 0;
  c.pixel_source = true;
  c.regularization = {.source_curvature = 0.1};
  Problem problem = make_problem(c);
  for (double& sigma : problem.observation.noise) sigma *= 1e6;
  JointModel model(problem, {}, pool);
  const Eigen::MatrixXd covariance = Eigen::MatrixXd(model.source_prior().precision(problem.regularization)).inverse();
  const Eigen::LLT<Eigen::MatrixXd> root(covariance);
  const std::vector<double> zero(problem.initial_parameters.size(), 0.0);
  constexpr int kMembers = 200;
  const RandomizedFit fit = randomized_fit(problem, zero, {.members = kMembers, .tolerance = 1e-12}, pool);
  // Σ|y|² over all members: χ² with kMembers · pixels degrees of freedom, within 5 sigma.
  double sum = 0;
  const auto n = static_cast<double>(covariance.rows());
  for (const RandomizedMember& member : fit.members) {
    Eigen::VectorXd s(covariance.rows());
    for (Eigen::Index k = 0; k < s.size(); ++k) s[k] = member.x[model.pixels()[static_cast<std::size_t>(k)]];
    sum += root.matrixL().solve(s).squaredNorm();
  }
  EXPECT_NEAR(sum / (n * kMembers), 1, 5 * std::sqrt(2 / (n * kMembers)));
}

/// Steps along weights that nothing determines must not end a member where it began.
TEST(Randomized, MembersOfHiddenLayersMoveAsFarAsTheCurvatureSays) {
  ThreadPool pool(2);
  StepCase c = linear_case();
  c.hidden = {6, 5};
  c.fourier_features = 0;
  c.regularization = {.smoothness = 0.3, .curvature = 0.2, .weight_decay = 1e-3};
  Problem problem = make_problem(c);
  // Data that the model explains, and the minimum.
  const auto backend = make_backend<double>("cpu", {1, {}});
  backend->load({problem});
  backend->evaluate(false);
  problem.observation.image = backend->download(Field::model, 0);
  JointModel model(problem, {}, pool);
  const std::vector<double> minimum =
      gauss_newton(model, problem.initial_parameters, problem.regularization, {.tolerance = 1e-6}, pool, {}, {}).x;
  constexpr int kMembers = 24;
  const RandomizedFit fit = randomized_fit(problem, minimum, {.members = kMembers}, pool);
  const NetworkShape& shape = *problem.model.network;
  const std::vector<double> theta = pixel_centers(problem.observation.grid);
  const auto alpha = [&](const std::vector<double>& x) {
    return network_fields<double>(shape, {x.begin(), x.begin() + static_cast<std::ptrdiff_t>(shape.size())}, theta,
                                  pool)
        .deflection;
  };
  std::vector<std::vector<double>> members;
  int converged = 0;
  for (const RandomizedMember& member : fit.members) {
    members.push_back(alpha(member.x));
    converged += member.converged;
  }
  EXPECT_GE(converged, kMembers / 2);
  const std::vector<double> found = deviation_of(members);
  const std::vector<double> ones(problem.observation.mask.begin(), problem.observation.mask.end());
  const std::vector<double> expected = Laplace(problem, fit.center.x, pool).fields(ones).sigma.deflection;
  std::vector<double> ratios;
  for (std::size_t i = 0; i < found.size(); ++i) ratios.push_back(found[i] / expected[i]);
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2), ratios.end());
  EXPECT_GT(ratios[ratios.size() / 2], 0.4);
  EXPECT_LT(ratios[ratios.size() / 2], 2.5);
}

TEST(Randomized, HasTheSameBitsForAnyNumberOfThreads) {
  StepCase c = linear_case();
  c.pixel_source = c.free_lens = true;
  c.regularization.source_curvature = 0.1;
  const Problem problem = make_problem(c);
  ThreadPool one(1), three(3);
  const RandomizedFit a = randomized_fit(problem, problem.initial_parameters, {.members = 5, .steps = 6}, one),
                      b = randomized_fit(problem, problem.initial_parameters, {.members = 5, .steps = 6}, three);
  for (int m = 0; m < 5; ++m)
    EXPECT_TRUE(a.members[static_cast<std::size_t>(m)].x == b.members[static_cast<std::size_t>(m)].x);
  EXPECT_FALSE(a.members[0].x == a.members[1].x);
  // Another seed draws other members.
  const RandomizedFit other =
      randomized_fit(problem, problem.initial_parameters, {.members = 1, .seed = 2, .steps = 6}, one);
  EXPECT_FALSE(other.members[0].x == a.members[0].x);
}

TEST(Randomized, RefusesParametersWithoutPrior) {
  ThreadPool pool(1);
  StepCase c = linear_case();
  c.regularization = {};
  const Problem problem = make_problem(c);
  EXPECT_THROW(
      randomized_fit(problem, std::vector<double>(problem.initial_parameters.size(), 0.0), {.members = 2}, pool),
      InvalidInput);
}

// ---- runs
// --------------------------------------------------------------------------------------------------------------

json result_of(const SmallLens& lens, const std::vector<Override>& more, bool double_precision = true,
               int threads = 1) {
  RunOptions options = run_options(lens.out());
  options.double_precision = double_precision;
  options.overwrite = true;
  options.threads = threads;
  run_fit(lens.config(more), options);
  std::ifstream in(lens.out() + "/result.json");
  return json::parse(in);
}

std::vector<Override> with(std::vector<Override> settings, const std::vector<Override>& more) {
  settings.insert(settings.end(), more.begin(), more.end());
  return settings;
}

TEST(ErrorBars, NothingIsSignificantInAFitThatMissesTheData) {
  Problem problem = make_problem(linear_case());
  const std::size_t n = problem.observation.mask.size();
  const std::vector<double> kappa(n, 0.5), sigma(n, 0.01);
  EXPECT_NE(in_words(significance(problem, 1.1, kappa, sigma), false).find("(50.0 σ)"), std::string::npos);
  // Nor is it where the evidence does not ask for a network.
  Significance weighed = significance(problem, 1.1, kappa, sigma);
  weighed.evidence_gain = 30;
  EXPECT_NE(in_words(weighed, false).find("(50.0 σ)"), std::string::npos);
  for (const auto& [gain, words] : {std::pair(3.0, "explains the data as well (ln evidence of the network +3.0"),
                                    {-2.0, "explains the data better (ln evidence of the network -2.0"}}) {
    weighed.evidence_gain = gain;
    EXPECT_NE(in_words(weighed, false).find(words), std::string::npos) << in_words(weighed, false);
    EXPECT_EQ(in_words(weighed, false).find("50.0"), std::string::npos);
  }
  EXPECT_EQ(
      in_words(significance(problem, 13.57, kappa, sigma), false),
      "The model does not fit the data (reduced chi2 13.6), so no value of the convergence is significant, whatever "
      "its error bar says.");
}

TEST(ErrorBars, ARunWritesMapsNumbersAndMembers) {
  const SmallLens lens;
  const std::vector<Override> lbfgs = {{"optimizer.name", "\"lbfgs\""},
                                       {"optimizer.steps", "60"},
                                       {"regularization.smoothness", "2.0"},
                                       {"regularization.curvature", "0.7"},
                                       {"regularization.negative_convergence", "20.0"}};
  const json laplace = result_of(lens, with(lbfgs, {{"uncertainty.method", "\"laplace\""}}));
  EXPECT_EQ(laplace["uncertainty"]["method"], "laplace");
  EXPECT_TRUE(laplace["uncertainty"]["significant"]["text"].is_string());
  EXPECT_EQ(laplace["uncertainty"]["resolution"]["fwhm"], 0.6);  // two pixels
  EXPECT_TRUE(laplace["uncertainty"]["coverage"].contains("kappa_psf_all"));
  for (const char* name :
       {"PSI_NN_STD", "ALPHA_NN_STD", "KAPPA_NN_STD", "KAPPA_NN_SNR", "KAPPA_NN_PSF", "KAPPA_NN_PSF_STD"})
    EXPECT_TRUE(has_result_map(lens.out(), name)) << name;
  const ResultMap kappa = read_result_map(lens.out(), "KAPPA_NN"), sigma = read_result_map(lens.out(), "KAPPA_NN_STD"),
                  ratio = read_result_map(lens.out(), "KAPPA_NN_SNR");
  for (std::size_t i = 0; i < ratio.values.size(); ++i) {
    ASSERT_GT(sigma.values[i], 0);
    EXPECT_NEAR(ratio.values[i], kappa.values[i] / sigma.values[i], 1e-12 * std::abs(ratio.values[i]));
  }
  // Marginalized over the network, an error is larger than with the network held fixed.
  const json fixed = result_of(lens, with(lbfgs, {{"uncertainty.method", "\"spread\""}}));
  EXPECT_FALSE(fixed.contains("uncertainty"));
  const double conditional = fixed["uncertainties"]["sigma"]["lens.0.theta_E"].get<double>();
  const json& marginal = laplace["uncertainties"]["sigma"]["lens.0.theta_E"];
  EXPECT_TRUE(marginal.is_null() || marginal.get<double>() > conditional);

  const json randomized =
      result_of(lens, with(lbfgs, {{"uncertainty.method", "\"randomized\""}, {"uncertainty.members", "4"}}));
  EXPECT_EQ(randomized["uncertainty"]["members"], 4);
  EXPECT_EQ(randomized["uncertainty"]["not_redrawn"], json::array({"smoothness", "curvature", "negative_convergence"}));
  // σ is the rms distance of the members in the file from the fit.
  SafetensorsFile file(lens.out() + "/members.safetensors");
  EXPECT_EQ(file.tensor("layers.0.kernel").shape, (std::vector<std::size_t>{4, 2, 7}));
  double squares = 0;
  for (const double value : file.read(file.tensor("lens.0.theta_E")))
    squares += std::pow(value - randomized["parameters"]["lens.0.theta_E"].get<double>(), 2) / 4;
  const json& scatter = randomized["uncertainties"]["sigma"]["lens.0.theta_E"];
  EXPECT_TRUE(scatter.is_null() || std::abs(scatter.get<double>() - std::sqrt(squares)) < 1e-9);
  EXPECT_EQ(randomized["metrics"], laplace["metrics"]);  // the reported fit is the same

  const json none = result_of(lens, with(lbfgs, {{"uncertainty.method", "\"none\""}}));
  EXPECT_FALSE(none.contains("uncertainty") || none.contains("uncertainties"));
  EXPECT_FALSE(std::filesystem::exists(lens.out() + "/members.safetensors"));
  EXPECT_FALSE(has_result_map(lens.out(), "PSI_NN_STD"));
}

TEST(ErrorBars, OfRefittedMembersHaveTheSameBitsForAnyNumberOfThreads) {
  const SmallLens lens;
  const std::vector<Override> settings = {{"uncertainty.method", "\"randomized\""}, {"uncertainty.members", "3"}};
  result_of(lens, settings, false, 1);
  const std::vector<double> one = read_result_map(lens.out(), "KAPPA_NN_STD").values;
  result_of(lens, settings, false, 2);
  EXPECT_TRUE(one == read_result_map(lens.out(), "KAPPA_NN_STD").values);
}

TEST(ErrorBars, MembersThatAreInterruptedAreRepeated) {
  const SmallLens lens;
  const std::vector<Override> settings = {{"uncertainty.method", "\"randomized\""}, {"uncertainty.members", "3"}};
  RunOptions options = run_options(lens.folder() / "whole");
  int asked = 0, all = 0;
  options.interrupted = [&all] { return ++all < 0; };
  run_fit(lens.config(settings), options);
  const std::vector<double> whole = read_result_map(options.out, "ALPHA_NN_STD").values;
  options.out = lens.folder() / "parts";
  options.interrupted = [&] { return ++asked == all - 2; };  // of the members
  ASSERT_EQ(run_fit(lens.config(settings), options).stop_reason, StopReason::interrupted);
  EXPECT_FALSE(std::filesystem::exists(options.out + "/result.json"));
  options.interrupted = nullptr;
  options.resume = true;
  run_fit(lens.config(settings), options);
  EXPECT_TRUE(whole == read_result_map(options.out, "ALPHA_NN_STD").values);
}

TEST(ErrorBars, RefusesByKey) {
  const SmallLens lens;
  const auto message = [&](const std::vector<Override>& more) {
    try {
      lens.config(more);
    } catch (const InvalidInput& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto refuses = [&](const std::vector<Override>& more, const std::string& words) {
    EXPECT_NE(message(more).find(words), std::string::npos) << message(more);
  };
  refuses({{"uncertainty.method", "\"laplac\""}}, "uncertainty.method: ");
  refuses({{"uncertainty.members", "8"}}, "uncertainty.members: ");
  refuses({{"uncertainty.method", "\"randomized\""}, {"uncertainty.members", "1"}}, "uncertainty.members: ");
  refuses({{"uncertainty.method", "\"laplace\""}, {"optimizer.loss", "\"mse\""}}, "uncertainty.method: \"laplace\"");
  refuses({{"uncertainty.method", "\"laplace\""}, {"network.hidden", "[200, 200, 200]"}}, "81201 weights");
  refuses({{"uncertainty.method", "\"laplace\""}, {"source.0.profile", "\"NETWORK\""}}, "source.0");
  // The default: a paper's recipe stays as it is, the default recipe gets error bars where they are possible.
  EXPECT_EQ(lens.config().uncertainty.method, UncertaintyKind::spread);
  EXPECT_EQ(lens.config({{"recipe", "\"default\""}}).uncertainty.method, UncertaintyKind::laplace);
  EXPECT_EQ(lens.config({{"recipe", "\"default\""}, {"optimizer.loss", "\"mse\""}}).uncertainty.method,
            UncertaintyKind::spread);
}

}  // namespace
}  // namespace einfield
