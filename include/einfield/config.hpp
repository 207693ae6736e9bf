// The configuration of a run: TOML → typed values. `einfield info --keys` lists every key; load.hpp turns a
// configuration into the problem to fit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "einfield/cosmology.hpp"
#include "einfield/fits_reference.hpp"
#include "einfield/fitter.hpp"
#include "einfield/limits.hpp"

namespace EINFIELD_API einfield {

/// What the pixels of a noise map hold.
enum class NoiseKind { sigma, variance, weight };  // weight = 1/variance

struct NoiseConfig {
  FitsReference map;
  NoiseKind kind = NoiseKind::sigma;     ///< content of the map
  std::optional<double> value;           ///< 1 σ of every pixel, instead of a map [image unit]
  std::optional<double> background_rms;  ///< for photon_noise(), with exposure_time [image unit]
  std::optional<double> exposure_time;   ///< [s]
};

struct PsfConfig {
  FitsReference kernel;
  std::string type;  ///< "" (none), "file", "gaussian", "moffat"
  double fwhm = 0;   ///< full width at half maximum [arcsec]
  double beta = 0;   ///< exponent of a Moffat profile
  int size = 0;      ///< side of the kernel [pixels]; 0 = the smallest odd kernel that holds 99.9 % of the light
};

/// A part of the image: the pixels whose centers lie in a circle or an annulus.
struct RegionConfig {
  bool annulus = false;               ///< false: a circle
  double center_x = 0, center_y = 0;  ///< [arcsec]
  double radius = 0;                  ///< of a circle [arcsec]
  double inner = 0, outer = 0;        ///< radii of an annulus [arcsec]
  bool keep = true;  ///< true: pixels outside all such regions are masked; false: pixels inside this one are masked

  /// @param theta  position [arcsec]
  bool contains(Vec2<double> theta) const {
    const double r = hypot(theta.x - center_x, theta.y - center_y);
    return annulus ? r >= inner && r <= outer : r <= radius;
  }
};

struct ObservationConfig {
  FitsReference image, mask;
  int mask_used = 1;  ///< value of the mask in used pixels; 1: other pixels are 0; 0: other pixels are nonzero
  std::vector<RegionConfig> regions;
  NoiseConfig noise;
  FitsReference noise_correlation;         ///< kernel; empty = the noise of two pixels is independent
  bool measure_noise_correlation = false;  ///< in the blank sky of the image, instead of a kernel
  PsfConfig psf;
  double noise_floor = 0;             ///< least 1 σ of a pixel [image unit]
  double model_error = 0;             ///< fraction of the brightness that is added to 1 σ in quadrature
  double max_noise = 1e3;             ///< pixels with noise above this times typical_noise() are masked
  std::optional<double> pixel_scale;  ///< [arcsec]; empty: from the celestial WCS of the image
  std::optional<double> zero_point;   ///< AB magnitude of a flux of 1 image unit; empty: from the header of the image
  double center_x = 0, center_y = 0;  ///< coordinates of the middle of the image [arcsec]
  int supersampling = 1;              ///< rays per pixel along each axis
  int psf_supersampling = 1;          ///< PSF samples per pixel along each axis, a divisor of supersampling
};

struct NetworkConfig {
  bool fourier = false;                           ///< encoding = "fourier"; else "none"
  int fourier_features = 16;                      ///< pairs of a sine and a cosine, if `fourier`
  Frequencies frequencies = Frequencies::normal;  ///< if `fourier`
  /// FourierSpectrum::scale, if `fourier`, in units of position · input_scale; empty: default_fourier_scale, divided by
  /// √fourier_features for even frequencies, so that they are as near to each other as the field demands.
  std::optional<double> fourier_scale;
  std::vector<int> hidden;            ///< widths of the hidden layers after the encoding
  std::optional<double> input_scale;  ///< the network sees position · input_scale [1/arcsec]; empty: input_scale_in()
  double default_fourier_scale = 2, default_input_scale = 1;
  bool last_layer_zero = false;
  std::uint64_t seed = 1;
  NetworkMath math = NetworkMath::fp32;  ///< of [network] only; NETWORK components compute in fp32
  int ensemble = 1;                      ///< networks fitted side by side, with the seeds seed, seed + 1, …
  std::string initial;  ///< safetensors file with start weights, as a resolved path; "" = random weights

