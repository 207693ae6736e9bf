// Valid inputs damaged in many ways, from fixed seeds, given to the binary: it does its work or says in one line why
// not, within bounds of time and memory, and leaves nothing half done.
#include <fitsio.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "einfield/network.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/safetensors.hpp"
#include "tests/run_binary.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

constexpr int kSide = 8;
constexpr std::uint64_t kTrials = kSanitized ? 40 : 120;  // of each input
constexpr rlim_t kMemory = rlim_t(3) << 30;
constexpr rlim_t kSeconds = kSanitized ? 120 : 20;

const std::string kConfig = R"(recipe = "biggio2021"
title = "a lens"
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
mask = "data.fits[MASK]"
psf = "data.fits[PSF]"
pixel_scale = 0.2
supersampling = 2
[[lens]]
profile = "EPL"
theta_E = 0.6
gamma = 2.1
e1 = 0.1
e2 = -0.05
fit = ["theta_E", "e1"]
[[lens]]
profile = "SHEAR"
gamma1 = 0.02
gamma2 = -0.01
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 0.8
n_sersic = 1.5
[[source]]
profile = "PIXELATED"
nx = 3
ny = 3
pixel_scale = 0.2
fit = ["pixels"]
[network]
initial = "network.safetensors"
[optimizer]
name = "adam"
loss = "chi2"
learning_rate = 1e-3
warmup = 1
steps = 3
[regularization]
smoothness = 1.0
source_gradient = 0.1
)";

/// Random numbers of one damage.
class Dice {
 public:
  explicit Dice(std::uint64_t trial) : trial_(trial) {}
  /// From 0 to n − 1.
  std::size_t below(std::size_t n) {
    return std::min(static_cast<std::size_t>(Philox{77}.uniform(counter_++, trial_) * static_cast<double>(n)), n - 1);
  }
  char byte() { return static_cast<char>(below(256)); }

 private:
  std::uint64_t trial_, counter_ = 0;
};

/// One way to damage what is made of pieces: lines of a text, cards and other bytes of a file.
std::string damaged(std::string bytes, bool text, Dice& dice) {
  static const char* const kNumbers[] = {
      "0",          "-1",    "1e308", "-1e308", "1e-320", "nan", "inf", "9223372036854775807",
      "2147483648", "16384", "\"x\"", "true",   "[]",     "{}",  ""};
  if (bytes.empty()) return "x";
  const std::size_t at = dice.below(bytes.size()),
                    length = 1 + dice.below(std::min<std::size_t>(bytes.size() - at, 200));
  const std::size_t piece = text ? 0 : 80, pieces = text ? 0 : bytes.size() / 80;
  switch (dice.below(9)) {
    case 0:
      for (std::size_t k = 0; k <= dice.below(4); ++k) bytes[dice.below(bytes.size())] = dice.byte();
      return bytes;
    case 1:
      return bytes.erase(at, length);
    case 2:
      return bytes.insert(at, bytes.substr(at, length));
    case 3:
      return bytes.substr(0, at);
    case 4:
      for (std::size_t k = 0; k < length; ++k)
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), dice.byte());
      return bytes;
    case 5:
      return bytes.replace(at, length, length, dice.byte());
    case 6: {  // a number becomes another one
      const std::size_t digit = bytes.find_first_of("0123456789", at);
      if (digit == std::string::npos) return bytes + dice.byte();
      const std::size_t end = bytes.find_first_not_of("0123456789.e-+", digit);
      return bytes.replace(digit, std::min(end, bytes.size()) - digit, kNumbers[dice.below(std::size(kNumbers))]);
    }
    case 7: {  // the beginning of a line goes elsewhere
      const std::size_t from = bytes.rfind('\n', at), to = bytes.find('\n', dice.below(bytes.size()));
      if (!text || from == std::string::npos || to == std::string::npos) {
        const std::size_t a = dice.below(std::max<std::size_t>(pieces, 1)) * piece,
                          b = dice.below(std::max<std::size_t>(pieces, 1)) * piece;
        if (std::max(a, b) + piece <= bytes.size())
          std::swap_ranges(bytes.begin() + static_cast<std::ptrdiff_t>(a),
                           bytes.begin() + static_cast<std::ptrdiff_t>(a + piece),
                           bytes.begin() + static_cast<std::ptrdiff_t>(b));
        return bytes;
      }
      return bytes.insert(to + 1, bytes.substr(from + 1, bytes.find('\n', from + 1) - from));
    }
    default:
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << dice.below(8)));
      return bytes;
  }
}

