// Arrays that come from Python and go back to it.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace einfield::python {

/// Contiguous float64 on the CPU.
using Input = nanobind::ndarray<const double, nanobind::c_contig, nanobind::device::cpu>;
using Output = nanobind::ndarray<nanobind::numpy, double>;

/// An array of NumPy that owns the values.
template <class T>
nanobind::ndarray<nanobind::numpy, T> to_numpy(std::vector<T> values, const std::vector<std::size_t>& shape) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = owned->data();
  const nanobind::capsule owner(owned.get(), [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  (void)owned.release();  // the capsule has it now
  return {data, shape.size(), shape.data(), owner};
}

}  // namespace einfield::python
