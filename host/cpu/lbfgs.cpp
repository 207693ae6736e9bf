// The recursion and the vectors of the line search.
#include "host/cpu/lbfgs.hpp"

#include <cmath>
#include <utility>

namespace einfield {
namespace {

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

/// Σ |aᵢ|
template <class Real>
double sum_of_sizes(const std::vector<Real>& a) {
  double sum = 0;
  for (const Real v : a) sum += std::abs(static_cast<double>(v));
  return sum;
}

/// to += factor · v
template <class Real>
void add(double factor, const std::vector<Real>& v, std::vector<double>& to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * static_cast<double>(v[i]);
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

/// Starts a new line from position_. The direction is d = −H g, by two loops over the pairs; without pairs it is −g.
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

  const double slope = dot(gradient_, direction_);
  if (!pairs_.empty() && !(slope < 0)) {  // rounding has made the pairs useless
    forget();
    start_line();
    return;
  }
  begin_line(line_, slope, n_pairs());
  place_trial();
}

template <class Real>
void Lbfgs<Real>::place_trial() {
  for (std::size_t i = 0; i < trial_.size(); ++i)
    trial_[i] = static_cast<Real>(static_cast<double>(position_[i]) + line_.now.step * direction_[i]);
}

template <class Real>
void Lbfgs<Real>::accept(double value, const std::vector<Real>& gradient, LineOutcome& outcome) {
  if (line_.started) {
    Pair pair{trial_, gradient};
    for (std::size_t i = 0; i < trial_.size(); ++i) {
      pair.move[i] -= position_[i];
      pair.change[i] -= gradient_[i];
    }
    const double product = dot(pair.move, pair.change);
    if (keeps_pair(product, dot(pair.change, pair.change))) {
      pairs_.push_back(std::move(pair));
      inverse_.push_back(1 / product);
      if (pairs_.size() > memory_) {
        pairs_.erase(pairs_.begin());
        inverse_.erase(inverse_.begin());
      }
    }
  }
  outcome.moved = trial_ != position_;
  position_ = trial_;
  gradient_ = gradient;
  const double square = dot(gradient_, gradient_);
  move_line(line_, value, square, sum_of_sizes(gradient_));
  outcome.flat = square == 0;
  if (!outcome.flat) start_line();
}

template <class Real>
LineOutcome Lbfgs<Real>::tell(double value, const std::vector<Real>& gradient) {
  LineOutcome outcome{.start = !line_.started};
  outcome.action = decide(line_, value, dot(gradient, direction_), n_pairs(), kRounding<Real>);
  switch (outcome.action) {
    case LineAction::search:
      place_trial();
      break;
    case LineAction::accept:
      accept(value, gradient, outcome);
      break;
    case LineAction::restart:
      forget();
      start_line();
      break;
    case LineAction::stuck:
      break;
  }
  return outcome;
}

template class Lbfgs<float>;
template class Lbfgs<double>;

}  // namespace einfield
