// Checks TOML (toml++) against tables of keys. Messages have the form "FILE:LINE: KEY: what is wrong, found …, expected
// …".
#include "host/config/keys.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <sstream>
#include <string_view>

#include "einfield/error.hpp"
#include "host/files/fits_text.hpp"
#include "host/files/text.hpp"
#include "host/files/toml.hpp"
#include "host/model/parameter_slots.hpp"

namespace einfield {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t(1) << 22;  ///< limit; a configuration has a few kilobytes
constexpr std::size_t kMaxParts = 10;                        ///< limit of a dotted key; existing keys have four

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

/// Text from a file for a message: on one line, shortened to `longest` bytes without cutting a UTF-8 character.
std::string excerpt(std::string text, std::size_t longest = 60) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < ' ' || c == 127) c = ' ';
  if (text.size() <= longest) return text;
  while (longest > 0 && (static_cast<unsigned char>(text[longest]) & 0xC0) == 0x80) --longest;
  return text.substr(0, longest) + " …";
}

/// What is expected in place of an unknown name: ours for a name of another package, else the nearest one.
std::string translated(const std::string& given, const std::vector<std::string>& valid) {
  static const std::pair<const char*, const char*> kOthers[] = {// profiles
                                                                {"PEMD", "EPL"},
                                                                {"SPEMD", "EPL"},
                                                                {"SPEP", "EPL"},
                                                                {"EPL_NUMBA", "EPL"},
                                                                {"PowerLaw", "EPL"},
                                                                {"Isothermal", "SIE"},
                                                                {"IsothermalSph", "SIS"},
                                                                {"ExternalShear", "SHEAR"},
                                                                {"SHEAR_GAMMA_PSI", "SHEAR"},
                                                                {"MassSheet", "CONVERGENCE"},
                                                                {"PointMass", "POINT_MASS"},
                                                                {"SERSIC", "SERSIC_ELLIPSE"},
                                                                {"Sersic", "SERSIC_ELLIPSE"},
                                                                {"CORE_SERSIC", "SERSIC_ELLIPSE"},
                                                                {"Gaussian", "GAUSSIAN"},
                                                                {"INTERPOL", "PIXELATED"},
                                                                {"NFW_ELLIPSE", "NFW_ELLIPSE_POTENTIAL"},
                                                                // parameters
                                                                {"einstein_radius", "theta_E"},
                                                                {"b", "theta_E"},
                                                                {"r_E", "theta_E"},
                                                                {"slope", "gamma"},
                                                                {"t", "gamma"},
                                                                {"core_radius", "s_scale"},
                                                                {"gamma_1", "gamma1"},
                                                                {"gamma_2", "gamma2"},
                                                                {"g1", "gamma1"},
                                                                {"g2", "gamma2"},
                                                                {"effective_radius", "R_sersic"},
                                                                {"r_eff", "R_sersic"},
                                                                {"re", "R_sersic"},
                                                                {"half_light_radius", "R_sersic"},
                                                                {"sersic_index", "n_sersic"},
                                                                {"n", "n_sersic"},
                                                                {"intensity", "amp"},
                                                                {"I_eff", "amp"},
                                                                {"flux", "amp"},
                                                                {"x0", "center_x"},
                                                                {"y0", "center_y"},
                                                                {"scale_radius", "Rs"},
                                                                {"kappa_s", "alpha_Rs"},
                                                                {"kappa_ext", "kappa"},
                                                                // other keys
                                                                {"deltaPix", "pixel_scale"},
                                                                {"pixel_scales", "pixel_scale"},
                                                                {"supersampling_factor", "supersampling"},
                                                                {"sub_size", "supersampling"},
                                                                {"over_sample_size", "supersampling"},
                                                                {"noise_map", "noise"},
                                                                {"max_iter", "steps"},
                                                                {"lr", "learning_rate"}};
  for (const auto& [theirs, ours] : kOthers)
    if (given == theirs && std::find(valid.begin(), valid.end(), ours) != valid.end()) return ours;
  const bool centers = given == "centre" || given == "center" || given == "centroid";
  if (centers && std::find(valid.begin(), valid.end(), "center_x") != valid.end()) return "center_x and center_y";
  const bool ellipticity = given == "ell_comps" || given == "elliptical_comps" || given == "q" || given == "phi";
  if (ellipticity && std::find(valid.begin(), valid.end(), "e1") != valid.end()) return "e1 and e2";
  return suggestion(given, valid);
}

