#include "tests/device_shim.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <sstream>

namespace {

struct Devices {
  int count = 1;
  std::set<int> busy;
  std::vector<int> contexts;
  std::mutex mutex;

  Devices() {
    if (const char* text = std::getenv("EINFIELD_DEVICES")) count = std::atoi(text);
    std::istringstream list(std::getenv("EINFIELD_BUSY") ? std::getenv("EINFIELD_BUSY") : "");
    for (std::string index; std::getline(list, index, ',');) busy.insert(std::atoi(index.c_str()));
  }
};

Devices& devices() {
  static Devices all;
  return all;
}

thread_local int current = 0;

bool has_context(int device) {
  Devices& all = devices();
  return std::find(all.contexts.begin(), all.contexts.end(), device) != all.contexts.end();
}

/// What a call does that needs a context on the device.
cudaError_t need_context(int device) {
  Devices& all = devices();
  const std::lock_guard<std::mutex> lock(all.mutex);
  if (device < 0 || device >= all.count) return cudaErrorInvalidDevice;
  if (all.busy.count(device) > 0) return cudaErrorDevicesUnavailable;
  if (has_context(device)) return cudaSuccess;
  all.contexts.push_back(device);
  if (const char* file = std::getenv("EINFIELD_CONTEXTS")) std::ofstream(file, std::ios::app) << device << '\n';
  return cudaSuccess;
}

/// The function that this one hides.
template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

CUresult primary_context_state(CUdevice device, unsigned int* flags, int* active) {
  const std::lock_guard<std::mutex> lock(devices().mutex);
  *flags = 0;
  *active = has_context(device) ? 1 : 0;
  return CUDA_SUCCESS;
}

}  // namespace

namespace einfield {

void imitate_devices(int count, const std::set<int>& busy) {
  Devices& all = devices();
  all.count = count;
  all.busy = busy;
  all.contexts.clear();
}

std::vector<int> devices_with_context() {
  return devices().contexts;
}

}  // namespace einfield

// The header renames some functions to a version: their names are those after its macros.
#define EINFIELD_TEXT(name) #name
#define EINFIELD_NEXT(name) next<decltype(name)>(EINFIELD_TEXT(name))

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices().count;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  const cudaError_t status = need_context(device);
  if (status == cudaSuccess) current = device;
  return status;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= devices().count) return cudaErrorInvalidDevice;
  return EINFIELD_NEXT(cudaGetDeviceProperties)(properties, 0);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= devices().count) return cudaErrorInvalidDevice;
  return EINFIELD_NEXT(cudaDeviceGetAttribute)(value, attribute, 0);
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned int, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  if (std::strcmp(symbol, "cuDevicePrimaryCtxGetState") != 0) return cudaErrorInvalidValue;
  *function = reinterpret_cast<void*>(&primary_context_state);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// Calls that create a context on the current device if it has none.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  const cudaError_t status = need_context(current);
  return status == cudaSuccess ? EINFIELD_NEXT(cudaFuncGetAttributes)(attributes, function) : status;
}
cudaError_t cudaMalloc(void** data, size_t bytes) {
  const cudaError_t status = need_context(current);
  return status == cudaSuccess ? next<cudaError_t(void**, size_t)>("cudaMalloc")(data, bytes) : status;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const cudaError_t status = need_context(current);
  return status == cudaSuccess ? EINFIELD_NEXT(cudaMemGetInfo)(free, total) : status;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  const cudaError_t status = need_context(current);
  return status == cudaSuccess ? EINFIELD_NEXT(cudaStreamCreateWithFlags)(stream, flags) : status;
}

}  // extern "C"
