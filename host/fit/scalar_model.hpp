// The model image of one system as a function of the free parameters of its profiles alone, for the fits that need a
// Jacobian. Amplitudes, in which the brightness is linear, are solved for (variable projection: Golub & Pereyra 1973,
// Kaufman 1975); every other parameter has a column of derivatives. In double precision on the CPU; network weights and
// source pixels are held fixed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "einfield/amplitudes.hpp"
#include "einfield/backend.hpp"
#include "einfield/render.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/network.hpp"
#include "host/cpu/noise_whitening.hpp"
#include "host/cpu/rays.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fit/least_squares.hpp"
#include "host/model/scene_tables.hpp"

namespace einfield {

/// Quadratic form of ScalarPoint::value() at a point in the physical values p of the parameters that move:
///
///     value(p + δ) ≈ value(p) + 2 gᵀδ + δᵀNδ,   N = JᵀWJ + Σ prior,   g = JᵀW(m − d) + Σ prior                 (1)
struct Curvature {
  SymmetricMatrix normal;
  std::vector<double> gradient;
};

/// What does not change while parameters move: the weights of the pixels that enter the loss, and the rays of these
/// pixels and of those around them whose light the PSF brings in. Immutable: several ScalarEvaluators may share one.
class ScalarModel {
 public:
  struct Pixel {
    int x, y;  ///< within the cut-out
  };
  struct Used {
    Pixel pixel;
    double weight, chi2_weight;  ///< square roots of pixel_weights()
    double data;                 ///< times `weight`; of correlated noise, whitened
  };

  /// @param problem     kept by reference
  /// @param parameters  flat vector of its layout
  /// @param loss        which loss the pixel weights are for; `problem.loss` may differ
  /// @param moves       per parameter, 1 = moves; empty = all
  /// @param pool        computes the network's deflection; null: the caller does, with network_weights()
  /// @throws InvalidInput when nothing moves
  ScalarModel(const Problem& problem, const std::vector<double>& parameters, LossKind loss,
              const std::vector<std::uint8_t>& moves, ThreadPool* pool);
  ScalarModel(const Problem& problem, const std::vector<double>& parameters, LossKind loss,
              const std::vector<std::uint8_t>& moves, ThreadPool& pool)
      : ScalarModel(problem, parameters, loss, moves, &pool) {}

  /// Upper limit of the bytes of a model and its evaluators, shown and checked before the run.
  /// @param evaluators  number of evaluators that exist at the same time
  /// @param threads     of each evaluator
  static std::size_t planned_bytes(const Problem& problem, int evaluators, int threads);

  const ParameterLayout& layout() const { return layout_; }
  /// The free scalars that move, as indices into layout().free: those that enter linearly first.
  const std::vector<int>& moving() const { return moving_; }
  std::size_t n_linear() const { return n_linear_; }
  /// Unconstrained values of the free scalars in the parameters that the model was built from.
  const std::vector<double>& initial_scalars() const { return initial_scalars_; }
  int n_fitted() const { return static_cast<int>(b_.used.size()); }

  const Problem& problem() const { return problem_; }
  const SceneTables<double>& tables() const { return tables_; }
  /// Per amplitude that moves: its component among the light components, its range and prior.
  const std::vector<int>& linear_component() const { return linear_component_; }
  const std::vector<Amplitude>& amplitudes() const { return amplitudes_; }
  int light_component() const { return light_component_; }
  int nx() const { return nx_; }  ///< of the cut-out [pixels]
  int ny() const { return ny_; }
  const std::vector<Pixel>& needed() const { return b_.needed; }
  const std::vector<Used>& used() const { return b_.used; }
  const NoiseWhitening& whitening() const { return whitening_; }
  /// Of every ray of the needed pixels: all x, then all y [arcsec]. The deflection is 0 without a pool.
  const std::vector<double>& theta() const { return b_.theta; }
  const std::vector<double>& deflection() const { return b_.deflection; }
  /// Adds the terms of the priors at the physical values of the free scalars.
  void add_priors(const std::vector<double>& values, Curvature& curvature) const;
  /// Their part of the loss there.
  double prior_penalty(const std::vector<double>& values) const;
  /// z of a prior there.
  static double deviation(const GaussianPrior<double>& prior, const std::vector<double>& values);
  /// Of Problem::model's network; empty when a pool has computed its deflection.
  const std::vector<double>& network_weights() const { return network_weights_; }

 private:
  friend class ScalarEvaluator;

  void place(const std::vector<double>& parameters);
  void sort_scalars(const std::vector<std::uint8_t>& moves);
  void choose_pixels(LossKind loss);
  void trace_rays(const std::vector<double>& parameters, ThreadPool* pool);
  void collect_amplitudes();

  const Problem& problem_;
  ParameterLayout layout_;
  std::vector<double> initial_scalars_;
  std::vector<int> moving_;
  std::size_t n_linear_ = 0;
  std::vector<int> linear_component_;
  std::vector<Amplitude> amplitudes_;
  std::vector<double> network_weights_;
  SceneTables<double> tables_;
  int light_component_ = -1;  ///< the NETWORK light among all components, or −1

