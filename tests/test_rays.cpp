// The vectorised loops over rays against the per-ray formulas, with every instruction set: all profiles, block borders,
// zero cotangents, broken numbers.
#include <gtest/gtest.h>

#include <hwy/highway.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "einfield/network.hpp"
#include "einfield/tangent.hpp"
#include "host/cpu/rays.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

/// A scene of two lenses and five lights on random rays, and what render_ray() and its adjoint say of it.
template <class Real>
struct Case {
  std::vector<Component> components;
  std::vector<Real> table, pixels;
  int count;
  std::vector<Real> theta, deflection, brightness_bar;
  std::vector<Real> network_value, network_gradient;

  Case(LensKind lens, RadiusKind radius, int n) : count(n) {
    const PixelGrid grid{5, 4, 0.5, 0.1, -0.1};
    add(static_cast<int>(lens), lens_parameters(lens));
    add(static_cast<int>(LensKind::shear), {0.03, -0.02, 0.1, 0});
    add(static_cast<int>(LightKind::sersic_ellipse), {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15}, radius);
    add(static_cast<int>(LightKind::pixelated), {}, RadiusKind::product_average, grid);
    add(static_cast<int>(LightKind::network), {7, 0.3, -0.2});
    add(static_cast<int>(LightKind::gaussian), {20, 0.6, 0.01, 0.02});
    add(static_cast<int>(LightKind::gaussian_ellipse), {9, 0.5, 0.2, -0.1, 0.03, 0.05});
    add(static_cast<int>(LightKind::uniform), {-0.7});
    const Philox philox{5};
    for (std::uint64_t i = 0; i < 20; ++i) pixels.push_back(static_cast<Real>(philox.normal(i)));
    const auto draw = [&](std::vector<Real>& values, int size, double scale, std::uint64_t stream) {
      for (int i = 0; i < size; ++i)
        values.push_back(static_cast<Real>(scale * philox.normal(static_cast<std::uint64_t>(i), stream)));
    };
    draw(theta, 2 * n, 1.5, 1);
    draw(deflection, 2 * n, 0.1, 2);
    draw(brightness_bar, n, 1, 3);
    draw(network_value, n, 2, 4);
    draw(network_gradient, 2 * n, 0.3, 6);
    for (int i = 0; i < n; i += 3) brightness_bar[static_cast<std::size_t>(i)] = 0;
  }

  /// The case of one of its rays, with a cotangent of 1.
  Case ray(std::size_t i) const {
    Case one = *this;
    const auto n = static_cast<std::size_t>(count);
    one.count = 1;
    one.theta = {theta[i], theta[n + i]};
    one.deflection = {deflection[i], deflection[n + i]};
    one.brightness_bar = {Real(1)};
    one.network_value = {network_value[i]};
    one.network_gradient = {network_gradient[i], network_gradient[n + i]};
    return one;
  }

  static std::vector<double> lens_parameters(LensKind kind) {
    switch (kind) {
      case LensKind::sie:
        return {1.1, 0.15, -0.04, 0.02, -0.03};
      case LensKind::sis:
        return {1.1, 0.02, -0.03};
      case LensKind::nie:
        return {1.1, -0.15, 0.04, 0.2, 0.02, -0.03};
      case LensKind::epl:
        return {1.1, 1.9, 0.15, -0.04, 0.02, -0.03};
      case LensKind::nfw:
        return {2.0, 0.9, 0.02, -0.03};
      case LensKind::nfw_ellipse_potential:
        return {2.0, 0.9, 0.1, -0.04, 0.02, -0.03};
      case LensKind::shear:
        return {0.05, -0.03, 0, 0.1};
      case LensKind::convergence:
        return {0.1, 0, 0.1};
      case LensKind::point_mass:
        return {0.7, 0.02, -0.03};
      case LensKind::tnfw:
        return {1.0, 0.3, 2.5, 0.02, -0.03};
      case LensKind::flexion:
        return {0.02, -0.03, 0.01, 0.02, 0, 0.1};
      case LensKind::multipole:
        break;
    }
    return {4, 0.05, 0.4, 0.02, -0.03, 1};
  }

  void add(int kind, std::vector<double> values, RadiusKind radius = RadiusKind::product_average, PixelGrid grid = {}) {
    components.push_back({kind, radius, 0, grid});
    values.resize(kMaxProfileParameters);
    table.insert(table.end(), values.begin(), values.end());
  }

