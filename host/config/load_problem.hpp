// Parts of load_problem() that a simulation needs as well.
#pragma once

#include <string>
#include <vector>

#include "einfield/config.hpp"

namespace einfield {

/// An image has fewer rays: their indices are ints, and Observation::validate() asks for it.
inline constexpr double kMaxRays = 1 << 30;
/// Pixels of all PIXELATED components of a model together, at most: Model::validate() refuses more.
inline constexpr std::size_t kMaxSourcePixels = std::size_t(1) << 26;

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
