// Texts of the table of flags.
#include "einfield/flags.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace einfield {

FitStatus status_of(const std::vector<RaisedFlag>& flags) {
  FitStatus worst = FitStatus::ok;
  for (const RaisedFlag& raised : flags) worst = std::max(worst, flag_info(raised.flag).status);
  return worst;
}

std::string meaning_of(const FlagInfo& info) {
  return fmt::format(fmt::runtime(info.meaning), info.threshold);
}

std::string list_flags() {
  std::string text = "bit  flag                     status   meaning\n";
  int bit = 0;
  for (const FlagInfo& info : kFlags) {
    text += fmt::format("{:>3}  {:<24} {:<8} {}\n", bit++, info.name, name_of(info.status), meaning_of(info));
    if (*info.reason != '\0') text += fmt::format("{:>39}because {}\n", "", info.reason);
  }
  return text;
}

}  // namespace einfield
