// Pieces of an HTML page that needs no other file.
#pragma once

#include <string>

namespace einfield {

/// Text for HTML, in elements and in quoted attributes: & < > " ' as entities; other control characters than line break
/// and tab, and bytes that are not UTF-8, as the replacement character.
std::string html_text(const std::string& text);

/// Bytes in base64 (RFC 4648), padded.
std::string base64(const std::string& bytes);

/// <tag attributes>content</tag>. The content is HTML.
std::string element(const std::string& tag, const std::string& content, const std::string& attributes = "");

/// A table. On a narrow screen it scrolls sideways within the page. @param head  its cells, @param body  its rows; HTML
std::string table(const std::string& head, const std::string& body);

/// A whole page in light and dark colors, for a phone and for a wide screen. Its content security policy allows only
/// what is in the page and the scripts that it is given.
/// @param title    text; the rest is HTML
/// @param scripts  sources of scripts in the words of a content security policy; "" = no script runs
std::string html_page(const std::string& title, const std::string& header, const std::string& main,
                      const std::string& footer, const std::string& scripts = "");

}  // namespace einfield
