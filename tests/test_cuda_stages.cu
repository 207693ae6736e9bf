// The stages of cuda.hpp as a CUDA program uses them: its own stream, its own device memory, several lenses; and fits
// of different threads side by side. The judge is the naive step in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "einfield/adam.hpp"
#include "einfield/cuda.hpp"
#include "kernels/raii.cuh"
#include "tests/step_problem.hpp"

namespace einfield::cuda {
namespace {

bool device_available() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  (void)cudaGetLastError();
  return found;
}

/// Rounding of a whole stage relative to its largest value, as in the conformance suite.
template <class Real>
constexpr double tolerance() {
  return sizeof(Real) == 4 ? 2e-5 : 1e-11;
}

template <class Real>
std::vector<Real> as(const std::vector<double>& values) {
  std::vector<Real> result;
  for (const double v : values) result.push_back(static_cast<Real>(v));
  return result;
}

template <class Real>
void expect_close(const std::vector<Real>& found, const std::vector<double>& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << what << " " << i;
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(static_cast<double>(found[i]) - expected[i]));
  }
  EXPECT_LE(error, tolerance<Real>() * largest) << what << ", largest " << largest;
}

/// Device memory of the caller.
template <class T>
DeviceBuffer<T> on_device(const std::vector<T>& values, const Stream& stream) {
  DeviceBuffer<T> buffer(values.size());
  buffer.upload(values, stream.get());
  stream.synchronize();
  return buffer;
}

