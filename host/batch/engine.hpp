// What the engine that started this process says: which share of the lenses is its own, and which device.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace einfield {

/// Looks up a variable of the environment; nothing when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
/// That of this process.
std::optional<std::string> environment(const std::string& name);

/// A share of the lenses: those whose place in the manifest has the remainder `index` when divided by `count`. A
/// process begins with its share and then helps the others.
struct Shard {
  int index = 0, count = 1;
  std::string source;  ///< where it comes from: "SLURM_PROCID"
};

/// "auto", or "i/n" with i from 0 to n; n/n is 0/n, so that one may count from 1.
/// Auto: the element of a job array (SLURM_ARRAY_TASK_ID, _MIN, _COUNT, _STEP), and in it the rank that the innermost
/// launcher gives: OMPI_COMM_WORLD_RANK and _SIZE, PMI_RANK and PMI_SIZE, PMIX_RANK with SLURM_NTASKS, SLURM_PROCID and
/// SLURM_NTASKS. One share without any of these.
/// @throws InvalidInput "--shard: …", also for a variable that is no number
Shard shard_of(const std::string& text, const Environment& environment);

/// The rank among the processes of this node: OMPI_COMM_WORLD_LOCAL_RANK, MPI_LOCALRANKID, SLURM_LOCALID, LOCAL_RANK.
int local_rank(const Environment& environment);

/// "90", "90s", "55m", "2h", "1.5d" in seconds. @throws InvalidInput "OPTION: …"
double seconds_of(const std::string& option, const std::string& text);

}  // namespace einfield
