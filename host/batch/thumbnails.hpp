// Small pictures of a fit, which the row of a lens holds for a gallery: one character a pixel.
#pragma once

#include <string>
#include <vector>

#include "host/results/assess.hpp"

namespace einfield {

/// The part of the image around the used pixels, of at most kSide × kSide blocks of pixels, row 0 at the bottom. A
/// picture is a text of nx · ny characters: digits of base64url (RFC 4648, section 5) for levels 0 to 63, and '.' where
/// no pixel of a block is used. With 4 of 400 characters, a lens takes 1.6 kB.
struct Thumbnails {
  static constexpr int kSide = 20;
  /// Levels of `residual`: from −kResidualRange to +kResidualRange.
  static constexpr double kResidualRange = 6;

  int nx = 0, ny = 0;
  std::string data, model;  ///< mean brightness of a block, on one scale that is linear in asinh
  std::string residual;     ///< (data − model)/σ, summed over a block and divided by the square root of its pixels
  /// Convergence of the network, from 0 to its largest value, at the resolution of the data where that is known; ""
  /// without a network.
  std::string kappa;

  bool empty() const { return nx == 0; }
};

/// The pictures of a fit. The same fit gives the same text.
Thumbnails thumbnails_of(const Assessment& fit);

/// A picture of values between two ends; values beyond get the level of the end, NaN gets '.'.
std::string levels_of(const std::vector<double>& values, double low, double high);

}  // namespace einfield
