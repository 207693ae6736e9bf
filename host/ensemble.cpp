#include "host/ensemble.hpp"

#include <cmath>
#include <limits>
#include <utility>

#include "host/metrics.hpp"

namespace einfield {

std::vector<double> mean_of(const std::vector<std::vector<double>>& members) {
  std::vector<double> mean(members.front().size(), 0.0);
  for (const std::vector<double>& member : members)
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += member[i];
  for (double& v : mean) v /= static_cast<double>(members.size());
  return mean;
}

std::vector<double> deviation_of(const std::vector<std::vector<double>>& members) {
  const std::vector<double> mean = mean_of(members);
  std::vector<double> deviation(mean.size(), 0.0);
  for (const std::vector<double>& member : members)
    for (std::size_t i = 0; i < mean.size(); ++i) deviation[i] += (member[i] - mean[i]) * (member[i] - mean[i]);
  for (double& v : deviation) v = std::sqrt(v / static_cast<double>(members.size() - 1));
  return deviation;
}

EnsembleFields ensemble_fields(const std::vector<LensFields>& members, const Observation& observation) {
  if (members.size() == 1) return {members.front(), {}, {}};
  const std::vector<std::size_t> used = region(observation, nullptr);
  std::vector<std::vector<double>> potential, deflection, convergence;
  std::vector<double> offsets;
  for (const LensFields& member : members) {
    double mean = 0;
    for (const std::size_t i : used) mean += member.potential[i] / static_cast<double>(used.size());
    offsets.push_back(mean);
    for (double& v : potential.emplace_back(member.potential)) v -= mean;
    deflection.push_back(member.deflection);
    convergence.push_back(member.convergence);
  }
  return {{mean_of(potential), mean_of(deflection), mean_of(convergence)},
          {deviation_of(potential), deviation_of(deflection), deviation_of(convergence)},
          std::move(offsets)};
}

Coverage coverage(const std::vector<double>& mean, const std::vector<double>& deviation,
                  const std::vector<double>& truth, const std::vector<std::size_t>& pixels) {
  if (pixels.empty()) return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  double one = 0, two = 0;
  for (const std::size_t i : pixels) {
    const double error = std::abs(mean[i] - truth[i]);
    one += error <= deviation[i];
    two += error <= 2 * deviation[i];
  }
  const double n = static_cast<double>(pixels.size());
  return {one / n, two / n};
}

}  // namespace einfield
