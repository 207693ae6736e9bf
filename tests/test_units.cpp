// The same lens in any unit of angle and of brightness: problems and results in the units of a fit, and whole fits.
#include "einfield/units.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "einfield/results.hpp"
#include "host/app/run.hpp"
#include "host/app/simulate.hpp"
#include "host/config/load_problem.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

/// Sizes of the units that a lens is given in: arcsec and image units times these.
constexpr Units kOthers[] = {{0.37, 1}, {5, 1}, {1, 1e-20}, {1, 1e6}, {0.37, 1e6}, {5, 1e-20}};

std::string described(const Units& units) {
  return fmt::format("angles x {:g}, brightness x {:g}", units.angle, units.brightness);
}

/// The same lens with all angles and all brightnesses multiplied.
Problem multiplied(const Problem& problem, const Units& by) {
  return in_units(problem, {1 / by.angle, 1 / by.brightness});
}

struct Evaluated {
  StepState state;
  std::vector<double> gradient;
};

Evaluated evaluated(const Problem& problem) {
  const auto backend = make_backend<double>("cpu", {1, 0});
  backend->load({problem});
  backend->evaluate(true);
  return {backend->state(0), backend->download(Field::gradient, 0)};
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

/// Every kind of problem, with held-out pixels, for the loss that fits in any unit.
std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (StepCase c : step_cases()) {
    c.loss = LossKind::chi2;
    Problem problem = make_problem(c);
    if (c.nx > 1) {
      problem.held_out.assign(problem.observation.mask.size(), 0);
      for (std::size_t i = 0; i < problem.held_out.size(); i += 3) problem.held_out[i] = 1;
    }
    all.push_back(problem);
  }
  return all;
}

TEST(Units, OfTheImagesThatTheDefaultsWereChosenForChangeNoBit) {
  Problem problem;
  problem.loss = LossKind::chi2;
  problem.observation.grid = {100, 80, 0.08, 0, 0, 1};
  problem.observation.noise.assign(8000, 2.0);
  problem.observation.mask.assign(8000, 1);
  EXPECT_EQ(units_of(problem).angle, 1);
  EXPECT_EQ(units_of(problem).brightness, 128);
}

TEST(Units, FollowTheLargerSideAndTheMeanWeight) {
  EXPECT_DOUBLE_EQ(field_unit({50, 90, 0.4, 3, -2, 2}), 4.5);
  Observation o;
  o.noise = {2, 4, 1e-9, 4};
  o.mask = {1, 1, 0, 1};
  EXPECT_DOUBLE_EQ(noise_unit(o), 1 / std::sqrt((0.25 + 0.0625 + 0.0625) / 3));
  for (double& sigma : o.noise) sigma *= 1e-200;  // its square is 0
  EXPECT_DOUBLE_EQ(noise_unit(o), 1e-200 / std::sqrt((0.25 + 0.0625 + 0.0625) / 3));
}

TEST(Units, OfTheMeanSquaredErrorAreThoseOfTheData) {
  StepCase c;
  c.loss = LossKind::mse;
  EXPECT_EQ(units_of(make_problem(c)).angle, 1);
  EXPECT_EQ(units_of(make_problem(c)).brightness, 1);
}

/// The loss knows no unit, and the gradient changes by the chain rule. Only the cores of the profiles are lengths that
/// stay: 1e-10″ of the SIE, which shifts the deflection by up to 1e-8 of it, and 1e-4″ of the Sérsic profile.
TEST(Units, LeaveTheLossAndChangeTheGradientByTheChainRule) {
  constexpr double kCores = 1e-7;
  const Units units{1.7, 0.03};
  for (Problem problem : problems()) {
    problem.regularization.weight_decay = 0;  // of weights: the last layer has a unit
    const Evaluated user = evaluated(problem), own = evaluated(in_units(problem, units));
    EXPECT_NEAR(own.state.loss, user.state.loss, kCores * user.state.loss);
    EXPECT_NEAR(own.state.held_out_chi2, user.state.held_out_chi2, kCores * user.state.held_out_chi2);
    EXPECT_NEAR(own.state.regularization, user.state.regularization, kCores * user.state.regularization);
    const ParameterLayout layout(problem.model);
    std::vector<double> expected = user.gradient;
    if (const auto& shape = problem.model.network)
      for (std::size_t i = shape->kernel_offset(shape->layers() - 1); i < layout.n_network; ++i)
        expected[i] *= units.angle * units.angle;
    const std::vector<double> sizes = sizes_of_scalars(problem.model, layout, units);
    for (std::size_t i = 0; i < sizes.size(); ++i)
      if (layout.free[i].kind == TransformKind::identity) expected[layout.n_network + i] *= sizes[i];
    for (std::size_t i = 0; i < layout.free_pixels.size(); ++i)
      expected[layout.n_network + layout.n_free() + i] *= units.brightness;
    const double tolerance = kCores * largest(expected);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(own.gradient[i], expected[i], tolerance) << i;
  }
}

