// Levenberg–Marquardt on the free parameters of the profiles (Marquardt 1963; damping after Nielsen 1999, as in Madsen,
// Nielsen & Tingleff 2004, algorithm 3.16), with the amplitudes projected out (Kaufman 1975).
#pragma once

#include <cstdint>
#include <vector>

#include "host/fit/scalar_model.hpp"

namespace einfield {

/// A descent from one starting point. It can be paused and continued later, with any evaluator of the same model.
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

  /// Evaluates the start. @param u  of all free scalars
  LevenbergMarquardt(ScalarEvaluator& evaluator, const ScalarModel& model, const std::vector<double>& u);

  /// False when the start has no finite value: then step() must not be called.
  bool alive() const { return point_.finite; }
  /// Whether the value no longer falls.
  bool converged() const { return converged_; }
  /// Moves to a lower point; tries several points if necessary. @pre alive() && !converged()
  void step(ScalarEvaluator& evaluator);

  const ScalarPoint& point() const { return point_; }
  std::int64_t steps() const { return static_cast<std::int64_t>(records_.size()) - 1; }
  std::int64_t evaluations() const { return evaluations_; }
  const std::vector<Record>& records() const { return records_; }

 private:
  void linearize(ScalarEvaluator& evaluator);

  const ScalarModel* model_;
  ScalarPoint point_;
  SymmetricMatrix reduced_;       ///< S
  std::vector<double> gradient_;  ///< g_θ
  double damping_, growth_ = 2;
  int small_gains_ = 0;
  bool converged_ = false;
  std::int64_t evaluations_ = 1;
  std::vector<Record> records_;
};

}  // namespace einfield
