// Backends by name.
#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/cpu/backend.hpp"
#ifdef EINFIELD_HAVE_CUDA
#include "kernels/cuda_backend.hpp"
#endif

namespace einfield {
namespace {

/// "cuda" or "cpu" for a name that the user may give.
std::string resolved(const std::string& name) {
  if (name == "auto") return cuda_devices().empty() ? "cpu" : "cuda";
  EINFIELD_REQUIRE(name == "cpu" || name == "cuda", "backend " + name + ", expected auto, cuda or cpu");
#ifndef EINFIELD_HAVE_CUDA
  if (name == "cuda")
    throw NotBuilt("the CUDA backend is not in this build, expected one configured with EINFIELD_ENABLE_CUDA=ON");
#endif
  return name;
}

}  // namespace

template <class Real>
std::unique_ptr<Backend<Real>> make_backend(const std::string& name, const BackendOptions& options) {
#ifdef EINFIELD_HAVE_CUDA
  if (resolved(name) == "cuda") return make_cuda_backend<Real>(options.device);
#else
  resolved(name);
#endif
  return make_cpu_backend<Real>(options.threads);
}

template <class Real>
std::size_t planned_bytes(const std::string& backend_name, const std::vector<Problem>& problems,
                          const BackendOptions& options) {
#ifdef EINFIELD_HAVE_CUDA
  if (resolved(backend_name) == "cuda") return cuda_planned_bytes<Real>(problems, options.device);
#else
  resolved(backend_name);
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

template std::unique_ptr<Backend<float>> make_backend(const std::string&, const BackendOptions&);
template std::unique_ptr<Backend<double>> make_backend(const std::string&, const BackendOptions&);
template std::size_t planned_bytes<float>(const std::string&, const std::vector<Problem>&, const BackendOptions&);
template std::size_t planned_bytes<double>(const std::string&, const std::vector<Problem>&, const BackendOptions&);

}  // namespace einfield
