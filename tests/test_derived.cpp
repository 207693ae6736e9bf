// What follows from a fitted lens: distances and masses against astropy, total fluxes against sums of pixels, effective
// Einstein radii against closed forms, and all of it in the results of a fit with lens light.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/cosmology.hpp"
#include "einfield/lens.hpp"
#include "host/fields/critical_curves.hpp"
#include "host/fields/light_flux.hpp"
#include "host/files/fits_io.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

/// astropy 7.1: FlatLambdaCDM, angular_diameter_distance(_z1z2) [Mpc], c²/(4πG) D_l D_s/D_ls (1″)² [GM_sun].
TEST(Cosmology, AgreesWithAstropy) {
  struct Row {
    Cosmology cosmology;
    double lens, source, between, mass;
  };
  const Row rows[] = {
      {{0.5, 2.0, 70, 0.3}, 1259.08359729, 1726.62069147, 1097.07889283, 77452213587.2},
      {{0.222, 0.609, 67.4, 0.315}, 764.384781598, 1433.28218565, 852.74880895, 50216079150.1},
      {{0.9, 6.0, 73, 0.25}, 1586.01977783, 1200.93615394, 770.44507139, 96628897289.2},
      {{0.001, 10, 70, 0.3}, 4.27750806478, 858.204511491, 857.815258257, 167266145.866},
  };
  for (const Row& row : rows) {
    const Cosmology& c = row.cosmology;
    EXPECT_NEAR(c.distance(0, c.z_lens) / row.lens, 1, 1e-9);
    EXPECT_NEAR(c.distance(0, c.z_source) / row.source, 1, 1e-9);
    EXPECT_NEAR(c.distance(c.z_lens, c.z_source) / row.between, 1, 1e-9);
    EXPECT_NEAR(c.mass_per_square_arcsec() / row.mass, 1, 1e-9);
  }
}

/// The sum over pixels of 0.05″ in a square of 40″, each the mean of 5 × 5 points.
double summed(const LightComponent& light) {
  constexpr int kSide = 4000;
  constexpr double kStep = 0.01;
  double sum = 0;
  for (int y = 0; y < kSide; ++y)
    for (int x = 0; x < kSide; ++x) {
      const Vec2<double> at{(x - 0.5 * kSide + 0.5) * kStep, (y - 0.5 * kSide + 0.5) * kStep};
      sum += light.kind == LightKind::gaussian ? gaussian_brightness(light.values.data(), at)
                                               : sersic_brightness(light.values.data(), light.radius, at);
    }
  return sum * kStep * kStep / (0.05 * 0.05);
}

TEST(TotalFlux, IsTheSumOfThePixels) {
  LightComponent sersic;
  sersic.kind = LightKind::sersic_ellipse;
  sersic.values = {3.0, 0.7, 1.3, 0.2, -0.1, 0.05, 0.02};
  EXPECT_NEAR(total_flux(sersic, 0.05) / summed(sersic), 1, 1e-5);
  sersic.radius = RadiusKind::major_axis;
  EXPECT_NEAR(total_flux(sersic, 0.05) / summed(sersic), 1, 1e-5);
  LightComponent gaussian;
  gaussian.kind = LightKind::gaussian;
  gaussian.values = {3.0, 0.7, 0.1, 0};
  EXPECT_NEAR(total_flux(gaussian, 0.05) / summed(gaussian), 1, 1e-6);
  LightComponent pixels;
  pixels.kind = LightKind::pixelated;
  pixels.grid = {2, 1, 0.1, 0, 0};
  pixels.pixels = {2, 3};
  EXPECT_DOUBLE_EQ(total_flux(pixels, 0.05), 20);
  LightComponent uniform;
  uniform.kind = LightKind::uniform;
  uniform.values = {1};
  EXPECT_TRUE(std::isnan(total_flux(uniform, 0.05)));
}

LensComponent lens(LensKind kind, std::vector<double> values) {
  return {kind, values, std::vector<std::uint8_t>(values.size(), false)};
}

