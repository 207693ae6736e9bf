// A machine that gives way under a run: every call that writes fails in its turn, memory ends, threads and processes
// are refused, the disk is full, the directory vanishes, the clock jumps. The run ends with one line of error, or goes
// on; what was there before stays whole.
#include <fitsio.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "einfield/network.hpp"
#include "host/files/atomic_file.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"
#include "tests/timeless.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

class Faults : public testing::Test {
 protected:
  Faults() { around_.directory = lens_.folder().path().string(); }

  static Words fit(const std::string& dir, Words more = {}) {
    more.insert(more.begin(), {"fit", "lens.toml", "--backend", "cpu", "--threads", "2", "--quiet", "--out", dir,
                               "--set", "optimizer.checkpoint_every=5"});
    return more;
  }
  /// A fit that must succeed, of 10 steps, and what it goes on to.
  void earlier_results() {
    ASSERT_EQ(run_binary(fit("earlier", {"--set", "optimizer.steps=10"}), around_).status, 0);
    ASSERT_EQ(run_binary(fit("whole", {"--set", "optimizer.steps=14"}), around_).status, 0);
    earlier_ = timeless(lens_.folder() / "earlier");
    whole_ = timeless(lens_.folder() / "whole");
    ASSERT_NE(earlier_, whole_);
  }
  static Words going_on() { return fit("out", {"--set", "optimizer.steps=14", "--resume"}); }
  void restore() const {
    fs::remove_all(lens_.folder() / "out");
    fs::copy(lens_.folder() / "earlier", lens_.folder() / "out", fs::copy_options::recursive);
  }

  /// Goes on from the earlier results with a fault. @return whether the fault was reached
  bool survives(const std::string& fault) {
    restore();
    const std::string reached = lens_.folder() / "reached";
    fs::remove(reached);
    Surroundings around = around_;
    around.environment["LD_PRELOAD"] = EINFIELD_FAULT_SHIM;
    around.environment["EINFIELD_FAULT"] = fault;
    around.environment["EINFIELD_FAULT_REACHED"] = reached;
    const Outcome outcome = run_binary(going_on(), around);
    expect_clean_end(outcome, fault);
    const fs::path dir = lens_.folder() / "out";
    if (outcome.status == 0) {
      EXPECT_EQ(timeless(dir), whole_) << fault;
    }
    if (fs::exists(dir / "result.json")) {
      const auto found = timeless(dir);
      EXPECT_TRUE(found == earlier_ || found == whole_) << fault;
    }
    if (outcome.status != 0) {
      EXPECT_EQ(run_binary(going_on(), around_).status, 0) << fault;
      EXPECT_EQ(timeless(dir), whole_) << fault;
    }
    return fs::exists(reached);
  }
  static void expect_clean_end(const Outcome& outcome, const std::string& fault) {
    EXPECT_EQ(outcome.signal, 0) << fault << '\n' << outcome.err;
    EXPECT_EQ(outcome.out, "") << fault;
    if (outcome.status == 0) {
      EXPECT_EQ(outcome.err, "") << fault;
      return;
    }
    EXPECT_TRUE(outcome.status == 1 || outcome.status == 2) << fault << ": " << outcome.status;
    EXPECT_EQ(outcome.err.rfind("einfield: error: ", 0), 0u) << fault << '\n' << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << fault << '\n' << outcome.err;
  }

  SmallLens lens_;
  Surroundings around_;
  std::map<std::string, std::string> earlier_, whole_;
};

TEST_F(Faults, EveryCallThatChangesFilesFailsInItsTurn) {
  if (kSanitized) GTEST_SKIP() << "sanitizers come before the library that makes calls fail";
  earlier_results();
  int failed = 0;
  for (const char* call : {"open", "write", "fsync", "rename", "unlink", "mkdir", "flock"})
    for (const char* later : {"", "+"}) {
      const std::string code = ":" + std::to_string(*later == '+' ? ENOSPC : EIO);
      int n = 1;
      while (survives(std::string(call) + ":" + std::to_string(n) + later + code)) ++n, ++failed;
      EXPECT_GT(n, 1) << call << " is not called, or not through the library";
    }
  EXPECT_GT(failed, 50);
  std::printf("%d calls failed\n", failed);
}

TEST_F(Faults, MemoryEndsAtAnyAllocation) {
  if (kSanitized) GTEST_SKIP() << "sanitizers come before the library that makes calls fail";
  earlier_results();
  const Philox philox{12};
  long n = 1;
  int failed = 0;
  for (std::uint64_t trial = 0; survives("malloc:" + std::to_string(n) + (trial % 2 ? "+" : "") + ":12"); ++trial) {
    ++failed;
    n += trial < 20 ? 1 : 1 + static_cast<long>(philox.uniform(trial) * static_cast<double>(n) / 5);
  }
  EXPECT_GT(failed, 60);
  std::printf("%d allocations failed, up to number %ld\n", failed, n);
}

TEST_F(Faults, WithoutThreadsTheRunSaysSo) {
  if (kSanitized) GTEST_SKIP() << "sanitizers come before the library that makes calls fail";
  around_.environment["LD_PRELOAD"] = EINFIELD_FAULT_SHIM;
  around_.environment["EINFIELD_FAULT"] = "pthread_create:1+:" + std::to_string(EAGAIN);
  const auto before = files_below(lens_.folder().path());
  const Outcome outcome = run_binary(fit("out"), around_);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, "einfield: error: cannot start thread 2 of 2: Resource temporarily unavailable\n");
  EXPECT_EQ(files_below(lens_.folder().path()), before);
  // One thread needs no other.
  Words alone = fit("out");
  *std::find(alone.begin(), alone.end(), "2") = "1";
  EXPECT_EQ(run_binary(alone, around_).status, 0);
}

