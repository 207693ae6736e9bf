// The exceptions of the library as classes of Python.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace einfield::python {

/// In messages, the name of a model that is described by arguments instead of a file. It has no lines worth telling.
inline constexpr const char* kArguments = "<arguments>";

/// A message without "<arguments>:LINE: ".
std::string without_places(std::string message);

/// Throws the classes of einfield/errors.py for the exceptions of einfield/error.hpp.
void bind_errors(nanobind::module_& module);

}  // namespace einfield::python
