// Lines are written by one call; reading stops before the first line that is not whole.
#include "host/batch/row_store.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <utility>

#include "einfield/error.hpp"
#include "host/batch/process_name.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/descriptor.hpp"
#include "host/files/text.hpp"
#include "host/results/fingerprint.hpp"

namespace einfield {
namespace {

constexpr std::string_view kEnding = ".rows";
constexpr std::size_t kLengthDigits = 8, kChecksumDigits = 16;
constexpr std::size_t kHead = kLengthDigits + 1 + kChecksumDigits + 1;
constexpr std::size_t kBlock = std::size_t(1) << 22;
/// Files that read() keeps open: well below what a process may have.
constexpr std::size_t kMostOpen = 200;
/// A disk takes milliseconds for it, as long as a small fit.
constexpr std::chrono::seconds kBetweenSyncs{1};

std::uint64_t checksum_of(std::string_view text) {
  Checksum checksum;
  checksum.add(text.data(), text.size());
  return checksum.value();
}

/// Bytes of a file from an offset on, fewer at its end.
std::string read_at(int file, std::uint64_t offset, std::size_t size, const std::string& path) {
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t n = pread(file, text.data() + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw IoError(path + ": cannot be read (" + std::strerror(errno) + ")");
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  text.resize(done);
  return text;
}

/// The JSON of a whole line without its end; nothing when length or checksum do not fit.
std::optional<std::string_view> json_of(std::string_view line) {
  std::size_t length = 0;
  std::uint64_t checksum = 0;
  if (line.size() <= kHead || line[kLengthDigits] != ' ' || line[kHead - 1] != ' ') return std::nullopt;
  const char* const digits = line.data() + kLengthDigits + 1;
  const auto [end, error] = std::from_chars(line.data(), line.data() + kLengthDigits, length);
  const auto [hex_end, hex_error] = std::from_chars(digits, digits + kChecksumDigits, checksum, 16);
  if (error != std::errc() || hex_error != std::errc() || end != line.data() + kLengthDigits ||
      hex_end != digits + kChecksumDigits)
    return std::nullopt;
  const std::string_view json = line.substr(kHead);
  if (json.size() != length || checksum_of(json) != checksum) return std::nullopt;
  return json;
}

}  // namespace

std::string row_line(const LensRow& row) {
  const std::string json = to_json(row);
  if (json.size() > 99'999'999) throw IoError("the row of lens " + row.id + " is too long");
  return fmt::format("{:08} {:016x} {}\n", json.size(), checksum_of(json), json);
}

RowStore::RowStore(const std::string& dir) : dir_(dir) {}

RowStore::~RowStore() {
  if (own_ >= 0) ::close(own_);
}

void RowStore::refresh() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(kEnding)) files_.try_emplace(name);
  }
  if (error && error != std::errc::no_such_file_or_directory)
    throw IoError(dir_ + ": cannot be read (" + error.message() + ")");
  for (auto& [name, file] : files_) refresh(name, file);
}

void RowStore::refresh(const std::string& name, File& file) {
  const std::string path = in(dir_, name);
  const Descriptor stream(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (stream.get() < 0 || fstat(stream.get(), &status) != 0)
    throw IoError(path + ": cannot be read (" + std::strerror(errno) + ")");
  file.size = static_cast<std::uint64_t>(status.st_size);
  std::string rest;  // the beginning of a line whose end is in the next block
  for (std::uint64_t at = file.read; at < file.size;) {
    const std::string block = read_at(stream.get(), at, std::min<std::uint64_t>(kBlock, file.size - at), path);
    if (block.empty()) break;
    at += block.size();
    rest += block;
    std::size_t begin = 0;
    for (std::size_t end = rest.find('\n'); end != std::string::npos; end = rest.find('\n', begin)) {
      const std::string_view line = std::string_view(rest).substr(begin, end - begin);
      if (const std::optional<std::string_view> json = json_of(line))
        take(name, file.read + kHead, *json);
      else
        damage_.push_back(path + ": damaged at byte " + std::to_string(file.read) + ", its lens is fitted again");
      file.read += line.size() + 1;
      begin = end + 1;
    }
    rest.erase(0, begin);
  }
}

void RowStore::take(const std::string& name, std::uint64_t offset, std::string_view json) {
  const LensRow row = head_from_json(json);
  Head head{row.failed(), row.flagged(), row.attempt, row.settings, name, offset, json.size()};
  const auto [place, added] = heads_.try_emplace(row.id, head);
  Head& known = place->second;
  if (!added && (head.attempt > known.attempt || (head.attempt == known.attempt && head.file < known.file)))
    known = std::move(head);
}

const RowStore::Head* RowStore::find(const std::string& id) const {
  const auto found = heads_.find(id);
  return found == heads_.end() ? nullptr : &found->second;
}

std::size_t RowStore::torn_bytes() const {
  std::size_t bytes = 0;
  for (const auto& [name, file] : files_) bytes += static_cast<std::size_t>(file.size - file.read);
  return bytes;
}

LensRow RowStore::read(const Head& head) const {
  const std::string path = in(dir_, head.file);
  const int file = open_for_reading(head.file, path);
  const std::string json = read_at(file, head.offset, head.size, path);
  if (json.size() != head.size) throw InvalidInput(path + ": has changed while it was read");
  try {
    return from_json(json);
  } catch (const InvalidInput& error) {
    throw InvalidInput(path + ": " + error.what());
  }
}

int RowStore::open_for_reading(const std::string& name, const std::string& path) const {
  if (const auto known = open_.find(name); known != open_.end()) return known->second.get();
  if (open_.size() >= kMostOpen) open_.clear();
  const int file = open_.try_emplace(name, ::open(path.c_str(), O_RDONLY | O_CLOEXEC)).first->second.get();
  if (file >= 0) return file;
  const int code = errno;
  open_.erase(name);
  throw IoError(path + ": cannot be read (" + std::strerror(code) + ")");
}

void RowStore::open_own() {
  create_directory(dir_);
  const std::string stem = ProcessName::own().file_stem();
  for (int copy = 1;; ++copy) {
    own_name_ = stem + (copy > 1 ? "-" + std::to_string(copy) : "") + std::string(kEnding);
    own_ = ::open(in(dir_, own_name_).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (own_ >= 0) break;
    if (errno != EEXIST) throw IoError(in(dir_, own_name_) + ": cannot write (" + std::strerror(errno) + ")");
  }
  // The name of the file is on the disk before its first row.
  const Descriptor folder(::open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0) ::fsync(folder.get());
}

void RowStore::fail(const char* what) {
  const int code = errno;
  broken_ = true;  // what was written of the line stays at the end, where it does not count
  throw IoError(in(dir_, own_name_) + ": " + what + " (" + std::strerror(code) + ")");
}

void RowStore::append(const LensRow& row) {
  if (broken_) throw IoError(in(dir_, own_name_) + ": an earlier row could not be written");
  if (own_ < 0) open_own();
  const std::string line = row_line(row);
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(own_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot write");
    done += static_cast<std::size_t>(n);
  }
  unsynced_ = true;
  if (std::chrono::steady_clock::now() - last_sync_ >= kBetweenSyncs) sync();
}

void RowStore::sync() {
  if (!unsynced_) return;
  if (::fdatasync(own_) != 0) fail("cannot sync");
  unsynced_ = false;
  last_sync_ = std::chrono::steady_clock::now();
}

}  // namespace einfield
