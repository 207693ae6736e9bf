// Uncertainties of the parameters of the profiles, from the curvature of χ² and the priors at the optimum; which
// combinations of parameters the data leave free; and how far the optimum still is.
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "einfield/backend.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/fit/least_squares.hpp"
#include "host/fit/scalar_batch.hpp"

namespace einfield {

/// A direction in which the image does not change, in physical units: the first parameter changes by 1.
struct Degeneracy {
  struct Change {
    std::size_t parameter;  ///< free scalar, in layout order
    double amount;
  };
  std::vector<Change> changes;
  bool with_network = false;  ///< the image stays the same only when the network's weights change as well
};

/// Of the free scalars, in layout order and physical units.
struct Uncertainties {
  std::vector<double> sigma;     ///< 1 σ; NaN when the data do not determine the parameter
  SymmetricMatrix correlations;  ///< 1 on the diagonal; NaN in the rows and columns of undetermined parameters
  /// Every undetermined parameter is in at least one of them.
  std::vector<Degeneracy> degeneracies;
  /// The Gauss–Newton step to the minimum; 0 for undetermined parameters.
  std::vector<double> step;
  /// By how much that step lowers χ² plus the penalty of the priors. Parameters at an end of their range stay there.
  /// NaN without a finite curvature.
  double fall = std::numeric_limits<double>::quiet_NaN();
};

/// From the Gauss–Newton approximation of the curvature (network weights and source pixels held fixed):
///
///     C = F⁻¹,   F = Jᵀ σ⁻² J + Σ 1/σ_prior²,   J = ∂model/∂p over the pixels that are fitted                   (1)
///
/// F is scaled to a diagonal of one, D F D = V Λ Vᵀ. Directions with an eigenvalue below 1e-10, the rounding of F with
/// room, leave the image the same. A parameter that such a direction moves by more than its error from all other
/// directions is undetermined:
///
///     Σ_free v²/1e-10 > Σ_others v²/λ                                                                           (2)
///
/// The errors of all others come from the other directions. Assumes that the noise map is right and that noise is
/// independent from pixel to pixel; ignores bounds.
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
