// A lens with every kind of component for the tests of exchanged files, and comparisons of such lenses.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <string>
#include <vector>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "host/app/simulate.hpp"
#include "host/exchange/exchange.hpp"
#include "host/exchange/lens_toml.hpp"
#include "host/files/fits_io.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {

inline LensComponent lens_of(LensKind kind, std::vector<double> values, std::initializer_list<const char*> free = {}) {
  LensComponent c = new_lens(kind);
  c.values = std::move(values);
  for (const char* name : free) c.free[static_cast<std::size_t>(lens_info(kind).index_of(name))] = true;
  return c;
}

inline LightComponent light_of(LightKind kind, std::vector<double> values,
                               std::initializer_list<const char*> free = {}) {
  LightComponent c = new_light(kind);
  c.values = std::move(values);
  for (const char* name : free) c.free[static_cast<std::size_t>(light_info(kind).index_of(name))] = true;
  return c;
}

/// Weights that are all unlike.
inline std::vector<double> some_weights(const NetworkShape& shape) {
  return initial_weights(shape, 7, false);
}

/// Every profile, data of nx × ny pixels, a network of the potential and a NETWORK source.
inline ExchangedLens every_component(int nx, int ny) {
  ExchangedLens lens;
  Observation& o = lens.observation;
  o.grid = {nx, ny, 0.13, 0.2, -0.1, 2};
  for (int i = 0; i < o.grid.n_pixels(); ++i) {
    o.image.push_back(0.1 * i - 3);
    o.noise.push_back(1 + 0.01 * i);
    o.mask.push_back(i % 7 != 0);
  }
  o.psf = {3, 3, {0.05, 0.1, 0.05, 0.1, 0.4, 0.1, 0.05, 0.1, 0.05}, 2};
  lens.unit = "e/s";
  lens.source_grid = {5, 5, 0.1, 0.3, 0.2};
  lens.model.lens = {lens_of(LensKind::sie, {1.2, 0.1, -0.2, 0.03, -0.04}, {"theta_E", "e1", "e2"}),
                     lens_of(LensKind::shear, {0.03, -0.05, 0.2, -0.1}, {"gamma1", "gamma2"}),
                     lens_of(LensKind::epl, {0.3, 1.8, -0.15, 0.2, 0.5, 0.4}, {"gamma", "center_x", "center_y"}),
                     lens_of(LensKind::nie, {0.2, 0.1, 0.1, 0.07, -0.5, 0.1}, {"s_scale"}),
                     lens_of(LensKind::convergence, {0.02, -0.3, 0.15}, {"kappa"}),
                     lens_of(LensKind::sis, {0.05, -0.7, 0.9}),
                     lens_of(LensKind::nfw, {1.5, 0.05, 0.2, 0.1}, {"Rs"}),
                     lens_of(LensKind::nfw_ellipse_potential, {2.0, 0.06, 0.1, 0.05, 0.0, 0.1}, {"alpha_Rs"}),
                     lens_of(LensKind::point_mass, {0.1, 0.6, 0.5}, {"theta_E"}),
                     lens_of(LensKind::multipole, {4, 0.01, 0.3, 0.02, 0.01, 1}, {"a_m"}),
                     lens_of(LensKind::multipole, {1, 0.01, -0.4, 0.01, 0.02, 1.4}, {"a_m", "phi_m"}),
                     lens_of(LensKind::tnfw, {0.3, 0.02, 0.9, -0.4, 0.6}, {"alpha_Rs", "r_trunc"}),
                     lens_of(LensKind::flexion, {0.003, -0.002, 0.001, 0.004, 0.1, 0.2}, {"g1", "g4"})};
  lens.model.source = {light_of(LightKind::sersic_ellipse, {10, 0.4, 1.5, -0.09, 0.13, 0.1, 0.05}, {"amp", "R_sersic"}),
                       light_of(LightKind::sersic_ellipse, {7, 0.2, 2.5, 0.2, 0.1, -0.1, 0.05}, {"n_sersic"}),
                       light_of(LightKind::gaussian, {2, 0.1, -0.1, 0.12}, {"sigma"}),
                       light_of(LightKind::pixelated, {}), light_of(LightKind::network, {3, 0.1, 0.2}, {"amp"})};
  lens.model.source[1].radius = RadiusKind::major_axis;
  LightComponent& pixels = lens.model.source[3];
  pixels.grid = {3, 3, 0.2, 0.1, -0.05};
  pixels.pixels = {1, 2, 3, 4, 5, 6, 7, 8, 9.5};
  pixels.pixels_free = true;
  LightComponent& network = lens.model.source[4];
  network.network = {{5}, 2, 0};
  network.weights_free = true;
  lens.network_lights = {network};
  lens.network_lights[0].weights = some_weights(network.network);
  lens.model.lens_light = {light_of(LightKind::uniform, {0.3}, {"amp"}),
                           light_of(LightKind::sersic_ellipse, {3, 0.6, 4, 0.05, 0.02, 0.03, -0.04}, {"e1", "e2"}),
                           light_of(LightKind::gaussian_ellipse, {4, 0.3, 0.1, -0.2, 0.02, 0.01}, {"amp", "e1", "e2"}),
                           light_of(LightKind::uniform, {-0.1}, {})};
  // Intervals and Gaussians, of parameters that the standards share and of others.
  const auto know = [](auto& c, const ProfileInfo& info, const char* name, const ParameterPrior& prior) {
    c.priors.resize(c.values.size());
    c.priors[static_cast<std::size_t>(info.index_of(name))] = prior;
  };
  LensComponent& sie = lens.model.lens[0];
  know(sie, lens_info(sie.kind), "theta_E", {1, 1.5, 1.2, 0.1});
  know(sie, lens_info(sie.kind), "e1", {-0.3, 0.3, 0, 0});
  know(lens.model.lens[2], lens_info(LensKind::epl), "gamma", {1.5, 2.5, 0, 0});
  know(lens.model.lens[6], lens_info(LensKind::nfw), "Rs", {-kInfinity, kInfinity, 1.4, 0.2});
  for (const char* name : {"amp", "R_sersic"})
    know(lens.model.source[0], light_info(LightKind::sersic_ellipse), name, {0.1, 20, 1, 0.5});
  know(lens.model.source[2], light_info(LightKind::gaussian), "sigma", {-kInfinity, kInfinity, 0.2, 0.05});
  know(lens.model.source[4], light_info(LightKind::network), "amp", {1, 5, 0, 0});
  lens.networks = {{{{6, 4}, 1, 0}, some_weights({{6, 4}, 1, 0})}};
  return lens;
}

