// Error bars by linear propagation of the Gaussian approximation of the posterior at the end of a fit (Laplace; for
// networks MacKay 1992): maps of ψ, α and κ, and profile parameters marginalized over network and source pixels.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "host/fields/lens_fields.hpp"
#include "host/fit/information.hpp"
#include "host/fit/joint_posterior.hpp"
#include "host/fit/uncertainties.hpp"

namespace einfield {

/// 1 σ of the network's maps, at the pixel centers; NaN where nothing determines the map.
struct FieldErrors {
  LensFields sigma;               ///< of ψ minus its mean (below), of α and of κ
  std::vector<double> kappa_psf;  ///< of P ∗ κ, κ at the resolution of the data; empty without a PSF
};

/// What the linearization gives for the free profile parameters, in layout order and physical units.
struct MarginalErrors {
  std::vector<double> sigma;     ///< NaN when the parameter is not determined
  SymmetricMatrix correlations;  ///< 1 on the diagonal; NaN in rows and columns of undetermined parameters
  std::vector<Degeneracy> degeneracies;
};

/// The posterior of all free parameters x around the end of a fit is Gaussian with the covariance H⁻¹ of the
/// Gauss–Newton Hessian H of host/fit/joint_model.hpp (2), so a linear function c of x has the variance cᵀH⁻¹c. Pixels
/// of the source are eliminated exactly, (H⁻¹)_rr = S⁻¹ (host/fit/joint_posterior.hpp (3)); S is used by its
/// eigenvectors (host/fit/information.hpp), because a network without weight decay has directions of its weights that
/// change nothing.
///
/// ψ is known up to a constant. Its error is that of ψ − Σ ω_i ψ_i / Σ ω_i, the mean over the pixels with the weights
/// of weights_of_constant().
///
/// Penalties on negative convergences count with their curvature where they act. Bounds are ignored. Assumes
/// independent noise and that the model is linear within the errors.
class Laplace {
 public:
  /// @param problem     in the units of the data, with the weights of the penalties that the fit ended with
  /// @param parameters  flat vector of the problem's layout
  /// @throws InvalidInput for a problem that JointModel does not cover
  Laplace(const Problem& problem, const std::vector<double>& parameters, ThreadPool& pool);

  const MarginalErrors& scalars() const { return scalars_; }
  /// @param weights_of_constant  ω: (ny, nx)
  /// @pre  the model has a network
  FieldErrors fields(const std::vector<double>& weights_of_constant) const;

  /// Why a problem is not covered, "" when it is: "loss \"mse\"", "a NETWORK light" …
  static std::string uncovered(const Problem& problem);
  /// Upper limit of the bytes of an object and of fields().
  static std::size_t planned_bytes(const Problem& problem, int threads);

 private:
  void find_scalars(const JointModel& model, const std::vector<double>& values);

  const Observation& observation_;
  ThreadPool& pool_;
  double angle_ = 1;  ///< unit of angle [arcsec]
  std::optional<NetworkShape> shape_;
  std::vector<double> network_;       ///< its weights, in the units of the fit
  std::vector<std::size_t> weights_;  ///< those that move, as indices into `network_`
  std::optional<Information> information_;
  MarginalErrors scalars_;
};

}  // namespace einfield
