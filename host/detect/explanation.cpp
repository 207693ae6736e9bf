#include "host/detect/explanation.hpp"

#include <cmath>
#include <utility>

#include "einfield/backend.hpp"
#include "einfield/random.hpp"
#include "host/cpu/backend.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/laplace.hpp"
#include "host/fit/member_draws.hpp"

namespace einfield {
namespace {

/// The image of a problem at its initial parameters.
std::vector<double> image_of(const Problem& problem) {
  const std::unique_ptr<Backend<double>> backend = make_cpu_backend<double>(1);
  backend->load({problem});
  backend->evaluate(false);
  return backend->download(Field::model, 0);
}

}  // namespace

Explanation explain(const std::string& name, Problem problem, const ExplanationSettings& settings, ThreadPool& pool,
                    const std::function<bool()>& interrupted) {
  Explanation found;
  found.name = name;
  found.problem = std::move(problem);
  {
    JointModel model(found.problem, {}, pool);
    const GaussNewtonResult result = gauss_newton(model, found.problem.initial_parameters, found.problem.regularization,
                                                  {.steps = settings.steps,
                                                   .tolerance = settings.tolerance,
                                                   .source_contrast = settings.source_contrast,
                                                   .choose_weights = settings.choose_weights},
                                                  pool, nullptr, interrupted);
    if (result.interrupted) throw InterruptedDetection{};
    found.x = result.x;
    found.chi2 = result.value.chi2;
    found.steps = result.steps;
    found.converged = result.converged;
    found.log_evidence = result.evidence ? result.evidence->log_evidence : std::nan("");
    found.problem.regularization = result.weights;
    if (result.evidence) found.problem.source_variance = result.evidence->source_variance;
  }
  found.problem.initial_parameters = found.x;
  found.model = with_parameters(found.problem.model, ParameterLayout(found.problem.model), found.x);
  if (settings.errors) found.sigma = Laplace(found.problem, found.x, pool).scalars().sigma;
  return found;
}

std::vector<double> image_of(const Explanation& explanation) {
  return image_of(explanation.problem);
}

Problem with_lenses(const Explanation& from, const std::vector<LensComponent>& added) {
  Problem problem = from.problem;
  problem.model = from.model;
  problem.model.lens.insert(problem.model.lens.end(), added.begin(), added.end());
  problem.initial_parameters = ParameterLayout(problem.model).initial_parameters({});
  return problem;
}

Problem mock_of(const Explanation& from, const std::vector<LensComponent>& added, std::uint64_t seed,
                std::uint64_t stream) {
  Problem mock = from.problem;
  const std::vector<double> truth = image_of(with_lenses(from, added));
  for (std::size_t i = 0; i < truth.size(); ++i)
    if (mock.observation.mask[i]) mock.observation.image[i] = truth[i];
  redraw_noise(mock.observation, MemberDraws(seed, static_cast<int>(stream)));
  return mock;
}

}  // namespace einfield
