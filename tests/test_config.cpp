// The configuration: the documented sample, defaults, every kind of mistake with its exact message, --set, the way back
// to TOML; seeded random configurations that must run a step and broken ones that must be refused.
#include "einfield/load.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <sstream>
#include <tuple>

#include "einfield/error.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

/// The shortest configuration that can be fitted.
const std::string kShortest = R"([observation]
image = "data.fits"
noise = 1.5
[[source]]
profile = "GAUSSIAN"
amp = 1
sigma = 0.5
[network]
)";

/// The sample of the user's contract.
const std::string kSample = R"toml(title = "SIE perturbation, noisy (Biggio et al. 2021, Figs. 2 and 4)"
recipe = "biggio2021"
[observation]
image = "sie_noisy.fits[IMAGE]"
noise = "sie_noisy.fits[NOISE]"
psf = "sie_noisy.fits[PSF]"
mask = "mask.fits"
max_noise = 1e3
pixel_scale = 0.08
center_x = 0.0
center_y = 0.0
supersampling = 1
[[lens]]
profile = "SIE"
theta_E = 1.6
e1 = 0.15
e2 = -0.04
center_x = 0.0
center_y = 0.0
fit = []
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 1.2
radius = "major_axis"
n_sersic = 1.5
e1 = -0.09
e2 = 0.03
center_x = 0.4
center_y = 0.15
[[lens_light]]
profile = "GAUSSIAN"
amp = 3.0
sigma = 0.2
fit = ["amp", "center_y"]
[network]
hidden = [200, 200, 200]
activation = "swish"
input_scale = 1.0
last_layer = "random"
seed = 1
initial = ""
[optimizer]
name = "adam"
loss = "mse"
learning_rate = 1e-3
steps = 200
stop = "none"
[regularization]
smoothness = 0.0
negative_convergence = 0.0
negative_total_convergence = 0.0
weight_decay = 0.0
[truth]
file = "sie_noisy.fits"
[simulate]
nx = 100
ny = 100
noise = 2.0
seed = 1
[[perturbation]]
profile = "SIE"
theta_E = 0.15
e1 = 0.0
e2 = 0.3
center_x = 1.9
center_y = -1.4
)toml";

class ConfigFile : public testing::Test {
 protected:
  Config read(const std::string& text, const std::vector<Override>& overrides = {}, bool for_simulation = false) const {
    return read_config(directory_.write("lens.toml", text), overrides, for_simulation);
  }
  /// The message of the InvalidInput, the path of the directory taken out.
  std::string failure(const std::string& text, const std::vector<Override>& overrides = {}) const {
    try {
      read(text, overrides);
    } catch (const InvalidInput& error) {
      std::string message = error.what();
      const std::string prefix = directory_ / "";
      for (std::size_t at; (at = message.find(prefix)) != std::string::npos;) message.erase(at, prefix.size());
      return message;
    }
    return "no InvalidInput";
  }
  TemporaryDirectory directory_;
};

TEST_F(ConfigFile, ReadsTheDocumentedSample) {
  for (const bool for_simulation : {false, true}) {
    const Config c = read(kSample, {}, for_simulation);
    EXPECT_EQ(c.title, "SIE perturbation, noisy (Biggio et al. 2021, Figs. 2 and 4)");
    EXPECT_EQ(c.recipe, "biggio2021");
    EXPECT_EQ(c.observation.image.path, directory_ / "sie_noisy.fits");
    EXPECT_EQ(c.observation.image.hdu, "IMAGE");
    EXPECT_EQ(c.observation.noise.map.hdu, "NOISE");
    EXPECT_EQ(c.observation.psf.type, "file");
    EXPECT_EQ(c.observation.psf.kernel.hdu, "PSF");
    EXPECT_EQ(c.observation.mask.path, directory_ / "mask.fits");
    EXPECT_EQ(c.observation.mask.hdu, "");
    EXPECT_EQ(c.observation.pixel_scale, 0.08);
    ASSERT_EQ(c.model.lens.size(), 1u);
    EXPECT_EQ(c.model.lens[0].kind, LensKind::sie);
    EXPECT_EQ(c.model.lens[0].values, (std::vector<double>{1.6, 0.15, -0.04, 0, 0}));
    EXPECT_EQ(c.model.lens[0].free, std::vector<std::uint8_t>(5, false));
    ASSERT_EQ(c.model.source.size(), 1u);
    EXPECT_EQ(c.model.source[0].kind, LightKind::sersic_ellipse);
    EXPECT_EQ(c.model.source[0].radius, RadiusKind::major_axis);
    EXPECT_EQ(c.model.source[0].values, (std::vector<double>{10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15}));
    ASSERT_EQ(c.model.lens_light.size(), 1u);
    EXPECT_EQ(c.model.lens_light[0].free, (std::vector<std::uint8_t>{true, false, false, true}));
    ASSERT_TRUE(c.model.network.has_value());
    EXPECT_EQ(c.model.network->hidden, (std::vector<int>{200, 200, 200}));
    EXPECT_EQ(c.optimizer.loss, LossKind::mse);
    EXPECT_EQ(c.optimizer.steps, 200);
    EXPECT_EQ(c.truth.path, directory_ / "sie_noisy.fits");
    ASSERT_TRUE(c.simulate.has_value());
    EXPECT_EQ(c.simulate->noise.value, 2.0);
    ASSERT_EQ(c.perturbation.size(), 1u);
    EXPECT_EQ(c.perturbation[0].values, (std::vector<double>{0.15, 0, 0.3, 1.9, -1.4}));
    EXPECT_TRUE(c.warnings.empty());
  }
}

TEST_F(ConfigFile, TextInMemoryIsReadLikeAFile) {
  const Config from_text = read_config_text(kShortest, "the arguments", false);
  EXPECT_EQ(from_text.observation.image.path, "data.fits");
  EXPECT_EQ(*from_text.observation.noise.value, 1.5);
  EXPECT_EQ(from_text.at("source.0.amp"), "the arguments:6: source.0.amp");
  EXPECT_EQ(to_toml(from_text), to_toml(read_config_text(to_toml(from_text), "the arguments", false)));
  try {
    read_config_text(kShortest + "hiden = [3]\n", "the arguments", false);
    FAIL();
  } catch (const InvalidInput& error) {
    EXPECT_STREQ(error.what(), "the arguments:9: network.hiden: unknown key, found hiden, expected hidden");
  }
  // Images in memory make a problem without a file.
  Config config = from_text;
  config.observation.pixel_scale = 0.5;
  const ImageArray image{4, 3, std::vector<double>(12, 2.0)};
  config.observation.image.array = std::make_shared<const ImageArray>(image);
  const LoadedProblem loaded = load_problem(config);
  EXPECT_EQ(loaded.problem.observation.grid.nx, 4);
  EXPECT_EQ(loaded.problem.observation.grid.ny, 3);
  EXPECT_EQ(loaded.problem.observation.image, image.values);
  EXPECT_NE(to_toml(config).find("\nimage = \"data.fits\"\n"), std::string::npos);  // a name, not a path
}

TEST_F(ConfigFile, DefaultsAreThoseOfTheRecipe) {
  for (const std::string recipe : {"", "recipe = 'default'\n", "recipe = 'biggio2021'\n"}) {
    const Config c = read(recipe + kShortest);
    const bool paper = recipe == "recipe = 'biggio2021'\n";
    EXPECT_EQ(c.recipe, paper ? "biggio2021" : "default");
    ASSERT_TRUE(c.network.has_value());
    EXPECT_EQ(c.network->hidden, paper ? (std::vector<int>{200, 200, 200}) : (std::vector<int>{16, 16, 16}));
    EXPECT_EQ(c.network->input_scale, paper ? std::optional<double>(1.0) : std::nullopt);
    EXPECT_EQ(c.network->input_scale_in(2), paper ? 1.0 : 0.5);
    EXPECT_EQ(c.network->fourier, !paper);
    EXPECT_EQ(c.network->ensemble, paper ? 1 : 3);
    EXPECT_EQ(c.network->last_layer_zero, !paper);
    EXPECT_EQ(c.network->seed, 1u);
    EXPECT_EQ(c.network->math, NetworkMath::fp32);
    EXPECT_EQ(c.optimizer.name, paper ? OptimizerKind::adam : OptimizerKind::lbfgs);
    EXPECT_EQ(c.optimizer.loss, paper ? LossKind::mse : LossKind::chi2);
    EXPECT_EQ(c.optimizer.learning_rate, 1e-3);
    EXPECT_EQ(c.optimizer.steps, paper ? 200 : 1000);
    EXPECT_EQ(c.optimizer.stop, paper ? StopRule::none : StopRule::plateau);
    EXPECT_NE(c.regularization.any(), paper);
    EXPECT_EQ(c.observation.max_noise, 1e3);
    EXPECT_EQ(c.observation.supersampling, 1);
    EXPECT_FALSE(c.observation.pixel_scale.has_value());
    EXPECT_EQ(c.observation.psf.type, "");
    EXPECT_FALSE(c.simulate.has_value());
  }
  const Config smooth = read(kShortest.substr(0, kShortest.find("[network]")) + "fit = ['amp']\n");
  EXPECT_FALSE(smooth.model.network.has_value());
  EXPECT_FALSE(smooth.regularization.any());  // there is nothing that its terms could act on
}

TEST_F(ConfigFile, StrengthsComeFromTheEvidenceWhereTheSourceIsFree) {
  const std::string pixels =
      "[[source]]\nprofile = 'PIXELATED'\nnx = 2\nny = 3\npixel_scale = 1\nfit = ['pixels']\n[network]\n";
  const std::string model = kShortest.substr(0, kShortest.find("[[source]]"));
  const Config free = read(model + pixels), fixed = read("recipe = 'evidence'\n" + kShortest);
  for (const Config* c : {&free, &fixed}) {
    EXPECT_EQ(c->optimizer.name, OptimizerKind::gauss_newton);
    EXPECT_TRUE(c->regularization.automatic);
    EXPECT_TRUE(c->model.network->hidden.empty());
    EXPECT_EQ(c->network->spectrum().scale, 4 / std::sqrt(c->model.network->fourier_features));
    EXPECT_GT(c->regularization.curvature, 0);
  }
  EXPECT_GT(free.regularization.source_curvature, 0);
  EXPECT_GT(free.regularization.source_contrast, 1);
  EXPECT_EQ(fixed.regularization.source_curvature, 0) << "no pixels";
  EXPECT_EQ(fixed.regularization.source_contrast, 1) << "no pixels";
  // Also where its own choice is written out, but not where something is asked for that the recipe does not have.
  const std::string same = "[optimizer]\nname = 'gauss_newton'\nloss = 'chi2'\nstop = 'none'\nsteps = 7\n";
  EXPECT_EQ(read(model + pixels + same).model.network->hidden.size(), 0u);
  EXPECT_TRUE(read(model + pixels + same).regularization.automatic);
  for (const std::string other : {"hidden = [8]\n", "[optimizer]\nstop = 'plateau'\n"})
    EXPECT_EQ(read(model + pixels + other).optimizer.name, OptimizerKind::lbfgs) << other;
}

