// A finished fit, read back from its directory: result.json, history.csv, and the fields of the lens at any positions.
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
#include "host/cpu/thread_pool.hpp"
#include "host/fields/critical_curves.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/json_view.hpp"
#include "host/files/safetensors.hpp"
#include "host/results/assess.hpp"

namespace einfield {

/// The content of result.json. Every member function throws InvalidInput "DIR/result.json: PLACE: …" where the file has
/// something that a fit does not write.
class StoredResult {
 public:
  /// @throws InvalidInput when the directory holds no complete results
  explicit StoredResult(const std::string& dir);

  JsonView root() const { return {json_, file_}; }
  const std::string& dir() const { return dir_; }

  bool double_precision() const;
  Grid grid() const;
  /// The WCS of the image, when it is known.
  std::optional<CelestialWcs> sky() const;

  /// Components with parameters, priors and flags of the free parameters. Pixels and weights are in other files.
  std::vector<LensComponent> lens() const;
  /// @param block  "source" or "lens_light"
  std::vector<LightComponent> lights(const std::string& block) const;

  /// The networks of the potential: none, one, or the members of an ensemble.
  std::vector<StoredNetwork> networks() const;
  /// Constants to subtract from their potentials [arcsec²]; empty with fewer than two networks.
  std::vector<double> offsets() const;
  /// The networks of a NETWORK component. @param block  "source" or "lens_light", where the component is
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

/// The lens of a fit: the smooth model and the networks.
struct StoredLens {
  std::vector<LensComponent> smooth;
  std::vector<StoredNetwork> networks;  ///< none, one, or the members of an ensemble
  std::vector<double> offsets;          ///< subtracted from their potentials [arcsec²]; empty with fewer than two
  bool double_precision = false;        ///< of the fit, and of evaluate()
  Grid grid;                            ///< of the image
  std::optional<CelestialWcs> sky;      ///< of the image
};

/// @throws InvalidInput naming the file when the directory holds no complete results
StoredLens read_lens(const std::string& dir);
/// What read_lens() returns after write_results().
StoredLens stored_lens(const Assessment& fit);

/// ψ, α, κ of a stored lens. With an ensemble, those of the network are means over its members.
struct StoredFields {
  LensFields network, smooth;
};
/// @param theta    2 × n, all x, then all y [arcsec]
/// @param threads  0 = as many as the process may use
StoredFields evaluate(const StoredLens& lens, const std::vector<double>& theta, int threads = 0);

/// Deflection by the networks alone, the mean over the members. It is always in double, for callers that take
/// differences of it.
/// @param theta  2 × n, all x, then all y [arcsec]
/// @return       2 × n, all x, then all y [arcsec]; zeros without a network
std::vector<double> network_deflection(const StoredLens& lens, const std::vector<double>& theta, ThreadPool& pool);

/// The critical curves of a lens around the pixels of its image that are used.
/// @param used  (ny, nx)
CriticalCurves critical_curves_of(const StoredLens& lens, const std::vector<std::uint8_t>& used, ThreadPool& pool);

/// history.csv: its columns by name, all of one length. Text that is no number is NaN.
struct StoredHistory {
  std::string file;  ///< its path, for messages
  std::vector<std::string> names;
  std::vector<std::vector<double>> columns;

  /// @throws InvalidInput when there is no column of this name
  const std::vector<double>& column(const std::string& name) const;
};

/// @throws InvalidInput when the file is missing, has no rows or lacks values
StoredHistory read_history(const std::string& dir);

}  // namespace einfield
