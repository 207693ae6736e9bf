// The CUDA backend, behind a header that needs no CUDA: what make_backend() calls.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "einfield/backend.hpp"

namespace einfield {

/// @param device  from find_cuda_device()
/// @throws CudaError
template <class Real>
std::unique_ptr<Backend<Real>> make_cuda_backend(int device);

/// Device memory that load() will allocate, working space of cuFFT included, and what a stage of L-BFGS needs for its
/// pairs (0: no such stage).
/// @param device  from find_cuda_device()
/// @throws InvalidInput, CudaError
template <class Real>
std::size_t cuda_planned_bytes(const std::vector<Problem>& problems, int device, int pairs);

/// Device memory that is free now. @throws CudaError
std::size_t cuda_free_bytes(int device);

/// Index of the device that a CUDA backend uses; −1 for another backend.
template <class Real>
int cuda_device_index(const Backend<Real>& backend);

/// Milliseconds on the device from the beginning to the end of what `work` enqueues through this backend, by CUDA
/// events; waits for the end. For benchmarks.
/// @throws InvalidInput when the backend is not a CUDA backend; CudaError
template <class Real>
double cuda_milliseconds(Backend<Real>& backend, const std::function<void()>& work);

}  // namespace einfield
