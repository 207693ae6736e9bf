// The seam between the fits that need a Jacobian and the hardware: many points of one or more systems are evaluated at
// once. Decisions on the answers (damping, convergence, which starts go on) are the caller's.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/scalar_model.hpp"

namespace einfield {

/// A point to evaluate.
struct ScalarRequest {
  int system = 0;
  std::vector<double> u;               ///< unconstrained values of all free scalars
  bool solve = true;                   ///< false: the amplitudes are those of `u`, not the best ones
  double curvature_below = kInfinity;  ///< the curvature is needed only if the value is below this
};

struct ScalarAnswer {
  ScalarPoint point;
  std::optional<Curvature> curvature;  ///< at the point: there if its value is finite and below curvature_below
};

class ScalarBatch {
 public:
  virtual ~ScalarBatch() = default;
  /// All have the same free scalars, and the same of them move.
  virtual const ScalarModel& model(int system) const = 0;
  /// Answers in the order of the requests. An answer does not depend on the other requests.
  virtual std::vector<ScalarAnswer> evaluate(const std::vector<ScalarRequest>& points) = 0;
};

/// On the CPU, in double precision.
class CpuScalarBatch final : public ScalarBatch {
 public:
  /// @param concurrent  points that are evaluated side by side, by one thread each; 1 = all threads on one point
  CpuScalarBatch(std::vector<ScalarModel> models, int concurrent, ThreadPool& pool);

  const ScalarModel& model(int system) const override { return models_[static_cast<std::size_t>(system)]; }
  std::vector<ScalarAnswer> evaluate(const std::vector<ScalarRequest>& points) override;

 private:
  std::vector<ScalarModel> models_;
  ThreadPool& pool_;
  std::vector<std::unique_ptr<ThreadPool>> own_pools_;                // of one thread, one per lane
  std::vector<std::vector<std::unique_ptr<ScalarEvaluator>>> lanes_;  // [lane][system]
};

}  // namespace einfield
