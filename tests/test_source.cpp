// Brightness profiles: adjoints against differences, symmetries, flux, the core, single against double precision,
// pixels and their transpose, finiteness wherever a ray may go.
#include "einfield/source.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "einfield/adam.hpp"
#include "einfield/network.hpp"
#include "einfield/render.hpp"
#include "tests/gradcheck.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

constexpr double kPi = 3.14159265358979323846;

struct LightCase {
  std::string name;
  Component component;
  std::vector<double> p;
  friend void PrintTo(const LightCase& c, std::ostream* out) { *out << c.name; }

  bool is_sersic() const { return static_cast<LightKind>(component.kind) == LightKind::sersic_ellipse; }
  const ProfileInfo& info() const { return light_info(static_cast<LightKind>(component.kind)); }
  std::size_t center() const { return static_cast<std::size_t>(info().index_of("center_x")); }
  /// Index of e1, before e2; 0 = circular.
  std::size_t ellipticity() const { return static_cast<std::size_t>(std::max(info().index_of("e1"), 0)); }
  /// Length over which the brightness changes.
  double size() const { return p[1]; }

  template <class Real>
  Real brightness(const Real* at, Vec2<Real> position) const {
    return light_brightness<Real>(component, at, nullptr, position);
  }
  template <class Real>
  void adjoint(const Real* at, Vec2<Real> position, Real bar, Vec2<Real>& position_bar, Real* p_bar) const {
    light_brightness_adjoint<Real>(component, at, nullptr, position, bar, position_bar, p_bar, [](int, Real) {});
  }
};

std::vector<LightCase> light_cases() {
  std::vector<LightCase> cases;
  const struct {
    const char* name;
    double e1, e2;
  } shapes[] = {{"round", 0, 0}, {"denormal", 0, 1e-310}, {"paper", -0.09, 0.03}, {"flat", 0.5, 0.6}};
  const struct {
    const char* name;
    double n;
  } indices[] = {{"exponential", 1},     {"n1_5", 1.5},     {"de_vaucouleurs", 4},
                 {"gaussian_like", 0.5}, {"flat_top", 0.3}, {"cuspy", 9}};
  for (const auto radius : {RadiusKind::product_average, RadiusKind::major_axis})
    for (const auto& s : shapes)
      for (const auto& i : indices)
        cases.push_back({std::string(radius == RadiusKind::major_axis ? "major_" : "product_") + s.name + "_" + i.name,
                         {static_cast<int>(LightKind::sersic_ellipse), radius, 0, {}},
                         {10, 1.2, i.n, s.e1, s.e2, 0.4, 0.15}});
  for (const double sigma : {0.1, 0.7, 5.0})
    cases.push_back({"gaussian_" + std::to_string(static_cast<int>(10 * sigma)),
                     {static_cast<int>(LightKind::gaussian), RadiusKind::product_average, 0, {}},
                     {20, sigma, -0.3, 0.2}});
  for (const auto& s : shapes)
    cases.push_back({std::string("gaussian_ellipse_") + s.name,
                     {static_cast<int>(LightKind::gaussian_ellipse), RadiusKind::product_average, 0, {}},
                     {20, 0.7, s.e1, s.e2, -0.3, 0.2}});
  return cases;
}

constexpr double kAngles[] = {0, 0.4, kPi / 2, 2.1, kPi, -kPi / 2, -0.9};

class Lights : public testing::TestWithParam<LightCase> {};

/// Position and parameters as one vector, the center at the origin so that steps near it keep their digits.
struct Variables {
  const LightCase& light;
  std::vector<double> x;

