// What the device needs of a ScalarModel, and ScalarPoint and Curvature from what it returns.
#include "host/fit/cuda_scalar_batch.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/error.hpp"

namespace einfield {
namespace {

/// The device compares its own sum of loss and priors with the value that is to be undercut; the host's has other
/// roundings. A curvature within this fraction above is computed for nothing; none that is needed is missing.
constexpr double kSlack = 1e-9;

cuda::ColumnsShape shape_of(const ScalarModel& model) {
  cuda::ColumnsShape shape;
  const SceneTables<double>& tables = model.tables();
  const Problem& problem = model.problem();
  shape.n_lens = tables.n_lens;
  shape.n_source = tables.n_source;
  shape.n_lens_light = tables.n_lens_light;
  shape.rays_per_side = problem.observation.grid.supersampling;
  shape.psf_supersampling = problem.observation.psf.supersampling;
  for (std::size_t k = 0; k < model.moving().size(); ++k) {
    const auto slots = model.layout().slots_of(static_cast<std::size_t>(model.moving()[k]));
    if (k < model.n_linear())
      shape.linear_slot.push_back(slots.front().first);
    else
      shape.other_slots.push_back(slots);
  }
  shape.network = problem.model.network;
  shape.light_component = model.light_component();
  if (const LightComponent* const light = network_light(problem.model)) {
    shape.light = light->network;
    shape.light_weights = model.layout().light_weights.size();
  }
  return shape;
}

cuda::ColumnsSystem system_of(const ScalarModel& model) {
  cuda::ColumnsSystem system;
  system.tables = model.tables();
  system.amplitudes = model.amplitudes();
  system.nx = model.nx();
  system.ny = model.ny();
  const auto index = [&](ScalarModel::Pixel p) { return static_cast<std::size_t>(p.y * model.nx() + p.x); };
  system.rendered.assign(static_cast<std::size_t>(model.nx() * model.ny()), -1);
  system.used = system.rendered;
  for (std::size_t i = 0; i < model.needed().size(); ++i)
    system.rendered[index(model.needed()[i])] = static_cast<int>(i);
  for (std::size_t i = 0; i < model.used().size(); ++i) {
    const ScalarModel::Used& used = model.used()[i];
    system.used[index(used.pixel)] = static_cast<int>(i);
    system.weight.push_back(used.weight);
    system.data.push_back(used.data);
    system.chi2_ratio.push_back(used.chi2_weight / used.weight);
  }
  system.theta = model.theta();
  system.psf = model.problem().observation.psf;
  system.network_weights = model.network_weights();
  system.light_weights = model.layout().light_weights;
  return system;
}

void require_one_shape(const std::vector<ScalarModel>& models) {
  const cuda::ColumnsShape first = shape_of(models.front());
  for (const ScalarModel& model : models) {
    const cuda::ColumnsShape other = shape_of(model);
    const auto same = [](const std::optional<NetworkShape>& a, const std::optional<NetworkShape>& b) {
      return a.has_value() == b.has_value() && (!a || (a->hidden == b->hidden && a->input_scale == b->input_scale &&
                                                       a->fourier_features == b->fourier_features));
    };
    EINFIELD_REQUIRE(other.n_lens == first.n_lens && other.n_source == first.n_source &&
                         other.n_lens_light == first.n_lens_light && other.rays_per_side == first.rays_per_side &&
                         other.psf_supersampling == first.psf_supersampling && other.linear_slot == first.linear_slot &&
                         other.other_slots == first.other_slots && other.light_component == first.light_component &&
                         same(other.network, first.network) && same(other.light, first.light),
                     "systems of different shapes, expected the same components, free parameters and networks");
  }
}

}  // namespace

CudaScalarBatch::CudaScalarBatch(int device, std::vector<ScalarModel> models, int concurrent)
    : models_(std::move(models)) {
  require_one_shape(models_);
  std::vector<cuda::ColumnsSystem> systems;
  for (const ScalarModel& model : models_) systems.push_back(system_of(model));
  columns_ = std::make_unique<cuda::ScalarColumns>(device, shape_of(models_.front()), systems, concurrent);
}

std::size_t CudaScalarBatch::planned_bytes(int device, const ScalarModel& model, int copies, int concurrent) {
  return cuda::ScalarColumns::plan(device, shape_of(model), {system_of(model)}, copies, concurrent).bytes;
}

cuda::ColumnsPoint CudaScalarBatch::point_of(const ScalarRequest& request) const {
  const ScalarModel& m = model(request.system);
  const ParameterLayout& layout = m.layout();
  cuda::ColumnsPoint point;
  point.system = request.system;
  point.solve = request.solve;
  const std::vector<double> values = layout.physical(request.u.data());
  point.table = layout.table_of(values);
  // The priors of the amplitudes are the device's.
  point.curvature_up_to = request.curvature_below + kSlack * std::abs(request.curvature_below);
  for (const GaussianPrior<double>& prior : layout.priors) {
    const auto linear = m.moving().begin() + static_cast<std::ptrdiff_t>(m.n_linear());
    const double z = ScalarModel::deviation(prior, values);
    if (std::find(m.moving().begin(), linear, prior.free) == linear) point.curvature_up_to -= z * z / m.n_fitted();
  }
  return point;
}

ScalarAnswer CudaScalarBatch::answer_of(const ScalarRequest& request, const cuda::ColumnsResult& result) const {
  const ScalarModel& m = model(request.system);
  const ParameterLayout& layout = m.layout();
  const std::size_t n_linear = m.n_linear(), n = m.moving().size();
  ScalarAnswer answer;
  ScalarPoint& point = answer.point;
  point.u = request.u;
  point.pinned.assign(n_linear, 0);
  point.loss = result.loss;
  point.chi2_reduced = result.chi2_reduced;
  point.finite = result.finite;
  if (!point.finite) return answer;
  std::vector<double> values = layout.physical(request.u.data());
  for (std::size_t k = 0; request.solve && k < n_linear; ++k) {
    const auto i = static_cast<std::size_t>(m.moving()[k]);
    values[i] = result.amplitudes[k];
    point.u[i] = inverse_transform(layout.free[i], values[i], 0);
    point.pinned[k] = result.pinned[k];
  }
  point.penalty = m.prior_penalty(values);
  point.finite = std::isfinite(point.value());
  if (!point.finite || !(point.value() < request.curvature_below)) return answer;

  Curvature c{SymmetricMatrix(n), std::vector<double>(n)};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) c.normal(i, j) = result.products[(1 + i) * (1 + n) + 1 + j];
    c.gradient[i] = result.products[1 + i];
  }
  m.add_priors(values, c);
  answer.curvature = std::move(c);
  return answer;
}

std::vector<ScalarAnswer> CudaScalarBatch::evaluate(const std::vector<ScalarRequest>& points) {
  std::vector<cuda::ColumnsPoint> asked;
  for (const ScalarRequest& request : points) asked.push_back(point_of(request));
  const std::vector<cuda::ColumnsResult> results = columns_->evaluate(asked);
  std::vector<ScalarAnswer> answers;
  for (std::size_t k = 0; k < points.size(); ++k) answers.push_back(answer_of(points[k], results[k]));
  return answers;
}

}  // namespace einfield
