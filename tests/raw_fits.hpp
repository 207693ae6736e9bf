// FITS files card by card, for what no library would write.
#pragma once

#include <string>
#include <vector>

namespace einfield {

/// A header of 80-character cards, padded, with `data_bytes` zeros behind.
inline std::string raw_fits(const std::vector<std::string>& cards, std::size_t data_bytes = 0) {
  std::string file;
  for (std::string card : cards) {
    card.resize(80, ' ');
    file += card;
  }
  file += "END";
  file.resize((file.size() + 2879) / 2880 * 2880, ' ');
  return file + std::string((data_bytes + 2879) / 2880 * 2880, '\0');
}

}  // namespace einfield
