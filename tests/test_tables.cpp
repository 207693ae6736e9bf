// Tables that are read and written: ECSV and FITS.
#include <fitsio.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "einfield/error.hpp"
#include "host/files/ecsv.hpp"
#include "host/files/fits_table.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

using Rows = std::vector<std::vector<std::string>>;

/// The message of what a call throws; "" when it throws nothing.
std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "";
}

constexpr const char* kHead =
    "# %ECSV 1.0\n"
    "# ---\n"
    "# datatype:\n"
    "# - {name: id, datatype: string}\n"
    "# - {name: scale, unit: arcsec, datatype: float64, description: 'side, of a pixel'}\n"
    "# - {name: used, datatype: bool}\n"
    "# schema: astropy-2.0\n";

TEST(Ecsv, IsReadAsAstropyWritesIt) {
  const TemporaryDirectory folder;
  const TextTable table = read_ecsv(folder.write("a.ecsv", std::string(kHead) + "id scale used\n"
                                                                                "one 0.05 True\n"
                                                                                "\"a \"\"b\"\"\" 1e-3 False\n"
                                                                                "\n"
                                                                                "\"\" nan \"\"\n"));
  EXPECT_EQ(table.names, (std::vector<std::string>{"id", "scale", "used"}));
  EXPECT_EQ(table.rows, (Rows{{"one", "0.05", "true"}, {"a \"b\"", "1e-3", "false"}, {"", "", ""}}));
  EXPECT_EQ(table.lines, (std::vector<std::size_t>{9, 10, 12}));
  EXPECT_EQ(table.place(2), folder / "a.ecsv:12");
  // Columns described over several lines, other data in the head, commas, and a last line without its end.
  const TextTable other = read_ecsv(folder.write("b.ecsv",
                                                 "# %ECSV 1.0\r\n"
                                                 "# ---\r\n"
                                                 "# delimiter: ','\r\n"
                                                 "# datatype:\r\n"
                                                 "# -\r\n"
                                                 "#   name: lens.0.theta_E\r\n"
                                                 "#   datatype: float32\r\n"
                                                 "# - {name: 'with, comma', datatype: string, meta: {a: [1, 2]},\r\n"
                                                 "#   description: two lines}\r\n"
                                                 "# meta: !!omap\r\n"
                                                 "# - comments: [a, b]\r\n"
                                                 "lens.0.theta_E,\"with, comma\"\r\n"
                                                 "1.5,\"two\nlines\"\r\n"
                                                 ",plain text"));
  EXPECT_EQ(other.names, (std::vector<std::string>{"lens.0.theta_E", "with, comma"}));
  EXPECT_EQ(other.rows, (Rows{{"1.5", "two\nlines"}, {"", "plain text"}}));
  EXPECT_EQ(other.lines, (std::vector<std::size_t>{13, 15}));
}

