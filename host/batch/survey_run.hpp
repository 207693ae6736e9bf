// Fits the lenses of a manifest side by side in one directory, together with any number of other processes that do the
// same.
//
//     DIR/batch.json       what the directory belongs to: format, manifest, template, precision
//     DIR/manifest.*       a copy of the manifest
//     DIR/rows/            finished lenses (row_store.hpp)
//     DIR/claims/          lenses in work (claims.hpp)
//     DIR/checkpoints/     of lenses whose fit was interrupted, one folder each
//     DIR/lenses/          results of single lenses, with --keep
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "host/batch/engine.hpp"
#include "host/batch/lens_row.hpp"
#include "host/batch/manifest.hpp"
#include "host/batch/row_store.hpp"

namespace einfield {

/// Which lenses of a survey are fitted.
struct Selection {
  bool failed = false, flagged = false, changed = false;
  std::vector<std::string> ids;

  /// Nothing is selected: all unfinished lenses are meant.
  bool everything() const { return !failed && !flagged && !changed && ids.empty(); }
  /// "failed", "flagged", "changed" or IDs, separated by commas; "" = everything.
  /// @throws InvalidInput "--only: …" for an ID that the manifest lacks
  static Selection parse(const std::string& text, const Manifest& manifest);
};

struct SurveyOptions {
  std::string dir;
  Shard shard;
  int workers = 1;
  Selection only;
  std::chrono::milliseconds lease{180'000};
  std::chrono::milliseconds poll{1'000};  ///< between two looks at lenses of processes that may have died
  std::function<bool()> stopped;          ///< true ends the run; fits are asked to end as well
};

/// Fits one lens. Nothing: it was interrupted. What it throws ends the run: what is wrong with one lens is a row.
/// @param stopped  true asks the fit to end early
using FitLens = std::function<std::optional<LensRow>(const SurveyLens& lens, const std::function<bool()>& stopped)>;

/// How far a survey is.
struct SurveyCounts {
  std::size_t lenses = 0;
  std::size_t ok = 0, suspect = 0, failed = 0;  ///< finished
  std::size_t finished() const { return ok + suspect + failed; }
  std::size_t unfinished() const { return lenses - finished(); }
};
SurveyCounts counts_of(const Manifest& manifest, const RowStore& rows);

struct SurveyOutcome {
  SurveyCounts counts;     ///< of all processes
  std::size_t fitted = 0;  ///< rows that this process has added
  bool interrupted = false;
  std::size_t in_work = 0;  ///< unfinished lenses that other processes fit
};

/// Called after every row, one call at a time. @param counts  of all processes, every few seconds; else null
using LensDone = std::function<void(const LensRow& row, const SurveyCounts* counts)>;

/// Fits what is selected and not finished. Lenses of processes that have ended or are silent for the time of the lease
/// are taken over; for lenses of processes that are alive it does not wait.
/// @param rows  of the directory; refreshed
/// @throws IoError; what `fit` throws
SurveyOutcome run_survey(const Manifest& manifest, const SurveyOptions& options, RowStore& rows, const FitLens& fit,
                         const LensDone& done = nullptr);

/// Refuses finished lenses whose row of the manifest, template or precision was another one.
/// @throws InvalidInput "--out: …"
void refuse_changes(const Manifest& manifest, const RowStore& rows, const std::string& dir);

/// The folder of results of a lens, or of its checkpoint: its id, where that is a plain name, else a changed id with a
/// checksum.
std::string folder_name(const std::string& id);

}  // namespace einfield
