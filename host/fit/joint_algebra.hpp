// The seam between Gauss–Newton and the hardware: the part B of the Jacobian J = (A B) of joint_model.hpp (2), products
// of J, and the elimination of the pixels of the source, which are nearly all of the work of a step. What is left has
// the size of weights and scalars, some hundreds: the caller factorizes that on the CPU.
#pragma once

#include <Eigen/Core>
#include <memory>

#include "host/fit/block_cholesky.hpp"
#include "host/fit/joint_model.hpp"

namespace einfield {

/// H by blocks, the pixels of the source first:
///
///     H = (H_ss H_sr; H_rs H_rr),   H_ss = AᵀA + prior = LLᵀ,   H_sr = AᵀB,   X = L⁻¹ H_sr (1)
class SourceBlock {
 public:
  virtual ~SourceBlock() = default;
  /// Whether H_ss is positive definite. Nothing else is defined without.
  virtual bool good() const = 0;
  /// ln det H_ss
  virtual double log_determinant() const = 0;
  /// BᵀB − XᵀX: what the data give to weights and scalars when the pixels are not known.
  virtual const Eigen::MatrixXd& schur() const = 0;
  /// Down the factor: y_s ← L⁻¹ y_s, then y_r ← y_r − Xᵀ y_s. One column per right side.
  virtual void forward(Eigen::MatrixXd& source, Eigen::MatrixXd& rest, ThreadPool& pool) const = 0;
  /// And up, for the solution x_r of the rest: y_s ← L⁻ᵀ (y_s − X x_r).
  virtual void backward(Eigen::MatrixXd& source, const Eigen::MatrixXd& rest, ThreadPool& pool) const = 0;
};

/// What the data give to H and g.
class NormalEquations {
 public:
  virtual ~NormalEquations() = default;
  /// Aᵀr and Bᵀr
  Eigen::VectorXd source_gradient, rest_gradient;
  /// (1). @param prior  of the pixels, both halves
  virtual std::unique_ptr<SourceBlock> eliminate(const SourcePrior::Sparse& prior) const = 0;

 protected:
  NormalEquations(const Linearization& l, std::size_t n_pixels);
};

class JointAlgebra {
 public:
  virtual ~JointAlgebra() = default;
  /// What makes B; null = the model, on the CPU.
  virtual RayColumns* columns() { return nullptr; }
  /// @param l  kept by reference. Equations and blocks of an earlier linearization are not used after this.
  virtual std::unique_ptr<NormalEquations> normal(const Linearization& l) = 0;
};

/// AᵀA, AᵀB and BᵀB on the CPU.
class DataNormal final : public NormalEquations {
 public:
  DataNormal(const Linearization& l, std::size_t n_pixels, ThreadPool& pool);
  std::unique_ptr<SourceBlock> eliminate(const SourcePrior::Sparse& prior) const override;

 private:
  ThreadPool& pool_;
  Eigen::MatrixXd source_;  ///< lower half
  RowMatrix mixed_;         ///< (pixels, rest)
  Eigen::MatrixXd rest_;
};

class CpuJointAlgebra final : public JointAlgebra {
 public:
  CpuJointAlgebra(std::size_t n_pixels, ThreadPool& pool) : n_pixels_(n_pixels), pool_(pool) {}
  std::unique_ptr<NormalEquations> normal(const Linearization& l) override {
    return std::make_unique<DataNormal>(l, n_pixels_, pool_);
  }

 private:
  std::size_t n_pixels_;
  ThreadPool& pool_;
};

}  // namespace einfield
