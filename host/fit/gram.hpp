// MᵀM on a pool of threads: each block is made by one thread in a fixed order, so the bits do not depend on their
// number.
#pragma once

#include <algorithm>
#include <Eigen/Core>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/panels.hpp"

namespace einfield {

template <class Matrix>
Eigen::MatrixXd gram(const Matrix& m, ThreadPool& pool) {
  constexpr Eigen::Index kSlab = Eigen::Index(32) * kBlockSide;  // rows that are copied at a time
  const Eigen::Index columns = m.cols();
  const int n = Panels::blocks(columns);
  Eigen::MatrixXd sum = Eigen::MatrixXd::Zero(Eigen::Index(n) * kBlockSide, Eigen::Index(n) * kBlockSide);
  const auto stride = static_cast<std::size_t>(sum.rows());
  for (Eigen::Index begin = 0; begin < m.rows(); begin += kSlab) {
    const auto slab = m.middleRows(begin, std::min(kSlab, m.rows() - begin)).transpose();
    Panels panels(columns, slab.cols());
    pool.parallel_for(n, [&](int i, int) { panels.fill(slab, i); });
    pool.parallel_for(n * (n + 1) / 2, [&](int pair, int) {  // −MᵀM, the blocks of the lower half
      int i = 0, j = pair;
      for (; j > i; j -= ++i) continue;
      for (int k = 0; k < panels.block_columns(); ++k)
        subtract_product(panels.block(i, k), panels.block(j, k),
                         &sum(Eigen::Index(i) * kBlockSide, Eigen::Index(j) * kBlockSide), stride);
    });
  }
  Eigen::MatrixXd result = -sum.topLeftCorner(columns, columns);
  result.triangularView<Eigen::StrictlyUpper>() = result.transpose();
  return result;
}

}  // namespace einfield
