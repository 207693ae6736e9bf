// L-BFGS: the two-loop recursion (Nocedal & Wright 2006, algorithm 7.4) with a line search to the strong Wolfe
// conditions (algorithms 3.5 and 3.6). It asks for evaluations instead of making them, so that many lenses can be
// evaluated together.
#pragma once

#include <cstddef>
#include <vector>

namespace einfield {

/// Minimises one function. All sums are made in double in a fixed order: same input, same bits.
///
///     while (…) { evaluate f and ∇f at trial(); answer = tell(f, ∇f); }
template <class Real>
class Lbfgs {
 public:
  enum class Answer {
    searching,  ///< trial() is another point of the same line
    accepted,   ///< position() has moved to the point that was told (the start counts), trial() is on a new line
    stuck,      ///< no lower point can be found: the position is a minimum to the precision of the function
  };

  /// A move and the change of the gradient along it.
  struct Pair {
    std::vector<Real> move, change;
  };

  /// @param memory  greatest number of pairs that are kept
  /// @param pairs   of an earlier run that ended at `start`, oldest first: the run goes on to the same bits
  Lbfgs(std::vector<Real> start, int memory, std::vector<Pair> pairs = {});

  const std::vector<Real>& trial() const { return trial_; }
  Answer tell(double value, const std::vector<Real>& gradient);

  const std::vector<Real>& position() const { return position_; }
  const std::vector<Pair>& pairs() const { return pairs_; }  ///< oldest first

 private:
  /// A point of the line: how far, and value and slope there.
  struct Point {
    double step = 0, value = 0, slope = 0;
  };

  Answer accept(double value, const std::vector<Real>& gradient);
  Answer settle();
  void aim();
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
  bool settled_ = false;    ///< the trial is the lowest point of a line that was given up
  int evaluations_ = 0;     ///< on this line
  Point now_, low_, high_;  ///< being tried; the ends of the bracket, `low_` the one of lower value
};

}  // namespace einfield
