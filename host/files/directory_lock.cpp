// flock on a file that its holder removes in the end. A process that has locked a removed file tries again.
#include "host/files/directory_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "einfield/error.hpp"

namespace einfield {
namespace {

/// "process 17 on node03", as the holder wrote it.
std::string holder(int descriptor) {
  char text[128];
  const ssize_t n = pread(descriptor, text, sizeof text, 0);
  std::string name(text, n > 0 ? static_cast<std::size_t>(n) : 0);
  for (char& c : name)
    if (c < ' ' || c > '~') c = '?';
  return name;
}

void write_holder(int descriptor) {
  char host[65] = "";
  gethostname(host, sizeof host - 1);
  const std::string name = "process " + std::to_string(getpid()) + " on " + host;
  // Only for the message of another process, so a failure does not matter.
  if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, name.data(), name.size(), 0) < 0) return;
}

}  // namespace

DirectoryLock::DirectoryLock(const std::string& dir) : path_((std::filesystem::path(dir) / ".lock").string()) {
  for (;;) {
    // The file is overwritten with the holder's name, so a link, which may lead anywhere, is not followed.
    descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (descriptor_ < 0) throw IoError(path_ + ": cannot write (" + std::strerror(errno) + ")");
    struct stat kind = {};
    if (fstat(descriptor_, &kind) != 0 || !S_ISREG(kind.st_mode)) {
      close(descriptor_);
      throw IoError(path_ + ": cannot write (not a regular file)");
    }
    if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return;  // this file system has no locks
      const std::string name = holder(descriptor_);
      close(descriptor_);
      throw IoError(dir + ": in use by another run" + (name.empty() ? "" : " (" + name + ")") +
                    ", expected another --out, or wait until that run ends");
    }
    struct stat ours = {}, named = {};
    if (fstat(descriptor_, &ours) == 0 && stat(path_.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
      break;
    close(descriptor_);  // the previous holder has just removed it
  }
  locked_ = true;
  write_holder(descriptor_);
}

DirectoryLock::~DirectoryLock() {
  unlink(path_.c_str());
  close(descriptor_);
}

}  // namespace einfield
