// The scenes of all systems in device memory, which the render stage owns and other kernels read.
#pragma once

#include "einfield/cuda.hpp"
#include "kernels/scene.cuh"

namespace einfield::cuda {

/// The only way from a RenderStage to its device arrays.
class SceneAccess {
 public:
  template <class Real>
  static SceneArrays<Real> arrays(const RenderStage<Real>& stage);
  /// Brings scenes that are not shared() up to date with the parameters; blocks do that themselves with the others.
  template <class Real>
  static void place(const RenderStage<Real>& stage, const Queue& queue, const Real* parameters);
  /// How many systems the stage holds.
  template <class Real>
  static std::size_t systems(const RenderStage<Real>& stage);
};

extern template SceneArrays<float> SceneAccess::arrays(const RenderStage<float>&);
extern template SceneArrays<double> SceneAccess::arrays(const RenderStage<double>&);
extern template void SceneAccess::place(const RenderStage<float>&, const Queue&, const float*);
extern template void SceneAccess::place(const RenderStage<double>&, const Queue&, const double*);
extern template std::size_t SceneAccess::systems(const RenderStage<float>&);
extern template std::size_t SceneAccess::systems(const RenderStage<double>&);

}  // namespace einfield::cuda
