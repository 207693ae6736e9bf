// The gradient of the posterior as a C++ program computes it, for the test that Python gets the same bits.
//   python_gradient CONFIG.toml NUMBER...    the flat vector of parameters, in hexadecimal floating point
// It prints the value and the gradient in the same format.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "einfield/backend.hpp"
#include "einfield/config.hpp"
#include "einfield/load.hpp"

int main(int argc, char** argv) {
  using namespace einfield;
  try {
    if (argc < 2) return 2;
    Problem problem = load_problem(read_config(argv[1], {}, false)).problem;
    problem.loss = LossKind::chi2;
    problem.held_out.clear();
    const auto backend = make_backend<double>("cpu", {1, {}});
    backend->load({problem});
    std::vector<double> at;
    for (int i = 2; i < argc; ++i) at.push_back(std::strtod(argv[i], nullptr));
    backend->upload(Field::parameters, 0, at);
    backend->evaluate(true);
    const StepState state = backend->state(0);
    const double scale = -0.5 * fitted_pixels(problem);
    std::printf("%a\n", scale * (state.loss + state.regularization));
    for (const double g : backend->download(Field::gradient, 0)) std::printf("%a\n", scale * g);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
