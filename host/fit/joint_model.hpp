// One system as a function of all its free parameters, linearized: source pixels, network weights and scalars together,
// for the fit that needs the Jacobian of everything (Gauss–Newton) and for the evidence. In double precision on the
// CPU.
//
// With r = (m(x) − d)/σ the residuals of the N fitted pixels, whitened where their noise is correlated, the objective
// is N times what every other optimizer minimizes (einfield/problem.hpp, einfield/regularization.hpp):
//
//     F(x) = |r(x)|² + Σ_k w_k Q_k(x) + S(x) + Σ ((p − mean)/sigma)² + Σ b²                                      (1)
//
// w_k are the weights of [regularization] whose terms Q_k are sums of squares: source_gradient, source_curvature (of
// the pixels), smoothness, curvature, weight_decay (of the network). S are the penalties on negative convergences,
// which are no Gaussian priors. b are the biases of hidden layers, which get a prior of unit width: without one they
// would have none. With A = ∂r/∂pixels (sparse), B = ∂r/∂(weights, scalars) (dense) and D_k the Jacobian of what Q_k
// sums the squares of, half the gradient and half the Hessian of Gauss–Newton are
//
//     g = Jᵀr + Σ w_k D_kᵀ q_k,   H = JᵀJ + Σ w_k D_kᵀ D_k,   J = (A B)                                          (2)
//
// Where parameters of the smooth lens move, the network could do the same to the image as they do, and take over part
// of θ_E or of the shear: only the sum would be determined. With Problem::network_off_lens, hold_lens_directions()
// leaves that part to the lens. With
// the columns of U an orthonormal basis of ∂α_lens/∂p over the R fitted rays, p what moves, it adds to (1)
//
//     |Uᵀ(α_NN − α_NN,0)|² / (R σ²),   σ = 1e-4 units of the field (einfield/units.hpp)                            (3)
#pragma once

#include <array>
#include <cstdint>
#include <Eigen/Core>
#include <functional>
#include <memory>
#include <vector>

#include "einfield/problem.hpp"
#include "host/cpu/convolve.hpp"
#include "host/cpu/network.hpp"
#include "host/cpu/noise_whitening.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fit/source_prior.hpp"
#include "host/model/scene_tables.hpp"

namespace einfield {

/// Rows are stored one after the other, so that a row of derivatives is contiguous.
using RowMatrix = NoiseWhitening::RowMatrix;

/// The penalties of the network that are Gaussian priors.
inline constexpr std::array<Regularization::Member, 3> kNetworkTerms = {
    &Regularization::smoothness, &Regularization::curvature, &Regularization::weight_decay};

/// The parts of (1).
struct JointValue {
  double chi2 = 0;                  ///< |r|²
  std::array<double, 3> network{};  ///< Q_k of kNetworkTerms
  std::array<double, 2> source{};   ///< Q_k of SourcePrior::kTerms
  double signs = 0;                 ///< S
  double priors = 0;                ///< of scalars and biases
  bool finite = false;
  /// F
  double total(const Regularization& weights) const;
};

/// A matrix in rows of a few entries: row i has the entries first[i] … first[i + 1] − 1.
struct SparseRows {
  std::vector<std::size_t> first = {0};
  std::vector<int> column;
  std::vector<double> value;
};

/// (2) at a point; the Gaussian penalties apart, so that their weights may change.
struct Linearization {
  JointValue value;
  SparseRows source;                        ///< A; empty with correlated noise
  RowMatrix whitened_source;                ///< A with correlated noise, which fills it: (N, pixels); else empty
  RowMatrix rest;                           ///< B: (N, weights and scalars that move)
  Eigen::VectorXd residual;                 ///< r
  std::array<Eigen::MatrixXd, 3> network;   ///< D_kᵀ D_k of kNetworkTerms: (weights, weights)
  std::array<Eigen::VectorXd, 3> gradient;  ///< D_kᵀ q_k
  Eigen::MatrixXd priors;                   ///< half Hessian of the priors of scalars and biases: (rest, rest)
  Eigen::MatrixXd signs;                    ///< half Hessian of S: (weights, weights); empty without S
  Eigen::VectorXd fixed_gradient;           ///< half gradient of both
};

/// What B is made of, along the rays.
struct RayDerivatives {
  const Eigen::MatrixXd& alpha;      ///< ∂α/∂weight: (2 rays, weights), all x, then all y
  bool alpha_stays;                  ///< it is the same at every point
  const std::vector<double>& slope;  ///< −∇S, all x, then all y
  const RowMatrix& scalars;          ///< ∂I/∂u: (scalars, rays)
};

/// Hardware that takes them through the PSF: B = σ⁻¹ P (−∇S·∂α/∂weight  ∂I/∂u).
class RayColumns {
 public:
  virtual ~RayColumns() = default;
  /// @param rest  B, of its size
  virtual void fill(const RayDerivatives& derivatives, RowMatrix& rest) = 0;
};

class JointModel {
 public:
  /// A pixel that is fitted.
  struct Used {
    int x, y;
    double inverse_sigma, data;
  };

  /// @param problem  kept by reference
  /// @param moves    per parameter of the flat vector, 1 = moves; empty = all
  /// @throws InvalidInput for a loss or a component that (2) does not cover, and when nothing moves
  JointModel(const Problem& problem, const std::vector<std::uint8_t>& moves, ThreadPool& pool);

  /// Upper limit of the bytes of a model and one linearization.
  static std::size_t planned_bytes(const Problem& problem, int threads);