  Scene<Real> scene() const { return {components.data(), 2, 3, 3, table.data(), pixels.data()}; }
  Rays<Real> rays() const {
    return {count,
            theta.data(),
            theta.data() + count,
            deflection.data(),
            deflection.data() + count,
            network_value.data(),
            network_gradient.data(),
            network_gradient.data() + count};
  }
};
constexpr int kNetworkComponent = 4;

struct Answer {
  std::vector<double> positions, brightness, alpha_bar, table_bar, pixel_bar, value_bar;
};

/// The formulas themselves, in double from the same (rounded) input.
template <class Real>
Answer formulas(const Case<Real>& c) {
  const auto n = static_cast<std::size_t>(c.count);
  const auto wide = [](const std::vector<Real>& v) { return std::vector<double>(v.begin(), v.end()); };
  const std::vector<double> table = wide(c.table), pixels = wide(c.pixels), theta = wide(c.theta),
                            deflection = wide(c.deflection), value = wide(c.network_value),
                            gradient = wide(c.network_gradient);
  const Scene<double> scene{c.components.data(), 2, 3, 3, table.data(), pixels.data()};
  Answer answer{std::vector<double>(2 * n),         std::vector<double>(n),
                std::vector<double>(2 * n),         std::vector<double>(table.size()),
                std::vector<double>(pixels.size()), std::vector<double>(n)};
  for (std::size_t i = 0; i < n; ++i) {
    const Vec2<double> position{theta[i], theta[n + i]}, alpha{deflection[i], deflection[n + i]};
    const NetworkSample<double> sample{value[i], {gradient[i], gradient[n + i]}};
    const Vec2<double> from_center = network_position(scene, kNetworkComponent, position, alpha);
    answer.positions[i] = from_center.x;
    answer.positions[n + i] = from_center.y;
    answer.brightness[i] = render_ray(scene, position, alpha, sample);
    Vec2<double> alpha_bar{};
    if (c.brightness_bar[i] != 0)
      render_ray_adjoint(
          scene, position, alpha, static_cast<double>(c.brightness_bar[i]), alpha_bar, answer.table_bar.data(),
          [&](int target, double bar) { answer.pixel_bar[static_cast<std::size_t>(target)] += bar; }, sample,
          &answer.value_bar[i]);
    answer.alpha_bar[i] = alpha_bar.x;
    answer.alpha_bar[n + i] = alpha_bar.y;
  }
  return answer;
}

template <class Real>
Answer loops(const Case<Real>& c, bool scalars = true) {
  const auto n = static_cast<std::size_t>(c.count);
  std::vector<Real> positions(2 * n), brightness(n), alpha_bar(2 * n, Real(7)), value_bar(n, Real(7));
  Answer answer{{}, {}, {}, std::vector<double>(c.table.size()), std::vector<double>(c.pixels.size()), {}};
  ray_kernels<Real>().network_positions(c.scene(), c.rays(), kNetworkComponent, positions.data(), positions.data() + n);
  ray_kernels<Real>().render(c.scene(), c.rays(), brightness.data());
  ray_kernels<Real>().adjoint(c.scene(), c.rays(), c.brightness_bar.data(), alpha_bar.data(), alpha_bar.data() + n,
                              scalars ? answer.table_bar.data() : nullptr, scalars ? answer.pixel_bar.data() : nullptr,
                              value_bar.data());
  answer.positions.assign(positions.begin(), positions.end());
  answer.value_bar.assign(value_bar.begin(), value_bar.end());
  answer.brightness.assign(brightness.begin(), brightness.end());
  answer.alpha_bar.assign(alpha_bar.begin(), alpha_bar.end());
  return answer;
}

template <class Real>
void expect_near(const std::vector<double>& found, const std::vector<double>& expected, const char* what) {
  // Double: an independent formula is off by a hundred roundings; here they are the vector functions', of 4 units each.
  constexpr double kTolerance = sizeof(Real) == 4 ? tolerance::kSingle : tolerance::kIndependentFormula;
  ASSERT_EQ(found.size(), expected.size());
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found[i], expected[i], kTolerance * largest) << what << " " << i;
}

template <class Body>
void with_every_instruction_set(const Body& body) {
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest & -rest);
    SCOPED_TRACE(hwy::TargetName(rest & -rest));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

