// Looks for what may be wrong with a finished fit. The flags, their thresholds and the reasons of these are in
// einfield/flags.hpp.
#pragma once

#include <string>
#include <vector>

#include "einfield/flags.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/results/assess.hpp"

namespace einfield {

/// Flags of a fit whose other members are set.
/// @param uncertainties  as for assess(); called again when the rendering is coarse
std::vector<RaisedFlag> raise_flags(const Assessment& fit, ThreadPool& pool, const UncertaintiesOf& uncertainties);

/// A direction that the data leave free, in words: "only the sum of the shears is determined: …".
/// @param names  of the free scalars
std::string in_words(const Degeneracy& degeneracy, const std::vector<std::string>& names, const Model& model);

}  // namespace einfield
