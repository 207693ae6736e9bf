// The keys of every block of the configuration. Reading, checking, `info --keys` and the written configuration all
// follow from these tables (host/config/keys.hpp); a new key is one line in key_tables.cpp.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "einfield/config.hpp"
#include "einfield/profile.hpp"
#include "host/config/keys.hpp"

namespace einfield {

inline constexpr int kMaxSteps = 1'000'000'000;
inline constexpr int kMaxScheduled = 10'000'000;  ///< steps with a schedule: one learning rate is stored per step
inline constexpr std::size_t kMaxStages = 100;
inline constexpr const char* kRandomField = "GAUSSIAN_RANDOM_FIELD";  ///< profile of a [[perturbation]]

/// Every table binds its keys to the members of the struct that it is given; that struct must outlive the table.
Keys top_keys(Config& c);
/// @param need_image  observation.image is required
Keys observation_keys(ObservationConfig& o, bool need_image);
Keys psf_keys(PsfConfig& psf);
Keys region_keys(RegionConfig& r);
/// `shape` of a region, which decides which of the other keys apply: read it first.
Key shape_key(RegionConfig& r);

/// `profile` of a component, which decides its other keys: read it first. Reading it gives the component the defaults
/// of the profile; parameters without a default are NaN.
Key profile_choice(LensComponent& c);
Key profile_choice(LightComponent& c);
/// Gives a component the defaults of its profile.
void set_defaults(LensComponent& c);
void set_defaults(LightComponent& c);
Keys lens_keys(LensComponent& c);
/// A lens component without `fit`, `bounds` and `prior`: simulated mass is not fitted.
Keys perturbation_keys(LensComponent& c);
Keys random_field_keys(RandomFieldConfig& f);
Keys light_keys(LightComponent& c, LightStart& start);
inline constexpr const char* kExpansion = "MULTI_GAUSSIAN_ELLIPSE";  ///< profile that stands for several components
/// A multi-Gaussian expansion (Cappellari 2002): GAUSSIAN_ELLIPSE components of one center and one ellipticity, with
/// sizes in equal steps of their logarithm.
struct Expansion {
  int components = 20;
  double sigma_min = 0, sigma_max = 0;  ///< [arcsec]
};
/// @param c  GAUSSIAN_ELLIPSE: center, ellipticity, what is free, and the sum of all amplitudes
Keys expansion_keys(LightComponent& c, Expansion& e);
/// Defaults of the network of a NETWORK component: a source is smaller than its image, so the scales are smaller too.
NetworkConfig light_network_defaults();
/// Keys of the tables `bounds` and `prior` of a component. @param priors  one per parameter
Keys bounds_keys(const ProfileInfo& info, std::vector<ParameterPrior>& priors);
Keys prior_keys(const ProfileInfo& info, std::vector<ParameterPrior>& priors);

Keys network_keys(NetworkConfig& n);
/// The keys that [optimizer] and a stage share.
Keys shared_stage_keys(StageConfig& s);
/// The keys of a stage.
Keys stage_keys(StageConfig& s);
Keys optimizer_keys(OptimizerConfig& o);
/// Weights of the penalties on the network's potential and weights, and of those on pixels of the source.
Keys network_penalty_keys(RegularizationConfig& r);
Keys source_penalty_keys(RegularizationConfig& r);
Keys regularization_keys(RegularizationConfig& r);
Keys uncertainty_keys(UncertaintyConfig& u);
Keys cosmology_keys(Cosmology& c);
Keys truth_keys(FitsReference& truth);
Keys simulate_keys(SimulateConfig& s);

/// Whether [optimizer] or one of its stages stops by one of these rules.
bool stops_by(const OptimizerConfig& o, std::initializer_list<StopRule> rules);

}  // namespace einfield
