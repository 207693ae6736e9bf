// Loops over rays, pixels and columns of derivatives; every number is made by one thread in a fixed order.
#include "host/fit/joint_model.hpp"

#include <algorithm>
#include <cmath>
#include <Eigen/LU>
#include <Eigen/QR>
#include <numeric>
#include <string>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/tangent.hpp"
#include "einfield/units.hpp"
#include "host/cpu/network_jacobian.hpp"
#include "host/cpu/rays.hpp"
#include "host/fit/gram.hpp"

namespace einfield {
namespace {

constexpr int kChunk = 256;  ///< rays
constexpr double kRootTwo = 1.4142135623730951;
constexpr double kHeld = 1e-4;           ///< σ of (3)
constexpr double kSameDirection = 1e-6;  ///< two parameters of the lens that do the same

/// Second derivatives of the potential at all interior nodes, of a deflection: (3 nodes), xx, yy, xy.
Eigen::VectorXd second_derivatives(const Grid& grid, const double* alpha) {
  const RayGrid nodes(grid);
  const double spacing = grid.pixel_scale / grid.supersampling;
  const Eigen::Index n = nodes.interior();
  Eigen::VectorXd result(3 * n);
  Eigen::Index k = 0;
  for (int row = 1; row + 1 < nodes.rows; ++row)
    for (int column = 1; column + 1 < nodes.columns; ++column, ++k) {
      const Hessian<double> h = difference_hessian(nodes, alpha, grid.n_rays(), spacing, column, row);
      result[k] = h.xx;
      result[n + k] = h.yy;
      result[2 * n + k] = h.xy;
    }
  return result;
}

/// κ and ∇∇ψ − ⟨∇∇ψ⟩ (xx, yy and √2 xy) from the second derivatives.
void split(const Eigen::VectorXd& h, Eigen::Ref<Eigen::VectorXd> kappa, Eigen::Ref<Eigen::VectorXd> shape) {
  const Eigen::Index n = h.size() / 3;
  kappa = (h.head(n) + h.segment(n, n)) / 2;
  for (int part = 0; part < 3; ++part) {
    const auto values = h.segment(part * n, n);
    shape.segment(part * n, n) = (part == 2 ? kRootTwo : 1.0) * (values.array() - values.mean()).matrix();
  }
}

/// Refuses a loss or a component that (2) does not cover.
void require_supported(const Problem& problem, const std::vector<std::uint8_t>& moves) {
  EINFIELD_REQUIRE(problem.loss == LossKind::chi2,
                   "gauss_newton: the loss is \"" + std::string(name_of(problem.loss)) + "\", expected \"chi2\"");
  EINFIELD_REQUIRE(network_light(problem.model) == nullptr,
                   "gauss_newton: a light with profile NETWORK, expected PIXELATED or a profile of a formula");
  for (const LightComponent& light : problem.model.lens_light)
    EINFIELD_REQUIRE(!light.pixels_free,
                     "gauss_newton: free pixels of a lens_light, expected free pixels only in the source");
  const ParameterLayout layout(problem.model);
  const std::size_t first = layout.n_network + layout.n_free();
  for (std::size_t k = 1; !moves.empty() && k < layout.free_pixels.size(); ++k)
    EINFIELD_REQUIRE(
        moves[first + k] == moves[first],
        "gauss_newton: the pixels of one component move and those of another do not, expected all or none");
}

}  // namespace

double JointValue::total(const Regularization& weights) const {
  double sum = chi2 + signs + priors;
  for (std::size_t k = 0; k < network.size(); ++k) sum += weights.*kNetworkTerms[k] * network[k];
  for (std::size_t k = 0; k < source.size(); ++k) sum += weights.*SourcePrior::kTerms[k] * source[k];
  return sum;
}

JointModel::JointModel(const Problem& problem, const std::vector<std::uint8_t>& moves, ThreadPool& pool)
    : problem_(problem), pool_(pool), layout_(problem.model), tables_(problem.model, layout_) {
  require_supported(problem, moves);
  choose(moves);
  const Observation& o = problem.observation;
  const Grid& grid = o.grid;
  const PixelWeights<double> weights = pixel_weights<double>(o, LossKind::chi2, problem.held_out);
  for (int i = 0; i < grid.n_pixels(); ++i) {
    const auto k = static_cast<std::size_t>(i);
    if (weights.loss[k] == 0) continue;
    used_.push_back({i % grid.nx, i / grid.nx, 1 / o.noise[k], o.image[k] / o.noise[k]});
  }
  whitening_ = whitening_of(o, problem.held_out);
  if (const int nodes = RayGrid(grid).interior(); nodes > 0) node_share_ = static_cast<double>(n_data()) / nodes;
  if (!pixels_.empty())
    source_prior_ = SourcePrior(free_source_pixels(problem.model), n_data(), problem.source_variance);
  const auto rays = static_cast<std::size_t>(grid.n_rays());
  theta_.resize(2 * rays);
  for (std::size_t i = 0; i < rays; ++i) {
    const Vec2<double> at = grid.ray(static_cast<int>(i));
    theta_[i] = at.x;
    theta_[rays + i] = at.y;
  }
  deflection_.assign(2 * rays, 0.0);
  slope_.assign(2 * rays, 0.0);
  brightness_.assign(rays, 0.0);
  if (problem.model.network)
    network_ = std::make_unique<CpuNetwork<double>>(*problem.model.network, grid.n_rays(), pool, 0);
  const int f = o.psf.supersampling;
  const std::size_t samples = static_cast<std::size_t>(grid.n_pixels()) * static_cast<std::size_t>(f * f);
  for (int i = 0; i < pool.threads(); ++i) {
    convolutions_.emplace_back(grid.nx * f, grid.ny * f, o.psf);
    image_.emplace_back(samples, 0.0);
    convolved_.emplace_back(samples, 0.0);
  }
}

/// Lists what moves: the source's pixels; the network's weights without the constant of the potential, then scalars.
void JointModel::choose(const std::vector<std::uint8_t>& moves) {
  const auto moving = [&](std::size_t i) { return moves.empty() || moves[i] != 0; };
  if (const auto& shape = problem_.model.network; shape) {
    for (std::size_t i = shape->fixed_size(); i + 1 < shape->size(); ++i)
      if (moving(i)) rest_.push_back(i);
    linear_readout_ = shape->layers() == shape->fixed_layers() + 1;
  }
  n_weights_ = rest_.size();
  const std::size_t scalars = layout_.n_network, first_pixel = scalars + layout_.n_free();
  for (std::size_t i = scalars; i < first_pixel; ++i)
    if (moving(i)) rest_.push_back(i);
  for (std::size_t k = 0; k < layout_.free_pixels.size(); ++k)
    if (moving(first_pixel + k)) pixels_.push_back(first_pixel + k);
  EINFIELD_REQUIRE(!pixels_.empty() || !rest_.empty(), "gauss_newton: no parameter moves, expected at least one");
}

std::size_t JointModel::planned_entries(const Problem& problem) {
  const Observation& o = problem.observation;
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  const std::size_t support = size(4 * std::max(o.psf.nx * o.psf.ny, 1) * o.grid.rays_per_pixel());
  return size(o.n_used()) * std::min(ParameterLayout(problem.model).free_pixels.size(), support);
}

std::size_t JointModel::planned_bytes(const Problem& problem, int threads) {
  const ParameterLayout layout(problem.model);
  const Observation& o = problem.observation;
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  const std::size_t weights = layout.n_network, rest = weights + layout.n_free(), rays = size(o.grid.n_rays()),
                    data = size(o.n_used()),
                    samples = size(o.grid.n_pixels()) * size(o.psf.supersampling * o.psf.supersampling);
  // Correlated noise fills A; A and B beside each other for the normal equations.
  const std::size_t dense = o.noise_correlation.empty() ? 0 : data * (2 * layout.free_pixels.size() + rest);
  std::size_t bytes =
      8 * (dense + rays * 7 + weights * rays * 6 + weights * weights * 8 + data * rest + 2 * samples * size(threads));
  bytes += 12 * planned_entries(problem) + NoiseWhitening::planned_bytes(o.noise_correlation, o.grid, data);
  if (problem.model.network)
    bytes += CpuNetwork<double>::planned_bytes(*problem.model.network, o.grid.n_rays(), threads, 0);
  return bytes;
}

/// Calls work(first ray, rays) for all rays, block by block.
template <class Work>
void JointModel::for_blocks_of_rays(Work&& work) {
  const int n = static_cast<int>(brightness_.size());
  pool_.parallel_for((n + kChunk - 1) / kChunk, [&](int chunk, int) {
    const int begin = chunk * kChunk;
    const double *const t = theta_.data() + begin, *const d = deflection_.data() + begin;
    work(begin, Rays<double>{std::min(kChunk, n - begin), t, t + n, d, d + n});
  });
}

/// Deflection, brightness of the rays and residuals at x.
void JointModel::render(const std::vector<double>& x, Eigen::VectorXd& residual) {
  tables_.place(x.data() + layout_.n_network);
  const auto scalars = x.begin() + static_cast<std::ptrdiff_t>(layout_.n_network);
  scalars_.assign(scalars, scalars + static_cast<std::ptrdiff_t>(layout_.n_free()));
  source_values_.resize(static_cast<Eigen::Index>(pixels_.size()));
  for (std::size_t k = 0; k < pixels_.size(); ++k) source_values_[static_cast<Eigen::Index>(k)] = x[pixels_[k]];
  if (network_)
    network_->forward(x.data(), theta_.data(), static_cast<int>(brightness_.size()), nullptr, deflection_.data());
  for_blocks_of_rays([&](int begin, const Rays<double>& rays) {
    ray_kernels<double>().render(tables_.scene(), rays, brightness_.data() + begin);
  });
  RowMatrix column(n_data(), 1);
  convolve_column(brightness_.data(), 0, 0, column);
  residual = column.col(0);
  for (std::size_t i = 0; i < used_.size(); ++i) residual[static_cast<Eigen::Index>(i)] -= used_[i].data;
  whitening_.whiten(residual.data());
}

/// Rays → image → PSF → used pixels in units of their noise, as a column of `to`.
void JointModel::convolve_column(const double* rays, int worker, Eigen::Index column, RowMatrix& to) {
  const Observation& o = problem_.observation;
  const int f = o.psf.supersampling, s = o.grid.supersampling, nx = o.grid.nx, per_pixel = s * s;
  const auto thread = static_cast<std::size_t>(worker);
  std::vector<double>& image = image_[thread];
  std::fill(image.begin(), image.end(), 0.0);
  const double share = static_cast<double>(f * f) / per_pixel;
  for (int y = 0; y < o.grid.ny; ++y)
    for (int x = 0; x < nx; ++x)
      for (int ray = 0; ray < per_pixel; ++ray) image[subpixel_of_ray(nx, x, y, ray, s, f)] += share * *rays++;
  convolutions_[thread].apply(image.data(), convolved_[thread].data());
  for (std::size_t i = 0; i < used_.size(); ++i)
    to(static_cast<Eigen::Index>(i), column) =
        used_[i].inverse_sigma *
        mean_of_subpixels(convolved_[thread].data(), static_cast<std::size_t>(nx * f), used_[i].x, used_[i].y, f);
}

JointValue JointModel::parts(const std::vector<double>& x, const Eigen::VectorXd& residual) {
  JointValue value;
  value.chi2 = residual.squaredNorm();
  if (network_) {
    const Regularization& weights = problem_.regularization;
    differentiate_deflection();
    value.network[0] = node_share_ * kappa_.squaredNorm();
    value.network[1] = node_share_ * shape_.squaredNorm();
    if (weights.negative_convergence > 0)
      value.signs += node_share_ * weights.negative_convergence * kappa_.cwiseMin(0).squaredNorm();
    if (weights.negative_total_convergence > 0)
      value.signs +=
          node_share_ * weights.negative_total_convergence * (kappa_ + kappa_macro_).cwiseMin(0).squaredNorm();
    const NetworkShape& shape = *problem_.model.network;
    for (int layer = shape.fixed_layers(); layer < shape.layers(); ++layer) {
      for (std::size_t i = shape.kernel_offset(layer); i < shape.bias_offset(layer); ++i)
        value.network[2] += 0.5 * n_data() * x[i] * x[i];
      if (layer + 1 < shape.layers())
        for (std::size_t i = shape.bias_offset(layer); i < shape.kernel_offset(layer + 1); ++i)
          value.priors += x[i] * x[i];
    }
  }
  if (held_.size() > 0) value.priors += along_lens().squaredNorm();
  for (std::size_t k = 0; !pixels_.empty() && k < value.source.size(); ++k)
    value.source[k] = source_values_.dot(source_prior_.matrix(k) * source_values_);
  for (const GaussianPrior<double>& prior : layout_.priors) value.priors += std::pow(deviation(prior), 2);
  value.finite = std::isfinite(value.total(problem_.regularization));
  return value;
}

double JointModel::deviation(const GaussianPrior<double>& prior) const {
  return prior_deviation(prior, [this](int i) {
    return tables_.table[static_cast<std::size_t>(layout_.free[static_cast<std::size_t>(i)].slot)];
  });
}

/// ∂α_lens/∂u of the parameters of the lens that move, at the fitted rays: (2 rays, parameters), 0 elsewhere.
Eigen::MatrixXd JointModel::lens_tangents() const {
  const Scene<double> scene = tables_.scene();
  const int n_slots = scene.n_lens * kMaxProfileParameters;
  std::vector<Eigen::Index> moving;
  std::vector<std::vector<std::pair<int, double>>> slots(layout_.n_free());  // those of the lens
  for (std::size_t i = 0; i < slots.size(); ++i)
    for (const auto& moved : layout_.slots_of(i))
      if (moved.first < n_slots) slots[i].push_back(moved);
  for (std::size_t k = n_weights_; k < rest_.size(); ++k)
    if (const std::size_t i = rest_[k] - layout_.n_network; !slots[i].empty())
      moving.push_back(static_cast<Eigen::Index>(i));
  const int rays = static_cast<int>(brightness_.size()), per_pixel = problem_.observation.grid.rays_per_pixel();
  RowMatrix physical = RowMatrix::Zero(2 * rays, static_cast<Eigen::Index>(layout_.n_free()));
  std::vector<double> table_bar(static_cast<std::size_t>(n_slots));
  for (const Used& used : used_)
    for (int i = 0, ray = (used.y * problem_.observation.grid.nx + used.x) * per_pixel; i < per_pixel; ++i, ++ray)
      for (int axis = 0; axis < 2; ++axis) {
        std::fill(table_bar.begin(), table_bar.end(), 0.0);
        const Vec2<double> theta{theta_[static_cast<std::size_t>(ray)], theta_[static_cast<std::size_t>(rays + ray)]};
        Vec2<double> theta_bar{};
        for (int c = 0; c < scene.n_lens; ++c)
          lens_deflection_adjoint(static_cast<LensKind>(scene.components[c].kind),
                                  scene.table + c * kMaxProfileParameters, theta,
                                  Vec2<double>{axis == 0 ? 1.0 : 0.0, axis == 1 ? 1.0 : 0.0}, theta_bar,
                                  table_bar.data() + c * kMaxProfileParameters);
        for (std::size_t k = 0; k < slots.size(); ++k)
          for (const auto& [slot, factor] : slots[k])
            physical(axis * rays + ray, static_cast<Eigen::Index>(k)) +=
                factor * table_bar[static_cast<std::size_t>(slot)];
      }
  return physical * transform_tangents()(Eigen::all, moving);
}

void JointModel::hold_lens_directions(const std::vector<double>& x) {
  held_.resize(0, 0);
  held_weights_.resize(0, 0);
  if (!problem_.network_off_lens || n_weights_ == 0 || rest_.size() == n_weights_) return;
  value(x);
  Eigen::MatrixXd tangents = lens_tangents();
  for (auto column : tangents.colwise()) column /= std::max(column.norm(), 1e-300);
  if (tangents.cols() == 0) return;
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(tangents.rows(), tangents.cols());
  qr.setThreshold(kSameDirection);
  qr.compute(tangents);
  const double sigma = kHeld * field_unit(problem_.observation.grid);
  const auto fitted = static_cast<double>(used_.size()) * problem_.observation.grid.rays_per_pixel();
  held_ = qr.householderQ() * Eigen::MatrixXd::Identity(tangents.rows(), qr.rank());
  held_ /= std::sqrt(fitted) * sigma;
  held_at_ = Eigen::VectorXd::Zero(qr.rank());
  held_at_ = along_lens();
}

/// What (3) sums the squares of, at the last point.
Eigen::VectorXd JointModel::along_lens() const {
  return held_.transpose() * Eigen::Map<const Eigen::VectorXd>(deflection_.data(), held_.rows()) - held_at_;
}

/// κ and ∇∇ψ of the network at the interior nodes, and κ of the smooth model where a penalty needs it.
void JointModel::differentiate_deflection() {
  const Grid& grid = problem_.observation.grid;
  const RayGrid nodes(grid);
  kappa_.resize(nodes.interior());
  shape_.resize(3 * nodes.interior());
  if (nodes.interior() == 0) return;
  split(second_derivatives(grid, deflection_.data()), kappa_, shape_);
  if (problem_.regularization.negative_total_convergence <= 0) return;
  kappa_macro_.resize(nodes.interior());
  Eigen::Index k = 0;
  for (int row = 1; row + 1 < nodes.rows; ++row)
    for (int column = 1; column + 1 < nodes.columns; ++column, ++k)
      kappa_macro_[k] = macro_values(tables_.scene(), grid.ray(nodes.ray(column, row))).kappa;
}

double JointModel::log_constant() const {
  constexpr double kLogTwoPi = 1.8378770664093453;
  double sum = 0;
  for (const Used& used : used_) sum += std::log(used.inverse_sigma) - 0.5 * kLogTwoPi;
  sum -= whitening_.log_determinant();
  const Eigen::MatrixXd tangents = transform_tangents();
  std::vector<Eigen::Index> moving;
  for (std::size_t k = n_weights_; k < rest_.size(); ++k)
    moving.push_back(static_cast<Eigen::Index>(rest_[k] - layout_.n_network));
  if (moving.empty()) return sum;
  const Eigen::MatrixXd jacobian = tangents(moving, moving);
  sum += std::log(std::abs(jacobian.determinant()));
  for (const Eigen::Index i : moving) {
    const FreeParameter<double>& f = layout_.free[static_cast<std::size_t>(i)];
    sum += 0.5 * kLogTwoPi;
    const auto prior =
        std::find_if(layout_.priors.begin(), layout_.priors.end(), [i](const auto& p) { return p.free == i; });
    if (prior != layout_.priors.end())
      sum -= 0.5 * kLogTwoPi + std::log(prior->sigma);
    else if (f.kind == TransformKind::logistic)
      sum -= std::log(f.upper - f.lower);
  }
  return sum;
}

JointValue JointModel::value(const std::vector<double>& x) {
  Eigen::VectorXd residual;
  render(x, residual);
  return parts(x, residual);
}

Linearization JointModel::linearize(const std::vector<double>& x, RayColumns* columns) {
  Linearization l;
  render(x, l.residual);
  l.value = parts(x, l.residual);
  const std::size_t n = brightness_.size();
  const std::vector<double> ones(static_cast<std::size_t>(kChunk), 1.0);
  for_blocks_of_rays([&](int begin, const Rays<double>& rays) {
    double* const slope = slope_.data() + begin;
    ray_kernels<double>().adjoint(tables_.scene(), rays, ones.data(), slope, slope + n, nullptr, nullptr, nullptr);
  });
  if (!pixels_.empty()) fill_source(l.source);
  differentiate_potential(x);
  fill_rest(l.rest, columns);
  if (!whitening_.empty()) whiten(l);
  fill_potential_terms(x, l);
  fill_priors(x, l);
  return l;
}

RowMatrix JointModel::response(int count, const std::function<Vec2<double>(int k, Vec2<double> theta)>& alpha) {
  const std::size_t rays = brightness_.size();
  RowMatrix columns(n_data(), count);
  pool_.parallel_for(count, [&](int k, int worker) {
    std::vector<double> change(rays);
    for (std::size_t i = 0; i < rays; ++i) {
      const Vec2<double> a = alpha(k, {theta_[i], theta_[rays + i]});
      change[i] = slope_[i] * a.x + slope_[rays + i] * a.y;
    }
    convolve_column(change.data(), worker, k, columns);
  });
  whitening_.whiten(columns, pool_);
  return columns;
}

/// L⁻¹ A and L⁻¹ B; the residuals are whitened.
void JointModel::whiten(Linearization& l) const {
  whitening_.whiten(l.rest, pool_);
  if (pixels_.empty()) return;
  const SparseRows rows = std::exchange(l.source, {});
  l.whitened_source = RowMatrix::Zero(n_data(), static_cast<Eigen::Index>(pixels_.size()));
  for (std::size_t row = 0; row + 1 < rows.first.size(); ++row)
    for (std::size_t k = rows.first[row]; k < rows.first[row + 1]; ++k)
      l.whitened_source(static_cast<Eigen::Index>(row), rows.column[k]) = rows.value[k];
  whitening_.whiten(l.whitened_source, pool_);
}

/// A: the pixels that each ray sees, through the PSF. Row by row, sorted by pixel.
void JointModel::fill_source(SparseRows& rows) {
  const Observation& o = problem_.observation;
  const int f = o.psf.supersampling, s = o.grid.supersampling, nx = o.grid.nx * f, ny = o.grid.ny * f, group = s / f;
  const double share = 1.0 / (group * group);
  const Scene<double> scene = tables_.scene();
  std::vector<int> index_of(tables_.pixels.size(), -1);  // in the table of all pixels → among those that move
  for (std::size_t k = 0; k < layout_.free_pixels.size(); ++k)
    index_of[static_cast<std::size_t>(layout_.free_pixels[k])] = static_cast<int>(k);
  // What each sub-pixel of the image sees.
  std::vector<std::vector<std::pair<int, double>>> seen(static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny));
  const int rays = static_cast<int>(brightness_.size());
  pool_.parallel_for(ny, [&](int y, int) {
    for (int x = 0; x < nx; ++x) {
      auto& list = seen[static_cast<std::size_t>(y) * static_cast<std::size_t>(nx) + static_cast<std::size_t>(x)];
      const int first = first_ray_of_subpixel(o.grid.nx, x, y, s, f);
      for (int v = 0; v < group; ++v)
        for (int w = 0; w < group; ++w) {
          const auto ray = static_cast<std::size_t>(first + v * s + w);
          const Vec2<double> theta{theta_[ray], theta_[static_cast<std::size_t>(rays) + ray]};
          const Vec2<double> beta = theta - macro_deflection(scene, theta) -
                                    Vec2<double>{deflection_[ray], deflection_[static_cast<std::size_t>(rays) + ray]};
          for (int c = scene.n_lens; c < scene.n_lens + scene.n_source; ++c) {
            const Component& component = scene.components[c];
            if (static_cast<LightKind>(component.kind) != LightKind::pixelated) continue;
            const BilinearTaps<double> taps = bilinear_taps(component.grid, beta);
            for (int k = 0; k < 4; ++k) {
              if (taps.index[k] < 0) continue;
              const int i = index_of[static_cast<std::size_t>(component.pixel_offset + taps.index[k])];
              if (i >= 0) list.emplace_back(i, share * taps.weight[k]);
            }
          }
        }
    }
  });
  // m[y, x] = Σ P[v, w] I[y − (v − c), x − (w − c)], averaged over the f × f sub-pixels of a pixel
  const Psf one{1, 1, {1.0}, f};
  const Psf& psf = o.psf.empty() ? one : o.psf;
  const std::size_t n = used_.size();
  std::vector<std::vector<std::pair<int, double>>> found(n);
  constexpr int kRows = 32;
  pool_.parallel_for(static_cast<int>((n + kRows - 1) / kRows), [&](int block, int) {
    std::vector<double> sums(pixels_.size(), 0.0);
    std::vector<std::uint8_t> touched(pixels_.size(), 0);
    std::vector<int> list;
    for (std::size_t i = static_cast<std::size_t>(block) * kRows;
         i < std::min(n, static_cast<std::size_t>(block + 1) * kRows); ++i) {
      const Used& used = used_[i];
      list.clear();
      for (int fy = used.y * f; fy < (used.y + 1) * f; ++fy)
        for (int fx = used.x * f; fx < (used.x + 1) * f; ++fx)
          for (int v = 0; v < psf.ny; ++v)
            for (int w = 0; w < psf.nx; ++w) {
              const int y = fy - (v - psf.ny / 2), x = fx - (w - psf.nx / 2);
              if (y < 0 || x < 0 || y >= ny || x >= nx) continue;
              const double p = psf.values[static_cast<std::size_t>(v * psf.nx + w)] * used.inverse_sigma / (f * f);
              for (const auto& [pixel, weight] :
                   seen[static_cast<std::size_t>(y) * static_cast<std::size_t>(nx) + static_cast<std::size_t>(x)]) {
                const auto k = static_cast<std::size_t>(pixel);
                if (!touched[k]) {
                  touched[k] = 1;
                  list.push_back(pixel);
                }
                sums[k] += p * weight;
              }
            }
      std::sort(list.begin(), list.end());
      for (const int pixel : list) {
        const auto k = static_cast<std::size_t>(pixel);
        found[i].emplace_back(pixel, sums[k]);
        sums[k] = 0;
        touched[k] = 0;
      }
    }
  });
  for (const auto& row : found) {
    for (const auto& [pixel, value] : row) {
      rows.column.push_back(pixel);
      rows.value.push_back(value);
    }
    rows.first.push_back(rows.column.size());
  }
}

