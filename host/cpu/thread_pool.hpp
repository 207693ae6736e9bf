// A pool of threads for loops over chunks and tiles: dynamic order, one caller at a time, denormals flushed.
// Results must not depend on the order; reproducible sums use fixed chunks (see host/cpu/network.cpp).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace einfield {

/// Threads that wait between loops. The caller of parallel_for also works, so a pool of one starts no thread.
class ThreadPool {
 public:
  /// @param threads  number of working threads, the caller included; 0 = all that the process may use (its affinity)
  /// @throws InvalidInput for a number out of 0 … 1024, IoError when the system refuses a thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// The number of threads for such a request. @throws InvalidInput as the constructor does.
  static int resolve(int threads);

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls f(index, worker) for every index in [0, n), in rising order; worker in [0, threads()) names the
  /// thread, for scratch memory. Returns when all calls are done. After an exception no further call begins and
  /// the first exception is thrown here. Denormals are zero inside f, in every thread; the caller's mode is restored.
  /// Calls from several threads take turns. @pre f does not call parallel_for of the same pool.
  template <class F>
  void parallel_for(int n, F&& f) {
    using Function = std::remove_reference_t<F>;
    run(
        n, [](void* context, int index, int worker) { (*static_cast<Function*>(context))(index, worker); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }

 private:
  using Call = void (*)(void* context, int index, int worker);

  void run(int n, Call call, void* context);
  void work(int worker);  ///< works on indices until none is left
  void wait_for_work(int worker);
  /// Watches for a moment, where there is a processor for every thread: the loops of a step follow each other faster
  /// than a sleeping thread wakes up. Returns early when `ready()` holds.
  template <class Ready>
  void watch(Ready&& ready) const;
  void stop();

  std::vector<std::thread> workers_;
  std::mutex caller_;  ///< one loop at a time
  std::mutex mutex_;
  std::condition_variable start_, done_;
  // These three change under mutex_ and are read without it by watch().
  std::atomic<std::uint64_t> loop_{0};  ///< number of loops begun
  std::atomic<int> busy_{0};            ///< workers that have not finished the current loop
  std::atomic<bool> stopping_{false};
  bool watchful_ = false;  ///< whether there is a processor for every thread

  // The current loop.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int n_ = 0;
  std::atomic<int> next_{0};
  std::exception_ptr error_;  ///< guarded by mutex_
};

}  // namespace einfield
