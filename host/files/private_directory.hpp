#pragma once

#include <filesystem>

namespace einfield {

/// A temporary directory that only this user can read. It is removed with everything in it.
class PrivateDirectory {
 public:
  /// @throws IoError
  PrivateDirectory();
  ~PrivateDirectory();
  PrivateDirectory(const PrivateDirectory&) = delete;
  PrivateDirectory& operator=(const PrivateDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace einfield
