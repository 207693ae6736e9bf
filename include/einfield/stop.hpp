// When a stage of a fit stops and which of its states is the result. Both backends call judge(), once per step.
#pragma once

#include <cstdint>

#include "einfield/adam.hpp"

namespace EINFIELD_API einfield {

/// When a stage stops before all its steps are done, and which state is then its result.
enum class StopRule {
  none,  ///< never. Result: the last state, or that of FitSettings::best_of_last
  chi2,  ///< when the reduced χ² has fallen to FitSettings::stop_chi2 (discrepancy principle). Result: that state,
         ///< or as for `none` when it is not reached
  held_out,  ///< when the χ² of the held-out pixels no longer falls. Result: the state of its lowest value
  plateau,   ///< when the sum of loss and regularization no longer falls. Result: the state of its lowest value
};

inline constexpr Named<StopRule> kStopRules[] = {{"none", StopRule::none},
                                                 {"chi2", StopRule::chi2},
                                                 {"heldout", StopRule::held_out},
                                                 {"plateau", StopRule::plateau}};
constexpr const char* name_of(StopRule rule) {
  return name_in(kStopRules, rule);
}

/// Whether the result of a stage with this rule is its last state rather than the state of a lowest value.
EINFIELD_HD inline bool keeps_last(StopRule rule) {
  return rule == StopRule::none || rule == StopRule::chi2;
}

/// Why a stage of a fit ended.
enum class StopReason {
  steps,        ///< all steps are done
  chi2,         ///< by StopRule::chi2
  held_out,     ///< by StopRule::held_out
  plateau,      ///< by StopRule::plateau
  converged,    ///< the optimizer finds no lower point (L-BFGS, Levenberg–Marquardt, Gauss–Newton)
  interrupted,  ///< FitCallbacks::interrupted returned true
  non_finite,   ///< a loss or gradient is not finite; FitResult::message says which one and in which step
};
inline constexpr Named<StopReason> kStopReasons[] = {
    {"steps", StopReason::steps},          {"chi2", StopReason::chi2},
    {"heldout", StopReason::held_out},     {"plateau", StopReason::plateau},
    {"converged", StopReason::converged},  {"interrupted", StopReason::interrupted},
    {"non-finite", StopReason::non_finite}};
constexpr const char* name_of(StopReason reason) {
  return name_in(kStopReasons, reason);
}

/// The rules by which a stage is judged, the same for all systems.
struct StopSettings {
  StopRule rule = StopRule::none;
  double chi2 = 1.0;                 ///< of StopRule::chi2
  int patience = 30;                 ///< of StopRule::held_out and plateau: steps without a clear fall
  double tolerance = 1e-3;           ///< smallest fraction by which the value falls clearly
  std::int64_t steps = 0;            ///< of the stage
  std::int64_t keep_after = kNever;  ///< of rules that keep the last state: the state of lowest loss + regularization
                                     ///< after this step is the best one

  static constexpr std::int64_t kNever = INT64_MAX;
};

/// What the rules remember of one system. Steps are those of the stage.
struct StopWatch {
  std::int64_t best_step = -1;  ///< of the best state so far, or −1
  double best_value = 0;        ///< its value: what the rule compares
  std::int64_t fall_step = 0;   ///< of the last clear fall
  double fall_value = 0;        ///< the value after it
};

struct Verdict {
  bool best = false;  ///< the state is the best one so far: keep its parameters
  bool ends = false;  ///< the stage ends for this system
  StopReason reason = StopReason::steps;
};

EINFIELD_HD inline bool take_best(StopWatch& watch, std::int64_t step, double value) {
  if (watch.best_step >= 0 && !(value < watch.best_value)) return false;  // also when it is not a number
  watch.best_step = step;
  watch.best_value = value;
  return true;
}

/// Judges the state after `step` steps of the stage from its evaluation. The last step ends the stage in any case.
EINFIELD_HD inline Verdict judge(const StopSettings& settings, std::int64_t step, const StepState& state,
                                 StopWatch& watch) {
  Verdict verdict;
  verdict.ends = step >= settings.steps;
  if (keeps_last(settings.rule)) {
    if (step > settings.keep_after) verdict.best = take_best(watch, step, state.loss + state.regularization);
    if (settings.rule == StopRule::chi2 && state.chi2_reduced <= settings.chi2) {
      verdict.ends = true;
      verdict.reason = StopReason::chi2;
    }
    return verdict;
  }
  const bool held_out = settings.rule == StopRule::held_out;
  const double value = held_out ? state.held_out_chi2 : state.loss + state.regularization;
  if (watch.best_step < 0 || value < watch.fall_value * (1 - settings.tolerance)) {
    watch.fall_step = step;
    watch.fall_value = value;
  }
  verdict.best = take_best(watch, step, value);
  if (step - watch.fall_step >= settings.patience) {
    verdict.ends = true;
    verdict.reason = held_out ? StopReason::held_out : StopReason::plateau;
  }
  return verdict;
}

}  // namespace einfield
