#include "host/batch/cut_out.hpp"

#include <array>
#include <cmath>
#include <optional>
#include <string>

#include "einfield/error.hpp"
#include "einfield/limits.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/fits_text.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

/// A cell that must be a number in a range.
double number_of(const SurveyLens& lens, const std::string& column, double lowest, double highest,
                 const std::string& expected) {
  const auto cell = lens.cells.find(column);
  if (cell == lens.cells.end()) throw InvalidInput(lens.place + ": " + column + ": missing, expected " + expected);
  const double value = lens.number(column);
  if (!(value >= lowest && value <= highest))
    throw InvalidInput(lens.place + ": " + column + ": found " + cell->second + ", expected " + expected);
  return value;
}

/// The pixel, from 1, at ra, dec of a row.
Vec2<double> pixel_of(const SurveyLens& lens, const FitsReference& image) {
  const double ra = number_of(lens, "ra", -360, 360, "degrees, or the columns x and y");
  const double dec = number_of(lens, "dec", -90, 90, "degrees");
  FitsReference one_pixel = image;
  one_pixel.section = FitsSection{};
  const std::optional<CelestialWcs> wcs = read_fits(one_pixel).wcs;
  if (!wcs) throw InvalidInput(image.path + ": no celestial WCS, expected one for ra and dec, or the columns x and y");
  if (wcs->type[0] != "RA---TAN" || wcs->type[1] != "DEC--TAN" || wcs->pole_lon.value_or(180) != 180)
    throw InvalidInput(lens.place + ": ra, dec: a WCS of " + wcs->type[0] + ", " + wcs->type[1] +
                       ", expected RA---TAN and DEC--TAN with LONPOLE = 180, or the columns x and y");
  const std::array<double, 2> pixel = wcs->pixel({ra, dec});
  if (std::isnan(pixel[0]))
    throw InvalidInput(lens.place +
                       ": ra, dec: a position on the other side of the sky, expected one near the middle "
                       "of the image");
  return {pixel[0], pixel[1]};
}

}  // namespace

FitsSection cut_out(const SurveyLens& lens, const FitsReference& image) {
  if (image.empty()) throw InvalidInput(lens.place + ": image: missing, expected the mosaic to cut out of");
  if (image.section)
    throw InvalidInput(lens.place + ": size: contradicts the part " + text_of(*image.section) +
                       " of the image, expected one of them");
  const double size = number_of(lens, "size", 1, kMaxImageSide, "a whole number of pixels");
  if (size != std::floor(size)) throw InvalidInput(lens.place + ": size: not a whole number, found " + to_text(size));
  Vec2<double> middle;
  if (lens.cells.count("x") != 0 || lens.cells.count("y") != 0) {
    middle.x = number_of(lens, "x", 0.5, 1e9, "a column of the image, from 1");
    middle.y = number_of(lens, "y", 0.5, 1e9, "a row of the image, from 1");
  } else {
    middle = pixel_of(lens, image);
  }
  const auto first = [size](double at) { return static_cast<long>(std::lround(at - (size - 1) / 2)); };
  const long x = first(middle.x), y = first(middle.y), side = static_cast<long>(size);
  if (x < 1 || y < 1)
    throw InvalidInput(lens.place + ": size: the cut-out leaves the image, found columns from " + std::to_string(x) +
                       " and rows from " + std::to_string(y) + ", expected 1 or more");
  return {static_cast<int>(x), static_cast<int>(x + side - 1), static_cast<int>(y), static_cast<int>(y + side - 1)};
}

}  // namespace einfield
