// A lens as it passes between einfield and other packages' files: what a fit hands over (host/coolest.hpp,
// host/lenstronomy.hpp write it), what their readers fill, and the configuration that is made of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/json_view.hpp"
#include "host/lens_fields.hpp"
#include "host/safetensors.hpp"

namespace einfield {

/// Components of a kind that a reader accepts.
inline constexpr std::size_t kMaxComponents = 1000;

struct ExchangedLens {
  Model model;              ///< its `network` and the weights of NETWORK components are unused: see below
  Observation observation;  ///< without image and noise: a lens that is yet to be simulated
  std::string unit;         ///< of the image
  double psf_fwhm = 0;      ///< > 0: a Gaussian in place of observation.psf [arcsec]
  double noise = 0;         ///< without an image: 1 σ that it is to be simulated with

  /// The network of the potential, one per member of an ensemble, and what is taken off their potentials; none without
  /// one.
  std::vector<StoredNetwork> networks;
  std::vector<double> offsets;
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

/// Which profile has this name, if any.
std::optional<LensKind> lens_kind(const std::string& name);
std::optional<LightKind> light_kind(const std::string& name);

/// A component with the defaults of its profile; required parameters are NaN until they are set.
LensComponent new_lens(LensKind kind);
LightComponent new_light(LightKind kind);

/// Sets a parameter. @throws InvalidInput when it is out of the profile's range
void set_parameter(const JsonView& where, const ProfileInfo& info, std::vector<double>& values, const std::string& name,
                   double value);
/// @throws InvalidInput for a parameter that has not been set, and for e1² + e2² ≥ 1
void check_complete(const JsonView& where, const ProfileInfo& info, const std::vector<double>& values);

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
