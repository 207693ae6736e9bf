// Critical curves and caustics: where images merge, and where their light comes from.
// Schneider, Ehlers & Falco (1992), sections 5.2 and 6; cuts: Kormann, Schneider & Bartelmann (1994), section 4.
#pragma once

#include <functional>
#include <vector>

#include "einfield/core.hpp"
#include "einfield/model.hpp"
#include "einfield/source.hpp"

namespace einfield {

/// Points of a line, one behind the other; of a closed line the last one is the first one again. [arcsec]
using Polyline = std::vector<Vec2<double>>;

/// A line in the image plane and what the lens equation makes of it, point by point.
struct CriticalCurve {
  Polyline image;   ///< θ with det A = 0
  Polyline source;  ///< the caustic β(θ)
};

struct CriticalCurves {
  std::vector<CriticalCurve> curves;
  /// Around the centre of a singular isothermal profile α jumps: a source that crosses this line wins or loses an image
  /// without a critical curve.
  std::vector<Polyline> cuts;
};

/// Deflection at any positions, both 2 × n: all x, then all y [arcsec].
using Deflection = std::function<std::vector<double>(const std::vector<double>& theta)>;

/// The lines of a rectangle of nodes on which det A = 0, with
///
///     A = ∂β/∂θ = (1 − κ − γ1, −γ2; −γ2, 1 − κ + γ1)                                                      (1)
///
/// Marching squares say which edges between nodes a line crosses, and a search along each edge says where: points lie
/// on the line whatever the spacing, which only decides how many there are and which small lines are missed. The
/// Hessian of the profiles is exact; that of `more` comes from differences of its deflection, between nodes to find the
/// edges and over kStep in the search.
/// @param nodes   their number and place; lines shorter than a few of their spacings are left out
/// @param smooth  profiles
/// @param more    deflection of further mass, smooth over a spacing; empty = none
CriticalCurves critical_curves(const PixelGrid& nodes, const std::vector<LensComponent>& smooth,
                               const Deflection& more);

/// Chains of edges on which the sign of `values` changes, (ny, nx). Edge 2 (iy nx + ix) joins node (ix, iy) with its
/// neighbour to the right, the next one with that above; a closed chain ends with its first edge. Where a cell has four
/// such edges, the mean of its corners says which of them belong together; one with a value that is not finite has
/// none.
std::vector<std::vector<int>> sign_changes(int nx, int ny, const std::vector<double>& values);

}  // namespace einfield
