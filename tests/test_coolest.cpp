// COOLEST templates: what the coolest package makes of one and what we make of it, there and back, and hostile files.
#include "host/exchange/coolest.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "host/results/write_results.hpp"
#include "tests/exchanged_lens.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json golden() {
  std::ifstream stream(std::string(EINFIELD_GOLDEN_DIR) + "/exchange.json");
  return json::parse(stream);
}

json written(const TemporaryDirectory& folder) {
  return json::parse(folder.read("coolest.json"));
}

double value(const json& profile, const char* name) {
  return profile["parameters"][name]["point_estimate"]["value"].get<double>();
}

TEST(Coolest, ItsPackageSeesTheSameImage) {
  const TemporaryDirectory folder;
  const json numbers = golden();
  std::vector<std::string> warnings;
  const ExchangedLens lens = read_coolest(folder.write("mock.json", numbers["coolest"].dump()), warnings);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("observation.pixels: no FITS file"), std::string::npos);
  expect_same_image(simulated_image(lens), numbers["coolest_image"].get<std::vector<double>>());
  // A mock says nothing about what is fixed, so everything is free.
  for (const bool free : lens.model.lens[0].free) EXPECT_TRUE(free);
}

TEST(Coolest, ConventionsAreThoseOfTheReference) {
  // Numbers of a template that the coolest package has written for the paper's SIE lens.
  ExchangedLens lens = every_component(8, 8);
  lens.observation.grid.pixel_scale = 0.08;
  lens.model.lens = {lens_of(LensKind::sie, {1.6, 0.15, -0.04, 0, 0}),
                     lens_of(LensKind::sie, {0.15, 0, 0.3, 1.9, -1.4})};
  lens.model.source = {light_of(LightKind::sersic_ellipse, {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15})};
  lens.model.source[0].radius = RadiusKind::major_axis;
  const TemporaryDirectory folder;
  write_coolest(folder.path().string(), lens);
  const json entities = written(folder)["lensing_entities"];
  const json &macro = entities[0]["mass_model"][0], &perturber = entities[1]["mass_model"][0];
  EXPECT_EQ(value(macro, "theta_E"), 1.6);
  EXPECT_NEAR(value(macro, "q"), 0.7312393750126034, 1e-15);
  EXPECT_NEAR(value(macro, "phi"), 82.53429141093122, 1e-13);
  EXPECT_NEAR(value(perturber, "phi"), -45, 1e-13);
  const json& source = entities.back()["light_model"][0];
  EXPECT_NEAR(value(source, "I_eff"), 1562.5, 1e-10);
  EXPECT_NEAR(value(source, "theta_eff"), 1.0910789567072479, 1e-15);
  EXPECT_NEAR(value(source, "phi"), -9.217474411460998, 1e-13);
  EXPECT_NEAR(value(source, "q"), 0.8267036734509559, 1e-15);
}

TEST(Coolest, AnglesLieInTheStandardsInterval) {
  for (const auto& [e1, e2, phi] : {std::tuple(0.3, 0.0, 90.0),
                                    {0.0, 0.3, -45.0},
                                    {-0.3, 0.0, 0.0},
                                    {0.0, -0.3, 45.0},
                                    {-0.3, -0.0, 0.0},
                                    {0.0, 0.0, 90.0}}) {
    ExchangedLens lens = every_component(8, 8);
    lens.model.lens = {lens_of(LensKind::sie, {1.6, e1, e2, 0, 0})};
    const TemporaryDirectory folder;
    write_coolest(folder.path().string(), lens);
    EXPECT_NEAR(value(written(folder)["lensing_entities"][0]["mass_model"][0], "phi"), phi, 1e-13) << e1 << " " << e2;
  }
}