/// One array of every lens, lens after lens.
template <class Get>
std::vector<double> all_lenses(const std::vector<NaiveStep>& lenses, Get&& get) {
  std::vector<double> all;
  for (const NaiveStep& lens : lenses) {
    const std::vector<double>& one = get(lens);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

/// Three lenses of one shape.
std::vector<Problem> problems_of(StepCase c) {
  std::vector<Problem> problems;
  for (c.seed = 3; c.seed < 6; ++c.seed) problems.push_back(make_problem(c));
  return problems;
}

/// All stages of a step in the hands of a CUDA program.
template <class Real>
class Program {
 public:
  /// @param callers_memory  the stages allocate nothing
  Program(const std::vector<Problem>& problems, const Stream& stream, std::size_t padding, bool callers_memory = false)
      : callers_memory_(callers_memory),
        lenses_(problems.size()),
        layout_(problems.front().model),
        stride_(layout_.size() + padding),
        grid_(problems.front().observation.grid),
        f_(problems.front().observation.psf.supersampling),
        render_(grid_, models(problems), stride_, stream.get(), f_,
                memory(RenderStage<Real>::workspace_bytes(grid_, models(problems)))),
        convolution_(grid_.ny, grid_.nx, psfs(problems), stream.get(), ConvolutionMethod::automatic,
                     memory(ConvolutionStage<Real>::workspace_bytes(grid_.ny, grid_.nx, psfs(problems)))),
        likelihood_(problems, stream.get(), memory(LikelihoodStage<Real>::workspace_bytes(problems))),
        regularization_(problems, stream.get(), memory(RegularizationStage<Real>::workspace_bytes(problems))) {
    const auto n = static_cast<std::size_t>(grid_.n_pixels()), rays = static_cast<std::size_t>(grid_.n_rays());
    std::vector<Real> parameters;
    for (const Problem& p : problems) {
      const std::vector<Real> own = as<Real>(p.initial_parameters);
      parameters.insert(parameters.end(), own.begin(), own.end());
      parameters.resize(parameters.size() + padding,
                        std::numeric_limits<Real>::quiet_NaN());  // padding, which no stage may read
      std::vector<double> seen;                                   // the rounded numbers
      for (const Real v : own) seen.push_back(static_cast<double>(v));
      naive_.push_back(naive_step(p, seen));
    }
    parameters_ = on_device(parameters, stream);
    model_bar_ = DeviceBuffer<Real>(lenses_ * n);
    states_ = on_device(std::vector<StepState>(lenses_), stream);
    gradient_ = DeviceBuffer<Real>(lenses_ * stride_);
    potential_ = DeviceBuffer<Real>(lenses_ * rays);
    alpha_nn_ = DeviceBuffer<Real>(lenses_ * 2 * rays);
    alpha_bar_ = DeviceBuffer<Real>(lenses_ * 2 * rays);
    const auto subpixels = n * static_cast<std::size_t>(f_ * f_);
    image_ = DeviceBuffer<Real>(lenses_ * subpixels);
    model_ = DeviceBuffer<Real>(lenses_ * n);
    image_bar_ = DeviceBuffer<Real>(lenses_ * subpixels);
    if (problems.front().model.network) network_ = network(*problems.front().model.network);
    const LightComponent* const light = network_light(problems.front().model);
    if (!light) return;
    light_network_ = network(light->network);
    for (DeviceBuffer<Real>* field : {&light_value_, &light_value_bar_}) *field = DeviceBuffer<Real>(lenses_ * rays);
    for (DeviceBuffer<Real>* field : {&light_position_, &light_gradient_})
      *field = DeviceBuffer<Real>(lenses_ * 2 * rays);
    if (light->weights_free) return;
    std::vector<double> weights;
    for (const Problem& p : problems) {
      const std::vector<double>& own = network_light(p.model)->weights;
      weights.insert(weights.end(), own.begin(), own.end());
    }
    fixed_weights_ = on_device(as<Real>(weights), stream);
  }

  void enqueue(const Stream& stream) {
    const cudaStream_t on = stream.get();
    const View<const Real> alpha_nn = network_ ? View<const Real>(alpha_nn_) : View<const Real>();
    const int fine_ny = grid_.ny * f_, fine_nx = grid_.nx * f_;
    gradient_.zero(on);
    if (network_) network_->forward(on, parameters_, stride_, render_.positions(), potential_, alpha_nn_);
    const bool fixed = fixed_weights_.size() > 0;
    const std::size_t offset = layout_.light_weights_offset();
    const View<const Real> weights =
        fixed ? View<const Real>(fixed_weights_) : View<const Real>(parameters_).from(offset);
    const std::size_t weights_stride = fixed ? fixed_weights_.size() / lenses_ : stride_;
    const NetworkLight<Real> light{light_value_, light_gradient_, light_value_bar_};
    if (light_network_) {
      render_.network_positions(on, parameters_, alpha_nn, light_position_);
      light_network_->forward(on, weights, weights_stride, light_position_, light_value_, light_gradient_);
    }
    render_.forward(on, parameters_, alpha_nn, dense_images<Real>(image_, fine_ny, fine_nx), light);
    convolution_.forward(on, image_, model_);
    likelihood_.evaluate(on, dense_images<const Real>(model_, grid_.ny, grid_.nx),
                         dense_images<Real>(model_bar_, grid_.ny, grid_.nx), states_);
    convolution_.adjoint(on, model_bar_, image_bar_);
    render_.adjoint(on, parameters_, alpha_nn, dense_images<const Real>(image_bar_, fine_ny, fine_nx), alpha_bar_,
                    gradient_, light);
    if (light_network_ && !fixed)
      light_network_->adjoint(on, weights, weights_stride, light_position_, {}, View<Real>(gradient_).from(offset),
                              light_value_bar_);
    regularization_.apply(on, render_, parameters_, alpha_nn, alpha_bar_, gradient_, states_);
    if (network_) network_->adjoint(on, parameters_, stride_, render_.positions(), alpha_bar_, gradient_);
  }

  void expect_naive(const Stream& stream) {
    const auto expect = [&](const DeviceBuffer<Real>& found, const char* what, auto&& get) {
      expect_close(found.to_vector(stream.get()), all_lenses(naive_, get), what);
    };
    if (network_) {
      expect(
          potential_, "potential", [](const NaiveStep& s) -> auto& { return s.potential; });
      expect(
          alpha_nn_, "deflection", [](const NaiveStep& s) -> auto& { return s.deflection; });
    }
    expect(
        image_, "image", [](const NaiveStep& s) -> auto& { return s.subpixels; });
    expect(
        model_, "model", [](const NaiveStep& s) -> auto& { return s.model; });
    expect(
        model_bar_, "model_bar", [](const NaiveStep& s) -> auto& { return s.model_bar; });
    expect(
        image_bar_, "image_bar", [](const NaiveStep& s) -> auto& { return s.subpixels_bar; });
    expect(
        alpha_bar_, "deflection_bar", [](const NaiveStep& s) -> auto& { return s.deflection_bar; });
    const std::vector<StepState> states = states_.to_vector(stream.get());
    std::vector<double> loss, chi2, regularization;
    for (const NaiveStep& s : naive_) {
      loss.push_back(s.loss);
      chi2.push_back(s.chi2);
      regularization.push_back(s.regularization);
    }
    const auto expect_scalar = [&](double StepState::*scalar, const std::vector<double>& expected, const char* what) {
      std::vector<Real> found;
      for (const StepState& state : states) found.push_back(static_cast<Real>(state.*scalar));
      expect_close(found, expected, what);
    };
    expect_scalar(&StepState::loss, loss, "loss");
    expect_scalar(&StepState::chi2_reduced, chi2, "reduced chi2");
    expect_scalar(&StepState::regularization, regularization, "regularization");
    const std::vector<Real> gradients = gradient_.to_vector(stream.get());
    for (std::size_t lens = 0; lens < lenses_; ++lens) {
      const auto begin = gradients.begin() + static_cast<std::ptrdiff_t>(lens * stride_);
      expect_close(std::vector<Real>(begin, begin + static_cast<std::ptrdiff_t>(layout_.size())), naive_[lens].gradient,
                   "gradient");
      for (std::size_t i = layout_.size(); i < stride_; ++i)
        EXPECT_EQ(gradients[lens * stride_ + i], Real(0)) << "a number between two lenses was written";
    }
  }
  std::vector<Real> gradient(const Stream& stream) const { return gradient_.to_vector(stream.get()); }

 private:
  /// Memory of this program for a stage, filled with numbers that no stage may use; or none.
  Workspace memory(std::size_t bytes) {
    if (!callers_memory_) return {};
    memory_.emplace_back(bytes);
    EINFIELD_CUDA(cudaMemset(memory_.back().get(), 0xff, bytes));
    EINFIELD_CUDA(cudaDeviceSynchronize());
    return memory_.back();
  }
  std::unique_ptr<NetworkStage<Real>> network(const NetworkShape& shape) {
    const int rays = grid_.n_rays(), systems = static_cast<int>(lenses_);
    return std::make_unique<NetworkStage<Real>>(shape, rays, systems, NetworkMath::fp32, NetworkTape::kept,
                                                memory(NetworkStage<Real>::workspace_bytes(shape, rays, systems)));
  }
  static std::vector<Model> models(const std::vector<Problem>& problems) {
    std::vector<Model> result;
    for (const Problem& p : problems) result.push_back(p.model);
    return result;
  }
  static std::vector<Psf> psfs(const std::vector<Problem>& problems) {
    std::vector<Psf> result;
    for (const Problem& p : problems) result.push_back(p.observation.psf);
    return result;
  }

  bool callers_memory_;
  std::list<DeviceBuffer<std::byte>> memory_;
  std::size_t lenses_;
  ParameterLayout layout_;
  std::size_t stride_;
  Grid grid_;
  int f_;  ///< sub-pixels of a pixel's side that the PSF acts on
  RenderStage<Real> render_;
  ConvolutionStage<Real> convolution_;
  LikelihoodStage<Real> likelihood_;
  RegularizationStage<Real> regularization_;
  std::unique_ptr<NetworkStage<Real>> network_, light_network_;
  std::vector<NaiveStep> naive_;
  DeviceBuffer<Real> light_position_, light_value_, light_gradient_, light_value_bar_, fixed_weights_;
  DeviceBuffer<Real> parameters_, gradient_, potential_, alpha_nn_, alpha_bar_, image_, model_, model_bar_, image_bar_;
  DeviceBuffer<StepState> states_;
};

class CudaStages : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!device_available()) GTEST_SKIP() << "no CUDA device";
  }
};

