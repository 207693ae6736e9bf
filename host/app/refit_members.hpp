// Error bars of a fit by Adam, L-BFGS or Levenberg–Marquardt from fits of the same problem whose noise and, as far as
// the loss allows, whose priors are drawn again: the members are systems of one batch on the backend of the fit.
#pragma once

#include <functional>
#include <string>

#include "einfield/backend.hpp"
#include "einfield/load.hpp"
#include "host/results/error_bars.hpp"

namespace einfield {

/// Members with another draw of noise, of the Gaussian priors of profile parameters, of the prior of free source pixels
/// (as a fixed PIXELATED component: a penalty on s with s + t in the model is one on s − (−t), and −t has the
/// distribution of t), and with other initial weights of the networks. Penalties on the network have no such form.
/// With optimizer.loss = "mse" only the noise: it is no likelihood that a prior could be weighed against.
///
/// As many members at a time as the memory holds. Profile parameters start from the fit.
/// @param config, loaded, backend  of the fit; kept by reference. The backend is loaded anew
/// @param settings  of the fit
/// @param say       lines for the log
/// @throws InterruptedMembers from the result when `interrupted` returns true
template <class Real>
ErrorBarsOf refit_error_bars(const Config& config, const LoadedProblem& loaded, Backend<Real>& backend,
                             FitSettings settings, ThreadPool& pool, std::function<void(const std::string&)> say,
                             std::function<bool()> interrupted);

}  // namespace einfield
