// Uncertainties of the parameters of the profiles, from the curvature of χ² and the priors at the optimum.
#pragma once

#include <functional>
#include <vector>

#include "einfield/backend.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fit/least_squares.hpp"
#include "host/fit/scalar_batch.hpp"

namespace einfield {

/// Of the free scalars, in layout order and physical units.
struct Uncertainties {
  std::vector<double> sigma;     ///< 1 σ; NaN when the data do not determine the parameter, which is then held fixed
  SymmetricMatrix correlations;  ///< 1 on the diagonal; NaN in the rows and columns of undetermined parameters
};

/// From the Gauss–Newton approximation of the curvature (network weights and source pixels held fixed):
///
///     C = (Jᵀ σ⁻² J + Σ 1/σ_prior²)⁻¹,   J = ∂model/∂p over the pixels that are fitted                           (1)
///
/// Assumes that the noise map is right and that noise is independent from pixel to pixel; ignores bounds.
/// @param parameters  flat vector of the problem's layout
Uncertainties scalar_uncertainties(const Problem& problem, const std::vector<double>& parameters, ThreadPool& pool);
/// The same with the Jacobian of a backend: on the CPU, or on its device.
template <class Real>
Uncertainties scalar_uncertainties(const Backend<Real>& backend, const Problem& problem,
                                   const std::vector<double>& parameters, ThreadPool& pool);
/// The same by a batch whose only model has LossKind::chi2 and lets every free scalar move.
Uncertainties scalar_uncertainties(ScalarBatch& batch);

/// The uncertainties of a problem at these parameters, for callers that leave open where they are computed.
using UncertaintiesOf = std::function<Uncertainties(const Problem&, const std::vector<double>&)>;

}  // namespace einfield