  int left_ = 0, low_ = 0;     ///< corner of the cut-out in the image [pixels]
  int nx_ = 0, ny_ = 0;        ///< size of the cut-out [pixels]
  int rays_per_side_ = 1;      ///< of a pixel
  int psf_supersampling_ = 1;  ///< sub-pixels that the PSF is applied to, a pixel's side

  /// The large buffers, named once for the plan and for the allocation.
  struct Buffers {
    std::vector<Pixel> needed;  ///< pixels that are rendered
    std::vector<Used> used;     ///< pixels that enter the loss
    std::vector<double> theta, deflection;
    template <class Visit>
    void each(Visit&& visit, std::size_t n_needed, std::size_t n_used, std::size_t n_rays) {
      visit(needed, n_needed);
      visit(used, n_used);
      visit(theta, 2 * n_rays);
      visit(deflection, 2 * n_rays);
    }
  };
  Buffers b_;
  NoiseWhitening whitening_;
};

/// A point of the parameter space and its value.
struct ScalarPoint {
  std::vector<double> u;             ///< unconstrained values of all free scalars, the amplitudes solved for
  double loss = 0;                   ///< data term, by the model's LossKind
  double chi2_reduced = 0;           ///< over the fitted pixels
  double penalty = 0;                ///< of the Gaussian priors, with the weight that every optimizer gives them
  bool finite = false;               ///< whether loss, chi2_reduced and penalty are finite
  std::vector<std::uint8_t> pinned;  ///< per linear parameter: 1 = at the end of its range

  double value() const { return loss + penalty; }
};

/// What the sizes of the buffers of an evaluator follow from.
struct ScalarSizes {
  std::size_t columns, images, threads;
  std::size_t used;        ///< pixels that enter the loss
  std::size_t samples;     ///< of a cut-out that the PSF acts on
  std::size_t light_rays;  ///< rays, or 0 without a NETWORK component
};

/// The large buffers of an evaluator, named once for the plan and for the allocation.
struct ScalarBuffers {
  std::vector<std::vector<double>> images;     ///< cut-outs before the PSF
  std::vector<std::vector<double>> convolved;  ///< one per thread: a cut-out after the PSF
  std::vector<std::vector<double>> columns;    ///< weighted, of the used pixels: moving() in order
  std::vector<double> fixed;                   ///< weighted light that is not solved for
  std::vector<double> residual, target;        ///< weighted: model − data; data − fixed
  std::vector<double> light_position, light_value, light_gradient;
  template <class Visit>
  void each(Visit&& visit, const ScalarSizes& s) {
    const auto rows = [&visit](std::vector<std::vector<double>>& list, std::size_t n, std::size_t count) {
      list.resize(n);
      for (std::vector<double>& row : list) visit(row, count);
    };
    rows(images, s.images, s.samples);
    rows(convolved, s.threads, s.samples);
    rows(columns, s.columns, s.used);
    for (std::vector<double>* v : {&fixed, &residual, &target}) visit(*v, s.used);
    visit(light_value, s.light_rays);
    for (std::vector<double>* v : {&light_position, &light_gradient}) visit(*v, 2 * s.light_rays);
  }
};

/// Evaluates a ScalarModel and owns the memory for it. Bits do not depend on the number of threads.
class ScalarEvaluator {
 public:
  ScalarEvaluator(const ScalarModel& model, ThreadPool& pool);

  /// The best amplitudes within their ranges for these u, and value() there: a bounded least-squares problem.
  /// @param u  of all free scalars; amplitudes that move are replaced
  ScalarPoint evaluate(const std::vector<double>& u);
  /// value() with all parameters as given, amplitudes included.
  ScalarPoint evaluate_fixed(const std::vector<double>& u);
  /// (1) at the point of the last evaluation.
  ///
  /// A row of the Jacobian is the adjoint of render_ray for a cotangent of 1, before the PSF: a ray has one brightness.
  Curvature curvature();

 private:
  void render_columns(const std::vector<double>& u);
  void solve_amplitudes(ScalarPoint& point);
  void compute_value(ScalarPoint& point);
  template <class Work>
  void render(std::size_t n_images, Work&& work);
  void convolve(std::size_t n_images, const std::vector<std::vector<double>*>& columns);
  Scene<double> scene(const std::vector<double>& table) const;

  const ScalarModel& m_;
  ThreadPool& pool_;
  std::vector<Convolution<double>> convolutions_;  // one per thread
  std::vector<std::vector<double>> ray_values_;    // one per thread; of one chunk of pixels
  std::unique_ptr<CpuNetwork<double>> light_network_;
  std::vector<double> table_, values_;  // physical: all slots; all free scalars
  ScalarBuffers b_;
};

}  // namespace einfield
