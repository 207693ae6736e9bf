// How often a fit calls the device: launches, graphs, synchronizations and bytes per evaluation. The functions below
// stand in front of the CUDA runtime, count, and pass on.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <utility>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "einfield/fitter.hpp"
#include "tests/step_problem.hpp"

namespace {

struct Calls {
  std::atomic<long> kernels{0};  ///< outside graphs
  std::atomic<long> graphs{0}, captures{0}, synchronizations{0}, copies{0}, bytes{0};
  void reset() {
    for (std::atomic<long>* count : {&kernels, &graphs, &captures, &synchronizations, &copies, &bytes}) *count = 0;
  }
} calls;
thread_local bool capturing = false;

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

/// What a kernel call of nvcc becomes.
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  if (!capturing) ++calls.kernels;
  return next<decltype(__cudaLaunchKernel)>("__cudaLaunchKernel")(kernel, grid, block, arguments, shared, stream);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  ++calls.graphs;
  return next<decltype(cudaGraphLaunch)>("cudaGraphLaunch")(graph, stream);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  capturing = true;
  ++calls.captures;
  return next<decltype(cudaStreamBeginCapture)>("cudaStreamBeginCapture")(stream, mode);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  capturing = false;
  return next<decltype(cudaStreamEndCapture)>("cudaStreamEndCapture")(stream, graph);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++calls.synchronizations;
  return next<decltype(cudaStreamSynchronize)>("cudaStreamSynchronize")(stream);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++calls.synchronizations;
  return next<decltype(cudaEventSynchronize)>("cudaEventSynchronize")(event);
}
cudaError_t cudaDeviceSynchronize() {
  ++calls.synchronizations;
  return next<decltype(cudaDeviceSynchronize)>("cudaDeviceSynchronize")();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (!capturing && kind != cudaMemcpyDeviceToDevice) {
    ++calls.copies;
    calls.bytes += static_cast<long>(bytes);
  }
  return next<decltype(cudaMemcpyAsync)>("cudaMemcpyAsync")(to, from, bytes, kind, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (!capturing && kind != cudaMemcpyDeviceToDevice) {
    ++calls.copies;
    calls.bytes += static_cast<long>(width * height);
  }
  return next<decltype(cudaMemcpy2DAsync)>("cudaMemcpy2DAsync")(to, to_pitch, from, from_pitch, width, height, kind,
                                                                stream);
}

}  // extern "C"

namespace einfield {
namespace {

class CudaCalls : public testing::Test {
 protected:
  void SetUp() override {
    if (resolve_backend("auto", {}).name != "cuda") GTEST_SKIP() << "no CUDA device";
  }
};

/// Members of an ensemble: one problem with different initial weights, the default recipe's network.
std::vector<Problem> members(int count) {
  StepCase c;
  c.nx = 8;
  c.ny = 7;
  c.hidden = {16, 16};
  c.fourier_features = 8;
  c.loss = LossKind::chi2;
  c.regularization.curvature = 1e-3;
  std::vector<Problem> all(static_cast<std::size_t>(count), make_problem(c));
  for (int i = 0; i < count; ++i)
    all[static_cast<std::size_t>(i)].initial_parameters =
        ParameterLayout(all[0].model)
            .initial_parameters(initial_weights(*all[0].model.network, static_cast<std::uint64_t>(i + 1), false));
  return all;
}

FitSettings settings(OptimizerKind optimizer, StopRule rule, int steps) {
  FitSettings s;
  s.stages[0].optimizer = optimizer;
  s.stages[0].stop = rule;
  s.stages[0].steps = steps;
  s.stages[0].schedule.learning_rates = {1e-3};
  s.patience = 1000;
  s.stop_chi2 = 0;
  s.log_every = 10;
  return s;
}

/// What a stage costs beyond its evaluations: to begin, to capture, to fetch the result.
constexpr long kOnce = 40;

TEST_F(CudaCalls, AnEvaluationIsOneGraphAndTheHostLooksEverySixteenth) {
  using Optimizer = std::pair<OptimizerKind, StopRule>;
  for (const auto& [optimizer, rule] :
       {Optimizer{OptimizerKind::adam, StopRule::none}, Optimizer{OptimizerKind::adam, StopRule::plateau},
        Optimizer{OptimizerKind::lbfgs, StopRule::held_out}, Optimizer{OptimizerKind::lbfgs, StopRule::plateau}})
    for (const int count : {3, 16}) {
      SCOPED_TRACE(std::string(name_of(optimizer)) + ", " + name_of(rule) + ", " + std::to_string(count));
      std::vector<Problem> all = members(count);
      if (rule == StopRule::held_out)
        for (Problem& p : all) {
          p.held_out.assign(p.observation.mask.size(), 0);
          p.held_out[5] = 1;
        }
      const auto backend = make_backend<float>("cuda", {});
      backend->load(all);
      calls.reset();
      const auto results = fit<float>(*backend, all, settings(optimizer, rule, 40), {});
      std::int64_t most = 0;  // evaluations of the member that took longest
      for (const FitResult<float>& result : results) {
        EXPECT_EQ(result.stop_reason, StopReason::steps);
        most = std::max(most, result.evaluations);
      }
      const std::int64_t looks = (most + 16) / 16;
      EXPECT_LE(calls.graphs, 16 * looks + 1) << "graph launches";
      EXPECT_GE(calls.graphs, most) << "graph launches";
      EXPECT_LE(calls.kernels, kOnce) << "kernels outside graphs";
      EXPECT_GT(calls.kernels, 0) << "the warm-up is not seen: nothing is counted";
      EXPECT_LE(calls.captures, 8);
      // A look waits once, and once more when a system has left the list.
      EXPECT_LE(calls.synchronizations, 2 * looks + kOnce);
      std::printf(
          "%s, %s, %d systems: %ld evaluations, %ld graphs, %ld kernels outside, %ld captures, %ld "
          "synchronizations, %ld copies, %ld bytes\n",
          name_of(optimizer), name_of(rule), count, static_cast<long>(most), calls.graphs.load(), calls.kernels.load(),
          calls.captures.load(), calls.synchronizations.load(), calls.copies.load(), calls.bytes.load());
    }
}

}  // namespace
}  // namespace einfield