TEST(EffectiveRadius, OfEllipticalLensesIsThetaE) {
  const PixelGrid nodes{200, 200, 0.025, 0, 0};
  const auto radius = [&](const std::vector<LensComponent>& smooth) {
    return effective_radius(critical_curves(nodes, smooth, {}));
  };
  // An inscribed polygon of k points lacks 2π²/(3k²) of the area of a circle.
  EXPECT_NEAR(radius({lens(LensKind::sie, {1.3, 0.2, -0.1, 0.05, 0.02})}), 1.3, 2e-4);
  // The radial critical curve of a shallow profile lies inside, a second lens beside.
  EXPECT_NEAR(radius({lens(LensKind::epl, {1.1, 1.6, 0.0, 0.0, 0.0, 0.0})}), 1.1, 2e-4);
  EXPECT_GT(radius({lens(LensKind::sie, {1.3, 0.2, -0.1, 0, 0}), lens(LensKind::sis, {0.05, 2.1, 0})}), 1.25);
  EXPECT_TRUE(std::isnan(radius({lens(LensKind::sis, {3.0, 0, 0})})));  // leaves the nodes
}

TEST(Results, HaveArcsRadiusMassAndMagnification) {
  TemporaryDirectory folder;
  folder.write("lens.toml", R"(
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = { fwhm = 0.2 }
pixel_scale = 0.1
supersampling = 2
zero_point = 25.5
[[lens]]
profile = "SIE"
theta_E = 1.2
e1 = 0.1
e2 = -0.05
fit = ["theta_E"]
[[source]]
profile = "GAUSSIAN"
amp = 1.0
sigma = 0.15
center_x = 0.1
[[lens_light]]
profile = "SERSIC_ELLIPSE"
amp = 20.0
R_sersic = 0.5
n_sersic = 2.0
[optimizer]
name = "levenberg_marquardt"
[cosmology]
z_lens = 0.5
z_source = 2.0
[simulate]
nx = 60
ny = 50
noise = 0.5
)");
  const std::string path = folder / "lens.toml", out = folder / "out";
  simulate(read_config(path, {}, true), folder / "data.fits", false);
  ASSERT_EQ(run_fit(read_config(path, {}, false), run_options(out)).status, FitStatus::ok);
  const auto json = nlohmann::json::parse(std::ifstream(out + "/result.json"));
  const double theta_E = json["parameters"]["lens.0.theta_E"], radius = json["einstein_radius_effective"];
  EXPECT_NEAR(radius, theta_E, 1e-3 * theta_E);
  EXPECT_NEAR(json["einstein_mass"].get<double>() / (kPi * radius * radius * 77452213587.2), 1, 1e-9);
  EXPECT_NEAR(json["source_flux"].get<double>(), 100, 1e-9);
  EXPECT_EQ(json["zero_point"], 25.5);
  EXPECT_NEAR(json["source_magnitude"].get<double>(), 20.5, 1e-9);
  EXPECT_NEAR(json["lens_magnitude"].get<double>(), 25.5 - 2.5 * std::log10(json["lens_flux"].get<double>()), 1e-9);
  const auto map = [&](const char* name) { return read_fits(out + "/result.fits", name).values; };
  const std::vector<double> data = map("DATA"), model = map("MODEL"), light = map("LENS_LIGHT"), arcs = map("ARCS"),
                            of_model = map("ARCS_MODEL");
  double lensed = 0, lens_light = 0;
  for (std::size_t i = 0; i < data.size(); ++i) {
    EXPECT_NEAR(arcs[i], data[i] - light[i], 1e-5 * std::abs(data[i]) + 1e-5);
    EXPECT_NEAR(of_model[i], model[i] - light[i], 1e-5 * std::abs(model[i]) + 1e-5);
    lensed += of_model[i];
    lens_light += light[i];
  }
  EXPECT_NEAR(json["magnification"].get<double>(), lensed / 100, 1e-4 * lensed / 100);
  EXPECT_GT(json["magnification"].get<double>(), 5);
  EXPECT_NEAR(lens_light / json["lens_flux"].get<double>(), 1, 0.05);  // the rest lies outside the image
}

TEST(Results, OfASourceInFrontOfTheLensAreRefused) {
  const SmallLens lens({{"cosmology.z_lens", "0.5"}, {"cosmology.z_source", "0.4"}});
  try {
    lens.config();
    FAIL() << "was accepted";
  } catch (const InvalidInput& error) {
    EXPECT_NE(std::string(error.what()).find("cosmology.z_source: not behind the lens, found 0.4, expected more than"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace einfield
