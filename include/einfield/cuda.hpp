// For CUDA programs: the stages of a training step on the caller's stream and device pointers, several systems at once.
// The network (Biggio et al. 2021, section 3), ray-shooting and source, PSF, their adjoints, and Adam.
//
// The constructor of a stage copies models and kernels to the current device and allocates the workspace. After that a
// stage only enqueues: forward() and adjoint() are asynchronous on the given stream, allocate nothing, may be captured
// in a graph, and give the same bits for the same input. A stage serves one stream at a time. Adjoints overwrite
// per-ray and per-pixel fields and add to the gradient vector, which the caller zeroes.
//
// Arrays are dense, system after system; within a system (n rays, N = ny · nx pixels, row 0 at the bottom):
//   parameters, gradient, moments  flat vectors of ParameterLayout: [network | free scalars | free source pixels |
//                                  weights of a NETWORK component], system k at k · parameter_stride
//   positions, alpha_nn, alpha_bar [2][n]: all x, then all y [arcsec]; positions are common to all systems
//   potential                      [n] [arcsec²]
//   images                         [ny][nx], or with the strides of an ImageView
// Constructors throw InvalidInput, CudaError, CublasError, CufftError; enqueuing throws the last three.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/grid.hpp"
#include "einfield/model.hpp"
#include "einfield/network.hpp"
#include "einfield/observation.hpp"

namespace einfield::cuda {

/// Where a stage enqueues its work, and for which of its systems. A stream converts to the queue of all systems.
struct Queue {
  cudaStream_t stream = nullptr;
  const int* systems = nullptr;  ///< device memory, [n_systems]: each system at most once, −1 = none. It is read when
                                 ///< the work runs, so that a captured graph follows its changes. Null = all systems
  int n_systems = 0;             ///< entries of the list; images lie in their order, everything else by systems

  Queue(cudaStream_t all_systems_on) : stream(all_systems_on) {}
  Queue(cudaStream_t on, const int* list, int entries) : stream(on), systems(list), n_systems(entries) {}
};

/// Images of the systems of a queue in device memory, in the order of its list: pixel (iy, ix) of system k is data[k ·
/// system_stride + iy · row_stride + ix].
template <class Real>
struct ImageView {
  Real* data = nullptr;
  std::size_t row_stride = 0;
  std::size_t system_stride = 0;
};

/// View of dense images.
template <class Real>
ImageView<Real> dense_images(Real* data, int ny, int nx) {
  const auto row = static_cast<std::size_t>(nx);
  return {data, row, static_cast<std::size_t>(ny) * row};
}

/// The network of a NETWORK component at every ray, and the array for its cotangent.
template <class Real>
struct NetworkLight {
  const Real* value = nullptr;     ///< [systems][n]
  const Real* gradient = nullptr;  ///< [systems][2][n]: all x, then all y [1/arcsec]
  Real* value_bar = nullptr;       ///< [systems][n], written
};

/// What the plan of a network needs to know of a device.
struct EINFIELD_API DeviceLimits {
  int multiprocessors = 0;
  std::size_t shared_bytes_per_block = 0;  ///< the opt-in maximum
  int compute_capability = 0;              ///< 10 · major + minor

  /// Limits of the current device. @throws CudaError
  static DeviceLimits current();
};

/// Compute capability from which the matrix units multiply TF32.
inline constexpr int kTensorCapability = 80;

enum class NetworkPath {
  automatic,  ///< tiles where one fits the shared memory, else cuBLAS
  tiles,      ///< fused tile kernels, or InvalidInput
  cublas      ///< products over the whole batch by cuBLAS
};

/// How a network of a given shape will run. It is made before anything is allocated.
struct NetworkPlan {
  NetworkPath path = NetworkPath::automatic;  ///< tiles or cublas, never automatic
  int tile = 0;                               ///< points per tile; 0 for cuBLAS, like the next five members
  int tiles = 0;                              ///< tiles per system
  int blocks = 0;                             ///< blocks per system; each takes every blocks-th tile
  int threads = 0;                            ///< threads per block
  bool keeps_layer = false;                   ///< an array that is needed twice stays in shared memory
  std::size_t shared_bytes = 0;               ///< shared memory of a block
  std::size_t workspace_bytes = 0;            ///< device memory that the NetworkStage will hold
};

/// ψ_nn and α_nn = ∇ψ_nn of `n_systems` networks of one shape at `n_points` points each, and the adjoint; network.hpp
/// has the equations. The network of a NETWORK component is a NetworkStage too, at RenderStage::network_positions().
template <class Real>
class EINFIELD_API NetworkStage {
 public:
  /// @throws InvalidInput for a bad shape or count, when `path` is tiles and no tile fits, and for a `math` other than
  ///         fp32 in double precision, before compute capability 8.0, or for layers too wide for a tile
  static NetworkPlan make_plan(const NetworkShape& shape, int n_points, int n_systems, const DeviceLimits& limits,
                               NetworkPath path = NetworkPath::automatic, NetworkMath math = NetworkMath::fp32);