template <class Real>
void check_every_case() {
  for (const StepCase& c : step_cases()) {
    SCOPED_TRACE(c.name);
    const Stream stream;
    Program<Real> program(problems_of(c), stream, 5);
    program.enqueue(stream);
    program.expect_naive(stream);
  }
}
TEST_F(CudaStages, AgreeWithTheNaiveStepInSinglePrecision) {
  check_every_case<float>();
}
TEST_F(CudaStages, AgreeWithTheNaiveStepInDoublePrecision) {
  check_every_case<double>();
}

TEST_F(CudaStages, RunFromTheCallersGraph) {
  const Stream stream;
  for (const int index : {2, 4, 11, 15}) {
    Program<float> program(problems_of(step_cases()[static_cast<std::size_t>(index)]), stream, 0);
    const Graph graph = Graph::capture(stream.get(), [&] { program.enqueue(stream); });
    for (int i = 0; i < 2; ++i) graph.launch(stream.get());
    program.expect_naive(stream);
  }
}

/// Memory of the caller makes no difference, and is all that a stage uses.
TEST_F(CudaStages, RunInTheCallersMemory) {
  const Stream stream;
  StepCase transformed = step_cases()[8];
  transformed.nx = transformed.ny = 27;
  transformed.psf_size = 25;  // by cuFFT
  for (const StepCase& c : {step_cases()[11], step_cases()[15], transformed}) {
    SCOPED_TRACE(c.name);
    const std::vector<Problem> problems = problems_of(c);
    Program<float> own(problems, stream, 0), callers(problems, stream, 0, true);
    for (int i = 0; i < 2; ++i) {
      own.enqueue(stream);
      callers.enqueue(stream);
    }
    EXPECT_EQ(callers.gradient(stream), own.gradient(stream));
    callers.expect_naive(stream);
  }
  const std::size_t bytes = AdamStage<float>::workspace_bytes(700, 2, 1);
  const std::vector<std::vector<double>> rates = {{1e-3}, {1e-3}};
  DeviceBuffer<std::byte> memory(bytes + 256);
  const Workspace all(memory);
  AdamStage<float>(700, 700, rates, stream.get(), all.from(256));
  EXPECT_THROW(AdamStage<float>(700, 700, rates, stream.get(), all.from(0, bytes - 1)), InvalidInput);
  EXPECT_THROW(AdamStage<float>(700, 700, rates, stream.get(), all.from(8)), InvalidInput);
}

