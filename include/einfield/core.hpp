// Ground everything stands on: host/device marker, 2-vectors, math names, the version.
// Conventions (units, axes, signs) are those of lenstronomy; README.md, "Conventions".
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define EINFIELD_HD __host__ __device__
// Before a template that calls what it is given: a device lambda makes it a device function, and that is meant.
#define EINFIELD_NO_EXEC_CHECK _Pragma("nv_exec_check_disable")
#else
#define EINFIELD_HD
#define EINFIELD_NO_EXEC_CHECK
#endif

/// The version, written once: CMake and the binary read it from here.
#define EINFIELD_VERSION_MAJOR 0
#define EINFIELD_VERSION_MINOR 1
#define EINFIELD_VERSION_PATCH 0

namespace einfield {

// Unqualified calls inside the namespace keep float a float on both compilers.
using std::abs;
using std::atan;
using std::atan2;
using std::atanh;
using std::cos;
using std::exp;
using std::expm1;
using std::floor;
using std::fma;
using std::hypot;
using std::isfinite;
using std::log;
using std::log1p;
using std::pow;
using std::rint;
using std::sin;
using std::sqrt;
using std::tanh;

/// A point or vector of the image or source plane.
template <class Real>
struct Vec2 {
  Real x{};
  Real y{};
};

template <class Real>
EINFIELD_HD Vec2<Real> operator+(Vec2<Real> a, Vec2<Real> b) {
  return {a.x + b.x, a.y + b.y};
}
template <class Real>
EINFIELD_HD Vec2<Real> operator-(Vec2<Real> a, Vec2<Real> b) {
  return {a.x - b.x, a.y - b.y};
}
template <class Real>
EINFIELD_HD Vec2<Real> operator*(Real s, Vec2<Real> a) {
  return {s * a.x, s * a.y};
}
template <class Real>
EINFIELD_HD Vec2<Real>& operator+=(Vec2<Real>& a, Vec2<Real> b) {
  a.x += b.x;
  a.y += b.y;
  return a;
}
template <class Real>
EINFIELD_HD Vec2<Real>& operator-=(Vec2<Real>& a, Vec2<Real> b) {
  a.x -= b.x;
  a.y -= b.y;
  return a;
}
template <class Real>
EINFIELD_HD Real dot(Vec2<Real> a, Vec2<Real> b) {
  return a.x * b.x + a.y * b.y;
}

}  // namespace einfield
