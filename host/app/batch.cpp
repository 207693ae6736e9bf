// The commands of a survey around host/batch: directories, progress, exit statuses.
#include "host/app/batch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/app/batch_lens.hpp"
#include "host/app/command_line.hpp"
#include "host/app/run_plan.hpp"
#include "host/batch/claims.hpp"
#include "host/batch/engine.hpp"
#include "host/batch/gallery.hpp"
#include "host/batch/row_store.hpp"
#include "host/batch/survey_run.hpp"
#include "host/batch/survey_table.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/ecsv.hpp"
#include "host/files/fits_table.hpp"
#include "host/files/fits_text.hpp"
#include "host/files/memory.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kFormat = 2;  ///< of the directory of a survey
constexpr const char* kBatchFile = "batch.json";
constexpr std::size_t kProblemsShown = 20;
constexpr double kLongestSample = 60;  ///< seconds

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string count_text(std::size_t n, const std::string& noun, const std::string& nouns) {
  return std::to_string(n) + " " + (n == 1 ? noun : nouns);
}

/// "52 s", "12 min", "3.4 h", "2.1 d".
std::string time_text(double seconds) {
  if (seconds < 100) return fmt::format("{:.3g} s", seconds);
  if (seconds < 100 * 60) return fmt::format("{:.0f} min", seconds / 60);
  if (seconds < 72 * 3600) return fmt::format("{:.1f} h", seconds / 3600);
  return fmt::format("{:.1f} d", seconds / 86400);
}

/// "1000 lenses: 980 ok, 15 suspect, 3 failed, 2 unfinished".
std::string counts_text(const SurveyCounts& counts) {
  return fmt::format("{}: {} ok, {} suspect, {} failed, {} unfinished", count_text(counts.lenses, "lens", "lenses"),
                     counts.ok, counts.suspect, counts.failed, counts.unfinished());
}

std::string text_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_if_changed(const std::string& path, const std::string& text) {
  if (!fs::exists(path) || text_of_file(path) != text) write_atomically(path, text);
}

/// Lines for the log, warnings for stderr; silent without streams.
class Output {
 public:
  explicit Output(const RunOptions& run) : log_(run.log), warnings_(run.warnings) {}
  void line(const std::string& text) const {
    if (log_) *log_ << text << std::endl;
  }
  void warning(std::string text) const {
    for (char& c : text)
      if (static_cast<unsigned char>(c) < ' ') c = ' ';
    if (warnings_) *warnings_ << "einfield: warning: " << text << std::endl;
  }

 private:
  std::ostream *log_, *warnings_;
};

std::string precision_of(const BatchOptions& options) {
  return options.run.double_precision ? "double" : "single";
}

Manifest manifest_of(const BatchOptions& options) {
  return read_manifest(options.manifest, options.template_file, precision_of(options));
}

/// The backend of this process, and how many lenses it fits at a time.
struct Machine {
  BatchOptions options;
  int workers = 1;
  std::string text;
};

Machine machine_of(BatchOptions options) {
  Machine machine;
  const BackendChoice choice = resolve_backend(options.run.backend, {1, options.run.device});
  const int threads = ThreadPool::resolve(options.run.threads);
  const bool on_cpu = choice.name == "cpu";
  if (!on_cpu && !options.run.device) {
    const int devices = static_cast<int>(cuda_devices().size());
    if (devices > 0) options.run.device = local_rank(environment) % devices;
  }
  options.run.backend = choice.name;
  machine.workers = on_cpu ? threads : 1;
  machine.text = on_cpu
                     ? fmt::format("cpu, {} at a time", count_text(static_cast<std::size_t>(threads), "lens", "lenses"))
                     : fmt::format("cuda, device {}, one lens at a time", options.run.device.value_or(0));
  if (!choice.reason.empty()) machine.text += " (auto chose the CPU because " + choice.reason + ")";
  machine.options = std::move(options);
  return machine;
}

/// A file or folder in a directory that no survey has made; "" = there is none. Of processes that start at the same
/// moment, one may see the other's directory before it is complete.
std::string foreign_entry(const std::string& dir) {
  static constexpr std::string_view kOwn[] = {kBatchFile, "manifest.ecsv", "manifest.fits", "rows",
                                              "claims",   "checkpoints",   "lenses",        "lenses.fits"};
  std::error_code error;
  if (fs::exists(in(dir, kBatchFile), error)) return "";
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    const bool temporary = name.rfind(".einfield-", 0) == 0;
    if (!temporary && std::find(std::begin(kOwn), std::end(kOwn), name) == std::end(kOwn)) return name;
  }
  return "";
}

