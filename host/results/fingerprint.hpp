// What a resumed run must share with the run that wrote the checkpoint, and the checksum of files and values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/problem.hpp"

namespace einfield {

/// FNV-1a, 64 bit (Fowler, Noll & Vo): any change of one byte changes it.
class Checksum {
 public:
  void add(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < size; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3u;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// Key of the configuration → value. The first key whose value differs is the one that the message names, so the keys
/// are in order of importance.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

/// @param problem            of `config`, as load_problem() makes it
/// @param stage, stage_step  of the snapshot: the learning rates of later updates may change
Fingerprint fingerprint(const Config& config, const Problem& problem, int stage, std::int64_t stage_step);

/// @param dir  of the checkpoint, for the message
/// @throws InvalidInput for the first key on which the two fingerprints differ
void require_same(const Fingerprint& stored, const Fingerprint& now, const std::string& dir, const Config& config);

}  // namespace einfield
