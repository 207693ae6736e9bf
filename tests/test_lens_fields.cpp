// Fields at points: the network against the naive reference, the smooth model against its profiles, batches and
// threads.
#include "host/fields/lens_fields.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/reference_network.hpp"

namespace einfield {
namespace {

const NetworkShape kShape{{9, 6}, 0.7};

/// Positions on a spiral, 2 × n.
std::vector<double> spiral(std::size_t n) {
  std::vector<double> theta(2 * n);
  for (std::size_t i = 0; i < n; ++i) {
    const double t = 0.37 * static_cast<double>(i), r = 3 * static_cast<double>(i) / static_cast<double>(n);
    theta[i] = r * std::cos(t);
    theta[n + i] = r * std::sin(t);
  }
  return theta;
}

TEST(LensFields, TheNetworkIsTheReference) {
  const std::vector<double> weights = initial_weights(kShape, 3, false);
  const std::vector<double> theta = spiral(101);
  ThreadPool pool(2);
  const LensFields fields = network_fields<double>(kShape, weights, theta, pool);
  const ReferenceResult reference = reference_network(kShape, weights, theta);
  for (std::size_t i = 0; i < 101; ++i) {
    EXPECT_NEAR(fields.potential[i], reference.psi[i], 1e-13);
    EXPECT_NEAR(fields.deflection[i], reference.alpha[i], 1e-13);
    EXPECT_NEAR(fields.deflection[101 + i], reference.alpha[101 + i], 1e-13);
    EXPECT_NEAR(fields.convergence[i], reference.kappa[i], 1e-13);
  }
}

template <class Real>
void expect_same_for_any_batch_and_threads() {
  const std::vector<double> weights = initial_weights(kShape, 3, false);
  const std::size_t n = 20011;  // three batches, the last one cut
  const std::vector<double> theta = spiral(n);
  ThreadPool one(1), three(3);
  const LensFields all = network_fields<Real>(kShape, weights, theta, one);
  const LensFields threads = network_fields<Real>(kShape, weights, theta, three);
  EXPECT_EQ(all.potential, threads.potential);
  EXPECT_EQ(all.deflection, threads.deflection);
  EXPECT_EQ(all.convergence, threads.convergence);
  for (const std::size_t i :
       {std::size_t{0}, std::size_t{77}, std::size_t{8191}, std::size_t{8192}, std::size_t{16400}, n - 1}) {
    const LensFields alone = network_fields<Real>(kShape, weights, {theta[i], theta[n + i]}, one);
    EXPECT_EQ(alone.potential[0], all.potential[i]);
    EXPECT_EQ(alone.deflection[0], all.deflection[i]);
    EXPECT_EQ(alone.deflection[1], all.deflection[n + i]);
    EXPECT_EQ(alone.convergence[0], all.convergence[i]);
  }
}

TEST(LensFields, APointDoesNotDependOnItsCompany) {
  expect_same_for_any_batch_and_threads<float>();
  expect_same_for_any_batch_and_threads<double>();
}

TEST(LensFields, ComponentsAdd) {
  const std::vector<LensComponent> lens = {
      {LensKind::sie, {1.1, 0.15, -0.04, 0.02, -0.03}, std::vector<std::uint8_t>(5)},
      {LensKind::shear, {0.03, -0.02, 0, 0}, std::vector<std::uint8_t>(4)}};
  const std::size_t n = 8300;
  const std::vector<double> theta = spiral(n);
  ThreadPool pool(2);
  const LensFields fields = smooth_fields(lens, theta, pool);
  for (const std::size_t i : {std::size_t{1}, std::size_t{8191}, std::size_t{8192}, n - 1}) {
    const Vec2<double> at{theta[i], theta[n + i]};
    const LensValues<double> a = lens_values(LensKind::sie, lens[0].values.data(), at);
    const LensValues<double> b = lens_values(LensKind::shear, lens[1].values.data(), at);
    EXPECT_EQ(fields.potential[i], a.psi + b.psi);
    EXPECT_EQ(fields.deflection[i], a.alpha.x + b.alpha.x);
    EXPECT_EQ(fields.deflection[n + i], a.alpha.y + b.alpha.y);
    EXPECT_EQ(fields.convergence[i], a.kappa + b.kappa);
  }
}

TEST(LensFields, NoPointsNoFields) {
  ThreadPool pool(1);
  EXPECT_TRUE(network_fields<float>(kShape, initial_weights(kShape, 3, false), {}, pool).potential.empty());
  EXPECT_TRUE(smooth_fields({}, {}, pool).deflection.empty());
  EXPECT_EQ(zero_fields(3).deflection, std::vector<double>(6, 0.0));
}

TEST(LensFields, PixelCentres) {
  const std::vector<double> theta = pixel_centers({3, 2, 0.5, 0.25, -0.25, 4});
  EXPECT_EQ(theta, (std::vector<double>{-0.25, 0.25, 0.75, -0.25, 0.25, 0.75, -0.5, -0.5, -0.5, 0, 0, 0}));
}

TEST(LensFields, TheGradientOfTheBrightnessOfEveryKind) {
  const auto light = [](LightKind kind, std::vector<double> values) {
    LightComponent component;
    component.kind = kind;
    component.values = std::move(values);
    return component;
  };
  const LightComponent sersic = light(LightKind::sersic_ellipse, {3, 0.8, 1.5, 0.1, -0.2, 0.1, 0.2});
  const LightComponent gaussian = light(LightKind::gaussian, {5, 0.7, -0.1, 0.3});
  LightComponent pixels = light(LightKind::pixelated, {});
  pixels.grid = {3, 4, 0.9, 0.05, -0.1};
  for (int i = 0; i < 12; ++i) pixels.pixels.push_back(0.3 * i - 0.02 * i * i);
  LightComponent network = light(LightKind::network, {2, 0.3, -0.2});
  network.network = kShape;
  network.weights = initial_weights(kShape, 5, false);
  const std::vector<LightComponent> lights{sersic, gaussian, pixels, network};
  const std::vector<double> positions = spiral(57);
  ThreadPool pool(2);
  const std::vector<double> gradient = brightness_gradient<double>(lights, positions, pool);
  const double h = 1e-6;
  for (std::size_t i = 0; i < positions.size(); ++i) {
    std::vector<double> above = positions, below = positions;
    above[i] += h;
    below[i] -= h;
    const std::size_t point = i % 57;
    const double expected =
        (brightness<double>(lights, above, pool)[point] - brightness<double>(lights, below, pool)[point]) / (2 * h);
    EXPECT_NEAR(gradient[i], expected, 1e-6 * (1 + std::abs(expected))) << i;
  }
}

}  // namespace
}  // namespace einfield