  Variables(const LightCase& c, double r, double angle) : light(c) {
    x = {r * std::cos(angle), r * std::sin(angle)};
    x.insert(x.end(), c.p.begin(), c.p.end());
    x[2 + c.center()] = x[3 + c.center()] = 0;
  }
  double value(const std::vector<double>& at) const {
    return light.brightness(at.data() + 2, Vec2<double>{at[0], at[1]});
  }
  std::vector<double> gradient() const {
    std::vector<double> result(x.size());
    Vec2<double> position_bar{};
    light.adjoint(x.data() + 2, Vec2<double>{x[0], x[1]}, 1.0, position_bar, result.data() + 2);
    result[0] = position_bar.x;
    result[1] = position_bar.y;
    return result;
  }
  /// At e = 0 the radius on the major axis has a kink in e.
  bool at_kink() const {
    return light.is_sersic() && light.component.radius == RadiusKind::major_axis && std::hypot(x[5], x[6]) < 1e-9;
  }
  /// Steps in every coordinate. The exponent −b (R/R_s)^{1/n} sets the length: it changes by b z/n in d ln R and by
  /// b z ln(R/R_s)/n in d ln n.
  std::vector<double> scale() const {
    const double r = std::hypot(x[0], x[1]);
    std::vector<double> result(x.size());
    const std::size_t e = light.ellipticity();
    const double flat = e > 0 && !light.is_sersic() ? 1 - std::hypot(x[2 + e], x[3 + e]) : 1;
    const double width = light.size() * flat, gaussian = width / (1 + r / width);
    double length = light.is_sersic() ? r : gaussian, ellipticity = gaussian / (width + r) * flat, index = 1;
    if (light.is_sersic()) {
      ellipticity = 1 - std::hypot(x[5], x[6]);
      const double major = 1.2 * r / ellipticity;  // an upper limit of R
      const double z = std::pow(major / x[3], 1 / x[4]), steep = 1 + 2 * x[4] * z / x[4];
      length *= ellipticity / steep;
      ellipticity /= steep;
      index = x[4] / (steep * (1 + std::abs(std::log(r / x[3]))));
    }
    for (std::size_t i = 0; i < x.size(); ++i) result[i] = std::abs(x[i]);
    result[0] = result[1] = result[2 + light.center()] = result[3 + light.center()] = length;
    result[3] = light.is_sersic() ? length / r * x[3] : length / (1 + r / light.size());
    if (light.is_sersic()) result[4] = index;
    if (e > 0) result[2 + e] = result[3 + e] = ellipticity;
    return result;
  }
};

TEST_P(Lights, AdjointAgainstDifferences) {
  for (const double r : {3e-3, 0.1, 0.7, 1.2, 2.5})
    for (const double angle : kAngles) {
      const Variables v(GetParam(), r, angle);
      const auto f = [&](const std::vector<double>& x) { return v.value(x); };
      // The brightness is the size of the component ∂I/∂ln amp; where it has underflowed, nothing is left to compare.
      if (f(v.x) < 1e-200) continue;
      std::vector<double> scale = v.scale(), gradient = v.gradient();
      if (v.at_kink()) {
        // The mean of the one-sided derivatives, up to the difference of their second derivatives times the step.
        EXPECT_LE(gradient_error(f, v.x, scale, gradient), tolerance::kKinkDifference) << r << " " << angle;
        scale[5] = scale[6] = 0;
      }
      EXPECT_LE(gradient_error(f, v.x, scale, gradient), tolerance::kDifference) << r << " " << angle;
    }
}

TEST_P(Lights, TaylorRemainderFallsAsTheSquare) {
  const Variables v(GetParam(), 0.3, 0.7);
  const std::vector<double> scale = v.scale();
  std::vector<double> direction(v.x.size());
  for (std::size_t i = 0; i < direction.size(); ++i) direction[i] = scale[i] * std::cos(1.3 * static_cast<double>(i));
  if (v.at_kink()) direction[5] = direction[6] = 0;
  const auto f = [&](const std::vector<double>& x) { return v.value(x); };
  EXPECT_NEAR(taylor_order(f, v.x, direction, v.gradient(), 1e-3), 2, tolerance::kTaylorOrder);
}

TEST_P(Lights, AdjointAdds) {
  const LightCase& c = GetParam();
  const Vec2<double> position{0.9, -0.4};
  std::vector<double> once(c.p.size()), twice(c.p.size());
  Vec2<double> at_once{}, at_twice{}, alone{};
  c.adjoint(c.p.data(), position, 0.7, at_once, once.data());
  for (int k = 0; k < 2; ++k) c.adjoint(c.p.data(), position, 0.7, at_twice, twice.data());
  c.adjoint(c.p.data(), position, 0.7, alone, static_cast<double*>(nullptr));
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]);
  EXPECT_EQ(at_twice.x, 2 * at_once.x);
  EXPECT_EQ(at_twice.y, 2 * at_once.y);
  EXPECT_EQ(alone.x, at_once.x);
  EXPECT_EQ(alone.y, at_once.y);
  EXPECT_EQ(once[c.center()], -at_once.x);
  EXPECT_EQ(once[c.center() + 1], -at_once.y);
}

