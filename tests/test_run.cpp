// One run from configuration to directory: interrupted, resumed, overwritten, killed, twice at once.
#include "host/app/run.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "einfield/error.hpp"
#include "host/app/evaluate.hpp"
#include "host/exchange/coolest.hpp"
#include "host/files/directory_lock.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/results/checkpoint.hpp"
#include "host/results/write_results.hpp"
#include "tests/reference_network.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

RunOptions options_for(const std::string& out) {
  RunOptions options = run_options(out);
  options.log_every = 4;
  return options;
}

/// Interrupts after a number of steps.
std::function<bool()> after(int steps) {
  return [asked = 0, steps]() mutable { return ++asked == steps; };
}

std::string file(const SmallLens& lens, const std::string& name) {
  return lens.folder().read("out/" + name);
}

/// Everything of result.json that does not depend on the clock.
json timeless(const SmallLens& lens) {
  json result = json::parse(file(lens, "result.json"));
  result.erase("time_total_s");
  result.erase("time_per_step_ms");
  return result;
}

/// history.csv without its second column.
std::string timeless_history(const SmallLens& lens) {
  std::istringstream rows(file(lens, "history.csv"));
  std::string text;
  for (std::string row; std::getline(rows, row);) {
    const std::size_t first = row.find(',');
    text += row.substr(0, first) + row.substr(row.find(',', first + 1)) + "\n";
  }
  return text;
}

void expect_same_results(const SmallLens& a, const SmallLens& b) {
  EXPECT_EQ(file(a, "result.fits"), file(b, "result.fits"));
  EXPECT_EQ(file(a, "network.safetensors"), file(b, "network.safetensors"));
  EXPECT_EQ(timeless_history(a), timeless_history(b));
  json results[] = {timeless(a), timeless(b)};
  for (json& result : results) {  // the two have their data in folders of their own
    result["config"].erase("observation");
    result["config"].erase("truth");
    result.erase("config_toml");
  }
  EXPECT_EQ(results[0], results[1]);
}

/// Files of a directory, the maps of coolest.json apart.
std::vector<std::string> names_in(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir))
    if (!is_coolest_map(entry.path().filename().string())) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Run, LeavesResultsAndNothingElse) {
  const SmallLens lens;
  std::ostringstream log, warnings;
  RunOptions options = options_for(lens.folder() / "out/of/the/way");
  options.log = &log;
  options.warnings = &warnings;
  EXPECT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::steps);
  EXPECT_EQ(names_in(options.out), (std::vector<std::string>{"checkpoint.safetensors", "coolest.json", "history.csv",
                                                             "network.safetensors", "result.fits", "result.json"}));
  EXPECT_NE(log.str().find("step 28/30"), std::string::npos) << log.str();
  EXPECT_NE(log.str().find("results: " + options.out), std::string::npos) << log.str();
  EXPECT_EQ(log.str().find('\r'), std::string::npos);
  EXPECT_EQ(warnings.str(), "");
}

