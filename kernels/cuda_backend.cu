// The backend on a CUDA device: owns the stream, and makes the device current around every call. The rest is
// training.cuh.
#include "kernels/cuda_backend.hpp"

#include <charconv>
#include <new>
#include <string>

#include "kernels/device.cuh"
#include "kernels/training.cuh"

namespace einfield {
namespace cuda {
namespace {

std::string megabytes(std::size_t bytes) {
  char text[64];
  const auto written =
      std::to_chars(text, text + sizeof text, static_cast<double>(bytes) / 1e6, std::chars_format::fixed, 1);
  return std::string(text, written.ptr) + " MB";
}

/// A stream of a device that need not be current.
Stream stream_on(int device) {
  const CurrentDevice current(device);
  return {};
}

template <class Real>
class CudaBackend final : public Backend<Real> {
 public:
  explicit CudaBackend(int device) : device_(device), name_(device_name(device)), stream_(stream_on(device)) {}
  CudaBackend(const CudaBackend&) = delete;
  CudaBackend& operator=(const CudaBackend&) = delete;
  /// Plans of cuFFT and handles of cuBLAS are released on their own device.
  ~CudaBackend() override {
    const CurrentDevice current(device_, std::nothrow);
    training_.reset();
  }

  std::string name() const override { return "cuda"; }
  std::string device() const override { return name_; }

  void load(const std::vector<Problem>& problems) override {
    validate(problems);
    const CurrentDevice current(device_);
    training_.reset();  // its memory counts as free
    with_memory(planned_bytes<Real>(problems, 0),
                [&] { training_ = std::make_unique<Training<Real>>(problems, stream_.get()); });
  }
  int systems() const override { return training_ ? training_->systems() : 0; }
  const ParameterLayout& layout() const override { return training().layout(); }

  void upload(Field field, int system, const std::vector<Real>& values) override {
    on_device([&](Training<Real>& t) { t.upload(field, checked(system), values); });
  }
  std::vector<Real> download(Field field, int system) const override {
    return on_device([&](Training<Real>& t) { return t.download(field, checked(system)); });
  }
  void upload(Field field, const std::vector<Real>& values) override {
    on_device([&](Training<Real>& t) { t.upload(field, values); });
  }
  std::vector<Real> download(Field field) const override {
    return on_device([&](Training<Real>& t) { return t.download(field); });
  }
  void set_updates(std::int64_t updates) override {
    on_device([&](Training<Real>& t) { t.set_updates(updates); });
  }
  void begin(const Schedule& schedule) override {
    on_device([&](Training<Real>& t) { t.begin(schedule); });
  }

  void network() override { run(&Training<Real>::network); }
  void render() override { run(&Training<Real>::render); }
  void convolve() override { run(&Training<Real>::convolve); }
  void loss() override { run(&Training<Real>::loss); }
  void convolve_adjoint() override { run(&Training<Real>::convolve_adjoint); }
  void zero_gradient() override {
    run(&Training<Real>::zero_gradient);
    run(&Training<Real>::zero_sums);
  }
  void render_adjoint() override { run(&Training<Real>::render_adjoint); }
  void regularize() override { run(&Training<Real>::regularize); }
  void network_adjoint() override { run(&Training<Real>::network_adjoint); }
  void adam() override { run(&Training<Real>::adam); }
  void step() override { run(&Training<Real>::step); }

  void evaluate(bool with_gradient) override {
    on_device([with_gradient](Training<Real>& t) { t.evaluate(with_gradient); });
  }
  StepState state(int system) const override {
    return on_device([&](Training<Real>& t) { return t.states(checked(system), 1)[0]; });
  }
  std::vector<StepState> states() const override {
    return on_device([&](Training<Real>& t) { return t.states(0, static_cast<std::size_t>(systems())); });
  }

  void begin_stage(const StageRun& run, const std::vector<StageStart<Real>>& starts) override {
    validate_stage(run, starts, systems(), layout().size());
    on_device([&](Training<Real>& t) {
      const std::size_t bytes = t.make_room(run);
      if (bytes == 0)
        t.begin_stage(run, starts);
      else
        with_memory(bytes, [&] { t.begin_stage(run, starts); });
    });
  }
  void advance(int evaluations) override {
    on_device([evaluations](Training<Real>& t) { t.advance(evaluations); });
  }
  int evaluations_per_look() const override { return kEvaluationsPerLook; }
  std::vector<StageProgress> look(std::vector<std::vector<StageRecord>>& records) override {
    return on_device([&](Training<Real>& t) { return t.look(records); });
  }
  void begin_stage(int system, const StageStart<Real>& start) override {
    on_device([&](Training<Real>& t) { t.begin_stage(checked(system), start); });
  }
  void replace(int system, const Problem& problem) override {
    on_device([&](Training<Real>& t) { t.replace(checked(system), problem); });
  }
  std::vector<std::vector<Real>> pairs() const override {
    return on_device([](Training<Real>& t) { return t.pairs(); });
  }

