// The verdict on a fit: what went wrong in the past is flagged or refused, and a good fit has no flag.
#include "host/results/verdict.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "einfield/error.hpp"
#include "einfield/results.hpp"
#include "host/app/run.hpp"
#include "host/app/simulate.hpp"
#include "host/fields/model_image.hpp"
#include "host/files/fits_io.hpp"
#include "tests/small_lens.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

using nlohmann::json;

/// A mock lens in its own folder, and fits of it.
class Mock {
 public:
  struct Fit {
    json result;
    RunOutcome outcome;
    std::string log, warnings;

    bool has(const std::string& flag) const { return !text(flag).empty(); }
    std::string text(const std::string& flag) const {
      for (const json& raised : result["flags"])
        if (raised["name"] == flag) return raised["text"];
      return "";
    }
    std::set<std::string> flags() const {
      std::set<std::string> names;
      for (const json& raised : result["flags"]) names.insert(raised["name"].get<std::string>());
      return names;
    }
    std::string status() const { return result["status"]; }
    const json& sigma(const std::string& name) const { return result["uncertainties"]["sigma"][name]; }
  };

  /// @param observation  further keys of [observation]
  /// @param truth        components of the mock
  Mock(int side, const std::string& observation, const std::string& truth) : observation_(observation) {
    folder_.write("mock.toml", head() + truth + "\n[simulate]\nnx = " + std::to_string(side) +
                                   "\nny = " + std::to_string(side) + "\nnoise = 0.02\nseed = 3\n");
    simulate(read_config(folder_ / "mock.toml", {}, true), folder_ / "data.fits", false);
  }

  const TemporaryDirectory& folder() const { return folder_; }
  /// The beginning of every configuration.
  std::string head() const {
    return "[observation]\nimage = \"data.fits[IMAGE]\"\nnoise = \"data.fits[NOISE]\"\npixel_scale = 0.08\n" +
           observation_;
  }

  /// Changes the image: work(values, nx).
  template <class Work>
  void change_image(Work&& work) {
    std::vector<FitsOutput> hdus;
    for (const char* name : {"IMAGE", "NOISE", "PSF"}) {
      FitsImage image = read_fits(folder_ / "data.fits", name);
      if (name == std::string("IMAGE")) work(image.values, image.nx);
      FitsOutput& out = hdus.emplace_back();
      out.name = name;
      out.nx = image.nx;
      out.ny = image.ny;
      out.values = std::move(image.values);
      out.pixel_scale = 0.08;
    }
    std::filesystem::remove(folder_ / "data.fits");
    write_fits(folder_ / "data.fits", hdus);
  }
  /// A mask: used(x, y), pixels from the middle.
  template <class Used>
  void write_mask(int side, Used&& used) const {
    FitsOutput mask;
    mask.name = "MASK";
    mask.nx = mask.ny = side;
    mask.pixel_scale = 0.08;
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) mask.values.push_back(used(x - 0.5 * (side - 1), y - 0.5 * (side - 1)));
    write_fits(folder_ / "mask.fits", {mask});
  }

  /// @param model  components, and further tables
  Fit fit(const std::string& model, const std::vector<Override>& settings = {}, bool double_precision = false) {
    const std::string out = folder_ / ("fit" + std::to_string(++fits_));
    RunOptions options = run_options(out);
    options.double_precision = double_precision;
    std::ostringstream log, warnings;
    options.log = &log;
    options.warnings = &warnings;
    Fit fit;
    fit.outcome = run_fit(read_config(folder_.write("lens.toml", head() + model), settings, false), options);
    fit.log = log.str();
    fit.warnings = warnings.str();
    fit.result = json::parse(std::ifstream(out + "/result.json"));
    return fit;
  }

 private:
  std::string observation_;
  TemporaryDirectory folder_;
  int fits_ = 0;
};

