// The search for a perturber: the map by linear response against the dense formula and finite differences, draws of its
// maximum, and the command on mocks with and without a perturber, interrupted and resumed.
#include <gtest/gtest.h>

#include <cmath>
#include <Eigen/Cholesky>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "einfield/results.hpp"
#include "host/app/detect.hpp"
#include "host/app/simulate.hpp"
#include "host/detect/detection.hpp"
#include "host/files/fits_io.hpp"
#include "host/fit/joint_posterior.hpp"
#include "host/fit/perturber_map.hpp"
#include "host/report/html.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

using nlohmann::json;

/// Free source pixels, a free lens, no network; noise independent or correlated.
Problem smooth_lens(bool correlated) {
  StepCase c;
  c.hidden = {};
  c.nx = 13;
  c.ny = 11;
  c.pixel_source = c.free_lens = true;
  c.correlated = correlated;
  c.loss = LossKind::chi2;
  c.regularization.source_curvature = 0.3;
  return make_problem(c);
}

/// A problem with the lenses of another and a fixed SIS.
Problem perturbed(const Problem& problem, double theta_E, Vec2<double> at) {
  Problem other = problem;
  other.model.lens.push_back({LensKind::sis, {theta_E, at.x, at.y}, {0, 0, 0}});
  return other;
}

TEST(PerturberMap, ResponseIsTheDerivativeOfTheResiduals) {
  for (const bool correlated : {false, true}) {
    const Problem problem = smooth_lens(correlated);
    ThreadPool pool(2);
    JointModel model(problem, {}, pool);
    const std::vector<double>& x = problem.initial_parameters;
    (void)model.linearize(x);
    const Vec2<double> at{0.9, -0.4};
    const RowMatrix response = model.response(1, [&](int, Vec2<double> theta) {
      const double unit[] = {1, at.x, at.y};
      return lens_deflection(LensKind::sis, unit, theta);
    });
    const double h = 1e-6;
    const Problem up = perturbed(problem, 3 * h, at), down = perturbed(problem, h, at);  // theta_E is positive
    JointModel model_up(up, {}, pool), model_down(down, {}, pool);
    const Eigen::VectorXd difference = (model_up.linearize(x).residual - model_down.linearize(x).residual) / (2 * h);
    EXPECT_NEAR((response.col(0) - difference).norm(), 0, 1e-4 * difference.norm()) << correlated;
  }
}

TEST(PerturberMap, IsTheDenseFormula) {
  for (const bool correlated : {false, true}) {
    const Problem problem = smooth_lens(correlated);
    ThreadPool pool(2);
    JointModel model(problem, {}, pool);
    const std::vector<double>& x = problem.initial_parameters;
    const std::vector<Vec2<double>> places = {{0.9, -0.4}, {-1.1, 0.2}, {0.1, 1.3}, {40, 40}};
    const PerturberMap map = perturber_map(model, x, problem.regularization, LensKind::sis, places, pool);
    const PerturberMap points = perturber_map(model, x, problem.regularization, LensKind::point_mass, places, pool);

    const Linearization l = model.linearize(x);
    const RowMatrix c = model.response(4, [&](int k, Vec2<double> theta) {
      const double unit[] = {1, places[static_cast<std::size_t>(k)].x, places[static_cast<std::size_t>(k)].y};
      return lens_deflection(LensKind::sis, unit, theta);
    });
    const auto pixels = static_cast<Eigen::Index>(model.pixels().size());
    Eigen::MatrixXd a = Eigen::MatrixXd::Zero(l.rest.rows(), pixels);
    if (correlated)
      a = l.whitened_source;
    else
      for (std::size_t row = 0; row + 1 < l.source.first.size(); ++row)
        for (std::size_t k = l.source.first[row]; k < l.source.first[row + 1]; ++k)
          a(static_cast<Eigen::Index>(row), l.source.column[k]) = l.source.value[k];
    Eigen::MatrixXd j(a.rows(), a.cols() + l.rest.cols());
    j << a, l.rest;
    Eigen::MatrixXd h = j.transpose() * j;
    const Eigen::MatrixXd prior = model.source_prior().precision(problem.regularization).toDense();
    h.topLeftCorner(pixels, pixels) += prior;
    h.bottomRightCorner(l.rest.cols(), l.rest.cols()) += l.priors;
    Eigen::VectorXd g = j.transpose() * l.residual;
    g.head(pixels) += prior * model.source_values();
    g.tail(l.rest.cols()) += l.fixed_gradient;
    const Eigen::LDLT<Eigen::MatrixXd> factor(h);
    const Eigen::MatrixXd information = c.transpose() * c - c.transpose() * j * factor.solve(j.transpose() * c);
    const Eigen::VectorXd score = -c.transpose() * (l.residual - j * factor.solve(g));
    for (Eigen::Index k = 0; k < 3; ++k) {
      const auto i = static_cast<std::size_t>(k);
      EXPECT_NEAR(map.information(k, k), information(k, k), 1e-6 * information(k, k));
      EXPECT_NEAR(map.mass(i), score[k] / information(k, k), 1e-6 * map.sigma(i));
      EXPECT_NEAR(map.significance(i), score[k] / std::sqrt(information(k, k)), 1e-6);
      EXPECT_GT(points.sigma(i), 0);
    }
    EXPECT_GT(points.sigma(3), 5 * points.sigma(0));  // far outside the image
  }
}

