// The training step of Biggio et al. (2021) in the hands of a CUDA program: its own stream, its own device memory, and
// one graph that is captured once and launched for every step.
// Simulates a lens with a subhalo, and fits a network to the potential that the smooth model lacks. Before that, the
// gradient with respect to all parameters is compared with a difference.
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "einfield/cuda.hpp"
#include "einfield/error.hpp"
#include "einfield/psf.hpp"
#include "einfield/random.hpp"

namespace {

using namespace einfield;

constexpr int kSide = 24, kSteps = 60;

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw Error(std::string(call) + ": " + cudaGetErrorString(status));
}

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// Device memory that is used on one stream, zero at first. A View can be made of whatever has data() and size().
class Array {
 public:
  Array(std::size_t size, cudaStream_t stream) : size_(size), stream_(stream) {
    check(cudaMalloc(&data_, bytes()), "cudaMalloc");
    zero();
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data_); }
  double* data() const { return data_; }
  std::size_t size() const { return size_; }

  void zero() { check(cudaMemsetAsync(data_, 0, bytes(), stream_), "cudaMemsetAsync"); }
  void put(const std::vector<double>& host) {
    check(cudaMemcpyAsync(data_, host.data(), bytes(), cudaMemcpyHostToDevice, stream_), "copy to the device");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }
  std::vector<double> take() const {
    std::vector<double> host(size_);
    check(cudaMemcpyAsync(host.data(), data_, bytes(), cudaMemcpyDeviceToHost, stream_), "copy to the host");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return host;
  }

 private:
  std::size_t bytes() const { return size_ * sizeof(double); }

  double* data_ = nullptr;
  std::size_t size_;
  cudaStream_t stream_;
};

/// What `work` enqueues on the stream, as a graph.
class Graph {
 public:
  template <class Work>
  Graph(cudaStream_t stream, Work&& work) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    work();
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { cudaGraphExecDestroy(graph_); }
  void launch(cudaStream_t stream) { check(cudaGraphLaunch(graph_, stream), "cudaGraphLaunch"); }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

std::vector<std::uint8_t> all(std::size_t n, bool free) {
  return std::vector<std::uint8_t>(n, free);
}

/// An SIE, a Sérsic source with free parameters, and a network that adds nothing yet. The image is still missing.
Problem make_problem() {
  Problem problem;
  problem.model.lens.push_back({LensKind::sie, {1.6, 0.15, -0.04, 0, 0}, all(5, false)});
  LightComponent source;
  source.kind = LightKind::sersic_ellipse;
  source.radius = RadiusKind::major_axis;
  source.values = {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15};
  source.free = all(7, true);
  problem.model.source.push_back(source);
  problem.model.network = NetworkShape{{48, 48}, 1.0};
  problem.loss = LossKind::chi2;
  problem.regularization.weight_decay = 1e-4;

  Observation& observation = problem.observation;
  observation.grid = {kSide, kSide, 0.25, 0, 0, 1};
  const auto pixels = static_cast<std::size_t>(observation.grid.n_pixels());
  observation.noise.assign(pixels, 0.5);
  observation.mask.assign(pixels, 1);
  observation.psf = gaussian_psf(0.4, observation.grid.pixel_scale);
  problem.initial_parameters =
      ParameterLayout(problem.model).initial_parameters(initial_weights(*problem.model.network, 1, true));
  return problem;
}

/// The noisy image of the same lens with a second SIE in it. The stages need not be those of a whole step.
std::vector<double> observe(const Problem& problem, cudaStream_t stream) {
  const Grid& grid = problem.observation.grid;
  Model truth = problem.model;
  truth.network.reset();
  truth.lens.push_back({LensKind::sie, {0.15, 0, 0.3, 1.5, -0.8}, all(5, false)});
  const ParameterLayout layout(truth);
  const auto pixels = static_cast<std::size_t>(grid.n_pixels());
  Array parameters(layout.size(), stream), brightness(pixels, stream), model(pixels, stream);
  parameters.put(layout.initial_parameters({}));
  cuda::RenderStage<double> render(grid, {truth}, layout.size(), stream);
  cuda::ConvolutionStage<double> convolution(grid.ny, grid.nx, {problem.observation.psf}, stream);
  render.forward(stream, parameters, {}, cuda::dense_images<double>(brightness, grid.ny, grid.nx));
  convolution.forward(stream, brightness, model);
  std::vector<double> image = model.take();
  const Philox philox{7};
  for (std::size_t i = 0; i < image.size(); ++i) image[i] += problem.observation.noise[i] * philox.normal(i);
  return image;
}

/// Stages and arrays of a step.
class Step {
 public:
  Step(const Problem& problem, cudaStream_t stream)
      : stream_(stream),
        n_(problem.initial_parameters.size()),
        rays_(static_cast<std::size_t>(problem.observation.grid.n_rays())),
        network_(*problem.model.network, problem.observation.grid.n_rays(), 1),
        render_(problem.observation.grid, {problem.model}, n_, stream),
        convolution_(problem.observation.grid.ny, problem.observation.grid.nx, {problem.observation.psf}, stream),
        likelihood_({problem}, stream),
        regularization_({problem}, stream),
        adam_(n_, n_, {{1e-2}}, stream) {
    parameters_.put(problem.initial_parameters);
  }

