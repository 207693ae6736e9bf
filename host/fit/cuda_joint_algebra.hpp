// The algebra of Gauss–Newton on a CUDA device.
#pragma once

#include <cstddef>
#include <memory>

#include "host/fit/joint_algebra.hpp"
#include "kernels/joint_block.hpp"

namespace einfield {

/// AᵀA, AᵀB, BᵀB, the factor of H_ss, X and the substitutions are the device's. Aᵀr and Bᵀr cost as much as reading A
/// and B, and are made on the CPU.
class CudaJointAlgebra final : public JointAlgebra {
 public:
  /// @throws CudaError when the device lacks memory
  CudaJointAlgebra(int device, const JointModel& model);

  /// Device memory for a descent in which everything moves.
  static std::size_t planned_bytes(const Problem& problem);

  std::unique_ptr<NormalEquations> normal(const Linearization& l) override;

 private:
  cuda::JointSizes sizes_;
  cuda::JointBlock block_;
};

}  // namespace einfield
