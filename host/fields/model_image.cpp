// Rays of a block of rows, their means over the samples that the PSF acts on, the PSF, and the mean over pixels.
#include "host/fields/model_image.hpp"

#include <algorithm>

#include "host/cpu/convolve.hpp"
#include "host/fields/lens_fields.hpp"

namespace einfield {
namespace {

constexpr int kRaysPerBlock = 1 << 18;

/// Deflection of all lenses at positions.
std::vector<double> positions_in_source(const Model& model, const std::vector<double>& network,
                                        const std::vector<double>& theta, ThreadPool& pool) {
  std::vector<double> beta = theta;
  const auto subtract = [&beta](const LensFields& fields) {
    for (std::size_t i = 0; i < beta.size(); ++i) beta[i] -= fields.deflection[i];
  };
  subtract(smooth_fields(model.lens, theta, pool));
  if (model.network) subtract(network_fields<double>(*model.network, network, theta, pool, false));
  return beta;
}

}  // namespace

ModelImages model_images(const Model& model, const std::vector<double>& network, const Observation& observation,
                         int finer, ThreadPool& pool) {
  const Grid& pixels = observation.grid;
  // Samples of the PSF, each the mean of `rays` × `rays` rays.
  const int f = observation.psf.supersampling, rays = pixels.supersampling / f * finer;
  const Grid samples{pixels.nx * f, pixels.ny * f, pixels.pixel_scale / f, pixels.center_x, pixels.center_y, rays};
  const int rows = std::clamp(kRaysPerBlock / (samples.nx * rays * rays), 1, samples.ny);
  const auto count = static_cast<std::size_t>(samples.n_pixels());
  std::vector<double> source(count), lens_light(count);
  for (int first = 0; first < samples.ny; first += rows) {
    Grid block = samples;
    block.ny = std::min(rows, samples.ny - first);
    block.center_y += (first + 0.5 * (block.ny - samples.ny)) * samples.pixel_scale;
    const std::vector<double> theta = ray_positions(block);
    const auto mean = [&](const std::vector<double>& values, std::vector<double>& to) {
      const auto per_sample = static_cast<std::size_t>(block.rays_per_pixel());
      const std::size_t begin = static_cast<std::size_t>(first) * static_cast<std::size_t>(samples.nx);
      for (std::size_t i = 0; i < values.size(); ++i)
        to[begin + i / per_sample] += values[i] / static_cast<double>(per_sample);
    };
    if (!model.source.empty())
      mean(brightness<double>(model.source, positions_in_source(model, network, theta, pool), pool), source);
    if (!model.lens_light.empty()) mean(brightness<double>(model.lens_light, theta, pool), lens_light);
  }
  Convolution<double> psf(samples.nx, samples.ny, observation.psf);
  const auto observed = [&](const std::vector<double>& image) {
    std::vector<double> blurred(count), result(static_cast<std::size_t>(pixels.n_pixels()));
    psf.apply(image.data(), blurred.data());
    mean_of_subpixels(blurred.data(), pixels.nx, pixels.ny, f, result.data());
    return result;
  };
  return {observed(source), observed(lens_light)};
}

}  // namespace einfield