void check_ensemble(const std::string& encoding) {
  const SmallLens lens{{"optimizer.name", "'lbfgs'"}, {"optimizer.steps", "6"}, {"network.encoding", encoding}};
  const auto run = [&](const std::vector<Override>& settings, const std::string& out) {
    RunOptions options = options_for(lens.folder() / out);
    options.double_precision = true;
    EXPECT_EQ(run_fit(lens.config(settings), options).stop_reason, StopReason::steps);
  };
  run({{"network.ensemble", "3"}, {"network.seed", "5"}}, "all");
  for (const char* seed : {"5", "6", "7"}) run({{"network.seed", seed}}, std::string("seed") + seed);
  EXPECT_EQ(names_in(lens.folder() / "all"),
            (std::vector<std::string>{"checkpoint.safetensors", "coolest.json", "history.csv", "network.1.safetensors",
                                      "network.2.safetensors", "network.safetensors", "result.fits", "result.json"}));
  const auto map = [&](const std::string& dir, const char* name, int planes) {
    return read_fits(lens.folder() / (dir + "/result.fits"), name, planes).values;
  };
  for (const auto& [name, planes] : {std::pair{"ALPHA_NN", 2}, {"KAPPA_NN", 1}, {"MODEL", 1}}) {
    const std::vector<double> mean = map("all", name, planes), a = map("seed5", name, planes),
                              b = map("seed6", name, planes), c = map("seed7", name, planes);
    for (std::size_t i = 0; i < mean.size(); ++i) {
      const double expected = (a[i] + b[i] + c[i]) / 3;
      ASSERT_NEAR(mean[i], expected, 1e-12 * (1 + std::abs(expected)));
      if (std::string(name) == "MODEL") continue;
      const double deviation =
          std::sqrt(((a[i] - expected) * (a[i] - expected) + (b[i] - expected) * (b[i] - expected) +
                     (c[i] - expected) * (c[i] - expected)) /
                    2);
      ASSERT_NEAR(map("all", std::string(name) == "ALPHA_NN" ? "ALPHA_NN_STD" : "KAPPA_NN_STD", planes)[i], deviation,
                  1e-10 * (1 + deviation));
    }
  }
  // The constant of a potential is taken where the data say something, and their scatter is that about it.
  const std::vector<double> sensitivity = map("all", "SENSITIVITY", 1), psi = map("all", "PSI_NN", 1),
                            scatter = map("all", "PSI_NN_STD", 1);
  std::vector<std::vector<double>> centred;
  for (const char* seed : {"seed5", "seed6", "seed7"}) {
    centred.push_back(map(seed, "PSI_NN", 1));
    double sum = 0, total = 0;
    for (std::size_t i = 0; i < psi.size(); ++i) {
      sum += sensitivity[i] * sensitivity[i] * centred.back()[i];
      total += sensitivity[i] * sensitivity[i];
    }
    ASSERT_GT(total, 0);
    for (double& v : centred.back()) v -= sum / total;
  }
  for (std::size_t i = 0; i < psi.size(); ++i) {
    const double expected = (centred[0][i] + centred[1][i] + centred[2][i]) / 3;
    ASSERT_NEAR(psi[i], expected, 1e-12);
    double squares = 0;
    for (const std::vector<double>& member : centred) squares += (member[i] - expected) * (member[i] - expected);
    ASSERT_NEAR(scatter[i], std::sqrt(squares / 2), 1e-12);
  }
  const json result = json::parse(lens.folder().read("all/result.json"));
  ASSERT_EQ(result["ensemble"]["members"].size(), 3u);
  EXPECT_EQ(result["ensemble"]["members"][2]["seed"], 7);
  EXPECT_EQ(result["ensemble"]["members"][1]["loss"],
            json::parse(lens.folder().read("seed6/result.json"))["metrics"]["loss"]);
  for (const char* where : {"psi_all", "alpha_x_all", "kappa_all"}) {
    const json& coverage = result["ensemble"]["coverage"][where];
    EXPECT_GE(coverage["2_sigma"].get<double>(), coverage["1_sigma"].get<double>());
    EXPECT_LE(coverage["2_sigma"].get<double>(), 1);
  }
  // The stored networks give the same maps, potential included.
  const Config config = lens.config();
  const FitsImage data = read_fits(config.observation.image.path, config.observation.image.hdu);
  evaluate_grid(lens.folder() / "all", data.nx, data.ny, 0.3, lens.folder() / "grid.fits");
  for (const auto& [name, planes] : {std::pair{"PSI_NN", 1}, {"ALPHA_NN", 2}, {"KAPPA_NN", 1}}) {
    const std::vector<double> stored = map("all", name, planes),
                              again = read_fits(lens.folder() / "grid.fits", name, planes).values;
    for (std::size_t i = 0; i < stored.size(); ++i) ASSERT_NEAR(stored[i], again[i], 1e-12 * (1 + std::abs(stored[i])));
  }
  // A smaller run in its place leaves no member behind.
  RunOptions options = options_for(lens.folder() / "all");
  options.overwrite = true;
  run_fit(lens.config(), options);
  EXPECT_EQ(names_in(lens.folder() / "all").size(), 6u);
}
TEST(Run, AnEnsembleIsTheMeanOfItsMembers) {
  check_ensemble("'none'");
  check_ensemble("'fourier'");  // every member with frequencies of its own
}

