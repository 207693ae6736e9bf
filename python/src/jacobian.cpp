// Loops over blocks of rays and over columns; every number is made by one thread in a fixed order.
#include "python/src/jacobian.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "einfield/tangent.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/field_jacobian.hpp"
#include "host/cpu/network.hpp"
#include "host/cpu/network_jacobian.hpp"
#include "host/cpu/rays.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/memory.hpp"
#include "host/model/scene_tables.hpp"

namespace einfield::python {
namespace {

constexpr int kChunk = 256;  ///< rays

class ResidualJacobian {
 public:
  ResidualJacobian(const Problem& problem, const ParameterLayout& layout, const std::vector<double>& flat, Space space,
                   ThreadPool& pool)
      : problem_(problem),
        grid_(problem.observation.grid),
        layout_(layout),
        flat_(flat),
        space_(space),
        pool_(pool),
        tables_(problem.model, layout),
        n_rays_(static_cast<std::size_t>(grid_.n_rays())),
        f_(problem.observation.psf.supersampling),
        samples_(static_cast<std::size_t>(grid_.n_pixels() * f_ * f_)) {
    const double doubles = static_cast<double>(samples_) * static_cast<double>(layout.size());
    require_memory((f_ == 1 ? 1 : 2) * sizeof(double) * doubles, "the Jacobian");
    tables_.place(flat.data() + layout.n_network);
    theta_ = ray_positions(grid_);
    deflection_.assign(2 * n_rays_, 0.0);
    if (problem.model.network)
      CpuNetwork<double>(*problem.model.network, grid_.n_rays(), pool, 0)
          .forward(flat.data(), theta_.data(), grid_.n_rays(), nullptr, deflection_.data());
    sample_light();
  }

  std::vector<double> compute() {
    images_.assign(samples_ * layout_.size(), 0.0);
    fill_scalars();
    fill_pixels();
    if (layout_.n_network > 0 || layout_.n_light_weights > 0) {
      differentiate_sources();
      if (layout_.n_network > 0) fill_network();
      if (layout_.n_light_weights > 0) fill_light();
    }
    return through_psf();
  }

 private:
  Rays<double> rays(int begin, int end) const {
    const double *const t = theta_.data() + begin, *const d = deflection_.data() + begin;
    Rays<double> block{end - begin, t, t + n_rays_, d, d + n_rays_};
    if (!light_value_.empty()) {
      block.network_value = light_value_.data() + begin;
      block.network_gradient_x = light_gradient_.data() + begin;
      block.network_gradient_y = light_gradient_.data() + n_rays_ + static_cast<std::size_t>(begin);
    }
    return block;
  }

  /// Calls work(first ray, last ray + 1) for whole pixels: blocks share no sample of an image.
  template <class Work>
  void for_blocks(Work&& work) {
    const int per_pixel = grid_.rays_per_pixel(), pixels = std::max(1, kChunk / per_pixel);
    pool_.parallel_for((grid_.n_pixels() + pixels - 1) / pixels, [&](int block, int) {
      work(block * pixels * per_pixel, std::min((block + 1) * pixels, grid_.n_pixels()) * per_pixel);
    });
  }

  /// The sample that a ray belongs to, in the image before the PSF of one parameter.
  double& sample(std::size_t column, int ray) {
    const int per_pixel = grid_.rays_per_pixel(), pixel = ray / per_pixel;
    return images_[column * samples_ + subpixel_of_ray(grid_.nx, pixel % grid_.nx, pixel / grid_.nx, ray % per_pixel,
                                                       grid_.supersampling, f_)];
  }
  double share() const { return static_cast<double>(f_ * f_) / grid_.rays_per_pixel(); }

  /// The network of the NETWORK light at every ray.
  void sample_light() {
    const LightComponent* const light = network_light(problem_.model);
    if (!light) return;
    light_weights_ =
        layout_.n_light_weights > 0 ? flat_.data() + layout_.light_weights_offset() : light->weights.data();
    light_position_.resize(2 * n_rays_);
    for_blocks([&](int begin, int end) {
      double* const x = light_position_.data() + begin;
      ray_kernels<double>().network_positions(tables_.scene(), rays(begin, end), network_light_index(problem_.model), x,
                                              x + n_rays_);
    });
    light_value_.resize(n_rays_);
    light_gradient_.resize(2 * n_rays_);
    CpuNetwork<double>(light->network, grid_.n_rays(), pool_, 0)
        .forward(light_weights_, light_position_.data(), grid_.n_rays(), light_value_.data(), light_gradient_.data());
  }

