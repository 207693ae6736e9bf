// Binary tables, FITS standard 4.0 (2018), section 7.3.
#include "host/files/fits_table.hpp"

#include <fitsio.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_file.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

constexpr LONGLONG kMostRows = 10'000'000;
constexpr int kMostColumns = 999;  ///< of the standard
constexpr LONGLONG kLongestText = 100'000;

/// Reads the columns of the current table, one after the other.
class TableReader {
 public:
  TableReader(FitsReader& file, std::string where) : file_(file), where_(std::move(where)) {}

  TextTable read() {
    int columns = 0, status = 0;
    LONGLONG rows = 0;
    fits_get_num_rowsll(file_.get(), &rows, &status);
    fits_get_num_cols(file_.get(), &columns, &status);
    check(status);
    if (rows > kMostRows)
      throw InvalidInput(where_ + "too large, found " + std::to_string(rows) + " rows, expected at most " +
                         std::to_string(kMostRows));
    if (columns < 1 || columns > kMostColumns)
      throw InvalidInput(where_ + "a table of " + std::to_string(columns) + " columns, expected 1 to " +
                         std::to_string(kMostColumns));
    rows_ = rows;
    TextTable table;
    table.rows.resize(static_cast<std::size_t>(rows));
    for (int column = 1; column <= columns; ++column) {
      table.names.push_back(trimmed(file_.text("TTYPE" + std::to_string(column))));
      const std::vector<std::string> cells = read_column(column, table.names.back());
      for (std::size_t i = 0; i < cells.size(); ++i) table.rows[i].push_back(cells[i]);
    }
    return table;
  }

 private:
  void check(int status) const {
    if (status != 0) throw InvalidInput(where_ + "damaged, the table cannot be read (" + fits_reason(status) + ")");
  }

  std::vector<std::string> read_column(int column, const std::string& name) const {
    int type = 0, status = 0;
    LONGLONG repeat = 0, width = 0;
    // The type that a column has once TSCAL and TZERO are applied.
    fits_get_eqcoltypell(file_.get(), column, &type, &repeat, &width, &status);
    check(status);
    const std::string about = where_ + "column " + (name.empty() ? std::to_string(column) : name) + ": ";
    const bool several = type == TSTRING ? repeat > width : repeat != 1;
    if (type == TSTRING && !several) return texts(column, about, width);
    if (type < 0 || several)
      throw InvalidInput(about + "found " +
                         (type < 0 ? "arrays of varying length" : std::to_string(repeat) + " values") +
                         " in a row, expected one");
    switch (type) {
      case TLOGICAL:
        return truths(column);
      case TFLOAT:
        return numbers<float>(column, TFLOAT);
      case TDOUBLE:
        return numbers<double>(column, TDOUBLE);
      case TBYTE:
      case TSBYTE:
      case TSHORT:
      case TUSHORT:
      case TINT:
      case TUINT:
      case TLONG:
      case TULONG:
      case TLONGLONG:
        return integers(column);
      default:
        throw InvalidInput(about + "found complex numbers or bits, expected texts, numbers or truth values");
    }
  }

  std::vector<std::string> texts(int column, const std::string& about, LONGLONG width) const {
    if (width > kLongestText)
      throw InvalidInput(about + "found texts of " + std::to_string(width) + " characters, expected at most " +
                         std::to_string(kLongestText));
    std::vector<std::string> cells;
    std::vector<char> buffer(static_cast<std::size_t>(width) + 1);
    char* cell = buffer.data();
    char missing[] = "";
    for (LONGLONG row = 1; row <= rows_; ++row) {
      int any = 0, status = 0;
      fits_read_col(file_.get(), TSTRING, column, row, 1, 1, missing, &cell, &any, &status);
      check(status);
      cells.push_back(trimmed(cell));
    }
    return cells;
  }

  std::vector<std::string> truths(int column) const {
    const auto n = static_cast<std::size_t>(rows_);
    const auto values = std::make_unique<char[]>(n);
    const auto missing = std::make_unique<char[]>(n);
    int any = 0, status = 0;
    fits_read_colnull(file_.get(), TLOGICAL, column, 1, 1, rows_, values.get(), missing.get(), &any, &status);
    check(status);
    std::vector<std::string> cells;
    for (std::size_t i = 0; i < n; ++i) cells.emplace_back(missing[i] ? "" : values[i] ? "true" : "false");
    return cells;
  }

  template <class Number>
  std::vector<std::string> numbers(int column, int type) const {
    std::vector<Number> values(static_cast<std::size_t>(rows_));
    int any = 0, status = 0;
    fits_read_col(file_.get(), type, column, 1, 1, rows_, nullptr, values.data(), &any, &status);
    check(status);
    std::vector<std::string> cells;
    for (const Number value : values) cells.push_back(std::isnan(value) ? "" : to_text(value));
    return cells;
  }