TEST(Run, MembersOfAnEnsembleHaveNetworkSourcesOfTheirOwn) {
  const SmallLens lens{{"source", "[{ profile = 'NETWORK', amp = 4.0, hidden = [6], seed = 3, fit = ['network'] }]"},
                       {"optimizer.steps", "4"}};
  const auto run = [&](const std::vector<Override>& settings, const std::string& out) {
    RunOptions options = options_for(lens.folder() / out);
    options.double_precision = true;
    EXPECT_EQ(run_fit(lens.config(settings), options).stop_reason, StopReason::steps);
  };
  run({{"network.ensemble", "2"}}, "all");
  run({}, "first");
  EXPECT_EQ(names_in(lens.folder() / "all"),
            (std::vector<std::string>{"checkpoint.safetensors", "coolest.json", "history.csv", "network.1.safetensors",
                                      "network.safetensors", "result.fits", "result.json",
                                      "source_network.1.safetensors", "source_network.safetensors"}));
  const auto weights = [&](const std::string& name) { return read_network(lens.folder() / name).parameters; };
  EXPECT_EQ(weights("all/source_network.safetensors"), weights("first/source_network.safetensors"));
  EXPECT_NE(weights("all/source_network.1.safetensors"), weights("all/source_network.safetensors"));
  // SOURCE is the mean of the members' sources, each from its own weights.
  const FitsImage image = read_fits(lens.folder() / "all/result.fits", "SOURCE");
  const Grid grid{image.nx, image.ny, image.linear->pixel_scale, image.linear->center_x, image.linear->center_y, 1};
  for (std::size_t i = 0; i < image.values.size(); i += 997) {
    const Vec2<double> at = grid.pixel(static_cast<int>(i));
    double mean = 0;
    for (const char* name : {"all/source_network.safetensors", "all/source_network.1.safetensors"}) {
      const StoredNetwork network = read_network(lens.folder() / name);
      mean += 2 * std::log1p(std::exp(reference_network(network.shape, network.parameters, {at.x, at.y}).psi[0]));
    }
    EXPECT_NEAR(image.values[i] / mean, 1, 1e-5) << i;  // the WCS is text
  }
  RunOptions options = options_for(lens.folder() / "all");
  options.overwrite = true;
  run_fit(lens.config(), options);
  EXPECT_FALSE(fs::exists(lens.folder() / "all/source_network.1.safetensors"));
}

TEST(Run, InterruptedEnsemblesResume) {
  for (const char* optimizer : {"'adam'", "'lbfgs'"}) {
    const SmallLens whole{{"network.ensemble", "2"}, {"optimizer.name", optimizer}, {"optimizer.steps", "9"}};
    run_fit(whole.config(), options_for(whole.out()));
    const SmallLens parts{{"network.ensemble", "2"}, {"optimizer.name", optimizer}, {"optimizer.steps", "9"}};
    RunOptions options = options_for(parts.out());
    options.interrupted = after(4);
    EXPECT_EQ(run_fit(parts.config(), options).stop_reason, StopReason::interrupted);
    options.resume = true;
    options.interrupted = nullptr;
    EXPECT_EQ(run_fit(parts.config(), options).stop_reason, StopReason::steps);
    for (const char* name : {"network.safetensors", "network.1.safetensors", "result.fits"})
      EXPECT_EQ(file(parts, name), file(whole, name)) << name;
  }
}

