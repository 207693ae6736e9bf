// Tile kernels: a register-blocked product, one-exponential activations, value, adjoint and convergence of a tile.
// The source is compiled once per instruction set (Google Highway); nothing here allocates or depends on threads.
#include "host/cpu/network_tiles.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "host/cpu/vector_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/network_tiles.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace einfield::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class Real>
using Tag = hn::ScalableTag<Real>;
template <class Real>
using Vec = hn::Vec<Tag<Real>>;

template <class Real>
constexpr int kLanes = static_cast<int>(HWY_LANES(Real));

// Accumulators of the micro-kernel, whose panels are up to three vectors wide: 24 of 32 registers, or 12 of 16.
constexpr int kPanel = 3;
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
template <int kVectors>
constexpr int kRows = 8;
#else
template <int kVectors>
constexpr int kRows = kVectors == 3 ? 4 : 6;
#endif
constexpr int kDepthBlock = 256;  // a block of a panel stays in the first-level cache

// Whether a last vector that is at most half full is treated as half a vector: 4 % less work at width 200 where the
// processor does 512 bits in two steps, and no more anywhere.
#if HWY_TARGET <= HWY_AVX3
constexpr bool kHalves = true;
template <class Real>
using HalfTag = hn::Half<Tag<Real>>;
#else
constexpr bool kHalves = false;
template <class Real>
using HalfTag = Tag<Real>;
#endif

template <class Real>
HWY_INLINE Vec<Real> load(const Real* p) {
  return hn::LoadU(Tag<Real>(), p);
}
template <class Real>
HWY_INLINE void store(Vec<Real> v, Real* p) {
  hn::StoreU(v, Tag<Real>(), p);
}
template <class Real>
HWY_INLINE Vec<Real> broadcast(Real x) {
  return hn::Set(Tag<Real>(), x);
}
template <class Real>
HWY_INLINE Real sum(Vec<Real> v) {
  return hn::GetLane(hn::SumOfLanes(Tag<Real>(), v));
}
HWY_INLINE int vectors(int width, int lanes) {
  return (width + lanes - 1) / lanes;
}

// ---------------------------------------------------------------- products

/// Where the operands of C = start + A B lie. A(r, k) = a[r · a_row + k · a_depth]; B and C are row-major; B is strided
/// or packed in panels. start is a row for all (start_row = 0), a matrix, or null for zero.
template <class Real>
struct Product {
  const Real* a;
  std::ptrdiff_t a_row, a_depth;
  const Real* b;
  std::ptrdiff_t b_row;  ///< 0: packed
  Real* c;
  std::ptrdiff_t c_row;
  const Real* start;
  std::ptrdiff_t start_row;
};

/// kM rows × kN vectors of C in registers; with kHalf the last vector is half a vector, and zeros.
template <int kM, int kN, bool kHalf, class Real>
HWY_INLINE void micro_kernel(int depth, const Real* HWY_RESTRICT a, std::ptrdiff_t a_row, std::ptrdiff_t a_depth,
                             const Real* HWY_RESTRICT b, std::ptrdiff_t b_row, Real* c, std::ptrdiff_t c_row,
                             const Real* start, std::ptrdiff_t start_row) {
  constexpr int kL = kLanes<Real>, kFull = kHalf ? kN - 1 : kN;
  const HalfTag<Real> half;
  using HalfVec = hn::Vec<HalfTag<Real>>;
  Vec<Real> sum[std::size_t{kM}][std::size_t{kN}];
  HalfVec half_sum[std::size_t{kM}];
  EINFIELD_UNROLL
  for (int r = 0; r < kM; ++r) {
    EINFIELD_UNROLL
    for (int j = 0; j < kFull; ++j) sum[r][j] = start ? load(start + r * start_row + j * kL) : hn::Zero(Tag<Real>());
    if constexpr (kHalf) half_sum[r] = start ? hn::LoadU(half, start + r * start_row + kFull * kL) : hn::Zero(half);
  }
  for (int k = 0; k < depth; ++k, a += a_depth, b += b_row) {
    Vec<Real> row[std::size_t{kN}];
    EINFIELD_UNROLL
    for (int j = 0; j < kFull; ++j) row[j] = load(b + j * kL);
    HalfVec half_row;
    if constexpr (kHalf) half_row = hn::LoadU(half, b + kFull * kL);
    EINFIELD_UNROLL
    for (int r = 0; r < kM; ++r) {
      const Vec<Real> factor = broadcast(a[r * a_row]);
      EINFIELD_UNROLL
      for (int j = 0; j < kFull; ++j) sum[r][j] = hn::MulAdd(factor, row[j], sum[r][j]);
      if constexpr (kHalf) half_sum[r] = hn::MulAdd(hn::LowerHalf(half, factor), half_row, half_sum[r]);
    }
  }
  EINFIELD_UNROLL
  for (int r = 0; r < kM; ++r) {
    Real* const to = c + r * c_row;
    EINFIELD_UNROLL
    for (int j = 0; j < kFull; ++j) store(sum[r][j], to + j * kL);
    if constexpr (kHalf) {
      hn::StoreU(half_sum[r], half, to + kFull * kL);
      hn::StoreU(hn::Zero(half), half, to + kFull * kL + kL / 2);
    }
  }
}

