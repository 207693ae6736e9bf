// Evaluates the stored model at the points of a table or of a grid, and writes a table or maps.
#include "host/app/evaluate.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>
#include <vector>

#include "einfield/error.hpp"
#include "einfield/grid.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"
#include "host/results/fits_maps.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

/// Largest table of points: about ten million rows with some other columns.
constexpr std::uintmax_t kMaxBytes = std::uintmax_t(1) << 30;

constexpr const char* kColumns[] = {"psi",       "alpha_x",       "alpha_y",       "kappa",
                                    "psi_macro", "alpha_x_macro", "alpha_y_macro", "kappa_macro"};

/// The content of a field, without surrounding white space and quotes.
std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

/// Splits at commas outside quotes; nothing if a quote is not closed.
std::optional<std::vector<std::string_view>> split(std::string_view line) {
  std::vector<std::string_view> fields;
  bool quoted = false;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"') quoted = !quoted;
    if (line[i] != ',' || quoted) continue;
    fields.push_back(trimmed(line.substr(begin, i - begin)));
    begin = i + 1;
  }
  fields.push_back(trimmed(line.substr(begin)));
  if (quoted) return std::nullopt;
  return fields;
}

/// A field for a message: printable and shortened.
std::string shown(std::string_view field) {
  std::string text(field.substr(0, 40));
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return "'" + text + (field.size() > 40 ? "..." : "") + "'";
}

/// A table of points: its unchanged lines, and the positions.
class Table {
 public:
  explicit Table(const std::string& path) : path_(path) {
    const fs::file_status status = fs::status(path);
    EINFIELD_REQUIRE(fs::exists(status), path + ": no such file");
    EINFIELD_REQUIRE(!fs::is_directory(status), path + ": a directory, expected a CSV file");
    EINFIELD_REQUIRE(fs::is_regular_file(status) || fs::is_fifo(status), path + ": a device, expected a CSV file");
    const std::string too_large =
        path + ": too large, expected a CSV file of at most " + std::to_string(kMaxBytes) + " bytes";
    EINFIELD_REQUIRE(!fs::is_regular_file(status) || fs::file_size(path) <= kMaxBytes, too_large);
    std::ifstream file(path, std::ios::binary);
    EINFIELD_REQUIRE(file, path + ": cannot be read");
    for (std::array<char, 1 << 16> block; file && text_.size() <= kMaxBytes;) {
      file.read(block.data(), block.size());
      text_.append(block.data(), static_cast<std::size_t>(file.gcount()));
    }
    EINFIELD_REQUIRE(!file.bad(), path + ": cannot be read");
    EINFIELD_REQUIRE(text_.size() <= kMaxBytes, too_large);

    std::string_view rest = text_;
    if (rest.substr(0, 3) == "\xEF\xBB\xBF") rest.remove_prefix(3);  // byte order mark, which Excel writes
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      std::string_view line = rest.substr(0, end);
      rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      lines_.push_back(line);
    }
    while (!lines_.empty() && trimmed(lines_.back()).empty()) lines_.pop_back();
    EINFIELD_REQUIRE(!lines_.empty(), path + ": empty, expected a header with the columns x and y");
    read_header();
    read_positions();
  }

  const std::vector<double>& theta() const { return theta_; }
  std::size_t rows() const { return lines_.size() - 1; }
  std::string_view header() const { return lines_[0]; }
  std::string_view row(std::size_t i) const { return lines_[i + 1]; }

 private:
  [[noreturn]] void fail(std::size_t line, const std::string& message) const {
    throw InvalidInput(path_ + ":" + std::to_string(line + 1) + ": " + message);
  }

  std::vector<std::string_view> fields_of(std::size_t line) const {
    const auto fields = split(lines_[line]);
    if (!fields) fail(line, "a quote is not closed");
    return *fields;
  }

  void read_header() {
    const std::vector<std::string_view> names = fields_of(0);
    columns_ = names.size();
    for (std::size_t i = 0; i < names.size(); ++i) {
      for (const char* added : kColumns)
        if (names[i] == added)
          fail(0, "has a column " + std::string(added) + " already, expected x, y and columns of other names");
      for (const auto& [name, index] : {std::pair<const char*, std::optional<std::size_t>*>{"x", &x_}, {"y", &y_}}) {
        if (names[i] != name) continue;
        if (*index) fail(0, "two columns " + std::string(name));
        *index = i;
      }
    }
    if (!x_ || !y_) fail(0, "no column " + std::string(x_ ? "y" : "x") + " in the header, expected x and y in arcsec");
  }

  void read_positions() {
    theta_.resize(2 * rows());
    for (std::size_t i = 0; i < rows(); ++i) {
      const std::vector<std::string_view> fields = fields_of(i + 1);
      if (fields.size() != columns_)
        fail(i + 1, std::to_string(fields.size()) + (fields.size() == 1 ? " field" : " fields") + ", expected " +
                        std::to_string(columns_));
      theta_[i] = position(i + 1, "x", fields[*x_]);
      theta_[rows() + i] = position(i + 1, "y", fields[*y_]);
    }
  }

  double position(std::size_t line, const char* name, std::string_view field) const {
    const std::string_view digits = field.substr(0, 1) == "+" && field.substr(1, 1) != "-" ? field.substr(1) : field;
    const std::optional<double> value = parse_number<double>(digits);
    if (!value || !std::isfinite(*value))
      fail(line, std::string(name) + ": " + shown(field) + ", expected a number in arcsec");
    return *value;
  }

  std::string path_, text_;
  std::vector<std::string_view> lines_;
  std::size_t columns_ = 0;
  std::optional<std::size_t> x_, y_;
  std::vector<double> theta_;
};

}  // namespace

