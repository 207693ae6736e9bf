#include "host/fit/member_objective.hpp"

#include <cmath>
#include <cstdint>
#include <Eigen/SparseCholesky>
#include <utility>

#include "einfield/error.hpp"

namespace einfield {
namespace {

constexpr double kRootTwo = 1.4142135623730951;

Eigen::Index index(std::size_t n) {
  return static_cast<Eigen::Index>(n);
}

/// The layer of a weight, and whether it is a bias.
std::pair<int, bool> place(const NetworkShape& shape, std::size_t flat) {
  int layer = 0;
  while (flat >= shape.kernel_offset(layer + 1)) ++layer;
  return {layer, flat >= shape.bias_offset(layer)};
}

/// Calls work(index into rest(), index into the flat vector) for the biases of hidden layers, which have a prior of
/// unit width.
template <class Work>
void for_each_bias(const JointModel& model, Work&& work) {
  if (model.n_weights() == 0) return;
  const NetworkShape& shape = *model.problem().model.network;
  for (std::size_t k = 0; k < model.n_weights(); ++k)
    if (const auto [layer, bias] = place(shape, model.rest()[k]); bias && layer + 1 < shape.layers())
      work(k, model.rest()[k]);
}

}  // namespace

PixelPrior::PixelPrior(const JointModel& model) {
  if (model.pixels().empty()) return;
  precision = model.source_prior().precision(model.problem().regularization);
  const Eigen::SimplicialLLT<SourcePrior::Sparse> llt(precision);
  EINFIELD_REQUIRE(llt.info() == Eigen::Success, "randomized: the prior of the source pixels is not positive definite");
  factor = llt.matrixL();
  unpermute = llt.permutationPinv();
}

MemberObjective::MemberObjective(const JointModel& model, const PixelPrior& prior,
                                 const std::optional<MemberDraws>& draws)
    : model_(model), prior_(prior), backend_(make_backend<double>("cpu", {1, {}})), n_data_(model.n_data()) {
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

std::vector<double> MemberObjective::moved(std::vector<double> x, double length,
                                           const Eigen::VectorXd& direction) const {
  const std::size_t pixels = model_.pixels().size();
  for (std::size_t k = 0; k < pixels; ++k) x[model_.pixels()[k]] += length * direction[index(k)];
  for (std::size_t k = 0; k < model_.rest().size(); ++k) x[model_.rest()[k]] += length * direction[index(pixels + k)];
  return x;
}

/// Adds the cotangents of what (2) and joint_model.hpp (3) ask of the deflection. @return held − 2 ᾱ·α(x)
double MemberObjective::add_deflection_terms() {
  if (deflection_bar_.empty() && held_at_.size() == 0) return 0;
  double linear = 0, held = 0;
  const std::vector<double> alpha = backend_->download(Field::deflection, 0);
  std::vector<double> bar = backend_->download(Field::deflection_bar, 0);
  for (std::size_t i = 0; i < deflection_bar_.size(); ++i) {
    linear += deflection_bar_[i] * alpha[i];
    bar[i] -= 2 * deflection_bar_[i] / n_data_;
  }
  if (held_at_.size() > 0) {
    const Eigen::MatrixXd& u = model_.held();
    const Eigen::VectorXd along = u.transpose() * Eigen::Map<const Eigen::VectorXd>(alpha.data(), u.rows()) - held_at_;
    held = along.squaredNorm();
    Eigen::Map<Eigen::VectorXd>(bar.data(), u.rows()) += 2.0 / n_data_ * (u * along);
  }
  backend_->upload(Field::deflection_bar, 0, bar);
  return held - 2 * linear;
}

void MemberObjective::evaluate(Point& at) {
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
  const double of_deflection = add_deflection_terms();
  backend_->network_adjoint();
  const StepState state = backend_->state(0);
  const std::vector<double> gradient = backend_->download(Field::gradient, 0);
  double linear = 0;
  for (std::size_t i = 0; i < linear_.size(); ++i) linear += linear_[i] * at.x[i];
  at.value = n_data_ * (state.loss + state.regularization) + of_deflection - 2 * linear;
  const std::size_t pixels = model_.pixels().size(), rest = model_.rest().size();
  at.gradient.resize(index(pixels + rest));
  const auto half = [&](std::size_t flat) { return n_data_ * gradient[flat] / 2 - linear_[flat]; };
  for (std::size_t k = 0; k < pixels; ++k) at.gradient[index(k)] = half(model_.pixels()[k]);
  for (std::size_t k = 0; k < rest; ++k) at.gradient[index(pixels + k)] = half(model_.rest()[k]);
  if (pixels > 0) {
    Eigen::VectorXd source(index(pixels));
    for (std::size_t k = 0; k < pixels; ++k) source[index(k)] = at.x[model_.pixels()[k]];
    const Eigen::VectorXd product = prior_.precision * source;
    at.value += source.dot(product);
    at.gradient.head(index(pixels)) += product;
  }
  for_each_bias(model_, [&](std::size_t k, std::size_t flat) {
    at.value += at.x[flat] * at.x[flat];
    at.gradient[index(pixels + k)] += at.x[flat];
  });
}

/// ᾱ of (2): the adjoint of κ and of ∇∇ψ − ⟨∇∇ψ⟩ for the draws at the nodes.
void MemberObjective::draw_potential(const MemberDraws& draws) {
  const Problem& problem = model_.problem();
  const Regularization& weights = problem.regularization;
  const Grid& grid = problem.observation.grid;
  const RayGrid nodes(grid);
  if (model_.n_weights() == 0 || nodes.interior() == 0) return;
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

void MemberObjective::draw_weights(const MemberDraws& draws) {
  if (model_.n_weights() == 0) return;
  const NetworkShape& shape = *model_.problem().model.network;
  const double decay = std::sqrt(model_.problem().regularization.weight_decay * n_data_ / 2);
  for (std::size_t k = 0; k < model_.n_weights(); ++k) {
    const std::size_t flat = model_.rest()[k];
    if (!place(shape, flat).second) linear_[flat] = decay * draws(MemberDraws::weights, flat);
  }
  for_each_bias(model_, [&](std::size_t, std::size_t flat) { linear_[flat] = draws(MemberDraws::biases, flat); });
}

void MemberObjective::draw_pixels(const MemberDraws& draws) {
  const std::vector<std::size_t>& pixels = model_.pixels();
  if (pixels.empty()) return;
  Eigen::VectorXd z(index(pixels.size()));
  for (Eigen::Index i = 0; i < z.size(); ++i) z[i] = draws(MemberDraws::source_pixels, static_cast<std::uint64_t>(i));
  const Eigen::VectorXd xi = prior_.unpermute * Eigen::VectorXd(prior_.factor * z);
  for (std::size_t k = 0; k < pixels.size(); ++k) linear_[pixels[k]] = xi[index(k)];
}

}  // namespace einfield
