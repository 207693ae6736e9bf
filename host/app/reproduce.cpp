// Experiments of Biggio et al. (2021), "Differentiable Strong Lensing for Complex Lens Modelling": which runs, which
// figures, one table.
#include "host/app/reproduce.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <ostream>
#include <sstream>

#include "einfield/error.hpp"
#include "host/app/biggio2021.hpp"
#include "host/app/simulate.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/json_view.hpp"
#include "host/files/text.hpp"
#include "host/report/figures.hpp"
#include "host/results/result_files.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

/// One line of results: the same fit from several initial networks.
struct Row {
  std::string name, title;
  std::vector<std::uint64_t> seeds;  ///< of the network; the figures show the first
  int steps = 0;                     ///< largest number of steps; 0 = that of the configuration

  std::string directory(std::uint64_t seed) const {
    return seed == seeds.front() ? name : name + "_seed_" + std::to_string(seed);
  }
};

struct Experiment {
  std::string name;
  const char* config;
  std::vector<Row> rows;
};

/// The overfit network is compared with its state after the 200 steps of the paper.
constexpr int kEarlySteps = 200;

const std::vector<Experiment>& experiments() {
  static const std::vector<Experiment> all = {
      {"sie_noisy", biggio2021::kSieNoisy, {{"sie_noisy", "SIE perturber, noisy data", {1, 2, 3}}}},
      {"shear_noisy", biggio2021::kShearNoisy, {{"shear_noisy", "Shear, noisy data", {1, 2, 3}}}},
      {"sie_noiseless", biggio2021::kSieNoiseless, {{"sie_noiseless", "SIE perturber, data without noise", {1}}}},
      {"sie_overfit",
       biggio2021::kSieOverfit,
       {{"sie_overfit_early", "Overfitting: state after 200 steps", {1}, kEarlySteps},
        {"sie_overfit", "Overfitting: final state", {1}}}}};
  return all;
}

struct Quantity {
  const char* metric;  ///< its name in result.json
  const char* words;
};

constexpr const char* kNoiseChi2 = "noise_chi2";  ///< a property of the data, not of a fit

constexpr Quantity kQuantities[] = {
    {kNoiseChi2, "reduced χ² of the noise itself"},  {"chi2_reduced", "reduced χ²"},
    {"image_rms_over_sigma", "image error [σ rms]"}, {"psi_relative_rms_all", "ψ error, all"},
    {"psi_relative_rms_arc", "ψ error, arcs"},       {"alpha_relative_rms_all", "α error, all"},
    {"alpha_relative_rms_arc", "α error, arcs"},     {"kappa_rms_all", "κ error (absolute), all"},
    {"kappa_rms_arc", "κ error (absolute), arcs"},
};

/// One quantity of one row: a value per seed, and the values of the reference, which may be missing.
struct TableEntry {
  const Row* row;
  Quantity quantity;
  std::vector<double> values, reference;
};

// ---- running ---------------------------------------------------------------------------------------------

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

RunOutcome run_experiment(const Experiment& experiment, const ReproduceOptions& options) {
  // The configuration is written beside its results, so that `einfield fit` can use it.
  const std::string file = in(options.out, experiment.name + ".toml");
  write_atomically(file, std::string(experiment.config));
  const Config simulation = read_config(file, options.settings, true);
  simulate(simulation, simulation.observation.image.path, options.run.overwrite);
  RunOutcome outcome;
  for (const Row& row : experiment.rows)
    for (const std::uint64_t seed : row.seeds) {
      Config config = read_config(file, options.settings, false);
      config.network.value().seed = seed;
      if (row.steps > 0) config.optimizer.steps = std::min(config.optimizer.steps, row.steps);
      RunOptions settings = options.run;
      settings.out = in(options.out, row.directory(seed));
      settings.resume = false;
      settings.figures = options.run.figures && seed == row.seeds.front();
      if (settings.log) *settings.log << "== " << row.directory(seed) << std::endl;
      outcome = run_fit(config, settings);
      if (outcome.stop_reason == StopReason::interrupted || outcome.stop_reason == StopReason::non_finite)
        return outcome;
    }
  return outcome;
}

// ---- the table -------------------------------------------------------------------------------------------

