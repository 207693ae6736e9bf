#include "host/config/recipes.hpp"

#include <algorithm>

namespace einfield {
namespace {

/// Biggio et al. (2021), section 3: three hidden layers of 200 with swish, Adam at 1e-3, mean squared error, nothing
/// else.
Recipe biggio2021() {
  Recipe r;
  r.name = "biggio2021";
  r.network.hidden = {200, 200, 200};
  r.network.input_scale = 1;
  r.network.last_layer_zero = false;
  r.optimizer.loss = LossKind::mse;
  r.optimizer.learning_rate = 1e-3;
  r.optimizer.steps = 200;
  r.optimizer.stop = StopRule::none;
  r.optimizer.best_of_last = 0;
  return r;
}

/// The best choice in the studies of examples/README.md: L-BFGS that remembers many steps, on a few small networks with
/// Fourier features, with priors that only forbid what no mass distribution does.
Recipe default_recipe() {
  Recipe r;
  r.name = "default";
  r.network.fourier = true;
  r.network.hidden = {16, 16, 16};
  r.network.fourier_features = 12;
  r.network.default_fourier_scale = 4;
  r.network.last_layer_zero = true;
  r.network.ensemble = 3;
  r.optimizer.name = OptimizerKind::lbfgs;
  r.optimizer.memory = 300;
  r.optimizer.loss = LossKind::chi2;
  r.optimizer.steps = 1000;
  r.optimizer.stop = StopRule::plateau;
  r.regularization.smoothness = 2;
  r.regularization.curvature = 0.7;
  r.regularization.negative_convergence = 20;
  r.regularization.negative_total_convergence = 2000;
  return r;
}

/// A linear readout of as many features as span the field down to a tenth of its side, so that the priors alone decide
/// how smooth the potential is, and priors whose strengths come from the evidence. The search begins with a potential
/// that can hardly be more than a sheet and a shear: where it could bend freely at once, it would fit what is far from
/// its place in the source with structure that is not there (docs/studies.md). No penalty on signs: it is no Gaussian
/// prior.
Recipe evidence_recipe() {
  Recipe r = default_recipe();
  r.name = "evidence";
  r.network.hidden = {};
  r.network.fourier_features = 256;
  r.network.frequencies = Frequencies::even;
  r.network.ensemble = 1;
  r.optimizer.name = OptimizerKind::gauss_newton;
  r.optimizer.steps = 200;
  r.optimizer.stop = StopRule::none;
  r.regularization = {};
  r.regularization.automatic = true;
  r.regularization.source_contrast = 4;
  r.regularization.smoothness = 2e4;
  r.regularization.curvature = 7e3;
  r.regularization.weight_decay = 1e-3;
  r.regularization.source_gradient = 0.3;
  r.regularization.source_curvature = 0.3;
  return r;
}

/// One galaxy that lenses another, with nobody watching. The light of the lens is fitted where there are no arcs, so
/// that it cannot replace them; then the lens and the source, from many starts, on what the light leaves; then
/// everything, from each of the best valleys: which one is the lowest may change when the light moves. Free pixels of
/// the source, and a network, come last, with priors by evidence: before, they would fit what the profiles lack.
Recipe galaxy() {
  Recipe r = evidence_recipe();
  r.name = "galaxy";
  OptimizerConfig& o = r.optimizer;
  r.pixel_stage = o;
  o.name = OptimizerKind::levenberg_marquardt;
  o.steps = 150;
  o.stop = StopRule::none;
  o.prior_weight = 6;
  // The first two stages only make a start for the last one; some descents creep.
  StageConfig stage = o;
  stage.steps = 60;
  stage.free = {"lens_light"};
  stage.leave_out_inner = 0.6;
  stage.leave_out_outer = 1.6;
  o.stages.push_back(stage);
  stage = o;
  stage.steps = 100;
  stage.free = {"lens", "source"};
  stage.own_starts = 32;
  o.stages.push_back(stage);
  stage = o;
  stage.valleys = 4;
  o.stages.push_back(stage);
  return r;
}

}  // namespace

const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = {default_recipe(), biggio2021(), evidence_recipe(), galaxy()};
  return all;
}

const Recipe& recipe(const std::string& name) {
  return *std::find_if(recipes().begin(), recipes().end(), [&](const Recipe& r) { return r.name == name; });
}

}  // namespace einfield