TEST(Ecsv, WhatItIsNotIsSaidWithItsLine) {
  const TemporaryDirectory folder;
  const auto refused = [&](const std::string& text) {
    const std::string path = folder.write("a.ecsv", text);
    std::string message = message_of([&] { read_ecsv(path); });
    return message.rfind(path, 0) == 0 ? message.substr(path.size()) : message;
  };
  const std::string head = kHead;
  EXPECT_EQ(refused("id,scale\n1,2\n"),
            ":1: not ECSV, expected a first line \"# %ECSV 1.0\" (Astropy: table.write(\"a.ecsv\", "
            "format=\"ascii.ecsv\"))");
  EXPECT_EQ(refused(head + "id used scale\n"),
            ":8: other columns than in the head, found id, used, scale, expected id, scale, used");
  EXPECT_EQ(refused(head + "id scale used\none 0.05\n"), ":9: found 2 cells, expected 3");
  EXPECT_EQ(refused(head + "id scale used\none small True\n"), ":9: column scale: found \"small\", expected a number");
  EXPECT_EQ(refused(head + "id scale used\none 1 yes\n"), ":9: column used: found \"yes\", expected True or False");
  EXPECT_EQ(refused(head + "id scale used\n\"one 1 True\n"), ":9: a text without its closing \"");
  EXPECT_EQ(refused("# %ECSV 1.0\n# ---\n# delimiter: ';'\n"), ":3: delimiter: found ';', expected ' ' or ','");
  EXPECT_EQ(refused("# %ECSV 1.0\n# ---\n# datatypes:\n"),
            ":3: no key of a head of ECSV, found datatypes, expected datatype");
  EXPECT_EQ(refused("# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: string, subtype: json}\na\n"),
            ":4: column a: found the subtype json, expected texts, numbers or truth values");
  EXPECT_EQ(refused("# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: complex128}\na\n"),
            ":4: column a: found the datatype \"complex128\", expected string, bool, int8 … int64, uint8 … uint64 or "
            "float16 … float128");
  EXPECT_EQ(refused("# %ECSV 1.0\n# ---\n# datatype:\n# - {datatype: string}\na\n"), ":4: a column without a name");
  EXPECT_EQ(refused("# %ECSV 1.0\n# ---\na\n"),
            ":3: no columns in the head, expected \"# datatype:\" with one line for each");
  EXPECT_EQ(message_of([&] { read_ecsv(folder / "none.ecsv"); }), folder / "none.ecsv: no such file");
}

/// All kinds of columns, with what is hard to write.
Table a_table() {
  Table table;
  table.name = "LENSES";
  table.columns = {
      {"id", "", "name, of the \"lens\"", std::vector<std::string>{"one", "", "with \"quotes\", and more"}},
      {"lens.0.theta_E", "arcsec", "", std::vector<double>{0.1, std::nan(""), 1.0 / 3}},
      {"flags", "", "bits", std::vector<std::int64_t>{0, std::int64_t(1) << 62, -7}}};
  table.cards = {{"CREATOR", "einfield"}};
  return table;
}
const Rows kItsText = {
    {"one", "0.1", "0"}, {"", "", "4611686018427387904"}, {"with \"quotes\", and more", "0.3333333333333333", "-7"}};

TEST(Ecsv, IsReadBackToTheSameNumbers) {
  const TemporaryDirectory folder;
  write_ecsv(folder / "a.ecsv", a_table());
  const TextTable table = read_ecsv(folder / "a.ecsv");
  EXPECT_EQ(table.names, (std::vector<std::string>{"id", "lens.0.theta_E", "flags"}));
  EXPECT_EQ(table.rows, kItsText);
  const std::string first = folder.read("a.ecsv");
  write_ecsv(folder / "a.ecsv", a_table());
  EXPECT_EQ(folder.read("a.ecsv"), first);
}

TEST(FitsTable, IsReadBackToTheSameNumbers) {
  const TemporaryDirectory folder;
  write_fits_table(folder / "a.fits", a_table());
  const TextTable table = read_fits_table(folder / "a.fits", "");
  EXPECT_EQ(table.names, (std::vector<std::string>{"id", "lens.0.theta_E", "flags"}));
  EXPECT_EQ(table.rows, kItsText);
  EXPECT_EQ(table.place(1), folder / "a.fits[LENSES] row 2");
  const std::string first = folder.read("a.fits");
  write_fits_table(folder / "a.fits", a_table());
  EXPECT_EQ(folder.read("a.fits"), first);
}

/// A table by CFITSIO itself, as other programs write one.
class Foreign {
 public:
  Foreign(const std::string& path, std::vector<std::string> names, std::vector<std::string> forms,
          int kind = BINARY_TBL) {
    int status = 0;
    fits_create_file(&file_, path.c_str(), &status);
    std::vector<char*> types, formats;
    for (std::string& name : names) types.push_back(name.data());
    for (std::string& form : forms) formats.push_back(form.data());
    fits_create_tbl(file_, kind, 2, static_cast<int>(names.size()), types.data(), formats.data(), nullptr, nullptr,
                    &status);
    EXPECT_EQ(status, 0);
  }
  ~Foreign() {
    int status = 0;
    fits_close_file(file_, &status);
    EXPECT_EQ(status, 0);
  }
  template <class Value>
  void write(int type, int column, std::vector<Value> values) {
    int status = 0;
    fits_write_col(file_, type, column, 1, 1, static_cast<LONGLONG>(values.size()), values.data(), &status);
    EXPECT_EQ(status, 0);
  }
  fitsfile* get() { return file_; }

