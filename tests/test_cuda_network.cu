// The network on the device against the naive reference in double: values, α and every gradient, tiles and cuBLAS,
// float and double, one and several lenses; and that it repeats to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "einfield/cuda.hpp"
#include "kernels/network/tile/multiply_mma.cuh"
#include "kernels/raii.cuh"
#include "tests/reference_network.hpp"

namespace einfield::cuda {
namespace {

bool device_available() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  (void)cudaGetLastError();
  return found;
}

struct Case {
  std::vector<int> hidden;
  int points;
  int lenses;
  int features = 0;
};

std::string name(const Case& c) {
  std::string text = c.features > 0 ? std::to_string(c.features) + "fourier_" : "";
  for (const int width : c.hidden) text += std::to_string(width) + "_";
  return text + "n" + std::to_string(c.points) + "_lenses" + std::to_string(c.lenses);
}

template <class Real>
std::vector<Real> as(const std::vector<double>& values) {
  return std::vector<Real>(values.begin(), values.end());
}

/// Inputs of one case, drawn from Philox, and the reference's answers, lens after lens.
struct Problem {
  NetworkShape shape;
  int points, lenses;
  std::size_t stride;
  std::vector<double> parameters, positions, alpha_bar, psi_bar;
  std::vector<double> psi, alpha, gradient;
  bool own_positions;

  /// @param own  positions of each lens
  explicit Problem(const Case& c, bool with_psi_bar = true, bool own = false)
      : points(c.points), lenses(c.lenses), own_positions(own) {
    shape = {c.hidden, 0.7, c.features};
    stride = shape.size() + 3;  // lenses need not lie back to back
    const Philox philox{20210};
    std::uint64_t counter = 0;
    const auto normals = [&](std::size_t size, double sigma) {
      std::vector<double> values(size);
      for (double& value : values) value = sigma * philox.normal(counter++);
      return values;
    };
    positions = normals(2 * static_cast<std::size_t>(points) * static_cast<std::size_t>(own ? lenses : 1), 1.5);
    parameters.assign(stride * static_cast<std::size_t>(lenses), 0.0);
    for (int lens = 0; lens < lenses; ++lens)
      for (int l = 0; l < shape.layers(); ++l) {
        const std::size_t in = static_cast<std::size_t>(shape.inputs(l)),
                          out = static_cast<std::size_t>(shape.outputs(l));
        const std::vector<double> layer = normals((in + 1) * out, 1.2 / std::sqrt(static_cast<double>(in)));
        std::copy(layer.begin(), layer.end(),
                  parameters.begin() +
                      static_cast<std::ptrdiff_t>(static_cast<std::size_t>(lens) * stride + shape.kernel_offset(l)));
      }
    const std::size_t n = static_cast<std::size_t>(points) * static_cast<std::size_t>(lenses);
    alpha_bar = normals(2 * n, 1.0);
    psi_bar = with_psi_bar ? normals(n, 1.0) : std::vector<double>(n, 0.0);
    // Single precision sees the rounded numbers; the reference must see the same.
    for (auto* values : {&positions, &parameters, &alpha_bar, &psi_bar})
      for (double& value : *values) value = static_cast<float>(value);
    solve();
  }

