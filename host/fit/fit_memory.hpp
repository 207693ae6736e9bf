// The memory that a fit needs beside that of its backend, shown and checked before the run.
#pragma once

#include "einfield/fitter.hpp"

namespace einfield {

/// Bytes of problems, snapshots, the searches of L-BFGS and the model behind Levenberg–Marquardt and the uncertainties.
/// In double: no product overflows.
/// @param backend  which fits
/// @param problem  one of `systems` problems of one size
template <class Real>
double planned_host_bytes(const Backend<Real>& backend, const Problem& problem, int systems,
                          const FitSettings& settings);

/// Bytes on the device of the backend, beside its own: the learning rates of Adam, and the Jacobians of
/// Levenberg–Marquardt or of the uncertainties. 0 for the CPU.
template <class Real>
std::size_t planned_device_bytes(const Backend<Real>& backend, const Problem& problem, int systems,
                                 const FitSettings& settings);

/// @param bytes  that will be allocated on the device of the backend, which holds nothing yet
/// @throws CudaError when the device has less memory free
template <class Real>
void require_device_memory(const Backend<Real>& backend, std::size_t bytes);

/// Largest number of pairs that a stage of L-BFGS keeps; 0 without such a stage.
int most_pairs(const FitSettings& settings);

}  // namespace einfield