/// Derivatives of α, κ and ∇∇ψ with respect to the weights.
void JointModel::differentiate_potential(const std::vector<double>& x) {
  if (n_weights_ == 0 || (linear_readout_ && weight_alpha_.size() > 0)) return;
  const Grid& grid = problem_.observation.grid;
  const auto n = static_cast<Eigen::Index>(n_weights_);
  const Eigen::Index nodes = RayGrid(grid).interior();
  weight_alpha_.resize(2 * grid.n_rays(), n);
  weight_kappa_.resize(nodes, n);
  weight_shape_.resize(3 * nodes, n);
  network_jacobian(*problem_.model.network, x.data(), theta_.data(), grid.n_rays(),
                   {rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(n_weights_)}, weight_alpha_.data(),
                   pool_);
  if (nodes > 0)
    pool_.parallel_for(static_cast<int>(n), [&](int k, int) {
      split(second_derivatives(grid, weight_alpha_.col(k).data()), weight_kappa_.col(k), weight_shape_.col(k));
    });
  terms_[0] = node_share_ * gram(weight_kappa_, pool_);
  terms_[1] = node_share_ * gram(weight_shape_, pool_);
  terms_[2] = Eigen::MatrixXd::Zero(n, n);
  const NetworkShape& shape = *problem_.model.network;
  for (int layer = shape.fixed_layers(); layer < shape.layers(); ++layer)
    for (std::size_t k = 0; k < n_weights_; ++k)
      if (rest_[k] >= shape.kernel_offset(layer) && rest_[k] < shape.bias_offset(layer))
        terms_[2](static_cast<Eigen::Index>(k), static_cast<Eigen::Index>(k)) = 0.5 * n_data();
}

