// The derivatives of the normalized residuals with respect to every free parameter.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/model.hpp"
#include "einfield/problem.hpp"
#include "host/cpu/thread_pool.hpp"
#include "python/src/posterior.hpp"

namespace einfield::python {

/// J = ∂r/∂x with r = (data − model)/noise, column by column: (parameters, ny, nx); NaN at masked pixels.
///
/// With I the brightness of a ray, S that of the sources at β = θ − α, and P the PSF,
///
///     J = −σ⁻¹ P ∂I/∂x,   ∂I/∂scalar from RayKernels::derivatives,   ∂I/∂weight = −∇S·∂α/∂weight,
///     ∂I/∂pixel = the pixel's share of the ray,   ∂I/∂(weight of a NETWORK light) = ∂S/∂v ∂v/∂weight              (1)
///
/// with v the value of the light's network. Correlated noise is not whitened here.
/// @param layout  of the problem's model
/// @param flat    the flat vector of the library
/// @param space   of the free scalars: with respect to their physical values, or to the numbers in `flat`
/// @throws IoError when this machine has too little memory
std::vector<double> residual_jacobian(const Problem& problem, const ParameterLayout& layout,
                                      const std::vector<double>& flat, Space space, ThreadPool& pool);

}  // namespace einfield::python
