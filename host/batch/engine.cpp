// Environments of Slurm, Open MPI, MPICH and PMIx.
#include "host/batch/engine.hpp"

#include <cmath>
#include <cstdlib>

#include "einfield/error.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

constexpr int kMostShards = 1'000'000;

/// A variable that holds a whole number; nothing when it is not set.
std::optional<int> number_in(const Environment& environment, const std::string& name, int lowest) {
  const std::optional<std::string> text = environment(name);
  if (!text || text->empty()) return std::nullopt;
  const std::optional<int> value = parse_number<int>(*text);
  if (!value || *value < lowest)
    throw InvalidInput("--shard: the variable " + name + " is not usable, found \"" + *text +
                       "\", expected a whole number from " + std::to_string(lowest) + ", or --shard i/n");
  return value;
}

/// A rank and a number of processes, when both variables are set.
std::optional<Shard> rank_in(const Environment& environment, const std::string& rank, const std::string& size) {
  const std::optional<int> index = number_in(environment, rank, 0), count = number_in(environment, size, 1);
  if (!index || !count) return std::nullopt;
  if (*index >= *count)
    throw InvalidInput("--shard: " + rank + " = " + std::to_string(*index) + " is not below " + size + " = " +
                       std::to_string(*count) + ", expected --shard i/n");
  return Shard{*index, *count, rank};
}

/// The element of a job array.
std::optional<Shard> array_element(const Environment& environment) {
  const std::optional<int> id = number_in(environment, "SLURM_ARRAY_TASK_ID", 0),
                           count = number_in(environment, "SLURM_ARRAY_TASK_COUNT", 1);
  if (!id || !count) return std::nullopt;
  const int first = number_in(environment, "SLURM_ARRAY_TASK_MIN", 0).value_or(0);
  const int step = number_in(environment, "SLURM_ARRAY_TASK_STEP", 1).value_or(1);
  // An array may have gaps, as 1,5,9-12: every number still has one share, which some then have together.
  const int index = *id >= first ? (*id - first) / step % *count : 0;
  return Shard{index, *count, "SLURM_ARRAY_TASK_ID"};
}

}  // namespace

std::optional<std::string> environment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

Shard shard_of(const std::string& text, const Environment& environment) {
  if (text != "auto") {
    const std::size_t slash = text.find('/');
    const std::optional<int> index = parse_number<int>(text.substr(0, slash));
    const std::optional<int> count =
        slash == std::string::npos ? std::nullopt : parse_number<int>(text.substr(slash + 1));
    if (!index || !count || *count < 1 || *count > kMostShards || *index < 0 || *index > *count)
      throw InvalidInput("--shard: found " + text + ", expected auto, or i/n with i from 0 to n");
    return {*index % *count, *count, "--shard"};
  }
  std::optional<Shard> rank;
  for (const auto& [name, size] : {std::pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
                                   {"PMI_RANK", "PMI_SIZE"},
                                   {"PMIX_RANK", "SLURM_NTASKS"},
                                   {"SLURM_PROCID", "SLURM_NTASKS"}})
    if (!rank) rank = rank_in(environment, name, size);
  const std::optional<Shard> element = array_element(environment);
  if (!element) return rank.value_or(Shard{});
  if (!rank || rank->count == 1) return *element;
  if (element->count > kMostShards / rank->count)
    throw InvalidInput("--shard: too many processes, found " + std::to_string(element->count) + " x " +
                       std::to_string(rank->count) + ", expected at most " + std::to_string(kMostShards));
  return {element->index * rank->count + rank->index, element->count * rank->count,
          element->source + " and " + rank->source};
}

int local_rank(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "LOCAL_RANK"})
    if (const std::optional<int> rank = number_in(environment, name, 0)) return *rank;
  return 0;
}

double seconds_of(const std::string& option, const std::string& text) {
  const auto refuse = [&] {
    throw InvalidInput(option + ": found " + text + ", expected a time > 0 as 90s, 55m, 2h or 1d");
  };
  if (text.empty()) refuse();
  double unit = 1;
  std::string number = text;
  switch (text.back()) {
    case 's':
      unit = 1;
      break;
    case 'm':
      unit = 60;
      break;
    case 'h':
      unit = 3600;
      break;
    case 'd':
      unit = 86400;
      break;
    default:
      number += 's';
  }
  number.pop_back();
  const double value = parse_number<double>(number).value_or(0) * unit;
  if (!(value > 0) || !std::isfinite(value)) refuse();
  return value;
}

}  // namespace einfield
