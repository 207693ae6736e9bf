// Any text as a COOLEST template beside the files of a lens with every component: InvalidInput, or a lens that is
// sound, whose maps fit its grid.
#include "einfield/error.hpp"
#include "host/exchange/coolest.hpp"
#include "tests/exchanged_lens.hpp"
#include "tests/fuzz/workspace.hpp"

namespace einfield {
namespace {

/// The maps and networks that the templates of the corpus name.
bool write_files() {
  const ExchangedLens lens = every_component(8, 8);
  write_networks(lens, workspace());
  write_coolest(workspace().path().string(), lens);
  return true;
}

}  // namespace
}  // namespace einfield

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace einfield;
  static const bool written = write_files();
  promise(written, "the files beside the template are there");
  std::vector<std::string> warnings;
  try {
    const ExchangedLens lens = read_coolest(workspace().write("lens.json", as_text(data, size)), warnings);
    lens.model.validate();
    const Observation& o = lens.observation;
    const auto pixels = static_cast<std::size_t>(o.grid.n_pixels());
    for (const std::size_t n : {o.image.size(), o.noise.size(), o.mask.size()})
      promise(n == 0 || n == pixels, "a map has a value for each pixel");
    promise(o.psf.values.size() == static_cast<std::size_t>(o.psf.nx) * static_cast<std::size_t>(o.psf.ny),
            "a PSF has a value for each sample");
  } catch (const InvalidInput&) {
  }
  return 0;
}
