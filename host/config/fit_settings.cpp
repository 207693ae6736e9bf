// What the library's fit() needs of a configuration.
#include <cmath>

#include "einfield/load.hpp"
#include "host/config/key_tables.hpp"

namespace einfield {

bool holds_out(const OptimizerConfig& optimizer) {
  return stops_by(optimizer, {StopRule::held_out});
}

FitSettings fit_settings(const Config& config, const Model& model, int log_every) {
  const OptimizerConfig& o = config.optimizer;
  FitSettings settings;
  settings.stages.clear();
  if (ParameterLayout(model).size() == 0) {  // nothing moves: the model is evaluated
    settings.stages.emplace_back().steps = 0;
    settings.log_every = log_every;
    return settings;
  }
  for (const StageConfig& stage : o.all_stages())
    settings.stages.push_back({stage.name,
                               stage.steps,
                               {learning_rates(stage.learning_rate, stage.steps, stage.warmup, stage.cosine),
                                stage.clip_norm, trainable(model, stage.free)},
                               stage.memory,
                               stage.stop,
                               stage.own_starts,
                               stage.valleys,
                               std::isfinite(stage.leave_out_outer) ? stage.leave_out_inner : 0,
                               std::isfinite(stage.leave_out_outer) ? stage.leave_out_outer : 0});
  settings.log_every = log_every;
  settings.stop_chi2 = o.stop_chi2;
  settings.patience = o.patience;
  settings.tolerance = o.tolerance;
  settings.best_of_last = keeps_last(o.stop) ? o.best_of_last : 0;
  settings.checkpoint_every = o.checkpoint_every;
  settings.starts = o.starts;
  settings.starts_seed = o.starts_seed;
  settings.choose_weights = config.regularization.automatic;
  settings.source_contrast = config.regularization.source_contrast;
  return settings;
}

}  // namespace einfield
