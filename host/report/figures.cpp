// The figures of a fit: maps of result.fits, curves of history.csv, numbers of result.json.
#include "host/report/figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "host/fields/frame.hpp"
#include "host/fields/metrics.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/results/result_json.hpp"
#include "host/results/stored_result.hpp"
#include "host/results/write_results.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

/// Where the maps of a fit come from: a file, or memory.
struct MapSource {
  std::function<FitsImage(const std::string& hdu, int planes)> read;
  std::function<bool(const std::string& hdu)> has;
  std::string name;  ///< for messages
};

/// One plane of an HDU that has `planes` of them. @param unit  as people write it; "" = as the HDU has it
PlacedMap placed_map(const MapSource& maps, const std::string& hdu, const std::string& unit, int planes = 1,
                     int plane = 0) {
  const FitsImage image = maps.read(hdu, planes);
  if (!image.linear)
    throw InvalidInput(maps.name + "[" + hdu + "]: no linear WCS in arcsec, expected the results of a fit");
  PlacedMap map{image.nx,
                image.ny,
                image.linear->pixel_scale,
                image.linear->center_x,
                image.linear->center_y,
                {},
                unit.empty() ? image.unit : unit};
  const auto size = static_cast<std::ptrdiff_t>(image.nx) * image.ny;
  map.values.assign(image.values.begin() + plane * size, image.values.begin() + (plane + 1) * size);
  return map;
}

LensMaps lens_maps(const MapSource& maps, const std::string& suffix) {
  return {placed_map(maps, "PSI_" + suffix, "arcsec²"), placed_map(maps, "ALPHA_" + suffix, "arcsec", 2, 0),
          placed_map(maps, "ALPHA_" + suffix, "arcsec", 2, 1), placed_map(maps, "KAPPA_" + suffix, "")};
}

/// An HDU as read_fits() returns it after write_fits(): values in the precision of the file, its place with the 15
/// digits of a header.
FitsImage as_stored(const FitsOutput& hdu) {
  FitsImage image;
  image.nx = hdu.nx;
  image.ny = hdu.ny;
  image.hdu = hdu.name;
  image.unit = hdu.unit;
  image.values = hdu.values;
  if (hdu.bitpix == -32)
    for (double& value : image.values) value = static_cast<float>(value);
  const auto in_header = [](double value) { return std::strtod(fmt::format("{:.15G}", value).c_str(), nullptr); };
  image.linear = LinearWcs{in_header(hdu.pixel_scale), in_header(hdu.center_x), in_header(hdu.center_y)};
  return image;
}

/// @param maps  must outlive the source
MapSource source_of(const FitsMaps& maps) {
  const auto find = [&maps](const std::string& name) -> const FitsOutput* {
    for (const FitsOutput& hdu : maps.hdus())
      if (hdu.name == name) return &hdu;
    return nullptr;
  };
  return {[find](const std::string& name, int) { return as_stored(*find(name)); },
          [find](const std::string& name) { return find(name) != nullptr; }, "result.fits"};
}

template <class Value>
std::vector<Value> cut(const std::vector<Value>& values, int nx, const Frame& frame) {
  std::vector<Value> part;
  part.reserve(static_cast<std::size_t>(frame.nx) * static_cast<std::size_t>(frame.ny));
  for (int y = frame.y; y < frame.y + frame.ny; ++y) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(y) * nx + frame.x;
    part.insert(part.end(), row, row + frame.nx);
  }
  return part;
}

void crop(PlacedMap& map, const Frame& frame) {
  map.values = cut(map.values, map.nx, frame);
  map.center_x += (frame.x + 0.5 * (frame.nx - map.nx)) * map.pixel_scale;
  map.center_y += (frame.y + 0.5 * (frame.ny - map.ny)) * map.pixel_scale;
  map.nx = frame.nx;
  map.ny = frame.ny;
}

