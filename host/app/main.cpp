// The command line: options in, exit status out. The only place that prints and that catches everything.
#include <signal.h>  // NOLINT(modernize-deprecated-headers): sigaction is POSIX, not of <csignal>
#include <unistd.h>

#include <fitsio.h>
#include <algorithm>
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "einfield/config.hpp"
#include "einfield/core.hpp"
#include "einfield/error.hpp"
#include "host/app/evaluate.hpp"
#include "host/app/reproduce.hpp"
#include "host/app/run.hpp"
#include "host/app/simulate.hpp"
#include "host/exchange/coolest.hpp"
#include "host/exchange/exchange.hpp"
#include "host/exchange/lens_toml.hpp"
#include "host/exchange/lenstronomy.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/files/toml.hpp"

namespace {

using namespace einfield;

enum ExitStatus { kDone = 0, kFailure = 1, kBadInput = 2, kNoBackend = 3, kInterrupted = 130 };

volatile sig_atomic_t interrupted = 0;

/// The first signal ends the fit after its step; a second one, of either kind, ends the process at once.
void on_signal(int) {
  interrupted = 1;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

/// Signals that the caller wants ignored, as a shell does for what it runs in the background, stay ignored.
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

std::string version() {
  return std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR) + "." +
         std::to_string(EINFIELD_VERSION_PATCH);
}

// Checks of values. CLI11 puts the option and a colon in front of what they return.

CLI::Validator one_of(const std::vector<std::string>& names) {
  return {[names](std::string& given) {
            const bool known = std::find(names.begin(), names.end(), given) != names.end();
            return known ? ""
                         : "no such name, found " + given + ", expected " + (names.size() > 1 ? "one of " : "") +
                               joined(names);
          },
          ""};
}

CLI::Validator whole_number(int lowest, int highest) {
  return {[lowest, highest](std::string& given) {
            const std::optional<long long> value = parse_number<long long>(given);
            if (value && *value >= lowest && *value <= highest) return std::string();
            return (value ? "out of range, found " : "no number, found ") + given + ", expected a whole number " +
                   std::to_string(lowest) + " to " + std::to_string(highest);
          },
          ""};
}

/// A name of a file or directory that cannot be an option whose value was forgotten.
CLI::Validator path() {
  return {[](std::string& given) {
            if (given.empty()) return std::string("an empty name, expected that of a file or directory");
            return given[0] != '-'
                       ? ""
                       : "no value, found the option " + given + ", expected a name (./" + given + " if it is one)";
          },
          ""};
}

/// Options that fit and reproduce share.
struct RunFlags {
  RunOptions run;
  std::string precision = "single";
  bool quiet = false;
  CLI::Option* device = nullptr;