  NetworkFields<Real> network_fields(int system, const std::vector<Real>& theta) override {
    EINFIELD_REQUIRE(theta.size() % 2 == 0,
                     std::to_string(theta.size()) + " coordinates, expected all x, then as many y");
    return on_device([&](Training<Real>& t) { return t.network_fields(checked(system), theta); });
  }

  int device_index() const { return device_; }

  double milliseconds(const std::function<void()>& work) {
    const CurrentDevice current(device_);
    Event start(true), end(true);
    start.record(stream_.get());
    work();
    end.record(stream_.get());
    end.synchronize();
    return static_cast<double>(end.since(start));
  }

 private:
  /// Runs work() that allocates device memory, if there is as much. Errors say what was needed.
  template <class Work>
  void with_memory(std::size_t bytes, Work&& work) const {
    std::size_t free = 0, total = 0;
    EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
    const std::string need = "CUDA device " + std::to_string(device_) + " (" + name_ + "): the run needs " +
                             megabytes(bytes) + " of device memory (" + std::to_string(bytes) + " bytes), free are " +
                             megabytes(free);
    if (bytes > free) throw CudaError(need);
    try {
      work();
    } catch (const CudaError& error) {
      throw CudaError(need + "; " + error.what());
    } catch (const CufftError& error) {
      throw CufftError(need + "; " + error.what());
    } catch (const CublasError& error) {
      throw CublasError(need + "; " + error.what());
    }
  }

  Training<Real>& training() const {
    EINFIELD_REQUIRE(training_ != nullptr, "no problem is loaded");
    return *training_;
  }
  std::size_t checked(int system) const {
    EINFIELD_REQUIRE(
        system >= 0 && system < systems(),
        "system " + std::to_string(system) + " of " + std::to_string(systems()) + ", expected one that is loaded");
    return static_cast<std::size_t>(system);
  }
  template <class Work>
  auto on_device(Work&& work) const {
    Training<Real>& loaded = training();
    const CurrentDevice current(device_);
    return work(loaded);
  }
  void run(void (Training<Real>::*stage)()) const {
    on_device([stage](Training<Real>& t) { (t.*stage)(); });
  }

  int device_;
  std::string name_;
  Stream stream_;
  std::unique_ptr<Training<Real>> training_;
};

}  // namespace
}  // namespace cuda

template <class Real>
std::unique_ptr<Backend<Real>> make_cuda_backend(int device) {
  return std::make_unique<cuda::CudaBackend<Real>>(device);
}

template <class Real>
std::size_t cuda_planned_bytes(const std::vector<Problem>& problems, int device, int pairs) {
  cuda::validate(problems);
  const cuda::CurrentDevice current(device);
  return cuda::planned_bytes<Real>(problems, pairs);
}

std::size_t cuda_free_bytes(int device) {
  const cuda::CurrentDevice current(device);
  std::size_t free = 0, total = 0;
  EINFIELD_CUDA(cudaMemGetInfo(&free, &total));
  return free;
}

template <class Real>
int cuda_device_index(const Backend<Real>& backend) {
  const auto* cuda_backend = dynamic_cast<const cuda::CudaBackend<Real>*>(&backend);
  return cuda_backend != nullptr ? cuda_backend->device_index() : -1;
}

template <class Real>
double cuda_milliseconds(Backend<Real>& backend, const std::function<void()>& work) {
  auto* cuda_backend = dynamic_cast<cuda::CudaBackend<Real>*>(&backend);
  EINFIELD_REQUIRE(cuda_backend != nullptr, "backend " + backend.name() + ", expected cuda");
  return cuda_backend->milliseconds(work);
}

template std::unique_ptr<Backend<float>> make_cuda_backend(int);
template std::unique_ptr<Backend<double>> make_cuda_backend(int);
template std::size_t cuda_planned_bytes<float>(const std::vector<Problem>&, int, int);
template std::size_t cuda_planned_bytes<double>(const std::vector<Problem>&, int, int);
template int cuda_device_index(const Backend<float>&);
template int cuda_device_index(const Backend<double>&);
template double cuda_milliseconds(Backend<float>&, const std::function<void()>&);
template double cuda_milliseconds(Backend<double>&, const std::function<void()>&);

}  // namespace einfield