/// Reduced χ² of the drawn noise, which a perfect model would reach; NaN without a truth.
double noise_chi2(const FittedMaps& fit) {
  if (!fit.image_truth) return NAN;
  double sum = 0;
  std::size_t n = 0;
  for (std::size_t i = 0; i < fit.used.size(); ++i) {
    if (!fit.used[i]) continue;
    const double deviation = (fit.data.values[i] - fit.image_truth->values[i]) / fit.noise.values[i];
    sum += deviation * deviation;
    ++n;
  }
  return sum / static_cast<double>(n);
}

/// Values of the reference by row and metric: "a b c" in the third column.
std::map<std::pair<std::string, std::string>, std::vector<double>> reference_values() {
  std::map<std::pair<std::string, std::string>, std::vector<double>> values;
  std::istringstream lines(biggio2021::kReference);
  std::string line, row, metric, number;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::istringstream cells(line);
    std::getline(cells, row, ',');
    std::getline(cells, metric, ',');
    while (cells >> number) values[{row, metric}].push_back(parse_number<double>(number).value());
  }
  return values;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/// A number with the digits that are significant for a median of a few networks; χ² near 1 gets one more.
std::string digits(double value) {
  return value < 0.5 ? fmt::format("{:.3g}", value) : fmt::format("{:.4g}", value);
}

/// "median (lowest … highest)", or the one number, or a dash.
std::string summary(const std::vector<double>& values) {
  if (values.empty()) return "–";
  if (values.size() == 1) return digits(values[0]);
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return digits(median(values)) + " (" + digits(*low) + " … " + digits(*high) + ")";
}

std::string csv(const std::vector<TableEntry>& table) {
  std::string text =
      "experiment,metric,median,lowest,highest,network_seeds,jax_median,jax_lowest,jax_highest,jax_seeds\n";
  const auto cells = [](const std::vector<double>& values) {
    if (values.empty()) return std::string(",,,0");
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return to_text(median(values)) + "," + to_text(*low) + "," + to_text(*high) + "," + std::to_string(values.size());
  };
  for (const TableEntry& entry : table)
    text +=
        entry.row->name + "," + entry.quantity.metric + "," + cells(entry.values) + "," + cells(entry.reference) + "\n";
  return text;
}

/// Width of a UTF-8 text on a terminal: its bytes without continuation bytes, correct for the characters used here.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t columns) {
  return text + std::string(columns > width(text) ? columns - width(text) : 0, ' ');
}

void print(const std::vector<TableEntry>& table, std::ostream& log) {
  const Row* row = nullptr;
  for (const TableEntry& entry : table) {
    if (entry.row != row)
      log << "\n" << padded(entry.row->title, 36) << padded("einfield", 32) << "the paper's method in JAX\n";
    row = entry.row;
    log << "  " << padded(entry.quantity.words, 34) << padded(summary(entry.values), 32) << summary(entry.reference)
        << "\n";
  }
  log << std::endl;
}

// ---- the figures -----------------------------------------------------------------------------------------

struct Figure {
  int number;
  std::string caption;
  Picture picture;
};

Panel& cell(Picture& picture, std::size_t i) {
  return std::get<Panel>(picture.cells[i]);
}

/// Two states of one fit, one above the other, with common color scales; the first map of each is the truth.
Picture stacked(Picture above, Picture below, const std::string& words_above, const std::string& words_below) {
  const std::size_t n = above.cells.size();
  above.cells.insert(above.cells.end(), below.cells.begin(), below.cells.end());
  for (std::size_t i = 0; i < n; ++i) {
    Panel &a = cell(above, i), &b = cell(above, n + i);
    a.range = b.range = {std::min(a.range.low, b.range.low), std::max(a.range.high, b.range.high)};
    if (i == 0) continue;  // the truth
    a.title += words_above;
    b.title += words_below;
  }
  return above;
}

std::string after(const FittedMaps& fit) {
  return ", " + std::to_string(std::lround(fit.steps.back())) + " steps";
}

/// κ of the truth, of the early and of the late state; below them data, model and residuals of the late one.
Picture artifacts(const FittedMaps& early, const FittedMaps& late) {
  Picture first = picture_of_convergence(early), last = picture_of_convergence(late);
  Picture picture = picture_of_image(late);
  Panel truth = cell(last, 0), before = cell(first, 1), behind = cell(last, 1);
  before.inset = cell(first, 2).inset;
  behind.inset = cell(last, 2).inset;
  before.title += after(early);
  behind.title += after(late);
  // The artifacts set the scale, not the cusp of the perturber.
  const double half = std::max(symmetric_range(behind.values, 0.99).high, symmetric_range(truth.values, 0.98).high);
  truth.range = before.range = behind.range = {-half, half};
  picture.cells.insert(picture.cells.begin(), {truth, before, behind});
  return picture;
}

