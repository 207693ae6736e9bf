#include "host/fit/randomized.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <deque>
#include <mutex>
#include <optional>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/member_objective.hpp"

namespace einfield {
namespace {

constexpr std::size_t kPairs = 20;
constexpr int kLook = 5;              ///< steps over which the fall counts that ends a member
constexpr double kSufficient = 1e-4;  ///< of the fall that the slope promises (Armijo)
constexpr int kTries = 3;             ///< lengths of a step, each half of the one before
constexpr int kLastTries = 12;        ///< with the strongest damping
/// Levenberg's dampings of the first matrix, from one to the next when no length is good. Without them the weights of
/// hidden layers, which the data hardly determine, would make steps far beyond the range in which F is a parabola.
constexpr double kDampings[] = {0, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100};

Eigen::Index index(std::size_t n) {
  return static_cast<Eigen::Index>(n);
}

/// What all members share: the matrices at the unperturbed fit.
struct Shared {
  const JointModel& model;
  const JointPosterior& posterior;
  const PixelPrior& prior;
  std::vector<BlockCholesky> factors;  ///< of S, one for each of kDampings
};

/// −(L-BFGS matrix) g: the recursion of two loops with H⁻¹ in the middle (Nocedal & Wright 2006, algorithm 7.4).
class Search {
 public:
  Search(const Shared& shared, ThreadPool& pool) : shared_(shared), pool_(pool) {}

  /// @param damping  index into kDampings
  Eigen::VectorXd direction(const Eigen::VectorXd& gradient, std::size_t damping) const {
    Eigen::VectorXd q = gradient;
    std::vector<double> alpha(pairs_.size());
    for (std::size_t i = pairs_.size(); i-- > 0;) {
      alpha[i] = pairs_[i].first.dot(q) / pairs_[i].first.dot(pairs_[i].second);
      q -= alpha[i] * pairs_[i].second;
    }
    const Eigen::Index pixels = index(shared_.model.pixels().size());
    const JointPosterior::Step step =
        shared_.posterior.solve(q.head(pixels), q.tail(q.size() - pixels), shared_.factors[damping], pool_);
    Eigen::VectorXd d(q.size());
    d << -step.source, -step.rest;
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const double beta = pairs_[i].second.dot(d) / pairs_[i].first.dot(pairs_[i].second);
      d += (alpha[i] - beta) * pairs_[i].first;
    }
    return -d;
  }
  void remember(const Eigen::VectorXd& move, const Eigen::VectorXd& change) {
    if (!(move.dot(change) > 0)) return;
    pairs_.emplace_back(move, change);
    if (pairs_.size() > kPairs) pairs_.pop_front();
  }
  bool forget() {
    const bool any = !pairs_.empty();
    pairs_.clear();
    return any;
  }

 private:
  const Shared& shared_;
  ThreadPool& pool_;
  std::deque<std::pair<Eigen::VectorXd, Eigen::VectorXd>> pairs_;
};

RandomizedMember descend(const Shared& shared, const std::optional<MemberDraws>& draws,
                         const std::vector<double>& start, const RandomizedSettings& settings) {
  MemberObjective objective(shared.model, shared.prior, draws);
  ThreadPool alone(1);
  Search search(shared, alone);
  RandomizedMember member;
  MemberObjective::Point now{start, 0, {}};
  objective.evaluate(now);
  const double first = now.value;
  std::array<double, kLook> before{};  // values of the last steps
  std::size_t damping = 0;
  int steps = 0;
  while (steps < settings.steps && std::isfinite(now.value)) {
    const auto place = static_cast<std::size_t>(steps % kLook);
    member.converged = steps >= kLook && before[place] - now.value < settings.tolerance;
    if (member.converged) break;
    const Eigen::VectorXd d = search.direction(now.gradient, damping);
    const double slope = now.gradient.dot(d);
    if (!(slope < 0)) {
      if (search.forget()) continue;
      break;
    }
    MemberObjective::Point next;
    double length = 2;
    bool fell = false;
    const int tries = damping + 1 < shared.factors.size() ? kTries : kLastTries;
    for (int attempt = 0; attempt < tries && !fell; ++attempt) {
      length /= 2;
      next.x = objective.moved(now.x, length, d);
      objective.evaluate(next);
      fell = next.value < now.value + 2 * kSufficient * length * slope;  // F has twice the slope of half of it
    }
    const bool last = damping == 0 && -slope < settings.tolerance / kLook;
    if (!fell) {
      member.converged = last;
      if (last) break;
      if (damping + 1 < shared.factors.size())
        ++damping;
      else if (!search.forget())
        break;
      continue;
    }
    if (length == 1 && damping > 0) --damping;
    search.remember(length * d, next.gradient - now.gradient);
    before[place] = now.value;
    ++steps;
    now = std::move(next);
    member.converged = last;
    if (last) break;
  }
  member.x = std::move(now.x);
  member.fall = first - now.value;
  member.evaluations = objective.evaluations();
  return member;
}

}  // namespace

RandomizedFit randomized_fit(const Problem& problem, const std::vector<double>& x, const RandomizedSettings& settings,
                             ThreadPool& pool, const std::function<bool(int)>& done) {
  EINFIELD_REQUIRE(settings.members >= 1,
                   "randomized: " + std::to_string(settings.members) + " members, expected at least one");
  JointModel model(problem, {}, pool);
  model.hold_lens_directions(x);
  const Linearization l = model.linearize(x);
  const DataNormal normal(l, model.pixels().size(), pool);
  const JointPosterior posterior(model, l, normal, problem.regularization, pool);
  EINFIELD_REQUIRE(posterior.good(),
                   "randomized: some parameters are determined neither by the data nor by a prior, expected a prior or "
                   "a penalty for each");
  const PixelPrior prior(model);
  Shared shared{model, posterior, prior, {}};
  for (const double damping : kDampings) shared.factors.push_back(posterior.damped_factor(damping));
  RandomizedFit fit;
  fit.center = descend(shared, std::nullopt, x, settings);
  fit.members.resize(static_cast<std::size_t>(settings.members));
  std::atomic<bool> stop{done && done(0)};
  std::atomic<int> count{0};
  std::mutex mutex;
  pool.parallel_for(settings.members, [&](int m, int) {
    if (stop) return;
    fit.members[static_cast<std::size_t>(m)] = descend(shared, MemberDraws(settings.seed, m), fit.center.x, settings);
    if (!done) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (done(++count)) stop = true;
  });
  fit.interrupted = stop;
  return fit;
}

std::size_t randomized_bytes(const Problem& problem, int members, int threads) {
  const ParameterLayout layout(problem.model);
  const BackendOptions one{1, {}};
  return gauss_newton_bytes(problem, threads) +
         static_cast<std::size_t>(threads) *
             (planned_bytes<double>("cpu", {problem}, one) + 8 * (2 * kPairs + 8) * layout.size()) +
         8 * static_cast<std::size_t>(members) * layout.size();
}

}  // namespace einfield