const std::string kPsf = "psf = { fwhm = 0.15, size = 7 }\nsupersampling = 2\n";
const std::string kSie = "[[lens]]\nprofile = \"SIE\"\ntheta_E = 1.1\ne1 = 0.12\ne2 = 0.07\n";
const std::string kSource =
    "[[source]]\nprofile = \"SERSIC_ELLIPSE\"\namp = 0.3\nR_sersic = 0.25\nn_sersic = 1.0\ne1 = 0.1\ncenter_x = 0.06\n"
    "center_y = 0.03\n";
const std::string kFitSie = "fit = [\"theta_E\", \"e1\", \"e2\", \"center_x\", \"center_y\"]\n";
const std::string kFitSource =
    "fit = [\"amp\", \"R_sersic\", \"n_sersic\", \"e1\", \"e2\", \"center_x\", \"center_y\"]\n";
const std::string kLm = "[optimizer]\nname = \"levenberg_marquardt\"\n";
const std::string kFitAll = kSie + kFitSie + kSource + kFitSource;

Mock mock(int side = 48, const std::string& observation = kPsf) {
  return {side, observation, kSie + kSource};
}

Uncertainties uncertainties_of(const Problem& problem, const std::vector<double>& at) {
  ThreadPool pool(1);
  return scalar_uncertainties(problem, at, pool);
}

TEST(Verdict, AGoodFitHasNoFlag) {
  Mock lens = mock();
  for (const bool double_precision : {false, true}) {
    const Mock::Fit fit = lens.fit(kFitAll + kLm, {{"lens.0.theta_E", "1.05"}}, double_precision);
    EXPECT_EQ(fit.status(), "ok") << fit.result["flags"];
    EXPECT_TRUE(fit.result["flags"].empty());
    EXPECT_EQ(fit.outcome.status, FitStatus::ok);
    // The status is on the last line.
    EXPECT_EQ(fit.log.substr(fit.log.rfind('\n', fit.log.size() - 2) + 1), "status: ok\n");
  }
  const Mock::Fit lbfgs = lens.fit(kFitAll);
  EXPECT_EQ(lbfgs.status(), "ok") << lbfgs.result["flags"];
}

/// A sheet of κ = −0.8 in the data, which no mass makes, and the network has to fit it.
TEST(Verdict, ATotalConvergenceBelowZeroIsFlagged) {
  const std::string model = kSie + kSource + "[network]\nfourier_features = 32\n";
  const std::vector<Override> recipe{{"recipe", "\"evidence\""}};
  Mock wrong(48, kPsf, kSie + "[[lens]]\nprofile = \"CONVERGENCE\"\nkappa = -0.8\n" + kSource);
  const Mock::Fit found = wrong.fit(model, recipe);
  EXPECT_NE(found.text("negative_mass").find("the total convergence is -"), std::string::npos)
      << found.result["flags"] << found.result["uncertainty"];
  EXPECT_EQ(found.status(), "suspect");
  Mock right = mock();
  EXPECT_FALSE(right.fit(model, recipe).has("negative_mass"));
}

TEST(Verdict, ANetworkThatDoesWhatTheLensShouldIsFlagged) {
  Mock lens = mock();
  const std::string model = kSie + kSource + "[network]\nfourier_features = 32\n";
  const auto with = [&](const std::string& theta_E, const std::string& free) {
    return lens.fit(model, {{"recipe", "\"evidence\""}, {"lens.0.theta_E", theta_E}, {"lens.0.fit", free}});
  };
  const Mock::Fit wrong = with("0.9", "[\"e1\"]");  // the network has to bring the tenth that is missing
  EXPECT_NE(wrong.text("network_moves_lens").find("without the network 0.9"), std::string::npos)
      << wrong.result["flags"];
  EXPECT_FALSE(with("0.9", "[\"theta_E\", \"e1\"]").has("network_moves_lens"));
  EXPECT_FALSE(with("0.9", "[]").has("network_moves_lens"));  // as asked
}

