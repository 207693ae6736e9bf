// L-BFGS on the device: the pairs, the direction and the line search of every system stay there, and an evaluation is
// followed by three kernels that need no word from the host.
//
// The two-loop recursion (host/cpu/lbfgs.cpp) has 2m dot products that wait for one another. Its compact form (Byrd,
// Nocedal & Schnabel 1994, equation 3.1) has none that wait: with the moves s and the changes y of the pairs as columns
// of S and Y, R the upper triangle of SᵀY with its diagonal, D that diagonal, and γ = s·y / y·y of the newest pair,
//
//     −d = H g = γ g + S c − γ Y w,   w = R⁻¹ Sᵀg,   c = R⁻ᵀ ((D + γ YᵀY) w − γ Yᵀg).                          (1)
//
// R⁻¹ is kept. A new pair adds the column r = Sᵀy and ρ = s·y to R, and to the inverse the column −R⁻¹r/ρ and 1/ρ. When
// the oldest pair is dropped, what is left of the inverse is the inverse of what is left of R: both are triangular.
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
  double gamma = 1;     ///< γ of (1)
};

/// The number of slots is that of the pairs and one: the next pair is written beside the oldest one.
struct SearchSizes {
  std::size_t systems, parameters, slots;
  unsigned blocks() const;  ///< that share the parameters of a system in a sum
};

template <class Real>
struct SearchStorage {
  DeviceBuffer<Real> pairs;               ///< [systems][slots][2][n]: move, change of the gradient
  DeviceBuffer<Real> position, gradient;  ///< where the line starts, [systems][n]
  DeviceBuffer<double> direction;         ///< [systems][n]
  DeviceBuffer<SearchState> states;       ///< [systems]
  DeviceBuffer<double> inverse;           ///< R⁻¹, column by column: (i, j) at [systems][slot j][slot i]
  DeviceBuffer<double> changes;           ///< YᵀY, [systems][slots][slots]
  DeviceBuffer<double> diagonal;          ///< D, [systems][slots]
  DeviceBuffer<double> coefficients;      ///< of sₖ and yₖ in −d, [systems][slots][2]
  DeviceBuffer<double> partial;           ///< [systems][slots][blocks][4]
  DeviceBuffer<unsigned> tickets;         ///< [systems]

  template <class Take>
  void each(Take&& take, const SearchSizes& s) {
    take(pairs, s.systems * s.slots * 2 * s.parameters);
    for (DeviceBuffer<Real>* vectors : {&position, &gradient}) take(*vectors, s.systems * s.parameters);
    take(direction, s.systems * s.parameters);
    take(states, s.systems);
    for (DeviceBuffer<double>* matrices : {&inverse, &changes}) take(*matrices, s.systems * s.slots * s.slots);
    take(diagonal, s.systems * s.slots);
    take(coefficients, s.systems * s.slots * 2);
    take(partial, s.systems * s.slots * s.blocks() * 4);
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
