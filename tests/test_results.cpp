// What a fit leaves: every HDU, number, row and weight, and that earlier results stay until new ones are complete.
#include "host/results/write_results.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "einfield/render.hpp"
#include "host/app/evaluate.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/fields/metrics.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "host/files/text.hpp"
#include "host/results/stored_result.hpp"
#include "tests/reference_network.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A fit and its directory.
template <class Real>
struct Written {
  explicit Written(const Config& config, const std::string& dir, int stop_after = 0)
      : fit(config, stop_after), path(dir) {
    summary = write_results(dir, config, fit.loaded, fit.results(), fit.images(),
                            {"cpu", "a processor", sizeof(Real) == 4 ? "single" : "double"}, 2);
    result = json::parse(std::ifstream(dir + "/result.json"));
  }
  FitsImage hdu(const std::string& name, int planes = 1) const {
    return read_fits(path + "/result.fits", name, planes);
  }
  std::vector<double> parameters() const { return {fit.result.parameters.begin(), fit.result.parameters.end()}; }

  SmallFit<Real> fit;
  std::string path, summary;
  json result;
};

/// Rounded as maps are.
template <class Real>
std::vector<double> rounded(std::vector<double> values) {
  for (double& v : values) v = static_cast<Real>(v);
  return values;
}

/// EXTNAME and BITPIX of every HDU, read card by card.
std::vector<std::pair<std::string, int>> list_hdus(const std::string& bytes) {
  std::vector<std::pair<std::string, int>> hdus;
  for (std::size_t at = 0; at < bytes.size();) {
    std::string name;
    int bitpix = 0;
    std::size_t data = 1;
    for (bool end = false; !end; at += 80) {
      const std::string card = bytes.substr(at, 80);
      const auto number = [&card] { return std::stoi(card.substr(10, 20)); };
      if (card.rfind("EXTNAME", 0) == 0) name = card.substr(11, card.find_last_of('\'') - 11);
      if (card.rfind("BITPIX", 0) == 0) bitpix = number();
      if (card.rfind("NAXIS", 0) == 0 && card[5] != ' ') data *= static_cast<std::size_t>(number());
      end = card.rfind("END     ", 0) == 0;
    }
    while (!name.empty() && name.back() == ' ') name.pop_back();
    hdus.emplace_back(name, bitpix);
    data *= static_cast<std::size_t>(std::abs(bitpix) / 8);
    at = (at + 2879) / 2880 * 2880 + (data + 2879) / 2880 * 2880;
  }
  return hdus;
}

template <class Real>
class ResultsOf : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(ResultsOf, Precisions);

TYPED_TEST(ResultsOf, EveryHduWithUnitAndWcsInThePrecisionOfTheRun) {
  const SmallLens lens;
  const Written<TypeParam> w(lens.config(), lens.out());
  const int real = sizeof(TypeParam) == 4 ? -32 : -64;
  std::vector<std::pair<std::string, int>> expected;
  const std::vector<std::pair<std::string, std::string>> names_and_units = {{"DATA", "counts"},
                                                                            {"NOISE", "counts"},
                                                                            {"MASK", ""},
                                                                            {"PSF", ""},
                                                                            {"MODEL", "counts"},
                                                                            {"RESIDUAL", ""},
                                                                            {"LENS_LIGHT", "counts"},
                                                                            {"ARCS", "counts"},
                                                                            {"ARCS_MODEL", "counts"},
                                                                            {"SOURCE", "counts"},
                                                                            {"PSI_NN", "arcsec2"},
                                                                            {"ALPHA_NN", "arcsec"},
                                                                            {"KAPPA_NN", ""},
                                                                            {"SENSITIVITY", "arcsec-1"},
                                                                            {"PSI_MACRO", "arcsec2"},
                                                                            {"ALPHA_MACRO", "arcsec"},
                                                                            {"KAPPA_MACRO", ""},
                                                                            {"PSI_TRUE", "arcsec2"},
                                                                            {"ALPHA_TRUE", "arcsec"},
                                                                            {"KAPPA_TRUE", ""},
                                                                            {"IMAGE_TRUE", "counts"}};
  for (const auto& [name, unit] : names_and_units) expected.emplace_back(name, name == "MASK" ? 8 : real);
  EXPECT_EQ(list_hdus(lens.folder().read("out/result.fits")), expected);
  for (const auto& [name, unit] : names_and_units) {
    const FitsImage image = w.hdu(name, name.rfind("ALPHA", 0) == 0 ? 2 : 1);
    // The simulated image has no unit; "counts" stands for the image's.
    EXPECT_EQ(image.unit, unit == "counts" ? w.fit.loaded.unit : unit) << name;
    ASSERT_TRUE(image.linear) << name;
    if (name == "SOURCE") continue;
    EXPECT_DOUBLE_EQ(image.linear->pixel_scale, 0.3) << name;
    EXPECT_NEAR(image.linear->center_x, name == "PSF" ? 0 : 0.1, 1e-14) << name;
    EXPECT_NEAR(image.linear->center_y, name == "PSF" ? 0 : -0.2, 1e-14) << name;
    EXPECT_EQ(image.nx, name == "PSF" ? 3 : 14) << name;
    EXPECT_EQ(image.ny, name == "PSF" ? 3 : 12) << name;
  }
}

TYPED_TEST(ResultsOf, MapsOfTheImage) {
  const SmallLens lens;
  Written<TypeParam> w(lens.config(), lens.out());
  const Observation& o = w.fit.loaded.problem.observation;
  EXPECT_EQ(w.hdu("DATA").values, rounded<TypeParam>(o.image));
  EXPECT_EQ(w.hdu("NOISE").values, rounded<TypeParam>(o.noise));
  EXPECT_EQ(w.hdu("PSF").values, rounded<TypeParam>(o.psf.values));
  const std::vector<double> mask = w.hdu("MASK").values, model = w.hdu("MODEL").values,
                            residual = w.hdu("RESIDUAL").values;
  // The model of the fitted parameters, evaluated anew.
  const auto backend = make_backend<TypeParam>("cpu", {1, 0});
  backend->load({in_units(w.fit.loaded.problem, w.fit.units)});
  backend->upload(Field::parameters, 0, w.fit.snapshot.parameters);
  backend->evaluate(false);
  const std::vector<TypeParam> again = model_image(*backend, 0, w.fit.units);
  EXPECT_EQ(model, std::vector<double>(again.begin(), again.end()));
  double sum = 0;
  int used = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    EXPECT_EQ(mask[i], o.mask[i]);
    EXPECT_EQ(std::isnan(residual[i]), mask[i] == 0);
    if (mask[i] == 0) continue;
    EXPECT_EQ(residual[i], static_cast<TypeParam>((o.image[i] - model[i]) / o.noise[i]));
    sum += residual[i] * residual[i];
    ++used;
  }
  EXPECT_EQ(used, 14 * 12 - 2);
  // Single precision: every residual and every product is rounded.
  EXPECT_NEAR(w.result["metrics"]["chi2_reduced"].template get<double>() / (sum / used), 1, 1e-6);
}

