// Loops over chunks of pixels and over columns; every number is made by one thread in a fixed order.
#include "host/fit/scalar_model.hpp"

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/likelihood.hpp"
#include "host/cpu/rays.hpp"

namespace einfield {
namespace {

constexpr int kChunk = 64;                     ///< pixels
constexpr std::size_t kConvolutionCopies = 3;  ///< cut-outs that a Convolution holds, at most

/// Σ aᵢ bᵢ as eight sums, so that the loop is vectorized; they are added in order.
double dot(const std::vector<double>& a, const std::vector<double>& b) {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  const std::size_t n = a.size(), whole = n - n % kSums;
  for (std::size_t i = 0; i < whole; i += kSums)
    for (std::size_t k = 0; k < kSums; ++k) sums[k] += a[i + k] * b[i + k];
  for (std::size_t i = whole; i < n; ++i) sums[i - whole] += a[i] * b[i];
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

/// The part of the image that holds all pixels that enter the loss and those whose light the PSF brings in.
struct CutOut {
  int left, low, nx, ny;
  int reach_x, reach_y;  ///< of the PSF [pixels]
};

template <class Used>
CutOut cut_out(const Observation& o, Used&& used) {
  const Grid& grid = o.grid;
  int left = grid.nx, right = -1, low = grid.ny, high = -1;
  for (int i = 0; i < grid.n_pixels(); ++i) {
    if (!used(static_cast<std::size_t>(i))) continue;
    left = std::min(left, i % grid.nx);
    right = std::max(right, i % grid.nx);
    low = std::min(low, i / grid.nx);
    high = std::max(high, i / grid.nx);
  }
  const int f = o.psf.supersampling, reach_x = (o.psf.nx / 2 + f - 1) / f, reach_y = (o.psf.ny / 2 + f - 1) / f;
  left = std::max(left - reach_x, 0);
  low = std::max(low - reach_y, 0);
  return {left,
          low,
          std::min(right + reach_x, grid.nx - 1) - left + 1,
          std::min(high + reach_y, grid.ny - 1) - low + 1,
          reach_x,
          reach_y};
}

}  // namespace

std::size_t ScalarModel::planned_bytes(const Problem& problem, int evaluators, int threads) {
  const ParameterLayout layout(problem.model);
  const std::size_t n_free = layout.n_free();
  if (n_free == 0) return 0;
  const Observation& o = problem.observation;
  const auto size = [](int n) { return static_cast<std::size_t>(n); };
  const CutOut box = cut_out(o, [&o](std::size_t i) { return o.mask[i] != 0; });
  const std::size_t used = size(o.n_used()), pixels = size(box.nx) * size(box.ny),
                    rays = pixels * size(o.grid.rays_per_pixel()),
                    samples = pixels * size(o.psf.supersampling) * size(o.psf.supersampling);
  const LightComponent* const light = network_light(problem.model);

  std::size_t shared = 0, evaluator = 0;
  const auto count_into = [](std::size_t& bytes) {
    return [&bytes](const auto& buffer, std::size_t count) { bytes += count * sizeof(*buffer.data()); };
  };
  Buffers{}.each(count_into(shared), pixels, used, rays);
  // Images before the PSF: of all amplitudes and of the rest at once, or of all other parameters.
  ScalarBuffers{}.each(count_into(evaluator), {n_free, n_free + 1, size(threads), used, samples, light ? rays : 0});
  evaluator += sizeof(double) * kConvolutionCopies * size(threads) * samples;
  if (light) evaluator += CpuNetwork<double>::planned_bytes(light->network, static_cast<int>(rays), threads);
  return shared + NoiseWhitening::planned_bytes(o.noise_correlation, o.grid, used) + size(evaluators) * evaluator;
}

ScalarModel::ScalarModel(const Problem& problem, const std::vector<double>& parameters, LossKind loss,
                         const std::vector<std::uint8_t>& moves, ThreadPool* pool)
    : problem_(problem), layout_(problem.model) {
  EINFIELD_REQUIRE(parameters.size() == layout_.size(),
                   std::to_string(parameters.size()) + " parameters, expected " + std::to_string(layout_.size()));
  place(parameters);
  sort_scalars(moves);
  choose_pixels(loss);
  collect_amplitudes();
  trace_rays(parameters, pool);
}

/// Takes the initial scalars, the free pixels and the free weights from the flat vector.
void ScalarModel::place(const std::vector<double>& parameters) {
  const auto scalars = parameters.begin() + static_cast<std::ptrdiff_t>(layout_.n_network);
  initial_scalars_.assign(scalars, scalars + static_cast<std::ptrdiff_t>(layout_.n_free()));
  for (std::size_t k = 0; k < layout_.free_pixels.size(); ++k)
    layout_.pixels[static_cast<std::size_t>(layout_.free_pixels[k])] =
        scalars[static_cast<std::ptrdiff_t>(layout_.n_free() + k)];
  if (layout_.n_light_weights > 0)
    layout_.light_weights.assign(parameters.begin() + static_cast<std::ptrdiff_t>(layout_.light_weights_offset()),
                                 parameters.end());
  tables_ = SceneTables<double>(problem_.model, layout_);
  light_component_ = network_light_index(problem_.model);
}

/// Lists the scalars that move, the amplitudes first. Brightness is proportional to the amplitude, which is the first
/// parameter of every light profile that has parameters. An amplitude that another parameter follows, or that shares a
/// prior with one, moves like the other parameters.
void ScalarModel::sort_scalars(const std::vector<std::uint8_t>& moves) {
  std::vector<int> others;
  for (int i = 0; i < static_cast<int>(layout_.n_free()); ++i) {
    if (!moves.empty() && !moves[layout_.n_network + static_cast<std::size_t>(i)]) continue;
    const int slot = layout_.free[static_cast<std::size_t>(i)].slot, component = slot / kMaxProfileParameters;
    const bool alone =
        layout_.slots_of(static_cast<std::size_t>(i)).size() == 1 &&
        std::none_of(layout_.priors.begin(), layout_.priors.end(), [i](const GaussianPrior<double>& prior) {
          return prior.other >= 0 && (prior.free == i || prior.other == i);
        });
    const bool linear = component >= tables_.n_lens && slot % kMaxProfileParameters == 0 && alone;
    (linear ? moving_ : others).push_back(i);
    if (linear) linear_component_.push_back(component - tables_.n_lens);
  }
  n_linear_ = moving_.size();
  moving_.insert(moving_.end(), others.begin(), others.end());
  EINFIELD_REQUIRE(!moving_.empty(), "no free parameter of a profile, expected at least one");
}

/// The pixels that enter the loss, with their weights, and the pixels whose light reaches them.
void ScalarModel::choose_pixels(LossKind loss) {
  const Observation& o = problem_.observation;
  const Grid& grid = o.grid;
  rays_per_side_ = grid.supersampling;
  psf_supersampling_ = o.psf.supersampling;
  const PixelWeights<double> weights = pixel_weights<double>(o, loss, problem_.held_out);
  const auto [left, low, nx, ny, reach_x, reach_y] =
      cut_out(o, [&weights](std::size_t i) { return weights.loss[i] != 0; });
  left_ = left;
  low_ = low;
  nx_ = nx;
  ny_ = ny;
  std::vector<std::uint8_t> seen(static_cast<std::size_t>(nx_ * ny_), 0);
  for (int y = 0; y < ny_; ++y)
    for (int x = 0; x < nx_; ++x) {
      const auto i = static_cast<std::size_t>((y + low_) * grid.nx + x + left_);
      if (weights.loss[i] == 0) continue;
      const double weight = std::sqrt(weights.loss[i]);
      b_.used.push_back({{x, y}, weight, std::sqrt(weights.chi2[i]), weight * o.image[i]});
      for (int v = std::max(y - reach_y, 0); v <= std::min(y + reach_y, ny_ - 1); ++v)
        std::fill_n(seen.begin() + v * nx_ + std::max(x - reach_x, 0),
                    std::min(x + reach_x, nx_ - 1) - std::max(x - reach_x, 0) + 1, std::uint8_t(1));
    }
  for (int y = 0; y < ny_; ++y)
    for (int x = 0; x < nx_; ++x)
      if (seen[static_cast<std::size_t>(y * nx_ + x)]) b_.needed.push_back({x, y});
  whitening_ = whitening_of(o, problem_.held_out);
  std::vector<double> data;
  for (const Used& used : b_.used) data.push_back(used.data);
  whitening_.whiten(data.data());
  for (std::size_t i = 0; i < data.size(); ++i) b_.used[i].data = data[i];
}

/// Ranges and priors of the amplitudes that move.
void ScalarModel::collect_amplitudes() {
  for (std::size_t k = 0; k < n_linear_; ++k) {
    const FreeParameter<double>& f = layout_.free[static_cast<std::size_t>(moving_[k])];
    Amplitude amplitude{f.kind, f.lower, f.upper, 0, 0, 1};
    for (const GaussianPrior<double>& prior : layout_.priors)
      if (prior.free == moving_[k]) amplitude = {f.kind, f.lower, f.upper, 1.0 / n_fitted(), prior.mean, prior.sigma};
    amplitudes_.push_back(amplitude);
  }
}

/// Positions of the rays of the needed pixels, and the network's deflection there.
void ScalarModel::trace_rays(const std::vector<double>& parameters, ThreadPool* pool) {
  const Grid& grid = problem_.observation.grid;
  const int rays = grid.rays_per_pixel();
  const std::size_t n = b_.needed.size() * static_cast<std::size_t>(rays);
  b_.each([](auto& buffer, std::size_t count) { buffer.resize(count); }, b_.needed.size(), b_.used.size(), n);
  for (std::size_t i = 0; i < n; ++i) {
    const Pixel p = b_.needed[i / static_cast<std::size_t>(rays)];
    const Vec2<double> at = grid.ray(((p.y + low_) * grid.nx + p.x + left_) * rays + static_cast<int>(i) % rays);
    b_.theta[i] = at.x;
    b_.theta[n + i] = at.y;
  }
  if (problem_.model.network && pool)
    CpuNetwork<double>(*problem_.model.network, static_cast<int>(n), *pool, 0)
        .forward(parameters.data(), b_.theta.data(), static_cast<int>(n), nullptr, b_.deflection.data());
  else
    network_weights_.assign(parameters.begin(), parameters.begin() + static_cast<std::ptrdiff_t>(layout_.n_network));
}

void ScalarModel::add_priors(const std::vector<double>& values, Curvature& curvature) const {
  const double weight = 1.0 / n_fitted();
  for (const GaussianPrior<double>& prior : layout_.priors) {
    const double z = deviation(prior, values);
    const auto slope = [&prior](int i) {  // ∂z/∂p of a free scalar
      return i == prior.free ? 1 / prior.sigma : i == prior.other ? -prior.factor / prior.sigma : 0;
    };
    for (std::size_t i = 0; i < moving_.size(); ++i) {
      const double own = slope(moving_[i]);
      if (own == 0) continue;
      curvature.gradient[i] += weight * z * own;
      for (std::size_t j = 0; j < moving_.size(); ++j) curvature.normal(i, j) += weight * own * slope(moving_[j]);
    }
  }
}

double ScalarModel::deviation(const GaussianPrior<double>& prior, const std::vector<double>& values) {
  return prior_deviation(prior, [&values](int i) { return values[static_cast<std::size_t>(i)]; });
}

double ScalarModel::prior_penalty(const std::vector<double>& values) const {
  double sum = 0;
  for (const GaussianPrior<double>& prior : layout_.priors) {
    const double z = deviation(prior, values);
    sum += z * z / n_fitted();
  }
  return sum;
}

ScalarEvaluator::ScalarEvaluator(const ScalarModel& model, ThreadPool& pool) : m_(model), pool_(pool) {
  const auto threads = static_cast<std::size_t>(pool.threads());
  const int nx = m_.nx_ * m_.psf_supersampling_, ny = m_.ny_ * m_.psf_supersampling_;
  for (std::size_t i = 0; i < threads; ++i) convolutions_.emplace_back(nx, ny, m_.problem_.observation.psf);
  ray_values_.resize(threads);
  const std::size_t rays = m_.b_.theta.size() / 2, n = m_.moving_.size();
  const bool light = m_.light_component_ >= 0;
  b_.each([](auto& buffer, std::size_t count) { buffer.assign(count, 0.0); },
          {n, std::max(m_.n_linear_ + 1, n - m_.n_linear_), threads, m_.b_.used.size(),
           static_cast<std::size_t>(nx * ny), light ? rays : 0});
  if (light)
    light_network_ = std::make_unique<CpuNetwork<double>>(network_light(m_.problem_.model)->network,
                                                          static_cast<int>(rays), pool, 0);
}

Scene<double> ScalarEvaluator::scene(const std::vector<double>& table) const {
  Scene<double> scene = m_.tables_.scene();
  scene.table = table.data();
  return scene;
}

/// Calls work(rays, values, stride) for chunks of pixels. It sets n_images rows of `stride` numbers, one per ray; the
/// images become their means over the pixels.
template <class Work>
void ScalarEvaluator::render(std::size_t n_images, Work&& work) {
  const int f = m_.psf_supersampling_, s = m_.rays_per_side_, rays = s * s;
  const auto size = static_cast<std::size_t>(m_.nx_ * m_.ny_ * f * f);
  for (std::size_t k = 0; k < n_images; ++k) b_.images[k].assign(size, 0.0);
  const int n_pixels = static_cast<int>(m_.b_.needed.size()), n_rays = n_pixels * rays;
  const double share = static_cast<double>(f * f) / rays;
  pool_.parallel_for((n_pixels + kChunk - 1) / kChunk, [&](int chunk, int worker) {
    const int begin = chunk * kChunk, end = std::min(begin + kChunk, n_pixels);
    const int first = begin * rays, count = (end - begin) * rays;
    const auto stride = static_cast<std::size_t>(count);
    std::vector<double>& values = ray_values_[static_cast<std::size_t>(worker)];
    values.resize(n_images * stride);
    const double *const t = m_.b_.theta.data() + first, *const d = m_.b_.deflection.data() + first;
    Rays<double> block{count, t, t + n_rays, d, d + n_rays};
    if (light_network_) {
      block.network_value = b_.light_value.data() + first;
      block.network_gradient_x = b_.light_gradient.data() + first;
      block.network_gradient_y = b_.light_gradient.data() + n_rays + first;
    }
    work(block, values.data(), stride);
    for (std::size_t k = 0; k < n_images; ++k) {
      const double* value = values.data() + k * stride;
      for (int i = begin; i < end; ++i) {
        const ScalarModel::Pixel p = m_.b_.needed[static_cast<std::size_t>(i)];
        for (int ray = 0; ray < rays; ++ray)
          b_.images[k][subpixel_of_ray(m_.nx_, p.x, p.y, ray, s, f)] += share * *value++;
      }
    }
  });
}

/// The first images through the PSF, at the used pixels, weighted and whitened.
void ScalarEvaluator::convolve(std::size_t n_images, const std::vector<std::vector<double>*>& columns) {
  const int f = m_.psf_supersampling_, width = m_.nx_ * f;
  pool_.parallel_for(static_cast<int>(n_images), [&](int index, int worker) {
    const auto k = static_cast<std::size_t>(index), thread = static_cast<std::size_t>(worker);
    convolutions_[thread].apply(b_.images[k].data(), b_.convolved[thread].data());
    std::vector<double>& column = *columns[k];
    for (std::size_t i = 0; i < m_.b_.used.size(); ++i) {
      const ScalarModel::Used& used = m_.b_.used[i];
      double sum = 0;
      for (int y = used.pixel.y * f; y < (used.pixel.y + 1) * f; ++y)
        for (int x = used.pixel.x * f; x < (used.pixel.x + 1) * f; ++x)
          sum += b_.convolved[thread][static_cast<std::size_t>(y * width + x)];
      column[i] = used.weight * sum / (f * f);
    }
  });
  if (m_.whitening_.empty()) return;
  // Side by side: the factor is read once for all.
  NoiseWhitening::RowMatrix all(static_cast<Eigen::Index>(m_.b_.used.size()), static_cast<Eigen::Index>(n_images));
  for (std::size_t k = 0; k < n_images; ++k)
    all.col(static_cast<Eigen::Index>(k)) =
        Eigen::Map<const Eigen::VectorXd>(columns[k]->data(), static_cast<Eigen::Index>(columns[k]->size()));
  m_.whitening_.whiten(all, pool_);
  for (std::size_t k = 0; k < n_images; ++k)
    Eigen::Map<Eigen::VectorXd>(columns[k]->data(), static_cast<Eigen::Index>(columns[k]->size())) =
        all.col(static_cast<Eigen::Index>(k));
}

/// The columns of the amplitudes, and all other light in one column.
void ScalarEvaluator::render_columns(const std::vector<double>& u) {
  values_ = m_.layout_.physical(u.data());
  table_ = m_.layout_.table_of(values_);
  std::vector<double> unit = table_;
  for (std::size_t k = 0; k < m_.n_linear_; ++k)
    unit[static_cast<std::size_t>(m_.layout_.free[static_cast<std::size_t>(m_.moving_[k])].slot)] = 1;
  if (light_network_) {
    const int rays = static_cast<int>(m_.b_.theta.size() / 2);
    const double *const t = m_.b_.theta.data(), *const d = m_.b_.deflection.data();
    ray_kernels<double>().network_positions(scene(unit), {rays, t, t + rays, d, d + rays}, m_.light_component_,
                                            b_.light_position.data(), b_.light_position.data() + rays);
    light_network_->forward(m_.layout_.light_weights.data(), b_.light_position.data(), rays, b_.light_value.data(),
                            b_.light_gradient.data());
  }

  const auto n_lights = static_cast<std::size_t>(m_.tables_.n_source + m_.tables_.n_lens_light);
  std::vector<std::size_t> image_of(n_lights, m_.n_linear_);  // the last holds all light that is not solved for
  for (std::size_t k = 0; k < m_.n_linear_; ++k) image_of[static_cast<std::size_t>(m_.linear_component_[k])] = k;
  const bool any_fixed = n_lights > m_.n_linear_;
  const std::size_t n_images = m_.n_linear_ + (any_fixed ? 1 : 0);
  render(n_images, [&](const Rays<double>& rays, double* values, std::size_t stride) {
    std::vector<double> by_component(n_lights * stride);
    ray_kernels<double>().components(scene(unit), rays, by_component.data(), stride);
    std::fill_n(values, n_images * stride, 0.0);
    for (std::size_t c = 0; c < n_lights; ++c)
      for (std::size_t i = 0; i < stride; ++i) values[image_of[c] * stride + i] += by_component[c * stride + i];
  });
  std::vector<std::vector<double>*> columns;
  for (std::size_t k = 0; k < m_.n_linear_; ++k) columns.push_back(&b_.columns[k]);
  if (any_fixed) columns.push_back(&b_.fixed);
  convolve(n_images, columns);
}

void ScalarEvaluator::solve_amplitudes(ScalarPoint& point) {
  const std::size_t n = m_.n_linear_;
  std::vector<double>& target = b_.target;
  for (std::size_t i = 0; i < target.size(); ++i) target[i] = m_.b_.used[i].data - b_.fixed[i];
  const double norm = std::sqrt(dot(target, target));
  SymmetricMatrix normal(n);
  std::vector<double> right(n), lower(n), upper(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) normal(i, j) = normal(j, i) = dot(b_.columns[i], b_.columns[j]);
    right[i] = dot(b_.columns[i], target);
  }
  point.finite = bound_amplitudes(m_.amplitudes_.data(), static_cast<int>(n), norm, normal.values.data(), right.data(),
                                  lower.data(), upper.data());
  if (!point.finite) return;
  const BoundedSolution solution = bounded_least_squares(normal, right, lower, upper);
  for (std::size_t i = 0; i < n; ++i) {
    const auto k = static_cast<std::size_t>(m_.moving_[i]);
    const FreeParameter<double>& f = m_.layout_.free[k];
    point.pinned[i] = !solution.free[i];
    point.u[k] = inverse_transform(f, solution.values[i], 0);
    values_[k] = table_[static_cast<std::size_t>(f.slot)] = solution.values[i];
  }
}

void ScalarEvaluator::compute_value(ScalarPoint& point) {
  const std::size_t n = m_.b_.used.size();
  for (std::size_t i = 0; i < n; ++i) b_.residual[i] = b_.fixed[i] - m_.b_.used[i].data;
  for (std::size_t k = 0; k < m_.n_linear_; ++k) {
    const double amplitude = values_[static_cast<std::size_t>(m_.moving_[k])];
    for (std::size_t i = 0; i < n; ++i) b_.residual[i] += amplitude * b_.columns[k][i];
  }
  point.loss = dot(b_.residual, b_.residual);
  point.chi2_reduced = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double z = b_.residual[i] * (m_.b_.used[i].chi2_weight / m_.b_.used[i].weight);
    point.chi2_reduced += z * z;
  }
  point.penalty = m_.prior_penalty(values_);
  point.finite = std::isfinite(point.value()) && std::isfinite(point.chi2_reduced);
}

