// Lens profiles: adjoints against differences, potential against deflection against convergence and shear, symmetries,
// limits, independent formulas, single against double precision, and finiteness wherever a ray may go.
#include "einfield/lens.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
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
  } shapes[] = {{"round", 0, 0},
                {"nearly_round", 1e-9, -2e-9},
                {"denormal", 0, 1e-310},
                {"below_switch", 0.05, -0.0374},
                {"above_switch", 0.05, -0.0376},
                {"paper", 0.15, -0.04},
                {"negative_e1", -0.3, 0.2},
                {"flat", 0.5, 0.6}};
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
  for (const int m : {1, 2, 3, 4, 9})
    cases.push_back(
        {"multipole_" + std::to_string(m), LensKind::multipole, {static_cast<double>(m), 0.04, 0.3, 0.1, 0.2, 1.3}});
  cases.push_back({"flexion", LensKind::flexion, {0.02, -0.03, 0.011, 0.04, 0.3, -0.2}});
  cases.push_back({"flexion_of_shear", LensKind::flexion, {0.02, -0.03, -0.02, 0.03, 0, 0}});
  const struct {
    const char* name;
    double Rs, r_trunc;
  } halos[] = {{"short", 1.1, 0.03}, {"half", 1.7, 0.8}, {"one", 0.9, 0.9}, {"long", 0.3, 3.1}, {"endless", 1.1, 900}};
  for (const auto& h : halos)
    cases.push_back({std::string("tnfw_") + h.name, LensKind::tnfw, {h.Rs, 0.21, h.r_trunc, 0.2, -0.1}});
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

