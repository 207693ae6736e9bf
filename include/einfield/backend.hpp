// The seam between the fit and the hardware: named fields, the stages of a training step, and the step itself.
// A Backend holds one or more systems of one shape (same grid, network and free parameters). A system is one Problem
// with its fields; each system is fitted independently of the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "einfield/adam.hpp"
#include "einfield/network.hpp"
#include "einfield/problem.hpp"
#include "einfield/stage.hpp"

namespace EINFIELD_API einfield {

/// What can be copied in and out of one system. n = number of rays, N = number of pixels; "image unit" is the unit of
/// Observation::image, a surface brightness per pixel. Vectors per ray hold all x, then all y.
enum class Field {
  parameters,              ///< flat vector of ParameterLayout                                         [size()]
  gradient,                ///< ∂(loss + regularization)/∂parameters                                   [size()]
  first_moment,            ///< first moment of Adam                                                   [size()]
  second_moment,           ///< second moment of Adam                                                  [size()]
  best,                    ///< parameters of the best state of a stage                                [size()]
  position,                ///< where the line search of L-BFGS stands; its trial is `parameters`      [size()]
  previous_parameters,     ///< before the last update of Adam                                [size()]
  previous_first_moment,   ///< likewise                                                      [size()]
  previous_second_moment,  ///< likewise                                                      [size()]
  potential,               ///< ψ_nn of every ray, arcsec²                                             [n]
  deflection,              ///< α_nn of every ray, arcsec                                              [2 n]
  image,                   ///< rendered brightness before the PSF, image unit                         [N]
  model,                   ///< model image after the PSF, image unit                                  [N]
  model_bar,               ///< ∂loss/∂model                                                           [N]
  image_bar,               ///< ∂loss/∂image                                                           [N]
  deflection_bar           ///< ∂(loss + regularization)/∂α_nn of every ray; set by an evaluation with [2 n]
                           ///< gradient, unspecified after one without
};

/// @throws InvalidInput for a step or pairs that the stage cannot begin with
template <class Real>
EINFIELD_API void validate_start(const StageRun& run, const StageStart<Real>& start, std::size_t n_parameters);

/// @throws InvalidInput for settings out of range, an optimizer that does not run on a backend, a number of starts that
///         is not that of the systems, or pairs of another size
template <class Real>
EINFIELD_API void validate_stage(const StageRun& run, const std::vector<StageStart<Real>>& starts, int systems,
                                 std::size_t n_parameters);

template <class Real>
class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;    ///< "cpu" or "cuda"
  virtual std::string device() const = 0;  ///< model name, threads

  /// Loads one or more problems of one shape, which replace those loaded before; allocates everything that a step
  /// needs. The parameters are Problem::initial_parameters, the schedule is Schedule{} until begin().
  /// @throws InvalidInput
  virtual void load(const std::vector<Problem>& problems) = 0;
  virtual int systems() const = 0;                    ///< number of loaded problems
  virtual const ParameterLayout& layout() const = 0;  ///< that of all systems

  /// Loads another problem of the same shape in place of one; the other systems stay as they are. Its parameters are
  /// Problem::initial_parameters. A stage that runs leaves it alone until begin_stage(system).
  /// @throws InvalidInput for another shape or another grid;
  ///         on CUDA also for a term of Regularization that no problem of the last load() has: there is no memory for
  ///         it
  virtual void replace(int system, const Problem& problem) = 0;

  /// Copies a whole field of one system. If the PSF acts on sub-pixels, an image that is uploaded is constant within a
  /// pixel, and so is its cotangent. @throws InvalidInput when the size differs.
  virtual void upload(Field field, int system, const std::vector<Real>& values) = 0;
  virtual std::vector<Real> download(Field field, int system) const = 0;
  /// Copies a whole field of all systems, system after system.
  virtual void upload(Field field, const std::vector<Real>& values) = 0;
  virtual std::vector<Real> download(Field field) const = 0;
  /// Sets the count of Adam updates of all systems, for a run that is resumed; clears the rest of their StepState.
  virtual void set_updates(std::int64_t updates) = 0;
  /// A new schedule for all systems: moments and the count of updates start from zero.
  /// @throws InvalidInput as validate_schedule()
  virtual void begin(const Schedule& schedule) = 0;

  // The stages, in the order of a step; each reads and writes fields. For tests and for callers with their own loop.
  virtual void network() = 0;           ///< parameters → potential, deflection (zero without a network)
  virtual void render() = 0;            ///< parameters, deflection → image; evaluates the network of a NETWORK light
  virtual void convolve() = 0;          ///< image → model
  virtual void loss() = 0;              ///< model → state().loss, model_bar
  virtual void convolve_adjoint() = 0;  ///< model_bar → image_bar
  virtual void zero_gradient() = 0;
  virtual void render_adjoint() = 0;   ///< image_bar → deflection_bar; adds to gradient (all but the network)
  virtual void regularize() = 0;       ///< adds to deflection_bar, gradient and state().regularization
  virtual void network_adjoint() = 0;  ///< deflection_bar → adds to gradient (network)
  virtual void adam() = 0;             ///< gradient, moments → parameters

