// Lens profiles: adjoints against differences, potential against deflection against convergence and shear, symmetries,
// limits, independent formulas, single against double precision, and finiteness wherever a ray may go.
#include "einfield/lens.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "einfield/error.hpp"
#include "einfield/model.hpp"
#include "einfield/network.hpp"
#include "tests/gradcheck.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

constexpr double kPi = 3.14159265358979323846;

struct LensCase {
  std::string name;
  LensKind kind;
  std::vector<double> p;
  friend void PrintTo(const LensCase& c, std::ostream* out) { *out << c.name; }
};

/// Every profile; ellipticities that are zero, tiny, on both sides of the switch at |ε| = 1/16, and large.
std::vector<LensCase> lens_cases() {
  std::vector<LensCase> cases;
  const struct {
    const char* name;
    double e1, e2;
  } shapes[] = {{"round", 0, 0},           {"nearly_round", 1e-9, -2e-9}, {"denormal", 0, 1e-310},    {"below_switch", 0.05, -0.0374},
                {"above_switch", 0.05, -0.0376}, {"paper", 0.15, -0.04},  {"negative_e1", -0.3, 0.2}, {"flat", 0.5, 0.6}};
  for (const auto& s : shapes) {
    const std::string name = s.name;
    cases.push_back({"sie_" + name, LensKind::sie, {1.6, s.e1, s.e2, 0.1, -0.2}});
    cases.push_back({"nie_" + name, LensKind::nie, {1.4, s.e1, s.e2, 0.13, -0.05, 0.02}});
    cases.push_back({"epl_" + name, LensKind::epl, {1.3, 1.92, s.e1, s.e2, 0.03, -0.04}});
    cases.push_back({"epl_shallow_" + name, LensKind::epl, {0.7, 1.3, s.e1, s.e2, 0, 0}});
    cases.push_back({"epl_steep_" + name, LensKind::epl, {1.1, 2.6, s.e1, s.e2, 0, 0}});
    cases.push_back({"nfw_ellipse_" + name, LensKind::nfw_ellipse_potential, {1.7, 0.9, s.e1, s.e2, 0.2, 0.1}});
  }
  cases.push_back({"sis", LensKind::sis, {0.9, 0.1, 0.2}});
  cases.push_back({"nfw_small", LensKind::nfw, {0.3, 0.21, 0.2, -0.1}});
  cases.push_back({"nfw_large", LensKind::nfw, {30, 4, 0, 0}});
  cases.push_back({"shear", LensKind::shear, {-0.1, 0.07, 0.3, -0.2}});
  cases.push_back({"convergence", LensKind::convergence, {0.07, 0.3, -0.2}});
  cases.push_back({"point_mass", LensKind::point_mass, {0.8, -0.4, 0.2}});
  for (const int m : {2, 3, 4, 9})
    cases.push_back({"multipole_" + std::to_string(m), LensKind::multipole, {static_cast<double>(m), 0.04, 0.3, 0.1, 0.2}});
  return cases;
}

/// Distances from the center, for directions on the axes and between.
constexpr double kRadii[] = {1e-8, 1e-3, 0.1, 0.7, 1.6, 3.3, 40, 1e5};
constexpr double kAngles[] = {0, 0.4, kPi / 2, 2.1, kPi, -kPi / 2, -0.9};

Vec2<double> center_of(const LensCase& c) {
  const auto i = static_cast<std::size_t>(lens_center(c.kind));
  return {c.p[i], c.p[i + 1]};
}

double component(const LensValues<double>& v, int i) {
  const double values[] = {v.psi, v.alpha.x, v.alpha.y, v.kappa, v.gamma1, v.gamma2};
  return values[i];
}

LensValues<double> unit_cotangent(int i) {
  LensValues<double> bar;
  double* slots[] = {&bar.psi, &bar.alpha.x, &bar.alpha.y, &bar.kappa, &bar.gamma1, &bar.gamma2};
  *slots[i] = 1;
  return bar;
}

