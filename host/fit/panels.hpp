// Matrices cut into the square blocks that subtract_product() multiplies: for products that are worth the copy.
#pragma once

#include <algorithm>
#include <Eigen/Core>
#include <vector>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/block_product.hpp"

namespace einfield {

/// A copy of a matrix in blocks of side kBlockSide, filled up with zeros.
class Panels {
 public:
  Panels(Eigen::Index rows, Eigen::Index columns)
      : block_rows_(blocks(rows)),
        block_columns_(blocks(columns)),
        values_(static_cast<std::size_t>(block_rows_) * static_cast<std::size_t>(block_columns_) * kBlock, 0.0) {}

  static int blocks(Eigen::Index n) { return static_cast<int>((n + kBlockSide - 1) / kBlockSide); }
  int block_rows() const { return block_rows_; }
  int block_columns() const { return block_columns_; }
  /// Block (i, k), column after column.
  double* block(int i, int k) {
    return values_.data() +
           (static_cast<std::size_t>(i) * static_cast<std::size_t>(block_columns_) + static_cast<std::size_t>(k)) *
               kBlock;
  }
  const double* block(int i, int k) const { return const_cast<Panels*>(this)->block(i, k); }

  /// Copies block row i of a matrix of this size.
  template <class Matrix>
  void fill(const Matrix& m, int i) {
    const Eigen::Index begin = Eigen::Index(i) * kBlockSide,
                       rows = std::min<Eigen::Index>(kBlockSide, m.rows() - begin);
    for (int k = 0; k < block_columns_; ++k) {
      const Eigen::Index first = Eigen::Index(k) * kBlockSide,
                         columns = std::min<Eigen::Index>(kBlockSide, m.cols() - first);
      Eigen::Map<Eigen::MatrixXd> to(block(i, k), kBlockSide, kBlockSide);
      if (rows < kBlockSide || columns < kBlockSide) to.setZero();
      to.topLeftCorner(rows, columns) = m.block(begin, first, rows, columns);
    }
  }

 private:
  static constexpr std::size_t kBlock = std::size_t(kBlockSide) * kBlockSide;
  int block_rows_, block_columns_;
  std::vector<double> values_;
};

}  // namespace einfield
