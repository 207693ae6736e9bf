// The subcommands of `einfield batch`, with their log in memory. A run is watched by the thread that called it, which
// has Python's signals and callbacks; another thread does the work.
#include "python/src/survey.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <ostream>
#include <sstream>
#include <streambuf>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "host/app/batch.hpp"
#include "host/batch/engine.hpp"
#include "host/files/table.hpp"
#include "python/src/arrays.hpp"
#include "python/src/interrupts.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace einfield::python {
namespace {

/// A stream whose whole lines may be taken by another thread.
class Lines final : private std::streambuf, public std::ostream {
 public:
  Lines() : std::ostream(this) {}
  std::vector<std::string> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(done_, {});
  }

 private:
  int overflow(int c) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (c == '\n')
      done_.push_back(std::exchange(line_, {}));
    else if (c != std::streambuf::traits_type::eof())
      line_ += static_cast<char>(c);
    return std::streambuf::traits_type::not_eof(c);
  }

  std::mutex mutex_;
  std::string line_;
  std::vector<std::string> done_;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// @param work    from options to the exit status
/// @param report  called with each line of the log, or None
/// @return exit status, lines of the log, warnings
nb::tuple watched(BatchOptions options, const std::function<int(const BatchOptions&)>& work, const nb::object& report) {
  Lines log, warned;
  std::atomic<bool> stop{false};
  options.run.log = &log;
  options.run.warnings = &warned;
  options.run.interrupted = [&stop] { return stop.load(); };
  Interrupts interrupts;
  std::vector<std::string> lines;
  std::future<int> status;
  {
    const nb::gil_scoped_release release;
    status = std::async(std::launch::async, [&work, &options] { return work(options); });
    for (bool more = true; more;) {
      more = status.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready;
      for (std::string& line : log.take()) {
        if (!report.is_none()) interrupts.run([&] { report(line); });
        lines.push_back(std::move(line));
      }
      if (more && interrupts.poll()) stop = true;
    }
  }
  interrupts.rethrow();
  const int exit_status = status.get();
  return nb::make_tuple(exit_status, lines, warned.take());
}

BatchOptions options_of(const std::string& manifest, const std::string& template_file, const std::string& backend,
                        std::optional<int> device, int threads, bool double_precision) {
  BatchOptions options;
  options.manifest = manifest;
  options.template_file = template_file;
  options.run.backend = backend;
  options.run.device = device;
  options.run.threads = threads;
  options.run.double_precision = double_precision;
  return options;
}

nb::tuple plan(const std::string& manifest, const std::string& template_file, int sample, const std::string& backend,
               std::optional<int> device, int threads, bool double_precision, const nb::object& report) {
  return watched(
      options_of(manifest, template_file, backend, device, threads, double_precision),
      [sample](const BatchOptions& options) { return batch_plan(options, sample); }, report);
}

/// @param settings  by the names of the options: out, shard, only, keep, time-limit, lease
nb::tuple run(const std::string& manifest, const std::string& template_file,
              const std::vector<std::pair<std::string, std::string>>& settings, const std::string& backend,
              std::optional<int> device, int threads, bool double_precision, const nb::object& report) {
  BatchOptions options = options_of(manifest, template_file, backend, device, threads, double_precision);
  for (const auto& [name, value] : settings) {
    if (name == "out") options.out = value;
    if (name == "shard") options.shard = value;
    if (name == "only") options.only = value;
    if (name == "keep") options.keep = value == "all" ? Keep::all : value == "flagged" ? Keep::flagged : Keep::none;
    if (name == "time-limit") options.time_limit = seconds_of("--time-limit", value);
    if (name == "lease") options.lease = seconds_of("--lease", value);
  }
  return watched(options, batch_run, report);
}

std::vector<std::string> status(const std::string& dir) {
  const nb::gil_scoped_release release;
  std::ostringstream log;
  batch_status(dir, log);
  return lines_of(log.str());
}

std::vector<std::string> collect(const std::string& dir, const std::string& out, const std::string& gallery,
                                 bool overwrite) {
  const nb::gil_scoped_release release;
  std::ostringstream log;
  batch_collect(dir, out, gallery, overwrite, log);
  return lines_of(log.str());
}

/// The columns of the table: arrays of numbers, lists of texts.
nb::dict table(const std::string& dir) {
  Table found;
  {
    const nb::gil_scoped_release release;
    found = batch_table(dir);
  }
  nb::dict columns;
  for (TableColumn& column : found.columns) {
    const auto put = [&](auto& values) {
      using Value = typename std::decay_t<decltype(values)>::value_type;
      if constexpr (std::is_same_v<Value, std::string>)
        columns[column.name.c_str()] = values;
      else
        columns[column.name.c_str()] = to_numpy(std::move(values), {found.rows()});
    };
    std::visit(put, column.values);
  }
  return columns;
}

}  // namespace

void bind_survey(nb::module_& m) {
  m.def("batch_plan", &plan, "manifest"_a, "template_file"_a, "sample"_a, "backend"_a, "device"_a.none(), "threads"_a,
        "double_precision"_a, "report"_a.none());
  m.def("batch_run", &run, "manifest"_a, "template_file"_a, "settings"_a, "backend"_a, "device"_a.none(), "threads"_a,
        "double_precision"_a, "report"_a.none());
  m.def("batch_status", &status, "dir"_a);
  m.def("batch_collect", &collect, "dir"_a, "out"_a, "gallery"_a, "overwrite"_a);
  m.def("batch_table", &table, "dir"_a);
}

}  // namespace einfield::python
