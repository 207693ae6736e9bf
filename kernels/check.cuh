// The CUDA error checks: every runtime, cuBLAS and cuFFT call goes through one of these. They throw the types of
// einfield/error.hpp with the text of the call, the name of the error, file and line, and clear the runtime's last
// error.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cufft.h>

#include <string>

#include "einfield/error.hpp"

namespace einfield::cuda {

/// Threads of a block, in every kernel that does not say otherwise.
inline constexpr int kThreads = 256;

inline std::string error_text(const char* call, const std::string& code, const char* file, int line) {
  return std::string(call) + " failed: " + code + " (" + file + ":" + std::to_string(line) + ")";
}

/// Whether an error has destroyed the context: every later call of this process on the device fails with it as well.
/// driver_types.h says of these errors that the process must be terminated and relaunched.
inline bool context_is_lost(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

[[noreturn]] inline void throw_cuda_error(cudaError_t status, const char* call, const char* file, int line) {
  (void)cudaGetLastError();  // the exception carries it from here; the next check must not see it again
  const std::string code = std::string(cudaGetErrorName(status)) + ", " + cudaGetErrorString(status);
  throw CudaError(error_text(call, code, file, line) +
                  (context_is_lost(status) ? "; this run cannot use the GPU again: start the program anew" : ""));
}

inline void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status != cudaSuccess) throw_cuda_error(status, call, file, line);
}

inline void check(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  (void)cudaGetLastError();
  throw CublasError(error_text(call, cublasGetStatusName(status), file, line));
}

inline const char* cufft_name(cufftResult status) {
  switch (status) {
    case CUFFT_INVALID_PLAN:
      return "CUFFT_INVALID_PLAN";
    case CUFFT_ALLOC_FAILED:
      return "CUFFT_ALLOC_FAILED";
    case CUFFT_INVALID_TYPE:
      return "CUFFT_INVALID_TYPE";
    case CUFFT_INVALID_VALUE:
      return "CUFFT_INVALID_VALUE";
    case CUFFT_INTERNAL_ERROR:
      return "CUFFT_INTERNAL_ERROR";
    case CUFFT_EXEC_FAILED:
      return "CUFFT_EXEC_FAILED";
    case CUFFT_SETUP_FAILED:
      return "CUFFT_SETUP_FAILED";
    case CUFFT_INVALID_SIZE:
      return "CUFFT_INVALID_SIZE";
    default:
      return "cuFFT error";
  }
}

inline void check(cufftResult status, const char* call, const char* file, int line) {
  if (status == CUFFT_SUCCESS) return;
  (void)cudaGetLastError();
  throw CufftError(error_text(call, std::string(cufft_name(status)) + " (" + std::to_string(status) + ")", file, line));
}

/// For destructors: an error cannot be reported there, and it must not reach the next check as the last error. It is no
/// error if the runtime unloads before a static object is destroyed.
inline void ignore(cudaError_t status) noexcept {
  if (status != cudaSuccess && status != cudaErrorCudartUnloading) (void)cudaGetLastError();
}

}  // namespace einfield::cuda

/// Throws CudaError, CublasError or CufftError unless a call of the runtime, cuBLAS or cuFFT succeeds.
#define EINFIELD_CUDA(call) ::einfield::cuda::check((call), #call, __FILE__, __LINE__)
/// In destructors: neither throws nor leaves an error for the next check.
#define EINFIELD_CUDA_NOEXCEPT(call) ::einfield::cuda::ignore(call)

/// After every kernel launch. With EINFIELD_SYNC_CHECKS it also waits, so that a fault is found at its launch
/// (steps are then not captured: synchronizing is not allowed in a capture).
#ifdef EINFIELD_SYNC_CHECKS
#define EINFIELD_LAUNCH_CHECK()                                                               \
  do {                                                                                        \
    ::einfield::cuda::check(cudaGetLastError(), "kernel launch", __FILE__, __LINE__);         \
    ::einfield::cuda::check(cudaDeviceSynchronize(), "kernel execution", __FILE__, __LINE__); \
  } while (false)
#else
#define EINFIELD_LAUNCH_CHECK() ::einfield::cuda::check(cudaGetLastError(), "kernel launch", __FILE__, __LINE__)
#endif