template <class Real>
void check_agreement() {
  for (int kind = 0; kind < kLensKinds; ++kind)
    for (const RadiusKind radius : {RadiusKind::product_average, RadiusKind::major_axis})
      for (const int n : {1, 127, 128, 129, 300}) {
        SCOPED_TRACE(lens_info(static_cast<LensKind>(kind)).name + (", " + std::to_string(n) + " rays"));
        const Case<Real> c(static_cast<LensKind>(kind), radius, n);
        const Answer expected = formulas(c), found = loops(c);
        expect_near<Real>(found.positions, expected.positions, "positions of the network");
        expect_near<Real>(found.value_bar, expected.value_bar, "value_bar");
        expect_near<Real>(found.brightness, expected.brightness, "brightness");
        expect_near<Real>(found.alpha_bar, expected.alpha_bar, "alpha_bar");
        expect_near<Real>(found.table_bar, expected.table_bar, "table_bar");
        expect_near<Real>(found.pixel_bar, expected.pixel_bar, "pixel_bar");
        EXPECT_EQ(loops(c, false).alpha_bar, found.alpha_bar) << "with no free parameter";
        EXPECT_EQ(loops(c, false).value_bar, found.value_bar) << "with no free parameter";
      }
}
TEST(Rays, AgreeWithTheFormulas) {
  with_every_instruction_set(check_agreement<float>);
  with_every_instruction_set(check_agreement<double>);
}

/// render_ray_tangents() of a ray are the adjoint's cotangents, and render_ray_components() are parts of its
/// brightness.
template <class Real>
void expect_tangents(const Case<Real>& one, const std::vector<int>& row, const std::vector<double>& derivatives,
                     double brightness) {
  const Scene<Real> scene = one.scene();
  const Vec2<Real> theta{one.theta[0], one.theta[1]}, alpha{one.deflection[0], one.deflection[1]};
  const NetworkSample<Real> sample{one.network_value[0], {one.network_gradient[0], one.network_gradient[1]}};
  const auto wants = [&row](int c) {
    const auto first = row.begin() + c * kMaxProfileParameters;
    return std::any_of(first, first + kMaxProfileParameters, [](int r) { return r >= 0; });
  };
  std::vector<double> found(row.size(), 0.0);
  render_ray_tangents(
      scene, theta, alpha, true, wants,
      [&](int c, const Real* derivative) {
        for (int k = 0; k < kMaxProfileParameters; ++k)
          found[static_cast<std::size_t>(c * kMaxProfileParameters + k)] = static_cast<double>(derivative[k]);
      },
      sample);
  for (std::size_t k = 0; k < row.size(); ++k)
    if (row[k] >= 0) {
      ASSERT_EQ(found[k], derivatives[k]) << "tangent " << k;
    }
  double sum = 0;
  render_ray_components(
      scene, theta, alpha, [&](int, Real part) { sum += static_cast<double>(part); }, sample);
  ASSERT_NEAR(sum, brightness, tolerance::kSameFormula * std::max(1.0, std::abs(brightness)));
}

/// The brightness of each light by itself, and every derivative of every ray, against the adjoint of that ray.
template <class Real>
void check_columns() {
  for (int kind = 0; kind < kLensKinds; ++kind) {
    SCOPED_TRACE(lens_info(static_cast<LensKind>(kind)).name);
    const Case<Real> c(static_cast<LensKind>(kind), RadiusKind::major_axis, 300);
    const std::size_t count = 300, stride = count + 3, lights = c.components.size() - 2;
    std::vector<Real> parts(lights * stride, Real(7));
    ray_kernels<Real>().components(c.scene(), c.rays(), parts.data(), stride);
    std::vector<double> sum(count, 0.0);
    for (std::size_t k = 0; k < lights; ++k) {
      EXPECT_EQ(parts[k * stride + count], Real(7)) << "beyond the rays";
      for (std::size_t i = 0; i < count; ++i) sum[i] += static_cast<double>(parts[k * stride + i]);
    }
    expect_near<Real>(sum, formulas(c).brightness, "sum of the components");
    // In single precision a ray near a center has derivatives of its own; the bound is one for sums.
    if (sizeof(Real) == 4) continue;

    std::vector<int> row(c.table.size());
    std::vector<SlotColumn> slots(row.size());
    for (std::size_t k = 0; k < row.size(); ++k) slots[k].row = row[k] = k % 5 == 2 ? -1 : static_cast<int>(k);
    std::vector<Real> columns(row.size() * stride, Real(7));
    ray_kernels<Real>().derivatives(c.scene(), c.rays(), slots, columns.data(), stride);
    std::vector<std::vector<double>> expected(row.size(), std::vector<double>(count, 7.0));
    for (std::size_t i = 0; i < count; ++i) {
      const Case<Real> one = c.ray(i);
      const std::vector<double> derivatives = formulas(one).table_bar;
      expect_tangents(one, row, derivatives, static_cast<double>(formulas(one).brightness[0]));
      for (std::size_t k = 0; k < row.size(); ++k)
        if (row[k] >= 0) expected[k][i] = derivatives[k];
    }
    for (std::size_t k = 0; k < row.size(); ++k) {
      const auto first = columns.begin() + static_cast<std::ptrdiff_t>(k * stride);
      const std::vector<double> found(first, first + static_cast<std::ptrdiff_t>(count));
      expect_near<Real>(found, expected[k], ("derivative " + std::to_string(k)).c_str());
      EXPECT_EQ(columns[k * stride + count], Real(7)) << "beyond the rays";
    }
  }
}
TEST(Rays, ComponentsAndDerivativesAgreeWithTheFormulas) {
  with_every_instruction_set(check_columns<float>);
  with_every_instruction_set(check_columns<double>);
}

