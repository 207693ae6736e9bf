// The results of a fit from C++: a fit made with the library is written as a directory of results, and any directory of
// results is read back. Files and formats are those of `einfield fit`.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/fitter.hpp"
#include "einfield/load.hpp"

namespace EINFIELD_API einfield {

// ---- writing ---------------------------------------------------------------------------------------------

/// What computed a fit, for result.json.
struct RunInfo {
  std::string backend;    ///< Backend::name()
  std::string device;     ///< Backend::device()
  std::string precision;  ///< "single" or "double"
  std::string command{};  ///< shell command that started the run; "" = unknown
};

/// Describes a problem that was built in memory as a configuration, as far as the problem says it: title, names of
/// files and settings of the optimizer are the caller's to fill in, and so is network.seed, the first of an ensemble.
Config config_of(const Problem& problem);

/// Writes the results of a fit into a directory, made when it is absent: result.fits, result.json, history.csv,
/// networks, coolest.json. Earlier results are replaced when the new ones are complete. Error bars are those of
/// config.uncertainty: "laplace" is computed here, and so is "randomized" after gauss_newton.
/// @param config        of the fit: load_problem() was called with it, or it comes from config_of()
/// @param results       one per member of an ensemble; one without an ensemble
/// @param model_images  Field::model of the backend at their parameters, (ny, nx)
/// @param threads       0 = as many as the process may use
/// @return one paragraph for people: how well the model fits and, with a truth, how large the errors are
/// @throws InvalidInput or IoError
template <class Real>
EINFIELD_API std::string write_results(const std::string& dir, const Config& config, const LoadedProblem& loaded,
                                       const std::vector<FitResult<Real>>& results,
                                       const std::vector<std::vector<Real>>& model_images, const RunInfo& info,
                                       int threads = 0);

/// Draws every figure of a fit into DIR/figures/*.png with gnuplot.
/// @return warnings: what gnuplot could not draw @throws InvalidInput without results, IoError
std::vector<std::string> draw_figures(const std::string& dir);

/// Writes DIR/report.html: figures, numbers, tables, the configuration and how to repeat the run. The page needs no
/// other file, no network and no script. Text from users stands in it as text.
/// @param threads  to find the critical curves; 0 = as many as the process may use
/// @return warnings: what could not be drawn; the page says it too
/// @throws InvalidInput without a readable result.json, IoError
std::vector<std::string> write_report(const std::string& dir, int threads = 0);

// ---- reading ---------------------------------------------------------------------------------------------

/// A parameter of a profile after the fit. What is not known is NaN.
struct ResultParameter {
  std::string name;  ///< "lens.0.theta_E"
  std::string unit;
  double value = 0;  ///< with an ensemble, the mean over its members
  bool free = false;
  double sigma = std::numeric_limits<double>::quiet_NaN();      ///< 1 σ, NaN also when it is not determined
  double deviation = std::numeric_limits<double>::quiet_NaN();  ///< standard deviation over the members of an ensemble
};

/// A network of the potential: network_potential() evaluates it.
struct ResultNetwork {
  NetworkShape shape;
  std::vector<double> weights;  ///< flat layout of `shape`
};

/// The contents of a directory of results, except the maps.
struct Results {
  std::string dir;      ///< the directory
  std::string version;  ///< of einfield that wrote it
  std::string title;
  RunInfo run;
  /// Of flags.hpp. A flag of a newer version, which the table lacks, is in `flag_names` alone.
  FitStatus status = FitStatus::ok;
  std::vector<RaisedFlag> flags;
  std::vector<std::string> flag_names;
  std::string stop_reason;  ///< name_of(FitResult::stop_reason)
  std::string message;      ///< of a fit that failed; else ""
  std::int64_t steps = 0;
  std::int64_t state_step = 0;  ///< the step of the returned state
  double time_s = 0;            ///< wall time of the fit
  std::vector<std::string> warnings;
  std::map<std::string, double> metrics;  ///< "chi2_reduced", "loss"; with a truth its errors. NaN is left out

  Grid grid;                        ///< of the image
  std::optional<CelestialWcs> sky;  ///< of the image, when it is known
  Model model;  ///< with fitted parameters and pixels; a NETWORK component has the weights of the first member
  std::vector<ResultParameter> parameters;  ///< all parameters of all profiles, in the order of the model
  std::vector<ResultNetwork> networks;      ///< of the potential: none, one, or the members of an ensemble
  std::vector<double>
      potential_offsets;  ///< to subtract from the members' potentials [arcsec²]; empty without ensemble
  /// Columns of history.csv, one value per logged step: "step", "loss", "chi2_reduced" …
  std::map<std::string, std::vector<double>> history;
  std::string config;  ///< the complete configuration as TOML

  /// @throws InvalidInput when there is no parameter of this name
  const ResultParameter& parameter(const std::string& name) const;
};

/// Reads result.json, history.csv, the networks and the pixels of PIXELATED components.
/// @throws InvalidInput "DIR/FILE: …" when a file is missing, damaged, or not what a fit writes
Results read_results(const std::string& dir);

/// An HDU of result.fits.
struct ResultMap {
  int nx = 0, ny = 0;
  int planes = 1;                     ///< 2 for ALPHA_*: x, then y
  std::vector<double> values;         ///< (planes, ny, nx), row 0 at the bottom
  std::string unit;                   ///< BUNIT
  double pixel_scale = 0;             ///< [arcsec]
  double center_x = 0, center_y = 0;  ///< coordinate of the middle of the map [arcsec]
};

/// Whether result.fits has an HDU of this name: "PSI_TRUE", "KAPPA_NN_STD" … @throws InvalidInput as read_result_map()
bool has_result_map(const std::string& dir, const std::string& name);
/// @param name  EXTNAME: "MODEL", "KAPPA_NN" … @throws InvalidInput when the file or the HDU is missing or damaged
ResultMap read_result_map(const std::string& dir, const std::string& name);

/// ψ, α and κ at n positions.
struct ResultFields {
  std::vector<double> potential;    ///< n [arcsec²]
  std::vector<double> deflection;   ///< 2 × n, all x, then all y [arcsec]
  std::vector<double> convergence;  ///< n
};
struct ResultLensFields {
  ResultFields network;  ///< the mean over the members of an ensemble; 0 without a network
  ResultFields smooth;   ///< of the profiles
};
/// The lens of a fit at any positions, in the precision of the fit.
/// @param theta    2 × n, all x, then all y [arcsec]
/// @param threads  0 = as many as the process may use
ResultLensFields evaluate(const Results& results, const std::vector<double>& theta, int threads = 0);

}  // namespace einfield
