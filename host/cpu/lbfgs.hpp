// L-BFGS of one system on the CPU: the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4) around the line search
// of lbfgs.hpp. The caller makes the evaluations, so that several systems can be evaluated together.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/stage.hpp"

namespace einfield {

/// Minimizes one function. All sums are made in double precision in a fixed order: same input, same bits.
///
///     while (…) { evaluate f and ∇f at trial(); outcome = tell(f, ∇f); }
template <class Real>
class Lbfgs {
 public:
  /// A move and the change of the gradient along it.
  struct Pair {
    std::vector<Real> move, change;
  };

  /// @param memory  largest number of pairs that are kept
  /// @param pairs   of an earlier run that ended at `start`, oldest first: the search continues with the same bits
  Lbfgs(std::vector<Real> start, int memory, std::vector<Pair> pairs = {});

  /// The point to evaluate next.
  const std::vector<Real>& trial() const { return trial_; }
  /// Continues the search with the function value and gradient at trial(). Unless the search is stuck or the point
  /// flat, trial() is then another point: of the same line, or of a new one.
  LineOutcome tell(double value, const std::vector<Real>& gradient);

  const std::vector<Real>& position() const { return position_; }
  const std::vector<Pair>& pairs() const { return pairs_; }  ///< oldest first

 private:
  int n_pairs() const { return static_cast<int>(pairs_.size()); }
  void accept(double value, const std::vector<Real>& gradient, LineOutcome& outcome);
  void start_line();
  void forget();
  void place_trial();

  std::size_t memory_;
  std::vector<Pair> pairs_;
  std::vector<double> inverse_;  ///< of every pair: 1 / (move · change)
  std::vector<Real> position_, gradient_, trial_;
  std::vector<double> direction_;
  LineSearch line_;
};

}  // namespace einfield
