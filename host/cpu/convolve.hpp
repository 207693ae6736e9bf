// The PSF on the CPU: zero-padded convolution of an image and its transpose, by the fastest of three exact methods.
#pragma once

#include <memory>
#include <vector>

#include "einfield/observation.hpp"

namespace einfield {

/// m = P ∗ I with zeros outside the image, and the transpose Ī = Pᵀ m̄:
///
///     m[y, x] = Σ_{v,w} P[v, w] I[y − (v − c_y), x − (w − c_x)]                                                  (1)
///     Ī[y, x] = Σ_{v,w} P[v, w] m̄[y + (v − c_y), x + (w − c_x)]                                                  (2)
///
/// (2) is (1) with P turned by 180°, the padding included. A kernel of rank one to rounding (a Gaussian) is applied row
/// by row and column by column; another one directly up to kLargestDirect values, and by FFT above.
template <class Real>
class Convolution {
 public:
  enum class Method { identity, separable, direct, fft };
  static constexpr int kLargestDirect = 121;

  /// @param psf  need not be normalized; empty = identity
  /// @throws InvalidInput for an even size or a size that disagrees with the number of values
  Convolution(int nx, int ny, const Psf& psf);
  /// The same by a given method. @throws InvalidInput when the method cannot do this kernel.
  Convolution(int nx, int ny, const Psf& psf, Method method);
  ~Convolution();
  Convolution(Convolution&&) noexcept;

  Method method() const { return method_; }

  /// (1); in and out are (ny, nx) and distinct. One call at a time.
  void apply(const Real* in, Real* out);
  /// (2)
  void apply_transpose(const Real* in, Real* out);

 private:
  struct Fourier;
  void run(const Real* in, Real* out, bool transposed);

  int nx_, ny_, psf_nx_ = 1, psf_ny_ = 1;
  Method method_;
  std::vector<Real> kernel_;        ///< direct: (psf_ny, psf_nx)
  std::vector<Real> row_, column_;  ///< separable: P = column ⊗ row
  std::vector<Real> padded_, intermediate_;
  std::unique_ptr<Fourier> fourier_;
};

/// Where the mean of the rays of a pixel goes when the PSF acts on f × f sub-pixels of it, s² rays a pixel in the order
/// of Grid: (ny f, nx f), row by row.
inline std::size_t subpixel_of_ray(int nx, int pixel_x, int pixel_y, int ray, int s, int f) {
  const int group = s / f;
  const int x = pixel_x * f + ray % s / group, y = pixel_y * f + ray / s / group;
  return static_cast<std::size_t>(y) * static_cast<std::size_t>(nx * f) + static_cast<std::size_t>(x);
}

/// Mean of the f × f sub-pixels of every pixel.
template <class Real>
void mean_of_subpixels(const Real* fine, int nx, int ny, int f, Real* pixels) {
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x) {
      Real sum = 0;
      for (int v = y * f; v < (y + 1) * f; ++v)
        for (int w = x * f; w < (x + 1) * f; ++w) sum += fine[v * nx * f + w];
      pixels[y * nx + x] = sum / static_cast<Real>(f * f);
    }
}

/// Its transpose: every sub-pixel gets its share.
template <class Real>
void mean_of_subpixels_adjoint(const Real* pixels, int nx, int ny, int f, Real* fine) {
  for (int y = 0; y < ny * f; ++y)
    for (int x = 0; x < nx * f; ++x) fine[y * nx * f + x] = pixels[y / f * nx + x / f] / static_cast<Real>(f * f);
}

}  // namespace einfield
