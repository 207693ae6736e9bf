// What bad input and a bad machine get from the binary: the exit status, the one line of error, and that nothing was
// written or harmed.
#include <fitsio.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "host/files/fits_io.hpp"
#include "tests/raw_fits.hpp"
#include "tests/run_binary.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int kSide = 16;
const std::string kGnuplotWarning = "einfield: warning: gnuplot is not installed: no figures were drawn\n";

/// Line numbers of the messages below are those of this text.
const std::string kConfig = R"(recipe = "biggio2021"
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
mask = "data.fits[MASK]"
psf = "data.fits[PSF]"
pixel_scale = 0.2
[[lens]]
profile = "SIE"
theta_E = 1.2
e1 = 0.1
fit = ["theta_E"]
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 0.8
n_sersic = 1.5
[network]
hidden = [8]
[optimizer]
steps = 20
)";

/// A change of the configuration.
struct Edit {
  std::string from, to;
};

/// An observation of 16 x 16 pixels in data.fits and lens.toml beside it, both to be spoilt by the tests.
class BadInput : public testing::Test {
 protected:
  BadInput() {
    around_.directory = folder_.path().string();
    image_ = map("IMAGE", kSide, 1.0);
    for (std::size_t i = 0; i < image_.values.size(); ++i) image_.values[i] += 0.25 * static_cast<double>(i % 7);
    noise_ = map("NOISE", kSide, 0.5);
    mask_ = map("MASK", kSide, 1.0);
    psf_ = map("PSF", 3, 0.0);
    psf_.values = {0, 0.125, 0, 0.125, 0.5, 0.125, 0, 0.125, 0};
  }
  static FitsOutput map(const std::string& name, int side, double value) {
    FitsOutput hdu;
    hdu.name = name;
    hdu.nx = hdu.ny = side;
    hdu.values.assign(static_cast<std::size_t>(side * side), value);
    return hdu;
  }

  void write_data() const { write_fits(folder_ / "data.fits", {image_, noise_, mask_, psf_}); }
  void write_config(const std::vector<Edit>& edits = {}) const {
    std::string text = kConfig;
    for (const auto& [from, to] : edits) {
      const std::size_t at = text.find(from);
      ASSERT_NE(at, std::string::npos) << from;
      text.replace(at, from.size(), to);
    }
    folder_.write("lens.toml", text);
  }

