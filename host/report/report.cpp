// The page: result.json as tables, pictures drawn anew in the colours of the page and embedded.
#include "host/report/report.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/source.hpp"
#include "host/fields/critical_curves.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"
#include "host/report/figures.hpp"
#include "host/results/stored_lens.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// Nodes on the longer side of the image between which critical curves are looked for.
constexpr int kNodes = 200;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --ink: #1b1f24; --soft: #59626d; --line: #dde1e6;
  --link: #1f57c3; --warn: #8a4b00; --warn-card: #fff4e2; --red: 178, 24, 43; --blue: 33, 102, 172; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0a0c0f; --card: #11151a; --ink: #e4e8ed; --soft: #99a3af; --line: #272d35; --link: #8ab4ff;
    --warn: #ffcf8a; --warn-card: #2a2113; --red: 214, 96, 77; --blue: 67, 147, 195; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main, header, footer { max-width: 80rem; margin: 0 auto; padding: 0 clamp(.9rem, 3vw, 2.5rem); }
header { padding-top: clamp(1.2rem, 4vw, 2.5rem); }
h1 { font-size: clamp(1.4rem, 1.1rem + 1.6vw, 2.1rem); line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
p { max-width: 46rem; }
p, li { overflow-wrap: anywhere; }
a { color: var(--link); }
header p, .soft, figcaption, footer { color: var(--soft); }
header p { margin: .2rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1rem 0 0; }
.notes { background: var(--warn-card); color: var(--warn); border-radius: .6rem; padding: .7rem 1rem; margin: 1.2rem 0 0; }
.notes ul { margin: 0; padding-left: 1.1rem; }
dl.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); gap: .7rem;
  margin: 1.4rem 0 0; }
dl.numbers div, figure, .scroll, pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
dl.numbers div { padding: .6rem .8rem; }
dl.numbers dt { color: var(--soft); font-size: .85rem; }
dl.numbers dd { margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
dl.numbers dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .9rem; }
.figures.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; padding: .6rem .7rem .8rem; min-width: 0; }
figure h3 { margin: 0 0 .2rem .2rem; font-size: .95rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: .85rem; margin: .3rem .2rem 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-width: 100%; width: fit-content; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .32rem .8rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 500; }
th[scope=rowgroup] { padding-top: .8rem; }
th[scope=rowgroup] .soft { font-weight: 400; white-space: normal; }
td.number { text-align: right; }
td.free { font-weight: 600; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .86rem; }
pre { margin: .5rem 0; padding: .8rem 1rem; overflow-x: auto; line-height: 1.45; }
pre.wrapped { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--link); }
footer { padding-top: 2rem; padding-bottom: 2.5rem; font-size: .85rem; }
@media print { details:not([open]) > * { display: block; } figure { break-inside: avoid; } }
)";

// ---- text ------------------------------------------------------------------------------------------------

std::string element(const std::string& tag, const std::string& content, const std::string& attributes = "") {
  return "<" + tag + (attributes.empty() ? "" : " " + attributes) + ">" + content + "</" + tag + ">";
}

