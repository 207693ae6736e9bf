// One lens of a survey: from its row of the manifest to its row of the table.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "host/app/batch.hpp"
#include "host/batch/lens_row.hpp"
#include "host/batch/manifest.hpp"

namespace einfield {

/// Fits a lens on one thread. A checkpoint of an earlier run in DIR/checkpoints is continued.
/// @param options  run.backend and run.device are those of the process; out = "" writes nothing
/// @return nothing when it was interrupted; then its checkpoint is written
/// @throws IoError when results or a checkpoint cannot be written; BackendUnavailable; CudaError and the like. Anything
/// else that goes wrong is a row with a flag
std::optional<LensRow> fit_lens(const SurveyLens& lens, const BatchOptions& options,
                                const std::function<bool()>& stopped);

/// What a lens needs.
struct LensPlan {
  std::string problem;  ///< why it cannot be fitted; "" = it can
  std::string group;    ///< lenses of one shape, in words
  double bytes = 0;     ///< of memory on the host
};
/// Reads and checks everything, fits nothing. @throws BackendUnavailable
LensPlan plan_lens(const SurveyLens& lens, const BatchOptions& options);

}  // namespace einfield
