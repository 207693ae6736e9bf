// Numbers as text and back without loss, whatever the locale.
#pragma once

#include <charconv>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace einfield {

/// The shortest text that reads back as the same number; "nan", "inf", "-inf".
template <class Number>
std::string to_text(Number value) {
  char buffer[64];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

/// A computed number for the reader of a message: six digits.
inline std::string rounded(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  return buffer;
}

/// A fraction for the reader, as a percentage: "3.4 %", "115 %".
inline std::string percent(double fraction) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, fraction < 0.0995 ? "%.1f %%" : "%.0f %%", 100 * fraction);
  return buffer;
}

/// The number that the whole of `text` is, or nothing.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace einfield
