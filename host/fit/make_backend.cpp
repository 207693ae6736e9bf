// Backends by name, and what every backend demands of the problems that it is given.
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

template <class Components>
bool same_kinds(const Components& a, const Components& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].kind != b[i].kind || a[i].free != b[i].free) return false;
  return true;
}

/// Same pixel grids and networks; the kinds are the same.
bool same_shapes(const std::vector<LightComponent>& a, const std::vector<LightComponent>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i].grid.nx != b[i].grid.nx || a[i].grid.ny != b[i].grid.ny || a[i].pixels_free != b[i].pixels_free ||
        a[i].network != b[i].network || a[i].weights_free != b[i].weights_free)
      return false;
  return true;
}

}  // namespace

void validate_problems(const std::vector<Problem>& problems) {
  EINFIELD_REQUIRE(!problems.empty(), "no problem to load, expected at least one");
  for (const Problem& p : problems) {
    p.observation.validate();
    const ParameterLayout layout(p.model);
    EINFIELD_REQUIRE(layout.size() > 0, "nothing to fit: no network and no free parameter");
    EINFIELD_REQUIRE(
        p.initial_parameters.size() == layout.size(),
        std::to_string(p.initial_parameters.size()) + " initial parameters, expected " + std::to_string(layout.size()));
    for (const double v : p.initial_parameters)
      EINFIELD_REQUIRE(std::isfinite(v), "an initial parameter is not finite");
    EINFIELD_REQUIRE(!p.learning_rates.empty(), "no learning rate, expected at least one");
    for (const double v : p.learning_rates)
      EINFIELD_REQUIRE(std::isfinite(v) && v >= 0, "learning_rate = " + std::to_string(v) + ", expected >= 0");
    const Regularization& r = p.regularization;
    for (const Regularization::Weight& weight : Regularization::kWeights)
      EINFIELD_REQUIRE(std::isfinite(r.*weight.member) && r.*weight.member >= 0,
                       "a regularization weight of " + std::to_string(r.*weight.member) + ", expected >= 0");

    const std::size_t n_pixels = p.observation.mask.size();
    EINFIELD_REQUIRE(p.held_out.empty() || p.held_out.size() == n_pixels,
                     "a map of held-out pixels of " + std::to_string(p.held_out.size()) + " pixels, expected " +
                         std::to_string(n_pixels));
    if (!p.held_out.empty()) {
      int fitted = 0, judged = 0;
      for (std::size_t i = 0; i < n_pixels; ++i)
        if (p.observation.mask[i]) ++(p.held_out[i] ? judged : fitted);
      EINFIELD_REQUIRE(fitted > 0 && judged > 0, std::to_string(judged) + " of " + std::to_string(fitted + judged) +
                                                     " used pixels held out, expected some and not all");
    }

    const Problem& first = problems.front();
    const Grid &a = first.observation.grid, &b = p.observation.grid;
    EINFIELD_REQUIRE(a.nx == b.nx && a.ny == b.ny && a.supersampling == b.supersampling,
                     "lenses of different image sizes, expected one shape");
    EINFIELD_REQUIRE(first.observation.psf.nx == p.observation.psf.nx &&
                         first.observation.psf.ny == p.observation.psf.ny &&
                         first.observation.psf.supersampling == p.observation.psf.supersampling,
                     "lenses with PSFs of different sizes, expected one shape");
    EINFIELD_REQUIRE(first.model.network == p.model.network, "lenses with different networks, expected one shape");
    EINFIELD_REQUIRE(same_kinds(first.model.lens, p.model.lens) && same_kinds(first.model.source, p.model.source) &&
                         same_kinds(first.model.lens_light, p.model.lens_light) &&
                         same_shapes(first.model.source, p.model.source) &&
                         same_shapes(first.model.lens_light, p.model.lens_light),
                     "lenses with different components or free parameters, expected one shape");
    EINFIELD_REQUIRE(ParameterLayout(first.model).priors.size() == layout.priors.size(),
                     "lenses with different numbers of priors, expected one");
    EINFIELD_REQUIRE(first.loss == p.loss, "lenses with different losses, expected one");
    EINFIELD_REQUIRE(first.network_math == p.network_math, "lenses with different network_math, expected one");
    EINFIELD_REQUIRE(first.held_out.empty() == p.held_out.empty(),
                     "lenses with and without held-out pixels, expected one kind");
  }
}

void validate_schedule(const Schedule& schedule, std::size_t n_parameters) {
  EINFIELD_REQUIRE(!schedule.learning_rates.empty(), "no learning rate, expected at least one");
  for (const double v : schedule.learning_rates)
    EINFIELD_REQUIRE(std::isfinite(v) && v >= 0, "learning_rate = " + std::to_string(v) + ", expected >= 0");
  EINFIELD_REQUIRE(std::isfinite(schedule.clip_norm) && schedule.clip_norm >= 0,
                   "clip_norm = " + std::to_string(schedule.clip_norm) + ", expected >= 0");
  EINFIELD_REQUIRE(schedule.trainable.empty() || schedule.trainable.size() == n_parameters,
                   "a list of trainable parameters of " + std::to_string(schedule.trainable.size()) + ", expected " +
                       std::to_string(n_parameters));
}

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
