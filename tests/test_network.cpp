// The CPU network against the naive reference and JAX; its adjoint against finite differences; threads, instruction
// sets, masked points, extreme and broken numbers; random numbers and initial weights.
#include <gtest/gtest.h>

#include <hwy/targets.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "host/cpu/network.hpp"
#include "host/cpu/network_tiles.hpp"
#include "tests/npy.hpp"
#include "tests/reference_network.hpp"

namespace einfield {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class Real>
constexpr double kEpsilon = static_cast<double>(std::numeric_limits<Real>::epsilon());

/// Sums of up to 1000 points × 300 terms through up to five layers, value and derivative: a few hundred units in the
/// last place of the largest component. A wrong or missing term is wrong by 1e-2 and more.
template <class Real>
constexpr double kAgreement = 256 * kEpsilon<Real>;

template <class Real>
std::vector<Real> as(const std::vector<double>& values) {
  return std::vector<Real>(values.begin(), values.end());
}

std::vector<double> normals(std::size_t n, std::uint64_t stream, double sigma = 1) {
  const Philox philox{2021};
  std::vector<double> values(n);
  // Single precision sees rounded numbers; double and the reference must see the same.
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(sigma * philox.normal(i, stream));
  return values;
}

/// A network with lively weights and biases, its points and cotangents.
struct Problem {
  NetworkShape shape;
  std::size_t n;
  std::vector<double> parameters, theta, psi_bar, alpha_bar;

  Problem(std::vector<int> hidden, int points, int features = 0) : n(static_cast<std::size_t>(points)) {
    shape = {std::move(hidden), 0.7, features};
    for (int l = 0; l < shape.layers(); ++l) {
      const auto in = static_cast<std::size_t>(shape.inputs(l)), out = static_cast<std::size_t>(shape.outputs(l));
      const std::vector<double> layer =
          normals((in + 1) * out, static_cast<std::uint64_t>(l) + 10, 1.2 / std::sqrt(static_cast<double>(in)));
      parameters.insert(parameters.end(), layer.begin(), layer.end());
    }
    theta = normals(2 * n, 1, 1.5);
    psi_bar = normals(n, 2);
    alpha_bar = normals(2 * n, 3);
  }
  ReferenceResult reference() const { return reference_network(shape, parameters, theta, psi_bar, alpha_bar); }
};

template <class Real>
struct Answer {
  std::vector<Real> psi, alpha, kappa, gradient;
};

template <class Real>
Answer<Real> evaluate(CpuNetwork<Real>& network, const Problem& p) {
  const int n = static_cast<int>(p.n);
  const std::vector<Real> parameters = as<Real>(p.parameters), theta = as<Real>(p.theta);
  const std::vector<Real> psi_bar = as<Real>(p.psi_bar), alpha_bar = as<Real>(p.alpha_bar);
  Answer<Real> answer{std::vector<Real>(p.n), std::vector<Real>(2 * p.n), std::vector<Real>(p.n),
                      std::vector<Real>(p.shape.size())};
  network.forward(parameters.data(), theta.data(), n, answer.psi.data(), answer.alpha.data());
  network.kappa(parameters.data(), theta.data(), n, answer.kappa.data());
  network.adjoint(parameters.data(), theta.data(), n, psi_bar.empty() ? nullptr : psi_bar.data(), alpha_bar.data(),
                  answer.gradient.data());
  return answer;
}
template <class Real>
Answer<Real> evaluate(const Problem& p, int threads = 2, std::size_t tape_limit = CpuNetwork<Real>::kTapeLimit) {
  ThreadPool pool(threads);
  CpuNetwork<Real> network(p.shape, static_cast<int>(p.n), pool, tape_limit);
  return evaluate(network, p);
}

template <class Real>
void expect_close(const std::vector<Real>& found, const std::vector<double>& expected, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << what << " " << i;
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(static_cast<double>(found[i]) - expected[i]));
  }
  EXPECT_LE(error, tolerance * largest) << what << ", largest " << largest;
}

/// Each tensor of the gradient on its own scale.
template <class Real>
void expect_gradient(const NetworkShape& shape, const std::vector<Real>& found, const std::vector<double>& expected,
                     double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  const auto compare = [&](std::size_t begin, std::size_t end, const std::string& what) {
    const auto b = static_cast<std::ptrdiff_t>(begin), e = static_cast<std::ptrdiff_t>(end);
    expect_close(std::vector<Real>(found.begin() + b, found.begin() + e),
                 std::vector<double>(expected.begin() + b, expected.begin() + e), tolerance, what);
  };
  for (int l = 0; l < shape.layers(); ++l) {
    compare(shape.kernel_offset(l), shape.bias_offset(l), "kernel " + std::to_string(l));
    compare(shape.bias_offset(l), shape.kernel_offset(l + 1), "bias " + std::to_string(l));
  }
}

template <class Real>
void expect_agreement(const Problem& p, const ReferenceResult& expected, const Answer<Real>& found) {
  expect_close(found.psi, expected.psi, kAgreement<Real>, "psi");
  expect_close(found.alpha, expected.alpha, kAgreement<Real>, "alpha");
  expect_close(found.kappa, expected.kappa, kAgreement<Real>, "kappa");
  expect_gradient(p.shape, found.gradient, expected.gradient, kAgreement<Real>);
}

std::string name(const Problem& p) {
  std::string text = p.shape.fourier_features > 0 ? std::to_string(p.shape.fourier_features) + " features, " : "";
  text += "widths";
  for (const int width : p.shape.hidden) text += " " + std::to_string(width);
  return text + ", points " + std::to_string(p.n);
}

// ---------------------------------------------------------------- agreement with the reference

TEST(Network, AgreesWithTheReference) {
  const std::vector<std::pair<std::vector<int>, int>> cases = {{{1}, 1},
                                                               {{7}, 31},
                                                               {{32}, 33},
                                                               {{33}, 1000},
                                                               {{200}, 33},
                                                               {{1, 1}, 33},
                                                               {{7, 33}, 31},
                                                               {{32, 32}, 1000},
                                                               {{33, 1, 32}, 31},
                                                               {{7, 7, 7}, 1000},
                                                               {{32, 32, 32}, 64},
                                                               {{200, 33, 7}, 31},
                                                               {{200, 200, 200}, 1},
                                                               {{200, 200, 200}, 129},
                                                               {{64, 48, 17, 5}, 33},
                                                               {{5, 4, 3, 2, 1}, 31},
                                                               {{33, 7, 32, 1, 33}, 65},
                                                               {{300, 290}, 17}};
  for (const auto& [hidden, points] : cases) {
    const Problem p(hidden, points);
    SCOPED_TRACE(name(p));
    const ReferenceResult expected = p.reference();
    expect_agreement(p, expected, evaluate<double>(p));
    expect_agreement(p, expected, evaluate<float>(p));
  }
}

