// Parses untrusted files in a child process, so that a crash, a hang or a memory blow-up becomes an exception.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <type_traits>

namespace einfield {

/// The pipe from the child to its parent.
class Channel {
 public:
  explicit Channel(int descriptor) : descriptor_(descriptor) {}
  void send(const void* bytes, std::size_t size) const;
  /// The bytes of a value, which must not contain pointers.
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
  /// @return false if the data end too early
  bool receive(void* bytes, std::size_t size) const;

  /// A text with its length.
  void send(const std::string& text) const;
  bool receive(std::string& text) const;

 private:
  int descriptor_;
};

/// Limits of the child: memory beyond what the process already has, and processor time.
inline constexpr std::size_t kIsolatedBytes = std::size_t(4) << 30;
inline constexpr int kIsolatedSeconds = 60;

/// Runs `work` in a child process. The function that `work` returns sends the result; `receive` reads it in the parent.
/// @param path     for messages
/// @param receive  returns false if the result ends too early
/// @throws InvalidInput from `work`; "PATH: damaged, …" if the child crashed or exceeded a limit
/// @throws IoError if no child process can be created
void isolated(const std::string& path, const std::function<std::function<void(const Channel&)>()>& work,
              const std::function<bool(const Channel&)>& receive);

}  // namespace einfield
