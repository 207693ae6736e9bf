#include "host/fit/source_prior.hpp"

#include <cmath>
#include <Eigen/SparseCholesky>

#include "einfield/error.hpp"

namespace einfield {
namespace {

using Triplets = std::vector<Eigen::Triplet<double>>;

/// Adds w dᵀd of one difference d, given by its pixels; those outside the grid are 0.
void add_difference(Triplets& to, const std::vector<std::pair<int, double>>& difference, double w) {
  for (const auto& [i, a] : difference)
    for (const auto& [j, b] : difference)
      if (i >= 0 && j >= 0) to.emplace_back(i, j, w * a * b);
}

}  // namespace

SourcePrior::SourcePrior(const std::vector<FreePixels>& grids, double n_data) {
  Triplets gradient, curvature;
  for (const FreePixels& grid : grids) {
    const int offset = static_cast<int>(size_), nx = grid.nx, ny = grid.ny;
    const double w = n_data / (nx * ny);
    const auto at = [&](int x, int y) { return x < 0 || y < 0 || x >= nx || y >= ny ? -1 : offset + y * nx + x; };
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x) {
        const int s = at(x, y);
        add_difference(gradient, {{s, -1.0}, {at(x + 1, y), 1.0}}, w);
        add_difference(gradient, {{s, -1.0}, {at(x, y + 1), 1.0}}, w);
        if (x == 0) add_difference(gradient, {{s, 1.0}}, w);
        if (y == 0) add_difference(gradient, {{s, 1.0}}, w);
        add_difference(curvature, {{at(x - 1, y), 1.0}, {s, -2.0}, {at(x + 1, y), 1.0}}, w);
        add_difference(curvature, {{at(x, y - 1), 1.0}, {s, -2.0}, {at(x, y + 1), 1.0}}, w);
      }
    size_ += static_cast<std::size_t>(nx) * static_cast<std::size_t>(ny);
  }
  const auto n = static_cast<Eigen::Index>(size_);
  for (Sparse& matrix : matrices_) matrix.resize(n, n);
  matrices_[0].setFromTriplets(gradient.begin(), gradient.end());
  matrices_[1].setFromTriplets(curvature.begin(), curvature.end());
}

SourcePrior::Sparse SourcePrior::precision(const Regularization& weights) const {
  return weights.*kTerms[0] * matrices_[0] + weights.*kTerms[1] * matrices_[1];
}

Eigen::MatrixXd SourcePrior::solve(const Regularization& weights, const Eigen::MatrixXd& b) const {
  return Eigen::SimplicialLDLT<Sparse>(precision(weights)).solve(b);
}

double SourcePrior::log_determinant(const Regularization& weights) const {
  if (size_ == 0) return 0;
  const Eigen::SimplicialLDLT<Sparse> factor(precision(weights));
  EINFIELD_REQUIRE(factor.info() == Eigen::Success, "the prior of the source pixels is not positive definite");
  return factor.vectorD().array().log().sum();
}

}  // namespace einfield