/// Length over which values change with each parameter; `r` for positions.
std::vector<double> scales(const LensCase& c, double r) {
  const ProfileInfo& info = lens_info(c.kind);
  double ellipticity2 = 0;
  for (std::size_t k = 0; k < c.p.size(); ++k)
    if (info.parameters[k].range == Range::ellipticity) ellipticity2 += c.p[k] * c.p[k];
  const double flatness = 1 - std::sqrt(ellipticity2);
  std::vector<double> scale = {r * flatness, r * flatness};
  for (std::size_t k = 0; k < c.p.size(); ++k) {
    const ParameterInfo& p = info.parameters[k];
    const bool is_center = static_cast<int>(k) == lens_center(c.kind) || static_cast<int>(k) == lens_center(c.kind) + 1;
    double size = std::abs(c.p[k]);
    if (p.range == Range::ellipticity) size = flatness;
    if (p.range == Range::interval) size = std::min(c.p[k] - p.lower, p.upper - c.p[k]);
    if (is_center) size = r * flatness;
    // log and power of R/Rs, R/s: no finer than their own scale.
    scale.push_back(0.3 * size);
  }
  return scale;
}

/// Parameters and position as one vector of variables around a center at the origin: near the center the difference θ − center
/// would otherwise lose the digits of the step. Cases with another center have tests of their own below.
struct Variables {
  LensCase lens;
  std::vector<double> x;

  Variables(LensCase c, double r, double angle) : lens(std::move(c)) {
    const auto i = static_cast<std::size_t>(lens_center(lens.kind));
    lens.p[i] = lens.p[i + 1] = 0;
    x = {r * std::cos(angle), r * std::sin(angle)};
    if (angle == kPi / 2 || angle == -kPi / 2) x[0] = 0;
    if (angle == kPi) x[1] = 0;
    x.insert(x.end(), lens.p.begin(), lens.p.end());
  }
  Vec2<double> theta() const { return {x[0], x[1]}; }
};

/// Gradient with respect to θ and every parameter, in the order of Variables::x.
template <class Cotangent>
std::vector<double> gradient_of(const Variables& v, const Cotangent& bar) {
  std::vector<double> gradient(v.x.size());
  Vec2<double> theta_bar{};
  lens_kind_adjoint(v.lens.kind, v.lens.p.data(), v.theta(), bar, theta_bar, gradient.data() + 2);
  gradient[0] = theta_bar.x;
  gradient[1] = theta_bar.y;
  return gradient;
}

class Lenses : public testing::TestWithParam<LensCase> {};

TEST_P(Lenses, AdjointOfValuesAgainstDifferences) {
  const bool integer_first = lens_info(GetParam().kind).parameters[0].range == Range::integer;
  for (const double r : kRadii)
    for (const double angle : kAngles) {
      const Variables v(GetParam(), r, angle);
      for (int i = 0; i < 6; ++i) {
        const auto f = [&](const std::vector<double>& x) {
          return component(lens_values(v.lens.kind, x.data() + 2, Vec2<double>{x[0], x[1]}), i);
        };
        std::vector<double> gradient = gradient_of(v, unit_cotangent(i)), scale = scales(v.lens, r);
        if (integer_first) {
          EXPECT_EQ(gradient[2], 0);
          scale[2] = 0;
          gradient[2] = 0;
        }
        // Where a component vanishes by symmetry (κ of a shear), or nearly does, the rounding of its size remains.
        const LensValues<double> values = lens_values(v.lens.kind, v.lens.p.data(), v.theta());
        const double curvature = std::abs(values.kappa) + std::hypot(values.gamma1, values.gamma2);
        const double size = i == 0 ? std::abs(values.psi) + r * std::hypot(values.alpha.x, values.alpha.y)
                            : i < 3 ? std::hypot(values.alpha.x, values.alpha.y) + r * curvature
                                    : curvature;
        const auto g = [&](const std::vector<double>& x) { return f(x); };
        if (integer_first) scale[2] = 1e-300;
        EXPECT_LE(gradient_error(g, v.x, scale, gradient, 1e-2 * size), tolerance::kDifference)
            << "component " << i << " at r = " << r << ", angle " << angle;
      }
    }
}