// ---- values ----------------------------------------------------------------------------------------------

/// A number as TOML; a float keeps its decimal point.
std::string toml_number(double value) {
  std::string text = to_text(value);
  if (std::isfinite(value) && text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string toml_string(const std::string& text) {
  std::ostringstream stream;
  toml::value<std::string> value{text};
  stream << toml::toml_formatter{value, toml::format_flags::none};
  return stream.str();
}

/// "the string "many"", "the integer 3", "a table".
std::string described(const toml::node& node) {
  if (node.is_table()) return "a table";
  if (const toml::array* array = node.as_array()) return "an array of " + std::to_string(array->size());
  if (const auto* value = node.as_string()) return "the string \"" + excerpt(value->get()) + "\"";
  if (const auto* value = node.as_integer()) return "the integer " + std::to_string(value->get());
  if (const auto* value = node.as_floating_point()) return "the number " + toml_number(value->get());
  if (const auto* value = node.as_boolean()) return value->get() ? "true" : "false";
  return "a date or time";
}

std::string with_unit(const std::string& text, const std::string& unit) {
  return unit.empty() || text.empty() ? text : text + " " + unit;
}

/// "an integer", "a number > 0 arcsec".
std::string with_range(const std::string& noun, const Bounds& bounds, const std::string& unit) {
  const std::string range = bounds.text();
  return noun + with_unit(range.empty() && !unit.empty() ? " in" : range.empty() ? "" : " " + range, unit);
}

std::string quoted(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "\"" : " | \"") + name + "\"";
  return list;
}

/// The type of a key in the user's words.
std::string type_text(const Target& target) {
  return std::visit(
      Overloaded{[](double*) { return std::string("number"); },
                 [](std::optional<double>*) { return std::string("number"); },
                 [](int*) { return std::string("integer"); }, [](std::uint64_t*) { return std::string("integer"); },
                 [](bool*) { return std::string("true or false"); }, [](std::string*) { return std::string("text"); },
                 [](std::vector<int>*) { return std::string("list of integers"); },
                 [](FitsReference*) { return std::string("\"FILE[HDU]\""); },
                 [](const NumberOrRelation&) { return std::string("number"); },
                 [](const Choice& choice) { return quoted(choice.names); },
                 [](const WholeNumber&) { return std::string("integer"); },
                 [](const NameSet&) { return std::string("list of names"); },
                 [](const NameList&) { return std::string("list of names"); },
                 [](const FilePath&) { return std::string("\"FILE\""); },
                 [](const Interval&) { return std::string("[lower, upper]"); },
                 [](const Normal&) { return std::string("{ mean = ..., sigma = ... }"); },
                 [](const MapOrNumber&) { return std::string("\"FILE[HDU]\" or number"); },
                 [](const MapOrTable&) { return std::string("\"FILE[HDU]\" or table"); },
                 [](const SubTable& table) { return std::string(table.array ? "array of tables" : "table"); }},
      target);
}

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

std::optional<std::string> reference_text(const FitsReference& reference) {
  if (reference.empty()) return std::nullopt;
  FitsReference full = reference;
  if (!full.array) full.path = absolute(full.path);
  return toml_string(text_of(full));
}

/// The value of a key as TOML, or nothing if it has none.
std::optional<std::string> value_text(const Target& target) {
  using Text = std::optional<std::string>;
  return std::visit(
      Overloaded{[](const double* value) { return std::isnan(*value) ? Text() : toml_number(*value); },
                 [](const std::optional<double>* value) { return *value ? Text(toml_number(**value)) : Text(); },
                 [](const int* value) { return Text(std::to_string(*value)); },
                 [](const std::uint64_t* value) { return Text(std::to_string(*value)); },
                 [](const bool* value) { return Text(*value ? "true" : "false"); },
                 [](const std::string* value) { return Text(toml_string(*value)); },
                 [](const std::vector<int>* values) {
                   std::vector<std::string> texts;
                   for (const int value : *values) texts.push_back(std::to_string(value));
                   return Text("[" + joined(texts) + "]");
                 },
                 [](const FitsReference* reference) { return reference_text(*reference); },
                 [](const NumberOrRelation& value) {
                   if (value.relation->given()) return Text(toml_string(to_text(*value.relation)));
                   return std::isnan(*value.value) ? Text() : Text(toml_number(*value.value));
                 },
                 [](const Choice& choice) { return Text("\"" + choice.names[choice.get()] + "\""); },
                 [](const WholeNumber& number) {
                   return std::isnan(*number.value) ? Text() : Text(to_text(static_cast<long long>(*number.value)));
                 },
                 [](const NameSet& set) {
                   std::vector<std::string> chosen;
                   for (std::size_t i = 0; i < set.names.size(); ++i)
                     if (set.get(i)) chosen.push_back("\"" + set.names[i] + "\"");
                   return Text("[" + joined(chosen) + "]");
                 },
                 [](const NameList& list) {
                   std::vector<std::string> texts;
                   for (const std::string& name : *list.names) texts.push_back(toml_string(name));
                   return Text("[" + joined(texts) + "]");
                 },
                 [](const FilePath& file) { return Text(toml_string(file.path->empty() ? "" : absolute(*file.path))); },
                 [](const Interval& value) {
                   return std::isfinite(*value.lower)
                              ? Text("[" + toml_number(*value.lower) + ", " + toml_number(*value.upper) + "]")
                              : Text();
                 },
                 [](const Normal& value) {
                   const std::string mean =
                       value.mean_of->given() ? toml_string(to_text(*value.mean_of)) : toml_number(*value.mean);
                   return *value.sigma > 0 ? Text("{ mean = " + mean + ", sigma = " + toml_number(*value.sigma) + " }")
                                           : Text();
                 },
                 [](const MapOrNumber& value) {
                   return *value.number ? Text(toml_number(**value.number)) : reference_text(*value.map);
                 },
                 [](const MapOrTable& value) { return reference_text(*value.map); },
                 [](const SubTable&) { return Text(); }},
      target);
}

// ---- the text of a file ----------------------------------------------------------------------------------

std::string read_text(const std::string& file) {
  const auto fail = [&](const std::string& message) {
    throw InvalidInput(file + ": " + message + ", expected a TOML configuration");
  };
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (status.type() == std::filesystem::file_type::not_found) fail("no such file");
  if (status.type() == std::filesystem::file_type::directory) fail("a directory");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) fail(std::string("cannot be read (") + std::strerror(errno) + ")");
  std::string text;
  std::array<char, 4096> block;
  do {
    stream.read(block.data(), block.size());
    text.append(block.data(), static_cast<std::size_t>(stream.gcount()));
  } while (stream && text.size() <= kMaxFileBytes);
  if (text.size() > kMaxFileBytes) fail("larger than " + std::to_string(kMaxFileBytes) + " bytes");
  return text;
}

