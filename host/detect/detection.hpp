// Is there a perturber? A map of the mass that each place may have, candidates and what else explains the data as well,
// mocks without a perturber that are fitted in the same way, and the masses that would have been seen.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "einfield/cosmology.hpp"
#include "einfield/source.hpp"
#include "host/detect/explanation.hpp"

namespace einfield {

struct DetectionSettings {
  int nulls = 20;          ///< mocks without a perturber
  int injections = 6;      ///< mocks with one, which check the map of what would have been seen
  std::uint64_t seed = 1;  ///< of the mocks
};

/// A place where the map is highest in its surroundings.
struct Candidate {
  Vec2<double> place;       ///< of the map [arcsec]
  double significance = 0;  ///< of the map
  double theta_E = 0;       ///< of the map [arcsec]
  double limit = 0;         ///< smallest theta_E that would have been seen there [arcsec]
};

/// A profile that an explanation has beside those of the smooth lens.
struct AddedLens {
  std::vector<std::string> names;     ///< of its free parameters
  std::vector<double> values, sigma;  ///< [arcsec, rad]; sigma NaN = not determined
  LensComponent lens;                 ///< with all parameters [arcsec, rad]
};

/// What the data say of another explanation, compared with the smooth lens.
struct Alternative {
  std::string name;
  double evidence_gain = 0;  ///< of ln evidence
  double bic_change = 0;     ///< of χ² + k ln N, k the parameters that are added; < 0 speaks for it
  double chi2_fall = 0;      ///< of χ²
  double chi2_reduced = 0;
  std::size_t parameters = 0;
  bool converged = false;
  std::optional<double> held_out_fall;  ///< of χ² summed over arcs that the fit did not see, where that was computed
  std::vector<AddedLens> added;
};

/// A mock without a perturber.
struct NullMock {
  bool multipoles = false;  ///< the lens of the mock has multipoles that the fit does not know of
  double significance = 0;  ///< highest of its map
};

struct Injection {
  Vec2<double> place;   ///< [arcsec]
  double theta_E = 0;   ///< [arcsec]
  double expected = 0;  ///< significance
  double found = 0;
};

struct Detection {
  PixelGrid grid;  ///< of the maps [arcsec]
  /// (ny, nx), NaN outside the used pixels: theta_E of an SIS and its 1 σ, both [arcsec], their ratio, and the smallest
  /// theta_E that would have been seen [arcsec].
  std::vector<double> theta_E, sigma, significance, limit;
  double highest = 0;                     ///< of `significance`
  double by_chance = 0;                   ///< probability of as much where the model is right, from 10⁴ draws
  double seen = 0;                        ///< significance that 5 % of what has no perturber reach
  std::vector<Candidate> candidates;      ///< the highest first
  std::vector<Alternative> alternatives;  ///< the candidates' SIS first, the best first
  std::vector<NullMock> nulls;
  std::vector<Injection> injections;
  double chi2_reduced = 0;              ///< of the smooth lens
  double chi2_allowed = 0;              ///< of an explanation that fits to the noise, at most
  double log_evidence = 0;              ///< of the smooth lens
  std::optional<double> held_out_chi2;  ///< of the smooth lens, per pixel that it was not fitted to
  bool converged = false;               ///< the smooth lens

  /// Share of the mocks whose map is as high: (n + 1)/(N + 1); nothing without mocks.
  std::optional<double> p_value() const;
  /// The best perturber, or null. It counts as found where the evidence asks for it, with and without multipoles, the
  /// data are fitted, and fewer than 5 % of what has none come as far.
  const Alternative* best() const;
  const Alternative* named(const std::string& name) const;
  /// The names of the explanations that are as good as the best perturber, by ln evidence.
  std::vector<std::string> as_good() const;
  bool found() const;
  /// Whether the best explanation fits the data; without that nothing is significant.
  bool fits() const;
};

/// Upper limit of the bytes of a search, checked before it begins. @param problem  of the smooth lens
std::size_t detection_bytes(const Problem& problem, int threads);

/// @param smooth       the fitted lens without a network, in the units of the fit
/// @param angle        their unit of angle [arcsec]
/// @param done         mocks of an earlier run, in order
/// @param say          takes a line of the log
/// @param keep         takes the mocks so far, after each
/// @param interrupted  true ends the run with InterruptedDetection
Detection detect(const Explanation& smooth, double angle, const DetectionSettings& settings, ThreadPool& pool,
                 std::vector<NullMock> done, const std::function<void(const std::string&)>& say,
                 const std::function<void(const std::vector<NullMock>&)>& keep,
                 const std::function<bool()>& interrupted);

/// Mass of a circular lens inside a projected radius of 1 kpc [solar masses]. @param lens  [arcsec]
double mass_within_kpc(const Cosmology& cosmology, const LensComponent& lens);
/// That of an SIS. @param theta_E  [arcsec]
double mass_within_kpc(const Cosmology& cosmology, double theta_E);

/// The answer in sentences.
std::string in_words(const Detection& detection, const std::optional<Cosmology>& cosmology);

}  // namespace einfield
