// Storage and order of the CPU network: packed weights, tape, chunks; the arithmetic is in network_tiles.cpp.
// The formulas and the contract are those of include/einfield/network.hpp.
#include "host/cpu/network.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "host/cpu/network_tiles.hpp"

namespace einfield {
namespace {

constexpr int kChunks = 16;    // sums of the gradient: fixed, or the bits would depend on the number of threads
constexpr int kTileRows = 64;  // points of a tile; its matrices fill half of a second-level cache at width 200
static_assert(kTileRows % kRowGroup == 0);

/// Memory that starts on a cache line; its pages are touched first by the thread that uses them.
template <class Real>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(std::size_t size) : size_(size) {
    if (size == 0) return;
    try {
      data_.reset(static_cast<Real*>(::operator new (size * sizeof(Real), std::align_val_t{kCacheLine})));
    } catch (const std::bad_alloc&) {
      throw IoError("cannot allocate " + std::to_string(size * sizeof(Real) >> 20) + " MB for the network");
    }
  }
  Real* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(Real); }

 private:
  struct Free {
    void operator()(Real* p) const { ::operator delete (p, std::align_val_t{kCacheLine}); }
  };
  std::unique_ptr<Real, Free> data_;
  std::size_t size_ = 0;
};

std::size_t half_of_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || size <= 0) return std::numeric_limits<std::size_t>::max();  // unknown: no limit of this kind
  return static_cast<std::size_t>(pages) / 2 * static_cast<std::size_t>(size);
}

/// Sizes of everything, for the object and for planned_bytes().
template <class Real>
struct Plan {
  Plan(const NetworkShape& shape, int n_points, int threads, std::size_t tape_limit) {
    shape.validate();
    EINFIELD_REQUIRE(n_points >= 0, "n_points = " + std::to_string(n_points) + ", expected >= 0");
    const int layers = shape.layers() - 1;
    for (int l = 0; l < layers; ++l) {
      const auto width = static_cast<std::size_t>(shape.outputs(l));
      const auto stride = static_cast<std::size_t>(row_stride<Real>(static_cast<int>(width)));
      const auto padded = static_cast<std::size_t>(padded_width<Real>(static_cast<int>(width)));
      const std::size_t rows = l == 0 ? 3 : 1;  // the bias, and of the first layer the kernel
      packed += rows * padded;
      if (l >= shape.fixed_layers()) gradient += rows * stride;
      if (l + 1 == layers) {
        packed += padded;
        gradient += stride;
        break;
      }
      const int next = shape.outputs(l + 1);
      const auto next_padded = static_cast<std::size_t>(padded_width<Real>(next));
      packed += width * next_padded + static_cast<std::size_t>(next) * padded;
      gradient += width * static_cast<std::size_t>(row_stride<Real>(next));
      tape_row += next_padded + padded;
    }
    if (shape.fourier_features > 0) tape_row += 2 * static_cast<std::size_t>(padded_width<Real>(shape.outputs(0)));
    gradient += kCacheLine / sizeof(Real);  // the last bias
    scratch = tile_scratch_size<Real>(shape, kTileRows);
    recompute = static_cast<std::size_t>(n_points) * tape_row * sizeof(Real) > std::min(tape_limit, half_of_memory());
    tape_rows = recompute ? kTileRows : n_points;
    tapes = recompute ? threads : 1;
    if (shape.fourier_features > 0 && !recompute) encoded = shape.fixed_size() + 2 * static_cast<std::size_t>(n_points);
    gradients = std::min(threads, kChunks);
  }

  std::size_t packed = 0, gradient = 0, tape_row = 0, scratch = 0, encoded = 0;  ///< values
  bool recompute = false;
  int tape_rows = 0, tapes = 0, gradients = 0;
};

/// Rows [begin, end) of the groups that part `part` of `parts` gets of n points.
struct Range {
  int begin, end;
};
Range part_of(int n, int part, int parts) {
  const std::int64_t groups = (static_cast<std::int64_t>(n) + kRowGroup - 1) / kRowGroup;
  const auto bound = [&](std::int64_t i) {
    return static_cast<int>(std::min<std::int64_t>(n, groups * i / parts * kRowGroup));
  };
  return {bound(part), bound(part + 1)};
}
int tiles_of(int n) {
  return (n + kTileRows - 1) / kTileRows;
}