/// A value of result.json for a reader, not yet HTML.
std::string words(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return rounded(value.get<double>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "–";
  if (!value.is_structured()) return value.dump();
  std::string list;
  for (const auto& [name, entry] : value.items())
    list += (list.empty() ? "" : ", ") + (value.is_object() ? name + " = " : "") + words(entry);
  return list;
}

/// "stop_reason" → "Stop reason"; names of parameters, which have a dot, stay as they are.
std::string heading(std::string name) {
  if (name.find('.') != std::string::npos) return name;
  std::replace(name.begin(), name.end(), '_', ' ');
  if (!name.empty()) name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  return name;
}

/// The member of an object, or null where there is none.
const ordered_json& member(const ordered_json& object, const std::string& name) {
  static const ordered_json none;
  if (!object.is_object()) return none;
  const auto found = object.find(name);
  return found == object.end() ? none : *found;
}

std::string text_of(const ordered_json& object, const std::string& name) {
  const ordered_json& value = member(object, name);
  return value.is_null() ? "" : words(value);
}

// ---- tables ----------------------------------------------------------------------------------------------

/// A table that scrolls in itself where the screen is narrow.
std::string table(const std::string& head, const std::string& body) {
  return element("div",
                 element("table", (head.empty() ? "" : element("thead", element("tr", head))) + element("tbody", body)),
                 "class=\"scroll\" tabindex=\"0\"") +
         "\n";
}

std::string cell(const ordered_json& value) {
  return element("td", html_text(words(value)), value.is_number() ? "class=\"number\"" : "");
}

/// A table of an array of objects: a column for every name that occurs, those of an object in a row as well.
std::string table_of_rows(const ordered_json& nested) {
  ordered_json rows = ordered_json::array();
  for (const ordered_json& row : nested) {
    ordered_json flat = ordered_json::object();
    for (const auto& [name, value] : row.items())
      if (value.is_object())
        flat.update(value);
      else
        flat[name] = value;
    rows.push_back(std::move(flat));
  }
  std::vector<std::string> names;
  for (const ordered_json& row : rows)
    for (const auto& [name, value] : row.items())
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  std::string head = element("th", "#"), body;
  for (const std::string& name : names) head += element("th", html_text(heading(name)));
  int count = 0;
  for (const ordered_json& row : rows) {
    std::string cells = element("td", std::to_string(count++), "class=\"number\"");
    for (const std::string& name : names) cells += cell(member(row, name));
    body += element("tr", cells) + "\n";
  }
  return table(head, body);
}

/// Any block of result.json: its numbers as a table, arrays of objects and objects of objects below it.
std::string block(const ordered_json& value) {
  const auto holds_objects = [](const ordered_json& v) {
    return v.is_structured() && !v.empty() &&
           std::all_of(v.begin(), v.end(), [](const auto& e) { return e.is_object(); });
  };
  if (value.is_array() && holds_objects(value)) return table_of_rows(value);
  if (!value.is_object()) return element("p", html_text(words(value)));
  std::string rows, below;
  for (const auto& [name, entry] : value.items()) {
    if (entry.is_array() && holds_objects(entry)) {
      below += element("h3", html_text(heading(name))) + table_of_rows(entry);
    } else if (holds_objects(entry)) {
      ordered_json named = ordered_json::array();
      for (const auto& [key, object] : entry.items()) {
        ordered_json row = {{"name", key}};
        row.update(object);
        named.push_back(std::move(row));
      }
      below += element("h3", html_text(heading(name))) + table_of_rows(named);
    } else {
      rows += element("tr", element("th", html_text(heading(name)), "scope=\"row\"") + cell(entry)) + "\n";
    }
  }
  return (rows.empty() ? "" : table("", rows)) + below;
}

/// What result.json says of one parameter: in its entry, in a table of all parameters (`uncertainties` has one,
/// "sigma"), or in the table of that name of its component in the configuration ("prior", "bounds").
const ordered_json& of_parameter(const ordered_json& result, const std::string& parameter, const std::string& what) {
  const ordered_json& own = member(member(member(result, "parameters"), parameter), what);
  if (!own.is_null()) return own;
  const ordered_json& in_table = member(member(member(result, "uncertainties"), what), parameter);
  if (!in_table.is_null()) return in_table;
  // "lens.0.theta_E"
  static const ordered_json none;
  const std::size_t first = parameter.find('.'), last = parameter.rfind('.');
  if (first == std::string::npos || first == last) return none;
  const ordered_json& components = member(member(result, "config"), parameter.substr(0, first));
  const auto index = parse_number<std::size_t>(std::string_view(parameter).substr(first + 1, last - first - 1));
  if (!components.is_array() || !index || *index >= components.size()) return none;
  return member(member(components[*index], what), parameter.substr(last + 1));
}

/// A value with as many digits as its uncertainty has two of.
std::pair<std::string, std::string> with_uncertainty(double value, double sigma) {
  const int decimals = 1 - static_cast<int>(std::floor(std::log10(sigma)));
  if (!std::isfinite(value) || decimals < 0 || decimals > 12) return {rounded(value), rounded(sigma)};
  char number[64], error[64];
  std::snprintf(number, sizeof number, "%.*f", decimals, value);
  std::snprintf(error, sizeof error, "%.*f", decimals, sigma);
  return {number, error};
}

/// Units of a profile's parameters; null for a profile that this version does not know.
const ProfileInfo* profile_info(const std::string& component, const std::string& profile) {
  if (component.rfind("lens.", 0) == 0) {
    for (int i = 0; i < kLensKinds; ++i)
      if (profile == lens_info(static_cast<LensKind>(i)).name) return &lens_info(static_cast<LensKind>(i));
  } else {
    for (int i = 0; i < kLightKinds; ++i)
      if (profile == light_info(static_cast<LightKind>(i)).name) return &light_info(static_cast<LightKind>(i));
  }
  return nullptr;
}

std::string unit_of(const ProfileInfo* info, const std::string& parameter) {
  if (!info) return "";
  for (const ParameterInfo& p : info->parameters)
    if (parameter == p.name) return p.unit;
  return "";
}

/// What two components say as people read it: axis ratio and major axis of an ellipse, strength and direction of a
/// shear; with a WCS as position angle, too. "" for other components.
std::string shape_words(const ordered_json& result, const std::string& component) {
  const ordered_json& parameters = member(result, "parameters");
  const auto pair = [&](const char* first, const char* second) -> std::optional<std::pair<double, double>> {
    const ordered_json &x = member(parameters, component + "." + first),
                       &y = member(parameters, component + "." + second);
    if (!x.is_number() || !y.is_number()) return std::nullopt;
    return std::pair(x.get<double>(), y.get<double>());
  };
  const auto ellipse = pair("e1", "e2"), shear = pair("gamma1", "gamma2");
  if (!ellipse && !shear) return "";
  const auto [x, y] = ellipse ? *ellipse : *shear;
  const double size = std::hypot(x, y), angle = 0.5 * std::atan2(y, x) * 180 / M_PI;
  char text[160];
  if (ellipse)
    std::snprintf(text, sizeof text, "axis ratio %.3f", (1 - size) / (1 + size));
  else
    std::snprintf(text, sizeof text, "strength %.3f", size);
  std::string words = text;
  if (size == 0) return words;
  std::snprintf(text, sizeof text, "%s at %.1f° from +x towards +y", ellipse ? ", major axis" : "", angle);
  words += text;
  const ordered_json& wcs = member(result, "wcs");
  const ordered_json &of_y = member(wcs, "position_angle_y"), &mirrored = member(wcs, "mirrored");
  if (!of_y.is_number() || !mirrored.is_boolean()) return words;
  const double turned = of_y.get<double>() + (mirrored.get<bool>() ? -1 : 1) * (angle - 90);
  std::snprintf(text, sizeof text, ", position angle %.1f°", turned - 180 * std::floor(turned / 180));
  return words + text;
}

std::string parameter_table(const ordered_json& result) {
  const ordered_json& parameters = member(result, "parameters");
  const ordered_json& free = member(result, "free");
  struct Column {
    const char *key, *title;
  };
  std::vector<Column> columns = {{"prior", "Prior"}, {"bounds", "Bounds"}, {"start", "Start"}};
  const auto given = [&](const char* key) {
    return std::any_of(parameters.items().begin(), parameters.items().end(),
                       [&](const auto& entry) { return !of_parameter(result, entry.key(), key).is_null(); });
  };
  std::erase_if(columns, [&](const Column& column) { return !given(column.key); });
  const bool sigmas = given("sigma");
  const ordered_json& scatter = member(member(result, "ensemble"), "parameters_std");

  std::string head = element("th", "Parameter") + element("th", "Value");
  if (sigmas) head += element("th", "± 1 σ");
  if (!scatter.empty()) head += element("th", "Scatter of the ensemble");
  head += element("th", "Unit") + element("th", "State");
  for (const Column& column : columns) head += element("th", column.title);
  const int width = 4 + static_cast<int>(columns.size()) + (sigmas ? 1 : 0) + (scatter.empty() ? 0 : 1);

  std::string body, component;
  const ProfileInfo* info = nullptr;
  for (const auto& [name, entry] : parameters.items()) {
    const std::size_t dot = name.rfind('.');
    const std::string owner = dot == std::string::npos ? "" : name.substr(0, dot);
    if (owner != component) {
      component = owner;
      const std::string profile = text_of(member(result, "profiles"), owner);
      info = profile_info(owner, profile);
      const std::string shape = shape_words(result, owner);
      body +=
          element("tr", element("th",
                                html_text(owner + (profile.empty() ? "" : " · " + profile)) +
                                    (shape.empty() ? "" : " " + element("span", html_text(shape), "class=\"soft\"")),
                                "scope=\"rowgroup\" colspan=\"" + std::to_string(width) + "\"")) +
          "\n";
    }
    const std::string parameter = name.substr(dot == std::string::npos ? 0 : dot + 1);
    const ordered_json& value = entry.is_object() ? member(entry, "value") : entry;
    const ordered_json& sigma = of_parameter(result, name, "sigma");
    const bool is_free = entry.is_object() && member(entry, "free").is_boolean()
                             ? member(entry, "free").get<bool>()
                             : std::find(free.begin(), free.end(), ordered_json(name)) != free.end();
    std::string number = words(value), error = sigma.is_null() ? "" : words(sigma);
    if (value.is_number() && sigma.is_number() && sigma.get<double>() > 0)
      std::tie(number, error) = with_uncertainty(value.get<double>(), sigma.get<double>());
    std::string cells =
        element("td", element("code", html_text(parameter))) + element("td", html_text(number), "class=\"number\"");
    if (sigmas) cells += element("td", html_text(error), "class=\"number\"");
    if (!scatter.empty()) {
      const ordered_json& std = member(scatter, name);
      cells += element("td", html_text(std.is_null() ? "" : words(std)), "class=\"number\"");
    }
    cells += element("td", html_text(unit_of(info, parameter)));
    cells += element("td", is_free ? "free" : "fixed", is_free ? "class=\"free\"" : "");
    for (const Column& column : columns) {
      const ordered_json& given_value = of_parameter(result, name, column.key);
      cells += element("td", html_text(given_value.is_null() ? "" : words(given_value)));
    }
    body += element("tr", cells) + "\n";
  }
  return table(head, body);
}

/// A matrix of correlations with the colour of each: {"names": [...], "matrix": [[...]]} or an object of objects.
std::string correlation_table(const ordered_json& correlations) {
  std::vector<std::string> names;
  const ordered_json& matrix = member(correlations, "matrix");
  if (matrix.is_array()) {
    for (const ordered_json& name : member(correlations, "names")) names.push_back(words(name));
  } else if (correlations.is_object()) {
    for (const auto& [name, row] : correlations.items()) names.push_back(name);
  }
  const auto at = [&](std::size_t i, std::size_t j) -> const ordered_json& {
    static const ordered_json none;
    if (!matrix.is_array()) return member(member(correlations, names[i]), names[j]);
    return i < matrix.size() && matrix[i].is_array() && j < matrix[i].size() ? matrix[i][j] : none;
  };
  std::string head = element("th", ""), body;
  for (std::size_t j = 0; j < names.size(); ++j) head += element("th", std::to_string(j + 1), "scope=\"col\"");
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::string cells =
        element("th", std::to_string(i + 1) + " " + element("code", html_text(names[i])), "scope=\"row\"");
    for (std::size_t j = 0; j < names.size(); ++j) {
      const ordered_json& value = at(i, j);
      if (!value.is_number()) {
        cells += element("td", "");
        continue;
      }
      const double r = value.get<double>();
      char style[96], number[32];
      std::snprintf(style, sizeof style, "class=\"number\" style=\"background: rgba(var(--%s), %.2f)\"",
                    r < 0 ? "blue" : "red", i == j || !std::isfinite(r) ? 0.0 : 0.55 * std::min(std::abs(r), 1.0));
      std::snprintf(number, sizeof number, "%.2f", r);
      cells += element("td", number, style);
    }
    body += element("tr", cells) + "\n";
  }
  return table(head, body);
}

