// Tables as ECSV 1.0, the text format of Astropy (APE 6): typed columns in a head of YAML, rows of CSV.
#pragma once

#include <string>

#include "host/files/table.hpp"

namespace einfield {

/// Reads a table of numbers, texts and truth values. Columns of lists and objects are refused.
/// @throws InvalidInput "FILE:LINE: …"
TextTable read_ecsv(const std::string& path);

/// Writes a table with commas between the cells, atomically. @throws IoError
void write_ecsv(const std::string& path, const Table& table);

}  // namespace einfield
