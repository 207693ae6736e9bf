#include "host/fit/perturber_map.hpp"

#include <algorithm>
#include <cmath>
#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <utility>

#include "einfield/error.hpp"
#include "einfield/random.hpp"
#include "host/fit/joint_algebra.hpp"

namespace einfield {
namespace {

/// Of the largest information: below, a place is not determined, and rounding decides.
constexpr double kUndetermined = 1e-12;

}  // namespace

double PerturberMap::highest() const {
  double largest = 0;
  for (std::size_t k = 0; k < places.size(); ++k) largest = std::max(largest, significance(k));
  return largest;
}

PerturberMap perturber_map(JointModel& model, const std::vector<double>& x, const Regularization& weights,
                           LensKind kind, std::vector<Vec2<double>> places, ThreadPool& pool) {
  EINFIELD_REQUIRE(
      kind == LensKind::sis || kind == LensKind::point_mass,
      std::string("a map of perturbers of profile ") + lens_info(kind).name + ", expected SIS or POINT_MASS");
  EINFIELD_REQUIRE(model.n_weights() == 0, "a map of perturbers beside a network, expected a smooth lens");
  Linearization l = model.linearize(x);
  const Eigen::Index n_rest = l.rest.cols(), n = static_cast<Eigen::Index>(places.size());
  const RowMatrix response = model.response(static_cast<int>(n), [&](int k, Vec2<double> theta) {
    const Vec2<double> place = places[static_cast<std::size_t>(k)];
    const double unit[kMaxProfileParameters] = {1, place.x, place.y};
    return lens_deflection(kind, unit, theta);
  });
  // The perturbers stand beside the other parameters: the pixels are eliminated once for all of them.
  RowMatrix all(l.rest.rows(), n_rest + n);
  all << l.rest, response;
  l.rest = std::move(all);
  const DataNormal normal(l, model.pixels().size(), pool);
  SourcePrior::Sparse prior(normal.source_gradient.size(), normal.source_gradient.size());
  Eigen::MatrixXd source = normal.source_gradient, rest = normal.rest_gradient;
  if (source.size() > 0) {
    prior = model.source_prior().precision(weights);
    source += prior * model.source_values();
  }
  rest.topRows(n_rest) += l.fixed_gradient;
  const std::unique_ptr<SourceBlock> block = normal.eliminate(prior);
  EINFIELD_REQUIRE(block->good(), "a map of perturbers: the source is not determined, expected a prior");
  block->forward(source, rest, pool);
  const Eigen::MatrixXd& schur = block->schur();
  PerturberMap map{std::move(places), schur.bottomRightCorner(n, n), -rest.bottomRows(n).col(0)};
  if (n_rest > 0) {
    Eigen::MatrixXd scalars = schur.topLeftCorner(n_rest, n_rest) + l.priors;
    // What neither data nor priors determine is held where it is.
    scalars.diagonal().array() += kUndetermined * scalars.diagonal().maxCoeff();
    const Eigen::LDLT<Eigen::MatrixXd> factor(scalars);
    const Eigen::MatrixXd mixed = schur.topRightCorner(n_rest, n);
    map.information -= mixed.transpose() * factor.solve(mixed);
    map.score += mixed.transpose() * factor.solve(rest.topRows(n_rest)).col(0);
  }
  // Where the data say nothing, rounding must not turn that into a mass.
  const double least = kUndetermined * map.information.diagonal().maxCoeff();
  for (Eigen::Index k = 0; k < n; ++k)
    if (!(map.information(k, k) > least)) {
      map.information.row(k).setZero();
      map.information.col(k).setZero();
      map.information(k, k) = least > 0 ? least : 1;
      map.score[k] = 0;
    }
  return map;
}

std::vector<double> highest_by_chance(const PerturberMap& map, int draws, std::uint64_t seed) {
  const Eigen::Index n = map.score.size();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(map.information);
  const Eigen::VectorXd root = map.information.diagonal().cwiseSqrt().cwiseInverse();
  const Eigen::MatrixXd factor =
      root.asDiagonal() * eigen.eigenvectors() * eigen.eigenvalues().cwiseMax(0).cwiseSqrt().asDiagonal();
  const Philox philox{seed};
  std::vector<double> highest;
  Eigen::VectorXd z(n);
  for (int draw = 0; draw < draws; ++draw) {
    for (Eigen::Index k = 0; k < n; ++k)
      z[k] = philox.normal(static_cast<std::uint64_t>(k), static_cast<std::uint64_t>(draw));
    highest.push_back(n > 0 ? std::max((factor * z).maxCoeff(), 0.0) : 0.0);
  }
  std::sort(highest.begin(), highest.end());
  return highest;
}

}  // namespace einfield
