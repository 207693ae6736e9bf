// The algebra of a backend: where Gauss–Newton makes and solves its normal equations.
#pragma once

#include <memory>

#include "einfield/backend.hpp"
#include "host/fit/joint_algebra.hpp"

namespace einfield {

/// @throws CudaError when the device lacks memory
template <class Real>
std::unique_ptr<JointAlgebra> make_joint_algebra(const Backend<Real>& backend, const JointModel& model,
                                                 ThreadPool& pool);

}  // namespace einfield
