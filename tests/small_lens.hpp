// A lens of 14 × 12 pixels, simulated into its own folder, and short fits of it: for the tests of what a fit
// leaves.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "einfield/load.hpp"
#include "einfield/units.hpp"
#include "host/app/run.hpp"
#include "host/app/simulate.hpp"
#include "host/files/fits_io.hpp"
#include "tests/temporary_directory.hpp"

namespace einfield {

/// Options of a run in a test: one thread of the CPU, no figures.
inline RunOptions run_options(const std::string& out) {
  RunOptions options;
  options.out = out;
  options.backend = "cpu";
  options.threads = 1;
  options.figures = false;
  return options;
}

class SmallLens {
 public:
  /// @param settings  of the fit, "optimizer.steps" …, on top of the configuration below
  SmallLens(std::initializer_list<Override> settings = {}) : settings_(settings) {
    folder_.write("lens.toml", R"(title = "small"
recipe = "biggio2021"
[observation]
image = "data.fits[IMAGE]"
noise = "data.fits[NOISE]"
mask = "mask.fits"
psf = { fwhm = 0.5, size = 3 }
pixel_scale = 0.3
center_x = 0.1
center_y = -0.2
supersampling = 2
[[lens]]
profile = "SIE"
theta_E = 1.2
e1 = 0.1
e2 = -0.05
fit = ["theta_E", "e1"]
[[lens]]
profile = "SHEAR"
gamma1 = 0.02
gamma2 = -0.01
[[source]]
profile = "SERSIC_ELLIPSE"
amp = 10.0
R_sersic = 0.8
n_sersic = 1.5
center_x = 0.1
[network]
hidden = [7, 5]
seed = 4
[optimizer]
loss = "chi2"
learning_rate = 3e-3
steps = 30
[truth]
file = "data.fits"
[simulate]
nx = 14
ny = 12
noise = 0.5
seed = 2
[[perturbation]]
profile = "SIE"
theta_E = 0.2
center_x = 0.9
center_y = -0.6
)");
    simulate(read_config(path(), {}, true), folder_ / "data.fits", false);
    FitsOutput mask;
    mask.name = "MASK";
    mask.nx = 14;
    mask.ny = 12;
    mask.bitpix = 8;
    mask.pixel_scale = 0.3;
    mask.values.assign(14 * 12, 1.0);
    mask.values[3] = mask.values[100] = 0;
    write_fits(folder_ / "mask.fits", {mask});
  }

  std::string path() const { return folder_ / "lens.toml"; }
  const TemporaryDirectory& folder() const { return folder_; }
  /// The directory of results; it exists.
  std::string out() const {
    std::filesystem::create_directory(folder_.path() / "out");
    return folder_ / "out";
  }

  Config config(const std::vector<Override>& more = {}) const {
    std::vector<Override> all = settings_;
    for (const Override& setting : more) {
      std::erase_if(all, [&](const Override& earlier) { return earlier.key == setting.key; });
      all.push_back(setting);
    }
    return read_config(path(), all, false);
  }

 private:
  TemporaryDirectory folder_;
  std::vector<Override> settings_;
};

/// A fit on the CPU without files, in its own units as `einfield fit` does it.
template <class Real>
struct SmallFit {
  LoadedProblem loaded;
  Units units;
  std::unique_ptr<Backend<Real>> backend;
  FitResult<Real> result;   ///< in the units of the data
  Snapshot<Real> snapshot;  ///< in `units`: to resume from

  /// @param stop_after  steps after which the run is interrupted; 0 = never
  explicit SmallFit(const Config& config, int stop_after = 0, const Snapshot<Real>* resume = nullptr, int threads = 1)
      : loaded(load_problem(config)),
        units(units_of(loaded.problem)),
        backend(make_backend<Real>("cpu", {threads, 0})) {
    const std::vector<Problem> problems{in_units(loaded.problem, units)};
    backend->load(problems);
    FitSettings settings = fit_settings(config, loaded.problem.model, 4);
    settings.threads = threads;
    FitCallbacks<Real> callbacks;
    int asked = 0;
    if (stop_after > 0) callbacks.interrupted = [&asked, stop_after] { return ++asked == stop_after; };
    const std::vector<Snapshot<Real>> from =
        resume ? std::vector<Snapshot<Real>>{*resume} : std::vector<Snapshot<Real>>{};
    const std::vector<FitResult<Real>> done = fit<Real>(*backend, problems, settings, callbacks, from);
    snapshot = done.front().snapshot;
    result = in_data_units(done, loaded.problem, units).front();
  }
  // As write_results takes them.
  std::vector<FitResult<Real>> results() const { return {result}; }
  std::vector<std::vector<Real>> images() const { return {model_image(*backend, 0, units)}; }
};

}  // namespace einfield
