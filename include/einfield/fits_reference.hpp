// Images in FITS files, and parts of them, as a configuration names them.
#pragma once

#include <optional>
#include <string>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// A part of an image, as CFITSIO and DS9 count: columns and rows from 1, both ends included.
struct FitsSection {
  int x_first = 1, x_last = 1, y_first = 1, y_last = 1;
  int nx() const { return x_last - x_first + 1; }
  int ny() const { return y_last - y_first + 1; }
};

/// A FITS image: "FILE", "FILE[HDU]", "FILE[x0:x1,y0:y1]" or "FILE[HDU][x0:x1,y0:y1]".
struct FitsReference {
  std::string path;  ///< absolute, or relative to the working directory; resolved against the configuration file
  std::string hdu;   ///< EXTNAME or number; empty = the primary image if it has data, else the only image
  std::optional<FitsSection> section;  ///< the part that is read; nothing = all of it
  bool empty() const { return path.empty(); }
};

}  // namespace einfield