TEST_F(ConfigFile, KeysOverrideTheRecipe) {
  const Config c =
      read("recipe = 'biggio2021'\n" + kShortest +
           "hidden = [16, 8]\ninput_scale = 0.5\nlast_layer = 'zero'\nmath = 'tf32x3'\nseed = 9223372036854775807\n"
           "[optimizer]\nloss = 'chi2'\nlearning_rate = 2e-3\nsteps = 7\nstop = 'chi2'\nstop_chi2 = 1.1\n"
           "best_of_last = 3\ncheckpoint_every = 0\n[regularization]\nsmoothness = 0.1\nweight_decay = 1\n");
  EXPECT_EQ(c.network->hidden, (std::vector<int>{16, 8}));
  EXPECT_EQ(c.model.network->input_scale, 0.5);
  EXPECT_TRUE(c.network->last_layer_zero);
  EXPECT_EQ(c.network->math, NetworkMath::tf32x3);
  EXPECT_EQ(c.network->seed, 9223372036854775807u);
  EXPECT_EQ(c.optimizer.loss, LossKind::chi2);
  EXPECT_EQ(c.optimizer.learning_rate, 2e-3);
  EXPECT_EQ(c.optimizer.steps, 7);
  EXPECT_EQ(c.optimizer.stop, StopRule::chi2);
  EXPECT_EQ(c.optimizer.stop_chi2, 1.1);
  EXPECT_EQ(c.optimizer.best_of_last, 3);
  EXPECT_EQ(c.optimizer.checkpoint_every, 0);
  EXPECT_EQ(c.regularization.smoothness, 0.1);
  EXPECT_EQ(c.regularization.weight_decay, 1.0);
}

TEST_F(ConfigFile, FourierFeatures) {
  EXPECT_FALSE(read("recipe = 'biggio2021'\n" + kShortest).network->fourier);
  EXPECT_EQ(read("recipe = 'biggio2021'\n" + kShortest).model.network->fourier_features, 0);
  EXPECT_EQ(read(kShortest + "encoding = 'none'\ninput_scale = 3\n").model.network->input_scale, 3.0);
  const Config plain = read("recipe = 'biggio2021'\n" + kShortest + "encoding = 'fourier'\n");
  EXPECT_EQ(plain.model.network->fourier_features, 16);
  EXPECT_EQ(plain.network->spectrum().scale, 2.0);
  EXPECT_EQ(plain.network->spectrum().frequencies, Frequencies::normal);
  // As near to each other as a field of 8 units demands.
  const Config even = read(kShortest + "encoding = 'fourier'\nfourier_features = 100\nfrequencies = 'even'\n");
  EXPECT_EQ(even.network->spectrum().scale, 0.4);
  EXPECT_EQ(even.network->spectrum().frequencies, Frequencies::even);
  EXPECT_EQ(plain.model.network->hidden, plain.network->hidden);
  const Config linear =
      read(kShortest + "encoding = 'fourier'\nfourier_features = 9\nhidden = []\nlast_layer = 'random'\n");
  EXPECT_EQ(linear.model.network, (NetworkShape{{}, 1.0, 9}));
  EXPECT_FALSE(linear.network->last_layer_zero);
  const std::string layers = "hidden = [" + std::string("2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2") + "]\n";
  const Config c = read(kShortest + "encoding = 'fourier'\nfourier_features = 5\nfourier_scale = 0.3\n" + layers);
  EXPECT_TRUE(c.network->fourier);
  EXPECT_EQ(c.model.network->fourier_features, 5);
  EXPECT_EQ(c.model.network->input_scale, 1.0);
  EXPECT_EQ(c.network->fourier_scale, 0.3);
  EXPECT_EQ(c.model.network->layers(), 17);
}

TEST_F(ConfigFile, EveryProfileHasItsParameters) {
  const std::string lenses = R"(
[[lens]]
profile = "SIS"
theta_E = 1
[[lens]]
profile = "NIE"
theta_E = 1
s_scale = 0.1
[[lens]]
profile = "EPL"
theta_E = 1
gamma = 2.1
fit = ["gamma", "e1"]
[[lens]]
profile = "NFW"
Rs = 3
alpha_Rs = 0.2
[[lens]]
profile = "NFW_ELLIPSE_POTENTIAL"
Rs = 3
alpha_Rs = 0.2
e1 = 0.1
[[lens]]
profile = "SHEAR"
gamma1 = 0.02
gamma2 = -0.01
ra_0 = 0.5
[[lens]]
profile = "CONVERGENCE"
kappa = 0.02
[[lens]]
profile = "POINT_MASS"
theta_E = 0.1
[[lens]]
profile = "MULTIPOLE"
m = 4
a_m = 0.01
phi_m = 0.3
[[lens]]
profile = "MULTIPOLE"
m = 1
a_m = 0.01
phi_m = 0.3
r_E = "lens.0.theta_E"
fit = ["a_m"]
[[lens]]
profile = "TNFW"
Rs = 0.3
alpha_Rs = 0.02
r_trunc = 1
fit = ["Rs", "alpha_Rs", "r_trunc"]
[[lens]]
profile = "FLEXION"
g1 = 0.01
g2 = -0.01
g3 = 0.002
g4 = 0
fit = ["g1"]
[[lens_light]]
profile = "PIXELATED"
nx = 5
ny = 4
pixel_scale = 0.2
center_y = 0.1
value = 0.5
fit = ["pixels"]
)";
  const Config c = read(kShortest + lenses);
  ASSERT_EQ(c.model.lens.size(), 12u);
  EXPECT_EQ(c.model.lens[2].kind, LensKind::epl);
  EXPECT_EQ(c.model.lens[2].free, (std::vector<std::uint8_t>{false, true, true, false, false, false}));
  EXPECT_EQ(c.model.lens[5].values, (std::vector<double>{0.02, -0.01, 0.5, 0}));
  EXPECT_EQ(c.model.lens[8].values, (std::vector<double>{4, 0.01, 0.3, 0, 0, 1}));
  EXPECT_EQ(c.model.lens[9].follows[5].of, "lens.0.theta_E");
  EXPECT_EQ(c.model.lens[10].free, (std::vector<std::uint8_t>{true, true, true, false, false}));
  EXPECT_EQ(c.model.lens[11].values, (std::vector<double>{0.01, -0.01, 0.002, 0, 0, 0}));
  ASSERT_EQ(c.model.lens_light.size(), 1u);
  EXPECT_EQ(c.model.lens_light[0].grid.nx, 5);
  EXPECT_EQ(c.model.lens_light[0].grid.center_y, 0.1);
  EXPECT_TRUE(c.model.lens_light[0].pixels_free);
  EXPECT_EQ(c.lens_light_start.at(0).value, 0.5);
}

TEST_F(ConfigFile, ReadsANetworkSource) {
  const std::string network =
      "[[source]]\nprofile = 'NETWORK'\namp = 3.5\ncenter_x = 0.2\nhidden = [8, 4]\ninput_scale = 2.5\nseed = 9\n"
      "fit = ['network', 'amp']\n";
  Config c = read(kShortest + network);
  ASSERT_EQ(c.model.source.size(), 2u);
  EXPECT_EQ(c.model.source[1].kind, LightKind::network);
  EXPECT_EQ(c.model.source[1].values, (std::vector<double>{3.5, 0.2, 0}));
  EXPECT_EQ(c.model.source[1].free, (std::vector<std::uint8_t>{true, false, false}));
  EXPECT_TRUE(c.model.source[1].weights_free);
  EXPECT_EQ(c.model.source[1].network.hidden, (std::vector<int>{8, 4}));
  EXPECT_EQ(c.model.source[1].network.input_scale, 2.5);
  EXPECT_EQ(c.source_start.at(1).network.seed, 9u);
  EXPECT_EQ(to_toml(read(to_toml(c))), to_toml(c));
  // Defaults; fixed weights; as lens light.
  c = read(kShortest + "[[lens_light]]\nprofile = 'NETWORK'\namp = 1\n");
  EXPECT_FALSE(c.model.lens_light[0].weights_free);
  EXPECT_EQ(c.model.lens_light[0].network.hidden, (std::vector<int>{64, 64}));
  EXPECT_EQ(c.lens_light_start.at(0).network.seed, 1u);
  EXPECT_EQ(to_toml(read(to_toml(c))), to_toml(c));
  // An encoding, as in [network].
  c = read(kShortest +
           "[[source]]\nprofile = 'NETWORK'\namp = 1\nencoding = 'fourier'\nfourier_features = 5\nfit = ['network']\n");
  EXPECT_EQ(c.model.source[1].network, (NetworkShape{{64, 64}, 3.0, 5}));
  EXPECT_EQ(c.source_start.at(1).network.spectrum().scale, 0.5);
  EXPECT_EQ(to_toml(read(to_toml(c))), to_toml(c));
  // Stages may name the weights, and pixels, which are read later.
  const std::string pixels = "[[source]]\nprofile = 'PIXELATED'\nnx = 2\nny = 3\npixel_scale = 1\nfit = ['pixels']\n";
  c = read(kShortest + network + pixels + "[[optimizer.stage]]\nfree = ['source.1.network', 'source.2.pixels']\n");
  EXPECT_EQ(c.optimizer.stages.at(0).free.size(), 2u);
  EXPECT_NE(failure(kShortest + network + pixels + "[[optimizer.stage]]\nfree = ['source.2.network']\n")
                .find("no free parameter"),
            std::string::npos);
  // The weights alone are something to fit.
  const std::string alone = "[observation]\nimage = 'x'\nnoise = 1\n[[source]]\nprofile = 'NETWORK'\namp = 1\n";
  EXPECT_TRUE(read(alone + "fit = ['network']\n").model.source[0].weights_free);
  EXPECT_EQ(failure(alone), "no InvalidInput");  // a model without a free parameter is evaluated
}

// ---- mistakes
// -----------------------------------------------------------------------------------------------------------

