#include "host/model/source_grids.hpp"

#include <algorithm>
#include <cmath>

#include "host/model/scene_tables.hpp"

namespace einfield {

bool has_following_grid(const Model& model) {
  return std::any_of(model.source.begin(), model.source.end(),
                     [](const LightComponent& light) { return light.follows_rays; });
}

std::vector<PixelGrid> source_grids(const Model& model) {
  std::vector<PixelGrid> grids;
  for (const LightComponent& light : model.source) grids.push_back(light.grid);
  return grids;
}

void set_source_grids(Model& model, const std::vector<PixelGrid>& grids) {
  for (std::size_t c = 0; c < grids.size(); ++c) model.source[c].grid = grids[c];
}

bool place_source_grids(Model& model, const Observation& observation) {
  if (!has_following_grid(model)) return true;
  Model lens;
  lens.lens = model.lens;
  const SceneTables<double> tables(lens, ParameterLayout(lens));
  const Grid& image = observation.grid;
  const int rays = image.rays_per_pixel();
  Vec2<double> low{kInfinity, kInfinity}, high{-kInfinity, -kInfinity};
  for (int ray = 0; ray < image.n_rays(); ++ray) {
    if (!observation.mask[static_cast<std::size_t>(ray / rays)]) continue;
    const Vec2<double> theta = image.ray(ray), beta = theta - macro_deflection(tables.scene(), theta);
    low = {std::min(low.x, beta.x), std::min(low.y, beta.y)};
    high = {std::max(high.x, beta.x), std::max(high.y, beta.y)};
  }
  const auto side = [](double width, int n) { return width / std::max(n - 3, 1); };
  for (LightComponent& light : model.source) {
    if (!light.follows_rays) continue;
    const double scale = std::max(side(high.x - low.x, light.grid.nx), side(high.y - low.y, light.grid.ny));
    if (!(std::isfinite(scale) && scale > 0)) return false;
    light.grid.pixel_scale = scale;
    light.grid.center_x = (low.x + high.x) / 2;
    light.grid.center_y = (low.y + high.y) / 2;
  }
  return true;
}

}  // namespace einfield
