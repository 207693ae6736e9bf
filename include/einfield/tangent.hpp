// Derivatives of the brightness of one ray with respect to the parameters of every component, for the fits that need a
// Jacobian. They are the adjoint of render_ray (render.hpp) for a cotangent of 1: a ray has one brightness.
#pragma once

#include "einfield/core.hpp"
#include "einfield/model.hpp"
#include "einfield/render.hpp"

namespace EINFIELD_API einfield {

/// Tangent of transform (model.hpp): ṗ_i = Σ_j ∂p_i/∂u_j u̇_j of free parameter i. Its transpose is transform_adjoint,
/// which has the derivatives.
/// @param u_dot  direction, one number per free parameter
template <class Real>
EINFIELD_HD Real transform_tangent(const FreeParameter<Real>* free, int i, const Real* u, const Real* u_dot) {
  const FreeParameter<Real> f = free[i];
  switch (f.kind) {
    case TransformKind::exponential:
      return exp(u[i]) * u_dot[i];
    case TransformKind::logistic:
      return (f.upper - f.lower) / (1 + exp(-u[i])) / (1 + exp(u[i])) * u_dot[i];
    case TransformKind::disk: {
      const Real other = f.partner < 0 ? Real(0) : u[f.partner], other_dot = f.partner < 0 ? Real(0) : u_dot[f.partner];
      const Real w = 1 / sqrt(1 + u[i] * u[i] + other * other);
      return f.upper * w * w * w * ((1 + other * other) * u_dot[i] - u[i] * other * other_dot);
    }
    case TransformKind::identity:
      break;
  }
  return u_dot[i];
}

/// Brightness of every light component by itself: calls `take(c, brightness)` for c from the first source on.
/// @param sample  the network of the NETWORK component, if there is one, at network_position()
EINFIELD_NO_EXEC_CHECK
template <class Real, class Take>
EINFIELD_HD void render_ray_components(const Scene<Real>& scene, Vec2<Real> theta, Vec2<Real> alpha_nn, Take&& take,
                                       const NetworkSample<Real>& sample = {}) {
  const Vec2<Real> beta = theta - macro_deflection(scene, theta) - alpha_nn;
  const int first_light = scene.n_lens + scene.n_source;
  for (int c = scene.n_lens; c < first_light + scene.n_lens_light; ++c)
    take(c, light_brightness(scene.components[c], scene.table + c * kMaxProfileParameters, scene.pixels,
                             c < first_light ? beta : theta, sample));
}

/// Calls `take(c, derivatives)` for every component c that `wants(c)`, with ∂I/∂p for its kMaxProfileParameters
/// parameters.
///
/// With β = θ − α_lens − α_nn:  ∂I/∂p = ∂S/∂p for a light,  ∂I/∂p = −∇S(β)·∂α/∂p for a lens, ∇S summed over the
/// sources. The derivative along parameters v is J v = Σ ∂I/∂p v.
/// @param lenses  whether a lens is wanted
/// @param sample  the network of the NETWORK component, if there is one, at network_position()
EINFIELD_NO_EXEC_CHECK
template <class Real, class Wants, class Take>
EINFIELD_HD void render_ray_tangents(const Scene<Real>& scene, Vec2<Real> theta, Vec2<Real> alpha_nn, bool lenses,
                                     Wants&& wants, Take&& take, const NetworkSample<Real>& sample = {}) {
  const Vec2<Real> beta = theta - macro_deflection(scene, theta) - alpha_nn;
  Vec2<Real> beta_bar{}, theta_bar{};
  const int first_light = scene.n_lens + scene.n_source;
  for (int c = scene.n_lens; c < first_light + scene.n_lens_light; ++c) {
    const bool source = c < first_light;
    if (!wants(c) && !(source && lenses)) continue;
    Real p_bar[kMaxProfileParameters] = {};
    light_brightness_adjoint(
        scene.components[c], scene.table + c * kMaxProfileParameters, scene.pixels, source ? beta : theta, Real(1),
        source ? beta_bar : theta_bar, p_bar, [](int, Real) {}, sample);
    if (wants(c)) take(c, p_bar);
  }
  for (int c = 0; c < scene.n_lens; ++c) {
    if (!wants(c)) continue;
    Real p_bar[kMaxProfileParameters] = {};
    lens_deflection_adjoint(static_cast<LensKind>(scene.components[c].kind), scene.table + c * kMaxProfileParameters,
                            theta, Vec2<Real>{-beta_bar.x, -beta_bar.y}, theta_bar, p_bar);
    take(c, p_bar);
  }
}

}  // namespace einfield
