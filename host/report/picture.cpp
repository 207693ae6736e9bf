// The layout of pictures in pixels, and the gnuplot script for it.
#include "host/report/picture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/private_directory.hpp"
#include "host/report/gnuplot.hpp"
#include "host/report/ticks.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

// ---- text ------------------------------------------------------------------------------------------------

/// The font size in points, at most `most`, at which `words` are not wider than `pixels`.
double fitting_size(const std::string& words, double pixels, double most, bool bold) {
  const auto continues = [](char c) { return (c & 0xc0) == 0x80; };
  const auto characters =
      static_cast<double>(words.size()) - static_cast<double>(std::count_if(words.begin(), words.end(), continues));
  const double pixels_per_point = (bold ? 0.74 : 0.64) * characters;  // of DejaVu Sans, on average
  return std::clamp(pixels / std::max(pixels_per_point, 1.0), 6.0, most);
}

// ---- scales ----------------------------------------------------------------------------------------------

std::string tick_list(const char* axis, const std::vector<Tick>& ticks, bool labels = true) {
  std::string list = std::string("set ") + axis + " (";
  for (std::size_t i = 0; i < ticks.size(); ++i)
    list += (i ? ", " : "") + quoted(labels ? ticks[i].label : "") + fmt::format(" {:.12g}", ticks[i].at);
  return list + ")\n";
}

std::vector<double> finite_values(const std::vector<double>& values) {
  std::vector<double> finite;
  finite.reserve(values.size());
  std::copy_if(values.begin(), values.end(), std::back_inserter(finite), [](double v) { return std::isfinite(v); });
  return finite;
}

/// The value below which the fraction q lies; reorders `values`, which must not be empty.
double quantile(std::vector<double>& values, double q) {
  const auto rank = static_cast<std::ptrdiff_t>(std::lround(q * static_cast<double>(values.size() - 1)));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<std::size_t>(rank)];
}

/// A range that can be drawn: finite and not empty.
ColorRange opened(ColorRange range) {
  if (!std::isfinite(range.low) || !std::isfinite(range.high)) return {0, 1};
  const double least = 1e-9 * std::max(std::abs(range.low), std::abs(range.high));
  if (range.high - range.low > least) return range;
  const double half = range.low == 0 ? 1 : 0.5 * std::abs(range.low);
  return {range.low - half, range.low + half};
}

// ---- maps ------------------------------------------------------------------------------------------------

/// A map as it is drawn: averaged over blocks where it has more pixels than a picture can show.
struct Raster {
  int nx, ny;
  double dx, dy, x0, y0;  ///< arcsec: size of a raster pixel, center of the first
  std::vector<float> values;
};

constexpr int kMostPixels = 1000;  ///< per side of a map, over twice what a panel shows

Raster raster(const Panel& panel, double factor) {
  const int block = (std::max(panel.nx, panel.ny) + kMostPixels - 1) / kMostPixels;
  Raster result{};
  result.nx = (panel.nx + block - 1) / block;
  result.ny = (panel.ny + block - 1) / block;
  result.dx = result.dy = block * panel.pixel_scale;
  result.x0 = panel.center_x + 0.5 * (block - panel.nx) * panel.pixel_scale;
  result.y0 = panel.center_y + 0.5 * (block - panel.ny) * panel.pixel_scale;
  result.values.reserve(static_cast<std::size_t>(result.nx) * static_cast<std::size_t>(result.ny));
  for (int iy = 0; iy < result.ny; ++iy)
    for (int ix = 0; ix < result.nx; ++ix) {
      double sum = 0;
      int count = 0;
      for (int y = iy * block; y < std::min(panel.ny, (iy + 1) * block); ++y)
        for (int x = ix * block; x < std::min(panel.nx, (ix + 1) * block); ++x) {
          const double value = panel.values[static_cast<std::size_t>(y) * static_cast<std::size_t>(panel.nx) +
                                            static_cast<std::size_t>(x)];
          if (!std::isfinite(value)) continue;
          sum += value;
          ++count;
        }
      result.values.push_back(count > 0 ? static_cast<float>(factor * sum / count) : NAN);
    }
  return result;
}

