// COOLEST, the standard for lens models (Galan et al. 2023, JOSS 8, 5567): its JSON template and FITS, out and in.
//
// | quantity        | einfield (lenstronomy)             | COOLEST                                           |
// | position angle  | φ = ½ atan2(e2, e1), from +x to +y | φ − 90° in (−90°, 90°], from +y counter-clockwise |
// | ellipticity     | c = |e|                            | q = (1 − c)/(1 + c)                               |
// | shear           | γ1, γ2 about (ra_0, dec_0)         | |γ|, ½ atan2(γ2, γ1) − 90°, about (0, 0)          |
// | Einstein radius | on the intermediate axis           | the same                                          |
// | Sérsic radius   | product average or major axis      | intermediate axis: R √q of the major axis         |
// | brightness      | image unit per pixel               | per arcsec²: amp/pixel_scale²; maps: per pixel    |
// | Gaussian        | amp, sigma                         | Sérsic of n = 0.5 with θ_eff = σ √(2 b_n)         |
// | core of an NIE  | s_scale                            | r_core, the same                                  |
//
// Shear and convergence about another point than (0, 0) deflect by a constant more: α = Γ(θ − θ_0). Written about
// (0, 0), the light of the source moves by −Γ θ_0, so that the image stays what it is. Priors and uncertainties of
// parameters that are the same up to a factor become the standard's; uncertainties of q, φ and the shear follow from
// those of the components by their derivatives.
#pragma once

#include <string>
#include <vector>

#include "host/exchange/exchange.hpp"

namespace einfield {

/// Writes coolest.json and the coolest_*.fits that it names. What the standard cannot say in parameters is stored as a
/// grid of pixels: the network of the potential and lens profiles without a counterpart as
/// PixelatedRegularGridPotential on the image's pixels, NETWORK light as PixelatedRegularGrid. Members named "einfield"
/// hold what einfield needs to read the same model back; other readers pass over them. Maps that are not square are
/// padded: `coolest` 0.1.11 takes columns for rows. Redshifts are placeholders: a fit knows none.
/// @return notes on everything that is not what the reader may expect, also in the file's "meta"
/// @throws IoError
std::vector<std::string> write_coolest(const std::string& dir, const ExchangedLens& lens);

/// Whether write_coolest() gives a file this name: "coolest_data.fits", "coolest_source_2.fits".
bool is_coolest_map(const std::string& name);

/// Reads a template with all files that it names; all FITS files lie beside it.
/// @param warnings  is appended to
/// @throws InvalidInput "FILE: lensing_entities[0].mass_model[1].type: …", also for everything that einfield cannot
/// represent
ExchangedLens read_coolest(const std::string& file, std::vector<std::string>& warnings);

}  // namespace einfield
