// Whole small fits on the device: as near to the CPU's as the project promises, the same bits twice, and through the
// binary as a user runs it, with a device and without.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "einfield/fitter.hpp"
#include "einfield/limits.hpp"
#include "einfield/load.hpp"
#include "host/app/simulate.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

/// The project's promise: how far CPU and CUDA may be apart, relative to the largest value.
template <class Real>
struct Promise {
  static constexpr double values = sizeof(Real) == 4 ? 1e-5 : 1e-11;
  static constexpr double gradient = sizeof(Real) == 4 ? 1e-4 : 1e-9;
  static constexpr double loss_of_20_steps = sizeof(Real) == 4 ? 1e-3 : 1e-8;
};

template <class Real>
void expect_close(const std::vector<Real>& found, const std::vector<Real>& expected, double tolerance,
                  const char* what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(found[i])) << what << " " << i;
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    error = std::max(error, std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i])));
  }
  EXPECT_LE(error, tolerance * largest) << what << ", largest " << largest;
}

bool device_available() {
  return resolve_backend("auto", {}).name == "cuda";
}

class CudaFit : public testing::Test {
 protected:
  void SetUp() override {
    if (!device_available()) GTEST_SKIP() << "no CUDA device";
  }
};

/// @param network  hidden and fourier_features count
StepCase fit_case(const NetworkShape& network) {
  StepCase c;
  c.nx = c.ny = 32;
  c.hidden = network.hidden;
  c.fourier_features = network.fourier_features;
  c.free_lens = c.free_light = c.lens_light = true;
  c.masked = true;
  c.loss = LossKind::chi2;
  return c;
}

const std::vector<NetworkShape>& networks() {
  static const std::vector<NetworkShape> all = {
      {{16}}, {{200, 200}}, {{33, 33, 33}}, {{16, 33, 16, 7}}, {{48, 48}, 1, 16}, {{}, 1, 24}};
  return all;
}

template <class Real>
FitResult<Real> train(Backend<Real>& backend, const Problem& problem) {
  backend.load({problem});
  FitSettings settings;
  settings.stages[0].steps = 20;
  settings.log_every = 5;
  return fit<Real>(backend, {problem}, settings, {}).front();
}

template <class Real>
void check_fits() {
  const auto cpu = make_backend<Real>("cpu", {2, 0});
  const auto cuda = make_backend<Real>("cuda", {});
  ASSERT_EQ(cuda->name(), "cuda");
  for (const NetworkShape& network : networks()) {
    Problem problem = make_problem(fit_case(network));
    problem.observation.grid.pixel_scale = 0.1;
    SCOPED_TRACE(std::to_string(network.layers()) + " layers, the first of " + std::to_string(network.outputs(0)));
    for (auto* backend : {cpu.get(), cuda.get()}) {
      backend->load({problem});
      backend->evaluate(true);
    }
    for (const Field field : {Field::potential, Field::deflection, Field::image, Field::model})
      expect_close(cuda->download(field, 0), cpu->download(field, 0), Promise<Real>::values, "a field");
    // Every tensor and every other parameter by its own scale would ask for more than single precision holds where a
    // gradient cancels; the largest of each group is the scale.
    const std::vector<Real> found = cuda->download(Field::gradient, 0), expected = cpu->download(Field::gradient, 0);
    const NetworkShape& shape = *problem.model.network;
    std::vector<std::size_t> edges;
    for (int l = 0; l < shape.layers(); ++l) {
      edges.push_back(shape.kernel_offset(l));
      if (l + 1 < shape.layers()) edges.push_back(shape.bias_offset(l));  // the last bias moves nothing
    }
    edges.push_back(shape.size());
    edges.push_back(found.size());
    for (std::size_t i = 0; i + 1 < edges.size(); ++i) {
      const auto part = [&](const std::vector<Real>& all) {
        return std::vector<Real>(all.begin() + static_cast<std::ptrdiff_t>(edges[i]),
                                 all.begin() + static_cast<std::ptrdiff_t>(edges[i + 1]));
      };
      expect_close(part(found), part(expected), Promise<Real>::gradient, "gradient");
    }

    const FitResult<Real> on_cpu = train(*cpu, problem), on_cuda = train(*cuda, problem);
    ASSERT_EQ(on_cuda.snapshot.history.size(), on_cpu.snapshot.history.size());
    for (std::size_t i = 0; i < on_cpu.snapshot.history.size(); ++i) {
      const double loss = on_cpu.snapshot.history[i].loss;
      EXPECT_NEAR(on_cuda.snapshot.history[i].loss, loss, Promise<Real>::loss_of_20_steps * loss) << "row " << i;
    }
    EXPECT_LT(on_cuda.final_state.loss, on_cuda.snapshot.history.front().loss);
    if (network.hidden.size() != 1) continue;
    const FitResult<Real> again = train(*cuda, problem);
    EXPECT_EQ(again.parameters, on_cuda.parameters) << "the same bits";
    EXPECT_EQ(again.final_state.loss, on_cuda.final_state.loss) << "the same bits";
  }
}
TEST_F(CudaFit, AgreesWithTheCpuInSinglePrecision) {
  check_fits<float>();
}
TEST_F(CudaFit, AgreesWithTheCpuInDoublePrecision) {
  check_fits<double>();
}