/// ∂I/∂u of the scalars that move: (scalars, rays)
RowMatrix JointModel::scalar_derivatives() {
  const auto rays = static_cast<Eigen::Index>(brightness_.size());
  const std::size_t n_scalars = rest_.size() - n_weights_;
  RowMatrix derivatives(static_cast<Eigen::Index>(n_scalars), rays);
  if (n_scalars == 0) return derivatives;
  const auto n_free = static_cast<Eigen::Index>(layout_.n_free());
  std::vector<int> all(layout_.n_free());
  std::iota(all.begin(), all.end(), 0);
  const std::vector<SlotColumn> slots = slot_columns(layout_, tables_.n_lens, all);
  RowMatrix physical(n_free, rays);  // ∂I/∂p of every ray
  for_blocks_of_rays([&](int begin, const Rays<double>& block) {
    RowMatrix values(n_free, block.count);
    ray_kernels<double>().derivatives(tables_.scene(), block, slots, values.data(),
                                      static_cast<std::size_t>(block.count));
    physical.middleCols(begin, block.count) = values;
  });
  const Eigen::MatrixXd tangents = transform_tangents();
  pool_.parallel_for(static_cast<int>(n_scalars), [&](int k, int) {
    const std::size_t flat = rest_[n_weights_ + static_cast<std::size_t>(k)];
    derivatives.row(k) = tangents.col(static_cast<Eigen::Index>(flat - layout_.n_network)).transpose() * physical;
  });
  return derivatives;
}

