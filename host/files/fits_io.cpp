// Images of FITS files. Every size is checked against the limits and the file before memory is allocated. Compressed
// files are unpacked in a child process (isolated.hpp). FITS standard 4.0 (2018); WCS: Greisen & Calabretta (2002).
#include "host/files/fits_io.hpp"

#include <fitsio.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string_view>

#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_file.hpp"
#include "host/files/fits_text.hpp"
#include "host/files/isolated.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

/// Relative tolerance of "square pixels", the same 0.1 % as for a given pixel scale.
constexpr double kWcsTolerance = 1e-3;
/// Bytes of a FITS block.
constexpr std::uintmax_t kBlock = 2880;

std::string size_text(const std::vector<LONGLONG>& axes) {
  std::string text;
  for (const LONGLONG axis : axes) text += (text.empty() ? "" : " x ") + std::to_string(axis);
  return text;
}

/// Arcseconds of a celestial CUNIT; degrees when absent.
double unit_arcsec(const std::string& unit, const std::string& where) {
  if (unit.empty() || same_fits_name(unit, "deg")) return 3600;
  if (same_fits_name(unit, "arcmin")) return 60;
  if (same_fits_name(unit, "arcsec")) return 1;
  if (same_fits_name(unit, "mas")) return 1e-3;
  if (same_fits_name(unit, "rad")) return 3600 * 180 / kPi;
  throw InvalidInput(where + "celestial WCS with the unit '" + unit + "', expected deg, arcmin, arcsec, mas or rad");
}

/// The celestial axis that a CTYPE names: 'x' a longitude, 'y' a latitude, ' ' none. Only the 4-3 form, as in RA---TAN,
/// is celestial.
char celestial_axis(const std::string& ctype) {
  if (ctype.size() < 6 || ctype[4] != '-') return ' ';
  const std::string name = ctype.substr(0, 4);
  if (name == "RA--" || name.substr(1) == "LON") return 'x';
  if (name == "DEC-" || name.substr(1) == "LAT") return 'y';
  return ' ';
}

/// The celestial WCS of the current HDU. The matrix from pixel steps to arcsec (Greisen & Calabretta 2002, section 2)
/// comes from CDi_j, or CDELTi PCi_j, or CDELTi turned by CROTA2.
/// @throws InvalidInput for pixels that are not square; they may be rotated and mirrored
std::optional<CelestialWcs> read_wcs(const FitsReader& file, const std::string& where) {
  const char axis1 = celestial_axis(file.text("CTYPE1")), axis2 = celestial_axis(file.text("CTYPE2"));
  if (axis1 == ' ' || axis2 == ' ' || axis1 == axis2) return std::nullopt;

  double m[2][2] = {};
  const auto entry = [&](const char* prefix, int i, int j) {
    return file.value(prefix + std::to_string(i + 1) + "_" + std::to_string(j + 1));
  };
  const auto any = [&](const char* prefix) {
    return entry(prefix, 0, 0) || entry(prefix, 0, 1) || entry(prefix, 1, 0) || entry(prefix, 1, 1);
  };
  const std::optional<double> step1 = file.value("CDELT1"), step2 = file.value("CDELT2");
  if (any("CD")) {
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) m[i][j] = entry("CD", i, j).value_or(0);
  } else if (!step1 || !step2) {
    return std::nullopt;  // the size of a pixel is unknown
  } else if (any("PC")) {
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j) m[i][j] = (i == 0 ? *step1 : *step2) * entry("PC", i, j).value_or(i == j ? 1 : 0);
  } else {
    const double turn = file.value("CROTA2").value_or(0) * kPi / 180;
    m[0][0] = *step1 * std::cos(turn);
    m[0][1] = -*step2 * std::sin(turn);
    m[1][0] = *step1 * std::sin(turn);
    m[1][1] = *step2 * std::cos(turn);
  }
  const double unit1 = unit_arcsec(file.text("CUNIT1"), where), unit2 = unit_arcsec(file.text("CUNIT2"), where);
  for (int j = 0; j < 2; ++j) {
    m[0][j] *= unit1;
    m[1][j] *= unit2;
  }

  const double scale = std::sqrt(std::abs(m[0][0] * m[1][1] - m[0][1] * m[1][0]));
  if (!std::isfinite(scale) || !(scale > 0)) throw InvalidInput(where + "celestial WCS with a singular matrix");
  const double width = std::hypot(m[0][0], m[1][0]), height = std::hypot(m[0][1], m[1][1]);
  const std::string advice =
      ", expected square pixels: resample the image, or leave out its celestial WCS and give observation.pixel_scale";
  if (std::abs(width / height - 1) > kWcsTolerance)
    throw InvalidInput(where + "pixels that are not square, found " + rounded(width) + " x " + rounded(height) +
                       " arcsec" + advice);
  const double skew = (m[0][0] * m[0][1] + m[1][0] * m[1][1]) / (width * height);
  if (std::abs(skew) > kWcsTolerance)
    throw InvalidInput(where + "skewed celestial WCS, found axes at " + rounded(std::acos(skew) * 180 / kPi) +
                       " degrees" + advice);
  CelestialWcs wcs;
  wcs.pixel_scale = scale;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string axis = std::to_string(i + 1);
    wcs.type[i] = file.text("CTYPE" + axis).substr(0, 8);  // without a distortion at the end, as in RA---TAN-SIP
    wcs.cd[i] = {m[i][0] / 3600, m[i][1] / 3600};
    wcs.reference_pixel[i] = file.value("CRPIX" + axis).value_or(0);
    wcs.reference_value[i] = file.value("CRVAL" + axis).value_or(0) * (i == 0 ? unit1 : unit2) / 3600;
  }
  wcs.frame = file.text("RADESYS");
  wcs.equinox = file.value("EQUINOX");
  wcs.pole_lon = file.value("LONPOLE");
  wcs.pole_lat = file.value("LATPOLE");
  return wcs;
}