TEST(Run, ResultsAreNotOverwrittenWithoutBeingTold) {
  const SmallLens lens;
  RunOptions options = options_for(lens.out());
  run_fit(lens.config(), options);
  const std::string before = file(lens, "result.json");
  EXPECT_THROW(run_fit(lens.config(), options), InvalidInput);
  EXPECT_EQ(file(lens, "result.json"), before);
  options.overwrite = true;
  options.double_precision = true;
  EXPECT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::steps);
  EXPECT_EQ(timeless(lens)["precision"], "double");
  // The checkpoint of an interrupted run is no one else's either.
  const SmallLens other;
  RunOptions interrupted = options_for(other.out());
  interrupted.interrupted = after(3);
  run_fit(other.config(), interrupted);
  EXPECT_THROW(run_fit(other.config(), options_for(other.out())), InvalidInput);
}

TEST(Run, ResumedRunsEndWithTheSameFiles) {
  for (const bool double_precision : {false, true}) {
    const SmallLens whole{{"optimizer.best_of_last", "6"}};
    RunOptions options = options_for(whole.out());
    options.double_precision = double_precision;
    run_fit(whole.config(), options);

    const SmallLens parts{{"optimizer.best_of_last", "6"}};
    options.out = parts.out();
    for (const int steps : {1, 12, 14}) {
      options.interrupted = after(steps);
      EXPECT_EQ(run_fit(parts.config(), options).stop_reason, StopReason::interrupted);
      EXPECT_EQ(names_in(options.out), std::vector<std::string>{"checkpoint.safetensors"});
      options.resume = true;
    }
    options.interrupted = nullptr;
    EXPECT_EQ(run_fit(parts.config(), options).stop_reason, StopReason::steps);
    expect_same_results(parts, whole);

    // Resumed once more, it is finished at once and says the same.
    EXPECT_EQ(run_fit(parts.config(), options).stop_reason, StopReason::steps);
    expect_same_results(parts, whole);
  }
}

/// Features alone: ψ = w·h + b. From zero and from random weights, in both precisions, and resumed.
TEST(Run, APotentialThatIsLinearInItsFeatures) {
  for (const char* last_layer : {"'zero'", "'random'"})
    for (const bool double_precision : {false, true}) {
      SCOPED_TRACE(std::string(last_layer) + (double_precision ? " double" : " single"));
      const std::initializer_list<Override> settings = {
          Override{"network.encoding", "'fourier'"}, {"network.fourier_features", "20"},  {"network.hidden", "[]"},
          {"network.last_layer", last_layer},        {"optimizer.learning_rate", "2e-2"}, {"optimizer.steps", "60"}};
      const SmallLens lens{settings}, parts{settings};
      RunOptions options = options_for(lens.out());
      options.double_precision = double_precision;
      EXPECT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::steps);
      const json result = timeless(lens);
      EXPECT_EQ(result["network"]["hidden"], json::array());
      EXPECT_EQ(result["network"]["fourier_features"], 20);
      const StoredNetwork network = read_network(lens.out() + "/network.safetensors");
      EXPECT_EQ(network.shape, (NetworkShape{{}, 1.0, 20}));
      // The frequencies are as drawn, the weights of the features are not.
      const std::vector<double> start = initial_weights(network.shape, 4, last_layer == std::string("'zero'"));
      const std::size_t fixed = network.shape.fixed_size(), last_bias = start.size() - 1;  // that only shifts ψ
      for (std::size_t i = 0; i < fixed; ++i)
        ASSERT_NEAR(network.parameters[i], start[i], 1e-6 * std::abs(start[i])) << i;
      for (std::size_t i = fixed; i < last_bias; ++i) ASSERT_NE(network.parameters[i], start[i]) << i;
      std::istringstream history(file(lens, "history.csv"));
      std::vector<double> losses;
      std::string row;
      for (std::getline(history, row); std::getline(history, row);) {
        row.erase(0, row.find(',', row.find(',') + 1) + 1);  // step, time_s
        losses.push_back(std::stod(row));
      }
      EXPECT_LT(losses.back(), 0.8 * losses.front());

      options.out = parts.out();
      options.interrupted = after(17);
      EXPECT_EQ(run_fit(parts.config(), options).stop_reason, StopReason::interrupted);
      options.interrupted = nullptr;
      options.resume = true;
      run_fit(parts.config(), options);
      expect_same_results(parts, lens);
    }
}

