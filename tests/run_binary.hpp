// The built binary as a user runs it: a child process, what it printed and how it ended.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace einfield {

/// What surrounds a run.
struct Surroundings {
  std::string directory;                           ///< working directory
  std::map<std::string, std::string> environment;  ///< on top of the test's own; PATH leads nowhere unless given
  std::string stdout_file;                         ///< where stdout goes instead of to the test, as "/dev/full"
  std::optional<rlim_t> largest_file;              ///< bytes that a file may have, as on a full disk
  std::optional<rlim_t> address_space;             ///< bytes of memory that the run may have
  std::optional<rlim_t> processor_seconds;         ///< after which a signal ends the run
  bool bound_by_permissions = false;               ///< even root may not pass over the permissions of files
  unsigned short terminal_columns = 0;             ///< > 0: stdin, stdout and stderr are a terminal so wide
  bool ignores_sigint = false;                     ///< as a job in the background of a script
};

/// Whether sanitizers are built in: they take terabytes of address space, and no library may be put before them.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

struct Outcome {
  int status = -1;       ///< exit status; -1 when a signal ended the run
  int signal = 0;        ///< the one that did
  std::string out, err;  ///< on a terminal everything is in out
};

/// Becomes the binary; for a child process.
[[noreturn]] inline void execute_binary(const std::vector<std::string>& arguments, const Surroundings& around) {
  if (!around.directory.empty() && chdir(around.directory.c_str()) != 0) _exit(126);
  const auto limit = [](auto resource, const std::optional<rlim_t>& bytes) {
    const rlimit value{bytes.value_or(0), bytes.value_or(0)};
    if (bytes) setrlimit(resource, &value);
  };
  limit(RLIMIT_FSIZE, around.largest_file);
  limit(RLIMIT_AS, around.address_space);
  limit(RLIMIT_CPU, around.processor_seconds);
  if (around.bound_by_permissions && geteuid() == 0)
    for (const unsigned long capability : {1UL, 2UL}) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // CAP_DAC_*
  if (around.ignores_sigint) signal(SIGINT, SIG_IGN);
  unsetenv("NO_COLOR");
  setenv("TERM", "xterm", 1);
  setenv("PATH", "/nonexistent", 1);  // no gnuplot: it would take most of the time
  for (const auto& [name, value] : around.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> pointers = {const_cast<char*>(EINFIELD_BINARY)};
  for (const std::string& word : arguments) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  execv(EINFIELD_BINARY, pointers.data());
  _exit(127);
}

/// A run that goes on beside the test. Ended with the object.
class RunningBinary {
 public:
  RunningBinary(const std::vector<std::string>& arguments, const Surroundings& around) {
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    const bool terminal = around.terminal_columns > 0;
    std::string terminal_name;
    if (terminal) {
      out[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
      require(out[0] >= 0 && grantpt(out[0]) == 0 && unlockpt(out[0]) == 0, "a pseudo-terminal");
      terminal_name = ptsname(out[0]);
      const winsize size{24, around.terminal_columns, 0, 0};
      require(ioctl(out[0], TIOCSWINSZ, &size) == 0, "the size of the terminal");
    } else {
      require(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "pipes");
    }
    pid_ = fork();
    require(pid_ >= 0, "fork");
    if (pid_ == 0) {
      if (terminal) {
        setsid();
        const int tty = open(terminal_name.c_str(), O_RDWR);  // becomes the controlling terminal
        for (const int descriptor : {0, 1, 2}) dup2(tty, descriptor);
        close(tty);
      } else {
        dup2(open("/dev/null", O_RDONLY), 0);
        dup2(around.stdout_file.empty() ? out[1] : open(around.stdout_file.c_str(), O_WRONLY), 1);
        dup2(err[1], 2);
      }
      execute_binary(arguments, around);
    }
    out_ = out[0];
    err_ = err[0];
    if (!terminal) {
      close(out[1]);
      close(err[1]);
    }
  }
  ~RunningBinary() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    for (const int descriptor : {out_, err_})
      if (descriptor >= 0) close(descriptor);
  }
  RunningBinary(const RunningBinary&) = delete;
  RunningBinary& operator=(const RunningBinary&) = delete;

  pid_t pid() const { return pid_; }
  void send(int signal_number) const { kill(pid_, signal_number); }
  /// Types on the terminal.
  void type(const std::string& keys) const {
    require(write(out_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()), "typing");
  }

  /// Waits until `text` has been printed to stdout. @return whether it was before the end of the run
  bool prints(const std::string& text) {
    while (outcome_.out.find(text) == std::string::npos)
      if (!read_some()) return false;
    return true;
  }

  /// The end of the run.
  Outcome end() {
    while (read_some()) {
    }
    int status = 0;
    require(waitpid(std::exchange(pid_, -1), &status, 0) > 0, "waitpid");
    if (WIFEXITED(status)) outcome_.status = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) outcome_.signal = WTERMSIG(status);
    return outcome_;
  }

 private:
  static constexpr auto kTimeLimit = std::chrono::minutes(5);  // far above what any run of a test takes

  static void require(bool holds, const char* what) {
    if (!holds) throw std::runtime_error(std::string("the test cannot have ") + what);
  }

  /// Takes what has been printed. @return false at the end of both streams
  bool read_some() {
    pollfd streams[] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
    if (out_ < 0 && err_ < 0) return false;
    if (std::chrono::steady_clock::now() - start_ > kTimeLimit) {
      kill(pid_, SIGKILL);
      throw std::runtime_error("the binary did not end; it has printed\n" + outcome_.out + outcome_.err);
    }
    poll(streams, 2, 1000);
    take(streams[0], out_, outcome_.out);
    take(streams[1], err_, outcome_.err);
    return out_ >= 0 || err_ >= 0;
  }
  static void take(const pollfd& stream, int& descriptor, std::string& text) {
    if (descriptor < 0 || stream.revents == 0) return;
    char buffer[4096];
    const ssize_t n = read(descriptor, buffer, sizeof buffer);
    if (n > 0) {
      text.append(buffer, static_cast<std::size_t>(n));
    } else {  // the end of a pipe; of a terminal an error
      close(descriptor);
      descriptor = -1;
    }
  }

  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  Outcome outcome_;
};

/// Every file below a directory, and what is in it.
inline std::map<std::string, std::string> files_below(const std::filesystem::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().lexically_relative(directory).string()] =
        entry.is_regular_file() ? std::string(std::istreambuf_iterator<char>(file), {}) : "";
  }
  return files;
}

/// A whole run.
inline Outcome run_binary(const std::vector<std::string>& arguments, const Surroundings& around = {}) {
  return RunningBinary(arguments, around).end();
}

}  // namespace einfield
