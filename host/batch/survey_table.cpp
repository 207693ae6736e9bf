// Rows become columns.
#include "host/batch/survey_table.hpp"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "host/batch/lens_row.hpp"
#include "host/files/version.hpp"

namespace einfield {
namespace {

constexpr double kNone = LensRow::kUnknown;

/// Collects columns of one row after the other.
class Columns {
 public:
  /// A column whose values so far, if any, are missing ones.
  std::size_t add(const std::string& name, const std::string& unit, const std::string& description, int kind) {
    TableColumn column{name, unit, description, {}};
    if (kind == 0) column.values = std::vector<std::string>(rows_);
    if (kind == 1) column.values = std::vector<double>(rows_, kNone);
    if (kind == 2) column.values = std::vector<std::int64_t>(rows_);
    columns_.push_back(std::move(column));
    return columns_.size() - 1;
  }
  void begin_row() {
    ++rows_;
    for (TableColumn& column : columns_)
      std::visit([this](auto& values) { values.resize(rows_, missing(values)); }, column.values);
  }
  void set(std::size_t column, std::string text) { last<std::string>(column) = std::move(text); }
  void set(std::size_t column, double number) { last<double>(column) = number; }
  void set(std::size_t column, std::int64_t number) { last<std::int64_t>(column) = number; }
  std::vector<TableColumn> take() { return std::move(columns_); }

 private:
  static std::string missing(const std::vector<std::string>&) { return ""; }
  static double missing(const std::vector<double>&) { return kNone; }
  static std::int64_t missing(const std::vector<std::int64_t>&) { return 0; }
  template <class Value>
  Value& last(std::size_t column) {
    return std::get<std::vector<Value>>(columns_[column].values).back();
  }

  std::size_t rows_ = 0;
  std::vector<TableColumn> columns_;
};

/// A column of the table and the member of a row that fills it.
struct Numbers {
  const char *name, *unit, *description;
  std::function<double(const LensRow&)> value;
};
struct Integers {
  const char *name, *description;
  std::function<std::int64_t(const LensRow&)> value;
};
struct Texts {
  const char *name, *description;
  std::function<std::string(const LensRow&)> value;
};

const std::vector<Texts>& verdict_texts() {
  static const std::vector<Texts> columns = {
      {"status", "ok, suspect, failed or unfinished", [](const LensRow& r) { return r.status; }},
      {"flag_names", "names of the bits in flags", [](const LensRow& r) { return flag_names(r.flags); }},
      {"message", "what is wrong, of the worst flag", [](const LensRow& r) { return r.message; }}};
  return columns;
}

const std::vector<Integers>& verdict_integers() {
  static const std::vector<Integers> columns = {
      {"flags", "bits; einfield info --flags lists them",
       [](const LensRow& r) { return static_cast<std::int64_t>(r.flags); }},
      {"nx", "columns of the image", [](const LensRow& r) { return std::int64_t(r.nx); }},
      {"ny", "rows of the image", [](const LensRow& r) { return std::int64_t(r.ny); }},
      {"pixels", "pixels that were used", [](const LensRow& r) { return r.pixels; }}};
  return columns;
}

const std::vector<Numbers>& derived_numbers() {
  static const std::vector<Numbers> columns = {
      {"einstein_radius_effective", "arcsec", "radius of the circle with the area inside the critical curve",
       [](const LensRow& r) { return r.einstein_radius; }},
      {"magnification", "", "lensed light in the image over source_flux",
       [](const LensRow& r) { return r.magnification; }},
      {"source_flux", "", "flux of all sources, in the unit of the image",
       [](const LensRow& r) { return r.source_flux; }},
      {"lens_flux", "", "flux of all lens light, in the unit of the image",
       [](const LensRow& r) { return r.lens_flux; }},
      {"zero_point", "mag", "AB magnitude of a flux of 1 in the unit of the image; nan = unknown",
       [](const LensRow& r) { return r.zero_point; }},
      {"source_magnitude", "mag", "AB magnitude of source_flux", [](const LensRow& r) { return r.source_magnitude; }},
      {"lens_magnitude", "mag", "AB magnitude of lens_flux", [](const LensRow& r) { return r.lens_magnitude; }},
      {"log_evidence", "", "natural logarithm of the evidence", [](const LensRow& r) { return r.log_evidence; }},
      {"kappa_peak", "", "convergence of the network where it is most significant",
       [](const LensRow& r) { return r.kappa_peak; }},
      {"kappa_peak_snr", "", "kappa_peak over its error", [](const LensRow& r) { return r.kappa_peak_snr; }},
      {"kappa_peak_x", "arcsec", "its place", [](const LensRow& r) { return r.kappa_peak_x; }},
      {"kappa_peak_y", "arcsec", "its place", [](const LensRow& r) { return r.kappa_peak_y; }},
      {"seconds", "s", "wall time; the one column that differs from run to run",
       [](const LensRow& r) { return r.seconds; }}};
  return columns;
}

const std::vector<Integers>& run_integers() {
  static const std::vector<Integers> columns = {
      {"starts", "starts of the fit; 0 with one", [](const LensRow& r) { return r.starts; }},
      {"starts_reached_best", "of them, how many reached the best one",
       [](const LensRow& r) { return r.starts_reached_best; }},
      {"members", "members of the ensemble that count", [](const LensRow& r) { return r.members; }},
      {"steps", "steps of the fit", [](const LensRow& r) { return r.steps; }},
      {"warnings", "warnings about data, configuration and fit", [](const LensRow& r) { return r.warnings; }},
      {"attempt", "1, and one more each time that the lens was fitted again",
       [](const LensRow& r) { return std::int64_t(r.attempt); }},
      {"seed", "of the network, or without one of the starts",
       [](const LensRow& r) { return static_cast<std::int64_t>(r.seed); }}};
  return columns;
}

const std::vector<Texts>& run_texts() {
  static const std::vector<Texts> columns = {
      {"config", "checksum of the data, the model and the settings of the fit",
       [](const LensRow& r) { return r.config == 0 ? std::string() : fmt::format("{:016x}", r.config); }},
      {"precision", "single or double", [](const LensRow& r) { return r.precision; }},
      {"device", "that fitted the lens", [](const LensRow& r) { return r.device; }},
      {"version", "of einfield", [](const LensRow& r) { return r.version; }}};
  return columns;
}

/// Columns of all rows, of which each fills its last one. They are in three groups, so that a row may bring new
/// parameters.
class TableBuilder {
 public:
  explicit TableBuilder(const Manifest& manifest) {
    id_ = head_.columns.add("id", "", "of the manifest", 0);
    for (const auto& [name, unit] : {std::pair("ra", "deg"), {"dec", "deg"}, {"z_lens", ""}, {"z_source", ""}})
      if (manifest.has(name)) carried_.emplace_back(name, head_.columns.add(name, unit, "of the manifest", 1));
    head_.add(verdict_texts());
    head_.add(verdict_integers());
    static const std::vector<Numbers> chi2 = {{"chi2", "", "reduced chi2", [](const LensRow& r) { return r.chi2; }}};
    head_.add(chi2);
    tail_.add(derived_numbers());
    tail_.add(run_integers());
    tail_.add(run_texts());
  }

