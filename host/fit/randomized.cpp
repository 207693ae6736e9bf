#include "host/fit/randomized.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <deque>
#include <Eigen/SparseCholesky>
#include <memory>
#include <mutex>
#include <optional>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/member_draws.hpp"

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
constexpr double kRootTwo = 1.4142135623730951;

Eigen::Index index(std::size_t n) {
  return static_cast<Eigen::Index>(n);
}

/// What all members share: the matrices at the unperturbed fit.
struct Shared {
  const JointModel& model;
  const JointPosterior& posterior;
  std::vector<BlockCholesky> factors;  ///< of S, one for each of kDampings
  SourcePrior::Sparse source_precision;
  /// L of R = PᵀLLᵀP, and Pᵀ
  SourcePrior::Sparse source_factor;
  Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, int> unpermute;
};

/// A point with the value and half the gradient of (2), by pixels and rest.
struct Point {
  std::vector<double> x;
  double value = 0;
  Eigen::VectorXd gradient;
};

/// The objective of one member.
class Objective {
 public:
  /// @param draws  nothing: F itself
  Objective(const Shared& shared, const std::optional<MemberDraws>& draws)
      : shared_(shared), backend_(make_backend<double>("cpu", {1, {}})), n_data_(shared.model.n_data()) {
    const JointModel& model = shared.model;
    Problem problem = model.problem();
    linear_.assign(model.layout().size(), 0.0);
    if (draws) {
      redraw(problem, *draws);
      draw_potential(*draws);
      draw_weights(*draws);
      draw_pixels(*draws);
    }
    // Counted here with the matrix that the fit used.
    problem.regularization.source_gradient = problem.regularization.source_curvature = 0;
    held_at_ = model.held_at();
    for (Eigen::Index i = 0; draws && i < held_at_.size(); ++i)
      held_at_[i] += (*draws)(MemberDraws::lens_directions, static_cast<std::uint64_t>(i));
    backend_->load({problem});
  }

  int evaluations() const { return evaluations_; }

  void evaluate(Point& at) {
    ++evaluations_;
    backend_->upload(Field::parameters, 0, at.x);
    backend_->network();
    backend_->render();
    backend_->convolve();
    backend_->loss();
    backend_->zero_gradient();
    backend_->convolve_adjoint();
    backend_->render_adjoint();
    backend_->regularize();
    double linear = 0, held = 0;
    if (!deflection_bar_.empty() || held_at_.size() > 0) {
      const std::vector<double> alpha = backend_->download(Field::deflection, 0);
      std::vector<double> bar = backend_->download(Field::deflection_bar, 0);
      for (std::size_t i = 0; i < deflection_bar_.size(); ++i) {
        linear += deflection_bar_[i] * alpha[i];
        bar[i] -= 2 * deflection_bar_[i] / n_data_;
      }
      if (held_at_.size() > 0) {
        const Eigen::MatrixXd& u = shared_.model.held();
        const Eigen::VectorXd along =
            u.transpose() * Eigen::Map<const Eigen::VectorXd>(alpha.data(), u.rows()) - held_at_;
        held = along.squaredNorm();
        Eigen::Map<Eigen::VectorXd>(bar.data(), u.rows()) += 2.0 / n_data_ * (u * along);
      }
      backend_->upload(Field::deflection_bar, 0, bar);
    }
    backend_->network_adjoint();
    const StepState state = backend_->state(0);
    const std::vector<double> gradient = backend_->download(Field::gradient, 0);
    for (std::size_t i = 0; i < linear_.size(); ++i) linear += linear_[i] * at.x[i];
    at.value = n_data_ * (state.loss + state.regularization) + held - 2 * linear;
    const JointModel& model = shared_.model;
    const std::size_t pixels = model.pixels().size(), rest = model.rest().size();
    at.gradient.resize(index(pixels + rest));
    const auto half = [&](std::size_t flat) { return n_data_ * gradient[flat] / 2 - linear_[flat]; };
    for (std::size_t k = 0; k < pixels; ++k) at.gradient[index(k)] = half(model.pixels()[k]);
    for (std::size_t k = 0; k < rest; ++k) at.gradient[index(pixels + k)] = half(model.rest()[k]);
    if (pixels > 0) {
      Eigen::VectorXd source(index(pixels));
      for (std::size_t k = 0; k < pixels; ++k) source[index(k)] = at.x[model.pixels()[k]];
      const Eigen::VectorXd product = shared_.source_precision * source;
      at.value += source.dot(product);
      at.gradient.head(index(pixels)) += product;
    }
    for_each_bias([&](std::size_t k, std::size_t flat) {
      at.value += at.x[flat] * at.x[flat];
      at.gradient[index(pixels + k)] += at.x[flat];
    });
  }

 private:
  /// Calls work(index into rest(), index into the flat vector) for the biases of hidden layers, which have a prior of
  /// unit width.
  template <class Work>
  void for_each_bias(Work&& work) const {
    const JointModel& model = shared_.model;
    if (model.n_weights() == 0) return;
    const NetworkShape& shape = *model.problem().model.network;
    for (std::size_t k = 0; k < model.n_weights(); ++k)
      if (const auto [layer, bias] = place(shape, model.rest()[k]); bias && layer + 1 < shape.layers())
        work(k, model.rest()[k]);
  }
  /// The layer of a weight, and whether it is a bias.
  static std::pair<int, bool> place(const NetworkShape& shape, std::size_t flat) {
    int layer = 0;
    while (flat >= shape.kernel_offset(layer + 1)) ++layer;
    return {layer, flat >= shape.bias_offset(layer)};
  }

