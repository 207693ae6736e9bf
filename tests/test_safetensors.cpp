// The exchange format of networks: what is written is read back to the bit, and nothing else is believed.
#include "host/files/safetensors.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "einfield/error.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {
namespace {

using nlohmann::json;

const NetworkShape kShape{{3, 2}, 0.1};

std::vector<double> weights(const NetworkShape& shape, bool single) {
  std::vector<double> values = initial_weights(shape, 5, false);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] += 0.01 * static_cast<double>(i);
    if (single) values[i] = static_cast<float>(values[i]);
  }
  return values;
}

/// A file of a header and `data` bytes of zeros.
std::string bytes_of(const std::string& header, std::size_t data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\0');
}

class Safetensors : public testing::Test {
 protected:
  TemporaryDirectory scratch_;
  std::string path_ = scratch_ / "network.safetensors";

  /// The message with which these bytes are refused; fails when they are not, or when it is not one line.
  std::string refusal(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    try {
      read_network(path_);
    } catch (const InvalidInput& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.rfind(path_ + ": ", 0), 0u) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_LT(message.size(), path_.size() + 300) << message;
      return message.substr(path_.size() + 2);
    }
    ADD_FAILURE() << "accepted";
    return "";
  }
  std::string refusal(const json& header, std::size_t data) { return refusal(bytes_of(header.dump(), data)); }
};

/// Header of a valid network 2-3-2-1 in single precision, kData bytes of it.
json valid_header() {
  json header;
  header["__metadata__"] = {{"activation", "swish"}, {"input_scale", "0.1"}};
  std::size_t offset = 0;
  const auto add = [&](const std::string& name, std::vector<std::size_t> shape) {
    std::size_t bytes = 4;
    for (const std::size_t n : shape) bytes *= n;
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  };
  add("layers.0.kernel", {2, 3});
  add("layers.0.bias", {3});
  add("layers.1.kernel", {3, 2});
  add("layers.1.bias", {2});
  add("layers.2.kernel", {2, 1});
  add("layers.2.bias", {1});
  return header;
}
constexpr std::size_t kData = 4 * (6 + 3 + 6 + 2 + 2 + 1);

TEST_F(Safetensors, NetworksComeBackToTheBit) {
  for (const bool double_precision : {false, true})
    for (const NetworkShape& shape : {kShape, NetworkShape{{1}, 1 / 3.0}, NetworkShape{{7, 1, 5, 4}, 1e-7},
                                      NetworkShape{{3}, 1, 2}, NetworkShape{{4, 5}, 0.3, 7}, NetworkShape{{}, 2, 5}}) {
      const std::vector<double> written = weights(shape, !double_precision);
      write_network(path_, shape, written, double_precision);
      const StoredNetwork read = read_network(path_);
      EXPECT_EQ(read.shape, shape);
      EXPECT_EQ(read.parameters, written);
    }
}

