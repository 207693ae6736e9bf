#include "host/batch/survey_flags.hpp"

#include <fmt/format.h>

namespace einfield {

std::uint64_t mask_of(const std::vector<RaisedFlag>& flags) {
  std::uint64_t mask = 0;
  for (const RaisedFlag& raised : flags) mask |= std::uint64_t(1) << static_cast<int>(raised.flag);
  return mask;
}

std::string flag_names(std::uint64_t mask) {
  std::string names;
  const auto add = [&](int bit, const char* name) {
    if ((mask >> bit & 1) != 0) names += (names.empty() ? "" : ",") + std::string(name);
  };
  for (const FlagInfo& info : kFlags) add(static_cast<int>(info.flag), info.name);
  for (const SurveyFlag& flag : kSurveyFlags) add(flag.bit, flag.name);
  return names;
}

std::string list_survey_flags() {
  std::string text;
  for (const SurveyFlag& flag : kSurveyFlags)
    text += fmt::format("{:>3}  {:<24} {:<8} {}\n", flag.bit, flag.name, name_of(flag.status),
                        std::string("of einfield batch: ") + flag.meaning);
  return text;
}

}  // namespace einfield
