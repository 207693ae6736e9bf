// Checkpoints: the same bits after any interruption, no damage unnoticed, no contradiction accepted.
#include "host/results/checkpoint.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "host/files/safetensors.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

constexpr const char* kFile = "checkpoint.safetensors";

/// The message with which a configuration is refused; "" when it is accepted.
template <class Real>
std::string refusal(const SmallLens& lens, const std::vector<Override>& settings) {
  const Config config = lens.config(settings);
  try {
    read_checkpoint<Real>(lens.out(), config, load_problem(config).problem);
  } catch (const InvalidInput& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

template <class Real>
void expect_same_bits(const std::vector<Real>& a, const std::vector<Real>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_TRUE(a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Real)) == 0);
}

/// All numbers but the wall time.
std::vector<double> numbers(const HistoryRow& row) {
  std::vector<double> values = {static_cast<double>(row.step),
                                row.loss,
                                row.chi2_reduced,
                                row.regularization,
                                row.learning_rate,
                                row.gradient_norm};
  values.insert(values.end(), row.free.begin(), row.free.end());
  return values;
}

template <class Real>
void expect_same_result(const FitResult<Real>& a, const FitResult<Real>& b) {
  EXPECT_EQ(a.stop_reason, b.stop_reason);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.state_step, b.state_step);
  expect_same_bits(a.parameters, b.parameters);
  expect_same_bits(a.snapshot.parameters, b.snapshot.parameters);
  expect_same_bits(a.snapshot.first_moment, b.snapshot.first_moment);
  expect_same_bits(a.snapshot.second_moment, b.snapshot.second_moment);
  EXPECT_EQ(a.snapshot.best_step, b.snapshot.best_step);
  EXPECT_EQ(a.snapshot.best_value, b.snapshot.best_value);
  expect_same_bits(a.snapshot.best_parameters, b.snapshot.best_parameters);
  ASSERT_EQ(a.snapshot.history.size(), b.snapshot.history.size());
  for (std::size_t i = 0; i < a.snapshot.history.size(); ++i)
    expect_same_bits(numbers(a.snapshot.history[i]), numbers(b.snapshot.history[i]));
  EXPECT_EQ(a.final_state.loss, b.final_state.loss);
}

template <class Real>
class CheckpointOf : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(CheckpointOf, Precisions);

TYPED_TEST(CheckpointOf, HoldsTheSnapshotToTheBit) {
  const SmallLens lens{{"optimizer.best_of_last", "25"}};
  const Config config = lens.config();
  SmallFit<TypeParam> part(config, 11);
  Snapshot<TypeParam>& snapshot = part.snapshot;
  ASSERT_GE(snapshot.best_step, 0);
  // Numbers that text and rounding would lose.
  snapshot.time_s = 1 / 3.0;
  snapshot.best_value = 0.1 + 0.2;
  snapshot.history[1].regularization = std::nan("");
  snapshot.history[1].gradient_norm = 5e-324;
  write_checkpoint(lens.out(), config, part.loaded.problem, "cuda", std::vector{snapshot});
  const Checkpoint<TypeParam> read = read_checkpoint<TypeParam>(lens.out(), config, part.loaded.problem);
  EXPECT_EQ(read.backend, "cuda");
  EXPECT_EQ(read.snapshots.at(0).step, 11);
  EXPECT_EQ(read.snapshots.at(0).time_s, snapshot.time_s);
  EXPECT_EQ(read.snapshots.at(0).best_step, snapshot.best_step);
  EXPECT_EQ(read.snapshots.at(0).best_value, snapshot.best_value);
  expect_same_bits(read.snapshots.at(0).parameters, snapshot.parameters);
  expect_same_bits(read.snapshots.at(0).first_moment, snapshot.first_moment);
  expect_same_bits(read.snapshots.at(0).second_moment, snapshot.second_moment);
  expect_same_bits(read.snapshots.at(0).best_parameters, snapshot.best_parameters);
  ASSERT_EQ(read.snapshots.at(0).history.size(), snapshot.history.size());
  for (std::size_t i = 0; i < snapshot.history.size(); ++i) {
    expect_same_bits(numbers(read.snapshots.at(0).history[i]), numbers(snapshot.history[i]));
    EXPECT_EQ(read.snapshots.at(0).history[i].time_s, snapshot.history[i].time_s);
  }
}