TEST_F(Safetensors, NamesShapesAndMetadataAreThoseOfTheContract) {
  write_network(path_, kShape, weights(kShape, false), false);
  const std::string bytes = scratch_.read("network.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const json header = json::parse(bytes.substr(8, length));
  EXPECT_EQ(header, valid_header());
  // The kernel is (in × out), row-major: value (1, 2) of the first is number 5 of the flat layout.
  float value = 0;
  std::memcpy(&value, bytes.data() + 8 + length + 4 * 5, 4);
  EXPECT_EQ(value, static_cast<float>(weights(kShape, false)[5]));
}

TEST_F(Safetensors, FourierFeaturesAreLayerZero) {
  const NetworkShape shape{{3}, 0.1, 2};
  write_network(path_, shape, weights(shape, false), false);
  std::string bytes = scratch_.read("network.safetensors");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  json header = json::parse(bytes.substr(8, length));
  EXPECT_EQ(header["__metadata__"]["encoding"], "fourier");
  EXPECT_EQ(header["layers.0.kernel"]["shape"], (json{2, 4}));
  EXPECT_EQ(header["layers.2.kernel"]["shape"], (json{3, 1}));
  const std::size_t data = bytes.size() - 8 - length;
  for (const char* encoding : {"Fourier", "", "none"}) {
    header["__metadata__"]["encoding"] = encoding;
    EXPECT_NE(refusal(header, data).find("encoding is \"" + std::string(encoding) + "\", expected \"fourier\""),
              std::string::npos);
  }
  // Without the word, the layer is one with swish like the others.
  header["__metadata__"].erase("encoding");
  std::ofstream(path_, std::ios::binary) << bytes_of(header.dump(), data);
  EXPECT_EQ(read_network(path_).shape, (NetworkShape{{4, 3}, 0.1, 0}));

  // A sine without its cosine, an encoding and no output, and an encoding as the only layer before the output.
  header = valid_header();
  header["__metadata__"]["encoding"] = "fourier";
  EXPECT_NE(refusal(header, kData).find("layers.0.kernel has 3 outputs, expected an even number"), std::string::npos);
  header = valid_header();
  header["__metadata__"]["encoding"] = "fourier";
  header["layers.0.kernel"]["shape"] = {2, 4};
  header["layers.0.bias"]["shape"] = {4};
  for (const int layer : {1, 2})
    for (const char* tensor : {".kernel", ".bias"}) header.erase("layers." + std::to_string(layer) + tensor);
  header["layers.0.kernel"]["data_offsets"] = {0, 32};
  header["layers.0.bias"]["data_offsets"] = {32, 48};
  EXPECT_NE(refusal(header, 48).find("2 tensors, expected a kernel and a bias for each of 2 to"), std::string::npos);
  write_network(path_, {{4}, 1, 0}, weights({{4}, 1, 0}, false), false);
  bytes = scratch_.read("network.safetensors");
  std::memcpy(&length, bytes.data(), 8);
  header = json::parse(bytes.substr(8, length));
  header["__metadata__"]["encoding"] = "fourier";
  std::ofstream(path_, std::ios::binary) << bytes_of(header.dump(), bytes.size() - 8 - length);
  EXPECT_EQ(read_network(path_).shape, (NetworkShape{{}, 1, 2}));
}

TEST_F(Safetensors, TensorsMayLieInAnyOrder) {
  json header = valid_header();
  // The last bias first, everything else behind it.
  for (auto& [name, entry] : header.items())
    if (name != "__metadata__")
      entry["data_offsets"] = {entry["data_offsets"][0].get<int>() + 4, entry["data_offsets"][1].get<int>() + 4};
  header["layers.2.bias"]["data_offsets"] = {0, 4};
  std::string bytes = bytes_of(header.dump(), kData);
  const float value = 42;
  std::memcpy(bytes.data() + bytes.size() - kData, &value, 4);
  std::ofstream(path_, std::ios::binary) << bytes;
  const StoredNetwork network = read_network(path_);
  EXPECT_EQ(network.parameters.back(), 42);
  EXPECT_EQ(network.parameters.front(), 0);
}

TEST_F(Safetensors, WhatIsNoFileIsRefused) {
  EXPECT_THROW(read_network(scratch_ / "absent"), InvalidInput);
  EXPECT_THROW(read_network(scratch_.path().string()), InvalidInput);
  ASSERT_EQ(mkfifo((scratch_ / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(read_network(scratch_ / "pipe"), InvalidInput);  // and does not wait for a writer
}

TEST_F(Safetensors, LengthsOfTheHeaderAreNotBelieved) {
  EXPECT_NE(refusal(std::string()).find("0 bytes"), std::string::npos);
  refusal(std::string(7, '\0'));
  for (const std::uint64_t length :
       {std::uint64_t{1}, std::uint64_t{100}, std::uint64_t{1} << 32, ~std::uint64_t{0}, ~std::uint64_t{0} - 7})
    EXPECT_NE(refusal(std::string(reinterpret_cast<const char*>(&length), 8)).find("a header of"), std::string::npos);
  EXPECT_NE(refusal(bytes_of(std::string(SafetensorsFile::kMaxHeader + 1, ' '), 0)).find("a header of"),
            std::string::npos);
  EXPECT_NE(refusal(bytes_of(std::string(SafetensorsFile::kMaxHeader, ' '), 0)).find("not JSON"), std::string::npos);
}

TEST_F(Safetensors, JsonMustBeAHeader) {
  EXPECT_NE(refusal(bytes_of("", 0)).find("not JSON"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("{\"a\":\xff}", 0)).find("not JSON"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("[]", 0)).find("not a JSON object"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("7", 0)).find("not a JSON object"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("null", 0)).find("not a JSON object"), std::string::npos);
  EXPECT_NE(refusal(bytes_of(std::string(SafetensorsFile::kMaxHeader, '['), 0)).find("not JSON"), std::string::npos);
  const std::string deep = "{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}";
  EXPECT_NE(refusal(bytes_of(deep, 0)).find("nested too deeply"), std::string::npos);
  std::string objects = "{\"a\":";
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  EXPECT_NE(refusal(bytes_of(objects + "1" + std::string(1001, '}'), 0)).find("nested too deeply"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("{\"a\":7E999}", 0)).find("a number that is out of range"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("{\"a\":1,\"a\":2}", 0)).find("\"a\" twice"), std::string::npos);
  EXPECT_NE(refusal(bytes_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F64\"}}", 0)).find("\"dtype\" twice"),
            std::string::npos);
  // The same key in two objects is no repetition.
  std::ofstream(path_, std::ios::binary) << bytes_of(valid_header().dump(), kData);
  EXPECT_NO_THROW(read_network(path_));
}

TEST_F(Safetensors, TensorsMustFillTheFileExactly) {
  const auto with = [](const char* name, std::size_t begin, std::size_t end) {
    json header = valid_header();
    header[name]["data_offsets"] = {begin, end};
    return header;
  };
  EXPECT_NE(refusal(valid_header(), kData + 1).find("1 bytes follow"), std::string::npos);
  EXPECT_NE(refusal(valid_header(), kData - 1).find("not a range within"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", 20, 32), kData).find("overlaps"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", 28, 40), kData).find("gap"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.kernel", 24, 48), kData).find("gap"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", 24, 32), kData).find("in 8 bytes"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", 36, 24), kData).find("not a range"), std::string::npos);
  EXPECT_NE(refusal(with("layers.2.bias", 76, ~std::size_t{0}), kData).find("not a range"), std::string::npos);
  json header = valid_header();
  header["layers.2.bias"]["data_offsets"] = {-4, 0};
  EXPECT_NE(refusal(header, kData).find("not a range"), std::string::npos);
  header["layers.2.bias"]["data_offsets"] = {76.0, 80.0};
  EXPECT_NE(refusal(header, kData).find("not a range"), std::string::npos);
  header["layers.2.bias"]["data_offsets"] = {76};
  EXPECT_NE(refusal(header, kData).find("not a range"), std::string::npos);
}

TEST_F(Safetensors, TypesAndShapesMustMakeSense) {
  const auto with = [](const char* name, const char* key, const json& value) {
    json header = valid_header();
    header[name][key] = value;
    return header;
  };
  EXPECT_NE(refusal(with("layers.0.bias", "dtype", "BF16"), kData).find("dtype"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "dtype", 32), kData).find("dtype"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "dtype", "F64"), kData).find("in 12 bytes"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "extra", 1), kData).find("expected dtype"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", "3"), kData).find("shape"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {3.0}), kData).find("shape"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {-3}), kData).find("shape"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {0}), kData).find("in 12 bytes"), std::string::npos);
  // 2^62 · 4 bytes wrap to 0, and (2^32)² · 3 to 3 more of nothing.
  const std::size_t big = std::size_t{1} << 62, half = std::size_t{1} << 32;
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {big}), kData).find("in 12 bytes"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {half, half, 3}), kData).find("in 12 bytes"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {3, 1, 1, 1, 1, 1, 1, 1, 1}), kData).find("shape"),
            std::string::npos);
  EXPECT_NE(refusal(with("layers.0.bias", "shape", {3, 1}), kData).find("layers.0.bias is 3 x 1"), std::string::npos);
  EXPECT_NE(refusal(with("layers.0.kernel", "shape", {3, 2}), kData).find("layers.0.kernel is 3 x 2"),
            std::string::npos);
  EXPECT_NE(refusal(with("layers.1.kernel", "shape", {6}), kData).find("layers.1.kernel is 6"), std::string::npos);
  EXPECT_NE(refusal(with("layers.2.bias", "shape", json::array()), kData).find("layers.2.bias is one value"),
            std::string::npos);
}

