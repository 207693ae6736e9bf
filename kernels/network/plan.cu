// Chooses how a network runs on a device: a tile or cuBLAS, the layout of its arrays, and the memory that they take.
#include "kernels/network/plan.cuh"

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/network/batch.cuh"

namespace einfield::cuda {
namespace {

using tiled::ceil_div;
using tiled::Fragments;
using tiled::Layer;
using tiled::Network;
using tiled::TileChoice;

constexpr int round_up(int a, int b) {
  return ceil_div(a, b) * b;
}

template <class Real>
std::vector<TileChoice<Real>> tile_choices(NetworkMath math, bool encoded) {
  if constexpr (std::is_same_v<Real, float>)
    if (math != NetworkMath::fp32) return tiled::mma_tile_choices(math, encoded);
  return tiled::fma_tile_choices<Real>(encoded);
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
      net.rows = std::max({net.rows, round_up(layer.width, R::kGradIn), round_up(layer.width, R::kGradOut)});
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
    int sums = R::kGradIn * R::kGradOut, reduce_blocks = 0;
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
      layer.grad_in = ceil_div(below.width, R::kGradIn);
      layer.grad_out = ceil_div(layer.width, R::kGradOut);
      const int items = layer.grad_in * layer.grad_out;
      layer.grad_passes = ceil_div(items, kThreads);
      layer.grad_items = std::min(items, kThreads);
      layer.grad_ways = std::min(kThreads / layer.grad_items, tile.points / R::kVector);
      reduce_blocks = ceil_div(below.width, tiled::reduce_rows(R::kGradOut / R::kVector * layer.grad_out));
    }
    layer.partial = std::exchange(net.partial_size, net.partial_size + layer.grad_passes * sums * kThreads);
    layer.reduce_block = std::exchange(net.reduce_blocks, net.reduce_blocks + reduce_blocks);
  }
  net.first_partial = net.partial_size;
  if (!encoded) net.partial_size += 2 * net.layer[0].width;
  for (int l = 0; l < net.layers; ++l)  // nothing for the fixed weights of an encoding
    net.layer[l].bias_partial =
        std::exchange(net.partial_size, net.partial_size + (l == 0 && encoded ? 0 : net.layer[l].width));
  net.last_partial = net.partial_size;
  net.partial_size = round_up(net.partial_size + net.layer[net.layers - 1].width + 1, R::kVector);
  net.sums_size = net.partial_size;
  for (int l = 1; l < net.layers; ++l)
    net.layer[l].g_bar = std::exchange(net.sums_size, net.sums_size + net.layer[l].passes * pass_size);
  return net;
}

/// Keeps a layer's array in shared memory where the limit allows: that of the layer below the last, which is needed
/// first.
/// @return bytes, 0 if nothing fits
template <class Real>
std::size_t fit_shared(const TileChoice<Real>& tile, std::size_t limit, Network<Real>& net) {
  net.kept = net.layers > 2 ? net.layers - 2 : -1;
  std::size_t bytes = tile.shared_bytes(net.rows, net.kept < 0 ? 0 : net.layer[net.kept].passes);
  if (bytes > limit) {
    net.kept = -1;
    bytes = tile.shared_bytes(net.rows, 0);
  }
  return bytes <= limit ? bytes : 0;
}

/// Instructions of one warp for `tall` by `wide` fragments of tf32x3, 8 terms deep: three products and four additions
/// each, and its operands, loaded and split.
double fragment_cost(double tall, double wide) {
  return 7 * tall * wide + 10 * tall + 5 * wide;
}

