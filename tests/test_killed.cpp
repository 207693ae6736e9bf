// A run that is killed before any one of its changes of a file: earlier results stay whole or make way for whole new
// ones, and
// --resume ends with the bits of a run that nobody disturbed.
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

/// Whether a system call is about to change a file or a directory.
bool changes_files(const __ptrace_syscall_info& info) {
  if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return false;
  switch (info.entry.nr) {
    case SYS_openat:
      return (info.entry.args[2] & O_CREAT) != 0;
    case SYS_write:
    case SYS_pwrite64:
      return info.entry.args[0] > STDERR_FILENO;
    case SYS_ftruncate:
    case SYS_mkdirat:
    case SYS_unlinkat:
    case SYS_renameat2:
#ifdef SYS_renameat
    case SYS_renameat:
#endif
#ifdef SYS_open  // the calls that newer architectures leave out
    case SYS_mkdir:
    case SYS_rmdir:
    case SYS_unlink:
    case SYS_rename:
#endif
      return true;
#ifdef SYS_open
    case SYS_open:
      return (info.entry.args[1] & O_CREAT) != 0;
#endif
    default:
      return false;
  }
}

enum class End { killed, finished, cannot_be_traced };

/// Runs the binary and kills it before the nth change of a file that its main thread makes, from 0.
End kill_before_change(int n, const Words& words, const Surroundings& around) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(125);
    execute_binary(words, around);
  }
  int status = 0;
  const auto stopped = [&] { return waitpid(child, &status, 0) == child && WIFSTOPPED(status); };
  if (!stopped()) return End::cannot_be_traced;  // the stop after exec
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, options);
  int changes = 0;
  long delivered = 0;
  while (ptrace(PTRACE_SYSCALL, child, nullptr, delivered) == 0 && stopped()) {
    delivered = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
    if (delivered != 0) continue;
    __ptrace_syscall_info info = {};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info) <= 0) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return End::cannot_be_traced;
    }
    if (changes_files(info) && changes++ == n) {
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      return End::killed;
    }
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  return End::finished;
}

/// Results of a directory but for what the clock makes of them; no checkpoint, nothing hidden.
std::map<std::string, std::string> timeless(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (auto& [name, contents] : files_below(dir)) {
    if (name[0] == '.' || name == "checkpoint.safetensors" || name == "figures") continue;
    if (name == "result.json") {
      json result = json::parse(contents);
      result.erase("time_total_s");
      result.erase("time_per_step_ms");
      contents = result.dump();
    } else if (name == "history.csv") {
      std::string text;
      std::istringstream rows(contents);
      for (std::string row; std::getline(rows, row);) {
        const std::size_t first = row.find(',');
        text += row.substr(0, first) + row.substr(row.find(',', first + 1)) + "\n";
      }
      contents = text;
    }
    files[name] = contents;
  }
  return files;
}

TEST(Killed, BeforeAnyChangeOfAFile) {
  const SmallLens lens;
  Surroundings around;
  around.directory = lens.folder().path().string();
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
  ASSERT_EQ(earlier.size(), 4u);
  ASSERT_NE(earlier, whole);

  int n = 0, with_earlier = 0, without = 0, with_new = 0;
  for (;; ++n) {
    fs::remove_all(dir);
    fs::copy(lens.folder() / "earlier", dir, fs::copy_options::recursive);
    const End end = kill_before_change(n, resume, around);
    if (end == End::cannot_be_traced) GTEST_SKIP() << "no process may be traced here";
    if (end == End::finished) break;
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
  EXPECT_EQ(timeless(dir), whole);
  // The moments were of every kind, and for the most part the earlier results were there.
  EXPECT_GT(with_earlier, 20);
  EXPECT_GT(with_new, 0);
  EXPECT_LT(without, 10);
}

}  // namespace
}  // namespace einfield
