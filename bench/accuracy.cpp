// Accuracy of the network's products on the CUDA device: fp32, tf32x3 and tf32 against double precision, for single
// networks and for a whole fit. Prints the tables of README.md in this folder.
//   einfield_accuracy [networks] [pixels a side] [width] [steps of the fit] [its pixels a side] [its width]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "bench/problem.hpp"
#include "einfield/error.hpp"

namespace {

using namespace einfield;

constexpr NetworkMath kModes[] = {NetworkMath::fp32, NetworkMath::tf32x3, NetworkMath::tf32};

template <class Real>
std::vector<double> as_double(const std::vector<Real>& values) {
  return std::vector<double>(values.begin(), values.end());
}
std::vector<float> as_float(const std::vector<double>& values) {
  return std::vector<float>(values.begin(), values.end());
}

/// Largest and rms error of a field or tensor, relative to its largest value and to its rms.
struct Errors {
  double largest = 0, rms = 0;
  void include(const Errors& other) {
    largest = std::max(largest, other.largest);
    rms = std::max(rms, other.rms);
  }
};
Errors errors(const std::vector<double>& found, const std::vector<double>& expected, std::size_t begin,
              std::size_t end) {
  double size = 0, error = 0, size2 = 0, error2 = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const double d = std::abs(found[i] - expected[i]);
    EINFIELD_REQUIRE(std::isfinite(d), "a number that is not finite");
    size = std::max(size, std::abs(expected[i]));
    error = std::max(error, d);
    size2 += expected[i] * expected[i];
    error2 += d * d;
  }
  return size > 0 ? Errors{error / size, std::sqrt(error2 / size2)} : Errors{};
}

/// ψ, α and the gradient of every tensor.
std::vector<std::string> quantities(const NetworkShape& shape) {
  std::vector<std::string> names = {"ψ", "α"};
  for (int l = 0; l < shape.layers(); ++l) {
    names.push_back("∂W" + std::to_string(l + 1));
    if (l + 1 < shape.layers()) names.push_back("∂b" + std::to_string(l + 1));  // ψ's constant has no effect
  }
  return names;
}

struct Answer {
  std::vector<double> potential, deflection, gradient;
};
/// Parameters and cotangents are rounded to single precision first.
template <class Real>
Answer answer(Backend<Real>& backend, const std::vector<float>& parameters, const std::vector<float>& deflection_bar) {
  backend.upload(Field::parameters, 0, std::vector<Real>(parameters.begin(), parameters.end()));
  backend.network();
  Answer result{
      as_double(backend.download(Field::potential, 0)), as_double(backend.download(Field::deflection, 0)), {}};
  backend.upload(Field::deflection_bar, 0, std::vector<Real>(deflection_bar.begin(), deflection_bar.end()));
  backend.zero_gradient();
  backend.network_adjoint();
  result.gradient = as_double(backend.download(Field::gradient, 0));
  return result;
}

std::vector<Errors> compare(const NetworkShape& shape, const Answer& found, const Answer& expected) {
  std::vector<Errors> list = {errors(found.potential, expected.potential, 0, expected.potential.size()),
                              errors(found.deflection, expected.deflection, 0, expected.deflection.size())};
  for (int l = 0; l < shape.layers(); ++l) {
    list.push_back(errors(found.gradient, expected.gradient, shape.kernel_offset(l), shape.bias_offset(l)));
    if (l + 1 < shape.layers())
      list.push_back(errors(found.gradient, expected.gradient, shape.bias_offset(l), shape.kernel_offset(l + 1)));
  }
  return list;
}