/// Multiply-adds and loads of one thread for one tile of value, gradient and adjoint: what a tile costs, padding
/// included.
template <class Real>
double tile_cost(const Network<Real>& net, const TileChoice<Real>& tile) {
  using R = tiled::Registers<Real>;
  double cost = 0;
  for (int l = 0; l < net.layers; ++l) {
    const Layer& layer = net.layer[l];
    cost += 40.0 * layer.passes * R::kChannels * tile.own * R::kVector;  // activations
    if (l == 0) continue;
    const Layer& below = net.layer[l - 1];
    if (tile.fragments) {
      const double points = tile.points / static_cast<double>(Fragments::kHeight), eight = Fragments::kDepth;
      const auto product = [&](const Layer& to, const Layer& from) {
        return to.passes * ceil_div(from.width, Fragments::kDepth) *
               fragment_cost(points, to.groups / static_cast<double>(tiled::kWarps));
      };
      cost += 2 * (product(layer, below) + product(below, layer));
      cost +=
          2 * layer.grad_passes * (tile.points / eight) *
          fragment_cost(layer.grad_items, std::min(1.0 * Fragments::kColumns, layer.grad_out / (1.0 * tiled::kWarps)));
      continue;
    }
    const double row = R::kChannels * tile.pixels + (R::kChannels + tile.pixels) / static_cast<double>(R::kVector);
    cost += 2 * row / tiled::kSplit *
            (1.0 * layer.passes * round_up(below.width, tile.row_unit) +
             below.passes * round_up(layer.width, tile.row_unit));
    cost += 2.0 * layer.grad_passes * R::kGradIn * R::kGradOut * ceil_div(tile.points / R::kVector, layer.grad_ways) *
            R::kVector;
  }
  return cost;
}

/// Blocks per system: the smallest number that makes the busiest multiprocessor finish first.
int choose_blocks(int tiles, int systems, int multiprocessors, double* rounds) {
  int best = 1;
  *rounds = 0;
  for (int blocks = 1; blocks <= tiles && blocks <= 4 * multiprocessors; ++blocks) {
    const double waves = (static_cast<std::int64_t>(blocks) * systems + multiprocessors - 1) / multiprocessors;
    const double time = waves * ceil_div(tiles, blocks);
    if (blocks == 1 || time < *rounds) {
      *rounds = time;
      best = blocks;
    }
  }
  return best;
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
                    NetworkMath math) {
  shape.validate();
  check_math(math, sizeof(Real) == sizeof(float), limits);
  EINFIELD_REQUIRE(points > 0, "network: " + std::to_string(points) + " points, expected > 0");
  EINFIELD_REQUIRE(systems > 0 && systems <= 65535,
                   "network: " + std::to_string(systems) + " systems, expected 1 ... 65535");
  EINFIELD_REQUIRE(limits.multiprocessors > 0, "network: a device without multiprocessors");
  Chosen<Real> best;
  double best_time = 0;
  if (path != NetworkPath::cublas) {
    for (const TileChoice<Real>& tile : tile_choices<Real>(math, shape.fourier_features > 0)) {
      Network<Real> net = lay_out(shape, points, tile);
      const std::size_t shared = fit_shared(tile, limits.shared_bytes_per_block, net);
      if (shared == 0) continue;
      double rounds = 0;
      const int blocks = choose_blocks(net.tiles, systems, limits.multiprocessors, &rounds);
      const double time = rounds * tile_cost(net, tile);
      if (best.plan.tile != 0 && time >= best_time) continue;
      best_time = time;
      const std::size_t n = static_cast<std::size_t>(systems);
      best.plan = {NetworkPath::tiles,
                   tile.points,
                   net.tiles,
                   blocks,
                   kThreads,
                   net.kept >= 0,
                   shared,
                   n *
                       (static_cast<std::size_t>(net.pack_size) +
                        static_cast<std::size_t>(net.tape_size) * static_cast<std::size_t>(net.tiles) +
                        static_cast<std::size_t>(net.sums_size) * static_cast<std::size_t>(blocks)) *
                       sizeof(Real)};
      best.tile = tile;
      best.net = net;
    }
    if (best.plan.tile != 0) return best;
    const std::string none = "network: no tile of this shape fits the " +
                             std::to_string(limits.shared_bytes_per_block) + " bytes of shared memory of a block";
    EINFIELD_REQUIRE(path == NetworkPath::automatic, none);
    EINFIELD_REQUIRE(math == NetworkMath::fp32,
                     none + ", found math = " + name_of(math) + ", expected narrower layers or fp32");
  }
  EINFIELD_REQUIRE(math == NetworkMath::fp32,
                   std::string("network: math = ") + name_of(math) + " with cuBLAS, expected fp32");
  best.plan.path = NetworkPath::cublas;
  best.plan.workspace_bytes = batch::Batch<Real>::bytes(shape, points, systems);
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

template Chosen<float> choose(const NetworkShape&, int, int, const DeviceLimits&, NetworkPath, NetworkMath);
template Chosen<double> choose(const NetworkShape&, int, int, const DeviceLimits&, NetworkPath, NetworkMath);

}  // namespace einfield::cuda
