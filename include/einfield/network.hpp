// The neural potential: its shape, parameter layout, initial weights, and its activations with their derivatives.
// ψ = MLP(u), u = input_scale · θ (Biggio et al. 2021, section 3), or an MLP of Fourier features of u (Tancik et al.
// 2020, section 5); the stage contract is at the end of this file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "einfield/core.hpp"
#include "einfield/error.hpp"
#include "einfield/random.hpp"

namespace EINFIELD_API einfield {

/// Limits, stated to users by `info --keys` and enforced by NetworkShape::validate().
inline constexpr int kMaxHiddenLayers = 16;
inline constexpr int kMaxWidth = 4096;

/// Arithmetic of the matrix products between hidden layers and of their gradient, in single precision on a CUDA device.
enum class NetworkMath {
  fp32,    ///< fused multiply-adds; the only choice on the CPU and in double precision
  tf32x3,  ///< on the matrix units, three TF32 products per product: as accurate as fp32
  tf32     ///< on the matrix units, one TF32 product: factors are rounded to 11 bits, errors are about 1e-3
};
inline constexpr Named<NetworkMath> kNetworkMaths[] = {
    {"fp32", NetworkMath::fp32}, {"tf32x3", NetworkMath::tf32x3}, {"tf32", NetworkMath::tf32}};
constexpr const char* name_of(NetworkMath math) {
  return name_in(kNetworkMaths, math);
}

/// Shape of the multilayer perceptron 2 → hidden[0] → … → hidden[L−1] → 1, and its tensors in the flat vector.
/// Layer l has kernel (in × out, row-major: index i · out + o) followed by bias (out); layers follow each other without
/// padding. This layout is that of network.safetensors and of every parameter, gradient and moment vector.
///
/// F Fourier features are one more hidden layer in front of all others, layer 0 of 2F channels, whose activation is the
/// sine and whose weights are fixed: their gradient is exactly zero.
///
///     h = sin(Bu + b);   with rows b_f = 0, b_{F+f} = π/2 and B_f = B_{F+f}:   h = [sin(Bu), cos(Bu)]           (1)
/// They may be the only one (`hidden` is empty). ψ = w·h + b is then linear in the weights that are fitted: with normal
/// weights, a Gaussian process whose spectrum is the distribution of the frequencies (Rahimi & Recht 2007).
struct NetworkShape {
  std::vector<int> hidden;   ///< widths of the layers with swish, each 1 … kMaxWidth; at least one without features
  double input_scale = 1.0;  ///< ℓ: the network sees u = ℓ θ, θ in arcsec
  int fourier_features = 0;  ///< F, up to kMaxWidth / 2; 0 = no encoding

  /// Number of layers at the beginning whose weights are fixed, and number of these weights.
  int fixed_layers() const { return fourier_features > 0 ? 1 : 0; }
  std::size_t fixed_size() const { return kernel_offset(fixed_layers()); }

  /// Number of layers: the encoding if there is one, the hidden layers, the output. All but the output are at most
  /// kMaxHiddenLayers.
  int layers() const { return fixed_layers() + static_cast<int>(hidden.size()) + 1; }
  int inputs(int layer) const { return layer == 0 ? 2 : outputs(layer - 1); }
  int outputs(int layer) const {
    if (layer < fixed_layers()) return 2 * fourier_features;
    return layer + 1 == layers() ? 1 : hidden[static_cast<std::size_t>(layer - fixed_layers())];
  }
  std::size_t kernel_offset(int layer) const {
    std::size_t offset = 0;
    for (int l = 0; l < layer; ++l)
      offset += (static_cast<std::size_t>(inputs(l)) + 1) * static_cast<std::size_t>(outputs(l));
    return offset;
  }
  std::size_t bias_offset(int layer) const {
    return kernel_offset(layer) + static_cast<std::size_t>(inputs(layer)) * static_cast<std::size_t>(outputs(layer));
  }
  std::size_t size() const { return kernel_offset(layers()); }

