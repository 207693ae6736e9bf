// One ray through a whole scene: its adjoint against differences, what is deflected and what is not, symmetries, and
// that an unlensed image is the source.
#include "einfield/render.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/gradcheck.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// Components with the storage that a Scene points to.
struct Stage {
  std::vector<Component> components;
  std::vector<double> table, pixels;
  int n_lens = 0, n_source = 0, n_lens_light = 0;

  void add(int kind, RadiusKind radius, std::vector<double> p, PixelGrid grid = {}) {
    const int offset = static_cast<int>(pixels.size());
    components.push_back({kind, radius, offset, grid});
    p.resize(kMaxProfileParameters);
    table.insert(table.end(), p.begin(), p.end());
    for (int i = 0; i < grid.nx * grid.ny; ++i) pixels.push_back(3 + std::sin(1.9 * i + offset));
  }
  void lens(LensKind kind, std::vector<double> p) {
    add(static_cast<int>(kind), RadiusKind::product_average, std::move(p));
    ++n_lens;
  }
  void light(int& count, LightKind kind, std::vector<double> p, RadiusKind radius = RadiusKind::product_average,
             PixelGrid grid = {}) {
    add(static_cast<int>(kind), radius, std::move(p), grid);
    ++count;
  }
  Scene<double> scene() const {
    return {components.data(), n_lens, n_source, n_lens_light, table.data(), pixels.data()};
  }
};

/// Lenses of several kinds, every light profile as source and as lens light.
Stage full_stage() {
  Stage s;
  s.lens(LensKind::sie, {1.1, 0.15, -0.04, 0.02, -0.03});
  s.lens(LensKind::shear, {0.03, -0.02, 0, 0});
  s.lens(LensKind::epl, {0.2, 1.8, 0, 0, 1.3, 0.4});
  s.lens(LensKind::nfw, {0.7, 0.1, -0.5, 0.9});
  s.light(s.n_source, LightKind::sersic_ellipse, {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15}, RadiusKind::major_axis);
  s.light(s.n_source, LightKind::pixelated, {}, RadiusKind::product_average, {6, 5, 0.31, 0.11, 0.07});
  s.light(s.n_source, LightKind::gaussian, {4, 0.6, -0.2, 0.1});
  s.light(s.n_lens_light, LightKind::sersic_ellipse, {3, 0.8, 4, 0.1, 0.2, 0.01, 0.02});
  s.light(s.n_lens_light, LightKind::pixelated, {}, RadiusKind::product_average, {3, 4, 0.9, -0.1, 0.2});
  return s;
}

struct RayGradient {
  Vec2<double> alpha_bar{9, 9};  // overwritten
  std::vector<double> table_bar, pixel_bar;
};

RayGradient adjoint(const Stage& s, Vec2<double> theta, Vec2<double> alpha_nn, double bar, int times = 1) {
  RayGradient g;
  g.table_bar.resize(s.table.size());
  g.pixel_bar.resize(s.pixels.size());
  for (int i = 0; i < times; ++i)
    render_ray_adjoint(s.scene(), theta, alpha_nn, bar, g.alpha_bar, g.table_bar.data(),
                       [&](int k, double value) { g.pixel_bar[static_cast<std::size_t>(k)] += value; });
  return g;
}

/// A smooth stand-in for a network, and its gradient.
NetworkSample<double> sample_at(Vec2<double> position) {
  const double phase = 1.3 * position.x - 0.7 * position.y;
  return {2 * std::sin(phase) - 0.3 * position.x, {2.6 * std::cos(phase) - 0.3, -1.4 * std::cos(phase)}};
}

/// A lens, and a NETWORK component on a Sérsic: lensed or not.
Stage network_stage(bool lensed) {
  Stage s;
  s.lens(LensKind::sie, {1.1, 0.15, -0.04, 0.02, -0.03});
  s.light(s.n_source, LightKind::sersic_ellipse, {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15}, RadiusKind::major_axis);
  s.light(lensed ? s.n_source : s.n_lens_light, LightKind::network, {6, 0.3, -0.2});
  return s;
}
constexpr int kNetwork = 2;  // its place

