// Levenberg–Marquardt on the free parameters of the profiles (Marquardt 1963; damping after Nielsen 1999, as in Madsen,
// Nielsen & Tingleff 2004, algorithm 3.16), with the amplitudes projected out (Kaufman 1975).
#pragma once

#include <cstdint>
#include <vector>

#include "host/fit/scalar_batch.hpp"

namespace einfield {

/// A descent from one starting point. It evaluates nothing itself: ask() says which point it wants to know, tell()
/// takes the answer. Many descents can therefore advance together, one point of each in a round.
///
/// In the unconstrained values u of the parameters that are not solved for, with T = ∂p/∂u, the quadratic form of
/// Curvature is reduced by letting the amplitudes c follow:
///
///     S = N_θθ − N_θc N_cc⁻¹ N_cθ,   (S + λ diag S) δ = −g_θ                                                    (1)
///
/// over the amplitudes that are not pinned. g_θ needs no term for dc/dθ: at the best amplitudes g_c = 0. S lacks terms
/// of the second derivative of the projected function that are of the order of the residual, as in every Gauss–Newton
/// method. Kaufman (1975) showed that the one of these terms that has only first derivatives can be neglected.
class LevenbergMarquardt {
 public:
  /// The path of the descent: one entry per step, the start included.
  struct Record {
    std::vector<double> u;
    double loss, chi2_reduced, penalty, gradient_norm;
  };

  /// @param system  of the batch that will evaluate the points
  /// @param u       start, of all free scalars
  LevenbergMarquardt(const ScalarModel& model, int system, std::vector<double> u);

  /// The point to evaluate next: the start first, then trial points. Null when the descent has ended, because the value
  /// no longer falls or because the start has no finite value.
  const ScalarRequest* ask();
  /// Takes the answer to the last ask().
  void tell(ScalarAnswer answer);

  /// Whether the start has been evaluated.
  bool started() const { return evaluations_ > 0; }
  /// Whether the value of the start is finite. @pre started()
  bool alive() const { return point_.finite; }
  /// Whether the value no longer falls.
  bool converged() const { return converged_; }
  /// Number of searches for a lower point that have ended. All but the last one of a converged descent found one.
  int searches() const { return searches_; }

  const ScalarPoint& point() const { return point_; }
  std::int64_t steps() const { return static_cast<std::int64_t>(records_.size()) - 1; }
  std::int64_t evaluations() const { return evaluations_; }
  const std::vector<Record>& records() const { return records_; }

 private:
  bool propose();
  void linearize(const Curvature& physical);
  void raise_damping();

  const ScalarModel* model_;
  ScalarRequest request_;
  ScalarPoint point_;
  SymmetricMatrix reduced_;       ///< S
  std::vector<double> gradient_;  ///< g_θ
  double damping_, growth_ = 2;
  double predicted_ = 0;  ///< by how much the quadratic form falls at the trial point
  int small_gains_ = 0, searches_ = 0;
  bool converged_ = false;
  std::int64_t evaluations_ = 0;
  std::vector<Record> records_;
};

}  // namespace einfield