/// All rows of one panel of kN vectors.
template <int kN, bool kHalf, class Real>
HWY_NOINLINE void panel_product(const Product<Real>& p, int rows, int depth, std::ptrdiff_t b_row) {
  int r = 0;
  for (; r + kRows<kN> <= rows; r += kRows<kN>)
    micro_kernel<kRows<kN>, kN, kHalf>(depth, p.a + r * p.a_row, p.a_row, p.a_depth, p.b, b_row, p.c + r * p.c_row,
                                       p.c_row, p.start ? p.start + r * p.start_row : nullptr, p.start_row);
  const auto rest = [&]<int kM>() HWY_ATTR {
    if ((rows - r) & kM) {
      micro_kernel<kM, kN, kHalf>(depth, p.a + r * p.a_row, p.a_row, p.a_depth, p.b, b_row, p.c + r * p.c_row, p.c_row,
                                  p.start ? p.start + r * p.start_row : nullptr, p.start_row);
      r += kM;
    }
  };
  rest.template operator()<4>();
  rest.template operator()<2>();
  rest.template operator()<1>();
}

/// Vectors of a product's columns are dealt out evenly to as few panels as possible: 13 = 3 + 3 + 3 + 2 + 2.
struct Panels {
  int vectors, count;
  explicit Panels(int n) : vectors(n), count((n + kPanel - 1) / kPanel) {}
  int begin(int panel) const { return vectors * panel / count; }
};

template <class Real>
void multiply(const Product<Real>& product, int rows, int columns, int depth) {
  constexpr int kL = kLanes<Real>;
  const Panels panels(vectors(columns, kL));
  const int blocks = (depth + kDepthBlock - 1) / kDepthBlock;
  for (int panel = 0; panel < panels.count; ++panel) {
    const std::ptrdiff_t begin = panels.begin(panel), width = panels.begin(panel + 1) - begin;
    const std::ptrdiff_t b_row = product.b_row ? product.b_row : width * kL;
    const Real* b = product.b + (product.b_row ? begin * kL : begin * kL * depth);
    for (int block = 0; block < blocks; ++block) {
      const int k = depth * block / blocks, k_end = depth * (block + 1) / blocks;
      Product<Real> part = product;
      part.a += k * product.a_depth;
      part.b = b + k * b_row;
      part.c += begin * kL;
      if (block > 0) {
        part.start = part.c;
        part.start_row = part.c_row;
      } else if (part.start) {
        part.start += begin * kL;
      }
      const bool half = kHalves && panel + 1 == panels.count && vectors(columns, kL) * kL - columns >= kL / 2;
      const auto run = [&]<int kN>() HWY_ATTR {
        if (width != kN) return;
        if constexpr (kHalves)
          if (half) return panel_product<kN, true>(part, rows, k_end - k, b_row);
        panel_product<kN, false>(part, rows, k_end - k, b_row);
      };
      run.template operator()<1>();
      run.template operator()<2>();
      run.template operator()<3>();
    }
  }
}

template <class Real>
void pack(const Real* matrix, bool transposed, int depth, int columns, Real* packed) {
  constexpr int kL = kLanes<Real>;
  const Panels panels(vectors(columns, kL));
  for (int panel = 0; panel < panels.count; ++panel) {
    const int begin = panels.begin(panel) * kL, end = panels.begin(panel + 1) * kL, inside = std::min(end, columns);
    for (int k = 0; k < depth; ++k) {
      const Real* row = transposed ? matrix + k : matrix + static_cast<std::ptrdiff_t>(k) * columns;
      const std::ptrdiff_t step = transposed ? depth : 1;
      for (int j = begin; j < inside; ++j) *packed++ = row[j * step];
      for (int j = inside; j < end; ++j) *packed++ = 0;
    }
  }
}

// ---------------------------------------------------------------- activation

