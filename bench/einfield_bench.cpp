// einfield_bench: every stage, the whole training step and short fits, timed through the backend (Google Benchmark).
// Names of cases, counters and flags: README.md in this folder.
#include <benchmark/benchmark.h>

#include <hwy/highway.h>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/fma_peak.hpp"
#include "bench/problem.hpp"
#include "einfield/core.hpp"
#include "einfield/error.hpp"
#include "einfield/fitter.hpp"
#include "host/fit/make_joint_algebra.hpp"
#ifdef EINFIELD_HAVE_CUDA
#include "kernels/cuda_backend.hpp"
#endif

namespace einfield::bench {
namespace {

constexpr int kSizes[] = {50, 100, 200, 400, 1000};
constexpr int kWidths[] = {64, 128, 200, 256};
constexpr int kSystems[] = {1, 16, 64, 256};  // in one launch; one of this size leaves most of a device idle
constexpr int kSystemWidths[] = {16, 64};
constexpr int kSystemSize = 50, kFitSteps = 20;
constexpr int kSourceSides[] = {40, 60};
/// What is timed without a filter: minutes instead of hours.
constexpr int kShortSizes[] = {100}, kShortWidths[] = {64, 200};

/// A stage: its call, and its share of step_flop(); 0 = too little arithmetic for a meaningful rate.
template <class Real>
struct Stage {
  const char* name;
  std::function<void(Backend<Real>&)> run;
  double flop_share;
};

template <class Real>
std::vector<Stage<Real>> stages() {
  using B = Backend<Real>;
  return {{"step", [](B& b) { b.step(); }, 1.0},
          {"network", [](B& b) { b.network(); }, 1.0 / 3},
          {"network_adjoint", [](B& b) { b.network_adjoint(); }, 2.0 / 3},
          {"render", [](B& b) { b.render(); }, 0},
          {"render_adjoint", [](B& b) { b.render_adjoint(); }, 0},
          {"convolve", [](B& b) { b.convolve(); }, 0},
          {"convolve_adjoint", [](B& b) { b.convolve_adjoint(); }, 0},
          {"adam", [](B& b) { b.adam(); }, 0}};
}

struct Case {
  std::string backend;
  int n, width, threads;
  int systems = 0;  ///< 0 = one system, without a part of the name for it
  NetworkMath math = NetworkMath::fp32;
  std::string name(const char* stage, const char* real) const {
    std::string name = std::string(stage) + "/" + backend + "/" + real + "/n:" + std::to_string(n);
    if (width > 0) name += "/h:" + std::to_string(width);
    name += "/t:" + std::to_string(threads);
    if (systems > 0) name += "/systems:" + std::to_string(systems);
    if (math != NetworkMath::fp32) name += std::string("/math:") + name_of(math);
    return name;
  }
  std::vector<Problem> problems() const {
    Problem problem = paper_problem(n, std::vector<int>(3, width));
    problem.network_math = math;
    return std::vector<Problem>(static_cast<std::size_t>(std::max(1, systems)), problem);
  }
};

template <class Real>
constexpr const char* kRealName = sizeof(Real) == 4 ? "float" : "double";

/// The peak for this number of threads: the best of all bursts of this run.
template <class Real>
FmaPeak<Real>& peak(int threads) {
  static std::map<int, FmaPeak<Real>> peaks;
  return peaks.try_emplace(threads, threads).first->second;
}

/// Seconds of `calls` calls, by the clock or, on a device, by CUDA events.
template <class Real>
double seconds_of(Backend<Real>& backend, int calls, const Stage<Real>& stage) {
  const auto work = [&] {
    for (int call = 0; call < calls; ++call) stage.run(backend);
  };
#ifdef EINFIELD_HAVE_CUDA
  if (backend.name() == "cuda") return cuda_milliseconds<Real>(backend, work) * 1e-3;
#endif
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Median and best of all iterations, in ms, and what follows from the median.
double report_seconds(benchmark::State& state, std::vector<double> seconds, int systems) {
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  state.counters["median_ms"] = median * 1e3;
  state.counters["best_ms"] = seconds.front() * 1e3;
  if (systems > 0) state.counters["system_steps_per_s"] = systems / median;
  return median;
}

/// One case. An iteration is one call on the CPU, and kBatch calls in a row on a device. Google Benchmark's own clocks
/// would put "/manual_time" or "/real_time" into the names, so its default is kept and the counters come from ours.
template <class Real>
void run_case(benchmark::State& state, const Case& c, const Stage<Real>& stage) {
  constexpr int kBatch = 20;
  const bool cpu = c.backend == "cpu";
  const int calls = cpu ? 1 : kBatch;
  const std::vector<Problem> problems = c.problems();
  BackendOptions options;
  options.threads = c.threads;
  const auto backend = make_backend<Real>(c.backend, options);
  backend->load(problems);
  backend->step();  // fills every field, touches every page
  backend->state(0);

  std::vector<double> seconds;
  for (auto _ : state) {
    state.PauseTiming();
    if (cpu) peak<Real>(c.threads).burst();
    state.ResumeTiming();
    seconds.push_back(seconds_of(*backend, calls, stage) / calls);
  }

  const double median = report_seconds(state, seconds, c.systems);
  const double pixels = static_cast<double>(problems.size()) * c.n * c.n;
  state.counters["ns_per_pixel"] = median * 1e9 / pixels;
  state.counters["bytes_per_pixel"] = static_cast<double>(planned_bytes<Real>(c.backend, problems, options)) / pixels;
  if (stage.flop_share > 0) {
    const double flop = static_cast<double>(problems.size()) * step_flop(c.n, std::vector<int>(3, c.width));
    const double rate = stage.flop_share * flop / median * 1e-9;
    state.counters["GFLOP_per_s"] = rate;
    if (cpu) {
      const double best = peak<Real>(c.threads).gflop_per_s();
      state.counters["fma_peak_GFLOP_per_s"] = best;
      state.counters["share_of_fma_peak"] = rate / best;
    }
  }
  state.SetLabel(backend->device());
}

/// A fit of kFitSteps steps from the initial values, with everything that the host does between them.
template <class Real>
void run_fit(benchmark::State& state, const Case& c, OptimizerKind optimizer) {
  const std::vector<Problem> problems =
      optimizer == OptimizerKind::levenberg_marquardt
          ? std::vector<Problem>(static_cast<std::size_t>(std::max(1, c.systems)), profile_problem(c.n))
          : c.problems();
  BackendOptions options;
  options.threads = c.threads;
  const auto backend = make_backend<Real>(c.backend, options);
  FitSettings settings;
  settings.threads = c.threads;
  settings.log_every = kFitSteps;
  settings.stages[0].optimizer = optimizer;
  settings.stages[0].steps = kFitSteps;
  std::vector<double> seconds;
  std::int64_t steps = 0, evaluations = 0;
  for (auto _ : state) {
    state.PauseTiming();
    backend->load(problems);
    backend->evaluate(true);
    backend->state(0);
    state.ResumeTiming();
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const auto results = fit<Real>(*backend, problems, settings, {});
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    steps = results[0].steps;
    evaluations = results[0].evaluations;
  }
  const double median = report_seconds(state, seconds, 0);
  state.counters["steps"] = static_cast<double>(steps);
  state.counters["evaluations"] = static_cast<double>(evaluations);
  state.counters["ms_per_evaluation"] = median * 1e3 / static_cast<double>(std::max<std::int64_t>(1, evaluations));
  state.SetLabel(backend->device());
}

/// A part of a step of Gauss–Newton, on a joint_problem().
struct JointPart {
  const char* name;
  std::function<void(JointModel&, JointAlgebra&, const Linearization&)> run;
};

/// Five points are rendered in a step, one is linearized, and its pixels are eliminated.
std::vector<JointPart> joint_parts() {
  using L = Linearization;
  return {{"gn_value", [](JointModel& m, JointAlgebra&, const L&) { m.value(m.problem().initial_parameters); }},
          {"gn_linearize", [](JointModel& m, JointAlgebra&, const L&) { m.linearize(m.problem().initial_parameters); }},
          {"gn_eliminate", [](JointModel& m, JointAlgebra& algebra, const L& l) {
             algebra.normal(l)->eliminate(m.source_prior().precision(m.problem().regularization));
           }}};
}

void run_joint(benchmark::State& state, const Case& c, int side, const JointPart& part) {
  const Problem problem = joint_problem(c.n, side);
  const auto backend = make_backend<double>(c.backend, {});
  backend->load({problem});
  ThreadPool pool(c.threads);
  JointModel model(problem, {}, pool);
  const auto algebra = make_joint_algebra(*backend, model, pool);
  model.hold_lens_directions(problem.initial_parameters);
  const Linearization l = model.linearize(problem.initial_parameters);
  std::vector<double> seconds;
  for (auto _ : state) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    part.run(model, *algebra, l);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  report_seconds(state, seconds, 0);
  state.SetLabel(backend->device());
}

void add_joint(const Case& c, int side, const JointPart& part) {
  const auto body = [c, side, part](benchmark::State& state) { run_joint(state, c, side, part); };
  benchmark::RegisterBenchmark((c.name(part.name, "double") + "/source:" + std::to_string(side)).c_str(), body)
      ->Unit(benchmark::kMillisecond);
}

template <class Real>
void add(const Case& c, const Stage<Real>& stage) {
  const auto body = [c, stage](benchmark::State& state) { run_case(state, c, stage); };
  benchmark::RegisterBenchmark(c.name(stage.name, kRealName<Real>).c_str(), body)->Unit(benchmark::kMillisecond);
}

template <class Real>
void add_fit(const char* name, const Case& c, OptimizerKind optimizer) {
  const auto body = [c, optimizer](benchmark::State& state) { run_fit<Real>(state, c, optimizer); };
  benchmark::RegisterBenchmark(c.name(name, kRealName<Real>).c_str(), body)->Unit(benchmark::kMillisecond);
}

/// @param all  every size and width; false: a few, in minutes
template <class Real>
void register_cases(const std::string& backend, bool all) {
  std::vector<int> threads{1};
  if (const int most = ThreadPool::resolve(0); backend == "cpu" && most > 1) threads.push_back(most);
  const auto sizes = all ? std::vector<int>(std::begin(kSizes), std::end(kSizes))
                         : std::vector<int>(std::begin(kShortSizes), std::end(kShortSizes));
  const auto widths = all ? std::vector<int>(std::begin(kWidths), std::end(kWidths))
                          : std::vector<int>(std::begin(kShortWidths), std::end(kShortWidths));
  const bool single = sizeof(Real) == sizeof(float);
  for (const Stage<Real>& stage : stages<Real>())
    if (all || single || stage.flop_share == 1)
      for (const int n : sizes)
        for (const int width : widths)
          for (const int t : threads) add({backend, n, width, t}, stage);
  if (backend == "cuda" && single)
    for (const NetworkMath math : {NetworkMath::tf32x3, NetworkMath::tf32})
      for (const Stage<Real>& stage : stages<Real>())
        if (stage.flop_share > 0)
          for (const int width : widths) add({backend, 100, width, 1, 0, math}, stage);
  if (single)
    for (const int width : kSystemWidths)
      for (const int systems : kSystems)
        add({backend, kSystemSize, width, threads.back(), systems}, stages<Real>().front());
  if (single)
    for (const int systems : {1, 16})
      add_fit<Real>("lbfgs", {backend, kSystemSize, 16, threads.back(), systems}, OptimizerKind::lbfgs);
  if (!single)
    for (const int systems : {1, 16})
      add_fit<Real>("lm", {backend, kSystemSize, 0, threads.back(), systems}, OptimizerKind::levenberg_marquardt);
  if (!single)
    for (const JointPart& part : joint_parts())
      for (const int side : kSourceSides) add_joint({backend, 100, 0, threads.back()}, side, part);
}

/// Whether Google Benchmark will be told which cases to run.
bool has_filter(int argc, char** argv) {
  return std::any_of(argv + 1, argv + argc,
                     [](const char* word) { return std::string(word).rfind("--benchmark_filter", 0) == 0; });
}

/// Removes `--name VALUE` or `--name=VALUE` from the arguments and returns the value; Google Benchmark reads the rest.
std::string take_option(int& argc, char** argv, const std::string& name, std::string value) {
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind(name + "=", 0) == 0) {
      value = argument.substr(name.size() + 1);
    } else if (argument == name) {
      if (++i == argc) throw InvalidInput(name + ": no value");
      value = argv[i];
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  return value;
}

/// Disables all vector instructions beyond those named.
void limit_instructions(const std::string& name) {
  std::int64_t better = 0;
  std::string known;
  for (std::int64_t rest = hwy::SupportedTargets(); rest != 0; rest &= rest - 1) {  // from the best
    const std::int64_t target = rest & -rest;
    if (name == hwy::TargetName(target)) {
      if (better != 0) hwy::DisableTargets(better);
      return;
    }
    better |= target;
    known += std::string(known.empty() ? "" : ", ") + hwy::TargetName(target);
  }
  throw InvalidInput("--instructions: " + name + ", expected one of " + known);
}

int run(int argc, char** argv) {
  const std::string backend =
      take_option(argc, argv, "--backend", resolve_backend("auto", {}).name == "cpu" ? "cpu" : "all");
  const std::string instructions = take_option(argc, argv, "--instructions", "");
  if (backend != "cpu" && backend != "cuda" && backend != "all")
    throw InvalidInput("--backend: " + backend + ", expected cpu, cuda or all");
  if (!instructions.empty()) limit_instructions(instructions);
  const bool all = has_filter(argc, argv);
  if (backend != "cuda") {
    register_cases<float>("cpu", all);
    register_cases<double>("cpu", all);
  }
  if (backend != "cpu") {
    make_backend<float>("cuda", {});  // throws without a device
    register_cases<float>("cuda", all);
    register_cases<double>("cuda", all);
  }

  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("einfield", std::to_string(EINFIELD_VERSION_MAJOR) + "." +
                                              std::to_string(EINFIELD_VERSION_MINOR) + "." +
                                              std::to_string(EINFIELD_VERSION_PATCH));
  benchmark::AddCustomContext("compiler", __VERSION__);
  benchmark::AddCustomContext("vector_instructions", FmaPeak<float>::instructions());
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace einfield::bench

int main(int argc, char** argv) {
  try {
    return einfield::bench::run(argc, argv);
  } catch (const einfield::BackendUnavailable& error) {
    std::fprintf(stderr, "einfield_bench: error: %s\n", error.what());
    return 3;
  } catch (const einfield::InvalidInput& error) {
    std::fprintf(stderr, "einfield_bench: error: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "einfield_bench: error: %s\n", error.what());
    return 1;
  }
}
