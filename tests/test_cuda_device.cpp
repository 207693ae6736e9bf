// Which CUDA devices are tried, used and given a context, on machines that device_shim.hpp imitates.
#include "kernels/device.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

#include "einfield/backend.hpp"
#include "kernels/device.hpp"
#include "tests/device_shim.hpp"
#include "tests/run_binary.hpp"
#include "tests/small_lens.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

using Indices = std::vector<int>;

/// The runtime's words for a device that refuses a context.
const std::string kBusy = cudaGetErrorString(cudaErrorDevicesUnavailable);

int current_device() {
  int device = -1;
  EINFIELD_CUDA(cudaGetDevice(&device));
  return device;
}

/// A thread that never chose a device.
template <class Work>
void in_new_thread(Work&& work) {
  std::thread(std::forward<Work>(work)).join();
}

TEST(CurrentDevice, CreatesNoContextOnDeviceZeroForACallerThatNeverChose) {
  imitate_devices(4, {});
  in_new_thread([] { const cuda::CurrentDevice current(3); });
  EXPECT_EQ(devices_with_context(), Indices{3});
}

TEST(CurrentDevice, GivesTheCallerTheirOwnBack) {
  imitate_devices(4, {});
  in_new_thread([] {
    EINFIELD_CUDA(cudaSetDevice(1));
    {
      const cuda::CurrentDevice current(2);
      EXPECT_EQ(current_device(), 2);
      const cuda::CurrentDevice same(2);
    }
    EXPECT_EQ(current_device(), 1);
    EXPECT_EQ(problem_of_cuda_device(3), "");
    EXPECT_EQ(current_device(), 1);
  });
  EXPECT_EQ(devices_with_context(), (Indices{1, 2, 3}));
}

TEST(CurrentDevice, RefusedIsAnErrorOrIgnored) {
  imitate_devices(2, {1});
  in_new_thread([] {
    EXPECT_THROW(const cuda::CurrentDevice current(1), CudaError);
    const cuda::CurrentDevice ignored(1, std::nothrow);
    EXPECT_EQ(current_device(), 0);
  });
  EXPECT_EQ(devices_with_context(), Indices{});
}

TEST(Devices, AreCountedAndListedWithoutAContext) {
  imitate_devices(3, {1});
  EXPECT_EQ(cuda_devices().size(), 3u);
  EXPECT_NE(cuda_devices()[1].find(", compute capability "), std::string::npos) << cuda_devices()[1];
  EXPECT_EQ(devices_with_context(), Indices{});
  imitate_devices(0, {});
  EXPECT_TRUE(cuda_devices().empty());
}

TEST(Devices, AreTriedWithoutAThrow) {
  imitate_devices(3, {0, 2});
  EXPECT_EQ(problem_of_cuda_device(0), kBusy);
  EXPECT_EQ(problem_of_cuda_device(1), "");
  EXPECT_EQ(problem_of_cuda_device(2), kBusy);
  EXPECT_EQ(problem_of_cuda_device(3), "invalid device ordinal");
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess) << "an error was left behind";
  EXPECT_EQ(devices_with_context(), Indices{1});
}

TEST(Devices, TheFirstUsableOneIsTaken) {
  for (const auto& [busy, expected] : std::map<std::set<int>, int>{{{}, 0}, {{0}, 1}, {{0, 1, 3}, 2}}) {
    imitate_devices(4, busy);
    for (const char* name : {"auto", "cuda"}) {
      const BackendChoice choice = resolve_backend(name, {});
      EXPECT_EQ(choice.name, "cuda");
      EXPECT_EQ(choice.options.device, expected);
      EXPECT_EQ(choice.reason, "");
    }
    EXPECT_EQ(devices_with_context(), Indices{expected}) << "no other device gets a context";
  }
}

TEST(Devices, ARequestedOneIsTakenOrAnError) {
  imitate_devices(4, {2});
  EXPECT_EQ(resolve_backend("cuda", {0, 3}).options.device, 3);
  EXPECT_EQ(devices_with_context(), Indices{3});
  for (const auto& [device, message] :
       std::map<int, std::string>{{2, "CUDA device 2 cannot be used: " + kBusy},
                                  {4, "CUDA device 4: no such device, found 4 devices, numbered from 0"}}) {
    try {
      resolve_backend("cuda", {0, device});
      ADD_FAILURE() << device;
    } catch (const BackendUnavailable& error) {
      EXPECT_EQ(error.what(), message);
    }
    const BackendChoice automatic = resolve_backend("auto", {0, device});
    EXPECT_EQ(automatic.name, "cpu");
    EXPECT_EQ(automatic.reason, message);
  }
}