  void solve() {
    const std::size_t n = static_cast<std::size_t>(points);
    psi.clear();
    alpha.clear();
    gradient.assign(stride * static_cast<std::size_t>(lenses), 0.0);
    for (std::size_t lens = 0; lens < static_cast<std::size_t>(lenses); ++lens) {
      const auto part = [&](const std::vector<double>& v, std::size_t size, std::size_t step) {
        return std::vector<double>(v.begin() + static_cast<std::ptrdiff_t>(lens * step),
                                   v.begin() + static_cast<std::ptrdiff_t>(lens * step + size));
      };
      const ReferenceResult r = reference_network(shape, part(parameters, shape.size(), stride),
                                                  part(positions, 2 * n, own_positions ? 2 * n : 0),
                                                  part(psi_bar, n, n), part(alpha_bar, 2 * n, 2 * n));
      psi.insert(psi.end(), r.psi.begin(), r.psi.end());
      alpha.insert(alpha.end(), r.alpha.begin(), r.alpha.end());
      std::copy(r.gradient.begin(), r.gradient.end(), gradient.begin() + static_cast<std::ptrdiff_t>(lens * stride));
    }
  }
};

template <class Real>
struct Answer {
  std::vector<Real> psi, alpha, gradient;
};

/// forward() once and adjoint() `repeats` times.
template <class Real>
Answer<Real> run(const Problem& problem, NetworkPath path, int repeats, const DeviceLimits& limits,
                 bool null_psi = false, bool null_alpha = false, NetworkMath math = NetworkMath::fp32) {
  const Stream stream;
  NetworkStage<Real> network(problem.shape, problem.points, problem.lenses, limits, path, math);
  const auto upload = [&](const std::vector<double>& values) {
    const std::vector<Real> host = as<Real>(values);
    DeviceBuffer<Real> buffer(host.size());
    buffer.upload(host, stream.get());
    stream.synchronize();
    return buffer;
  };
  const DeviceBuffer<Real> parameters = upload(problem.parameters), positions = upload(problem.positions),
                           alpha_bar = upload(problem.alpha_bar), psi_bar = upload(problem.psi_bar);
  DeviceBuffer<Real> psi(problem.psi.size()), alpha(problem.alpha.size()), gradient(problem.gradient.size());
  gradient.zero(stream.get());
  network.forward(stream.get(), parameters, problem.stride, positions, psi, alpha);
  for (int i = 0; i < repeats; ++i)
    network.adjoint(stream.get(), parameters, problem.stride, positions,
                    null_alpha ? View<const Real>() : View<const Real>(alpha_bar), gradient,
                    null_psi ? View<const Real>() : View<const Real>(psi_bar));
  return {psi.to_vector(stream.get()), alpha.to_vector(stream.get()), gradient.to_vector(stream.get())};
}

template <class Real>
void expect_close(const std::vector<Real>& actual, const std::vector<double>& expected, double factor, double tolerance,
                  const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0, worst = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(factor * value));
  std::size_t where = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - factor * expected[i]);
    if (!(error <= worst)) {
      worst = error;
      where = i;
    }
  }
  EXPECT_LE(worst, tolerance * largest) << what << "[" << where << "] = " << actual[where] << ", expected "
                                        << factor * expected[where];
}

/// Rounding of sums of up to `width` terms through up to five layers, twice (value and derivative): a few hundred units
/// in the last place of the largest component. A wrong or missing term is wrong by 1e-2 and more.
template <class Real>
constexpr double kTolerance = 256 * static_cast<double>(std::numeric_limits<Real>::epsilon());
/// As accurate as fp32, or with numbers of 11 bits: 2⁻¹² of rounding where fp32 has 2⁻²⁴, in each operand of a product
/// and not in each sum, so far fewer of them.
double tolerance(NetworkMath math) {
  return math == NetworkMath::tf32 ? 0x1p-6 : kTolerance<float>;
}

template <class Real>
void check(const Case& c, NetworkPath path, NetworkMath math = NetworkMath::fp32) {
  SCOPED_TRACE(name(c) + (path == NetworkPath::tiles ? " tiles " : " cublas ") + name_of(math) +
               (sizeof(Real) == 4 ? " float" : " double"));
  const Problem problem(c);
  const DeviceLimits limits = DeviceLimits::current();
  const double bound = sizeof(Real) == 4 ? tolerance(math) : kTolerance<Real>;
  ASSERT_EQ(NetworkStage<Real>::make_plan(problem.shape, c.points, c.lenses, limits, path, math).path, path);
  const Answer<Real> once = run<Real>(problem, path, 1, limits, false, false, math),
                     twice = run<Real>(problem, path, 2, limits, false, false, math);
  expect_close(once.psi, problem.psi, 1, bound, "psi");
  expect_close(once.alpha, problem.alpha, 1, bound, "alpha");
  expect_close(once.gradient, problem.gradient, 1, bound, "gradient");
  expect_close(twice.gradient, problem.gradient, 2, bound, "gradient of two adjoints");
  EXPECT_EQ(once.psi, twice.psi) << "same input, same bits";
  EXPECT_EQ(once.alpha, twice.alpha) << "same input, same bits";
  for (std::size_t lens = 0; lens < static_cast<std::size_t>(c.lenses); ++lens)
    for (std::size_t i = 0; i < problem.shape.fixed_size(); ++i)
      ASSERT_EQ(once.gradient[lens * problem.stride + i], 0) << "weight " << i << " of the encoding";
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {{{1}, 1, 1},
                                        {{7}, 31, 2},
                                        {{33}, 33, 1},
                                        {{200}, 31, 1},
                                        {{1, 1}, 33, 1},
                                        {{16, 16}, 31, 1},
                                        {{250, 301}, 31, 1},
                                        {{16, 33}, 1000, 3},
                                        {{33, 7, 16}, 33, 2},
                                        {{32, 200, 33}, 1, 1},
                                        {{200, 200, 200}, 200, 1},
                                        {{16, 16, 16, 16}, 400, 1},
                                        {{7, 33, 1, 32}, 31, 1},
                                        {{9, 8, 7, 6, 5}, 33, 2},
                                        {{30, 260, 20}, 100, 1},
                                        {{1}, 1, 1, 1},
                                        {{7}, 31, 2, 3},
                                        {{33}, 200, 1, 16},
                                        {{16, 33}, 1000, 3, 8},
                                        {{48}, 100, 1, 150},
                                        {{64, 64, 64}, 90, 1, 16},
                                        {{9, 8, 7, 6}, 33, 2, 20},
                                        {{}, 1, 1, 1},
                                        {{}, 1000, 2, 8},
                                        {{}, 90, 1, 190}};
  return all;
}

class CudaNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!device_available()) GTEST_SKIP() << "no CUDA device";
  }
};

TEST_F(CudaNetworkTest, TilesInSinglePrecisionAgreeWithTheReference) {
  for (const Case& c : cases()) check<float>(c, NetworkPath::tiles);
}
TEST_F(CudaNetworkTest, MatrixUnitsAgreeWithTheReference) {
  for (const NetworkMath math : {NetworkMath::tf32x3, NetworkMath::tf32})
    for (const Case& c : cases()) check<float>(c, NetworkPath::tiles, math);
}
TEST_F(CudaNetworkTest, TilesInDoublePrecisionAgreeWithTheReference) {
  for (const Case& c : cases()) check<double>(c, NetworkPath::tiles);
}
TEST_F(CudaNetworkTest, CublasInSinglePrecisionAgreesWithTheReference) {
  for (const Case& c : cases()) check<float>(c, NetworkPath::cublas);
}
TEST_F(CudaNetworkTest, CublasInDoublePrecisionAgreesWithTheReference) {
  for (const Case& c : cases()) check<double>(c, NetworkPath::cublas);
}

template <class Real>
void check_own_positions() {
  const DeviceLimits limits = DeviceLimits::current();
  for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas})
    for (const Case& c : {Case{{16}, 31, 3}, Case{{33, 7, 16}, 200, 2}, Case{{64, 64}, 1, 3}, Case{{}, 31, 3, 7}}) {
      SCOPED_TRACE(name(c) + (path == NetworkPath::tiles ? " tiles" : " cublas"));
      const Problem problem(c, true, true);
      const Answer<Real> answer = run<Real>(problem, path, 2, limits);
      expect_close(answer.psi, problem.psi, 1, kTolerance<Real>, "psi");
      expect_close(answer.alpha, problem.alpha, 1, kTolerance<Real>, "alpha");
      expect_close(answer.gradient, problem.gradient, 2, kTolerance<Real>, "gradient of two adjoints");
    }
}
TEST_F(CudaNetworkTest, LensesMayHavePositionsOfTheirOwn) {
  check_own_positions<float>();
  check_own_positions<double>();
}

TEST_F(CudaNetworkTest, AbsentCotangentOfTheDeflectionIsZero) {
  Problem problem(Case{{33, 7, 16}, 200, 2});
  std::fill(problem.alpha_bar.begin(), problem.alpha_bar.end(), 0.0);
  problem.solve();
  for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas}) {
    const Answer<float> absent = run<float>(problem, path, 1, DeviceLimits::current(), false, true),
                        zero = run<float>(problem, path, 1, DeviceLimits::current());
    EXPECT_EQ(absent.gradient, zero.gradient);
    expect_close(absent.gradient, problem.gradient, 1, kTolerance<float>, "gradient");
  }
}

/// Other devices get other tiles: a small card has little shared memory, and few multiprocessors make blocks take
/// several tiles each.
TEST_F(CudaNetworkTest, EveryTileSizeAgreesWithTheReference) {
  const DeviceLimits device = DeviceLimits::current();
  using Kernel = std::pair<int, bool>;  // tile, and whether it is one for narrow layers
  std::set<Kernel> plain, encoded;
  for (const std::size_t kilobytes : {48, 99, 163, 227})
    for (const int multiprocessors : {1, 2, 16}) {
      const DeviceLimits limits{multiprocessors, std::min(kilobytes * 1024, device.shared_bytes_per_block)};
      for (const auto& [hidden, points] : std::vector<std::pair<std::vector<int>, int>>{{{16, 9}, 1300},
                                                                                        {{30, 20, 32}, 130},
                                                                                        {{40, 24}, 130},
                                                                                        {{100, 90}, 64},
                                                                                        {{100, 90}, 130},
                                                                                        {{210, 100}, 130},
                                                                                        {{64, 200, 48}, 130}})
        for (const int features : {0, 5}) {
          const Case c{hidden, points, 1, features};
          SCOPED_TRACE(name(c) + " " + std::to_string(kilobytes) + " KB, " + std::to_string(multiprocessors));
          const NetworkShape shape{c.hidden, 0.7, c.features};
          const NetworkPlan plan = NetworkStage<float>::make_plan(shape, c.points, c.lenses, limits);
          if (plan.path != NetworkPath::tiles) continue;
          // There are two tiles of 128 points; that for narrow layers does not fit 48 KB.
          const int widest = *std::max_element(hidden.begin(), hidden.end());
          const bool narrow = plan.tile > 128 || (plan.tile == 128 && widest <= 64 && kilobytes > 48);
          const bool first = (features > 0 ? encoded : plain).insert({plan.tile, narrow}).second;
          if (features > 0 && !first) continue;  // the same kernel as before
          const Problem problem(c);
          const Answer<float> answer = run<float>(problem, NetworkPath::tiles, 1, limits);
          expect_close(answer.psi, problem.psi, 1, kTolerance<float>, "psi");
          expect_close(answer.alpha, problem.alpha, 1, kTolerance<float>, "alpha");
          expect_close(answer.gradient, problem.gradient, 1, kTolerance<float>, "gradient");
        }
    }
  for (const int tile : {512, 256, 128}) EXPECT_TRUE(plain.count({tile, true})) << tile;
  if (device.shared_bytes_per_block >= 99 * 1024)
    for (const int tile : {16, 40, 64, 80, 128}) EXPECT_TRUE(plain.count({tile, false})) << tile;
  EXPECT_EQ(plain, encoded);
}

