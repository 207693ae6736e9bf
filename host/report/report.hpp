// report.html: one page that holds everything a fit has to show, made from its directory of results alone.
#pragma once

#include <string>
#include <vector>

namespace einfield {

/// Writes DIRECTORY/report.html: pictures, numbers, tables, the configuration and how to repeat the run. The page needs
/// no other file, no network and no script, and fits a phone as well as a wide screen, on white and on black. What
/// result.json does not have is left out; text from users stands in it as text.
/// @param threads  for the critical curves; 0 = as many as the process may use
/// @return warnings: what could not be drawn, which the page says too
/// @throws InvalidInput without a readable result.json, IoError
std::vector<std::string> write_report(const std::string& directory, int threads = 0);

/// Text for HTML, in elements and in quoted attributes: & < > " ' as entities; other control characters than line break
/// and tab, and what is not UTF-8, as the replacement character.
std::string html_text(const std::string& text);

/// Bytes in base64 (RFC 4648), padded.
std::string base64(const std::string& bytes);

}  // namespace einfield
