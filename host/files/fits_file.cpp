// CFITSIO behind two classes: what it lists, chooses and reports.
#include "host/files/fits_file.hpp"

#include <malloc.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "einfield/error.hpp"

namespace einfield {
namespace {

/// Bytes of a FITS block: a header is a whole number of them.
constexpr std::uintmax_t kBlock = 2880;
/// Longest file name that CFITSIO 4 holds, with room for what it appends.
constexpr std::size_t kMaxFileName = 1000;

/// realloc with zeroed new bytes: CFITSIO reads bytes before it has written them.
void* zeroed_realloc(void* bytes, std::size_t size) {
  const std::size_t before = bytes ? malloc_usable_size(bytes) : 0;
  void* grown = std::realloc(bytes, size);
  if (grown && size > before) std::memset(static_cast<char*>(grown) + before, 0, size - before);
  return grown;
}

}  // namespace

std::unique_lock<std::mutex> turn_of_cfitsio() {
  static std::mutex mutex;
  return std::unique_lock(mutex);
}

std::string fits_reason(int status) {
  char text[FLEN_STATUS];
  fits_get_errstatus(status, text);
  fits_clear_errmsg();
  return text;
}

std::string fits_printable(std::string text) {
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text;
}

bool same_fits_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::toupper(x) == std::toupper(y); });
}

void CloseFits::operator()(fitsfile* file) const {
  int status = 0;
  fits_close_file(file, &status);
  fits_clear_errmsg();
}

// ---- reading -------------------------------------------------------------------------------------------------

FitsReader::FitsReader(const std::string& path) : path_(path) {
  check_file();
  fits_clear_errmsg();
  int status = 0;
  fitsfile* file = nullptr;
  // CFITSIO would expand a leading ~ to a home directory.
  const std::string plain = path[0] == '/' ? path : "./" + path;
  fits_open_diskfile(&file, plain.c_str(), READONLY, &status);
  file_.reset(file);
  if (status != 0) throw InvalidInput(path + ": cannot be read as FITS (" + fits_reason(status) + ")");
  list_hdus();
}

bool FitsReader::has(const std::string& name) const {
  return std::any_of(hdus_.begin(), hdus_.end(), [&](const FitsHdu& hdu) { return same_fits_name(hdu.name, name); });
}

const FitsHdu& FitsReader::move_to(const FitsHdu& hdu) {
  int status = 0;
  if (fits_movabs_hdu(get(), hdu.number + 1, nullptr, &status) != 0)
    throw InvalidInput(path_ + "[" + hdu.label() + "]: cannot be read (" + fits_reason(status) + ")");
  return hdu;
}

const FitsHdu& FitsReader::choose(const std::string& wanted) {
  return move_to(wanted.empty() ? default_hdu() : named_hdu(wanted));
}

const FitsHdu& FitsReader::choose_table(const std::string& wanted) {
  return move_to(wanted.empty() ? default_table() : named_hdu(wanted));
}

void FitsReader::require_plain() const {
  if (!plain_) throw InvalidInput(path_ + ": a compressed file, expected FITS that is unpacked");
}

void FitsReader::require_bytes(const FitsHdu& hdu, LONGLONG end) const {
  if (plain_ && static_cast<std::uintmax_t>(end) > bytes_)
    throw InvalidInput(path_ + "[" + hdu.label() + "]: truncated, found " + std::to_string(bytes_) +
                       " bytes in the file, expected " + std::to_string(end));
}

std::string FitsReader::text(const std::string& key) const {
  char buffer[FLEN_VALUE] = "";
  int status = 0;
  if (fits_read_key(get(), TSTRING, key.c_str(), buffer, nullptr, &status) == 0) return fits_printable(buffer);
  fits_clear_errmsg();
  return "";
}

std::optional<double> FitsReader::value(const std::string& key) const {
  double number_value = 0;
  int status = 0;
  if (fits_read_key(get(), TDOUBLE, key.c_str(), &number_value, nullptr, &status) == 0 && std::isfinite(number_value))
    return number_value;
  fits_clear_errmsg();
  if (status == KEY_NO_EXIST || status == VALUE_UNDEFINED) return std::nullopt;
  throw InvalidInput(path_ + ": keyword " + key + ": not a number, found '" + text(key) + "'");
}

