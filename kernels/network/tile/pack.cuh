// The kernel that packs the weights.
#pragma once

#include "kernels/network/tile/layout.cuh"

namespace einfield::cuda::tiled {

/// Packs the Constants of every channel, and W and Wᵀ of every matrix as the ring reads them: a block makes one stage,
/// [row k][group][channel] or in fragments, zero where row or channel are padding, by way of shared memory, so that
/// reads and writes are whole lines. x: stages, then blocks of channels; y: system.
template <class T>
__global__ void __launch_bounds__(kThreads) pack_kernel(const __grid_constant__ Network<typename T::Real> net,
                                                        const typename T::Real* all_parameters, std::size_t stride) {
  using Real = typename T::Real;
  __shared__ Real tile[T::kStage + T::kStageRows];  // [row][channel of the pass], one number of padding per row
  const int thread = threadIdx.x, system = net.system(), last = net.layers - 1;
  if (system < 0) return;
  const Real* parameters = all_parameters + system * stride;
  Real* packed = net.packed + static_cast<std::size_t>(blockIdx.y) * net.pack_size;
  int stage = blockIdx.x;
  if (stage >= net.stages) {
    const int index = (stage - net.stages) * kThreads + thread;
    if (index >= net.constants_size) return;
    int l = 0;
    while (l < last && index >= net.layer[l + 1].constants) ++l;
    const int channel = index - net.layer[l].constants, width = net.layer[l].width;
    Constants<Real> k{};
    if (channel < width) {
      if (l == 0) {
        k.w_x = parameters[net.layer[0].kernel + channel];
        k.w_y = parameters[net.layer[0].kernel + width + channel];
      }
      k.bias = parameters[net.layer[l].bias + channel];
      if (l == last) k.output = parameters[net.last_kernel + channel];
    }
    reinterpret_cast<Constants<Real>*>(packed)[index] = k;
    return;
  }
  packed += net.stream + static_cast<std::size_t>(stage) * T::kStage;
  const bool value = stage < net.layer[last].gradient_stage;
  int l = value ? 1 : last;
  if (value)
    while (l < last && stage >= net.layer[l + 1].value_stage) ++l;
  else
    while (l > 1 && stage >= net.layer[l - 1].gradient_stage) --l;
  const Layer &matrix = net.layer[l], &to = net.layer[value ? l : l - 1], &from = net.layer[value ? l - 1 : l];
  stage -= value ? matrix.value_stage : matrix.gradient_stage;
  const int stages_per_pass = (from.width + T::kStageRows - 1) / T::kStageRows;
  const int channels = to.groups * T::kChannels, pitch = channels + 1;
  const int first_channel = stage / stages_per_pass * channels, first_row = stage % stages_per_pass * T::kStageRows;
  for (int i = thread; i < T::kStageRows * channels; i += kThreads) {
    // Consecutive threads along a row of the stored matrix: its columns are channels of `to` or, transposed, rows k.
    const int row = value ? i / channels : i % T::kStageRows, channel = value ? i % channels : i / T::kStageRows;
    const int k = first_row + row, ch = first_channel + channel;
    Real w = 0;
    if (k < from.width && ch < to.width)
      w = parameters[matrix.kernel + (value ? k : ch) * matrix.width + (value ? ch : k)];
    tile[row * pitch + channel] = w;
  }
  __syncthreads();
  for (int i = thread; i < T::kStage; i += kThreads) {
    int row, group, channel;
    if constexpr (T::kFragments) {  // [eight of rows][eight of channels][lane][its two numbers of B]
      const int lane = i / 2 % 32;
      group = i / 64 % T::kMaxGroups;
      row = i / (64 * T::kMaxGroups) * Fragments::kDepth + lane % 4 * 2 + i % 2;
      channel = group * Fragments::kWidth + lane / 4;
    } else {
      row = i / T::kWeightPitch;
      group = i % T::kWeightPitch / T::kChannels;
      channel = i % T::kChannels * to.groups + group;
    }
    packed[i] = group < to.groups ? tile[row * pitch + channel] : Real(0);
  }
}

}  // namespace einfield::cuda::tiled
