// The figures of a fit, made from the assessed fit or from its directory of results.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "einfield/results.hpp"
#include "host/fields/critical_curves.hpp"
#include "host/report/picture.hpp"
#include "host/results/assess.hpp"

namespace einfield {

/// A map with its place on the sky or in the source plane.
struct PlacedMap {
  int nx = 0;
  int ny = 0;
  double pixel_scale = 1;  ///< arcsec
  double center_x = 0;     ///< arcsec; coordinates of the middle of the map
  double center_y = 0;
  std::vector<double> values;  ///< (ny, nx)
  std::string unit;
};

/// A potential with its derivatives.
struct LensMaps {
  PlacedMap psi;               ///< arcsec²
  PlacedMap alpha_x, alpha_y;  ///< arcsec
  PlacedMap kappa;
};

/// What the figures show of one fit: maps of result.fits, rows of history.csv, numbers of result.json. Where most of
/// the image is masked, maps are cut to the used part.
struct FittedMaps {
  std::string title;                ///< of the configuration
  PlacedMap data, model, residual;  ///< data and residual are NaN where masked
  PlacedMap noise;
  std::optional<PlacedMap> arcs, arcs_model;  ///< data and model without the lens light; empty without lens light
  PlacedMap source;
  LensMaps macro, network;
  std::optional<LensMaps> deviation;     ///< 1 σ of the network's maps
  std::optional<PlacedMap> ratio;        ///< κ of the network over its error, at the resolution of the data
  std::optional<PlacedMap> sensitivity;  ///< change of a pixel in σ per arcsec of deflection [1/arcsec]
  std::optional<PlacedMap> image_truth;
  std::optional<LensMaps> truth;
  std::vector<std::uint8_t> used;  ///< 1 = used in the fit
  std::size_t n_pixels = 0;        ///< of the whole image
  std::vector<std::uint8_t> arc;   ///< 1 = used and noise-free truth above 5 σ; empty without truth
  std::optional<Compass> compass;  ///< where the WCS of the image is known
  std::vector<double> steps, loss, chi2;
  std::vector<std::pair<std::string, double>> metrics;

  /// Whether the network deflects anywhere.
  bool has_network() const;
  /// A number of result.json, or NaN.
  double metric(const std::string& name) const;
};

/// @throws InvalidInput when the directory holds no complete results
FittedMaps read_fitted_maps(const std::string& directory);
/// The same from memory: bit by bit what read_fitted_maps() returns after write_results().
FittedMaps fitted_maps(const Assessment& assessed);

/// The maps of a search for a perturber.
struct SearchMaps {
  PlacedMap significance;  ///< of an SIS [σ]
  PlacedMap limit;         ///< smallest θ_E that would have been seen [arcsec]
};

/// @param file  detect.fits. @throws InvalidInput when it is not there or lacks them
SearchMaps read_search_maps(const std::string& file);
Picture picture_of_search(const SearchMaps& search);  ///< significance | limit

// One picture each; the caller sets its path and title. The last three need the truth.
Picture picture_of_image(const FittedMaps& fit);        ///< data | model, or both without lens light | residuals
Picture picture_of_history(const FittedMaps& fit);      ///< loss and reduced χ² over the steps
Picture picture_of_potential(const FittedMaps& fit);    ///< truth | prediction | residual, means removed
Picture picture_of_deflection(const FittedMaps& fit);   ///< the same, x above y
Picture picture_of_convergence(const FittedMaps& fit);  ///< the same for κ

/// A picture of the report with its heading and caption.
struct PageFigure {
  std::string section;  ///< "image", "planes", "smooth", "network", "truth", "fit", "search"
  std::string title;
  std::string caption;  ///< "" = none
  Picture picture;
};

/// The pictures of the report: one map or chart each, without a title.
/// @param lines  critical curves and caustics, for the pictures of the two planes
std::vector<PageFigure> page_figures(const FittedMaps& fit, const CriticalCurves& lines);

/// Those of a search.
std::vector<PageFigure> page_figures(const SearchMaps& search);

/// Draws every figure of the fit into DIRECTORY/figures/*.png; returns warnings. draw_figures(directory) of
/// einfield/results.hpp reads the fit first.
/// @throws IoError
std::vector<std::string> draw_figures(const FittedMaps& fit, const std::string& directory);

}  // namespace einfield