/// All maps of the image plane.
void crop(FittedMaps& fit, const Frame& frame) {
  const auto crop_lens = [&](LensMaps& lens) {
    for (PlacedMap* map : {&lens.psi, &lens.alpha_x, &lens.alpha_y, &lens.kappa}) crop(*map, frame);
  };
  const int nx = fit.data.nx;
  fit.used = cut(fit.used, nx, frame);
  if (!fit.arc.empty()) fit.arc = cut(fit.arc, nx, frame);
  for (PlacedMap* map : {&fit.data, &fit.model, &fit.residual, &fit.noise}) crop(*map, frame);
  for (std::optional<PlacedMap>* map : {&fit.arcs, &fit.arcs_model, &fit.sensitivity, &fit.image_truth, &fit.ratio})
    if (*map) crop(**map, frame);
  crop_lens(fit.macro);
  crop_lens(fit.network);
  for (std::optional<LensMaps>* lens : {&fit.deviation, &fit.truth})
    if (*lens) crop_lens(**lens);
}

/// From "wcs" of result.json: where the image is not mirrored, the position angle grows with the angle from +x.
std::optional<Compass> compass_of(const nlohmann::json& wcs) {
  if (!wcs.is_object() || !wcs.contains("position_angle_y") || !wcs.contains("mirrored")) return std::nullopt;
  const nlohmann::json &of_y = wcs["position_angle_y"], &mirrored = wcs["mirrored"];
  if (!of_y.is_number() || !mirrored.is_boolean()) return std::nullopt;
  const double turn = mirrored.get<bool>() ? -1 : 1, north = kPi / 2 - turn * of_y.get<double>() * kPi / 180;
  return Compass{north, north + turn * kPi / 2};
}

/// The maps; fit.title, history and metrics are the caller's.
void fill_maps(FittedMaps& fit, const MapSource& maps) {
  fit.data = placed_map(maps, "DATA", "");
  if (fit.data.unit.empty()) fit.data.unit = "brightness per pixel";
  const std::string& unit = fit.data.unit;
  fit.model = placed_map(maps, "MODEL", unit);
  fit.residual = placed_map(maps, "RESIDUAL", "σ");
  if (maps.has("LENS_LIGHT")) {
    const std::vector<double> light = placed_map(maps, "LENS_LIGHT", unit).values;
    if (std::any_of(light.begin(), light.end(), [](double v) { return v != 0; })) {
      fit.arcs = placed_map(maps, "ARCS", unit);
      fit.arcs_model = placed_map(maps, "ARCS_MODEL", unit);
    }
  }
  fit.source = placed_map(maps, "SOURCE", unit);
  fit.network = lens_maps(maps, "NN");
  fit.macro = lens_maps(maps, "MACRO");
  if (maps.has("SENSITIVITY")) fit.sensitivity = placed_map(maps, "SENSITIVITY", "σ / arcsec");
  if (maps.has("PSI_NN_STD")) fit.deviation = lens_maps(maps, "NN_STD");
  if (maps.has("KAPPA_NN_PSF_STD")) {
    fit.ratio = placed_map(maps, "KAPPA_NN_PSF", "σ");
    const PlacedMap sigma = placed_map(maps, "KAPPA_NN_PSF_STD", "");
    for (std::size_t i = 0; i < sigma.values.size(); ++i) fit.ratio->values[i] /= sigma.values[i];
  } else if (maps.has("KAPPA_NN_SNR")) {
    fit.ratio = placed_map(maps, "KAPPA_NN_SNR", "σ");
  }
  fit.noise = placed_map(maps, "NOISE", unit);
  const PlacedMap mask = placed_map(maps, "MASK", "");
  for (const double m : mask.values) fit.used.push_back(m != 0);
  for (std::size_t i = 0; i < fit.used.size(); ++i)
    if (!fit.used[i]) {
      fit.data.values[i] = fit.residual.values[i] = NAN;
      if (fit.arcs) fit.arcs->values[i] = NAN;
    }
  if (maps.has("IMAGE_TRUE")) {
    fit.image_truth = placed_map(maps, "IMAGE_TRUE", unit);
    for (std::size_t i = 0; i < fit.used.size(); ++i)
      fit.arc.push_back(fit.used[i] && fit.image_truth->values[i] > kArcSignalToNoise * fit.noise.values[i]);
  }
  if (maps.has("PSI_TRUE") && maps.has("ALPHA_TRUE") && maps.has("KAPPA_TRUE")) fit.truth = lens_maps(maps, "TRUE");
  fit.n_pixels = fit.used.size();
  crop(fit, frame_of(fit.used, fit.data.nx, fit.data.ny));
}

