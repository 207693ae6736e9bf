#include "host/fit/member_draws.hpp"

#include <vector>

#include "host/cpu/noise_whitening.hpp"

namespace einfield {
namespace {

template <class Components>
void redraw_priors(Components& components, const MemberDraws& draws, std::uint64_t& count) {
  for (auto& component : components)
    for (std::size_t i = 0; i < component.priors.size(); ++i) {
      ParameterPrior& prior = component.priors[i];
      if (!prior.gaussian() || !component.free[i]) continue;
      double& mean = prior.mean_of.given() ? prior.mean_of.offset : prior.mean;
      mean += prior.sigma * draws(MemberDraws::scalar_priors, count++);
    }
}

}  // namespace

void redraw_noise(Observation& o, const MemberDraws& draws) {
  std::vector<double> noise;
  for (std::size_t i = 0; i < o.image.size(); ++i)
    if (o.mask[i]) noise.push_back(draws(MemberDraws::noise, i));
  whitening_of(o).color(noise.data());
  auto drawn = noise.begin();
  for (std::size_t i = 0; i < o.image.size(); ++i)
    if (o.mask[i]) o.image[i] += o.noise[i] * *drawn++;
}

void redraw(Problem& problem, const MemberDraws& draws) {
  redraw_noise(problem.observation, draws);
  std::uint64_t count = 0;
  redraw_priors(problem.model.lens, draws, count);
  redraw_priors(problem.model.source, draws, count);
  redraw_priors(problem.model.lens_light, draws, count);
}

}  // namespace einfield
