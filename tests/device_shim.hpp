// Imitates several CUDA devices, some of them busy, in front of the CUDA runtime, and records which of them get a
// context. All work runs on the real (or virtual) device 0.
//
// The shim is linked into a test, or preloaded into the command (LD_PRELOAD), which it tells by the environment:
//     EINFIELD_DEVICES=N       number of devices
//     EINFIELD_BUSY=I,J,…      those that refuse a context, as a card in exclusive mode that another process uses
//     EINFIELD_CONTEXTS=FILE   gets a line with the index of each device when its context is created
#pragma once

#include <set>
#include <vector>

namespace einfield {

/// For a test that links the shim: a machine with `count` devices, none with a context.
void imitate_devices(int count, const std::set<int>& busy);
/// The devices with a context, in the order of their creation.
std::vector<int> devices_with_context();

}  // namespace einfield