TEST_P(Lights, RotationTurnsTheIsophotes) {
  const LightCase& c = GetParam();
  const double angle = 0.77;
  std::vector<double> turned = c.p;
  if (const std::size_t e = c.ellipticity(); e > 0) {
    turned[e] = std::cos(2 * angle) * c.p[e] - std::sin(2 * angle) * c.p[e + 1];
    turned[e + 1] = std::sin(2 * angle) * c.p[e] + std::cos(2 * angle) * c.p[e + 1];
  }
  const Vec2<double> center{c.p[c.center()], c.p[c.center() + 1]};
  for (const double r : {0.1, 0.7, 1.5})
    for (const double direction : kAngles) {
      const Vec2<double> a = center + Vec2<double>{r * std::cos(direction), r * std::sin(direction)};
      const Vec2<double> b = center + Vec2<double>{r * std::cos(direction + angle), r * std::sin(direction + angle)};
      const double value = c.brightness(c.p.data(), a);
      // A relative error of R is one of b z/n times as much of I: up to 1e3 at the steepest.
      EXPECT_NEAR(c.brightness(turned.data(), b), value, 100 * tolerance::kCovariance * value);
    }
}

TEST_P(Lights, SinglePrecisionIsGood) {
  const LightCase& c = GetParam();
  std::vector<float> single;
  std::vector<double> rounded;
  for (const double value : c.p) {
    single.push_back(static_cast<float>(value));
    rounded.push_back(single.back());
  }
  const double peak = c.is_sersic() ? c.p[0] : c.p[0] / (2 * kPi * c.p[1] * c.p[1]);
  const auto of_one = [&c](std::size_t k) { return c.ellipticity() > 0 && k >= c.ellipticity(); };  // e1 and e2
  for (const double r : {1e-3, 0.1, 0.7, 1.6, 3.3})
    for (const double angle : kAngles) {
      // A sum in float: GCC 12 at -O2 forgets a conversion to float and back.
      const Vec2<float> theta{single[c.center()] + static_cast<float>(r * std::cos(angle)),
                              single[c.center() + 1] + static_cast<float>(r * std::sin(angle))};
      const Vec2<double> theta2{theta.x, theta.y};
      const double value = c.brightness(rounded.data(), theta2);
      EXPECT_NEAR(c.brightness(single.data(), theta), value, tolerance::kSingle * std::max(value, peak))
          << r << " " << angle;
      std::vector<float> p_bar(c.p.size());
      std::vector<double> p_bar2(c.p.size());
      Vec2<float> theta_bar{};
      Vec2<double> theta_bar2{};
      c.adjoint(single.data(), theta, 1.0f, theta_bar, p_bar.data());
      c.adjoint(rounded.data(), theta2, 1.0, theta_bar2, p_bar2.data());
      double largest = r * std::hypot(theta_bar2.x, theta_bar2.y);
      for (std::size_t k = 0; k < c.center(); ++k)
        largest = std::max(largest, std::abs(p_bar2[k] * (of_one(k) ? 1 : c.p[k])));
      largest = std::max(largest, peak);
      EXPECT_NEAR(r * theta_bar.x, r * theta_bar2.x, tolerance::kSingle * largest) << r << " " << angle;
      EXPECT_NEAR(r * theta_bar.y, r * theta_bar2.y, tolerance::kSingle * largest) << r << " " << angle;
      for (std::size_t k = 0; k < c.center(); ++k) {
        const double scale = of_one(k) ? 1 : c.p[k];
        EXPECT_NEAR(scale * p_bar[k], scale * p_bar2[k], tolerance::kSingle * largest)
            << k << " at " << r << " " << angle;
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Profiles, Lights, testing::ValuesIn(light_cases()),
                         [](const auto& test) { return test.param.name; });

// ---- Sérsic ----

TEST(Sersic, RadiusIsMeasuredWhereTheKeySays) {
  const double c = std::hypot(0.3, -0.4), q = (1 - c) / (1 + c), phi = std::atan2(-0.4, 0.3) / 2, R = 1.2;
  const double p[] = {10, R, 2.5, 0.3, -0.4, 0.1, 0.2};
  const auto along = [&](double angle, double r) {
    return Vec2<double>{0.1 + r * std::cos(angle), 0.2 + r * std::sin(angle)};
  };
  for (const auto& [kind, major, minor] :
       {std::tuple{RadiusKind::major_axis, R, R * q},
        std::tuple{RadiusKind::product_average, R / std::sqrt(q), R * std::sqrt(q)}}) {
    EXPECT_NEAR(sersic_brightness(p, kind, along(phi, major)), 10, 1e-13);
    EXPECT_NEAR(sersic_brightness(p, kind, along(phi + kPi / 2, minor)), 10, 1e-13);
  }
}

TEST(Sersic, IsFlatInsideItsCore) {
  const double p[] = {10, 1.2, 4, 0.1, 0.2, 0, 0};
  for (const auto kind : {RadiusKind::major_axis, RadiusKind::product_average}) {
    const double center = sersic_brightness(p, kind, Vec2<double>{});
    const double b = 1.9992 * 4 - 0.3271;
    EXPECT_NEAR(center, 10 * std::exp(-b * (std::pow(1e-4 / 1.2, 0.25) - 1)), 1e-10 * center);
    EXPECT_EQ(sersic_brightness(p, kind, Vec2<double>{3e-5, -2e-5}), center);
    Vec2<double> position_bar{};
    double p_bar[7] = {};
    sersic_brightness_adjoint(p, kind, Vec2<double>{3e-5, -2e-5}, 1.0, position_bar, p_bar);
    for (const double zero : {position_bar.x, position_bar.y, p_bar[3], p_bar[4], p_bar[5], p_bar[6]})
      EXPECT_EQ(zero, 0);
    EXPECT_NEAR(p_bar[0], center / 10, 1e-12 * center);
    EXPECT_GT(p_bar[1], 0);
    EXPECT_LT(std::abs(p_bar[2]), std::numeric_limits<double>::max());
  }
}

TEST(Sersic, HalfOfTheLightIsWithinItsRadius) {
  // ∫ I 2πR dR on a logarithmic grid; b_n of Capaccioli (1989) is good to a percent of R_e here.
  for (const double n : {0.7, 1.0, 2.0, 4.0}) {
    const double p[] = {1, 1, n, 0, 0, 0, 0};
    double inside = 0, total = 0;
    const double step = 1e-3;
    for (double u = std::log(1e-4); u < std::log(1e4); u += step) {
      const double r = std::exp(u + step / 2),
                   ring = r * r * sersic_brightness(p, RadiusKind::major_axis, Vec2<double>{r, 0});
      total += ring;
      if (r < 1) inside += ring;
    }
    EXPECT_NEAR(inside / total, 0.5, 0.005) << n;
  }
}

TEST(Sersic, AFitThatStartsRoundFindsTheEllipse) {
  // The gradient at e = 0 is that of the smooth part (2): it must point to the ellipse, and Adam must get there.
  for (const auto kind : {RadiusKind::major_axis, RadiusKind::product_average}) {
    const double truth[] = {10, 1.2, 1.5, 0.2, -0.1, 0, 0};
    std::vector<double> p = {10, 1.2, 1.5, 0, 0, 0, 0}, gradient(7), first(7), second(7);
    for (int step = 1; step <= 1500; ++step) {
      std::fill(gradient.begin(), gradient.end(), 0.0);
      for (int i = 0; i < 225; ++i) {
        const Vec2<double> at{(i % 15 - 7) * 0.3, (i / 15 - 7) * 0.3};
        const double residual = sersic_brightness(p.data(), kind, at) - sersic_brightness(truth, kind, at);
        Vec2<double> unused{};
        sersic_brightness_adjoint(p.data(), kind, at, 2 * residual, unused, gradient.data());
      }
      if (step == 1) {
        EXPECT_LT(gradient[3], 0);
        EXPECT_GT(gradient[4], 0);
      }
      const AdamStep<double> adam = make_adam_step<double>(0.02 * std::pow(0.995, step), step);
      for (const std::size_t k : {3u, 4u}) adam_update(adam, gradient[k], p[k], first[k], second[k]);
    }
    EXPECT_NEAR(p[3], 0.2, 1e-4);
    EXPECT_NEAR(p[4], -0.1, 1e-4);
  }
}

TEST(Gaussian, FluxIsItsAmplitude) {
  const double p[] = {20, 0.7, 0.3, -0.2};
  double sum = 0;
  for (int i = -150; i <= 150; ++i)
    for (int j = -150; j <= 150; ++j) sum += gaussian_brightness(p, Vec2<double>{0.05 * i, 0.05 * j}) * 0.05 * 0.05;
  EXPECT_NEAR(sum, 20, 1e-10);
}

TEST(GaussianEllipse, HasTheFluxAndTheAxesOfItsParameters) {
  const double c = 0.4, phi = 0.3, q = (1 - c) / (1 + c), sigma = 0.7;
  const double p[] = {20, sigma, c * std::cos(2 * phi), c * std::sin(2 * phi), 0.3, -0.2};
  double sum = 0;
  for (int i = -200; i <= 200; ++i)
    for (int j = -200; j <= 200; ++j)
      sum += gaussian_ellipse_brightness(p, Vec2<double>{0.05 * i, 0.05 * j}) * 0.05 * 0.05;
  EXPECT_NEAR(sum, 20, 1e-9);
  const double peak = 20 / (2 * kPi * sigma * sigma);
  const auto along = [&](double angle, double r) {
    return gaussian_ellipse_brightness(p, Vec2<double>{0.3 + r * std::cos(angle), -0.2 + r * std::sin(angle)});
  };
  EXPECT_NEAR(along(phi, sigma / std::sqrt(q)), peak * std::exp(-0.5), 1e-12 * peak);
  EXPECT_NEAR(along(phi + kPi / 2, sigma * std::sqrt(q)), peak * std::exp(-0.5), 1e-12 * peak);
  const double round[] = {20, sigma, 0, 0, 0.3, -0.2}, circle[] = {20, sigma, 0.3, -0.2};
  EXPECT_NEAR(gaussian_ellipse_brightness(round, Vec2<double>{1, 0.5}),
              gaussian_brightness(circle, Vec2<double>{1, 0.5}), 1e-15);
}

// ---- Pixels ----

PixelGrid grid() {
  return {6, 5, 0.31, 0.11, 0.07};
}

Vec2<double> pixel_center(const PixelGrid& g, int ix, int iy) {
  return {g.center_x + (ix - 0.5 * (g.nx - 1)) * g.pixel_scale, g.center_y + (iy - 0.5 * (g.ny - 1)) * g.pixel_scale};
}

std::vector<double> pixel_values() {
  std::vector<double> values(30);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 3 + std::sin(1.9 * static_cast<double>(i));
  return values;
}

TEST(Pixelated, PassesThroughItsPixelsAndIsLinearBetween) {
  const std::vector<double> pixels = pixel_values();
  const PixelGrid g = grid();
  for (int iy = 0; iy < g.ny; ++iy)
    for (int ix = 0; ix < g.nx; ++ix) {
      const auto at = static_cast<std::size_t>(iy * g.nx + ix);
      EXPECT_NEAR(pixelated_brightness(g, pixels.data(), pixel_center(g, ix, iy)), pixels[at], 1e-14);
      if (ix + 1 == g.nx) continue;
      const Vec2<double> between = pixel_center(g, ix, iy) + Vec2<double>{0.25 * g.pixel_scale, 0};
      EXPECT_NEAR(pixelated_brightness(g, pixels.data(), between), 0.75 * pixels[at] + 0.25 * pixels[at + 1], 1e-14);
    }
}

TEST(Pixelated, FallsToZeroOverOnePixelAndIsZeroBeyond) {
  const std::vector<double> pixels(30, 2.0);
  const PixelGrid g = grid();
  const Vec2<double> left = pixel_center(g, 0, 2), right = pixel_center(g, 5, 2), top = pixel_center(g, 2, 4);
  const double d = g.pixel_scale;
  EXPECT_NEAR(pixelated_brightness(g, pixels.data(), left - Vec2<double>{0.75 * d, 0}), 0.5, 1e-14);
  EXPECT_NEAR(pixelated_brightness(g, pixels.data(), right + Vec2<double>{0.25 * d, 0}), 1.5, 1e-14);
  EXPECT_NEAR(pixelated_brightness(g, pixels.data(), top + Vec2<double>{0, 0.5 * d}), 1.0, 1e-14);
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const Vec2<double> outside :
       {left - Vec2<double>{1.1 * d, 0}, right + Vec2<double>{1.1 * d, 0}, top + Vec2<double>{0, 5 * d},
        Vec2<double>{1e300, 0}, Vec2<double>{0, -1e300}, Vec2<double>{kInfinity, 0}, Vec2<double>{kNaN, 0}}) {
    EXPECT_EQ(pixelated_brightness(g, pixels.data(), outside), 0);
    Vec2<double> bar{};
    pixelated_brightness_adjoint(g, pixels.data(), outside, 1.0, bar);
    EXPECT_EQ(bar.x, 0);
    EXPECT_EQ(bar.y, 0);
    for (const int index : bilinear_taps(g, outside).index) EXPECT_EQ(index, -1);
  }
}

TEST(Pixelated, AdjointAgainstDifferencesOffTheBorders) {
  const std::vector<double> pixels = pixel_values();
  const PixelGrid g = grid();
  const auto f = [&](const std::vector<double>& x) {
    return pixelated_brightness(g, pixels.data(), Vec2<double>{x[0], x[1]});
  };
  for (int iy = -1; iy < g.ny; ++iy)
    for (int ix = -1; ix < g.nx; ++ix)
      for (const double u : {0.01, 0.4, 0.99}) {
        const Vec2<double> at =
            pixel_center(g, ix, iy) + Vec2<double>{u * g.pixel_scale, (1 - 0.9 * u) * g.pixel_scale};
        Vec2<double> bar{};
        pixelated_brightness_adjoint(g, pixels.data(), at, 1.0, bar);
        EXPECT_LE(gradient_error(f, {at.x, at.y}, {0.31, 0.31}, {bar.x, bar.y}, 1e-3), tolerance::kDifference)
            << ix << " " << iy;
      }
}

TEST(Pixelated, ScatterIsTheTransposeOfGather) {
  const PixelGrid g = grid();
  const std::vector<double> pixels = pixel_values();
  const Component component{static_cast<int>(LightKind::pixelated), RadiusKind::product_average, 4, g};
  std::vector<double> offset_pixels(4, 99.0);
  offset_pixels.insert(offset_pixels.end(), pixels.begin(), pixels.end());
  const Philox philox{7};
  std::vector<double> image, image_bar, pixel_bar(offset_pixels.size());
  for (std::uint64_t i = 0; i < 500; ++i) {
    // Some rays outside of the grid on every side.
    const Vec2<double> at{1.3 * philox.normal(2 * i), 1.1 * philox.normal(2 * i + 1)};
    image.push_back(light_brightness<double>(component, nullptr, offset_pixels.data(), at));
    image_bar.push_back(philox.normal(i, 1));
    Vec2<double> unused{};
    light_brightness_adjoint<double>(component, nullptr, offset_pixels.data(), at, image_bar.back(), unused, nullptr,
                                     [&](int k, double value) { pixel_bar[static_cast<std::size_t>(k)] += value; });
  }
  for (std::size_t k = 0; k < 4; ++k) EXPECT_EQ(pixel_bar[k], 0);
  EXPECT_LE(transpose_error(offset_pixels, image, image_bar, pixel_bar), 20 * tolerance::kEpsilon<double>);
}

// ---- Everywhere ----

// ---- network --------------------------------------------------------------------------------------------------

TEST(NetworkLight, SoftplusIsAccurateFromEndToEnd) {
  const double p[] = {2.5, 0, 0};
  const float p_single[] = {2.5f, 0, 0};
  for (double v = -700; v <= 700; v += 0.37) {
    // In long double ln(1 + e^v) has digits to spare, except far below 0, where it is e^v.
    const long double expected =
        2.5L * (v < -40 ? std::exp(static_cast<long double>(v)) : std::log1p(std::exp(static_cast<long double>(v))));
    EXPECT_NEAR(network_brightness(p, v), static_cast<double>(expected),
                tolerance::kSameFormula * static_cast<double>(expected))
        << v;
    if (std::abs(v) > 80) continue;  // single precision underflows
    const auto rounded = static_cast<float>(v);
    const long double single = 2.5L * std::log1p(std::exp(static_cast<long double>(rounded)));
    EXPECT_NEAR(network_brightness(p_single, rounded), static_cast<double>(single),
                tolerance::kSingle * static_cast<double>(single))
        << v;
  }
}

TEST(NetworkLight, AdjointAgainstDifferences) {
  // Variables: v and amp directly; the position by way of v with a gradient that is known.
  const Vec2<double> slope{0.8, -1.7};
  for (const double v : {-30.0, -3.0, -0.4, 0.0, 0.2, 1.5, 30.0}) {
    const auto f = [&](const std::vector<double>& x) {
      const double p[] = {x[1], 0, 0};
      return network_brightness(p, x[0] + slope.x * (x[2] - x[4]) + slope.y * (x[3] - x[5]));
    };
    const std::vector<double> x = {v, 4, 0, 0, 0, 0};
    const double p[] = {4, 0, 0};
    double value_bar = 0, p_bar[3] = {};
    Vec2<double> position_bar{};
    network_brightness_adjoint(p, NetworkSample<double>{v, slope}, 1.0, value_bar, position_bar, p_bar);
    const std::vector<double> gradient = {value_bar, p_bar[0], position_bar.x, position_bar.y, p_bar[1], p_bar[2]};
    EXPECT_LE(gradient_error(f, x, std::vector<double>(x.size(), 0.5), gradient), tolerance::kDifference) << v;
    // A second call adds.
    network_brightness_adjoint(p, NetworkSample<double>{v, slope}, 1.0, value_bar, position_bar, p_bar);
    EXPECT_EQ(value_bar, 2 * gradient[0]);
    EXPECT_EQ(p_bar[0], 2 * gradient[1]);
    EXPECT_EQ(position_bar.x, 2 * gradient[2]);
    EXPECT_EQ(p_bar[2], 2 * gradient[5]);
  }
}

TEST(NetworkLight, WithoutFreeParametersThePositionIsTheSame) {
  const double p[] = {4, 0, 0};
  const NetworkSample<double> sample{0.3, {0.8, -1.7}};
  double value_bar[2] = {}, p_bar[3] = {};
  Vec2<double> position_bar[2] = {};
  network_brightness_adjoint(p, sample, -0.7, value_bar[0], position_bar[0], p_bar);
  network_brightness_adjoint<double>(p, sample, -0.7, value_bar[1], position_bar[1], nullptr);
  EXPECT_EQ(value_bar[0], value_bar[1]);
  EXPECT_EQ(position_bar[0].x, position_bar[1].x);
  EXPECT_EQ(position_bar[0].y, position_bar[1].y);
}

template <class Real>
class LightPrecision : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(LightPrecision, Precisions);

TYPED_TEST(LightPrecision, EveryValueAndDerivativeIsFinite) {
  using Real = TypeParam;
  const Philox philox{20212};
  std::uint64_t counter = 0;
  const auto uniform = [&](double low, double high) { return low + (high - low) * philox.uniform(counter++); };
  const double tiny = std::numeric_limits<Real>::denorm_min();
  long cases = 0;
  for (const auto kind : {LightKind::sersic_ellipse, LightKind::gaussian, LightKind::gaussian_ellipse})
    for (int draw = 0; draw < 60000; ++draw, ++cases) {
      const Component component{
          static_cast<int>(kind), draw % 2 ? RadiusKind::major_axis : RadiusKind::product_average, 0, {}};
      Real p[kMaxProfileParameters] = {};
      p[0] = static_cast<Real>(std::pow(10.0, uniform(-3, 5)));
      p[1] = static_cast<Real>(std::pow(10.0, uniform(-3, 2)));
      const auto center = static_cast<std::size_t>(light_info(kind).index_of("center_x"));
      if (kind == LightKind::sersic_ellipse) {
        const double indices[] = {0.2500001, 0.5, 1, 4, 9.99999};
        p[2] = static_cast<Real>(draw % 3 ? indices[draw % 5] : uniform(0.25, 10));
      }
      if (center > 2) {
        const double sizes[] = {0, tiny, 1e-30, 1e-7, 0.5, 0.9, 0.99};
        const double size = draw % 4 ? sizes[draw % 7] : uniform(0, 0.99);
        const double angle = draw % 5 ? kAngles[draw % 7] : uniform(0, 6.3);
        p[center - 2] = static_cast<Real>(size * std::cos(angle));
        p[center - 1] = static_cast<Real>(size * std::sin(angle));
      }
      const double radii[] = {0, tiny, 1e-30, 1e-6, 1e-4, 0.01, 1, 30, 1e3, 1e8};
      const double r = draw % 2 ? radii[(draw / 2) % 10] : std::pow(10.0, uniform(-6, 4));
      const double angle = draw % 7 ? kAngles[(draw / 3) % 7] : uniform(0, 6.3);
      const Vec2<Real> at{p[center] + static_cast<Real>(r * std::cos(angle)),
                          p[center + 1] + static_cast<Real>(r * std::sin(angle))};
      const Real value = light_brightness<Real>(component, p, nullptr, at);
      Vec2<Real> bar{};
      Real p_bar[kMaxProfileParameters] = {};
      light_brightness_adjoint<Real>(component, p, nullptr, at, Real(-0.7), bar, p_bar, [](int, Real) {});
      bool finite = std::isfinite(value) && std::isfinite(bar.x) && std::isfinite(bar.y);
      for (const Real v : p_bar) finite = finite && std::isfinite(v);
      ASSERT_TRUE(finite) << testing::PrintToString(std::vector<Real>(p, p + kMaxProfileParameters)) << " at " << at.x
                          << ", " << at.y << ": I " << value << " bar " << bar.x << " " << bar.y << " p_bar "
                          << testing::PrintToString(std::vector<Real>(p_bar, p_bar + kMaxProfileParameters));
      EXPECT_GE(value, 0);
    }
  EXPECT_GE(cases, 100000);
}

TYPED_TEST(LightPrecision, NetworkBrightnessIsFiniteAndPositive) {
  using Real = TypeParam;
  const Real p[] = {Real(3), 0, 0};
  for (const double size : {0.0, 1e-30, 1e-6, 0.5, 3.0, 50.0, 80.0, 1e3, 1e30})
    for (const int sign : {-1, 1}) {
      const NetworkSample<Real> sample{static_cast<Real>(sign * size), {Real(2), Real(-1e10)}};
      const Real value = network_brightness(p, sample.value);
      Real value_bar = 0, p_bar[kMaxProfileParameters] = {};
      Vec2<Real> bar{};
      network_brightness_adjoint(p, sample, Real(-0.7), value_bar, bar, p_bar);
      EXPECT_TRUE(std::isfinite(value) && std::isfinite(value_bar) && std::isfinite(bar.x) && std::isfinite(bar.y));
      for (int k = 0; k < 3; ++k) EXPECT_TRUE(std::isfinite(p_bar[k])) << sample.value;
      EXPECT_GE(value, sample.value > -80 ? std::numeric_limits<Real>::min() : Real(0)) << sample.value;
      EXPECT_LE(value_bar, 0);
    }
  EXPECT_TRUE(std::isnan(network_brightness(p, std::numeric_limits<Real>::quiet_NaN())));
}

TEST(LightInfo, NamesAreThoseOfLenstronomyInItsOrder) {
  const auto names = [](LightKind kind) {
    std::string joined = light_info(kind).name;
    for (const ParameterInfo& p : light_info(kind).parameters) joined += std::string(" ") + p.name;
    return joined;
  };
  EXPECT_EQ(names(LightKind::sersic_ellipse), "SERSIC_ELLIPSE amp R_sersic n_sersic e1 e2 center_x center_y");
  EXPECT_EQ(names(LightKind::gaussian), "GAUSSIAN amp sigma center_x center_y");
  EXPECT_EQ(names(LightKind::gaussian_ellipse), "GAUSSIAN_ELLIPSE amp sigma e1 e2 center_x center_y");
  EXPECT_EQ(names(LightKind::pixelated), "PIXELATED");
  EXPECT_EQ(names(LightKind::network), "NETWORK amp center_x center_y");
}

}  // namespace
}  // namespace einfield
