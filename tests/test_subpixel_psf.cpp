// A PSF that is sampled more finely than the image: against an image with pixels of that size, its adjoint by
// differences, and the same numbers from the fits that have a Jacobian.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "einfield/error.hpp"
#include "host/cpu/convolve.hpp"
#include "host/fit/scalar_model.hpp"
#include "tests/gradcheck.hpp"
#include "tests/step_problem.hpp"
#include "tests/tolerance.hpp"

namespace einfield {
namespace {

Problem problem_with(int supersampling, int psf_supersampling, int scale = 1) {
  StepCase c;
  c.nx = 9 * scale;
  c.ny = 7 * scale;
  c.supersampling = supersampling;
  c.psf_size = 0;
  c.hidden = {5};
  c.free_lens = c.free_light = c.lens_light = c.masked = true;
  c.loss = LossKind::chi2;
  Problem problem = make_problem(c);
  problem.observation.grid.pixel_scale /= scale;
  problem.observation.psf = gaussian_psf(0.8, 0.45 / psf_supersampling / scale, 7);
  problem.observation.psf.values[3] += 0.2;  // without symmetry
  problem.observation.psf.supersampling = psf_supersampling;
  return problem;
}

template <class Real>
std::vector<Real> model_of(const Problem& problem) {
  const auto backend = make_backend<Real>("cpu", {2, 0});
  backend->load({problem});
  backend->evaluate(false);
  return backend->download(Field::model, 0);
}

TEST(SubpixelPsf, IsThatOfAFinerImage) {
  for (const int f : {2, 3}) {
    const Problem coarse = problem_with(2 * f, f), fine = problem_with(2, 1, f);
    const std::vector<double> found = model_of<double>(coarse), image = model_of<double>(fine);
    std::vector<double> expected(found.size());
    mean_of_subpixels(image.data(), 9, 7, f, expected.data());
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-13 * std::abs(expected[i]));
    const std::vector<float> single = model_of<float>(coarse);
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_NEAR(static_cast<double>(single[i]), expected[i], tolerance::kSingle * 20);
  }
}

TEST(SubpixelPsf, GradientIsThatOfDifferences) {
  const Problem problem = problem_with(4, 2);
  const auto backend = make_backend<double>("cpu", {2, 0});
  backend->load({problem});
  backend->evaluate(true);
  const std::vector<double> gradient = backend->download(Field::gradient, 0);
  const auto loss = [&](const std::vector<double>& parameters) {
    backend->upload(Field::parameters, 0, parameters);
    backend->evaluate(false);
    return backend->state(0).loss;
  };
  const std::vector<double> scale(gradient.size(), 1.0);
  EXPECT_LT(gradient_error(loss, problem.initial_parameters, scale, gradient), tolerance::kDifference);
}

TEST(SubpixelPsf, MeansAndTheirAdjointAreTransposes) {
  const int nx = 4, ny = 3, f = 3;
  const Philox philox{3};
  std::vector<double> fine(static_cast<std::size_t>(nx * ny * f * f)), pixels(static_cast<std::size_t>(nx * ny));
  for (std::size_t i = 0; i < fine.size(); ++i) fine[i] = philox.normal(i);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = philox.normal(i, 1);
  std::vector<double> forward(pixels.size()), back(fine.size());
  mean_of_subpixels(fine.data(), nx, ny, f, forward.data());
  mean_of_subpixels_adjoint(pixels.data(), nx, ny, f, back.data());
  EXPECT_LT(transpose_error(fine, forward, pixels, back), 1e-15);
}

TEST(SubpixelPsf, IsSeenByTheJacobianToo) {
  ThreadPool pool(2);
  const Problem problem = problem_with(4, 2);
  const ScalarModel model(problem, problem.initial_parameters, problem.loss, {}, pool);
  ScalarEvaluator evaluator(model, pool);
  const ScalarPoint point = evaluator.evaluate_fixed(model.initial_scalars());
  const Curvature curvature = evaluator.curvature();
  const auto backend = make_backend<double>("cpu", {1, 0});
  backend->load({problem});
  backend->evaluate(true);
  EXPECT_NEAR(point.loss, backend->state(0).loss, 1e-12 * point.loss);
  const std::vector<double> gradient = backend->download(Field::gradient, 0);
  const ParameterLayout& layout = model.layout();
  std::vector<double> bar(layout.table.size(), 0.0);
  for (std::size_t k = 0; k < model.moving().size(); ++k)
    bar[static_cast<std::size_t>(layout.free[static_cast<std::size_t>(model.moving()[k])].slot)] =
        curvature.gradient[k];
  double largest = 0;
  for (std::size_t i = 0; i < layout.n_free(); ++i)
    largest = std::max(largest, std::abs(gradient[layout.n_network + i]));
  for (int i = 0; i < static_cast<int>(layout.n_free()); ++i)
    EXPECT_NEAR(2 * transform_adjoint(layout.free.data(), i, point.u.data(), bar.data()),
                gradient[layout.n_network + static_cast<std::size_t>(i)], 1e-11 * largest);
}

TEST(SubpixelPsf, MustDivideTheSupersampling) {
  Problem problem = problem_with(4, 2);
  problem.observation.psf.supersampling = 3;
  EXPECT_THROW(problem.observation.validate(), InvalidInput);
  problem.observation.psf.supersampling = 0;
  EXPECT_THROW(problem.observation.validate(), InvalidInput);
}

}  // namespace
}  // namespace einfield