double FitsReader::positive_or_zero(const std::string& key) const {
  double number = 0;
  int status = 0;
  fits_read_key(get(), TDOUBLE, key.c_str(), &number, nullptr, &status);
  fits_clear_errmsg();
  return status == 0 && std::isfinite(number) && number > 0 ? number : 0;
}

/// Finds common problems before CFITSIO does, for clearer messages.
void FitsReader::check_file() {
  std::error_code error;
  const auto status = std::filesystem::status(path_, error);
  if (path_.empty() || status.type() == std::filesystem::file_type::not_found)
    throw InvalidInput(path_ + ": no such file");
  if (error) throw InvalidInput(path_ + ": cannot be read (" + error.message() + ")");
  if (!std::filesystem::is_regular_file(status)) throw InvalidInput(path_ + ": not a regular file, expected FITS");
  if (path_.size() > kMaxFileName)
    throw InvalidInput(path_ + ": a file name of " + std::to_string(path_.size()) + " characters, expected at most " +
                       std::to_string(kMaxFileName));
  bytes_ = std::filesystem::file_size(path_, error);
  std::ifstream file(path_, std::ios::binary);
  if (!file) throw InvalidInput(path_ + ": cannot be read (" + std::strerror(errno) + ")");
  std::array<char, 9> magic{};
  file.read(magic.data(), magic.size());
  if (file.gcount() == 0) throw InvalidInput(path_ + ": empty file, expected FITS");
  plain_ = std::string_view(magic.data(), magic.size()) == "SIMPLE  =";
  if (plain_ && bytes_ < kBlock)
    throw InvalidInput(path_ + ": truncated, found " + std::to_string(bytes_) + " bytes, expected a FITS header of " +
                       std::to_string(kBlock) + " at least");
  // Formats that CFITSIO unpacks: gzip, compress, zip, bzip2.
  const auto begins = [&](const char* bytes) { return std::memcmp(magic.data(), bytes, 2) == 0; };
  if (!plain_ && !begins("\x1f\x8b") && !begins("\x1f\x9d") && !begins("PK") && !begins("BZ"))
    throw InvalidInput(path_ + ": not a FITS file, expected one that begins with SIMPLE");
}

void FitsReader::list_hdus() {
  int n = 0, status = 0;
  if (fits_get_num_hdus(get(), &n, &status) != 0) throw InvalidInput(path_ + ": damaged (" + fits_reason(status) + ")");
  for (int i = 0; i < n; ++i) {
    FitsHdu hdu;
    hdu.number = i;
    int type = 0, n_axes = 0, bitpix = 0;
    std::array<LONGLONG, kMaxFitsAxes> axes{};
    LONGLONG header = 0;
    fits_movabs_hdu(get(), i + 1, &type, &status);
    fits_get_hduaddrll(get(), &header, &hdu.data_begin, &hdu.end, &status);
    hdu.image = type == IMAGE_HDU;
    if (hdu.image) fits_get_img_paramll(get(), kMaxFitsAxes, &bitpix, &n_axes, axes.data(), &status);
    if (status != 0) throw InvalidInput(path_ + "[" + std::to_string(i) + "]: damaged (" + fits_reason(status) + ")");
    hdu.axes.assign(axes.begin(), axes.begin() + std::min(n_axes, kMaxFitsAxes));
    hdu.name = text("EXTNAME");
    hdu.version = text("EXTVER");
    hdus_.push_back(hdu);
  }
}

/// The primary image if it has data, else the only image.
const FitsHdu& FitsReader::default_hdu() const {
  if (hdus_.front().has_data()) return hdus_.front();
  const auto has_data = [](const FitsHdu& hdu) { return hdu.has_data(); };
  const auto n = std::count_if(hdus_.begin(), hdus_.end(), has_data);
  if (n == 1) return *std::find_if(hdus_.begin(), hdus_.end(), has_data);
  require_bytes(hdus_.back(), hdus_.back().end);
  if (n == 0) throw InvalidInput(path_ + ": no image HDU, found " + names());
  throw InvalidInput(path_ + ": " + std::to_string(n) + " image HDUs, expected FILE[HDU] with one of " + names());
}

