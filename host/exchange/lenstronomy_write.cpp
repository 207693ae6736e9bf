// Writes lenstronomy's lists of models, the lists of their keywords, and all arrays in one FITS file.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "einfield/error.hpp"
#include "host/exchange/lenstronomy.hpp"
#include "host/exchange/priors_json.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/atomic_file.hpp"
#include "host/files/fits_io.hpp"
#include "host/files/text.hpp"
#include "host/results/result_files.hpp"

namespace einfield {
namespace {

using nlohmann::ordered_json;

constexpr const char* kFile = "lenstronomy.json";
constexpr const char* kMaps = "lenstronomy.fits";

class Writer {
 public:
  Writer(std::string dir, const ExchangedLens& lens) : dir_(std::move(dir)), lens_(on_square_image(lens)) {
    note_padding(notes_, lens.observation.grid, "lenstronomy 1.14.2");
    const double scale = lens.observation.grid.pixel_scale;
    area_ = scale * scale;
  }

  std::vector<std::string> write() {
    const Observation& o = lens_.observation;
    const Grid& grid = o.grid;
    ordered_json json;
    json["kwargs_model"] = {{"lens_model_list", ordered_json::array()},
                            {"source_light_model_list", ordered_json::array()},
                            {"lens_light_model_list", ordered_json::array()}};
    for (const char* name : {"kwargs_lens", "kwargs_source", "kwargs_lens_light", "kwargs_fixed_lens",
                             "kwargs_fixed_source", "kwargs_fixed_lens_light"})
      json[name] = ordered_json::array();
    ordered_json own = add_model(json);
    const PixelGrid pixels{grid.nx, grid.ny, grid.pixel_scale, grid.center_x, grid.center_y};
    const Vec2<double> first = grid.pixel(0);
    json["kwargs_data"] = {{"image_data", map("IMAGE", pixels, o.image, lens_.unit)},
                           {"noise_map", map("NOISE", pixels, o.noise, lens_.unit)},
                           {"ra_at_xy_0", first.x},
                           {"dec_at_xy_0", first.y},
                           {"transform_pix2angle", {{grid.pixel_scale, 0.0}, {0.0, grid.pixel_scale}}}};
    json["kwargs_psf"] = psf();
    // Without a size, lenstronomy uses the middle of the kernel as the whole kernel on the sub-pixels.
    json["kwargs_numerics"] = {{"supersampling_factor", grid.supersampling},
                               {"supersampling_convolution", o.psf.supersampling > 1},
                               {"supersampling_kernel_size", nullptr}};
    json["kwargs_likelihood"] = {
        {"image_likelihood_mask_list", {map("MASK", pixels, {o.mask.begin(), o.mask.end()}, "", 8)}}};
    json[kOwn] = std::move(own);
    json[kOwn]["notes"] = notes_;
    write_fits(in(dir_, kMaps), maps_);
    write_atomically(in(dir_, kFile), json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
    return notes_;
  }

 private:
  /// Adds all components to the lists of models and of keywords. @return what only einfield reads
  ordered_json add_model(ordered_json& json) {
    ordered_json own = {
        {"lens", ordered_json::array()}, {"source", ordered_json::array()}, {"lens_light", ordered_json::array()}};
    for (const LensComponent& c : lens_.model.lens) {
      json["kwargs_model"]["lens_model_list"].push_back(lens_info(c.kind).name);
      add_parameters(json, "lens", c, lens_info(c.kind));
      own["lens"].push_back(ordered_json::object());
      put_priors(own["lens"].back(), c, lens_info(c.kind));
    }
    if (!lens_.networks.empty()) add_network(json, own);
    const auto add_lights = [&](const std::string& block, const std::string& list,
                                const std::vector<LightComponent>& lights) {
      for (std::size_t i = 0; i < lights.size(); ++i)
        json["kwargs_model"][list].push_back(
            add_light(json, own[block], block, block + "." + std::to_string(i), lights[i]));
    };
    add_lights("source", "source_light_model_list", lens_.model.source);
    add_lights("lens_light", "lens_light_model_list", lens_.model.lens_light);
    return own;
  }

  ordered_json psf() {
    const Psf& p = lens_.observation.psf;
    const Grid& grid = lens_.observation.grid;
    if (p.empty()) return {{"psf_type", "NONE"}};
    const int f = p.supersampling;
    const PixelMap kernel = squared({{p.nx, p.ny, grid.pixel_scale / f, 0, 0}, p.values}, 0);
    if (f > 1 && f != grid.supersampling)
      note("lenstronomy convolves on all " + std::to_string(grid.supersampling) +
           " rays per pixel along each axis; it interpolates the PSF, which has " + std::to_string(f) + " samples");
    return {{"psf_type", "PIXEL"},
            {"kernel_point_source", map("PSF", kernel.grid, kernel.values, "")},
            {"point_source_supersampling_factor", f}};
  }

  /// Keeps a map for the FITS file. @return its name in the dictionaries
  std::string map(const std::string& name, const PixelGrid& grid, std::vector<double> values, const std::string& unit,
                  int bitpix = -64) {
    maps_.push_back({name,
                     grid.nx,
                     grid.ny,
                     1,
                     std::move(values),
                     bitpix,
                     unit,
                     grid.pixel_scale,
                     grid.center_x,
                     grid.center_y,
                     {}});
    return std::string(kMaps) + "[" + name + "]";
  }

  template <class Component>
  static void add_parameters(ordered_json& json, const std::string& block, const Component& c,
                             const ProfileInfo& info) {
    ordered_json values = ordered_json::object(), fixed = ordered_json::object();
    for (std::size_t i = 0; i < info.parameters.size(); ++i) {
      const ParameterInfo& p = info.parameters[i];
      if (p.range == Range::integer)
        values[p.name] = static_cast<int>(c.values[i]);
      else
        values[p.name] = c.values[i];
      if (!c.free[i]) fixed[p.name] = values[p.name];
    }
    json["kwargs_" + block].push_back(std::move(values));
    json["kwargs_fixed_" + block].push_back(std::move(fixed));
  }

  /// The network as an INTERPOL: lenstronomy interpolates it linearly, so the deflection is exact at the rays.
  void add_network(ordered_json& json, ordered_json& own) {
    const Grid& grid = lens_.observation.grid;
    const int s = grid.supersampling;
    const Grid rays{grid.nx * s, grid.ny * s, grid.pixel_scale / s, grid.center_x, grid.center_y, 1};
    const LensFields fields = exchanged_network(lens_, pixel_centers(rays));
    const PixelGrid on{rays.nx, rays.ny, rays.pixel_scale, rays.center_x, rays.center_y};
    const auto half = static_cast<std::ptrdiff_t>(fields.potential.size());
    std::vector<double> x, y;
    for (int i = 0; i < rays.nx; ++i) x.push_back(rays.pixel(i).x);
    for (int i = 0; i < rays.ny; ++i) y.push_back(rays.pixel(i * rays.nx).y);
    json["kwargs_model"]["lens_model_list"].push_back("INTERPOL");
    const auto axis = [&](const std::string& name, std::vector<double> values) {
      const int n = static_cast<int>(values.size());
      return map(name, {n, 1, 0, 0, 0}, std::move(values), "arcsec");
    };
    json["kwargs_lens"].push_back(
        {{"grid_interp_x", axis("NETWORK_X", std::move(x))},
         {"grid_interp_y", axis("NETWORK_Y", std::move(y))},
         {"f_", map("NETWORK_F", on, fields.potential, "arcsec2")},
         {"f_x", map("NETWORK_FX", on, {fields.deflection.begin(), fields.deflection.begin() + half}, "arcsec")},
         {"f_y", map("NETWORK_FY", on, {fields.deflection.begin() + half, fields.deflection.end()}, "arcsec")}});
    json["kwargs_fixed_lens"].push_back(json["kwargs_lens"].back());
    own["lens"].push_back({{"network", network_file(0)}});
    note("network: stored as its deflection at the rays of the image; elsewhere lenstronomy interpolates");
    note_members(notes_, "network", lens_.networks.size());
  }

  /// @return the name of the model in lenstronomy
  std::string add_light(ordered_json& json, ordered_json& own, const std::string& block, const std::string& name,
                        const LightComponent& original) {
    LightComponent c = original;
    own.push_back(ordered_json::object());
    put_priors(own.back(), c, light_info(c.kind));
    if (c.kind != LightKind::pixelated && c.kind != LightKind::network) {
      parameter(c, "amp") /= area_;
      if (c.kind == LightKind::sersic_ellipse && c.radius == RadiusKind::major_axis) {
        parameter(c, "R_sersic") *= root_of_axis_ratio(c);
        own.back()["radius"] = name_of(c.radius);
      }
      add_parameters(json, block, c, light_info(c.kind));
      return light_info(c.kind).name;
    }
    PixelMap pixels = light_pixels(lens_, c, block == "source");
    for (double& v : pixels.values) v /= area_;
    std::string hdu = name;
    std::transform(hdu.begin(), hdu.end(), hdu.begin(),
                   [](unsigned char l) { return l == '.' ? '_' : static_cast<char>(std::toupper(l)); });
    ordered_json values = {{"image", map(hdu, pixels.grid, pixels.values, "")},
                           {"amp", 1.0},
                           {"center_x", pixels.grid.center_x},
                           {"center_y", pixels.grid.center_y},
                           {"phi_G", 0.0},
                           {"scale", pixels.grid.pixel_scale}};
    own.back()["fit"] = ordered_json::array();
    if (c.pixels_free) own.back()["fit"].push_back("pixels");
    if (c.weights_free) own.back()["fit"].push_back("network");
    if (c.kind == LightKind::network) {
      const ProfileInfo& info = light_info(c.kind);
      own.back()["network"] = network_file(0, block == "source" ? "source_network" : "lens_light_network");
      for (std::size_t i = 0; i < info.parameters.size(); ++i) {
        own.back()["parameters"][info.parameters[i].name] = c.values[i];
        if (c.free[i]) own.back()["fit"].push_back(info.parameters[i].name);
      }
      note(name + ": NETWORK has no counterpart in lenstronomy; stored as pixels");
      note_members(notes_, name, lens_.network_lights.size());
    }
    json["kwargs_" + block].push_back(values);
    json["kwargs_fixed_" + block].push_back(std::move(values));
    return "INTERPOL";
  }

  void note(const std::string& text) { notes_.push_back(text); }

  std::string dir_;
  ExchangedLens lens_;  ///< on a square image
  double area_ = 1;     ///< of a pixel [arcsec²]
  std::vector<FitsOutput> maps_;
  std::vector<std::string> notes_;
};

}  // namespace

std::vector<std::string> write_lenstronomy(const std::string& dir, const ExchangedLens& lens) {
  return Writer(dir, lens).write();
}

}  // namespace einfield
