// The finished lenses of a survey: files to which lines are appended, one a lens, and nothing is ever changed. Every
// process has its own file, so that no two write into one. A line is
//
//     LENGTH CHECKSUM JSON
//
// with the number of bytes of the JSON in 8 decimal digits and its FNV-1a checksum in 16 hexadecimal ones. A process
// that is killed leaves a torn line at the end of its file at most: it does not count, and nothing is written after it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "host/batch/lens_row.hpp"
#include "host/files/descriptor.hpp"

namespace einfield {

class RowStore {
 public:
  /// What is kept in memory of a row.
  struct Head {
    bool failed = false, flagged = false;
    int attempt = 0;
    std::uint64_t settings = 0;
    std::string file;                    ///< name in the folder
    std::uint64_t offset = 0, size = 0;  ///< of the JSON in that file [bytes]
  };

  /// @param dir  the folder of the files; may be absent
  explicit RowStore(const std::string& dir);
  ~RowStore();
  RowStore(const RowStore&) = delete;
  RowStore& operator=(const RowStore&) = delete;

  /// Reads what processes have appended since the last call. Not for several threads at once.
  /// @throws IoError, InvalidInput for a file that cannot be read
  void refresh();
  /// The row of a lens that counts: of the last attempt; of two with the same number, that of the file whose name comes
  /// first.
  const Head* find(const std::string& id) const;
  std::size_t size() const { return heads_.size(); }
  /// Number of files that refresh() has seen.
  std::size_t files() const { return files_.size(); }
  /// Sentences about lines that are damaged and not at the end of their file. Their lenses are fitted again.
  const std::vector<std::string>& damage() const { return damage_; }
  /// Bytes at the ends of files that hold no whole line.
  std::size_t torn_bytes() const;

  /// The row that a head stands for. Files stay open from call to call. Not for several threads at once.
  /// @throws InvalidInput when the file has changed
  LensRow read(const Head& head) const;

  /// Appends a row to the file of this process, which is made with the first one. A process that is killed does not
  /// lose it; once a second, and by sync(), it is on the disk, so that it outlives the machine and other machines see
  /// it.
  /// @throws IoError; then no further row can be appended
  void append(const LensRow& row);
  /// @throws IoError
  void sync();

 private:
  struct File {
    std::uint64_t read = 0;  ///< bytes that have been read, all whole lines
    std::uint64_t size = 0;
  };
  void refresh(const std::string& name, File& file);
  void take(const std::string& name, std::uint64_t offset, std::string_view json);
  int open_for_reading(const std::string& name, const std::string& path) const;
  void open_own();
  [[noreturn]] void fail(const char* what);

  std::string dir_;
  std::map<std::string, File> files_;
  mutable std::map<std::string, Descriptor> open_;  ///< for read()
  std::unordered_map<std::string, Head> heads_;
  std::vector<std::string> damage_;
  int own_ = -1;
  std::string own_name_;
  bool broken_ = false, unsynced_ = false;
  std::chrono::steady_clock::time_point last_sync_{};
};

/// A line as the files have it, with its end. @throws IoError for a row that is too long
std::string row_line(const LensRow& row);

}  // namespace einfield