/// Edges between the levels of an outline as (x, y, length along x, length along y); neighbors are joined.
std::vector<float> outline_edges(const Panel& panel) {
  const auto level = [&](int x, int y) {
    return panel
        .outline[static_cast<std::size_t>(y) * static_cast<std::size_t>(panel.nx) + static_cast<std::size_t>(x)];
  };
  std::vector<float> edges;
  const auto add = [&](double x, double y, double length_x, double length_y) {
    edges.push_back(static_cast<float>(panel.center_x + (x - 0.5 * panel.nx) * panel.pixel_scale));
    edges.push_back(static_cast<float>(panel.center_y + (y - 0.5 * panel.ny) * panel.pixel_scale));
    edges.push_back(static_cast<float>(length_x * panel.pixel_scale));
    edges.push_back(static_cast<float>(length_y * panel.pixel_scale));
  };
  // Edges along the frame are left out: the frame is a line already.
  for (int y = 1; y < panel.ny; ++y)
    for (int x = 0, start = -1; x <= panel.nx; ++x) {
      const bool edge = x < panel.nx && level(x, y - 1) != level(x, y);
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) {
        add(start, y, x - start, 0);
        start = -1;
      }
    }
  for (int x = 1; x < panel.nx; ++x)
    for (int y = 0, start = -1; y <= panel.ny; ++y) {
      const bool edge = y < panel.ny && level(x - 1, y) != level(x, y);
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) {
        add(x, start, 0, y - start);
        start = -1;
      }
    }
  return edges;
}

/// A curve with at most a few thousand points: of every stretch the least and the greatest value, so that spikes stay.
std::vector<double> thinned(const Curve& curve) {
  constexpr std::size_t kStretches = 1500;
  const std::size_t n = std::min(curve.x.size(), curve.y.size());
  const std::size_t stretch = n > 2 * kStretches ? (n + kStretches - 1) / kStretches : 1;
  std::vector<double> points;
  const auto add = [&](std::size_t i) {
    if (!std::isfinite(curve.y[i]) || curve.y[i] <= 0) return;
    points.push_back(curve.x[i]);
    points.push_back(curve.y[i]);
  };
  for (std::size_t begin = 0; begin < n; begin += stretch) {
    const auto first = curve.y.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = curve.y.begin() + static_cast<std::ptrdiff_t>(std::min(n, begin + stretch));
    const auto [low, high] = std::minmax_element(first, last);
    const auto [a, b] = std::minmax(low, high);
    add(static_cast<std::size_t>(a - curve.y.begin()));
    if (a != b) add(static_cast<std::size_t>(b - curve.y.begin()));
  }
  return points;
}

// ---- the script ------------------------------------------------------------------------------------------

const char* colors(Palette palette) {
  switch (palette) {
    case Palette::intensity:
      return "0 '#000004', 1 '#140e36', 2 '#3b0f70', 3 '#641a80', 4 '#8c2981', 5 '#b73779', 6 '#de4968', 7 '#f7705c', "
             "8 '#fe9f6d', 9 '#fecf92', 10 '#fcfdbf'";
    case Palette::sequential:
      return "0 '#440154', 1 '#482475', 2 '#414487', 3 '#355f8d', 4 '#2a788e', 5 '#21918c', 6 '#22a884', 7 '#44bf70', "
             "8 '#7ad151', 9 '#bddf26', 10 '#fde725'";
    case Palette::diverging:
      break;
  }
  return "0 '#053061', 1 '#2166ac', 2 '#4393c3', 3 '#92c5de', 4 '#d1e5f0', 5 '#f7f7f7', 6 '#fddbc7', 7 '#f4a582', "
         "8 '#d6604d', 9 '#b2182b', 10 '#67001f'";
}