/// The full key that a line of a file defines. The TOML parser reports only the line.
std::string key_at_line(const std::string& text, std::size_t line) {
  std::istringstream lines(text);
  std::string table, current;
  std::map<std::string, int> arrays;
  for (std::size_t i = 1; i <= line && std::getline(lines, current); ++i) {
    current = trimmed(current.substr(0, current.find('#')));
    if (current.rfind('[', 0) != 0) continue;
    const bool array = current.rfind("[[", 0) == 0;
    table = trimmed(current.substr(array ? 2 : 1, current.find(']') - (array ? 2 : 1)));
    if (array) table += "." + std::to_string(arrays[table]++);
    current.clear();
  }
  const std::string key = trimmed(current.substr(0, current.find('=')));
  if (table.empty() || key.empty()) return excerpt(key + table);
  return excerpt(table + "." + key);
}

/// Finds what crashes toml++ 3.3, so that it is refused before parsing: dotted keys with very many parts, which
/// overflow the stack because each part is a nested table; and non-ASCII characters where the parser expects white
/// space. It scans TOML just closely enough to tell keys from strings and comments.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {
    if (at("\xEF\xBB\xBF")) at_ += 3;  // byte order mark
    std::size_t dots = 0;
    while (at_ < text_.size() && problem_.empty()) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        skip_text(c);
        continue;
      }
      if (c == '#') at_ = std::min(text_.find('\n', at_), text_.size() - 1);
      if (c == '.' && ++dots >= kMaxParts)
        problem_ = "a key with too many parts, expected at most " + std::to_string(kMaxParts);
      if (static_cast<unsigned char>(c) > 127) refuse_character();
      const bool in_key =
          std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.' || c == ' ' || c == '\t';
      if (!in_key) dots = 0;
      if (problem_.empty()) ++at_;
    }
  }

  /// What was found; "" if nothing.
  const std::string& problem() const { return problem_; }
  std::size_t line() const {
    return static_cast<std::size_t>(std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n')) +
           1;
  }

 private:
  bool at(std::string_view what) const { return text_.substr(at_, what.size()) == what; }
  void refuse_character() { problem_ = "not TOML, found a non-ASCII character outside a \"text\""; }

  void skip_text(char quote) {
    const std::string three(3, quote);
    const bool lines = at(three);  // a string that may span several lines
    for (at_ += lines ? 3 : 1; at_ < text_.size(); ++at_) {
      if (!lines && text_[at_] == '\n') return;  // never closed: the parser reports it
      if (quote == '"' && text_[at_] == '\\') {
        // A backslash at the end of a line: the white space that follows is skipped.
        while (++at_ < text_.size() && lines && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) continue;
        if (at_ < text_.size() && lines && static_cast<unsigned char>(text_[at_]) > 127) return refuse_character();
        if (at_ < text_.size() && text_[at_ - 1] != '\\') --at_;  // after the white space the string continues
      } else if (lines ? at(three) : text_[at_] == quote) {
        at_ += lines ? 3 : 1;
        for (int more = 0; lines && more < 2 && at_ < text_.size() && text_[at_] == quote; ++more)
          ++at_;  // quotes before the closing three belong to the string
        return;
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string problem_;
};

toml::table parse(const std::string& text, const std::string& file) {
  if (const Scanner scanner(text); !scanner.problem().empty())
    throw InvalidInput(file + ":" + std::to_string(scanner.line()) + ": " + scanner.problem());
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    const std::size_t line = error.source().begin.line;
    std::string key = key_at_line(text, line);
    if (std::any_of(key.begin(), key.end(), [](unsigned char c) { return c > 127; })) key.clear();  // perhaps not UTF-8
    throw InvalidInput(file + ":" + std::to_string(line) + ": " + (key.empty() ? "" : key + ": ") + "not TOML, " +
                       excerpt(std::string(error.description()), 200));
  }
}

/// Where a text first names a parameter of a profile, as "lens.0.center_x"; npos: nowhere.
std::size_t place_of_parameter(std::string_view text) {
  return std::min({text.find("lens."), text.find("source."), text.find("lens_light.")});
}

/// A word without quotes, as a shell passes it (adam, SIE, lens.0.center_x), unless it has a meaning in TOML.
bool is_word(const std::string& text) {
  const std::string word = trimmed(text);
  if (word == "true" || word == "false" || word == "inf" || word == "nan") return false;
  const auto letter = [](unsigned char c) { return std::isalpha(c) != 0; };
  return !word.empty() && letter(static_cast<unsigned char>(word[0])) &&
         std::all_of(word.begin(), word.end(), [&](unsigned char c) {
           return letter(c) || std::isdigit(c) || c == '_' || (c == '.' && place_of_parameter(word) == 0);
         });
}

std::vector<std::string> segments(const std::string& path) {
  std::vector<std::string> result;
  std::istringstream stream(path);
  for (std::string segment; std::getline(stream, segment, '.');) result.push_back(segment);
  return result;
}

/// The index that a segment of a path gives, or the size of the array if it is no valid index.
std::size_t index_in(const toml::array& array, std::string_view segment) {
  const std::optional<std::size_t> index = parse_number<std::size_t>(segment);
  return index && *index < array.size() ? *index : array.size();
}

}  // namespace

// ---- the document ----------------------------------------------------------------------------------------

struct Document::Tree {
  std::string file;
  std::filesystem::path directory;
  std::string origin;  ///< of the overrides: "--set"
  toml::table root;

  /// The node of a path, or null; `around` becomes its innermost existing parent.
  const toml::node* find(std::string_view path, const toml::node** around = nullptr) const {
    const toml::node* node = &root;
    while (!path.empty()) {  // without copies: a configuration is asked for hundreds of paths
      const std::size_t dot = std::min(path.find('.'), path.size());
      const std::string_view segment = path.substr(0, dot);
      path.remove_prefix(std::min(dot + 1, path.size()));
      if (around) *around = node;
      if (const toml::table* table = node->as_table()) {
        node = table->get(segment);
      } else if (const toml::array* array = node->as_array()) {
        node = array->get(index_in(*array, segment));
      } else {
        node = nullptr;
      }
      if (!node) return nullptr;
    }
    return node;
  }
  /// The table of a path, or null when absent.
  const toml::table* table(const std::string& path) const {
    const toml::node* node = find(path);
    if (!node) return nullptr;
    if (!node->is_table()) fail(node->source(), path, "wrong type, found " + described(*node) + ", expected a table");
    return node->as_table();
  }

  /// Where a value was given: "FILE:LINE" or the origin of the overrides.
  std::string place(const toml::source_region& source) const {
    // Tables that an override created have no source.
    const bool overridden = !source.path || *source.path == origin;
    return overridden ? origin : file + ":" + std::to_string(source.begin.line);
  }
  [[noreturn]] void fail(const toml::source_region& source, const std::string& path, const std::string& message) const {
    throw InvalidInput(place(source) + ": " + path + ": " + message);
  }
  /// Adds the places of everything below a node.
  void add_places(const toml::node& node, const std::string& path, std::map<std::string, std::string>& places) const {
    if (!path.empty()) places[path] = place(node.source());
    const std::string prefix = path.empty() ? "" : path + ".";
    if (const toml::table* table = node.as_table())
      for (const auto& [name, child] : *table) add_places(child, prefix + std::string(name.str()), places);
    if (const toml::array* array = node.as_array())
      for (std::size_t i = 0; i < array->size(); ++i) add_places((*array)[i], prefix + std::to_string(i), places);
  }

  std::string resolved(const std::string& path) const { return (directory / path).lexically_normal().string(); }

  class Assignment;

  void put(const Override& setting);
  void assign(const Key& key, const std::string& path, const toml::node& node) const;
  FitsReference reference(const std::string& path, const toml::node& node) const;
};

/// Applies one override as if it were in the file.
void Document::Tree::put(const Override& setting) {
  const auto refuse = [&](const std::string& message) {
    throw InvalidInput(origin + ": " + excerpt(setting.key) + ": " + message);
  };
  const auto unknown = [&](const std::string& message) {
    throw UnknownKey(origin + ": " + excerpt(setting.key) + ": " + message);
  };
  const std::vector<std::string> path = segments(setting.key);
  if (path.size() > kMaxParts) unknown("a key with too many parts, expected at most " + std::to_string(kMaxParts));
  toml::table parsed;
  try {
    const std::string text = is_word(setting.value) ? "\"" + trimmed(setting.value) + "\"" : setting.value;
    parsed = parse("value = " + text, origin);
  } catch (const InvalidInput&) {
    parsed.clear();
  }
  if (parsed.size() != 1)
    refuse("not a TOML value, found " + excerpt(setting.value) +
           R"(, expected a number, true, false, a word, [list] or a "text" with its quotes)");

  toml::node* node = &root;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const bool last = i + 1 == path.size();
    if (toml::table* table = node->as_table()) {
      if (path[i].empty()) unknown("not a key, expected for example optimizer.steps or lens.0.theta_E");
      if (last) {
        parsed.begin()->second.visit([&](auto& value) { table->insert_or_assign(path[i], std::move(value)); });
        return;
      }
      if (!table->contains(path[i])) table->insert(path[i], toml::table{});
      node = table->get(path[i]);
    } else if (toml::array* array = node->as_array()) {
      const std::size_t index = index_in(*array, path[i]);
      if (last || index == array->size())
        unknown("no such component, found " + std::to_string(array->size()) + " in the configuration, expected " +
                excerpt(path[i - 1]) + ".N.KEY with N from 0");
      node = array->get(index);
    } else {
      break;
    }
  }
  unknown("not a key, found " + described(*node) + " before the last dot");
}

