// The tile kernels with products on the matrix units (tile/multiply_mma.cuh), compiled for every tile size.
#include "kernels/network/tile_choice.cuh"

namespace einfield::cuda::tiled {
namespace {

/// 48 points make two tiles for each of the 108 multiprocessors of an A100 of a 100 × 100 image; 80 and 32 as in
/// tiles_fma.cu.
template <NetworkMath kMath>
std::vector<TileChoice<float>> choices(bool encoded) {
  using List = TileList<Tile<float, 5, 16, kMath>, Tile<float, 3, 16, kMath>, Tile<float, 2, 16, kMath>>;
  return List::template choices<float>(encoded);
}

}  // namespace

std::vector<TileChoice<float>> mma_tile_choices(NetworkMath math, bool encoded) {
  return math == NetworkMath::tf32x3 ? choices<NetworkMath::tf32x3>(encoded) : choices<NetworkMath::tf32>(encoded);
}

}  // namespace einfield::cuda::tiled
