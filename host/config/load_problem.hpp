// Parts of load_problem() that `simulate` uses as well.
#pragma once

#include <string>
#include <vector>

#include "einfield/load.hpp"
#include "host/files/fits_io.hpp"

namespace einfield {

/// The model with the start values of its PIXELATED and NETWORK components, and the input_scale of its networks.
/// @param grid  of the image
/// @throws InvalidInput "FILE[HDU]: …" for an image of another shape or with values that are not finite, "FILE: …" for
/// weights that cannot be read
Model load_model(const Config& config, const Grid& grid);

/// 1 sigma of every pixel from one number, or from background_rms and exposure_time; a noise map is not read here.
/// @param brightness  of the pixels [image unit]
std::vector<double> pixel_noise(const NoiseConfig& noise, const std::vector<double>& brightness);

/// The PSF of the configuration, normalized to 1; empty if there is none.
/// @param supersampling  samples of the kernel per pixel along each axis
/// @param key            "FILE: observation.psf", for messages about a PSF that is not read from a file
/// @param loaded         its warnings and flags: new ones are appended
/// @param files          reads the kernel
/// @throws InvalidInput "FILE[HDU]: …" for a kernel of even size, larger than the image, with values that are not
/// finite, with a sum <= 0 or with another pixel scale, by its WCS or by PIXELSCL or OVERSAMP in its header
Psf load_psf(const PsfConfig& psf, const Grid& pixels, int supersampling, const std::string& key, LoadedProblem& loaded,
             FitsImages& files);

/// The correlation of the noise of two pixels.
/// @throws InvalidInput "FILE[HDU]: …" for a kernel of even size, without 1 in the middle, with a value that is not in
/// [-1, 1] or that differs from its mirror image
NoiseCorrelation load_noise_correlation(const FitsReference& kernel);

}  // namespace einfield
