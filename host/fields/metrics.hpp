// Errors of a fit against a known truth.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/observation.hpp"
#include "einfield/truth.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {

/// Errors against the truth over one region. A number is NaN when it does not exist: the region is empty, the truth is
/// zero, or the truth has no such map.
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

/// The arcs are the used pixels whose noise-free truth exceeds this many σ.
inline constexpr double kArcSignalToNoise = 5;

/// Indices of the used pixels, in order. @param truth_image  when not null, only pixels on the arcs
std::vector<std::size_t> region(const Observation& observation, const std::vector<double>* truth_image);

/// @param model       image after the PSF, (ny, nx)
/// @param correction  fields of the fitted network, at the pixel centers
TruthErrors truth_errors(const Observation& observation, const Truth& truth, const std::vector<double>& model,
                         const LensFields& correction);

}  // namespace einfield
