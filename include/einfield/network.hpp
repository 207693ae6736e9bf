// The neural potential: its shape, parameter layout, initial weights, and the swish activation with its derivatives.
// ψ = MLP(u), u = input_scale · θ (Biggio et al. 2021, section 3); the stage contract is at the end of this file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "einfield/core.hpp"
#include "einfield/error.hpp"

namespace einfield {

/// Limits, stated to users by `info --keys` and enforced by NetworkShape::validate().
inline constexpr int kMaxHiddenLayers = 16;
inline constexpr int kMaxWidth = 4096;

/// Shape of the multilayer perceptron 2 → hidden[0] → … → hidden[L−1] → 1, and where its tensors sit in the flat vector.
///
/// Layer l (0 … L) has kernel (in × out, row-major: index i · out + o) followed by bias (out); layers follow each other
/// without padding. This layout is that of network.safetensors and of every parameter, gradient and moment vector.
struct NetworkShape {
  std::vector<int> hidden;   ///< widths of the hidden layers, each 1 … kMaxWidth; 1 … kMaxHiddenLayers of them
  double input_scale = 1.0;  ///< ℓ: the network sees u = ℓ θ, θ in arcsec

  int layers() const { return static_cast<int>(hidden.size()) + 1; }
  int inputs(int layer) const { return layer == 0 ? 2 : hidden[static_cast<std::size_t>(layer) - 1]; }
  int outputs(int layer) const { return layer + 1 == layers() ? 1 : hidden[static_cast<std::size_t>(layer)]; }
  std::size_t kernel_offset(int layer) const {
    std::size_t offset = 0;
    for (int l = 0; l < layer; ++l) offset += (static_cast<std::size_t>(inputs(l)) + 1) * static_cast<std::size_t>(outputs(l));
    return offset;
  }
  std::size_t bias_offset(int layer) const {
    return kernel_offset(layer) + static_cast<std::size_t>(inputs(layer)) * static_cast<std::size_t>(outputs(layer));
  }
  std::size_t size() const { return kernel_offset(layers()); }

  /// @throws InvalidInput when a width, the number of layers or input_scale is out of range.
  void validate() const;
};

/// Initial weights of Flax's Dense: kernels from lecun_normal (a normal of σ = √(1/fan_in)/0.87962566 truncated at ±2σ),
/// biases zero; drawn in double from Philox4x32-10 (Salmon et al. 2011) with counter = position in the flat vector and
/// key = seed, so every backend, precision and thread count starts from the same numbers.
/// @param last_layer_zero  start with the output kernel at zero: the correction starts at nothing
/// @return flat parameter vector, shape.size() values
std::vector<double> initial_weights(const NetworkShape& shape, std::uint64_t seed, bool last_layer_zero);

/// Philox4x32-10: one counter, one key, four 32-bit words (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
struct Philox {
  std::uint64_t key;
  struct Block {
    std::uint32_t word[4];
  };
  Block operator()(std::uint64_t counter, std::uint64_t stream = 0) const;
  /// A uniform number in (0, 1) with 53 random bits.
  double uniform(std::uint64_t counter, std::uint64_t stream = 0) const;
  /// A standard normal number (inverse of the cumulative distribution of uniform()).
  double normal(std::uint64_t counter, std::uint64_t stream = 0) const;
};

/// Swish and its first two derivatives from one exponential.
///
///     s = aσ,   s′ = σ + s(1 − σ),   s″ = (1 − σ)(2σ + s(1 − 2σ)),   σ = 1/(1 + e^(−a))
///
/// For large a, 1 − σ cancels: τ = σ(−a) is computed from the same exponential instead, so that s″ keeps its relative
/// accuracy wherever it is not below the smallest normal number.
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

// The stage contract, obeyed by host/cpu/network.cpp, kernels/network.cu and tests/reference_network.hpp:
//
//   network          positions θ (n points), parameters → ψ (n), α = ∇ψ (2 × n: all x, then all y), a private tape
//   network_adjoint  ψ̄ (n, or absent = 0), ᾱ (2 × n), tape → adds to the gradient of every weight and bias (flat layout)
//   network_kappa    positions, parameters → κ = ½ ∇²ψ (n); value only
//
// Points whose cotangent is exactly zero contribute nothing and may be skipped. The bias of the last layer shifts ψ only.
// With L hidden layers (style: column vectors, W = kernelᵀ, h₀ = u):
//   value      a_l = W_l h_{l−1} + b_l,  h_l = s(a_l),  ψ = w·h_L + b
//   gradient   g_L = s′(a_L)∘w,  p_l = W_{l+1}ᵀ g_{l+1},  g_l = s′(a_l)∘p_l,  α = ℓ W₁ᵀ g₁
//   adjoint    ḡ₁ = ℓ W₁ᾱ,  p̄_l = s′(a_l)∘ḡ_l,  ā_l = s″(a_l)∘p_l∘ḡ_l  (p_L = w),  ḡ_{l+1} = W_{l+1} p̄_l
//              w̄ += p̄_L + ψ̄ h_L,  ā_L += ψ̄ s′(a_L)∘w,   h̄_l = W_{l+1}ᵀ ā_{l+1},  ā_l += s′(a_l)∘h̄_l
//   weights    W̄_{l+1} += g_{l+1} p̄_lᵀ + ā_{l+1} h_lᵀ,   W̄₁ += ℓ g₁ᾱᵀ + ā₁uᵀ,   b̄_l += ā_l,   b̄ += ψ̄
//   κ          one forward tangent per axis: κ = ½ Σ_d ∂α_d/∂θ_d

}  // namespace einfield
