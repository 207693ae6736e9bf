// Products with the Jacobian of the model image: J v against differences of the model image, Jᵀ w as its transpose,
// several lenses, single precision, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "einfield/cuda_jacobian.hpp"
#include "kernels/raii.cuh"
#include "tests/gradcheck.hpp"
#include "tests/step_problem.hpp"
#include "tests/tolerance.hpp"

namespace einfield::cuda {
namespace {

class CudaJacobian : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_devices().empty()) GTEST_SKIP() << "no CUDA device";
  }
};

/// Lenses with free profiles or pixels, PSFs for the direct kernel and for cuFFT.
std::vector<StepCase> jacobian_cases() {
  std::vector<StepCase> cases;
  for (const StepCase& c : step_cases())
    if ((c.free_lens || c.free_light || c.pixel_source) && c.psf_supersampling == 1 && !c.correlated)
      cases.push_back(c);
  cases.back().psf_size = 25;
  return cases;
}

/// The lenses of a case on the device.
template <class Real>
struct Lenses {
  Stream stream;
  std::vector<Problem> problems;
  std::size_t size, rays, pixels;
  ParameterLayout layout;
  JacobianStage<Real> stage;
  DeviceBuffer<Real> parameters, deflection, light_value, light_gradient, light_value_bar;
  bool light = false;

  static std::vector<Problem> made(StepCase c) {
    std::vector<Problem> problems;
    for (c.seed = 3; c.seed < 5; ++c.seed) problems.push_back(make_problem(c));
    return problems;
  }
  template <class Get>
  static auto each(const std::vector<Problem>& problems, const Get& get) {
    std::vector<std::decay_t<decltype(get(problems[0]))>> all;
    for (const Problem& p : problems) all.push_back(get(p));
    return all;
  }
  DeviceBuffer<Real> on_device(const std::vector<double>& values) {
    const std::vector<Real> converted(values.begin(), values.end());
    DeviceBuffer<Real> buffer(values.size());
    buffer.upload(converted, stream.get());
    stream.synchronize();
    return buffer;
  }

  explicit Lenses(const StepCase& c)
      : problems(made(c)),
        size(problems[0].initial_parameters.size()),
        rays(static_cast<std::size_t>(problems[0].observation.grid.n_rays())),
        pixels(static_cast<std::size_t>(problems[0].observation.grid.n_pixels())),
        layout(problems[0].model),
        stage(problems[0].observation.grid, each(problems, [](const Problem& p) { return p.model; }),
              each(problems, [](const Problem& p) { return p.observation.psf; }), size, stream.get()) {
    std::vector<double> all, alpha, value, gradient;
    for (const Problem& p : problems) {
      all.insert(all.end(), p.initial_parameters.begin(), p.initial_parameters.end());
      const NaiveStep naive = naive_step(p, p.initial_parameters);
      alpha.insert(alpha.end(), naive.deflection.begin(), naive.deflection.end());
    }
    parameters = on_device(all);
    deflection = on_device(alpha);
    if (network_light(problems[0].model) == nullptr) return;
    light = true;
    DeviceBuffer<Real> at(2 * 2 * rays);
    stage.rays().network_positions(stream.get(), parameters, deflection, at);
    const std::vector<Real> positions = at.to_vector(stream.get());
    for (std::size_t k = 0; k < 2; ++k) {
      const LightComponent& component = *network_light(problems[k].model);
      const std::vector<double> own(positions.begin() + static_cast<std::ptrdiff_t>(2 * k * rays),
                                    positions.begin() + static_cast<std::ptrdiff_t>(2 * (k + 1) * rays));
      const ReferenceResult r = reference_network(component.network, component.weights, own);
      value.insert(value.end(), r.psi.begin(), r.psi.end());
      gradient.insert(gradient.end(), r.alpha.begin(), r.alpha.end());
    }
    light_value = on_device(value);
    light_gradient = on_device(gradient);
    light_value_bar = DeviceBuffer<Real>(value.size());
  }
  NetworkLight<Real> network() const {
    if (!light) return {};
    return {light_value, light_gradient, light_value_bar};
  }
  std::vector<double> doubles(const DeviceBuffer<Real>& buffer) const {
    const std::vector<Real> values = buffer.to_vector(stream.get());
    return std::vector<double>(values.begin(), values.end());
  }
  /// Free scalars and pixels; the rest of a flat vector is not read.
  std::size_t first() const { return layout.n_network; }
  std::size_t count() const { return layout.n_free() + layout.free_pixels.size(); }

