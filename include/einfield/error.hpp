// Exception types, and a check that is active in Release builds. The library never prints, exits or aborts.
#pragma once

#include <stdexcept>
#include <string>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Base of everything that einfield throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A bad configuration, shape or value, or non-finite data. The binary exits with 2.
class InvalidInput : public Error {
 public:
  using Error::Error;
};

/// A file or directory could not be written, or the system refused a resource. The binary exits with 1.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A fit needs more memory on the host than there is.
class OutOfMemory : public IoError {
 public:
  using IoError::IoError;
};

/// A non-finite loss, gradient or parameter; the message says which one and in which step. The binary exits with 1.
class NumericalError : public Error {
 public:
  using Error::Error;
};

/// The requested backend is not in this build, or no device can run it. The binary exits with 3.
class BackendUnavailable : public Error {
 public:
  using Error::Error;
};

/// The requested backend is not in this build.
class NotBuilt : public BackendUnavailable {
 public:
  using BackendUnavailable::BackendUnavailable;
};

/// A failed call of the CUDA runtime; the message has the call, the name of the error, file and line. Failed calls of
/// cuBLAS and cuFFT have their own types.
class CudaError : public Error {
 public:
  using Error::Error;
};
class CublasError : public Error {
 public:
  using Error::Error;
};
class CufftError : public Error {
 public:
  using Error::Error;
};

}  // namespace einfield

/// Check at a public entry point; active in Release builds. `message` states value, expectation and unit.
#define EINFIELD_REQUIRE(condition, message)                   \
  do {                                                         \
    if (!(condition)) throw ::einfield::InvalidInput(message); \
  } while (false)