TEST(Rays, SumsAreAddedTo) {
  const Case<double> c(LensKind::sie, RadiusKind::major_axis, 150);
  std::vector<double> alpha_bar(300), table_bar(c.table.size()), pixel_bar(c.pixels.size()), value_bar(150);
  for (int k = 0; k < 2; ++k)
    ray_kernels<double>().adjoint(c.scene(), c.rays(), c.brightness_bar.data(), alpha_bar.data(),
                                  alpha_bar.data() + 150, table_bar.data(), pixel_bar.data(), value_bar.data());
  const Answer once = loops(c);
  EXPECT_EQ(alpha_bar, once.alpha_bar);
  EXPECT_EQ(value_bar, once.value_bar);
  for (std::size_t i = 0; i < table_bar.size(); ++i)
    EXPECT_NEAR(table_bar[i], 2 * once.table_bar[i], 1e-12 * std::abs(once.table_bar[i]));
  for (std::size_t i = 0; i < pixel_bar.size(); ++i)
    EXPECT_NEAR(pixel_bar[i], 2 * once.pixel_bar[i], 1e-12 * (1 + std::abs(once.pixel_bar[i])));
}

TEST(Rays, ZeroCotangentsGiveExactZerosAndNothingElseIsTouched) {
  Case<float> c(LensKind::sie, RadiusKind::major_axis, 260);
  std::fill(c.brightness_bar.begin() + 100, c.brightness_bar.end(), 0.0f);  // parts of two blocks, one of them the last
  for (const std::size_t broken : {110u, 200u, 259u}) c.theta[broken] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> alpha_bar(2 * 260 + 1, 7.0f), value_bar(260 + 1, 7.0f);
  std::vector<double> table_bar(c.table.size()), pixel_bar(c.pixels.size());
  ray_kernels<float>().adjoint(c.scene(), c.rays(), c.brightness_bar.data(), alpha_bar.data(), alpha_bar.data() + 260,
                               table_bar.data(), pixel_bar.data(), value_bar.data());
  for (const double value : table_bar) EXPECT_TRUE(std::isfinite(value));
  for (std::size_t i = 0; i < 260; ++i)
    if (c.brightness_bar[i] == 0) {
      EXPECT_EQ(alpha_bar[i], 0.0f) << i;
      EXPECT_EQ(alpha_bar[260 + i], 0.0f) << i;
      EXPECT_EQ(value_bar[i], 0.0f) << i;
    }
  EXPECT_EQ(alpha_bar.back(), 7.0f);
  EXPECT_EQ(value_bar.back(), 7.0f);
}

TEST(Rays, BrokenNumbersStayWhereTheyAre) {
  with_every_instruction_set([] {
    for (const float broken : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      Case<float> c(LensKind::sie, RadiusKind::major_axis, 130);
      const Answer sound = loops(c);
      c.theta[17] = broken;
      std::vector<float> brightness(130);
      ray_kernels<float>().render(c.scene(), c.rays(), brightness.data());
      for (std::size_t i = 0; i < 130; ++i) {
        if (i == 17)
          EXPECT_TRUE(std::isnan(brightness[i])) << broken;
        else
          EXPECT_EQ(brightness[i], static_cast<float>(sound.brightness[i])) << "a neighbour of the broken ray";
      }
    }
  });
}

}  // namespace
}  // namespace einfield