TEST_F(CudaStages, TwoStreamsDoNotMeet) {
  const Stream first, second;
  const std::vector<Problem> a = problems_of(step_cases()[2]), b = problems_of(step_cases()[4]);
  Program<float> one(a, first, 0), other(b, second, 0);
  one.enqueue(first);
  const std::vector<float> one_alone = one.gradient(first);
  other.enqueue(second);
  const std::vector<float> other_alone = other.gradient(second);
  for (int i = 0; i < 3; ++i) {
    one.enqueue(first);
    other.enqueue(second);
  }
  EXPECT_EQ(one.gradient(first), one_alone);
  EXPECT_EQ(other.gradient(second), other_alone);
}

/// Two fits in one process, each on its own thread and stream, end with the bits that each has alone.
TEST_F(CudaStages, TwoFittersDoNotMeet) {
  const auto train = [](Backend<float>& backend, const StepCase& c) {
    backend.load({make_problem(c)});
    for (int k = 0; k < 6; ++k) backend.step();
    return backend.download(Field::parameters, 0);
  };
  const StepCase cases[2] = {step_cases()[2], step_cases()[8]};
  std::vector<float> alone[2], together[2];
  for (int i = 0; i < 2; ++i) alone[i] = train(*make_backend<float>("cuda", {}), cases[i]);
  std::thread threads[2];
  for (int i = 0; i < 2; ++i)
    threads[i] = std::thread([&, i] { together[i] = train(*make_backend<float>("cuda", {}), cases[i]); });
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(together[i], alone[i]);
}

// ---- convolution
// --------------------------------------------------------------------------------------------------------

/// m(y, x) = Σ P(k, l) I(y − k, x − l), zero outside; or the transpose.
std::vector<double> convolved(const Psf& psf, int ny, int nx, const std::vector<double>& image, bool transpose) {
  std::vector<double> out(image.size(), 0.0);
  for (int y = 0; y < ny; ++y)
    for (int x = 0; x < nx; ++x)
      for (int k = 0; k < psf.ny; ++k)
        for (int l = 0; l < psf.nx; ++l) {
          const int dy = k - psf.ny / 2, dx = l - psf.nx / 2;
          const int from_y = transpose ? y + dy : y - dy, from_x = transpose ? x + dx : x - dx;
          if (from_y < 0 || from_y >= ny || from_x < 0 || from_x >= nx) continue;
          out[static_cast<std::size_t>(y * nx + x)] += psf.values[static_cast<std::size_t>(k * psf.nx + l)] *
                                                       image[static_cast<std::size_t>(from_y * nx + from_x)];
        }
  return out;
}

template <class Real>
void check_convolution(int ny, int nx, int psf_ny, int psf_nx, ConvolutionMethod method) {
  SCOPED_TRACE(std::to_string(ny) + " x " + std::to_string(nx) + ", PSF " + std::to_string(psf_ny) + " x " +
               std::to_string(psf_nx) + (method == ConvolutionMethod::direct ? " direct" : " fft"));
  const Stream stream;
  const Philox philox{11};
  std::uint64_t counter = 0;
  constexpr int kLenses = 2;
  const auto draw = [&](int n) {
    std::vector<double> values;
    for (int i = 0; i < n; ++i) values.push_back(static_cast<double>(static_cast<Real>(philox.normal(counter++))));
    return values;
  };
  std::vector<Psf> psfs;  // without symmetry
  std::vector<double> image, model_bar, model, image_bar;
  for (int lens = 0; lens < kLenses; ++lens) {
    psfs.push_back({psf_nx, psf_ny, draw(psf_nx * psf_ny)});
    const std::vector<double> in = draw(nx * ny), bar = draw(nx * ny);
    const std::vector<double> out = convolved(psfs.back(), ny, nx, in, false),
                              in_bar = convolved(psfs.back(), ny, nx, bar, true);
    image.insert(image.end(), in.begin(), in.end());
    model_bar.insert(model_bar.end(), bar.begin(), bar.end());
    model.insert(model.end(), out.begin(), out.end());
    image_bar.insert(image_bar.end(), in_bar.begin(), in_bar.end());
  }
  ConvolutionStage<Real> stage(ny, nx, psfs, stream.get(), method);
  const DeviceBuffer<Real> in = on_device(as<Real>(image), stream), bar = on_device(as<Real>(model_bar), stream);
  DeviceBuffer<Real> out(image.size()), in_bar(image.size());
  for (int repeat = 0; repeat < 2; ++repeat) {  // the borders must be as clean as before
    stage.forward(stream.get(), in, out);
    stage.adjoint(stream.get(), bar, in_bar);
  }
  expect_close(out.to_vector(stream.get()), model, "model");
  expect_close(in_bar.to_vector(stream.get()), image_bar, "image_bar");
}

