// Values and blocks of result.json as HTML.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace einfield {

/// A value for a reader, not yet HTML: six digits, lists with commas, a dash for null.
std::string words(const nlohmann::ordered_json& value);

/// The member of an object; null where there is none.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, const std::string& name);

/// words() of a member; "" where there is none.
std::string text_of(const nlohmann::ordered_json& object, const std::string& name);

/// Any block of result.json: its numbers as a table; below it, a table for each array of objects and each object of
/// objects.
std::string block_html(const nlohmann::ordered_json& value);

}  // namespace einfield
