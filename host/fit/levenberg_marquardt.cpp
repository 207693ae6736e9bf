// A step solves a linear system of a few dozen rows for a trial point, with more damping until the value falls.
#include "host/fit/levenberg_marquardt.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace einfield {
namespace {

constexpr double kFirstDamping = 1e-2, kSmallestDamping = 1e-12;
constexpr double kSmallestDiagonal = 1e-12;  ///< relative to the largest one
constexpr double kLargestDamping = 1e10;     ///< beyond it the steps are too short to find a lower point
constexpr double kSmallGain = 1e-7;          ///< relative; for χ² = 10⁴ far below its statistical noise
constexpr int kSmallGains = 3;               ///< number of small gains in a row that end the descent
/// Longest move of an unconstrained value that is transformed: for a positive parameter a factor of e.
constexpr double kLongestMove = 1;
/// Largest unconstrained value of a logistic transform, which is flat there: 3e-7 of the interval from its end.
constexpr double kLargestLogistic = 15;

}  // namespace

LevenbergMarquardt::LevenbergMarquardt(const ScalarModel& model, int system, std::vector<double> u)
    : model_(&model), damping_(kFirstDamping) {
  request_.system = system;
  request_.u = std::move(u);
}

const ScalarRequest* LevenbergMarquardt::ask() {
  if (!started()) return &request_;
  if (!alive() || converged_) return nullptr;
  while (!converged_) {
    if (propose()) return &request_;
    raise_damping();
  }
  return nullptr;
}

void LevenbergMarquardt::tell(ScalarAnswer answer) {
  const bool first = !started();
  ++evaluations_;
  if (first) {
    point_ = std::move(answer.point);
    if (point_.finite) linearize(*answer.curvature);
    return;
  }
  const double gain = point_.value() - answer.point.value();
  if (!answer.point.finite || !(gain > 0)) {
    raise_damping();
    return;
  }
  const double ratio = predicted_ > 0 ? gain / predicted_ : 1, x = 2 * ratio - 1;
  damping_ = std::max(damping_ * std::max(1.0 / 3, 1 - x * x * x), kSmallestDamping);
  growth_ = 2;
  small_gains_ = gain < kSmallGain * point_.value() ? small_gains_ + 1 : 0;
  point_ = std::move(answer.point);
  ++searches_;
  linearize(*answer.curvature);
  converged_ = converged_ || small_gains_ >= kSmallGains;
}

/// For shorter steps. Ends the descent when they are too short to find a lower point.
void LevenbergMarquardt::raise_damping() {
  damping_ *= growth_;
  growth_ *= 2;
  if (damping_ < kLargestDamping) return;
  converged_ = true;
  ++searches_;
}

/// Computes S and g_θ at the last accepted point.
void LevenbergMarquardt::linearize(const Curvature& physical) {
  const ParameterLayout& layout = model_->layout();
  const std::vector<int>& moving = model_->moving();
  const std::size_t n = moving.size(), n_linear = model_->n_linear(), n_other = n - n_linear;

  // T: rows p, columns u; an ellipticity's p depends on two u.
  std::vector<double> jacobian(n * n_other);
  std::vector<double> bar(layout.table.size(), 0.0);
  for (std::size_t k = n_linear; k < n; ++k) {
    const auto slot = static_cast<std::size_t>(layout.free[static_cast<std::size_t>(moving[k])].slot);
    bar[slot] = 1;
    for (std::size_t j = 0; j < n_other; ++j)
      jacobian[k * n_other + j] =
          transform_adjoint(layout.free.data(), moving[n_linear + j], point_.u.data(), bar.data());
    bar[slot] = 0;
  }
  std::vector<double> half(n * n_other);  // N T
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < n_other; ++j)
      for (std::size_t k = n_linear; k < n; ++k)
        half[i * n_other + j] += physical.normal(i, k) * jacobian[k * n_other + j];
  reduced_ = SymmetricMatrix(n_other);
  gradient_.assign(n_other, 0.0);
  for (std::size_t i = 0; i < n_other; ++i)
    for (std::size_t k = n_linear; k < n; ++k) {
      gradient_[i] += jacobian[k * n_other + i] * physical.gradient[k];
      for (std::size_t j = 0; j < n_other; ++j) reduced_(i, j) += jacobian[k * n_other + i] * half[k * n_other + j];
    }

  std::vector<std::size_t> free;
  for (std::size_t k = 0; k < n_linear; ++k)
    if (!point_.pinned[k]) free.push_back(k);
  const Cholesky cholesky(physical.normal.part(free));
  if (!free.empty() && cholesky.good()) {
    SymmetricMatrix correction(n_other);
    std::vector<double> right(free.size());
    for (std::size_t j = 0; j < n_other; ++j) {
      for (std::size_t k = 0; k < free.size(); ++k) right[k] = half[free[k] * n_other + j];
      const std::vector<double> solved = cholesky.solve(right);
      for (std::size_t i = 0; i <= j; ++i) {
        double sum = 0;
        for (std::size_t k = 0; k < free.size(); ++k) sum += half[free[k] * n_other + i] * solved[k];
        correction(i, j) = correction(j, i) = sum;
      }
    }
    for (std::size_t i = 0; i < n_other; ++i)
      for (std::size_t j = 0; j < n_other; ++j) reduced_(i, j) -= correction(i, j);
  }
  double squares = 0;
  for (const double g : gradient_) squares += 4 * g * g;
  records_.push_back({point_.u, point_.loss, point_.chi2_reduced, point_.penalty, std::sqrt(squares)});
  converged_ = n_other == 0 || squares == 0 || !std::isfinite(squares);
}

/// The trial point for the present damping. False when the damped matrix is not positive definite.
bool LevenbergMarquardt::propose() {
  const ParameterLayout& layout = model_->layout();
  const std::size_t n_linear = model_->n_linear(), n = gradient_.size();
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, reduced_(i, i));
  SymmetricMatrix damped = reduced_;
  for (std::size_t i = 0; i < n; ++i) {
    // Limits the move of a parameter that the data do not constrain.
    const double diagonal = std::max(reduced_(i, i), kSmallestDiagonal * largest);
    damped(i, i) = std::max(reduced_(i, i), 0.0) + damping_ * diagonal;
  }
  const Cholesky cholesky(damped);
  if (!cholesky.good()) return false;
  std::vector<double> move;
  for (const double g : gradient_) move.push_back(-g);
  move = cholesky.solve(move);
  double longest = 0;
  for (std::size_t i = 0; i < n; ++i)
    if (layout.free[static_cast<std::size_t>(model_->moving()[n_linear + i])].kind != TransformKind::identity)
      longest = std::max(longest, std::abs(move[i]));
  if (longest > kLongestMove)
    for (double& m : move) m *= kLongestMove / longest;

  request_.u = point_.u;
  request_.curvature_below = point_.value();
  for (std::size_t i = 0; i < n; ++i) {
    const auto k = static_cast<std::size_t>(model_->moving()[n_linear + i]);
    double& u = request_.u[k];
    u += move[i];
    if (layout.free[k].kind == TransformKind::logistic) u = std::clamp(u, -kLargestLogistic, kLargestLogistic);
    move[i] = u - point_.u[k];
  }
  predicted_ = 0;
  for (std::size_t i = 0; i < n; ++i) {
    predicted_ -= 2 * gradient_[i] * move[i];
    for (std::size_t j = 0; j < n; ++j) predicted_ -= move[i] * reduced_(i, j) * move[j];
  }
  return true;
}

}  // namespace einfield