/// The tiles of the matrix units, blocks with several tiles, and layers of more than one pass.
TEST_F(CudaNetworkTest, EveryTileOfTheMatrixUnitsAgreesWithTheReference) {
  const DeviceLimits device = DeviceLimits::current();
  std::set<std::pair<int, bool>> tiles;  // and whether with Fourier features
  for (const std::size_t kilobytes : {99, 227})
    for (const int multiprocessors : {1, 7}) {
      const DeviceLimits limits{multiprocessors, std::min(kilobytes * 1024, device.shared_bytes_per_block),
                                kTensorCapability};
      for (const Case& c :
           {Case{{40, 24}, 310, 2}, Case{{64, 200, 48}, 90, 1}, Case{{290, 17}, 33, 1}, Case{{200, 120}, 333, 1},
            Case{{40, 24}, 300, 2, 13}, Case{{64, 200, 48}, 90, 1, 5}, Case{{290, 17}, 33, 1, 5}}) {
        SCOPED_TRACE(name(c) + " " + std::to_string(kilobytes) + " KB, " + std::to_string(multiprocessors));
        const Problem problem(c);
        const auto math = NetworkMath::tf32x3;
        NetworkPlan plan;
        try {
          plan = NetworkStage<float>::make_plan(problem.shape, c.points, c.lenses, limits, NetworkPath::tiles, math);
        } catch (const InvalidInput&) {
          continue;
        }
        const bool first = tiles.insert({plan.tile, c.features > 0}).second;
        if (c.features == 5 && !first) continue;  // the same kernel as before
        const Answer<float> answer = run<float>(problem, NetworkPath::tiles, 1, limits, false, false, math);
        expect_close(answer.psi, problem.psi, 1, kTolerance<float>, "psi");
        expect_close(answer.alpha, problem.alpha, 1, kTolerance<float>, "alpha");
        expect_close(answer.gradient, problem.gradient, 1, kTolerance<float>, "gradient");
        EXPECT_EQ(run<float>(problem, NetworkPath::tiles, 1, limits, false, false, math).gradient, answer.gradient);
        if (!first) continue;
        const Answer<float> rounded =
            run<float>(problem, NetworkPath::tiles, 1, limits, false, false, NetworkMath::tf32);
        expect_close(rounded.psi, problem.psi, 1, tolerance(NetworkMath::tf32), "psi");
        expect_close(rounded.alpha, problem.alpha, 1, tolerance(NetworkMath::tf32), "alpha");
        expect_close(rounded.gradient, problem.gradient, 1, tolerance(NetworkMath::tf32), "gradient");
      }
    }
  if (device.shared_bytes_per_block < 227 * 1024) return;  // the larger tiles do not fit this device
  for (const int tile : {32, 48, 80})
    for (const bool features : {false, true})
      EXPECT_TRUE(tiles.count({tile, features})) << "the limits above no longer reach a tile of " << tile;
  EXPECT_EQ(tiles.size(), 6u);
}

/// What the matrix units cannot do is an error, never done otherwise.
TEST(CudaNetworkPlan, MatrixUnitsAreUsedOrRefused) {
  NetworkShape shape;
  shape.hidden = {200, 200, 200};
  const auto plan = [&shape](NetworkMath math, int capability, NetworkPath path = NetworkPath::automatic) {
    return NetworkStage<float>::make_plan(shape, 10000, 1, {132, 227 * 1024, capability}, path, math);
  };
  for (const NetworkMath math : {NetworkMath::tf32x3, NetworkMath::tf32}) {
    EXPECT_EQ(plan(math, 90).tile, 80);
    EXPECT_EQ(plan(math, 90).blocks, 125);
    EXPECT_EQ(NetworkStage<float>::make_plan(shape, 10000, 1, {108, 163 * 1024, 80}, NetworkPath::automatic, math).tile,
              48);
    EXPECT_THROW(plan(math, 75), InvalidInput);
    EXPECT_THROW(plan(math, 90, NetworkPath::cublas), InvalidInput);
    EXPECT_THROW(NetworkStage<double>::make_plan(shape, 10000, 1, {132, 227 * 1024, 90}, NetworkPath::automatic, math),
                 InvalidInput);
    shape.hidden = {4096, 4096};
    EXPECT_THROW(plan(math, 90), InvalidInput);
    shape.hidden = {200, 200, 200};
  }
  EXPECT_EQ(plan(NetworkMath::fp32, 75).path, NetworkPath::tiles);
}