TEST(Verdict, ASourceGridThatIsTooCoarseIsFlagged) {
  Mock lens = mock();
  const auto with = [&](int n) {
    const std::string side = std::to_string(n);
    return lens.fit(kSie + "[[source]]\nprofile = \"PIXELATED\"\nnx = " + side + "\nny = " + side +
                    "\nfit = [\"pixels\"]\n");
  };
  EXPECT_TRUE(with(14).has("source_coarse"));
  EXPECT_FALSE(with(50).has("source_coarse"));
}

TEST(Verdict, TheTableIsInTheOrderOfTheEnumerators) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < std::size(kFlags); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(kFlags[i].flag), i);
    EXPECT_NE(kFlags[i].status, FitStatus::ok);
    EXPECT_TRUE(names.insert(kFlags[i].name).second) << kFlags[i].name;
    EXPECT_EQ(meaning_of(kFlags[i]).find('{'), std::string::npos);
    EXPECT_NE(list_flags().find(kFlags[i].name), std::string::npos);
  }
  EXPECT_EQ(status_of({}), FitStatus::ok);
  EXPECT_EQ(status_of({{Flag::mask, ""}}), FitStatus::suspect);
  EXPECT_EQ(status_of({{Flag::non_finite, ""}, {Flag::mask, ""}}), FitStatus::failed);
}

TEST(Verdict, EveryWarningIsInTheResult) {
  Mock lens = mock();
  lens.change_image([](std::vector<double>& values, int) { values[5] = std::nan(""); });
  const Mock::Fit fit = lens.fit(kFitAll + kLm + "starts = 2\nmemory = 7\n", {{"lens.0.theta_E", "1.05"}});
  std::string printed;
  for (const json& warning : fit.result["warnings"])
    printed += "einfield: warning: " + warning.get<std::string>() + "\n";
  EXPECT_EQ(fit.warnings, printed);
  EXPECT_NE(printed.find("optimizer.memory: has no effect with levenberg_marquardt, it is for lbfgs"),
            std::string::npos);
  EXPECT_NE(printed.find("1 pixel not finite, masked"), std::string::npos);
}

// ---- the optimizer -----------------------------------------------------------------------------------------

TEST(Verdict, ALineSearchThatFailsAtOnceIsNoConvergence) {
  // As where a cusp of light lies on a ray: L-BFGS says that it has converged, after no step.
  Mock lens = mock();
  lens.folder().write("lens.toml", lens.head() + kFitAll);
  Config config =
      read_config(lens.folder() / "lens.toml", {{"optimizer.steps", "0"}, {"lens.0.theta_E", "1.0"}}, false);
  SmallFit<float> fit(config);
  fit.result.stop_reason = StopReason::converged;
  config.optimizer.steps = 100;
  ThreadPool pool(1);
  const Assessment assessed = assess<float>(config, fit.loaded, fit.results(), fit.images(), pool, uncertainties_of);
  std::set<Flag> flags;
  for (const RaisedFlag& raised : assessed.flags) flags.insert(raised.flag);
  EXPECT_EQ(flags.count(Flag::no_steps), 1u);
  EXPECT_EQ(flags.count(Flag::line_search_failed), 1u);
  EXPECT_EQ(assessed.status(), FitStatus::suspect);
}

TEST(Verdict, StepsThatDidNotSuffice) {
  Mock lens = mock();
  const Mock::Fit few = lens.fit(kFitAll + kLm, {{"optimizer.steps", "2"}, {"lens.0.theta_E", "1.0"}});
  EXPECT_TRUE(few.has("step_limit"));
  EXPECT_TRUE(few.has("not_converged")) << few.result["flags"];
  const std::string adam = "[optimizer]\nname = \"adam\"\nstop = \"none\"\nsteps = 30\nlearning_rate = 1e-2\n";
  EXPECT_TRUE(lens.fit(kFitAll + adam, {{"lens.0.theta_E", "0.8"}}).has("not_converged"));
  // Adam without a rule makes all its steps: that alone is no flag.
  EXPECT_FALSE(lens.fit(kFitAll + adam).has("step_limit"));
  // A model that is only evaluated has not been fitted.
  const Mock::Fit evaluated = lens.fit(kFitAll + kLm, {{"optimizer.steps", "0"}});
  EXPECT_FALSE(evaluated.has("step_limit") || evaluated.has("no_steps"));
}

