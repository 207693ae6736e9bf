// What the device needs of a Linearization, and matrices from what it returns.
#include "host/fit/cuda_joint_algebra.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace einfield {
namespace {

/// Of what is common to all descents of a problem.
cuda::JointSizes sizes_of(const Problem& problem, std::size_t pixels, std::size_t rest) {
  cuda::JointSizes sizes;
  sizes.data = static_cast<std::size_t>(problem.observation.n_used());
  sizes.pixels = pixels;
  sizes.rest = rest;
  sizes.entries = pixels > 0 ? JointModel::planned_entries(problem) : 0;
  return sizes;
}

cuda::JointColumnsShape shape_of(const Problem& problem, std::size_t weights, std::size_t scalars) {
  cuda::JointColumnsShape shape;
  shape.grid = problem.observation.grid;
  shape.psf = problem.observation.psf;
  shape.weights = weights;
  shape.scalars = scalars;
  return shape;
}

cuda::JointColumnsShape shape_of(const JointModel& model) {
  const std::size_t weights = model.n_weights();
  cuda::JointColumnsShape shape = shape_of(model.problem(), weights, model.rest().size() - weights);
  for (const JointModel::Used& used : model.used()) {
    shape.pixel.push_back(used.x + shape.grid.nx * used.y);
    shape.inverse_sigma.push_back(used.inverse_sigma);
  }
  return shape;
}

class CudaSourceBlock final : public SourceBlock {
 public:
  CudaSourceBlock(const cuda::JointBlock& block, bool good, Eigen::Index rest) : block_(block), good_(good) {
    const std::vector<double> lower = block_.schur();
    schur_ = Eigen::Map<const Eigen::MatrixXd>(lower.data(), rest, rest);
    schur_.triangularView<Eigen::StrictlyUpper>() = schur_.transpose();
  }

  bool good() const override { return good_; }
  double log_determinant() const override { return block_.log_determinant(); }
  const Eigen::MatrixXd& schur() const override { return schur_; }
  void forward(Eigen::MatrixXd& source, Eigen::MatrixXd& rest, ThreadPool&) const override {
    Eigen::MatrixXd y(source.rows() + rest.rows(), source.cols());
    y << source, rest;
    block_.forward(y.data(), static_cast<int>(y.cols()));
    source = y.topRows(source.rows());
    rest = y.bottomRows(rest.rows());
  }
  void backward(Eigen::MatrixXd& source, const Eigen::MatrixXd& rest, ThreadPool&) const override {
    Eigen::MatrixXd y(source.rows() + rest.rows(), source.cols());
    y << source, rest;
    block_.backward(y.data(), static_cast<int>(y.cols()));
    source = y.topRows(source.rows());
  }

 private:
  const cuda::JointBlock& block_;
  bool good_;
  Eigen::MatrixXd schur_;
};

class CudaNormal final : public NormalEquations {
 public:
  CudaNormal(const Linearization& l, std::size_t n_pixels, cuda::JointBlock& block)
      : NormalEquations(l, n_pixels), l_(l), block_(block) {}

  std::unique_ptr<SourceBlock> eliminate(const SourcePrior::Sparse& prior) const override {
    cuda::JointEntries lower;
    for (int j = 0; j < prior.outerSize(); ++j)
      for (SourcePrior::Sparse::InnerIterator entry(prior, j); entry; ++entry)
        if (entry.row() >= entry.col()) {
          lower.row.push_back(static_cast<int>(entry.row()));
          lower.column.push_back(static_cast<int>(entry.col()));
          lower.value.push_back(entry.value());
        }
    const bool good = block_.eliminate({l_.source.first, l_.source.column, l_.source.value}, l_.rest.data(),
                                       static_cast<std::size_t>(l_.rest.rows()), lower);
    return std::make_unique<CudaSourceBlock>(block_, good, l_.rest.cols());
  }

 private:
  const Linearization& l_;
  cuda::JointBlock& block_;
};

}  // namespace

CudaJointAlgebra::CudaJointAlgebra(int device, const JointModel& model)
    : sizes_(sizes_of(model.problem(), model.pixels().size(), model.rest().size())),
      columns_(device, shape_of(model)),
      block_(device, sizes_) {}

std::size_t CudaJointAlgebra::planned_bytes(const Problem& problem) {
  const ParameterLayout layout(problem.model);
  const auto& network = problem.model.network;
  const std::size_t weights = network ? network->size() - network->fixed_size() : 0;
  cuda::JointColumnsShape shape = shape_of(problem, weights, layout.n_free());
  shape.pixel.resize(static_cast<std::size_t>(problem.observation.n_used()));
  return cuda::JointColumns::planned_bytes(shape) +
         cuda::JointBlock::planned_bytes(sizes_of(problem, layout.free_pixels.size(), weights + layout.n_free()));
}

void CudaJointAlgebra::fill(const RayDerivatives& derivatives, RowMatrix& rest) {
  if (!has_weights_ || !derivatives.alpha_stays) columns_.set_weights(derivatives.alpha.data());
  has_weights_ = true;
  columns_.fill(derivatives.slope.data(), derivatives.scalars.data(), rest.data());
}

std::unique_ptr<NormalEquations> CudaJointAlgebra::normal(const Linearization& l) {
  return std::make_unique<CudaNormal>(l, sizes_.pixels, block_);
}

}  // namespace einfield
