// Distances between names by dynamic programming (Damerau 1964, neighbours swapped once); profiles by their names.
#include "host/model/names.hpp"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace einfield {
namespace {

/// Single-character edits (insert, delete, replace, swap of neighbours) that turn one name into the other; case is
/// free.
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

template <class Kind>
std::optional<Kind> kind_of(const std::string& name, int count, const ProfileInfo& (*info)(Kind)) {
  for (int i = 0; i < count; ++i)
    if (name == info(static_cast<Kind>(i)).name) return static_cast<Kind>(i);
  return std::nullopt;
}

}  // namespace

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
  // What a name begins with, or a name that goes on.
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

std::optional<LensKind> lens_kind(const std::string& name) {
  return kind_of(name, kLensKinds, lens_info);
}

std::optional<LightKind> light_kind(const std::string& name) {
  return kind_of(name, kLightKinds, light_info);
}

}  // namespace einfield
