// The verdict on a fit: its status, and the flags that say what may be wrong with it. One table; result.json, the
// report, the log and `einfield info --flags` are made of it.
#pragma once

#include <string>
#include <vector>

#include "einfield/core.hpp"

namespace EINFIELD_API einfield {

enum class FitStatus {
  ok,       ///< no flag
  suspect,  ///< the result may be wrong: at least one flag
  failed,   ///< there is no result: a number is not finite, or the data cannot determine the model
};

inline constexpr Named<FitStatus> kFitStatuses[] = {
    {"ok", FitStatus::ok}, {"suspect", FitStatus::suspect}, {"failed", FitStatus::failed}};
constexpr const char* name_of(FitStatus status) {
  return name_in(kFitStatuses, status);
}

/// What may be wrong. The order is that of kFlags; new ones come at the end.
enum class Flag {
  non_finite,
  fewer_pixels,
  not_converged,
  step_limit,
  no_steps,
  line_search_failed,
  one_start,
  starts_disagree,
  at_bound,
  off_prior,
  shear_implausible,
  axis_ratio_implausible,
  mass_flatter_than_light,
  mass_off_light,
  source_implausible,
  chi2_high,
  chi2_low,
  chi2_arcs,
  arcs_unexplained,
  no_arcs,
  source_grid,
  mask,
  mask_polarity,
  undersampled,
  psf_off_center,
  psf_sampling,
  sentinel_values,
  not_determined,
  members_not_converged,
  negative_mass,
  source_coarse,
  network_moves_lens,
};

struct FlagInfo {
  Flag flag;
  const char* name;
  FitStatus status;     ///< of a fit with this flag, at least
  const char* meaning;  ///< one sentence; "{}" stands for the threshold
  double threshold;     ///< 0 when the meaning has none
  const char* reason;   ///< why the threshold has this value
};

/// Every flag with its threshold. Thresholds are physical or statistical: they are not fitted to any set of lenses.
/// Those on a parameter apply only when the parameter is free.
inline constexpr FlagInfo kFlags[] = {
    {Flag::non_finite, "non_finite", FitStatus::failed, "chi2, a parameter or the model image is not a finite number",
     0, ""},
    {Flag::fewer_pixels, "fewer_pixels", FitStatus::failed, "fewer fitted pixels than free parameters of profiles", 0,
     "every image is then fitted by many models"},
    {Flag::not_converged, "not_converged", FitStatus::suspect,
     "one more Gauss-Newton step would lower chi2 by more than {}, or Adam still lowered reduced chi2 by 0.1 in its "
     "last "
     "tenth of steps",
     1, "some combination of parameters is then off by more than its 1 sigma"},
    {Flag::step_limit, "step_limit", FitStatus::suspect,
     "all steps were made before L-BFGS, Levenberg-Marquardt or a stopping rule ended, and a minimum is not known to "
     "be "
     "reached",
     0, "raise optimizer.steps"},
    {Flag::no_steps, "no_steps", FitStatus::suspect, "the fit ended where it started, without a step", 0,
     "a start is a minimum only by accident"},
    {Flag::line_search_failed, "line_search_failed", FitStatus::suspect,
     "L-BFGS found no lower point although a Gauss-Newton step would lower chi2 by more than {}", 1,
     "as for not_converged; brightness with a cusp on a ray does this"},
    {Flag::one_start, "one_start", FitStatus::suspect,
     "Levenberg-Marquardt had a single start and chi2 is significantly above {}", 1,
     "another minimum may fit better: raise optimizer.starts"},
    {Flag::starts_disagree, "starts_disagree", FitStatus::suspect,
     "fewer than {} of several starts reached the lowest chi2, or another minimum fits as well", 2,
     "a minimum that was found once may not be the lowest one"},
    {Flag::at_bound, "at_bound", FitStatus::suspect,
     "a free parameter is within {} of its range from an end of it, or a size or amplitude has vanished", 0.01,
     "the bound determines it and not the data"},
    {Flag::off_prior, "off_prior", FitStatus::suspect, "a parameter is more than {} sigma from the mean of its prior",
     3, "a Gaussian has 0.3 % beyond 3 sigma"},
    {Flag::shear_implausible, "shear_implausible", FitStatus::suspect, "a shear is stronger than {}", 0.3,
     "twice the strongest of galaxies in groups; only the core of a cluster shears more"},
    {Flag::axis_ratio_implausible, "axis_ratio_implausible", FitStatus::suspect, "the axis ratio of a lens is below {}",
     0.3, "no elliptical galaxy is flatter than E7"},
    {Flag::mass_flatter_than_light, "mass_flatter_than_light", FitStatus::suspect,
     "the axis ratio of the mass is below {} of that of the lens light", 0.67,
     "in early-type lenses the ratio of the two is 0.99 with a scatter of 0.11 (Koopmans et al. 2006): 3 sigma"},
    {Flag::mass_off_light, "mass_off_light", FitStatus::suspect,
     "the center of the mass is more than {} Einstein radii, a pixel and 3 sigma from that of the lens light", 0.1,
     "stars lie at the bottom of the potential; lenses agree within a few percent of the Einstein radius"},
    {Flag::source_implausible, "source_implausible", FitStatus::suspect,
     "the radius of a source is larger than {} Einstein radii, or its center lies outside the image", 1,
     "most of its light is then not lensed into several images: it replaces lens light or sky"},
    {Flag::chi2_high, "chi2_high", FitStatus::suspect,
     "chi2 of a degree of freedom is above {} by more than 5 sigma of its distribution", 1.44,
     "noise maps are good to 20 % in sigma"},
    {Flag::chi2_low, "chi2_low", FitStatus::suspect,
     "reduced chi2 is below {} by more than 5 sigma of its distribution", 0.25,
     "drizzled images have sigma up to twice the scatter of their pixels; below that the model fits noise"},
    {Flag::chi2_arcs, "chi2_arcs", FitStatus::suspect,
     "reduced chi2 in the arcs is more than {} times that of the other pixels", 4,
     "the error of the model in the arcs is then larger than the noise, and errors are too small by 2"},
    {Flag::arcs_unexplained, "arcs_unexplained", FitStatus::suspect,
     "the lensed source explains less than {} of the significant light that the lens light leaves", 0.5,
     "the source is then not what is seen"},
    {Flag::no_arcs, "no_arcs", FitStatus::suspect, "the lensed source is nowhere brighter than {} sigma", 3,
     "nothing in the image then constrains the lens"},
    {Flag::source_grid, "source_grid", FitStatus::suspect,
     "the mean of the edge pixels of a PIXELATED source is above {} of the mean of all, or bright arcs come from "
     "outside the grid",
     0.5, "a source that fades inside its grid has dark edges"},
    {Flag::mask, "mask", FitStatus::suspect, "less than {} of the pixels between 0.7 and 1.3 Einstein radii are used",
     0.5, "the arcs lie there"},
    {Flag::mask_polarity, "mask_polarity", FitStatus::suspect,
     "the mask keeps the rim of the image and leaves out the arcs", 0, "its values may mean the opposite"},
    {Flag::undersampled, "undersampled", FitStatus::suspect,
     "with twice the supersampling a parameter moves by more than {} sigma, or without free parameters of profiles a "
     "pixel by as much, and the image was not rendered as coarsely itself",
     2, "errors are then too small by more than a factor of two"},
    {Flag::psf_off_center, "psf_off_center", FitStatus::suspect,
     "the centroid of the PSF is more than {} pixels from the middle of its kernel", 0.25,
     "uneven wings reach 0.13; a kernel cut out one pixel off, or centered between pixels, has 0.5"},
    {Flag::psf_sampling, "psf_sampling", FitStatus::suspect,
     "the header of the PSF gives another pixel scale, by more than {}", 0.001,
     "the accuracy of a pixel scale; beyond 5 % it is an error"},
    {Flag::sentinel_values, "sentinel_values", FitStatus::suspect,
     "pixels hold a number that stands for no data, or lie {} sigma from the others; they are masked", 1e6,
     "no detector has this dynamic range"},
    {Flag::not_determined, "not_determined", FitStatus::suspect,
     "a combination of parameters leaves the image the same", 0, "their values are as good as any others"},
    {Flag::members_not_converged, "members_not_converged", FitStatus::suspect,
     "less than {} of the members of randomized error bars converged", 0.5,
     "the others stopped on their way from the fit, which makes error bars too small"},
    {Flag::negative_mass, "negative_mass", FitStatus::suspect,
     "the convergence of smooth lens and network together is more than {} sigma below zero", 5,
     "no mass does that: the fit is in a wrong valley, or the network stands for something else"},
    {Flag::source_coarse, "source_coarse", FitStatus::suspect,
     "a smooth curve through the source pixels would change the arcs by more than {} sigma (rms)", 1,
     "the straight lines between the pixels are then as large an error as the noise, and the potential makes up for "
     "it"},
    {Flag::network_moves_lens, "network_moves_lens", FitStatus::suspect,
     "the network changes the effective Einstein radius by more than {}, although parameters of a lens are free", 0.05,
     "a perturber of a tenth of the lens moves it by less: the network then does what the lens should, or what source "
     "and light lack"}};

inline constexpr const FlagInfo& flag_info(Flag flag) {
  return kFlags[static_cast<int>(flag)];
}

/// A flag of a fit.
struct RaisedFlag {
  Flag flag;
  std::string text;  ///< what this fit shows
};

/// The worst status of the flags; ok without any.
FitStatus status_of(const std::vector<RaisedFlag>& flags);

/// The meaning of a flag with its threshold in place.
std::string meaning_of(const FlagInfo& info);

/// The text of `einfield info --flags`: every flag with bit, status, meaning and the reason of its threshold.
std::string list_flags();

}  // namespace einfield