/// The files of a fit that those of other packages refer to.
inline void write_networks(const ExchangedLens& lens, const TemporaryDirectory& folder) {
  write_network(folder / "network.safetensors", lens.networks[0].shape, lens.networks[0].parameters, true);
  write_network(folder / "source_network.safetensors", lens.network_lights[0].network, lens.network_lights[0].weights,
                true);
}

constexpr double kRoundTrip = 1e-12;  ///< what users are promised; a few roundings

template <class Component>
void expect_same(const std::string& name, const Component& a, const Component& b, const ProfileInfo& info) {
  ASSERT_EQ(a.kind, b.kind) << name;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    EXPECT_NEAR(a.values[i], b.values[i], kRoundTrip * std::max(1.0, std::abs(a.values[i])))
        << name << " " << info.parameters[i].name;
    EXPECT_EQ(a.free[i], b.free[i]) << name << " " << info.parameters[i].name;
    const ParameterPrior none, &p = a.priors.empty() ? none : a.priors[i], &q = b.priors.empty() ? none : b.priors[i];
    EXPECT_EQ(p.bounded(), q.bounded()) << name << " " << info.parameters[i].name;
    EXPECT_NEAR(p.sigma, q.sigma, kRoundTrip) << name << " " << info.parameters[i].name;
    EXPECT_NEAR(p.mean, q.mean, kRoundTrip) << name << " " << info.parameters[i].name;
    if (!p.bounded()) continue;
    EXPECT_NEAR(p.lower, q.lower, kRoundTrip) << name << " " << info.parameters[i].name;
    EXPECT_NEAR(p.upper, q.upper, kRoundTrip) << name << " " << info.parameters[i].name;
  }
}