  /// fit lens.toml on one thread of the CPU.
  Outcome fit(const Words& more = {}) const {
    Words words = {"fit", "lens.toml", "--backend", "cpu", "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    return run_binary(words, around_);
  }
  /// The words behind "einfield: error: " of a fit that must end with 2, print nothing else and write nothing.
  std::string refusal(const Words& more = {}) const {
    const auto before = files_below(folder_.path());
    const Outcome outcome = fit(more);
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_EQ(outcome.out, "") << outcome.err;
    EXPECT_EQ(files_below(folder_.path()), before) << outcome.err;
    const std::string prefix = "einfield: error: ";
    if (outcome.err.rfind(prefix, 0) != 0 || outcome.err.back() != '\n') return "no message: " + outcome.err;
    return outcome.err.substr(prefix.size(), outcome.err.size() - prefix.size() - 1);
  }
  /// … of the data as they are now.
  std::string refused_data(const std::vector<Edit>& edits = {}) const {
    write_data();
    write_config(edits);
    return refusal();
  }
  /// The warnings of a dry run, which must succeed.
  std::string warnings(const std::vector<Edit>& edits = {}) const {
    write_data();
    write_config(edits);
    const Outcome outcome = fit({"--dry-run"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return outcome.err;
  }

  TemporaryDirectory folder_;
  Surroundings around_;
  FitsOutput image_, noise_, mask_, psf_;
};

// ---- configurations
// -----------------------------------------------------------------------------------------------------

TEST_F(BadInput, ConfigurationFiles) {
  EXPECT_EQ(refusal(), "lens.toml: no such file, expected a TOML configuration");
  fs::create_directory(folder_ / "lens.toml");
  EXPECT_EQ(refusal(), "lens.toml: a directory, expected a TOML configuration");
  fs::remove(folder_ / "lens.toml");
  folder_.write("lens.toml", std::string(5 << 20, '#'));
  EXPECT_EQ(refusal(), "lens.toml: larger than 4194304 bytes, expected a TOML configuration");
  folder_.write("lens.toml", "");
  EXPECT_EQ(refusal(), "lens.toml:1: observation.image: missing, expected \"FILE[HDU]\"");
  folder_.write("lens.toml", std::string("SIMPLE  =\0\xff", 11));
  EXPECT_EQ(refusal().rfind("lens.toml:1: ", 0), 0u) << refusal();
  write_config();
  fs::permissions(folder_ / "lens.toml", fs::perms::none);
  around_.bound_by_permissions = true;
  const Outcome outcome = fit();
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.err,
            "einfield: error: lens.toml: cannot be read (Permission denied), expected a TOML configuration\n");
}

TEST_F(BadInput, Configurations) {
  write_data();
  const struct {
    Edit edit;
    std::string message;
  } cases[] = {
      // ranges: above, an interval, two together, whole numbers, finite numbers
      {{"theta_E = 1.2", "theta_E = -1.2"},
       "lens.toml:10: lens.0.theta_E: out of range, found -1.2 arcsec, expected a number > 0 arcsec"},
      {{"theta_E = 1.2", "theta_E = 0"},
       "lens.toml:10: lens.0.theta_E: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {{"theta_E = 1.2", "theta_E = nan"},
       "lens.toml:10: lens.0.theta_E: out of range, found nan arcsec, expected a number > 0 arcsec"},
      {{"theta_E = 1.2", "theta_E = inf"},
       "lens.toml:10: lens.0.theta_E: out of range, found inf arcsec, expected a number > 0 arcsec"},
      {{"e1 = 0.1", "e1 = 1.5"}, "lens.toml:11: lens.0.e1: out of range, found 1.5, expected a number > -1 and < 1"},
      {{"e1 = 0.1", "e2 = 0.7\ne1 = 0.8"},
       "lens.toml:12: lens.0.e1: out of range, found e1 = 0.8 and e2 = 0.7, expected e1^2 + e2^2 < 1"},
      {{"R_sersic = 0.8", "R_sersic = 0.0"},
       "lens.toml:16: source.0.R_sersic: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {{"n_sersic = 1.5", "n_sersic = 0.2"},
       "lens.toml:17: source.0.n_sersic: out of range, found 0.2, expected a number > 0.25 and < 10"},
      {{"n_sersic = 1.5", "n_sersic = 12"},
       "lens.toml:17: source.0.n_sersic: out of range, found 12.0, expected a number > 0.25 and < 10"},
      {{"amp = 10.0", "amp = -10.0"},
       "lens.toml:15: source.0.amp: out of range, found -10.0 image unit, expected a number > 0 image unit"},
      {{"pixel_scale = 0.2", "pixel_scale = 0"},
       "lens.toml:7: observation.pixel_scale: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {{"pixel_scale = 0.2", "pixel_scale = 0.2\nsupersampling = 33"},
       "lens.toml:8: observation.supersampling: out of range, found 33, expected an integer 1 to 32"},
      {{"hidden = [8]", "hidden = [8, 0]"},
       "lens.toml:19: network.hidden: out of range, found 0, expected an integer 1 to 4096"},
      {{"hidden = [8]", "hidden = []"},
       "lens.toml:19: network.hidden: wrong number of layers, found 0, expected 1 to 16, or 0 with encoding = "
       "\"fourier\""},
      {{"steps = 20", "steps = -1"},
       "lens.toml:21: optimizer.steps: out of range, found -1, expected an integer 0 to 1000000000"},
      {{"steps = 20", "learning_rate = 0"},
       "lens.toml:21: optimizer.learning_rate: out of range, found 0.0, expected a number > 0"},
      {{"[optimizer]", "[regularization]\nsmoothness = -1\n[optimizer]"},
       "lens.toml:21: regularization.smoothness: out of range, found -1.0, expected a number >= 0"},
      {{"noise = \"data.fits[NOISE]\"", "noise = -0.5"},
       "lens.toml:4: observation.noise: out of range, found -0.5 image unit, expected a text \"FILE[HDU]\" or a number "
       "> 0 "
       "image unit"},
      {{"psf = \"data.fits[PSF]\"", "psf = { fwhm = 0 }"},
       "lens.toml:6: observation.psf.fwhm: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {{"psf = \"data.fits[PSF]\"", "psf = { type = \"moffat\", fwhm = 0.3, beta = 1 }"},
       "lens.toml:6: observation.psf.beta: out of range, found 1.0, expected a number > 1"},
      {{"psf = \"data.fits[PSF]\"", "psf = { fwhm = 0.3, size = 4 }"},
       "lens.toml:6: observation.psf.size: even, found 4 pixels, expected an odd number"},
      {{"profile = \"SIE\"", "profile = \"EPL\"\ngamma = 3"},
       "lens.toml:10: lens.0.gamma: out of range, found 3.0, expected a number > 1 and < 3"},
      {{"[[source]]", "[[lens]]\nprofile = \"MULTIPOLE\"\nm = 0\na_m = 0.1\nphi_m = 0\n[[source]]"},
       "lens.toml:15: lens.1.m: out of range, found 0, expected an integer 1 to 100"},

      {{"pixel_scale = 0.2", "mask_used = 2"},
       "lens.toml:7: observation.mask_used: out of range, found 2, expected an integer 0 to 1"},
      {{"[[lens]]", "[[observation.region]]\nshape = \"circle\"\nradius = 0\n[[lens]]"},
       "lens.toml:10: observation.region.0.radius: out of range, found 0.0 arcsec, expected a number > 0 arcsec"},
      {{"[[lens]]", "[[observation.region]]\nshape = \"annulus\"\ninner = 2\nouter = 1.5\n[[lens]]"},
       "lens.toml:11: observation.region.0.outer: not larger than the inner radius, found 1.5 arcsec, expected a "
       "number > "
       "inner "
       "= 2 arcsec"},

      // unknown keys and names, the nearest one beside them
      {{"theta_E = 1.2", "thetaE = 1.2"}, "lens.toml:10: lens.0.thetaE: unknown key, found thetaE, expected theta_E"},
      {{"[[source]]", "[[sources]]"}, "lens.toml:13: sources: unknown key, found sources, expected source"},
      {{"steps = 20", "iterations = 20"},
       "lens.toml:21: optimizer.iterations: unknown key, found iterations, expected one of name, loss, learning_rate, "
       "steps, warmup, schedule, clip_norm, memory, free, stop, prior_weight, stop_chi2, patience, tolerance, "
       "held_out, "
       "held_out_seed, "
       "best_of_last, starts, starts_seed, checkpoint_every, stage"},
      {{"profile = \"SIE\"", "profile = \"SIEE\""},
       "lens.toml:9: lens.0.profile: no such name, found \"SIEE\", expected SIE"},
      {{"profile = \"SIE\"", "profile = \"sie\""},
       "lens.toml:9: lens.0.profile: no such name, found \"sie\", expected SIE"},
      {{"profile = \"SERSIC_ELLIPSE\"", "profile = \"SERSIC\""},
       "lens.toml:14: source.0.profile: no such name, found \"SERSIC\", expected SERSIC_ELLIPSE"},
      {{"steps = 20", "loss = \"chi\""}, "lens.toml:21: optimizer.loss: no such name, found \"chi\", expected chi2"},
      {{"steps = 20", "stop = \"soon\""},
       "lens.toml:21: optimizer.stop: no such name, found \"soon\", expected one of none, chi2, heldout, plateau"},
      {{"biggio2021", "biggio"}, "lens.toml:1: recipe: no such name, found \"biggio\", expected biggio2021"},
      {{"fit = [\"theta_E\"]", "fit = [\"theta_e\", \"gamma\"]"},
       "lens.toml:12: lens.0.fit: no such name, found \"theta_e\", expected theta_E"},

      {{"pixel_scale = 0.2", "noise_kind = \"rms\""},
       "lens.toml:7: observation.noise_kind: no such name, found \"rms\", expected one of sigma, variance, weight"},
      {{"[[lens]]", "[[observation.region]]\nshape = \"box\"\n[[lens]]"},
       "lens.toml:9: observation.region.0.shape: no such name, found \"box\", expected one of circle, annulus"},
      {{"[[lens]]", "[[observation.region]]\nshape = \"circle\"\nradius = 1\ncentre_x = 2\n[[lens]]"},
       "lens.toml:11: observation.region.0.centre_x: unknown key, found centre_x, expected center_x"},

      // wrong types
      {{"theta_E = 1.2", "theta_E = \"1.2\""},
       "lens.toml:10: lens.0.theta_E: wrong type, found the string \"1.2\", expected a number > 0 arcsec"},
      {{"steps = 20", "steps = 20.0"},
       "lens.toml:21: optimizer.steps: wrong type, found the number 20.0, expected an integer 0 to 1000000000"},
      {{"hidden = [8]", "hidden = 8"},
       "lens.toml:19: network.hidden: wrong type, found the integer 8, expected a list of integers"},
      {{"image = \"data.fits[IMAGE]\"", "image = true"},
       "lens.toml:3: observation.image: wrong type, found true, expected a text \"FILE[HDU]\""},
      {{"[[lens]]", "[lens]"}, "lens.toml:8: lens: wrong type, found a table, expected [[lens]]"},
      {{"[network]", "[[network]]"}, "lens.toml:18: network: wrong type, found an array of 1, expected [network]"},

      {{"[[lens]]", "[[observation.region]]\nshape = \"circle\"\nradius = 1\nkeep = 1\n[[lens]]"},
       "lens.toml:11: observation.region.0.keep: wrong type, found the integer 1, expected true or false"},
      {{"[[lens]]", "[observation.region]\nshape = \"circle\"\nradius = 1\n[[lens]]"},
       "lens.toml:8: observation.region: wrong type, found a table, expected [[region]]"},

      // duplicate, missing, contradicting, useless
      {{"[[lens]]", "[[observation.region]]\nshape = \"circle\"\n[[lens]]"},
       "lens.toml:8: observation.region.0.radius: missing, expected number > 0 arcsec"},
      {{"[[lens]]", "[[observation.region]]\nradius = 1\n[[lens]]"},
       "lens.toml:8: observation.region.0.shape: missing, expected \"circle\" | \"annulus\""},
      {{"[[lens]]", "[[observation.region]]\nshape = \"annulus\"\ninner = 0\nouter = 1\nradius = 1\n[[lens]]"},
       "lens.toml:12: observation.region.0.radius: has no effect, found the integer 1, expected only with shape = "
       "\"circle\""},
      {{"noise = \"data.fits[NOISE]\"", "noise = 0.5\nnoise_kind = \"variance\""},
       "lens.toml:5: observation.noise_kind: has no effect, found the string \"variance\", expected only with a map as "
       "observation.noise"},
      {{"mask = \"data.fits[MASK]\"", "mask_used = 0"},
       "lens.toml:5: observation.mask_used: has no effect, found the integer 0, expected only with observation.mask"},
      {{"theta_E = 1.2", "theta_E = 1.2\ntheta_E = 1.3"},
       "lens.toml:11: lens.0.theta_E: not TOML, Error while parsing key-value pair: cannot redefine existing "
       "floating-point "
       "'theta_E'"},
      {{"[optimizer]", "[observation]\n[optimizer]"},
       "lens.toml:20: observation: not TOML, Error while parsing table header: cannot redefine existing table "
       "'observation'"},
      {{"theta_E = 1.2", "theta_E 1.2"},
       "lens.toml:10: lens.0.theta_E 1.2: not TOML, Error while parsing key-value pair: expected '=', saw '1'"},
      {{"theta_E = 1.2\n", ""}, "lens.toml:8: lens.0.theta_E: missing, expected number > 0 arcsec"},
      {{"profile = \"SIE\"\n", ""},
       "lens.toml:8: lens.0.profile: missing, expected \"SIE\" | \"SIS\" | \"NIE\" | \"EPL\" | \"NFW\" | "
       "\"NFW_ELLIPSE_POTENTIAL\" | \"TNFW\" | \"SHEAR\" | \"FLEXION\" | \"CONVERGENCE\" | \"POINT_MASS\" | "
       "\"MULTIPOLE\""},
      {{"noise = \"data.fits[NOISE]\"\n", ""},
       "lens.toml:2: observation.noise: missing, expected \"FILE[HDU]\" or a number > 0 image unit, or background_rms "
       "with "
       "exposure_time"},
      {{"noise = \"data.fits[NOISE]\"\n", "background_rms = 0.5\n"},
       "lens.toml:2: observation.exposure_time: missing, expected a number > 0 s together with background_rms"},
      {{"pixel_scale = 0.2", "background_rms = 0.5"},
       "lens.toml:7: observation.background_rms: has no effect, found the number 0.5, expected only without "
       "observation.noise"},
      {{"steps = 20", "stop_chi2 = 1.1"},
       "lens.toml:21: optimizer.stop_chi2: has no effect, found the number 1.1, expected only with stop = \"chi2\""},
      {{"[network]\nhidden = [8]", "[regularization]\nsmoothness = 0.1"},
       "lens.toml:19: regularization.smoothness: has no effect, found 0.1 without [network], expected 0 or a "
       "[network]"},
      {{"fit = [\"theta_E\"]\n", "fit = [\"theta_E\", \"theta_E\"]\n"},
       "lens.toml:12: lens.0.fit: a name given twice, found \"theta_E\", expected it once"},
      {{"[optimizer]", "[truth]\nfile = \"data.fits[KAPPA_TRUE]\"\n[optimizer]"},
       "lens.toml:21: truth.file: not a file name, found \"data.fits[KAPPA_TRUE]\", expected \"FILE\" without [HDU]"},
      {{"hidden = [8]", "initial = \"none.safetensors\""}, "none.safetensors: no such file"},
      {{"[optimizer]", "[truth]\nfile = \"data.fits\"\n[optimizer]"},
       "data.fits[IMAGE_TRUE]: no such HDU, expected one of IMAGE, NOISE, MASK, PSF"},
  };
  for (const auto& [edit, message] : cases) {
    write_config({edit});
    EXPECT_EQ(refusal(), message);
  }
}

// ---- FITS files
// ---------------------------------------------------------------------------------------------------------

/// The image of these tests is a file of its own, of any content.
class BadFits : public BadInput {
 protected:
  BadFits() {
    write_config({{"image = \"data.fits[IMAGE]\"", "image = \"x.fits\""},
                  {"noise = \"data.fits[NOISE]\"", "noise = 0.5"},
                  {"mask = \"data.fits[MASK]\"\n", ""},
                  {"psf = \"data.fits[PSF]\"\n", ""},
                  {"pixel_scale = 0.2\n", ""}});
  }
  std::string refused(const std::string& bytes, const std::string& hdu = "") const {
    folder_.write("x.fits", bytes);
    return refusal({"--set", "observation.image=\"" + (folder_ / "x.fits") + hdu + "\""})
        .substr(folder_.path().string().size() + 1);
  }
  /// A primary image of zeros with further cards; 16 x 16 unless the axes are given.
  static std::string image(const Words& more = {}, const Words& axes = {"NAXIS1  = 16", "NAXIS2  = 16"}) {
    Words cards = {"SIMPLE  = T", "BITPIX  = -64", "NAXIS   = " + std::to_string(axes.size())};
    cards.insert(cards.end(), axes.begin(), axes.end());
    cards.insert(cards.end(), more.begin(), more.end());
    return raw_fits(cards, 16 * 16 * 8);
  }
};

TEST_F(BadFits, Files) {
  EXPECT_EQ(refusal(), "x.fits: no such file");
  EXPECT_EQ(refused(""), "x.fits: empty file, expected FITS");
  EXPECT_EQ(refused("\x89PNG and so on"), "x.fits: not a FITS file, expected one that begins with SIMPLE");
  const std::string whole = image();
  EXPECT_EQ(refused(whole.substr(0, 1000)),
            "x.fits: truncated, found 1000 bytes, expected a FITS header of 2880 at least");
  EXPECT_EQ(refused(whole.substr(0, 2880 + 1000)),
            "x.fits[PRIMARY]: truncated, found 3880 bytes in the file, expected 4928");
  fs::remove(folder_ / "x.fits");
  fs::create_directory(folder_ / "x.fits");
  EXPECT_EQ(refusal(), "x.fits: not a regular file, expected FITS");
  fs::remove(folder_ / "x.fits");
  folder_.write("x.fits", whole);
  fs::permissions(folder_ / "x.fits", fs::perms::none);
  around_.bound_by_permissions = true;
  const Outcome outcome = fit();
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.err, "einfield: error: x.fits: cannot be read (Permission denied)\n");
}

