#include "host/config/sky_correlation.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "einfield/error.hpp"
#include "host/cpu/correlated_noise.hpp"
#include "host/model/median.hpp"

namespace einfield {
namespace {

constexpr int kNear = 2;      ///< half the side of the means that show light [pixels]
constexpr int kLocal = 10;    ///< half the side of the local mean that is subtracted [pixels]
constexpr double kLight = 3;  ///< σ of a mean
constexpr double kNoise = 3;  ///< uncertainties of a coefficient, below which it is 0
constexpr int kFewestSkyPixels = 500;

/// Means over squares of 2 reach + 1 pixels, of the pixels that count; NaN where none does.
std::vector<double> local_means(const std::vector<double>& values, const std::vector<std::uint8_t>& counts, int nx,
                                int ny, int reach) {
  // Sums over the rectangle from the corner to a pixel: any square is four of them.
  const auto width = static_cast<std::size_t>(nx) + 1;
  std::vector<double> sums(width * (static_cast<std::size_t>(ny) + 1), 0.0), numbers = sums;
  const auto at = [width](int x, int y) { return static_cast<std::size_t>(y) * width + static_cast<std::size_t>(x); };
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x) {
      const auto i = static_cast<std::size_t>(y * nx + x);
      for (std::vector<double>* s : {&sums, &numbers})
        (*s)[at(x + 1, y + 1)] = (*s)[at(x, y + 1)] + (*s)[at(x + 1, y)] - (*s)[at(x, y)] +
                                 (counts[i] == 0 ? 0
                                  : s == &sums   ? values[i]
                                                 : 1);
    }
  std::vector<double> means(values.size());
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x) {
      const int left = std::max(x - reach, 0), right = std::min(x + reach + 1, nx), low = std::max(y - reach, 0),
                high = std::min(y + reach + 1, ny);
      const auto inside = [&](const std::vector<double>& s) {
        return s[at(right, high)] - s[at(left, high)] - s[at(right, low)] + s[at(left, low)];
      };
      means[static_cast<std::size_t>(y * nx + x)] = inside(sums) / inside(numbers);
    }
  return means;
}

/// Marks the usable pixels around which there is no light.
std::vector<std::uint8_t> blank_sky(const std::vector<double>& z, const std::vector<std::uint8_t>& usable, int nx,
                                    int ny) {
  const std::vector<double> means = local_means(z, usable, nx, ny, kNear);
  std::vector<double> values, deviations;
  for (std::size_t i = 0; i < z.size(); ++i)
    if (usable[i]) values.push_back(means[i]);
  const double middle = upper_median(values);
  for (const double v : values)
    if (v <= middle) deviations.push_back(middle - v);  // light of objects lies above
  const double limit = kLight * kMedianToSigma * upper_median(deviations);
  std::vector<std::uint8_t> blank(z.size(), 0);
  for (std::size_t i = 0; i < z.size(); ++i) blank[i] = usable[i] && std::abs(means[i] - middle) <= limit;
  return blank;
}

/// Draws a kernel towards 1 in the middle and 0 elsewhere until no frequency has negative power.
void make_positive(NoiseCorrelation& kernel) {
  constexpr int kSide = 64;  // finer than the power of a kernel of 7 × 7 changes
  const std::vector<double> power = noise_power(kernel, kSide, kSide);
  const double least = std::min(*std::min_element(power.begin(), power.end()), 0.0);
  for (double& v : kernel.values) v /= 1 - least;
  kernel.values[kernel.values.size() / 2] = 1;
}

/// The kernel without a border of zeros: the fit takes time by the number of its rows.
NoiseCorrelation trimmed(NoiseCorrelation kernel) {
  const auto is_border_of_zeros = [](const NoiseCorrelation& k) {
    const int reach = k.nx / 2;
    for (int i = -reach; i <= reach; ++i)
      if (k.at(i, -reach) != 0 || k.at(i, reach) != 0 || k.at(-reach, i) != 0 || k.at(reach, i) != 0) return false;
    return true;
  };
  while (kernel.nx > 1 && is_border_of_zeros(kernel)) {
    const int reach = kernel.nx / 2 - 1;
    NoiseCorrelation inner{kernel.nx - 2, kernel.ny - 2, {}};
    for (int y = -reach; y <= reach; ++y)
      for (int x = -reach; x <= reach; ++x) inner.values.push_back(kernel.at(x, y));
    kernel = std::move(inner);
  }
  return kernel;
}

}  // namespace

SkyCorrelation sky_correlation(const Observation& o, const std::vector<std::uint8_t>& usable) {
  const int nx = o.grid.nx, ny = o.grid.ny;
  std::vector<double> z(o.image.size(), 0.0);
  for (std::size_t i = 0; i < z.size(); ++i)
    if (usable[i]) z[i] = o.image[i] / o.noise[i];
  const std::vector<std::uint8_t> blank = blank_sky(z, usable, nx, ny);
  SkyCorrelation sky;
  sky.sky_pixels = static_cast<int>(std::count(blank.begin(), blank.end(), 1));
  EINFIELD_REQUIRE(sky.sky_pixels >= kFewestSkyPixels,
                   "too little blank sky to measure the correlation of the noise, found " +
                       std::to_string(sky.sky_pixels) + " pixels, expected at least " +
                       std::to_string(kFewestSkyPixels) + ", or a kernel as noise_correlation");
  const std::vector<double> level = local_means(z, blank, nx, ny, kLocal);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = blank[i] ? z[i] - level[i] : 0.0;

  constexpr int kReach = kCorrelationReach, kSide = 2 * kReach + 1;
  sky.kernel = {kSide, kSide, std::vector<double>(static_cast<std::size_t>(kSide * kSide), 0.0)};
  double variance = 0;
  for (const double v : z) variance += v * v / sky.sky_pixels;
  for (int dy = 0; dy <= kReach; ++dy)
    for (int dx = dy == 0 ? 0 : -kReach; dx <= kReach; ++dx) {
      double sum = 0, pairs = 0;
      for (int y = 0; y + dy < ny; ++y)
        for (int x = std::max(0, -dx); x < std::min(nx, nx - dx); ++x) {
          const auto a = static_cast<std::size_t>(y * nx + x), b = static_cast<std::size_t>((y + dy) * nx + x + dx);
          if (!blank[a] || !blank[b]) continue;
          sum += z[a] * z[b];
          ++pairs;
        }
      const double value = pairs > 0 ? sum / pairs / variance : 0;
      const double kept = std::abs(value) > kNoise / std::sqrt(std::max(pairs, 1.0)) ? std::clamp(value, -1.0, 1.0) : 0;
      for (const int sign : {1, -1})
        sky.kernel.values[static_cast<std::size_t>((kReach + sign * dy) * kSide + kReach + sign * dx)] = kept;
    }
  make_positive(sky.kernel);
  sky.kernel = trimmed(sky.kernel);
  sky.scatter = std::sqrt(variance);
  return sky;
}

}  // namespace einfield