  void add(const SurveyLens& lens, const LensRow& row) {
    head_.begin(row);
    head_.columns.set(id_, lens.id);
    for (const auto& [name, column] : carried_) head_.columns.set(column, lens.number(name));
    parameters_.begin_row();
    for (const LensRow::Parameter& p : row.parameters) {
      const std::size_t column = column_of(p);
      for (const auto& [next, value] : {std::pair(0, p.value), {1, p.sigma}, {2, p.lower}, {3, p.upper}})
        parameters_.set(column + static_cast<std::size_t>(next), value);
    }
    tail_.begin(row);
  }
  std::vector<TableColumn> take() {
    std::vector<TableColumn> all = head_.columns.take();
    for (Columns* columns : {&parameters_, &tail_.columns})
      for (TableColumn& column : columns->take()) all.push_back(std::move(column));
    return all;
  }

 private:
  /// Columns with the functions that fill them from a row.
  struct Group {
    Columns columns;
    std::vector<std::pair<std::size_t, const Texts*>> texts;
    std::vector<std::pair<std::size_t, const Integers*>> integers;
    std::vector<std::pair<std::size_t, const Numbers*>> numbers;

    void add(const std::vector<Texts>& more) {
      for (const Texts& c : more) texts.emplace_back(columns.add(c.name, "", c.description, 0), &c);
    }
    void add(const std::vector<Integers>& more) {
      for (const Integers& c : more) integers.emplace_back(columns.add(c.name, "", c.description, 2), &c);
    }
    void add(const std::vector<Numbers>& more) {
      for (const Numbers& c : more) numbers.emplace_back(columns.add(c.name, c.unit, c.description, 1), &c);
    }
    void begin(const LensRow& row) {
      columns.begin_row();
      for (const auto& [column, c] : texts) columns.set(column, c->value(row));
      for (const auto& [column, c] : integers) columns.set(column, c->value(row));
      for (const auto& [column, c] : numbers) columns.set(column, c->value(row));
    }
  };

  /// The first of the four columns of a parameter, which are made with the first row that has it.
  std::size_t column_of(const LensRow::Parameter& p) {
    const auto known = parameter_columns_.find(p.name);
    if (known != parameter_columns_.end()) return known->second;
    const std::size_t column = parameters_.add(p.name, p.unit, "fitted value", 1);
    parameters_.add(p.name + "_err", p.unit, "its 1 sigma; nan where the data do not determine it", 1);
    parameters_.add(p.name + "_lower3", p.unit,
                    "lower end of +-3 sigma, Gaussian in the variable of the fit, which has no ends", 1);
    parameters_.add(p.name + "_upper3", p.unit, "upper end of +-3 sigma", 1);
    parameter_columns_[p.name] = column;
    return column;
  }

  Group head_, tail_;
  Columns parameters_;
  std::size_t id_ = 0;
  std::vector<std::pair<std::string, std::size_t>> carried_;
  std::unordered_map<std::string, std::size_t> parameter_columns_;
};

/// Of a lens without a row.
LensRow unfinished_row() {
  LensRow row;
  row.status = kUnfinishedFlag.name;
  row.flags = std::uint64_t(1) << kUnfinishedFlag.bit;
  row.attempt = 0;
  return row;
}

}  // namespace

LensRow row_in(const RowStore& rows, const std::string& id) {
  const RowStore::Head* const head = rows.find(id);
  return head ? rows.read(*head) : unfinished_row();
}

Table survey_table(const Manifest& manifest, const RowStore& rows) {
  TableBuilder builder(manifest);
  for (const SurveyLens& lens : manifest.lenses) builder.add(lens, row_in(rows, lens.id));
  return {"LENSES", builder.take(), {{"CREATOR", "einfield " + version()}}};
}

}  // namespace einfield
