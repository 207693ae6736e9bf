// Compiled once per instruction set (Google Highway), like the tiles of host/cpu/network_tiles.cpp.
#include "bench/fma_peak.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

// The same choice as in host/cpu/network_tiles.cpp.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/fma_peak.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace einfield::bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// More than latency × units, and they must fit in the registers beside two operands.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kChains = 24;
#else
constexpr int kChains = 12;
#endif

/// @param operations  vector multiply-adds to do
/// @param sink        2 lanes in (the operands), one out, so that the compiler cannot remove the work
/// @return            FLOP done
template <class Real>
double run_chains(int operations, Real* sink) {
  const int rounds = operations / kChains;
  const hn::ScalableTag<Real> d;
  hn::Vec<decltype(d)> sum[kChains];
  const auto a = hn::Set(d, sink[0]), b = hn::Set(d, sink[1]);
#pragma GCC unroll 24
  for (int i = 0; i < kChains; ++i) sum[i] = hn::Set(d, sink[0] + static_cast<Real>(i));
  for (int round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) sum[i] = hn::MulAdd(sum[i], a, b);
  }
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) sum[0] = hn::Add(sum[0], sum[i]);
  sink[2] = hn::GetLane(hn::SumOfLanes(d, sum[0]));
  return 2.0 * rounds * kChains * static_cast<double>(hn::Lanes(d));
}
double run_single(int operations, float* sink) {
  return run_chains(operations, sink);
}
double run_double(int operations, double* sink) {
  return run_chains(operations, sink);
}
const char* target() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace HWY_NAMESPACE
}  // namespace einfield::bench
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace einfield::bench {

HWY_EXPORT(run_single);
HWY_EXPORT(run_double);
HWY_EXPORT(target);

namespace {

constexpr int kOperations = 480000;  // 0.05 to 0.15 ms

double run(float* sink) {
  return HWY_DYNAMIC_DISPATCH(run_single)(kOperations, sink);
}
double run(double* sink) {
  return HWY_DYNAMIC_DISPATCH(run_double)(kOperations, sink);
}

}  // namespace

template <class Real>
void FmaPeak<Real>::burst() {
  using Clock = std::chrono::steady_clock;
  const int threads = pool_.threads();
  std::atomic<int> missing{threads};
  std::vector<Clock::time_point> begin(static_cast<std::size_t>(threads)), end(begin.size());
  std::vector<double> flop(begin.size());
  // Every call waits for all others, so each thread takes exactly one.
  pool_.parallel_for(threads, [&](int, int worker) {
    const auto w = static_cast<std::size_t>(worker);
    Real sink[3] = {Real(0.5), Real(0.25), 0};
    missing.fetch_sub(1);
    while (missing.load() > 0) {
    }
    begin[w] = Clock::now();
    flop[w] = run(sink);
    end[w] = Clock::now();
  });
  double total = 0;
  for (const double f : flop) total += f;
  const std::chrono::duration<double> seconds =
      *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
  best_ = std::max(best_, total / seconds.count() * 1e-9);
  if (threads > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // wait until the pool's threads sleep
}

template <class Real>
std::string FmaPeak<Real>::instructions() {
  return HWY_DYNAMIC_DISPATCH(target)();
}

template class FmaPeak<float>;
template class FmaPeak<double>;

}  // namespace einfield::bench
#endif  // HWY_ONCE
