// Distributions are stated beside their draws. Sizes are arcsec, brightness is in the unit of the image per pixel.
#include "host/app/simulate_survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/core.hpp"
#include "einfield/error.hpp"
#include "einfield/random.hpp"
#include "host/app/simulate.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/ecsv.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

constexpr double kPixelScale = 0.05;
constexpr double kWithSubhalo = 0.1, kBroken = 0.05;

/// What all lenses of the survey share, and where their fits start. The [simulate] table is for the images.
constexpr const char* kTemplate =
    R"(# Made by einfield simulate --survey: the template of all lenses, from which fits start without their truth.
title = "simulated survey"
recipe = "galaxy"

[observation]
image = "replaced.fits"
noise = 1.0
pixel_scale = 0.05
supersampling = 2

[[lens]]
profile = "SIE"
theta_E = 0.8
e1 = 0.0
e2 = 0.0
fit = ["theta_E", "e1", "e2", "center_x", "center_y"]
bounds = { theta_E = [0.2, 1.8], e1 = [-0.5, 0.5], e2 = [-0.5, 0.5], center_x = [-0.3, 0.3], center_y = [-0.3, 0.3] }

[[lens]]
profile = "SHEAR"
gamma1 = 0.001
gamma2 = 0.001
fit = ["gamma1", "gamma2"]
bounds = { gamma1 = [-0.3, 0.3], gamma2 = [-0.3, 0.3] }

[[source]]
profile = "SERSIC_ELLIPSE"
amp = 0.3
R_sersic = 0.12
n_sersic = 1.3
e1 = 0.0
e2 = 0.0
center_x = 0.01
center_y = 0.01
fit = ["amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y"]
bounds = { R_sersic = [0.01, 1.0], n_sersic = [0.4, 5.0], center_x = [-0.8, 0.8], center_y = [-0.8, 0.8] }

[[lens_light]]
profile = "SERSIC_ELLIPSE"
amp = 0.1
R_sersic = 0.5
n_sersic = 3.0
e1 = 0.0
e2 = 0.0
fit = ["amp", "R_sersic", "n_sersic", "e1", "e2", "center_x", "center_y"]
bounds = { R_sersic = [0.05, 3.0], n_sersic = [0.5, 8.0], center_x = [-0.3, 0.3], center_y = [-0.3, 0.3] }

[simulate]
nx = 64
ny = 64
noise = 1.0
)";

/// What is wrong with the files of a broken lens.
constexpr std::string_view kFaults[] = {"image_missing", "image_truncated", "image_nan",      "noise_zero",
                                        "noise_shape",   "noise_small",     "psf_off_center", "psf_even"};

struct Drawn {
  std::string id;
  int nx = 0, ny = 0;
  std::vector<std::pair<std::string, double>> values;  ///< keys of the template
  double psf_fwhm = 0, background_rms = 0, exposure_time = 0;
  double perturber = 0, perturber_x = 0, perturber_y = 0;
  std::string broken;
};

/// The random numbers of one lens, one after the other.
class Draws {
 public:
  Draws(std::uint64_t seed, int lens) : philox_{seed}, next_(static_cast<std::uint64_t>(lens) * 1000) {}
  double uniform(double lower, double upper) { return lower + (upper - lower) * philox_.uniform(next_++, kStream); }
  double normal(double mean, double sigma) { return mean + sigma * philox_.normal(next_++, kStream); }
  /// exp of a normal number, in a range.
  double log_normal(double median, double scatter, double lower, double upper) {
    return std::clamp(median * std::exp(normal(0, scatter)), lower, upper);
  }
  /// Ellipticity of an axis ratio and a direction that is uniform.
  std::array<double, 2> ellipticity(double q) {
    const double e = (1 - q) / (1 + q), phi = uniform(0, kPi);
    return {e * std::cos(2 * phi), e * std::sin(2 * phi)};
  }

 private:
  static constexpr std::uint64_t kStream = 7;  ///< one that fits do not use
  Philox philox_;
  std::uint64_t next_;
};