// ---- the head of the page --------------------------------------------------------------------------------

std::string seconds(double s) {
  char buffer[64];
  if (s < 0.1)
    std::snprintf(buffer, sizeof buffer, "%.3g ms", 1e3 * s);
  else if (s < 120)
    std::snprintf(buffer, sizeof buffer, "%.3g s", s);
  else if (s < 7200)
    std::snprintf(buffer, sizeof buffer, "%.0f min %.0f s", std::floor(s / 60), std::fmod(s, 60));
  else
    std::snprintf(buffer, sizeof buffer, "%.0f h %.0f min", std::floor(s / 3600), std::fmod(s / 60, 60));
  return buffer;
}

std::string number_card(const std::string& name, const std::string& value, const std::string& note = "") {
  if (value.empty()) return "";
  return element("div", element("dt", html_text(name)) +
                            element("dd", html_text(value) + (note.empty() ? "" : element("small", html_text(note))))) +
         "\n";
}

std::string numbers(const ordered_json& result, const std::optional<FittedMaps>& fit) {
  const ordered_json& metrics = member(result, "metrics");
  const auto number = [](const ordered_json& object, const char* name) {
    const ordered_json& value = member(object, name);
    return value.is_number() ? std::optional<double>(value.get<double>()) : std::nullopt;
  };
  const auto fraction = [&](const char* name) {
    const std::optional<double> value = number(metrics, name);
    return value ? percent(*value) : "";
  };
  std::string cards = number_card("Reduced χ²", text_of(metrics, "chi2_reduced"));
  const ordered_json& loss = member(member(member(result, "config"), "optimizer"), "loss");
  if (loss.is_string() && loss.get<std::string>() != "chi2")
    cards += number_card("Loss", text_of(metrics, "loss"), loss.get<std::string>());
  if (fit) {
    const auto used = std::count(fit->used.begin(), fit->used.end(), std::uint8_t{1});
    cards += number_card("Pixels used", std::to_string(used), "of " + std::to_string(fit->n_pixels));
  }
  std::string network;
  if (const ordered_json& shape = member(result, "network"); shape.is_object()) {
    if (text_of(shape, "encoding") == "fourier") network = text_of(shape, "fourier_features") + " Fourier features – ";
    for (const ordered_json& width : member(shape, "hidden")) network += words(width) + " – ";
    network += "ψ";
    const std::string members = text_of(shape, "members");
    cards += number_card("Network", members == "1" || members.empty() ? "one" : members + " members", network);
  }
  if (member(result, "free").is_array())
    cards += number_card("Free parameters", std::to_string(member(result, "free").size()));
  std::string stop = text_of(result, "stop_reason");
  if (!stop.empty()) stop = "ended by: " + stop;
  if (const std::string state = text_of(result, "state_step"); !state.empty() && state != text_of(result, "steps"))
    stop += (stop.empty() ? "" : "; ") + ("state of step " + state);
  cards += number_card("Steps", text_of(result, "steps"), stop);
  if (const std::optional<double> time = number(result, "time_total_s"))
    cards += number_card(
        "Time", seconds(*time),
        number(result, "time_per_step_ms") ? seconds(1e-3 * *number(result, "time_per_step_ms")) + " a step" : "");
  if (const std::optional<double> rms = number(metrics, "image_rms_over_sigma"))
    cards += number_card("Image against the truth", rounded(std::round(*rms * 1e4) / 1e4) + " σ", "rms, noise-free");
  const auto truth = [&](const char* title, const std::string& arc, const std::string& all) {
    if (!arc.empty()) cards += number_card(title, arc, "on the arcs; all pixels: " + all);
  };
  truth("Error of ψ", fraction("psi_relative_rms_arc"), fraction("psi_relative_rms_all"));
  truth("Error of α", fraction("alpha_relative_rms_arc"), fraction("alpha_relative_rms_all"));
  const auto two_digits = [&](const char* name) {
    char buffer[32] = "";
    if (const std::optional<double> value = number(metrics, name)) std::snprintf(buffer, sizeof buffer, "%.2g", *value);
    return std::string(buffer);
  };
  truth("Error of κ (rms)", two_digits("kappa_rms_arc"), two_digits("kappa_rms_all"));
  return element("dl", "\n" + cards, "class=\"numbers\"") + "\n";
}