TEST(Run, AFinishedRunGoesOn) {
  const SmallLens whole{{"optimizer.steps", "50"}}, parts;
  run_fit(whole.config(), options_for(whole.out()));
  RunOptions options = options_for(parts.out());
  run_fit(parts.config(), options);
  options.resume = true;
  run_fit(parts.config({{"optimizer.steps", "50"}}), options);
  expect_same_results(parts, whole);
}

TEST(Run, StopsAtChi2AndThereAgain) {
  const SmallLens lens;
  const double reached =
      SmallFit<float>(lens.config()).result.snapshot.history[4].chi2_reduced + 1e-4;  // after 16 steps
  const std::vector<Override> stop = {{"optimizer.stop", "\"chi2\""}, {"optimizer.stop_chi2", std::to_string(reached)}};
  RunOptions options = options_for(lens.out());
  EXPECT_EQ(run_fit(lens.config(stop), options).stop_reason, StopReason::chi2);
  const json first = timeless(lens);
  EXPECT_EQ(first["stop_reason"], "chi2");
  EXPECT_LE(first["steps"], 16);
  EXPECT_LE(first["metrics"]["chi2_reduced"], reached);
  options.resume = true;
  EXPECT_EQ(run_fit(lens.config(stop), options).stop_reason, StopReason::chi2);
  EXPECT_EQ(timeless(lens), first);
}

TEST(Run, NonFiniteNumbersEndAtTheLastGoodState) {
  // One enormous update: the loss after it is not finite.
  const SmallLens lens{{"optimizer.learning_rate", "1e30"}};
  RunOptions options = options_for(lens.out());
  const RunOutcome outcome = run_fit(lens.config(), options);
  EXPECT_EQ(outcome.stop_reason, StopReason::non_finite);
  EXPECT_EQ(outcome.message, "the loss is not finite in step 2");
  const json result = timeless(lens);
  EXPECT_EQ(result["stop_reason"], "non-finite");
  EXPECT_EQ(result["message"], outcome.message);
  EXPECT_EQ(result["steps"], 0);
  EXPECT_TRUE(result["metrics"]["loss"].is_number());
  EXPECT_NEAR(result["parameters"]["lens.0.theta_E"].get<double>(), 1.2, 1e-6);
  for (const double v : read_fits(lens.out() + "/result.fits", "MODEL").values) EXPECT_TRUE(std::isfinite(v));
  EXPECT_TRUE(has_checkpoint(lens.out()));
  options.resume = true;
  EXPECT_EQ(run_fit(lens.config(), options).message, outcome.message);
  EXPECT_EQ(timeless(lens), result);
}

TEST(Run, ADryRunWritesNothing) {
  const SmallLens lens;
  std::ostringstream log;
  RunOptions options = options_for(lens.folder() / "nothing");
  options.dry_run = true;
  options.log = &log;
  EXPECT_EQ(run_fit(lens.config(), options).stop_reason, std::nullopt);
  EXPECT_FALSE(fs::exists(options.out));
  for (const char* part :
       {"small", "14 x 12 pixels", "166 used", "lens.1 SHEAR", "network 2-7-5-1", "2 parameters", "planned", "cpu"})
    EXPECT_NE(log.str().find(part), std::string::npos) << part << " in\n" << log.str();

  log.str("");
  run_fit(lens.config({{"network.encoding", "\"fourier\""}}), options);
  // Sine and cosine of 16 frequencies are fixed; of the rest there are 32 · 7 + 7 + 7 · 5 + 5 + 5 + 1 weights.
  for (const char* part : {"network 2-16 Fourier-7-5-1", "free: 277 network weights"})
    EXPECT_NE(log.str().find(part), std::string::npos) << part << " in\n" << log.str();
}

