// Columns become overrides of the template, as --set does it.
#include "host/batch/manifest.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <set>

#include "einfield/error.hpp"
#include "host/batch/cut_out.hpp"
#include "host/config/keys.hpp"
#include "host/files/ecsv.hpp"
#include "host/files/fits_table.hpp"
#include "host/files/fits_text.hpp"
#include "host/files/text.hpp"
#include "host/results/fingerprint.hpp"

namespace einfield {
namespace {

constexpr std::size_t kLongestId = 200;

std::string folder_of(const std::string& file) {
  return std::filesystem::absolute(file).lexically_normal().parent_path().string();
}

TextTable read_table(const std::string& file) {
  FitsReference reference;
  if (const std::string problem = read_reference(file, reference); !problem.empty())
    throw InvalidInput(file + ": " + problem);
  std::ifstream stream(reference.path, std::ios::binary);
  char magic[6] = {};
  stream.read(magic, sizeof magic);
  const bool fits = std::equal(std::begin(magic), std::end(magic), "SIMPLE");
  if (!fits && reference.path != file) {
    if (!stream) throw InvalidInput(reference.path + ": no such file, or empty");
    throw InvalidInput(file + ": not a FITS file, expected a table in FITS, or ECSV without [HDU]");
  }
  return fits ? read_fits_table(reference.path, reference.hdu) : read_ecsv(file);
}

/// A text as a string of TOML.
std::string toml_text(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return result + "\"";
}

/// A number or a table of TOML, where other cells name a file.
bool is_value(const std::string& cell) {
  return parse_number<double>(cell).has_value() || cell.front() == '{';
}

/// "FILE[HDU]" relative to the folder of the manifest, as an absolute name; the brackets stay.
std::string resolved(const std::string& folder, const std::string& reference) {
  return (std::filesystem::path(folder) / reference).lexically_normal().string();
}

std::string text_of_file(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void check_columns(const TextTable& table) {
  std::vector<std::string> known;
  for (const ManifestColumn& column : kManifestColumns) known.emplace_back(column.name);
  std::set<std::string> seen;
  for (const std::string& name : table.names) {
    if (name.empty()) throw InvalidInput(table.file + ": a column without a name");
    if (!seen.insert(name).second) throw InvalidInput(table.file + ": column " + name + ": given twice");
    const bool key = name.find('.') != std::string::npos;  // read_config() checks these
    if (!key && std::find(known.begin(), known.end(), name) == known.end())
      throw InvalidInput(table.file + ": column " + name + ": unknown, expected " + suggestion(name, known) +
                         ", or a key of the configuration as lens.0.theta_E");
  }
  if (seen.count("id") == 0)
    throw InvalidInput(table.file + ": no column id, found " + joined(table.names) + ", expected a name for each lens");
  for (const char* name : {"x", "y"})
    if (seen.count(name) != 0 && seen.count("size") == 0)
      throw InvalidInput(table.file + ": column " + name + ": has no effect without a column size");
}

void check_id(const SurveyLens& lens) {
  const auto bad = [](unsigned char c) { return c < ' ' || c == 127; };
  if (lens.id.empty()) throw InvalidInput(lens.place + ": id: missing, expected a name");
  if (lens.id.size() > kLongestId || std::any_of(lens.id.begin(), lens.id.end(), bad))
    throw InvalidInput(lens.place + ": id: not a name, expected at most " + std::to_string(kLongestId) +
                       " bytes without control characters");
}

/// @throws InvalidInput
std::shared_ptr<const SurveyTemplate> read_template(const std::string& file) {
  const Config config = read_config(file, {}, false);
  return std::make_shared<const SurveyTemplate>(
      SurveyTemplate{file, text_of_file(file), config.observation.image, config.cosmology.has_value()});
}

/// Columns that name a key must name one that exists, in the template alone or together with the other columns.
void check_keys(const Manifest& manifest) {
  for (const std::string& column : manifest.columns) {
    if (column.find('.') == std::string::npos) continue;
    std::set<std::string> templates;
    for (const SurveyLens& lens : manifest.lenses) {
      const auto cell = lens.cells.find(column);
      if (cell == lens.cells.end() || !templates.insert(lens.template_file).second) continue;
      try {
        read_config_text(lens.base->text, lens.base->file, false, {{column, cell->second, lens.place}});
        continue;
      } catch (const UnknownKey&) {  // perhaps another column brings what the key belongs to
      } catch (const InvalidInput&) {
        continue;  // a value that is wrong concerns one lens
      }
      try {
        config_of(lens);
      } catch (const UnknownKey&) {
        throw;
      } catch (const InvalidInput&) {
        continue;
      }
    }
  }
}

/// The image of a lens: that of its row, else that of its template.
FitsReference image_of(const SurveyLens& lens) {
  FitsReference image;
  if (const auto cell = lens.cells.find("image"); cell != lens.cells.end()) {
    if (const std::string problem = read_reference(cell->second, image); !problem.empty())
      throw InvalidInput(lens.place + ": image: " + problem);
    return image;
  }
  return lens.base->image;
}

}  // namespace

double SurveyLens::number(const std::string& column) const {
  const auto cell = cells.find(column);
  if (cell == cells.end()) return std::numeric_limits<double>::quiet_NaN();
  return parse_number<double>(cell->second).value_or(std::numeric_limits<double>::quiet_NaN());
}

bool Manifest::has(const std::string& column) const {
  return std::find(columns.begin(), columns.end(), column) != columns.end();
}

Manifest read_manifest_rows(const std::string& file) {
  const TextTable table = read_table(file);
  check_columns(table);
  Manifest manifest{file, {}, table.names};
  FitsReference reference;
  read_reference(file, reference);
  const std::string folder = folder_of(reference.path);
  std::map<std::string, std::string> places;
  for (std::size_t row = 0; row < table.rows.size(); ++row) {
    SurveyLens lens;
    lens.place = table.place(row);
    for (std::size_t i = 0; i < table.names.size(); ++i) {
      const std::string &name = table.names[i], &cell = table.rows[row][i];
      if (name == "id") lens.id = cell;
      if (cell.empty() || name == "id") continue;
      const bool is_file = name == "image" || name == "psf" || name == "mask" || name == "noise";
      if (name == "template")
        lens.template_file = resolved(folder, cell);
      else
        lens.cells[name] = is_file && !is_value(cell) ? resolved(folder, cell) : cell;
    }
    check_id(lens);
    if (const auto [earlier, added] = places.emplace(lens.id, lens.place); !added)
      throw InvalidInput(lens.place + ": id: " + lens.id + " is given twice, first in " + earlier->second);
    manifest.lenses.push_back(std::move(lens));
  }
  if (manifest.lenses.empty()) throw InvalidInput(table.file + ": no rows, expected one for each lens");
  return manifest;
}

Manifest read_manifest(const std::string& file, const std::string& template_file, const std::string& more) {
  Manifest manifest = read_manifest_rows(file);
  std::map<std::string, std::shared_ptr<const SurveyTemplate>> templates;
  for (SurveyLens& lens : manifest.lenses) {
    if (lens.template_file.empty()) lens.template_file = template_file;
    if (lens.template_file.empty())
      throw InvalidInput(lens.place + ": template: missing, expected a configuration here or --template");
    std::shared_ptr<const SurveyTemplate>& base = templates[lens.template_file];
    if (!base) base = read_template(lens.template_file);
    lens.base = base;
    Checksum checksum;
    const auto add = [&checksum](const std::string& text) { checksum.add(text.c_str(), text.size() + 1); };
    add(base->text);
    add(more);
    for (const auto& [name, cell] : lens.cells)
      if ((name != "ra" && name != "dec") || lens.cells.count("size") != 0) add(name + "=" + cell);
    lens.settings = checksum.value();
  }
  check_keys(manifest);
  return manifest;
}

Config config_of(const SurveyLens& lens) {
  std::vector<Override> overrides;
  const auto add = [&](const std::string& key, const std::string& value) {
    overrides.push_back({key, value, lens.place});
  };
  const bool both_redshifts = lens.cells.count("z_lens") != 0 && lens.cells.count("z_source") != 0;
  for (const auto& [name, cell] : lens.cells) {
    if (name.find('.') != std::string::npos) add(name, cell);
    if (name == "noise" || name == "psf") add("observation." + name, is_value(cell) ? cell : toml_text(cell));
    if (name == "mask" || (name == "image" && lens.cells.count("size") == 0))
      add("observation." + name, toml_text(cell));
    if (name == "pixel_scale" || name == "zero_point") add("observation." + name, cell);
    if (name == "z_lens" || name == "z_source")
      if (both_redshifts || lens.base->has_cosmology) add("cosmology." + name, cell);
  }
  if (lens.cells.count("size") != 0) {
    FitsReference image = image_of(lens);
    image.section = cut_out(lens, image);
    add("observation.image", toml_text(text_of(image)));
  }
  for (Override& setting : overrides)
    for (const Override& other : overrides)
      if (&setting < &other && setting.key == other.key)
        throw InvalidInput(lens.place + ": " + setting.key + ": given by two columns, expected one of them");
  return read_config_text(lens.base->text, lens.base->file, false, overrides);
}

}  // namespace einfield
