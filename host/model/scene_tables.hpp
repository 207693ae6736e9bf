// The tables behind a Scene, built from a model in one place for all renderers: the CPU backend, the CUDA backend, the
// model of the profiles' scalars and the reference of the tests.
#pragma once

#include <vector>

#include "einfield/model.hpp"
#include "einfield/render.hpp"

namespace einfield {

template <class Real>
struct SceneTables {
  std::vector<Component> components;  ///< lens, then source, then lens light
  int n_lens = 0, n_source = 0, n_lens_light = 0;
  std::vector<FreeParameter<Real>> free;  ///< scalars, in the order of the layout
  std::vector<TiedParameter<Real>> tied;
  std::vector<int> free_pixels;  ///< indices into `pixels`
  std::vector<Real> table;       ///< physical values, kMaxProfileParameters per component
  std::vector<Real> pixels;      ///< of all PIXELATED components

  SceneTables() = default;
  /// @param layout  of `model`
  SceneTables(const Model& model, const ParameterLayout& layout)
      : n_lens(static_cast<int>(model.lens.size())),
        n_source(static_cast<int>(model.source.size())),
        n_lens_light(static_cast<int>(model.lens_light.size())),
        free_pixels(layout.free_pixels),
        table(layout.table.begin(), layout.table.end()),
        pixels(layout.pixels.begin(), layout.pixels.end()) {
    for (const LensComponent& c : model.lens)
      components.push_back({static_cast<int>(c.kind), RadiusKind::product_average, 0, {}});
    int pixel_offset = 0;
    for_each_light(model, [&](const LightComponent& c) {
      components.push_back({static_cast<int>(c.kind), c.radius, pixel_offset, c.grid});
      pixel_offset += static_cast<int>(c.pixels.size());
    });
    for (const FreeParameter<double>& f : layout.free)
      free.push_back({f.slot, f.partner, f.kind, static_cast<Real>(f.lower), static_cast<Real>(f.upper)});
    for (const TiedParameter<double>& t : layout.tied)
      tied.push_back({t.slot, t.free, static_cast<Real>(t.factor), static_cast<Real>(t.offset)});
  }

  Scene<Real> scene() const { return {components.data(), n_lens, n_source, n_lens_light, table.data(), pixels.data()}; }

  /// Sets the physical values of the free scalars, of what follows them, and the free pixels.
  /// @param u  the flat parameter vector from the first free scalar on
  void place(const Real* u) {
    for (std::size_t i = 0; i < free.size(); ++i)
      table[static_cast<std::size_t>(free[i].slot)] = transform(free.data(), static_cast<int>(i), u);
    for (const TiedParameter<Real>& t : tied) table[static_cast<std::size_t>(t.slot)] = tied_value(t, free.data(), u);
    for (std::size_t k = 0; k < free_pixels.size(); ++k)
      pixels[static_cast<std::size_t>(free_pixels[k])] = u[free.size() + k];
  }
};

}  // namespace einfield
