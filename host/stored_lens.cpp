// result.json and network.safetensors back into a model.
#include "host/stored_lens.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "host/ensemble.hpp"
#include "host/names.hpp"
#include "host/results.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// What result.json says of the lens; nlohmann's exceptions say what is missing.
/// @param shape    becomes the layers of the network, if there is one
StoredLens interpret(const json& result, std::optional<NetworkShape>& shape) {
  StoredLens stored;
  const std::string precision = result.at("precision").get<std::string>();
  EINFIELD_REQUIRE(precision == "single" || precision == "double",
                   "precision is " + precision + ", expected single or double");
  stored.double_precision = precision == "double";
  stored.center_x = result.at("grid").at("center_x").get<double>();
  stored.center_y = result.at("grid").at("center_y").get<double>();
  const json &profiles = result.at("profiles"), &parameters = result.at("parameters");
  EINFIELD_REQUIRE(profiles.is_object(), "profiles is not an object");
  for (std::size_t i = 0;; ++i) {
    const std::string name = "lens." + std::to_string(i);
    if (!profiles.contains(name)) break;
    const std::string profile = profiles.at(name).get<std::string>();
    LensComponent component;
    const std::optional<LensKind> kind = lens_kind(profile);
    EINFIELD_REQUIRE(kind, name + " is a " + profile + ", which this version does not know");
    component.kind = *kind;
    for (const ParameterInfo& p : lens_info(component.kind).parameters)
      component.values.push_back(parameters.at(name + "." + p.name).get<double>());
    component.free.assign(component.values.size(), false);
    stored.smooth.push_back(std::move(component));
  }
  Model model;
  model.lens = stored.smooth;
  model.validate();
  const json& network = result.at("network");
  if (network.is_null()) return stored;
  shape = NetworkShape{network.at("hidden").get<std::vector<int>>(), network.at("input_scale").get<double>(),
                       network.value("fourier_features", 0)};
  const auto members = network.at("members").get<std::int64_t>();
  EINFIELD_REQUIRE(members >= 1 && members <= kMaxEnsemble,
                   "network.members is " + std::to_string(members) + ", expected 1 to " + std::to_string(kMaxEnsemble));
  stored.networks.resize(static_cast<std::size_t>(members));
  if (stored.networks.size() == 1) return stored;
  stored.offsets = network.at("potential_offsets").get<std::vector<double>>();
  EINFIELD_REQUIRE(
      stored.offsets.size() == stored.networks.size(),
      "network.potential_offsets has " + std::to_string(stored.offsets.size()) + " numbers, expected one per member");
  return stored;
}

}  // namespace

StoredLens read_lens(const std::string& dir) {
  const std::string path = (fs::path(dir) / "result.json").string();
  std::ifstream file(path);
  EINFIELD_REQUIRE(file, dir + ": no result.json, expected the directory of a finished fit");
  const json result = json::parse(file, nullptr, false);
  EINFIELD_REQUIRE(result.is_object(), path + ": damaged, not a JSON object");
  StoredLens stored;
  std::optional<NetworkShape> shape;
  try {
    stored = interpret(result, shape);
  } catch (const json::exception& error) {
    throw InvalidInput(path + ": " + error.what());
  } catch (const InvalidInput& error) {
    throw InvalidInput(path + ": " + error.what());
  }
  if (!shape) return stored;
  for (std::size_t k = 0; k < stored.networks.size(); ++k) {
    const std::string network = (fs::path(dir) / network_file(k)).string();
    stored.networks[k] = read_network(network);
    EINFIELD_REQUIRE(stored.networks[k].shape == *shape, network + ": another network than that of " + path);
  }
  return stored;
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