// Series of exp(r), |r| ≤ ln 2 / 2. Single: 1 + r + …, the polynomial of least relative error, 3e-9. Double: Taylor,
// 4e-18.
constexpr double kExp[] = {
    1.0, 1.0, 0.499999934321, 0.166665203991, 0.0416683907855, 0.00836874510771, 0.00138145400785};
constexpr double kTaylor[] = {
    1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
    1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};

/// exp(x) for x ≤ 0, relative error within 2 units in the last place; 0 where the result is below the smallest normal
/// number; NaN stays NaN.
template <class Real>
HWY_INLINE Vec<Real> exp_negative(Vec<Real> x) {
  const Tag<Real> d;
  constexpr bool kFloat = std::is_same_v<Real, float>;
  using Bits = std::conditional_t<kFloat, std::uint32_t, std::uint64_t>;
  const hn::Rebind<Bits, Tag<Real>> bits;
  constexpr Real kLowest = kFloat ? Real(-87.336544f) : Real(-708.39641853226408);  // log of the smallest normal number
  // x = n ln 2 + r. Adding 1.5 · 2^(mantissa bits) leaves n in the low bits of the sum, whence it moves to the
  // exponent.
  constexpr int kMantissa = kFloat ? 23 : 52;
  constexpr Real kShift = kFloat ? Real(0x1.8p23) : Real(0x1.8p52);
  constexpr Bits kOne = kFloat ? Bits{0x3F800000u} : static_cast<Bits>(0x3FF0000000000000u);
  constexpr Real kLog2High = kFloat ? Real(0.693359375) : Real(6.93147180369123816490e-01);
  constexpr Real kLog2Low = kFloat ? Real(-2.12194440054690583e-4) : Real(1.90821492927058770002e-10);
  const Vec<Real> shifted = hn::MulAdd(x, broadcast<Real>(Real(1.4426950408889634074)), broadcast<Real>(kShift));
  const Vec<Real> n = hn::Sub(shifted, broadcast<Real>(kShift));
  const Vec<Real> r = hn::NegMulAdd(n, broadcast<Real>(kLog2Low), hn::NegMulAdd(n, broadcast<Real>(kLog2High), x));
  constexpr int kDegree = kFloat ? 6 : 13;
  const auto coefficient = [](int k)
                               HWY_ATTR { return broadcast<Real>(static_cast<Real>(kFloat ? kExp[k] : kTaylor[k])); };
  Vec<Real> series = coefficient(kDegree);
  EINFIELD_UNROLL
  for (int k = kDegree - 1; k >= 0; --k) series = hn::MulAdd(series, r, coefficient(k));
  const auto exponent = hn::Add(hn::ShiftLeft<kMantissa>(hn::BitCast(bits, shifted)), hn::Set(bits, kOne));
  const Vec<Real> result = hn::Mul(series, hn::BitCast(d, exponent));
  return hn::IfThenZeroElse(hn::Lt(x, broadcast<Real>(kLowest)), result);
}

/// 1/x for 1 ≤ x ≤ 2, or NaN.
template <class Real>
HWY_INLINE Vec<Real> reciprocal(Vec<Real> x) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (std::is_same_v<Real, float>) {  // 14 bits, doubled by a Newton step: cheaper than the division
    const Vec<Real> guess = hn::ApproximateReciprocal(x);
    return hn::MulAdd(hn::NegMulAdd(x, guess, broadcast<Real>(1)), guess, guess);
  }
#endif
  return hn::Div(broadcast<Real>(1), x);
}

template <class Real>
struct SwishVector {
  Vec<Real> value, sigma, tau, first;

  /// einfield::swish, lane by lane.
  HWY_INLINE explicit SwishVector(Vec<Real> a) {
    const Tag<Real> d;
    const Vec<Real> e = exp_negative<Real>(hn::Neg(hn::Abs(a)));
    const Vec<Real> big = reciprocal<Real>(hn::Add(broadcast<Real>(1), e)), small = hn::Mul(e, big);
    const auto negative = hn::Lt(a, hn::Zero(d));
    sigma = hn::IfThenElse(negative, small, big);
    tau = hn::IfThenElse(negative, big, small);
    value = hn::Mul(a, sigma);
    first = hn::MulAdd(value, tau, sigma);
  }
  HWY_INLINE Vec<Real> second() const {
    return hn::Mul(tau, hn::MulAdd(value, hn::Sub(tau, sigma), hn::Add(sigma, sigma)));
  }
};

