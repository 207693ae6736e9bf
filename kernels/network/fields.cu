// One thread takes kRows channels of a layer at one point: what it reads of the layer below is read once for all of
// them.
#include "kernels/network/fields.cuh"

#include <algorithm>

#include "kernels/raii.cuh"
#include "kernels/reduce.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

constexpr int kRows = 8;                      ///< channels of a thread
constexpr int kMostPoints = 4096;             ///< of a batch
constexpr std::size_t kMostBytes = 32 << 20;  ///< of the two layers of a batch, if that leaves any point

/// Jets of the channels of a layer: value, x, y, Laplacian, each [channels][points].
template <class Real>
struct Jets {
  Real* data;
  int points;
  std::size_t lane;  ///< from one of the four to the next
  __device__ Jet<Real> at(int channel, int point) const {
    const Real* p = data + static_cast<std::size_t>(channel) * points + point;
    return {p[0], p[lane], p[2 * lane], p[3 * lane]};
  }
  __device__ void put(int channel, int point, const Jet<Real>& jet) const {
    Real* p = data + static_cast<std::size_t>(channel) * points + point;
    p[0] = jet.value;
    p[lane] = jet.x;
    p[2 * lane] = jet.y;
    p[3 * lane] = jet.laplacian;
  }
};

/// The network's input u = ℓ θ.
/// @param theta  [2][n]
template <class Real>
__global__ void __launch_bounds__(kThreads) input_jets_kernel(const Real* theta, Real scale, int n, Jets<Real> input) {
  const int point = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (point >= n) return;
  input.put(0, point, {scale * theta[point], scale, Real(0), Real(0)});
  input.put(1, point, {scale * theta[n + point], Real(0), scale, Real(0)});
}

