// The CUDA devices of this machine, behind a header that needs no CUDA.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace einfield {

/// One line per device: name, compute capability, memory. Creates no context, so a busy device is listed as well. Empty
/// without a device or driver.
std::vector<std::string> list_cuda_devices();

/// Why a device cannot be used, or an empty string if it can. Creates a context on this device.
std::string problem_of_cuda_device(int device);

/// @param device  an index, which is then used or is an error; without one, the devices are tried in order
/// @return        the index of the requested device, or of the first usable one. It has a context; no other device got
/// one
/// @throws BackendUnavailable with the reason of each device that was tried
int find_cuda_device(std::optional<int> device);

}  // namespace einfield