const FitsHdu& FitsReader::default_table() const {
  const auto is_table = [](const FitsHdu& hdu) { return !hdu.image; };
  const auto n = std::count_if(hdus_.begin(), hdus_.end(), is_table);
  if (n == 1) return *std::find_if(hdus_.begin(), hdus_.end(), is_table);
  require_bytes(hdus_.back(), hdus_.back().end);
  if (n == 0) throw InvalidInput(path_ + ": no table, found " + names() + ", expected a binary table");
  throw InvalidInput(path_ + ": " + std::to_string(n) + " tables, expected FILE[HDU] with one of " + names());
}

const FitsHdu& FitsReader::named_hdu(const std::string& wanted) const {
  const std::string where = path_ + "[" + wanted + "]: ";
  if (std::all_of(wanted.begin(), wanted.end(), [](unsigned char c) { return std::isdigit(c) != 0; })) {
    const std::size_t index = wanted.size() < 7 ? std::stoul(wanted) : hdus_.size();
    if (index < hdus_.size()) return hdus_[index];
    require_bytes(hdus_.back(), hdus_.back().end);
    throw InvalidInput(where + "no such HDU, expected 0 to " + std::to_string(hdus_.size() - 1) + ": " + names());
  }
  // NAME,EXTVER distinguishes HDUs of the same name, as in CFITSIO and DS9.
  const std::size_t comma = wanted.rfind(',');
  std::vector<const FitsHdu*> found;
  for (const FitsHdu& hdu : hdus_) {
    const bool unnamed_primary = hdu.number == 0 && hdu.name.empty();
    const bool versioned = comma != std::string::npos && same_fits_name(hdu.name, wanted.substr(0, comma)) &&
                           hdu.version == wanted.substr(comma + 1);
    if (same_fits_name(unnamed_primary ? "PRIMARY" : hdu.name, wanted) || versioned) found.push_back(&hdu);
  }
  if (found.size() == 1) return *found.front();
  if (found.size() > 1)
    throw InvalidInput(where + std::to_string(found.size()) + " HDUs of this name, expected " + wanted +
                       ",EXTVER or a number");
  require_bytes(hdus_.back(), hdus_.back().end);
  throw InvalidInput(where + "no such HDU, expected one of " + names());
}

std::string FitsReader::names() const {
  std::string list;
  for (const FitsHdu& hdu : hdus_) {
    if (hdu.number == 20) return list + " …";
    list += (hdu.number > 0 ? ", " : "") + hdu.label();
    if (!hdu.has_data()) list += hdu.image ? " (no data)" : " (a table)";
  }
  return list;
}

// ---- writing -------------------------------------------------------------------------------------------------

FitsMemoryFile::FitsMemoryFile(const std::string& path) : path_(path) {
  fits_clear_errmsg();
  int status = 0;
  fitsfile* file = nullptr;
  fits_create_memfile(&file, &buffer_.bytes, &buffer_.capacity, std::size_t(1) << 20, zeroed_realloc, &status);
  file_.reset(file);
  check(status);
}

FitsMemoryFile::Buffer::~Buffer() {
  std::free(bytes);
}

void FitsMemoryFile::check(int status) const {
  if (status != 0) throw IoError(path_ + ": cannot be written (" + fits_reason(status) + ")");
}

void FitsMemoryFile::begin_data(int number) {
  int status = 0, current = 0, all = 0;
  check(fits_set_hdustruc(get(), &status));
  fits_get_hdu_num(get(), &current);
  check(fits_get_num_hdus(get(), &all, &status));
  if (current != number || all != number || get()->Fptr->tableptr == nullptr)
    throw IoError(path_ + ": cannot be written (out of memory)");
}

void FitsMemoryFile::key(const std::string& name, const std::string& value, const std::string& comment) {
  int status = 0;
  check(fits_update_key_longstr(get(), name.c_str(), fits_printable(value).c_str(),
                                comment.empty() ? nullptr : fits_printable(comment).c_str(), &status));
}

void FitsMemoryFile::key(const std::string& name, double value) {
  int status = 0;
  check(fits_update_key(get(), TDOUBLE, name.c_str(), &value, nullptr, &status));
}

std::string_view FitsMemoryFile::bytes() {
  int status = 0;
  LONGLONG header = 0, data = 0, end = 0;
  check(fits_flush_file(get(), &status));
  check(fits_get_hduaddrll(get(), &header, &data, &end, &status));
  return {static_cast<const char*>(buffer_.bytes), static_cast<std::size_t>(end)};
}

}  // namespace einfield