/// Sizes in pixels of the PNG.
namespace layout {
constexpr int kBox = 460;  ///< longer side of a map
constexpr int kChartWidth = 640;
constexpr int kLeft = 102;       ///< room for tick labels and the name of the vertical axis
constexpr int kLeftBare = 20;    ///< the same where the left neighbor has them
constexpr int kChartLeft = 104;  ///< numbers of a chart are longer
constexpr int kRight = 156;      ///< room for the color bar, its labels and its unit
constexpr int kChartRight = 36;
constexpr int kTop = 44;  ///< room for the title of a cell
constexpr int kTopBare = 22;
constexpr int kBottom = 72;  ///< room for tick labels and the name of the horizontal axis
constexpr int kBottomBare = 18;
constexpr int kPageMore = 22;  ///< what the larger letters of a page need to the right and below
constexpr int kTitle = 46;     ///< room for the title of the picture
constexpr int kNote = 34;
constexpr int kTitleDown = 26;  ///< from the upper edge of the picture to the middle of its title
constexpr int kNoteUp = 18;     ///< from the lower edge of the picture to the middle of its note
constexpr int kMargin = 8;      ///< above pictures without title; also beside the title and the note
/// Of the text in the lower left corner of a map: its place and its greatest width, as fractions of the map.
constexpr double kInsetX = 0.035, kInsetY = 0.06, kInsetWidth = 0.93;
constexpr int kBarGap = 10, kBarWidth = 16, kArrow = 14;
}  // namespace layout

/// Ink of pictures on white, and of pictures on a page that may be white or black.
constexpr const char* kInk = "#000000";
constexpr const char* kPageInk = "#7a7a7a";
/// Points. A page shows its pictures at half their size.
constexpr int kFont = 15;
constexpr int kPageFont = 19;

struct Size {
  int width, height;
};

Size box_size(const std::variant<Panel, Chart>& cell) {
  if (std::holds_alternative<Chart>(cell)) return {layout::kChartWidth, layout::kBox};
  const auto& panel = std::get<Panel>(cell);
  const double longer = std::max(panel.nx, panel.ny);
  // A map that is very long and thin keeps a width on which its frame can be seen.
  const auto side = [longer](int n) { return std::max(40, static_cast<int>(std::lround(layout::kBox * n / longer))); };
  return {side(panel.nx), side(panel.ny)};
}

/// Room above a cell.
int top_of(const std::variant<Panel, Chart>& cell) {
  const bool untitled = std::visit([](const auto& it) { return it.title.empty(); }, cell);
  return untitled ? layout::kTopBare : layout::kTop;
}

bool same_frame(const std::variant<Panel, Chart>& a, const std::variant<Panel, Chart>& b) {
  const Panel* p = std::get_if<Panel>(&a);
  const Panel* q = std::get_if<Panel>(&b);
  return p && q && p->nx == q->nx && p->ny == q->ny && p->pixel_scale == q->pixel_scale && p->center_x == q->center_x &&
         p->center_y == q->center_y;
}

/// Writes script and data of pictures into a directory.
class Script {
 public:
  explicit Script(fs::path directory)
      : directory_(std::move(directory)), script_("set encoding utf8\nset style fill solid 1 noborder\n") {}

  void add(const Picture& picture, const std::string& output);
  void write() const { write_file("script.gp", script_.data(), script_.size()); }

 private:
  struct Box {
    int left, bottom, width, height;  ///< pixels, from the lower left corner of the picture
    bool x_labels, y_labels;
  };

  void add_panel(const Panel& panel, const Box& box);
  void add_compass(const Compass& compass, const Box& box);
  void add_chart(const Chart& chart, const Box& box);
  void place(const Box& box);
  double across(double pixels) const { return pixels / size_.width; }
  double upward(double pixels) const { return pixels / size_.height; }

