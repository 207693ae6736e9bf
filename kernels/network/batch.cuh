// The network's whole-batch path: cuBLAS products over all points, element-wise kernels between them; for networks too
// wide for the tile kernels. The same chain of derivatives (network.hpp), arrays point by point: [point][channel].
#pragma once

#include <cstddef>

#include "einfield/network.hpp"
#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda::batch {

/// Positions or cotangents: all x, then all y.
template <class Real>
struct Points {
  const Real *x, *y;
};

// Kernels of the first layer come with s = sine for that of an encoding (kSine), with swish like all others.

/// a = W₁u + b₁ and h = s(a); one thread per number.
template <class Real, bool kSine>
__global__ void first_layer_kernel(int points, int width, const Real* kernel, const Real* bias, Points<Real> theta,
                                   Real scale, Real* a, Real* h) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<std::size_t>(points) * width) return;
  const std::size_t point = i / width;
  const int channel = static_cast<int>(i % width);
  const Real value =
      kernel[channel] * (scale * theta.x[point]) + kernel[width + channel] * (scale * theta.y[point]) + bias[channel];
  a[i] = value;
  h[i] = kSine ? sine(value) : swish(value).value;
}

/// a += b, h = s(a).
template <class Real>
__global__ void activate_kernel(int points, int width, const Real* bias, Real* a, Real* h) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<std::size_t>(points) * width) return;
  const Real value = a[i] + bias[i % width];
  a[i] = value;
  h[i] = swish(value).value;
}

/// out = s(a).
template <class Real, bool kSine>
__global__ void value_kernel(std::size_t size, const Real* a, Real* out) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) out[i] = kSine ? sine(a[i]) : swish(a[i]).value;
}

/// out = s′(a) ∘ v, where v is an array (period = its size) or one vector for all points (period = width).
template <class Real, bool kSine>
__global__ void first_derivative_kernel(std::size_t size, std::size_t period, const Real* a, const Real* v, Real* out) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < size) out[i] = (kSine ? cosine(a[i]) : swish(a[i]).first) * v[i % period];
}

/// ḡ₁ = ℓ W₁ᾱ.
template <class Real>
__global__ void first_g_bar_kernel(int points, int width, const Real* kernel, Points<Real> alpha_bar, Real scale,
                                   Real* g_bar) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<std::size_t>(points) * width) return;
  const std::size_t point = i / width;
  const int channel = static_cast<int>(i % width);
  g_bar[i] = scale * (kernel[channel] * alpha_bar.x[point] + kernel[width + channel] * alpha_bar.y[point]);
}

/// At the top: ā_L = s″(a)∘w∘ḡ_L + ψ̄ s′(a)∘w, and p̄_L + ψ̄ h_L, whose sum over the points is w̄; of the features of an
/// encoding (kSine) only the second.
template <class Real, bool kSine>
__global__ void top_kernel(int points, int width, const Real* a, const Real* w, const Real* g_bar, const Real* psi_bar,
                           Real* a_bar, Real* w_bar_terms) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<std::size_t>(points) * width) return;
  const Real psi = psi_bar != nullptr ? psi_bar[i / width] : Real(0);
  if constexpr (kSine) {
    w_bar_terms[i] = cosine(a[i]) * g_bar[i] + sine(a[i]) * psi;
    return;
  }
  const Swish<Real> s = swish(a[i]);
  a_bar[i] = w[i % width] * (s.second * g_bar[i] + s.first * psi);
  w_bar_terms[i] = s.first * g_bar[i] + s.value * psi;
}

/// ā = s″(a)∘p∘ḡ + s′(a)∘h̄.
template <class Real>
__global__ void a_bar_kernel(std::size_t size, const Real* a, const Real* p, const Real* g_bar, const Real* h_bar,
                             Real* a_bar) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= size) return;
  const Swish<Real> s = swish(a[i]);
  a_bar[i] = s.second * p[i] * g_bar[i] + s.first * h_bar[i];
}

/// out[point] = factor · Σ_channel v[channel] x[point][channel] + offset (when not null); one warp per point.
template <class Real>
__global__ void dot_kernel(int points, int width, const Real* v, const Real* x, Real factor, const Real* offset,
                           Real* out) {
  const std::size_t point = static_cast<std::size_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (point >= static_cast<std::size_t>(points)) return;
  Real sum = 0;
  for (int channel = lane; channel < width; channel += 32) sum += v[channel] * x[point * width + channel];
  sum = warp_sum(sum);
  if (lane == 0) out[point] = factor * sum + (offset != nullptr ? *offset : Real(0));
}

