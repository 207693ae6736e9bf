// Convolution with the PSF: separable, direct, or by FFT (KissFFT); each way has its transpose as the turned kernel.
#include "host/cpu/convolve.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "einfield/error.hpp"
#include "host/cpu/plane_fourier.hpp"

namespace einfield {
namespace {

/// Column and row whose product is the kernel to 1e-12 of its largest value; empty when there are none.
std::pair<std::vector<double>, std::vector<double>> factors(const Psf& psf) {
  const auto at = [&](int y, int x) { return psf.values[static_cast<std::size_t>(y * psf.nx + x)]; };
  const auto largest = std::max_element(psf.values.begin(), psf.values.end(),
                                        [](double a, double b) { return std::abs(a) < std::abs(b); });
  if (*largest == 0) return {};
  const int index = static_cast<int>(largest - psf.values.begin());
  std::vector<double> column, row;
  for (int y = 0; y < psf.ny; ++y) column.push_back(at(y, index % psf.nx));
  for (int x = 0; x < psf.nx; ++x) row.push_back(at(index / psf.nx, x) / *largest);
  for (int y = 0; y < psf.ny; ++y)
    for (int x = 0; x < psf.nx; ++x)
      if (std::abs(at(y, x) - column[static_cast<std::size_t>(y)] * row[static_cast<std::size_t>(x)]) >
          1e-12 * std::abs(*largest))
        return {};
  return {column, row};
}

}  // namespace

/// The convolution by FFT. The kernel is real, so the image's lower half goes in as the real part and its upper half as
/// the imaginary part of one transform of half the height; each half comes out convolved, and they are added where they
/// overlap.
template <class Real>
struct Convolution<Real>::Fourier : PlaneFourier<Real> {
  using typename PlaneFourier<Real>::Complex;
  using typename PlaneFourier<Real>::Spectrum;
  using PlaneFourier<Real>::width, PlaneFourier<Real>::height, PlaneFourier<Real>::size, PlaneFourier<Real>::transform;

  Fourier(int nx, int ny, const Psf& psf)
      : PlaneFourier<Real>(fast_size(nx + psf.nx - 1), fast_size((ny + 1) / 2 + psf.ny - 1)),
        half((ny + 1) / 2),
        work(size()) {
    for (Spectrum* s : {&kernel, &turned}) s->assign(size(), Complex(0));
    const double scale = 1 / (static_cast<double>(width) * height);  // of the inverse transform
    for (int v = 0; v < psf.ny; ++v)
      for (int w = 0; w < psf.nx; ++w) {
        const auto at = static_cast<std::size_t>(v * width + w);
        kernel[at] = static_cast<Real>(scale * psf.values[static_cast<std::size_t>(v * psf.nx + w)]);
        turned[at] =
            static_cast<Real>(scale * psf.values[static_cast<std::size_t>((psf.ny - 1 - v) * psf.nx + psf.nx - 1 - w)]);
      }
    transform(kernel, false);
    transform(turned, false);
  }

  void run(const Real* in, Real* out, int nx, int ny, int shift_x, int shift_y, const Spectrum& with) {
    std::fill(work.begin(), work.end(), Complex(0));
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x) {
        const Real value = in[y * nx + x];
        Complex& target = work[static_cast<std::size_t>((y < half ? y : y - half) * width + x)];
        target = y < half ? Complex(value, target.imag()) : Complex(target.real(), value);
      }
    transform(work, false);
    for (std::size_t i = 0; i < work.size(); ++i) {
      // Written out: the operator's care for infinities costs more than the transform.
      const Complex a = work[i], b = with[i];
      work[i] = Complex(a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real());
    }
    transform(work, true);
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x) {
        const int lower = y + shift_y, upper = lower - half;  // rows of the two halves' results
        Real sum = 0;
        if (lower < height) sum += work[static_cast<std::size_t>(lower * width + x + shift_x)].real();
        if (upper >= 0) sum += work[static_cast<std::size_t>(upper * width + x + shift_x)].imag();
        out[y * nx + x] = sum;
      }
  }

  int half;
  Spectrum work, kernel, turned;
};

template <class Real>
Convolution<Real>::Convolution(int nx, int ny, const Psf& psf)
    : Convolution(nx, ny, psf,
                  psf.empty()                         ? Method::identity
                  : !factors(psf).first.empty()       ? Method::separable
                  : psf.nx * psf.ny <= kLargestDirect ? Method::direct
                                                      : Method::fft) {}

