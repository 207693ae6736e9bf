// `einfield batch` for Python.
#pragma once

#include <nanobind/nanobind.h>

namespace einfield::python {

void bind_survey(nanobind::module_& module);

}  // namespace einfield::python