/// The linear WCS of the current HDU, as Writer::axis writes it.
std::optional<LinearWcs> read_linear(const FitsReader& file, const FitsSection& part) {
  for (const char* axis : {"1", "2"})
    if (file.text(std::string("CTYPE") + axis) != (*axis == '1' ? "X" : "Y") ||
        file.text(std::string("CUNIT") + axis) != "arcsec")
      return std::nullopt;
  const auto middle = [&](const std::string& axis, int begin, int end, double scale) {
    return file.value("CRVAL" + axis).value_or(0) +
           (0.5 * (begin + end) - file.value("CRPIX" + axis).value_or(0)) * scale;
  };
  const double scale = file.value("CDELT1").value_or(0);
  if (!(scale > 0) || file.value("CDELT2") != scale) return std::nullopt;
  return LinearWcs{scale, middle("1", part.x_first, part.x_last, scale), middle("2", part.y_first, part.y_last, scale)};
}

/// The AB magnitude of 1 unit of the image in the current HDU, from keywords whose meaning is fixed: a flux density as
/// BUNIT, or a count rate with the calibration of an HST image (PHOTFLAM in erg/s/cm^2/A for 1 count/s, PHOTPLAM in A).
///
///     m = −2.5 log10(f_ν / 3631 Jy),   f_ν = f_λ λ²/c                        Oke & Gunn 1983 (ApJ 266, 713)
std::optional<double> read_zero_point(const FitsReader& file, const std::string& unit) {
  constexpr double kAbJansky = 3631;
  constexpr double kSpeedOfLight = 2.99792458e18;  // Å/s
  constexpr double kJanskyCgs = 1e-23;             // erg/s/cm²/Hz
  double jansky = 0;                               // of 1 unit of the image
  static constexpr std::pair<const char*, double> kFluxes[] = {
      {"Jy", 1}, {"mJy", 1e-3}, {"uJy", 1e-6}, {"nJy", 1e-9}, {"nanomaggy", 3631e-9}};
  for (const auto& [name, size] : kFluxes)
    if (unit == name) jansky = size;
  if (same_fits_name(unit, "MJy/sr")) jansky = 1e6 * file.positive_or_zero("PIXAR_SR");
  for (const char* rate : {"electrons/s", "electron/s", "e-/s", "e/s", "counts/s", "count/s", "ct/s", "cps", "DN/s"})
    if (same_fits_name(unit, rate)) {
      const double wavelength = file.positive_or_zero("PHOTPLAM");
      jansky = file.positive_or_zero("PHOTFLAM") * wavelength * wavelength / kSpeedOfLight / kJanskyCgs;
    }
  return jansky > 0 ? std::optional(-2.5 * std::log10(jansky / kAbJansky)) : std::nullopt;
}

