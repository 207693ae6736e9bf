// Convolution with the PSF: each method against the sum that defines it, and its transpose by dot products.
#include "host/cpu/convolve.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "einfield/error.hpp"
#include "einfield/network.hpp"
#include "einfield/psf.hpp"

namespace einfield {
namespace {

std::vector<double> random_values(std::size_t n, std::uint64_t seed) {
  const Philox philox{seed};
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = philox.normal(i);
  return values;
}

/// A kernel without any symmetry.
Psf lopsided(int nx, int ny) {
  Psf psf{nx, ny, random_values(static_cast<std::size_t>(nx * ny), 5)};
  for (double& v : psf.values) v = std::abs(v);
  return psf;
}

/// Σ P[v, w] I[y − (v − c_y), x − (w − c_x)], zero outside.
std::vector<double> naive(const std::vector<double>& in, int nx, int ny, const Psf& psf) {
  std::vector<double> out(in.size(), 0.0);
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x)
      for (int v = 0; v < psf.ny; ++v)
        for (int w = 0; w < psf.nx; ++w) {
          const int sy = y - (v - psf.ny / 2), sx = x - (w - psf.nx / 2);
          if (sy < 0 || sx < 0 || sy >= ny || sx >= nx) continue;
          out[static_cast<std::size_t>(y * nx + x)] +=
              psf.values[static_cast<std::size_t>(v * psf.nx + w)] * in[static_cast<std::size_t>(sy * nx + sx)];
        }
  return out;
}

double norm(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

template <class Real>
std::vector<double> applied(Convolution<Real>& convolution, const std::vector<double>& in, bool transposed) {
  const std::vector<Real> from(in.begin(), in.end());
  std::vector<Real> to(in.size(), std::numeric_limits<Real>::quiet_NaN());
  transposed ? convolution.apply_transpose(from.data(), to.data()) : convolution.apply(from.data(), to.data());
  return std::vector<double>(to.begin(), to.end());
}

struct Size {
  int nx, ny, psf_nx, psf_ny;
};
// One pixel, one row, odd and even, a kernel as large as the image and one larger than it, more rows than columns.
constexpr Size kSizes[] = {{1, 1, 1, 1},  {1, 1, 3, 3},     {7, 1, 3, 1},  {1, 6, 1, 5},     {9, 7, 5, 3},
                           {8, 10, 3, 9}, {13, 13, 13, 13}, {5, 4, 9, 11}, {32, 31, 11, 11}, {40, 25, 21, 15}};

template <class Real>
class ConvolutionTest : public testing::Test {
 protected:
  using Method = typename Convolution<Real>::Method;

  void expect_all(const Size& size, const Psf& psf, Method method) {
    SCOPED_TRACE(std::to_string(size.nx) + " x " + std::to_string(size.ny) + ", PSF " + std::to_string(size.psf_nx) +
                 " x " + std::to_string(size.psf_ny) + ", method " + std::to_string(static_cast<int>(method)));
    Convolution<Real> convolution(size.nx, size.ny, psf, method);
    const auto n = static_cast<std::size_t>(size.nx * size.ny);
    const std::vector<double> x = random_values(n, 1), y = random_values(n, 2);
    const std::vector<double> forward = applied(convolution, x, false), back = applied(convolution, y, true);

    // Every output is a sum of at most psf.size() products, each rounded; an FFT adds log2 of its size.
    const double largest = norm(psf.values) * norm(x);
    const double tolerance = 8 * std::numeric_limits<Real>::epsilon();
    const std::vector<double> expected = naive(x, size.nx, size.ny, psf);
    for (std::size_t i = 0; i < n; ++i) EXPECT_NEAR(forward[i], expected[i], tolerance * largest);

    double forward_dot = 0, back_dot = 0;
    for (std::size_t i = 0; i < n; ++i) {
      forward_dot += forward[i] * y[i];
      back_dot += x[i] * back[i];
    }
    EXPECT_NEAR(forward_dot, back_dot,
                tolerance * norm(psf.values) * norm(x) * norm(y) * std::sqrt(static_cast<double>(n)));

    EXPECT_EQ(applied(convolution, x, false), forward) << "a second call gives other bits";
  }
};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(ConvolutionTest, Reals);

TYPED_TEST(ConvolutionTest, DirectAndFftAreTheSumAndItsTranspose) {
  for (const Size& size : kSizes) {
    const Psf psf = lopsided(size.psf_nx, size.psf_ny);
    for (const auto method : {Convolution<TypeParam>::Method::direct, Convolution<TypeParam>::Method::fft})
      this->expect_all(size, psf, method);
  }
}

TYPED_TEST(ConvolutionTest, SeparableIsTheSumAndItsTranspose) {
  for (const Size& size : kSizes) {
    const std::vector<double> row = random_values(static_cast<std::size_t>(size.psf_nx), 3);
    const std::vector<double> column = random_values(static_cast<std::size_t>(size.psf_ny), 4);
    Psf psf{size.psf_nx, size.psf_ny, {}};
    for (const double c : column)
      for (const double r : row) psf.values.push_back(c * r);
    this->expect_all(size, psf, Convolution<TypeParam>::Method::separable);
  }
}

TYPED_TEST(ConvolutionTest, PicksTheCheapestExactMethod) {
  const auto method = [](const Psf& psf) { return Convolution<TypeParam>(30, 30, psf).method(); };
  EXPECT_EQ(method({}), TestFixture::Method::identity);
  EXPECT_EQ(method(gaussian_psf(0.2, 0.08, 13)), TestFixture::Method::separable);
  EXPECT_EQ(method(moffat_psf(0.2, 3, 0.08, 11)), TestFixture::Method::direct);
  EXPECT_EQ(method(moffat_psf(0.2, 3, 0.08, 13)), TestFixture::Method::fft);
}

TYPED_TEST(ConvolutionTest, IdentityCopies) {
  Convolution<TypeParam> convolution(3, 2, Psf{});
  const std::vector<double> x = {1, 2, 3, 4, 5, 6};
  EXPECT_EQ(applied(convolution, x, false), x);
  EXPECT_EQ(applied(convolution, x, true), x);
}

TYPED_TEST(ConvolutionTest, KeepsTheFluxOfWhatIsFarFromTheBorder) {
  const Psf psf = moffat_psf(0.25, 2.5, 0.08, 9);
  Convolution<TypeParam> convolution(31, 29, psf);
  std::vector<double> x(31 * 29, 0.0);
  x[14 * 31 + 15] = 2;
  x[12 * 31 + 17] = 1;
  double flux = 0;
  for (const double v : applied(convolution, x, false)) flux += v;
  EXPECT_NEAR(flux, 3, 100 * std::numeric_limits<TypeParam>::epsilon());
}

TEST(Convolution, RefusesWhatItCannotDo) {
  using Method = Convolution<double>::Method;
  EXPECT_THROW(Convolution<double>(9, 9, Psf{2, 3, std::vector<double>(6, 1.0)}), InvalidInput);
  EXPECT_THROW(Convolution<double>(9, 9, Psf{3, 3, std::vector<double>(8, 1.0)}, Method::direct), InvalidInput);
  EXPECT_THROW(Convolution<double>(9, 9, lopsided(3, 3), Method::separable), InvalidInput);
  EXPECT_THROW(Convolution<double>(9, 9, lopsided(3, 3), Method::identity), InvalidInput);
  EXPECT_THROW(Convolution<double>(9, 9, Psf{}, Method::fft), InvalidInput);
}

}  // namespace
}  // namespace einfield