TEST_F(Faults, ClocksMayJump) {
  if (kSanitized) GTEST_SKIP() << "sanitizers come before the library that makes calls fail";
  ASSERT_EQ(run_binary(fit("whole"), around_).status, 0);
  around_.environment["LD_PRELOAD"] = EINFIELD_FAULT_SHIM;
  around_.environment["EINFIELD_FAULT"] = "clock";
  ASSERT_EQ(run_binary(fit("out"), around_).status, 0);
  EXPECT_EQ(timeless(lens_.folder() / "out"), timeless(lens_.folder() / "whole"));
  const auto result = nlohmann::json::parse(lens_.folder().read("out/result.json"));
  EXPECT_GE(result["time_total_s"], 0.0);
  EXPECT_LT(result["time_total_s"], 300.0);
}

TEST_F(Faults, CompressedImagesNeedAProcess) {
  if (kSanitized) GTEST_SKIP() << "sanitizers come before the library that makes calls fail";
  fitsfile* file = nullptr;
  int status = 0;
  long axes[] = {14, 12};
  std::vector<float> pixels(14 * 12, 1.0f);
  fits_create_diskfile(&file, (lens_.folder() / "tiles.fits").c_str(), &status);
  fits_set_compression_type(file, RICE_1, &status);
  fits_create_img(file, -32, 2, axes, &status);
  fits_write_img(file, TFLOAT, 1, 14 * 12, pixels.data(), &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0);
  const Words words = fit("out", {"--set", "observation.image=\"tiles.fits\""});
  const auto before = files_below(lens_.folder().path());
  around_.environment["LD_PRELOAD"] = EINFIELD_FAULT_SHIM;
  for (const char* call : {"fork", "pipe"}) {
    around_.environment["EINFIELD_FAULT"] = std::string(call) + ":1:" + std::to_string(EAGAIN);
    const Outcome outcome = run_binary(words, around_);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.err, "einfield: error: tiles.fits: cannot be read (" + std::string(call) +
                               ": Resource temporarily unavailable)\n");
  }
  EXPECT_EQ(files_below(lens_.folder().path()), before);
  around_.environment.erase("EINFIELD_FAULT");
  EXPECT_EQ(run_binary(words, around_).status, 0);
}

TEST_F(Faults, AFullFileSystem) {
  const std::string disk = lens_.folder() / "disk";
  fs::create_directory(disk);
  // A name space of our own: the mount goes with this process.
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "no file system may be mounted here";
  const struct Unmount {
    const std::string& disk;
    ~Unmount() { umount2(disk.c_str(), MNT_DETACH); }
  } unmount{disk};
  ASSERT_EQ(run_binary(fit("disk/out"), around_).status, 0);
  const auto before = timeless(disk + "/out");
  // Whatever room is left is taken but for a little more each time.
  const Words more = fit("disk/out", {"--resume", "--set", "optimizer.steps=40"});
  int refused = 0;
  for (std::uintmax_t room = 0;; room += 16384) {
    const std::uintmax_t free = fs::space(disk).available;
    ASSERT_LT(room, free);
    std::ofstream(disk + "/ballast", std::ios::binary) << std::string(free - room, 'x');
    const Outcome outcome = run_binary(more, around_);
    fs::remove(disk + "/ballast");
    expect_clean_end(outcome, "a full disk");
    if (outcome.status == 0) break;
    ++refused;
    EXPECT_NE(outcome.err.find("(No space left on device)"), std::string::npos) << outcome.err;
    EXPECT_EQ(timeless(disk + "/out"), before);
    EXPECT_EQ(run_binary(fit("disk/out", {"--resume", "--dry-run", "--set", "optimizer.steps=40"}), around_).status, 0)
        << "no checkpoint any more";
  }
  EXPECT_GT(refused, 3);
  EXPECT_NE(timeless(disk + "/out"), before);
}

TEST_F(Faults, ADirectoryThatVanishes) {
  const Words words = fit("out", {"--set", "optimizer.steps=1000000"});
  RunningBinary run(words, around_);
  const fs::path dir = lens_.folder() / "out";
  while (!fs::exists(dir / "checkpoint.safetensors")) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  fs::rename(dir, lens_.folder() / "elsewhere");
  const Outcome outcome = run.end();
  EXPECT_EQ(outcome.status, 1);
  // Before the new checkpoint is opened, or before it takes the place of the old one.
  const std::string begin = "einfield: error: out/checkpoint.safetensors: cannot ",
                    why = " (No such file or directory)\n";
  EXPECT_TRUE(outcome.err == begin + "write" + why || outcome.err == begin + "rename to it" + why) << outcome.err;
  EXPECT_FALSE(fs::exists(dir));
  EXPECT_EQ(run_binary(fit("elsewhere", {"--resume", "--dry-run", "--set", "optimizer.steps=1000000"}), around_).status,
            0);
}

TEST_F(Faults, TwoRunsInOneDirectory) {
  RunningBinary first(fit("out", {"--set", "optimizer.steps=1000000"}), around_);
  while (!fs::exists(lens_.folder() / "out/checkpoint.safetensors"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (const char* flag : {"--resume", "--overwrite"}) {
    const Outcome second = run_binary(fit("out", {flag, "--set", "optimizer.steps=1000000"}), around_);
    EXPECT_EQ(second.status, 1);
    EXPECT_EQ(second.err.rfind("einfield: error: out: in use by another run (process ", 0), 0u) << second.err;
    EXPECT_EQ(second.err.find('\n'), second.err.size() - 1) << second.err;
  }
  first.send(SIGTERM);
  EXPECT_EQ(first.end().status, 130);
}

}  // namespace
}  // namespace einfield