/// Weights of every kind in front, sine and cosine in no order: the gradient of the encoding is exactly zero all the
/// same.
TEST(Network, FourierFeaturesAgreeWithTheReference) {
  const std::vector<std::tuple<std::vector<int>, int, int>> cases = {
      {{1}, 1, 1},        {{7}, 31, 3},           {{33}, 1000, 16},      {{32, 200}, 33, 64},
      {{33, 7}, 129, 21}, {{64, 64, 64}, 200, 8}, {{5, 4, 3, 2}, 31, 2}, {{20}, 17, 150},
      {{}, 1, 1},         {{}, 1000, 16},         {{}, 129, 75}};
  for (const auto& [hidden, points, features] : cases) {
    const Problem p(hidden, points, features);
    SCOPED_TRACE(name(p));
    const ReferenceResult expected = p.reference();
    const Answer<double> found = evaluate<double>(p);
    expect_agreement(p, expected, found);
    expect_agreement(p, expected, evaluate<float>(p));
    for (std::size_t i = 0; i < p.shape.fixed_size(); ++i) ASSERT_EQ(found.gradient[i], 0.0) << i;
  }
}

TEST(Network, EveryInstructionSetAgreesWithTheReference) {
  std::vector<std::string> names;
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    names.push_back(CpuNetwork<float>::instructions());
    for (const Problem& p : {Problem({33, 200, 7}, 45), Problem({40}, 45), Problem({300, 64}, 45),
                             Problem({33, 7}, 45, 21), Problem({40}, 45, 8), Problem({}, 45, 21)}) {
      SCOPED_TRACE(names.back() + " " + name(p));
      const ReferenceResult expected = p.reference();
      expect_agreement(p, expected, evaluate<double>(p));
      expect_agreement(p, expected, evaluate<float>(p));
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  EXPECT_EQ(std::count(names.begin(), names.end(), CpuNetwork<float>::instructions()), 1)
      << "the best set was not tried";
}

TEST(Network, SixteenLayers) {
  const Problem p(std::vector<int>(16, 9), 20);
  const ReferenceResult expected = p.reference();
  const Answer<double> found = evaluate<double>(p);
  // Sixteen layers amplify rounding by more than five do.
  expect_close(found.alpha, expected.alpha, 10 * kAgreement<double>, "alpha");
  expect_close(found.kappa, expected.kappa, 10 * kAgreement<double>, "kappa");
  expect_close(found.gradient, expected.gradient, 10 * kAgreement<double>, "gradient");
}

TEST(Network, WidestLayer) {
  const Problem p({kMaxWidth, 3}, 3);
  const ReferenceResult expected = p.reference();
  expect_agreement(p, expected, evaluate<double>(p));
  expect_agreement(p, expected, evaluate<float>(p));
}

TEST(Network, AbsentPotentialAndItsCotangentAreZero) {
  Problem p({20, 30}, 50);
  ThreadPool pool(1);
  CpuNetwork<double> network(p.shape, 50, pool);
  std::vector<double> alpha(100), absent(p.shape.size()), zero(p.shape.size());
  network.forward(p.parameters.data(), p.theta.data(), 50, nullptr, alpha.data());
  network.adjoint(p.parameters.data(), p.theta.data(), 50, nullptr, p.alpha_bar.data(), absent.data());
  p.psi_bar.assign(50, 0.0);
  network.adjoint(p.parameters.data(), p.theta.data(), 50, p.psi_bar.data(), p.alpha_bar.data(), zero.data());
  EXPECT_EQ(absent, zero);
  expect_close(alpha, p.reference().alpha, kAgreement<double>, "alpha");
  expect_gradient(p.shape, absent, p.reference().gradient, kAgreement<double>);
  EXPECT_EQ(absent.back(), 0.0) << "the last bias shifts ψ only";
}

// ---------------------------------------------------------------- derivatives

double objective(const Problem& p, const std::vector<double>& parameters) {
  ThreadPool pool(1);
  const int n = static_cast<int>(p.n);
  CpuNetwork<double> network(p.shape, n, pool);
  std::vector<double> psi(p.n), alpha(2 * p.n);
  network.forward(parameters.data(), p.theta.data(), n, psi.data(), alpha.data());
  return std::inner_product(psi.begin(), psi.end(), p.psi_bar.begin(), 0.0) +
         std::inner_product(alpha.begin(), alpha.end(), p.alpha_bar.begin(), 0.0);
}

TEST(Network, GradientIsThatOfFiniteDifferences) {
  for (const Problem& p : {Problem({3}, 5), Problem({4, 3}, 5), Problem({5, 4, 3}, 5), Problem({2, 3, 4, 3}, 5),
                           Problem({3, 2, 1, 2, 3}, 5), Problem({3}, 5, 2), Problem({5, 4}, 5, 3), Problem({}, 5, 4)}) {
    SCOPED_TRACE(name(p));
    const std::vector<double> gradient = evaluate<double>(p).gradient;
    std::vector<double> differences(p.shape.fixed_size(), 0.0);  // fixed weights have no gradient
    for (std::size_t i = differences.size(); i < p.parameters.size(); ++i) {
      const double step = std::cbrt(kEpsilon<double>);
      std::vector<double> above = p.parameters, below = p.parameters;
      above[i] += step;
      below[i] -= step;
      differences.push_back((objective(p, above) - objective(p, below)) / (above[i] - below[i]));
    }
    // Central differences: truncation and rounding of order ε^(2/3) = 4e-11 times third derivatives and sums.
    expect_close(gradient, differences, 1e-7, "gradient");
  }
}

/// f(p + hv) − f(p) − h g·v must fall as h².
TEST(Network, TaylorRemainderIsQuadratic) {
  for (const Problem& p : {Problem({33, 20, 33}, 40), Problem({20, 33}, 40, 17)}) {
    SCOPED_TRACE(name(p));
    const std::vector<double> gradient = evaluate<double>(p).gradient;
    std::vector<double> direction = normals(p.parameters.size(), 99, 0.1);
    std::fill_n(direction.begin(), p.shape.fixed_size(), 0.0);
    const double slope = std::inner_product(gradient.begin(), gradient.end(), direction.begin(), 0.0);
    const double start = objective(p, p.parameters);
    const auto remainder = [&](double h) {
      std::vector<double> moved = p.parameters;
      for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += h * direction[i];
      return std::abs(objective(p, moved) - start - h * slope);
    };
    const double order = std::log2(remainder(1e-3) / remainder(0.5e-3));
    EXPECT_NEAR(order, 2.0, 0.05);
  }
}

/// α and κ are the first and second derivatives of ψ.
void check_derivatives(const Problem& p) {
  const Answer<double> answer = evaluate<double>(p);
  const double step = std::cbrt(kEpsilon<double>);
  std::vector<double> slopes(2 * p.n), convergence(p.n);
  for (const std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
    Problem above = p, below = p;
    for (std::size_t i = 0; i < p.n; ++i) {
      above.theta[axis * p.n + i] += step;
      below.theta[axis * p.n + i] -= step;
    }
    const Answer<double> up = evaluate<double>(above), down = evaluate<double>(below);
    for (std::size_t i = 0; i < p.n; ++i) {
      const double width = above.theta[axis * p.n + i] - below.theta[axis * p.n + i];
      slopes[axis * p.n + i] = (up.psi[i] - down.psi[i]) / width;
      convergence[i] += 0.5 * (up.alpha[axis * p.n + i] - down.alpha[axis * p.n + i]) / width;
    }
  }
  expect_close(answer.alpha, slopes, 1e-8, "alpha");
  expect_close(answer.kappa, convergence, 1e-8, "kappa");
}
TEST(Network, DeflectionAndConvergenceAreDerivativesOfThePotential) {
  check_derivatives(Problem({20, 20}, 10));
  check_derivatives(Problem({20, 20}, 10, 16));
  check_derivatives(Problem({}, 10, 16));
}

/// ψ and α are linear in the output kernel and bias: there the adjoint is a transpose, exact up to rounding.
void check_transpose(const Problem& p) {
  const Answer<double> answer = evaluate<double>(p);
  const std::size_t begin = p.shape.kernel_offset(p.shape.layers() - 1);
  double inputs = 0, outputs = 0, scale = 0;
  for (std::size_t i = begin; i < p.parameters.size(); ++i) inputs += answer.gradient[i] * p.parameters[i];
  const auto add = [&](const std::vector<double>& value, const std::vector<double>& bar) {
    for (std::size_t i = 0; i < bar.size(); ++i) {
      outputs += value[i] * bar[i];
      scale += std::abs(value[i] * bar[i]);
    }
  };
  add(answer.psi, p.psi_bar);
  add(answer.alpha, p.alpha_bar);
  EXPECT_NEAR(inputs, outputs, 16 * kEpsilon<double> * scale);
}
TEST(Network, AdjointIsTheTransposeInTheOutputLayer) {
  check_transpose(Problem({30, 50}, 200));
  check_transpose(Problem({}, 200, 25));  // the only layer with weights to fit
}

template <class Real>
void check_twice(const std::vector<int>& hidden, int features) {
  const Problem p(hidden, 300, features);
  ThreadPool pool(2);
  CpuNetwork<Real> network(p.shape, 300, pool);
  const std::vector<Real> parameters = as<Real>(p.parameters), theta = as<Real>(p.theta);
  const std::vector<Real> psi_bar = as<Real>(p.psi_bar), alpha_bar = as<Real>(p.alpha_bar);
  std::vector<Real> alpha(600), once(p.shape.size()), twice(p.shape.size());
  network.forward(parameters.data(), theta.data(), 300, nullptr, alpha.data());
  network.adjoint(parameters.data(), theta.data(), 300, psi_bar.data(), alpha_bar.data(), once.data());
  for (int i = 0; i < 2; ++i)
    network.adjoint(parameters.data(), theta.data(), 300, psi_bar.data(), alpha_bar.data(), twice.data());
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]) << i;
}
TEST(Network, AdjointAdds) {
  for (const auto& [hidden, features] :
       std::vector<std::pair<std::vector<int>, int>>{{{33, 40}, 0}, {{33, 40}, 12}, {{}, 12}}) {
    check_twice<float>(hidden, features);
    check_twice<double>(hidden, features);
  }
}

