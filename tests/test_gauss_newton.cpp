// Descents of Gauss–Newton and what a run makes of them: lower than L-BFGS, the same bits for any number of threads and
// after an interruption, evidence and weights in the results, what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "host/app/run.hpp"
#include "host/files/fits_io.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/model/source_grids.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

using nlohmann::json;

/// A source of pixels and a linear readout for the small lens.
std::initializer_list<Override> joint_fit() {
  static const std::initializer_list<Override> settings = {
      {"recipe", "\"default\""},
      {"lens.0.fit", "[]"},
      {"source.0.profile", "\"PIXELATED\""},
      {"source.0.nx", "12"},
      {"source.0.ny", "11"},
      {"source.0.pixel_scale", "0.25"},
      {"source.0.fit", "[\"pixels\"]"},
      {"network.hidden", "[]"},
      {"network.encoding", "\"fourier\""},
      {"network.fourier_features", "10"},
      {"network.ensemble", "1"},
      {"optimizer.name", "\"gauss_newton\""},
      {"optimizer.stop", "\"none\""},
      {"optimizer.steps", "100"},
      {"observation.noise", "5.0"},  // what so coarse a source can fit
      {"regularization.negative_convergence", "0"},
      {"regularization.negative_total_convergence", "0"},
      {"regularization.weight_decay", "1e-3"},
      {"regularization.source_curvature", "0.5"}};
  return settings;
}

std::vector<Override> automatic() {
  return {{"regularization.automatic", "true"}};
}

/// With a prior that follows the source, too.
std::vector<Override> adaptive() {
  return {{"regularization.automatic", "true"}, {"regularization.source_contrast", "10"}};
}

class JointLens {
 public:
  explicit JointLens(const std::vector<Override>& more = {}) {
    for (const Override& setting : joint_fit()) settings_.push_back(setting);
    settings_.insert(settings_.end(), more.begin(), more.end());
  }
  Config config(const std::vector<Override>& more = {}) const {
    // The Sérsic source of the file gives way to pixels.
    std::ifstream in(lens_.path());
    std::string text{std::istreambuf_iterator<char>(in), {}};
    const std::size_t begin = text.find("[[source]]"), end = text.find("[network]");
    text.replace(begin, end - begin, "[[source]]\nprofile = \"PIXELATED\"\n");
    std::ofstream(lens_.folder() / "joint.toml") << text;
    std::vector<Override> all = settings_;
    for (const Override& setting : more) {
      std::erase_if(all, [&](const Override& earlier) { return earlier.key == setting.key; });
      all.push_back(setting);
    }
    return read_config(lens_.folder() / "joint.toml", all, false);
  }
  std::string out(const std::string& name = "out") const { return lens_.folder() / name; }
  json result(const std::string& name = "out") const {
    std::ifstream in(out(name) + "/result.json");
    return json::parse(in);
  }

 private:
  SmallLens lens_;
  std::vector<Override> settings_;
};

RunOptions quiet(const std::string& out) {
  RunOptions options = run_options(out);
  options.double_precision = true;
  return options;
}

GaussNewtonResult descend(const Config& config, int threads, std::vector<double>* values = nullptr) {
  const Problem problem = load_problem(config).problem;
  ThreadPool pool(threads);
  JointModel model(problem, {}, pool);
  return gauss_newton(model, problem.initial_parameters, problem.regularization,
                      {.steps = 40,
                       .source_contrast = config.regularization.source_contrast,
                       .choose_weights = config.regularization.automatic},
                      pool,
                      [&](const GaussNewtonRecord& r) {
                        if (values) values->push_back(r.value.total(r.weights));
                      },
                      {});
}

TEST(GaussNewton, FallsInEveryStepAndEndsBelowLbfgs) {
  const JointLens lens;
  std::vector<double> values;
  const GaussNewtonResult found = descend(lens.config(), 1, &values);
  EXPECT_TRUE(found.converged);
  ASSERT_GE(values.size(), 3u);
  for (std::size_t i = 1; i < values.size(); ++i) EXPECT_LE(values[i], values[i - 1]);

  const Config other = lens.config({{"optimizer.name", "\"lbfgs\""}, {"optimizer.steps", "400"}});
  const SmallFit<double> lbfgs(other);
  const double n = fitted_pixels(lbfgs.loaded.problem);
  const double reached = n * (lbfgs.result.final_state.loss + lbfgs.result.final_state.regularization);
  EXPECT_LT(values.back(), reached * 1.01);
  EXPECT_LT(static_cast<double>(values.size()), 0.5 * static_cast<double>(lbfgs.result.steps));
}

