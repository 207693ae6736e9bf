// The regularization stage of the CPU backend.
#pragma once

#include "host/cpu/system.hpp"

namespace einfield::cpu {

/// Adds the penalties of a system to StepState::regularization, their gradient to `gradient` and their cotangent of
/// α_nn to `deflection_bar`. The formulas are in regularization.hpp and model.hpp.
template <class Real>
void regularize(System<Real>& system, ThreadPool& pool);

}  // namespace einfield::cpu
