// Pictures of maps and curves as PNG, drawn by gnuplot in a child process.
// A picture appears complete or not at all. Text from users never becomes a gnuplot command.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace einfield {

/// Colors of a map: perceptually uniform and readable with color-blind eyes.
enum class Palette {
  intensity,   ///< dark to bright, for brightness
  sequential,  ///< blue to yellow, for quantities of one sign or of arbitrary zero
  diverging,   ///< blue, white at the middle, red: for signed quantities and errors
};

/// The ends of a color scale.
struct ColorRange {
  double low = 0;
  double high = 1;
};

/// From the `low` to the `high` quantile of the finite values: one extreme pixel does not flatten the rest.
ColorRange quantile_range(const std::vector<double>& values, double low, double high);

/// Symmetric about zero: ± the `quantile` of the absolute finite values.
ColorRange symmetric_range(const std::vector<double>& values, double quantile);

/// A line over a map, in its coordinates [arcsec].
struct Trace {
  std::vector<double> x, y;
  bool dashed = false;
};

/// North and East in a map, in its lower right corner.
struct Compass {
  double north = 0, east = 0;  ///< directions from +x towards +y [rad]
};

/// One map with its color bar, drawn with equal axes in arcsec.
struct Panel {
  std::string title;
  std::string unit;  ///< label of the color bar
  int nx = 0;
  int ny = 0;
  std::vector<double> values;  ///< (ny, nx), row 0 at the bottom; non-finite values are drawn gray
  double pixel_scale = 1;      ///< arcsec
  double center_x = 0;         ///< arcsec; coordinate of the middle of the map
  double center_y = 0;
  Palette palette = Palette::sequential;
  ColorRange range;                   ///< values outside get the color of its ends, and the bar gets an arrow
  double softening = 0;               ///< > 0: colors are linear in asinh(value / softening); 0: in the value
  std::vector<std::uint8_t> outline;  ///< (ny, nx): lines between pixels of different levels; empty = none
  std::vector<Trace> traces;
  std::string inset;  ///< short text in the lower left corner
  std::optional<Compass> compass;
};

/// One line of a chart.
struct Curve {
  std::string title;  ///< name in the key; empty = not listed
  std::vector<double> x, y;
  bool dashed = false;
};

/// Curves over a common axis. The vertical axis is logarithmic; values ≤ 0 are not drawn.
struct Chart {
  std::string title;
  std::string x_label, y_label;
  std::vector<Curve> curves;
};

/// One PNG: cells row by row.
struct Picture {
  std::string path;   ///< of the PNG
  std::string title;  ///< above all cells
  std::string note;   ///< small text below all cells
  int columns = 1;
  std::vector<std::variant<Panel, Chart>> cells;
  bool on_page = false;  ///< transparent, with ink that is readable on white and on black
};

/// Drawn pictures.
struct DrawnPictures {
  std::vector<std::string> png;  ///< the bytes of each PNG; empty where it could not be drawn
  std::vector<std::string> warnings;
};

/// Draws all pictures with one gnuplot process; their paths are not used. Failures are warnings: gnuplot is not
/// installed, fails, is too slow, or prints messages.
DrawnPictures draw_in_memory(const std::vector<Picture>& pictures,
                             std::chrono::milliseconds time_limit = std::chrono::minutes(2));

/// Draws all pictures into the files that they name; returns the warnings.
/// @throws IoError when a finished picture cannot be written to its place
std::vector<std::string> draw(const std::vector<Picture>& pictures,
                              std::chrono::milliseconds time_limit = std::chrono::minutes(2));

}  // namespace einfield
