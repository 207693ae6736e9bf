#include "host/fit/block_cholesky.hpp"

#include <algorithm>
#include <Eigen/Cholesky>
#include <utility>

#include "host/fit/block_product.hpp"

namespace einfield {
namespace {

constexpr Eigen::Index kBlock = kBlockSide;
constexpr int kRightSides = 16;  ///< that one thread solves for at a time

template <class Solve>
void for_right_sides(Eigen::MatrixXd& x, ThreadPool& pool, Solve&& solve) {
  const int n = static_cast<int>(x.cols());
  pool.parallel_for((n + kRightSides - 1) / kRightSides, [&](int block, int) {
    const int begin = block * kRightSides;
    solve(x.middleCols(begin, std::min(kRightSides, n - begin)));
  });
}

}  // namespace

BlockCholesky::BlockCholesky(Eigen::MatrixXd matrix, ThreadPool& pool) : factor_(std::move(matrix)) {
  find_envelope();
  good_ = factorize(pool);
}

Eigen::Index BlockCholesky::begin(int i) const {
  return i * kBlock;
}

Eigen::Index BlockCholesky::count(int i) const {
  return std::min(kBlock, factor_.rows() - begin(i));
}

void BlockCholesky::find_envelope() {
  first_.resize(static_cast<std::size_t>((factor_.rows() + kBlock - 1) / kBlock));
  for (int i = 0; i < blocks(); ++i) {
    int j = 0;
    while (j < i && (factor_.block(begin(i), begin(j), count(i), count(j)).array() == 0).all()) ++j;
    first_[static_cast<std::size_t>(i)] = j;
  }
}

bool BlockCholesky::factorize(ThreadPool& pool) {
  std::vector<int> rows;       // below the diagonal, inside the envelope
  std::vector<double> packed;  // L_ik of these rows, filled up with zeros
  const auto stride = static_cast<std::size_t>(factor_.rows());
  constexpr std::size_t kPanel = kBlockSide * kBlockSide;
  for (int k = 0; k < blocks(); ++k) {
    auto diagonal = factor_.block(begin(k), begin(k), count(k), count(k));
    const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> factor(diagonal);
    if (factor.info() != Eigen::Success || !(diagonal.diagonal().minCoeff() > 0)) return false;  // also for NaN
    rows.clear();
    for (int i = k + 1; i < blocks(); ++i)
      if (first_[static_cast<std::size_t>(i)] <= k) rows.push_back(i);
    const int n = static_cast<int>(rows.size());
    packed.resize(std::max(packed.size(), kPanel * rows.size()));
    const auto panel = [&](int r) { return packed.data() + kPanel * static_cast<std::size_t>(r); };
    pool.parallel_for(n, [&](int r, int) {  // L_ik = A_ik L_kkᵀ⁻¹
      const int i = rows[static_cast<std::size_t>(r)];
      auto block = factor_.block(begin(i), begin(k), count(i), count(k));
      diagonal.triangularView<Eigen::Lower>().transpose().solveInPlace<Eigen::OnTheRight>(block);
      Eigen::Map<Eigen::MatrixXd> copy(panel(r), kBlock, kBlock);
      copy.setZero();
      copy.topLeftCorner(count(i), count(k)) = block;
    });
    pool.parallel_for(n, [&](int column, int) {  // A_ij −= L_ik L_jkᵀ
      const int j = rows[static_cast<std::size_t>(column)];
      for (int row = column; row < n; ++row) {
        const int i = rows[static_cast<std::size_t>(row)];
        if (count(i) == kBlock && count(j) == kBlock) {
          subtract_product(panel(row), panel(column), &factor_(begin(i), begin(j)), stride);
        } else {
          Eigen::MatrixXd whole = Eigen::MatrixXd::Zero(kBlock, kBlock);
          subtract_product(panel(row), panel(column), whole.data(), kBlockSide);
          factor_.block(begin(i), begin(j), count(i), count(j)) += whole.topLeftCorner(count(i), count(j));
        }
      }
    });
  }
  return true;
}

void BlockCholesky::solve_lower(Eigen::MatrixXd& x, ThreadPool& pool) const {
  for_right_sides(x, pool, [&](auto columns) {
    for (int i = 0; i < blocks(); ++i) {
      auto rows = columns.middleRows(begin(i), count(i));
      const Eigen::Index left = begin(first_[static_cast<std::size_t>(i)]), width = begin(i) - left;
      rows.noalias() -= factor_.block(begin(i), left, count(i), width) * columns.middleRows(left, width);
      factor_.block(begin(i), begin(i), count(i), count(i)).triangularView<Eigen::Lower>().solveInPlace(rows);
    }
  });
}

void BlockCholesky::solve_upper(Eigen::MatrixXd& x, ThreadPool& pool) const {
  for_right_sides(x, pool, [&](auto columns) {
    for (int i = blocks(); i-- > 0;) {
      auto rows = columns.middleRows(begin(i), count(i));
      factor_.block(begin(i), begin(i), count(i), count(i))
          .triangularView<Eigen::Lower>()
          .transpose()
          .solveInPlace(rows);
      const Eigen::Index left = begin(first_[static_cast<std::size_t>(i)]), width = begin(i) - left;
      columns.middleRows(left, width).noalias() -= factor_.block(begin(i), left, count(i), width).transpose() * rows;
    }
  });
}

}  // namespace einfield