std::string significant(double value) {
  return fmt::format(fmt::runtime(value < 0.5 ? "{:.3g}" : "{:.4g}"), value);
}

/// "prefix X (arcs), Y (all)"; "" when both are unknown.
std::string of_regions(const std::string& prefix, double arc, double all,
                       const std::function<std::string(double)>& format) {
  std::string words;
  if (std::isfinite(arc)) words += format(arc) + " (arcs)";
  if (std::isfinite(all)) words += (words.empty() ? "" : ", ") + format(all) + " (all)";
  return words.empty() ? "" : prefix + words;
}

Panel panel(const PlacedMap& map, const std::string& title, Palette palette, ColorRange range) {
  Panel result;
  result.title = title;
  result.unit = map.unit;
  result.nx = map.nx;
  result.ny = map.ny;
  result.values = map.values;
  result.pixel_scale = map.pixel_scale;
  result.center_x = map.center_x;
  result.center_y = map.center_y;
  result.palette = palette;
  result.range = range;
  return result;
}

PlacedMap difference(const PlacedMap& a, const PlacedMap& b) {
  PlacedMap result = a;
  for (std::size_t i = 0; i < result.values.size(); ++i) result.values[i] -= b.values[i];
  return result;
}

/// The map minus its mean over the used pixels: a constant of the potential is unobservable.
PlacedMap without_mean(PlacedMap map, const std::vector<std::uint8_t>& used) {
  double sum = 0;
  std::size_t n = 0;
  for (std::size_t i = 0; i < map.values.size(); ++i)
    if (used[i] && std::isfinite(map.values[i])) {
      sum += map.values[i];
      ++n;
    }
  if (n > 0)
    for (double& value : map.values) value -= sum / static_cast<double>(n);
  return map;
}

ColorRange together(ColorRange a, ColorRange b) {
  return {std::min(a.low, b.low), std::max(a.high, b.high)};
}

/// A panel of brightness. Its colors are linear in asinh(brightness / 3 σ), where σ is the median noise: a lensed arc
/// is visible beside a galaxy a hundred times brighter, and the noise of the sky is not.
Panel light_panel(const FittedMaps& fit, const PlacedMap& map, const std::string& title, ColorRange range) {
  Panel result = panel(map, title, Palette::intensity, range);
  std::vector<double> noise;
  for (std::size_t i = 0; i < fit.used.size(); ++i)
    if (fit.used[i]) noise.push_back(fit.noise.values[i]);
  result.softening = noise.empty() ? 0 : 3 * quantile_range(noise, 0, 0.5).high;
  return result;
}

ColorRange brightness_range(const PlacedMap& map) {
  return quantile_range(map.values, 0.005, 0.9998);
}

/// The range of normalized residuals: ±5 σ; smaller for data without noise, larger where the model fails.
ColorRange residual_range(const PlacedMap& residual) {
  const ColorRange range = symmetric_range(residual.values, 0.999);
  return range.high > 2.5 && range.high < 5 ? ColorRange{-5, 5} : range;
}

/// Truth, prediction and prediction − truth of one quantity. The first two share a scale.
void add_comparison(Picture& picture, const FittedMaps& fit, const PlacedMap& truth, const PlacedMap& prediction,
                    const std::string& symbol, Palette palette, const std::string& inset) {
  // Only the values over most of the field widen the scale: the corners of the prediction are not constrained.
  const ColorRange range =
      palette == Palette::diverging
          ? together(symmetric_range(truth.values, 0.995), symmetric_range(prediction.values, 0.95))
          : together(quantile_range(truth.values, 0, 1), quantile_range(prediction.values, 0.05, 0.95));
  const PlacedMap error = difference(prediction, truth);
  picture.cells.emplace_back(panel(truth, symbol + ", truth", palette, range));
  picture.cells.emplace_back(panel(prediction, symbol + ", prediction", palette, range));
  picture.cells.emplace_back(
      panel(error, symbol + ", prediction − truth", Palette::diverging, symmetric_range(error.values, 0.995)));
  for (std::size_t i = picture.cells.size() - 3; i < picture.cells.size(); ++i)
    std::get<Panel>(picture.cells[i]).outline = fit.arc;
  std::get<Panel>(picture.cells.back()).inset = inset;
}

