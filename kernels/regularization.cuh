// The regularization stage on the device: penalties on the network's potential and on source pixels, weight decay,
// Gaussian priors.
#pragma once

#include <vector>

#include "einfield/backend.hpp"
#include "einfield/cuda.hpp"
#include "einfield/regularization.hpp"
#include "kernels/raii.cuh"
#include "kernels/scene.cuh"

namespace einfield::cuda {

/// Where the fitted kernels (not the biases) of a network lie in the flat vector.
struct NetworkKernels {
  int layers = 0;
  unsigned begin[kMaxHiddenLayers + 1] = {};
  unsigned end[kMaxHiddenLayers + 1] = {};
};

/// Terms of regularization.hpp for all systems; with all weights 0, or without what they weigh, it does nothing.
template <class Real>
class RegularizationStage {
 public:
  /// @param stream  used for the copies of the constructor, which waits for it
  RegularizationStage(const std::vector<Problem>& problems, cudaStream_t stream);
  static std::size_t planned_bytes(const std::vector<Problem>& problems);

  /// The weights and priors of the systems from `first` on; waits for the stream.
  /// @throws InvalidInput for a penalty that none of the problems of the constructor has
  void upload(cudaStream_t stream, std::size_t first, const std::vector<Problem>& problems);

  /// Adds to StepState::regularization, to `alpha_bar` and to `gradient`.
  void apply(const Queue& queue, const SceneArrays<Real>& scenes, const Real* positions, const Real* parameters,
             const Real* alpha_nn, Real* alpha_bar, Real* gradient, StepState* states);

 private:
  struct Sizes {
    explicit Sizes(const std::vector<Problem>& problems);
    std::size_t systems, rays, weights = 0;  ///< weights: network parameters
    bool potential = false, curvature = false, decay = false;
    std::size_t priors = 0, slots = 0;  ///< a system; slots only with priors
    std::vector<FreePixels> source_pixels;
    unsigned ray_blocks() const;
    unsigned weight_blocks() const;
    unsigned most_blocks() const;  ///< of any kernel
  };
  struct Storage {
    DeviceBuffer<Regularization> weights;
    DeviceBuffer<Real> hessian_bar;
    DeviceBuffer<Hessian<Real>> mean_hessian;  ///< stays 0 where no curvature has a weight
    DeviceBuffer<double> partial;
    DeviceBuffer<unsigned> tickets;
    DeviceBuffer<GaussianPrior<Real>> priors;
    DeviceBuffer<Real> prior_weights;  ///< one over fitted_pixels()
    DeviceBuffer<Real> table_bar;      ///< of the priors
    template <class Take>
    void each(Take&& take, const Sizes& s) {
      take(weights, s.systems);
      take(hessian_bar, s.potential ? s.systems * 3 * s.rays : 0);
      take(mean_hessian, s.potential ? s.systems : 0);
      take(partial, s.systems * (s.curvature ? 3 : 1) * s.most_blocks());
      take(tickets, s.systems);
      take(priors, s.systems * s.priors);
      take(prior_weights, s.priors > 0 ? s.systems : 0);
      take(table_bar, s.systems * s.slots);
    }
  };

  Sizes sizes_;
  Grid grid_;
  NetworkKernels kernels_;
  Storage storage_;
};

extern template class RegularizationStage<float>;
extern template class RegularizationStage<double>;

}  // namespace einfield::cuda
