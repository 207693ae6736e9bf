#include "host/app/options.hpp"

#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigaction is POSIX, not of <csignal>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string_view>

#include "einfield/flags.hpp"
#include "host/app/command_line.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

/// How the names of one_of() validators begin; the names that they allow follow.
const std::string kOneOf = "one_of: ";

volatile sig_atomic_t caught = 0;

void on_signal(int number) {
  caught = number;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

}  // namespace

void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int number : {SIGINT, SIGTERM}) {
    struct sigaction before = {};
    sigaction(number, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(number, &action, nullptr);
  }
}

int caught_signal() {
  return caught;
}

CLI::Validator one_of(const std::vector<std::string>& names) {
  std::string name = kOneOf;  // CLI11 keeps it with the option
  for (const std::string& each : names) name += each + " ";
  return {[names](std::string& given) {
            const bool known = std::find(names.begin(), names.end(), given) != names.end();
            return known ? ""
                         : "no such name, found " + given + ", expected " + (names.size() > 1 ? "one of " : "") +
                               joined(names);
          },
          "", name};
}

std::vector<std::string> names_of_one_of(CLI::Option& option) {
  std::string name;
  try {
    name = option.get_validator(0)->get_name();
  } catch (const CLI::OptionNotFound&) {
    return {};  // it has none
  }
  if (name.rfind(kOneOf, 0) != 0) return {};
  std::istringstream words(name.substr(kOneOf.size()));
  return {std::istream_iterator<std::string>(words), {}};
}

CLI::Validator whole_number(int lowest, int highest) {
  return {[lowest, highest](std::string& given) {
            const std::optional<long long> value = parse_number<long long>(given);
            if (value && *value >= lowest && *value <= highest) return std::string();
            return (value ? "out of range, found " : "not a whole number, found ") + given +
                   ", expected a whole number " + std::to_string(lowest) + " to " + std::to_string(highest);
          },
          ""};
}

CLI::Validator path() {
  return {[](std::string& given) {
            if (given.empty()) return std::string("an empty name, expected the name of a file or directory");
            return given[0] != '-' ? ""
                                   : "no value, found the option " + given + ", expected a name (write ./" + given +
                                         " for a file of this name)";
          },
          ""};
}

void add_config(CLI::App* command, std::string& config, const std::string& help) {
  command->add_option("CONFIG", config, help)->type_name("FILE.toml")->required()->check(path());
}

void add_out(CLI::App* command, std::string& out, const std::string& type, const std::string& help) {
  command->add_option("--out", out, help)->type_name(type)->check(path());
}

void add_set(CLI::App* command, std::vector<std::string>& settings) {
  command->add_option("--set", settings, "replace a value of the configuration; VALUE as in TOML; may be repeated")
      ->type_name("KEY=VALUE")
      ->take_all()
      ->allow_extra_args(false);  // one value per option, so that the next word is not taken as a second value
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& help) {
  return app.add_subcommand(name, help)->group("Commands");
}

std::string full_name(const CLI::App& command, const std::string& between) {
  return command.get_parent() ? full_name(*command.get_parent(), between) + between + command.get_name()
                              : command.get_name();
}

std::vector<Override> overrides(const std::vector<std::string>& settings) {
  std::vector<Override> result;
  for (const std::string& setting : settings) {
    const std::size_t equals = setting.find('='), end = setting.find_last_not_of(' ', equals - 1);
    if (equals == std::string::npos || equals == 0 || end == std::string::npos)
      throw InvalidInput("--set: no key and value, found " + setting +
                         ", expected KEY=VALUE as in optimizer.steps=500");
    result.push_back({setting.substr(0, end + 1), setting.substr(equals + 1)});
  }
  return result;
}

int ended(const RunOutcome& outcome, bool strict) {
  if (outcome.stop_reason == StopReason::interrupted) return kInterrupted;
  if (outcome.stop_reason == StopReason::non_finite) {
    std::cerr << "einfield: error: " << outcome.message << "; the results hold the last good state\n";
    return kFailure;
  }
  if (outcome.status == FitStatus::failed) {
    std::cerr << "einfield: error: " << outcome.message << "; the results cannot be used\n";
    return kFailure;
  }
  return strict && outcome.status != FitStatus::ok ? kNotToBeTrusted : kDone;
}

std::string in_quotes(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string shell_command(const std::vector<std::string>& words) {
  std::string line = "einfield";
  for (const std::string& word : words) {
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 ||
             std::string_view("_-./=,:+@%").find(static_cast<char>(c)) != std::string_view::npos;
    });
    line += " " + (plain ? word : in_quotes(word));
  }
  return line;
}

void print_warnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) std::cerr << "einfield: warning: " << warning << '\n';
}

void RunFlags::add_to(CLI::App* command, const std::string& threads_help) {
  command->add_option("--backend", run.backend, "auto, cuda or cpu; auto uses a CUDA device if one is usable")
      ->type_name("NAME")
      ->check(one_of({"auto", "cuda", "cpu"}))
      ->capture_default_str();
  device = command->add_option("--device", run.device, "number of the CUDA device, from 0")
               ->type_name("N")
               ->check(whole_number(0, 1023));
  command->add_option("--threads", run.threads, threads_help)
      ->type_name("N")
      ->check(whole_number(0, 1024))
      ->capture_default_str();
  command->add_option("--precision", precision, "single or double")
      ->type_name("NAME")
      ->check(one_of({"single", "double"}))
      ->capture_default_str();
  command->add_flag("--quiet", quiet, "print errors only")->disable_flag_override();
}

void RunFlags::add_log_every(CLI::App* command) {
  command->add_option("--log-every", run.log_every, "write a row of history.csv every N steps")
      ->type_name("N")
      ->check(whole_number(1, 1'000'000'000))
      ->capture_default_str();
}

RunOptions RunFlags::options() {
  if (run.resume && run.overwrite) throw InvalidInput("--resume: contradicts --overwrite, expected one of them");
  if (device->count() > 0) {
    if (run.backend == "cpu") throw InvalidInput("--device: contradicts --backend cpu, expected one of them");
    run.backend = "cuda";  // a requested device is used, or it is an error
  }
  run.double_precision = precision == "double";
  run.log = quiet ? nullptr : &std::cout;
  run.warnings = quiet ? nullptr : &std::cerr;
  const char* terminal = std::getenv("TERM");
  run.terminal = isatty(STDOUT_FILENO) != 0 && !(terminal && std::string(terminal) == "dumb");
  run.interrupted = [] { return caught_signal() != 0; };
  return run;
}

}  // namespace einfield