TEST_F(CudaNetworkTest, RepeatsToTheBit) {
  const DeviceLimits limits = DeviceLimits::current();
  for (const Case& c : {Case{{33, 200, 32}, 200, 2}, Case{{33, 32}, 200, 2, 12}}) {
    const Problem problem(c);
    for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas}) {
      const Answer<float> first = run<float>(problem, path, 1, limits), second = run<float>(problem, path, 1, limits);
      EXPECT_EQ(first.psi, second.psi);
      EXPECT_EQ(first.alpha, second.alpha);
      EXPECT_EQ(first.gradient, second.gradient);
    }
  }
}

/// Tiles without any cotangent are left out; a block that sees none must still add zeros, not what was there before.
TEST_F(CudaNetworkTest, MaskedPointsContributeNothing) {
  for (const int features : {0, 10}) {
    Problem problem(Case{{20, 30}, 900, 2, features}, false);
    const std::size_t n = static_cast<std::size_t>(problem.points);
    for (std::size_t i = 0; i < problem.alpha_bar.size(); ++i)
      if (i % n > 60) problem.alpha_bar[i] = 0;
    problem.solve();
    DeviceLimits limits = DeviceLimits::current();
    for (const int multiprocessors : {2, 64}) {
      limits.multiprocessors = multiprocessors;
      const Answer<float> answer = run<float>(problem, NetworkPath::tiles, 2, limits, true);
      expect_close(answer.gradient, problem.gradient, 2, kTolerance<float>, "gradient");
    }
  }
}

TEST_F(CudaNetworkTest, NoCotangentAddsNothing) {
  Problem problem(Case{{20, 30}, 100, 2}, false);
  std::fill(problem.alpha_bar.begin(), problem.alpha_bar.end(), 0.0);
  for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas})
    for (const bool null_psi : {false, true}) {
      const Answer<float> answer = run<float>(problem, path, 2, DeviceLimits::current(), null_psi);
      for (const float value : answer.gradient) ASSERT_EQ(value, 0.0f);
    }
}

/// A device that grants too little shared memory for any tile gets the cuBLAS path without being told.
TEST_F(CudaNetworkTest, TakesCublasWhereNoTileFits) {
  DeviceLimits limits = DeviceLimits::current();
  limits.shared_bytes_per_block = 8 * 1024;
  const Problem problem(Case{{40, 24}, 33, 2});
  ASSERT_EQ(NetworkStage<float>::make_plan(problem.shape, problem.points, problem.lenses, limits).path,
            NetworkPath::cublas);
  const Answer<float> answer = run<float>(problem, NetworkPath::automatic, 1, limits);
  expect_close(answer.psi, problem.psi, 1, kTolerance<float>, "psi");
  expect_close(answer.alpha, problem.alpha, 1, kTolerance<float>, "alpha");
  expect_close(answer.gradient, problem.gradient, 1, kTolerance<float>, "gradient");
}

template <class Real>
__global__ void sine_kernel(int n, const Real* a, Real* sines, Real* cosines) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  sines[i] = sine(a[i]);
  cosines[i] = cosine(a[i]);
}

/// The device's own arithmetic: what holds on the host must hold here (1.5 ε), and what is no phase must show.
template <class Real>
void check_sine() {
  std::vector<Real> a;
  for (int i = -4000; i <= 4000; ++i) {
    a.push_back(static_cast<Real>(kMaxPhase * std::pow(std::abs(i) / 4000.0, 3) * (i < 0 ? -1 : 1)));
    a.push_back(static_cast<Real>(i * 1.5707963267948966));
  }
  const std::size_t finite = a.size();
  a.push_back(std::numeric_limits<Real>::quiet_NaN());
  a.push_back(-std::numeric_limits<Real>::infinity());
  a.push_back(static_cast<Real>(1e30));
  const Stream stream;
  DeviceBuffer<Real> in(a.size()), sines(a.size()), cosines(a.size());
  in.upload(a, stream.get());
  const int n = static_cast<int>(a.size());
  const auto blocks = static_cast<unsigned>((n + 255) / 256);
  sine_kernel<<<blocks, 256, 0, stream.get()>>>(n, in.get(), sines.get(), cosines.get());
  EINFIELD_LAUNCH_CHECK();
  const std::vector<Real> s = sines.to_vector(stream.get()), c = cosines.to_vector(stream.get());
  constexpr double kError = 1.5 * static_cast<double>(std::numeric_limits<Real>::epsilon());
  for (std::size_t i = 0; i < finite; ++i) {
    ASSERT_NEAR(s[i], std::sin(static_cast<double>(a[i])), kError) << a[i];
    ASSERT_NEAR(c[i], std::cos(static_cast<double>(a[i])), kError) << a[i];
  }
  for (std::size_t i = finite; i < a.size(); ++i) EXPECT_TRUE(std::isnan(s[i]) && std::isnan(c[i])) << a[i];
}