/// Each kind of content, field by field. Values of a step agree more closely than whole fits.
template <class Real>
void check_contents() {
  constexpr double kTolerance = sizeof(Real) == 4 ? 1e-5 : 1e-12;
  const auto cpu = make_backend<Real>("cpu", {2, 0});
  const auto cuda = make_backend<Real>("cuda", {});
  for (const StepCase& c : step_cases()) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    std::vector<Real> theta;
    for (const double v : {0.3, -1.2, 0.05, 0.7, 0.4, -0.9}) theta.push_back(static_cast<Real>(v));
    for (auto* backend : {cpu.get(), cuda.get()}) {
      backend->load({problem});
      backend->evaluate(true);
    }
    for (const Field field : {Field::potential, Field::deflection, Field::image, Field::model, Field::model_bar,
                              Field::image_bar, Field::deflection_bar, Field::gradient})
      expect_close(cuda->download(field, 0), cpu->download(field, 0), kTolerance, "a field");
    const StepState on_cuda = cuda->state(0), on_cpu = cpu->state(0);
    EXPECT_NEAR(on_cuda.loss, on_cpu.loss, kTolerance * on_cpu.loss);
    EXPECT_NEAR(on_cuda.regularization, on_cpu.regularization, kTolerance * on_cpu.loss);
    const NetworkFields<Real> found = cuda->network_fields(0, theta), expected = cpu->network_fields(0, theta);
    expect_close(found.potential, expected.potential, kTolerance, "potential");
    expect_close(found.deflection, expected.deflection, kTolerance, "deflection");
    expect_close(found.convergence, expected.convergence, kTolerance, "convergence");
  }
}
TEST_F(CudaFit, EveryContentAgreesWithTheCpuInSinglePrecision) {
  check_contents<float>();
}
TEST_F(CudaFit, EveryContentAgreesWithTheCpuInDoublePrecision) {
  check_contents<double>();
}

/// As many components in a block as a configuration may have, the last of each block with a free parameter.
TEST_F(CudaFit, TakesAsManyComponentsAsAConfiguration) {
  StepCase c;
  c.nx = c.ny = 4;
  c.psf_size = 0;
  c.hidden = {};
  c.more_components = static_cast<int>(kMaxComponents) - 2;
  Problem problem = make_problem(c);
  ASSERT_EQ(problem.model.lens.size(), kMaxComponents);
  for (LensComponent& lens : problem.model.lens)
    if (lens.kind == LensKind::sis) lens.values[0] = 1e-5;  // the rays still meet the source
  problem.model.lens.back().free[0] = problem.model.source.back().free[0] = true;
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters({});
  const auto cpu = make_backend<double>("cpu", {2, 0});
  const auto cuda = make_backend<double>("cuda", {});
  for (auto* backend : {cpu.get(), cuda.get()}) {
    backend->load({problem});
    backend->evaluate(true);
  }
  for (const Field field : {Field::image, Field::gradient})
    expect_close(cuda->download(field, 0), cpu->download(field, 0), 1e-12, "a field");
  const std::vector<double> gradient = cuda->download(Field::gradient, 0);
  ASSERT_EQ(gradient.size(), 2u);
  EXPECT_NE(gradient[0], 0);
  EXPECT_NE(gradient[1], 0);
}

