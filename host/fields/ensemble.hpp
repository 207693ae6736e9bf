// Several fits of one problem that differ by the seed of their networks: mean and scatter of what they found.
#pragma once

#include <vector>

#include "einfield/observation.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {

/// Mean over the members, and their standard deviation (n − 1 in the denominator); empty but for the mean with one
/// member.
struct EnsembleFields {
  LensFields mean, deviation;
  std::vector<double> weights;  ///< of the pixels in the mean that was taken off each potential
  std::vector<double> offsets;  ///< these means [arcsec²]
};

/// @param members  at the pixel centres; a constant of ψ is unobservable: the mean of each potential over `weights` is
///                 taken off first. For one member, the fields as they are
/// @param weights  per pixel, with a sum > 0
EnsembleFields ensemble_fields(const std::vector<LensFields>& members, std::vector<double> weights);
/// Σ weight · value / Σ weight.
double weighted_mean(const std::vector<double>& map, const std::vector<double>& weights);

/// Mean of the members' fields, value by value.
LensFields mean_of(const std::vector<LensFields>& members);
/// Mean of the members' values, element by element.
std::vector<double> mean_of(const std::vector<std::vector<double>>& members);
/// Standard deviation, as in EnsembleFields.
std::vector<double> deviation_of(const std::vector<std::vector<double>>& members);

/// How often the truth lies within one and two standard deviations of the mean.
struct Coverage {
  double one = 0, two = 0;
};
/// @param pixels  that count
Coverage coverage(const std::vector<double>& mean, const std::vector<double>& deviation,
                  const std::vector<double>& truth, const std::vector<std::size_t>& pixels);

}  // namespace einfield
