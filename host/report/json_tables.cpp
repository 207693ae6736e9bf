// Arrays and objects become rows; nested objects become columns.
#include "host/report/json_tables.hpp"

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "host/files/text.hpp"
#include "host/report/html.hpp"

namespace einfield {

using nlohmann::ordered_json;

std::string words(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return rounded(value.get<double>());
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "–";
  if (!value.is_structured()) return value.dump();
  std::string list;
  for (const auto& [name, entry] : value.items())
    list += (list.empty() ? "" : ", ") + (value.is_object() ? name + " = " : "") + words(entry);
  return list;
}

const ordered_json& member(const ordered_json& object, const std::string& name) {
  static const ordered_json none;
  if (!object.is_object()) return none;
  const auto found = object.find(name);
  return found == object.end() ? none : *found;
}

std::string text_of(const ordered_json& object, const std::string& name) {
  const ordered_json& value = member(object, name);
  return value.is_null() ? "" : words(value);
}

namespace {

/// "stop_reason" → "Stop reason"; names of parameters, which have a dot, stay as they are.
std::string heading(std::string name) {
  if (name.find('.') != std::string::npos) return name;
  std::replace(name.begin(), name.end(), '_', ' ');
  if (!name.empty()) name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  return name;
}

std::string cell(const ordered_json& value) {
  return element("td", html_text(words(value)), value.is_number() ? "class=\"number\"" : "");
}

/// A table of an array of objects: a column for every name that occurs, those of an object in a row as well.
std::string table_of_rows(const ordered_json& nested) {
  ordered_json rows = ordered_json::array();
  for (const ordered_json& row : nested) {
    ordered_json flat = ordered_json::object();
    for (const auto& [name, value] : row.items())
      if (value.is_object())
        flat.update(value);
      else
        flat[name] = value;
    rows.push_back(std::move(flat));
  }
  std::vector<std::string> names;
  for (const ordered_json& row : rows)
    for (const auto& [name, value] : row.items())
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  std::string head = element("th", "#"), body;
  for (const std::string& name : names) head += element("th", html_text(heading(name)));
  int count = 0;
  for (const ordered_json& row : rows) {
    std::string cells = element("td", std::to_string(count++), "class=\"number\"");
    for (const std::string& name : names) cells += cell(member(row, name));
    body += element("tr", cells) + "\n";
  }
  return table(head, body);
}

}  // namespace

std::string block_html(const ordered_json& value) {
  const auto holds_objects = [](const ordered_json& v) {
    return v.is_structured() && !v.empty() &&
           std::all_of(v.begin(), v.end(), [](const auto& e) { return e.is_object(); });
  };
  if (value.is_array() && holds_objects(value)) return table_of_rows(value);
  if (!value.is_object()) return element("p", html_text(words(value)));
  std::string rows, below;
  for (const auto& [name, entry] : value.items()) {
    if (entry.is_array() && holds_objects(entry)) {
      below += element("h3", html_text(heading(name))) + table_of_rows(entry);
    } else if (holds_objects(entry)) {
      ordered_json named = ordered_json::array();
      for (const auto& [key, object] : entry.items()) {
        ordered_json row = {{"name", key}};
        row.update(object);
        named.push_back(std::move(row));
      }
      below += element("h3", html_text(heading(name))) + table_of_rows(named);
    } else {
      rows += element("tr", element("th", html_text(heading(name)), "scope=\"row\"") + cell(entry)) + "\n";
    }
  }
  return (rows.empty() ? "" : table("", rows)) + below;
}

}  // namespace einfield