TEST_P(Lenses, AdjointOfDeflectionIsThatOfValues) {
  for (const double r : kRadii)
    for (const double angle : kAngles) {
      const Variables v(GetParam(), r, angle);
      const Vec2<double> bar{0.7, -1.1};
      const std::vector<double> alone = gradient_of(v, bar);
      const std::vector<double> among = gradient_of(v, LensValues<double>{0, bar, 0, 0, 0});
      const std::vector<double> scale = scales(v.lens, r);
      double largest = 0;
      for (std::size_t i = 0; i < alone.size(); ++i) largest = std::max(largest, scale[i] * std::abs(alone[i]));
      for (std::size_t i = 0; i < alone.size(); ++i)
        EXPECT_NEAR(scale[i] * alone[i], scale[i] * among[i], tolerance::kSameFormula * largest) << i << " at " << r;
      const Vec2<double> alpha = lens_deflection(v.lens.kind, v.lens.p.data(), v.theta());
      const LensValues<double> values = lens_values(v.lens.kind, v.lens.p.data(), v.theta());
      EXPECT_EQ(alpha.x, values.alpha.x);
      EXPECT_EQ(alpha.y, values.alpha.y);
    }
}

TEST_P(Lenses, PotentialDeflectionConvergenceAndShearBelongTogether) {
  for (const double r : kRadii)
    for (const double angle : kAngles) {
      const Variables v(GetParam(), r, angle);
      const LensValues<double> values = lens_values(v.lens.kind, v.lens.p.data(), v.theta());
      // ∇ψ = α
      const std::vector<double> slope = gradient_of(v, unit_cotangent(0));
      const double alpha = std::hypot(values.alpha.x, values.alpha.y);
      // EPL: its core makes α no gradient, by (s/R)² of itself, R ≥ (1 − |e|) r.
      const double radius = scales(v.lens, r)[0];
      const double core = v.lens.kind == LensKind::epl ? 10 * std::pow(kLensCore / radius, 2) : 0;
      EXPECT_NEAR(slope[0], values.alpha.x, (1e-12 + core) * alpha);
      EXPECT_NEAR(slope[1], values.alpha.y, (1e-12 + core) * alpha);
      // ∂α/∂θ = [[κ + γ1, γ2], [γ2, κ − γ1]]; its symmetry is curl α = 0.
      const std::vector<double> row_x = gradient_of(v, unit_cotangent(1)), row_y = gradient_of(v, unit_cotangent(2));
      const double size = (1e-12 + core) * (std::abs(values.kappa) + std::hypot(values.gamma1, values.gamma2));
      EXPECT_NEAR(row_x[0], values.kappa + values.gamma1, size) << r;
      EXPECT_NEAR(row_x[1], values.gamma2, size) << r;
      EXPECT_NEAR(row_y[0], values.gamma2, size) << r;
      EXPECT_NEAR(row_y[1], values.kappa - values.gamma1, size) << r;
    }
}

TEST_P(Lenses, ScalarAdjointsAdd) {
  const LensCase& c = GetParam();
  const Vec2<double> theta = center_of(c) + Vec2<double>{0.8, -0.3};
  const LensValues<double> bar{0.3, {0.7, -1.1}, 0.2, -0.4, 0.5};
  std::vector<double> once(kMaxProfileParameters), twice(kMaxProfileParameters);
  Vec2<double> theta_once{}, theta_twice{}, theta_alone{};
  lens_values_adjoint(c.kind, c.p.data(), theta, bar, theta_once, once.data());
  for (int k = 0; k < 2; ++k) lens_values_adjoint(c.kind, c.p.data(), theta, bar, theta_twice, twice.data());
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_EQ(twice[i], 2 * once[i]);
  EXPECT_EQ(theta_twice.x, 2 * theta_once.x);
  EXPECT_EQ(theta_twice.y, 2 * theta_once.y);
  // Position and center enter as their difference.
  const auto center = static_cast<std::size_t>(lens_center(c.kind));
  EXPECT_EQ(once[center], -theta_once.x);
  EXPECT_EQ(once[center + 1], -theta_once.y);
  // Without parameters: the same cotangent of the position.
  lens_values_adjoint(c.kind, c.p.data(), theta, bar, theta_alone, static_cast<double*>(nullptr));
  EXPECT_EQ(theta_alone.x, theta_once.x);
  EXPECT_EQ(theta_alone.y, theta_once.y);
  Vec2<double> with{}, without{};
  lens_deflection_adjoint(c.kind, c.p.data(), theta, bar.alpha, with, once.data());
  lens_deflection_adjoint(c.kind, c.p.data(), theta, bar.alpha, without, static_cast<double*>(nullptr));
  const double size = std::hypot(with.x, with.y);
  EXPECT_NEAR(with.x, without.x, tolerance::kSameFormula * size);
  EXPECT_NEAR(with.y, without.y, tolerance::kSameFormula * size);
}

