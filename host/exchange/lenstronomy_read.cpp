// Reads lenstronomy's lists of models and of their keywords; arrays may be lists or maps in a FITS file.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "einfield/error.hpp"
#include "host/exchange/lenstronomy.hpp"
#include "host/exchange/priors_json.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/model/parameter_slots.hpp"
#include "host/model/profile_names.hpp"

namespace einfield {
namespace {

/// A two-dimensional array, (ny, nx).
struct Array {
  int nx = 0, ny = 0;
  std::vector<double> values;
};

/// What is understood of a dictionary.
struct KnownKeys {
  std::vector<std::string> names;                              ///< read, or without effect on the model image
  std::vector<std::pair<std::string, nlohmann::json>> only{};  ///< understood with this value alone
};

const std::vector<std::string> kModelLists = {"lens_model_list", "source_light_model_list", "lens_light_model_list"};
const std::vector<std::string> kParameterLists = {"kwargs_lens", "kwargs_source", "kwargs_lens_light"};
const KnownKeys kDataKeys = {{"image_data", "noise_map", "background_rms", "exposure_time", "ra_at_xy_0", "dec_at_xy_0",
                              "transform_pix2angle", "nx", "ny"},
                             {{"likelihood_method", "diagonal"}, {"ra_shift", 0}, {"dec_shift", 0}, {"phi_rot", 0}}};
const KnownKeys kPsfKeys = {
    {"psf_type", "fwhm", "pixel_size", "kernel_point_source", "point_source_supersampling_factor"},
    {{"kernel_point_source_normalisation", true}, {"truncation", 5}}};
const KnownKeys kNumericsKeys = {
    {"supersampling_factor", "supersampling_convolution", "convolution_type", "point_source_supersampling_factor"},
    {{"compute_mode", "regular"}}};
const KnownKeys kLikelihoodKeys = {
    {"image_likelihood_mask_list", "prior_lens", "prior_source", "prior_lens_light", "check_bounds", "linear_solver"},
    {{"image_likelihood", true}}};
/// Constraints of which the second component takes parameters of the first.
struct Joint {
  const char *name, *first, *second;
};
constexpr Joint kJoints[] = {{"joint_lens_light_with_lens_light", "lens_light", "lens_light"},
                             {"joint_lens_with_light", "lens_light", "lens"},
                             {"joint_lens_with_source_light", "source", "lens"},
                             {"joint_lens_with_lens", "lens", "lens"},
                             {"joint_source_with_source", "source", "source"}};
const KnownKeys kConstraintKeys = [] {
  KnownKeys keys = {{"linear_solver"}, {{"solver_type", "NONE"}}};
  for (const Joint& joint : kJoints) keys.names.emplace_back(joint.name);
  return keys;
}();
const KnownKeys kInterpolKeys = {{"image", "amp", "center_x", "center_y", "phi_G", "scale"}};

/// Whether a value says nothing: a dictionary may spell out what it does not use.
bool says_nothing(const nlohmann::json& value) {
  if (value.is_structured())
    return std::all_of(value.begin(), value.end(), [](const nlohmann::json& v) { return says_nothing(v); });
  return value.is_null() || value == false;
}

class Reader {
 public:
  Reader(const std::string& file, std::vector<std::string>& warnings, const std::vector<std::string>& ignore)
      : json_(read_json(file)), root_(json_, file), file_(file), warnings_(warnings), ignore_(ignore) {}

  ExchangedLens read() {
    check_keys();
    read_data();
    const auto models = [&](const char* list) { return find(list, "kwargs_model"); };
    read_lenses(models("lens_model_list"));
    read_lights(models("source_light_model_list"), "source", lens_.model.source);
    read_lights(models("lens_light_model_list"), "lens_light", lens_.model.lens_light);
    read_constraints();
    if (lens_.model.source.empty() && lens_.model.lens_light.empty())
      root_.fail("no light, expected source_light_model_list or lens_light_model_list");
    if (find("point_source_model_list", "kwargs_model")) root_.fail("point_source_model_list is not supported");
    return std::move(lens_);
  }

