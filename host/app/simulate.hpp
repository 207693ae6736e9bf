// `einfield simulate`: renders the image of a configuration, including the missing mass, adds noise and stores the
// truth.
#pragma once

#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/observation.hpp"
#include "einfield/truth.hpp"

namespace einfield {

/// A simulated observation. Maps are (ny, nx).
struct Simulation {
  Grid grid;
  Psf psf;                    ///< empty = none
  std::vector<double> image;  ///< with noise [image unit]
  std::vector<double> noise;  ///< 1 sigma [image unit]
  Truth truth;                ///< the image without noise, and the fields of the missing mass alone
  std::vector<std::string> warnings;
};

/// Renders the smooth model plus [[perturbation]] in double, convolves, and adds the noise of [simulate].
/// The same configuration gives the same bits.
/// @param config  from read_config() with for_simulation = true
/// @throws InvalidInput for data that cannot be read
Simulation simulated(const Config& config);

/// Writes simulated(config) to a file: the HDUs IMAGE NOISE PSF MASK IMAGE_TRUE PSI_TRUE ALPHA_TRUE KAPPA_TRUE; the
/// last three describe the perturbation only. The same configuration gives the same bytes.
/// @param config     from read_config() with for_simulation = true
/// @param target     FITS file to write
/// @param overwrite  replace an existing file
/// @return           warnings about the data that were read
/// @throws InvalidInput for an existing target or invalid data, IoError when the file cannot be written
std::vector<std::string> simulate(const Config& config, const std::string& target, bool overwrite);

}  // namespace einfield
