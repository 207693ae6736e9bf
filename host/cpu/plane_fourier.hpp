// Fourier transforms of a plane on the CPU (KissFFT).
#pragma once

#include <algorithm>
#include <complex>
#include <kissfft.hh>
#include <vector>

namespace einfield {

/// The smallest product of 2, 3 and 5 that is at least n.
inline int fast_size(int n) {
  for (;; ++n) {
    int rest = n;
    for (const int factor : {2, 3, 5})
      while (rest % factor == 0) rest /= factor;
    if (rest == 1) return n;
  }
}

/// Complex transforms of (height, width) numbers in place, without a factor: forward and inverse multiply by
/// width · height.
template <class Real>
struct PlaneFourier {
  using Complex = std::complex<Real>;
  using Spectrum = std::vector<Complex>;

  PlaneFourier(int nx, int ny)
      : width(nx),
        height(ny),
        row_forward(static_cast<std::size_t>(width), false),
        row_inverse(static_cast<std::size_t>(width), true),
        column_forward(static_cast<std::size_t>(height), false),
        column_inverse(static_cast<std::size_t>(height), true),
        line(static_cast<std::size_t>(std::max(width, height))),
        line_out(line.size()) {}

  std::size_t size() const { return static_cast<std::size_t>(width) * static_cast<std::size_t>(height); }

  void transform(Spectrum& values, bool inverse) {
    auto& row_plan = inverse ? row_inverse : row_forward;
    for (int y = 0; y < height; ++y) {
      Complex* row = values.data() + static_cast<std::ptrdiff_t>(y) * width;
      row_plan.transform(row, line_out.data());
      std::copy_n(line_out.begin(), width, row);
    }
    auto& column_plan = inverse ? column_inverse : column_forward;
    for (int x = 0; x < width; ++x) {
      for (int y = 0; y < height; ++y)
        line[static_cast<std::size_t>(y)] = values[static_cast<std::size_t>(y * width + x)];
      column_plan.transform(line.data(), line_out.data());
      for (int y = 0; y < height; ++y)
        values[static_cast<std::size_t>(y * width + x)] = line_out[static_cast<std::size_t>(y)];
    }
  }

  int width, height;
  kissfft<Real> row_forward, row_inverse, column_forward, column_inverse;
  Spectrum line, line_out;
};

}  // namespace einfield
