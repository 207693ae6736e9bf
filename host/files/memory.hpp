// How much memory this process may use at all: Linux hands out more than there is and ends processes later.
#pragma once

#include <cstddef>
#include <string>

namespace einfield {

/// Bytes of the machine or of the container, whichever is less; the largest number when nobody says.
std::size_t memory_limit();

/// "9.8 MB", as a person reads it.
std::string readable_bytes(std::size_t bytes);

/// @param what  for the message: "the fit"
/// @throws IoError when so many bytes can never be had here
void require_memory(double bytes, const std::string& what);

}  // namespace einfield