TEST(Verdict, StartsThatDisagreeAndASingleOne) {
  Mock lens = mock();
  // A model that cannot fit, whatever the start: only several starts could tell.
  const Mock::Fit wrong = lens.fit(kSie + "fit = [\"theta_E\"]\n" + kSource + kFitSource + kLm, {{"lens.0.e1", "0.4"}});
  EXPECT_GT(wrong.result["metrics"]["chi2_reduced"].get<double>(), 1.3);
  EXPECT_TRUE(wrong.has("one_start"));
  const Mock::Fit many = lens.fit(kFitAll + kLm + "starts = 6\n", {{"lens.0.theta_E", "1.05"}});
  const json& starts = many.result["starts"];
  EXPECT_EQ(many.has("starts_disagree"), starts["reached_best"].get<int>() < 2);
  EXPECT_FALSE(many.has("one_start"));
}

// ---- degenerate parameters -----------------------------------------------------------------------------------

TEST(Verdict, AMassSheetIsNotDetermined) {
  Mock lens = mock();
  const Mock::Fit fit =
      lens.fit(kFitAll +
               "[[lens]]\nprofile = \"SHEAR\"\ngamma1 = 0.01\ngamma2 = 0.0\nfit = [\"gamma1\", \"gamma2\"]\n"
               "[[lens]]\nprofile = \"CONVERGENCE\"\nkappa = 0.0\nfit = [\"kappa\"]\n" +
               kLm);
  for (const char* name : {"lens.0.theta_E", "lens.2.kappa", "source.0.R_sersic"}) {
    EXPECT_TRUE(fit.sigma(name).is_null()) << name << " " << fit.sigma(name);
  }
  for (const char* name : {"lens.0.e1", "source.0.amp", "source.0.n_sersic", "lens.0.center_x"})
    EXPECT_TRUE(fit.sigma(name).is_number()) << name;
  EXPECT_EQ(fit.text("not_determined").rfind("the mass-sheet degeneracy: ", 0), 0u) << fit.text("not_determined");
  ASSERT_EQ(fit.result["uncertainties"]["not_determined"].size(), 1u);
  // κ → 1 − λ (1 − κ), θ_E → λ θ_E: both scale by the same factor.
  const json& changes = fit.result["uncertainties"]["not_determined"][0]["changes"];
  const double kappa = fit.result["parameters"]["lens.2.kappa"], theta_E = fit.result["parameters"]["lens.0.theta_E"];
  EXPECT_NEAR(changes["lens.0.theta_E"].get<double>() / changes["lens.2.kappa"].get<double>(), -theta_E / (1 - kappa),
              1e-4);
}

TEST(Verdict, TheOriginOfAShearIsNotDetermined) {
  Mock lens = mock();
  const Mock::Fit fit = lens.fit(kFitAll +
                                 "[[lens]]\nprofile = \"SHEAR\"\ngamma1 = 0.03\ngamma2 = 0.01\n"
                                 "fit = [\"gamma1\", \"gamma2\", \"ra_0\", \"dec_0\"]\n" +
                                 kLm);
  for (const char* name : {"lens.1.ra_0", "lens.1.dec_0", "source.0.center_x", "source.0.center_y"})
    EXPECT_TRUE(fit.sigma(name).is_null()) << name;
  for (const char* name : {"lens.0.theta_E", "source.0.R_sersic", "lens.0.center_x"})
    EXPECT_TRUE(fit.sigma(name).is_number()) << name;
  EXPECT_NE(fit.text("not_determined").find("the origin of a shear"), std::string::npos) << fit.text("not_determined");
}

