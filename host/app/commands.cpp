#include "host/app/commands.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <fitsio.h>
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "einfield/flags.hpp"
#include "host/app/batch_command.hpp"
#include "host/app/build_info.hpp"
#include "host/app/command_line.hpp"
#include "host/app/detect.hpp"
#include "host/app/evaluate.hpp"
#include "host/app/manual.hpp"
#include "host/app/new.hpp"
#include "host/app/options.hpp"
#include "host/app/reproduce.hpp"
#include "host/app/run.hpp"
#include "host/app/simulate.hpp"
#include "host/app/simulate_survey.hpp"
#include "host/batch/survey_flags.hpp"
#include "host/exchange/coolest.hpp"
#include "host/exchange/exchange.hpp"
#include "host/exchange/lens_toml.hpp"
#include "host/exchange/lenstronomy.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/private_directory.hpp"
#include "host/files/text.hpp"
#include "host/files/toml.hpp"
#include "host/files/version.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

// ---- simulate ------------------------------------------------------------------------------------------------

/// Where `simulate` writes without --out: to the image of the configuration, if that is below its directory.
std::string default_image(const Config& config, const std::string& config_file) {
  if (config.observation.image.empty()) return "";
  const fs::path image = fs::absolute(config.observation.image.path).lexically_normal();
  const fs::path relative = image.lexically_relative(fs::absolute(config_file).lexically_normal().parent_path());
  if (relative.empty() || *relative.begin() == "..")
    throw InvalidInput(config.at("observation.image") + ": outside the directory of the configuration, found " +
                       image.string() + ", expected --out with this name to write there");
  return config.observation.image.path;
}

/// `simulate --survey`: images, manifest, template and truth of a population.
int simulate_many(int lenses, std::uint64_t seed, const std::string& config, const std::string& out,
                  const std::vector<std::string>& settings) {
  if (!config.empty() || !settings.empty())
    throw InvalidInput("--survey: contradicts " + (config.empty() ? "--set" : "the configuration " + config) +
                       ", expected one of them");
  if (out.empty()) throw InvalidInput("--out: missing, expected a directory for the survey");
  simulate_survey(lenses, seed, out, 0);
  std::cout << in(out, "survey.ecsv") << '\n' << in(out, "lens.toml") << '\n' << in(out, "truth.ecsv") << '\n';
  return kDone;
}

