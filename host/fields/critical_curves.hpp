// Critical curves and caustics: where images merge, and where their light comes from.
// Schneider, Ehlers & Falco (1992), sections 5.2 and 6; cuts: Kormann, Schneider & Bartelmann (1994), section 4.
#pragma once

#include <functional>
#include <vector>

#include "einfield/core.hpp"
#include "einfield/model.hpp"
#include "einfield/source.hpp"

namespace einfield {

/// The points of a line, in order [arcsec]. The last point of a closed line repeats the first.
using Polyline = std::vector<Vec2<double>>;

/// A line in the image plane, and the points of the source plane that the lens equation gives for it.
struct CriticalCurve {
  Polyline image;   ///< θ with det A = 0
  Polyline source;  ///< the caustic β(θ)
};

struct CriticalCurves {
  std::vector<CriticalCurve> curves;
  /// α jumps at the center of a singular isothermal profile: a source that crosses this line gains or loses an image
  /// without crossing a caustic.
  std::vector<Polyline> cuts;
};

/// Deflection at any positions, both 2 × n: all x, then all y [arcsec].
using Deflection = std::function<std::vector<double>(const std::vector<double>& theta)>;

/// The lines of a rectangle of nodes on which det A = 0, with
///
///     A = ∂β/∂θ = (1 − κ − γ1, −γ2; −γ2, 1 − κ + γ1)                                                      (1)
///
/// Marching squares find the edges between nodes that a line crosses, and a search along each edge finds the point.
/// Points lie on the line for any spacing; the spacing only decides how many points there are and which small lines are
/// missed. The Hessian of the profiles is exact. That of `more` comes from differences of its deflection: between nodes
/// to find the edges, over kStep in the search.
/// @param nodes   number and place of the nodes; lines shorter than a few spacings are not returned
/// @param smooth  profiles
/// @param more    deflection of other mass, smooth over one spacing; empty = none
CriticalCurves critical_curves(const PixelGrid& nodes, const std::vector<LensComponent>& smooth,
                               const Deflection& more);

/// Radius of the circle that has the area of the largest closed critical curve [arcsec]: of an elliptical isothermal
/// lens theta_E, of any circular one its Einstein radius. NaN when no curve is closed.
double effective_radius(const CriticalCurves& lines);

/// Chains of edges on which the sign of `values` changes, (ny, nx). Edge 2 (iy nx + ix) joins node (ix, iy) with its
/// right neighbor, edge 2 (iy nx + ix) + 1 joins it with the upper one. A closed chain ends with its first edge. Where
/// a cell has four such edges, the mean of its corners decides which edges are connected. A cell with a non-finite
/// value has no edges.
std::vector<std::vector<int>> sign_changes(int nx, int ny, const std::vector<double>& values);

}  // namespace einfield