TEST(Coolest, ThereAndBackIsTheSameLens) {
  const TemporaryDirectory folder;
  const ExchangedLens lens = every_component(8, 8);
  write_networks(lens, folder);
  const std::vector<std::string> notes = write_coolest(folder.path().string(), lens);
  std::vector<std::string> warnings;
  const ExchangedLens back = read_coolest(folder / "coolest.json", warnings);
  expect_same_lens(lens, back);
  EXPECT_FALSE(back.cosmology);  // placeholders
  EXPECT_TRUE(warnings.empty());
  // Everything that the standard has no parameters for is named.
  for (const char* named : {"lens.6: NFW ", "lens.7: NFW_ELLIPSE_POTENTIAL", "lens.8: POINT_MASS", "lens.9: MULTIPOLE",
                            "lens.11: TNFW", "lens.12: FLEXION", "source.4: NETWORK", "lens_light.3: UNIFORM",
                            "lens.1: stored relative to (0, 0)", "redshifts"})
    EXPECT_TRUE(std::any_of(notes.begin(), notes.end(), [&](const std::string& note) {
      return note.find(named) != std::string::npos;
    })) << named;
  EXPECT_EQ(written(folder)["meta"]["einfield"]["notes"].get<std::vector<std::string>>(), notes);
}

TEST(Coolest, CarriesTheCosmology) {
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(8, 8);
  write_networks(lens, folder);
  lens.cosmology = {0.222, 0.609, 67.4, 0.315};
  for (const std::string& note : write_coolest(folder.path().string(), lens))
    EXPECT_EQ(note.find("redshifts"), std::string::npos) << note;
  EXPECT_EQ(written(folder)["lensing_entities"][0]["redshift"], 0.222);
  std::vector<std::string> warnings;
  const ExchangedLens back = read_coolest(folder / "coolest.json", warnings);
  const Config config = read_config(write_configuration(folder / "back", back, "", false), {}, false);
  ASSERT_TRUE(config.cosmology);
  EXPECT_EQ(config.cosmology->z_lens, 0.222);
  EXPECT_EQ(config.cosmology->z_source, 0.609);
  EXPECT_EQ(config.cosmology->H0, 67.4);
  EXPECT_EQ(config.cosmology->Om0, 0.315);
  // Earlier versions wrote placeholders without saying so.
  json file = written(folder);
  file["meta"]["einfield"].erase("redshifts_known");
  folder.write("coolest.json", file.dump());
  EXPECT_FALSE(read_coolest(folder / "coolest.json", warnings).cosmology);
}

TEST(Coolest, ShearAboutAnotherPointMovesTheSourceInstead) {
  // Without our own members the file is about (0, 0), and its image the same.
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(8, 8);
  lens.observation.psf = {};
  lens.model.lens.resize(6);  // what the standard knows
  lens.model.source.resize(4);
  lens.model.lens_light.pop_back();  // which the standard cannot say
  lens.networks.clear();
  lens.network_lights.clear();
  write_coolest(folder.path().string(), lens);
  json file = written(folder);
  for (json& entity : file["lensing_entities"])
    for (const char* model : {"mass_model", "light_model"})
      if (entity.contains(model))
        for (json& profile : entity[model]) profile.erase("einfield");
  std::vector<std::string> warnings;
  ExchangedLens again = read_coolest(folder.write("plain.json", file.dump()), warnings);
  EXPECT_EQ(again.model.lens[1].values[2], 0);
  EXPECT_EQ(again.model.lens[0].kind, LensKind::epl);
  EXPECT_EQ(again.model.source[2].kind, LightKind::sersic_ellipse);
  for (ExchangedLens* l : {&lens, &again}) l->observation.image.clear(), l->observation.mask.clear(), l->noise = 1;
  expect_same_image(simulated_image(again), simulated_image(lens));
}

TEST(Coolest, MapsArePaddedToSquares) {
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(9, 6);
  write_networks(lens, folder);
  write_coolest(folder.path().string(), lens);
  std::vector<std::string> warnings;
  const ExchangedLens again = read_coolest(folder / "coolest.json", warnings);
  const Observation &o = again.observation, &from = lens.observation;
  ASSERT_EQ(o.grid.nx, 9);
  ASSERT_EQ(o.grid.ny, 9);
  int used = 0;
  for (int i = 0; i < o.grid.n_pixels(); ++i) {
    const auto k = static_cast<std::size_t>(i);
    const Vec2<double> at = o.grid.pixel(i);
    const int row = i / 9 - 1;  // three rows more, one of them below
    const bool inside = row >= 0 && row < 6;
    used += o.mask[k];
    if (!inside) {
      EXPECT_EQ(o.mask[k], 0);
      EXPECT_GT(o.noise[k], 1e6);
      continue;
    }
    const int j = row * 9 + i % 9;
    EXPECT_EQ(o.image[k], from.image[static_cast<std::size_t>(j)]);
    EXPECT_NEAR(at.x, from.grid.pixel(j).x, 1e-12);
    EXPECT_NEAR(at.y, from.grid.pixel(j).y, 1e-12);
  }
  EXPECT_EQ(used, from.n_used());
}

