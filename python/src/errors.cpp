#include "python/src/errors.hpp"

#include <array>
#include <cctype>
#include <cstring>
#include <exception>

#include "einfield/error.hpp"

namespace nb = nanobind;

namespace einfield::python {
namespace {

/// The classes, which live as long as the process: exceptions may be thrown until its end.
struct Classes {
  PyObject *error, *invalid_input, *io, *numerical, *unavailable, *not_built, *cuda, *cublas, *cufft;
};

PyObject* class_of(const Classes& c, const std::exception& e) {
  if (dynamic_cast<const InvalidInput*>(&e)) return c.invalid_input;
  if (dynamic_cast<const IoError*>(&e)) return c.io;
  if (dynamic_cast<const NumericalError*>(&e)) return c.numerical;
  if (dynamic_cast<const NotBuilt*>(&e)) return c.not_built;
  if (dynamic_cast<const BackendUnavailable*>(&e)) return c.unavailable;
  if (dynamic_cast<const CudaError*>(&e)) return c.cuda;
  if (dynamic_cast<const CublasError*>(&e)) return c.cublas;
  if (dynamic_cast<const CufftError*>(&e)) return c.cufft;
  return c.error;
}

void translate(const std::exception_ptr& thrown, void* payload) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& e) {
    PyErr_SetString(class_of(*static_cast<const Classes*>(payload), e), without_places(e.what()).c_str());
  }
}

}  // namespace

std::string without_places(std::string message) {
  const std::size_t length = std::strlen(kArguments);
  for (std::size_t at = message.find(kArguments); at != std::string::npos; at = message.find(kArguments, at)) {
    std::size_t end = at + length;
    if (end < message.size() && message[end] == ':' && end + 1 < message.size() &&
        std::isdigit(static_cast<unsigned char>(message[end + 1]))) {
      ++end;
      while (end < message.size() && std::isdigit(static_cast<unsigned char>(message[end]))) ++end;
    }
    if (message.compare(end, 2, ": ") == 0) {
      message.erase(at, end + 2 - at);
    } else {
      message.replace(at, end - at, "the arguments");
      at += std::strlen("the arguments");
    }
  }
  return message;
}

void bind_errors(nb::module_&) {
  const nb::module_ errors = nb::module_::import_("einfield.errors");
  const auto own = [&errors](const char* name) { return nb::object(errors.attr(name)).release().ptr(); };
  static const Classes classes = {own("Error"),          own("InvalidInput"),       own("IoError"),
                                  own("NumericalError"), own("BackendUnavailable"), own("NotBuilt"),
                                  own("CudaError"),      own("CublasError"),        own("CufftError")};
  nb::register_exception_translator(translate, const_cast<Classes*>(&classes));
}

}  // namespace einfield::python
