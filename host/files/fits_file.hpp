// CFITSIO's files: one on disk that is read, and one in memory that is written. File names are used literally: no
// filters, no network, no templates.
#pragma once

#include <fitsio.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace einfield {

/// CFITSIO has one stack of messages and one table of open files for all threads, and a child process must not inherit
/// a lock that another thread holds: whoever reads or writes FITS waits for its turn here first.
std::unique_lock<std::mutex> turn_of_cfitsio();

/// Text of a CFITSIO status. Clears the library's stack of messages, so that the next caller does not see them.
std::string fits_reason(int status);

/// Header text on one line of printable ASCII.
std::string fits_printable(std::string text);

/// Largest number of axes; an image with more is refused.
inline constexpr int kMaxFitsAxes = 9;

/// What is needed of an HDU to choose one.
struct FitsHdu {
  int number = 0;  ///< 0 = primary
  std::string name;
  std::string version;  ///< EXTVER
  bool image = false;
  std::vector<LONGLONG> axes;  ///< NAXIS1 first
  LONGLONG data_begin = 0;     ///< bytes
  LONGLONG end = 0;

  bool has_data() const { return image && !axes.empty(); }
  std::string label() const {
    if (!name.empty()) return name;
    return number == 0 ? "PRIMARY" : std::to_string(number);
  }
};

struct CloseFits {
  void operator()(fitsfile* file) const;
};
using FitsPointer = std::unique_ptr<fitsfile, CloseFits>;

/// Whether two names of HDUs or units are the same, in capitals or not.
bool same_fits_name(std::string_view a, std::string_view b);

/// A file open for reading.
class FitsReader {
 public:
  /// @throws InvalidInput "FILE: …"
  explicit FitsReader(const std::string& path);

  fitsfile* get() const { return file_.get(); }
  bool has(const std::string& name) const;

  /// Makes the HDU that `wanted` names the current one; "" names the primary image if it has data, else the only image.
  /// @throws InvalidInput
  const FitsHdu& choose(const std::string& wanted);
  /// The same for tables; "" names the only one.
  const FitsHdu& choose_table(const std::string& wanted);

  /// @throws InvalidInput for a file that is compressed as a whole
  void require_plain() const;
  /// @throws InvalidInput when the file ends before `end`; not checked for a compressed file.
  void require_bytes(const FitsHdu& hdu, LONGLONG end) const;

  /// A string keyword of the current HDU, or "".
  std::string text(const std::string& key) const;
  /// A number of the current HDU. @throws InvalidInput when the keyword holds something else.
  std::optional<double> value(const std::string& key) const;
  /// A number > 0 of the current HDU, or 0: for keywords that may hold anything.
  double positive_or_zero(const std::string& key) const;

 private:
  void check_file();
  void list_hdus();
  const FitsHdu& move_to(const FitsHdu& hdu);
  const FitsHdu& default_hdu() const;
  const FitsHdu& default_table() const;
  const FitsHdu& named_hdu(const std::string& wanted) const;
  std::string names() const;

  std::string path_;
  FitsPointer file_;
  std::uintmax_t bytes_ = 0;
  bool plain_ = false;  ///< not compressed as a whole
  std::vector<FitsHdu> hdus_;
};

/// A FITS file in memory; write_atomically() writes its bytes to disk and reports errors there.
class FitsMemoryFile {
 public:
  /// @param path  for messages
  explicit FitsMemoryFile(const std::string& path);

  fitsfile* get() const { return file_.get(); }
  /// @throws IoError for a status that is not 0
  void check(int status) const;
  /// Defines the structure of the current HDU, before its data are written. Out of memory, CFITSIO may drop an HDU
  /// without a status, or write into a structure that it does not have.
  /// @param number  of the HDU, from 1
  void begin_data(int number);
  void key(const std::string& name, const std::string& value, const std::string& comment = "");
  void key(const std::string& name, double value);
  /// All bytes of the file.
  std::string_view bytes();

 private:
  /// Memory that CFITSIO grows; it is freed after the file has been closed.
  struct Buffer {
    void* bytes = nullptr;
    std::size_t capacity = 0;
    ~Buffer();
  };

  std::string path_;
  Buffer buffer_;
  FitsPointer file_;
};

}  // namespace einfield
