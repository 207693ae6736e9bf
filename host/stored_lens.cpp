// result.json and network.safetensors back into a model.
#include "host/stored_lens.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "host/ensemble.hpp"
#include "host/json_view.hpp"
#include "host/names.hpp"
#include "host/results.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// What result.json says of the lens. @throws InvalidInput with file and member
/// @param shape    becomes the layers of the network, if there is one
StoredLens interpret(const json& root, const std::string& file, std::optional<NetworkShape>& shape) {
  const JsonView result(root, file);
  StoredLens stored;
  const JsonView precision = result.at("precision");
  stored.double_precision = precision.text() == "double";
  if (!stored.double_precision && precision.text() != "single")
    precision.fail("found " + precision.text() + ", expected single or double");
  stored.center_x = result.at("grid").at("center_x").number();
  stored.center_y = result.at("grid").at("center_y").number();
  const JsonView profiles = result.at("profiles"), parameters = result.at("parameters");
  const std::vector<std::string> components = profiles.keys();
  for (std::size_t i = 0;; ++i) {
    const std::string name = "lens." + std::to_string(i);
    if (std::find(components.begin(), components.end(), name) == components.end()) break;
    const std::string profile = profiles.at(name).text();
    const std::optional<LensKind> kind = lens_kind(profile);
    if (!kind) profiles.at(name).fail("found " + profile + ", which this version does not know");
    LensComponent component;
    component.kind = *kind;
    for (const ParameterInfo& p : lens_info(component.kind).parameters)
      component.values.push_back(parameters.at(name + "." + p.name).number());
    component.free.assign(component.values.size(), false);
    stored.smooth.push_back(std::move(component));
  }
  Model model;
  model.lens = stored.smooth;
  try {
    model.validate();
  } catch (const InvalidInput& error) {
    result.fail(error.what());
  }
  if (root.contains("network") && root["network"].is_null()) return stored;
  const JsonView network = result.at("network"), hidden = network.at("hidden");
  shape = NetworkShape{};
  for (std::size_t i = 0; i < hidden.size(kMaxHiddenLayers); ++i)
    shape->hidden.push_back(hidden.at(i).integer(1, kMaxWidth));
  shape->input_scale = network.at("input_scale").number();
  shape->fourier_features =
      network.has("fourier_features") ? network.at("fourier_features").integer(0, kMaxWidth / 2) : 0;
  stored.networks.resize(static_cast<std::size_t>(network.at("members").integer(1, kMaxEnsemble)));
  if (stored.networks.size() == 1) return stored;
  const JsonView offsets = network.at("potential_offsets");
  if (offsets.size(kMaxEnsemble) != stored.networks.size())
    offsets.fail("found " + std::to_string(offsets.size(kMaxEnsemble)) + " numbers, expected one per member");
  for (std::size_t k = 0; k < stored.networks.size(); ++k) stored.offsets.push_back(offsets.at(k).number());
  return stored;
}

}  // namespace

StoredLens read_lens(const std::string& dir) {
  const std::string path = (fs::path(dir) / "result.json").string();
  EINFIELD_REQUIRE(fs::exists(path), dir + ": no result.json, expected the directory of a finished fit");
  std::optional<NetworkShape> shape;
  StoredLens stored = interpret(read_json(path), path, shape);
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
