// Every lens and brightness profile on the device against the same header on the host: values and adjoints, single and
// double precision, at the center, on axes, near and far. Both backends call these functions for every ray.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "einfield/render.hpp"
#include "kernels/raii.cuh"
#include "tests/tolerance.hpp"

namespace einfield::cuda {
namespace {

bool device_available() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  (void)cudaGetLastError();
  return found;
}

constexpr int kAnswers = 26;
/// ψ or brightness; α; κ and γ; and twice the cotangents of position and parameters: where each group begins.
constexpr std::size_t kGroups[] = {0, 1, 3, 6, 8, 16, 18, kAnswers};

/// One profile: a lens, or a light when `lens` is false.
template <class Real>
struct Profile {
  bool lens;
  Component component;
  Real p[kMaxProfileParameters];
};

/// Everything that a profile says at one position: ψ, α, κ, γ or brightness; cotangents of position and parameters of
/// the adjoint of the deflection or brightness; and those of the adjoint of all values.
template <class Real>
EINFIELD_HD void answer(const Profile<Real>& profile, const Real* pixels, Vec2<Real> at, Real* out) {
  for (int i = 0; i < kAnswers; ++i) out[i] = 0;
  Vec2<Real> first{}, second{};
  if (profile.lens) {
    const LensKind kind = static_cast<LensKind>(profile.component.kind);
    const LensValues<Real> v = lens_values(kind, profile.p, at);
    out[0] = v.psi;
    out[1] = v.alpha.x;
    out[2] = v.alpha.y;
    out[3] = v.kappa;
    out[4] = v.gamma1;
    out[5] = v.gamma2;
    lens_deflection_adjoint(kind, profile.p, at, Vec2<Real>{Real(0.75), Real(-1.25)}, first, out + 8);
    lens_values_adjoint(kind, profile.p, at,
                        LensValues<Real>{Real(0.5), {Real(0.25), -1}, Real(0.75), Real(-0.5), Real(1.25)}, second,
                        out + 18);
  } else {
    // A NETWORK component takes the position for what its network says.
    const NetworkSample<Real> sample{at.x - 2 * at.y, {at.y, Real(0.5)}};
    out[0] = light_brightness(profile.component, profile.p, pixels, at, sample);
    Real* scattered = out + 18;
    light_brightness_adjoint(
        profile.component, profile.p, pixels, at, Real(0.75), first, out + 8,
        [scattered](int k, Real value) { scattered[k % 8] += value; }, sample, out + 16);
  }
  out[6] = first.x;
  out[7] = first.y;
  if (!profile.lens) return;
  out[16] = second.x;
  out[17] = second.y;
}

template <class Real>
__global__ void answer_kernel(Profile<Real> profile, const Real* pixels, const Vec2<Real>* at, int n, Real* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) answer(profile, pixels, at[i], out + i * kAnswers);
}

struct ProfileCase {
  std::string name;
  bool lens;
  int kind;
  RadiusKind radius;
  std::vector<double> p;
  friend void PrintTo(const ProfileCase& c, std::ostream* out) { *out << c.name; }
};

std::vector<ProfileCase> profile_cases() {
  std::vector<ProfileCase> cases;
  const auto lens = [&](const std::string& name, LensKind kind, std::vector<double> p) {
    cases.push_back({name, true, static_cast<int>(kind), RadiusKind::product_average, std::move(p)});
  };
  const struct {
    const char* name;
    double e1, e2;
  } shapes[] = {{"_round", 0, 0}, {"_below_switch", 0.05, -0.0374}, {"_paper", 0.15, -0.04}, {"_flat", -0.5, 0.5}};
  for (const auto& s : shapes) {
    lens(std::string("sie") + s.name, LensKind::sie, {1.6, s.e1, s.e2, 0, 0});
    lens(std::string("nie") + s.name, LensKind::nie, {1.4, s.e1, s.e2, 0.125, 0, 0});
    lens(std::string("epl") + s.name, LensKind::epl, {1.3, 1.9, s.e1, s.e2, 0, 0});
    lens(std::string("nfw_ellipse") + s.name, LensKind::nfw_ellipse_potential, {1.7, 0.9, s.e1, s.e2, 0, 0});
    for (const auto radius : {RadiusKind::product_average, RadiusKind::major_axis})
      cases.push_back({std::string(radius == RadiusKind::major_axis ? "sersic_major" : "sersic_product") + s.name,
                       false,
                       static_cast<int>(LightKind::sersic_ellipse),
                       radius,
                       {10, 1.2, 1.5, s.e1, s.e2, 0, 0}});
  }
  lens("sis", LensKind::sis, {0.9, 0, 0});
  lens("nfw", LensKind::nfw, {1, 0.2, 0, 0});
  lens("shear", LensKind::shear, {-0.1, 0.07, 0, 0});
  lens("convergence", LensKind::convergence, {0.07, 0, 0});
  lens("point_mass", LensKind::point_mass, {0.8, 0, 0});
  lens("multipole_2", LensKind::multipole, {2, 0.04, 0.3, 0, 0, 1});
  lens("multipole_5", LensKind::multipole, {5, 0.04, 0.3, 0, 0, 1});
  lens("multipole_1", LensKind::multipole, {1, 0.04, 0.3, 0, 0, 1.3});
  lens("flexion", LensKind::flexion, {0.02, -0.03, 0.011, 0.04, 0, 0});
  lens("tnfw", LensKind::tnfw, {1, 0.2, 2.5, 0, 0});
  lens("tnfw_short", LensKind::tnfw, {1, 0.2, 0.04, 0, 0});
  cases.push_back(
      {"gaussian", false, static_cast<int>(LightKind::gaussian), RadiusKind::product_average, {20, 0.7, 0, 0}});
  cases.push_back({"network", false, static_cast<int>(LightKind::network), RadiusKind::product_average, {5, 0, 0}});
  cases.push_back({"uniform", false, static_cast<int>(LightKind::uniform), RadiusKind::product_average, {-3}});
  cases.push_back({"pixelated", false, static_cast<int>(LightKind::pixelated), RadiusKind::product_average, {}});
  return cases;
}

