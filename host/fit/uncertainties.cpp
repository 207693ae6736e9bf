// The Fisher matrix from the Jacobian of ScalarModel, and its eigenvectors.
#include "host/fit/uncertainties.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "einfield/units.hpp"
#include "host/fit/information.hpp"
#include "host/fit/make_scalar_batch.hpp"

namespace einfield {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
/// A parameter p counts as undetermined when its error exceeds this times max(1, |p|), in units_of() its problem.
constexpr double kUndetermined = 1e3;
/// Components of a free direction below this, relative to the largest one, are rounding.
constexpr double kNoChange = 1e-6;
/// Share of a range at its ends where a parameter counts as being at the end.
constexpr double kAtEnd = 1e-2;

/// A Fisher matrix scaled to a diagonal of one, in its eigenvectors.
struct Spectrum {
  std::vector<double> scale;  ///< D
  SymmetricEigen eigen;

  explicit Spectrum(SymmetricMatrix fisher) {
    for (std::size_t i = 0; i < fisher.n; ++i) scale.push_back(1 / std::sqrt(fisher(i, i)));
    for (std::size_t i = 0; i < fisher.n; ++i)
      for (std::size_t j = 0; j < fisher.n; ++j) fisher(i, j) *= scale[i] * scale[j];
    eigen = symmetric_eigen(fisher);
  }
  std::size_t size() const { return scale.size(); }
  bool is_free(std::size_t k) const { return eigen.values[k] < kFreeDirection; }
  /// Component i of direction k, scaled.
  double at(std::size_t k, std::size_t i) const { return eigen.vectors(k, i); }
  /// Covariance from all directions that are not free.
  double covariance(std::size_t i, std::size_t j) const {
    double sum = 0;
    for (std::size_t k = 0; k < size(); ++k)
      if (!is_free(k)) sum += at(k, i) * at(k, j) / eigen.values[k];
    return sum * scale[i] * scale[j];
  }
  /// Whether free directions move parameter i, by (2).
  bool moved(std::size_t i) const {
    double free = 0, others = 0;
    for (std::size_t k = 0; k < size(); ++k)
      (is_free(k) ? free : others) += at(k, i) * at(k, i) / (is_free(k) ? kFreeDirection : eigen.values[k]);
    return free > others;
  }
  /// −F⁻¹ g without the free directions; the fall of the quadratic form is −gᵀ step.
  std::vector<double> step(const std::vector<double>& gradient) const {
    std::vector<double> step(size(), 0.0);
    for (std::size_t k = 0; k < size(); ++k) {
      if (is_free(k)) continue;
      double along = 0;
      for (std::size_t i = 0; i < size(); ++i) along += at(k, i) * scale[i] * gradient[i];
      for (std::size_t i = 0; i < size(); ++i) step[i] -= at(k, i) * scale[i] * along / eigen.values[k];
    }
    return step;
  }
};

/// The free directions as combinations with as few parameters as possible.
/// @param names  free scalar of every row of the matrix
std::vector<Degeneracy> degeneracies_of(const Spectrum& spectrum, const std::vector<std::size_t>& names) {
  std::vector<std::vector<double>> rows;
  for (std::size_t k = 0; k < spectrum.size(); ++k) {
    if (!spectrum.is_free(k)) continue;
    std::vector<double>& row = rows.emplace_back();
    for (std::size_t i = 0; i < spectrum.size(); ++i) row.push_back(spectrum.moved(i) ? spectrum.at(k, i) : 0);
  }
  const std::vector<std::size_t> pivots = reduce_rows(rows, spectrum.size(), kNoChange);
  std::vector<Degeneracy> result;
  for (std::size_t r = 0; r < pivots.size(); ++r) {
    const double unit = spectrum.scale[pivots[r]];
    Degeneracy& degeneracy = result.emplace_back();
    degeneracy.changes.push_back({names[pivots[r]], 1});
    for (std::size_t i = 0; i < spectrum.size(); ++i)
      if (i != pivots[r] && std::abs(rows[r][i]) > kNoChange)
        degeneracy.changes.push_back({names[i], rows[r][i] * spectrum.scale[i] / unit});
  }
  return result;
}

/// Whether a free scalar lies at an end of its range, within its error at fixed other parameters.
bool at_end(const FreeParameter<double>& free, double value, double sigma) {
  switch (free.kind) {
    case TransformKind::exponential:
      return value - free.lower < sigma;
    case TransformKind::logistic:
      return std::min(value - free.lower, free.upper - value) < std::max(sigma, kAtEnd * (free.upper - free.lower));
    case TransformKind::disk:
    case TransformKind::identity:
      break;
  }
  return false;
}

std::vector<double> part(const std::vector<double>& values, const std::vector<std::size_t>& indices) {
  std::vector<double> result;
  for (const std::size_t i : indices) result.push_back(values[i]);
  return result;
}

/// The uncertainties of a problem, computed in its own units. @param compute  from problem and parameters in these
template <class Compute>
Uncertainties in_own_units(const Problem& problem, const std::vector<double>& parameters, Compute&& compute) {
  const Units units = units_of(problem);
  const ParameterLayout layout(problem.model);
  Uncertainties result =
      compute(in_units(problem, units), parameters_in_units(problem.model, layout, parameters, units));
  const std::vector<double> sizes = sizes_of_scalars(problem.model, layout, units);
  for (std::size_t i = 0; i < sizes.size(); ++i) result.sigma[i] *= sizes[i];
  for (std::size_t i = 0; i < result.step.size(); ++i) result.step[i] *= sizes[i];
  for (Degeneracy& degeneracy : result.degeneracies) {
    const double unit = sizes[degeneracy.changes.front().parameter];
    for (auto& change : degeneracy.changes) change.amount *= sizes[change.parameter] / unit;
  }
  return result;
}

}  // namespace

