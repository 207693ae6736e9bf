// Small problems of every kind for the tests of a whole step, and the step written naively in double around the same
// per-ray headers: the judge of every backend.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/likelihood.hpp"
#include "einfield/psf.hpp"
#include "einfield/regularization.hpp"
#include "einfield/render.hpp"
#include "host/model/scene_tables.hpp"
#include "tests/reference_network.hpp"

namespace einfield {

/// What a small problem contains.
struct StepCase {
  std::string name;
  int nx = 9, ny = 7, supersampling = 1;
  std::vector<int> hidden = {7, 5};  ///< empty and no Fourier features = no network
  int fourier_features = 0;
  int psf_size = 5;  ///< 0 = none
  int psf_supersampling = 1;
  bool free_lens = false, free_light = false, pixel_source = false, lens_light = false, masked = false;
  bool background = false, priors = false;  ///< priors: with free_lens and free_light
  std::vector<int> light_hidden = {};       ///< of a NETWORK component; empty as above = none
  int light_features = 0;                   ///< its Fourier features
  bool light_alone = false;                 ///< it takes the place of the source
  bool light_unlensed = false;              ///< it is lens light
  bool light_fixed = false;                 ///< its weights are
  bool rare_lenses = false;                 ///< a truncated halo, a gradient of the shear, a multipole of order 1
  int more_components = 0;                  ///< a faint lens and a faint source each, besides the others
  bool correlated = false;                  ///< the noise is; with LossKind::chi2
  bool relations = false;                   ///< with free_lens, free_light and lens_light: parameters and priors follow
                                            ///< others
  LossKind loss = LossKind::mse;
  Regularization regularization;
  std::uint64_t seed = 3;
};

inline Problem make_problem(const StepCase& c) {
  Problem problem;
  const Philox philox{c.seed};
  std::uint64_t counter = 0;
  Grid& grid = problem.observation.grid;
  grid = {c.nx, c.ny, 0.45, 0.05, -0.1, c.supersampling};
  const auto n = static_cast<std::size_t>(grid.n_pixels());

  Model& model = problem.model;
  const bool l = c.free_lens, s = c.free_light;
  model.lens.push_back({LensKind::sie, {1.1, 0.15, -0.04, 0.02, -0.03}, {l, l, l, l, false}});
  model.lens.push_back({LensKind::shear, {0.03, -0.02, 0, 0}, {l, l, false, false}});
  LightComponent source;
  if (c.pixel_source) {
    source.kind = LightKind::pixelated;
    source.grid = {6, 5, 0.31, 0.11, 0.07};
    for (int i = 0; i < 30; ++i) source.pixels.push_back(3 + philox.normal(counter++));
    source.pixels_free = true;
  } else {
    source.kind = LightKind::sersic_ellipse;
    source.radius = RadiusKind::major_axis;
    source.values = {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15};
    source.free = {s, s, s, s, s, s, s};
  }
  model.source.push_back(source);
  if (c.lens_light) {
    LightComponent light;
    light.kind = LightKind::gaussian;
    light.values = {20, 0.6, 0.01, 0.02};
    light.free = {s, s, false, s};
    model.lens_light.push_back(light);
  }
  if (c.background) {
    LightComponent light;
    light.kind = LightKind::uniform;
    light.values = {-0.3};
    light.free = {s};
    model.lens_light.push_back(light);
  }
  if (c.priors) {
    const auto with = [](auto& component, std::size_t i, const ParameterPrior& prior) {
      component.priors.resize(component.values.size());
      component.priors[i] = prior;
    };
    with(model.lens[0], 0, {0.4, 3.0, 1.3, 0.2});                // theta_E: bounds and a Gaussian
    with(model.lens[0], 2, {-kInfinity, kInfinity, 0.1, 0.05});  // e2: one of a disk
    with(model.lens[1], 1, {-0.2, 0.3});                         // gamma2: bounds
    with(model.source[0], 0, {-kInfinity, kInfinity, 8, 3});     // amp
    with(model.source[0], 3, {-0.5, 0.4});                       // e1: bounds beside a disk
  }
  if (c.relations) {
    const auto relate = [](auto& component, std::size_t i, const Relation& relation) {
      component.follows.resize(component.values.size());
      component.follows[i] = relation;
      component.free[i] = false;
    };
    const auto center = [](auto& component, std::size_t i, double sigma, const Relation& mean) {
      component.priors.resize(component.values.size());
      component.priors[i].sigma = sigma;
      component.priors[i].mean_of = mean;
    };
    relate(model.lens[0], 3, {"lens_light.0.center_y", -0.5, 0.03});
    relate(model.lens[0], 4, {"lens_light.0.center_y"});
    relate(model.lens[1], 0, {"lens.0.e1", 0.2});
    relate(model.source[0], 0, {"lens_light.0.amp", 0.4, 2});
    relate(model.source[0], 3, {"lens.0.e2", -0.8});
    relate(model.source[0], 4, {"lens.0.e1", 0.5});
    relate(model.source[0], 5, {"lens.0.center_x", 2, 0.3});  // follows what follows
    center(model.lens[1], 1, 0.02, {"lens.0.e2", 0.3, 0.01});
    center(model.source[0], 6, 0.2, {"lens.0.center_y", 1, 0.1});
    center(model.source[0], 1, 0.3, {"lens_light.0.center_x", 1, 1});  // of a fixed parameter
    follow(model);
  }
  if (c.rare_lenses) {
    model.lens.push_back({LensKind::tnfw, {0.4, 0.05, 0.9, 0.7, -0.5}, {l, l, l, l, l}});
    model.lens.push_back({LensKind::flexion, {0.02, -0.01, 0.005, 0.01, 0.1, 0}, {l, l, l, l, false, false}});
    model.lens.push_back({LensKind::multipole, {1, 0.03, 0.4, 0.02, -0.03, 1.2}, {false, l, l, false, l, false}});
  }
  for (int i = 0; i < c.more_components; ++i) {
    const bool free = i % 3 == 0;  // those between them leave gaps in the sums
    const auto place = [&] { return 2 * philox.uniform(counter++) - 1; };
    model.lens.push_back({LensKind::sis, {0.004, place(), place()}, {l && free, false, l && free}});
    LightComponent light;
    light.kind = LightKind::gaussian;
    light.values = {0.1, 0.3, place(), place()};
    light.free = {s && free, false, s && free, false};
    model.source.push_back(light);
  }
  if (!c.light_hidden.empty() || c.light_features > 0) {
    LightComponent light;
    light.kind = LightKind::network;
    light.values = {6, 0.2, -0.1};
    light.free = {s, s, s};
    light.network = NetworkShape{c.light_hidden, 1.3, c.light_features};
    light.weights = initial_weights(light.network, c.seed, false, {0.7}, 2);
    for (double& w : light.weights) w += 0.3 * philox.normal(counter++);  // biases too
    light.weights_free = !c.light_fixed;
    if (c.light_alone) model.source.clear();
    (c.light_unlensed ? model.lens_light : model.source).push_back(light);
  }
  if (!c.hidden.empty() || c.fourier_features > 0) model.network = NetworkShape{c.hidden, 0.8, c.fourier_features};

  Observation& observation = problem.observation;
  observation.mask.assign(n, 1);
  for (std::size_t i = 0; i < n; ++i) {
    observation.image.push_back(6 + 3 * philox.normal(counter++));
    observation.noise.push_back(1.5 + philox.uniform(counter++));
    if (c.masked && (i % 5 == 1 || i < static_cast<std::size_t>(c.nx))) observation.mask[i] = 0;
  }
  if (c.psf_size > 0) observation.psf = gaussian_psf(0.8, grid.pixel_scale / c.psf_supersampling, c.psf_size);
  observation.psf.supersampling = c.psf_supersampling;
  // White noise averaged with the weights (2, 3, 1) along x and (1, 2) along y.
  if (c.correlated)
    observation.noise_correlation = {5,
                                     3,
                                     {4 / 70., 18 / 70., 28 / 70., 18 / 70., 4 / 70., 10 / 70., 45 / 70., 1, 45 / 70.,
                                      10 / 70., 4 / 70., 18 / 70., 28 / 70., 18 / 70., 4 / 70.}};

  problem.loss = c.loss;
  problem.regularization = c.regularization;
  problem.initial_parameters = ParameterLayout(model).initial_parameters(
      model.network ? initial_weights(*model.network, c.seed, false) : std::vector<double>{});
  return problem;
}

/// Three learning rates, so that a fourth update uses the last one.
inline Schedule step_schedule() {
  return {{1e-2, 5e-3, 2e-3}, 0, {}};
}

/// Every kind of content at least once, odd sizes on purpose.
inline std::vector<StepCase> step_cases() {
  std::vector<StepCase> cases(28);
  cases[0].name = "paper";
  cases[1].name = "masked_chi2";
  cases[1].masked = true;
  cases[1].loss = LossKind::chi2;
  cases[2].name = "all_free";
  cases[2].free_lens = cases[2].free_light = cases[2].lens_light = true;
  cases[2].loss = LossKind::chi2;
  cases[3].name = "supersampled";
  cases[3].supersampling = 2;
  cases[3].free_light = true;
  cases[3].hidden = {6};
  cases[4].name = "pixel_source";
  cases[4].pixel_source = cases[4].free_lens = true;
  cases[4].supersampling = 2;
  cases[5].name = "no_network";
  cases[5].hidden = {};
  cases[5].free_lens = cases[5].free_light = true;
  cases[6].name = "no_psf_one_pixel";
  cases[6].nx = cases[6].ny = 1;
  cases[6].psf_size = 0;
  cases[7].name = "regularized";
  cases[7].regularization = {.smoothness = 0.3,
                             .curvature = 0.4,
                             .negative_convergence = 0.7,
                             .negative_total_convergence = 1.1,
                             .weight_decay = 1e-3};
  cases[7].supersampling = 2;
  cases[7].masked = true;
  cases[8].name = "four_layers_wide_psf";
  cases[8].hidden = {3, 9, 4, 6};
  cases[8].nx = 19;
  cases[8].ny = 17;
  cases[8].psf_size = 15;
  cases[9].name = "fourier";
  cases[9].fourier_features = 3;
  cases[9].free_lens = true;
  cases[9].regularization = {.smoothness = 0.3, .weight_decay = 1e-3};
  cases[10].name = "network_source";
  cases[10].light_hidden = {6, 4};
  cases[10].light_alone = true;
  cases[11].name = "network_source_on_sersic_all_free";
  cases[11].light_hidden = {5};
  cases[11].light_features = 2;
  cases[11].free_lens = cases[11].free_light = cases[11].lens_light = cases[11].masked = true;
  cases[11].supersampling = 2;
  cases[11].loss = LossKind::chi2;
  cases[12].name = "network_source_of_fixed_weights";
  cases[12].light_hidden = {4, 5, 3};
  cases[12].light_alone = cases[12].light_fixed = true;
  cases[12].free_lens = cases[12].free_light = true;
  cases[13].name = "network_lens_light_no_network";
  cases[13].hidden = {};
  cases[13].light_hidden = {7, 3};
  cases[13].light_unlensed = cases[13].pixel_source = true;
  cases[14].name = "regularized_pixels_no_network";
  cases[14].hidden = {};
  cases[14].pixel_source = true;
  cases[14].regularization.source_gradient = 0.4;
  cases[14].regularization.source_curvature = 0.2;
  cases[15].name = "everything_regularized";
  cases[15].pixel_source = cases[15].free_lens = true;
  cases[15].regularization = {.smoothness = 0.3,
                              .curvature = 0.4,
                              .negative_convergence = 0.7,
                              .negative_total_convergence = 1.1,
                              .weight_decay = 1e-3,
                              .source_gradient = 0.5,
                              .source_curvature = 0.9};
  cases[16].name = "background_and_priors";
  cases[16].hidden = {};
  cases[16].free_lens = cases[16].free_light = cases[16].background = cases[16].priors = true;
  cases[16].loss = LossKind::chi2;
  cases[17].name = "network_and_priors";
  cases[17].free_lens = cases[17].free_light = cases[17].lens_light = cases[17].background = cases[17].priors = true;
  cases[17].loss = LossKind::chi2;
  cases[17].masked = true;
  cases[18].name = "pixel_source_of_many_rays";  // more than a block of the device sorts at once
  cases[18].hidden = {};
  cases[18].nx = 21;
  cases[18].ny = 20;
  cases[18].supersampling = 2;
  cases[18].pixel_source = cases[18].free_lens = true;
  // Scenes that do not fit the shared memory of a block of the device.
  cases[19].name = "many_components";
  cases[19].more_components = 70;
  cases[19].free_lens = cases[19].free_light = cases[19].priors = true;
  cases[19].regularization.negative_total_convergence = 1.1;
  cases[20].name = "many_components_network_source";
  cases[20].more_components = 66;
  cases[20].pixel_source = cases[20].free_lens = cases[20].lens_light = true;
  cases[20].light_hidden = {4};
  cases[20].supersampling = 2;
  cases[21].name = "subpixel_psf";
  cases[21].supersampling = 4;
  cases[21].psf_supersampling = 2;
  cases[21].psf_size = 7;
  cases[21].free_lens = cases[21].free_light = cases[21].lens_light = cases[21].masked = true;
  cases[22].name = "linear_features";  // of the potential and of the source
  cases[22].hidden = cases[22].light_hidden = {};
  cases[22].fourier_features = 5;
  cases[22].light_features = 4;
  cases[22].light_alone = cases[22].free_lens = cases[22].masked = true;
  cases[22].regularization = {.smoothness = 0.3, .negative_convergence = 0.7, .weight_decay = 1e-3};
  cases[23].name = "correlated_noise";
  cases[23].correlated = cases[23].masked = cases[23].free_lens = cases[23].free_light = cases[23].priors = true;
  cases[23].loss = LossKind::chi2;
  cases[24].name = "correlated_noise_pixel_source";
  cases[24].correlated = cases[24].pixel_source = cases[24].free_lens = true;
  cases[24].loss = LossKind::chi2;
  cases[25].name = "relations";
  cases[25].relations = cases[25].free_lens = cases[25].free_light = cases[25].lens_light = true;
  cases[25].hidden = {};
  cases[25].loss = LossKind::chi2;
  cases[26].name = "many_components_network_relations";
  cases[26].more_components = 66;
  cases[26].relations = cases[26].free_lens = cases[26].free_light = cases[26].lens_light = true;
  cases[26].loss = LossKind::chi2;
  cases[27].name = "rare_lenses";
  cases[27].rare_lenses = cases[27].free_lens = true;
  cases[27].loss = LossKind::chi2;
  return cases;
}

/// x of R x = b by elimination, R of likelihood.hpp.
inline std::vector<double> naive_decorrelated(const Observation& o, std::vector<double> b) {
  std::vector<std::size_t> used;
  for (std::size_t i = 0; i < o.mask.size(); ++i)
    if (o.mask[i]) used.push_back(i);
  const std::size_t n = used.size();
  std::vector<std::vector<double>> rows(n, std::vector<double>(n + 1));
  const auto column_of = [&o](std::size_t i) { return static_cast<int>(i) % o.grid.nx; };
  const auto row_of = [&o](std::size_t i) { return static_cast<int>(i) / o.grid.nx; };
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j)
      rows[i][j] = (1 - kIndependentNoise) * o.noise_correlation.at(column_of(used[i]) - column_of(used[j]),
                                                                    row_of(used[i]) - row_of(used[j])) +
                   (i == j ? kIndependentNoise : 0);
    rows[i][n] = b[used[i]];
  }
  for (std::size_t k = 0; k < n; ++k)
    for (std::size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = rows[i][k] / rows[k][k];
      for (std::size_t j = k; j <= n; ++j) rows[i][j] -= factor * rows[k][j];
    }
  std::vector<double> x(b.size(), 0.0);
  for (std::size_t k = 0; k < n; ++k) x[used[k]] = rows[k][n] / rows[k][k];
  return x;
}

