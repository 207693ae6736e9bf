// The conformance suite: one body for every stage, backend and precision. The judge is the naive step in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "einfield/adam.hpp"
#include "einfield/backend.hpp"
#include "host/cpu/system.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

/// Rounding of a whole stage relative to its largest value. Single precision: sums of some hundred terms and the
/// hypotenuses of the SIE lose about ten units of 6e-8, and cotangents pass through cancelling residuals.
/// With TF32 a number has 11 bits: roundings of 5e-4 and less, a few of them in a row; the one ψ of no_psf_one_pixel,
/// 4e-4, is what is left of terms ten times as large. tf32x3, the same code, is held to what fp32 is.
template <class Real>
constexpr double tolerance(NetworkMath math = NetworkMath::fp32) {
  return math == NetworkMath::tf32 ? 5e-2 : sizeof(Real) == 4 ? 2e-5 : 1e-11;
}

/// Of the cotangent of the deflection, which is steepest next to the middle of the source: θ moved by 1e-7 arcsec, one
/// rounding in single precision, changes it by 6e-6 of the largest. Without optimisation (no fused multiplication and
/// addition: the builds with sanitizers) there are five of these on the way.
template <class Real>
#ifdef NDEBUG
constexpr double kSteepTolerance = tolerance<Real>();
#else
constexpr double kSteepTolerance = sizeof(Real) == 4 ? 4e-5 : tolerance<Real>();
#endif

template <class Real>
void expect_close(const std::vector<Real>& found, const std::vector<double>& expected, const char* what,
                  NetworkMath math = NetworkMath::fp32, double least = 0) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(expected[i]));
    error = std::max(error, std::abs(static_cast<double>(found[i]) - expected[i]));
    ASSERT_TRUE(std::isfinite(found[i])) << what << " " << i;
  }
  EXPECT_LE(error, std::max(tolerance<Real>(math), least) * largest) << what << ", largest " << largest;
}

template <class Real>
std::vector<double> as_double(const std::vector<Real>& values) {
  return std::vector<double>(values.begin(), values.end());
}

struct Parameter {
  std::string backend;
  bool single;
  NetworkMath math = NetworkMath::fp32;
};

class Conformance : public testing::TestWithParam<Parameter> {
 protected:
  /// A backend that is the one asked for, or a visible skip.
  template <class Real>
  std::unique_ptr<Backend<Real>> open(int threads = 2) {
    try {
      std::unique_ptr<Backend<Real>> backend = make_backend<Real>(GetParam().backend, BackendOptions{threads, 0});
      EXPECT_EQ(backend->name(), GetParam().backend);
      EXPECT_FALSE(backend->device().empty());
      return backend;
    } catch (const BackendUnavailable&) {
      return nullptr;
    }
  }

  template <template <class> class Body>
  void run() {
    if (GetParam().single)
      run_as<float, Body>();
    else
      run_as<double, Body>();
  }
  template <class Real, template <class> class Body>
  void run_as() {
    const auto backend = open<Real>();
    if (!backend) GTEST_SKIP() << GetParam().backend << " is not available here";
    Body<Real>::check(*backend, {[this](int threads) { return open<Real>(threads); }, GetParam().math});
  }
};

/// What the bodies are given beside a backend: more of it, and the problems as it is to compute them.
template <class Real>
struct Setting {
  std::function<std::unique_ptr<Backend<Real>>(int threads)> open;
  NetworkMath math;

  Problem problem(const StepCase& c) const {
    Problem result = make_problem(c);
    result.network_math = math;
    return result;
  }
};

template <class Real>
struct EveryStage {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const StepCase& c : step_cases()) {
      SCOPED_TRACE(c.name);
      const Problem problem = setting.problem(c);
      backend.load({problem});
      // Single precision sees rounded parameters; so must the judge.
      const std::vector<double> parameters = as_double(backend.download(Field::parameters, 0));
      const NaiveStep naive = naive_step(problem, parameters);

