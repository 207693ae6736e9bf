// The algebra of Gauss–Newton on the device: normal equations, factor, substitutions and determinant as on the CPU,
// whole descents, the same bits twice, and the memory that is planned.
#include <gtest/gtest.h>

#include <cmath>
#include <Eigen/Cholesky>
#include <string>
#include <tuple>

#include "einfield/error.hpp"
#include "einfield/fitter.hpp"
#include "host/fit/cuda_joint_algebra.hpp"
#include "host/fit/fit_memory.hpp"
#include "host/fit/gauss_newton.hpp"
#include "kernels/cuda_backend.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

/// Sums of some thousand products in another order, relative to the largest number.
constexpr double kAgreement = 1e-12;

class CudaJoint : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices().empty()) GTEST_SKIP() << "no CUDA device";
  }
  ThreadPool pool_{2};
};

/// Pixels of the source, a lens that moves and a linear readout, through a PSF; pixels of the image are left out.
StepCase everything() {
  StepCase c;
  c.name = "everything";
  c.hidden = {};
  c.fourier_features = 20;
  c.pixel_source = c.free_lens = c.lens_light = c.free_light = c.masked = true;
  c.supersampling = 2;
  c.psf_size = 5;
  c.loss = LossKind::chi2;
  c.regularization = {.smoothness = 0.3, .curvature = 0.2, .weight_decay = 1e-2, .source_curvature = 0.2};
  return c;
}

/// No pixels, no network, a network with a hidden layer.
std::vector<StepCase> cases() {
  StepCase hidden = everything(), profiles = everything(), pixels = everything();
  hidden.name = "hidden_layer";
  hidden.hidden = {5};
  hidden.fourier_features = 4;
  profiles.name = "no_pixels";
  profiles.pixel_source = false;
  pixels.name = "pixels_alone";
  pixels.fourier_features = 0;
  pixels.free_lens = pixels.free_light = false;
  return {everything(), hidden, profiles, pixels};
}

double largest(const Eigen::MatrixXd& m) {
  return m.size() > 0 ? m.cwiseAbs().maxCoeff() : 0;
}

void expect_near(const Eigen::MatrixXd& found, const Eigen::MatrixXd& expected, double tolerance) {
  ASSERT_EQ(found.rows(), expected.rows());
  ASSERT_EQ(found.cols(), expected.cols());
  EXPECT_LE(largest(found - expected), tolerance * largest(expected));
}

/// Rays of pixels and of sub-pixels, PSFs on both, none, and one that is larger than the image.
TEST_F(CudaJoint, ColumnsAreThoseOfTheCpu) {
  std::vector<StepCase> all = cases();
  for (const auto& [name, supersampling, psf_supersampling, size] :
       {std::tuple("no_psf", 2, 1, 0), std::tuple("psf_of_half_pixels", 4, 2, 7), std::tuple("psf_of_thirds", 3, 3, 15),
        std::tuple("large_psf", 1, 1, 21)}) {
    StepCase c = everything();
    c.name = name;
    c.supersampling = supersampling;
    c.psf_supersampling = psf_supersampling;
    c.psf_size = size;
    all.push_back(c);
  }
  for (const StepCase& c : all) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    JointModel model(problem, {}, pool_);
    CudaJointAlgebra algebra(0, model);
    std::vector<double> x = problem.initial_parameters;
    for (int point = 0; point < 2; ++point) {  // the weights of a hidden layer change what α does
      const Linearization cpu = model.linearize(x), device = model.linearize(x, algebra.columns());
      expect_near(device.rest, cpu.rest, kAgreement);
      EXPECT_TRUE(model.linearize(x, algebra.columns()).rest == device.rest) << "the same bits";
      for (std::size_t i = 0; i < x.size(); ++i) x[i] += 0.02 * std::sin(static_cast<double>(i));
    }
  }
}

