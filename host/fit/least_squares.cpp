// A few dozen unknowns at most: plain loops in a fixed order.
#include "host/fit/least_squares.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace einfield {

SymmetricMatrix SymmetricMatrix::part(const std::vector<std::size_t>& indices) const {
  SymmetricMatrix result(indices.size());
  for (std::size_t i = 0; i < indices.size(); ++i)
    for (std::size_t j = 0; j < indices.size(); ++j) result(i, j) = (*this)(indices[i], indices[j]);
  return result;
}

Cholesky::Cholesky(const SymmetricMatrix& matrix)
    : n_(matrix.n), failed_(matrix.n), scale_(matrix.n), lower_(matrix.n * matrix.n) {
  for (std::size_t i = 0; i < n_; ++i) {
    const double diagonal = matrix(i, i);
    if (!(diagonal > 0) || !std::isfinite(diagonal)) {
      failed_ = i;
      return;
    }
    scale_[i] = 1 / std::sqrt(diagonal);
  }
  for (std::size_t i = 0; i < n_; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = i == j ? 1 : matrix(i, j) * scale_[i] * scale_[j];
      for (std::size_t k = 0; k < j; ++k) sum -= lower_[i * n_ + k] * lower_[j * n_ + k];
      if (i == j && !(sum > kSmallestPivot)) {
        failed_ = i;
        return;
      }
      lower_[i * n_ + j] = i == j ? std::sqrt(sum) : sum / lower_[j * n_ + j];
    }
}

std::vector<double> Cholesky::solve(const std::vector<double>& b) const {
  std::vector<double> x(n_);
  for (std::size_t i = 0; i < n_; ++i) {
    double sum = b[i] * scale_[i];
    for (std::size_t k = 0; k < i; ++k) sum -= lower_[i * n_ + k] * x[k];
    x[i] = sum / lower_[i * n_ + i];
  }
  for (std::size_t i = n_; i-- > 0;) {
    double sum = x[i];
    for (std::size_t k = i + 1; k < n_; ++k) sum -= lower_[k * n_ + i] * x[k];
    x[i] = sum / lower_[i * n_ + i];
  }
  for (std::size_t i = 0; i < n_; ++i) x[i] *= scale_[i];
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

BoundedSolution bounded_least_squares(const SymmetricMatrix& n, const std::vector<double>& b,
                                      const std::vector<double>& lower, const std::vector<double>& upper) {
  constexpr double kTolerance = 1e-12;  // of a gradient, relative to the terms that it is the sum of
  const std::size_t size = n.n;
  BoundedSolution x{std::vector<double>(size, 0.0), std::vector<std::uint8_t>(size, false)};
  std::vector<std::uint8_t> barred(size, false);  // 1 = its column depends on those of the free variables
  for (std::size_t i = 0; i < size; ++i) {
    if (std::isfinite(lower[i]) && (std::abs(lower[i]) <= std::abs(upper[i]) || !std::isfinite(upper[i])))
      x.values[i] = lower[i];
    else if (std::isfinite(upper[i]))
      x.values[i] = upper[i];
  }

  // Moves the free variables to their minimum; one that meets a bound on the way is fixed there.
  const auto minimize_free = [&](std::size_t newest) {
    for (std::size_t round = 0; round <= size; ++round) {
      std::vector<std::size_t> indices;
      for (std::size_t i = 0; i < size; ++i)
        if (x.free[i]) indices.push_back(i);
      if (indices.empty()) return true;
      std::vector<double> right;
      for (const std::size_t i : indices) {
        double sum = b[i];
        for (std::size_t j = 0; j < size; ++j)
          if (!x.free[j]) sum -= n(i, j) * x.values[j];
        right.push_back(sum);
      }
      const Cholesky cholesky(n.part(indices));
      if (!cholesky.good()) {
        // In the first round nothing has moved yet: the newest variable is the one that depends on the others.
        const std::size_t out = newest < size ? newest : indices[cholesky.failed()];
        x.free[out] = false;
        barred[out] = true;
        if (newest < size) return false;
        continue;
      }
      const std::vector<double> target = cholesky.solve(right);
      double step = 1;
      std::size_t first = size;
      for (std::size_t k = 0; k < indices.size(); ++k) {
        const std::size_t i = indices[k];
        const double bound = std::clamp(target[k], lower[i], upper[i]);
        if (bound == target[k]) continue;
        const double share = (bound - x.values[i]) / (target[k] - x.values[i]);
        if (first == size || share < step) {
          step = std::max(share, 0.0);
          first = i;
        }
      }
      for (std::size_t k = 0; k < indices.size(); ++k) {
        const std::size_t i = indices[k];
        const double moved = first == size ? target[k] : x.values[i] + step * (target[k] - x.values[i]);
        if (i == first) {
          x.values[i] = target[k] < lower[i] ? lower[i] : upper[i];
          x.free[i] = false;
        } else {
          x.values[i] = moved;
        }
      }
      if (first == size) return true;
      if (first == newest && step == 0) return false;  // only rounding had pushed it away from its bound
      newest = size;
    }
    return true;
  };

  for (std::size_t i = 0; i < size; ++i) x.free[i] = !std::isfinite(lower[i]) && !std::isfinite(upper[i]);
  minimize_free(size);
  for (std::size_t round = 0; round < 10 * size + 10; ++round) {
    std::size_t best = size;
    double largest = 0;
    for (std::size_t i = 0; i < size; ++i) {
      if (x.free[i] || barred[i] || !(n(i, i) > 0)) continue;
      double gradient = b[i], terms = std::abs(b[i]);
      for (std::size_t j = 0; j < size; ++j) {
        gradient -= n(i, j) * x.values[j];
        terms += std::abs(n(i, j) * x.values[j]);
      }
      const bool inward = x.values[i] == lower[i] ? gradient > 0 : gradient < 0;
      const double pull = std::abs(gradient) / std::sqrt(n(i, i));
      if (!inward || std::abs(gradient) <= kTolerance * terms || pull <= largest) continue;
      largest = pull;
      best = i;
    }
    if (best == size) break;
    x.free[best] = true;
    if (minimize_free(best))
      std::fill(barred.begin(), barred.end(), false);
    else
      barred[best] = true;
  }
  return x;
}

}  // namespace einfield