constexpr Vec2<double> kRays[] = {{1.3, 0.61}, {-0.7, 0.9}, {0.2, -1.6}, {2.1, 1.9}, {-0.05, 0.06}, {9, -7}};

TEST(Render, AdjointAgainstDifferences) {
  const Stage s = full_stage();
  for (const Vec2<double> theta : kRays) {
    // Variables: α_nn, the table, the pixels. The rays stay off the centers, where steps of one size do not do.
    std::vector<double> x = {0.05, -0.03};
    x.insert(x.end(), s.table.begin(), s.table.end());
    x.insert(x.end(), s.pixels.begin(), s.pixels.end());
    std::vector<double> scale(x.size(), 0.05);
    const auto f = [&](const std::vector<double>& at) {
      Stage moved = s;
      std::copy_n(at.begin() + 2, s.table.size(), moved.table.begin());
      std::copy_n(at.begin() + 2 + static_cast<std::ptrdiff_t>(s.table.size()), s.pixels.size(), moved.pixels.begin());
      return render_ray(moved.scene(), theta, Vec2<double>{at[0], at[1]});
    };
    const RayGradient g = adjoint(s, theta, {x[0], x[1]}, 1.0);
    std::vector<double> gradient = {g.alpha_bar.x, g.alpha_bar.y};
    gradient.insert(gradient.end(), g.table_bar.begin(), g.table_bar.end());
    gradient.insert(gradient.end(), g.pixel_bar.begin(), g.pixel_bar.end());
    EXPECT_LE(gradient_error(f, x, scale, gradient), tolerance::kDifference) << theta.x << ", " << theta.y;
    std::vector<double> direction(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) direction[i] = std::cos(1.3 * static_cast<double>(i));
    EXPECT_NEAR(taylor_order(f, x, direction, gradient, 1e-4), 2, tolerance::kTaylorOrder);
  }
}

TEST(Render, NetworkComponentAgainstDifferences) {
  for (const bool lensed : {true, false}) {
    const Stage s = network_stage(lensed);
    for (const Vec2<double> theta : kRays) {
      // Variables: α_nn, the table; the last is added to the network's value, like a bias.
      std::vector<double> x = {0.05, -0.03};
      x.insert(x.end(), s.table.begin(), s.table.end());
      x.push_back(0);
      const auto f = [&](const std::vector<double>& at) {
        Stage moved = s;
        std::copy_n(at.begin() + 2, s.table.size(), moved.table.begin());
        const Vec2<double> alpha_nn{at[0], at[1]};
        NetworkSample<double> sample = sample_at(network_position(moved.scene(), kNetwork, theta, alpha_nn));
        sample.value += at.back();
        return render_ray(moved.scene(), theta, alpha_nn, sample);
      };
      const Vec2<double> alpha_nn{x[0], x[1]};
      Vec2<double> alpha_bar{};
      std::vector<double> table_bar(s.table.size());
      double value_bar = 9;  // overwritten
      render_ray_adjoint(
          s.scene(), theta, alpha_nn, 1.0, alpha_bar, table_bar.data(), [](int, double) {},
          sample_at(network_position(s.scene(), kNetwork, theta, alpha_nn)), &value_bar);
      std::vector<double> gradient = {alpha_bar.x, alpha_bar.y};
      gradient.insert(gradient.end(), table_bar.begin(), table_bar.end());
      gradient.push_back(value_bar);
      EXPECT_LE(gradient_error(f, x, std::vector<double>(x.size(), 0.05), gradient), tolerance::kDifference)
          << theta.x << ", " << theta.y;
    }
  }
}

TEST(Render, NetworkSeesTheSourcePlaneOrTheImage) {
  const Vec2<double> alpha_nn{0.05, -0.03};
  for (const Vec2<double> theta : kRays) {
    const Stage s = network_stage(true);
    const Vec2<double> beta = theta - macro_deflection(s.scene(), theta) - alpha_nn;
    const Vec2<double> source = network_position(s.scene(), kNetwork, theta, alpha_nn),
                       light = network_position(network_stage(false).scene(), kNetwork, theta, alpha_nn);
    EXPECT_EQ(source.x, beta.x - 0.3);
    EXPECT_EQ(source.y, beta.y + 0.2);
    EXPECT_EQ(light.x, theta.x - 0.3);
    EXPECT_EQ(light.y, theta.y + 0.2);
  }
}

