// A safetensors file whose last eight bytes are the checksum of all before them.
#include "host/results/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "einfield/core.hpp"
#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/results/fingerprint.hpp"

namespace einfield {
namespace {

constexpr const char* kFormat = "7";
constexpr std::size_t kHistoryColumns = 8;  // of a row of the history, before the free parameters
constexpr std::size_t kStartColumns = 7;    // of a row of the starts, before the free parameters
constexpr std::size_t kChecksumBytes = 8;
constexpr double kMostCount = 1e9;  // steps or draws of a start: the largest number that a configuration can ask for

std::string path_in(const std::string& dir) {
  return (std::filesystem::path(dir) / "checkpoint.safetensors").string();
}

template <class Real>
const char* precision_name() {
  return sizeof(Real) == 4 ? "single" : "double";
}

/// Checks the last eight bytes against all before them, a block at a time.
void verify_checksum(const std::string& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  EINFIELD_REQUIRE(!error && file, path + ": cannot read the checkpoint");
  EINFIELD_REQUIRE(size > kChecksumBytes, path + ": cut off after " + std::to_string(size) + " bytes");
  Checksum checksum;
  std::array<char, 1 << 16> block;
  for (std::uintmax_t left = size - kChecksumBytes; left > 0;) {
    const std::size_t n = std::min<std::uintmax_t>(left, block.size());
    EINFIELD_REQUIRE(file.read(block.data(), static_cast<std::streamsize>(n)), path + ": cannot read the checkpoint");
    checksum.add(block.data(), n);
    left -= n;
  }
  std::uint64_t stored = 0;
  EINFIELD_REQUIRE(file.read(reinterpret_cast<char*>(&stored), kChecksumBytes), path + ": cannot read the checkpoint");
  EINFIELD_REQUIRE(stored == checksum.value(), path + ": damaged, its checksum is wrong");
}

template <class Number>
Number stored_number(const SafetensorsFile& file, const std::string& key) {
  const std::optional<Number> value = parse_number<Number>(file.metadata(key));
  if (!value) file.fail(key + " is not a number");
  return *value;
}

/// The values of a tensor that must have `expected` of them.
template <class Real>
std::vector<Real> stored_values(SafetensorsFile& file, const std::string& name, std::size_t expected) {
  const TensorEntry& tensor = file.tensor(name);
  if (tensor.shape != std::vector<std::size_t>{expected})
    file.fail(name + " is " + tensor.shape_text() + ", expected " + std::to_string(expected));
  const std::vector<double> values = file.read(tensor);
  return std::vector<Real>(values.begin(), values.end());
}

/// Another number of steps moves the window that best_of_last chooses from. That is an error when the window begins
/// before the checkpoint and its best state was not kept.
template <class Real>
void check_steps(const SafetensorsFile& file, const std::string& dir, const Config& config, const Snapshot<Real>& s) {
  const OptimizerConfig& o = config.optimizer;
  const auto stage = static_cast<std::size_t>(s.stage);
  const std::string key = o.stages.empty() ? "optimizer.steps" : "optimizer.stage." + std::to_string(stage) + ".steps";
  const std::int64_t steps = o.all_stages().at(stage).steps, best = o.best_of_last;
  const std::string where = config.at(key) + ": " + std::to_string(steps);
  EINFIELD_REQUIRE(steps >= s.stage_step, where + " contradicts the checkpoint in " + dir + ", expected at least the " +
                                              std::to_string(s.stage_step) + " steps that it has done");
  const auto before = stored_number<std::int64_t>(file, "steps");
  if (best == 0 || !keeps_last(o.stop) || stage + 1 < o.stages.size() || steps == before) return;
  const std::int64_t first = steps - best + 1;  // the first state that counts
  const bool kept = steps > before && s.best_step - (s.step - s.stage_step) >= first;
  EINFIELD_REQUIRE(first >= s.stage_step || kept,
                   where + " with best_of_last = " + std::to_string(best) + " chooses from states before step " +
                       std::to_string(s.stage_step) + " that the checkpoint in " + dir + " lacks, expected " +
                       std::to_string(before) + " or at least " + std::to_string(s.stage_step + best - 1));
}

nlohmann::json json_of(const Evidence& e) {
  nlohmann::json numbers = {
      e.log_evidence, e.misfit, e.log_prior, e.log_posterior, e.constant, e.determined_source, e.determined_network};
  for (const Regularization::Weight& weight : Regularization::kWeights) numbers.push_back(e.weights.*weight.member);
  numbers.push_back(e.without_network ? nlohmann::json(*e.without_network) : nlohmann::json());
  return numbers;
}

Evidence evidence_of(const nlohmann::json& numbers) {
  Evidence e;
  std::size_t i = 0;
  for (double* const value : {&e.log_evidence, &e.misfit, &e.log_prior, &e.log_posterior, &e.constant,
                              &e.determined_source, &e.determined_network})
    numbers.at(i++).get_to(*value);
  for (const Regularization::Weight& weight : Regularization::kWeights)
    numbers.at(i++).get_to(e.weights.*weight.member);
  if (const nlohmann::json& without = numbers.at(i); !without.is_null()) e.without_network = without.get<double>();
  return e;
}

nlohmann::json json_of(const std::vector<PixelGrid>& grids) {
  nlohmann::json all = nlohmann::json::array();
  for (const PixelGrid& g : grids) all.push_back({g.nx, g.ny, g.pixel_scale, g.center_x, g.center_y});
  return all;
}

/// @param source  the components that they belong to
std::vector<PixelGrid> grids_of(const SafetensorsFile& file, const nlohmann::json& all,
                                const std::vector<LightComponent>& source) {
  std::vector<PixelGrid> grids;
  for (const nlohmann::json& g : all)
    grids.push_back(
        {g.at(0).get<int>(), g.at(1).get<int>(), g.at(2).get<double>(), g.at(3).get<double>(), g.at(4).get<double>()});
  bool fit = grids.empty() || grids.size() == source.size();
  for (std::size_t i = 0; fit && i < grids.size(); ++i)
    fit = grids[i].nx == source[i].grid.nx && grids[i].ny == source[i].grid.ny && grids[i].pixel_scale > 0 &&
          std::isfinite(grids[i].pixel_scale) && std::isfinite(grids[i].center_x) && std::isfinite(grids[i].center_y);
  if (!fit) file.fail("grids of another source, expected those of the configuration");
  return grids;
}

/// The single numbers of a snapshot.
template <class Real>
nlohmann::json numbers_of(const Snapshot<Real>& s) {
  return {{"step", s.step},
          {"stage", s.stage},
          {"stage_step", s.stage_step},
          {"stage_done", s.stage_done},
          {"evaluations", s.evaluations},
          {"time_s", s.time_s},
          {"best_step", s.best_step},
          {"best_value", s.best_value},
          {"fall_step", s.fall_step},
          {"fall_value", s.fall_value},
          {"grids", json_of(s.grids)},
          {"evidence", s.evidence ? json_of(*s.evidence) : nlohmann::json()}};
}

template <class Real>
void read_numbers(const SafetensorsFile& file, const nlohmann::json& from, const Model& model, Snapshot<Real>& s) {
  const auto whole = [&](const char* key, auto& value) {
    if (!from.at(key).is_number_integer()) file.fail("a malformed state, expected the numbers of a snapshot");
    from.at(key).get_to(value);
  };
  try {
    whole("step", s.step);
    whole("stage", s.stage);
    whole("stage_step", s.stage_step);
    from.at("stage_done").get_to(s.stage_done);
    whole("evaluations", s.evaluations);
    from.at("time_s").get_to(s.time_s);
    whole("best_step", s.best_step);
    from.at("best_value").get_to(s.best_value);
    whole("fall_step", s.fall_step);
    from.at("fall_value").get_to(s.fall_value);
    s.grids = grids_of(file, from.at("grids"), model.source);
    if (const nlohmann::json& evidence = from.at("evidence"); !evidence.is_null()) s.evidence = evidence_of(evidence);
  } catch (const nlohmann::json::exception&) {
    file.fail("a malformed state, expected the numbers of a snapshot");
  }
  const bool sound = s.stage >= 0 && s.stage_step >= 0 && s.stage_step <= s.step && s.evaluations >= 0 &&
                     std::isfinite(s.time_s) && s.time_s >= 0 && s.best_step >= -1 && s.best_step <= s.step &&
                     s.fall_step >= 0 && s.fall_step <= s.stage_step;
  if (!sound) file.fail("an impossible state, expected counts that agree with each other");
}

/// "parameters" of the first system, "parameters.1" of the next one.
std::string tensor_name(const std::string& name, std::size_t system) {
  return system == 0 ? name : name + "." + std::to_string(system);
}

/// @param most_pairs  largest number of pairs that L-BFGS keeps
template <class Real>
void read_vectors(SafetensorsFile& file, std::size_t system, const ParameterLayout& layout, int most_pairs,
                  Snapshot<Real>& s) {
  const auto vector = [&](const char* name) {
    return stored_values<Real>(file, tensor_name(name, system), layout.size());
  };
  s.parameters = vector("parameters");
  s.first_moment = vector("first_moment");
  s.second_moment = vector("second_moment");
  if (s.best_step >= 0) s.best_parameters = vector("best_parameters");
  const TensorEntry& memory = file.tensor(tensor_name("memory", system));
  if (memory.shape.size() != 3 || memory.shape[0] > static_cast<std::size_t>(most_pairs) || memory.shape[1] != 2 ||
      memory.shape[2] != layout.size())
    file.fail("memory is " + memory.shape_text() + ", expected up to " + std::to_string(most_pairs) + " x 2 x " +
              std::to_string(layout.size()));
  const std::vector<double> pairs = file.read(memory);
  s.memory.assign(pairs.begin(), pairs.end());

  if (s.evidence) {
    const TensorEntry& variance = file.tensor(tensor_name("source_variance", system));
    const std::size_t pixels = layout.free_pixels.size();
    if (variance.shape.size() != 1 || (variance.shape[0] != 0 && variance.shape[0] != pixels))
      file.fail("source_variance is " + variance.shape_text() + ", expected 0 or " + std::to_string(pixels));
    s.evidence->source_variance = file.read(variance);
    for (const double v : s.evidence->source_variance)
      if (!(v > 0 && std::isfinite(v))) file.fail("source_variance has a value that is not > 0");
  }

  const TensorEntry& history = file.tensor(tensor_name("history", system));
  const std::size_t columns = kHistoryColumns + layout.n_free();
  if (history.shape.size() != 2 || history.shape[1] != columns)
    file.fail("history is " + history.shape_text() + ", expected rows x " + std::to_string(columns));
  const std::vector<double> values = file.read(history);
  for (auto row = values.begin(); row != values.end(); row += static_cast<std::ptrdiff_t>(columns)) {
    if (!(row[0] >= 0 && row[0] <= static_cast<double>(s.step)))
      file.fail("history has a step after that of the state");
    s.history.push_back({static_cast<std::int64_t>(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7],
                         std::vector<double>(row + kHistoryColumns, row + static_cast<std::ptrdiff_t>(columns))});
  }

  const TensorEntry& starts = file.tensor(tensor_name("starts", system));
  const std::size_t width = kStartColumns + layout.n_free();
  if (starts.shape.size() != 2 || starts.shape[1] != width)
    file.fail("starts is " + starts.shape_text() + ", expected rows x " + std::to_string(width));
  const std::vector<double> rows = file.read(starts);
  for (auto row = rows.begin(); row != rows.end(); row += static_cast<std::ptrdiff_t>(width)) {
    if (!(row[2] >= 0 && row[2] <= kMostCount && row[3] >= 0 && row[3] <= kMostCount))
      file.fail("starts has a count out of range");
    s.starts.push_back({row[0], row[1], static_cast<std::int64_t>(row[2]), static_cast<int>(row[3]), row[4] != 0,
                        row[5] != 0, row[6] != 0,
                        std::vector<double>(row + kStartColumns, row + static_cast<std::ptrdiff_t>(width))});
  }
}

template <class Real>
void add_vectors(std::size_t system, const ParameterLayout& layout, const Snapshot<Real>& s,
                 std::vector<TensorData>& tensors) {
  std::vector<double> history;
  for (const HistoryRow& row : s.history) {
    EINFIELD_REQUIRE(row.free.size() == layout.n_free(), "a history row of " + std::to_string(row.free.size()) +
                                                             " free parameters, expected " +
                                                             std::to_string(layout.n_free()));
    history.insert(history.end(), {static_cast<double>(row.step), row.time_s, row.loss, row.chi2_reduced,
                                   row.held_out_chi2, row.regularization, row.learning_rate, row.gradient_norm});
    history.insert(history.end(), row.free.begin(), row.free.end());
  }
  tensors.push_back(TensorData::of(tensor_name("history", system),
                                   {s.history.size(), kHistoryColumns + layout.n_free()}, history.data(),
                                   history.size()));
  std::vector<double> starts;
  for (const StartRecord& start : s.starts) {
    starts.insert(starts.end(), {start.value, start.chi2_reduced, static_cast<double>(start.steps),
                                 static_cast<double>(start.redrawn), static_cast<double>(start.alive),
                                 static_cast<double>(start.finished), static_cast<double>(start.best)});
    starts.insert(starts.end(), start.free.begin(), start.free.end());
  }
  tensors.push_back(TensorData::of(tensor_name("starts", system), {s.starts.size(), kStartColumns + layout.n_free()},
                                   starts.data(), starts.size()));
  const auto add = [&](const char* name, const std::vector<Real>& values) {
    tensors.push_back(TensorData::of(tensor_name(name, system), {values.size()}, values.data(), values.size()));
  };
  add("parameters", s.parameters);
  add("first_moment", s.first_moment);
  add("second_moment", s.second_moment);
  if (s.best_step >= 0) add("best_parameters", s.best_parameters);
  if (s.evidence) {
    const std::vector<double>& variance = s.evidence->source_variance;
    tensors.push_back(
        TensorData::of(tensor_name("source_variance", system), {variance.size()}, variance.data(), variance.size()));
  }
  tensors.push_back(TensorData::of(tensor_name("memory", system),
                                   {s.memory.size() / (2 * layout.size()), 2, layout.size()}, s.memory.data(),
                                   s.memory.size()));
}

}  // namespace

bool has_checkpoint(const std::string& dir) {
  std::error_code error;
  return std::filesystem::exists(path_in(dir), error);
}

template <class Real>
Checkpoint<Real> read_checkpoint(const std::string& dir, const Config& config, const Problem& problem) {
  EINFIELD_REQUIRE(has_checkpoint(dir),
                   "--resume: " + dir + " holds no checkpoint, expected the directory of an earlier run");
  const std::string path = path_in(dir);
  verify_checksum(path);
  SafetensorsFile file(path);
  if (file.metadata("checkpoint") != kFormat)
    file.fail("a checkpoint of format " + file.metadata("checkpoint") + ", expected " + kFormat);
  const std::string& precision = file.metadata("precision");
  EINFIELD_REQUIRE(precision == precision_name<Real>(), std::string("--precision: ") + precision_name<Real>() +
                                                            " contradicts the checkpoint in " + dir + ", expected " +
                                                            precision);

  Checkpoint<Real> checkpoint;
  checkpoint.backend = file.metadata("backend");
  const nlohmann::json states = nlohmann::json::parse(file.metadata("states"), nullptr, false);
  if (!states.is_array() || states.empty()) file.fail("no states");
  for (const nlohmann::json& state : states)
    read_numbers(file, state, problem.model, checkpoint.snapshots.emplace_back());
  const Snapshot<Real>& first = checkpoint.snapshots.front();

  const nlohmann::json stored = nlohmann::json::parse(file.metadata("fingerprint"), nullptr, false);
  Fingerprint before;
  try {
    before = stored.get<Fingerprint>();
  } catch (const nlohmann::json::exception&) {
    file.fail("no fingerprint");
  }
  require_same(before, fingerprint(config, problem, first.stage, first.stage_step), dir, config);
  const std::vector<StageConfig> stages = config.optimizer.all_stages();
  const ParameterLayout layout(problem.model);
  for (std::size_t system = 0; system < checkpoint.snapshots.size(); ++system) {
    Snapshot<Real>& snapshot = checkpoint.snapshots[system];
    if (snapshot.stage != first.stage || snapshot.stage >= static_cast<int>(stages.size()))
      file.fail("a state of stage " + std::to_string(snapshot.stage) + ", expected the same one of " +
                std::to_string(stages.size()) + " stages for all states");
    check_steps(file, dir, config, snapshot);
    read_vectors(file, system, layout, stages[static_cast<std::size_t>(snapshot.stage)].memory, snapshot);
  }
  return checkpoint;
}

template <class Real>
void write_checkpoint(const std::string& dir, const Config& config, const Problem& problem, const std::string& backend,
                      const std::vector<Snapshot<Real>>& snapshots) {
  const ParameterLayout layout(problem.model);
  const OptimizerConfig& o = config.optimizer;
  const auto stage = static_cast<std::size_t>(snapshots.at(0).stage);
  std::vector<TensorData> tensors;
  nlohmann::json states = nlohmann::json::array();
  for (std::size_t system = 0; system < snapshots.size(); ++system) {
    states.push_back(numbers_of(snapshots[system]));
    add_vectors(system, layout, snapshots[system], tensors);
  }
  tensors.push_back({"checksum", "U8", {kChecksumBytes}, std::string(kChecksumBytes, '\0')});

  std::string bytes = to_safetensors(
      {{"checkpoint", kFormat},
       {"precision", precision_name<Real>()},
       {"backend", backend},
       {"states", states.dump()},
       {"steps", to_text(o.all_stages().at(stage).steps)},
       {"fingerprint",
        nlohmann::json(fingerprint(config, problem, snapshots[0].stage, snapshots[0].stage_step)).dump()}},
      tensors);
  Checksum checksum;
  checksum.add(bytes.data(), bytes.size() - kChecksumBytes);
  const std::uint64_t value = checksum.value();
  std::memcpy(bytes.data() + bytes.size() - kChecksumBytes, &value, kChecksumBytes);
  write_atomically(path_in(dir), bytes);
}

template Checkpoint<float> read_checkpoint(const std::string&, const Config&, const Problem&);
template Checkpoint<double> read_checkpoint(const std::string&, const Config&, const Problem&);
template void write_checkpoint(const std::string&, const Config&, const Problem&, const std::string&,
                               const std::vector<Snapshot<float>>&);
template void write_checkpoint(const std::string&, const Config&, const Problem&, const std::string&,
                               const std::vector<Snapshot<double>>&);

}  // namespace einfield
