// Reads the data that a configuration names, checks and masks them, and combines them with the model into a problem.
#include "host/config/load_problem.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/psf.hpp"
#include "einfield/render.hpp"
#include "einfield/units.hpp"
#include "host/config/sky_correlation.hpp"
#include "host/cpu/correlated_noise.hpp"
#include "host/cpu/plane_fourier.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/model/median.hpp"
#include "host/model/source_grids.hpp"

namespace einfield {
namespace {

constexpr double kScaleTolerance = 1e-3;        ///< between a given pixel scale and a WCS
constexpr double kSumTolerance = 1e-5;          ///< of a normalized PSF; room for rounding in single precision
constexpr double kCorrelationTolerance = 1e-6;  ///< of a coefficient; likewise
/// Largest relative difference between PIXELSCL of a PSF and the sampling that is asked for. Nominal scales of a
/// detector differ from that of an image by a percent; a kernel that is oversampled, by a factor.
constexpr double kSamplingTolerance = 0.05;
constexpr double kTurnTolerance = 0.1;  ///< degrees between the maps of one image: half a pixel in 600

std::string size_text(int nx, int ny) {
  return std::to_string(nx) + " x " + std::to_string(ny);
}

/// "column 13, row 7", counted from 1 as DS9 does.
std::string pixel_text(std::size_t index, int nx) {
  const auto width = static_cast<std::size_t>(nx);
  return "column " + std::to_string(index % width + 1) + ", row " + std::to_string(index / width + 1) + " (from 1)";
}

std::string count_text(std::size_t n, const std::string& noun) {
  return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
}

std::string name_of(const FitsReference& reference, const FitsImage& image) {
  return reference.path + "[" + image.hdu + "]";
}

void check_scale(const std::string& name, const FitsImage& image, double pixel_scale) {
  if (!image.wcs || std::abs(image.wcs->pixel_scale / pixel_scale - 1) <= kScaleTolerance) return;
  throw InvalidInput(name + ": different pixel scale, found " + rounded(image.wcs->pixel_scale) +
                     " arcsec in its WCS, expected " + rounded(pixel_scale) + " arcsec within 0.1 %");
}

/// Maps are compared with the image pixel by pixel, so a rotated or mirrored map is an error.
void check_orientation(const std::string& name, const FitsImage& map, const std::optional<CelestialWcs>& image) {
  if (!map.wcs || !image) return;
  const auto angle = [](const CelestialWcs& wcs) { return wcs.position_angle(kPi / 2); };
  const bool mirrored = map.wcs->right_handed() != image->right_handed();
  const double turn = std::remainder(angle(*map.wcs) - angle(*image), 360);
  if (!mirrored && std::abs(turn) <= kTurnTolerance) return;
  throw InvalidInput(name + ": different orientation on the sky, found a map that is " +
                     (mirrored ? "mirrored" : "rotated by " + rounded(turn) + " degrees") +
                     " according to its WCS, expected the orientation of the image");
}

void check_size(const std::string& name, const FitsImage& image, int nx, int ny, const std::string& as) {
  EINFIELD_REQUIRE(image.nx == nx && image.ny == ny, name + ": different shape, found " +
                                                         size_text(image.nx, image.ny) + " pixels, expected " +
                                                         size_text(nx, ny) + " as in " + as);
}

std::size_t first_not_finite(const std::vector<double>& values) {
  const auto bad = std::find_if(values.begin(), values.end(), [](double v) { return !std::isfinite(v); });
  return static_cast<std::size_t>(bad - values.begin());
}

/// Reads the maps of one image; each must have its shape and scale.
class MapReader {
 public:
  /// @param cut  the part of the file's image that `image` is; nothing = all of it
  MapReader(FitsImages& files, const Grid& grid, std::string image_name, const FitsImage& image,
            std::optional<FitsSection> cut)
      : files_(files),
        grid_(grid),
        image_name_(std::move(image_name)),
        wcs_(image.wcs),
        cut_(cut),
        whole_nx_(image.whole_nx),
        whole_ny_(image.whole_ny) {}