/// B: ∂r/∂weight = −∇S·∂α/∂weight, and ∂r/∂u of the scalars, through the PSF.
void JointModel::fill_rest(RowMatrix& rest, RayColumns* columns) {
  const auto rays = static_cast<Eigen::Index>(brightness_.size());
  rest.resize(n_data(), static_cast<Eigen::Index>(rest_.size()));
  const RowMatrix scalars = scalar_derivatives();
  if (columns) return columns->fill({weight_alpha_, linear_readout_, slope_, scalars}, rest);
  const Eigen::Map<const Eigen::ArrayXd> slope_x(slope_.data(), rays), slope_y(slope_.data() + rays, rays);
  pool_.parallel_for(static_cast<int>(n_weights_), [&](int k, int worker) {
    const Eigen::ArrayXd column =
        slope_x * weight_alpha_.col(k).head(rays).array() + slope_y * weight_alpha_.col(k).tail(rays).array();
    convolve_column(column.data(), worker, k, rest);
  });
  pool_.parallel_for(static_cast<int>(scalars.rows()), [&](int k, int worker) {
    convolve_column(scalars.row(k).data(), worker, static_cast<Eigen::Index>(n_weights_) + k, rest);
  });
}

/// ∂p/∂u of all free scalars: (p, u)
Eigen::MatrixXd JointModel::transform_tangents() const {
  const std::size_t n = layout_.n_free();
  const auto size = static_cast<Eigen::Index>(n);
  Eigen::MatrixXd tangents(size, size);
  std::vector<double> direction(n, 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    direction[j] = 1;
    for (std::size_t i = 0; i < n; ++i)
      tangents(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) =
          transform_tangent(layout_.free.data(), static_cast<int>(i), scalars_.data(), direction.data());
    direction[j] = 0;
  }
  return tangents;
}

