// Tables of FITS files through CFITSIO.
#pragma once

#include <string>

#include "host/files/table.hpp"

namespace einfield {

/// Reads a binary or ASCII table. `hdu` empty: the only table of the file. Cells hold one value each.
/// @throws InvalidInput "FILE[HDU]: …"
TextTable read_fits_table(const std::string& path, const std::string& hdu);

/// Writes a binary table in the first extension, atomically. @throws IoError
void write_fits_table(const std::string& path, const Table& table);

}  // namespace einfield
