// The part of a mosaic around a position.
#pragma once

#include "einfield/fits_reference.hpp"
#include "einfield/observation.hpp"
#include "host/batch/manifest.hpp"

namespace einfield {

/// The square of `size` pixels around x, y or ra, dec of a row.
/// @throws InvalidInput "MANIFEST:LINE: COLUMN: …", also for a square that leaves the image; "FILE[HDU]: …"
FitsSection cut_out(const SurveyLens& lens, const FitsReference& image);

/// The pixel, from 1, of a position on the sky. Gnomonic projections (RA---TAN, DEC--TAN) only; distortions are
/// ignored.
/// @param ra, dec  [degrees]
/// @throws InvalidInput for another projection and for a position that is more than 90 degrees from the middle
Vec2<double> pixel_of(const CelestialWcs& wcs, double ra, double dec);

}  // namespace einfield
