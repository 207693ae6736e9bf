// The information matrix of a fit, by its eigenvectors: what a covariance of parameters does to linear functions of
// them, and which directions nothing determines.
#pragma once

#include <cstddef>
#include <Eigen/Core>
#include <vector>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/panels.hpp"

namespace einfield {

/// Eigenvalues of a scaled information matrix below this are rounding: its entries are sums over about 10⁴ pixels.
inline constexpr double kFreeDirection = 1e-10;

/// M = D⁻¹ V Λ Vᵀ D⁻¹ with D M D of diagonal one, so that units do not matter. Directions with an eigenvalue below
/// kFreeDirection are free. A linear function c of the parameters has the variance
///
///     cᵀM⁻¹c = Σ a²/λ,   a = Vᵀ D c                                                                              (1)
///
/// summed over the directions that are not free. It is not determined when a free direction changes it by more than
/// its error from all others:
///
///     Σ_free a²/kFreeDirection > Σ_others a²/λ                                                                   (2)
class Information {
 public:
  /// @param matrix  symmetric, positive semidefinite
  explicit Information(const Eigen::MatrixXd& matrix);

  /// False when the matrix has an entry that is not finite: then nothing is determined.
  bool finite() const { return finite_; }
  Eigen::Index size() const { return scale_.size(); }
  /// D V of the free directions, a column each.
  const Eigen::MatrixXd& free_directions() const { return free_; }
  /// D: the errors that the parameters had if all others were known.
  const Eigen::VectorXd& scale() const { return scale_; }

  /// Square roots of (1); NaN by (2). @param functions  a linear function in every row
  Eigen::VectorXd deviations(const Eigen::MatrixXd& functions, ThreadPool& pool) const;
  /// (1) of all pairs of functions, whether determined or not.
  Eigen::MatrixXd covariance(const Eigen::MatrixXd& functions) const;

 private:
  bool finite_ = true;
  Eigen::VectorXd scale_;
  Eigen::MatrixXd root_, free_;       ///< D V Λ^(−1/2) of the others, D V of the free ones
  Panels root_panels_, free_panels_;  ///< their transposes
};

/// Free directions as combinations with as few parameters as possible: rows of the reduced echelon form, each scaled to
/// 1 at its pivot.
/// @param rows     a direction each; those with a pivot come first afterwards
/// @param columns  pivots are sought in the columns before this one
/// @param least    smallest entry that counts
/// @return         the pivots of the first rows
std::vector<std::size_t> reduce_rows(std::vector<std::vector<double>>& rows, std::size_t columns, double least);

}  // namespace einfield