TEST(GaussNewton, HasTheSameBitsForAnyNumberOfThreads) {
  for (const auto& settings : {automatic(), adaptive()}) {
    const JointLens lens(settings);
    const GaussNewtonResult one = descend(lens.config(), 1), three = descend(lens.config(), 3);
    EXPECT_TRUE(one.converged);
    EXPECT_TRUE(one.x == three.x);
    ASSERT_TRUE(one.evidence && three.evidence);
    EXPECT_EQ(one.evidence->log_evidence, three.evidence->log_evidence);
    EXPECT_EQ(one.evidence->source_variance, three.evidence->source_variance);
    EXPECT_EQ(one.evidence->source_variance.empty(), settings.size() == 1);
  }
}

/// A lens of 40 × 40 pixels with a small perturber, its smooth model free and a tenth off, a source of free pixels
/// whose grid follows the rays, and the default recipe: nothing but the data, a PSF and a first guess of θ_E.
TEST(GaussNewton, FindsAPerturberFromAColdStart) {
  TemporaryDirectory folder;
  const std::string observation = R"([observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = { fwhm = 0.2, size = 7 }
pixel_scale = 0.1
supersampling = 2
region = [{ shape = "annulus", inner = 0.5, outer = 1.8 }]
)";
  const std::string mock = observation + R"([[lens]]
profile = "SIE"
theta_E = 1.2
e1 = 0.08
e2 = -0.05
[[lens]]
profile = "SHEAR"
gamma1 = 0.03
gamma2 = 0.01
[[source]]
profile = "GAUSSIAN"
amp = 4.0
sigma = 0.1
center_x = 0.05
center_y = 0.08
[[perturbation]]
profile = "SIE"
theta_E = 0.08
center_x = 1.0
center_y = -0.6
[simulate]
nx = 40
ny = 40
noise = 0.8
seed = 3
)";
  const std::string model = observation + R"([[lens]]
profile = "SIE"
theta_E = 1.1
fit = ["theta_E", "e1", "e2", "center_x", "center_y"]
[[lens]]
profile = "SHEAR"
gamma1 = 0.0
gamma2 = 0.0
fit = ["gamma1", "gamma2"]
[[source]]
profile = "PIXELATED"
nx = 20
ny = 20
fit = ["pixels"]
[network]
fourier_features = 64
)";
  simulate(read_config(folder.write("mock.toml", mock), {}, true), folder / "data.fits", false);
  const Config config = read_config(folder.write("model.toml", model), {}, false);
  RunOptions options = quiet(folder / "out");
  options.threads = 2;
  ASSERT_EQ(run_fit(config, options).stop_reason, StopReason::converged);
  std::ifstream in(folder / "out/result.json");
  const json result = json::parse(in);
  EXPECT_NEAR(result["metrics"]["chi2_reduced"].get<double>(), 1, 0.2);
  // The lens takes the part of the perturber that it can do, about half of its 0.08″.
  EXPECT_NEAR(result["parameters"]["lens.0.theta_E"].get<double>(), 1.24, 0.04);
  EXPECT_NEAR(result["parameters"]["lens.0.e1"].get<double>(), 0.08, 0.06);
  EXPECT_NEAR(result["parameters"]["lens.1.gamma1"].get<double>(), 0.03, 0.03);
  const json& peak = result["uncertainty"]["significant"]["highest"];
  EXPECT_NEAR(peak["x"].get<double>(), 1.0, 0.15) << peak;
  EXPECT_NEAR(peak["y"].get<double>(), -0.6, 0.15) << peak;
  EXPECT_GT(peak["snr"].get<double>(), 5);

  // The grid of the source has followed the lens, which began a tenth off.
  const LoadedProblem loaded = load_problem(config);
  Model fitted = loaded.problem.model;
  for (std::size_t c = 0; c < fitted.lens.size(); ++c)
    for (std::size_t k = 0; k < fitted.lens[c].values.size(); ++k)
      fitted.lens[c].values[k] =
          result["parameters"]["lens." + std::to_string(c) + "." + lens_info(fitted.lens[c].kind).parameters[k].name];
  ASSERT_TRUE(place_source_grids(fitted, loaded.problem.observation));
  const FitsImage source = read_fits(folder / "out/result.fits", "SOURCE");
  const double scale = fitted.source[0].grid.pixel_scale;
  EXPECT_NEAR(source.linear->pixel_scale, scale, 0.1 * scale);
  EXPECT_GT(std::abs(loaded.problem.model.source[0].grid.pixel_scale - source.linear->pixel_scale), 0.05 * scale);
  options.resume = true;  // there is nothing left to do
  ASSERT_EQ(run_fit(config, options).stop_reason, StopReason::converged);
  EXPECT_EQ(read_fits(folder / "out/result.fits", "SOURCE").values, source.values);
  EXPECT_EQ(read_fits(folder / "out/result.fits", "SOURCE").linear->pixel_scale, source.linear->pixel_scale);

  // The evidence without the network is that of a fit without one.
  const json& evidence = result["evidence"];
  const double without = evidence["log_evidence_without_network"];
  EXPECT_GT(evidence["log_evidence"].get<double>(), without + 5);
  const Config smooth = read_config(folder.write("smooth.toml", model.substr(0, model.find("[network]"))), {}, false);
  ASSERT_EQ(run_fit(smooth, quiet(folder / "smooth")).stop_reason, StopReason::converged);
  std::ifstream smooth_in(folder / "smooth/result.json");
  EXPECT_NEAR(json::parse(smooth_in)["evidence"]["log_evidence"].get<double>(), without, 1);
}