      backend.network();
      expect_close(backend.download(Field::potential, 0), naive.potential, "potential", setting.math);
      expect_close(backend.download(Field::deflection, 0), naive.deflection, "deflection", setting.math);
      backend.render();
      expect_close(backend.download(Field::image, 0), naive.image, "image", setting.math);
      backend.convolve();
      expect_close(backend.download(Field::model, 0), naive.model, "model", setting.math);
      backend.loss();
      expect_close(backend.download(Field::model_bar, 0), naive.model_bar, "model_bar", setting.math);
      EXPECT_NEAR(backend.state(0).loss, naive.loss, tolerance<Real>(setting.math) * naive.loss);
      EXPECT_NEAR(backend.state(0).chi2_reduced, naive.chi2, tolerance<Real>(setting.math) * naive.chi2);
      backend.convolve_adjoint();
      expect_close(backend.download(Field::image_bar, 0), naive.image_bar, "image_bar", setting.math);
      backend.zero_gradient();
      backend.render_adjoint();
      backend.regularize();
      expect_close(backend.download(Field::deflection_bar, 0), naive.deflection_bar, "deflection_bar", setting.math,
                   kSteepTolerance<Real>);
      backend.network_adjoint();
      expect_close(backend.download(Field::gradient, 0), naive.gradient, "gradient", setting.math);
      EXPECT_NEAR(backend.state(0).regularization, naive.regularization,
                  tolerance<Real>(setting.math) * naive.regularization);
    }
  }
};

template <class Real>
struct AdjointsAdd {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const StepCase& c : step_cases()) {
      SCOPED_TRACE(c.name);
      backend.load({setting.problem(c)});
      backend.evaluate(true);
      std::vector<double> doubled;
      for (const Real g : backend.download(Field::gradient, 0)) doubled.push_back(2 * static_cast<double>(g));
      backend.render_adjoint();
      backend.regularize();
      backend.network_adjoint();
      expect_close(backend.download(Field::gradient, 0), doubled, "gradient of two adjoints");
    }
  }
};

/// Weights of Fourier features among the parameters, which have no gradient.
std::vector<std::uint8_t> fixed_parameters(const Model& model) {
  const ParameterLayout layout(model);
  std::vector<std::uint8_t> fixed(layout.size(), false);
  const auto mark = [&](std::size_t first, const NetworkShape& shape) {
    std::fill_n(fixed.begin() + static_cast<std::ptrdiff_t>(first), shape.fixed_size(), true);
  };
  if (model.network) mark(0, *model.network);
  if (layout.n_light_weights > 0) mark(layout.light_weights_offset(), network_light(model)->network);
  return fixed;
}

/// Value and gradient of the whole step against central differences along random directions.
template <class Real>
struct WholeStepDifferences {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    if (sizeof(Real) == 4) return;  // differences need double
    for (const StepCase& c : step_cases()) {
      if (c.pixel_source) continue;  // bilinear slopes jump: rays may cross a cell border within the difference
      SCOPED_TRACE(c.name);
      const Problem problem = setting.problem(c);
      backend.load({problem});
      const std::vector<Real> start = backend.download(Field::parameters, 0);
      backend.evaluate(true);
      const std::vector<Real> gradient = backend.download(Field::gradient, 0);
      const Philox philox{77};
      std::vector<double> direction(start.size());
      double expected = 0;
      const std::vector<std::uint8_t> fixed = fixed_parameters(problem.model);
      for (std::size_t i = 0; i < start.size(); ++i) {
        direction[i] = fixed[i] ? 0 : philox.normal(i);
        expected += direction[i] * static_cast<double>(gradient[i]);
      }
      const double h = 1e-6;  // some rays pass close to the center of the SIE, where the third derivative is large
      double value[2];
      for (int side = 0; side < 2; ++side) {
        std::vector<Real> moved = start;
        for (std::size_t i = 0; i < start.size(); ++i) moved[i] += static_cast<Real>((side ? -h : h) * direction[i]);
        backend.upload(Field::parameters, 0, moved);
        backend.evaluate(false);
        value[side] = backend.state(0).loss + backend.state(0).regularization;
      }
      // h² of curvature against ε/h of rounding: 1e-6 of the gradient's size.
      EXPECT_NEAR((value[0] - value[1]) / (2 * h), expected, 2e-6 * (1 + std::abs(expected)));
    }
  }
};

