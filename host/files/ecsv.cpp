// ECSV: a head of YAML in comment lines that begin with "# ", the names of the columns, and rows of CSV. Of the YAML
// only what describes columns is read: names, types and the delimiter.
#include "host/files/ecsv.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

constexpr std::uintmax_t kMostBytes = std::uintmax_t(1) << 31;
constexpr std::string_view kFirstLine = "# %ECSV 1.";

std::string read_all(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) throw InvalidInput(path + ": no such file");
  if (!std::filesystem::is_regular_file(status)) throw InvalidInput(path + ": not a regular file, expected a table");
  if (std::filesystem::file_size(path, error) > kMostBytes)
    throw InvalidInput(path + ": larger than 2 GB, expected a table");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InvalidInput(path + ": cannot be read (" + std::strerror(errno) + ")");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// What a column holds, as far as cells are checked.
enum class Kind { text, number, truth };

struct Description {
  std::string name;
  Kind kind = Kind::text;
};

/// Keys and values of one column in the head: "{name: a, unit: m, datatype: float64}", or a line for each key.
class ColumnEntry {
 public:
  ColumnEntry(std::string text, std::string where) : text_(std::move(text)), where_(std::move(where)) {}

  Description read() {
    text_ = trimmed(text_);
    const bool flow = !text_.empty() && text_.front() == '{';
    if (flow && text_.back() != '}') fail("a column without its closing }");
    const std::string inside = flow ? text_.substr(1, text_.size() - 2) : text_;
    std::size_t at = 0;
    while (at < inside.size()) {
      std::string pair = take(inside, at, flow ? ',' : '\n');
      const std::size_t colon = pair.find(':');
      if (trimmed(pair).empty()) continue;
      if (colon == std::string::npos) fail("no \"key: value\" in \"" + trimmed(pair) + "\"");
      values_[trimmed(pair.substr(0, colon))] = unquoted(trimmed(pair.substr(colon + 1)));
    }
    if (values_["name"].empty()) fail("a column without a name");
    if (values_.count("subtype") != 0)
      fail("column " + values_["name"] + ": found the subtype " + values_["subtype"] +
           ", expected texts, numbers or truth values");
    return {values_["name"], kind_of(values_["datatype"])};
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw InvalidInput(where_ + ": " + what); }

  /// The text up to the next separator that stands outside quotes and brackets.
  static std::string take(const std::string& text, std::size_t& at, char separator) {
    std::string part;
    char quote = 0;
    int depth = 0;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (quote == 0 && depth == 0 && c == separator) {
        ++at;
        break;
      }
      if (quote != 0) {
        if (c == '\\' && quote == '"' && at + 1 < text.size())
          part += text[at++];
        else if (c == quote)
          quote = 0;
      } else if (c == '"' || c == '\'') {
        quote = c;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        --depth;
      }
      part += text[at];
    }
    return part;
  }

  static std::string unquoted(const std::string& text) {
    if (text.size() < 2 || (text.front() != '"' && text.front() != '\'') || text.back() != text.front()) return text;
    return text.substr(1, text.size() - 2);
  }

  Kind kind_of(const std::string& type) const {
    static constexpr std::array<std::string_view, 12> kNumbers = {"int8",    "int16",   "int32",   "int64",
                                                                  "uint8",   "uint16",  "uint32",  "uint64",
                                                                  "float16", "float32", "float64", "float128"};
    if (type == "string") return Kind::text;
    if (type == "bool") return Kind::truth;
    if (std::find(kNumbers.begin(), kNumbers.end(), type) != kNumbers.end()) return Kind::number;
    fail("column " + values_.at("name") + ": found the datatype \"" + type +
         "\", expected string, bool, int8 … int64, uint8 … uint64 or float16 … float128");
  }

  std::string text_, where_;
  std::map<std::string, std::string> values_;
};

class EcsvReader {
 public:
  explicit EcsvReader(const std::string& path) : path_(path), text_(read_all(path)) {}

