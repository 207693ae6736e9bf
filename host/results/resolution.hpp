// Below which size the error bars of a fit say nothing, by a rule.
#pragma once

#include <string>
#include <vector>

#include "einfield/network.hpp"
#include "einfield/observation.hpp"

namespace einfield {

/// The resolution below which the error bars of κ are those of the priors, whatever the data: the largest of two
/// pixels, of the width of the PSF, and, for a network without hidden layers, of half the shortest wavelength of its
/// features. Mass that is more compact appears smeared out to this size, which no error bar shows.
struct Resolution {
  double fwhm = 0;     ///< [arcsec]
  std::string limits;  ///< which of the three it is, in words
};

/// @param weights  of the network, in the units of the data
Resolution resolution(const Observation& observation, const NetworkShape& shape, const std::vector<double>& weights);

std::string in_words(const Resolution& resolution);

}  // namespace einfield
