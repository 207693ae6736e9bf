#include "host/cpu/noise_whitening.hpp"

#include <algorithm>
#include <cmath>
#include <Eigen/Cholesky>

#include "einfield/error.hpp"

namespace einfield {
namespace {

constexpr Eigen::Index kRows = 32;     ///< of a block
constexpr Eigen::Index kColumns = 64;  ///< that a thread solves for at once

struct Pixel {
  int x, y;
};

/// The fitted pixels in the order of the image.
std::vector<Pixel> pixels_of(const Grid& grid, const std::vector<std::uint8_t>& fitted) {
  std::vector<Pixel> pixels;
  for (int i = 0; i < grid.n_pixels(); ++i)
    if (fitted[static_cast<std::size_t>(i)]) pixels.push_back({i % grid.nx, i / grid.nx});
  return pixels;
}

/// R of two pixels.
double correlation_of(const NoiseCorrelation& k, Pixel a, Pixel b) {
  return (1 - kIndependentNoise) * k.at(a.x - b.x, a.y - b.y) + (a.x == b.x && a.y == b.y ? kIndependentNoise : 0.0);
}

}  // namespace

NoiseWhitening::NoiseWhitening(const NoiseCorrelation& correlation, const Grid& grid,
                               const std::vector<std::uint8_t>& fitted) {
  const std::vector<Pixel> pixels = pixels_of(grid, fitted);
  const auto n = static_cast<Eigen::Index>(pixels.size());
  const auto at = [&pixels](Eigen::Index i) { return pixels[static_cast<std::size_t>(i)]; };
  Eigen::Index reached = 0;  // the first pixel that the kernel around the first one of the block reaches
  for (Eigen::Index begin = 0; begin < n; begin += kRows) {
    const Eigen::Index m = std::min(kRows, n - begin);
    while (at(reached).y < at(begin).y - correlation.ny / 2) ++reached;
    Block block{reached / kRows * kRows, {}};
    block.rows = RowMatrix::Zero(m, begin + m - block.first);
    for (Eigen::Index i = 0; i < m; ++i)
      for (Eigen::Index j = block.first; j <= begin + i; ++j)
        block.rows(i, j - block.first) = correlation_of(correlation, at(begin + i), at(j));
    // L_IJ = (R_IJ − Σ_K L_IK L_JKᵀ) L_JJ⁻ᵀ, block by block from the left
    for (Eigen::Index column = block.first; column < begin; column += kRows) {
      const Block& other = blocks_[static_cast<std::size_t>(column / kRows)];
      const Eigen::Index from = std::max(block.first, other.first), shared = column - from;
      auto here = block.rows.middleCols(column - block.first, kRows);
      here.noalias() -= block.rows.middleCols(from - block.first, shared) *
                        other.rows.middleCols(from - other.first, shared).transpose();
      other.rows.rightCols(kRows).triangularView<Eigen::Lower>().transpose().solveInPlace<Eigen::OnTheRight>(here);
    }
    const auto left = block.rows.leftCols(begin - block.first);
    const Eigen::MatrixXd rest = block.rows.rightCols(m) - left * left.transpose();
    const Eigen::LLT<Eigen::MatrixXd> factor(rest);
    EINFIELD_REQUIRE(factor.info() == Eigen::Success,
                     "noise_correlation: not a correlation, found one that is not positive definite on the fitted "
                     "pixels, expected the autocorrelation of noise");
    block.rows.rightCols(m) = factor.matrixL();
    blocks_.push_back(std::move(block));
  }
}

std::size_t NoiseWhitening::planned_bytes(const NoiseCorrelation& correlation, const Grid& grid, std::size_t used) {
  if (correlation.empty()) return 0;
  const auto width = static_cast<std::size_t>(correlation.ny / 2 + 1) * static_cast<std::size_t>(grid.nx) + 2 * kRows;
  return sizeof(double) * used * std::min(used, width);
}

std::size_t NoiseWhitening::bytes() const {
  std::size_t numbers = 0;
  for (const Block& block : blocks_) numbers += static_cast<std::size_t>(block.rows.size());
  return sizeof(double) * numbers;
}

/// L⁻¹ in place. A block after the other: what comes before it in the band, then its triangle.
template <class Columns>
void NoiseWhitening::solve(Columns&& columns) const {
  Eigen::Index begin = 0;
  for (const Block& block : blocks_) {
    const Eigen::Index m = block.rows.rows(), before = begin - block.first;
    auto here = columns.middleRows(begin, m);
    here.noalias() -= block.rows.leftCols(before) * columns.middleRows(block.first, before);
    block.rows.rightCols(m).template triangularView<Eigen::Lower>().solveInPlace(here);
    begin += m;
  }
}

void NoiseWhitening::whiten(double* values) const {
  if (empty()) return;
  const Block& last = blocks_.back();
  solve(Eigen::Map<Eigen::VectorXd>(values, last.first + last.rows.cols()));
}

void NoiseWhitening::whiten_adjoint(double* values) const {
  Eigen::Index end = empty() ? 0 : blocks_.back().first + blocks_.back().rows.cols();
  Eigen::Map<Eigen::VectorXd> vector(values, end);
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
    const Eigen::Index m = block->rows.rows(), before = block->rows.cols() - m;
    auto here = vector.segment(end - m, m);
    block->rows.rightCols(m).triangularView<Eigen::Lower>().transpose().solveInPlace(here);
    vector.segment(block->first, before).noalias() -= block->rows.leftCols(before).transpose() * here;
    end -= m;
  }
}

void NoiseWhitening::color(double* values) const {
  Eigen::Index end = empty() ? 0 : blocks_.back().first + blocks_.back().rows.cols();
  Eigen::Map<Eigen::VectorXd> vector(values, end);
  // From below: a block needs what lies above it as it was.
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
    const Eigen::Index m = block->rows.rows();
    const Eigen::VectorXd mixed = block->rows * vector.segment(block->first, block->rows.cols());
    vector.segment(end - m, m) = mixed;
    end -= m;
  }
}

void NoiseWhitening::whiten(RowMatrix& columns, ThreadPool& pool) const {
  if (empty()) return;
  pool.parallel_for(static_cast<int>((columns.cols() + kColumns - 1) / kColumns), [&](int panel, int) {
    const Eigen::Index begin = panel * kColumns, n = std::min(kColumns, columns.cols() - begin);
    RowMatrix part = columns.middleCols(begin, n);
    solve(part);
    columns.middleCols(begin, n) = part;
  });
}

double NoiseWhitening::log_determinant() const {
  double sum = 0;
  for (const Block& block : blocks_) sum += block.rows.rightCols(block.rows.rows()).diagonal().array().log().sum();
  return sum;
}

NoiseWhitening whitening_of(const Observation& observation, const std::vector<std::uint8_t>& held_out) {
  if (observation.noise_correlation.empty()) return {};
  std::vector<std::uint8_t> fitted = observation.mask;
  for (std::size_t i = 0; i < held_out.size(); ++i)
    if (held_out[i]) fitted[i] = 0;
  return {observation.noise_correlation, observation.grid, fitted};
}

}  // namespace einfield