// ---------------------------------------------------------------- order, memory, masks

template <class Real>
void check_bits(const Problem& p) {
  const Answer<Real> one = evaluate<Real>(p, 1);
  for (const int threads : {1, 2, 3, 5, 20}) {
    for (const std::size_t limit : {CpuNetwork<Real>::kTapeLimit, std::size_t{0}}) {
      SCOPED_TRACE(std::to_string(threads) + (limit ? " threads" : " threads, tape recomputed"));
      const Answer<Real> other = evaluate<Real>(p, threads, limit);
      EXPECT_EQ(one.psi, other.psi);
      EXPECT_EQ(one.alpha, other.alpha);
      EXPECT_EQ(one.kappa, other.kappa);
      EXPECT_EQ(one.gradient, other.gradient);
    }
  }
}
TEST(Network, SameBitsForAnyNumberOfThreadsAndWithoutATape) {
  for (const Problem& p : {Problem({33, 48}, 1000), Problem({33, 48}, 1000, 10), Problem({}, 1000, 10)}) {
    SCOPED_TRACE(name(p));
    check_bits<float>(p);
    check_bits<double>(p);
  }
}

/// Points without a cotangent leave no trace: the gradient has the bits of a fit to the others alone.
TEST(Network, SkipsPointsWithoutCotangentExactly) {
  Problem all({40, 33}, 500);
  std::vector<std::size_t> kept;
  for (std::size_t i = 0; i < all.n; ++i) {
    if (i % 4 == 1 || (i > 200 && i < 290)) {
      kept.push_back(i);
    } else {
      all.psi_bar[i] = 0;
      all.alpha_bar[i] = i % 2 ? 0.0 : -0.0;
      all.alpha_bar[all.n + i] = 0;
      if (i % 16 == 2) all.theta[i] = kNaN;  // not even looked at
    }
  }
  Problem some = all;
  some.n = kept.size();
  some.theta.clear();
  some.psi_bar.clear();
  some.alpha_bar.clear();
  for (const std::size_t i : kept) some.psi_bar.push_back(all.psi_bar[i]);
  for (const std::size_t offset : {std::size_t{0}, all.n})
    for (const std::size_t i : kept) {
      some.theta.push_back(all.theta[offset + i]);
      some.alpha_bar.push_back(all.alpha_bar[offset + i]);
    }
  EXPECT_EQ(evaluate<float>(all).gradient, evaluate<float>(some).gradient);
  EXPECT_EQ(evaluate<double>(all, 2, 0).gradient, evaluate<double>(some).gradient);
  expect_gradient(some.shape, evaluate<double>(all).gradient, some.reference().gradient, kAgreement<double>);

  all.psi_bar.assign(all.n, 0.0);
  all.alpha_bar.assign(2 * all.n, 0.0);
  EXPECT_EQ(evaluate<double>(all).gradient, std::vector<double>(all.shape.size(), 0.0));
}