TEST_F(CudaStages, ConvolutionAndItsTranspose) {
  const int shapes[][4] = {{1, 1, 1, 1},    {1, 1, 3, 5},     {17, 30, 1, 1}, {17, 30, 3, 3},    {17, 30, 13, 7},
                           {33, 65, 5, 31}, {40, 40, 21, 21}, {5, 7, 9, 11},  {100, 36, 13, 13}, {64, 10, 31, 1}};
  for (const auto& s : shapes)
    for (const ConvolutionMethod method : {ConvolutionMethod::direct, ConvolutionMethod::fft}) {
      check_convolution<float>(s[0], s[1], s[2], s[3], method);
      check_convolution<double>(s[0], s[1], s[2], s[3], method);
    }
  check_convolution<double>(20, 12, 33, 35, ConvolutionMethod::fft);
}

/// Queues of any length, in the order of their lists, in memory of the caller that was planned for all of them.
template <class Real>
void check_queues(ConvolutionMethod method) {
  constexpr int kNy = 9, kNx = 11, kPsf = 5, kSystems = 5;
  constexpr std::size_t kPixels = std::size_t{kNy} * kNx;
  const Stream stream;
  const Philox philox{12};
  std::uint64_t counter = 0;
  const auto draw = [&](std::size_t n) {
    std::vector<double> values(n);
    for (double& v : values) v = static_cast<double>(static_cast<Real>(philox.normal(counter++)));
    return values;
  };
  std::vector<Psf> psfs;
  for (int system = 0; system < kSystems; ++system) psfs.push_back({kPsf, kPsf, draw(std::size_t{kPsf} * kPsf)});
  const std::vector<double> images = draw(kSystems * kPixels);
  const DeviceBuffer<Real> in = on_device(as<Real>(images), stream);
  DeviceBuffer<std::byte> memory(ConvolutionStage<Real>::workspace_bytes(kNy, kNx, psfs, method));
  ConvolutionStage<Real> stage(kNy, kNx, psfs, stream.get(), method, memory);
  for (const std::vector<int>& list :
       std::vector<std::vector<int>>{{3}, {4, 1}, {0, 2, 4}, {1, 3, 0, 2}, {4, 3, 2, 1, 0}, {2, 0, 1}}) {
    SCOPED_TRACE(std::to_string(list.size()) + " systems");
    const DeviceBuffer<int> systems = on_device(list, stream);
    const Queue queue(stream.get(), systems);
    DeviceBuffer<Real> out(kSystems * kPixels), back(kSystems * kPixels);
    for (DeviceBuffer<Real>* images_out : {&out, &back}) images_out->zero(stream.get());
    stage.prepare(stream.get(), static_cast<int>(list.size()));
    stage.forward(queue, in, out);
    stage.adjoint(queue, in, back);
    for (const bool transpose : {false, true}) {
      std::vector<double> expected;
      for (std::size_t row = 0; row < list.size(); ++row) {
        const auto first = images.begin() + static_cast<std::ptrdiff_t>(row * kPixels);
        const std::vector<double> one = convolved(psfs[static_cast<std::size_t>(list[row])], kNy, kNx,
                                                  std::vector<double>(first, first + kPixels), transpose);
        expected.insert(expected.end(), one.begin(), one.end());
      }
      std::vector<Real> found = (transpose ? back : out).to_vector(stream.get());
      found.resize(expected.size());
      expect_close(found, expected, transpose ? "image_bar" : "model");
    }
  }
}
TEST_F(CudaStages, ConvolutionOfAnyQueue) {
  for (const ConvolutionMethod method : {ConvolutionMethod::direct, ConvolutionMethod::fft}) {
    check_queues<float>(method);
    check_queues<double>(method);
  }
}

TEST_F(CudaStages, NoPsfIsNoChange) {
  const Stream stream;
  ConvolutionStage<float> stage(3, 5, {Psf{}, Psf{}}, stream.get());
  const std::vector<float> image = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30};
  const DeviceBuffer<float> in = on_device(image, stream);
  DeviceBuffer<float> out(image.size());
  stage.forward(stream.get(), in, out);
  EXPECT_EQ(out.to_vector(stream.get()), image);
}