/// The part of an image that is read: all of it, or a section inside it.
FitsSection part_of(const std::vector<LONGLONG>& axes, const std::optional<FitsSection>& section,
                    const std::string& where) {
  if (section && (section->x_last > axes[0] || section->y_last > axes[1]))
    throw InvalidInput(where + "a part beyond the image, found " + text_of(*section) + " of " + size_text(axes) +
                       " pixels, expected one inside it");
  const LONGLONG nx = section ? section->nx() : axes[0], ny = section ? section->ny() : axes[1];
  if (std::max(nx, ny) > kMaxImageSide)
    throw InvalidInput(where + "too large, found " + size_text({nx, ny}) + ", expected at most " +
                       std::to_string(kMaxImageSide) + " pixels per side");
  return section.value_or(FitsSection{1, static_cast<int>(nx), 1, static_cast<int>(ny)});
}

/// The axes of the image in an HDU, without further ones of one pixel.
/// @param planes  > 1: of a cube that is read as a whole; 1 with a plane: of a cube of which one plane is read
/// @throws InvalidInput for other dimensions than those
std::vector<LONGLONG> axes_of(const FitsHdu& hdu, int planes, int plane, const std::string& where) {
  const std::string expectation = planes > 1             ? "nx x ny x " + std::to_string(planes)
                                  : plane > 0            ? "a cube, nx x ny x planes"
                                  : hdu.axes.size() == 3 ? "two dimensions, nx x ny, or a plane [*,*,k] of the cube"
                                                         : "two dimensions, nx x ny";
  if (!hdu.image) throw InvalidInput(where + "a table, expected an image");
  if (hdu.axes.empty()) throw InvalidInput(where + "no data, expected " + expectation);
  const std::size_t expected = planes > 1 || plane > 0 ? 3 : 2;
  std::vector<LONGLONG> axes = hdu.axes;
  while (axes.size() > expected && axes.back() == 1) axes.pop_back();
  if (axes.size() != expected || (planes > 1 && axes[2] != planes))
    throw InvalidInput(where + "wrong dimensions, found " + size_text(hdu.axes) + ", expected " + expectation);
  if (std::min(axes[0], axes[1]) < 1)
    throw InvalidInput(where + "an image without pixels, found " + size_text(hdu.axes) + ", expected at least 1 x 1");
  if (plane > 0 && plane > axes[2])
    throw InvalidInput(where + "no such plane, found " + std::to_string(plane) + ", expected 1 to " +
                       std::to_string(axes[2]));
  return axes;
}

FitsImage read_image(FitsReader& file, const FitsReference& reference, int planes) {
  const FitsHdu& hdu = file.choose(reference.hdu);
  const std::string where = reference.path + "[" + hdu.label() + "]: ";
  const std::vector<LONGLONG> axes = axes_of(hdu, planes, reference.plane, where);
  const FitsSection part = part_of(axes, reference.section, where);
  const int first_plane = std::max(reference.plane, 1), last_plane = first_plane + planes - 1;

  int status = 0, bitpix = 0;
  fits_get_img_type(file.get(), &bitpix, &status);
  const bool tiled = fits_is_compressed_image(file.get(), &status) != 0;
  file.require_bytes(hdu, tiled ? hdu.end : hdu.data_begin + axes[0] * axes[1] * last_plane * (std::abs(bitpix) / 8));

  FitsImage image;
  image.nx = part.nx();
  image.ny = part.ny();
  image.whole_nx = static_cast<int>(std::min<LONGLONG>(axes[0], std::numeric_limits<int>::max()));
  image.whole_ny = static_cast<int>(std::min<LONGLONG>(axes[1], std::numeric_limits<int>::max()));
  image.hdu = hdu.label();
  image.unit = file.text("BUNIT");
  image.wcs = read_wcs(file, where);
  if (image.wcs) {
    image.wcs->reference_pixel[0] -= part.x_first - 1;
    image.wcs->reference_pixel[1] -= part.y_first - 1;
  }
  image.linear = read_linear(file, part);
  image.kernel_scale = file.positive_or_zero("PIXELSCL");
  image.kernel_oversampling = file.positive_or_zero("OVERSAMP");
  image.zero_point = read_zero_point(file, image.unit);
  image.values.resize(static_cast<std::size_t>(image.nx) * static_cast<std::size_t>(image.ny) *
                      static_cast<std::size_t>(planes));
  // Blanks of integer images become NaN. Floating-point pixels are read unchanged: with blanks enabled, CFITSIO would
  // return NaN for infinities and 0 for denormals.
  double blank = std::numeric_limits<double>::quiet_NaN();
  int any_blank = 0;
  std::vector<long> first(hdu.axes.size(), 1), last = first, step = first;  // axes of one pixel included
  first[0] = part.x_first;
  first[1] = part.y_first;
  last[0] = part.x_last;
  last[1] = part.y_last;
  if (first.size() > 2) {
    first[2] = first_plane;
    last[2] = last_plane;
  }
  fits_read_subset(file.get(), TDOUBLE, first.data(), last.data(), step.data(), bitpix > 0 || tiled ? &blank : nullptr,
                   image.values.data(), &any_blank, &status);
  if (status != 0) throw InvalidInput(where + "damaged, the pixels cannot be read (" + fits_reason(status) + ")");
  return image;
}