/// out[channel] += factor · Σ_point weight[point] x[point][channel]; weight null = 1. A block of 32 × 32 threads sums
/// 32 channels: each row of threads every 32nd point, then the rows in order.
template <class Real>
__global__ void column_sum_kernel(int points, int width, const Real* x, const Real* weight, Real factor, Real* out) {
  __shared__ Real rows[32][32];
  const int channel = static_cast<int>(blockIdx.x) * 32 + static_cast<int>(threadIdx.x);
  Real sum = 0;
  if (channel < width)
    for (int point = static_cast<int>(threadIdx.y); point < points; point += 32) {
      const Real value = x[static_cast<std::size_t>(point) * width + channel];
      sum += weight != nullptr ? weight[point] * value : value;
    }
  rows[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || channel >= width) return;
  for (int r = 1; r < 32; ++r) sum += rows[r][threadIdx.x];
  out[channel] += factor * sum;
}

inline cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  const float one = 1;
  return cublasSgemm(handle, ta, tb, m, n, k, &one, a, lda, b, ldb, &beta, c, ldc);
}
inline cublasStatus_t gemm(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                           const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  const double one = 1;
  return cublasDgemm(handle, ta, tb, m, n, k, &one, a, lda, b, ldb, &beta, c, ldc);
}

/// Elements of the arrays below, per system and shared.
struct Sizes {
  std::size_t tape_per_system = 0, shared = 0;
  Sizes(const NetworkShape& shape, std::size_t points) {
    std::size_t widest = 0, sum = 0;
    for (int l = 0; l + 1 < shape.layers(); ++l) {
      const auto width = static_cast<std::size_t>(shape.outputs(l));
      sum += width;
      widest = widest > width ? widest : width;
    }
    tape_per_system = points * (2 * sum - static_cast<std::size_t>(shape.outputs(shape.layers() - 2)));
    shared = points * (sum + 3 * widest);
  }
};
constexpr std::size_t kCublasWorkspace = std::size_t{32} << 20;

/// Runs one system after the other.
template <class Real>
class Batch {
 public:
  /// @param tapes  systems, or 1 where all may use one: then adjoint() must not be called
  Batch(const NetworkShape& shape, int points, int systems, int tapes, BufferSource& source)
      : shape_(shape),
        points_(points),
        systems_(systems),
        tapes_(tapes),
        sizes_(shape, static_cast<std::size_t>(points)),
        tape_(source.take<Real>(sizes_.tape_per_system * static_cast<std::size_t>(tapes))),
        shared_(source.take<Real>(sizes_.shared)),
        workspace_(source.take<unsigned char>(kCublasWorkspace)) {}

  static std::size_t bytes(const NetworkShape& shape, int points, int tapes) {
    const Sizes sizes(shape, static_cast<std::size_t>(points));
    return in_workspace(sizes.tape_per_system * static_cast<std::size_t>(tapes) * sizeof(Real)) +
           in_workspace(sizes.shared * sizeof(Real)) + in_workspace(kCublasWorkspace);
  }

  void forward(cudaStream_t stream, const Real* all_parameters, std::size_t stride, const Real* all_positions,
               bool own_positions, Real* psi, Real* alpha) {
    bind(stream);
    const Real scale = static_cast<Real>(shape_.input_scale);
    for (int system = 0; system < systems_; ++system) {
      const Real* positions = all_positions + (own_positions ? static_cast<std::size_t>(system) * 2 * points_ : 0);
      const Points<Real> theta{positions, positions + points_};
      const Real* w = all_parameters + static_cast<std::size_t>(system) * stride;
      const Arrays t = arrays(system % tapes_);
      const int last = hidden() - 1;
      const auto kernel = encoded(0) ? first_layer_kernel<Real, true> : first_layer_kernel<Real, false>;
      kernel<<<grid(width(0)), kThreads, 0, stream>>>(points_, width(0), w + shape_.kernel_offset(0),
                                                      w + shape_.bias_offset(0), theta, scale, t.a[0], t.x);
      EINFIELD_LAUNCH_CHECK();
      for (int l = 1; l <= last; ++l) {
        up(w, l, t.x, t.a[l]);
        activate_kernel<<<grid(width(l)), kThreads, 0, stream>>>(points_, width(l), w + shape_.bias_offset(l), t.a[l],
                                                                 t.x);
        EINFIELD_LAUNCH_CHECK();
      }
      const Real* output = w + shape_.kernel_offset(hidden());
      dot(stream, width(last), output, t.x, Real(1), w + shape_.bias_offset(hidden()),
          psi + static_cast<std::size_t>(system) * points_);
      first_derivative(stream, last, static_cast<std::size_t>(width(last)), t.a[last], output, t.y);
      for (int l = last - 1; l >= 0; --l) {
        down(w, l + 1, t.y, t.p[l]);
        first_derivative(stream, l, size(l), t.a[l], t.p[l], t.y);
      }
      for (int axis = 0; axis < 2; ++axis)
        dot(stream, width(0), w + shape_.kernel_offset(0) + axis * width(0), t.y, scale, nullptr,
            alpha + (static_cast<std::size_t>(system) * 2 + axis) * points_);
    }
  }

