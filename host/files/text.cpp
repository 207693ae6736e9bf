// Distances between names by dynamic programming (Damerau 1964: neighbors may be swapped once).
#include "host/files/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <numeric>

namespace einfield {
namespace {

/// Number of single-character edits (insert, delete, replace, swap of neighbors) that turn one name into the other;
/// upper and lower case are the same.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  const auto same = [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  };
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  std::iota(d[0].begin(), d[0].end(), std::size_t(0));
  for (std::size_t i = 1; i <= a.size(); ++i)
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (same(a[i - 1], b[j - 1]) ? 0 : 1)});
      if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

}  // namespace

std::string rounded(double value) {
  return fmt::format("{:.6g}", value);
}

std::string percent(double fraction) {
  return fmt::format(fmt::runtime(fraction < 0.0995 ? "{:.1f} %" : "{:.0f} %"), 100 * fraction);
}

std::string joined(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

std::string suggestion(const std::string& name, const std::vector<std::string>& valid) {
  if (valid.empty()) return "nothing here";
  const std::string shortened = name.substr(0, 100);
  const auto nearest = std::min_element(valid.begin(), valid.end(), [&](const std::string& a, const std::string& b) {
    return edit_distance(shortened, a) < edit_distance(shortened, b);
  });
  // One name may be the beginning of the other.
  const auto begins = [](const std::string& text, const std::string& start) {
    return start.size() >= 3 && edit_distance(text.substr(0, start.size()), start) == 0;
  };
  const auto related = std::find_if(valid.begin(), valid.end(), [&](const std::string& candidate) {
    return begins(candidate, shortened) || begins(shortened, candidate);
  });
  if (edit_distance(shortened, *nearest) <= std::max<std::size_t>(1, nearest->size() / 2)) return *nearest;
  if (related != valid.end()) return *related;
  return (valid.size() == 1 ? "" : "one of ") + joined(valid);
}

std::size_t utf8_length(const std::string& s, std::size_t i) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(k < s.size() ? s[k] : 0); };
  const unsigned first = byte(i);
  const std::size_t n = first < 0x80                    ? 1
                        : first >= 0xc2 && first < 0xe0 ? 2
                        : first >= 0xe0 && first < 0xf0 ? 3
                        : first >= 0xf0 && first < 0xf5 ? 4
                                                        : 0;
  for (std::size_t k = 1; k < n; ++k)
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
  return n;
}

std::string in(const std::string& dir, const std::string& name) {
  return (std::filesystem::path(dir) / name).string();
}

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace einfield
