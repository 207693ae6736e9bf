// The owners of CUDA resources: they own, move, refuse, release once, and leave no error behind; shutdown included.
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/raii.cuh"
#include "kernels/storage.cuh"

namespace einfield::cuda {
namespace {

bool device_available() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  (void)cudaGetLastError();
  return found;
}

/// Free memory of the device. Other processes and the driver's own tables move it by less than kSlack.
std::size_t free_bytes() {
  std::size_t free = 0, total = 0;
  EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
  return free;
}
constexpr std::size_t kSlack = 32 << 20;

/// The first large allocation makes the driver allocate for itself.
void warm_up() {
  const DeviceBuffer<char> first(16 << 20);
}

/// What a call throws, as text; empty when it throws nothing.
template <class Error, class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

__global__ void add_one_kernel(int* values, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) values[i] += 1;
}

class CudaRaii : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!device_available()) GTEST_SKIP() << "no CUDA device";
  }
  void TearDown() override {
    if (device_available()) EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "an error was left behind";
  }
};

template <class T>
constexpr bool kMoveOnly =
    !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> && std::is_nothrow_move_constructible_v<T> &&
    std::is_nothrow_move_assignable_v<T> && std::is_nothrow_destructible_v<T>;
static_assert(kMoveOnly<DeviceBuffer<float>> && kMoveOnly<PinnedBuffer<float>> && kMoveOnly<Stream> &&
              kMoveOnly<Event> && kMoveOnly<Graph> && kMoveOnly<CublasHandle> && kMoveOnly<FftPlan>);

TEST_F(CudaRaii, BuffersHoldWhatTheyAreGiven) {
  const Stream stream;
  std::vector<int> host(1000);
  std::iota(host.begin(), host.end(), 0);
  DeviceBuffer<int> buffer(host.size());
  EXPECT_EQ(buffer.size(), 1000u);
  EXPECT_EQ(buffer.bytes(), 4000u);
  buffer.zero(stream.get());
  EXPECT_EQ(buffer.to_vector(stream.get()), std::vector<int>(1000, 0));
  buffer.upload(host, stream.get());
  EXPECT_EQ(buffer.to_vector(stream.get()), host);
  buffer.upload(host.data(), 3, stream.get(), 997);
  PinnedBuffer<int> pinned(4);
  buffer.download(pinned.get(), pinned.size(), stream.get(), 996);
  stream.synchronize();
  EXPECT_EQ(std::vector<int>(pinned.get(), pinned.get() + 4), (std::vector<int>{996, 0, 1, 2}));
  EXPECT_EQ(pinned[1], 0);
}

TEST_F(CudaRaii, EmptyBuffersCostNothing) {
  const Stream stream;
  DeviceBuffer<double> none, empty(0);
  EXPECT_EQ(none.get(), nullptr);
  EXPECT_EQ(empty.get(), nullptr);
  empty.zero(stream.get());
  empty.upload({}, stream.get());
  EXPECT_TRUE(empty.to_vector(stream.get()).empty());
  EXPECT_EQ(PinnedBuffer<double>(0).get(), nullptr);
}

TEST_F(CudaRaii, MovesHandOverAndReleaseOnce) {
  warm_up();
  const std::size_t before = free_bytes();
  {
    constexpr std::size_t kSize = 32 << 20;  // 128 MB
    DeviceBuffer<float> a(kSize);
    const float* data = a.get();
    EXPECT_LE(free_bytes() + kSize * sizeof(float), before + kSlack);
    DeviceBuffer<float> b(std::move(a));
    EXPECT_EQ(b.get(), data);
    EXPECT_EQ(a.get(), nullptr);
    EXPECT_EQ(a.size(), 0u);
    DeviceBuffer<float> c(kSize);
    c = std::move(b);
    EXPECT_EQ(c.get(), data);
    EXPECT_EQ(b.get(), nullptr);
    DeviceBuffer<float>& self = c;
    c = std::move(self);
    EXPECT_EQ(c.get(), data) << "a move to itself";
  }
  EXPECT_GE(free_bytes() + kSlack, before);

  Stream stream, other(std::move(stream));
  EXPECT_EQ(stream.get(), nullptr);
  EXPECT_NE(other.get(), nullptr);
  stream = std::move(other);
  stream.synchronize();
  Event event, moved(std::move(event));
  EXPECT_EQ(event.get(), nullptr);
  moved.record(stream.get());
  moved.synchronize();
  CublasHandle handle, second(std::move(handle));
  EXPECT_EQ(handle.get(), nullptr);
  second.set_stream(stream.get());
  FftPlan plan(8, 8, CUFFT_R2C, 1, stream.get()), taken(std::move(plan));
  plan = std::move(taken);
  DeviceBuffer<float> image(64);
  DeviceBuffer<cufftComplex> spectrum(40);
  image.zero(stream.get());
  EINFIELD_CUDA(cufftExecR2C(plan.get(), image.get(), spectrum.get()));
  stream.synchronize();
}

TEST_F(CudaRaii, CopiesOutsideTheBufferAreRefused) {
  const Stream stream;
  DeviceBuffer<int> buffer(4);
  int value = 0;
  EXPECT_THROW(buffer.upload(&value, 1, stream.get(), 4), InvalidInput);
  EXPECT_THROW(buffer.upload(&value, std::size_t(-1), stream.get(), 2), InvalidInput);
  EXPECT_THROW(buffer.download(&value, 5, stream.get()), InvalidInput);
  EXPECT_THROW(DeviceBuffer<double>(std::size_t(-1) / 4), InvalidInput);
  EXPECT_THROW(PinnedBuffer<double>(std::size_t(-1) / 4), InvalidInput);
}

