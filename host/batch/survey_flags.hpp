// Flags of a survey beside those of a fit, and all of them as one number.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "einfield/flags.hpp"

namespace einfield {

/// Flags of a survey beside those of a fit (einfield/flags.hpp), whose bits are their places in that table. These come
/// down from bit 62, so that the table can grow.
struct SurveyFlag {
  const char* name;
  int bit;
  FitStatus status;
  const char* meaning;
};
inline constexpr SurveyFlag kUnfinishedFlag = {"unfinished", 59, FitStatus::failed,
                                               "the lens has no result yet; run the same command again"};
inline constexpr SurveyFlag kNoFitFlag = {"no_fit", 60, FitStatus::failed,
                                          "the fit could not be made for another reason; the message says which"};
inline constexpr SurveyFlag kNoMemoryFlag = {"memory", 61, FitStatus::failed,
                                             "the fit needs more memory than the machine has"};
inline constexpr SurveyFlag kBadInputFlag = {
    "bad_input", 62, FitStatus::failed, "a file or a value of the lens is missing or wrong; the message says which"};
inline constexpr SurveyFlag kSurveyFlags[] = {kUnfinishedFlag, kNoFitFlag, kNoMemoryFlag, kBadInputFlag};

/// The bits of flags as one number.
std::uint64_t mask_of(const std::vector<RaisedFlag>& flags);
/// Names of the bits that are set, in the order of the bits, joined by commas.
std::string flag_names(std::uint64_t mask);
/// The flags of a survey as lines of `einfield info --flags`.
std::string list_survey_flags();

}  // namespace einfield
