// The command line `einfield COMMAND …`.
#pragma once

namespace einfield {

enum ExitStatus {
  kDone = 0,
  kFailure = 1,
  kBadInput = 2,
  kNoBackend = 3,
  kNotToBeTrusted = 4,  ///< with --strict: done, but the status is `suspect`
  kTryAgain = 75,       ///< of a survey: out of time, the same command continues
  kInterrupted = 130,
};

struct ExitMeaning {
  ExitStatus status;
  const char* meaning;
};
inline constexpr ExitMeaning kExitMeanings[] = {{kDone, "done"},
                                                {kFailure, "failure at run time"},
                                                {kBadInput, "invalid input"},
                                                {kNoBackend, "backend not available"},
                                                {kNotToBeTrusted, "done but flagged (with --strict)"},
                                                {kTryAgain, "out of time (batch)"},
                                                {kInterrupted, "interrupted"}};

/// Parses the command line and runs the command. @return the exit status
/// @throws InvalidInput for a wrong command line; every error of the command
int run_command_line(int argc, char** argv);

}  // namespace einfield
