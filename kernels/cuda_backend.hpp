// The CUDA backend, behind a header that needs no CUDA: what make_backend() calls.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "einfield/backend.hpp"

namespace einfield {

/// @param device  CUDA device index
/// @throws BackendUnavailable when there is no such device or it cannot run this build's kernels
template <class Real>
std::unique_ptr<Backend<Real>> make_cuda_backend(int device);

/// Usable devices, one line each: name, compute capability, memory. Empty without a device or driver.
std::vector<std::string> list_cuda_devices();

/// Device memory that load() will allocate, working space of cuFFT included.
/// @throws BackendUnavailable, InvalidInput
template <class Real>
std::size_t cuda_planned_bytes(const std::vector<Problem>& problems, int device);

/// Milliseconds on the device from the beginning to the end of what `work` enqueues through this backend, by CUDA
/// events; waits for the end. For benchmarks.
/// @throws InvalidInput when the backend is not a CUDA backend; CudaError
template <class Real>
double cuda_milliseconds(Backend<Real>& backend, const std::function<void()>& work);

}  // namespace einfield
