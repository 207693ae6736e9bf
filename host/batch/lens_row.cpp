// From an assessed fit to a row, and from a row to a line of text and back.
#include "host/batch/lens_row.hpp"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "host/files/text.hpp"
#include "host/files/version.hpp"
#include "host/results/fingerprint.hpp"

namespace einfield {
namespace {

using nlohmann::ordered_json;

/// Calls visit(name, member) for every member of a row but the parameters and thumbnails. The first ones are those of
/// head_from_json().
template <class Row, class Visit>
void for_each_member(Row& row, Visit&& visit) {
  visit("id", row.id);
  visit("status", row.status);
  visit("attempt", row.attempt);
  visit("settings", row.settings);
  visit("flags", row.flags);
  visit("message", row.message);
  visit("config", row.config);
  visit("nx", row.nx);
  visit("ny", row.ny);
  visit("pixels", row.pixels);
  visit("chi2", row.chi2);
  visit("einstein_radius", row.einstein_radius);
  visit("magnification", row.magnification);
  visit("source_flux", row.source_flux);
  visit("lens_flux", row.lens_flux);
  visit("zero_point", row.zero_point);
  visit("source_magnitude", row.source_magnitude);
  visit("lens_magnitude", row.lens_magnitude);
  visit("starts", row.starts);
  visit("starts_reached_best", row.starts_reached_best);
  visit("log_evidence", row.log_evidence);
  visit("kappa_peak", row.kappa_peak);
  visit("kappa_peak_snr", row.kappa_peak_snr);
  visit("kappa_peak_x", row.kappa_peak_x);
  visit("kappa_peak_y", row.kappa_peak_y);
  visit("steps", row.steps);
  visit("warnings", row.warnings);
  visit("members", row.members);
  visit("seconds", row.seconds);
  visit("device", row.device);
  visit("precision", row.precision);
  visit("version", row.version);
  visit("seed", row.seed);
}

/// JSON has no NaN and no infinities: NaN is null, infinities are texts.
ordered_json number_json(double value) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

/// Takes the members of a head from a text and ends behind the last of them, or at anything that is no head.
class HeadReader : public nlohmann::json_sax<ordered_json> {
 public:
  LensRow row;
  bool complete() const { return complete_; }

  bool key(string_t& name) override {
    name_ = name;
    return true;
  }
  bool string(string_t& text) override {
    if (name_ != "id" && name_ != "status") return false;
    (name_ == "id" ? row.id : row.status) = std::move(text);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (name_ == "attempt") row.attempt = static_cast<int>(value);
    if (name_ == "settings") row.settings = value;
    complete_ = name_ == "settings" && !row.id.empty() && !row.status.empty();
    return name_ == "attempt";
  }
  bool start_object(std::size_t) override { return name_.empty(); }
  bool null() override { return false; }
  bool boolean(bool) override { return false; }
  bool number_integer(number_integer_t) override { return false; }
  bool number_float(number_float_t, const string_t&) override { return false; }
  bool binary(binary_t&) override { return false; }
  bool end_object() override { return false; }
  bool start_array(std::size_t) override { return false; }
  bool end_array() override { return false; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  std::string name_;
  bool complete_ = false;
};

double number_from(const ordered_json& json) {
  if (json.is_null()) return LensRow::kUnknown;
  if (json.is_string()) return json == "-inf" ? -kInfinity : kInfinity;
  return json.get<double>();
}

/// Units of all parameters of profiles as FITS writes them: it has no name for the unit of the image.
std::map<std::string, std::string> units_of_parameters(const Model& model) {
  std::map<std::string, std::string> units;
  const auto add = [&units](const std::string& component, const ProfileInfo& profile) {
    for (const ParameterInfo& p : profile.parameters)
      units[component + "." + p.name] = std::string(p.unit) == "image unit" ? "" : p.unit;
  };
  for (std::size_t i = 0; i < model.lens.size(); ++i) add("lens." + std::to_string(i), lens_info(model.lens[i].kind));
  for (std::size_t i = 0; i < model.source.size(); ++i)
    add("source." + std::to_string(i), light_info(model.source[i].kind));
  for (std::size_t i = 0; i < model.lens_light.size(); ++i)
    add("lens_light." + std::to_string(i), light_info(model.lens_light[i].kind));
  return units;
}

/// With seven digits: as many as an end of an interval needs, which halves its length in a file.
double shortened(double value) {
  return std::isfinite(value) ? std::stod(fmt::format("{:.7g}", value)) : value;
}

void add_parameters(LensRow& row, const Assessment& fit) {
  const ParameterLayout fitted(fit.model);
  std::map<std::string, std::string> units = units_of_parameters(fit.model);
  std::vector<double> values, sigma;
  for (std::size_t i = 0; i < fit.layout.n_free(); ++i) {
    values.push_back(fitted.table[static_cast<std::size_t>(fit.layout.free[i].slot)]);
    sigma.push_back(fit.uncertainties ? fit.uncertainties->sigma[i] : LensRow::kUnknown);
  }
  const std::vector<std::pair<double, double>> ends = three_sigma(fit.layout, values, sigma);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::string& name = fit.layout.names[i];
    row.parameters.push_back(
        {name, values[i], sigma[i], units[name], shortened(ends[i].first), shortened(ends[i].second)});
  }
}

/// Of the data, the model and the settings, as a checkpoint would have it at the end of the fit.
std::uint64_t config_checksum(const Assessment& fit) {
  Checksum checksum;
  const auto add = [&checksum](const std::string& text) { checksum.add(text.c_str(), text.size() + 1); };
  for (const auto& [key, value] : fingerprint(fit.config, fit.loaded.problem, std::numeric_limits<int>::max(),
                                              std::numeric_limits<std::int64_t>::max()))
    add(key + "=" + value);
  for (const StageConfig& stage : fit.config.optimizer.all_stages()) add(to_text(stage.steps));
  add(fit.double_precision ? "double" : "single");
  add(name_of(fit.config.uncertainty.method));
  return checksum.value();
}

}  // namespace

std::vector<std::pair<double, double>> three_sigma(const ParameterLayout& layout, const std::vector<double>& values,
                                                   const std::vector<double>& sigma) {
  const std::vector<double> u = layout.unconstrained(values);
  std::vector<double> unit(layout.table.size(), 0.0);
  std::vector<std::pair<double, double>> ends;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int at = static_cast<int>(i);
    double& bar = unit[static_cast<std::size_t>(layout.free[i].slot)];
    bar = 1;
    const double reach = 3 * sigma[i] / std::abs(transform_adjoint(layout.free.data(), at, u.data(), unit.data()));
    bar = 0;
    const auto end = [&](double side) {
      std::vector<double> moved = u;
      moved[i] += side * reach;
      return transform(layout.free.data(), at, moved.data());
    };
    ends.emplace_back(end(-1), end(1));
  }
  return ends;
}