/// The activation of Fourier features; NaN beyond kMaxPhase, where Highway's functions end (39000).
template <class Real>
struct SineVector {
  Vec<Real> value, first;

  HWY_INLINE explicit SineVector(Vec<Real> a) {
    const Tag<Real> d;
    const Vec<Real> nan = broadcast<Real>(std::numeric_limits<Real>::quiet_NaN());
    const auto inside = hn::Le(hn::Abs(a), broadcast<Real>(static_cast<Real>(kMaxPhase)));
    value = hn::IfThenElse(inside, hn::Sin(d, a), nan);
    first = hn::IfThenElse(inside, hn::Cos(d, a), nan);
  }
  HWY_INLINE Vec<Real> second() const { return hn::Neg(value); }
};

/// What the tiles compute, for the tests.
template <template <class> class Activation, class Real>
void activate_all(const Real* a, std::size_t n, Real* value, Real* first, Real* second) {
  for (std::size_t i = 0; i < n; i += static_cast<std::size_t>(kLanes<Real>)) {
    const Activation<Real> s(load(a + i));
    store(s.value, value + i);
    store(s.first, first + i);
    store(s.second(), second + i);
  }
}

template <class Real>
void add(const Real* part, std::size_t n, Real* sum) {
  for (std::size_t i = 0; i < n; i += static_cast<std::size_t>(kLanes<Real>))
    store(hn::Add(load(sum + i), load(part + i)), sum + i);
}

// ---------------------------------------------------------------- a tile

/// Hands out matrices from the scratch memory.
template <class Real>
class Scratch {
 public:
  explicit Scratch(Real* memory) : next_(memory) {}
  Real* take(std::ptrdiff_t rows, int stride) {
    Real* matrix = next_;
    next_ += rows * stride;
    return matrix;
  }

 private:
  Real* next_;
};

/// a_0 = W_1 u + b_1, lanes i … of one point.
template <class Real>
HWY_INLINE Vec<Real> first_layer(const TileNetwork<Real>& net, Vec<Real> ux, Vec<Real> uy, int i) {
  return hn::MulAdd(load(net.first[0] + i), ux, hn::MulAdd(load(net.first[1] + i), uy, load(net.bias[0] + i)));
}

/// h_0 = s(a_0) and s′ of all points.
template <template <class> class Activation, class Real>
HWY_INLINE void activate_first(const TileNetwork<Real>& net, const TilePoints<Real>& points, std::ptrdiff_t stride,
                               Real* h, Real* first) {
  for (int t = 0; t < points.count; ++t, h += stride, first += stride) {
    const Vec<Real> ux = broadcast<Real>(net.scale * points.x[t]), uy = broadcast<Real>(net.scale * points.y[t]);
    for (int i = 0; i < net.width[0]; i += kLanes<Real>) {
      const Activation<Real> s(first_layer(net, ux, uy, i));
      store(s.value, h + i);
      store(s.first, first + i);
    }
  }
}

