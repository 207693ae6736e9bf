// For CUDA programs: the stages of a training step on the caller's stream and device memory, several systems at once.
// Network (Biggio et al. 2021, section 3), rays and source, PSF, likelihood, their adjoints, regularization, Adam.
// examples/link_from_cuda is a whole step as one CUDA graph.
//
// The contract of every stage:
//   construction   copies models and data to the current device. workspace_bytes() says before how much device memory a
//                  stage takes. It allocates that, or uses the Workspace that its constructor is given. Handles and
//                  plans of cuBLAS and cuFFT have some memory besides. A constructor with a stream waits for it.
//   enqueuing      forward(), adjoint(), evaluate() and apply() only enqueue work on the stream of the Queue: they
//                  return at once, allocate nothing, wait for nothing, and may be captured in a graph. A captured graph
//                  stays valid for as long as the stage and the caller's arrays stay where they are.
//                  Run a step once before it is captured: kernels are loaded when they are first used.
//   replacing      replace(), begin() and set_updates() change what a stage holds, and wait for their stream.
//   results        the same input gives the same bits. Adjoints overwrite fields of rays and pixels, and add to the
//                  gradient vector, which the caller zeroes.
//   streams        a stage serves one stream at a time: all its calls share one workspace. Different stages are
//                  independent.
//   device         a stage belongs to the device that was current at its construction. The same device must be current
//                  in every later call.
//   arguments      a View is a device pointer with its number of elements. Wrong sizes, another current device and
//                  absent arrays are errors; what lies behind a pointer is not checked.
//   errors         InvalidInput (arguments), CudaError, CublasError, CufftError; nothing is enqueued after the throw. A
//                  fault of a kernel shows in a later call, as always in CUDA.
//
// Arrays are dense, system after system; within a system (n rays, N = ny · nx pixels, row 0 at the bottom):
//   parameters, gradient, moments  flat vectors of ParameterLayout: [network | free scalars | free source pixels |
//                                  weights of a NETWORK component], system k at k · parameter_stride. A view may end
//                                  with the vector of the last system, and may begin within the first one
//   positions, alpha_nn, alpha_bar [2][n]: all x, then all y [arcsec]; positions are common to all systems
//   potential                      [n] [arcsec²]
//   images                         [ny][nx], or with the strides of an ImageView [image unit]
// A cotangent, named …_bar, is the derivative of loss + regularization with respect to what it is named after.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/grid.hpp"
#include "einfield/model.hpp"
#include "einfield/network.hpp"
#include "einfield/observation.hpp"
#include "einfield/problem.hpp"

namespace einfield::cuda {

/// Where a stage enqueues its work, and for which of its systems. A stream converts to the queue of all systems.
struct Queue {
  cudaStream_t stream = nullptr;
  const int* systems = nullptr;  ///< device memory: each system at most once, −1 = none. It is read when the work runs,
                                 ///< so that a captured graph follows its changes. Null = all systems
  int n_systems = 0;  ///< entries of the list; images lie in their order, everything else by systems

  Queue(cudaStream_t all_systems_on) : stream(all_systems_on) {}
  Queue(cudaStream_t on, View<const int> list)
      : stream(on), systems(list.data()), n_systems(static_cast<int>(list.size())) {}
};

/// Device memory of the caller for one stage: at least workspace_bytes(), aligned to 256 bytes as cudaMalloc() does,
/// and there for as long as the stage. Empty: the stage allocates its own. @throws InvalidInput in constructors
using Workspace = View<std::byte>;

/// Images of the systems of a queue in device memory, in the order of its list: pixel (iy, ix) of system k is data[k ·
/// system_stride + iy · row_stride + ix].
template <class Real>
struct ImageView {
  Real* data = nullptr;
  std::size_t row_stride = 0;
  std::size_t system_stride = 0;
  std::size_t size = 0;  ///< numbers from `data` on

