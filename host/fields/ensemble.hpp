// Mean and scatter of an ensemble: fits of one problem whose networks have different seeds.
#pragma once

#include <vector>

#include "einfield/observation.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {

/// Mean over the members and their standard deviation (n − 1 in the denominator). With one member, only the mean is
/// there; all else is empty.
struct EnsembleFields {
  LensFields mean, deviation;
  std::vector<double> weights;  ///< of the pixels, in the mean that was subtracted from each potential
  std::vector<double> offsets;  ///< the means that were subtracted [arcsec²]
};

/// Mean and scatter of the members' fields. A constant of ψ is unobservable: the weighted mean of each potential is
/// subtracted first. A single member is returned as it is.
/// @param members  at the pixel centers
/// @param weights  of the pixels in the mean of ψ; their sum is > 0
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
/// @param pixels  indices of the pixels to count
Coverage coverage(const std::vector<double>& mean, const std::vector<double>& deviation,
                  const std::vector<double>& truth, const std::vector<std::size_t>& pixels);

}  // namespace einfield