/// A backend releases its plans on its own device, whatever the caller has made current since.
TEST(Devices, ABackendStaysOnItsOwn) {
  imitate_devices(3, {});
  in_new_thread([] {
    EINFIELD_CUDA(cudaSetDevice(0));
    auto backend = make_backend<float>("cuda", {0, 2});
    backend->load({make_problem(StepCase{})});
    backend->step();
    EXPECT_EQ(backend->state(0).updates, 1);
    EXPECT_EQ(current_device(), 0);
    backend.reset();
    EXPECT_EQ(current_device(), 0);
  });
  EXPECT_EQ(devices_with_context(), (Indices{0, 2}));
}

/// The command on an imitated machine.
class Machine {
 public:
  Machine(int devices, const std::string& busy) {
    around_.environment = {{"LD_PRELOAD", EINFIELD_DEVICE_SHIM},
                           {"EINFIELD_DEVICES", std::to_string(devices)},
                           {"EINFIELD_BUSY", busy},
                           {"EINFIELD_CONTEXTS", lens_.folder() / "contexts"}};
  }
  Outcome run(const std::vector<std::string>& words) {
    std::filesystem::remove(lens_.folder() / "contexts");
    return run_binary(words, around_);
  }
  Outcome fit(std::vector<std::string> more) {
    more.insert(more.begin(),
                {"fit", lens_.path(), "--overwrite", "--set", "optimizer.steps=2", "--out", lens_.folder() / "out"});
    return run(more);
  }
  /// Of the last run.
  Indices contexts() const {
    std::ifstream file(lens_.folder() / "contexts");
    return {std::istream_iterator<int>(file), {}};
  }

 private:
  SmallLens lens_;
  Surroundings around_;
};

void expect_one_line(const Outcome& outcome, const std::string& message) {
  EXPECT_EQ(outcome.status, 3) << outcome.out;
  EXPECT_EQ(outcome.err, "einfield: error: " + message + "\n");
}

TEST(Command, AutoUsesTheFirstFreeDevice) {
  for (const auto& [busy, expected] : std::map<std::string, int>{{"1", 0}, {"0", 1}, {"0,1,2", 3}}) {
    Machine machine(4, busy);
    const Outcome outcome = machine.fit({});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("backend: cuda ("), std::string::npos) << outcome.out;
    EXPECT_EQ(machine.contexts(), Indices{expected});
  }
}

TEST(Command, ARequestedDeviceIsTheOnlyOneWithAContext) {
  Machine machine(4, "");
  EXPECT_EQ(machine.fit({"--device", "3"}).status, 0);
  EXPECT_EQ(machine.contexts(), Indices{3});
}

TEST(Command, SaysWhyAutoUsesTheCpu) {
  for (const auto& [devices, reason] : std::map<int, std::string>{{0, "no CUDA-capable device is detected"},
                                                                  {2, "device 0: " + kBusy + "; device 1: " + kBusy}}) {
    Machine machine(devices, "0,1");
    const Outcome outcome = machine.fit({});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_NE(outcome.out.find("\nbackend: auto chose the CPU because no CUDA device can be used (" + reason +
                               ")\nbackend: cpu ("),
              std::string::npos)
        << outcome.out;
    EXPECT_EQ(machine.contexts(), Indices{});
    expect_one_line(machine.fit({"--backend", "cuda"}), "--backend: no CUDA device can be used (" + reason + ")");
  }
}

TEST(Command, BlamesTheOptionThatAskedForTheDevice) {
  Machine machine(2, "1");
  expect_one_line(machine.fit({"--device", "1"}), "--device: CUDA device 1 cannot be used: " + kBusy);
  expect_one_line(machine.fit({"--device", "3"}),
                  "--device: CUDA device 3: no such device, found 2 devices, numbered from 0");
  EXPECT_EQ(machine.contexts(), Indices{});
}

TEST(Command, InfoListsABusyDeviceWithItsReason) {
  for (const std::string busy : {"0", "1"}) {
    Machine machine(2, busy);
    const Outcome outcome = machine.run({"info"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    for (const std::string device : {"0", "1"}) {
      const std::size_t begin = outcome.out.find("\ncuda " + device + ": ");
      ASSERT_NE(begin, std::string::npos) << outcome.out;
      const std::string line = outcome.out.substr(begin + 1, outcome.out.find('\n', begin + 1) - begin - 1);
      EXPECT_NE(line.find(", compute capability "), std::string::npos) << line;
      EXPECT_EQ(line.find(", cannot be used: " + kBusy) != std::string::npos, device == busy) << line;
    }
  }
  const Outcome none = Machine(0, "").run({"info"});
  EXPECT_EQ(none.status, 0) << none.err;
  EXPECT_NE(none.out.find("\ncuda: no CUDA device can be used (no CUDA-capable device is detected)\n"),
            std::string::npos)
      << none.out;
}

}  // namespace
}  // namespace einfield
