// The child process: its files, its time limit, its messages.
#include "host/report/gnuplot.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): kill is POSIX, not of <csignal>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "einfield/error.hpp"
#include "host/files/text.hpp"

namespace einfield {

namespace fs = std::filesystem;

namespace {

/// The messages of a program, on one line of limited length.
std::string on_one_line(const std::string& output) {
  constexpr std::size_t kLongest = 300;
  std::string line;
  for (const char c : output) {
    const char printed = static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    if (printed == ' ' && (line.empty() || line.back() == ' ')) continue;
    line += printed;
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  if (line.size() > kLongest) line.replace(kLongest, std::string::npos, " …");
  return line;
}

}  // namespace

std::string quoted(const std::string& words) {
  constexpr std::size_t kLongest = 160;  // characters; longer texts fit no picture
  std::string result = "'";
  std::size_t count = 0;
  for (std::size_t i = 0; i < words.size(); ++count) {
    const std::size_t n = utf8_length(words, i);
    const auto byte = static_cast<unsigned char>(words[i]);
    if (count == kLongest) {
      result += "…";
      break;
    }
    if (n == 0 || (n == 1 && (byte < 0x20 || byte == 0x7f)))
      result += n == 0 ? '?' : ' ';
    else
      result += words[i] == '\'' ? "’" : words.substr(i, n);
    i += std::max<std::size_t>(n, 1);
  }
  return result + "'";
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string run_gnuplot(const fs::path& directory, std::chrono::milliseconds time_limit) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addchdir_np(&files, directory.c_str());
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "messages", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  // In its own process group, gnuplot does not receive Ctrl-C from the terminal, and a time-out also ends its helpers.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  char program[] = "gnuplot", defaults[] = "-d", script[] = "script.gp";
  char* arguments[] = {program, defaults, script, nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, program, &files, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error == ENOENT) return "gnuplot is not installed: no figures were drawn";
  if (error != 0) return std::string("gnuplot cannot be started: ") + std::strerror(error);

  const auto end = std::chrono::steady_clock::now() + time_limit;
  int status = 0;
  for (;;) {
    const pid_t done = waitpid(child, &status, WNOHANG);
    if (done == child) break;
    if (done < 0 && errno != EINTR) return std::string("lost contact with gnuplot: ") + std::strerror(errno);
    if (std::chrono::steady_clock::now() >= end) {
      kill(-child, SIGKILL);
      waitpid(child, &status, 0);
      return fmt::format("gnuplot took longer than {:g} s and was stopped",
                         std::chrono::duration<double>(time_limit).count());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const std::string messages = on_one_line(contents(directory / "messages"));
  if (WIFSIGNALED(status)) return fmt::format("gnuplot was killed by signal {}", WTERMSIG(status));
  if (WEXITSTATUS(status) != 0) return fmt::format("gnuplot failed with status {}: ", WEXITSTATUS(status)) + messages;
  return messages.empty() ? "" : "gnuplot: " + messages;
}

}  // namespace einfield
