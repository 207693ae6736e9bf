// Making a CUDA device current for a scope. From CUDA 12 on, cudaSetDevice() creates a context on the device: some
// hundred megabytes until the process ends, or an error if another process has the device to itself. So it is called
// for the device that is used, and for no other.
#pragma once

#include <new>
#include <string>

#include "kernels/check.cuh"

namespace einfield::cuda {

/// Name and compute capability. Creates no context. @throws CudaError
std::string device_name(int device);

/// Makes a device current for a scope. Then the caller's device is current again if it has a context. If it has none,
/// the caller had not chosen a device, and this one stays current: going back would create a context on device 0.
class CurrentDevice {
 public:
  /// @throws CudaError
  explicit CurrentDevice(int device) { EINFIELD_CUDA(enter(device)); }
  /// For destructors: a failure is ignored.
  CurrentDevice(int device, std::nothrow_t) noexcept { EINFIELD_CUDA_NOEXCEPT(enter(device)); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice();

 private:
  cudaError_t enter(int device) noexcept;

  int previous_ = 0;
  bool changed_ = false;
};

}  // namespace einfield::cuda
