// fork and a pipe. The child calls nothing but the work and _exit: no destructors, no buffers of the parent.
#include "host/files/isolated.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>

#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include "einfield/error.hpp"

namespace einfield {
namespace {

/// The first byte of what a child sends.
enum class Answer : char { result, invalid, no_memory };

constexpr std::uint64_t kLongestText = std::uint64_t(1) << 20;

/// A file descriptor that closes itself.
struct Descriptor {
  int value = -1;
  ~Descriptor() { close(); }
  void close() {
    if (value >= 0) ::close(value);
    value = -1;
  }
};

/// In the child: sets its limits, and removes the handlers and messages of the parent.
void confine() {
#if defined(__linux__)
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
#endif
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU}) signal(number, SIG_DFL);
  signal(SIGPIPE, SIG_DFL);
  // glibc prints on stderr when it finds corrupted memory.
  const int nowhere = open("/dev/null", O_WRONLY);
  if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);
  const auto limit = [](auto resource, rlim_t value) {
    rlimit now = {};
    if (getrlimit(resource, &now) != 0 || (now.rlim_cur != RLIM_INFINITY && now.rlim_cur <= value)) return;
    now.rlim_cur = value;
    setrlimit(resource, &now);
  };
  std::uint64_t pages = 0;  // current size of the address space
  std::ifstream("/proc/self/statm") >> pages;
  if (pages > 0) limit(RLIMIT_AS, pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) + kIsolatedBytes);
  limit(RLIMIT_CPU, kIsolatedSeconds);
  limit(RLIMIT_CORE, 0);
}

[[noreturn]] void run_child(int descriptor, const std::function<std::function<void(const Channel&)>()>& work) {
  confine();
  const Channel channel(descriptor);
  const auto answer = [&channel](Answer kind) { channel.send_value(kind); };
  try {
    const std::function<void(const Channel&)> send = work();
    answer(Answer::result);
    send(channel);
  } catch (const InvalidInput& error) {
    answer(Answer::invalid);
    channel.send(std::string(error.what()));
  } catch (...) {
    answer(Answer::no_memory);
  }
  _exit(0);
}

}  // namespace

void Channel::send(const void* bytes, std::size_t size) const {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t n = ::write(descriptor_, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) _exit(1);  // the parent no longer reads
    at += n;
    size -= static_cast<std::size_t>(n);
  }
}

bool Channel::receive(void* bytes, std::size_t size) const {
  char* at = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t n = ::read(descriptor_, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

void Channel::send(const std::string& text) const {
  const std::uint64_t size = text.size();
  send(&size, sizeof size);
  send(text.data(), text.size());
}

bool Channel::receive(std::string& text) const {
  std::uint64_t size = 0;
  if (!receive(&size, sizeof size) || size > kLongestText) return false;
  text.resize(size);
  return receive(text.data(), text.size());
}

void isolated(const std::string& path, const std::function<std::function<void(const Channel&)>()>& work,
              const std::function<bool(const Channel&)>& receive) {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) throw IoError(path + ": cannot be read (pipe: " + std::strerror(errno) + ")");
  Descriptor in{ends[0]}, out{ends[1]};
  const pid_t child = fork();
  if (child < 0) throw IoError(path + ": cannot be read (fork: " + std::strerror(errno) + ")");
  if (child == 0) run_child(out.value, work);
  out.close();
  const Channel channel(in.value);
  Answer answer{};
  std::string message;
  bool whole = false;
  std::exception_ptr failure;
  try {
    whole = channel.receive_value(answer) &&
            (answer == Answer::result ? receive(channel) : answer != Answer::invalid || channel.receive(message));
  } catch (...) {
    failure = std::current_exception();  // for example no memory for the result
  }
  in.close();  // a child that is still sending ends
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (failure) std::rethrow_exception(failure);
  if (whole && answer == Answer::result) return;
  if (whole && answer == Answer::invalid) throw InvalidInput(message);
  const int ended = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (whole)
    throw InvalidInput(path + ": damaged or too large, unpacking it takes more than " +
                       std::to_string(kIsolatedBytes >> 30) + " GB of memory");
  if (ended == SIGXCPU || ended == SIGKILL)
    throw InvalidInput(path + ": damaged, reading it takes more than " + std::to_string(kIsolatedSeconds) +
                       " s or more memory than available");
  throw InvalidInput(path + ": damaged, the FITS library crashed on it" +
                     (ended ? " (signal " + std::to_string(ended) + ")" : ""));
}

}  // namespace einfield
