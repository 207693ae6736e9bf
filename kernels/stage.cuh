// What the kernels of an optimizer need to run a stage of a fit without the host: the rules, and for every system its
// progress, its records and the copies of its parameters that are kept.
#pragma once

#include <cstdint>

#include "einfield/stage.hpp"
#include "kernels/reduce.cuh"

namespace einfield::cuda {

/// A StageRecord without its free scalars, which lie beside it.
struct RecordHead {
  std::int64_t step;
  StepState state;
};

/// Device pointers, system after system. Without `progress` no stage runs: a step is only a step.
template <class Real>
struct StageArrays {
  StageProgress* progress = nullptr;  ///< [systems]
  int* list = nullptr;                ///< Queue::systems: a system that is done leaves it
  StopSettings stop;
  int log_every = 1;
  std::size_t n = 0;            ///< parameters of a system
  Real* best = nullptr;         ///< [systems][n]
  RecordHead* heads = nullptr;  ///< [systems][capacity], a ring
  Real* record_free = nullptr;  ///< [systems][capacity][n_free]
  int capacity = 1;
  std::size_t first_free = 0;  ///< where the free scalars begin among the parameters
  std::size_t n_free = 0;

  /// Makes a record of the state that was just judged, but for its free scalars. For one thread of a system.
  __device__ void begin_record(std::size_t system, std::int64_t step) const {
    StageProgress& p = progress[system];
    heads[system * capacity + p.records++ % capacity] = {step, p.state};
  }
  /// What is kept of parameter i of the state that was just judged.
  __device__ void keep(const StageProgress& p, std::size_t system, std::size_t i, Real value) const {
    if (p.keeps) best[system * n + i] = value;
    if (p.logs && i >= first_free && i < first_free + n_free)
      record_free[(system * capacity + (p.records - 1) % capacity) * n_free + i - first_free] = value;
  }
  /// Takes a system that is done off the list, when all blocks of its row have read their entry. Every thread of the
  /// row must call.
  __device__ void leave(const StageProgress& p, unsigned row, unsigned* ticket) const {
    if (p.done && is_last_block(ticket, gridDim.x) && threadIdx.x == 0) list[row] = -1;
  }
};

}  // namespace einfield::cuda