  /// A map of the shape of the whole image is cut like the image.
  FitsImage read(const FitsReference& reference, int planes = 1) const {
    FitsReference part = reference;
    if (cut_ && !reference.section) {
      FitsReference one_pixel = reference;
      one_pixel.section = FitsSection{};
      const FitsImage corner = files_.read(one_pixel, planes);  // for its shape
      if (corner.whole_nx == whole_nx_ && corner.whole_ny == whole_ny_) part.section = cut_;
    }
    FitsImage map = files_.read(part, planes);
    const std::string name = name_of(reference, map);
    check_size(name, map, grid_.nx, grid_.ny, image_name_);
    check_scale(name, map, grid_.pixel_scale);
    check_orientation(name, map, wcs_);
    return map;
  }
  /// A map of [truth]; all its values must be finite.
  std::vector<double> truth(const FitsReference& file, const std::string& hdu, int planes = 1) const {
    FitsReference reference = file;
    reference.hdu = hdu;
    FitsImage map = read(reference, planes);
    const std::size_t bad = first_not_finite(map.values);
    const auto n = static_cast<std::size_t>(grid_.n_pixels());
    EINFIELD_REQUIRE(bad == map.values.size(), name_of(reference, map) + ": not finite at " +
                                                   pixel_text(bad % n, grid_.nx) +
                                                   ", expected finite values everywhere");
    return std::move(map.values);
  }

 private:
  FitsImages& files_;
  const Grid& grid_;
  std::string image_name_;
  std::optional<CelestialWcs> wcs_;
  std::optional<FitsSection> cut_;
  int whole_nx_, whole_ny_;
};

Grid image_grid(const Config& config, const FitsImage& image, const std::string& name) {
  const ObservationConfig& o = config.observation;
  Grid grid{image.nx, image.ny, 0, o.center_x, o.center_y, o.supersampling};
  EINFIELD_REQUIRE(o.pixel_scale || image.wcs,
                   name + ": no celestial WCS, expected one or observation.pixel_scale in " + config.file);
  grid.pixel_scale = o.pixel_scale ? *o.pixel_scale : image.wcs->pixel_scale;
  check_scale(name, image, grid.pixel_scale);
  const double rays = double(grid.nx) * grid.ny * grid.supersampling * grid.supersampling;
  EINFIELD_REQUIRE(rays < kMaxRays, name + ": too many rays, found " + size_text(grid.nx, grid.ny) +
                                        " pixels with observation.supersampling = " +
                                        std::to_string(grid.supersampling) + ", expected fewer than 2^30 rays");
  return grid;
}

std::vector<std::uint8_t> read_mask(const ObservationConfig& o, const MapReader& maps, const Grid& grid) {
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(grid.n_pixels()), 1);
  if (o.mask.empty()) return mask;
  const FitsImage image = maps.read(o.mask);
  const std::string name = name_of(o.mask, image);
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const double value = image.values[i];
    if (o.mask_used == 0) {
      EINFIELD_REQUIRE(!std::isnan(value), name + ": not a number at " + pixel_text(i, grid.nx) +
                                               ", expected 0 = used, anything else = masked");
      mask[i] = value == 0;
    } else {
      EINFIELD_REQUIRE(value == 0 || value == 1, name + ": a mask value other than 0 and 1, found " + rounded(value) +
                                                     " at " + pixel_text(i, grid.nx) +
                                                     ", expected 1 = used, 0 = masked, or observation.mask_used = 0");
      mask[i] = value == 1;
    }
  }
  return mask;
}

/// Masks pixels outside all regions with keep = true, and pixels inside a region with keep = false.
void apply_regions(const std::vector<RegionConfig>& regions, const Grid& grid, std::vector<std::uint8_t>& mask) {
  const bool some_kept = std::any_of(regions.begin(), regions.end(), [](const RegionConfig& r) { return r.keep; });
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const Vec2<double> theta = grid.pixel(static_cast<int>(i));
    bool used = !some_kept;
    for (const RegionConfig& r : regions) used = used || (r.keep && r.contains(theta));
    for (const RegionConfig& r : regions) used = used && (r.keep || !r.contains(theta));
    if (!used) mask[i] = 0;
  }
}

/// The noise of an image, and the values that it was computed from.
struct Noise {
  std::vector<double> sigma;
  std::vector<double> given;  ///< values of the map: sigma, variance or weight
  NoiseKind kind = NoiseKind::sigma;
  std::string name;  ///< for messages
};

