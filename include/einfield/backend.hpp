// The seam between the fit and the hardware: named fields, the stages of a training step, and the step itself.
// One Backend holds one or more lenses of one shape (same grid, network and free parameters); each is a problem of its
// own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "einfield/problem.hpp"

namespace EINFIELD_API einfield {

/// What the updates that follow may move, and how far.
struct Schedule {
  std::vector<double> learning_rates;   ///< of Adam, one per update; a later update uses the last
  double clip_norm = 0;                 ///< a gradient longer than this is shortened to it before an update; 0 = never
  std::vector<std::uint8_t> trainable;  ///< per parameter, 1 = moves; the gradient of the others is zero. Empty = all
};

/// @throws InvalidInput
void validate_schedule(const Schedule& schedule, std::size_t n_parameters);

/// What belongs to a lens and can be copied in and out. Sizes are per lens; n = rays, N = pixels.
enum class Field {
  parameters,     ///< flat vector of ParameterLayout                                    [size()]
  gradient,       ///< ∂(loss + regularisation)/∂parameters                              [size()]
  first_moment,   ///< Adam                                                              [size()]
  second_moment,  ///< Adam                                                              [size()]
  potential,      ///< ψ_nn of every ray, arcsec²                                        [n]
  deflection,     ///< α_nn of every ray, arcsec: all x, then all y                      [2 n]
  image,          ///< rendered brightness, before the PSF                               [N]
  model,          ///< after the PSF                                                     [N]
  model_bar,      ///< ∂loss/∂model                                                      [N]
  image_bar,      ///< ∂loss/∂image                                                      [N]
  deflection_bar  ///< ∂(loss + regularisation)/∂α_nn of every ray: all x, then all y    [2 n]
};

/// Scalars of the last evaluation of one lens. Taken at the parameters *before* the update of the step.
struct StepState {
  double loss = 0;          ///< as LossKind says, without regularisation
  double chi2_reduced = 0;  ///< mean over used pixels of ((model − data)/noise)²
  double held_out_chi2 =
      0;  ///< the same over the pixels that are held out, which the other two leave out; 0 without any
  double regularization = 0;  ///< sum of the weighted terms, the priors among them
  double gradient_norm = 0;   ///< Euclidean norm of the gradient; 0 when none was computed
  double learning_rate = 0;   ///< of the update that follows the evaluation
  std::int64_t updates = 0;   ///< Adam updates done so far
  /// The first update that was refused because of a non-finite number (1-based), or 0. From then on every step leaves
  /// the parameters as they are: they are the last good state.
  std::int64_t bad_step = 0;
  bool bad_loss = false;  ///< what was not finite in it: the loss, or else the gradient
};

template <class Real>
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;    ///< "cpu" or "cuda"
  virtual std::string device() const = 0;  ///< model name, threads

  /// Takes one or more problems of one shape; allocates everything that a step needs. @throws InvalidInput
  virtual void load(const std::vector<Problem>& problems) = 0;
  virtual int lenses() const = 0;
  virtual const ParameterLayout& layout() const = 0;

  /// Copies a whole field of one lens. @throws InvalidInput when the size differs.
  virtual void upload(Field field, int lens, const std::vector<Real>& values) = 0;
  virtual std::vector<Real> download(Field field, int lens) = 0;
  virtual void set_updates(std::int64_t updates) = 0;  ///< when a run is resumed
  /// A new schedule for all lenses: moments and the count of updates start from zero.
  /// @throws InvalidInput for an empty list of rates or sizes that do not fit
  virtual void begin(const Schedule& schedule) = 0;

  // The stages, in the order of a step; each reads and writes fields. For tests and for callers with their own loop.
  virtual void network() = 0;           ///< parameters → potential, deflection (zero without a network)
  virtual void render() = 0;            ///< parameters, deflection → image, by way of the network of a NETWORK light
  virtual void convolve() = 0;          ///< image → model
  virtual void loss() = 0;              ///< model → state().loss, model_bar
  virtual void convolve_adjoint() = 0;  ///< model_bar → image_bar
  virtual void zero_gradient() = 0;
  virtual void render_adjoint() = 0;   ///< image_bar → deflection_bar, adds to gradient (all but the network)
  virtual void regularize() = 0;       ///< adds to deflection_bar, gradient and state().regularization
  virtual void network_adjoint() = 0;  ///< deflection_bar → adds to gradient (network)
  virtual void adam() = 0;             ///< gradient, moments → parameters

  /// All stages with gradient, without the update; `with_gradient` false: value only.
  virtual void evaluate(bool with_gradient) = 0;
  /// All stages and the update. Asynchronous where the device allows: state() waits.
  virtual void step() = 0;
  virtual StepState state(int lens) = 0;
};

/// Choice of backend and what it may use.
struct BackendOptions {
  int threads = 0;  ///< CPU: 0 = as many as the process may use
  int device = 0;   ///< CUDA device index
};

/// @param name "cpu", "cuda" or "auto" (CUDA when a device is usable, else the CPU)
/// @throws NotBuilt, BackendUnavailable
template <class Real>
EINFIELD_API std::unique_ptr<Backend<Real>> make_backend(const std::string& name, const BackendOptions& options);

/// Bytes that a backend will allocate for these problems, for the message before the run.
template <class Real>
EINFIELD_API std::size_t planned_bytes(const std::string& backend_name, const std::vector<Problem>& problems,
                                       const BackendOptions& options);

/// CUDA devices that could be used, one line each (name, compute capability, memory); empty without CUDA.
std::vector<std::string> cuda_devices();

}  // namespace einfield