  FourierSpectrum spectrum() const {
    const double crowd = frequencies == Frequencies::even ? std::sqrt(fourier_features) : 1;
    return {fourier_scale.value_or(default_fourier_scale / crowd), frequencies};
  }
  /// Without input_scale it follows the size of the image. With a fourier_scale, which is then in arcsec, it does not.
  /// @param field_unit  of the image [arcsec]
  double input_scale_in(double field_unit) const {
    return input_scale.value_or(default_input_scale / (fourier_scale ? 1 : field_unit));
  }
};

/// One stage of a fit.
struct StageConfig {
  OptimizerKind name = OptimizerKind::adam;
  int steps = 200;
  double learning_rate = 1e-3;    ///< of Adam, like the next three
  int warmup = 0;                 ///< updates over which the learning rate rises linearly
  bool cosine = false;            ///< after the warm-up the learning rate falls to 0 at the last step
  double clip_norm = 0;           ///< longer gradients are shortened to this norm; 0 = never
  int memory = 20;                ///< past steps that L-BFGS keeps
  std::vector<std::string> free;  ///< names of the parameters that move (see trainable()); empty = all free ones
  StopRule stop = StopRule::none;
  // Of a stage of Levenberg–Marquardt, not of [optimizer]: StageSettings has the same members.
  int own_starts = 0;  ///< the key `starts` of a stage
  int valleys = 0;
  double leave_out_inner = -kInfinity, leave_out_outer = kInfinity;  ///< infinite = nothing is left out
};

/// The only stage, or the defaults of `stages`; `stop` is the default of the last stage only.
struct OptimizerConfig : StageConfig {
  LossKind loss = LossKind::mse;
  double stop_chi2 = 1.0;   ///< reduced χ² at which stop = "chi2" ends the fit
  int patience = 30;        ///< steps without a decrease after which stop = "heldout" and "plateau" end the fit
  double tolerance = 1e-3;  ///< smallest relative decrease that counts
  double held_out = 0.1;    ///< fraction of the used pixels that stop = "heldout" leaves out of the fit
  std::uint64_t held_out_seed = 1;
  std::vector<StageConfig> stages;
  /// `stages`, or the only stage.
  std::vector<StageConfig> all_stages() const { return stages.empty() ? std::vector<StageConfig>{*this} : stages; }
  /// Whether a stage has this optimizer.
  bool uses(OptimizerKind optimizer) const {
    const std::vector<StageConfig> all = all_stages();
    return std::any_of(all.begin(), all.end(), [optimizer](const StageConfig& s) { return s.name == optimizer; });
  }
  int best_of_last = 0;     ///< the result is the state of lowest loss among the last N steps; 0 = the last state
  double prior_weight = 1;  ///< of Model
  int starts = 1;           ///< number of starts of a first stage of Levenberg–Marquardt
  std::uint64_t starts_seed = 1;
  int checkpoint_every = 100;  ///< steps between checkpoints; 0 = only at the end
};

struct RegularizationConfig : Regularization {
  bool automatic = false;      ///< gauss_newton chooses the weights of highest evidence
  double source_contrast = 1;  ///< gauss_newton: σ of the source's prior where it is brightest, over that in the dark
};

/// Where the error bars of the maps and the profile parameters come from.
enum class UncertaintyKind {
  none,       ///< there are none
  spread,     ///< maps: scatter over the members of an ensemble, which is no error bar; parameters: curvature of chi2
              ///< at fixed network and source pixels
  laplace,    ///< the curvature of the whole problem at the end of the fit
  randomized  ///< fits of the same problem with its noise and its priors drawn again
};
inline constexpr Named<UncertaintyKind> kUncertaintyKinds[] = {{"none", UncertaintyKind::none},
                                                               {"spread", UncertaintyKind::spread},
                                                               {"laplace", UncertaintyKind::laplace},
                                                               {"randomized", UncertaintyKind::randomized}};
constexpr const char* name_of(UncertaintyKind kind) {
  return name_in(kUncertaintyKinds, kind);
}

struct UncertaintyConfig {
  UncertaintyKind method = UncertaintyKind::spread;
  int members = 32;        ///< of randomized
  std::uint64_t seed = 1;  ///< of randomized: of the noise and the priors that are drawn
};

/// Start values of a PIXELATED or NETWORK component; other components do not use them.
struct LightStart {
  FitsReference image;    ///< PIXELATED: an image (ny, nx) of the grid
  double value = 0;       ///< PIXELATED without an image: value of every pixel [image unit per pixel]
  NetworkConfig network;  ///< NETWORK: its network; `ensemble` is not used
};

/// A Gaussian random field of the potential, ψ(θ) = Σ_k a_k cos(k·θ + φ_k).
struct RandomFieldConfig {
  double variance = 0;  ///< variance of ψ at a point [arcsec⁴]
  double slope = 0;     ///< slope of the power spectrum, P(k) ∝ k^(−slope)
  std::uint64_t seed = 1;
};

struct SimulateConfig {
  int nx = 100, ny = 100;
  NoiseConfig noise;
  FitsReference noise_correlation;  ///< kernel; empty = the noise of two pixels is independent
  PsfConfig psf;                    ///< type "" = the PSF of [observation]
  std::uint64_t seed = 1;
};

struct Config {
  std::string file;  ///< as given on the command line
  std::string title;
  std::string recipe = "default";
  ObservationConfig observation;
  Model model;  ///< load_problem() fills the pixels of PIXELATED and the weights of NETWORK components
  std::vector<LightStart> source_start, lens_light_start;  ///< one per light component
  std::optional<NetworkConfig> network;
  OptimizerConfig optimizer;
  RegularizationConfig regularization;
  UncertaintyConfig uncertainty;
  std::optional<Cosmology> cosmology;  ///< for masses
  FitsReference truth;
  std::optional<SimulateConfig> simulate;
  std::vector<LensComponent> perturbation;
  std::vector<RandomFieldConfig> random_fields;  ///< random fields among the perturbations
  std::vector<std::string> warnings;
  std::map<std::string, std::string> places;  ///< key → "FILE:LINE" or "--set", for every key that was given