TEST_F(BadFits, Compression) {
  EXPECT_EQ(refused("\x1f\x8b is not all that gzip begins with" + std::string(6000, 'x')),
            "x.fits: cannot be read as FITS (error uncompressing image)");
  // A name that ends in .gz makes CFITSIO compress the file as a whole.
  fitsfile* file = nullptr;
  int status = 0;
  long axes[] = {kSide, kSide};
  std::vector<double> pixels(kSide * kSide);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::sin(static_cast<double>(i));
  fits_create_file(&file, (folder_ / "whole.fits.gz").c_str(), &status);
  fits_create_img(file, -64, 2, axes, &status);
  fits_write_img(file, TDOUBLE, 1, kSide * kSide, pixels.data(), &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0);
  const std::string zipped = folder_.read("whole.fits.gz");
  EXPECT_EQ(refused(zipped.substr(0, zipped.size() / 2)),
            "x.fits[PRIMARY]: damaged, the pixels cannot be read (tried to move past end of file)");
  // Tiles whose bytes are not what their compression makes.
  fits_create_diskfile(&file, (folder_ / "tiles.fits").c_str(), &status);
  fits_set_compression_type(file, GZIP_1, &status);
  fits_set_quantize_level(file, 0, &status);
  fits_create_img(file, -64, 2, axes, &status);
  fits_update_key_str(file, "EXTNAME", "IMAGE", nullptr, &status);
  fits_write_img(file, TDOUBLE, 1, kSide * kSide, pixels.data(), &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0);
  std::string tiles = folder_.read("tiles.fits");
  const std::size_t tile = tiles.find("\x1f\x8b");
  ASSERT_NE(tile, std::string::npos);
  for (std::size_t i = tile + 12; i < tile + 60; ++i) tiles[i] = '\x55';
  EXPECT_EQ(refused(tiles), "x.fits[IMAGE]: damaged, the pixels cannot be read (error uncompressing image)");
}

