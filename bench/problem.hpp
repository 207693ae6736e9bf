// The problem that is timed: the paper's noisy SIE lens (Biggio et al. 2021, Tables 1 and 2) at any image size.
#pragma once

#include <vector>

#include "einfield/backend.hpp"

namespace einfield::bench {

/// The data beside the model: seed of the noise, field of view, PSF in units of the pixel.
inline constexpr double kFieldOfView = 8.0;  ///< arcsec a side, at every size
inline constexpr double kFwhmPixels = 2.5;   ///< 0.2 arcsec at 100 pixels
inline constexpr int kPsfSize = 13;
inline constexpr double kNoise = 2.0;

/// SIE and Sérsic source, fixed at their true values, and a network for the rest; data with the perturber and noise.
/// @param n       pixels a side
/// @param hidden  widths of the network; empty = no network, and the source's brightness is free instead
Problem paper_problem(int n, const std::vector<int>& hidden);

/// The same data without a network: all parameters of SIE and source are free and begin off their true values.
/// @param n  pixels a side
Problem profile_problem(int n);

/// The same data for Gauss–Newton: free SIE, a source of side² free pixels, 256 Fourier features with a linear readout.
/// @param n  pixels a side, four rays each
Problem joint_problem(int n, int side);

/// FLOP of the products between hidden layers, nearly all of a step: 24 N H² for three layers of H.
/// A third of them belongs to the network's value and gradient, the rest to its adjoint.
double step_flop(int n, const std::vector<int>& hidden);

}  // namespace einfield::bench