  void adjoint(cudaStream_t stream, const Real* all_parameters, std::size_t stride, const Real* all_positions,
               bool own_positions, const Real* alpha_bar, Real* all_gradients, const Real* psi_bar) {
    bind(stream);
    const Real scale = static_cast<Real>(shape_.input_scale);
    for (int system = 0; system < systems_; ++system) {
      const Real* w = all_parameters + static_cast<std::size_t>(system) * stride;
      Real* gradient = all_gradients + static_cast<std::size_t>(system) * stride;
      const Real* positions = all_positions + (own_positions ? static_cast<std::size_t>(system) * 2 * points_ : 0);
      const Real* cotangent =
          alpha_bar != nullptr ? alpha_bar + static_cast<std::size_t>(system) * 2 * points_ : nullptr;
      const Real* psi_cotangent = psi_bar != nullptr ? psi_bar + static_cast<std::size_t>(system) * points_ : nullptr;
      const Arrays t = arrays(system);
      const int last = hidden() - 1;
      const Real* output = w + shape_.kernel_offset(hidden());
      if (cotangent != nullptr) {
        first_g_bar_kernel<<<grid(width(0)), kThreads, 0, stream>>>(points_, width(0), w + shape_.kernel_offset(0),
                                                                    Points<Real>{cotangent, cotangent + points_}, scale,
                                                                    t.g[0]);
        EINFIELD_LAUNCH_CHECK();
      } else {
        EINFIELD_CUDA(cudaMemsetAsync(t.g[0], 0, size(0) * sizeof(Real), stream));
      }
      for (int l = 1; l <= last; ++l) {
        first_derivative(stream, l - 1, size(l - 1), t.a[l - 1], t.g[l - 1], t.x);
        up(w, l, t.x, t.g[l]);
      }
      const auto top = encoded(last) ? top_kernel<Real, true> : top_kernel<Real, false>;
      top<<<grid(width(last)), kThreads, 0, stream>>>(points_, width(last), t.a[last], output, t.g[last], psi_cotangent,
                                                      t.y, t.x);
      EINFIELD_LAUNCH_CHECK();
      column_sum(stream, width(last), t.x, nullptr, Real(1), gradient + shape_.kernel_offset(hidden()));
      if (psi_cotangent != nullptr)
        column_sum(stream, 1, psi_cotangent, nullptr, Real(1), gradient + shape_.bias_offset(hidden()));
      for (int l = last; l >= 1; --l) {  // t.y is ā of layer l
        Real* kernel_bar = gradient + shape_.kernel_offset(l);
        first_derivative(stream, l - 1, size(l - 1), t.a[l - 1], t.g[l - 1], t.x);
        first_derivative(stream, l, l < last ? size(l) : static_cast<std::size_t>(width(l)), t.a[l],
                         l < last ? t.p[l] : output, t.z);
        outer(l, t.z, t.x, kernel_bar);
        const auto kernel = encoded(l - 1) ? value_kernel<Real, true> : value_kernel<Real, false>;
        kernel<<<grid(width(l - 1)), kThreads, 0, stream>>>(size(l - 1), t.a[l - 1], t.x);
        EINFIELD_LAUNCH_CHECK();
        outer(l, t.y, t.x, kernel_bar);
        column_sum(stream, width(l), t.y, nullptr, Real(1), gradient + shape_.bias_offset(l));
        if (encoded(l - 1)) break;  // the weights below are fixed
        down(w, l, t.y, t.z);
        a_bar_kernel<<<grid(width(l - 1)), kThreads, 0, stream>>>(size(l - 1), t.a[l - 1], t.p[l - 1], t.g[l - 1], t.z,
                                                                  t.y);
        EINFIELD_LAUNCH_CHECK();
      }
      if (encoded(0)) continue;
      first_derivative(stream, 0, last > 0 ? size(0) : static_cast<std::size_t>(width(0)), t.a[0],
                       last > 0 ? t.p[0] : output, t.x);  // g₁
      for (int axis = 0; axis < 2; ++axis) {
        Real* kernel_bar = gradient + shape_.kernel_offset(0) + axis * width(0);
        if (cotangent != nullptr)
          column_sum(stream, width(0), t.x, cotangent + static_cast<std::size_t>(axis) * points_, scale, kernel_bar);
        column_sum(stream, width(0), t.y, positions + static_cast<std::size_t>(axis) * points_, scale, kernel_bar);
      }
      column_sum(stream, width(0), t.y, nullptr, Real(1), gradient + shape_.bias_offset(0));
    }
  }

