// A right-looking Cholesky factorization by panels of 32 columns, and what fills the matrix before it. Every number is
// made by one thread in a fixed order, so bits repeat.
#include "kernels/joint_block.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/device.cuh"
#include "kernels/raii.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

constexpr int kPanel = 32;       ///< columns that are eliminated at a time: a lane of a warp each
constexpr int kSide = 64;        ///< of a block's tile in a product
constexpr int kOwn = 4;          ///< kOwn² numbers of the tile are a thread's
constexpr int kRightSides = 16;  ///< of one substitution
static_assert(kSide * kSide == kOwn * kOwn * kThreads, "every number of a tile has a thread");

/// A lower half, column after column.
struct Lower {
  double* data;
  std::size_t size;
  EINFIELD_HD double& at(std::size_t row, std::size_t column) const { return data[column * size + row]; }
};

/// A as rows, and for every column the places of its entries.
struct SparseView {
  const int *row_first, *column;
  const double* value;
  const int *column_first, *entry, *row;  ///< entries of column j: entry[column_first[j]] …, and their rows
};

/// The columns of M that belong to pixels: AᵀA and BᵀA. One block per pixel j takes the rows of A that see it one after
/// the other. A row is sorted, so its entries from j on are those of the lower half.
__global__ void __launch_bounds__(kThreads)
    source_columns_kernel(Lower m, SparseView a, const double* b, int n_pixels, int n_rest) {
  const int j = static_cast<int>(blockIdx.x), begin = a.column_first[j], end = a.column_first[j + 1];
  const int thread = static_cast<int>(threadIdx.x);
  for (int k = begin; k < end; ++k) {
    const int first = a.entry[k], last = a.row_first[a.row[k] + 1];
    const double value = a.value[first];
    for (int i = first + thread; i < last; i += kThreads) m.at(a.column[i], j) += value * a.value[i];
    __syncthreads();  // another thread may have the same pixel in the next row
  }
  for (int r = thread; r < n_rest; r += kThreads) {
    double sum = 0;
    for (int k = begin; k < end; ++k) sum += a.value[a.entry[k]] * b[static_cast<std::size_t>(a.row[k]) * n_rest + r];
    m.at(n_pixels + r, j) = sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    add_entries_kernel(Lower m, const int* row, const int* column, const double* value, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) m.at(row[i], column[i]) += value[i];
}

/// C += sign P Pᵀ for the rows and columns of M from `first` on; block (tile of columns, tile of rows) of the lower
/// half.
/// @param p       (size − first, depth), column after column
/// @param stride  from one column of P to the next
__global__ void __launch_bounds__(kThreads)
    rank_update_kernel(Lower m, std::size_t first, const double* p, std::size_t stride, int depth, double sign) {
  if (blockIdx.x > blockIdx.y) return;
  __shared__ double left[kPanel][kSide], right[kPanel][kSide];
  const int thread = static_cast<int>(threadIdx.x), n = static_cast<int>(m.size - first);
  const int row0 = static_cast<int>(blockIdx.y) * kSide, column0 = static_cast<int>(blockIdx.x) * kSide;
  const int x = thread % (kSide / kOwn), y = thread / (kSide / kOwn);
  double sum[kOwn][kOwn] = {};
  for (int begin = 0; begin < depth; begin += kPanel) {
    __syncthreads();
    for (int i = thread; i < kPanel * kSide; i += kThreads) {
      const int k = i / kSide, r = row0 + i % kSide, c = column0 + i % kSide;
      const double* column = p + static_cast<std::size_t>(begin + k) * stride;
      left[k][i % kSide] = begin + k < depth && r < n ? column[r] : 0;
      right[k][i % kSide] = begin + k < depth && c < n ? column[c] : 0;
    }
    __syncthreads();
    for (int k = 0; k < kPanel; ++k) {
      double l[kOwn], r[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        l[i] = left[k][x + kSide / kOwn * i];
        r[i] = right[k][y + kSide / kOwn * i];
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j) sum[i][j] += l[i] * r[j];
    }
  }
#pragma unroll
  for (int j = 0; j < kOwn; ++j)
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int r = row0 + x + kSide / kOwn * i, c = column0 + y + kSide / kOwn * j;
      if (r < n && c <= r) m.at(first + r, first + c) += sign * sum[i][j];
    }
}

