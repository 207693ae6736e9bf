// Strict reading of safetensors: everything that a file claims is checked before it is used.
#include "host/files/safetensors.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "einfield/error.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors are little endian");

/// A name from a file for a message: escaped, in quotes, shortened.
std::string quoted(const std::string& name) {
  const std::string shown = name.size() > 60 ? name.substr(0, 60) + "..." : name;
  return json(shown).dump(-1, ' ', true, json::error_handler_t::replace);
}

/// Bytes of one value, or 0 for a type that einfield does not use.
std::size_t size_of(const std::string& dtype) {
  return dtype == "F64" ? 8 : dtype == "F32" ? 4 : dtype == "U8" ? 1 : 0;
}

std::string kernel_name(int layer) {
  return "layers." + std::to_string(layer) + ".kernel";
}
std::string bias_name(int layer) {
  return "layers." + std::to_string(layer) + ".bias";
}

/// Parses the JSON header. @return an error message if it is malformed, nested too deeply or repeats a key; else ""
std::string parse_header(const std::string& text, json& header) {
  constexpr int kDepth = 3;  // header, tensor, shape
  std::vector<std::set<std::string>> keys(kDepth + 1);
  std::string problem;
  const json::parser_callback_t watch = [&](int depth, json::parse_event_t event, json& value) {
    const bool opens = event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    if (opens && depth >= kDepth) {
      problem = "the header is nested too deeply";
      return false;  // the rest of it is not stored
    }
    if (event == json::parse_event_t::object_start) keys[static_cast<std::size_t>(depth)].clear();
    if (event == json::parse_event_t::key && problem.empty() &&
        !keys[static_cast<std::size_t>(depth) - 1].insert(value.get<std::string>()).second)
      problem = "the header has " + quoted(value.get<std::string>()) + " twice";
    return true;
  };
  try {
    header = json::parse(text, watch);
  } catch (const json::parse_error& error) {
    return "the header is not JSON (at byte " + std::to_string(error.byte) + " of it)";
  } catch (const json::exception&) {
    return "the header holds a number that is out of range";
  }
  if (problem.empty() && !header.is_object()) problem = "the header is not a JSON object";
  return problem;
}

/// A list of whole numbers ≥ 0, at most `longest` of them; false when it is something else.
bool whole_numbers(const json& value, std::size_t longest, std::vector<std::size_t>& numbers) {
  if (!value.is_array() || value.size() > longest) return false;
  for (const json& number : value) {
    if (!number.is_number_unsigned()) return false;
    numbers.push_back(number.get<std::size_t>());
  }
  return true;
}

}  // namespace

std::string to_safetensors(const std::map<std::string, std::string>& metadata, const std::vector<TensorData>& tensors) {
  json header;
  header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const TensorData& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  file.reserve(file.size() + text.size() + offset);
  file += text;
  for (const TensorData& tensor : tensors) file += tensor.bytes;
  return file;
}

std::string TensorEntry::shape_text() const {
  if (shape.empty()) return "one value";
  std::string text;
  for (const std::size_t n : shape) text += (text.empty() ? "" : " x ") + std::to_string(n);
  return text;
}

void SafetensorsFile::fail(const std::string& message) const {
  throw InvalidInput(path_ + ": " + message);
}