template <class Real>
struct StepsEqualStages {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const StepCase& c : step_cases()) {
      SCOPED_TRACE(c.name);
      const Problem problem = setting.problem(c);
      backend.load({problem});
      backend.begin(step_schedule());
      const std::vector<Real> first = backend.download(Field::parameters, 0);
      for (int k = 0; k < 4; ++k) backend.step();
      EXPECT_EQ(backend.state(0).updates, 4);
      const std::vector<Real> by_steps = backend.download(Field::parameters, 0);
      EXPECT_NE(by_steps, first);

      backend.load({problem});
      backend.begin(step_schedule());
      for (int k = 0; k < 4; ++k) {
        backend.evaluate(true);
        EXPECT_EQ(backend.state(0).learning_rate,
                  step_schedule().learning_rates[static_cast<std::size_t>(std::min(k, 2))]);
        backend.adam();
      }
      EXPECT_EQ(backend.download(Field::parameters, 0), by_steps) << "stage by stage";
      const std::vector<std::uint8_t> fixed = fixed_parameters(problem.model);
      for (std::size_t i = 0; i < fixed.size(); ++i)
        EXPECT_TRUE(!fixed[i] || by_steps[i] == first[i]) << "a weight of an encoding moved: " << i;

      // The first update of Adam moves every parameter with a gradient by the learning rate (bias correction).
      backend.load({problem});
      backend.begin(step_schedule());
      backend.step();
      const std::vector<Real> gradient = backend.download(Field::gradient, 0),
                              moved = backend.download(Field::parameters, 0);
      for (std::size_t i = 0; i < moved.size(); ++i) {
        if (std::abs(static_cast<double>(gradient[i])) <= 1e-3) continue;
        EXPECT_NEAR(static_cast<double>(moved[i]) - static_cast<double>(first[i]), gradient[i] > 0 ? -1e-2 : 1e-2,
                    1e-6);
      }
    }
  }
};

template <class Real>
struct SameBits {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const StepCase& c : step_cases()) {
      SCOPED_TRACE(c.name);
      std::vector<Real> reference;
      const auto train = [&](Backend<Real>& b) {
        b.load({setting.problem(c)});
        for (int k = 0; k < 3; ++k) b.step();
        return b.download(Field::parameters, 0);
      };
      reference = train(backend);
      EXPECT_EQ(train(backend), reference) << "a second run";
      for (const int threads : {1, 3, 7}) EXPECT_EQ(train(*setting.open(threads)), reference) << threads << " threads";
    }
  }
};

template <class Real>
struct ResumedSteps {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    const Problem problem = setting.problem(step_cases()[2]);
    backend.load({problem});
    backend.begin(step_schedule());
    for (int k = 0; k < 2; ++k) backend.step();
    const std::vector<Real> p = backend.download(Field::parameters, 0), m = backend.download(Field::first_moment, 0),
                            v = backend.download(Field::second_moment, 0);
    for (int k = 0; k < 3; ++k) backend.step();
    const std::vector<Real> expected = backend.download(Field::parameters, 0);

    backend.load({problem});
    backend.begin(step_schedule());
    backend.upload(Field::parameters, 0, p);
    backend.upload(Field::first_moment, 0, m);
    backend.upload(Field::second_moment, 0, v);
    backend.set_updates(2);
    for (int k = 0; k < 3; ++k) backend.step();
    EXPECT_EQ(backend.download(Field::parameters, 0), expected);
    EXPECT_EQ(backend.state(0).updates, 5);
  }
};

template <class Real>
struct SeveralLenses {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const int index : {0, 2, 4, 9, 11, 12, 15}) {
      StepCase c = step_cases()[static_cast<std::size_t>(index)];
      SCOPED_TRACE(c.name);
      std::vector<Problem> problems;
      for (std::uint64_t seed = 3; seed < 6; ++seed) {
        c.seed = seed;
        problems.push_back(setting.problem(c));
      }
      std::vector<std::vector<Real>> alone;
      for (const Problem& problem : problems) {
        backend.load({problem});
        backend.begin(step_schedule());
        for (int k = 0; k < 3; ++k) backend.step();
        alone.push_back(backend.download(Field::parameters, 0));
      }
      backend.load(problems);
      backend.begin(step_schedule());
      ASSERT_EQ(backend.systems(), 3);
      for (int k = 0; k < 3; ++k) backend.step();
      for (int lens = 0; lens < 3; ++lens)
        expect_close(backend.download(Field::parameters, lens), as_double(alone[static_cast<std::size_t>(lens)]),
                     "parameters of a lens among others");
    }
  }
};

