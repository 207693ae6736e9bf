// The batch on a CUDA device.
#pragma once

#include <memory>
#include <vector>

#include "host/fit/scalar_batch.hpp"
#include "kernels/scalar_columns.hpp"

namespace einfield {

/// Every evaluate() is one round on the device: one copy of the points, one of the results, one synchronization.
class CudaScalarBatch final : public ScalarBatch {
 public:
  /// @param models      of the systems, of one shape; the deflection of their networks is computed on the device
  /// @param concurrent  points that the caller evaluates at once, at most
  /// @throws InvalidInput when the systems have different shapes, CudaError when the device lacks memory
  CudaScalarBatch(int device, std::vector<ScalarModel> models, int concurrent);

  /// Device memory that a batch of `copies` such systems will allocate.
  static std::size_t planned_bytes(int device, const ScalarModel& model, int copies, int concurrent);

  const ScalarModel& model(int system) const override { return models_[static_cast<std::size_t>(system)]; }
  std::vector<ScalarAnswer> evaluate(const std::vector<ScalarRequest>& points) override;
  const cuda::ColumnsCounts& counts() const { return columns_->counts(); }

 private:
  cuda::ColumnsPoint point_of(const ScalarRequest& request) const;
  ScalarAnswer answer_of(const ScalarRequest& request, const cuda::ColumnsResult& result) const;

  std::vector<ScalarModel> models_;
  std::unique_ptr<cuda::ScalarColumns> columns_;
};

}  // namespace einfield
