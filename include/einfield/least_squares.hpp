// Small dense least squares on the normal equations, on host and device: Cholesky, and the bounded problem by an active
// set (Lawson & Hanson 1974, chapter 23; Stark & Parker 1995). A few dozen unknowns at most: plain loops in a fixed
// order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

/// Smallest pivot of a matrix scaled to a diagonal of one that counts as positive. A column whose squared distance from
/// the span of the others is smaller depends on them, to the precision of the normal equations.
inline constexpr double kSmallestPivot = 1e-13;

/// M = LLᵀ of the rows and columns `indices` of a symmetric matrix, scaled to a diagonal of one, so that units do not
/// matter:
///
///     s_i = M_ii^{−1/2},   L_ij = (s_i M_ij s_j − Σ_{k<j} L_ik L_jk)/L_jj,   L_ii² = 1 − Σ_{k<i} L_ik² (1)
///
/// @param matrix   (n, n)
/// @param indices  `count` of them, or null for 0 … count − 1
/// @param scale    [count], written
/// @param lower    [count][count], written below and on the diagonal
/// @return place in `indices` of the first pivot that is too small or not a number; `count` when all are good
EINFIELD_HD inline int cholesky_factor(const double* matrix, int n, const int* indices, int count, double* scale,
                                       double* lower) {
  for (int i = 0; i < count; ++i) {
    const int row = indices ? indices[i] : i;
    const double diagonal = matrix[row * n + row];
    if (!(diagonal > 0) || !isfinite(diagonal)) return i;
    scale[i] = 1 / sqrt(diagonal);
  }
  for (int i = 0; i < count; ++i)
    for (int j = 0; j <= i; ++j) {
      const int row = indices ? indices[i] : i, column = indices ? indices[j] : j;
      double sum = i == j ? 1 : matrix[row * n + column] * scale[i] * scale[j];
      for (int k = 0; k < j; ++k) sum -= lower[i * count + k] * lower[j * count + k];
      if (i == j && !(sum > kSmallestPivot)) return i;
      lower[i * count + j] = i == j ? sqrt(sum) : sum / lower[j * count + j];
    }
  return count;
}

/// x = M⁻¹ b from (1); x and b may be the same array.
EINFIELD_HD inline void cholesky_solve(const double* scale, const double* lower, int count, const double* b,
                                       double* x) {
  for (int i = 0; i < count; ++i) {
    double sum = b[i] * scale[i];
    for (int k = 0; k < i; ++k) sum -= lower[i * count + k] * x[k];
    x[i] = sum / lower[i * count + i];
  }
  for (int i = count; i-- > 0;) {
    double sum = x[i];
    for (int k = i + 1; k < count; ++k) sum -= lower[k * count + i] * x[k];
    x[i] = sum / lower[i * count + i];
  }
  for (int i = 0; i < count; ++i) x[i] *= scale[i];
}

/// The minimum of ½ cᵀNc − bᵀc with lower ≤ c ≤ upper, and the memory to find it.
struct BoundedProblem {
  int size;
  const double *normal, *right;  ///< N (size, size), b
  const double *lower, *upper;   ///< may be infinite; lower < upper
  double* values;                ///< c, written
  std::uint8_t* free;            ///< written: 1 = not at a bound
  double* numbers;               ///< room for numbers_for(size)
  int* indices;                  ///< room for `size`
  std::uint8_t* barred;          ///< room for `size`

  EINFIELD_HD static constexpr int numbers_for(int size) { return size * (size + 3); }
  EINFIELD_HD double* scale() const { return numbers; }
  EINFIELD_HD double* target() const { return numbers + size; }
  EINFIELD_HD double* factor() const { return numbers + 2 * size; }
};