  /// ᾱ of (2): the adjoint of κ and of ∇∇ψ − ⟨∇∇ψ⟩ for the draws at the nodes.
  void draw_potential(const MemberDraws& draws) {
    const Problem& problem = shared_.model.problem();
    const Regularization& weights = problem.regularization;
    const Grid& grid = problem.observation.grid;
    const RayGrid nodes(grid);
    if (shared_.model.n_weights() == 0 || nodes.interior() == 0) return;
    if (!(weights.smoothness > 0) && !(weights.curvature > 0)) return;
    const double share = static_cast<double>(n_data_) / nodes.interior(), kappa = std::sqrt(weights.smoothness * share),
                 shape = std::sqrt(weights.curvature * share);
    const auto all = static_cast<std::size_t>(nodes.rows) * static_cast<std::size_t>(nodes.columns);
    std::vector<double> bar(3 * all, 0.0);
    double mean[3] = {};
    const auto for_each_node = [&](auto&& work) {
      std::uint64_t k = 0;
      for (int row = 1; row + 1 < nodes.rows; ++row)
        for (int column = 1; column + 1 < nodes.columns; ++column, ++k)
          work(static_cast<std::size_t>(row * nodes.columns + column), k);
    };
    for_each_node([&](std::size_t node, std::uint64_t k) {
      for (std::size_t part = 0; part < 3; ++part) {
        const double z = (part == 2 ? kRootTwo : 1.0) * shape * draws(MemberDraws::shape, 3 * k + part);
        bar[part * all + node] = z;
        mean[part] += z / nodes.interior();
      }
    });
    for_each_node([&](std::size_t node, std::uint64_t k) {
      const double z = kappa * draws(MemberDraws::convergence, k) / 2;
      for (std::size_t part = 0; part < 3; ++part) bar[part * all + node] += (part < 2 ? z : 0) - mean[part];
    });
    const auto rays = static_cast<std::size_t>(grid.n_rays());
    deflection_bar_.resize(2 * rays);
    const double spacing = grid.pixel_scale / grid.supersampling;
    for (int row = 0; row < nodes.rows; ++row)
      for (int column = 0; column < nodes.columns; ++column) {
        const Vec2<double> alpha_bar = difference_hessian_adjoint(nodes, bar.data(), spacing, column, row);
        const auto ray = static_cast<std::size_t>(nodes.ray(column, row));
        deflection_bar_[ray] = alpha_bar.x;
        deflection_bar_[rays + ray] = alpha_bar.y;
      }
  }

  void draw_weights(const MemberDraws& draws) {
    const JointModel& model = shared_.model;
    if (model.n_weights() == 0) return;
    const NetworkShape& shape = *model.problem().model.network;
    const double decay = std::sqrt(model.problem().regularization.weight_decay * n_data_ / 2);
    for (std::size_t k = 0; k < model.n_weights(); ++k) {
      const std::size_t flat = model.rest()[k];
      if (!place(shape, flat).second) linear_[flat] = decay * draws(MemberDraws::weights, flat);
    }
    for_each_bias([&](std::size_t, std::size_t flat) { linear_[flat] = draws(MemberDraws::biases, flat); });
  }

  void draw_pixels(const MemberDraws& draws) {
    const std::vector<std::size_t>& pixels = shared_.model.pixels();
    if (pixels.empty()) return;
    Eigen::VectorXd z(index(pixels.size()));
    for (Eigen::Index i = 0; i < z.size(); ++i) z[i] = draws(MemberDraws::source_pixels, static_cast<std::uint64_t>(i));
    const Eigen::VectorXd xi = shared_.unpermute * Eigen::VectorXd(shared_.source_factor * z);
    for (std::size_t k = 0; k < pixels.size(); ++k) linear_[pixels[k]] = xi[index(k)];
  }

  const Shared& shared_;
  std::unique_ptr<Backend<double>> backend_;
  int n_data_;
  int evaluations_ = 0;
  std::vector<double> deflection_bar_;  ///< ᾱ of (2), all x, then all y; empty without draws
  std::vector<double> linear_;          ///< c of (2), flat
  Eigen::VectorXd held_at_;             ///< of joint_model.hpp (3)
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
  Objective objective(shared, draws);
  ThreadPool alone(1);
  Search search(shared, alone);
  RandomizedMember member;
  Point now{start, 0, {}};
  objective.evaluate(now);
  const double first = now.value;
  const JointModel& model = shared.model;
  const std::size_t pixels = model.pixels().size();
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
    Point next;
    double length = 2;
    bool fell = false;
    const int tries = damping + 1 < shared.factors.size() ? kTries : kLastTries;
    for (int attempt = 0; attempt < tries && !fell; ++attempt) {
      length /= 2;
      next.x = now.x;
      for (std::size_t k = 0; k < pixels; ++k) next.x[model.pixels()[k]] += length * d[index(k)];
      for (std::size_t k = 0; k < model.rest().size(); ++k) next.x[model.rest()[k]] += length * d[index(pixels + k)];
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
  Shared shared{model, posterior, {}, {}, {}, {}};
  for (const double damping : kDampings) shared.factors.push_back(posterior.damped_factor(damping));
  if (!model.pixels().empty()) {
    shared.source_precision = model.source_prior().precision(problem.regularization);
    const Eigen::SimplicialLLT<SourcePrior::Sparse> factor(shared.source_precision);
    EINFIELD_REQUIRE(factor.info() == Eigen::Success,
                     "randomized: the prior of the source pixels is not positive definite");
    shared.source_factor = factor.matrixL();
    shared.unpermute = factor.permutationPinv();
  }
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
