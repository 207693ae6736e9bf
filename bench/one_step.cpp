// One training step of the timed problem and nothing beside it: for the counters of a profiler or of a virtual device.
//   einfield_one_step [cpu|cuda] [float|double] [pixels a side] [width]
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "bench/problem.hpp"
#include "einfield/error.hpp"

namespace {

using namespace einfield;

template <class Real>
void run(const std::string& name, int n, int width) {
  const auto backend = make_backend<Real>(name, {});
  backend->load({bench::paper_problem(n, {width, width, width})});
  backend->step();
  const StepState state = backend->state(0);
  std::printf("%s (%s): loss %.9g, reduced chi2 %.9g\n", backend->name().c_str(), backend->device().c_str(), state.loss,
              state.chi2_reduced);
}

}  // namespace

int main(int argc, char** argv) {
  const auto argument = [&](int i, const char* otherwise) { return std::string(argc > i ? argv[i] : otherwise); };
  try {
    const std::string backend = argument(1, "cuda"), real = argument(2, "float");
    const int n = std::atoi(argument(3, "100").c_str()), width = std::atoi(argument(4, "200").c_str());
    EINFIELD_REQUIRE((real == "float" || real == "double") && n > 0 && width > 0,
                     "expected [cpu|cuda] [float|double] [pixels a side] [width]");
    real == "float" ? run<float>(backend, n, width) : run<double>(backend, n, width);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "einfield_one_step: error: %s\n", error.what());
    return 1;
  }
}