class Mutations : public testing::Test {
 protected:
  Mutations() {
    around_.directory = folder_.path().string();
    if (!kSanitized) around_.address_space = kMemory;
    around_.processor_seconds = kSeconds;
    const auto map = [](const std::string& name, int side, double value) {
      FitsOutput hdu;
      hdu.name = name;
      hdu.nx = hdu.ny = side;
      hdu.values.assign(static_cast<std::size_t>(side * side), value);
      return hdu;
    };
    FitsOutput image = map("IMAGE", kSide, 1.0);
    for (std::size_t i = 0; i < image.values.size(); ++i) image.values[i] += 0.25 * static_cast<double>(i % 7);
    write_fits(folder_ / "data.fits", {image, map("NOISE", kSide, 0.5), map("MASK", kSide, 1), map("PSF", 3, 1.0 / 9)});
    const NetworkShape shape{{5, 4}, 1.0};
    write_network(folder_ / "network.safetensors", shape, initial_weights(shape, 3, false), false);
    folder_.write("lens.toml", kConfig);
    folder_.write("points.csv", "name,x,y\na,0.1,0.2\n\"b, c\",-1e-3,2\n");
  }
  static Words fit(Words more = {}) {
    more.insert(more.begin(), {"fit", "lens.toml", "--backend", "cpu", "--threads", "1", "--quiet", "--out", "out"});
    return more;
  }
  /// Runs the words with `file` damaged in many ways, each time from the same beginning.
  /// @param out_before  whether results are there before the run, which an error must leave alone
  void survive(const std::string& file, bool text, const Words& words, bool out_before, std::uint64_t stream) {
    const std::string good = folder_.read(file);
    ASSERT_FALSE(good.empty());
    if (out_before) fs::copy(folder_ / "out", folder_ / "before", fs::copy_options::recursive);
    int done = 0, refused = 0, failed = 0;
    for (std::uint64_t trial = 0; trial < kTrials; ++trial) {
      Dice dice(stream * 1'000'000 + trial);
      fs::remove_all(folder_ / "out");
      if (out_before) fs::copy(folder_ / "before", folder_ / "out", fs::copy_options::recursive);
      folder_.write(file, damaged(good, text, dice));
      const auto before = files_below(folder_.path());
      const Outcome outcome = run_binary(words, around_);
      const std::string what = file + ", trial " + std::to_string(trial) + ": " + outcome.err;
      ASSERT_EQ(outcome.signal, 0) << what;
      ASSERT_TRUE(outcome.status >= 0 && outcome.status <= 2) << what;
      ++(outcome.status == 0 ? done : outcome.status == 2 ? refused : failed);
      if (outcome.status == 0) {
        EXPECT_EQ(outcome.err, "") << what;
        for (const auto& entry : fs::directory_iterator(folder_ / "out"))
          EXPECT_NE(entry.path().filename().string()[0], '.') << what;
        continue;
      }
      EXPECT_EQ(outcome.err.rfind("einfield: error: ", 0), 0u) << what;
      EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << what;
      EXPECT_LT(outcome.err.size(), 2000u) << what;
      if (outcome.status == 2) {
        EXPECT_EQ(files_below(folder_.path()), before) << what;
        continue;
      }
      const auto says = [&](const char* text_of) { return outcome.err.find(text_of) != std::string::npos; };
      EXPECT_TRUE(says("is not finite in step") || says("allocate") || says("out of memory") ||
                  says("the results cannot be used"))
          << what;
    }
    folder_.write(file, good);
    if (out_before) {
      fs::remove_all(folder_ / "out");
      fs::rename(folder_ / "before", folder_ / "out");
    }
    EXPECT_GT(refused, 0);
    std::printf("%s: %d runs as if nothing were wrong, %d refused, %d failed\n", file.c_str(), done, refused, failed);
  }

  TemporaryDirectory folder_;
  Surroundings around_;
};

TEST_F(Mutations, Configuration) {
  survive("lens.toml", true, fit(), false, 1);
}

TEST_F(Mutations, FitsImage) {
  survive("data.fits", false, fit(), false, 2);
}

TEST_F(Mutations, CompressedFitsImage) {
  // CFITSIO makes what CFITSIO reads.
  for (const int type : {RICE_1, GZIP_2, HCOMPRESS_1, PLIO_1}) {
    fs::remove(folder_ / "tiles.fits");
    fitsfile* file = nullptr;
    int status = 0;
    long axes[] = {kSide, kSide}, tile[] = {kSide, type == HCOMPRESS_1 ? kSide : 1};
    short pixels[kSide * kSide];
    for (int i = 0; i < kSide * kSide; ++i) pixels[i] = static_cast<short>(i % 11);
    fits_create_diskfile(&file, (folder_ / "tiles.fits").c_str(), &status);
    fits_set_compression_type(file, type, &status);
    fits_set_tile_dim(file, 2, tile, &status);
    fits_create_img(file, SHORT_IMG, 2, axes, &status);
    fits_write_img(file, TSHORT, 1, kSide * kSide, pixels, &status);
    fits_close_file(file, &status);
    ASSERT_EQ(status, 0);
    survive("tiles.fits", false, fit({"--set", "observation.image=\"tiles.fits\""}), false,
            10 + static_cast<std::uint64_t>(type));
  }
}

TEST_F(Mutations, CompressedFile) {
  fitsfile* file = nullptr;
  int status = 0;
  long axes[] = {kSide, kSide};
  std::vector<double> pixels(kSide * kSide, 1.5);
  fits_create_file(&file, (folder_ / "whole.fits.gz").c_str(), &status);
  fits_create_img(file, -64, 2, axes, &status);
  fits_write_img(file, TDOUBLE, 1, kSide * kSide, pixels.data(), &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0);
  survive("whole.fits.gz", false, fit({"--set", "observation.image=\"whole.fits.gz\""}), false, 3);
}

TEST_F(Mutations, Weights) {
  survive("network.safetensors", false, fit(), false, 4);
}

TEST_F(Mutations, Checkpoint) {
  ASSERT_EQ(run_binary(fit(), around_).status, 0);
  survive("out/checkpoint.safetensors", false, fit({"--resume"}), true, 5);
}

TEST_F(Mutations, Results) {
  ASSERT_EQ(run_binary(fit(), around_).status, 0);
  const Words words = {"evaluate", "out", "--points", "points.csv", "--out", "out/fields.csv"};
  survive("out/result.json", true, words, true, 6);
  survive("out/network.safetensors", false, words, true, 7);
}

TEST_F(Mutations, Points) {
  ASSERT_EQ(run_binary(fit(), around_).status, 0);
  survive("points.csv", true, {"evaluate", "out", "--points", "points.csv", "--out", "out/fields.csv"}, true, 8);
}

}  // namespace
}  // namespace einfield