/// Prints the worst errors of every mode over the given networks, and their ratios to those of fp32.
void table(const std::string& title, Problem problem, const std::vector<std::vector<float>>& networks) {
  const NetworkShape& shape = *problem.model.network;
  const std::vector<std::string> names = quantities(shape);
  const auto truth = make_backend<double>("cpu", {});
  truth->load({problem});
  std::vector<std::vector<float>> cotangents;
  std::vector<Answer> expected;
  for (const std::vector<float>& parameters : networks) {
    truth->upload(Field::parameters, 0, as_double(parameters));
    truth->evaluate(true);
    cotangents.push_back(as_float(truth->download(Field::deflection_bar, 0)));
    expected.push_back(answer(*truth, parameters, cotangents.back()));
  }
  std::vector<std::vector<Errors>> worst;
  for (const NetworkMath math : kModes) {
    problem.network_math = math;
    const auto backend = make_backend<float>("cuda", {});
    backend->load({problem});
    std::vector<Errors>& all = worst.emplace_back(names.size());
    for (std::size_t i = 0; i < networks.size(); ++i) {
      const std::vector<Errors> one = compare(shape, answer(*backend, networks[i], cotangents[i]), expected[i]);
      for (std::size_t q = 0; q < names.size(); ++q) all[q].include(one[q]);
    }
  }
  std::printf("\n%s: largest error / largest value; rms error / rms; in brackets, of fp32's\n\n| |", title.c_str());
  for (const NetworkMath math : kModes) std::printf(" %s |", name_of(math));
  std::printf("\n| --- | --- | --- | --- |\n");
  for (std::size_t q = 0; q < names.size(); ++q) {
    std::printf("| %s |", names[q].c_str());
    for (const std::vector<Errors>& of : worst) {
      std::printf(" %.1e; %.1e", of[q].largest, of[q].rms);
      if (&of != &worst.front())
        std::printf(" (%.2f; %.2f)", of[q].largest / worst[0][q].largest, of[q].rms / worst[0][q].rms);
      std::printf(" |");
    }
    std::printf("\n");
  }
  std::fflush(stdout);
}

/// Prints the loss along a fit in every mode. Returns the parameters that fp32 found.
std::vector<float> fit(Problem problem, int steps) {
  std::vector<float> trained;
  std::vector<std::vector<double>> losses;
  for (const NetworkMath math : kModes) {
    problem.network_math = math;
    const auto backend = make_backend<float>("cuda", {});
    backend->load({problem});
    std::vector<double>& loss = losses.emplace_back();
    for (int step = 0; step < steps; ++step) {
      backend->step();
      if (step % std::max(1, steps / 4) == 0) loss.push_back(backend->state(0).loss);
    }
    backend->evaluate(false);
    loss.push_back(backend->state(0).loss);
    if (math == NetworkMath::fp32) trained = backend->download(Field::parameters, 0);
  }
  std::printf("\n| step | loss, fp32 | tf32x3 / fp32 − 1 | tf32 / fp32 − 1 |\n| --- | --- | --- | --- |\n");
  for (std::size_t i = 0; i < losses[0].size(); ++i) {
    const int step = i + 1 == losses[0].size() ? steps : static_cast<int>(i) * std::max(1, steps / 4);
    std::printf("| %d | %.7g | %.1e | %.1e |\n", step, losses[0][i], losses[1][i] / losses[0][i] - 1,
                losses[2][i] / losses[0][i] - 1);
  }
  std::fflush(stdout);
  return trained;
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  try {
    const int networks = argument(1, 20), n = argument(2, 40), width = argument(3, 200), steps = argument(4, 200),
              fit_n = argument(5, 50), fit_width = argument(6, 64);
    EINFIELD_REQUIRE(networks > 0 && n > 0 && width > 0 && steps > 0 && fit_n > 0 && fit_width > 0,
                     "expected [networks] [pixels a side] [width] [steps] [its pixels a side] [its width]");
    const std::vector<int> hidden(3, width), fit_hidden(3, fit_width);
    const Problem problem = bench::paper_problem(n, hidden);
    std::vector<std::vector<float>> random;
    for (int seed = 1; seed <= networks; ++seed)
      random.push_back(as_float(initial_weights(*problem.model.network, static_cast<std::uint64_t>(seed), false)));
    const std::string size = std::to_string(n) + " x " + std::to_string(n) + " points, 3 layers of ";
    table(std::to_string(networks) + " random networks, " + size + std::to_string(width), problem, random);
    const std::vector<float> trained = fit(bench::paper_problem(fit_n, fit_hidden), steps);
    table("the network of that fit, " + size + std::to_string(fit_width), bench::paper_problem(n, fit_hidden),
          {trained});
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "einfield_accuracy: error: %s\n", error.what());
    return 1;
  }
}
