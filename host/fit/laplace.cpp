#include "host/fit/laplace.hpp"

#include <algorithm>
#include <cmath>
#include <Eigen/LU>
#include <Eigen/QR>
#include <limits>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/tangent.hpp"
#include "einfield/units.hpp"
#include "host/cpu/field_jacobian.hpp"
#include "host/fields/ensemble.hpp"
#include "host/fields/psf_smoothing.hpp"
#include "host/fit/block_product.hpp"
#include "host/fit/gauss_newton.hpp"

namespace einfield {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
/// A parameter p counts as undetermined when its error exceeds this times max(1, |p|), in the units of the fit.
constexpr double kUndetermined = 1e3;
/// Components of a free direction below this are rounding.
constexpr double kNoChange = 1e-6;
/// A free direction needs the network when, without it, this part of the direction would be missing.
constexpr double kNeedsNetwork = 1e-3;

Eigen::Index index(std::size_t n) {
  return static_cast<Eigen::Index>(n);
}

/// ∂u/∂p of the scalars that move: the inverse of ∂p/∂u. An entry of 0 (a parameter at the very end of its range) is
/// replaced by 1: the row of the information matrix is 0 then, and the parameter not determined.
Eigen::MatrixXd inverse_tangents(const JointModel& model, const std::vector<double>& u) {
  const ParameterLayout& layout = model.layout();
  const std::size_t n = layout.n_free();
  Eigen::MatrixXd tangents(index(n), index(n));
  std::vector<double> direction(n, 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    direction[j] = 1;
    for (std::size_t i = 0; i < n; ++i)
      tangents(index(i), index(j)) =
          transform_tangent(layout.free.data(), static_cast<int>(i), u.data(), direction.data());
    direction[j] = 0;
    if (!(std::abs(tangents(index(j), index(j))) > 0)) tangents(index(j), index(j)) = 1;
  }
  return tangents.inverse();
}

/// A stripe of G: the derivatives of one map at some pixels, a pixel in every row.
struct Stripe {
  Eigen::MatrixXd psi, alpha_x, alpha_y, kappa;
};

}  // namespace

Laplace::Laplace(const Problem& problem, const std::vector<double>& parameters, ThreadPool& pool)
    : observation_(problem.observation), pool_(pool), shape_(problem.model.network) {
  const Units units = units_of(problem);
  angle_ = units.angle;
  const Problem own = in_units(problem, units);
  const ParameterLayout layout(problem.model);
  const std::vector<double> x = parameters_in_units(problem.model, layout, parameters, units);
  JointModel model(own, {}, pool);
  model.hold_lens_directions(x);
  const Linearization l = model.linearize(x);
  const DataNormal normal(l, model.pixels().size(), pool);
  const JointPosterior posterior(model, l, normal, own.regularization, pool);
  EINFIELD_REQUIRE(posterior.source_is_determined(),
                   "uncertainty: some source pixels are determined neither by the data nor by a penalty, expected "
                   "source_gradient or source_curvature > 0");
  Eigen::MatrixXd information = posterior.schur();
  const std::size_t n_weights = model.n_weights(), n_scalars = layout.n_free();
  if (shape_) {
    shape_ = own.model.network;
    network_.assign(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(layout.n_network));
    weights_.assign(model.rest().begin(), model.rest().begin() + static_cast<std::ptrdiff_t>(n_weights));
  }
  if (n_scalars > 0) {  // from unconstrained to physical parameters
    const std::vector<double> u(x.begin() + static_cast<std::ptrdiff_t>(layout.n_network),
                                x.begin() + static_cast<std::ptrdiff_t>(layout.n_network + n_scalars));
    const Eigen::MatrixXd inverse = inverse_tangents(model, u);
    information.rightCols(index(n_scalars)) = (information.rightCols(index(n_scalars)) * inverse).eval();
    information.bottomRows(index(n_scalars)) = (inverse.transpose() * information.bottomRows(index(n_scalars))).eval();
  }
  information_.emplace((information + information.transpose()) / 2);
  if (n_scalars > 0) {
    find_scalars(model, ParameterLayout(own.model).physical(x.data() + layout.n_network));
    const std::vector<double> sizes = sizes_of_scalars(problem.model, layout, units);
    for (std::size_t i = 0; i < n_scalars; ++i) scalars_.sigma[i] *= sizes[i];
    for (Degeneracy& degeneracy : scalars_.degeneracies) {
      const double unit = sizes[degeneracy.changes.front().parameter];
      for (Degeneracy::Change& change : degeneracy.changes) change.amount *= sizes[change.parameter] / unit;
    }
  }
}

