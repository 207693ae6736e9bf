// What a run computes with: the backend, and the memory that it needs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/load.hpp"
#include "host/app/run.hpp"

namespace einfield {

/// The backend that the options ask for.
/// @throws InvalidInput when it cannot compute [network] math; NotBuilt, BackendUnavailable
BackendChoice choose_backend(const Config& config, const RunOptions& options);

/// The problems of a fit, one per member of the ensemble, and the bytes that it will need.
struct MemoryPlan {
  std::vector<Problem> problems;
  std::size_t on_host = 0;    ///< everything on the host, a CPU backend included
  std::size_t on_device = 0;  ///< of a CUDA backend
  /// "1.2 MB planned", or "… planned on the device, … on the host".
  std::string text() const;
};

/// Largest memory at any time of the run, the choice of a regularization strength included.
/// @throws IoError when the host does not have it, CudaError when the device does not
template <class Real>
MemoryPlan plan_memory(const Config& config, const LoadedProblem& loaded, const FitSettings& settings,
                       const Backend<Real>& backend, const BackendOptions& options);

}  // namespace einfield
