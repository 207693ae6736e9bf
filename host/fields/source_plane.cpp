// Rays back to the source plane, light and its gradient there.
#include "host/fields/source_plane.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "einfield/render.hpp"
#include "host/fields/ensemble.hpp"
#include "host/fields/psf_smoothing.hpp"

namespace einfield {
namespace {

/// Pixels per side of the rendered source plane.
constexpr int kSourceSide = 200;
/// Share of the lensed light that the grid of the source plane is drawn around.
constexpr double kSourceLight = 0.95;

}  // namespace

template <class Real>
std::vector<double> source_brightness(const std::vector<Model>& members, const std::vector<double>& positions,
                                      ThreadPool& pool) {
  std::vector<std::vector<double>> values;
  for (const Model& member : members) values.push_back(brightness<Real>(member.source, positions, pool));
  return mean_of(values);
}

std::vector<double> source_positions(const std::vector<double>& theta, const LensFields& smooth,
                                     const LensFields& network) {
  std::vector<double> beta(theta.size());
  for (std::size_t i = 0; i < beta.size(); ++i) beta[i] = theta[i] - smooth.deflection[i] - network.deflection[i];
  return beta;
}

template <class Real>
PixelGrid source_grid(const std::vector<Model>& members, const Observation& observation,
                      const std::vector<double>& positions, ThreadPool& pool) {
  const std::size_t n = positions.size() / 2;
  const std::vector<double> values = source_brightness<Real>(members, positions, pool);
  std::vector<Vec2<double>> beta;
  std::vector<double> light;
  for (std::size_t i = 0; i < n; ++i) {
    const Vec2<double> position{positions[i], positions[n + i]};
    if (!observation.mask[i] || !std::isfinite(position.x + position.y + values[i])) continue;
    beta.push_back(position);
    light.push_back(std::abs(values[i]));
  }
  std::vector<std::size_t> order(beta.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&light](std::size_t a, std::size_t b) { return light[a] > light[b]; });
  const double wanted = kSourceLight * std::accumulate(light.begin(), light.end(), 0.0);

  const double scale = observation.grid.pixel_scale;
  double low_x = kInfinity, high_x = -kInfinity, low_y = kInfinity, high_y = -kInfinity, sum = 0;
  for (const std::size_t i : order) {
    low_x = std::min(low_x, beta[i].x);
    high_x = std::max(high_x, beta[i].x);
    low_y = std::min(low_y, beta[i].y);
    high_y = std::max(high_y, beta[i].y);
    sum += light[i];
    if (sum >= wanted) break;
  }
  if (order.empty()) return {kSourceSide, kSourceSide, scale, 0, 0};
  // A source smaller than a pixel still gets a pixel's width around it.
  const double side = 1.2 * std::max({high_x - low_x, high_y - low_y, scale});
  return {kSourceSide, kSourceSide, side / kSourceSide, (low_x + high_x) / 2, (low_y + high_y) / 2};
}

template <class Real>
std::vector<double> sensitivity(const std::vector<Model>& members, const Observation& observation,
                                const std::vector<double>& positions, ThreadPool& pool) {
  const std::size_t n = positions.size() / 2;
  std::vector<std::vector<double>> gradients;
  for (const Model& member : members) gradients.push_back(brightness_gradient<Real>(member.source, positions, pool));
  const std::vector<double> gradient = mean_of(gradients);
  PsfSmoothing psf(observation);
  std::vector<double> blurred(2 * n), result(n, 0.0);
  for (const std::size_t first : {std::size_t{0}, n}) psf.apply(gradient.data() + first, blurred.data() + first);
  for (std::size_t i = 0; i < n; ++i)
    if (observation.mask[i]) result[i] = std::hypot(blurred[i], blurred[n + i]) / observation.noise[i];
  return result;
}

std::vector<double> weights_of_constant(const std::vector<double>& sensitivity, const Observation& observation) {
  std::vector<double> weights;
  for (const double s : sensitivity) weights.push_back(s * s);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (sum > 0 && std::isfinite(sum)) return weights;
  return {observation.mask.begin(), observation.mask.end()};
}

template std::vector<double> source_brightness<float>(const std::vector<Model>&, const std::vector<double>&,
                                                      ThreadPool&);
template PixelGrid source_grid<float>(const std::vector<Model>&, const Observation&, const std::vector<double>&,
                                      ThreadPool&);
template std::vector<double> sensitivity<float>(const std::vector<Model>&, const Observation&,
                                                const std::vector<double>&, ThreadPool&);
template std::vector<double> source_brightness<double>(const std::vector<Model>&, const std::vector<double>&,
                                                       ThreadPool&);
template PixelGrid source_grid<double>(const std::vector<Model>&, const Observation&, const std::vector<double>&,
                                       ThreadPool&);
template std::vector<double> sensitivity<double>(const std::vector<Model>&, const Observation&,
                                                 const std::vector<double>&, ThreadPool&);

}  // namespace einfield
