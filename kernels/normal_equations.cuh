// Inner products of columns, the best amplitudes, the residual and its squares. Every sum is made in a fixed order.
#pragma once

#include "kernels/column_arrays.cuh"
#include "kernels/reduce.cuh"

namespace einfield::cuda {

inline constexpr int kTile = 32;  ///< columns and pixels of a block's tile

EINFIELD_HD constexpr int tiles_of(int columns) {
  return (columns + kTile - 1) / kTile;
}
EINFIELD_HD constexpr int tile_pairs(int columns) {
  return tiles_of(columns) * (tiles_of(columns) + 1) / 2;
}
EINFIELD_HD constexpr std::size_t products_per_point(int columns, int segments) {
  return static_cast<std::size_t>(tile_pairs(columns)) * segments * kTile * kTile;
}

/// Partial inner products of the first `columns` columns over a segment of the pixels: block (segment, pair of tiles,
/// point). Four groups of 8 × 8 threads take every fourth pixel; a thread makes kBlocks² products. The groups' sums are
/// added in order.
/// @param wanted  only for points whose curvature is wanted
/// @tparam kBlocks  4, or fewer for at most 8 kBlocks columns
template <int kBlocks>
__global__ void __launch_bounds__(kThreads) products_kernel(ColumnArrays a, int columns, bool wanted) {
  constexpr int kSide = 8, kGroups = kThreads / (kSide * kSide), kWide = kSide * kBlocks;
  __shared__ double left[kTile][kWide + 1], right[kTile][kWide + 1];
  const int point = static_cast<int>(blockIdx.z);
  if (wanted && a.result(point)[kCurved] == 0) return;
  const int segment = static_cast<int>(blockIdx.x), pair = static_cast<int>(blockIdx.y);
  int row_tile = 0;  // pairs in the order (0, 0), (1, 0), (1, 1), (2, 0), …
  while ((row_tile + 1) * (row_tile + 2) / 2 <= pair) ++row_tile;
  const int column_tile = pair - row_tile * (row_tile + 1) / 2;
  const int n = a.system(point).n_used, per_segment = (n + a.segments - 1) / a.segments;
  const int begin = segment * per_segment, end = begin + per_segment < n ? begin + per_segment : n;
  const int thread = static_cast<int>(threadIdx.x), group = thread / (kSide * kSide);
  const int row = thread / kSide % kSide, column = thread % kSide;
  double sum[kBlocks][kBlocks] = {};
  for (int first = begin; first < end; first += kTile) {
    __syncthreads();
    for (int i = thread; i < kTile * kWide; i += kThreads) {
      const int k = i / kTile, pixel = first + i % kTile, l = row_tile * kTile + k, r = column_tile * kTile + k;
      left[i % kTile][k] = pixel < end && l < columns ? a.column(point, l)[pixel] : 0;
      right[i % kTile][k] = pixel < end && r < columns ? a.column(point, r)[pixel] : 0;
    }
    __syncthreads();
    for (int pixel = group; pixel < kTile; pixel += kGroups) {
      double l[kBlocks], r[kBlocks];
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        l[i] = left[pixel][row + kSide * i];
        r[i] = right[pixel][column + kSide * i];
      }
#pragma unroll
      for (int i = 0; i < kBlocks; ++i)
#pragma unroll
        for (int j = 0; j < kBlocks; ++j) sum[i][j] += l[i] * r[j];
    }
  }
  for (int g = 0; g < kGroups; ++g) {  // `left` holds the sums of the groups so far
    __syncthreads();
    if (g == group)
#pragma unroll
      for (int i = 0; i < kBlocks; ++i)
#pragma unroll
        for (int j = 0; j < kBlocks; ++j) {
          double& total = left[row + kSide * i][column + kSide * j];
          total = g == 0 ? sum[i][j] : total + sum[i][j];
        }
  }
  __syncthreads();
  double* out = a.partial_products + products_per_point(a.n_columns(), a.segments) * point +
                (static_cast<std::size_t>(pair) * a.segments + segment) * kTile * kTile;
  for (int i = thread; i < kWide * kWide; i += kThreads)
    out[i / kWide * kTile + i % kWide] = left[i / kWide][i % kWide];
}

/// Inner product of columns i ≥ j from the segments.
__device__ inline double product_of(const ColumnArrays& a, int point, int i, int j) {
  const int row_tile = i / kTile, pair = row_tile * (row_tile + 1) / 2 + j / kTile;
  const double* from = a.partial_products + products_per_point(a.n_columns(), a.segments) * point +
                       static_cast<std::size_t>(pair) * a.segments * kTile * kTile + i % kTile * kTile + j % kTile;
  double sum = 0;
  for (int segment = 0; segment < a.segments; ++segment) sum += from[segment * kTile * kTile];
  return sum;
}

