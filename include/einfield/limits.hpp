// The largest sizes that a user can ask for. A larger one is refused with a message that names the limit.
#pragma once

#include <cstddef>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

inline constexpr int kMaxImageSide = 16384;                            ///< pixels per side of an image
inline constexpr int kMaxSupersampling = 32;                           ///< rays per pixel and side
inline constexpr double kMaxRays = 1 << 30;                            ///< per image: indices of rays are ints
inline constexpr std::size_t kMaxComponents = 10'000;                  ///< components in one block of a configuration
inline constexpr std::size_t kMaxSourcePixels = std::size_t(1) << 26;  ///< pixels of all PIXELATED components together
inline constexpr int kMaxEnsemble = 1000;                              ///< members of an ensemble
inline constexpr std::size_t kMaxLaplaceWeights = 3000;  ///< of a network with uncertainty.method = "laplace"

}  // namespace einfield
