#include "host/fit/source_prior.hpp"

#include <algorithm>
#include <cmath>
#include <Eigen/SparseCholesky>
#include <string>
#include <utility>

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

/// Smooths an image (ny, nx) along x and y; 0 outside.
Eigen::ArrayXXd smoothed(const Eigen::ArrayXXd& image, double sigma) {
  const auto reach = static_cast<Eigen::Index>(std::ceil(4 * sigma));
  Eigen::ArrayXd kernel(2 * reach + 1);
  for (Eigen::Index i = 0; i < kernel.size(); ++i) {
    const double x = static_cast<double>(i - reach) / sigma;
    kernel[i] = std::exp(-0.5 * x * x);
  }
  kernel /= kernel.sum();
  Eigen::ArrayXXd result = image;
  for (int pass = 0; pass < 2; ++pass) {  // along the rows, then transposed
    const Eigen::ArrayXXd from = result;
    result.setZero();
    for (Eigen::Index i = 0; i < from.cols(); ++i)
      for (Eigen::Index j = std::max<Eigen::Index>(0, i - reach); j <= std::min(from.cols() - 1, i + reach); ++j)
        result.col(i) += kernel[j - i + reach] * from.col(j);
    result = result.transpose().eval();
  }
  return result;
}

}  // namespace

SourcePrior::SourcePrior(std::vector<FreePixels> grids, double n_data, std::vector<double> variance)
    : grids_(std::move(grids)), n_data_(n_data), variance_(std::move(variance)) {
  for (const FreePixels& grid : grids_) size_ += static_cast<std::size_t>(grid.nx) * static_cast<std::size_t>(grid.ny);
  EINFIELD_REQUIRE(
      variance_.empty() || variance_.size() == size_,
      "source_variance has " + std::to_string(variance_.size()) + " values, expected " + std::to_string(size_));
  build();
}

void SourcePrior::set_variance(std::vector<double> variance) {
  variance_ = std::move(variance);
  build();
}

void SourcePrior::build() {
  Triplets gradient, curvature;
  int offset = 0;
  for (const FreePixels& grid : grids_) {
    const int nx = grid.nx, ny = grid.ny;
    const auto at = [&](int x, int y) { return x < 0 || y < 0 || x >= nx || y >= ny ? -1 : offset + y * nx + x; };
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x) {
        const int s = at(x, y);
        const double w = n_data_ / (nx * ny) / (variance_.empty() ? 1 : variance_[static_cast<std::size_t>(s)]);
        add_difference(gradient, {{s, -1.0}, {at(x + 1, y), 1.0}}, w);
        add_difference(gradient, {{s, -1.0}, {at(x, y + 1), 1.0}}, w);
        if (x == 0) add_difference(gradient, {{s, 1.0}}, w);
        if (y == 0) add_difference(gradient, {{s, 1.0}}, w);
        add_difference(curvature, {{at(x - 1, y), 1.0}, {s, -2.0}, {at(x + 1, y), 1.0}}, w);
        add_difference(curvature, {{at(x, y - 1), 1.0}, {s, -2.0}, {at(x, y + 1), 1.0}}, w);
      }
    offset += nx * ny;
  }
  const auto n = static_cast<Eigen::Index>(size_);
  for (Sparse& matrix : matrices_) matrix.resize(n, n);
  matrices_[0].setFromTriplets(gradient.begin(), gradient.end());
  matrices_[1].setFromTriplets(curvature.begin(), curvature.end());
}

std::vector<double> SourcePrior::variance_of(const Eigen::VectorXd& s, double contrast) const {
  std::vector<double> variance;
  Eigen::Index offset = 0;
  const double floor = 1 / (contrast * contrast);
  for (const FreePixels& grid : grids_) {
    const Eigen::Index size = static_cast<Eigen::Index>(grid.nx) * grid.ny;
    const Eigen::Map<const Eigen::ArrayXXd> pixels(s.data() + offset, grid.nx, grid.ny);
    const Eigen::ArrayXXd b2 = smoothed(pixels.square(), std::max(grid.nx, grid.ny) / 20.0);
    const double most = b2.maxCoeff();
    for (const double b : b2.reshaped()) variance.push_back(most > 0 ? (b / most + floor) / (1 + floor) : 1.0);
    offset += size;
  }
  return variance;
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
