// L-BFGS on the device: the pairs, the direction and the line search of every system stay there, and an evaluation is
// followed by three kernels that need no word from the host.
//
// The two-loop recursion (host/cpu/lbfgs.cpp) has 2m dot products that wait for one another. Here the direction is
//
//     d = −(γ g − γ Σ aₖ yₖ + Σ cₖ sₖ),   γ = sₗ·yₗ / yₗ·yₗ with the newest pair l,
//
// and the recursion runs on its coefficients: the dot products that it meets are those of q = g − Σ aₖ yₖ and of
// r = γ q + Σ cₖ sₖ with the pairs, linear in sᵢ·yₖ, yᵢ·yₖ, sᵢ·g and yᵢ·g. A new pair adds a row and a column to the
// first two; all dot products of an evaluation are made in one pass over the pairs.
#pragma once

#include <cstddef>
#include <vector>

#include "einfield/cuda.hpp"
#include "kernels/raii.cuh"
#include "kernels/stage.cuh"

namespace einfield::cuda {

/// What a system has of L-BFGS besides its vectors.
struct SearchState {
  LineSearch line;
  LineOutcome outcome;  ///< of the last evaluation
  int first = 0;        ///< slot of the oldest pair; the slots are a ring
  int before = 0;       ///< number of pairs when the last evaluation came
  int pairs = 0;        ///< number of pairs
  double gamma = 1;     ///< scale of the direction: d = −(γ g − γ Σ aₖ yₖ + Σ cₖ sₖ)
};

/// The number of slots is that of the pairs and one: the next pair is written beside the oldest one.
struct SearchSizes {
  std::size_t systems, parameters, slots;
  unsigned blocks() const;
  std::size_t kinds() const { return 5; }  ///< of dot products with a pair
};

template <class Real>
struct SearchStorage {
  DeviceBuffer<Real> pairs;               ///< [systems][slots][2][n]: move, change of the gradient
  DeviceBuffer<Real> position, gradient;  ///< where the line starts, [systems][n]
  DeviceBuffer<double> direction;         ///< [systems][n]
  DeviceBuffer<SearchState> states;       ///< [systems]
  DeviceBuffer<double> move_change;       ///< sᵢ·yₖ, [systems][slots][slots]
  DeviceBuffer<double> change_change;     ///< yᵢ·yₖ, likewise
  DeviceBuffer<double> coefficients;      ///< [systems][slots][2]: of sₖ and of yₖ in −d
  DeviceBuffer<double> partial;           ///< [systems][slots][blocks][5]
  DeviceBuffer<unsigned> tickets;         ///< [systems]

  template <class Take>
  void each(Take&& take, const SearchSizes& s) {
    take(pairs, s.systems * s.slots * 2 * s.parameters);
    for (DeviceBuffer<Real>* vectors : {&position, &gradient}) take(*vectors, s.systems * s.parameters);
    take(direction, s.systems * s.parameters);
    take(states, s.systems);
    for (DeviceBuffer<double>* products : {&move_change, &change_change})
      take(*products, s.systems * s.slots * s.slots);
    take(coefficients, s.systems * s.slots * 2);
    take(partial, s.systems * s.slots * s.blocks() * s.kinds());
    take(tickets, s.systems);
  }
};

/// A stage of L-BFGS for all systems.
template <class Real>
class SearchStage {
 public:
  /// @param memory  pairs that are kept
  SearchStage(std::size_t systems, std::size_t n_parameters, int memory, cudaStream_t stream);
  static std::size_t planned_bytes(std::size_t systems, std::size_t n_parameters, int memory);

  /// Begins anew for the systems from `first` on, with the pairs of an earlier run, per system as Backend::pairs()
  /// gives them. The next evaluation is that of the start. Waits for the stream.
  void begin(cudaStream_t stream, std::size_t first, const std::vector<std::vector<Real>>& pairs);
  /// After an evaluation at `parameters`: decides, and moves `parameters` to the next trial.
  /// @param gradient   [systems][n]; that of parameters that do not move is set to zero
  /// @param trainable  Schedule::trainable, or empty: all move
  void follow(const Queue& queue, Real* gradient, Real* parameters, View<const unsigned char> trainable,
              StepState* states, const StageArrays<Real>& stage);

  const DeviceBuffer<Real>& position() const { return storage_.position; }
  /// The pairs of every system, [pairs][2][n], oldest first. Waits for the stream.
  std::vector<std::vector<Real>> pairs(cudaStream_t stream) const;

 private:
  SearchSizes sizes_;
  SearchStorage<Real> storage_;
};

extern template class SearchStage<float>;
extern template class SearchStage<double>;

}  // namespace einfield::cuda
