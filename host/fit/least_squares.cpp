// Matrices that own their numbers, around the loops of einfield/least_squares.hpp.
#include "host/fit/least_squares.hpp"

#include <Eigen/Eigenvalues>

#include "einfield/least_squares.hpp"

namespace einfield {

SymmetricMatrix SymmetricMatrix::part(const std::vector<std::size_t>& indices) const {
  SymmetricMatrix result(indices.size());
  for (std::size_t i = 0; i < indices.size(); ++i)
    for (std::size_t j = 0; j < indices.size(); ++j) result(i, j) = (*this)(indices[i], indices[j]);
  return result;
}

Cholesky::Cholesky(const SymmetricMatrix& matrix)
    : n_(matrix.n), failed_(matrix.n), scale_(matrix.n), lower_(matrix.n * matrix.n) {
  const int n = static_cast<int>(n_);
  failed_ =
      static_cast<std::size_t>(cholesky_factor(matrix.values.data(), n, nullptr, n, scale_.data(), lower_.data()));
}

std::vector<double> Cholesky::solve(const std::vector<double>& b) const {
  std::vector<double> x(n_);
  cholesky_solve(scale_.data(), lower_.data(), static_cast<int>(n_), b.data(), x.data());
  return x;
}

SymmetricMatrix Cholesky::inverse() const {
  SymmetricMatrix result(n_);
  std::vector<double> unit(n_, 0.0);
  for (std::size_t j = 0; j < n_; ++j) {
    unit[j] = 1;
    const std::vector<double> column = solve(unit);
    unit[j] = 0;
    for (std::size_t i = 0; i <= j; ++i) result(i, j) = result(j, i) = column[i];
  }
  return result;
}

SymmetricEigen symmetric_eigen(const SymmetricMatrix& m) {
  const auto n = static_cast<Eigen::Index>(m.n);
  SymmetricEigen result{std::vector<double>(m.n), SymmetricMatrix(m.n)};
  if (n == 0) return result;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(Eigen::Map<const Eigen::MatrixXd>(m.values.data(), n, n));
  Eigen::Map<Eigen::VectorXd>(result.values.data(), n) = solver.eigenvalues();
  Eigen::Map<Eigen::MatrixXd>(result.vectors.values.data(), n, n) = solver.eigenvectors();
  return result;
}

BoundedSolution bounded_least_squares(const SymmetricMatrix& n, const std::vector<double>& b,
                                      const std::vector<double>& lower, const std::vector<double>& upper) {
  const int size = static_cast<int>(n.n);
  BoundedSolution x{std::vector<double>(n.n), std::vector<std::uint8_t>(n.n)};
  std::vector<double> numbers(static_cast<std::size_t>(BoundedProblem::numbers_for(size)));
  std::vector<int> indices(n.n);
  std::vector<std::uint8_t> barred(n.n);
  bounded_least_squares({size, n.values.data(), b.data(), lower.data(), upper.data(), x.values.data(), x.free.data(),
                         numbers.data(), indices.data(), barred.data()});
  return x;
}

}  // namespace einfield
