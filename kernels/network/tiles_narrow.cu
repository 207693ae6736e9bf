// The tile kernels for layers of up to 16, 32 and 64 channels.
#include "kernels/network/tile_choice.cuh"

namespace einfield::cuda::tiled {
namespace {

/// kGroups groups of 8 points leave 128 / kGroups groups of 8 channels to a pass: 512 points of 16 channels, 256 of 32,
/// 128 of 64. In the tiles of tiles_fma.cu most threads would have no channels.
template <int kGroups>
using Narrow = Tile<float, kGroups, 8, NetworkMath::fp32, true>;

}  // namespace

std::vector<TileChoice<float>> narrow_tile_choices(bool encoded) {
  return TileList<Narrow<64>, Narrow<32>, Narrow<16>>::choices<float>(encoded);
}

}  // namespace einfield::cuda::tiled