 private:
  void warn(const std::string& message) { warnings_.push_back(file_ + ": " + message); }

  // ---- keys ----

  void check_keys() {
    KnownKeys root = {{"kwargs_model", "kwargs_result", "kwargs_data", "kwargs_psf", "kwargs_numerics",
                       "kwargs_likelihood", "kwargs_constraints", "point_source_model_list", kOwn}};
    for (const std::vector<std::string>* more : {&kModelLists, &kParameterLists})
      root.names.insert(root.names.end(), more->begin(), more->end());
    for (const char* block : {"lens", "source", "lens_light"})
      root.names.push_back("kwargs_fixed_" + std::string(block));
    KnownKeys model = {kModelLists};
    // Redshifts do not enter the image without multi_plane, which is refused.
    model.names.insert(model.names.end(), {"z_lens", "z_source", "lens_redshift_list", "point_source_model_list"});
    check_dictionary(json_, "", root);
    check_member("kwargs_model", model);
    check_member("kwargs_result", {kParameterLists});
    check_member("kwargs_data", kDataKeys);
    check_member("kwargs_psf", kPsfKeys);
    check_member("kwargs_numerics", kNumericsKeys);
    check_member("kwargs_likelihood", kLikelihoodKeys);
    check_member("kwargs_constraints", kConstraintKeys);
    for (const std::string& key : ignore_)
      if (std::find(ignored_.begin(), ignored_.end(), key) == ignored_.end())
        throw InvalidInput("--ignore: has no effect, found " + key + ", expected a key that " + file_ +
                           " has and that is refused without this option");
  }
  void check_member(const std::string& name, const KnownKeys& known) {
    if (!json_.is_object() || !json_.contains(name)) return;
    if (!says_nothing(json_[name]) && ignores(name)) {
      warn(name + ": ignored");
      json_.erase(name);
    } else {
      check_dictionary(json_[name], name, known);
    }
  }
  /// @param path  "" for the root
  void check_dictionary(nlohmann::json& object, const std::string& path, const KnownKeys& known) {
    if (!object.is_object()) return;  // said when it is read
    std::vector<std::string> names = known.names, refused;
    for (const auto& [name, value] : known.only) names.push_back(name);
    for (const auto& [name, value] : object.items()) {
      if (says_nothing(value) || std::find(known.names.begin(), known.names.end(), name) != known.names.end()) continue;
      const auto only =
          std::find_if(known.only.begin(), known.only.end(), [&, key = name](const auto& k) { return k.first == key; });
      if (only != known.only.end() && only->second == value) continue;
      const std::string whole = path.empty() ? name : path + "." + name;
      if (ignores(whole) || ignores(name)) {
        warn(whole + ": ignored");
        refused.push_back(name);
        continue;
      }
      const std::string expected = only != known.only.end() ? only->second.dump() : suggestion(name, names);
      const std::string found = value.is_structured() ? "" : ", found " + value.dump();
      throw InvalidInput(file_ + ": " + whole + ": not supported" + found + ", expected " + expected +
                         ", or --ignore " + name + " to go on without it");
    }
    for (const std::string& name : refused) object.erase(name);
  }
  bool ignores(const std::string& key) {
    if (std::find(ignore_.begin(), ignore_.end(), key) == ignore_.end()) return false;
    ignored_.push_back(key);
    return true;
  }
  /// Names in kwargs_fixed_… of component i that the profile does not have.
  void check_fixed(const std::string& block, std::size_t i, const ProfileInfo& info) const {
    const std::string list = "kwargs_fixed_" + block;
    if (!root_.has(list) || i >= root_.at(list).size(kMaxComponents)) return;
    const JsonView fixed = root_.at(list).at(i);
    std::vector<std::string> names;
    for (const ParameterInfo& p : info.parameters) names.emplace_back(p.name);
    for (const std::string& name : fixed.keys())
      if (info.index_of(name) < 0)
        fixed.fail("unknown keyword of " + std::string(info.name) + ", found " + name + ", expected " +
                   suggestion(name, names));
  }