// ---- pictures --------------------------------------------------------------------------------------------

/// Lines of the fitted lens over its image.
CriticalCurves curves_of(const std::string& directory, const FittedMaps& fit, int threads) {
  const StoredLens lens = read_lens(directory);
  Deflection network;
  if (!lens.networks.empty())
    network = [&lens, threads](const std::vector<double>& theta) { return network_deflection(lens, theta, threads); };
  const PlacedMap& map = fit.data;
  const double width = map.nx * map.pixel_scale, height = map.ny * map.pixel_scale;
  const double spacing = std::max(width, height) / kNodes;
  const auto nodes = [spacing](double length) { return static_cast<int>(std::floor(length / spacing + 1e-6)) + 1; };
  return critical_curves({nodes(width), nodes(height), spacing, map.center_x, map.center_y}, lens.smooth, network);
}

/// Width and height of a PNG, from its first block.
std::pair<unsigned, unsigned> png_size(const std::string& png) {
  const auto number = [&png](std::size_t at) {
    unsigned value = 0;
    for (std::size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<unsigned char>(png[i]);
    return value;
  };
  return {number(16), number(20)};
}

/// The figures of one section that were drawn.
std::string figures_html(const std::vector<PageFigure>& figures, const std::vector<std::string>& png,
                         const std::string& section, const std::string& layout = "figures") {
  std::string html;
  for (std::size_t i = 0; i < figures.size(); ++i) {
    if (figures[i].section != section || png[i].empty()) continue;
    const auto [width, height] = png_size(png[i]);
    html += element("figure",
                    element("h3", html_text(figures[i].title)) + "<img alt=\"" + html_text(figures[i].title) +
                        "\" width=\"" + std::to_string(width) + "\" height=\"" + std::to_string(height) +
                        "\" src=\"data:image/png;base64," + base64(png[i]) + "\">" +
                        (figures[i].caption.empty() ? "" : element("figcaption", html_text(figures[i].caption)))) +
            "\n";
  }
  return html.empty() ? "" : element("div", "\n" + html, "class=\"" + layout + "\"") + "\n";
}

// ---- the page --------------------------------------------------------------------------------------------

class Page {
 public:
  /// A section, unless it is empty.
  void add(const std::string& id, const std::string& title, const std::string& html) {
    if (html.empty()) return;
    links_ += element("a", html_text(title), "href=\"#" + id + "\"") + "\n";
    body_ += element("section", "\n" + element("h2", html_text(title)) + "\n" + html, "id=\"" + id + "\"") + "\n";
  }
  std::string links() const { return element("nav", "\n" + links_) + "\n"; }
  const std::string& body() const { return body_; }

 private:
  std::string links_, body_;
};

std::string now_utc() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char buffer[64];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%d %H:%M UTC", &utc);
  return buffer;
}

