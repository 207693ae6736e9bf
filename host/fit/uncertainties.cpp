// The Fisher matrix from the Jacobian of ScalarModel, and its inverse.
#include "host/fit/uncertainties.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "einfield/units.hpp"
#include "host/fit/make_scalar_batch.hpp"

namespace einfield {
namespace {

/// A parameter p counts as undetermined when its error at fixed other parameters exceeds this times max(1, |p|), in
/// units_of() its problem.
constexpr double kUndetermined = 1e3;

/// The uncertainties of a problem, computed in its own units. @param compute  from problem and parameters in these
template <class Compute>
Uncertainties in_own_units(const Problem& problem, const std::vector<double>& parameters, Compute&& compute) {
  const Units units = units_of(problem);
  const ParameterLayout layout(problem.model);
  Uncertainties result =
      compute(in_units(problem, units), parameters_in_units(problem.model, layout, parameters, units));
  const std::vector<double> sizes = sizes_of_scalars(problem.model, layout, units);
  for (std::size_t i = 0; i < sizes.size(); ++i) result.sigma[i] *= sizes[i];
  return result;
}

}  // namespace

Uncertainties scalar_uncertainties(ScalarBatch& batch) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const ScalarModel& model = batch.model(0);
  ScalarRequest request;
  request.u = model.initial_scalars();
  request.solve = false;
  const ScalarAnswer answer = std::move(batch.evaluate({request}).front());
  const std::size_t n = model.layout().n_free();
  Uncertainties result{std::vector<double>(n, kNone), SymmetricMatrix(n)};
  std::fill(result.correlations.values.begin(), result.correlations.values.end(), kNone);
  if (!answer.curvature) return result;
  SymmetricMatrix fisher = answer.curvature->normal;
  for (double& f : fisher.values) f *= model.n_fitted();

  const std::vector<double> values = model.layout().physical(answer.point.u.data());
  std::vector<std::size_t> kept;
  for (std::size_t k = 0; k < n; ++k) {
    const double scale = std::max(1.0, std::abs(values[static_cast<std::size_t>(model.moving()[k])]));
    if (fisher(k, k) * kUndetermined * kUndetermined * scale * scale > 1) kept.push_back(k);
  }
  for (;;) {
    const Cholesky cholesky(fisher.part(kept));
    if (!cholesky.good()) {
      kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(cholesky.failed()));
      continue;
    }
    const SymmetricMatrix covariance = cholesky.inverse();
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const auto a = static_cast<std::size_t>(model.moving()[kept[i]]);
      result.sigma[a] = std::sqrt(covariance(i, i));
      for (std::size_t j = 0; j < kept.size(); ++j)
        result.correlations(a, static_cast<std::size_t>(model.moving()[kept[j]])) =
            i == j ? 1 : covariance(i, j) / std::sqrt(covariance(i, i) * covariance(j, j));
    }
    return result;
  }
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
                        has_device_batch(backend) ? nullptr : &pool);
    return scalar_uncertainties(*make_scalar_batch(backend, std::move(models), 1, pool));
  });
}

template Uncertainties scalar_uncertainties(const Backend<float>&, const Problem&, const std::vector<double>&,
                                            ThreadPool&);
template Uncertainties scalar_uncertainties(const Backend<double>&, const Problem&, const std::vector<double>&,
                                            ThreadPool&);

}  // namespace einfield