Picture comparison(const FittedMaps& fit) {
  Picture picture;
  picture.title = fit.title;
  picture.columns = 3;
  const auto note = [&](bool holds, const char* words) {
    if (holds) picture.note += (picture.note.empty() ? "" : "; ") + std::string(words);
  };
  note(!fit.arc.empty(), "outline: the arcs, noise-free brightness above 5 σ");
  note(std::count(fit.used.begin(), fit.used.end(), 0) > 0, "gray: masked");
  return picture;
}

/// The distribution of the residuals as a line of steps, and the normal distribution. Both end where a bin holds less
/// than one pixel.
Chart histogram(const std::vector<double>& residuals) {
  constexpr double kWidth = 0.25, kMost = 8;
  constexpr auto kBins = static_cast<std::size_t>(2 * kMost / kWidth);
  std::vector<double> counts(kBins, 0.0);
  double n = 0;
  for (const double r : residuals) {
    if (!std::isfinite(r)) continue;
    ++n;
    // Values beyond the ends are counted in the last bins.
    const double bin = std::clamp(std::floor((r + kMost) / kWidth), 0.0, static_cast<double>(kBins - 1));
    ++counts[static_cast<std::size_t>(bin)];
  }
  const double least = 0.5 / (std::max(n, 1.0) * kWidth);
  Curve data{"residuals", {}, {}}, normal{"N(0, 1)", {}, {}, true};
  for (std::size_t i = 0; i < kBins; ++i) {
    const double left = static_cast<double>(i) * kWidth - kMost;
    const double density = std::max(counts[i] / (std::max(n, 1.0) * kWidth), least);
    for (const double x : {left, left + kWidth}) {
      data.x.push_back(x);
      data.y.push_back(density);
    }
  }
  for (double x = -kMost; x <= kMost; x += 0.05) {
    const double density = std::exp(-x * x / 2) / std::sqrt(2 * kPi);
    if (density < least) continue;
    normal.x.push_back(x);
    normal.y.push_back(density);
  }
  Chart chart;
  chart.x_label = "(data − model) / noise";
  chart.y_label = "density";
  chart.curves = {std::move(data), std::move(normal)};
  return chart;
}

/// Mean, scatter and outliers of the residuals.
std::string residual_statistics(const std::vector<double>& residuals) {
  double n = 0, sum = 0, squares = 0, beyond = 0;
  for (const double r : residuals) {
    if (!std::isfinite(r)) continue;
    ++n;
    sum += r;
    squares += r * r;
    beyond += std::abs(r) > 3;
  }
  if (n == 0) return "";
  const double mean = sum / n;
  return "Mean " + significant(mean) + ", standard deviation " +
         significant(std::sqrt(std::max(squares / n - mean * mean, 0.0))) + "; " + percent(beyond / n) +
         " of the pixels lie beyond 3 σ; a normal distribution has 0.3 %.";
}

/// κ over its error, with lines at 3 and 5 σ in the used pixels.
Panel ratio_panel(const FittedMaps& fit) {
  const PlacedMap& ratio = *fit.ratio;
  const ColorRange range = symmetric_range(ratio.values, 0.999);
  Panel result = panel(ratio, "κ / σ, network", Palette::diverging, range);
  for (std::size_t i = 0; i < ratio.values.size(); ++i) {
    const double size = fit.used[i] ? std::abs(ratio.values[i]) : 0;
    result.outline.push_back(static_cast<std::uint8_t>((size > 3) + (size > 5)));
  }
  return result;
}