TEST_F(CudaRaii, ErrorsCarryCallCodeAndPlaceAndDoNotStick) {
  std::size_t free = 0, total = 0;
  EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
  const std::string text = message_of<CudaError>([&] { DeviceBuffer<char> too_large(2 * total); });
  for (const char* part : {"cudaMalloc(", "cudaErrorMemoryAllocation", "raii.cuh:"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "the exception carries it";

  const std::string plan = message_of<CufftError>([] {
    const Stream stream;
    const FftPlan impossible(-1, 8, CUFFT_R2C, 1, stream.get());
  });
  EXPECT_NE(plan.find("cufftMakePlanMany("), std::string::npos) << plan;
  EXPECT_NE(plan.find("CUFFT_"), std::string::npos) << plan;

  const std::string blas = message_of<CublasError>([] {
    CublasHandle handle;
    EINFIELD_CUDA(cublasSgemm(handle.get(), CUBLAS_OP_N, CUBLAS_OP_N, -1, 1, 1, nullptr, nullptr, 1, nullptr, 1,
                              nullptr, nullptr, 1));
  });
  EXPECT_NE(blas.find("cublasSgemm("), std::string::npos) << blas;
  EXPECT_NE(blas.find("CUBLAS_STATUS_"), std::string::npos) << blas;

  const std::string launch = message_of<CudaError>([] {
    const Stream stream;
    add_one_kernel<<<1, 4096, 0, stream.get()>>>(nullptr, 0);
    EINFIELD_LAUNCH_CHECK();
  });
  EXPECT_NE(launch.find("kernel launch failed"), std::string::npos) << launch;
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
}

/// An error that destroys the context comes back from every later call; only a new process helps.
TEST_F(CudaRaii, ALostContextIsSaid) {
  const auto message = [](cudaError_t status) {
    return message_of<CudaError>([status] { check(status, "a call", "file", 1); });
  };
  const std::string lost = "; this run cannot use the GPU again: start the program anew";
  for (const cudaError_t status : {cudaErrorIllegalAddress, cudaErrorLaunchFailure, cudaErrorLaunchTimeout}) {
    const std::string text = message(status);
    ASSERT_GT(text.size(), lost.size());
    EXPECT_EQ(text.substr(text.size() - lost.size()), lost);
  }
  EXPECT_EQ(message(cudaErrorMemoryAllocation).find("lost"), std::string::npos);
}

/// The third buffer is larger than any device.
struct TooLarge {
  DeviceBuffer<float> first, second, third;
  template <class Take>
  void each(Take&& take, std::size_t n) {
    take(first, n);
    take(second, n / 2);
    take(third, std::size_t(1) << 45);
  }
};

TEST_F(CudaRaii, AFailureHalfWayLeavesNothing) {
  const Stream stream;
  warm_up();
  const std::size_t before = free_bytes();
  EXPECT_EQ(planned_bytes_of<TooLarge>(std::size_t(1000)), 4 * (1500 + (std::size_t(1) << 45)));
  EXPECT_THROW(
      {
        TooLarge storage;
        allocate_all(storage, stream.get(), std::size_t(16) << 20);  // 64 MB, 32 MB
      },
      CudaError);
  EXPECT_GE(free_bytes() + kSlack, before);
}

TEST_F(CudaRaii, GraphsRepeatTheirWork) {
  const Stream stream;
  DeviceBuffer<int> values(100);
  values.zero(stream.get());
  const Graph graph = Graph::capture(stream.get(), [&] {
    add_one_kernel<<<1, 128, 0, stream.get()>>>(values.get(), 100);
    EINFIELD_LAUNCH_CHECK();
  });
  EXPECT_TRUE(Graph{}.empty());
  EXPECT_FALSE(graph.empty());
  EXPECT_EQ(values.to_vector(stream.get())[99], 0) << "captured, not run";
  for (int i = 0; i < 3; ++i) graph.launch(stream.get());
  EXPECT_EQ(values.to_vector(stream.get()), std::vector<int>(100, 3));
}

TEST_F(CudaRaii, AThrowEndsTheCapture) {
  const Stream stream;
  DeviceBuffer<int> values(1);
  EXPECT_THROW(Graph::capture(stream.get(),
                              [&] {
                                values.zero(stream.get());
                                throw NumericalError("in the middle");
                              }),
               NumericalError);
  values.zero(stream.get());  // the stream works as before
  EXPECT_EQ(values.to_vector(stream.get()), std::vector<int>(1, 0));
  // A call that a capture does not allow spoils it; the error is the call's, and the stream is free again.
  EXPECT_THROW(Graph::capture(stream.get(), [&] { stream.synchronize(); }), CudaError);
  values.zero(stream.get());
  stream.synchronize();
}

TEST_F(CudaRaii, EventsMeasureTime) {
  const Stream stream;
  Event start(true), end(true);
  start.record(stream.get());
  end.record(stream.get());
  end.synchronize();
  EXPECT_GE(end.since(start), 0.0f);
  Event silent;
  silent.record(stream.get());
  silent.synchronize();
  EXPECT_THROW(static_cast<void>(silent.since(start)), CudaError) << "an event without timing";
}

/// A static owner outlives main(), perhaps the runtime: its destructor must neither crash nor complain.
struct AtExit {
  Stream stream;
  DeviceBuffer<int> buffer;
  PinnedBuffer<int> pinned;
};

TEST_F(CudaRaii, OwnersMayOutliveMain) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        static AtExit owner;
        owner.buffer = DeviceBuffer<int>(10);
        owner.pinned = PinnedBuffer<int>(10);
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace einfield::cuda