  template <class T>
  std::string data(const std::vector<T>& values) {
    const std::string name = fmt::format("{}.bin", ++n_files_);
    write_file(name, values.data(), values.size() * sizeof(T));
    return "'" + name + "'";
  }
  void write_file(const std::string& name, const void* bytes, std::size_t size) const {
    std::ofstream file(directory_ / name, std::ios::binary);
    file.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(size));
    if (!file.flush()) throw IoError((directory_ / name).string() + ": cannot write");
  }

  fs::path directory_;
  std::string script_;
  Size size_{};
  bool on_page_ = false;
  int n_files_ = 0;
};

void Script::add(const Picture& picture, const std::string& output) {
  on_page_ = picture.on_page;
  const int columns = std::max(1, picture.columns);
  const int n = static_cast<int>(picture.cells.size());
  const int rows = (n + columns - 1) / columns;
  const auto cell = [&](int row, int column) -> const std::variant<Panel, Chart>& {
    return picture.cells[static_cast<std::size_t>(row * columns + column)];
  };
  // Neighbors that share an axis have its labels once.
  const auto bare_left = [&](int i) {
    return i % columns > 0 &&
           same_frame(picture.cells[static_cast<std::size_t>(i)], picture.cells[static_cast<std::size_t>(i - 1)]);
  };
  const auto bare_below = [&](int i) {
    return i + columns < n &&
           same_frame(picture.cells[static_cast<std::size_t>(i)], picture.cells[static_cast<std::size_t>(i + columns)]);
  };
  std::vector<int> left(static_cast<std::size_t>(columns), 0), width(left), right(left);
  std::vector<int> top(static_cast<std::size_t>(rows), 0), below(top), height(top);
  for (int i = 0; i < n; ++i) {
    const auto column = static_cast<std::size_t>(i % columns), row = static_cast<std::size_t>(i / columns);
    const std::variant<Panel, Chart>& it = picture.cells[static_cast<std::size_t>(i)];
    const bool chart = std::holds_alternative<Chart>(it);
    const Size box = box_size(it);
    left[column] = std::max(left[column], chart          ? layout::kChartLeft
                                          : bare_left(i) ? layout::kLeftBare
                                                         : layout::kLeft);
    const int more = picture.on_page ? layout::kPageMore : 0;
    right[column] = std::max(right[column], chart ? layout::kChartRight : layout::kRight + more);
    width[column] = std::max(width[column], box.width);
    top[row] = std::max(top[row], top_of(it));
    below[row] = std::max(below[row], bare_below(i) ? layout::kBottomBare : layout::kBottom + more);
    height[row] = std::max(height[row], box.height);
  }
  size_ = {0, picture.title.empty() ? layout::kMargin : layout::kTitle};
  for (int column = 0; column < columns; ++column)
    size_.width += left[static_cast<std::size_t>(column)] + width[static_cast<std::size_t>(column)] +
                   right[static_cast<std::size_t>(column)];
  for (int row = 0; row < rows; ++row)
    size_.height += top[static_cast<std::size_t>(row)] + height[static_cast<std::size_t>(row)] +
                    below[static_cast<std::size_t>(row)];
  if (!picture.note.empty()) size_.height += layout::kNote;

  script_ += fmt::format("set terminal pngcairo noenhanced rounded {} size {},{} font 'DejaVu Sans,{}' linewidth 1.4\n",
                         picture.on_page ? "transparent" : "notransparent", size_.width, size_.height,
                         picture.on_page ? kPageFont : kFont);
  script_ += "set output '" + output + "'\nunset label\n";
  // Kept by gnuplot when positions and texts are set.
  const std::string ink = std::string(" textcolor rgb '") + (picture.on_page ? kPageInk : kInk) + "'\n";
  for (const char* words : {"xtics", "ytics", "cbtics", "xlabel", "ylabel", "cblabel", "title", "key"})
    script_ += std::string("set ") + words + ink;
  script_ += std::string("set border lc rgb '") + (picture.on_page ? kPageInk : kInk) + "'\n";
  if (!picture.title.empty())
    script_ += "set label 1 " + quoted(picture.title) +
               fmt::format(" at screen 0.5,{:.6f} center front font 'DejaVu Sans:Bold,{:.2f}'\n",
                           1 - upward(layout::kTitleDown),
                           fitting_size(picture.title, size_.width - 2 * layout::kMargin, 16, true));
  if (!picture.note.empty())
    script_ +=
        "set label 2 " + quoted(picture.note) +
        fmt::format(" at screen 0.5,{:.6f} center front font 'DejaVu Sans,{:.2f}' tc rgb '#555555'\n",
                    upward(layout::kNoteUp), fitting_size(picture.note, size_.width - 2 * layout::kMargin, 13, false));
  script_ += "set multiplot\n";
  int bottom = size_.height - (picture.title.empty() ? layout::kMargin : layout::kTitle);
  for (int row = 0; row < rows; ++row) {
    bottom -= top[static_cast<std::size_t>(row)] + height[static_cast<std::size_t>(row)];
    int x = 0;
    for (int column = 0; column < columns && row * columns + column < n; ++column) {
      x += left[static_cast<std::size_t>(column)];
      const int i = row * columns + column;
      const Size size = box_size(cell(row, column));
      // Smaller maps stand in the middle of their cell.
      const Box box{x + (width[static_cast<std::size_t>(column)] - size.width) / 2,
                    bottom + (height[static_cast<std::size_t>(row)] - size.height) / 2,
                    size.width,
                    size.height,
                    !bare_below(i),
                    !bare_left(i)};
      if (const Panel* panel = std::get_if<Panel>(&cell(row, column)))
        add_panel(*panel, box);
      else
        add_chart(std::get<Chart>(cell(row, column)), box);
      x += width[static_cast<std::size_t>(column)] + right[static_cast<std::size_t>(column)];
      script_ += "unset label\n";
    }
    bottom -= below[static_cast<std::size_t>(row)];
  }
  script_ += "unset multiplot\nunset output\n";
}