TYPED_TEST(CheckpointOf, ResumedRunsEndWithTheSameBits) {
  for (const char* best : {"0", "7"}) {
    const SmallLens lens{{"optimizer.best_of_last", best}};
    const Config config = lens.config();
    const SmallFit<TypeParam> whole(config);
    // Interrupted early, at a logged step, inside the last seven, twice, at the very end.
    for (const std::vector<int>& stops : {std::vector<int>{1}, {8}, {26}, {3, 9}, {28, 1}, {30}}) {
      std::optional<Checkpoint<TypeParam>> resume;
      for (const int stop : stops) {
        const SmallFit<TypeParam> part(config, stop, resume ? &resume->snapshots[0] : nullptr, 2);
        ASSERT_EQ(part.result.stop_reason, StopReason::interrupted);
        write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
        resume = read_checkpoint<TypeParam>(lens.out(), config, part.loaded.problem);
      }
      const SmallFit<TypeParam> rest(config, 0, &resume->snapshots[0], 2);
      expect_same_result(rest.result, whole.result);
      EXPECT_GE(rest.result.time_s, resume->snapshots[0].time_s);
    }
  }
}

/// Settings that put a network in the place of the source, and the rest of its keys.
Override network_source(const std::string& more = "fit = [\"network\"]") {
  return {"source", "[{ profile = \"NETWORK\", amp = 4.0, hidden = [6, 5], " + more + " }]"};
}

TYPED_TEST(CheckpointOf, ResumedNetworkSourcesEndWithTheSameBits) {
  const SmallLens lens{network_source()};
  const Config config = lens.config();
  const SmallFit<TypeParam> whole(config), part(config, 11, nullptr, 2);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  const Checkpoint<TypeParam> resume = read_checkpoint<TypeParam>(lens.out(), config, part.loaded.problem);
  expect_same_result(SmallFit<TypeParam>(config, 0, &resume.snapshots.at(0), 2).result, whole.result);
  EXPECT_NE(whole.result.parameters.back(), static_cast<TypeParam>(whole.loaded.problem.initial_parameters.back()));

  const auto refused = [&](const std::string& more) { return refusal<TypeParam>(lens, {network_source(more)}); };
  for (const auto& [more, key] : std::vector<std::pair<std::string, std::string>>{
           {"fit = [\"network\"], input_scale = 2.0", "source.0.input_scale"},
           {"fit = [\"network\"], seed = 2", "source.0.seed"},
           {"fit = [\"network\"], encoding = \"fourier\"", "source.0.encoding"},
           {"fit = [\"network\"], center_x = 0.1", "source.0.center_x"},
           {"fit = []", "source.0.initial"},
           {"fit = [\"network\", \"amp\"]", "source.0.fit"}})
    EXPECT_NE(refused(more).find(" " + key + ": "), std::string::npos) << key << ": " << refused(more);
}

TYPED_TEST(CheckpointOf, StartsAreKeptAndTheirStageIsNotDoneTwice) {
  const SmallLens lens{{"optimizer.starts", "5"},
                       {"optimizer.steps", "9"},
                       {"optimizer.stage", "[{ name = 'levenberg_marquardt', steps = 40 }, { name = 'adam' }]"}};
  const Config config = lens.config();
  const SmallFit<TypeParam> whole(config);
  ASSERT_EQ(whole.snapshot.starts.size(), 5u);
  for (const int stop : {1, 3, 300}) {  // while the starts run, then, much later, in the other stage
    const SmallFit<TypeParam> part(config, stop, nullptr, 2);
    if (part.result.stop_reason != StopReason::interrupted) continue;
    write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
    const Checkpoint<TypeParam> resume = read_checkpoint<TypeParam>(lens.out(), config, part.loaded.problem);
    const SmallFit<TypeParam> rest(config, 0, &resume.snapshots.at(0), 2);
    expect_same_result(rest.result, whole.result);
  }
  write_checkpoint(lens.out(), config, whole.loaded.problem, "cpu", std::vector{whole.snapshot});
  const Checkpoint<TypeParam> read = read_checkpoint<TypeParam>(lens.out(), config, whole.loaded.problem);
  const auto& starts = read.snapshots.at(0).starts;
  ASSERT_EQ(starts.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) {
    const StartRecord& expected = whole.snapshot.starts[i];
    EXPECT_EQ(starts[i].value, expected.value);
    EXPECT_EQ(starts[i].steps, expected.steps);
    EXPECT_EQ(starts[i].finished, expected.finished);
    EXPECT_EQ(starts[i].best, expected.best);
    EXPECT_EQ(starts[i].free, expected.free);
  }
  const auto message = [&](const std::function<void(StartRecord&)>& spoil) {
    Snapshot<TypeParam> bad = whole.snapshot;
    spoil(bad.starts[2]);
    write_checkpoint(lens.out(), config, whole.loaded.problem, "cpu", std::vector{bad});
    return refusal<TypeParam>(lens, {});
  };
  EXPECT_EQ(message([](auto&) {}), "");
  const std::string none = lens.out() + "/" + kFile + ": starts has a count out of range";
  EXPECT_EQ(message([](auto& start) { start.redrawn = -1; }), none);
  EXPECT_EQ(message([](auto& start) { start.steps = std::int64_t(1) << 40; }), none);
  write_checkpoint(lens.out(), config, whole.loaded.problem, "cpu", std::vector{whole.snapshot});
  for (const auto& [setting, key] : std::vector<std::pair<Override, std::string>>{
           {{"optimizer.starts", "6"}, "optimizer.starts"},
           {{"optimizer.starts_seed", "2"}, "optimizer.starts_seed"},
           {{"lens.0.bounds", "{ theta_E = [0.5, 2] }"}, "lens.0.bounds.theta_E"},
           {{"lens.0.prior", "{ e1 = { mean = 0, sigma = 0.1 } }"}, "lens.0.prior.e1"}})
    EXPECT_NE(refusal<TypeParam>(lens, {setting}).find(key + ": "), std::string::npos)
        << refusal<TypeParam>(lens, {setting});
}

