// The posterior as a custom call of XLA, which JAX runs without Python.
#pragma once

#include <nanobind/nanobind.h>

namespace einfield::python {

/// Adds XlaTarget and xla_handler(), where the build has the headers of XLA's foreign functions; else nothing.
void bind_xla(nanobind::module_& module);

}  // namespace einfield::python
