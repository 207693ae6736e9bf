// One training step of the timed problem and nothing else, for the counters of a profiler or of a virtual device.
//   einfield_one_step [cpu|cuda] [float|double] [pixels a side] [width] [fp32|tf32x3|tf32] [systems]
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "bench/problem.hpp"
#include "einfield/error.hpp"

namespace {

using namespace einfield;

template <class Real>
void run(const std::string& name, int n, int width, NetworkMath math, int systems) {
  const auto backend = make_backend<Real>(name, {});
  Problem problem = bench::paper_problem(n, {width, width, width});
  problem.network_math = math;
  backend->load(std::vector<Problem>(static_cast<std::size_t>(systems), problem));
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
    const auto number = [&](int i, const char* otherwise) { return std::atoi(argument(i, otherwise).c_str()); };
    const int n = number(3, "100"), width = number(4, "200"), systems = number(6, "1");
    std::optional<NetworkMath> math;
    for (const NetworkMath one : {NetworkMath::fp32, NetworkMath::tf32x3, NetworkMath::tf32})
      if (argument(5, "fp32") == name_of(one)) math = one;
    EINFIELD_REQUIRE((real == "float" || real == "double") && n > 0 && width > 0 && math && systems > 0,
                     "expected [cpu|cuda] [float|double] [pixels a side] [width] [fp32|tf32x3|tf32] [systems]");
    real == "float" ? run<float>(backend, n, width, *math, systems) : run<double>(backend, n, width, *math, systems);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "einfield_one_step: error: %s\n", error.what());
    return 1;
  }
}
