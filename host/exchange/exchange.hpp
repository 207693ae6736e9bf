// A lens model on its way between einfield and the files of other packages. Writers (coolest.hpp, lenstronomy.hpp) get
// it from a finished fit; readers fill it, and lens_toml.hpp makes a configuration of it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "einfield/cosmology.hpp"
#include "einfield/model.hpp"
#include "einfield/observation.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/safetensors.hpp"
#include "host/model/components.hpp"

namespace einfield {

struct ExchangedLens {
  Model model;                         ///< without `network` and without weights of NETWORK components, which are below
  Observation observation;             ///< may lack image and noise: then the lens is to be simulated
  std::string unit;                    ///< of the image
  std::optional<CelestialWcs> sky;     ///< of the image
  std::optional<Cosmology> cosmology;  ///< with the redshifts of lens and source, where they are known
  double psf_fwhm = 0;                 ///< > 0: a Gaussian PSF instead of observation.psf [arcsec]
  double noise = 0;                    ///< without an image: 1 σ of the simulation

  /// The networks of the potential, one per member of the ensemble; empty = no network. `offsets`, if not empty, are
  /// subtracted from their potentials [arcsec²].
  std::vector<StoredNetwork> networks;
  std::vector<double> offsets;
  /// Known uncertainties (1 σ) of free parameters by name: "lens.0.theta_E"; and correlations of pairs, by both names
  /// with a space between them.
  std::map<std::string, double> sigma, correlation;
  /// The NETWORK component with its weights, once per member; empty = no such component.
  std::vector<LightComponent> network_lights;
  /// Pixels on which a NETWORK source is sampled for packages without such a profile.
  PixelGrid source_grid;
  int threads = 0;  ///< for the evaluation of networks; 0 = all that the process may use
};

/// Reads the directory of a finished fit: result.json, result.fits and the networks.
/// @throws InvalidInput "DIR/FILE: …"
ExchangedLens read_exchanged(const std::string& dir);

/// Writes the networks that the files of write_coolest() and write_lenstronomy() name, for a directory without results.
/// @throws IoError
void write_networks(const std::string& dir, const ExchangedLens& lens);

/// ψ, α, κ of the network at any positions, as the mean over the members; zero without a network.
/// @param theta  2 × n, all x, then all y [arcsec]
LensFields exchanged_network(const ExchangedLens& lens, const std::vector<double>& theta);

/// A pixel grid with its values, (ny, nx).
struct PixelMap {
  PixelGrid grid;
  std::vector<double> values;
};

/// A map padded to a square with rows or columns of `fill` on both sides; if their number is odd, there is one more at
/// the top or on the right.
PixelMap squared(const PixelMap& map, double fill);

/// The same lens with image, noise and mask padded to squares; the added pixels are masked.
ExchangedLens on_square_image(const ExchangedLens& lens);

/// The pixels of a PIXELATED component, or the brightness of another one at pixels: a source on lens.source_grid, lens
/// light on the grid of the image.
/// @param lensed  the component belongs to the source
PixelMap light_pixels(const ExchangedLens& lens, const LightComponent& component, bool lensed);

/// A parameter of a light component by name.
double& parameter(LightComponent& c, const char* name);
/// √q of a light component with e1 and e2: the product average of the semi-axes is √q times the semi-major axis.
double root_of_axis_ratio(const LightComponent& c);

/// Notes that several writers give: an image that is padded to a square for a package, and an ensemble of which readers
/// get the first member only.
void note_padding(std::vector<std::string>& notes, const Grid& image, const std::string& package);
void note_members(std::vector<std::string>& notes, const std::string& name, std::size_t members);

}  // namespace einfield
