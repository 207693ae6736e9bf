// How much memory this process may use: Linux grants more than there is and kills processes later.
#pragma once

#include <cstddef>
#include <string>

namespace einfield {

/// Memory of the machine or of its container, whichever is smaller [bytes]; the largest number if unknown.
std::size_t memory_limit();

/// "9.8 MB"
std::string readable_bytes(std::size_t bytes);

/// @param what  for the message: "the fit"
/// @throws OutOfMemory if this machine has less memory than that
void require_memory(double bytes, const std::string& what);

}  // namespace einfield
