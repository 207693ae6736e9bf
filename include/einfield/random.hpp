// Random numbers from a counter-based generator: a number depends on seed, stream and counter only, so any number of
// threads and every backend draw the same.
#pragma once

#include <cstdint>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Streams of random numbers: draws of one seed and different streams are independent.
namespace random_stream {
inline constexpr std::uint64_t kWeights = 0;       ///< weights of the network of the potential
inline constexpr std::uint64_t kNoise = 1;         ///< noise of a simulated image
inline constexpr std::uint64_t kLightWeights = 2;  ///< weights of a NETWORK component
inline constexpr std::uint64_t kStarts = 3;        ///< starting points of a fit
inline constexpr std::uint64_t kAmplitudes = 4;    ///< amplitudes of a Gaussian random field
inline constexpr std::uint64_t kPhases = 5;        ///< phases of a Gaussian random field
inline constexpr std::uint64_t kProbes = 6;        ///< signs that estimate traces
/// Added to kWeights or kLightWeights: frequencies of that network's Fourier features.
inline constexpr std::uint64_t kFrequencies = 8;
/// What member m of a randomized fit draws has the streams kMembers · (m + 1) + 0, 1, … (host/fit/member_draws.hpp).
inline constexpr std::uint64_t kMembers = 64;
}  // namespace random_stream

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a function of a seed (`key`), a
/// stream and a counter. Different counters, streams or keys give independent numbers.
struct Philox {
  std::uint64_t key;  ///< the seed
  struct Block {      ///< one draw: four 32-bit words
    std::uint32_t word[4];
  };
  Block operator()(std::uint64_t counter, std::uint64_t stream = 0) const;
  /// A uniform number in (0, 1) with 53 random bits.
  /// @param counter  index of the number within the stream
  /// @param stream   of random_stream
  double uniform(std::uint64_t counter, std::uint64_t stream = 0) const;
  /// A standard normal number: inverse_normal(uniform(counter, stream)).
  double normal(std::uint64_t counter, std::uint64_t stream = 0) const;
};

/// The number z with Φ(z) = p, Φ the cumulative normal distribution; relative error about 1e-16. Wichura (1988),
/// algorithm AS 241, PPND16.
/// @param p  probability, 0 < p < 1
double inverse_normal(double p);

}  // namespace einfield