  /// The automatic plan for the current device. @throws InvalidInput as make_plan(), CudaError, CublasError
  NetworkStage(const NetworkShape& shape, int n_points, int n_systems, NetworkMath math = NetworkMath::fp32);
  /// The plan of make_plan(). @throws as make_plan(), CudaError, CublasError
  NetworkStage(const NetworkShape& shape, int n_points, int n_systems, const DeviceLimits& limits,
               NetworkPath path = NetworkPath::automatic, NetworkMath math = NetworkMath::fp32);
  ~NetworkStage();
  NetworkStage(NetworkStage&&) noexcept;
  NetworkStage& operator=(NetworkStage&&) noexcept;

  const NetworkPlan& plan() const;
  /// Device memory that the stage holds.
  std::size_t workspace_bytes() const;
  /// Writes the potential and the deflection of the network, and keeps what adjoint() needs.
  /// @param parameters        system k's flat vector begins at k · parameter_stride
  /// @param parameter_stride  at least shape.size(), unless there is one system
  /// @param positions         [2][n], or [systems][2][n] with `own_positions`
  /// @param potential         [systems][n]
  /// @param alpha_nn          [systems][2][n]
  /// @throws InvalidInput when the parameters of systems would overlap
  void forward(const Queue& queue, const Real* parameters, std::size_t parameter_stride, const Real* positions,
               Real* potential, Real* alpha_nn, bool own_positions = false);
  /// Adds the gradient of every weight and bias. Parameters and positions must still be those of the last forward().
  /// @param alpha_bar      cotangent of the deflection, [systems][2][n], or null for zero
  /// @param gradient       system k's flat vector begins at k · parameter_stride
  /// @param potential_bar  cotangent of the potential, [systems][n], or null for zero
  /// @throws InvalidInput as forward()
  void adjoint(const Queue& queue, const Real* parameters, std::size_t parameter_stride, const Real* positions,
               const Real* alpha_bar, Real* gradient, const Real* potential_bar = nullptr, bool own_positions = false);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Ray-shooting and brightness: β = θ − α_lens(θ) − α_nn(θ), I = Σ S(β) + Σ L(θ), averaged over the rays of a pixel, or
/// of a sub-pixel for a PSF that acts on f × f of them (Psf::supersampling): images are then [ny f][nx f].
template <class Real>
class EINFIELD_API RenderStage {
 public:
  /// @param models  one per system: the same components and free parameters, values of their own
  /// @param stream  used for the copies of the constructor, which waits for it
  /// @param psf_supersampling  f, a divisor of grid.supersampling
  RenderStage(const Grid& grid, const std::vector<Model>& models, std::size_t parameter_stride, cudaStream_t stream,
              int psf_supersampling = 1);
  ~RenderStage();
  RenderStage(RenderStage&&) noexcept;
  RenderStage& operator=(RenderStage&&) noexcept;

  static std::size_t planned_bytes(const Grid& grid, const std::vector<Model>& models);
  /// Puts another model in the place of one: the same components and free parameters. The other systems stay as they
  /// are, and so do captured graphs. Waits for the stream. @throws InvalidInput for another shape
  void replace(cudaStream_t stream, std::size_t system, const Model& model);
  /// θ of every ray, [2][n], device memory.
  const Real* positions() const;
  /// Writes the points at which the network of the NETWORK component is evaluated: β (or θ) relative to the component's
  /// center [arcsec].
  /// @param positions  [systems][2][n], written
  /// @throws InvalidInput when the models have no NETWORK component
  void network_positions(const Queue& queue, const Real* parameters, const Real* alpha_nn, Real* positions);
  /// @param alpha_nn  deflection of the network, [systems][2][n], or null for none
  /// @param image     written
  /// @param light     needed with a NETWORK component, and only then
  void forward(const Queue& queue, const Real* parameters, const Real* alpha_nn, ImageView<Real> image,
               const NetworkLight<Real>& light = {});
  /// @param alpha_bar  ∂/∂α_nn, [systems][2][n], overwritten
  /// @param gradient   of the free scalars and source pixels, added to
  /// @param light      as in forward(); the gradient of its network's weights is NetworkStage::adjoint()'s, with
  ///                   `value_bar` as potential_bar
  void adjoint(const Queue& queue, const Real* parameters, const Real* alpha_nn, ImageView<Real> image_bar,
               Real* alpha_bar, Real* gradient, const NetworkLight<Real>& light = {});