/// L_kk of the tile at `begin`, by one warp: lane i has row i. A tile of fewer columns is filled up with those of the
/// unit matrix.
/// @param good  becomes 0 at a pivot that is not positive, or NaN
__global__ void __launch_bounds__(kPanel) factor_tile_kernel(Lower m, std::size_t begin, int width, int* good) {
  const int lane = static_cast<int>(threadIdx.x);
  double a[kPanel];
#pragma unroll
  for (int c = 0; c < kPanel; ++c)
    a[c] = lane < width && c <= lane ? m.at(begin + lane, begin + c) : (lane == c ? 1 : 0);
#pragma unroll
  for (int j = 0; j < kPanel; ++j) {
    const double pivot = __shfl_sync(0xffffffffu, a[j], j);
    if (lane == j && !(pivot > 0)) *good = 0;
    const double root = sqrt(pivot);
    a[j] = lane == j ? root : a[j] / root;
#pragma unroll
    for (int c = j + 1; c < kPanel; ++c) a[c] -= a[j] * __shfl_sync(0xffffffffu, a[j], c);
  }
#pragma unroll
  for (int c = 0; c < kPanel; ++c)
    if (lane < width && c <= lane) m.at(begin + lane, begin + c) = a[c];
}

/// Copies L_kk to shared memory, filled up with the unit matrix. Every thread of the block must call.
__device__ inline void load_tile(const Lower& m, std::size_t begin, int width, double (&tile)[kPanel][kPanel + 1]) {
  for (int i = static_cast<int>(threadIdx.x); i < kPanel * kPanel; i += static_cast<int>(blockDim.x)) {
    const int r = i % kPanel, c = i / kPanel;
    tile[r][c] = r < width && c <= r ? m.at(begin + r, begin + c) : (r == c ? 1 : 0);
  }
  __syncthreads();
}

/// L_ik = A_ik L_kkᵀ⁻¹ for the rows below the tile: a thread per row, x_j = (a_j − Σ_{l<j} x_l L_jl) / L_jj.
__global__ void __launch_bounds__(kThreads) panel_kernel(Lower m, std::size_t begin, int width) {
  __shared__ double tile[kPanel][kPanel + 1];
  load_tile(m, begin, width, tile);
  const std::size_t row = begin + width + blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= m.size) return;
  double x[kPanel];
#pragma unroll
  for (int j = 0; j < kPanel; ++j) x[j] = j < width ? m.at(row, begin + j) : 0;
#pragma unroll
  for (int j = 0; j < kPanel; ++j) {
#pragma unroll
    for (int l = 0; l < j; ++l) x[j] -= x[l] * tile[j][l];
    x[j] /= tile[j][j];
  }
#pragma unroll
  for (int j = 0; j < kPanel; ++j)
    if (j < width) m.at(row, begin + j) = x[j];
}

/// A step of the substitution with L, or of that with Lᵀ: every block solves for the tile in shared memory, a warp per
/// right side, and takes it out of its own rows, a thread each. The tile's solution goes to `solved`: other blocks may
/// still read it in y.
/// @param solve  false: the tile's part of y is the solution
template <bool kTransposed>
__global__ void __launch_bounds__(kThreads, 2)
    substitute_kernel(Lower m, std::size_t begin, int width, std::size_t first, std::size_t end, double* y,
                      double* solved, int columns, bool solve) {
  __shared__ double tile[kPanel][kPanel + 1], part[kRightSides][kPanel];
  if (solve) load_tile(m, begin, width, tile);
  const int lane = static_cast<int>(threadIdx.x) % kPanel, warp = static_cast<int>(threadIdx.x) / kPanel;
  for (int c = warp; c < columns; c += kThreads / kPanel) {
    double x = lane < width ? y[c * m.size + begin + lane] : 0;
    for (int k = 0; solve && k < kPanel; ++k) {
      const int j = kTransposed ? kPanel - 1 - k : k;
      const double done = __shfl_sync(0xffffffffu, x, j) / tile[j][j];
      if (lane == j)
        x = done;
      else if (kTransposed ? lane < j : lane > j)
        x -= done * (kTransposed ? tile[j][lane] : tile[lane][j]);
    }
    part[c][lane] = x;
    if (blockIdx.x == 0 && lane < width) solved[c * m.size + begin + lane] = x;
  }
  __syncthreads();
  const std::size_t row = first + blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= end) return;
  double sum[kRightSides] = {};
  for (int k = 0; k < width; ++k) {
    const double l = kTransposed ? m.at(begin + k, row) : m.at(row, begin + k);
#pragma unroll
    for (int c = 0; c < kRightSides; ++c)
      if (c < columns) sum[c] += l * part[c][k];
  }
