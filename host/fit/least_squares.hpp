// Small dense least squares on the normal equations: Cholesky, and the bounded problem by an active set (Lawson &
// Hanson 1974, chapter 23; Stark & Parker 1995).
#pragma once

#include <cstddef>
#include <vector>

namespace einfield {

/// A symmetric matrix, both halves stored, row-major.
struct SymmetricMatrix {
  std::size_t n = 0;
  std::vector<double> values;

  explicit SymmetricMatrix(std::size_t size = 0) : n(size), values(size * size, 0.0) {}
  double& operator()(std::size_t i, std::size_t j) { return values[i * n + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values[i * n + j]; }
  /// Rows and columns of the indices.
  SymmetricMatrix part(const std::vector<std::size_t>& indices) const;
};

/// M = LLᵀ of the matrix scaled to a diagonal of one, so that units do not matter.
class Cholesky {
 public:
  /// Smallest pivot of the scaled matrix that counts as positive: a column nearer to the span of the others than this,
  /// in squares, is one of them to the precision of the normal equations.
  static constexpr double kSmallestPivot = 1e-13;

  explicit Cholesky(const SymmetricMatrix& matrix);
  /// False when a pivot is too small or not a number; `failed()` is its index then.
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
  std::vector<bool> free;  ///< not at a bound
};

/// By an active set: what the gradient pushes off its bound is freed, one at a time, and what leaves the interval on
/// the way to the minimum of the free ones is put back. Without a finite bound a variable is free from the beginning. A
/// column that depends on the free ones stays where it is.
/// @param lower, upper  may be infinite; lower < upper
BoundedSolution bounded_least_squares(const SymmetricMatrix& n, const std::vector<double>& b,
                                      const std::vector<double>& lower, const std::vector<double>& upper);

}  // namespace einfield
