// Pages in a headless browser, for tests that are skipped where none is installed.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "tests/temporary_directory.hpp"

namespace einfield {

inline std::optional<std::string> browser() {
  for (const char* name : {"chromium", "chromium-browser", "google-chrome"})
    if (std::system((std::string("command -v ") + name + " > /dev/null 2>&1").c_str()) == 0) return name;
  return std::nullopt;
}

/// The document of a page after its scripts have run, without a message on the console.
/// @param directory  for the browser's own files
/// @param address    "file:///…"
inline std::string document_in_browser(const TemporaryDirectory& directory, const std::string& address,
                                       bool dark = false) {
  const std::string command = "timeout 300 " + browser().value() +
                              " --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
                              "--enable-logging=stderr --window-size=1600,1200 --virtual-time-budget=60000 "
                              "--blink-settings=preferredColorScheme=" +
                              (dark ? "0" : "1") + " --user-data-dir='" + (directory / "profile") + "' --dump-dom '" +
                              address + "' > '" + (directory / "dom.html") + "' 2> '" + (directory / "messages.txt") +
                              "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << directory.read("messages.txt");
  EXPECT_EQ(directory.read("messages.txt").find("CONSOLE"), std::string::npos) << directory.read("messages.txt");
  return directory.read("dom.html");
}

}  // namespace einfield
