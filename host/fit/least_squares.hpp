// Small dense least squares on the normal equations: Cholesky, and the bounded problem by an active set (Lawson &
// Hanson 1974, chapter 23; Stark & Parker 1995).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace einfield {

/// A symmetric matrix, both halves stored, row-major.
struct SymmetricMatrix {
  std::size_t n = 0;
  std::vector<double> values;

  explicit SymmetricMatrix(std::size_t size = 0) : n(size), values(size * size, 0.0) {}
  double& operator()(std::size_t i, std::size_t j) { return values[i * n + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values[i * n + j]; }
  /// The submatrix of the rows and columns in `indices`.
  SymmetricMatrix part(const std::vector<std::size_t>& indices) const;
};

/// M = LLᵀ of the matrix scaled to a diagonal of one, so that units do not matter.
class Cholesky {
 public:
  /// Smallest pivot of the scaled matrix that counts as positive. A column whose squared distance from the span of the
  /// others is smaller depends on them, to the precision of the normal equations.
  static constexpr double kSmallestPivot = 1e-13;

  explicit Cholesky(const SymmetricMatrix& matrix);
  /// False when a pivot is too small or not a number; failed() is then its index.
  bool good() const { return failed_ == n_; }
  std::size_t failed() const { return failed_; }
  /// M⁻¹ b. @pre good()
  std::vector<double> solve(const std::vector<double>& b) const;
  /// M⁻¹. @pre good()
  SymmetricMatrix inverse() const;

 private:
  std::size_t n_, failed_;
  std::vector<double> scale_, lower_;
};

/// The minimum of ½ cᵀNc − bᵀc with lower ≤ c ≤ upper.
struct BoundedSolution {
  std::vector<double> values;
  std::vector<std::uint8_t> free;  ///< 1 = not at a bound
};

/// Active-set method: variables that the gradient pushes away from their bound are freed one at a time; a free variable
/// that leaves its interval on the way to the minimum is fixed at the bound. A variable without a finite bound is free
/// from the beginning. A variable whose column depends on those of the free ones keeps its value.
/// @param lower, upper  may be infinite; lower < upper
BoundedSolution bounded_least_squares(const SymmetricMatrix& n, const std::vector<double>& b,
                                      const std::vector<double>& lower, const std::vector<double>& upper);

}  // namespace einfield