TEST_F(ConfigFile, SaysWhatIsWrong) {
  struct Mistake {
    std::string added, message;  ///< behind kShortest, whose last line is 8
  };
  const std::string sie = "[[lens]]\nprofile = 'SIE'\n";
  const std::vector<Mistake> mistakes = {
      // names
      {"sede = 1", "lens.toml:9: network.sede: unknown key, found sede, expected seed"},
      {"[optimiser]", "lens.toml:9: optimiser: unknown key, found optimiser, expected optimizer"},
      {"[[lenss]]", "lens.toml:9: lenss: unknown key, found lenss, expected lens"},
      {sie + "theta_e = 1.6", "lens.toml:11: lens.0.theta_e: unknown key, found theta_e, expected theta_E"},
      {sie + "theta_E = 1.6\ns_scale = 1",
       "lens.toml:12: lens.0.s_scale: unknown key, found s_scale, expected one of profile, theta_E, e1, e2, center_x, "
       "center_y, bounds, prior, fit"},
      {"[[lens]]\nprofile = 'SEI'", "lens.toml:10: lens.0.profile: no such name, found \"SEI\", expected SIE"},
      {"[[lens_light]]\nprofile = 'sersic_elipse'",
       "lens.toml:10: lens_light.0.profile: no such name, found \"sersic_elipse\", expected SERSIC_ELLIPSE"},
      {"activation = 'tanh'", "lens.toml:9: network.activation: no such name, found \"tanh\", expected swish"},
      {"[optimizer]\nstop = 'never'",
       "lens.toml:10: optimizer.stop: no such name, found \"never\", expected one of none, chi2, heldout, plateau"},
      {"[optimizer]\nstop = 'none'\npatience = 3",
       "lens.toml:11: optimizer.patience: has no effect, found the integer 3, expected only with stop = \"heldout\" or "
       "\"plateau\""},
      {"[optimizer]\nname = 'adam'\nschedule = 'cosine'\nsteps = 5\nwarmup = 5",
       "lens.toml:13: optimizer.warmup: not shorter than the stage, found 5 steps, expected fewer than steps = 5"},
      {"[[optimizer.stage]]\nname = 'lbfgs'\nfree = ['lens.0.gamma']",
       "lens.toml:11: optimizer.stage.0.free: no free parameter has that name, found \"lens.0.gamma\", expected "
       "network, a "
       "block, "
       "a component or a parameter that is free"},
      {"[[optimizer.stage]]\nlos = 3",
       "lens.toml:10: optimizer.stage.0.los: unknown key, found los, expected one of name, learning_rate, steps, "
       "warmup, "
       "schedule, clip_norm, memory, free, stop, starts, valleys, leave_out"},
      {"[optimizer]\nloss = 'chi'", "lens.toml:10: optimizer.loss: no such name, found \"chi\", expected chi2"},
      {sie + "theta_E = 1\nfit = ['theta']",
       "lens.toml:12: lens.0.fit: no such name, found \"theta\", expected theta_E"},
      {sie + "theta_E = 1\nfit = ['e1', 'e1']",
       "lens.toml:12: lens.0.fit: a name given twice, found \"e1\", expected it once"},
      {"[[perturbation]]\nprofile = 'SIS'\ntheta_E = 1\nfit = ['theta_E']",
       "lens.toml:12: perturbation.0.fit: unknown key, found fit, expected one of profile, theta_E, center_x, "
       "center_y"},
      // missing
      {"[[lens]]\ntheta_E = 1",
       "lens.toml:9: lens.0.profile: missing, expected \"SIE\" | \"SIS\" | \"NIE\" | \"EPL\" | \"NFW\" | "
       "\"NFW_ELLIPSE_POTENTIAL\" | \"TNFW\" | \"SHEAR\" | \"FLEXION\" | \"CONVERGENCE\" | \"POINT_MASS\" | "
       "\"MULTIPOLE\""},
      {sie, "lens.toml:9: lens.0.theta_E: missing, expected number > 0 arcsec"},
      {"[truth]", "lens.toml:9: truth.file: missing, expected \"FILE\""},
      {"[simulate]",
       "lens.toml:9: simulate.noise: missing, expected a number >= 0 image unit, or background_rms with "
       "exposure_time"},
      // types
      {"hidden = 200", "lens.toml:9: network.hidden: wrong type, found the integer 200, expected a list of integers"},
      {"hidden = [200, 1.5]",
       "lens.toml:9: network.hidden: wrong type, found the number 1.5, expected an integer 1 to 4096"},
      {"[optimizer]\nsteps = 'many'",
       "lens.toml:10: optimizer.steps: wrong type, found the string \"many\", expected an integer 0 to 1000000000"},
      {"[optimizer]\nsteps = true",
       "lens.toml:10: optimizer.steps: wrong type, found true, expected an integer 0 to 1000000000"},
      {"[optimizer]\nlearning_rate = 1979-05-27",
       "lens.toml:10: optimizer.learning_rate: wrong type, found a date or time, expected a number > 0"},
      {"initial = 3", "lens.toml:9: network.initial: wrong type, found the integer 3, expected a text \"FILE\""},
      {"[lens]\nprofile = 'SIE'", "lens.toml:9: lens: wrong type, found a table, expected [[lens]]"},
      {"[[optimizer]]", "lens.toml:9: optimizer: wrong type, found an array of 1, expected [optimizer]"},
      {sie + "theta_E = 1\nfit = 'theta_E'",
       "lens.toml:12: lens.0.fit: wrong type, found the string \"theta_E\", expected a list of names"},
      {sie + "theta_E = 1\nfit = [1]",
       "lens.toml:12: lens.0.fit: wrong type, found the integer 1, expected one of "
       "\"theta_E\" | \"e1\" | \"e2\" | \"center_x\" | \"center_y\""},
      {"[[lens]]\nprofile = 'MULTIPOLE'\nm = 2.5\na_m = 0\nphi_m = 0",
       "lens.toml:11: lens.0.m: wrong type, found the number 2.5, expected an integer 1 to 100"},
      // ranges
      {sie + "theta_E = -1.2",
       "lens.toml:11: lens.0.theta_E: out of range, found -1.2 arcsec, expected a number > 0 arcsec"},
      {sie + "theta_E = 0",
       "lens.toml:11: lens.0.theta_E: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {sie + "theta_E = inf",
       "lens.toml:11: lens.0.theta_E: out of range, found inf arcsec, expected a number > 0 arcsec"},
      {sie + "theta_E = 1\ncenter_x = nan",
       "lens.toml:12: lens.0.center_x: out of range, found nan arcsec, expected a number in arcsec"},
      {sie + "theta_E = 1\ne1 = 0.6\ne2 = -0.8",
       "lens.toml:12: lens.0.e1: out of range, found e1 = 0.6 and e2 = -0.8, expected e1^2 + e2^2 < 1"},
      {sie + "theta_E = 1\ne2 = 1.0",
       "lens.toml:12: lens.0.e2: out of range, found 1.0, expected a number > -1 and < 1"},
      {"[[source]]\nprofile = 'SERSIC_ELLIPSE'\namp = 1\nR_sersic = 0\nn_sersic = 1",
       "lens.toml:12: source.1.R_sersic: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {"[[source]]\nprofile = 'SERSIC_ELLIPSE'\namp = 1\nR_sersic = 1\nn_sersic = 12",
       "lens.toml:13: source.1.n_sersic: out of range, found 12.0, expected a number > 0.25 and < 10"},
      {"[[lens]]\nprofile = 'MULTIPOLE'\nm = 0\na_m = 0\nphi_m = 0",
       "lens.toml:11: lens.0.m: out of range, found 0, expected an integer 1 to 100"},
      {"hidden = [0]", "lens.toml:9: network.hidden: out of range, found 0, expected an integer 1 to 4096"},
      {"encoding = 'none'\nhidden = []",
       "lens.toml:10: network.hidden: wrong number of layers, found 0, expected 1 to 16, or 0 with encoding = "
       "\"fourier\""},
      {"encoding = 'fourier'\nhidden = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]",
       "lens.toml:10: network.hidden: wrong number of layers, found 16, expected 0 to 15 after the encoding"},
      {"encoding = 'fourier'\nfourier_features = 2049",
       "lens.toml:10: network.fourier_features: out of range, found 2049, expected an integer 1 to 2048"},
      {"encoding = 'fourier'\nfourier_scale = 0",
       "lens.toml:10: network.fourier_scale: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {"seed = -1", "lens.toml:9: network.seed: out of range, found -1, expected an integer >= 0"},
      {"[optimizer]\nsteps = 3000000000",
       "lens.toml:10: optimizer.steps: out of range, found 3000000000, expected an integer 0 to 1000000000"},
      {"[[source]]\nprofile = 'PIXELATED'\nnx = 0\nny = 3\npixel_scale = 1",
       "lens.toml:11: source.1.nx: out of range, found 0 pixels, expected an integer 1 to 4096 pixels"},
      // contradictions
      {"[optimizer]\nstop_chi2 = 2",
       "lens.toml:10: optimizer.stop_chi2: has no effect, found the integer 2, expected only with stop = \"chi2\""},
      {"encoding = 'Fourier'", "lens.toml:9: network.encoding: no such name, found \"Fourier\", expected fourier"},
      {"encoding = 'none'\nfourier_features = 8",
       "lens.toml:10: network.fourier_features: has no effect, found the integer 8, expected only with encoding = "
       "\"fourier\""},
      {"encoding = 'fourier'\ninitial = 'w.safetensors'\nfourier_scale = 2",
       "lens.toml:11: network.fourier_scale: has no effect, found the integer 2, expected only with encoding = "
       "\"fourier\" and without network.initial"},
      {"initial = 'w.safetensors'\nseed = 2",
       "lens.toml:10: network.seed: has no effect, found the integer 2, expected only without network.initial"},
      {"[[source]]\nprofile = 'PIXELATED'\nnx = 3\nny = 3\npixel_scale = 1\nimage = 'x.fits'\nvalue = 1",
       "lens.toml:15: source.1.value: has no effect, found the integer 1, expected only without image"},
      {"[[source]]\nprofile = 'NETWORK'\namp = 1\ninitial = 'w.safetensors'\nseed = 1",
       "lens.toml:13: source.1.seed: has no effect, found the integer 1, expected only without initial"},
      {"[[source]]\nprofile = 'NETWORK'\namp = 1\nhidden = []",
       "lens.toml:12: source.1.hidden: wrong number of layers, found 0, expected 1 to 16, or 0 with encoding = "
       "\"fourier\""},
      {"[[source]]\nprofile = 'NETWORK'\namp = 0",
       "lens.toml:11: source.1.amp: out of range, found 0.0 image unit, expected a number > 0 image unit"},
      {"[[source]]\nprofile = 'NETWORK'\namp = 1\nfit = ['pixels']",
       "lens.toml:12: source.1.fit: no such name, found \"pixels\", expected one of amp, center_x, center_y, network"},
      {"[[source]]\nprofile = 'NETWORK'\namp = 1\n[[lens_light]]\nprofile = 'NETWORK'\namp = 1",
       "lens.toml:13: lens_light.0.profile: found a second NETWORK component, expected at most one in all [[source]] "
       "and [[lens_light]]"},
      {"[regularization]\nsource_gradient = 0.5",
       "lens.toml:10: regularization.source_gradient: has no effect, found 0.5 without a free PIXELATED source, "
       "expected 0 or a [[source]] with fit = [\"pixels\"]"},
      {"[regularization]\nsource_curvature = 0.5\n[[lens_light]]\nprofile = 'PIXELATED'\nnx = 2\nny = 2\npixel_scale = "
       "1\nfit = ['pixels']",
       "lens.toml:10: regularization.source_curvature: has no effect, found 0.5 without a free PIXELATED source, "
       "expected 0 or a [[source]] with fit = [\"pixels\"]"},
      {"[simulate]\nnoise = 1\nbackground_rms = 1",
       "lens.toml:11: simulate.background_rms: has no effect, found the integer 1, expected only without "
       "simulate.noise"},
      {"[simulate]\nbackground_rms = 1",
       "lens.toml:9: simulate.exposure_time: missing, expected a number > 0 s together with background_rms"},
      {"[simulate]\nnoise = 1\npsf = { fwhm = 0.1, size = 4 }",
       "lens.toml:11: simulate.psf.size: even, found 4 pixels, expected an odd number"},
      {"[truth]\nfile = ''", "lens.toml:10: truth.file: not a file name, found \"\", expected \"FILE\" without [HDU]"},
      // not TOML
      {"seed = 1\nseed = 2",
       "lens.toml:10: network.seed: not TOML, Error while parsing key-value pair: cannot redefine existing integer "
       "'seed'"},
      {"[network]",
       "lens.toml:9: network: not TOML, Error while parsing table header: cannot redefine existing table 'network'"},
      {"seed = ", "lens.toml:9: network.seed: not TOML, Error while parsing key-value pair: encountered end-of-file"},
  };
  for (const Mistake& mistake : mistakes)
    EXPECT_EQ(failure(kShortest + mistake.added), mistake.message) << mistake.added;
}

const std::string kLens = "[[lens]]\nprofile = 'EPL'\ntheta_E = 1.2\ngamma = 2\nfit = ['theta_E', 'gamma', 'e1']\n";

TEST_F(ConfigFile, ReadsBoundsAndPriors) {
  const std::string text = kShortest + kLens +
                           "bounds = { theta_E = [0.5, 2], e1 = [-0.3, 0.3] }\n"
                           "prior = { gamma = { mean = 2.05, sigma = 0.1 }, theta_E = { mean = 1, sigma = 0.2 } }\n"
                           "[[lens_light]]\nprofile = 'UNIFORM'\namp = -0.1\nfit = ['amp']\n"
                           "[lens_light.prior]\namp = { mean = 0, sigma = 0.02 }\n"
                           "[optimizer]\nloss = 'chi2'\n";
  const Config c = read(text);
  const std::vector<ParameterPrior>& priors = c.model.lens.at(0).priors;
  ASSERT_EQ(priors.size(), 6u);
  EXPECT_EQ(priors[0].lower, 0.5);
  EXPECT_EQ(priors[0].upper, 2);
  EXPECT_EQ(priors[0].mean, 1);
  EXPECT_EQ(priors[0].sigma, 0.2);
  EXPECT_FALSE(priors[1].bounded());
  EXPECT_EQ(priors[1].mean, 2.05);
  EXPECT_EQ(priors[1].sigma, 0.1);
  EXPECT_EQ(priors[2].lower, -0.3);
  EXPECT_FALSE(priors[3].bounded() || priors[3].gaussian());
  EXPECT_EQ(c.model.lens_light.at(0).priors.at(0).sigma, 0.02);
  EXPECT_TRUE(c.model.source.at(0).priors.empty());
  const std::string written = to_toml(c);
  EXPECT_NE(written.find("[lens.bounds]\ntheta_E = [0.5, 2.0]\ne1 = [-0.3, 0.3]\n[lens.prior]\n"), std::string::npos)
      << written;
  const Config again = read(written);
  EXPECT_EQ(to_toml(again), written);
  EXPECT_EQ(again.model.lens[0].priors[1].mean, 2.05);
}

TEST_F(ConfigFile, SaysWhatIsWrongWithBoundsAndPriors) {
  struct Mistake {
    std::string text, message;
  };
  const std::vector<Mistake> mistakes = {
      {"bounds = 3", "lens.0.bounds: wrong type, found the integer 3, expected [bounds]"},
      {"bounds = { theta_e = [1, 2] }", "lens.0.bounds.theta_e: unknown key, found theta_e, expected theta_E"},
      {"bounds = { theta_E = 1 }",
       "lens.0.bounds.theta_E: wrong type, found the integer 1, expected [lower, upper], two numbers >= 0 arcsec"},
      {"bounds = { theta_E = [1, 2, 3] }",
       "lens.0.bounds.theta_E: wrong type, found an array of 3, expected [lower, upper], two numbers >= 0 arcsec"},
      {"bounds = { theta_E = [2, 1] }",
       "lens.0.bounds.theta_E: an empty interval, found [2.0, 1.0], expected lower < upper"},
      {"bounds = { gamma = [0.5, 2] }",
       "lens.0.bounds.gamma: out of range, found [0.5, 2.0], expected [lower, upper], two numbers 1 to 3"},
      {"bounds = { theta_E = [1, inf] }",
       "lens.0.bounds.theta_E: out of range, found [1.0, inf], expected [lower, upper], two numbers >= 0 arcsec"},
      {"bounds = { theta_E = [1.5, 2] }", "lens.0.theta_E: outside its bounds, found 1.2, expected > 1.5 and < 2"},
      {"bounds = { e2 = [-0.1, 0.1] }", "lens.0.bounds.e2: has no effect, found e2 fixed, expected its name in fit"},
      {"e2 = 0.5\nbounds = { e1 = [-0.9, 0.9] }",
       "lens.0.bounds: ellipticity out of range, found |e| = 1.02956 in a corner of the bounds, expected e1^2 + "
       "e2^2 < 1 "
       "everywhere inside"},
      {"prior = { gamma = 2 }",
       "lens.0.prior.gamma: wrong type, found the integer 2, expected a table { mean = NUMBER or \"PARAMETER\", sigma "
       "= NUMBER > 0 }"},
      {"prior = { gamma = { mean = 2 } }",
       "lens.0.prior.gamma: incomplete, found no sigma, expected a table { mean = NUMBER or \"PARAMETER\", sigma = "
       "NUMBER > 0 }"},
      {"prior = { gamma = { mean = 2, sigma = 0 } }",
       "lens.0.prior.gamma: out of range, found mean = 2.0, sigma = 0.0, expected a table { mean = NUMBER or "
       "\"PARAMETER\", sigma = NUMBER > 0 }"},
      {"prior = { gamma = { mean = 2, sd = 1 } }",
       "lens.0.prior.gamma: unknown key, found sd, expected a table { mean = NUMBER or \"PARAMETER\", sigma = NUMBER > "
       "0 }"},
      {"prior = { gamma = { mean = true, sigma = 1 } }",
       "lens.0.prior.gamma: wrong type, found true, expected a table { mean = NUMBER or \"PARAMETER\", sigma = NUMBER "
       "> 0 }"},
      {"prior = { center_x = { mean = 0, sigma = 1 } }",
       "lens.0.prior.center_x: has no effect, found center_x fixed, expected its name in fit"},
  };
  const std::string end = "[optimizer]\nloss = 'chi2'\n";
  for (const Mistake& mistake : mistakes) {
    std::string message = failure(kShortest + kLens + mistake.text + "\n" + end);
    EXPECT_EQ(message.rfind("lens.toml:1", 0), 0u) << message;
    message.erase(0, message.find(' ') + 1);
    EXPECT_EQ(message, mistake.message);
  }
  const std::string prior = "prior = { gamma = { mean = 2, sigma = 1 } }\n";
  EXPECT_EQ(failure(kShortest + kLens + prior + "[optimizer]\nloss = 'mse'\n"),
            "lens.toml:14: lens.0.prior: a Gaussian prior needs a likelihood, found optimizer.loss = \"mse\", expected "
            "\"chi2\"");
}

TEST_F(ConfigFile, ReadsParametersThatFollowOthers) {
  const std::string text = kShortest +
                           "[[lens]]\nprofile = 'SIE'\ntheta_E = 1.2\ne1 = 'lens_light.0.e1'\n"
                           "e2 = 'lens_light.0.e2'\ncenter_x = '2 * lens_light.0.center_x - 0.5'\nfit = ['theta_E']\n"
                           "prior = { theta_E = { mean = 'lens_light.0.R_sersic + 0.2', sigma = 0.1 } }\n"
                           "[[lens_light]]\nprofile = 'SERSIC_ELLIPSE'\namp = 5\nR_sersic = 0.9\nn_sersic = 4\n"
                           "e1 = 0.1\ncenter_x = 0.3\nfit = ['amp', 'R_sersic', 'e1', 'e2', 'center_x']\n"
                           "[optimizer]\nloss = 'chi2'\n";
  const Config c = read(text);
  const LensComponent& lens = c.model.lens.at(0);
  EXPECT_EQ(lens.values, (std::vector<double>{1.2, 0.1, 0, 2 * 0.3 - 0.5, 0}));
  EXPECT_EQ(lens.follows.at(3).factor, 2);
  EXPECT_EQ(lens.priors.at(0).mean_of.of, "lens_light.0.R_sersic");
  EXPECT_EQ(lens.priors.at(0).mean, 0.9 + 0.2);
  const std::string written = to_toml(c);
  EXPECT_NE(written.find("center_x = \"2 * lens_light.0.center_x - 0.5\"\n"), std::string::npos) << written;
  EXPECT_NE(written.find("theta_E = { mean = \"lens_light.0.R_sersic + 0.2\", sigma = 0.1 }"), std::string::npos);
  EXPECT_EQ(to_toml(read(written)), written);
}

TEST_F(ConfigFile, SaysWhatIsWrongWithRelations) {
  const std::string lens = "[[lens]]\nprofile = 'SIE'\ntheta_E = 1.2\nfit = ['theta_E']\n";
  const auto message = [&](const std::string& line) {
    std::string found = failure(kShortest + lens + line + "\n");
    EXPECT_EQ(found.rfind("lens.toml:13: ", 0), 0u) << found;
    return found.substr(found.find(' ') + 1);
  };
  EXPECT_EQ(message("center_x = 'lens.1.center_x'"),
            "lens.0.center_x: no such parameter, found \"lens.1.center_x\", expected lens.0.center_x");
  EXPECT_EQ(message("center_x = 'lens.0.e1 * lens.0.e2'"),
            "lens.0.center_x: not a relation, found the string \"lens.0.e1 * lens.0.e2\", expected a number in arcsec, "
            "or the parameter that it follows: \"FACTOR * lens_light.0.center_x + OFFSET\"");
  EXPECT_EQ(message("center_x = 'lens.0.center_x'"),
            "lens.0.center_x: follows itself, found \"lens.0.center_x\", expected a parameter that does not lead back "
            "to it");
  EXPECT_EQ(message("e1 = '0.9 * lens.0.theta_E'"),
            "lens.0.e1: the ellipticity can leave its range, found up to |e1| = inf, |e2| = 0, expected e1² + e2² < 1: "
            "both components follow those of one other, or bounds limit what they follow");
  EXPECT_EQ(
      message("prior = { theta_E = { mean = 'two', sigma = 1 } }"),
      "lens.0.prior.theta_E: wrong type, found the string \"two\", expected a table { mean = NUMBER or \"PARAMETER\", "
      "sigma = NUMBER > 0 }");
  EXPECT_EQ(message("prior = { theta_E = { mean = 'lens.3.theta_E', sigma = 1 } }"),
            "lens.0.prior.theta_E: no such parameter, found \"lens.3.theta_E\", expected lens.0.theta_E");
  EXPECT_EQ(message("center_x = 'middle'"),
            "lens.0.center_x: wrong type, found the string \"middle\", expected a number in arcsec");
}

TEST_F(ConfigFile, ReadsAnExpansionAsItsGaussians) {
  const std::string text = kShortest +
                           "[[lens_light]]\nprofile = 'UNIFORM'\namp = 0.1\n"
                           "[[lens_light]]\nprofile = 'MULTI_GAUSSIAN_ELLIPSE'\namp = 6\ncomponents = 3\n"
                           "sigma_min = 0.1\nsigma_max = 1.6\ne1 = 0.2\ncenter_x = 'source.0.center_x'\n"
                           "fit = ['amp', 'e1', 'e2', 'center_y']\nbounds = { center_y = [-1, 1] }\n";
  const Config c = read(text);
  ASSERT_EQ(c.model.lens_light.size(), 4u);
  ASSERT_EQ(c.lens_light_start.size(), 4u);
  const double sizes[] = {0.1, 0.4, 1.6};
  for (std::size_t k = 0; k < 3; ++k) {
    const LightComponent& gaussian = c.model.lens_light[1 + k];
    EXPECT_EQ(gaussian.kind, LightKind::gaussian_ellipse);
    EXPECT_EQ(gaussian.values[0], 2);
    EXPECT_NEAR(gaussian.values[1], sizes[k], 1e-15);
    EXPECT_EQ(gaussian.values[2], 0.2);
  }
  const ParameterLayout layout(c.model);
  EXPECT_EQ(layout.names, (std::vector<std::string>{"lens_light.1.amp", "lens_light.1.e1", "lens_light.1.e2",
                                                    "lens_light.1.center_y", "lens_light.2.amp", "lens_light.3.amp"}));
  EXPECT_EQ(layout.tied.size(), 2 * 3u);
  const std::string written = to_toml(c);
  EXPECT_EQ(to_toml(read(written)), written);
}

TEST_F(ConfigFile, SaysWhatIsWrongWithAnExpansion) {
  const std::string expansion =
      "[[lens_light]]\nprofile = 'MULTI_GAUSSIAN_ELLIPSE'\namp = 6\nsigma_min = 0.1\nsigma_max = 2\n";
  const auto message = [&](const std::string& text) {
    const std::string found = failure(kShortest + text);
    return found.substr(found.find(' ') + 1);
  };
  EXPECT_EQ(message(expansion + "[[lens_light]]\nprofile = 'UNIFORM'\namp = 0.1\n"),
            "lens_light.0.profile: stands for several components, found MULTI_GAUSSIAN_ELLIPSE before another table of "
            "its block, expected it as the last one");
  EXPECT_EQ(message(expansion + "fit = ['sigma']\n"),
            "lens_light.0.fit: the sizes of an expansion are fixed, found \"sigma\", expected other names");
  EXPECT_EQ(message(expansion + "components = 1\n"),
            "lens_light.0.components: out of range, found 1, expected an integer 2 to 40");
  EXPECT_EQ(message("[[lens_light]]\nprofile = 'MULTI_GAUSSIAN_ELLIPSE'\namp = 6\nsigma_min = 3\nsigma_max = 2\n"),
            "lens_light.0.sigma_max: too small, found 2 arcsec, expected > 3 arcsec, sigma_min");
  EXPECT_EQ(message(expansion + "fit = ['amp']\nbounds = { amp = [1, 10] }\n"),
            "lens_light.0: bounds or a prior of amp, found in a MULTI_GAUSSIAN_ELLIPSE, expected none: each of its "
            "Gaussians has its own amplitude");
}

/// A model with everything that the stages of the recipe "galaxy" name.
const std::string kGalaxy = R"(recipe = "galaxy"
[observation]
image = "data.fits"
noise = 1.5
[[lens]]
profile = "SIE"
theta_E = 1.0
fit = ["theta_E"]
[[source]]
profile = "GAUSSIAN"
amp = 1
sigma = 0.5
fit = ["amp", "sigma"]
[[lens_light]]
profile = "GAUSSIAN"
amp = 1
sigma = 0.5
fit = ["amp", "sigma"]
)";

