// FITS through CFITSIO: reads images by file and HDU, writes named images with unit and WCS.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/fits_reference.hpp"
#include "einfield/limits.hpp"
#include "einfield/observation.hpp"

namespace einfield {

/// The linear WCS in arcsec that write_fits() adds to an image.
struct LinearWcs {
  double pixel_scale = 0;             ///< arcsec
  double center_x = 0, center_y = 0;  ///< arcsec; coordinate of the middle of the image
};

/// A two-dimensional image, (ny, nx), row 0 at the bottom, in double.
struct FitsImage {
  int nx = 0;
  int ny = 0;
  int whole_nx = 0, whole_ny = 0;  ///< of the image in the file, of which this may be a part
  std::vector<double> values;
  std::string hdu;   ///< EXTNAME, or "PRIMARY", or the number
  std::string unit;  ///< BUNIT or ""
  std::optional<CelestialWcs> wcs;
  std::optional<LinearWcs> linear;
  std::optional<double> zero_point;  ///< AB magnitude of 1 unit of the image, from its keywords
  double kernel_scale = 0;           ///< PIXELSCL, which PSF programs write [arcsec]; 0 = absent
  double kernel_oversampling = 0;    ///< OVERSAMP, likewise; 0 = absent
};

/// Reads one image. `hdu` empty: the primary image if it has data, else the only image HDU, else an error listing
/// names. `planes` > 1: a cube (planes, ny, nx), plane after plane.
/// @throws InvalidInput "FILE[HDU]: …" for a missing, damaged or unsuitable file
FitsImage read_fits(const std::string& path, const std::string& hdu, int planes = 1);
/// The image that a reference names: of a section only this part, whose WCS is that of the part; of a plane only this
/// one of a cube. Or a copy of the array in memory that stands in place of a file: its `hdu` is "array".
/// @throws InvalidInput also for a part or a plane beyond the image, and for an array of size 0 or of another size than
/// its shape
FitsImage read_fits(const FitsReference& reference, int planes = 1);

/// Reads images one after the other. A file stays open until one of another file is read: the maps of a lens are often
/// in one file. For one thread.
class FitsImages {
 public:
  FitsImages();
  ~FitsImages();
  FitsImages(const FitsImages&) = delete;
  FitsImages& operator=(const FitsImages&) = delete;

  /// As read_fits().
  FitsImage read(const FitsReference& reference, int planes = 1);

 private:
  struct Open;
  FitsImage read_file(const FitsReference& reference, int planes);

  std::unique_ptr<Open> open_;
};

/// True when the file has an HDU of this EXTNAME. @throws InvalidInput for a file that is missing or damaged
bool has_hdu(const std::string& path, const std::string& name);

/// One image HDU to be written.
struct FitsOutput {
  std::string name;  ///< EXTNAME
  int nx = 0, ny = 0, planes = 1;
  std::vector<double> values;
  int bitpix = -64;                                        ///< −64 double, −32 float, 8 byte
  std::string unit;                                        ///< BUNIT; "" = dimensionless
  double pixel_scale = 0, center_x = 0, center_y = 0;      ///< linear WCS [arcsec]; center = middle of the image
  std::vector<std::pair<std::string, std::string>> cards;  ///< further keywords (strings)
  std::optional<CelestialWcs> sky{};                       ///< as the alternate WCS A
};

/// Writes all HDUs to `path` (under a temporary name, synced, renamed). @throws IoError
void write_fits(const std::string& path, const std::vector<FitsOutput>& hdus);

}  // namespace einfield