TEST(Coolest, SaysWhereTheImageLiesOnTheSky) {
  ExchangedLens lens = every_component(9, 6);
  lens.networks.clear();
  lens.model.lens.resize(1);
  lens.model.source.resize(1);
  lens.model.lens_light.clear();
  CelestialWcs sky;
  sky.type = {"RA---TAN", "DEC--TAN"};
  sky.pixel_scale = lens.observation.grid.pixel_scale;
  const double step = sky.pixel_scale / 3600;
  sky.cd = {{{-0.6 * step, 0.8 * step}, {0.8 * step, 0.6 * step}}};
  // The reference pixel is (0, 0) of the model: pixel centers begin at 1.
  const Grid& g = lens.observation.grid;
  sky.reference_pixel = {5 - g.center_x / g.pixel_scale, 3.5 - g.center_y / g.pixel_scale};
  sky.reference_value = {43.19995, 0.650275};
  lens.sky = sky;
  const TemporaryDirectory folder;
  const std::vector<std::string> notes = write_coolest(folder.path().string(), lens);
  const json file = written(folder);
  EXPECT_EQ(file["coordinates_origin"]["ra"], "02h52m47.9880s");
  EXPECT_EQ(file["coordinates_origin"]["dec"], "+00d39m00.990s");
  EXPECT_TRUE(std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
    return note.find("which has position angle 53.1301") != std::string::npos;
  }));
  // The padded maps have it, too: three rows more, one of them below.
  const std::string map = folder.read("coolest_noise.fits");
  EXPECT_NE(map.find("CTYPE1A = 'RA---TAN'"), std::string::npos);
  const std::size_t at = map.find("CRPIX2A =");
  ASSERT_NE(at, std::string::npos);
  EXPECT_NEAR(std::stod(map.substr(at + 9, 22)), sky.reference_pixel[1] + 1, 1e-9);

  // A negative declination, and seconds that would be rounded to sixty.
  lens.sky->reference_value = {-1e-9, -0.99999999999};
  write_coolest(folder.path().string(), lens);
  EXPECT_EQ(written(folder)["coordinates_origin"]["ra"], "00h00m00.0000s");
  EXPECT_EQ(written(folder)["coordinates_origin"]["dec"], "-01d00m00.000s");
}

TEST(Coolest, LensAndSourceAreToldApartWithoutAGalaxyOfMass) {
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(8, 8);
  lens.model.lens = {lens_of(LensKind::shear, {0.03, -0.05, 0, 0})};
  lens.model.source.resize(1);
  lens.model.lens_light.clear();
  lens.networks.clear();
  lens.network_lights.clear();
  write_coolest(folder.path().string(), lens);
  std::vector<std::string> warnings;
  expect_same_lens(lens, read_coolest(folder / "coolest.json", warnings));
}