/// What a worker needs beside the tape.
template <class Real>
struct Worker {
  AlignedArray<Real> scratch;
  Real x[kTileRows], y[kTileRows], psi_bar[kTileRows], alpha_x_bar[kTileRows], alpha_y_bar[kTileRows];
  Real psi[kTileRows], alpha_x[kTileRows], alpha_y[kTileRows];
  std::ptrdiff_t tape_row[kTileRows];

  TilePoints<Real> points(int count) const { return {count, x, y, psi_bar, alpha_x_bar, alpha_y_bar, tape_row}; }
};

}  // namespace

template <class Real>
struct CpuNetwork<Real>::Storage {
  Storage(const NetworkShape& s, int points, ThreadPool& p, std::size_t tape_limit)
      : shape(s),
        n_points(points),
        pool(p),
        plan(s, points, p.threads(), tape_limit),
        kernels(tile_kernels<Real>()),
        packed(plan.packed),
        tape(static_cast<std::size_t>(plan.tapes) * static_cast<std::size_t>(plan.tape_rows) * plan.tape_row),
        sum(plan.gradient),
        encoded(plan.encoded),
        workers(static_cast<std::size_t>(p.threads())),
        active(static_cast<std::size_t>(points)) {
    for (int i = 0; i < plan.gradients; ++i) partial.emplace_back(plan.gradient);
    for (Worker<Real>& worker : workers) worker.scratch = AlignedArray<Real>(plan.scratch);
    lay_out_network();
  }

  int hidden() const { return shape.layers() - 1; }
  int width(int l) const { return shape.outputs(l); }

  /// Places the padded tensors of `net` in `packed`.
  void lay_out_network() {
    net = {};
    net.hidden = hidden();
    net.encoded = shape.fourier_features > 0;
    net.scale = static_cast<Real>(shape.input_scale);
    Real* next = packed.data();
    const auto take = [&](int rows, int columns) {
      Real* const begin = next;
      next += static_cast<std::ptrdiff_t>(rows) * padded_width<Real>(columns);
      return begin;
    };
    for (int l = 0; l < net.hidden; ++l) {
      net.width[l] = width(l);
      net.bias[l] = take(1, width(l));
    }
    net.first[0] = take(1, width(0));
    net.first[1] = take(1, width(0));
    net.last = take(1, width(net.hidden - 1));
    for (int l = 0; l + 1 < net.hidden; ++l) {
      net.up[l] = take(width(l), width(l + 1));
      net.down[l] = take(width(l + 1), width(l));
    }
  }

  /// Brings the parameters into the form that tiles read. Every call does it: a stale copy could not be noticed.
  void pack(const Real* parameters) {
    const auto copy_row = [&](std::size_t offset, int n, const Real* row) {
      Real* const target = packed.data() + (row - packed.data());
      std::copy_n(parameters + offset, n, target);
      std::fill(target + n, target + padded_width<Real>(n), Real(0));
    };
    for (int l = 0; l < hidden(); ++l) copy_row(shape.bias_offset(l), width(l), net.bias[l]);
    copy_row(shape.kernel_offset(0), width(0), net.first[0]);
    copy_row(shape.kernel_offset(0) + static_cast<std::size_t>(width(0)), width(0), net.first[1]);
    copy_row(shape.kernel_offset(hidden()), width(hidden() - 1), net.last);
    net.last_bias = parameters[shape.bias_offset(hidden())];
    pool.parallel_for(2 * (hidden() - 1), [&](int index, int) {
      const int l = index / 2;
      const bool down = index % 2 == 1;
      const Real* const kernel = parameters + shape.kernel_offset(l + 1);
      Real* const target = packed.data() + ((down ? net.down[l] : net.up[l]) - packed.data());
      kernels.pack(kernel, down, down ? width(l + 1) : width(l), down ? width(l) : width(l + 1), target);
    });
  }

