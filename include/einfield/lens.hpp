// Lens profiles: ψ, α, κ, γ and their adjoints; the table of their names and parameters, and the choice among them.
// Conventions are lenstronomy's; the formulas, with their derivation, are in the headers under lens/.
#pragma once

#include "einfield/core.hpp"
#include "einfield/lens/epl.hpp"
#include "einfield/lens/flexion.hpp"
#include "einfield/lens/multipole.hpp"
#include "einfield/lens/nfw.hpp"
#include "einfield/lens/nie.hpp"
#include "einfield/lens/plane.hpp"
#include "einfield/lens/shear.hpp"
#include "einfield/lens/sis.hpp"
#include "einfield/lens/tnfw.hpp"
#include "einfield/profile.hpp"

namespace EINFIELD_API einfield {

enum class LensKind : int {
  sie,
  sis,
  nie,
  epl,
  nfw,
  nfw_ellipse_potential,
  tnfw,
  shear,
  flexion,
  convergence,
  point_mass,
  multipole
};
inline constexpr int kLensKinds = 12;

/// Name, parameters (in the order of every `p` below), units, ranges and defaults of a profile.
inline const ProfileInfo& lens_info(LensKind kind) {
  static const auto required = [](const char* name, const char* unit) {
    return ParameterInfo{name, unit, Range::positive, 0, kInfinity, kRequired};
  };
  static const auto unbounded = [](const char* name, const char* unit, double default_value) {
    return ParameterInfo{name, unit, Range::unbounded, -kInfinity, kInfinity, default_value};
  };
  static const ParameterInfo theta_E = required("theta_E", "arcsec"), Rs = required("Rs", "arcsec");
  static const ParameterInfo alpha_Rs = required("alpha_Rs", "arcsec");
  static const ParameterInfo e1{"e1", "", Range::ellipticity, -1, 1, 0}, e2{"e2", "", Range::ellipticity, -1, 1, 0};
  static const ParameterInfo center_x = unbounded("center_x", "arcsec", 0),
                             center_y = unbounded("center_y", "arcsec", 0);
  static const ParameterInfo ra_0 = unbounded("ra_0", "arcsec", 0), dec_0 = unbounded("dec_0", "arcsec", 0);
  static const auto flexion = [](const char* name) {
    return ParameterInfo{name, "arcsec-1", Range::unbounded, -kInfinity, kInfinity, kRequired};
  };
  static const ProfileInfo table[kLensKinds] = {
      {"SIE", {theta_E, e1, e2, center_x, center_y}},
      {"SIS", {theta_E, center_x, center_y}},
      {"NIE", {theta_E, e1, e2, required("s_scale", "arcsec"), center_x, center_y}},
      {"EPL", {theta_E, {"gamma", "", Range::interval, 1, 3, kRequired}, e1, e2, center_x, center_y}},
      {"NFW", {Rs, alpha_Rs, center_x, center_y}},
      {"NFW_ELLIPSE_POTENTIAL", {Rs, alpha_Rs, e1, e2, center_x, center_y}},
      {"TNFW", {Rs, alpha_Rs, required("r_trunc", "arcsec"), center_x, center_y}},
      {"SHEAR", {unbounded("gamma1", "", kRequired), unbounded("gamma2", "", kRequired), ra_0, dec_0}},
      {"FLEXION", {flexion("g1"), flexion("g2"), flexion("g3"), flexion("g4"), ra_0, dec_0}},
      {"CONVERGENCE", {unbounded("kappa", "", kRequired), ra_0, dec_0}},
      {"POINT_MASS", {theta_E, center_x, center_y}},
      {"MULTIPOLE",
       {{"m", "", Range::integer, 1, 100, kRequired},
        unbounded("a_m", "arcsec", kRequired),
        unbounded("phi_m", "rad", kRequired),
        center_x,
        center_y,
        {"r_E", "arcsec", Range::reference, 0, kInfinity, 1}}}};
  return table[static_cast<int>(kind)];
}

/// Index of center_x (or ra_0) in the parameters; center_y (dec_0) follows it.
EINFIELD_HD constexpr int lens_center(LensKind kind) {
  switch (kind) {
    case LensKind::sis:
    case LensKind::convergence:
    case LensKind::point_mass:
      return 1;
    case LensKind::nfw:
    case LensKind::shear:
      return 2;
    case LensKind::sie:
    case LensKind::tnfw:
    case LensKind::multipole:
      return 3;
    case LensKind::nie:
    case LensKind::epl:
    case LensKind::flexion:
    case LensKind::nfw_ellipse_potential:
      break;
  }
  return 4;
}

/// Calls `visit(profile)` with the parameters of `kind` as the struct of its header, center excepted.
EINFIELD_NO_EXEC_CHECK
template <class Real, class Visitor>
EINFIELD_HD void visit_lens(LensKind kind, const Real* p, Visitor& visit) {
  switch (kind) {
    case LensKind::sie:
      return visit(Nie<Real>{p[0], {p[1], p[2]}, Real(kLensCore)});
    case LensKind::sis:
      return visit(Sis<Real>{p[0]});
    case LensKind::nie:
      return visit(Nie<Real>{p[0], {p[1], p[2]}, p[3]});
    case LensKind::shear:
      return visit(Shear<Real>{{p[0], p[1]}});
    case LensKind::flexion:
      return visit(Flexion<Real>{p[0], p[1], p[2], p[3]});
    case LensKind::convergence:
      return visit(Convergence<Real>{p[0]});
    case LensKind::point_mass:
      return visit(PointMass<Real>{p[0]});
    case LensKind::epl:
      return visit(Epl<Real>{p[0], p[1], {p[2], p[3]}});
    case LensKind::nfw:
      return visit(Nfw<Real>{p[0], p[1], {}});
    case LensKind::nfw_ellipse_potential:
      return visit(Nfw<Real>{p[0], p[1], {p[2], p[3]}});
    case LensKind::tnfw:
      return visit(Tnfw<Real>{p[0], p[1], p[2]});
    case LensKind::multipole:
      return visit(Multipole<Real>{static_cast<int>(p[0]), p[1], p[2], p[5]});
  }
}

/// Adds the cotangent of a profile's struct to that of the parameters of `kind`.
template <class Real>
EINFIELD_HD void add_parameters(LensKind kind, const Nie<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.theta_E;
  p_bar[1] += bar.e.x;
  p_bar[2] += bar.e.y;
  if (kind == LensKind::nie) p_bar[3] += bar.core;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Sis<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.theta_E;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const PointMass<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.theta_E;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Shear<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.gamma.x;
  p_bar[1] += bar.gamma.y;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Flexion<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.g1;
  p_bar[1] += bar.g2;
  p_bar[2] += bar.g3;
  p_bar[3] += bar.g4;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Convergence<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.kappa;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Epl<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.theta_E;
  p_bar[1] += bar.gamma;
  p_bar[2] += bar.e.x;
  p_bar[3] += bar.e.y;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind kind, const Nfw<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.Rs;
  p_bar[1] += bar.alpha_Rs;
  if (kind == LensKind::nfw) return;
  p_bar[2] += bar.e.x;
  p_bar[3] += bar.e.y;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Tnfw<Real>& bar, Real* p_bar) {
  p_bar[0] += bar.Rs;
  p_bar[1] += bar.alpha_Rs;
  p_bar[2] += bar.r_trunc;
}
template <class Real>
EINFIELD_HD void add_parameters(LensKind, const Multipole<Real>& bar, Real* p_bar) {
  p_bar[1] += bar.a_m;
  p_bar[2] += bar.phi_m;
  p_bar[5] += bar.r_E;
}

/// The functors that visit_lens() calls.
template <class Real>
struct DeflectionOf {
  Vec2<Real> z, result;
  template <class Profile>
  EINFIELD_HD void operator()(const Profile& lens) {
    result = lens_deflection(lens, z);
  }
};
template <class Real>
struct ValuesOf {
  Vec2<Real> z;
  LensValues<Real> result;
  template <class Profile>
  EINFIELD_HD void operator()(const Profile& lens) {
    result = lens_values(lens, z);
  }
};
template <class Real, class Cotangent>
struct AdjointOf {
  LensKind kind;
  Vec2<Real> z;
  Cotangent bar;
  Vec2<Real> z_bar;
  Real* p_bar;
  template <template <class> class Profile>
  EINFIELD_HD void operator()(const Profile<Real>& lens) {
    Profile<Real> lens_bar{};
    lens_adjoint(lens, z, bar, z_bar, p_bar ? &lens_bar : nullptr);
    if (p_bar) add_parameters(kind, lens_bar, p_bar);
  }
};

/// Position relative to the center of the profile.
template <class Real>
EINFIELD_HD Vec2<Real> lens_offset(LensKind kind, const Real* p, Vec2<Real> theta) {
  const int center = lens_center(kind);
  return {theta.x - p[center], theta.y - p[center + 1]};
}

/// Deflection α of a profile.
/// @param p      parameters of `kind`, in the order and units of lens_info(kind)
/// @param theta  image-plane position [arcsec]
/// @return       reduced deflection [arcsec]
/// @pre  Model::validate() has passed: nothing is checked per ray. Every value and every derivative is finite then, up
///       to 1e8 arcsec from the center in single precision.
template <class Real>
EINFIELD_HD Vec2<Real> lens_deflection(LensKind kind, const Real* p, Vec2<Real> theta) {
  DeflectionOf<Real> visitor{lens_offset(kind, p, theta), {}};
  visit_lens(kind, p, visitor);
  return visitor.result;
}

/// ψ, α, κ, γ of a profile; arguments as in lens_deflection.
template <class Real>
EINFIELD_HD LensValues<Real> lens_values(LensKind kind, const Real* p, Vec2<Real> theta) {
  ValuesOf<Real> visitor{lens_offset(kind, p, theta), {}};
  visit_lens(kind, p, visitor);
  return visitor.result;
}

/// Adjoint of lens_deflection or lens_values, as the type of the cotangent says: adds. θ and the center enter as their
/// difference.
template <class Real, class Cotangent>
EINFIELD_HD void lens_kind_adjoint(LensKind kind, const Real* p, Vec2<Real> theta, const Cotangent& bar,
                                   Vec2<Real>& theta_bar, Real* p_bar) {
  AdjointOf<Real, Cotangent> visitor{kind, lens_offset(kind, p, theta), bar, {}, p_bar};
  visit_lens(kind, p, visitor);
  theta_bar += visitor.z_bar;
  if (!p_bar) return;
  const int center = lens_center(kind);
  p_bar[center] -= visitor.z_bar.x;
  p_bar[center + 1] -= visitor.z_bar.y;
}

/// Adjoint of lens_deflection: adds to `theta_bar` and, unless null, to `p_bar`.
/// @param alpha_bar  cotangent of the deflection
/// @param theta_bar  cotangent of the position
/// @param p_bar      cotangents of the parameters, in the order of p; null when none is wanted, which saves work
template <class Real>
EINFIELD_HD void lens_deflection_adjoint(LensKind kind, const Real* p, Vec2<Real> theta, Vec2<Real> alpha_bar,
                                         Vec2<Real>& theta_bar, Real* p_bar) {
  lens_kind_adjoint(kind, p, theta, alpha_bar, theta_bar, p_bar);
}

/// Adjoint of lens_values: adds to `theta_bar` and, unless null, to `p_bar`; arguments as in lens_deflection_adjoint.
/// @param bar  cotangents of ψ, α, κ, γ1, γ2
template <class Real>
EINFIELD_HD void lens_values_adjoint(LensKind kind, const Real* p, Vec2<Real> theta, const LensValues<Real>& bar,
                                     Vec2<Real>& theta_bar, Real* p_bar) {
  lens_kind_adjoint(kind, p, theta, bar, theta_bar, p_bar);
}

}  // namespace einfield
