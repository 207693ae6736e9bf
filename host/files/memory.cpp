// The physical memory, and the limit of the control group (version 2 or 1) if there is one.
#include "host/files/memory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "einfield/error.hpp"

namespace einfield {

std::size_t memory_limit() {
  std::size_t least = std::numeric_limits<std::size_t>::max();
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) least = static_cast<std::size_t>(pages) * static_cast<std::size_t>(page);
  // In a container, its own control group is at the root.
  for (const char* file : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::size_t bytes = 0;
    if (std::ifstream(file) >> bytes && bytes > 0) least = std::min(least, bytes);
  }
  return least;
}

std::string readable_bytes(std::size_t bytes) {
  const auto text = [](double value, const char* unit) { return fmt::format("{:.1f} {}", value, unit); };
  const auto number = static_cast<double>(bytes);
  return bytes < 10'000'000 ? text(1e-3 * number, "kB") : text(1e-6 * number, "MB");
}

void require_memory(double bytes, const std::string& what) {
  const std::size_t limit = memory_limit();
  if (bytes <= static_cast<double>(limit)) return;
  const std::size_t shown =
      bytes < 9e18 ? static_cast<std::size_t>(bytes) : std::numeric_limits<std::size_t>::max() / 2;
  throw OutOfMemory("cannot allocate " + readable_bytes(shown) + " for " + what + ", this machine has " +
                    readable_bytes(limit));
}

}  // namespace einfield