Drawn draw(std::uint64_t seed, int index) {
  Draws draws(seed, index);
  Drawn d;
  d.id = fmt::format("lens{:06}", index);
  // A side of 64 to 80 pixels.
  d.nx = d.ny = 64 + 2 * static_cast<int>(draws.uniform(0, 9));
  const double theta_E = draws.log_normal(0.8, 0.2, 0.5, 1.2);
  const auto mass = draws.ellipticity(draws.uniform(0.55, 0.98));
  const double x = draws.normal(0, 0.02), y = draws.normal(0, 0.02);
  const double gamma1 = std::clamp(draws.normal(0, 0.035), -0.1, 0.1);
  const double gamma2 = std::clamp(draws.normal(0, 0.035), -0.1, 0.1);
  // The source is uniform in a disk of 0.4 theta_E.
  const double distance = 0.4 * theta_E * std::sqrt(draws.uniform(0, 1)), angle = draws.uniform(0, 2 * kPi);
  const auto source = draws.ellipticity(draws.uniform(0.5, 0.98));
  const auto light = draws.ellipticity(draws.uniform(0.6, 0.98));
  d.values = {{"lens.0.theta_E", theta_E},
              {"lens.0.e1", mass[0]},
              {"lens.0.e2", mass[1]},
              {"lens.0.center_x", x},
              {"lens.0.center_y", y},
              {"lens.1.gamma1", gamma1},
              {"lens.1.gamma2", gamma2},
              {"source.0.amp", draws.log_normal(0.3, 0.4, 0.12, 0.8)},
              {"source.0.R_sersic", draws.log_normal(0.12, 0.35, 0.05, 0.3)},
              {"source.0.n_sersic", draws.uniform(0.7, 2.2)},
              {"source.0.e1", source[0]},
              {"source.0.e2", source[1]},
              {"source.0.center_x", x + distance * std::cos(angle)},
              {"source.0.center_y", y + distance * std::sin(angle)},
              {"lens_light.0.amp", draws.log_normal(0.1, 0.4, 0.03, 0.3)},
              {"lens_light.0.R_sersic", draws.log_normal(0.5, 0.25, 0.25, 1.0)},
              {"lens_light.0.n_sersic", draws.uniform(2, 4)},
              {"lens_light.0.e1", light[0]},
              {"lens_light.0.e2", light[1]},
              {"lens_light.0.center_x", x},
              {"lens_light.0.center_y", y}};
  d.psf_fwhm = draws.uniform(0.09, 0.14);
  d.background_rms = draws.log_normal(0.008, 0.25, 0.004, 0.016);
  d.exposure_time = draws.uniform(1000, 3000);
  const double kind = draws.uniform(0, 1), radius = draws.log_normal(0.06, 0.4, 0.02, 0.15);
  const double along = draws.uniform(0, 2 * kPi), off = draws.normal(0, 0.1);
  const double which = draws.uniform(0, 1);
  if (kind < kWithSubhalo) {
    d.perturber = radius;
    d.perturber_x = x + (theta_E + off) * std::cos(along);
    d.perturber_y = y + (theta_E + off) * std::sin(along);
  } else if (kind < kWithSubhalo + kBroken) {
    d.broken = kFaults[static_cast<std::size_t>(which * static_cast<double>(std::size(kFaults)))];
  }
  return d;
}

/// The overrides of the template that simulate a lens.
std::vector<Override> overrides_of(const Drawn& d, std::uint64_t seed) {
  std::vector<Override> result;
  for (const auto& [key, value] : d.values) result.push_back({key, to_text(value)});
  result.push_back(
      {"observation.psf", fmt::format("{{ type = 'moffat', fwhm = {}, beta = 3.0, size = 15 }}", to_text(d.psf_fwhm))});
  result.push_back(
      {"simulate", fmt::format("{{ nx = {}, ny = {}, background_rms = {}, exposure_time = {}, seed = {} }}", d.nx, d.ny,
                               to_text(d.background_rms), to_text(d.exposure_time), seed)});
  if (d.perturber > 0)
    result.push_back(
        {"perturbation", fmt::format("[{{ profile = 'SIS', theta_E = {}, center_x = {}, center_y = {} }}]",
                                     to_text(d.perturber), to_text(d.perturber_x), to_text(d.perturber_y))});
  return result;
}

FitsOutput output_of(const std::string& name, const FitsImage& image) {
  FitsOutput output;
  output.name = name;
  output.nx = image.nx;
  output.ny = image.ny;
  output.values = image.values;
  output.bitpix = -32;
  return output;
}

/// Moves a map by one column; the first column becomes 0.
void shift(FitsOutput& map) {
  for (std::size_t i = map.values.size(); i-- > 0;)
    map.values[i] = i % static_cast<std::size_t>(map.nx) == 0 ? 0 : map.values[i - 1];
}

/// Leaves out the last rows or columns of a map.
FitsOutput cropped(const FitsOutput& map, int nx, int ny) {
  FitsOutput result = map;
  result.nx = nx;
  result.ny = ny;
  result.values.clear();
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x) result.values.push_back(map.values[static_cast<std::size_t>(y * map.nx + x)]);
  return result;
}

