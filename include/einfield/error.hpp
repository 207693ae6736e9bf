// Exception types and the check that stays on in Release. The library never prints, exits or aborts.
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

/// Bad configuration, shape, range or non-finite data. The binary exits with 2.
class InvalidInput : public Error {
 public:
  using Error::Error;
};

/// A file or directory could not be written or a system resource was refused. The binary exits with 1.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A non-finite loss, gradient or parameter; the message says which and in which step. Exit 1.
class NumericalError : public Error {
 public:
  using Error::Error;
};

/// The backend asked for is not in this build, or no device can run it. Exit 3.
class BackendUnavailable : public Error {
 public:
  using Error::Error;
};

/// A backend that this build does not have.
class NotBuilt : public BackendUnavailable {
 public:
  using BackendUnavailable::BackendUnavailable;
};

/// A failed CUDA runtime call: call text, code name, file and line. cuBLAS and cuFFT have their own types.
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

/// Validates at public entry points; stays on in Release. `message` gives value, expectation and unit.
#define EINFIELD_REQUIRE(condition, message)                   \
  do {                                                         \
    if (!(condition)) throw ::einfield::InvalidInput(message); \
  } while (false)