/// The name of the manifest that a batch.json gives.
/// @throws InvalidInput for a file that is damaged or of another format
std::string manifest_name(const std::string& file) {
  try {
    const auto json = nlohmann::ordered_json::parse(text_of_file(file));
    if (json.at("format") != kFormat)
      throw InvalidInput(file + ": format " + json.at("format").dump() + ", expected " + std::to_string(kFormat) +
                         " as this version of einfield writes");
    return json.at("manifest").get<std::string>();
  } catch (const nlohmann::ordered_json::exception& error) {
    throw InvalidInput(file + ": damaged (" + error.what() + "), expected what einfield batch run writes");
  }
}

/// Makes the directory of a survey, or takes one that is there.
void prepare_survey(const BatchOptions& options) {
  const std::string& dir = options.out;
  std::error_code error;
  if (fs::exists(dir, error) && !fs::is_directory(dir, error))
    throw InvalidInput("--out: " + dir + " is a file, expected the name of a directory");
  if (const std::string foreign = foreign_entry(dir); !foreign.empty())
    throw InvalidInput("--out: " + dir + " holds no survey, found " + foreign + " in it, expected a new directory");
  if (fs::exists(in(dir, kBatchFile), error)) manifest_name(in(dir, kBatchFile));  // of this format
  create_directory(dir);
  FitsReference manifest;
  read_reference(options.manifest, manifest);
  const std::string text = text_of_file(manifest.path);
  const std::string copy = text.rfind("SIMPLE", 0) == 0 ? "manifest.fits" : "manifest.ecsv";
  write_if_changed(in(dir, copy), text);
  const nlohmann::ordered_json json = {
      {"format", kFormat},
      {"manifest", copy + (manifest.hdu.empty() ? "" : "[" + manifest.hdu + "]")},
      {"manifest_source", fs::absolute(options.manifest).lexically_normal().string()},
      {"template",
       options.template_file.empty() ? "" : fs::absolute(options.template_file).lexically_normal().string()},
      {"precision", precision_of(options)}};
  write_if_changed(in(dir, kBatchFile),
                   json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

/// The manifest of a directory, as it was when the survey ran last.
Manifest manifest_in(const std::string& dir) {
  if (!fs::is_regular_file(in(dir, kBatchFile)))
    throw InvalidInput(dir + ": holds no survey, expected a directory that einfield batch run has made");
  return read_manifest_rows(in(dir, manifest_name(in(dir, kBatchFile))));
}

/// Progress of a run in lines.
class Progress {
 public:
  Progress(const Output& output, const SurveyCounts& begin) : output_(output), begin_(begin) {}
  void operator()(const LensRow& row, const SurveyCounts* counts) const {
    if (row.failed()) output_.warning("lens " + row.id + " (" + flag_names(row.flags) + "): " + row.message);
    if (!counts) return;
    const double rate = static_cast<double>(counts->finished() - begin_.finished()) / seconds_since(start_);
    std::string text = fmt::format("{} of {} done ({} suspect, {} failed)", counts->finished(), counts->lenses,
                                   counts->suspect, counts->failed);
    if (rate > 0)
      text += fmt::format(", {:.3g} a minute, {} left", 60 * rate,
                          time_text(static_cast<double>(counts->unfinished()) / rate));
    output_.line(text);
  }

 private:
  const Output& output_;
  SurveyCounts begin_;
  Clock::time_point start_ = Clock::now();
};

/// Calls f(index) for all indices below n on several threads; the first exception ends the loop.
template <class F>
void for_all(std::size_t n, int threads, const F& f) {
  ThreadPool pool(threads);
  pool.parallel_for(static_cast<int>(n), [&](int index, int) { f(static_cast<std::size_t>(index)); });
}

/// Lenses of one shape.
struct Group {
  std::size_t lenses = 0;
  double bytes = 0;
  const SurveyLens* first = nullptr;
};

struct Checked {
  std::vector<std::pair<std::string, Group>> groups;  ///< the largest first
  std::size_t problems = 0;
};

Checked check_lenses(const Manifest& manifest, const Machine& machine, const Output& output) {
  std::vector<LensPlan> plans(manifest.lenses.size());
  for_all(plans.size(), machine.workers, [&](std::size_t i) {
    if (!machine.options.run.interrupted || !machine.options.run.interrupted())
      plans[i] = plan_lens(manifest.lenses[i], machine.options);
  });
  Checked checked;
  std::map<std::string, Group> groups;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    if (!plans[i].problem.empty()) {
      if (checked.problems++ < kProblemsShown)
        output.warning("lens " + manifest.lenses[i].id + ": " + plans[i].problem);
      continue;
    }
    Group& group = groups[plans[i].group];
    if (group.lenses++ == 0) group.first = &manifest.lenses[i];
    group.bytes = std::max(group.bytes, plans[i].bytes);
  }
  if (checked.problems > kProblemsShown)
    output.warning(std::to_string(checked.problems - kProblemsShown) + " more lenses have a problem");
  checked.groups.assign(groups.begin(), groups.end());
  std::stable_sort(checked.groups.begin(), checked.groups.end(),
                   [](const auto& a, const auto& b) { return a.second.lenses > b.second.lenses; });
  return checked;
}

/// Fits lenses of the largest groups and says how long the survey takes.
void sample_times(const Checked& checked, int sample, const Machine& machine, const Output& output) {
  double total = 0, row_bytes = 0;
  std::size_t measured = 0, lenses = 0;
  for (const auto& [shape, group] : checked.groups) {
    if (measured == static_cast<std::size_t>(sample)) break;
    BatchOptions options = machine.options;
    options.out.clear();
    options.keep = Keep::none;
    const auto start = Clock::now();
    const auto stopped = [&] {
      return seconds_since(start) > kLongestSample || (options.run.interrupted && options.run.interrupted());
    };
    const std::optional<LensRow> row = fit_lens(*group.first, options, stopped);
    if (options.run.interrupted && options.run.interrupted()) return;
    const double seconds = seconds_since(start);
    output.line(fmt::format("time: {}{} for lens {}, one of {}", row ? "" : "more than ", time_text(seconds),
                            group.first->id, count_text(group.lenses, "such lens", "such lenses")));
    if (row) row_bytes = std::max(row_bytes, static_cast<double>(row_line(*row).size()));
    total += seconds * static_cast<double>(group.lenses);
    lenses += group.lenses;
    ++measured;
  }
  if (lenses == 0) return;
  output.line(fmt::format("time: about {} for these {} lenses, {} at a time",
                          time_text(total / std::min(machine.workers, static_cast<int>(lenses))), lenses,
                          machine.workers));
  if (row_bytes > 0)
    output.line(
        fmt::format("files: {} of rows for these lenses, one file for each process; --keep adds a folder a lens",
                    readable_bytes(static_cast<std::size_t>(row_bytes * static_cast<double>(lenses)))));
}

/// The exit status of a run.
int status_of(const SurveyOutcome& outcome, const BatchOptions& options) {
  if (outcome.interrupted) {
    const bool by_hand =
        options.run.interrupted && options.run.interrupted() && !(options.terminated && options.terminated());
    return by_hand ? kInterrupted : kTryAgain;
  }
  return outcome.counts.failed > 0 ? kFailure : kDone;
}

}  // namespace