TEST_P(Lenses, TaylorRemainderFallsAsTheSquare) {
  const Variables v(GetParam(), 0.9, 0.7);
  const LensValues<double> bar{0.3, {0.7, -1.1}, 0.2, -0.4, 0.5};
  const std::vector<double> scale = scales(v.lens, 0.9), gradient = gradient_of(v, bar);
  std::vector<double> direction(v.x.size());
  for (std::size_t i = 0; i < direction.size(); ++i) direction[i] = scale[i] * std::cos(1.3 * static_cast<double>(i));
  if (v.lens.kind == LensKind::multipole) direction[2] = 0;
  const auto f = [&](const std::vector<double>& x) {
    const LensValues<double> w = lens_values(v.lens.kind, x.data() + 2, Vec2<double>{x[0], x[1]});
    return bar.psi * w.psi + dot(bar.alpha, w.alpha) + bar.kappa * w.kappa + bar.gamma1 * w.gamma1 + bar.gamma2 * w.gamma2;
  };
  EXPECT_NEAR(taylor_order(f, v.x, direction, gradient, 1e-3), 2, tolerance::kTaylorOrder);
}

/// Turns a lens about its center.
std::vector<double> rotated(const LensCase& c, double angle) {
  std::vector<double> p = c.p;
  const ProfileInfo& info = lens_info(c.kind);
  const auto turn = [&](int i, double by) {
    if (i < 0) return;
    const auto k = static_cast<std::size_t>(i);
    const double a = p[k], b = p[k + 1];
    p[k] = std::cos(by) * a - std::sin(by) * b;
    p[k + 1] = std::sin(by) * a + std::cos(by) * b;
  };
  turn(info.index_of("e1"), 2 * angle);
  turn(info.index_of("gamma1"), 2 * angle);
  if (c.kind == LensKind::multipole) p[2] += angle;
  return p;
}

TEST_P(Lenses, RotationTurnsTheDeflection) {
  const LensCase& c = GetParam();
  const double angle = 0.77, cosine = std::cos(angle), sine = std::sin(angle);
  const std::vector<double> turned = rotated(c, angle);
  for (const double r : {0.1, 0.7, 3.0})
    for (const double direction : kAngles) {
      const Vec2<double> z{r * std::cos(direction), r * std::sin(direction)};
      const Vec2<double> z_turned{cosine * z.x - sine * z.y, sine * z.x + cosine * z.y};
      const LensValues<double> a = lens_values(c.kind, c.p.data(), center_of(c) + z);
      const LensValues<double> b = lens_values(c.kind, turned.data(), center_of(c) + z_turned);
      const double alpha = std::hypot(a.alpha.x, a.alpha.y);
      EXPECT_NEAR(b.psi, a.psi, tolerance::kCovariance * (std::abs(a.psi) + r * alpha));
      EXPECT_NEAR(b.alpha.x, cosine * a.alpha.x - sine * a.alpha.y, tolerance::kCovariance * alpha);
      EXPECT_NEAR(b.alpha.y, sine * a.alpha.x + cosine * a.alpha.y, tolerance::kCovariance * alpha);
      const double size = std::abs(a.kappa) + std::hypot(a.gamma1, a.gamma2);
      EXPECT_NEAR(b.kappa, a.kappa, 10 * tolerance::kCovariance * size);
      EXPECT_NEAR(b.gamma1, std::cos(2 * angle) * a.gamma1 - std::sin(2 * angle) * a.gamma2,
                  10 * tolerance::kCovariance * size);
      EXPECT_NEAR(b.gamma2, std::sin(2 * angle) * a.gamma1 + std::cos(2 * angle) * a.gamma2,
                  10 * tolerance::kCovariance * size);
    }
}