// ---- Adam
// ---------------------------------------------------------------------------------------------------------------

template <class Real>
void check_adam() {
  const Stream stream;
  const Philox philox{5};
  std::uint64_t counter = 0;
  constexpr std::size_t kParameters = 700, kStride = 707, kLenses = 2;
  const std::vector<std::vector<double>> rates = {{1e-2, 5e-3}, {2e-2, 1e-2}};
  AdamStage<Real> adam(kParameters, kStride, rates, stream.get());
  std::vector<Real> p(kLenses * kStride), m(p.size(), Real(0)), v(p.size(), Real(0)), g(p.size());
  for (Real& value : p) value = static_cast<Real>(philox.normal(counter++));
  DeviceBuffer<Real> parameters = on_device(p, stream), first = on_device(m, stream), second = on_device(v, stream),
                     gradient(p.size());
  for (std::int64_t update = 1; update <= 4; ++update) {
    for (Real& value : g) value = static_cast<Real>(philox.normal(counter++));
    gradient.upload(g, stream.get());
    adam.apply(stream.get(), gradient, parameters, first, second);
    stream.synchronize();
    for (std::size_t lens = 0; lens < kLenses; ++lens) {
      const auto step = make_adam_step<Real>(rates[lens][update == 1 ? 0 : 1], update);
      for (std::size_t i = lens * kStride; i < lens * kStride + kParameters; ++i)
        adam_update(step, g[i], p[i], m[i], v[i]);
    }
  }
  const auto as_double = [](const std::vector<Real>& values) {
    return std::vector<double>(values.begin(), values.end());
  };
  expect_close(parameters.to_vector(stream.get()), as_double(p), "parameters, and nothing between the lenses");
  expect_close(first.to_vector(stream.get()), as_double(m), "first moments");
  expect_close(second.to_vector(stream.get()), as_double(v), "second moments");

  // A lens with a non-finite number stays as it is; the other lens continues.
  const std::vector<Real> before = parameters.to_vector(stream.get());
  g[kStride + 13] = std::numeric_limits<Real>::infinity();
  gradient.upload(g, stream.get());
  adam.apply(stream.get(), gradient, parameters, first, second);
  const std::vector<Real> after = parameters.to_vector(stream.get());
  std::vector<StepState> states(kLenses);
  EINFIELD_CUDA(cudaMemcpyAsync(states.data(), adam.states().data(), kLenses * sizeof(StepState),
                                cudaMemcpyDeviceToHost, stream.get()));
  stream.synchronize();
  EXPECT_EQ(states[0].updates, 5);
  EXPECT_EQ(states[0].bad_step, 0);
  EXPECT_EQ(states[1].updates, 4);
  EXPECT_EQ(states[1].bad_step, 5);
  EXPECT_FALSE(states[1].bad_loss);
  EXPECT_NE(std::vector<Real>(after.begin(), after.begin() + kParameters),
            std::vector<Real>(before.begin(), before.begin() + kParameters));
  EXPECT_EQ(std::vector<Real>(after.begin() + kStride, after.end()),
            std::vector<Real>(before.begin() + kStride, before.end()));
}
TEST_F(CudaStages, AdamInSinglePrecision) {
  check_adam<float>();
}
TEST_F(CudaStages, AdamInDoublePrecision) {
  check_adam<double>();
}

// ---- bad input
// ----------------------------------------------------------------------------------------------------------