int batch_plan(const BatchOptions& given, int sample) {
  const Output output(given.run);
  const Manifest manifest = manifest_of(given);
  const Machine machine = machine_of(given);
  output.line(fmt::format("{}: {}", given.manifest, count_text(manifest.lenses.size(), "lens", "lenses")));
  output.line("backend: " + machine.text);
  const Checked checked = check_lenses(manifest, machine, output);
  if (given.run.interrupted && given.run.interrupted()) return kInterrupted;
  double most = 0;
  for (const auto& [shape, group] : checked.groups) {
    output.line(fmt::format("{} of {}: {} each", count_text(group.lenses, "lens", "lenses"), shape,
                            readable_bytes(static_cast<std::size_t>(group.bytes))));
    most = std::max(most, group.bytes);
  }
  const double together = most * machine.workers;
  output.line(fmt::format("memory: at most {}, this machine has {}", readable_bytes(static_cast<std::size_t>(together)),
                          readable_bytes(memory_limit())));
  if (together > static_cast<double>(memory_limit()))
    output.warning("--threads: " + std::to_string(machine.workers) + " lenses at a time need more memory than this " +
                   "machine has, expected at most " +
                   std::to_string(std::max(1, static_cast<int>(static_cast<double>(memory_limit()) / most))));
  if (sample > 0) sample_times(checked, sample, machine, output);
  output.line(checked.problems == 0 ? "no lens has a problem; nothing was written"
                                    : count_text(checked.problems, "lens has", "lenses have") +
                                          " a problem and will be flagged, which stops no other; nothing was written");
  return checked.problems == 0 ? kDone : kFailure;
}

