// The configuration of a run: TOML → typed values. `einfield info --keys` lists every key; load.hpp makes the problem
// that is fitted.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "einfield/fitter.hpp"
#include "einfield/limits.hpp"

namespace EINFIELD_API einfield {

/// A FITS image named in the configuration: "file.fits[HDU]".
struct FitsReference {
  std::string path;  ///< absolute, or relative to the working directory; resolved against the configuration file
  std::string hdu;   ///< EXTNAME or number; empty = the rule of "no [HDU]"
  bool empty() const { return path.empty(); }
};

/// What the pixels of a noise map hold.
enum class NoiseKind { sigma, variance, weight };  // weight = 1/variance

struct NoiseConfig {
  FitsReference map;
  NoiseKind kind = NoiseKind::sigma;     ///< of the map
  std::optional<double> value;           ///< one number
  std::optional<double> background_rms;  ///< with exposure_time: photon_noise()
  std::optional<double> exposure_time;
};

struct PsfConfig {
  FitsReference kernel;
  std::string type;  ///< "" (none), "file", "gaussian", "moffat"
  double fwhm = 0;   ///< arcsec
  double beta = 0;   ///< moffat
  int size = 0;      ///< 0 = the smallest odd one that holds 99.9 %
};

/// A part of the image around a point, by pixel centres.
struct RegionConfig {
  bool annulus = false;               ///< else a circle
  double center_x = 0, center_y = 0;  ///< arcsec
  double radius = 0;                  ///< of the circle
  double inner = 0, outer = 0;        ///< of the annulus
  bool keep = true;                   ///< used: nothing outside of all such regions is; else: masked

  bool contains(Vec2<double> theta) const {
    const double r = hypot(theta.x - center_x, theta.y - center_y);
    return annulus ? r >= inner && r <= outer : r <= radius;
  }
};

struct ObservationConfig {
  FitsReference image, mask;
  int mask_used = 1;  ///< 1: a mask of 1 where a pixel is used, else 0; 0: of 0 where one is used, else anything
  std::vector<RegionConfig> regions;
  NoiseConfig noise;
  PsfConfig psf;
  double max_noise = 1e3;
  std::optional<double> pixel_scale;
  double center_x = 0, center_y = 0;
  int supersampling = 1;
  int psf_supersampling = 1;
};

struct NetworkConfig {
  bool fourier = false;       ///< encoding = "fourier"; else "none"
  int fourier_features = 16;  ///< with it: pairs of a sine and a cosine
  double fourier_scale = 2;   ///< with it: 1/σ of the frequencies [arcsec]
  std::vector<int> hidden;    ///< behind the encoding
  double input_scale = 1.0;
  bool last_layer_zero = false;
  std::uint64_t seed = 1;
  NetworkMath math = NetworkMath::fp32;  ///< [network] alone; NETWORK components compute in fp32
  int ensemble = 1;                      ///< networks fitted side by side, of seeds seed, seed + 1, …
  std::string initial;                   ///< safetensors file; resolved path
};

/// One stage of a fit.
struct StageConfig {
  OptimizerKind name = OptimizerKind::adam;
  int steps = 200;
  double learning_rate = 1e-3;
  int warmup = 0;       ///< updates over which the learning rate rises
  bool cosine = false;  ///< … and then falls, to 0 at the end
  double clip_norm = 0;
  int memory = 20;                ///< L-BFGS
  std::vector<std::string> free;  ///< what moves, as trainable() reads it; empty = everything that is free
  StopRule stop = StopRule::none;
};

/// The only stage, or what `stages` differ from; `stop` is that of the last one.
struct OptimizerConfig : StageConfig {
  LossKind loss = LossKind::mse;
  double stop_chi2 = 1.0;  ///< reduced χ² that stop = "chi2" waits for
  int patience = 30;       ///< steps without a fall by more than `tolerance` after which heldout and plateau stop
  double tolerance = 1e-3;
  double held_out = 0.1;  ///< share of the used pixels that stop = "heldout" keeps out of the fit
  std::uint64_t held_out_seed = 1;
  std::vector<StageConfig> stages;
  /// `stages`, or the only one.
  std::vector<StageConfig> all_stages() const { return stages.empty() ? std::vector<StageConfig>{*this} : stages; }
  int best_of_last = 0;
  int starts = 1;  ///< of a first stage of Levenberg–Marquardt
  std::uint64_t starts_seed = 1;
  int checkpoint_every = 100;  ///< steps between checkpoints; 0 = only at the end
};

struct RegularizationConfig : Regularization {
  bool automatic = false;  ///< multiply all weights by a factor chosen with held-out pixels
};

/// Start values of a PIXELATED or NETWORK component; of another one unused.
struct LightStart {
  FitsReference image;    ///< PIXELATED: (ny, nx) of the grid
  double value = 0;       ///< PIXELATED: of every pixel, without an image [image unit per pixel]
  NetworkConfig network;  ///< NETWORK; `ensemble` is that of [network]
};

/// A Gaussian random field of the potential, ψ(θ) = Σ_k a_k cos(k·θ + φ_k).
struct RandomFieldConfig {
  double variance = 0;  ///< of ψ at a point [arcsec⁴]
  double slope = 0;     ///< of its power spectrum: P(k) ∝ k^(−slope)
  std::uint64_t seed = 1;
};

struct SimulateConfig {
  int nx = 100, ny = 100;
  NoiseConfig noise;
  PsfConfig psf;  ///< type "" = that of [observation]
  std::uint64_t seed = 1;
};

struct Config {
  std::string file;  ///< as given on the command line
  std::string title;
  std::string recipe = "default";
  ObservationConfig observation;
  Model model;  ///< lens, source, lens_light, network; load_problem() fills pixels of PIXELATED and weights of NETWORK
  std::vector<LightStart> source_start, lens_light_start;  ///< one per component
  std::optional<NetworkConfig> network;
  OptimizerConfig optimizer;
  RegularizationConfig regularization;
  FitsReference truth;
  std::optional<SimulateConfig> simulate;
  std::vector<LensComponent> perturbation;
  std::vector<RandomFieldConfig> random_fields;  ///< further perturbations
  std::vector<std::string> warnings;
  std::map<std::string, std::string> places;  ///< key → "FILE:LINE" or "--set", of every key that was given

  /// How a message about a key begins: "FILE:LINE: KEY"; "FILE: KEY" for a default.
  std::string at(const std::string& key) const {
    const auto place = places.find(key);
    return (place == places.end() ? file : place->second) + ": " + key;
  }
};

/// A `--set KEY=VALUE` of the command line; VALUE is TOML.
struct Override {
  std::string key, value;
};

/// Parses and checks a configuration. `for_simulation` asks for [simulate] and does not ask for [observation] image.
/// @throws InvalidInput "FILE:LINE: KEY: what is wrong, value, expectation"
Config read_config(const std::string& file, const std::vector<Override>& overrides, bool for_simulation);

/// The complete configuration, defaults included, as TOML.
std::string to_toml(const Config& config);

/// Every key with type, unit, range and default: `einfield info --keys`.
std::string list_keys();

}  // namespace einfield
