// The subcommands of `einfield batch`.
#pragma once

#include <CLI/CLI.hpp>
#include <vector>

#include "host/app/commands.hpp"

namespace einfield {

/// Adds `batch` with plan, run, status and collect.
std::vector<Command> batch_commands(CLI::App& app);

}  // namespace einfield
