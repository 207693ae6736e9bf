// Analytic PSF kernels, sampled at pixel centres and normalised.
#pragma once

#include "einfield/observation.hpp"

namespace EINFIELD_API einfield {

/// Largest kernel that is made, per side.
inline constexpr int kMaxPsfSide = 1023;

/// Gaussian: exp(−4 ln 2 r²/fwhm²).
/// @param fwhm         full width at half maximum [arcsec] > 0
/// @param pixel_scale  [arcsec] > 0
/// @param size         pixels a side, odd; 0 = the smallest odd kernel that holds 99.9 % of the light
/// @throws InvalidInput for values out of range and a kernel above kMaxPsfSide
Psf gaussian_psf(double fwhm, double pixel_scale, int size = 0);

/// Moffat (1969): (1 + r²/a²)^(−β), a = fwhm/(2√(2^{1/β} − 1)).
/// @param beta  > 1, else the light is infinite
/// @throws InvalidInput like gaussian_psf()
Psf moffat_psf(double fwhm, double beta, double pixel_scale, int size = 0);

}  // namespace einfield
