// The HDUs of one file of maps: units, WCS and precision in one place.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "einfield/grid.hpp"
#include "einfield/source.hpp"
#include "host/fields/lens_fields.hpp"
#include "host/files/fits_io.hpp"

namespace einfield {

/// Maps at the pixel centers of a grid, in single or double precision.
class FitsMaps {
 public:
  /// @param sky  celestial WCS of the grid, when it is known
  FitsMaps(const Grid& grid, bool double_precision, std::optional<CelestialWcs> sky = {})
      : grid_{grid.nx, grid.ny, grid.pixel_scale, grid.center_x, grid.center_y},
        bitpix_(double_precision ? -64 : -32),
        sky_(std::move(sky)) {}

  void add(const std::string& name, const std::string& unit, std::vector<double> values, int planes = 1) {
    add(name, unit, std::move(values), grid_, bitpix_, planes);
    hdus_.back().sky = sky_;
  }
  /// A map that is stored as bytes: a mask.
  void add_bytes(const std::string& name, std::vector<double> values) {
    add(name, "", std::move(values), grid_, 8, 1);
    hdus_.back().sky = sky_;
  }
  /// A map on another grid.
  void add_on(const PixelGrid& grid, const std::string& name, const std::string& unit, std::vector<double> values) {
    add(name, unit, std::move(values), grid, bitpix_, 1);
  }
  /// PSI_<suffix>, ALPHA_<suffix> and KAPPA_<suffix>; empty fields are not added.
  void add_fields(const std::string& suffix, LensFields fields) {
    if (!fields.potential.empty()) add("PSI_" + suffix, "arcsec2", std::move(fields.potential));
    if (!fields.deflection.empty()) add("ALPHA_" + suffix, "arcsec", std::move(fields.deflection), 2);
    if (!fields.convergence.empty()) add("KAPPA_" + suffix, "", std::move(fields.convergence));
  }

  const std::vector<FitsOutput>& hdus() const { return hdus_; }

 private:
  void add(const std::string& name, const std::string& unit, std::vector<double> values, const PixelGrid& grid,
           int bitpix, int planes) {
    FitsOutput hdu;
    hdu.name = name;
    hdu.nx = grid.nx;
    hdu.ny = grid.ny;
    hdu.planes = planes;
    hdu.values = std::move(values);
    hdu.bitpix = bitpix;
    hdu.unit = unit;
    hdu.pixel_scale = grid.pixel_scale;
    hdu.center_x = grid.center_x;
    hdu.center_y = grid.center_y;
    hdus_.push_back(std::move(hdu));
  }

  PixelGrid grid_;
  int bitpix_;
  std::optional<CelestialWcs> sky_;
  std::vector<FitsOutput> hdus_;
};

}  // namespace einfield
