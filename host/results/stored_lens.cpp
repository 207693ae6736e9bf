// The fields of a lens that has been read back.
#include "host/results/stored_lens.hpp"

#include <cstddef>
#include <utility>

#include "host/fields/ensemble.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {

StoredLens read_lens(const std::string& dir) {
  const StoredResult result(dir);
  std::vector<double> offsets = result.offsets();  // before the files of the members that it must have
  return {result.lens(), result.networks(), std::move(offsets), result.double_precision(), result.grid(), result.sky()};
}

StoredFields evaluate(const StoredLens& lens, const std::vector<double>& theta, int threads) {
  ThreadPool pool(threads);
  StoredFields fields{zero_fields(theta.size() / 2), smooth_fields(lens.smooth, theta, pool)};
  std::vector<LensFields> members;
  for (std::size_t k = 0; k < lens.networks.size(); ++k) {
    const auto& [shape, parameters] = lens.networks[k];
    LensFields member = lens.double_precision ? network_fields<double>(shape, parameters, theta, pool)
                                              : network_fields<float>(shape, parameters, theta, pool);
    if (!lens.offsets.empty())
      for (double& v : member.potential) v -= lens.offsets[k];
    members.push_back(std::move(member));
  }
  if (!members.empty()) fields.network = mean_of(members);
  return fields;
}

std::vector<double> network_deflection(const StoredLens& lens, const std::vector<double>& theta, int threads) {
  ThreadPool pool(threads);
  std::vector<std::vector<double>> members;
  for (const StoredNetwork& network : lens.networks)
    members.push_back(network_fields<double>(network.shape, network.parameters, theta, pool, false).deflection);
  return members.empty() ? std::vector<double>(theta.size(), 0.0) : mean_of(members);
}

}  // namespace einfield
