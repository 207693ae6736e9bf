// The Gaussian prior of source pixels, as sparse matrices: the squared differences of neighbors of
// einfield/regularization.hpp (3) (Suyu et al. 2006, appendix A), which has terms at all borders, so that each of its
// two forms is a proper prior.
#pragma once

#include <array>
#include <Eigen/SparseCore>
#include <vector>

#include "einfield/model.hpp"
#include "einfield/regularization.hpp"

namespace einfield {

/// The terms of pixel i are divided by a variance v_i. With v = 1 the prior is the same everywhere, and a source that
/// is sharp and bright in a few places and dark elsewhere contradicts it: the strength that suits the dark sky smooths
/// the clumps, and what a clump lacks the potential supplies. A galaxy varies where it shines, so v follows the
/// brightness of an earlier solution, as in the non-constant regularization of Nightingale et al. (2018).
class SourcePrior {
 public:
  using Sparse = Eigen::SparseMatrix<double>;
  static constexpr std::array<Regularization::Member, 2> kTerms = {&Regularization::source_gradient,
                                                                   &Regularization::source_curvature};

  SourcePrior() = default;
  /// @param grids     the free components of the source, all of whose pixels move
  /// @param n_data    N: a weight of 1 is N times the mean over the pixels of a component
  /// @param variance  v, of every pixel; empty = 1
  SourcePrior(std::vector<FreePixels> grids, double n_data, std::vector<double> variance);

  std::size_t size() const { return size_; }
  /// R_k: sᵀ R_k s is N times the mean squared difference over v. @param k  index into kTerms
  const Sparse& matrix(std::size_t k) const { return matrices_[k]; }
  /// ln det (Σ w_k R_k). @pre a weight of kTerms is > 0
  double log_determinant(const Regularization& weights) const;
  /// (Σ w_k R_k)⁻¹ b
  Eigen::MatrixXd solve(const Regularization& weights, const Eigen::MatrixXd& b) const;
  /// Σ w_k R_k
  Sparse precision(const Regularization& weights) const;

  const std::vector<double>& variance() const { return variance_; }
  void set_variance(std::vector<double> variance);
  /// v for a source s of another solution. b² is s² smoothed with a Gaussian of a twentieth of the larger side of the
  /// grid; the noise of single pixels then has no part in it. With c the contrast,
  ///
  ///     v = (b²/max b² + c⁻²) / (1 + c⁻²)                                                                         (1)
  ///
  /// is 1 in the brightest place and about c⁻² in the dark: the prior's σ differs by the factor c.
  std::vector<double> variance_of(const Eigen::VectorXd& s, double contrast) const;

 private:
  void build();

  std::vector<FreePixels> grids_;
  double n_data_ = 1;
  std::vector<double> variance_;
  std::size_t size_ = 0;
  std::array<Sparse, 2> matrices_;
};

}  // namespace einfield