TEST(Network, AbsentCotangentOfTheDeflectionIsZero) {
  Problem p({20, 30}, 50);
  p.psi_bar[7] = 0;  // skipped
  ThreadPool pool(2);
  CpuNetwork<double> network(p.shape, 50, pool);
  std::vector<double> alpha(100), absent(p.shape.size()), zero(p.shape.size());
  network.forward(p.parameters.data(), p.theta.data(), 50, nullptr, alpha.data());
  network.adjoint(p.parameters.data(), p.theta.data(), 50, p.psi_bar.data(), nullptr, absent.data());
  p.alpha_bar.assign(100, 0.0);
  network.adjoint(p.parameters.data(), p.theta.data(), 50, p.psi_bar.data(), p.alpha_bar.data(), zero.data());
  EXPECT_EQ(absent, zero);
  expect_gradient(p.shape, absent, p.reference().gradient, kAgreement<double>);
  network.adjoint(p.parameters.data(), p.theta.data(), 50, nullptr, nullptr, absent.data());
  EXPECT_EQ(absent, zero) << "no cotangent at all adds nothing";
}

/// A point counts when any one of its three cotangents does.
TEST(Network, OneCotangentIsEnough) {
  for (int kind = 0; kind < 3; ++kind) {
    Problem p({12, 9}, 40);
    for (std::size_t i = 0; i < p.n; ++i) {
      p.psi_bar[i] = kind == 0 && i % 3 == 0 ? -1.5 : 0.0;
      p.alpha_bar[i] = kind == 1 && i % 3 == 0 ? -1.5 : 0.0;
      p.alpha_bar[p.n + i] = kind == 2 && i % 3 == 0 ? -1.5 : 0.0;
    }
    const ReferenceResult expected = p.reference();
    const Answer<double> found = evaluate<double>(p);
    expect_gradient(p.shape, found.gradient, expected.gradient, kAgreement<double>);
  }
}

TEST(Network, MemoryIsWhatWasPlannedAndLessThanFourKilobytesPerPoint) {
  const NetworkShape paper{{200, 200, 200}}, encoded{{60, 50}, 1, 16};
  for (const NetworkShape& shape : {paper, encoded})
    for (const int threads : {1, 2, 20})
      for (const std::size_t limit : {CpuNetwork<float>::kTapeLimit, std::size_t{0}}) {
        ThreadPool pool(threads);
        const CpuNetwork<float> network(shape, 10000, pool, limit);
        EXPECT_EQ(network.bytes(), CpuNetwork<float>::planned_bytes(shape, 10000, threads, limit));
      }
  EXPECT_LE(CpuNetwork<float>::planned_bytes(paper, 10000, 2), std::size_t{4096} * 10000);
  EXPECT_LE(CpuNetwork<float>::planned_bytes(paper, 1 << 24, 2), std::size_t{1} << 28)
      << "the tape of a huge image is kept";
}

TEST(Network, FewerPointsThanRoom) {
  Problem p({12, 9}, 37);
  ThreadPool pool(2);
  CpuNetwork<double> network(p.shape, 1000, pool);
  std::vector<double> alpha(2000), gradient(p.shape.size());
  network.forward(p.parameters.data(), normals(2000, 1).data(), 1000, nullptr, alpha.data());
  network.forward(p.parameters.data(), p.theta.data(), 37, nullptr, alpha.data());
  network.adjoint(p.parameters.data(), p.theta.data(), 37, p.psi_bar.data(), p.alpha_bar.data(), gradient.data());
  expect_gradient(p.shape, gradient, p.reference().gradient, kAgreement<double>);
  network.forward(p.parameters.data(), p.theta.data(), 0, nullptr, alpha.data());
  network.kappa(p.parameters.data(), p.theta.data(), 0, nullptr);
}

/// Features are kept from one step to the next while they and the positions stay the same, and not longer.
template <class Real>
void check_kept_features(std::size_t tape_limit) {
  const Problem p({24, 20}, 200, 9);
  Problem trained = p, moved = p, other = p, fewer = p;
  for (std::size_t i = p.shape.fixed_size(); i < p.parameters.size(); ++i) trained.parameters[i] *= 0.75;
  moved.theta[399] += 0.5;
  other.parameters[3] += 0.5;
  fewer.n = 150;
  fewer.theta.resize(300);
  fewer.psi_bar.resize(150);
  fewer.alpha_bar.resize(300);
  ThreadPool pool(2);
  CpuNetwork<Real> network(p.shape, 200, pool, tape_limit);
  const Problem* const order[] = {&p, &trained, &moved, &moved, &p, &other, &fewer, &p};
  for (const Problem* const each : order) {
    const Answer<Real> found = evaluate(network, *each), expected = evaluate<Real>(*each);
    EXPECT_EQ(found.psi, expected.psi);
    EXPECT_EQ(found.alpha, expected.alpha);
    EXPECT_EQ(found.gradient, expected.gradient);
  }
}
TEST(Network, FeaturesAreThoseOfTheseWeightsAndPositions) {
  for (const std::size_t limit : {CpuNetwork<double>::kTapeLimit, std::size_t{0}}) {
    check_kept_features<float>(limit);
    check_kept_features<double>(limit);
  }
}

TEST(Network, RefusesWhatDoesNotFit) {
  const Problem p({4}, 10);
  ThreadPool pool(1);
  CpuNetwork<double> network(p.shape, 5, pool);
  std::vector<double> alpha(20), gradient(p.shape.size());
  EXPECT_THROW(network.forward(p.parameters.data(), p.theta.data(), 10, nullptr, alpha.data()), InvalidInput);
  network.forward(p.parameters.data(), p.theta.data(), 4, nullptr, alpha.data());
  EXPECT_THROW(network.adjoint(p.parameters.data(), p.theta.data(), 5, nullptr, p.alpha_bar.data(), gradient.data()),
               InvalidInput);
  EXPECT_THROW(CpuNetwork<double>(p.shape, -1, pool), InvalidInput);
  NetworkShape bad;
  EXPECT_THROW(CpuNetwork<double>(bad, 1, pool), InvalidInput);
}

// ---------------------------------------------------------------- special numbers

