// Starting points for Levenberg–Marquardt: drawn from priors and bounds and run side by side; the worse ones are given
// up early (successive halving: Jamieson & Talwalkar 2016).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "einfield/fitter.hpp"
#include "host/fit/levenberg_marquardt.hpp"
#include "host/fit/scalar_batch.hpp"

namespace einfield {

/// Unconstrained values of all free scalars; those that move are drawn at random. With a Gaussian prior, from it,
/// within the bounds; with bounds alone, uniformly between them; with neither, around the initial value with these
/// widths:
///
///     theta_E log-normal, σ = 0.2       other lengths, sizes log-normal, σ = 0.5      ellipticities σ = 0.15 each
///     centers σ = 0.1 θ_E               shear σ = 0.05, multipoles σ = 0.01 θ_E       angles σ = 1 rad
///     gradient of the shear σ = 0.01/θ_E
///     what has a range (n_sersic, gamma) σ = 0.5 of its logistic coordinate: 0.34 of n = 1, 1.1 of n = 4, 0.25 of
///     gamma = 2
///
/// θ_E is that of the largest lens, or 1″ without one. Amplitudes are not drawn, because they are solved for.
/// @param start, attempt  select the random numbers
std::vector<double> drawn_scalars(const Model& model, const ScalarModel& scalars, std::uint64_t seed, int start,
                                  int attempt);

/// Outcome of the starts.
struct StartsResult {
  std::vector<StartRecord> starts;
  std::optional<LevenbergMarquardt> best;  ///< empty when no start had a finite value
  std::int64_t evaluations = 0;
  bool interrupted = false;
};

/// The starts of one system.
struct StartsPlan {
  const Model* model;
  int count;           ///< the first one starts from the values of the model
  std::uint64_t seed;  ///< of the drawn ones
  int steps;           ///< of a descent, at most
  /// Unconstrained values of the free scalars that the first starts begin from, instead of the model's; may be empty.
  std::vector<std::vector<double>> given = {};
};

/// The lowest end of every valley among the starts that were not given up, the lowest valleys first. Ends whose values
/// differ by less than kSameValley share a valley.
/// @param most  number of valleys, at most
/// @return      indices into `starts`
std::vector<std::size_t> lowest_valleys(const std::vector<StartRecord>& starts, std::size_t most);

/// The starts of an earlier stage after a stage that has continued from some of them: those that shared a valley end
/// where it ends now.
/// @param continued  indices into `before`, as from lowest_valleys()
/// @param after      where these ended, one each
std::vector<StartRecord> continued_starts(std::vector<StartRecord> before, const std::vector<std::size_t>& continued,
                                          const std::vector<StartRecord>& after);

/// Runs the starts of all systems of a batch side by side: a round evaluates one point of every descent that has not
/// ended.
/// After kHalvings[i] steps only the better half of a system's descents continues, but at least kAtLeast. A start
/// without a finite value is drawn again, at most kRedraws times, unless it is the only one.
/// @param plans        one per system of the batch
/// @param pool         decides for several systems side by side; bits do not depend on it
/// @param interrupted  may be empty; called after every round in which a descent has ended a step
/// @param progress     may be empty; called with the index of the plan when one more of its starts has ended
std::vector<StartsResult> run_starts(ScalarBatch& batch, const std::vector<StartsPlan>& plans, ThreadPool& pool,
                                     const std::function<bool()>& interrupted,
                                     const std::function<void(std::size_t plan, const StartsProgress&)>& progress = {});
inline constexpr int kHalvings[] = {10, 25};
inline constexpr std::size_t kAtLeast = 4;
inline constexpr int kRedraws = 20;

}  // namespace einfield