TEST(Verdict, OfTwoShearsOnlyTheSumIsDetermined) {
  Mock lens = mock();
  const std::string shear =
      "[[lens]]\nprofile = \"SHEAR\"\ngamma1 = 0.02\ngamma2 = 0.01\nfit = [\"gamma1\", \"gamma2\"]\n";
  const Mock::Fit fit = lens.fit(kFitAll + shear + shear + kLm);
  const json& free = fit.result["uncertainties"]["not_determined"];
  ASSERT_EQ(free.size(), 2u);
  for (const json& direction : free) {
    EXPECT_EQ(direction["text"].get<std::string>().rfind("only the sum of the shears is determined: ", 0), 0u);
    ASSERT_EQ(direction["changes"].size(), 2u);
    double sum = 0;
    for (const json& change : direction["changes"]) sum += change.get<double>();
    EXPECT_NEAR(sum, 0, 1e-6);
  }
}

// ---- numbers --------------------------------------------------------------------------------------------------

TEST(Verdict, FewerPixelsThanParametersFail) {
  Mock lens = mock();
  const Mock::Fit fit = lens.fit("region = [{ shape = \"circle\", radius = 0.07 }]\n" + kFitAll + kLm);
  EXPECT_EQ(fit.status(), "failed") << fit.result["flags"];
  EXPECT_EQ(fit.outcome.status, FitStatus::failed);
  EXPECT_FALSE(fit.outcome.message.empty());
}

TEST(Verdict, ANonFiniteChi2Fails) {
  const SmallLens lens;
  SmallFit<float> fit(lens.config());
  fit.result.final_state.chi2_reduced = INFINITY;
  ThreadPool pool(1);
  const Assessment assessed =
      assess<float>(lens.config(), fit.loaded, fit.results(), fit.images(), pool, uncertainties_of);
  EXPECT_EQ(assessed.status(), FitStatus::failed);
  ASSERT_FALSE(assessed.flags.empty());
  EXPECT_EQ(assessed.flags.back().flag, Flag::non_finite);
}

TEST(Verdict, AnImageInPhysicalUnitsIsRightOrFailed) {
  Mock lens = mock();
  lens.change_image([](std::vector<double>& values, int) {
    for (double& v : values) v *= 1e-22;
  });
  for (const bool double_precision : {false, true}) {
    const Mock::Fit fit =
        lens.fit(kFitAll + kLm, {{"observation.noise", "2e-24"}, {"source.0.amp", "3e-23"}, {"lens.0.theta_E", "1.05"}},
                 double_precision);
    const json& chi2 = fit.result["metrics"]["chi2_reduced"];
    if (chi2.is_null())
      EXPECT_EQ(fit.status(), "failed");
    else
      EXPECT_NEAR(chi2.get<double>(), 1, 0.2);
  }
}

TEST(Verdict, ValuesThatAreNoDataAreMaskedAndNamed) {
  for (const double value : {1e30, -9999.0}) {
    Mock lens = mock();
    lens.change_image(
        [value](std::vector<double>& values, int nx) { values[static_cast<std::size_t>(7 * nx + 11)] = value; });
    const Mock::Fit fit = lens.fit(kFitAll + kLm, {{"lens.0.theta_E", "1.05"}});
    EXPECT_NE(fit.text("sentinel_values").find("1 pixel holds a value that cannot be data, masked; the first is "),
              std::string::npos);
    EXPECT_NE(fit.text("sentinel_values").find("column 12, row 8"), std::string::npos) << fit.text("sentinel_values");
    EXPECT_NEAR(fit.result["metrics"]["chi2_reduced"].get<double>(), 1, 0.2);
    EXPECT_NEAR(fit.result["parameters"]["lens.0.theta_E"].get<double>(), 1.1, 0.01);
  }
}

// ---- rendering, PSF --------------------------------------------------------------------------------------------

