// The model image of one lens as a function of the free parameters of its profiles alone, for the fits that need a
// Jacobian: brightness that is linear in an amplitude is solved for (variable projection: Golub & Pereyra 1973, Kaufman
// 1975), the rest has columns of derivatives. In double on the CPU; network weights and source pixels are held fixed.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/render.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/network.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fit/least_squares.hpp"

namespace einfield {

/// What does not change while parameters move: rays and weights of the pixels that have a part in the loss, and of
/// those around them whose light the PSF brings in. Immutable: many ScalarEvaluators may share one.
class ScalarModel {
 public:
  /// @param problem     kept by reference
  /// @param parameters  flat vector of its layout
  /// @param loss        of the weights; `problem.loss` may be another one
  /// @param moves       per free scalar, 1 = moves; empty = all
  /// @throws InvalidInput when nothing moves
  ScalarModel(const Problem& problem, const std::vector<double>& parameters, LossKind loss,
              const std::vector<std::uint8_t>& moves, ThreadPool& pool);

  /// Bytes of such a model and of what evaluates it, at most, for the message before a run.
  /// @param evaluators  side by side
  /// @param threads     of each
  static std::size_t planned_bytes(const Problem& problem, int evaluators, int threads);

  const ParameterLayout& layout() const { return layout_; }
  /// The free scalars that move, as indices into layout().free: those that enter linearly first.
  const std::vector<int>& moving() const { return moving_; }
  std::size_t n_linear() const { return n_linear_; }
  /// Of the parameters that the model was made from.
  const std::vector<double>& initial_scalars() const { return initial_scalars_; }
  int n_fitted() const { return static_cast<int>(used_.size()); }

 private:
  friend class ScalarEvaluator;

  struct Pixel {
    int x, y;  ///< within the cut-out
  };
  struct Used {
    Pixel pixel;
    double weight, chi2_weight;  ///< square roots of pixel_weights()
    double data;                 ///< times `weight`
  };

  const Problem& problem_;
  ParameterLayout layout_;
  std::vector<double> parameters_, initial_scalars_;
  std::vector<int> moving_;
  std::size_t n_linear_ = 0;
  std::vector<int> linear_component_;  ///< among the light components, per linear parameter
  std::vector<Component> components_;
  int n_lens_ = 0, n_source_ = 0, n_lens_light_ = 0;
  int light_component_ = -1;  ///< the NETWORK light among all components

  int nx_ = 0, ny_ = 0;        ///< of the cut-out, in pixels
  int rays_per_side_ = 1;      ///< of a pixel
  int psf_supersampling_ = 1;  ///< sub-pixels that the PSF is applied to, a pixel's side
  std::vector<Pixel> needed_;
  std::vector<Used> used_;
  std::vector<double> theta_, deflection_;  ///< of every ray of the needed pixels: all x, then all y
};

/// A point of the parameter space and how good it is.
struct ScalarPoint {
  std::vector<double> u;     ///< unconstrained values of all free scalars, the amplitudes solved for
  double loss = 0;           ///< as the model's LossKind says
  double chi2_reduced = 0;   ///< over the pixels that are fitted
  double penalty = 0;        ///< of the priors, as in the loss of every optimiser
  bool finite = false;       ///< whether these are numbers
  std::vector<bool> pinned;  ///< per linear parameter: at the end of its range, 0 for an amplitude that is positive

  double value() const { return loss + penalty; }
};

/// Quadratic form of value() at a point in the physical values p of the parameters that move:
///
///     value(p + δ) ≈ value(p) + 2 gᵀδ + δᵀNδ,   N = JᵀWJ + Σ prior,   g = JᵀW(m − d) + Σ prior                 (1)
struct Curvature {
  SymmetricMatrix normal;
  std::vector<double> gradient;
};

/// Evaluates a ScalarModel; has the memory for it. Bits do not depend on the number of threads.
class ScalarEvaluator {
 public:
  ScalarEvaluator(const ScalarModel& model, ThreadPool& pool);

  /// The best amplitudes within their ranges for these u, and value() there: a bounded least-squares problem.
  /// @param u  of all free scalars; amplitudes that move are replaced
  ScalarPoint evaluate(const std::vector<double>& u);
  /// The same with all parameters as given.
  ScalarPoint evaluate_fixed(const std::vector<double>& u);
  /// (1) at the point of the last evaluation.
  ///
  /// A row of the Jacobian is the adjoint of render_ray for a cotangent of 1, before the PSF: a ray has one brightness.
  Curvature curvature();

 private:
  void shape(const std::vector<double>& u);
  void solve(ScalarPoint& point);
  void judge(ScalarPoint& point);
  template <class Work>
  void render(std::size_t n_images, Work&& work);
  void convolve(std::size_t n_images, const std::vector<std::vector<double>*>& columns);
  Scene<double> scene(const std::vector<double>& table) const;

  const ScalarModel& m_;
  ThreadPool& pool_;
  std::vector<Convolution<double>> convolutions_;            // one a thread
  std::vector<std::vector<double>> ray_values_, convolved_;  // one a thread
  std::vector<double> light_position_, light_value_, light_gradient_;
  std::unique_ptr<CpuNetwork<double>> light_network_;
  std::vector<std::vector<double>> images_;   // cut-outs before the PSF
  std::vector<std::vector<double>> columns_;  // of the used pixels, weighted: moving() in order
  std::vector<double> fixed_, residual_;      // the same: light that does not move linearly; model − data
  std::vector<double> table_, values_;        // physical: all slots; all free scalars
};

}  // namespace einfield
