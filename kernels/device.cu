// Which CUDA devices there are, and which of them a fit can use.
#include "kernels/device.cuh"

#include <cuda.h>

#include "host/files/memory.hpp"
#include "kernels/device.hpp"

namespace einfield {
namespace cuda {
namespace {

/// Compiled for every architecture of the build: a device that can load it can run the others.
__global__ void probe_kernel() {}

using GetPrimaryContextState = CUresult (*)(CUdevice, unsigned int* flags, int* active);

/// The driver's function, found through the runtime: a program with CUDA must also start without a driver. Null if it
/// is not found.
GetPrimaryContextState find_primary_context_state() noexcept {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &function, 12000, cudaEnableDefault, &result);
  ignore(status);
  if (status != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<GetPrimaryContextState>(function);
}

/// Whether this process has a context on the device. Creates none.
bool has_context(int device) noexcept {
  static const GetPrimaryContextState get_state = find_primary_context_state();
  unsigned int flags = 0;
  int active = 0;
  return get_state != nullptr && get_state(device, &flags, &active) == CUDA_SUCCESS && active != 0;
}

/// Number of devices; 0 and the reason if there is none. Creates no context.
int device_count(std::string* reason) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  ignore(status);
  *reason = status == cudaSuccess ? "no device found" : cudaGetErrorString(status);
  return 0;
}

/// Creates a context on the device and loads a kernel. Leaves no error behind.
/// @return cudaSuccess if the device can run the kernels of this build
cudaError_t try_device(int device) noexcept {
  int previous = 0;
  cudaError_t status = cudaGetDevice(&previous);
  if (status == cudaSuccess) status = cudaSetDevice(device);
  if (status == cudaSuccess) {
    cudaFuncAttributes attributes{};
    status = cudaFuncGetAttributes(&attributes, probe_kernel);
  }
  ignore(status);
  if (previous != device && has_context(previous)) ignore(cudaSetDevice(previous));
  return status;
}

cudaDeviceProp device_properties(int device) {
  cudaDeviceProp properties{};
  EINFIELD_CUDA(cudaGetDeviceProperties(&properties, device));
  return properties;
}

}  // namespace

std::string device_name(int device) {
  const cudaDeviceProp properties = device_properties(device);
  return std::string(properties.name) + ", compute capability " + std::to_string(properties.major) + "." +
         std::to_string(properties.minor);
}

cudaError_t CurrentDevice::enter(int device) noexcept {
  cudaError_t status = cudaGetDevice(&previous_);
  if (status != cudaSuccess || previous_ == device) return status;
  status = cudaSetDevice(device);
  changed_ = status == cudaSuccess;
  return status;
}

CurrentDevice::~CurrentDevice() {
  if (changed_ && has_context(previous_)) EINFIELD_CUDA_NOEXCEPT(cudaSetDevice(previous_));
}

}  // namespace cuda

std::vector<std::string> list_cuda_devices() {
  std::string reason;
  const int count = cuda::device_count(&reason);
  std::vector<std::string> lines;
  for (int device = 0; device < count; ++device)
    lines.push_back(cuda::device_name(device) + ", " + readable_bytes(cuda::device_properties(device).totalGlobalMem));
  return lines;
}

std::string problem_of_cuda_device(int device) {
  const cudaError_t status = cuda::try_device(device);
  return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

int find_cuda_device(std::optional<int> device) {
  std::string reason;
  const int count = cuda::device_count(&reason);
  if (count == 0) throw BackendUnavailable("no CUDA device can be used (" + reason + ")");
  if (device) {
    const std::string name = "CUDA device " + std::to_string(*device);
    if (*device < 0 || *device >= count)
      throw BackendUnavailable(name + ": no such device, found " + std::to_string(count) +
                               (count == 1 ? " device" : " devices") + ", numbered from 0");
    reason = problem_of_cuda_device(*device);
    if (!reason.empty()) throw BackendUnavailable(name + " cannot be used: " + reason);
    return *device;
  }
  std::string reasons;
  for (int i = 0; i < count; ++i) {
    reason = problem_of_cuda_device(i);
    if (reason.empty()) return i;
    reasons += (i == 0 ? "device " : "; device ") + std::to_string(i) + ": " + reason;
  }
  throw BackendUnavailable("no CUDA device can be used (" + reasons + ")");
}

}  // namespace einfield
