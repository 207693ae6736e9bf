// Measures the peak of the processor's vector units with chains of multiply-adds that stay in registers.
#pragma once

#include <string>

#include "host/cpu/thread_pool.hpp"

namespace einfield::bench {

/// The best of many short bursts by all threads of a pool at once. Bursts between the timed runs see the same clock
/// frequency and the same load from other programs.
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