void Script::place(const Box& box) {
  script_ += fmt::format(
      "set lmargin at screen {:.6f}; set rmargin at screen {:.6f}; set bmargin at screen {:.6f}; "
      "set tmargin at screen {:.6f}\n",
      across(box.left), across(box.left + box.width), upward(box.bottom), upward(box.bottom + box.height));
}

void Script::add_panel(const Panel& panel, const Box& box) {
  ColorRange range = opened(panel.range);
  // Very small or large values are shown as multiples of a power of ten.
  const int exponent = static_cast<int>(std::floor(std::log10(std::max(std::abs(range.low), std::abs(range.high)))));
  const int power = exponent < -2 || exponent > 3 ? 3 * static_cast<int>(std::floor(exponent / 3.0)) : 0;
  const double factor = std::pow(10.0, -power);
  range = {factor * range.low, factor * range.high};
  // Scales that no double holds stay linear.
  const double widest = std::max(std::abs(range.low), std::abs(range.high)) / (factor * panel.softening);
  const double softening = panel.softening > 0 && std::isfinite(widest) ? factor * panel.softening : 0;
  const auto shade = [softening](double value) { return softening > 0 ? std::asinh(value / softening) : value; };
  const ColorRange shades{shade(range.low), shade(range.high)};
  const std::string unit = power == 0 ? panel.unit : power_of_ten(power) + (panel.unit.empty() ? "" : " " + panel.unit);

  place(box);
  const double half_x = 0.5 * panel.nx * panel.pixel_scale, half_y = 0.5 * panel.ny * panel.pixel_scale;
  const double x_low = panel.center_x - half_x, x_high = panel.center_x + half_x;
  const double y_low = panel.center_y - half_y, y_high = panel.center_y + half_y;
  script_ += fmt::format("set xrange [{:.12g}:{:.12g}]; set yrange [{:.12g}:{:.12g}]; set cbrange [{:.12g}:{:.12g}]\n",
                         x_low, x_high, y_low, y_high, shades.low, shades.high);
  const auto ticks_for = [](int pixels) { return std::max(1, pixels / 90); };
  script_ += tick_list("xtics out scale 0.6 nomirror", linear_ticks(x_low, x_high, ticks_for(box.width)), box.x_labels);
  script_ +=
      tick_list("ytics out scale 0.6 nomirror", linear_ticks(y_low, y_high, ticks_for(box.height)), box.y_labels);
  const int bar_ticks = std::max(2, box.height / 80);
  script_ +=
      tick_list("cbtics out scale 0.4", softening > 0 ? asinh_ticks(shades.low, shades.high, softening, bar_ticks)
                                                      : linear_ticks(range.low, range.high, bar_ticks));
  script_ += std::string("set xlabel '") + (box.x_labels ? "x [arcsec]" : "") + "' offset 0,0.3; set ylabel '" +
             (box.y_labels ? "y [arcsec]" : "") + "' offset 0.6,0\n";
  script_ += "set title " + quoted(panel.title) + " offset 0,-0.4\n";
  script_ += "set cblabel " + quoted(unit) + fmt::format(" offset {:g},0\n", on_page_ ? 1.6 : 0.4);
  script_ += std::string("set palette defined (") + colors(panel.palette) + ")\n";

  // The bar, and an arrow at each end beyond which there are values.
  const double bar_left = across(box.left + box.width + layout::kBarGap), bar_width = across(layout::kBarWidth);
  const double bar_bottom = upward(box.bottom), bar_height = upward(box.height);
  script_ += fmt::format(
      "set colorbox vertical user origin screen {:.6f},{:.6f} size screen {:.6f},{:.6f} front noinvert border\n",
      bar_left, bar_bottom, bar_width, bar_height);
  script_ +=
      "unset arrow\nunset object\nset object 1 rectangle from graph 0,0 to graph 1,1 fillcolor rgb '#b8b8b8' behind\n";
  const std::vector<double> finite = finite_values(panel.values);
  const auto arrow = [&](int id, double at, double tip, int fraction) {
    script_ += fmt::format(
        "set object {} polygon from screen {:.6f},{:.6f} to screen {:.6f},{:.6f} to screen {:.6f},{:.6f} to screen "
        "{:.6f},{:.6f} "
        "fillcolor palette fraction {} fillstyle solid 1 border lt -1 front\n",
        id, bar_left, at, bar_left + bar_width, at, bar_left + 0.5 * bar_width, tip, bar_left, at, fraction);
  };
  if (!finite.empty()) {
    const auto [least, greatest] = std::minmax_element(finite.begin(), finite.end());
    const double slack = 1e-6 * (range.high - range.low);
    if (factor * *least < range.low - slack) arrow(2, bar_bottom, bar_bottom - upward(layout::kArrow), 0);
    if (factor * *greatest > range.high + slack)
      arrow(3, bar_bottom + bar_height, bar_bottom + bar_height + upward(layout::kArrow), 1);
  }
  if (!panel.inset.empty())
    script_ += "set style textbox opaque margins 0.8,0.8 fillcolor rgb '#ffffff' noborder\nset label 3 " +
               quoted(panel.inset) +
               fmt::format(
                   " at graph {:g},{:g} left front boxed font 'DejaVu Sans,{:.2f}'\n", layout::kInsetX, layout::kInsetY,
                   fitting_size(panel.inset, layout::kInsetWidth * box.width, on_page_ ? kPageFont : 13, false));

  if (panel.compass) add_compass(*panel.compass, box);
  Raster map = raster(panel, factor);
  for (auto& value : map.values) value = static_cast<float>(shade(value));
  script_ += "plot " + data(map.values) +
             fmt::format(
                 " binary array=({},{}) format='%float32' origin=({:.12g},{:.12g}) dx={:.12g} dy={:.12g} using 1 with "
                 "image notitle",
                 map.nx, map.ny, map.x0, map.y0, map.dx, map.dy);
  if (!panel.outline.empty()) {
    const std::vector<float> edges = outline_edges(panel);
    // A dark line over a light one is visible on every color.
    if (!edges.empty()) {
      const std::string source =
          data(edges) +
          fmt::format(" binary record=({}) format='%4float32' using 1:2:3:4 with vectors nohead ", edges.size() / 4);
      script_ += ", " + source + "lw 2.2 lc rgb '#ffffff' notitle, " + source + "lw 0.9 lc rgb '#000000' notitle";
    }
  }
  for (const Trace& trace : panel.traces) {
    std::vector<float> points;
    for (std::size_t i = 0; i < std::min(trace.x.size(), trace.y.size()); ++i) {
      points.push_back(static_cast<float>(trace.x[i]));
      points.push_back(static_cast<float>(trace.y[i]));
    }
    if (points.empty()) continue;
    const std::string source =
        data(points) + fmt::format(" binary record=({}) format='%2float32' using 1:2 with lines ", points.size() / 2);
    script_ += ", " + source + "lw 3.6 lc rgb '#000000' notitle, " + source +
               fmt::format("lw 2 dt {} lc rgb '#00e5ff' notitle", trace.dashed ? 2 : 1);
  }
  script_ += "\n";
}