TEST_F(BadFits, Hdus) {
  const std::string empty = raw_fits({"SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", "EXTEND  = T"});
  const auto extension = [](const std::string& name) {
    return raw_fits({"XTENSION= 'IMAGE   '", "BITPIX  = -64", "NAXIS   = 2", "NAXIS1  = 16", "NAXIS2  = 16",
                     "PCOUNT  = 0", "GCOUNT  = 1", "EXTNAME = '" + name + "'"},
                    16 * 16 * 8);
  };
  const std::string table =
      raw_fits({"XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 8", "NAXIS2  = 1", "PCOUNT  = 0",
                "GCOUNT  = 1", "TFIELDS = 1", "TFORM1  = '1D'", "EXTNAME = 'STARS'"},
               8);
  EXPECT_EQ(refused(empty), "x.fits: no image HDU, found PRIMARY (no data)");
  EXPECT_EQ(refused(empty + table), "x.fits: no image HDU, found PRIMARY (no data), STARS (a table)");
  EXPECT_EQ(refused(empty + extension("SCI") + extension("ERR")),
            "x.fits: 2 image HDUs, expected FILE[HDU] with one of PRIMARY (no data), SCI, ERR");
  EXPECT_EQ(refused(empty + extension("SCI"), "[SCY]"),
            "x.fits[SCY]: no such HDU, expected one of PRIMARY (no data), SCI");
  EXPECT_EQ(refused(empty + extension("SCI"), "[2]"),
            "x.fits[2]: no such HDU, expected 0 to 1: PRIMARY (no data), SCI");
  EXPECT_EQ(refused(empty + extension("SCI") + extension("SCI"), "[SCI]"),
            "x.fits[SCI]: 2 HDUs of this name, expected SCI,EXTVER or a number");
  EXPECT_EQ(refused(empty + table, "[STARS]"), "x.fits[STARS]: a table, expected an image");
  EXPECT_EQ(refused(empty, "[0]"), "x.fits[PRIMARY]: no data, expected two dimensions, nx x ny");
}

