// Any bytes as the weights of a network: InvalidInput, or a network that can be written and comes back the same.
#include "einfield/error.hpp"
#include "host/files/safetensors.hpp"
#include "tests/fuzz/workspace.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace einfield;
  const std::string path = workspace().write("network.safetensors", as_text(data, size));
  try {
    const StoredNetwork network = read_network(path);
    network.shape.validate();
    promise(network.parameters.size() == network.shape.size(), "a network has its weights");
    const std::string copy = workspace() / "copy.safetensors";
    write_network(copy, network.shape, network.parameters, true);
    const StoredNetwork again = read_network(copy);
    promise(again.shape == network.shape && again.parameters == network.parameters, "what was written comes back");
  } catch (const InvalidInput&) {
  }
  return 0;
}
