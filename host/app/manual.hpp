// Manual pages and completion for shells, from the commands and options of the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace einfield {

/// The manual page of a command in roff, `man`'s macros. @param command  the program itself or a command of it
std::string manual_page(CLI::App& command);

/// A function that completes commands, options, names that an option takes, and files.
std::string bash_completion(CLI::App& app);
std::string zsh_completion(CLI::App& app);

/// Writes all of them below `dir` as they are installed below `share`: man/man1, bash-completion/completions,
/// zsh/site-functions.
void write_manual(CLI::App& app, const std::string& dir);

}  // namespace einfield
