// Several fits of one problem that differ by the seed of their networks: mean and scatter of what they found.
#pragma once

#include <vector>

#include "einfield/observation.hpp"
#include "host/lens_fields.hpp"

namespace einfield {

/// Mean over the members, and their standard deviation (n − 1 in the denominator; empty fields for one member).
struct EnsembleFields {
  LensFields mean, deviation;
  std::vector<double> offsets;  ///< what was taken off each member's potential [arcsec²]; empty for one member
};

/// @param members  at the pixel centres; the mean over used pixels is taken off each potential first, since a constant
/// of
///                 ψ is unobservable: for one member, the fields as they are
EnsembleFields ensemble_fields(const std::vector<LensFields>& members, const Observation& observation);

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
