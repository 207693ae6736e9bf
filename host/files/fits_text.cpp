#include "host/files/fits_text.hpp"

#include <fmt/format.h>

#include <optional>

#include "host/files/text.hpp"

namespace einfield {
namespace {

/// Takes the last "[…]" off a text; nothing when it does not end with one.
std::optional<std::string> take_bracket(std::string& text) {
  const std::size_t begin = text.rfind('[');
  if (text.empty() || text.back() != ']' || begin == std::string::npos) return std::nullopt;
  std::string inside = text.substr(begin + 1, text.size() - begin - 2);
  text.resize(begin);
  return inside;
}

/// "a:b"
bool read_range(const std::string& text, int& first, int& last) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) return false;
  const auto a = parse_number<int>(trimmed(text.substr(0, colon))),
             b = parse_number<int>(trimmed(text.substr(colon + 1)));
  if (!a || !b) return false;
  first = *a;
  last = *b;
  return true;
}

}  // namespace

std::string read_reference(const std::string& text, FitsReference& reference) {
  reference = {text, "", std::nullopt};
  std::optional<std::string> bracket = take_bracket(reference.path);
  if (bracket && bracket->find(':') != std::string::npos) {
    const std::size_t comma = bracket->find(',');
    FitsSection section;
    if (comma == std::string::npos || !read_range(bracket->substr(0, comma), section.x_first, section.x_last) ||
        !read_range(bracket->substr(comma + 1), section.y_first, section.y_last))
      return "no part of an image, found [" + *bracket +
             "], expected [x0:x1,y0:y1] with the first and last column and row";
    if (section.x_first < 1 || section.y_first < 1 || section.nx() < 1 || section.ny() < 1)
      return "an empty part of an image, found [" + *bracket +
             "], expected columns and rows from 1, the first before the last";
    reference.section = section;
    bracket = take_bracket(reference.path);
  }
  if (bracket) {
    reference.hdu = *bracket;
    if (trimmed(*bracket).empty())
      return "no HDU between the brackets, found \"" + text + "\", expected \"FILE[HDU]\" or \"FILE\"";
  }
  if (trimmed(reference.path).empty()) return "no file name, found \"" + text + "\", expected \"FILE[HDU]\"";
  return "";
}

std::string text_of(const FitsSection& s) {
  return fmt::format("[{}:{},{}:{}]", s.x_first, s.x_last, s.y_first, s.y_last);
}

std::string text_of(const FitsReference& reference) {
  return reference.path + (reference.hdu.empty() ? "" : "[" + reference.hdu + "]") +
         (reference.section ? text_of(*reference.section) : "");
}

}  // namespace einfield
