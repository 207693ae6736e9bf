// The row of a finished lens: what a survey keeps of a fit, and its text in a file.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "einfield/results.hpp"
#include "host/batch/manifest.hpp"
#include "host/batch/survey_flags.hpp"
#include "host/batch/thumbnails.hpp"
#include "host/results/assess.hpp"

namespace einfield {

struct LensRow {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  struct Parameter {
    std::string name;
    double value = kUnknown, sigma = kUnknown;  ///< NaN: not determined
    std::string unit;
    double lower = kUnknown, upper = kUnknown;  ///< ends of its interval of 3 σ, see three_sigma()
  };

  std::string id;
  std::string status;  ///< "ok", "suspect", "failed"
  std::uint64_t flags = 0;
  std::string message;         ///< why the status is not "ok"
  int attempt = 1;             ///< 1, and one more each time that a finished lens is fitted again
  std::uint64_t settings = 0;  ///< SurveyLens::settings and what the command line adds
  std::uint64_t config = 0;    ///< checksum of the data, the model and the settings of the fit

  int nx = 0, ny = 0;
  std::int64_t pixels = 0;            ///< that are used
  double chi2 = kUnknown;             ///< reduced
  std::vector<Parameter> parameters;  ///< the free ones of profiles
  double einstein_radius = kUnknown;  ///< effective [arcsec]
  double magnification = kUnknown, source_flux = kUnknown, lens_flux = kUnknown;
  double zero_point = kUnknown, source_magnitude = kUnknown, lens_magnitude = kUnknown;  ///< AB
  std::int64_t starts = 0, starts_reached_best = 0;
  double log_evidence = kUnknown;
  double kappa_peak = kUnknown, kappa_peak_snr = kUnknown, kappa_peak_x = kUnknown, kappa_peak_y = kUnknown;
  std::int64_t steps = 0, warnings = 0, members = 0;
  double seconds = kUnknown;  ///< wall time of reading, fit and assessment
  std::string device, precision, version;
  std::uint64_t seed = 0;
  Thumbnails thumbnails;

  bool failed() const { return status == name_of(FitStatus::failed); }
  bool flagged() const { return status != name_of(FitStatus::ok); }
};

/// The ends of the interval of 3 σ of every free parameter: ± 3 σ in the numbers u in which the fit moves, where the
/// range of a parameter has no ends (ParameterLayout),
///
///     p(u ± 3 σ/|dp/du|)
///
/// so that they lie inside of that range. For a parameter without a range they are p ± 3 σ.
/// @param values, sigma  of the free parameters, in layout order
/// @return               lower and upper ends; NaN where sigma is NaN
std::vector<std::pair<double, double>> three_sigma(const ParameterLayout& layout, const std::vector<double>& values,
                                                   const std::vector<double>& sigma);

/// The row of a fit.
LensRow row_of(const Assessment& fit, const RunInfo& info);
/// The row of a lens that could not be fitted.
LensRow row_of(const SurveyFlag& flag, const std::string& message);

/// One line of JSON without its end; numbers read back as the same bits.
std::string to_json(const LensRow& row);
/// @throws InvalidInput when the text is not such a line
LensRow from_json(std::string_view json);
/// Only id, status, attempt and settings of a line, with which it begins: reading ends behind them.
/// @throws InvalidInput when the text does not begin like such a line
LensRow head_from_json(std::string_view json);

}  // namespace einfield