int batch_run(const BatchOptions& given) {
  const auto start = Clock::now();
  const Output output(given.run);
  const Manifest manifest = manifest_of(given);
  Machine machine = machine_of(given);
  BatchOptions& options = machine.options;
  FitsReference reference;
  read_reference(options.manifest, reference);
  if (options.out.empty()) options.out = fs::path(reference.path).stem().string() + "_batch";
  SurveyOptions survey;
  survey.shard = shard_of(options.shard, environment);
  survey.only = Selection::parse(options.only, manifest);
  prepare_survey(options);
  RowStore rows(in(options.out, "rows"));
  rows.refresh();
  if (survey.only.everything()) refuse_changes(manifest, rows, options.out);
  for (const std::string& damage : rows.damage()) output.warning(damage);

  survey.dir = options.out;
  survey.workers = machine.workers;
  survey.lease = std::chrono::milliseconds(std::llround(1000 * options.lease));
  survey.stopped = [&options, start] {
    return (options.run.interrupted && options.run.interrupted()) ||
           (options.time_limit > 0 && seconds_since(start) > options.time_limit);
  };
  const SurveyCounts before = counts_of(manifest, rows);
  output.line(counts_text(before));
  output.line("backend: " + machine.text);
  if (survey.shard.count > 1)
    output.line(fmt::format("share {} of {} ({})", survey.shard.index, survey.shard.count, survey.shard.source));
  const Progress progress(output, before);
  const SurveyOutcome outcome = run_survey(
      manifest, survey, rows,
      [&options](const SurveyLens& lens, const std::function<bool()>& stopped) {
        return fit_lens(lens, options, stopped);
      },
      progress);
  output.line(fmt::format("{} fitted here in {}", count_text(outcome.fitted, "lens", "lenses"),
                          time_text(seconds_since(start))));
  output.line(counts_text(outcome.counts));
  if (outcome.in_work > 0)
    output.line(count_text(outcome.in_work, "lens is", "lenses are") + " in work by other processes");
  if (outcome.interrupted) output.line("interrupted; the same command continues");
  return status_of(outcome, options);
}

int batch_status(const std::string& dir, std::ostream& out) {
  const Manifest manifest = manifest_in(dir);
  RowStore rows(in(dir, "rows"));
  rows.refresh();
  out << counts_text(counts_of(manifest, rows)) << '\n';
  std::map<std::string, std::size_t> flags;
  double seconds = 0;
  std::size_t finished = 0;
  for (const SurveyLens& lens : manifest.lenses) {
    const RowStore::Head* const head = rows.find(lens.id);
    if (!head) continue;
    const LensRow row = rows.read(*head);
    seconds += row.seconds;
    ++finished;
    std::string names = flag_names(row.flags);
    for (std::size_t begin = 0; begin < names.size();) {
      const std::size_t end = std::min(names.find(',', begin), names.size());
      ++flags[names.substr(begin, end - begin)];
      begin = end + 1;
    }
  }
  if (finished > 0) out << "time: " << time_text(seconds / static_cast<double>(finished)) << " a lens on average\n";
  for (const auto& [name, count] : flags) out << "flag " << name << ": " << count_text(count, "lens", "lenses") << '\n';
  for (const Claims::InWork& owner : Claims::list(in(dir, "claims")))
    out << (owner.owner.empty() ? "a process" : owner.owner) << ": "
        << count_text(static_cast<std::size_t>(owner.lenses), "lens", "lenses") << " in work"
        << (owner.ended ? ", but the process has ended"
                        : fmt::format(", last sign of life {} ago", time_text(owner.silent)))
        << '\n';
  for (const std::string& damage : rows.damage()) out << damage << '\n';
  return kDone;
}

Table batch_table(const std::string& dir) {
  const Manifest manifest = manifest_in(dir);
  RowStore rows(in(dir, "rows"));
  rows.refresh();
  return survey_table(manifest, rows);
}

int batch_collect(const std::string& dir, const std::string& given, const std::string& gallery, bool overwrite,
                  std::ostream& log) {
  const Manifest manifest = manifest_in(dir);
  const std::string out = given.empty() ? in(dir, "lenses.fits") : given;
  if (!overwrite && !given.empty() && fs::exists(out))
    throw InvalidInput("--out: " + out + " exists, expected a new file or --overwrite");
  if (const std::string page = in(gallery, "report.html"); !gallery.empty() && !overwrite && fs::exists(page))
    throw InvalidInput("--gallery: " + page + " exists, expected a new folder or --overwrite");
  RowStore rows(in(dir, "rows"));
  rows.refresh();
  const Table table = survey_table(manifest, rows);
  if (fs::path(out).extension() == ".ecsv")
    write_ecsv(out, table);
  else
    write_fits_table(out, table);
  if (!gallery.empty()) write_gallery(gallery, manifest, rows, dir);
  for (const std::string& damage : rows.damage()) log << damage << '\n';
  log << counts_text(counts_of(manifest, rows)) << '\n' << out << '\n';
  if (!gallery.empty()) log << in(gallery, "report.html") << '\n';
  return kDone;
}

}  // namespace einfield