template <class Real>
void forward(const TileNetwork<Real>& net, const TilePoints<Real>& points, const TileTape<Real>& tape, Real* scratch,
             Real* psi, Real* alpha_x, Real* alpha_y) {
  constexpr int kL = kLanes<Real>;
  const int m = points.count, last = net.hidden - 1;
  Scratch<Real> memory(scratch);
  int stride[kMaxHiddenLayers] = {}, widest = 0;
  Real* first[kMaxHiddenLayers] = {};  // s′ of the inner layers
  for (int l = 0; l <= last; ++l) {
    const bool on_tape = l == 0 && net.encoded;
    stride[l] = on_tape ? padded_width<Real>(net.width[l]) : row_stride<Real>(net.width[l]);
    widest = std::max(widest, row_stride<Real>(net.width[l]));
    first[l] = on_tape ? tape.encoding_first : l < last ? memory.take(m, stride[l]) : nullptr;
  }
  Real* const current = memory.take(m, widest);  // h_l on the way up, g_l on the way down
  const Real* below = current;

  if (net.encoded) {
    below = tape.encoding;
    if (!tape.encoding_is_known) activate_first<SineVector>(net, points, stride[0], tape.encoding, first[0]);
  } else if (last > 0) {
    activate_first<SwishVector>(net, points, stride[0], current, first[0]);
  } else {
    for (int t = 0; t < m; ++t) {
      const Vec<Real> ux = broadcast<Real>(net.scale * points.x[t]), uy = broadcast<Real>(net.scale * points.y[t]);
      Real* const row = current + static_cast<std::ptrdiff_t>(t) * stride[0];
      for (int i = 0; i < net.width[0]; i += kL) store(first_layer(net, ux, uy, i), row + i);
    }
  }
  for (int l = 1; l <= last; ++l) {
    const std::ptrdiff_t tape_stride = padded_width<Real>(net.width[l]);
    multiply<Real>({below, stride[l - 1], 1, net.up[l - 1], 0, tape.a[l], tape_stride, net.bias[l], 0}, m, net.width[l],
                   net.width[l - 1]);
    below = current;
    if (l == last) break;
    for (int t = 0; t < m; ++t) {
      const Real* const a = tape.a[l] + t * tape_stride;
      Real* const row = current + static_cast<std::ptrdiff_t>(t) * stride[l];
      Real* const d = first[l] + static_cast<std::ptrdiff_t>(t) * stride[l];
      for (int i = 0; i < net.width[l]; i += kL) {
        const SwishVector<Real> s(load(a + i));
        store(s.value, row + i);
        store(s.first, d + i);
      }
    }
  }
  const bool readout = last == 0 && net.encoded;  // of the features themselves
  for (int t = 0; t < m; ++t) {
    const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(t) * stride[last];
    Real* const row = current + at;
    const Real* const a =
        last == 0 ? row : tape.a[last] + static_cast<std::ptrdiff_t>(t) * padded_width<Real>(net.width[last]);
    Vec<Real> total = hn::Zero(Tag<Real>());
    const auto add = [&](int i, Vec<Real> h, Vec<Real> slope) HWY_ATTR {
      const Vec<Real> w = load(net.last + i);
      total = hn::MulAdd(h, w, total);
      store(hn::Mul(slope, w), row + i);
    };
    for (int i = 0; i < net.width[last]; i += kL) {
      if (readout) {
        add(i, load(below + at + i), load(first[0] + at + i));
      } else {
        const SwishVector<Real> s(load(a + i));
        add(i, s.value, s.first);
      }
    }
    psi[t] = sum<Real>(total) + net.last_bias;
  }

  for (int l = last - 1; l >= 0; --l) {
    const std::ptrdiff_t tape_stride = padded_width<Real>(net.width[l]);
    multiply<Real>({current, stride[l + 1], 1, net.down[l], 0, tape.p[l], tape_stride, nullptr, 0}, m, net.width[l],
                   net.width[l + 1]);
    for (int t = 0; t < m; ++t) {
      const Real* const p = tape.p[l] + t * tape_stride;
      const Real* const d = first[l] + static_cast<std::ptrdiff_t>(t) * stride[l];
      Real* const row = current + static_cast<std::ptrdiff_t>(t) * stride[l];
      for (int i = 0; i < net.width[l]; i += kL) store(hn::Mul(load(d + i), load(p + i)), row + i);
    }
  }
  for (int t = 0; t < m; ++t) {
    const Real* const g = current + static_cast<std::ptrdiff_t>(t) * stride[0];
    Vec<Real> x = hn::Zero(Tag<Real>()), y = x;
    for (int i = 0; i < net.width[0]; i += kL) {
      x = hn::MulAdd(load(g + i), load(net.first[0] + i), x);
      y = hn::MulAdd(load(g + i), load(net.first[1] + i), y);
    }
    alpha_x[t] = net.scale * sum<Real>(x);
    alpha_y[t] = net.scale * sum<Real>(y);
  }
}

/// Matrices of one layer in the adjoint. [p̄; h] and [g; ā] lie together, so that W̄ += p̄ᵀg + hᵀā is one product.
template <class Real>
struct AdjointLayer {
  int stride;
  Real *first, *p_bar, *h;  ///< s′, p̄, h; inner layers only
  Real *g, *a_bar;
};

