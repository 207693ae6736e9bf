// The lens of a finished fit, read back from its directory: the smooth model and the networks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/grid.hpp"
#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/safetensors.hpp"

namespace einfield {

/// What a directory of results says about the lens.
struct StoredLens {
  std::vector<LensComponent> smooth;
  std::vector<StoredNetwork> networks;  ///< none, one, or the members of an ensemble
  std::vector<double> offsets;          ///< of their potentials; empty with one
  bool double_precision = false;
  Grid grid;                        ///< of the image
  std::optional<CelestialWcs> sky;  ///< of the image
};

/// @throws InvalidInput naming the file when the directory holds no complete results
StoredLens read_lens(const std::string& dir);

/// ψ, α, κ of a stored lens; those of an ensemble of networks are means over its members.
struct StoredFields {
  LensFields network, smooth;
};
/// @param theta    2 × n, all x, then all y [arcsec]
/// @param threads  0 = as many as the process may use
StoredFields evaluate(const StoredLens& lens, const std::vector<double>& theta, int threads = 0);

/// Deflection by the networks alone, always in double: for those who take differences of it. Arguments as above.
/// @return  2 × n, all x, then all y [arcsec]; zeros without a network
std::vector<double> network_deflection(const StoredLens& lens, const std::vector<double>& theta, int threads = 0);

}  // namespace einfield
