// `einfield simulate --survey`: a population of lenses whose truth is known, as the images, the manifest and the
// template of `einfield batch`.
#pragma once

#include <cstdint>
#include <string>

namespace einfield {

/// Writes into a directory that is empty or absent:
///
///     images/*.fits   IMAGE NOISE PSF of every lens
///     survey.ecsv     the manifest
///     lens.toml       the template: one Sérsic each for lens and source, an isothermal ellipsoid, a shear
///     truth.ecsv      what was drawn for each lens, by the keys of the template; `perturber` is the Einstein radius of
///     a
///                     subhalo, 0 without one; `broken` says what is wrong with the files, "" for nothing
///
/// A tenth of the lenses have a subhalo near the Einstein ring that the template lacks, and a twentieth have broken
/// files. Image i depends on seed and i only.
/// @param threads  0 = as many as the process may use
/// @throws InvalidInput "--out: …" for a directory that holds files; IoError
void simulate_survey(int lenses, std::uint64_t seed, const std::string& dir, int threads);

}  // namespace einfield