/// H_ss is what its factor says, so the factors need not be compared: L Lᵀ y for y = L⁻ᵀ L⁻¹ b.
TEST_F(CudaJoint, EliminatesAsTheCpuDoes) {
  for (const StepCase& c : cases()) {
    SCOPED_TRACE(c.name);
    const Problem problem = make_problem(c);
    JointModel model(problem, {}, pool_);
    const Linearization l = model.linearize(problem.initial_parameters);
    const auto pixels = static_cast<Eigen::Index>(model.pixels().size()),
               rest = static_cast<Eigen::Index>(model.rest().size());
    SourcePrior::Sparse prior(pixels, pixels);
    if (pixels > 0) prior = model.source_prior().precision(problem.regularization);
    CpuJointAlgebra on_cpu(model.pixels().size(), pool_);
    CudaJointAlgebra on_device(0, model);
    const auto normal = on_cpu.normal(l), device_normal = on_device.normal(l);
    EXPECT_TRUE(normal->source_gradient == device_normal->source_gradient);
    const auto cpu = normal->eliminate(prior), device = device_normal->eliminate(prior);
    ASSERT_TRUE(cpu->good());
    ASSERT_TRUE(device->good());
    expect_near(device->schur(), cpu->schur(), kAgreement);
    EXPECT_NEAR(device->log_determinant(), cpu->log_determinant(), kAgreement * (1 + std::abs(cpu->log_determinant())));

    const Eigen::MatrixXd source = Eigen::MatrixXd::Random(pixels, 19), right = Eigen::MatrixXd::Random(rest, 19);
    Eigen::MatrixXd y = source, r = right, device_y = source, device_r = right;
    cpu->forward(y, r, pool_);
    device->forward(device_y, device_r, pool_);
    expect_near(device_y, y, kAgreement);
    expect_near(device_r, r, kAgreement);
    cpu->backward(y, right, pool_);
    device->backward(device_y, right, pool_);
    expect_near(device_y, y, kAgreement);

    const Eigen::MatrixXd schur = device->schur();
    EXPECT_TRUE(device_normal->eliminate(prior)->schur() == schur) << "the same bits";
  }
}

/// A matrix of more than one panel and tile against Eigen's factor.
TEST_F(CudaJoint, FactorIsThatOfDenseAlgebra) {
  constexpr int kData = 150, kPixels = 109, kRest = 70;
  const Eigen::MatrixXd j = Eigen::MatrixXd::Random(kData, kPixels + kRest);
  std::vector<std::size_t> first{0};
  std::vector<int> column;
  std::vector<double> value;
  Eigen::MatrixXd dense = j;
  for (int i = 0; i < kData; ++i) {
    for (int k = 0; k < kPixels; ++k) {
      if ((i * 7 + k * 3) % 5 > 1) {
        dense(i, k) = 0;
        continue;
      }
      column.push_back(k);
      value.push_back(j(i, k));
    }
    first.push_back(column.size());
  }
  cuda::JointEntries prior;
  Eigen::MatrixXd h = dense.transpose() * dense;
  for (int k = 0; k < kPixels; ++k) {
    prior.row.push_back(k);
    prior.column.push_back(k);
    prior.value.push_back(3);
    h(k, k) += 3;
  }
  const RowMatrix b = dense.rightCols(kRest);
  cuda::JointBlock block(0, {kData, kPixels, kRest, value.size()});
  ASSERT_TRUE(block.eliminate({first, column, value}, b.data(), kData, prior));
  const Eigen::LLT<Eigen::MatrixXd> source(h.topLeftCorner(kPixels, kPixels));
  const Eigen::MatrixXd x = source.matrixL().solve(h.topRightCorner(kPixels, kRest));
  const Eigen::MatrixXd expected = h.bottomRightCorner(kRest, kRest) - x.transpose() * x;
  const std::vector<double> found = block.schur();
  for (int k = 0; k < kRest; ++k)
    for (int i = k; i < kRest; ++i)
      EXPECT_NEAR(found[static_cast<std::size_t>(k * kRest + i)], expected(i, k), kAgreement * largest(h));
  Eigen::VectorXd y = Eigen::VectorXd::Random(kPixels + kRest), right = y;
  block.forward(y.data(), 1);
  expect_near(y.head(kPixels), source.matrixL().solve(right.head(kPixels)), kAgreement);
  expect_near(y.tail(kRest), right.tail(kRest) - x.transpose() * y.head(kPixels), kAgreement);
  y.tail(kRest) = right.tail(kRest);
  const Eigen::VectorXd before = y.head(kPixels) - x * right.tail(kRest);
  block.backward(y.data(), 1);
  expect_near(y.head(kPixels), source.matrixL().transpose().solve(before), kAgreement);

  prior.value[77] = -1e4;  // a negative pivot in the third panel
  EXPECT_FALSE(block.eliminate({first, column, value}, b.data(), kData, prior));
  prior.value[77] = std::nan("");
  EXPECT_FALSE(block.eliminate({first, column, value}, b.data(), kData, prior));
  EXPECT_THROW(block.eliminate({first, column, value}, b.data(), kData + 1, prior), InvalidInput);
}

