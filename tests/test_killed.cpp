// A run that is killed before any one of its changes of a file, or at any time: earlier results stay whole or make way
// for whole new ones, and --resume ends with the bits of a run that nobody disturbed.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <bit>
#include <chrono>
#include <cstddef>
#include <thread>

#include "einfield/network.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"
#include "tests/timeless.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

/// System calls that change files or directories.
constexpr unsigned kChanges[] = {SYS_write,    SYS_pwrite64, SYS_ftruncate, SYS_mkdirat, SYS_unlinkat, SYS_renameat2,
#ifdef SYS_renameat
                                 SYS_renameat,
#endif
#ifdef SYS_rename  // what newer architectures leave out
                                 SYS_mkdir,    SYS_rmdir,    SYS_unlink,    SYS_rename
#endif
};

/// Lets the kernel stop this process at these calls and where a file is made, and nowhere else: every stop takes its
/// time.
bool stop_at_changes() {
  constexpr unsigned kNumber = offsetof(seccomp_data, nr);
  constexpr unsigned kFlagsOfOpenat =
      offsetof(seccomp_data, args[2]) + (std::endian::native == std::endian::big ? 4 : 0);
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber)};
  for (const unsigned call : kChanges) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
  }
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3));
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlagsOfOpenat));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT, 0, 1));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

enum class End { killed, finished, cannot_be_traced };

/// Runs the binary and kills it before the nth change of a file, from 0.
End kill_before_change(int n, const Words& words, const Surroundings& around) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(125);
    raise(SIGSTOP);  // until the options are set
    if (!stop_at_changes()) _exit(125);
    execute_binary(words, around);
  }
  int status = 0;
  const auto stopped = [&] { return waitpid(child, &status, 0) == child && WIFSTOPPED(status); };
  if (!stopped()) return End::cannot_be_traced;
  const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, options);
  long delivered = 0;
  for (int changes = 0; ptrace(PTRACE_CONT, child, nullptr, delivered) == 0 && stopped();) {
    const bool change = status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
    delivered = change || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    if (!change || changes++ < n) continue;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return End::killed;
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 125) return End::cannot_be_traced;
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  return End::finished;
}

TEST(Killed, BeforeAnyChangeOfAFile) {
  const SmallLens lens;
  Surroundings around;
  around.directory = lens.folder().path().string();
  fs::create_directory(lens.folder() / "tmp");
  around.environment["TMPDIR"] = lens.folder() / "tmp";   // what killed runs leave goes with the test
  around.environment["ASAN_OPTIONS"] = "detect_leaks=0";  // which cannot be done to a process that is traced
  const auto fit = [](const std::string& dir, Words more) {
    more.insert(more.begin(),
                {"fit", "lens.toml", "--backend", "cpu", "--threads", "1", "--quiet", "--out", dir, "--set"});
    return more;
  };
  // Earlier results of 10 steps, and a run that goes on to 14 with a checkpoint on its way.
  const Words resume = fit("out", {"optimizer.steps=14", "--set", "optimizer.checkpoint_every=12", "--resume"});
  ASSERT_EQ(run_binary(fit("earlier", {"optimizer.steps=10"}), around).status, 0);
  ASSERT_EQ(run_binary(fit("whole", {"optimizer.steps=14", "--set", "optimizer.checkpoint_every=12"}), around).status,
            0);
  const fs::path dir = lens.folder() / "out";
  const auto earlier = timeless(lens.folder() / "earlier"), whole = timeless(lens.folder() / "whole");
  ASSERT_EQ(earlier.size(), 10u);  // coolest.json and five maps among them
  ASSERT_NE(earlier, whole);

  int n = 0, with_earlier = 0, without = 0, with_new = 0;
  for (;; ++n) {
    fs::remove_all(dir);
    fs::copy(lens.folder() / "earlier", dir, fs::copy_options::recursive);
    const End end = kill_before_change(n, resume, around);
    if (end == End::cannot_be_traced) GTEST_SKIP() << "no process may be traced here";
    if (end == End::finished || with_new == 3) break;  // what comes then are figures
    // result.json says that everything belongs together.
    if (fs::exists(dir / "result.json")) {
      const auto found = timeless(dir);
      EXPECT_TRUE(found == earlier || found == whole) << "killed before change " << n;
      ++(found == earlier ? with_earlier : with_new);
    } else {
      ++without;
    }
    if (n % 4 != 0 && fs::exists(dir / "result.json")) continue;  // to go on takes as long as all the rest
    EXPECT_EQ(run_binary(resume, around).status, 0) << "killed before change " << n;
    EXPECT_EQ(timeless(dir), whole) << "killed before change " << n;
    for (const auto& entry : fs::directory_iterator(dir))
      EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path() << ", killed before change " << n;
  }
  // The moments were of every kind, and for the most part the earlier results were there.
  EXPECT_GT(with_earlier, 20);
  EXPECT_GT(with_new, 0);
  EXPECT_LT(without, 24);
}

