// Threads take lenses from one list: first the own share, then those of the others, then those that another process has
// claimed but not finished.
#include "host/batch/survey_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <deque>
#include <exception>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>
#include <unordered_set>

#include "einfield/error.hpp"
#include "host/batch/claims.hpp"
#include "host/files/text.hpp"
#include "host/results/fingerprint.hpp"

namespace einfield {
namespace {

using Clock = std::chrono::steady_clock;

/// With more files of rows than this, they are read again every few seconds and not after every claim.
constexpr std::size_t kManyFiles = 64;
constexpr std::chrono::seconds kBetweenReads{5};
/// A thread that waits looks this often whether the run is to end.
constexpr std::chrono::milliseconds kLook{50};

/// Hands out lenses to the threads of this process. All functions are called under one mutex.
class Dispatcher {
 public:
  Dispatcher(const Manifest& manifest, const SurveyOptions& options, RowStore& rows)
      : manifest_(manifest), options_(options), rows_(rows), claims_(options.dir + "/claims", options.lease) {
    rows_.refresh();
    last_read_ = Clock::now();
    for (const SurveyLens& lens : manifest.lenses) begun_with_.push_back(attempts(lens));
    const auto count = static_cast<std::size_t>(options.shard.count);
    for (std::size_t k = 0; k < count; ++k)
      for (std::size_t i = (static_cast<std::size_t>(options.shard.index) + k) % count; i < manifest.lenses.size();
           i += count)
        if (wanted(i)) list_.push_back(i);
  }

  /// The next lens, claimed; nothing when none can be had now.
  std::optional<std::size_t> next() {
    while (!list_.empty()) {
      const std::size_t i = list_.front();
      list_.pop_front();
      if (take(i)) return i;
    }
    if (Clock::now() < look_again_) return std::nullopt;
    // Those that others had: finished, still in work, or free because their process has ended.
    std::deque<std::size_t> others;
    std::swap(others, others_);
    std::optional<std::size_t> found;
    if (!others.empty()) refresh(true);
    for (const std::size_t i : others) {
      if (found)
        others_.push_back(i);
      else if (take(i))
        found = i;
    }
    if (!found) look_again_ = Clock::now() + options_.poll;
    return found;
  }

  /// Whether next() may still find a lens later.
  bool may_come() const { return !list_.empty() || !others_.empty(); }
  std::size_t in_work() const { return in_work_.size(); }

  void release(std::size_t i) { claims_.release(manifest_.lenses[i].id); }
  int attempt(std::size_t i) const { return begun_with_[i] + 1; }
  std::size_t in_work_unfinished() const {
    return static_cast<std::size_t>(
        std::count_if(in_work_.begin(), in_work_.end(), [this](std::size_t i) { return !finished(i); }));
  }

 private:
  int attempts(const SurveyLens& lens) const {
    const RowStore::Head* const head = rows_.find(lens.id);
    return head ? head->attempt : 0;
  }
  /// Whether this run or another one has fitted the lens since this one began.
  bool finished(std::size_t i) const { return attempts(manifest_.lenses[i]) > begun_with_[i]; }

  bool wanted(std::size_t i) const {
    const SurveyLens& lens = manifest_.lenses[i];
    const RowStore::Head* const head = rows_.find(lens.id);
    const Selection& only = options_.only;
    if (only.everything()) return !head;
    if (std::find(only.ids.begin(), only.ids.end(), lens.id) != only.ids.end()) return true;
    if (!head) return only.changed;
    return (only.failed && head->failed) || (only.flagged && head->flagged) ||
           (only.changed && head->settings != lens.settings);
  }

  void refresh(bool now) {
    if (!now && rows_.files() > kManyFiles && Clock::now() - last_read_ < kBetweenReads) return;
    rows_.refresh();
    last_read_ = Clock::now();
  }

  bool take(std::size_t i) {
    const std::string& id = manifest_.lenses[i].id;
    if (finished(i)) return false;
    switch (claims_.take(id)) {
      case Claim::in_work:
        in_work_.insert(i);
        return false;
      case Claim::unknown:
        others_.push_back(i);
        return false;
      case Claim::ours:
        break;
    }
    // A row is written before its claim is given back: what another process has finished is seen now.
    refresh(false);
    if (!finished(i)) return true;
    claims_.release(id);
    return false;
  }

  const Manifest& manifest_;
  const SurveyOptions& options_;
  RowStore& rows_;
  Claims claims_;
  std::vector<int> begun_with_;     ///< attempts of each lens when the run began
  std::deque<std::size_t> list_;    ///< still to be claimed
  std::deque<std::size_t> others_;  ///< claimed by processes that may have ended
  std::set<std::size_t> in_work_;   ///< of processes that are alive
  Clock::time_point last_read_, look_again_{};
};

class SurveyRun {
 public:
  SurveyRun(const Manifest& manifest, const SurveyOptions& options, RowStore& rows, const FitLens& fit,
            const LensDone& done)
      : manifest_(manifest),
        options_(options),
        rows_(rows),
        fit_(fit),
        done_(done),
        dispatcher_(manifest, options, rows) {}