PlacedMap lengths(const PlacedMap& x, const PlacedMap& y) {
  PlacedMap result = x;
  for (std::size_t i = 0; i < result.values.size(); ++i) result.values[i] = std::hypot(x.values[i], y.values[i]);
  return result;
}

PlacedMap added(const PlacedMap& a, const PlacedMap& b) {
  PlacedMap result = a;
  for (std::size_t i = 0; i < result.values.size(); ++i) result.values[i] += b.values[i];
  return result;
}

Trace trace(const Polyline& line, bool dashed) {
  Trace result;
  for (const Vec2<double> point : line) {
    result.x.push_back(point.x);
    result.y.push_back(point.y);
  }
  result.dashed = dashed;
  return result;
}

ColorRange kappa_range(const FittedMaps& fit) {
  return quantile_range(fit.macro.kappa.values, 0, 0.99);
}

}  // namespace

bool FittedMaps::has_network() const {
  const auto zero = [](double v) { return v == 0; };
  return !(std::all_of(network.alpha_x.values.begin(), network.alpha_x.values.end(), zero) &&
           std::all_of(network.alpha_y.values.begin(), network.alpha_y.values.end(), zero));
}

double FittedMaps::metric(const std::string& name) const {
  for (const auto& [key, value] : metrics)
    if (key == name) return value;
  return std::numeric_limits<double>::quiet_NaN();
}

FittedMaps read_fitted_maps(const std::string& directory) {
  const std::string json_path = in(directory, "result.json");
  std::ifstream json_file(json_path);
  if (!json_file) throw InvalidInput(json_path + ": cannot be read, expected the results of a fit");
  const nlohmann::json json = nlohmann::json::parse(json_file, nullptr, false);
  if (!json.is_object() || !json.contains("metrics"))
    throw InvalidInput(json_path + ": damaged, expected the results of a fit");

  FittedMaps fit;
  for (const auto& [name, value] : json["metrics"].items())
    if (value.is_number()) fit.metrics.emplace_back(name, value.get<double>());
  if (json.contains("config") && json["config"].is_object()) fit.title = json["config"].value("title", "");
  if (json.contains("wcs")) fit.compass = compass_of(json["wcs"]);
  const std::string file = in(directory, "result.fits");
  fill_maps(fit, {[&file](const std::string& hdu, int planes) { return read_fits(file, hdu, planes); },
                  [&file](const std::string& hdu) { return has_hdu(file, hdu); }, file});
  const StoredHistory history = read_history(directory);
  fit.steps = history.column("step");
  fit.loss = history.column("loss");
  fit.chi2 = history.column("chi2_reduced");
  return fit;
}

SearchMaps read_search_maps(const std::string& file) {
  const MapSource maps{[&file](const std::string& hdu, int planes) { return read_fits(file, hdu, planes); },
                       [&file](const std::string& hdu) { return has_hdu(file, hdu); }, file};
  return {placed_map(maps, "DETECT_SNR", "σ"), placed_map(maps, "DETECT_LIMIT", "arcsec")};
}

Picture picture_of_search(const SearchMaps& search) {
  Picture picture;
  picture.title = "Search for a perturber";
  picture.columns = 2;
  picture.cells = {panel(search.significance, "Significance of an SIS", Palette::diverging,
                         symmetric_range(search.significance.values, 1)),
                   panel(search.limit, "Smallest θ_E that would have been seen", Palette::sequential,
                         quantile_range(search.limit.values, 0, 0.75))};
  return picture;
}

std::vector<PageFigure> page_figures(const SearchMaps& search) {
  std::vector<PageFigure> figures;
  for (std::variant<Panel, Chart>& cell : picture_of_search(search).cells) {
    Panel& map = std::get<Panel>(cell);
    PageFigure figure{"search", map.title, "Gray: outside the used pixels.", {}};
    map.title.clear();
    figure.picture.on_page = true;
    figure.picture.cells = {std::move(map)};
    figures.push_back(std::move(figure));
  }
  return figures;
}

