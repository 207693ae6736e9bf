// ψ, α and κ of one network at any positions, for the maps of a finished fit: value, gradient and Laplacian of every
// channel go forward through the layers together (network.hpp). Once per fit, so plain loops and no tape.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "einfield/network.hpp"

namespace einfield::cuda {

template <class Real>
class NetworkFieldsStage {
 public:
  /// Allocates the workspace, for batches of points.
  explicit NetworkFieldsStage(const NetworkShape& shape);
  ~NetworkFieldsStage();
  NetworkFieldsStage(NetworkFieldsStage&&) noexcept;
  NetworkFieldsStage& operator=(NetworkFieldsStage&&) noexcept;

  static std::size_t planned_bytes(const NetworkShape& shape);
  /// Waits for the stream.
  /// @param parameters  flat layout of the shape, device memory
  /// @param theta       2 × n, all x, then all y [arcsec], host memory
  NetworkFields<Real> evaluate(cudaStream_t stream, const Real* parameters, const std::vector<Real>& theta);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

extern template class NetworkFieldsStage<float>;
extern template class NetworkFieldsStage<double>;

}  // namespace einfield::cuda