  Array& parameters() { return parameters_; }
  const Array& gradient() const { return gradient_; }

  /// Enqueues loss and gradient at the parameters.
  void evaluate() {
    gradient_.zero();
    network_.forward(stream_, parameters_, n_, render_.positions(), potential_, deflection_);
    render_.forward(stream_, parameters_, deflection_, convolution_.image());
    convolution_.forward(stream_);
    likelihood_.evaluate(stream_, convolution_.model(), convolution_.model_bar(), adam_.states(),
                         adam_.learning_rates());
    convolution_.adjoint(stream_);
    render_.adjoint(stream_, parameters_, deflection_, convolution_.image_bar(), deflection_bar_, gradient_);
    regularization_.apply(stream_, render_, parameters_, deflection_, deflection_bar_, gradient_, adam_.states());
    network_.adjoint(stream_, parameters_, n_, render_.positions(), deflection_bar_, gradient_);
  }
  /// Enqueues an update by Adam.
  void update() { adam_.apply(stream_, gradient_, parameters_, first_moment_, second_moment_); }

  StepState state() const {
    StepState state;
    check(cudaMemcpyAsync(&state, adam_.states().data(), sizeof state, cudaMemcpyDeviceToHost, stream_),
          "copy to the host");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    return state;
  }

 private:
  cudaStream_t stream_;
  std::size_t n_, rays_;
  cuda::NetworkStage<double> network_;
  cuda::RenderStage<double> render_;
  cuda::ConvolutionStage<double> convolution_;
  cuda::LikelihoodStage<double> likelihood_;
  cuda::RegularizationStage<double> regularization_;
  cuda::AdamStage<double> adam_;
  Array potential_{rays_, stream_}, deflection_{2 * rays_, stream_}, deflection_bar_{2 * rays_, stream_};
  Array parameters_{n_, stream_}, gradient_{n_, stream_}, first_moment_{n_, stream_}, second_moment_{n_, stream_};
};

/// Along the gradient the loss changes by the gradient's square. @return the relative difference
double gradient_error(Step& step, const std::vector<double>& start) {
  step.evaluate();
  const std::vector<double> gradient = step.gradient().take();
  double square = 0;
  for (const double g : gradient) square += g * g;
  const double h = 1e-6 / std::sqrt(square);
  double sides[2];
  for (int side = 0; side < 2; ++side) {
    std::vector<double> moved = start;
    for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += (side == 0 ? h : -h) * gradient[i];
    step.parameters().put(moved);
    step.evaluate();
    const StepState state = step.state();
    sides[side] = state.loss + state.regularization;
  }
  step.parameters().put(start);
  const double difference = (sides[0] - sides[1]) / (2 * h);
  std::printf("squared gradient %.9g, by a difference %.9g\n", square, difference);
  return std::abs(difference - square) / square;
}

int run() {
  const Stream stream;
  Problem problem = make_problem();
  problem.observation.image = observe(problem, stream);
  Step step(problem, stream);
  const double error = gradient_error(step, problem.initial_parameters);

  step.evaluate();
  const double before = step.state().chi2_reduced;
  Graph graph(stream, [&] {
    step.evaluate();
    step.update();
  });
  for (int k = 0; k < kSteps; ++k) graph.launch(stream);
  step.evaluate();
  const StepState after = step.state();
  std::printf("reduced chi2 %.4g, after %lld steps %.4g\n", before, static_cast<long long>(after.updates),
              after.chi2_reduced);
  return error < 1e-6 && after.updates == kSteps && after.chi2_reduced < 0.5 * before ? 0 : 1;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "link_from_cuda: no CUDA device\n");
    return 3;
  }
  try {
    return run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "link_from_cuda: %s\n", error.what());
    return 1;
  }
}
