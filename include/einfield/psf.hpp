// Analytic PSF kernels, sampled at pixel centers and normalized to a sum of 1.
#pragma once

#include "einfield/observation.hpp"

namespace EINFIELD_API einfield {

/// Largest kernel, in pixels per side.
inline constexpr int kMaxPsfSide = 1023;

/// Gaussian: exp(−4 ln 2 r²/fwhm²).
/// @param fwhm         full width at half maximum [arcsec] > 0
/// @param pixel_scale  [arcsec] > 0
/// @param size         pixels per side, odd; 0 = the smallest odd kernel that contains 99.9 % of the light
/// @throws InvalidInput for values out of range and for a kernel larger than kMaxPsfSide
Psf gaussian_psf(double fwhm, double pixel_scale, int size = 0);

/// Moffat (1969): (1 + r²/a²)^(−β), a = fwhm/(2√(2^{1/β} − 1)).
/// @param beta  > 1, so that the total light is finite
/// @throws InvalidInput as gaussian_psf()
Psf moffat_psf(double fwhm, double beta, double pixel_scale, int size = 0);

}  // namespace einfield