/// All fields of a step, and its scalars.
struct NaiveStep {
  std::vector<double> potential, deflection, image, model, model_bar, image_bar, deflection_bar, gradient;
  std::vector<double> subpixels, subpixels_bar;  ///< image and image_bar on the sub-pixels that the PSF acts on
  double loss = 0, chi2 = 0, regularization = 0;
};

/// Gradient and curvature penalty of pixels with a border of zeros, and its gradient added to `bar`: every difference
/// with its three ends, forwards.
inline double naive_pixel_penalty(const Regularization& r, int nx, int ny, const double* pixels, double* bar) {
  double sum = 0;
  const auto value = [&](int x, int y) { return x < 0 || y < 0 || x >= nx || y >= ny ? 0 : pixels[y * nx + x]; };
  const auto add = [&](int x, int y, double v) {
    if (x >= 0 && y >= 0 && x < nx && y < ny) bar[y * nx + x] += v;
  };
  const double n = static_cast<double>(nx) * ny;
  for (int y = -1; y < ny; ++y)
    for (int x = -1; x < nx; ++x)
      for (const auto& [dx, dy] : {std::pair{1, 0}, std::pair{0, 1}}) {
        if ((dx == 1 && y < 0) || (dy == 1 && x < 0)) continue;  // between two zeros
        const double difference = value(x + dx, y + dy) - value(x, y);
        sum += r.source_gradient / n * difference * difference;
        add(x + dx, y + dy, 2 * r.source_gradient / n * difference);
        add(x, y, -2 * r.source_gradient / n * difference);
        if (x < 0 || y < 0) continue;
        const double second = value(x + dx, y + dy) - 2 * value(x, y) + value(x - dx, y - dy);
        sum += r.source_curvature / n * second * second;
        for (const int side : {-1, 1}) add(x + side * dx, y + side * dy, 2 * r.source_curvature / n * second);
        add(x, y, -4 * r.source_curvature / n * second);
      }
  return sum;
}