TEST(Run, BadInputWritesNothing) {
  const SmallLens lens;
  const std::string out = lens.folder() / "nothing";
  RunOptions options = options_for(out);
  options.backend = "abacus";
  EXPECT_THROW(run_fit(lens.config(), options), InvalidInput);
  fs::remove(lens.folder() / "mask.fits");
  EXPECT_THROW(run_fit(lens.config(), options_for(out)), InvalidInput);
  EXPECT_FALSE(fs::exists(out));
  // A resumed run that contradicts its checkpoint leaves the directory as it was.
  const SmallLens other;
  options = options_for(other.out());
  options.interrupted = after(3);
  run_fit(other.config(), options);
  const std::string before = file(other, "checkpoint.safetensors");
  options.resume = true;
  EXPECT_THROW(run_fit(other.config({{"network.seed", "9"}}), options), InvalidInput);
  options.double_precision = true;
  EXPECT_THROW(run_fit(other.config(), options), InvalidInput);
  EXPECT_EQ(file(other, "checkpoint.safetensors"), before);
  EXPECT_EQ(names_in(other.out()), std::vector<std::string>{"checkpoint.safetensors"});
}

TEST(Run, AnInterruptedOverwriteKeepsTheEarlierResults) {
  const SmallLens lens;
  RunOptions options = options_for(lens.out());
  run_fit(lens.config(), options);
  const std::string json_before = file(lens, "result.json"), fits_before = file(lens, "result.fits"),
                    network_before = file(lens, "network.safetensors"), history_before = file(lens, "history.csv");
  options.overwrite = true;
  options.double_precision = true;
  options.interrupted = after(7);
  EXPECT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::interrupted);
  EXPECT_EQ(file(lens, "result.json"), json_before);
  EXPECT_EQ(file(lens, "result.fits"), fits_before);
  EXPECT_EQ(file(lens, "network.safetensors"), network_before);
  EXPECT_EQ(file(lens, "history.csv"), history_before);
  // The checkpoint is the new run's.
  options.overwrite = false;
  options.resume = true;
  options.interrupted = nullptr;
  EXPECT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::steps);
  EXPECT_EQ(timeless(lens)["precision"], "double");
}

TEST(Run, OneAtATimeInADirectory) {
  const SmallLens lens;
  {
    const DirectoryLock lock(lens.out());
    EXPECT_TRUE(lock.locked());
    try {
      run_fit(lens.config(), options_for(lens.out()));
      ADD_FAILURE() << "two runs in one directory";
    } catch (const IoError& error) {
      EXPECT_EQ(std::string(error.what())
                    .rfind(lens.out() + ": in use by another run (process " + std::to_string(getpid()), 0),
                0u)
          << error.what();
    }
    RunOptions options = options_for(lens.out());
    options.dry_run = true;
    EXPECT_NO_THROW(run_fit(lens.config(), options));
  }
  EXPECT_TRUE(names_in(lens.out()).empty());
  // What a killed run has left does not count.
  lens.folder().write("out/.lock", "process 1 on elsewhere");
  EXPECT_EQ(run_fit(lens.config(), options_for(lens.out())).stop_reason, StopReason::steps);
  EXPECT_FALSE(fs::exists(lens.out() + "/.lock"));
}

TEST(Run, TheLockFollowsNoLink) {
  const TemporaryDirectory folder;
  const std::string precious = folder.write("precious", "of another"), lock = folder / "out/.lock";
  fs::create_directory(folder / "out");
  const auto refusal = [&] {
    try {
      const DirectoryLock held(folder / "out");
    } catch (const IoError& error) {
      return std::string(error.what());
    }
    return std::string("held");
  };
  fs::create_symlink(precious, lock);
  EXPECT_EQ(refusal(), lock + ": cannot write (Too many levels of symbolic links)");
  EXPECT_EQ(folder.read("precious"), "of another");
  fs::remove(lock);
  ASSERT_EQ(mkfifo(lock.c_str(), 0600), 0);
  EXPECT_EQ(refusal(), lock + ": cannot write (not a regular file)");
  EXPECT_TRUE(fs::exists(lock));
  fs::remove(lock);
  EXPECT_EQ(refusal(), "held");
  EXPECT_FALSE(fs::exists(lock));
}

