// Recipes: named sets of defaults for [network], [optimizer] and [regularization].
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/config.hpp"

namespace einfield {

struct Recipe {
  std::string name;
  NetworkConfig network;
  OptimizerConfig optimizer;
  RegularizationConfig regularization;
  std::optional<StageConfig> pixel_stage;  ///< the last stage, where the source has free pixels
};

/// All recipes; the first one is the default.
const std::vector<Recipe>& recipes();

/// The recipe of this name, which must exist.
const Recipe& recipe(const std::string& name);
}  // namespace einfield
