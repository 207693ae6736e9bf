// A survey without fits: its manifest, shares, claims, rows and table.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "einfield/error.hpp"
#include "host/batch/claims.hpp"
#include "host/batch/cut_out.hpp"
#include "host/batch/engine.hpp"
#include "host/batch/gallery.hpp"
#include "host/batch/process_name.hpp"
#include "host/batch/survey_run.hpp"
#include "host/batch/survey_table.hpp"
#include "host/files/ecsv.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/fits_table.hpp"
#include "host/files/text.hpp"
#include "tests/browser.hpp"
#include "tests/raw_fits.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "";
}

constexpr const char* kTemplate = R"([observation]
image = "template.fits"
noise = 0.5
pixel_scale = 0.1
[[lens]]
profile = "SIE"
theta_E = 1.0
fit = ["theta_E"]
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 1.0
R_sersic = 0.5
n_sersic = 1.0
)";

/// A manifest with commas; every column is a text.
std::string ecsv(const std::string& columns, const std::string& rows) {
  std::string text = "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n";
  std::istringstream names(columns);
  for (std::string name; std::getline(names, name, ',');) text += "# - {name: " + name + ", datatype: string}\n";
  return text + columns + "\n" + rows;
}

class Survey : public testing::Test {
 protected:
  Survey() { folder_.write("lens.toml", kTemplate); }
  Manifest manifest(const std::string& columns, const std::string& rows) const {
    return read_manifest(folder_.write("m.ecsv", ecsv(columns, rows)), folder_ / "lens.toml");
  }
  std::string refused(const std::string& columns, const std::string& rows) const {
    std::string message = message_of([&] { manifest(columns, rows); });
    const std::string path = folder_.path().string() + "/";
    for (std::size_t at = 0; (at = message.find(path)) != std::string::npos;) message.erase(at, path.size());
    return message;
  }
  /// A manifest of lenses 0, 1, 2 …
  Manifest many(int n) const {
    std::string rows;
    for (int i = 0; i < n; ++i) rows += std::to_string(i) + "\n";
    return manifest("id", rows);
  }

  TemporaryDirectory folder_;
};

// ---- manifest ------------------------------------------------------------------------------------------------

TEST_F(Survey, ColumnsReplaceValuesOfTheTemplate) {
  folder_.write("other.toml", std::string(kTemplate) + "[cosmology]\nz_lens = 0.2\nz_source = 2.0\n");
  const Manifest m = manifest(
      "id,image,noise,psf,mask,pixel_scale,z_lens,z_source,template,lens.0.theta_E,lens.0.fit,ra,zero_point",
      "a,a.fits[SCI],\"a.fits[ERR][*,*,3]\",{ fwhm = 0.2 },\"mask.fits[*,*,2]\",0.05,0.5,1.5,,1.25,[],150.1,25.9\n"
      "b,/b.fits,2.5,\"psf.fits[1][*,*,7]\",,,,,other.toml,,,,\n"
      "c,,,,,,0.3,,other.toml,,,,\n"
      "d,,,,,,0.3,,,,,,\n");
  ASSERT_EQ(m.lenses.size(), 4u);
  EXPECT_EQ(m.lenses[0].id, "a");
  EXPECT_EQ(m.lenses[0].number("ra"), 150.1);
  EXPECT_TRUE(std::isnan(m.lenses[1].number("ra")));
  const Config a = config_of(m.lenses[0]);
  EXPECT_EQ(a.observation.image.path, folder_ / "a.fits");
  EXPECT_EQ(a.observation.image.hdu, "SCI");
  EXPECT_EQ(a.observation.noise.map.path, folder_ / "a.fits");
  EXPECT_EQ(a.observation.noise.map.hdu, "ERR");
  EXPECT_EQ(a.observation.noise.map.plane, 3);
  EXPECT_EQ(a.observation.mask.plane, 2);
  EXPECT_EQ(a.observation.zero_point, 25.9);
  EXPECT_FALSE(a.observation.noise.value);
  EXPECT_EQ(a.observation.psf.fwhm, 0.2);
  EXPECT_EQ(a.observation.mask.path, folder_ / "mask.fits");
  EXPECT_EQ(a.observation.pixel_scale, 0.05);
  ASSERT_TRUE(a.cosmology);  // both redshifts make one
  EXPECT_EQ(a.cosmology->z_source, 1.5);
  EXPECT_EQ(a.model.lens[0].values[0], 1.25);
  EXPECT_EQ(a.model.lens[0].free, std::vector<std::uint8_t>(5, 0));
  const Config b = config_of(m.lenses[1]);
  EXPECT_EQ(b.observation.image.path, "/b.fits");
  EXPECT_EQ(b.observation.noise.value, 2.5);
  EXPECT_EQ(b.observation.psf.kernel.path, folder_ / "psf.fits");
  EXPECT_EQ(b.observation.psf.kernel.plane, 7);
  EXPECT_FALSE(b.observation.zero_point);
  EXPECT_EQ(b.observation.pixel_scale, 0.1);
  EXPECT_EQ(b.model.lens[0].values[0], 1.0);
  EXPECT_EQ(config_of(m.lenses[2]).cosmology->z_lens, 0.3);  // one replaces that of the template
  EXPECT_FALSE(config_of(m.lenses[3]).cosmology);            // without another one it is only carried along
}

/// A survey of any size reads a template once, however many of its lenses need it.
TEST_F(Survey, ATemplateIsReadOnce) {
  folder_.write("lens.toml", std::string(kTemplate) + "[cosmology]\nz_lens = 0.2\nz_source = 2.0\n");
  const Manifest m = manifest("id,z_lens,x,y,size", "a,0.3,9,9,3\nb,0.4,9,9,3\n");
  EXPECT_EQ(m.lenses[0].base, m.lenses[1].base);
  fs::remove(folder_ / "lens.toml");
  EXPECT_EQ(config_of(m.lenses[1]).cosmology->z_lens, 0.4);
  EXPECT_EQ(config_of(m.lenses[0]).observation.image.path, folder_ / "template.fits");
}

