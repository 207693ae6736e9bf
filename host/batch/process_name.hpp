// Which process on which machine: names of files, and whether their owner still runs.
#pragma once

#include <optional>
#include <string>

namespace einfield {

/// This process: host, boot, name space of process numbers, number, time of its start.
struct ProcessName {
  std::string host, boot, space;
  long pid = 0;
  unsigned long long start = 0;

  /// Of the calling process.
  static ProcessName own();
  /// One line; parse() is its inverse. Nothing for another text.
  std::string text() const;
  static std::optional<ProcessName> parse(const std::string& text);
  /// "host-pid-start", for names of files.
  std::string file_stem() const;

  /// Whether the process is known to have ended. A process of another machine or container is not known.
  bool has_ended() const;
};

}  // namespace einfield
