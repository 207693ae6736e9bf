// The commands as a user gives them: options, help, what is printed and written, progress, signals.
#include <fitsio.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "einfield/core.hpp"
#include "host/files/fits_io.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

const std::string kGnuplotWarning = "einfield: warning: gnuplot is not installed: no figures were drawn\n";

/// A small lens in the working directory of the runs: lens.toml and its data.
class Cli : public testing::Test {
 protected:
  Cli() { around_.directory = folder().path().string(); }

  const TemporaryDirectory& folder() const { return lens_.folder(); }
  Outcome run(const Words& words) const { return run_binary(words, around_); }
  /// fit lens.toml on one thread of the CPU.
  Words fit(Words more = {}) const {
    more.insert(more.begin(), {"fit", "lens.toml", "--backend", "cpu", "--threads", "1"});
    return more;
  }
  /// The run must end with `status` and this one line of error, and must not write anything.
  void expect_refused(const Words& words, const std::string& message, int status = 2) const {
    const auto before = files_below(folder().path());
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.err, "einfield: error: " + message + "\n");
    EXPECT_EQ(outcome.status, status) << message;
    EXPECT_EQ(outcome.out, "") << message;
    EXPECT_EQ(files_below(folder().path()), before) << message;
  }
  json result(const std::string& dir) const { return json::parse(folder().read(dir + "/result.json")); }

  SmallLens lens_;
  Surroundings around_;
};

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> result;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) result.push_back(line);
  return result;
}

std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> result;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, ',');) result.push_back(field);
  return result;
}

/// The steps of "step 4/30  chi2 …" lines, "4/30".
std::vector<std::string> logged_steps(const std::string& out) {
  std::vector<std::string> steps;
  for (const std::string& line : lines(out))
    if (line.rfind("step ", 0) == 0) steps.push_back(line.substr(5, line.find(' ', 5) - 5));
  return steps;
}

// ---- the command line
// -------------------------------------------------------------------------------------------------

TEST_F(Cli, UsageErrorsSayWhatIsWrongFoundAndExpected) {
  const struct {
    Words words;
    std::string message;
  } cases[] = {
      {{}, "no command, expected one that einfield --help lists"},
      {{"fitt", "lens.toml"}, "fitt: no such command, expected fit"},
      {{"optimise"},
       "optimise: no such command, expected one of simulate, new, fit, detect, batch, evaluate, convert, reproduce, "
       "info, "
       "help, version"},
      {{"--verison"}, "--verison: no such option of einfield, expected --version"},

      {{"fit"}, "arguments missing, expected einfield fit CONFIG"},
      {{"fit", ""}, "CONFIG: an empty name, expected the name of a file or directory"},
      {{"fit", "lens.toml", "other.toml"}, "other.toml: unexpected argument, expected einfield fit CONFIG"},
      {{"fit", "lens.toml", "--owerwrite"}, "--owerwrite: no such option of einfield fit, expected --overwrite"},
      {{"fit", "--outt=x", "lens.toml"}, "--outt: no such option of einfield fit, expected --out"},
      {{"fit", "lens.toml", "--resume", "--overwrite"}, "--resume: contradicts --overwrite, expected one of them"},
      {{"fit", "lens.toml", "--out"}, "--out: no value, expected DIR"},
      {{"fit", "lens.toml", "--out", "--quiet"},
       "--out: no value, found the option --quiet, expected a name (write ./--quiet for a file of this name)"},
      {{"fit", "lens.toml", "--out", ""}, "--out: an empty name, expected the name of a file or directory"},
      {{"fit", "lens.toml", "--out", "a", "--out", "b"}, "--out: given twice, found a, b, expected it once"},
      {{"fit", "lens.toml", "--quiet=no"}, "--quiet: takes no value, found no, expected none"},
      {{"fit", "lens.toml", "--backend", "gpu"}, "--backend: no such name, found gpu, expected one of auto, cuda, cpu"},
      {{"fit", "lens.toml", "--precision", "half"},
       "--precision: no such name, found half, expected one of single, double"},
      {{"fit", "lens.toml", "--device", "-1"}, "--device: out of range, found -1, expected a whole number 0 to 1023"},
      {{"fit", "lens.toml", "--device", "0", "--backend", "cpu"},
       "--device: contradicts --backend cpu, expected one of them"},
      {{"fit", "lens.toml", "--threads", "many"},
       "--threads: not a whole number, found many, expected a whole number 0 to 1024"},
      {{"fit", "lens.toml", "--threads", "2000"},
       "--threads: out of range, found 2000, expected a whole number 0 to 1024"},
      {{"fit", "lens.toml", "--log-every", "0"},
       "--log-every: out of range, found 0, expected a whole number 1 to 1000000000"},
      {{"fit", "lens.toml", "--log-every", "2.5"},
       "--log-every: not a whole number, found 2.5, expected a whole number 1 to 1000000000"},

      {{"simulate"}, "arguments missing, expected einfield simulate CONFIG, or --survey N --out DIR"},
      {{"simulate", "lens.toml", "--survey", "2"},
       "--survey: contradicts the configuration lens.toml, expected one of them"},
      {{"simulate", "--survey", "2"}, "--out: missing, expected a directory for the survey"},
      {{"simulate", "--survey", "2", "--out", "."},
       "--out: . exists and is not an empty directory, expected a new one"},
      {{"simulate", "lens.toml", "--seed", "2"}, "--seed: has no effect without --survey"},
      {{"simulate", "lens.toml", "--resume"},
       "--resume: no such option of einfield simulate, expected one of --help, --out, --set, --overwrite, "
       "--survey, --seed"},

      {{"evaluate"}, "arguments missing, expected einfield evaluate DIR"},
      {{"evaluate", "fit"}, "--points: missing, expected --points or --grid"},
      {{"evaluate", "fit", "--points", "p.csv", "--grid", "3,3,0.1"},
       "--points: contradicts --grid, expected one of them"},
      {{"evaluate", "fit", "--grid", "3,3"},
       "--grid: not a grid, found 3,3, expected NX,NY,PIXEL_SCALE: whole numbers 1 to 16384 and a number > 0 arcsec"},
      {{"evaluate", "fit", "--grid", "3,0,0.1"},
       "--grid: not a grid, found 3,0,0.1, expected NX,NY,PIXEL_SCALE: whole numbers 1 to 16384 and a number > 0 "
       "arcsec"},
      {{"evaluate", "fit", "--grid", "3,3.5,0.1"},
       "--grid: not a grid, found 3,3.5,0.1, expected NX,NY,PIXEL_SCALE: whole numbers 1 to 16384 and a number > 0 "
       "arcsec"},
      {{"evaluate", "fit", "--grid", "3,3,-1"},
       "--grid: not a grid, found 3,3,-1, expected NX,NY,PIXEL_SCALE: whole numbers 1 to 16384 and a number > 0 "
       "arcsec"},
      {{"evaluate", "fit", "--grid", "3,3,0.1"}, "fit: no result.json, expected the directory of a finished fit"},

      {{"convert"},
       "--to-coolest: missing, expected --to-coolest, --from-coolest, --to-lenstronomy or --from-lenstronomy"},
      {{"convert", "--to-coolest", "fit", "--from-coolest", "x.json"},
       "--from-coolest: contradicts --to-coolest, expected one of them"},
      {{"convert", "--to-coolest"}, "--to-coolest: no value, expected DIR"},
      {{"convert", "--to-coolest", "fit"}, "fit: no result.json, expected the directory of a finished fit"},
      {{"convert", "--to-lenstronomy", "data.fits"},
       "data.fits: no result.json, expected the directory of a finished fit"},
      {{"convert", "--from-coolest", "absent.json"}, "absent.json: no such file"},
      {{"convert", "--from-lenstronomy", "data.fits"}, "data.fits: not JSON, found an error at byte 1"},

      {{"reproduce"}, "arguments missing, expected einfield reproduce PAPER"},
      {{"reproduce", "biggio2022"}, "PAPER: no such name, found biggio2022, expected biggio2021"},
      {{"reproduce", "biggio2021", "--only", "sie_noisy,sie"},
       "--only: no such name, found sie, expected one of sie_noisy, shear_noisy, sie_noiseless, sie_overfit"},
      {{"reproduce", "biggio2021", "--only"}, "--only: no value, expected NAMES"},
      {{"reproduce", "biggio2021", "--resume"},
       "--resume: no such option of einfield reproduce, expected one of --help, --out, --only, --overwrite, --backend, "
       "--device, --threads, --precision, --quiet, --log-every"},

      {{"info", "x"}, "x: unexpected argument, expected einfield info"},
      {{"info", "--json", "--keys"}, "--keys: contradicts --json, expected one of them"},
      {{"info", "--flags", "--keys"}, "--flags: contradicts --keys, expected one of them"},
      {{"info", "--keys", "nosuch"}, "--keys: no key contains nosuch, expected part of one that --keys lists"},
      {{"help", "fitt"}, "fitt: no such command, expected fit"},
      {{"convert", "--to-coolest", "fit", "--ignore", "x"},
       "--ignore: has no effect with --to-coolest, expected --from-lenstronomy"},
  };
  for (const auto& c : cases) expect_refused(c.words, c.message);
}