/// A fit on the matrix units ends where that of fp32 does, within 0.1 % of its loss; with one product of TF32 it still
/// fits, and is another one.
TEST_F(CudaFit, OnTheMatrixUnitsEndsAsInFp32) {
  Problem problem = make_problem(fit_case({{33, 33, 33}}));
  problem.observation.grid.pixel_scale = 0.1;
  const auto cuda = make_backend<float>("cuda", {});
  const auto fitted = [&](NetworkMath math) {
    problem.network_math = math;
    return train(*cuda, problem);
  };
  const FitResult<float> fp32 = fitted(NetworkMath::fp32), exact = fitted(NetworkMath::tf32x3),
                         fast = fitted(NetworkMath::tf32);
  EXPECT_NEAR(exact.final_state.loss, fp32.final_state.loss, 1e-3 * fp32.final_state.loss);
  EXPECT_LT(fast.final_state.loss, fast.snapshot.history.front().loss);
  EXPECT_NE(exact.parameters, fp32.parameters) << "the same arithmetic";
  EXPECT_NE(fast.parameters, exact.parameters) << "the same arithmetic";
  EXPECT_EQ(fitted(NetworkMath::tf32x3).parameters, exact.parameters) << "the same bits";
}

/// The default recipe: L-BFGS on three small networks until the value no longer falls. A nearly round lens with a
/// subhalo, known source. The noise is large, so that the fit takes some hundred evaluations: rounding grows from one
/// to the next, and after seven hundred (noise 0.2) single and double precision on one CPU end 0.06 to 0.11 σ apart.
class DefaultRecipe {
 public:
  DefaultRecipe() {
    folder_.write("lens.toml", R"([observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
psf = { fwhm = 0.4, size = 5 }
pixel_scale = 0.18
[[lens]]
profile = "SIE"
theta_E = 1.1
e1 = 0.02
e2 = -0.01
fit = []
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 0.5
n_sersic = 1.5
center_x = 0.1
fit = []
[network]
[truth]
file = "data.fits"
[simulate]
nx = 22
ny = 27
noise = 30
seed = 2
[[perturbation]]
profile = "SIE"
theta_E = 0.05
center_x = 0.9
center_y = -0.6
)");
    simulate(read_config(folder_ / "lens.toml", {}, true), folder_ / "data.fits", false);
    config_ = read_config(folder_ / "lens.toml", {}, true);
    const Problem problem = load_problem(config_).problem;
    problems_ = ensemble_problems(config_, problem);
    settings_ = fit_settings(config_, problem.model, 10);
  }
  const std::vector<Problem>& problems() const { return problems_; }
  const FitSettings& settings() const { return settings_; }

 private:
  TemporaryDirectory folder_;
  Config config_;
  std::vector<Problem> problems_;
  FitSettings settings_;
};

TEST_F(CudaFit, TheDefaultRecipeTakesTheSameFirstStepsInDoublePrecision) {
  const DefaultRecipe recipe;
  const StageSettings& stage = recipe.settings().stages.front();
  ASSERT_EQ(stage.optimizer, OptimizerKind::lbfgs);
  std::vector<std::vector<double>> images;
  for (const char* name : {"cpu", "cuda"}) {
    const auto backend = make_backend<double>(name, {2, 0});
    backend->load(recipe.problems());
    StageRun run{stage.optimizer, stage.schedule, stage.memory, {}, 10};
    run.stop.steps = 1000;
    backend->begin_stage(run, std::vector<StageStart<double>>(recipe.problems().size()));
    backend->advance(20);
    backend->upload(Field::parameters, backend->download(Field::position));
    backend->evaluate(false);
    images.push_back(backend->download(Field::model));
  }
  double error = 0;
  const std::size_t pixels = images[0].size() / recipe.problems().size();
  for (std::size_t i = 0; i < images[0].size(); ++i)
    error = std::max(error, std::abs(images[0][i] - images[1][i]) / recipe.problems()[0].observation.noise[i % pixels]);
  EXPECT_LE(error, 1e-9) << "of the noise";
}