TYPED_TEST(CheckpointOf, FinishedRunsAreFinishedAgainOrGoOn) {
  const SmallLens lens{{"optimizer.best_of_last", "5"}};
  const SmallFit<TypeParam> whole(lens.config());
  write_checkpoint(lens.out(), lens.config(), whole.loaded.problem, "cpu", std::vector{whole.snapshot});
  const auto resumed = [&](const Config& config) {
    const Checkpoint<TypeParam> from = read_checkpoint<TypeParam>(lens.out(), config, whole.loaded.problem);
    return SmallFit<TypeParam>(config, 0, &from.snapshots[0]);
  };
  expect_same_result(resumed(lens.config()).result, whole.result);
  const Config more = lens.config({{"optimizer.steps", "41"}});
  expect_same_result(resumed(more).result, SmallFit<TypeParam>(more).result);
}

TYPED_TEST(CheckpointOf, StoppedByChi2StopsThereAgain) {
  const SmallLens lens;
  const SmallFit<TypeParam> whole(lens.config());
  const double reached = whole.snapshot.history[4].chi2_reduced;
  const Config config =
      lens.config({{"optimizer.stop", "\"chi2\""}, {"optimizer.stop_chi2", std::to_string(reached + 1e-4)}});
  const SmallFit<TypeParam> stopped(config);
  ASSERT_EQ(stopped.result.stop_reason, StopReason::chi2);
  ASSERT_LT(stopped.result.steps, 30);
  write_checkpoint(lens.out(), config, stopped.loaded.problem, "cpu", std::vector{stopped.snapshot});
  const Checkpoint<TypeParam> from = read_checkpoint<TypeParam>(lens.out(), config, stopped.loaded.problem);
  expect_same_result(SmallFit<TypeParam>(config, 0, &from.snapshots[0]).result, stopped.result);
  // Without the rule the run continues as if there had never been one.
  expect_same_result(SmallFit<TypeParam>(lens.config(), 0, &from.snapshots[0]).result, whole.result);
}

TYPED_TEST(CheckpointOf, NoDamageGoesUnnoticed) {
  const SmallLens lens{{"network.hidden", "[2]"}, {"optimizer.best_of_last", "25"}};
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 9);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  const std::string path = lens.out() + "/" + kFile, name = std::string("out/") + kFile;
  const std::string intact = lens.folder().read(name);
  const auto refused_as_it_is = [&] {
    try {
      read_checkpoint<TypeParam>(lens.out(), config, part.loaded.problem);
    } catch (const InvalidInput& error) {
      return std::string(error.what()).rfind(path + ": ", 0) == 0;
    }
    return false;
  };
  const auto refused = [&](const std::string& bytes) {
    lens.folder().write(name, bytes);
    return refused_as_it_is();
  };
  const auto put = [&](std::size_t at, int value) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at)).put(static_cast<char>(value));
  };
  for (std::size_t i = 0; i < intact.size(); ++i) {
    put(i, intact[i] ^ (1 << (i % 8)));
    EXPECT_TRUE(refused_as_it_is()) << "byte " << i;
    put(i, intact[i]);
  }
  EXPECT_FALSE(refused_as_it_is());
  for (std::size_t size = 0; size < intact.size(); size += 37) EXPECT_TRUE(refused(intact.substr(0, size))) << size;
  EXPECT_TRUE(refused(intact + '\0'));
  EXPECT_TRUE(refused(intact + intact));
  EXPECT_FALSE(refused(intact));
}

