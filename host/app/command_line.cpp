#include "host/app/command_line.hpp"

#include <algorithm>
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "einfield/error.hpp"
#include "host/app/commands.hpp"
#include "host/app/options.hpp"
#include "host/files/text.hpp"
#include "host/files/version.hpp"

namespace einfield {
namespace {

/// The command that was given, or null; after `batch` the one that follows it.
const CLI::App* given_command(const CLI::App& app) {
  const CLI::App* command = nullptr;
  for (std::vector<CLI::App*> commands = app.get_subcommands(); !commands.empty();
       commands = command->get_subcommands())
    command = commands.front();
  return command;
}

/// The names of the commands below a command.
std::vector<std::string> commands_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* candidate : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(candidate->get_name());
  return names;
}

/// "einfield fit CONFIG".
std::string synopsis(const CLI::App& command) {
  if (const std::vector<std::string> names = commands_of(command); !names.empty())
    return full_name(command) + " with one of " + joined(names);
  std::string text = full_name(command);
  for (const CLI::Option* option : command.get_options())
    if (option->get_positional()) text += " " + option->get_name();
  return text;
}

/// The message for an option or argument that does not exist, with the most similar one.
std::string unexpected(const CLI::App& app, std::string word) {
  const CLI::App* command = given_command(app);
  if (word[0] == '-') {
    word.resize(std::min(word.find('='), word.size()));
    std::vector<std::string> names, options;
    for (const CLI::Option* option : (command ? *command : app).get_options())
      if (!option->get_positional() && !option->get_group().empty()) {
        names.push_back(option->get_lnames().front());
        options.push_back("--" + names.back());
      }
    const std::string nearest = suggestion(word.substr(std::min(word.find_first_not_of('-'), word.size())), names);
    const bool near = std::find(names.begin(), names.end(), nearest) != names.end();
    return word + ": no such option of " + (command ? full_name(*command) : "einfield") + ", expected " +
           (near ? "--" + nearest : "one of " + joined(options));
  }
  const std::vector<std::string> names = commands_of(command ? *command : app);
  if (names.empty()) return word + ": unexpected argument, expected " + synopsis(*command);
  return word + ": no such command" + (command ? " of " + full_name(*command) : "") + ", expected " +
         suggestion(word, names);
}

/// The message for an option without its value, or a flag with one.
std::string mismatch(const CLI::App& command, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = word.substr(0, equals);
    const CLI::Option* option = command.get_option_no_throw(name);
    if (option && option->get_items_expected_max() == 0)
      return name + ": takes no value, found " + word.substr(equals + 1) + ", expected none";
  }
  const CLI::Option* last = command.get_option_no_throw(words.back());
  return words.back() + ": no value, expected " + (last ? last->get_type_name() : "one");
}

/// What is wrong with the command line, in one line; "" = nothing.
std::string usage_message(const CLI::App& app, const std::vector<std::string>& words, const CLI::ParseError* error) {
  const CLI::App* command = given_command(app);
  for (const std::string& word : app.remaining(true))
    if (word != "--") return unexpected(app, word);
  if (!command) return "no command, expected one that einfield --help lists";
  if (dynamic_cast<const CLI::RequiredError*>(error)) return "arguments missing, expected " + synopsis(*command);
  if (dynamic_cast<const CLI::ArgumentMismatch*>(error)) return mismatch(*command, words);
  if (error) {
    std::string message = error->what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return message;
  }
  for (const CLI::Option* option : command->get_options())
    if (option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeLast && option->get_items_expected_max() > 0 &&
        option->count() > 1)
      return option->get_name() + ": given twice, found " + joined(option->results()) + ", expected it once";
  return "";
}

/// "0 done, 1 failure at run time, …"
std::string exit_statuses() {
  std::vector<std::string> texts;
  for (const ExitMeaning& exit : kExitMeanings) texts.push_back(std::to_string(exit.status) + " " + exit.meaning);
  return joined(texts);
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CLI::App app("Fits strong gravitational lenses with a smooth model and a neural network that corrects its potential.",
               "einfield");
  app.require_subcommand(1);
  app.allow_extras();  // usage_message() reports them
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.set_version_flag("--version", "einfield " + version());
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.footer(
      "`einfield COMMAND --help` lists the options of a command; `einfield info --keys` lists the keys of a "
      "configuration.\nExit status: " +
      exit_statuses() + ".");
  const std::vector<Command> commands = add_commands(app);

  const std::vector<std::string> words(argv + 1, argv + argc);
  std::string complaint;
  try {
    app.parse(argc, argv);
    complaint = usage_message(app, words, nullptr);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    complaint = usage_message(app, words, &error);
  }
  if (!complaint.empty()) throw InvalidInput(complaint);
  return std::find_if(commands.begin(), commands.end(), [](const Command& c) { return c.options->parsed(); })
      ->run(words);
}

}  // namespace einfield