TEST_F(CudaFit, TheDefaultRecipeEndsAsOnTheCpu) {
  const DefaultRecipe recipe;
  std::vector<std::vector<float>> images;
  for (const char* name : {"cpu", "cuda"}) {
    const auto backend = make_backend<float>(name, {2, 0});
    backend->load(recipe.problems());
    for (const FitResult<float>& result : fit<float>(*backend, recipe.problems(), recipe.settings(), {})) {
      EXPECT_EQ(result.stop_reason, StopReason::plateau) << name;
      EXPECT_GT(result.steps, 10) << name;
    }
    images.push_back(backend->download(Field::model));
  }
  const std::size_t pixels = images[0].size() / recipe.problems().size();
  for (std::size_t member = 0; member < recipe.problems().size(); ++member) {
    double sum = 0;
    for (std::size_t i = 0; i < pixels; ++i) {
      const double noise = recipe.problems()[0].observation.noise[i];
      const double difference = (images[0][member * pixels + i] - images[1][member * pixels + i]) / noise;
      sum += difference * difference;
    }
    EXPECT_LE(std::sqrt(sum / static_cast<double>(pixels)), 0.03) << "of the noise, member " << member;
  }
}

TEST_F(CudaFit, ARunTooLargeForTheDeviceIsRefusedBeforeIt) {
  Problem problem = make_problem(StepCase{});
  problem.observation.grid = {2048, 2048, 0.1, 0, 0, 8};
  const std::size_t n = 2048 * 2048;
  problem.observation.image.assign(n, 1.0);
  problem.observation.noise.assign(n, 1.0);
  problem.observation.mask.assign(n, 1);
  problem.model.network = NetworkShape{{4096}, 1.0};
  problem.initial_parameters.assign(ParameterLayout(problem.model).size(), 0.01);
  const auto cuda = make_backend<float>("cuda", {});
  try {
    cuda->load({problem});
    FAIL() << "a problem of terabytes was taken";
  } catch (const CudaError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("needs"), std::string::npos) << text;
    EXPECT_NE(text.find(std::to_string(planned_bytes<float>("cuda", {problem}, {}))), std::string::npos) << text;
  }
  EXPECT_EQ(cuda->systems(), 0);
  cuda->load({make_problem(StepCase{})});  // and the backend is as good as new
  cuda->step();
  EXPECT_EQ(cuda->state(0).updates, 1);
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST_F(CudaFit, TheBinaryFitsResumesAndSaysWhatItTook) {
  const SmallLens lens;
  const std::string out = lens.folder() / "whole", parts = lens.folder() / "parts";
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"fit", lens.path(), "--backend", "cuda", "--log-every", "5"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = run_binary(words);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    // run_binary() hides gnuplot; anything else would be news.
    EXPECT_EQ(outcome.err, "einfield: warning: gnuplot is not installed: no figures were drawn\n");
    return outcome.out;
  };
  const std::string said = run({"--out", out, "--set", "optimizer.steps=20"});
  EXPECT_NE(said.find("backend: cuda ("), std::string::npos) << said;
  EXPECT_NE(said.find(" planned"), std::string::npos) << said;
  const nlohmann::json result = nlohmann::json::parse(contents(out + "/result.json"));
  EXPECT_EQ(result["backend"], "cuda");
  EXPECT_EQ(result["steps"], 20);
  run({"--out", parts, "--set", "optimizer.steps=12"});
  run({"--out", parts, "--set", "optimizer.steps=20", "--resume"});
  EXPECT_EQ(contents(parts + "/network.safetensors"), contents(out + "/network.safetensors"))
      << "resumed: the same bits";

  const Outcome units = run_binary({"fit", lens.path(), "--backend", "cuda", "--out", lens.folder() / "units", "--set",
                                    "network.math=\"tf32x3\"", "--set", "optimizer.steps=2"});
  EXPECT_EQ(units.status, 0) << units.err;
  const Outcome in_double = run_binary({"fit", lens.path(), "--backend", "cuda", "--precision", "double", "--dry-run",
                                        "--set", "network.math=\"tf32x3\""});
  EXPECT_EQ(in_double.status, 2);
  EXPECT_EQ(in_double.err,
            "einfield: error: --set: network.math: needs single precision, found \"tf32x3\" with double, expected "
            "\"fp32\" or --precision single\n");

  const Outcome automatic = run_binary({"fit", lens.path(), "--dry-run", "--out", lens.folder() / "auto"});
  EXPECT_EQ(automatic.status, 0) << automatic.err;
  EXPECT_NE(automatic.out.find("backend: cuda ("), std::string::npos) << automatic.out;
}