TEST_F(BadFits, Sizes) {
  EXPECT_EQ(refused(image({}, {"NAXIS1  = 16"})),
            "x.fits[PRIMARY]: wrong dimensions, found 16, expected two dimensions, nx x ny");
  EXPECT_EQ(refused(image({}, {"NAXIS1  = 4", "NAXIS2  = 4", "NAXIS3  = 2"})),
            "x.fits[PRIMARY]: wrong dimensions, found 4 x 4 x 2, expected two dimensions, nx x ny, or a plane [*,*,k] "
            "of the cube");
  EXPECT_EQ(refused(image({}, {"NAXIS1  = 0", "NAXIS2  = 16"})),
            "x.fits[PRIMARY]: an image without pixels, found 0 x 16, expected at least 1 x 1");
  EXPECT_EQ(refused(image({}, {"NAXIS1  = 16385", "NAXIS2  = 1"})),
            "x.fits[PRIMARY]: too large, found 16385 x 1, expected at most 16384 pixels per side");
  EXPECT_EQ(refused(image({}, {"NAXIS1  = 2000000000", "NAXIS2  = 2000000000"})),
            "x.fits[PRIMARY]: too large, found 2000000000 x 2000000000, expected at most 16384 pixels per side");
  EXPECT_EQ(refused(image({}, {"NAXIS1  = 16384", "NAXIS2  = 16384"})),
            "x.fits[PRIMARY]: truncated, found 5760 bytes in the file, expected 2147486528");
}

