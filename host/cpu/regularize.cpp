// Loops over the nodes of the ray grid, the weights of the network, the priors and the source pixels.
#include "host/cpu/regularize.hpp"

#include "einfield/regularization.hpp"

namespace einfield::cpu {
namespace {

/// κ of the smooth model at every ray: once, or in every step when the lens is free.
template <class Real>
void fill_kappa_macro(System<Real>& s, ThreadPool& pool) {
  if (s.kappa_macro_filled && !s.lens_is_free) return;
  s.kappa_macro_filled = true;
  const View<Real> kappa(s.kappa_macro);
  for_each_chunk(pool, s.n_rays, [&](int, Span span) {
    for (int ray = span.begin; ray < span.end; ++ray) kappa[ray] = macro_values(s.scene(), s.theta_at(ray)).kappa;
  });
}

/// Mean over the interior nodes of the second derivatives of the network's potential.
template <class Real>
Hessian<Real> mean_hessian(const System<Real>& s, ThreadPool& pool, const RayGrid& nodes, Real spacing) {
  std::array<Hessian<double>, kChunks> parts{};
  for_each_chunk(pool, nodes.rows - 2, [&](int chunk, Span span) {
    Hessian<double>& sum = parts[static_cast<std::size_t>(chunk)];
    for (int row = span.begin + 1; row < span.end + 1; ++row)
      for (int column = 1; column + 1 < nodes.columns; ++column) {
        const Hessian<Real> h = difference_hessian(nodes, s.deflection.data(), s.n_rays, spacing, column, row);
        sum.xx += static_cast<double>(h.xx);
        sum.yy += static_cast<double>(h.yy);
        sum.xy += static_cast<double>(h.xy);
      }
  });
  Hessian<double> mean{};
  for (const Hessian<double>& part : parts) {
    mean.xx += part.xx / nodes.interior();
    mean.yy += part.yy / nodes.interior();
    mean.xy += part.xy / nodes.interior();
  }
  return {static_cast<Real>(mean.xx), static_cast<Real>(mean.yy), static_cast<Real>(mean.xy)};
}

/// The penalties on the network's potential.
template <class Real>
double regularize_potential(System<Real>& s, ThreadPool& pool) {
  const Regularization& weights = s.regularization;
  const RayGrid nodes(s.grid);
  const int interior = nodes.interior();
  if (interior == 0) return 0;
  const Real spacing = static_cast<Real>(s.grid.pixel_scale / s.grid.supersampling);
  if (weights.negative_total_convergence > 0) fill_kappa_macro(s, pool);
  const Hessian<Real> mean = weights.curvature > 0 ? mean_hessian(s, pool, nodes, spacing) : Hessian<Real>{};
  const View<const Real> kappa_macro(s.kappa_macro);
  const std::array<double, kChunks> parts = chunk_sums(pool, nodes.rows, [&](Span span) {
    double sum = 0;
    for (int row = span.begin; row < span.end; ++row)
      for (int column = 0; column < nodes.columns; ++column) {
        if (row == 0 || column == 0 || row + 1 == nodes.rows || column + 1 == nodes.columns) continue;
        const Hessian<Real> hessian = difference_hessian(nodes, s.deflection.data(), s.n_rays, spacing, column, row);
        const Real kappa = kappa_macro[nodes.ray(column, row)];
        sum += static_cast<double>(potential_penalty(weights, hessian, mean, kappa));
        const Hessian<Real> bar = potential_penalty_adjoint(weights, hessian, mean, kappa);
        Real* const of_node = s.hessian_bar.data() + row * nodes.columns + column;  // the border stays 0
        of_node[0] = bar.xx / static_cast<Real>(interior);
        of_node[s.n_rays] = bar.yy / static_cast<Real>(interior);
        of_node[2 * s.n_rays] = bar.xy / static_cast<Real>(interior);
      }
    return sum;
  });
  double total = 0;
  for (const double part : parts) total += part / interior;
  const View<Real> deflection_bar(s.deflection_bar);
  for_each_chunk(pool, nodes.rows, [&](int, Span span) {
    for (int row = span.begin; row < span.end; ++row)
      for (int column = 0; column < nodes.columns; ++column) {
        const Vec2<Real> bar = difference_hessian_adjoint(nodes, s.hessian_bar.data(), spacing, column, row);
        const int ray = nodes.ray(column, row);
        deflection_bar[ray] += bar.x;
        deflection_bar[s.n_rays + ray] += bar.y;
      }
  });
  return total;
}

/// Adds ½ w Σ weight² over the network's kernels to `total`, term by term.
template <class Real>
void decay_weights(System<Real>& s, double& total) {
  const double decay = s.regularization.weight_decay;
  for (int layer = s.shape->fixed_layers(); layer < s.shape->layers(); ++layer)
    for (std::size_t i = s.shape->kernel_offset(layer); i < s.shape->bias_offset(layer); ++i) {
      const auto w = static_cast<double>(s.parameters[i]);
      total += 0.5 * decay * w * w;
      s.gradient[i] += static_cast<Real>(decay * w);
    }
}

/// The penalty of one Gaussian prior.
template <class Real>
double regularize_prior(System<Real>& s, const GaussianPrior<double>& prior) {
  const std::vector<FreeParameter<Real>>& free = s.tables.free;
  const auto slot = [&free](int i) { return static_cast<std::size_t>(free[static_cast<std::size_t>(i)].slot); };
  const GaussianPrior<Real> known{prior.free, prior.other, static_cast<Real>(prior.factor),
                                  static_cast<Real>(prior.mean), static_cast<Real>(prior.sigma)};
  const Real weight = static_cast<Real>(1.0 / s.n_fitted);
  const Real z = prior_deviation(known, [&](int i) { return s.tables.table[slot(i)]; });
  std::vector<Real> table_bar(s.tables.table.size(), Real(0));
  prior_adjoint(known, z, [&](int i, Real bar) { table_bar[slot(i)] += weight * bar; });
  Real* const gradient = s.gradient.data() + s.layout.n_network;
  for (std::size_t i = 0; i < free.size(); ++i) {
    const int partner = free[i].partner;
    if (table_bar[slot(static_cast<int>(i))] != 0 || (partner >= 0 && table_bar[slot(partner)] != 0))
      gradient[i] += transform_adjoint(free.data(), static_cast<int>(i), s.scalars(), table_bar.data());
  }
  return static_cast<double>(weight * z * z);
}

/// The penalty on the pixels of one PIXELATED component.
template <class Real>
double regularize_pixels(System<Real>& s, ThreadPool& pool, const FreePixels& block) {
  const Regularization& weights = s.regularization;
  const Real* const pixels = s.parameters.data() + block.offset;
  Real* const gradient = s.gradient.data() + block.offset;
  const int n = block.nx * block.ny;
  const std::array<double, kChunks> parts = chunk_sums(pool, n, [&](Span span) {
    double sum = 0;
    for (int i = span.begin; i < span.end; ++i) {
      const int ix = i % block.nx, iy = i / block.nx;
      sum += static_cast<double>(source_pixel_penalty(weights, pixels, block.nx, block.ny, ix, iy));
      gradient[i] += source_pixel_penalty_adjoint(weights, pixels, block.nx, block.ny, ix, iy) / static_cast<Real>(n);
    }
    return sum;
  });
  double total = 0;
  for (const double part : parts) total += part / n;
  return total;
}

}  // namespace

template <class Real>
void regularize(System<Real>& s, ThreadPool& pool) {
  const Regularization& weights = s.regularization;
  if (!weights.any() && s.layout.priors.empty()) return;
  s.place_parameters();
  double total = 0;
  if (s.network && weights.on_potential()) total += regularize_potential(s, pool);
  if (s.network && weights.weight_decay > 0) decay_weights(s, total);
  for (const GaussianPrior<double>& prior : s.layout.priors) total += regularize_prior(s, prior);
  if (weights.on_source_pixels())
    for (const FreePixels& block : s.free_source_pixels) total += regularize_pixels(s, pool, block);
  s.state.regularization += total;
}

template void regularize(System<float>&, ThreadPool&);
template void regularize(System<double>&, ThreadPool&);

}  // namespace einfield::cpu
