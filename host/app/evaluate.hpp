// `einfield evaluate`: the fitted lens at any point. It needs result.json and the networks of a fit, not its
// data.
#pragma once

#include <iosfwd>
#include <string>

namespace einfield {

/// Reads a CSV file with a header and the columns x and y [arcsec], and writes it with eight more: psi [arcsec²],
/// alpha_x, alpha_y [arcsec], kappa of the network, and the same of the smooth model with the suffix _macro. All
/// other columns are copied unchanged. The network is evaluated in the precision of the run.
/// @param out     file, or "" for `stream`
/// @throws InvalidInput "FILE:LINE: …" for the table, "DIR/FILE: …" for the results; IoError
void evaluate_points(const std::string& dir, const std::string& points, const std::string& out, std::ostream& stream);

/// Writes a FITS file with PSI_NN, ALPHA_NN, KAPPA_NN, PSI_MACRO, ALPHA_MACRO and KAPPA_MACRO on a new grid
/// around the middle of the fitted image, in the precision of the run.
/// @param pixel_scale  [arcsec]
/// @param out          file, or "" for DIR/evaluate.fits
/// @throws InvalidInput, IoError
void evaluate_grid(const std::string& dir, int nx, int ny, double pixel_scale, const std::string& out);

}  // namespace einfield