  /// The tape from row `row` on; `worker` has its own when the tape is not kept.
  TileTape<Real> tape_at(int row, int worker) const {
    TileTape<Real> result{};
    Real* next = tape.data();
    if (plan.recompute)
      next += static_cast<std::size_t>(worker) * static_cast<std::size_t>(plan.tape_rows) * plan.tape_row;
    const auto take = [&](int l) {
      Real* const begin = next + static_cast<std::ptrdiff_t>(row) * padded_width<Real>(width(l));
      next += static_cast<std::ptrdiff_t>(plan.tape_rows) * padded_width<Real>(width(l));
      return begin;
    };
    for (int l = 0; l + 1 < hidden(); ++l) {
      result.a[l + 1] = take(l + 1);
      result.p[l] = take(l);
    }
    if (net.encoded) {
      result.encoding = take(0);
      result.encoding_first = take(0);
      result.encoding_is_known = encoding_is_known;
    }
    return result;
  }

  /// Whether the tape has the features of these positions, as it has from the second step of a fit on; notes them.
  bool encoded_before(const Real* parameters, const Real* theta, int n) {
    if (encoded.size() == 0) return false;
    const std::size_t weights = shape.fixed_size(), positions = 2 * static_cast<std::size_t>(n);
    Real* const of_theta = encoded.data() + weights;
    const bool same = n == taped && std::memcmp(encoded.data(), parameters, weights * sizeof(Real)) == 0 &&
                      std::memcmp(of_theta, theta, positions * sizeof(Real)) == 0;
    std::copy_n(parameters, weights, encoded.data());
    std::copy_n(theta, positions, of_theta);
    return same;
  }

  TileGradient<Real> gradient_at(Real* next) const {
    TileGradient<Real> result{};
    const auto take = [&](int rows, int columns) {
      Real* const begin = next;
      next += static_cast<std::ptrdiff_t>(rows) * row_stride<Real>(columns);
      return begin;
    };
    for (int l = shape.fixed_layers(); l < hidden(); ++l) result.bias[l] = take(1, width(l));
    if (!net.encoded)
      for (Real*& row : result.first) row = take(1, width(0));
    result.last = take(1, width(hidden() - 1));
    for (int l = 0; l + 1 < hidden(); ++l) result.kernel[l] = take(width(l), width(l + 1));
    result.last_bias = next;
    return result;
  }

  /// Adds the padded sums to the flat gradient.
  void add_to(Real* gradient) const {
    const TileGradient<Real> from = gradient_at(sum.data());
    const auto add_rows = [&](const Real* rows, int count, int columns, std::size_t offset) {
      for (int r = 0; r < count; ++r)
        for (int i = 0; i < columns; ++i)
          gradient[offset + static_cast<std::size_t>(r) * static_cast<std::size_t>(columns) +
                   static_cast<std::size_t>(i)] += rows[static_cast<std::ptrdiff_t>(r) * row_stride<Real>(columns) + i];
    };
    if (!net.encoded) add_rows(from.first[0], 2, width(0), shape.kernel_offset(0));
    for (int l = shape.fixed_layers(); l < hidden(); ++l) add_rows(from.bias[l], 1, width(l), shape.bias_offset(l));
    for (int l = 0; l + 1 < hidden(); ++l) add_rows(from.kernel[l], width(l), width(l + 1), shape.kernel_offset(l + 1));
    add_rows(from.last, 1, width(hidden() - 1), shape.kernel_offset(hidden()));
    gradient[shape.bias_offset(hidden())] += *from.last_bias;
  }

  /// Gradient of the active points [range.begin, range.end), tile by tile, into `part`.
  void adjoint_chunk(Range range, int worker_index, const Real* theta, const Real* psi_bar, const Real* alpha_bar,
                     Real* part) {
    Worker<Real>& worker = workers[static_cast<std::size_t>(worker_index)];
    const TileTape<Real> whole_tape = tape_at(0, worker_index);
    const TileGradient<Real> gradient = gradient_at(part);
    std::memset(part, 0, plan.gradient * sizeof(Real));
    const int count = range.end - range.begin, tiles = tiles_of(count);
    for (int tile = 0; tile < tiles; ++tile) {
      const Range rows = part_of(count, tile, tiles);
      const int m = rows.end - rows.begin;
      for (int t = 0; t < m; ++t) {
        const auto point = static_cast<std::size_t>(active[static_cast<std::size_t>(range.begin + rows.begin + t)]);
        const auto second = point + static_cast<std::size_t>(taped);
        worker.x[t] = theta[point];
        worker.y[t] = theta[second];
        worker.psi_bar[t] = psi_bar ? psi_bar[point] : Real(0);
        worker.alpha_x_bar[t] = alpha_bar ? alpha_bar[point] : Real(0);
        worker.alpha_y_bar[t] = alpha_bar ? alpha_bar[second] : Real(0);
        worker.tape_row[t] = plan.recompute ? t : static_cast<std::ptrdiff_t>(point);
      }
      if (plan.recompute)
        kernels.forward(net, worker.points(m), whole_tape, worker.scratch.data(), worker.psi, worker.alpha_x,
                        worker.alpha_y);
      kernels.adjoint(net, worker.points(m), whole_tape, worker.scratch.data(), gradient);
    }
  }

