// Leases as hard links. No clock is compared with that of another machine: a process watches by its own clock for how
// long a lease stays unchanged.
#include "host/batch/claims.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "einfield/error.hpp"
#include "host/batch/process_name.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"
#include "host/results/fingerprint.hpp"

namespace einfield {
namespace {

constexpr std::string_view kLease = ".lease", kClaim = ".claim", kRemoved = ".removed";
constexpr int kRenewals = 6;  ///< in the time after which a lease is stale

std::optional<ProcessName> owner_of(const std::string& path) {
  std::ifstream file(path);
  return ProcessName::parse({std::istreambuf_iterator<char>(file), {}});
}

bool same_time(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

Claims::Claims(const std::string& dir, std::chrono::milliseconds lease) : dir_(dir), lease_(lease) {
  create_directory(dir_);
  make_lease();
  remove_what_ended_processes_left();
  renewer_ = std::thread([this] { keep_renewing(); });
}

Claims::~Claims() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  end_.notify_all();
  renewer_.join();
  for (const std::string& path : taken_) give_back(path);
  ::unlink(lease_path_.c_str());
}

void Claims::make_lease() {
  const ProcessName own = ProcessName::own();
  const std::string text = own.text() + "\n";
  int file = -1;
  for (int copy = 1; file < 0; ++copy) {
    lease_path_ = in(dir_, own.file_stem() + (copy > 1 ? "-" + std::to_string(copy) : "") + std::string(kLease));
    file = ::open(lease_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0 && errno != EEXIST) throw IoError(lease_path_ + ": cannot write (" + std::strerror(errno) + ")");
  }
  const bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(file) == 0 && fstat(file, &own_) == 0;
  const int code = errno;
  ::close(file);
  if (!written) {
    ::unlink(lease_path_.c_str());
    throw IoError(lease_path_ + ": cannot write (" + std::strerror(code) + ")");
  }
}

void Claims::renew() {
  // A failure, as of a server that does not answer, is tried again in a moment.
  if (utimensat(AT_FDCWD, lease_path_.c_str(), nullptr, 0) != 0) return;
}

void Claims::keep_renewing() {
  std::unique_lock lock(mutex_);
  while (!end_.wait_for(lock, lease_ / kRenewals, [this] { return ending_; })) {
    lock.unlock();
    renew();
    lock.lock();
  }
}

std::string Claims::claim_path(const std::string& id) const {
  Checksum checksum;
  checksum.add(id.data(), id.size());
  return in(dir_, fmt::format("{:016x}{}", checksum.value(), kClaim));
}

bool Claims::is_own(const struct stat& status) const {
  return status.st_dev == own_.st_dev && status.st_ino == own_.st_ino;
}

bool Claims::link_to(const std::string& path) const {
  if (::link(lease_path_.c_str(), path.c_str()) == 0) return true;
  const int code = errno;
  // An answer of NFS may get lost: then the link is there although the call says that it was there before.
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && is_own(status)) return true;
  if (code == EEXIST) return false;
  throw IoError(path + ": cannot make a hard link (" + std::strerror(code) +
                "), expected --out on a file system that has them");
}

Claim Claims::take(const std::string& id) {
  const std::string path = claim_path(id);
  const Claim answer = link_to(path) ? Claim::ours : look_at(path);
  if (answer == Claim::ours) taken_.insert(path);
  return answer;
}

Claim Claims::look_at(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return Claim::unknown;  // given back a moment ago
  const auto now = Clock::now();
  const auto [place, first] = seen_.try_emplace(status.st_ino, Sight{status.st_mtim, now, false});
  Sight& sight = place->second;
  if (!first && !same_time(sight.renewed, status.st_mtim)) sight = {status.st_mtim, now, true};
  const std::optional<ProcessName> owner = owner_of(path);
  const bool ended = owner && owner->has_ended();
  const bool stale = now - sight.since >= lease_;
  if (!ended && !stale) return sight.alive ? Claim::in_work : Claim::unknown;
  return remove_stale(path, status) && link_to(path) ? Claim::ours : Claim::unknown;
}

bool Claims::remove_stale(const std::string& path, const struct stat& seen) const {
  // Of several processes that see the same, rename() succeeds for one. It may have got the fresh claim of another one:
  // then it puts that back.
  const std::string aside = lease_path_ + std::string(kRemoved);
  if (::rename(path.c_str(), aside.c_str()) != 0) return false;
  struct stat got {};
  const bool right =
      ::lstat(aside.c_str(), &got) == 0 && got.st_ino == seen.st_ino && same_time(got.st_mtim, seen.st_mtim);
  if (!right && ::link(aside.c_str(), path.c_str()) != 0 && errno != EEXIST)
    throw IoError(path + ": cannot make a hard link (" + std::strerror(errno) + ")");
  ::unlink(aside.c_str());
  return right;
}

void Claims::release(const std::string& id) {
  const std::string path = claim_path(id);
  taken_.erase(path);
  give_back(path);
}

void Claims::give_back(const std::string& path) const {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && is_own(status)) ::unlink(path.c_str());
}

void Claims::remove_what_ended_processes_left() const {
  std::error_code error;
  std::vector<std::string> left, claims;
  for (const auto& entry : std::filesystem::directory_iterator(dir_, error)) {
    const std::string path = entry.path().string();
    const bool claim = path.ends_with(kClaim);
    if (!claim && !path.ends_with(kLease) && !path.ends_with(kRemoved)) continue;
    const std::optional<ProcessName> owner = owner_of(path);
    if (owner && owner->has_ended()) (claim ? claims : left).push_back(path);
  }
  for (const std::string& path : left) ::unlink(path.c_str());
  // Nobody asks for the lens again that a process had finished before it was killed.
  for (const std::string& path : claims) {
    struct stat status {};
    const std::optional<ProcessName> owner = owner_of(path);
    if (owner && owner->has_ended() && ::lstat(path.c_str(), &status) == 0) (void)remove_stale(path, status);
  }
}

std::vector<Claims::InWork> Claims::list(const std::string& dir) {
  std::map<ino_t, InWork> owners;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    const std::string path = entry.path().string();
    struct stat status {};
    if (!path.ends_with(kClaim) || ::lstat(path.c_str(), &status) != 0) continue;
    InWork& owner = owners[status.st_ino];
    if (++owner.lenses > 1) continue;
    const std::optional<ProcessName> name = owner_of(path);
    if (name) owner.owner = "process " + std::to_string(name->pid) + " on " + name->host;
    owner.ended = name && name->has_ended();
    owner.silent = std::max(0.0, std::difftime(std::time(nullptr), status.st_mtim.tv_sec));
  }
  std::vector<InWork> result;
  for (const auto& [inode, owner] : owners) result.push_back(owner);
  return result;
}

}  // namespace einfield