TEST_F(CudaNetworkTest, SineIsAccurate) {
  check_sine<float>();
  check_sine<double>();
}

__global__ void split_kernel(int n, const unsigned* x, unsigned* big, unsigned* small, unsigned* rounded) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  tensor::split(__uint_as_float(x[i]), big[i], small[i]);
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded[i]) : "f"(__uint_as_float(x[i])));
#endif
}

/// The split of tf32x3 against the device's own rounding: the same 19 bits, nothing below them, nothing lost.
TEST_F(CudaNetworkTest, NumbersAreSplitAsTheDeviceRounds) {
  if (DeviceLimits::current().compute_capability < kTensorCapability) GTEST_SKIP() << "no matrix units for TF32";
  std::vector<unsigned> x;
  for (unsigned exponent = 0; exponent < 256; ++exponent)
    for (const unsigned kept : {0u, 1u, 2u, 511u, 1022u, 1023u})
      for (const unsigned cut : {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x1fffu})
        for (const unsigned sign : {0u, 1u}) x.push_back(sign << 31 | exponent << 23 | kept << 13 | cut);
  const Stream stream;
  const auto n = static_cast<int>(x.size());
  DeviceBuffer<unsigned> in(x.size()), big(x.size()), small(x.size()), rounded(x.size());
  in.upload(x, stream.get());
  split_kernel<<<static_cast<unsigned>((n + 255) / 256), 256, 0, stream.get()>>>(n, in.get(), big.get(), small.get(),
                                                                                 rounded.get());
  EINFIELD_LAUNCH_CHECK();
  const std::vector<unsigned> b = big.to_vector(stream.get()), s = small.to_vector(stream.get()),
                              r = rounded.to_vector(stream.get());
  const auto number = [](unsigned bits) {
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    SCOPED_TRACE(x[i]);
    if (!std::isfinite(number(x[i]))) {
      EXPECT_FALSE(std::isfinite(number(b[i])) && std::isfinite(number(s[i])));
      continue;
    }
    ASSERT_EQ(b[i], r[i] & 0xffffe000u);
    if (std::isfinite(number(b[i]))) {
      ASSERT_EQ(number(b[i]) + number(s[i]), number(x[i]));
    }
  }
}

/// A non-finite weight must reach ψ and α, where the step is refused; a clamp or a skip must not hide it.
TEST_F(CudaNetworkTest, NonFiniteWeightsShow) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (const int features : {0, 4})
      for (const int layer : {0, 1}) {
        Problem problem(Case{{16, 16}, 33, 1, features});
        problem.parameters[problem.shape.kernel_offset(layer) + 5] = bad;
        const auto expect_nothing_finite = [](const Answer<float>& answer) {
          for (const float value : answer.psi) ASSERT_FALSE(std::isfinite(value));
          for (const float value : answer.alpha) ASSERT_FALSE(std::isfinite(value));
        };
        for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas})
          expect_nothing_finite(run<float>(problem, path, 1, DeviceLimits::current()));
        for (const NetworkMath math : {NetworkMath::tf32x3, NetworkMath::tf32})
          expect_nothing_finite(
              run<float>(problem, NetworkPath::tiles, 1, DeviceLimits::current(), false, false, math));
      }
  }
}

/// The constructor takes the memory that the plan announces, up to the granularity of the allocator.
TEST_F(CudaNetworkTest, PlannedBytesAreTaken) {
  NetworkShape shape;
  shape.hidden = {200, 200, 200};
  const DeviceLimits limits = DeviceLimits::current();
  constexpr int kPoints = 10000, kLenses = 2;
  const NetworkPlan plan = NetworkStage<float>::make_plan(shape, kPoints, kLenses, limits, NetworkPath::tiles);
  const auto free_bytes = [] {
    std::size_t free = 0, total = 0;
    EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
    return free;
  };
  // The first one also loads kernels and makes the driver allocate for itself.
  NetworkStage<float>(shape, kPoints, kLenses, limits, NetworkPath::tiles);
  const std::size_t before = free_bytes();
  const NetworkStage<float> network(shape, kPoints, kLenses, limits, NetworkPath::tiles);
  const double taken = static_cast<double>(before - free_bytes()), planned = static_cast<double>(plan.workspace_bytes);
  EXPECT_NEAR(taken, planned, 8 << 20);
  EXPECT_GT(planned, 64 << 20);
}