/// Activations of layer l and the first part of its adjoint: ḡ (in a_bar on entry) → p̄, ā, h, g.
template <bool kFirst, bool kLast, class Real>
HWY_INLINE void adjoint_up(const TileNetwork<Real>& net, const TilePoints<Real>& points, const TileTape<Real>& tape,
                           int l, const AdjointLayer<Real>& layer, Real* last_bar) {
  const std::ptrdiff_t tape_stride = padded_width<Real>(net.width[l]);
  for (int t = 0; t < points.count; ++t) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(t) * layer.stride;
    const Vec<Real> ux = broadcast<Real>(net.scale * points.x[t]), uy = broadcast<Real>(net.scale * points.y[t]);
    const Vec<Real> u_bar_x = broadcast<Real>(net.scale * points.alpha_x_bar[t]),
                    u_bar_y = broadcast<Real>(net.scale * points.alpha_y_bar[t]);
    const Vec<Real> psi_bar = broadcast<Real>(points.psi_bar[t]);
    for (int i = 0; i < net.width[l]; i += kLanes<Real>) {
      Vec<Real> a, p, g_bar;
      if constexpr (kFirst) {
        a = first_layer(net, ux, uy, i);
        g_bar = hn::MulAdd(load(net.first[0] + i), u_bar_x, hn::Mul(load(net.first[1] + i), u_bar_y));
      } else {
        a = load(tape.a[l] + points.tape_row[t] * tape_stride + i);
        g_bar = load(layer.a_bar + row + i);
      }
      if constexpr (kLast)
        p = load(net.last + i);
      else
        p = load(tape.p[l] + points.tape_row[t] * tape_stride + i);
      const SwishVector<Real> s(a);
      const Vec<Real> g = hn::Mul(s.first, p);
      Vec<Real> a_bar = hn::Mul(s.second(), hn::Mul(p, g_bar));
      if constexpr (kLast) {
        a_bar = hn::MulAdd(psi_bar, g, a_bar);
        store(hn::Add(load(last_bar + i), hn::MulAdd(s.first, g_bar, hn::Mul(psi_bar, s.value))), last_bar + i);
      } else {
        store(s.first, layer.first + row + i);
        store(hn::Mul(s.first, g_bar), layer.p_bar + row + i);
        store(s.value, layer.h + row + i);
      }
      store(g, layer.g + row + i);
      store(a_bar, layer.a_bar + row + i);
    }
  }
}

/// The same for the layer of Fourier features, whose weights are fixed: p̄ and h are all that the layer above needs.
template <class Real>
HWY_INLINE void encoding_adjoint_up(const TileNetwork<Real>& net, const TilePoints<Real>& points,
                                    const TileTape<Real>& tape, const AdjointLayer<Real>& layer) {
  for (int t = 0; t < points.count; ++t) {
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(t) * layer.stride;
    const std::ptrdiff_t tape_row = points.tape_row[t] * padded_width<Real>(net.width[0]);
    const Vec<Real> u_bar_x = broadcast<Real>(net.scale * points.alpha_x_bar[t]),
                    u_bar_y = broadcast<Real>(net.scale * points.alpha_y_bar[t]);
    for (int i = 0; i < net.width[0]; i += kLanes<Real>) {
      const Vec<Real> g_bar = hn::MulAdd(load(net.first[0] + i), u_bar_x, hn::Mul(load(net.first[1] + i), u_bar_y));
      store(hn::Mul(load(tape.encoding_first + tape_row + i), g_bar), layer.p_bar + row + i);
      store(load(tape.encoding + tape_row + i), layer.h + row + i);
    }
  }
}

/// The same where the features are the last layer: w̄ = Σ p̄ + ψ̄ h, column by column.
template <class Real>
HWY_INLINE void readout_adjoint(const TileNetwork<Real>& net, const TilePoints<Real>& points,
                                const TileTape<Real>& tape, Real* last_bar) {
  for (int i = 0; i < net.width[0]; i += kLanes<Real>) {
    const Vec<Real> w_x = load(net.first[0] + i), w_y = load(net.first[1] + i);
    Vec<Real> w_bar = load(last_bar + i);
    for (int t = 0; t < points.count; ++t) {
      const std::ptrdiff_t at = points.tape_row[t] * padded_width<Real>(net.width[0]) + i;
      const Vec<Real> g_bar = hn::MulAdd(w_x, broadcast<Real>(net.scale * points.alpha_x_bar[t]),
                                         hn::Mul(w_y, broadcast<Real>(net.scale * points.alpha_y_bar[t])));
      w_bar = hn::MulAdd(load(tape.encoding_first + at), g_bar, w_bar);
      w_bar = hn::MulAdd(load(tape.encoding + at), broadcast<Real>(points.psi_bar[t]), w_bar);
    }
    store(w_bar, last_bar + i);
  }
}

