// The ring of weights: stages of the packed stream, copied from L2 while the one before is in use.
#pragma once

#include "kernels/network/tile/layout.cuh"

namespace einfield::cuda::tiled {

/// The stream of weights on its way from L2, stage by stage: one is copied while the one before is in use.
template <class T>
class Ring {
 public:
  using Real = typename T::Real;
  /// @param offset  where this thread begins to read in a stage
  __device__ Ring(Real* slots, int offset)
      : slots_(slots),
        read_(reinterpret_cast<const char*>(slots + offset)),
        target_(shared_address(slots) + threadIdx.x * 16u) {}
  /// Begins with the first stage of a stream. Every thread has left the ring.
  __device__ void start(const Real* stream, int stages) {
    source_ = __cvta_generic_to_global(stream) + threadIdx.x * 16u;
    stages_ = stages;
    if (stages > 0) fetch();
  }
  /// The stage that has been fetched, from the thread's offset on; the fetch of the following one begins. Every thread
  /// has left the stage before, and sees all earlier writes to shared memory.
  __device__ const Real* next() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
    __syncthreads();
    // Where every register counts, there is none left for read_, so the address is computed again.
    const Real* stage = reinterpret_cast<const Real*>(read_ + slot_);
    if constexpr (T::kFragments) stage = slots_ + (slot_ / sizeof(Real) + 2 * forget(threadIdx.x));
    if constexpr (T::kNarrow) stage = slots_ + (slot_ / sizeof(Real) + Place<T>(forget(threadIdx.x)).weights());
    slot_ ^= kBytes;
    source_ += kBytes;
    if (--stages_ > 0) fetch();
    return stage;
  }
  /// The stage that next() returned last: the caller's own as soon as all threads have left it, until the next next().
  __device__ Real* idle() const {
    return slots_ + (slot_ == 0 ? T::kStage : 0);
  }

 private:
  static constexpr unsigned kBytes = T::kStage * sizeof(Real), kStep = kThreads * 16;
  __device__ void fetch() const {
    copy_from<0>((T::kForgets ? shared_address(slots_) + forget(threadIdx.x) * 16u : target_) + slot_, source_);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }
  /// The vectors of a stage that this thread copies, kThreads vectors apart.
  template <unsigned kOffset>
  __device__ static void copy_from(unsigned target, std::size_t source) {
    if constexpr (kOffset + kStep <= kBytes) {
      copy_async<kOffset>(target, source);
      copy_from<kOffset + kStep>(target, source);
    } else if constexpr (kOffset < kBytes) {
      if (threadIdx.x * 16u < kBytes - kOffset) copy_async<kOffset>(target, source);
    }
  }
  /// 16 bytes to shared memory: without a stop in a register where the device can (compute capability 8.0).
  template <unsigned kOffset>
  __device__ static void copy_async(unsigned target, std::size_t source) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0 + %2], [%1 + %2], 16;" ::"r"(target), "l"(source), "n"(kOffset)
                 : "memory");
#else
    float4 q;
    asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=f"(q.x), "=f"(q.y), "=f"(q.z), "=f"(q.w)
                 : "l"(source), "n"(kOffset)
                 : "memory");
    asm volatile("st.shared.v4.f32 [%0 + %5], {%1, %2, %3, %4};" ::"r"(target), "f"(q.x), "f"(q.y), "f"(q.z), "f"(q.w),
                 "n"(kOffset)
                 : "memory");
#endif
  }

  Real* slots_;
  const char* read_;
  unsigned target_, slot_ = 0;  // slot_: byte offset of the stage that next() will return
  std::size_t source_ = 0;      // address in global memory
  int stages_ = 0;
};

}  // namespace einfield::cuda::tiled