 private:
  friend class SceneAccess;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

enum class ConvolutionMethod {
  automatic,  ///< direct for small kernels, else FFT
  direct,
  fft
};

/// m = P ∗ I, zero outside the image, and its transpose (correlation with P). A PSF with f × f samples a pixel
/// (Psf::supersampling) acts on sub-pixels: I is [ny f][nx f], and m the mean of P ∗ I over the sub-pixels of each
/// pixel.
template <class Real>
class EINFIELD_API ConvolutionStage {
 public:
  /// @param psfs    one per system, all of one odd size (ny, nx) and supersampling; or all empty: m = I
  /// @param stream  used for the copies of the constructor, which waits for it
  ConvolutionStage(int ny, int nx, const std::vector<Psf>& psfs, cudaStream_t stream,
                   ConvolutionMethod method = ConvolutionMethod::automatic);
  ~ConvolutionStage();
  ConvolutionStage(ConvolutionStage&&) noexcept;
  ConvolutionStage& operator=(ConvolutionStage&&) noexcept;

  static std::size_t planned_bytes(int ny, int nx, const std::vector<Psf>& psfs,
                                   ConvolutionMethod method = ConvolutionMethod::automatic);
  /// Makes the transforms of a queue with a list of so many systems; needed once, outside a capture, for an FFT.
  /// @throws InvalidInput, CudaError, CufftError
  void prepare(cudaStream_t stream, int n_systems);
  /// Puts another kernel of the same size in the place of one; waits for the stream. @throws InvalidInput
  void replace(cudaStream_t stream, std::size_t system, const Psf& psf);
  /// Dense images of the caller; copied to and from the stage's own.
  void forward(const Queue& queue, const Real* image, Real* model);
  void adjoint(const Queue& queue, const Real* model_bar, Real* image_bar);

  /// The stage's own images, zero-padded where an FFT needs it: writing image() and reading model() saves the copies.
  ImageView<Real> image() const;
  ImageView<Real> model() const;
  ImageView<Real> model_bar() const;
  ImageView<Real> image_bar() const;
  void forward(const Queue& queue);  ///< image() → model()
  void adjoint(const Queue& queue);  ///< model_bar() → image_bar()

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Learning rates of every update in device memory. Update t (1-based) of system k uses
/// values[k · count + min(t, count) − 1].
struct LearningRates {
  const double* values = nullptr;
  int count = 0;
};

/// Adam on flat vectors; step counters and learning rates live on the device. A non-finite gradient, or a non-finite
/// loss in states(), freezes a system: its parameters stay, and StepState::bad_step holds the step at which that
/// happened.
template <class Real>
class EINFIELD_API AdamStage {
 public:
  /// @param learning_rates  [systems][updates], every row of one length ≥ 1; later updates use the last
  /// @param stream          used for the copies of the constructor, which waits for it
  AdamStage(std::size_t n_parameters, std::size_t parameter_stride,
            const std::vector<std::vector<double>>& learning_rates, cudaStream_t stream);
  ~AdamStage();
  AdamStage(AdamStage&&) noexcept;
  AdamStage& operator=(AdamStage&&) noexcept;

  static std::size_t planned_bytes(std::size_t n_parameters, std::size_t n_systems, std::size_t n_learning_rates);
  StepState* states() const;  ///< device memory, [systems]
  LearningRates learning_rates() const;
  /// Zeroes the gradient of what Schedule::trainable leaves out and writes StepState::gradient_norm.
  void gradient_norm(const Queue& queue, Real* gradient);
  /// gradient_norm(), then one update of every system that is not frozen. Moments start at zero.
  void apply(const Queue& queue, Real* gradient, Real* parameters, Real* first_moment, Real* second_moment);
  /// Begins another schedule, the same for all systems, at update 0. The caller zeroes the moments. Waits for the
  /// stream. A graph that holds apply() or learning_rates() must be captured again.
  void begin(cudaStream_t stream, const Schedule& schedule);
  /// Resets the state of every system and continues to count from `updates`; waits for the stream.
  void set_updates(cudaStream_t stream, std::int64_t updates);

 private:
  friend class AdamAccess;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

extern template class NetworkStage<float>;
extern template class NetworkStage<double>;
extern template class RenderStage<float>;
extern template class RenderStage<double>;
extern template class ConvolutionStage<float>;
extern template class ConvolutionStage<double>;
extern template class AdamStage<float>;
extern template class AdamStage<double>;

}  // namespace einfield::cuda