FitsReference Document::Tree::reference(const std::string& path, const toml::node& node) const {
  const auto* text = node.as_string();
  if (!text) fail(node.source(), path, "wrong type, found " + described(node) + ", expected a text \"FILE[HDU]\"");
  FitsReference result;
  if (const std::string problem = read_reference(text->get(), result); !problem.empty())
    fail(node.source(), path, problem);
  result.path = resolved(result.path);
  return result;
}

/// Sets the target of a key from its node: std::visit calls the operator for the type of the target.
class Document::Tree::Assignment {
 public:
  Assignment(const Tree& tree, const Key& key, const std::string& path, const toml::node& node)
      : tree_(tree), key_(key), path_(path), node_(node) {}

  void operator()(double* value) const { *value = real(number_text()); }
  void operator()(std::optional<double>* value) const { *value = real(number_text()); }
  void operator()(int* value) const { *value = static_cast<int>(integer(node_)); }
  void operator()(std::uint64_t* value) const { *value = static_cast<std::uint64_t>(integer(node_)); }
  void operator()(bool* value) const {
    if (!node_.is_boolean()) refuse("wrong type", described(node_), "true or false");
    *value = node_.as_boolean()->get();
  }
  void operator()(std::string* value) const { *value = text("a text"); }
  void operator()(std::vector<int>* values) const {
    values->clear();
    for (const toml::node& element : array("a list of integers")) values->push_back(static_cast<int>(integer(element)));
  }
  void operator()(FitsReference* value) const { *value = tree_.reference(path_, node_); }
  void operator()(const NumberOrRelation& value) const {
    *value.relation = {};
    *value.value = 0;
    if (names_parameter(node_))
      *value.relation = relation(node_, number_text());
    else
      *value.value = real(number_text());
  }
  void operator()(const Choice& choice) const {
    const std::size_t index = name(node_, choice.names);
    if (choice.set) choice.set(index);
  }
  void operator()(const WholeNumber& value) const { *value.value = static_cast<double>(integer(node_)); }
  void operator()(const NameSet& set) const {
    for (const toml::node& element : array("a list of names")) {
      const std::size_t index = name(element, set.names);
      if (set.get(index)) refuse("a name given twice", "\"" + set.names[index] + "\"", "it once");
      set.add(index);
    }
  }
  void operator()(const NameList& list) const {
    list.names->clear();
    for (const toml::node& element : array("a list of names")) {
      if (!element.is_string()) refuse("wrong type", described(element), "a list of names");
      list.names->push_back(element.as_string()->get());
    }
  }
  void operator()(const FilePath& target) const {
    const std::string given = text("a text \"FILE\"");
    *target.path = given.empty() ? "" : tree_.resolved(given);
  }
  void operator()(const Interval& interval) const {
    const std::string expected = with_range("[lower, upper], two numbers", key_.bounds, key_.unit);
    const toml::array* ends = node_.as_array();
    const bool numbers = ends && ends->size() == 2 && (*ends)[0].is_number() && (*ends)[1].is_number();
    if (!numbers) refuse("wrong type", described(node_), expected);
    const double lower = *(*ends)[0].value<double>(), upper = *(*ends)[1].value<double>();
    const std::string found = "[" + toml_number(lower) + ", " + toml_number(upper) + "]";
    if (!key_.bounds.contain(lower) || !key_.bounds.contain(upper)) refuse("out of range", found, expected);
    if (!(lower < upper)) refuse("an empty interval", found, "lower < upper");
    *interval.lower = lower;
    *interval.upper = upper;
  }
  void operator()(const Normal& normal) const {
    const std::string expected = "a table { mean = NUMBER or \"PARAMETER\", sigma = NUMBER > 0 }";
    const toml::table* table = node_.as_table();
    if (!table) refuse("wrong type", described(node_), expected);
    for (const auto& [member, child] : *table)
      if (member.str() != "mean" && member.str() != "sigma")
        tree_.fail(child.source(), path_,
                   "unknown key, found " + excerpt(std::string(member.str())) + ", expected " + expected);
    const toml::node *const mean = table->get("mean"), *const sigma = table->get("sigma");
    if (!mean || !sigma) refuse("incomplete", mean ? "no sigma" : "no mean", expected);
    const bool follows = names_parameter(*mean);
    if ((!mean->is_number() && !follows) || !sigma->is_number())
      refuse("wrong type", described(sigma->is_number() ? *mean : *sigma), expected);
    *normal.mean_of = follows ? relation(*mean, expected) : Relation{};
    *normal.mean = follows ? 0 : *mean->value<double>();
    *normal.sigma = *sigma->value<double>();
    if (!std::isfinite(*normal.mean) || !(*normal.sigma > 0) || !std::isfinite(*normal.sigma))
      refuse("out of range", "mean = " + toml_number(*normal.mean) + ", sigma = " + toml_number(*normal.sigma),
             expected);
  }
  void operator()(const MapOrNumber& value) const {
    if (node_.is_string())
      *value.map = tree_.reference(path_, node_);
    else
      *value.number = real("a text \"FILE[HDU]\" or " + number_text());
  }
  void operator()(const MapOrTable& value) const {
    if (node_.is_string())
      *value.map = tree_.reference(path_, node_);
    else if (!node_.is_table())
      refuse("wrong type", described(node_), "a text \"FILE[HDU]\" or a table");
  }
  /// Checks the type only: the caller reads the table itself.
  void operator()(const SubTable& table) const {
    const bool right = table.array ? node_.is_array() : node_.is_table();
    const std::string brackets = table.array ? "[[" + key_.name + "]]" : "[" + key_.name + "]";
    if (!right) refuse("wrong type", described(node_), brackets);
    if (!table.array) return;
    for (const toml::node& element : *node_.as_array())
      if (!element.is_table()) refuse("wrong type", described(element), "tables, " + brackets);
  }