/// Two arrows with their letters; a light line over a dark one is visible on every color.
void Script::add_compass(const Compass& compass, const Box& box) {
  constexpr double kLength = 0.09, kPlace = 0.14, kLetter = 1.35;  // of the shorter side
  const double side = std::min(box.width, box.height);
  const auto at = [&](double angle, double length) {
    return fmt::format("graph {:.6f},{:.6f}", 1 - side / box.width * (kPlace - length * std::cos(angle)),
                       side / box.height * (kPlace + length * std::sin(angle)));
  };
  int id = 1;
  for (const auto& [angle, letter] : {std::pair(compass.north, "N"), {compass.east, "E"}}) {
    for (const char* line : {"lw 3.6 lc rgb '#000000'", "lw 1.6 lc rgb '#ffffff'"})
      script_ += fmt::format("set arrow {} from {} to {} front size graph 0.02,25 filled {}\n", id++, at(angle, 0),
                             at(angle, kLength), line);
    script_ += fmt::format("set label {} '{}' at {} center front font 'DejaVu Sans Bold,{}' textcolor rgb '#ffffff'\n",
                           10 + id, letter, at(angle, kLetter * kLength), on_page_ ? kPageFont : 11);
  }
}

void Script::add_chart(const Chart& chart, const Box& box) {
  static const char* const line_colors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
  place(box);
  double x_low = HUGE_VAL, x_high = -HUGE_VAL, y_low = HUGE_VAL, y_high = 0;
  std::string plot;
  std::size_t color = 0;
  for (const Curve& curve : chart.curves) {
    const std::vector<double> points = thinned(curve);
    if (points.empty()) continue;
    for (std::size_t i = 0; i < points.size(); i += 2) {
      x_low = std::min(x_low, points[i]);
      x_high = std::max(x_high, points[i]);
      y_low = std::min(y_low, points[i + 1]);
      y_high = std::max(y_high, points[i + 1]);
    }
    const char* line_color =
        curve.dashed ? (on_page_ ? kPageInk : "#555555") : line_colors[color++ % std::size(line_colors)];
    plot += (plot.empty() ? "plot " : ", ") + data(points) +
            fmt::format(" binary record=({}) format='%2float64' using 1:2 with lines lw {} dt {} lc rgb '{}' ",
                        points.size() / 2, curve.dashed ? "1" : "1.8", curve.dashed ? 2 : 1, line_color) +
            (curve.title.empty() ? "notitle" : "title " + quoted(curve.title));
  }
  if (plot.empty()) return;
  if (!(x_high > x_low)) x_high = x_low + 1;
  const double margin = std::pow(std::max(y_high / y_low, 1.2), 0.06);
  y_low /= margin;
  y_high *= margin;
  script_ += "unset arrow\nunset object\nunset colorbox\n";
  // The range before the logarithm: that of the panel before it may be negative, and gnuplot complains.
  script_ += fmt::format("set xrange [{:.12g}:{:.12g}]; set yrange [{:.12g}:{:.12g}]\n", x_low, x_high, y_low, y_high);
  script_ += "set logscale y\n";
  script_ += tick_list("xtics out scale 0.6 nomirror", linear_ticks(x_low, x_high, 6));
  script_ += tick_list("ytics out scale 0.6 nomirror", logarithmic_ticks(y_low, y_high));
  script_ +=
      "set xlabel " + quoted(chart.x_label) + " offset 0,0.3; set ylabel " + quoted(chart.y_label) + " offset -0.4,0\n";
  script_ += "set title " + quoted(chart.title) + " offset 0,-0.4\n";
  script_ += "set grid ytics lc rgb '#a0808080' lw 0.8\nset key top right samplen 1.6 noautotitle\n";
  script_ += plot + "\nunset grid\nunset logscale y\n";
}