FittedMaps fitted_maps(const Assessment& assessed) {
  FittedMaps fit;
  fit.title = assessed.config.title;
  for (const auto& [name, value] : metrics_of(assessed))
    if (std::isfinite(value)) fit.metrics.emplace_back(name, value);
  if (assessed.loaded.wcs) fit.compass = compass_of(wcs_json(*assessed.loaded.wcs));
  const FitsMaps maps = result_maps(assessed);
  fill_maps(fit, source_of(maps));
  for (const HistoryRow& row : assessed.history) {
    fit.steps.push_back(static_cast<double>(row.step));
    fit.loss.push_back(row.loss);
    fit.chi2.push_back(row.chi2_reduced);
  }
  return fit;
}

Picture picture_of_image(const FittedMaps& fit) {
  Picture picture = comparison(fit);
  const ColorRange range = brightness_range(fit.data);
  picture.cells = {light_panel(fit, fit.data, "data", range)};
  std::get<Panel>(picture.cells.front()).compass = fit.compass;
  if (fit.arcs) {
    const ColorRange arcs = brightness_range(*fit.arcs);
    picture.columns = 4;
    picture.cells.emplace_back(light_panel(fit, *fit.arcs, "data − lens light", arcs));
    picture.cells.emplace_back(light_panel(fit, *fit.arcs_model, "arcs, model", arcs));
  } else {
    picture.cells.emplace_back(light_panel(fit, fit.model, "model", range));
  }
  picture.cells.emplace_back(
      panel(fit.residual, "(data − model) / noise", Palette::diverging, residual_range(fit.residual)));
  auto& residual = std::get<Panel>(picture.cells.back());
  residual.outline = fit.arc;
  residual.inset = "reduced χ² = " + significant(fit.metric("chi2_reduced"));
  return picture;
}

Picture picture_of_history(const FittedMaps& fit) {
  Chart chart;
  chart.title = "history of the fit";
  chart.x_label = "step";
  // With the loss "chi2", both curves are the same.
  bool same = true;
  for (std::size_t i = 0; i < fit.loss.size(); ++i)
    same = same && std::abs(fit.loss[i] - fit.chi2[i]) <= 1e-6 * fit.chi2[i];
  if (!same) chart.curves.push_back({"loss", fit.steps, fit.loss});
  chart.curves.push_back({"reduced χ²", fit.steps, fit.chi2});
  chart.y_label = same ? "loss = reduced χ²" : "loss, reduced χ²";
  if (!fit.chi2.empty() && *std::min_element(fit.chi2.begin(), fit.chi2.end()) > 0.3)
    chart.curves.push_back({"", {fit.steps.front(), fit.steps.back()}, {1, 1}, true});
  Picture picture;
  picture.title = fit.title;
  picture.cells = {chart};
  return picture;
}

Picture picture_of_potential(const FittedMaps& fit) {
  Picture picture = comparison(fit);
  add_comparison(picture, fit, without_mean(fit.truth->psi, fit.used), without_mean(fit.network.psi, fit.used),
                 "ψ − ⟨ψ⟩", Palette::sequential,
                 of_regions("error ", fit.metric("psi_relative_rms_arc"), fit.metric("psi_relative_rms_all"), percent));
  return picture;
}

Picture picture_of_deflection(const FittedMaps& fit) {
  Picture picture = comparison(fit);
  add_comparison(picture, fit, fit.truth->alpha_x, fit.network.alpha_x, "∂ψ/∂x", Palette::diverging, "");
  add_comparison(
      picture, fit, fit.truth->alpha_y, fit.network.alpha_y, "∂ψ/∂y", Palette::diverging,
      of_regions("error of α ", fit.metric("alpha_relative_rms_arc"), fit.metric("alpha_relative_rms_all"), percent));
  return picture;
}

Picture picture_of_convergence(const FittedMaps& fit) {
  Picture picture = comparison(fit);
  add_comparison(picture, fit, fit.truth->kappa, fit.network.kappa, "κ", Palette::diverging,
                 of_regions("rms error ", fit.metric("kappa_rms_arc"), fit.metric("kappa_rms_all"), significant));
  return picture;
}

