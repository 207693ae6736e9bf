// L-BFGS (Nocedal & Wright 2006, algorithm 7.4) with a line search to the strong Wolfe conditions (algorithms 3.5 and
// 3.6). A line is a state machine that receives one evaluation at a time. Both backends call decide(); the sums over
// the parameters and the moves along the line are theirs.
#pragma once

#include <cmath>
#include <limits>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

inline constexpr double kLineDecrease = 1e-4;          ///< c₁: f(t) ≤ f(0) + c₁ t f′(0)
inline constexpr double kLineCurvature = 0.9;          ///< c₂: |f′(t)| ≤ c₂ |f′(0)|
inline constexpr int kLineEvaluations = 20;            ///< at most, on one line
inline constexpr double kLineLeastGrowth = 1.1;        ///< least growth of the step while the minimum is not bracketed
inline constexpr double kLineGrowth = 10;              ///< largest growth of the step while it is not bracketed
inline constexpr double kLineMargin = 0.1;             ///< of a bracket: a trial stays this fraction away from its ends
inline constexpr double kLineSmallestBracket = 1e-12;  ///< relative to its ends

/// Rounding of a number of this type, relative to it.
template <class Real>
inline constexpr double kRounding = std::numeric_limits<Real>::epsilon();

/// A point of the line: distance from its start in units of the direction, function value, slope.
struct LinePoint {
  double step = 0, value = 0, slope = 0;
};

/// What follows an evaluation.
enum class LineAction {
  search,   ///< evaluate another point of the same line, at LineSearch::now.step
  accept,   ///< move to the point; a new line begins there
  restart,  ///< stay, forget the pairs (StageRun::memory), and begin a new line along the steepest descent
  stuck,    ///< no lower point was found: the position is a minimum to the precision of the function
};

/// The line search of one system.
struct LineSearch {
  bool started = false;  ///< the start has been evaluated
  bool bracketed = false;
  bool given_up = false;       ///< the trial is the lowest point of a line that was given up
  int evaluations = 0;         ///< on this line
  double value = 0;            ///< at the position, where the line starts
  double start_slope = 0;      ///< there, along the line
  double gradient_square = 0;  ///< there: g · g
  double gradient_sum = 0;     ///< there: Σ |g|
  LinePoint now, low, high;    ///< the trial; the ends of the bracket, `low` the one with the lower value
};

/// Minimum of the cubic through two values and slopes (Nocedal & Wright, equation 3.59), kept away from the ends.
EINFIELD_HD inline double line_minimum(const LinePoint& a, const LinePoint& b) {
  const double d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step);
  const double root = d1 * d1 - a.slope * b.slope;
  double t = 0.5 * (a.step + b.step);
  if (root >= 0) {
    const double d2 = copysign(sqrt(root), b.step - a.step);
    const double cubic = b.step - (b.step - a.step) * (b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2);
    if (isfinite(cubic)) t = cubic;
  }
  const double low = a.step < b.step ? a.step : b.step, high = a.step < b.step ? b.step : a.step;
  const double margin = kLineMargin * fabs(b.step - a.step);
  return t < low + margin ? low + margin : t > high - margin ? high - margin : t;
}

/// Begins a line at the position. The first step is 1 along the direction of L-BFGS; along the steepest descent its
/// length is at most one.
/// @param slope  of the function along the direction
/// @param pairs  number of pairs that the direction was made from
EINFIELD_HD inline void begin_line(LineSearch& line, double slope, int pairs) {
  line.start_slope = slope;
  line.low = {0, line.value, slope};
  line.bracketed = line.given_up = false;
  line.evaluations = 0;
  line.now.step = pairs == 0 && line.gradient_sum > 1 ? 1 / line.gradient_sum : 1;
}

/// Gives up the line: its lowest point is evaluated again and accepted. Without a lower point the next line follows the
/// steepest descent; if this one did, the search is stuck.
EINFIELD_HD inline LineAction give_up_line(LineSearch& line, int pairs) {
  if (line.low.step > 0) {
    line.given_up = true;
    line.now.step = line.low.step;
    return LineAction::search;
  }
  return pairs == 0 ? LineAction::stuck : LineAction::restart;
}

/// Decides on an evaluation at the trial.
/// @param slope    of the function along the line
/// @param pairs    number of pairs that are kept
/// @param epsilon  of the parameters' type: sums that differ by less than this, relative to the value, are equal
EINFIELD_HD inline LineAction decide(LineSearch& line, double value, double slope, int pairs, double epsilon) {
  if (!line.started || line.given_up) return LineAction::accept;
  LinePoint &now = line.now, &low = line.low, &high = line.high;
  now.value = value;
  now.slope = slope;
  const bool finite = isfinite(value) && isfinite(slope);
  const double noise = epsilon * fabs(line.value);
  const bool too_high = !finite || value > line.value + kLineDecrease * now.step * line.start_slope + noise ||
                        (low.step > 0 && value >= low.value);
  if (!too_high && fabs(slope) <= -kLineCurvature * line.start_slope) return LineAction::accept;
  if (++line.evaluations >= kLineEvaluations) {
    if (!too_high) low = now;
    return give_up_line(line, pairs);
  }

  if (too_high) {
    high = now;
    line.bracketed = true;
  } else {
    // The minimum lies on the other side of the new point: the ends of the bracket change roles.
    const bool beyond = line.bracketed ? slope * (high.step - low.step) >= 0 : slope >= 0;
    if (beyond) {
      high = low;
      line.bracketed = true;
    }
    const LinePoint before = low;
    low = now;
    if (!line.bracketed) {
      const double nearest = kLineLeastGrowth * now.step, furthest = kLineGrowth * now.step;
      // The step at which the slope vanishes by linear extrapolation; the largest step where it grows steeper.
      const double change = slope - before.slope;
      const double step = change > 0 ? now.step - slope * (now.step - before.step) / change : furthest;
      now.step = step < nearest ? nearest : step > furthest ? furthest : step;
      return LineAction::search;
    }
  }
  const double furthest = low.step > high.step ? low.step : high.step;
  if (fabs(high.step - low.step) <= kLineSmallestBracket * furthest) return give_up_line(line, pairs);
  const bool high_is_finite = isfinite(high.value) && isfinite(high.slope);
  now.step = high_is_finite ? line_minimum(low, high) : low.step + kLineMargin * (high.step - low.step);
  return LineAction::search;
}

/// Moves the line's start to the trial, which was accepted. begin_line() follows.
EINFIELD_HD inline void move_line(LineSearch& line, double value, double gradient_square, double gradient_sum) {
  line.started = true;
  line.value = value;
  line.gradient_square = gradient_square;
  line.gradient_sum = gradient_sum;
}

/// Whether a pair of a move s and the change of the gradient y along it is kept. s · y is positive by the curvature
/// condition, except for rounding.
EINFIELD_HD inline bool keeps_pair(double move_change, double change_change) {
  return move_change > kRounding<double> * change_change;
}

}  // namespace einfield