/// σ, correlations and free directions of the scalars, in the units of the fit.
void Laplace::find_scalars(const JointModel& model, const std::vector<double>& values) {
  const Information& information = *information_;
  const std::size_t n_weights = model.n_weights(), n = values.size();
  Eigen::MatrixXd unit = Eigen::MatrixXd::Zero(index(n), information.size());
  unit.rightCols(index(n)).setIdentity();
  const Eigen::VectorXd sigma = information.deviations(unit, pool_);
  const Eigen::MatrixXd covariance = information.covariance(unit);
  scalars_ = {std::vector<double>(n, kNone), SymmetricMatrix(n), {}};
  std::fill(scalars_.correlations.values.begin(), scalars_.correlations.values.end(), kNone);
  // Rows: the free directions, scalars before weights, each in units of the error at fixed others.
  std::vector<std::vector<double>> rows;
  for (Eigen::Index k = 0; k < information.free_directions().cols(); ++k) {
    const Eigen::VectorXd direction = information.free_directions().col(k).cwiseQuotient(information.scale());
    std::vector<double>& row = rows.emplace_back();
    for (std::size_t i = 0; i < n; ++i)
      row.push_back(std::isnan(sigma[index(i)]) ? direction[index(n_weights + i)] : 0);
    row.insert(row.end(), direction.data(), direction.data() + n_weights);
  }
  const std::vector<std::size_t> pivots = reduce_rows(rows, n, kNoChange);
  // What is left are directions of the weights alone: what they span needs no mention.
  Eigen::MatrixXd alone(index(n_weights), index(rows.size() - pivots.size()));
  for (std::size_t r = pivots.size(); r < rows.size(); ++r)
    for (std::size_t i = 0; i < n_weights; ++i) alone(index(i), index(r - pivots.size())) = rows[r][n + i];
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr;
  if (alone.cols() > 0 && n_weights > 0) qr.compute(alone);
  for (std::size_t r = 0; r < pivots.size(); ++r) {
    const double size = information.scale()[index(n_weights + pivots[r])];
    Degeneracy& degeneracy = scalars_.degeneracies.emplace_back();
    degeneracy.changes.push_back({pivots[r], 1});
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) {
      squares += rows[r][i] * rows[r][i];
      if (i != pivots[r] && std::abs(rows[r][i]) > kNoChange)
        degeneracy.changes.push_back({i, rows[r][i] * information.scale()[index(n_weights + i)] / size});
    }
    if (n_weights == 0) continue;
    Eigen::VectorXd rest = Eigen::Map<const Eigen::VectorXd>(rows[r].data() + n, index(n_weights));
    if (alone.cols() > 0) rest -= alone * qr.solve(rest);
    degeneracy.with_network = rest.norm() > kNeedsNetwork * std::sqrt(squares);
  }
  std::vector<bool> known(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double s = sigma[index(i)];
    known[i] = s <= kUndetermined * std::max(1.0, std::abs(values[i]));
    if (!std::isnan(s) && !known[i]) scalars_.degeneracies.push_back({{{i, 1}}, n_weights > 0});
    if (!known[i]) continue;
    scalars_.sigma[i] = s;
    for (std::size_t j = 0; j <= i; ++j)
      if (known[j])
        scalars_.correlations(i, j) = scalars_.correlations(j, i) =
            i == j ? 1 : covariance(index(i), index(j)) / (s * sigma[index(j)]);
  }
}