/// The best amplitudes of a point from the products of the target and the columns of the amplitudes; one block a point.
__global__ void __launch_bounds__(kThreads, 1) solve_amplitudes_kernel(ColumnArrays a) {
  const int point = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x), n = a.n_linear;
  double *result = a.result(point), *table = a.table(point);
  if (!a.points[point].solve) {
    for (int k = thread; k < n; k += kThreads) {
      result[kAmplitudes + k] = table[a.linear_slot[k]];
      result[kAmplitudes + n + k] = 0;
    }
    if (thread == 0) result[kFinite] = 1;
    return;
  }
  double* normal = a.numbers + static_cast<std::size_t>(point) * ColumnArrays::numbers_for_amplitudes(n);
  double *right = normal + n * n, *lower = right + n, *upper = lower + n;
  for (int e = thread; e < n * n; e += kThreads) {
    const int i = e / n, j = e % n;
    normal[e] = product_of(a, point, 1 + (i > j ? i : j), 1 + (i > j ? j : i));
  }
  for (int i = thread; i < n; i += kThreads) right[i] = product_of(a, point, 1 + i, 0);
  __syncthreads();
  if (thread > 0) return;
  const double norm = sqrt(product_of(a, point, 0, 0));
  const bool finite = bound_amplitudes(a.system(point).amplitudes, n, norm, normal, right, lower, upper);
  result[kFinite] = finite;
  if (!finite) return;
  std::uint8_t* flags = a.flags + static_cast<std::size_t>(point) * 2 * n;
  bounded_least_squares({n, normal, right, lower, upper, result + kAmplitudes, flags, upper + n,
                         a.indices + static_cast<std::size_t>(point) * n, flags + n});
  for (int k = 0; k < n; ++k) {
    result[kAmplitudes + n + k] = flags[k] ? 0 : 1;
    table[a.linear_slot[k]] = result[kAmplitudes + k];
  }
}

/// Column 0 becomes the residual, model − data; then its squares are added up, and the last block of a point decides
/// whether its curvature is wanted.
__global__ void __launch_bounds__(kThreads) residual_kernel(ColumnArrays a) {
  const int point = static_cast<int>(blockIdx.y), segment = static_cast<int>(blockIdx.x);
  const SystemView& system = a.system(point);
  double* result = a.result(point);
  if (result[kFinite] == 0) {
    if (segment == 0 && threadIdx.x == 0) result[kCurved] = result[kLoss] = result[kChi2] = 0;
    return;
  }
  double* residual = a.column(point, 0);
  double squares[2] = {};
  const int per_segment = (system.n_used + a.segments - 1) / a.segments;
  const int begin = segment * per_segment,
            end = begin + per_segment < system.n_used ? begin + per_segment : system.n_used;
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
    double r = -residual[i];
    for (int k = 0; k < a.n_linear; ++k) r += result[kAmplitudes + k] * a.column(point, 1 + k)[i];
    residual[i] = r;
    const double z = r * system.chi2_ratio[i];
    squares[0] += r * r;
    squares[1] += z * z;
  }
  block_sum(squares);
  double* partial = a.partial_sums + static_cast<std::size_t>(point) * 2 * a.segments;
  if (threadIdx.x == 0) {
    partial[2 * segment] = squares[0];
    partial[2 * segment + 1] = squares[1];
  }
  if (!is_last_block(a.tickets + point, gridDim.x) || threadIdx.x > 0) return;
  double loss = 0, chi2 = 0, value = 0;
  for (int s = 0; s < a.segments; ++s) {
    loss += __ldcg(partial + 2 * s);
    chi2 += __ldcg(partial + 2 * s + 1);
  }
  for (int k = 0; k < a.n_linear; ++k) {
    const Amplitude& amplitude = system.amplitudes[k];
    const double z = (result[kAmplitudes + k] - amplitude.mean) / amplitude.sigma;
    value += amplitude.prior_weight * z * z;
  }
  value += loss;
  const bool finite = isfinite(value) && isfinite(chi2);
  result[kFinite] = finite;
  result[kCurved] = finite && value <= a.points[point].curvature_up_to;
  result[kLoss] = loss;
  result[kChi2] = chi2;
}

/// All products of a point, both halves of the matrix.
__global__ void __launch_bounds__(kThreads) collect_products_kernel(ColumnArrays a) {
  const int point = static_cast<int>(blockIdx.y), n = a.n_columns();
  double* result = a.result(point);
  if (result[kCurved] == 0) return;
  double* products = result + kAmplitudes + 2 * a.n_linear;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int e = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); e < n * n; e += stride) {
    const int i = e / n, j = e % n;
    if (j > i) continue;
    products[i * n + j] = products[j * n + i] = product_of(a, point, i, j);
  }
}

}  // namespace einfield::cuda