/// The rest of layer l's adjoint: ā += s′ ∘ h̄, and the sums over points that are no product. Column by column, so that
/// the sums stay in registers.
template <bool kFirst, bool kLast, class Real>
HWY_INLINE void adjoint_down(const TileNetwork<Real>& net, const TilePoints<Real>& points,
                             const AdjointLayer<Real>& layer, const Real* h_bar, const TileGradient<Real>& gradient,
                             int l) {
  for (int i = 0; i < net.width[l]; i += kLanes<Real>) {
    Vec<Real> bias = load(gradient.bias[l] + i), x = hn::Zero(Tag<Real>()), y = x;
    if constexpr (kFirst) {
      x = load(gradient.first[0] + i);
      y = load(gradient.first[1] + i);
    }
    std::ptrdiff_t at = i;
    for (int t = 0; t < points.count; ++t, at += layer.stride) {
      Vec<Real> a_bar = load(layer.a_bar + at);
      if constexpr (!kLast) a_bar = hn::MulAdd(load(layer.first + at), load(h_bar + at), a_bar);
      bias = hn::Add(bias, a_bar);
      if constexpr (kFirst) {
        const Vec<Real> g = load(layer.g + at);
        x = hn::MulAdd(g, broadcast<Real>(net.scale * points.alpha_x_bar[t]),
                       hn::MulAdd(a_bar, broadcast<Real>(net.scale * points.x[t]), x));
        y = hn::MulAdd(g, broadcast<Real>(net.scale * points.alpha_y_bar[t]),
                       hn::MulAdd(a_bar, broadcast<Real>(net.scale * points.y[t]), y));
      } else if constexpr (!kLast) {
        store(a_bar, layer.a_bar + at);
      }
    }
    store(bias, gradient.bias[l] + i);
    if constexpr (kFirst) {
      store(x, gradient.first[0] + i);
      store(y, gradient.first[1] + i);
    }
  }
}

template <class Real>
void adjoint(const TileNetwork<Real>& net, const TilePoints<Real>& points, const TileTape<Real>& tape, Real* scratch,
             const TileGradient<Real>& gradient) {
  const int m = points.count, last = net.hidden - 1;
  for (int t = 0; t < m; ++t) *gradient.last_bias += points.psi_bar[t];
  if (net.encoded && last == 0) {
    readout_adjoint(net, points, tape, gradient.last);
    return;
  }
  Scratch<Real> memory(scratch);
  AdjointLayer<Real> layers[kMaxHiddenLayers];
  for (int l = 0; l <= last; ++l) {
    AdjointLayer<Real>& layer = layers[l];
    layer.stride = row_stride<Real>(net.width[l]);
    layer.first = l < last ? memory.take(m, layer.stride) : nullptr;
    layer.p_bar = l < last ? memory.take(m, layer.stride) : nullptr;
    layer.h = l < last ? memory.take(m, layer.stride) : nullptr;
    layer.g = memory.take(m, layer.stride);
    layer.a_bar = memory.take(m, layer.stride);
  }

  for (int l = 0; l <= last; ++l) {
    const AdjointLayer<Real>& layer = layers[l];
    if (l > 0)
      multiply<Real>(
          {layers[l - 1].p_bar, layers[l - 1].stride, 1, net.up[l - 1], 0, layer.a_bar, layer.stride, nullptr, 0}, m,
          net.width[l], net.width[l - 1]);
    if (l == 0 && net.encoded) {
      encoding_adjoint_up(net, points, tape, layer);
      continue;
    }
    if (l == 0 && l == last) adjoint_up<true, true>(net, points, tape, l, layer, gradient.last);
    if (l == 0 && l < last) adjoint_up<true, false>(net, points, tape, l, layer, gradient.last);
    if (l > 0 && l == last) adjoint_up<false, true>(net, points, tape, l, layer, gradient.last);
    if (l > 0 && l < last) adjoint_up<false, false>(net, points, tape, l, layer, gradient.last);
  }

  for (int l = last; l >= 0; --l) {
    const AdjointLayer<Real>& layer = layers[l];
    const Real* h_bar = nullptr;
    if (l < last) {
      const AdjointLayer<Real>& above = layers[l + 1];
      multiply<Real>({layer.p_bar, 1, layer.stride, above.g, above.stride, gradient.kernel[l], above.stride,
                      gradient.kernel[l], above.stride},
                     net.width[l], net.width[l + 1], 2 * m);
      if (l == 0 && net.encoded) break;
      multiply<Real>({above.a_bar, above.stride, 1, net.down[l], 0, layer.p_bar, layer.stride, nullptr, 0}, m,
                     net.width[l], net.width[l + 1]);
      h_bar = layer.p_bar;  // p̄ has served
    }
    if (l == 0 && l == last) adjoint_down<true, true>(net, points, layer, h_bar, gradient, l);
    if (l == 0 && l < last) adjoint_down<true, false>(net, points, layer, h_bar, gradient, l);
    if (l > 0 && l == last) adjoint_down<false, true>(net, points, layer, h_bar, gradient, l);
    if (l > 0 && l < last) adjoint_down<false, false>(net, points, layer, h_bar, gradient, l);
  }
}