  SurveyOutcome run() {
    std::vector<std::thread> threads;
    try {
      for (int k = 1; k < options_.workers; ++k) threads.emplace_back([this] { work(); });
    } catch (...) {
      fail(std::current_exception());
    }
    work();
    for (std::thread& thread : threads) thread.join();
    if (error_) std::rethrow_exception(error_);
    rows_.sync();
    rows_.refresh();
    outcome_.counts = counts_of(manifest_, rows_);
    outcome_.interrupted |= stopped() && outcome_.counts.unfinished() > 0;
    outcome_.in_work = dispatcher_.in_work_unfinished();
    return outcome_;
  }

 private:
  bool stopped() const { return options_.stopped && options_.stopped(); }
  void fail(const std::exception_ptr& error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    failed_ = true;
  }

  void work() {
    try {
      while (!failed_ && !stopped()) {
        std::optional<std::size_t> lens;
        bool may_come = false;
        {
          const std::lock_guard lock(mutex_);
          lens = dispatcher_.next();
          may_come = dispatcher_.may_come();
        }
        if (lens) {
          fit(*lens);
        } else if (may_come) {
          std::this_thread::sleep_for(std::min(kLook, options_.poll));
        } else {
          return;
        }
      }
    } catch (...) {
      fail(std::current_exception());
    }
  }

  void tell(const LensRow& row) {
    const bool due = Clock::now() - last_count_ >= kBetweenReads;
    if (due) {
      rows_.refresh();
      outcome_.counts = counts_of(manifest_, rows_);
      last_count_ = Clock::now();
    }
    done_(row, due ? &outcome_.counts : nullptr);
  }

  void fit(std::size_t i) {
    const SurveyLens& lens = manifest_.lenses[i];
    std::optional<LensRow> row;
    try {
      row = fit_(lens, [this] { return failed_ || stopped(); });
      const std::lock_guard lock(mutex_);
      if (row) {
        row->id = lens.id;
        row->attempt = dispatcher_.attempt(i);
        row->settings = lens.settings;
        rows_.append(*row);
        ++outcome_.fitted;
        if (done_) tell(*row);
      } else {
        outcome_.interrupted = true;
      }
      dispatcher_.release(i);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      dispatcher_.release(i);
      throw;
    }
  }

  const Manifest& manifest_;
  const SurveyOptions& options_;
  RowStore& rows_;
  const FitLens& fit_;
  const LensDone& done_;
  std::mutex mutex_;  ///< of everything below, of rows_ and of done_
  Dispatcher dispatcher_;
  SurveyOutcome outcome_;
  Clock::time_point last_count_ = Clock::now();
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};  ///< error_ is set
};

}  // namespace

Selection Selection::parse(const std::string& text, const Manifest& manifest) {
  Selection selection;
  std::unordered_set<std::string> known;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == "failed" || word == "flagged" || word == "changed") {
      (word == "failed" ? selection.failed : word == "flagged" ? selection.flagged : selection.changed) = true;
      continue;
    }
    if (known.empty())
      for (const SurveyLens& lens : manifest.lenses) known.insert(lens.id);
    if (known.count(word) == 0)
      throw InvalidInput("--only: no lens " + word + " in " + manifest.file +
                         ", expected failed, flagged, changed or ids of lenses, separated by commas");
    selection.ids.push_back(word);
  }
  return selection;
}

SurveyCounts counts_of(const Manifest& manifest, const RowStore& rows) {
  SurveyCounts counts;
  counts.lenses = manifest.lenses.size();
  for (const SurveyLens& lens : manifest.lenses)
    if (const RowStore::Head* const head = rows.find(lens.id))
      ++(head->failed ? counts.failed : head->flagged ? counts.suspect : counts.ok);
  return counts;
}

SurveyOutcome run_survey(const Manifest& manifest, const SurveyOptions& options, RowStore& rows, const FitLens& fit,
                         const LensDone& done) {
  return SurveyRun(manifest, options, rows, fit, done).run();
}

void refuse_changes(const Manifest& manifest, const RowStore& rows, const std::string& dir) {
  std::size_t changed = 0;
  const SurveyLens* first = nullptr;
  for (const SurveyLens& lens : manifest.lenses) {
    const RowStore::Head* const head = rows.find(lens.id);
    if (!head || head->settings == lens.settings) continue;
    if (changed++ == 0) first = &lens;
  }
  if (changed == 0) return;
  throw InvalidInput(
      fmt::format("--out: {} has {} finished with another row of the manifest, template or precision, the "
                  "first is {}; expected the same again, another --out, or --only changed",
                  dir, changed == 1 ? "1 lens" : std::to_string(changed) + " lenses", first->id));
}

std::string folder_name(const std::string& id) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-' || c == '+';
  };
  if (!id.empty() && id.front() != '.' && std::all_of(id.begin(), id.end(), plain)) return id;
  std::string name = id.front() == '.' ? "_" + id : id;
  std::replace_if(
      name.begin(), name.end(), [&](unsigned char c) { return !plain(c); }, '_');
  Checksum checksum;
  checksum.add(id.data(), id.size());
  return fmt::format("{}-{:016x}", name, checksum.value());
}

}  // namespace einfield
