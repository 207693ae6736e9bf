// Pictures of maps and curves as PNG: laid out here, drawn by gnuplot in a child process.
// A picture appears complete or not at all; text that comes from users never becomes a command.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace einfield {

/// Colours of a map: perceptually uniform, and told apart by colour-blind eyes.
enum class Palette {
  intensity,   ///< dark to bright, for brightness
  sequential,  ///< blue to yellow, for quantities of one sign or of arbitrary zero
  diverging,   ///< blue, white at the middle, red: for signed quantities and errors
};

/// The ends of a scale of colours.
struct ColorRange {
  double low = 0;
  double high = 1;
};

/// From the `low` to the `high` quantile of the finite values: a cusp or a hot pixel does not wash out the rest.
ColorRange quantile_range(const std::vector<double>& values, double low, double high);

/// Symmetric about zero: ± the `quantile` of the absolute finite values.
ColorRange symmetric_range(const std::vector<double>& values, double quantile);

/// A line over a map, in its coordinates [arcsec].
struct Trace {
  std::vector<double> x, y;
  bool dashed = false;
};

/// One map with its colour bar, drawn with equal axes in arcsec.
struct Panel {
  std::string title;
  std::string unit;  ///< at the colour bar
  int nx = 0;
  int ny = 0;
  std::vector<double> values;  ///< (ny, nx), row 0 at the bottom; what is not finite is drawn grey
  double pixel_scale = 1;      ///< arcsec
  double center_x = 0;         ///< arcsec; coordinate of the middle of the map
  double center_y = 0;
  Palette palette = Palette::sequential;
  ColorRange range;                   ///< values beyond get the colour of its ends, and the bar an arrow
  double softening = 0;               ///< > 0: colours are even in asinh(value / softening); 0: in the value
  std::vector<std::uint8_t> outline;  ///< (ny, nx): the region of ones is outlined; empty = none
  std::vector<Trace> traces;
  std::string inset;  ///< a few words in the lower left corner
};

/// One line of a chart.
struct Curve {
  std::string title;  ///< in the key; empty = not listed
  std::vector<double> x, y;
  bool dashed = false;
};

/// Curves over a common axis; the ordinate is logarithmic, values ≤ 0 are left out.
struct Chart {
  std::string title;
  std::string x_label, y_label;
  std::vector<Curve> curves;
};

/// One PNG: cells row by row.
struct Picture {
  std::string path;   ///< where the PNG goes
  std::string title;  ///< above all cells
  std::string note;   ///< small, below them
  int columns = 1;
  std::vector<std::variant<Panel, Chart>> cells;
  bool on_page = false;  ///< transparent, with ink that is read on white and on black
};

/// Pictures as the bytes of PNGs, empty where there is none, and what went wrong.
struct DrawnPictures {
  std::vector<std::string> png;
  std::vector<std::string> warnings;
};

/// Draws all pictures with one gnuplot; their paths do not matter. What gnuplot cannot do is a warning (not installed,
/// failed, too slow, its complaints).
DrawnPictures draw_in_memory(const std::vector<Picture>& pictures,
                             std::chrono::milliseconds time_limit = std::chrono::minutes(2));

/// The same into the files that the pictures name; returns the warnings.
/// @throws IoError when a finished picture cannot be written to its place
std::vector<std::string> draw(const std::vector<Picture>& pictures,
                              std::chrono::milliseconds time_limit = std::chrono::minutes(2));

}  // namespace einfield