TEST_F(Cli, ErrorsAreOneLineWhateverTheNamesHold) {
  expect_refused({"fit", "no\nsuch.toml"}, "no such.toml: no such file, expected a TOML configuration");
}

TEST_F(Cli, HelpNamesEveryCommandAndOption) {
  const std::pair<Words, Words> cases[] = {
      {{"--help"},
       {"Usage: einfield ", "simulate", "fit", "evaluate", "convert", "reproduce", "info", "130 interrupted"}},
      {{"help"}, {"Usage: einfield ", "simulate", "fit", "version", "4 done but flagged", "130 interrupted"}},
      {{"help", "fit"}, {"Usage: einfield fit [OPTIONS] CONFIG", "--strict"}},
      {{"simulate", "--help"}, {"Usage: einfield simulate [OPTIONS] [CONFIG]", "--out FILE.fits", "--set KEY=VALUE"}},
      {{"fit", "--help"},
       {"Usage: einfield fit [OPTIONS] CONFIG", "--out DIR", "--backend", "--device", "--threads", "--precision",
        "--set KEY=VALUE", "--resume", "--overwrite", "--dry-run", "--quiet", "--log-every"}},
      {{"evaluate", "-h"}, {"Usage: einfield evaluate [OPTIONS] DIR", "--points", "--grid NX,NY,PIXEL_SCALE", "--out"}},
      {{"reproduce", "--help"}, {"Usage: einfield reproduce [OPTIONS] PAPER", "--out", "--only", "sie_noiseless"}},
      {{"info", "--help"}, {"Usage: einfield info [OPTIONS]", "--json", "--keys"}}};
  for (const auto& [words, parts] : cases) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.err, "");
    for (const std::string& part : parts)
      EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in\n" << outcome.out;
  }
}

