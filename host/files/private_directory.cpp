#include "host/files/private_directory.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "einfield/error.hpp"

namespace einfield {

namespace fs = std::filesystem;

PrivateDirectory::PrivateDirectory() {
  std::string name = (fs::temp_directory_path() / "einfield-XXXXXX").string();
  if (!mkdtemp(name.data())) throw IoError(name + ": cannot make a temporary directory (" + std::strerror(errno) + ")");
  path_ = name;
}

PrivateDirectory::~PrivateDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace einfield
