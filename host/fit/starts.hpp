// Starting points for the descents of Levenberg–Marquardt: drawn from priors and bounds, run side by side, the bad ones
// given up early (successive halving: Jamieson & Talwalkar 2016).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "einfield/fitter.hpp"
#include "host/fit/levenberg_marquardt.hpp"

namespace einfield {

/// Unconstrained values of all free scalars, those that move drawn anew: from the Gaussian of the prior within the
/// bounds, or evenly between the bounds, or, with neither, around `initial` as wide as this:
///
///     theta_E log-normal, σ = 0.2       other lengths, sizes log-normal, σ = 0.5      ellipticities σ = 0.15 each
///     centers σ = 0.1 θ_E               shear σ = 0.05, multipoles σ = 0.01 θ_E       angles σ = 1 rad
///     what has a range (n_sersic, gamma) σ = 0.5 of its logistic coordinate: 0.34 of n = 1, 1.1 of n = 4, 0.25 of
///     gamma = 2
///
/// θ_E that of the largest lens, else 1″. Amplitudes are solved for, and not drawn.
/// @param start, attempt  counters of the random numbers
std::vector<double> drawn_scalars(const Model& model, const ScalarModel& scalars, std::uint64_t seed, int start,
                                  int attempt);

/// What came of the starts.
struct StartsResult {
  std::vector<StartRecord> starts;
  std::optional<LevenbergMarquardt> best;  ///< nothing when every start was dead
  std::int64_t evaluations = 0;
  bool interrupted = false;
};

/// Runs `count` descents of at most `steps` steps, the first from the model's own values. After kHalvings[i] steps each
/// the better half goes on, at least kAtLeast of them. A start without a finite value is drawn again, kRedraws times at
/// most. Bits do not depend on the number of threads.
/// @param interrupted  may be empty; asked once a step
StartsResult run_starts(const Model& model, const ScalarModel& scalars, int count, std::uint64_t seed, int steps,
                        ThreadPool& pool, const std::function<bool()>& interrupted);
inline constexpr int kHalvings[] = {10, 25};
inline constexpr std::size_t kAtLeast = 4;
inline constexpr int kRedraws = 20;

}  // namespace einfield