TEST(Network, ZeroNetworkIsZero) {
  Problem p({16, 20, 16}, 40);
  std::fill(p.parameters.begin(), p.parameters.end(), 0.0);
  const Answer<double> answer = evaluate<double>(p);
  EXPECT_EQ(answer.psi, std::vector<double>(p.n, 0.0));
  EXPECT_EQ(answer.alpha, std::vector<double>(2 * p.n, 0.0));
  EXPECT_EQ(answer.kappa, std::vector<double>(p.n, 0.0));
  // Only the last bias feels ψ̄ when every activation is zero.
  for (std::size_t i = 0; i + 1 < answer.gradient.size(); ++i) EXPECT_EQ(answer.gradient[i], 0.0) << i;
  const double sum = std::accumulate(p.psi_bar.begin(), p.psi_bar.end(), 0.0);
  EXPECT_NEAR(answer.gradient.back(), sum, 1e-13);
}

TEST(Network, ZeroLastLayerStartsAtNothingButLearns) {
  Problem p({16, 20}, 40);
  p.parameters = initial_weights(p.shape, 5, true);
  const Answer<double> answer = evaluate<double>(p);
  EXPECT_EQ(answer.alpha, std::vector<double>(2 * p.n, 0.0));
  const std::size_t last = p.shape.kernel_offset(2);
  for (std::size_t i = 0; i < last; ++i) EXPECT_EQ(answer.gradient[i], 0.0) << i;
  expect_gradient(p.shape, answer.gradient, p.reference().gradient, kAgreement<double>);
  EXPECT_GT(std::abs(answer.gradient[last]), 0.0);
}

TEST(Network, ExtremeActivationsStayFinite) {
  Problem p({20, 20, 20}, 60);
  for (double& x : p.theta) x *= 1e4;
  const ReferenceResult expected = p.reference();
  const Answer<double> answer = evaluate<double>(p);
  // Pre-activations of 1e4 are rounded to 1e4 ε, and units near zero turn that into relative errors of 1e4 ε.
  expect_close(answer.psi, expected.psi, 1e4 * kEpsilon<double>, "psi");
  expect_close(answer.alpha, expected.alpha, 1e4 * kEpsilon<double>, "alpha");
  expect_close(answer.gradient, expected.gradient, 1e4 * kEpsilon<double>, "gradient");
  for (double& x : p.theta) x *= 1e4;
  const Answer<float> single = evaluate<float>(p);
  for (const auto* values : {&single.psi, &single.alpha, &single.kappa, &single.gradient})
    for (const float value : *values) ASSERT_TRUE(std::isfinite(value));
}

template <class Real>
void check_propagation(int features) {
  for (const double broken : {kNaN, kInfinity, -kInfinity}) {
    Problem p({20, 33}, 100, features);
    const Answer<Real> sound = evaluate<Real>(p);
    p.theta[17] = broken;
    const Answer<Real> answer = evaluate<Real>(p);
    for (std::size_t i = 0; i < p.n; ++i) {
      if (i == 17) {
        EXPECT_FALSE(std::isfinite(answer.psi[i]));
        EXPECT_FALSE(std::isfinite(answer.alpha[i]));
        EXPECT_FALSE(std::isfinite(answer.kappa[i]));
      } else {
        EXPECT_EQ(answer.psi[i], sound.psi[i]) << "a neighbour of the broken point";
        EXPECT_EQ(answer.alpha[i], sound.alpha[i]) << "a neighbour of the broken point";
      }
    }
    EXPECT_FALSE(std::isfinite(answer.gradient[p.shape.fixed_size()]));
  }
  for (const std::size_t index : {std::size_t{3}, std::size_t{100}}) {
    Problem p({20, 33}, 100, features);
    p.parameters[index] = kNaN;
    const Answer<Real> answer = evaluate<Real>(p);
    for (const Real value : answer.alpha) EXPECT_TRUE(std::isnan(value));
  }
  Problem p({20, 33}, 100, features);
  p.alpha_bar[42] = kNaN;
  EXPECT_TRUE(std::isnan(evaluate<Real>(p).gradient[p.shape.fixed_size()]))
      << "a cotangent that is not a number must not count as zero";
}
TEST(Network, NonFiniteNumbersPropagate) {
  for (const int features : {0, 6}) {
    check_propagation<float>(features);
    check_propagation<double>(features);
  }
}

// ---------------------------------------------------------------- activation

/// s, s′ and s″ against long double. Each is a sum that passes through zero, so errors are measured against the sum of
/// the magnitudes of its terms; below the smallest normal number exp() may lose digits or become zero.
template <class Real>
void check_swish(double limit, double units, const std::function<Swish<Real>(Real)>& activation) {
  const double tiny = static_cast<double>(std::numeric_limits<Real>::min());
  for (int i = -20000; i <= 20000; ++i) {
    const Real a = static_cast<Real>(limit * std::pow(std::abs(i) / 20000.0, 3) * (i < 0 ? -1 : 1));
    const long double x = a, sigma = 1 / (1 + std::exp(-x)), tau = 1 / (1 + std::exp(x)), value = x * sigma;
    const Swish<Real> s = activation(a);
    const auto check = [&](Real found, long double expected, long double scale, const char* what) {
      const double error = static_cast<double>(std::abs(static_cast<long double>(found) - expected));
      ASSERT_LE(error, units * kEpsilon<Real> * static_cast<double>(scale) + tiny * (2 + limit)) << what << " at " << a;
    };
    check(s.value, value, std::abs(value), "value");
    check(s.first, sigma + value * tau, sigma + std::abs(value) * tau, "first");
    check(s.second, tau * (2 * sigma + value * (tau - sigma)), tau * (2 * sigma + std::abs(value)), "second");
  }
}

/// Value and derivatives from a function of TileKernels.
template <class Real>
std::vector<Swish<Real>> tile_values(const std::vector<Real>& a, decltype(TileKernels<Real>::swish) activation) {
  const std::size_t n = kCacheLine / sizeof(Real);
  std::vector<Swish<Real>> result;
  for (std::size_t begin = 0; begin < a.size(); begin += n) {
    std::vector<Real> block(n), value(n), first(n), second(n);
    std::copy_n(a.begin() + static_cast<std::ptrdiff_t>(begin), std::min(n, a.size() - begin), block.begin());
    activation(block.data(), n, value.data(), first.data(), second.data());
    for (std::size_t i = 0; i < n && begin + i < a.size(); ++i) result.push_back({value[i], first[i], second[i]});
  }
  return result;
}
template <class Real>
std::vector<Swish<Real>> tile_swish(const std::vector<Real>& a) {
  return tile_values(a, tile_kernels<Real>().swish);
}

TEST(Swish, IsAccurateToTheOverflowOfTheExponential) {
  check_swish<double>(700, 4, [](double a) { return swish(a); });
  check_swish<float>(88, 4, [](float a) { return swish(a); });
}