Noise read_noise(const Config& config, const MapReader& maps, const std::vector<double>& image) {
  const NoiseConfig& noise = config.observation.noise;
  Noise result;
  if (!noise.map.empty()) {
    FitsImage map = maps.read(noise.map);
    result.name = name_of(noise.map, map);
    result.kind = noise.kind;
    result.sigma = result.given = std::move(map.values);
    if (noise.kind == NoiseKind::variance)
      for (double& v : result.sigma) v = std::sqrt(v);
    if (noise.kind == NoiseKind::weight)
      for (double& v : result.sigma) v = 1 / std::sqrt(v);
    return result;
  }
  result.name = config.at(noise.value ? "observation.noise" : "observation.background_rms");
  result.sigma = pixel_noise(noise, image);
  result.given = result.sigma;
  return result;
}

std::string described(NoiseKind kind) {
  return kind == NoiseKind::variance ? "variance" : kind == NoiseKind::weight ? "weight" : "noise";
}

/// A warning that is a flag as well.
void warn(LoadedProblem& loaded, Flag flag, const std::string& message) {
  loaded.warnings.push_back(message);
  loaded.flags.push_back({flag, message});
}

/// Numbers that programs write for "no data". They count only where they lie far from the other pixels.
bool is_mark(double value) {
  static constexpr double kMarks[] = {-99, -999, -9999, -99999, -32768, -2147483648.0, 65535, 99999, 999999};
  return std::find(std::begin(kMarks), std::end(kMarks), value) != std::end(kMarks);
}

/// Masks pixels whose value is no measurement, with a warning that names the first.
void mask_sentinels(const std::string& image_name, Observation& o, LoadedProblem& loaded) {
  constexpr double kFarOff = 100;  // σ, for a number that is known as a mark
  constexpr double kNearlyAll = 0.99, kFarBeyond = 100;
  std::vector<double> used;
  used.reserve(o.mask.size());
  for (std::size_t i = 0; i < o.mask.size(); ++i)
    if (o.mask[i]) used.push_back(o.image[i]);
  if (used.empty()) return;
  const double median = upper_median(used);
  // Marks are few: nearly all pixels show how far data lie from their median.
  for (double& v : used) v = std::abs(v - median);
  const auto nearly_all = used.begin() + static_cast<std::ptrdiff_t>(kNearlyAll * static_cast<double>(used.size() - 1));
  std::nth_element(used.begin(), nearly_all, used.end());
  const double reach = kFarBeyond * *nearly_all;
  std::size_t count = 0, first = 0;
  double value = 0;
  for (std::size_t i = 0; i < o.mask.size(); ++i) {
    if (!o.mask[i]) continue;
    const double off = std::abs(o.image[i] - median) / o.noise[i];
    const bool beyond = off > flag_info(Flag::sentinel_values).threshold && std::abs(o.image[i] - median) > reach;
    if (!beyond && !(off > kFarOff && is_mark(o.image[i]))) continue;
    if (count++ == 0) {
      first = i;
      value = o.image[i];
    }
    o.mask[i] = 0;
    o.image[i] = 0;  // its square may be infinite
  }
  if (count > 0)
    warn(loaded, Flag::sentinel_values,
         image_name + ": " + count_text(count, "pixel") + (count == 1 ? " holds a value" : " hold values") +
             " that cannot be data, masked; the first is " + rounded(value) + " at " + pixel_text(first, o.grid.nx));
}

