// The manifest of a survey: one lens a row, and what differs from lens to lens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "einfield/config.hpp"
#include "host/files/table.hpp"

namespace einfield {

/// A template of a survey, read once for all lenses.
struct SurveyTemplate {
  std::string file, text;
  FitsReference image;         ///< observation.image
  bool has_cosmology = false;  ///< whether it has a table [cosmology]
};

/// A row of a manifest.
struct SurveyLens {
  std::string id;             ///< unique in its manifest
  std::string place;          ///< "lenses.ecsv:12", for messages
  std::string template_file;  ///< a configuration
  /// Column → cell, of all columns that have a value in this row but `id` and `template`.
  std::map<std::string, std::string> cells;
  /// Of everything that this row says about its fit, the text of its template included.
  std::uint64_t settings = 0;
  std::shared_ptr<const SurveyTemplate> base = nullptr;  ///< the template; null after read_manifest_rows()

  /// The cell of a column as a number; NaN without a value or without a number.
  double number(const std::string& column) const;
};

/// The columns of a manifest that do not name a key of the configuration.
struct ManifestColumn {
  const char* name;
  const char* meaning;
};
inline constexpr ManifestColumn kManifestColumns[] = {
    {"id", "name of the lens; each occurs once"},
    {"image", "observation.image; FILE[HDU]"},
    {"noise", "observation.noise; FILE[HDU] or a number"},
    {"psf", "observation.psf; FILE[HDU], or a table as { fwhm = 0.2 }"},
    {"mask", "observation.mask; FILE[HDU]"},
    {"pixel_scale", "observation.pixel_scale [arcsec]"},
    {"zero_point", "observation.zero_point [AB mag]"},
    {"ra", "right ascension [degrees]; with `size` also the middle of the cut-out"},
    {"dec", "declination [degrees]; likewise"},
    {"x", "column of the middle of the cut-out, from 1; needs `size`"},
    {"y", "row of the middle of the cut-out, from 1; needs `size`"},
    {"size", "side of the part of `image` that is read [pixels], around x, y or ra, dec"},
    {"z_lens", "cosmology.z_lens, together with z_source or where the template has [cosmology]"},
    {"z_source", "cosmology.z_source, likewise"},
    {"template", "configuration of this lens; empty = --template"}};

struct Manifest {
  std::string file;
  std::vector<SurveyLens> lenses;    ///< in the order of the file
  std::vector<std::string> columns;  ///< that the file has

  bool has(const std::string& column) const;
};

/// Reads a manifest: ECSV, or the FITS table FILE or FILE[HDU]. Its file names are relative to its own folder.
/// @param template_file  configuration of the rows that name no other; "" = there is none
/// @throws InvalidInput for what concerns more than one lens: a file that cannot be read, a column that is unknown, an
/// id that is missing or given twice, a template that is missing or wrong. What is wrong with one lens, config_of()
/// says.
/// @param more  what else decides the fits, as their precision: counts in `settings`
Manifest read_manifest(const std::string& file, const std::string& template_file, const std::string& more = "");

/// The same without a look at templates and keys: ids and cells, for who only needs the order and what is carried
/// along.
/// @throws InvalidInput
Manifest read_manifest_rows(const std::string& file);

/// The configuration of a lens of read_manifest(): its template with the values of its row.
/// @throws InvalidInput "MANIFEST:LINE: KEY: …"
Config config_of(const SurveyLens& lens);

}  // namespace einfield