/// Whether CFITSIO has to unpack something: a file compressed as a whole, or an image in compressed tiles. It trusts
/// the sizes in such files: a tile of width 0 leads to a division by zero, a wrong tile size to writes out of bounds.
bool is_compressed(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return false;
  static constexpr std::string_view kMark = "ZIMAGE";
  std::ifstream file(path, std::ios::binary);
  // Small files, of which a survey has many, need no more than their own size.
  const std::uintmax_t most = std::uintmax_t(1) << 20, bytes = std::filesystem::file_size(path, error);
  std::string block(static_cast<std::size_t>(error ? most : std::clamp(bytes + 1, kBlock, most)), '\0');
  std::size_t kept = 0;  // bytes kept from the previous block, in case the mark begins there
  for (bool first = true; file; first = false) {
    file.read(block.data() + kept, static_cast<std::streamsize>(block.size() - kept));
    const std::string_view text(block.data(), kept + static_cast<std::size_t>(file.gcount()));
    if (first && !text.empty() && text.substr(0, 6) != "SIMPLE") return true;
    if (text.find(kMark) != std::string_view::npos) return true;
    kept = std::min(text.size(), kMark.size() - 1);
    block.replace(0, kept, text.substr(text.size() - kept));
  }
  return false;
}

/// The numbers of a CelestialWcs; NaN = unknown.
struct SkyNumbers {
  double pixel_scale;
  std::array<std::array<double, 2>, 2> cd;
  std::array<double, 2> reference_pixel, reference_value;
  std::array<double, 3> equinox_and_pole;
};

void send_sky(const CelestialWcs& wcs, const Channel& channel) {
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  channel.send_value(
      SkyNumbers{wcs.pixel_scale,
                 wcs.cd,
                 wcs.reference_pixel,
                 wcs.reference_value,
                 {wcs.equinox.value_or(kUnknown), wcs.pole_lon.value_or(kUnknown), wcs.pole_lat.value_or(kUnknown)}});
  for (const std::string& text : {wcs.type[0], wcs.type[1], wcs.frame}) channel.send(text);
}

bool receive_sky(CelestialWcs& wcs, const Channel& channel) {
  SkyNumbers numbers{};
  if (!channel.receive_value(numbers)) return false;
  wcs.pixel_scale = numbers.pixel_scale;
  wcs.cd = numbers.cd;
  wcs.reference_pixel = numbers.reference_pixel;
  wcs.reference_value = numbers.reference_value;
  const std::array<std::optional<double>*, 3> known = {&wcs.equinox, &wcs.pole_lon, &wcs.pole_lat};
  for (std::size_t i = 0; i < known.size(); ++i)
    if (!std::isnan(numbers.equinox_and_pole[i])) *known[i] = numbers.equinox_and_pole[i];
  return channel.receive(wcs.type[0]) && channel.receive(wcs.type[1]) && channel.receive(wcs.frame);
}

/// An image without its pixels, texts and WCS on the sky.
struct ImageHead {
  std::int64_t nx, ny;
  int whole_nx, whole_ny;
  std::uint64_t values;
  std::int64_t has_wcs, has_linear;
  LinearWcs linear;
  double kernel_scale, kernel_oversampling;
  double zero_point;  ///< NaN = unknown
};

