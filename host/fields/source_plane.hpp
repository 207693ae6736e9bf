// What follows from tracing the image back to the source plane: where the light comes from, and where the image says
// something about the deflection.
#pragma once

#include <vector>

#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {

// Several models are the members of an ensemble: each function returns the mean of what they give. Positions are
// 2 × n, all x, then all y [arcsec].

/// β = θ − α_smooth − α_network.
std::vector<double> source_positions(const std::vector<double>& theta, const LensFields& smooth,
                                     const LensFields& network);

/// Brightness of the source at positions in its plane. A NETWORK is evaluated in the precision of Real.
/// @return  n values [image unit per pixel]
template <class Real>
std::vector<double> source_brightness(const std::vector<Model>& members, const std::vector<double>& positions,
                                      ThreadPool& pool);

/// A square of 200 × 200 pixels around the source-plane positions of the brightest used pixels, which together hold 95
/// % of the lensed light. It is a tenth wider on each side.
/// @param positions  β of the pixel centers
template <class Real>
PixelGrid source_grid(const std::vector<Model>& members, const Observation& observation,
                      const std::vector<double>& positions, ThreadPool& pool);

/// Where the data constrain the network: by how many σ a pixel changes per arcsec of deflection, when all rays within
/// reach of the PSF are deflected alike, ∂m/∂α = −P ∗ ∇S(β):
///
///     s = |P ∗ ∇S(β)| / σ
///
/// The convergence comes from differences of α. Where s is small, the priors determine it and not the data.
/// ∇S is evaluated at the pixel center; a PSF on sub-pixels uses this value for all sub-pixels of the pixel.
/// @param positions  β of the pixel centers
/// @return           (ny, nx) [1/arcsec]; 0 at masked pixels
template <class Real>
std::vector<double> sensitivity(const std::vector<Model>& members, const Observation& observation,
                                const std::vector<double>& positions, ThreadPool& pool);

/// Weights of the pixels in the constant that is subtracted from the potentials of an ensemble: the squares of the
/// sensitivity. Where the data constrain the potentials well, the members then agree, and their scatter elsewhere is
/// not added to the arcs. All used pixels have the weight 1 when the source has no gradient anywhere.
std::vector<double> weights_of_constant(const std::vector<double>& sensitivity, const Observation& observation);

}  // namespace einfield
