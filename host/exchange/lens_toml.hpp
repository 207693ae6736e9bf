// The configuration that is made of a lens from another package.
#pragma once

#include <string>
#include <vector>

#include "host/exchange/exchange.hpp"

namespace einfield {

/// Writes DIR/lens.toml for `einfield fit` (without an image: for `einfield simulate`), DIR/lens.fits with its maps,
/// and DIR/network.safetensors and DIR/light_network.safetensors if there are such networks.
/// @return the path of the configuration
/// @throws InvalidInput if one of the files exists and `overwrite` is false; IoError
std::string write_configuration(const std::string& dir, const ExchangedLens& lens, const std::string& title,
                                bool overwrite);

/// Creates a directory for files of these names. @throws InvalidInput if one of them exists and `overwrite` is false;
/// IoError
void prepare_directory(const std::string& dir, const std::vector<std::string>& files, bool overwrite);

}  // namespace einfield
