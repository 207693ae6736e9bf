// How well a fit describes the data, and how far it is from the truth when that is known.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/observation.hpp"
#include "einfield/truth.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {

/// Errors against the truth over one region. A number that does not exist (an empty region, a truth of zero, a map that
/// the truth lacks) is NaN.
struct RegionErrors {
  double psi_relative_rms = 0;  ///< rms(Δψ)/rms(ψ), the region's means removed from both: a constant is unobservable
  double alpha_relative_rms = 0;  ///< rms|Δα|/rms|α|
  double kappa_rms = 0;           ///< rms(Δκ)
};

struct TruthErrors {
  double image_rms_over_sigma = 0;  ///< rms over used pixels of (model − noise-free truth)/noise
  RegionErrors all;                 ///< over used pixels
  RegionErrors arc;                 ///< over used pixels whose noise-free truth exceeds kArcSignalToNoise σ
};

/// Where the arcs are.
inline constexpr double kArcSignalToNoise = 5;

/// Indices of used pixels, in order; `truth_image` not null: of those on the arc only.
std::vector<std::size_t> region(const Observation& observation, const std::vector<double>* truth_image);

/// @param model       image after the PSF, (ny, nx)
/// @param correction  what the fit found of the missing mass, at pixel centres
TruthErrors truth_errors(const Observation& observation, const Truth& truth, const std::vector<double>& model,
                         const LensFields& correction);

}  // namespace einfield
