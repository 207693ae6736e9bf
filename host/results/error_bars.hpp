// Error bars of a fit, whatever made them: maps of 1 σ, marginalized profile parameters, and what they say of the mass.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/config.hpp"
#include "host/fields/ensemble.hpp"
#include "host/fit/laplace.hpp"

namespace einfield {

/// What a member of a fit brings to its error bars.
struct FittedMember {
  std::vector<double> parameters;    ///< flat vector, in the units of the data
  std::optional<Evidence> evidence;  ///< its weights as in Problem
};

/// The problem with the priors that the member's fit ended with.
Problem with_priors_of(const Problem& problem, const FittedMember& member);

/// Error bars of a fit. Intervals are centered on the fit.
struct ErrorBars {
  UncertaintyKind method = UncertaintyKind::none;
  std::optional<FieldErrors> fields;  ///< nothing without a network
  /// Nothing: those at fixed network and source pixels hold.
  std::optional<MarginalErrors> scalars;
  int converged = 0;                 ///< of randomized: members that reached their minimum
  int members = 0;                   ///< of randomized: those that count
  std::vector<std::string> redrawn;  ///< of randomized: "the noise" …
  std::vector<std::string> not_redrawn;
  std::vector<std::string> notes;  ///< sentences for the report
  /// Of randomized: flat vectors of the members that count, in the units of the data.
  std::vector<std::vector<double>> parameters;
};

/// @param members  those that count
/// @param reported  its mean is what the intervals are centered on
/// @param weights_of_constant  weights of the pixels in the mean of ψ that is removed
using ErrorBarsOf = std::function<ErrorBars(const std::vector<FittedMember>& members, const EnsembleFields& reported,
                                            const std::vector<double>& weights_of_constant)>;

/// The Laplace errors of the first member. With an ensemble the scatter of its maps is added in squares: a mixture of
/// the Gaussians around all members has the mean of their variances, for which that of the first stands, plus this
/// scatter.
ErrorBarsOf laplace_error_bars(const Problem& problem, ThreadPool& pool);

/// Error bars from members of a randomized fit: rms distances from the reported fit, of maps and profile parameters.
/// What the linearization calls not determined, is not determined.
/// @param members   flat vectors in the units of the data; at least two
/// @param fitted    the reported fit: the members of its ensemble
ErrorBars member_error_bars(const Problem& problem, std::vector<std::vector<double>> members,
                            const std::vector<FittedMember>& fitted, const EnsembleFields& reported,
                            const std::vector<double>& weights_of_constant, ThreadPool& pool);

/// Randomized members around a fit of gauss_newton (host/fit/randomized.hpp), from its first network.
/// @param done  as for randomized_fit(); true ends the run with InterruptedMembers
ErrorBarsOf randomized_error_bars(const Problem& problem, const UncertaintyConfig& settings, ThreadPool& pool,
                                  const std::function<bool(int)>& done = nullptr);

/// The method of error bars of a configuration. Laplace that no key asks for gives way to the spread when it would take
/// more than half of the machine's memory. @return with a warning that says so, else ""
std::pair<UncertaintyKind, std::string> possible_method(const Config& config, const Problem& problem, int threads);

/// Thrown when the caller ends a run of members.
struct InterruptedMembers {};

/// The one-sided penalties and the bounds of a problem, which no member draws: "negative_convergence" …
std::vector<std::string> one_sided_priors(const Problem& problem);

/// What the error bars of the maps are, in sentences.
std::string in_words(const ErrorBars& bars);

/// A difference of ln evidence: odds of 150 : 1, "very strong" (Kass & Raftery 1995).
inline constexpr double kStrongEvidence = 5;

/// Where κ of the network, at the resolution of the data, is significant.
struct Significance {
  struct Peak {
    double x = 0, y = 0;  ///< [arcsec]
    double kappa = 0, sigma = 0;
    double ratio() const { return kappa / sigma; }
  };
  std::optional<Peak> highest, lowest;                             ///< largest and smallest κ/σ of the used pixels
  std::size_t pixels = 0;                                          ///< used pixels with an error
  std::size_t above_3 = 0, above_5 = 0, below_3 = 0, below_5 = 0;  ///< of them, that far from zero
  std::string caution;                                             ///< a sentence that begins with a space, or ""
  double chi2_reduced = 0;                                         ///< of the fit; too high, and nothing is significant
  double expected_3 = 0;                ///< pixels beyond 3 σ on either side when there is nothing, on average
  std::optional<double> evidence_gain;  ///< of the network; ≤ kStrongEvidence, and nothing is significant
};
/// @param kappa, sigma  (ny, nx); pixels without a finite error do not count
Significance significance(const Problem& problem, double chi2_reduced, const std::vector<double>& kappa,
                          const std::vector<double>& sigma);
/// "The largest κ is 0.12 ± 0.02 (6.0 σ) at (1.9, −0.4) arcsec …"
std::string in_words(const Significance& significance, bool smoothed);

}  // namespace einfield