TEST_F(Cli, NamesMayLookLikeCommandsAndOptionsMayStandAnywhere) {
  folder().write("info", folder().read("lens.toml"));
  const Outcome outcome =
      run({"fit", "--set", "optimizer.steps=0", "--set", "network.seed = 8", "info", "--backend=cpu", "--out", "fit"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(result("fit")["steps"], 0);
  EXPECT_EQ(result("fit")["seed"], 8);
  EXPECT_EQ(run({"evaluate", "--grid", "2,2,0.1", "fit"}).status, 0);
}

TEST_F(Cli, InfoListsFlagsAndSomeKeys) {
  const Outcome flags = run({"info", "--flags"});
  EXPECT_EQ(flags.status, 0);
  EXPECT_NE(flags.out.find("  shear_implausible        suspect  a shear is stronger than 0.3\n"), std::string::npos)
      << flags.out;
  const Outcome some = run({"info", "--keys", "max_noise"});
  EXPECT_EQ(some.status, 0);
  EXPECT_EQ(some.out.rfind("[observation]\n  observation.max_noise ", 0), 0u) << some.out;
  EXPECT_EQ(lines(some.out).size(), 2u);
  // On a terminal, long lines are broken at spaces.
  Surroundings narrow = around_;
  narrow.terminal_columns = 60;
  for (const std::string& line : lines(run_binary({"info", "--keys", "optimizer."}, narrow).out))
    EXPECT_LE(line.size(), 61u) << line;  // with the carriage return of the terminal
}

TEST_F(Cli, StrictIsAStatusOfItsOwn) {
  // Noise that is three times too small.
  const Words bad = fit({"--set", "observation.noise=0.1", "--out", "bad"});
  const Outcome lenient = run(bad);
  EXPECT_EQ(lenient.status, 0) << lenient.err;
  EXPECT_EQ(result("bad")["status"], "suspect");
  EXPECT_EQ(lines(lenient.out).back().rfind("status: suspect (", 0), 0u) << lenient.out;
  Words strict = bad;
  strict.insert(strict.end(), {"--strict", "--overwrite"});
  EXPECT_EQ(run(strict).status, 4);
}

TEST_F(Cli, OutIsADirectory) {
  folder().write("taken", "");
  expect_refused(fit({"--out", "taken"}), "--out: taken is a file, expected the name of a directory");
}

TEST_F(Cli, VersionIsOneLine) {
  const Outcome outcome = run({"--version"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(run({"version"}).out, outcome.out);
  EXPECT_EQ(outcome.out, "einfield " + std::to_string(EINFIELD_VERSION_MAJOR) + "." +
                             std::to_string(EINFIELD_VERSION_MINOR) + "." + std::to_string(EINFIELD_VERSION_PATCH) +
                             "\n");
}

TEST_F(Cli, InfoTellsBackendsDevicesAndLibraries) {
  around_.environment["CUDA_VISIBLE_DEVICES"] = "";
  const Outcome text = run({"info"});
  EXPECT_EQ(text.status, 0);
#ifdef EINFIELD_HAVE_CUDA
  const char* const no_cuda = "\ncuda: no CUDA device can be used (";
#else
  const char* const no_cuda = "\ncuda: not in this build, which was configured with EINFIELD_ENABLE_CUDA=OFF\n";
#endif
  for (const char* part : {"einfield ", "\nbackends: cpu", "\ncpu: ", no_cuda, "\nlibraries: cfitsio "})
    EXPECT_NE(text.out.find(part), std::string::npos) << part << " in\n" << text.out;

  const Outcome outcome = run({"info", "--json"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "");
  const json info = json::parse(outcome.out);
  EXPECT_EQ("einfield " + info.at("version").get<std::string>() + "\n", run({"--version"}).out);
  const std::string version = "einfield " + info.at("version").get<std::string>(), git = info.at("git");
  EXPECT_EQ(text.out.rfind(version + (git.empty() ? "" : " (git " + git + ")") + "\n", 0), 0u) << text.out;
#ifdef EINFIELD_HAVE_CUDA
  EXPECT_EQ(info.at("backends"), json({"cpu", "cuda"}));
#else
  EXPECT_EQ(info.at("backends"), json({"cpu"}));
#endif
  EXPECT_EQ(info.at("devices"), json::array());
  EXPECT_TRUE(info.at("cpu").is_string());
  for (const char* library : {"cfitsio", "toml++", "nlohmann_json", "CLI11"})
    EXPECT_TRUE(info.at("libraries").at(library).is_string()) << library;
#if CFITSIO_MAJOR >= 4
  EXPECT_EQ(info.at("libraries").at("cfitsio"),
            std::to_string(CFITSIO_MAJOR) + "." + std::to_string(CFITSIO_MINOR) + "." + std::to_string(CFITSIO_MICRO));
#endif
}

TEST_F(Cli, InfoListsEveryKeyOfTheContract) {
  const Outcome outcome = run({"info", "--keys"});
  EXPECT_EQ(outcome.status, 0);
  for (const char* key : {"title",
                          "recipe",
                          "observation.image",
                          "observation.noise",
                          "observation.background_rms",
                          "observation.exposure_time",
                          "observation.psf",
                          "observation.psf.fwhm",
                          "observation.psf.type",
                          "observation.psf.beta",
                          "observation.psf.size",
                          "observation.noise_kind",
                          "observation.mask",
                          "observation.mask_used",
                          "observation.region.N.shape",
                          "observation.region.N.keep",
                          "observation.max_noise",
                          "observation.pixel_scale",
                          "observation.center_x",
                          "observation.center_y",
                          "observation.supersampling",
                          "lens.N.profile",
                          "lens.N.theta_E",
                          "lens.N.e1",
                          "lens.N.e2",
                          "lens.N.center_x",
                          "lens.N.center_y",
                          "lens.N.ra_0",
                          "lens.N.dec_0",
                          "lens.N.fit",
                          "source.N.profile",
                          "source.N.amp",
                          "source.N.R_sersic",
                          "source.N.radius",
                          "source.N.n_sersic",
                          "source.N.e1",
                          "source.N.e2",
                          "source.N.center_x",
                          "source.N.center_y",
                          "source.N.sigma",
                          "network.hidden",
                          "network.activation",
                          "network.input_scale",
                          "network.last_layer",
                          "network.math",
                          "network.seed",
                          "network.initial",
                          "optimizer.name",
                          "optimizer.loss",
                          "optimizer.learning_rate",
                          "optimizer.steps",
                          "optimizer.stop",
                          "regularization.smoothness",
                          "regularization.curvature",
                          "regularization.negative_convergence",
                          "regularization.negative_total_convergence",
                          "regularization.weight_decay",
                          "regularization.source_gradient",
                          "regularization.source_curvature",
                          "regularization.automatic",
                          "source.N.initial",
                          "source.N.hidden",
                          "source.N.input_scale",
                          "source.N.seed",
                          "source.N.fit",
                          "truth.file",
                          "simulate.nx",
                          "simulate.ny",
                          "simulate.noise",
                          "simulate.background_rms",
                          "simulate.exposure_time",
                          "simulate.seed"})
    EXPECT_NE(outcome.out.find("\n  " + std::string(key) + " "), std::string::npos) << key;
  for (const char* block : {"lens", "source", "lens_light", "network", "truth", "simulate", "perturbation"})
    EXPECT_NE(outcome.out.find("\n  " + std::string(block) + " "), std::string::npos) << block;
  for (const char* profile :
       {"SIE", "SIS", "NIE", "EPL", "NFW", "NFW_ELLIPSE_POTENTIAL", "SHEAR", "MULTIPOLE", "CONVERGENCE", "POINT_MASS",
        "TNFW", "FLEXION", "SERSIC_ELLIPSE", "GAUSSIAN", "PIXELATED", "NETWORK"})
    EXPECT_NE(outcome.out.find(" profile = \"" + std::string(profile) + "\"\n"), std::string::npos) << profile;
  // Type, unit, range, default and meaning.
  const std::size_t at = outcome.out.find("\n  observation.max_noise ") + 1;
  std::istringstream line(outcome.out.substr(at, outcome.out.find('\n', at) - at));
  const std::vector<std::string> words{std::istream_iterator<std::string>(line), {}};
  EXPECT_EQ(words, (Words{"observation.max_noise", "number", "-", ">", "0", "1000.0", "pixels", "whose", "noise", "is",
                          "more", "than", "this", "times", "the", "median", "noise", "are", "masked"}));
}

TEST_F(Cli, MatrixUnitsOnTheCpuAreAnError) {
  for (const char* math : {"tf32x3", "tf32"})
    expect_refused(fit({"--set", std::string("network.math=\"") + math + "\""}),
                   std::string("--set: network.math: needs a CUDA device, found \"") + math +
                       "\" with the cpu backend, expected \"fp32\" or --backend cuda");
}

TEST_F(Cli, AFullStdoutIsAnError) {
  around_.stdout_file = "/dev/full";
  for (const Words& words : {Words{"info"}, Words{"info", "--keys"}, Words{"--help"}, fit()}) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.err.find("einfield: error: stdout: cannot write\n"), std::string::npos) << outcome.err;
  }
  EXPECT_EQ(result("lens_fit")["steps"], 30);
}

// ---- fit
// ----------------------------------------------------------------------------------------------------------------

TEST_F(Cli, FitWritesIntoTheNameOfTheConfiguration) {
  const Outcome outcome = run(fit());
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, kGnuplotWarning);
  EXPECT_NE(outcome.out.find("\nresults: lens_fit\n"), std::string::npos);
  EXPECT_EQ(lines(outcome.out).back().rfind("status: ", 0), 0u);
  EXPECT_EQ(result("lens_fit")["stop_reason"], "steps");
  for (const char* name :
       {"result.fits", "history.csv", "network.safetensors", "checkpoint.safetensors", "report.html"})
    EXPECT_TRUE(fs::is_regular_file(folder() / ("lens_fit/" + std::string(name)))) << name;
}

TEST_F(Cli, TheCommandIsKeptAsAShellTakesIt) {
  const Words words = fit({"--quiet", "--out", "a b", "--set", "title=\"it's <b> $HOME `id` \\\\\""});
  EXPECT_EQ(run(words).status, 0);
  const std::string command = result("a b")["command"];
  EXPECT_EQ(command.rfind("einfield fit lens.toml --backend cpu --threads 1 --quiet --out 'a b' --set 'title=", 0), 0u);
  // A shell that takes it apart finds the words.
  const std::string script =
      "einfield() { for word; do printf '%s\\n' \"$word\"; done > words.txt; }\n" + command + "\n";
  folder().write("repeat.sh", script);
  ASSERT_EQ(std::system(("cd '" + folder().path().string() + "' && sh repeat.sh").c_str()), 0);
  EXPECT_EQ(lines(folder().read("words.txt")), words);
  EXPECT_NE(folder().read("a b/report.html").find("<h1>it&#39;s &lt;b&gt; $HOME `id` \\</h1>"), std::string::npos);
}

TEST_F(Cli, ADryRunTellsTheModelTheMemoryAndTheBackend) {
  const auto before = files_below(folder().path());
  const Outcome outcome = run(fit({"--dry-run", "--precision", "double"}));
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "");
  for (const char* part : {"small\n", "image: 14 x 12 pixels of 0.3 arcsec, 166 used; PSF 3 x 3; supersampling 2\n",
                           "model: lens.0 SIE, lens.1 SHEAR, source.0 SERSIC_ELLIPSE, network 2-7-5-1\n",
                           "67 network weights", "2 parameters", "backend: cpu (", ", 1 thread), double precision, ",
                           "B planned\n", "dry run: nothing was fitted, nothing was written\n"})
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in\n" << outcome.out;
  EXPECT_EQ(files_below(folder().path()), before);
  // What a fit would refuse, a dry run refuses.
  expect_refused(fit({"--dry-run", "--set", "observation.mask=\"none.fits\""}), "none.fits: no such file");
}

TEST_F(Cli, AutoWithoutADeviceTakesTheCpuAndSaysSo) {
  around_.environment["CUDA_VISIBLE_DEVICES"] = "";
  for (const Words& words :
       {Words{"fit", "lens.toml", "--dry-run"}, Words{"fit", "lens.toml", "--dry-run", "--backend", "auto"}}) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("\nbackend: cpu ("), std::string::npos) << outcome.out;
  }
}

