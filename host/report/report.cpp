// The page: result.json as tables, and pictures that are drawn anew in the colors of the page and embedded.
#include "host/report/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/flags.hpp"
#include "einfield/source.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/profile_names.hpp"
#include "host/report/html.hpp"
#include "host/report/json_tables.hpp"
#include "host/results/stored_result.hpp"

namespace einfield {
namespace {

using nlohmann::ordered_json;

// ---- parameters ------------------------------------------------------------------------------------------

/// A property of one parameter in result.json. It is in the entry of the parameter, in a table of all parameters (like
/// "sigma" in `uncertainties`), or in a table of its component in the configuration (like "prior" and "bounds").
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

/// A value and its uncertainty, both rounded to two significant digits of the uncertainty.
std::pair<std::string, std::string> with_uncertainty(double value, double sigma) {
  const int decimals = 1 - static_cast<int>(std::floor(std::log10(sigma)));
  if (!std::isfinite(value) || decimals < 0 || decimals > 12) return {rounded(value), rounded(sigma)};
  return {fmt::format("{:.{}f}", value, decimals), fmt::format("{:.{}f}", sigma, decimals)};
}

/// The parameters of a profile with their units; null for an unknown profile.
const ProfileInfo* profile_info(const std::string& component, const std::string& profile) {
  if (component.rfind("lens.", 0) == 0) {
    const std::optional<LensKind> kind = lens_kind(profile);
    return kind ? &lens_info(*kind) : nullptr;
  }
  const std::optional<LightKind> kind = light_kind(profile);
  return kind ? &light_info(*kind) : nullptr;
}

std::string unit_of(const ProfileInfo* info, const std::string& parameter) {
  if (!info) return "";
  for (const ParameterInfo& p : info->parameters)
    if (parameter == p.name) return p.unit;
  return "";
}

/// A pair of components as people read it: axis ratio and major axis of an ellipse, strength and direction of a shear.
/// With a WCS, the direction is also given as a position angle. "" for other profiles.
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
  const double size = std::hypot(x, y), angle = 0.5 * std::atan2(y, x) * 180 / kPi;
  std::string words =
      ellipse ? fmt::format("axis ratio {:.3f}", (1 - size) / (1 + size)) : fmt::format("strength {:.3f}", size);
  if (size == 0) return words;
  words += fmt::format("{} at {:.1f}° from +x towards +y", ellipse ? ", major axis" : "", angle);
  const ordered_json& wcs = member(result, "wcs");
  const ordered_json &of_y = member(wcs, "position_angle_y"), &mirrored = member(wcs, "mirrored");
  if (!of_y.is_number() || !mirrored.is_boolean()) return words;
  const double turned = of_y.get<double>() + (mirrored.get<bool>() ? -1 : 1) * (angle - 90);
  return words + fmt::format(", position angle {:.1f}°", turned - 180 * std::floor(turned / 180));
}

/// Whether the data leave the parameter free: its error is null.
bool is_not_determined(const ordered_json& result, const std::string& parameter) {
  const ordered_json& sigmas = member(member(result, "uncertainties"), "sigma");
  return sigmas.is_object() && sigmas.contains(parameter) && sigmas[parameter].is_null();
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
  const bool sigmas = !member(member(result, "uncertainties"), "sigma").empty() || given("sigma");
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
    if (sigmas && is_free && is_not_determined(result, name)) error = "not determined";
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

/// A matrix of correlations, each in a color: {"names": [...], "matrix": [[...]]} or an object of objects.
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
      const std::string style =
          fmt::format("class=\"number\" style=\"background: rgba(var(--{}), {:.2f})\"", r < 0 ? "blue" : "red",
                      i == j || !std::isfinite(r) ? 0.0 : 0.55 * std::min(std::abs(r), 1.0));
      cells += element("td", fmt::format("{:.2f}", r), style);
    }
    body += element("tr", cells) + "\n";
  }
  return table(head, body);
}

// ---- the head of the page --------------------------------------------------------------------------------

std::string seconds(double s) {
  if (s < 0.1) return fmt::format("{:.3g} ms", 1e3 * s);
  if (s < 120) return fmt::format("{:.3g} s", s);
  if (s < 7200) return fmt::format("{:.0f} min {:.0f} s", std::floor(s / 60), std::fmod(s, 60));
  return fmt::format("{:.0f} h {:.0f} min", std::floor(s / 3600), std::fmod(s / 60, 60));
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
  if (const std::optional<double> radius = number(result, "einstein_radius_effective")) {
    const std::optional<double> mass = number(result, "einstein_mass");
    cards += number_card("Einstein radius", rounded(*radius) + "″",
                         mass ? fmt::format("{:.3g} solar masses inside", *mass) : "of the critical curve's area");
  }
  if (const std::optional<double> magnification = number(result, "magnification"))
    cards += number_card("Magnification", fmt::format("{:.3g}", *magnification), "of all light of the source");
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
    const std::optional<double> value = number(metrics, name);
    return value ? fmt::format("{:.2g}", *value) : "";
  };
  truth("Error of κ (rms)", two_digits("kappa_rms_arc"), two_digits("kappa_rms_all"));
  return element("dl", "\n" + cards, "class=\"numbers\"") + "\n";
}

