// Results of a directory as far as two runs of one configuration must agree on them.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/run_binary.hpp"

namespace einfield {

/// The files of a directory of results but for what the clock and the command line make of them; no checkpoint, no
/// figures, nothing hidden.
inline std::map<std::string, std::string> timeless(const std::filesystem::path& dir) {
  std::map<std::string, std::string> files;
  for (auto& [name, contents] : files_below(dir)) {
    if (name[0] == '.' || name == "checkpoint.safetensors" || name.rfind("figures", 0) == 0 || name == "report.html")
      continue;
    if (name == "result.json") {
      nlohmann::json result = nlohmann::json::parse(contents);
      result.erase("time_total_s");
      result.erase("time_per_step_ms");
      result.erase("command");
      contents = result.dump();
    } else if (name == "history.csv") {
      std::string text;
      std::istringstream rows(contents);
      for (std::string row; std::getline(rows, row);) {
        const std::size_t first = row.find(',');
        text += row.substr(0, first) + row.substr(row.find(',', first + 1)) + "\n";
      }
      contents = text;
    }
    files[name] = contents;
  }
  return files;
}

}  // namespace einfield