/// Ends runs by a signal at random moments, each from the beginning or from where an earlier one was ended, and lets
/// every third go on to its end.
void end_at_random_moments(int signal_number, int times) {
  const SmallLens lens;
  Surroundings around;
  around.directory = lens.folder().path().string();
  // A checkpoint is written after every step, so that many of the moments lie within a write.
  const auto fit = [](const std::string& dir, Words more = {}) {
    more.insert(more.begin(), {"fit", "lens.toml", "--backend", "cpu", "--threads", "2", "--quiet", "--out", dir,
                               "--set", "optimizer.steps=60", "--set", "optimizer.checkpoint_every=1"});
    return more;
  };
  const auto clock = [] { return std::chrono::steady_clock::now(); };
  const auto start = clock();
  ASSERT_EQ(run_binary(fit("whole"), around).status, 0);
  // Runs take longer or shorter as the machine is busy: the moments are stretched after those that came before the end
  // and drawn together after those that came too late.
  std::chrono::duration<double> length = clock() - start;
  const auto whole = timeless(lens.folder() / "whole");
  const fs::path dir = lens.folder() / "out";

  const Philox philox{60};
  int ended = 0, from_a_checkpoint = 0;
  for (int trial = 0; ended < times && trial < 4 * times; ++trial) {
    if (trial % 3 == 0) fs::remove_all(dir);  // else what earlier kills have left goes on
    const bool resume = fs::exists(dir / "checkpoint.safetensors");
    from_a_checkpoint += resume;
    {
      RunningBinary run(fit("out", resume ? Words{"--resume"} : Words{}), around);
      std::this_thread::sleep_for(philox.uniform(static_cast<std::uint64_t>(trial)) * length);
      run.send(signal_number);
      const Outcome outcome = run.end();
      EXPECT_EQ(outcome.err, "");
      if (outcome.status == 0) {
        length *= 0.8;
        fs::remove_all(dir);
        continue;
      }
      length *= 1.03;
      // Before it listens to signals a run is ended by them.
      EXPECT_TRUE(outcome.signal == signal_number || (signal_number != SIGKILL && outcome.status == 130))
          << outcome.signal << ' ' << outcome.status;
      ++ended;
    }
    if (fs::exists(dir / "result.json")) {
      EXPECT_EQ(timeless(dir), whole) << "trial " << trial;
    }
    if (trial % 3 != 2) continue;
    const bool goes_on = fs::exists(dir / "checkpoint.safetensors");
    EXPECT_EQ(run_binary(fit("out", goes_on ? Words{"--resume"} : Words{}), around).status, 0) << "trial " << trial;
    EXPECT_EQ(timeless(dir), whole) << "trial " << trial;
    for (const auto& entry : fs::directory_iterator(dir))
      EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path() << ", trial " << trial;
    fs::remove_all(dir);
  }
  EXPECT_GE(ended, times);
  EXPECT_GT(from_a_checkpoint, times / 10);
}

TEST(Killed, AtRandomMoments) {
  end_at_random_moments(SIGKILL, 60);
}
TEST(Killed, AskedToEndAtRandomMoments) {
  end_at_random_moments(SIGTERM, 30);
  end_at_random_moments(SIGINT, 30);
}

}  // namespace
}  // namespace einfield
