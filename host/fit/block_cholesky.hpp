// Cholesky factors by blocks on a pool of threads. Blocks left of the first entry of their row stay zero and cost
// nothing (the envelope: George & Liu 1981, chapter 4). Each block is made by one thread in a fixed order: bits do not
// depend on the number of threads.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "host/cpu/thread_pool.hpp"

namespace einfield {

class BlockCholesky {
 public:
  BlockCholesky() = default;
  /// M = LLᵀ. @param matrix  symmetric; its upper half is not used
  BlockCholesky(Eigen::MatrixXd matrix, ThreadPool& pool);

  /// Whether M is positive definite.
  bool good() const { return good_; }
  Eigen::Index size() const { return factor_.rows(); }
  /// ln det M = 2 Σ ln L_ii
  double log_determinant() const { return 2 * factor_.diagonal().array().log().sum(); }
  /// X ← L⁻¹ X
  void solve_lower(Eigen::MatrixXd& x, ThreadPool& pool) const;
  /// X ← L⁻ᵀ X
  void solve_upper(Eigen::MatrixXd& x, ThreadPool& pool) const;
  /// X ← M⁻¹ X
  void solve(Eigen::MatrixXd& x, ThreadPool& pool) const {
    solve_lower(x, pool);
    solve_upper(x, pool);
  }
  /// M⁻¹
  Eigen::MatrixXd inverse(ThreadPool& pool) const {
    Eigen::MatrixXd x = Eigen::MatrixXd::Identity(size(), size());
    solve(x, pool);
    return x;
  }

 private:
  void find_envelope();
  bool factorize(ThreadPool& pool);
  int blocks() const { return static_cast<int>(first_.size()); }
  Eigen::Index begin(int i) const;
  Eigen::Index count(int i) const;

  Eigen::MatrixXd factor_;
  std::vector<int> first_;  ///< per block row: the first block column that is not zero
  bool good_ = true;
};

}  // namespace einfield
