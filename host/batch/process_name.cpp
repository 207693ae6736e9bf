// From /proc, which only Linux has.
#include "host/batch/process_name.hpp"

#include <signal.h>  // NOLINT(modernize-deprecated-headers): kill is POSIX, not of <csignal>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>

namespace einfield {
namespace {

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

/// Letters, digits, '.', '_' and '-'; "?" for nothing.
std::string plain(std::string text) {
  for (char& c : text)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '_' && c != '-') c = '_';
  return text.empty() ? "?" : text;
}

/// State and time of the start of a process, from /proc/PID/stat; the state is 0 when there is none.
struct Stat {
  char state = 0;
  unsigned long long start = 0;
};
Stat stat_of(long pid) {
  const std::string line = first_line("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t name_end = line.rfind(')');  // the name in parentheses may hold anything
  if (name_end == std::string::npos) return {};
  std::istringstream fields(line.substr(name_end + 1));
  Stat stat;
  std::string field;
  fields >> stat.state;
  for (int i = 4; i <= 21; ++i) fields >> field;
  fields >> stat.start;
  return stat;
}

}  // namespace

ProcessName ProcessName::own() {
  char host[256] = "", space[256] = "";
  gethostname(host, sizeof host - 1);
  if (readlink("/proc/self/ns/pid", space, sizeof space - 1) < 0) space[0] = '\0';
  ProcessName name;
  name.host = plain(host);
  name.boot = plain(first_line("/proc/sys/kernel/random/boot_id"));
  name.space = plain(space);
  name.pid = getpid();
  name.start = stat_of(name.pid).start;
  return name;
}

std::string ProcessName::text() const {
  return host + " " + boot + " " + space + " " + std::to_string(pid) + " " + std::to_string(start);
}

std::optional<ProcessName> ProcessName::parse(const std::string& text) {
  std::istringstream fields(text);
  ProcessName name;
  if (!(fields >> name.host >> name.boot >> name.space >> name.pid >> name.start) || name.pid <= 0) return std::nullopt;
  return name;
}

std::string ProcessName::file_stem() const {
  return host + "-" + std::to_string(pid) + "-" + std::to_string(start);
}

bool ProcessName::has_ended() const {
  const ProcessName here = own();
  // Other machines may have the same name: only the same boot of the same machine is certain.
  if (boot == "?" || host != here.host || boot != here.boot || space != here.space) return false;
  const Stat stat = stat_of(pid);
  if (stat.state == 0) return kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH;
  return stat.state == 'Z' || stat.state == 'X' || stat.start != start;
}

}  // namespace einfield