  ImageView() = default;
  ImageView(View<Real> pixels, std::size_t row_to_row, std::size_t system_to_system)
      : data(pixels.data()), row_stride(row_to_row), system_stride(system_to_system), size(pixels.size()) {}
  /// Of a view whose pixels may change.
  template <class U, class = std::enable_if_t<!std::is_same_v<U, Real> && std::is_convertible_v<U (*)[], Real (*)[]>>>
  ImageView(const ImageView<U>& other)
      : data(other.data), row_stride(other.row_stride), system_stride(other.system_stride), size(other.size) {}
};

/// View of dense images, [systems][ny][nx].
template <class Real>
ImageView<Real> dense_images(View<Real> pixels, int ny, int nx) {
  const auto row = static_cast<std::size_t>(nx);
  return {pixels, row, static_cast<std::size_t>(ny) * row};
}

/// The network of a NETWORK component at every ray, and the array for its cotangent.
template <class Real>
struct NetworkLight {
  View<const Real> value;     ///< [systems][n] [image unit]
  View<const Real> gradient;  ///< [systems][2][n]: all x, then all y [image unit / arcsec]
  View<Real> value_bar;       ///< [systems][n], written by adjoint(); may be empty in forward()
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

/// Whether forward() keeps what adjoint() needs.
enum class NetworkTape {
  kept,
  none  ///< for inference: no memory for the gradient's sums. Tiles keep the intermediate results of those that run at
        ///< the same time, and forward() launches one group of tiles after the other; cuBLAS keeps those of one system
};

/// How a network of a given shape will run. It is made before anything is allocated.
struct NetworkPlan {
  NetworkPath path = NetworkPath::automatic;  ///< tiles or cublas, never automatic
  int tile = 0;                               ///< points per tile; 0 for cuBLAS, like the next five members
  int tiles = 0;                              ///< tiles per system
  int blocks = 0;                             ///< blocks per system; each takes every blocks-th tile. Without a tape
                                              ///< they take one tile in each of ceil(tiles / blocks) launches
  int threads = 0;                            ///< threads per block
  bool keeps_layer = false;                   ///< an array that is needed twice stays in shared memory
  std::size_t shared_bytes = 0;               ///< shared memory of a block
  std::size_t workspace_bytes = 0;            ///< device memory that the NetworkStage will hold
  NetworkTape tape = NetworkTape::kept;
};

/// ψ_nn and α_nn = ∇ψ_nn of `n_systems` networks of one shape at `n_points` points each, and the adjoint; network.hpp
/// has the equations. The network of a NETWORK component is a NetworkStage too, at RenderStage::network_positions().
template <class Real>
class EINFIELD_API NetworkStage {
 public:
  /// @param n_points   points of a system, > 0
  /// @param n_systems  1 ... 65535
  /// @throws InvalidInput for a bad shape or count, when `path` is tiles and no tile fits, and for a `math` other than
  ///         fp32 in double precision, before compute capability 8.0, or for layers too wide for a tile
  static NetworkPlan make_plan(const NetworkShape& shape, int n_points, int n_systems, const DeviceLimits& limits,
                               NetworkPath path = NetworkPath::automatic, NetworkMath math = NetworkMath::fp32,
                               NetworkTape tape = NetworkTape::kept);
  /// Device memory of a stage with the automatic plan for the current device. @throws as make_plan(), CudaError
  static std::size_t workspace_bytes(const NetworkShape& shape, int n_points, int n_systems,
                                     NetworkMath math = NetworkMath::fp32, NetworkTape tape = NetworkTape::kept);

  /// The automatic plan for the current device. @throws InvalidInput as make_plan(), CudaError, CublasError
  NetworkStage(const NetworkShape& shape, int n_points, int n_systems, NetworkMath math = NetworkMath::fp32,
               NetworkTape tape = NetworkTape::kept, Workspace workspace = {});
  /// The plan of make_plan(). @throws as make_plan(), CudaError, CublasError
  NetworkStage(const NetworkShape& shape, int n_points, int n_systems, const DeviceLimits& limits,
               NetworkPath path = NetworkPath::automatic, NetworkMath math = NetworkMath::fp32,
               NetworkTape tape = NetworkTape::kept, Workspace workspace = {});
  ~NetworkStage();
  NetworkStage(NetworkStage&&) noexcept;
  NetworkStage& operator=(NetworkStage&&) noexcept;

