#include "host/app/manual.hpp"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "host/app/command_line.hpp"
#include "host/app/options.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"
#include "host/files/version.hpp"

namespace einfield {
namespace {

// ---- what the command line knows ------------------------------------------------------------------------------

std::vector<CLI::App*> commands_of(CLI::App& app) {
  return app.get_subcommands([](CLI::App*) { return true; });
}

/// The program, its commands and theirs.
std::vector<CLI::App*> all_commands(CLI::App& app) {
  std::vector<CLI::App*> all = {&app};
  for (CLI::App* command : commands_of(app)) {
    const std::vector<CLI::App*> below = all_commands(*command);
    all.insert(all.end(), below.begin(), below.end());
  }
  return all;
}

/// Positional arguments, or options, without those that `--help` leaves out.
std::vector<CLI::Option*> listed(CLI::App& command, bool positional) {
  std::vector<CLI::Option*> found;
  for (CLI::Option* option : command.get_options([](CLI::Option*) { return true; }))
    if (option->get_positional() == positional && !option->get_group().empty()) found.push_back(option);
  return found;
}

bool takes_value(CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}

/// What stands for the value: "DIR"; of an argument without a type its name.
std::string value_name(CLI::Option& option) {
  const std::string type = option.get_type_name();
  return type.empty() ? option.get_name() : type;
}

/// What the value may be.
enum class Value { names, file, directory, other };
struct Values {
  Value kind = Value::other;
  std::vector<std::string> names{};
};

Values values_of(CLI::App& root, CLI::Option& option) {
  if (option.get_name() == "COMMAND") {
    Values values{Value::names, {}};
    for (CLI::App* command : commands_of(root)) values.names.push_back(command->get_name());
    return values;
  }
  if (const std::vector<std::string> names = names_of_one_of(option); !names.empty()) return {Value::names, names};
  const std::string type = value_name(option);
  if (type == "DIR") return {Value::directory};
  return {type.rfind("FILE", 0) == 0 ? Value::file : Value::other};
}

// ---- manual pages ----------------------------------------------------------------------------------------------

/// Text that roff leaves as it is.
std::string roff(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '.' || c == '\'') && (i == 0 || text[i - 1] == '\n')) result += "\\&";
    if (c == '\\')
      result += "\\e";
    else if (c == '-')
      result += "\\-";
    else
      result += c;
  }
  return result;
}

std::string bold(const std::string& text) {
  return "\\fB" + roff(text) + "\\fR";
}