TYPED_TEST(CheckpointOf, ContradictionsNameTheirKey) {
  const SmallLens lens{{"optimizer.best_of_last", "4"}};
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 20);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  EXPECT_EQ(refusal<TypeParam>(lens, {}), "");
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"observation.noise", "0.7"},
                                                        {"observation.psf.fwhm", "0.6"},
                                                        {"observation.center_x", "0.0"},
                                                        {"observation.supersampling", "1"},
                                                        {"lens.0.theta_E", "1.3"},
                                                        {"lens.0.fit", "[\"theta_E\"]"},
                                                        {"lens.1.gamma1", "0.0"},
                                                        {"source.0.n_sersic", "2.0"},
                                                        {"source.0.radius", "\"major_axis\""},
                                                        {"network.encoding", "\"fourier\""},
                                                        {"network.hidden", "[7, 6]"},
                                                        {"network.input_scale", "0.5"},
                                                        {"network.seed", "5"},
                                                        {"network.last_layer", "\"zero\""},
                                                        {"optimizer.loss", "\"mse\""},
                                                        {"optimizer.learning_rate", "1e-3"},
                                                        {"optimizer.best_of_last", "5"},
                                                        {"regularization.smoothness", "1.0"},
                                                        {"regularization.curvature", "1.0"},
                                                        {"regularization.negative_convergence", "1.0"},
                                                        {"regularization.negative_total_convergence", "1.0"},
                                                        {"regularization.weight_decay", "1.0"},
                                                        {"optimizer.steps", "19"}}) {
    const std::string message = refusal<TypeParam>(lens, {{key, value}});
    // The PSF is compared by its values, whatever they come from.
    const std::string named = key == "observation.psf.fwhm" ? "observation.psf" : key;
    const std::string place = named == key ? "--set" : lens.path() + ":7";
    EXPECT_EQ(message.rfind(place + ": " + named + ": ", 0), 0u) << key << ": " << message;
    EXPECT_NE(message.find("contradicts the checkpoint in " + lens.out()), std::string::npos) << message;
  }
  // What may differ.
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"optimizer.steps", "100"},
                                                                                   {"optimizer.stop", "\"chi2\""},
                                                                                   {"optimizer.checkpoint_every", "3"},
                                                                                   {"title", "\"other\""}})
    EXPECT_EQ(refusal<TypeParam>(lens, {{key, value}}), "") << key;
}

TYPED_TEST(CheckpointOf, OtherFourierFeaturesAreAContradiction) {
  const SmallLens lens{{"network.encoding", "\"fourier\""}};
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 5);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  EXPECT_EQ(refusal<TypeParam>(lens, {}), "");
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"network.encoding", "\"none\""}, {"network.fourier_features", "15"}, {"network.fourier_scale", "1.9"}}) {
    const std::string message = refusal<TypeParam>(lens, {{key, value}});
    EXPECT_EQ(message.rfind("--set: " + key + ": ", 0), 0u) << key << ": " << message;
    EXPECT_NE(message.find("contradicts the checkpoint in " + lens.out()), std::string::npos) << message;
  }
}

TYPED_TEST(CheckpointOf, OtherDataAreAContradiction) {
  const SmallLens lens;
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 5);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  Problem other = part.loaded.problem;
  other.observation.image[17] = std::nextafter(other.observation.image[17], 1e9);
  try {
    read_checkpoint<TypeParam>(lens.out(), config, other);
    ADD_FAILURE() << "accepted";
  } catch (const InvalidInput& error) {
    EXPECT_NE(std::string(error.what()).find("observation.image"), std::string::npos) << error.what();
  }
  other = part.loaded.problem;
  other.observation.mask[17] = 0;
  EXPECT_THROW(read_checkpoint<TypeParam>(lens.out(), config, other), InvalidInput);
  other = part.loaded.problem;
  other.model.lens[1] = {LensKind::convergence, {0.1, 0, 0}, {false, false, false}};
  EXPECT_THROW(read_checkpoint<TypeParam>(lens.out(), config, other), InvalidInput);
  other = part.loaded.problem;
  other.model.lens.pop_back();
  EXPECT_THROW(read_checkpoint<TypeParam>(lens.out(), config, other), InvalidInput);
  other = part.loaded.problem;
  other.initial_parameters[3] += 1;
  EXPECT_THROW(read_checkpoint<TypeParam>(lens.out(), config, other), InvalidInput);
}

