// Writes an assessed fit into a directory: result.fits, result.json, history.csv, network.safetensors and, with a
// NETWORK component, source_network.safetensors or lens_light_network.safetensors.
#pragma once

#include <string>
#include <vector>

#include "einfield/results.hpp"
#include "host/results/assess.hpp"
#include "host/results/fits_maps.hpp"
#include "host/results/result_files.hpp"

namespace einfield {

/// The HDUs of result.fits, by EXTNAME, at pixel centers, in the precision of the fit (MASK: bytes):
///
///     DATA NOISE MASK PSF MODEL          the observation, and the model after the PSF; without a PSF one pixel of 1
///     RESIDUAL                           (data − model)/noise; NaN where masked
///     SOURCE                             source plane on a grid around the lensed light or, when the source is one
///                                        PIXELATED component, on its grid; without pixel-area factor
///     SOURCE_<i> LENS_LIGHT_<i>          the pixels of every other PIXELATED component
///     PSI_NN ALPHA_NN KAPPA_NN           of the network, 0 without one; ALPHA_* have two planes: x, then y
///     PSI_NN_STD ALPHA_NN_STD KAPPA_NN_STD   1 σ of these by uncertainty.method; NaN where nothing determines
///                                        them; of ψ: of ψ minus its mean, weighted by the squared sensitivity
///     KAPPA_NN_SNR                       KAPPA_NN / KAPPA_NN_STD
///     KAPPA_NN_PSF KAPPA_NN_PSF_STD      P ∗ κ, κ at the resolution of the data, and its 1 σ
///     SENSITIVITY                        change of a pixel in σ per arcsec of deflection (source_plane.hpp)
///     PSI_MACRO ALPHA_MACRO KAPPA_MACRO  of the smooth model
///     PSI_TRUE ALPHA_TRUE KAPPA_TRUE IMAGE_TRUE   when [truth] is given
///
/// Where the image has a celestial WCS, the maps on its grid have it as WCS A beside their own WCS in arcsec.
FitsMaps result_maps(const Assessment& fit);

/// Writes all results of a fit. The files are made in a hidden folder of `dir` first and replace earlier results only
/// when all of them are complete: a full disk leaves the earlier results as they were.
///
/// With an ensemble, maps and parameters are means over the members that count. A constant of ψ is unobservable: from
/// each potential its mean over the pixels, weighted by the squared sensitivity, is subtracted first
/// (weights_of_constant()). history.csv is that of the first member that counts; network.safetensors,
/// network.1.safetensors … are the networks of the members that count.
/// @param extra_writers  called with the hidden folder after all other files but result.json are complete
/// @return               the content of result.json
/// @throws IoError
std::string write_results(const std::string& dir, const Assessment& fit, const RunInfo& info,
                          const std::vector<ExtraWriter>& extra_writers = {});

}  // namespace einfield
