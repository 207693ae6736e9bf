// Signals of Python, and calls of its functions, while the library computes without the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

namespace einfield::python {

/// Lets Python look for signals during a computation, and keeps what a signal or a callback raises until its end.
/// Python gives signals to the thread that called: in other threads this does nothing but say whether the end has come.
class Interrupts {
 public:
  bool poll() {
    // Rarely: to take the GIL may mean to wait for another thread of Python.
    constexpr std::chrono::milliseconds kBetween{50};
    const auto now = std::chrono::steady_clock::now();
    if (ended_ || !in_own_thread() || now - last_ < kBetween) return ended_;
    last_ = now;
    const nanobind::gil_scoped_acquire gil;
    check();
    return ended_;
  }
  /// Ctrl-C since the last poll() ends nothing any more: the result is there. @pre the GIL is held
  void finish() {
    if (!ended_) check();
  }
  /// Calls Python, in the thread that called only. @param call  runs with the GIL
  template <class Call>
  void run(Call&& call) {
    if (ended_ || !in_own_thread()) return;
    const nanobind::gil_scoped_acquire gil;
    try {
      call();
    } catch (const nanobind::python_error& error) {
      if (!error.matches(PyExc_KeyboardInterrupt)) raised_ = std::current_exception();  // else as in poll()
      ended_ = true;
    }
  }
  /// @pre the GIL is held
  void rethrow() const {
    if (raised_) std::rethrow_exception(raised_);
  }

 private:
  bool in_own_thread() const { return std::this_thread::get_id() == owner_; }
  void check() {
    if (PyErr_CheckSignals() == 0) return;
    ended_ = true;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0)
      PyErr_Clear();  // Ctrl-C ends the computation with the result that it has
    else
      raised_ = std::make_exception_ptr(nanobind::python_error());
  }

  const std::thread::id owner_ = std::this_thread::get_id();
  std::atomic<bool> ended_{false};
  std::exception_ptr raised_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace einfield::python
