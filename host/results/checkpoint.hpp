// Everything that --resume needs, in one file: DIR/checkpoint.safetensors. Written atomically, with a checksum over
// every byte, and with what the configuration must agree with for the run to go on with the same bits.
#pragma once

#include <string>
#include <vector>

#include "einfield/load.hpp"
#include "host/fit/strengths.hpp"

namespace einfield {

template <class Real>
struct Checkpoint {
  std::vector<Snapshot<Real>> snapshots;  ///< one per lens of the backend
  std::string backend;                    ///< that made it: only the same one goes on with the same bits
  std::vector<TriedStrength> strengths;   ///< behind the weights of the fit; empty = not tried (yet)
};

bool has_checkpoint(const std::string& dir);

/// The checkpoint in `dir`, when this configuration can go on from it: the data, the model, the network, the loss, the
/// regularisation, the stages and the learning rates so far are the same. There may be more steps, another stop_chi2 or
/// none, other steps between log rows.
/// @param problem  of `config`, as load_problem() makes it
/// @throws InvalidInput without a checkpoint, for a damaged one, for another precision, and for a configuration that
///         contradicts it, with the key
template <class Real>
Checkpoint<Real> read_checkpoint(const std::string& dir, const Config& config, const Problem& problem);

/// @throws IoError; the checkpoint that was there before stays then
template <class Real>
void write_checkpoint(const std::string& dir, const Config& config, const Problem& problem, const std::string& backend,
                      const std::vector<Snapshot<Real>>& snapshots, const std::vector<TriedStrength>& strengths = {});

}  // namespace einfield
