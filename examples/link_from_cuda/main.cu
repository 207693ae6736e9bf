// Uses einfield's stages from a CUDA program: its own stream, its own device memory, its own kernel between them.
// Two networks learn the deflection of two point masses at once; the gradient is checked against a difference first.
#include <cstdio>
#include <exception>
#include <vector>

#include "einfield/cuda.hpp"
#include "einfield/error.hpp"

namespace {

using namespace einfield;

constexpr int kLenses = 2, kSide = 24, kPoints = kSide * kSide, kSteps = 60, kThreads = 256;

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw Error(std::string(what) + ": " + cudaGetErrorString(status));
}

/// Device memory of this program: `size` numbers.
class Array {
 public:
  explicit Array(std::size_t size) : size_(size) { check(cudaMalloc(&data_, size * sizeof(double)), "cudaMalloc"); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data_); }
  double* get() const { return data_; }
  void zero(cudaStream_t stream) {
    check(cudaMemsetAsync(data_, 0, size_ * sizeof(double), stream), "cudaMemsetAsync");
  }
  void put(const std::vector<double>& host, cudaStream_t stream) {
    check(cudaMemcpyAsync(data_, host.data(), size_ * sizeof(double), cudaMemcpyHostToDevice, stream),
          "copy to the device");
    check(cudaStreamSynchronize(stream), "wait");
  }
  std::vector<double> take(cudaStream_t stream) const {
    std::vector<double> host(size_);
    check(cudaMemcpyAsync(host.data(), data_, size_ * sizeof(double), cudaMemcpyDeviceToHost, stream),
          "copy to the host");
    check(cudaStreamSynchronize(stream), "wait");
    return host;
  }

 private:
  double* data_ = nullptr;
  std::size_t size_;
};

/// alpha_bar = alpha − wanted, the gradient of ½ |alpha − wanted|².
__global__ void residual_kernel(const double* alpha, const double* wanted, double* alpha_bar, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) alpha_bar[i] = alpha[i] - wanted[i];
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Two problems of one shape and the memory for them.
class Program {
 public:
  Program() : network_(shape_, kPoints, kLenses), adam_(shape_.size(), shape_.size(), {{1e-2}, {1e-2}}, stream()) {
    std::vector<double> positions(2 * kPoints), wanted, parameters;
    for (int i = 0; i < kPoints; ++i) {
      positions[static_cast<std::size_t>(i)] = 0.2 * (i % kSide - 0.5 * (kSide - 1));
      positions[static_cast<std::size_t>(kPoints + i)] = 0.2 * (i / kSide - 0.5 * (kSide - 1));
    }
    for (int lens = 0; lens < kLenses; ++lens) {
      const double center[2] = {lens == 0 ? 0.7 : -0.9, 0.4};
      for (int axis = 0; axis < 2; ++axis)
        for (int i = 0; i < kPoints; ++i) {
          const double x = positions[static_cast<std::size_t>(i)] - center[0],
                       y = positions[static_cast<std::size_t>(kPoints + i)] - center[1];
          wanted.push_back(0.3 * (axis == 0 ? x : y) / (x * x + y * y + 0.25));
        }
      const std::vector<double> weights = initial_weights(shape_, static_cast<std::uint64_t>(lens + 1), false);
      parameters.insert(parameters.end(), weights.begin(), weights.end());
    }
    positions_.put(positions, stream());
    wanted_.put(wanted, stream());
    parameters_.put(parameters, stream());
    first_moment_.zero(stream());
    second_moment_.zero(stream());
  }
  ~Program() { cudaStreamDestroy(stream_); }

  cudaStream_t stream() {
    if (stream_ == nullptr)
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    return stream_;
  }
  Array& parameters() { return parameters_; }

  /// Enqueues α, its residual and the gradient of all weights.
  void enqueue() {
    const std::size_t stride = shape_.size();
    gradient_.zero(stream());
    network_.forward(stream(), parameters_.get(), stride, positions_.get(), potential_.get(), alpha_.get());
    residual_kernel<<<(kValues + kThreads - 1) / kThreads, kThreads, 0, stream()>>>(alpha_.get(), wanted_.get(),
                                                                                    alpha_bar_.get(), kValues);
    check(cudaGetLastError(), "residual_kernel");
    network_.adjoint(stream(), parameters_.get(), stride, positions_.get(), alpha_bar_.get(), gradient_.get());
  }
  double loss() {
    const std::vector<double> residual = alpha_bar_.take(stream());
    return 0.5 * dot(residual, residual);
  }
  std::vector<double> gradient() { return gradient_.take(stream()); }
  void update() {
    adam_.apply(stream(), gradient_.get(), parameters_.get(), first_moment_.get(), second_moment_.get());
  }

 private:
  static constexpr int kValues = kLenses * 2 * kPoints;
  NetworkShape shape_{{48, 48}, 1.0};
  cudaStream_t stream_ = nullptr;
  cuda::NetworkStage<double> network_;
  cuda::AdamStage<double> adam_;
  Array positions_{2 * kPoints}, wanted_{kValues}, potential_{kLenses * kPoints}, alpha_{kValues}, alpha_bar_{kValues};
  Array parameters_{kLenses * shape_.size()}, gradient_{kLenses * shape_.size()};
  Array first_moment_{kLenses * shape_.size()}, second_moment_{kLenses * shape_.size()};
};

int run() {
  Program program;
  program.enqueue();
  const double before = program.loss();
  const std::vector<double> gradient = program.gradient(), start = program.parameters().take(program.stream());

  // Along the gradient the loss changes by its square.
  const double expected = dot(gradient, gradient), h = 1e-6 / std::sqrt(expected);
  double sides[2];
  for (int side = 0; side < 2; ++side) {
    std::vector<double> moved = start;
    for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += (side == 0 ? h : -h) * gradient[i];
    program.parameters().put(moved, program.stream());
    program.enqueue();
    sides[side] = program.loss();
  }
  const double found = (sides[0] - sides[1]) / (2 * h);
  std::printf("squared gradient %.9g, by differences %.9g\n", expected, found);

  program.parameters().put(start, program.stream());
  for (int step = 0; step < kSteps; ++step) {
    program.enqueue();
    program.update();
  }
  program.enqueue();
  const double after = program.loss();
  std::printf("loss of %d networks: %.6g, after %d steps %.6g\n", kLenses, before, kSteps, after);
  return std::abs(found - expected) < 1e-6 * expected && after < 0.2 * before ? 0 : 1;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "link_from_cuda: no CUDA device\n");
    return 3;
  }
  try {
    return run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "link_from_cuda: %s\n", error.what());
    return 1;
  }
}
