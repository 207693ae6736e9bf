// Temporary file beside the target, fsync, rename, fsync of the directory: after a crash, POSIX guarantees the old file
// or the complete new one.
#include "host/files/atomic_file.hpp"

#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): kill is POSIX, not of <csignal>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "einfield/error.hpp"
#include "host/files/descriptor.hpp"

namespace einfield {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what, int code) {
  throw IoError(path + ": " + what + " (" + std::strerror(code) + ")");
}

constexpr std::string_view kPrefix = ".einfield-", kSuffix = ".tmp";

/// An empty file with a unique name in a directory; the destructor removes it unless it is released.
class TemporaryFile {
 public:
  TemporaryFile(const std::filesystem::path& directory, const std::string& target) {
    static std::atomic<unsigned> counter{0};
    for (;;) {
      std::string name(kPrefix);
      name.append(std::to_string(getpid())).append(1, '-').append(std::to_string(counter++)).append(kSuffix);
      path_ = (directory / name).string();
      Descriptor file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
      if (file.get() >= 0) return;
      if (errno != EEXIST) fail(target, "cannot write", errno);
    }
  }
  ~TemporaryFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }
  void release() { path_.clear(); }

 private:
  std::string path_;
};

/// The file that a path leads to. Links are followed, so that the link itself stays. @throws IoError for anything that
/// is not a regular file
std::filesystem::path resolved(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return path;
  std::filesystem::path target = path;
  if (S_ISLNK(status.st_mode)) {
    std::error_code error;
    target = std::filesystem::canonical(path, error);
    if (error) fail(path, "cannot follow the link", error.value());
    if (::stat(path.c_str(), &status) != 0) fail(path, "cannot write", errno);
  }
  if (S_ISDIR(status.st_mode)) fail(path, "cannot write", EISDIR);
  if (!S_ISREG(status.st_mode)) throw IoError(path + ": cannot write (not a regular file)");
  return target;
}

void sync_directory(const std::string& directory, const std::string& target) {
  const Descriptor handle(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (handle.get() < 0) fail(target, "cannot open its directory", errno);
  // Some network file systems cannot sync a directory and return EINVAL; the rename itself is done.
  if (::fsync(handle.get()) != 0 && errno != EINVAL && errno != ENOTSUP)
    fail(target, "cannot sync its directory", errno);
}

}  // namespace

void write_atomically(const std::string& path, const std::function<void(const std::string& temporary)>& write) {
  const std::filesystem::path target = resolved(path);
  const std::filesystem::path directory = target.has_parent_path() ? target.parent_path() : ".";
  TemporaryFile temporary(directory, path);
  write(temporary.path());
  Descriptor file(::open(temporary.path().c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) fail(path, "cannot reopen", errno);
  if (::fsync(file.get()) != 0) fail(path, "cannot sync", errno);
  if (!file.close()) fail(path, "cannot close", errno);
  if (::rename(temporary.path().c_str(), target.c_str()) != 0) fail(path, "cannot rename to it", errno);
  temporary.release();
  sync_directory(directory.string(), path);
}

void write_atomically(const std::string& path, std::string_view contents) {
  write_atomically(path, [&](const std::string& temporary) {
    Descriptor file(::open(temporary.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    if (file.get() < 0) fail(path, "cannot write", errno);
    for (std::size_t done = 0; done < contents.size();) {
      const ssize_t n = ::write(file.get(), contents.data() + done, contents.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(path, "cannot write", errno);
      done += static_cast<std::size_t>(n);
    }
    if (!file.close()) fail(path, "cannot write", errno);
  });
}

void create_directory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw IoError(path + ": cannot create the directory (" + error.message() + ")");
}

void remove_abandoned_temporaries(const std::string& directory) {
  std::error_code error;
  std::vector<std::filesystem::path> abandoned;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    pid_t owner = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), owner);
    if (owner > 0 && ::kill(owner, 0) != 0 && errno == ESRCH) abandoned.push_back(entry.path());
  }
  for (const std::filesystem::path& path : abandoned) std::filesystem::remove(path, error);
}

}  // namespace einfield