TEST(PerturberMap, WhatIsRefused) {
  const Problem problem = smooth_lens(false);
  ThreadPool pool(1);
  JointModel model(problem, {}, pool);
  EXPECT_THROW(perturber_map(model, problem.initial_parameters, problem.regularization, LensKind::nfw, {}, pool),
               InvalidInput);
}

/// Of n independent places, P(highest < z) = Φ(z)ⁿ.
TEST(PerturberMap, HighestByChance) {
  PerturberMap map;
  map.places.resize(20);
  map.information = Eigen::MatrixXd::Identity(20, 20) * 7;
  map.score = Eigen::VectorXd::Zero(20);
  const std::vector<double> highest = highest_by_chance(map, 4000, 3);
  ASSERT_EQ(highest.size(), 4000u);
  EXPECT_TRUE(std::is_sorted(highest.begin(), highest.end()));
  const auto below = [&](double z) {
    return double(std::lower_bound(highest.begin(), highest.end(), z) - highest.begin()) / 4000;
  };
  for (const double z : {1.5, 2.0, 2.5, 3.0}) {
    const double expected = std::pow(0.5 * std::erfc(-z / std::sqrt(2.0)), 20);
    EXPECT_NEAR(below(z), expected, 4 * std::sqrt(expected * (1 - expected) / 4000)) << z;
  }
  // Places that are all the same are one.
  map.information.setOnes();
  const std::vector<double> one = highest_by_chance(map, 4000, 3);
  EXPECT_NEAR(one[2000], 0, 0.1);  // negative ones count as 0
  EXPECT_NEAR(one[3800], 1.645, 0.15);
}

TEST(Detection, MassOfAnSisWithinAKiloparsec) {
  // SLACS J0946+1006: z 0.222 and 0.609. Σ_cr = 2.37e9 M☉/kpc² … within R the SIS has π theta_E R Σ_cr.
  const Cosmology cosmology{0.222, 0.609, 70, 0.3};
  const double arcsec_per_kpc = 1 / 3.58, area = cosmology.mass_per_square_arcsec();
  EXPECT_NEAR(mass_within_kpc(cosmology, 0.05), area * kPi * 0.05 * arcsec_per_kpc,
              0.01 * mass_within_kpc(cosmology, 0.05));
}

/// A lens with a source of many clumps, simulated with and without an SIS.
class DetectLens {
 public:
  explicit DetectLens(double theta_E) {
    folder_.write("lens.toml", R"(recipe = "galaxy"
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = { fwhm = 0.12, size = 5 }
pixel_scale = 0.08
supersampling = 2
[[observation.region]]
shape = "annulus"
inner = 0.5
outer = 1.7
[[lens]]
profile = "SIE"
theta_E = 1.1
e1 = 0.1
e2 = -0.05
fit = ["theta_E", "e1", "e2"]
[[source]]
profile = "PIXELATED"
nx = 26
ny = 26
fit = ["pixels"]
[[optimizer.stage]]
name = "gauss_newton"
steps = 60
)");
    const std::string truth = R"([observation]
image = "data.fits"
psf = { fwhm = 0.12, size = 5 }
pixel_scale = 0.08
supersampling = 2
[[lens]]
profile = "SIE"
theta_E = 1.1
e1 = 0.1
e2 = -0.05
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 40.0
R_sersic = 0.15
n_sersic = 1.0
center_x = 0.05
center_y = 0.08
[[source]]
profile = "GAUSSIAN"
amp = 3.0
sigma = 0.06
center_x = -0.12
center_y = -0.05
[simulate]
nx = 44
ny = 44
noise = 3.0
seed = 5
)";
    const std::string sis = theta_E > 0 ? "[[perturbation]]\nprofile = \"SIS\"\ntheta_E = " + std::to_string(theta_E) +
                                              "\ncenter_x = 0.75\ncenter_y = 0.8\n"
                                        : "";
    folder_.write("truth.toml", truth + sis);
    simulate(read_config(folder_ / "truth.toml", {}, true), folder_ / "data.fits", false);
  }
  RunOutcome search(const std::string& out, const DetectionSettings& settings, bool resume = false,
                    const std::function<bool()>& interrupted = nullptr) const {
    RunOptions options = run_options(folder_ / out);
    options.threads = 2;
    options.resume = resume;
    options.interrupted = interrupted;
    return run_detect(config(), options, settings);
  }
  Config config(const std::vector<Override>& more = {}) const {
    return read_config(folder_ / "lens.toml", more, false);
  }
  json result(const std::string& out) const { return json::parse(std::ifstream(folder_ / (out + "/detect.json"))); }
  const TemporaryDirectory& folder() const { return folder_; }

 private:
  TemporaryDirectory folder_;
};