  /// A member of the root or of a dictionary in it; nothing if it is absent or an empty list.
  std::optional<JsonView> find(const std::string& name, const std::string& dictionary) const {
    std::optional<JsonView> found;
    if (root_.has(name))
      found = root_.at(name);
    else if (root_.has(dictionary) && root_.at(dictionary).has(name))
      found = root_.at(dictionary).at(name);
    if (found && found->is_array() && found->size(kMaxComponents) == 0) return std::nullopt;
    return found;
  }

  // ---- arrays ----

  static Array read_array(const JsonView& view) {
    if (view.is_text()) {
      std::string hdu, path = view.text();
      const std::size_t bracket = path.rfind('[');
      if (!path.empty() && path.back() == ']' && bracket != std::string::npos) {
        hdu = path.substr(bracket + 1, path.size() - bracket - 2);
        path.resize(bracket);
      }
      FitsImage image = read_fits(view.file_beside(path), hdu);
      return {image.nx, image.ny, std::move(image.values)};
    }
    Array array;
    array.ny = static_cast<int>(view.size(kMaxImageSide));
    if (array.ny == 0) view.fail("an empty list, expected rows of numbers");
    for (std::size_t row = 0; row < static_cast<std::size_t>(array.ny); ++row) {
      const JsonView numbers = view.at(row);
      const auto n = static_cast<int>(numbers.size(kMaxImageSide));
      if (row == 0) array.nx = n;
      if (n != array.nx || n == 0)
        numbers.fail("found " + std::to_string(n) + " numbers, expected " +
                     (row == 0 ? "at least one" : std::to_string(array.nx) + " as in the first row"));
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) array.values.push_back(numbers.at(i).number());
    }
    return array;
  }

  /// A map on the pixels of the image.
  std::vector<double> read_map(const JsonView& view) const {
    Array array = read_array(view);
    const Grid& grid = lens_.observation.grid;
    if (array.nx != grid.nx || array.ny != grid.ny)
      view.fail("different shape, found " + std::to_string(array.nx) + " x " + std::to_string(array.ny) +
                " pixels, expected " + std::to_string(grid.nx) + " x " + std::to_string(grid.ny) + " as in image_data");
    return std::move(array.values);
  }

  // ---- the data ----

  void read_data() {
    Observation& o = lens_.observation;
    const JsonView data = root_.at("kwargs_data");
    read_pixel_scale(data.at("transform_pix2angle"));
    if (data.has("image_data")) {
      Array image = read_array(data.at("image_data"));
      o.grid.nx = image.nx;
      o.grid.ny = image.ny;
      o.image = std::move(image.values);
      read_noise(data);
    } else {
      o.grid.nx = data.at("nx").integer(1, kMaxImageSide);
      o.grid.ny = data.at("ny").integer(1, kMaxImageSide);
      if (data.has("background_rms")) lens_.noise = data.at("background_rms").number(at_least(0));
      warn("kwargs_data.image_data: missing; use the configuration with einfield simulate");
    }
    const double ra = data.at("ra_at_xy_0").number(), dec = data.at("dec_at_xy_0").number();
    o.grid.center_x = (mirrored_ ? -ra : ra) + 0.5 * (o.grid.nx - 1) * o.grid.pixel_scale;
    o.grid.center_y = dec + 0.5 * (o.grid.ny - 1) * o.grid.pixel_scale;
    if (root_.has("kwargs_numerics") && root_.at("kwargs_numerics").has("supersampling_factor"))
      o.grid.supersampling = root_.at("kwargs_numerics").at("supersampling_factor").integer(1, kMaxSupersampling);
    if (root_.has("kwargs_psf")) read_psf(root_.at("kwargs_psf"));
    read_mask();
  }