SafetensorsFile::SafetensorsFile(const std::string& path) : path_(path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail("no such file");
  if (!std::filesystem::is_regular_file(status)) fail("not a regular file, expected a safetensors file");
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  stream_.open(path, std::ios::binary);
  if (error || !stream_) fail("cannot open (" + std::string(std::strerror(errno)) + ")");

  std::uint64_t length = 0;
  if (size < sizeof length || !stream_.read(reinterpret_cast<char*>(&length), sizeof length))
    fail(std::to_string(size) + " bytes, expected a safetensors file");
  if (length > size - sizeof length || length > kMaxHeader)
    fail("a header of " + std::to_string(length) + " bytes in a file of " + std::to_string(size) +
         ", expected a safetensors file with a header up to " + std::to_string(kMaxHeader) + " bytes");
  std::string text(length, '\0');
  if (!stream_.read(text.data(), static_cast<std::streamsize>(length))) fail("cannot read the header");
  json header;
  if (const std::string problem = parse_header(text, header); !problem.empty()) fail(problem);

  const std::size_t first = sizeof length + length;
  const std::size_t available = size - first;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) fail("__metadata__ is not an object");
      for (const auto& [key, entry] : value.items()) {
        if (!entry.is_string()) fail("__metadata__: " + quoted(key) + " is not a string");
        metadata_[key] = entry.get<std::string>();
      }
      continue;
    }
    const std::string where = "tensor " + quoted(name) + ": ";
    TensorEntry tensor;
    tensor.name = name;
    std::vector<std::size_t> range;
    if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets"))
      fail(where + "expected dtype, shape and data_offsets");
    if (!value["dtype"].is_string() || size_of(value["dtype"].get<std::string>()) == 0)
      fail(where + "dtype " + quoted(value["dtype"].dump()) + ", expected \"F32\" or \"F64\"");
    if (!whole_numbers(value["shape"], 8, tensor.shape)) fail(where + "the shape is not a short list of whole numbers");
    if (!whole_numbers(value["data_offsets"], 2, range) || range.size() != 2 || range[0] > range[1] ||
        range[1] > available)
      fail(where + "data_offsets are not a range within the file's " + std::to_string(available) + " bytes of data");
    tensor.dtype = value["dtype"].get<std::string>();
    tensor.offset = first + range[0];
    tensor.bytes = range[1] - range[0];
    // Divides instead of multiplying: no shape overflows.
    std::size_t left = tensor.bytes / size_of(tensor.dtype);
    bool fits = tensor.bytes % size_of(tensor.dtype) == 0;
    if (std::find(tensor.shape.begin(), tensor.shape.end(), std::size_t{0}) != tensor.shape.end()) {
      fits = tensor.bytes == 0;
    } else {
      for (const std::size_t n : tensor.shape) {
        fits = fits && left % n == 0;
        left /= n;
      }
      fits = fits && left == 1;
    }
    if (!fits)
      fail(where + tensor.dtype + " of shape " + tensor.shape_text() + " in " + std::to_string(tensor.bytes) +
           " bytes");
    tensors_.push_back(std::move(tensor));
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  std::size_t end = first;
  for (const TensorEntry& tensor : tensors_) {
    if (tensor.offset != end)
      fail("tensor " + quoted(tensor.name) + (tensor.offset < end ? " overlaps" : " leaves a gap after") +
           " the one before it");
    end += tensor.bytes;
  }
  if (end != size) fail(std::to_string(size - end) + " bytes follow the last tensor");
}

const TensorEntry& SafetensorsFile::tensor(const std::string& name) const {
  for (const TensorEntry& tensor : tensors_)
    if (tensor.name == name) return tensor;
  fail("no tensor " + quoted(name));
}

const std::string& SafetensorsFile::metadata(const std::string& key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) fail("no " + quoted(key) + " in __metadata__");
  return found->second;
}

std::vector<double> SafetensorsFile::read(const TensorEntry& tensor) {
  if (tensor.dtype != "F32" && tensor.dtype != "F64")
    fail("tensor " + quoted(tensor.name) + ": dtype " + tensor.dtype + ", expected F32 or F64");
  const bool single = tensor.dtype == "F32";
  const std::size_t count = tensor.bytes / (single ? 4 : 8);
  std::vector<double> values(count);
  // Single precision is read into the upper half of the array and converted from its beginning: value i is at byte
  // 4 count + 4 i ≥ 8 i, so it is read before it is overwritten.
  char* begin = reinterpret_cast<char*>(values.data()) + (single ? 4 * count : 0);
  stream_.clear();
  stream_.seekg(static_cast<std::streamoff>(tensor.offset));
  if (!stream_.read(begin, static_cast<std::streamsize>(tensor.bytes)))
    fail("tensor " + quoted(tensor.name) + ": cannot read it");
  if (single)
    for (std::size_t i = 0; i < count; ++i) {
      float value;
      std::memcpy(&value, begin + 4 * i, sizeof value);
      values[i] = value;
    }
  return values;
}

