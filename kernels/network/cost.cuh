// What a tile costs, and how many blocks share the tiles of a system: an estimate in clocks of a multiprocessor, which
// only compares plans with each other.
#pragma once

#include <algorithm>
#include <cstddef>

#include "einfield/cuda.hpp"
#include "kernels/network/tile_choice.cuh"

namespace einfield::cuda {

constexpr int round_up(int a, int b) {
  return tiled::ceil_div(a, b) * b;
}

/// Rates of a multiprocessor, whose four schedulers issue one instruction of a warp per clock each.
struct Device {
  int multiprocessors;
  double fma;  ///< clocks that a multiply-add of a warp occupies its scheduler
  double mma;  ///< clocks of 16 × 8 × 8 products of the matrix units, per scheduler

  /// Lanes per clock: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions"; TF32: data sheets
  /// (A100 156, H100 495, RTX 4090 83 TFLOP/s). mma.sync reaches 62 % of it on an H100 (Luo et al. 2024, arXiv
  /// 2402.13499). An unknown capability counts as 9.0.
  Device(const DeviceLimits& limits, bool single) : multiprocessors(limits.multiprocessors) {
    const int capability = limits.compute_capability > 0 ? limits.compute_capability : 90;
    const bool large = capability == 80 || (capability >= 90 && capability < 110);  // not the chips of graphics cards
    fma = single ? (capability <= 80 ? 2 : 1) : capability == 80 ? 4 : large ? 2 : 64;
    mma = capability == 80 ? 8 : large ? 6.5 : 32;
  }
};

/// Blocks of a tile that a multiprocessor holds at a time. It has 1 KB more than it grants to one block, and takes 1 KB
/// for each.
template <class Real>
int resident_blocks(const tiled::TileChoice<Real>& tile, std::size_t shared_bytes, std::size_t limit) {
  return std::clamp(static_cast<int>((limit + 1024) / (shared_bytes + 1024)), 1, tile.resident);
}

/// Clocks of a block's eight warps, two per scheduler, from the issue slots and the shared-memory wavefronts of each.
/// Loads hide behind the instructions of a loop up to three quarters of its time.
inline double loop_clocks(double slots, double wavefronts) {
  const double issue = 2 * slots;
  return issue + std::max(0.0, tiled::kWarps * wavefronts - 0.75 * issue);
}

/// The same for `tall` by `wide` fragments of tf32x3, 8 terms deep: three products and four additions each, and its
/// operands: loads, and three instructions to split a number.
inline double fragment_clocks(double tall, double wide, const Device& device) {
  return 2 * std::max(7 * tall * wide + 14 * tall + 7 * wide, 3 * device.mma * tall * wide);
}

/// Clocks of one tile of value, gradient and adjoint, padding included.
template <class Real>
double tile_clocks(const tiled::Network<Real>& net, const tiled::TileChoice<Real>& tile, const Device& device) {
  using tiled::ceil_div;
  using tiled::Fragments;
  using tiled::Layer;
  using R = tiled::Registers<Real>;
  constexpr double kActivation = 40;  // slots per number, in all sweeps together
  constexpr double kBarriers = 300;   // of a product and its exchange
  double clocks = 0;
  for (int l = 0; l < net.layers; ++l) {
    const Layer& layer = net.layer[l];
    clocks += loop_clocks(kActivation * layer.passes * R::kChannels * tile.own * R::kVector, 0);
    if (l == 0) continue;
    const Layer& below = net.layer[l - 1];
    clocks += 6 * kBarriers;
    if (tile.fragments) {
      const double points = tile.points / static_cast<double>(Fragments::kHeight), eight = Fragments::kDepth;
      const auto product = [&](const Layer& to, const Layer& from) {
        return to.passes * ceil_div(from.width, Fragments::kDepth) *
               fragment_clocks(points, to.groups / static_cast<double>(tiled::kWarps), device);
      };
      clocks += 2 * (product(layer, below) + product(below, layer));
      clocks += 2 * layer.grad_passes * (tile.points / eight) *
                fragment_clocks(layer.grad_items,
                                std::min(1.0 * Fragments::kColumns, layer.grad_out / (1.0 * tiled::kWarps)), device);
      continue;
    }
    const double sums = R::kChannels * tile.pixels, numbers = R::kChannels + tile.pixels;
    clocks += 2 * loop_clocks(sums * device.fma + numbers / R::kVector, numbers * sizeof(Real) / sizeof(float)) /
              tiled::kSplit *
              (1.0 * layer.passes * round_up(below.width, tile.row_unit) +
               below.passes * round_up(layer.width, tile.row_unit));
    const double terms = tile.grad_in * tile.grad_out, vectors = tile.grad_in + tile.grad_out;
    clocks += 2.0 * layer.grad_passes * ceil_div(tile.points / R::kVector, layer.grad_ways) *
              loop_clocks(terms * R::kVector * device.fma + vectors, 4 * vectors);
  }
  return clocks;
}

/// Blocks per system: the number with which the busiest multiprocessor finishes first, counting also the bytes of the
/// tape (written once, read twice) and of the blocks' partial sums (written and read).
template <class Real>
int choose_blocks(const tiled::Network<Real>& net, const tiled::TileChoice<Real>& tile, int systems,
                  const Device& device, int resident, double* time) {
  constexpr double kBytesPerClock = 16;  // of a multiprocessor's share of memory: 13 (A100) to 30 (B200)
  constexpr double kTwoBlocks = 1.5;     // time of two blocks side by side over that of one
  const double clocks = tile_clocks(net, tile, device);
  const auto moved = [&](double numbers) {
    return systems * numbers * sizeof(Real) / (kBytesPerClock * device.multiprocessors);
  };
  int best = 1;
  for (int blocks = 1; blocks <= net.tiles && blocks <= 4 * device.multiprocessors; ++blocks) {
    const std::int64_t all = static_cast<std::int64_t>(blocks) * systems;
    const std::int64_t busiest = (all + device.multiprocessors - 1) / device.multiprocessors;
    const double rounds = resident > 1
                              ? kTwoBlocks * static_cast<double>(busiest / 2) + static_cast<double>(busiest % 2)
                              : static_cast<double>(busiest);
    const double total = rounds * tiled::ceil_div(net.tiles, blocks) * clocks +
                         moved(3.0 * net.tape_size * net.tiles + 2.0 * net.partial_size * blocks);
    if (blocks == 1 || total < *time) {
      *time = total;
      best = blocks;
    }
  }
  return best;
}

}  // namespace einfield::cuda