class CudaProfiles : public testing::TestWithParam<ProfileCase> {};

/// The mathematical functions of the device err by a unit or two in the last place more than the host's, and products
/// and sums are fused: a change of rounding, compared with the largest value of a group of answers at the same radius.
template <class Real>
void compare(const ProfileCase& c, double tolerance) {
  Profile<Real> profile{c.lens, {c.kind, c.radius, 0, {5, 4, 0.7, 0.1, 0.2}}, {}};
  for (std::size_t i = 0; i < c.p.size(); ++i) profile.p[i] = static_cast<Real>(c.p[i]);
  std::vector<Real> pixels;
  for (int i = 0; i < 20; ++i) pixels.push_back(static_cast<Real>(3 + std::sin(1.9 * i)));
  const double radii[] = {0, 1e-10, 1e-3, 0.1, 0.9, 1, 1.1, 1.7, 12};
  constexpr int kDirections = 16;
  std::vector<Vec2<Real>> positions;
  for (const double r : radii)
    for (int k = 0; k < kDirections; ++k) {
      const double cosine[] = {1, 0, -1, 0}, sine[] = {0, 1, 0, -1};
      const double angle = 0.4 * k;
      positions.push_back(
          k < 4 ? Vec2<Real>{static_cast<Real>(r * cosine[k]), static_cast<Real>(r * sine[k])}
                : Vec2<Real>{static_cast<Real>(r * std::cos(angle)), static_cast<Real>(r * std::sin(angle))});
    }

  const Stream stream;
  const int n = static_cast<int>(positions.size());
  DeviceBuffer<Vec2<Real>> device_positions(positions.size());
  DeviceBuffer<Real> device_pixels(pixels.size()), device_answers(positions.size() * kAnswers);
  device_positions.upload(positions, stream.get());
  device_pixels.upload(pixels, stream.get());
  answer_kernel<<<static_cast<unsigned>((n + 63) / 64), 64, 0, stream.get()>>>(
      profile, device_pixels.get(), device_positions.get(), n, device_answers.get());
  EINFIELD_LAUNCH_CHECK();
  const std::vector<Real> found = device_answers.to_vector(stream.get());

  for (std::size_t ring = 0; ring < std::size(radii); ++ring) {
    std::vector<Real> expected(kDirections * kAnswers);
    for (std::size_t k = 0; k < kDirections; ++k)
      answer(profile, pixels.data(), positions[ring * kDirections + k], expected.data() + k * kAnswers);
    for (std::size_t group = 0; group + 1 < std::size(kGroups); ++group) {
      double largest = group == 0 ? 0.1 * std::abs(static_cast<double>(profile.p[0])) : 0;
      for (std::size_t k = 0; k < kDirections; ++k)
        for (std::size_t q = kGroups[group]; q < kGroups[group + 1]; ++q)
          largest = std::max(largest, std::abs(static_cast<double>(expected[k * kAnswers + q])));
      for (std::size_t k = 0; k < kDirections; ++k)
        for (std::size_t q = kGroups[group]; q < kGroups[group + 1]; ++q)
          EXPECT_NEAR(static_cast<double>(found[(ring * kDirections + k) * kAnswers + q]),
                      static_cast<double>(expected[k * kAnswers + q]), tolerance * largest)
              << "answer " << q << " at r = " << radii[ring] << ", direction " << k;
    }
  }
}

TEST_P(CudaProfiles, DeviceAgreesWithHost) {
  if (!device_available()) GTEST_SKIP() << "no usable CUDA device";
  compare<float>(GetParam(), tolerance::kSingle);
  compare<double>(GetParam(), tolerance::kIndependentFormula);
}

INSTANTIATE_TEST_SUITE_P(All, CudaProfiles, testing::ValuesIn(profile_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace einfield::cuda
