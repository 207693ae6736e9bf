// What every other header uses: host/device marker, math names, array views, names of enumerators, 2-vectors, version.
// Conventions (units, axes, signs) are those of lenstronomy; README.md, "Conventions".
#pragma once

#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__CUDACC__)
#define EINFIELD_HD __host__ __device__
// Before a template that calls its argument: with a device lambda it becomes a device function, which is intended.
#define EINFIELD_NO_EXEC_CHECK _Pragma("nv_exec_check_disable")
#else
#define EINFIELD_HD
#define EINFIELD_NO_EXEC_CHECK
#endif

/// Makes names visible in the shared library. It stands at the namespace of every public header, and again at templates
/// that the library instantiates, because a namespace does not pass it on to those.
#define EINFIELD_API [[gnu::visibility("default")]]

/// The version, written once: CMake and the binary read it from here.
#define EINFIELD_VERSION_MAJOR 0
#define EINFIELD_VERSION_MINOR 2
#define EINFIELD_VERSION_PATCH 0

namespace EINFIELD_API einfield {

// Unqualified calls inside the namespace keep a float a float, with GCC and with nvcc.
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

/// A pointer with its extent: elements of an array that the view does not own. Indices are ints or sizes, as they come;
/// debug builds check them.
template <class T>
class View {
 public:
  constexpr View() = default;  // on the device, too: nvcc warns of a mark on a defaulted function
  EINFIELD_HD constexpr View(T* data, std::size_t size) : data_(data), size_(size) {}
  /// Of a std::vector or another container with contiguous elements.
  template <class Container, class = decltype(std::declval<Container&>().data())>
  constexpr View(Container& container) : data_(container.data()), size_(container.size()) {}
  /// Of a view of the same elements that may change them.
  template <class U, class = std::enable_if_t<!std::is_same_v<U, T> && std::is_convertible_v<U (*)[], T (*)[]>>>
  EINFIELD_HD constexpr View(View<U> other) : data_(other.data()), size_(other.size()) {}

  EINFIELD_HD constexpr T* data() const { return data_; }
  EINFIELD_HD constexpr std::size_t size() const { return size_; }
  EINFIELD_HD constexpr bool empty() const { return size_ == 0; }
  EINFIELD_HD constexpr T* begin() const { return data_; }
  EINFIELD_HD constexpr T* end() const { return data_ + size_; }
  template <class Index>
  EINFIELD_HD constexpr T& operator[](Index i) const {
    assert(static_cast<std::size_t>(i) < size_);
    return data_[static_cast<std::size_t>(i)];
  }
  /// Elements from `first` on; `count` of them, or all that follow.
  EINFIELD_HD constexpr View from(std::size_t first) const { return {data_ + first, size_ - first}; }
  EINFIELD_HD constexpr View from(std::size_t first, std::size_t count) const { return {data_ + first, count}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};
template <class Container>
View(Container& container) -> View<std::remove_pointer_t<decltype(container.data())>>;

/// An enumerator and its name in configurations and results. Every enum that a user can name has one table of these
/// beside it, and name_of().
template <class Enum>
struct Named {
  const char* name;
  Enum value;
};

/// The name of a value in such a table; "" when the table lacks it.
template <class Enum, std::size_t kCount>
constexpr const char* name_in(const Named<Enum> (&table)[kCount], Enum value) {
  for (const Named<Enum>& entry : table)
    if (entry.value == value) return entry.name;
  return "";
}

/// π, to double precision.
inline constexpr double kPi = 3.14159265358979323846;

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
