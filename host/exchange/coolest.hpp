// COOLEST, the standard for lens models (Galan et al. 2023, JOSS 8, 5567): its JSON template and FITS files, written
// and read.
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
// A shear or convergence about another point than (0, 0) adds a constant deflection: α = Γ(θ − θ_0). The standard has
// it about (0, 0), so the source is shifted by −Γ θ_0, which leaves the image unchanged. Priors and uncertainties are
// written for parameters that are equal up to a factor; uncertainties of q, φ and the shear follow from those of the
// components by error propagation.
#pragma once

#include <string>
#include <vector>

#include "host/exchange/exchange.hpp"

namespace einfield {

/// Writes coolest.json and the coolest_*.fits that it names. What the standard has no parameters for is stored as a map
/// of pixels: the network of the potential and lens profiles without a counterpart as PixelatedRegularGridPotential on
/// the pixels of the image, NETWORK light as PixelatedRegularGrid. Members named "einfield" hold what einfield needs to
/// read the same model back; other readers ignore them. Maps that are not square are padded, because `coolest` 0.1.11
/// swaps rows and columns. Without a cosmology the redshifts are placeholders.
/// @return notes for users on everything that may surprise a reader of the files; the "meta" of the file has them too
/// @throws IoError
std::vector<std::string> write_coolest(const std::string& dir, const ExchangedLens& lens);

/// Whether this is the name of a map that write_coolest() writes: "coolest_data.fits", "coolest_source_2.fits".
bool is_coolest_map(const std::string& name);

/// Reads a template and the FITS files that it names, which must be in its directory.
/// @param warnings  new ones are appended
/// @throws InvalidInput "FILE: lensing_entities[0].mass_model[1].type: …", also for everything that einfield cannot
/// represent
ExchangedLens read_coolest(const std::string& file, std::vector<std::string>& warnings);

}  // namespace einfield