template <class Real>
Convolution<Real>::Convolution(int nx, int ny, const Psf& psf, Method method) : nx_(nx), ny_(ny), method_(method) {
  EINFIELD_REQUIRE(psf.empty() == (method == Method::identity),
                   "the identity has no PSF and everything else has one, expected a method that goes with the PSF");
  if (psf.empty()) return;
  EINFIELD_REQUIRE(psf.nx % 2 == 1 && psf.ny % 2 == 1 &&
                       psf.values.size() == static_cast<std::size_t>(psf.nx) * static_cast<std::size_t>(psf.ny),
                   "a PSF of " + std::to_string(psf.nx) + " x " + std::to_string(psf.ny) + " with " +
                       std::to_string(psf.values.size()) + " values, expected odd sizes and as many values");
  psf_nx_ = psf.nx;
  psf_ny_ = psf.ny;
  switch (method) {
    case Method::identity:
      break;
    case Method::separable: {
      const auto [column, row] = factors(psf);
      EINFIELD_REQUIRE(!column.empty(), "the PSF is not separable");
      column_.assign(column.begin(), column.end());
      row_.assign(row.begin(), row.end());
      intermediate_.resize(static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny));
      padded_.resize(static_cast<std::size_t>(nx + psf.nx - 1));
      break;
    }
    case Method::direct:
      kernel_.assign(psf.values.begin(), psf.values.end());
      padded_.resize(static_cast<std::size_t>(nx + psf.nx - 1) * static_cast<std::size_t>(ny));
      break;
    case Method::fft:
      fourier_ = std::make_unique<Fourier>(nx, ny, psf);
      break;
  }
}

template <class Real>
Convolution<Real>::~Convolution() = default;
template <class Real>
Convolution<Real>::Convolution(Convolution&&) noexcept = default;

template <class Real>
void Convolution<Real>::apply(const Real* in, Real* out) {
  run(in, out, false);
}

template <class Real>
void Convolution<Real>::apply_transpose(const Real* in, Real* out) {
  run(in, out, true);
}

template <class Real>
void Convolution<Real>::run(const Real* in, Real* out, bool transposed) {
  const int cx = psf_nx_ / 2, cy = psf_ny_ / 2, stride = nx_ + psf_nx_ - 1;
  const auto turned = [transposed](int index, int size) { return transposed ? size - 1 - index : index; };
  // target[x] += factor · source[x] over a row: the loop that the compiler makes vectors of.
  const auto add_row = [this](Real* target, Real factor, const Real* source) {
    for (int x = 0; x < nx_; ++x) target[x] += factor * source[x];
  };
  switch (method_) {
    case Method::identity:
      std::copy_n(in, static_cast<std::ptrdiff_t>(nx_) * ny_, out);
      return;
    case Method::separable:
      for (int y = 0; y < ny_; ++y) {
        std::copy_n(in + static_cast<std::ptrdiff_t>(y) * nx_, nx_, padded_.begin() + cx);
        Real* target = intermediate_.data() + static_cast<std::ptrdiff_t>(y) * nx_;
        std::fill_n(target, nx_, Real(0));
        for (int w = 0; w < psf_nx_; ++w)
          add_row(target, row_[static_cast<std::size_t>(turned(w, psf_nx_))], padded_.data() + 2 * cx - w);
      }
      for (int y = 0; y < ny_; ++y) {
        Real* target = out + static_cast<std::ptrdiff_t>(y) * nx_;
        std::fill_n(target, nx_, Real(0));
        for (int v = std::max(0, y + cy - ny_ + 1); v < std::min(psf_ny_, y + cy + 1); ++v)
          add_row(target, column_[static_cast<std::size_t>(turned(v, psf_ny_))],
                  intermediate_.data() + static_cast<std::ptrdiff_t>(y + cy - v) * nx_);
      }
      return;
    case Method::direct:
      for (int y = 0; y < ny_; ++y)
        std::copy_n(in + static_cast<std::ptrdiff_t>(y) * nx_, nx_,
                    padded_.begin() + static_cast<std::ptrdiff_t>(y) * stride + cx);
      for (int y = 0; y < ny_; ++y) {
        Real* target = out + static_cast<std::ptrdiff_t>(y) * nx_;
        std::fill_n(target, nx_, Real(0));
        for (int v = std::max(0, y + cy - ny_ + 1); v < std::min(psf_ny_, y + cy + 1); ++v)
          for (int w = 0; w < psf_nx_; ++w)
            add_row(target, kernel_[static_cast<std::size_t>(turned(v, psf_ny_) * psf_nx_ + turned(w, psf_nx_))],
                    padded_.data() + static_cast<std::ptrdiff_t>(y + cy - v) * stride + 2 * cx - w);
      }
      return;
    case Method::fft:
      fourier_->run(in, out, nx_, ny_, cx, cy, transposed ? fourier_->turned : fourier_->kernel);
      return;
  }
}

template class Convolution<float>;
template class Convolution<double>;

}  // namespace einfield
