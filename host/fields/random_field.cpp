#include "host/fields/random_field.hpp"

#include <algorithm>
#include <cmath>

#include "einfield/network.hpp"

namespace einfield {
namespace {

constexpr int kLargestWave = 32;
constexpr std::size_t kBatch = 256;
}  // namespace

RandomField::RandomField(const RandomFieldConfig& config, double side) {
  const Philox philox{config.seed};
  double total = 0;
  for (int ny = 0; ny <= kLargestWave; ++ny)
    for (int nx = -kLargestWave; nx <= kLargestWave; ++nx) {
      const int square = nx * nx + ny * ny;
      const bool twin = ny == 0 && nx <= 0;  // of (−nx, 0), or no wave
      if (twin || square > kLargestWave * kLargestWave) continue;
      const double power = std::pow(static_cast<double>(square), -0.5 * config.slope);
      total += power;
      // The counter is the place on the lattice, so the field does not depend on the order of the loops.
      const auto counter = static_cast<std::uint64_t>(ny * (2 * kLargestWave + 1) + nx + kLargestWave);
      const double unit = 2 * kPi / side;
      waves_.push_back({unit * nx, unit * ny,
                        std::sqrt(-2 * std::log(philox.uniform(counter, random_stream::kAmplitudes)) * power),
                        2 * kPi * philox.uniform(counter, random_stream::kPhases)});
    }
  // ⟨−2 ln u⟩ = 2.
  for (Wave& wave : waves_) wave.amplitude *= std::sqrt(config.variance / total);
}

LensFields RandomField::fields(const std::vector<double>& theta, ThreadPool& pool) const {
  const std::size_t n = theta.size() / 2;
  LensFields fields = zero_fields(n);
  pool.parallel_for(static_cast<int>((n + kBatch - 1) / kBatch), [&](int batch, int) {
    const std::size_t begin = static_cast<std::size_t>(batch) * kBatch;
    for (std::size_t i = begin; i < std::min(begin + kBatch, n); ++i)
      for (const Wave& w : waves_) {
        const double phase = w.kx * theta[i] + w.ky * theta[n + i] + w.phase;
        const double c = w.amplitude * std::cos(phase), s = w.amplitude * std::sin(phase);
        fields.potential[i] += c;
        fields.deflection[i] -= w.kx * s;
        fields.deflection[n + i] -= w.ky * s;
        fields.convergence[i] -= 0.5 * (w.kx * w.kx + w.ky * w.ky) * c;
      }
  });
  return fields;
}

}  // namespace einfield
