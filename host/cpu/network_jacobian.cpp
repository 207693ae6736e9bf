#include "host/cpu/network_jacobian.hpp"

#include <algorithm>

namespace einfield {
namespace {

/// The numbers of one layer at one point: a_l → h, s′, s″; g and p of the contract in einfield/network.hpp.
struct Layer {
  int inputs, outputs;
  const double *kernel, *bias;
  std::size_t kernel_offset, bias_offset;
  std::vector<double> h, first, second, g, p, g_bar, a_bar;
};

/// One point after the other, for one thread.
class PointJacobian {
 public:
  PointJacobian(const NetworkShape& shape, const double* parameters) : shape_(shape) {
    for (int l = 0; l < shape.layers(); ++l) {
      const auto n = static_cast<std::size_t>(shape.outputs(l));
      const std::vector<double> zero(n, 0.0);
      layers_.push_back({shape.inputs(l), shape.outputs(l), parameters + shape.kernel_offset(l),
                         parameters + shape.bias_offset(l), shape.kernel_offset(l), shape.bias_offset(l), zero, zero,
                         zero, zero, zero, zero, zero});
    }
  }

  /// Activations, g and p at θ.
  void visit(double x, double y) {
    u_[0] = shape_.input_scale * x;
    u_[1] = shape_.input_scale * y;
    const std::size_t last = layers_.size() - 1;
    for (std::size_t l = 0; l < last; ++l) {
      Layer& layer = layers_[l];
      const double* const in = input(l);
      const bool encoded = static_cast<int>(l) < shape_.fixed_layers();
      for (int o = 0; o < layer.outputs; ++o) {
        double a = layer.bias[o];
        for (int i = 0; i < layer.inputs; ++i) a += in[i] * layer.kernel[i * layer.outputs + o];
        const auto k = static_cast<std::size_t>(o);
        const Swish<double> s = encoded ? Swish<double>{sine(a), cosine(a), -sine(a)} : swish(a);
        layer.h[k] = s.value;
        layer.first[k] = s.first;
        layer.second[k] = s.second;
      }
    }
    for (std::size_t l = last; l-- > 0;) {
      Layer& layer = layers_[l];
      const Layer& above = layers_[l + 1];
      for (int i = 0; i < layer.outputs; ++i) {
        double p = 0;
        if (l + 1 == last)
          p = above.kernel[i];
        else
          for (int o = 0; o < above.outputs; ++o)
            p += above.kernel[i * above.outputs + o] * above.g[static_cast<std::size_t>(o)];
        layer.p[static_cast<std::size_t>(i)] = p;
        layer.g[static_cast<std::size_t>(i)] = p * layer.first[static_cast<std::size_t>(i)];
      }
    }
  }

  /// The gradient of α_x (axis 0) or α_y (axis 1) at the point visited: the adjoint for ᾱ = e_axis, ψ̄ = 0.
  void gradient(int axis, double* out) {
    const std::size_t last = layers_.size() - 1;
    const double scale = shape_.input_scale;
    // ḡ and p̄ forward, ā without what comes from above.
    for (std::size_t l = 0; l < last; ++l) {
      Layer& layer = layers_[l];
      for (int o = 0; o < layer.outputs; ++o) {
        double g_bar = 0;
        if (l == 0)
          g_bar = scale * layer.kernel[axis * layer.outputs + o];
        else
          for (int i = 0; i < layer.inputs; ++i) g_bar += layer.kernel[i * layer.outputs + o] * p_bar(l - 1, i);
        const auto k = static_cast<std::size_t>(o);
        layer.g_bar[k] = g_bar;
        layer.a_bar[k] = layer.second[k] * layer.p[k] * g_bar;
      }
    }
    for (int i = 0; i < layers_[last].inputs; ++i)
      out[layers_[last].kernel_offset + static_cast<std::size_t>(i)] = p_bar(last - 1, i);
    out[layers_[last].bias_offset] = 0;
    // ā backward, and the weights on the way.
    for (std::size_t l = last; l-- > 0;) {
      if (static_cast<int>(l) < shape_.fixed_layers()) break;
      Layer& layer = layers_[l];
      if (l + 1 < last)
        for (int i = 0; i < layer.outputs; ++i) {
          const Layer& above = layers_[l + 1];
          double h_bar = 0;
          for (int o = 0; o < above.outputs; ++o)
            h_bar += above.kernel[i * above.outputs + o] * above.a_bar[static_cast<std::size_t>(o)];
          layer.a_bar[static_cast<std::size_t>(i)] += layer.first[static_cast<std::size_t>(i)] * h_bar;
        }
      const double* const in = input(l);
      for (int i = 0; i < layer.inputs; ++i) {
        const double before = l == 0 ? (i == axis ? scale : 0.0) : p_bar(l - 1, i);
        double* const row = out + layer.kernel_offset + static_cast<std::size_t>(i * layer.outputs);
        for (int o = 0; o < layer.outputs; ++o) {
          const auto k = static_cast<std::size_t>(o);
          row[o] = layer.g[k] * before + layer.a_bar[k] * in[i];
        }
      }
      std::copy(layer.a_bar.begin(), layer.a_bar.end(), out + layer.bias_offset);
    }
  }

 private:
  const double* input(std::size_t l) const { return l == 0 ? u_ : layers_[l - 1].h.data(); }
  double p_bar(std::size_t l, int i) const {
    return layers_[l].first[static_cast<std::size_t>(i)] * layers_[l].g_bar[static_cast<std::size_t>(i)];
  }

  const NetworkShape& shape_;
  std::vector<Layer> layers_;
  double u_[2] = {};
};

}  // namespace

void network_jacobian(const NetworkShape& shape, const double* parameters, const double* theta, int n,
                      const std::vector<std::size_t>& weights, double* alpha, ThreadPool& pool) {
  constexpr int kPoints = 64;
  const std::size_t column = 2 * static_cast<std::size_t>(n);
  pool.parallel_for((n + kPoints - 1) / kPoints, [&](int chunk, int) {
    PointJacobian point(shape, parameters);
    std::vector<double> gradient(shape.size(), 0.0);
    for (int i = chunk * kPoints; i < std::min((chunk + 1) * kPoints, n); ++i) {
      point.visit(theta[i], theta[n + i]);
      for (int axis = 0; axis < 2; ++axis) {
        point.gradient(axis, gradient.data());
        double* const to = alpha + axis * n + i;
        for (std::size_t k = 0; k < weights.size(); ++k) to[k * column] = gradient[weights[k]];
      }
    }
  });
}

}  // namespace einfield
