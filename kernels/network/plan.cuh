// How a network will run on a device: with a tile or by cuBLAS, and the layout of its arrays.
#pragma once

#include "einfield/cuda.hpp"
#include "kernels/network/tile_choice.cuh"

namespace einfield::cuda {

/// A plan, and for the tile path the tile and layout behind it.
template <class Real>
struct Chosen {
  NetworkPlan plan;
  tiled::TileChoice<Real> tile{};
  tiled::Network<Real> net{};  ///< without its pointers
};

/// Chooses the fastest tile that fits, or cuBLAS where none does and `path` allows it.
/// @throws InvalidInput as NetworkStage::make_plan()
template <class Real>
Chosen<Real> choose(const NetworkShape& shape, int points, int systems, const DeviceLimits& limits, NetworkPath path,
                    NetworkMath math, NetworkTape tape);

}  // namespace einfield::cuda