TEST_F(ConfigFile, TheRecipeForGalaxiesHasStages) {
  const Config c = read(kGalaxy);
  const FitSettings settings = fit_settings(c, c.model, 10);
  ASSERT_EQ(settings.stages.size(), 3u);
  for (const StageSettings& stage : settings.stages) EXPECT_EQ(stage.optimizer, OptimizerKind::levenberg_marquardt);
  const auto moves = [&](std::size_t k) { return settings.stages[k].schedule.trainable; };
  using Flags = std::vector<std::uint8_t>;  // theta_E, then the source, then the lens light
  EXPECT_EQ(moves(0), (Flags{0, 0, 0, 1, 1}));
  EXPECT_EQ(moves(1), (Flags{1, 1, 1, 0, 0}));
  EXPECT_EQ(moves(2), Flags{});
  EXPECT_TRUE(settings.stages[0].leaves_out());
  EXPECT_FALSE(settings.stages[1].leaves_out());
  EXPECT_LT(settings.stages[0].leave_out_inner, 1);
  EXPECT_GT(settings.stages[0].leave_out_outer, 1);
  EXPECT_GT(settings.stages[1].starts, 10);
  EXPECT_GT(settings.stages[2].valleys, 1);
  EXPECT_EQ(settings.starts, 1);
  EXPECT_GT(c.optimizer.prior_weight, 1);
  EXPECT_EQ(read(kShortest).optimizer.prior_weight, 1);
  EXPECT_EQ(c.warnings, std::vector<std::string>{});
  EXPECT_EQ(to_toml(read(to_toml(c))), to_toml(c));

  // What [optimizer] gives goes to the stages that it is for.
  const Config changed = read(kGalaxy + "[optimizer]\nstarts = 5\nstarts_seed = 9\nsteps = 40\n");
  const FitSettings few = fit_settings(changed, changed.model, 10);
  EXPECT_EQ(few.starts, 1);
  EXPECT_EQ(few.stages[0].starts, 0);
  EXPECT_EQ(few.stages[1].starts, 5);
  EXPECT_EQ(few.starts_seed, 9u);
  for (const StageSettings& stage : few.stages) EXPECT_EQ(stage.steps, 40);
  // Stages or an optimizer that are given replace those of the recipe.
  EXPECT_EQ(read(kGalaxy + "[optimizer]\nname = 'adam'\n").optimizer.all_stages().size(), 1u);
  EXPECT_EQ(read(kGalaxy + "[[optimizer.stage]]\nstarts = 3\n[[optimizer.stage]]\nvalleys = 2\n")
                .optimizer.all_stages()
                .size(),
            2u);
  const auto expect = [&](const std::string& stages, const std::string& message) {
    EXPECT_NE(failure(kGalaxy + stages).find(message), std::string::npos) << failure(kGalaxy + stages);
  };
  expect("[[optimizer.stage]]\nvalleys = 3\n",
         "optimizer.stage.0.valleys: has no effect, found 3 without an earlier stage with several starts");
  expect("[[optimizer.stage]]\nstarts = 3\n[[optimizer.stage]]\nstarts = 3\nvalleys = 3\n",
         "optimizer.stage.1.valleys: contradicts starts, found 3 and 3 in one stage");
  expect("[[optimizer.stage]]\nname = 'lbfgs'\nleave_out = [0.5, 1.5]\n", "optimizer.stage.0.leave_out: has no effect");
  expect("[network]\n", "network: would fit what a simple source lacks, found no free pixels in a [[source]]");
  const std::string pixels = "profile = 'PIXELATED'\nnx = 4\nny = 4\npixel_scale = 0.1\nfit = ['pixels']\n";
  expect("[[lens_light]]\n" + pixels, "lens_light.1.fit: is not fitted by recipe = \"galaxy\", found free pixels");
  // Pixels of the source, and a network with them, come last.
  for (const std::string network : {"", "[network]\n"}) {
    const Config joint = read(kGalaxy + "[[source]]\n" + pixels + network);
    ASSERT_EQ(joint.optimizer.stages.size(), 4u);
    EXPECT_EQ(joint.optimizer.stages[2].name, OptimizerKind::levenberg_marquardt);
    EXPECT_EQ(joint.optimizer.stages[3].name, OptimizerKind::gauss_newton);
    EXPECT_TRUE(joint.regularization.automatic);
    EXPECT_EQ(joint.network.has_value(), !network.empty());
    EXPECT_EQ(to_toml(read(to_toml(joint))), to_toml(joint));
  }
  expect("[[optimizer.stage]]\nleave_out = [1.5, 0.5]\n", "optimizer.stage.0.leave_out: an empty interval");
}