/// The source of this lens is compact: the evidence prefers a prior that knows where it is.
TEST(GaussNewton, EvidencePrefersAPriorThatFollowsTheSource) {
  const JointLens lens;
  const GaussNewtonResult same = descend(lens.config(automatic()), 2), adapted = descend(lens.config(adaptive()), 2);
  EXPECT_GT(adapted.evidence->log_evidence, same.evidence->log_evidence + 3);

  // The state that a fit returns has the penalty of this prior: misfit = −½ N (χ² + penalty).
  const SmallFit<double> fit(lens.config(adaptive()));
  const StepState& state = fit.result.final_state;
  EXPECT_NEAR(fitted_pixels(fit.loaded.problem) * (state.loss + state.regularization),
              -2 * fit.result.snapshot.evidence->misfit, 1e-6 * fitted_pixels(fit.loaded.problem));
}

TEST(GaussNewton, ARunReportsEvidenceAndTheWeightsOfItsFit) {
  const JointLens lens(automatic());
  ASSERT_EQ(run_fit(lens.config(), quiet(lens.out())).stop_reason, StopReason::converged);
  const json chosen = lens.result();
  const json& evidence = chosen.at("evidence");
  const double sum = evidence.at("misfit").get<double>() + evidence.at("log_prior").get<double>() +
                     evidence.at("log_posterior").get<double>() + evidence.at("constant").get<double>();
  EXPECT_NEAR(evidence.at("log_evidence").get<double>(), sum, 1e-9 * std::abs(sum));
  EXPECT_NE(evidence.at("regularization").at("source_curvature").get<double>(), 0.5);
  EXPECT_EQ(evidence.at("regularization").at("source_gradient").get<double>(), 0);  // 0 stays 0

  // A fit with these weights given ends in the same place.
  std::vector<Override> weights{{"regularization.automatic", "false"}};
  for (const char* name : {"smoothness", "curvature", "weight_decay", "source_curvature"})
    weights.push_back(
        {std::string("regularization.") + name, std::to_string(evidence.at("regularization").at(name).get<double>())});
  ASSERT_EQ(run_fit(lens.config(weights), quiet(lens.out("given"))).stop_reason, StopReason::converged);
  EXPECT_NEAR(lens.result("given").at("evidence").at("log_evidence").get<double>(), sum, 0.5);
}

TEST(GaussNewton, InterruptedAndResumedEndsWithTheSameBits) {
  const JointLens lens(adaptive());
  run_fit(lens.config(), quiet(lens.out("whole")));
  RunOptions options = quiet(lens.out("parts"));
  int asked = 0;
  options.interrupted = [&asked] { return ++asked == 3; };
  ASSERT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::interrupted);
  options.interrupted = nullptr;
  options.resume = true;
  ASSERT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::converged);
  EXPECT_EQ(lens.result("parts").at("evidence"), lens.result("whole").at("evidence"));
  EXPECT_EQ(lens.result("parts").at("metrics"), lens.result("whole").at("metrics"));
  // A run that has ended has nothing left to do.
  ASSERT_EQ(run_fit(lens.config(), options).stop_reason, StopReason::converged);
  EXPECT_EQ(lens.result("parts").at("evidence"), lens.result("whole").at("evidence"));
}

TEST(GaussNewton, RefusesByKey) {
  const JointLens lens;
  const auto message = [&](const std::vector<Override>& more) {
    try {
      lens.config(more);
    } catch (const InvalidInput& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message({}), "accepted");
  const auto refuses = [&](const std::vector<Override>& more, const std::string& key) {
    EXPECT_NE(message(more).find(key + ": "), std::string::npos) << message(more);
  };
  refuses({{"optimizer.loss", "\"mse\""}}, "optimizer.loss");
  refuses({{"optimizer.stop", "\"chi2\""}}, "optimizer.stop");
  refuses({{"regularization.weight_decay", "0"}}, "regularization.weight_decay");
  refuses({{"regularization.source_curvature", "0"}}, "regularization.source_curvature");
  refuses({{"optimizer.name", "\"lbfgs\""}, {"regularization.automatic", "true"}}, "regularization.automatic");
  refuses({{"optimizer.name", "\"lbfgs\""}, {"regularization.source_contrast", "2"}}, "regularization.source_contrast");
  refuses({{"regularization.source_contrast", "0.5"}}, "regularization.source_contrast");
}

}  // namespace
}  // namespace einfield
