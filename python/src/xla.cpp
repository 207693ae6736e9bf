// A compiled function of JAX may outlive the model that it calls, and it holds numbers only: it names its target by
// one, and a call after the target's end is an error.
#include "python/src/xla.hpp"

#ifdef EINFIELD_XLA

#include <nanobind/stl/shared_ptr.h>

#include <xla/ffi/api/ffi.h>
#include <atomic>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "python/src/lens_model.hpp"

namespace nb = nanobind;
namespace ffi = xla::ffi;
using namespace nb::literals;

namespace einfield::python {
namespace {

/// A model and what to compute of it.
struct Target {
  std::shared_ptr<LensModel> model;
  Request request;
};

/// The targets that exist, by number.
class Targets {
 public:
  std::int64_t add(const std::shared_ptr<Target>& target) {
    const std::lock_guard<std::mutex> lock(mutex_);
    targets_[++last_] = target;
    return last_;
  }
  void remove(std::int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    targets_.erase(number);
  }
  std::shared_ptr<Target> find(std::int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = targets_.find(number);
    return found == targets_.end() ? nullptr : found->second.lock();
  }

 private:
  std::mutex mutex_;
  std::int64_t last_ = 0;
  std::map<std::int64_t, std::weak_ptr<Target>> targets_;
};

Targets& targets() {
  static Targets all;
  return all;
}

/// A target for as long as Python holds it.
class XlaTarget {
 public:
  XlaTarget(std::shared_ptr<LensModel> model, bool constrained, bool volume)
      : target_(std::make_shared<Target>(
            Target{std::move(model), {constrained ? Space::constrained : Space::unconstrained, true, volume}})),
        number_(targets().add(target_)) {}
  ~XlaTarget() { targets().remove(number_); }
  XlaTarget(const XlaTarget&) = delete;
  XlaTarget& operator=(const XlaTarget&) = delete;
  std::int64_t number() const { return number_; }

 private:
  std::shared_ptr<Target> target_;
  std::int64_t number_;
};

/// θ (…, size) → value (…) and gradient (…, size), in the type of θ; computed in double.
template <class Real>
void evaluate(Target& target, const ffi::AnyBuffer& theta, std::size_t points, Real* value, Real* gradient) {
  const Real* const from = static_cast<const Real*>(theta.untyped_data());
  const std::size_t n = theta.element_count();
  const std::vector<double> at(from, from + n);
  std::vector<double> values(points), gradients(gradient ? n : 0);
  Posterior& posterior = target.model->posterior();
  const auto workers = posterior.workers();
  posterior.evaluate(*workers, at.data(), points, target.request, values.data(), gradient ? gradients.data() : nullptr);
  for (std::size_t i = 0; i < points; ++i) value[i] = static_cast<Real>(values[i]);
  for (std::size_t i = 0; i < gradients.size(); ++i) gradient[i] = static_cast<Real>(gradients[i]);
}

ffi::Error call(std::int64_t number, const ffi::AnyBuffer& theta, ffi::AnyBuffer& value, ffi::AnyBuffer* gradient) {
  try {
    const std::shared_ptr<Target> target = targets().find(number);
    if (!target) return ffi::Error::InvalidArgument("einfield: the model of this function does not exist any more");
    const auto shape = theta.dimensions();
    const std::size_t size = target->model->posterior().size(), points = value.element_count();
    const bool same = theta.element_type() == value.element_type() &&
                      (!gradient || (gradient->element_type() == theta.element_type() &&
                                     gradient->element_count() == theta.element_count()));
    if (shape.size() == 0 || static_cast<std::size_t>(shape.back()) != size || theta.element_count() != points * size ||
        !same)
      return ffi::Error::InvalidArgument("einfield: wrong shape or type of theta, expected (..., " +
                                         std::to_string(size) + ")");
    const auto run = [&](auto* unused) {
      using Real = std::remove_pointer_t<decltype(unused)>;
      evaluate(*target, theta, points, static_cast<Real*>(value.untyped_data()),
               gradient ? static_cast<Real*>(gradient->untyped_data()) : nullptr);
    };
    if (theta.element_type() == ffi::DataType::F64)
      run(static_cast<double*>(nullptr));
    else if (theta.element_type() == ffi::DataType::F32)
      run(static_cast<float*>(nullptr));
    else
      return ffi::Error::InvalidArgument("einfield: wrong type of theta, expected float32 or float64");
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("einfield: ") + error.what());
  }
}

XLA_FFI_DEFINE_HANDLER(log_prob_handler,
                       ([](ffi::AnyBuffer theta, ffi::Result<ffi::AnyBuffer> value, std::int64_t target) {
                         return call(target, theta, *value, nullptr);
                       }),
                       ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>().Attr<std::int64_t>("target"));

XLA_FFI_DEFINE_HANDLER(
    value_and_grad_handler,
    ([](ffi::AnyBuffer theta, ffi::Result<ffi::AnyBuffer> value, ffi::Result<ffi::AnyBuffer> gradient,
        std::int64_t target) { return call(target, theta, *value, &*gradient); }),
    ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>().Attr<std::int64_t>("target"));

}  // namespace

void bind_xla(nb::module_& m) {
  nb::class_<XlaTarget>(m, "XlaTarget")
      .def(nb::init<std::shared_ptr<LensModel>, bool, bool>(), "model"_a, "constrained"_a, "volume"_a)
      .def("number", &XlaTarget::number);
  m.def(
      "xla_handlers",
      [] {
        nb::dict handlers;
        handlers["einfield_log_prob"] = nb::capsule(reinterpret_cast<void*>(log_prob_handler));
        handlers["einfield_value_and_grad"] = nb::capsule(reinterpret_cast<void*>(value_and_grad_handler));
        return handlers;
      },
      "The custom calls by name, for jax.ffi.register_ffi_target.");
}

}  // namespace einfield::python

#else

namespace einfield::python {
void bind_xla(nanobind::module_&) {}
}  // namespace einfield::python

#endif