/// Four lanes go through the network together: value, ∂x, ∂y and ∂xx + ∂yy. With s the activation,
///     h = s(a),  h_d = s′ a_d,  Δh = s″ (a_x² + a_y²) + s′ Δa,     κ = ½ w·Δh_L.
template <class Real>
void kappa(const TileNetwork<Real>& net, const TilePoints<Real>& points, Real* scratch, Real* kappa) {
  constexpr int kL = kLanes<Real>;
  const int m = points.count, last = net.hidden - 1;
  int widest = 0;
  for (int l = 0; l <= last; ++l) widest = std::max(widest, row_stride<Real>(net.width[l]));
  Scratch<Real> memory(scratch);
  Real* const before = memory.take(4 * m, widest);  // rows: a of all points, a_x, a_y, Δa
  Real* const after = memory.take(4 * m, widest);

  for (int l = 0; l <= last; ++l) {
    const int stride = row_stride<Real>(net.width[l]);
    const std::ptrdiff_t lane = static_cast<std::ptrdiff_t>(m) * stride;
    if (l > 0) {
      const int below = row_stride<Real>(net.width[l - 1]);
      multiply<Real>({after, below, 1, net.up[l - 1], 0, before, stride, net.bias[l], 0}, m, net.width[l],
                     net.width[l - 1]);
      multiply<Real>({after + static_cast<std::ptrdiff_t>(m) * below, below, 1, net.up[l - 1], 0, before + lane, stride,
                      nullptr, 0},
                     3 * m, net.width[l], net.width[l - 1]);
    }
    const auto activate = [&]<class Activation>() HWY_ATTR {
      for (int t = 0; t < m; ++t) {
        const Vec<Real> ux = broadcast<Real>(net.scale * points.x[t]), uy = broadcast<Real>(net.scale * points.y[t]);
        const Vec<Real> scale = broadcast<Real>(net.scale);
        Vec<Real> total = hn::Zero(Tag<Real>());
        for (int i = 0; i < net.width[l]; i += kL) {
          Real* const in = before + static_cast<std::ptrdiff_t>(t) * stride + i;
          Real* const out = after + static_cast<std::ptrdiff_t>(t) * stride + i;
          const Vec<Real> a = l == 0 ? first_layer(net, ux, uy, i) : load(in);
          const Vec<Real> a_x = l == 0 ? hn::Mul(scale, load(net.first[0] + i)) : load(in + lane);
          const Vec<Real> a_y = l == 0 ? hn::Mul(scale, load(net.first[1] + i)) : load(in + 2 * lane);
          const Vec<Real> laplacian = l == 0 ? hn::Zero(Tag<Real>()) : load(in + 3 * lane);
          const Activation s(a);
          const Vec<Real> square = hn::MulAdd(a_x, a_x, hn::Mul(a_y, a_y));
          const Vec<Real> h = hn::MulAdd(s.second(), square, hn::Mul(s.first, laplacian));
          if (l == last) total = hn::MulAdd(load(net.last + i), h, total);
          store(s.value, out);
          store(hn::Mul(s.first, a_x), out + lane);
          store(hn::Mul(s.first, a_y), out + 2 * lane);
          store(h, out + 3 * lane);
        }
        if (l == last) kappa[t] = sum<Real>(total) / 2;
      }
    };
    if (l == 0 && net.encoded)
      activate.template operator()<SineVector<Real>>();
    else
      activate.template operator()<SwishVector<Real>>();
  }
}

template <class Real>
const TileKernels<Real>& kernels() {
  static const TileKernels<Real> table{forward<Real>,
                                       adjoint<Real>,
                                       kappa<Real>,
                                       pack<Real>,
                                       add<Real>,
                                       activate_all<SwishVector, Real>,
                                       activate_all<SineVector, Real>,
                                       hwy::TargetName(HWY_TARGET)};
  return table;
}
static const TileKernels<float>& kernels_single() {
  return kernels<float>();
}
static const TileKernels<double>& kernels_double() {
  return kernels<double>();
}

}  // namespace einfield::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace einfield {

HWY_EXPORT(kernels_single);
HWY_EXPORT(kernels_double);

template <>
const TileKernels<float>& tile_kernels<float>() {
  return HWY_DYNAMIC_DISPATCH(kernels_single)();
}
template <>
const TileKernels<double>& tile_kernels<double>() {
  return HWY_DYNAMIC_DISPATCH(kernels_double)();
}

}  // namespace einfield
#endif  // HWY_ONCE