TEST_F(Cli, SetReplacesWhatTheConfigurationSays) {
  EXPECT_EQ(run(fit({"--quiet", "--set", "optimizer.steps=3", "--set", "lens.0.theta_E=1.25", "--set",
                     "optimizer.loss= mse ", "--set", "recipe=\"biggio2021\"", "--set", "network.hidden=[6]", "--set",
                     "lens.0.fit=[\"e2\"]", "--set", "observation.psf.size = 5", "--set", "source.0.center_y=-0.05"}))
                .status,
            0);
  const json written = result("lens_fit");
  EXPECT_EQ(written["steps"], 3);
  EXPECT_EQ(written["parameters"]["lens.0.theta_E"], 1.25);
  EXPECT_EQ(written["parameters"]["source.0.center_y"], -0.05);
  EXPECT_EQ(written["network"]["hidden"], json({6}));
  EXPECT_EQ(written["free"], json({"lens.0.e2"}));
  EXPECT_EQ(written["config"]["optimizer"]["loss"], "mse");
  EXPECT_EQ(written["config"]["observation"]["psf"]["size"], 5);
}

TEST_F(Cli, SetIsCheckedAsTheConfigurationIs) {
  const std::pair<const char*, const char*> cases[] = {
      {"optimizer.steps",
       "--set: no key and value, found optimizer.steps, expected KEY=VALUE as in optimizer.steps=500"},
      {"=3", "--set: no key and value, found =3, expected KEY=VALUE as in optimizer.steps=500"},
      {"optimizer.step=3", "--set: optimizer.step: unknown key, found step, expected steps"},
      {"optimiser.steps=3", "--set: optimiser: unknown key, found optimiser, expected optimizer"},
      {"optimizer.steps=3.5",
       "--set: optimizer.steps: wrong type, found the number 3.5, expected an integer 0 to 1000000000"},
      {"optimizer.steps=-3", "--set: optimizer.steps: out of range, found -3, expected an integer 0 to 1000000000"},
      {"title=a.b",
       "--set: title: not a TOML value, found a.b, expected a number, true, false, a word, [list] or a "
       "\"text\" with its quotes"},
      {"optimizer.loss=chi3", "--set: optimizer.loss: no such name, found \"chi3\", expected chi2"},
      {"a.b.c.d.e.f.g.h.i.j.k=1", "--set: a.b.c.d.e.f.g.h.i.j.k: a key with too many parts, expected at most 10"},
      {"optimizer.loss=\"chi3\"", "--set: optimizer.loss: no such name, found \"chi3\", expected chi2"},
      {"network.hidden=8", "--set: network.hidden: wrong type, found the integer 8, expected a list of integers"},
      {"lens.0.theta_E=\"large\"",
       "--set: lens.0.theta_E: wrong type, found the string \"large\", expected a number > 0 arcsec"},
      {"lens.0.thetaE=1", "--set: lens.0.thetaE: unknown key, found thetaE, expected theta_E"},
      {"lens.7.theta_E=1",
       "--set: lens.7.theta_E: no such component, found 2 in the configuration, expected lens.N.KEY with N from 0"},
      {"title.0=1", "--set: title.0: not a key, found the string \"small\" before the last dot"}};
  for (const auto& [setting, message] : cases) expect_refused({"fit", "lens.toml", "--set", setting}, message);
  expect_refused({"fit", "lens.toml", "--set", "optimizer.steps=3", "--set", "optimizer.steps=4"},
                 "--set: optimizer.steps: given twice, found 3 and 4, expected it once");
}