  std::vector<std::string> integers(int column) const {
    const auto n = static_cast<std::size_t>(rows_);
    std::vector<LONGLONG> values(n);
    std::vector<char> missing(n);
    int any = 0, status = 0;
    fits_read_colnull(file_.get(), TLONGLONG, column, 1, 1, rows_, values.data(), missing.data(), &any, &status);
    check(status);
    std::vector<std::string> cells;
    for (std::size_t i = 0; i < n; ++i) cells.push_back(missing[i] ? "" : std::to_string(values[i]));
    return cells;
  }

  FitsReader& file_;
  std::string where_;
  LONGLONG rows_ = 0;
};

/// TFORM of a column.
std::string form_of(const TableColumn& column) {
  if (const auto* texts = std::get_if<std::vector<std::string>>(&column.values)) {
    std::size_t longest = 1;
    for (const std::string& text : *texts) longest = std::max(longest, text.size());
    return std::to_string(longest) + "A";
  }
  return std::holds_alternative<std::vector<double>>(column.values) ? "D" : "K";
}

/// Writes n rows of a column, from row `first` on, from 0.
void write_rows(FitsMemoryFile& file, int index, const TableColumn& column, std::size_t first, std::size_t n) {
  const auto row = static_cast<LONGLONG>(first) + 1, count = static_cast<LONGLONG>(n);
  int status = 0;
  if (const auto* texts = std::get_if<std::vector<std::string>>(&column.values)) {
    std::vector<char*> pointers;
    for (std::size_t i = first; i < first + n; ++i) pointers.push_back(const_cast<char*>((*texts)[i].c_str()));
    fits_write_col(file.get(), TSTRING, index, row, 1, count, pointers.data(), &status);
  } else if (const auto* numbers = std::get_if<std::vector<double>>(&column.values)) {
    fits_write_col(file.get(), TDOUBLE, index, row, 1, count, const_cast<double*>(numbers->data() + first), &status);
  } else {
    std::vector<LONGLONG> values;
    for (std::size_t i = first; i < first + n; ++i)
      values.push_back(std::get<std::vector<std::int64_t>>(column.values)[i]);
    fits_write_col(file.get(), TLONGLONG, index, row, 1, count, values.data(), &status);
  }
  file.check(status);
}

}  // namespace

std::string TextTable::place(std::size_t row) const {
  return lines.empty() ? file + " row " + std::to_string(row + 1) : file + ":" + std::to_string(lines.at(row));
}

std::size_t Table::rows() const {
  return columns.empty() ? 0 : std::visit([](const auto& values) { return values.size(); }, columns.front().values);
}

TextTable read_fits_table(const std::string& path, const std::string& hdu_name) {
  const auto turn = turn_of_cfitsio();
  FitsReader file(path);
  file.require_plain();
  const FitsHdu& hdu = file.choose_table(hdu_name);
  const std::string name = path + "[" + hdu.label() + "]";
  if (hdu.image) throw InvalidInput(name + ": an image, expected a table");
  file.require_bytes(hdu, hdu.end);
  TextTable table = TableReader(file, name + ": ").read();
  table.file = name;
  return table;
}

void write_fits_table(const std::string& path, const Table& table) {
  const auto bytes_of_file = [&] {
    const auto turn = turn_of_cfitsio();
    FitsMemoryFile file(path);
    std::vector<std::string> forms;
    std::vector<char*> types, formats, units;
    for (const TableColumn& column : table.columns) forms.push_back(form_of(column));
    for (std::size_t i = 0; i < forms.size(); ++i) {
      types.push_back(const_cast<char*>(table.columns[i].name.c_str()));
      formats.push_back(forms[i].data());
      units.push_back(const_cast<char*>(table.columns[i].unit.c_str()));
    }
    int status = 0;
    file.check(fits_create_tbl(file.get(), BINARY_TBL, static_cast<LONGLONG>(table.rows()),
                               static_cast<int>(forms.size()), types.data(), formats.data(), units.data(),
                               table.name.c_str(), &status));
    for (const auto& [key, value] : table.cards) file.key(key, value);
    for (std::size_t i = 0; i < forms.size(); ++i)
      if (const std::string& text = table.columns[i].description; !text.empty())
        file.key("TCOMM" + std::to_string(i + 1), text);
    file.begin_data(2);  // the first one is empty
    // As many rows at a time as CFITSIO has buffers for: column after column, it would go through the whole file for
    // each.
    long block = 0;
    file.check(fits_get_rowsize(file.get(), &block, &status));
    const std::size_t rows = table.rows(), most = static_cast<std::size_t>(std::max(block, 1L));
    for (std::size_t first = 0; first < rows; first += most)
      for (std::size_t i = 0; i < forms.size(); ++i)
        write_rows(file, static_cast<int>(i) + 1, table.columns[i], first, std::min(most, rows - first));
    return std::string(file.bytes());
  };
  // Twice alike, as in write_fits().
  const std::string bytes = bytes_of_file();
  if (bytes_of_file() != bytes) throw IoError(path + ": cannot be written (out of memory)");
  write_atomically(path, bytes);
}

}  // namespace einfield
