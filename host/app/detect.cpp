#include "host/app/detect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "einfield/results.hpp"
#include "einfield/units.hpp"
#include "host/app/run_log.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/directory_lock.hpp"
#include "host/files/memory.hpp"
#include "host/files/text.hpp"
#include "host/model/source_grids.hpp"
#include "host/report/figures.hpp"
#include "host/report/picture.hpp"
#include "host/results/checkpoint.hpp"
#include "host/results/fits_maps.hpp"
#include "host/results/result_files.hpp"
#include "host/results/result_json.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {
namespace {

using nlohmann::ordered_json;

/// A search needs a source that can follow the image, and the solution of everything at once.
void require_pixels(const Config& config) {
  const std::vector<LightComponent>& source = config.model.source;
  const bool pixels =
      std::any_of(source.begin(), source.end(), [](const LightComponent& light) { return light.pixels_free; });
  EINFIELD_REQUIRE(pixels, config.file +
                               ": detect needs a [[source]] with profile = \"PIXELATED\" and fit = [\"pixels\"], "
                               "found none: a source that is too simple looks like a perturber; `einfield new "
                               "--pixels` writes one");
  const OptimizerKind last = config.optimizer.all_stages().back().name;
  EINFIELD_REQUIRE(last == OptimizerKind::gauss_newton,
                   config.file + ": detect needs gauss_newton as the last optimizer, found " + name_of(last) +
                       ", expected recipe = \"galaxy\" or \"evidence\"");
}

/// Where the fit in OUT/fit has ended, without its network, in the units of a fit.
template <class Real>
Problem smooth_problem(const Config& config, const LoadedProblem& loaded, const std::string& dir) {
  const Units units = units_of(loaded.problem);
  Problem problem = in_units(loaded.problem, units);
  const Checkpoint<Real> checkpoint = read_checkpoint<Real>(dir, config, loaded.problem);
  const Snapshot<Real>& end = checkpoint.snapshots.front();
  const ParameterLayout layout(problem.model);
  problem.model = with_parameters(problem.model, layout, {end.parameters.begin(), end.parameters.end()});
  set_source_grids(problem.model, end.grids);
  problem.model.network.reset();
  if (end.evidence) {
    problem.regularization.source_gradient = end.evidence->weights.source_gradient;
    problem.regularization.source_curvature = end.evidence->weights.source_curvature;
  }
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters({});
  return problem;
}

ordered_json mocks_json(const std::vector<NullMock>& mocks) {
  ordered_json json = ordered_json::array();
  for (const NullMock& mock : mocks)
    json.push_back({{"multipoles", mock.multipoles}, {"significance", mock.significance}});
  return json;
}

/// The mocks of an earlier run of the same search; none if there are none.
class Mocks {
 public:
  Mocks(std::string path, ordered_json of) : path_(std::move(path)), of_(std::move(of)) {}

  std::vector<NullMock> read() const {
    std::vector<NullMock> mocks;
    std::ifstream in(path_);
    const nlohmann::json json = nlohmann::json::parse(in, nullptr, false);
    if (!json.is_object() || json.value("of", nlohmann::json()) != nlohmann::json(of_)) return mocks;
    for (const nlohmann::json& mock : json.value("mocks", nlohmann::json::array()))
      mocks.push_back({mock.value("multipoles", false), mock.value("significance", 0.0)});
    return mocks;
  }
  void write(const std::vector<NullMock>& mocks) const {
    write_atomically(path_, ordered_json{{"of", of_}, {"mocks", mocks_json(mocks)}}.dump(1) + "\n");
  }