Uncertainties scalar_uncertainties(ScalarBatch& batch) {
  const ScalarModel& model = batch.model(0);
  ScalarRequest request;
  request.u = model.initial_scalars();
  request.solve = false;
  const ScalarAnswer answer = std::move(batch.evaluate({request}).front());
  const std::size_t n = model.layout().n_free();
  Uncertainties result{std::vector<double>(n, kNone), SymmetricMatrix(n), {}, std::vector<double>(n, 0.0)};
  std::fill(result.correlations.values.begin(), result.correlations.values.end(), kNone);
  if (!answer.curvature) return result;
  SymmetricMatrix fisher = answer.curvature->normal;
  std::vector<double> gradient = answer.curvature->gradient;
  for (double& f : fisher.values) f *= model.n_fitted();
  for (double& g : gradient) g *= model.n_fitted();

  const std::vector<double> values = model.layout().physical(answer.point.u.data());
  const auto scalar = [&model](std::size_t k) { return static_cast<std::size_t>(model.moving()[k]); };
  // Of the rows of the matrix: those that change the image, and of these the ones inside their range.
  std::vector<std::size_t> kept, inside, names;
  for (std::size_t k = 0; k < n; ++k) {
    const double largest = kUndetermined * std::max(1.0, std::abs(values[scalar(k)]));
    if (!std::isfinite(fisher(k, k)) || !(fisher(k, k) * largest * largest > 1)) {
      result.degeneracies.push_back({{{scalar(k), 1}}, false});
      continue;
    }
    kept.push_back(k);
    names.push_back(scalar(k));
    if (!at_end(model.layout().free[scalar(k)], values[scalar(k)], 1 / std::sqrt(fisher(k, k)))) inside.push_back(k);
  }
  const Spectrum spectrum(fisher.part(kept));
  std::vector<bool> known;
  for (std::size_t i = 0; i < kept.size(); ++i) known.push_back(!spectrum.moved(i));
  for (Degeneracy& degeneracy : degeneracies_of(spectrum, names)) result.degeneracies.push_back(std::move(degeneracy));
  const std::vector<double> step = spectrum.step(part(gradient, kept));
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (!known[i]) continue;
    const std::size_t a = names[i];
    const double variance = spectrum.covariance(i, i);
    result.sigma[a] = std::sqrt(variance);
    result.step[a] = step[i];
    for (std::size_t j = 0; j <= i; ++j)
      if (known[j])
        result.correlations(a, names[j]) = result.correlations(names[j], a) =
            i == j ? 1 : spectrum.covariance(i, j) / std::sqrt(variance * spectrum.covariance(j, j));
  }
  const std::vector<double> slope = part(gradient, inside);
  const std::vector<double> way = Spectrum(fisher.part(inside)).step(slope);
  result.fall = 0;
  for (std::size_t i = 0; i < way.size(); ++i) result.fall -= slope[i] * way[i];
  return result;
}

Uncertainties scalar_uncertainties(const Problem& problem, const std::vector<double>& parameters, ThreadPool& pool) {
  return in_own_units(problem, parameters, [&pool](const Problem& own, const std::vector<double>& at) {
    std::vector<ScalarModel> models;
    models.emplace_back(own, at, LossKind::chi2, std::vector<std::uint8_t>{}, pool);
    CpuScalarBatch batch(std::move(models), 1, pool);
    return scalar_uncertainties(batch);
  });
}

template <class Real>
Uncertainties scalar_uncertainties(const Backend<Real>& backend, const Problem& problem,
                                   const std::vector<double>& parameters, ThreadPool& pool) {
  return in_own_units(problem, parameters, [&](const Problem& own, const std::vector<double>& at) {
    std::vector<ScalarModel> models;
    models.emplace_back(own, at, LossKind::chi2, std::vector<std::uint8_t>{},
                        has_device_batch(backend, own.observation) ? nullptr : &pool);
    return scalar_uncertainties(*make_scalar_batch(backend, std::move(models), 1, pool));
  });
}

template Uncertainties scalar_uncertainties(const Backend<float>&, const Problem&, const std::vector<double>&,
                                            ThreadPool&);
template Uncertainties scalar_uncertainties(const Backend<double>&, const Problem&, const std::vector<double>&,
                                            ThreadPool&);

}  // namespace einfield
