// Files move by rename, one after the other; result.json marks a complete set.
#include "host/results/result_files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <vector>

#include "einfield/error.hpp"
#include "host/files/text.hpp"

namespace einfield {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStaging = ".results";
/// Files of a result that have one fixed name. The last one marks completeness.
constexpr const char* kFiles[] = {"result.fits",
                                  "history.csv",
                                  "network.safetensors",
                                  "source_network.safetensors",
                                  "lens_light_network.safetensors",
                                  kMembersFile,
                                  "coolest.json",
                                  "result.json"};
constexpr const char* kNetworks[] = {kPotentialNetwork, kSourceNetwork, kLensLightNetwork};
/// Files that later commands make from the results: out of date when the results change.
constexpr const char* kDerived[] = {"report.html", "lenstronomy.json", "lenstronomy.fits", "evaluate.fits",
                                    "detect.json", "detect.fits",      "mocks.json"};

void sync_directory(const std::string& dir) {
  const int descriptor = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // the names are right, only their durability is unknown
  fsync(descriptor);
  close(descriptor);
}

void remove_file(const fs::path& file) {
  std::error_code error;
  fs::remove(file, error);
  if (error) throw IoError(file.string() + ": cannot remove the earlier file (" + error.message() + ")");
}

/// The network of a further member of an ensemble: "network.3.safetensors".
bool is_further_network(const fs::path& file) {
  const std::string name = file.filename().string();
  return file.extension() == ".safetensors" &&
         std::any_of(std::begin(kNetworks), std::end(kNetworks), [&name](const std::string& network) {
           return name.rfind(network + ".", 0) == 0 && name != network_file(0, network);
         });
}

}  // namespace

std::string network_file(std::size_t member, const std::string& network) {
  return network + "." + (member == 0 ? "" : std::to_string(member) + ".") + "safetensors";
}

bool holds_results(const std::string& dir) {
  std::error_code error;
  for (const char* name : kFiles)
    if (fs::exists(in(dir, name), error)) return true;
  return fs::exists(in(dir, "checkpoint.safetensors"), error);
}

Staging::Staging(const std::string& dir) : path_(in(dir, kStaging)) {
  std::error_code error;
  fs::remove_all(path_, error);  // left by a run that was killed
  if (!fs::create_directory(path_, error) || error)
    throw IoError(path_ + ": cannot create the directory (" + error.message() + ")");
}

Staging::~Staging() {
  std::error_code error;
  fs::remove_all(path_, error);
}

std::string Staging::file(const std::string& name) const {
  return in(path_, name);
}

void put_in_place(const Staging& staging, const std::string& dir,
                  const std::function<bool(const std::string& name)>& is_extra) {
  remove_file(in(dir, "result.json"));
  sync_directory(dir);
  for (const char* name : kDerived) remove_file(in(dir, name));
  std::error_code error;
  std::vector<fs::path> figures;
  for (const auto& entry : fs::directory_iterator(in(dir, "figures"), error))
    if (entry.path().extension() == ".png") figures.push_back(entry.path());
  for (const fs::path& figure : figures) remove_file(figure);

  // Files in varying number: those that the new results do not replace go.
  const auto is_one_of_many = [&is_extra](const fs::path& file) {
    return is_further_network(file) || is_extra(file.filename().string());
  };
  std::vector<fs::path> earlier, files;
  for (const auto& entry : fs::directory_iterator(dir, error))
    if (is_one_of_many(entry.path()) && !fs::exists(staging.file(entry.path().filename().string())))
      earlier.push_back(entry.path());
  for (const fs::path& file : earlier) remove_file(file);
  for (const auto& entry : fs::directory_iterator(staging.path(), error))
    if (is_one_of_many(entry.path())) files.push_back(entry.path());
  for (const fs::path& file : files) {
    fs::rename(file, fs::path(dir) / file.filename(), error);
    if (error) throw IoError(file.filename().string() + ": cannot be put in place (" + error.message() + ")");
  }

  for (const char* name : kFiles) {
    if (!fs::exists(staging.file(name))) {
      remove_file(in(dir, name));
      continue;
    }
    fs::rename(staging.file(name), in(dir, name), error);
    if (error) throw IoError(in(dir, name) + ": cannot be put in place (" + error.message() + ")");
  }
  sync_directory(dir);
}

}  // namespace einfield