/// D_kᵀ D_k and D_kᵀ q_k of the penalties on the network, and what S gives.
void JointModel::fill_potential_terms(const std::vector<double>& x, Linearization& l) {
  const auto size = static_cast<Eigen::Index>(rest_.size()), n = static_cast<Eigen::Index>(n_weights_);
  l.priors = Eigen::MatrixXd::Zero(size, size);
  l.fixed_gradient = Eigen::VectorXd::Zero(size);
  if (n == 0) return;
  Eigen::VectorXd w(n);
  for (std::size_t k = 0; k < n_weights_; ++k) w[static_cast<Eigen::Index>(k)] = x[rest_[k]];
  l.network = terms_;
  l.gradient = {node_share_ * weight_kappa_.transpose() * kappa_, node_share_ * weight_shape_.transpose() * shape_,
                terms_[2] * w};
  const Regularization& weights = problem_.regularization;
  const bool total = weights.negative_total_convergence > 0;
  if (!total && weights.negative_convergence <= 0) return;
  Eigen::VectorXd factor(kappa_.size()), slope(kappa_.size());
  for (Eigen::Index i = 0; i < kappa_.size(); ++i) {
    const double all_kappa = kappa_[i] + (total ? kappa_macro_[i] : 0);
    const double own = kappa_[i] < 0 ? node_share_ * weights.negative_convergence : 0;
    const double all = all_kappa < 0 ? node_share_ * weights.negative_total_convergence : 0;
    factor[i] = own + all;
    slope[i] = own * kappa_[i] + all * all_kappa;
  }
  l.signs.noalias() = weight_kappa_.transpose() * factor.asDiagonal() * weight_kappa_;
  l.fixed_gradient.head(n) = weight_kappa_.transpose() * slope;
}