// ---- pictures --------------------------------------------------------------------------------------------

/// Width and height of a PNG, from its first block.
std::pair<unsigned, unsigned> png_size(const std::string& png) {
  const auto number = [&png](std::size_t at) {
    unsigned value = 0;
    for (std::size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<unsigned char>(png[i]);
    return value;
  };
  return {number(16), number(20)};
}

/// The figures of one section, without those that could not be drawn.
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
  html += element("p", html.empty() ? "Save the configuration below as lens.toml, then run"
                                    : "The configuration below holds every value that was used, defaults and options "
                                      "included. To repeat the run, save it as lens.toml and run");
  std::string again = "einfield fit lens.toml";
  for (const char* name : {"backend", "precision"})
    if (const std::string value = text_of(result, name); !value.empty())
      again += std::string(" --") + name + " " + value;
  return html + element("pre", html_text(again), "class=\"wrapped\"") +
         element("details", element("summary", "The configuration") + element("pre", html_text(toml)));
}

/// The status, and every flag with its meaning: the head of the page.
std::string verdict_html(const ordered_json& result) {
  const std::string status = text_of(result, "status");
  if (status.empty()) return "";
  std::string flags;
  for (const ordered_json& raised : member(result, "flags")) {
    const std::string name = text_of(raised, "name");
    std::string meaning;
    for (const FlagInfo& info : kFlags)
      if (name == info.name) meaning = meaning_of(info);
    flags += element("li", element("code", html_text(name)) + " " + html_text(text_of(raised, "text")) +
                               (meaning.empty() ? "" : " " + element("span", html_text(meaning), "class=\"soft\"")));
  }
  const std::string head = element("p", "Status: " + element("strong", html_text(status)));
  return flags.empty() ? head + "\n" : element("div", head + element("ul", flags), "class=\"notes\"") + "\n";
}

/// What was wrong, for the head of the page.
std::vector<std::string> notes_of(const ordered_json& result, const std::vector<std::string>& problems,
                                  const std::vector<std::string>& complaints) {
  std::vector<std::string> notes = problems;
  for (const std::string& complaint : complaints) notes.push_back("Pictures: " + complaint);
  for (const ordered_json& warning : member(result, "warnings")) notes.push_back(words(warning));
  if (const std::string message = text_of(result, "message"); !message.empty())
    notes.insert(notes.begin(), "The fit failed: " + message + ". This page shows its last good state.");
  return notes;
}

/// What the error bars of the maps are, and what they say.
std::string error_bars_html(const ordered_json& uncertainty) {
  if (!uncertainty.is_object()) return "";
  std::string html = element("p", html_text(text_of(uncertainty, "text")));
  for (const ordered_json& note : member(uncertainty, "notes")) html += element("p", html_text(words(note)));
  for (const char* const part : {"resolution", "significant"})
    if (const std::string text = text_of(member(uncertainty, part), "text"); !text.empty())
      html += element("p", html_text(text));
  const ordered_json& coverage = member(uncertainty, "coverage");
  if (coverage.empty()) return html;
  return html + element("h3", "Share of pixels in which the truth lies within 1 and 2 σ") +
         block_html({{"coverage", coverage}});
}

/// The answer of a search for a perturber, and what else explains the data. @param figures  HTML
std::string search_html(const ordered_json& search, const std::string& figures) {
  if (!search.is_object()) return "";
  std::string head, body;
  for (const char* title : {"Explanation", "ln evidence", "BIC", "χ²", "χ² of arcs not fitted", "Parameters"})
    head += element("th", html_text(title));
  const auto cell = [](const ordered_json& value, double sign) {
    return element("td", value.is_number() ? fmt::format("{:+.1f}", sign * value.get<double>()) : "–",
                   "class=\"number\"");
  };
  for (const ordered_json& a : member(search, "alternatives"))
    body += element("tr", element("td", html_text(text_of(a, "name"))) + cell(member(a, "evidence_gain"), 1) +
                              cell(member(a, "bic_change"), 1) + cell(member(a, "chi2_fall"), -1) +
                              cell(member(a, "held_out_fall"), -1) +
                              element("td", html_text(text_of(a, "parameters")), "class=\"number\"")) +
            "\n";
  return element("p", html_text(text_of(search, "summary"))) + "\n" + figures +
         (body.empty() ? "" : element("h3", "Explanations, compared with the smooth lens") + table(head, body));
}