inline NaiveStep naive_step(const Problem& problem, const std::vector<double>& parameters) {
  NaiveStep out;
  const ParameterLayout layout(problem.model);
  const Observation& observation = problem.observation;
  const Grid& grid = observation.grid;
  const auto rays = static_cast<std::size_t>(grid.n_rays()), n = static_cast<std::size_t>(grid.n_pixels());
  const auto& network = problem.model.network;

  std::vector<double> theta(2 * rays);
  for (std::size_t i = 0; i < rays; ++i) {
    const Vec2<double> position = grid.ray(static_cast<int>(i));
    theta[i] = position.x;
    theta[rays + i] = position.y;
  }
  const std::vector<double> weights(parameters.begin(),
                                    parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network));
  out.potential.assign(rays, 0.0);
  out.deflection.assign(2 * rays, 0.0);
  if (network) {
    const ReferenceResult r =
        reference_network(*network, weights, theta, std::vector<double>(rays, 0.0), std::vector<double>(2 * rays, 0.0));
    out.potential = r.psi;
    out.deflection = r.alpha;
  }

  const double* u = parameters.data() + layout.n_network;
  SceneTables<double> tables(problem.model, layout);
  tables.place(u);
  const std::vector<double>&table = tables.table, &pixels = tables.pixels;
  const Scene<double> scene = tables.scene();

  const LightComponent* const light = network_light(problem.model);
  std::vector<double> light_weights = layout.light_weights, light_positions;
  std::vector<NetworkSample<double>> samples(rays);
  if (light) {
    if (light->weights_free)
      light_weights.assign(parameters.begin() + static_cast<std::ptrdiff_t>(layout.light_weights_offset()),
                           parameters.end());
    light_positions.resize(2 * rays);
    for (std::size_t i = 0; i < rays; ++i) {
      const Vec2<double> at =
          network_position(scene, network_light_index(problem.model), Vec2<double>{theta[i], theta[rays + i]},
                           Vec2<double>{out.deflection[i], out.deflection[rays + i]});
      light_positions[i] = at.x;
      light_positions[rays + i] = at.y;
    }
    const ReferenceResult r = reference_network(light->network, light_weights, light_positions);
    for (std::size_t i = 0; i < rays; ++i) samples[i] = {r.psi[i], {r.alpha[i], r.alpha[rays + i]}};
  }

  // The PSF acts on f × f sub-pixels of a pixel, each the mean of its rays.
  const int f = observation.psf.supersampling, s = grid.supersampling, fine_nx = grid.nx * f, fine_ny = grid.ny * f;
  const auto per_pixel = static_cast<std::size_t>(grid.rays_per_pixel()), fine_n = n * static_cast<std::size_t>(f * f);
  const auto subpixel_of = [&](std::size_t i) {
    const int pixel = static_cast<int>(i / per_pixel), ray = static_cast<int>(i % per_pixel);
    const int x = (pixel % grid.nx * s + ray % s) * f / s, y = (pixel / grid.nx * s + ray / s) * f / s;
    return static_cast<std::size_t>(y * fine_nx + x);
  };
  const auto pixel_of = [&](std::size_t subpixel) {
    const int x = static_cast<int>(subpixel) % fine_nx / f, y = static_cast<int>(subpixel) / fine_nx / f;
    return static_cast<std::size_t>(y * grid.nx + x);
  };
  const double rays_per_subpixel = static_cast<double>(per_pixel) / (f * f);
  std::vector<double> fine(fine_n, 0.0), fine_bar(fine_n);
  out.image.assign(n, 0.0);
  for (std::size_t i = 0; i < rays; ++i) {
    const double brightness = render_ray(scene, Vec2<double>{theta[i], theta[rays + i]},
                                         Vec2<double>{out.deflection[i], out.deflection[rays + i]}, samples[i]);
    out.image[i / per_pixel] += brightness / static_cast<double>(per_pixel);
    fine[subpixel_of(i)] += brightness / rays_per_subpixel;
  }

  // out[y, x] = Σ kernel[v, w] in[y − (v − cv), x − (w − cw)], zero outside; transposed: target and source swapped.
  const auto convolved = [&](const std::vector<double>& in, bool transposed) {
    const Psf& psf = observation.psf;
    if (psf.empty()) return in;
    std::vector<double> result(fine_n, 0.0);
    for (int y = 0; y < fine_ny; ++y)
      for (int x = 0; x < fine_nx; ++x)
        for (int v = 0; v < psf.ny; ++v)
          for (int w = 0; w < psf.nx; ++w) {
            const int sy = y - (v - psf.ny / 2), sx = x - (w - psf.nx / 2);
            if (sy < 0 || sx < 0 || sy >= fine_ny || sx >= fine_nx) continue;
            const auto target = static_cast<std::size_t>(y * fine_nx + x),
                       source = static_cast<std::size_t>(sy * fine_nx + sx);
            const double k = psf.values[static_cast<std::size_t>(v * psf.nx + w)];
            if (transposed)
              result[source] += k * in[target];
            else
              result[target] += k * in[source];
          }
    return result;
  };
  out.subpixels = fine;
  fine = convolved(fine, false);
  out.model.assign(n, 0.0);
  for (std::size_t k = 0; k < fine_n; ++k) out.model[pixel_of(k)] += fine[k] / (f * f);
  out.model_bar.assign(n, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    if (!observation.mask[i]) continue;
    const double residual = out.model[i] - observation.image[i];
    const double inv_var = 1 / (observation.noise[i] * observation.noise[i]);
    const double weight = (problem.loss == LossKind::chi2 ? inv_var : 1.0) / observation.n_used();
    out.loss += weight * residual * residual;
    out.chi2 += inv_var / observation.n_used() * residual * residual;
    out.model_bar[i] = 2 * weight * residual;
  }
  if (!observation.noise_correlation.empty()) {
    std::vector<double> residual(n, 0.0);
    for (std::size_t i = 0; i < n; ++i) residual[i] = (out.model[i] - observation.image[i]) / observation.noise[i];
    const std::vector<double> bar = naive_decorrelated(observation, residual);
    out.loss = 0;
    for (std::size_t i = 0; i < n; ++i) {
      out.loss += residual[i] * bar[i] / observation.n_used();
      out.model_bar[i] = 2 * bar[i] / observation.noise[i] / observation.n_used();
    }
    out.chi2 = out.loss;
  }
  for (std::size_t k = 0; k < fine_n; ++k) fine_bar[k] = out.model_bar[pixel_of(k)] / (f * f);
  fine_bar = convolved(fine_bar, true);
  out.subpixels_bar = fine_bar;
  out.image_bar.assign(n, 0.0);
  for (std::size_t k = 0; k < fine_n; ++k) out.image_bar[pixel_of(k)] += fine_bar[k];

  out.gradient.assign(layout.size(), 0.0);
  out.deflection_bar.assign(2 * rays, 0.0);
  std::vector<double> table_bar(table.size(), 0.0), pixel_bar(pixels.size(), 0.0), value_bar(rays);
  for (std::size_t i = 0; i < rays; ++i) {
    Vec2<double> alpha_bar{};
    render_ray_adjoint(
        scene, Vec2<double>{theta[i], theta[rays + i]}, Vec2<double>{out.deflection[i], out.deflection[rays + i]},
        fine_bar[subpixel_of(i)] / rays_per_subpixel, alpha_bar, table_bar.data(),
        [&](int k, double value) { pixel_bar[static_cast<std::size_t>(k)] += value; }, samples[i], &value_bar[i]);
    out.deflection_bar[i] = alpha_bar.x;
    out.deflection_bar[rays + i] = alpha_bar.y;
  }
  for (const TiedParameter<double>& t : layout.tied)
    table_bar[static_cast<std::size_t>(layout.free[static_cast<std::size_t>(t.free)].slot)] +=
        t.factor * table_bar[static_cast<std::size_t>(t.slot)];
  for (std::size_t i = 0; i < layout.free.size(); ++i)
    out.gradient[layout.n_network + i] =
        transform_adjoint(layout.free.data(), static_cast<int>(i), u, table_bar.data());
  for (const GaussianPrior<double>& prior : layout.priors) {
    const auto slot_of = [&layout](int i) {
      return static_cast<std::size_t>(layout.free[static_cast<std::size_t>(i)].slot);
    };
    const double mean = prior.other < 0 ? prior.mean : prior.factor * table[slot_of(prior.other)] + prior.mean;
    const double z = (table[slot_of(prior.free)] - mean) / prior.sigma, n_used = observation.n_used();
    out.regularization += z * z / n_used;
    std::vector<double> bar(table.size(), 0.0);
    bar[slot_of(prior.free)] = 2 * z / prior.sigma / n_used;
    if (prior.other >= 0) bar[slot_of(prior.other)] = -2 * prior.factor * z / prior.sigma / n_used;
    for (std::size_t i = 0; i < layout.free.size(); ++i)
      out.gradient[layout.n_network + i] += transform_adjoint(layout.free.data(), static_cast<int>(i), u, bar.data());
  }
  for (std::size_t k = 0; k < layout.free_pixels.size(); ++k)
    out.gradient[layout.n_network + layout.free.size() + k] =
        pixel_bar[static_cast<std::size_t>(layout.free_pixels[k])];
  if (layout.n_light_weights > 0) {
    const ReferenceResult r = reference_network(light->network, light_weights, light_positions, value_bar);
    std::copy(r.gradient.begin(), r.gradient.end(),
              out.gradient.begin() + static_cast<std::ptrdiff_t>(layout.light_weights_offset()));
  }

  const Regularization& r = problem.regularization;
  std::size_t first_pixel = layout.n_network + layout.free.size();
  for (const LightComponent& c : problem.model.source) {
    if (!c.pixels_free) continue;
    out.regularization += naive_pixel_penalty(r, c.grid.nx, c.grid.ny, parameters.data() + first_pixel,
                                              out.gradient.data() + first_pixel);
    first_pixel += c.pixels.size();
  }
  const RayGrid nodes(grid);
  if (network && r.any() && nodes.interior() > 0) {
    const double spacing = grid.pixel_scale / grid.supersampling;
    const auto hessian_at = [&](int column, int row) {
      return difference_hessian(nodes, out.deflection.data(), static_cast<int>(rays), spacing, column, row);
    };
    Hessian<double> mean{};
    for (int row = 1; row + 1 < nodes.rows; ++row)
      for (int column = 1; column + 1 < nodes.columns; ++column) {
        const Hessian<double> h = hessian_at(column, row);
        mean.xx += h.xx / nodes.interior();
        mean.yy += h.yy / nodes.interior();
        mean.xy += h.xy / nodes.interior();
      }
    for (int row = 1; row + 1 < nodes.rows; ++row)
      for (int column = 1; column + 1 < nodes.columns; ++column) {
        const auto at = static_cast<std::size_t>(nodes.ray(column, row));
        const double macro = macro_values(scene, Vec2<double>{theta[at], theta[rays + at]}).kappa;
        const Hessian<double> hessian = hessian_at(column, row);
        out.regularization += potential_penalty(r, hessian, mean, macro) / nodes.interior();
        const Hessian<double> bar = potential_penalty_adjoint(r, hessian, mean, macro);
        const double scale = 1 / (4 * spacing * nodes.interior());
        const auto add = [&](int c, int l, double x, double y) {  // to the ray of a neighbor
          out.deflection_bar[static_cast<std::size_t>(nodes.ray(c, l))] += scale * x;
          out.deflection_bar[rays + static_cast<std::size_t>(nodes.ray(c, l))] += scale * y;
        };
        add(column + 1, row, 2 * bar.xx, bar.xy);
        add(column - 1, row, -2 * bar.xx, -bar.xy);
        add(column, row + 1, bar.xy, 2 * bar.yy);
        add(column, row - 1, -bar.xy, -2 * bar.yy);
      }
  }
  if (network) {
    const ReferenceResult reference =
        reference_network(*network, weights, theta, std::vector<double>(rays, 0.0), out.deflection_bar);
    for (std::size_t i = 0; i < layout.n_network; ++i) out.gradient[i] += reference.gradient[i];
    for (int layer = network->fixed_layers(); layer < network->layers(); ++layer)
      for (std::size_t i = network->kernel_offset(layer); i < network->bias_offset(layer); ++i) {
        out.regularization += 0.5 * r.weight_decay * weights[i] * weights[i];
        out.gradient[i] += r.weight_decay * weights[i];
      }
  }
  return out;
}

}  // namespace einfield
