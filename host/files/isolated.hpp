// Work on files that nobody vouches for, in a process of its own: what crashes, hangs or swells there is an error here.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <type_traits>

namespace einfield {

/// The way from the child to its parent.
class Channel {
 public:
  explicit Channel(int descriptor) : descriptor_(descriptor) {}
  void send(const void* bytes, std::size_t size) const;
  /// The bytes of a value: of nothing that points into one process.
  template <class Value>
  void send_value(const Value& value) const {
    static_assert(std::is_trivially_copyable_v<Value>);
    send(&value, sizeof value);
  }
  template <class Value>
  bool receive_value(Value& value) const {
    static_assert(std::is_trivially_copyable_v<Value>);
    return receive(&value, sizeof value);
  }
  /// @return false at the end of what was sent
  bool receive(void* bytes, std::size_t size) const;

  /// A text with its length.
  void send(const std::string& text) const;
  bool receive(std::string& text) const;

 private:
  int descriptor_;
};

/// Memory beyond what the process has already, and processor time, that isolated work may take.
inline constexpr std::size_t kIsolatedBytes = std::size_t(4) << 30;
inline constexpr int kIsolatedSeconds = 60;

/// Runs `work` in a child process; what it returns sends the result, which `receive` takes here.
/// @param path     begins messages
/// @param receive  false when the result breaks off
/// @throws InvalidInput what `work` threw; "PATH: damaged, …" when it crashed or took too much
/// @throws IoError when there is no child to be had
void isolated(const std::string& path, const std::function<std::function<void(const Channel&)>()>& work,
              const std::function<bool(const Channel&)>& receive);

}  // namespace einfield
