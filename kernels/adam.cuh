// What AdamStage of cuda.hpp offers to the backend alone: a step of a stage of a fit, which judges itself.
#pragma once

#include "einfield/cuda.hpp"
#include "kernels/stage.cuh"

namespace einfield::cuda {

/// Device pointers, [systems][parameters] each, of the sizes that AdamStage::apply() asks for.
template <class Real>
struct AdamVectors {
  Real *gradient, *parameters, *first_moment, *second_moment;
  Real *previous_parameters, *previous_first_moment, *previous_second_moment;  ///< before the last update; of a stage
};

class AdamAccess {
 public:
  /// AdamStage::apply() by the rules of a stage: follow_adam() of stage.hpp decides.
  template <class Real>
  static void follow(AdamStage<Real>& adam, const Queue& queue, const AdamVectors<Real>& vectors,
                     const StageArrays<Real>& stage);
  /// Schedule::trainable in device memory; empty: all move.
  template <class Real>
  static View<const unsigned char> trainable(const AdamStage<Real>& adam);
};

}  // namespace einfield::cuda