FieldErrors Laplace::fields(const std::vector<double>& weights_of_constant) const {
  EINFIELD_REQUIRE(shape_.has_value(), "Laplace: maps of a model without a network, expected a network");
  const std::vector<double> theta = pixel_centers(observation_.grid);
  const int n = static_cast<int>(theta.size() / 2);
  const Eigen::Index size = information_->size(), n_weights = index(weights_.size());
  constexpr int kPixels = 2 * kBlockSide;
  const int stripes = (n + kPixels - 1) / kPixels;
  const auto stripe_of = [&](int stripe) {
    const int begin = stripe * kPixels, count = std::min(kPixels, n - begin);
    Stripe g;
    for (Eigen::MatrixXd* map : {&g.psi, &g.alpha_x, &g.alpha_y, &g.kappa}) map->setZero(count, size);
    FieldJacobian jacobian(*shape_, network_.data());
    for (int i = 0; i < count; ++i) {
      const auto k = static_cast<std::size_t>(begin + i);
      const FieldJacobian::Gradients& at =
          jacobian.at({theta[k] / angle_, theta[static_cast<std::size_t>(n) + k] / angle_});
      for (Eigen::Index w = 0; w < n_weights; ++w) {
        const std::size_t from = weights_[static_cast<std::size_t>(w)];
        g.psi(i, w) = at.psi[from];
        g.alpha_x(i, w) = at.alpha_x[from];
        g.alpha_y(i, w) = at.alpha_y[from];
        g.kappa(i, w) = at.kappa[from];
      }
    }
    return g;
  };
  // The mean of ψ, and κ of all pixels, which the PSF mixes.
  const bool blurred = !observation_.psf.empty();
  Eigen::MatrixXd kappa(blurred ? n : 0, size), means(stripes, size);
  double total = 0;
  for (const double w : weights_of_constant) total += w;
  pool_.parallel_for(stripes, [&](int stripe, int) {
    const Stripe g = stripe_of(stripe);
    const Eigen::Index begin = stripe * kPixels;
    means.row(stripe) =
        Eigen::Map<const Eigen::RowVectorXd>(weights_of_constant.data() + begin, g.psi.rows()) * g.psi / total;
    if (blurred) kappa.middleRows(begin, g.kappa.rows()) = g.kappa;
  });
  const Eigen::RowVectorXd mean = means.colwise().sum();
  FieldErrors errors;
  errors.sigma = zero_fields(static_cast<std::size_t>(n));
  ThreadPool alone(1);
  pool_.parallel_for(stripes, [&](int stripe, int) {
    Stripe g = stripe_of(stripe);
    g.psi.rowwise() -= mean;
    const auto put = [&](const Eigen::MatrixXd& functions, std::vector<double>& to, int offset, double unit) {
      const Eigen::VectorXd sigma = information_->deviations(functions, alone);
      for (Eigen::Index i = 0; i < sigma.size(); ++i)
        to[static_cast<std::size_t>(offset + stripe * kPixels + i)] = unit * sigma[i];
    };
    put(g.psi, errors.sigma.potential, 0, angle_ * angle_);
    put(g.alpha_x, errors.sigma.deflection, 0, angle_);
    put(g.alpha_y, errors.sigma.deflection, n, angle_);
    put(g.kappa, errors.sigma.convergence, 0, 1);
  });
  if (!blurred) return errors;
  std::vector<PsfSmoothing> smoothing;
  for (int i = 0; i < pool_.threads(); ++i) smoothing.emplace_back(observation_);
  pool_.parallel_for(static_cast<int>(n_weights), [&](int column, int worker) {
    const Eigen::VectorXd in = kappa.col(column);
    smoothing[static_cast<std::size_t>(worker)].apply(in.data(), kappa.col(column).data());
  });
  const Eigen::VectorXd sigma = information_->deviations(kappa, pool_);
  errors.kappa_psf.assign(sigma.data(), sigma.data() + sigma.size());
  return errors;
}

std::string Laplace::uncovered(const Problem& problem) {
  if (problem.loss != LossKind::chi2)
    return std::string("optimizer.loss is \"") + name_of(problem.loss) + "\", expected \"chi2\"";
  if (network_light(problem.model)) return "a light has the profile NETWORK";
  for (const LightComponent& light : problem.model.lens_light)
    if (light.pixels_free) return "the pixels of a lens_light are free";
  const bool pixels = std::any_of(problem.model.source.begin(), problem.model.source.end(),
                                  [](const LightComponent& c) { return c.pixels_free; });
  if (pixels && !problem.regularization.on_source_pixels()) return "the pixels of the source have no penalty";
  return "";
}

std::size_t Laplace::planned_bytes(const Problem& problem, int threads) {
  const ParameterLayout layout(problem.model);
  const std::size_t rest = layout.n_network + layout.n_free(),
                    pixels = static_cast<std::size_t>(problem.observation.grid.n_pixels());
  // The linearization and its factors; then eigenvectors, stripes and κ of all pixels.
  return gauss_newton_bytes(problem, threads) +
         8 * rest * (4 * rest + pixels + static_cast<std::size_t>(threads) * 8 * 2 * kBlockSide);
}

}  // namespace einfield
