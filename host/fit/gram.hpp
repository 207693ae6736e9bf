// MᵀM on a pool of threads: each block of columns is made by one thread, so the bits do not depend on their number.
#pragma once

#include <algorithm>
#include <Eigen/Core>

#include "host/cpu/thread_pool.hpp"

namespace einfield {

template <class Matrix>
Eigen::MatrixXd gram(const Matrix& m, ThreadPool& pool) {
  constexpr int kColumns = 32;  // that one thread makes at a time
  const int n = static_cast<int>(m.cols());
  Eigen::MatrixXd result(n, n);
  pool.parallel_for((n + kColumns - 1) / kColumns, [&](int block, int) {
    const int begin = block * kColumns, count = std::min(kColumns, n - begin);
    result.middleCols(begin, count).noalias() = m.transpose() * m.middleCols(begin, count);
  });
  return result;
}

}  // namespace einfield
