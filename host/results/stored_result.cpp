// Reads result.json value by value; a message names the place of a value that a fit would not write.
#include "host/results/stored_result.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "host/fields/ensemble.hpp"
#include "host/fields/frame.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/components.hpp"
#include "host/model/profile_names.hpp"
#include "host/results/result_files.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

std::string name_of(const std::string& block, std::size_t i) {
  return block + "." + std::to_string(i);
}

/// @param config  of the component
template <class Component>
void read_priors(const JsonView& config, Component& c, const ProfileInfo& info) {
  if (!config.has("bounds") && !config.has("prior")) return;
  c.priors.resize(c.values.size());
  for (std::size_t k = 0; k < c.values.size(); ++k) {
    const char* name = info.parameters[k].name;
    if (config.has("bounds") && config.at("bounds").has(name)) {
      const JsonView ends = config.at("bounds").at(name);
      if (ends.size(2) != 2) ends.fail("expected two numbers");
      c.priors[k].lower = ends.at(0).number();
      c.priors[k].upper = ends.at(1).number();
    }
    if (config.has("prior") && config.at("prior").has(name)) {
      c.priors[k].mean = config.at("prior").at(name).at("mean").number();
      c.priors[k].sigma = config.at("prior").at(name).at("sigma").number(above(0));
    }
  }
}

std::array<double, 2> pair(const JsonView& numbers) {
  if (numbers.size(2) != 2) numbers.fail("expected two numbers");
  return {numbers.at(0).number(), numbers.at(1).number()};
}

}  // namespace

StoredResult::StoredResult(const std::string& dir) : dir_(dir), file_(in(dir, "result.json")) {
  EINFIELD_REQUIRE(fs::exists(file_), dir + ": no result.json, expected the directory of a finished fit");
  json_ = read_json(file_);
  root().at("profiles").keys();  // must be an object; otherwise the lens would silently have no components
  const JsonView names = root().at("free");
  for (std::size_t i = 0; i < names.size(3 * kMaxComponents * kMaxProfileParameters); ++i)
    free_.insert(names.at(i).text());
}

bool StoredResult::double_precision() const {
  const std::string precision = root().at("precision").text();
  if (precision != "single" && precision != "double")
    root().at("precision").fail("found " + precision + ", expected single or double");
  return precision == "double";
}

Grid StoredResult::grid() const {
  const JsonView grid = root().at("grid");
  return {grid.at("nx").integer(1, kMaxImageSide),
          grid.at("ny").integer(1, kMaxImageSide),
          grid.at("pixel_scale").number(above(0), "arcsec"),
          grid.at("center_x").number(),
          grid.at("center_y").number(),
          grid.at("supersampling").integer(1, kMaxSupersampling)};
}

std::optional<CelestialWcs> StoredResult::sky() const {
  if (!root().has("wcs")) return std::nullopt;
  const JsonView json = root().at("wcs");
  CelestialWcs wcs;
  if (json.at("type").size(2) != 2 || json.at("cd").size(2) != 2) json.fail("expected two axes");
  for (std::size_t i = 0; i < 2; ++i) {
    wcs.type[i] = json.at("type").at(i).text();
    wcs.cd[i] = pair(json.at("cd").at(i));
  }
  const double determinant = wcs.cd[0][0] * wcs.cd[1][1] - wcs.cd[0][1] * wcs.cd[1][0];
  if (determinant == 0) json.at("cd").fail("singular");
  wcs.pixel_scale = 3600 * std::sqrt(std::abs(determinant));
  wcs.reference_pixel = pair(json.at("reference_pixel"));
  wcs.reference_value = pair(json.at("reference_value"));
  // Earlier versions did not write these.
  if (json.has("frame")) wcs.frame = json.at("frame").text();
  for (const auto& [name, value] :
       {std::pair("equinox", &wcs.equinox), std::pair("pole_lon", &wcs.pole_lon), std::pair("pole_lat", &wcs.pole_lat)})
    if (json.has(name)) *value = json.at(name).number();
  return wcs;
}

