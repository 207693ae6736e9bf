// Signals of Python, and calls of its functions, while the library computes without the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <exception>
#include <utility>

namespace einfield::python {

/// Lets Python look for signals during a fit, and keeps what a signal or a callback raises until its end.
class Interrupts {
 public:
  bool poll() {
    // Rarely: to take the GIL may mean to wait for another thread of Python.
    constexpr std::chrono::milliseconds kBetween{50};
    const auto now = std::chrono::steady_clock::now();
    if (ended_ || now - last_ < kBetween) return ended_;
    last_ = now;
    const nanobind::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) return false;
    ended_ = true;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0)
      PyErr_Clear();  // Ctrl-C ends the fit with the result that it has
    else
      raised_ = std::make_exception_ptr(nanobind::python_error());
    return true;
  }
  /// Calls Python. @param call  runs with the GIL
  template <class Call>
  void run(Call&& call) {
    if (ended_) return;
    const nanobind::gil_scoped_acquire gil;
    try {
      call();
    } catch (const nanobind::python_error& error) {
      if (!error.matches(PyExc_KeyboardInterrupt)) raised_ = std::current_exception();  // else as in poll()
      ended_ = true;
    }
  }
  /// Whether a signal or a callback has ended the computation.
  bool ended() const { return ended_; }
  /// @pre the GIL is held
  void rethrow() const {
    if (raised_) std::rethrow_exception(raised_);
  }

 private:
  bool ended_ = false;
  std::exception_ptr raised_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace einfield::python