/// Writes the images of a lens, with the fault that it has.
void write_images(const Drawn& d, const std::string& simulated, const std::string& target) {
  if (d.broken == "image_missing") return;
  FitsOutput image = output_of("IMAGE", read_fits(simulated, "IMAGE")),
             noise = output_of("NOISE", read_fits(simulated, "NOISE")),
             psf = output_of("PSF", read_fits(simulated, "PSF"));
  image.pixel_scale = noise.pixel_scale = psf.pixel_scale = kPixelScale;
  if (d.broken == "image_nan") std::fill(image.values.begin(), image.values.end(), std::nan(""));
  if (d.broken == "noise_zero") noise.values[noise.values.size() / 2] = 0;
  if (d.broken == "noise_small")
    for (double& v : noise.values) v /= 4;
  if (d.broken == "noise_shape") noise = cropped(noise, noise.nx, noise.ny - 1);
  if (d.broken == "psf_off_center") shift(psf);
  if (d.broken == "psf_even") psf = cropped(psf, psf.nx - 1, psf.ny);
  write_fits(target, {image, noise, psf});
  if (d.broken == "image_truncated") fs::resize_file(target, 2880 + 4000);
}

/// A column of numbers of all lenses.
template <class Value>
TableColumn numbers(const std::string& name, const std::string& unit, const std::vector<Drawn>& all,
                    const Value& value) {
  std::vector<double> values;
  for (const Drawn& d : all) values.push_back(value(d));
  return {name, unit, "", values};
}
template <class Value>
TableColumn texts(const std::string& name, const std::vector<Drawn>& all, const Value& value) {
  std::vector<std::string> values;
  for (const Drawn& d : all) values.push_back(value(d));
  return {name, "", "", values};
}

void write_tables(const std::string& dir, const std::vector<Drawn>& all) {
  const auto id = [](const Drawn& d) { return d.id; };
  const auto file = [](const std::string& hdu) {
    return [hdu](const Drawn& d) { return "images/" + d.id + ".fits[" + hdu + "]"; };
  };
  Table manifest;
  manifest.columns = {texts("id", all, id), texts("image", all, file("IMAGE")), texts("noise", all, file("NOISE")),
                      texts("psf", all, file("PSF"))};
  write_ecsv(in(dir, "survey.ecsv"), manifest);
  Table truth;
  truth.columns = {texts("id", all, id),
                   texts("broken", all, [](const Drawn& d) { return d.broken; }),
                   numbers("perturber", "arcsec", all, [](const Drawn& d) { return d.perturber; }),
                   numbers("psf_fwhm", "arcsec", all, [](const Drawn& d) { return d.psf_fwhm; }),
                   numbers("background_rms", "", all, [](const Drawn& d) { return d.background_rms; }),
                   numbers("exposure_time", "s", all, [](const Drawn& d) { return d.exposure_time; })};
  for (std::size_t k = 0; k < all.front().values.size(); ++k)
    truth.columns.push_back(
        numbers(all.front().values[k].first, "", all, [k](const Drawn& d) { return d.values[k].second; }));
  write_ecsv(in(dir, "truth.ecsv"), truth);
}

}  // namespace

void simulate_survey(int lenses, std::uint64_t seed, const std::string& dir, int threads) {
  std::error_code error;
  if (fs::exists(dir, error) && (!fs::is_directory(dir, error) || !fs::is_empty(dir, error)))
    throw InvalidInput("--out: " + dir + " exists and is not an empty directory, expected a new one");
  const std::string images = in(dir, "images"), configuration = in(dir, "lens.toml");
  create_directory(images);
  write_atomically(configuration, kTemplate);
  std::vector<Drawn> all;
  for (int i = 0; i < lenses; ++i) all.push_back(draw(seed, i));
  ThreadPool pool(threads);
  pool.parallel_for(lenses, [&](int i, int) {
    const Drawn& d = all[static_cast<std::size_t>(i)];
    const std::string target = in(images, d.id + ".fits"), simulated = target + ".simulated";
    // Noise of other lenses and of other seeds is independent of this one.
    const std::uint64_t own = (seed << 24) + static_cast<std::uint64_t>(i) + 1;
    simulate(read_config(configuration, overrides_of(d, own), true), simulated, true);
    write_images(d, simulated, target);
    fs::remove(simulated);
  });
  write_tables(dir, all);
}

}  // namespace einfield