Command simulate_command(CLI::App& app) {
  struct Options {
    std::string config, out;
    std::vector<std::string> settings;
    bool overwrite = false;
    int survey = 0;
    std::uint64_t seed = 1;
    CLI::Option* seed_given = nullptr;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* command = add_command(app, "simulate", "Simulate the image of a configuration, or a survey of lenses");
  command->add_option("CONFIG", o->config, "configuration with a table [simulate]")
      ->type_name("FILE.toml")
      ->check(path());
  add_out(command, o->out, "FILE.fits",
          "file to write; default: the image of [observation]; with --survey a directory");
  add_set(command, o->settings);
  command->add_flag("--overwrite", o->overwrite, "replace an existing file")->disable_flag_override();
  command
      ->add_option(
          "--survey", o->survey,
          "simulate a population of N lenses: images, the manifest and template of `einfield batch`, the truth")
      ->type_name("N")
      ->check(whole_number(1, 1'000'000));
  o->seed_given = command->add_option("--seed", o->seed, "of --survey")
                      ->type_name("N")
                      ->check(whole_number(0, 1'000'000'000))
                      ->capture_default_str();
  return {command, [o](const std::vector<std::string>&) {
            if (o->survey > 0) return simulate_many(o->survey, o->seed, o->config, o->out, o->settings);
            if (o->seed_given->count() > 0) throw InvalidInput("--seed: has no effect without --survey");
            if (o->config.empty())
              throw InvalidInput("arguments missing, expected einfield simulate CONFIG, or --survey N --out DIR");
            const Config config = read_config(o->config, overrides(o->settings), true);
            const std::string target = o->out.empty() ? default_image(config, o->config) : o->out;
            print_warnings(simulate(config, target, o->overwrite));
            std::cout << target << '\n';
            return static_cast<int>(kDone);
          }};
}

// ---- new -----------------------------------------------------------------------------------------------------

/// The options that name the data of an image, of `new` and of `fit IMAGE`.
void add_data(CLI::App* command, NewOptions& o) {
  const auto file = [&](const std::string& option, std::string& value, const std::string& type,
                        const std::string& help) {
    command->add_option(option, value, help)->type_name(type)->check(path());
  };
  file("--noise", o.noise, "FILE[HDU]", "1 sigma of every pixel: a map or one number");
  command->add_option("--noise-kind", o.noise_kind, "content of the map; without this option the sky decides")
      ->type_name("NAME")
      ->check(one_of({"sigma", "variance", "weight"}));
  file("--psf", o.psf, "FILE[HDU]",
       "kernel of the PSF, or none; its header may give its sampling (PIXELSCL, OVERSAMP)");
  file("--mask", o.mask, "FILE[HDU]", "mask; whether 1 or 0 means use is seen from the middle of the image");
  command
      ->add_option_function<std::string>(
          "--pixel-scale",
          [&o](const std::string& text) {
            o.pixel_scale = parse_number<double>(text).value_or(NAN);
            if (!(*o.pixel_scale > 0) || !std::isfinite(*o.pixel_scale))
              throw InvalidInput("--pixel-scale: out of range, found " + text + ", expected a number > 0 arcsec");
          },
          "side of a pixel; default: from the WCS of the image")
      ->type_name("ARCSEC");
  command->add_flag("--pixels", o.pixels, "add free pixels to the source, fitted last");
  command->add_flag("--network", o.network, "add these and a network of the potential, fitted last");
}

Command new_command(CLI::App& app) {
  const auto o = std::make_shared<NewOptions>();
  CLI::App* command = add_command(app, "new", "Write a first configuration for an image of a lens to stdout");
  command->add_option("IMAGE", o->image, "the image")->type_name("FILE[HDU]")->required()->check(path());
  add_data(command, *o);
  return {command, [o](const std::vector<std::string>&) {
            const FirstConfiguration first = first_configuration(*o);
            print_warnings(first.warnings);
            print_warnings(first.doubts);
            std::cout << first.toml;
            return kDone;
          }};
}

// ---- fit -----------------------------------------------------------------------------------------------------

/// Default directory of results: the name of the configuration with an ending.
std::string default_out(const std::string& config, const std::string& ending) {
  return fs::path(config).stem().string() + ending;
}

/// The configuration of `fit`: a file, or for an image what `new` writes, which then lies beside the results; --resume
/// continues with the one that is there.
Config configuration_of_fit(const std::string& given, NewOptions data, const std::vector<Override>& settings,
                            const RunOptions& options) {
  if (!is_fits(given)) {
    if (data.any())
      throw InvalidInput("--noise, --psf, --mask, --pixel-scale: have no effect with the configuration " + given +
                         ", expected an image instead of it");
    return read_config(given, settings, false);
  }
  data.image = given;
  refuse_results(options);
  const std::string file = in(options.out, "lens.toml");
  if (options.resume && fs::exists(file)) return read_config(file, settings, false);
  const FirstConfiguration first = first_configuration(data);
  const auto read = [&](const std::string& path) {
    write_atomically(path, first.toml);
    Config config = read_config(path, settings, false);
    config.warnings.insert(config.warnings.end(), first.doubts.begin(), first.doubts.end());
    return config;
  };
  if (!options.dry_run) {
    create_directory(options.out);
    return read(file);
  }
  // Nothing may stay.
  const PrivateDirectory folder;
  return read(in(folder.path().string(), "lens.toml"));
}

Command fit_command(CLI::App& app) {
  struct Options {
    std::string config, out;
    std::vector<std::string> settings;
    RunFlags flags;
    NewOptions data;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* command = add_command(app, "fit", "Fit the lens of a configuration");
  add_config(command, o->config, "configuration; or an image, with the options of `einfield new`");
  add_out(command, o->out, "DIR", "directory for the results; default: <name of the configuration or image>_fit");
  add_set(command, o->settings);
  command
      ->add_flag("--resume", o->flags.run.resume, "continue from the checkpoint in --out, or begin where there is none")
      ->disable_flag_override();
  command->add_flag("--overwrite", o->flags.run.overwrite, "replace the results in --out")->disable_flag_override();
  command->add_flag("--dry-run", o->flags.run.dry_run, "read and check everything, but do not fit or write")
      ->disable_flag_override();
  command
      ->add_flag("--strict", o->flags.strict,
                 "exit with status 4 when the result has a flag (einfield info --flags lists them)")
      ->disable_flag_override();
  o->flags.add_to(command);
  o->flags.add_log_every(command);
  add_data(command, o->data);
  return {command, [o](const std::vector<std::string>& words) {
            catch_signals();
            RunOptions options = o->flags.options();
            options.out = o->out.empty() ? default_out(o->config, "_fit") : o->out;
            const Config config = configuration_of_fit(o->config, o->data, overrides(o->settings), options);
            options.command = shell_command(words);
            return o->flags.status_of([&] { return ended(run_fit(config, options), o->flags.strict); });
          }};
}

// ---- detect --------------------------------------------------------------------------------------------------

Command detect_command(CLI::App& app) {
  struct Options {
    std::string config, out;
    std::vector<std::string> settings;
    RunFlags flags;
    DetectionSettings search;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* command = add_command(app, "detect", "Search for a small perturber beside the lens of a configuration");
  add_config(command, o->config, "configuration with free pixels in the source; or the directory of a finished fit");
  add_out(command, o->out, "DIR",
          "directory for the results; default: <name of the configuration>_detect, or the directory of the fit");
  add_set(command, o->settings);
  command->add_option("--nulls", o->search.nulls, "mocks without a perturber that are fitted in the same way")
      ->type_name("N")
      ->check(whole_number(0, 100'000))
      ->capture_default_str();
  command->add_option("--injections", o->search.injections, "mocks with a perturber, which check the sensitivity")
      ->type_name("N")
      ->check(whole_number(0, 1000))
      ->capture_default_str();
  command->add_option("--seed", o->search.seed, "seed of the mocks")
      ->type_name("N")
      ->check(whole_number(0, 1'000'000'000))
      ->capture_default_str();
  command
      ->add_flag("--resume", o->flags.run.resume, "keep the fit and the mocks in --out, or begin where there are none")
      ->disable_flag_override();
  command->add_flag("--overwrite", o->flags.run.overwrite, "replace the results in --out")->disable_flag_override();
  o->flags.add_to(command);
  return {command, [o](const std::vector<std::string>& words) {
            catch_signals();
            RunOptions options = o->flags.options();
            options.command = shell_command(words);
            if (fs::is_directory(o->config)) {
              if (!o->settings.empty())
                throw InvalidInput("--set: has no effect with " + o->config + ", the directory of a finished fit");
              options.out = o->out.empty() ? o->config : o->out;
              const FinishedFit fit = finished_fit(o->config);
              return o->flags.status_of([&] { return ended(run_detect(fit, options, o->search), false); });
            }
            options.out = o->out.empty() ? default_out(o->config, "_detect") : o->out;
            const Config config = read_config(o->config, overrides(o->settings), false);
            return o->flags.status_of([&] { return ended(run_detect(config, options, o->search), false); });
          }};
}

// ---- evaluate ------------------------------------------------------------------------------------------------

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
      throw InvalidInput("--grid: not a grid, found " + text + ", expected NX,NY,PIXEL_SCALE: whole numbers 1 to " +
                         std::to_string(kMaxImageSide) + " and a number > 0 arcsec");
    nx = static_cast<int>(numbers[0]);
    ny = static_cast<int>(numbers[1]);
    pixel_scale = numbers[2];
  }
};

Command evaluate_command(CLI::App& app) {
  struct Options {
    std::string directory, points, grid, out;
    bool overwrite = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* command = add_command(app, "evaluate", "Evaluate potential, deflection and convergence of a fit");
  command->add_option("DIR", o->directory, "directory of results")->type_name("")->required()->check(path());
  command->add_option("--points", o->points, "table with columns x,y [arcsec]; the fields are added as columns")
      ->type_name("FILE.csv")
      ->check(path());
  command->add_option("--grid", o->grid, "maps on a grid around the middle of the image; PIXEL_SCALE in arcsec")
      ->type_name("NX,NY,PIXEL_SCALE");
  add_out(command, o->out, "FILE", "file to write; default: stdout (CSV) with --points, DIR/evaluate.fits with --grid");
  command->add_flag("--overwrite", o->overwrite, "replace an existing file")->disable_flag_override();
  return {command, [o](const std::vector<std::string>&) {
            if (o->points.empty() && o->grid.empty())
              throw InvalidInput("--points: missing, expected --points or --grid");
            if (!o->points.empty() && !o->grid.empty())
              throw InvalidInput("--points: contradicts --grid, expected one of them");
            const std::string target =
                o->out.empty() && !o->grid.empty() ? (fs::path(o->directory) / "evaluate.fits").string() : o->out;
            if (!o->overwrite && !target.empty() && fs::is_regular_file(target))
              throw InvalidInput("--out: " + target + " exists, expected a new file or --overwrite");
            if (!o->points.empty()) {
              evaluate_points(o->directory, o->points, o->out, std::cout);
              return kDone;
            }
            const GridOption maps(o->grid);
            evaluate_grid(o->directory, maps.nx, maps.ny, maps.pixel_scale, o->out);
            return kDone;
          }};
}

// ---- convert -------------------------------------------------------------------------------------------------

/// The options of `convert`; exactly one of the first four must be given.
struct Conversion {
  std::string to_coolest, from_coolest, to_lenstronomy, from_lenstronomy;
  std::string out;
  std::vector<std::string> ignore;
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
      throw InvalidInput(
          "--to-coolest: missing, expected --to-coolest, --from-coolest, --to-lenstronomy or --from-lenstronomy");
    if (!ignore.empty() && from_lenstronomy.empty())
      throw InvalidInput("--ignore: has no effect with " + given + ", expected --from-lenstronomy");
    std::vector<std::string> warnings;
    std::string target;
    if (!to_coolest.empty()) target = write(to_coolest, "coolest.json", write_coolest, warnings);
    if (!to_lenstronomy.empty()) target = write(to_lenstronomy, "lenstronomy.json", write_lenstronomy, warnings);
    if (!from_coolest.empty()) target = read(from_coolest, read_coolest, warnings);
    if (!from_lenstronomy.empty()) {
      const auto ignoring = [this](const std::string& file, std::vector<std::string>& more) {
        return read_lenstronomy(file, more, ignore);
      };
      target = read(from_lenstronomy, ignoring, warnings);
    }
    print_warnings(warnings);
    std::cout << target << '\n';
  }

 private:
  using Write = std::vector<std::string> (*)(const std::string& dir, const ExchangedLens& lens);
  using Read = std::function<ExchangedLens(const std::string& file, std::vector<std::string>& warnings)>;

  /// Results in another format. Without --out they go to the directory of the results and replace an earlier
  /// conversion.
  std::string write(const std::string& results, const std::string& name, Write write_format,
                    std::vector<std::string>& warnings) const {
    const ExchangedLens lens = read_exchanged(results);
    const std::string dir = out.empty() ? results : out;
    prepare_directory(dir, {name}, overwrite || out.empty());
    warnings = write_format(dir, lens);
    if (!fs::equivalent(dir, results)) write_networks(dir, lens);
    return in(dir, name);
  }
  /// A configuration from a file of another format.
  std::string read(const std::string& file, const Read& read_format, std::vector<std::string>& warnings) const {
    const ExchangedLens lens = read_format(file, warnings);
    const fs::path name(file);
    return write_configuration(out.empty() ? name.stem().string() + "_einfield" : out, lens,
                               "from " + name.filename().string(), overwrite);
  }
};

Command convert_command(CLI::App& app) {
  const auto o = std::make_shared<Conversion>();
  CLI::App* command =
      add_command(app, "convert", "Convert results to files of other packages, or such files to a configuration");
  const auto add = [&](const std::string& option, std::string& value, const std::string& type,
                       const std::string& help) {
    command->add_option(option, value, help)->type_name(type)->check(path());
  };
  add("--to-coolest", o->to_coolest, "DIR", "convert the results of a fit to a COOLEST template");
  add("--from-coolest", o->from_coolest, "FILE.json", "convert a COOLEST template to a configuration");
  add("--to-lenstronomy", o->to_lenstronomy, "DIR", "convert the results of a fit to lenstronomy dictionaries");
  add("--from-lenstronomy", o->from_lenstronomy, "FILE.json", "convert lenstronomy dictionaries to a configuration");
  add("--out", o->out, "DIR",
      "directory to write to; default: the directory of the results, or <name of the file>_einfield for a "
      "configuration");
  command
      ->add_option("--ignore", o->ignore,
                   "leave out a key of the lenstronomy dictionaries that is not supported; may be repeated")
      ->type_name("KEY")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--overwrite", o->overwrite, "replace files in --out")->disable_flag_override();
  return {command, [o](const std::vector<std::string>&) {
            o->run();
            return kDone;
          }};
}

// ---- reproduce -----------------------------------------------------------------------------------------------

Command reproduce_command(CLI::App& app) {
  struct Options {
    std::string paper, out;
    std::vector<std::string> only;
    RunFlags flags;
  };
  const auto o = std::make_shared<Options>();
  const std::vector<std::string> experiments = {"sie_noisy", "shear_noisy", "sie_noiseless", "sie_overfit"};
  CLI::App* command = add_command(app, "reproduce", "Repeat the experiments of a paper");
  command->add_option("PAPER", o->paper, "biggio2021")->type_name("")->required()->check(one_of({"biggio2021"}));
  add_out(command, o->out, "DIR", "directory for the results; default: biggio2021");
  command
      ->add_option("--only", o->only,
                   "run only these experiments: some of sie_noisy,shear_noisy,sie_noiseless,sie_overfit")
      ->type_name("NAMES")
      ->delimiter(',')
      ->take_all()
      ->allow_extra_args(false)
      ->check(one_of(experiments));
  command->add_flag("--overwrite", o->flags.run.overwrite, "replace earlier results")->disable_flag_override();
  o->flags.add_to(command);
  o->flags.add_log_every(command);
  return {command, [o](const std::vector<std::string>&) {
            catch_signals();
            ReproduceOptions options;
            options.out = o->out.empty() ? o->paper : o->out;
            options.only = o->only;
            options.run = o->flags.options();
            return o->flags.status_of([&] { return ended(reproduce(options), o->flags.strict); });
          }};
}

// ---- info ----------------------------------------------------------------------------------------------------

/// What is known of each device, and why those that cannot be used cannot. A context is created on every usable device.
std::vector<std::string> tried_devices() {
  std::vector<std::string> lines = cuda_devices();
  for (std::size_t device = 0; device < lines.size(); ++device) {
    const std::string problem = cuda_device_problem(static_cast<int>(device));
    if (!problem.empty()) lines[device] += ", cannot be used: " + problem;
  }
  return lines;
}

/// Why there is no device to list.
std::string no_device() {
#ifdef EINFIELD_HAVE_CUDA
  return resolve_backend("auto", {}).reason;
#else
  return "not in this build, which was configured with EINFIELD_ENABLE_CUDA=OFF";
#endif
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
      {"git", git_describe()},
      {"backends", backends},
      {"devices", tried_devices()},
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
  std::cout << "einfield " << version();
  if (!info["git"].get<std::string>().empty()) std::cout << " (git " << info["git"].get<std::string>() << ')';
  std::cout << "\nbackends:";
  for (const std::string& backend : backends) std::cout << ' ' << backend;
  std::cout << "\ncpu: " << info["cpu"].get<std::string>() << '\n';
  for (std::size_t device = 0; device < info["devices"].size(); ++device)
    std::cout << "cuda " << device << ": " << info["devices"][device].get<std::string>() << '\n';
  if (info["devices"].empty()) std::cout << "cuda: " << no_device() << '\n';
  std::cout << "libraries:";
  for (const auto& [name, value] : info["libraries"].items())
    std::cout << ' ' << name << ' ' << value.get<std::string>();
  std::cout << '\n';
}

/// Columns of the terminal on stdout; 0 without one.
std::size_t terminal_columns() {
  winsize size{};
  return isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/// Breaks lines at spaces; what continues a line is indented.
std::string wrapped(const std::string& text, std::size_t columns) {
  constexpr std::size_t kIndent = 8, kNarrowest = 40;
  if (columns < kNarrowest) return text;
  std::string result;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    while (line.size() > columns) {
      std::size_t end = line.rfind(' ', columns);
      if (end == std::string::npos || end <= kIndent) end = line.find(' ', columns);
      if (end == std::string::npos) break;
      result += line.substr(0, line.find_last_not_of(' ', end) + 1) + "\n";
      line.replace(0, line.find_first_not_of(' ', end), std::string(kIndent, ' '));
    }
    result += line + "\n";
  }
  return result;
}

/// The rows whose key contains the text, each below the title of its table.
std::string filtered_keys(const std::string& filter) {
  std::istringstream lines(list_keys());
  std::string result, title;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("  ", 0) != 0) {
      title = line.empty() ? "" : line + "\n";
      continue;
    }
    const std::string key = line.substr(2, line.find(' ', 2) - 2);
    if (key.find(filter) == std::string::npos) continue;
    result += std::exchange(title, "") + line + "\n";
  }
  if (result.empty())
    throw InvalidInput("--keys: no key contains " + filter + ", expected part of one that --keys lists");
  return result;
}

Command info_command(CLI::App& app) {
  struct Options {
    bool json = false, flags = false;
    CLI::Option* keys = nullptr;
    std::string filter, manual;
  };
  const auto o = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, "info", "Show version, backends, devices and libraries, or the keys of a configuration");
  command->add_flag("--json", o->json, "print as JSON")->disable_flag_override();
  o->keys = command
                ->add_option("--keys", o->filter,
                             "list every key of a configuration with type, unit, range, default and meaning, or those "
                             "that contain FILTER")
                ->type_name("FILTER")
                ->expected(0, 1);
  command->add_flag("--flags", o->flags, "list every flag of a result with its threshold and the reason of that")
      ->disable_flag_override();
  // For the build: not in the help.
  command
      ->add_option("--manual", o->manual, "write the manual pages and the completion for bash and zsh to a directory")
      ->type_name("DIR")
      ->group("")
      ->check(path());
  return {command, [o, &app](const std::vector<std::string>&) {
            if (!o->manual.empty()) {
              write_manual(app, o->manual);
              return kDone;
            }
            const bool keys = o->keys->count() > 0;
            if (o->json && keys) throw InvalidInput("--keys: contradicts --json, expected one of them");
            if (o->flags && (o->json || keys))
              throw InvalidInput(std::string("--flags: contradicts ") + (o->json ? "--json" : "--keys") +
                                 ", expected one of them");
            if (o->flags)
              std::cout << wrapped(list_flags() + list_survey_flags(), terminal_columns());
            else if (keys)
              std::cout << wrapped(o->filter.empty() ? list_keys() : filtered_keys(o->filter), terminal_columns());
            else
              print_info(o->json);
            return kDone;
          }};
}

// ---- help, version --------------------------------------------------------------------------------------------

Command help_command(CLI::App& app) {
  const auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* command = add_command(app, "help", "Show the options of a command, or the list of commands");
  command->add_option("COMMAND", *names, "name of a command, as fit or batch run")
      ->type_name("")
      ->expected(0, 2)
      ->take_all();
  return {command, [names, &app](const std::vector<std::string>&) {
            CLI::App* found = &app;
            std::string before;  // the names of the commands above
            for (const std::string& name : *names) {
              before += (before.empty() ? "" : " ") + found->get_name();
              std::vector<std::string> known;
              CLI::App* next = nullptr;
              for (CLI::App* candidate : found->get_subcommands({})) {
                known.push_back(candidate->get_name());
                if (known.back() == name) next = candidate;
              }
              if (!next) throw InvalidInput(name + ": no such command, expected " + suggestion(name, known));
              found = next;
            }
            std::cout << (found == &app
                              ? app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal)
                              : found->help(before));
            return kDone;
          }};
}

Command version_command(CLI::App& app) {
  CLI::App* command = add_command(app, "version", "Show the version");
  return {command, [](const std::vector<std::string>&) {
            std::cout << "einfield " << version() << '\n';
            return kDone;
          }};
}

}  // namespace

std::vector<Command> add_commands(CLI::App& app) {
  std::vector<Command> commands = {simulate_command(app), new_command(app), fit_command(app), detect_command(app)};
  for (const Command& command : batch_commands(app)) commands.push_back(command);
  for (const Command& command : {evaluate_command(app), convert_command(app), reproduce_command(app), info_command(app),
                                 help_command(app), version_command(app)})
    commands.push_back(command);
  return commands;
}

}  // namespace einfield
