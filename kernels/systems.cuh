// Which systems a launch works on. The rows of a grid (blockIdx.y) are entries of a list in device memory, so that a
// system that is done takes no blocks once the host has shortened the list, and almost no time before.
#pragma once

#include <string>

#include "einfield/cuda.hpp"
#include "einfield/error.hpp"

namespace einfield::cuda {

/// The system of a row of blocks, or −1: the row has nothing to do. @param systems  Queue::systems
__device__ __forceinline__ int system_of_row(const int* systems, unsigned row) {
  return systems != nullptr ? systems[row] : static_cast<int>(row);
}

/// Rows of a grid for a queue of a stage that holds `all` systems.
inline unsigned rows_of(const Queue& queue, std::size_t all) {
  return queue.systems != nullptr ? static_cast<unsigned>(queue.n_systems) : static_cast<unsigned>(all);
}

/// @throws InvalidInput when a stage of `all` systems does not hold this one
inline void require_system(const char* stage, std::size_t system, std::size_t all) {
  EINFIELD_REQUIRE(system < all, std::string(stage) + ": system " + std::to_string(system) + " of " +
                                     std::to_string(all) + ", expected one that is loaded");
}

}  // namespace einfield::cuda
