// The gallery of a survey: a page with a table of all lenses and their small pictures, sorted by any column.
//
//     FOLDER/report.html         the page, with the numbers of all lenses
//     FOLDER/pictures/0000.js …  pictures and messages of kLensesPerFile lenses each, read when they are shown
//
// It needs neither a server nor a network. Scripts and not JSON, because a page that was opened as a file may read
// nothing else.
#pragma once

#include <cstddef>
#include <string>

#include "host/batch/manifest.hpp"
#include "host/batch/row_store.hpp"

namespace einfield {

inline constexpr std::size_t kLensesPerFile = 100;

/// Writes the gallery into a folder, which is made when it is absent. Where DIR/lenses holds the report of a lens, its
/// row has a link to it, relative to the folder.
/// @param dir  the directory of the survey
/// @throws IoError
void write_gallery(const std::string& folder, const Manifest& manifest, const RowStore& rows, const std::string& dir);

}  // namespace einfield
