// The module einfield._core: what python/einfield/*.py calls. Arrays arrive as contiguous float64 on the CPU; every
// call that computes releases the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/error.hpp"
#include "einfield/results.hpp"
#include "host/app/simulate.hpp"
#include "host/exchange/coolest.hpp"
#include "host/exchange/fitted_lens.hpp"
#include "host/exchange/lens_toml.hpp"
#include "host/exchange/lenstronomy.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/files/version.hpp"
#include "host/results/write_results.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"
#include "python/src/interrupts.hpp"
#include "python/src/lens_model.hpp"
#include "python/src/memory_fit.hpp"
#include "python/src/survey.hpp"
#include "python/src/xla.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace einfield::python {
namespace {

using Overrides = std::vector<std::pair<std::string, std::string>>;

std::vector<double> values_of(const Input& array) {
  return {array.data(), array.data() + array.size()};
}

/// Arrays of two dimensions, copied. Names are those of files that stand for them.
Arrays images_of(const std::map<std::string, Input>& arrays) {
  Arrays images;
  for (const auto& [name, array] : arrays) {
    EINFIELD_REQUIRE(array.ndim() == 2,
                     name + ": found " + std::to_string(array.ndim()) + " dimensions, expected 2, (ny, nx)");
    ImageArray image;
    image.ny = static_cast<int>(array.shape(0));
    image.nx = static_cast<int>(array.shape(1));
    image.values = values_of(array);
    images[name] = std::make_shared<const ImageArray>(std::move(image));
  }
  return images;
}

std::optional<Truth> truth_of(const std::map<std::string, Input>& maps) {
  if (maps.empty()) return std::nullopt;
  const auto get = [&maps](const char* name) {
    const auto found = maps.find(name);
    return found == maps.end() ? std::vector<double>{} : values_of(found->second);
  };
  return Truth{get("image"), get("psi"), get("alpha"), get("kappa")};
}

std::vector<Override> overrides_of(const Overrides& settings) {
  std::vector<Override> overrides;
  for (const auto& [key, value] : settings) overrides.push_back({key, value});
  return overrides;
}

/// The points in theta, (n, size).
std::size_t points(LensModel& model, const Input& theta) {
  const std::size_t size = model.posterior().size();
  EINFIELD_REQUIRE(theta.ndim() == 2 && theta.shape(1) == size,
                   "theta: expected shape (n, " + std::to_string(size) + ")");
  return theta.shape(0);
}

Space space_of(bool constrained) {
  return constrained ? Space::constrained : Space::unconstrained;
}

nb::tuple evaluate(LensModel& model, const Input& theta, bool constrained, bool gradient, bool priors, bool volume) {
  const std::size_t n = points(model, theta), size = model.posterior().size();
  std::vector<double> value(n), gradients(gradient ? n * size : 0);
  const auto workers = model.posterior().workers();
  {
    const nb::gil_scoped_release release;
    model.posterior().evaluate(*workers, theta.data(), n, {space_of(constrained), priors, volume}, value.data(),
                               gradient ? gradients.data() : nullptr);
  }
  nb::object of_gradient = nb::none();
  if (gradient) of_gradient = nb::cast(to_numpy(std::move(gradients), {n, size}));
  return nb::make_tuple(to_numpy(std::move(value), {n}), of_gradient);
}

Output images(LensModel& model, const Input& theta, bool constrained) {
  const Grid& grid = model.observation().grid;
  const std::size_t n = points(model, theta);
  const auto ny = static_cast<std::size_t>(grid.ny), nx = static_cast<std::size_t>(grid.nx);
  std::vector<double> values(n * ny * nx);
  const auto workers = model.posterior().workers();
  {
    const nb::gil_scoped_release release;
    model.posterior().images(*workers, theta.data(), n, space_of(constrained), values.data());
  }
  return to_numpy(std::move(values), {n, ny, nx});
}

/// Of every point (parameters, ny, nx).
Output jacobians(LensModel& model, const Input& theta, bool constrained) {
  const Grid& grid = model.observation().grid;
  const std::size_t n = points(model, theta), size = model.posterior().size();
  std::vector<double> values;
  {
    const nb::gil_scoped_release release;
    for (std::size_t i = 0; i < n; ++i) {
      const std::vector<double> flat = model.posterior().flat(theta.data() + i * size, space_of(constrained));
      std::vector<double> of_point = model.jacobian_at(flat, space_of(constrained));
      if (n == 1)
        values = std::move(of_point);
      else
        values.insert(values.end(), of_point.begin(), of_point.end());
    }
  }
  return to_numpy(std::move(values), {n, size, static_cast<std::size_t>(grid.ny), static_cast<std::size_t>(grid.nx)});
}

/// Points from one space to the other.
Output transformed(LensModel& model, const Input& theta, bool to_constrained) {
  const std::size_t n = points(model, theta), size = model.posterior().size();
  std::vector<double> result;
  result.reserve(n * size);
  for (std::size_t i = 0; i < n; ++i) {
    const double* const point = theta.data() + i * size;
    const std::vector<double> other =
        to_constrained ? model.posterior().constrained(point) : model.posterior().flat(point, Space::constrained);
    result.insert(result.end(), other.begin(), other.end());
  }
  return to_numpy(std::move(result), {n, size});
}

nb::dict fields_to_python(LensFields smooth, LensFields network) {
  nb::dict result;
  const auto put = [&result](const char* name, LensFields& fields) {
    const std::size_t n = fields.potential.size();
    result[name] =
        nb::make_tuple(to_numpy(std::move(fields.potential), {n}), to_numpy(std::move(fields.deflection), {2, n}),
                       to_numpy(std::move(fields.convergence), {n}));
  };
  put("smooth", smooth);
  put("network", network);
  return result;
}

nb::dict fields(LensModel& model, const Input& theta, const Input& positions) {
  points(model, theta);
  StoredFields found;
  {
    const nb::gil_scoped_release release;
    const std::vector<double> flat = model.posterior().flat(theta.data(), Space::constrained);
    found = einfield::evaluate(model.lens_at(flat), values_of(positions), model.threads());
  }
  return fields_to_python(std::move(found.smooth), std::move(found.network));
}

nb::dict shears(LensModel& model, const Input& theta, const Input& positions) {
  points(model, theta);
  LensModel::Shears found;
  {
    const nb::gil_scoped_release release;
    found = model.shears_at(model.posterior().flat(theta.data(), Space::constrained), values_of(positions));
  }
  const std::size_t n = found.smooth.size() / 2;
  nb::dict result;
  result["smooth"] = to_numpy(std::move(found.smooth), {2, n});
  result["network"] = to_numpy(std::move(found.network), {2, n});
  return result;
}

Output line_to_numpy(const Polyline& line) {
  std::vector<double> values;
  for (const Vec2<double>& point : line) {
    values.push_back(point.x);
    values.push_back(point.y);
  }
  return to_numpy(std::move(values), {line.size(), 2});
}

nb::tuple critical_curves(LensModel& model, const Input& theta) {
  points(model, theta);
  CriticalCurves found;
  {
    const nb::gil_scoped_release release;
    found = model.critical_curves_at(model.posterior().flat(theta.data(), Space::constrained));
  }
  nb::list curves, cuts;
  for (const CriticalCurve& curve : found.curves)
    curves.append(nb::make_tuple(line_to_numpy(curve.image), line_to_numpy(curve.source)));
  for (const Polyline& cut : found.cuts) cuts.append(line_to_numpy(cut));
  return nb::make_tuple(curves, cuts, effective_radius(found));
}

template <class Component>
nb::list components_to_python(const std::vector<Component>& components,
                              const ProfileInfo& (*info)(decltype(Component::kind))) {
  nb::list result;
  for (const Component& c : components) {
    const ProfileInfo& profile = info(c.kind);
    nb::dict values;
    values["profile"] = profile.name;
    for (std::size_t i = 0; i < profile.parameters.size(); ++i) values[profile.parameters[i].name] = c.values[i];
    result.append(values);
  }
  return result;
}

nb::dict components(LensModel& model, const Input& theta) {
  points(model, theta);
  const Model at = model.model_at(model.posterior().flat(theta.data(), Space::constrained));
  nb::dict result;
  result["lens"] = components_to_python(at.lens, lens_info);
  result["source"] = components_to_python(at.source, light_info);
  result["lens_light"] = components_to_python(at.lens_light, light_info);
  return result;
}

Output bounds(LensModel& model) {
  std::vector<double> ends;
  const ParameterLayout& layout = model.posterior().layout();
  for (const FreeParameter<double>& f : layout.free) {
    const bool disk = f.kind == TransformKind::disk;
    ends.push_back(disk ? -f.upper : f.kind == TransformKind::identity ? -kInfinity : f.lower);
    ends.push_back(disk || f.kind == TransformKind::logistic ? f.upper : kInfinity);
  }
  return to_numpy(std::move(ends), {layout.n_free(), 2});
}

/// Mean and sigma of each Gaussian prior (NaN: none), the index of the other component of a free ellipticity (-1), and
/// what is added to the mean: the index of another scalar (-1) and its factor.
Output priors(LensModel& model) {
  const ParameterLayout& layout = model.posterior().layout();
  std::vector<double> table;
  for (const FreeParameter<double>& f : layout.free) {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    table.insert(table.end(), {kNone, kNone, static_cast<double>(f.partner), -1.0, 0.0});
  }
  for (const GaussianPrior<double>& prior : layout.priors) {
    double* const row = table.data() + 5 * static_cast<std::size_t>(prior.free);
    row[0] = prior.mean;
    row[1] = prior.sigma;
    row[3] = prior.other;
    row[4] = prior.factor;
  }
  return to_numpy(std::move(table), {layout.n_free(), 5});
}

nb::dict observation(LensModel& model) {
  const Observation& o = model.observation();
  const auto ny = static_cast<std::size_t>(o.grid.ny), nx = static_cast<std::size_t>(o.grid.nx);
  nb::dict result;
  result["image"] = to_numpy(o.image, {ny, nx});
  result["noise"] = to_numpy(o.noise, {ny, nx});
  result["mask"] = to_numpy(std::vector<double>(o.mask.begin(), o.mask.end()), {ny, nx});
  if (!o.psf.empty())
    result["psf"] = to_numpy(o.psf.values, {static_cast<std::size_t>(o.psf.ny), static_cast<std::size_t>(o.psf.nx)});
  result["pixel_scale"] = o.grid.pixel_scale;
  result["center_x"] = o.grid.center_x;
  result["center_y"] = o.grid.center_y;
  result["supersampling"] = o.grid.supersampling;
  result["psf_supersampling"] = o.psf.supersampling;
  return result;
}

// ---- fits --------------------------------------------------------------------------------------------------

std::unique_ptr<MemoryFit> fit(LensModel& model, const std::string& backend, std::optional<int> device, int threads,
                               bool double_precision, int log_every, const std::string& checkpoint,
                               const nb::object& progress, const nb::object& note) {
  Interrupts interrupts;
  FitOptions options{backend, device, threads, double_precision, log_every, checkpoint, {}, {}, {}};
  options.interrupted = [&] { return interrupts.poll(); };
  if (!progress.is_none())
    options.progress = [&](const HistoryRow& row) {
      interrupts.run([&] { progress(row.step, row.loss, row.chi2_reduced); });
    };
  options.note = [&](const std::string& text) {
    if (!note.is_none()) interrupts.run([&] { note(text); });
  };
  std::unique_ptr<MemoryFit> result;
  {
    const nb::gil_scoped_release release;
    result = std::make_unique<MemoryFit>(model.config(), model.loaded(), options);
  }
  interrupts.finish();
  interrupts.rethrow();
  return result;
}

/// Values, unit, side of a pixel, x and y of the middle.
nb::tuple map_to_python(int planes, int ny, int nx, std::vector<double> values, const std::string& unit,
                        double pixel_scale, double center_x, double center_y) {
  std::vector<std::size_t> shape{static_cast<std::size_t>(ny), static_cast<std::size_t>(nx)};
  if (planes > 1) shape.insert(shape.begin(), static_cast<std::size_t>(planes));
  return nb::make_tuple(to_numpy(std::move(values), shape), unit, pixel_scale, center_x, center_y);
}

nb::dict maps_of(const MemoryFit& fit) {
  const FitsMaps maps = result_maps(fit.assessment());
  nb::dict result;
  for (const FitsOutput& hdu : maps.hdus())
    result[hdu.name.c_str()] =
        map_to_python(hdu.planes, hdu.ny, hdu.nx, hdu.values, hdu.unit, hdu.pixel_scale, hdu.center_x, hdu.center_y);
  return result;
}

nb::dict history_of(const MemoryFit& fit) {
  const std::vector<HistoryRow>& rows = fit.assessment().history;
  nb::dict result;
  const auto put = [&](const char* name, const auto& value) {
    std::vector<double> column;
    for (const HistoryRow& row : rows) column.push_back(value(row));
    result[name] = to_numpy(std::move(column), {rows.size()});
  };
  put("step", [](const HistoryRow& r) { return static_cast<double>(r.step); });
  put("time_s", [](const HistoryRow& r) { return r.time_s; });
  put("loss", [](const HistoryRow& r) { return r.loss; });
  put("chi2_reduced", [](const HistoryRow& r) { return r.chi2_reduced; });
  put("regularization", [](const HistoryRow& r) { return r.regularization; });
  put("learning_rate", [](const HistoryRow& r) { return r.learning_rate; });
  put("gradient_norm", [](const HistoryRow& r) { return r.gradient_norm; });
  const std::vector<std::string>& names = fit.assessment().layout.names;
  for (std::size_t k = 0; k < names.size(); ++k) put(names[k].c_str(), [k](const HistoryRow& r) { return r.free[k]; });
  return result;
}

nb::dict fit_fields(const MemoryFit& fit, const Input& positions, int threads) {
  StoredFields found;
  {
    const nb::gil_scoped_release release;
    found = einfield::evaluate(stored_lens(fit.assessment()), values_of(positions), threads);
  }
  return fields_to_python(std::move(found.smooth), std::move(found.network));
}

/// A directory of results.
struct StoredFit {
  std::string dir;
  Results results;
};

std::unique_ptr<StoredFit> open_result(const std::string& dir) {
  const nb::gil_scoped_release release;
  return std::make_unique<StoredFit>(StoredFit{dir, read_results(dir)});
}

nb::object stored_map(const StoredFit& fit, const std::string& name) {
  ResultMap map;
  {
    const nb::gil_scoped_release release;
    if (has_result_map(fit.dir, name)) map = read_result_map(fit.dir, name);
  }
  if (map.nx == 0) return nb::none();
  return map_to_python(map.planes, map.ny, map.nx, std::move(map.values), map.unit, map.pixel_scale, map.center_x,
                       map.center_y);
}

nb::dict stored_history(const StoredFit& fit) {
  nb::dict result;
  for (const auto& [name, column] : fit.results.history) result[name.c_str()] = to_numpy(column, {column.size()});
  return result;
}

nb::dict stored_fields(const StoredFit& fit, const Input& positions, int threads) {
  ResultLensFields found;
  {
    const nb::gil_scoped_release release;
    found = einfield::evaluate(fit.results, values_of(positions), threads);
  }
  const auto fields = [](ResultFields& f) {
    return LensFields{std::move(f.potential), std::move(f.deflection), std::move(f.convergence)};
  };
  return fields_to_python(fields(found.smooth), fields(found.network));
}

/// The files of another package for a fitted lens. @return notes
std::vector<std::string> write_exchanged(const ExchangedLens& lens, const std::string& format, const std::string& dir,
                                         bool overwrite) {
  const std::string file = in(dir, format + ".json");
  if (!overwrite && std::filesystem::exists(file))
    throw InvalidInput(file + " exists, expected a new directory or overwrite=True");
  prepare_directory(dir, {}, true);
  return format == "coolest" ? write_coolest(dir, lens) : write_lenstronomy(dir, lens);
}

std::vector<std::string> exchange_fitted(const MemoryFit& fit, const std::string& format, const std::string& dir,
                                         bool overwrite) {
  const nb::gil_scoped_release release;
  const ExchangedLens lens = fitted_lens(fit.assessment(), fit.threads());
  std::vector<std::string> notes = write_exchanged(lens, format, dir, overwrite);
  write_networks(dir, lens);
  return notes;
}

std::vector<std::string> exchange_stored(const StoredFit& fit, const std::string& format, const std::string& dir,
                                         bool overwrite) {
  const nb::gil_scoped_release release;
  const ExchangedLens lens = read_exchanged(fit.dir);
  std::vector<std::string> notes = write_exchanged(lens, format, dir, overwrite);
  if (!std::filesystem::equivalent(dir, fit.dir)) write_networks(dir, lens);
  return notes;
}

Output read_image(const std::string& path, const std::string& hdu) {
  FitsImage image;
  {
    const nb::gil_scoped_release release;
    image = read_fits(path, hdu);
  }
  return to_numpy(std::move(image.values), {static_cast<std::size_t>(image.ny), static_cast<std::size_t>(image.nx)});
}

// ---- simulation ----------------------------------------------------------------------------------------------

nb::dict simulation_to_python(Simulation made) {
  const auto ny = static_cast<std::size_t>(made.grid.ny), nx = static_cast<std::size_t>(made.grid.nx);
  nb::dict result;
  result["image"] = to_numpy(std::move(made.image), {ny, nx});
  result["noise"] = to_numpy(std::move(made.noise), {ny, nx});
  if (!made.psf.empty())
    result["psf"] = to_numpy(std::move(made.psf.values),
                             {static_cast<std::size_t>(made.psf.ny), static_cast<std::size_t>(made.psf.nx)});
  result["pixel_scale"] = made.grid.pixel_scale;
  result["image_true"] = to_numpy(std::move(made.truth.image), {ny, nx});
  result["psi_true"] = to_numpy(std::move(made.truth.potential), {ny, nx});
  result["alpha_true"] = to_numpy(std::move(made.truth.deflection), {2, ny, nx});
  result["kappa_true"] = to_numpy(std::move(made.truth.convergence), {ny, nx});
  for (std::string& warning : made.warnings) warning = without_places(std::move(warning));
  result["warnings"] = made.warnings;
  return result;
}

nb::dict simulate_arguments(const std::string& toml, const std::map<std::string, Input>& arrays) {
  const Arrays given = images_of(arrays);
  Simulation made;
  {
    const nb::gil_scoped_release release;
    Config config = read_config_text(toml, kArguments, true);
    use_arrays(config, given);
    made = simulated(config);
  }
  return simulation_to_python(std::move(made));
}

nb::dict simulate_file(const std::string& path, const Overrides& settings) {
  Simulation made;
  {
    const nb::gil_scoped_release release;
    made = simulated(read_config(path, overrides_of(settings), true));
  }
  return simulation_to_python(std::move(made));
}

// ---- tables --------------------------------------------------------------------------------------------------

/// Profiles by name: (parameter, unit, whether it can be free) each.
template <class Kind>
nb::dict profile_table(int kinds, const ProfileInfo& (*info)(Kind)) {
  nb::dict table;
  for (int i = 0; i < kinds; ++i) {
    const ProfileInfo& profile = info(static_cast<Kind>(i));
    nb::list parameters;
    for (const ParameterInfo& p : profile.parameters)
      parameters.append(nb::make_tuple(p.name, p.unit, !einfield::always_fixed(p.range)));
    table[profile.name] = parameters;
  }
  return table;
}

std::vector<std::string> warnings_of(LensModel& model) {
  std::vector<std::string> all = model.config().warnings;
  all.insert(all.end(), model.loaded().warnings.begin(), model.loaded().warnings.end());
  for (std::string& warning : all) warning = without_places(std::move(warning));
  return all;
}

std::unique_ptr<LensModel> from_arguments(const std::string& toml, const std::map<std::string, Input>& arrays,
                                          const std::map<std::string, Input>& truth, int threads) {
  const Arrays given = images_of(arrays);
  std::optional<Truth> known = truth_of(truth);
  const nb::gil_scoped_release release;
  Config config = read_config_text(toml, kArguments, false);
  use_arrays(config, given);
  return std::make_unique<LensModel>(std::move(config), std::move(known), threads);
}

std::unique_ptr<LensModel> from_file(const std::string& path, const Overrides& settings, int threads) {
  const nb::gil_scoped_release release;
  return std::make_unique<LensModel>(read_config(path, overrides_of(settings), false), std::nullopt, threads);
}

std::unique_ptr<LensModel> from_exchange(const std::string& format, const std::string& file,
                                         const std::vector<std::string>& ignore, const std::string& dir, int threads) {
  const nb::gil_scoped_release release;
  return std::make_unique<LensModel>(exchanged_config(format, file, ignore, dir), std::nullopt, threads);
}

int steps_of(LensModel& model) {
  int steps = 0;
  for (const StageConfig& stage : model.config().optimizer.all_stages()) steps += stage.steps;
  return steps;
}

void bind_model(nb::module_& m) {
  nb::class_<LensModel>(m, "LensModel")
      .def_static("from_arguments", &from_arguments, "toml"_a, "arrays"_a, "truth"_a, "threads"_a)
      .def_static("from_file", &from_file, "path"_a, "settings"_a, "threads"_a)
      .def_static("from_exchange", &from_exchange, "format"_a, "file"_a, "ignore"_a, "dir"_a, "threads"_a)
      .def("size", [](LensModel& model) { return model.posterior().size(); })
      .def(
          "offset", [](LensModel& model) { return model.posterior().layout().n_network; },
          "Where the free scalars begin in theta.")
      .def("names", [](LensModel& model) { return model.posterior().layout().names; })
      .def("blocks",
           [](LensModel& model) {
             std::vector<std::tuple<std::string, std::size_t, std::vector<std::size_t>>> blocks;
             for (const LensModel::Block& b : model.blocks()) blocks.emplace_back(b.name, b.offset, b.shape);
             return blocks;
           })
      .def("bounds", &bounds)
      .def("priors", &priors)
      .def("initial",
           [](LensModel& model) {
             std::vector<double> theta = model.initial();
             const std::size_t n = theta.size();
             return to_numpy(std::move(theta), {n});
           })
      .def("evaluate", &evaluate, "theta"_a, "constrained"_a, "gradient"_a, "priors"_a, "volume"_a)
      .def("images", &images, "theta"_a, "constrained"_a)
      .def("jacobians", &jacobians, "theta"_a, "constrained"_a)
      .def("transformed", &transformed, "theta"_a, "to_constrained"_a)
      .def("fields", &fields, "theta"_a, "positions"_a)
      .def("shears", &shears, "theta"_a, "positions"_a)
      .def("critical_curves", &critical_curves, "theta"_a)
      .def("components", &components, "theta"_a)
      .def("observation", &observation)
      .def("warnings", &warnings_of)
      .def("toml", [](LensModel& model) { return to_toml(model.config()); })
      .def("steps", &steps_of)
      .def("fit", &fit, "backend"_a, "device"_a.none(), "threads"_a, "double_precision"_a, "log_every"_a,
           "checkpoint"_a, "progress"_a.none(), "note"_a.none());
}

void bind_results(nb::module_& m) {
  nb::class_<MemoryFit>(m, "MemoryFit")
      .def("json", [](const MemoryFit& fit) { return without_places(fit.json()); })
      .def("maps", &maps_of)
      .def("history", &history_of)
      .def("fields", &fit_fields, "positions"_a, "threads"_a)
      .def(
          "save",
          [](const MemoryFit& fit, const std::string& dir, bool figures, bool overwrite) {
            const nb::gil_scoped_release release;
            return fit.save(dir, figures, overwrite);
          },
          "dir"_a, "figures"_a, "overwrite"_a)
      .def("exchange", &exchange_fitted, "format"_a, "dir"_a, "overwrite"_a);
  nb::class_<StoredFit>(m, "StoredFit")
      .def("map", &stored_map, "name"_a)
      .def("history", &stored_history)
      .def("fields", &stored_fields, "positions"_a, "threads"_a)
      .def("exchange", &exchange_stored, "format"_a, "dir"_a, "overwrite"_a);
  m.def("read_image", &read_image, "path"_a, "hdu"_a);
  m.def("open_result", &open_result, "dir"_a);
}

}  // namespace
}  // namespace einfield::python

NB_MODULE(_core, m) {
  using namespace einfield::python;
  nanobind::set_leak_warnings(false);  // JAX keeps functions, and the models in them, to the end of the process
  m.doc() = "The compiled part of einfield. Its interface is not public: use the package einfield.";
  bind_errors(m);
  bind_model(m);
  bind_results(m);
  bind_survey(m);
  bind_xla(m);
  m.def("simulate_arguments", &simulate_arguments, "toml"_a, "arrays"_a);
  m.def("simulate_file", &simulate_file, "path"_a, "settings"_a);
  m.def("lens_profiles", [] { return profile_table(einfield::kLensKinds, einfield::lens_info); });
  m.def("light_profiles", [] { return profile_table(einfield::kLightKinds, einfield::light_info); });
  m.def("version", &einfield::version);
}