 private:
  [[noreturn]] void refuse(const std::string& what, const std::string& found, const std::string& expected) const {
    tree_.fail(node_.source(), path_, what + ", found " + found + ", expected " + expected);
  }
  /// Whether a text is meant as a relation.
  static bool names_parameter(const toml::node& node) {
    const auto* text = node.as_string();
    return text && place_of_parameter(text->get()) != std::string::npos;
  }
  /// @param expected  in place of a relation
  Relation relation(const toml::node& from, const std::string& expected) const {
    const std::optional<Relation> found = parse_relation(from.as_string()->get());
    if (!found)
      refuse("not a relation", described(from),
             expected + ", or the parameter that it follows: \"FACTOR * lens_light.0.center_x + OFFSET\"");
    return *found;
  }
  std::string number_text() const { return with_range("a number", key_.bounds, key_.unit); }

  double real(const std::string& expected) const {
    const std::optional<double> value = node_.is_number() ? node_.value<double>() : std::nullopt;
    if (!value) refuse("wrong type", described(node_), expected);
    if (!key_.bounds.contain(*value)) refuse("out of range", with_unit(toml_number(*value), key_.unit), expected);
    return *value;
  }
  std::int64_t integer(const toml::node& from) const {
    const std::string expected = with_range("an integer", key_.bounds, key_.unit);
    if (!from.is_integer()) refuse("wrong type", described(from), expected);
    const std::int64_t value = from.as_integer()->get();
    if (!key_.bounds.contain(static_cast<double>(value)))
      refuse("out of range", with_unit(std::to_string(value), key_.unit), expected);
    return value;
  }
  /// The index of a name among the valid ones.
  std::size_t name(const toml::node& from, const std::vector<std::string>& valid) const {
    if (!from.is_string()) refuse("wrong type", described(from), "one of " + quoted(valid));
    const std::string& given = from.as_string()->get();
    const auto found = std::find(valid.begin(), valid.end(), given);
    if (found == valid.end()) refuse("no such name", "\"" + excerpt(given) + "\"", translated(given, valid));
    return static_cast<std::size_t>(found - valid.begin());
  }
  std::string text(const std::string& expected) const {
    if (!node_.is_string()) refuse("wrong type", described(node_), expected);
    return node_.as_string()->get();
  }
  const toml::array& array(const std::string& expected) const {
    if (!node_.is_array()) refuse("wrong type", described(node_), expected);
    return *node_.as_array();
  }

