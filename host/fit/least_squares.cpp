// Matrices that own their numbers, around the loops of einfield/least_squares.hpp.
#include "host/fit/least_squares.hpp"

#include <cmath>
#include <limits>
#include <utility>

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

SymmetricEigen symmetric_eigen(SymmetricMatrix m) {
  constexpr int kMostSweeps = 60;  // it converges quadratically: a dozen are enough
  const std::size_t n = m.n;
  SymmetricEigen result{std::vector<double>(n), SymmetricMatrix(n)};
  SymmetricMatrix& v = result.vectors;
  for (std::size_t i = 0; i < n; ++i) v(i, i) = 1;
  bool turned = true;
  for (int sweep = 0; sweep < kMostSweeps && turned; ++sweep) {
    turned = false;
    for (std::size_t p = 0; p + 1 < n; ++p)
      for (std::size_t q = p + 1; q < n; ++q) {
        const double off = m(p, q), size = std::sqrt(std::abs(m(p, p) * m(q, q)));
        if (off == 0 || std::abs(off) <= std::numeric_limits<double>::epsilon() * size) continue;
        turned = true;
        const double theta = (m(q, q) - m(p, p)) / (2 * off);
        const double t = std::copysign(1 / (std::abs(theta) + std::hypot(1, theta)), theta);
        const double c = 1 / std::hypot(1, t), s = t * c;
        for (std::size_t k = 0; k < n; ++k) {
          const double a = m(k, p), b = m(k, q);
          m(k, p) = c * a - s * b;
          m(k, q) = s * a + c * b;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const double a = m(p, k), b = m(q, k);
          m(p, k) = c * a - s * b;
          m(q, k) = s * a + c * b;
          const double x = v(p, k), y = v(q, k);
          v(p, k) = c * x - s * y;
          v(q, k) = s * x + c * y;
        }
      }
  }
  for (std::size_t i = 0; i < n; ++i) result.values[i] = m(i, i);
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
