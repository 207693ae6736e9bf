// The Gaussian approximation of the posterior at a point of a JointModel: the step to its maximum, its evidence
// (Laplace; Suyu et al. 2006, section 3), and how many parameters the data determine beyond each penalty (MacKay 1992).
#pragma once

#include <array>
#include <cmath>
#include <Eigen/Core>
#include <memory>

#include "einfield/fitter.hpp"
#include "host/fit/block_cholesky.hpp"
#include "host/fit/joint_algebra.hpp"
#include "host/fit/joint_model.hpp"

namespace einfield {

/// H = LLᵀ by blocks: first the pixels (joint_algebra.hpp (1)), then the Schur complement of the rest.
///
///     S = H_rr − XᵀX,   ln det H = ln det H_ss + ln det S,   (H⁻¹)_rr = S⁻¹                                      (3)
class JointPosterior {
 public:
  JointPosterior(JointModel& model, const Linearization& l, const NormalEquations& normal,
                 const Regularization& weights, ThreadPool& pool);

  /// False when H is not positive definite: what is not determined has no prior.
  bool good() const { return source_is_determined() && schur_factor_.good(); }
  /// Whether H_ss is positive definite.
  bool source_is_determined() const { return source_->good(); }
  /// Whether every parameter of the network has a prior, which the evidence needs.
  bool proper() const { return network_prior_.good() && (source_gradient_.size() == 0 || weights_.on_source_pixels()); }
  /// g of (2), with the weights of the penalties.
  const Eigen::VectorXd& source_gradient() const { return source_gradient_; }
  const Eigen::VectorXd& rest_gradient() const { return rest_gradient_; }
  /// Norm of the gradient of F.
  double gradient_norm() const { return 2 * std::sqrt(source_gradient_.squaredNorm() + rest_gradient_.squaredNorm()); }

  /// −H⁻¹ g, of the pixels and of the rest, with `damping` times the diagonal added to S.
  struct Step {
    Eigen::VectorXd source, rest;
    double slope;  ///< gᵀδ, negative: F falls by about its size
  };
  Step step(double damping) const;
  /// The factor of S with `damping` times its diagonal added.
  BlockCholesky damped_factor(double damping) const;
  /// −H⁻¹ g of another gradient, with a factor of S from damped_factor(). @pre good()
  Step solve(const Eigen::VectorXd& source, const Eigen::VectorXd& rest, const BlockCholesky& factor,
             ThreadPool& pool) const;
  /// −H_ss⁻¹ g_s: the pixels alone.
  Step source_step() const;

  /// S = ((H⁻¹)_rr)⁻¹, the information about weights and scalars when the pixels are not known.
  const Eigen::MatrixXd& schur() const { return schur_; }
  /// (H⁻¹)_rr. @pre good()
  Eigen::MatrixXd rest_covariance() const;

  /// The weights for which each penalty explains what the fit found, w_k Q_k = γ_k, with
  ///
  ///     γ_k = w_k (tr P⁻¹T_k − tr H⁻¹T_k)                                                                         (4)
  ///
  /// the number of parameters that the data determine against this penalty (MacKay 1992, eq. 4.8; several penalties on
  /// one set of parameters share them). P is the precision of all penalties, T_k that of one at weight 1. The traces
  /// over pixels are estimated with random signs (Hutchinson 1990), always the same.
  /// @param found  at the maximum
  /// @pre proper()
  Regularization better_weights(const JointValue& found);
  /// The same for the pixels, with everything else held fixed.
  Regularization better_source_weights(const JointValue& found);

  /// @pre proper()
  Evidence evidence(const JointValue& found) const;

 private:
  Eigen::MatrixXd solve_source(const Eigen::MatrixXd& right, bool alone) const;
  void update_source(const JointValue& found, bool alone, Regularization& better);

  JointModel& model_;
  const Linearization& l_;
  Regularization weights_;
  ThreadPool& pool_;
  std::unique_ptr<SourceBlock> source_;
  Eigen::MatrixXd schur_;        ///< S
  BlockCholesky schur_factor_;   ///< of S
  BlockCholesky network_prior_;  ///< of P of the weights
  Eigen::VectorXd source_gradient_, rest_gradient_;
  double determined_source_ = 0, determined_network_ = 0;
};

}  // namespace einfield
