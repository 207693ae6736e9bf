// What a run says: progress, warnings, and the model at its head.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "einfield/load.hpp"
#include "host/app/run.hpp"

namespace einfield {

/// The log of a run: lines, warnings, and a progress bar on a terminal. It is silent without a stream.
class Log {
 public:
  /// @param steps    of all stages
  /// @param at_most  whether the fit may end before
  Log(const RunOptions& options, int steps, bool at_most);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  /// Whether anybody reads it.
  bool speaks() const { return stream_ != nullptr; }
  void line(const std::string& message);
  void warning(const std::string& message);
  /// A line, or the bar drawn again: step, reduced χ², steps/s, time left.
  void progress(const HistoryRow& row);
  /// How many of the starts of a stage have ended: a line, or the bar drawn again.
  void starts(const StartsProgress& now, std::size_t stages);

 private:
  void draw_bar(std::string status, std::int64_t done, std::int64_t all);
  /// Ends the bar, so that the next output, errors included, starts on a new line.
  void end_bar();

  std::ostream* stream_;
  std::ostream* warnings_;
  bool terminal_;
  int steps_;
  bool at_most_;
  bool bar_shown_ = false;
  std::int64_t first_step_ = -1, last_step_ = -1;
  double first_time_ = 0;
};

/// The log of a fit, with the number of steps that all stages make at most.
Log log_of(const Config& config, const RunOptions& options);

/// Image, PSF, place on the sky, components and numbers of free parameters.
void describe(Log& log, const LoadedProblem& loaded, const ParameterLayout& layout);

/// How many of the starts reached the best one.
void report_starts(Log& log, const std::vector<StartRecord>& starts);

}  // namespace einfield
