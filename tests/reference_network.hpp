// The judge of every network implementation: naive loops in double, on purpose by another route than theirs. α comes
// from two forward tangents and the gradient from the adjoint of those three lanes (Griewank & Walther 2008, chapter
// 3).
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "einfield/network.hpp"

namespace einfield {

struct ReferenceResult {
  std::vector<double> psi, alpha, kappa, gradient;  ///< n, 2 × n (all x, then all y), n, shape.size()
};

/// ψ, α, κ and the gradient of Σ ψ̄ψ + ᾱ·α with respect to every parameter; that of fixed weights is zero.
/// @param theta      2 × n, all x, then all y [arcsec]
/// @param psi_bar    n values, or empty for zero
/// @param alpha_bar  2 × n values, or empty for zero
inline ReferenceResult reference_network(const NetworkShape& shape, const std::vector<double>& parameters,
                                         const std::vector<double>& theta, const std::vector<double>& psi_bar = {},
                                         const std::vector<double>& alpha_bar = {}) {
  // Lanes: value, ∂x, ∂y, ∂xx + ∂yy. The last serves κ only and has no adjoint.
  using Lanes = std::array<double, 4>;
  const auto activation = [&shape](int layer, double a) {
    if (layer < shape.fixed_layers()) return std::array<double, 3>{std::sin(a), std::cos(a), -std::sin(a)};
    const double sigma = 1 / (1 + std::exp(-a)), tau = 1 / (1 + std::exp(a)), value = a * sigma;
    return std::array<double, 3>{value, sigma + value * tau, tau * (2 * sigma + value * (tau - sigma))};
  };
  const auto size = [](int width) { return static_cast<std::size_t>(width); };
  const std::size_t n = theta.size() / 2;
  const double scale = shape.input_scale;
  const int layers = shape.layers();
  ReferenceResult result{std::vector<double>(n), std::vector<double>(2 * n), std::vector<double>(n),
                         std::vector<double>(shape.size(), 0.0)};
  for (std::size_t point = 0; point < n; ++point) {
    std::vector<std::vector<Lanes>> h(size(layers)), a(size(layers));  // input and pre-activation of every layer
    h[0] = {{scale * theta[point], scale, 0, 0}, {scale * theta[n + point], 0, scale, 0}};
    for (int l = 0; l < layers; ++l) {
      const std::size_t in = size(shape.inputs(l)), out = size(shape.outputs(l)), layer = size(l);
      a[layer].assign(out, Lanes{});
      for (std::size_t o = 0; o < out; ++o) a[layer][o][0] = parameters[shape.bias_offset(l) + o];
      for (std::size_t i = 0; i < in; ++i)
        for (std::size_t o = 0; o < out; ++o)
          for (std::size_t lane = 0; lane < 4; ++lane)
            a[layer][o][lane] += parameters[shape.kernel_offset(l) + i * out + o] * h[layer][i][lane];
      if (l + 1 == layers) break;
      for (const Lanes& x : a[layer]) {
        const auto [value, first, second] = activation(l, x[0]);
        h[layer + 1].push_back(
            {value, first * x[1], first * x[2], second * (x[1] * x[1] + x[2] * x[2]) + first * x[3]});
      }
    }
    const Lanes& output = a.back()[0];
    result.psi[point] = output[0];
    result.alpha[point] = output[1];
    result.alpha[n + point] = output[2];
    result.kappa[point] = output[3] / 2;

    std::vector<std::array<double, 3>> a_bar{{psi_bar.empty() ? 0 : psi_bar[point],
                                              alpha_bar.empty() ? 0 : alpha_bar[point],
                                              alpha_bar.empty() ? 0 : alpha_bar[n + point]}};
    for (int l = layers - 1; l >= 0; --l) {
      const std::size_t in = size(shape.inputs(l)), out = size(shape.outputs(l)), layer = size(l);
      std::vector<std::array<double, 3>> h_bar(in, std::array<double, 3>{});
      for (std::size_t o = 0; o < out; ++o) result.gradient[shape.bias_offset(l) + o] += a_bar[o][0];
      for (std::size_t i = 0; i < in; ++i)
        for (std::size_t o = 0; o < out; ++o)
          for (std::size_t lane = 0; lane < 3; ++lane) {
            result.gradient[shape.kernel_offset(l) + i * out + o] += a_bar[o][lane] * h[layer][i][lane];
            h_bar[i][lane] += parameters[shape.kernel_offset(l) + i * out + o] * a_bar[o][lane];
          }
      if (l == shape.fixed_layers()) break;
      a_bar.assign(in, std::array<double, 3>{});
      for (std::size_t i = 0; i < in; ++i) {
        const Lanes& x = a[layer - 1][i];
        const auto [value, first, second] = activation(l - 1, x[0]);
        a_bar[i] = {first * h_bar[i][0] + second * (x[1] * h_bar[i][1] + x[2] * h_bar[i][2]), first * h_bar[i][1],
                    first * h_bar[i][2]};
      }
    }
  }
  return result;
}

}  // namespace einfield