TEST(Swish, TilesAreAccurateWithEveryInstructionSet) {
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    SCOPED_TRACE(tile_kernels<float>().instructions);
    check_swish<double>(720, 6, [](double a) { return tile_swish<double>({a}).front(); });
    check_swish<float>(100, 6, [](float a) { return tile_swish<float>({a}).front(); });
  }
  hwy::SetSupportedTargetsForTest(0);
}

template <class Real>
void check_swish_limits(const std::function<Swish<Real>(Real)>& activation) {
  for (const Real a : {Real(1e3), Real(1e4), Real(1e30)}) {
    EXPECT_EQ(activation(a).value, a);
    EXPECT_EQ(activation(a).first, Real(1));
    EXPECT_EQ(activation(a).second, Real(0));
    EXPECT_EQ(activation(-a).value, Real(0));
    EXPECT_EQ(activation(-a).first, Real(0));
    EXPECT_EQ(activation(-a).second, Real(0));
  }
  EXPECT_EQ(activation(0).value, Real(0));
  EXPECT_EQ(activation(0).first, Real(0.5));
  EXPECT_EQ(activation(0).second, Real(0.5));
  const auto infinity = std::numeric_limits<Real>::infinity(), nan = std::numeric_limits<Real>::quiet_NaN();
  EXPECT_EQ(activation(infinity).value, infinity);
  EXPECT_TRUE(std::isnan(activation(-infinity).value));
  const Swish<Real> none = activation(nan);
  EXPECT_TRUE(std::isnan(none.value) && std::isnan(none.first) && std::isnan(none.second));
}
TEST(Swish, HasItsLimits) {
  check_swish_limits<double>([](double a) { return swish(a); });
  check_swish_limits<float>([](float a) { return swish(a); });
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    SCOPED_TRACE(tile_kernels<float>().instructions);
    check_swish_limits<double>([](double a) { return tile_swish<double>({a}).front(); });
    check_swish_limits<float>([](float a) { return tile_swish<float>({a}).front(); });
  }
  hwy::SetSupportedTargetsForTest(0);
}

/// Against long double up to the largest phase, and around multiples of π/2, where one of the two passes through zero.
template <class Real>
void check_sine(double units, const std::function<Swish<Real>(Real)>& activation) {
  const auto check = [&](Real a) {
    const long double x = a;
    const Swish<Real> s = activation(a);
    ASSERT_NEAR(s.value, static_cast<double>(std::sin(x)), units * kEpsilon<Real>) << a;
    ASSERT_NEAR(s.first, static_cast<double>(std::cos(x)), units * kEpsilon<Real>) << a;
    ASSERT_EQ(s.second, -s.value) << a;
  };
  for (int i = -20000; i <= 20000; ++i) {
    check(static_cast<Real>(kMaxPhase * std::pow(std::abs(i) / 20000.0, 3) * (i < 0 ? -1 : 1)));
    Real zero = static_cast<Real>(i * 1.5707963267948966);
    if (std::abs(zero) > kMaxPhase) continue;
    for (const Real a : {zero, std::nextafter(zero, Real(0)), zero + Real(1e-3), zero - Real(0.785)}) check(a);
  }
}

template <class Real>
void check_sine_limits(const std::function<Swish<Real>(Real)>& activation) {
  EXPECT_EQ(activation(0).value, Real(0));
  EXPECT_NEAR(activation(0).first, 1, 3 * kEpsilon<Real>);
  const auto largest = static_cast<Real>(kMaxPhase), infinity = std::numeric_limits<Real>::infinity();
  EXPECT_TRUE(std::isfinite(activation(largest).value) && std::isfinite(activation(-largest).first));
  for (const Real a : {std::nextafter(largest, infinity), Real(1e30), infinity, std::numeric_limits<Real>::quiet_NaN()})
    for (const Swish<Real>& s : {activation(a), activation(-a)})
      EXPECT_TRUE(std::isnan(s.value) && std::isnan(s.first) && std::isnan(s.second)) << a;
}

TEST(Sine, IsAccurateToTheLargestPhase) {
  const auto scalar = [](auto a) { return Swish<decltype(a)>{sine(a), cosine(a), -sine(a)}; };
  check_sine<double>(1.5, scalar);
  check_sine<float>(1.5, scalar);
  check_sine_limits<double>(scalar);
  check_sine_limits<float>(scalar);
}

TEST(Sine, TilesAreAccurateWithEveryInstructionSet) {
  const auto tile = [](auto a) {
    return tile_values(std::vector<decltype(a)>{a}, tile_kernels<decltype(a)>().sine).front();
  };
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    SCOPED_TRACE(tile_kernels<float>().instructions);
    check_sine<double>(3, tile);
    check_sine<float>(3, tile);
    check_sine_limits<double>(tile);
    check_sine_limits<float>(tile);
  }
  hwy::SetSupportedTargetsForTest(0);
}

// ---------------------------------------------------------------- JAX

template <class Real>
void compare_with_jax(const std::vector<int>& widths, double scale,
                      const std::function<std::vector<double>(const std::string&)>& array) {
  Problem p(std::vector<int>(widths.begin() + 1, widths.end() - 1), 0);
  p.shape.input_scale = scale;
  p.parameters.clear();
  for (int l = 0; l < p.shape.layers(); ++l)
    for (const char* part : {"kernel", "bias"}) {
      const std::vector<double> values = array(part + std::to_string(l));
      p.parameters.insert(p.parameters.end(), values.begin(), values.end());
    }
  ASSERT_EQ(p.parameters.size(), p.shape.size());
  const auto columns = [](const std::vector<double>& pairs) {
    std::vector<double> result;
    for (const std::size_t axis : {std::size_t{0}, std::size_t{1}})
      for (std::size_t i = axis; i < pairs.size(); i += 2) result.push_back(pairs[i]);
    return result;
  };
  p.theta = columns(array("xi"));
  p.n = p.theta.size() / 2;
  ASSERT_GT(p.n, 0u);
  p.psi_bar.assign(p.n, 0.0);
  p.alpha_bar.assign(2 * p.n, 0.0);
  const Answer<Real> answer = evaluate<Real>(p);
  const double tolerance = sizeof(Real) == 8 ? 1e-9 : 1e-5;  // the demand of the project
  expect_close(answer.psi, array("psi"), tolerance, "psi");
  expect_close(answer.alpha, columns(array("grad")), tolerance, "alpha");
  expect_close(answer.kappa, array("kappa"), tolerance, "kappa");
}

