// The most that the processor's vector units can do, measured: chains of multiply-adds that never leave the registers.
#pragma once

#include <string>

#include "host/cpu/thread_pool.hpp"

namespace einfield::bench {

/// The best of many short bursts by all threads of a pool at once. Bursts between the timed runs see the same clock and
/// the same neighbors as these.
template <class Real>
class FmaPeak {
 public:
  explicit FmaPeak(int threads) : pool_(threads) {}

  void burst();
  double gflop_per_s() const { return best_; }

  /// The vector instructions in use, as Google Highway names them.
  static std::string instructions();

 private:
  ThreadPool pool_;
  double best_ = 0;
};

}  // namespace einfield::bench
