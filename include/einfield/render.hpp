// One ray: from the image plane through the lens to the source, and the brightness that it sees there. Both backends
// call these functions for every ray, so the physics is written once. β = θ − α_lens(θ) − α_nn(θ), I = Σ S(β) + Σ L(θ).
#pragma once

#include "einfield/core.hpp"
#include "einfield/lens.hpp"
#include "einfield/profile.hpp"
#include "einfield/source.hpp"

namespace EINFIELD_API einfield {

/// A component as the kernels see it; its role (lens, source, lens light) follows from its position in the list.
struct Component {
  int kind;  ///< LensKind or LightKind
  RadiusKind radius;
  int pixel_offset;  ///< PIXELATED: start of its pixels in Scene::pixels
  PixelGrid grid;    ///< PIXELATED
};

/// A lens system as plain pointers: components (lens, then source, then lens light), the table of their physical values
/// (kMaxProfileParameters slots each) and all pixels of PIXELATED components.
template <class Real>
struct Scene {
  const Component* components;
  int n_lens;
  int n_source;
  int n_lens_light;
  const Real* table;
  const Real* pixels;
};

/// Deflection of the smooth model, Σ α_i(θ) [arcsec].
template <class Real>
EINFIELD_HD Vec2<Real> macro_deflection(const Scene<Real>& scene, Vec2<Real> theta) {
  Vec2<Real> alpha{};
  for (int c = 0; c < scene.n_lens; ++c)
    alpha += lens_deflection(static_cast<LensKind>(scene.components[c].kind), scene.table + c * kMaxProfileParameters,
                             theta);
  return alpha;
}

/// ψ, α, κ, γ of the smooth model.
template <class Real>
EINFIELD_HD LensValues<Real> macro_values(const Scene<Real>& scene, Vec2<Real> theta) {
  LensValues<Real> sum{};
  for (int c = 0; c < scene.n_lens; ++c) {
    const LensValues<Real> v =
        lens_values(static_cast<LensKind>(scene.components[c].kind), scene.table + c * kMaxProfileParameters, theta);
    sum.psi += v.psi;
    sum.alpha += v.alpha;
    sum.kappa += v.kappa;
    sum.gamma1 += v.gamma1;
    sum.gamma2 += v.gamma2;
  }
  return sum;
}

/// Where the network of a NETWORK component is evaluated: β − center for a source, θ − center for lens light [arcsec].
/// A cotangent of β or θ by way of the network is part of light_brightness_adjoint.
/// @param c  the component's place in the list
template <class Real>
EINFIELD_HD Vec2<Real> network_position(const Scene<Real>& scene, int c, Vec2<Real> theta, Vec2<Real> alpha_nn) {
  const Real* p = scene.table + c * kMaxProfileParameters;
  const Vec2<Real> center{p[1], p[2]};
  if (c >= scene.n_lens + scene.n_source) return theta - center;
  return theta - macro_deflection(scene, theta) - alpha_nn - center;
}

/// Brightness of one light component at a position of its plane.
/// @param sample  NETWORK only: its network there
template <class Real>
EINFIELD_HD Real light_brightness(const Component& component, const Real* p, const Real* pixels, Vec2<Real> position,
                                  const NetworkSample<Real>& sample = {}) {
  switch (static_cast<LightKind>(component.kind)) {
    case LightKind::sersic_ellipse:
      return sersic_brightness(p, component.radius, position);
    case LightKind::gaussian:
      return gaussian_brightness(p, position);
    case LightKind::gaussian_ellipse:
      return gaussian_ellipse_brightness(p, position);
    case LightKind::network:
      return network_brightness(p, sample.value);
    case LightKind::uniform:
      return uniform_brightness(p);
    case LightKind::pixelated:
      break;
  }
  return pixelated_brightness(component.grid, pixels + component.pixel_offset, position);
}

/// Adjoint of light_brightness: adds to `position_bar` and, unless null, `p_bar`; every pixel weight goes to
/// `scatter(index into Scene::pixels, value)`, which the backend sums in a fixed order.
/// @param value_bar  NETWORK only: cotangent of NetworkSample::value, added to
EINFIELD_NO_EXEC_CHECK
template <class Real, class Scatter>
EINFIELD_HD void light_brightness_adjoint(const Component& component, const Real* p, const Real* pixels,
                                          Vec2<Real> position, Real brightness_bar, Vec2<Real>& position_bar,
                                          Real* p_bar, Scatter&& scatter, const NetworkSample<Real>& sample = {},
                                          Real* value_bar = nullptr) {
  switch (static_cast<LightKind>(component.kind)) {
    case LightKind::sersic_ellipse:
      sersic_brightness_adjoint(p, component.radius, position, brightness_bar, position_bar, p_bar);
      return;
    case LightKind::gaussian:
      gaussian_brightness_adjoint(p, position, brightness_bar, position_bar, p_bar);
      return;
    case LightKind::gaussian_ellipse:
      gaussian_ellipse_brightness_adjoint(p, position, brightness_bar, position_bar, p_bar);
      return;
    case LightKind::network: {
      Real unused = 0;
      network_brightness_adjoint(p, sample, brightness_bar, value_bar ? *value_bar : unused, position_bar, p_bar);
      return;
    }
    case LightKind::uniform:
      uniform_brightness_adjoint(brightness_bar, p_bar);
      return;
    case LightKind::pixelated:
      break;
  }
  pixelated_brightness_adjoint(component.grid, pixels + component.pixel_offset, position, brightness_bar, position_bar);
  const BilinearTaps<Real> taps = bilinear_taps(component.grid, position);
  for (int k = 0; k < 4; ++k)
    if (taps.index[k] >= 0) scatter(component.pixel_offset + taps.index[k], brightness_bar * taps.weight[k]);
}

/// Brightness of one ray.
/// @param theta     image-plane position                      [arcsec]
/// @param alpha_nn  deflection of the network, 0 without one  [arcsec]
/// @param sample    the network of the NETWORK component, if there is one, at network_position()
template <class Real>
EINFIELD_HD Real render_ray(const Scene<Real>& scene, Vec2<Real> theta, Vec2<Real> alpha_nn,
                            const NetworkSample<Real>& sample = {}) {
  const Vec2<Real> beta = theta - macro_deflection(scene, theta) - alpha_nn;
  Real brightness = 0;
  const int first_light = scene.n_lens + scene.n_source;
  for (int c = scene.n_lens; c < first_light + scene.n_lens_light; ++c)
    brightness += light_brightness(scene.components[c], scene.table + c * kMaxProfileParameters, scene.pixels,
                                   c < first_light ? beta : theta, sample);
  return brightness;
}

/// Adjoint of render_ray, component by component: sets `alpha_bar`, calls `collect(c, p_bar)` with the cotangent of the
/// parameters of each component c in turn (for the callers that sum over rays before they store), passes pixel
/// cotangents to `scatter`.
///
/// β̄ = Ī ∇S(β), and from β = θ − α_lens − α_nn: ᾱ_nn = ᾱ_lens = −β̄. θ is data: no cotangent.
/// @param scalars    false when no parameter of a profile is free: `collect` is not called, which saves the work
/// @param value_bar  cotangent of `sample.value`, set; null where there is no NETWORK component
EINFIELD_NO_EXEC_CHECK
template <class Real, class Collect, class Scatter>
EINFIELD_HD void render_ray_adjoint_by_component(const Scene<Real>& scene, Vec2<Real> theta, Vec2<Real> alpha_nn,
                                                 Real brightness_bar, bool scalars, Vec2<Real>& alpha_bar,
                                                 Collect&& collect, Scatter&& scatter,
                                                 const NetworkSample<Real>& sample = {}, Real* value_bar = nullptr) {
  const Vec2<Real> beta = theta - macro_deflection(scene, theta) - alpha_nn;
  Vec2<Real> beta_bar{};
  Vec2<Real> theta_bar{};
  if (value_bar) *value_bar = 0;
  const int first_light = scene.n_lens + scene.n_source;
  for (int c = scene.n_lens; c < first_light + scene.n_lens_light; ++c) {
    Real p_bar[kMaxProfileParameters] = {};
    light_brightness_adjoint(scene.components[c], scene.table + c * kMaxProfileParameters, scene.pixels,
                             c < first_light ? beta : theta, brightness_bar, c < first_light ? beta_bar : theta_bar,
                             scalars ? p_bar : nullptr, scatter, sample, value_bar);
    if (scalars) collect(c, p_bar);
  }
  alpha_bar = {-beta_bar.x, -beta_bar.y};
  if (!scalars) return;
  for (int c = 0; c < scene.n_lens; ++c) {
    Real p_bar[kMaxProfileParameters] = {};
    lens_deflection_adjoint(static_cast<LensKind>(scene.components[c].kind), scene.table + c * kMaxProfileParameters,
                            theta, alpha_bar, theta_bar, p_bar);
    collect(c, p_bar);
  }
}

/// Adjoint of render_ray: sets `alpha_bar` and, unless null, `value_bar`, adds to `table_bar`, passes pixel cotangents
/// to `scatter`.
/// @param table_bar  laid out like Scene::table; null when no parameter of a profile is free, which saves the work
template <class Real, class Scatter>
EINFIELD_HD void render_ray_adjoint(const Scene<Real>& scene, Vec2<Real> theta, Vec2<Real> alpha_nn,
                                    Real brightness_bar, Vec2<Real>& alpha_bar, Real* table_bar, Scatter&& scatter,
                                    const NetworkSample<Real>& sample = {}, Real* value_bar = nullptr) {
  render_ray_adjoint_by_component(
      scene, theta, alpha_nn, brightness_bar, table_bar != nullptr, alpha_bar,
      [table_bar](int c, const Real* p_bar) {
        for (int k = 0; k < kMaxProfileParameters; ++k) table_bar[c * kMaxProfileParameters + k] += p_bar[k];
      },
      scatter, sample, value_bar);
}

}  // namespace einfield
