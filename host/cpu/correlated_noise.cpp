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

std::vector<double> noise_power(const NoiseCorrelation& kernel, int width, int height) {
  PlaneFourier<double> torus(width, height);
  PlaneFourier<double>::Spectrum values(torus.size());
  for (int v = 0; v < kernel.ny; ++v)
    for (int w = 0; w < kernel.nx; ++w) {
      const int y = (v - kernel.ny / 2 + height) % height, x = (w - kernel.nx / 2 + width) % width;
      values[static_cast<std::size_t>(y * width + x)] = kernel.values[static_cast<std::size_t>(v * kernel.nx + w)];
    }
  torus.transform(values, false);
  std::vector<double> power;
  for (const auto& value : values) power.push_back(value.real());
  return power;
}

std::vector<double> correlated_normals(const NoiseCorrelation& kernel, int nx, int ny, std::uint64_t seed,
                                       std::uint64_t stream) {
  PlaneFourier<double> torus(fast_size(nx + kernel.nx), fast_size(ny + kernel.ny));
  const int width = torus.width;
  const std::vector<double> power = noise_power(kernel, width, torus.height);
  const double least = *std::min_element(power.begin(), power.end()),
               largest = *std::max_element(power.begin(), power.end());
  EINFIELD_REQUIRE(least >= -kRounding * largest,
                   "not a correlation, found the eigenvalue " + rounded(least) + ", expected none below 0");

  PlaneFourier<double>::Spectrum noise(torus.size());
  const Philox philox{seed};
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = philox.normal(i, stream);
  torus.transform(noise, false);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] *= std::sqrt(std::max(power[i], 0.0));
  torus.transform(noise, true);
  std::vector<double> result;
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x)
      result.push_back(noise[static_cast<std::size_t>(y * width + x)].real() / static_cast<double>(noise.size()));
  return result;
}

}  // namespace einfield
