// What an image shows of a lens before any fit: sky, galaxy, arcs, neighbors. Only for first guesses; everything is
// measured by medians and moments of the pixels, without a PSF.
#pragma once

#include <vector>

#include "einfield/observation.hpp"

namespace einfield {

/// A round object beside the lens.
struct Neighbor {
  Vec2<double> center;  ///< [arcsec]
  double radius = 0;    ///< of a circle around its significant pixels [arcsec]
};

/// Positions are those of the grid of the observation [arcsec].
struct Survey {
  Vec2<double> center;           ///< of the galaxy in the middle
  double background = 0;         ///< median of blank sky [image unit]
  int sky_pixels = 0;            ///< number of pixels of blank sky
  double sky_scatter = 0;        ///< 1 σ of a pixel of blank sky [image unit]
  double sky_noise = 0;          ///< median of the noise map there [image unit]
  double e1 = 0, e2 = 0;         ///< ellipticity of the galaxy's light within theta_E
  double half_light_radius = 0;  ///< of the galaxy, up to half the side of the image [arcsec]
  bool arcs = false;             ///< whether there is significant light that the galaxy does not have
  int arc_pixels = 0;            ///< number of its pixels
  double peak = 0;               ///< its largest significance, in a mean of 3 × 3 pixels [σ]
  bool pairs = false;            ///< whether it lies on opposite sides of the galaxy
  double theta_E =
      0;  ///< half the distance of opposite arcs, or 3/4 of the radius of arcs on one side; a guess without arcs
  Vec2<double> source{};  ///< mean of the arcs traced to the source by an isothermal sphere of theta_E [arcsec]
  double outer = 0;       ///< radius that holds most of the arcs [arcsec]
  std::vector<Neighbor> neighbors;  ///< outside the arcs, inside 3 theta_E
};

/// @param o  with a valid mask and noise
Survey survey(const Observation& o);

/// Full width at half maximum of the core of a kernel: that of a Gaussian whose maximum p and whose mean m at a
/// distance of one sample are those of the kernel, m/p = exp(−4 ln 2/FWHM²).
/// @return [pixels of the image]; 0 without a PSF
double width_of(const Psf& psf);

}  // namespace einfield