TEST_F(CudaStages, RefuseNonsense) {
  const Stream stream;
  const Problem a = make_problem(step_cases()[0]), b = make_problem(step_cases()[3]);
  const Grid grid = a.observation.grid;
  const std::size_t stride = ParameterLayout(a.model).size();
  EXPECT_THROW(RenderStage<float>(grid, {}, stride, stream.get()), InvalidInput);
  EXPECT_THROW(RenderStage<float>(grid, {a.model, b.model}, stride, stream.get()), InvalidInput);
  // A NETWORK component without its network, and a network without a component.
  const Problem with_light = make_problem(step_cases()[10]);
  const std::size_t light_stride = ParameterLayout(with_light.model).size();
  RenderStage<float> plain(grid, {a.model}, stride, stream.get()),
      lit(grid, {with_light.model}, light_stride, stream.get());
  const auto rays = static_cast<std::size_t>(grid.n_rays()), pixels = static_cast<std::size_t>(grid.n_pixels());
  DeviceBuffer<float> data(light_stride), plain_data(stride), values(rays), vectors(2 * rays), images(pixels);
  const ImageView<float> image = dense_images<float>(images, grid.ny, grid.nx);
  const NetworkLight<float> light{values, vectors, values}, no_place{values, vectors, {}};
  EXPECT_THROW(lit.forward(stream.get(), data, {}, image), InvalidInput);
  EXPECT_THROW(plain.forward(stream.get(), plain_data, {}, image, light), InvalidInput);
  EXPECT_THROW(plain.network_positions(stream.get(), plain_data, {}, vectors), InvalidInput);
  EXPECT_THROW(lit.adjoint(stream.get(), data, {}, image, vectors, data, no_place), InvalidInput);
  EXPECT_THROW(ConvolutionStage<float>(0, 5, {Psf{}}, stream.get()), InvalidInput);
  EXPECT_THROW(ConvolutionStage<float>(5, 5, {Psf{2, 1, {1, 1}}}, stream.get()), InvalidInput);
  EXPECT_THROW(ConvolutionStage<float>(5, 5, {Psf{1, 1, {1}}, Psf{}}, stream.get()), InvalidInput);
  EXPECT_THROW(
      ConvolutionStage<float>(9, 9, {Psf{33, 1, std::vector<double>(33, 1)}}, stream.get(), ConvolutionMethod::direct),
      InvalidInput);
  EXPECT_THROW(AdamStage<float>(4, 3, {{1e-3}}, stream.get()), InvalidInput);
  EXPECT_THROW(AdamStage<float>(4, 4, {{1e-3}, {1e-3, 1e-3}}, stream.get()), InvalidInput);
  EXPECT_THROW(AdamStage<float>(4, 4, {{}}, stream.get()), InvalidInput);
  EXPECT_THROW(NetworkStage<float>(NetworkShape{{}, 1.0}, 5, 1), InvalidInput);
  EXPECT_THROW(NetworkStage<float>(NetworkShape{{4}, 1.0}, 0, 1), InvalidInput);
}

