// Values at many positions: the profiles on all threads, networks by host/cpu/network.hpp.
#include "host/fields/lens_fields.hpp"

#include <algorithm>

#include "einfield/render.hpp"
#include "host/cpu/network.hpp"

namespace einfield {
namespace {

constexpr std::size_t kBatch = 8192;

/// at(0) … at(n − 1), 2 × n: all x, then all y.
template <class At>
std::vector<double> positions(int count, At&& at) {
  const auto n = static_cast<std::size_t>(count);
  std::vector<double> theta(2 * n);
  for (std::size_t i = 0; i < n; ++i) {
    const Vec2<double> position = at(static_cast<int>(i));
    theta[i] = position.x;
    theta[n + i] = position.y;
  }
  return theta;
}

}  // namespace

std::vector<double> pixel_centers(const Grid& grid) {
  return positions(grid.n_pixels(), [&grid](int i) { return grid.pixel(i); });
}

std::vector<double> ray_positions(const Grid& grid) {
  return positions(grid.n_rays(), [&grid](int i) { return grid.ray(i); });
}

LensFields zero_fields(std::size_t n) {
  return {std::vector<double>(n, 0.0), std::vector<double>(2 * n, 0.0), std::vector<double>(n, 0.0)};
}

void add_fields(LensFields& to, const LensFields& more) {
  const auto add = [](std::vector<double>& sum, const std::vector<double>& values) {
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
  };
  add(to.potential, more.potential);
  add(to.deflection, more.deflection);
  add(to.convergence, more.convergence);
}

LensFields smooth_fields(const std::vector<LensComponent>& lens, const std::vector<double>& theta, ThreadPool& pool) {
  const std::size_t n = theta.size() / 2;
  LensFields fields = zero_fields(n);
  pool.parallel_for(static_cast<int>((n + kBatch - 1) / kBatch), [&](int batch, int) {
    const std::size_t begin = static_cast<std::size_t>(batch) * kBatch;
    for (std::size_t i = begin; i < std::min(begin + kBatch, n); ++i)
      for (const LensComponent& c : lens) {
        const LensValues<double> v = lens_values(c.kind, c.values.data(), Vec2<double>{theta[i], theta[n + i]});
        fields.potential[i] += v.psi;
        fields.deflection[i] += v.alpha.x;
        fields.deflection[n + i] += v.alpha.y;
        fields.convergence[i] += v.kappa;
      }
  });
  return fields;
}

template <class Real>
LensFields in_double(const NetworkFields<Real>& fields) {
  return {std::vector<double>(fields.potential.begin(), fields.potential.end()),
          std::vector<double>(fields.deflection.begin(), fields.deflection.end()),
          std::vector<double>(fields.convergence.begin(), fields.convergence.end())};
}

template <class Real>
LensFields network_fields(const NetworkShape& shape, const std::vector<double>& parameters,
                          const std::vector<double>& theta, ThreadPool& pool, bool with_convergence) {
  return in_double(evaluate_network(shape, std::vector<Real>(parameters.begin(), parameters.end()),
                                    std::vector<Real>(theta.begin(), theta.end()), pool, with_convergence));
}

namespace {

/// Calls visit(component, profile, position, sample, i) for every component and position.
template <class Real, class Visit>
void visit_lights(const std::vector<LightComponent>& lights, const std::vector<double>& positions, ThreadPool& pool,
                  Visit&& visit) {
  const std::size_t n = positions.size() / 2;
  for (const LightComponent& c : lights) {
    LensFields network;
    if (c.kind == LightKind::network) {
      std::vector<double> from_center = positions;
      for (std::size_t i = 0; i < n; ++i) {
        from_center[i] -= c.values[1];
        from_center[n + i] -= c.values[2];
      }
      network = network_fields<Real>(c.network, c.weights, from_center, pool);
    }
    const Component component{static_cast<int>(c.kind), c.radius, 0, c.grid};
    for (std::size_t i = 0; i < n; ++i) {
      NetworkSample<double> sample{};
      if (!network.potential.empty())
        sample = {network.potential[i], {network.deflection[i], network.deflection[n + i]}};
      visit(component, c, Vec2<double>{positions[i], positions[n + i]}, sample, i);
    }
  }
}

}  // namespace

template <class Real>
std::vector<double> brightness(const std::vector<LightComponent>& lights, const std::vector<double>& positions,
                               ThreadPool& pool) {
  std::vector<double> sum(positions.size() / 2, 0.0);
  visit_lights<Real>(lights, positions, pool,
                     [&sum](const Component& component, const LightComponent& c, Vec2<double> position,
                            const NetworkSample<double>& sample, std::size_t i) {
                       sum[i] += light_brightness(component, c.values.data(), c.pixels.data(), position, sample);
                     });
  return sum;
}

template <class Real>
std::vector<double> brightness_gradient(const std::vector<LightComponent>& lights, const std::vector<double>& positions,
                                        ThreadPool& pool) {
  const std::size_t n = positions.size() / 2;
  std::vector<double> sum(2 * n, 0.0);
  visit_lights<Real>(lights, positions, pool,
                     [&sum, n](const Component& component, const LightComponent& c, Vec2<double> position,
                               const NetworkSample<double>& sample, std::size_t i) {
                       Vec2<double> gradient{};
                       light_brightness_adjoint(
                           component, c.values.data(), c.pixels.data(), position, 1.0, gradient,
                           static_cast<double*>(nullptr), [](int, double) {}, sample);
                       sum[i] += gradient.x;
                       sum[n + i] += gradient.y;
                     });
  return sum;
}

template std::vector<double> brightness<float>(const std::vector<LightComponent>&, const std::vector<double>&,
                                               ThreadPool&);
template std::vector<double> brightness<double>(const std::vector<LightComponent>&, const std::vector<double>&,
                                                ThreadPool&);
template std::vector<double> brightness_gradient<float>(const std::vector<LightComponent>&, const std::vector<double>&,
                                                        ThreadPool&);
template std::vector<double> brightness_gradient<double>(const std::vector<LightComponent>&, const std::vector<double>&,
                                                         ThreadPool&);
template LensFields in_double(const NetworkFields<float>&);
template LensFields in_double(const NetworkFields<double>&);
template LensFields network_fields<float>(const NetworkShape&, const std::vector<double>&, const std::vector<double>&,
                                          ThreadPool&, bool);
template LensFields network_fields<double>(const NetworkShape&, const std::vector<double>&, const std::vector<double>&,
                                           ThreadPool&, bool);

}  // namespace einfield