TEST(Coolest, AFitLeavesIt) {
  const SmallLens lens;
  const SmallFit<double> fit(lens.config());
  write_results(lens.out(), lens.config(), fit.loaded, fit.results(), fit.images(), {"cpu", "", "double"}, 1);
  std::vector<std::string> warnings;
  const ExchangedLens coolest = read_coolest(lens.out() + "/coolest.json", warnings);
  const ExchangedLens results = read_exchanged(lens.out());
  ASSERT_EQ(coolest.networks.size(), 1u);
  EXPECT_EQ(coolest.networks[0].parameters, results.networks[0].parameters);
  for (std::size_t i = 0; i < results.model.lens.size(); ++i) {
    ASSERT_EQ(coolest.model.lens[i].kind, results.model.lens[i].kind);
    for (std::size_t k = 0; k < results.model.lens[i].values.size(); ++k)
      EXPECT_NEAR(coolest.model.lens[i].values[k], results.model.lens[i].values[k], kRoundTrip);
  }
  // The potential on the pixels is the fit's, in a square of 14 x 14.
  const std::vector<double> psi = read_fits(lens.out() + "/result.fits", "PSI_NN").values,
                            stored = read_fits(lens.out() + "/coolest_network.fits", "").values;
  ASSERT_EQ(stored.size(), 14u * 14u);
  for (std::size_t i = 0; i < psi.size(); ++i) EXPECT_NEAR(stored[14 + i], psi[i], 1e-12);
  // The files of an earlier fit go with it.
  lens.folder().write("out/coolest_lens_5.fits", "old");
  lens.folder().write("out/coolest_mine.fits", "not einfield's");
  write_results(lens.out(), lens.config(), fit.loaded, fit.results(), fit.images(), {"cpu", "", "double"}, 1);
  EXPECT_FALSE(fs::exists(lens.out() + "/coolest_lens_5.fits"));
  EXPECT_TRUE(fs::exists(lens.out() + "/coolest_mine.fits"));
  EXPECT_TRUE(fs::exists(lens.out() + "/coolest_data.fits"));
}

TEST(Coolest, PriorsAndUncertaintiesAreInTheStandardsParameters) {
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(8, 8);
  lens.sigma = {{"lens.0.theta_E", 0.02}, {"lens.0.e1", 0.01}, {"lens.0.e2", 0.03}, {"source.0.amp", 0.5}};
  lens.correlation = {{"lens.0.e1 lens.0.e2", -0.4}, {"lens.0.e2 lens.0.e1", -0.4}};
  write_coolest(folder.path().string(), lens);
  const json file = written(folder);
  const json parameters = file["lensing_entities"][0]["mass_model"][0]["parameters"];
  EXPECT_EQ(parameters["theta_E"]["prior"], json({{"type", "GaussianPrior"}, {"mean", 1.2}, {"width", 0.1}}));
  EXPECT_EQ(parameters["center_x"]["prior"], json({{"type", nullptr}}));
  const json epl = file["lensing_entities"][2]["mass_model"][0]["parameters"];
  EXPECT_EQ(epl["gamma"]["prior"], json({{"type", "UniformPrior"}, {"min_value", 1.5}, {"max_value", 2.5}}));
  EXPECT_NEAR(parameters["theta_E"]["posterior_stats"]["percentile_16th"].get<double>(), 1.18, 1e-15);
  EXPECT_NEAR(parameters["theta_E"]["posterior_stats"]["percentile_84th"].get<double>(), 1.22, 1e-15);
  EXPECT_TRUE(parameters["center_x"]["posterior_stats"]["mean"].is_null());
  // Axis ratio and angle: by finite differences of their formulas.
  const auto q = [](double e1, double e2) { return (1 - std::hypot(e1, e2)) / (1 + std::hypot(e1, e2)); };
  const auto phi = [](double e1, double e2) { return 90 / 3.14159265358979323846 * std::atan2(e2, e1); };
  const auto sigma = [&](const auto& function) {
    const double h = 1e-6, a = 0.01 * (function(0.1 + h, -0.2) - function(0.1 - h, -0.2)) / (2 * h),
                 b = 0.03 * (function(0.1, -0.2 + h) - function(0.1, -0.2 - h)) / (2 * h);
    return std::sqrt(a * a + b * b - 0.8 * a * b);
  };
  const auto spread = [&](const char* name) {
    const json& stats = parameters[name]["posterior_stats"];
    return 0.5 * (stats["percentile_84th"].get<double>() - stats["percentile_16th"].get<double>());
  };
  EXPECT_NEAR(spread("q"), sigma(q), 1e-8);
  EXPECT_NEAR(spread("phi"), sigma(phi), 1e-6);
  const json source = file["lensing_entities"].back()["light_model"][0]["parameters"];
  const json& stats = source["I_eff"]["posterior_stats"];
  EXPECT_NEAR(stats["percentile_84th"].get<double>() - stats["mean"].get<double>(), 0.5 / (0.13 * 0.13), 1e-11);
}

