// A lens as it passes between einfield and other packages' files: what a fit hands over (host/exchange/coolest.hpp,
// host/exchange/lenstronomy.hpp write it), what their readers fill, and the configuration that is made of it.
#pragma once

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/json_view.hpp"
#include "host/files/safetensors.hpp"
#include "host/model/components.hpp"

namespace einfield {

struct ExchangedLens {
  Model model;                      ///< its `network` and the weights of NETWORK components are unused: see below
  Observation observation;          ///< without image and noise: a lens that is yet to be simulated
  std::string unit;                 ///< of the image
  std::optional<CelestialWcs> sky;  ///< of the image
  double psf_fwhm = 0;              ///< > 0: a Gaussian in place of observation.psf [arcsec]
  double noise = 0;                 ///< without an image: 1 σ that it is to be simulated with

  /// The network of the potential, one per member of an ensemble, and what is taken off their potentials; none without
  /// one.
  std::vector<StoredNetwork> networks;
  std::vector<double> offsets;
  /// 1 σ of free parameters where it is known, by their names: "lens.0.theta_E"; and of pairs that make one quantity
  /// their correlation, by both names with a blank between.
  std::map<std::string, double> sigma, correlation;
  /// The NETWORK component of the model, one per member, with weights; none without one.
  std::vector<LightComponent> network_lights;
  /// Where a NETWORK source is sampled for packages that have no such thing.
  PixelGrid source_grid;
  int threads = 0;  ///< that sample networks; 0 = as many as the process may use
};

/// Reads the directory of a finished fit: result.json, result.fits and the networks.
/// @throws InvalidInput "DIR/FILE: …"
ExchangedLens read_exchanged(const std::string& dir);

/// ψ, α, κ of the network at any positions, the mean over the members; zero without one.
/// @param theta  2 × n, all x, then all y [arcsec]
LensFields exchanged_network(const ExchangedLens& lens, const std::vector<double>& theta);

/// Whether a prior says anything.
inline bool says_something(const ParameterPrior& prior) {
  return prior.bounded() || prior.gaussian();
}

/// Priors as a member "priors" of what einfield writes about a component for itself: { NAME: { "bounds": [lower,
/// upper], "gaussian": [mean, sigma] }, ... }.
template <class Component>
void put_priors(nlohmann::ordered_json& own, const Component& c, const ProfileInfo& info) {
  for (std::size_t i = 0; i < c.priors.size(); ++i) {
    const ParameterPrior& prior = c.priors[i];
    if (prior.bounded()) own["priors"][info.parameters[i].name]["bounds"] = {prior.lower, prior.upper};
    if (prior.gaussian()) own["priors"][info.parameters[i].name]["gaussian"] = {prior.mean, prior.sigma};
  }
}

/// Takes them back, where nothing else is known of a parameter.
template <class Component>
void take_priors(const JsonView& own, Component& c, const ProfileInfo& info) {
  if (!own.has("priors")) return;
  c.priors.resize(c.values.size());
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    if (!own.at("priors").has(info.parameters[i].name)) continue;
    const JsonView known = own.at("priors").at(info.parameters[i].name);
    const auto pair = [&](const char* name, double& first, double& second, const Bounds& bounds) {
      const JsonView numbers = known.at(name);
      if (numbers.size(2) != 2) numbers.fail("expected two numbers");
      first = numbers.at(0).number();
      second = numbers.at(1).number(bounds);
    };
    ParameterPrior& prior = c.priors[i];
    if (known.has("bounds") && !prior.bounded()) pair("bounds", prior.lower, prior.upper, {});
    if (known.has("gaussian") && !prior.gaussian()) pair("gaussian", prior.mean, prior.sigma, above(0));
  }
}

/// Bounds come into the profile's range; those that the value does not keep to, which a fit would refuse, are left out
/// with a warning, and so are priors of fixed parameters.
template <class Component>
void check_priors(const JsonView& where, Component& c, const ProfileInfo& info, std::vector<std::string>& warnings) {
  bool any = false;
  for (std::size_t i = 0; i < c.priors.size(); ++i) {
    ParameterPrior& prior = c.priors[i];
    const ParameterInfo& p = info.parameters[i];
    if (!c.free[i]) prior = {};
    if (prior.bounded()) {
      prior.lower = std::max(prior.lower, p.lower);
      prior.upper = std::min(prior.upper, p.upper);
      if (!(c.values[i] > prior.lower && c.values[i] < prior.upper)) {
        warnings.push_back(where.place() + ": " + p.name + " is outside of its bounds, which are left out");
        prior.lower = -kInfinity;
        prior.upper = kInfinity;
      }
    }
    any = any || says_something(prior);
  }
  if (!any) c.priors.clear();
}

/// A pixel grid with its values, (ny, nx).
struct PixelMap {
  PixelGrid grid;
  std::vector<double> values;
};

/// A map on a square grid: rows and columns of `fill` on both sides, one more above or to the right when their number
/// is odd.
PixelMap squared(const PixelMap& map, double fill);

/// The same lens with its image, noise and mask padded to squares, for packages that take no other: masked there.
ExchangedLens on_square_image(const ExchangedLens& lens);

/// The pixels of a PIXELATED component, or of a NETWORK one sampled: a source on lens.source_grid, other light on the
/// image's grid.
/// @param lensed  whether the component is one of the source
PixelMap light_pixels(const ExchangedLens& lens, const LightComponent& component, bool lensed);

/// Writes DIR/lens.toml, which `einfield fit` reads (`einfield simulate` when there is no image), DIR/lens.fits with
/// its maps, and DIR/network.safetensors when there is a network.
/// @return the path of the configuration
/// @throws InvalidInput when DIR holds one and `overwrite` is false; IoError
std::string write_configuration(const std::string& dir, const ExchangedLens& lens, const std::string& title,
                                bool overwrite);

/// Makes a directory for files of these names. @throws InvalidInput when one of them is there and `overwrite` is false;
/// IoError
void prepare_directory(const std::string& dir, const std::vector<std::string>& files, bool overwrite);

}  // namespace einfield