TEST(NetworkReference, SmallNetworkAgreesWithJax) {
  nlohmann::json golden;
  std::ifstream(std::string(EINFIELD_GOLDEN_DIR) + "/network_small.json") >> golden;
  const auto array = [&](const std::string& key) { return golden.at(key).get<std::vector<double>>(); };
  const std::vector<int> widths = golden.at("widths");
  compare_with_jax<double>(widths, golden.at("input_scale"), array);
  compare_with_jax<float>(widths, golden.at("input_scale"), array);
}

TEST(NetworkReference, NetworkOfThePaperAgreesWithJax) {
  const char* reference = std::getenv("EINFIELD_REFERENCE");
  if (!reference) GTEST_SKIP() << "EINFIELD_REFERENCE does not name the full reference data";
  const std::string folder = std::string(reference) + "/mlp_full/";
  nlohmann::json setup;
  std::ifstream(folder + "case.json") >> setup;
  const auto array = [&](const std::string& key) { return read_npy(folder + key + ".npy"); };
  const std::vector<int> widths = setup.at("case").at("widths");
  compare_with_jax<double>(widths, setup.at("case").at("inscale"), array);
  compare_with_jax<float>(widths, setup.at("case").at("inscale"), array);
}

// ---------------------------------------------------------------- shape, random numbers, initial weights

TEST(NetworkShape, LaysOutKernelsAndBiases) {
  NetworkShape shape;
  shape.hidden = {3, 5};
  EXPECT_EQ(shape.layers(), 3);
  EXPECT_EQ(shape.kernel_offset(0), 0u);
  EXPECT_EQ(shape.bias_offset(0), 6u);
  EXPECT_EQ(shape.kernel_offset(1), 9u);
  EXPECT_EQ(shape.bias_offset(1), 24u);
  EXPECT_EQ(shape.kernel_offset(2), 29u);
  EXPECT_EQ(shape.bias_offset(2), 34u);
  EXPECT_EQ(shape.size(), 35u);
}

TEST(NetworkShape, FourierFeaturesAreOneMoreLayer) {
  const NetworkShape shape{{3, 5}, 1, 4};
  EXPECT_EQ(shape.layers(), 4);
  EXPECT_EQ(shape.fixed_layers(), 1);
  EXPECT_EQ(shape.outputs(0), 8);
  EXPECT_EQ(shape.inputs(1), 8);
  EXPECT_EQ(shape.outputs(1), 3);
  EXPECT_EQ(shape.outputs(3), 1);
  EXPECT_EQ(shape.bias_offset(0), 16u);
  EXPECT_EQ(shape.kernel_offset(1), 24u);
  EXPECT_EQ(shape.fixed_size(), 24u);
  EXPECT_EQ(shape.size(), 24u + 27 + 20 + 6);
  EXPECT_NE(shape, (NetworkShape{{3, 5}, 1, 0}));
  EXPECT_EQ((NetworkShape{{3, 5}}).fixed_size(), 0u);

  const NetworkShape readout{{}, 1, 4};  // of the features themselves
  EXPECT_NO_THROW(readout.validate());
  EXPECT_EQ(readout.layers(), 2);
  EXPECT_EQ(readout.inputs(1), 8);
  EXPECT_EQ(readout.outputs(1), 1);
  EXPECT_EQ(readout.fixed_size(), 24u);
  EXPECT_EQ(readout.size(), 24u + 9);
}

TEST(NetworkShape, RefusesWhatIsOutOfRange) {
  NetworkShape shape;
  try {
    shape.validate();
    ADD_FAILURE() << "no layer at all";
  } catch (const InvalidInput& error) {
    EXPECT_STREQ(error.what(), "hidden has 0 layers, expected 1 to 16, or Fourier features");
  }
  shape.hidden.assign(kMaxHiddenLayers, kMaxWidth);
  EXPECT_NO_THROW(shape.validate());
  shape.hidden.push_back(1);
  EXPECT_THROW(shape.validate(), InvalidInput);
  for (const int width : {0, -1, kMaxWidth + 1}) {
    shape.hidden = {8, width};
    EXPECT_THROW(shape.validate(), InvalidInput) << width;
  }
  shape.hidden = {8};
  shape.fourier_features = kMaxWidth / 2;
  EXPECT_NO_THROW(shape.validate());
  for (const int features : {-1, kMaxWidth / 2 + 1}) {
    shape.fourier_features = features;
    EXPECT_THROW(shape.validate(), InvalidInput) << features;
  }
  shape.fourier_features = 1;
  shape.hidden.assign(kMaxHiddenLayers - 1, 8);
  EXPECT_NO_THROW(shape.validate());
  shape.hidden.push_back(8);
  EXPECT_THROW(shape.validate(), InvalidInput);
  shape.fourier_features = 0;
  shape.hidden = {8};
  for (const double scale : {0.0, -1.0, kNaN, kInfinity}) {
    shape.input_scale = scale;
    EXPECT_THROW(shape.validate(), InvalidInput) << scale;
  }
}