StoredNetwork read_network(const std::string& path) {
  SafetensorsFile file(path);
  StoredNetwork network;
  if (const std::string& activation = file.metadata("activation"); activation != "swish")
    file.fail("activation is " + quoted(activation) + ", expected \"swish\"");
  const std::string& scale = file.metadata("input_scale");
  const std::optional<double> input_scale = parse_number<double>(scale);
  if (!input_scale || !std::isfinite(*input_scale) || *input_scale <= 0)
    file.fail("input_scale is " + quoted(scale) + ", expected a finite number > 0");
  network.shape.input_scale = *input_scale;
  const auto encoding = file.metadata().find("encoding");
  const bool fourier = encoding != file.metadata().end();
  if (fourier && encoding->second != "fourier")
    file.fail("encoding is " + quoted(encoding->second) + ", expected \"fourier\" or none");

  // Shapes are checked first: they limit what is read.
  const std::size_t tensors = file.tensors().size();
  const std::size_t most = 2 * (static_cast<std::size_t>(kMaxHiddenLayers) + 1), fewest = 4;
  if (tensors < fewest || tensors % 2 != 0 || tensors > most)
    file.fail(std::to_string(tensors) + " tensors, expected a kernel and a bias for each of " +
              std::to_string(fewest / 2) + " to " + std::to_string(kMaxHiddenLayers + 1) + " layers");
  const int layers = static_cast<int>(tensors / 2);
  std::size_t inputs = 2;
  for (int layer = 0; layer < layers; ++layer) {
    const TensorEntry &kernel = file.tensor(kernel_name(layer)), &bias = file.tensor(bias_name(layer));
    if (kernel.shape.size() != 2 || kernel.shape[0] != inputs)
      file.fail(kernel.name + " is " + kernel.shape_text() + ", expected " + std::to_string(inputs) + " x outputs");
    const std::size_t outputs = kernel.shape[1];
    if (layer + 1 == layers ? outputs != 1 : (outputs < 1 || outputs > static_cast<std::size_t>(kMaxWidth)))
      file.fail(kernel.name + " has " + std::to_string(outputs) + " outputs, expected " +
                (layer + 1 == layers ? "1" : "1 to " + std::to_string(kMaxWidth)));
    if (bias.shape != std::vector<std::size_t>{outputs})
      file.fail(bias.name + " is " + bias.shape_text() + ", expected " + std::to_string(outputs));
    if (layer == 0 && fourier) {
      if (outputs % 2 != 0)
        file.fail(kernel.name + " has " + std::to_string(outputs) +
                  " outputs, expected an even number, a sine and a cosine of each frequency");
      network.shape.fourier_features = static_cast<int>(outputs / 2);
    } else if (layer + 1 < layers) {
      network.shape.hidden.push_back(static_cast<int>(outputs));
    }
    inputs = outputs;
  }
  network.parameters.reserve(network.shape.size());
  for (int layer = 0; layer < layers; ++layer)
    for (const std::string& name : {kernel_name(layer), bias_name(layer)}) {
      const std::vector<double> values = file.read(file.tensor(name));
      for (const double value : values)
        if (!std::isfinite(value)) file.fail(name + " holds a value that is not finite");
      network.parameters.insert(network.parameters.end(), values.begin(), values.end());
    }
  return network;
}

void write_network(const std::string& path, const NetworkShape& shape, const std::vector<double>& parameters,
                   bool double_precision) {
  EINFIELD_REQUIRE(parameters.size() == shape.size(),
                   std::to_string(parameters.size()) + " weights, expected " + std::to_string(shape.size()));
  std::vector<TensorData> tensors;
  const auto add = [&](const std::string& name, std::vector<std::size_t> tensor_shape, std::size_t begin,
                       std::size_t end) {
    if (double_precision) {
      tensors.push_back(TensorData::of(name, std::move(tensor_shape), parameters.data() + begin, end - begin));
      return;
    }
    std::vector<float> values(end - begin);
    std::transform(parameters.data() + begin, parameters.data() + end, values.begin(),
                   [](double v) { return static_cast<float>(v); });
    tensors.push_back(TensorData::of(name, std::move(tensor_shape), values.data(), values.size()));
  };
  for (int layer = 0; layer < shape.layers(); ++layer) {
    const auto inputs = static_cast<std::size_t>(shape.inputs(layer)),
               outputs = static_cast<std::size_t>(shape.outputs(layer));
    add(kernel_name(layer), {inputs, outputs}, shape.kernel_offset(layer), shape.bias_offset(layer));
    add(bias_name(layer), {outputs}, shape.bias_offset(layer), shape.bias_offset(layer) + outputs);
  }
  std::map<std::string, std::string> metadata{{"activation", "swish"}, {"input_scale", to_text(shape.input_scale)}};
  if (shape.fourier_features > 0) metadata["encoding"] = "fourier";
  write_atomically(path, to_safetensors(metadata, tensors));
}

}  // namespace einfield