TEST(Units, AndBackAreTheSameParameters) {
  const Units units{0.6, 40};
  for (const Problem& problem : problems()) {
    const ParameterLayout layout(problem.model);
    const std::vector<double>& before = problem.initial_parameters;
    const Problem own = in_units(problem, units);
    const std::vector<double> physical = layout.physical(before.data() + layout.n_network);
    const std::vector<double> changed =
        ParameterLayout(own.model).physical(own.initial_parameters.data() + layout.n_network);
    const std::vector<double> sizes = sizes_of_scalars(problem.model, layout, units);
    for (std::size_t i = 0; i < sizes.size(); ++i)
      EXPECT_NEAR(changed[i] * sizes[i], physical[i], 1e-14 * (1 + std::abs(physical[i]))) << layout.names[i];
    const std::vector<double> after = parameters_in_data_units(problem.model, layout, own.initial_parameters, units);
    for (std::size_t i = 0; i < before.size(); ++i)
      EXPECT_NEAR(after[i], before[i], 1e-14 * (1 + std::abs(before[i]))) << i;
  }
}

/// A fit begins with the same numbers whatever unit the lens was given in.
TEST(Units, MakeTheStartOfAFitTheSame) {
  for (const Problem& problem : problems()) {
    const Evaluated one = evaluated(in_units(problem, units_of(problem)));
    for (const Units& by : kOthers) {
      const Problem other = multiplied(problem, by);
      const Units units = units_of(other);
      EXPECT_NEAR(units.angle, by.angle * units_of(problem).angle, 1e-14 * units.angle);
      EXPECT_NEAR(units.brightness, by.brightness * units_of(problem).brightness, 1e-14 * units.brightness);
      const Evaluated two = evaluated(in_units(other, units));
      constexpr double kRounding = 1e-11;  // of sums over all rays
      EXPECT_NEAR(two.state.loss, one.state.loss, kRounding * one.state.loss) << described(by);
      EXPECT_NEAR(two.state.regularization, one.state.regularization, kRounding * one.state.regularization);
      for (std::size_t i = 0; i < one.gradient.size(); ++i)
        EXPECT_NEAR(two.gradient[i], one.gradient[i], kRounding * largest(one.gradient)) << described(by) << ": " << i;
    }
  }
}

// ---- whole fits --------------------------------------------------------------------------------------------

/// An image of 20 × 20 pixels, 8″ wide, of an SIE with another one beside it. `rest` follows the source.
std::string lens_text(const Units& u, const std::string& fit_lens, const std::string& source, const std::string& rest) {
  const double a = u.angle, b = u.brightness;
  return fmt::format(R"(
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = {{ fwhm = {}, size = 3 }}
pixel_scale = {}
center_x = {}
supersampling = 2
[[lens]]
profile = "SIE"
theta_E = {}
e1 = 0.1
e2 = -0.05
center_y = {}
{}
)",
                     0.5 * a, 0.4 * a, 0.1 * a, 1.9 * a, 0.03 * a, fit_lens) +
         source + rest +
         fmt::format(R"(
[truth]
file = "data.fits"
[simulate]
nx = 20
ny = 20
noise = {}
[[perturbation]]
profile = "SIE"
theta_E = {}
center_x = {}
center_y = {}
)",
                     0.8 * b, 0.15 * a, 1.5 * a, -1.0 * a);
}

std::string sersic(const Units& u, const std::string& fit) {
  return fmt::format(
      "[[source]]\nprofile = \"SERSIC_ELLIPSE\"\namp = {}\nR_sersic = {}\nn_sersic = 1.2\ne1 = 0.1\ncenter_x = "
      "{}\n{}\n",
      20 * u.brightness, 0.6 * u.angle, 0.2 * u.angle, fit);
}

/// Simulates and fits. @param text  of the image; `fitted` = of the fit, with the same data
Results results_of(const TemporaryDirectory& folder, const std::string& text, const std::string& fitted,
                   bool double_precision) {
  const std::string file = folder.write("lens.toml", text);
  simulate(read_config(file, {}, true), folder / "data.fits", true);
  folder.write("lens.toml", fitted);
  RunOptions options = run_options(folder / "out");
  options.double_precision = double_precision;
  options.overwrite = true;
  run_fit(read_config(file, {}, false), options);
  return read_results(options.out);
}

void expect_same_errors(const Results& one, const Results& other, double tolerance, const std::string& where) {
  for (const char* metric : {"chi2_reduced", "psi_relative_rms_arc", "psi_relative_rms_all", "alpha_relative_rms_arc"})
    EXPECT_NEAR(other.metrics.at(metric), one.metrics.at(metric), tolerance * one.metrics.at(metric))
        << where << ": " << metric;
}

