// Products of a Jacobian whose left part is sparse, and the elimination of what that part belongs to, on a CUDA device
// in double precision. Behind a header that needs no CUDA; host/fit/ prepares what it takes and decides on what it
// gives.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace einfield::cuda {

/// An upper limit of what a JointBlock holds.
struct JointSizes {
  std::size_t data = 0;     ///< rows of J = (A B)
  std::size_t pixels = 0;   ///< columns of A
  std::size_t rest = 0;     ///< columns of B
  std::size_t entries = 0;  ///< of A
  std::size_t size() const { return pixels + rest; }
};

/// A sparse matrix in rows, sorted within each.
struct JointRows {
  const std::vector<std::size_t>& first;  ///< of every row, and the end
  const std::vector<int>& column;
  const std::vector<double>& value;
};

/// Entries (row, column, value) with row ≥ column, each place once.
struct JointEntries {
  std::vector<int> row, column;
  std::vector<double> value;
};

/// The lower half of
///
///     M = (AᵀA + P  AᵀB; BᵀA  BᵀB) = (L 0; Xᵀ 1) (1 0; 0 S) (Lᵀ X; 0 1)                                          (1)
///
/// in device memory, with the factor in its place: a Cholesky factorization that stops when the pixels are eliminated
/// has L and Xᵀ in their columns and the Schur complement S = BᵀB − XᵀX behind them.
class JointBlock {
 public:
  /// @throws CudaError when the device lacks memory
  JointBlock(int device, const JointSizes& sizes);
  ~JointBlock();
  JointBlock(JointBlock&&) noexcept;
  JointBlock& operator=(JointBlock&&) noexcept;

  /// Device memory of a JointBlock.
  static std::size_t planned_bytes(const JointSizes& sizes);

  /// (1). Without pixels A has no rows.
  /// @param b       B, row after row
  /// @param n_data  rows of B
  /// @param prior   P
  /// @return        whether AᵀA + P is positive definite
  /// @throws InvalidInput for more than the sizes
  bool eliminate(const JointRows& a, const double* b, std::size_t n_data, const JointEntries& prior);
  /// After eliminate(): ln det (AᵀA + P), and S, (rest, rest), its lower half.
  double log_determinant() const;
  std::vector<double> schur() const;
  /// y ← (L 0; Xᵀ 1)⁻¹ y of `columns` vectors of size() numbers, one after the other.
  void forward(double* y, int columns) const;
  /// The pixels' part of y ← L⁻ᵀ (y − X x), for the rest's part x of y, which stays.
  void backward(double* y, int columns) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace einfield::cuda
