// Tables as files hold them: cells that were read, as text, and typed columns to be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

namespace einfield {

/// A table that was read. Numbers are the shortest text that reads back as the same number of the file's type; truth
/// values are "true" and "false"; "" stands for a missing value, NaN included.
struct TextTable {
  std::string file;                            ///< for messages: "FILE" or "FILE[HDU]"
  std::vector<std::string> names;              ///< of the columns; each occurs once
  std::vector<std::vector<std::string>> rows;  ///< cells in the order of `names`
  std::vector<std::size_t> lines;              ///< of ECSV: where each row begins, from 1; empty for FITS

  /// "FILE:LINE" or "FILE[HDU] row N", from 1.
  std::string place(std::size_t row) const;
};

/// A column of a table to be written.
struct TableColumn {
  std::string name;
  std::string unit;         ///< "" = none
  std::string description;  ///< a sentence; "" = none
  /// One value a row. NaN stands for a missing number, "" for a missing text.
  std::variant<std::vector<std::string>, std::vector<double>, std::vector<std::int64_t>> values;
};

struct Table {
  std::string name;  ///< EXTNAME
  std::vector<TableColumn> columns;
  std::vector<std::pair<std::string, std::string>> cards;  ///< keywords and texts of the head

  std::size_t rows() const;
};

}  // namespace einfield