/// Masks pixels that cannot be used, with a warning. @throws InvalidInput for invalid noise of a used pixel
void apply_data_rules(const Config& config, const std::string& image_name, const Noise& noise, Observation& o,
                      LoadedProblem& loaded) {
  std::vector<std::string>& warnings = loaded.warnings;
  const double factor = config.observation.max_noise, typical = typical_noise(o.noise, o.mask, factor);
  const auto masked = o.mask.size() - static_cast<std::size_t>(o.n_used());
  std::size_t not_finite = 0, weightless = 0, noisy = 0;
  for (std::size_t i = 0; i < o.mask.size(); ++i) {
    const bool no_weight = noise.kind == NoiseKind::weight && noise.given[i] == 0;
    if (!std::isfinite(o.image[i])) {
      not_finite += o.mask[i];
      o.mask[i] = 0;
      o.image[i] = 0;  // NaN times a weight of 0 would still be NaN
    } else if (o.mask[i] && (no_weight || o.noise[i] > factor * typical)) {
      ++(no_weight ? weightless : noisy);
      o.mask[i] = 0;
    }
    EINFIELD_REQUIRE(!o.mask[i] || o.noise[i] > 0, noise.name + ": invalid " + described(noise.kind) + ", found " +
                                                       rounded(noise.given[i]) + " at " + pixel_text(i, o.grid.nx) +
                                                       ", expected > 0 where the mask is 1");
  }
  mask_sentinels(image_name, o, loaded);
  const std::string above =
      " with noise above max_noise = " + rounded(factor) + " times the median of " + rounded(typical);
  if (not_finite > 0) warnings.push_back(image_name + ": " + count_text(not_finite, "pixel") + " not finite, masked");
  if (weightless > 0) warnings.push_back(noise.name + ": " + count_text(weightless, "pixel") + " of weight 0, masked");
  // Who has given the limit knows that such pixels are masked.
  if (noisy > 0)
    (config.places.count("observation.max_noise") != 0 ? loaded.notes : warnings)
        .push_back(noise.name + ": " + count_text(noisy, "pixel") + above + ", masked");
  EINFIELD_REQUIRE(
      o.n_used() > 0,
      image_name + ": every pixel is masked, found " + std::to_string(masked) + " masked by observation.mask" +
          (config.observation.regions.empty() ? "" : " and observation.region") + ", " + std::to_string(not_finite) +
          " not finite, " + (noise.kind == NoiseKind::weight ? std::to_string(weightless) + " of weight 0, " : "") +
          std::to_string(noisy) + above + ", expected at least one used pixel");
}

/// The floor of the noise, and the error of the model in quadrature: both are chosen by who describes the data, and
/// limits of the noise are those of the map.
void add_model_error(const ObservationConfig& config, Observation& o) {
  for (std::size_t i = 0; i < o.noise.size(); ++i) {
    if (!o.mask[i]) continue;
    o.noise[i] = std::max(o.noise[i], config.noise_floor);
    if (config.model_error > 0) o.noise[i] = std::hypot(o.noise[i], config.model_error * std::max(o.image[i], 0.0));
  }
}

/// The correlation of the noise: of a file, or measured in the blank sky, whose scatter then scales the noise.
/// @param usable  (ny, nx), 1 = a measurement, whether or not it is fitted
void add_noise_correlation(const Config& config, const std::string& image_name, Observation& o,
                           const std::vector<std::uint8_t>& usable, LoadedProblem& loaded) {
  const ObservationConfig& given = config.observation;
  if (!given.noise_correlation.empty()) o.noise_correlation = load_noise_correlation(given.noise_correlation);
  if (!given.measure_noise_correlation) return;
  const SkyCorrelation sky = sky_correlation(o, usable);
  loaded.notes.push_back(image_name + ": the correlation of the noise was measured in " +
                         std::to_string(sky.sky_pixels) + " pixels of blank sky; they scatter by " +
                         rounded(sky.scatter) + " times the noise, which is scaled by this");
  o.noise_correlation = sky.kernel;
  for (double& v : o.noise) v *= sky.scatter;
}

Psf psf_from_profile(const PsfConfig& psf, double pixel_scale, const std::string& where) {
  try {
    return psf.type == "moffat" ? moffat_psf(psf.fwhm, psf.beta, pixel_scale, psf.size)
                                : gaussian_psf(psf.fwhm, pixel_scale, psf.size);
  } catch (const InvalidInput& error) {
    throw InvalidInput(where + ": " + error.what());
  }
}

/// @param fine  grid of the sub-pixels on which the image is convolved
void check_psf_size(const std::string& where, int nx, int ny, const Grid& fine) {
  EINFIELD_REQUIRE(nx <= fine.nx && ny <= fine.ny, where + ": a PSF larger than the image, found " + size_text(nx, ny) +
                                                       " pixels, expected at most " + size_text(fine.nx, fine.ny));
}

