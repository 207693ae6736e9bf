// `einfield batch` as a user runs it: a few tiny lenses, some of them broken, killed and asked to end at any moment.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "einfield/random.hpp"
#include "host/files/ecsv.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/fits_table.hpp"
#include "host/files/text.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

/// A column of a table by its name.
std::vector<std::string> column(const TextTable& table, const std::string& name) {
  const auto at = std::find(table.names.begin(), table.names.end(), name) - table.names.begin();
  std::vector<std::string> cells;
  for (const auto& row : table.rows) cells.push_back(row.at(static_cast<std::size_t>(at)));
  return cells;
}

class Batch : public testing::Test {
 protected:
  Batch() {
    around_.directory = folder().path().string();
    for (int i = 0; i < kLenses; ++i) {
      const std::string name = "lens" + std::to_string(i);
      simulate(
          read_config(lens_.path(),
                      {{"simulate.seed", std::to_string(i + 5)}, {"lens.0.theta_E", std::to_string(1.0 + 0.05 * i)}},
                      true),
          folder() / (name + ".fits"), false);
      good_ += name + ".fits[IMAGE]," + name + ".fits[NOISE]," + name + ".fits,,\n";
    }
    std::istringstream rows(good_);
    good_.clear();
    int i = 0;
    for (std::string row; std::getline(rows, row); ++i) good_ += "lens" + std::to_string(i) + "," + row + "\n";
    write_manifest(good_);
  }
  static constexpr int kLenses = 5;
  static constexpr const char* kColumns = "id,image,noise,truth.file,lens.0.theta_E,network.seed";

  /// The head of a manifest with its names of columns.
  static std::string head() {
    std::string text = "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n";
    std::istringstream names(kColumns);
    for (std::string name; std::getline(names, name, ',');) text += "# - {name: " + name + ", datatype: string}\n";
    return text + kColumns + "\n";
  }
  void write_manifest(const std::string& rows) const {
    std::string quoted;  // a file name is a text of TOML
    std::istringstream lines(rows);
    for (std::string line; std::getline(lines, line);) {
      std::vector<std::string> cells;
      std::istringstream stream(line);
      for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
      cells.resize(6);
      if (!cells[3].empty()) cells[3] = "\"\"\"" + cells[3] + "\"\"\"";
      for (std::size_t k = 0; k < cells.size(); ++k) quoted += (k > 0 ? "," : "") + cells[k];
      quoted += "\n";
    }
    folder().write("survey.ecsv", head() + quoted);
  }

