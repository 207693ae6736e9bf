#include "host/fit/member_draws.hpp"

#include <vector>

namespace einfield {
namespace {

template <class Components>
void redraw_priors(Components& components, const MemberDraws& draws, std::uint64_t& count) {
  for (auto& component : components)
    for (std::size_t i = 0; i < component.priors.size(); ++i) {
      ParameterPrior& prior = component.priors[i];
      if (prior.gaussian() && component.free[i]) prior.mean += prior.sigma * draws(MemberDraws::scalar_priors, count++);
    }
}

}  // namespace

void redraw(Problem& problem, const MemberDraws& draws) {
  Observation& o = problem.observation;
  for (std::size_t i = 0; i < o.image.size(); ++i)
    if (o.mask[i]) o.image[i] += o.noise[i] * draws(MemberDraws::noise, i);
  std::uint64_t count = 0;
  redraw_priors(problem.model.lens, draws, count);
  redraw_priors(problem.model.source, draws, count);
  redraw_priors(problem.model.lens_light, draws, count);
}

}  // namespace einfield