  void fill_scalars() {
    const std::size_t n = layout_.n_free();
    if (n == 0) return;
    std::vector<int> all(n);
    std::iota(all.begin(), all.end(), 0);
    const std::vector<SlotColumn> slots = slot_columns(layout_, tables_.n_lens, all);
    const std::vector<double> tangents = transform_tangents();
    for_blocks([&](int begin, int end) {
      const auto count = static_cast<std::size_t>(end - begin);
      std::vector<double> physical(n * count);
      ray_kernels<double>().derivatives(tables_.scene(), rays(begin, end), slots, physical.data(), count);
      for (std::size_t u = 0; u < n; ++u)
        for (std::size_t p = 0; p < n; ++p) {
          const double factor = share() * tangents[p * n + u];
          if (factor == 0) continue;
          for (std::size_t i = 0; i < count; ++i)
            sample(layout_.n_network + u, begin + static_cast<int>(i)) += factor * physical[p * count + i];
        }
    });
  }

  /// ∂p/∂u of all free scalars, (p, u); the identity for physical values.
  std::vector<double> transform_tangents() const {
    const std::size_t n = layout_.n_free();
    std::vector<double> tangents(n * n, 0.0), direction(n, 0.0);
    for (std::size_t u = 0; u < n; ++u) {
      direction[u] = 1;
      for (std::size_t p = 0; p < n; ++p)
        tangents[p * n + u] = space_ == Space::constrained
                                  ? direction[p]
                                  : transform_tangent(layout_.free.data(), static_cast<int>(p),
                                                      flat_.data() + layout_.n_network, direction.data());
      direction[u] = 0;
    }
    return tangents;
  }

  void fill_pixels() {
    if (layout_.free_pixels.empty()) return;
    std::vector<int> column_of(tables_.pixels.size(), -1);
    const std::size_t first = layout_.n_network + layout_.n_free();
    for (std::size_t k = 0; k < layout_.free_pixels.size(); ++k)
      column_of[static_cast<std::size_t>(layout_.free_pixels[k])] = static_cast<int>(first + k);
    const Scene<double> scene = tables_.scene();
    const int first_light = scene.n_lens + scene.n_source;
    for_blocks([&](int begin, int end) {
      for (int ray = begin; ray < end; ++ray) {
        const auto i = static_cast<std::size_t>(ray);
        const Vec2<double> theta{theta_[i], theta_[n_rays_ + i]};
        const Vec2<double> beta =
            theta - macro_deflection(scene, theta) - Vec2<double>{deflection_[i], deflection_[n_rays_ + i]};
        for (int c = scene.n_lens; c < first_light + scene.n_lens_light; ++c) {
          const Component& component = scene.components[c];
          if (static_cast<LightKind>(component.kind) != LightKind::pixelated) continue;
          const BilinearTaps<double> taps = bilinear_taps(component.grid, c < first_light ? beta : theta);
          for (int k = 0; k < 4; ++k) {
            if (taps.index[k] < 0) continue;
            const int column = column_of[static_cast<std::size_t>(component.pixel_offset + taps.index[k])];
            if (column >= 0) sample(static_cast<std::size_t>(column), ray) += share() * taps.weight[k];
          }
        }
      }
    });
  }

  /// −∇S and ∂S/∂v of every ray: the adjoint of render_ray for a cotangent of 1.
  void differentiate_sources() {
    slope_.assign(2 * n_rays_, 0.0);
    if (!light_value_.empty()) of_value_.assign(n_rays_, 0.0);
    const std::vector<double> ones(static_cast<std::size_t>(std::max(kChunk, grid_.rays_per_pixel())), 1.0);
    for_blocks([&](int begin, int end) {
      double* const slope = slope_.data() + begin;
      ray_kernels<double>().adjoint(tables_.scene(), rays(begin, end), ones.data(), slope, slope + n_rays_, nullptr,
                                    nullptr, of_value_.empty() ? nullptr : of_value_.data() + begin);
    });
  }