TEST(Coolest, PriorsOfOtherPackages) {
  const TemporaryDirectory folder;
  json file = golden()["coolest"];
  json& parameters = file["lensing_entities"][0]["mass_model"][0]["parameters"];
  parameters["theta_E"]["prior"] = {{"type", "UniformPrior"}, {"min_value", -1}, {"max_value", 5}};
  parameters["center_x"]["prior"] = {{"type", "UniformPrior"}, {"min_value", 3}, {"max_value", 5}};
  parameters["center_y"]["prior"] = {{"type", "LogNormalPrior"}, {"mean", 0}, {"width", 1}};
  parameters["q"]["prior"] = {{"type", "GaussianPrior"}, {"mean", 0.8}, {"width", 0.1}};
  parameters["gamma"]["prior"] = {{"type", "GaussianPrior"}, {"mean", 2}, {"width", 0.1}};
  std::vector<std::string> warnings;
  const std::string name = folder.write("priors.json", file.dump());
  const ExchangedLens lens = read_coolest(name, warnings);
  const std::vector<ParameterPrior>& priors = lens.model.lens[0].priors;
  ASSERT_EQ(priors.size(), 6u);
  EXPECT_EQ(priors[0].lower, 0);
  EXPECT_EQ(priors[0].upper, 5);
  EXPECT_EQ(priors[1].mean, 2);
  EXPECT_EQ(priors[1].sigma, 0.1);
  EXPECT_FALSE(priors[4].bounded());
  const std::string profile = name + ": lensing_entities[0].mass_model[0]";
  EXPECT_EQ(std::vector<std::string>(warnings.begin() + 1, warnings.end()),
            (std::vector<std::string>{profile + ".parameters.q.prior: GaussianPrior is not supported, left out",
                                      profile + ".parameters.center_y.prior: LogNormalPrior is not supported, left out",
                                      profile + ": center_x is outside its bounds; the bounds are left out"}));
}

TEST(Coolest, AnEnsembleIsItsMean) {
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(8, 8);
  lens.networks.push_back({lens.networks[0].shape, initial_weights(lens.networks[0].shape, 8, false)});
  lens.offsets = {0.25, -0.5};
  write_networks(lens, folder);
  const std::vector<std::string> notes = write_coolest(folder.path().string(), lens);
  const bool named = std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
    return note.find("network: the mean of 2 networks") != std::string::npos;
  });
  EXPECT_TRUE(named);
  Grid grid = lens.observation.grid;
  grid.supersampling = 1;
  ThreadPool pool(1);
  const std::vector<double> theta = pixel_centers(grid);
  std::vector<double> expected(64, 0.125);  // less the mean offset, −0.125
  for (const StoredNetwork& member : lens.networks) {
    const std::vector<double> psi = network_fields<double>(member.shape, member.parameters, theta, pool).potential;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += 0.5 * psi[i];
  }
  const std::vector<double> stored = read_fits(folder / "coolest_network.fits", "").values;
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(stored[i], expected[i], 1e-14);
}

TEST(Coolest, OtherNoiseAndPsf) {
  const TemporaryDirectory folder;
  ExchangedLens lens = every_component(8, 8);
  write_networks(lens, folder);
  write_coolest(folder.path().string(), lens);
  json file = written(folder);
  json wht = file["observation"]["noise"]["noise_map"];
  file["observation"]["noise"] = {{"type", "DrizzledNoise"}, {"background_rms", 0.5}, {"wht_map", wht}};
  file["instrument"]["psf"] = {{"type", "GaussianPSF"}, {"fwhm", 2.0}};
  std::vector<std::string> warnings;
  ExchangedLens again = read_coolest(folder.write("other.json", file.dump()), warnings);
  EXPECT_NEAR(again.psf_fwhm, 0.26, 1e-15);
  const Observation& o = lens.observation;
  for (std::size_t i = 0; i < o.image.size(); ++i)
    EXPECT_NEAR(again.observation.noise[i], std::sqrt(0.25 + std::max(o.image[i], 0.0) / o.noise[i]), 1e-14);
  file["observation"]["noise"] = {{"type", "UniformGaussianNoise"}, {"std_dev", 0.75}};
  again = read_coolest(folder.write("uniform.json", file.dump()), warnings);
  EXPECT_EQ(again.observation.noise, std::vector<double>(64, 0.75));
  file["observation"]["noise"] = {{"type", "InstrumentalNoise"}};
  EXPECT_NE(complaint(read_coolest, folder.write("instrumental.json", file.dump()))
                .find("observation.noise.type: not supported, found InstrumentalNoise"),
            std::string::npos);
}