/// Parameters and position as one vector of variables around a center at the origin: near the center the difference
/// θ − center would otherwise lose the digits of the step. TranslationMovesTheCenter covers the rest.
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
  std::vector<double> radii = {0, 0.3 * kLensCore, kLensCore, 3 * kLensCore};
  radii.insert(radii.end(), std::begin(kRadii), std::end(kRadii));
  for (const double at : radii)
    for (const double angle : kAngles) {
      const Variables v(GetParam(), at, angle);
      const double r = std::max(at, kLensCore);  // inside the core, the core sets the scale
      for (int i = 0; i < 6; ++i) {
        const auto f = [&](const std::vector<double>& x) {
          return component(lens_values(v.lens.kind, x.data() + 2, Vec2<double>{x[0], x[1]}), i);
        };
        std::vector<double> gradient = gradient_of(v, unit_cotangent(i)), scale = scales(v.lens, r);
        if (integer_first) {
          EXPECT_EQ(gradient[2], 0);
          scale[2] = 0;  // no step: a multipole's order has no derivative
        }
        // Where a component vanishes by symmetry (κ of a shear), or nearly does, the rounding of its size remains.
        const LensValues<double> values =
            lens_values(v.lens.kind, v.lens.p.data(), Variables(GetParam(), r, angle).theta());
        const double curvature = std::abs(values.kappa) + std::hypot(values.gamma1, values.gamma2);
        const double size = i == 0  ? std::abs(values.psi) + r * std::hypot(values.alpha.x, values.alpha.y)
                            : i < 3 ? std::hypot(values.alpha.x, values.alpha.y) + r * curvature
                                    : curvature;
        EXPECT_LE(gradient_error(f, v.x, scale, gradient, 1e-2 * size), tolerance::kDifference)
            << "component " << i << " at r = " << at << ", angle " << angle;
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
    return bar.psi * w.psi + dot(bar.alpha, w.alpha) + bar.kappa * w.kappa + bar.gamma1 * w.gamma1 +
           bar.gamma2 * w.gamma2;
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
  if (c.kind == LensKind::flexion) {  // a symmetric tensor of rank 3
    const double axes[2][2] = {{std::cos(angle), -std::sin(angle)}, {std::sin(angle), std::cos(angle)}};
    for (int ys = 0; ys < 4; ++ys) {  // ψ_xxx, ψ_xxy, ψ_xyy, ψ_yyy: ys indices are y
      double sum = 0;
      for (int i = 0; i < 8; ++i) {
        double term = c.p[static_cast<std::size_t>((i & 1) + (i >> 1 & 1) + (i >> 2))];
        for (int k = 0; k < 3; ++k) term *= axes[k < ys][i >> k & 1];
        sum += term;
      }
      p[static_cast<std::size_t>(ys)] = sum;
    }
  }
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

// ---- Special functions behind the profiles ----

TEST(ScaledArctan, AgreesWithTheComplexArctangent) {
  // On both sides of the switch to the series, in all directions, |σ| up to 1.
  for (const double size : {1e-3, 0.03, 0.0624, 0.0626, 0.2, 0.6, 0.9, 0.99})
    for (const double angle : kAngles)
      for (const double length : {1e-6, 0.3, 0.9, 1.0})
        for (const double direction : {0.1, 1.2, 2.9, -2.0, -0.4}) {
          using Complex = std::complex<long double>;
          const Vec2<double> e{size * std::cos(angle), size * std::sin(angle)};
          const Vec2<double> sigma{length * std::cos(direction), length * std::sin(direction)};
          const Complex root = std::sqrt(Complex(e.x, e.y)), s(sigma.x, sigma.y);
          const Complex value = std::atan(root * s) / root;
          const Complex slope = (s / (Complex(1) + root * root * s * s) - value) / (Complex(2) * root * root);
          const ScaledArctan<double> f = scaled_arctan(e, sigma, true);
          const auto value_size = static_cast<double>(std::abs(value));
          EXPECT_NEAR(f.value.x, static_cast<double>(value.real()), 1e-14 / (1 - size) * value_size);
          EXPECT_NEAR(f.value.y, static_cast<double>(value.imag()), 1e-14 / (1 - size) * value_size);
          // The closed form loses a factor 1/|ε| ≤ 16 of the digits of σ; the long double one more than that below it.
          const double rounding = 1e-14 / (1 - size) / (1 - size) * length * (size < 0.0625 ? 1e-3 / size : 1);
          EXPECT_NEAR(f.slope.x, static_cast<double>(slope.real()), rounding) << size << " " << angle << " " << length;
          EXPECT_NEAR(f.slope.y, static_cast<double>(slope.imag()), rounding) << size << " " << angle << " " << length;
        }
}

TEST(EplSeries, AgreesWithClosedForms) {
  for (const double c : {0.0, 1e-6, 0.1, 0.5, 0.9, 0.99})
    for (const double angle : kAngles) {
      const std::complex<double> x = std::polar(c, angle);
      const Vec2<double> at{x.real(), x.imag()};
      const auto expect = [&](double g, std::complex<double> value) {
        const EplSeries<double> f = epl_series(at, g, c, true);
        EXPECT_NEAR(f.value.x, value.real(), 1e-14 / std::pow(1 - c, 2)) << c << " " << g;
        EXPECT_NEAR(f.value.y, value.imag(), 1e-14 / std::pow(1 - c, 2)) << c << " " << g;
      };
      expect(1, 1);                // a mass sheet
      expect(0, 1.0 / (1.0 - x));  // a point mass
      const std::complex<double> root = std::sqrt(x);
      expect(0.5, c > 0 ? std::atanh(root) / root : 1.0);  // isothermal
    }
}

TEST(NfwRadial, AgreesWithClosedFormsInLongDouble) {
  std::vector<double> at = {
      std::sqrt(0.75) - 1e-9, std::sqrt(0.75) + 1e-9, std::sqrt(1.25) - 1e-9, std::sqrt(1.25) + 1e-9, 0.99, 1.01};
  for (double x = 1e-4; x < 1e5; x *= 1.37) at.push_back(x);
  for (const double x : at) {
    const long double y = x, t = y * y - 1;
    const long double a = t < 0 ? std::acosh(1 / y) / std::sqrt(-t) : std::acos(1 / y) / std::sqrt(t);
    const long double l = std::log(y / 2), angle2 = t * a * a;
    const NfwRadial<double> f = nfw_radial(x);
    const long double mean = (l + a) / (y * y), potential = l * l + angle2, convergence = (1 - a) / t;
    const long double slope = -((1 / (y * y) - a) / (2 * t) + convergence) / t;
    // The long double formulas cancel: by x² towards the center (h by ln² x ε = 1e-16), by t and t² at x = 1.
    const double center = 1e-18 / (x * x), one = static_cast<double>(1e-18L / (t * t));
    EXPECT_NEAR(f.mean, static_cast<double>(mean), (1e-14 + center) * f.mean + center) << x;
    EXPECT_NEAR(f.potential, static_cast<double>(potential), 1e-14 * f.potential + 1e-16) << x;
    EXPECT_NEAR(f.convergence, static_cast<double>(convergence), (1e-14 + one) * f.convergence) << x;
    EXPECT_NEAR(f.slope, static_cast<double>(slope), 1e-13 * std::abs(f.slope) + 10 * one) << x;
  }
}

TEST(NfwRadial, IsSmoothWhereTheFormulaIsZeroOverZero) {
  const NfwRadial<double> one = nfw_radial(1.0);
  EXPECT_NEAR(one.convergence, 1.0 / 3, 1e-16);
  EXPECT_NEAR(one.slope, -1.0 / 5, 1e-16);
  EXPECT_NEAR(one.mean, 1 - std::log(2.0), 1e-15);
  EXPECT_NEAR(one.potential, std::log(2.0) * std::log(2.0), 1e-15);
}

// ---- Independent formulas and limits ----

/// Keeton's formulas for the cored isothermal ellipsoid in its own frame, as in lenstronomy.
LensValues<double> keeton_nie(double theta_E, double e1, double e2, double s_scale, Vec2<double> z) {
  const double c = std::hypot(e1, e2), q = (1 - c) / (1 + c), phi = std::atan2(e2, e1) / 2;
  const double b = theta_E * std::sqrt(q), s = s_scale / std::sqrt(q), f = std::sqrt(1 - q * q);
  const double x = std::cos(phi) * z.x + std::sin(phi) * z.y, y = -std::sin(phi) * z.x + std::cos(phi) * z.y;
  const double rho = std::sqrt(q * q * (x * x + s * s) + y * y);
  const double ax = b / f * std::atan(f * x / (rho + s)), ay = b / f * std::atanh(f * y / (rho + q * q * s));
  const double e = (rho + s) * (rho + s) + f * f * x * x;
  const double xx = b * (y * y + q * q * s * s + rho * s) / (rho * e), yy = b * (x * x + s * s + rho * s) / (rho * e);
  const double xy = -b * x * y / (rho * e), half = (xx - yy) / 2;
  return {x * ax + y * ay - b * s / 2 * std::log(e),
          {std::cos(phi) * ax - std::sin(phi) * ay, std::sin(phi) * ax + std::cos(phi) * ay},
          (xx + yy) / 2,
          std::cos(2 * phi) * half - std::sin(2 * phi) * xy,
          std::sin(2 * phi) * half + std::cos(2 * phi) * xy};
}

TEST(Nie, AgreesWithKeetonInTheOwnFrame) {
  for (const double c : {0.03, 0.1, 0.4, 0.8})
    for (const double phi : kAngles)
      for (const double core : {kLensCore, 1e-3, 0.2, 3.0})
        for (const double r : {0.01, 0.5, 2.0})
          for (const double angle : {0.1, 1.3, 2.5, -0.8, -2.2}) {
            const double p[] = {1.4, c * std::cos(phi), c * std::sin(phi), core, 0, 0};
            const Vec2<double> z{r * std::cos(angle), r * std::sin(angle)};
            const LensValues<double> ours = lens_values(LensKind::nie, p, z),
                                     theirs = keeton_nie(p[0], p[1], p[2], core, z);
            const double alpha = std::hypot(theirs.alpha.x, theirs.alpha.y);
            const double digits = tolerance::kIndependentFormula / (1 - c);
            // ψ has the logarithm of E as well.
            EXPECT_NEAR(ours.psi, theirs.psi, digits * (r * alpha + p[0] * core));
            EXPECT_NEAR(ours.alpha.x, theirs.alpha.x, digits * alpha) << c << " " << core << " " << r;
            EXPECT_NEAR(ours.alpha.y, theirs.alpha.y, digits * alpha) << c << " " << core << " " << r;
            EXPECT_NEAR(ours.kappa, theirs.kappa, digits * theirs.kappa);
            EXPECT_NEAR(ours.gamma1, theirs.gamma1, digits * theirs.kappa);
            EXPECT_NEAR(ours.gamma2, theirs.gamma2, digits * theirs.kappa);
          }
}

TEST(Nie, CircularLimitIsTheClosedForm) {
  // α = θ_E (√(r² + s²) − s)/r, reached without a jump from e = 0 through the smallest numbers to 1e-8.
  const double s = 0.3, r = 0.8, theta_E = 1.4;
  for (const double e : {0.0, 5e-324, 1e-200, 1e-100, 1e-16, 1e-8}) {
    const double p[] = {theta_E, -e, e, s, 0, 0};
    const Vec2<double> alpha = lens_deflection(LensKind::nie, p, Vec2<double>{0, r});
    EXPECT_NEAR(alpha.x, 0, 1e-15 + 2 * e);
    EXPECT_NEAR(alpha.y, theta_E * (std::sqrt(r * r + s * s) - s) / r, 1e-15 + 2 * e);
  }
}

TEST(Epl, IsothermalSlopeIsTheSie) {
  for (const double e : {0.0, 0.04, 0.3, 0.7}) {
    const double sie[] = {1.3, -0.6 * e, 0.8 * e, 0.1, -0.2}, epl[] = {1.3, 2, -0.6 * e, 0.8 * e, 0.1, -0.2};
    for (const double r : {0.1, 1.0, 5.0})
      for (const double angle : kAngles) {
        const Vec2<double> theta{0.1 + r * std::cos(angle), -0.2 + r * std::sin(angle)};
        const LensValues<double> a = lens_values(LensKind::sie, sie, theta), b = lens_values(LensKind::epl, epl, theta);
        // Their cores differ: s/r of α, s |ln r| of ψ.
        const double core = 3 * kLensCore / r / (1 - e);
        EXPECT_NEAR(a.psi, b.psi, core * r * 10);
        EXPECT_NEAR(a.alpha.x, b.alpha.x, core * 1.3);
        EXPECT_NEAR(a.alpha.y, b.alpha.y, core * 1.3);
        EXPECT_NEAR(a.kappa, b.kappa, core * a.kappa);
        EXPECT_NEAR(a.gamma1, b.gamma1, core * a.kappa);
        EXPECT_NEAR(a.gamma2, b.gamma2, core * a.kappa);
      }
  }
}

TEST(Nfw, EllipseWithoutEllipticityIsTheCircle) {
  const double circle[] = {1.1, 0.21, 0.2, -0.1}, ellipse[] = {1.1, 0.21, 0, 0, 0.2, -0.1};
  const Vec2<double> theta{0.7, 0.4};
  const LensValues<double> a = lens_values(LensKind::nfw, circle, theta);
  const LensValues<double> b = lens_values(LensKind::nfw_ellipse_potential, ellipse, theta);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(component(a, i), component(b, i));
  // alpha_Rs is the deflection at Rs.
  const Vec2<double> alpha = lens_deflection(LensKind::nfw, circle, Vec2<double>{0.2 + 1.1, -0.1});
  EXPECT_NEAR(alpha.x, 0.21, 1e-15);
}

TEST(Tnfw, FarTruncationIsTheNfw) {
  for (const double r : {1e-3, 0.2, 1.1, 1.6, 7.0}) {
    const double nfw[] = {1.1, 0.21, 0.2, -0.1}, tnfw[] = {1.1, 0.21, 1e6, 0.2, -0.1};
    const Vec2<double> theta{0.2 + r * 0.6, -0.1 + r * 0.8};
    const LensValues<double> a = lens_values(LensKind::nfw, nfw, theta), b = lens_values(LensKind::tnfw, tnfw, theta);
    const double off = 100 * std::pow(std::max(r, nfw[0]) / tnfw[2], 2);
    for (int i = 0; i < 6; ++i) EXPECT_NEAR(component(a, i), component(b, i), off * std::abs(component(a, i))) << i;
  }
}

TEST(Tnfw, MassIsFinite) {
  // From the density: M(∞) is to (4π ρ_0 Rs³) as τ²/(τ² + 1)² ((τ² − 1) ln τ + τπ − (τ² + 1)) to 1.
  for (const double tau : {0.01, 0.7, 1.0, 5.0, 60.0}) {
    const double t2 = tau * tau, Rs = 0.7, alpha_Rs = 0.2, r = 1e7;
    const double p[] = {Rs, alpha_Rs, tau * Rs, 0, 0};
    const double mass = t2 / (t2 + 1) / (t2 + 1) * ((t2 - 1) * std::log(tau) + tau * kPi - (t2 + 1));
    const double norm = alpha_Rs * Rs / (1 - std::log(2.0));
    EXPECT_NEAR(lens_deflection(LensKind::tnfw, p, Vec2<double>{r, 0}).x * r / norm, mass, 2e-6 * mass) << tau;
  }
}

TEST(Multipole, ReferenceRadiusOfTheFirstMovesTheSource) {
  const double a[] = {1, 0.04, 0.3, 0.1, 0.2, 1}, b[] = {1, 0.04, 0.3, 0.1, 0.2, 2.5};
  for (const Vec2<double> theta : {Vec2<double>{0.7, -1.1}, Vec2<double>{-2.0, 0.4}}) {
    const LensValues<double> first = lens_values(LensKind::multipole, a, theta),
                             second = lens_values(LensKind::multipole, b, theta);
    EXPECT_NEAR(first.alpha.x - second.alpha.x, 0.02 * std::cos(0.3) * std::log(2.5), 1e-16);
    EXPECT_NEAR(first.alpha.y - second.alpha.y, 0.02 * std::sin(0.3) * std::log(2.5), 1e-16);
    for (int i = 3; i < 6; ++i) EXPECT_EQ(component(first, i), component(second, i));
  }
}

TEST(PointMass, EinsteinRadiusIsWhereTheDeflectionEqualsTheRadius) {
  const double p[] = {0.8, 0, 0};
  EXPECT_NEAR(lens_deflection(LensKind::point_mass, p, Vec2<double>{0, 0.8}).y, 0.8, 1e-15);
  EXPECT_NEAR(lens_deflection(LensKind::sis, p, Vec2<double>{0, 5}).y, 0.8, 1e-15);
}

// ---- The center, and everywhere else ----

template <class Real>
class LensPrecision : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(LensPrecision, Precisions);

TYPED_TEST(LensPrecision, CenterIsWhatTheHeadersSay) {
  using Real = TypeParam;
  const Real e1 = Real(0.3), e2 = Real(-0.4);  // k² = 0.75
  const double tolerance = 100 * tolerance::kEpsilon<Real>;
  const auto at = [](LensKind kind, std::vector<Real> p) { return lens_values(kind, p.data(), Vec2<Real>{}); };
  const auto expect = [&](const LensValues<Real>& v, double psi, double kappa, double gamma1, double gamma2) {
    EXPECT_EQ(v.alpha.x, 0);
    EXPECT_EQ(v.alpha.y, 0);
    EXPECT_NEAR(v.psi, psi, tolerance * (std::abs(psi) + 1e-20));
    EXPECT_NEAR(v.kappa, kappa, tolerance * std::abs(kappa));
    EXPECT_NEAR(v.gamma1, gamma1, tolerance * (std::abs(kappa) + std::abs(gamma1)));
    EXPECT_NEAR(v.gamma2, gamma2, tolerance * (std::abs(kappa) + std::abs(gamma1)));
  };
  const double core = kLensCore;
  for (const double scale : {core, 0.2}) {
    const double kappa = 1.5 / (2 * scale);
    expect(at(LensKind::nie, {Real(1.5), e1, e2, Real(scale), 0, 0}),
           -1.5 * scale * std::log(2 * scale / std::sqrt(0.75)), kappa, -0.3 * kappa, 0.4 * kappa);
  }
  const double power = std::pow(0.5 / core, 1.25);
  const double g = 0.375;
  expect(at(LensKind::epl, {Real(0.5), Real(2.25), e1, e2, 0, 0}), 0, g * power, -0.3 * g * power, 0.4 * g * power);
  expect(at(LensKind::sis, {2, 0, 0}), 2 * core, 2 / core, 0, 0);
  expect(at(LensKind::point_mass, {2, 0, 0}), 4 * std::log(core), 4 / (core * core), 0, 0);
  expect(at(LensKind::shear, {e1, e2, 0, 0}), 0, 0, 0.3, -0.4);
  expect(at(LensKind::convergence, {e1, 0, 0}), 0, 0.3, 0, 0);
  expect(at(LensKind::multipole, {3, e1, e2, 0, 0, 1}), 0, 0, 0, 0);
  const double a_2 = 0.3 / (1 - 4) * 2 / core;
  expect(at(LensKind::multipole, {2, e1, 0, 0, 0, 1}), 0, 0, a_2, 0);
  expect(at(LensKind::flexion, {e1, e2, e1, e2, 0, 0}), 0, 0, 0, 0);
  const LensValues<Real> dipole = at(LensKind::multipole, {1, e1, 0, 0, 0, 2});
  EXPECT_NEAR(dipole.alpha.x, 0.15 * std::log(core / 2), tolerance);
  for (const Real value : {dipole.psi, dipole.alpha.y, dipole.kappa, dipole.gamma1, dipole.gamma2}) EXPECT_EQ(value, 0);
  // κ̄(s) ~ (N/2Rs)(ln(2 Rs/s) − ½)
  const double norm = 0.7 / (1 - std::log(2.0)) / (2 * 1.5);
  const double mean = norm * (std::log(3 / core) - 0.5);
  expect(at(LensKind::nfw_ellipse_potential, {Real(1.5), Real(0.7), e1, e2, 0, 0}),
         mean * core * core / 2 + norm * core * core / 4, mean, -0.6 / 1.25 * mean, 0.8 / 1.25 * mean);
}

/// A parameter of a profile: at its default, tiny, at an end of its range, or anywhere in it.
double draw_parameter(const ParameterInfo& info, const Philox& philox, std::uint64_t& counter) {
  const double choice = philox.uniform(counter++), u = philox.uniform(counter++);
  switch (info.range) {
    case Range::positive:
    case Range::reference:
      return std::pow(10.0, -3 + 5 * u);  // 0.001 to 100 arcsec
    case Range::interval:
      if (choice < 0.1) return info.lower + 1e-5 * (info.upper - info.lower);
      if (choice < 0.2) return info.upper - 1e-5 * (info.upper - info.lower);
      if (choice < 0.3) return (info.lower + info.upper) / 2;
      return info.lower + u * (info.upper - info.lower);
    case Range::integer:
      return std::floor(info.lower + std::pow(u, 4) * (info.upper - info.lower + 1));
    default:
      if (choice < 0.2) return 0;
      return 0.3 * philox.normal(counter++);
  }
}

TYPED_TEST(LensPrecision, EveryValueAndDerivativeIsFinite) {
  using Real = TypeParam;
  const Philox philox{20211};
  std::uint64_t counter = 0;
  const double tiny = std::numeric_limits<Real>::denorm_min();
  long cases = 0;
  for (int k = 0; k < kLensKinds; ++k) {
    const LensKind kind = static_cast<LensKind>(k);
    const ProfileInfo& info = lens_info(kind);
    for (int draw = 0; draw < 15000; ++draw, ++cases) {
      Real p[kMaxProfileParameters] = {};
      for (std::size_t i = 0; i < info.parameters.size(); ++i)
        p[i] = static_cast<Real>(draw_parameter(info.parameters[i], philox, counter));
      const int e = info.index_of("e1");
      if (e >= 0) {
        const double sizes[] = {0, tiny, 1e-30, 1e-7, 0.0625, 0.5, 0.9, 0.99};
        const double size = draw % 3 ? sizes[draw % 8] : 0.99 * philox.uniform(counter++);
        const double angle = draw % 5 ? kAngles[draw % 7] : 6.3 * philox.uniform(counter++);
        p[e] = static_cast<Real>(size * (angle == kPi / 2 || angle == -kPi / 2 ? 0 : std::cos(angle)));
        p[e + 1] = static_cast<Real>(size * (angle == kPi || angle == 0 ? 0 : std::sin(angle)));
      }
      const double radii[] = {0, tiny, 1e-30, 1e-20, 1e-12, 1e-10, 1e-6, 0.01, 1, 7, 1e3, 1e8};
      const double r = draw % 2 ? radii[(draw / 2) % 12] : std::pow(10.0, -12 + 14 * philox.uniform(counter++));
      const double angle = draw % 7 ? kAngles[(draw / 3) % 7] : 6.3 * philox.uniform(counter++);
      const int center = lens_center(kind);
      if (draw % 4) p[center] = p[center + 1] = 0;
      const Vec2<Real> theta{p[center] + static_cast<Real>(angle == kPi / 2 ? 0 : r * std::cos(angle)),
                             p[center + 1] + static_cast<Real>(angle == 0 ? 0 : r * std::sin(angle))};
      const LensValues<Real> v = lens_values(kind, p, theta);
      Vec2<Real> theta_bar{};
      Real p_bar[kMaxProfileParameters] = {};
      lens_deflection_adjoint(kind, p, theta, Vec2<Real>{Real(0.7), Real(-1.1)}, theta_bar, p_bar);
      lens_values_adjoint(kind, p, theta, LensValues<Real>{1, {Real(0.5), -1}, Real(0.3), Real(-0.2), Real(0.6)},
                          theta_bar, p_bar);
      bool finite = std::isfinite(theta_bar.x) && std::isfinite(theta_bar.y);
      for (const Real value : {v.psi, v.alpha.x, v.alpha.y, v.kappa, v.gamma1, v.gamma2})
        finite = finite && std::isfinite(value);
      for (const Real value : p_bar) finite = finite && std::isfinite(value);
      ASSERT_TRUE(finite) << info.name << testing::PrintToString(std::vector<Real>(p, p + kMaxProfileParameters))
                          << " at " << theta.x << ", " << theta.y << ": psi " << v.psi << " alpha " << v.alpha.x << " "
                          << v.alpha.y << " kappa " << v.kappa << " gamma " << v.gamma1 << " " << v.gamma2
                          << " theta_bar " << theta_bar.x << " " << theta_bar.y << " p_bar "
                          << testing::PrintToString(std::vector<Real>(p_bar, p_bar + kMaxProfileParameters));
    }
  }
  EXPECT_GE(cases, 100000);
}

// ---- The table ----

TEST(LensInfo, NamesAreThoseOfLenstronomyInItsOrder) {
  const auto names = [](LensKind kind) {
    std::string joined = lens_info(kind).name;
    for (const ParameterInfo& p : lens_info(kind).parameters) joined += std::string(" ") + p.name;
    return joined;
  };
  EXPECT_EQ(names(LensKind::sie), "SIE theta_E e1 e2 center_x center_y");
  EXPECT_EQ(names(LensKind::sis), "SIS theta_E center_x center_y");
  EXPECT_EQ(names(LensKind::nie), "NIE theta_E e1 e2 s_scale center_x center_y");
  EXPECT_EQ(names(LensKind::epl), "EPL theta_E gamma e1 e2 center_x center_y");
  EXPECT_EQ(names(LensKind::nfw), "NFW Rs alpha_Rs center_x center_y");
  EXPECT_EQ(names(LensKind::nfw_ellipse_potential), "NFW_ELLIPSE_POTENTIAL Rs alpha_Rs e1 e2 center_x center_y");
  EXPECT_EQ(names(LensKind::shear), "SHEAR gamma1 gamma2 ra_0 dec_0");
  EXPECT_EQ(names(LensKind::convergence), "CONVERGENCE kappa ra_0 dec_0");
  EXPECT_EQ(names(LensKind::point_mass), "POINT_MASS theta_E center_x center_y");
  EXPECT_EQ(names(LensKind::multipole), "MULTIPOLE m a_m phi_m center_x center_y r_E");
  EXPECT_EQ(names(LensKind::tnfw), "TNFW Rs alpha_Rs r_trunc center_x center_y");
  EXPECT_EQ(names(LensKind::flexion), "FLEXION g1 g2 g3 g4 ra_0 dec_0");
  for (int k = 0; k < kLensKinds; ++k) {
    const LensKind kind = static_cast<LensKind>(k);
    const ProfileInfo& info = lens_info(kind);
    ASSERT_LE(info.parameters.size(), static_cast<std::size_t>(kMaxProfileParameters));
    const std::string center = info.parameters[static_cast<std::size_t>(lens_center(kind))].name;
    EXPECT_TRUE(center == "center_x" || center == "ra_0") << info.name;
    const std::string next = info.parameters[static_cast<std::size_t>(lens_center(kind)) + 1].name;
    EXPECT_TRUE(next == "center_y" || next == "dec_0") << info.name;
  }
}

TEST(LensInfo, OrderOfAMultipoleIsAWholeNumberThatIsNeverFree) {
  const auto message = [](double m, bool free) -> std::string {
    Model model;
    model.lens.push_back({LensKind::multipole, {m, 0.04, 0.3, 0, 0, 1}, {free, true, true, false, false, false}});
    try {
      model.validate();
    } catch (const InvalidInput& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(2, false), "");
  EXPECT_EQ(message(4, false), "");
  EXPECT_EQ(message(1, false), "");
  EXPECT_EQ(message(0, false), "lens.0.m = 0, expected a whole number from 1 to 100");
  EXPECT_EQ(message(3.5, false), "lens.0.m = 3.5, expected a whole number from 1 to 100");
  EXPECT_EQ(message(1e9, false), "lens.0.m = 1e+09, expected a whole number from 1 to 100");
  EXPECT_EQ(message(4, true), "lens.0.m: a whole number cannot be fitted, expected a fixed parameter");
}

}  // namespace
}  // namespace einfield
