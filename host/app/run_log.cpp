// Lines for a file, a bar for a terminal.
#include "host/app/run_log.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include "einfield/units.hpp"

namespace einfield {

Log::Log(const RunOptions& options, int steps, bool at_most)
    : stream_(options.log),
      warnings_(options.warnings),
      terminal_(options.terminal),
      steps_(steps),
      at_most_(at_most) {}

Log::~Log() {
  end_bar();
}

void Log::line(const std::string& message) {
  end_bar();
  if (stream_) *stream_ << message << std::endl;
}

void Log::warning(const std::string& message) {
  end_bar();
  if (warnings_) *warnings_ << "einfield: warning: " << message << std::endl;
}

void Log::progress(const HistoryRow& row) {
  if (!stream_ || row.step == last_step_) return;  // already reported: the fit returned to an earlier state
  last_step_ = row.step;
  if (first_step_ < 0) {
    first_step_ = row.step;
    first_time_ = row.time_s;
  }
  const double seconds = row.time_s - first_time_;
  const double rate = seconds > 0 ? static_cast<double>(row.step - first_step_) / seconds : 0;
  std::string status =
      fmt::format("step {}{}{}  chi2 {:.5g}", row.step, at_most_ ? " of at most " : "/", steps_, row.chi2_reduced);
  if (rate > 0)
    status += fmt::format("  {:.1f} steps/s  {}{:.0f} s left", rate, at_most_ ? "at most " : "",
                          static_cast<double>(steps_ - row.step) / rate);
  if (terminal_)
    draw_bar(std::move(status), row.step, steps_);
  else
    line(status);
}

void Log::starts(const StartsProgress& now, std::size_t stages) {
  if (!stream_) return;
  std::string status = stages > 1 ? fmt::format("stage {} of {}, ", now.stage + 1, stages) : "";
  status += fmt::format("starts: {} of {} ended, lowest reduced chi2 {:.5g}", now.ended, now.count, now.chi2_reduced);
  if (terminal_)
    draw_bar(std::move(status), now.ended, now.count);
  else
    line(status);
}

void Log::draw_bar(std::string status, std::int64_t steps_done, std::int64_t all) {
  winsize size{};
  const int columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  // A line that wraps could not be drawn again.
  if (static_cast<int>(status.size()) >= columns) status.resize(static_cast<std::size_t>(columns) - 1);
  const int width = columns - static_cast<int>(status.size()) - 5;
  *stream_ << '\r';
  if (width >= 10) {
    const int done = all > 0 ? static_cast<int>(steps_done * width / all) : width;
    std::string bar(static_cast<std::size_t>(done), '=');
    bar.resize(static_cast<std::size_t>(width), ' ');
    *stream_ << '[' << bar << "] ";
  }
  *stream_ << status << "\033[K" << std::flush;
  bar_shown_ = true;
}

void Log::end_bar() {
  if (bar_shown_) *stream_ << std::endl;
  bar_shown_ = false;
}

namespace {

/// The components with their profiles, and the layers of the networks.
std::string model_line(const Model& m) {
  std::string model = "model:";
  const auto add = [&model](const std::string& name, const char* profile) {
    model += " " + name + " " + profile + ",";
  };
  for (std::size_t i = 0; i < m.lens.size(); ++i) add("lens." + std::to_string(i), lens_info(m.lens[i].kind).name);
  for (std::size_t i = 0; i < m.source.size(); ++i)
    add("source." + std::to_string(i), light_info(m.source[i].kind).name);
  for (std::size_t i = 0; i < m.lens_light.size(); ++i)
    add("lens_light." + std::to_string(i), light_info(m.lens_light[i].kind).name);
  const auto add_network = [&model](const std::string& name, const NetworkShape& shape) {
    model += " " + name + " 2";
    if (shape.fourier_features > 0) model += "-" + std::to_string(shape.fourier_features) + " Fourier";
    for (const int width : shape.hidden) model.append(1, '-').append(std::to_string(width));
    model += "-1,";
  };
  if (const LightComponent* const light = network_light(m)) add_network("light network", light->network);
  if (m.network) add_network("network", *m.network);
  model.pop_back();
  return model;
}

}  // namespace

void describe(Log& log, const LoadedProblem& loaded, const ParameterLayout& layout) {
  const Problem& problem = loaded.problem;
  const Observation& observation = problem.observation;
  log.line(fmt::format("image: {} x {} pixels of {:g} arcsec, {} used; PSF {} x {}; supersampling {}",
                       observation.grid.nx, observation.grid.ny, observation.grid.pixel_scale, observation.n_used(),
                       observation.psf.nx, observation.psf.ny, observation.grid.supersampling));
  const Units units = units_of(problem);
  log.line(fmt::format("noise: {:.4g} on average by weight; units of the fit: {:.4g} arcsec, {:.4g} image unit",
                       noise_unit(observation), units.angle, units.brightness));
  if (const NoiseCorrelation& k = observation.noise_correlation; !k.empty())
    log.line(fmt::format("noise: correlated, {:.2f} with the next column and {:.2f} with the next row; kernel {} x {}",
                         k.at(1, 0), k.at(0, 1), k.nx, k.ny));
  if (observation.psf.supersampling > 1)
    log.line(fmt::format("PSF: {} samples per pixel and side", observation.psf.supersampling));
  if (loaded.wcs)
    log.line(fmt::format("sky: +y points to position angle {:g} degrees (North towards East)",
                         std::round(loaded.wcs->position_angle(kPi / 2) * 100) / 100 + 0.0) +
             (loaded.wcs->right_handed() ? "" : ", mirrored"));
  log.line(model_line(problem.model));
  const auto count = [](std::size_t n, const std::string& noun) {
    return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
  };
  const LightComponent* const light = network_light(problem.model);
  const std::size_t fixed = problem.model.network ? problem.model.network->fixed_size() : 0;
  const std::size_t of_light = layout.n_light_weights > 0 ? layout.n_light_weights - light->network.fixed_size() : 0;
  log.line("free: " + count(layout.n_network - fixed, "network weight") + ", " + count(layout.n_free(), "parameter") +
           ", " + count(layout.free_pixels.size(), "source pixel") +
           (of_light > 0 ? ", " + count(of_light, "light network weight") : ""));
}

Log log_of(const Config& config, const RunOptions& options) {
  int steps = 0;
  bool at_most = false;
  for (const StageConfig& stage : config.optimizer.all_stages()) {
    steps += stage.steps;
    at_most |= stage.stop != StopRule::none || stage.name != OptimizerKind::adam;
  }
  return Log(options, steps, at_most);
}

void report_starts(Log& log, const std::vector<StartRecord>& starts) {
  if (starts.empty()) return;
  int redrawn = 0;
  double best = kInfinity;
  for (const StartRecord& start : starts) {
    redrawn += start.redrawn;
    if (start.best) best = start.chi2_reduced;
  }
  const int reached = reached_best(starts);
  log.line(fmt::format(
      "starts: {} of {} reached the best one (reduced chi2 {:.5g}) within a fraction of {:g}; {} redrawn (non-finite)",
      reached, starts.size(), best, kSameValley, redrawn));
}

}  // namespace einfield
