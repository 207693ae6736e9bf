// `einfield simulate`: the image that a configuration describes, its missing mass included, with noise and the truth.
#pragma once

#include <string>
#include <vector>

#include "einfield/config.hpp"

namespace einfield {

/// Renders the smooth model plus [[perturbation]] in double, convolves, adds the noise of [simulate] and writes the
/// HDUs IMAGE NOISE PSF MASK IMAGE_TRUE PSI_TRUE ALPHA_TRUE KAPPA_TRUE; the last three are of the perturbation alone.
/// The same configuration gives the same bytes.
/// @param config     read with for_simulation
/// @param target     FITS file
/// @param overwrite  replaces an existing file
/// @return           warnings about the data read
/// @throws InvalidInput for an existing target or data that do not fit, IoError when it cannot be written
std::vector<std::string> simulate(const Config& config, const std::string& target, bool overwrite);

}  // namespace einfield
