// `einfield new`: a first configuration from the files of a lens.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/observation.hpp"

namespace einfield {

/// The options of `einfield new`. Names follow the options; images are "FILE" or "FILE[HDU]".
struct NewOptions {
  std::string image, noise, psf, mask;
  std::string noise_kind;             ///< sigma, variance or weight; "" = decided by the sky
  std::optional<double> pixel_scale;  ///< [arcsec]
  bool pixels = false;                ///< with free pixels of the source, for what the Sérsic misses
  bool network = false;               ///< with these and a network of the potential

  /// Whether anything but the image is given.
  bool any() const {
    return !noise.empty() || !psf.empty() || !mask.empty() || !noise_kind.empty() || pixel_scale || pixels || network;
  }
};

struct FirstConfiguration {
  std::string toml;                   ///< with the reason of every guess as a comment; files have absolute paths
  std::vector<std::string> warnings;  ///< about the data; a fit repeats them
  std::vector<std::string> doubts;    ///< what could not be measured
};

/// Reads and checks the files, measures what the image shows, and writes the model of one galaxy that lenses another,
/// with recipe = "galaxy".
/// @throws InvalidInput "--OPTION: …" for an option that is missing or unusable, "FILE[HDU]: …" for data
FirstConfiguration first_configuration(const NewOptions& options);

/// Whether a file is an image: its name does not end with .toml, and it begins as FITS files do, compressed or not.
/// @param image  "FILE" or "FILE[HDU]"
bool is_fits(const std::string& image);

}  // namespace einfield