inline void expect_same_lights(const std::string& block, const std::vector<LightComponent>& a,
                               const std::vector<LightComponent>& b) {
  ASSERT_EQ(a.size(), b.size()) << block;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const std::string name = block + "." + std::to_string(i);
    expect_same(name, a[i], b[i], light_info(a[i].kind));
    EXPECT_EQ(a[i].radius, b[i].radius) << name;
    EXPECT_EQ(a[i].pixels_free, b[i].pixels_free) << name;
    EXPECT_EQ(a[i].weights_free, b[i].weights_free) << name;
    if (a[i].kind != LightKind::pixelated) continue;
    EXPECT_EQ(a[i].grid.nx, b[i].grid.nx) << name;
    EXPECT_EQ(a[i].grid.ny, b[i].grid.ny) << name;
    EXPECT_NEAR(a[i].grid.pixel_scale, b[i].grid.pixel_scale, kRoundTrip) << name;
    EXPECT_NEAR(a[i].grid.center_x, b[i].grid.center_x, kRoundTrip) << name;
    EXPECT_NEAR(a[i].grid.center_y, b[i].grid.center_y, kRoundTrip) << name;
    ASSERT_EQ(a[i].pixels.size(), b[i].pixels.size()) << name;
    for (std::size_t k = 0; k < a[i].pixels.size(); ++k)
      EXPECT_NEAR(a[i].pixels[k], b[i].pixels[k], kRoundTrip * std::abs(a[i].pixels[k])) << name << " " << k;
  }
}

/// Components, their networks, and the data.
inline void expect_same_lens(const ExchangedLens& a, const ExchangedLens& b) {
  ASSERT_EQ(a.model.lens.size(), b.model.lens.size());
  for (std::size_t i = 0; i < a.model.lens.size(); ++i)
    expect_same("lens." + std::to_string(i), a.model.lens[i], b.model.lens[i], lens_info(a.model.lens[i].kind));
  expect_same_lights("source", a.model.source, b.model.source);
  expect_same_lights("lens_light", a.model.lens_light, b.model.lens_light);
  ASSERT_EQ(a.networks.size(), b.networks.size());
  for (std::size_t k = 0; k < a.networks.size(); ++k) {
    EXPECT_EQ(a.networks[k].shape, b.networks[k].shape);
    EXPECT_EQ(a.networks[k].parameters, b.networks[k].parameters);
  }
  ASSERT_EQ(a.network_lights.size(), b.network_lights.size());
  for (std::size_t k = 0; k < a.network_lights.size(); ++k)
    EXPECT_EQ(a.network_lights[k].weights, b.network_lights[k].weights);
  const Observation &p = a.observation, &q = b.observation;
  EXPECT_EQ(p.grid.nx, q.grid.nx);
  EXPECT_EQ(p.grid.ny, q.grid.ny);
  EXPECT_EQ(p.grid.supersampling, q.grid.supersampling);
  EXPECT_NEAR(p.grid.pixel_scale, q.grid.pixel_scale, kRoundTrip);
  EXPECT_NEAR(p.grid.center_x, q.grid.center_x, kRoundTrip);
  EXPECT_NEAR(p.grid.center_y, q.grid.center_y, kRoundTrip);
  EXPECT_EQ(p.image, q.image);
  EXPECT_EQ(p.noise, q.noise);
  EXPECT_EQ(p.mask, q.mask);
  EXPECT_EQ(p.psf.nx, q.psf.nx);
  EXPECT_EQ(p.psf.ny, q.psf.ny);
  EXPECT_EQ(p.psf.supersampling, q.psf.supersampling);
  EXPECT_EQ(p.psf.values, q.psf.values);
}

/// The noise-free image of a lens without data: through the configuration that is made of it.
inline std::vector<double> simulated_image(const ExchangedLens& lens) {
  const TemporaryDirectory folder;
  const std::string configuration = write_configuration(folder.path().string(), lens, "a \"test\"", false);
  const Config config = read_config(configuration, {}, true);
  simulate(config, config.observation.image.path, false);
  // What has been simulated can be fitted with the same file.
  const LoadedProblem problem = load_problem(read_config(configuration, {}, false));
  EXPECT_EQ(problem.problem.observation.grid.nx, lens.observation.grid.nx);
  return read_fits(config.observation.image.path, "IMAGE_TRUE").values;
}

/// Images agree to what users are promised, of the maximum.
inline void expect_same_image(const std::vector<double>& ours, const std::vector<double>& theirs) {
  ASSERT_EQ(ours.size(), theirs.size());
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    largest = std::max(largest, std::abs(theirs[i]));
    error = std::max(error, std::abs(ours[i] - theirs[i]));
  }
  EXPECT_LT(error, 1e-6 * largest);
}

/// What a reader says about a file.
template <class Read>
std::string complaint(Read read, const std::string& file) {
  std::vector<std::string> warnings;
  try {
    read(file, warnings);
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "";
}

}  // namespace einfield
