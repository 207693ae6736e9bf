// Files that appear complete or not at all: written under a temporary name beside the target, synced, renamed.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace einfield {

/// Calls `write(temporary_path)`, then syncs and renames to `path`; removes the temporary file on any failure.
/// @throws IoError with path and reason
void write_atomically(const std::string& path, const std::function<void(const std::string& temporary)>& write);

/// The same for a string of bytes.
void write_atomically(const std::string& path, std::string_view contents);

/// Removes temporary files that killed processes of this machine have left in a directory; what cannot be removed
/// stays.
void remove_abandoned_temporaries(const std::string& directory);

}  // namespace einfield