std::vector<PageFigure> page_figures(const FittedMaps& fit, const CriticalCurves& lines) {
  std::vector<PageFigure> figures;
  const auto add = [&](const char* section, std::string title, std::variant<Panel, Chart> cell,
                       std::string caption = "") {
    std::visit([](auto& it) { it.title.clear(); }, cell);
    Picture picture;
    picture.on_page = true;
    picture.cells = {std::move(cell)};
    figures.push_back({section, std::move(title), std::move(caption), std::move(picture)});
  };
  const auto add_map = [&](const char* section, std::string title, const PlacedMap& map, Palette palette,
                           ColorRange range, std::string caption = "") {
    add(section, std::move(title), panel(map, "", palette, range), std::move(caption));
  };

  const ColorRange light = brightness_range(fit.data);
  const bool masked = std::count(fit.used.begin(), fit.used.end(), 0) > 0;
  for (const auto& cell : picture_of_image(fit).cells) {
    std::string title = std::get<Panel>(cell).title;
    title.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(title.front())));
    add("image", title, cell,
        figures.empty()
            ? std::string("Colors are linear in asinh(brightness / 3 σ).") + (masked ? " Gray: masked." : "")
            : "");
  }

  Panel image = light_panel(fit, fit.data, "", light);
  Panel source = light_panel(fit, fit.source, "", quantile_range(fit.source.values, 0, 0.9998));
  for (const CriticalCurve& curve : lines.curves) {
    image.traces.push_back(trace(curve.image, false));
    source.traces.push_back(trace(curve.source, false));
  }
  for (const Polyline& cut : lines.cuts) source.traces.push_back(trace(cut, true));
  add("planes", "Image plane", std::move(image),
      lines.curves.empty() ? "No critical curve was found." : "The data with the critical curves, where det A = 0.");
  add("planes", "Source plane", std::move(source),
      std::string("The source with the caustics") +
          (lines.cuts.empty() ? "." : "; dashed: the cut, where an image vanishes in a singular center."));
  add_map("planes", "κ, all mass", added(fit.macro.kappa, fit.network.kappa), Palette::sequential, kappa_range(fit));

  add_map("smooth", "ψ", fit.macro.psi, Palette::sequential, quantile_range(fit.macro.psi.values, 0.005, 0.995));
  const PlacedMap alpha = lengths(fit.macro.alpha_x, fit.macro.alpha_y);
  add_map("smooth", "|α|", alpha, Palette::sequential, quantile_range(alpha.values, 0.005, 0.995));
  add_map("smooth", "κ", fit.macro.kappa, Palette::sequential, kappa_range(fit));
  if (fit.has_network()) {
    const PlacedMap psi = without_mean(fit.network.psi, fit.used);
    const PlacedMap shift = lengths(fit.network.alpha_x, fit.network.alpha_y);
    add_map("network", "ψ − ⟨ψ⟩", psi, Palette::sequential, quantile_range(psi.values, 0.005, 0.995));
    add_map("network", "|α|", shift, Palette::sequential, quantile_range(shift.values, 0.005, 0.995));
    add_map("network", "κ", fit.network.kappa, Palette::diverging, symmetric_range(fit.network.kappa.values, 0.995));
    if (fit.deviation) {
      const auto error = [&](const char* title, const PlacedMap& map) {
        add_map("network", title, map, Palette::sequential, {0, quantile_range(map.values, 0, 0.99).high},
                "What it is, \"Error bars\" below says.");
      };
      error("1 σ of ψ", fit.deviation->psi);
      error("1 σ of α", lengths(fit.deviation->alpha_x, fit.deviation->alpha_y));
      error("1 σ of κ", fit.deviation->kappa);
    }
    if (fit.ratio)
      add("network", "κ / σ", ratio_panel(fit),
          "At the resolution of the PSF. Lines: 3 σ and 5 σ, of either sign. Neighboring pixels are correlated.");
    if (fit.sensitivity)
      add_map(
          "network", "Sensitivity", *fit.sensitivity, Palette::sequential,
          {0, quantile_range(fit.sensitivity->values, 0, 0.999).high},
          "Change of a pixel in σ per arcsec of deflection. Where it is dark, the priors determine the result, not the "
          "data.");
  }
  if (fit.truth)
    for (const Picture& picture : {picture_of_potential(fit), picture_of_deflection(fit), picture_of_convergence(fit)})
      for (const auto& cell : picture.cells) add("truth", std::get<Panel>(cell).title, cell);

  add("fit", "History", picture_of_history(fit).cells[0]);
  add("fit", "Residuals", histogram(fit.residual.values), residual_statistics(fit.residual.values));
  return figures;
}

