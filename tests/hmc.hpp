// Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011) for tests: a reference that knows nothing of how the library
// makes its error bars. The chain moves in coordinates z with x = start + root · diag(scale) · z. `root` comes from the
// caller, such that the posterior is about round in z; scale and step are adapted during the warm-up, the step by dual
// averaging (Hoffman & Gelman 2014), and kept afterwards.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <Eigen/Core>
#include <functional>
#include <vector>

#include "einfield/random.hpp"

namespace einfield::hmc {

/// ln p, up to a constant, at a point; fills its gradient.
using LogDensity = std::function<double(const Eigen::VectorXd& x, Eigen::VectorXd& gradient)>;

struct Settings {
  int warmup = 1000;
  int samples = 1000;
  double length = 3;        ///< of the longest trajectory, in z; the others are shorter, down to one step
  double acceptance = 0.8;  ///< that the step is adapted to
  std::uint64_t seed = 1;
};

struct Summary {
  double step = 0;        ///< in z
  double acceptance = 0;  ///< mean over the samples
  int divergent = 0;      ///< samples whose trajectory lost more than 1000 in ln p
  long evaluations = 0;   ///< of the density, warm-up included
};

/// The step that makes the mean acceptance what is asked for.
class DualAveraging {
 public:
  DualAveraging(double step, double target) : shift_(std::log(10 * step)), target_(target), now_(std::log(step)) {}
  double step() const { return std::exp(now_); }
  double mean() const { return std::exp(mean_); }
  void update(double acceptance) {
    ++count_;
    const double t = count_;
    error_ += (target_ - acceptance - error_) / (t + 10);
    now_ = shift_ - std::sqrt(t) / 0.05 * error_;
    const double weight = std::pow(t, -0.75);
    mean_ = weight * now_ + (1 - weight) * mean_;
  }