  std::vector<double> forward(const std::vector<double>& direction) {
    const DeviceBuffer<Real> v = on_device(direction);
    DeviceBuffer<Real> tangent(2 * pixels);
    tangent.zero(stream.get());
    stage.forward(stream.get(), parameters, deflection, v, tangent, network());
    return doubles(tangent);
  }
  std::vector<double> adjoint(const std::vector<double>& model_bar) {
    const DeviceBuffer<Real> w = on_device(model_bar);
    DeviceBuffer<Real> gradient(2 * size);
    gradient.zero(stream.get());
    stage.adjoint(stream.get(), parameters, deflection, w, gradient, network());
    return doubles(gradient);
  }
  std::vector<double> direction() const {
    std::vector<double> v(2 * size, 0.0);
    for (std::size_t k = 0; k < 2; ++k)
      for (std::size_t i = 0; i < count(); ++i)
        v[k * size + first() + i] = std::cos(1.0 + static_cast<double>(3 * i + k));
    return v;
  }
};

TEST_F(CudaJacobian, TangentIsTheDifferenceOfModelImages) {
  for (const StepCase& c : jacobian_cases()) {
    SCOPED_TRACE(c.name);
    Lenses<double> lenses(c);
    const std::vector<double> v = lenses.direction(), tangent = lenses.forward(v);
    // A short step where a ray that crosses a border between source pixels would show the mean of two derivatives.
    const double h = c.pixel_source ? 1e-8 : std::cbrt(tolerance::kEpsilon<double>);
    for (std::size_t k = 0; k < 2; ++k) {
      const Problem& problem = lenses.problems[k];
      const auto model = [&](double step) {
        std::vector<double> at = problem.initial_parameters;
        for (std::size_t i = 0; i < at.size(); ++i) at[i] += step * v[k * lenses.size + i];
        return naive_step(problem, at).model;
      };
      const std::vector<double> up = model(h), down = model(-h);
      double error = 0, largest = 0;
      for (std::size_t i = 0; i < lenses.pixels; ++i) {
        const double difference = (up[i] - down[i]) / (2 * h);
        error = std::max(error, std::abs(tangent[k * lenses.pixels + i] - difference));
        largest = std::max(largest, std::abs(difference));
      }
      EXPECT_LT(error, 10 * tolerance::kDifference * largest) << "lens " << k;  // a direction of many parameters
    }
  }
}

template <class Real>
void check_transpose(double bound) {
  for (const StepCase& c : jacobian_cases()) {
    SCOPED_TRACE(c.name);
    Lenses<Real> lenses(c);
    const std::vector<double> v = lenses.direction();
    std::vector<double> w;
    for (std::size_t i = 0; i < 2 * lenses.pixels; ++i) w.push_back(std::sin(2.0 + static_cast<double>(i)));
    const std::vector<double> jv = lenses.forward(v);
    std::vector<double> jw = lenses.adjoint(w);
    for (std::size_t k = 0; k < 2; ++k)  // weights of networks are not part of the Jacobian
      for (std::size_t i = 0; i < lenses.size; ++i)
        if (i < lenses.first() || i >= lenses.first() + lenses.count()) jw[k * lenses.size + i] = 0;
    EXPECT_LT(transpose_error(v, jv, w, jw), bound);
    EXPECT_EQ(lenses.forward(v), jv) << "the same bits";
  }
}
TEST_F(CudaJacobian, ProductsAreTransposes) {
  check_transpose<double>(1e-13);
  check_transpose<float>(1e-5);
}

TEST_F(CudaJacobian, RefusesWhatItCannotTake) {
  StepCase c = jacobian_cases().front();
  Problem problem = make_problem(c);
  const Stream stream;
  const auto stage = [&](const std::vector<Psf>& psfs) {
    return JacobianStage<double>(problem.observation.grid, {problem.model}, psfs, problem.initial_parameters.size(),
                                 stream.get());
  };
  EXPECT_THROW(stage({problem.observation.psf, problem.observation.psf}), InvalidInput);
  problem.observation.psf.supersampling = 2;
  EXPECT_THROW(stage({problem.observation.psf}), InvalidInput);
}

}  // namespace
}  // namespace einfield::cuda
