// The scenes of all systems in device memory. Each block unpacks one into shared memory, and computes its physical
// values from the free parameters with model.hpp's transforms: there is no separate stage for that. A scene of many
// components does not fit there: RenderStage then places the physical values in device memory, and blocks read them
// there.
#pragma once

#include <cstddef>
#include <type_traits>

#include "einfield/model.hpp"
#include "einfield/render.hpp"

namespace einfield::cuda {

/// Components of a scene that is unpacked: with their sums in the adjoint they stay below the 48 KB of shared memory
/// that every kernel may use.
inline constexpr int kMaxSharedComponents = 128;

/// Device pointers, system after system; what has no [systems] is common.
template <class Real>
struct SceneArrays {
  const Component* components;      ///< [systems][n_components()]
  const Real* table;                ///< [systems][n_slots()] physical values; the free ones are replaced by
                                    ///< unpack(), or here where the scene is not shared()
  const FreeParameter<Real>* free;  ///< [systems][n_free]
  const TiedParameter<Real>* tied;  ///< [systems][n_tied]
  const Real* pixels;               ///< [systems][n_pixels] of PIXELATED components
  int n_lens, n_source, n_lens_light;
  int n_free;
  int n_tied;
  int n_pixels;
  std::size_t n_network;         ///< where the free scalars begin in a flat vector
  std::size_t parameter_stride;  ///< from one system's flat vector to the next

  EINFIELD_HD int n_components() const { return n_lens + n_source + n_lens_light; }
  EINFIELD_HD int n_slots() const { return n_components() * kMaxProfileParameters; }
  bool shared() const { return n_components() <= kMaxSharedComponents; }
  /// Shared memory that unpack() needs; what follows it is aligned for double.
  EINFIELD_HD std::size_t shared_bytes() const {
    if (n_components() > kMaxSharedComponents) return 0;
    const std::size_t bytes = static_cast<std::size_t>(n_components()) * sizeof(Component) +
                              static_cast<std::size_t>(n_slots()) * sizeof(Real);
    return (bytes + 7) / 8 * 8;
  }
};

/// Calls launch(std::true_type) for scenes in shared memory, launch(std::false_type) for larger ones.
template <class Real, class Launch>
void with_placement(const SceneArrays<Real>& scenes, Launch&& launch) {
  if (scenes.shared())
    launch(std::true_type{});
  else
    launch(std::false_type{});
}

/// Components and physical table of one system, in shared memory with `kShared`. Every thread of the block must call.
/// @param shared  shared_bytes(), aligned for double
template <bool kShared, class Real>
__device__ Scene<Real> unpack(const SceneArrays<Real>& s, int system, const Real* parameters, void* shared) {
  const Component* const stored = s.components + static_cast<std::size_t>(system) * s.n_components();
  const Real* const stored_table = s.table + static_cast<std::size_t>(system) * s.n_slots();
  const Real* const pixels = s.pixels + static_cast<std::size_t>(system) * s.n_pixels;
  if constexpr (!kShared) {
    return {stored, s.n_lens, s.n_source, s.n_lens_light, stored_table, pixels};
  } else {
    static_assert(sizeof(Component) % sizeof(int) == 0, "components are copied by words");
    const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
    auto* components = static_cast<Component*>(shared);
    auto* table = reinterpret_cast<Real*>(components + s.n_components());
    const int words = s.n_components() * static_cast<int>(sizeof(Component) / sizeof(int));
    const int* source = reinterpret_cast<const int*>(stored);
    for (int i = thread; i < words; i += threads) reinterpret_cast<int*>(components)[i] = source[i];
    for (int i = thread; i < s.n_slots(); i += threads) table[i] = stored_table[i];
    __syncthreads();
    const FreeParameter<Real>* free = s.free + static_cast<std::size_t>(system) * s.n_free;
    const Real* u = parameters + system * s.parameter_stride + s.n_network;
    for (int i = thread; i < s.n_free; i += threads) table[free[i].slot] = transform(free, i, u);
    const TiedParameter<Real>* tied = s.tied + static_cast<std::size_t>(system) * s.n_tied;
    for (int i = thread; i < s.n_tied; i += threads) table[tied[i].slot] = tied_value(tied[i], free, u);
    __syncthreads();
    return {components, s.n_lens, s.n_source, s.n_lens_light, table, pixels};
  }
}

}  // namespace einfield::cuda