TEST_F(ConfigFile, LevenbergMarquardtAndItsStarts) {
  const std::string lm = "[optimizer]\nname = 'levenberg_marquardt'\n";
  const Config c = read(kShortest + kLens + lm + "starts = 7\nstarts_seed = 3\n");
  EXPECT_EQ(c.optimizer.name, OptimizerKind::levenberg_marquardt);
  EXPECT_EQ(c.optimizer.starts, 7);
  EXPECT_EQ(c.optimizer.starts_seed, 3u);
  EXPECT_EQ(to_toml(read(to_toml(c))), to_toml(c));
  const FitSettings settings = fit_settings(c, c.model, 5);
  EXPECT_EQ(settings.starts, 7);
  EXPECT_EQ(settings.starts_seed, 3u);

  const auto expect = [&](const std::string& text, const std::string& message) {
    EXPECT_NE(failure(kShortest + text).find(message), std::string::npos) << failure(kShortest + text);
  };
  expect("[optimizer]\nstarts = 2\n",
         "lens.toml:10: optimizer.starts: has no effect, found 2 with another optimizer, expected name = "
         "\"levenberg_marquardt\"");
  expect(kLens + lm + "starts_seed = 2\n",
         "optimizer.starts_seed: has no effect, found the integer 2, expected only with starts > 1");
  expect(lm, "optimizer.name: nothing to fit, found \"levenberg_marquardt\" without a free profile parameter");
  expect(kLens + lm + "free = ['network']\n",
         "optimizer.free: \"network\" names weights or pixels only, which levenberg_marquardt does not fit");
  expect(kLens + lm + "stop = 'chi2'\n",
         "optimizer.stop: has no effect, found a rule for levenberg_marquardt, which ends when it has converged, "
         "expected \"none\"");
}

TEST_F(ConfigFile, SaysWhatIsWrongWithTheObservation) {
  const std::string rest = "[[source]]\nprofile = 'GAUSSIAN'\namp = 1\nsigma = 0.5\nfit = ['amp']\n";
  const auto expect = [&](const std::string& observation, const std::string& message) {
    EXPECT_EQ(failure("[observation]\n" + observation + "\n" + rest), "lens.toml:" + message) << observation;
  };
  expect("noise = 1", "1: observation.image: missing, expected \"FILE[HDU]\"");
  expect("image = 'x'",
         "1: observation.noise: missing, expected \"FILE[HDU]\" or a number > 0 image unit, or background_rms "
         "with exposure_time");
  expect("image = 3", "2: observation.image: wrong type, found the integer 3, expected a text \"FILE[HDU]\"");
  expect("image = ''", "2: observation.image: no file name, found \"\", expected \"FILE[HDU]\"");
  expect("image = 'x[]'",
         "2: observation.image: no HDU between the brackets, found \"x[]\", expected \"FILE[HDU]\" or "
         "\"FILE\"");
  expect("image = 'x'\nnoise = 0",
         "3: observation.noise: out of range, found 0.0 image unit, expected a text \"FILE[HDU]\" or a number > 0 "
         "image unit");
  expect("image = 'x'\nnoise = [1]",
         "3: observation.noise: wrong type, found an array of 1, expected a text \"FILE[HDU]\" or a number > 0 image "
         "unit");
  expect("image = 'x'\nnoise = 1\nexposure_time = 100",
         "4: observation.exposure_time: has no effect, found the integer 100, expected only without observation.noise");
  expect("image = 'x'\nexposure_time = 100",
         "1: observation.background_rms: missing, expected a number > 0 image unit together with exposure_time");
  expect("image = 'x'\nnoise = 1\npixel_scale = 0",
         "4: observation.pixel_scale: out of range, found 0.0 arcsec, expected a number > 0 arcsec");
  expect("image = 'x'\nnoise = 1\nsupersampling = 33",
         "4: observation.supersampling: out of range, found 33, expected an integer 1 to 32");
  expect("image = 'x'\nnoise = 1\npsf = 3",
         "4: observation.psf: wrong type, found the integer 3, expected a text \"FILE[HDU]\" or a table");
  expect("image = 'x'\nnoise = 1\npsf = { fwhm = -1 }",
         "4: observation.psf.fwhm: out of range, found -1.0 arcsec, expected a number > 0 arcsec");
  expect("image = 'x'\nnoise = 1\npsf = { }", "4: observation.psf.fwhm: missing, expected number > 0 arcsec");
  expect("image = 'x'\nnoise = 1\npsf = { fwhm = 1, beta = 3 }",
         "4: observation.psf.beta: has no effect, found the integer 3, expected only with type = \"moffat\"");
  expect("image = 'x'\nnoise = 1\npsf = { type = 'moffat', fwhm = 1 }",
         "4: observation.psf.beta: missing, expected number > 1");
  expect("image = 'x'\nnoise = 1\npsf = { fwhm = 1, size = 1025 }",
         "4: observation.psf.size: out of range, found 1025 pixels, expected an integer 0 to 1023 pixels");
  EXPECT_EQ(failure(rest), "lens.toml:1: observation.image: missing, expected \"FILE[HDU]\"");
  EXPECT_EQ(failure("observation = 'x'"),
            "lens.toml:1: observation: wrong type, found the string \"x\", expected [observation]");
}