/// Priors of the scalars, ∂z/∂u = (∂p/∂u − factor · ∂q/∂u)/sigma for z = (p − factor · q − mean)/sigma, and of the
/// biases.
void JointModel::fill_priors(const std::vector<double>& x, Linearization& l) {
  if (n_weights_ > 0) {
    const NetworkShape& shape = *problem_.model.network;
    for (int layer = shape.fixed_layers(); layer + 1 < shape.layers(); ++layer)
      for (std::size_t k = 0; k < n_weights_; ++k) {
        if (rest_[k] < shape.bias_offset(layer) || rest_[k] >= shape.kernel_offset(layer + 1)) continue;
        const auto i = static_cast<Eigen::Index>(k);
        l.priors(i, i) += 1;
        l.fixed_gradient[i] += x[rest_[k]];
      }
  }
  if (held_.size() > 0) {
    const auto n = static_cast<Eigen::Index>(n_weights_);
    if (!linear_readout_ || held_weights_.size() == 0) held_weights_ = held_.transpose() * weight_alpha_;
    l.priors.topLeftCorner(n, n).noalias() += held_weights_.transpose() * held_weights_;
    l.fixed_gradient.head(n).noalias() += held_weights_.transpose() * along_lens();
  }
  if (layout_.priors.empty()) return;
  const Eigen::MatrixXd tangents = transform_tangents();
  for (const GaussianPrior<double>& prior : layout_.priors) {
    Eigen::VectorXd row = Eigen::VectorXd::Zero(static_cast<Eigen::Index>(rest_.size()));
    for (std::size_t k = n_weights_; k < rest_.size(); ++k) {
      const auto u = static_cast<Eigen::Index>(rest_[k] - layout_.n_network);
      const double of_other = prior.other < 0 ? 0 : prior.factor * tangents(prior.other, u);
      row[static_cast<Eigen::Index>(k)] = (tangents(prior.free, u) - of_other) / prior.sigma;
    }
    l.priors.noalias() += row * row.transpose();
    l.fixed_gradient += row * deviation(prior);
  }
}

}  // namespace einfield