/// The sampling that programs for PSFs write into the header, against the one that is asked for.
void check_sampling(const std::string& name, const FitsImage& kernel, double pixel_scale, int supersampling,
                    LoadedProblem& loaded) {
  const double scale = pixel_scale / supersampling;
  const double factor = kernel.kernel_scale > 0 ? pixel_scale / kernel.kernel_scale : kernel.kernel_oversampling;
  if (!(factor > 0)) return;
  const std::string found = kernel.kernel_scale > 0 ? "PIXELSCL = " + rounded(kernel.kernel_scale) + " arcsec"
                                                    : "OVERSAMP = " + rounded(kernel.kernel_oversampling);
  const double difference = std::abs(factor / supersampling - 1);
  const std::string expected = "expected " + rounded(scale) + " arcsec, the pixel scale divided by " +
                               "observation.psf_supersampling = " + std::to_string(supersampling);
  const int whole = static_cast<int>(std::lround(std::min(factor, double(kMaxSupersampling))));
  const bool usable = whole >= 1 && std::abs(factor / whole - 1) <= kSamplingTolerance;
  if (difference > kSamplingTolerance)
    throw InvalidInput(name + ": a PSF of another sampling, found " + found + " in its header, " + expected +
                       (usable ? "; set observation.psf_supersampling = " + std::to_string(whole) +
                                     " and observation.supersampling to a multiple of it"
                               : "; resample the PSF"));
  if (difference > flag_info(Flag::psf_sampling).threshold)
    warn(loaded, Flag::psf_sampling, name + ": " + found + " in its header, " + expected);
}

/// Centroid of a normalized kernel relative to its middle [samples of the kernel].
Vec2<double> centroid_of(const FitsImage& kernel) {
  Vec2<double> sum;
  for (std::size_t i = 0; i < kernel.values.size(); ++i) {
    const int column = static_cast<int>(i) % kernel.nx, row = static_cast<int>(i) / kernel.nx;
    sum += kernel.values[i] * Vec2<double>{column - 0.5 * (kernel.nx - 1), row - 0.5 * (kernel.ny - 1)};
  }
  return sum;
}

/// Random start weights of a NETWORK component. @param member  of the ensemble, from 0
std::vector<double> drawn_weights(const NetworkShape& shape, const NetworkConfig& config, std::size_t member) {
  return initial_weights(shape, config.seed + member, config.last_layer_zero, config.spectrum(),
                         random_stream::kLightWeights);
}

/// Random start weights of the potential's network, in units_of() the problem. @param member  of the ensemble, from 0
std::vector<double> drawn_potential(const Problem& problem, const NetworkConfig& config, std::size_t member) {
  const NetworkShape& shape = *problem.model.network;
  std::vector<double> weights = initial_weights(shape, config.seed + member, config.last_layer_zero, config.spectrum());
  const double angle = units_of(problem).angle;
  for (std::size_t i = shape.kernel_offset(shape.layers() - 1); i < weights.size(); ++i) weights[i] *= angle * angle;
  return weights;
}

/// The weights in a file whose shape was read together with the configuration.
std::vector<double> load_weights(const std::string& path, const NetworkShape& shape) {
  StoredNetwork stored = read_network(path);
  EINFIELD_REQUIRE(stored.shape == shape,
                   path + ": the file has changed since the configuration was read, expected the same network");
  return std::move(stored.parameters);
}

/// Refuses Fourier features whose phase somewhere in the image is too large for single precision: they would be NaN.
/// @param weights  flat layout of `shape`
/// @param center   origin of the positions that the network sees
/// @param path     of the network in the configuration: "network", "source.0"
void check_phases(const Config& config, const Grid& grid, const NetworkShape& shape, const double* weights,
                  Vec2<double> center, const NetworkConfig& start, const std::string& path) {
  if (shape.fourier_features == 0) return;
  const double x = shape.input_scale * (std::abs(grid.center_x - center.x) + 0.5 * grid.nx * grid.pixel_scale);
  const double y = shape.input_scale * (std::abs(grid.center_y - center.y) + 0.5 * grid.ny * grid.pixel_scale);
  const auto channels = static_cast<std::size_t>(shape.outputs(0));
  double largest = 0;
  for (std::size_t k = 0; k < channels; ++k)
    largest = std::max(
        largest, x * std::abs(weights[k]) + y * std::abs(weights[channels + k]) + std::abs(weights[2 * channels + k]));
  EINFIELD_REQUIRE(largest <= kMaxPhase, config.at(path + (start.initial.empty() ? ".fourier_scale" : ".initial")) +
                                             ": frequencies too high, found phases up to " + rounded(largest) +
                                             " rad in the image, expected at most " + rounded(kMaxPhase) + " rad");
}

