// The known truth behind a simulated image.
#pragma once

#include <vector>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Maps of the truth at the pixel centers, (ny, nx). A map that is not known is empty.
struct Truth {
  std::vector<double> image;        ///< after the PSF, without noise [unit of the image]
  std::vector<double> potential;    ///< ψ of the missing mass [arcsec²]
  std::vector<double> deflection;   ///< α of the missing mass: all x, then all y [arcsec]
  std::vector<double> convergence;  ///< κ of the missing mass, dimensionless
};

}  // namespace einfield