/// More systems than any block of threads or list of an example has, on a small image.
template <class Real>
struct SixtyFourLenses {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    StepCase c = step_cases()[2];
    c.nx = 5;
    c.ny = 4;
    c.psf_size = 3;
    c.hidden = {4};
    std::vector<Problem> problems;
    for (c.seed = 3; c.seed < 67; ++c.seed) problems.push_back(setting.problem(c));
    backend.load(problems);
    backend.begin(step_schedule());
    ASSERT_EQ(backend.systems(), 64);
    for (int k = 0; k < 2; ++k) backend.step();
    const std::vector<Real> together = backend.download(Field::parameters);
    const std::size_t n = backend.layout().size();
    ASSERT_EQ(together.size(), 64 * n);
    for (const std::size_t lens : {std::size_t{0}, std::size_t{1}, std::size_t{31}, std::size_t{32}, std::size_t{63}}) {
      SCOPED_TRACE(lens);
      backend.load({problems[lens]});
      backend.begin(step_schedule());
      for (int k = 0; k < 2; ++k) backend.step();
      const auto first = together.begin() + static_cast<std::ptrdiff_t>(lens * n);
      expect_close(std::vector<Real>(first, first + static_cast<std::ptrdiff_t>(n)),
                   as_double(backend.download(Field::parameters, 0)), "parameters of a lens among 64");
    }
  }
};

template <class Real>
struct StopsAtNonFinite {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    backend.load({setting.problem(step_cases()[0])});
    backend.begin(step_schedule());
    backend.step();
    std::vector<Real> parameters = backend.download(Field::parameters, 0);
    parameters[3] = std::numeric_limits<Real>::infinity();
    backend.upload(Field::parameters, 0, parameters);
    backend.step();
    const StepState state = backend.state(0);
    EXPECT_EQ(state.bad_step, 2);
    EXPECT_TRUE(state.bad_loss);
    EXPECT_EQ(state.updates, 1);
    backend.step();
    EXPECT_EQ(backend.state(0).bad_step, 2);
    EXPECT_EQ(backend.download(Field::parameters, 0), parameters) << "a refused update moved the parameters";
    backend.set_updates(1);
    EXPECT_EQ(backend.state(0).bad_step, 0);
  }
};

template <class Real>
struct Schedules {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    const Problem problem = setting.problem(step_cases()[2]);
    backend.load({problem});
    const std::size_t n = backend.layout().size();
    for (int k = 0; k < 2; ++k) backend.step();  // a graph of the schedule before is there to be forgotten
    backend.evaluate(true);
    const double norm = backend.state(0).gradient_norm;
    Schedule schedule{{1e-2, 5e-3, 1e-3}, 0.5 * norm, std::vector<std::uint8_t>(n, 1)};
    for (std::size_t i = 0; i < n; i += 3) schedule.trainable[i] = 0;
    backend.begin(schedule);
    EXPECT_EQ(backend.state(0).updates, 0);
    std::vector<Real> m(n), v(n), p = backend.download(Field::parameters, 0);
    for (int k = 0; k < 4; ++k) {
      backend.step();
      const std::vector<Real> gradient = backend.download(Field::gradient, 0),
                              moved = backend.download(Field::parameters, 0);
      const StepState state = backend.state(0);
      double sum = 0;
      for (const Real g : gradient) sum += double(g) * double(g);
      EXPECT_NEAR(state.gradient_norm, std::sqrt(sum), 1e-6 * std::sqrt(sum));
      EXPECT_EQ(state.learning_rate, schedule.learning_rates[static_cast<std::size_t>(std::min(k, 2))]);
      const auto update = make_adam_step<Real>(state.learning_rate, k + 1);
      const Real scale = static_cast<Real>(clip_factor(schedule.clip_norm, state.gradient_norm));
      EXPECT_LT(scale, 1 + (k > 0));
      for (std::size_t i = 0; i < n; ++i) {
        const Real before = p[i];
        adam_update(update, scale * gradient[i], p[i], m[i], v[i]);
        if (i % 3 == 0) {
          EXPECT_EQ(gradient[i], 0);
          EXPECT_EQ(moved[i], before);
        } else {
          EXPECT_NEAR(double(moved[i]), double(p[i]),
                      64 * double(std::numeric_limits<Real>::epsilon()) * (std::abs(double(p[i])) + 1e-2));
        }
      }
      p = moved;
    }
    // The same schedule again gives the same bits.
    backend.load({problem});
    backend.begin(schedule);
    for (int k = 0; k < 3; ++k) backend.step();
    const std::vector<Real> once = backend.download(Field::parameters, 0);
    backend.load({problem});
    backend.begin(schedule);
    for (int k = 0; k < 3; ++k) {
      backend.evaluate(true);
      backend.adam();
    }
    EXPECT_EQ(backend.download(Field::parameters, 0), once);
    schedule.trainable.pop_back();
    EXPECT_THROW(backend.begin(schedule), InvalidInput);
  }
};

