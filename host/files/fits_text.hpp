// References to FITS images as text.
#pragma once

#include <string>

#include "einfield/fits_reference.hpp"

namespace einfield {

/// Splits "FILE[HDU][x0:x1,y0:y1]", whose brackets may be absent.
/// @return what is wrong with the text: "no file name", …; "" when `reference` has been set
std::string read_reference(const std::string& text, FitsReference& reference);

/// The inverse of read_reference().
std::string text_of(const FitsReference& reference);
/// "[x0:x1,y0:y1]"
std::string text_of(const FitsSection& section);

}  // namespace einfield