TEST(Coolest, BadTemplatesNameFileAndMember) {
  const TemporaryDirectory folder;
  const json good = golden()["coolest"];
  const std::string mass = "/lensing_entities/0/mass_model/0", light = "/lensing_entities/2/light_model/0";
  const std::string in_mass = "lensing_entities[0].mass_model[0]", in_light = "lensing_entities[2].light_model[0]";
  const struct {
    std::string pointer;
    json value;
    std::string message;
  } cases[] = {
      {"/standard", "OTHER", "standard: unknown standard, found OTHER, expected COOLEST"},
      {"/standard", 7, "standard: wrong type, found the number 7, expected a text"},
      {"/lensing_entities", "none", "lensing_entities: wrong type, found the text \"none\", expected a list"},
      {"/lensing_entities", json::array(), "lensing_entities: no light, expected at least one light_model"},
      {"/lensing_entities", std::vector<int>(10001, 0),
       "lensing_entities: too long, found 10001, expected at most 10000"},
      {"/lensing_entities/0", nullptr, "lensing_entities[0]: wrong type, found null, expected an object"},
      {"/lensing_entities/0/type", "Cluster", "lensing_entities[0].type: no such entity, expected Galaxy or MassField"},
      {"/lensing_entities/0/redshift", nullptr, "lensing_entities[0].redshift: missing"},
      {"/lensing_entities/0/redshift", -1,
       "lensing_entities[0].redshift: out of range, found -1, expected a number >= 0"},
      {mass + "/type", "Chameleon", in_mass + ".type: not supported, found Chameleon, expected one of SIE, PEMD"},
      {mass + "/type", "PixelatedRegularGridPotential", in_mass + ".type: not supported, found PixelatedRegularGrid"},
      {mass + "/parameters", json::array(), in_mass + ".parameters: wrong type, found a list of 0, expected an object"},
      {mass + "/parameters/q", nullptr, in_mass + ".parameters.q: missing"},
      {mass + "/parameters/q/point_estimate/value", nullptr, in_mass + ".parameters.q.point_estimate.value: missing"},
      {mass + "/parameters/q/point_estimate/value", 0, in_mass + ".parameters.q.point_estimate.value: out of range"},
      {mass + "/parameters/q/point_estimate/value", 1.5, in_mass + ".parameters.q.point_estimate.value: out of range"},
      {mass + "/parameters/q/fixed", "yes", in_mass + ".parameters.q.fixed: wrong type, found the text \"yes\""},
      {mass + "/parameters/theta_E/point_estimate/value", -2,
       in_mass + ".parameters.theta_E: out of range, EPL theta_E is -2 arcsec, expected a number > 0 arcsec"},
      {mass + "/parameters/gamma/point_estimate/value", 3.5,
       in_mass + ".parameters.gamma: out of range, EPL gamma is 3.5"},
      {mass + "/parameters/phi/point_estimate/value", "north",
       in_mass + ".parameters.phi.point_estimate.value: wrong type, found the text \"north\""},
      {light + "/type", "Shapelets", in_light + ".type: not supported, found Shapelets, expected Sersic, Uniform or"},
      {light + "/parameters/n/point_estimate/value", 40,
       in_light + ".parameters.n: out of range, SERSIC_ELLIPSE n_sersic"},
      {light + "/parameters/I_eff/point_estimate/value", 0,
       in_light + ".parameters.I_eff.point_estimate.value: out of"},
      {"/lensing_entities/2/mass_model", good["lensing_entities"][0]["mass_model"],
       "lensing_entities[2].mass_model: mass of the source, expected none"},
      {"/instrument/pixel_size", 0, "instrument.pixel_size: out of range, found 0, expected a number > 0 arcsec"},
      {"/instrument/pixel_size", 0.2,
       "observation.pixels: field_of_view does not fit, found pixels of 0.16 x 0.16 arcsec for 16 x 16 pixels"},
      {"/instrument/psf/type", "AiryPSF", "instrument.psf.type: not supported, found AiryPSF"},
      {"/observation/pixels/num_pix_x", 1e9, "observation.pixels.num_pix_x: out of range"},
      {"/observation/pixels/num_pix_x", 16.5, "observation.pixels.num_pix_x: found 16.5, expected a whole number"},
      {"/observation/pixels/field_of_view_x", {1.28, -1.28}, "observation.pixels: field_of_view decreases"},
      {"/observation/pixels/field_of_view_x", {-1.28}, "observation.pixels.field_of_view_x: expected two numbers"},
      {"/observation/pixels/fits_file/path", "/etc/passwd",
       "observation.pixels.fits_file.path: found \"/etc/passwd\", "
       "expected a file in the folder of"},
      {"/observation/pixels/fits_file/path", "../x.fits", "observation.pixels.fits_file.path: found \"../x.fits\""},
      {"/observation/pixels/fits_file/path", "a/../../x", "observation.pixels.fits_file.path: found \"a/../../x\""},
      {"/observation/pixels/fits_file/path", std::string("a\0b", 3),
       "observation.pixels.fits_file.path: found \"a?b\""},
  };
  int number = 0;
  for (const auto& [pointer, value, message] : cases) {
    json bad = good;
    bad[json::json_pointer(pointer)] = value;
    const std::string file = folder.write("bad" + std::to_string(number++) + ".json", bad.dump());
    EXPECT_EQ(complaint(read_coolest, file).substr(0, file.size() + 2 + message.size()), file + ": " + message)
        << pointer << " " << value;
  }
  EXPECT_EQ(complaint(read_coolest, folder.write("missing.json",
                                                 [&] {
                                                   json bad = good;
                                                   bad["observation"]["pixels"]["fits_file"]["path"] = "absent.fits";
                                                   return bad.dump();
                                                 }())),
            folder / "absent.fits" + ": no such file");
}