TYPED_TEST(CheckpointOf, LearningRatesThatHaveBeenUsedMustAgree) {
  const SmallLens lens{{"optimizer.warmup", "4"}};
  const SmallFit<TypeParam> part(lens.config(), 6);
  write_checkpoint(lens.out(), lens.config(), part.loaded.problem, "cpu", std::vector{part.snapshot});
  EXPECT_EQ(refusal<TypeParam>(lens, {{"optimizer.steps", "50"}}), "");
  for (const Override& other : {Override{"optimizer.warmup", "3"}, {"optimizer.schedule", "'cosine'"}})
    EXPECT_NE(refusal<TypeParam>(lens, {other}).find("optimizer.learning_rate: "), std::string::npos)
        << refusal<TypeParam>(lens, {other});
}

TYPED_TEST(CheckpointOf, StagesThatAreOverMustAgree) {
  const auto stages = [](const std::string& first, const std::string& third) {
    return Override{"optimizer.stage",
                    "[{ steps = 4" + first + " }, { name = 'lbfgs', steps = 6 }, { steps = 5" + third + " }]"};
  };
  const SmallLens lens{stages("", "")};
  const SmallFit<TypeParam> part(lens.config(), 6);
  ASSERT_EQ(part.snapshot.stage, 1);
  write_checkpoint(lens.out(), lens.config(), part.loaded.problem, "cpu", std::vector{part.snapshot});
  EXPECT_EQ(refusal<TypeParam>(lens, {stages("", ", learning_rate = 0.5")}), "");  // that one is yet to come
  for (const char* other : {", learning_rate = 0.5", ", warmup = 2", ", schedule = 'cosine'", ", clip_norm = 1.0"}) {
    const std::string message = refusal<TypeParam>(lens, {stages(other, "")});
    EXPECT_NE(message.find(": optimizer.stage.0."), std::string::npos) << other << ": " << message;
  }
}

TYPED_TEST(CheckpointOf, StatesThatNoFitIsInAreRefused) {
  const SmallLens lens{{"optimizer.stage", "[{ steps = 9 }, { name = 'lbfgs', steps = 6, memory = 4 }]"}};
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 12);
  const Snapshot<TypeParam> good = part.snapshot;
  ASSERT_EQ(good.stage, 1);
  const auto message = [&](const std::function<void(Snapshot<TypeParam>&)>& spoil) {
    Snapshot<TypeParam> bad = good;
    spoil(bad);
    write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{bad});
    return refusal<TypeParam>(lens, {});
  };
  EXPECT_EQ(message([](auto&) {}), "");
  const std::string path = lens.out() + "/checkpoint.safetensors: ",
                    never = path + "an impossible state, expected counts that agree with each other";
  EXPECT_EQ(message([](auto& s) { s.stage_step = -1; }), never);
  EXPECT_EQ(message([](auto& s) { s.step = s.stage_step - 1; }), never);
  EXPECT_EQ(message([](auto& s) { s.evaluations = -1; }), never);
  EXPECT_EQ(message([](auto& s) { s.time_s = -1; }), never);
  EXPECT_EQ(message([](auto& s) {
              s.best_step = s.step + 1;
              s.best_parameters = s.parameters;
            }),
            never);
  EXPECT_EQ(message([](auto& s) { s.fall_step = s.stage_step + 1; }), never);
  for (const int offset : {1, -1000})
    EXPECT_EQ(message([offset](auto& s) { s.history.back().step = s.step + offset; }),
              path + "history has a step after that of the state");
  EXPECT_EQ(
      message([](auto& s) { s.memory.resize(5 * 2 * s.parameters.size(), 1); }).rfind(path + "memory is 5 x 2 x ", 0),
      0u);
}