#pragma unroll
  for (int c = 0; c < kRightSides; ++c)
    if (c < columns) y[c * m.size + row] -= sum[c];
}

unsigned blocks_of(std::size_t n, std::size_t size) {
  return static_cast<unsigned>(std::max<std::size_t>((n + size - 1) / size, 1));
}

struct JointStorage {
  DeviceBuffer<double> matrix, b, value, prior, right, solved;
  DeviceBuffer<int> row_first, column, column_first, entry, row, prior_row, prior_column, good;

  template <class Take>
  void each(Take&& take, const JointSizes& s) {
    take(matrix, s.size() * s.size());
    take(b, s.data * s.rest);
    for (DeviceBuffer<double>* values : {&right, &solved}) take(*values, kRightSides * s.size());
    take(value, s.entries);
    for (DeviceBuffer<int>* places : {&column, &entry, &row}) take(*places, s.entries);
    take(row_first, s.data + 1);
    take(column_first, s.pixels + 1);
    take(prior, kPriorEntries * s.pixels);
    for (DeviceBuffer<int>* places : {&prior_row, &prior_column}) take(*places, kPriorEntries * s.pixels);
    take(good, 1);
  }
  /// Of a column of the lower half: differences up to the second in both directions reach two neighbors.
  static constexpr std::size_t kPriorEntries = 5;
};

/// The columns of a matrix in rows.
struct Columns {
  std::vector<int> first, entry, row;
  Columns(const JointRows& a, std::size_t n_columns)
      : first(n_columns + 1, 0), entry(a.column.size()), row(a.column.size()) {
    for (const int column : a.column) ++first[static_cast<std::size_t>(column) + 1];
    for (std::size_t j = 0; j < n_columns; ++j) first[j + 1] += first[j];
    std::vector<int> next(first.begin(), first.end() - 1);
    for (std::size_t i = 0; i + 1 < a.first.size(); ++i)
      for (std::size_t k = a.first[i]; k < a.first[i + 1]; ++k) {
        const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(a.column[k])]++);
        entry[at] = static_cast<int>(k);
        row[at] = static_cast<int>(i);
      }
  }
};

}  // namespace

struct JointBlock::Impl {
  int device;
  JointSizes sizes;
  Stream stream;
  JointStorage storage;
  Lower matrix{};