/// The files of the search that belongs to a fit: beside it, or where the fit is in the directory `fit` of a search,
/// in the directory of the search.
std::optional<std::string> directory_of_search(const std::string& fit) {
  const std::filesystem::path path = std::filesystem::absolute(fit).lexically_normal();
  const std::filesystem::path own = path.has_filename() ? path : path.parent_path();
  std::error_code error;
  for (const std::filesystem::path& dir : {own, own.filename() == "fit" ? own.parent_path() : own})
    if (std::filesystem::exists(dir / "detect.json", error)) return dir.string();
  return std::nullopt;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The used pixels of the image of a fit.
std::vector<std::uint8_t> read_mask(const std::string& directory) {
  std::vector<std::uint8_t> used;
  for (const double m : read_fits(in(directory, "result.fits"), "MASK").values) used.push_back(m != 0);
  return used;
}

Page sections(const ordered_json& result, const ordered_json& search, const std::vector<PageFigure>& figures,
              const std::vector<std::string>& png) {
  Page page;
  const auto section = [&](const char* name, const char* layout = "figures") {
    return figures_html(figures, png, name, layout);
  };
  const auto titled = [](const char* title, const std::string& html) {
    return html.empty() ? "" : element("h3", title) + html;
  };
  page.add("image", "Data and model", section("image"));
  page.add("planes", "Lens and source", section("planes"));
  page.add("mass", "Mass", titled("Smooth model", section("smooth")) + titled("Network", section("network")));
  page.add("search", "Is there a perturber?", search_html(search, section("search")));
  page.add("truth", "Against the truth", section("truth"));
  page.add("fit", "Fit", section("fit", "figures wide"));
  const ordered_json& uncertainties = member(result, "uncertainties");
  const std::string method = text_of(uncertainties, "method");
  if (!member(result, "parameters").empty())
    page.add(
        "parameters", "Parameters",
        parameter_table(result) + (method.empty() ? "" : element("p", html_text("Uncertainties: " + method + "."))));
  page.add("errors", "Error bars", error_bars_html(member(result, "uncertainty")));
  const auto folded = [](const char* summary, const std::string& html) {
    return element("details", element("summary", summary) + html);
  };
  if (!member(uncertainties, "correlations").empty())
    page.add("correlations", "Correlations",
             folded("The table", correlation_table(member(uncertainties, "correlations"))));
  if (!member(result, "starts").empty())
    page.add("starts", "Starts", folded("All starts", block_html(member(result, "starts"))));
  if (ordered_json ensemble = member(result, "ensemble"); !ensemble.empty()) {
    ensemble.erase("parameters_std");  // in the table of parameters
    page.add("ensemble", "Ensemble", block_html(ensemble));
  }
  page.add("repeat", "Repeat the run", repeat_html(result));
  return page;
}

}  // namespace

std::vector<std::string> write_report(const ReportContent& content, const std::string& directory) {
  const ordered_json result = ordered_json::parse(content.result_json, nullptr, false);
  if (!result.is_object())
    throw InvalidInput(in(directory, "result.json") + ": damaged, expected the results of a fit");
  std::vector<PageFigure> figures;
  DrawnPictures drawn;
  if (content.fit) figures = page_figures(*content.fit, content.curves);
  if (content.search)
    for (PageFigure& figure : page_figures(*content.search)) figures.push_back(std::move(figure));
  if (!figures.empty()) {
    std::vector<Picture> pictures;
    for (const PageFigure& figure : figures) pictures.push_back(figure.picture);
    drawn = draw_in_memory(pictures);
  }
  const Page page = sections(result, ordered_json::parse(content.detect_json, nullptr, false), figures, drawn.png);

  std::string title = text_of(member(result, "config"), "title");
  if (title.empty()) title = "Fit of a gravitational lens";
  std::string head = element("h1", html_text(title)) + "\n";
  const std::string version = text_of(result, "version"), device = text_of(result, "device");
  head += element("p", html_text("einfield " + version + (device.empty() ? "" : " · " + device) + " · " +
                                 text_of(result, "precision") + " precision")) +
          "\n";
  std::string notes;
  for (const std::string& note : notes_of(result, content.problems, drawn.warnings))
    notes += element("li", html_text(note));
  if (!notes.empty()) notes = element("div", element("ul", notes), "class=\"notes\"") + "\n";
  write_atomically(in(directory, "report.html"),
                   html_page(title, head + verdict_html(result) + page.links() + notes + numbers(result, content.fit),
                             page.body(), html_text("Written by einfield " + version + ", " + now_utc() + ".")));
  return drawn.warnings;
}

std::vector<std::string> write_report(const std::string& directory, int threads) {
  const std::string path = in(directory, "result.json");
  if (!std::ifstream(path)) throw InvalidInput(path + ": cannot be read, expected the results of a fit");
  ReportContent content;
  content.result_json = content_of(path);
  // Without the other files the page has no pictures, and says so.
  try {
    content.fit = read_fitted_maps(directory);
    try {
      ThreadPool pool(threads);
      content.curves = critical_curves_of(read_lens(directory), read_mask(directory), pool);
    } catch (const InvalidInput& error) {
      content.problems.push_back(std::string("No critical curves: ") + error.what());
    }
  } catch (const InvalidInput& error) {
    content.problems.push_back(std::string("No pictures: ") + error.what());
  }
  if (const std::optional<std::string> search = directory_of_search(directory)) {
    content.detect_json = content_of(in(*search, "detect.json"));
    try {
      content.search = read_search_maps(in(*search, "detect.fits"));
    } catch (const InvalidInput& error) {
      content.problems.push_back(std::string("No pictures of the search: ") + error.what());
    }
  }
  return write_report(content, directory);
}

}  // namespace einfield