TEST_F(Survey, WhatConcernsAllLensesIsRefused) {
  EXPECT_EQ(refused("id,imag", "a,b.fits\n"),
            "m.ecsv: column imag: unknown, expected image, or a key of the configuration as lens.0.theta_E");
  EXPECT_EQ(refused("image", "b.fits\n"), "m.ecsv: no column id, found image, expected a name for each lens");
  EXPECT_EQ(refused("id,x", "a,3\n"), "m.ecsv: column x: has no effect without a column size");
  EXPECT_EQ(refused("id", "a\nb\na\n"), "m.ecsv:9: id: a is given twice, first in m.ecsv:7");
  EXPECT_EQ(refused("id,image", "a,x\n,y\n"), "m.ecsv:9: id: missing, expected a name");
  EXPECT_EQ(refused("id", ""), "m.ecsv: no rows, expected one for each lens");
  EXPECT_EQ(refused("id,lens.0.theta", "a,1\n"), "m.ecsv:8: lens.0.theta: unknown key, found theta, expected theta_E");
  EXPECT_EQ(refused("id,lens.1.theta_E", "a,1\n"),
            "m.ecsv:8: lens.1.theta_E: no such component, found 1 in the configuration, expected lens.N.KEY with N "
            "from 0");
  EXPECT_EQ(refused("id,lenz.theta_E", "a,1\n"), "m.ecsv:8: lenz: unknown key, found lenz, expected lens");
  EXPECT_EQ(refused("id,template", "a,none.toml\n"), "none.toml: no such file, expected a TOML configuration");
  EXPECT_EQ(message_of([&] { read_manifest(folder_.write("n.ecsv", ecsv("id", "a\n")), ""); }),
            folder_ / "n.ecsv:7: template: missing, expected a configuration here or --template");
  EXPECT_EQ(message_of([&] { read_manifest(folder_ / "none.ecsv", ""); }), folder_ / "none.ecsv: no such file");
  EXPECT_EQ(message_of([&] { read_manifest(folder_ / "n.ecsv[1]", ""); }),
            folder_ / "n.ecsv[1]: not a FITS file, expected a table in FITS, or ECSV without [HDU]");
}

TEST_F(Survey, WhatConcernsOneLensIsItsOwn) {
  const Manifest m = manifest("id,lens.0.theta_E,lens.0.profile,lens.0.gamma,observation.noise,noise",
                              "a,-1,,,,\n"
                              "b,,EPL,2.1,,\n"  // a key that another column brings
                              "c,,,,2,3\n");
  EXPECT_EQ(message_of([&] { config_of(m.lenses[0]); }),
            m.file + ":12: lens.0.theta_E: out of range, found -1.0 arcsec, expected a number > 0 arcsec");
  EXPECT_EQ(config_of(m.lenses[1]).model.lens[0].kind, LensKind::epl);
  EXPECT_EQ(message_of([&] { config_of(m.lenses[2]); }),
            m.file + ":14: observation.noise: given by two columns, expected one of them");
}

TEST_F(Survey, SettingsFollowEverythingThatDecidesTheFit) {
  const auto settings = [&](const std::string& columns, const std::string& row, const std::string& more = "single") {
    return read_manifest(folder_.write("m.ecsv", ecsv(columns, row)), folder_ / "lens.toml", more).lenses[0].settings;
  };
  const std::uint64_t first = settings("id,noise,ra", "a,2,10\n");
  EXPECT_EQ(settings("id,noise,ra", "b,2,11\n"), first);  // another name and place of the same fit
  EXPECT_NE(settings("id,noise,ra", "a,3,10\n"), first);
  EXPECT_NE(settings("id,noise,ra", "a,2,10\n", "double"), first);
  EXPECT_NE(settings("id,noise,ra,size", "a,2,10,5\n"), settings("id,noise,ra,size", "a,2,11,5\n"));
  folder_.write("lens.toml", std::string(kTemplate) + "# a comment\n");
  EXPECT_NE(settings("id,noise,ra", "a,2,10\n"), first);
}

TEST_F(Survey, ManifestsInFits) {
  Table table;
  table.name = "LENSES";
  table.columns = {{"id", "", "", std::vector<std::string>{"a", "b"}},
                   {"image", "", "", std::vector<std::string>{"a.fits[1]", ""}},
                   {"lens.0.theta_E", "arcsec", "", std::vector<double>{1.25, std::nan("")}},
                   {"optimizer.steps", "", "", std::vector<std::int64_t>{7, 8}}};
  write_fits_table(folder_ / "m.fits", table);
  for (const char* name : {"m.fits", "m.fits[LENSES]", "m.fits[1]"}) {
    const Manifest m = read_manifest(folder_ / name, folder_ / "lens.toml");
    ASSERT_EQ(m.lenses.size(), 2u);
    EXPECT_EQ(m.lenses[1].place, folder_ / "m.fits[LENSES] row 2");
    EXPECT_EQ(config_of(m.lenses[0]).observation.image.path, folder_ / "a.fits");
    EXPECT_EQ(config_of(m.lenses[0]).model.lens[0].values[0], 1.25);
    EXPECT_EQ(config_of(m.lenses[1]).model.lens[0].values[0], 1.0);
    EXPECT_EQ(config_of(m.lenses[1]).optimizer.all_stages().front().steps, 8);
  }
}

/// A mosaic of 50 × 40 pixels of 0.1 arcsec, North up and East left, turned by 30 degrees.
CelestialWcs turned_wcs() {
  CelestialWcs wcs;
  const double scale = 0.1 / 3600, angle = kPi / 6;
  wcs.pixel_scale = 0.1;
  wcs.type = {"RA---TAN", "DEC--TAN"};
  wcs.cd = {{{-scale * std::cos(angle), scale * std::sin(angle)}, {scale * std::sin(angle), scale * std::cos(angle)}}};
  wcs.reference_pixel = {20.5, 10};
  wcs.reference_value = {359.99, -70.2};
  return wcs;
}

