// JSON from other programs: every value knows its place in the file, every access is checked.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "host/files/bounds.hpp"

namespace einfield {

/// Reads a JSON file. @throws InvalidInput "FILE: …" for one that is missing, larger than 64 MiB, nested deeper than 64
/// levels or not a JSON object
nlohmann::json read_json(const std::string& file);

/// A value in a JSON file. Its messages have the form "FILE: lensing_entities[1].redshift: what is wrong, found …,
/// expected …".
class JsonView {
 public:
  JsonView(const nlohmann::json& root, std::string file) : value_(&root), file_(std::move(file)) {}

  /// Whether there is a member of this name and it is not null.
  bool has(const std::string& key) const;
  /// A member of an object. @throws InvalidInput when it is missing or null
  JsonView at(const std::string& key) const;
  /// An element of an array.
  JsonView at(std::size_t index) const;
  /// Number of elements of an array. @throws InvalidInput for another type and above `longest`
  std::size_t size(std::size_t longest) const;
  /// Names of the members of an object. @throws InvalidInput for another type
  std::vector<std::string> keys() const;

  bool is_text() const { return value_->is_string(); }
  bool is_array() const { return value_->is_array(); }
  bool is_null() const { return value_->is_null(); }

  /// A finite number. @throws InvalidInput
  double number(const Bounds& bounds = {}, const std::string& unit = "") const;
  int integer(int lowest, int highest) const;
  bool boolean() const;
  std::string text() const;
  /// The path of a file in the directory of the JSON file. Names that leave that directory are refused.
  std::string file_beside() const { return file_beside(text()); }
  std::string file_beside(const std::string& name) const;

  /// "FILE: lensing_entities[1]"
  std::string place() const { return file_ + (path_.empty() ? "" : ": " + path_); }
  [[noreturn]] void fail(const std::string& message) const;
  /// "wrong type, found …, expected …"
  [[noreturn]] void fail_type(const std::string& expected) const;

 private:
  JsonView(const nlohmann::json& value, const JsonView& parent, const std::string& step)
      : value_(&value), file_(parent.file_), path_(parent.path_ + step) {}

  const nlohmann::json* value_;
  std::string file_, path_;
};

}  // namespace einfield