TEST(Verdict, ASourceBelowThePixelScaleIsUndersampled) {
  const std::string source = "[[source]]\nprofile = \"GAUSSIAN\"\namp = 0.032\nsigma = 0.01\ncenter_x = 0.06\n";
  Mock lens(48, "psf = { fwhm = 0.15, size = 7 }\nsupersampling = 8\n", kSie + source);
  const Mock::Fit fit = lens.fit(kSie + source + "fit = [\"amp\"]\n" + kLm, {{"observation.supersampling", "1"}});
  EXPECT_NE(fit.text("undersampled").find("source.0.amp moves by"), std::string::npos) << fit.result["flags"];
  EXPECT_NE(fit.text("undersampled").find("raise observation.supersampling = 1"), std::string::npos);
}

TEST(Verdict, ACuspOfLensLightIsUndersampled) {
  const std::string light =
      "[[lens_light]]\nprofile = \"SERSIC_ELLIPSE\"\namp = 0.25\nR_sersic = 0.6\nn_sersic = 4.0\n";
  Mock lens(49, "psf = { fwhm = 0.15, size = 7 }\nsupersampling = 8\n", kSie + kSource + light);
  const Mock::Fit fit = lens.fit(kFitAll + light + kFitSource + kLm, {{"observation.supersampling", "1"}});
  EXPECT_TRUE(fit.has("undersampled")) << fit.result["flags"];
}

TEST(Verdict, ImagesOfAModelAreThoseOfTheBackend) {
  const SmallLens lens;
  const SmallFit<double> fit(lens.config());
  ThreadPool pool(2);
  const Problem& problem = fit.loaded.problem;
  const ParameterLayout layout(problem.model);
  const std::vector<double> weights(fit.result.parameters.begin(),
                                    fit.result.parameters.begin() + static_cast<std::ptrdiff_t>(layout.n_network));
  const ModelImages images = model_images(with_parameters(problem.model, layout, fit.result.parameters), weights,
                                          problem.observation, 1, pool);
  // The fit computes in its own units, in which the cores of the profiles, lengths that stay, are others.
  const std::vector<double> expected = fit.images().front();
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(images.source[i] + images.lens_light[i], expected[i], 1e-8) << i;
}

