// The subcommands of einfield: one function each adds a command and its options to the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace einfield {

/// A subcommand.
struct Command {
  CLI::App* options;
  /// Runs the command after its options have been parsed. @param words  the command line without the program's name
  /// @return the exit status
  std::function<int(const std::vector<std::string>& words)> run;
};

/// Adds all commands, in the order of `einfield --help`.
std::vector<Command> add_commands(CLI::App& app);

}  // namespace einfield
