// Gauss–Newton on source pixels, network weights and scalars together, with the weights of the quadratic penalties
// given or chosen by evidence.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "host/fit/joint_posterior.hpp"

namespace einfield {

struct GaussNewtonSettings {
  int steps = 100;
  double tolerance = 3e-4;      ///< a smaller relative fall of F ends the descent
  double source_contrast = 1;   ///< of SourcePrior::variance_of(); 1 = the prior keeps its variances
  bool choose_weights = false;  ///< replace the weights of the quadratic penalties that are > 0 by those of highest
                                ///< evidence
};

/// A point of the descent.
struct GaussNewtonRecord {
  std::vector<double> x;
  JointValue value;
  Regularization weights;
  double gradient_norm = 0;  ///< 0 before it is known
};

struct GaussNewtonResult {
  std::vector<double> x;
  JointValue value;
  Regularization weights;
  std::optional<Evidence> evidence;  ///< when all priors are proper
  int steps = 0;
  int evaluations = 0;
  bool converged = false;
  bool interrupted = false;
};

/// Upper limit of the bytes of a descent, shown and checked before the run.
std::size_t gauss_newton_bytes(const Problem& problem, int threads);

/// Descends from x. A step is −(H + damping diag S)⁻¹ g, and F falls in every step at fixed weights. The first step
/// moves the pixels of the source alone: the linear solution for the lens as it is. Only one: with more, the weights
/// would let the source fit what the potential lacks. What the moving parameters of the lens can do is left to them
/// (joint_model.hpp (3)). Where the contrast is > 1, the prior of the source is adapted to the source a few times, each
/// time after the fit has settled; F may then rise. Ends when F falls by less than the fraction `tolerance` in two
/// steps that follow each other.
/// @param record       called with the start and after every step
/// @param interrupted  asked before every step
/// @param algebra      where the normal equations are made and solved; null = on the CPU
GaussNewtonResult gauss_newton(JointModel& model, std::vector<double> x, Regularization weights,
                               const GaussNewtonSettings& settings, ThreadPool& pool,
                               const std::function<void(const GaussNewtonRecord&)>& record,
                               const std::function<bool()>& interrupted, JointAlgebra* algebra = nullptr);

}  // namespace einfield