LensRow row_of(const Assessment& fit, const RunInfo& info) {
  const MemberOutcome& outcome = fit.outcome();
  const Observation& o = fit.loaded.problem.observation;
  LensRow row;
  row.status = name_of(fit.status());
  row.flags = mask_of(fit.flags);
  for (const RaisedFlag& raised : fit.flags)
    if (row.message.empty() || flag_info(raised.flag).status == FitStatus::failed) {
      row.message = raised.text;
      if (flag_info(raised.flag).status == FitStatus::failed) break;
    }
  row.config = config_checksum(fit);
  row.nx = o.grid.nx;
  row.ny = o.grid.ny;
  row.pixels = o.n_used();
  row.chi2 = fit.data.chi2_reduced;
  add_parameters(row, fit);
  row.einstein_radius = fit.derived.einstein_radius;
  row.magnification = fit.derived.magnification;
  row.source_flux = fit.derived.source_flux;
  row.lens_flux = fit.derived.lens_flux;
  row.zero_point = fit.loaded.zero_point.value_or(LensRow::kUnknown);
  row.source_magnitude = fit.derived.source_magnitude;
  row.lens_magnitude = fit.derived.lens_magnitude;
  row.starts = static_cast<std::int64_t>(fit.starts.size());
  row.starts_reached_best = fit.starts.empty() ? 0 : reached_best(fit.starts);
  if (outcome.evidence) row.log_evidence = outcome.evidence->log_evidence;
  if (fit.significance && fit.significance->highest) {
    const Significance::Peak& peak = *fit.significance->highest;
    row.kappa_peak = peak.kappa;
    row.kappa_peak_snr = peak.ratio();
    row.kappa_peak_x = peak.x;
    row.kappa_peak_y = peak.y;
  }
  row.steps = outcome.steps;
  row.warnings = static_cast<std::int64_t>(fit.warnings.size());
  row.members = static_cast<std::int64_t>(fit.members());
  row.device = info.device;
  row.precision = info.precision;
  row.version = version();
  row.seed = fit.config.network ? fit.config.network->seed : fit.config.optimizer.starts_seed;
  row.thumbnails = thumbnails_of(fit);
  return row;
}

LensRow row_of(const SurveyFlag& flag, const std::string& message) {
  LensRow row;
  row.status = name_of(flag.status);
  row.flags = std::uint64_t(1) << flag.bit;
  row.message = message;
  row.version = version();
  return row;
}

std::string to_json(const LensRow& row) {
  ordered_json json;
  for_each_member(row, [&json](const char* name, const auto& member) {
    if constexpr (std::is_same_v<std::decay_t<decltype(member)>, double>)
      json[name] = number_json(member);
    else
      json[name] = member;
  });
  json["parameters"] = ordered_json::array();
  for (const LensRow::Parameter& p : row.parameters)
    json["parameters"].push_back(
        {p.name, number_json(p.value), number_json(p.sigma), p.unit, number_json(p.lower), number_json(p.upper)});
  if (const Thumbnails& t = row.thumbnails; !t.empty())
    json["thumbnails"] = {t.nx, t.ny, t.data, t.model, t.residual, t.kappa};
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

LensRow head_from_json(std::string_view text) {
  HeadReader reader;
  ordered_json::sax_parse(text, &reader, ordered_json::input_format_t::json, false);
  if (!reader.complete()) throw InvalidInput("not the row of a lens");
  return std::move(reader.row);
}

LensRow from_json(std::string_view text) {
  try {
    const ordered_json json = ordered_json::parse(text);
    LensRow row;
    for_each_member(row, [&json](const char* name, auto& member) {
      using Member = std::decay_t<decltype(member)>;
      if constexpr (std::is_same_v<Member, double>)
        member = number_from(json.at(name));
      else
        member = json.at(name).get<Member>();
    });
    for (const ordered_json& p : json.at("parameters"))
      row.parameters.push_back({p.at(0).get<std::string>(), number_from(p.at(1)), number_from(p.at(2)),
                                p.at(3).get<std::string>(), number_from(p.at(4)), number_from(p.at(5))});
    if (const auto t = json.find("thumbnails"); t != json.end())
      row.thumbnails = {t->at(0).get<int>(),         t->at(1).get<int>(),         t->at(2).get<std::string>(),
                        t->at(3).get<std::string>(), t->at(4).get<std::string>(), t->at(5).get<std::string>()};
    return row;
  } catch (const ordered_json::exception& error) {
    throw InvalidInput(std::string("not the row of a lens (") + error.what() + ")");
  }
}

}  // namespace einfield
