// Backends by name.
#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/cpu/backend.hpp"
#ifdef EINFIELD_HAVE_CUDA
#include "kernels/cuda_backend.hpp"
#include "kernels/device.hpp"
#endif

namespace einfield {
namespace {

#ifndef EINFIELD_HAVE_CUDA
[[noreturn]] void not_built() {
  throw NotBuilt("the CUDA backend is not in this build, expected one configured with EINFIELD_ENABLE_CUDA=ON");
}
#endif

}  // namespace

BackendChoice resolve_backend(const std::string& name, const BackendOptions& options) {
  EINFIELD_REQUIRE(name == "auto" || name == "cpu" || name == "cuda",
                   "backend " + name + ", expected auto, cuda or cpu");
  BackendChoice choice{"cpu", options, ""};
  if (name == "cpu") return choice;
#ifdef EINFIELD_HAVE_CUDA
  try {
    choice.options.device = find_cuda_device(options.device);
    choice.name = "cuda";
  } catch (const BackendUnavailable& error) {
    if (name == "cuda") throw;
    choice.reason = error.what();
  }
#else
  if (name == "cuda") not_built();
#endif
  return choice;
}

template <class Real>
std::unique_ptr<Backend<Real>> make_backend(const std::string& name, const BackendOptions& options) {
  const BackendChoice choice = resolve_backend(name, options);
#ifdef EINFIELD_HAVE_CUDA
  if (choice.name == "cuda") return make_cuda_backend<Real>(*choice.options.device);
#endif
  return make_cpu_backend<Real>(options.threads);
}

template <class Real>
std::size_t planned_bytes(const std::string& backend_name, const std::vector<Problem>& problems,
                          const BackendOptions& options, [[maybe_unused]] int pairs) {
  const BackendChoice choice = resolve_backend(backend_name, options);
#ifdef EINFIELD_HAVE_CUDA
  if (choice.name == "cuda") return cuda_planned_bytes<Real>(problems, *choice.options.device, pairs);
#endif
  return cpu_planned_bytes<Real>(problems, options.threads);
}

std::vector<std::string> cuda_devices() {
#ifdef EINFIELD_HAVE_CUDA
  return list_cuda_devices();
#else
  return {};
#endif
}

std::string cuda_device_problem(int device) {
#ifdef EINFIELD_HAVE_CUDA
  return problem_of_cuda_device(device);
#else
  (void)device;
  not_built();
#endif
}

template std::unique_ptr<Backend<float>> make_backend(const std::string&, const BackendOptions&);
template std::unique_ptr<Backend<double>> make_backend(const std::string&, const BackendOptions&);
template std::size_t planned_bytes<float>(const std::string&, const std::vector<Problem>&, const BackendOptions&, int);
template std::size_t planned_bytes<double>(const std::string&, const std::vector<Problem>&, const BackendOptions&, int);

}  // namespace einfield