  /// Pixel scale and orientation from the matrix that turns pixels into angles.
  void read_pixel_scale(const JsonView& matrix) {
    double m[2][2];
    if (matrix.size(2) != 2) matrix.fail("expected two rows of two numbers");
    for (std::size_t i = 0; i < 2; ++i) {
      if (matrix.at(i).size(2) != 2) matrix.at(i).fail("expected two numbers");
      for (std::size_t j = 0; j < 2; ++j) m[i][j] = matrix.at(i).at(j).number();
    }
    const double scale = m[1][1];
    if (!(scale > 0) || m[0][1] != 0 || m[1][0] != 0 || std::abs(std::abs(m[0][0]) - scale) > kScaleTolerance * scale)
      matrix.fail("found [[" + to_text(m[0][0]) + ", " + to_text(m[0][1]) + "], [" + to_text(m[1][0]) + ", " +
                  to_text(m[1][1]) +
                  "]], expected [[±s, 0], [0, s]] with the pixel scale s > 0: upright, square pixels");
    mirrored_ = m[0][0] < 0;
    lens_.observation.grid.pixel_scale = scale;
  }

  void read_noise(const JsonView& data) {
    Observation& o = lens_.observation;
    if (data.has("noise_map")) {
      o.noise = read_map(data.at("noise_map"));
      return;
    }
    const double background = data.at("background_rms").number(above(0));
    std::vector<double> exposure(o.image.size(), kInfinity);
    std::size_t unexposed = 0;
    if (data.has("exposure_time")) {
      const JsonView time = data.at("exposure_time");
      if (time.is_text() || time.is_array())
        exposure = read_map(time);
      else
        exposure.assign(o.image.size(), time.number(above(0), "s"));
    }
    o.mask.assign(o.image.size(), 1);
    for (std::size_t i = 0; i < o.image.size(); ++i) {
      const bool exposed = exposure[i] > 0;
      o.noise.push_back(photon_noise(o.image[i], background, exposed ? exposure[i] : kInfinity));
      o.mask[i] = exposed;
      unexposed += !exposed;
    }
    if (unexposed == 0)
      o.mask.clear();
    else
      warn("kwargs_data.exposure_time: " + std::to_string(unexposed) + (unexposed == 1 ? " pixel" : " pixels") +
           " without exposure, masked");
  }

  void read_psf(const JsonView& psf) {
    const std::string type = psf.at("psf_type").text();
    if (type == "GAUSSIAN") {
      lens_.psf_fwhm = psf.at("fwhm").number(above(0), "arcsec");
    } else if (type == "PIXEL") {
      const int s = lens_.observation.grid.supersampling;
      const int f = psf.has("point_source_supersampling_factor")
                        ? psf.at("point_source_supersampling_factor").integer(1, kMaxSupersampling)
                        : 1;
      const bool fine = root_.has("kwargs_numerics") && root_.at("kwargs_numerics").has("supersampling_convolution") &&
                        root_.at("kwargs_numerics").at("supersampling_convolution").boolean();
      if (fine != (f > 1) || s % f != 0)
        psf.fail("inconsistent sampling, found point_source_supersampling_factor " + std::to_string(f) +
                 ", supersampling_convolution " + (fine ? "true" : "false") + " and supersampling_factor " +
                 std::to_string(s) +
                 ", expected supersampling_convolution true if the first factor is > 1, else "
                 "false, and supersampling_factor a multiple of the first factor");
      Array kernel = read_array(psf.at("kernel_point_source"));
      if (kernel.nx % 2 == 0 || kernel.ny % 2 == 0)
        psf.at("kernel_point_source")
            .fail("a PSF of even size, found " + std::to_string(kernel.nx) + " x " + std::to_string(kernel.ny) +
                  " pixels, expected odd numbers");
      lens_.observation.psf = {kernel.nx, kernel.ny, std::move(kernel.values), f};
    } else if (type != "NONE") {
      psf.at("psf_type").fail("not supported, found " + type + ", expected NONE, GAUSSIAN or PIXEL");
    }
  }