  void fill_network() {
    const NetworkShape& shape = *problem_.model.network;
    std::vector<std::size_t> weights(layout_.n_network - shape.fixed_size());
    std::iota(weights.begin(), weights.end(), shape.fixed_size());
    // A few rays for each thread at a time: the derivatives of α take twice as much memory as those of the image.
    const int block = kChunk * pool_.threads();
    std::vector<double> theta, alpha;
    for (int begin = 0; begin < grid_.n_rays(); begin += block) {
      const int count = std::min(block, grid_.n_rays() - begin);
      const auto n = static_cast<std::size_t>(count);
      theta.assign(theta_.begin() + begin, theta_.begin() + begin + count);
      theta.insert(theta.end(), theta_.begin() + static_cast<std::ptrdiff_t>(n_rays_) + begin,
                   theta_.begin() + static_cast<std::ptrdiff_t>(n_rays_) + begin + count);
      alpha.resize(2 * n * weights.size());
      network_jacobian(shape, flat_.data(), theta.data(), count, weights, alpha.data(), pool_);
      const double *const slope_x = slope_.data() + begin, *const slope_y = slope_x + n_rays_;
      pool_.parallel_for(static_cast<int>(weights.size()), [&](int k, int) {
        const double* const column = alpha.data() + 2 * n * static_cast<std::size_t>(k);
        for (std::size_t i = 0; i < n; ++i)
          sample(weights[static_cast<std::size_t>(k)], begin + static_cast<int>(i)) +=
              share() * (slope_x[i] * column[i] + slope_y[i] * column[n + i]);
      });
    }
  }

  void fill_light() {
    const NetworkShape& shape = network_light(problem_.model)->network;
    for_blocks([&](int begin, int end) {
      FieldJacobian jacobian(shape, light_weights_);
      for (int ray = begin; ray < end; ++ray) {
        const auto i = static_cast<std::size_t>(ray);
        const std::vector<double>& of_weights = jacobian.at({light_position_[i], light_position_[n_rays_ + i]}).psi;
        for (std::size_t k = 0; k < layout_.n_light_weights; ++k)
          sample(layout_.light_weights_offset() + k, ray) += share() * of_value_[i] * of_weights[k];
      }
    });
  }

  /// The images of all columns after the PSF, in units of the noise.
  std::vector<double> through_psf() {
    const Observation& o = problem_.observation;
    const auto pixels = static_cast<std::size_t>(grid_.n_pixels());
    std::vector<double> result;
    if (f_ > 1) result.resize(pixels * layout_.size());
    std::vector<double>& to = f_ > 1 ? result : images_;
    std::vector<Convolution<double>> convolutions;
    for (int i = 0; i < pool_.threads(); ++i) convolutions.emplace_back(grid_.nx * f_, grid_.ny * f_, o.psf);
    std::vector<std::vector<double>> convolved(convolutions.size(), std::vector<double>(samples_));
    pool_.parallel_for(static_cast<int>(layout_.size()), [&](int column, int worker) {
      const auto k = static_cast<std::size_t>(column), thread = static_cast<std::size_t>(worker);
      convolutions[thread].apply(images_.data() + k * samples_, convolved[thread].data());
      double* const image = to.data() + k * pixels;
      mean_of_subpixels(convolved[thread].data(), grid_.nx, grid_.ny, f_, image);
      for (std::size_t i = 0; i < pixels; ++i)
        image[i] = o.mask[i] == 0 ? std::numeric_limits<double>::quiet_NaN() : -image[i] / o.noise[i];
    });
    return std::move(to);
  }

  const Problem& problem_;
  const Grid& grid_;
  const ParameterLayout& layout_;
  const std::vector<double>& flat_;
  Space space_;
  ThreadPool& pool_;
  SceneTables<double> tables_;
  std::size_t n_rays_;
  int f_;                                   ///< sub-pixels that the PSF acts on, a pixel's side
  std::size_t samples_;                     ///< of an image before the PSF
  std::vector<double> theta_, deflection_;  ///< all x, then all y [arcsec]
  std::vector<double> slope_;               ///< −∇S, all x, then all y
  // Of the NETWORK light; empty without one.
  const double* light_weights_ = nullptr;
  std::vector<double> light_position_, light_value_, light_gradient_, of_value_;
  std::vector<double> images_;  ///< before the PSF: (parameters, samples)
};

}  // namespace

std::vector<double> residual_jacobian(const Problem& problem, const ParameterLayout& layout,
                                      const std::vector<double>& flat, Space space, ThreadPool& pool) {
  return ResidualJacobian(problem, layout, flat, space, pool).compute();
}

}  // namespace einfield::python