TYPED_TEST(CheckpointOf, StepsThatMoveTheLastOnesPastTheCheckpoint) {
  // Interrupted after 27 of 30 steps, of which the last seven count: from 24 on.
  const SmallLens lens{{"optimizer.best_of_last", "7"}};
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 27);
  Snapshot<TypeParam> snapshot = part.snapshot;
  ASSERT_EQ(snapshot.best_step, 26);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{snapshot});
  EXPECT_NE(refusal<TypeParam>(lens, {{"optimizer.steps", "29"}}).find("optimizer.steps"), std::string::npos);
  EXPECT_EQ(refusal<TypeParam>(lens, {{"optimizer.steps", "31"}}), "");  // 26 still counts and is still the best
  EXPECT_EQ(refusal<TypeParam>(lens, {{"optimizer.steps", "33"}}), "");  // from 27 on: nothing is lost
  const Config more = lens.config({{"optimizer.steps", "32"}});
  const Checkpoint<TypeParam> from = read_checkpoint<TypeParam>(lens.out(), more, part.loaded.problem);
  expect_same_result(SmallFit<TypeParam>(more, 0, &from.snapshots[0]).result, SmallFit<TypeParam>(more).result);
  snapshot.best_step = 24;
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{snapshot});
  EXPECT_NE(refusal<TypeParam>(lens, {{"optimizer.steps", "32"}}).find("expected 30 or at least 33"),
            std::string::npos);
}

TYPED_TEST(CheckpointOf, AnotherPrecisionIsRefused) {
  using Other = std::conditional_t<std::is_same_v<TypeParam, float>, double, float>;
  const SmallLens lens;
  const Config config = lens.config();
  const SmallFit<TypeParam> part(config, 2);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  EXPECT_EQ(refusal<Other>(lens, {}).rfind("--precision: ", 0), 0u);
}

TEST(Checkpoint, MustBeThere) {
  const SmallLens lens;
  EXPECT_FALSE(has_checkpoint(lens.out()));
  EXPECT_EQ(refusal<float>(lens, {}).rfind("--resume: ", 0), 0u);
  EXPECT_FALSE(has_checkpoint(lens.folder() / "absent"));
}

/// Replaces text in the header of the checkpoint; the length of the header and the checksum (FNV-1a over all but the
/// last eight bytes) are made good.
void replace_in_header(const SmallLens& lens, const std::string& text, const std::string& by) {
  std::string bytes = lens.folder().read(std::string("out/") + kFile);
  const std::size_t at = bytes.find(text);
  ASSERT_NE(at, std::string::npos) << text;
  bytes.replace(at, text.size(), by);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  length += by.size() - text.size();
  std::memcpy(bytes.data(), &length, sizeof length);
  std::uint64_t checksum = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i + 8 < bytes.size(); ++i)
    checksum = (checksum ^ static_cast<unsigned char>(bytes[i])) * 0x100000001b3u;
  std::memcpy(bytes.data() + bytes.size() - 8, &checksum, 8);
  lens.folder().write(std::string("out/") + kFile, bytes);
}

TEST(Checkpoint, NumbersThatNoIntegerHoldsAreRefused) {
  const SmallLens lens;
  const Config config = lens.config();
  const SmallFit<float> part(config, 2);
  for (const char* key : {"step", "stage", "stage_step", "evaluations", "best_step", "fall_step"})
    for (const char* value : {"1e300", "-1e300", "0.5", "null", "[]"}) {
      write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
      const std::string name = std::string("\\\"") + key + "\\\":";
      replace_in_header(lens, name, name + value + ",\\\"_\\\":");
      EXPECT_EQ(refusal<float>(lens, {}),
                lens.out() + "/" + kFile + ": a malformed state, expected the numbers of a snapshot")
          << key << value;
    }
}

TEST(Checkpoint, AnotherFormatIsRefused) {
  const SmallLens lens;
  const Config config = lens.config();
  const SmallFit<float> part(config, 2);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  replace_in_header(lens, "\"checkpoint\":\"7\"", "\"checkpoint\":\"1\"");
  EXPECT_NE(refusal<float>(lens, {}).find("format 1, expected 7"), std::string::npos) << refusal<float>(lens, {});
}

TEST(Checkpoint, AnEarlierOneSurvivesAFailure) {
  const SmallLens lens;
  const Config config = lens.config();
  const SmallFit<float> part(config, 2);
  EXPECT_THROW(
      write_checkpoint(lens.folder() / "absent", config, part.loaded.problem, "cpu", std::vector{part.snapshot}),
      IoError);
  write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{part.snapshot});
  Snapshot<float> broken = part.snapshot;
  broken.history[0].free.clear();
  EXPECT_THROW(write_checkpoint(lens.out(), config, part.loaded.problem, "cpu", std::vector{broken}), InvalidInput);
  EXPECT_EQ(refusal<float>(lens, {}), "");
}

}  // namespace
}  // namespace einfield