TEST(Render, ScalarsAddAndTheDeflectionIsOverwritten) {
  const Stage s = full_stage();
  const RayGradient once = adjoint(s, kRays[0], {0.05, -0.03}, 0.7),
                    twice = adjoint(s, kRays[0], {0.05, -0.03}, 0.7, 2);
  EXPECT_EQ(twice.alpha_bar.x, once.alpha_bar.x);
  EXPECT_EQ(twice.alpha_bar.y, once.alpha_bar.y);
  for (std::size_t i = 0; i < once.table_bar.size(); ++i) EXPECT_EQ(twice.table_bar[i], 2 * once.table_bar[i]);
  for (std::size_t i = 0; i < once.pixel_bar.size(); ++i) EXPECT_EQ(twice.pixel_bar[i], 2 * once.pixel_bar[i]);
}

TEST(Render, WithoutFreeParametersOnlyTheDeflectionIsComputed) {
  const Stage s = full_stage();
  const RayGradient with = adjoint(s, kRays[1], {0.05, -0.03}, 0.7);
  Vec2<double> alpha_bar{};
  std::vector<double> pixel_bar(s.pixels.size());
  render_ray_adjoint_by_component(
      s.scene(), kRays[1], Vec2<double>{0.05, -0.03}, 0.7, false, alpha_bar,
      [](int, const double*) { ADD_FAILURE() << "no parameter is free"; },
      [&](int k, double value) { pixel_bar[static_cast<std::size_t>(k)] += value; });
  EXPECT_EQ(alpha_bar.x, with.alpha_bar.x);
  EXPECT_EQ(alpha_bar.y, with.alpha_bar.y);
  EXPECT_EQ(pixel_bar, with.pixel_bar);
}

TEST(Render, ComponentsAreCollectedOnceEach) {
  const Stage s = full_stage();
  std::vector<int> calls(s.components.size());
  Vec2<double> alpha_bar{};
  render_ray_adjoint_by_component(
      s.scene(), kRays[1], Vec2<double>{}, 1.0, true, alpha_bar,
      [&](int c, const double*) { ++calls[static_cast<std::size_t>(c)]; }, [](int, double) {});
  EXPECT_EQ(calls, std::vector<int>(s.components.size(), 1));
}

TEST(Render, UnlensedImageIsTheSource) {
  Stage s;
  s.light(s.n_source, LightKind::sersic_ellipse, {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15}, RadiusKind::major_axis);
  for (const Vec2<double> theta : kRays) {
    EXPECT_EQ(render_ray(s.scene(), theta, Vec2<double>{}),
              sersic_brightness(s.table.data(), RadiusKind::major_axis, theta));
    const Vec2<double> alpha = macro_deflection(s.scene(), theta);
    EXPECT_EQ(alpha.x, 0);
    EXPECT_EQ(alpha.y, 0);
  }
}

TEST(Render, LensLightIsNotDeflected) {
  Stage s;
  s.lens(LensKind::sie, {1.1, 0.15, -0.04, 0, 0});
  s.light(s.n_lens_light, LightKind::gaussian, {4, 0.6, -0.2, 0.1});
  const double* p = s.table.data() + kMaxProfileParameters;
  for (const Vec2<double> theta : kRays) {
    EXPECT_EQ(render_ray(s.scene(), theta, Vec2<double>{0.3, 0.4}), gaussian_brightness(p, theta));
    const RayGradient g = adjoint(s, theta, {0.3, 0.4}, 1.0);
    EXPECT_EQ(g.alpha_bar.x, 0);
    EXPECT_EQ(g.alpha_bar.y, 0);
    for (int k = 0; k < kMaxProfileParameters; ++k) EXPECT_EQ(g.table_bar[static_cast<std::size_t>(k)], 0);
  }
}

