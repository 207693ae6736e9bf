// Everything that --resume needs, in one file: DIR/checkpoint.safetensors. It is written atomically, with a checksum
// over every byte and a fingerprint of the configuration: a run continues with the same bits only when its own
// fingerprint is the same.
#pragma once

#include <string>
#include <vector>

#include "einfield/load.hpp"

namespace einfield {

template <class Real>
struct Checkpoint {
  std::vector<Snapshot<Real>> snapshots;  ///< one per system of the backend
  std::string backend;                    ///< that made it; only the same one continues with the same bits
};

bool has_checkpoint(const std::string& dir);

/// The checkpoint in `dir`, when this configuration can continue from it: data, model, network, loss, regularization,
/// stages and the learning rates so far must be the same. The number of steps, stop_chi2 and the steps between log rows
/// may differ.
/// @param problem  of `config`, as load_problem() makes it
/// @throws InvalidInput when there is no checkpoint, when it is damaged or of another precision, and when the
///         configuration contradicts it; the message names the key
template <class Real>
Checkpoint<Real> read_checkpoint(const std::string& dir, const Config& config, const Problem& problem);

/// @throws IoError; then an earlier checkpoint is still there
template <class Real>
void write_checkpoint(const std::string& dir, const Config& config, const Problem& problem, const std::string& backend,
                      const std::vector<Snapshot<Real>>& snapshots);

}  // namespace einfield