bool StoredResult::has(const std::string& block, std::size_t i) const {
  return json_.at("profiles")
      .contains(name_of(block, i));  // also null, which is then an error: it does not end the list
}

JsonView StoredResult::config_of(const std::string& block, std::size_t i) const {
  const JsonView config = root().at("config").at(block);
  if (i >= config.size(kMaxComponents)) config.fail("expected as many components as in \"profiles\"");
  return config.at(i);
}

template <class Component>
void StoredResult::read_component(Component& c, const ProfileInfo& info, const std::string& block,
                                  std::size_t i) const {
  for (std::size_t k = 0; k < info.parameters.size(); ++k) {
    const std::string parameter = name_of(block, i) + "." + info.parameters[k].name;
    const JsonView value = root().at("parameters").at(parameter);
    set_parameter(value, info, c.values, info.parameters[k].name, value.number());
    c.free[k] = free_.count(parameter) > 0;
  }
  check_complete(root().at("parameters"), info, c.values);
  read_priors(config_of(block, i), c, info);
}

std::vector<LensComponent> StoredResult::lens() const {
  std::vector<LensComponent> components;
  for (std::size_t i = 0; has("lens", i); ++i) {
    const JsonView profile = root().at("profiles").at(name_of("lens", i));
    const std::optional<LensKind> kind = lens_kind(profile.text());
    if (!kind) profile.fail("unknown profile " + profile.text());
    components.push_back(new_lens(*kind));
    read_component(components.back(), lens_info(*kind), "lens", i);
  }
  return components;
}

std::vector<LightComponent> StoredResult::lights(const std::string& block) const {
  std::vector<LightComponent> components;
  for (std::size_t i = 0; has(block, i); ++i) {
    const JsonView profile = root().at("profiles").at(name_of(block, i));
    const std::optional<LightKind> kind = light_kind(profile.text());
    if (!kind) profile.fail("unknown profile " + profile.text());
    LightComponent c = new_light(*kind);
    read_component(c, light_info(*kind), block, i);
    const JsonView config = config_of(block, i), fit = config.at("fit");
    if (*kind == LightKind::sersic_ellipse && config.has("radius"))
      c.radius = config.at("radius").text() == "major_axis" ? RadiusKind::major_axis : RadiusKind::product_average;
    std::set<std::string> names;
    for (std::size_t k = 0; k < fit.size(kMaxProfileParameters + 1); ++k) names.insert(fit.at(k).text());
    c.pixels_free = names.count("pixels") > 0;
    c.weights_free = names.count("network") > 0;
    components.push_back(std::move(c));
  }
  return components;
}

std::vector<StoredNetwork> StoredResult::read_networks(const JsonView& description, const std::string& name) const {
  const int members = description.at("members").integer(1, kMaxEnsemble);
  const JsonView hidden = description.at("hidden");
  NetworkShape shape;
  for (std::size_t i = 0; i < hidden.size(static_cast<std::size_t>(kMaxHiddenLayers)); ++i)
    shape.hidden.push_back(hidden.at(i).integer(1, kMaxWidth));
  shape.input_scale = description.at("input_scale").number(above(0));
  if (description.has("fourier_features"))
    shape.fourier_features = description.at("fourier_features").integer(0, kMaxWidth / 2);
  std::vector<StoredNetwork> networks;
  for (int k = 0; k < members; ++k) {
    const std::string file = in(dir_, network_file(static_cast<std::size_t>(k), name));
    networks.push_back(read_network(file));
    EINFIELD_REQUIRE(networks.back().shape == shape, file + ": the network has another shape than the one in " + file_);
  }
  return networks;
}

std::vector<StoredNetwork> StoredResult::networks() const {
  // null means that there is no network; without the entry, the file is damaged.
  if (!json_.contains("network")) root().at("network");
  return root().has("network") ? read_networks(root().at("network"), "network") : std::vector<StoredNetwork>{};
}