TEST_F(Cli, ResultsAreReplacedOnlyWhenTold) {
  ASSERT_EQ(run(fit({"--quiet", "--out", "out"})).status, 0);
  expect_refused(fit({"--out", "out"}), "--out: out holds results, expected a new directory, --resume or --overwrite");
  expect_refused(fit({"--out", "out", "--dry-run"}),
                 "--out: out holds results, expected a new directory, --resume or --overwrite");
  EXPECT_EQ(run(fit({"--quiet", "--out", "out", "--overwrite", "--set", "optimizer.steps=4"})).status, 0);
  EXPECT_EQ(result("out")["steps"], 4);
}

TEST_F(Cli, QuietPrintsNothingUnlessSomethingFails) {
  const Outcome outcome = run(fit({"--quiet"}));
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(outcome.err, "");
  expect_refused(fit({"--quiet"}), "--out: lens_fit holds results, expected a new directory, --resume or --overwrite");
}

TEST_F(Cli, LinesAndHistoryEverySoManySteps) {
  const Outcome outcome = run(fit({"--log-every", "7"}));
  EXPECT_EQ(logged_steps(outcome.out), (std::vector<std::string>{"0/30", "7/30", "14/30", "21/30", "28/30", "30/30"}));
  EXPECT_EQ(outcome.out.find_first_of("\r\033"), std::string::npos) << "not plain lines";
  std::vector<std::string> steps;
  for (const std::string& row : lines(folder().read("lens_fit/history.csv"))) steps.push_back(fields(row)[0]);
  EXPECT_EQ(steps, (std::vector<std::string>{"step", "0", "7", "14", "21", "28", "30"}));
}

TEST_F(Cli, StepsThatMayNotAllBeMadeAreAtMostSoMany) {
  const Outcome outcome = run(fit({"--log-every", "10", "--set", "optimizer.stop=plateau"}));
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.out.find("step 0 of at most 30  chi2 "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find(" steps/s  at most "), std::string::npos) << outcome.out;
}

TEST_F(Cli, APlanBeyondTheMemoryOfTheMachineIsRefused) {
  const auto before = files_below(folder().path());
  const Words much = {"--set", "optimizer.name=lbfgs", "--set", "optimizer.memory=1000",
                      "--set", "optimizer.steps=1000"};
  Words words = much;
  words.insert(words.end(), {"--dry-run", "--set", "network.hidden=[100, 100]"});
  const Outcome plan = run(fit(words));
  EXPECT_EQ(plan.status, 0) << plan.err;
  const std::size_t at = plan.out.find("single precision, ");
  ASSERT_NE(at, std::string::npos) << plan.out;
  EXPECT_GT(std::stod(plan.out.substr(at + 18)), 330) << "no pairs of L-BFGS in\n" << plan.out;
  words = much;
  words.insert(words.end(), {"--set", "network.ensemble=1000", "--set", "network.hidden=[1000, 1000]"});
  const Outcome outcome = run(fit(words));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("einfield: error: cannot allocate 32"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find(" MB for the fit, this machine has "), std::string::npos) << outcome.err;
  EXPECT_EQ(files_below(folder().path()), before);
}

TEST_F(Cli, ATerminalGetsABarAndNoColours) {
  for (const bool no_colour : {false, true}) {
    if (no_colour) around_.environment["NO_COLOR"] = "1";
    around_.terminal_columns = 100;
    const Outcome outcome = run(fit({"--overwrite", "--log-every", "10"}));
    EXPECT_EQ(outcome.status, 0);
    // The bar is redrawn in its line: two in the middle of the run, and the last one is full.
    EXPECT_NE(outcome.out.find("\r["), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("step 10/30  chi2 "), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find(" steps/s  "), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find(" s left"), std::string::npos) << outcome.out;
    EXPECT_NE(outcome.out.find("=] step 30/30"), std::string::npos) << outcome.out;
    for (std::size_t at = outcome.out.find('\033'); at != std::string::npos; at = outcome.out.find('\033', at + 1))
      EXPECT_EQ(outcome.out.substr(at, 3), "\033[K") << "another control sequence than the end of the bar";
  }
}

TEST_F(Cli, ATerminalThatCannotRedrawALineGetsLines) {
  around_.terminal_columns = 100;
  around_.environment["TERM"] = "dumb";
  const Outcome outcome = run(fit({"--log-every", "15"}));
  EXPECT_EQ(outcome.out.find('\033'), std::string::npos) << outcome.out;
  EXPECT_EQ(logged_steps(outcome.out), (std::vector<std::string>{"0/30", "15/30", "30/30"}));
}