 private:
  /// a_l, p_l (tape, per system), ḡ_l and three arrays of the widest layer (shared).
  struct Arrays {
    Real *a[kMaxHiddenLayers], *p[kMaxHiddenLayers], *g[kMaxHiddenLayers], *x, *y, *z;
  };
  int hidden() const { return shape_.layers() - 1; }
  int width(int l) const { return shape_.outputs(l); }
  bool encoded(int l) const { return l < shape_.fixed_layers(); }
  std::size_t size(int l) const { return static_cast<std::size_t>(points_) * static_cast<std::size_t>(width(l)); }
  unsigned grid(int width) const {
    return static_cast<unsigned>((static_cast<std::size_t>(points_) * static_cast<std::size_t>(width) + kThreads - 1) /
                                 kThreads);
  }
  Arrays arrays(int system) const {
    Arrays t{};
    Real* tape = tape_.get() + static_cast<std::size_t>(system) * sizes_.tape_per_system;
    Real* shared = shared_.get();
    std::size_t widest = 0;
    for (int l = 0; l < hidden(); ++l) {
      t.a[l] = tape;
      tape += size(l);
      t.g[l] = shared;
      shared += size(l);
      widest = size(l) > widest ? size(l) : widest;
    }
    for (int l = 0; l + 1 < hidden(); ++l) {
      t.p[l] = tape;
      tape += size(l);
    }
    t.x = shared;
    t.y = shared + widest;
    t.z = shared + 2 * widest;
    return t;
  }
  void bind(cudaStream_t stream) {
    handle_.set_stream(stream);
    handle_.set_workspace(workspace_.get(), workspace_.bytes());
  }
  // The stored kernel (in × out, row-major) is W (out × in) in cuBLAS's column-major order.
  /// out = W in: layer l − 1 to l.
  void up(const Real* w, int l, const Real* in, Real* out) {
    EINFIELD_CUDA(gemm(handle_.get(), CUBLAS_OP_N, CUBLAS_OP_N, width(l), points_, width(l - 1),
                       w + shape_.kernel_offset(l), width(l), in, width(l - 1), Real(0), out, width(l)));
  }
  /// out = Wᵀ in: layer l to l − 1.
  void down(const Real* w, int l, const Real* in, Real* out) {
    EINFIELD_CUDA(gemm(handle_.get(), CUBLAS_OP_T, CUBLAS_OP_N, width(l - 1), points_, width(l),
                       w + shape_.kernel_offset(l), width(l), in, width(l), Real(0), out, width(l - 1)));
  }
  /// kernel_bar += out inᵀ, summed over the points.
  void outer(int l, const Real* out, const Real* in, Real* kernel_bar) {
    EINFIELD_CUDA(gemm(handle_.get(), CUBLAS_OP_N, CUBLAS_OP_T, width(l), width(l - 1), points_, out, width(l), in,
                       width(l - 1), Real(1), kernel_bar, width(l)));
  }
  /// out = s′(a) ∘ v of layer l.
  void first_derivative(cudaStream_t stream, int l, std::size_t period, const Real* a, const Real* v, Real* out) {
    const auto kernel = encoded(l) ? first_derivative_kernel<Real, true> : first_derivative_kernel<Real, false>;
    kernel<<<grid(width(l)), kThreads, 0, stream>>>(size(l), period, a, v, out);
    EINFIELD_LAUNCH_CHECK();
  }
  void dot(cudaStream_t stream, int width, const Real* v, const Real* x, Real factor, const Real* offset, Real* out) {
    constexpr int kPerBlock = kThreads / 32;
    dot_kernel<<<(points_ + kPerBlock - 1) / kPerBlock, kThreads, 0, stream>>>(points_, width, v, x, factor, offset,
                                                                               out);
    EINFIELD_LAUNCH_CHECK();
  }
  void column_sum(cudaStream_t stream, int width, const Real* x, const Real* weight, Real factor, Real* out) {
    column_sum_kernel<<<(width + 31) / 32, dim3(32, 32), 0, stream>>>(points_, width, x, weight, factor, out);
    EINFIELD_LAUNCH_CHECK();
  }

  NetworkShape shape_;
  int points_, systems_, tapes_;
  Sizes sizes_;
  DeviceBuffer<Real> tape_, shared_;
  DeviceBuffer<unsigned char> workspace_;
  CublasHandle handle_;
};

}  // namespace einfield::cuda::batch
