// Many small fits, one after the other: memory, threads and file descriptors do not grow, and every result is that of
// the first. EINFIELD_SOAK is how many times as many fits are made as in a common run of the tests.
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "einfield/network.hpp"
#include "host/app/run.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"
#include "tests/timeless.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

int times(int fits) {
  const char* factor = std::getenv("EINFIELD_SOAK");
  return fits * (factor ? std::atoi(factor) : 1);
}

/// What a process holds.
struct Holdings {
  long kilobytes = 0, threads = 0, descriptors = 0;

  Holdings() {
    malloc_trim(0);  // what the allocator only keeps is not held
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      if (word == "VmRSS:") status >> kilobytes;
      if (word == "Threads:") status >> threads;
    }
    descriptors = static_cast<long>(std::distance(fs::directory_iterator("/proc/self/fd"), {}));
  }
};

TEST(Soak, FitsInOneProcessLeaveNothingBehind) {
  const SmallLens lens({{"optimizer.steps", "5"}});
  // What every part of the library does, in turn.
  const std::vector<std::vector<Override>> kinds = {
      {},
      {{"optimizer.name", "lbfgs"}, {"regularization.smoothness", "0.1"}},
      {{"network.encoding", "fourier"}, {"network.ensemble", "2"}},
      {{"optimizer.steps", "4"}, {"optimizer.stop", "heldout"}, {"optimizer.patience", "2"}}};
  const int total = times(100);
  std::vector<std::map<std::string, std::string>> first(8);  // kinds in both precisions
  Holdings after_warmup;
  for (int i = 0; i < total; ++i) {
    const std::size_t kind = static_cast<std::size_t>(i) % kinds.size();
    RunOptions options;
    options.out = lens.folder() / "out";
    options.backend = "cpu";
    options.threads = 2;
    options.double_precision = i / 4 % 2 == 1;
    options.figures = false;
    fs::remove_all(options.out);
    ASSERT_NE(run_fit(lens.config(kinds[kind]), options).stop_reason, StopReason::non_finite);
    const auto results = timeless(options.out);
    ASSERT_GE(results.size(), 4u);
    if (i < 8) first[static_cast<std::size_t>(i)] = results;
    ASSERT_EQ(results, first[static_cast<std::size_t>(i % 8)]) << "fit " << i;
    if (i + 1 == total / 4) after_warmup = Holdings();
  }
  const Holdings end;
  std::printf("%d fits: %ld kB after a quarter of them, %ld kB in the end\n", total, after_warmup.kilobytes,
              end.kilobytes);
  EXPECT_EQ(end.threads, after_warmup.threads);
  EXPECT_EQ(end.descriptors, after_warmup.descriptors);
  // Freed memory is kept by sanitizers; a real leak of a kilobyte a fit would be seen by them, and over 1000 fits here.
  if (!kSanitized) {
    EXPECT_LT(end.kilobytes, after_warmup.kilobytes + 512 + after_warmup.kilobytes / 50);
  }
}

TEST(Soak, RunsOfTheBinaryAreAllAlike) {
  const SmallLens lens;
  Surroundings around;
  around.directory = lens.folder().path().string();
  const auto fit = [&](const std::string& dir) {
    return run_binary({"fit", "lens.toml", "--backend", "cpu", "--threads", "2", "--quiet", "--out", dir, "--set",
                       "optimizer.steps=5"},
                      around);
  };
  ASSERT_EQ(fit("first").status, 0);
  const auto first = timeless(lens.folder() / "first");
  const auto names = [](const fs::path& dir) {
    std::vector<std::string> list;
    for (const auto& entry : fs::directory_iterator(dir)) list.push_back(entry.path().filename().string());
    std::sort(list.begin(), list.end());
    return list;
  };
  const std::vector<std::string> expected = names(lens.folder() / "first");
  for (int i = 0; i < times(20); ++i) {
    fs::remove_all(lens.folder() / "out");
    const Outcome outcome = fit("out");
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    ASSERT_EQ(timeless(lens.folder() / "out"), first) << "run " << i;
    ASSERT_EQ(names(lens.folder() / "out"), expected) << "run " << i;
  }
}

}  // namespace
}  // namespace einfield