TEST_F(Cli, TheBarFitsANarrowTerminal) {
  around_.terminal_columns = 30;
  const Outcome outcome = run(fit());
  EXPECT_EQ(outcome.status, 0);
  std::size_t drawn = 0;
  for (std::size_t at = outcome.out.find("\rstep "); at != std::string::npos;
       at = outcome.out.find("\rstep ", at + 1)) {
    EXPECT_LT(outcome.out.find("\033[K", at) - at, 31u);
    ++drawn;
  }
  EXPECT_GE(drawn, 4u) << outcome.out;
}

// ---- interrupted, resumed
// -----------------------------------------------------------------------------------------------

/// A fit that would go on for long, and its ends.
class InterruptedFit : public Cli {
 protected:
  /// The number N of "interrupted after step N; …" in what a run has printed.
  static int interrupted_after(const Outcome& outcome) {
    const std::string words = "interrupted after step ";
    const std::size_t at = outcome.out.find(words);
    return at == std::string::npos ? -1 : std::atoi(outcome.out.c_str() + at + words.size());
  }
  /// Resumes the run in `dir` for ten more steps; an uninterrupted run must leave the same bits.
  void expect_same_end(const std::string& dir, int done) const {
    const std::string steps = "optimizer.steps=" + std::to_string(done + 10);
    const Outcome resumed = run(fit({"--out", dir, "--resume", "--log-every", "1", "--set", steps}));
    EXPECT_EQ(resumed.status, 0) << resumed.err;
    const std::string whole = dir + "_whole";
    EXPECT_EQ(run(fit({"--quiet", "--out", whole, "--log-every", "1", "--set", steps})).status, 0);
    for (const char* name : {"/result.fits", "/network.safetensors"})
      EXPECT_EQ(folder().read(dir + name), folder().read(whole + name)) << name;
    json a = result(dir), b = result(whole);
    for (const char* own : {"time_total_s", "time_per_step_ms", "command"}) {
      a.erase(own);
      b.erase(own);
    }
    EXPECT_EQ(a, b);
    EXPECT_EQ(timeless_history(dir), timeless_history(whole));
  }
  /// history.csv without the seconds.
  std::string timeless_history(const std::string& dir) const {
    std::string text;
    for (const std::string& row : lines(folder().read(dir + "/history.csv"))) {
      const std::size_t first = row.find(',');
      text += row.substr(0, first) + row.substr(row.find(',', first + 1)) + "\n";
    }
    return text;
  }
  Words endless(const std::string& dir, Words more = {}) const {
    more.insert(more.begin(), {"--out", dir, "--log-every", "1", "--set", "optimizer.steps=1000000000"});
    return fit(more);
  }
};

TEST_F(InterruptedFit, SignalsEndWithACheckpointToGoOnFrom) {
  for (const int signal_number : {SIGINT, SIGTERM}) {
    const std::string dir = signal_number == SIGINT ? "int" : "term";
    RunningBinary running(endless(dir), around_);
    ASSERT_TRUE(running.prints("step 3/"));
    running.send(signal_number);
    const Outcome outcome = running.end();
    EXPECT_EQ(outcome.status, 130);
    EXPECT_EQ(outcome.err, "");
    const int done = interrupted_after(outcome);
    EXPECT_NE(
        outcome.out.find("interrupted after step " + std::to_string(done) + "; --resume continues from " + dir + "\n"),
        std::string::npos);
    ASSERT_GE(done, 3);
    EXPECT_EQ(files_below(folder() / dir).size(), 1u);
    EXPECT_TRUE(fs::exists(folder() / (dir + "/checkpoint.safetensors")));
    expect_same_end(dir, done);
  }
}

TEST_F(InterruptedFit, ControlCOnTheTerminal) {
  around_.terminal_columns = 80;
  RunningBinary running(endless("out"), around_);
  ASSERT_TRUE(running.prints("step 3/"));
  running.type("\x03");
  const Outcome outcome = running.end();
  EXPECT_EQ(outcome.status, 130) << outcome.out;
  // The bar ends before the message.
  EXPECT_NE(outcome.out.find("\033[K\r\ninterrupted after step "), std::string::npos) << outcome.out;
  around_.terminal_columns = 0;
  ASSERT_GE(interrupted_after(outcome), 3);
  expect_same_end("out", interrupted_after(outcome));
}

TEST_F(InterruptedFit, QuietOnesSayNothing) {
  RunningBinary running(endless("out", {"--quiet", "--set", "optimizer.checkpoint_every=1"}), around_);
  while (!fs::exists(folder() / "out/checkpoint.safetensors"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  running.send(SIGTERM);
  const Outcome outcome = running.end();
  EXPECT_EQ(outcome.status, 130);
  EXPECT_EQ(outcome.out + outcome.err, "");
}

/// Whether the process has a handler for the signal.
bool catches(pid_t pid, int signal_number) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("SigCgt:", 0) == 0)
      return ((std::stoull(line.substr(7), nullptr, 16) >> (signal_number - 1)) & 1) != 0;
  return false;
}