  void add_to(CLI::App* command) {
    command->add_option("--backend", run.backend, "auto, cuda or cpu; auto takes a CUDA device when one is usable")
        ->type_name("NAME")
        ->check(one_of({"auto", "cuda", "cpu"}))
        ->capture_default_str();
    device = command->add_option("--device", run.device, "CUDA device, from 0")
                 ->type_name("N")
                 ->check(whole_number(0, 1023));
    command->add_option("--threads", run.threads, "CPU threads; 0 = as many as the process may use")
        ->type_name("N")
        ->check(whole_number(0, 1024))
        ->capture_default_str();
    command->add_option("--precision", precision, "single or double")
        ->type_name("NAME")
        ->check(one_of({"single", "double"}))
        ->capture_default_str();
    command->add_flag("--quiet", quiet, "print errors only")->disable_flag_override();
    command->add_option("--log-every", run.log_every, "steps between rows of the history")
        ->type_name("N")
        ->check(whole_number(1, 1'000'000'000))
        ->capture_default_str();
  }
  RunOptions options() {
    if (device->count() > 0) {
      if (run.backend == "cpu") throw InvalidInput("--device: contradicts --backend cpu, expected one of them");
      run.backend = "cuda";  // a device that is asked for is used or is an error
    }
    run.double_precision = precision == "double";
    run.log = quiet ? nullptr : &std::cout;
    run.warnings = quiet ? nullptr : &std::cerr;
    const char* terminal = std::getenv("TERM");
    run.terminal = isatty(STDOUT_FILENO) != 0 && !(terminal && std::string(terminal) == "dumb");
    run.interrupted = [] { return interrupted != 0; };
    return run;
  }
};

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

/// NX,NY,PIXEL_SCALE of --grid.
struct GridOption {
  int nx, ny;
  double pixel_scale;

  explicit GridOption(const std::string& text) {
    std::vector<double> numbers;
    std::istringstream fields(text);
    for (std::string field; std::getline(fields, field, ',');)
      numbers.push_back(parse_number<double>(field).value_or(NAN));
    const auto side = [](double v) { return v >= 1 && v <= kMaxImageSide && v == std::floor(v); };
    if (numbers.size() != 3 || !side(numbers[0]) || !side(numbers[1]) || !std::isfinite(numbers[2]) || numbers[2] <= 0)
      throw InvalidInput("--grid: no grid, found " + text + ", expected NX,NY,PIXEL_SCALE: whole numbers 1 to " +
                         std::to_string(kMaxImageSide) + " and a number > 0 arcsec");
    nx = static_cast<int>(numbers[0]);
    ny = static_cast<int>(numbers[1]);
    pixel_scale = numbers[2];
  }
};

/// What `einfield convert` is asked for; one of the first four is given.
struct Conversion {
  std::string to_coolest, from_coolest, to_lenstronomy, from_lenstronomy;
  std::string out;
  bool overwrite = false;

  void run() const {
    std::string given;
    for (const auto& [option, value] : {std::pair("--to-coolest", &to_coolest),
                                        {"--from-coolest", &from_coolest},
                                        {"--to-lenstronomy", &to_lenstronomy},
                                        {"--from-lenstronomy", &from_lenstronomy}}) {
      if (value->empty()) continue;
      if (!given.empty()) throw InvalidInput(std::string(option) + ": contradicts " + given + ", expected one of them");
      given = option;
    }
    if (given.empty())
      throw InvalidInput("--to-coolest: missing, expected it, --from-coolest, --to-lenstronomy or --from-lenstronomy");
    std::vector<std::string> warnings;
    std::string target;
    if (!to_coolest.empty()) target = write(to_coolest, "coolest.json", write_coolest, warnings);
    if (!to_lenstronomy.empty()) target = write(to_lenstronomy, "lenstronomy.json", write_lenstronomy, warnings);
    if (!from_coolest.empty()) target = read(from_coolest, read_coolest, warnings);
    if (!from_lenstronomy.empty()) target = read(from_lenstronomy, read_lenstronomy, warnings);
    for (const std::string& warning : warnings) std::cerr << "einfield: warning: " << warning << '\n';
    std::cout << target << '\n';
  }

 private:
  using Write = std::vector<std::string> (*)(const std::string& dir, const ExchangedLens& lens);
  using Read = ExchangedLens (*)(const std::string& file, std::vector<std::string>& warnings);

  /// Results in another format: in their own directory, where they replace what was made of them before, or in --out.
  std::string write(const std::string& results, const std::string& name, Write write_format,
                    std::vector<std::string>& warnings) const {
    const ExchangedLens lens = read_exchanged(results);
    const std::string dir = out.empty() ? results : out;
    prepare_directory(dir, {name}, overwrite || out.empty());
    warnings = write_format(dir, lens);
    return (std::filesystem::path(dir) / name).string();
  }
  /// A configuration of another format.
  std::string read(const std::string& file, Read read_format, std::vector<std::string>& warnings) const {
    const ExchangedLens lens = read_format(file, warnings);
    const std::filesystem::path path(file);
    return write_configuration(out.empty() ? path.stem().string() + "_einfield" : out, lens,
                               "from " + path.filename().string(), overwrite);
  }
};

/// Default directory of results: the name of the configuration with _fit.
std::string default_out(const std::string& config) {
  return std::filesystem::path(config).stem().string() + "_fit";
}

/// The command line as a shell takes it.
std::string shell_command(const std::vector<std::string>& words) {
  std::string line = "einfield";
  for (const std::string& word : words) {
    const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 ||
             std::string_view("_-./=,:+@%").find(static_cast<char>(c)) != std::string_view::npos;
    });
    line += ' ';
    if (plain) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

/// Where `simulate` writes without --out: the image of the configuration, unless that stands outside of its directory.
std::string default_image(const Config& config, const std::string& config_file) {
  namespace fs = std::filesystem;
  if (config.observation.image.empty()) return "";
  const fs::path image = fs::absolute(config.observation.image.path).lexically_normal();
  const fs::path relative = image.lexically_relative(fs::absolute(config_file).lexically_normal().parent_path());
  if (relative.empty() || *relative.begin() == "..")
    throw InvalidInput(config.at("observation.image") + ": outside of the directory of the configuration, found " +
                       image.string() + ", expected --out with that name to write there");
  return config.observation.image.path;
}

int ended(const RunOutcome& outcome) {
  if (outcome.stop_reason == "interrupted") return kInterrupted;
  if (outcome.stop_reason != "non-finite") return kDone;
  std::cerr << "einfield: error: " << outcome.message << "; the results hold the last good state\n";
  return kFailure;
}

void print_info(bool json) {
  float cfitsio = 0;  // 4.2.0 is 4.02, 3.49 is 3.49
  fits_get_version(&cfitsio);
  const int cfitsio_digits = static_cast<int>(std::lround(1e4 * static_cast<double>(cfitsio)));
#ifdef EINFIELD_HAVE_CUDA
  const std::vector<std::string> backends = {"cpu", "cuda"};
#else
  const std::vector<std::string> backends = {"cpu"};
#endif
  const auto triple = [](int a, int b, int c) {
    return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
  };
  const std::string cfitsio_text = triple(cfitsio_digits / 10000, cfitsio_digits / 100 % 100, cfitsio_digits % 100);
  const nlohmann::ordered_json info = {
      {"version", version()},
      {"backends", backends},
      {"devices", cuda_devices()},
      {"cpu", make_backend<float>("cpu", {})->device()},
      {"libraries",
       {{"cfitsio", cfitsio_text},
        {"toml++", triple(TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH)},
        {"nlohmann_json",
         triple(NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
        {"CLI11", CLI11_VERSION}}}};
  if (json) {
    std::cout << info.dump(2) << '\n';
    return;
  }
  std::cout << "einfield " << version() << "\nbackends:";
  for (const std::string& backend : backends) std::cout << ' ' << backend;
  std::cout << "\ncpu: " << info["cpu"].get<std::string>() << '\n';
  for (const std::string& device : cuda_devices()) std::cout << "cuda: " << device << '\n';
  if (cuda_devices().empty()) std::cout << "cuda: no usable device\n";
  std::cout << "libraries:";
  for (const auto& [name, value] : info["libraries"].items())
    std::cout << ' ' << name << ' ' << value.get<std::string>();
  std::cout << '\n';
}

/// The command that was given, or null.
const CLI::App* given_command(const CLI::App& app) {
  const std::vector<CLI::App*> commands = app.get_subcommands();
  return commands.empty() ? nullptr : commands.front();
}

/// "einfield fit CONFIG".
std::string synopsis(const CLI::App& command) {
  std::string text = "einfield " + command.get_name();
  for (const CLI::Option* option : command.get_options())
    if (option->get_positional()) text += " " + option->get_name();
  return text;
}

/// What nobody asked for: an option or a word that does not exist, the nearest one beside it.
std::string unexpected(const CLI::App& app, std::string word) {
  const CLI::App* command = given_command(app);
  if (word[0] == '-') {
    word.resize(std::min(word.find('='), word.size()));
    std::vector<std::string> names, options;
    for (const CLI::Option* option : (command ? *command : app).get_options())
      if (!option->get_positional()) {
        names.push_back(option->get_lnames().front());
        options.push_back("--" + names.back());
      }
    const std::string nearest = suggestion(word.substr(std::min(word.find_first_not_of('-'), word.size())), names);
    const bool near = std::find(names.begin(), names.end(), nearest) != names.end();
    return word + ": no such option of " + (command ? "einfield " + command->get_name() : "einfield") + ", expected " +
           (near ? "--" + nearest : "one of " + joined(options));
  }
  if (command) return word + ": one word too many, expected " + synopsis(*command);
  std::vector<std::string> names;
  for (const CLI::App* candidate : app.get_subcommands({})) names.push_back(candidate->get_name());
  return word + ": no such command, expected " + suggestion(word, names);
}

/// A value that is missing, or one too many: what CLI11 calls a mismatch.
std::string mismatch(const CLI::App& command, const std::vector<std::string>& words) {
  for (const std::string& word : words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = word.substr(0, equals);
    const CLI::Option* option = command.get_option_no_throw(name);
    if (option && option->get_items_expected_max() == 0)
      return name + ": takes no value, found " + word.substr(equals + 1) + ", expected it alone";
  }
  const CLI::Option* last = command.get_option_no_throw(words.back());
  return words.back() + ": no value, expected " + (last ? last->get_type_name() : "one");
}

/// What is wrong with the command line, in one line; "" when nothing is.
std::string usage_message(const CLI::App& app, const std::vector<std::string>& words, const CLI::ParseError* error) {
  const CLI::App* command = given_command(app);
  for (const std::string& word : app.remaining(true))
    if (word != "--") return unexpected(app, word);
  if (!command) return "no command, expected one of those that einfield --help lists";
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

int run(int argc, char** argv) {
  CLI::App app("Fits strong gravitational lenses: a smooth model and a neural network for the rest of the potential.",
               "einfield");
  app.require_subcommand(1);
  app.allow_extras();  // usage_message() complains about them
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.set_version_flag("--version", "einfield " + version());
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.footer(
      "einfield COMMAND --help lists the options of a command, einfield info --keys the keys of a configuration.\n"
      "Exit status: 0 done, 1 failure at run time, 2 bad input, 3 the backend asked for is not there, 130 "
      "interrupted.");

  std::string config_file, out, directory, points, grid, experiment;
  std::vector<std::string> settings, only;
  bool overwrite = false, json = false, keys = false;
  RunFlags fit_flags, reproduce_flags;

  const auto add_config = [&](CLI::App* command, const std::string& help) {
    command->add_option("CONFIG", config_file, help)->type_name("FILE.toml")->required()->check(path());
  };
  const auto add_out = [&](CLI::App* command, const std::string& type, const std::string& help) {
    command->add_option("--out", out, help)->type_name(type)->check(path());
  };
  // One value an option, so that what follows it is not taken for a second one.
  const auto add_set = [&](CLI::App* command) {
    command->add_option("--set", settings, "VALUE, as in TOML, in place of the configuration's; may be repeated")
        ->type_name("KEY=VALUE")
        ->take_all()
        ->allow_extra_args(false);
  };

  CLI::App* simulate_command =
      app.add_subcommand("simulate", "Make the image that a configuration describes")->group("Commands");
  add_config(simulate_command, "configuration with [simulate]");
  add_out(simulate_command, "FILE.fits", "default: the file of [observation] image");
  add_set(simulate_command);
  simulate_command->add_flag("--overwrite", overwrite, "replace an existing file")->disable_flag_override();

  CLI::App* fit_command = app.add_subcommand("fit", "Fit the lens of a configuration")->group("Commands");
  add_config(fit_command, "configuration");
  add_out(fit_command, "DIR", "directory of results; default: <name of the configuration>_fit");
  add_set(fit_command);
  fit_command->add_flag("--resume", fit_flags.run.resume, "go on from the checkpoint in --out")
      ->disable_flag_override();
  fit_command->add_flag("--overwrite", fit_flags.run.overwrite, "replace the results in --out")
      ->disable_flag_override();
  fit_command->add_flag("--dry-run", fit_flags.run.dry_run, "read and check everything, fit and write nothing")
      ->disable_flag_override();
  fit_flags.add_to(fit_command);

  CLI::App* evaluate_command =
      app.add_subcommand("evaluate", "Potential, deflection and convergence of a fit at points")->group("Commands");
  evaluate_command->add_option("DIR", directory, "directory of results")->type_name("")->required()->check(path());
  evaluate_command->add_option("--points", points, "columns x,y [arcsec]; the fields are added to them")
      ->type_name("FILE.csv")
      ->check(path());
  evaluate_command->add_option("--grid", grid, "maps around the middle of the image; scale in arcsec")
      ->type_name("NX,NY,PIXEL_SCALE");
  add_out(evaluate_command, "FILE", "CSV (default: stdout) or FITS (default: DIR/evaluate.fits)");

  Conversion conversion;
  CLI::App* convert_command =
      app.add_subcommand("convert", "Results to, and a configuration from, the files of other packages")
          ->group("Commands");
  convert_command->add_option("--to-coolest", conversion.to_coolest, "results of a fit to the COOLEST standard")
      ->type_name("DIR")
      ->check(path());
  convert_command->add_option("--from-coolest", conversion.from_coolest, "a COOLEST template to a configuration")
      ->type_name("FILE.json")
      ->check(path());
  convert_command->add_option("--to-lenstronomy", conversion.to_lenstronomy, "results to lenstronomy's dictionaries")
      ->type_name("DIR")
      ->check(path());
  convert_command
      ->add_option("--from-lenstronomy", conversion.from_lenstronomy, "lenstronomy's dictionaries to a configuration")
      ->type_name("FILE.json")
      ->check(path());
  convert_command
      ->add_option(
          "--out", conversion.out,
          "directory; default: that of the results, or <name of the file>_einfield with lens.toml and lens.fits")
      ->type_name("DIR")
      ->check(path());
  convert_command->add_flag("--overwrite", conversion.overwrite, "replace files in --out")->disable_flag_override();

  CLI::App* reproduce_command = app.add_subcommand("reproduce", "Repeat the experiments of a paper")->group("Commands");
  reproduce_command->add_option("PAPER", experiment, "biggio2021")
      ->type_name("")
      ->required()
      ->check(one_of({"biggio2021"}));
  add_out(reproduce_command, "DIR", "default: biggio2021");
  reproduce_command->add_option("--only", only, "some of sie_noisy,shear_noisy,sie_noiseless,sie_overfit")
      ->type_name("NAMES")
      ->delimiter(',')
      ->take_all()
      ->allow_extra_args(false)
      ->check(one_of({"sie_noisy", "shear_noisy", "sie_noiseless", "sie_overfit"}));
  reproduce_command->add_flag("--overwrite", reproduce_flags.run.overwrite, "replace earlier results")
      ->disable_flag_override();
  reproduce_flags.add_to(reproduce_command);

  CLI::App* info_command =
      app.add_subcommand("info", "Version, backends, devices, libraries, keys of the configuration")->group("Commands");
  info_command->add_flag("--json", json, "as JSON")->disable_flag_override();
  info_command->add_flag("--keys", keys, "every key of the configuration with type, unit, range and default")
      ->disable_flag_override();

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

  if (info_command->parsed()) {
    if (json && keys) throw InvalidInput("--keys: contradicts --json, expected one of them");
    if (keys)
      std::cout << list_keys();
    else
      print_info(json);
    return kDone;
  }
  if (simulate_command->parsed()) {
    const Config config = read_config(config_file, overrides(settings), true);
    const std::string target = out.empty() ? default_image(config, config_file) : out;
    for (const std::string& warning : simulate(config, target, overwrite))
      std::cerr << "einfield: warning: " << warning << '\n';
    std::cout << target << '\n';
    return kDone;
  }
  if (fit_command->parsed()) {
    if (fit_flags.run.resume && fit_flags.run.overwrite)
      throw InvalidInput("--resume: contradicts --overwrite, expected one of them");
    catch_signals();
    const Config config = read_config(config_file, overrides(settings), false);
    RunOptions options = fit_flags.options();
    options.out = out.empty() ? default_out(config_file) : out;
    options.command = shell_command(words);
    return ended(run_fit(config, options));
  }
  if (evaluate_command->parsed()) {
    if (points.empty() == grid.empty())
      throw InvalidInput("--points: found " + std::string(grid.empty() ? "neither it nor" : "it and") +
                         " --grid, expected one of them");
    if (!points.empty()) {
      evaluate_points(directory, points, out, std::cout);
      return kDone;
    }
    const GridOption maps(grid);
    evaluate_grid(directory, maps.nx, maps.ny, maps.pixel_scale, out);
    return kDone;
  }
  if (convert_command->parsed()) {
    conversion.run();
    return kDone;
  }
  catch_signals();
  ReproduceOptions options;
  options.out = out.empty() ? experiment : out;
  options.only = only;
  options.run = reproduce_flags.options();
  return ended(reproduce(options));
}

/// The end where no handler can be reached, as for an error within the handling of one.
[[noreturn]] void on_terminate() {
  const char message[] = "einfield: error: cannot go on, probably out of memory on the host\n";
  if (write(STDERR_FILENO, message, sizeof message - 1) < 0) _exit(kFailure);
  _exit(kFailure);
}

}  // namespace

int main(int argc, char** argv) {
  const auto failed = [](std::string message, int status) {
    for (char& c : message)
      if (static_cast<unsigned char>(c) < ' ') c = ' ';  // of a file name: an error is one line
    std::cerr << "einfield: error: " << message << '\n';
    return status;
  };
  std::set_terminate(on_terminate);
  // A limit on file sizes is an error of the write, as a full disk is.
  signal(SIGXFSZ, SIG_IGN);
  try {
    const int status = run(argc, argv);
    if (!std::cout.flush() && status == kDone) return failed("stdout: cannot write", kFailure);
    return status;
  } catch (const InvalidInput& error) {
    return failed(error.what(), kBadInput);
  } catch (const BackendUnavailable& error) {
    return failed(std::string("--backend: ") + error.what(), kNoBackend);
  } catch (const std::bad_alloc&) {
    std::cerr << "einfield: error: out of memory on the host\n";  // not even a string may be had
    return kFailure;
  } catch (const std::length_error&) {  // more than any memory holds
    return failed("out of memory on the host", kFailure);
  } catch (const std::exception& error) {
    return failed(error.what(), kFailure);
  }
}