TEST_F(Survey, CutOutsOfAMosaic) {
  const auto part = [&](const std::string& columns, const std::string& row) {
    const Config config = config_of(manifest(columns, row).lenses[0]);
    const FitsSection s = config.observation.image.section.value();
    EXPECT_EQ(config.observation.image.plane, row.find("[*,*,2]") == std::string::npos ? 0 : 2);
    return std::array{s.x_first, s.x_last, s.y_first, s.y_last};
  };
  EXPECT_EQ(part("id,image,x,y,size", "a,m.fits,10,20,5\n"), (std::array{8, 12, 18, 22}));
  EXPECT_EQ(part("id,image,x,y,size", "a,m.fits,10.4,20.6,4\n"), (std::array{9, 12, 19, 22}));
  EXPECT_EQ(part("id,x,y,size", "a,3,3,5\n"), (std::array{1, 5, 1, 5}));  // of the template's image
  EXPECT_EQ(part("id,image,x,y,size", "a,\"m.fits[SCI][*,*,2]\",10,20,5\n"), (std::array{8, 12, 18, 22}));
  // By right ascension and declination.
  const CelestialWcs wcs = turned_wcs();
  const auto card = [](const std::string& key, double value) { return key + "= " + to_text(value); };
  const auto write_sky = [&](const std::string& name, const std::string& projection) {
    folder_.write(name, raw_fits({"SIMPLE  = T", "BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 50", "NAXIS2  = 40",
                                  "CTYPE1  = 'RA---" + projection + "'", "CTYPE2  = 'DEC--" + projection + "'",
                                  card("CRPIX1  ", wcs.reference_pixel[0]), card("CRPIX2  ", wcs.reference_pixel[1]),
                                  card("CRVAL1  ", wcs.reference_value[0]), card("CRVAL2  ", wcs.reference_value[1]),
                                  card("CD1_1   ", wcs.cd[0][0]), card("CD1_2   ", wcs.cd[0][1]),
                                  card("CD2_1   ", wcs.cd[1][0]), card("CD2_2   ", wcs.cd[1][1])},
                                 50 * 40 * 4));
  };
  write_sky("sky.fits", "TAN");
  write_sky("sin.fits", "SIN");
  const std::array<double, 2> sky = wcs.longitude_latitude({30.2, 20.9});
  EXPECT_EQ(part("id,image,ra,dec,size", "a,sky.fits," + to_text(sky[0]) + "," + to_text(sky[1]) + ",7\n"),
            (std::array{27, 33, 18, 24}));
  const auto refused_part = [&](const std::string& columns, const std::string& row) {
    const Manifest m = manifest(columns, row);
    const std::string message = message_of([&] { config_of(m.lenses[0]); });
    return message.rfind(m.file + ":", 0) == 0 ? message.substr(message.find(": ") + 2) : message;
  };
  EXPECT_EQ(refused_part("id,image,x,y,size", "a,m.fits,2,20,5\n"),
            "size: the cut-out leaves the image, found columns from 0 and rows from 18, expected 1 or more");
  EXPECT_EQ(refused_part("id,image,x,y,size", "a,m.fits,2,,5\n"), "y: missing, expected a row of the image, from 1");
  EXPECT_EQ(refused_part("id,image,x,y,size", "a,m.fits,9,9,2.5\n"), "size: not a whole number, found 2.5");
  EXPECT_EQ(refused_part("id,image,x,y,size", "a,\"m.fits[1:5,1:5]\",9,9,3\n"),
            "size: contradicts the part [1:5,1:5] of the image, expected one of them");
  EXPECT_EQ(refused_part("id,image,ra,dec,size", "a,sin.fits,0,-70,3\n"),
            "ra, dec: a WCS of RA---SIN, DEC--SIN, expected RA---TAN and DEC--TAN with LONPOLE = 180, or the columns x "
            "and y");
  EXPECT_EQ(refused_part("id,image,ra,dec,size", "a,sky.fits,179,70,3\n"),
            "ra, dec: a position on the other side of the sky, expected one near the middle of the image");
  EXPECT_EQ(refused_part("id,image,size", "a,m.fits,3\n"), "ra: missing, expected degrees, or the columns x and y");
}

// ---- rows ----------------------------------------------------------------------------------------------------

LensRow a_row(const std::string& id, int attempt = 1) {
  LensRow row;
  row.id = id;
  row.status = "ok";
  row.attempt = attempt;
  row.chi2 = 1.0 / 3;
  row.parameters = {{"lens.0.theta_E", std::nextafter(1.2, 2.0), 1e-3, "arcsec", 1.197, 1.203},
                    {"lens.0.e1", -0.0, LensRow::kUnknown, ""}};
  row.thumbnails = {2, 1, "Az", "_-", ".9", ""};
  row.seconds = 0.1;
  row.seed = ~std::uint64_t(0);
  row.flags = std::uint64_t(1) << 62;
  row.message = "a \"text\"\nwith µ and \x01";
  return row;
}

TEST(Rows, AreReadBackToTheSameBits) {
  LensRow row = a_row("näme,\t1");
  row.lens_flux = kInfinity;
  row.source_flux = -kInfinity;
  row.settings = 0x8000000000000001u;
  const LensRow back = from_json(to_json(row));
  EXPECT_EQ(to_json(back), to_json(row));
  EXPECT_EQ(back.id, row.id);
  EXPECT_EQ(back.message, row.message);
  EXPECT_EQ(back.parameters[0].value, row.parameters[0].value);
  EXPECT_TRUE(std::signbit(back.parameters[1].value));
  EXPECT_TRUE(std::isnan(back.parameters[1].sigma));
  EXPECT_EQ(back.parameters[0].upper, 1.203);
  EXPECT_TRUE(std::isnan(back.parameters[1].lower));
  EXPECT_EQ(back.thumbnails.residual, ".9");
  EXPECT_EQ(back.lens_flux, kInfinity);
  EXPECT_EQ(back.seed, row.seed);
  EXPECT_EQ(back.settings, row.settings);
  EXPECT_THROW(from_json("{}"), InvalidInput);
  EXPECT_THROW(from_json("{\"id\": 7}"), InvalidInput);
  EXPECT_EQ(to_json(row).find('\n'), std::string::npos);
}

/// Parameters of all kinds of ranges: ± 3 σ far from an end, and never beyond one.
TEST(Rows, IntervalsOfThreeSigmaStayInTheRange) {
  Model model;
  model.lens = {{LensKind::sie, {1.2, 0.1, -0.05, 0.02, 0.0}, {1, 1, 1, 1, 0}}};
  const ParameterLayout layout(model);
  const std::vector<double> values = {1.2, 0.1, -0.05, 0.02};
  for (const double sigma : {1e-4, 0.3, 100.0}) {
    const auto ends = three_sigma(layout, values, std::vector<double>(4, sigma));
    EXPECT_DOUBLE_EQ(ends[3].first, 0.02 - 3 * sigma);  // a position has no range
    EXPECT_DOUBLE_EQ(ends[3].second, 0.02 + 3 * sigma);
    EXPECT_GE(ends[0].first, 0);
    for (const std::size_t i : {1u, 2u}) {
      EXPECT_GT(ends[i].first, -1);
      EXPECT_LT(ends[i].second, 1);
    }
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_LT(ends[i].first, values[i]) << i;
      EXPECT_GT(ends[i].second, values[i]) << i;
      if (sigma > 1e-3) continue;
      EXPECT_NEAR((ends[i].second - ends[i].first) / (6 * sigma), 1, 1e-3) << i;
    }
  }
  EXPECT_TRUE(std::isnan(three_sigma(layout, values, std::vector<double>(4, LensRow::kUnknown))[1].first));
}

TEST(Thumbnails, HaveOneCharacterAPixel) {
  EXPECT_EQ(levels_of({-1, 0, 0.5, 0.999, 1, 7, LensRow::kUnknown}, 0, 1), "AAg___.");
  EXPECT_EQ(levels_of({3, 4}, 3, 3), "AA");
  EXPECT_EQ(levels_of({}, 0, 1), "");
}

