// The units of a fit. Optimizers, step lengths, penalties and single precision know no arcsec and no image unit: they
// work best with numbers near one. A problem is therefore fitted in units of its field of view and noise, and its
// results are changed back. So the same lens gives the same fit in any unit of angle and of brightness.
//
//     const Units units = units_of(problem);
//     const Problem own = in_units(problem, units);
//     backend->load({own});
//     const auto results = in_data_units(fit(*backend, {own}, settings, callbacks), problem, units);
//     const auto image = model_image(*backend, 0, units);
//
// fit() itself knows no units: callbacks and snapshots have those of the problem that the backend has loaded.
#pragma once

#include <vector>

#include "einfield/backend.hpp"
#include "einfield/fitter.hpp"
#include "einfield/problem.hpp"

namespace EINFIELD_API einfield {

/// What counts as one during a fit.
struct Units {
  double angle = 1;       ///< [arcsec]
  double brightness = 1;  ///< [image unit]
};

/// Unit of angle of an image: an eighth of its larger side [arcsec]. It is 1 for a field of 8″, that of Biggio et al.
/// (2021), for which the default settings were chosen.
double field_unit(const Grid& grid);

/// The noise of an image whose used pixels all have the mean weight, (mean 1/σ²)^(−1/2) [image unit].
double noise_unit(const Observation& observation);

/// The units of a problem: field_unit(), and 64 times noise_unit(), about the peak of a lensed source: source pixels
/// near one are as stiff as the logarithm of an amplitude, which L-BFGS needs. For the σ = 2 of the images for which
/// the default settings were chosen it is a power of two, which changes no bit. Both are 1 with LossKind::mse, whose
/// value has the unit of the image: the recipe of Biggio et al. (2021) is computed in arcsec.
/// @pre  the observation is valid
Units units_of(const Problem& problem);

/// The penalties of a Problem, from those of a configuration: with LossKind::chi2 the latter divide differences of
/// source pixels by noise_unit().
Regularization in_image_unit(Regularization relative, const Observation& observation, LossKind loss);
/// The inverse.
Regularization relative_to_noise(Regularization weights, const Observation& observation, LossKind loss);

/// The same problem in other units: grids, data, values, bounds, priors, start parameters, penalties on source pixels.
/// With ψ′ = ψ/A², θ′ = θ/A for the unit of angle A, the network's input_scale is multiplied by A, and kernel and bias
/// of its last layer are divided by A². Its loss with LossKind::chi2 is that of `problem`.
Problem in_units(const Problem& problem, const Units& units);
std::vector<Problem> in_units(std::vector<Problem> problems, const Units& units);

/// Sizes of the units of the free scalars, in layout order: a physical value is divided by its own.
std::vector<double> sizes_of_scalars(const Model& model, const ParameterLayout& layout, const Units& units);

/// A flat parameter vector of in_units(problem, units), from that of `problem`.
/// @param model, layout  of `problem`
template <class Real>
EINFIELD_API std::vector<Real> parameters_in_units(const Model& model, const ParameterLayout& layout,
                                                   const std::vector<Real>& parameters, const Units& units);
/// The inverse.
template <class Real>
EINFIELD_API std::vector<Real> parameters_in_data_units(const Model& model, const ParameterLayout& layout,
                                                        const std::vector<Real>& parameters, const Units& units);

/// Results in the units of `problem`, from those of in_units(problem, units): parameters, history, starts and evidence.
/// Of the snapshot nothing else is kept: a fit is resumed from the snapshot before. Losses, gradient norms and steps
/// stay.
template <class Real>
EINFIELD_API std::vector<FitResult<Real>> in_data_units(std::vector<FitResult<Real>> results, const Problem& problem,
                                                        const Units& units);

/// Field::model of a system whose problem is in `units` [image unit].
template <class Real>
EINFIELD_API std::vector<Real> model_image(const Backend<Real>& backend, int system, const Units& units);

/// Backend::network_fields() of a system whose problem is in `units`.
/// @param theta  2 × n, all x, then all y [arcsec]
/// @return       ψ [arcsec²], α [arcsec], κ
template <class Real>
EINFIELD_API NetworkFields<Real> network_fields(Backend<Real>& backend, int system, const std::vector<Real>& theta,
                                                const Units& units);

}  // namespace einfield
