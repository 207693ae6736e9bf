// The noise of neighboring pixels of a resampled image is correlated. Residuals and derivatives of the pixels that are
// fitted are made independent of each other: then every formula for independent noise holds.
//
// With D the 1 σ of the pixels and K their correlation, the covariance of the noise is C = D R D,
//
//     R = (1 − f) K + f 1,   R = L Lᵀ,   χ² = (m − d)ᵀ C⁻¹ (m − d) = |L⁻¹ r|²,   r = D⁻¹ (m − d)                    (1)
//
// and the derivative of χ² with respect to r is 2 L⁻ᵀ L⁻¹ r. f is kIndependentNoise (likelihood.hpp).
//
// In the order of the image, L has no entries outside a band as wide as the kernel reaches: some rows of the image.
#pragma once

#include <Eigen/Core>
#include <vector>

#include "einfield/likelihood.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {

class NoiseWhitening {
 public:
  /// Rows of a matrix are pixels, in the order of the image.
  using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

  NoiseWhitening() = default;
  /// @param fitted  (ny, nx) of the grid, 1 = fitted
  /// @throws InvalidInput when R is not positive definite: no noise has such a correlation
  NoiseWhitening(const NoiseCorrelation& correlation, const Grid& grid, const std::vector<std::uint8_t>& fitted);

  /// Upper limit of the bytes. @param used  number of fitted pixels
  static std::size_t planned_bytes(const NoiseCorrelation& correlation, const Grid& grid, std::size_t used);
  /// Bytes of L.
  std::size_t bytes() const;

  /// Whether there is nothing to do: the noise of every two pixels is independent.
  bool empty() const { return blocks_.empty(); }

  /// L⁻¹ r in place: for residuals, or derivatives of them, in units of the noise. @param values  one per fitted pixel
  void whiten(double* values) const;
  /// L⁻ᵀ z in place: the adjoint of whiten().
  void whiten_adjoint(double* values) const;
  /// L ε in place: independent numbers become noise of the correlation R.
  void color(double* values) const;
  /// whiten() of every column.
  void whiten(RowMatrix& columns, ThreadPool& pool) const;

  /// ln det L
  double log_determinant() const;

 private:
  /// kRows rows of L, from the first column in which one of them may have an entry to the diagonal.
  struct Block {
    Eigen::Index first;  ///< column
    RowMatrix rows;
  };
  template <class Columns>
  void solve(Columns&& columns) const;

  std::vector<Block> blocks_;
};

/// Of the pixels that enter the loss: those of the mask that are not held out; empty without a correlation.
NoiseWhitening whitening_of(const Observation& observation, const std::vector<std::uint8_t>& held_out = {});

}  // namespace einfield
