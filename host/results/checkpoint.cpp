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

namespace einfield {
namespace {

constexpr const char* kFormat = "4";
constexpr std::size_t kHistoryColumns = 8;  // before the free parameters
constexpr std::size_t kStartColumns = 7;    // likewise
constexpr std::size_t kChecksumBytes = 8;
constexpr double kMostCount = 1e9;  // of the steps and draws of a start: as many as a configuration may ask for

std::string path_in(const std::string& dir) {
  return (std::filesystem::path(dir) / "checkpoint.safetensors").string();
}

template <class Real>
const char* precision_name() {
  return sizeof(Real) == 4 ? "single" : "double";
}

/// FNV-1a, 64 bit (Fowler, Noll & Vo): any change of one byte changes it.
class Checksum {
 public:
  void add(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

template <class T>
std::string described(const std::vector<T>& values) {
  Checksum checksum;
  checksum.add(values.data(), values.size() * sizeof(T));
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(checksum.value()));
  return std::to_string(values.size()) + " values of checksum " + text;
}

/// What a resumed run must share with the run that wrote the checkpoint: key of the configuration → value, in an order
/// in which the first difference is the one to tell.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

void add_profile(Fingerprint& print, const std::string& name, const ProfileInfo& info,
                 const std::vector<double>& values, const std::vector<bool>& free,
                 const std::vector<ParameterPrior>& priors) {
  print.emplace_back(name + ".profile", info.name);
  std::string names;
  for (std::size_t i = 0; i < values.size(); ++i) {
    print.emplace_back(name + "." + info.parameters[i].name, to_text(values[i]));
    if (free[i]) names += (names.empty() ? "" : ", ") + std::string(info.parameters[i].name);
  }
  print.emplace_back(name + ".fit", "[" + names + "]");
  for (std::size_t i = 0; i < priors.size(); ++i) {
    const ParameterPrior& prior = priors[i];
    if (prior.bounded())
      print.emplace_back(name + ".bounds." + info.parameters[i].name,
                         "[" + to_text(prior.lower) + ", " + to_text(prior.upper) + "]");
    if (prior.gaussian())
      print.emplace_back(name + ".prior." + info.parameters[i].name,
                         "mean " + to_text(prior.mean) + ", sigma " + to_text(prior.sigma));
  }
}

void add_shape(Fingerprint& print, const std::string& name, const NetworkShape& shape) {
  std::string hidden;
  for (const int width : shape.hidden) hidden += (hidden.empty() ? "" : ", ") + std::to_string(width);
  const bool fourier = shape.fourier_features > 0;
  print.emplace_back(name + ".encoding", fourier ? "fourier" : "none");
  if (fourier) print.emplace_back(name + ".fourier_features", to_text(shape.fourier_features));
  print.emplace_back(name + ".hidden", "[" + hidden + "]");
  print.emplace_back(name + ".input_scale", to_text(shape.input_scale));
}

void add_lights(Fingerprint& print, const std::string& block, const std::vector<LightComponent>& lights,
                const std::vector<LightStart>& starts) {
  print.emplace_back(block, std::to_string(lights.size()) + " components");
  for (std::size_t i = 0; i < lights.size(); ++i) {
    const LightComponent& c = lights[i];
    const std::string name = block + "." + std::to_string(i);
    add_profile(print, name, light_info(c.kind), c.values, c.free, c.priors);
    if (c.kind == LightKind::sersic_ellipse) print.emplace_back(name + ".radius", name_of(c.radius));
    if (c.kind == LightKind::network) {
      add_shape(print, name, c.network);
      const NetworkConfig& start = starts.at(i).network;
      if (start.initial.empty()) {
        if (start.fourier) print.emplace_back(name + ".fourier_scale", to_text(start.fourier_scale));
        print.emplace_back(name + ".seed", to_text(start.seed));
      }
      print.emplace_back(name + ".initial", described(c.weights) + (c.weights_free ? ", free" : ", fixed"));
    }
    if (c.kind != LightKind::pixelated) continue;
    print.emplace_back(name + ".grid", std::to_string(c.grid.nx) + " x " + std::to_string(c.grid.ny) + " of " +
                                           to_text(c.grid.pixel_scale) + " arcsec around " + to_text(c.grid.center_x) +
                                           ", " + to_text(c.grid.center_y));
    print.emplace_back(name + ".pixels", described(c.pixels) + (c.pixels_free ? ", free" : ", fixed"));
  }
}

/// Of a stage that is over.
constexpr std::int64_t kEveryUpdate = std::numeric_limits<std::int64_t>::max();

/// One stage; of its schedule, all of it when the stage is over, else the learning rates that have been used.
/// @param updates  done in it; kEveryUpdate when it is over
void add_stage(Fingerprint& print, const std::string& name, const StageConfig& s, std::int64_t updates) {
  std::string free;
  for (const std::string& n : s.free) free += (free.empty() ? "" : ", ") + n;
  print.emplace_back(name + ".name", name_of(s.name));
  print.emplace_back(name + ".free", "[" + free + "]");
  // "none" and "chi2" keep nothing in mind, so one may follow the other.
  print.emplace_back(name + ".stop", keeps_last(s.stop) ? "none or chi2" : name_of(s.stop));
  if (s.name == OptimizerKind::lbfgs) {
    print.emplace_back(name + ".memory", to_text(s.memory));
    return;
  }
  if (s.name == OptimizerKind::levenberg_marquardt) return;
  if (s.clip_norm > 0) print.emplace_back(name + ".clip_norm", to_text(s.clip_norm));
  if (updates == 0) return;
  std::vector<double> rates = learning_rates(s.learning_rate, s.steps, s.warmup, s.cosine);
  // Later updates use the last rate.
  rates.resize(std::min(rates.size(), static_cast<std::size_t>(updates)));
  const bool constant = std::adjacent_find(rates.begin(), rates.end(), std::not_equal_to<>()) == rates.end();
  print.emplace_back(name + ".learning_rate", constant ? to_text(rates[0]) : described(rates));
}

/// @param state  of the snapshot: only the learning rates before it matter
template <class Real>
Fingerprint fingerprint(const Config& config, const Problem& problem, const Snapshot<Real>& state) {
  Fingerprint print;
  const Observation& o = problem.observation;
  print.emplace_back("observation.image",
                     std::to_string(o.grid.nx) + " x " + std::to_string(o.grid.ny) + ": " + described(o.image));
  print.emplace_back("observation.mask", described(o.mask));
  print.emplace_back("observation.noise", described(o.noise));
  print.emplace_back("observation.psf",
                     std::to_string(o.psf.nx) + " x " + std::to_string(o.psf.ny) + ": " + described(o.psf.values));
  if (o.psf.supersampling > 1) print.emplace_back("observation.psf_supersampling", to_text(o.psf.supersampling));
  print.emplace_back("observation.pixel_scale", to_text(o.grid.pixel_scale));
  print.emplace_back("observation.center_x", to_text(o.grid.center_x));
  print.emplace_back("observation.center_y", to_text(o.grid.center_y));
  print.emplace_back("observation.supersampling", to_text(o.grid.supersampling));

  const Model& model = problem.model;
  print.emplace_back("lens", std::to_string(model.lens.size()) + " components");
  for (std::size_t i = 0; i < model.lens.size(); ++i)
    add_profile(print, "lens." + std::to_string(i), lens_info(model.lens[i].kind), model.lens[i].values,
                model.lens[i].free, model.lens[i].priors);
  add_lights(print, "source", model.source, config.source_start);
  add_lights(print, "lens_light", model.lens_light, config.lens_light_start);

  print.emplace_back("network", model.network ? "given" : "absent");
  if (model.network) {
    add_shape(print, "network", *model.network);
    print.emplace_back("network.math", name_of(problem.network_math));
    if (config.network && config.network->initial.empty()) {
      print.emplace_back("network.ensemble", to_text(config.network->ensemble));
      if (config.network->fourier) print.emplace_back("network.fourier_scale", to_text(config.network->fourier_scale));
      print.emplace_back("network.seed", to_text(config.network->seed));
      print.emplace_back("network.last_layer", config.network->last_layer_zero ? "zero" : "random");
    }
    print.emplace_back("network.initial",
                       described(std::vector<double>(
                           problem.initial_parameters.begin(),
                           problem.initial_parameters.begin() + static_cast<std::ptrdiff_t>(model.network->size()))));
  }

  print.emplace_back("optimizer.loss", name_of(problem.loss));
  print.emplace_back("optimizer.best_of_last", to_text(config.optimizer.best_of_last));
  if (!problem.held_out.empty()) print.emplace_back("optimizer.held_out", described(problem.held_out));
  const OptimizerConfig& optimizer = config.optimizer;
  print.emplace_back("optimizer.starts", to_text(optimizer.starts));
  if (optimizer.starts > 1) print.emplace_back("optimizer.starts_seed", to_text(optimizer.starts_seed));
  print.emplace_back("optimizer.stage", to_text(static_cast<int>(optimizer.stages.size())) + " stages");
  if (optimizer.stages.empty()) add_stage(print, "optimizer", optimizer, state.stage_step);
  for (std::size_t i = 0; i < optimizer.stages.size(); ++i) {
    const int ahead = static_cast<int>(i) - state.stage;
    const std::string name = "optimizer.stage." + std::to_string(i);
    add_stage(print, name, optimizer.stages[i], ahead < 0 ? kEveryUpdate : ahead > 0 ? 0 : state.stage_step);
    if (ahead < 0) print.emplace_back(name + ".steps", to_text(optimizer.stages[i].steps));
  }
  for (const Regularization::Weight& weight : Regularization::kWeights)
    print.emplace_back(std::string("regularization.") + weight.name, to_text(problem.regularization.*weight.member));
  print.emplace_back("regularization.automatic", config.regularization.automatic ? "true" : "false");
  return print;
}

/// Throws for the first key on which the two disagree.
void compare(const Fingerprint& stored, const Fingerprint& now, const std::string& dir, const Config& config) {
  const auto value = [](const Fingerprint& print, const std::string& key) {
    const auto found =
        std::find_if(print.begin(), print.end(), [&key](const auto& entry) { return entry.first == key; });
    return found == print.end() ? std::string("nothing") : found->second;
  };
  for (const Fingerprint* print : {&now, &stored})
    for (const auto& entry : *print) {
      const std::string& key = entry.first;
      const std::string before = value(stored, key), here = value(now, key);
      EINFIELD_REQUIRE(before == here, config.at(key) + ": " + here + " contradicts the checkpoint in " + dir +
                                           ", expected " + before + " or, for a new run, --overwrite");
    }
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

/// A changed number of steps moves the states among which best_of_last chooses. Fine, unless one of them lies before
/// the checkpoint and has not been kept.
template <class Real>
void check_steps(const SafetensorsFile& file, const std::string& dir, const Config& config, const Snapshot<Real>& s) {
  const OptimizerConfig& o = config.optimizer;
  const auto stage = static_cast<std::size_t>(s.stage);
  const std::string key = o.stages.empty() ? "optimizer.steps" : "optimizer.stage." + std::to_string(stage) + ".steps";
  const std::int64_t steps = o.all_stages().at(stage).steps, best = o.best_of_last;
  const std::string where = config.at(key) + ": " + std::to_string(steps);
  EINFIELD_REQUIRE(steps >= s.stage_step, where + " contradicts the checkpoint in " + dir + ", expected at least the " +
                                              std::to_string(s.stage_step) + " steps that it has behind it");
  const auto before = stored_number<std::int64_t>(file, "steps");
  if (best == 0 || !keeps_last(o.stop) || stage + 1 < o.stages.size() || steps == before) return;
  const std::int64_t first = steps - best + 1;  // the first state that counts
  const bool kept = steps > before && s.best_step - (s.step - s.stage_step) >= first;
  EINFIELD_REQUIRE(first >= s.stage_step || kept,
                   where + " with best_of_last = " + std::to_string(best) + " counts states before step " +
                       std::to_string(s.stage_step) + " that the checkpoint in " + dir + " lacks, expected " +
                       std::to_string(before) + " or at least " + std::to_string(s.stage_step + best - 1));
}

/// Numbers of a snapshot that are no vectors.
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
          {"fall_value", s.fall_value}};
}

template <class Real>
void read_numbers(const SafetensorsFile& file, const nlohmann::json& from, Snapshot<Real>& s) {
  const auto whole = [&](const char* key, auto& value) {
    if (!from.at(key).is_number_integer()) file.fail("a state that is not one");
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
  } catch (const nlohmann::json::exception&) {
    file.fail("a state that is not one");
  }
  const bool sound = s.stage >= 0 && s.stage_step >= 0 && s.stage_step <= s.step && s.evaluations >= 0 &&
                     std::isfinite(s.time_s) && s.time_s >= 0 && s.best_step >= -1 && s.best_step <= s.step &&
                     s.fall_step >= 0 && s.fall_step <= s.stage_step;
  if (!sound) file.fail("a state that no fit is ever in");
}

/// A number each, in the order of kStrengthFactors; null = the fit went wrong.
nlohmann::json json_of(const std::vector<TriedStrength>& strengths) {
  nlohmann::json values = nlohmann::json::array();
  for (const TriedStrength& tried : strengths)
    values.push_back(tried.held_out_chi2 < kInfinity ? nlohmann::json(tried.held_out_chi2) : nlohmann::json());
  return values;
}

std::vector<TriedStrength> read_strengths(const SafetensorsFile& file) {
  const nlohmann::json values = nlohmann::json::parse(file.metadata("strengths"), nullptr, false);
  if (!values.is_array() || (!values.empty() && values.size() != std::size(kStrengthFactors)))
    file.fail("strengths of the regularisation that are none");
  std::vector<TriedStrength> strengths;
  for (const nlohmann::json& value : values) {
    if (!value.is_number() && !value.is_null()) file.fail("strengths of the regularisation that are none");
    strengths.push_back({kStrengthFactors[strengths.size()], value.is_null() ? kInfinity : value.get<double>()});
  }
  return strengths;
}

/// "parameters" of the first lens, "parameters.1" of the next.
std::string tensor_name(const std::string& name, std::size_t lens) {
  return lens == 0 ? name : name + "." + std::to_string(lens);
}

/// @param most_pairs  that L-BFGS may have kept
template <class Real>
void read_vectors(SafetensorsFile& file, std::size_t lens, const ParameterLayout& layout, int most_pairs,
                  Snapshot<Real>& s) {
  const auto vector = [&](const char* name) {
    return stored_values<Real>(file, tensor_name(name, lens), layout.size());
  };
  s.parameters = vector("parameters");
  s.first_moment = vector("first_moment");
  s.second_moment = vector("second_moment");
  if (s.best_step >= 0) s.best_parameters = vector("best_parameters");
  const TensorEntry& memory = file.tensor(tensor_name("memory", lens));
  if (memory.shape.size() != 3 || memory.shape[0] > static_cast<std::size_t>(most_pairs) || memory.shape[1] != 2 ||
      memory.shape[2] != layout.size())
    file.fail("memory is " + memory.shape_text() + ", expected up to " + std::to_string(most_pairs) + " x 2 x " +
              std::to_string(layout.size()));
  const std::vector<double> pairs = file.read(memory);
  s.memory.assign(pairs.begin(), pairs.end());

  const TensorEntry& history = file.tensor(tensor_name("history", lens));
  const std::size_t columns = kHistoryColumns + layout.n_free();
  if (history.shape.size() != 2 || history.shape[1] != columns)
    file.fail("history is " + history.shape_text() + ", expected rows x " + std::to_string(columns));
  const std::vector<double> values = file.read(history);
  for (auto row = values.begin(); row != values.end(); row += static_cast<std::ptrdiff_t>(columns)) {
    if (!(row[0] >= 0 && row[0] <= static_cast<double>(s.step))) file.fail("history has a step that was not made");
    s.history.push_back({static_cast<std::int64_t>(row[0]), row[1], row[2], row[3], row[4], row[5], row[6], row[7],
                         std::vector<double>(row + kHistoryColumns, row + static_cast<std::ptrdiff_t>(columns))});
  }

  const TensorEntry& starts = file.tensor(tensor_name("starts", lens));
  const std::size_t width = kStartColumns + layout.n_free();
  if (starts.shape.size() != 2 || starts.shape[1] != width)
    file.fail("starts is " + starts.shape_text() + ", expected rows x " + std::to_string(width));
  const std::vector<double> rows = file.read(starts);
  for (auto row = rows.begin(); row != rows.end(); row += static_cast<std::ptrdiff_t>(width)) {
    if (!(row[2] >= 0 && row[2] <= kMostCount && row[3] >= 0 && row[3] <= kMostCount))
      file.fail("starts has a count that is none");
    s.starts.push_back({row[0], row[1], static_cast<std::int64_t>(row[2]), static_cast<int>(row[3]), row[4] != 0,
                        row[5] != 0, row[6] != 0,
                        std::vector<double>(row + kStartColumns, row + static_cast<std::ptrdiff_t>(width))});
  }
}

template <class Real>
void add_vectors(std::size_t lens, const ParameterLayout& layout, const Snapshot<Real>& s,
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
  tensors.push_back(TensorData::of(tensor_name("history", lens), {s.history.size(), kHistoryColumns + layout.n_free()},
                                   history.data(), history.size()));
  std::vector<double> starts;
  for (const StartRecord& start : s.starts) {
    starts.insert(starts.end(), {start.value, start.chi2_reduced, static_cast<double>(start.steps),
                                 static_cast<double>(start.redrawn), static_cast<double>(start.alive),
                                 static_cast<double>(start.finished), static_cast<double>(start.best)});
    starts.insert(starts.end(), start.free.begin(), start.free.end());
  }
  tensors.push_back(TensorData::of(tensor_name("starts", lens), {s.starts.size(), kStartColumns + layout.n_free()},
                                   starts.data(), starts.size()));
  const auto add = [&](const char* name, const std::vector<Real>& values) {
    tensors.push_back(TensorData::of(tensor_name(name, lens), {values.size()}, values.data(), values.size()));
  };
  add("parameters", s.parameters);
  add("first_moment", s.first_moment);
  add("second_moment", s.second_moment);
  if (s.best_step >= 0) add("best_parameters", s.best_parameters);
  tensors.push_back(TensorData::of(tensor_name("memory", lens),
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
  for (const nlohmann::json& state : states) read_numbers(file, state, checkpoint.snapshots.emplace_back());
  checkpoint.strengths = read_strengths(file);
  const Snapshot<Real>& first = checkpoint.snapshots.front();

  const nlohmann::json stored = nlohmann::json::parse(file.metadata("fingerprint"), nullptr, false);
  Fingerprint before;
  try {
    before = stored.get<Fingerprint>();
  } catch (const nlohmann::json::exception&) {
    file.fail("no fingerprint");
  }
  compare(before, fingerprint(config, problem, first), dir, config);
  const std::vector<StageConfig> stages = config.optimizer.all_stages();
  const ParameterLayout layout(problem.model);
  for (std::size_t lens = 0; lens < checkpoint.snapshots.size(); ++lens) {
    Snapshot<Real>& snapshot = checkpoint.snapshots[lens];
    if (snapshot.stage != first.stage || snapshot.stage >= static_cast<int>(stages.size()))
      file.fail("a state of stage " + std::to_string(snapshot.stage) + ", which is none of " +
                std::to_string(stages.size()) + " or not that of the others");
    check_steps(file, dir, config, snapshot);
    read_vectors(file, lens, layout, stages[static_cast<std::size_t>(snapshot.stage)].memory, snapshot);
  }
  return checkpoint;
}

template <class Real>
void write_checkpoint(const std::string& dir, const Config& config, const Problem& problem, const std::string& backend,
                      const std::vector<Snapshot<Real>>& snapshots, const std::vector<TriedStrength>& strengths) {
  const ParameterLayout layout(problem.model);
  const OptimizerConfig& o = config.optimizer;
  const auto stage = static_cast<std::size_t>(snapshots.at(0).stage);
  std::vector<TensorData> tensors;
  nlohmann::json states = nlohmann::json::array();
  for (std::size_t lens = 0; lens < snapshots.size(); ++lens) {
    states.push_back(numbers_of(snapshots[lens]));
    add_vectors(lens, layout, snapshots[lens], tensors);
  }
  tensors.push_back({"checksum", "U8", {kChecksumBytes}, std::string(kChecksumBytes, '\0')});

  std::string bytes =
      to_safetensors({{"checkpoint", kFormat},
                      {"precision", precision_name<Real>()},
                      {"backend", backend},
                      {"states", states.dump()},
                      {"strengths", json_of(strengths).dump()},
                      {"steps", to_text(o.all_stages().at(stage).steps)},
                      {"fingerprint", nlohmann::json(fingerprint(config, problem, snapshots[0])).dump()}},
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
                               const std::vector<Snapshot<float>>&, const std::vector<TriedStrength>&);
template void write_checkpoint(const std::string&, const Config&, const Problem&, const std::string&,
                               const std::vector<Snapshot<double>>&, const std::vector<TriedStrength>&);

}  // namespace einfield
