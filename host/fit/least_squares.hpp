// Small dense least squares on the normal equations, with matrices that own their numbers: Cholesky and the bounded
// problem of einfield/least_squares.hpp.
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

/// M = V Λ Vᵀ of a symmetric matrix.
struct SymmetricEigen {
  std::vector<double> values;
  SymmetricMatrix vectors;  ///< row k is the unit vector of values[k]; not symmetric
};

/// Eigenvalues are accurate to about 1e-15 of the largest one; they rise.
SymmetricEigen symmetric_eigen(const SymmetricMatrix& matrix);

/// The minimum of ½ cᵀNc − bᵀc with lower ≤ c ≤ upper.
struct BoundedSolution {
  std::vector<double> values;
  std::vector<std::uint8_t> free;  ///< 1 = not at a bound
};

/// The active-set method of einfield/least_squares.hpp.
/// @param lower, upper  may be infinite; lower < upper
BoundedSolution bounded_least_squares(const SymmetricMatrix& n, const std::vector<double>& b,
                                      const std::vector<double>& lower, const std::vector<double>& upper);

}  // namespace einfield