TEST(Coolest, ItsMapsAreKnownByTheirNames) {
  for (const char* name :
       {"coolest_data.fits", "coolest_noise.fits", "coolest_mask.fits", "coolest_psf.fits", "coolest_network.fits",
        "coolest_lens_0.fits", "coolest_source_12.fits", "coolest_lens_light_3.fits"})
    EXPECT_TRUE(is_coolest_map(name)) << name;
  for (const char* name : {"", "coolest_.fits", "coolest_fits", "coolest.fits", "coolest_data.fit",
                           "xcoolest_data.fits", "coolest_datas.fits", "coolest_lens_.fits", "coolest_lens_0x.fits",
                           "coolest_lens0.fits", "coolest_12.fits", "coolest_light_3.fits", "result.fits"})
    EXPECT_FALSE(is_coolest_map(name)) << name;
}

TEST(Coolest, AThirdPlaneIsRefused) {
  const TemporaryDirectory folder;
  json bad = golden()["coolest"];
  json between = bad["lensing_entities"][0];
  between["redshift"] = 1.1;
  bad["lensing_entities"].push_back(between);
  const std::string file = folder.write("bad.json", bad.dump());
  EXPECT_EQ(complaint(read_coolest, file),
            file +
                ": lensing_entities[3].redshift: a third plane, found 1.1 between 0.4 and 1.9, expected only the "
                "redshifts of lens and source");
}