template <class Real>
struct HeldOutPixels {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    Problem problem = setting.problem(step_cases()[2]);
    const Observation& o = problem.observation;
    problem.held_out.resize(o.mask.size());
    for (std::size_t i = 0; i < o.mask.size(); i += 4) problem.held_out[i] = 1;
    backend.load({problem});
    backend.evaluate(true);
    const std::vector<Real> model = backend.download(Field::model, 0),
                            model_bar = backend.download(Field::model_bar, 0);
    double chi2 = 0, held_out = 0;
    int fitted = 0, judged = 0;
    for (std::size_t i = 0; i < model.size(); ++i) {
      EXPECT_TRUE((o.mask[i] && !problem.held_out[i]) || model_bar[i] == 0) << i;
      if (!o.mask[i]) continue;
      const double residual = (double(model[i]) - o.image[i]) / o.noise[i];
      (problem.held_out[i] ? held_out : chi2) += residual * residual;
      ++(problem.held_out[i] ? judged : fitted);
    }
    const double bound = 1000 * double(std::numeric_limits<Real>::epsilon());
    EXPECT_NEAR(backend.state(0).chi2_reduced, chi2 / fitted, bound * chi2 / fitted);
    EXPECT_NEAR(backend.state(0).held_out_chi2, held_out / judged, bound * held_out / judged);
  }
};

template <class Real>
struct RefusesNonsense {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    const Problem good = setting.problem(step_cases()[0]);
    Problem bad = good;
    bad.initial_parameters.pop_back();
    EXPECT_THROW(backend.load({bad}), InvalidInput);
    bad = good;
    bad.observation.noise[4] = 0;
    EXPECT_THROW(backend.load({bad}), InvalidInput);
    bad = good;
    bad.held_out.assign(good.observation.mask.size(), 1);
    EXPECT_THROW(backend.load({bad}), InvalidInput);
    EXPECT_THROW(backend.load({}), InvalidInput);
    EXPECT_THROW(backend.load({good, setting.problem(step_cases()[3])}), InvalidInput);
    bad = good;
    bad.model.network->input_scale *= 2;
    EXPECT_THROW(backend.load({good, bad}), InvalidInput);
    backend.load({good});
    EXPECT_THROW(backend.upload(Field::image, 0, std::vector<Real>(3)), InvalidInput);
    EXPECT_THROW(backend.download(Field::image, 1), InvalidInput);
    EXPECT_THROW(backend.begin({{-1}, 0, {}}), InvalidInput);
    EXPECT_THROW(backend.begin({{}, 0, {}}), InvalidInput);
    EXPECT_THROW(backend.begin({{1e-3}, -1, {}}), InvalidInput);
  }
};

