// The batch of a backend: where its fits with a Jacobian run.
#pragma once

#include <memory>
#include <vector>

#include "einfield/backend.hpp"
#include "host/fit/scalar_batch.hpp"

namespace einfield {

/// Whether fits with a Jacobian run on the device of this backend, which is then best used with all systems at once.
/// Residuals with correlated noise are whitened on the CPU, and so are their Jacobians.
template <class Real>
bool has_device_batch(const Backend<Real>& backend, const Observation& observation);

/// @param models      of the systems, of one shape
/// @param concurrent  points that the caller evaluates at once, at most
/// @param pool        of the CPU
/// @throws CudaError when the device lacks memory
template <class Real>
std::unique_ptr<ScalarBatch> make_scalar_batch(const Backend<Real>& backend, std::vector<ScalarModel> models,
                                               int concurrent, ThreadPool& pool);

}  // namespace einfield
