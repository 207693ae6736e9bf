// The batch on the CPU: lanes of one thread each, or one lane with all threads.
#include "host/fit/scalar_batch.hpp"

#include <algorithm>
#include <utility>

namespace einfield {

CpuScalarBatch::CpuScalarBatch(std::vector<ScalarModel> models, int concurrent, ThreadPool& pool)
    : models_(std::move(models)), pool_(pool) {
  const bool alone = concurrent == 1;
  lanes_.resize(static_cast<std::size_t>(std::min(pool.threads(), concurrent)));
  for (auto& lane : lanes_) {
    if (!alone) own_pools_.push_back(std::make_unique<ThreadPool>(1));
    for (const ScalarModel& model : models_)
      lane.push_back(std::make_unique<ScalarEvaluator>(model, alone ? pool : *own_pools_.back()));
  }
}

std::vector<ScalarAnswer> CpuScalarBatch::evaluate(const std::vector<ScalarRequest>& points) {
  std::vector<ScalarAnswer> answers(points.size());
  const auto answer = [&](std::size_t k, std::size_t lane) {
    const ScalarRequest& request = points[k];
    ScalarEvaluator& evaluator = *lanes_[lane][static_cast<std::size_t>(request.system)];
    answers[k].point = request.solve ? evaluator.evaluate(request.u) : evaluator.evaluate_fixed(request.u);
    if (answers[k].point.finite && answers[k].point.value() < request.curvature_below)
      answers[k].curvature = evaluator.curvature();
  };
  if (own_pools_.empty()) {
    for (std::size_t k = 0; k < points.size(); ++k) answer(k, 0);
    return answers;
  }
  // One loop per lane; loop k handles points k, k + n, k + 2n, …
  pool_.parallel_for(static_cast<int>(lanes_.size()), [&](int lane, int) {
    for (auto k = static_cast<std::size_t>(lane); k < points.size(); k += lanes_.size())
      answer(k, static_cast<std::size_t>(lane));
  });
  return answers;
}

}  // namespace einfield
