// Limits on what a file may contain, and descriptions of values for messages.
#include "host/files/json_view.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "einfield/error.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

using nlohmann::json;

constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 26;
constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxExcerpt = 60;

/// Text from a file for a message: printable characters on one line, shortened.
std::string excerpt(std::string text) {
  if (text.size() > kMaxExcerpt) text.replace(kMaxExcerpt, std::string::npos, "...");
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

std::string described(const json& value) {
  if (value.is_string()) return "the text \"" + excerpt(value.get_ref<const std::string&>()) + "\"";
  if (value.is_array()) return "a list of " + std::to_string(value.size());
  if (value.is_object()) return "an object";
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_float()) return "the number " + to_text(value.get<double>());
  if (value.is_number_unsigned()) return "the number " + std::to_string(value.get<std::uint64_t>());
  if (value.is_number()) return "the number " + std::to_string(value.get<std::int64_t>());
  return "null";
}

}  // namespace

json read_json(const std::string& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (status.type() == std::filesystem::file_type::not_found) throw InvalidInput(file + ": no such file");
  if (!std::filesystem::is_regular_file(status)) throw InvalidInput(file + ": not a regular file, expected JSON");
  const std::uintmax_t bytes = std::filesystem::file_size(file, error);
  std::ifstream stream(file, std::ios::binary);
  if (error || !stream) throw InvalidInput(file + ": cannot be read (" + std::strerror(errno) + ")");
  if (bytes > kMaxBytes)
    throw InvalidInput(file + ": too large, found " + std::to_string(bytes) + " bytes, expected at most " +
                       std::to_string(kMaxBytes));
  bool deep = false;
  const auto shallow = [&deep](int depth, json::parse_event_t, json&) {
    deep = deep || depth > kMaxDepth;
    return !deep;
  };
  json root;
  try {
    root = json::parse(stream, shallow);
  } catch (const json::parse_error& problem) {
    throw InvalidInput(file + ": not JSON, found an error at byte " + std::to_string(problem.byte));
  } catch (const json::exception&) {
    throw InvalidInput(file + ": not JSON, found a number out of range");
  }
  if (deep) throw InvalidInput(file + ": nested deeper than " + std::to_string(kMaxDepth) + " levels");
  if (!root.is_object()) throw InvalidInput(file + ": found " + described(root) + ", expected an object");
  return root;
}

void JsonView::fail(const std::string& message) const {
  throw InvalidInput(place() + ": " + message);
}

void JsonView::fail_type(const std::string& expected) const {
  fail("wrong type, found " + described(*value_) + ", expected " + expected);
}

bool JsonView::has(const std::string& key) const {
  return value_->is_object() && value_->contains(key) && !(*value_)[key].is_null();
}

JsonView JsonView::at(const std::string& key) const {
  if (!value_->is_object()) fail_type("an object");
  const std::string step = (path_.empty() ? "" : ".") + excerpt(key);
  const auto member = value_->find(key);
  if (member == value_->end() || member->is_null()) JsonView(*value_, *this, step).fail("missing");
  return {*member, *this, step};
}

JsonView JsonView::at(std::size_t index) const {
  return {value_->at(index), *this, "[" + std::to_string(index) + "]"};
}

std::size_t JsonView::size(std::size_t longest) const {
  if (!value_->is_array()) fail_type("a list");
  if (value_->size() > longest)
    fail("too long, found " + std::to_string(value_->size()) + ", expected at most " + std::to_string(longest));
  return value_->size();
}

std::vector<std::string> JsonView::keys() const {
  if (!value_->is_object()) fail_type("an object");
  std::vector<std::string> names;
  for (const auto& [name, value] : value_->items()) names.push_back(name);
  return names;
}

double JsonView::number(const Bounds& bounds, const std::string& unit) const {
  const std::string range = bounds.text();
  const std::string expected = "a number" + (range.empty() ? "" : " " + range) + (unit.empty() ? "" : " " + unit);
  if (!value_->is_number()) fail_type(expected);
  const double value = value_->get<double>();
  if (!bounds.contain(value)) fail("out of range, found " + to_text(value) + ", expected " + expected);
  return value;
}

int JsonView::integer(int lowest, int highest) const {
  const double value = number(between(lowest, highest));
  if (value != std::floor(value)) fail("found " + to_text(value) + ", expected a whole number");
  return static_cast<int>(value);
}

bool JsonView::boolean() const {
  if (!value_->is_boolean()) fail_type("true or false");
  return value_->get<bool>();
}

std::string JsonView::text() const {
  if (!value_->is_string()) fail_type("a text");
  return value_->get<std::string>();
}

std::string JsonView::file_beside(const std::string& name) const {
  const std::filesystem::path path(name);
  const bool climbs = std::any_of(path.begin(), path.end(), [](const auto& part) { return part == ".."; });
  if (name.empty() || path.is_absolute() || climbs || name.find('\0') != std::string::npos)
    fail("found \"" + excerpt(name) + "\", expected a file in the folder of " + file_ + ", by its relative name");
  return (std::filesystem::path(file_).parent_path() / path).string();
}

}  // namespace einfield
