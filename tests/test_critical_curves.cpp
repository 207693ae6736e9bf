// Critical curves, caustics and cuts against those of lenses whose curves are known in closed form; marching squares.
#include "host/fields/critical_curves.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <utility>

#include "einfield/lens.hpp"

namespace einfield {
namespace {

/// The search ends at |det A| < 1e-9 or edges of 1e-12 arcsec; det A falls by about 1 an arcsec. The core of the SIE
/// (1e-10 arcsec), which the closed forms lack, moves α by 2e-9 arcsec there.
constexpr double kClose = 1e-8;

LensComponent lens(LensKind kind, std::vector<double> values) {
  return {kind, values, std::vector<std::uint8_t>(values.size(), false)};
}

/// 4 arcsec a side, no node in the middle.
PixelGrid grid(int n = 120) {
  return {n, n, 4.0 / (n - 1), 0, 0};
}

bool closed(const Polyline& line) {
  return line.front().x == line.back().x && line.front().y == line.back().y;
}

double distance(Vec2<double> a, Vec2<double> b) {
  return std::hypot(a.x - b.x, a.y - b.y);
}

TEST(CriticalCurves, OfASisIsTheEinsteinRing) {
  const Vec2<double> center{0.12, -0.07};
  // With 120 nodes a side none lies on the center, with an SIS in the middle of 121 one does.
  for (const auto& [n, at] : {std::pair{120, center}, {121, Vec2<double>{0, 0}}}) {
    const CriticalCurves found = critical_curves(grid(n), {lens(LensKind::sis, {1.3, at.x, at.y})}, {});
    ASSERT_EQ(found.curves.size(), 1u);
    const CriticalCurve& curve = found.curves[0];
    ASSERT_TRUE(closed(curve.image));
    EXPECT_GT(curve.image.size(), 200u);
    for (const Vec2<double> p : curve.image) EXPECT_NEAR(distance(p, at), 1.3, kClose);
    for (const Vec2<double> p : curve.source) EXPECT_LT(distance(p, at), kClose);  // a point
    ASSERT_EQ(found.cuts.size(), 1u);
    for (const Vec2<double> p : found.cuts[0]) EXPECT_NEAR(distance(p, at), 1.3, 1e-3);
  }
}

/// Kormann, Schneider & Bartelmann (1994), their axes exchanged: with Δ² = q² cos²φ + sin²φ and f² = 1 − q²,
///     critical curve  r = θ_E √q / Δ
///     caustic         β = θ_E √q (cos φ/Δ − asin(f cos φ)/f,  sin φ/Δ − asinh(f sin φ/q)/f)
///     cut             β = −θ_E √q (asin(f cos φ)/f,  asinh(f sin φ/q)/f)
TEST(CriticalCurves, OfASieAreKnown) {
  const double theta_E = 1.2, q = 0.6, phi_lens = 0.4, f = std::sqrt(1 - q * q), scale = theta_E * std::sqrt(q);
  const Vec2<double> center{0.1, -0.2};
  const double c = (1 - q) / (1 + q);
  const LensComponent sie =
      lens(LensKind::sie, {theta_E, c * std::cos(2 * phi_lens), c * std::sin(2 * phi_lens), center.x, center.y});
  const CriticalCurves found = critical_curves(grid(), {sie}, {});
  const auto own_frame = [&](Vec2<double> p) {
    const Vec2<double> d = p - center;
    return Vec2<double>{std::cos(phi_lens) * d.x + std::sin(phi_lens) * d.y,
                        -std::sin(phi_lens) * d.x + std::cos(phi_lens) * d.y};
  };
  const auto jump = [&](double phi) {
    return scale / f * Vec2<double>{std::asin(f * std::cos(phi)), std::asinh(f * std::sin(phi) / q)};
  };
  ASSERT_EQ(found.curves.size(), 1u);
  const CriticalCurve& curve = found.curves[0];
  EXPECT_TRUE(closed(curve.image));
  ASSERT_EQ(curve.source.size(), curve.image.size());
  for (std::size_t i = 0; i < curve.image.size(); ++i) {
    const Vec2<double> p = own_frame(curve.image[i]);
    const double phi = std::atan2(p.y, p.x);
    const double delta = std::sqrt(q * q * std::cos(phi) * std::cos(phi) + std::sin(phi) * std::sin(phi));
    EXPECT_NEAR(std::hypot(p.x, p.y), scale / delta, kClose);
    const Vec2<double> caustic = scale / delta * Vec2<double>{std::cos(phi), std::sin(phi)} - jump(phi);
    EXPECT_LT(distance(own_frame(curve.source[i]), caustic), kClose);
  }
  // On a circle of 1e-6 arcsec the core changes α by 1e-4 of its length.
  ASSERT_EQ(found.cuts.size(), 1u);
  EXPECT_TRUE(closed(found.cuts[0]));
  for (std::size_t i = 0; i < found.cuts[0].size(); ++i) {
    const double phi = 2 * M_PI * static_cast<double>(i) / static_cast<double>(found.cuts[0].size() - 1) - phi_lens;
    EXPECT_LT(distance(own_frame(found.cuts[0][i]), -1.0 * jump(phi)), 5e-4);
  }
}

/// The deflection of profiles as a network would give it.
Deflection as_function(const std::vector<LensComponent>& components) {
  return [components](const std::vector<double>& theta) {
    const std::size_t n = theta.size() / 2;
    std::vector<double> alpha(2 * n, 0.0);
    for (std::size_t i = 0; i < n; ++i)
      for (const LensComponent& c : components) {
        const Vec2<double> a = lens_deflection(c.kind, c.values.data(), Vec2<double>{theta[i], theta[n + i]});
        alpha[i] += a.x;
        alpha[n + i] += a.y;
      }
    return alpha;
  };
}

TEST(CriticalCurves, OfADeflectionWithoutFormulaAreThoseOfItsProfile) {
  const LensComponent main = lens(LensKind::sie, {1.1, 0.1, 0.05, 0, 0});
  const std::vector<LensComponent> more = {lens(LensKind::nie, {0.3, 0.05, -0.1, 0.2, 0.9, -0.5}),
                                           lens(LensKind::shear, {0.06, -0.03, 0, 0})};
  std::vector<LensComponent> all = {main};
  all.insert(all.end(), more.begin(), more.end());
  const CriticalCurves expected = critical_curves(grid(), all, {});
  const CriticalCurves found = critical_curves(grid(), {main}, as_function(more));
  ASSERT_EQ(found.curves.size(), expected.curves.size());
  ASSERT_FALSE(found.curves.empty());
  for (std::size_t k = 0; k < found.curves.size(); ++k) {
    ASSERT_EQ(found.curves[k].image.size(), expected.curves[k].image.size());
    // Differences over 1e-4 arcsec: h²/6 of the third derivatives, which the core of 0.2 arcsec keeps below 10.
    for (std::size_t i = 0; i < found.curves[k].image.size(); ++i) {
      EXPECT_LT(distance(found.curves[k].image[i], expected.curves[k].image[i]), 1e-6);
      EXPECT_LT(distance(found.curves[k].source[i], expected.curves[k].source[i]), 1e-6);
    }
  }
  EXPECT_EQ(found.cuts.size(), 1u);
}

TEST(CriticalCurves, ACoredLensHasTwoAndNoCut) {
  // Tangential where the mean κ is 1, radial where d(r − α)/dr = 0; of a circular NIE α = θ_E (√(r² + s²) − s)/r.
  const double theta_E = 1.2, s = 0.1;
  const CriticalCurves found = critical_curves(grid(), {lens(LensKind::nie, {theta_E, 0, 0, s, 0, 0})}, {});
  ASSERT_EQ(found.curves.size(), 2u);
  EXPECT_TRUE(found.cuts.empty());
  for (const CriticalCurve& curve : found.curves) {
    const double r = distance(curve.image[0], {0, 0}), h = std::sqrt(r * r + s * s);
    const double tangential = 1 - theta_E * (h - s) / (r * r);
    const double radial = 1 - theta_E * (1 / h - (h - s) / (r * r));
    EXPECT_LT(std::min(std::abs(tangential), std::abs(radial)), 1e-7);
    for (const Vec2<double> p : curve.image) EXPECT_NEAR(distance(p, {0, 0}), r, kClose);
  }
}

TEST(CriticalCurves, OnlyAFiniteJumpMakesACut) {
  EXPECT_TRUE(critical_curves(grid(), {lens(LensKind::point_mass, {1.0, 0, 0})}, {}).cuts.empty());
  EXPECT_TRUE(critical_curves(grid(), {lens(LensKind::epl, {1.0, 1.8, 0.1, 0, 0, 0})}, {}).cuts.empty());
  EXPECT_TRUE(critical_curves(grid(), {lens(LensKind::epl, {1.0, 2.2, 0.1, 0, 0, 0})}, {}).cuts.empty());
  EXPECT_EQ(critical_curves(grid(), {lens(LensKind::epl, {1.0, 2.0, 0.1, 0, 0, 0})}, {}).cuts.size(), 1u);
  // A common center has one.
  const std::vector<LensComponent> two = {lens(LensKind::sie, {1.0, 0.1, 0, 0, 0}),
                                          lens(LensKind::multipole, {4, 0.01, 0.3, 0, 0, 1}),
                                          lens(LensKind::shear, {0.05, 0, 0, 0})};
  EXPECT_EQ(critical_curves(grid(), two, {}).cuts.size(), 1u);
}

TEST(CriticalCurves, NothingIsCriticalInAWeakLens) {
  const CriticalCurves found = critical_curves(grid(), {lens(LensKind::shear, {0.1, 0.05, 0, 0})}, {});
  EXPECT_TRUE(found.curves.empty());
  EXPECT_TRUE(found.cuts.empty());
}

// ---- marching squares ------------------------------------------------------------------------------------

using Chains = std::vector<std::vector<int>>;

TEST(SignChanges, AroundOneNodeCloses) {
  EXPECT_EQ(sign_changes(3, 3, {-1, -1, -1, -1, 1, -1, -1, -1, -1}).size(), 1u);
  const std::vector<int> chain = sign_changes(3, 3, {-1, -1, -1, -1, 1, -1, -1, -1, -1})[0];
  // Left, below, right and above node 4: edges 6, 3, 8, 9.
  ASSERT_EQ(chain.size(), 5u);
  EXPECT_EQ(chain.front(), chain.back());
  EXPECT_EQ(std::set<int>(chain.begin(), chain.end()), (std::set<int>{3, 6, 8, 9}));
}

TEST(SignChanges, ThroughAGridAreOpenAndInOrder) {
  // Columns −, −, +: the line goes up between the second and the third.
  EXPECT_EQ(sign_changes(3, 3, {-1, -1, 1, -1, -1, 1, -1, -1, 1}), (Chains{{2, 8, 14}}));
  EXPECT_TRUE(sign_changes(3, 3, std::vector<double>(9, 1.0)).empty());
  EXPECT_TRUE(sign_changes(1, 5, {1, -1, 1, -1, 1}).empty());
}

TEST(SignChanges, AtASaddleTheMiddleDecides) {
  // Edges of a single cell: 0 below, 3 right, 4 above, 1 left. Corners counter-clockwise: +, −, +, −.
  EXPECT_EQ(sign_changes(2, 2, {2, -1, -1, 2}), (Chains{{0, 3}, {1, 4}}));  // the two − are apart
  EXPECT_EQ(sign_changes(2, 2, {1, -2, -2, 1}), (Chains{{0, 1}, {3, 4}}));  // the two + are apart
}

TEST(SignChanges, NothingCrossesWhatIsNotFinite) {
  const double nan = std::nan("");
  EXPECT_TRUE(sign_changes(2, 2, {nan, 1, -1, 1}).empty());
  EXPECT_TRUE(sign_changes(2, 2, {INFINITY, 1, -INFINITY, 1}).empty());
}

}  // namespace
}  // namespace einfield