/// All figures whose fits exist. @param fits  by directory
std::vector<Figure> figures(const std::map<std::string, FittedMaps>& fits) {
  std::vector<Figure> result;
  const auto add = [&](int number, const std::string& caption, Picture picture) {
    picture.title = "Fig. " + std::to_string(number) + ": " + caption;
    result.push_back({number, caption, std::move(picture)});
  };
  const auto fit = [&](const char* name) { return fits.count(name) ? &fits.at(name) : nullptr; };
  const FittedMaps *sie = fit("sie_noisy"), *shear = fit("shear_noisy"), *noiseless = fit("sie_noiseless");
  const FittedMaps *early = fit("sie_overfit_early"), *late = fit("sie_overfit");
  if (sie) add(2, "potential of the SIE perturber, noisy data", picture_of_potential(*sie));
  if (shear) add(3, "potential of the shear, noisy data", picture_of_potential(*shear));
  if (sie) add(4, "image with the SIE perturber, noisy data", picture_of_image(*sie));
  if (shear) add(5, "image with the shear, noisy data", picture_of_image(*shear));
  if (noiseless) {
    add(6, "potential of the SIE perturber, data without noise", picture_of_potential(*noiseless));
    add(7, "gradient of the SIE perturber's potential, data without noise", picture_of_deflection(*noiseless));
    add(8, "image with the SIE perturber, data without noise", picture_of_image(*noiseless));
  }
  if (early && late) {
    add(9, "overfitting, potential of the SIE perturber",
        stacked(picture_of_potential(*early), picture_of_potential(*late), after(*early), after(*late)));
    add(10, "overfitting, gradient of the potential" + after(*late), picture_of_deflection(*late));
    add(11, "overfitting, artifacts in the convergence; image" + after(*late), artifacts(*early, *late));
  }
  return result;
}

std::string figure_name(const Figure& figure) {
  return fmt::format("figure_{:02}.png", figure.number);
}

// ---- the page --------------------------------------------------------------------------------------------

std::string page(const std::vector<TableEntry>& table, const std::vector<Figure>& drawn, const std::string& made_by) {
  std::string text =
      "# Biggio et al. (2021) with einfield\n\n"
      "Experiments of \"Differentiable Strong Lensing for Complex Lens Modelling\": simulated, fitted and drawn by "
      "`einfield reproduce biggio2021`.\n\n" +
      made_by +
      "\nNumbers are the median (lowest … highest) over several network seeds, or the value for network seed 1. The "
      "column JAX is the paper's method in JAX, Flax and optax on the same lenses with different noise. Errors of ψ "
      "and "
      "α are relative rms values (ψ has its mean subtracted), errors of κ are absolute rms values; *all* means all "
      "used "
      "pixels, *arcs* those whose noise-free brightness exceeds 5 σ.\n";
  const Row* row = nullptr;
  for (const TableEntry& entry : table) {
    if (entry.row != row)
      text += "\n## " + entry.row->title + " (`" + entry.row->name +
              "`)\n\n| quantity | einfield | JAX |\n| --- | --- | --- |\n";
    row = entry.row;
    text += std::string("| ") + entry.quantity.words + " | " + summary(entry.values) + " | " +
            summary(entry.reference) + " |\n";
  }
  text += "\n## Figures\n";
  for (const Figure& figure : drawn)
    text += "\n![" + figure.caption + "](" + figure_name(figure) + ")\n\n**Fig. " + std::to_string(figure.number) +
            "** " + figure.caption + ".\n";
  return text;
}

/// "experiment: backend (device), precision, steps, seconds" from result.json.
std::string provenance(const std::string& directory, const std::string& name) {
  const std::string file = in(directory, "result.json");
  const nlohmann::json json = read_json(file);
  const JsonView result(json, file);
  return "- `" + name + "`: version " + result.at("version").text() + ", backend " + result.at("backend").text() +
         " (" + result.at("device").text() + "), " + result.at("precision").text() + " precision, " +
         to_text(result.at("steps").number()) + " steps in " + digits(result.at("time_total_s").number()) + " s\n";
}