ScalarPoint ScalarEvaluator::evaluate(const std::vector<double>& u) {
  ScalarPoint point;
  point.u = u;
  point.pinned.assign(m_.n_linear_, 0);
  render_columns(u);
  solve_amplitudes(point);
  if (point.finite) compute_value(point);
  return point;
}

ScalarPoint ScalarEvaluator::evaluate_fixed(const std::vector<double>& u) {
  ScalarPoint point;
  point.u = u;
  point.pinned.assign(m_.n_linear_, 0);
  render_columns(u);
  compute_value(point);
  return point;
}

Curvature ScalarEvaluator::curvature() {
  const std::size_t n = m_.moving_.size(), n_other = n - m_.n_linear_;
  if (n_other > 0) {
    const std::vector<SlotColumn> slots =
        slot_columns(m_.layout_, m_.tables_.n_lens,
                     {m_.moving_.begin() + static_cast<std::ptrdiff_t>(m_.n_linear_), m_.moving_.end()});
    render(n_other, [&](const Rays<double>& rays, double* values, std::size_t stride) {
      ray_kernels<double>().derivatives(scene(table_), rays, slots, values, stride);
    });
    std::vector<std::vector<double>*> columns;
    for (std::size_t k = 0; k < n_other; ++k) columns.push_back(&b_.columns[m_.n_linear_ + k]);
    convolve(n_other, columns);
  }

  Curvature c{SymmetricMatrix(n), std::vector<double>(n)};
  pool_.parallel_for(static_cast<int>(n), [&](int index, int) {
    const auto i = static_cast<std::size_t>(index);
    for (std::size_t j = 0; j <= i; ++j) c.normal(i, j) = dot(b_.columns[i], b_.columns[j]);
    c.gradient[i] = dot(b_.columns[i], b_.residual);
  });
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < i; ++j) c.normal(j, i) = c.normal(i, j);
  m_.add_priors(values_, c);
  return c;
}

}  // namespace einfield