std::vector<std::string> draw_figures(const std::string& directory) {
  return draw_figures(read_fitted_maps(directory), directory);
}

std::vector<std::string> draw_figures(const FittedMaps& fit, const std::string& directory) {
  std::vector<Picture> pictures;
  const auto add = [&](const std::string& name, Picture picture) {
    picture.path = (fs::path(directory) / "figures" / (name + ".png")).string();
    pictures.push_back(std::move(picture));
  };
  const auto maps = [&](std::vector<std::variant<Panel, Chart>> cells) {
    Picture picture;
    picture.title = fit.title;
    picture.columns = static_cast<int>(cells.size());
    picture.cells = std::move(cells);
    return picture;
  };

  const Picture image = picture_of_image(fit);
  add("image", image);
  add("data", maps({image.cells.front()}));
  add("model", maps({light_panel(fit, fit.model, "model", brightness_range(fit.data))}));
  add("residual", maps({image.cells.back()}));
  pictures.back().note = image.note;

  add("source", maps({light_panel(fit, fit.source, "source", quantile_range(fit.source.values, 0, 0.9998))}));
  const Panel macro = panel(fit.macro.kappa, "κ, smooth model", Palette::sequential, kappa_range(fit));
  if (fit.has_network()) {
    const PlacedMap psi = without_mean(fit.network.psi, fit.used);
    add("potential",
        maps({panel(psi, "ψ − ⟨ψ⟩, network", Palette::sequential, quantile_range(psi.values, 0.005, 0.995))}));
    const ColorRange range =
        together(symmetric_range(fit.network.alpha_x.values, 0.99), symmetric_range(fit.network.alpha_y.values, 0.99));
    add("deflection", maps({panel(fit.network.alpha_x, "∂ψ/∂x, network", Palette::diverging, range),
                            panel(fit.network.alpha_y, "∂ψ/∂y, network", Palette::diverging, range)}));
    add("convergence",
        maps({panel(fit.network.kappa, "κ, network", Palette::diverging,
                    symmetric_range(fit.network.kappa.values, 0.995)),
              macro,
              panel(added(fit.macro.kappa, fit.network.kappa), "κ, total", Palette::sequential, kappa_range(fit))}));
    if (fit.ratio) add("significance", maps({ratio_panel(fit)}));
  } else {
    add("convergence", maps({macro}));
  }
  if (fit.image_truth) {
    Picture picture = comparison(fit);
    PlacedMap error = difference(fit.model, *fit.image_truth);
    const ColorRange range = brightness_range(*fit.image_truth);
    picture.cells = {light_panel(fit, *fit.image_truth, "noise-free truth", range),
                     light_panel(fit, fit.model, "model", range),
                     panel(error, "model − truth", Palette::diverging, symmetric_range(error.values, 0.999))};
    auto& last = std::get<Panel>(picture.cells.back());
    last.outline = fit.arc;
    if (const double rms = fit.metric("image_rms_over_sigma"); std::isfinite(rms))
      last.inset = "rms " + significant(rms) + " σ";
    add("image_truth", picture);
  }
  if (fit.truth) {
    add("potential_truth", picture_of_potential(fit));
    add("deflection_truth", picture_of_deflection(fit));
    add("convergence_truth", picture_of_convergence(fit));
  }
  add("history", picture_of_history(fit));

  create_directory((fs::path(directory) / "figures").string());
  return draw(pictures);
}

}  // namespace einfield
