// Tables of keys: what a table of the configuration may hold, each key bound to the member it fills. Reading with all
// its checks, the list for the user and the configuration written back all follow from them.
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
#include "einfield/profile.hpp"
#include "host/files/bounds.hpp"

namespace einfield {

/// One of several names; `set` may be empty when there is nothing to choose.
struct Choice {
  std::vector<std::string> names;
  std::function<std::size_t()> get;
  std::function<void(std::size_t)> set;
};
/// A whole number that is kept as a double.
struct WholeNumber {
  double* value;
};
/// A set of names, each of them on or off.
struct NameSet {
  std::vector<std::string> names;
  std::function<bool(std::size_t)> get;
  std::function<void(std::size_t)> add;
};
/// A list of names that are checked when what they name is known.
struct NameList {
  std::vector<std::string>* names;
};
/// A file, relative to the configuration.
struct FilePath {
  std::string* path;
};
/// The ends of an interval, the lower one first; infinite ones = none.
struct Interval {
  double *lower, *upper;
};
/// A table { mean, sigma }; sigma = 0: none.
struct Normal {
  double *mean, *sigma;
};
/// A FITS image or one number.
struct MapOrNumber {
  FitsReference* map;
  std::optional<double>* number;
};
/// A FITS image, or a table that is read by itself.
struct MapOrTable {
  FitsReference* map;
};
/// A table or an array of tables that is read by itself.
struct SubTable {
  bool array = false;
};

using Target = std::variant<double*, std::optional<double>*, int*, std::uint64_t*, bool*, std::string*,
                            std::vector<int>*, FitsReference*, Choice, WholeNumber, NameSet, NameList, FilePath,
                            Interval, Normal, MapOrNumber, MapOrTable, SubTable>;

/// When a key has a meaning; given at another time it is an error.
struct Condition {
  std::function<bool()> holds;
  std::string text;  ///< behind "only": "with stop = \"chi2\""
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

/// A TOML file with the overrides of the command line put in. Paths name a table or key from the root:
/// "lens.0.theta_E".
class Document {
 public:
  /// @throws InvalidInput for a file that cannot be read or parsed and for an override that has no place
  Document(const std::string& file, const std::vector<Override>& overrides);
  ~Document();

  /// Checks the table at `path` against its keys and sets their targets; an absent table is an empty one.
  /// @throws InvalidInput for the first unknown, missing, mistyped, out-of-range or contradicting key
  void read(const std::string& path, const Keys& keys) const;
  /// Reads one key of a table, whatever else stands in it.
  void read_one(const std::string& path, const Key& key) const;

  bool has(const std::string& path) const;
  /// Tables in the array of tables at `path`, 0 when absent.
  std::size_t size(const std::string& path) const;
  /// "FILE:LINE" or "--set" of everything in it, by path.
  std::map<std::string, std::string> places() const;
  /// Throws InvalidInput "FILE:LINE: path: message" with the line of the path, or of the innermost table around it.
  [[noreturn]] void fail(const std::string& path, const std::string& message) const;

 private:
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

/// The lines "key = value" of the keys that have a value and a meaning now; paths are made absolute.
std::string write_keys(const Keys& keys);

/// A table for the user: key, type, unit, range, default, help; the values of the targets are the defaults.
std::string list_table(const std::string& title, const std::string& prefix, const Keys& keys);

}  // namespace einfield