TEST_F(BadFits, WorldCoordinates) {
  const Words sky = {"CTYPE1  = 'RA---TAN'", "CTYPE2  = 'DEC--TAN'"};
  const auto with = [&](Words cards) {
    cards.insert(cards.begin(), sky.begin(), sky.end());
    return image(cards);
  };
  const std::string advice =
      ", expected square pixels: resample the image, or leave out its celestial WCS and give observation.pixel_scale";
  EXPECT_EQ(refused(image()),
            "x.fits[PRIMARY]: no celestial WCS, expected one or observation.pixel_scale in lens.toml");
  EXPECT_EQ(refused(image({"CTYPE1  = 'LINEAR'", "CTYPE2  = 'LINEAR'", "CDELT1  = 0.1", "CDELT2  = 0.1"})),
            "x.fits[PRIMARY]: no celestial WCS, expected one or observation.pixel_scale in lens.toml");
  EXPECT_EQ(refused(with({"CDELT1  = -5.0E-5", "CDELT2  = 6.0E-5"})),
            "x.fits[PRIMARY]: pixels that are not square, found 0.18 x 0.216 arcsec" + advice);
  EXPECT_EQ(refused(with({"CD1_1   = -5.0E-5", "CD1_2   = 2.5E-5", "CD2_1   = 0.0", "CD2_2   = 4.330127E-5"})),
            "x.fits[PRIMARY]: skewed celestial WCS, found axes at 120 degrees" + advice);
  EXPECT_EQ(refused(with({"CD1_1   = 0.0", "CD1_2   = 0.0", "CD2_1   = 0.0", "CD2_2   = 0.0"})),
            "x.fits[PRIMARY]: celestial WCS with a singular matrix");
  // A pixel scale that is given and another one in the file.
  const std::string good = with({"CDELT1  = -5.0E-5", "CDELT2  = 5.0E-5"});
  folder_.write("x.fits", good);
  EXPECT_EQ(
      refusal({"--set", "observation.pixel_scale=0.1803"}),
      "x.fits[PRIMARY]: different pixel scale, found 0.18 arcsec in its WCS, expected 0.1803 arcsec within 0.1 %");
  EXPECT_EQ(fit({"--dry-run"}).status, 0);
  EXPECT_EQ(fit({"--dry-run", "--set", "observation.pixel_scale=0.18005"}).status, 0);
  // Turned, mirrored or upside down: fitted as it stands, and the log says how.
  folder_.write("x.fits", with({"CDELT1  = -5.0E-5", "CDELT2  = 5.0E-5", "CROTA2  = 30.0"}));
  Outcome outcome = fit({"--dry-run"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("sky: +y points to position angle -30 degrees (North towards East)\n"), std::string::npos)
      << outcome.out;
  folder_.write("x.fits", with({"CDELT1  = 5.0E-5", "CDELT2  = 5.0E-5"}));
  outcome = fit({"--dry-run"});
  EXPECT_NE(outcome.out.find("sky: +y points to position angle 0 degrees (North towards East), mirrored\n"),
            std::string::npos)
      << outcome.out;
}

// ---- data
// ---------------------------------------------------------------------------------------------------------------

TEST_F(BadInput, PixelsThatCannotBeUsedAreMaskedWithTheirCount) {
  image_.values[3] = kNan;
  image_.values[40] = -kInf;
  noise_.values[50] = 1e8;
  noise_.values[3] = 1e8;  // counted once
  mask_.values[100] = 0;
  write_data();
  write_config();
  const Outcome outcome = fit({"--out", "out"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err,
            "einfield: warning: data.fits[IMAGE]: 2 pixels not finite, masked\n"
            "einfield: warning: data.fits[NOISE]: 1 pixel with noise above max_noise = 1000 times the median of 0.5, "
            "masked\n" +
                kGnuplotWarning);
  EXPECT_NE(outcome.out.find(", 252 used;"), std::string::npos) << outcome.out;
  const FitsImage mask = read_fits(folder_ / "out/result.fits", "MASK");
  for (std::size_t i = 0; i < mask.values.size(); ++i)
    EXPECT_EQ(mask.values[i], i == 3 || i == 40 || i == 50 || i == 100 ? 0 : 1) << i;
  EXPECT_TRUE(json::parse(folder_.read("out/result.json"))["metrics"]["chi2_reduced"].is_number());
}

TEST_F(BadInput, AllMasked) {
  mask_.values.assign(mask_.values.size(), 0);
  mask_.values[0] = mask_.values[1] = mask_.values[2] = 1;
  image_.values[0] = image_.values[1] = kNan;
  noise_.values[2] = 2e3;
  EXPECT_EQ(
      refused_data(),
      "data.fits[IMAGE]: every pixel is masked, found 253 masked by observation.mask, 2 not finite, 1 with noise above "
      "max_noise = 1000 times the median of 0.5, expected at least one used pixel");
}

TEST_F(BadInput, Noise) {
  for (const double bad : {0.0, -1.0, kNan}) {
    noise_.values[2 * kSide + 4] = bad;
    const std::string found = bad == 0 ? "0" : std::isnan(bad) ? "nan" : "-1";
    EXPECT_EQ(refused_data(), "data.fits[NOISE]: invalid noise, found " + found +
                                  " at column 5, row 3 (from 1), expected > 0 where the mask is 1");
    mask_.values[2 * kSide + 4] = 0;
    EXPECT_EQ(warnings(), "");
    mask_.values[2 * kSide + 4] = 1;
  }
  const Edit variance{"noise = \"data.fits[NOISE]\"", "noise = \"data.fits[NOISE]\"\nnoise_kind = \"variance\""};
  noise_.values[5] = -4;
  EXPECT_EQ(
      refused_data({variance}),
      "data.fits[NOISE]: invalid variance, found -4 at column 6, row 1 (from 1), expected > 0 where the mask is 1");
  noise_.values[5] = noise_.values[2 * kSide + 4] = 0;
  EXPECT_EQ(warnings({{variance.from, variance.from + "\nnoise_kind = \"weight\""}}),
            "einfield: warning: data.fits[NOISE]: 2 pixels of weight 0, masked\n");
  noise_ = map("NOISE", kSide - 1, 0.5);
  EXPECT_EQ(refused_data(),
            "data.fits[NOISE]: different shape, found 15 x 15 pixels, expected 16 x 16 as in data.fits[IMAGE]");
}

TEST_F(BadInput, Mask) {
  mask_.values[1] = 2;
  EXPECT_EQ(refused_data(),
            "data.fits[MASK]: a mask value other than 0 and 1, found 2 at column 2, row 1 (from 1), expected 1 = used, "
            "0 = masked, or observation.mask_used = 0");
  mask_.values[3] = kNan;
  EXPECT_EQ(refused_data({{"mask = \"data.fits[MASK]\"", "mask = \"data.fits[MASK]\"\nmask_used = 0"}}),
            "data.fits[MASK]: not a number at column 4, row 1 (from 1), expected 0 = used, anything else = masked");
  mask_ = map("MASK", 3, 1.0);
  EXPECT_EQ(refused_data(),
            "data.fits[MASK]: different shape, found 3 x 3 pixels, expected 16 x 16 as in data.fits[IMAGE]");
}

TEST_F(BadInput, PointSpreadFunction) {
  const FitsOutput good = psf_;
  psf_ = map("PSF", 4, 1.0 / 16);
  EXPECT_EQ(
      refused_data(),
      "data.fits[PSF]: a PSF of even size, found 4 x 4 pixels, expected odd numbers, centered on the middle pixel");
  psf_ = map("PSF", 17, 1.0 / 289);
  EXPECT_EQ(refused_data(),
            "data.fits[PSF]: a PSF larger than the image, found 17 x 17 pixels, expected at most 16 x 16");
  psf_ = good;
  psf_.values[4] = -2;
  EXPECT_EQ(refused_data(), "data.fits[PSF]: the PSF sums to -1.5, expected > 0");
  psf_.values[4] = kNan;
  EXPECT_EQ(refused_data(),
            "data.fits[PSF]: a PSF that is not finite, found nan at column 2, row 2 (from 1), expected finite values "
            "everywhere");
  psf_.values[4] = 1.5;
  EXPECT_EQ(warnings(), "einfield: warning: data.fits[PSF]: the PSF sums to 2, normalized to 1\n");
  EXPECT_EQ(
      refused_data({{"psf = \"data.fits[PSF]\"", "psf = { fwhm = 20.0 }"}}),
      "lens.toml:6: observation.psf: a PSF larger than the image, found 297 x 297 pixels, expected at most 16 x 16");
}

// ---- a real image
// -------------------------------------------------------------------------------------------------------

TEST_F(BadInput, AnImageInTheStyleOfHstIsFitted) {
  // Single precision, no WCS, bad pixels marked by a noise of 1e8.
  for (FitsOutput* hdu : {&image_, &noise_, &psf_}) {
    hdu->bitpix = -32;
    hdu->name = "";
  }
  for (std::size_t i = 0; i < 30; ++i) noise_.values[7 * i] = 1e8;
  write_fits(folder_ / "data.fits", {image_});
  write_fits(folder_ / "noise_map.fits", {noise_});
  write_fits(folder_ / "psf.fits", {psf_});
  write_config({{"data.fits[IMAGE]", "data.fits"},
                {"data.fits[NOISE]", "noise_map.fits"},
                {"data.fits[PSF]", "psf.fits"},
                {"mask = \"data.fits[MASK]\"\n", ""}});
  const Outcome outcome = fit({"--out", "out"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.err,
            "einfield: warning: noise_map.fits[PRIMARY]: 30 pixels with noise above max_noise = 1000 times the median "
            "of 0.5, masked\n" +
                kGnuplotWarning);
  EXPECT_NE(outcome.out.find(", 226 used;"), std::string::npos) << outcome.out;
}

TEST_F(BadInput, TheExampleOfARealLensIsFitted) {
  const char* data = std::getenv("EINFIELD_DATA");
  if (!data) GTEST_SKIP() << "EINFIELD_DATA names no folder with slacs_j0252+0039";
  const std::string folder = std::string(data) + "/slacs_j0252+0039/";
  const auto file = [&](const std::string& key, const std::string& name) {
    return "observation." + key + "=\"" + folder + name + "\"";
  };
  const Outcome outcome =
      run_binary({"fit", EINFIELD_EXAMPLES_DIR "/slacs_j0252+0039/network.toml", "--backend", "cpu", "--out", "out",
                  "--set", "optimizer.steps=20", "--set", file("image", "data.fits"), "--set",
                  file("noise", "noise_map.fits"), "--set", file("psf", "psf.fits")},
                 around_);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("pixels with noise above max_noise = 1000 times the median of "), std::string::npos)
      << outcome.out;
  const json result = json::parse(folder_.read("out/result.json"));
  EXPECT_EQ(result["steps"], 20);
  EXPECT_LT(result["metrics"]["chi2_reduced"], 0.6);  // 0.559 before the network, as the example says
}

// ---- a bad machine
// ------------------------------------------------------------------------------------------------------

/// A good observation, and what a fit leaves in `out`.
class BadMachine : public BadInput {
 protected:
  BadMachine() {
    write_data();
    write_config();
  }
  bool has(const std::string& name) const { return fs::exists(folder_ / ("out/" + name)); }
  /// The files of `out` that a finished fit leaves, those that begin with `checkpoint` aside.
  std::map<std::string, std::string> results() const {
    auto files = files_below(folder_ / "out");
    std::erase_if(files, [](const auto& file) { return file.first.rfind("checkpoint", 0) == 0; });
    return files;
  }
};

TEST_F(BadMachine, ALossThatIsNotFiniteStopsAtTheLastGoodState) {
  // One enormous update: what the next step finds is not finite.
  const Outcome outcome = fit({"--out", "out", "--set", "optimizer.learning_rate=1e30"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(
      outcome.err,
      kGnuplotWarning + "einfield: error: the loss is not finite in step 2; the results hold the last good state\n");
  EXPECT_EQ(outcome.out.find("step 0/"), outcome.out.rfind("step 0/")) << "told twice:\n" << outcome.out;
  const json result = json::parse(folder_.read("out/result.json"));
  EXPECT_EQ(result["stop_reason"], "non-finite");
  EXPECT_EQ(result["message"], "the loss is not finite in step 2");
  EXPECT_EQ(result["steps"], 0);
  EXPECT_TRUE(result["metrics"]["loss"].is_number());
  for (const char* name : {"result.fits", "history.csv", "network.safetensors", "checkpoint.safetensors"})
    EXPECT_TRUE(has(name)) << name;
  // Quiet is quiet about warnings, not about this.
  EXPECT_EQ(fit({"--out", "quiet", "--quiet", "--set", "optimizer.learning_rate=1e30"}).err,
            "einfield: error: the loss is not finite in step 2; the results hold the last good state\n");
  // The checkpoint is good.
  EXPECT_EQ(fit({"--out", "out", "--resume"}).status, 0);
}

TEST_F(BadMachine, NoCudaDevice) {
  around_.environment["CUDA_VISIBLE_DEVICES"] = "";
  const auto before = files_below(folder_.path());
  for (const Words& words : {Words{"fit", "lens.toml", "--backend", "cuda"}, Words{"fit", "lens.toml", "--device", "0"},
                             Words{"fit", "lens.toml", "--backend", "cuda", "--dry-run"}}) {
    const Outcome outcome = run_binary(words, around_);
    EXPECT_EQ(outcome.status, 3);
    EXPECT_EQ(outcome.out, "");
#ifdef EINFIELD_HAVE_CUDA
    EXPECT_EQ(outcome.err.rfind("einfield: error: " + words[2] + ": no CUDA device can be used (", 0), 0u)
        << outcome.err;
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
#else
    EXPECT_EQ(outcome.err, "einfield: error: " + words[2] +
                               ": the CUDA backend is not in this build, expected one configured with "
                               "EINFIELD_ENABLE_CUDA=ON\n");
#endif
  }
  EXPECT_EQ(files_below(folder_.path()), before);
}

TEST_F(BadMachine, GnuplotIsMissedOnlyByFigures) {
  const Outcome without = fit({"--out", "out"});
  EXPECT_EQ(without.status, 0);
  EXPECT_EQ(without.err, kGnuplotWarning);
  for (const char* name :
       {"result.fits", "result.json", "history.csv", "network.safetensors", "checkpoint.safetensors"})
    EXPECT_TRUE(has(name)) << name;
  EXPECT_FALSE(has("figures/image.png"));

  const char* path = std::getenv("PATH");
  around_.environment["PATH"] = path ? path : "";
  const Outcome with = fit({"--out", "out", "--overwrite"});
  EXPECT_EQ(with.status, 0);
  if (with.err == kGnuplotWarning) GTEST_SKIP() << "gnuplot is not installed here";
  EXPECT_EQ(with.err, "");
  EXPECT_EQ(folder_.read("out/figures/image.png").substr(1, 3), "PNG");
}

TEST_F(BadMachine, DirectoriesThatCannotBeWritten) {
  around_.bound_by_permissions = true;
  const auto expect_failure = [&](const Words& words, const std::string& message, int status = 1) {
    const auto before = files_below(folder_.path());
    const Outcome outcome = fit(words);
    EXPECT_EQ(outcome.status, status);
    EXPECT_EQ(outcome.err, "einfield: error: " + message + "\n");
    EXPECT_EQ(files_below(folder_.path()), before);
  };
  const fs::perms readable = fs::perms::owner_read | fs::perms::owner_exec;
  fs::create_directory(folder_ / "locked");
  fs::permissions(folder_ / "locked", readable);
  expect_failure({"--out", "locked"}, "locked: cannot write into the directory (Permission denied)");
  expect_failure({"--out", "locked/out"}, "locked/out: cannot create the directory (Permission denied)");
  expect_failure({"--out", "data.fits"}, "--out: data.fits is a file, expected the name of a directory", 2);
  expect_failure({"--out", "data.fits/out"}, "data.fits/out: cannot create the directory (Not a directory)");

  // Earlier results.
  ASSERT_EQ(fit({"--quiet", "--out", "out"}).status, 0);
  fs::permissions(folder_ / "out", readable);
  expect_failure({"--out", "out", "--overwrite"}, "out: cannot write into the directory (Permission denied)");
  expect_failure({"--out", "out", "--resume"}, "out: cannot write into the directory (Permission denied)");
  fs::permissions(folder_ / "out", fs::perms::owner_all);

  const Outcome simulation = run_binary({"simulate", "lens.toml", "--out", "locked/x.fits", "--set",
                                         "simulate.noise=0.1", "--set", "observation.psf={ fwhm = 0.4 }"},
                                        around_);
  EXPECT_EQ(simulation.status, 1);
  EXPECT_EQ(simulation.err, "einfield: error: locked/x.fits: cannot write (Permission denied)\n");
  fs::permissions(folder_ / "locked", fs::perms::owner_all);
  EXPECT_TRUE(fs::is_empty(folder_ / "locked"));
}

TEST_F(BadMachine, AFullDiskHarmsNoEarlierResults) {
  ASSERT_EQ(fit({"--quiet", "--out", "out"}).status, 0);
  const auto before = results();
  const std::string checkpoint = folder_.read("out/checkpoint.safetensors");
  const Words more = {"--out", "out", "--quiet", "--resume", "--set", "optimizer.steps=25"};
  // Not even the checkpoint finds room.
  around_.largest_file = checkpoint.size() / 2;
  Outcome outcome = fit(more);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, "einfield: error: out/checkpoint.safetensors: cannot write (File too large)\n");
  EXPECT_EQ(results(), before);
  EXPECT_EQ(folder_.read("out/checkpoint.safetensors"), checkpoint);
  // The checkpoint does, the results do not.
  around_.largest_file = 4 * checkpoint.size();
  outcome = fit(more);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, "einfield: error: out/.results/result.fits: cannot write (File too large)\n");
  EXPECT_EQ(results(), before);
  EXPECT_NE(folder_.read("out/checkpoint.safetensors"), checkpoint);
  // With room again the run goes on.
  around_.largest_file.reset();
  EXPECT_EQ(fit(more).status, 0);
  EXPECT_EQ(json::parse(folder_.read("out/result.json"))["steps"], 25);
}

TEST_F(BadMachine, MemoryThatIsNotThereIsAnError) {
  if (kSanitized) GTEST_SKIP() << "sanitizers need more address space than the test leaves";
  around_.address_space = rlim_t(1) << 28;
  if (run_binary({"--version"}, around_).status != 0)
    GTEST_SKIP() << "the libraries of this build need more address space than the test leaves";
  const auto failure = [&](const Words& words) {
    const auto before = files_below(folder_.path());
    const Outcome outcome = fit(words);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
    EXPECT_EQ(files_below(folder_.path()), before);
    return outcome.err;
  };
  const std::string network = failure({"--set", "observation.supersampling=32", "--set", "network.hidden=[512, 512]"});
  EXPECT_EQ(network.rfind("einfield: error: cannot allocate ", 0), 0u) << network;
  EXPECT_NE(network.find(" MB for the network\n"), std::string::npos) << network;
  write_config({{"profile = \"SERSIC_ELLIPSE\"\namp = 10.0\nR_sersic = 0.8\nn_sersic = 1.5\n",
                 "profile = \"PIXELATED\"\nnx = 4096\nny = 4096\npixel_scale = 0.001\nfit = [\"pixels\"]\n"}});
  EXPECT_EQ(failure({}), "einfield: error: out of memory on the host\n");
}

}  // namespace
}  // namespace einfield