TEST_P(Lenses, TranslationMovesTheCenter) {
  LensCase c = GetParam();
  const auto center = static_cast<std::size_t>(lens_center(c.kind));
  // Numbers with few digits: the difference θ − center has no rounding.
  c.p[center] = 0.125;
  c.p[center + 1] = -0.25;
  const Vec2<double> z{0.75, 0.5};
  const LensValues<double> a = lens_values(c.kind, c.p.data(), center_of(c) + z);
  c.p[center] += 2.5;
  c.p[center + 1] -= 1.25;
  const LensValues<double> b = lens_values(c.kind, c.p.data(), center_of(c) + z);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(component(a, i), component(b, i));
}

TEST_P(Lenses, SinglePrecisionIsGood) {
  const LensCase& c = GetParam();
  std::vector<float> single;
  std::vector<double> rounded;
  for (const double value : c.p) {
    single.push_back(static_cast<float>(value));
    rounded.push_back(single.back());
  }
  const LensCase same{c.name, c.kind, rounded};
  single.resize(kMaxProfileParameters);
  const auto center = static_cast<std::size_t>(lens_center(c.kind));
  for (const double r : {1e-3, 0.1, 0.7, 1.6, 3.3, 40.0})
    for (const double angle : kAngles) {
      // A sum in float: GCC 12 at -O2 forgets a conversion to float and back.
      const Vec2<float> offset{static_cast<float>(r * std::cos(angle)), static_cast<float>(r * std::sin(angle))};
      const Vec2<float> theta{single[center] + offset.x, single[center + 1] + offset.y};
      const Vec2<double> theta2{theta.x, theta.y};
      const LensValues<float> a = lens_values(c.kind, single.data(), theta);
      const LensValues<double> b = lens_values(c.kind, rounded.data(), theta2);
      const double alpha = std::hypot(b.alpha.x, b.alpha.y);
      const double curvature = std::abs(b.kappa) + std::hypot(b.gamma1, b.gamma2);
      EXPECT_NEAR(a.psi, b.psi, tolerance::kSingle * (std::abs(b.psi) + r * alpha)) << r << " " << angle;
      EXPECT_NEAR(a.alpha.x, b.alpha.x, tolerance::kSingle * alpha) << r << " " << angle;
      EXPECT_NEAR(a.alpha.y, b.alpha.y, tolerance::kSingle * alpha) << r << " " << angle;
      EXPECT_NEAR(a.kappa, b.kappa, tolerance::kSingle * curvature) << r << " " << angle;
      EXPECT_NEAR(a.gamma1, b.gamma1, tolerance::kSingle * curvature) << r << " " << angle;
      EXPECT_NEAR(a.gamma2, b.gamma2, tolerance::kSingle * curvature) << r << " " << angle;

      std::vector<float> p_bar(kMaxProfileParameters);
      std::vector<double> p_bar2(kMaxProfileParameters);
      Vec2<float> theta_bar{};
      Vec2<double> theta_bar2{};
      lens_deflection_adjoint(c.kind, single.data(), theta, Vec2<float>{0.75f, -1.25f}, theta_bar, p_bar.data());
      lens_deflection_adjoint(c.kind, rounded.data(), theta2, Vec2<double>{0.75, -1.25}, theta_bar2, p_bar2.data());
      const std::vector<double> scale = scales(same, r);
      double largest = scale[0] * std::hypot(theta_bar2.x, theta_bar2.y);
      for (std::size_t k = 0; k < rounded.size(); ++k) largest = std::max(largest, scale[k + 2] * std::abs(p_bar2[k]));
      EXPECT_NEAR(scale[0] * theta_bar.x, scale[0] * theta_bar2.x, tolerance::kSingle * largest) << r << " " << angle;
      EXPECT_NEAR(scale[1] * theta_bar.y, scale[1] * theta_bar2.y, tolerance::kSingle * largest) << r << " " << angle;
      for (std::size_t k = 0; k < rounded.size(); ++k)
        EXPECT_NEAR(scale[k + 2] * p_bar[k], scale[k + 2] * p_bar2[k], tolerance::kSingle * largest)
            << k << " at " << r << " " << angle;
    }
}

INSTANTIATE_TEST_SUITE_P(Profiles, Lenses, testing::ValuesIn(lens_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace einfield
