// What was observed: image, noise, mask, PSF and their grid.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "einfield/grid.hpp"

namespace EINFIELD_API einfield {

/// A convolution kernel of odd size, (ny, nx), normalized to a sum of 1, centered on its middle pixel; empty = no PSF.
struct Psf {
  int nx = 0;
  int ny = 0;
  std::vector<double> values;
  /// Samples of the kernel per pixel and side; must divide Grid::supersampling. With more than one, the image is
  /// convolved on sub-pixels of that size, each the mean of its rays, and averaged over pixels after the PSF.
  int supersampling = 1;
  bool empty() const { return values.empty(); }
};

/// Position of an image on the sky, from its FITS header (Greisen & Calabretta 2002): direction on the tangent plane =
/// cd · (pixel − reference_pixel). The fit's x and y are the image's columns and rows, whatever their orientation on
/// the sky.
struct CelestialWcs {
  double pixel_scale = 0;                             ///< arcsec, √|det CD|
  std::array<std::string, 2> type;                    ///< CTYPE of the two axes, without distortions
  std::array<std::array<double, 2>, 2> cd{};          ///< [axis][column, row] [deg]
  std::array<double, 2> reference_pixel{};            ///< CRPIX, from 1
  std::array<double, 2> reference_value{};            ///< CRVAL [deg]
  std::string frame;                                  ///< RADESYS, or ""
  std::optional<double> equinox, pole_lon, pole_lat;  ///< EQUINOX, LONPOLE, LATPOLE

  /// Position angle on the sky, from North towards East, of a direction in the image. Where the longitude grows to the
  /// left, as it does with North up and East left, that is phi − 90°.
  /// @param phi  from +x (columns) towards +y (rows) [rad]
  /// @return     in (−180, 180] [deg]
  double position_angle(double phi) const;
  /// Whether longitude grows to the left where latitude grows upwards, as seen from Earth. If not, the image is
  /// mirrored.
  bool right_handed() const;
  /// Right ascension and declination of a place in the image; NaN for projections other than the gnomonic one (TAN).
  /// Calabretta & Greisen 2002 (A&A 395, 1077), section 5.1.3.
  /// @param pixel  column and row, from 1, whole numbers are pixel centers
  /// @return       longitude, latitude [deg]
  std::array<double, 2> longitude_latitude(std::array<double, 2> pixel) const;
  /// The inverse of longitude_latitude(): column and row of a place on the sky. NaN also for a place that is 90 degrees
  /// or more from the reference point.
  std::array<double, 2> pixel(std::array<double, 2> longitude_latitude) const;
  /// The WCS of other pixels on the same sky.
  /// @param own    the grid of the image that this one belongs to
  /// @param other  with axes along those of `own`
  CelestialWcs on(const Grid& own, const Grid& other) const;
};

/// 1 σ of a pixel, in the unit of `value`: a Gaussian background plus the photon noise of the pixel itself.
/// @param value          brightness; a negative one has no photon noise
/// @param background_rms 1 σ of the background, in the unit of `value`
/// @param exposure_time  such that brightness · exposure_time is a number of photons; ∞ = no photon noise
inline double photon_noise(double value, double background_rms, double exposure_time) {
  return std::sqrt(background_rms * background_rms + std::max(value, 0.0) / exposure_time);
}

/// Median noise of the used pixels with positive noise, for limits relative to it. Some pipelines mark bad pixels with
/// one huge value, in some images most of them: when the largest value is more than `marks` times the median of the
/// other values, it does not count.
/// @param mask  (ny, nx), or empty: all used
/// @return      0 when no used pixel has a positive finite noise
double typical_noise(const std::vector<double>& noise, const std::vector<std::uint8_t>& mask, double marks);

/// Correlation coefficients of the noise of two pixels by their offset, (ny, nx), both odd: 1 in the middle and the
/// same after a turn by 180°; empty = the noise of two pixels is independent. Resampling (drizzle) correlates noise.
struct NoiseCorrelation {
  int nx = 0;
  int ny = 0;
  std::vector<double> values;
  bool empty() const { return values.empty(); }
  /// The coefficient of two pixels; 0 beyond the kernel. @param x, y  columns and rows between them
  double at(int x, int y) const {
    x += nx / 2;
    y += ny / 2;
    const bool inside = x >= 0 && y >= 0 && x < nx && y < ny;
    return inside ? values[static_cast<std::size_t>(y * nx + x)] : 0.0;
  }
};

/// One image of a lens system. All maps are (ny, nx) of `grid`.
struct Observation {
  Grid grid;
  std::vector<double> image;       ///< brightness per pixel [image unit]
  std::vector<double> noise;       ///< 1 σ [image unit]; > 0 where the mask is 1
  std::vector<std::uint8_t> mask;  ///< 1 = used
  Psf psf;
  NoiseCorrelation noise_correlation;

  /// Number of used pixels.
  int n_used() const {
    int n = 0;
    for (const std::uint8_t m : mask) n += m != 0;
    return n;
  }
  /// @throws InvalidInput on shapes that disagree, a value out of range, non-finite used pixels or an empty mask.
  void validate() const;
};

}  // namespace einfield