  const TemporaryDirectory& folder() const { return lens_.folder(); }
  Outcome run(const Words& words) const { return run_binary(words, around_); }
  static Words batch(const std::string& out, Words more = {}) {
    more.insert(more.begin(), {"batch", "run", "survey.ecsv", "--template", "lens.toml", "--backend", "cpu",
                               "--threads", "2", "--out", out});
    return more;
  }
  TextTable table(const std::string& dir) const {
    const Outcome outcome = run({"batch", "collect", dir, "--out", dir + ".fits", "--overwrite"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return read_fits_table(folder() / (dir + ".fits"), "");
  }
  /// The table without the column that says how long a fit took.
  std::vector<std::vector<std::string>> timeless(const std::string& dir) const {
    TextTable t = table(dir);
    const auto at = std::find(t.names.begin(), t.names.end(), "seconds") - t.names.begin();
    EXPECT_LT(static_cast<std::size_t>(at), t.names.size());
    for (auto& row : t.rows) row.erase(row.begin() + at);
    return t.rows;
  }
  /// The survey must be refused with this one line, and nothing may be written.
  void expect_refused(const Words& words, const std::string& message) const {
    const auto before = files_below(folder().path());
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.err, "einfield: error: " + message + "\n");
    EXPECT_EQ(outcome.status, 2) << message;
    EXPECT_EQ(files_below(folder().path()), before) << message;
  }

  SmallLens lens_;
  Surroundings around_;
  std::string good_;
};

TEST_F(Batch, ALensHasTheBitsOfASingleFit) {
  const Outcome outcome = run(batch("out"));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("5 lenses: "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("5 lenses fitted here in "), std::string::npos) << outcome.out;
  const TextTable t = table("out");
  ASSERT_EQ(t.rows.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) {
    const std::string name = "lens" + std::to_string(i);
    ASSERT_EQ(run({"fit", "lens.toml", "--backend", "cpu", "--out", "single", "--overwrite", "--quiet", "--set",
                   "observation.image=\"" + name + ".fits[IMAGE]\"", "--set",
                   "observation.noise=\"" + name + ".fits[NOISE]\"", "--set", "truth.file=\"" + name + ".fits\""})
                  .status,
              0);
    const json result = json::parse(folder().read("single/result.json"));
    EXPECT_EQ(column(t, "id")[i], name);
    EXPECT_EQ(column(t, "status")[i], result["status"].get<std::string>());
    EXPECT_EQ(column(t, "chi2")[i], to_text(result["metrics"]["chi2_reduced"].get<double>()));
    for (const std::string parameter : {"lens.0.theta_E", "lens.0.e1"}) {
      EXPECT_EQ(column(t, parameter)[i], to_text(result["parameters"][parameter].get<double>()));
      EXPECT_EQ(column(t, parameter + "_err")[i], to_text(result["uncertainties"]["sigma"][parameter].get<double>()));
      const double value = result["parameters"][parameter], sigma = result["uncertainties"]["sigma"][parameter];
      const double lower = parse_number<double>(column(t, parameter + "_lower3")[i]).value(),
                   upper = parse_number<double>(column(t, parameter + "_upper3")[i]).value();
      EXPECT_LT(lower, value);
      EXPECT_GT(upper, value);
      EXPECT_NEAR((upper - lower) / (6 * sigma), 1, 0.1);  // asymmetric, in the variable of the fit
    }
    EXPECT_EQ(column(t, "einstein_radius_effective")[i], to_text(result["einstein_radius_effective"].get<double>()));
    EXPECT_EQ(column(t, "source_flux")[i], to_text(result["source_flux"].get<double>()));
    EXPECT_EQ(column(t, "steps")[i], "30");
    EXPECT_EQ(column(t, "seed")[i], "4");
    EXPECT_EQ(column(t, "pixels")[i], "166");
    std::string names;
    for (const json& flag : result["flags"])
      if (const std::string flag_name = flag["name"]; names.find(flag_name) == std::string::npos)
        names += (names.empty() ? "" : ",") + flag_name;
    std::string found = column(t, "flag_names")[i];
    std::string sorted[2] = {names, found};
    for (std::string& text : sorted) std::sort(text.begin(), text.end());
    EXPECT_EQ(sorted[0], sorted[1]);
  }
  // Collecting again changes nothing, and neither does running again.
  const std::string first = folder().read("out.fits");
  EXPECT_EQ(run(batch("out")).status, 0);
  table("out");
  EXPECT_EQ(folder().read("out.fits"), first);
  // The same numbers as text.
  EXPECT_EQ(run({"batch", "collect", "out", "--out", "out.ecsv"}).status, 0);
  EXPECT_EQ(read_ecsv(folder() / "out.ecsv").rows, t.rows);
}

/// The images and noise maps of all lenses as planes of one file.
TEST_F(Batch, PlanesOfACubeAreImages) {
  FitsOutput images{"SCI", 14, 12, kLenses, {}, -64, "", 0, 0, 0, {}}, noise = images;
  noise.name = "ERR";
  std::string rows;
  for (int i = 0; i < kLenses; ++i) {
    const std::string file = "lens" + std::to_string(i) + ".fits";
    for (const auto& [hdu, cube] : {std::pair("IMAGE", &images), {"NOISE", &noise}})
      for (const double v : read_fits(folder() / file, hdu).values) cube->values.push_back(v);
    const std::string plane = "[*,*," + std::to_string(i + 1) + "]";
    rows += "lens" + std::to_string(i) + ",\"cube.fits[SCI]" + plane + "\",\"cube.fits[ERR]" + plane + "\",\"\"\"" +
            file + "\"\"\",," + "\n";
  }
  write_fits(folder() / "cube.fits", {images, noise});
  ASSERT_EQ(run(batch("files")).status, 0);
  folder().write("survey.ecsv", head() + rows);
  const Outcome outcome = run(batch("planes"));
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(timeless("planes"), timeless("files"));
  // A single fit names them alike.
  ASSERT_EQ(run({"fit", "lens.toml", "--backend", "cpu", "--out", "single", "--quiet", "--set",
                 "observation.image=\"cube.fits[SCI][*,*,3]\"", "--set", "observation.noise=\"cube.fits[ERR][*,*,3]\"",
                 "--set", "truth.file=\"lens2.fits\""})
                .status,
            0);
  EXPECT_EQ(column(table("planes"), "chi2")[2],
            to_text(json::parse(folder().read("single/result.json"))["metrics"]["chi2_reduced"].get<double>()));
}

TEST_F(Batch, AGalleryShowsEveryLens) {
  ASSERT_EQ(run(batch("out", {"--keep", "flagged"})).status, 0);
  const Outcome outcome = run({"batch", "collect", "out", "--gallery", "gallery"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("gallery/report.html\n"), std::string::npos) << outcome.out;
  const std::string page = folder().read("gallery/report.html"), marker = "id=\"lenses\">";
  const std::size_t begin = page.find(marker) + marker.size();
  const json content = json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  ASSERT_EQ(content["lenses"].size(), 5u);
  const std::string pictures = folder().read("gallery/pictures/0000.js");
  const json chunk = json::parse(pictures.substr(pictures.find(',') + 1, pictures.rfind(')') - pictures.find(',') - 1));
  for (std::size_t i = 0; i < 5; ++i) {
    const std::string link = content["lenses"][i][3];
    EXPECT_EQ(link.empty(), content["lenses"][i][1] == "ok");
    EXPECT_TRUE(link.empty() || fs::exists(folder() / ("gallery/" + link))) << link;
    EXPECT_EQ(chunk[i][1], 14);
    EXPECT_EQ(chunk[i][2], 12);
    for (std::size_t k = 3; k < 7; ++k) EXPECT_EQ(chunk[i][k].get<std::string>().size(), 14u * 12) << k;  // with κ
    // The two masked pixels are in none of them, and data and model have one scale.
    EXPECT_EQ(std::count(chunk[i][5].get_ref<const std::string&>().begin(),
                         chunk[i][5].get_ref<const std::string&>().end(), '.'),
              2);
    EXPECT_NE(chunk[i][3], chunk[i][4]);
  }
  expect_refused({"batch", "collect", "out", "--gallery", "gallery"},
                 "--gallery: gallery/report.html exists, expected a new folder or --overwrite");
  EXPECT_EQ(run({"batch", "collect", "out", "--gallery", "gallery", "--overwrite"}).status, 0);
}

TEST_F(Batch, BrokenLensesAreFlaggedAndStopNoOther) {
  folder().write("cut.fits", folder().read("lens0.fits").substr(0, 3000));
  write_manifest("missing,none.fits,,,,\n" + good_ +
                 "cut,cut.fits,,,,\n"
                 "negative,lens0.fits[IMAGE],lens0.fits[NOISE],lens0.fits,-1,\n"
                 "table,survey.ecsv,,,,\n"
                 "other,lens0.fits[IMAGE],lens0.fits[PSF],lens0.fits,,\n");
  const Outcome outcome = run(batch("out"));
  EXPECT_EQ(outcome.status, 1);
  const TextTable t = table("out");
  ASSERT_EQ(t.rows.size(), 10u);
  const std::vector<std::string> names = column(t, "flag_names"), messages = column(t, "message");
  for (const std::size_t i : {0u, 6u, 7u, 8u, 9u}) {
    EXPECT_EQ(names[i], "bad_input") << i;
    EXPECT_EQ(column(t, "status")[i], "failed") << i;
    EXPECT_NE(messages[i], "") << i;
    EXPECT_NE(outcome.err.find("lens " + column(t, "id")[i] + " (bad_input): " + messages[i]), std::string::npos)
        << outcome.err;
  }
  EXPECT_NE(messages[0].find("none.fits: no such file"), std::string::npos);
  EXPECT_NE(messages[7].find("survey.ecsv:"), std::string::npos);
  EXPECT_NE(messages[7].find("lens.0.theta_E: out of range, found -1"), std::string::npos) << messages[7];
  for (std::size_t i = 1; i < 6; ++i) EXPECT_NE(column(t, "status")[i], "failed") << messages[i];
  // The same command again fits nothing and says the same; a repaired lens is fitted when that is asked for.
  EXPECT_EQ(run(batch("out")).status, 1);
  fs::copy(folder() / "lens1.fits", folder() / "none.fits");
  EXPECT_EQ(run(batch("out", {"--only", "missing"})).status, 1);
  const TextTable again = table("out");
  EXPECT_NE(column(again, "flag_names")[0], "bad_input") << column(again, "message")[0];
  EXPECT_EQ(column(again, "attempt")[0], "2");
  EXPECT_EQ(column(again, "attempt")[1], "1");
}

TEST_F(Batch, KilledAtAnyMomentItEndsWithTheSameTable) {
  const auto clock = [] { return std::chrono::steady_clock::now(); };
  const auto start = clock();
  ASSERT_EQ(run(batch("whole")).status, 0);
  std::chrono::duration<double> length = clock() - start;
  const auto whole = timeless("whole");
  const Philox philox{7};
  int killed = 0;
  for (int trial = 0; killed < 20 && trial < 100; ++trial) {
    RunningBinary process(batch("out", {"--quiet"}), around_);
    std::this_thread::sleep_for(philox.uniform(static_cast<std::uint64_t>(trial)) * length);
    process.send(SIGKILL);
    const Outcome outcome = process.end();
    if (outcome.status == 0) {
      EXPECT_EQ(timeless("out"), whole) << "trial " << trial;
      fs::remove_all(folder() / "out");
      length *= 0.8;
      continue;
    }
    EXPECT_EQ(outcome.signal, SIGKILL) << outcome.err;
    ++killed;
  }
  EXPECT_GE(killed, 20);
  EXPECT_EQ(run(batch("out")).status, 0);
  EXPECT_EQ(timeless("out"), whole);
  EXPECT_TRUE(fs::is_empty(folder() / "out/claims"));
  EXPECT_FALSE(fs::exists(folder() / "out/checkpoints") && !fs::is_empty(folder() / "out/checkpoints"));
}

/// Long fits, so that a signal finds one at work.
TEST_F(Batch, SignalsAndTheTimeLimitLeaveCheckpoints) {
  std::string text = folder().read("lens.toml");
  text.replace(text.find("steps = 30"), 10, "steps = 6000");
  folder().write("lens.toml", text);
  ASSERT_EQ(run(batch("whole")).status, 0);
  const auto whole = timeless("whole");
  const auto ends = [&](const Words& more, int signal_number, int status) {
    RunningBinary process(batch("out", more), around_);
    if (signal_number != 0) {
      EXPECT_TRUE(process.prints("backend: "));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      process.send(signal_number);
    }
    const Outcome outcome = process.end();
    EXPECT_EQ(outcome.status, status) << outcome.out << outcome.err;
    EXPECT_NE(outcome.out.find("interrupted; the same command continues"), std::string::npos) << outcome.out;
    EXPECT_TRUE(fs::exists(folder() / "out/checkpoints"));
    EXPECT_FALSE(fs::is_empty(folder() / "out/checkpoints"));
    EXPECT_TRUE(fs::is_empty(folder() / "out/claims"));
  };
  ends({}, SIGTERM, 75);
  ends({}, SIGINT, 130);
  ends({"--time-limit", "0.1s"}, 0, 75);
  EXPECT_EQ(run({"batch", "status", "out"}).status, 0);
  EXPECT_EQ(run(batch("out")).status, 0);
  EXPECT_EQ(timeless("out"), whole);
  EXPECT_TRUE(fs::is_empty(folder() / "out/checkpoints"));
}

TEST_F(Batch, KeepsTheResultsOfTheLensesThatAreAskedFor) {
  ASSERT_EQ(run(batch("none")).status, 0);
  const auto files = files_below(folder() / "none");
  // However many lenses: what the survey is, its manifest, the rows of a process.
  std::string names;
  for (const auto& [name, content] : files)
    names += (names.empty() ? "" : ", ") + (name.rfind("rows/", 0) == 0 ? "rows/*" : name);
  EXPECT_EQ(names, "batch.json, claims, manifest.ecsv, rows, rows/*");
  ASSERT_EQ(run(batch("all", {"--keep", "all"})).status, 0);
  for (int i = 0; i < kLenses; ++i) {
    const std::string dir = "all/lenses/lens" + std::to_string(i);
    EXPECT_TRUE(fs::exists(folder() / (dir + "/result.json")));
    EXPECT_NE(folder().read(dir + "/log.txt").find("status: "), std::string::npos);
  }
  EXPECT_EQ(timeless("all"), timeless("none"));
  ASSERT_EQ(run(batch("flagged", {"--keep", "flagged"})).status, 0);
  const TextTable t = table("flagged");
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_EQ(fs::exists(folder() / ("flagged/lenses/lens" + std::to_string(i))), column(t, "status")[i] != "ok");
}

TEST_F(Batch, PlanChecksEverythingAndWritesNothing) {
  const auto before = files_below(folder().path());
  const Words plan = {"batch", "plan", "survey.ecsv", "--template", "lens.toml", "--backend", "cpu", "--threads", "2"};
  const Outcome outcome = run(plan);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  for (const char* text : {"survey.ecsv: 5 lenses", "5 lenses of 14 x 12 pixels", "memory: at most ", "time: about ",
                           "no lens has a problem; nothing was written"})
    EXPECT_NE(outcome.out.find(text), std::string::npos) << text << "\n" << outcome.out;
  EXPECT_EQ(files_below(folder().path()), before);
  write_manifest(good_ + "missing,none.fits,,,,\n");
  const Outcome broken = run(plan);
  EXPECT_EQ(broken.status, 1);
  EXPECT_NE(broken.err.find("einfield: warning: lens missing: "), std::string::npos) << broken.err;
  EXPECT_NE(broken.out.find("1 lens has a problem and will be flagged"), std::string::npos) << broken.out;
}

TEST_F(Batch, SharesOfAnEngineAndTheStateOfASurvey) {
  Surroundings array = around_;
  array.environment = {{"SLURM_ARRAY_TASK_ID", "2"}, {"SLURM_ARRAY_TASK_MIN", "1"}, {"SLURM_ARRAY_TASK_COUNT", "2"}};
  const Outcome outcome = run_binary(batch("out"), array);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("share 1 of 2 (SLURM_ARRAY_TASK_ID)"), std::string::npos) << outcome.out;
  const Outcome status = run({"batch", "status", "out"});
  EXPECT_EQ(status.status, 0);
  EXPECT_EQ(status.out.rfind("5 lenses: ", 0), 0u) << status.out;
  EXPECT_NE(status.out.find(" 0 unfinished\n"), std::string::npos) << status.out;
}

TEST_F(Batch, WhatCannotBeASurveyIsRefusedInOneLine) {
  expect_refused({"batch"}, "arguments missing, expected einfield batch with one of plan, run, status, collect");
  expect_refused({"batch", "rum"}, "rum: no such command of einfield batch, expected run");
  expect_refused({"batch", "run"}, "arguments missing, expected einfield batch run MANIFEST");
  expect_refused({"batch", "run", "survey.ecsv"},
                 "survey.ecsv:12: template: missing, expected a configuration here or --template");
  expect_refused(
      batch("out", {"--only", "lens7"}),
      "--only: no lens lens7 in survey.ecsv, expected failed, flagged, changed or ids of lenses, separated by "
      "commas");
  expect_refused(batch("out", {"--shard", "4"}), "--shard: found 4, expected auto, or i/n with i from 0 to n");
  expect_refused(batch("out", {"--time-limit", "soon"}),
                 "--time-limit: found soon, expected a time > 0 as 90s, 55m, 2h or 1d");
  expect_refused(batch("out", {"--tempate", "x"}),
                 "--tempate: no such option of einfield batch run, expected --template");
  fs::create_directory(folder() / "other");
  folder().write("other/notes.txt", "");
  expect_refused(batch("other"), "--out: other holds no survey, found notes.txt in it, expected a new directory");
  expect_refused({"batch", "status", "."}, ".: holds no survey, expected a directory that einfield batch run has made");
  // A survey that is there is continued only by what it was made with.
  ASSERT_EQ(run(batch("out")).status, 0);
  const Outcome other = run(batch("out", {"--precision", "double"}));
  EXPECT_EQ(other.status, 2);
  EXPECT_EQ(
      other.err,
      "einfield: error: --out: out has 5 lenses finished with another row of the manifest, template or precision, "
      "the first is lens0; expected the same again, another --out, or --only changed\n");
  // Rows of another version of einfield are left alone.
  const std::string now = folder().read("out/batch.json");
  std::string earlier = now;
  earlier.replace(earlier.find("\"format\": 2"), 11, "\"format\": 1");
  folder().write("out/batch.json", earlier);
  for (const Words& words : {batch("out"), Words{"batch", "collect", "out"}})
    expect_refused(words, "out/batch.json: format 1, expected 2 as this version of einfield writes");
  folder().write("out/batch.json", now);
  ASSERT_EQ(run({"batch", "collect", "out", "--out", "t.fits"}).status, 0);
  expect_refused({"batch", "collect", "out", "--out", "t.fits"},
                 "--out: t.fits exists, expected a new file or --overwrite");
}

/// The elements of a job array begin at the same moment, and none has made the directory before.
TEST_F(Batch, ProcessesThatStartTogetherShareTheLenses) {
  for (int repeat = 0; repeat < 5; ++repeat) {
    const std::string dir = "together" + std::to_string(repeat);
    std::vector<std::unique_ptr<RunningBinary>> processes;
    for (int i = 0; i < 4; ++i)
      processes.push_back(std::make_unique<RunningBinary>(batch(dir, {"--shard", std::to_string(i) + "/4"}), around_));
    for (const auto& process : processes) {
      const Outcome outcome = process->end();
      EXPECT_EQ(outcome.status, 0) << outcome.err;
    }
    const TextTable t = table(dir);
    for (const std::string& attempt : column(t, "attempt")) EXPECT_EQ(attempt, "1");
    std::size_t rows = 0;  // no lens was fitted twice
    for (const auto& [name, content] : files_below(folder() / (dir + "/rows")))
      rows += static_cast<std::size_t>(std::count(content.begin(), content.end(), '\n'));
    EXPECT_EQ(rows, 5u);
  }
}

/// A population: the same for the same seed, with a manifest and a template that fit it, and files that are broken as
/// its truth says.
TEST_F(Batch, SimulatedSurveys) {
  ASSERT_EQ(run({"simulate", "--survey", "240", "--out", "sim"}).status, 0);
  const TextTable truth = read_ecsv(folder() / "sim/truth.ecsv");
  ASSERT_EQ(truth.rows.size(), 240u);
  const std::vector<std::string> ids = column(truth, "id"), broken = column(truth, "broken"),
                                 perturber = column(truth, "perturber");
  const auto kinds = std::count_if(broken.begin(), broken.end(), [](const std::string& b) { return !b.empty(); });
  const auto subhaloes =
      std::count_if(perturber.begin(), perturber.end(), [](const std::string& p) { return p != "0"; });
  EXPECT_GT(kinds, 2);  // 12 on average
  EXPECT_LT(kinds, 30);
  EXPECT_GT(subhaloes, 8);  // 24 on average
  EXPECT_LT(subhaloes, 48);
  // What can be seen without a fit is a problem of the plan, and nothing else is.
  const Outcome plan = run({"batch", "plan", "sim/survey.ecsv", "--template", "sim/lens.toml", "--sample", "0"});
  std::size_t expected = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool visible = !broken[i].empty() && broken[i] != "noise_small" && broken[i] != "psf_off_center";
    expected += visible;
    EXPECT_EQ(plan.err.find("lens " + ids[i] + ": ") != std::string::npos, visible) << broken[i] << "\n" << plan.err;
  }
  EXPECT_GT(expected, 0u);
  EXPECT_EQ(plan.status, 1);
  // The same seed gives the same lenses, however many there are; another seed does not.
  ASSERT_EQ(run({"simulate", "--survey", "3", "--out", "few"}).status, 0);
  ASSERT_EQ(run({"simulate", "--survey", "3", "--seed", "2", "--out", "other"}).status, 0);
  EXPECT_EQ(folder().read("few/images/lens000002.fits"), folder().read("sim/images/lens000002.fits"));
  EXPECT_NE(folder().read("few/images/lens000002.fits"), folder().read("other/images/lens000002.fits"));
  EXPECT_EQ(run({"simulate", "--survey", "3", "--out", "few"}).status, 2);
}

TEST_F(Batch, Help) {
  for (const Words& words : {Words{"help", "batch", "run"}, Words{"batch", "run", "--help"}}) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.out.rfind("", 0), 0u);
    for (const char* text : {"Usage: einfield batch run [OPTIONS] MANIFEST", "--time-limit", "--keep"})
      EXPECT_NE(outcome.out.find(text), std::string::npos) << text << "\n" << outcome.out;
  }
  EXPECT_NE(run({"help", "batch"}).out.find("collect"), std::string::npos);
  EXPECT_NE(run({"info", "--flags"}).out.find(" 62  bad_input"), std::string::npos);
}

}  // namespace
}  // namespace einfield
