// The PSF and the mean over the sub-pixels of a pixel, as one kernel.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/observation.hpp"

namespace einfield::cuda {

/// The PSF P on f × f sub-pixels and the mean over a pixel in one kernel. With h = (size − 1)/2, for every axis,
///
///     m(X) = (1/f²) Σ_{0≤s<f} Σ_{−h≤k≤h} P(k) I(fX + s − k) = Σ_{−h≤t<h+f} W(t) I(fX + t),
///     W(t) = (1/f²) Σ_s P(s − t)                                                                               (1)
///
/// (2 h_y + f, 2 h_x + f) numbers; without a PSF h = 0 and P(0) = 1.
inline std::vector<double> combined_psf(const Psf& psf) {
  const int f = psf.supersampling, px = psf.empty() ? 1 : psf.nx, py = psf.empty() ? 1 : psf.ny;
  const int nx = px - 1 + f, ny = py - 1 + f;
  std::vector<double> weights(static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny), 0.0);
  // Index i of W is t = i − h; P(k) is at index k + h. With k = s − t: k + h = s − i + 2h.
  for (int iy = 0; iy < ny; ++iy)
    for (int ix = 0; ix < nx; ++ix)
      for (int sy = 0; sy < f; ++sy)
        for (int sx = 0; sx < f; ++sx) {
          const int kx = sx - ix + px - 1, ky = sy - iy + py - 1;
          if (kx < 0 || ky < 0 || kx >= px || ky >= py) continue;
          const double p = psf.empty() ? 1 : psf.values[static_cast<std::size_t>(ky * px + kx)];
          weights[static_cast<std::size_t>(iy * nx + ix)] += p / (f * f);
        }
  return weights;
}

}  // namespace einfield::cuda
