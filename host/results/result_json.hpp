// result.json and history.csv: the numbers of a finished fit as text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "einfield/observation.hpp"
#include "einfield/results.hpp"
#include "host/results/assess.hpp"

namespace einfield {

/// NaN has no place in JSON.
nlohmann::ordered_json number_or_null(double value);

/// The content of result.json. Numbers that are not finite become null.
std::string result_json(const Assessment& fit, const RunInfo& info);

/// The block "metrics" of result.json. What does not exist is NaN.
std::vector<std::pair<std::string, double>> metrics_of(const Assessment& fit);

/// The content of history.csv. @param names  of the free scalars
std::string history_csv(const std::vector<HistoryRow>& history, const std::vector<std::string>& names);

/// A member "wcs" of result.json: the whole WCS, and the position angle of the image's y axis for readers that need no
/// more than that.
nlohmann::ordered_json wcs_json(const CelestialWcs& wcs);

}  // namespace einfield