std::vector<double> StoredResult::offsets() const {
  std::vector<double> offsets;
  if (!root().has("network")) return offsets;
  const std::size_t members = static_cast<std::size_t>(root().at("network").at("members").integer(1, kMaxEnsemble));
  if (members == 1) return offsets;
  const JsonView numbers = root().at("network").at("potential_offsets");
  if (numbers.size(kMaxEnsemble) != members) numbers.fail("expected one number per member");
  for (std::size_t k = 0; k < members; ++k) offsets.push_back(numbers.at(k).number());
  return offsets;
}

std::vector<StoredNetwork> StoredResult::light_networks(const std::string& block) const {
  return read_networks(root().at("light_network"), block + "_network");
}

StoredLens read_lens(const std::string& dir) {
  const StoredResult result(dir);
  std::vector<double> offsets = result.offsets();  // checked before the networks' files are opened
  return {result.lens(), result.networks(), std::move(offsets), result.double_precision(), result.grid(), result.sky()};
}

StoredLens stored_lens(const Assessment& fit) {
  StoredLens lens;
  lens.smooth = fit.model.lens;
  for (const std::vector<double>& weights : fit.weights)
    if (fit.model.network) lens.networks.push_back({*fit.model.network, weights});
  if (fit.members() > 1) lens.offsets = fit.network.offsets;
  lens.double_precision = fit.double_precision;
  lens.grid = fit.loaded.problem.observation.grid;
  lens.sky = fit.loaded.wcs;
  return lens;
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

std::vector<double> network_deflection(const StoredLens& lens, const std::vector<double>& theta, ThreadPool& pool) {
  std::vector<std::vector<double>> members;
  for (const StoredNetwork& network : lens.networks)
    members.push_back(network_fields<double>(network.shape, network.parameters, theta, pool, false).deflection);
  return members.empty() ? std::vector<double>(theta.size(), 0.0) : mean_of(members);
}

CriticalCurves critical_curves_of(const StoredLens& lens, const std::vector<std::uint8_t>& used, ThreadPool& pool) {
  constexpr int kNodes = 200;  // on the longer side
  Deflection network;
  if (!lens.networks.empty())
    network = [&lens, &pool](const std::vector<double>& theta) { return network_deflection(lens, theta, pool); };
  const Grid& grid = lens.grid;
  const Frame frame = frame_of(used, grid.nx, grid.ny);
  const double spacing = std::max(frame.nx, frame.ny) * grid.pixel_scale / kNodes;
  const auto nodes = [&](int pixels) {
    return static_cast<int>(std::floor(pixels * grid.pixel_scale / spacing + 1e-6)) + 1;
  };
  return critical_curves({nodes(frame.nx), nodes(frame.ny), spacing,
                          grid.center_x + (frame.x + 0.5 * (frame.nx - grid.nx)) * grid.pixel_scale,
                          grid.center_y + (frame.y + 0.5 * (frame.ny - grid.ny)) * grid.pixel_scale},
                         lens.smooth, network);
}

const std::vector<double>& StoredHistory::column(const std::string& name) const {
  const auto found = std::find(names.begin(), names.end(), name);
  EINFIELD_REQUIRE(found != names.end(), file + ": column " + name + " is missing or incomplete");
  return columns[static_cast<std::size_t>(found - names.begin())];
}

StoredHistory read_history(const std::string& dir) {
  StoredHistory history;
  history.file = in(dir, "history.csv");
  std::ifstream file(history.file);
  std::string line, cell;
  EINFIELD_REQUIRE(std::getline(file, line), history.file + ": cannot be read, expected the history of a fit");
  for (std::istringstream cells(line); std::getline(cells, cell, ',');) history.names.push_back(cell);
  history.columns.resize(history.names.size());
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    for (std::vector<double>& column : history.columns)
      if (std::getline(cells, cell, ','))
        column.push_back(parse_number<double>(cell).value_or(std::numeric_limits<double>::quiet_NaN()));
  }
  for (std::size_t k = 0; k < history.columns.size(); ++k)
    EINFIELD_REQUIRE(!history.columns[k].empty() && history.columns[k].size() == history.columns[0].size(),
                     history.file + ": column " + history.names[k] + " is missing or incomplete");
  return history;
}

}  // namespace einfield
