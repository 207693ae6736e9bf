// The safetensors format: eight bytes of header length (little endian), a JSON header, then the tensors one after the
// other. Networks are exchanged in it with JAX and PyTorch (huggingface.co/docs/safetensors); checkpoints use the same
// format.
#pragma once

#include <cstddef>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "einfield/network.hpp"

namespace einfield {

/// A tensor to write.
struct TensorData {
  std::string name;
  std::string dtype;  ///< "F32", "F64", "U8"
  std::vector<std::size_t> shape;
  std::string bytes;  ///< row-major, little endian

  template <class Real>
  static TensorData of(std::string name, std::vector<std::size_t> shape, const Real* values, std::size_t count) {
    static_assert(std::is_same_v<Real, float> || std::is_same_v<Real, double>);
    return {std::move(name), sizeof(Real) == 4 ? "F32" : "F64", std::move(shape),
            std::string(reinterpret_cast<const char*>(values), count * sizeof(Real))};
  }
};

/// The bytes of a safetensors file, with the tensors in the given order; the first one is aligned to eight bytes.
std::string to_safetensors(const std::map<std::string, std::string>& metadata, const std::vector<TensorData>& tensors);

/// A tensor as a file describes it.
struct TensorEntry {
  std::string name, dtype;
  std::vector<std::size_t> shape;
  std::size_t offset = 0, bytes = 0;  ///< from the beginning of the file

  std::string shape_text() const;  ///< "200 x 1"
};

/// A safetensors file open for reading. The constructor checks the whole header: its length, its JSON, every type and
/// shape, and that the tensors fill the rest of the file without gap or overlap. No claim of the file makes it allocate
/// more than a few times kMaxHeader.
class SafetensorsFile {
 public:
  static constexpr std::size_t kMaxHeader = std::size_t{1} << 20;  ///< bytes

  /// @throws InvalidInput "FILE: …", on one line
  explicit SafetensorsFile(const std::string& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  ///< by offset

  /// @throws InvalidInput if there is no such tensor or key.
  const TensorEntry& tensor(const std::string& name) const;
  const std::string& metadata(const std::string& key) const;

  /// Values of an F32 or F64 tensor in double.
  std::vector<double> read(const TensorEntry& tensor);

  /// Reports an error in the content. @throws InvalidInput "FILE: message"
  [[noreturn]] void fail(const std::string& message) const;

 private:
  std::string path_;
  std::ifstream stream_;
  std::map<std::string, std::string> metadata_;
  std::vector<TensorEntry> tensors_;
};

/// A network as network.safetensors stores it.
struct StoredNetwork {
  NetworkShape shape;
  std::vector<double> parameters;  ///< flat layout of `shape`
};

/// Reads tensors layers.<l>.kernel (in × out) and layers.<l>.bias, l = 0, 1, …, of type F32 or F64, and the metadata
/// activation ("swish"), input_scale and, if layer 0 holds Fourier features, encoding ("fourier").
/// @throws InvalidInput if anything is missing, superfluous, out of range or not finite.
StoredNetwork read_network(const std::string& path);

/// @param parameters  flat layout; rounded to single precision unless `double_precision`
/// @throws IoError
void write_network(const std::string& path, const NetworkShape& shape, const std::vector<double>& parameters,
                   bool double_precision);

}  // namespace einfield
