#include "host/fit/strengths.hpp"

#include "einfield/units.hpp"

namespace einfield {

std::vector<Problem> strength_problems(const Config& config, const Problem& problem) {
  Problem fitted = problem;
  fitted.held_out = held_out_pixels(config, problem.observation);
  std::vector<Problem> problems(kStrengths, fitted);
  for (std::size_t i = 0; i < problems.size(); ++i)
    problems[i].regularization = scaled(problem.regularization, kStrengthFactors[i]);
  return problems;
}

template <class Real>
std::vector<TriedStrength> try_strengths(Backend<Real>& backend, const Config& config, const Problem& problem,
                                         FitSettings settings, const std::function<bool()>& interrupted) {
  const std::vector<Problem> problems = in_units(strength_problems(config, problem), units_of(problem));
  backend.load(problems);
  settings.checkpoint_every = 0;
  settings.ensemble = true;  // the starts are the same for all: they run before any weight counts
  FitCallbacks<Real> callbacks;
  callbacks.interrupted = interrupted;
  const std::vector<FitResult<Real>> results = fit(backend, problems, settings, callbacks);
  std::vector<TriedStrength> tried;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].stop_reason == StopReason::interrupted) return {};
    tried.push_back({kStrengthFactors[i], results[i].stop_reason == StopReason::non_finite
                                              ? kInfinity
                                              : results[i].final_state.held_out_chi2});
  }
  return tried;
}

template std::vector<TriedStrength> try_strengths(Backend<float>&, const Config&, const Problem&, FitSettings,
                                                  const std::function<bool()>&);
template std::vector<TriedStrength> try_strengths(Backend<double>&, const Config&, const Problem&, FitSettings,
                                                  const std::function<bool()>&);

double best_strength(const std::vector<TriedStrength>& tried) {
  TriedStrength best;
  for (const TriedStrength& one : tried)
    if (one.held_out_chi2 < kInfinity && one.held_out_chi2 <= best.held_out_chi2) best = one;
  return best.factor;
}

Regularization scaled(Regularization weights, double factor) {
  for (const Regularization::Weight& weight : Regularization::kWeights) weights.*weight.member *= factor;
  return weights;
}

}  // namespace einfield
