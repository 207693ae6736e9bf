// NetworkStage of cuda.hpp: the network's tile kernels behind a header that callers can include.
#include "einfield/cuda.hpp"
#include "kernels/network/network.cuh"

namespace einfield::cuda {

template <class Real>
struct NetworkStage<Real>::Impl {
  CudaNetwork<Real> network;
};

template <class Real>
NetworkStage<Real>::NetworkStage(const NetworkShape& shape, int n_points, int n_lenses, NetworkMath math)
    : impl_(std::make_unique<Impl>(
          Impl{CudaNetwork<Real>(shape, n_points, n_lenses, DeviceLimits::current(), NetworkPath::kAutomatic, math)})) {
}
template <class Real>
NetworkStage<Real>::~NetworkStage() = default;
template <class Real>
NetworkStage<Real>::NetworkStage(NetworkStage&&) noexcept = default;
template <class Real>
NetworkStage<Real>& NetworkStage<Real>::operator=(NetworkStage&&) noexcept = default;

template <class Real>
std::size_t NetworkStage<Real>::workspace_bytes() const {
  return impl_->network.plan().workspace_bytes;
}

template <class Real>
void NetworkStage<Real>::forward(cudaStream_t stream, const Real* parameters, std::size_t parameter_stride,
                                 const Real* positions, Real* potential, Real* alpha_nn, bool own_positions) {
  impl_->network.forward(stream, parameters, parameter_stride, positions, potential, alpha_nn, own_positions);
}

template <class Real>
void NetworkStage<Real>::adjoint(cudaStream_t stream, const Real* parameters, std::size_t parameter_stride,
                                 const Real* positions, const Real* alpha_bar, Real* gradient,
                                 const Real* potential_bar, bool own_positions) {
  impl_->network.adjoint(stream, parameters, parameter_stride, positions, alpha_bar, gradient, potential_bar,
                         own_positions);
}

template class NetworkStage<float>;
template class NetworkStage<double>;

}  // namespace einfield::cuda