TEST_F(Safetensors, ANetworkIsAllThereAndNothingElse) {
  json header = valid_header();
  header
      ["layers.0.bias"
       "x"] = header["layers.0.bias"];
  header.erase("layers.0.bias");
  EXPECT_NE(refusal(header, kData).find("no tensor \"layers.0.bias\""), std::string::npos);

  header = valid_header();
  header["other"] = {{"dtype", "F32"}, {"shape", {0}}, {"data_offsets", {kData, kData}}};
  EXPECT_NE(refusal(header, kData).find("7 tensors"), std::string::npos);
  header["another"] = header["other"];
  EXPECT_NE(refusal(header, kData).find("no tensor \"layers.3.kernel\""), std::string::npos);
  EXPECT_NE(refusal(json::object({{"__metadata__", valid_header()["__metadata__"]}}), 0).find("0 tensors"),
            std::string::npos);

  for (const char* key : {"activation", "input_scale"}) {
    header = valid_header();
    header["__metadata__"].erase(key);
    EXPECT_NE(refusal(header, kData).find(std::string("no \"") + key + "\""), std::string::npos);
    header["__metadata__"][key] = 1;
    EXPECT_NE(refusal(header, kData).find("not a string"), std::string::npos);
  }
  header = valid_header();
  header["__metadata__"]["activation"] = "re\nlu";
  EXPECT_NE(refusal(header, kData).find("\"re\\nlu\""), std::string::npos);
  for (const char* scale : {"", "0", "-1", "nan", "inf", "1x", " 1", "1e999"}) {
    header = valid_header();
    header["__metadata__"]["input_scale"] = scale;
    EXPECT_NE(refusal(header, kData).find("input_scale"), std::string::npos) << scale;
  }
  header = valid_header();
  header["__metadata__"] = "none";
  EXPECT_NE(refusal(header, kData).find("__metadata__"), std::string::npos);
}