/// A deflection common to all rays moves the source the other way: the change of the image, by finite differences.
/// The PSF is applied sub-pixel by sub-pixel, each with the value of its pixel.
template <class Real>
void expect_sensitivity(int psf_supersampling) {
  const SmallLens lens;
  Config config = lens.config();
  config.observation.psf_supersampling = psf_supersampling;
  Written<Real> w(config, lens.out());
  const Problem& problem = w.fit.loaded.problem;
  const Observation& o = problem.observation;
  const Model model = with_parameters(problem.model, ParameterLayout(problem.model), w.parameters());
  const std::vector<double> alpha_nn = w.hdu("ALPHA_NN", 2).values;
  ThreadPool pool(1);
  const std::vector<double> theta = pixel_centers(o.grid);
  const LensFields smooth = smooth_fields(model.lens, theta, pool);
  const std::size_t n = theta.size() / 2;
  const double h = 1e-5;
  std::vector<double> derivative[2];
  for (const int axis : {0, 1}) {
    std::vector<double> change(n, 0.0);
    for (const double sign : {-1.0, 1.0}) {
      std::vector<double> beta(2 * n);
      for (std::size_t i = 0; i < 2 * n; ++i)
        beta[i] =
            theta[i] - smooth.deflection[i] - alpha_nn[i] - (i / n == static_cast<std::size_t>(axis) ? sign * h : 0);
      const std::vector<double> image = brightness<Real>(model.source, beta, pool);
      for (std::size_t i = 0; i < n; ++i) change[i] += sign * image[i] / (2 * h);
    }
    derivative[axis].resize(n);
    const int f = psf_supersampling, nx = o.grid.nx, ny = o.grid.ny;
    for (int y = 0; y < ny * f; ++y)
      for (int x = 0; x < nx * f; ++x)
        for (int v = 0; v < o.psf.ny; ++v)
          for (int u = 0; u < o.psf.nx; ++u) {
            const int from_x = x - (u - o.psf.nx / 2), from_y = y - (v - o.psf.ny / 2);
            if (from_x < 0 || from_y < 0 || from_x >= nx * f || from_y >= ny * f) continue;
            derivative[axis][static_cast<std::size_t>(y / f * nx + x / f)] +=
                o.psf.values[static_cast<std::size_t>(v * o.psf.nx + u)] / (f * f) *
                change[static_cast<std::size_t>(from_y / f * nx + from_x / f)];
          }
  }
  const std::vector<double> sensitivity = w.hdu("SENSITIVITY").values;
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double expected = o.mask[i] ? std::hypot(derivative[0][i], derivative[1][i]) / o.noise[i] : 0;
    EXPECT_NEAR(sensitivity[i], expected, 1e-5 * expected + 1e-6);
    largest = std::max(largest, expected);
  }
  EXPECT_GT(largest, 1);
}

TYPED_TEST(ResultsOf, SensitivityIsTheChangeOfTheModelPerDeflection) {
  for (const int psf_supersampling : {1, 2}) {
    SCOPED_TRACE(psf_supersampling);
    expect_sensitivity<TypeParam>(psf_supersampling);
  }
}

TYPED_TEST(ResultsOf, FieldsAreThoseOfTheFittedModelAtPixelCentres) {
  const SmallLens lens;  // two rays a side in every pixel, none of them in its center
  Written<TypeParam> w(lens.config(), lens.out());
  const Problem& problem = w.fit.loaded.problem;
  const ParameterLayout layout(problem.model);
  const Model model = with_parameters(problem.model, layout, w.parameters());
  EXPECT_NE(model.lens[0].values[0], 1.2);
  std::vector<double> weights = w.parameters();
  weights.resize(layout.n_network);
  ThreadPool pool(1);
  const std::vector<double> theta = pixel_centers(problem.observation.grid);
  const LensFields network = network_fields<TypeParam>(*model.network, weights, theta, pool);
  const LensFields smooth = smooth_fields(model.lens, theta, pool);
  EXPECT_EQ(w.hdu("PSI_NN").values, network.potential);
  EXPECT_EQ(w.hdu("ALPHA_NN", 2).values, network.deflection);
  EXPECT_EQ(w.hdu("KAPPA_NN").values, network.convergence);
  EXPECT_EQ(w.hdu("PSI_MACRO").values, rounded<TypeParam>(smooth.potential));
  EXPECT_EQ(w.hdu("ALPHA_MACRO", 2).values, rounded<TypeParam>(smooth.deflection));
  EXPECT_EQ(w.hdu("KAPPA_MACRO").values, rounded<TypeParam>(smooth.convergence));
  const Truth& truth = *w.fit.loaded.truth;
  EXPECT_EQ(w.hdu("PSI_TRUE").values, rounded<TypeParam>(truth.potential));
  EXPECT_EQ(w.hdu("ALPHA_TRUE", 2).values, rounded<TypeParam>(truth.deflection));
  EXPECT_EQ(w.hdu("KAPPA_TRUE").values, rounded<TypeParam>(truth.convergence));
  EXPECT_EQ(w.hdu("IMAGE_TRUE").values, rounded<TypeParam>(truth.image));
}

TYPED_TEST(ResultsOf, TheSourcePlaneHoldsTheTracedLight) {
  const SmallLens lens;
  const Written<TypeParam> w(lens.config(), lens.out());
  const FitsImage image = w.hdu("SOURCE");
  ASSERT_TRUE(image.linear);
  const Grid grid{image.nx, image.ny, image.linear->pixel_scale, image.linear->center_x, image.linear->center_y, 1};
  const LightComponent& source = w.fit.loaded.problem.model.source[0];  // all of it fixed
  for (std::size_t i = 0; i < image.values.size(); i += 97) {
    const double brightness = sersic_brightness(source.values.data(), source.radius, grid.pixel(static_cast<int>(i)));
    EXPECT_NEAR(image.values[i] / brightness, 1, 1e-5);  // the WCS is text
  }
  // The brightest pixel is where the source is, and the rim is much fainter.
  const auto brightest =
      static_cast<int>(std::max_element(image.values.begin(), image.values.end()) - image.values.begin());
  EXPECT_NEAR(grid.pixel(brightest).x, 0.1, grid.pixel_scale);
  EXPECT_NEAR(grid.pixel(brightest).y, 0, grid.pixel_scale);
  EXPECT_LT(image.values[0], 0.05 * image.values[static_cast<std::size_t>(brightest)]);
}

