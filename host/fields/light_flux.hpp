// Total brightness of light components.
#pragma once

#include "einfield/model.hpp"

namespace einfield {

/// The integral of a component over the plane, in units of a pixel of the image: what all its pixels would sum to
/// without lensing. Closed form for Sérsic (without its core) and Gaussian profiles, the sum of the pixels of a
/// PIXELATED component (its bilinear brightness falls to 0 around them).
/// @param pixel_scale  of the image [arcsec]
/// @return [image unit]; NaN for NETWORK and UNIFORM, which have no end
double total_flux(const LightComponent& light, double pixel_scale);

}  // namespace einfield
