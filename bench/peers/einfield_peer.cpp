// einfield's side of the comparison: writes the problem for the other codes, and serves steps one request at a time.
// The protocol is that of peer.py.
#include <sys/resource.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/problem.hpp"
#include "einfield/core.hpp"
#include "einfield/error.hpp"

namespace einfield::bench {
namespace {

using nlohmann::json;

void write_values(const std::string& path, const std::vector<double>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(double)));
  file.close();
  if (!file) throw IoError(path + ": cannot be written");
}

json named(const ProfileInfo& info, const std::vector<double>& values) {
  json result;
  for (std::size_t i = 0; i < values.size(); ++i) result[info.parameters[i].name] = values[i];
  return result;
}

/// problem.json, and image, psf and network as float64 in native byte order.
void export_problem(const std::string& directory, int n, int width) {
  const std::vector<int> hidden(3, width);
  const Problem problem = paper_problem(n, hidden);
  const Observation& observation = problem.observation;
  const json description = {{"n", n},
                            {"pixel_scale", observation.grid.pixel_scale},
                            {"psf_size", observation.psf.nx},
                            {"hidden", hidden},
                            {"learning_rate", Schedule{}.learning_rates[0]},
                            {"lens", named(lens_info(LensKind::sie), problem.model.lens[0].values)},
                            {"source", named(light_info(LightKind::sersic_ellipse), problem.model.source[0].values)}};
  std::ofstream(directory + "/problem.json") << description.dump(2) << "\n";
  write_values(directory + "/image.f64", observation.image);
  write_values(directory + "/psf.f64", observation.psf.values);
  write_values(directory + "/parameters.f64", problem.initial_parameters);
}

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

double milliseconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

/// @param network  true: training steps; false: only the forward model of lens, source and PSF
template <class Real>
void serve(const std::string& directory, int threads, bool network) {
  std::ifstream file(directory + "/problem.json");
  const json description = json::parse(file);
  const Problem problem = paper_problem(
      description.at("n").get<int>(), network ? description.at("hidden").get<std::vector<int>>() : std::vector<int>{});
  const double start = milliseconds(CLOCK_MONOTONIC);
  const auto backend = make_backend<Real>("cpu", {threads, 0});
  backend->load({problem});
  const double ready_ms = milliseconds(CLOCK_MONOTONIC) - start;
  backend->evaluate(network);
  const std::vector<Real> result = backend->download(network ? Field::gradient : Field::model, 0);
  write_values(directory + "/einfield.f64", std::vector<double>(result.begin(), result.end()));
  const std::string version = std::to_string(EINFIELD_VERSION_MAJOR) + "." + std::to_string(EINFIELD_VERSION_MINOR);
  std::cout << json{{"version", version}, {"loss", backend->state(0).loss}, {"ready_ms", ready_ms}} << std::endl;

  for (std::string command; std::cin >> command && command == "time";) {
    int count = 0;
    std::cin >> count;
    json answer = {{"wall", json::array()}, {"cpu", json::array()}};
    for (int i = 0; i < count; ++i) {
      const double wall = milliseconds(CLOCK_MONOTONIC), cpu = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
      if (network) {
        backend->step();
      } else {
        backend->network();
        backend->render();
        backend->convolve();
      }
      answer["wall"].push_back(milliseconds(CLOCK_MONOTONIC) - wall);
      answer["cpu"].push_back(milliseconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
    answer["peak_mb"] = peak_megabytes();
    std::cout << answer << std::endl;
  }
}

int run(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto is = [&](const char* command, std::size_t count) {
    return arguments.size() == count && arguments[0] == command;
  };
  if (is("export", 4)) {
    export_problem(arguments[1], std::atoi(arguments[2].c_str()), std::atoi(arguments[3].c_str()));
    return 0;
  }
  if ((is("step", 4) || is("forward", 4)) && (arguments[2] == "float32" || arguments[2] == "float64")) {
    const int threads = std::atoi(arguments[3].c_str());
    if (arguments[2] == "float32")
      serve<float>(arguments[1], threads, arguments[0] == "step");
    else
      serve<double>(arguments[1], threads, arguments[0] == "step");
    return 0;
  }
  std::fputs(
      "usage: einfield_peer export DIR N WIDTH\n"
      "       einfield_peer step|forward DIR float32|float64 THREADS\n",
      stderr);
  return 2;
}

}  // namespace
}  // namespace einfield::bench

int main(int argc, char** argv) {
  try {
    return einfield::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "einfield_peer: error: %s\n", error.what());
    return 1;
  }
}
