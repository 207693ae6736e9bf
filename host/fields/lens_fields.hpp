// ψ, α and κ of the smooth model and of the network, and brightness, at any positions: for the maps of results and for
// `evaluate`.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/grid.hpp"
#include "einfield/model.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

/// Values at n positions.
struct LensFields {
  std::vector<double> potential;    ///< n [arcsec²]
  std::vector<double> deflection;   ///< 2 × n, all x, then all y [arcsec]
  std::vector<double> convergence;  ///< n
};

/// @param theta  2 × n, all x, then all y [arcsec]
LensFields smooth_fields(const std::vector<LensComponent>& lens, const std::vector<double>& theta, ThreadPool& pool);

/// Fields of a network, evaluated in the precision of Real. The result is the same bit by bit for any number of
/// threads.
/// @param parameters  flat layout of `shape`
/// @param theta       2 × n, all x, then all y [arcsec]
/// @param with_convergence  false: κ stays 0; it costs as much as ψ and α together
template <class Real>
LensFields network_fields(const NetworkShape& shape, const std::vector<double>& parameters,
                          const std::vector<double>& theta, ThreadPool& pool, bool with_convergence = true);

/// The same in double, as maps are kept.
template <class Real>
LensFields in_double(const NetworkFields<Real>& fields);

/// Total brightness of light components at positions of their plane. A NETWORK is evaluated in the precision of Real.
/// @param positions  2 × n, all x, then all y [arcsec]
/// @return           n values [image unit per pixel]
template <class Real>
std::vector<double> brightness(const std::vector<LightComponent>& lights, const std::vector<double>& positions,
                               ThreadPool& pool);

/// Gradient of brightness() with respect to the position.
/// @return  2 × n, all x, then all y [image unit per pixel per arcsec]
template <class Real>
std::vector<double> brightness_gradient(const std::vector<LightComponent>& lights, const std::vector<double>& positions,
                                        ThreadPool& pool);

/// Positions of all pixel centers, 2 × n: all x, then all y [arcsec].
std::vector<double> pixel_centers(const Grid& grid);
/// Positions of all rays, 2 × n: all x, then all y [arcsec].
std::vector<double> ray_positions(const Grid& grid);

/// Adds fields at the same positions.
void add_fields(LensFields& to, const LensFields& more);

/// Fields that are zero at n positions, for a model without a network.
LensFields zero_fields(std::size_t n);

}  // namespace einfield
