// FITS in and out: what is written comes back, every way to name an HDU, every kind of WCS, every kind of damage.
#include "host/files/fits_io.hpp"

#include "host/files/fits_text.hpp"

#include <fitsio.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>

#include "einfield/error.hpp"
#include "einfield/network.hpp"
#include "tests/raw_fits.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// The message of the InvalidInput that reading ends with.
std::string failure(const std::string& path, const std::string& hdu = "", int planes = 1) {
  try {
    read_fits(path, hdu, planes);
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "no InvalidInput";
}

FitsOutput ramp(const std::string& name, int nx, int ny, int planes = 1) {
  FitsOutput hdu;
  hdu.name = name;
  hdu.nx = nx;
  hdu.ny = ny;
  hdu.planes = planes;
  for (int i = 0; i < nx * ny * planes; ++i) hdu.values.push_back(i + 0.125);
  return hdu;
}

/// A file made by CFITSIO itself, for contents that write_fits does not make.
void make_file(const std::string& path, const std::function<void(fitsfile*, int*)>& fill) {
  fitsfile* file = nullptr;
  int status = 0;
  fits_create_diskfile(&file, path.c_str(), &status);
  fill(file, &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0) << path;
}

void add_image(fitsfile* file, const std::string& name, std::vector<long> axes, int* status) {
  fits_create_img(file, -64, static_cast<int>(axes.size()), axes.data(), status);
  if (!name.empty()) fits_update_key_str(file, "EXTNAME", name.c_str(), nullptr, status);
  long n = axes.empty() ? 0 : 1;
  for (const long axis : axes) n *= axis;
  std::vector<double> values(static_cast<std::size_t>(n), 2.5);
  if (n > 0) fits_write_img(file, TDOUBLE, 1, n, values.data(), status);
}

TEST(FitsIo, GivesBackWhatWasWritten) {
  const TemporaryDirectory directory;
  FitsOutput image = ramp("IMAGE", 5, 3);
  image.values[4] = kNan;
  image.values[7] = std::numeric_limits<double>::infinity();
  image.values[8] = 1e-310;
  image.values[9] = -1.0 / 3;
  image.unit = "electron/s";
  FitsOutput mask = ramp("MASK", 3, 1);
  mask.values = {0, 1, 1};
  mask.bitpix = 8;
  FitsOutput single = ramp("ALPHA", 2, 3, 2);
  single.bitpix = -32;
  single.values[5] = 1.0 / 3;
  write_fits(directory / "x.fits", {image, mask, single});

  const FitsImage read = read_fits(directory / "x.fits", "IMAGE");
  EXPECT_EQ(read.nx, 5);
  EXPECT_EQ(read.ny, 3);
  EXPECT_EQ(read.hdu, "IMAGE");
  EXPECT_EQ(read.unit, "electron/s");
  for (std::size_t i = 0; i < image.values.size(); ++i)
    EXPECT_TRUE(read.values[i] == image.values[i] || (i == 4 && std::isnan(read.values[i]))) << i;
  EXPECT_EQ(read_fits(directory / "x.fits", "MASK").values, mask.values);
  EXPECT_EQ(read_fits(directory / "x.fits", "MASK").unit, "");
  const FitsImage cube = read_fits(directory / "x.fits", "ALPHA", 2);
  ASSERT_EQ(cube.values.size(), 12u);
  for (std::size_t i = 0; i < 12; ++i)
    EXPECT_EQ(cube.values[i], static_cast<double>(static_cast<float>(single.values[i]))) << i;
}

TEST(FitsIo, WritesTheSameBytesEveryTime) {
  const TemporaryDirectory directory;
  FitsOutput image = ramp("IMAGE", 50, 30);
  image.pixel_scale = 0.05;
  image.cards = {{"ORIGIN", "einfield"}, {"LONGTEXT", std::string(200, 'x')}};
  write_fits(directory / "a.fits", {image, ramp("MASK", 3, 3)});
  write_fits(directory / "b.fits", {image, ramp("MASK", 3, 3)});
  EXPECT_EQ(directory.read("a.fits"), directory.read("b.fits"));
  EXPECT_EQ(directory.read("a.fits").size() % 2880, 0u);
  EXPECT_EQ(directory.read("a.fits").find("DATE"), std::string::npos);
  EXPECT_EQ(directory.n_files(), 2u);
}

/// The first header of a file, read by CFITSIO.
class Header {
 public:
  explicit Header(const std::string& path) { fits_open_diskfile(&file_, path.c_str(), READONLY, &status_); }
  ~Header() {
    int status = 0;
    fits_close_file(file_, &status);
  }
  Header(const Header&) = delete;
  Header& operator=(const Header&) = delete;

  double number(const char* key) const {
    double value = 0;
    fits_read_key(file_, TDOUBLE, key, &value, nullptr, &status_);
    return value;
  }
  std::string text(const char* key) const {
    char value[FLEN_VALUE] = "";
    fits_read_key(file_, TSTRING, key, value, nullptr, &status_);
    return value;
  }
  int status() const { return status_; }  ///< 0 while all has gone well

 private:
  fitsfile* file_ = nullptr;
  mutable int status_ = 0;
};

TEST(FitsIo, WritesALinearWcsOfPixelCentres) {
  const TemporaryDirectory directory;
  FitsOutput image = ramp("IMAGE", 5, 4);
  image.pixel_scale = 0.05;
  image.center_x = 0.3;
  image.center_y = -0.2;
  image.cards = {{"NOTE", "naïve"}};
  write_fits(directory / "x.fits", {image});
  const Header header(directory / "x.fits");
  const auto number = [&](const char* key) { return header.number(key); };
  const auto text = [&](const char* key) { return header.text(key); };
  // Position of pixel 1: CRVAL + (1 − CRPIX) CDELT = center − (n − 1)/2 · scale.
  EXPECT_EQ(number("CRPIX1"), 3.0);
  EXPECT_EQ(number("CRPIX2"), 2.5);
  EXPECT_EQ(number("CRVAL1"), 0.3);
  EXPECT_EQ(number("CRVAL2"), -0.2);
  EXPECT_EQ(number("CDELT1"), 0.05);
  EXPECT_EQ(number("CDELT2"), 0.05);
  EXPECT_EQ(text("CUNIT1"), "arcsec");
  EXPECT_EQ(text("CTYPE1"), "X");
  EXPECT_EQ(text("CTYPE2"), "Y");
  EXPECT_EQ(text("NOTE"), "na??ve");
  EXPECT_EQ(header.status(), 0);
  EXPECT_FALSE(read_fits(directory / "x.fits", "IMAGE").wcs.has_value());
}

TEST(FitsIo, RefusesToWriteWhatDoesNotFit) {
  const TemporaryDirectory directory;
  FitsOutput image = ramp("IMAGE", 5, 4);
  image.values.pop_back();
  EXPECT_THROW(write_fits(directory / "x.fits", {image}), InvalidInput);
  EXPECT_THROW(write_fits(directory / "absent/x.fits", {ramp("IMAGE", 5, 4)}), IoError);
  FitsOutput mask = ramp("MASK", 1, 1);
  mask.values = {300};
  mask.bitpix = 8;
  EXPECT_THROW(write_fits(directory / "x.fits", {mask}), IoError);
  EXPECT_EQ(directory.n_files(), 0u);
  EXPECT_EQ(fits_read_errmsg(std::string(FLEN_ERRMSG, ' ').data()), 0) << "messages are left for the next caller";
}

TEST(FitsIo, FindsAnHduByNameOrNumber) {
  const TemporaryDirectory directory;
  const std::string path = directory / "x.fits";
  make_file(path, [](fitsfile* file, int* status) {
    add_image(file, "", {}, status);
    add_image(file, "Sci", {2, 2}, status);
    add_image(file, "ERR", {3, 2}, status);
    fits_update_key_lng(file, "EXTVER", 1, nullptr, status);
    add_image(file, "ERR", {4, 2}, status);
    fits_update_key_lng(file, "EXTVER", 2, nullptr, status);
    add_image(file, "", {5, 2}, status);
    char name[] = "column", format[] = "1D";
    char* names[] = {name};
    char* formats[] = {format};
    fits_create_tbl(file, BINARY_TBL, 0, 1, names, formats, nullptr, "CATALOGUE", status);
  });
  EXPECT_EQ(read_fits(path, "SCI").nx, 2);
  EXPECT_EQ(read_fits(path, "sci").hdu, "Sci");
  EXPECT_EQ(read_fits(path, "1").nx, 2);
  EXPECT_EQ(read_fits(path, "4").nx, 5);
  EXPECT_EQ(read_fits(path, "4").hdu, "4");
  EXPECT_EQ(read_fits(path, "ERR,2").nx, 4);
  const std::string names = "PRIMARY (no data), Sci, ERR, ERR, 4, CATALOGUE (a table)";
  EXPECT_EQ(failure(path, "ERR"), path + "[ERR]: 2 HDUs of this name, expected ERR,EXTVER or a number");
  EXPECT_EQ(failure(path, "ERR,3"), path + "[ERR,3]: no such HDU, expected one of " + names);
  EXPECT_EQ(failure(path, "NOISE"), path + "[NOISE]: no such HDU, expected one of " + names);
  EXPECT_EQ(failure(path, "6"), path + "[6]: no such HDU, expected 0 to 5: " + names);
  EXPECT_EQ(failure(path, "99999999999999999999"),
            path + "[99999999999999999999]: no such HDU, expected 0 to 5: " + names);
  EXPECT_EQ(failure(path, "PRIMARY"), path + "[PRIMARY]: no data, expected two dimensions, nx x ny");
  EXPECT_EQ(failure(path, "0"), path + "[PRIMARY]: no data, expected two dimensions, nx x ny");
  EXPECT_EQ(failure(path, "CATALOGUE"), path + "[CATALOGUE]: a table, expected an image");
  EXPECT_EQ(failure(path), path + ": 4 image HDUs, expected FILE[HDU] with one of " + names);
}

TEST(FitsIo, WithoutAnHduTakesThePrimaryOrTheOnlyImage) {
  const TemporaryDirectory directory;
  make_file(directory / "primary.fits", [](fitsfile* file, int* status) {
    add_image(file, "", {2, 2}, status);
    add_image(file, "SCI", {3, 3}, status);
    add_image(file, "ERR", {3, 3}, status);
  });
  EXPECT_EQ(read_fits(directory / "primary.fits", "").nx, 2);
  EXPECT_EQ(read_fits(directory / "primary.fits", "").hdu, "PRIMARY");
  make_file(directory / "only.fits", [](fitsfile* file, int* status) {
    add_image(file, "", {}, status);
    add_image(file, "EMPTY", {}, status);
    add_image(file, "SCI", {3, 3}, status);
  });
  EXPECT_EQ(read_fits(directory / "only.fits", "").hdu, "SCI");
  make_file(directory / "none.fits", [](fitsfile* file, int* status) { add_image(file, "", {}, status); });
  EXPECT_EQ(failure(directory / "none.fits"), directory / "none.fits" + ": no image HDU, found PRIMARY (no data)");
}

TEST(FitsIo, TakesFileNamesAsTheyStand) {
  const TemporaryDirectory directory;
  for (const char* name : {"a[1].fits", "!b.fits", "c.fits[IMAGE]", "d+1", "~e.fits", "f g;h.fits", "(i).fits"}) {
    write_fits(directory / name, {ramp("IMAGE", 2, 2)});
    EXPECT_EQ(read_fits(directory / name, "IMAGE").values[3], 3.125) << name;
  }
  EXPECT_EQ(directory.n_files(), 7u);
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  EXPECT_EQ(read_fits("~e.fits", "").nx, 2);
  EXPECT_EQ(failure("http://localhost/x.fits"), "http://localhost/x.fits: no such file");
  EXPECT_EQ(failure("-"), "-: no such file");
  EXPECT_EQ(failure(""), ": no such file");
  std::filesystem::current_path(before);
}

TEST(FitsIo, SaysWhatIsWrongWithAFile) {
  const TemporaryDirectory directory;
  const auto expect = [&](const std::string& contents, const std::string& message, int planes = 1) {
    const std::string path = directory.write("x.fits", contents);
    EXPECT_EQ(failure(path, "", planes), path + message);
    char left[FLEN_ERRMSG];
    EXPECT_EQ(fits_read_errmsg(left), 0) << left;
  };
  expect("", ": empty file, expected FITS");
  expect("not an image at all", ": not a FITS file, expected one that begins with SIMPLE");
  expect("\x1f\x8b not gzip at all, but as long as a header" + std::string(5000, 'x'),
         ": cannot be read as FITS (error uncompressing image)");
  const std::string simple = "SIMPLE  =                    T", bitpix = "BITPIX  =                  -64";
  const auto axes = [&](const std::vector<std::string>& numbers) {
    std::vector<std::string> cards{simple, bitpix,
                                   "NAXIS   = " + std::string(19, ' ') + std::to_string(numbers.size())};
    for (std::size_t i = 0; i < numbers.size(); ++i)
      cards.push_back("NAXIS" + std::to_string(i + 1) + "  = " + std::string(20 - numbers[i].size(), ' ') + numbers[i]);
    return cards;
  };
  expect(raw_fits(axes({"0", "5"})), "[PRIMARY]: an image without pixels, found 0 x 5, expected at least 1 x 1");
  expect(raw_fits(axes({"7"}), 56), "[PRIMARY]: wrong dimensions, found 7, expected two dimensions, nx x ny");
  expect(
      raw_fits(axes({"3", "4", "5"}), 480),
      "[PRIMARY]: wrong dimensions, found 3 x 4 x 5, expected two dimensions, nx x ny, or a plane [*,*,k] of the cube");
  expect(raw_fits(axes({"3", "4", "5"}), 480), "[PRIMARY]: wrong dimensions, found 3 x 4 x 5, expected nx x ny x 2", 2);
  expect(raw_fits(axes({"3", "4"}), 96), "[PRIMARY]: wrong dimensions, found 3 x 4, expected nx x ny x 2", 2);
  expect(raw_fits(axes({"20000", "2"})),
         "[PRIMARY]: too large, found 20000 x 2, expected at most 16384 pixels per side");
  expect(
      raw_fits(axes({"9223372036854775807", "9223372036854775807"})),
      "[PRIMARY]: too large, found 9223372036854775807 x 9223372036854775807, expected at most 16384 pixels per side");
  // Two gigabytes are promised and not there: nothing may be allocated for them.
  expect(raw_fits(axes({"16000", "16000"})), "[PRIMARY]: truncated, found 2880 bytes in the file, expected 2048002880");
  expect(simple + "rubbish", ": truncated, found 37 bytes, expected a FITS header of 2880 at least");
  expect(simple + std::string(50, ' ') + std::string(3000, 'x'),
         ": cannot be read as FITS (second keyword not BITPIX)");

  std::filesystem::remove(directory / "x.fits");
  EXPECT_EQ(failure(directory / "x.fits"), directory / "x.fits" + ": no such file");
  EXPECT_EQ(failure(directory.path().string()), directory.path().string() + ": not a regular file, expected FITS");
  write_fits(directory / "y.fits", {ramp("IMAGE", 2, 2)});
  EXPECT_NE(failure(directory.path().string() + std::string(1000, '/') + "y.fits").find("at most 1000"),
            std::string::npos);
}

TEST(FitsIo, TrailingAxesOfOneAreNoAxes) {
  const TemporaryDirectory directory;
  make_file(directory / "x.fits", [](fitsfile* file, int* status) { add_image(file, "", {3, 2, 1, 1}, status); });
  EXPECT_EQ(read_fits(directory / "x.fits", "").ny, 2);
  make_file(directory / "line.fits", [](fitsfile* file, int* status) { add_image(file, "", {3, 1, 1}, status); });
  EXPECT_EQ(read_fits(directory / "line.fits", "").ny, 1);
}

TEST(FitsIo, EveryCutIsNoticed) {
  const TemporaryDirectory directory;
  write_fits(directory / "whole.fits", {ramp("IMAGE", 40, 30), ramp("NOISE", 40, 30), ramp("PSF", 5, 5)});
  const std::string whole = directory.read("whole.fits");
  // Header and data take four blocks for each large image and two for the small one.
  ASSERT_EQ(whole.size(), 2880u * (5 + 5 + 2));
  for (std::size_t size = 1; size < whole.size(); size += 977) {
    const std::string path = directory.write("cut.fits", whole.substr(0, size));
    for (const char* name : {"IMAGE", "NOISE", "PSF"}) {
      // The padding behind the data may be missing, except where CFITSIO reads a whole block, as for the small image.
      const std::size_t end = name[0] == 'I' ? 2880 + 9600 : name[0] == 'N' ? 6 * 2880 + 9600 : whole.size();
      const bool complete = size >= end;
      EXPECT_EQ(failure(path, name) == "no InvalidInput", complete) << name << " of " << size << " bytes";
    }
  }
  const std::string path = directory.write("cut.fits", whole.substr(0, 20000));
  EXPECT_EQ(failure(path, "NOISE"), path + "[NOISE]: truncated, found 20000 bytes in the file, expected 26880");
  EXPECT_EQ(failure(path, "PSF"), path + "[NOISE]: truncated, found 20000 bytes in the file, expected 28800");
}

TEST(FitsIo, ReadsAPartWithItsPlace) {
  const TemporaryDirectory folder;
  FitsOutput image{"IMAGE", 7, 5, 1, {}, -64, "counts", 0.1, 0.2, -0.3, {}};
  for (int i = 0; i < 35; ++i) image.values.push_back(i);
  write_fits(folder / "x.fits", {image});
  FitsReference reference;
  ASSERT_EQ(read_reference((folder / "x.fits") + "[IMAGE][2:4,3:5]", reference), "");
  const FitsImage part = read_fits(reference);
  EXPECT_EQ(part.nx, 3);
  EXPECT_EQ(part.ny, 3);
  EXPECT_EQ(part.whole_nx, 7);
  EXPECT_EQ(part.whole_ny, 5);
  EXPECT_EQ(part.values, (std::vector<double>{15, 16, 17, 22, 23, 24, 29, 30, 31}));
  EXPECT_NEAR(part.linear->center_x, 0.2 - 0.1, 1e-12);  // column 3 of 7: one left of the middle
  EXPECT_NEAR(part.linear->center_y, -0.3 + 0.1, 1e-12);
  EXPECT_EQ(text_of(reference), (folder / "x.fits") + "[IMAGE][2:4,3:5]");
  const auto problem = [&](const std::string& text) {
    FitsReference unused;
    return read_reference(text, unused);
  };
  EXPECT_NE(problem("x.fits[4:2,1:3]").find("an empty part of an image, found [4:2,1:3]"), std::string::npos);
  EXPECT_NE(problem("x.fits[0:2,1:3]").find("an empty part"), std::string::npos);
  EXPECT_NE(problem("x.fits[1:2]").find("no part of an image, found [1:2], expected [x0:x1,y0:y1]"), std::string::npos);
  EXPECT_NE(problem("[1:2,1:2]").find("no file name"), std::string::npos);
  EXPECT_NE(problem("x.fits[]").find("no HDU between the brackets"), std::string::npos);
  ASSERT_EQ(read_reference((folder / "x.fits") + "[5:8,1:2]", reference), "");
  EXPECT_THROW(read_fits(reference), InvalidInput);
}

TEST(FitsIo, ReadsAPlaneOfACube) {
  const TemporaryDirectory folder;
  const std::string path = folder / "x.fits";
  write_fits(path, {ramp("SCI", 4, 3, 5), ramp("FLAT", 4, 3)});
  const auto read = [&](const std::string& brackets) {
    FitsReference reference;
    EXPECT_EQ(read_reference(path + brackets, reference), "");
    EXPECT_EQ(text_of(reference), path + brackets);
    return read_fits(reference);
  };
  const auto failed = [&](const std::string& brackets) {
    FitsReference reference;
    if (const std::string problem = read_reference(path + brackets, reference); !problem.empty()) return problem;
    try {
      read_fits(reference);
    } catch (const InvalidInput& error) {
      return std::string(error.what()).substr(path.size());
    }
    return std::string("no InvalidInput");
  };
  const FitsImage plane = read("[SCI][*,*,4]");
  EXPECT_EQ(plane.nx, 4);
  EXPECT_EQ(plane.ny, 3);
  ASSERT_EQ(plane.values.size(), 12u);
  EXPECT_EQ(plane.values[0], 36.125);
  EXPECT_EQ(plane.values[11], 47.125);
  EXPECT_EQ(read("[SCI][2:3,2:2,5]").values, (std::vector<double>{53.125, 54.125}));
  EXPECT_EQ(failed("[SCI][*,*,6]"), "[SCI]: no such plane, found 6, expected 1 to 5");
  EXPECT_EQ(
      failed("[SCI]"),
      "[SCI]: wrong dimensions, found 4 x 3 x 5, expected two dimensions, nx x ny, or a plane [*,*,k] of the cube");
  EXPECT_EQ(failed("[FLAT][*,*,1]"), "[FLAT]: wrong dimensions, found 4 x 3, expected a cube, nx x ny x planes");
  EXPECT_EQ(failed("[SCI][*,*,0]"), "no such plane of a cube, found [*,*,0], expected a number from 1");
  for (const char* brackets : {"[*,1:2]", "[*,*]", "[*,*,k]", "[*,*,1,1]", "[1:2,1:2,]", "[1:2,*,1]"})
    EXPECT_NE(failed(brackets).find(std::string("no part of an image, found ") + brackets), std::string::npos)
        << failed(brackets);
  // A plane beyond the end of a cut file.
  const std::string whole = folder.read("x.fits");
  folder.write("cut.fits", whole.substr(0, 2880 + 2 * 12 * 8));
  FitsReference cut;
  ASSERT_EQ(read_reference((folder / "cut.fits") + "[SCI][*,*,3]", cut), "");
  EXPECT_THROW(read_fits(cut), InvalidInput);
}

/// The maps of a lens in one file cost one opening: the file may even be gone by then.
TEST(FitsIo, AFileStaysOpenForItsNextImage) {
  const TemporaryDirectory folder;
  const std::string path = folder / "x.fits", other = folder / "y.fits";
  write_fits(path, {ramp("IMAGE", 4, 3), ramp("NOISE", 2, 2)});
  write_fits(other, {ramp("PSF", 3, 3)});
  FitsImages files;
  EXPECT_EQ(files.read({path, "IMAGE", {}}).values.size(), 12u);
  std::filesystem::remove(path);
  EXPECT_THROW(read_fits(path, "NOISE"), InvalidInput);
  EXPECT_EQ(files.read({path, "NOISE", {}}).values.size(), 4u);
  EXPECT_THROW(files.read({path, "PSF", {}}), InvalidInput);
  EXPECT_EQ(files.read({path, "IMAGE", {}}).values.size(), 12u);
  EXPECT_EQ(files.read({other, "PSF", {}}).values.size(), 9u);
  EXPECT_THROW(files.read({path, "IMAGE", {}}), InvalidInput);  // closed by now
}

TEST(FitsIo, ZeroPointsOfKnownUnits) {
  const TemporaryDirectory folder;
  const auto zero_point = [&](const std::string& unit, const std::vector<std::pair<std::string, double>>& keys) {
    const std::string path = folder / ("x" + std::to_string(folder.n_files()) + ".fits");
    make_file(path, [&](fitsfile* file, int* status) {
      add_image(file, "", {2, 2}, status);
      fits_update_key_str(file, "BUNIT", unit.c_str(), nullptr, status);
      for (const auto& [key, number] : keys) fits_update_key_dbl(file, key.c_str(), number, -15, nullptr, status);
    });
    return read_fits(path, "").zero_point;
  };
  EXPECT_NEAR(zero_point("Jy", {}).value(), 8.9, 1e-4);  // 2.5 log10(3631)
  EXPECT_NEAR(zero_point("nJy", {}).value(), 31.4, 1e-4);
  EXPECT_NEAR(zero_point("nanomaggy", {}).value(), 22.5, 1e-12);
  // ACS/WFC F814W; by the handbooks of HST −2.5 log10(PHOTFLAM) − 5 log10(PHOTPLAM) − 2.408.
  EXPECT_NEAR(zero_point("ELECTRONS/S", {{"PHOTFLAM", 7.07236e-20}, {"PHOTPLAM", 8045.0}}).value(),
              -2.5 * std::log10(7.07236e-20) - 5 * std::log10(8045.0) - 2.408, 2e-3);
  EXPECT_NEAR(zero_point("MJy/sr", {{"PIXAR_SR", 2.3e-14}}).value(), -6.1 - 2.5 * std::log10(2.3e-14), 1e-4);
  // Not a rate, without the area of a pixel, no unit: unknown.
  EXPECT_FALSE(zero_point("ELECTRONS", {{"PHOTFLAM", 7.07236e-20}, {"PHOTPLAM", 8045.0}}));
  EXPECT_FALSE(zero_point("ELECTRONS/S", {{"PHOTFLAM", 7.07236e-20}}));
  EXPECT_FALSE(zero_point("MJy/sr", {}));
  EXPECT_FALSE(zero_point("", {{"PHOTFLAM", 7.07236e-20}, {"PHOTPLAM", 8045.0}}));
}

TEST(FitsIo, ReadsIntegersWithScaleAndBlank) {
  const TemporaryDirectory directory;
  make_file(directory / "x.fits", [](fitsfile* file, int* status) {
    long axes[] = {2, 2};
    short values[] = {1, 2, -32768, 4};
    fits_create_img(file, SHORT_IMG, 2, axes, status);
    fits_write_key_dbl(file, "BSCALE", 0.5, 10, nullptr, status);
    fits_write_key_dbl(file, "BZERO", 100, 10, nullptr, status);
    fits_write_key_lng(file, "BLANK", -32768, nullptr, status);
    fits_set_bscale(file, 1, 0, status);
    fits_write_img(file, TSHORT, 1, 4, values, status);
  });
  const std::vector<double> values = read_fits(directory / "x.fits", "").values;
  EXPECT_EQ(values[0], 100.5);
  EXPECT_EQ(values[3], 102);
  EXPECT_TRUE(std::isnan(values[2]));
}

TEST(FitsIo, CompressedFilesKeepTheirPlaceOnTheSky) {
  const TemporaryDirectory directory;
  for (const bool whole : {false, true}) {
    const std::string path = directory / (whole ? "whole.fits" : "sparse.fits");
    make_file(path, [whole](fitsfile* file, int* status) {
      long axes[] = {20, 30};
      std::vector<double> values(600, 1);
      fits_set_compression_type(file, GZIP_1, status);
      fits_create_img(file, LONG_IMG, 2, axes, status);
      fits_update_key_str(file, "CTYPE1", "RA---TAN", nullptr, status);
      fits_update_key_str(file, "CTYPE2", "DEC--TAN", nullptr, status);
      for (const auto& [key, value] : std::vector<std::pair<const char*, double>>{{"CD1_1", -2e-5},
                                                                                  {"CD1_2", 1e-5},
                                                                                  {"CD2_1", 1e-5},
                                                                                  {"CD2_2", 2e-5},
                                                                                  {"CRPIX1", 7.5},
                                                                                  {"CRVAL2", -30.25}})
        fits_update_key_dbl(file, key, value, 15, nullptr, status);
      if (whole) {
        fits_update_key_str(file, "RADESYS", "A frame whose name is longer than any that there is", nullptr, status);
        fits_update_key_dbl(file, "EQUINOX", 2000, 15, nullptr, status);
        fits_update_key_dbl(file, "LONPOLE", 180, 15, nullptr, status);
        fits_update_key_dbl(file, "LATPOLE", 0, 15, nullptr, status);
      }
      fits_write_img(file, TDOUBLE, 1, 600, values.data(), status);
    });
    const FitsImage image = read_fits(path, "");
    ASSERT_TRUE(image.wcs.has_value());
    EXPECT_EQ(image.nx, 20);
    EXPECT_EQ(image.wcs->type[0] + image.wcs->type[1], "RA---TANDEC--TAN");
    EXPECT_EQ(image.wcs->cd[0][1], 1e-5);
    EXPECT_EQ(image.wcs->cd[0][0], -2e-5);
    EXPECT_EQ(image.wcs->reference_pixel[0], 7.5);
    EXPECT_EQ(image.wcs->reference_value[1], -30.25);
    EXPECT_NEAR(image.wcs->pixel_scale, 3600 * std::sqrt(5e-10), 1e-12);
    EXPECT_EQ(image.wcs->frame, whole ? "A frame whose name is longer than any that there is" : "");
    EXPECT_EQ(image.wcs->equinox, whole ? std::optional<double>(2000) : std::nullopt);
    EXPECT_EQ(image.wcs->pole_lon, whole ? std::optional<double>(180) : std::nullopt);
    EXPECT_EQ(image.wcs->pole_lat, whole ? std::optional<double>(0) : std::nullopt);
  }
}

TEST(FitsIo, ReadsCompressedFiles) {
  const TemporaryDirectory directory;
  for (const int type : {GZIP_1, RICE_1, HCOMPRESS_1}) {
    const std::string path = directory / ("tiles" + std::to_string(type) + ".fits");
    make_file(path, [type](fitsfile* file, int* status) {
      long axes[] = {20, 30};
      std::vector<int> values(600);
      for (int i = 0; i < 600; ++i) values[static_cast<std::size_t>(i)] = i % 50;
      fits_set_compression_type(file, type, status);
      fits_create_img(file, LONG_IMG, 2, axes, status);
      fits_update_key_str(file, "EXTNAME", "SCI", nullptr, status);
      fits_write_img(file, TINT, 1, 600, values.data(), status);
    });
    const FitsImage image = read_fits(path, "");
    EXPECT_EQ(image.hdu, "SCI");
    ASSERT_EQ(image.values.size(), 600u);
    for (std::size_t i = 0; i < 600; ++i) ASSERT_EQ(image.values[i], static_cast<double>(i % 50)) << type;
    const std::string bytes = directory.read("tiles" + std::to_string(type) + ".fits");
    const std::string cut = directory.write("cut.fits", bytes.substr(0, bytes.size() - 2000));
    EXPECT_NE(failure(cut, "SCI").find("cut.fits[SCI]: truncated"), std::string::npos) << failure(cut, "SCI");
  }
  // A name that ends in .gz makes CFITSIO compress the file as a whole.
  const auto noise = [](fitsfile* file, int* status) {
    long axes[] = {40, 40};
    std::vector<double> values(1600);
    for (std::size_t i = 0; i < 1600; ++i) values[i] = Philox{1}.normal(i);
    fits_create_img(file, -64, 2, axes, status);
    fits_write_img(file, TDOUBLE, 1, 1600, values.data(), status);
  };
  fitsfile* file = nullptr;
  int status = 0;
  fits_create_file(&file, (directory / "whole.fits.gz").c_str(), &status);
  noise(file, &status);
  fits_close_file(file, &status);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(directory.read("whole.fits.gz").substr(0, 2), "\x1f\x8b");
  EXPECT_EQ(read_fits(directory / "whole.fits.gz", "").values[1599], Philox{1}.normal(1599));
  const std::string bytes = directory.read("whole.fits.gz");
  const std::string cut = directory.write("cut.fits.gz", bytes.substr(0, bytes.size() / 2));
  EXPECT_NE(failure(cut).find("cut.fits.gz"), std::string::npos) << failure(cut);
  // A compressed file beside the name that was asked for is another file.
  EXPECT_EQ(failure(directory / "whole.fits"), directory / "whole.fits" + ": no such file");
}

TEST(FitsIo, ReadsAnyBytesOrSaysNo) {
  const TemporaryDirectory directory;
  write_fits(directory / "good.fits", {ramp("IMAGE", 6, 5), ramp("NOISE", 6, 5)});
  const std::string good = directory.read("good.fits");
  const Philox philox{99};
  for (std::uint64_t trial = 0; trial < 400; ++trial) {
    std::string bad = good;
    for (std::uint64_t k = 0; k <= trial % 4; ++k) {
      const auto random = philox(trial, k);
      const std::size_t in_header = random.word[0] % 1200 + (random.word[2] % 2) * 5760;
      bad[in_header] =
          static_cast<char>(random.word[1] % 3 == 0 ? random.word[1] >> 24 : '0' + (random.word[1] >> 16) % 10);
    }
    const std::string path = directory.write("bad.fits", bad);
    for (const char* hdu : {"", "IMAGE", "NOISE", "1"}) {
      const std::string message = failure(path, hdu);
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_TRUE(message == "no InvalidInput" || message.rfind(path, 0) == 0) << message;
    }
  }
}

/// A tile-compressed image of 6 x 7 pixels; one of its cards replaced, when there is a key.
std::string tiles(const TemporaryDirectory& directory, int type, const std::string& key = "",
                  const std::string& value = "") {
  std::filesystem::remove(directory / "tiles.fits");
  make_file(directory / "tiles.fits", [type](fitsfile* file, int* status) {
    long axes[] = {6, 7}, tile[] = {6, type == HCOMPRESS_1 ? 7 : 1};
    std::vector<int> values(42);
    for (int i = 0; i < 42; ++i) values[static_cast<std::size_t>(i)] = i % 5;
    fits_set_compression_type(file, type, status);
    fits_set_tile_dim(file, 2, tile, status);
    fits_create_img(file, LONG_IMG, 2, axes, status);
    fits_write_img(file, TINT, 1, 42, values.data(), status);
  });
  std::string bytes = directory.read("tiles.fits");
  if (key.empty()) return bytes;
  std::string card = key;
  card.resize(8, ' ');
  const std::size_t at = bytes.find(card + "= ");
  EXPECT_NE(at, std::string::npos) << key;
  card += "= " + value;
  card.resize(80, ' ');
  return bytes.replace(at, 80, card);
}

TEST(FitsIo, WhatCrashesCfitsioIsAnError) {
  const TemporaryDirectory directory;
  const auto message = [&](const std::string& bytes) {
    const std::string path = directory.write("bad.fits", bytes);
    return failure(path).substr(0, path.size()) == path ? failure(path).substr(path.size()) : failure(path);
  };
  EXPECT_EQ(message(tiles(directory, RICE_1)), "no InvalidInput");
  EXPECT_EQ(read_fits(directory / "bad.fits", "").values[41], 1);
  // CFITSIO 4.2 divides by the width of a tile, and believes the size within one of HCOMPRESS.
  EXPECT_EQ(message(tiles(directory, RICE_1, "ZTILE1", "0")).rfind(": damaged", 0), 0u)
      << message(tiles(directory, RICE_1, "ZTILE1", "0"));
  std::string large = tiles(directory, HCOMPRESS_1);
  const std::size_t stream = large.find("\xdd\x99");
  ASSERT_NE(stream, std::string::npos);
  large.replace(stream + 2, 8, std::string("\0\0\x40\0\0\0\x40\0", 8));
  EXPECT_EQ(message(large).rfind(": damaged", 0), 0u) << message(large);
  // No other process is left.
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

// ---- WCS
// ---------------------------------------------------------------------------------------------------------------

struct WcsCase {
  std::string name;
  std::vector<std::pair<std::string, std::string>> texts;
  std::vector<std::pair<std::string, double>> numbers;
  double scale;         ///< arcsec; 0 = no celestial WCS
  std::string message;  ///< part of the error, or ""
};

void PrintTo(const WcsCase& c, std::ostream* stream) {
  *stream << c.name;
}

class Wcs : public testing::TestWithParam<WcsCase> {};

TEST_P(Wcs, IsReadOrRefused) {
  const TemporaryDirectory directory;
  const std::string path = directory / "x.fits";
  make_file(path, [](fitsfile* file, int* status) {
    add_image(file, "", {2, 2}, status);
    for (const auto& [key, text] : GetParam().texts)
      fits_update_key_str(file, key.c_str(), text.c_str(), nullptr, status);
    for (const auto& [key, number] : GetParam().numbers)
      fits_update_key_dbl(file, key.c_str(), number, -15, nullptr, status);
  });
  if (!GetParam().message.empty()) {
    EXPECT_NE(failure(path).find(GetParam().message), std::string::npos) << failure(path);
    EXPECT_EQ(failure(path).rfind(path + "[PRIMARY]: ", 0), 0u);
    return;
  }
  const FitsImage image = read_fits(path, "");
  EXPECT_EQ(image.wcs.has_value(), GetParam().scale > 0);
  if (image.wcs) {
    EXPECT_NEAR(image.wcs->pixel_scale, GetParam().scale, 1e-12);
  }
}

constexpr double kPixel = 0.05 / 3600;  // degrees
const std::vector<std::pair<std::string, std::string>> kTan = {{"CTYPE1", "RA---TAN"}, {"CTYPE2", "DEC--TAN"}};

std::vector<std::pair<std::string, double>> matrix(const std::string& prefix, double a, double b, double c, double d) {
  return {{prefix + "1_1", a}, {prefix + "1_2", b}, {prefix + "2_1", c}, {prefix + "2_2", d}};
}
std::vector<std::pair<std::string, double>> with(std::vector<std::pair<std::string, double>> numbers,
                                                 const std::vector<std::pair<std::string, double>>& more) {
  numbers.insert(numbers.end(), more.begin(), more.end());
  return numbers;
}
std::vector<std::pair<std::string, std::string>> unit(const std::string& name) {
  return {{"CTYPE1", "RA---TAN"}, {"CTYPE2", "DEC--TAN"}, {"CUNIT1", name}, {"CUNIT2", name}};
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Wcs,
    testing::Values(
        WcsCase{"none", {}, {}, 0, ""},
        WcsCase{"linear", {{"CTYPE1", "X"}, {"CTYPE2", "Y"}}, {{"CDELT1", 0.05}, {"CDELT2", 0.05}}, 0, ""},
        WcsCase{"no_ctype", {}, {{"CDELT1", 0.05}, {"CDELT2", 0.1}, {"CROTA2", 30}}, 0, ""},
        WcsCase{"linear_ra", {{"CTYPE1", "RA"}, {"CTYPE2", "DEC"}}, {{"CDELT1", 0.05}, {"CDELT2", 0.05}}, 0, ""},
        WcsCase{"one_axis", {{"CTYPE1", "RA---TAN"}, {"CTYPE2", "WAVE"}}, matrix("CD", -kPixel, 0, 0, kPixel), 0, ""},
        WcsCase{"no_scale", kTan, {{"CRVAL1", 120.0}}, 0, ""},
        WcsCase{"cd", kTan, matrix("CD", -kPixel, 0, 0, kPixel), 0.05, ""},
        WcsCase{"cd_diagonal_only", kTan, {{"CD1_1", -kPixel}, {"CD2_2", kPixel}}, 0.05, ""},
        WcsCase{"cd_before_cdelt", kTan, with(matrix("CD", -kPixel, 0, 0, kPixel), {{"CDELT1", 1.0}, {"CDELT2", 1.0}}),
                0.05, ""},
        WcsCase{"mirrored", kTan, matrix("CD", kPixel, 0, 0, kPixel), 0.05, ""},
        WcsCase{"cdelt", kTan, {{"CDELT1", -kPixel}, {"CDELT2", kPixel}}, 0.05, ""},
        WcsCase{"pc", kTan, with(matrix("PC", -1, 0, 0, 1), {{"CDELT1", kPixel}, {"CDELT2", kPixel}}), 0.05, ""},
        WcsCase{"pc_one_entry", kTan, {{"PC1_1", -1}, {"CDELT1", kPixel}, {"CDELT2", kPixel}}, 0.05, ""},
        WcsCase{"galactic",
                {{"CTYPE1", "GLON-CAR"}, {"CTYPE2", "GLAT-CAR"}},
                matrix("CD", -kPixel, 0, 0, kPixel),
                0.05,
                ""},
        WcsCase{"sip",
                {{"CTYPE1", "RA---TAN-SIP"}, {"CTYPE2", "DEC--TAN-SIP"}},
                matrix("CD", -kPixel, 0, 0, kPixel),
                0.05,
                ""},
        WcsCase{"arcsec", unit("arcsec"), matrix("CD", -0.05, 0, 0, 0.05), 0.05, ""},
        WcsCase{"arcmin", unit("ARCMIN"), matrix("CD", -0.05, 0, 0, 0.05), 3, ""},
        WcsCase{"rad", unit("rad"), matrix("CD", -1e-6, 0, 0, 1e-6), 0.2062648062470964, ""},
        WcsCase{"furlong", unit("furlong"), matrix("CD", -1, 0, 0, 1), 0, "the unit 'furlong', expected deg"},
        WcsCase{"slightly_turned", kTan, matrix("CD", -kPixel, 1e-4 * kPixel, 1e-4 * kPixel, kPixel),
                0.05 * std::sqrt(1 + 1e-8), ""},
        WcsCase{"not_square", kTan, matrix("CD", -kPixel, 0, 0, 1.01 * kPixel), 0,
                "pixels that are not square, found 0.05 x 0.0505 arcsec"},
        WcsCase{"rotated", kTan, matrix("CD", -0.8 * kPixel, -0.6 * kPixel, -0.6 * kPixel, 0.8 * kPixel), 0.05, ""},
        WcsCase{"crota", kTan, {{"CDELT1", -kPixel}, {"CDELT2", kPixel}, {"CROTA2", 30}}, 0.05, ""},
        WcsCase{"upside_down", kTan, matrix("CD", kPixel, 0, 0, -kPixel), 0.05, ""},
        WcsCase{"skewed", kTan, matrix("CD", -kPixel, 0.6 * kPixel, 0, 0.8 * kPixel), 0, "skewed celestial WCS"},
        WcsCase{
            "swapped", {{"CTYPE1", "DEC--TAN"}, {"CTYPE2", "RA---TAN"}}, matrix("CD", kPixel, 0, 0, kPixel), 0.05, ""},
        WcsCase{"singular", kTan, matrix("CD", 0, 0, 0, 0), 0, "singular matrix"}),
    [](const auto& test) { return test.param.name; });

TEST(FitsIo, PositionAnglesFollowFromTheWcs) {
  // Position angle of +x and of +y, from North towards East, and whether East is a left turn from North. The numbers
  // are Astropy's (8.0: WCS.pixel_to_world of neighbouring pixels at the reference point, SkyCoord.position_angle).
  const struct {
    std::string name;
    std::vector<std::pair<std::string, std::string>> texts;
    std::vector<std::pair<std::string, double>> numbers;
    double of_x, of_y;
    bool right_handed;
  } cases[] = {
      {"north up", kTan, matrix("CD", -kPixel, 0, 0, kPixel), -90, 0, true},
      {"mirrored", kTan, matrix("CD", kPixel, 0, 0, kPixel), 90, 0, false},
      {"rotated", kTan, matrix("CD", -0.8 * kPixel, -0.6 * kPixel, -0.6 * kPixel, 0.8 * kPixel), -126.869898,
       -36.869898, true},
      {"crota", kTan, {{"CDELT1", -kPixel}, {"CDELT2", kPixel}, {"CROTA2", 30}}, -120, -30, true},
      {"upside down", kTan, matrix("CD", kPixel, 0, 0, -kPixel), 90, 180, true},
      {"quarter turn", kTan, matrix("CD", 0, kPixel, kPixel, 0), 0, 90, true},
      {"swapped", {{"CTYPE1", "DEC--TAN"}, {"CTYPE2", "RA---TAN"}}, matrix("CD", kPixel, 0, 0, kPixel), 0, 90, true},
      {"galactic",
       {{"CTYPE1", "GLAT-CAR"}, {"CTYPE2", "GLON-CAR"}},
       matrix("CD", kPixel, 0, 0, -kPixel),
       0,
       -90,
       false},
  };
  for (const auto& c : cases) {
    const TemporaryDirectory directory;
    make_file(directory / "x.fits", [&c](fitsfile* file, int* status) {
      add_image(file, "", {2, 2}, status);
      for (const auto& [key, text] : c.texts) fits_update_key_str(file, key.c_str(), text.c_str(), nullptr, status);
      for (const auto& [key, number] : c.numbers) fits_update_key_dbl(file, key.c_str(), number, -15, nullptr, status);
    });
    const std::optional<CelestialWcs> wcs = read_fits(directory / "x.fits", "").wcs;
    ASSERT_TRUE(wcs.has_value()) << c.name;
    EXPECT_NEAR(wcs->position_angle(0), c.of_x, 1e-6) << c.name;
    EXPECT_NEAR(wcs->position_angle(M_PI / 2), c.of_y, 1e-6) << c.name;
    EXPECT_EQ(wcs->right_handed(), c.right_handed) << c.name;
  }
}

TEST(FitsIo, ThePlaceOnTheSkyIsWrittenBesideThatInTheImage) {
  const TemporaryDirectory directory;
  FitsOutput image = ramp("IMAGE", 6, 5);
  image.pixel_scale = 0.05;
  image.center_x = 0.2;
  CelestialWcs sky;
  sky.type = {"RA---TAN", "DEC--TAN"};
  sky.cd = {{{-0.8 * kPixel, -0.6 * kPixel}, {-0.6 * kPixel, 0.8 * kPixel}}};
  sky.reference_pixel = {3.25, 2.5};
  sky.reference_value = {43.2, 0.65};
  sky.frame = "ICRS";
  sky.equinox = 2000;
  sky.pole_lon = 180;
  image.sky = sky;
  write_fits(directory / "x.fits", {image});
  EXPECT_EQ(read_fits(directory / "x.fits", "IMAGE").linear->center_x, 0.2);
  const Header header(directory / "x.fits");
  const auto number = [&](const char* key) { return header.number(key); };
  const auto text = [&](const char* key) { return header.text(key); };
  EXPECT_EQ(text("CTYPE1A"), "RA---TAN");
  EXPECT_EQ(text("CTYPE2A"), "DEC--TAN");
  EXPECT_EQ(text("CUNIT1A"), "deg");
  EXPECT_EQ(text("RADESYSA"), "ICRS");
  EXPECT_EQ(number("CRPIX1A"), 3.25);
  EXPECT_EQ(number("CRPIX2A"), 2.5);
  EXPECT_EQ(number("CRVAL1A"), 43.2);
  EXPECT_EQ(number("CRVAL2A"), 0.65);
  EXPECT_NEAR(number("CD1_1A") / (-0.8 * kPixel), 1, 1e-14);
  EXPECT_NEAR(number("CD1_2A") / (-0.6 * kPixel), 1, 1e-14);
  EXPECT_NEAR(number("CD2_1A") / (-0.6 * kPixel), 1, 1e-14);
  EXPECT_NEAR(number("CD2_2A") / (0.8 * kPixel), 1, 1e-14);
  EXPECT_EQ(number("EQUINOXA"), 2000);
  EXPECT_EQ(number("LONPOLEA"), 180);
  EXPECT_EQ(header.status(), 0);
}

TEST(FitsIo, ThePlaceOfAnImageComesBack) {
  const TemporaryDirectory directory;
  const std::string path = directory / "x.fits";
  FitsOutput placed;
  placed.name = "SOURCE";
  placed.nx = 3;
  placed.ny = 2;
  placed.values.assign(6, 1.0);
  FitsOutput nowhere = placed;
  nowhere.name = "NOWHERE";
  placed.pixel_scale = 0.02;
  placed.center_x = 0.4;
  placed.center_y = -0.15;
  write_fits(path, {placed, nowhere});
  const FitsImage image = read_fits(path, "SOURCE");
  ASSERT_TRUE(image.linear.has_value());
  EXPECT_EQ(image.linear->pixel_scale, 0.02);
  EXPECT_EQ(image.linear->center_x, 0.4);
  EXPECT_EQ(image.linear->center_y, -0.15);
  EXPECT_FALSE(read_fits(path, "NOWHERE").linear.has_value());
  EXPECT_TRUE(has_hdu(path, "source"));
  EXPECT_FALSE(has_hdu(path, "PSI_TRUE"));
}

TEST(FitsIo, AKeywordThatIsNoNumberIsAnError) {
  const TemporaryDirectory directory;
  const std::string path = directory / "x.fits";
  make_file(path, [](fitsfile* file, int* status) {
    add_image(file, "", {2, 2}, status);
    for (const auto& [key, text] : kTan) fits_update_key_str(file, key.c_str(), text.c_str(), nullptr, status);
    fits_update_key_str(file, "CD1_1", "wide", nullptr, status);
  });
  EXPECT_EQ(failure(path), path + ": keyword CD1_1: not a number, found 'wide'");
}

TEST(FitsIo, AnArrayInMemoryStandsInPlaceOfAFile) {
  const auto read = [](const ImageArray& array, int planes = 1) {
    return read_fits({"noise", "", {}, std::make_shared<const ImageArray>(array)}, planes);
  };
  const FitsImage image = read({3, 2, {1, 2, 3, 4, kNan, 6}});
  EXPECT_EQ(image.nx, 3);
  EXPECT_EQ(image.ny, 2);
  EXPECT_EQ(image.whole_nx, 3);
  EXPECT_EQ(image.whole_ny, 2);
  EXPECT_EQ(image.values[3], 4);
  EXPECT_TRUE(std::isnan(image.values[4]));
  EXPECT_EQ(image.hdu, "array");
  EXPECT_FALSE(image.wcs.has_value());
  const auto refused = [&](const ImageArray& array, int planes = 1) -> std::string {
    try {
      read(array, planes);
    } catch (const InvalidInput& error) {
      return error.what();
    }
    return "no InvalidInput";
  };
  EXPECT_EQ(refused({0, 2, {}}), "noise: size out of range, found shape (2, 0), expected 1 to 16384 pixels a side");
  EXPECT_EQ(refused({2, 2, {1, 2, 3}}), "noise: found 3 values, expected those of shape (2, 2)");
  EXPECT_EQ(refused({1, 1, {1}}, 2),
            "noise: an array in memory, expected a FITS file for a cube or a part of an image");
}

}  // namespace
}  // namespace einfield
