// Which systems a launch works on. The rows of a grid (blockIdx.y) are entries of a list in device memory, so that a
// system that is done takes no blocks once the host has shortened the list, and almost no time before.
#pragma once

#include "einfield/cuda.hpp"

namespace einfield::cuda {

/// The system of a row of blocks, or −1: the row has nothing to do. @param systems  Queue::systems
__device__ __forceinline__ int system_of_row(const int* systems, unsigned row) {
  return systems != nullptr ? systems[row] : static_cast<int>(row);
}

/// Rows of a grid for a queue of a stage that holds `all` systems.
inline unsigned rows_of(const Queue& queue, std::size_t all) {
  return queue.systems != nullptr ? static_cast<unsigned>(queue.n_systems) : static_cast<unsigned>(all);
}

}  // namespace einfield::cuda
