// The CPU backend in double makes the image; noise comes from Philox by pixel, so neither threads nor order matter.
#include "host/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "einfield/error.hpp"
#include "host/fits_io.hpp"
#include "host/lens_fields.hpp"
#include "host/problem.hpp"

namespace einfield {
namespace {

/// The network's weights are drawn from stream 0: with the same seed noise and weights must not be the same numbers.
constexpr std::uint64_t kNoiseStream = 1;

/// ψ, α, κ of the components at the pixel centres.
LensFields at_pixels(const std::vector<LensComponent>& components, const Grid& grid) {
  const auto n = static_cast<std::size_t>(grid.n_pixels());
  std::vector<double> theta(2 * n);
  for (std::size_t i = 0; i < n; ++i) {
    const Vec2<double> position = grid.pixel(static_cast<int>(i));
    theta[i] = position.x;
    theta[n + i] = position.y;
  }
  ThreadPool pool(0);
  return smooth_fields(components, theta, pool);
}

/// The noise-free image after the PSF.
std::vector<double> true_image(const Config& config, const Grid& grid, const Psf& psf) {
  Problem problem;
  problem.model = load_pixels(config);
  problem.model.network.reset();
  problem.model.lens.insert(problem.model.lens.end(), config.perturbation.begin(), config.perturbation.end());
  for (LensComponent& c : problem.model.lens) c.free.assign(c.free.size(), false);
  for (auto* lights : {&problem.model.source, &problem.model.lens_light})
    for (LightComponent& c : *lights) {
      c.free.assign(c.free.size(), false);
      c.pixels_free = false;
    }
  const auto n = static_cast<std::size_t>(grid.n_pixels());
  problem.observation = {grid, std::vector<double>(n, 0.0), std::vector<double>(n, 1.0),
                         std::vector<std::uint8_t>(n, 1), psf};
  problem.learning_rates = {1.0};
  const auto backend = make_backend<double>("cpu", {});
  backend->load({problem});
  backend->evaluate(false);
  return backend->download(Field::model, 0);
}

/// 1 σ of a pixel of noise-free brightness `value`.
double sigma(const NoiseConfig& noise, double value) {
  if (noise.value) return *noise.value;
  return std::sqrt(*noise.background_rms * *noise.background_rms + std::max(value, 0.0) / *noise.exposure_time);
}

}  // namespace

void simulate(const Config& config, const std::string& target, bool overwrite) {
  EINFIELD_REQUIRE(!target.empty(),
                   "--out: missing, expected a FITS file, here or as observation.image in " + config.file);
  EINFIELD_REQUIRE(overwrite || !std::filesystem::exists(target),
                   "--out: " + target + " exists, expected a new file or --overwrite");
  const SimulateConfig& settings = config.simulate.value();
  const ObservationConfig& o = config.observation;
  const Grid grid{settings.nx, settings.ny, o.pixel_scale.value(), o.center_x, o.center_y, o.supersampling};
  const bool own_psf = !settings.psf.type.empty();
  const PsfConfig& psf_config = own_psf ? settings.psf : o.psf;
  const std::string psf_key = config.file + (own_psf ? ": simulate.psf" : ": observation.psf");
  EINFIELD_REQUIRE(psf_config.kernel.path != target,
                   psf_key + ": in the file to be simulated, found " + target +
                       ", expected another file, { fwhm = … }, or one of them as simulate.psf");
  std::vector<std::string> warnings;  // a kernel that is normalised here is written normalised
  Psf psf = load_psf(psf_config, grid, psf_key, warnings);

  const std::vector<double> truth = true_image(config, grid, psf);
  const LensFields mass = at_pixels(config.perturbation, grid);
  const Philox philox{settings.seed};
  std::vector<double> image(truth), noise;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    noise.push_back(sigma(settings.noise, truth[i]));
    image[i] += noise[i] * philox.normal(i, kNoiseStream);
  }
  if (psf.empty()) psf = {1, 1, {1.0}};

  const auto map = [&grid](const std::string& name, std::vector<double> values, const std::string& unit,
                           int planes = 1) {
    return FitsOutput{name,          grid.nx,       grid.ny, planes, std::move(values), -64, unit, grid.pixel_scale,
                      grid.center_x, grid.center_y, {}};
  };
  FitsOutput mask = map("MASK", std::vector<double>(truth.size(), 1.0), "");
  mask.bitpix = 8;
  const FitsOutput kernel{"PSF", psf.nx, psf.ny, 1, psf.values, -64, "", grid.pixel_scale, 0, 0, {}};
  write_fits(target, {map("IMAGE", std::move(image), ""), map("NOISE", std::move(noise), ""), kernel, mask,
                      map("IMAGE_TRUE", truth, ""), map("PSI_TRUE", mass.potential, "arcsec2"),
                      map("ALPHA_TRUE", mass.deflection, "arcsec", 2), map("KAPPA_TRUE", mass.convergence, "")});
}

}  // namespace einfield