TYPED_TEST(ResultsOf, NumbersOfResultJson) {
  const SmallLens lens;
  const Config config = lens.config();
  Written<TypeParam> w(config, lens.out());
  const FitResult<TypeParam>& fit = w.fit.result;
  const json& r = w.result;
  EXPECT_EQ(r["version"], std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR) + "." +
                              std::to_string(EINFIELD_VERSION_PATCH));
  EXPECT_EQ(r["backend"], "cpu");
  EXPECT_EQ(r["device"], "a processor");
  EXPECT_EQ(r["precision"], sizeof(TypeParam) == 4 ? "single" : "double");
  EXPECT_EQ(r["seed"], 4);
  EXPECT_EQ(r["stop_reason"], "steps");
  EXPECT_EQ(r["steps"], 30);
  EXPECT_EQ(r["time_total_s"], fit.time_s);
  EXPECT_NEAR(r["time_per_step_ms"].get<double>(), 1e3 * fit.time_s / 30, 1e-12);

  const TruthErrors errors =
      truth_errors(w.fit.loaded.problem.observation, *w.fit.loaded.truth, w.hdu("MODEL").values,
                   {w.hdu("PSI_NN").values, w.hdu("ALPHA_NN", 2).values, w.hdu("KAPPA_NN").values});
  const json expected = {{"loss", fit.final_state.loss},
                         {"chi2_reduced", fit.final_state.chi2_reduced},
                         {"image_rms_over_sigma", errors.image_rms_over_sigma},
                         {"psi_relative_rms_all", errors.all.psi_relative_rms},
                         {"psi_relative_rms_arc", errors.arc.psi_relative_rms},
                         {"alpha_relative_rms_all", errors.all.alpha_relative_rms},
                         {"alpha_relative_rms_arc", errors.arc.alpha_relative_rms},
                         {"kappa_rms_all", errors.all.kappa_rms},
                         {"kappa_rms_arc", errors.arc.kappa_rms}};
  EXPECT_EQ(r["metrics"], expected);
  for (const auto& [name, value] : r["metrics"].items()) EXPECT_GT(value.template get<double>(), 0) << name;

  const Problem& problem = w.fit.loaded.problem;
  const Model model = with_parameters(problem.model, ParameterLayout(problem.model), w.parameters());
  EXPECT_EQ(r["parameters"].size(), 5u + 4u + 7u);
  EXPECT_EQ(r["parameters"]["lens.0.theta_E"], model.lens[0].values[0]);
  EXPECT_EQ(r["parameters"]["lens.0.e1"], model.lens[0].values[1]);
  EXPECT_EQ(r["parameters"]["lens.0.e2"], -0.05);
  EXPECT_EQ(r["parameters"]["lens.1.gamma1"], 0.02);
  EXPECT_EQ(r["parameters"]["source.0.n_sersic"], 1.5);
  EXPECT_EQ(r["free"], (json{"lens.0.theta_E", "lens.0.e1"}));
  EXPECT_EQ(r["config"]["lens"][1]["profile"], "SHEAR");
  EXPECT_EQ(r["config"]["network"]["hidden"], (json{7, 5}));
  EXPECT_EQ(r["config"]["optimizer"]["steps"], 30);
  // The text is the configuration: read again, it says the same.
  lens.folder().write("again.toml", r["config_toml"].get<std::string>());
  EXPECT_EQ(to_toml(read_config(lens.folder() / "again.toml", {}, false)), to_toml(config));
  EXPECT_NE(w.summary.find("after 30 steps"), std::string::npos) << w.summary;
  EXPECT_NE(w.summary.find("against the truth"), std::string::npos) << w.summary;
}

TYPED_TEST(ResultsOf, RowsOfTheHistory) {
  const SmallLens lens;
  const Written<TypeParam> w(lens.config(), lens.out());
  std::istringstream csv(lens.folder().read("out/history.csv"));
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line, "step,time_s,loss,chi2_reduced,regularization,learning_rate,gradient_norm,lens.0.theta_E,lens.0.e1");
  for (const HistoryRow& row : w.fit.result.snapshot.history) {
    ASSERT_TRUE(std::getline(csv, line));
    std::vector<double> values;
    std::istringstream fields(line);
    for (std::string field; std::getline(fields, field, ',');) {
      const std::optional<double> value = parse_number<double>(field);
      ASSERT_TRUE(value) << field;
      values.push_back(*value);
    }
    EXPECT_EQ(values, (std::vector<double>{static_cast<double>(row.step), row.time_s, row.loss, row.chi2_reduced,
                                           row.regularization, row.learning_rate, row.gradient_norm, row.free[0],
                                           row.free[1]}));
  }
  EXPECT_FALSE(std::getline(csv, line));
  EXPECT_EQ(w.fit.result.snapshot.history.size(), 9u);  // 0, 4, …, 28, 30
}

TYPED_TEST(ResultsOf, WeightsOfTheNetwork) {
  const SmallLens lens;
  const Written<TypeParam> w(lens.config(), lens.out());
  const StoredNetwork network = read_network(w.path + "/network.safetensors");
  EXPECT_EQ(network.shape.hidden, (std::vector<int>{7, 5}));
  std::vector<double> weights = w.parameters();
  weights.resize(network.shape.size());
  EXPECT_EQ(network.parameters, weights);
  EXPECT_NE(lens.folder().read("out/network.safetensors").find(sizeof(TypeParam) == 4 ? "F32" : "F64"),
            std::string::npos);
}

TEST(Results, WithoutNetworkPsfAndTruth) {
  const SmallLens lens;
  std::string text = lens.folder().read("lens.toml");
  const auto cut = [&text](const std::string& from, const std::string& to) {
    const std::size_t begin = text.find(from);
    text.erase(begin, text.find(to) - begin);
  };
  cut("psf =", "pixel_scale");
  cut("[network]", "[optimizer]");
  cut("[truth]", "[simulate]");
  lens.folder().write("lens.toml", text);
  const Written<double> w(lens.config(), lens.out());
  const std::vector<double> zeros(14 * 12, 0.0);
  EXPECT_EQ(w.hdu("PSI_NN").values, zeros);
  EXPECT_EQ(w.hdu("KAPPA_NN").values, zeros);
  EXPECT_EQ(w.hdu("PSF").values, std::vector<double>{1});
  EXPECT_FALSE(has_hdu(w.path + "/result.fits", "PSI_TRUE"));
  EXPECT_FALSE(fs::exists(w.path + "/network.safetensors"));
  EXPECT_TRUE(w.result["seed"].is_null());
  EXPECT_TRUE(w.result["network"].is_null());
  EXPECT_TRUE(w.result["wcs"].is_null());
  EXPECT_EQ(w.result["metrics"].size(), 2u);
  EXPECT_EQ(w.summary.find("truth"), std::string::npos) << w.summary;
}