/// Checks the Fourier features of all networks of a problem.
void check_phases(const Config& config, const Problem& problem) {
  const Model& model = problem.model;
  const Grid& grid = problem.observation.grid;
  if (model.network)
    check_phases(config, grid, *model.network, problem.initial_parameters.data(), {}, *config.network, "network");
  const auto check = [&](const std::string& block, const std::vector<LightComponent>& lights,
                         const std::vector<LightStart>& starts) {
    for (std::size_t i = 0; i < lights.size(); ++i)
      if (const LightComponent& c = lights[i]; c.kind == LightKind::network)
        check_phases(config, grid, c.network, c.weights.data(), {c.values[1], c.values[2]}, starts.at(i).network,
                     block + "." + std::to_string(i));
  };
  check("source", model.source, config.source_start);
  check("lens_light", model.lens_light, config.lens_light_start);
}

/// New random weights for free NETWORK components. @param member  of the ensemble, from 0
void redraw(std::vector<LightComponent>& lights, const std::vector<LightStart>& starts, std::size_t member) {
  for (std::size_t i = 0; i < lights.size(); ++i)
    if (lights[i].kind == LightKind::network && lights[i].weights_free && starts.at(i).network.initial.empty())
      lights[i].weights = drawn_weights(lights[i].network, starts[i].network, member);
}

/// Grids without pixel_scale follow the rays; the first place is that of the lens that the fit starts from.
void follow_rays(const Config& config, const Observation& o, Model& model) {
  for (LightComponent& light : model.source)
    light.follows_rays = light.kind == LightKind::pixelated && light.grid.pixel_scale == 0;
  if (place_source_grids(model, o)) return;
  const auto first = std::find_if(model.source.begin(), model.source.end(),
                                  [](const LightComponent& light) { return light.follows_rays; });
  throw InvalidInput(config.at("source." + std::to_string(first - model.source.begin())) +
                     ": pixel_scale is missing and the rays of the used pixels span no area, expected a number > 0 "
                     "arcsec");
}

}  // namespace

std::vector<double> pixel_noise(const NoiseConfig& noise, const std::vector<double>& brightness) {
  if (noise.value) return std::vector<double>(brightness.size(), *noise.value);
  std::vector<double> sigma;
  sigma.reserve(brightness.size());
  for (const double v : brightness) sigma.push_back(photon_noise(v, *noise.background_rms, *noise.exposure_time));
  return sigma;
}

Psf load_psf(const PsfConfig& psf, const Grid& pixels, int supersampling, const std::string& key, LoadedProblem& loaded,
             FitsImages& files) {
  if (psf.type.empty()) return {};
  Grid grid = pixels;  // of the sub-pixels on which the image is convolved
  grid.nx *= supersampling;
  grid.ny *= supersampling;
  grid.pixel_scale /= supersampling;
  if (psf.kernel.empty()) {
    Psf made = psf_from_profile(psf, grid.pixel_scale, key);
    check_psf_size(key, made.nx, made.ny, grid);
    made.supersampling = supersampling;
    return made;
  }
  FitsImage image = files.read(psf.kernel);
  const std::string name = name_of(psf.kernel, image);
  check_scale(name, image, grid.pixel_scale);
  check_sampling(name, image, pixels.pixel_scale, supersampling, loaded);
  EINFIELD_REQUIRE(image.nx % 2 == 1 && image.ny % 2 == 1,
                   name + ": a PSF of even size, found " + size_text(image.nx, image.ny) +
                       " pixels, expected odd numbers, centered on the middle pixel");
  check_psf_size(name, image.nx, image.ny, grid);
  const std::size_t bad = first_not_finite(image.values);
  EINFIELD_REQUIRE(bad == image.values.size(), name + ": a PSF that is not finite, found " +
                                                   rounded(image.values[bad]) + " at " + pixel_text(bad, image.nx) +
                                                   ", expected finite values everywhere");
  double sum = 0;
  for (const double v : image.values) sum += v;
  EINFIELD_REQUIRE(sum > 0 && std::isfinite(sum), name + ": the PSF sums to " + rounded(sum) + ", expected > 0");
  if (std::abs(sum - 1) > kSumTolerance)
    loaded.warnings.push_back(name + ": the PSF sums to " + rounded(sum) + ", normalized to 1");
  for (double& v : image.values) v /= sum;
  const Vec2<double> centroid = (1.0 / supersampling) * centroid_of(image);
  const auto thousandths = [](double v) { return rounded(std::round(1e3 * v) / 1e3 + 0.0); };  // no "-0"
  if (std::max(std::abs(centroid.x), std::abs(centroid.y)) > flag_info(Flag::psf_off_center).threshold)
    warn(loaded, Flag::psf_off_center,
         name + ": the PSF is off-center by (" + thousandths(centroid.x) + ", " + thousandths(centroid.y) +
             ") pixels; the model image is shifted by the same amount");
  return {image.nx, image.ny, std::move(image.values), supersampling};
}

