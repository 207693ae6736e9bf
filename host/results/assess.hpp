// Everything that is computed from a finished fit, as one struct: result files, figures and the report are made of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/flags.hpp"
#include "einfield/load.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fields/critical_curves.hpp"
#include "host/fields/ensemble.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/fields/metrics.hpp"
#include "host/fields/model_image.hpp"
#include "host/fit/uncertainties.hpp"
#include "host/results/error_bars.hpp"

namespace einfield {

/// A member of an ensemble ended in another minimum when its loss plus regularization is larger than the lowest of all
/// members by more than this fraction, and most members lie within it: at 100 × 100 pixels, a χ² larger by 500.
inline constexpr double kFarAbove = 0.05;

/// Why members of an ensemble do not count, one sentence per member; "" for a member that counts. Members that became
/// non-finite or ended in another minimum are excluded from all means, unless all members became non-finite.
template <class Real>
std::vector<std::string> left_out(const Config& config, const std::vector<FitResult<Real>>& results);

/// How well the model image describes all used pixels, held-out pixels included.
struct DataFit {
  double loss = 0;  ///< as [optimizer] loss defines it, without regularization
  double chi2_reduced = 0;
};

/// How one member of the fit ended: FitResult without its parameters.
struct MemberOutcome {
  StopReason stop_reason = StopReason::steps;
  std::string message;
  std::int64_t steps = 0, state_step = 0, evaluations = 0;
  double time_s = 0;
  StepState final_state;
  std::optional<Evidence> evidence;  ///< its weights are those of a configuration
  std::string left_out;              ///< why the member does not count; "" when it counts
  std::vector<StageEnd> stages;      ///< how the stages of this run ended
};

/// What astronomers quote of a lens, from the mean model with the network.
struct Derived {
  CriticalCurves curves;
  double einstein_radius = 0;  ///< effective_radius() of the curves [arcsec]; NaN without a closed one
  double smooth_radius = 0;    ///< the same without the network [arcsec]
  double einstein_mass = 0;    ///< of the cylinder inside it [solar masses]; NaN without [cosmology]
  double source_flux = 0;      ///< total_flux() of all sources [image unit]; NaN when it has no end
  double lens_flux = 0;        ///< of all lens light
  double magnification = 0;    ///< lensed light in the image over source_flux
  /// AB magnitudes of the two fluxes; NaN where the zero point is unknown or the flux is not positive.
  double source_magnitude = 0, lens_magnitude = 0;
};

/// A finished fit. Maps are at the pixel centers, (ny, nx); "mean" is the mean over the members that count.
struct Assessment {
  Config config;
  LoadedProblem loaded;
  ParameterLayout layout;         ///< of loaded.problem.model
  bool double_precision = false;  ///< of the fit

  std::vector<MemberOutcome> outcomes;  ///< of all members
  std::size_t reported = 0;             ///< the member whose outcome, history and starts stand for the fit
  std::vector<HistoryRow> history;
  std::vector<StartRecord> starts;
  std::vector<std::string> warnings;  ///< of the configuration, the data and the excluded members

  // The members that count.
  std::vector<Model> models;
  std::vector<std::vector<double>> weights;  ///< of the network of the potential
  Model model;  ///< mean of all parameters and pixels; weights are those of the first member
  std::optional<Uncertainties> uncertainties;  ///< of the free parameters, at the first member
  std::vector<double> first_parameters;        ///< flat vector of the first member
  std::vector<double> deviation;               ///< of the free parameters over the members; empty with one member

  std::vector<double> image;       ///< mean model image after the PSF
  ModelImages first_images;        ///< of the first member
  std::vector<double> lens_light;  ///< the part of `image` that is not lensed
  LensFields smooth;               ///< of `model`
  EnsembleFields network;
  std::vector<double> constant_weights;  ///< of the pixels in the mean of ψ that error bars of ψ leave out
  /// Nothing without a network that fits, and with uncertainty.method = "none"; with "spread" the members' scatter.
  std::optional<ErrorBars> error_bars;
  std::vector<double> kappa_psf;  ///< P ∗ κ of the network; empty without error bars of it
  std::optional<Significance> significance;
  std::vector<double> sensitivity;  ///< source_plane.hpp
  PixelGrid source_grid;            ///< around the lensed light, also where the source is shown on its own pixels
  std::vector<double> source;  ///< mean brightness on source_grid; empty where the source is one PIXELATED component

  Derived derived;
  DataFit data;
  std::optional<TruthErrors> errors;
  /// How often the truth lies within the error bars: "psi_all" …
  std::vector<std::pair<std::string, Coverage>> coverages;
  std::vector<RaisedFlag> flags;  ///< what may be wrong (verdict.hpp)

  FitStatus status() const { return status_of(flags); }

  const MemberOutcome& outcome() const { return outcomes[reported]; }
  std::size_t members() const { return models.size(); }
};

/// @param results       one per member of the ensemble; one without an ensemble
/// @param model_images  Field::model of the backend at their parameters, (ny, nx)
/// @param uncertainties  of the free scalars; called once, and again when the rendering is coarse (verdict.hpp)
/// @param error_bars    null: with "laplace" computed here, else none but the spread
/// @param networks      Backend::network_fields() at the pixel centers; empty: computed here, on the CPU
template <class Real>
Assessment assess(const Config& config, const LoadedProblem& loaded, const std::vector<FitResult<Real>>& results,
                  const std::vector<std::vector<Real>>& model_images, ThreadPool& pool,
                  const UncertaintiesOf& uncertainties, const std::vector<NetworkFields<Real>>& networks = {},
                  const ErrorBarsOf& error_bars = nullptr);

/// One paragraph for people: how well the model fits and, with a truth, how large the errors are.
std::string summary(const Assessment& fit);

}  // namespace einfield