TEST(Results, ThePlaceOnTheSkyOfTheImageIsThatOfTheMaps) {
  const SmallLens lens;
  SmallFit<double> fit(lens.config());
  CelestialWcs sky;
  sky.type = {"RA---TAN", "DEC--TAN"};
  sky.cd = {{{-0.6 * 0.3 / 3600, 0.8 * 0.3 / 3600}, {0.8 * 0.3 / 3600, 0.6 * 0.3 / 3600}}};
  sky.reference_pixel = {7.5, 6.5};
  sky.reference_value = {43.2, 0.65};
  fit.loaded.wcs = sky;
  write_results(lens.out(), lens.config(), fit.loaded, fit.results(), fit.images(), {"cpu", "", "double"}, 1);
  const json wcs = json::parse(lens.folder().read("out/result.json"))["wcs"];
  EXPECT_EQ(wcs["cd"], json(sky.cd));
  EXPECT_EQ(wcs["mirrored"], false);
  EXPECT_NEAR(wcs["position_angle_y"].get<double>(), 53.130102, 1e-6);
  // Every HDU but PSF and SOURCE, which lie elsewhere: 21 in all.
  const std::string bytes = lens.folder().read("out/result.fits");
  std::size_t n = 0;
  for (std::size_t at = bytes.find("CTYPE1A = 'RA---TAN'"); at != std::string::npos; ++n)
    at = bytes.find("CTYPE1A = 'RA---TAN'", at + 1);
  EXPECT_EQ(n, 19u);
  EXPECT_DOUBLE_EQ(read_fits(lens.out() + "/result.fits", "KAPPA_NN").linear->pixel_scale, 0.3);

  // Read back, and carried to the maps of `evaluate` on other pixels.
  const StoredResult stored(lens.out());
  const std::optional<CelestialWcs> again = stored.sky();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->cd, sky.cd);
  EXPECT_EQ(again->type, sky.type);
  EXPECT_EQ(again->frame, "");
  EXPECT_NEAR(again->pixel_scale, 0.3, 1e-12);
  evaluate_grid(lens.out(), 5, 4, 0.07, lens.folder() / "grid.fits");
  const std::string grid = lens.folder().read("grid.fits");
  n = 0;
  for (std::size_t at = grid.find("CTYPE1A = 'RA---TAN'"); at != std::string::npos; ++n)
    at = grid.find("CTYPE1A = 'RA---TAN'", at + 1);
  EXPECT_EQ(n, 6u);
}

TEST(Results, APlaceOnTheSkyLeadsBackToItsPixel) {
  CelestialWcs sky;  // 0.1 arcsec, North up and East left, turned by 30 degrees
  const double scale = 0.1 / 3600, angle = kPi / 6;
  sky.type = {"RA---TAN", "DEC--TAN"};
  sky.cd = {{{-scale * std::cos(angle), scale * std::sin(angle)}, {scale * std::sin(angle), scale * std::cos(angle)}}};
  sky.reference_pixel = {20.5, 10};
  sky.reference_value = {359.99, -70.2};
  CelestialWcs swapped = sky;  // latitude first
  std::swap(swapped.type[0], swapped.type[1]);
  std::swap(swapped.cd[0], swapped.cd[1]);
  std::swap(swapped.reference_value[0], swapped.reference_value[1]);
  for (const CelestialWcs& wcs : {sky, swapped})
    for (const auto& [x, y] : {std::pair(1.0, 1.0), {50.0, 3.5}, {-3000.0, 9000.0}, {90000.0, 7.0}}) {
      const std::array<double, 2> pixel = wcs.pixel(wcs.longitude_latitude({x, y}));
      EXPECT_NEAR(pixel[0], x, 1e-6);
      EXPECT_NEAR(pixel[1], y, 1e-6);
    }
  EXPECT_TRUE(std::isnan(sky.pixel({179, 70})[0]));  // behind the observer
  sky.type = {"RA---SIN", "DEC--SIN"};
  EXPECT_TRUE(std::isnan(sky.pixel({0, -70})[0]));
}

TEST(Results, APlaceOnTheSkyIsTheSameOnOtherPixels) {
  CelestialWcs sky;
  sky.pixel_scale = 0.3;
  sky.type = {"RA---TAN", "DEC--TAN"};
  sky.cd = {{{-0.6 * 0.3 / 3600, 0.8 * 0.3 / 3600}, {0.8 * 0.3 / 3600, 0.6 * 0.3 / 3600}}};
  sky.reference_pixel = {7.5, 6.5};
  sky.reference_value = {43.2, 0.65};
  // Astropy 8.0.2: wcs_pix2world.
  EXPECT_NEAR(sky.longitude_latitude({1500.25, -2000.5})[0], 42.99155004032355, 1e-11);
  EXPECT_NEAR(sky.longitude_latitude({1500.25, -2000.5})[1], 0.6491623708382336, 1e-11);
  CelestialWcs south = sky;
  south.reference_value = {359.9999, -64.5};
  EXPECT_NEAR(south.longitude_latitude({1500.25, -2000.5})[0], 359.5157338632466, 1e-10);
  EXPECT_NEAR(south.longitude_latitude({1500.25, -2000.5})[1], -64.50003844044703, 1e-11);
  std::swap(south.type[0], south.type[1]);
  std::swap(south.cd[0], south.cd[1]);
  std::swap(south.reference_value[0], south.reference_value[1]);
  EXPECT_NEAR(south.longitude_latitude({1500.25, -2000.5})[0], 359.5157338632466, 1e-10);

  const Grid own{14, 12, 0.3, 0.1, -0.2, 2}, other{5, 9, 0.07, 0.4, 0.3, 1};
  const CelestialWcs moved = sky.on(own, other);
  EXPECT_NEAR(moved.pixel_scale, 0.07, 1e-15);
  for (const Vec2<double> theta : {Vec2<double>{0.3, -0.7}, {-1, 2}}) {
    const auto pixel = [&](const Grid& g) -> std::array<double, 2> {
      return {(theta.x - g.center_x) / g.pixel_scale + 0.5 * (g.nx + 1),
              (theta.y - g.center_y) / g.pixel_scale + 0.5 * (g.ny + 1)};
    };
    const std::array<double, 2> a = sky.longitude_latitude(pixel(own)), b = moved.longitude_latitude(pixel(other));
    EXPECT_NEAR(a[0], b[0], 1e-11);
    EXPECT_NEAR(a[1], b[1], 1e-11);
  }
  sky.type = {"RA---SIN", "DEC--SIN"};
  EXPECT_TRUE(std::isnan(sky.longitude_latitude({1, 1})[0]));
}