/// Every explanation, with its BIC; the perturber predicts arcs that it was not fitted to.
void expect_explanations(const json& found) {
  const auto named = [&](const char* name) -> const json& {
    for (const json& a : found.at("alternatives"))
      if (a.at("name") == name) return a;
    throw InvalidInput(std::string("no explanation is named ") + name);
  };
  const struct {
    const char* name;
    int parameters;
    bool held_out;
  } expected[] = {{"SIS", 3, true},
                  {"point mass", 3, false},
                  {"truncated NFW", 4, false},
                  {"multipoles 3 and 4", 4, true},
                  {"SIS and multipoles 3 and 4", 7, false},
                  {"multipoles 1, 3 and 4", 6, false},
                  {"gradient of the shear", 4, false}};
  const int pixels = 1292;  // of the annulus
  for (const auto& e : expected) {
    const json& a = named(e.name);
    EXPECT_EQ(a.at("parameters"), e.parameters) << e.name;
    EXPECT_NEAR(a.at("bic_change").get<double>(), e.parameters * std::log(pixels) - a.at("chi2_fall").get<double>(),
                1e-6)
        << e.name;
    EXPECT_EQ(a.at("held_out_fall").is_number(), e.held_out) << e.name;
  }
  const json &sis = named("SIS"), &multipoles = named("multipoles 3 and 4");
  EXPECT_GT(sis.at("held_out_fall").get<double>(), 0);
  EXPECT_GT(sis.at("held_out_fall").get<double>(), multipoles.at("held_out_fall").get<double>());
  EXPECT_GT(found.at("smooth").at("held_out_chi2_reduced").get<double>(),
            found.at("smooth").at("chi2_reduced").get<double>());
  // A halo of any profile is in the place of the SIS; what has no halo gains less.
  for (const char* halo : {"point mass", "truncated NFW"}) {
    EXPECT_NEAR(named(halo).at("added")[0].at("center_x").at("value").get<double>(), 0.75, 0.16) << halo;
    EXPECT_NEAR(named(halo).at("added")[0].at("center_y").at("value").get<double>(), 0.8, 0.16) << halo;
  }
  for (const char* smooth : {"multipoles 1, 3 and 4", "gradient of the shear"})
    EXPECT_LT(named(smooth).at("evidence_gain").get<double>(), sis.at("evidence_gain").get<double>() - 5) << smooth;
  EXPECT_NE(found.at("summary").get<std::string>().find("a gradient of the shear by"), std::string::npos);
}

TEST(Detect, FindsAPerturberWhereItIs) {
  const DetectLens lens(0.08);
  EXPECT_EQ(lens.search("out", {.nulls = 3, .injections = 2}).stop_reason, StopReason::converged);
  const json found = lens.result("out");
  EXPECT_TRUE(found.at("found").get<bool>()) << found.dump(1);
  const json& best = found.at("alternatives").at(0);
  EXPECT_EQ(best.at("name"), "SIS");
  EXPECT_GT(best.at("evidence_gain").get<double>(), 5);
  const json& sis = best.at("added").at(0);
  const auto near = [&](const char* name, double truth) {
    const double sigma = sis.at(name).at("sigma");
    EXPECT_GT(sigma, 0) << name;
    EXPECT_NEAR(sis.at(name).at("value").get<double>(), truth, 5 * sigma) << name;
  };
  near("theta_E", 0.08);
  near("center_x", 0.75);
  near("center_y", 0.8);
  EXPECT_NEAR(sis.at("center_x").at("value").get<double>(), 0.75, 0.16);
  EXPECT_NEAR(sis.at("center_y").at("value").get<double>(), 0.8, 0.16);
  expect_explanations(found);
  EXPECT_EQ(found.at("nulls").at("mocks").size(), 3u);
  EXPECT_DOUBLE_EQ(found.at("nulls").at("p_value").get<double>(), 0.25);
  for (const json& injection : found.at("injections"))
    EXPECT_NEAR(injection.at("significance").get<double>(), injection.at("expected_significance").get<double>(), 3.5);
  for (const char* name : {"DETECT_THETA_E", "DETECT_SIGMA", "DETECT_SNR", "DETECT_LIMIT"}) {
    const FitsImage map = read_fits(lens.folder() / "out/detect.fits", name);
    EXPECT_EQ(map.nx, 22) << name;
    EXPECT_TRUE(std::isnan(map.values[0])) << name;  // outside the annulus
  }
}

