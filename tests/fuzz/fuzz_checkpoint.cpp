// A checkpoint with any of its bytes changed, its lengths and its checksum put right: InvalidInput, or a fit goes on
// from it. The input says what is changed, so that a corpus outlives changes of the format.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "einfield/error.hpp"
#include "host/results/checkpoint.hpp"
#include "tests/fuzz/workspace.hpp"
#include "tests/small_lens.hpp"

namespace einfield {
namespace {

constexpr int kSteps = 8;

/// A configuration, and the checkpoint of its fit after five steps: its header and what follows.
struct Case {
  Config config;
  Problem problem;
  FitSettings settings;
  std::unique_ptr<Backend<float>> backend = make_backend<float>("cpu", {1, 0});
  std::string header, data;

  Case(const SmallLens& lens, const std::vector<Override>& more) : config(lens.config(more)) {
    problem = load_problem(config).problem;
    settings = fit_settings(config, problem.model, 4);
    backend->load({problem});
    FitCallbacks<float> callbacks;
    int asked = 0;
    callbacks.interrupted = [&asked] { return ++asked == 5; };
    std::vector<Snapshot<float>> snapshots;
    for (const FitResult<float>& result : fit<float>(*backend, {problem}, settings, callbacks))
      snapshots.push_back(result.snapshot);
    write_checkpoint(lens.folder().path().string(), config, problem, "cpu", snapshots);
    const std::string bytes = lens.folder().read("checkpoint.safetensors");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), sizeof length);
    header = bytes.substr(sizeof length, length);
    data = bytes.substr(sizeof length + length);
  }
};

/// Changes `text` as the input says: at two bytes of offset, so many bytes less and so many more.
void change(std::string& text, const std::string& input, std::size_t& at) {
  const auto byte = [&input](std::size_t i) { return i < input.size() ? static_cast<unsigned char>(input[i]) : 0u; };
  const std::size_t offset = (byte(at) * 256 + byte(at + 1)) % (text.size() + 1);
  const std::size_t gone = byte(at + 2) % 32, added = byte(at + 3) % 32;
  text.replace(offset, gone, input.substr(std::min(at + 4, input.size()), added));
  at += 4 + added;
}

std::string put_together(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  bytes += header + data;
  std::uint64_t checksum = 0xcbf29ce484222325u;  // FNV-1a of all but the last eight bytes, which hold it
  for (std::size_t i = 0; i + 8 < bytes.size(); ++i)
    checksum = (checksum ^ static_cast<unsigned char>(bytes[i])) * 0x100000001b3u;
  std::memcpy(bytes.data() + bytes.size() - 8, &checksum, 8);
  return bytes;
}

}  // namespace
}  // namespace einfield

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace einfield;
  workspace();
  static const SmallLens lens;
  static const Case cases[] = {
      {lens, {{"optimizer.steps", "8"}, {"optimizer.warmup", "3"}, {"optimizer.best_of_last", "4"}}},
      {lens, {{"optimizer.steps", "8"}, {"optimizer.name", "lbfgs"}, {"optimizer.stop", "plateau"}}},
      {lens, {{"optimizer.stage", "[{ steps = 3 }, { name = 'lbfgs', steps = 4, free = ['lens'] }, { steps = 1 }]"}}}};
  const std::string input = as_text(data, size);
  if (input.empty()) return 0;
  const Case& c = cases[static_cast<unsigned char>(input[0]) % std::size(cases)];
  std::string header = c.header, tensors = c.data;
  for (std::size_t at = 1; at < input.size();) {
    const bool in_header = input[at++] % 4 != 0;
    change(in_header ? header : tensors, input, at);
  }
  lens.folder().write("checkpoint.safetensors", put_together(header, tensors));
  try {
    const Checkpoint<float> checkpoint = read_checkpoint<float>(lens.folder().path().string(), c.config, c.problem);
    for (const FitResult<float>& result : fit<float>(*c.backend, {c.problem}, c.settings, {}, checkpoint.snapshots))
      promise(result.stop_reason == StopReason::non_finite || result.snapshot.stage_step <= kSteps,
              "a fit ends with its steps");
  } catch (const InvalidInput&) {
  }
  return 0;
}