/// The message of the InvalidInput that `work` throws.
template <class Work>
std::string refusal(Work&& work) {
  try {
    work();
  } catch (const InvalidInput& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST_F(CudaStages, RefuseArraysOfOtherSizes) {
  const Stream stream;
  const Queue queue = stream.get();
  const std::vector<Problem> problems = problems_of(step_cases()[15]);  // 3 systems with everything regularized
  const Grid grid = problems[0].observation.grid;
  const ParameterLayout layout(problems[0].model);
  const std::size_t stride = layout.size() + 2, size = 2 * stride + layout.size();
  const auto n = static_cast<std::size_t>(grid.n_rays()), pixels = static_cast<std::size_t>(grid.n_pixels());
  const auto text = [](std::size_t number) { return std::to_string(number); };
  DeviceBuffer<float> vectors(size), scalars(3 * n), fields(6 * n), images(3 * pixels), wide(6 * pixels);
  DeviceBuffer<StepState> states(3);
  for (DeviceBuffer<float>* buffer : {&vectors, &scalars, &fields, &images}) buffer->zero(stream.get());
  const View<float> p(vectors), alpha(fields);

  NetworkStage<float> network(*problems[0].model.network, grid.n_rays(), 3);
  RenderStage<float> render(grid, {problems[0].model, problems[1].model, problems[2].model}, stride, stream.get());
  EXPECT_EQ(
      refusal([&] { network.forward(queue, p.from(0, 7), stride, render.positions(), scalars, alpha); }),
      "network: parameters has 7 numbers, expected at least " + text(2 * stride + problems[0].model.network->size()));
  EXPECT_EQ(refusal([&] { network.forward(queue, p, stride, alpha.from(0, 4 * n), scalars, alpha); }),
            "network: positions has " + text(4 * n) + " numbers, expected " + text(6 * n));
  EXPECT_EQ(refusal([&] { network.forward(queue, p, stride, render.positions(), scalars, scalars); }),
            "network: alpha_nn has " + text(3 * n) + " numbers, expected " + text(6 * n));
  EXPECT_EQ(refusal([&] {
              network.forward(queue, p, stride, render.positions(), scalars, alpha);
              network.adjoint(queue, p, stride, render.positions(), alpha, p.from(3));
            }),
            "nothing was thrown");  // the weights of the last system are there
  EXPECT_EQ(refusal([&] { network.forward(queue, p, stride, render.positions(), View<float>(nullptr, 3 * n), alpha); }),
            "network: potential is a null pointer, expected an array");

  const ImageView<float> image = dense_images<float>(images, grid.ny, grid.nx);
  EXPECT_EQ(refusal([&] { render.forward(queue, p.from(1), alpha, image); }),
            "render: parameters has " + text(size - 1) + " numbers, expected at least " + text(size));
  EXPECT_EQ(refusal([&] { render.forward(queue, p, alpha, dense_images<float>(wide, grid.ny, 2 * grid.nx)); }),
            "nothing was thrown");  // images with gaps
  EXPECT_EQ(refusal([&] { render.forward(queue, p, alpha, dense_images<float>(images, grid.ny - 1, grid.nx)); }),
            "render: image has strides of " + text(static_cast<std::size_t>(grid.nx)) + " and " +
                text(static_cast<std::size_t>(grid.nx * (grid.ny - 1))) + ", expected images of " +
                text(static_cast<std::size_t>(grid.ny)) + " x " + text(static_cast<std::size_t>(grid.nx)) +
                " that do not overlap");
  EXPECT_EQ(refusal([&] { render.adjoint(queue, p, alpha.from(2), image, alpha, p); }),
            "render: alpha_nn has " + text(6 * n - 2) + " numbers, expected " + text(6 * n));

  ConvolutionStage<float> convolution(grid.ny, grid.nx, {Psf{}, Psf{}, Psf{}}, stream.get());
  EXPECT_EQ(refusal([&] { convolution.forward(queue, images, alpha); }),
            "convolution: model has " + text(6 * n) + " numbers, expected " + text(3 * pixels));
  LikelihoodStage<float> likelihood(problems, stream.get());
  EXPECT_EQ(refusal([&] { likelihood.evaluate(queue, image, image, View<StepState>(states).from(1)); }),
            "likelihood: states has 2 numbers, expected 3");
  RegularizationStage<float> regularization(problems, stream.get());
  EXPECT_EQ(refusal([&] { regularization.apply(queue, render, p, alpha, {}, p, states); }),
            "regularization: alpha_bar has 0 numbers, expected " + text(6 * n));
  const RenderStage<float> other(grid, {problems[0].model}, stride, stream.get());
  EXPECT_EQ(refusal([&] { regularization.apply(queue, other, p, alpha, alpha, p, states); }),
            "regularization: a RenderStage of other models, expected those of the same problems");
  AdamStage<float> adam(layout.size(), stride, {{1e-3}, {1e-3}, {1e-3}}, stream.get());
  EXPECT_EQ(refusal([&] { adam.apply(queue, p, p, p, p.from(1)); }),
            "Adam: second_moment has " + text(size - 1) + " numbers, expected at least " + text(size));

  DeviceBuffer<int> list(4);
  EXPECT_EQ(refusal([&] {
              likelihood.evaluate({stream.get(), View<const int>(list)}, image, image, states);
            }),
            "a queue with a list of 4 systems, expected 1 ... 3");
  stream.synchronize();
}

/// A stage belongs to the device that was current at its construction.
TEST_F(CudaStages, RefuseAnotherDevice) {
  int devices = 0;
  ASSERT_EQ(cudaGetDeviceCount(&devices), cudaSuccess);
  if (devices < 2) GTEST_SKIP() << "one CUDA device";
  const Stream stream;
  const std::vector<Problem> problems = {make_problem(step_cases()[0])};
  const Grid grid = problems[0].observation.grid;
  const std::size_t size = ParameterLayout(problems[0].model).size();
  const auto n = static_cast<std::size_t>(grid.n_rays());
  const std::string expected = ": CUDA device 1 is current, expected device 0, on which the stage was constructed";
  DeviceBuffer<float> vectors(size), scalars(n), fields(2 * n);
  DeviceBuffer<StepState> states(1);
  NetworkStage<float> network(*problems[0].model.network, grid.n_rays(), 1);
  RenderStage<float> render(grid, {problems[0].model}, size, stream.get());
  ConvolutionStage<float> convolution(grid.ny, grid.nx, {problems[0].observation.psf}, stream.get());
  LikelihoodStage<float> likelihood(problems, stream.get());
  RegularizationStage<float> regularization(problems, stream.get());
  AdamStage<float> adam(size, size, {{1e-3}}, stream.get());
  const ImageView<float> image = convolution.image();
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(refusal([&] { network.forward(stream.get(), vectors, size, render.positions(), scalars, fields); }),
            "network" + expected);
  EXPECT_EQ(refusal([&] { render.forward(stream.get(), vectors, fields, image); }), "render" + expected);
  EXPECT_EQ(refusal([&] { convolution.forward(stream.get()); }), "convolution" + expected);
  EXPECT_EQ(refusal([&] { likelihood.evaluate(stream.get(), image, image, states); }), "likelihood" + expected);
  EXPECT_EQ(refusal([&] { regularization.apply(stream.get(), render, vectors, fields, fields, vectors, states); }),
            "regularization" + expected);
  EXPECT_EQ(refusal([&] { adam.set_updates(stream.get(), 0); }), "Adam" + expected);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(refusal([&] { convolution.forward(stream.get()); }), "nothing was thrown");
  stream.synchronize();
}

}  // namespace
}  // namespace einfield::cuda
