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

/// Mean of the f × f sub-pixels of every pixel.
template <class Real>
void mean_of_subpixels(const Real* fine, int nx, int ny, int f, Real* pixels) {
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x)
      pixels[y * nx + x] = mean_of_subpixels(fine, static_cast<std::size_t>(nx * f), x, y, f);
}

/// Its transpose: every sub-pixel gets its share.
template <class Real>
void mean_of_subpixels_adjoint(const Real* pixels, int nx, int ny, int f, Real* fine) {
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x)
      mean_of_subpixels_adjoint(pixels[y * nx + x], static_cast<std::size_t>(nx * f), x, y, f, fine);
}

}  // namespace einfield
