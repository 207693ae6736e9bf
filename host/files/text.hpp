// Text: numbers and back, names in messages, UTF-8, file names. Formatted text comes from {fmt}.
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace einfield {

/// The shortest text that reads back as the same number; "nan", "inf", "-inf".
template <class Number>
std::string to_text(Number value) {
  char buffer[64];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

/// A computed number in a message: six digits.
std::string rounded(double value);

/// A fraction as a percentage in a message: "3.4 %", "115 %".
std::string percent(double fraction);

/// The number that `text` spells from its first to its last character, or nothing.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "a, b, c".
std::string joined(const std::vector<std::string>& names);

/// What to write instead of a name that does not exist: the nearest valid one, or all of them when none is near.
std::string suggestion(const std::string& name, const std::vector<std::string>& valid);

/// Bytes of the UTF-8 character that starts at `s[i]`; 0 when the bytes there are no valid character.
std::size_t utf8_length(const std::string& s, std::size_t i);

/// The path of the file `name` in the directory `dir`.
std::string in(const std::string& dir, const std::string& name);

/// Without white space at both ends.
std::string trimmed(const std::string& text);

}  // namespace einfield