  void read_mask() {
    if (lens_.observation.image.empty() || !root_.has("kwargs_likelihood") ||
        !root_.at("kwargs_likelihood").has("image_likelihood_mask_list"))
      return;
    const JsonView masks = root_.at("kwargs_likelihood").at("image_likelihood_mask_list");
    if (masks.size(kMaxComponents) != 1) masks.fail("expected one mask, of a single band");
    const std::vector<double> values = read_map(masks.at(0));
    std::vector<std::uint8_t>& mask = lens_.observation.mask;
    if (mask.empty()) mask.assign(values.size(), 1);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i] != 0 && values[i] != 1)
        masks.at(0).fail("a mask value other than 0 and 1, found " + rounded(values[i]));
      mask[i] = mask[i] && values[i] == 1;
    }
  }

  // ---- the model ----

  /// What einfield noted about component i of a block, if it wrote the file.
  std::optional<JsonView> own(const std::string& block, std::size_t i) const {
    if (!root_.has(kOwn) || !root_.at(kOwn).has(block)) return std::nullopt;
    const JsonView list = root_.at(kOwn).at(block);
    if (i >= list.size(kMaxComponents)) return std::nullopt;
    return list.at(i);
  }
  static bool own_fits(const JsonView& own, const std::string& name) {
    if (!own.has("fit")) return false;
    const JsonView fit = own.at("fit");
    for (std::size_t i = 0; i < fit.size(kMaxComponents); ++i)
      if (fit.at(i).text() == name) return true;
    return false;
  }

  /// The keywords of component i. @param block  "lens"
  JsonView keywords(const std::string& block, std::size_t i, std::size_t count) const {
    const std::string name = "kwargs_" + block;
    const std::optional<JsonView> list = find(name, "kwargs_result");
    if (!list) root_.fail(name + ": missing, expected a list of " + std::to_string(count));
    if (list->size(kMaxComponents) != count)
      list->fail("found " + std::to_string(list->size(kMaxComponents)) + " components, expected " +
                 std::to_string(count) + " as in the list of models");
    return list->at(i);
  }
  bool is_fixed(const std::string& block, std::size_t i, const std::string& name) const {
    const std::string list = "kwargs_fixed_" + block;
    return root_.has(list) && i < root_.at(list).size(kMaxComponents) && root_.at(list).at(i).has(name);
  }

  template <class Component>
  void read_parameters(const JsonView& view, const std::string& block, std::size_t i, const ProfileInfo& info,
                       Component& c) const {
    std::vector<std::string> names;
    for (const ParameterInfo& p : info.parameters) names.emplace_back(p.name);
    for (const std::string& name : view.keys()) {
      if (info.index_of(name) < 0)
        view.fail("unknown keyword of " + std::string(info.name) + ", expected " + suggestion(name, names));
      set_parameter(view.at(name), info, c.values, name, view.at(name).number());
    }
    for (std::size_t k = 0; k < names.size(); ++k) {
      const bool origin = names[k] == "ra_0" || names[k] == "dec_0";  // of a shear: not fitted in practice
      c.free[k] = !always_fixed(info.parameters[k].range) && !origin && !is_fixed(block, i, names[k]);
    }
    check_complete(view, info, c.values);
    check_fixed(block, i, info);
    read_gaussians(block, i, info, c);
    if (mirrored_) mirror(info, c.values);
  }

  /// Entries [component, parameter, mean, sigma] of kwargs_likelihood.prior_….
  template <class Component>
  void read_gaussians(const std::string& block, std::size_t i, const ProfileInfo& info, Component& c) const {
    const std::string name = "prior_" + block;
    if (!root_.has("kwargs_likelihood") || !root_.at("kwargs_likelihood").has(name)) return;
    const JsonView list = root_.at("kwargs_likelihood").at(name);
    for (std::size_t k = 0; k < list.size(kMaxComponents); ++k) {
      const JsonView entry = list.at(k);
      if (entry.size(4) != 4) entry.fail("expected [component, parameter, mean, sigma]");
      if (static_cast<std::size_t>(entry.at(0).integer(0, static_cast<int>(kMaxComponents))) != i) continue;
      const int index = info.index_of(entry.at(1).text());
      if (index < 0) entry.at(1).fail("no parameter of " + std::string(info.name) + ", found " + entry.at(1).text());
      const auto p = static_cast<std::size_t>(index);
      if (!c.free[p]) entry.fail("a prior of a fixed parameter, found " + entry.at(1).text() + ", expected a free one");
      std::vector<double> means(info.parameters.size(), 0.0);
      means[p] = entry.at(2).number();
      if (mirrored_) mirror(info, means);
      c.priors.resize(c.values.size());
      c.priors[p].mean = means[p];
      c.priors[p].sigma = entry.at(3).number(above(0));
    }
  }

  /// x → −x.
  static void mirror(const ProfileInfo& info, std::vector<double>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::string name = info.parameters[i].name;
      if (changes_sign(name)) values[i] = -values[i];
      if (name == "phi_m") values[i] = kPi - values[i];
    }
    // cos(m (φ − φ_m)) with φ → π − φ: even in m(π − φ − φ_m), so that φ_m → π − φ_m for every whole m.
  }

  // ---- constraints ----

  /// A component of a block of the model.
  struct Target {
    std::string name;  ///< "lens.0"
    const ProfileInfo* info;
    std::vector<std::uint8_t>* free;
    std::vector<Relation>* follows;
  };
  /// @param entry  its index in the list of models
  Target component(const std::string& block, const JsonView& entry) {
    int index = entry.integer(0, static_cast<int>(kMaxComponents));
    const auto target = [&](auto& components, auto info) -> std::optional<Target> {
      if (index < 0 || static_cast<std::size_t>(index) >= components.size()) return std::nullopt;
      auto& c = components[static_cast<std::size_t>(index)];
      c.follows.resize(c.values.size());
      return Target{block + "." + std::to_string(index), &info(c.kind), &c.free, &c.follows};
    };
    std::optional<Target> found;
    if (block == "lens") {
      const auto known = std::find(lens_entries_.begin(), lens_entries_.end(), index);
      index = known == lens_entries_.end() ? -1 : static_cast<int>(known - lens_entries_.begin());
      found = target(lens_.model.lens, lens_info);
    } else {
      found = target(block == "source" ? lens_.model.source : lens_.model.lens_light, light_info);
    }
    if (!found) entry.fail("no such component of the list of models for " + block);
    return *found;
  }

  void read_constraints() {
    if (!root_.has("kwargs_constraints")) return;
    const JsonView constraints = root_.at("kwargs_constraints");
    for (const Joint& joint : kJoints) {
      if (!constraints.has(joint.name)) continue;
      const JsonView list = constraints.at(joint.name);
      for (std::size_t k = 0; k < list.size(kMaxComponents); ++k) {
        const JsonView entry = list.at(k);
        if (entry.size(3) != 3) entry.fail("expected [component, component, parameters]");
        const Target first = component(joint.first, entry.at(0)), second = component(joint.second, entry.at(1));
        const JsonView parameters = entry.at(2);
        if (parameters.is_array()) {
          for (std::size_t i = 0; i < parameters.size(kMaxProfileParameters); ++i)
            relate(second, parameters.at(i).text(), first, parameters.at(i).text(), entry);
        } else {
          for (const std::string& to : parameters.keys()) relate(second, to, first, parameters.at(to).text(), entry);
        }
      }
    }
    if (const auto problem = try_follow(lens_.model)) constraints.fail(problem->where + ": " + problem->message);
  }
  void relate(const Target& second, const std::string& to, const Target& first, const std::string& from,
              const JsonView& entry) const {
    const int own = second.info->index_of(to), other = first.info->index_of(from);
    if (own < 0) entry.fail("no parameter of " + std::string(second.info->name) + ", found " + to);
    if (other < 0) entry.fail("no parameter of " + std::string(first.info->name) + ", found " + from);
    Relation& relation = (*second.follows)[static_cast<std::size_t>(own)];
    if (relation.given()) entry.fail("a second constraint of " + second.name + "." + to + ", expected one");
    const bool turns = mirrored_ && changes_sign(to) != changes_sign(from);
    relation = {first.name + "." + from, turns ? -1.0 : 1.0};
    (*second.free)[static_cast<std::size_t>(own)] = 0;
  }

  /// Whether x → −x changes the sign of a parameter.
  static bool changes_sign(const std::string& parameter) {
    return parameter == "center_x" || parameter == "ra_0" || parameter == "e2" || parameter == "gamma2" ||
           parameter == "g1" || parameter == "g3";
  }

  void read_lenses(const std::optional<JsonView>& models) {
    const std::size_t n = models ? models->size(kMaxComponents) : 0;
    for (std::size_t i = 0; i < n; ++i) {
      std::string name = models->at(i).text();
      const std::optional<JsonView> mine = own("lens", i);
      if (name == "INTERPOL" && mine && mine->has("network")) {
        if (!lens_.networks.empty()) models->at(i).fail("a second network, expected at most one");
        lens_.networks.push_back(read_network(mine->at("network").file_beside()));
        continue;
      }
      if (name == "NFW_ELLIPSE") name = "NFW_ELLIPSE_POTENTIAL";  // its name before lenstronomy 1.12
      if (name == "PEMD") name = "EPL";                           // the same mass, computed in another way
      const std::optional<LensKind> kind = lens_kind(name);
      if (!kind) models->at(i).fail("not supported, found " + name + ", expected " + suggestion(name, lens_names()));
      LensComponent c = new_lens(*kind);
      const JsonView view = keywords("lens", i, n);
      read_parameters(view, "lens", i, lens_info(*kind), c);
      if (mine) take_priors(*mine, c, lens_info(*kind));
      check_priors(view, c, lens_info(*kind), warnings_);
      lens_.model.lens.push_back(std::move(c));
      lens_entries_.push_back(static_cast<int>(i));
    }
  }

  static std::vector<std::string> lens_names() {
    std::vector<std::string> names;
    for (int i = 0; i < kLensKinds; ++i) names.emplace_back(lens_info(static_cast<LensKind>(i)).name);
    return names;
  }

  void read_lights(const std::optional<JsonView>& models, const std::string& block,
                   std::vector<LightComponent>& lights) {
    const double area = lens_.observation.grid.pixel_scale * lens_.observation.grid.pixel_scale;
    const std::size_t n = models ? models->size(kMaxComponents) : 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::string name = models->at(i).text();
      const JsonView view = keywords(block, i, n);
      const std::optional<JsonView> mine = own(block, i);
      LightComponent c;
      if (name == "INTERPOL" && mine && mine->has("network")) {
        c = read_network_light(*mine);
      } else if (name == "INTERPOL") {
        for (const std::string& key : view.keys())
          if (std::find(kInterpolKeys.names.begin(), kInterpolKeys.names.end(), key) == kInterpolKeys.names.end())
            view.fail("unknown keyword of INTERPOL, found " + key + ", expected " +
                      suggestion(key, kInterpolKeys.names));
        c = read_pixels(view);
        for (double& v : c.pixels) v *= area;
        c.pixels_free = !mine || own_fits(*mine, "pixels");
      } else if (name == "SERSIC" || (light_kind(name) && name != "PIXELATED" && name != "NETWORK")) {
        c = new_light(light_kind(name).value_or(LightKind::sersic_ellipse));
        read_parameters(view, block, i, light_info(c.kind), c);
        parameter(c, "amp") *= area;
        if (!c.priors.empty()) {
          ParameterPrior& prior = c.priors[static_cast<std::size_t>(light_info(c.kind).index_of("amp"))];
          prior.mean *= area;
          prior.sigma *= area;
        }
        if (name == "SERSIC")
          for (const char* e : {"e1", "e2"}) c.free[static_cast<std::size_t>(light_info(c.kind).index_of(e))] = false;
        if (name == "SERSIC_ELLIPSE" && mine && mine->has("radius") &&
            mine->at("radius").text() == name_of(RadiusKind::major_axis)) {
          c.radius = RadiusKind::major_axis;
          parameter(c, "R_sersic") /= root_of_axis_ratio(c);
        }
      } else {
        models->at(i).fail(
            "not supported, found " + name + ", expected " +
            suggestion(name, {"SERSIC_ELLIPSE", "SERSIC", "GAUSSIAN", "GAUSSIAN_ELLIPSE", "UNIFORM", "INTERPOL"}));
      }
      if (mine) take_priors(*mine, c, light_info(c.kind));
      check_priors(view, c, light_info(c.kind), warnings_);
      lights.push_back(std::move(c));
    }
  }

  LightComponent read_pixels(const JsonView& view) const {
    LightComponent c = new_light(LightKind::pixelated);
    Array image = read_array(view.at("image"));
    const auto optional = [&](const char* name, double absent) {
      return view.has(name) ? view.at(name).number() : absent;
    };
    if (optional("phi_G", 0) != 0) view.at("phi_G").fail("found a rotation, expected 0");
    c.grid = {image.nx, image.ny, view.at("scale").number(above(0), "arcsec"), optional("center_x", 0),
              optional("center_y", 0)};
    c.pixels = std::move(image.values);
    const double amp = optional("amp", 1);
    for (double& v : c.pixels) v *= amp;
    if (!mirrored_) return c;
    c.grid.center_x = -c.grid.center_x;
    for (auto row = c.pixels.begin(); row != c.pixels.end(); row += image.nx) std::reverse(row, row + image.nx);
    return c;
  }

  LightComponent read_network_light(const JsonView& mine) {
    if (!lens_.network_lights.empty()) mine.fail("a second NETWORK component, expected at most one");
    LightComponent c = new_light(LightKind::network);
    const ProfileInfo& info = light_info(c.kind);
    for (std::size_t i = 0; i < info.parameters.size(); ++i) {
      const char* name = info.parameters[i].name;
      const JsonView number = mine.at("parameters").at(name);
      set_parameter(number, info, c.values, name, number.number());
      c.free[i] = own_fits(mine, name);
    }
    StoredNetwork stored = read_network(mine.at("network").file_beside());
    c.network = stored.shape;
    c.weights_free = own_fits(mine, "network");
    lens_.network_lights.push_back(c);
    lens_.network_lights.back().weights = std::move(stored.parameters);
    return c;
  }

  static constexpr double kScaleTolerance = 1e-3;  ///< relative, between the sides of a pixel

  nlohmann::json json_;
  JsonView root_;
  std::string file_;
  std::vector<std::string>& warnings_;
  const std::vector<std::string>& ignore_;
  std::vector<std::string> ignored_;
  ExchangedLens lens_;
  bool mirrored_ = false;          ///< lenstronomy's x grows to the left
  std::vector<int> lens_entries_;  ///< of the lens components: their indices in the list of models
};

}  // namespace

ExchangedLens read_lenstronomy(const std::string& file, std::vector<std::string>& warnings,
                               const std::vector<std::string>& ignore) {
  return Reader(file, warnings, ignore).read();
}

}  // namespace einfield
