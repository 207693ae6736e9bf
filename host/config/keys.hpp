// Tables of keys: the keys of a table of the configuration, each bound to the variable that it sets. Reading with all
// checks, the list for users and the written configuration all follow from these tables.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/error.hpp"
#include "einfield/model.hpp"
#include "einfield/profile.hpp"
#include "host/files/bounds.hpp"

namespace einfield {

/// A number, or the parameter that it follows.
struct NumberOrRelation {
  double* value;
  Relation* relation;
};
/// One of several names. `set` may be empty if there is only one.
struct Choice {
  std::vector<std::string> names;
  std::function<std::size_t()> get;
  std::function<void(std::size_t)> set;
};
/// A whole number that is stored as a double.
struct WholeNumber {
  double* value;
};
/// A set of names; each is on or off.
struct NameSet {
  std::vector<std::string> names;
  std::function<bool(std::size_t)> get;
  std::function<void(std::size_t)> add;
};
/// A list of names that are checked later, when the valid names are known.
struct NameList {
  std::vector<std::string>* names;
};
/// A file, relative to the configuration.
struct FilePath {
  std::string* path;
};
/// An interval [lower, upper]; infinite ends = no interval.
struct Interval {
  double *lower, *upper;
};
/// A Gaussian, given as a table { mean, sigma }; sigma = 0 = none. The mean is a number or follows a parameter.
struct Normal {
  double *mean, *sigma;
  Relation* mean_of;
};
/// A FITS image or one number.
struct MapOrNumber {
  FitsReference* map;
  std::optional<double>* number;
};
/// A FITS image, or a table that the caller reads.
struct MapOrTable {
  FitsReference* map;
};
/// A table or an array of tables that the caller reads.
struct SubTable {
  bool array = false;
};

using Target = std::variant<double*, std::optional<double>*, int*, std::uint64_t*, bool*, std::string*,
                            std::vector<int>*, FitsReference*, NumberOrRelation, Choice, WholeNumber, NameSet, NameList,
                            FilePath, Interval, Normal, MapOrNumber, MapOrTable, SubTable>;

/// When a key applies; otherwise giving it is an error.
struct Condition {
  std::function<bool()> holds;
  std::string text;  ///< continues a sentence with "only": "with stop = \"chi2\""
};

struct Key {
  std::string name;
  Target target;
  std::string help;
  Bounds bounds{};
  std::string unit{};
  bool required = false;
  std::optional<Condition> condition{};
};
using Keys = std::vector<Key>;

/// A key that no configuration has, or a component that this one lacks.
class UnknownKey : public InvalidInput {
 public:
  using InvalidInput::InvalidInput;
};

/// TOML in memory. @param name  in place of the name of a file in messages; files are found from its directory
struct TomlText {
  std::string text, name;
};

/// A TOML file with the overrides of the command line applied. A path names a table or key from the root:
/// "lens.0.theta_E".
class Document {
 public:
  /// @throws InvalidInput for a file that cannot be read or parsed and for an override of a key that cannot exist
  Document(const std::string& file, const std::vector<Override>& overrides);
  Document(const TomlText& toml, const std::vector<Override>& overrides);
  ~Document();

  /// Checks the table at `path` against its keys and sets their targets. An absent table counts as empty.
  /// @throws InvalidInput for the first key that is unknown, missing, of the wrong type, out of range or has no effect
  void read(const std::string& path, const Keys& keys) const;
  /// Reads one key of a table and ignores the others.
  void read_one(const std::string& path, const Key& key) const;

  bool has(const std::string& path) const;
  /// Number of tables in the array of tables at `path`; 0 if absent.
  std::size_t size(const std::string& path) const;
  /// Where each table and key was given, by path: "FILE:LINE" or the origin of the overrides.
  std::map<std::string, std::string> places() const;
  /// @throws InvalidInput "FILE:LINE: path: message", with the line of the path or of its innermost existing parent
  [[noreturn]] void fail(const std::string& path, const std::string& message) const;

 private:
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

/// Lines "key = value" of the keys that have a value and apply; file names become absolute.
std::string write_keys(const Keys& keys);

/// A table for users: key, type, unit, range, default, help. The defaults are the current values of the targets.
std::string list_table(const std::string& title, const std::string& prefix, const Keys& keys);

}  // namespace einfield
