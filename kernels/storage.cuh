// A stage lists its buffers once, in its Storage::each. The same list counts the bytes before a run and allocates them.
#pragma once

#include <cstddef>

#include "kernels/raii.cuh"

namespace einfield::cuda {

/// The bytes that allocate_all() would allocate.
template <class Storage, class... Sizes>
std::size_t planned_bytes_of(const Sizes&... sizes) {
  std::size_t bytes = 0;
  Storage{}.each([&bytes]<class T>(DeviceBuffer<T>&, std::size_t count) { bytes += count * sizeof(T); }, sizes...);
  return bytes;
}

/// Allocates every buffer and sets it to zero: tickets and image borders must start there.
template <class Storage, class... Sizes>
void allocate_all(Storage& storage, cudaStream_t stream, const Sizes&... sizes) {
  storage.each(
      [stream]<class T>(DeviceBuffer<T>& buffer, std::size_t count) {
        buffer = DeviceBuffer<T>(count);
        buffer.zero(stream);
      },
      sizes...);
}

}  // namespace einfield::cuda