TEST(Units, OfADefaultFitDoNotMatter) {
  const auto fit = [](const Units& u, const std::string& network, bool double_precision) {
    const TemporaryDirectory folder;
    const std::string text = lens_text(
        u, "", sersic(u, ""), "[network]\nhidden = [8, 8]\nensemble = 2\n" + network + "[optimizer]\nsteps = 50\n");
    return results_of(folder, text, text, double_precision);
  };
  for (const char* network : {"", "encoding = \"none\"\n", "last_layer = \"random\"\n"}) {
    const Results one = fit({}, network, true);
    EXPECT_LT(one.metrics.at("psi_relative_rms_arc"), 0.1) << network;
    for (const Units& by : kOthers) {
      const Results other = fit(by, network, true);
      EXPECT_EQ(other.steps, one.steps) << network << described(by);
      expect_same_errors(one, other, 0.03, network + described(by));
    }
  }
  // In single precision one pixel that is rounded otherwise leads L-BFGS another way, to an error as large.
  const Results one = fit({}, "", false);
  for (const Units& by : kOthers) expect_same_errors(one, fit(by, "", false), 0.15, described(by));
}

/// Scale of a parameter, from its unit.
double scale_of(const std::string& unit, const Units& by) {
  if (unit == "arcsec") return by.angle;
  if (unit == "image unit") return by.brightness;
  return unit == "image unit arcsec^2" ? by.brightness * by.angle * by.angle : 1;
}

TEST(Units, OfASmoothFitDoNotMatter) {
  const auto fit = [](const Units& u, const std::string& optimizer) {
    const TemporaryDirectory folder;
    const double a = u.angle, b = u.brightness;
    const std::string lights =
        sersic(u, "fit = [\"amp\", \"R_sersic\", \"n_sersic\", \"center_x\", \"center_y\"]") +
        fmt::format(
            "[[lens_light]]\nprofile = \"GAUSSIAN\"\namp = {}\nsigma = {}\nfit = [\"amp\", \"sigma\"]\n"
            "[[lens_light]]\nprofile = \"UNIFORM\"\namp = {}\nfit = [\"amp\"]\n",
            30 * b * a * a, 0.4 * a, 0.5 * b);
    const std::string free =
        "fit = [\"theta_E\", \"e1\", \"e2\", \"center_x\", \"center_y\"]\n" +
        fmt::format("bounds = {{ theta_E = [{}, {}] }}\nprior = {{ center_x = {{ mean = {}, sigma = {} }} }}\n",
                    1.0 * a, 3.0 * a, 0.02 * a, 0.05 * a);
    const std::string text = lens_text(u, free, lights, "[optimizer]\n" + optimizer);
    std::string fitted = text;  // the fit begins elsewhere
    const std::string radius = fmt::format("theta_E = {}\n", 1.9 * a);
    fitted.replace(fitted.find(radius), radius.size(), fmt::format("theta_E = {}\n", 1.7 * a));
    return results_of(folder, text, fitted, true);
  };
  for (const char* optimizer : {"name = \"levenberg_marquardt\"\nloss = \"chi2\"\nstarts = 3\nsteps = 40\n",
                                "name = \"lbfgs\"\nloss = \"chi2\"\nsteps = 40\n"}) {
    const Results one = fit({}, optimizer);
    EXPECT_LT(one.metrics.at("chi2_reduced"), 5) << optimizer;  // the second SIE is missing
    for (const Units& by : kOthers) {
      const Results other = fit(by, optimizer);
      EXPECT_EQ(other.steps, one.steps) << optimizer << described(by);
      ASSERT_EQ(other.parameters.size(), one.parameters.size());
      for (std::size_t i = 0; i < one.parameters.size(); ++i) {
        const ResultParameter &p = one.parameters[i], &q = other.parameters[i];
        if (!p.free) continue;
        const double scale = scale_of(p.unit, by), tolerance = 1e-3 * p.sigma;
        EXPECT_NEAR(q.value / scale, p.value, tolerance) << optimizer << described(by) << ": " << p.name;
        EXPECT_NEAR(q.sigma / scale, p.sigma, tolerance) << optimizer << described(by) << ": " << p.name;
      }
      const std::vector<double>&radii = one.history.at("lens.0.theta_E"), &others = other.history.at("lens.0.theta_E");
      ASSERT_EQ(others.size(), radii.size());
      for (std::size_t i = 0; i < radii.size(); ++i) EXPECT_NEAR(others[i] / by.angle, radii[i], 1e-6);
    }
  }
}

