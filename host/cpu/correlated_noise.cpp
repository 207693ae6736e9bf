#include "host/cpu/correlated_noise.hpp"

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/random.hpp"
#include "host/cpu/plane_fourier.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

/// Least eigenvalue that counts as zero, as a fraction of the largest: room for a kernel in single precision.
constexpr double kRounding = 1e-6;

}  // namespace

std::vector<double> correlated_normals(const NoiseCorrelation& kernel, int nx, int ny, std::uint64_t seed,
                                       std::uint64_t stream) {
  PlaneFourier<double> torus(fast_size(nx + kernel.nx), fast_size(ny + kernel.ny));
  using Spectrum = PlaneFourier<double>::Spectrum;
  const int width = torus.width, height = torus.height;
  Spectrum eigenvalues(torus.size()), noise(torus.size());
  for (int v = 0; v < kernel.ny; ++v)
    for (int w = 0; w < kernel.nx; ++w) {
      const int y = (v - kernel.ny / 2 + height) % height, x = (w - kernel.nx / 2 + width) % width;
      eigenvalues[static_cast<std::size_t>(y * width + x)] = kernel.values[static_cast<std::size_t>(v * kernel.nx + w)];
    }
  torus.transform(eigenvalues, false);
  double least = 0, largest = 0;
  for (const auto& e : eigenvalues) {
    least = std::min(least, e.real());
    largest = std::max(largest, e.real());
  }
  EINFIELD_REQUIRE(least >= -kRounding * largest,
                   "not a correlation, found the eigenvalue " + rounded(least) + ", expected none below 0");

  const Philox philox{seed};
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = philox.normal(i, stream);
  torus.transform(noise, false);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] *= std::sqrt(std::max(eigenvalues[i].real(), 0.0));
  torus.transform(noise, true);
  std::vector<double> result;
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x)
      result.push_back(noise[static_cast<std::size_t>(y * width + x)].real() / static_cast<double>(noise.size()));
  return result;
}

}  // namespace einfield
