// A stage lists its buffers once, in its Storage::each. The same list counts the bytes before a run and allocates them,
// or lays them out in memory of the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "einfield/cuda.hpp"
#include "kernels/raii.cuh"

namespace einfield::cuda {

/// The bytes that allocate_all() would allocate.
template <class Storage, class... Sizes>
std::size_t planned_bytes_of(const Sizes&... sizes) {
  std::size_t bytes = 0;
  Storage{}.each([&bytes]<class T>(DeviceBuffer<T>&, std::size_t count) { bytes += count * sizeof(T); }, sizes...);
  return bytes;
}

/// Each buffer of a workspace begins at a multiple of this, as an allocation does.
inline constexpr std::size_t kWorkspaceAlignment = 256;
inline std::size_t in_workspace(std::size_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

/// The part of a workspace from `first` on; of none, none.
inline Workspace part_of(Workspace workspace, std::size_t first, std::size_t count) {
  return workspace.empty() ? Workspace() : workspace.from(first, count);
}

/// Where the buffers of a stage come from: the caller's workspace, one after the other, or allocations.
class BufferSource {
 public:
  /// @param bytes  what the buffers need, each with in_workspace()
  /// @throws InvalidInput for a workspace that is too small or not aligned
  BufferSource(const char* stage, Workspace workspace, std::size_t bytes) : rest_(workspace), given_(!rest_.empty()) {
    EINFIELD_REQUIRE(!given_ || workspace.size() >= bytes, std::string(stage) + ": a workspace of " +
                                                               std::to_string(workspace.size()) +
                                                               " bytes, expected at least " + std::to_string(bytes));
    EINFIELD_REQUIRE(reinterpret_cast<std::uintptr_t>(workspace.data()) % kWorkspaceAlignment == 0,
                     std::string(stage) + ": a workspace that is not aligned, expected a multiple of " +
                         std::to_string(kWorkspaceAlignment) + " bytes");
  }
  bool given() const { return given_; }
  template <class T>
  DeviceBuffer<T> take(std::size_t count) {
    if (!given_ || count == 0) return DeviceBuffer<T>(count);
    auto* const data = reinterpret_cast<T*>(rest_.data());
    rest_ = rest_.from(in_workspace(count * sizeof(T)));
    return {data, count};
  }

 private:
  Workspace rest_;
  bool given_;
};

/// The bytes of a workspace for every buffer.
template <class Storage, class... Sizes>
std::size_t workspace_bytes_of(const Sizes&... sizes) {
  std::size_t bytes = 0;
  Storage{}.each([&bytes]<class T>(DeviceBuffer<T>&, std::size_t count) { bytes += in_workspace(count * sizeof(T)); },
                 sizes...);
  return bytes;
}

/// Takes every buffer from `source` and sets it to zero: tickets and image borders must start there.
template <class Storage, class... Sizes>
void take_all(BufferSource& source, Storage& storage, cudaStream_t stream, const Sizes&... sizes) {
  storage.each(
      [&source, stream]<class T>(DeviceBuffer<T>& buffer, std::size_t count) {
        buffer = source.take<T>(count);
        buffer.zero(stream);
      },
      sizes...);
}

/// The same by allocations.
template <class Storage, class... Sizes>
void allocate_all(Storage& storage, cudaStream_t stream, const Sizes&... sizes) {
  BufferSource source("", {}, 0);
  take_all(source, storage, stream, sizes...);
}

}  // namespace einfield::cuda
