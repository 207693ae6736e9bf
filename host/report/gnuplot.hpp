// gnuplot in a child process: started without a shell, in a directory of its own, with a time limit.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

namespace einfield {

/// `words` as one string of a gnuplot script. gnuplot expands nothing within single quotes, so only what could end the
/// string is replaced: a single quote by an apostrophe (a doubled quote, which the manual recommends, ends a string
/// that it begins), line breaks and other control characters by spaces. Long texts are cut.
std::string quoted(const std::string& words);

/// Runs `gnuplot -d script.gp` in `directory`; returns a warning, or "".
std::string run_gnuplot(const std::filesystem::path& directory, std::chrono::milliseconds time_limit);

/// The bytes of a file; "" when it cannot be read.
std::string contents(const std::filesystem::path& path);

}  // namespace einfield