TEST(Render, EinsteinRingShowsTheCenterOfTheSource) {
  Stage s;
  s.lens(LensKind::sis, {1.3, 0.2, -0.1});
  s.light(s.n_source, LightKind::gaussian, {4, 0.6, 0.2, -0.1});
  const double peak = gaussian_brightness(s.table.data() + kMaxProfileParameters, Vec2<double>{0.2, -0.1});
  for (int i = 0; i < 12; ++i) {
    const double angle = i * kPi / 6;
    const Vec2<double> ring{0.2 + 1.3 * std::cos(angle), -0.1 + 1.3 * std::sin(angle)};
    EXPECT_NEAR(render_ray(s.scene(), ring, Vec2<double>{}), peak, 1e-12 * peak);
  }
}

TEST(Render, ADeflectionMayComeFromTheModelOrFromTheNetwork) {
  Stage s = full_stage();
  for (const Vec2<double> theta : kRays) {
    const double lensed = render_ray(s.scene(), theta, Vec2<double>{});
    Stage bare = s;
    bare.components.erase(bare.components.begin(), bare.components.begin() + s.n_lens);
    bare.table.erase(bare.table.begin(), bare.table.begin() + s.n_lens * kMaxProfileParameters);
    bare.n_lens = 0;
    EXPECT_NEAR(render_ray(bare.scene(), theta, macro_deflection(s.scene(), theta)), lensed, 1e-13 * lensed);
  }
}

TEST(Render, ValuesOfTheSmoothModelAreSums) {
  const Stage s = full_stage();
  for (const Vec2<double> theta : kRays) {
    const LensValues<double> sum = macro_values(s.scene(), theta);
    LensValues<double> expected{};
    for (int c = 0; c < s.n_lens; ++c) {
      const LensValues<double> v = lens_values(static_cast<LensKind>(s.components[static_cast<std::size_t>(c)].kind),
                                               s.table.data() + c * kMaxProfileParameters, theta);
      expected.psi += v.psi;
      expected.alpha += v.alpha;
      expected.kappa += v.kappa;
      expected.gamma1 += v.gamma1;
      expected.gamma2 += v.gamma2;
    }
    EXPECT_EQ(sum.psi, expected.psi);
    EXPECT_EQ(sum.kappa, expected.kappa);
    EXPECT_EQ(sum.gamma1, expected.gamma1);
    EXPECT_EQ(sum.gamma2, expected.gamma2);
    const Vec2<double> alpha = macro_deflection(s.scene(), theta);
    EXPECT_EQ(sum.alpha.x, alpha.x);
    EXPECT_EQ(sum.alpha.y, alpha.y);
  }
}

TEST(Render, RotationAndTranslationOfEverythingChangeNothing) {
  const double angle = 0.77, cosine = std::cos(angle), sine = std::sin(angle);
  const auto turn = [&](Vec2<double> a) { return Vec2<double>{cosine * a.x - sine * a.y, sine * a.x + cosine * a.y}; };
  const auto turn_twice = [&](Vec2<double> a) { return turn(turn(a)); };
  const Vec2<double> shift{2.3, -1.1};
  const Vec2<double> e{0.15, -0.04}, center{0.02, -0.03}, source_e{-0.09, 0.03}, source{0.4, 0.15};
  const auto stage = [](Vec2<double> ellipticity, Vec2<double> at, Vec2<double> light_ellipticity,
                        Vec2<double> light_at) {
    Stage s;
    s.lens(LensKind::sie, {1.1, ellipticity.x, ellipticity.y, at.x, at.y});
    s.light(s.n_source, LightKind::sersic_ellipse,
            {10, 1.2, 1.5, light_ellipticity.x, light_ellipticity.y, light_at.x, light_at.y}, RadiusKind::major_axis);
    return s;
  };
  const Stage before = stage(e, center, source_e, source);
  const Stage after = stage(turn_twice(e), turn(center) + shift, turn_twice(source_e), turn(source) + shift);
  for (const Vec2<double> theta : kRays) {
    const double value = render_ray(before.scene(), theta, Vec2<double>{0.05, -0.03});
    EXPECT_NEAR(render_ray(after.scene(), turn(theta) + shift, turn(Vec2<double>{0.05, -0.03})), value,
                10 * tolerance::kCovariance * value);
  }
}

}  // namespace
}  // namespace einfield