TEST(Detect, FindsNothingWhereThereIsNothingAndResumes) {
  const DetectLens lens(0);
  const DetectionSettings settings{.nulls = 2, .injections = 0};
  lens.search("whole", settings);
  const json whole = lens.result("whole");
  EXPECT_FALSE(whole.at("found").get<bool>()) << whole.dump(1);
  EXPECT_LT(whole.at("map").at("highest_significance").get<double>(), 6);

  // Interrupted during the mocks, and resumed: the same answer.
  int mocks_begun = 0;
  const RunOutcome outcome = lens.search("parts", settings, false, [&] {
    return std::filesystem::exists(lens.folder() / "parts/mocks.json") && ++mocks_begun > 2;
  });
  EXPECT_EQ(outcome.stop_reason, StopReason::interrupted);
  EXPECT_FALSE(std::filesystem::exists(lens.folder() / "parts/detect.json"));
  lens.search("parts", settings, true);
  EXPECT_EQ(lens.result("parts"), whole);
  EXPECT_THROW(lens.search("parts", settings), InvalidInput);  // results are kept
}

/// Around a fit that is there: the same answer, and a section on its page.
TEST(Detect, SearchesAroundAFinishedFit) {
  const DetectLens lens(0);
  const DetectionSettings settings{.nulls = 1, .injections = 0};
  lens.search("whole", settings);
  const std::string fit = lens.folder() / "whole/fit", before = lens.folder().read("whole/fit/result.json");
  RunOptions options = run_options(fit);
  options.threads = 2;
  EXPECT_EQ(run_detect(finished_fit(fit), options, settings).stop_reason, StopReason::converged);
  EXPECT_EQ(lens.result("whole/fit"), lens.result("whole"));
  EXPECT_EQ(lens.folder().read("whole/fit/result.json"), before);

  const std::string summary = lens.result("whole").at("summary");
  const auto page = [&] {
    write_report(fit, 1);
    return lens.folder().read("whole/fit/report.html");
  };
  EXPECT_NE(page().find("Is there a perturber?"), std::string::npos);
  EXPECT_NE(page().find(html_text(summary)), std::string::npos);
  std::filesystem::remove(fit + "/detect.json");  // that of the search which the fit belongs to remains
  EXPECT_NE(page().find(html_text(summary)), std::string::npos);
  std::filesystem::remove(lens.folder() / "whole/detect.json");
  EXPECT_EQ(page().find("Is there a perturber?"), std::string::npos);

  json stopped = json::parse(before);
  stopped["stop_reason"] = "interrupted";
  lens.folder().write("whole/fit/result.json", stopped.dump());
  EXPECT_THROW(finished_fit(fit), InvalidInput);
  EXPECT_THROW(finished_fit(lens.folder() / "nowhere"), InvalidInput);
}

TEST(Detect, WhatIsRefused) {
  const DetectLens lens(0);
  const auto failure = [&](const std::vector<Override>& more) -> std::string {
    try {
      run_detect(lens.config(more), run_options(lens.folder() / "refused"), {});
    } catch (const InvalidInput& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(failure({{"source.0.fit", "[]"},
                     {"source.0.pixel_scale", "0.05"},
                     {"lens.0.fit", "[\"theta_E\"]"},
                     {"optimizer.stage.0.name", "\"levenberg_marquardt\""}})
                .find("detect needs a [[source]] with profile = \"PIXELATED\" and fit = [\"pixels\"]"),
            std::string::npos);
  EXPECT_NE(failure({{"optimizer.stage.0.name", "\"lbfgs\""}})
                .find("detect needs gauss_newton as the last optimizer, "
                      "found lbfgs"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(lens.folder() / "refused"));
}

}  // namespace
}  // namespace einfield
