// lenstronomy's keyword dictionaries as JSON, out and in. Profiles, names and conventions are einfield's own; what
// differs: lenstronomy's images are brightness per arcsec² times the area of a pixel, so amplitudes are divided by
// pixel_scale²; R_sersic is on the product average; positions may grow to the left (a transform_pix2angle with a
// negative first entry), then everything is mirrored.
#pragma once

#include <string>
#include <vector>

#include "host/exchange/exchange.hpp"

namespace einfield {

/// Writes lenstronomy.json and the maps that it names, lenstronomy.fits. Where lenstronomy takes an array, the file has
/// "lenstronomy.fits[HDU]". Members: kwargs_model (lens_model_list, source_light_model_list, lens_light_model_list),
/// kwargs_lens, kwargs_source, kwargs_lens_light, kwargs_fixed_lens …, kwargs_data, kwargs_psf, kwargs_numerics,
/// kwargs_likelihood. The network is an INTERPOL of its deflection at every ray, pixels and NETWORK light are INTERPOL.
/// @return notes on everything that is not what the reader may expect
/// @throws IoError
std::vector<std::string> write_lenstronomy(const std::string& dir, const ExchangedLens& lens);

/// Reads such dictionaries; arrays may also stand in the file as lists. Model lists may stand in kwargs_model or at the
/// top, parameters at the top or in kwargs_result. What kwargs_fixed_* does not name is free.
/// @param warnings  is appended to
/// @throws InvalidInput "FILE: kwargs_lens[0].theta_E: …", also for everything that einfield cannot represent
ExchangedLens read_lenstronomy(const std::string& file, std::vector<std::string>& warnings);

}  // namespace einfield