/// The profiles of a lens with a fixed network in front: both backends end at the same parameters and uncertainties.
TEST_F(CudaFit, TheBinaryFitsProfilesOnTheDevice) {
  const SmallLens lens;
  nlohmann::json results[2];
  for (const std::string backend : {"cpu", "cuda"}) {
    const std::string out = lens.folder() / backend;
    const Outcome outcome =
        run_binary({"fit", lens.path(), "--backend", backend, "--precision", "double", "--out", out, "--set",
                    "optimizer.name='levenberg_marquardt'", "--set", "optimizer.starts=3"});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    const bool device = backend == "cuda";
    EXPECT_NE(outcome.out.find(device ? "levenberg_marquardt: on the device, double precision"
                                      : "levenberg_marquardt: on the CPU"),
              std::string::npos)
        << outcome.out;
    results[device] = nlohmann::json::parse(contents(out + "/result.json"));
  }
  for (const std::string name : {"lens.0.theta_E", "lens.0.e1"}) {
    EXPECT_NEAR(results[1]["parameters"][name].get<double>(), results[0]["parameters"][name].get<double>(), 1e-6)
        << name;
    const double sigma = results[0]["uncertainties"]["sigma"][name].get<double>();
    ASSERT_GT(sigma, 0) << name;
    EXPECT_NEAR(results[1]["uncertainties"]["sigma"][name].get<double>(), sigma, 1e-6 * sigma) << name;
  }
}

/// No device, or none that may be seen: this test runs everywhere. A virtual device does not read
/// CUDA_VISIBLE_DEVICES; it is hidden by a library in front of the runtime.
TEST(NoCudaDevice, IsSaidInOneLineAndAutoTakesTheCpu) {
  const SmallLens lens;
  Surroundings without;
  without.environment = {{"CUDA_VISIBLE_DEVICES", "-1"}};
#ifdef EINFIELD_DEVICE_SHIM
  without.environment["LD_PRELOAD"] = EINFIELD_DEVICE_SHIM;
  without.environment["EINFIELD_DEVICES"] = "0";
#endif
  const Outcome asked = run_binary({"fit", lens.path(), "--backend", "cuda", "--out", lens.folder() / "out"}, without);
  EXPECT_EQ(asked.status, 3) << asked.out << asked.err;
  EXPECT_EQ(asked.err.rfind("einfield: error: ", 0), 0u) << asked.err;
  EXPECT_EQ(std::count(asked.err.begin(), asked.err.end(), '\n'), 1) << asked.err;
  EXPECT_FALSE(std::filesystem::exists(lens.folder() / "out"));

  const Outcome automatic = run_binary(
      {"fit", lens.path(), "--out", lens.folder() / "out", "--set", "optimizer.steps=2", "--log-every", "1"}, without);
  EXPECT_EQ(automatic.status, 0) << automatic.err;
  EXPECT_NE(automatic.out.find("backend: cpu ("), std::string::npos) << automatic.out;
}

}  // namespace
}  // namespace einfield
