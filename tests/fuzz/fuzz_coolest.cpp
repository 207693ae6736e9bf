// Any text as a COOLEST template: InvalidInput, or a lens that is sound.
#include "einfield/error.hpp"
#include "host/coolest.hpp"
#include "tests/fuzz/workspace.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace einfield;
  std::vector<std::string> warnings;
  try {
    read_coolest(workspace().write("lens.json", as_text(data, size)), warnings).model.validate();
  } catch (const InvalidInput&) {
  }
  return 0;
}