/// Known answers of Random123 1.14 (kat_vectors, philox4x32 10 rounds).
TEST(Philox, GivesTheKnownAnswers) {
  struct Known {
    std::uint64_t counter, stream, key;
    std::uint32_t word[4];
  };
  const std::uint64_t ones = ~std::uint64_t{0};
  const Known known[] = {{0, 0, 0, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
                         {ones, ones, ones, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
                         {0x85a308d3243f6a88u,
                          0x0370734413198a2eu,
                          0x299f31d0a4093822u,
                          {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}}};
  for (const Known& k : known) {
    const Philox::Block block = Philox{k.key}(k.counter, k.stream);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(block.word[i], k.word[i]);
  }
}

TEST(Philox, NormalNumbersInvertTheirDistribution) {
  const Philox philox{4};
  double mean = 0, variance = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const auto counter = static_cast<std::uint64_t>(i);
    const double u = philox.uniform(counter), z = philox.normal(counter);
    ASSERT_GT(u, 0.0);
    ASSERT_LT(u, 1.0);
    // Rounding of z by ε|z| changes the tail by ε z², and u itself is known to ε.
    const double back = 0.5 * std::erfc(-z / std::sqrt(2.0));
    ASSERT_NEAR(back, u, 4 * kEpsilon<double> * (u * (1 + z * z) + (z > 0 ? 1 : 0))) << z;
    mean += z / n;
    variance += z * z / n;
  }
  EXPECT_NEAR(mean, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(variance, 1, 4 * std::sqrt(2.0 / n));
}

TEST(InitialWeights, AreTruncatedNormalsOfTheRightWidth) {
  NetworkShape shape;
  shape.hidden = {300, 200, 100};
  const std::vector<double> weights = initial_weights(shape, 7, false);
  ASSERT_EQ(weights.size(), shape.size());
  for (int l = 0; l < shape.layers(); ++l) {
    const double fan_in = shape.inputs(l), limit = 2 * std::sqrt(1 / fan_in) / 0.87962566103423978;
    const std::size_t begin = shape.kernel_offset(l), end = shape.bias_offset(l);
    const auto n = static_cast<double>(end - begin);
    double mean = 0, variance = 0, largest = 0;
    for (std::size_t i = begin; i < end; ++i) {
      mean += weights[i] / n;
      variance += weights[i] * weights[i] / n;
      largest = std::max(largest, std::abs(weights[i]));
    }
    EXPECT_LE(largest, limit * (1 + 4 * kEpsilon<double>)) << l;
    if (n > 10000) {
      EXPECT_GT(largest, 0.99 * limit) << l;
    }
    // Standard errors; the fourth moment of the truncated normal is 2.37 times the squared variance.
    EXPECT_NEAR(mean, 0, 4 / std::sqrt(fan_in * n)) << l;
    EXPECT_NEAR(variance * fan_in, 1, 4 * std::sqrt(1.37 / n)) << l;
    for (std::size_t i = end; i < shape.kernel_offset(l + 1); ++i) EXPECT_EQ(weights[i], 0.0) << "bias";
  }
}

TEST(InitialWeights, FrequenciesAreNormalPerArcsec) {
  constexpr std::size_t features = 2000;
  const NetworkShape shape{{30}, 0.25, static_cast<int>(features)};
  const std::vector<double> weights = initial_weights(shape, 7, false, {0.5});
  double mean = 0, variance = 0, largest = 0;
  for (const std::size_t axis : {std::size_t{0}, std::size_t{1}})
    for (std::size_t f = 0; f < features; ++f) {
      const std::size_t at = 2 * features * axis + f;
      EXPECT_EQ(weights[at], weights[at + features]);
      const double frequency = weights[at];
      mean += frequency / (2 * features);
      variance += frequency * frequency / (2 * features);
      largest = std::max(largest, std::abs(frequency));
    }
  // Standard errors of σ = 1/(0.5 arcsec); not truncated.
  EXPECT_NEAR(mean, 0, 4 * 2 / std::sqrt(2.0 * features));
  EXPECT_NEAR(variance, 4, 4 * 4 * std::sqrt(2.0 / (2.0 * features)));
  EXPECT_GT(largest, 3 * 2);
  for (std::size_t f = 0; f < features; ++f) {
    EXPECT_EQ(weights[shape.bias_offset(0) + f], 0.0);
    EXPECT_EQ(weights[shape.bias_offset(0) + features + f], std::acos(0.0));
  }
  // The layer behind has 2F inputs.
  double width = 0;
  for (std::size_t i = shape.kernel_offset(1); i < shape.bias_offset(1); ++i) width += weights[i] * weights[i] / 30;
  EXPECT_NEAR(width, 1, 4 * std::sqrt(1.37 / (60.0 * features)));
  // A fourth of the scale, four times the frequencies, whatever the layer sees.
  const std::vector<double> wide = initial_weights({{30}, 1, shape.fourier_features}, 7, false, {2});
  for (std::size_t i = 0; i < shape.bias_offset(0); ++i) EXPECT_DOUBLE_EQ(weights[i], 4 * wide[i]);
  EXPECT_THROW(initial_weights(shape, 7, false, {0}), InvalidInput);
  EXPECT_THROW(initial_weights(shape, 7, false, {kNaN}), InvalidInput);
}

/// Every disk around 0 has its share of them, every half plane too, and none is near another: the distance of a regular
/// triangular lattice of this density, √(2/√3 · area/number), is the upper limit of the smallest distance.
TEST(InitialWeights, EvenFrequenciesFillADisk) {
  constexpr std::size_t features = 500;
  constexpr double kPi = 3.14159265358979323846;
  const NetworkShape shape{{}, 1, static_cast<int>(features)};
  const std::vector<double> weights = initial_weights(shape, 7, true, {0.5, Frequencies::even});
  std::vector<std::array<double, 2>> k;
  for (std::size_t f = 0; f < features; ++f) {
    EXPECT_EQ(weights[f], weights[features + f]);
    k.push_back({weights[f], weights[2 * features + f]});
  }
  double mean_square = 0, nearest = 1e300;
  std::size_t inner = 0;
  for (std::size_t f = 0; f < features; ++f) {
    const double square = k[f][0] * k[f][0] + k[f][1] * k[f][1];
    EXPECT_LT(square, 16);
    mean_square += square / features;
    inner += square < 4;
    for (std::size_t g = 0; g < f; ++g)
      for (const int sign : {1, -1})
        nearest = std::min(nearest, std::hypot(k[f][0] - sign * k[g][0], k[f][1] - sign * k[g][1]));
  }
  EXPECT_NEAR(mean_square, 8, 1e-9) << "that of normal frequencies";
  EXPECT_EQ(inner, features / 4);
  const double lattice = std::sqrt(2 / std::sqrt(3.0) * kPi * 16 / (2 * features));
  EXPECT_GT(nearest, 0.5 * lattice);
  EXPECT_NE(weights, initial_weights(shape, 8, true, {0.5, Frequencies::even})) << "another seed";
}

/// The numbers belong to seed and position: they may never change, or old configurations would no longer repeat.
TEST(InitialWeights, RepeatForever) {
  NetworkShape shape;
  shape.hidden = {4, 3};
  const std::vector<double> weights = initial_weights(shape, 42, false);
  EXPECT_EQ(weights, initial_weights(shape, 42, false));
  EXPECT_NE(weights, initial_weights(shape, 43, false));
  const double expected[] = {-0.060475355501031523, -0.035221233627201212, 1.1322426525840423};
  EXPECT_NEAR(weights[0], expected[0], 1e-14);
  EXPECT_NEAR(weights[13], expected[1], 1e-14);
  EXPECT_NEAR(weights[29], expected[2], 1e-14);
  EXPECT_NE(weights, initial_weights(shape, 42, false, {}, 1)) << "another stream";
  const std::vector<double> zero = initial_weights(shape, 42, true);
  for (std::size_t i = 0; i < zero.size(); ++i) EXPECT_EQ(zero[i], i < shape.kernel_offset(2) ? weights[i] : 0.0) << i;
  const std::vector<double> encoded = initial_weights({{4, 3}, 1, 2}, 42, false);
  EXPECT_NEAR(encoded[0], -0.71541393110472784, 1e-14);
  EXPECT_NEAR(encoded[5], 0.39169249156587865, 1e-14);
  EXPECT_NEAR(encoded[12], -0.50368601474978025, 1e-14);
}

}  // namespace
}  // namespace einfield