/// An image that is uploaded is what the PSF acts on, also if that has sub-pixels: they are then equal within a pixel.
template <class Real>
struct UploadedImage {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const char* name : {"paper", "subpixel_psf"}) {
      SCOPED_TRACE(name);
      const std::vector<StepCase> cases = step_cases();
      const StepCase& c = *std::find_if(cases.begin(), cases.end(), [&](const StepCase& s) { return s.name == name; });
      const Problem one = setting.problem(c);
      backend.load({one, one});
      backend.network();
      backend.render();
      const auto n = static_cast<std::size_t>(one.observation.grid.n_pixels());
      const std::vector<Real> rendered = backend.download(Field::image, 0);
      // A bright pixel in the middle of an empty image, in one system only.
      std::vector<Real> image(n, Real(0));
      image[n / 2] = 1;
      backend.upload(Field::image, 1, image);
      EXPECT_EQ(backend.download(Field::image, 1), image);
      EXPECT_EQ(backend.download(Field::image, 0), rendered);
      backend.convolve();
      const std::vector<Real> model = backend.download(Field::model, 1);
      double sum = 0;
      for (const Real value : model) sum += static_cast<double>(value);
      EXPECT_NEAR(sum, 1, 1e-6) << "the PSF keeps the light";
      // The images of all systems at once.
      std::vector<Real> images = image;
      images.insert(images.end(), image.begin(), image.end());
      backend.upload(Field::image, images);
      EXPECT_EQ(backend.download(Field::image), images);
      backend.convolve();
      for (const int system : {0, 1}) EXPECT_EQ(backend.download(Field::model, system), model);

      std::vector<Real> bar(n, Real(0));
      bar[n / 2] = 1;
      backend.upload(Field::image_bar, 1, bar);
      backend.zero_gradient();
      backend.render_adjoint();
      EXPECT_EQ(backend.download(Field::image_bar, 1), bar);
      const std::vector<Real> alpha_bar = backend.download(Field::deflection_bar, 1);
      const auto per_pixel = static_cast<std::size_t>(one.observation.grid.rays_per_pixel());
      for (std::size_t i = 0; i < n * per_pixel; ++i) EXPECT_EQ(alpha_bar[i] != 0, i / per_pixel == n / 2) << i;
    }
  }
};

/// ψ, α and κ at positions that are no rays, also in more than one batch, of each system's own network.
template <class Real>
struct FieldsOfTheNetwork {
  static void check(Backend<Real>& backend, const Setting<Real>& setting) {
    for (const StepCase& c : step_cases()) {
      if (c.name != "paper" && c.name != "four_layers_wide_psf" && c.name != "fourier" && c.name != "linear_features" &&
          c.name != "no_network")
        continue;
      SCOPED_TRACE(c.name);
      Problem one = setting.problem(c), other = one;
      for (double& v : other.initial_parameters) v *= 0.8;
      backend.load({one, other});
      const Philox philox{5};
      for (const std::size_t n : {std::size_t(0), std::size_t(1), std::size_t(37), std::size_t(9000)}) {
        std::vector<Real> theta(2 * n);
        for (std::size_t i = 0; i < 2 * n; ++i) theta[i] = static_cast<Real>(1.5 * philox.normal(i));
        for (const int system : {0, 1}) {
          const NetworkFields<Real> found = backend.network_fields(system, theta);
          const std::vector<double> parameters = as_double(backend.download(Field::parameters, system));
          const ReferenceResult expected =
              one.model.network
                  ? reference_network(*one.model.network, parameters, as_double(theta))
                  : ReferenceResult{std::vector<double>(n), std::vector<double>(2 * n), std::vector<double>(n), {}};
          expect_close(found.potential, expected.psi, "potential");
          expect_close(found.deflection, expected.alpha, "deflection");
          expect_close(found.convergence, expected.kappa, "convergence");
        }
      }
      EXPECT_THROW(backend.network_fields(0, std::vector<Real>(3)), InvalidInput);
      EXPECT_THROW(backend.network_fields(2, {}), InvalidInput);
    }
  }
};

