// The scenes of all systems in device memory, which the render stage owns and other kernels read.
#pragma once

#include "einfield/cuda.hpp"
#include "kernels/scene.cuh"

namespace einfield::cuda {

/// The only way from a RenderStage to its device arrays.
class SceneAccess {
 public:
  /// The scenes at these parameters.
  template <class Real>
  static SceneArrays<Real> arrays(const RenderStage<Real>& stage, const Queue& queue, const Real* parameters);
};

extern template SceneArrays<float> SceneAccess::arrays(const RenderStage<float>&, const Queue&, const float*);
extern template SceneArrays<double> SceneAccess::arrays(const RenderStage<double>&, const Queue&, const double*);

}  // namespace einfield::cuda