  TextTable read() {
    read_head();
    TextTable table;
    table.file = path_;
    std::vector<std::string> names = record();
    check_names(names);
    table.names = std::move(names);
    while (at_ < text_.size()) {
      const std::size_t line = line_;
      if (blank_line()) continue;
      table.rows.push_back(record());
      table.lines.push_back(line);
      check_row(table.rows.back(), line);
    }
    return table;
  }

 private:
  [[noreturn]] void fail(std::size_t line, const std::string& what) const {
    throw InvalidInput(path_ + ":" + std::to_string(line) + ": " + what);
  }

  std::string next_line() {
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string line = text_.substr(at_, end - at_);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    at_ = std::min(end + 1, text_.size());
    ++line_;
    return line;
  }

  bool blank_line() {
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    if (!trimmed(text_.substr(at_, end - at_)).empty()) return false;
    next_line();
    return true;
  }

  void read_head() {
    if (text_.compare(0, kFirstLine.size(), kFirstLine) != 0)
      fail(1, "not ECSV, expected a first line \"# %ECSV 1.0\" (Astropy: table.write(\"" +
                  std::filesystem::path(path_).filename().string() + "\", format=\"ascii.ecsv\"))");
    next_line();
    std::string section, entry;
    std::size_t entry_line = 0;
    const auto finish = [&] {
      if (entry_line > 0) columns_.push_back(ColumnEntry(entry, path_ + ":" + std::to_string(entry_line)).read());
      entry_line = 0;
    };
    while (at_ < text_.size() && text_[at_] == '#') {
      const std::size_t number = line_;
      std::string line = next_line().substr(1);
      if (!line.empty() && line.front() == ' ') line.erase(0, 1);
      if (trimmed(line).empty() || line == "---") continue;
      if (line.front() != ' ' && line.front() != '-') {
        finish();
        section = trimmed(line.substr(0, line.find(':')));
        read_key(section, trimmed(line.substr(std::min(line.find(':') + 1, line.size()))), number);
      } else if (section == "datatype") {
        const std::string bare = trimmed(line);
        if (line.front() == '-' || (bare.front() == '-' && bare.size() > 1 && bare[1] == ' ')) {
          finish();
          entry = bare.substr(1);
          entry_line = number;
        } else {
          entry += entry.find('{') != std::string::npos ? " " + bare : "\n" + bare;
        }
      } else if (section != "meta") {
        fail(number, "no line of a head of ECSV, found \"" + trimmed(line) + "\", expected \"datatype:\" before it");
      }
    }
    finish();
    if (columns_.empty()) fail(line_, "no columns in the head, expected \"# datatype:\" with one line for each");
  }

  void read_key(const std::string& key, const std::string& value, std::size_t line) {
    if (key == "delimiter") {
      const std::string text = value.size() == 3 ? value.substr(1, 1) : value;
      if (text != "," && text != " ") fail(line, "delimiter: found " + value + R"(, expected ' ' or ',')");
      delimiter_ = text[0];
    } else if (key != "datatype" && key != "meta" && key != "schema") {
      fail(line, "no key of a head of ECSV, found " + key + ", expected " +
                     suggestion(key, {"datatype", "delimiter", "meta", "schema"}));
    }
  }

