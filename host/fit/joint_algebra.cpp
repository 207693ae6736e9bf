#include "host/fit/joint_algebra.hpp"

#include <algorithm>
#include <utility>

#include "host/fit/gram.hpp"

namespace einfield {
namespace {

Eigen::Index index(std::size_t n) {
  return static_cast<Eigen::Index>(n);
}

class CpuSourceBlock final : public SourceBlock {
 public:
  CpuSourceBlock(Eigen::MatrixXd source, const RowMatrix& mixed, const Eigen::MatrixXd& rest, ThreadPool& pool)
      : source_(std::move(source), pool), schur_(rest) {
    if (!source_.good() || source_.size() == 0) return;
    reduced_ = mixed;
    source_.solve_lower(reduced_, pool);
    schur_ -= gram(reduced_, pool);
  }

  bool good() const override { return source_.good(); }
  double log_determinant() const override { return source_.log_determinant(); }
  const Eigen::MatrixXd& schur() const override { return schur_; }
  void forward(Eigen::MatrixXd& source, Eigen::MatrixXd& rest, ThreadPool& pool) const override {
    source_.solve_lower(source, pool);
    if (reduced_.size() > 0) rest -= reduced_.transpose() * source;
  }
  void backward(Eigen::MatrixXd& source, const Eigen::MatrixXd& rest, ThreadPool& pool) const override {
    if (reduced_.size() > 0) source -= reduced_ * rest;
    source_.solve_upper(source, pool);
  }

 private:
  BlockCholesky source_;     ///< L
  Eigen::MatrixXd reduced_;  ///< X
  Eigen::MatrixXd schur_;
};

}  // namespace

NormalEquations::NormalEquations(const Linearization& l, std::size_t n_pixels)
    : source_gradient(Eigen::VectorXd::Zero(index(n_pixels))), rest_gradient(l.rest.transpose() * l.residual) {
  if (l.whitened_source.size() > 0) {
    source_gradient = l.whitened_source.transpose() * l.residual;
    return;
  }
  const SparseRows& a = l.source;
  for (std::size_t row = 0; row + 1 < a.first.size(); ++row)
    for (std::size_t k = a.first[row]; k < a.first[row + 1]; ++k)
      source_gradient[a.column[k]] += a.value[k] * l.residual[index(row)];
}

DataNormal::DataNormal(const Linearization& l, std::size_t n_pixels, ThreadPool& pool)
    : NormalEquations(l, n_pixels), pool_(pool) {
  const Eigen::Index n = index(n_pixels), n_rest = l.rest.cols();
  if (l.whitened_source.size() > 0) {
    RowMatrix all(l.rest.rows(), n + n_rest);
    all << l.whitened_source, l.rest;
    const Eigen::MatrixXd products = gram(all, pool);
    source_ = products.topLeftCorner(n, n);
    mixed_ = products.topRightCorner(n, n_rest);
    rest_ = products.bottomRightCorner(n_rest, n_rest);
    return;
  }
  source_ = Eigen::MatrixXd::Zero(n, n);
  mixed_ = RowMatrix::Zero(n, n_rest);
  rest_ = gram(l.rest, pool);
  const SparseRows& a = l.source;
  const std::size_t n_rows = a.first.size() - 1;
  // A stripe of columns of the lower half by each thread: the pairs of every row of A that fall into it.
  constexpr int kStripe = 64;
  pool.parallel_for(static_cast<int>((n + kStripe - 1) / kStripe), [&](int stripe, int) {
    const int begin = stripe * kStripe, end = begin + kStripe;
    for (std::size_t row = 0; row < n_rows; ++row) {
      const auto first = a.column.begin() + static_cast<std::ptrdiff_t>(a.first[row]),
                 last = a.column.begin() + static_cast<std::ptrdiff_t>(a.first[row + 1]);
      for (auto j = std::lower_bound(first, last, begin); j != last && *j < end; ++j) {
        const double value = a.value[static_cast<std::size_t>(j - a.column.begin())];
        double* const column = source_.data() + index(static_cast<std::size_t>(*j)) * n;
        for (auto i = j; i != last; ++i) column[*i] += value * a.value[static_cast<std::size_t>(i - a.column.begin())];
        mixed_.row(*j) += value * l.rest.row(index(row));
      }
    }
  });
}

std::unique_ptr<SourceBlock> DataNormal::eliminate(const SourcePrior::Sparse& prior) const {
  Eigen::MatrixXd source = source_;
  for (int j = 0; j < prior.outerSize(); ++j)
    for (SourcePrior::Sparse::InnerIterator entry(prior, j); entry; ++entry)
      if (entry.row() >= entry.col()) source(entry.row(), entry.col()) += entry.value();
  return std::make_unique<CpuSourceBlock>(std::move(source), mixed_, rest_, pool_);
}

}  // namespace einfield