NoiseCorrelation load_noise_correlation(const FitsReference& kernel) {
  FitsImage image = read_fits(kernel);
  const std::string name = name_of(kernel, image);
  EINFIELD_REQUIRE(image.nx % 2 == 1 && image.ny % 2 == 1,
                   name + ": a correlation of even size, found " + size_text(image.nx, image.ny) +
                       " pixels, expected odd numbers, with offset 0 in the middle pixel");
  const std::size_t n = image.values.size();
  const auto check = [&](std::size_t i, bool valid, const std::string& expected) {
    EINFIELD_REQUIRE(valid, name + ": not a correlation, found " + rounded(image.values[i]) + " at " +
                                pixel_text(i, image.nx) + ", expected " + expected);
  };
  for (std::size_t i = 0; i < n; ++i) {
    const double value = image.values[i], mirrored = image.values[n - 1 - i];
    check(i, std::abs(value) <= 1 + kCorrelationTolerance, "a number in [-1, 1]");
    check(i, std::abs(value - mirrored) <= kCorrelationTolerance,
          rounded(mirrored) + " as at " + pixel_text(n - 1 - i, image.nx));
  }
  check(n / 2, std::abs(image.values[n / 2] - 1) <= kCorrelationTolerance, "1 in the middle pixel");
  NoiseCorrelation correlation{image.nx, image.ny, std::move(image.values)};
  const std::vector<double> power = noise_power(correlation, fast_size(4 * image.nx), fast_size(4 * image.ny));
  const double least = *std::min_element(power.begin(), power.end());
  EINFIELD_REQUIRE(
      least >= -kCorrelationTolerance * *std::max_element(power.begin(), power.end()),
      name + ": not a correlation, found a power of " + rounded(least) + " at one frequency, expected none below 0");
  return correlation;
}

Model load_model(const Config& config, const Grid& grid) {
  Model model = config.model;
  model.prior_weight = config.optimizer.prior_weight;
  const double unit = field_unit(grid);
  if (model.network && config.network) model.network->input_scale = config.network->input_scale_in(unit);
  const auto fill = [unit](std::vector<LightComponent>& lights, const std::vector<LightStart>& starts) {
    for (std::size_t i = 0; i < lights.size(); ++i) {
      LightComponent& c = lights[i];
      const LightStart& start = starts.at(i);
      if (c.kind == LightKind::network) c.network.input_scale = start.network.input_scale_in(unit);
      if (c.kind == LightKind::network)
        c.weights = start.network.initial.empty() ? drawn_weights(c.network, start.network, 0)
                                                  : load_weights(start.network.initial, c.network);
      if (c.kind != LightKind::pixelated) continue;
      c.pixels.assign(static_cast<std::size_t>(c.grid.nx) * static_cast<std::size_t>(c.grid.ny), start.value);
      if (start.image.empty()) continue;
      FitsImage image = read_fits(start.image);
      const std::string name = name_of(start.image, image);
      check_size(name, image, c.grid.nx, c.grid.ny, "nx and ny of the PIXELATED component");
      check_scale(name, image, c.grid.pixel_scale);
      const std::size_t bad = first_not_finite(image.values);
      EINFIELD_REQUIRE(bad == image.values.size(),
                       name + ": not finite at " + pixel_text(bad, image.nx) + ", expected finite values everywhere");
      c.pixels = std::move(image.values);
    }
  };
  fill(model.source, config.source_start);
  fill(model.lens_light, config.lens_light_start);
  return model;
}

