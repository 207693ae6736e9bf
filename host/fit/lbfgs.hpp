// L-BFGS: the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4) with a line search to the strong Wolfe
// conditions (algorithms 3.5 and 3.6). The caller makes the evaluations, so that several systems can be evaluated
// together.
#pragma once

#include <cstddef>
#include <vector>

namespace einfield {

/// Minimizes one function. All sums are made in double precision in a fixed order: same input, same bits.
///
///     while (…) { evaluate f and ∇f at trial(); answer = tell(f, ∇f); }
template <class Real>
class Lbfgs {
 public:
  enum class Answer {
    searching,  ///< trial() is another point of the same line
    accepted,   ///< position() has moved to the point just evaluated (also the start); trial() is on a new line
    stuck,      ///< no lower point was found: the position is a minimum to the precision of the function
  };

  /// A move and the change of the gradient along it.
  struct Pair {
    std::vector<Real> move, change;
  };

  /// @param memory  largest number of pairs that are kept
  /// @param pairs   of an earlier run that ended at `start`, oldest first: the search continues with the same bits
  Lbfgs(std::vector<Real> start, int memory, std::vector<Pair> pairs = {});

  /// The point to evaluate next.
  const std::vector<Real>& trial() const { return trial_; }
  /// Continues the search with the function value and gradient at trial().
  Answer tell(double value, const std::vector<Real>& gradient);

  const std::vector<Real>& position() const { return position_; }
  const std::vector<Pair>& pairs() const { return pairs_; }  ///< oldest first

 private:
  /// A point of the line: distance from its start in units of the direction, function value, slope.
  struct Point {
    double step = 0, value = 0, slope = 0;
  };

  Answer accept(double value, const std::vector<Real>& gradient);
  Answer give_up_line();
  void start_line();
  void forget();
  void try_step(double step);

  std::size_t memory_;
  std::vector<Pair> pairs_;
  std::vector<double> inverse_;  ///< of every pair: 1 / (move · change)
  std::vector<Real> position_, gradient_, trial_;
  double value_ = 0;
  std::vector<double> direction_;

  bool started_ = false;
  bool bracketed_ = false;
  bool given_up_ = false;   ///< the trial is the lowest point of a line that was given up
  int evaluations_ = 0;     ///< number of evaluations on this line
  Point now_, low_, high_;  ///< the trial; the ends of the bracket, `low_` the one with the lower value
};

}  // namespace einfield
