// The command line: options in, exit status out. The only place that prints and that catches everything.
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fitsio.h>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <toml++/toml.h>

#include "einfield/core.hpp"
#include "einfield/error.hpp"
#include "einfield/config.hpp"
#include "host/evaluate.hpp"
#include "host/reproduce.hpp"
#include "host/run.hpp"
#include "host/simulate.hpp"

namespace {

using namespace einfield;

enum ExitStatus { kDone = 0, kFailure = 1, kBadInput = 2, kNoBackend = 3, kInterrupted = 130 };

volatile sig_atomic_t interrupted = 0;

/// The first signal ends the fit after its step; a second one ends the process as usual.
void on_signal(int) { interrupted = 1; }

void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

std::string version() {
  return std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR) + "." +
         std::to_string(EINFIELD_VERSION_PATCH);
}

/// Options that fit and reproduce share.
struct RunFlags {
  RunOptions run;
  std::string precision = "single";
  bool quiet = false;

  void add_to(CLI::App* command) {
    command->add_option("--backend", run.backend, "auto, cuda or cpu")
        ->check(CLI::IsMember({"auto", "cuda", "cpu"}))
        ->capture_default_str();
    command->add_option("--device", run.device, "CUDA device")->check(CLI::NonNegativeNumber)->capture_default_str();
    command->add_option("--threads", run.threads, "CPU threads; 0 = as many as the process may use")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str();
    command->add_option("--precision", precision, "single or double")
        ->check(CLI::IsMember({"single", "double"}))
        ->capture_default_str();
    command->add_flag("--quiet", quiet, "print errors only");
    command->add_option("--log-every", run.log_every, "steps between rows of the history")
        ->check(CLI::Range(1, 1'000'000'000))
        ->capture_default_str();
  }
  RunOptions options() {
    run.double_precision = precision == "double";
    run.log = quiet ? nullptr : &std::cout;
    run.warnings = quiet ? nullptr : &std::cerr;
    run.terminal = isatty(STDOUT_FILENO) != 0;
    run.interrupted = [] { return interrupted != 0; };
    return run;
  }
};

std::vector<Override> overrides(const std::vector<std::string>& settings) {
  std::vector<Override> result;
  for (const std::string& setting : settings) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0)
      throw InvalidInput("--set: '" + setting + "', expected KEY=VALUE");
    result.push_back({setting.substr(0, equals), setting.substr(equals + 1)});
  }
  return result;
}

/// Default directory of results: the name of the configuration with _fit.
std::string default_out(const std::string& config) { return std::filesystem::path(config).stem().string() + "_fit"; }

int ended(const RunOutcome& outcome) {
  if (outcome.stop_reason == "interrupted") return kInterrupted;
  if (outcome.stop_reason != "non-finite") return kDone;
  std::cerr << "einfield: error: " << outcome.message << "; the results hold the last good state\n";
  return kFailure;
}

void print_info(bool json) {
  float cfitsio = 0;
  fits_get_version(&cfitsio);
  char cfitsio_text[16];
  std::snprintf(cfitsio_text, sizeof cfitsio_text, "%.2f", static_cast<double>(cfitsio));
#ifdef EINFIELD_HAVE_CUDA
  const std::vector<std::string> backends = {"cpu", "cuda"};
#else
  const std::vector<std::string> backends = {"cpu"};
#endif
  const auto triple = [](int a, int b, int c) {
    return std::to_string(a) + "." + std::to_string(b) + "." + std::to_string(c);
  };
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
  for (const auto& [name, value] : info["libraries"].items()) std::cout << ' ' << name << ' ' << value.get<std::string>();
  std::cout << '\n';
}

/// CLI11's complaint as "--option: what is wrong", on one line.
std::string usage_message(const CLI::ParseError& error) {
  std::string message = error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  while (!message.empty() && message.back() == ' ') message.pop_back();
  return message;
}