 private:
  double shift_, target_, now_;
  double mean_ = 0, error_ = 0;
  int count_ = 0;
};

/// One chain.
/// @param record  called with every sample after the warm-up
/// @param go_on   asked before every trajectory; false ends the chain
inline Summary run(const LogDensity& density, const Eigen::VectorXd& start, const Eigen::MatrixXd& root,
                   const Settings& settings, const std::function<void(const Eigen::VectorXd&)>& record,
                   const std::function<bool()>& go_on = nullptr) {
  const Eigen::Index n = root.cols();
  const Philox random{settings.seed};
  std::uint64_t drawn = 0;
  Eigen::VectorXd scale = Eigen::VectorXd::Ones(n), x = start, gradient;
  Summary summary;
  double value = density(x, gradient);
  DualAveraging adapted(1.0 / std::pow(double(n), 0.25), settings.acceptance);
  // The scale is that of the second half of each window; a later window is a better one.
  const int first = settings.warmup * 3 / 10, second = settings.warmup * 8 / 10;
  Eigen::VectorXd sum = Eigen::VectorXd::Zero(n), squares = sum, z = sum;
  int counted = 0;
  for (int k = 0; k < settings.warmup + settings.samples; ++k) {
    if (go_on && !go_on()) break;
    const bool warm = k < settings.warmup;
    summary.step = warm ? adapted.step() : adapted.mean();
    // The first steps of the adaptation may be far too short: trajectories that could not end then.
    const int most = std::clamp(static_cast<int>(settings.length / summary.step), 1, k < first ? 20 : 1000);
    const int steps = 1 + static_cast<int>(most * random.uniform(drawn++));
    Eigen::VectorXd momentum(n);
    for (Eigen::Index i = 0; i < n; ++i) momentum[i] = random.normal(drawn++);
    const double before = value - momentum.squaredNorm() / 2;
    Eigen::VectorXd moved = x, slope = gradient, travelled = Eigen::VectorXd::Zero(n);
    double after = value;
    const auto kick = [&](double length) { momentum += length * scale.cwiseProduct(root.transpose() * slope); };
    for (int s = 0; s < steps; ++s) {
      kick(summary.step / 2);
      const Eigen::VectorXd move = summary.step * momentum;
      travelled += scale.cwiseProduct(move);
      moved += root * scale.cwiseProduct(move);
      after = density(moved, slope);
      ++summary.evaluations;
      if (!(after > before - 1000)) break;
      kick(summary.step / 2);
    }
    const double change = after - momentum.squaredNorm() / 2 - before;
    const bool divergent = !(change > -1000);
    const double chance = divergent ? 0 : std::min(1.0, std::exp(change));
    if (random.uniform(drawn++) < chance) {
      x = moved;
      gradient = slope;
      value = after;
      z += travelled;
    }
    if (!warm) {
      summary.acceptance += (chance - summary.acceptance) / (k - settings.warmup + 1);
      summary.divergent += divergent;
      record(x);
      continue;
    }
    adapted.update(chance);
    const int window = k < first ? first : second,
              begin = (k < first ? 0 : first) + (window - (k < first ? 0 : first)) / 2;
    if (k >= second || k < begin) continue;
    sum += z;
    squares += z.cwiseAbs2();
    ++counted;
    if (k + 1 < window) continue;
    const Eigen::VectorXd mean = sum / counted;
    // A few samples tell a variance badly: it is drawn towards that of the caller's root.
    const Eigen::VectorXd variance = squares / counted - mean.cwiseAbs2();
    scale = ((counted * variance + 10 * Eigen::VectorXd::Ones(n)) / (counted + 10)).cwiseSqrt();
    adapted = DualAveraging(adapted.step(), settings.acceptance);
    sum.setZero();
    squares.setZero();
    counted = 0;
  }
  return summary;
}

// ---- how much a chain says
// ----------------------------------------------------------------------------------------------

/// Effective number of samples of the mean of a quantity: the initial monotone sequence of Geyer (1992) of the
/// autocorrelations of all chains together, each chain in two halves (Vehtari et al. 2021, eq. 10). Chains that
/// disagree lower it.
inline double effective_samples(const std::vector<std::vector<double>>& chains) {
  std::size_t n = chains.front().size() / 2;  // the shortest chain counts
  for (const std::vector<double>& chain : chains) n = std::min(n, chain.size() / 2);
  std::vector<std::vector<double>> halves;
  for (const std::vector<double>& chain : chains)
    for (const std::size_t begin : {std::size_t{0}, n})
      halves.emplace_back(chain.begin() + static_cast<std::ptrdiff_t>(begin),
                          chain.begin() + static_cast<std::ptrdiff_t>(begin + n));
  const double count = static_cast<double>(n), all = static_cast<double>(halves.size());
  std::vector<double> means;
  for (std::vector<double>& half : halves) {
    double mean = 0;
    for (const double v : half) mean += v / count;
    for (double& v : half) v -= mean;
    means.push_back(mean);
  }
  const auto covariance = [&](std::size_t lag) {
    double c = 0;
    for (const std::vector<double>& half : halves)
      for (std::size_t i = 0; i + lag < n; ++i) c += half[i] * half[i + lag];
    return c / (count * all);
  };
  double mean = 0, between = 0;
  for (const double m : means) mean += m / all;
  for (const double m : means) between += (m - mean) * (m - mean) / (all - 1);
  const double within = covariance(0), variance = within + between;
  const auto correlation = [&](std::size_t lag) { return 1 - (within - covariance(lag)) / variance; };
  double time = -1, least = 2;
  for (std::size_t lag = 0; lag + 1 < n; lag += 2) {
    const double pair = std::min(least, correlation(lag) + correlation(lag + 1));
    if (pair <= 0) break;
    time += 2 * pair;
    least = pair;
  }
  return count * all / std::max(time, 1 / std::log10(count * all));
}

}  // namespace einfield::hmc
