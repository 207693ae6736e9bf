#include "host/fields/frame.hpp"

#include <algorithm>
#include <cmath>

namespace einfield {

Frame frame_of(const std::vector<std::uint8_t>& used, int nx, int ny) {
  constexpr double kMargin = 0.08, kNearlyAll = 0.85;
  int left = nx, right = -1, low = ny, high = -1;
  for (int i = 0; i < nx * ny; ++i) {
    if (!used[static_cast<std::size_t>(i)]) continue;
    left = std::min(left, i % nx);
    right = std::max(right, i % nx);
    low = std::min(low, i / nx);
    high = std::max(high, i / nx);
  }
  if (right < 0) return {0, 0, nx, ny};
  const int side = static_cast<int>(std::ceil((1 + 2 * kMargin) * std::max(right - left + 1, high - low + 1)));
  if (side > kNearlyAll * std::min(nx, ny)) return {0, 0, nx, ny};
  return {std::clamp((left + right + 1 - side) / 2, 0, nx - side),
          std::clamp((low + high + 1 - side) / 2, 0, ny - side), side, side};
}

}  // namespace einfield