int run(int argc, char** argv) {
  CLI::App app("Fits strong gravitational lenses: a smooth model and a neural network for the rest of the potential.");
  app.require_subcommand(1);
  app.set_version_flag("--version", "einfield " + version());

  std::string config_file, out, directory, points, experiment;
  std::vector<std::string> settings, only;
  std::vector<double> grid;
  bool overwrite = false, json = false, keys = false;
  RunFlags fit_flags, reproduce_flags;

  CLI::App* simulate_command = app.add_subcommand("simulate", "Make the image that a configuration describes");
  simulate_command->add_option("CONFIG", config_file, "TOML configuration with [simulate]")->required();
  simulate_command->add_option("--out", out, "FITS file; default: the file of [observation] image");
  simulate_command->add_option("--set", settings, "KEY=VALUE in place of the configuration's")->take_all();
  simulate_command->add_flag("--overwrite", overwrite, "replace an existing file");

  CLI::App* fit_command = app.add_subcommand("fit", "Fit the lens of a configuration");
  fit_command->add_option("CONFIG", config_file, "TOML configuration")->required();
  fit_command->add_option("--out", out, "directory of results; default: <name of the configuration>_fit");
  fit_command->add_option("--set", settings, "KEY=VALUE in place of the configuration's")->take_all();
  CLI::Option* resume = fit_command->add_flag("--resume", fit_flags.run.resume, "go on from the checkpoint in --out");
  fit_command->add_flag("--overwrite", fit_flags.run.overwrite, "replace the results in --out")->excludes(resume);
  fit_command->add_flag("--dry-run", fit_flags.run.dry_run, "read and check everything, fit and write nothing");
  fit_flags.add_to(fit_command);

  CLI::App* evaluate_command = app.add_subcommand("evaluate", "Potential, deflection and convergence of a fit at points");
  evaluate_command->add_option("DIR", directory, "directory of results")->required();
  CLI::Option* points_option = evaluate_command->add_option("--points", points, "CSV file with columns x,y [arcsec]");
  CLI::Option* grid_option = evaluate_command->add_option("--grid", grid, "NX,NY,PIXEL_SCALE")->delimiter(',')->expected(3);
  points_option->excludes(grid_option);
  evaluate_command->add_option("--out", out, "CSV file (default: stdout) or FITS file (default: DIR/evaluate.fits)");

  CLI::App* reproduce_command = app.add_subcommand("reproduce", "Repeat the experiments of a paper");
  reproduce_command->add_option("PAPER", experiment, "biggio2021")->required()->check(CLI::IsMember({"biggio2021"}));
  reproduce_command->add_option("--out", out, "directory; default: biggio2021");
  reproduce_command->add_option("--only", only, "sie_noisy,shear_noisy,sie_noiseless,sie_overfit")
      ->delimiter(',')
      ->check(CLI::IsMember({"sie_noisy", "shear_noisy", "sie_noiseless", "sie_overfit"}));
  reproduce_command->add_flag("--overwrite", reproduce_flags.run.overwrite, "replace earlier results");
  reproduce_flags.add_to(reproduce_command);

  CLI::App* info_command = app.add_subcommand("info", "Version, backends, devices, libraries, keys of the configuration");
  info_command->add_flag("--json", json, "as JSON");
  info_command->add_flag("--keys", keys, "every key of the configuration with type, unit, range and default");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::cerr << "einfield: error: " << usage_message(error) << '\n';
    return kBadInput;
  }

  if (info_command->parsed()) {
    if (keys)
      std::cout << list_keys();
    else
      print_info(json);
    return kDone;
  }
  if (simulate_command->parsed()) {
    const Config config = read_config(config_file, overrides(settings), true);
    const std::string target = out.empty() ? config.observation.image.path : out;
    simulate(config, target, overwrite);
    std::cout << target << '\n';
    return kDone;
  }
  if (fit_command->parsed()) {
    catch_signals();
    const Config config = read_config(config_file, overrides(settings), false);
    RunOptions options = fit_flags.options();
    options.out = out.empty() ? default_out(config_file) : out;
    return ended(run_fit(config, options));
  }
  if (evaluate_command->parsed()) {
    if (points_option->count() + grid_option->count() == 0)
      throw InvalidInput("--points: neither --points nor --grid is given, expected one of them");
    if (points_option->count() > 0) {
      evaluate_points(directory, points, out, std::cout);
      return kDone;
    }
    const auto whole = [](double v) { return v >= 1 && v == static_cast<double>(static_cast<int>(v)); };
    if (!(grid[0] <= 16384 && grid[1] <= 16384 && whole(grid[0]) && whole(grid[1]) && std::isfinite(grid[2]) && grid[2] > 0))
      throw InvalidInput("--grid: expected NX,NY,PIXEL_SCALE with whole numbers from 1 to 16384 and a scale > 0 arcsec");
    evaluate_grid(directory, static_cast<int>(grid[0]), static_cast<int>(grid[1]), grid[2], out);
    return kDone;
  }
  catch_signals();
  ReproduceOptions options;
  options.out = out.empty() ? experiment : out;
  options.only = only;
  options.run = reproduce_flags.options();
  return ended(reproduce(options));
}

}  // namespace

int main(int argc, char** argv) {
  const auto failed = [](const std::exception& error, int status) {
    std::cerr << "einfield: error: " << error.what() << '\n';
    return status;
  };
  try {
    return run(argc, argv);
  } catch (const InvalidInput& error) {
    return failed(error, kBadInput);
  } catch (const BackendUnavailable& error) {
    return failed(error, kNoBackend);
  } catch (const std::bad_alloc&) {
    std::cerr << "einfield: error: out of memory on the host\n";
    return kFailure;
  } catch (const std::exception& error) {
    return failed(error, kFailure);
  }
}
