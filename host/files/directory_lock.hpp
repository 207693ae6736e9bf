// One run at a time in a directory of results.
#pragma once

#include <string>

namespace einfield {

/// Holds DIR/.lock with flock for its lifetime. The system releases the lock when the process ends in any way, so a
/// file left behind by a killed run blocks nobody.
class DirectoryLock {
 public:
  /// @throws IoError if another run holds the lock, or the file cannot be created
  explicit DirectoryLock(const std::string& dir);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  /// False on a file system without locks.
  bool locked() const { return locked_; }

 private:
  std::string path_;
  int descriptor_ = -1;
  bool locked_ = false;
};

}  // namespace einfield
