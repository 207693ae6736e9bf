// Loops over blocks of rays in which everything else is fixed: the profile is known, parameters are in registers,
// arrays are on the stack and have one length. The compiler needs this to vectorize the loops, and the flags of this
// file in CMakeLists.txt.
#include "host/cpu/rays.hpp"

#include <algorithm>
#include <cstdint>

// glibc has vector versions of these functions, with errors of at most 4 units in the last place. Its header declares
// them only under -ffast-math, although they handle infinities and NaN correctly. The declarations here make them
// available without that flag.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 35)
#define EINFIELD_VECTOR_FUNCTION(name)                               \
  __attribute__((simd("notinbranch"))) double name(double) noexcept; \
  __attribute__((simd("notinbranch"))) float name##f(float) noexcept
extern "C" {
EINFIELD_VECTOR_FUNCTION(atan);
EINFIELD_VECTOR_FUNCTION(cos);
EINFIELD_VECTOR_FUNCTION(exp);
EINFIELD_VECTOR_FUNCTION(log);
EINFIELD_VECTOR_FUNCTION(log1p);
EINFIELD_VECTOR_FUNCTION(sin);
}
#endif
#endif

#include "host/cpu/vector_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/rays.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

// Inlines everything that a loop calls into it.
#define EINFIELD_LOOP __attribute__((flatten, noinline))