  /// Beginning of a message about a key: "FILE:LINE: KEY"; "FILE: KEY" for a default value.
  std::string at(const std::string& key) const {
    const auto place = places.find(key);
    return (place == places.end() ? file : place->second) + ": " + key;
  }
};

/// A `--set KEY=VALUE` of the command line; VALUE is TOML.
struct Override {
  std::string key, value;
  std::string origin = "--set";  ///< for messages; the same for all overrides of a configuration
};

/// Parses and checks a configuration.
/// @param for_simulation  [simulate] is required and the image of [observation] is not
/// @throws InvalidInput "FILE:LINE: KEY: what is wrong, found …, expected …"
Config read_config(const std::string& file, const std::vector<Override>& overrides, bool for_simulation);

/// The same for a configuration in memory. An image that is in memory as well has any file name here, which is never
/// opened: FitsReference::array of what is returned gets the image.
/// @param name  in place of the name of a file in messages; relative file names are found from its directory
Config read_config_text(const std::string& toml, const std::string& name, bool for_simulation,
                        const std::vector<Override>& overrides = {});

/// The complete configuration as TOML, including defaults.
std::string to_toml(const Config& config);

/// The text of `einfield info --keys`: every key with type, unit, range, default and meaning.
std::string list_keys();

}  // namespace einfield