TYPED_TEST(ResultsOf, ANetworkSource) {
  const SmallLens lens{{"source",
                        "[{ profile = \"NETWORK\", amp = 4.0, center_x = 0.1, hidden = [6, 5], input_scale = 1.5, "
                        "fit = [\"network\", \"amp\"] }]"}};
  const Written<TypeParam> w(lens.config(), lens.out());
  const StoredNetwork network = read_network(w.path + "/source_network.safetensors");
  EXPECT_EQ(network.shape.hidden, (std::vector<int>{6, 5}));
  EXPECT_EQ(network.shape.input_scale, 1.5);
  const std::vector<double> parameters = w.parameters();
  EXPECT_EQ(
      network.parameters,
      std::vector<double>(parameters.end() - static_cast<std::ptrdiff_t>(network.shape.size()), parameters.end()));
  EXPECT_EQ(w.result["profiles"]["source.0"], "NETWORK");
  EXPECT_EQ(
      w.result["light_network"],
      (json{{"hidden", {6, 5}}, {"activation", "swish"}, {"input_scale", 1.5}, {"encoding", "none"}, {"members", 1}}));
  const double amp = w.result["parameters"]["source.0.amp"];
  EXPECT_NE(amp, 4.0);
  EXPECT_EQ(w.result["parameters"]["source.0.center_x"], 0.1);

  // The map, from what has been written.
  const FitsImage image = w.hdu("SOURCE");
  ASSERT_TRUE(image.linear);
  const Grid grid{image.nx, image.ny, image.linear->pixel_scale, image.linear->center_x, image.linear->center_y, 1};
  for (std::size_t i = 0; i < image.values.size(); i += 397) {
    const Vec2<double> at = grid.pixel(static_cast<int>(i));
    const double v = reference_network(network.shape, network.parameters, {at.x - 0.1, at.y}).psi[0];
    EXPECT_NEAR(image.values[i] / (amp * std::log1p(std::exp(v))), 1, 1e-5) << i;  // the WCS is text
  }
  // Results without it leave no file of earlier ones.
  const SmallLens plain;
  const Written<TypeParam> without(plain.config(), w.path);
  EXPECT_FALSE(fs::exists(w.path + "/source_network.safetensors"));
  EXPECT_TRUE(without.result["light_network"].is_null());
}

TEST(Results, ANetworkOfTheLensLightHasAFileOfItsOwn) {
  const SmallLens lens{{"lens_light", "[{ profile = \"NETWORK\", amp = 0.5, hidden = [3] }]"}};
  const Written<double> w(lens.config(), lens.out());
  EXPECT_EQ(read_network(w.path + "/lens_light_network.safetensors").shape.hidden, std::vector<int>{3});
  EXPECT_FALSE(fs::exists(w.path + "/source_network.safetensors"));
}

TEST(Results, APixelatedSourceKeepsItsGrid) {
  const SmallLens lens;
  std::string text = lens.folder().read("lens.toml");
  const std::size_t begin = text.find("[[source]]");
  const std::string pixels =
      "profile = \"PIXELATED\"\nnx = 6\nny = 5\npixel_scale = 0.4\ncenter_x = 0.2\ncenter_y = -0.1\nvalue = 1.0\nfit = "
      "[\"pixels\"]\n";
  text.replace(begin, text.find("[network]") - begin, "[[source]]\n" + pixels);
  lens.folder().write("lens.toml", text);
  Written<double> w(lens.config(), lens.out());
  FitsImage image = w.hdu("SOURCE");
  EXPECT_EQ(image.nx, 6);
  EXPECT_EQ(image.ny, 5);
  EXPECT_NEAR(image.linear->center_x, 0.2, 1e-14);
  const std::vector<double> parameters = w.parameters();
  EXPECT_EQ(image.values, std::vector<double>(parameters.end() - 30, parameters.end()));
  EXPECT_FALSE(has_hdu(w.path + "/result.fits", "SOURCE_0"));

  // Beside a second source it has an HDU of its own, and SOURCE shows the sum.
  text.insert(text.find("[network]"),
              "[[source]]\nprofile = \"GAUSSIAN\"\namp = 1.0\nsigma = 0.5\n[[lens_light]]\n" + pixels);
  lens.folder().write("lens.toml", text);
  const Written<double> two(lens.config(), lens.out());
  EXPECT_EQ(two.hdu("SOURCE_0").nx, 6);
  EXPECT_EQ(two.hdu("LENS_LIGHT_0").ny, 5);
  EXPECT_GT(two.hdu("SOURCE").nx, 6);
}

/// The network is fixed at nothing by its absence; four free scalars, one of them with a prior.
const std::vector<Override> kStarts = {{"lens.0.prior", "{ e1 = { mean = 0.1, sigma = 0.05 } }"},
                                       {"source.0.fit", "['amp', 'R_sersic']"},
                                       {"optimizer.name", "'levenberg_marquardt'"},
                                       {"optimizer.starts", "6"},
                                       {"optimizer.starts_seed", "9"}};

TEST(Results, StartsAndUncertainties) {
  const SmallLens lens;
  const Written<double> w(lens.config(kStarts), lens.out());
  const json& starts = w.result.at("starts");
  const std::vector<StartRecord>& records = w.fit.result.snapshot.starts;
  ASSERT_EQ(records.size(), 6u);
  EXPECT_EQ(starts.at("count"), 6);
  EXPECT_EQ(starts.at("seed"), 9);
  EXPECT_EQ(starts.at("redrawn"), 0);
  EXPECT_EQ(starts.at("tolerance"), kSameValley);
  EXPECT_EQ(starts.at("reached_best"), reached_best(records));
  int best = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    const json& run = starts.at("runs").at(i);
    EXPECT_EQ(run.at("chi2_reduced"), records[i].chi2_reduced);
    EXPECT_EQ(run.at("parameters").size(), 4u);
    EXPECT_EQ(run.at("parameters").at("lens.0.theta_E"), records[i].free[0]);
    best += run.at("best") == true;
  }
  EXPECT_EQ(best, 1);

  const json& errors = w.result.at("uncertainties");
  EXPECT_EQ(errors.at("sigma").size(), 4u);
  const json& correlations = errors.at("correlations");
  EXPECT_EQ(correlations.at("names"), w.result.at("free"));
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_GT(errors.at("sigma").at(correlations.at("names").at(i).get<std::string>()), 0);
    for (std::size_t j = 0; j < 4; ++j) {
      const double c = correlations.at("matrix").at(i).at(j);
      EXPECT_EQ(c, correlations.at("matrix").at(j).at(i));
      EXPECT_TRUE(i == j ? c == 1 : std::abs(c) < 1) << c;
    }
  }
  EXPECT_LT(errors.at("sigma").at("lens.0.e1"), 0.05);  // the prior alone
  // A fit with one start has no block of them.
  EXPECT_FALSE(Written<float>(lens.config(), lens.out()).result.contains("starts"));
}