/// a = W h + b, then the activation unless it is the last layer; blockIdx.y · kRows is the block's first channel.
/// @param kernel  [in][out]
template <class Real>
__global__ void __launch_bounds__(kThreads)
    layer_jets_kernel(const Real* kernel, const Real* bias, int in, int out, bool encoded, bool last, int n,
                      Jets<Real> below, Jets<Real> above) {
  const int point = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int first = static_cast<int>(blockIdx.y) * kRows, rows = out - first < kRows ? out - first : kRows;
  if (point >= n) return;
  Jet<Real> sum[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (r < rows) sum[r].value = bias[first + r];
  for (int i = 0; i < in; ++i) {
    const Jet<Real> h = below.at(i, point);
    const Real* w = kernel + static_cast<std::size_t>(i) * out + first;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      sum[r].value += w[r] * h.value;
      sum[r].x += w[r] * h.x;
      sum[r].y += w[r] * h.y;
      sum[r].laplacian += w[r] * h.laplacian;
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (r < rows) above.put(first + r, point, last ? sum[r] : activated(sum[r], encoded));
}

/// Channels of the widest layer, the input and the output included.
std::size_t widest(const NetworkShape& shape) {
  int most = 2;
  for (int l = 0; l < shape.layers(); ++l) most = std::max(most, shape.outputs(l));
  return static_cast<std::size_t>(most);
}

/// Points of a batch.
template <class Real>
int points_of(const NetworkShape& shape) {
  const std::size_t most = kMostBytes / (8 * widest(shape) * sizeof(Real));
  return static_cast<int>(std::clamp<std::size_t>(most, 1, kMostPoints));
}

template <class Real>
struct FieldsStorage {
  DeviceBuffer<Real> theta, jets, other_jets;

  template <class Take>
  void each(Take&& take, const NetworkShape& shape) {
    const auto points = static_cast<std::size_t>(points_of<Real>(shape));
    take(theta, 2 * points);
    for (DeviceBuffer<Real>* layers : {&jets, &other_jets}) take(*layers, 4 * widest(shape) * points);
  }
};

}  // namespace

template <class Real>
struct NetworkFieldsStage<Real>::Impl {
  NetworkShape shape;
  int points;
  FieldsStorage<Real> storage;

  explicit Impl(const NetworkShape& shape_of_network)
      : shape(shape_of_network), points(points_of<Real>(shape_of_network)) {
    storage.each([]<class T>(DeviceBuffer<T>& buffer, std::size_t count) { buffer = DeviceBuffer<T>(count); }, shape);
  }

  /// The fields of `n` points of `theta`, from point `first` on.
  void evaluate_batch(cudaStream_t stream, const Real* parameters, const std::vector<Real>& theta, std::size_t first,
                      std::size_t n, NetworkFields<Real>& fields) {
    const std::size_t all = theta.size() / 2;
    storage.theta.upload(theta.data() + first, n, stream);
    storage.theta.upload(theta.data() + all + first, n, stream, n);
    const int count = static_cast<int>(n);
    const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
    const auto jets = [&](const DeviceBuffer<Real>& buffer) {
      return Jets<Real>{buffer.get(), count, buffer.size() / 4};
    };
    Jets<Real> below = jets(storage.jets), above = jets(storage.other_jets);
    input_jets_kernel<<<blocks, kThreads, 0, stream>>>(storage.theta.get(), static_cast<Real>(shape.input_scale), count,
                                                       below);
    EINFIELD_LAUNCH_CHECK();
    for (int l = 0; l < shape.layers(); ++l) {
      const int out = shape.outputs(l);
      const dim3 grid(blocks, static_cast<unsigned>((out + kRows - 1) / kRows));
      layer_jets_kernel<<<grid, kThreads, 0, stream>>>(
          parameters + shape.kernel_offset(l), parameters + shape.bias_offset(l), shape.inputs(l), out,
          l < shape.fixed_layers(), l + 1 == shape.layers(), count, below, above);
      EINFIELD_LAUNCH_CHECK();
      std::swap(below, above);
    }
    // The output layer has one channel: its jets are ψ, α_x, α_y, 2 κ of the points.
    const auto fetch = [&](std::size_t lane, Real* to) {
      EINFIELD_CUDA(
          cudaMemcpyAsync(to, below.data + lane * below.lane, n * sizeof(Real), cudaMemcpyDeviceToHost, stream));
    };
    fetch(0, fields.potential.data() + first);
    fetch(1, fields.deflection.data() + first);
    fetch(2, fields.deflection.data() + all + first);
    fetch(3, fields.convergence.data() + first);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));
    for (std::size_t i = first; i < first + n; ++i) fields.convergence[i] /= 2;
  }
};

template <class Real>
NetworkFieldsStage<Real>::NetworkFieldsStage(const NetworkShape& shape) : impl_(std::make_unique<Impl>(shape)) {}
template <class Real>
NetworkFieldsStage<Real>::~NetworkFieldsStage() = default;
template <class Real>
NetworkFieldsStage<Real>::NetworkFieldsStage(NetworkFieldsStage&&) noexcept = default;
template <class Real>
NetworkFieldsStage<Real>& NetworkFieldsStage<Real>::operator=(NetworkFieldsStage&&) noexcept = default;

template <class Real>
std::size_t NetworkFieldsStage<Real>::planned_bytes(const NetworkShape& shape) {
  return planned_bytes_of<FieldsStorage<Real>>(shape);
}

template <class Real>
NetworkFields<Real> NetworkFieldsStage<Real>::evaluate(cudaStream_t stream, const Real* parameters,
                                                       const std::vector<Real>& theta) {
  const std::size_t n = theta.size() / 2, batch = static_cast<std::size_t>(impl_->points);
  NetworkFields<Real> fields{std::vector<Real>(n), std::vector<Real>(2 * n), std::vector<Real>(n)};
  for (std::size_t first = 0; first < n; first += batch)
    impl_->evaluate_batch(stream, parameters, theta, first, std::min(batch, n - first), fields);
  return fields;
}

template class NetworkFieldsStage<float>;
template class NetworkFieldsStage<double>;

}  // namespace einfield::cuda