TEST_F(Safetensors, LimitsOfTheNetworkHold) {
  const auto header_of = [](const std::vector<std::size_t>& widths, std::size_t& offset) {
    json header;
    header["__metadata__"] = valid_header()["__metadata__"];
    offset = 0;
    for (std::size_t l = 0; l + 1 < widths.size(); ++l)
      for (const bool kernel : {true, false}) {
        const std::size_t bytes = 4 * (kernel ? widths[l] : 1) * widths[l + 1];
        const json shape = kernel ? json{widths[l], widths[l + 1]} : json{widths[l + 1]};
        header["layers." + std::to_string(l) + (kernel ? ".kernel" : ".bias")] = {
            {"dtype", "F32"}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
        offset += bytes;
      }
    return header;
  };
  std::size_t data = 0;
  json header = header_of({2, static_cast<std::size_t>(kMaxWidth) + 1, 1}, data);
  EXPECT_NE(refusal(header, data).find("4097 outputs"), std::string::npos);
  header = header_of({2, 3, 2}, data);
  EXPECT_NE(refusal(header, data).find("2 outputs, expected 1"), std::string::npos);
  header = header_of({2, 1}, data);
  EXPECT_NE(refusal(header, data).find("2 tensors"), std::string::npos);
  header = header_of(std::vector<std::size_t>(static_cast<std::size_t>(kMaxHiddenLayers) + 3, 1), data);
  EXPECT_NE(refusal(header, data).find("36 tensors"), std::string::npos);
  std::vector<std::size_t> widths(static_cast<std::size_t>(kMaxHiddenLayers) + 2, 1);
  widths.front() = 2;
  header = header_of(widths, data);
  std::ofstream(path_, std::ios::binary) << bytes_of(header.dump(), data);
  EXPECT_EQ(read_network(path_).shape.hidden.size(), static_cast<std::size_t>(kMaxHiddenLayers));
}

TEST_F(Safetensors, WeightsMustBeFinite) {
  for (const bool double_precision : {false, true})
    for (const double value : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      std::vector<double> values = weights(kShape, true);
      values[10] = value;
      write_network(path_, kShape, values, double_precision);
      EXPECT_NE(refusal(scratch_.read("network.safetensors")).find("layers.1.kernel holds a value that is not finite"),
                std::string::npos);
    }
}

TEST_F(Safetensors, EveryDamagedByteIsRefusedOrHarmless) {
  // Any byte may become any of a few others, and the file may end anywhere: an InvalidInput of one line, or numbers of
  // the same shape, never anything else.
  write_network(path_, kShape, weights(kShape, true), false);
  const std::string intact = scratch_.read("network.safetensors");
  int refused = 0;
  const auto try_one = [&](const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    try {
      const StoredNetwork network = read_network(path_);
      EXPECT_EQ(network.parameters.size(), network.shape.size());
      for (const double v : network.parameters) EXPECT_TRUE(std::isfinite(v));
    } catch (const InvalidInput& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  };
  for (std::size_t i = 0; i < intact.size(); ++i)
    for (const int change : {1, 0x80}) {
      std::string bytes = intact;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      try_one(bytes);
    }
  EXPECT_GT(refused, static_cast<int>(intact.size()) / 2);
  for (std::size_t size = 0; size < intact.size(); ++size) {
    const int before = refused;
    try_one(intact.substr(0, size));
    EXPECT_EQ(refused, before + 1) << size;
  }
}

TEST_F(Safetensors, WritingRefusesTheWrongNumberOfWeights) {
  EXPECT_THROW(write_network(path_, kShape, {1, 2, 3}, false), InvalidInput);
  EXPECT_THROW(write_network(scratch_ / "no/such/folder", kShape, weights(kShape, false), false), IoError);
}

TEST_F(Safetensors, ThePythonPackageReadsIt) {
  if (std::system("python3 -c 'import safetensors, numpy' 2>/dev/null") != 0)
    GTEST_SKIP() << "the Python packages safetensors and numpy are not installed";
  const std::vector<double> values = weights(kShape, true);
  write_network(path_, kShape, values, false);
  const std::string script = scratch_ / "read.py";
  std::ofstream(script) << "import sys, numpy\n"
                           "from safetensors import safe_open\n"
                           "with safe_open(sys.argv[1], 'np') as f:\n"
                           "    m = f.metadata()\n"
                           "    print(m['activation'], m['input_scale'])\n"
                           "    for l in range(3):\n"
                           "        k, b = f.get_tensor(f'layers.{l}.kernel'), f.get_tensor(f'layers.{l}.bias')\n"
                           "        assert k.dtype == numpy.float32 and k.shape[1] == b.shape[0]\n"
                           "        print(*(float(v).hex() for v in numpy.concatenate([k.ravel(), b])))\n";
  const std::string output = scratch_ / "output";
  ASSERT_EQ(std::system(("python3 " + script + " " + path_ + " > " + output).c_str()), 0);
  std::ifstream file(output);
  std::string word;
  file >> word;
  EXPECT_EQ(word, "swish");
  file >> word;
  EXPECT_EQ(word, "0.1");
  for (const double value : values) {
    file >> word;
    EXPECT_EQ(std::strtod(word.c_str(), nullptr), value);
  }
}

}  // namespace
}  // namespace einfield
