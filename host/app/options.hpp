// What several commands have in common: signals, checks of values, options of runs.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "host/app/run.hpp"

namespace einfield {

// ---- signals -------------------------------------------------------------------------------------------------

/// The first SIGINT or SIGTERM asks the run to end; a second one ends the process at once. Signals that the caller
/// ignores, as a shell does for background jobs, stay ignored.
void catch_signals();
/// The signal that has come; 0 = none.
int caught_signal();

// ---- checks of values; CLI11 puts the option and a colon in front of the message -------------------------------

CLI::Validator one_of(const std::vector<std::string>& names);
/// The names that an option takes; empty when it has no one_of().
std::vector<std::string> names_of_one_of(CLI::Option& option);
CLI::Validator whole_number(int lowest, int highest);
/// A name of a file or directory. An option here means that the value was forgotten.
CLI::Validator path();

// ---- options -------------------------------------------------------------------------------------------------

void add_config(CLI::App* command, std::string& config, const std::string& help);
void add_out(CLI::App* command, std::string& out, const std::string& type, const std::string& help);
void add_set(CLI::App* command, std::vector<std::string>& settings);
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& help);

/// "einfield batch run", or the names with something else between them.
std::string full_name(const CLI::App& command, const std::string& between = " ");

/// KEY=VALUE of --set. @throws InvalidInput "--set: …"
std::vector<Override> overrides(const std::vector<std::string>& settings);

void print_warnings(const std::vector<std::string>& warnings);

/// The exit status of a finished fit; says on stderr why it failed.
int ended(const RunOutcome& outcome, bool strict);

/// A text in single quotes of a shell.
std::string in_quotes(const std::string& text);

/// The command line, quoted so that a shell can run it again.
std::string shell_command(const std::vector<std::string>& words);

/// Options of all commands that fit.
struct RunFlags {
  RunOptions run;
  std::string precision = "single";
  bool quiet = false;
  bool strict = false;
  CLI::Option* device = nullptr;

  /// Backend, device, threads, precision, quiet. @param threads_help  what --threads counts
  void add_to(CLI::App* command, const std::string& threads_help = "CPU threads; 0 = all that the process may use");
  void add_log_every(CLI::App* command);
  /// @throws InvalidInput for a device of the CPU, and for options that contradict each other
  RunOptions options();

  /// The exit status of work(). If its backend is not available, the error names the option that asked for it.
  template <class Work>
  int status_of(const Work& work) const {
    try {
      return work();
    } catch (const BackendUnavailable& error) {
      throw BackendUnavailable((device->count() > 0 ? "--device: " : "--backend: ") + std::string(error.what()));
    }
  }
};

}  // namespace einfield
