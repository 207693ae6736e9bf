// report.html: one page that shows everything a fit has found, from memory or from its directory of results.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/results.hpp"
#include "host/report/figures.hpp"

namespace einfield {

/// What the page is made of.
struct ReportContent {
  std::string result_json;            ///< the content of result.json
  std::optional<FittedMaps> fit;      ///< without it, the page has no pictures
  CriticalCurves curves;              ///< over image and source
  std::vector<std::string> problems;  ///< what is missing and why, for the head of the page
  std::string detect_json = {};       ///< the content of detect.json; "" = no search
  std::optional<SearchMaps> search = {};
};

/// Writes DIRECTORY/report.html. It fits a phone as well as a wide screen, on white and on black. What result.json does
/// not have is left out. write_report(directory) of einfield/results.hpp reads the content first.
/// @return warnings: what gnuplot could not draw; the page says it too
/// @throws InvalidInput when result_json is no JSON object, IoError
std::vector<std::string> write_report(const ReportContent& content, const std::string& directory);

}  // namespace einfield
