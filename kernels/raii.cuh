// Owners of CUDA resources: one small move-only class each, created or throws, released without throwing.
// Nothing converts implicitly, nothing copies (a copy would hide a stream), nothing uses the default stream.
#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/check.cuh"

namespace einfield::cuda {

/// Device memory, for Buffer.
struct DeviceMemory {
  static constexpr const char* kName = "DeviceBuffer";
  static void* allocate(std::size_t bytes) {
    void* data = nullptr;
    EINFIELD_CUDA(cudaMalloc(&data, bytes));
    return data;
  }
  static void release(void* data) noexcept { EINFIELD_CUDA_NOEXCEPT(cudaFree(data)); }
};

/// Page-locked host memory, for Buffer: the target of asynchronous copies.
struct PinnedMemory {
  static constexpr const char* kName = "PinnedBuffer";
  static void* allocate(std::size_t bytes) {
    void* data = nullptr;
    EINFIELD_CUDA(cudaMallocHost(&data, bytes));
    return data;
  }
  static void release(void* data) noexcept { EINFIELD_CUDA_NOEXCEPT(cudaFreeHost(data)); }
};

/// `size()` elements of T, uninitialized. An empty buffer holds a null pointer. The memory may be someone else's.
template <class T, class Memory>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size) : size_(size) {
    if (size > std::numeric_limits<std::size_t>::max() / sizeof(T))
      throw InvalidInput(std::string(Memory::kName) + ": size overflows");
    if (size > 0) data_ = static_cast<T*>(Memory::allocate(size * sizeof(T)));
  }
  /// In the memory of another owner, who releases it.
  Buffer(T* borrowed, std::size_t size) : data_(borrowed), size_(size), owned_(false) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)), owned_(other.owned_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer moved(std::move(other));
    std::swap(data_, moved.data_);
    std::swap(size_, moved.size_);
    std::swap(owned_, moved.owned_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr && owned_) Memory::release(data_);
  }

  T* get() const { return data_; }
  T* data() const { return data_; }  ///< as containers call it: a View can be made of a buffer
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  bool owned_ = true;
};

/// A buffer in page-locked host memory, with access to its elements.
template <class T>
class PinnedBuffer : public Buffer<T, PinnedMemory> {
 public:
  using Buffer<T, PinnedMemory>::Buffer;
  T& operator[](std::size_t i) { return this->get()[i]; }
  const T& operator[](std::size_t i) const { return this->get()[i]; }
};

/// A buffer in device memory, with copies from and to the host.
template <class T>
class DeviceBuffer : public Buffer<T, DeviceMemory> {
 public:
  using Buffer<T, DeviceMemory>::Buffer;
  using Buffer<T, DeviceMemory>::get;
  using Buffer<T, DeviceMemory>::size;
  using Buffer<T, DeviceMemory>::bytes;

  /// Copies `count` elements from the host, from element `first` on. The host array must live until the stream has run.
  /// @throws InvalidInput outside the buffer, CudaError
  void upload(const T* host, std::size_t count, cudaStream_t stream, std::size_t first = 0) {
    check_range(first, count);
    if (count > 0)
      EINFIELD_CUDA(cudaMemcpyAsync(get() + first, host, count * sizeof(T), cudaMemcpyHostToDevice, stream));
  }
  void upload(const std::vector<T>& host, cudaStream_t stream) { upload(host.data(), host.size(), stream); }
  /// Copies `count` elements to the host, from element `first` on; valid once the stream has run.
  /// @throws InvalidInput outside the buffer, CudaError
  void download(T* host, std::size_t count, cudaStream_t stream, std::size_t first = 0) const {
    check_range(first, count);
    if (count > 0)
      EINFIELD_CUDA(cudaMemcpyAsync(host, get() + first, count * sizeof(T), cudaMemcpyDeviceToHost, stream));
  }
  /// All elements as a vector; waits for the stream.
  std::vector<T> to_vector(cudaStream_t stream) const {
    std::vector<T> host(size());
    download(host.data(), size(), stream);
    EINFIELD_CUDA(cudaStreamSynchronize(stream));
    return host;
  }
  /// Sets every byte to zero.
  void zero(cudaStream_t stream) {
    if (size() > 0) EINFIELD_CUDA(cudaMemsetAsync(get(), 0, bytes(), stream));
  }

