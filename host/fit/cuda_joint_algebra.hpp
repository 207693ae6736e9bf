// The algebra of Gauss–Newton on a CUDA device.
#pragma once

#include <cstddef>
#include <memory>

#include "host/fit/joint_algebra.hpp"
#include "kernels/joint_block.hpp"
#include "kernels/joint_columns.hpp"

namespace einfield {

/// B, AᵀA, AᵀB, BᵀB, the factor of H_ss, X and the substitutions are the device's. Aᵀr and Bᵀr cost as much as reading
/// A and B, and are made on the CPU, to which B is copied.
class CudaJointAlgebra final : public JointAlgebra, private RayColumns {
 public:
  /// @throws CudaError when the device lacks memory
  CudaJointAlgebra(int device, const JointModel& model);

  /// Device memory for a descent in which everything moves.
  static std::size_t planned_bytes(const Problem& problem);

  RayColumns* columns() override { return this; }
  std::unique_ptr<NormalEquations> normal(const Linearization& l) override;

 private:
  void fill(const RayDerivatives& derivatives, RowMatrix& rest) override;

  cuda::JointSizes sizes_;
  cuda::JointColumns columns_;
  bool has_weights_ = false;
  cuda::JointBlock block_;
};

}  // namespace einfield
