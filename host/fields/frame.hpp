// The part of an image around the pixels that are used.
#pragma once

#include <cstdint>
#include <vector>

namespace einfield {

/// A part of a map: its first column and row, and its numbers of columns and rows.
struct Frame {
  int x, y, nx, ny;
};

/// The part of the image to show: a square around the used pixels with a margin, or the whole image when the square is
/// nearly as large.
/// @param used  (ny, nx)
Frame frame_of(const std::vector<std::uint8_t>& used, int nx, int ny);

}  // namespace einfield
