// Which systems a launch works on. The rows of a grid (blockIdx.y) are entries of a list in device memory, so that a
// system that is done takes no blocks once the host has shortened the list, and almost no time before.
#pragma once

namespace einfield::cuda {

/// The system of a row of blocks, or −1: the row has nothing to do. @param systems  Queue::systems
__device__ __forceinline__ int system_of_row(const int* systems, unsigned row) {
  return systems != nullptr ? systems[row] : static_cast<int>(row);
}

}  // namespace einfield::cuda