TEST(Rows, ATornTailDoesNotCount) {
  const TemporaryDirectory folder;
  const std::string whole = row_line(a_row("a")) + row_line(a_row("b")), next = row_line(a_row("c"));
  for (std::size_t cut = 0; cut <= next.size(); ++cut) {
    folder.write("1.rows", whole + next.substr(0, cut));
    RowStore rows(folder.path().string());
    rows.refresh();
    ASSERT_EQ(rows.size(), cut == next.size() ? 3u : 2u) << cut;
    ASSERT_EQ(rows.torn_bytes(), cut == next.size() ? 0 : cut) << cut;
    ASSERT_TRUE(rows.damage().empty());
    ASSERT_EQ(rows.find("c") != nullptr, cut == next.size());
  }
  // What was cut is not a lens, and the next process writes into another file.
  folder.write("1.rows", whole + next.substr(0, next.size() / 2));
  RowStore rows(folder.path().string());
  rows.append(a_row("c"));
  rows.refresh();
  EXPECT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows.files(), 2u);
  EXPECT_EQ(to_json(rows.read(*rows.find("c"))), to_json(a_row("c")));
  EXPECT_EQ(folder.read("1.rows"), whole + next.substr(0, next.size() / 2));
}

TEST(Rows, DamageIsNamedAndItsLensIsUnfinished) {
  const TemporaryDirectory folder;
  const std::string first = row_line(a_row("a")), second = row_line(a_row("b"));
  for (std::size_t i = 0; i + 1 < first.size(); i += 7) {
    std::string text = first + second;
    text[i] = static_cast<char>(text[i] ^ 4);
    if (text[i] == '\n') continue;
    folder.write("1.rows", text);
    RowStore rows(folder.path().string());
    rows.refresh();
    ASSERT_EQ(rows.find("a"), nullptr) << i;
    ASSERT_NE(rows.find("b"), nullptr) << i;
    ASSERT_EQ(rows.damage(), std::vector<std::string>{folder / "1.rows: damaged at byte 0, its lens is fitted again"});
  }
}

TEST(Rows, TheLastAttemptCounts) {
  const TemporaryDirectory folder;
  folder.write("2.rows", row_line(a_row("a", 2)) + row_line(a_row("b", 1)));
  folder.write("1.rows", row_line(a_row("a", 1)) + row_line(a_row("b", 1)));
  RowStore rows(folder.path().string());
  rows.refresh();
  EXPECT_EQ(rows.find("a")->attempt, 2);
  EXPECT_EQ(rows.find("b")->file, "1.rows");  // of two alike, always the same
  // Rows that are appended later are seen, also by who has read before.
  RowStore other(folder.path().string());
  other.append(a_row("a", 3));
  rows.refresh();
  EXPECT_EQ(rows.find("a")->attempt, 3);
  rows.refresh();
  EXPECT_EQ(rows.size(), 2u);
}

// ---- claims --------------------------------------------------------------------------------------------------

TEST(ClaimsOfLenses, OneProcessHasALens) {
  const TemporaryDirectory folder;
  Claims one(folder / "claims", 60s);
  EXPECT_EQ(one.take("a"), Claim::ours);
  Claims two(folder / "claims", 60s);  // as of another process: it has another lease
  EXPECT_EQ(two.take("a"), Claim::unknown);
  EXPECT_EQ(two.take("b"), Claim::ours);
  one.release("b");  // not its own: nothing happens
  EXPECT_EQ(one.take("b"), Claim::unknown);
  one.release("a");
  EXPECT_EQ(two.take("a"), Claim::ours);
  const std::vector<Claims::InWork> all = Claims::list(folder / "claims");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].lenses, 2);
  EXPECT_FALSE(all[0].ended);
}

TEST(ClaimsOfLenses, OfSeveralThatAskAtOnceOneGetsIt) {
  const TemporaryDirectory folder;
  constexpr std::size_t kThreads = 4, kLenses = 300;
  std::vector<std::atomic<int>> taken(kLenses);
  {
    std::vector<std::unique_ptr<Claims>> claims;
    for (std::size_t t = 0; t < kThreads; ++t) claims.push_back(std::make_unique<Claims>(folder / "claims", 60s));
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (std::size_t i = 0; i < kLenses; ++i)
          if (claims[t]->take(std::to_string(i)) == Claim::ours) ++taken[i];
      });
    for (std::thread& thread : threads) thread.join();
  }
  for (const std::atomic<int>& n : taken) EXPECT_EQ(n, 1);
  EXPECT_TRUE(fs::is_empty(folder / "claims"));
}

/// What killed processes of this machine had is free at once.
TEST(ClaimsOfLenses, AKilledProcessLosesItsLenses) {
  const TemporaryDirectory folder;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    Claims claims(folder / "claims", 60s);
    claims.take("a");
    claims.take("b");
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  Claims claims(folder / "claims", 60s);
  EXPECT_EQ(claims.take("a"), Claim::unknown);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_EQ(Claims::list(folder / "claims").size(), 1u);
  EXPECT_TRUE(Claims::list(folder / "claims")[0].ended);
  EXPECT_EQ(claims.take("a"), Claim::ours);
  EXPECT_EQ(claims.take("b"), Claim::ours);
  close(ready[0]);
  close(ready[1]);
}

/// Of a process on another machine only its lease is known.
TEST(ClaimsOfLenses, ASilentLeaseGoesStaleAndALiveOneDoesNot) {
  const TemporaryDirectory folder;
  fs::create_directory(folder / "claims");
  Claims claims(folder / "claims", 1s);
  ASSERT_EQ(claims.take("a"), Claim::ours);
  // Puts the lease of another machine in its place.
  std::string name;
  for (const auto& entry : fs::directory_iterator(folder / "claims"))
    if (entry.path().extension() == ".claim") name = entry.path().string();
  fs::remove(name);
  const std::string lease = folder.write("claims/far.lease", "far boot space 17 1\n");
  fs::create_hard_link(lease, name);
  EXPECT_EQ(claims.take("a"), Claim::unknown);
  std::this_thread::sleep_for(20ms);
  fs::last_write_time(lease, fs::file_time_type::clock::now());  // a sign of life
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(claims.take("a"), Claim::in_work);
  Claim answer = Claim::in_work;
  while (answer == Claim::in_work) {
    std::this_thread::sleep_for(20ms);
    answer = claims.take("a");
  }
  EXPECT_EQ(answer, Claim::ours);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 1s);
  EXPECT_EQ(Claims::list(folder / "claims").size(), 1u);
}

TEST(ClaimsOfLenses, ALeaseIsRenewedWhileItsProcessLives) {
  const TemporaryDirectory folder;
  Claims one(folder / "claims", 1500ms), two(folder / "claims", 1500ms);
  ASSERT_EQ(one.take("a"), Claim::ours);
  for (int i = 0; i < 12; ++i) {
    EXPECT_NE(two.take("a"), Claim::ours) << i;
    std::this_thread::sleep_for(200ms);
  }
  EXPECT_EQ(two.take("a"), Claim::in_work);
}

