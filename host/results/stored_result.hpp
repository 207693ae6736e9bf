// result.json of a finished fit, read back: the one reader for everything that goes on from a directory of results.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "einfield/grid.hpp"
#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/files/json_view.hpp"
#include "host/files/safetensors.hpp"

namespace einfield {

/// What result.json says of a fit; every member function throws InvalidInput "DIR/result.json: PLACE: …" where the file
/// says something else than a fit writes.
class StoredResult {
 public:
  /// @throws InvalidInput when the directory holds no complete results
  explicit StoredResult(const std::string& dir);

  JsonView root() const { return {json_, file_}; }
  const std::string& dir() const { return dir_; }

  bool double_precision() const;
  Grid grid() const;
  /// Where the image lies on the sky, when that is known.
  std::optional<CelestialWcs> sky() const;

  /// Components with their parameters, priors and what of them is free; a component's pixels and weights are in files
  /// of their own.
  std::vector<LensComponent> lens() const;
  /// @param block  "source" or "lens_light"
  std::vector<LightComponent> lights(const std::string& block) const;

  /// The networks of the potential: none, one, or the members of an ensemble.
  std::vector<StoredNetwork> networks() const;
  /// What is taken off their potentials; empty with fewer than two.
  std::vector<double> offsets() const;
  /// The networks of light. @param block  of the component that they are of
  std::vector<StoredNetwork> light_networks(const std::string& block) const;

 private:
  bool has(const std::string& block, std::size_t i) const;
  JsonView config_of(const std::string& block, std::size_t i) const;
  template <class Component>
  void read_component(Component& component, const ProfileInfo& info, const std::string& block, std::size_t i) const;
  std::vector<StoredNetwork> read_networks(const JsonView& description, const std::string& name) const;

  std::string dir_, file_;
  nlohmann::json json_;
  std::set<std::string> free_;
};

/// A member "wcs" of result.json: all of the WCS, and the position angle of the image's y axis for those who need no
/// more.
nlohmann::ordered_json wcs_json(const CelestialWcs& wcs);

}  // namespace einfield