 private:
  fitsfile* file_ = nullptr;
};

TEST(FitsTable, TypesOfOtherPrograms) {
  const TemporaryDirectory folder;
  {
    Foreign file(folder / "a.fits", {"f", "i", "b", "s", "scaled"}, {"E", "J", "L", "6A", "I"});
    file.write<float>(TFLOAT, 1, {0.1f, NAN});
    long missing = -99;
    int status = 0;
    fits_update_key(file.get(), TLONG, "TNULL2", &missing, nullptr, &status);
    double scale = 0.5;
    fits_update_key(file.get(), TDOUBLE, "TSCAL5", &scale, nullptr, &status);
    fits_set_hdustruc(file.get(), &status);
    EXPECT_EQ(status, 0);
    file.write<int>(TINT, 2, {7, -99});
    file.write<char>(TLOGICAL, 3, {1, 0});
    char one[] = "abc", two[] = "";
    file.write<char*>(TSTRING, 4, {one, two});
    file.write<double>(TDOUBLE, 5, {1.5, 2});
  }
  EXPECT_EQ(read_fits_table(folder / "a.fits", "1").rows,
            (Rows{{"0.1", "7", "true", "abc", "1.5"}, {"", "", "false", "", "2"}}));
  {
    Foreign file(folder / "b.fits", {"x", "name"}, {"F8.3", "A4"}, ASCII_TBL);
    file.write<double>(TDOUBLE, 1, {1.25, -3});
    char one[] = "a", two[] = "b";
    file.write<char*>(TSTRING, 2, {one, two});
  }
  EXPECT_EQ(read_fits_table(folder / "b.fits", "").rows, (Rows{{"1.25", "a"}, {"-3", "b"}}));
}

TEST(FitsTable, WhatIsNoTableOfSingleValuesIsRefused) {
  const TemporaryDirectory folder;
  { const Foreign file(folder / "a.fits", {"v"}, {"3D"}); }
  EXPECT_EQ(message_of([&] { read_fits_table(folder / "a.fits", ""); }),
            folder / "a.fits[1]: column v: found 3 values in a row, expected one");
  { const Foreign file(folder / "b.fits", {"v"}, {"PD"}); }
  EXPECT_EQ(message_of([&] { read_fits_table(folder / "b.fits", ""); }),
            folder / "b.fits[1]: column v: found arrays of varying length in a row, expected one");
  { const Foreign file(folder / "c.fits", {"v"}, {"C"}); }
  EXPECT_EQ(message_of([&] { read_fits_table(folder / "c.fits", ""); }),
            folder / "c.fits[1]: column v: found complex numbers or bits, expected texts, numbers or truth values");
  { const Foreign file(folder / "d.fits", {"v"}, {"12A4"}); }
  EXPECT_EQ(message_of([&] { read_fits_table(folder / "d.fits", ""); }),
            folder / "d.fits[1]: column v: found 12 values in a row, expected one");
  EXPECT_EQ(message_of([&] { read_fits_table(folder / "a.fits", "0"); }),
            folder / "a.fits[PRIMARY]: an image, expected a table");
  EXPECT_EQ(message_of([&] { read_fits_table(folder / "a.fits", "LENSES"); }),
            folder / "a.fits[LENSES]: no such HDU, expected one of PRIMARY (no data), 1 (a table)");
  // Cut short by half.
  write_fits_table(folder / "whole.fits", a_table());
  const std::string whole = folder.read("whole.fits");
  folder.write("half.fits", whole.substr(0, whole.size() - 1000));
  EXPECT_NE(message_of([&] { read_fits_table(folder / "half.fits", ""); }).find("truncated"), std::string::npos);
}

}  // namespace
}  // namespace einfield