TEST_F(InterruptedFit, ASecondSignalEndsAtOnce) {
  // Steps long enough for a second signal to come in one: 43 000 network evaluations each.
  RunningBinary running(endless("out", {"--set", "observation.supersampling=16", "--set", "network.hidden=[256, 256]"}),
                        around_);
  ASSERT_TRUE(running.prints("step 0/"));
  EXPECT_TRUE(catches(running.pid(), SIGINT));
  running.send(SIGINT);
  while (catches(running.pid(), SIGINT)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  running.send(SIGTERM);
  const Outcome outcome = running.end();
  EXPECT_EQ(outcome.signal, SIGTERM);
  EXPECT_EQ(interrupted_after(outcome), -1);
  EXPECT_FALSE(fs::exists(folder() / "out/checkpoint.safetensors"));
}

TEST_F(InterruptedFit, WhatTheShellIgnoresIsIgnored) {
  around_.ignores_sigint = true;
  RunningBinary running(endless("out"), around_);
  ASSERT_TRUE(running.prints("step 3/"));
  EXPECT_FALSE(catches(running.pid(), SIGINT));
  running.send(SIGINT);
  ASSERT_TRUE(running.prints("step 9/"));
  running.send(SIGTERM);
  EXPECT_EQ(running.end().status, 130);
}

TEST_F(InterruptedFit, ResumeChecksWhatItGoesOnFrom) {
  // A job that is started again repeats its command: without a checkpoint the fit begins.
  const Outcome begun = run(fit({"--resume", "--out", "out"}));
  ASSERT_EQ(begun.status, 0) << begun.err;
  EXPECT_NE(begun.out.find("--resume: out has no checkpoint, the fit begins"), std::string::npos) << begun.out;
  fs::remove(folder() / "out/checkpoint.safetensors");
  expect_refused(fit({"--quiet", "--resume", "--out", "out"}),
                 "--out: out holds results, expected a new directory, --resume or --overwrite");
  ASSERT_EQ(run(fit({"--quiet", "--overwrite", "--out", "out"})).status, 0);
  const Words resume = {"--quiet", "--resume", "--out", "out"};
  const auto with = [&](Words more) {
    more.insert(more.begin(), resume.begin(), resume.end());
    return fit(more);
  };
  expect_refused(with({"--precision", "double"}),
                 "--precision: double contradicts the checkpoint in out, expected single");
  expect_refused(
      with({"--set", "lens.0.e1=0.11"}),
      "--set: lens.0.e1: 0.11 contradicts the checkpoint in out, expected 0.1 or, for a new run, --overwrite");
  expect_refused(with({"--set", "optimizer.steps=20"}),
                 "--set: optimizer.steps: 20 contradicts the checkpoint in out, expected at least the 30 steps that it "
                 "has done");
  const std::string checkpoint = folder().read("out/checkpoint.safetensors");
  folder().write("out/checkpoint.safetensors", checkpoint.substr(0, checkpoint.size() - 100));
  expect_refused(with({}), "out/checkpoint.safetensors: damaged, its checksum is wrong");
}

// ---- evaluate
// -----------------------------------------------------------------------------------------------------------

/// A singular isothermal sphere of 1 arcsec, and a network that starts at nothing and is not fitted.
class Evaluate : public Cli {
 protected:
  Evaluate() {
    folder().write("sphere.toml", R"([observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
pixel_scale = 0.3
center_x = 0.1
center_y = -0.2
[[lens]]
profile = "SIS"
theta_E = 1.0
[[source]]
profile = "GAUSSIAN"
amp = 1
sigma = 0.5
[network]
hidden = [4]
last_layer = "zero"
[optimizer]
steps = 0
)");
    EXPECT_EQ(run({"fit", "sphere.toml", "--backend", "cpu", "--quiet", "--out", "out"}).status, 0);
  }
};

TEST_F(Evaluate, AddsTheFieldsToATable) {
  folder().write("points.csv", "name,y,x\nP,4,3\n\"Q, far\",-2.0,0\n");
  const Outcome outcome = run({"evaluate", "out", "--points", "points.csv"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err, "");
  const std::vector<std::string> rows = lines(outcome.out);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0], "name,y,x,psi,alpha_x,alpha_y,kappa,psi_macro,alpha_x_macro,alpha_y_macro,kappa_macro");
  EXPECT_EQ(rows[1].rfind("P,4,3,0,0,0,0,", 0), 0u) << rows[1];
  EXPECT_EQ(rows[2].rfind("\"Q, far\",-2.0,0,0,0,0,0,", 0), 0u) << rows[2];
  // ψ = r, α = θ/r, κ = 1/(2r), of a center softened by 1e-10 arcsec.
  const std::vector<std::string> row = fields(rows[1]);
  const double expected[] = {5, 0.6, 0.8, 0.1};
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(std::stod(row[7 + i]), expected[i], 1e-9);

  EXPECT_EQ(run({"evaluate", "out", "--points", "points.csv", "--out", "fields.csv"}).out, "");
  EXPECT_EQ(folder().read("fields.csv"), outcome.out);
}

TEST_F(Evaluate, WritesMapsOfAGrid) {
  EXPECT_EQ(run({"evaluate", "out", "--grid", "3,2,0.5"}).status, 0);
  EXPECT_EQ(run({"evaluate", "out", "--grid", "3,2,0.5", "--out", "maps.fits"}).status, 0);
  EXPECT_EQ(folder().read("out/evaluate.fits"), folder().read("maps.fits"));
  expect_refused({"evaluate", "out", "--grid", "4,4,0.5"},
                 "--out: out/evaluate.fits exists, expected a new file or --overwrite");
  EXPECT_EQ(run({"evaluate", "out", "--grid", "3,2,0.5", "--overwrite"}).status, 0);
  const FitsImage psi = read_fits(folder() / "maps.fits", "PSI_MACRO");
  EXPECT_EQ(psi.nx, 3);
  EXPECT_EQ(psi.ny, 2);
  EXPECT_NEAR(psi.values[0], std::hypot(0.1 - 0.5, -0.2 - 0.25), 1e-6);  // single precision
  EXPECT_EQ(read_fits(folder() / "maps.fits", "ALPHA_NN", 2).values, std::vector<double>(12, 0.0));
}

TEST_F(Evaluate, RefusesBadTablesByLine) {
  const struct {
    const char *table, *message;
  } cases[] = {{"", "bad.csv: empty, expected a header with the columns x and y"},
               {"x,z\n1,2\n", "bad.csv:1: no column y in the header, expected x and y in arcsec"},
               {"x,y,psi\n", "bad.csv:1: has a column psi already, expected x, y and columns of other names"},
               {"x,y\n1,2\n3\n", "bad.csv:3: 1 field, expected 2"},
               {"x,y\n1,2\n3,four\n", "bad.csv:3: y: 'four', expected a number in arcsec"},
               {"x,y\nnan,2\n", "bad.csv:2: x: 'nan', expected a number in arcsec"},
               {"x,y\n\"1,2\n", "bad.csv:2: a quote is not closed"}};
  for (const auto& c : cases) {
    folder().write("bad.csv", c.table);
    expect_refused({"evaluate", "out", "--points", "bad.csv"}, c.message);
  }
  expect_refused({"evaluate", "out", "--points", "none.csv"}, "none.csv: no such file");
  fs::remove(folder() / "out/network.safetensors");
  expect_refused({"evaluate", "out", "--grid", "3,3,0.1"}, "out/network.safetensors: no such file");
  folder().write("out/result.json", "{");
  expect_refused({"evaluate", "out", "--grid", "3,3,0.1"}, "out/result.json: not JSON, found an error at byte 2");
}

TEST_F(Evaluate, AFileThatCannotBeWrittenIsAFailure) {
  expect_refused({"evaluate", "out", "--grid", "3,3,0.1", "--out", "none/maps.fits"},
                 "none/maps.fits: cannot write (No such file or directory)", 1);
}