void evaluate_points(const std::string& dir, const std::string& points, const std::string& out, std::ostream& stream) {
  const StoredLens lens = read_lens(dir);
  const Table table(points);
  const StoredFields fields = evaluate(lens, table.theta());
  std::string text(table.header());
  for (const char* name : kColumns) text.append(1, ',').append(name);
  text += '\n';
  const std::size_t n = table.rows();
  for (std::size_t i = 0; i < n; ++i) {
    text += table.row(i);
    const LensFields &network = fields.network, &smooth = fields.smooth;
    for (const double v :
         {network.potential[i], network.deflection[i], network.deflection[n + i], network.convergence[i]})
      text.append(1, ',').append(lens.double_precision ? to_text(v) : to_text(static_cast<float>(v)));
    for (const double v : {smooth.potential[i], smooth.deflection[i], smooth.deflection[n + i], smooth.convergence[i]})
      text.append(1, ',').append(to_text(v));
    text += '\n';
  }
  if (!out.empty()) {
    write_atomically(out, text);
    return;
  }
  stream << text << std::flush;
  if (!stream) throw IoError("stdout: cannot write");
}

void evaluate_grid(const std::string& dir, int nx, int ny, double pixel_scale, const std::string& out) {
  EINFIELD_REQUIRE(nx >= 1 && ny >= 1 && nx <= kMaxImageSide && ny <= kMaxImageSide,
                   "a grid of " + std::to_string(nx) + " x " + std::to_string(ny) + " pixels, expected 1 to " +
                       std::to_string(kMaxImageSide) + " per side");
  EINFIELD_REQUIRE(std::isfinite(pixel_scale) && pixel_scale > 0,
                   "pixel_scale = " + to_text(pixel_scale) + " arcsec, expected > 0");
  const StoredLens lens = read_lens(dir);
  const Grid grid{nx, ny, pixel_scale, lens.grid.center_x, lens.grid.center_y, 1};
  const StoredFields fields = evaluate(lens, pixel_centers(grid));
  FitsMaps maps(grid, lens.double_precision, lens.sky ? std::optional(lens.sky->on(lens.grid, grid)) : std::nullopt);
  maps.add_fields("NN", fields.network);
  maps.add_fields("MACRO", fields.smooth);
  write_fits(out.empty() ? (fs::path(dir) / "evaluate.fits").string() : out, maps.hdus());
}

}  // namespace einfield