void expect_pixels_do_not_matter(const std::string& rest) {
  const auto fit = [&rest](const Units& u) {
    const TemporaryDirectory folder;
    const std::string pixels = fmt::format(
        "[[source]]\nprofile = \"PIXELATED\"\nnx = 10\nny = 9\npixel_scale = {}\ncenter_x = {}\nvalue = {}\n"
        "fit = [\"pixels\"]\n",
        0.3 * u.angle, 0.2 * u.angle, 1.0 * u.brightness);
    return results_of(
        folder, lens_text(u, "", sersic(u, ""), rest),
        lens_text(u, "", pixels, rest + "[regularization]\nsource_gradient = 0.1\nsource_curvature = 0.3\n"), true);
  };
  const Results one = fit({});
  EXPECT_LT(one.metrics.at("chi2_reduced"), 100);
  const std::vector<double>& pixels = one.model.source[0].pixels;
  for (const Units& by : kOthers) {
    const Results other = fit(by);
    expect_same_errors(one, other, 0.03, described(by));
    for (std::size_t i = 0; i < pixels.size(); ++i)
      EXPECT_NEAR(other.model.source[0].pixels[i] / by.brightness, pixels[i], 0.03 * largest(pixels)) << i;
  }
}

TEST(Units, OfAPixelSourceDoNotMatter) {
  expect_pixels_do_not_matter(
      "[network]\nhidden = [6]\nensemble = 1\n[optimizer]\nname = \"lbfgs\"\nstop = \"plateau\"\nsteps = 60\n");
}

TEST(Units, OfAFitByEvidenceDoNotMatter) {
  expect_pixels_do_not_matter("[network]\nfourier_features = 8\n");
}

// ---- configurations ----------------------------------------------------------------------------------------

/// The problem of a configuration whose image is 16″ wide.
LoadedProblem wide(const TemporaryDirectory& folder, const std::string& rest) {
  const Units u{2, 1};
  const std::string file = folder.write("lens.toml", lens_text(u, "", sersic(u, ""), rest));
  simulate(read_config(file, {}, true), folder / "data.fits", true);
  return load_problem(read_config(file, {}, false));
}

TEST(Units, LengthsOfAConfigurationStayInArcsec) {
  const TemporaryDirectory folder;
  const auto scale = [&folder](const std::string& keys) {
    return wide(folder, "[network]\n" + keys).problem.model.network.value().input_scale;
  };
  const auto frequency = [&folder](const std::string& keys) {  // of the first feature [rad/arcsec]
    const Problem problem = wide(folder, "[network]\n" + keys).problem;
    return problem.initial_parameters[0] * problem.model.network.value().input_scale;
  };
  EXPECT_DOUBLE_EQ(scale(""), 0.5);
  EXPECT_DOUBLE_EQ(scale("encoding = \"none\"\n"), 0.5);
  EXPECT_DOUBLE_EQ(scale("input_scale = 1.0\n"), 1);
  EXPECT_DOUBLE_EQ(scale("fourier_scale = 3.0\n"), 1);
  EXPECT_DOUBLE_EQ(frequency(""), frequency("fourier_scale = 8.0\n"));
  EXPECT_DOUBLE_EQ(frequency("fourier_scale = 2.0\n"), 4 * frequency(""));
  EXPECT_DOUBLE_EQ(frequency("fourier_scale = 2.0\ninput_scale = 3.0\n"), 12 * frequency(""));
  const TemporaryDirectory paper;
  const std::string file =
      paper.write("lens.toml", "recipe = \"biggio2021\"" + lens_text({2, 1}, "", sersic({2, 1}, ""), "[network]\n"));
  EXPECT_EQ(read_config(file, {}, false).network->input_scale, 1.0);
}

TEST(Units, PenaltiesOnSourcePixelsAreRelativeToTheNoise) {
  const TemporaryDirectory folder;
  const std::string pixels =
                        "[[source]]\nprofile = \"PIXELATED\"\nnx = 3\nny = 3\npixel_scale = 0.5\nfit = [\"pixels\"]\n",
                    penalty = "[regularization]\nsource_gradient = 0.32\nsource_curvature = 0.64\n[optimizer]\nloss = ";
  const Regularization r = wide(folder, pixels + penalty + "\"chi2\"\n").problem.regularization;
  EXPECT_DOUBLE_EQ(r.source_gradient, 0.5);  // the noise is 0.8
  EXPECT_DOUBLE_EQ(r.source_curvature, 1);
  EXPECT_EQ(wide(folder, pixels + penalty + "\"mse\"\n").problem.regularization.source_gradient, 0.32);
  const Problem problem = wide(folder, pixels + penalty + "\"chi2\"\n").problem;
  EXPECT_DOUBLE_EQ(config_of(problem).regularization.source_gradient, 0.32);
}

}  // namespace
}  // namespace einfield