/// Five members, of which the first and the fourth have much worse minima; then one member fails.
TEST(Results, MembersFarAboveTheOthersAreLeftOut) {
  const SmallLens lens;
  const Config config = lens.config({{"network.ensemble", "5"}, {"network.seed", "5"}});
  const SmallFit<float> fit(lens.config(), 2), other(lens.config({{"network.seed", "6"}}), 2);
  std::vector<FitResult<float>> results = {fit.result, fit.result, other.result, fit.result, fit.result};
  const double values[] = {1.06, 1.0, 1.04, 7.0, 1.0};
  for (std::size_t k = 0; k < 5; ++k) {
    results[k].final_state.loss = values[k] - 0.25;
    results[k].final_state.regularization = 0.25;
    results[k].steps = 10 + static_cast<std::int64_t>(k);
  }
  const std::vector<float> image = fit.images().front();
  const auto write = [&] {
    write_results(lens.out(), config, fit.loaded, results, {image, image, image, image, image}, {"cpu", "", "single"},
                  1);
    return json::parse(lens.folder().read("out/result.json"));
  };
  const std::vector<std::string> why = left_out(config, results);
  EXPECT_EQ(why[0],
            "the network of seed 5 ended far above the others: loss plus regularization 1.06, the "
            "lowest is 1; it is excluded from the averages");
  EXPECT_EQ(why[1] + why[2] + why[4], "");
  json result = write();
  EXPECT_EQ(result["network"]["members"], 3);
  EXPECT_EQ(result["steps"], 11) << "of the first member that counts";
  for (std::size_t k = 0; k < 5; ++k) {
    const json& member = result["ensemble"]["members"].at(k);
    EXPECT_EQ(member["seed"], 5 + k);
    EXPECT_EQ(member.value("left_out", ""), why[k]);
  }
  EXPECT_EQ(result["warnings"], (json{why[0], why[3]}));
  EXPECT_TRUE(fs::exists(lens.out() + "/network.1.safetensors"));
  EXPECT_FALSE(fs::exists(lens.out() + "/network.3.safetensors"));
  EXPECT_EQ(read_network(lens.out() + "/network.1.safetensors").parameters.front(),
            static_cast<double>(other.result.parameters.front()));

  // When most members do not agree, none is excluded.
  results[2].final_state.loss = 0.81;
  EXPECT_EQ(left_out(config, results), std::vector<std::string>(5));
  results[2].final_state.loss = 0.79;

  // A failed member does not count as the lowest, and its failure is reported first.
  results[0].stop_reason = StopReason::non_finite;
  results[0].message = "the loss is not finite in step 3";
  results[0].final_state.loss = 0.1;
  result = write();
  EXPECT_EQ(result["network"]["members"], 3);
  EXPECT_EQ(result["message"], results[0].message);
  EXPECT_EQ(result["ensemble"]["members"][0]["left_out"], results[0].message);
  EXPECT_EQ(result["warnings"], json{why[3]});
  for (FitResult<float>& each : results) each.stop_reason = StopReason::non_finite;
  EXPECT_EQ(left_out(config, results), std::vector<std::string>(5));
  EXPECT_EQ(write()["network"]["members"], 5);
}

TEST(Results, NumbersThatDoNotExistAreNull) {
  const SmallLens lens;
  SmallFit<float> fit(lens.config(), 1);
  fit.loaded.truth->deflection.assign(fit.loaded.truth->deflection.size(), 0.0);
  fit.result.steps = 0;
  write_results(lens.out(), lens.config(), fit.loaded, fit.results(), fit.images(), {"cpu", "", "single"}, 1);
  const json result = json::parse(lens.folder().read("out/result.json"));
  EXPECT_TRUE(result["metrics"]["alpha_relative_rms_all"].is_null());
  EXPECT_FALSE(result["metrics"]["psi_relative_rms_all"].is_null());
  EXPECT_TRUE(result["time_per_step_ms"].is_null());
}

TEST(Results, WhatCountsAsResults) {
  const SmallLens lens;
  EXPECT_FALSE(holds_results(lens.folder() / "absent"));
  EXPECT_FALSE(holds_results(lens.out()));
  lens.folder().write("out/notes.txt", "mine");
  EXPECT_FALSE(holds_results(lens.out()));
  for (const char* name :
       {"result.json", "result.fits", "history.csv", "network.safetensors", "checkpoint.safetensors"}) {
    lens.folder().write(std::string("out/") + name, "");
    EXPECT_TRUE(holds_results(lens.out())) << name;
    fs::remove(lens.out() + "/" + name);
  }
}

TEST(Results, NewResultsTakeThePlaceOfTheOld) {
  const SmallLens lens;
  const Written<float> first(lens.config(), lens.out());
  fs::create_directory(lens.out() + "/figures");
  for (const char* name :
       {"report.html", "coolest.json", "evaluate.fits", "figures/psi.png", "figures/notes.txt", "mine.txt"})
    lens.folder().write(std::string("out/") + name, "old");
  std::string text = lens.folder().read("lens.toml");
  const std::size_t begin = text.find("[network]");
  text.erase(begin, text.find("[optimizer]") - begin);
  lens.folder().write("lens.toml", text);
  const Written<double> second(lens.config(), lens.out());
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(lens.out()))
    names.push_back(fs::relative(entry.path(), lens.out()).string());
  std::sort(names.begin(), names.end());
  // Everything that a run has made is gone or new; what the user has put there stays.
  EXPECT_EQ(names, (std::vector<std::string>{"coolest.json", "coolest_data.fits", "coolest_mask.fits",
                                             "coolest_noise.fits", "coolest_psf.fits", "figures", "figures/notes.txt",
                                             "history.csv", "mine.txt", "result.fits", "result.json"}));
  EXPECT_NE(lens.folder().read("out/coolest.json"), "old");
  EXPECT_EQ(second.result["precision"], "double");
}

