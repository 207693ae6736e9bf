// Reader of .npy files (NumPy format 1 to 3) with little-endian doubles in C order: the reference data of
// EINFIELD_REFERENCE. The format: numpy.lib.format, a magic string, a Python literal that describes the array, the
// values.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "einfield/error.hpp"

namespace einfield {

/// All values of an array, in C order; the shape is left to the caller.
/// @throws IoError when the file cannot be read, InvalidInput when it holds something else.
inline std::vector<double> read_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError(path + ": cannot open");
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EINFIELD_REQUIRE(bytes.size() >= 12 && std::memcmp(bytes.data(), "\x93NUMPY", 6) == 0, path + ": not a .npy file");
  const std::size_t length_bytes = bytes[6] == 1 ? 2 : 4;
  std::size_t header = 0;
  for (std::size_t i = 0; i < length_bytes; ++i)
    header |= static_cast<std::size_t>(static_cast<unsigned char>(bytes[8 + i])) << (8 * i);
  const std::size_t begin = 8 + length_bytes + header;
  EINFIELD_REQUIRE(begin <= bytes.size() && (bytes.size() - begin) % sizeof(double) == 0, path + ": cut off");
  const std::string description(bytes.data() + 8 + length_bytes, header);
  EINFIELD_REQUIRE(
      description.find("'<f8'") != std::string::npos && description.find("'fortran_order': False") != std::string::npos,
      path + ": expected little-endian doubles in C order, found " + description);
  std::vector<double> values((bytes.size() - begin) / sizeof(double));
  if (!values.empty()) std::memcpy(values.data(), bytes.data() + begin, values.size() * sizeof(double));
  return values;
}

}  // namespace einfield