  const NetworkPlan& plan() const;
  /// Writes the potential and the deflection of the network, and keeps what adjoint() needs. With NetworkTape::none the
  /// results have the same bits.
  /// @param parameters        system k's flat vector begins at k · parameter_stride
  /// @param parameter_stride  at least shape.size(), unless there is one system
  /// @param positions         [2][n] for all systems, or [systems][2][n] [arcsec]
  /// @param potential         [systems][n] [arcsec²]
  /// @param alpha_nn          [systems][2][n] [arcsec]
  /// @throws InvalidInput for arrays of other sizes, or parameters of systems that would overlap
  void forward(const Queue& queue, View<const Real> parameters, std::size_t parameter_stride,
               View<const Real> positions, View<Real> potential, View<Real> alpha_nn);
  /// Adds the gradient of every weight and bias. Parameters and positions must still be those of the last forward().
  /// @param alpha_bar      cotangent of the deflection, [systems][2][n], or empty for zero
  /// @param gradient       system k's flat vector begins at k · parameter_stride
  /// @param potential_bar  cotangent of the potential, [systems][n], or empty for zero
  /// @throws InvalidInput as forward(), and for a stage with NetworkTape::none
  void adjoint(const Queue& queue, View<const Real> parameters, std::size_t parameter_stride,
               View<const Real> positions, View<const Real> alpha_bar, View<Real> gradient,
               View<const Real> potential_bar = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Ray-shooting and brightness: β = θ − α_lens(θ) − α_nn(θ), I = Σ S(β) + Σ L(θ), averaged over the rays of a pixel, or
/// of a sub-pixel for a PSF that acts on f × f of them (Psf::supersampling): images are then [ny f][nx f].
template <class Real>
class EINFIELD_API RenderStage {
 public:
  /// @param models             one per system, at most 65535: the same components and free parameters, values of their
  ///                           own
  /// @param parameter_stride   of parameters and gradients in later calls; at least ParameterLayout::size()
  /// @param stream             used for the copies of the constructor, which waits for it
  /// @param psf_supersampling  f, a divisor of grid.supersampling
  /// @throws InvalidInput for models of different shapes and values out of range, CudaError
  RenderStage(const Grid& grid, const std::vector<Model>& models, std::size_t parameter_stride, cudaStream_t stream,
              int psf_supersampling = 1, Workspace workspace = {});
  ~RenderStage();
  RenderStage(RenderStage&&) noexcept;
  RenderStage& operator=(RenderStage&&) noexcept;

  /// Device memory of the stage. @throws InvalidInput as the constructor
  static std::size_t workspace_bytes(const Grid& grid, const std::vector<Model>& models);
  /// Puts another model in the place of one: the same components and free parameters. The other systems stay as they
  /// are, and so do captured graphs. Waits for the stream. @throws InvalidInput for another shape
  void replace(cudaStream_t stream, std::size_t system, const Model& model);
  /// θ of every ray, [2][n] [arcsec], device memory.
  View<const Real> positions() const;
  /// Writes the points at which the network of the NETWORK component is evaluated: β (or θ) relative to the component's
  /// center [arcsec].
  /// @param alpha_nn   as in forward()
  /// @param positions  [systems][2][n], written
  /// @throws InvalidInput when the models have no NETWORK component, or for arrays of other sizes
  void network_positions(const Queue& queue, View<const Real> parameters, View<const Real> alpha_nn,
                         View<Real> positions);
  /// @param alpha_nn  deflection of the network, [systems][2][n] [arcsec], or empty for none
  /// @param image     [ny f][nx f] per system, written
  /// @param light     needed with a NETWORK component, and only then
  /// @throws InvalidInput for arrays of other sizes, or a network of a NETWORK component without one
  void forward(const Queue& queue, View<const Real> parameters, View<const Real> alpha_nn, ImageView<Real> image,
               const NetworkLight<Real>& light = {});
  /// @param image_bar  ∂/∂image, [ny f][nx f] per system
  /// @param alpha_bar  ∂/∂α_nn, [systems][2][n], overwritten
  /// @param gradient   of the free scalars and source pixels, added to
  /// @param light      as in forward(); the gradient of its network's weights is NetworkStage::adjoint()'s, with
  ///                   `value_bar` as potential_bar
  /// @throws InvalidInput as forward(), and without a place for value_bar
  void adjoint(const Queue& queue, View<const Real> parameters, View<const Real> alpha_nn,
               ImageView<const Real> image_bar, View<Real> alpha_bar, View<Real> gradient,
               const NetworkLight<Real>& light = {});

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
  /// @param ny, nx  pixels of a model image
  /// @param psfs    one per system, all of one odd size (ny, nx) and supersampling; or all empty: m = I
  /// @param stream  used for the copies of the constructor, which waits for it
  /// @throws InvalidInput for PSFs of different or even sizes, or too large for `method`; CudaError, CufftError
  ConvolutionStage(int ny, int nx, const std::vector<Psf>& psfs, cudaStream_t stream,
                   ConvolutionMethod method = ConvolutionMethod::automatic, Workspace workspace = {});
  ~ConvolutionStage();
  ConvolutionStage(ConvolutionStage&&) noexcept;
  ConvolutionStage& operator=(ConvolutionStage&&) noexcept;

  /// Device memory of the stage. For an FFT it makes all plans of cuFFT to ask for theirs, without tables that cuFFT
  /// keeps and does not report; there are at most 2 (2 + log₂ systems) plans. @throws as the constructor
  static std::size_t workspace_bytes(int ny, int nx, const std::vector<Psf>& psfs,
                                     ConvolutionMethod method = ConvolutionMethod::automatic);
  /// Makes the transforms of a queue whose list has n_systems entries; needed once, outside a capture, for an FFT.
  /// It may transform up to twice as many images. @throws InvalidInput or CudaError or CufftError
  void prepare(cudaStream_t stream, int n_systems);
  /// Puts another kernel of the same size in the place of one; waits for the stream. @throws InvalidInput
  void replace(cudaStream_t stream, std::size_t system, const Psf& psf);
  /// Dense images of the caller, copied to and from the stage's own.
  /// @param image  [systems][ny f][nx f]
  /// @param model  [systems][ny][nx], written
  /// @throws InvalidInput for arrays of other sizes, or a list that prepare() has not seen
  void forward(const Queue& queue, View<const Real> image, View<Real> model);
  /// @param model_bar  ∂/∂model, [systems][ny][nx]
  /// @param image_bar  ∂/∂image, [systems][ny f][nx f], written
  /// @throws InvalidInput as forward()
  void adjoint(const Queue& queue, View<const Real> model_bar, View<Real> image_bar);

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
  View<const double> values;  ///< [systems][count]
  int count = 0;
};

/// The data term: loss and its cotangent, and the reduced χ². The weights are those of pixel_weights()
/// (likelihood.hpp):
///
///     loss = Σ w (m − d)²,    m̄ = 2 w (m − d)
///
/// or, with correlated noise, those of kIndependentNoise (likelihood.hpp), by conjugate gradients in a block per
/// system.
template <class Real>
class EINFIELD_API LikelihoodStage {
 public:
  /// @param problems  one per system, at most 65535. Observation, loss and held-out pixels are used: one size of
  /// images,
  ///                  all with held-out pixels or none
  /// @param stream    used for the copies of the constructor, which waits for it
  /// @throws InvalidInput for observations that are invalid (Observation::validate()) or of different sizes; CudaError
  LikelihoodStage(const std::vector<Problem>& problems, cudaStream_t stream, Workspace workspace = {});
  ~LikelihoodStage();
  LikelihoodStage(LikelihoodStage&&) noexcept;
  LikelihoodStage& operator=(LikelihoodStage&&) noexcept;

  /// Device memory of the stage. @throws InvalidInput as the constructor
  static std::size_t workspace_bytes(const std::vector<Problem>& problems);
  /// Puts other data in the place of those of one system; waits for the stream.
  /// @throws InvalidInput for another size, or held-out pixels where the first problems have none, or the reverse
  void replace(cudaStream_t stream, std::size_t system, const Problem& problem);
  /// Writes the cotangent of the model and the scalars of a new evaluation: loss, chi2_reduced, held_out_chi2 and
  /// learning_rate; regularization and gradient_norm begin at 0.
  /// @param model      [ny][nx] per system
  /// @param model_bar  [ny][nx] per system, written
  /// @param states     [systems], for example AdamStage::states(); updates and bad_step are left as they are
  /// @param rates      for StepState::learning_rate, which is 0 without; AdamStage::learning_rates()
  /// @throws InvalidInput for arrays of other sizes
  void evaluate(const Queue& queue, ImageView<const Real> model, ImageView<Real> model_bar, View<StepState> states,
                const LearningRates& rates = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The penalties of regularization.hpp on the network's potential, its weights and the source pixels, and Gaussian
/// priors of the free scalars. With all weights 0 and no priors, or without what they weigh, it does nothing.
template <class Real>
class EINFIELD_API RegularizationStage {
 public:
  /// @param problems  one per system, those of the RenderStage. Model, grid and regularization are used, and the number
  ///                  of fitted pixels with priors
  /// @param stream    used for the copies of the constructor, which waits for it
  /// @throws InvalidInput for problems of different shapes; CudaError
  RegularizationStage(const std::vector<Problem>& problems, cudaStream_t stream, Workspace workspace = {});
  ~RegularizationStage();
  RegularizationStage(RegularizationStage&&) noexcept;
  RegularizationStage& operator=(RegularizationStage&&) noexcept;

  /// Device memory of the stage. @throws InvalidInput as the constructor
  static std::size_t workspace_bytes(const std::vector<Problem>& problems);
  /// Puts other weights and priors in the place of those of one system; waits for the stream.
  /// @throws InvalidInput for another shape, or a penalty that no problem of the constructor has
  void replace(cudaStream_t stream, std::size_t system, const Problem& problem);
  /// Adds to StepState::regularization, to `alpha_bar` and to `gradient`. It comes after RenderStage::adjoint(), which
  /// overwrites alpha_bar, and before NetworkStage::adjoint(), which reads it.
  /// @param render    the stage with the models of the same problems
  /// @param alpha_nn  deflection of the network, [systems][2][n] [arcsec]; may be empty without a network
  /// @param alpha_bar ∂/∂α_nn, [systems][2][n], added to; may be empty without a network
  /// @param gradient  added to
  /// @param states    [systems]
  /// @throws InvalidInput for arrays of other sizes, or a RenderStage of other models
  void apply(const Queue& queue, const RenderStage<Real>& render, View<const Real> parameters,
             View<const Real> alpha_nn, View<Real> alpha_bar, View<Real> gradient, View<StepState> states);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Adam on flat vectors; step counters and learning rates live on the device. A non-finite gradient, or a non-finite
/// loss in states(), freezes a system: its parameters stay, and StepState::bad_step holds the step at which that
/// happened.
template <class Real>
class EINFIELD_API AdamStage {
 public:
  /// @param n_parameters      of a system, > 0
  /// @param parameter_stride  of the vectors in later calls; at least n_parameters
  /// @param learning_rates    [systems][updates], every row of one length ≥ 1; later updates use the last
  /// @param stream            used for the copies of the constructor, which waits for it
  /// @throws InvalidInput or CudaError
  AdamStage(std::size_t n_parameters, std::size_t parameter_stride,
            const std::vector<std::vector<double>>& learning_rates, cudaStream_t stream, Workspace workspace = {});
  ~AdamStage();
  AdamStage(AdamStage&&) noexcept;
  AdamStage& operator=(AdamStage&&) noexcept;

  /// Device memory of the stage until begin().
  static std::size_t workspace_bytes(std::size_t n_parameters, std::size_t n_systems, std::size_t n_learning_rates);
  View<StepState> states() const;  ///< device memory, [systems]
  LearningRates learning_rates() const;
  /// Zeroes the gradient of what Schedule::trainable leaves out and writes StepState::gradient_norm.
  /// @throws InvalidInput for a vector that is too short
  void gradient_norm(const Queue& queue, View<Real> gradient);
  /// gradient_norm(), then one update of every system that is not frozen. Moments start at zero.
  /// @throws InvalidInput for a vector that is too short
  void apply(const Queue& queue, View<Real> gradient, View<Real> parameters, View<Real> first_moment,
             View<Real> second_moment);
  /// Begins another schedule, the same for all systems, at update 0. The caller zeroes the moments. Waits for the
  /// stream, and may allocate. A graph that holds apply() or learning_rates() must be captured again.
  /// @throws InvalidInput as validate_schedule(), CudaError
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
extern template class LikelihoodStage<float>;
extern template class LikelihoodStage<double>;
extern template class RegularizationStage<float>;
extern template class RegularizationStage<double>;
extern template class AdamStage<float>;
extern template class AdamStage<double>;

}  // namespace einfield::cuda