  const Tree& tree_;
  const Key& key_;
  const std::string& path_;
  const toml::node& node_;
};

void Document::Tree::assign(const Key& key, const std::string& path, const toml::node& node) const {
  std::visit(Assignment(*this, key, path, node), key.target);
}

Document::Document(const std::string& file, const std::vector<Override>& overrides)
    : Document(TomlText{read_text(file), file}, overrides) {}

Document::Document(const TomlText& toml, const std::vector<Override>& overrides) : tree_(std::make_unique<Tree>()) {
  tree_->file = toml.name;
  tree_->directory = std::filesystem::path(toml.name).parent_path();
  tree_->origin = overrides.empty() ? Override{}.origin : overrides.front().origin;
  tree_->root = parse(toml.text, toml.name);
  for (std::size_t i = 0; i < overrides.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j)
      if (overrides[i].key == overrides[j].key)
        throw InvalidInput(tree_->origin + ": " + excerpt(overrides[i].key) + ": given twice, found " +
                           excerpt(overrides[j].value) + " and " + excerpt(overrides[i].value) + ", expected it once");
    tree_->put(overrides[i]);
  }
}

Document::~Document() = default;

void Document::read_one(const std::string& path, const Key& key) const {
  const std::string full = path.empty() ? key.name : path + "." + key.name;
  const toml::node* node = tree_->find(full);
  const bool applies = !key.condition || key.condition->holds();
  if (node && !applies)
    tree_->fail(node->source(), full,
                "has no effect, found " + described(*node) + ", expected only " + key.condition->text);
  if (node) return tree_->assign(key, full, *node);
  if (key.required && applies)
    fail(full, "missing, expected " + with_range(type_text(key.target), key.bounds, key.unit));
}

