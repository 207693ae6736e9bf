// The scenes of all systems in device memory. Each block unpacks one into shared memory, and computes its physical
// values from the free parameters with model.hpp's transforms: there is no separate stage for that.
#pragma once

#include <cstddef>

#include "einfield/model.hpp"
#include "einfield/render.hpp"

namespace einfield::cuda {

/// Device pointers, system after system; what has no [systems] is common.
template <class Real>
struct SceneArrays {
  const Component* components;      ///< [systems][n_components()]
  const Real* table;                ///< [systems][n_slots()] physical values; the free ones are replaced
  const FreeParameter<Real>* free;  ///< [systems][n_free]
  const Real* pixels;               ///< [systems][n_pixels] of PIXELATED components
  int n_lens, n_source, n_lens_light;
  int n_free;
  int n_pixels;
  std::size_t n_network;         ///< where the free scalars begin in a flat vector
  std::size_t parameter_stride;  ///< from one system's flat vector to the next

  EINFIELD_HD int n_components() const { return n_lens + n_source + n_lens_light; }
  EINFIELD_HD int n_slots() const { return n_components() * kMaxProfileParameters; }
  /// Shared memory that unpack() needs; what follows it is aligned for double.
  EINFIELD_HD std::size_t shared_bytes() const {
    const std::size_t bytes = static_cast<std::size_t>(n_components()) * sizeof(Component) +
                              static_cast<std::size_t>(n_slots()) * sizeof(Real);
    return (bytes + 7) / 8 * 8;
  }
};

/// Components and physical table of one system in shared memory. Every thread of the block must call.
/// @param shared  shared_bytes(), aligned for double
template <class Real>
__device__ Scene<Real> unpack(const SceneArrays<Real>& s, int system, const Real* parameters, void* shared) {
  static_assert(sizeof(Component) % sizeof(int) == 0, "components are copied by words");
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  auto* components = static_cast<Component*>(shared);
  auto* table = reinterpret_cast<Real*>(components + s.n_components());
  const int words = s.n_components() * static_cast<int>(sizeof(Component) / sizeof(int));
  const int* source = reinterpret_cast<const int*>(s.components + static_cast<std::size_t>(system) * s.n_components());
  for (int i = thread; i < words; i += threads) reinterpret_cast<int*>(components)[i] = source[i];
  for (int i = thread; i < s.n_slots(); i += threads)
    table[i] = s.table[static_cast<std::size_t>(system) * s.n_slots() + i];
  __syncthreads();
  const FreeParameter<Real>* free = s.free + static_cast<std::size_t>(system) * s.n_free;
  const Real* u = parameters + system * s.parameter_stride + s.n_network;
  for (int i = thread; i < s.n_free; i += threads) table[free[i].slot] = transform(free, i, u);
  __syncthreads();
  return {components,     s.n_lens, s.n_source,
          s.n_lens_light, table,    s.pixels + static_cast<std::size_t>(system) * s.n_pixels};
}

}  // namespace einfield::cuda