  /// @throws InvalidInput when a width, the number of layers or input_scale is out of range.
  void validate() const;
};
inline bool operator==(const NetworkShape& a, const NetworkShape& b) {
  return a.hidden == b.hidden && a.input_scale == b.input_scale && a.fourier_features == b.fourier_features;
}
inline bool operator!=(const NetworkShape& a, const NetworkShape& b) {
  return !(a == b);
}

/// How the frequencies k of F Fourier features lie in the plane, in rad per unit of u = input_scale · θ.
enum class Frequencies {
  normal,  ///< k_x and k_y normal with σ = 1/scale, from random_stream::kFrequencies, counter = position in the kernel
  /// Evenly over the half disk |k| < K = 2/scale, which has the mean |k|² of `normal` (k and −k are one feature):
  /// |k_f| = K √((f + ½)/F), at angles that advance by π (√5 − 1)/2 (the spiral of Vogel 1979) from a random one. They
  /// span what a field of width D can show up to K when their distance √(πK²/2F) is below 2π/D.
  even
};
inline constexpr Named<Frequencies> kFrequencies[] = {{"normal", Frequencies::normal}, {"even", Frequencies::even}};
constexpr const char* name_of(Frequencies frequencies) {
  return name_in(kFrequencies, frequencies);
}

struct FourierSpectrum {
  double scale = 2;  ///< distance over which a typical feature changes by one radian, > 0, in units of u
  Frequencies frequencies = Frequencies::normal;
};

/// Initial weights of Flax's Dense: kernels from lecun_normal (a normal of σ = √(1/fan_in)/0.87962566 truncated at
/// ±2σ), biases zero; drawn in double from Philox4x32-10 (Salmon et al. 2011) with counter = position in the flat
/// vector and key = seed, so every backend, precision and thread count starts from the same numbers.
/// @param last_layer_zero  set the output kernel to zero: the initial potential is zero
/// @param spectrum         of the Fourier features; unused without them
/// @param stream           of the random numbers (random_stream): networks of one seed and different streams differ
/// @return flat parameter vector, shape.size() values
/// @throws InvalidInput for a shape or a scale out of range.
std::vector<double> initial_weights(const NetworkShape& shape, std::uint64_t seed, bool last_layer_zero,
                                    const FourierSpectrum& spectrum = {}, std::uint64_t stream = 0);

/// Swish and its first two derivatives from one exponential.
///
///     s = aσ,   s′ = σ + s(1 − σ),   s″ = (1 − σ)(2σ + s(1 − 2σ)),   σ = 1/(1 + e^(−a))
///
/// For large a, 1 − σ loses its digits. Therefore τ = σ(−a) is computed from the same exponential, and s″ keeps its
/// relative accuracy down to the smallest normal number.
template <class Real>
struct Swish {
  Real value, first, second;
};

template <class Real>
EINFIELD_HD Swish<Real> swish(Real a) {
  // e = exp(−|a|) ≤ 1 never overflows; σ(|a|) = 1/(1+e), σ(−|a|) = e/(1+e).
  const Real e = exp(-(a < 0 ? -a : a));
  const Real inverse = 1 / (1 + e);
  const Real big = inverse, small = e * inverse;
  const Real sigma = a < 0 ? small : big;
  const Real tau = a < 0 ? big : small;
  const Real value = a * sigma;
  return {value, sigma + value * tau, tau * (2 * sigma + value * (tau - sigma))};
}

/// Largest argument of sine() and cosine() [rad]; above it they return NaN. In single precision its phase is known to
/// 1e-3.
inline constexpr double kMaxPhase = 3e4;
template <class Real>
inline constexpr Real kNoPhase = std::numeric_limits<Real>::quiet_NaN();

/// sin(a + turn π) for turn = 0 or ½, within 1.5 ε of 1: reduction by multiples of π in two parts (fused multiply-adds
/// do not round the products), then the odd polynomial of least error. Unlike the library's sine it needs no slow path
/// for large arguments, which on a device would cost registers and local memory.
template <class Real>
EINFIELD_HD Real turned_sine(Real a, Real turn) {
  constexpr bool kFloat = sizeof(Real) == 4;
  constexpr Real kHigh = kFloat ? Real(3.1415927410125732) : Real(3.1415926535897931);
  constexpr Real kLow = kFloat ? Real(-8.7422780003724857e-8) : Real(1.2246467991473532e-16);
  if (!(abs(a) <= static_cast<Real>(kMaxPhase))) a = kNoPhase<Real>;
  // a + turn π = n π + r
  const Real n = rint(fma(a, Real(0.31830988618379067), turn)), q = n - turn;
  const Real r = fma(-q, kLow, fma(-q, kHigh, a)), x = r * r;
  Real series = 0;
  if constexpr (kFloat) {
    series = fma(Real(2.5992431478502048e-6), x, Real(-1.9806249621178364e-4));
    series = fma(series, x, Real(8.3330122545320509e-3));
    series = fma(series, x, Real(-0.16666656892030796));
  } else {
    series = fma(Real(2.7180060679620590e-15), x, Real(-7.6426655997388300e-13));
    series = fma(series, x, Real(1.6058925976265453e-10));
    series = fma(series, x, Real(-2.5052106568440425e-8));
    series = fma(series, x, Real(2.7557319207350491e-6));
    series = fma(series, x, Real(-1.9841269841183240e-4));
    series = fma(series, x, Real(8.3333333333331057e-3));
    series = fma(series, x, Real(-0.16666666666666664));
  }
  const Real value = fma(series * x, r, r);
  const Real odd = fma(Real(-2), floor(Real(0.5) * n), n);  // 0 or 1
  return fma(-2 * odd, value, value);
}

/// The activation of Fourier features, s = sin a, and its first derivative; s″ = −s.
template <class Real>
EINFIELD_HD Real sine(Real a) {
  return turned_sine(a, Real(0));
}
template <class Real>
EINFIELD_HD Real cosine(Real a) {
  return turned_sine(a, Real(0.5));
}

/// A quantity at a point, its gradient with respect to θ, and its Laplacian.
template <class Real>
struct Jet {
  Real value, x, y, laplacian;
};

/// h = s(a) for a quantity a, with the chain rule:
///
///     h_d = s′ a_d,   Δh = s″ (a_x² + a_y²) + s′ Δa                                                              (2)
/// @param encoded  the activation is the sine of Fourier features, else the swish
template <class Real>
EINFIELD_HD Jet<Real> activated(const Jet<Real>& a, bool encoded) {
  const Swish<Real> s = encoded ? Swish<Real>{sine(a.value), cosine(a.value), -sine(a.value)} : swish(a.value);
  return {s.value, s.first * a.x, s.first * a.y, s.second * (a.x * a.x + a.y * a.y) + s.first * a.laplacian};
}

/// ψ, α and κ of a network at n positions.
template <class Real>
struct NetworkFields {
  std::vector<Real> potential;    ///< n [arcsec²]
  std::vector<Real> deflection;   ///< 2 × n, all x, then all y [arcsec]
  std::vector<Real> convergence;  ///< n
};

// The contract of the network stage. Every implementation, on the CPU and on CUDA devices, computes:
//
//   network          positions θ (n points), parameters → ψ (n), α = ∇ψ (2 × n: all x, then all y), a private tape
//   network_adjoint  ψ̄ (n, or absent = 0), ᾱ (2 × n), tape → adds to the gradient of every weight and bias (flat
//   layout)
//
// and, for the maps of a finished fit:
//
//   network_fields   positions, parameters → ψ, α, κ = ½ ∇²ψ (n); values only
//
// Points whose cotangent is exactly zero contribute nothing and may be skipped. The bias of the last layer only shifts
// ψ. With L hidden layers, the encoding counted (column vectors, W = kernelᵀ, h₀ = u), s the swish, or its sine:
//   value      a_l = W_l h_{l−1} + b_l,  h_l = s(a_l),  ψ = w·h_L + b
//   gradient   g_L = s′(a_L)∘w,  p_l = W_{l+1}ᵀ g_{l+1},  g_l = s′(a_l)∘p_l,  α = ℓ W₁ᵀ g₁
//   adjoint    ḡ₁ = ℓ W₁ᾱ,  p̄_l = s′(a_l)∘ḡ_l,  ā_l = s″(a_l)∘p_l∘ḡ_l  (p_L = w),  ḡ_{l+1} = W_{l+1} p̄_l
//              w̄ += p̄_L + ψ̄ h_L,  ā_L += ψ̄ s′(a_L)∘w,   h̄_l = W_{l+1}ᵀ ā_{l+1},  ā_l += s′(a_l)∘h̄_l
//   weights    W̄_{l+1} += g_{l+1} p̄_lᵀ + ā_{l+1} h_lᵀ,   W̄₁ += ℓ g₁ᾱᵀ + ā₁uᵀ,   b̄_l += ā_l,   b̄ += ψ̄
//   κ          value, gradient and Laplacian of every channel go forward together, by (2): κ = ½ w·Δh_L
// The adjoint adds nothing for W₁ and b₁ when they are the fixed weights of an encoding; ā₁, g₁ and p₁ are then not
// needed. If the encoding is the only layer (L = 1), what remains is w̄ += s′(a₁)∘ḡ₁ + ψ̄ h₁ and b̄ += ψ̄.

}  // namespace einfield
