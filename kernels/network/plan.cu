// Chooses how a network runs on a device: a tile or cuBLAS, the layout of its arrays, and the memory that they take.
#include "kernels/network/plan.cuh"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/network/batch.cuh"
#include "kernels/network/cost.cuh"

namespace einfield::cuda {
namespace {

using tiled::ceil_div;
using tiled::Fragments;
using tiled::Layer;
using tiled::Network;
using tiled::TileChoice;

template <class Real>
std::vector<TileChoice<Real>> tile_choices(NetworkMath math, bool encoded) {
  if constexpr (std::is_same_v<Real, float>)
    if (math != NetworkMath::fp32) return tiled::mma_tile_choices(math, encoded);
  std::vector<TileChoice<Real>> choices = tiled::fma_tile_choices<Real>(encoded);
  if constexpr (std::is_same_v<Real, float>)
    for (const TileChoice<float>& choice : tiled::narrow_tile_choices(encoded)) choices.push_back(choice);
  return choices;
}

/// All members of Network except the pointers, for one tile size.
template <class Real>
Network<Real> lay_out(const NetworkShape& shape, int points, const TileChoice<Real>& tile) {
  using R = tiled::Registers<Real>;
  Network<Real> net{};
  const bool encoded = shape.fourier_features > 0;
  net.layers = shape.layers() - 1;
  net.points = points;
  net.tiles = ceil_div(points, tile.points);
  net.scale = static_cast<Real>(shape.input_scale);
  net.last_kernel = static_cast<int>(shape.kernel_offset(net.layers));
  net.last_bias = static_cast<int>(shape.bias_offset(net.layers));
  const int pass_size = R::kChannels * tile.own * kThreads * R::kVector;  // of a tape array
  for (int l = 0; l < net.layers; ++l) {
    Layer& layer = net.layer[l];
    layer.width = shape.outputs(l);
    layer.passes = ceil_div(layer.width, tile.max_groups * R::kChannels);
    layer.groups = ceil_div(layer.width, layer.passes * R::kChannels);
    layer.kernel = static_cast<int>(shape.kernel_offset(l));
    layer.bias = static_cast<int>(shape.bias_offset(l));
    layer.constants =
        std::exchange(net.constants_size, net.constants_size + layer.passes * layer.groups * R::kChannels);
    const int array = layer.passes * pass_size;
    if (l > 0) layer.tape_a = std::exchange(net.tape_size, net.tape_size + array);
    if (l + 1 < net.layers && !(l == 0 && encoded)) layer.tape_p = std::exchange(net.tape_size, net.tape_size + array);
    net.rows = std::max({net.rows, round_up(layer.width, tile.row_unit), layer.passes * layer.groups * R::kChannels});
    if (!tile.fragments)
      net.rows = std::max({net.rows, round_up(layer.width, tile.grad_in), round_up(layer.width, tile.grad_out)});
    if (tile.narrow) net.rows = tile.max_groups * R::kChannels;
  }
  net.padding_row = net.rows;
  for (int l = 0; l < net.layers; ++l)
    net.padding_row = std::min(net.padding_row, net.layer[l].passes * net.layer[l].groups * R::kChannels);
  net.stream = net.pack_size = net.constants_size * static_cast<int>(sizeof(tiled::Constants<Real>) / sizeof(Real));
  const auto append = [&](const Layer& to, const Layer& from) {
    return std::exchange(net.stages, net.stages + to.passes * ceil_div(from.width, tile.stage_rows));
  };
  for (int l = 1; l < net.layers; ++l) net.layer[l].value_stage = append(net.layer[l], net.layer[l - 1]);
  for (int l = net.layers - 1; l >= 1; --l) net.layer[l].gradient_stage = append(net.layer[l - 1], net.layer[l]);
  net.pack_size += net.stages * tile.stage_rows * tile.max_groups * R::kChannels;
  for (int l = 1; l < net.layers; ++l) {
    Layer& layer = net.layer[l];
    const Layer& below = net.layer[l - 1];
    int sums = tile.grad_in * tile.grad_out, reduce_blocks = 0;
    if (tile.fragments) {
      layer.grad_in = ceil_div(below.width, Fragments::kWidth);
      layer.grad_out = ceil_div(layer.width, Fragments::kWidth);
      const int rows = ceil_div(below.width, Fragments::kHeight), passes = ceil_div(rows, Fragments::kRows);
      layer.grad_items = ceil_div(rows, passes);
      layer.grad_passes = passes * ceil_div(layer.grad_out, Fragments::kColumns * tiled::kWarps);
      layer.grad_ways = 1;
      sums = Fragments::kSums * R::kVector;
      reduce_blocks = layer.grad_passes * Fragments::kSums * kThreads / tiled::kLanes;
    } else {
      layer.grad_in = tile.narrow ? tile.max_groups : ceil_div(below.width, tile.grad_in);
      layer.grad_out = tile.narrow ? tile.max_groups : ceil_div(layer.width, tile.grad_out);
      const int items = layer.grad_in * layer.grad_out;
      layer.grad_passes = ceil_div(items, kThreads);
      layer.grad_items = std::min(items, kThreads);
      layer.grad_ways = std::min(kThreads / layer.grad_items, tile.points / R::kVector);
      if (!tile.narrow)
        reduce_blocks = ceil_div(below.width, tiled::reduce_rows(R::kGradOut / R::kVector * layer.grad_out));
    }
    const int numbers = tile.narrow ? below.width * layer.width : layer.grad_passes * sums * kThreads;
    layer.partial = std::exchange(net.partial_size, net.partial_size + numbers);
    layer.reduce_block = std::exchange(net.reduce_blocks, net.reduce_blocks + reduce_blocks);
  }
  net.first_partial = net.partial_size;
  net.numbers_partial = tile.narrow ? 0 : net.first_partial;
  if (!encoded) net.partial_size += 2 * net.layer[0].width;
  for (int l = 0; l < net.layers; ++l)  // nothing for the fixed weights of an encoding
    net.layer[l].bias_partial =
        std::exchange(net.partial_size, net.partial_size + (l == 0 && encoded ? 0 : net.layer[l].width));
  net.last_partial = net.partial_size;
  net.partial_size = round_up(net.partial_size + net.layer[net.layers - 1].width + 1, R::kVector);
  return net;
}

/// Keeps a layer's array in shared memory where the limit allows: that of the layer below the last, which is needed
/// first. The others' ḡ lies behind the block's sums; the last layer has none.
/// @return bytes, 0 if nothing fits
template <class Real>
std::size_t fit_shared(const TileChoice<Real>& tile, std::size_t limit, Network<Real>& net) {
  const std::size_t without = tile.shared_bytes(net.rows, 0);
  net.kept = net.layers > 2 ? net.layers - 2 : -1;
  std::size_t bytes = tile.shared_bytes(net.rows, net.kept < 0 ? 0 : net.layer[net.kept].passes);
  if (bytes > limit || (resident_blocks(tile, bytes, limit) < resident_blocks(tile, without, limit))) {
    net.kept = -1;
    bytes = without;
  }
  using R = tiled::Registers<Real>;
  const int pass_size = R::kChannels * tile.own * kThreads * R::kVector;
  net.sums_size = net.partial_size;
  for (int l = 1; l + 1 < net.layers; ++l)
    if (l != net.kept)
      net.layer[l].g_bar = std::exchange(net.sums_size, net.sums_size + net.layer[l].passes * pass_size);
  return bytes <= limit ? bytes : 0;
}

/// Device memory of a network with tiles.
template <class Real>
std::size_t tile_bytes(const Network<Real>& net, int systems, int blocks, NetworkTape tape) {
  const auto bytes = [systems](int numbers, int times) {
    return in_workspace(static_cast<std::size_t>(systems) * static_cast<std::size_t>(numbers) *
                        static_cast<std::size_t>(times) * sizeof(Real));
  };
  const std::size_t packed = bytes(net.pack_size, 1);
  if (tape == NetworkTape::none) return packed + bytes(net.tape_size, blocks);
  return packed + bytes(net.tape_size, net.tiles) + bytes(net.sums_size, blocks);
}

void check_math(NetworkMath math, bool single, const DeviceLimits& limits) {
  if (math == NetworkMath::fp32) return;
  const std::string what = std::string("network: math = ") + name_of(math);
  EINFIELD_REQUIRE(single, what + " in double precision, expected fp32");
  EINFIELD_REQUIRE(limits.compute_capability >= kTensorCapability,
                   what + " on a device of compute capability " + std::to_string(limits.compute_capability / 10) + "." +
                       std::to_string(limits.compute_capability % 10) + ", expected 8.0 or newer, or fp32");
}

}  // namespace

template <class Real>
Chosen<Real> choose(const NetworkShape& shape, int points, int systems, const DeviceLimits& limits, NetworkPath path,
                    NetworkMath math, NetworkTape tape) {
  shape.validate();
  check_math(math, sizeof(Real) == sizeof(float), limits);
  EINFIELD_REQUIRE(points > 0, "network: " + std::to_string(points) + " points, expected > 0");
  EINFIELD_REQUIRE(systems > 0 && systems <= 65535,
                   "network: " + std::to_string(systems) + " systems, expected 1 ... 65535");
  EINFIELD_REQUIRE(limits.multiprocessors > 0, "network: a device without multiprocessors");
  Chosen<Real> best;
  double best_time = 0;
  if (path != NetworkPath::cublas) {
    const Device device(limits, sizeof(Real) == sizeof(float));
    for (const TileChoice<Real>& tile : tile_choices<Real>(math, shape.fourier_features > 0)) {
      int widest = shape.outputs(0);
      for (const int width : shape.hidden) widest = std::max(widest, width);
      if (tile.narrow && widest > tile.max_groups * tiled::Registers<Real>::kChannels) continue;
      Network<Real> net = lay_out(shape, points, tile);
      const std::size_t shared = fit_shared(tile, limits.shared_bytes_per_block, net);
      if (shared == 0) continue;
      double time = 0;
      const int blocks = choose_blocks(net, tile, systems, device,
                                       resident_blocks(tile, shared, limits.shared_bytes_per_block), &time);
      if (best.plan.tile != 0 && time >= best_time) continue;
      best_time = time;
      best.plan = {NetworkPath::tiles, tile.points, net.tiles, blocks, kThreads, net.kept >= 0, shared};
      best.tile = tile;
      best.net = net;
    }
    if (NetworkPlan& plan = best.plan; plan.tile != 0) {
      // The same tile with and without a tape: the same bits.
      plan.tape = tape;
      if (tape == NetworkTape::none) plan.blocks = std::clamp(limits.multiprocessors / systems, 1, plan.tiles);
      plan.workspace_bytes = tile_bytes(best.net, systems, plan.blocks, tape);
      return best;
    }
    const std::string none = "network: no tile of this shape fits the " +
                             std::to_string(limits.shared_bytes_per_block) + " bytes of shared memory of a block";
    EINFIELD_REQUIRE(path == NetworkPath::automatic, none);
    EINFIELD_REQUIRE(math == NetworkMath::fp32,
                     none + ", found math = " + name_of(math) + ", expected narrower layers or fp32");
  }
  EINFIELD_REQUIRE(math == NetworkMath::fp32,
                   std::string("network: math = ") + name_of(math) + " with cuBLAS, expected fp32");
  best.plan.path = NetworkPath::cublas;
  best.plan.tape = tape;
  best.plan.workspace_bytes = batch::Batch<Real>::bytes(shape, points, tape == NetworkTape::none ? 1 : systems);
  return best;
}

DeviceLimits DeviceLimits::current() {
  DeviceLimits limits;
  int device = 0, shared = 0, major = 0, minor = 0;
  EINFIELD_CUDA(cudaGetDevice(&device));
  EINFIELD_CUDA(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device));
  EINFIELD_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  limits.shared_bytes_per_block = static_cast<std::size_t>(shared);
  EINFIELD_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  EINFIELD_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  limits.compute_capability = 10 * major + minor;
  return limits;
}

template Chosen<float> choose(const NetworkShape&, int, int, const DeviceLimits&, NetworkPath, NetworkMath,
                              NetworkTape);
template Chosen<double> choose(const NetworkShape&, int, int, const DeviceLimits&, NetworkPath, NetworkMath,
                               NetworkTape);

}  // namespace einfield::cuda