std::string repeat_html(const ordered_json& result) {
  std::string html;
  if (const std::string command = text_of(result, "command"); !command.empty())
    html += element("p", "The command was") + element("pre", html_text(command), "class=\"wrapped\"");
  const std::string toml = text_of(result, "config_toml");
  if (toml.empty()) return html;
  html += element("p", html.empty() ? "Save the configuration below as lens.toml; then"
                                    : "The configuration below holds every value that was used, defaults and options "
                                      "included. Saved as lens.toml it repeats the run:");
  std::string again = "einfield fit lens.toml";
  for (const char* name : {"backend", "precision"})
    if (const std::string value = text_of(result, name); !value.empty())
      again += std::string(" --") + name + " " + value;
  return html + element("pre", html_text(again), "class=\"wrapped\"") +
         element("details", element("summary", "The configuration") + element("pre", html_text(toml)));
}

}  // namespace

std::string html_text(const std::string& text) {
  std::string html;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t n = utf8_length(text, i);
    if (n == 0 || byte == 0x7f || (byte < 0x20 && byte != '\n' && byte != '\t')) {
      html += "\xEF\xBF\xBD";
    } else if (n > 1) {
      html += text.substr(i, n);
    } else {
      switch (text[i]) {
        case '&':
          html += "&amp;";
          break;
        case '<':
          html += "&lt;";
          break;
        case '>':
          html += "&gt;";
          break;
        case '"':
          html += "&quot;";
          break;
        case '\'':
          html += "&#39;";
          break;
        default:
          html += text[i];
      }
    }
    i += std::max<std::size_t>(n, 1);
  }
  return html;
}

