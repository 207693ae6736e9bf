// Uses einfield as a library: builds a lens in memory, simulates its image with a subhalo that the model does not
// have, and fits the network to the missing potential. Prints the reduced χ² before and after.
#include <cmath>
#include <cstdio>
#include <exception>

#include "einfield/backend.hpp"
#include "einfield/fitter.hpp"
#include "einfield/psf.hpp"

namespace {

using namespace einfield;

std::vector<std::uint8_t> fixed(std::size_t n) {
  return std::vector<std::uint8_t>(n, false);
}

Problem make_problem() {
  Problem problem;
  problem.model.lens.push_back({LensKind::sie, {1.6, 0.15, -0.04, 0, 0}, fixed(5)});
  LightComponent source;
  source.kind = LightKind::sersic_ellipse;
  source.radius = RadiusKind::major_axis;
  source.values = {10, 1.2, 1.5, -0.09, 0.03, 0.4, 0.15};
  source.free = fixed(7);
  problem.model.source.push_back(source);

  Observation& observation = problem.observation;
  observation.grid = {40, 40, 0.2, 0, 0, 1};
  const auto pixels = static_cast<std::size_t>(observation.grid.n_pixels());
  observation.image.assign(pixels, 0);
  observation.noise.assign(pixels, 2);
  observation.mask.assign(pixels, 1);
  observation.psf = gaussian_psf(0.2, observation.grid.pixel_scale);

  problem.model.network = NetworkShape{{64, 64}, 1.0};
  problem.initial_parameters = initial_weights(*problem.model.network, 1, true);
  return problem;
}

/// The noisy image of the same lens with a second SIE in it.
std::vector<double> observed_image(const Problem& problem) {
  Problem truth = problem;
  truth.model.lens.push_back({LensKind::sie, {0.15, 0, 0.3, 1.9, -1.4}, fixed(5)});
  const auto backend = make_backend<double>("cpu", {});
  backend->load({truth});
  backend->evaluate(false);  // the network's last layer is zero: it adds nothing yet
  std::vector<double> image = backend->download(Field::model, 0);
  const Philox philox{7};
  for (std::size_t i = 0; i < image.size(); ++i) image[i] += problem.observation.noise[i] * philox.normal(i);
  return image;
}

int fit_in_memory() {
  Problem problem = make_problem();
  problem.observation.image = observed_image(problem);

  const auto backend = make_backend<float>("auto", {});
  backend->load({problem});
  FitSettings settings;
  settings.stages[0].steps = 100;
  settings.log_every = 25;
  FitCallbacks<float> callbacks;
  callbacks.progress = [](int, const HistoryRow& row) {
    std::printf("step %lld: reduced chi2 %.3f\n", static_cast<long long>(row.step), row.chi2_reduced);
  };
  const FitResult<float> result = fit(*backend, {problem}, settings, callbacks).front();
  const double before = result.snapshot.history.front().chi2_reduced, after = result.final_state.chi2_reduced;
  std::printf("%s on %s: reduced chi2 %.3f -> %.3f\n", backend->name().c_str(), backend->device().c_str(), before,
              after);
  return std::isfinite(after) && after < 0.8 * before ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return fit_in_memory();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "link: %s\n", error.what());
    return 1;
  }
}
