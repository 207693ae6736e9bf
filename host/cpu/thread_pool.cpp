// The pool's threads, and the processor mode that flushes denormals.
// Cotangents far from the source underflow; denormal arithmetic would make those pixels a hundred times slower.
#include "host/cpu/thread_pool.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

#include "einfield/error.hpp"

namespace einfield {
namespace {

/// Flushes denormals in this thread while it lives.
class FlushDenormals {
 public:
#if defined(__x86_64__) || defined(__i386__)
  FlushDenormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(saved_ | 0x8040u);
  }  // FTZ (results) and DAZ (operands)
  ~FlushDenormals() {
    _mm_setcsr(saved_);
  }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (std::uint64_t{1} << 24)));
  }
  ~FlushDenormals() {
    asm volatile("msr fpcr, %0" ::"r"(saved_));
  }

 private:
  std::uint64_t saved_;
#else
  FlushDenormals() {}
#endif
};

/// Tells the processor that the thread only waits.
void relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Processors that this process may run on.
int usable_processors() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

constexpr int kMaxThreads = 1024;

/// Longer than the work of one thread between two loops of a step, shorter than a slice of time of the system.
constexpr std::chrono::microseconds kWatch{100};

}  // namespace

int ThreadPool::resolve(int threads) {
  EINFIELD_REQUIRE(threads >= 0 && threads <= kMaxThreads,
                   "threads = " + std::to_string(threads) + ", expected 0 (all) to " + std::to_string(kMaxThreads));
  return threads == 0 ? std::min(usable_processors(), kMaxThreads) : threads;
}

ThreadPool::ThreadPool(int threads) {
  threads = resolve(threads);
  watchful_ = threads <= usable_processors();
  workers_.reserve(static_cast<std::size_t>(threads) - 1);
  try {
    for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { wait_for_work(worker); });
  } catch (const std::system_error& error) {
    stop();
    throw IoError("cannot start thread " + std::to_string(workers_.size() + 2) + " of " + std::to_string(threads) +
                  ": " + error.what());
  }
}

ThreadPool::~ThreadPool() {
  stop();
}

void ThreadPool::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int n, Call call, void* context) {
  if (n <= 0) return;
  const std::lock_guard caller(caller_);
  if (n == 1) {  // the other threads would wake up for nothing
    const FlushDenormals mode;
    call(context, 0, 0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    call_ = call;
    context_ = context;
    n_ = n;
    next_ = 0;
    error_ = nullptr;
    busy_ = static_cast<int>(workers_.size());
    ++loop_;
  }
  start_.notify_all();
  {
    const FlushDenormals mode;
    work(0);
  }
  watch([this] { return busy_ == 0; });
  std::exception_ptr error;
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    error = std::move(error_);
    error_ = nullptr;
  }
  if (error) std::rethrow_exception(error);
}

template <class Ready>
void ThreadPool::watch(Ready&& ready) const {
  if (!watchful_) return;
  const auto end = std::chrono::steady_clock::now() + kWatch;
  while (!ready() && std::chrono::steady_clock::now() < end) relax();
}

void ThreadPool::work(int worker) {
  for (int index = next_.fetch_add(1); index < n_; index = next_.fetch_add(1)) {
    try {
      call_(context_, index, worker);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      next_ = n_;
    }
  }
}

void ThreadPool::wait_for_work(int worker) {
  const FlushDenormals mode;
  std::uint64_t seen = 0;
  for (;;) {
    watch([&] { return stopping_ || loop_ != seen; });
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || loop_ != seen; });
      if (stopping_) return;
      seen = loop_;
    }
    work(worker);
    {
      const std::lock_guard lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }
}

}  // namespace einfield
