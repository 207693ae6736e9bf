// The tile kernels with products by multiply-adds, compiled for every tile size.
#include <type_traits>

#include "kernels/network/tile_choice.cuh"

namespace einfield::cuda::tiled {

/// Register tiles per pass are groups of points × groups of channels: many points for narrow layers, few for wide ones.
/// 80 points make 125 tiles of a 100 × 100 image and take exactly 200 channels per pass. Tiles of 8 points a thread
/// cost half and fill devices whose number of multiprocessors the large ones do not divide well, or whose shared memory
/// is small.
template <class Real>
std::vector<TileChoice<Real>> fma_tile_choices(bool encoded) {
  using List =
      std::conditional_t<std::is_same_v<Real, float>,
                         TileList<Tile<float, 8>, Tile<float, 5>, Tile<float, 4>, Tile<float, 5, 8>, Tile<float, 2, 8>>,
                         TileList<Tile<double, 5>, Tile<double, 2>>>;
  return List::template choices<Real>(encoded);
}

template std::vector<TileChoice<float>> fma_tile_choices(bool);
template std::vector<TileChoice<double>> fma_tile_choices(bool);

}  // namespace einfield::cuda::tiled
