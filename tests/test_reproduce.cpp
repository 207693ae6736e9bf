// `einfield reproduce` through the library, with images and networks small enough for seconds: what is run, what is
// written, what is refused.
#include "host/app/reproduce.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "einfield/error.hpp"
#include "host/app/biggio2021.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

ReproduceOptions small(const TemporaryDirectory& directory, const std::vector<std::string>& only) {
  ReproduceOptions options;
  options.out = directory / "out";
  options.only = only;
  options.run.backend = "cpu";
  options.run.threads = 2;
  options.run.figures = false;
  options.settings = {{"simulate.nx", "20"},
                      {"simulate.ny", "20"},
                      {"observation.pixel_scale", "0.4"},
                      {"observation.psf", "{ fwhm = 0.8, size = 5 }"},
                      {"network.hidden", "[8, 8]"},
                      {"optimizer.steps", "5"}};
  return options;
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

nlohmann::json result(const TemporaryDirectory& directory, const std::string& name) {
  return nlohmann::json::parse(contents(directory / ("out/" + name + "/result.json")));
}

/// table.csv by experiment and metric; all further cells.
std::map<std::string, std::vector<std::string>> table(const TemporaryDirectory& directory) {
  std::map<std::string, std::vector<std::string>> rows;
  std::istringstream lines(contents(directory / "out/table.csv"));
  std::string line, experiment, metric, cell;
  std::getline(lines, line);
  EXPECT_EQ(line, "experiment,metric,median,lowest,highest,network_seeds,jax_median,jax_lowest,jax_highest,jax_seeds");
  while (std::getline(lines, line)) {
    std::istringstream cells(line);
    std::getline(cells, experiment, ',');
    std::getline(cells, metric, ',');
    auto& row = rows[experiment + " " + metric];
    while (std::getline(cells, cell, ',')) row.push_back(cell);
  }
  return rows;
}

TEST(Reproduce, TakesTheMedianOfThreeNetworks) {
  const TemporaryDirectory directory;
  EXPECT_EQ(reproduce(small(directory, {"sie_noisy"})).stop_reason, StopReason::steps);
  std::vector<double> chi2;
  for (const char* name : {"sie_noisy", "sie_noisy_seed_2", "sie_noisy_seed_3"}) {
    const nlohmann::json json = result(directory, name);
    EXPECT_EQ(json["seed"], chi2.size() + 1);
    chi2.push_back(json["metrics"]["chi2_reduced"].get<double>());
  }
  std::sort(chi2.begin(), chi2.end());
  EXPECT_LT(chi2[0], chi2[2]);
  auto rows = table(directory);
  const std::vector<std::string>& row = rows.at("sie_noisy chi2_reduced");
  ASSERT_EQ(row.size(), 8u);
  EXPECT_EQ(std::stod(row[0]), chi2[1]);
  EXPECT_EQ(std::stod(row[1]), chi2[0]);
  EXPECT_EQ(std::stod(row[2]), chi2[2]);
  EXPECT_EQ(row[3], "3");
  EXPECT_EQ(row[4], "1.006");  // the median of 1.005, 1.008 and 1.006
  EXPECT_EQ(row[7], "3");
  // 400 pixels of Gaussian noise: 1 with a standard deviation of 0.07; the same image for every network.
  EXPECT_NEAR(std::stod(rows.at("sie_noisy noise_chi2")[0]), 1, 0.25);
  EXPECT_EQ(rows.at("sie_noisy noise_chi2")[3], "1");
  EXPECT_FALSE(fs::exists(directory / "out/figure_02.png"));
  EXPECT_EQ(contents(directory / "out/README.md").find("figure_02"),
            std::string::npos);  // no link to what is not there
}

TEST(Reproduce, OverfittingIsShownBesideItsEarlyState) {
  const TemporaryDirectory directory;
  ReproduceOptions options = small(directory, {"sie_overfit"});
  options.settings.back().value = "205";
  options.run.figures = true;
  std::ostringstream log, warnings;
  options.run.log = &log;
  options.run.warnings = &warnings;
  reproduce(options);
  EXPECT_EQ(result(directory, "sie_overfit_early")["steps"], 200);
  EXPECT_EQ(result(directory, "sie_overfit")["steps"], 205);
  EXPECT_NE(log.str().find("Overfitting: final state"), std::string::npos) << log.str();
  const std::string page = contents(directory / "out/README.md");
  EXPECT_NE(page.find("| ψ error, arcs |"), std::string::npos);
  if (warnings.str().find("gnuplot is not installed") != std::string::npos) GTEST_SKIP() << "gnuplot is not installed";
  EXPECT_EQ(warnings.str().find("gnuplot"), std::string::npos) << warnings.str();
  for (const char* figure : {"figure_09.png", "figure_10.png", "figure_11.png"}) {
    EXPECT_EQ(contents(directory / (std::string("out/") + figure)).substr(1, 3), "PNG") << figure;
    EXPECT_NE(page.find(std::string("](") + figure + ")"), std::string::npos) << figure;
  }
  EXPECT_FALSE(fs::exists(directory / "out/figure_02.png"));
}

TEST(Reproduce, AddsExperimentsAndRefusesThoseThatAreThere) {
  const TemporaryDirectory directory;
  reproduce(small(directory, {"sie_noiseless"}));
  EXPECT_EQ(table(directory).count("shear_noisy chi2_reduced"), 0u);
  reproduce(small(directory, {"shear_noisy"}));
  EXPECT_EQ(table(directory).count("shear_noisy chi2_reduced"), 1u);
  EXPECT_EQ(table(directory).count("sie_noiseless psi_relative_rms_all"), 1u);
  const std::string before = contents(directory / "out/shear_noisy/result.json");
  EXPECT_THROW(reproduce(small(directory, {})), InvalidInput);
  EXPECT_EQ(contents(directory / "out/shear_noisy/result.json"), before);
  ReproduceOptions again = small(directory, {"shear_noisy"});
  again.settings.back().value = "6";
  again.run.overwrite = true;
  reproduce(again);
  EXPECT_EQ(result(directory, "shear_noisy")["steps"], 6);
}

TEST(Reproduce, DamagedResultsOfAnEarlierExperimentAreNamed) {
  const TemporaryDirectory directory;
  reproduce(small(directory, {"sie_noiseless"}));
  const std::string file = directory / "out/sie_noiseless/result.json";
  nlohmann::json earlier = result(directory, "sie_noiseless");
  earlier.erase("version");
  directory.write("out/sie_noiseless/result.json", earlier.dump());
  try {
    reproduce(small(directory, {"shear_noisy"}));
    FAIL() << "accepted";
  } catch (const InvalidInput& error) {
    EXPECT_EQ(error.what(), file + ": version: missing");
  }
  EXPECT_TRUE(fs::exists(directory / "out/shear_noisy/result.json"));
}

TEST(Reproduce, ReplacesNothingThatIsNotItsOwn) {
  const TemporaryDirectory directory;
  fs::create_directory(directory / "out");
  const std::string page = directory.write("out/README.md", "mine");
  EXPECT_THROW(reproduce(small(directory, {"sie_noisy"})), InvalidInput);
  EXPECT_EQ(contents(page), "mine");
  fs::remove(page);
  const std::string config = directory.write("out/sie_noisy.toml", "title = \"mine\"\n");
  EXPECT_THROW(reproduce(small(directory, {"sie_noisy"})), InvalidInput);
  EXPECT_EQ(contents(config), "title = \"mine\"\n");
}

TEST(Reproduce, StopsWhenInterrupted) {
  const TemporaryDirectory directory;
  ReproduceOptions options = small(directory, {});
  int asked = 0;
  options.run.interrupted = [&asked] { return ++asked == 7; };  // in the second fit
  EXPECT_EQ(reproduce(options).stop_reason, StopReason::interrupted);
  EXPECT_TRUE(fs::exists(directory / "out/sie_noisy/result.json"));
  EXPECT_FALSE(fs::exists(directory / "out/sie_noisy_seed_2/result.json"));
  EXPECT_FALSE(fs::exists(directory / "out/shear_noisy"));
  EXPECT_FALSE(fs::exists(directory / "out/table.csv"));
}

TEST(Reproduce, AnUnknownExperimentIsAnError) {
  const TemporaryDirectory directory;
  EXPECT_THROW(reproduce(small(directory, {"sie_quiet"})), InvalidInput);
  EXPECT_EQ(directory.n_files(), 0u);
}

TEST(Reproduce, CarriesTheExamplesAndTheReferenceNumbers) {
  const std::string examples = EINFIELD_EXAMPLES_DIR, golden = EINFIELD_GOLDEN_DIR;
  EXPECT_EQ(biggio2021::kSieNoisy, contents(examples + "/sie_noisy.toml"));
  EXPECT_EQ(biggio2021::kShearNoisy, contents(examples + "/shear_noisy.toml"));
  EXPECT_EQ(biggio2021::kSieNoiseless, contents(examples + "/sie_noiseless.toml"));
  EXPECT_EQ(biggio2021::kSieOverfit, contents(examples + "/sie_overfit.toml"));
  EXPECT_EQ(biggio2021::kReference, contents(golden + "/biggio2021_jax.csv"));
}

}  // namespace
}  // namespace einfield
