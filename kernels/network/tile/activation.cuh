// Swish and sine with their derivatives, and the first layer, whose inputs are the two coordinates of a point.
#pragma once

#include "kernels/network/tile/layout.cuh"

namespace einfield::cuda::tiled {

/// Swish and its derivatives from σ(a) and τ = σ(−a) (network.hpp):
///     s = aσ,   s′ = σ + sτ,   s″ = τ(2σ + s(τ − σ))
template <class Real>
struct Activation {
  Real sigma, tau, value;
  __device__ Real first() const { return fma(value, tau, sigma); }
  __device__ Real second() const { return tau * fma(value, tau - sigma, 2 * sigma); }
};
/// Makes the compiler evaluate functions of several double-precision numbers one after the other: side by side they
/// would take more registers than there are.
__device__ inline double one_by_one(double a) {
  asm volatile("" : "+d"(a));
  return a;
}
__device__ inline float one_by_one(float a) {
  return a;
}
__device__ inline Activation<double> activate(double a) {
  a = one_by_one(a);
  const double e = exp(a < 0 ? a : -a), inverse = 1 / (1 + e);
  const double sigma = a < 0 ? e * inverse : inverse, tau = a < 0 ? inverse : e * inverse;
  return {sigma, tau, a * sigma};
}
/// With E = e^(−a): σ = 1/(1 + E), τ = Eσ; both keep their relative accuracy. Two special-function instructions, each
/// good to 2 units in the last place; their argument a log₂e is rounded before, which costs σ and τ an absolute error
/// below 3e-8. The clamp keeps E finite, so that τ → 1 and not 0 · ∞; NaN comes back through the factor a.
__device__ inline Activation<float> activate(float a) {
  float e, sigma;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(fminf(a * -1.4426950408889634f, 126.0f)));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(sigma) : "f"(1.0f + e));
  return {sigma, e * sigma, a * sigma};
}

/// s(a) and s′(a) of a layer: the sine of an encoding, or swish.
template <bool kEncoded, class Real>
__device__ __forceinline__ Real value_of(Real a) {
  if constexpr (kEncoded)
    return sine(one_by_one(a));
  else
    return activate(a).value;
}
template <bool kEncoded, class Real>
__device__ __forceinline__ Real slope_of(Real a) {
  if constexpr (kEncoded)
    return cosine(one_by_one(a));
  else
    return activate(a).first();
}

/// a of the first layer: two multiply-adds are cheaper than a tape.
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> first_a(const Real* point_data, int point, const Constants<Real>& k) {
  const Pack<Real> x = Pack<Real>::load(point_data + point), y = Pack<Real>::load(point_data + T::kPoints + point);
  Pack<Real> a;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) a.v[i] = fma(k.w_x, x.v[i], fma(k.w_y, y.v[i], k.bias));
  return a;
}

/// ḡ of the first layer, ℓ W₁ᾱ (ℓᾱ is what point_data holds).
template <class T, class Real = typename T::Real>
__device__ __forceinline__ Pack<Real> first_g_bar(const Real* point_data, int point, const Constants<Real>& k) {
  const Pack<Real> x = Pack<Real>::load(point_data + 2 * T::kPoints + point),
                   y = Pack<Real>::load(point_data + 3 * T::kPoints + point);
  Pack<Real> g;
#pragma unroll
  for (int i = 0; i < T::kVector; ++i) g.v[i] = fma(k.w_x, x.v[i], k.w_y * y.v[i]);
  return g;
}

}  // namespace einfield::cuda::tiled
