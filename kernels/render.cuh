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
};

extern template SceneArrays<float> SceneAccess::arrays(const RenderStage<float>&);
extern template SceneArrays<double> SceneAccess::arrays(const RenderStage<double>&);

}  // namespace einfield::cuda