std::vector<std::uint8_t> held_out_pixels(const Config& config, const Observation& o) {
  const Philox philox{config.optimizer.held_out_seed};
  std::vector<std::uint8_t> held_out(o.mask.size(), 0);
  int fitted = 0, judged = 0;
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    if (!o.mask[i]) continue;
    held_out[i] = philox.uniform(i) < config.optimizer.held_out;
    ++(held_out[i] ? judged : fitted);
  }
  EINFIELD_REQUIRE(fitted > 0 && judged > 0, config.at("optimizer.held_out") + ": unusable fraction, found " +
                                                 std::to_string(judged) + " of " + std::to_string(fitted + judged) +
                                                 " used pixels held out, expected at least one but not all");
  return held_out;
}

std::vector<Problem> ensemble_problems(const Config& config, const Problem& problem) {
  const int n = config.network ? config.network->ensemble : 1;
  std::vector<Problem> problems(static_cast<std::size_t>(n), problem);
  for (std::size_t i = 1; i < problems.size(); ++i) {
    const NetworkConfig& network = *config.network;
    Model& model = problems[i].model;
    redraw(model.source, config.source_start, i);
    redraw(model.lens_light, config.lens_light_start, i);
    problems[i].initial_parameters =
        ParameterLayout(model).initial_parameters(drawn_potential(problems[i], network, i));
    check_phases(config, problems[i]);
  }
  return problems;
}

LoadedProblem load_problem(const Config& config) {
  LoadedProblem loaded;
  Problem& problem = loaded.problem;
  Observation& o = problem.observation;

  FitsImages files;
  FitsImage image = files.read(config.observation.image);
  const std::string image_name = name_of(config.observation.image, image);
  o.grid = image_grid(config, image, image_name);
  loaded.pixel_scale = o.grid.pixel_scale;
  loaded.unit = image.unit;
  loaded.wcs = image.wcs;
  loaded.zero_point = config.observation.zero_point ? config.observation.zero_point : image.zero_point;
  const MapReader maps(files, o.grid, image_name, image, config.observation.image.section);
  o.mask = read_mask(config.observation, maps, o.grid);
  std::vector<std::uint8_t> usable = o.mask;
  apply_regions(config.observation.regions, o.grid, o.mask);
  const Noise noise = read_noise(config, maps, image.values);
  o.noise = noise.sigma;
  o.image = std::move(image.values);
  for (std::size_t i = 0; i < usable.size(); ++i)
    usable[i] = usable[i] && std::isfinite(o.image[i]) && std::isfinite(o.noise[i]) && o.noise[i] > 0;
  apply_data_rules(config, image_name, noise, o, loaded);
  add_noise_correlation(config, image_name, o, usable, loaded);
  add_model_error(config.observation, o);
  o.psf = load_psf(config.observation.psf, o.grid, config.observation.psf_supersampling, config.at("observation.psf"),
                   loaded, files);

  problem.model = load_model(config, o.grid);
  follow_rays(config, o, problem.model);
  problem.loss = config.optimizer.loss;
  if (config.network) problem.network_math = config.network->math;
  problem.regularization = in_image_unit(config.regularization, o, problem.loss);
  if (holds_out(config.optimizer)) problem.held_out = held_out_pixels(config, o);
  std::vector<double> network;
  if (config.network)
    network = config.network->initial.empty() ? drawn_potential(problem, *config.network, 0)
                                              : load_weights(config.network->initial, *problem.model.network);
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters(network);
  check_phases(config, problem);

  if (!config.truth.empty())
    loaded.truth = Truth{maps.truth(config.truth, "IMAGE_TRUE"), maps.truth(config.truth, "PSI_TRUE"),
                         maps.truth(config.truth, "ALPHA_TRUE", 2), maps.truth(config.truth, "KAPPA_TRUE")};
  return loaded;
}

}  // namespace einfield
