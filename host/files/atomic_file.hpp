// Files that appear completely or not at all: written under a temporary name beside the target, synced, renamed.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace einfield {

/// Calls `write(temporary_path)`, then syncs and renames to `path`; removes the temporary file on any failure.
/// @throws IoError with path and reason
void write_atomically(const std::string& path, const std::function<void(const std::string& temporary)>& write);

/// Writes the bytes of `contents` in the same way.
void write_atomically(const std::string& path, std::string_view contents);

/// Creates a directory and its parents where they do not exist. @throws IoError with path and reason
void create_directory(const std::string& path);

/// Removes temporary files that killed processes of this machine left in a directory. Files that cannot be removed
/// stay.
void remove_abandoned_temporaries(const std::string& directory);

}  // namespace einfield
