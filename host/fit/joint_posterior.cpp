#include "host/fit/joint_posterior.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/random.hpp"

namespace einfield {
namespace {

constexpr int kProbes = 16;
constexpr double kLargestChange = 10;  ///< of a weight in one update

Eigen::Index index(std::size_t n) {
  return static_cast<Eigen::Index>(n);
}

/// T_k of all penalties of the network with their weights, over the weights of the network.
Eigen::MatrixXd network_precision(const Linearization& l, const Regularization& weights, Eigen::Index n) {
  Eigen::MatrixXd sum = l.priors.topLeftCorner(n, n);
  for (std::size_t k = 0; n > 0 && k < kNetworkTerms.size(); ++k)
    if (weights.*kNetworkTerms[k] > 0) sum += weights.*kNetworkTerms[k] * l.network[k];
  return sum;
}

}  // namespace

JointPosterior::JointPosterior(JointModel& model, const Linearization& l, const NormalEquations& normal,
                               const Regularization& weights, ThreadPool& pool)
    : model_(model), l_(l), weights_(weights), pool_(pool) {
  const Eigen::Index n_weights = index(model.n_weights());
  SourcePrior::Sparse prior(normal.source_gradient.size(), normal.source_gradient.size());
  source_gradient_ = normal.source_gradient;
  if (source_gradient_.size() > 0) {
    prior = model.source_prior().precision(weights);
    source_gradient_ += prior * model.source_values();
  }
  source_ = normal.eliminate(prior);
  schur_ = source_->schur() + l.priors;
  if (l.signs.size() > 0) schur_.topLeftCorner(n_weights, n_weights) += l.signs;
  rest_gradient_ = normal.rest_gradient + l.fixed_gradient;
  for (std::size_t k = 0; n_weights > 0 && k < kNetworkTerms.size(); ++k) {
    schur_.topLeftCorner(n_weights, n_weights) += weights.*kNetworkTerms[k] * l.network[k];
    rest_gradient_.head(n_weights) += weights.*kNetworkTerms[k] * l.gradient[k];
  }
  network_prior_ = BlockCholesky(network_precision(l, weights, n_weights), pool);
  if (source_is_determined()) schur_factor_ = BlockCholesky(schur_, pool);
}

JointPosterior::Step JointPosterior::step(double damping) const {
  if (damping == 0) return solve(source_gradient_, rest_gradient_, schur_factor_, pool_);
  const BlockCholesky factor = damped_factor(damping);
  if (factor.good()) return solve(source_gradient_, rest_gradient_, factor, pool_);
  return {Eigen::VectorXd::Zero(source_gradient_.size()), Eigen::VectorXd::Zero(rest_gradient_.size()), std::nan("")};
}

BlockCholesky JointPosterior::damped_factor(double damping) const {
  Eigen::MatrixXd damped = schur_;
  damped.diagonal() *= 1 + damping;
  return {std::move(damped), pool_};
}

JointPosterior::Step JointPosterior::solve(const Eigen::VectorXd& source, const Eigen::VectorXd& rest,
                                           const BlockCholesky& factor, ThreadPool& pool) const {
  Eigen::MatrixXd y = -source, right = -rest;
  source_->forward(y, right, pool);
  factor.solve(right, pool);
  source_->backward(y, right, pool);
  Step step{y.col(0), right.col(0), 0};
  step.slope = source.dot(step.source) + rest.dot(step.rest);
  return step;
}

JointPosterior::Step JointPosterior::source_step() const {
  Step step{solve_source(-source_gradient_, true).col(0), Eigen::VectorXd::Zero(rest_gradient_.size()), 0};
  step.slope = source_gradient_.dot(step.source);
  return step;
}

Eigen::MatrixXd JointPosterior::rest_covariance() const {
  return schur_factor_.inverse(pool_);
}

/// (H⁻¹)_ss b; with `alone`, H_ss⁻¹ b
Eigen::MatrixXd JointPosterior::solve_source(const Eigen::MatrixXd& right, bool alone) const {
  Eigen::MatrixXd y = right, rest = Eigen::MatrixXd::Zero(schur_.rows(), right.cols());
  source_->forward(y, rest, pool_);
  if (alone)
    rest.setZero();
  else
    schur_factor_.solve(rest, pool_);
  source_->backward(y, rest, pool_);
  return y;
}

namespace {

/// w_k for which w_k Q_k is the number of parameters that the data determine.
void update(double& weight, double determined, double q) {
  const double factor = q > 0 && determined > 0 ? determined / (weight * q) : kLargestChange;
  weight *= std::clamp(factor, 1 / kLargestChange, kLargestChange);
}

}  // namespace

void JointPosterior::update_source(const JointValue& found, bool alone, Regularization& better) {
  const Eigen::Index pixels = source_gradient_.size();
  determined_source_ = 0;
  if (pixels == 0) return;
  Eigen::MatrixXd signs(pixels, kProbes);
  const Philox philox{0};
  for (Eigen::Index i = 0; i < signs.size(); ++i)
    signs.data()[i] = philox.uniform(static_cast<std::uint64_t>(i), random_stream::kProbes) < 0.5 ? -1.0 : 1.0;
  const Eigen::MatrixXd posterior = solve_source(signs, alone), prior = model_.source_prior().solve(weights_, signs);
  for (std::size_t k = 0; k < SourcePrior::kTerms.size(); ++k) {
    const Regularization::Member member = SourcePrior::kTerms[k];
    if (!(weights_.*member > 0)) continue;
    const Eigen::MatrixXd product = model_.source_prior().matrix(k) * signs;
    const double determined = weights_.*member * product.cwiseProduct(prior - posterior).sum() / kProbes;
    determined_source_ += determined;
    update(better.*member, determined, found.source[k]);
  }
}

Regularization JointPosterior::better_source_weights(const JointValue& found) {
  Regularization better = weights_;
  update_source(found, true, better);
  return better;
}

Regularization JointPosterior::better_weights(const JointValue& found) {
  Regularization better = weights_;
  update_source(found, false, better);
  determined_network_ = 0;
  const Eigen::Index n = index(model_.n_weights());
  if (n == 0) return better;
  // tr P⁻¹T − tr H⁻¹T, element by element: all are symmetric.
  const Eigen::MatrixXd gain = network_prior_.inverse(pool_) - rest_covariance().topLeftCorner(n, n);
  for (std::size_t k = 0; k < kNetworkTerms.size(); ++k) {
    const Regularization::Member member = kNetworkTerms[k];
    if (!(weights_.*member > 0)) continue;
    const double determined = weights_.*member * gain.cwiseProduct(l_.network[k]).sum();
    determined_network_ += determined;
    update(better.*member, determined, found.network[k]);
  }
  return better;
}

Evidence JointPosterior::evidence(const JointValue& found) const {
  Evidence e;
  JointValue gaussian = found;
  gaussian.signs = 0;
  e.misfit = -0.5 * gaussian.total(weights_);
  e.log_posterior = -0.5 * (schur_factor_.log_determinant() + source_->log_determinant());
  e.log_prior = 0.5 * (network_prior_.log_determinant() + model_.source_prior().log_determinant(weights_));
  e.constant = model_.log_constant();
  e.determined_source = determined_source_;
  e.determined_network = determined_network_;
  e.weights = weights_;
  e.source_variance = model_.source_prior().variance();
  e.log_evidence = e.misfit + e.log_prior + e.log_posterior + e.constant;
  return e;
}

}  // namespace einfield
