#include "host/fit/information.hpp"

#include <algorithm>
#include <cmath>
#include <Eigen/Eigenvalues>
#include <limits>
#include <utility>

namespace einfield {

namespace {

Panels transposed(const Eigen::MatrixXd& m) {
  Panels panels(m.cols(), m.rows());
  for (int i = 0; i < panels.block_rows(); ++i) panels.fill(m.transpose(), i);
  return panels;
}

/// Adds the squares of every row of A Bᵀ. @param a  block row i of it counts
void add_squares(const Panels& a, int i, const Panels& b, Eigen::VectorXd& sums) {
  Eigen::MatrixXd product(kBlockSide, kBlockSide);
  for (int j = 0; j < b.block_rows(); ++j) {
    product.setZero();
    for (int k = 0; k < a.block_columns(); ++k)
      subtract_product(a.block(i, k), b.block(j, k), product.data(), kBlockSide);
    sums += product.rowwise().squaredNorm();
  }
}

}  // namespace

Information::Information(const Eigen::MatrixXd& matrix)
    : finite_(matrix.allFinite()),
      scale_(Eigen::VectorXd::Ones(matrix.rows())),
      root_panels_(0, 0),
      free_panels_(0, 0) {
  const Eigen::Index n = matrix.rows();
  root_.resize(n, 0);
  free_.resize(n, 0);
  if (n == 0 || !finite_) return;
  // What no row of the matrix mentions has an eigenvalue of 0 at any scale.
  for (Eigen::Index i = 0; i < n; ++i)
    if (matrix(i, i) > 0) scale_[i] = 1 / std::sqrt(matrix(i, i));
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(scale_.asDiagonal() * matrix * scale_.asDiagonal());
  const Eigen::Index n_free = (eigen.eigenvalues().array() < kFreeDirection).count();  // they rise
  free_ = scale_.asDiagonal() * eigen.eigenvectors().leftCols(n_free);
  root_ = scale_.asDiagonal() * eigen.eigenvectors().rightCols(n - n_free) *
          eigen.eigenvalues().tail(n - n_free).cwiseSqrt().cwiseInverse().asDiagonal();
  root_panels_ = transposed(root_);
  free_panels_ = transposed(free_);
}

Eigen::VectorXd Information::deviations(const Eigen::MatrixXd& functions, ThreadPool& pool) const {
  const auto n = static_cast<int>(functions.rows());
  Eigen::VectorXd result = Eigen::VectorXd::Constant(n, std::numeric_limits<double>::quiet_NaN());
  if (!finite_) return result;
  Panels panels(n, functions.cols());
  pool.parallel_for(panels.block_rows(), [&](int block, int) {
    panels.fill(functions, block);
    Eigen::VectorXd others = Eigen::VectorXd::Zero(kBlockSide), free = others;
    add_squares(panels, block, root_panels_, others);
    add_squares(panels, block, free_panels_, free);
    const int begin = block * kBlockSide;
    for (int i = 0; i < std::min(kBlockSide, n - begin); ++i)
      if (!(free[i] / kFreeDirection > others[i])) result[begin + i] = std::sqrt(others[i]);
  });
  return result;
}

Eigen::MatrixXd Information::covariance(const Eigen::MatrixXd& functions) const {
  const Eigen::MatrixXd a = functions * root_;
  return a * a.transpose();
}

std::vector<std::size_t> reduce_rows(std::vector<std::vector<double>>& rows, std::size_t columns, double least) {
  std::vector<std::size_t> pivots;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    // The largest entry of the rows that have no pivot yet.
    std::size_t row = r, column = 0;
    for (std::size_t k = r; k < rows.size(); ++k)
      for (std::size_t i = 0; i < columns; ++i)
        if (std::abs(rows[k][i]) > std::abs(rows[row][column])) {
          row = k;
          column = i;
        }
    std::swap(rows[r], rows[row]);
    if (columns == 0 || !(std::abs(rows[r][column]) >= least)) break;  // the rest moves nothing beyond its error
    pivots.push_back(column);
    const double unit = rows[r][column];
    for (double& v : rows[r]) v /= unit;
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const double factor = rows[k][column];
      for (std::size_t i = 0; k != r && i < rows[k].size(); ++i) rows[k][i] -= factor * rows[r][i];
    }
  }
  return pivots;
}

}  // namespace einfield
