// The files of a directory of results: their names, and how new ones replace earlier ones.
#pragma once

#include <functional>
#include <string>

namespace einfield {

/// True when `dir` holds anything that a run has written: results, or the checkpoint of an interrupted run.
bool holds_results(const std::string& dir);

/// What network_file() is called with: the network of the potential, and the one of a NETWORK component.
inline constexpr const char *kPotentialNetwork = "network", *kSourceNetwork = "source_network",
                            *kLensLightNetwork = "lens_light_network";

/// The members of randomized error bars: weights, profile parameters and pixels.
inline constexpr const char* kMembersFile = "members.safetensors";

/// The file of a network: "network.safetensors", and "network.1.safetensors" … for further members of an ensemble.
/// @param network  one of the three names above
std::string network_file(std::size_t member, const std::string& network = kPotentialNetwork);

/// Writes further files beside the results, in formats that this folder does not know.
struct ExtraWriter {
  std::function<void(const std::string& dir)> write;
  /// Whether a file of this name is one of those that it writes in varying number: earlier ones are removed.
  std::function<bool(const std::string& name)> owns;
};

/// A hidden folder in a directory of results, for new results until they are complete. It is removed with the object.
class Staging {
 public:
  /// @throws IoError
  explicit Staging(const std::string& dir);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  /// The path of a file in it.
  std::string file(const std::string& name) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Replaces the results of `dir` by those in `staging`, and removes everything that was made from the earlier ones.
/// result.json is removed first and written last: a directory without it has no results, also when the process is
/// killed in between.
/// @param is_extra  ExtraWriter::owns of all extra writers
/// @throws IoError
void put_in_place(const Staging& staging, const std::string& dir,
                  const std::function<bool(const std::string& name)>& is_extra);

}  // namespace einfield