TEST(Results, AFullDiskLeavesTheEarlierResults) {
  const SmallLens lens;
  const Written<float> first(lens.config(), lens.out());
  const std::string json_before = lens.folder().read("out/result.json"),
                    fits_before = lens.folder().read("out/result.fits");
  const SmallFit<double> second(lens.config());
  // Files may not grow beyond 4 kB: result.fits cannot be written.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 4096;
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_THROW(write_results(lens.out(), lens.config(), second.loaded, second.results(), second.images(),
                             {"cpu", "", "double"}, 1),
               IoError);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(lens.folder().read("out/result.json"), json_before);
  EXPECT_EQ(lens.folder().read("out/result.fits"), fits_before);
  for (const auto& entry : fs::directory_iterator(lens.out()))
    EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path();
}

TEST(Results, HalfReplacedResultsAreNotComplete) {
  const SmallLens lens;
  const Written<float> first(lens.config(), lens.out());
  // The third file cannot be put in place.
  fs::remove(lens.out() + "/network.safetensors");
  fs::create_directories(lens.out() + "/network.safetensors/blocked");
  EXPECT_THROW(Written<double>(lens.config(), lens.out()), IoError);
  EXPECT_FALSE(fs::exists(lens.out() + "/result.json"));
  EXPECT_TRUE(holds_results(lens.out()));
}

TEST(Results, LeftoversOfAKilledRunDoNotMatter) {
  const SmallLens lens;
  fs::create_directories(lens.out() + "/.results");
  lens.folder().write("out/.results/result.json", "half");
  lens.folder().write("out/.results/network.safetensors", "half");
  const Written<float> w(lens.config(), lens.out());
  EXPECT_NO_THROW(read_network(w.path + "/network.safetensors"));
  EXPECT_FALSE(fs::exists(lens.out() + "/.results"));
}

// ---- the library's own way: einfield/results.hpp -----------------------------------------------------------

TYPED_TEST(ResultsOf, AreReadBackByTheLibrary) {
  const SmallLens lens{{"source",
                        "[{ profile = \"PIXELATED\", nx = 6, ny = 5, pixel_scale = 0.4, value = 1.0, fit = "
                        "[\"pixels\"] }, { profile = \"NETWORK\", amp = 4.0, hidden = [6, 5] }]"}};
  const Written<TypeParam> w(lens.config(), lens.out());
  const Results r = read_results(lens.out());
  const Problem& problem = w.fit.loaded.problem;
  const Model model = with_parameters(problem.model, ParameterLayout(problem.model), w.parameters());
  EXPECT_EQ(r.dir, lens.out());
  EXPECT_EQ(r.title, "small");
  EXPECT_EQ(r.version, w.result["version"].template get<std::string>());
  EXPECT_EQ(r.run.backend, "cpu");
  EXPECT_EQ(r.run.device, "a processor");
  EXPECT_EQ(r.run.precision, sizeof(TypeParam) == 4 ? "single" : "double");
  EXPECT_EQ(r.stop_reason, "steps");
  EXPECT_EQ(r.message, "");
  EXPECT_EQ(r.steps, 30);
  EXPECT_EQ(r.state_step, 30);
  EXPECT_EQ(r.time_s, w.fit.result.time_s);
  EXPECT_EQ(r.warnings, w.fit.loaded.warnings);
  EXPECT_EQ(r.metrics.at("chi2_reduced"), w.fit.result.final_state.chi2_reduced);
  EXPECT_EQ(r.metrics.size(), w.result["metrics"].size());
  EXPECT_EQ(r.grid.nx, 14);
  EXPECT_EQ(r.grid.supersampling, 2);
  EXPECT_FALSE(r.sky);
  EXPECT_EQ(r.config, w.result["config_toml"].template get<std::string>());

  ASSERT_EQ(r.model.lens.size(), 2u);
  EXPECT_EQ(r.model.lens[0].values, model.lens[0].values);
  ASSERT_EQ(r.model.source.size(), 2u);
  EXPECT_EQ(r.model.source[0].pixels, model.source[0].pixels);
  EXPECT_TRUE(r.model.source[0].pixels_free);
  EXPECT_EQ(r.model.source[1].weights, rounded<TypeParam>(model.source[1].weights));
  EXPECT_EQ(r.parameters.size(), w.result["parameters"].size());
  const ResultParameter& theta_e = r.parameter("lens.0.theta_E");
  EXPECT_EQ(theta_e.value, model.lens[0].values[0]);
  EXPECT_EQ(theta_e.unit, "arcsec");
  EXPECT_TRUE(theta_e.free);
  EXPECT_EQ(theta_e.sigma, w.result["uncertainties"]["sigma"]["lens.0.theta_E"]);
  EXPECT_TRUE(std::isnan(theta_e.deviation));
  EXPECT_FALSE(r.parameter("lens.0.e2").free);
  EXPECT_TRUE(std::isnan(r.parameter("lens.0.e2").sigma));
  EXPECT_THROW(r.parameter("lens.0.theta_F"), InvalidInput);

  ASSERT_EQ(r.networks.size(), 1u);
  EXPECT_TRUE(r.networks[0].shape == *model.network);
  const std::vector<double> parameters = w.parameters();
  EXPECT_EQ(r.networks[0].weights,
            std::vector<double>(parameters.begin(),
                                parameters.begin() + static_cast<std::ptrdiff_t>(r.networks[0].shape.size())));
  const std::vector<HistoryRow>& history = w.fit.result.snapshot.history;
  ASSERT_EQ(r.history.at("loss").size(), history.size());
  EXPECT_EQ(r.history.at("loss").back(), history.back().loss);
  EXPECT_EQ(r.history.at("lens.0.theta_E").back(), history.back().free[0]);

  const ResultMap kappa = read_result_map(lens.out(), "KAPPA_NN"), alpha = read_result_map(lens.out(), "ALPHA_MACRO");
  EXPECT_EQ(kappa.values, w.hdu("KAPPA_NN").values);
  EXPECT_EQ(kappa.pixel_scale, 0.3);
  EXPECT_EQ(kappa.planes, 1);
  EXPECT_EQ(alpha.planes, 2);
  EXPECT_EQ(alpha.unit, "arcsec");
  EXPECT_EQ(alpha.values, w.hdu("ALPHA_MACRO", 2).values);
  EXPECT_TRUE(has_result_map(lens.out(), "PSI_TRUE"));
  EXPECT_FALSE(has_result_map(lens.out(), "PSI_NN_STD"));
  const ResultLensFields fields = evaluate(r, pixel_centers(r.grid), 1);
  EXPECT_EQ(fields.network.convergence, kappa.values);
  EXPECT_EQ(rounded<TypeParam>(fields.smooth.deflection), alpha.values);
}