/// Without a tape: the same bits, in any number of launches, from less memory.
template <class Real>
void check_inference(const Case& c, NetworkPath path, bool own_positions, NetworkMath math = NetworkMath::fp32) {
  const Problem problem(c, true, own_positions);
  const Stream stream;
  const auto on_device = [&](const std::vector<double>& values) {
    const std::vector<Real> host = as<Real>(values);
    DeviceBuffer<Real> buffer(host.size());
    buffer.upload(host, stream.get());
    stream.synchronize();
    return buffer;
  };
  const DeviceBuffer<Real> parameters = on_device(problem.parameters), positions = on_device(problem.positions);
  for (const int multiprocessors : {1, 5, 132}) {
    SCOPED_TRACE(name(c) + (path == NetworkPath::tiles ? " tiles " : " cublas ") + std::to_string(multiprocessors));
    DeviceLimits limits = DeviceLimits::current();
    limits.multiprocessors = multiprocessors;
    NetworkStage<Real> kept(problem.shape, c.points, c.lenses, limits, path, math),
        none(problem.shape, c.points, c.lenses, limits, path, math, NetworkTape::none);
    std::vector<Real> psi[2], alpha[2];
    for (NetworkStage<Real>* stage : {&kept, &none}) {
      DeviceBuffer<Real> potential(problem.psi.size()), deflection(problem.alpha.size());
      stage->forward(stream.get(), parameters, problem.stride, positions, potential, deflection);
      psi[stage == &none] = potential.to_vector(stream.get());
      alpha[stage == &none] = deflection.to_vector(stream.get());
    }
    EXPECT_EQ(psi[1], psi[0]);
    EXPECT_EQ(alpha[1], alpha[0]);
    if (path == NetworkPath::tiles || c.lenses > 1) EXPECT_LT(none.plan().workspace_bytes, kept.plan().workspace_bytes);
    DeviceBuffer<Real> gradient(problem.gradient.size());
    EXPECT_THROW(none.adjoint(stream.get(), parameters, problem.stride, positions, {}, gradient), InvalidInput);
  }
}

TEST_F(CudaNetworkTest, InferenceNeedsNoTape) {
  for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas})
    for (const Case& c :
         {Case{{33, 7, 16}, 700, 2}, Case{{16}, 31, 1}, Case{{16, 33}, 333, 3, 8}, Case{{}, 333, 2, 40}}) {
      check_inference<float>(c, path, false);
      check_inference<double>(c, path, true);
    }
  check_inference<float>(Case{{40, 24}, 310, 2}, NetworkPath::tiles, false, NetworkMath::tf32x3);
}

TEST_F(CudaNetworkTest, RefusesOverlappingParameters) {
  const Stream stream;
  NetworkShape shape;
  shape.hidden = {4};
  NetworkStage<float> network(shape, 8, 2, DeviceLimits::current());
  DeviceBuffer<float> parameters(2 * shape.size()), values(16), vectors(32);
  EXPECT_THROW(network.forward(stream.get(), parameters, shape.size() - 1, vectors, values, vectors), InvalidInput);
}

TEST_F(CudaNetworkTest, LargeActivationsStayFinite) {
  Problem problem(Case{{16, 16}, 33, 1});
  for (double& value : problem.parameters) value *= 60;  // pre-activations beyond the overflow of exp
  problem.solve();
  const Answer<float> answer = run<float>(problem, NetworkPath::tiles, 1, DeviceLimits::current());
  for (const auto* values : {&answer.psi, &answer.alpha, &answer.gradient})
    for (const float value : *values) ASSERT_TRUE(std::isfinite(value));
}