TEST_F(ConfigFile, SaysWhatContradictsBetweenBlocks) {
  const std::string observation = "[observation]\nimage = 'x'\nnoise = 1\n";
  const std::string light = "profile = 'GAUSSIAN'\namp = 1\nsigma = 0.5\n";
  EXPECT_EQ(failure(observation + "[network]\n"),
            "lens.toml:1: source: missing, expected at least one [[source]] or [[lens_light]]");
  EXPECT_EQ(failure(observation + "[[lens_light]]\n" + light + "[network]\n"),
            "lens.toml:8: network: has no effect, found no [[source]], expected at least one");
  EXPECT_EQ(
      failure(observation + "[[source]]\n" + light + "fit = ['amp']\n[regularization]\nsmoothness = 0.1\n"),
      "lens.toml:10: regularization.smoothness: has no effect, found 0.1 without [network], expected 0 or a [network]");
  // Each weight asks for what it weighs, and for nothing else.
  const std::string pixels = "[[source]]\nprofile = 'PIXELATED'\nnx = 2\nny = 2\npixel_scale = 1\nfit = ['pixels']\n";
  EXPECT_EQ(failure(observation + pixels + "[regularization]\nsource_gradient = 0.1\nsource_curvature = 0.1\n"),
            "no InvalidInput");
  EXPECT_EQ(failure(observation + pixels + "[regularization]\nsource_gradient = 0.1\nweight_decay = 0.1\n"),
            "lens.toml:12: regularization.weight_decay: has no effect, found 0.1 without [network], expected 0 or a "
            "[network]");
}

