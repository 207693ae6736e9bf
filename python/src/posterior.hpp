// Likelihood and posterior of a model at many points, with the gradients of the library's adjoints, in double
// precision.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "einfield/model.hpp"
#include "einfield/problem.hpp"

namespace einfield::python {

/// What the free scalars of a point are: physical values, or the unconstrained numbers of einfield/model.hpp. All other
/// parameters (weights, pixels) have no bounds and are the same in both.
enum class Space { constrained, unconstrained };

/// What to compute at every point.
struct Request {
  Space space = Space::constrained;
  bool priors = true;   ///< the posterior; else the likelihood alone, without gradient
  bool volume = false;  ///< unconstrained only: adds ln |∂p/∂u|, so that the value is the density of u
};

/// ln of the likelihood −½ Σ ((model − data)/noise)² over the used pixels, and of the posterior: plus −½ Σ ((p −
/// mean)/sigma)² over the Gaussian priors, −½ n_used times the penalties of the problem, and −∞ outside of the range
/// of a parameter. Neither is normalized.
class Posterior {
 public:
  class Workers;

  /// @param problem  its loss is replaced by chi2; no pixel is held out; Model::prior_weight becomes 1
  /// @param threads  0 = as many as the process may use @throws InvalidInput
  Posterior(Problem problem, int threads);

  const Problem& problem() const { return problem_; }
  const ParameterLayout& layout() const { return layout_; }
  std::size_t size() const { return layout_.size(); }

  /// Threads and backends, made when they are first asked for, and anew in a process that was forked: threads do not
  /// survive a fork. What this returns may be used by several threads, in turn.
  std::shared_ptr<Workers> workers();

  /// @param theta     [n][size()]
  /// @param value     [n]; NaN for a point that has a NaN or an infinity, −∞ outside of the support
  /// @param gradient  [n][size()], or null; 0 outside of the support, NaN where the value is NaN
  void evaluate(Workers& workers, const double* theta, std::size_t n, const Request& request, double* value,
                double* gradient) const;
  /// Model images after the PSF. @param images  [n][pixels]
  /// @throws InvalidInput for a point outside of the support
  void images(Workers& workers, const double* theta, std::size_t n, Space space, double* images) const;

  /// The flat vector of the library (ParameterLayout) from a point.
  /// @throws InvalidInput "theta: NAME = …" outside of the support
  std::vector<double> flat(const double* theta, Space space) const;
  /// The inverse, for the free scalars as physical values.
  std::vector<double> constrained(const double* flat) const;

 private:
  void evaluate_point(Workers& workers, int worker, const double* theta, const Request& request, double* value,
                      double* gradient) const;
  bool supported(const double* theta) const;

  Problem problem_;
  ParameterLayout layout_;
  int threads_;
  double scale_;      ///< −½ times the number of fitted pixels: the loss is a mean
  std::mutex mutex_;  ///< of workers_
  std::shared_ptr<Workers> workers_;
};

}  // namespace einfield::python
