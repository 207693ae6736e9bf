// How often a fit calls the device: launches, graphs, synchronizations and bytes per evaluation. The functions below
// stand in front of the CUDA runtime, count, and pass on.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "einfield/fitter.hpp"
#include "tests/step_problem.hpp"

namespace {

struct Calls {
  std::atomic<long> kernels{0};   ///< outside graphs
  std::atomic<long> captured{0};  ///< kernels inside
  std::atomic<long> graphs{0}, captures{0}, synchronizations{0}, copies{0}, bytes{0};
  void reset() {
    for (std::atomic<long>* count : {&kernels, &captured, &graphs, &captures, &synchronizations, &copies, &bytes})
      *count = 0;
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
  ++(capturing ? calls.captured : calls.kernels);
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

/// What one fit calls, and the evaluations of the system that took longest.
struct Fit {
  long evaluations, graphs, kernels, captured, captures, synchronizations, copies, bytes;
};

Fit count_fit(Backend<float>& backend, std::vector<Problem> all, OptimizerKind optimizer, StopRule rule, int steps) {
  if (rule == StopRule::held_out)
    for (Problem& p : all) {
      p.held_out.assign(p.observation.mask.size(), 0);
      p.held_out[5] = 1;
    }
  backend.load(all);
  calls.reset();
  long most = 0;
  for (const FitResult<float>& result : fit<float>(backend, all, settings(optimizer, rule, steps), {})) {
    EXPECT_EQ(result.stop_reason, StopReason::steps);
    most = std::max(most, static_cast<long>(result.evaluations));
  }
  return {most,           calls.graphs,           calls.kernels, calls.captured,
          calls.captures, calls.synchronizations, calls.copies,  calls.bytes};
}

/// Of two fits of different length the difference: what a stage costs to begin and to end is in both. Between them lie
/// some looks: one graph per evaluation, at each look one wait and three copies (progress, heads of the records, free
/// parameters), and nothing else.
void expect_cheap(OptimizerKind optimizer, StopRule rule, int count) {
  SCOPED_TRACE(std::string(name_of(optimizer)) + ", " + name_of(rule) + ", " + std::to_string(count) + " systems");
  const auto backend = make_backend<float>("cuda", {});
  const std::vector<Problem> all = members(count);
  const Fit brief = count_fit(*backend, all, optimizer, rule, 8), full = count_fit(*backend, all, optimizer, rule, 40);
  const long evaluations = full.evaluations - brief.evaluations, looks = evaluations / 16 + 1;
  ASSERT_GE(evaluations, 32);
  EXPECT_GE(full.graphs, full.evaluations);
  EXPECT_LE(full.graphs - brief.graphs, 16 * looks) << "one graph for an evaluation";
  EXPECT_GT(brief.kernels, 0) << "the warm-up is not seen: nothing is counted";
  EXPECT_LE(full.kernels - brief.kernels, 0) << "kernels outside graphs";
  EXPECT_LE(full.captures, 3);
  EXPECT_LE(full.captured, 3 * 20) << "kernels in a graph";
  EXPECT_LE(full.synchronizations - brief.synchronizations, looks + 1) << "at most every sixteenth evaluation";
  EXPECT_LE(full.copies - brief.copies, 3 * (looks + 1));
  // Per system and look: 16 records with their heads and free parameters, and the progress. L-BFGS hands over its pairs
  // at the end.
  const long pairs = optimizer == OptimizerKind::lbfgs ? settings(optimizer, rule, 1).stages[0].memory : 0,
             size = static_cast<long>(backend->layout().size());
  EXPECT_LE(full.bytes - brief.bytes,
            count * ((looks + 1) * 2048 + pairs * 2 * size * static_cast<long>(sizeof(float))));
  std::printf(
      "%s, %s, %d systems: %ld evaluations, %ld graphs, %ld kernels outside, %ld captured, %ld synchronizations, %ld "
      "copies, %ld bytes; the last %ld evaluations: %ld graphs, %ld synchronizations, %ld copies, %ld bytes\n",
      name_of(optimizer), name_of(rule), count, full.evaluations, full.graphs, full.kernels, full.captured,
      full.synchronizations, full.copies, full.bytes, evaluations, full.graphs - brief.graphs,
      full.synchronizations - brief.synchronizations, full.copies - brief.copies, full.bytes - brief.bytes);
}

TEST_F(CudaCalls, AnEvaluationIsOneGraphAndTheHostLooksEverySixteenth) {
  for (const OptimizerKind optimizer : {OptimizerKind::adam, OptimizerKind::lbfgs})
    for (const StopRule rule : {StopRule::none, StopRule::chi2, StopRule::held_out, StopRule::plateau})
      expect_cheap(optimizer, rule, 3);
}

TEST_F(CudaCalls, ManyMembersCostNoMoreCallsThanThree) {
  expect_cheap(OptimizerKind::lbfgs, StopRule::plateau, 32);
}

/// A step or an evaluation is one graph; states and whole fields come in one copy, however many systems there are.
TEST_F(CudaCalls, StatesAndFieldsOfAllSystemsAreOneCopy) {
  const auto backend = make_backend<float>("cuda", {});
  backend->load(members(5));
  backend->evaluate(true);
  backend->step();  // captured here
  backend->states();
  calls.reset();
  backend->evaluate(true);
  backend->step();
  EXPECT_EQ(calls.graphs, 2);
  EXPECT_EQ(calls.kernels, 0);
  EXPECT_EQ(calls.synchronizations, 0);
  EXPECT_EQ(calls.copies, 0);
  backend->states();
  EXPECT_EQ(calls.synchronizations, 1);
  EXPECT_EQ(calls.copies, 1);
  for (const Field field : {Field::parameters, Field::gradient, Field::deflection, Field::image, Field::model,
                            Field::model_bar, Field::image_bar}) {
    calls.reset();
    const std::vector<float> values = backend->download(field);
    EXPECT_EQ(calls.synchronizations, 1);
    EXPECT_EQ(calls.copies, 1);
    calls.reset();
    backend->upload(field, values);
    EXPECT_EQ(calls.synchronizations, 1);
    EXPECT_EQ(calls.copies, 1);
    EXPECT_EQ(backend->download(field), values);
    const std::vector<float> last = backend->download(field, 4);
    EXPECT_TRUE(std::equal(last.begin(), last.end(), values.end() - static_cast<std::ptrdiff_t>(last.size())));
  }
}

}  // namespace
}  // namespace einfield
