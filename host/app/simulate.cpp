// The image is computed in double with the public headers. The noise of a pixel depends on its index alone, so the
// number of threads does not matter.
#include "host/app/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/render.hpp"
#include "host/config/load_problem.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/correlated_noise.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/fields/random_field.hpp"
#include "host/files/fits_io.hpp"
#include "host/model/scene_tables.hpp"

namespace einfield {
namespace {

/// Sum of the random fields at the positions `theta`.
LensFields random_fields(const Config& config, const Grid& grid, const std::vector<double>& theta, ThreadPool& pool) {
  LensFields sum = zero_fields(theta.size() / 2);
  for (const RandomFieldConfig& field : config.random_fields)
    add_fields(sum, RandomField(field, std::max(grid.nx, grid.ny) * grid.pixel_scale).fields(theta, pool));
  return sum;
}

/// ψ, α, κ of the missing mass at the pixel centers.
LensFields missing_mass(const Config& config, const Grid& grid) {
  ThreadPool pool(0);
  const std::vector<double> theta = pixel_centers(grid);
  LensFields mass = random_fields(config, grid, theta, pool);
  add_fields(mass, smooth_fields(config.perturbation, theta, pool));
  return mass;
}

/// The noise-free image after the PSF.
std::vector<double> true_image(const Config& config, const Grid& grid, const Psf& psf) {
  Model model = load_model(config, grid);
  model.network.reset();
  model.lens.insert(model.lens.end(), config.perturbation.begin(), config.perturbation.end());
  const ParameterLayout layout(model);
  const SceneTables<double> tables(model, layout);
  const Scene<double> scene = tables.scene();

  const int rays = grid.rays_per_pixel();
  const int f = psf.supersampling;  // sub-pixels per pixel along each axis, on which the image is convolved
  const auto n_pixels = static_cast<std::size_t>(grid.n_pixels());
  std::vector<double> image(n_pixels * static_cast<std::size_t>(f * f)), convolved(image.size()), binned(n_pixels);
  ThreadPool pool(0);
  const auto n_rays = static_cast<std::size_t>(grid.n_rays());
  const std::vector<double> theta = ray_positions(grid);
  const std::vector<double> alpha = random_fields(config, grid, theta, pool).deflection;
  std::vector<double> values;  // output of the network of a NETWORK component at every ray
  if (const LightComponent* const light = network_light(model)) {
    std::vector<double> positions(2 * n_rays);
    for (std::size_t i = 0; i < n_rays; ++i) {
      const Vec2<double> at =
          network_position(scene, network_light_index(model), Vec2<double>{theta[i], theta[n_rays + i]},
                           Vec2<double>{alpha[i], alpha[n_rays + i]});
      positions[i] = at.x;
      positions[n_rays + i] = at.y;
    }
    values = network_fields<double>(light->network, light->weights, positions, pool).potential;
  }
  pool.parallel_for(grid.ny, [&](int row, int) {
    for (int pixel = row * grid.nx; pixel < (row + 1) * grid.nx; ++pixel) {
      for (int s = 0; s < rays; ++s) {
        const auto ray = static_cast<std::size_t>(pixel * rays + s);
        image[subpixel_of_ray(grid.nx, pixel % grid.nx, row, s, grid.supersampling, f)] +=
            render_ray(scene, Vec2<double>{theta[ray], theta[n_rays + ray]},
                       Vec2<double>{alpha[ray], alpha[n_rays + ray]},
                       NetworkSample<double>{values.empty() ? 0 : values[ray], {}}) *
            (f * f) / rays;
      }
    }
  });
  Convolution<double>(grid.nx * f, grid.ny * f, psf).apply(image.data(), convolved.data());
  mean_of_subpixels(convolved.data(), grid.nx, grid.ny, f, binned.data());
  return binned;
}

/// The noise of every pixel in units of its σ.
std::vector<double> normal_noise(const SimulateConfig& settings, const Grid& grid) {
  const FitsReference& kernel = settings.noise_correlation;
  if (!kernel.empty())
    return correlated_normals(load_noise_correlation(kernel), grid.nx, grid.ny, settings.seed, random_stream::kNoise);
  const Philox philox{settings.seed};
  std::vector<double> noise;
  for (int i = 0; i < grid.n_pixels(); ++i)
    noise.push_back(philox.normal(static_cast<std::uint64_t>(i), random_stream::kNoise));
  return noise;
}

}  // namespace

Simulation simulated(const Config& config) {
  const SimulateConfig& settings = config.simulate.value();
  const ObservationConfig& o = config.observation;
  Simulation result;
  Grid& grid = result.grid = {settings.nx, settings.ny, o.pixel_scale.value(), o.center_x, o.center_y, o.supersampling};
  const bool own_psf = !settings.psf.type.empty();
  LoadedProblem psf_notes;
  FitsImages files;
  result.psf = load_psf(own_psf ? settings.psf : o.psf, grid, o.psf_supersampling,
                        config.at(own_psf ? "simulate.psf" : "observation.psf"), psf_notes, files);
  result.warnings = psf_notes.warnings;

  result.truth.image = true_image(config, grid, result.psf);
  LensFields mass = missing_mass(config, grid);
  result.truth.potential = std::move(mass.potential);
  result.truth.deflection = std::move(mass.deflection);
  result.truth.convergence = std::move(mass.convergence);
  result.image = result.truth.image;
  result.noise = pixel_noise(settings.noise, result.truth.image);
  const std::vector<double> normals = normal_noise(settings, grid);
  for (std::size_t i = 0; i < result.image.size(); ++i) result.image[i] += result.noise[i] * normals[i];
  return result;
}

std::vector<std::string> simulate(const Config& config, const std::string& target, bool overwrite) {
  EINFIELD_REQUIRE(!target.empty(),
                   "--out: missing, expected a FITS file, here or as observation.image in " + config.file);
  EINFIELD_REQUIRE(overwrite || !std::filesystem::exists(target),
                   "--out: " + target + " exists, expected a new file or --overwrite");
  const SimulateConfig& settings = config.simulate.value();
  const bool own_psf = !settings.psf.type.empty();
  const FitsReference& kernel_file = own_psf ? settings.psf.kernel : config.observation.psf.kernel;
  EINFIELD_REQUIRE(kernel_file.path != target,
                   config.at(own_psf ? "simulate.psf" : "observation.psf") +
                       ": is in the file that the simulation writes, found " + target +
                       ", expected another file or { fwhm = ... }, here or as simulate.psf");
  EINFIELD_REQUIRE(settings.noise_correlation.path != target,
                   config.at("simulate.noise_correlation") + ": is in the file that the simulation writes, found " +
                       target + ", expected another file");
  Simulation made = simulated(config);
  const Grid& grid = made.grid;
  Psf& psf = made.psf;
  if (psf.empty()) psf = {1, 1, {1.0}, 1};

  const auto map = [&grid](const std::string& name, std::vector<double> values, const std::string& unit,
                           int planes = 1) {
    return FitsOutput{name,          grid.nx,       grid.ny, planes, std::move(values), -64, unit, grid.pixel_scale,
                      grid.center_x, grid.center_y, {}};
  };
  FitsOutput mask = map("MASK", std::vector<double>(made.image.size(), 1.0), "");
  mask.bitpix = 8;
  const FitsOutput kernel{"PSF", psf.nx, psf.ny, 1, psf.values, -64, "", grid.pixel_scale / psf.supersampling,
                          0,     0,      {}};
  const Truth& truth = made.truth;
  write_fits(target, {map("IMAGE", std::move(made.image), ""), map("NOISE", std::move(made.noise), ""), kernel, mask,
                      map("IMAGE_TRUE", truth.image, ""), map("PSI_TRUE", truth.potential, "arcsec2"),
                      map("ALPHA_TRUE", truth.deflection, "arcsec", 2), map("KAPPA_TRUE", truth.convergence, "")});
  return made.warnings;
}

}  // namespace einfield