 private:
  void check_range(std::size_t first, std::size_t count) const {
    if (first > size() || count > size() - first) throw InvalidInput("DeviceBuffer: copy outside the buffer");
  }
};

/// A handle that is created by the constructor of the derived class and released by `Release::operator()`.
template <class Handle, class Release>
class Owner {
 public:
  Owner() = default;
  explicit Owner(Handle handle) : handle_(handle) {}
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, Handle{})) {}
  Owner& operator=(Owner&& other) noexcept {
    Owner moved(std::move(other));
    std::swap(handle_, moved.handle_);
    return *this;
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  ~Owner() {
    if (handle_ != Handle{}) Release{}(handle_);
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_{};
};

struct ReleaseStream {
  void operator()(cudaStream_t s) const noexcept { EINFIELD_CUDA_NOEXCEPT(cudaStreamDestroy(s)); }
};
struct ReleaseEvent {
  void operator()(cudaEvent_t e) const noexcept { EINFIELD_CUDA_NOEXCEPT(cudaEventDestroy(e)); }
};
struct ReleaseGraph {
  void operator()(cudaGraph_t g) const noexcept { EINFIELD_CUDA_NOEXCEPT(cudaGraphDestroy(g)); }
};
struct ReleaseGraphExec {
  void operator()(cudaGraphExec_t g) const noexcept { EINFIELD_CUDA_NOEXCEPT(cudaGraphExecDestroy(g)); }
};
struct ReleaseCublas {
  void operator()(cublasHandle_t h) const noexcept { (void)cublasDestroy(h); }
};

/// A stream that does not synchronize with the default stream.
class Stream : public Owner<cudaStream_t, ReleaseStream> {
 public:
  Stream() : Owner(create()) {}
  void synchronize() const { EINFIELD_CUDA(cudaStreamSynchronize(get())); }

 private:
  static cudaStream_t create() {
    cudaStream_t stream = nullptr;
    EINFIELD_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
  }
};

/// An event; with timing only where asked for, since timing events cost more.
class Event : public Owner<cudaEvent_t, ReleaseEvent> {
 public:
  explicit Event(bool timing = false) : Owner(create(timing)) {}
  void record(cudaStream_t stream) { EINFIELD_CUDA(cudaEventRecord(get(), stream)); }
  void synchronize() const { EINFIELD_CUDA(cudaEventSynchronize(get())); }
  /// Milliseconds from `start` to this event; both with timing, both complete.
  float since(const Event& start) const {
    float milliseconds = 0;
    EINFIELD_CUDA(cudaEventElapsedTime(&milliseconds, start.get(), get()));
    return milliseconds;
  }

 private:
  static cudaEvent_t create(bool timing) {
    cudaEvent_t event = nullptr;
    EINFIELD_CUDA(cudaEventCreateWithFlags(&event, timing ? cudaEventDefault : cudaEventDisableTiming));
    return event;
  }
};

/// A captured sequence of work, ready to launch. Empty until capture() has run.
class Graph {
 public:
  /// Records what `work()` enqueues on `stream` instead of running it. A throw inside `work` ends the capture.
  template <class Work>
  static Graph capture(cudaStream_t stream, Work&& work) {
    EINFIELD_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t recorded = nullptr;
    try {
      work();
    } catch (...) {
      EINFIELD_CUDA_NOEXCEPT(cudaStreamEndCapture(stream, &recorded));
      const Owner<cudaGraph_t, ReleaseGraph> discard(recorded);
      throw;
    }
    EINFIELD_CUDA(cudaStreamEndCapture(stream, &recorded));
    Graph graph;
    graph.graph_ = Owner<cudaGraph_t, ReleaseGraph>(recorded);
    cudaGraphExec_t exec = nullptr;
    EINFIELD_CUDA(cudaGraphInstantiate(&exec, recorded, 0));
    graph.exec_ = Owner<cudaGraphExec_t, ReleaseGraphExec>(exec);
    return graph;
  }
  bool empty() const { return exec_.get() == nullptr; }
  void launch(cudaStream_t stream) const { EINFIELD_CUDA(cudaGraphLaunch(exec_.get(), stream)); }

 private:
  Owner<cudaGraph_t, ReleaseGraph> graph_;
  Owner<cudaGraphExec_t, ReleaseGraphExec> exec_;
};

/// A cuBLAS handle with atomics and TF32 off: same input, same bits, full single precision.
class CublasHandle : public Owner<cublasHandle_t, ReleaseCublas> {
 public:
  CublasHandle() : Owner(create()) {
    EINFIELD_CUDA(cublasSetAtomicsMode(get(), CUBLAS_ATOMICS_NOT_ALLOWED));
    EINFIELD_CUDA(cublasSetMathMode(get(), CUBLAS_PEDANTIC_MATH));
    EINFIELD_CUDA(cublasSetPointerMode(get(), CUBLAS_POINTER_MODE_HOST));
  }
  void set_stream(cudaStream_t stream) { EINFIELD_CUDA(cublasSetStream(get(), stream)); }
  /// Workspace of the caller: without it cuBLAS may allocate inside a graph capture. Resets with set_stream.
  void set_workspace(void* data, std::size_t bytes) { EINFIELD_CUDA(cublasSetWorkspace(get(), data, bytes)); }

 private:
  static cublasHandle_t create() {
    cublasHandle_t handle = nullptr;
    EINFIELD_CUDA(cublasCreate(&handle));
    return handle;
  }
};

/// `batch` two-dimensional transforms of ny × nx points, densely packed: real rows of nx, complex rows of nx/2 + 1.
class FftPlan {
 public:
  FftPlan() = default;
  /// @param own_memory  false: set_work_area() has to give the plan work_bytes() before it is used
  FftPlan(int ny, int nx, cufftType type, int batch, cudaStream_t stream, bool own_memory = true) {
    int n[2] = {ny, nx};
    FftPlan plan;
    EINFIELD_CUDA(cufftCreate(&plan.plan_));
    plan.created_ = true;
    EINFIELD_CUDA(cufftSetAutoAllocation(plan.plan_, own_memory ? 1 : 0));
    EINFIELD_CUDA(cufftMakePlanMany(plan.plan_, 2, n, nullptr, 1, 0, nullptr, 1, 0, type, batch, &plan.work_bytes_));
    EINFIELD_CUDA(cufftSetStream(plan.plan_, stream));
    plan.stream_ = stream;
    *this = std::move(plan);
  }
  FftPlan(FftPlan&& other) noexcept
      : plan_(std::exchange(other.plan_, 0)),
        created_(std::exchange(other.created_, false)),
        work_bytes_(other.work_bytes_),
        stream_(std::exchange(other.stream_, nullptr)) {}
  FftPlan& operator=(FftPlan&& other) noexcept {
    FftPlan moved(std::move(other));
    std::swap(plan_, moved.plan_);
    std::swap(created_, moved.created_);
    std::swap(work_bytes_, moved.work_bytes_);
    std::swap(stream_, moved.stream_);
    return *this;
  }
  FftPlan(const FftPlan&) = delete;
  FftPlan& operator=(const FftPlan&) = delete;
  ~FftPlan() {
    if (created_) (void)cufftDestroy(plan_);
  }
  cufftHandle get() const { return plan_; }
  std::size_t work_bytes() const { return work_bytes_; }
  void set_work_area(void* data) { EINFIELD_CUDA(cufftSetWorkArea(plan_, data)); }
  /// The stream of the next transforms; a call of cuFFT only when it is another one.
  void set_stream(cudaStream_t stream) {
    if (stream == stream_) return;
    EINFIELD_CUDA(cufftSetStream(plan_, stream));
    stream_ = stream;
  }

 private:
  cufftHandle plan_ = 0;  // 0 is a valid handle, so created_ says whether there is a plan
  bool created_ = false;
  std::size_t work_bytes_ = 0;
  cudaStream_t stream_ = nullptr;
};

}  // namespace einfield::cuda
