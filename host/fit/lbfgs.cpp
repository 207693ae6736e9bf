// The recursion and the line search. A line is a state machine that receives one evaluation at a time.
#include "host/fit/lbfgs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace einfield {
namespace {

constexpr double kDecrease = 1e-4;          ///< c₁: f(t) ≤ f(0) + c₁ t f′(0)
constexpr double kCurvature = 0.9;          ///< c₂: |f′(t)| ≤ c₂ |f′(0)|
constexpr int kMaxEvaluations = 20;         ///< on one line
constexpr double kLeastGrowth = 1.1;        ///< least growth of the step while the minimum is not bracketed
constexpr double kMargin = 0.1;             ///< of a bracket: a trial stays this fraction away from its ends
constexpr double kSmallestBracket = 1e-12;  ///< relative to its ends
constexpr double kGrowth = 10;              ///< largest growth of the step while the minimum is not bracketed

/// Σ aᵢ bᵢ in double as eight sums, so that the loop is vectorized; they are added in order.
template <class A, class B>
double dot(const std::vector<A>& a, const std::vector<B>& b) {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  const std::size_t n = a.size(), whole = n - n % kSums;
  for (std::size_t i = 0; i < whole; i += kSums)
    for (std::size_t k = 0; k < kSums; ++k) sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
  for (std::size_t i = whole; i < n; ++i) sums[i - whole] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

/// to += factor · v
template <class Real>
void add(double factor, const std::vector<Real>& v, std::vector<double>& to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * static_cast<double>(v[i]);
}

/// Minimum of the cubic through two values and slopes (Nocedal & Wright, equation 3.59), kept away from the ends.
double interpolated(double a, double value_a, double slope_a, double b, double value_b, double slope_b) {
  const double d1 = slope_a + slope_b - 3 * (value_a - value_b) / (a - b);
  const double root = d1 * d1 - slope_a * slope_b;
  double t = 0.5 * (a + b);
  if (root >= 0) {
    const double d2 = std::copysign(std::sqrt(root), b - a);
    const double cubic = b - (b - a) * (slope_b + d2 - d1) / (slope_b - slope_a + 2 * d2);
    if (std::isfinite(cubic)) t = cubic;
  }
  const double margin = kMargin * std::abs(b - a);
  return std::clamp(t, std::min(a, b) + margin, std::max(a, b) - margin);
}

}  // namespace

template <class Real>
Lbfgs<Real>::Lbfgs(std::vector<Real> start, int memory, std::vector<Pair> pairs)
    : memory_(static_cast<std::size_t>(memory)),
      pairs_(std::move(pairs)),
      position_(std::move(start)),
      trial_(position_),
      direction_(position_.size()) {
  for (const Pair& pair : pairs_) inverse_.push_back(1 / dot(pair.move, pair.change));
}

template <class Real>
void Lbfgs<Real>::forget() {
  pairs_.clear();
  inverse_.clear();
}

/// Starts a new line from position_. The direction is d = −H g, by two loops over the pairs; without pairs it is −g,
/// and the first step has a length of at most one.
template <class Real>
void Lbfgs<Real>::start_line() {
  direction_.assign(gradient_.begin(), gradient_.end());
  std::vector<double> weight(pairs_.size());
  for (std::size_t k = pairs_.size(); k-- > 0;) {
    const Pair& pair = pairs_[k];
    weight[k] = inverse_[k] * dot(pair.move, direction_);
    add(-weight[k], pair.change, direction_);
  }
  if (!pairs_.empty()) {
    const Pair& last = pairs_.back();
    const double scale = 1 / (inverse_.back() * dot(last.change, last.change));
    for (double& d : direction_) d *= scale;
  }
  for (std::size_t k = 0; k < pairs_.size(); ++k)
    add(weight[k] - inverse_[k] * dot(pairs_[k].change, direction_), pairs_[k].move, direction_);
  for (double& d : direction_) d = -d;

  double slope = dot(gradient_, direction_);
  if (!pairs_.empty() && !(slope < 0)) {  // rounding has made the pairs useless
    forget();
    start_line();
    return;
  }
  low_ = {0, value_, slope};
  bracketed_ = given_up_ = false;
  evaluations_ = 0;
  double first = 1;
  if (pairs_.empty()) {
    double sum = 0;
    for (const Real g : gradient_) sum += std::abs(static_cast<double>(g));
    first = sum > 1 ? 1 / sum : 1;
  }
  try_step(first);
}

template <class Real>
void Lbfgs<Real>::try_step(double step) {
  now_.step = step;
  for (std::size_t i = 0; i < trial_.size(); ++i)
    trial_[i] = static_cast<Real>(static_cast<double>(position_[i]) + step * direction_[i]);
}

template <class Real>
typename Lbfgs<Real>::Answer Lbfgs<Real>::accept(double value, const std::vector<Real>& gradient) {
  if (started_) {
    Pair pair{trial_, gradient};
    for (std::size_t i = 0; i < trial_.size(); ++i) {
      pair.move[i] -= position_[i];
      pair.change[i] -= gradient_[i];
    }
    // Positive by the curvature condition, except for rounding.
    const double product = dot(pair.move, pair.change);
    if (product > std::numeric_limits<double>::epsilon() * dot(pair.change, pair.change)) {
      pairs_.push_back(std::move(pair));
      inverse_.push_back(1 / product);
      if (pairs_.size() > memory_) {
        pairs_.erase(pairs_.begin());
        inverse_.erase(inverse_.begin());
      }
    }
  }
  started_ = true;
  position_ = trial_;
  value_ = value;
  gradient_ = gradient;
  if (dot(gradient_, gradient_) == 0) return Answer::stuck;
  start_line();
  return Answer::accepted;
}

/// Gives up the line: its lowest point is evaluated again and accepted. Without a lower point the pairs are dropped,
/// and the next line follows the steepest descent.
template <class Real>
typename Lbfgs<Real>::Answer Lbfgs<Real>::give_up_line() {
  if (low_.step > 0) {
    given_up_ = true;
    try_step(low_.step);
    return Answer::searching;
  }
  if (pairs_.empty()) return Answer::stuck;
  forget();
  start_line();
  return Answer::searching;
}

template <class Real>
typename Lbfgs<Real>::Answer Lbfgs<Real>::tell(double value, const std::vector<Real>& gradient) {
  if (!started_ || given_up_) return accept(value, gradient);

  const double start_slope = dot(gradient_, direction_);
  now_.value = value;
  now_.slope = dot(gradient, direction_);
  const bool finite = std::isfinite(value) && std::isfinite(now_.slope);
  // In single precision, sums that differ by less than this are equal.
  const double noise = static_cast<double>(std::numeric_limits<Real>::epsilon()) * std::abs(value_);
  const bool too_high =
      !finite || value > value_ + kDecrease * now_.step * start_slope + noise || (low_.step > 0 && value >= low_.value);
  if (!too_high && std::abs(now_.slope) <= -kCurvature * start_slope) return accept(value, gradient);
  if (++evaluations_ >= kMaxEvaluations) {
    if (!too_high) low_ = now_;
    return give_up_line();
  }

  if (too_high) {
    high_ = now_;
    bracketed_ = true;
  } else {
    // The minimum lies on the other side of the new point: the ends of the bracket change roles.
    const bool beyond = bracketed_ ? now_.slope * (high_.step - low_.step) >= 0 : now_.slope >= 0;
    if (beyond) {
      high_ = low_;
      bracketed_ = true;
    }
    const Point before = low_;
    low_ = now_;
    if (!bracketed_) {
      const double furthest = kGrowth * now_.step;
      // The step at which the slope vanishes by linear extrapolation; the largest step where it grows steeper.
      const double slope_change = now_.slope - before.slope;
      const double step =
          slope_change > 0 ? now_.step - now_.slope * (now_.step - before.step) / slope_change : furthest;
      try_step(std::clamp(step, kLeastGrowth * now_.step, furthest));
      return Answer::searching;
    }
  }
  if (std::abs(high_.step - low_.step) <= kSmallestBracket * std::max(high_.step, low_.step)) return give_up_line();
  const bool high_is_finite = std::isfinite(high_.value) && std::isfinite(high_.slope);
  try_step(high_is_finite ? interpolated(low_.step, low_.value, low_.slope, high_.step, high_.value, high_.slope)
                          : low_.step + kMargin * (high_.step - low_.step));
  return Answer::searching;
}

template class Lbfgs<float>;
template class Lbfgs<double>;

}  // namespace einfield