std::string base64(const std::string& bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = i; k < i + 3; ++k)
      group = group << 8 | (k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0U);
    for (const int shift : {18, 12, 6, 0}) text += digits[group >> shift & 63];
  }
  for (std::size_t k = 0; k < (3 - bytes.size() % 3) % 3; ++k) text[text.size() - 1 - k] = '=';
  return text;
}

std::vector<std::string> write_report(const std::string& directory, int threads) {
  const std::string json_path = (fs::path(directory) / "result.json").string();
  std::ifstream file(json_path);
  if (!file) throw InvalidInput(json_path + ": cannot be read, expected the results of a fit");
  const ordered_json result = ordered_json::parse(file, nullptr, false);
  if (!result.is_object()) throw InvalidInput(json_path + ": damaged, expected the results of a fit");

  // What is missing or damaged beside result.json costs the pictures, and the page says so.
  std::vector<std::string> notes;
  std::optional<FittedMaps> fit;
  std::vector<PageFigure> figures;
  DrawnPictures drawn;
  try {
    fit = read_fitted_maps(directory);
    CriticalCurves curves;
    try {
      curves = curves_of(directory, *fit, threads);
    } catch (const InvalidInput& error) {
      notes.push_back(std::string("No critical curves: ") + error.what());
    }
    figures = page_figures(*fit, curves);
    std::vector<Picture> pictures;
    for (const PageFigure& figure : figures) pictures.push_back(figure.picture);
    drawn = draw_in_memory(pictures);
    for (const std::string& warning : drawn.warnings) notes.push_back("Pictures: " + warning);
  } catch (const InvalidInput& error) {
    notes.push_back(std::string("No pictures: ") + error.what());
  }
  for (const ordered_json& warning : member(result, "warnings")) notes.push_back(words(warning));
  if (const std::string message = text_of(result, "message"); !message.empty())
    notes.insert(notes.begin(), "The fit went wrong: " + message + ". Shown is the last good state.");

  Page page;
  const auto section = [&](const char* name, const char* layout = "figures") {
    return figures_html(figures, drawn.png, name, layout);
  };
  const auto titled = [](const char* title, const std::string& html) {
    return html.empty() ? "" : element("h3", title) + html;
  };
  page.add("image", "Data and model", section("image"));
  page.add("planes", "Lens and source", section("planes"));
  page.add("mass", "Mass", titled("Smooth model", section("smooth")) + titled("Network", section("network")));
  page.add("truth", "Against the truth", section("truth"));
  page.add("fit", "Fit", section("fit", "figures wide"));
  const ordered_json& uncertainties = member(result, "uncertainties");
  const std::string method = text_of(uncertainties, "method");
  if (!member(result, "parameters").empty())
    page.add(
        "parameters", "Parameters",
        parameter_table(result) + (method.empty() ? "" : element("p", html_text("Uncertainties: " + method + "."))));
  if (!member(uncertainties, "correlations").empty())
    page.add("correlations", "Correlations", correlation_table(member(uncertainties, "correlations")));
  if (!member(result, "starts").empty()) page.add("starts", "Starts", block(member(result, "starts")));
  if (ordered_json ensemble = member(result, "ensemble"); !ensemble.empty()) {
    ensemble.erase("parameters_std");  // in the table of parameters
    page.add("ensemble", "Ensemble", block(ensemble));
  }
  page.add("repeat", "Repeat the run", repeat_html(result));

  std::string title = text_of(member(result, "config"), "title");
  if (title.empty()) title = "Fit of a gravitational lens";
  std::string head = element("h1", html_text(title)) + "\n";
  const std::string version = text_of(result, "version"), device = text_of(result, "device");
  head += element("p", html_text("einfield " + version + (device.empty() ? "" : " · " + device) + " · " +
                                 text_of(result, "precision") + " precision")) +
          "\n";
  std::string note_html;
  for (const std::string& note : notes) note_html += element("li", html_text(note));
  if (!note_html.empty()) note_html = element("div", element("ul", note_html), "class=\"notes\"") + "\n";

  // The policy allows what is in the page and nothing else, whatever might have been overlooked above.
  const std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
      element("title", html_text(title)) + "\n<link rel=\"icon\" href=\"data:,\">\n" + element("style", kStyle) +
      "\n</head>\n<body>\n" + element("header", "\n" + head + page.links() + note_html + numbers(result, fit)) + "\n" +
      element("main", "\n" + page.body()) + "\n" +
      element("footer", html_text("Written by einfield " + version + ", " + now_utc() + ".")) + "\n</body>\n</html>\n";
  write_atomically((fs::path(directory) / "report.html").string(), html);
  return drawn.warnings;
}

}  // namespace einfield