void Document::read(const std::string& path, const Keys& keys) const {
  const std::string prefix = path.empty() ? "" : path + ".";
  if (const toml::table* table = path.empty() ? &tree_->root : tree_->table(path)) {
    std::vector<std::string> names;
    for (const Key& key : keys) names.push_back(key.name);
    for (const auto& [name, node] : *table) {
      const std::string given(name.str());
      if (std::find(names.begin(), names.end(), given) != names.end()) continue;
      const bool from_file = name.source().path && *name.source().path != tree_->origin;
      throw UnknownKey(tree_->place(from_file ? name.source() : node.source()) + ": " + prefix + excerpt(given) +
                       ": unknown key, found " + excerpt(given) + ", expected " + translated(given, names));
    }
  }
  for (const Key& key : keys) read_one(path, key);
}

bool Document::has(const std::string& path) const {
  return tree_->find(path) != nullptr;
}

std::size_t Document::size(const std::string& path) const {
  const toml::node* node = tree_->find(path);
  return node && node->is_array() ? node->as_array()->size() : 0;
}

std::map<std::string, std::string> Document::places() const {
  std::map<std::string, std::string> places;
  tree_->add_places(tree_->root, "", places);
  return places;
}

void Document::fail(const std::string& path, const std::string& message) const {
  const toml::node* around = &tree_->root;
  const toml::node* node = tree_->find(path, &around);
  tree_->fail((node ? node : around)->source(), path, message);
}