std::string italic(const std::string& text) {
  return "\\fI" + roff(text) + "\\fR";
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

std::string synopsis(CLI::App& command) {
  std::string text = bold(full_name(command, " "));
  if (!commands_of(command).empty()) return text + " " + italic("COMMAND") + " [" + italic("OPTIONS") + "]";
  if (!listed(command, false).empty()) text += " [" + italic("OPTIONS") + "]";
  for (CLI::Option* argument : listed(command, true)) {
    const std::string name = italic(argument->get_name());
    text += argument->get_required() ? " " + name : " [" + name + "]";
  }
  return text;
}

/// "\fB-h\fR, \fB--help\fR", or with its value "\fB--out\fR \fIDIR\fR".
std::string option_head(CLI::Option& option) {
  if (option.get_positional()) return italic(option.get_name());
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(bold("-" + name));
  for (const std::string& name : option.get_lnames()) names.push_back(bold("--" + name));
  return joined(names) + (takes_value(option) ? " " + italic(value_name(option)) : "");
}

std::string options_text(const std::vector<CLI::Option*>& options, const std::string& title) {
  std::string text = options.empty() ? "" : ".SH " + title + "\n";
  for (CLI::Option* option : options) {
    text += ".TP\n" + option_head(*option) + "\n" + roff(option->get_description());
    if (takes_value(*option) && !option->get_default_str().empty())
      text += "; default: " + roff(option->get_default_str());
    text += "\n";
  }
  return text;
}

// ---- completion ------------------------------------------------------------------------------------------------

/// The names of a command below the program: "batch run".
std::string key_of(CLI::App& command) {
  const std::string name = full_name(command, " ");
  const std::size_t space = name.find(' ');
  return space == std::string::npos ? "" : name.substr(space + 1);
}

std::string spaced(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

/// What to offer for a value, as an assignment in the function of bash.
std::string bash_values(const Values& values) {
  switch (values.kind) {
    case Value::names:
      return "words=" + in_quotes(spaced(values.names));
    case Value::file:
      return "kind=file";
    case Value::directory:
      return "kind=directory";
    case Value::other:
      break;
  }
  return "return";
}

std::string bash_branch(CLI::App& root, CLI::App& command) {
  std::string options, text = "    " + in_quotes(key_of(command)) + ")\n      case $previous in\n";
  for (CLI::Option* option : listed(command, false)) {
    const std::string name = "--" + option->get_lnames().front();
    options += (options.empty() ? "" : " ") + name;
    if (takes_value(*option) && option->get_items_expected_min() > 0)
      text += "        " + name + ") value=yes; " + bash_values(values_of(root, *option)) + " ;;\n";
  }
  text += "      esac\n      if [ -z \"$value\" ]; then\n        options=" + in_quotes(options) + "\n";
  std::vector<std::string> names;
  for (CLI::App* below : commands_of(command)) names.push_back(below->get_name());
  const std::vector<CLI::Option*> arguments = listed(command, true);
  if (!names.empty()) text += "        words=" + in_quotes(spaced(names)) + "\n";
  if (names.empty() && !arguments.empty()) {
    const Values values = values_of(root, *arguments.front());
    if (values.kind != Value::other) text += "        " + bash_values(values) + "\n";
  }
  return text + "      fi ;;\n";
}

/// A text within an entry of zsh's _arguments.
std::string zsh_text(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result;
}

/// ":message:action" for a value.
std::string zsh_values(CLI::App& root, CLI::Option& option) {
  const Values values = values_of(root, option);
  const std::string message = ":" + zsh_text(value_name(option)) + ":";
  switch (values.kind) {
    case Value::names:
      return message + "(" + spaced(values.names) + ")";
    case Value::file:
      return message + "_files";
    case Value::directory:
      return message + "_files -/";
    case Value::other:
      break;
  }
  return message + " ";
}

std::string zsh_function(CLI::App& root, CLI::App& command) {
  std::string text = "_" + full_name(command, "_") + "() {\n  local -a commands\n  _arguments -C";
  const auto add = [&text](const std::string& entry) { text += " \\\n    " + in_quotes(entry); };
  for (CLI::Option* option : listed(command, false)) {
    const bool again = option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
    add((again ? "*--" : "--") + option->get_lnames().front() + "[" + zsh_text(option->get_description()) + "]" +
        (takes_value(*option) ? zsh_values(root, *option) : ""));
  }
  const std::vector<CLI::App*> below = commands_of(command);
  if (below.empty()) {
    for (CLI::Option* argument : listed(command, true)) add(zsh_values(root, *argument).insert(0, "1"));
    return text + "\n}\n";
  }
  add("1: :->command");
  add("*:: :->rest");
  text += "\n  case $state in\n    command)\n      commands=(\n";
  for (CLI::App* c : below) text += "        " + in_quotes(c->get_name() + ":" + zsh_text(c->get_description())) + "\n";
  return text + "      )\n      _describe command commands ;;\n    rest) _" + full_name(command, "_") +
         "_$words[1] ;;\n  esac\n}\n";
}

}  // namespace

std::string manual_page(CLI::App& command) {
  const std::string name = full_name(command, "-"), version_text = "einfield " + version();
  std::string text = ".TH " + upper(name) + " 1 \"\" \"" + version_text + "\" \"einfield\"\n.SH NAME\n" + roff(name) +
                     " \\- " + roff(command.get_description()) + "\n.SH SYNOPSIS\n" + synopsis(command) + "\n";
  const std::vector<CLI::App*> below = commands_of(command);
  if (!below.empty()) text += ".SH COMMANDS\n";
  for (CLI::App* c : below)
    text += ".TP\n" + bold(c->get_name()) + "\n" + roff(c->get_description()) + "; see " + bold(full_name(*c, "-")) +
            "(1)\n";
  text += options_text(listed(command, true), "ARGUMENTS") + options_text(listed(command, false), "OPTIONS");
  if (!command.get_parent()) {
    text += ".SH EXIT STATUS\n";
    for (const ExitMeaning& exit : kExitMeanings)
      text += ".TP\n" + bold(std::to_string(exit.status)) + "\n" + roff(exit.meaning) + "\n";
    text += ".SH CONFIGURATION\n" + bold("einfield info --keys") + " lists every key of a configuration, " +
            bold("einfield info --flags") + " every flag of a result.\n";
    return text;
  }
  return text + ".SH SEE ALSO\n" + bold(full_name(*command.get_parent(), "-")) + "(1)\n";
}

std::string bash_completion(CLI::App& app) {
  std::string branches, found;
  for (CLI::App* command : all_commands(app)) {
    branches += bash_branch(app, *command);
    if (!command->get_parent()) continue;
    const std::string before = key_of(*command->get_parent());
    found +=
        "      " + in_quotes(before + "/" + command->get_name()) + ") command=" + in_quotes(key_of(*command)) + " ;;\n";
  }
  return "# Completion of einfield for bash.\n"
         "_einfield() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
         "  local command= value= words= options= kind= word\n"
         "  if [ \"$current\" = = ]; then\n"  // --option=VALUE comes in three words
         "    current=\n"
         "  elif [ \"$previous\" = = ]; then\n"
         "    previous=${COMP_WORDS[COMP_CWORD - 2]}\n"
         "  fi\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD - 1}\"; do\n"
         "    case $command/$word in\n" +
         found +
         "    esac\n"
         "  done\n"
         "  case $command in\n" +
         branches +
         "  esac\n"
         "  if [[ $current == -* && -z $value ]]; then\n"
         "    words=$options kind=\n"
         "  fi\n"
         "  case $kind in\n"
         "    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;;\n"
         "    directory) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$current\") ;;\n"
         "    *) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\") ;;\n"
         "  esac\n"
         "}\n"
         "complete -F _einfield einfield\n";
}

std::string zsh_completion(CLI::App& app) {
  std::string text = "#compdef einfield\n# Completion of einfield for zsh.\n";
  for (CLI::App* command : all_commands(app)) text += zsh_function(app, *command);
  return text + "_einfield \"$@\"\n";
}

void write_manual(CLI::App& app, const std::string& dir) {
  const auto write = [&dir](const std::string& folder, const std::string& name, const std::string& text) {
    std::filesystem::create_directories(in(dir, folder));
    write_atomically(in(in(dir, folder), name), text);
  };
  for (CLI::App* command : all_commands(app)) write("man/man1", full_name(*command, "-") + ".1", manual_page(*command));
  write("bash-completion/completions", "einfield", bash_completion(app));
  write("zsh/site-functions", "_einfield", zsh_completion(app));
}

}  // namespace einfield