TEST_F(CudaJoint, ADescentIsThatOfTheCpu) {
  const Problem problem = make_problem(everything());
  const auto descend = [&](bool device) {
    JointModel model(problem, {}, pool_);
    std::unique_ptr<JointAlgebra> algebra;
    if (device) algebra = std::make_unique<CudaJointAlgebra>(0, model);
    return gauss_newton(model, problem.initial_parameters, problem.regularization,
                        {.steps = 12, .source_contrast = 5, .choose_weights = true}, pool_, {}, {}, algebra.get());
  };
  const GaussNewtonResult cpu = descend(false), device = descend(true), again = descend(true);
  ASSERT_TRUE(cpu.evidence && device.evidence && again.evidence);
  EXPECT_GT(cpu.steps, 3);
  EXPECT_EQ(device.steps, cpu.steps);
  EXPECT_EQ(device.converged, cpu.converged);
  for (std::size_t i = 0; i < cpu.x.size(); ++i) EXPECT_NEAR(device.x[i], cpu.x[i], 1e-6 * (1 + std::abs(cpu.x[i])));
  EXPECT_NEAR(device.evidence->log_evidence, cpu.evidence->log_evidence, 1e-6 * std::abs(cpu.evidence->log_evidence));
  EXPECT_TRUE(again.x == device.x) << "the same bits";
  EXPECT_EQ(again.evidence->log_evidence, device.evidence->log_evidence);
}

/// A fit as a run makes it: the smooth model first, then everything, with weights of highest evidence.
TEST_F(CudaJoint, AFitIsThatOfTheCpu) {
  StepCase c = everything();
  c.nx = c.ny = 15;
  c.lens_light = c.free_light = false;
  const Problem problem = make_problem(c);
  FitSettings settings;
  settings.threads = 2;
  settings.choose_weights = true;
  settings.source_contrast = 5;
  settings.stages[0].optimizer = OptimizerKind::gauss_newton;
  settings.stages[0].steps = 15;
  std::vector<FitResult<double>> results;
  for (const char* name : {"cpu", "cuda"}) {
    const auto backend = make_backend<double>(name, {});
    ASSERT_EQ(backend->name(), name);
    backend->load({problem});
    results.push_back(fit<double>(*backend, {problem}, settings, {}).at(0));
    EXPECT_EQ(planned_device_bytes(*backend, problem, 1, settings) >= CudaJointAlgebra::planned_bytes(problem),
              std::string(name) == "cuda");
  }
  const FitResult<double>&cpu = results[0], &device = results[1];
  EXPECT_GT(cpu.steps, 3);
  EXPECT_EQ(device.steps, cpu.steps);
  EXPECT_EQ(device.stop_reason, cpu.stop_reason);
  const std::vector<double>&x = cpu.snapshot.parameters, &y = device.snapshot.parameters;
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], 1e-6 * (1 + std::abs(x[i])));
  ASSERT_TRUE(cpu.snapshot.evidence && device.snapshot.evidence);
  const double expected = cpu.snapshot.evidence->log_evidence;
  EXPECT_NEAR(device.snapshot.evidence->log_evidence, expected, 1e-6 * std::abs(expected));
}

TEST_F(CudaJoint, MemoryIsPlanned) {
  const Problem problem = make_problem(everything());
  JointModel model(problem, {}, pool_);
  const std::size_t planned = CudaJointAlgebra::planned_bytes(problem), before = cuda_free_bytes(0);
  const CudaJointAlgebra algebra(0, model);
  const std::size_t taken = before - cuda_free_bytes(0);
  EXPECT_LE(taken, planned + (std::size_t(1) << 20));
  EXPECT_GE(taken + (std::size_t(1) << 20), planned / 2);
  EXPECT_THROW(cuda::JointBlock(0, {1, 1 << 20, 1, 1}), CudaError);  // 8 TB
  EXPECT_THROW(cuda::JointBlock(0, {1, 1, 1, std::size_t(1) << 31}), InvalidInput);
}

}  // namespace
}  // namespace einfield