void send_image(const FitsImage& image, const Channel& channel) {
  channel.send_value(ImageHead{image.nx, image.ny, image.whole_nx, image.whole_ny, image.values.size(),
                               image.wcs.has_value(), image.linear.has_value(), image.linear.value_or(LinearWcs{}),
                               image.kernel_scale, image.kernel_oversampling, image.zero_point.value_or(std::nan(""))});
  if (image.wcs) send_sky(*image.wcs, channel);
  channel.send(image.hdu);
  channel.send(image.unit);
  channel.send(image.values.data(), image.values.size() * sizeof(double));
}

bool receive_image(FitsImage& image, const Channel& channel) {
  ImageHead head{};
  if (!channel.receive_value(head)) return false;
  // The child may have been corrupted by a hostile file, so its answer is checked too.
  const auto is_side = [](std::int64_t n) { return n >= 1 && n <= kMaxImageSide; };
  if (!is_side(head.nx) || !is_side(head.ny)) return false;
  const auto pixels = static_cast<std::uint64_t>(head.nx * head.ny);
  if (head.values % pixels != 0 || head.values / pixels > kMaxFitsAxes) return false;
  image.nx = static_cast<int>(head.nx);
  image.ny = static_cast<int>(head.ny);
  image.whole_nx = head.whole_nx;
  image.whole_ny = head.whole_ny;
  if (head.has_wcs != 0 && !receive_sky(image.wcs.emplace(), channel)) return false;
  if (head.has_linear != 0) image.linear = head.linear;
  image.kernel_scale = head.kernel_scale;
  image.kernel_oversampling = head.kernel_oversampling;
  if (!std::isnan(head.zero_point)) image.zero_point = head.zero_point;
  if (!channel.receive(image.hdu) || !channel.receive(image.unit)) return false;
  image.values.resize(head.values);
  return channel.receive(image.values.data(), image.values.size() * sizeof(double));
}

}  // namespace

bool has_hdu(const std::string& path, const std::string& name) {
  const auto turn = turn_of_cfitsio();
  if (!is_compressed(path)) return FitsReader(path).has(name);
  bool has = false;
  isolated(
      path,
      [&] {
        const bool found = FitsReader(path).has(name);
        return [found](const Channel& channel) { channel.send_value(found); };
      },
      [&](const Channel& channel) { return channel.receive_value(has); });
  return has;
}

FitsImage read_fits(const std::string& path, const std::string& hdu, int planes) {
  return read_fits(FitsReference{path, hdu, {}}, planes);
}

FitsImage read_fits(const FitsReference& reference, int planes) {
  return FitsImages().read(reference, planes);
}

struct FitsImages::Open {
  std::string path;
  FitsReader file;
  explicit Open(const std::string& name) : path(name), file(name) {}
};

FitsImages::FitsImages() = default;

FitsImages::~FitsImages() {
  const auto turn = turn_of_cfitsio();
  open_.reset();
}

FitsImage FitsImages::read_file(const FitsReference& reference, int planes) {
  const auto turn = turn_of_cfitsio();
  if (open_ && open_->path == reference.path) return read_image(open_->file, reference, planes);
  open_.reset();
  if (!is_compressed(reference.path)) {
    open_ = std::make_unique<Open>(reference.path);
    return read_image(open_->file, reference, planes);
  }
  FitsImage image;
  isolated(
      reference.path,
      [&] {
        FitsReader file(reference.path);
        const auto read = std::make_shared<const FitsImage>(read_image(file, reference, planes));
        return [read](const Channel& channel) { send_image(*read, channel); };
      },
      [&](const Channel& channel) { return receive_image(image, channel); });
  return image;
}

FitsImage FitsImages::read(const FitsReference& reference, int planes) {
  if (!reference.array) return read_file(reference, planes);
  const ImageArray& array = *reference.array;
  const auto shape = [](int nx, int ny) { return "(" + std::to_string(ny) + ", " + std::to_string(nx) + ")"; };
  EINFIELD_REQUIRE(array.nx >= 1 && array.ny >= 1 && array.nx <= kMaxImageSide && array.ny <= kMaxImageSide,
                   reference.path + ": size out of range, found shape " + shape(array.nx, array.ny) +
                       ", expected 1 to " + std::to_string(kMaxImageSide) + " pixels a side");
  EINFIELD_REQUIRE(array.values.size() == static_cast<std::size_t>(array.nx) * static_cast<std::size_t>(array.ny),
                   reference.path + ": found " + std::to_string(array.values.size()) +
                       " values, expected those of shape " + shape(array.nx, array.ny));
  EINFIELD_REQUIRE(planes == 1 && !reference.section && reference.plane == 0,
                   reference.path + ": an array in memory, expected a FITS file for a cube or a part of an image");
  FitsImage image;
  image.nx = image.whole_nx = array.nx;
  image.ny = image.whole_ny = array.ny;
  image.values = array.values;
  image.hdu = "array";
  return image;
}

