#include "host/files/fits_text.hpp"

#include <fmt/format.h>

#include <optional>
#include <sstream>
#include <string>
#include <vector>

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

/// "x0:x1,y0:y1", "*,*,k" or "x0:x1,y0:y1,k": part and plane of an image. @return the problem, or ""
std::string read_part(const std::string& text, FitsReference& reference) {
  std::vector<std::string> axes;
  std::istringstream stream(text);
  for (std::string axis; std::getline(stream, axis, ',');) axes.push_back(trimmed(axis));
  const bool whole = axes.size() == 3 && axes[0] == "*" && axes[1] == "*";
  FitsSection section;
  const bool part = !whole && (axes.size() == 2 || axes.size() == 3) &&
                    read_range(axes[0], section.x_first, section.x_last) &&
                    read_range(axes[1], section.y_first, section.y_last);
  const std::optional<int> plane = axes.size() == 3 ? parse_number<int>(axes[2]) : 0;
  if ((!whole && !part) || !plane || text.back() == ',')
    return "no part of an image, found [" + text +
           "], expected [x0:x1,y0:y1] with the first and last column and row, [*,*,k] for a plane of a cube, or "
           "[x0:x1,y0:y1,k]";
  if (part && (section.x_first < 1 || section.y_first < 1 || section.nx() < 1 || section.ny() < 1))
    return "an empty part of an image, found [" + text +
           "], expected columns and rows from 1, the first before the last";
  if (axes.size() == 3 && *plane < 1) return "no such plane of a cube, found [" + text + "], expected a number from 1";
  if (part) reference.section = section;
  reference.plane = *plane;
  return "";
}

}  // namespace

std::string read_reference(const std::string& text, FitsReference& reference) {
  reference = {text, "", std::nullopt};
  std::optional<std::string> bracket = take_bracket(reference.path);
  if (bracket && (bracket->find(':') != std::string::npos || trimmed(*bracket).rfind('*', 0) == 0)) {
    if (const std::string problem = read_part(*bracket, reference); !problem.empty()) return problem;
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
  std::string part = reference.section ? text_of(*reference.section) : "";
  if (reference.plane > 0) {
    if (!reference.section) part = "[*,*]";
    part.insert(part.size() - 1, "," + std::to_string(reference.plane));
  }
  return reference.path + (reference.hdu.empty() ? "" : "[" + reference.hdu + "]") + part;
}

}  // namespace einfield
