// What a stage checks before it enqueues: its device, the rows of the queue, and the sizes of the caller's arrays.
#pragma once

#include <string>

#include "einfield/cuda.hpp"
#include "einfield/error.hpp"
#include "kernels/check.cuh"

namespace einfield::cuda {

/// The device that was current when a stage was constructed: its memory and kernels are there.
class StageDevice {
 public:
  StageDevice() { EINFIELD_CUDA(cudaGetDevice(&device_)); }
  /// @throws InvalidInput when another device is current, CudaError
  void require_current(const char* stage) const {
    int current = 0;
    EINFIELD_CUDA(cudaGetDevice(&current));
    EINFIELD_REQUIRE(current == device_, std::string(stage) + ": CUDA device " + std::to_string(current) +
                                             " is current, expected device " + std::to_string(device_) +
                                             ", on which the stage was constructed");
  }

 private:
  int device_ = 0;
};

/// Rows of a grid for a queue of a stage that holds `all` systems.
/// @throws InvalidInput for a list without entries, or with more than there are systems
inline unsigned rows_of(const Queue& queue, std::size_t all) {
  if (queue.systems == nullptr) return static_cast<unsigned>(all);
  EINFIELD_REQUIRE(
      queue.n_systems > 0 && static_cast<std::size_t>(queue.n_systems) <= all,
      "a queue with a list of " + std::to_string(queue.n_systems) + " systems, expected 1 ... " + std::to_string(all));
  return static_cast<unsigned>(queue.n_systems);
}

/// @throws InvalidInput when a stage of `all` systems does not hold this one
inline void require_system(const char* stage, std::size_t system, std::size_t all) {
  EINFIELD_REQUIRE(system < all, std::string(stage) + ": system " + std::to_string(system) + " of " +
                                     std::to_string(all) + ", expected one that is loaded");
}

/// @throws InvalidInput
[[noreturn]] inline void throw_size(const char* stage, const char* array, std::size_t found, const char* expectation,
                                    std::size_t expected) {
  throw InvalidInput(std::string(stage) + ": " + array + " has " + std::to_string(found) + " numbers, expected " +
                     expectation + std::to_string(expected));
}

/// @throws InvalidInput unless the array has exactly this size
template <class T>
void require_size(const char* stage, const char* array, View<T> found, std::size_t expected) {
  if (found.size() != expected) throw_size(stage, array, found.size(), "", expected);
  EINFIELD_REQUIRE(found.data() != nullptr,
                   std::string(stage) + ": " + array + " is a null pointer, expected an array");
}
/// The same for an array that may be absent.
template <class T>
void require_size_or_none(const char* stage, const char* array, View<T> found, std::size_t expected) {
  if (!found.empty()) require_size(stage, array, found, expected);
}

/// Flat vectors: `n` numbers of each of the systems, which begin `stride` apart.
/// @throws InvalidInput for a view that ends before the last of them
template <class T>
void require_vectors(const char* stage, const char* array, View<T> found, std::size_t systems, std::size_t stride,
                     std::size_t n) {
  const std::size_t expected = (systems - 1) * stride + n;
  if (found.size() < expected) throw_size(stage, array, found.size(), "at least ", expected);
  EINFIELD_REQUIRE(n == 0 || found.data() != nullptr,
                   std::string(stage) + ": " + array + " is a null pointer, expected an array");
}

/// @throws InvalidInput for images of (ny, nx) that overlap, or a view that ends before the last of them
template <class T>
void require_images(const char* stage, const char* array, const ImageView<T>& found, std::size_t images, int ny,
                    int nx) {
  const auto rows = static_cast<std::size_t>(ny), columns = static_cast<std::size_t>(nx);
  EINFIELD_REQUIRE(found.row_stride >= columns && (images == 1 || found.system_stride >= rows * found.row_stride),
                   std::string(stage) + ": " + array + " has strides of " + std::to_string(found.row_stride) + " and " +
                       std::to_string(found.system_stride) + ", expected images of " + std::to_string(ny) + " x " +
                       std::to_string(nx) + " that do not overlap");
  require_vectors(stage, array, View<T>(found.data, found.size), images, found.system_stride,
                  (rows - 1) * found.row_stride + columns);
}

}  // namespace einfield::cuda