/// Figures, table and page from everything complete in the directory.
void summarize(const ReproduceOptions& options) {
  std::map<std::string, FittedMaps> fits;
  std::vector<TableEntry> table;
  std::string made_by;
  const auto reference = reference_values();
  for (const Experiment& experiment : experiments())
    for (const Row& row : experiment.rows) {
      const auto directory = [&](std::uint64_t seed) { return in(options.out, row.directory(seed)); };
      if (!std::all_of(row.seeds.begin(), row.seeds.end(),
                       [&](std::uint64_t seed) { return fs::exists(in(directory(seed), "result.json")); }))
        continue;
      for (const std::uint64_t seed : row.seeds) {
        fits[row.directory(seed)] = read_fitted_maps(directory(seed));
        made_by += provenance(directory(seed), row.directory(seed));
      }
      for (const Quantity& quantity : kQuantities) {
        TableEntry entry{&row, quantity, {}, {}};
        for (const std::uint64_t seed : row.seeds) {
          const FittedMaps& fit = fits.at(row.directory(seed));
          const bool of_noise = std::string(quantity.metric) == kNoiseChi2;  // the same for every seed
          const double value = of_noise ? noise_chi2(fit) : fit.metric(quantity.metric);
          if (of_noise && (value == 0 || !entry.values.empty())) continue;
          if (std::isfinite(value)) entry.values.push_back(value);
        }
        const auto found = reference.find({row.name, quantity.metric});
        if (found != reference.end()) entry.reference = found->second;
        if (!entry.values.empty()) table.push_back(entry);
      }
    }

  std::vector<Figure> drawn = figures(fits);
  if (options.run.figures) {
    std::vector<Picture> pictures;
    for (Figure& figure : drawn) {
      figure.picture.path = in(options.out, figure_name(figure));
      pictures.push_back(figure.picture);
    }
    for (const std::string& warning : draw(pictures))
      if (options.run.warnings) *options.run.warnings << "einfield: warning: " << warning << std::endl;
  }
  const auto is_missing = [&](const Figure& figure) { return !fs::exists(in(options.out, figure_name(figure))); };
  drawn.erase(std::remove_if(drawn.begin(), drawn.end(), is_missing), drawn.end());
  write_atomically(in(options.out, "table.csv"), csv(table));
  write_atomically(in(options.out, "README.md"), page(table, drawn, made_by));
  if (options.run.log) {
    print(table, *options.run.log);
    *options.run.log << "figures, table and page: " << options.out << std::endl;
  }
}

/// Without --overwrite, nothing that exists is replaced: neither earlier results nor files of others.
void refuse_what_is_there(const std::string& out, const std::vector<const Experiment*>& selected) {
  const auto refuse = [](const std::string& path, const std::string& what) {
    throw InvalidInput("--out: " + path + what + ", expected a new directory, --overwrite, or --only with " +
                       "experiments that are not there yet");
  };
  for (const Experiment* experiment : selected) {
    for (const Row& row : experiment->rows)
      for (const std::uint64_t seed : row.seeds)
        if (const std::string directory = in(out, row.directory(seed)); holds_results(directory))
          refuse(directory, " holds results");
    const std::string config = in(out, experiment->name + ".toml");
    if (fs::exists(config) && contents(config) != experiment->config) refuse(config, " is another configuration");
  }
  if (fs::exists(in(out, "README.md")) && !fs::exists(in(out, "table.csv")))
    refuse(in(out, "README.md"), " is not of an earlier run");
}

}  // namespace

RunOutcome reproduce(const ReproduceOptions& options) {
  std::vector<const Experiment*> selected;
  for (const Experiment& experiment : experiments())
    if (options.only.empty() || std::count(options.only.begin(), options.only.end(), experiment.name))
      selected.push_back(&experiment);
  for (const std::string& name : options.only)
    EINFIELD_REQUIRE(
        std::any_of(selected.begin(), selected.end(), [&](const Experiment* e) { return e->name == name; }),
        "--only: '" + name + "', expected sie_noisy, shear_noisy, sie_noiseless or sie_overfit");
  if (!options.run.overwrite) refuse_what_is_there(options.out, selected);
  // Fails before anything is written if the backend is not available.
  resolve_backend(options.run.backend, {options.run.threads, options.run.device});
  create_directory(options.out);

  RunOutcome outcome;
  for (const Experiment* experiment : selected) {
    outcome = run_experiment(*experiment, options);
    if (outcome.stop_reason == StopReason::interrupted || outcome.stop_reason == StopReason::non_finite) return outcome;
  }
  summarize(options);
  return outcome;
}

}  // namespace einfield
