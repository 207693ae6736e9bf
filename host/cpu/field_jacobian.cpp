#include "host/cpu/field_jacobian.hpp"

namespace einfield {
namespace {

/// The third derivative of the swish. From s″ = στ (2 + a(τ − σ)) with τ = 1 − σ, σ′ = στ and (στ)′ = στ (τ − σ):
///
///     s‴ = στ ((τ − σ)(3 + a(τ − σ)) − 2 a στ)                                                                  (3)
double swish_third(double a) {
  const double e = exp(-(a < 0 ? -a : a)), inverse = 1 / (1 + e);
  const double sigma = a < 0 ? e * inverse : inverse, tau = a < 0 ? inverse : e * inverse, d = tau - sigma;
  return sigma * tau * (d * (3 + a * d) - 2 * a * sigma * tau);
}

}  // namespace

FieldJacobian::FieldJacobian(const NetworkShape& shape, const double* parameters) : shape_(shape), u_(2) {
  for (int l = 0; l < shape.layers(); ++l) {
    const auto n = static_cast<std::size_t>(shape.outputs(l));
    layers_.push_back({shape.inputs(l), shape.outputs(l), parameters + shape.kernel_offset(l),
                       parameters + shape.bias_offset(l), shape.kernel_offset(l), shape.bias_offset(l),
                       std::vector<Jet<double>>(n), std::vector<Jet<double>>(n), std::vector<Jet<double>>(n),
                       std::vector<double>(n), std::vector<Swish<double>>(n)});
  }
  for (std::vector<double>* field : {&gradients_.psi, &gradients_.alpha_x, &gradients_.alpha_y, &gradients_.kappa})
    field->assign(shape.size(), 0.0);
}

const FieldJacobian::Gradients& FieldJacobian::at(Vec2<double> theta) {
  forward(theta);
  backward({1, 0, 0, 0}, gradients_.psi);
  backward({0, 1, 0, 0}, gradients_.alpha_x);
  backward({0, 0, 1, 0}, gradients_.alpha_y);
  backward({0, 0, 0, 0.5}, gradients_.kappa);
  return gradients_;
}

/// The jets of all layers but the last one.
void FieldJacobian::forward(Vec2<double> theta) {
  const double scale = shape_.input_scale;
  u_[0] = {scale * theta.x, scale, 0, 0};
  u_[1] = {scale * theta.y, 0, scale, 0};
  for (std::size_t l = 0; l + 1 < layers_.size(); ++l) {
    Layer& layer = layers_[l];
    const std::vector<Jet<double>>& in = input(l);
    const bool encoded = static_cast<int>(l) < shape_.fixed_layers();
    for (int o = 0; o < layer.outputs; ++o) {
      const auto k = static_cast<std::size_t>(o);
      Jet<double> a{layer.bias[o], 0, 0, 0};
      for (int i = 0; i < layer.inputs; ++i) {
        const double w = layer.kernel[i * layer.outputs + o];
        const Jet<double>& h = in[static_cast<std::size_t>(i)];
        a.value += w * h.value;
        a.x += w * h.x;
        a.y += w * h.y;
        a.laplacian += w * h.laplacian;
      }
      layer.a[k] = a;
      layer.h[k] = activated(a, encoded);
      if (encoded) continue;  // its weights are fixed: no adjoint
      layer.s[k] = swish(a.value);
      layer.third[k] = swish_third(a.value);
    }
  }
}

/// (1) and (2) from the last layer down. @param seed  cotangent of the output
void FieldJacobian::backward(Jet<double> seed, std::vector<double>& out) {
  layers_.back().bar[0] = seed;
  for (std::size_t l = layers_.size(); static_cast<int>(l--) > shape_.fixed_layers();) {
    Layer& layer = layers_[l];
    const std::vector<Jet<double>>& in = input(l);
    if (l + 1 < layers_.size())
      for (std::size_t k = 0; k < layer.bar.size(); ++k) {
        const Jet<double> a = layer.a[k], h = layer.bar[k];
        const Swish<double> s = layer.s[k];
        layer.bar[k] = {s.first * h.value + s.second * (a.x * h.x + a.y * h.y) +
                            (layer.third[k] * (a.x * a.x + a.y * a.y) + s.second * a.laplacian) * h.laplacian,
                        s.first * h.x + 2 * s.second * a.x * h.laplacian,
                        s.first * h.y + 2 * s.second * a.y * h.laplacian, s.first * h.laplacian};
      }
    const bool below = static_cast<int>(l) > shape_.fixed_layers();
    for (int i = 0; i < layer.inputs; ++i) {
      const Jet<double> h = in[static_cast<std::size_t>(i)];
      double* const row = out.data() + layer.kernel_offset + static_cast<std::size_t>(i * layer.outputs);
      Jet<double> sum{0, 0, 0, 0};
      for (int o = 0; o < layer.outputs; ++o) {
        const Jet<double>& bar = layer.bar[static_cast<std::size_t>(o)];
        row[o] = bar.value * h.value + bar.x * h.x + bar.y * h.y + bar.laplacian * h.laplacian;
        const double w = layer.kernel[i * layer.outputs + o];
        sum.value += w * bar.value;
        sum.x += w * bar.x;
        sum.y += w * bar.y;
        sum.laplacian += w * bar.laplacian;
      }
      if (below) layers_[l - 1].bar[static_cast<std::size_t>(i)] = sum;
    }
    for (int o = 0; o < layer.outputs; ++o)
      out[layer.bias_offset + static_cast<std::size_t>(o)] = layer.bar[static_cast<std::size_t>(o)].value;
  }
}

}  // namespace einfield