  NetworkShape shape;
  int n_points;
  ThreadPool& pool;
  Plan<Real> plan;
  const TileKernels<Real>& kernels;
  TileNetwork<Real> net{};
  AlignedArray<Real> packed, tape, sum;
  AlignedArray<Real> encoded;               ///< weights and positions of the features on the tape; empty without them
  std::vector<AlignedArray<Real>> partial;  ///< gradients of the chunks at work
  std::vector<Worker<Real>> workers;
  std::vector<int> active;  ///< points with a cotangent, in rising order
  int taped = -1;           ///< points of the last forward(); none yet: -1
  bool encoding_is_known = false;
};

template <class Real>
CpuNetwork<Real>::CpuNetwork(const NetworkShape& shape, int n_points, ThreadPool& pool, std::size_t tape_limit)
    : storage_(std::make_unique<Storage>(shape, n_points, pool, tape_limit)) {}

template <class Real>
CpuNetwork<Real>::~CpuNetwork() = default;

template <class Real>
void CpuNetwork<Real>::forward(const Real* parameters, const Real* theta, int n, Real* psi, Real* alpha) {
  Storage& s = *storage_;
  EINFIELD_REQUIRE(n >= 0 && n <= s.n_points,
                   "n = " + std::to_string(n) + " points, expected 0 to " + std::to_string(s.n_points));
  s.pack(parameters);
  s.encoding_is_known = s.encoded_before(parameters, theta, n);
  s.taped = n;
  const int tiles = tiles_of(n);
  s.pool.parallel_for(tiles, [&](int tile, int worker_index) {
    Worker<Real>& worker = s.workers[static_cast<std::size_t>(worker_index)];
    const Range rows = part_of(n, tile, tiles);
    const int m = rows.end - rows.begin;
    TilePoints<Real> points = worker.points(m);
    points.x = theta + rows.begin;
    points.y = theta + n + rows.begin;
    s.kernels.forward(s.net, points, s.tape_at(s.plan.recompute ? 0 : rows.begin, worker_index), worker.scratch.data(),
                      psi ? psi + rows.begin : worker.psi, alpha + rows.begin, alpha + n + rows.begin);
  });
}

template <class Real>
void CpuNetwork<Real>::adjoint(const Real* parameters, const Real* theta, int n, const Real* psi_bar,
                               const Real* alpha_bar, Real* gradient) {
  Storage& s = *storage_;
  EINFIELD_REQUIRE(n == s.taped,
                   "adjoint of " + std::to_string(n) + " points after a forward of " + std::to_string(s.taped));
  int count = 0;
  for (int i = 0; i < n; ++i)
    if ((alpha_bar && (alpha_bar[i] != 0 || alpha_bar[n + i] != 0)) || (psi_bar && psi_bar[i] != 0))
      s.active[static_cast<std::size_t>(count++)] = i;
  if (count == 0) return;
  s.pack(parameters);
  std::memset(s.sum.data(), 0, s.sum.bytes());

  // Chunks are handed out in rising order and added in that order. A worker that is ahead waits for the chunks below,
  // which other workers already hold, so there are never more gradients in memory than workers.
  std::atomic<int> turn{0};
  const bool buffer_per_chunk = s.plan.gradients == kChunks;
  s.pool.parallel_for(kChunks, [&](int chunk, int worker) {
    const Range range = part_of(count, chunk, kChunks);
    const AlignedArray<Real>& part = s.partial[static_cast<std::size_t>(buffer_per_chunk ? chunk : worker)];
    const bool empty = range.begin == range.end;
    if (!empty) s.adjoint_chunk(range, worker, theta, psi_bar, alpha_bar, part.data());
    for (int now = turn.load(); now != chunk; now = turn.load()) turn.wait(now);
    if (!empty) s.kernels.add(part.data(), part.size(), s.sum.data());
    turn.store(chunk + 1);
    turn.notify_all();
  });
  s.add_to(gradient);
}