  /// Upper limit of the number of entries of A.
  static std::size_t planned_entries(const Problem& problem);

  const Problem& problem() const { return problem_; }
  const ParameterLayout& layout() const { return layout_; }
  /// What moves, as indices into the flat parameter vector: pixels of the source; weights, then scalars.
  const std::vector<std::size_t>& pixels() const { return pixels_; }
  const std::vector<std::size_t>& rest() const { return rest_; }
  std::size_t n_weights() const { return n_weights_; }  ///< of rest()
  int n_data() const { return static_cast<int>(used_.size()); }
  const std::vector<Used>& used() const { return used_; }
  const NoiseWhitening& whitening() const { return whitening_; }
  const SourcePrior& source_prior() const { return source_prior_; }
  /// Lets the prior of the source follow the brightness at the last point (source_prior.hpp (1)).
  void adapt_source_prior(double contrast) {
    source_prior_.set_variance(source_prior_.variance_of(source_values_, contrast));
  }

  /// (3) from now on, if the problem asks for it: the deflection of the network keeps the part along what the lens can
  /// do that it has at x.
  void hold_lens_directions(const std::vector<double>& x);
  /// U / √(R σ²): (2 rays, directions), all x, then all y; 0 where a ray is not fitted. Empty = none.
  const Eigen::MatrixXd& held() const { return held_; }
  const Eigen::VectorXd& held_at() const { return held_at_; }  ///< held()ᵀ α_NN,0

  /// Of the pixels that move, at the last point.
  const Eigen::VectorXd& source_values() const { return source_values_; }
  /// What the evidence has besides determinants: −½ ln det 2πC of the noise, and per scalar ln(√2π |∂p/∂u|) with the
  /// density of its prior: Gaussian, uniform between bounds, or 1 in the unit of the fit (einfield/units.hpp).
  double log_constant() const;

  /// Renders, and computes the parts of (1). @param x  flat parameter vector
  JointValue value(const std::vector<double>& x);
  /// (2) at x. @param columns  make B of independent noise; null = this model, on the CPU
  Linearization linearize(const std::vector<double>& x, RayColumns* columns = nullptr);
  /// ∂r/∂m for further deflections m α_k of the lens, at the point of the last linearization, whitened: (N, count).
  /// @param alpha  α_k at a position
  RowMatrix response(int count, const std::function<Vec2<double>(int k, Vec2<double> theta)>& alpha);

 private:
  void choose(const std::vector<std::uint8_t>& moves);
  template <class Work>
  void for_blocks_of_rays(Work&& work);
  void render(const std::vector<double>& x, Eigen::VectorXd& residual);
  void differentiate_deflection();
  JointValue parts(const std::vector<double>& x, const Eigen::VectorXd& residual);
  void whiten(Linearization& l) const;
  void fill_source(SparseRows& rows);
  RowMatrix scalar_derivatives();
  void fill_rest(RowMatrix& rest, RayColumns* columns);
  void convolve_column(const double* rays, int worker, Eigen::Index column, RowMatrix& rest);
  void differentiate_potential(const std::vector<double>& x);
  void fill_potential_terms(const std::vector<double>& x, Linearization& l);
  void fill_priors(const std::vector<double>& x, Linearization& l);
  Eigen::MatrixXd transform_tangents() const;
  Eigen::MatrixXd lens_tangents() const;
  /// z of a prior at the scalars of the last render().
  double deviation(const GaussianPrior<double>& prior) const;
  Eigen::VectorXd along_lens() const;

  const Problem& problem_;
  ThreadPool& pool_;
  ParameterLayout layout_;
  SceneTables<double> tables_;
  std::vector<std::size_t> pixels_, rest_;
  std::size_t n_weights_ = 0;
  SourcePrior source_prior_;
  std::vector<Used> used_;
  NoiseWhitening whitening_;
  std::vector<double> theta_, deflection_, brightness_, scalars_;
  Eigen::VectorXd source_values_;
  std::vector<double> slope_;  ///< −∇S at every ray, all x then all y
  std::unique_ptr<CpuNetwork<double>> network_;
  // At the interior nodes of the grid of rays, at the last point: κ and ∇∇ψ − ⟨∇∇ψ⟩ of the network, κ of the smooth
  // model.
  Eigen::VectorXd kappa_, shape_, kappa_macro_;
  Eigen::MatrixXd held_;
  Eigen::VectorXd held_at_;
  Eigen::MatrixXd held_weights_;  ///< held()ᵀ ∂α/∂weight: (directions, weights)
  double node_share_ = 0;         ///< N over the number of nodes: a mean over the nodes, as often as there are data
  // Derivatives of the potential with respect to the weights that move, a column each. Those of a linear readout never
  // change: they are computed once.
  Eigen::MatrixXd weight_alpha_;          ///< α: (2 rays, weights), all x, then all y
  Eigen::MatrixXd weight_kappa_;          ///< κ: (nodes, weights)
  Eigen::MatrixXd weight_shape_;          ///< ∇∇ψ − ⟨∇∇ψ⟩: (3 nodes, weights), xx, yy and √2 xy
  std::array<Eigen::MatrixXd, 3> terms_;  ///< D_kᵀ D_k
  bool linear_readout_ = false;
  std::vector<Convolution<double>> convolutions_;  ///< one per thread
  std::vector<std::vector<double>> image_, convolved_;
};

}  // namespace einfield
