// Any text as a configuration: it is refused with InvalidInput, or what is written back reads as the same, and the
// problem that it describes can be evaluated.
#include <cmath>

#include "einfield/error.hpp"
#include "einfield/load.hpp"
#include "host/files/fits_io.hpp"
#include "tests/fuzz/workspace.hpp"

namespace einfield {
namespace {

/// The data that configurations may name: data.fits with IMAGE, NOISE, MASK and PSF.
const TemporaryDirectory& folder() {
  static const TemporaryDirectory& folder = [&]() -> const TemporaryDirectory& {
    const TemporaryDirectory& made = workspace();
    const auto map = [](const std::string& name, int side, double value) {
      FitsOutput hdu;
      hdu.name = name;
      hdu.nx = hdu.ny = side;
      hdu.values.assign(static_cast<std::size_t>(side * side), value);
      return hdu;
    };
    FitsOutput image = map("IMAGE", 6, 1.0);
    for (std::size_t i = 0; i < image.values.size(); ++i) image.values[i] += 0.25 * static_cast<double>(i % 7);
    write_fits(made / "data.fits", {image, map("NOISE", 6, 0.5), map("MASK", 6, 1.0), map("PSF", 3, 1.0 / 9)});
    return made;
  }();
  return folder;
}

/// Whether an evaluation takes no more than a moment.
bool is_small(const Config& config) {
  double work = config.observation.supersampling * config.observation.supersampling;
  double size = 1 + static_cast<double>(config.model.lens.size());
  const auto add = [&size](const NetworkShape& shape) { size += static_cast<double>(shape.size()); };
  if (config.model.network) add(*config.model.network);
  for (const auto* lights : {&config.model.source, &config.model.lens_light})
    for (const LightComponent& c : *lights) {
      size += 1 + 0.1 * c.grid.nx * c.grid.ny;
      if (c.kind == LightKind::network) add(c.network);
    }
  return work * size < 1e5;
}

}  // namespace
}  // namespace einfield

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace einfield;
  const std::string path = folder().write("lens.toml", as_text(data, size));
  for (const bool for_simulation : {true, false}) {
    try {
      const Config config = read_config(path, {}, for_simulation);
      if (for_simulation) continue;
      const std::string text = to_toml(config);
      try {
        promise(to_toml(read_config(folder().write("again.toml", text), {}, false)) == text, "reads as it was written");
      } catch (const InvalidInput& error) {
        std::fprintf(stderr, "%s\n%s", error.what(), text.c_str());
        promise(false, "what was written can be read");
      }
      if (!is_small(config)) continue;
      const Problem problem = load_problem(config).problem;
      static const std::unique_ptr<Backend<float>> backend = make_backend<float>("cpu", {1, 0});
      backend->load({problem});
      backend->evaluate(true);
    } catch (const InvalidInput&) {
    }
  }
  return 0;
}
