// lenstronomy's keyword dictionaries as JSON, written and read. Profiles, names and conventions are the same as in
// einfield, with these differences: lenstronomy's images are brightness per arcsec² times the area of a pixel, so
// amplitudes are divided by pixel_scale²; R_sersic is always the product average; positions may grow to the left (a
// transform_pix2angle with a negative first entry), and then everything is mirrored.
#pragma once

#include <string>
#include <vector>

#include "host/exchange/exchange.hpp"

namespace einfield {

/// Writes lenstronomy.json and its maps, lenstronomy.fits. Where lenstronomy expects an array, the JSON file names a
/// map as "lenstronomy.fits[HDU]". Members: kwargs_model (lens_model_list, source_light_model_list,
/// lens_light_model_list), kwargs_lens, kwargs_source, kwargs_lens_light, kwargs_fixed_lens …, kwargs_data, kwargs_psf,
/// kwargs_numerics, kwargs_likelihood. The network is an INTERPOL of its deflection at every ray; PIXELATED and NETWORK
/// light are INTERPOL.
/// @return notes for users on everything that may surprise a reader of the files
/// @throws IoError
std::vector<std::string> write_lenstronomy(const std::string& dir, const ExchangedLens& lens);

/// Reads such dictionaries; arrays may also be lists in the JSON file. Model lists may be in kwargs_model or in the
/// root, parameters in the root or in kwargs_result. Parameters that kwargs_fixed_* does not name are free.
///
/// Every key must be one that is understood; a key that says nothing (null, false, an empty list or dictionary) may
/// have any name. Gaussian priors (prior_lens, prior_source, prior_lens_light) are carried over. Pixels without
/// exposure are masked.
/// @param warnings  new ones are appended
/// @param ignore    keys to leave out with a warning: "kwargs_model.multi_plane" or "multi_plane"
/// @throws InvalidInput "FILE: kwargs_lens[0].theta_E: …", also for everything that einfield cannot represent
ExchangedLens read_lenstronomy(const std::string& file, std::vector<std::string>& warnings,
                               const std::vector<std::string>& ignore = {});

}  // namespace einfield