  /// The cells of the next row, which may span several lines inside quotes.
  std::vector<std::string> record() {
    const std::size_t first = line_;
    std::vector<std::string> cells;
    std::string cell;
    bool quoted = false, any = false;
    const auto end_of_cell = [&](bool at_end) {
      // Blanks before and after a cell do not count where blanks separate cells.
      if (any || delimiter_ == ',') cells.push_back(quoted_cell_ ? cell : trimmed(cell));
      if (at_end && !any && delimiter_ == ',' && cells.size() == 1) cells.clear();
      cell.clear();
      any = quoted_cell_ = false;
    };
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (quoted) {
        if (c == '"' && at_ + 1 < text_.size() && text_[at_ + 1] == '"')
          cell += text_[++at_];
        else if (c == '"')
          quoted = false;
        else
          cell += c;
        line_ += c == '\n';
      } else if (c == '"' && trimmed(cell).empty()) {
        cell.clear();
        quoted = any = quoted_cell_ = true;
      } else if (c == delimiter_) {
        end_of_cell(false);
      } else if (c == '\n') {
        break;
      } else if (c != '\r') {
        cell += c;
        any |= c != ' ' && c != '\t';
      }
    }
    if (quoted) fail(first, "a text without its closing \"");
    end_of_cell(true);
    at_ = std::min(at_ + 1, text_.size());
    ++line_;
    return cells;
  }

  void check_names(const std::vector<std::string>& names) {
    std::vector<std::string> expected;
    for (const Description& column : columns_) expected.push_back(column.name);
    if (names != expected)
      fail(line_ - 1, "other columns than in the head, found " + joined(names) + ", expected " + joined(expected));
  }

  /// Checks the cells of a row against the types of their columns; a missing value becomes "".
  void check_row(std::vector<std::string>& cells, std::size_t line) const {
    if (cells.size() != columns_.size())
      fail(line, "found " + std::to_string(cells.size()) + " cells, expected " + std::to_string(columns_.size()));
    for (std::size_t i = 0; i < cells.size(); ++i) {
      std::string& cell = cells[i];
      const Description& column = columns_[i];
      if (cell.empty() || column.kind == Kind::text) continue;
      const auto refuse = [&](const std::string& expected) {
        fail(line, "column " + column.name + ": found \"" + cell + "\", expected " + expected);
      };
      if (column.kind == Kind::truth) {
        if (cell != "True" && cell != "False") refuse("True or False");
        cell = cell == "True" ? "true" : "false";
        continue;
      }
      const std::optional<double> number = parse_number<double>(cell.front() == '+' ? cell.substr(1) : cell);
      if (!number) refuse("a number");
      if (std::isnan(*number)) cell.clear();
    }
  }

  std::string path_, text_;
  std::size_t at_ = 0, line_ = 1;
  char delimiter_ = ' ';
  bool quoted_cell_ = false;
  std::vector<Description> columns_;
};

/// A text as YAML in double quotes.
std::string yaml_text(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return result + "\"";
}

/// A cell of CSV, in quotes where it needs them.
std::string csv_text(const std::string& text) {
  if (!text.empty() && text.find_first_of(",\"\n\r# ") == std::string::npos) return text;
  if (text.empty()) return "";
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"') result += '"';
    result += c == '\n' || c == '\r' ? ' ' : c;
  }
  return result + "\"";
}

std::string cell_text(const TableColumn& column, std::size_t row) {
  if (const auto* texts = std::get_if<std::vector<std::string>>(&column.values)) return csv_text((*texts)[row]);
  if (const auto* numbers = std::get_if<std::vector<double>>(&column.values)) return to_text((*numbers)[row]);
  return to_text(std::get<std::vector<std::int64_t>>(column.values)[row]);
}

}  // namespace

TextTable read_ecsv(const std::string& path) {
  return EcsvReader(path).read();
}

void write_ecsv(const std::string& path, const Table& table) {
  std::string text = "# %ECSV 1.0\n# ---\n# delimiter: ','\n# datatype:\n";
  for (const TableColumn& column : table.columns) {
    const char* const types[] = {"string", "float64", "int64"};
    text += "# - {name: " + yaml_text(column.name);
    if (!column.unit.empty()) text += ", unit: " + yaml_text(column.unit);
    text += std::string(", datatype: ") + types[column.values.index()];
    if (!column.description.empty()) text += ", description: " + yaml_text(column.description);
    text += "}\n";
  }
  if (!table.cards.empty()) text += "# meta: !!omap\n";
  for (const auto& [key, value] : table.cards) text += "# - {" + yaml_text(key) + ": " + yaml_text(value) + "}\n";
  text += "# schema: astropy-2.0\n";
  for (std::size_t i = 0; i < table.columns.size(); ++i) text += (i > 0 ? "," : "") + csv_text(table.columns[i].name);
  text += "\n";
  for (std::size_t row = 0; row < table.rows(); ++row) {
    for (std::size_t i = 0; i < table.columns.size(); ++i) {
      if (i > 0) text += ',';
      text += cell_text(table.columns[i], row);
    }
    text += "\n";
  }
  write_atomically(path, text);
}

}  // namespace einfield
