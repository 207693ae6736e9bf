// Parts of load_problem() that a simulation needs as well.
#pragma once

#include <string>
#include <vector>

#include "einfield/load.hpp"

namespace einfield {

/// The model with the start values of its PIXELATED and NETWORK components.
/// @throws InvalidInput "FILE[HDU]: …" for an image of another shape or with values that are not finite, "FILE: …" for
/// weights that cannot be read
Model load_lights(const Config& config);

/// The PSF that the configuration asks for, normalised; empty without one.
/// @param supersampling  samples of the kernel a pixel's side
/// @param key       "FILE: observation.psf", for messages about a PSF that is no file
/// @param warnings  is appended to
/// @throws InvalidInput "FILE[HDU]: …" for a kernel of even size, larger than the image, not finite, with a sum <= 0 or
/// of
///         another pixel scale
Psf load_psf(const PsfConfig& psf, const Grid& pixels, int supersampling, const std::string& key,
             std::vector<std::string>& warnings);

}  // namespace einfield