// ---- text ------------------------------------------------------------------------------------------------

std::string write_keys(const Keys& keys) {
  std::string text;
  for (const Key& key : keys) {
    if (key.condition && !key.condition->holds()) continue;
    if (const std::optional<std::string> value = value_text(key.target)) text += key.name + " = " + *value + "\n";
  }
  return text;
}

std::string list_table(const std::string& title, const std::string& prefix, const Keys& keys) {
  std::vector<std::vector<std::string>> rows;
  for (const Key& key : keys) {
    const std::optional<std::string> value = value_text(key.target);
    const std::string condition = key.condition ? "; only " + key.condition->text : "";
    rows.push_back({prefix + key.name, type_text(key.target), key.unit, key.bounds.text(),
                    key.required ? "required" : value.value_or("none"), key.help + condition});
  }
  std::vector<std::size_t> widths(5);
  for (auto& row : rows)
    for (std::size_t i = 0; i < widths.size(); ++i) {
      if (row[i].empty()) row[i] += '-';
      widths[i] = std::max(widths[i], row[i].size());
    }
  std::string text = title + "\n";
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < widths.size(); ++i) text += "  " + row[i] + std::string(widths[i] - row[i].size(), ' ');
    text += row.back().empty() ? "" : "  " + row.back();
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  return text;
}

}  // namespace einfield
