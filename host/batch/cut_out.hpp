// The part of a mosaic around a position.
#pragma once

#include "einfield/fits_reference.hpp"
#include "host/batch/manifest.hpp"

namespace einfield {

/// The square of `size` pixels around x, y or ra, dec of a row. Distortions of a WCS are ignored.
/// @throws InvalidInput "MANIFEST:LINE: COLUMN: …", also for a square that leaves the image; "FILE[HDU]: …"
FitsSection cut_out(const SurveyLens& lens, const FitsReference& image);

}  // namespace einfield