TEST(Run, TheLockIsHeldByOneOfMany) {
  const SmallLens lens;
  const std::string dir = lens.out();
  std::atomic<int> inside{0}, most{0}, entered{0};
  const auto contend = [&] {
    for (int i = 0; i < 200; ++i) {
      try {
        const DirectoryLock lock(dir);
        const int now = ++inside;
        if (now > most) most = now;
        ++entered;
        std::this_thread::yield();
        --inside;
      } catch (const IoError&) {
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(contend);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(most, 1);
  EXPECT_GT(entered, 0);
  EXPECT_TRUE(names_in(dir).empty());
}

/// What must hold in a directory after a run in it was killed: result.json means that everything belongs together, and
/// without it there is a checkpoint to go on from.
void expect_sound(const SmallLens& lens) {
  if (fs::exists(lens.out() + "/result.json")) {
    const json result = json::parse(file(lens, "result.json"));
    const bool single = result["precision"] == "single";
    EXPECT_NE(file(lens, "result.fits").find(single ? "-32 /" : "-64 /"), std::string::npos);
    EXPECT_NE(file(lens, "network.safetensors").find(single ? "F32" : "F64"), std::string::npos);
    EXPECT_EQ(read_network(lens.out() + "/network.safetensors").shape.hidden, (std::vector<int>{7, 5}));
    const std::string history = file(lens, "history.csv"), steps = std::to_string(result["steps"].get<int>());
    EXPECT_NE(history.find("\n" + steps + ","), std::string::npos);
  } else {
    ASSERT_TRUE(has_checkpoint(lens.out()));
  }
  if (!has_checkpoint(lens.out())) return;
  const SafetensorsFile checkpoint(lens.out() + "/checkpoint.safetensors");
  const bool single = checkpoint.metadata("precision") == "single";
  const Config config = lens.config({{"optimizer.steps", single ? "30" : "24"}});
  const Problem problem = load_problem(config).problem;
  if (single)
    EXPECT_NO_THROW(read_checkpoint<float>(lens.out(), config, problem));
  else
    EXPECT_NO_THROW(read_checkpoint<double>(lens.out(), config, problem));
}

TEST(Run, KilledAtAnyMoment) {
  const SmallLens whole, lens;
  run_fit(whole.config(), options_for(whole.out()));
  RunOptions options = options_for(lens.out());
  run_fit(lens.config(), options);
  options.overwrite = true;
  int killed = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const bool single = trial % 2 == 0;
    const Config config = lens.config({{"optimizer.steps", single ? "30" : "24"}, {"optimizer.checkpoint_every", "3"}});
    options.double_precision = !single;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      try {
        run_fit(config, options);
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(1500 * trial));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    killed += WIFSIGNALED(status);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    expect_sound(lens);
  }
  EXPECT_GT(killed, 0);

  // From wherever the last one was, the run ends as if nothing had happened.
  const SafetensorsFile checkpoint(lens.out() + "/checkpoint.safetensors");
  options.overwrite = false;
  options.resume = true;
  options.double_precision = checkpoint.metadata("precision") == "double";
  run_fit(lens.config(), options);
  if (options.double_precision) {
    RunOptions again = options_for(whole.out());
    again.overwrite = again.double_precision = true;
    run_fit(whole.config(), again);
  }
  expect_same_results(lens, whole);
  EXPECT_EQ(names_in(lens.out()), names_in(whole.out()));
}

TEST(Run, TheBarEndsBeforeAnythingElse) {
  const SmallLens lens;
  std::ostringstream both;
  RunOptions options = options_for(lens.out());
  options.log = options.warnings = &both;
  options.terminal = true;
  run_fit(lens.config(), options);
  const std::string text = both.str();
  const std::size_t last = text.rfind('\r');
  ASSERT_NE(last, std::string::npos);
  EXPECT_EQ(text.find("\033[K\n", last), text.find("\033[K", last)) << text;
  EXPECT_EQ(text.find("\n\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace einfield
