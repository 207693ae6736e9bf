// The pool of threads: every index once, one call per worker at a time, exceptions, denormals, many loops.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "einfield/error.hpp"
#include "host/cpu/thread_pool.hpp"

namespace einfield {
namespace {

constexpr std::array<int, 4> kThreads{1, 2, 3, 8};

TEST(ThreadPool, CallsEveryIndexOnceWithItsOwnWorker) {
  for (const int threads : kThreads) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    std::vector<std::atomic<int>> calls(1000);
    std::vector<std::atomic<int>> inside(static_cast<std::size_t>(threads));
    std::atomic<int> collisions{0};
    pool.parallel_for(1000, [&](int index, int worker) {
      auto& mine = inside.at(static_cast<std::size_t>(worker));
      if (mine.fetch_add(1) != 0) ++collisions;
      ++calls.at(static_cast<std::size_t>(index));
      --mine;
    });
    for (const auto& count : calls) EXPECT_EQ(count, 1);
    EXPECT_EQ(collisions, 0);
  }
}

/// Two indices that wait for each other end only when two threads work at once.
TEST(ThreadPool, WorksAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.parallel_for(2, [&](int, int) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPool, NothingToDoCallsNothing) {
  ThreadPool pool(2);
  int calls = 0;
  pool.parallel_for(0, [&](int, int) { ++calls; });
  pool.parallel_for(-3, [&](int, int) { ++calls; });
  EXPECT_EQ(calls, 0);
}

TEST(ThreadPool, IndicesRiseWithinAWorker) {
  ThreadPool pool(3);
  std::vector<int> latest(3, -1);
  std::atomic<bool> rising{true};
  pool.parallel_for(500, [&](int index, int worker) {
    int& before = latest[static_cast<std::size_t>(worker)];
    if (index <= before) rising = false;
    before = index;
  });
  EXPECT_TRUE(rising);
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
  for (const int threads : kThreads) {
    ThreadPool pool(threads);
    std::atomic<int> calls{0};
    try {
      pool.parallel_for(1000000, [&](int index, int) {
        ++calls;
        if (index == 5) throw std::runtime_error("index five");
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "index five");
    }
    EXPECT_LT(calls, 1000000) << "no further index may be handed out";
    calls = 0;
    pool.parallel_for(100, [&](int, int) { ++calls; });
    EXPECT_EQ(calls, 100);
  }
}

TEST(ThreadPool, FlushesDenormalsInsideOnly) {
  ThreadPool pool(2);
  volatile double smallest = std::numeric_limits<double>::min();
  volatile float smallest_single = std::numeric_limits<float>::min();
  std::array<double, 2> halves{1, 1};
  std::array<float, 2> halves_single{1, 1};
  std::atomic<int> arrived{0};
  pool.parallel_for(2, [&](int, int worker) {
    halves[static_cast<std::size_t>(worker)] = smallest / 2;
    halves_single[static_cast<std::size_t>(worker)] = smallest_single / 2;
    ++arrived;
    while (arrived < 2) std::this_thread::yield();  // both threads must come here
  });
  for (const double half : halves) EXPECT_EQ(half, 0.0);
  for (const float half : halves_single) EXPECT_EQ(half, 0.0f);
  const double outside = smallest / 2;
  EXPECT_GT(outside, 0.0) << "the caller's mode must come back";
}

TEST(ThreadPool, ManyShortLoops) {
  ThreadPool pool(3);
  std::atomic<int> total{0};
  for (int loop = 0; loop < 3000; ++loop) pool.parallel_for(loop % 5, [&](int, int) { ++total; });
  EXPECT_EQ(total, 3000 / 5 * (0 + 1 + 2 + 3 + 4));
}

TEST(ThreadPool, SeveralCallersTakeTurns) {
  ThreadPool pool(2);
  std::atomic<int> total{0}, loops{0};
  std::atomic<bool> overlap{false};
  const auto call = [&] {
    for (int loop = 0; loop < 200; ++loop)
      pool.parallel_for(1, [&](int, int) {
        if (loops.fetch_add(1) != 0) overlap = true;
        ++total;
        --loops;
      });
  };
  std::thread other(call);
  call();
  other.join();
  EXPECT_EQ(total, 400);
  EXPECT_FALSE(overlap);
}

TEST(ThreadPool, ZeroMeansAllAndNonsenseIsRefused) {
  EXPECT_GE(ThreadPool::resolve(0), 1);
  EXPECT_EQ(ThreadPool(0).threads(), ThreadPool::resolve(0));
  EXPECT_EQ(ThreadPool::resolve(7), 7);
  EXPECT_THROW(ThreadPool(-1), InvalidInput);
  EXPECT_THROW(ThreadPool(100000), InvalidInput);
}

}  // namespace
}  // namespace einfield