TEST(ProcessNames, SayWhetherTheirOwnerLives) {
  const ProcessName own = ProcessName::own();
  EXPECT_FALSE(own.has_ended());
  const std::optional<ProcessName> back = ProcessName::parse(own.text() + "\n");
  ASSERT_TRUE(back);
  EXPECT_EQ(back->text(), own.text());
  ProcessName other = own;
  other.start += 1;  // the number has been given to another process
  EXPECT_TRUE(other.has_ended());
  other.host = "elsewhere";
  EXPECT_FALSE(other.has_ended());
  other = own;
  other.boot = "another";
  other.start += 1;
  EXPECT_FALSE(other.has_ended());
  EXPECT_FALSE(ProcessName::parse("nonsense"));
  EXPECT_FALSE(ProcessName::parse(""));
}

// ---- shares --------------------------------------------------------------------------------------------------

std::string share(const std::string& text, const std::map<std::string, std::string>& variables) {
  const Shard shard = shard_of(text, [&](const std::string& name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::optional<std::string>() : found->second;
  });
  return std::to_string(shard.index) + "/" + std::to_string(shard.count);
}

TEST(Shares, FollowTheEngine) {
  EXPECT_EQ(share("auto", {}), "0/1");
  EXPECT_EQ(share("2/5", {{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}}), "2/5");
  EXPECT_EQ(share("5/5", {}), "0/5");  // who counts from 1
  const std::map<std::string, std::string> array = {{"SLURM_ARRAY_TASK_ID", "7"},
                                                    {"SLURM_ARRAY_TASK_MIN", "3"},
                                                    {"SLURM_ARRAY_TASK_STEP", "2"},
                                                    {"SLURM_ARRAY_TASK_COUNT", "4"}};
  EXPECT_EQ(share("auto", array), "2/4");
  EXPECT_EQ(share("auto", {{"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "4"}}), "3/4");
  // srun within an element of an array; sbatch alone says one task.
  std::map<std::string, std::string> both = array;
  both.insert({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "3"}});
  EXPECT_EQ(share("auto", both), "7/12");
  both["SLURM_NTASKS"] = "1";
  both["SLURM_PROCID"] = "0";
  EXPECT_EQ(share("auto", both), "2/4");
  // mpirun inside of Slurm: its own ranks count.
  EXPECT_EQ(share("auto", {{"OMPI_COMM_WORLD_RANK", "5"},
                           {"OMPI_COMM_WORLD_SIZE", "8"},
                           {"PMIX_RANK", "5"},
                           {"SLURM_PROCID", "0"},
                           {"SLURM_NTASKS", "2"}}),
            "5/8");
  EXPECT_EQ(share("auto", {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}), "1/2");
  EXPECT_EQ(share("auto", {{"PMIX_RANK", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_PROCID", "0"}}), "1/2");
  EXPECT_EQ(share("auto", {{"PMIX_RANK", "1"}}), "0/1");  // without a size
  EXPECT_EQ(message_of([] { share("3/2", {}); }), "--shard: found 3/2, expected auto, or i/n with i from 0 to n");
  EXPECT_EQ(message_of([] { share("x", {}); }), "--shard: found x, expected auto, or i/n with i from 0 to n");
  EXPECT_EQ(message_of([] {
              share("auto", {{"PMI_RANK", "2"}, {"PMI_SIZE", "2"}});
            }),
            "--shard: PMI_RANK = 2 is not below PMI_SIZE = 2, expected --shard i/n");
  EXPECT_EQ(
      message_of([] {
        share("auto", {{"PMI_RANK", "a"}, {"PMI_SIZE", "2"}});
      }),
      "--shard: the variable PMI_RANK is not usable, found \"a\", expected a whole number from 0, or --shard i/n");
}

TEST(Shares, ThePlaceOnTheNode) {
  const auto rank = [](const std::map<std::string, std::string>& variables) {
    return local_rank([&](const std::string& name) {
      const auto found = variables.find(name);
      return found == variables.end() ? std::optional<std::string>() : found->second;
    });
  };
  EXPECT_EQ(rank({}), 0);
  EXPECT_EQ(rank({{"SLURM_LOCALID", "3"}}), 3);
  EXPECT_EQ(rank({{"SLURM_LOCALID", "0"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}}), 2);
}

TEST(Shares, Times) {
  EXPECT_EQ(seconds_of("--time-limit", "90"), 90);
  EXPECT_EQ(seconds_of("--time-limit", "90s"), 90);
  EXPECT_EQ(seconds_of("--time-limit", "55m"), 3300);
  EXPECT_EQ(seconds_of("--time-limit", "1.5h"), 5400);
  EXPECT_EQ(seconds_of("--time-limit", "2d"), 172800);
  for (const char* text : {"", "m", "-3m", "0", "1:30", "inf", "5 m"})
    EXPECT_NE(message_of([&] { seconds_of("--time-limit", text); }), "") << text;
}

// ---- runs ----------------------------------------------------------------------------------------------------

/// A row that depends on nothing but the lens; every third is suspect, every seventh failed.
LensRow stub_row(const SurveyLens& lens) {
  const int i = std::stoi(lens.id);
  if (i % 7 == 6) return row_of(kBadInputFlag, "lens " + lens.id + " is broken");
  LensRow row = a_row(lens.id);
  row.flags = 0;
  row.message.clear();
  row.seconds = 1;
  row.status = i % 3 == 2 ? "suspect" : "ok";
  row.chi2 = 1 + 1.0 / (i + 1);
  row.seed = 1;
  if (i % 2 == 1) row.parameters.push_back({"source.0.amp", i * 0.1, 0.5, ""});
  return row;
}

SurveyOptions options_in(const TemporaryDirectory& folder, int workers = 1) {
  SurveyOptions options;
  options.dir = folder / "out";
  options.workers = workers;
  options.lease = 2s;
  options.poll = 20ms;
  fs::create_directories(options.dir);
  return options;
}

/// The table of the survey as a file.
std::string table_of(const Manifest& manifest, const TemporaryDirectory& folder) {
  RowStore rows(folder / "out/rows");
  rows.refresh();
  write_fits_table(folder / "table.fits", survey_table(manifest, rows));
  return folder.read("table.fits");
}

TEST_F(Survey, EveryLensOnceOnAnyNumberOfThreads) {
  const Manifest m = many(60);
  std::string first;
  for (const int workers : {1, 3}) {
    fs::remove_all(folder_ / "out");
    RowStore rows(folder_ / "out/rows");
    std::mutex mutex;
    std::multiset<std::string> fitted;
    std::size_t calls = 0;
    const SurveyOutcome outcome = run_survey(
        m, options_in(folder_, workers), rows,
        [&](const SurveyLens& lens, const std::function<bool()>& stopped) -> std::optional<LensRow> {
          EXPECT_FALSE(stopped());
          const std::lock_guard lock(mutex);
          fitted.insert(lens.id);
          return stub_row(lens);
        },
        [&](const LensRow&, const SurveyCounts*) { ++calls; });
    EXPECT_EQ(fitted.size(), 60u);
    EXPECT_EQ(std::set<std::string>(fitted.begin(), fitted.end()).size(), 60u);
    EXPECT_EQ(outcome.fitted, 60u);
    EXPECT_EQ(calls, 60u);
    EXPECT_EQ(outcome.counts.failed, 8u);
    EXPECT_EQ(outcome.counts.ok + outcome.counts.suspect, 52u);
    EXPECT_FALSE(outcome.interrupted);
    const std::string table = table_of(m, folder_);
    if (workers == 1) first = table;
    EXPECT_EQ(table, first);
    EXPECT_TRUE(fs::is_empty(folder_ / "out/claims"));
  }
}

TEST_F(Survey, AShareComesFirstAndThenTheOthers) {
  const Manifest m = many(10);
  SurveyOptions options = options_in(folder_);
  options.shard = {1, 3, ""};
  RowStore rows(folder_ / "out/rows");
  std::string order;
  run_survey(m, options, rows, [&](const SurveyLens& lens, const auto&) {
    order += lens.id;
    return stub_row(lens);
  });
  EXPECT_EQ(order, "1472580369");
}

TEST_F(Survey, OnlyWhatIsSelectedIsFittedAgain) {
  const Manifest m = many(21);
  const auto run = [&](const std::string& only) {
    SurveyOptions options = options_in(folder_);
    options.only = Selection::parse(only, m);
    RowStore rows(folder_ / "out/rows");
    std::vector<std::string> order;
    run_survey(m, options, rows, [&](const SurveyLens& lens, const auto&) {
      order.push_back(lens.id);
      return stub_row(lens);
    });
    return joined(order);
  };
  run("");
  EXPECT_EQ(run(""), "");
  EXPECT_EQ(run("failed"), "6, 13, 20");
  EXPECT_EQ(run("flagged"), "2, 5, 6, 8, 11, 13, 14, 17, 20");
  EXPECT_EQ(run("3,failed,4"), "3, 4, 6, 13, 20");
  EXPECT_EQ(
      message_of([&] { Selection::parse("3,x", m); }),
      "--only: no lens x in " + m.file + ", expected failed, flagged, changed or ids of lenses, separated by commas");
  RowStore rows(folder_ / "out/rows");
  rows.refresh();
  EXPECT_EQ(rows.find("6")->attempt, 4);
  EXPECT_EQ(rows.find("0")->attempt, 1);
  // Another manifest, template or precision is refused until it is asked for.
  EXPECT_EQ(message_of([&] { refuse_changes(m, rows, "out"); }), "");
  Manifest changed = m;
  changed.lenses[4].settings += 1;
  EXPECT_EQ(message_of([&] { refuse_changes(changed, rows, "out"); }),
            "--out: out has 1 lens finished with another row of the manifest, template or precision, the first is 4; "
            "expected the same again, another --out, or --only changed");
  SurveyOptions options = options_in(folder_);
  options.only = Selection::parse("changed", changed);
  EXPECT_EQ(
      run_survey(changed, options, rows, [&](const SurveyLens& lens, const auto&) { return stub_row(lens); }).fitted,
      1u);
}

TEST_F(Survey, InterruptedLensesAreUnfinished) {
  const Manifest m = many(5);
  SurveyOptions options = options_in(folder_);
  std::atomic<bool> stop{false};
  options.stopped = [&] { return stop.load(); };
  RowStore rows(folder_ / "out/rows");
  const SurveyOutcome outcome =
      run_survey(m, options, rows, [&](const SurveyLens& lens, const auto& stopped) -> std::optional<LensRow> {
        if (lens.id != "2") return stub_row(lens);
        stop = true;
        EXPECT_TRUE(stopped());
        return std::nullopt;
      });
  EXPECT_TRUE(outcome.interrupted);
  EXPECT_EQ(outcome.counts.unfinished(), 3u);
  EXPECT_TRUE(fs::is_empty(folder_ / "out/claims"));
}

TEST_F(Survey, AFaultOfTheMachineEndsTheRun) {
  const Manifest m = many(50);
  RowStore rows(folder_ / "out/rows");
  std::atomic<int> asked{0};
  EXPECT_THROW(run_survey(m, options_in(folder_, 3), rows,
                          [&](const SurveyLens& lens, const std::function<bool()>& stopped) -> std::optional<LensRow> {
                            if (lens.id == "7") throw IoError("disk full");
                            while (lens.id == "8" && !stopped()) std::this_thread::sleep_for(1ms);
                            ++asked;
                            return stub_row(lens);
                          }),
               IoError);
  EXPECT_LT(asked, 50);
  EXPECT_TRUE(fs::is_empty(folder_ / "out/claims"));
}

/// Processes side by side, killed and started again at random moments: every lens has one row that counts, and the
/// table is that of a run that nobody disturbed.
TEST_F(Survey, ProcessesThatAreKilledLoseNothing) {
  const Manifest m = many(80);
  const auto work = [&](int index) {
    SurveyOptions options = options_in(folder_, 2);
    options.shard = {index, 3, ""};
    RowStore rows(options.dir + "/rows");
    const SurveyOutcome outcome = run_survey(m, options, rows, [&](const SurveyLens& lens, const auto&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2 + std::stoi(lens.id) % 9));
      return stub_row(lens);
    });
    return outcome.counts.unfinished() == 0 || outcome.in_work == outcome.counts.unfinished() ? 0 : 9;
  };
  ASSERT_EQ(work(0), 0);
  const std::string whole = table_of(m, folder_);
  fs::remove_all(folder_ / "out");

  std::array<pid_t, 3> children{};
  const auto begin = [&](std::size_t i) {
    children[i] = fork();
    if (children[i] != 0) return;
    int status = 8;
    try {
      status = work(static_cast<int>(i));
    } catch (...) {
    }
    _exit(status);
  };
  for (std::size_t i = 0; i < 3; ++i) begin(i);
  unsigned random = 12345;
  for (int kills = 0; kills < 25; ++kills) {
    random = random * 1103515245u + 12345u;
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + random / 65536 % 25));
    const std::size_t i = random / 7 % 3;
    kill(children[i], SIGKILL);
    int status = 0;
    waitpid(children[i], &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << status;
    begin(i);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(work(0), 0);  // what the last ones left to each other
  EXPECT_EQ(table_of(m, folder_), whole);
  RowStore rows(folder_ / "out/rows");
  rows.refresh();
  EXPECT_EQ(rows.size(), 80u);
  EXPECT_TRUE(rows.damage().empty());
}

// ---- table ---------------------------------------------------------------------------------------------------

TEST_F(Survey, TheTableHasARowForEveryLens) {
  const Manifest m = manifest("id,ra,z_lens", "0,150.5,0.3\n1,,\n2,10,\n6,1,1\n");
  RowStore rows(folder_ / "out/rows");
  for (const std::size_t i : {3u, 1u, 0u}) {
    LensRow row = stub_row(m.lenses[i]);
    row.id = m.lenses[i].id;
    rows.append(row);
  }
  rows.refresh();
  const Table table = survey_table(m, rows);
  write_ecsv(folder_ / "t.ecsv", table);
  const TextTable t = read_ecsv(folder_ / "t.ecsv");
  const auto column = [&](const std::string& name) {
    std::string cells;
    const auto at = std::find(t.names.begin(), t.names.end(), name) - t.names.begin();
    for (const auto& row : t.rows) cells += row.at(static_cast<std::size_t>(at)) + ";";
    return cells;
  };
  EXPECT_EQ(joined({t.names.begin(), t.names.begin() + 23}),
            "id, ra, z_lens, status, flag_names, message, flags, nx, ny, pixels, chi2, lens.0.theta_E, "
            "lens.0.theta_E_err, lens.0.theta_E_lower3, lens.0.theta_E_upper3, lens.0.e1, lens.0.e1_err, "
            "lens.0.e1_lower3, lens.0.e1_upper3, source.0.amp, source.0.amp_err, source.0.amp_lower3, "
            "source.0.amp_upper3");
  EXPECT_EQ(column("id"), "0;1;2;6;");
  EXPECT_EQ(column("ra"), "150.5;;10;1;");
  EXPECT_EQ(column("status"), "ok;ok;unfinished;failed;");
  EXPECT_EQ(column("flags"), "0;0;576460752303423488;4611686018427387904;");
  EXPECT_EQ(column("flag_names"), ";;unfinished;bad_input;");
  EXPECT_EQ(column("message"), ";;;lens 6 is broken;");
  EXPECT_EQ(column("chi2"), "2;1.5;;;");
  EXPECT_EQ(column("source.0.amp"), ";0.1;;;");
  EXPECT_EQ(column("lens.0.theta_E_lower3"), "1.197;1.197;;;");
  EXPECT_EQ(column("lens.0.theta_E_upper3"), "1.203;1.203;;;");
  EXPECT_EQ(column("attempt"), "1;1;0;1;");
}

// ---- gallery -------------------------------------------------------------------------------------------------

const std::string kHostile = "</script><img src=x onerror=alert(1)>&\"'\\";

/// A finished row with pictures of the largest size.
LensRow pictured_row(const SurveyLens& lens) {
  LensRow row = stub_row(lens);
  const int i = std::stoi(lens.id);
  const std::size_t pixels = static_cast<std::size_t>(Thumbnails::kSide) * Thumbnails::kSide;
  std::vector<double> values;
  for (std::size_t k = 0; k < pixels; ++k) values.push_back(std::sin(0.37 * i + 0.1 * static_cast<double>(k)));
  const std::string levels = levels_of(values, -1, 1);
  if (!row.failed()) row.thumbnails = {Thumbnails::kSide, Thumbnails::kSide, levels, levels, levels, levels};
  row.id = lens.id;
  row.chi2 = 1 + (i * 7919 % 1000) / 1000.0;
  row.einstein_radius = 1.23456789;
  row.magnification = 10.5;
  row.source_magnitude = 25.123;
  row.lens_magnitude = 19.321;
  row.log_evidence = -1234.5;
  row.kappa_peak = 0.123;
  row.kappa_peak_snr = 4.5;
  row.starts = 32;
  row.starts_reached_best = 17;
  row.seconds = 12.3;
  return row;
}

/// The JSON between two texts of a file.
nlohmann::json json_between(const std::string& text, const std::string& before, const std::string& after) {
  const std::size_t begin = text.find(before) + before.size();
  return nlohmann::json::parse(text.substr(begin, text.find(after, begin) - begin));
}

class Gallery : public Survey {
 protected:
  /// A survey of which lens 1 has a report, lens 2 is unfinished and lens 3 has a hostile message.
  Manifest survey(int n) const {
    const Manifest m = many(n);
    RowStore rows(folder_ / "out/rows");
    for (const SurveyLens& lens : m.lenses) {
      LensRow row = pictured_row(lens);
      if (lens.id == "3") row.message = kHostile;
      if (lens.id != "2") rows.append(row);
    }
    fs::create_directories(folder_ / "out/lenses/1");
    folder_.write("out/lenses/1/report.html", "report");
    return m;
  }
  void write(const Manifest& m) const {
    RowStore rows(folder_ / "out/rows");
    rows.refresh();
    write_gallery(folder_ / "gal lery", m, rows, folder_ / "out");
  }
  nlohmann::json page() const {
    return json_between(folder_.read("gal lery/report.html"), "id=\"lenses\">", "</script>");
  }
};

TEST_F(Gallery, HasAllLensesAndTheirPictures) {
  const Manifest m = survey(250);
  write(m);
  const nlohmann::json page = this->page();
  ASSERT_EQ(page["lenses"].size(), 250u);
  EXPECT_EQ(page["lenses"][0][0], "0");
  EXPECT_EQ(page["lenses"][0][3], "");
  EXPECT_EQ(page["lenses"][1][3], "../out/lenses/1/report.html");
  EXPECT_EQ(page["lenses"][2][1], "unfinished");
  EXPECT_EQ(page["lenses"][2][4], nullptr);
  EXPECT_EQ(page["lenses"][6][2], "bad_input");
  EXPECT_EQ(page["lenses"][1][4], 1.919);
  EXPECT_EQ(page["lenses"][1][5], 1.2346);
  EXPECT_EQ(page["columns"].size(), 12u);
  for (const nlohmann::json& lens : page["lenses"]) EXPECT_EQ(lens.size(), 14u);
  std::size_t lenses = 0;
  for (const auto& [number, size] : {std::pair(0, 100u), {1, 100u}, {2, 50u}}) {
    const std::string file = folder_.read("gal lery/pictures/000" + std::to_string(number) + ".js");
    const nlohmann::json pictures = json_between(file, "chunk(" + std::to_string(number) + ",", ");");
    ASSERT_EQ(pictures.size(), size);
    for (const nlohmann::json& lens : pictures) {
      const std::string id = std::to_string(lenses++);
      const bool shown = id != "2" && std::stoi(id) % 7 != 6;
      EXPECT_EQ(lens[3], shown ? pictured_row({id, "", "", {}, 0}).thumbnails.data : "") << id;
    }
  }
  EXPECT_EQ(lenses, 250u);
  EXPECT_FALSE(fs::exists(folder_ / "gal lery/pictures/0003.js"));
  // A text is never part of the page's own.
  const std::string all = folder_.read("gal lery/report.html") + folder_.read("gal lery/pictures/0000.js");
  EXPECT_EQ(all.find("<img src=x"), std::string::npos);
  EXPECT_EQ(json_between(folder_.read("gal lery/pictures/0000.js"), "chunk(0,", ");")[3][0], kHostile);
  // The same rows, the same gallery.
  write(m);
  EXPECT_EQ(folder_.read("gal lery/report.html") + folder_.read("gal lery/pictures/0000.js"), all);
}

/// 10^4 lenses in 20 MB.
TEST_F(Gallery, TakesLessThanTwoKilobytesALens) {
  constexpr int kLenses = 1000;
  write(survey(kLenses));
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "gal lery"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  EXPECT_LT(bytes, 2000u * kLenses);
  EXPECT_GT(bytes, 1000u * kLenses);
}

TEST_F(Gallery, ABrowserSortsFindsAndPaints) {
  if (!browser()) GTEST_SKIP() << "no chromium is installed";
  write(survey(120));
  const auto shown = [&](const std::string& what) {
    return document_in_browser(folder_, "file://" + folder_.path().string() + "/gal%20lery/report.html" + what);
  };
  const auto count = [](const std::string& text, const std::string& part) {
    std::size_t n = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  };
  /// The names in the order of the rows.
  const auto names = [](const std::string& dom) {
    std::vector<std::string> ids;
    const std::size_t begin = dom.find("id=\"rows\""), end = dom.find("</tbody>", begin);
    const std::string rows = dom.substr(begin, end - begin);
    for (std::size_t at = rows.find("<tr"); at != std::string::npos; at = rows.find("<tr", at + 1)) {
      std::size_t text = rows.find("<td>", at) + 4;
      text = rows.find('>', text) + 1;  // of a link or a span
      ids.push_back(rows.substr(text, rows.find('<', text) - text));
    }
    return ids;
  };
  const std::string first = shown("");
  std::vector<std::string> expected;
  for (int i = 0; i < 50; ++i) expected.push_back(std::to_string(i));
  EXPECT_EQ(names(first), expected);
  EXPECT_NE(first.find("120 of 120 lenses, page 1 of 3"), std::string::npos);
  // Four pictures of each lens that has some: all but one unfinished and seven failed ones.
  EXPECT_EQ(count(first, "src=\"data:image/png;base64,"), 4u * 42);
  EXPECT_NE(first.find("href=\"../out/lenses/1/report.html\""), std::string::npos);
  EXPECT_EQ(count(first, "onerror"), 1u);  // in the title of a row
  EXPECT_EQ(names(shown("#page=3")).size(), 20u);
  // Sorted by χ², largest first; the unfinished one and those that failed come last.
  std::vector<std::pair<double, int>> chi2;
  for (int i = 0; i < 120; ++i)
    if (i != 2) chi2.emplace_back(-pictured_row({std::to_string(i), "", "", {}, 0}).chi2, i);
  std::sort(chi2.begin(), chi2.end());
  expected.clear();
  for (std::size_t k = 0; k < 50; ++k) expected.push_back(std::to_string(chi2[k].second));
  EXPECT_EQ(names(shown("#sort=%CF%87%C2%B2&down=1")), expected);
  EXPECT_EQ(names(shown("#find=bad_input")),
            (std::vector<std::string>{"6", "13", "20", "27", "34", "41", "48", "55", "62", "69", "76", "83", "90", "97",
                                      "104", "111", "118"}));
}

/// Bytes that this thread has read from files so far; nothing where the system does not count them.
std::optional<std::uint64_t> bytes_read() {
  std::ifstream file("/proc/thread-self/io");
  std::string key;
  std::uint64_t bytes = 0;
  if (!(file >> key >> bytes) || key != "rchar:") return std::nullopt;
  return bytes;
}

/// What a survey of any size costs: a table reads every row once, and a store every new row once.
TEST_F(Survey, RowsAreReadOnce) {
  if (!bytes_read()) GTEST_SKIP() << "the system does not count the bytes that a thread reads";
  constexpr int kLenses = 2000;
  const Manifest m = many(kLenses);
  RowStore writer(folder_ / "out/rows");
  for (const SurveyLens& lens : m.lenses) {
    LensRow row = stub_row(lens);
    row.id = lens.id;
    writer.append(row);
  }
  std::uintmax_t size = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "out/rows")) size += entry.file_size();
  RowStore rows(folder_ / "out/rows");
  const auto read_by = [](const auto& work) {
    const std::uint64_t before = bytes_read().value();
    work();
    return bytes_read().value() - before;
  };
  constexpr std::uint64_t kCounting = 4096;  // what reading the count reads itself
  EXPECT_LT(read_by([&] { rows.refresh(); }), size + kCounting);
  EXPECT_LT(read_by([&] { rows.refresh(); }), kCounting);
  std::size_t n = 0;
  EXPECT_LT(read_by([&] { n = survey_table(m, rows).rows(); }), size + kCounting);
  EXPECT_EQ(n, static_cast<std::size_t>(kLenses));
}

TEST_F(Survey, EveryFlagHasABitOfItsOwn) {
  std::set<int> bits;
  for (const FlagInfo& info : kFlags) bits.insert(static_cast<int>(info.flag));
  for (const SurveyFlag& flag : kSurveyFlags) {
    EXPECT_LT(flag.bit, 63);  // FITS has no unsigned integers
    bits.insert(flag.bit);
    EXPECT_NE(list_survey_flags().find(flag.name), std::string::npos);
  }
  EXPECT_EQ(bits.size(), std::size(kFlags) + std::size(kSurveyFlags));
  EXPECT_EQ(flag_names(mask_of({{Flag::chi2_high, ""}, {Flag::non_finite, ""}}) | std::uint64_t(1) << 61),
            "non_finite,chi2_high,memory");
}

TEST(Folders, OfLensesArePlainNames) {
  EXPECT_EQ(folder_name("J0252+0039"), "J0252+0039");
  for (const char* id : {"a/b", "..", ".hidden", "a b", "ä"}) {
    const std::string name = folder_name(id);
    EXPECT_EQ(name.find('/'), std::string::npos);
    EXPECT_NE(name[0], '.');
    EXPECT_NE(name, id);
  }
  EXPECT_NE(folder_name("a/b"), folder_name("a b"));
}

}  // namespace
}  // namespace einfield