/// Moves the free variables to their minimum; one that meets a bound on the way is fixed there.
/// @param newest  the variable that was freed last, or `size`
/// @return false when that one cannot be free: its column depends on those of the others, or only rounding had pushed
/// it
///         away from its bound
EINFIELD_HD inline bool minimize_free(const BoundedProblem& p, int newest) {
  const int size = p.size;
  for (int round = 0; round <= size; ++round) {
    int count = 0;
    for (int i = 0; i < size; ++i)
      if (p.free[i]) p.indices[count++] = i;
    if (count == 0) return true;
    for (int k = 0; k < count; ++k) {
      double sum = p.right[p.indices[k]];
      for (int j = 0; j < size; ++j)
        if (!p.free[j]) sum -= p.normal[p.indices[k] * size + j] * p.values[j];
      p.target()[k] = sum;
    }
    const int failed = cholesky_factor(p.normal, size, p.indices, count, p.scale(), p.factor());
    if (failed < count) {
      // In the first round nothing has moved yet: the newest variable is the one that depends on the others.
      const int out = newest < size ? newest : p.indices[failed];
      p.free[out] = 0;
      p.barred[out] = 1;
      if (newest < size) return false;
      continue;
    }
    cholesky_solve(p.scale(), p.factor(), count, p.target(), p.target());
    double step = 1;
    int first = size;
    for (int k = 0; k < count; ++k) {
      const int i = p.indices[k];
      const double target = p.target()[k];
      const double bound = target < p.lower[i] ? p.lower[i] : p.upper[i] < target ? p.upper[i] : target;
      if (bound == target) continue;
      const double share = (bound - p.values[i]) / (target - p.values[i]);
      if (first == size || share < step) {
        step = share < 0 ? 0 : share;
        first = i;
      }
    }
    for (int k = 0; k < count; ++k) {
      const int i = p.indices[k];
      const double target = p.target()[k];
      if (i == first) {
        p.values[i] = target < p.lower[i] ? p.lower[i] : p.upper[i];
        p.free[i] = 0;
      } else {
        p.values[i] = first == size ? target : p.values[i] + step * (target - p.values[i]);
      }
    }
    if (first == size) return true;
    if (first == newest && step == 0) return false;
    newest = size;
  }
  return true;
}

/// Active-set method: variables that the gradient pushes away from their bound are freed one at a time; a free variable
/// that leaves its interval on the way to the minimum is fixed at the bound. A variable without a finite bound is free
/// from the beginning. A variable whose column depends on those of the free ones keeps its value.
EINFIELD_HD inline void bounded_least_squares(const BoundedProblem& p) {
  constexpr double kTolerance = 1e-12;  // of a gradient, relative to the terms that it is the sum of
  const int size = p.size;
  for (int i = 0; i < size; ++i) {
    const bool low = isfinite(p.lower[i]), high = isfinite(p.upper[i]);
    p.values[i] = low && (abs(p.lower[i]) <= abs(p.upper[i]) || !high) ? p.lower[i] : high ? p.upper[i] : 0;
    p.barred[i] = 0;
    p.free[i] = !low && !high;
  }
  minimize_free(p, size);
  for (int round = 0; round < 10 * size + 10; ++round) {
    int best = size;
    double largest = 0;
    for (int i = 0; i < size; ++i) {
      const double diagonal = p.normal[i * size + i];
      if (p.free[i] || p.barred[i] || !(diagonal > 0)) continue;
      double gradient = p.right[i], terms = abs(p.right[i]);
      for (int j = 0; j < size; ++j) {
        gradient -= p.normal[i * size + j] * p.values[j];
        terms += abs(p.normal[i * size + j] * p.values[j]);
      }
      const bool inward = p.values[i] == p.lower[i] ? gradient > 0 : gradient < 0;
      const double pull = abs(gradient) / sqrt(diagonal);
      if (!inward || abs(gradient) <= kTolerance * terms || pull <= largest) continue;
      largest = pull;
      best = i;
    }
    if (best == size) break;
    p.free[best] = 1;
    if (minimize_free(p, best))
      for (int i = 0; i < size; ++i) p.barred[i] = 0;
    else
      p.barred[best] = 1;
  }
}

}  // namespace einfield
