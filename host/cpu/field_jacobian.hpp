// The derivatives of the network's ψ, α and κ at a point with respect to its weights, for the propagation of a
// covariance of the weights into maps. network_jacobian.hpp has those of α alone, by a cheaper way.
#pragma once

#include <vector>

#include "einfield/network.hpp"

namespace einfield {

/// One point after the other, for one thread. With jets (einfield/network.hpp, Jet) as inputs of a layer,
/// a = W h + b holds part by part (b only in the value), and the adjoint of (2) there, h = s(a), is
///
///     ā   = s′ h̄ + s″ (a_x h̄_x + a_y h̄_y) + (s‴ (a_x² + a_y²) + s″ Δa) Δh̄
///     ā_d = s′ h̄_d + 2 s″ a_d Δh̄,   Δā = s′ Δh̄                                                                (1)
///     W̄   = ā hᵀ + ā_x h_xᵀ + ā_y h_yᵀ + Δā Δhᵀ,   b̄ = ā,   h̄ = Wᵀ ā part by part                              (2)
///
/// The output's cotangent is (1, 0, 0, 0) for ψ, (0, 1, 0, 0) and (0, 0, 1, 0) for α, (0, 0, 0, ½) for κ.
class FieldJacobian {
 public:
  /// The gradients at a point, flat layout of the shape; 0 for weights that are fixed.
  struct Gradients {
    std::vector<double> psi, alpha_x, alpha_y, kappa;
  };

  /// @param parameters  flat layout of `shape`; kept by reference, like the shape
  FieldJacobian(const NetworkShape& shape, const double* parameters);
  /// @param theta  position [arcsec]
  const Gradients& at(Vec2<double> theta);

 private:
  struct Layer {
    int inputs, outputs;
    const double *kernel, *bias;
    std::size_t kernel_offset, bias_offset;
    std::vector<Jet<double>> a, h, bar;  ///< `bar` is the cotangent of h, then that of a
    std::vector<double> third;           ///< s‴
    std::vector<Swish<double>> s;
  };
  void forward(Vec2<double> theta);
  void backward(Jet<double> seed, std::vector<double>& out);
  const std::vector<Jet<double>>& input(std::size_t layer) const { return layer == 0 ? u_ : layers_[layer - 1].h; }

  const NetworkShape& shape_;
  std::vector<Layer> layers_;
  std::vector<Jet<double>> u_;
  Gradients gradients_;
};

}  // namespace einfield