TEST_F(CudaNetworkTest, StepRunsFromAGraph) {
  const Problem problem(Case{{33, 40}, 100, 2});
  const Stream stream;
  for (const NetworkPath path : {NetworkPath::tiles, NetworkPath::cublas}) {
    NetworkStage<float> network(problem.shape, problem.points, problem.lenses, DeviceLimits::current(), path);
    DeviceBuffer<float> parameters(problem.parameters.size()), positions(problem.positions.size()),
        alpha_bar(problem.alpha_bar.size()), psi(problem.psi.size()), alpha(problem.alpha.size()),
        gradient(problem.gradient.size());
    const std::vector<float> host[] = {as<float>(problem.parameters), as<float>(problem.positions),
                                       as<float>(problem.alpha_bar)};
    parameters.upload(host[0], stream.get());
    positions.upload(host[1], stream.get());
    alpha_bar.upload(host[2], stream.get());
    stream.synchronize();
    const Graph graph = Graph::capture(stream.get(), [&] {
      gradient.zero(stream.get());
      network.forward(stream.get(), parameters, problem.stride, positions, psi, alpha);
      network.adjoint(stream.get(), parameters, problem.stride, positions, alpha_bar, gradient);
    });
    graph.launch(stream.get());
    const std::vector<float> first = gradient.to_vector(stream.get());
    graph.launch(stream.get());
    const Answer<float> direct = run<float>(problem, path, 1, DeviceLimits::current(), true);
    EXPECT_EQ(gradient.to_vector(stream.get()), first);
    EXPECT_EQ(first, direct.gradient);
    EXPECT_EQ(psi.to_vector(stream.get()), direct.psi);

    // The next step of a fit: other parameters at the same place.
    Problem next = problem;
    for (double& value : next.parameters) value *= 1.25;
    const std::vector<float> moved_parameters = as<float>(next.parameters);
    parameters.upload(moved_parameters, stream.get());
    stream.synchronize();
    graph.launch(stream.get());
    const Answer<float> moved = run<float>(next, path, 1, DeviceLimits::current(), true);
    EXPECT_EQ(gradient.to_vector(stream.get()), moved.gradient);
    EXPECT_NE(moved.gradient, first);
  }
}

TEST(CudaNetworkPlan, ChoosesTilesByShapeAndDevice) {
  const auto plan = [](std::vector<int> hidden, int points, DeviceLimits limits,
                       NetworkPath path = NetworkPath::automatic) {
    NetworkShape shape;
    shape.hidden = std::move(hidden);
    return NetworkStage<float>::make_plan(shape, points, 1, limits, path);
  };
  const DeviceLimits h100{132, 227 * 1024}, a100{108, 163 * 1024}, consumer{128, 99 * 1024};
  const NetworkPlan paper = plan({200, 200, 200}, 10000, h100);
  EXPECT_EQ(paper.path, NetworkPath::tiles);
  EXPECT_EQ(paper.tile, 80);
  EXPECT_EQ(paper.blocks, 125);
  // Two rounds of 80 points on 108 multiprocessors, the second nearly empty; three of 40 take three quarters of that
  // time.
  EXPECT_EQ(plan({200, 200, 200}, 10000, a100).tile, 40);
  EXPECT_EQ(plan({200, 200, 200}, 10000, consumer).tile, 40);
  EXPECT_EQ(plan({4096, 4096}, 10000, h100).path, NetworkPath::cublas);
  EXPECT_THROW(plan({4096, 4096}, 10000, h100, NetworkPath::tiles), InvalidInput);
  EXPECT_THROW(plan({16}, 0, h100), InvalidInput);
  EXPECT_THROW(plan({}, 10, h100), InvalidInput);
}

/// Narrow layers get tiles whose threads all have channels, and therefore no padding in the tape.
TEST(CudaNetworkPlan, NarrowNetworksGetTilesOfTheirOwn) {
  const DeviceLimits h100{132, 227 * 1024, 90};
  for (const auto& [width, tile] :
       std::vector<std::pair<int, int>>{{5, 512}, {16, 512}, {17, 256}, {32, 256}, {33, 128}, {64, 128}}) {
    NetworkShape shape;
    shape.hidden = {width, width, width};
    const NetworkPlan plan = NetworkStage<float>::make_plan(shape, 10000, 64, h100);
    EXPECT_EQ(plan.tile, tile) << width;
    EXPECT_LT(2 * (plan.shared_bytes + 1024), std::size_t{228} * 1024) << "two blocks do not fit a multiprocessor";
  }
  NetworkShape shape;
  shape.hidden = {16, 16, 16};
  const double bytes = static_cast<double>(NetworkStage<float>::make_plan(shape, 10000, 1000, h100).workspace_bytes);
  EXPECT_LT(bytes, 4e9);
  EXPECT_GT(bytes, 1000.0 * 4 * 10000 * 16 * sizeof(float)) << "a and p of two layers each";
}

/// Blocks share tiles when there are many systems: each has partial sums of its own to write and to add up.
TEST(CudaNetworkPlan, ManySystemsTakeFewBlocks) {
  const DeviceLimits h100{132, 227 * 1024, 90};
  NetworkShape shape;
  shape.hidden = {200, 200, 200};
  const NetworkPlan one = NetworkStage<float>::make_plan(shape, 10000, 1, h100),
                    many = NetworkStage<float>::make_plan(shape, 10000, 1000, h100);
  EXPECT_EQ(one.blocks, 125);
  EXPECT_LE(many.blocks, 25);
  EXPECT_EQ(many.tile, 80);
  EXPECT_LT(static_cast<double>(many.workspace_bytes), 45e9);
}

}  // namespace
}  // namespace einfield::cuda
