// From files to a configuration: what to read, what the image shows, and the text.
#include "host/app/new.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "host/config/survey.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/fits_text.hpp"
#include "host/files/text.hpp"
#include "host/model/median.hpp"

namespace einfield {
namespace {

constexpr double kNoiseFactor = 3;  ///< between the scatter of the sky and the noise map: beyond, it is of another kind
constexpr double kFloorFactor = 1.2;    ///< sky scatter per noise that makes a floor necessary
constexpr double kSamplesPerWidth = 3;  ///< rays per FWHM of the PSF and axis
constexpr int kMostRays = 4;            ///< per pixel and axis
constexpr double kRadius = 2.4;         ///< of the fitted region [theta_E]
constexpr double kModelError = 0.03;    ///< of the brightness
constexpr double kMargin = 2;           ///< around what is fitted [pixels]
constexpr double kWorthCutting = 0.8;   ///< of the pixels: a part that has more of them is not cut out

FitsReference reference(const std::string& option, const std::string& text) {
  FitsReference result;
  if (const std::string problem = read_reference(text, result); !problem.empty())
    throw InvalidInput(option + ": " + problem);
  result.path = std::filesystem::absolute(result.path).lexically_normal().string();
  return result;
}

/// A text in TOML, which shares its escapes with JSON.
std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string number(double value) {
  std::string text = fmt::format("{:.4g}", value == 0 ? 0.0 : value);  // no "-0"
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

/// The lines of a configuration: keys with comments behind them.
class Lines {
 public:
  void key(const std::string& name, const std::string& value, const std::string& reason = "") {
    std::string text = name + " = " + value;
    if (!reason.empty()) {
      text.resize(std::max(text.size() + 2, kColumn), ' ');
      text += "# " + reason;
    }
    lines_ += text + "\n";
  }
  void key(const std::string& name, double value, const std::string& reason = "") { key(name, number(value), reason); }
  void key(const std::string& name, int value, const std::string& reason = "") {
    key(name, std::to_string(value), reason);
  }
  void comment(const std::string& text) { lines_ += "# " + text + "\n"; }
  void table(const std::string& title) { lines_ += "\n" + title + "\n"; }
  const std::string& text() const { return lines_; }

 private:
  static constexpr std::size_t kColumn = 36;
  std::string lines_;
};

/// What the files say, and what was decided about them.
struct Files {
  Config config;  ///< with [observation] only
  LoadedProblem loaded;
  std::string noise_reason, mask_reason, psf_reason, scale_reason;
};

/// Shares of the used pixels in the middle and at the rim of a mask.
struct MaskShares {
  double middle = 0, rim = 0;
};

MaskShares shares(const FitsImage& mask, bool used_is_zero) {
  int middle = 0, middle_used = 0, rim = 0, rim_used = 0;
  for (int y = 0; y < mask.ny; ++y)
    for (int x = 0; x < mask.nx; ++x) {
      const double value = mask.values[static_cast<std::size_t>(y * mask.nx + x)];
      const bool used = used_is_zero ? value == 0 : value == 1;
      const double u = (x + 0.5) / mask.nx - 0.5, v = (y + 0.5) / mask.ny - 0.5;
      if (std::hypot(u, v) < 0.25) {
        ++middle;
        middle_used += used;
      }
      if (x == 0 || y == 0 || x + 1 == mask.nx || y + 1 == mask.ny) {
        ++rim;
        rim_used += used;
      }
    }
  return {middle > 0 ? double(middle_used) / middle : 0, rim > 0 ? double(rim_used) / rim : 0};
}

/// Which value of the mask means "use": the one that keeps the middle of the image.
void read_mask(const NewOptions& options, Files& files) {
  if (options.mask.empty()) return;
  ObservationConfig& o = files.config.observation;
  o.mask = reference("--mask", options.mask);
  const FitsImage mask = read_fits(o.mask);
  const bool others = std::any_of(mask.values.begin(), mask.values.end(), [](double v) { return v != 0 && v != 1; });
  const MaskShares one = shares(mask, false), zero = shares(mask, true);
  if (others) {
    o.mask_used = 0;
    files.mask_reason = "the mask has values other than 0 and 1: a map of flags, 0 = good";
  } else if (one.middle < 0.5 && zero.middle > 0.5) {
    o.mask_used = 0;
    files.mask_reason =
        fmt::format("{:.0f} % of the middle of the image is 0 in the mask: 0 = used", 100 * zero.middle);
  }
}

void read_psf(const NewOptions& options, Files& files) {
  ObservationConfig& o = files.config.observation;
  if (options.psf.empty())
    throw InvalidInput("--psf: missing, expected \"FILE[HDU]\" with the kernel, or none for an image without a PSF");
  if (options.psf == "none") return;
  o.psf.kernel = reference("--psf", options.psf);
  o.psf.type = "file";
  const FitsImage kernel = read_fits(o.psf.kernel);
  const double scale = *o.pixel_scale;
  // load_problem() refuses a kernel whose sampling is no whole number of samples per pixel.
  double factor = 1;
  if (kernel.kernel_scale > 0) {
    factor = scale / kernel.kernel_scale;
    files.psf_reason = "PIXELSCL = " + rounded(kernel.kernel_scale) + " arcsec in the header of the PSF";
  } else if (kernel.kernel_oversampling > 0) {
    factor = kernel.kernel_oversampling;
    files.psf_reason = "OVERSAMP = " + rounded(kernel.kernel_oversampling) + " in the header of the PSF";
  } else if (kernel.wcs) {
    factor = scale / kernel.wcs->pixel_scale;
    files.psf_reason = "pixels of " + rounded(kernel.wcs->pixel_scale) + " arcsec in the WCS of the PSF";
  }
  o.psf_supersampling = std::clamp(static_cast<int>(std::lround(factor)), 1, kMaxSupersampling);
  o.supersampling = o.psf_supersampling;
}

void read_scale(const NewOptions& options, Files& files) {
  ObservationConfig& o = files.config.observation;
  o.image = reference("IMAGE", options.image);
  const FitsImage image = read_fits(o.image);
  o.pixel_scale = options.pixel_scale;
  if (o.pixel_scale) {
    files.scale_reason = "as given";
  } else if (image.wcs) {
    o.pixel_scale = image.wcs->pixel_scale;
    files.scale_reason = "from the WCS of the image";
  } else {
    throw InvalidInput("--pixel-scale: missing, found no celestial WCS in " + options.image +
                       ", expected the side of a pixel in arcsec");
  }
}

void read_noise(const NewOptions& options, Files& files) {
  NoiseConfig& noise = files.config.observation.noise;
  if (options.noise.empty())
    throw InvalidInput("--noise: missing, expected \"FILE[HDU]\" with 1 sigma of every pixel, or a number > 0");
  if (const std::optional<double> value = parse_number<double>(options.noise)) {
    if (!(*value > 0) || !std::isfinite(*value))
      throw InvalidInput("--noise: out of range, found " + options.noise + ", expected a number > 0 or \"FILE[HDU]\"");
    if (!options.noise_kind.empty())
      throw InvalidInput("--noise-kind: has no effect, found " + options.noise_kind +
                         " with a number as noise, expected it with a map");
    noise.value = value;
    return;
  }
  noise.map = reference("--noise", options.noise);
  if (options.noise_kind == "variance") noise.kind = NoiseKind::variance;
  if (options.noise_kind == "weight") noise.kind = NoiseKind::weight;
}

/// A map that fits the scatter of the sky only as a variance or as a weight is one.
void decide_noise_kind(const NewOptions& options, Files& files, const Survey& first) {
  NoiseConfig& noise = files.config.observation.noise;
  if (noise.map.empty() || !options.noise_kind.empty() || !(first.sky_scatter > 0) || !(first.sky_noise > 0)) return;
  const auto off = [&](double sigma) { return std::abs(std::log(sigma / first.sky_scatter)); };
  const double limit = std::log(kNoiseFactor), as_sigma = off(first.sky_noise);
  const double as_variance = off(std::sqrt(first.sky_noise)), as_weight = off(1 / std::sqrt(first.sky_noise));
  if (as_sigma < limit || std::min(as_variance, as_weight) > 0.5 * limit) return;
  noise.kind = as_variance < as_weight ? NoiseKind::variance : NoiseKind::weight;
  files.noise_reason = fmt::format("its values fit the scatter of blank sky, {:.3g}, as {} and not as 1 sigma",
                                   first.sky_scatter, as_variance < as_weight ? "sigma^2" : "1/sigma^2");
}

Files read_files(const NewOptions& options, Survey& found) {
  Files files;
  files.config.file = "einfield new";
  for (const auto& [key, option] : {std::pair("observation.psf", "--psf"), {"observation.noise", "--noise"}})
    files.config.places[key] = option;
  read_scale(options, files);
  read_noise(options, files);
  read_psf(options, files);
  read_mask(options, files);
  files.loaded = load_problem(files.config);
  found = survey(files.loaded.problem.observation);
  decide_noise_kind(options, files, found);
  if (files.noise_reason.empty()) return files;
  files.loaded = load_problem(files.config);
  found = survey(files.loaded.problem.observation);
  return files;
}

// ---- the text ------------------------------------------------------------------------------------------------

void write_noise(Lines& to, const Files& files, const Survey& s) {
  const NoiseConfig& noise = files.config.observation.noise;
  to.key("noise", noise.value ? number(*noise.value) : quoted(text_of(noise.map)));
  if (noise.kind != NoiseKind::sigma)
    to.key("noise_kind", noise.kind == NoiseKind::variance ? "\"variance\"" : "\"weight\"",
           files.noise_reason.empty() ? "as given" : files.noise_reason);
  const std::string sky = fmt::format("{} pixels of blank sky scatter by {:.3g}, their noise is {:.3g}", s.sky_pixels,
                                      s.sky_scatter, s.sky_noise);
  if (s.sky_scatter > kFloorFactor * s.sky_noise)
    to.key("noise_floor", s.sky_scatter, sky + ": at least that");
  else
    to.comment(sky + (s.sky_scatter < s.sky_noise / kFloorFactor
                          ? ": less, as in drizzled images, whose pixels share noise; chi2 lies below 1; "
                            "measure_noise_correlation = true accounts for it and takes longer"
                          : ": no floor is needed"));
}

int supersampling_of(const Files& files) {
  const Observation& o = files.loaded.problem.observation;
  const double width = width_of(o.psf);
  const int least = width > 0 ? static_cast<int>(std::ceil(kSamplesPerWidth / width)) : 2;
  const int step = files.config.observation.psf_supersampling;
  return std::max(step, (std::clamp(least, 2, kMostRays) + step - 1) / step * step);
}

/// Of the circle that is fitted [arcsec].
double fitted_radius(const Files& files, const Survey& s) {
  const Grid& g = files.loaded.problem.observation.grid;
  return std::min(std::max(kRadius * s.theta_E, s.outer + 0.5 * s.theta_E), 0.5 * std::min(g.nx, g.ny) * g.pixel_scale);
}

/// The part of the image around its middle that the fitted circle and the PSF reach; nothing when that is most of it.
/// The middle stays the middle, so that coordinates mean the same.
std::optional<FitsSection> needed_part(const Files& files, const Survey& s) {
  const Observation& o = files.loaded.problem.observation;
  const double reach = fitted_radius(files, s) / o.grid.pixel_scale + kMargin +
                       0.5 * std::max(o.psf.nx, o.psf.ny) / std::max(o.psf.supersampling, 1);
  const auto side = [&](int n, double center) {
    const int half = static_cast<int>(std::ceil(reach + std::abs(center) / o.grid.pixel_scale));
    return std::min(2 * half + n % 2, n);
  };
  const int nx = side(o.grid.nx, s.center.x), ny = side(o.grid.ny, s.center.y);
  if (files.config.observation.image.section || nx * ny > kWorthCutting * o.grid.nx * o.grid.ny) return std::nullopt;
  const int left = (o.grid.nx - nx) / 2, low = (o.grid.ny - ny) / 2;
  return FitsSection{left + 1, left + nx, low + 1, low + ny};
}

void write_observation(Lines& to, const Files& files, const Survey& s) {
  const ObservationConfig& o = files.config.observation;
  const Observation& data = files.loaded.problem.observation;
  to.table("[observation]");
  const std::optional<FitsSection> part = needed_part(files, s);
  FitsReference image = o.image;
  if (part) image.section = part;
  to.key("image", quoted(text_of(image)), part ? "columns and rows that the fit needs; maps are cut like it" : "");
  write_noise(to, files, s);
  if (!o.psf.kernel.empty()) to.key("psf", quoted(text_of(o.psf.kernel)));
  if (o.psf_supersampling > 1) to.key("psf_supersampling", o.psf_supersampling, files.psf_reason);
  if (!o.mask.empty()) to.key("mask", quoted(text_of(o.mask)));
  if (o.mask_used != 1) to.key("mask_used", o.mask_used, files.mask_reason);
  to.key("max_noise", o.max_noise, "times the median noise: what is noisier is a mark of a bad pixel or a neighbor");
  to.key("pixel_scale", to_text(*o.pixel_scale), files.scale_reason);
  to.key("supersampling", supersampling_of(files),
         data.psf.empty() ? "without a PSF, profiles are sharp"
                          : fmt::format("the PSF is {:.2g} pixels wide (FWHM): {:g} rays across it", width_of(data.psf),
                                        kSamplesPerWidth));
  to.key("model_error", kModelError,
         "of the brightness: Sersics miss galaxies by some percent, which is more than "
         "the noise in bright pixels");
}

void write_regions(Lines& to, const Files& files, const Survey& s) {
  const double radius = fitted_radius(files, s);
  to.table("[[observation.region]]");
  to.key("shape", "\"circle\"");
  to.key("center_x", s.center.x);
  to.key("center_y", s.center.y);
  to.key("radius", radius, fmt::format("the arcs reach to {:.2f} arcsec; the galaxy shows beside them", s.outer));
  for (const Neighbor& n : s.neighbors) {
    if (hypot(n.center.x - s.center.x, n.center.y - s.center.y) > radius + n.radius) continue;
    to.table("[[observation.region]]");
    to.comment("a group of bright pixels outside the arcs: taken as a neighbor");
    to.key("shape", "\"circle\"");
    to.key("center_x", n.center.x);
    to.key("center_y", n.center.y);
    to.key("radius", n.radius);
    to.key("keep", "false");
  }
}

std::string normal(double mean, double sigma) {
  return "{ mean = " + number(mean) + ", sigma = " + number(sigma) + " }";
}

std::string interval(double lower, double upper) {
  return "[" + number(lower) + ", " + number(upper) + "]";
}

/// An interval around a component of an ellipticity, inside the range where any two of them are one.
std::string around(double e, double reach) {
  return interval(std::max(e - reach, -0.65), std::min(e + reach, 0.65));
}

std::string theta_E_reason(const Survey& s) {
  if (!s.arcs) return "no arcs were found: a fifth of half the side of the image, not measured";
  return s.pairs
             ? fmt::format("half the distance of opposite arcs ({} pixels above 5 sigma)", s.arc_pixels)
             : fmt::format("3/4 of the radius of the arcs ({} pixels above 5 sigma), whose counter-images are not seen",
                           s.arc_pixels);
}

void write_mass(Lines& to, const Survey& s, double pixel) {
  const double sigma = s.pairs ? 0.2 : 0.35;
  const double inner = std::max(0.05 * s.theta_E, pixel);
  to.table("[[lens]]");
  to.key("profile", "\"SIE\"");
  to.key("theta_E", s.theta_E, theta_E_reason(s));
  to.key("e1", s.e1, "as the light: the mass of galaxies follows it");
  to.key("e2", s.e2);
  to.key("center_x", s.center.x, "the center of the light");
  to.key("center_y", s.center.y);
  to.key("fit", R"(["theta_E", "e1", "e2", "center_x", "center_y"])");
  to.table("[lens.bounds]");
  to.key("theta_E", interval(s.theta_E * (s.pairs ? 0.5 : 0.35), s.theta_E * (s.pairs ? 1.8 : 2.5)));
  to.key("e1", around(s.e1, 0.3));
  to.key("e2", around(s.e2, 0.3));
  to.key("center_x", interval(s.center.x - 5 * inner, s.center.x + 5 * inner),
         "stars lie at the bottom of the potential; chi2 alone would let the mass leave them");
  to.key("center_y", interval(s.center.y - 5 * inner, s.center.y + 5 * inner));
  to.table("[lens.prior]");
  to.key("theta_E", normal(s.theta_E, sigma * s.theta_E));
  to.key("e1", normal(s.e1, 0.1),
         "q(mass)/q(light) scatters by 0.11 (Koopmans et al. 2006), and the light is measured "
         "through the PSF");
  to.key("e2", normal(s.e2, 0.1));
  to.key("center_x", normal(s.center.x, inner), "a pixel, or 5 % of theta_E");
  to.key("center_y", normal(s.center.y, inner));
  to.table("[[lens]]");
  to.key("profile", "\"SHEAR\"");
  to.key("gamma1", 0.0);
  to.key("gamma2", 0.0);
  to.key("fit", R"(["gamma1", "gamma2"])");
  to.table("[lens.bounds]");
  to.key("gamma1", interval(-0.3, 0.3));
  to.key("gamma2", interval(-0.3, 0.3));
  to.table("[lens.prior]");
  to.key("gamma1", normal(0, 0.05), "of galaxies in the field and in groups");
  to.key("gamma2", normal(0, 0.05));
}

/// A first amplitude, in the unit of the image.
double brightness(const Survey& s) {
  const double sigma = s.sky_scatter > 0 ? s.sky_scatter : s.sky_noise;
  return sigma > 0 ? 3 * sigma : 1;
}

void write_source(Lines& to, const Survey& s, double pixel) {
  to.table("[[source]]");
  to.key("profile", "\"SERSIC_ELLIPSE\"");
  to.key("amp", brightness(s), "three times the scatter of the sky: the fit finds the amplitudes");
  to.key("R_sersic", 0.15 * s.theta_E);
  to.key("n_sersic", 1.0);
  to.key("center_x", s.source.x, "the mean of the arcs, traced back by an isothermal sphere");
  to.key("center_y", s.source.y);
  to.key("fit", R"(["amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y"])");
  to.table("[source.bounds]");
  to.key("R_sersic", interval(0.1 * pixel, 0.5 * s.theta_E), "a larger source would replace the light of the lens");
  to.key("n_sersic", "[0.3, 5.0]");
  to.table("[source.prior]");
  to.key("e1", normal(0, 0.25));
  to.key("e2", normal(0, 0.25));
  to.key("center_x", normal(s.source.x, 0.25 * s.theta_E));
  to.key("center_y", normal(s.source.y, 0.25 * s.theta_E));
}

/// About as many pixels as the image has where the rays of the fitted circle come from.
void write_source_pixels(Lines& to, const Files& files, const Survey& s) {
  constexpr int kFewest = 20, kMost = 60;
  const double side = 2 * (fitted_radius(files, s) - s.theta_E) / files.loaded.pixel_scale;
  const int n = std::clamp(static_cast<int>(std::ceil(side)), kFewest, kMost);
  to.table("[[source]]");
  to.comment("what the Sersic misses; the grid covers where the rays come from, and the evidence sets its priors");
  to.key("profile", "\"PIXELATED\"");
  to.key("nx", n, "a pixel is about as wide as one of the image");
  to.key("ny", n);
  to.key("fit", R"(["pixels"])");
}

/// @param field  side of the image [arcsec]
void write_light(Lines& to, const Survey& s, double pixel, double field) {
  for (const bool bulge : {true, false}) {
    to.table("[[lens_light]]");
    to.key("profile", "\"SERSIC_ELLIPSE\"");
    to.key("amp", brightness(s));
    to.key("R_sersic", std::clamp((bulge ? 0.5 : 1.5) * s.half_light_radius, pixel, 0.5 * field),
           fmt::format("half of the light lies within {:.2g} arcsec", s.half_light_radius));
    to.key("n_sersic", bulge ? 3.0 : 1.0, bulge ? "a bulge and an envelope" : "");
    to.key("e1", s.e1, "moments of the galaxy within theta_E");
    to.key("e2", s.e2);
    to.key("center_x", s.center.x);
    to.key("center_y", s.center.y);
    to.key("fit", R"(["amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y"])");
    to.table("[lens_light.bounds]");
    to.key("R_sersic", interval(0.2 * pixel, field), "a larger galaxy cannot be told from sky");
    to.table("[lens_light.prior]");
    to.key("e1", normal(s.e1, 0.15));
    to.key("e2", normal(s.e2, 0.15));
    to.key("center_x", normal(s.center.x, pixel));
    to.key("center_y", normal(s.center.y, pixel));
  }
  to.table("[[lens_light]]");
  to.key("profile", "\"UNIFORM\"");
  to.key("amp", s.background, fmt::format("sky: the median of {} pixels far from the lens", s.sky_pixels));
  to.key("fit", R"(["amp"])");
  to.table("[lens_light.prior]");
  to.key("amp", normal(s.background, std::max({3 * s.sky_scatter, std::abs(s.background), s.sky_noise})),
         "the halo of the galaxy may reach there");
}

}  // namespace

FirstConfiguration first_configuration(const NewOptions& options) {
  Survey s;
  const Files files = read_files(options, s);
  const double pixel = files.loaded.pixel_scale;
  Lines to;
  to.comment("A first configuration by einfield new: guesses, each with its reason. Change what you know better.");
  to.key("title", quoted(std::filesystem::path(files.config.observation.image.path).filename().string()));
  to.key("recipe", "\"galaxy\"", "light without the arcs, then lens and source from many starts, then all");
  write_observation(to, files, s);
  write_regions(to, files, s);
  write_mass(to, s, pixel);
  write_source(to, s, pixel);
  if (options.pixels || options.network) write_source_pixels(to, files, s);
  const Grid& g = files.loaded.problem.observation.grid;
  write_light(to, s, pixel, std::min(g.nx, g.ny) * pixel);
  if (options.network) {
    to.table("[network]");
    to.comment("of the default recipe: a linear function of Fourier features, whose priors the evidence sets");
  }
  FirstConfiguration result{to.text(), {}, {}};
  for (const RaisedFlag& flag : files.loaded.flags) result.warnings.push_back(flag.text);
  if (!s.arcs)
    result.doubts.push_back(
        fmt::format("{}: no arcs were found beside the galaxy ({} pixels above 5 sigma, expected "
                    "at least 9): it may not be a lens, and theta_E is not measured",
                    options.image, s.arc_pixels));
  return result;
}

bool is_fits(const std::string& image) {
  if (std::filesystem::path(image).extension() == ".toml") return false;
  FitsReference reference;
  read_reference(image, reference);
  std::ifstream file(reference.path, std::ios::binary);
  char start[6] = {};
  file.read(start, sizeof start);
  const std::string text(start, static_cast<std::size_t>(file.gcount()));
  return text == "SIMPLE" || text.substr(0, 2) == "\x1f\x8b";
}

}  // namespace einfield
