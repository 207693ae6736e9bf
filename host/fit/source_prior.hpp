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

class SourcePrior {
 public:
  using Sparse = Eigen::SparseMatrix<double>;
  static constexpr std::array<Regularization::Member, 2> kTerms = {&Regularization::source_gradient,
                                                                   &Regularization::source_curvature};

  SourcePrior() = default;
  /// @param grids  the free components of the source, all of whose pixels move
  /// @param n_data  N: a weight of 1 is N times the mean over the pixels of a component
  SourcePrior(const std::vector<FreePixels>& grids, double n_data);

  std::size_t size() const { return size_; }
  /// R_k: sᵀ R_k s is N times the mean squared difference. @param k  index into kTerms
  const Sparse& matrix(std::size_t k) const { return matrices_[k]; }
  /// ln det (Σ w_k R_k). @pre a weight of kTerms is > 0
  double log_determinant(const Regularization& weights) const;
  /// (Σ w_k R_k)⁻¹ b
  Eigen::MatrixXd solve(const Regularization& weights, const Eigen::MatrixXd& b) const;
  /// Σ w_k R_k
  Sparse precision(const Regularization& weights) const;

 private:
  std::size_t size_ = 0;
  std::array<Sparse, 2> matrices_;
};

}  // namespace einfield
