// The derivatives of the neural deflection with respect to every weight, point by point, for the fits that need a
// Jacobian. They are the adjoint of einfield/network.hpp for the cotangents (1, 0) and (0, 1) of α, not summed over
// points.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/network.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

/// ∂α_x/∂w and ∂α_y/∂w of the weights that are listed.
/// @param parameters  flat layout of `shape`
/// @param theta       2 × n, all x, then all y [arcsec]
/// @param weights     indices into the flat layout, rising
/// @param alpha       column after column, one per weight: 2 × n, all ∂α_x/∂w, then all ∂α_y/∂w
void network_jacobian(const NetworkShape& shape, const double* parameters, const double* theta, int n,
                      const std::vector<std::size_t>& weights, double* alpha, ThreadPool& pool);

}  // namespace einfield