bool is_complete_png(const std::string& bytes) {
  static const std::string signature("\x89PNG\r\n\x1a\n"), end("IEND\xae\x42\x60\x82");
  return bytes.size() > signature.size() + end.size() && bytes.compare(0, signature.size(), signature) == 0 &&
         bytes.compare(bytes.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

ColorRange quantile_range(const std::vector<double>& values, double low, double high) {
  std::vector<double> finite = finite_values(values);
  if (finite.empty()) return {};
  const double first = quantile(finite, low);
  return {first, quantile(finite, high)};
}

ColorRange symmetric_range(const std::vector<double>& values, double q) {
  std::vector<double> finite = finite_values(values);
  if (finite.empty()) return {-1, 1};
  for (double& value : finite) value = std::abs(value);
  const double half = quantile(finite, q);
  return {-half, half};
}

DrawnPictures draw_in_memory(const std::vector<Picture>& pictures, std::chrono::milliseconds time_limit) {
  DrawnPictures drawn{std::vector<std::string>(pictures.size()), {}};
  try {
    const PrivateDirectory directory;
    Script script(directory.path());
    for (std::size_t i = 0; i < pictures.size(); ++i) script.add(pictures[i], fmt::format("{}.png", i));
    script.write();
    if (const std::string warning = run_gnuplot(directory.path(), time_limit); !warning.empty())
      drawn.warnings.push_back(warning);
    for (std::size_t i = 0; i < pictures.size(); ++i) {
      drawn.png[i] = contents(directory.path() / fmt::format("{}.png", i));
      if (!is_complete_png(drawn.png[i])) drawn.png[i].clear();
    }
  } catch (const std::exception& error) {
    // Without room for scratch files there are no figures; the results themselves are not touched by that.
    return {std::vector<std::string>(pictures.size()), {std::string("no figures were drawn: ") + error.what()}};
  }
  return drawn;
}

std::vector<std::string> draw(const std::vector<Picture>& pictures, std::chrono::milliseconds time_limit) {
  DrawnPictures drawn = draw_in_memory(pictures, time_limit);
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    if (!drawn.png[i].empty())
      write_atomically(pictures[i].path, drawn.png[i]);
    else if (drawn.warnings.empty())
      drawn.warnings.push_back(pictures[i].path + ": gnuplot did not draw it");
  }
  return std::move(drawn.warnings);
}

}  // namespace einfield
