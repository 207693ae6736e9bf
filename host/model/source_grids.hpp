// Pixel grids of the source that follow the rays.
#pragma once

#include <vector>

#include "einfield/model.hpp"
#include "einfield/observation.hpp"

namespace einfield {

/// Places the grids of the source that follow the rays (LightComponent::follows_rays): over where the rays of the used
/// pixels come from with the smooth lens of the model, with one more pixel on each side.
/// @return false when these rays span no area, and nothing is placed
bool place_source_grids(Model& model, const Observation& observation);

/// Whether a grid of the source follows the rays.
bool has_following_grid(const Model& model);

std::vector<PixelGrid> source_grids(const Model& model);
/// @param grids  one per component of the source, or empty: the model stays as it is
void set_source_grids(Model& model, const std::vector<PixelGrid>& grids);

}  // namespace einfield