TEST(Coolest, FilesThatAreNoTemplatesAreRefused) {
  const TemporaryDirectory folder;
  const auto says = [&](const std::string& contents, const std::string& message) {
    const std::string file = folder.write("bad.json", contents);
    EXPECT_EQ(complaint(read_coolest, file), file + ": " + message);
  };
  says("", "not JSON, found an error at byte 1");
  says("{\"standard\": ", "not JSON, found an error at byte 14");
  says("\xff\xfe", "not JSON, found an error at byte 1");
  says("[]", "found a list of 0, expected an object");
  says("{\"a\": 1e999}", "not JSON, found a number out of range");
  says("{\"a\": " + std::string(100000, '['), "not JSON, found an error at byte 100007");
  says("{\"a\": " + std::string(70, '[') + std::string(70, ']') + "}", "nested deeper than 64 levels");
  says("{}", "observation: missing");
  EXPECT_EQ(complaint(read_coolest, folder / "absent.json"), folder / "absent.json" + ": no such file");
  EXPECT_EQ(complaint(read_coolest, folder.path().string()),
            folder.path().string() + ": not a regular file, expected JSON");
}

TEST(Coolest, OwnMembersAreCheckedToo) {
  const TemporaryDirectory folder;
  const ExchangedLens lens = every_component(8, 8);
  write_networks(lens, folder);
  write_coolest(folder.path().string(), lens);
  const json good = written(folder);
  const struct {
    std::string pointer;
    json value;
    std::string message;
  } cases[] = {
      {"/lensing_entities/13/mass_model/0/einfield/network", "../network.safetensors",
       "lensing_entities[13].mass_model[0].einfield.network: found \"../network.safetensors\""},
      {"/lensing_entities/6/mass_model/0/einfield/profile", "GIANT",
       "lensing_entities[6].mass_model[0].einfield.profile: no such profile, found GIANT"},
      {"/lensing_entities/6/mass_model/0/einfield/parameters/Rs", -1,
       "lensing_entities[6].mass_model[0].einfield.parameters.Rs: out of range, NFW Rs is -1 arcsec"},
      {"/lensing_entities/9/mass_model/0/einfield/parameters/m", 2.5,
       "lensing_entities[9].mass_model[0].einfield.parameters.m: out of range, MULTIPOLE m is 2.5"},
      {"/lensing_entities/9/mass_model/0/einfield/fit", "all",
       "lensing_entities[9].mass_model[0].einfield.fit: wrong type"},
      {"/meta/einfield/supersampling", 1000, "meta.einfield.supersampling: out of range"},
  };
  int number = 0;
  for (const auto& [pointer, value, message] : cases) {
    json bad = good;
    bad[json::json_pointer(pointer)] = value;
    const std::string file = folder.write("own" + std::to_string(number++) + ".json", bad.dump());
    EXPECT_EQ(complaint(read_coolest, file).substr(0, file.size() + 2 + message.size()), file + ": " + message);
  }
  // A power law that is no longer isothermal is no SIE, whatever our member says.
  json edited = good;
  edited["lensing_entities"][0]["mass_model"][0]["parameters"]["gamma"]["point_estimate"]["value"] = 2.2;
  std::vector<std::string> warnings;
  const ExchangedLens lens2 = read_coolest(folder.write("edited.json", edited.dump()), warnings);
  EXPECT_EQ(lens2.model.lens[0].kind, LensKind::epl);
  EXPECT_EQ(lens2.model.lens[0].values[1], 2.2);
}

TEST(Coolest, ConfigurationsAreNotOverwrittenUnasked) {
  const TemporaryDirectory folder;
  const ExchangedLens lens = every_component(8, 8);
  const std::string out = folder / "out";
  EXPECT_EQ(write_configuration(out, lens, "x", false), out + "/lens.toml");
  EXPECT_THROW(write_configuration(out, lens, "x", false), InvalidInput);
  EXPECT_NO_THROW(write_configuration(out, lens, "x", true));
  // It is complete: the fit's own reader takes it, networks included.
  const LoadedProblem problem = load_problem(read_config(out + "/lens.toml", {}, false));
  EXPECT_EQ(problem.problem.model.source[3].pixels, lens.model.source[3].pixels);
  EXPECT_EQ(problem.problem.model.source[4].weights, lens.network_lights[0].weights);
  EXPECT_EQ(problem.problem.observation.image, lens.observation.image);
  EXPECT_EQ(problem.problem.observation.psf.supersampling, 2);
  EXPECT_EQ(problem.problem.model.lens[0].priors[0].sigma, 0.1);
  EXPECT_EQ(problem.problem.model.source[4].priors[0].upper, 5);
}

}  // namespace
}  // namespace einfield
