// What a fit leaves behind: result.fits, result.json, history.csv, network.safetensors and, with a NETWORK component,
// source_network.safetensors (or lens_light_network.safetensors). `result.json` is written last and removed first:
// where it is, they belong together.
#pragma once

#include <string>
#include <vector>

#include "einfield/load.hpp"
#include "host/fit/strengths.hpp"

namespace einfield {

/// True when `dir` holds anything that a run has written: results, or a checkpoint of one that was cut short.
bool holds_results(const std::string& dir);

/// "network.safetensors", "network.1.safetensors" …: where the network of a member of an ensemble is kept.
/// @param network  "network", or what the network of a NETWORK component is called
std::string network_file(std::size_t member, const std::string& network = "network");

/// Who computed.
struct RunInfo {
  std::string backend;                     ///< "cpu" or "cuda"
  std::string device;                      ///< Backend::device()
  std::string precision;                   ///< "single" or "double"
  std::string command{};                   ///< that started the run, for a shell; "" = unknown
  std::vector<TriedStrength> strengths{};  ///< of the regularisation; empty = it is as given
};

/// A member of an ensemble is in another valley when its loss and regularisation lie this much, relative, above the
/// lowest of all, and most members do not: at 100 × 100 pixels a χ² higher by 500.
inline constexpr double kFarAbove = 0.05;

/// Why members do not count, one line each, "" for those that do: a member that went wrong or ended in another valley
/// is told and left out of all means, unless all went wrong.
template <class Real>
std::vector<std::string> left_out(const Config& config, const std::vector<FitResult<Real>>& results);

/// Writes all results of a fit. They are made in a hidden folder of `dir` first; only when every one is complete do
/// they take the place of earlier ones, so a full disk leaves the earlier results as they were.
///
/// HDUs of result.fits, by EXTNAME, at pixel centres, in the precision of the run (MASK: bytes):
///
///     DATA NOISE MASK PSF MODEL          the observation, and the model after the PSF; without a PSF one pixel of 1
///     RESIDUAL                           (data − model)/noise; NaN where masked
///     SOURCE                             source plane on its own grid: around what the arcs are traced to, or, for one
///                                        PIXELATED component, its grid; without pixel-area factor
///     PSI_NN ALPHA_NN KAPPA_NN           of the network, 0 without one; ALPHA_* have two planes: x, then y
///     PSI_MACRO ALPHA_MACRO KAPPA_MACRO  of the smooth model
///     PSI_TRUE ALPHA_TRUE KAPPA_TRUE IMAGE_TRUE   when [truth] is given
///     SOURCE_<i> LENS_LIGHT_<i>          the pixels of every other PIXELATED component
///
///     PSI_NN_STD ALPHA_NN_STD KAPPA_NN_STD        standard deviation over the members of an ensemble
///
/// Where the image has a celestial WCS, the maps on its grid have it as WCS A beside their own in arcsec.
///
/// Of an ensemble, maps and the values of parameters are means over the members that count (each potential less its
/// mean over the used pixels), history.csv is the first one's, and network.safetensors, network.1.safetensors … are
/// their networks.
/// @param results       one per member
/// @param model_images  Field::model of the backend at their parameters, (ny, nx)
/// @param threads       for the maps of the network; 0 = as many as the process may use
/// @return one paragraph for people: how well it fits, and, with truth, how far it is off
/// @throws IoError
template <class Real>
std::string write_results(const std::string& dir, const Config& config, const LoadedProblem& loaded,
                          const std::vector<FitResult<Real>>& results,
                          const std::vector<std::vector<Real>>& model_images, const RunInfo& info, int threads);

}  // namespace einfield
