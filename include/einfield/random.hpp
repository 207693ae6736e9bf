// Random numbers by counter: the same for any number of threads, on every backend.
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
/// Added to kWeights or kLightWeights: frequencies of that network's Fourier features.
inline constexpr std::uint64_t kFrequencies = 8;
}  // namespace random_stream

/// Philox4x32-10: one counter, one key, four 32-bit words (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
/// 2, 3").
struct Philox {
  std::uint64_t key;
  struct Block {
    std::uint32_t word[4];
  };
  Block operator()(std::uint64_t counter, std::uint64_t stream = 0) const;
  /// A uniform number in (0, 1) with 53 random bits.
  double uniform(std::uint64_t counter, std::uint64_t stream = 0) const;
  /// A standard normal number (inverse of the cumulative distribution of uniform()).
  double normal(std::uint64_t counter, std::uint64_t stream = 0) const;
};

/// The number z with Φ(z) = p, Φ the cumulative normal distribution; relative error about 1e-16. Wichura (1988),
/// algorithm AS 241, PPND16.
/// @param p  probability, 0 < p < 1
double inverse_normal(double p);

}  // namespace einfield
