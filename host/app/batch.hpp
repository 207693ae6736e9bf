// `einfield batch`: a survey of lenses.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>

#include "host/app/run.hpp"
#include "host/files/table.hpp"

namespace einfield {

/// Which lenses leave a directory of results.
enum class Keep { none, flagged, all };

/// The options of `batch plan` and `batch run`. Names follow the options.
struct BatchOptions {
  std::string manifest;
  std::string template_file;  ///< "" = every row names its own
  std::string out;            ///< directory of the survey
  std::string shard = "auto";
  std::string only;       ///< "" = everything that is not finished
  double time_limit = 0;  ///< [s]; 0 = none
  double lease = 180;     ///< [s]
  Keep keep = Keep::none;
  /// Backend, device, threads (lenses at a time on the CPU), precision, log, warnings.
  RunOptions run;
  std::function<bool()> terminated;  ///< SIGTERM has come
};

/// Reads and checks every lens, and says what the run will need. Writes nothing.
/// @param sample  lenses that are fitted to measure the time: one of each of the largest groups
/// @return the exit status: 1 when a lens has a problem
int batch_plan(const BatchOptions& options, int sample);

/// @return the exit status: 0 all done, 1 some failed, 75 out of time, 130 interrupted
int batch_run(const BatchOptions& options);

/// How far the survey in a directory is. @return 0
int batch_status(const std::string& dir, std::ostream& out);

/// The table of the survey in a directory, as it is now.
Table batch_table(const std::string& dir);

/// Writes the table. @param out  FILE.fits or FILE.ecsv; "" = DIR/lenses.fits, which is replaced @return 0
/// @param gallery  folder to write a gallery into; "" = none
int batch_collect(const std::string& dir, const std::string& out, const std::string& gallery, bool overwrite,
                  std::ostream& log);

}  // namespace einfield
