// The program einfield: turns errors into messages and exit statuses.
#include <signal.h>  // NOLINT(modernize-deprecated-headers): SIGXFSZ is POSIX, not of <csignal>
#include <unistd.h>

#include <exception>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>

#include "einfield/error.hpp"
#include "host/app/command_line.hpp"

namespace {

using namespace einfield;

int failed(std::string message, int status) {
  for (char& c : message)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';  // of a file name: an error is one line
  std::cerr << "einfield: error: " << message << '\n';
  return status;
}

/// Called by std::terminate, for example when an exception is thrown while another one is handled.
[[noreturn]] void on_terminate() {
  const char message[] = "einfield: error: cannot continue, probably out of memory on the host\n";
  if (write(STDERR_FILENO, message, sizeof message - 1) < 0) _exit(kFailure);
  _exit(kFailure);
}

}  // namespace

int main(int argc, char** argv) {
  std::set_terminate(on_terminate);
  signal(SIGXFSZ, SIG_IGN);  // a file above the size limit then makes the write fail, as on a full disk
  try {
    const int status = run_command_line(argc, argv);
    if (!std::cout.flush() && status == kDone) return failed("stdout: cannot write", kFailure);
    return status;
  } catch (const InvalidInput& error) {
    return failed(error.what(), kBadInput);
  } catch (const BackendUnavailable& error) {
    return failed(error.what(), kNoBackend);
  } catch (const std::bad_alloc&) {
    std::cerr << "einfield: error: out of memory on the host\n";  // without allocating a string
    return kFailure;
  } catch (const std::length_error&) {  // a size above any memory
    return failed("out of memory on the host", kFailure);
  } catch (const std::exception& error) {
    return failed(error.what(), kFailure);
  }
}
