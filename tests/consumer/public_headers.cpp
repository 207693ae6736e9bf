// Compiles only where einfield's public headers are on the include path and the root of its repository is not.
#include "einfield/config.hpp"
#include "einfield/fitter.hpp"

#if __has_include("host/app/run.hpp") || __has_include("kernels/raii.cuh") || __has_include("examples/README.md")
#error "the root of einfield's repository is on the include path"
#endif