template <class Real>
void CpuNetwork<Real>::kappa(const Real* parameters, const Real* theta, int n, Real* kappa) {
  Storage& s = *storage_;
  EINFIELD_REQUIRE(n >= 0, "n = " + std::to_string(n) + " points, expected >= 0");
  s.pack(parameters);
  const int tiles = tiles_of(n);
  s.pool.parallel_for(tiles, [&](int tile, int worker_index) {
    Worker<Real>& worker = s.workers[static_cast<std::size_t>(worker_index)];
    const Range rows = part_of(n, tile, tiles);
    TilePoints<Real> points = worker.points(rows.end - rows.begin);
    points.x = theta + rows.begin;
    points.y = theta + n + rows.begin;
    s.kernels.kappa(s.net, points, worker.scratch.data(), kappa + rows.begin);
  });
}

template <class Real>
std::size_t CpuNetwork<Real>::bytes() const {
  const Storage& s = *storage_;
  std::size_t bytes = sizeof(Storage) + s.packed.bytes() + s.tape.bytes() + s.sum.bytes() + s.encoded.bytes() +
                      s.active.capacity() * sizeof(int) + s.workers.capacity() * sizeof(Worker<Real>);
  for (const AlignedArray<Real>& part : s.partial) bytes += part.bytes();
  for (const Worker<Real>& worker : s.workers) bytes += worker.scratch.bytes();
  return bytes;
}

template <class Real>
std::size_t CpuNetwork<Real>::planned_bytes(const NetworkShape& shape, int n_points, int threads,
                                            std::size_t tape_limit) {
  threads = ThreadPool::resolve(threads);
  const Plan<Real> plan(shape, n_points, threads, tape_limit);
  const auto count = [](int n) { return static_cast<std::size_t>(n); };
  return sizeof(Storage) + count(n_points) * sizeof(int) + count(threads) * sizeof(Worker<Real>) +
         sizeof(Real) * (plan.packed + plan.encoded + count(plan.tapes) * count(plan.tape_rows) * plan.tape_row +
                         (count(plan.gradients) + 1) * plan.gradient + count(threads) * plan.scratch);
}

template <class Real>
std::string CpuNetwork<Real>::instructions() {
  return tile_kernels<Real>().instructions;
}

template <class Real>
NetworkFields<Real> evaluate_network(const NetworkShape& shape, const std::vector<Real>& parameters,
                                     const std::vector<Real>& theta, ThreadPool& pool, bool with_convergence) {
  constexpr std::size_t kBatch = 8192;
  const std::size_t n = theta.size() / 2;
  NetworkFields<Real> fields{std::vector<Real>(n), std::vector<Real>(2 * n), std::vector<Real>(n)};
  CpuNetwork<Real> network(shape, static_cast<int>(std::min(n, kBatch)), pool, 0);  // no adjoint, so no tape
  std::vector<Real> positions, alpha;
  for (std::size_t begin = 0; begin < n; begin += kBatch) {
    const std::size_t size = std::min(kBatch, n - begin);
    positions.assign(theta.data() + begin, theta.data() + begin + size);
    positions.insert(positions.end(), theta.data() + n + begin, theta.data() + n + begin + size);
    alpha.resize(2 * size);
    const int count = static_cast<int>(size);
    network.forward(parameters.data(), positions.data(), count, fields.potential.data() + begin, alpha.data());
    if (with_convergence) network.kappa(parameters.data(), positions.data(), count, fields.convergence.data() + begin);
    std::copy_n(alpha.data(), size, fields.deflection.data() + begin);
    std::copy_n(alpha.data() + size, size, fields.deflection.data() + n + begin);
  }
  return fields;
}

template class CpuNetwork<float>;
template class CpuNetwork<double>;

template NetworkFields<float> evaluate_network(const NetworkShape&, const std::vector<float>&,
                                               const std::vector<float>&, ThreadPool&, bool);
template NetworkFields<double> evaluate_network(const NetworkShape&, const std::vector<double>&,
                                                const std::vector<double>&, ThreadPool&, bool);

}  // namespace einfield
