// One run at a time in a directory of results.
#pragma once

#include <string>

namespace einfield {

/// Holds DIR/.lock under flock for its lifetime. The system lets go of it when the process ends in any way, so a lock
/// that a killed run has left behind stops nobody.
class DirectoryLock {
 public:
  /// @throws IoError when another run holds the lock, or the file cannot be made
  explicit DirectoryLock(const std::string& dir);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  /// False on a file system that has no locks.
  bool locked() const { return locked_; }

 private:
  std::string path_;
  int descriptor_ = -1;
  bool locked_ = false;
};

}  // namespace einfield