  /// All stages without the update. With `with_gradient` false only the values are of use: state().gradient_norm is 0,
  /// and the fields gradient and deflection_bar are unspecified.
  virtual void evaluate(bool with_gradient) = 0;
  /// All stages and the update. Asynchronous where the device allows it; state() waits.
  virtual void step() = 0;
  virtual StepState state(int system) const = 0;
  virtual std::vector<StepState> states() const = 0;  ///< of all systems, in one copy
  /// ψ, α and κ of the network of one system at any positions, with its parameters as they are; zero without a network.
  /// For the maps of a finished fit, whose pixel centers need not be rays. Waits.
  /// @param theta  2 × n, all x, then all y [arcsec]
  virtual NetworkFields<Real> network_fields(int system, const std::vector<Real>& theta) = 0;

  // A stage of a fit, which the backend runs by itself.

  /// Begins a stage at Field::parameters of every system. Moments and count of updates start from zero, or at
  /// StageStart::step, with moments that the caller uploads after this call.
  /// @param starts  one per system
  /// @throws InvalidInput for settings out of range; a stage of Levenberg–Marquardt does not run here
  virtual void begin_stage(const StageRun& run, const std::vector<StageStart<Real>>& starts) = 0;
  /// Begins the stage anew for one system, at its Field::parameters, with moments zero: for a problem that took the
  /// place of one that is done. @throws InvalidInput without a stage
  virtual void begin_stage(int system, const StageStart<Real>& start) = 0;
  /// Evaluates every system that is not done, `evaluations` times, and moves it after each. Asynchronous where the
  /// device allows it. The fields of images are unspecified until the next evaluate().
  virtual void advance(int evaluations) = 0;
  /// Evaluations between two looks: in between, the device decides alone, and the host knows nothing of its progress.
  /// 1 on the CPU, 16 on CUDA, where a look costs as much as an evaluation of a small network.
  virtual int evaluations_per_look() const = 0;
  /// A look: waits for advance() and reads how far the systems are. Systems that are done take no more time from here.
  /// @param records  per system: appended to, those since the last look. There is room for evaluations_per_look()
  virtual std::vector<StageProgress> look(std::vector<std::vector<StageRecord>>& records) = 0;
  /// The pairs of L-BFGS of all systems, [pairs][2][size()] each, oldest first: a move and the change of the gradient
  /// along it. Empty without a stage of L-BFGS.
  virtual std::vector<std::vector<Real>> pairs() const = 0;
};

/// Choice of backend and what it may use.
struct BackendOptions {
  int threads = 0;                 ///< CPU: 0 = as many as the process may use
  std::optional<int> device = {};  ///< CUDA device index; without one, the first usable device
};

/// What a name and options stand for on this machine.
struct BackendChoice {
  std::string name;        ///< "cpu" or "cuda"
  BackendOptions options;  ///< with the device of "cuda"
  std::string reason;      ///< why "auto" chose the CPU in a build with CUDA; else empty
};

/// Finds the backend and the device. Devices are tried in order up to the first usable one; only that one gets a
/// context.
/// @param name "cpu", "cuda" or "auto" (CUDA if a device is usable, else the CPU)
/// @throws InvalidInput for another name; NotBuilt, BackendUnavailable
BackendChoice resolve_backend(const std::string& name, const BackendOptions& options);

/// @param name as for resolve_backend()
/// @throws InvalidInput or NotBuilt or BackendUnavailable
template <class Real>
EINFIELD_API std::unique_ptr<Backend<Real>> make_backend(const std::string& name, const BackendOptions& options);

/// Bytes that a backend will allocate for these problems, shown and checked before the run.
/// @param pairs  largest number that a stage of L-BFGS keeps (Backend::pairs()), 0 without one; on the CPU they
///               count in the memory of the fit
template <class Real>
EINFIELD_API std::size_t planned_bytes(const std::string& backend_name, const std::vector<Problem>& problems,
                                       const BackendOptions& options, int pairs = 0);

/// CUDA devices of this machine, one line each (name, compute capability, memory); empty without CUDA. They are not
/// tried, and get no context: a device that is listed may be busy.
std::vector<std::string> cuda_devices();

/// Why a fit cannot use a CUDA device; empty if it can. This call creates a context on the device.
/// @throws NotBuilt
std::string cuda_device_problem(int device);

}  // namespace einfield