TEST_P(Conformance, EveryStage) {
  run<EveryStage>();
}
TEST_P(Conformance, AdjointsAdd) {
  run<AdjointsAdd>();
}
TEST_P(Conformance, WholeStepDifferences) {
  run<WholeStepDifferences>();
}
TEST_P(Conformance, StepsEqualStages) {
  run<StepsEqualStages>();
}
TEST_P(Conformance, SameBits) {
  run<SameBits>();
}
TEST_P(Conformance, ResumedSteps) {
  run<ResumedSteps>();
}
TEST_P(Conformance, SeveralLenses) {
  run<SeveralLenses>();
}
TEST_P(Conformance, SixtyFourLenses) {
  run<SixtyFourLenses>();
}
TEST_P(Conformance, StopsAtNonFinite) {
  run<StopsAtNonFinite>();
}
TEST_P(Conformance, Schedules) {
  run<Schedules>();
}
TEST_P(Conformance, HeldOutPixels) {
  run<HeldOutPixels>();
}
TEST_P(Conformance, RefusesNonsense) {
  run<RefusesNonsense>();
}
TEST_P(Conformance, FieldsOfTheNetworkAtAnyPosition) {
  run<FieldsOfTheNetwork>();
}
TEST_P(Conformance, AnUploadedImageIsWhatThePsfActsOn) {
  run<UploadedImage>();
}

INSTANTIATE_TEST_SUITE_P(Backends, Conformance,
                         testing::Values(Parameter{"cpu", true}, Parameter{"cpu", false}, Parameter{"cuda", true},
                                         Parameter{"cuda", false}, Parameter{"cuda", true, NetworkMath::tf32x3},
                                         Parameter{"cuda", true, NetworkMath::tf32}),
                         [](const auto& test) {
                           const bool plain = test.param.math == NetworkMath::fp32;
                           return test.param.backend + (test.param.single ? "_float" : "_double") +
                                  (plain ? "" : std::string("_") + name_of(test.param.math));
                         });

TEST(Backends, UnknownNamesAreRefused) {
  EXPECT_THROW(make_backend<float>("gpu", {}), InvalidInput);
  EXPECT_THROW(planned_bytes<float>("gpu", {}, {}), InvalidInput);
}

/// Arithmetic that a backend does not have is an error, never another arithmetic.
TEST(Backends, MatrixUnitsAreThoseOfCudaInSinglePrecision) {
  for (const NetworkMath math : {NetworkMath::tf32x3, NetworkMath::tf32}) {
    Problem problem = make_problem(step_cases()[0]);
    problem.network_math = math;
    EXPECT_THROW(make_backend<float>("cpu", {})->load({problem}), InvalidInput);
    EXPECT_THROW(make_backend<double>("cpu", {})->load({problem}), InvalidInput);
    if (resolve_backend("auto", {}).name == "cuda") {
      EXPECT_THROW(make_backend<double>("cuda", {})->load({problem}), InvalidInput);
    }
    EXPECT_THROW(validate_problems({problem, make_problem(step_cases()[0])}), InvalidInput);
  }
}

/// The plan and the buffers come from one list, and every buffer keeps the size of the list.
TEST(Backends, PlannedBytesOfTheCpuAreThoseAllocated) {
  for (const StepCase& c : step_cases()) {
    SCOPED_TRACE(c.name);
    Problem problem = make_problem(c);
    for (const bool held_out : {false, true}) {
      if (held_out) {
        problem.held_out.assign(problem.observation.mask.size(), 0);
        for (std::size_t i = 0; i < problem.held_out.size(); i += 3) problem.held_out[i] = 1;
      }
      ThreadPool pool(1);
      cpu::System<float> system(problem, pool);
      std::size_t bytes = 0;
      system.each(
          [&bytes](const auto& buffer, std::size_t count) {
            EXPECT_EQ(buffer.size(), count);
            bytes += buffer.size() * sizeof(*buffer.data());
          },
          cpu::SystemSizes(problem, system.layout));
      for (const auto* network : {&system.network, &system.light_network})
        if (*network) bytes += (*network)->bytes();
      // How far L reaches depends on the mask: its plan is a limit.
      const Observation& o = problem.observation;
      const std::size_t of_whitening =
          NoiseWhitening::planned_bytes(o.noise_correlation, o.grid, static_cast<std::size_t>(o.n_used()));
      EXPECT_LE(system.whitening.bytes(), of_whitening);
      EXPECT_EQ(planned_bytes<float>("cpu", {problem}, {1, 0}), bytes + of_whitening);
    }
  }
}

TEST(Backends, PlannedBytesCoverTheFields) {
  const Problem problem = make_problem(step_cases()[0]);
  EXPECT_GT(planned_bytes<double>("cpu", {problem}, {}), planned_bytes<float>("cpu", {problem}, {}));
}

}  // namespace
}  // namespace einfield
