// Simulates the timed problem with the backend: evaluates a model without a network once.
#include "bench/problem.hpp"

#include <cmath>
#include <cstdint>

#include "einfield/network.hpp"
#include "einfield/psf.hpp"

namespace einfield::bench {
namespace {

constexpr std::uint64_t kSeed = 1;

LensComponent sie(std::vector<double> values) {
  return {LensKind::sie, std::move(values), std::vector<std::uint8_t>(5, false)};
}

LightComponent source() {
  LightComponent light;
  light.kind = LightKind::sersic_ellipse;
  light.radius = RadiusKind::major_axis;
  light.values = {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15};
  light.free.assign(light.values.size(), false);
  return light;
}

}  // namespace

Problem paper_problem(int n, const std::vector<int>& hidden) {
  Problem problem;
  Observation& observation = problem.observation;
  observation.grid = {n, n, kFieldOfView / n};
  const auto pixels = static_cast<std::size_t>(observation.grid.n_pixels());
  observation.image.assign(pixels, 0.0);
  observation.noise.assign(pixels, kNoise);
  observation.mask.assign(pixels, 1);
  observation.psf = gaussian_psf(kFwhmPixels * observation.grid.pixel_scale, observation.grid.pixel_scale, kPsfSize);
  problem.model.lens = {sie({1.6, 0.15, -0.04, 0, 0}), sie({0.15, 0, 0.3, 1.9, -1.4})};
  problem.model.source = {source()};
  problem.model.source[0].free[0] = true;
  problem.initial_parameters = ParameterLayout(problem.model).initial_scalars();

  const auto backend = make_backend<double>("cpu", {});
  backend->load({problem});
  backend->evaluate(false);
  observation.image = backend->download(Field::model, 0);
  const Philox philox{kSeed};
  for (std::size_t i = 0; i < pixels; ++i) observation.image[i] += kNoise * philox.normal(i);

  problem.model.lens.pop_back();
  if (!hidden.empty()) {
    problem.model.source[0].free[0] = false;
    problem.model.network = NetworkShape{hidden};
    problem.initial_parameters = initial_weights(*problem.model.network, kSeed, false);
  }
  return problem;
}

Problem profile_problem(int n) {
  Problem problem = paper_problem(n, {});
  Model& model = problem.model;
  model.lens[0].values = {1.5, 0.1, 0, 0.03, -0.02};
  model.lens[0].free.assign(model.lens[0].values.size(), true);
  model.source[0].values = {8, 1, 1.3, 0, 0, 0.35, 0.1};
  model.source[0].free.assign(model.source[0].values.size(), true);
  problem.initial_parameters = ParameterLayout(model).initial_scalars();
  return problem;
}

Problem joint_problem(int n, int side) {
  Problem problem = paper_problem(n, {});
  Model& model = problem.model;
  problem.observation.grid.supersampling = 2;
  problem.loss = LossKind::chi2;
  problem.network_off_lens = true;
  problem.regularization = {.smoothness = 1e-2, .curvature = 1e-2, .weight_decay = 1e-3, .source_curvature = 1e-2};
  model.lens[0].free.assign(model.lens[0].values.size(), true);
  LightComponent pixels;
  pixels.kind = LightKind::pixelated;
  pixels.grid = {side, side, 3.0 / side, 0, 0};
  pixels.pixels.assign(static_cast<std::size_t>(side) * static_cast<std::size_t>(side), 0.0);
  pixels.pixels_free = true;
  model.source = {pixels};
  model.network = NetworkShape{{}, 1, 256};
  problem.initial_parameters = initial_weights(*model.network, kSeed, true);
  const ParameterLayout layout(model);
  const std::vector<double> scalars = layout.initial_scalars();
  problem.initial_parameters.insert(problem.initial_parameters.end(), scalars.begin(), scalars.end());
  problem.initial_parameters.resize(layout.size(), 0.0);
  return problem;
}

double step_flop(int n, const std::vector<int>& hidden) {
  double products = 0;  // multiply-adds of one product per pixel
  for (std::size_t l = 1; l < hidden.size(); ++l) products += static_cast<double>(hidden[l - 1]) * hidden[l];
  return 12 * static_cast<double>(n) * n * products;
}

}  // namespace einfield::bench