// ---- simulate
// -----------------------------------------------------------------------------------------------------------

TEST_F(Cli, ConvertGoesThereAndBack) {
  ASSERT_EQ(run(fit({"--set", "optimizer.steps=0", "--precision", "double"})).status, 0);
  for (const std::string name : {"coolest", "lenstronomy"}) {
    // In the results' own directory, and in another one.
    Outcome outcome = run({"convert", "--to-" + name, "lens_fit"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "lens_fit/" + name + ".json\n");
    EXPECT_EQ(outcome.err.rfind("einfield: warning: ", 0), 0u) << outcome.err;
    EXPECT_EQ(run({"convert", "--to-" + name, "lens_fit", "--out", "made/" + name}).status, 0);
    expect_refused({"convert", "--to-" + name, "lens_fit", "--out", "made/" + name},
                   "--out: made/" + name + "/" + name + ".json exists, expected a new directory or --overwrite");
    EXPECT_EQ(run({"convert", "--to-" + name, "lens_fit", "--out", "made/" + name, "--overwrite"}).status, 0);
    // The network comes along.
    outcome = run({"convert", "--from-" + name, "made/" + name + "/" + name + ".json", "--out", "back/" + name});
    EXPECT_EQ(outcome.status, 0) << outcome.err;

    outcome = run({"convert", "--from-" + name, "lens_fit/" + name + ".json"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.out, name + "_einfield/lens.toml\n");
    expect_refused({"convert", "--from-" + name, "lens_fit/" + name + ".json"},
                   "--out: " + name + "_einfield/lens.toml exists, expected a new directory or --overwrite");
    outcome = run({"fit", name + "_einfield/lens.toml", "--out", name + "_fit", "--backend", "cpu", "--threads", "1",
                   "--precision", "double", "--set", "optimizer.steps=0"});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    const json before = result("lens_fit"), after = result(name + "_fit");
    EXPECT_EQ(before["profiles"], after["profiles"]) << name;
    EXPECT_EQ(before["network"]["hidden"], after["network"]["hidden"]) << name;
    for (const auto& [parameter, value] : before["parameters"].items())
      EXPECT_NEAR(value.get<double>(), after["parameters"][parameter].get<double>(), 1e-12) << parameter;
  }
}

TEST_F(Cli, SimulateWritesTheSameBytesAndReplacesOnlyWhenTold) {
  const std::string data = folder().read("data.fits");
  expect_refused({"simulate", "lens.toml"}, "--out: data.fits exists, expected a new file or --overwrite");
  Outcome outcome = run({"simulate", "lens.toml", "--out", "again.fits"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "again.fits\n");
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(folder().read("again.fits"), data);
  for (const char* hdu : {"IMAGE", "NOISE", "PSF", "MASK", "IMAGE_TRUE", "PSI_TRUE", "KAPPA_TRUE"})
    EXPECT_NO_THROW(read_fits(folder() / "again.fits", hdu));
  EXPECT_NO_THROW(read_fits(folder() / "again.fits", "ALPHA_TRUE", 2));

  outcome = run({"simulate", "lens.toml", "--overwrite", "--set", "simulate.seed=3"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "data.fits\n");
  EXPECT_NE(read_fits(folder() / "data.fits", "IMAGE").values, read_fits(folder() / "again.fits", "IMAGE").values);
  EXPECT_EQ(read_fits(folder() / "data.fits", "IMAGE_TRUE").values,
            read_fits(folder() / "again.fits", "IMAGE_TRUE").values);
}

TEST_F(Cli, SimulateRefuses) {
  folder().write("plain.toml",
                 "[observation]\npixel_scale = 0.1\n[[source]]\nprofile = \"GAUSSIAN\"\namp = 1\nsigma = 1\n");
  expect_refused({"simulate", "plain.toml", "--out", "x.fits"},
                 "plain.toml:1: simulate: missing, expected a table [simulate]");
  expect_refused({"simulate", "plain.toml", "--set", "simulate.noise=1"},
                 "--out: missing, expected a FITS file, here or as observation.image in plain.toml");
  expect_refused({"simulate", "lens.toml", "--out", "none/x.fits"},
                 "none/x.fits: cannot write (No such file or directory)", 1);
  expect_refused({"simulate", "lens.toml", "--out", "/dev/null", "--overwrite"},
                 "/dev/null: cannot write (not a regular file)", 1);
}

TEST_F(Cli, SimulateLeavesTheDirectoryOfItsConfigurationOnlyWhenTold) {
  fs::create_directory(folder() / "sub");
  const std::string text = folder().read("lens.toml");
  const auto with_image = [&](const std::string& image) {
    std::string there = text;
    there.replace(there.find("data.fits[IMAGE]"), 16, image);
    folder().write("sub/lens.toml", there);
  };
  for (const std::string& image : {std::string("../x.fits"), folder() / "x.fits", std::string("a/../../x.fits")}) {
    with_image(image);
    expect_refused({"simulate", "sub/lens.toml"},
                   "sub/lens.toml:4: observation.image: outside the directory of the configuration, found " +
                       (folder() / "x.fits") + ", expected --out with this name to write there");
    EXPECT_EQ(run({"simulate", "sub/lens.toml", "--out", "x.fits"}).status, 0);
    fs::remove(folder() / "x.fits");
  }
  fs::create_directory(folder() / "sub/a");
  with_image("a/../a/x.fits");
  EXPECT_EQ(run({"simulate", "sub/lens.toml"}).out, "sub/a/x.fits\n");
}

// ---- reproduce
// ----------------------------------------------------------------------------------------------------------

TEST_F(Cli, ReproduceRefusesResultsAndBackendsBeforeItWrites) {
  fs::create_directories(folder() / "paper/shear_noisy");
  folder().write("paper/shear_noisy/result.json", "{}");
  expect_refused(
      {"reproduce", "biggio2021", "--out", "paper"},
      "--out: paper/shear_noisy holds results, expected a new directory, --overwrite, or --only with experiments "
      "that are not there yet");
#ifndef EINFIELD_HAVE_CUDA
  expect_refused(
      {"reproduce", "biggio2021", "--backend", "cuda"},
      "--backend: the CUDA backend is not in this build, expected one configured with EINFIELD_ENABLE_CUDA=ON", 3);
#endif
}

}  // namespace
}  // namespace einfield
