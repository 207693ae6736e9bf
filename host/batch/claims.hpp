// Who fits which lens. A process has a file, its lease, whose time it renews; a lens is claimed by a hard link to that
// file. link() either succeeds or finds the name taken, on NFS and Lustre as well, where locks may be missing or slow.
// A lease that nobody renews goes stale, and its lenses are taken over. Should two processes fit one lens all the same,
// as after one of them was suspended, both find the same row.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace einfield {

/// Answer of Claims::take().
enum class Claim {
  ours,     ///< this process may fit the lens
  in_work,  ///< another process fits it and was seen alive
  unknown,  ///< another process has it and may have died: ask again later
};

class Claims {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param dir    folder of the claims, made when it is absent
  /// @param lease  time without a sign of life after which the lenses of a process are taken over
  /// @throws IoError, also where the file system has no hard links
  Claims(const std::string& dir, std::chrono::milliseconds lease);
  /// Gives everything back.
  ~Claims();
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;

  /// Asks for a lens. Not for several threads at once. @throws IoError
  Claim take(const std::string& id);
  /// Gives a lens back, finished or not.
  void release(const std::string& id);

  /// A lens in work, for `batch status`.
  struct InWork {
    std::string owner;   ///< "process 17 on node03", or "" when it cannot be read
    bool ended = false;  ///< the owner is known to have ended
    double silent = 0;   ///< seconds since the lease was renewed, by the clocks of the machines
    int lenses = 0;
  };
  /// The owners of claims in a folder.
  static std::vector<InWork> list(const std::string& dir);

 private:
  /// What is seen of another process's lease.
  struct Sight {
    timespec renewed{};
    Clock::time_point since;  ///< by the clock of this process
    bool alive = false;
  };

  std::string claim_path(const std::string& id) const;
  void make_lease();
  void renew();
  void keep_renewing();
  bool link_to(const std::string& path) const;
  bool is_own(const struct stat& status) const;
  void give_back(const std::string& path) const;
  Claim look_at(const std::string& path);
  /// Removes a stale claim. @return false when somebody else was faster
  bool remove_stale(const std::string& path, const struct stat& seen) const;
  void remove_what_ended_processes_left() const;

  std::string dir_, lease_path_;
  std::chrono::milliseconds lease_;
  struct stat own_ {};
  std::set<std::string> taken_;  ///< paths of the claims of this process
  std::map<ino_t, Sight> seen_;  ///< by the inode of the lease
  std::mutex mutex_;
  std::condition_variable end_;
  bool ending_ = false;
  std::thread renewer_;
};

}  // namespace einfield