namespace {

/// Images in a file in memory.
class Writer {
 public:
  explicit Writer(const std::string& path) : path_(path), file_(path) {}

  void add(const FitsOutput& hdu) {
    const auto n =
        static_cast<std::size_t>(hdu.nx) * static_cast<std::size_t>(hdu.ny) * static_cast<std::size_t>(hdu.planes);
    EINFIELD_REQUIRE(hdu.nx >= 1 && hdu.ny >= 1 && hdu.planes >= 1 && hdu.values.size() == n,
                     path_ + "[" + hdu.name + "]: " + std::to_string(hdu.values.size()) + " values, expected " +
                         std::to_string(hdu.nx) + " x " + std::to_string(hdu.ny) + " x " + std::to_string(hdu.planes));
    int status = 0;
    std::array<LONGLONG, 3> axes{hdu.nx, hdu.ny, hdu.planes};
    file_.check(fits_create_imgll(file_.get(), hdu.bitpix, hdu.planes > 1 ? 3 : 2, axes.data(), &status));
    file_.key("EXTNAME", hdu.name);
    file_.key("BUNIT", hdu.unit);
    if (hdu.pixel_scale > 0) {
      axis("1", "X", hdu.nx, hdu.center_x, hdu.pixel_scale);
      axis("2", "Y", hdu.ny, hdu.center_y, hdu.pixel_scale);
    }
    if (hdu.sky) sky(*hdu.sky);
    for (const auto& [name, value] : hdu.cards) file_.key(name, value);
    file_.begin_data(++hdus_);
    file_.check(fits_write_img(file_.get(), TDOUBLE, 1, static_cast<LONGLONG>(n),
                               const_cast<double*>(hdu.values.data()), &status));
  }

  std::string_view bytes() { return file_.bytes(); }

 private:
  /// A linear axis in arcsec; pixels count from 1, whole numbers are pixel centers.
  void axis(const std::string& index, const std::string& type, int n, double center, double scale) {
    file_.key("CTYPE" + index, type);
    file_.key("CUNIT" + index, std::string("arcsec"));
    file_.key("CRPIX" + index, 0.5 * (n + 1));
    file_.key("CRVAL" + index, center);
    file_.key("CDELT" + index, scale);
  }
  /// The WCS on the sky, as the alternate WCS "A" that DS9 and Astropy know.
  void sky(const CelestialWcs& wcs) {
    for (std::size_t i = 0; i < 2; ++i) {
      const std::string axis = std::to_string(i + 1);
      file_.key("CTYPE" + axis + "A", wcs.type[i]);
      file_.key("CUNIT" + axis + "A", std::string("deg"));
      file_.key("CRPIX" + axis + "A", wcs.reference_pixel[i]);
      file_.key("CRVAL" + axis + "A", wcs.reference_value[i]);
      file_.key("CD" + axis + "_1A", wcs.cd[i][0]);
      file_.key("CD" + axis + "_2A", wcs.cd[i][1]);
    }
    if (!wcs.frame.empty()) file_.key("RADESYSA", wcs.frame);
    if (wcs.equinox) file_.key("EQUINOXA", *wcs.equinox);
    if (wcs.pole_lon) file_.key("LONPOLEA", *wcs.pole_lon);
    if (wcs.pole_lat) file_.key("LATPOLEA", *wcs.pole_lat);
  }

  std::string path_;
  FitsMemoryFile file_;
  int hdus_ = 0;
};

}  // namespace

void write_fits(const std::string& path, const std::vector<FitsOutput>& hdus) {
  const auto bytes_of_file = [&] {
    const auto turn = turn_of_cfitsio();
    Writer writer(path);
    for (const FitsOutput& hdu : hdus) writer.add(hdu);
    return std::string(writer.bytes());
  };
  // CFITSIO loses blocks without a status when memory ends at the wrong moment. What it makes twice alike is whole.
  const std::string bytes = bytes_of_file();
  if (bytes_of_file() != bytes) throw IoError(path + ": cannot be written (out of memory)");
  write_atomically(path, bytes);
}

}  // namespace einfield