/// A problem that was built in memory, its fit, and the directory of it: no configuration file, no FITS file before.
TEST(ResultsOfTheLibrary, HaveNoNeedOfAConfiguration) {
  const TemporaryDirectory folder;
  LoadedProblem loaded;
  Problem& problem = loaded.problem;
  problem.model.lens.push_back({LensKind::sie, {1.2, 0.1, -0.05, 0, 0}, {true, false, false, false, false}});
  LightComponent source = {};
  source.kind = LightKind::gaussian;
  source.values = {10, 0.3, 0.1, 0};
  source.free.assign(4, false);
  problem.model.source.push_back(source);
  problem.model.network = NetworkShape{{5}, 1.5};
  Observation& o = problem.observation;
  o.grid = {12, 10, 0.3, 0.1, 0, 1};
  o.image.assign(120, 0.5);
  o.noise.assign(120, 1);
  o.mask.assign(120, 1);
  problem.loss = LossKind::chi2;
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters(initial_weights({{5}, 1.5}, 1, true));
  const auto backend = make_backend<double>("cpu", {1, 0});
  FitSettings settings;
  settings.stages[0].steps = 4;
  backend->load({problem});
  std::vector<FitResult<double>> results = fit<double>(*backend, {problem}, settings, {});
  std::vector<std::vector<double>> images = {backend->download(Field::model, 0)};

  Config config = config_of(problem);
  config.title = "from memory";
  const std::string dir = folder / "new/out";
  EXPECT_NE(write_results(dir, config, loaded, results, images, {"cpu", backend->device(), "double"}, 1), "");
  const Results r = read_results(dir);
  EXPECT_EQ(r.title, "from memory");
  EXPECT_EQ(r.steps, 4);
  EXPECT_TRUE(r.parameter("lens.0.theta_E").free);
  EXPECT_GT(r.parameter("lens.0.theta_E").sigma, 0);
  EXPECT_EQ(r.networks.at(0).weights.front(), results[0].parameters.front());
  EXPECT_EQ(read_result_map(dir, "MODEL").values, images[0]);
  EXPECT_TRUE(fs::exists(dir + "/coolest.json"));
  // Arguments that do not belong together are refused before anything is written.
  const std::string elsewhere = folder / "refused";
  const RunInfo info{"cpu", "", "double"};
  EXPECT_THROW(write_results(elsewhere, config, loaded, results, {}, info), InvalidInput);
  EXPECT_THROW(write_results(elsewhere, config, loaded, results, {{1, 2, 3}}, info), InvalidInput);
  EXPECT_THROW(write_results(elsewhere, config, loaded, {FitResult<double>{}}, images, info), InvalidInput);
  EXPECT_THROW(write_results(elsewhere, config, loaded, results, images, {"cpu", "", "single"}), InvalidInput);
  EXPECT_THROW(write_results(elsewhere, Config{}, loaded, results, images, info), InvalidInput);
  LoadedProblem short_truth = loaded;
  short_truth.truth = Truth{std::vector<double>(5), {}, {}, {}};
  EXPECT_THROW(write_results(elsewhere, config, short_truth, results, images, info), InvalidInput);
  EXPECT_FALSE(fs::exists(elsewhere));
  EXPECT_THROW(evaluate(r, {0, 1, 0}), InvalidInput);

  // An ensemble: means, scatter, and the members' networks.
  results.push_back(results.front());
  images.push_back(images.front());
  for (double& v : results[1].parameters) v += 0.01;
  write_results(dir, config, loaded, results, images, {"cpu", "", "double"}, 1);
  const Results two = read_results(dir);
  EXPECT_EQ(two.networks.size(), 2u);
  EXPECT_EQ(two.potential_offsets.size(), 2u);
  EXPECT_GT(two.parameter("lens.0.theta_E").deviation, 0);
  const std::vector<double> psi = evaluate(two, pixel_centers(two.grid), 1).network.potential,
                            map = read_result_map(dir, "PSI_NN").values;
  for (std::size_t i = 0; i < psi.size(); ++i) EXPECT_NEAR(psi[i], map[i], 1e-14);
  config.network.reset();
  EXPECT_THROW(write_results(dir, config, loaded, results, images, {"cpu", "", "double"}), InvalidInput);
}

TEST(ResultsOfTheLibrary, DamagedDirectoriesAreErrors) {
  const SmallLens lens;
  EXPECT_THROW(read_results(lens.folder() / "absent"), InvalidInput);
  const Written<float> w(lens.config(), lens.out());
  EXPECT_NO_THROW(read_results(lens.out()));
  EXPECT_THROW(read_result_map(lens.out(), "KAPPA"), InvalidInput);
  for (const char* name : {"result.json", "history.csv", "network.safetensors", "result.fits"}) {
    const std::string file = std::string("out/") + name, content = lens.folder().read(file);
    for (const std::string& damaged : {std::string(), content.substr(0, content.size() / 3), std::string("no")}) {
      lens.folder().write(file, damaged);
      try {
        read_results(lens.out());
        ADD_FAILURE() << name;
      } catch (const InvalidInput& error) {
        EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
      }
    }
    fs::remove(lens.folder() / file);
    EXPECT_THROW(read_results(lens.out()), InvalidInput) << name;
    lens.folder().write(file, content);
  }
  // A single value that is not what a fit writes.
  const std::string text = lens.folder().read("out/result.json");
  for (const auto& [place, value] :
       std::vector<std::pair<json::json_pointer, json>>{{json::json_pointer("/steps"), -1},
                                                        {json::json_pointer("/metrics/loss"), "x"},
                                                        {json::json_pointer("/parameters/lens.0.e1"), {}},
                                                        {json::json_pointer("/version"), 1},
                                                        {json::json_pointer("/config_toml"), {}},
                                                        {json::json_pointer("/grid/nx"), 0},
                                                        {json::json_pointer("/uncertainties/sigma"), 1},
                                                        {json::json_pointer("/warnings"), "x"}}) {
    json changed = json::parse(text);
    changed[place] = value;
    lens.folder().write("out/result.json", changed.dump());
    EXPECT_THROW(read_results(lens.out()), InvalidInput) << place.to_string();
  }
}

}  // namespace
}  // namespace einfield
