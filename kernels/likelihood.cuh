// The loss stage on the device: mean squared error or χ², reduced χ², and the cotangent of the model.
#pragma once

#include <vector>

#include "einfield/cuda.hpp"
#include "kernels/raii.cuh"

namespace einfield::cuda {

/// Loss, reduced χ² and model cotangent of all systems; weights are likelihood.hpp's pixel_weights.
template <class Real>
class LikelihoodStage {
 public:
  /// @param stream  used for the copies of the constructor, which waits for it
  LikelihoodStage(const std::vector<Problem>& problems, cudaStream_t stream);
  static std::size_t planned_bytes(const std::vector<Problem>& problems);

  /// The data of the systems from `first` on; waits for the stream. The problems have the shape of those before.
  void upload(cudaStream_t stream, std::size_t first, const std::vector<Problem>& problems);

  /// Writes `model_bar` and, in `states`, the scalars of a new evaluation: loss, chi2_reduced, held_out_chi2 and
  /// learning_rate; regularization and gradient_norm begin at 0.
  void evaluate(const Queue& queue, ImageView<Real> model, ImageView<Real> model_bar, LearningRates rates,
                StepState* states);

 private:
  struct Sizes {
    explicit Sizes(const std::vector<Problem>& problems);
    std::size_t systems, pixels, held_out;  // pixels of a system; of its map of held-out ones
    unsigned blocks;
  };
  struct Storage {
    DeviceBuffer<Real> data, loss_weight, chi2_weight, held_out_weight;
    DeviceBuffer<double> partial;
    DeviceBuffer<unsigned> tickets;
    template <class Take>
    void each(Take&& take, const Sizes& s) {
      for (DeviceBuffer<Real>* images : {&data, &loss_weight, &chi2_weight}) take(*images, s.systems * s.pixels);
      take(held_out_weight, s.systems * s.held_out);
      take(partial, s.systems * s.blocks * 3);
      take(tickets, s.systems);
    }
  };

  Sizes sizes_;
  int nx_;
  Storage storage_;
};

extern template class LikelihoodStage<float>;
extern template class LikelihoodStage<double>;

}  // namespace einfield::cuda