 private:
  std::string path_;
  ordered_json of_;  ///< what the mocks were made from
};

ordered_json alternative_json(const Alternative& a, const std::optional<Cosmology>& cosmology) {
  ordered_json json = {{"name", a.name},
                       {"evidence_gain", number_or_null(a.evidence_gain)},
                       {"bic_change", number_or_null(a.bic_change)},
                       {"chi2_fall", number_or_null(a.chi2_fall)},
                       {"chi2_reduced", number_or_null(a.chi2_reduced)},
                       {"parameters", a.parameters},
                       {"converged", a.converged},
                       {"held_out_fall", number_or_null(a.held_out_fall.value_or(std::nan("")))},
                       {"added", ordered_json::array()}};
  for (const AddedLens& lens : a.added) {
    ordered_json entry = {{"profile", lens_info(lens.lens.kind).name}};
    for (std::size_t i = 0; i < lens.names.size(); ++i)
      entry[lens.names[i]] = {{"value", number_or_null(lens.values[i])}, {"sigma", number_or_null(lens.sigma[i])}};
    const bool halo = lens.lens.kind != LensKind::multipole && lens.lens.kind != LensKind::flexion;
    if (cosmology && halo) entry["mass_within_1_kpc"] = mass_within_kpc(*cosmology, lens.lens);
    json["added"].push_back(std::move(entry));
  }
  return json;
}

ordered_json detection_json(const Detection& d, const Config& config, const DetectionSettings& settings) {
  const std::optional<Cosmology>& cosmology = config.cosmology;
  ordered_json json = {
      {"einfield", "detect"},
      {"title", config.title},
      {"summary", in_words(d, cosmology)},
      {"found", d.found()},
      {"fits", d.fits()},
      {"smooth",
       {{"chi2_reduced", number_or_null(d.chi2_reduced)},
        {"chi2_allowed", d.chi2_allowed},
        {"log_evidence", number_or_null(d.log_evidence)},
        {"held_out_chi2_reduced", number_or_null(d.held_out_chi2.value_or(std::nan("")))},
        {"converged", d.converged}}},
      {"map", {{"highest_significance", d.highest}, {"by_chance", d.by_chance}, {"significance_of_5_percent", d.seen}}},
      {"candidates", ordered_json::array()},
      {"alternatives", ordered_json::array()},
      {"nulls", {{"seed", settings.seed}, {"p_value", nullptr}, {"mocks", mocks_json(d.nulls)}}},
      {"injections", ordered_json::array()}};
  for (const Candidate& c : d.candidates)
    json["candidates"].push_back({{"x", c.place.x},
                                  {"y", c.place.y},
                                  {"significance", c.significance},
                                  {"theta_E", c.theta_E},
                                  {"theta_E_that_would_be_seen", c.limit}});
  for (const Alternative& a : d.alternatives) json["alternatives"].push_back(alternative_json(a, cosmology));
  if (const auto p = d.p_value()) json["nulls"]["p_value"] = *p;
  for (const Injection& i : d.injections)
    json["injections"].push_back({{"x", i.place.x},
                                  {"y", i.place.y},
                                  {"theta_E", i.theta_E},
                                  {"expected_significance", i.expected},
                                  {"significance", i.found}});
  return json;
}

void write_maps(const Detection& d, const LoadedProblem& loaded, const std::string& path) {
  const PixelGrid& g = d.grid;
  const Grid grid{g.nx, g.ny, g.pixel_scale, g.center_x, g.center_y, 1};
  FitsMaps maps(grid, false,
                loaded.wcs ? std::optional(loaded.wcs->on(loaded.problem.observation.grid, grid)) : std::nullopt);
  maps.add("DETECT_THETA_E", "arcsec", d.theta_E);
  maps.add("DETECT_SIGMA", "arcsec", d.sigma);
  maps.add("DETECT_SNR", "", d.significance);
  maps.add("DETECT_LIMIT", "arcsec", d.limit);
  write_fits(path, maps.hdus());
}

/// The maps as figures, and the page of the fit with a section on the search.
void draw_search(const RunOptions& options, const std::string& fit, Log& log) {
  create_directory(options.out + "/figures");
  Picture picture = picture_of_search(read_search_maps(options.out + "/detect.fits"));
  picture.path = options.out + "/figures/detect.png";
  const std::vector<std::string> complaints = draw({picture});
  for (const std::string& warning : complaints) log.warning(warning);
  for (const std::string& warning : write_report(fit, options.threads))
    if (std::find(complaints.begin(), complaints.end(), warning) == complaints.end()) log.warning(warning);
}

/// The fit of OUT/fit, unless it is there. @return its outcome when the search cannot follow
std::optional<RunOutcome> fit_first(const Config& config, RunOptions options, Log& log) {
  if (options.resume && holds_results(options.out)) {
    log.line("fit: " + options.out + " holds the results of an earlier run");
    return std::nullopt;
  }
  const RunOutcome outcome = run_fit(config, options);
  const bool usable = outcome.stop_reason && *outcome.stop_reason != StopReason::interrupted &&
                      *outcome.stop_reason != StopReason::non_finite && outcome.status != FitStatus::failed;
  return usable ? std::nullopt : std::optional(outcome);
}

/// @param given  directory of a finished fit; "": OUT/fit, which is made here
RunOutcome search(const Config& config, const std::string& given, const RunOptions& options,
                  const DetectionSettings& settings) {
  require_pixels(config);
  const std::string result = options.out + "/detect.json";
  EINFIELD_REQUIRE(
      options.resume || options.overwrite || !std::filesystem::exists(result),
      "--out: " + options.out + " holds results of detect, expected a new directory, --resume or --overwrite");
  const std::string fit = given.empty() ? options.out + "/fit" : given;
  Log log(options, 0, true);
  std::optional<DirectoryLock> lock;  // run_fit() locks OUT/fit
  if (given.empty()) {
    RunOptions of_fit = options;
    of_fit.out = fit;
    if (const std::optional<RunOutcome> ended = fit_first(config, of_fit, log)) return *ended;
  } else {
    create_directory(options.out);
    lock.emplace(options.out);
    log.line("fit: " + fit + " holds a finished fit");
  }

  const LoadedProblem loaded = load_problem(config);
  Problem problem = options.double_precision ? smooth_problem<double>(config, loaded, fit)
                                             : smooth_problem<float>(config, loaded, fit);
  ThreadPool pool(options.threads);
  require_memory(static_cast<double>(detection_bytes(problem, pool.threads())), "the search");
  RunOutcome outcome{StopReason::converged, ""};
  try {
    log.line("smooth lens: the same model without a network");
    Explanation smooth = explain(
        "smooth lens", std::move(problem),
        {.source_contrast = config.regularization.source_contrast, .choose_weights = config.regularization.automatic},
        pool, options.interrupted);
    // From here on every explanation has the same prior of the source, up to its strength.
    smooth = explain("smooth lens", smooth.problem, {.choose_weights = config.regularization.automatic}, pool,
                     options.interrupted);
    log.line(fmt::format("smooth lens: reduced chi2 {:.4g}, ln evidence {:.1f}, {} after {} steps",
                         smooth.chi2 / fitted_pixels(smooth.problem), smooth.log_evidence,
                         smooth.converged ? "converged" : "not converged", smooth.steps));
    const Mocks mocks(options.out + "/mocks.json", {{"log_evidence", number_or_null(smooth.log_evidence)},
                                                    {"chi2", number_or_null(smooth.chi2)},
                                                    {"seed", settings.seed}});
    const Detection found = detect(
        smooth, units_of(loaded.problem).angle, settings, pool, options.resume ? mocks.read() : std::vector<NullMock>{},
        [&log](const std::string& line) { log.line(line); },
        [&mocks](const std::vector<NullMock>& done) { mocks.write(done); }, options.interrupted);
    write_maps(found, loaded, options.out + "/detect.fits");
    write_atomically(result, detection_json(found, config, settings).dump(1) + "\n");
    if (options.figures) draw_search(options, fit, log);
    log.line(in_words(found, config.cosmology));
    log.line("results: " + options.out);
  } catch (const InterruptedDetection&) {
    log.line("interrupted during the search; --resume continues from " + options.out);
    outcome.stop_reason = StopReason::interrupted;
  }
  return outcome;
}

}  // namespace

FinishedFit finished_fit(const std::string& dir) {
  const StoredResult stored(dir);
  const JsonView root = stored.root();
  const std::string file = in(dir, "result.json"), stopped = root.at("stop_reason").text();
  EINFIELD_REQUIRE(
      stopped != name_of(StopReason::interrupted) && root.at("status").text() != name_of(FitStatus::failed),
      file + ": the fit is not complete, found stop_reason \"" + stopped + "\" and status \"" +
          root.at("status").text() + "\", expected a finished fit; `einfield fit --resume` continues one");
  EINFIELD_REQUIRE(has_checkpoint(dir), dir + ": no checkpoint.safetensors, expected the directory of a fit");
  return {dir, read_config_text(root.at("config_toml").text(), file, false), stored.double_precision()};
}

RunOutcome run_detect(const FinishedFit& fit, RunOptions options, const DetectionSettings& settings) {
  options.double_precision = fit.double_precision;
  return search(fit.config, fit.dir, options, settings);
}

RunOutcome run_detect(const Config& config, const RunOptions& options, const DetectionSettings& settings) {
  return search(config, "", options, settings);
}

}  // namespace einfield