HWY_BEFORE_NAMESPACE();
namespace einfield::ray_loops::HWY_NAMESPACE {

constexpr int kBlock = 128;  // rays; a dozen arrays of them stay in the first-level cache
constexpr int kSums = 8;     // partial sums: fixed, or the bits would depend on the instruction set

/// One array of a block. Rays beyond the last repeat it, so that every loop has the same length.
template <class Real>
using Lane = Real[kBlock];

template <class Real>
struct alignas(64) Plane {
  Lane<Real> x, y;
};

/// What is known and found about the rays of a block.
template <class Real>
struct alignas(64) Block {
  Plane<Real> theta, beta, beta_bar;
  Lane<Real> brightness, brightness_bar;
};

/// The same about the network of the NETWORK component; zeros without one.
template <class Real>
struct alignas(64) Samples {
  Lane<Real> value, value_bar;
  Plane<Real> gradient;
};

template <class Real>
void copy_lane(const Real* from, int count, Lane<Real>& lane) {
  std::copy_n(from, count, lane);
  std::fill(lane + count, lane + kBlock, from[count - 1]);
}

/// Adds a block to a sum, in a fixed order.
template <class Real>
EINFIELD_LOOP void add_sum(const Lane<Real>& values, double& sum) {
  double part[kSums] = {};
  for (int i = 0; i < kBlock; i += kSums)
    for (int j = 0; j < kSums; ++j) part[j] += static_cast<double>(values[i + j]);
  for (const double p : part) sum += p;
}

/// The parameters of a component where nothing else can change them. Copied one by one: parts of a block copy would
/// come out of one vector, and no loop that uses them would be vectorized.
template <class Real>
struct Parameters {
  Real p[kMaxProfileParameters];
  explicit Parameters(const Real* from) {
    for (int k = 0; k < kMaxProfileParameters; ++k) p[k] = from[k];
  }
};

/// β −= α_lens
template <LensKind kKind, class Real>
EINFIELD_LOOP void deflect(const Real* p, Block<Real>& block) {
  const Parameters<Real> lens(p);
  for (int i = 0; i < kBlock; ++i) {
    const Vec2<Real> alpha = lens_deflection(kKind, lens.p, Vec2<Real>{block.theta.x[i], block.theta.y[i]});
    block.beta.x[i] -= alpha.x;
    block.beta.y[i] -= alpha.y;
  }
}

/// Gives the parameters' cotangents for ᾱ = −β̄ of every ray to `take(bar)`, a lane a parameter.
template <LensKind kKind, class Real, class Take>
EINFIELD_LOOP void deflect_adjoint(const Real* p, const Block<Real>& block, const Take& take) {
  const Parameters<Real> lens(p);
  Lane<Real> bar[kMaxProfileParameters];
  for (int i = 0; i < kBlock; ++i) {
    Real p_bar[kMaxProfileParameters] = {};
    Vec2<Real> theta_bar{};
    lens_deflection_adjoint(kKind, lens.p, Vec2<Real>{block.theta.x[i], block.theta.y[i]},
                            Vec2<Real>{-block.beta_bar.x[i], -block.beta_bar.y[i]}, theta_bar, p_bar);
    const bool used = block.brightness_bar[i] != 0;
    for (int k = 0; k < kMaxProfileParameters; ++k) bar[k][i] = used ? p_bar[k] : Real(0);
  }
  take(bar);
}

template <LightKind kKind, RadiusKind kRadius, class Real>
EINFIELD_LOOP void add_brightness(const Component& component, const Real* p, const Real* pixels, const Plane<Real>& at,
                                  const Samples<Real>& samples, Lane<Real>& brightness) {
  const Parameters<Real> light(p);
  const Component known{static_cast<int>(kKind), kRadius, component.pixel_offset, component.grid};
  for (int i = 0; i < kBlock; ++i) {
    NetworkSample<Real> sample{};
    if constexpr (kKind == LightKind::network) sample.value = samples.value[i];
    brightness[i] += light_brightness(known, light.p, pixels, Vec2<Real>{at.x[i], at.y[i]}, sample);
  }
}

/// Adds to the position's and the samples' cotangents; gives those of the parameters to `take(bar)`, if any is wanted.
template <LightKind kKind, RadiusKind kRadius, bool kScalars, class Real, class Take>
EINFIELD_LOOP void add_brightness_adjoint(const Component& component, const Real* p, const Real* pixels,
                                          const Plane<Real>& at, const Real* brightness_bar, Plane<Real>& at_bar,
                                          Samples<Real>& samples, double* pixel_sum, const Take& take) {
  const Parameters<Real> light(p);
  const Component known{static_cast<int>(kKind), kRadius, component.pixel_offset, component.grid};
  Lane<Real> bar[kScalars ? kMaxProfileParameters : 1];
  for (int i = 0; i < kBlock; ++i) {
    Real p_bar[kMaxProfileParameters] = {};
    Vec2<Real> position_bar{};
    NetworkSample<Real> sample{};
    if constexpr (kKind == LightKind::network)
      sample = {samples.value[i], {samples.gradient.x[i], samples.gradient.y[i]}};
    light_brightness_adjoint(
        known, light.p, pixels, Vec2<Real>{at.x[i], at.y[i]}, brightness_bar[i], position_bar,
        kScalars ? p_bar : nullptr,
        [pixel_sum](int target, Real value) HWY_ATTR {
          if (pixel_sum) pixel_sum[target] += static_cast<double>(value);
        },
        sample, kKind == LightKind::network ? &samples.value_bar[i] : nullptr);
    at_bar.x[i] += position_bar.x;
    at_bar.y[i] += position_bar.y;
    [[maybe_unused]] const bool used = brightness_bar[i] != 0;
    if constexpr (kScalars)
      for (int k = 0; k < kMaxProfileParameters; ++k) bar[k][i] = used ? p_bar[k] : Real(0);
  }
  if constexpr (kScalars) take(bar);
}

template <class Real>
void add_sums(const Lane<Real>* bar, double* sum) {
  for (int k = 0; k < kMaxProfileParameters; ++k) add_sum(bar[k], sum[k]);
}

/// Calls `loop` with the kind of a lens as a constant.
template <class Loop>
void with_lens_kind(int kind, const Loop& loop) {
  switch (static_cast<LensKind>(kind)) {
    case LensKind::sie:
      return loop.template operator()<LensKind::sie>();
    case LensKind::sis:
      return loop.template operator()<LensKind::sis>();
    case LensKind::nie:
      return loop.template operator()<LensKind::nie>();
    case LensKind::epl:
      return loop.template operator()<LensKind::epl>();
    case LensKind::nfw:
      return loop.template operator()<LensKind::nfw>();
    case LensKind::nfw_ellipse_potential:
      return loop.template operator()<LensKind::nfw_ellipse_potential>();
    case LensKind::tnfw:
      return loop.template operator()<LensKind::tnfw>();
    case LensKind::flexion:
      return loop.template operator()<LensKind::flexion>();
    case LensKind::shear:
      return loop.template operator()<LensKind::shear>();
    case LensKind::convergence:
      return loop.template operator()<LensKind::convergence>();
    case LensKind::point_mass:
      return loop.template operator()<LensKind::point_mass>();
    case LensKind::multipole:
      return loop.template operator()<LensKind::multipole>();
  }
}

/// The same for a light.
template <class Loop>
void with_light_kind(const Component& component, const Loop& loop) {
  const bool major = component.radius == RadiusKind::major_axis;
  switch (static_cast<LightKind>(component.kind)) {
    case LightKind::sersic_ellipse:
      return major ? loop.template operator()<LightKind::sersic_ellipse, RadiusKind::major_axis>()
                   : loop.template operator()<LightKind::sersic_ellipse, RadiusKind::product_average>();
    case LightKind::gaussian:
      return loop.template operator()<LightKind::gaussian, RadiusKind::product_average>();
    case LightKind::gaussian_ellipse:
      return loop.template operator()<LightKind::gaussian_ellipse, RadiusKind::product_average>();
    case LightKind::pixelated:
      return loop.template operator()<LightKind::pixelated, RadiusKind::product_average>();
    case LightKind::network:
      return loop.template operator()<LightKind::network, RadiusKind::product_average>();
    case LightKind::uniform:
      return loop.template operator()<LightKind::uniform, RadiusKind::product_average>();
  }
}

/// θ and β = θ − α_lens − α_nn of the rays from `begin` on.
template <class Real>
void trace(const Scene<Real>& scene, const Rays<Real>& rays, int begin, int count, Block<Real>& block) {
  copy_lane(rays.theta_x + begin, count, block.theta.x);
  copy_lane(rays.theta_y + begin, count, block.theta.y);
  copy_lane(rays.deflection_x + begin, count, block.beta.x);
  copy_lane(rays.deflection_y + begin, count, block.beta.y);
  for (int i = 0; i < kBlock; ++i) {
    block.beta.x[i] = block.theta.x[i] - block.beta.x[i];
    block.beta.y[i] = block.theta.y[i] - block.beta.y[i];
  }
  for (int c = 0; c < scene.n_lens; ++c)
    with_lens_kind(scene.components[c].kind,
                   [&]<LensKind kKind>() HWY_ATTR { deflect<kKind>(scene.table + c * kMaxProfileParameters, block); });
}

/// What the network of the NETWORK component is at the rays from `begin` on; nothing without one.
template <class Real>
void copy_samples(const Rays<Real>& rays, int begin, int count, Samples<Real>& samples) {
  if (!rays.network_value) return;
  copy_lane(rays.network_value + begin, count, samples.value);
  copy_lane(rays.network_gradient_x + begin, count, samples.gradient.x);
  copy_lane(rays.network_gradient_y + begin, count, samples.gradient.y);
  std::fill_n(samples.value_bar, kBlock, Real(0));
}

template <class Real>
void network_positions(const Scene<Real>& scene, const Rays<Real>& rays, int component, Real* x, Real* y) {
  Block<Real> block;
  const Real* const p = scene.table + component * kMaxProfileParameters;
  const Vec2<Real> center{p[1], p[2]};
  const Plane<Real>& plane = component < scene.n_lens + scene.n_source ? block.beta : block.theta;
  for (int begin = 0; begin < rays.count; begin += kBlock) {
    const int count = std::min(kBlock, rays.count - begin);
    trace(scene, rays, begin, count, block);
    for (int i = 0; i < count; ++i) {
      x[begin + i] = plane.x[i] - center.x;
      y[begin + i] = plane.y[i] - center.y;
    }
  }
}

/// Adds a component's brightness at the traced rays of a block.
template <class Real>
void add_component_brightness(const Scene<Real>& scene, int c, const Samples<Real>& samples, Block<Real>& block) {
  const Plane<Real>& plane = c < scene.n_lens + scene.n_source ? block.beta : block.theta;
  with_light_kind(scene.components[c], [&]<LightKind kKind, RadiusKind kRadius>() HWY_ATTR {
    add_brightness<kKind, kRadius>(scene.components[c], scene.table + c * kMaxProfileParameters, scene.pixels, plane,
                                   samples, block.brightness);
  });
}

template <class Real>
void render(const Scene<Real>& scene, const Rays<Real>& rays, Real* brightness) {
  Block<Real> block;
  Samples<Real> samples;
  const int end = scene.n_lens + scene.n_source + scene.n_lens_light;
  for (int begin = 0; begin < rays.count; begin += kBlock) {
    const int count = std::min(kBlock, rays.count - begin);
    trace(scene, rays, begin, count, block);
    copy_samples(rays, begin, count, samples);
    std::fill_n(block.brightness, kBlock, Real(0));
    for (int c = scene.n_lens; c < end; ++c) add_component_brightness(scene, c, samples, block);
    std::copy_n(block.brightness, count, brightness + begin);
  }
}

template <class Real>
void adjoint(const Scene<Real>& scene, const Rays<Real>& rays, const Real* brightness_bar, Real* alpha_bar_x,
             Real* alpha_bar_y, double* table_sum, double* pixel_sum, Real* value_bar) {
  Block<Real> block;
  Samples<Real> samples;
  Plane<Real> theta_bar;  // θ is data: formed and not used
  const int first_light = scene.n_lens + scene.n_source, end = first_light + scene.n_lens_light;
  for (int begin = 0; begin < rays.count; begin += kBlock) {
    const int count = std::min(kBlock, rays.count - begin);
    std::copy_n(brightness_bar + begin, count, block.brightness_bar);
    std::fill(block.brightness_bar + count, block.brightness_bar + kBlock, Real(0));
    for (Lane<Real>* lane : {&block.beta_bar.x, &block.beta_bar.y, &theta_bar.x, &theta_bar.y})
      std::fill_n(*lane, kBlock, Real(0));
    if (std::any_of(block.brightness_bar, block.brightness_bar + count, [](Real bar) { return bar != 0; })) {
      trace(scene, rays, begin, count, block);
      copy_samples(rays, begin, count, samples);
      for (int c = scene.n_lens; c < end; ++c)
        with_light_kind(scene.components[c], [&]<LightKind kKind, RadiusKind kRadius>() HWY_ATTR {
          const Real* p = scene.table + c * kMaxProfileParameters;
          const Plane<Real>& at = c < first_light ? block.beta : block.theta;
          Plane<Real>& at_bar = c < first_light ? block.beta_bar : theta_bar;
          const auto add = [&](const Lane<Real>* lanes)
                               HWY_ATTR { add_sums(lanes, table_sum + c * kMaxProfileParameters); };
          if (table_sum)
            add_brightness_adjoint<kKind, kRadius, true>(scene.components[c], p, scene.pixels, at, block.brightness_bar,
                                                         at_bar, samples, pixel_sum, add);
          else
            add_brightness_adjoint<kKind, kRadius, false>(scene.components[c], p, scene.pixels, at,
                                                          block.brightness_bar, at_bar, samples, pixel_sum, add);
        });
      if (table_sum)
        for (int c = 0; c < scene.n_lens; ++c)
          with_lens_kind(scene.components[c].kind, [&]<LensKind kKind>() HWY_ATTR {
            deflect_adjoint<kKind>(scene.table + c * kMaxProfileParameters, block,
                                   [&](const Lane<Real>* lanes)
                                       HWY_ATTR { add_sums(lanes, table_sum + c * kMaxProfileParameters); });
          });
    }
    for (int i = 0; i < count; ++i) {
      const bool used = block.brightness_bar[i] != 0;
      alpha_bar_x[begin + i] = used ? -block.beta_bar.x[i] : Real(0);
      alpha_bar_y[begin + i] = used ? -block.beta_bar.y[i] : Real(0);
      if (value_bar) value_bar[begin + i] = used ? samples.value_bar[i] : Real(0);
    }
  }
}

template <class Real>
void components(const Scene<Real>& scene, const Rays<Real>& rays, Real* brightness, std::size_t stride) {
  Block<Real> block;
  Samples<Real> samples;
  const int end = scene.n_lens + scene.n_source + scene.n_lens_light;
  for (int begin = 0; begin < rays.count; begin += kBlock) {
    const int count = std::min(kBlock, rays.count - begin);
    trace(scene, rays, begin, count, block);
    copy_samples(rays, begin, count, samples);
    for (int c = scene.n_lens; c < end; ++c) {
      std::fill_n(block.brightness, kBlock, Real(0));
      add_component_brightness(scene, c, samples, block);
      std::copy_n(block.brightness, count, brightness + static_cast<std::size_t>(c - scene.n_lens) * stride + begin);
    }
  }
}

/// Copies or adds the wanted ones of a component's derivatives.
/// @param columns  of the component's slots
template <class Real>
void put_derivatives(const Lane<Real>* bar, int count, const SlotColumn* columns, Real* values, std::size_t stride) {
  for (int k = 0; k < kMaxProfileParameters; ++k) {
    if (columns[k].row < 0) continue;
    Real* const row = values + static_cast<std::size_t>(columns[k].row) * stride;
    const Real factor = static_cast<Real>(columns[k].factor);
    if (columns[k].adds)
      for (int i = 0; i < count; ++i) row[i] += factor * bar[k][i];
    else
      for (int i = 0; i < count; ++i) row[i] = factor * bar[k][i];
  }
}

static bool any_wanted(const SlotColumn* columns) {
  return std::any_of(columns, columns + kMaxProfileParameters, [](const SlotColumn& c) { return c.row >= 0; });
}

template <class Real>
void derivatives(const Scene<Real>& scene, const Rays<Real>& rays, const std::vector<SlotColumn>& columns, Real* values,
                 std::size_t stride) {
  Block<Real> block;
  Samples<Real> samples;
  Plane<Real> theta_bar;  // θ is data: formed and not used
  const int first_light = scene.n_lens + scene.n_source, end = first_light + scene.n_lens_light;
  bool lenses = false;
  for (int c = 0; c < scene.n_lens; ++c) lenses |= any_wanted(columns.data() + c * kMaxProfileParameters);
  std::fill_n(block.brightness_bar, kBlock, Real(1));
  for (int begin = 0; begin < rays.count; begin += kBlock) {
    const int count = std::min(kBlock, rays.count - begin);
    for (Lane<Real>* lane : {&block.beta_bar.x, &block.beta_bar.y, &theta_bar.x, &theta_bar.y})
      std::fill_n(*lane, kBlock, Real(0));
    trace(scene, rays, begin, count, block);
    copy_samples(rays, begin, count, samples);
    for (int c = scene.n_lens; c < end; ++c) {
      const SlotColumn* const own = columns.data() + c * kMaxProfileParameters;
      const bool source = c < first_light;
      if (!any_wanted(own) && !(source && lenses)) continue;
      with_light_kind(scene.components[c], [&]<LightKind kKind, RadiusKind kRadius>() HWY_ATTR {
        add_brightness_adjoint<kKind, kRadius, true>(
            scene.components[c], scene.table + c * kMaxProfileParameters, scene.pixels,
            source ? block.beta : block.theta, block.brightness_bar, source ? block.beta_bar : theta_bar, samples,
            nullptr,
            [&](const Lane<Real>* lanes) HWY_ATTR { put_derivatives(lanes, count, own, values + begin, stride); });
      });
    }
    for (int c = 0; c < scene.n_lens; ++c) {
      const SlotColumn* const own = columns.data() + c * kMaxProfileParameters;
      if (!any_wanted(own)) continue;
      with_lens_kind(scene.components[c].kind, [&]<LensKind kKind>() HWY_ATTR {
        deflect_adjoint<kKind>(scene.table + c * kMaxProfileParameters, block, [&](const Lane<Real>* lanes) HWY_ATTR {
          put_derivatives(lanes, count, own, values + begin, stride);
        });
      });
    }
  }
}

template <class Real>
const RayKernels<Real>& kernels() {
  static const RayKernels<Real> table{network_positions<Real>, render<Real>, adjoint<Real>, components<Real>,
                                      derivatives<Real>};
  return table;
}
static const RayKernels<float>& kernels_single() {
  return kernels<float>();
}
static const RayKernels<double>& kernels_double() {
  return kernels<double>();
}

}  // namespace einfield::ray_loops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace einfield {
namespace ray_loops {
HWY_EXPORT(kernels_single);
HWY_EXPORT(kernels_double);

static const RayKernels<float>& best_single() {
  return HWY_DYNAMIC_DISPATCH(kernels_single)();
}
static const RayKernels<double>& best_double() {
  return HWY_DYNAMIC_DISPATCH(kernels_double)();
}
}  // namespace ray_loops

std::vector<SlotColumn> slot_columns(const ParameterLayout& layout, int n_lens, const std::vector<int>& free) {
  std::vector<SlotColumn> columns(layout.table.size());
  for (std::size_t k = 0; k < free.size(); ++k)
    for (const auto& [slot, factor] : layout.slots_of(static_cast<std::size_t>(free[k])))
      columns[static_cast<std::size_t>(slot)] = {static_cast<int>(k), factor};
  std::vector<std::uint8_t> set(free.size(), 0);
  const auto visit = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      if (columns[i].row < 0) continue;
      std::uint8_t& done = set[static_cast<std::size_t>(columns[i].row)];
      columns[i].adds = done != 0;
      done = 1;
    }
  };
  const auto first_light = static_cast<std::size_t>(n_lens * kMaxProfileParameters);
  visit(first_light, columns.size());  // derivatives() begins with the light
  visit(0, first_light);
  return columns;
}

template <>
const RayKernels<float>& ray_kernels<float>() {
  return ray_loops::best_single();
}
template <>
const RayKernels<double>& ray_kernels<double>() {
  return ray_loops::best_double();
}

}  // namespace einfield
#endif  // HWY_ONCE