  Impl(int on, const JointSizes& of) : device(on), sizes(of) {
    allocate_all(storage, stream.get(), sizes);
    matrix = {storage.matrix.get(), sizes.size()};
    stream.synchronize();
  }
  ~Impl() { EINFIELD_CUDA_NOEXCEPT(cudaStreamSynchronize(stream.get())); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void multiply(const JointRows& a, const double* b, std::size_t n_data, const JointEntries& prior);
  void factorize();
  template <bool kTransposed>
  void substitute(std::size_t begin, std::size_t end, std::size_t first, std::size_t last, int columns, bool solve) {
    substitute_kernel<kTransposed><<<blocks_of(last - first, kThreads), kThreads, 0, stream.get()>>>(
        matrix, begin, static_cast<int>(end - begin), first, last, storage.right.get(), storage.solved.get(), columns,
        solve);
    EINFIELD_LAUNCH_CHECK();
  }
  /// Calls work(y in device memory, number of columns) for groups of columns.
  template <class Work>
  void for_right_sides(double* y, int columns, Work&& work) {
    const CurrentDevice current(device);
    for (int c = 0; c < columns; c += kRightSides) {
      const int count = std::min(kRightSides, columns - c);
      double* const group = y + static_cast<std::size_t>(c) * sizes.size();
      const std::size_t numbers = static_cast<std::size_t>(count) * sizes.size();
      storage.right.upload(group, numbers, stream.get());
      work(count);
      // The pixels' part is solved, the rest's is what substitution has left.
      for (int k = 0; k < count; ++k) {
        const std::size_t at = static_cast<std::size_t>(k) * sizes.size();
        storage.solved.download(group + at, sizes.pixels, stream.get(), at);
        storage.right.download(group + at + sizes.pixels, sizes.rest, stream.get(), at + sizes.pixels);
      }
      stream.synchronize();
    }
  }
};

/// M before the factorization.
void JointBlock::Impl::multiply(const JointRows& a, const double* b, std::size_t n_data, const JointEntries& prior) {
  JointStorage& s = storage;
  const cudaStream_t on = stream.get();
  const Columns columns(a, sizes.pixels);
  const std::vector<int> row_first(a.first.begin(), a.first.end());
  s.matrix.zero(on);
  s.b.upload(b, n_data * sizes.rest, on);
  s.value.upload(a.value, on);
  s.column.upload(a.column, on);
  s.row_first.upload(row_first, on);
  s.column_first.upload(columns.first, on);
  s.entry.upload(columns.entry, on);
  s.row.upload(columns.row, on);
  s.prior.upload(prior.value, on);
  s.prior_row.upload(prior.row, on);
  s.prior_column.upload(prior.column, on);
  if (sizes.pixels > 0) {
    source_columns_kernel<<<static_cast<unsigned>(sizes.pixels), kThreads, 0, on>>>(
        matrix, {s.row_first.get(), s.column.get(), s.value.get(), s.column_first.get(), s.entry.get(), s.row.get()},
        s.b.get(), static_cast<int>(sizes.pixels), static_cast<int>(sizes.rest));
    EINFIELD_LAUNCH_CHECK();
    add_entries_kernel<<<blocks_of(prior.value.size(), kThreads), kThreads, 0, on>>>(
        matrix, s.prior_row.get(), s.prior_column.get(), s.prior.get(), static_cast<int>(prior.value.size()));
    EINFIELD_LAUNCH_CHECK();
  }
  if (sizes.rest > 0) {
    const unsigned tiles = blocks_of(sizes.rest, kSide);
    rank_update_kernel<<<dim3(tiles, tiles), kThreads, 0, on>>>(matrix, sizes.pixels, s.b.get(), sizes.rest,
                                                                static_cast<int>(n_data), 1.0);
    EINFIELD_LAUNCH_CHECK();
  }
  stream.synchronize();  // the vectors end here
}

/// Eliminates the pixels, panel after panel.
void JointBlock::Impl::factorize() {
  const cudaStream_t on = stream.get();
  static constexpr int yes = 1;  // outlives the copy
  storage.good.upload(&yes, 1, on);
  for (std::size_t begin = 0; begin < sizes.pixels; begin += kPanel) {
    const auto width = static_cast<int>(std::min<std::size_t>(kPanel, sizes.pixels - begin));
    factor_tile_kernel<<<1, kPanel, 0, on>>>(matrix, begin, width, storage.good.get());
    EINFIELD_LAUNCH_CHECK();
    const std::size_t first = begin + static_cast<std::size_t>(width), below = sizes.size() - first;
    if (below == 0) continue;
    panel_kernel<<<blocks_of(below, kThreads), kThreads, 0, on>>>(matrix, begin, width);
    EINFIELD_LAUNCH_CHECK();
    const unsigned tiles = blocks_of(below, kSide);
    rank_update_kernel<<<dim3(tiles, tiles), kThreads, 0, on>>>(matrix, first, &matrix.at(first, begin), matrix.size,
                                                                width, -1.0);
    EINFIELD_LAUNCH_CHECK();
  }
}

JointBlock::JointBlock(int device, const JointSizes& sizes) {
  EINFIELD_REQUIRE(std::max(sizes.entries, sizes.size()) < std::size_t(std::numeric_limits<int>::max()),
                   "gauss_newton: " + std::to_string(sizes.entries) +
                       " derivatives with respect to source pixels, expected fewer than 2^31 on a CUDA device");
  const CurrentDevice current(device);
  const std::size_t planned = planned_bytes(sizes);
  std::size_t free = 0, total = 0;
  EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
  if (planned > free)
    throw CudaError("CUDA device " + std::to_string(device) + ": gauss_newton needs " + std::to_string(planned) +
                    " bytes of device memory, free are " + std::to_string(free));
  impl_ = std::make_unique<Impl>(device, sizes);
}
JointBlock::~JointBlock() {
  if (!impl_) return;
  const CurrentDevice current(impl_->device, std::nothrow);
  impl_.reset();
}
JointBlock::JointBlock(JointBlock&&) noexcept = default;
JointBlock& JointBlock::operator=(JointBlock&&) noexcept = default;

std::size_t JointBlock::planned_bytes(const JointSizes& sizes) {
  return planned_bytes_of<JointStorage>(sizes);
}

bool JointBlock::eliminate(const JointRows& a, const double* b, std::size_t n_data, const JointEntries& prior) {
  const CurrentDevice current(impl_->device);
  EINFIELD_REQUIRE(n_data <= impl_->sizes.data && a.value.size() <= impl_->sizes.entries,
                   "a Jacobian of " + std::to_string(n_data) + " rows and " + std::to_string(a.value.size()) +
                       " entries, expected at most " + std::to_string(impl_->sizes.data) + " and " +
                       std::to_string(impl_->sizes.entries));
  impl_->multiply(a, b, n_data, prior);
  impl_->factorize();
  return impl_->storage.good.to_vector(impl_->stream.get())[0] != 0;
}

double JointBlock::log_determinant() const {
  const CurrentDevice current(impl_->device);
  const std::size_t n = impl_->sizes.pixels, stride = (impl_->sizes.size() + 1) * sizeof(double);
  std::vector<double> diagonal(n);
  if (n == 0) return 0;
  EINFIELD_CUDA(cudaMemcpy2DAsync(diagonal.data(), sizeof(double), impl_->matrix.data, stride, sizeof(double), n,
                                  cudaMemcpyDeviceToHost, impl_->stream.get()));
  impl_->stream.synchronize();
  double sum = 0;
  for (const double l : diagonal) sum += std::log(l);
  return 2 * sum;
}

std::vector<double> JointBlock::schur() const {
  const CurrentDevice current(impl_->device);
  const std::size_t n = impl_->sizes.rest;
  std::vector<double> s(n * n);
  if (n == 0) return s;
  EINFIELD_CUDA(cudaMemcpy2DAsync(
      s.data(), n * sizeof(double), &impl_->matrix.at(impl_->sizes.pixels, impl_->sizes.pixels),
      impl_->sizes.size() * sizeof(double), n * sizeof(double), n, cudaMemcpyDeviceToHost, impl_->stream.get()));
  impl_->stream.synchronize();
  return s;
}

void JointBlock::forward(double* y, int columns) const {
  Impl& m = *impl_;
  m.for_right_sides(y, columns, [&m](int count) {
    for (std::size_t begin = 0; begin < m.sizes.pixels; begin += kPanel) {
      const std::size_t end = std::min(begin + kPanel, m.sizes.pixels);
      m.substitute<false>(begin, end, end, m.sizes.size(), count, true);
    }
  });
}

void JointBlock::backward(double* y, int columns) const {
  Impl& m = *impl_;
  m.for_right_sides(y, columns, [&m](int count) {
    for (std::size_t begin = m.sizes.pixels; begin < m.sizes.size(); begin += kPanel)
      m.substitute<true>(begin, std::min(begin + kPanel, m.sizes.size()), 0, m.sizes.pixels, count, false);
    const std::size_t tiles = (m.sizes.pixels + kPanel - 1) / kPanel;
    for (std::size_t k = tiles; k-- > 0;)
      m.substitute<true>(k * kPanel, std::min((k + 1) * kPanel, m.sizes.pixels), 0, k * kPanel, count, true);
  });
}

}  // namespace einfield::cuda