TEST_F(ConfigFile, SaysWhatIsWrongWithTheFile) {
  const auto message = [](const std::string& file) {
    try {
      read_config(file, {}, false);
    } catch (const InvalidInput& error) {
      return std::string(error.what());
    }
    return std::string("no InvalidInput");
  };
  EXPECT_EQ(message(directory_ / "absent.toml"),
            directory_ / "absent.toml: no such file, expected a TOML configuration");
  EXPECT_EQ(message(directory_.path().string()),
            directory_.path().string() + ": a directory, expected a TOML configuration");
  EXPECT_EQ(message(directory_.write("big.toml", "#" + std::string(5'000'000, 'x'))),
            directory_ / "big.toml: larger than 4194304 bytes, expected a TOML configuration");
  EXPECT_EQ(failure(""), "lens.toml:1: observation.image: missing, expected \"FILE[HDU]\"");
  EXPECT_EQ(failure("\xff\xfe"), "lens.toml:1: not TOML, found a non-ASCII character outside a \"text\"");
  EXPECT_EQ(failure(std::string("a = 1\0", 6)).substr(0, 12), "lens.toml:1:");
  EXPECT_EQ(failure(std::string(100'000, '[')).substr(0, 12), "lens.toml:1:");
  std::string nested = "a = ";
  for (int i = 0; i < 100'000; ++i) nested += "[";
  EXPECT_EQ(failure(nested).substr(0, 12), "lens.toml:1:");
}

TEST_F(ConfigFile, PathsAreRelativeToTheFile) {
  std::filesystem::create_directory(directory_.path() / "sub");
  directory_.write("sub/lens.toml", kShortest);
  EXPECT_EQ(read_config(directory_ / "sub/lens.toml", {}, false).observation.image.path, directory_ / "sub/data.fits");
  const std::vector<Override> other{{"observation.image", "\"../other.fits[SCI,2]\""}};
  const Config c = read_config(directory_ / "sub/lens.toml", other, false);
  EXPECT_EQ(c.observation.image.path, directory_ / "other.fits");
  EXPECT_EQ(c.observation.image.hdu, "SCI,2");
  const std::vector<Override> absolute{{"observation.image", "\"/data/a[1].fits\""}};
  EXPECT_EQ(read_config(directory_ / "sub/lens.toml", absolute, false).observation.image.path, "/data/a[1].fits");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory_.path() / "sub");
  EXPECT_EQ(read_config("lens.toml", {}, false).observation.image.path, "data.fits");
  std::filesystem::current_path(before);
}

// ---- --set
// --------------------------------------------------------------------------------------------------------------

TEST_F(ConfigFile, SetPutsKeysInPlace) {
  const Config c = read(kSample,
                        {{"lens.0.theta_E", "1.7"},
                         {"source.0.fit", "[\"amp\"]"},
                         {"observation.psf", "{ fwhm = 0.2 }"},
                         {"observation.noise", "3"},
                         {"optimizer.steps", "50"},
                         {"title", "\"other\""},
                         {"recipe", "'default'"},
                         {"simulate.psf.fwhm", "0.3"},
                         {"perturbation.0.profile", "\"EPL\""},
                         {"perturbation.0.gamma", "1.9"},
                         {"lens_light", "[]"}},
                        true);
  EXPECT_EQ(c.model.lens[0].values[0], 1.7);
  EXPECT_EQ(c.model.lens[0].values[1], 0.15);
  EXPECT_TRUE(c.model.source[0].free[0]);
  EXPECT_EQ(c.observation.psf.type, "gaussian");
  EXPECT_EQ(c.observation.noise.value, 3.0);
  EXPECT_TRUE(c.observation.noise.map.empty());
  EXPECT_EQ(c.optimizer.steps, 50);
  EXPECT_EQ(c.title, "other");
  EXPECT_EQ(c.recipe, "default");
  EXPECT_EQ(c.simulate->psf.fwhm, 0.3);
  EXPECT_EQ(c.perturbation[0].kind, LensKind::epl);
  EXPECT_TRUE(c.model.lens_light.empty());
}

TEST_F(ConfigFile, SetCanMakeABlock) {
  const std::string without = kShortest.substr(0, kShortest.find("[network]")) + "fit = ['amp']\n";
  EXPECT_FALSE(read(without).network.has_value());
  EXPECT_EQ(read(without, {{"network.seed", "4"}}).network->seed, 4u);
  EXPECT_TRUE(read(without, {{"network", "{}"}}).network.has_value());
}

TEST_F(ConfigFile, SetNamesItselfInErrors) {
  const auto expect = [&](const std::string& key, const std::string& value, const std::string& message) {
    EXPECT_EQ(failure(kSample, {{key, value}}), "--set: " + message) << key;
  };
  expect("optimizer.stepz", "3", "optimizer.stepz: unknown key, found stepz, expected steps");
  expect("optimizers.steps", "3", "optimizers: unknown key, found optimizers, expected optimizer");
  expect("optimizer.steps", "-3", "optimizer.steps: out of range, found -3, expected an integer 0 to 1000000000");
  expect("lens.0.e1", "0.999999",
         "lens.0.e1: out of range, found e1 = 0.999999 and e2 = -0.04, expected e1^2 + e2^2 < 1");
  expect("lens.1.theta_E", "1",
         "lens.1.theta_E: no such component, found 1 in the configuration, expected lens.N.KEY with N from 0");
  expect("lens.x.theta_E", "1",
         "lens.x.theta_E: no such component, found 1 in the configuration, expected lens.N.KEY with N from 0");
  expect("lens.-1.theta_E", "1",
         "lens.-1.theta_E: no such component, found 1 in the configuration, expected lens.N.KEY with N from 0");
  expect("lens.0", "{}", "lens.0: no such component, found 1 in the configuration, expected lens.N.KEY with N from 0");
  expect("title.x", "1",
         "title.x: not a key, found the string \"SIE perturbation, noisy (Biggio et al. 2021, Figs. 2 and 4)\" before "
         "the last dot");
  expect(".", "1", ".: not a key, expected for example optimizer.steps or lens.0.theta_E");
  expect("optimizer.", "1", "optimizer: wrong type, found the integer 1, expected [optimizer]");
  const std::string not_toml = ", expected a number, true, false, a word, [list] or a \"text\" with its quotes";
  expect("title", "two words", "title: not a TOML value, found two words" + not_toml);
  expect("optimizer.steps", "", "optimizer.steps: not a TOML value, found " + not_toml);
  expect("optimizer.steps", "3\nloss = 'chi2'", "optimizer.steps: not a TOML value, found 3 loss = 'chi2'" + not_toml);
  EXPECT_EQ(failure(kSample, {{"optimizer.steps", "3"}, {"optimizer.steps", "4"}}),
            "--set: optimizer.steps: given twice, found 3 and 4, expected it once");
}

TEST_F(ConfigFile, NamesNeedNoQuotesOnTheCommandLine) {
  const Config c = read(kSample, {{"optimizer.loss", "chi2"}, {"optimizer.stop", " plateau "}, {"title", "true_lens"}});
  EXPECT_EQ(c.optimizer.loss, LossKind::chi2);
  EXPECT_EQ(c.optimizer.stop, StopRule::plateau);
  EXPECT_EQ(c.title, "true_lens");
  EXPECT_EQ(failure(kSample, {{"title", "true"}}), "--set: title: wrong type, found true, expected a text");
  EXPECT_EQ(failure(kSample, {{"title", "nan"}}), "--set: title: wrong type, found the number nan, expected a text");
}

// ---- limits
// ---------------------------------------------------------------------------------------------------------------

TEST_F(ConfigFile, KeysOfManyPartsAreRefusedBeforeTheyAreParsed) {
  const auto parts = [](int n, const std::string& part) {
    std::string key = part;
    for (int i = 1; i < n; ++i) key += "." + part;
    return key;
  };
  const auto expect_refused = [&](const std::string& text, int line) {
    EXPECT_NE(failure(text).find(":" + std::to_string(line) + ": a key with too many parts, expected at most 10"),
              std::string::npos)
        << text.substr(0, 60) << " gives " << failure(text);
  };
  expect_refused("\n" + parts(11, "a") + " = 1\n", 2);
  expect_refused(parts(200'000, "a") + " = 1\n", 1);  // without the limit the stack ends here
  expect_refused("[" + parts(11, "a") + "]", 1);
  expect_refused("[" + parts(11, "a ") + "]", 1);
  expect_refused("x = 1\n[[" + parts(11, "\"a\"") + "]]", 2);
  expect_refused(parts(11, "'a.b'") + " = 1", 1);
  expect_refused("x = \"\"\"\"\"\"\"\"\n" + parts(11, "a") + " = 1", 2);  // a string that holds two quotes
  expect_refused("x = { y = \"\"\"z\"\"\"\"\", " + parts(11, "a") + " = 1 }", 1);
  // What is no key may have as many dots as it likes.
  const std::string dots = parts(50, "a");
  for (const std::string& text : {"title = \"" + dots + "\"", "title = '" + dots + "'", "# " + dots,
                                  "title = \"\"\"\n\"" + dots + "\\\"\"\"\"", "title = '''\n'" + dots + "'''",
                                  std::string("[network]\nhidden = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, "
                                              "1.0, 1.0, 1.0]")})
    EXPECT_EQ(failure(text).find("too many parts"), std::string::npos) << text;
}

TEST_F(ConfigFile, CharactersBeyondAsciiBelongInTexts) {
  const std::string refused = ": not TOML, found a non-ASCII character outside a \"text\"";
  for (const char* text : {"\u00e9", "title = \u00e9", "title\u00e9 = 1", "[\u00e9]", "\ufef7[a]",
                           "title = \"\" \u00e9", "title = \"\"\"\\\u00e9\"\"\"", "title = \"\"\"a \\\n  \u00e9\"\"\""})
    EXPECT_NE(failure(text).find(refused), std::string::npos) << text << " gives " << failure(text);
  for (const char* text : {"title = \"\u00e9\"", "title = '\u00e9'", "# \u00e9", "\ufeff# \u00e9",
                           "title = \"\"\"a \\\n  b \u00e9 \\\\\u00e9\"\"\"", "title = '''\n\\\u00e9'''"})
    EXPECT_EQ(failure(text).find(refused), std::string::npos) << text << " gives " << failure(text);
}

TEST_F(ConfigFile, SizesHaveLimits) {
  const auto repeated = [](int n, const std::string& text) {
    std::string all = kShortest;
    for (int i = 0; i < n; ++i) all += text;
    return all;
  };
  const auto expect_refused = [&](const std::string& text, const std::string& message) {
    EXPECT_NE(failure(text).find(message), std::string::npos) << failure(text);
  };
  expect_refused(repeated(10'001, "[[lens]]\nprofile='SIS'\ntheta_E=1\n"),
                 ": lens: too many, found 10001, expected at most 10000");
  expect_refused(repeated(101, "[[optimizer.stage]]\nsteps = 1\n"),
                 ": optimizer.stage: too many, found 101, expected at most 100");
  const std::string pixels = "[[source]]\nprofile = 'PIXELATED'\nnx = 4096\nny = 4096\npixel_scale = 0.1\n";
  EXPECT_NO_THROW(read(repeated(4, pixels)));
  expect_refused(repeated(5, pixels),
                 ": source.5.nx: too many pixels, found 83886080 in all PIXELATED components up to "
                 "this one, expected at most 67108864");
  const std::string steps = "[[optimizer.stage]]\nsteps = 600000000\n";
  EXPECT_NO_THROW(read(repeated(1, steps)));
  expect_refused(repeated(2, steps),
                 ": optimizer.stage: too many steps, found 1200000000 in all stages, expected at most 1000000000");
}

TEST_F(ConfigFile, NamesOfWhatMovesTakeNoMemoryForEachWeight) {
  // 17 million weights: a text for each would be half a gigabyte.
  const Config c = read(kShortest + "hidden = [4096, 4096]\n[optimizer]\nfree = ['network']\n");
  EXPECT_EQ(c.optimizer.free, std::vector<std::string>{"network"});
}

// ---- back to TOML
// ---------------------------------------------------------------------------------------------------------

TEST_F(ConfigFile, WrittenConfigurationReadsBackTheSame) {
  const std::string title = "title = \"quotes \\\" and \\\\ and \\n and µ\"\n" + kSample.substr(kSample.find('\n') + 1);
  for (const std::vector<Override>& settings :
       {std::vector<Override>{},
        {{"observation.psf", "{ type = \"moffat\", fwhm = 0.2, beta = 3.0, size = 7 }"},
         {"optimizer.stop", "\"chi2\""}},
        {{"network", "{ encoding = \"fourier\", fourier_features = 7, fourier_scale = 0.25, hidden = [3] }"}},
        {{"network", "{ encoding = \"fourier\", frequencies = \"even\", hidden = [3] }"}},
        {{"simulate.psf", "\"k.fits[1]\""}, {"observation.noise", "0.1"}, {"lens.0.theta_E", "0.1234567890123456789"}},
        {{"source", "[{ profile = \"PIXELATED\", nx = 3, ny = 4, pixel_scale = 0.1, image = \"s.fits\" }]"}},
        {{"observation.mask_used", "0"},
         {"observation.noise_kind", "\"weight\""},
         {"observation.psf", "{ fwhm = 0.2 }"},
         {"observation.region",
          "[{ shape = \"circle\", radius = 2.0 }, { shape = \"annulus\", center_x = 0.1, center_y "
          "= -0.2, inner = 0.5, outer = 1.5, keep = false }]"}},
        {{"lens", "[{ profile = \"MULTIPOLE\", m = 3, a_m = 1e-300, phi_m = -0.0 }]"}}}) {
    const Config c = read(title, settings);
    const std::string text = to_toml(c);
    const std::string elsewhere = TemporaryDirectory().path().string();
    const TemporaryDirectory other;
    const Config again = read_config(other.write("again.toml", text), {}, false);
    EXPECT_EQ(to_toml(again), text);
    EXPECT_EQ(again.title, c.title);
    EXPECT_EQ(again.model.lens[0].values, c.model.lens[0].values);
    EXPECT_EQ(again.observation.image.path, c.observation.image.path);
    EXPECT_EQ(again.observation.psf.type, c.observation.psf.type);
    EXPECT_EQ(again.observation.mask_used, c.observation.mask_used);
    EXPECT_EQ(again.observation.noise.kind, c.observation.noise.kind);
    ASSERT_EQ(again.observation.regions.size(), c.observation.regions.size());
    for (std::size_t i = 0; i < c.observation.regions.size(); ++i) {
      const RegionConfig &a = again.observation.regions[i], &b = c.observation.regions[i];
      EXPECT_EQ(std::tie(a.annulus, a.center_x, a.center_y, a.radius, a.inner, a.outer, a.keep),
                std::tie(b.annulus, b.center_x, b.center_y, b.radius, b.inner, b.outer, b.keep));
    }
    EXPECT_EQ(again.model.network, c.model.network);
    EXPECT_EQ(again.network->fourier_scale, c.network->fourier_scale);
    EXPECT_EQ(again.network->frequencies, c.network->frequencies);
  }
}

TEST_F(ConfigFile, EveryKeyThatIsWrittenIsListed) {
  const std::string list = list_keys();
  // The second configuration behind the first, as if they were one.
  std::istringstream lines(
      to_toml(read(kSample, {{"simulate.psf", "{ type = \"moffat\", fwhm = 0.2, beta = 3.0 }"},
                             {"observation.region",
                              "[{ shape = \"circle\", radius = 1 }, { shape = \"annulus\", inner = "
                              "1, outer = 2 }]"}})) +
      "[]\n" + to_toml(read(kShortest + "encoding = 'fourier'\n")));
  std::string block;
  int keys = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("[[", 0) == 0)
      block = line.substr(2, line.size() - 4) + ".N.";
    else if (line.rfind('[', 0) == 0)
      block = line.size() > 2 ? line.substr(1, line.size() - 2) + "." : "";
    const std::size_t equals = line.find(" = ");
    if (equals == std::string::npos) continue;
    std::string key = block + line.substr(0, equals);
    for (const auto& [from, to] : {std::pair<std::string, std::string>{"perturbation.", "lens."},
                                   {"lens_light.", "source."},
                                   {"simulate.psf.", "observation.psf."}})
      if (key.rfind(from, 0) == 0) key = to + key.substr(from.size());
    EXPECT_NE(list.find("\n  " + key + " "), std::string::npos) << key;
    ++keys;
  }
  EXPECT_GT(keys, 60);
}

TEST_F(ConfigFile, TheListHasTypeUnitRangeAndDefault) {
  const std::string list = list_keys();
  const auto row = [&](const std::string& key) {
    const std::size_t at = list.find("\n  " + key + " ");
    if (at == std::string::npos) return std::string("absent");
    std::istringstream words(list.substr(at + 1, list.find('\n', at + 1) - at - 1));
    std::string text, word;
    while (words >> word) text += (text.empty() ? "" : " ") + word;
    return text;
  };
  EXPECT_EQ(row("observation.max_noise"),
            "observation.max_noise number - > 0 1000.0 pixels whose noise is more than this times the median noise are "
            "masked");
  EXPECT_EQ(row("observation.region.N.keep").rfind("observation.region.N.keep true or false - - true true:", 0), 0u);
  EXPECT_EQ(row("lens.N.theta_E"), "lens.N.theta_E number arcsec > 0 required");
  EXPECT_EQ(row("network.hidden").rfind("network.hidden list of integers - 1 to 4096 [16, 16, 16] widths", 0), 0u);
  EXPECT_EQ(row("network.fourier_scale").rfind("network.fourier_scale number arcsec > 0 none distance", 0), 0u);
  EXPECT_EQ(row("network.encoding").rfind("network.encoding \"none\" | \"fourier\" - - \"fourier\" input", 0), 0u);
  EXPECT_EQ(row("optimizer.loss").rfind("optimizer.loss \"mse\" | \"chi2\" - - \"chi2\"", 0), 0u);
  for (const char* profile :
       {"SIE", "SIS", "NIE", "EPL", "NFW", "NFW_ELLIPSE_POTENTIAL", "SHEAR", "CONVERGENCE", "POINT_MASS", "MULTIPOLE",
        "TNFW", "FLEXION", "SERSIC_ELLIPSE", "GAUSSIAN", "PIXELATED", "NETWORK"})
    EXPECT_NE(list.find(std::string("profile = \"") + profile + "\"\n"), std::string::npos) << profile;
}

TEST_F(ConfigFile, NamesOfOtherPackagesAreAnsweredWithOurs) {
  const auto expect = [&](const std::string& from, const std::string& to, const std::string& message) {
    std::string text = kShortest + kLens;
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    EXPECT_NE(failure(text).find(message), std::string::npos) << failure(text);
  };
  expect("'EPL'", "'PEMD'", "no such name, found \"PEMD\", expected EPL");
  expect("theta_E", "einstein_radius", "unknown key, found einstein_radius, expected theta_E");
  expect("theta_E", "centre", "unknown key, found centre, expected center_x and center_y");
}

TEST_F(ConfigFile, KeysOfAnotherOptimizerAreWarnedOf) {
  const auto warnings = [&](const std::string& text) { return read(kShortest + kLens + text).warnings; };
  const std::vector<std::string> one =
      warnings("[optimizer]\nname = 'levenberg_marquardt'\npatience = 7\nstop = 'plateau'\n");
  ASSERT_EQ(one.size(), 1u);
  EXPECT_NE(one[0].find("optimizer.patience: has no effect with levenberg_marquardt, it is for the stopping rules of "
                        "adam and lbfgs"),
            std::string::npos)
      << one[0];
  EXPECT_EQ(warnings("[optimizer]\nname = 'adam'\nmemory = 7\n").size(), 1u);
  EXPECT_EQ(warnings("[optimizer]\nname = 'lbfgs'\nlearning_rate = 0.1\n").size(), 1u);
  EXPECT_TRUE(warnings("[optimizer]\nname = 'lbfgs'\nmemory = 7\n").empty());
  EXPECT_TRUE(warnings("[optimizer]\nmemory = 7\n[[optimizer.stage]]\nname = 'adam'\n[[optimizer.stage]]\n").empty());
  // The configuration that a fit writes names every key.
  const Config c = read(kShortest + kLens + "[optimizer]\nname = 'levenberg_marquardt'\n");
  EXPECT_TRUE(read(to_toml(c)).warnings.empty());
}

TEST(Examples, AreValid) {
  int n = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(EINFIELD_EXAMPLES_DIR)) {
    if (entry.path().extension() != ".toml") continue;
    ++n;
    const Config fit = read_config(entry.path().string(), {}, false);
    EXPECT_FALSE(fit.title.empty()) << entry.path();
    if (fit.simulate) read_config(entry.path().string(), {}, true);
  }
  EXPECT_GE(n, 15);
}

// ---- random configurations
// -------------------------------------------------------------------------------------------------

/// Draws valid configurations: every block, key and profile turns up sooner or later.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : philox_{seed} {}

  std::string configuration() {
    std::string text =
        maybe("title = \"random\"\n") + maybe(one_of({"recipe = 'default'\n", "recipe = 'biggio2021'\n"}));
    text += "[observation]\nimage = 'data.fits[IMAGE]'\n";
    text += one_of({"noise = 1.5\n", "noise = 'data.fits[NOISE]'\n", "background_rms = 0.7\nexposure_time = 20.0\n"});
    text += one_of({"psf = 'data.fits[PSF]'\n", "psf = { fwhm = 0.5, size = 3 }\n", "",
                    "psf = { type = 'moffat', fwhm = 0.4, beta = 3.0, size = 5 }\n"});
    text += maybe("mask = 'data.fits[MASK]'\n") + maybe("max_noise = 50.0\n");
    text += "pixel_scale = " + number(0.2, 0.5) + "\n" + maybe("center_x = 0.1\n") + maybe("supersampling = 2\n");
    for (int i = integer(0, 3); i > 0; --i) text += lens("lens");
    for (int i = integer(1, 2); i > 0; --i) text += light("source");
    const bool free_pixels = text.find("fit = ['pixels']") != std::string::npos;
    for (int i = integer(0, 2); i > 0; --i) text += light("lens_light");
    const bool network = integer(0, 3) > 0;
    if (network) {
      text += "[network]\n" + one_of({"hidden = [5]\n", "hidden = [4, 3]\n", "hidden = [1, 7, 2]\n"});
      text += maybe("last_layer = 'zero'\n") + maybe("seed = 12\n");
      text += one_of({"", "input_scale = 0.3\n",
                      "encoding = 'fourier'\n" + maybe("fourier_features = 3\n") + maybe("fourier_scale = 0.7\n")});
    }
    text += maybe("[optimizer]\n" + maybe("loss = 'chi2'\n") + maybe("learning_rate = 0.01\n") +
                  one_of({"", "stop = 'chi2'\nstop_chi2 = 0.9\n", "stop = 'none'\nbest_of_last = 5\n"}));
    if (network || free_pixels) text += "[regularization]\n";
    if (network)
      text += maybe("smoothness = 0.1\n") + maybe("curvature = 0.3\n") + maybe("negative_total_convergence = 0.2\n");
    if (free_pixels) text += maybe("source_gradient = 0.3\n") + maybe("source_curvature = 0.1\n");
    // Something must be free: one more component that is.
    return text + "[[lens_light]]\nprofile = 'GAUSSIAN'\namp = 1\nsigma = 0.5\nfit = ['amp', 'sigma']\n";
  }

  int integer(int low, int high) { return low + static_cast<int>(philox_.uniform(counter_++) * (high - low + 1)); }

 private:
  std::string number(double low, double high) {
    return std::to_string(low + (high - low) * philox_.uniform(counter_++));
  }
  std::string one_of(const std::vector<std::string>& texts) {
    return texts[static_cast<std::size_t>(integer(0, static_cast<int>(texts.size()) - 1))];
  }
  std::string maybe(const std::string& text) { return integer(0, 1) ? text : ""; }

  /// The keys of a profile from its own table.
  std::string parameters(const ProfileInfo& info) {
    std::string text = std::string("profile = '") + info.name + "'\n", fit;
    for (const ParameterInfo& p : info.parameters) {
      std::string value = number(-0.5, 0.5);
      if (p.range == Range::positive || p.range == Range::reference) value = number(0.1, 2);
      if (p.range == Range::interval) value = number(0.8 * p.lower + 0.2 * p.upper, 0.2 * p.lower + 0.8 * p.upper);
      if (p.range == Range::integer) value = std::to_string(integer(1, 5));
      if (std::isnan(p.default_value) || integer(0, 1)) text += std::string(p.name) + " = " + value + "\n";
      if (!always_fixed(p.range) && integer(0, 2) == 0) fit += std::string(fit.empty() ? "'" : ", '") + p.name + "'";
    }
    return text + maybe("fit = [" + fit + "]\n");
  }
  std::string lens(const std::string& block) {
    return "[[" + block + "]]\n" + parameters(lens_info(static_cast<LensKind>(integer(0, kLensKinds - 1))));
  }
  std::string light(const std::string& block) {
    auto kind = static_cast<LightKind>(integer(0, kLightKinds - 1));
    if (kind == LightKind::network && network_light_) kind = LightKind::gaussian;  // one has place
    if (kind == LightKind::network) {
      network_light_ = true;
      return "[[" + block + "]]\nprofile = 'NETWORK'\namp = " + number(0.5, 3) + "\n" + maybe("center_y = 0.1\n") +
             one_of({"hidden = [5]\n", "hidden = [4, 3]\n"}) + maybe("seed = 3\n") +
             one_of({"", "input_scale = 1.5\n", "encoding = 'fourier'\nfourier_features = 3\n"}) +
             maybe(one_of({"fit = ['network']\n", "fit = ['amp', 'network', 'center_x']\n", "fit = ['center_y']\n"}));
    }
    if (kind == LightKind::pixelated)
      return "[[" + block + "]]\nprofile = 'PIXELATED'\nnx = 3\nny = 4\npixel_scale = " + number(0.2, 1) + "\n" +
             one_of({"value = 0.5\n", "image = 'data.fits[SOURCE]'\n", ""}) + maybe("fit = ['pixels']\n");
    return "[[" + block + "]]\n" + parameters(light_info(kind)) +
           (kind == LightKind::sersic_ellipse ? maybe("radius = 'major_axis'\n") : "");
  }

  Philox philox_;
  std::uint64_t counter_ = 0;
  bool network_light_ = false;  ///< there is one
};

class RandomConfig : public ConfigFile {
 protected:
  RandomConfig() {
    const Philox philox{5};
    const auto map = [&](const std::string& name, int nx, int ny, double low, double high) {
      FitsOutput hdu;
      hdu.name = name;
      hdu.nx = nx;
      hdu.ny = ny;
      for (int i = 0; i < nx * ny; ++i)
        hdu.values.push_back(low + (high - low) * philox.uniform(static_cast<std::uint64_t>(i)));
      return hdu;
    };
    FitsOutput mask = map("MASK", 9, 8, 0, 1);
    for (double& v : mask.values) v = v > 0.3;
    FitsOutput psf = map("PSF", 3, 5, 0.5, 1);
    double sum = 0;
    for (const double v : psf.values) sum += v;
    for (double& v : psf.values) v /= sum;
    write_fits(directory_ / "data.fits",
               {map("IMAGE", 9, 8, 0, 9), map("NOISE", 9, 8, 1, 3), mask, psf, map("SOURCE", 3, 4, 0, 2)});
  }
};

TEST_F(RandomConfig, ValidOnesLoadAndMakeAStep) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    const std::string text = Generator(seed).configuration();
    SCOPED_TRACE(text);
    ASSERT_EQ(failure(text), "no InvalidInput");
    const Config config = read(text);
    const LoadedProblem loaded = load_problem(config);
    const auto backend = make_backend<double>("cpu", {1, 0});
    backend->load({loaded.problem});
    backend->step();
    const StepState state = backend->state(0);
    EXPECT_TRUE(std::isfinite(state.loss) && std::isfinite(state.gradient_norm) && state.bad_step == 0);
    EXPECT_GT(state.gradient_norm, 0);
    EXPECT_EQ(state.updates, 1);

    const std::string written = to_toml(config);
    EXPECT_EQ(to_toml(read(written)), written);
    if (HasFailure()) return;
  }
}

/// A line of the text: what is left and right of the equals sign.
struct Line {
  std::size_t index;
  std::string key, value;
};

std::vector<Line> assignments(const std::string& text) {
  std::vector<Line> result;
  std::istringstream lines(text);
  std::string line;
  for (std::size_t i = 0; std::getline(lines, line); ++i) {
    const std::size_t equals = line.find(" = ");
    if (equals != std::string::npos) result.push_back({i, line.substr(0, equals), line.substr(equals + 3)});
  }
  return result;
}

std::string with_line(const std::string& text, std::size_t index, const std::string& replacement) {
  std::istringstream lines(text);
  std::string result, line;
  for (std::size_t i = 0; std::getline(lines, line); ++i) result += (i == index ? replacement : line) + "\n";
  return result;
}

TEST_F(RandomConfig, BrokenOnesAreRefusedAtTheRightLine) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Generator generator(seed);
    const std::string text = generator.configuration();
    const std::vector<Line> lines = assignments(text);
    const Line& line = lines[static_cast<std::size_t>(generator.integer(0, static_cast<int>(lines.size()) - 1))];
    // Without a profile the other keys mean nothing: its absence is what is reported, at the head of the component.
    const std::string misspelt = line.key == "profile" ? "profile = 'GUASSIAN'" : line.key + "x = " + line.value;
    const std::string twice = line.key + " = 1\n" + line.key + " = 1";
    for (const std::string& broken : {misspelt, line.key + " = {}", line.key + " = 1979-05-27", line.key + " = [[]]",
                                      line.key + " = -inf", line.key + " = nan", line.key + " = ", twice}) {
      const std::string message = failure(with_line(text, line.index, broken));
      const std::string at = std::to_string(line.index + (broken == twice ? 2 : 1));
      EXPECT_EQ(message.rfind("lens.toml:" + at + ": ", 0), 0u) << message << "\nfor " << broken << " in\n" << text;
      EXPECT_NE(message.find(broken == misspelt && line.key != "profile" ? line.key + "x: " : line.key),
                std::string::npos)
          << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
}

TEST_F(RandomConfig, AnyBytesAreReadOrRefused) {
  const Philox philox{17};
  for (std::uint64_t trial = 0; trial < 600; ++trial) {
    std::string text = trial % 3 ? Generator(trial).configuration() : kSample;
    for (std::uint64_t k = 0; k <= trial % 5; ++k) {
      const auto random = philox(trial, k);
      const std::size_t at = random.word[0] % text.size();
      switch (random.word[1] % 3) {
        case 0:
          text[at] = static_cast<char>(random.word[2]);
          break;
        case 1:
          text.erase(at, random.word[2] % 8);
          break;
        default:
          text.insert(at, text.substr(random.word[2] % text.size(), random.word[3] % 12));
      }
    }
    const std::string message = failure(text);
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_TRUE(message == "no InvalidInput" || message.rfind("lens.toml:", 0) == 0) << message << "\nfor\n" << text;
  }
}

}  // namespace
}  // namespace einfield