TEST(Verdict, APsfOfAnotherSamplingNamesTheKeyToSet) {
  Mock lens = mock();
  const auto write_psf = [&](const std::string& key, const std::string& value) {
    FitsOutput psf;
    psf.name = "PSF";
    psf.nx = psf.ny = 3;
    psf.values = {0, 1, 0, 1, 4, 1, 0, 1, 0};
    for (double& v : psf.values) v /= 8;
    psf.cards = {{key, value}};
    write_fits(lens.folder() / "psf.fits", {psf});
  };
  const auto fit = [&](const std::vector<Override>& more = {}) {
    std::vector<Override> settings = {{"observation.psf", "\"psf.fits\""}, {"lens.0.theta_E", "1.05"}};
    settings.insert(settings.end(), more.begin(), more.end());
    return lens.fit(kFitAll + kLm, settings);
  };
  const auto complaint = [&](const std::vector<Override>& more = {}) {
    try {
      fit(more);
    } catch (const InvalidInput& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const auto& [key, value] : {std::pair("PIXELSCL", "0.02"), {"OVERSAMP", "4"}}) {
    write_psf(key, value);
    EXPECT_NE(complaint().find("set observation.psf_supersampling = 4 and observation.supersampling"),
              std::string::npos)
        << complaint();
    EXPECT_EQ(complaint({{"observation.psf_supersampling", "4"}, {"observation.supersampling", "4"}}), "");
  }
  write_psf("PIXELSCL", "0.0808");  // nominal, a percent off
  EXPECT_TRUE(fit().has("psf_sampling"));
  write_psf("PIXELSCL", "0.08");
  EXPECT_FALSE(fit().has("psf_sampling"));
}

// ---- physics, residuals, masks -----------------------------------------------------------------------------------

TEST(Verdict, ImplausibleModels) {
  Mock lens = mock();
  const std::string shear =
      "[[lens]]\nprofile = \"SHEAR\"\ngamma1 = 0.33\ngamma2 = 0.0\nfit = [\"gamma1\", \"gamma2\"]\n";
  const std::vector<Override> unmoved = {{"optimizer.steps", "0"}};
  EXPECT_TRUE(lens.fit(kFitAll + shear + kLm, unmoved).has("shear_implausible"));
  // What the user has fixed is the user's.
  EXPECT_FALSE(lens.fit(kFitAll + shear.substr(0, shear.find("fit")) + kLm, unmoved).has("shear_implausible"));
  const auto flags = [&](const std::string& key, const std::string& value) {
    std::vector<Override> settings = unmoved;
    settings.push_back({key, value});
    return lens
        .fit(
            kFitAll + "[[lens_light]]\nprofile = \"SERSIC_ELLIPSE\"\namp = 0.1\nR_sersic = 0.5\nn_sersic = 2.0\n" + kLm,
            settings)
        .flags();
  };
  EXPECT_EQ(flags("lens.0.e1", "0.6").count("axis_ratio_implausible"), 1u);
  EXPECT_EQ(flags("lens.0.e1", "0.6").count("mass_flatter_than_light"), 1u);
  EXPECT_EQ(flags("lens.0.e1", "0.1").count("mass_flatter_than_light"), 0u);
  EXPECT_EQ(flags("lens.0.center_x", "0.3").count("mass_off_light"), 1u);
  EXPECT_EQ(flags("lens.0.center_x", "0.05").count("mass_off_light"), 0u);
  EXPECT_EQ(flags("source.0.R_sersic", "1.5").count("source_implausible"), 1u);
  EXPECT_EQ(flags("source.0.center_x", "3.0").count("source_implausible"), 1u);
  EXPECT_EQ(flags("source.0.n_sersic", "0.3").count("at_bound"), 1u);
  EXPECT_EQ(flags("source.0.amp", "1e-9").count("no_arcs"), 1u);
  EXPECT_EQ(flags("source.0.amp", "1e-9").count("arcs_unexplained"), 1u);
  EXPECT_EQ(flags("lens.0.theta_E", "1.1").count("arcs_unexplained"), 0u);
}

TEST(Verdict, PriorsAndBounds) {
  Mock lens = mock();
  const std::string prior = "prior = { theta_E = { mean = 1.0, sigma = 0.01 } }\n";
  EXPECT_TRUE(lens.fit(kSie + kFitSie + prior + kSource + kFitSource + kLm).has("off_prior"));
  const std::string bounds = "bounds = { theta_E = [0.9, 1.06] }\n";
  EXPECT_TRUE(
      lens.fit(kSie + kFitSie + bounds + kSource + kFitSource + kLm, {{"lens.0.theta_E", "1.0"}}).has("at_bound"));
}

TEST(Verdict, Chi2FarFromOne) {
  Mock lens = mock();
  const auto flags = [&](const std::string& noise) {
    return lens.fit(kFitAll + kLm, {{"observation.noise", noise}, {"lens.0.theta_E", "1.05"}}).flags();
  };
  EXPECT_EQ(flags("0.02"), std::set<std::string>{});
  EXPECT_EQ(flags("0.01").count("chi2_high"), 1u);
  EXPECT_EQ(flags("0.08").count("chi2_low"), 1u);
  // Without noise in the image, χ² is a forecast where the truth says so; else the noise map may be far too large.
  std::filesystem::copy_file(lens.folder() / "data.fits", lens.folder() / "truth.fits");
  lens.change_image(
      [&](std::vector<double>& values, int) { values = read_fits(lens.folder() / "data.fits", "IMAGE_TRUE").values; });
  EXPECT_EQ(flags("0.02").count("chi2_low"), 1u);
  EXPECT_FALSE(
      lens.fit(kFitAll + kLm + "[truth]\nfile = \"truth.fits\"\n", {{"lens.0.theta_E", "1.05"}}).has("chi2_low"));
}

TEST(Verdict, TheArcsFitWorseThanTheRest) {
  Mock lens = mock();
  const Mock::Fit fit = lens.fit(kSie + kSource + "fit = [\"amp\"]\n" + kLm, {{"lens.0.e1", "0.2"}});
  EXPECT_TRUE(fit.has("chi2_arcs")) << fit.result["flags"];
}

TEST(Verdict, MasksOfTheOtherPolarity) {
  Mock lens = mock();
  const auto inside = [](double x, double y) { return std::hypot(x, y) < 21; };
  lens.write_mask(48, [&](double x, double y) { return !inside(x, y); });
  const std::string with = "mask = \"mask.fits\"\n";
  const Mock::Fit wrong = lens.fit(with + kFitAll + kLm, {{"optimizer.steps", "0"}});
  EXPECT_TRUE(wrong.has("mask"));
  EXPECT_NE(wrong.text("mask_polarity").find("observation.mask_used = 0"), std::string::npos);
  std::filesystem::remove(lens.folder() / "mask.fits");
  lens.write_mask(48, inside);
  EXPECT_EQ(lens.fit(with + kFitAll + kLm, {{"optimizer.steps", "0"}}).flags(), std::set<std::string>{});
}

TEST(Verdict, APixelatedSourceThatLeavesItsGrid) {
  Mock lens = mock();
  const auto fit = [&](const std::string& scale) {
    return lens.fit(kSie + "[[source]]\nprofile = \"PIXELATED\"\nnx = 16\nny = 16\npixel_scale = " + scale +
                    "\nvalue = 0.01\nfit = [\"pixels\"]\n[optimizer]\nsteps = 60\nstop = \"none\"\n");
  };
  EXPECT_TRUE(fit("0.02").has("source_grid"));
  EXPECT_FALSE(fit("0.1").has("source_grid"));
}

// ---- other data, fixed models --------------------------------------------------------------------------------------

TEST(Verdict, MaxNoiseIsRelativeToTheMedian) {
  EXPECT_EQ(typical_noise({2000, 2000, 3000, 1e8}, {}, 1e3), 2000);
  EXPECT_EQ(typical_noise({1, 1e8, 1e8, 1e8, 1e8}, {}, 1e3), 1);  // most pixels are marked
  EXPECT_EQ(typical_noise({1, 2, 3}, {0, 1, 1}, 1e3), 3);
  EXPECT_EQ(typical_noise({0, -1, INFINITY}, {}, 1e3), 0);
  // An image in electrons.
  Mock lens = mock();
  lens.change_image([](std::vector<double>& values, int) {
    for (double& v : values) v *= 1e6;
  });
  const Mock::Fit fit =
      lens.fit(kFitAll + kLm, {{"observation.noise", "2e4"}, {"source.0.amp", "3e5"}, {"lens.0.theta_E", "1.05"}});
  EXPECT_NEAR(fit.result["metrics"]["chi2_reduced"].get<double>(), 1, 0.2);
  EXPECT_EQ(fit.status(), "ok") << fit.result["flags"];
}

TEST(Verdict, AFixedModelIsEvaluated) {
  Mock lens = mock();
  const Mock::Fit fit = lens.fit(kSie + kSource);
  EXPECT_NEAR(fit.result["metrics"]["chi2_reduced"].get<double>(), 1, 0.2);
  EXPECT_EQ(fit.status(), "ok") << fit.result["flags"];
  EXPECT_EQ(fit.result["steps"], 0);
  EXPECT_TRUE(fit.result["free"].empty());
}

TEST(Verdict, TheLibraryReadsIt) {
  Mock lens = mock();
  lens.fit(kFitAll + kLm, {{"observation.noise", "0.01"}, {"lens.0.theta_E", "1.05"}});
  const Results results = read_results(lens.folder() / "fit1");
  EXPECT_EQ(results.status, FitStatus::suspect);
  ASSERT_FALSE(results.flags.empty());
  EXPECT_EQ(results.flags.size(), results.flag_names.size());
  EXPECT_NE(std::find(results.flag_names.begin(), results.flag_names.end(), "chi2_high"), results.flag_names.end());
}

}  // namespace
}  // namespace einfield
