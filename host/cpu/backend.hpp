// The CPU backend: a loop over fixed chunks of rays around the shared per-ray physics, with the tiled network and the
// convolution beside it (network.hpp, convolve.hpp).
#pragma once

#include <memory>
#include <vector>

#include "einfield/backend.hpp"

namespace einfield {

/// @param threads  0 = as many as the process may use
template <class Real>
std::unique_ptr<Backend<Real>> make_cpu_backend(int threads);

/// Bytes that the backend will allocate for these problems.
template <class Real>
std::size_t cpu_planned_bytes(const std::vector<Problem>& problems, int threads);

}  // namespace einfield
