#include "host/fields/ensemble.hpp"

#include <cmath>
#include <limits>
#include <utility>

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

namespace {

/// One map of every member.
std::vector<std::vector<double>> maps_of(const std::vector<LensFields>& members, std::vector<double> LensFields::*map) {
  std::vector<std::vector<double>> maps;
  for (const LensFields& member : members) maps.push_back(member.*map);
  return maps;
}

}  // namespace

LensFields mean_of(const std::vector<LensFields>& members) {
  return {mean_of(maps_of(members, &LensFields::potential)), mean_of(maps_of(members, &LensFields::deflection)),
          mean_of(maps_of(members, &LensFields::convergence))};
}

double weighted_mean(const std::vector<double>& map, const std::vector<double>& weights) {
  double sum = 0, total = 0;
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (weights[i] == 0) continue;  // where the map may be anything
    sum += weights[i] * map[i];
    total += weights[i];
  }
  return sum / total;
}

EnsembleFields ensemble_fields(const std::vector<LensFields>& members, std::vector<double> weights) {
  if (members.size() == 1) return {members.front(), {}, {}, {}};
  std::vector<LensFields> centered = members;
  std::vector<double> offsets;
  for (LensFields& member : centered) {
    offsets.push_back(weighted_mean(member.potential, weights));
    for (double& v : member.potential) v -= offsets.back();
  }
  return {mean_of(centered),
          {deviation_of(maps_of(centered, &LensFields::potential)),
           deviation_of(maps_of(centered, &LensFields::deflection)),
           deviation_of(maps_of(centered, &LensFields::convergence))},
          std::move(weights),
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
  const auto n = static_cast<double>(pixels.size());
  return {one / n, two / n};
}

}  // namespace einfield
