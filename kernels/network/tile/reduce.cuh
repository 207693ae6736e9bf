// The kernel that adds up the blocks' partial sums.
#pragma once

#include "kernels/network/tile/multiply_mma.cuh"

namespace einfield::cuda::tiled {

/// Adds the blocks' partial sums to the gradient. Lanes take vectors of sums, strands every kStrands-th term of each;
/// the strands are added in order. x < reduce_blocks: rows of a matrix, so that consecutive threads write consecutive
/// numbers, or kLanes vectors of fragments; else kLanes numbers of the vectors (W₁, biases, w), and of the matrices of
/// narrow tiles.
template <class Real, bool kFragments>
__global__ void __launch_bounds__(kLanes* kStrands)
    reduce_kernel(const __grid_constant__ Network<Real> net, Real* all_gradients, std::size_t stride, int blocks) {
  using R = Registers<Real>;
  constexpr int V = R::kVector, kSums = R::kGradIn * R::kGradOut, kParts = R::kGradOut / V;  // vectors of a tile's row
  __shared__ Real strands[kStrands][V][kLanes];
  const int lane = threadIdx.x, strand = threadIdx.y, system = net.system();
  if (system < 0) return;
  Real* gradient = all_gradients + system * stride;
  const Real* partial = net.sums + static_cast<std::size_t>(blockIdx.y) * blocks * net.sums_size;
  const auto sum_of = [&](int i, int of_lane) {
    Real sum = strands[0][i][of_lane];
#pragma unroll
    for (int s = 1; s < kStrands; ++s) sum += strands[s][i][of_lane];
    return sum;
  };

  if (static_cast<int>(blockIdx.x) < net.reduce_blocks) {
    int l = 1;
    while (l + 1 < net.layers && static_cast<int>(blockIdx.x) >= net.layer[l + 1].reduce_block) ++l;
    const Layer& layer = net.layer[l];
    const int height = net.layer[l - 1].width;
    if constexpr (kFragments) {
      const int vector = (static_cast<int>(blockIdx.x) - layer.reduce_block) * kLanes + lane;
      const int slot = vector / kThreads % Fragments::kSums, of = vector % 32;
      const GradientPart part(layer, vector / (Fragments::kSums * kThreads), vector % kThreads / 32);
      if (!__syncthreads_or(part.has(slot))) return;
      Pack<Real> sum{};
      if (part.has(slot))
#pragma unroll 4
        for (int block = strand; block < blocks; block += kStrands) {
          const Pack<Real> v =
              Pack<Real>::load(partial + static_cast<std::size_t>(block) * net.sums_size + layer.partial + vector * V);
#pragma unroll
          for (int i = 0; i < V; ++i) sum.v[i] += v.v[i];
        }
#pragma unroll
      for (int i = 0; i < V; ++i) strands[strand][i][lane] = sum.v[i];
      __syncthreads();
      const int row = (part.first_row + slot % Fragments::kRows * 2 + strand / 2) * Fragments::kWidth + spread(of / 4);
      const int column =
          (part.first_column + slot / Fragments::kRows * kWarps) * Fragments::kWidth + spread(of % 4 * 2 + strand % 2);
      static_assert(kStrands == 4, "a strand writes one of a lane's four sums");
      if (part.has(slot) && row < height && column < layer.width)
        gradient[layer.kernel + row * layer.width + column] += sum_of(strand, lane);
      return;
    }
    const int row_vectors = kParts * layer.grad_out;
    const int rows = reduce_rows(row_vectors), first = (static_cast<int>(blockIdx.x) - layer.reduce_block) * rows;
    for (int chunk = 0; chunk < rows * row_vectors; chunk += kLanes) {  // several where a row is wide: then rows = 1
      const int vector = chunk + lane, in = first + vector / row_vectors, in_row = vector % row_vectors;
      const bool on = vector < rows * row_vectors && in < height;
      Pack<Real> sum{};
      if (on) {
        const int tile = in / R::kGradIn * layer.grad_out + in_row % layer.grad_out;
        const int slot = in % R::kGradIn * kParts + in_row / layer.grad_out;
        const int pass = tile / kThreads, item = tile % kThreads;
        const Real* source = partial + layer.partial + ((pass * (kSums / V) + slot) * kThreads + item) * V;
        const int terms = blocks * layer.grad_ways;
#pragma unroll 4
        for (int term = strand; term < terms; term += kStrands) {
          const int block = term / layer.grad_ways, way = term % layer.grad_ways;
          const Pack<Real> v =
              Pack<Real>::load(source + static_cast<std::size_t>(block) * net.sums_size + way * layer.grad_items * V);
#pragma unroll
          for (int i = 0; i < V; ++i) sum.v[i] += v.v[i];
        }
      }
      __syncthreads();  // the chunk before has been written
#pragma unroll
      for (int i = 0; i < V; ++i) strands[strand][i][lane] = sum.v[i];
      __syncthreads();
      const int thread = strand * kLanes + lane;
      if (row_vectors <= kLanes) {  // whole rows
        const int count = min(rows, height - first) * layer.width;
        for (int i = thread; i < count; i += kLanes * kStrands) {
          const int row = i / layer.width, out = i % layer.width;
          const int b = out / layer.grad_out,
                    of_lane = row * row_vectors + b / V * layer.grad_out + out % layer.grad_out;
          gradient[layer.kernel + first * layer.width + i] += sum_of(b % V, of_lane);
        }
      } else {
        for (int i = thread; i < V * kLanes; i += kLanes * kStrands) {
          const int of_row = chunk + i % kLanes, b = of_row / layer.grad_out * V + i / kLanes;
          const int out = of_row % layer.grad_out + b * layer.grad_out;
          if (of_row < row_vectors && out < layer.width)
            gradient[layer.kernel + first * layer.width + out] += sum_of(i / kLanes, i % kLanes);
        }
      }
    }
    return;
  }

  const int index = net.numbers_partial + (static_cast<int>(blockIdx.x) - net.reduce_blocks) * kLanes + lane;
  const bool on = index <= net.last_partial + net.layer[net.layers - 1].width;
  Real sum = 0;
  if (on)
    for (int block = strand; block < blocks; block += kStrands)
      sum += partial[static_cast<std::size_t>(block) * net.sums_size + index];
  strands[strand][0][lane] = sum;
  __syncthreads();
  if (strand != 0 || !on) return;
  int target = 0;
  if (index >= net.last_partial) {
    target = net.last_kernel + index - net.last_partial;  // the last bias follows its kernel in both
  } else if (index < net.first_partial) {                 // a matrix, row by row
    int l = 1;
    while (l + 1 < net.layers && index >= net.layer[l + 1].partial) ++l;
    target = net.layer[l].kernel + index - net.layer[l].partial;
  } else if (index < net.layer[0].bias_partial) {
    target = net.layer[0].kernel + index - net.first_partial;
  } else {
    int l = 0;
    while (l + 1 < net.layers && index >= net.layer[l + 1].bias_partial) ++l;
    target = net.layer[l].bias + index - net.layer[l].bias_partial;
  }
  gradient[target] += sum_of(0, lane);
}

}  // namespace einfield::cuda::tiled
