// Images in FITS files, and parts of them, as a configuration names them; or images in memory in their place.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// A part of an image, as CFITSIO and DS9 count: columns and rows from 1, both ends included.
struct FitsSection {
  int x_first = 1, x_last = 1, y_first = 1, y_last = 1;
  int nx() const { return x_last - x_first + 1; }
  int ny() const { return y_last - y_first + 1; }
};

/// An image in memory, (ny, nx), row 0 at the bottom.
struct ImageArray {
  int nx = 0, ny = 0;
  std::vector<double> values;
};

/// A FITS image: "FILE", "FILE[HDU]", and behind either a part of it "[x0:x1,y0:y1]", a plane of a cube "[*,*,k]", or
/// both "[x0:x1,y0:y1,k]".
struct FitsReference {
  std::string path;  ///< absolute, or relative to the working directory; resolved against the configuration file
  std::string hdu;   ///< EXTNAME or number; empty = the primary image if it has data, else the only image
  std::optional<FitsSection> section;  ///< the part that is read; nothing = all of it
  /// Without a file: the image itself. `path` then names it in messages, and `hdu`, `section` and `plane` are unset.
  std::shared_ptr<const ImageArray> array = nullptr;
  int plane = 0;  ///< of a cube, from 1; 0 = the image has no third axis
  bool empty() const { return path.empty(); }
};

}  // namespace einfield
