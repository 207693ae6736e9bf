// One function per group of flags: optimizer, starts, parameters, mass and light, residuals, data, rendering.
#include "host/results/verdict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/fields/model_image.hpp"
#include "host/fields/source_plane.hpp"
#include "host/files/text.hpp"
#include "host/model/median.hpp"

namespace einfield {
namespace {

constexpr double kSigmasOfChi2 = 5;       ///< of the distribution of χ²: one in 3 million fits
constexpr double kArcSigmas = 3;          ///< of the pixels that count as arcs
constexpr double kSignificant = 5;        ///< of the mean of 3 × 3 pixels: light and not noise
constexpr int kFewestPixels = 9;          ///< that a statistic is made of: one patch
constexpr double kMedianOfChi2 = 0.4549;  ///< of one degree of freedom
constexpr double kAdamFall = 0.1;         ///< of reduced χ², in the last tenth of the steps
constexpr double kNoiseFree = 0.01;       ///< reduced χ² that no model with fewer parameters than half the pixels can
                                          ///< reach, unless the image has no noise

double threshold(Flag flag) {
  return flag_info(flag).threshold;
}

/// What is measured of the residuals. Arcs are the used pixels in which the lensed model exceeds kArcSigmas.
struct ResidualChecks {
  std::vector<double> light;  ///< smoothed() image without lens light
  int arc_pixels = 0;
  double chi2_arcs = 0;      ///< reduced χ² of these pixels; 0 without any
  double chi2_floor = 0;     ///< of the other used pixels: from the median of the squared residuals
  double explained = 1;      ///< share of the significant light, lens light subtracted, that the lensed source explains
  double brightest_arc = 0;  ///< largest mean of 3 × 3 pixels of the lensed model [σ of the mean]
};

/// One parameter of a component as the flags see it.
struct Scalar {
  std::string name;  ///< "lens.0.theta_E"
  const ParameterInfo* info;
  double value;
  bool free;  ///< or it follows another one
  ParameterPrior prior;
  double sigma;  ///< NaN when unknown
};

struct ComponentView {
  std::string name;  ///< "lens.0"
  const char* profile;
  std::vector<Scalar> scalars;

  const Scalar* find(const char* parameter) const {
    for (const Scalar& s : scalars)
      if (s.info->name == std::string(parameter)) return &s;
    return nullptr;
  }
  /// Whether all of these exist and one is free.
  bool fits(std::initializer_list<const char*> parameters) const {
    bool any = false;
    for (const char* parameter : parameters) {
      const Scalar* s = find(parameter);
      if (!s) return false;
      any |= s->free;
    }
    return any;
  }
  double size(const char* first, const char* second) const {
    return std::hypot(find(first)->value, find(second)->value);
  }
  double axis_ratio() const {
    const double e = size("e1", "e2");
    return (1 - e) / (1 + e);
  }
};

class Checks {
 public:
  Checks(const Assessment& fit, ThreadPool& pool, const UncertaintiesOf& uncertainties)
      : fit_(fit), problem_(fit.loaded.problem), o_(problem_.observation), pool_(pool), uncertainties_(uncertainties) {
    views(fit.model.lens, "lens", lens_info, lens_);
    views(fit.model.source, "source", light_info, source_);
    views(fit.model.lens_light, "lens_light", light_info, lens_light_);
    for (const ComponentView& c : lens_)
      if (const Scalar* radius = c.find("theta_E"); radius && radius->value > theta_E_) {
        theta_E_ = radius->value;
        main_lens_ = &c;
      }
  }

  std::vector<RaisedFlag> all() {
    flags_ = fit_.loaded.flags;
    pixel_count();
    if (!finite()) return std::move(flags_);
    optimizer();
    starts();
    for (const std::vector<ComponentView>* block : {&lens_, &source_, &lens_light_})
      for (const ComponentView& c : *block)
        for (const Scalar& s : c.scalars)
          if (s.free) parameter(s, of_expansion(c, *block));
    mass();
    mass_and_light();
    sources();
    measure();
    residuals();
    source_grid();
    mask();
    sampling();
    determined();
    members();
    negative_mass();
    coarse_source();
    network_and_lens();
    return std::move(flags_);
  }

 private:
  void raise(Flag flag, std::string text) { flags_.push_back({flag, std::move(text)}); }

  template <class Component, class Kind>
  void views(const std::vector<Component>& components, const std::string& block, const ProfileInfo& (*info)(Kind),
             std::vector<ComponentView>& to) const {
    for (std::size_t i = 0; i < components.size(); ++i) {
      const Component& c = components[i];
      const ProfileInfo& profile = info(c.kind);
      ComponentView& view = to.emplace_back(ComponentView{block + "." + std::to_string(i), profile.name, {}});
      for (std::size_t k = 0; k < profile.parameters.size(); ++k) {
        const ParameterInfo& p = profile.parameters[k];
        const std::string name = view.name + "." + p.name;
        view.scalars.push_back({name, &p, c.values[k], c.free[k] != 0 || (!c.follows.empty() && c.follows[k].given()),
                                c.priors.empty() ? ParameterPrior{} : c.priors[k], sigma(name)});
      }
    }
  }
  double sigma(const std::string& name) const {
    const std::vector<std::string>& names = fit_.layout.names;
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end() || !fit_.uncertainties) return std::nan("");
    return fit_.uncertainties->sigma[static_cast<std::size_t>(found - names.begin())];
  }

  // ---- numbers, optimizer, starts ----

  bool finite() {
    const auto bad = [](double v) { return !std::isfinite(v); };
    const MemberOutcome& outcome = fit_.outcome();
    std::string what;
    if (outcome.stop_reason == StopReason::non_finite) what = outcome.message;
    if (what.empty() && bad(fit_.data.chi2_reduced)) what = "reduced chi2 is not a finite number";
    for (const std::vector<ComponentView>* block : {&lens_, &source_, &lens_light_})
      for (const ComponentView& c : *block)
        for (const Scalar& s : c.scalars)
          if (what.empty() && bad(s.value)) what = s.name + " is not a finite number";
    if (what.empty() && std::any_of(fit_.image.begin(), fit_.image.end(), bad)) what = "the model image is not finite";
    if (!what.empty()) raise(Flag::non_finite, what);
    return what.empty();
  }

  void pixel_count() {
    const int pixels = fitted_pixels(problem_);
    if (static_cast<std::size_t>(pixels) < fit_.layout.n_free())
      raise(Flag::fewer_pixels,
            fmt::format("{} pixels are fitted by {} free parameters", pixels, fit_.layout.n_free()));
  }

  void optimizer() {
    if (fit_.layout.size() == 0) return;  // nothing was fitted
    const std::vector<StageConfig> stages = fit_.config.optimizer.all_stages();
    const StageConfig& last = stages.back();
    const MemberOutcome& outcome = fit_.outcome();
    const bool evaluated_only = std::all_of(stages.begin(), stages.end(), [](const auto& s) { return s.steps == 0; });
    if (evaluated_only) return;
    const bool adam = last.name == OptimizerKind::adam, ends = !adam || last.stop != StopRule::none;
    const bool checked = !adam && fit_.uncertainties && at_minimum_of_chi2();
    const double fall = checked ? fit_.uncertainties->fall : std::nan("");
    const double limit = threshold(Flag::not_converged) * std::max(1.0, fit_.data.chi2_reduced);
    if (outcome.stop_reason == StopReason::steps && ends && last.steps > 0 && !(fall <= limit))
      raise(Flag::step_limit, fmt::format("{} used all {} steps", name_of(last.name), last.steps));
    if (outcome.steps == 0 && !(last.name == OptimizerKind::levenberg_marquardt && !fits_more_than_amplitudes()))
      raise(Flag::no_steps, fmt::format("{} ended after 0 steps", name_of(last.name)));
    if (adam) {
      adam_fall();
      return;
    }
    const Flag flag = last.name == OptimizerKind::lbfgs && outcome.stop_reason == StopReason::converged
                          ? Flag::line_search_failed
                          : Flag::not_converged;
    if (fall > limit) raise(flag, fmt::format("one more Gauss-Newton step would lower chi2 by {:.3g}", fall));
  }
  bool fits_more_than_amplitudes() const {
    return std::any_of(fit_.layout.names.begin(), fit_.layout.names.end(), [](const std::string& name) {
      return name.size() < 4 || name.compare(name.size() - 4, 4, ".amp") != 0;
    });
  }
  /// Whether the loss of the profiles' parameters is χ² and nothing else.
  bool at_minimum_of_chi2() const {
    const Regularization& r = problem_.regularization;
    return problem_.loss == LossKind::chi2 && problem_.held_out.empty() &&
           !(problem_.model.network && r.negative_total_convergence > 0) && fit_.outcomes.size() == 1;
  }
  void adam_fall() {
    const std::vector<HistoryRow>& history = fit_.history;
    if (history.size() < 3) return;
    const HistoryRow& last = history.back();
    const auto from = std::find_if(history.rbegin(), history.rend(),
                                   [&](const HistoryRow& row) { return 10 * row.step <= 9 * last.step; });
    if (from == history.rend() || from->step == last.step) return;
    const double fall = from->chi2_reduced - last.chi2_reduced;
    if (fall * 0.1 * static_cast<double>(last.step) > kAdamFall * static_cast<double>(last.step - from->step))
      raise(Flag::not_converged,
            fmt::format("reduced chi2 fell by {:.3g} from step {} to step {}", fall, from->step, last.step));
  }

  void starts() {
    if (fit_.starts.size() < 2) return;
    const int reached = reached_best(fit_.starts);
    if (reached < threshold(Flag::starts_disagree)) {
      raise(Flag::starts_disagree, fmt::format("{} of {} starts reached the lowest chi2", reached, fit_.starts.size()));
      return;
    }
    const auto best = std::find_if(fit_.starts.begin(), fit_.starts.end(), [](const auto& s) { return s.best; });
    for (const StartRecord& other : fit_.starts) {
      if (!other.alive || other.value > best->value * (1 + kSameValley)) continue;
      for (std::size_t i = 0; i < fit_.layout.n_free(); ++i) {
        const std::string& name = fit_.layout.names[i];
        const double error = fit_.uncertainties ? fit_.uncertainties->sigma[i] : std::nan("");
        // A valley that is a parabola with this error has Δχ² = 25 there.
        if (name.rfind("lens.", 0) != 0 || !(std::abs(other.free[i] - best->free[i]) > kSignificant * error)) continue;
        if ((other.value - best->value) * fitted_pixels(problem_) > kSignificant * kSignificant) continue;
        raise(Flag::starts_disagree, fmt::format("another start fits as well (reduced chi2 {:.5g}) with {} = {:.4g}",
                                                 other.chi2_reduced, name, other.free[i]));
        return;
      }
    }
  }

  // ---- parameters ----

  /// Whether a component is one of several elliptical Gaussians: most expansions have some that are dark.
  static bool of_expansion(const ComponentView& c, const std::vector<ComponentView>& block) {
    const std::string name = light_info(LightKind::gaussian_ellipse).name;
    return c.profile == name &&
           std::count_if(block.begin(), block.end(), [&](const ComponentView& v) { return v.profile == name; }) > 1;
  }

  /// @param may_vanish  whether its component may be dark
  void parameter(const Scalar& s, bool may_vanish) {
    if (s.prior.gaussian() && std::abs(s.value - s.prior.mean) > threshold(Flag::off_prior) * s.prior.sigma)
      raise(Flag::off_prior, fmt::format("{} = {:.4g} is {:.1f} sigma from the mean of its prior", s.name, s.value,
                                         std::abs(s.value - s.prior.mean) / s.prior.sigma));
    const double lower = std::max(s.prior.lower, s.info->lower), upper = std::min(s.prior.upper, s.info->upper);
    const bool interval = s.prior.bounded() || s.info->range == Range::interval;
    if (interval && lower > -kInfinity && upper < kInfinity) {
      // A size may span decades: of its range, the logarithm counts.
      const bool decades = s.info->range == Range::positive && lower > 0;
      const auto place = [decades](double v) { return decades ? std::log(v) : v; };
      const double margin = threshold(Flag::at_bound) * (place(upper) - place(lower));
      for (const double end : {lower, upper})
        if (std::abs(place(s.value) - place(end)) < margin)
          raise(Flag::at_bound, fmt::format("{} = {:.4g}, its range ends at {:g}", s.name, s.value, end));
      return;
    }
    if (s.info->range != Range::positive) return;
    const bool length = s.info->unit == std::string("arcsec");
    if (length && s.value < threshold(Flag::at_bound) * o_.grid.pixel_scale)
      raise(Flag::at_bound, fmt::format("{} = {:.3g} arcsec has vanished", s.name, s.value));
    if (s.info->name == std::string("amp") && s.value < s.sigma && !may_vanish)
      raise(Flag::at_bound, fmt::format("{} = {:.3g} has vanished, its error is {:.3g}", s.name, s.value, s.sigma));
  }

  void mass() {
    for (const ComponentView& c : lens_) {
      if (c.fits({"gamma1", "gamma2"}) && c.size("gamma1", "gamma2") > threshold(Flag::shear_implausible))
        raise(Flag::shear_implausible, fmt::format("{} has a strength of {:.3f}", c.name, c.size("gamma1", "gamma2")));
      // The ellipticity of a potential is about a third of that of its mass.
      if (c.profile == lens_info(LensKind::nfw_ellipse_potential).name) continue;
      if (c.fits({"e1", "e2"}) && c.axis_ratio() < threshold(Flag::axis_ratio_implausible))
        raise(Flag::axis_ratio_implausible, fmt::format("{} has an axis ratio of {:.3f}", c.name, c.axis_ratio()));
    }
  }

  void mass_and_light() {
    if (!main_lens_) return;
    const ComponentView& mass = *main_lens_;
    double nearest = kInfinity, flattest = 1, error = 0;
    bool light = false;
    const Scalar *x = mass.find("center_x"), *y = mass.find("center_y");
    for (const ComponentView& c : lens_light_) {
      if (c.find("e1")) {
        flattest = std::min(flattest, c.axis_ratio());
        light = true;
      }
      const Scalar *light_x = c.find("center_x"), *light_y = c.find("center_y");
      if (!light_x || !x) continue;
      const double distance = std::hypot(x->value - light_x->value, y->value - light_y->value);
      if (distance > nearest) continue;
      nearest = distance;
      const auto square = [](const Scalar* s) { return s->free && std::isfinite(s->sigma) ? s->sigma * s->sigma : 0; };
      error = std::sqrt(std::max(square(x), square(y)) + std::max(square(light_x), square(light_y)));
    }
    if (light && mass.fits({"e1", "e2"}) && mass.axis_ratio() < threshold(Flag::mass_flatter_than_light) * flattest)
      raise(Flag::mass_flatter_than_light, fmt::format("axis ratio {:.2f} of {} and {:.2f} of the lens light",
                                                       mass.axis_ratio(), mass.name, flattest));
    const double limit = std::max({threshold(Flag::mass_off_light) * theta_E_, o_.grid.pixel_scale, 3 * error});
    if (nearest < kInfinity && mass.fits({"center_x", "center_y"}) && nearest > limit)
      raise(Flag::mass_off_light, fmt::format("{} is {:.3f} arcsec from the lens light", mass.name, nearest));
  }

  void sources() {
    const Grid& g = o_.grid;
    for (const ComponentView& c : source_) {
      for (const char* radius : {"R_sersic", "sigma"})
        if (c.fits({radius}) && theta_E_ > 0 && c.find(radius)->value > threshold(Flag::source_implausible) * theta_E_)
          raise(Flag::source_implausible, fmt::format("{} = {:.3g} arcsec, with an Einstein radius of {:.3g} arcsec",
                                                      c.find(radius)->name, c.find(radius)->value, theta_E_));
      if (!c.fits({"center_x", "center_y"})) continue;
      const double x = c.find("center_x")->value - g.center_x, y = c.find("center_y")->value - g.center_y;
      if (std::abs(x) > 0.5 * g.nx * g.pixel_scale || std::abs(y) > 0.5 * g.ny * g.pixel_scale)
        raise(Flag::source_implausible, c.name + " has its center outside the image");
    }
  }

  // ---- residuals ----

  double noise(std::size_t i) const { return o_.noise[i]; }
  /// Mean of the used pixels among 3 × 3 of a map in units of the noise, times the square root of their number.
  std::vector<double> smoothed(const std::vector<double>& map) const {
    const int nx = o_.grid.nx, ny = o_.grid.ny;
    std::vector<double> result(map.size(), 0.0);
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x) {
        double sum = 0;
        int n = 0;
        for (int v = std::max(y - 1, 0); v <= std::min(y + 1, ny - 1); ++v)
          for (int w = std::max(x - 1, 0); w <= std::min(x + 1, nx - 1); ++w) {
            const auto i = static_cast<std::size_t>(v * nx + w);
            if (!o_.mask[i]) continue;
            sum += map[i];
            ++n;
          }
        const auto i = static_cast<std::size_t>(y * nx + x);
        if (o_.mask[i]) result[i] = sum / std::sqrt(n);
      }
    return result;
  }

  void measure() {
    const std::size_t n = o_.image.size();
    std::vector<double> lensed(n, 0.0), left(n, 0.0), residual(n, 0.0), quiet;
    double arcs = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (!o_.mask[i]) continue;
      lensed[i] = fit_.first_images.source[i] / noise(i);
      left[i] = (o_.image[i] - fit_.first_images.lens_light[i]) / noise(i);
      residual[i] = (o_.image[i] - fit_.image[i]) / noise(i);
      if (lensed[i] > kArcSigmas) {
        ++checks_.arc_pixels;
        arcs += residual[i] * residual[i];
      } else {
        quiet.push_back(residual[i] * residual[i]);
      }
    }
    if (checks_.arc_pixels > 0) checks_.chi2_arcs = arcs / checks_.arc_pixels;
    checks_.chi2_floor = upper_median(quiet) / kMedianOfChi2;
    const std::vector<double> bright = smoothed(lensed), rest = smoothed(residual);
    const std::vector<double>& light = checks_.light = smoothed(left);
    checks_.brightest_arc = *std::max_element(bright.begin(), bright.end());
    std::vector<double> scatter;
    for (std::size_t i = 0; i < n; ++i)
      if (o_.mask[i]) scatter.push_back(rest[i] * rest[i]);
    const double limit = kSignificant * std::sqrt(upper_median(scatter) / kMedianOfChi2);
    double found = 0, missed = 0;
    int pixels = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (!o_.mask[i] || !(light[i] > limit)) continue;
      found += left[i] * left[i] - checks_.chi2_floor;
      missed += residual[i] * residual[i] - checks_.chi2_floor;
      ++pixels;
    }
    if (pixels >= kFewestPixels && found > 0) checks_.explained = 1 - missed / found;
  }

  /// Whether the image is the true one of a simulation, to a tenth of the noise.
  bool is_true_image() const {
    if (!fit_.loaded.truth || fit_.loaded.truth->image.empty()) return false;
    double squares = 0;
    for (std::size_t i = 0; i < o_.image.size(); ++i) {
      if (!o_.mask[i]) continue;
      const double off = (o_.image[i] - fit_.loaded.truth->image[i]) / noise(i);
      squares += off * off;
    }
    return squares < kNoiseFree * o_.n_used();
  }

  /// Used pixels less the parameters that the data determine, at least one.
  double degrees_of_freedom() const {
    double parameters = static_cast<double>(fit_.layout.n_free());
    if (const auto& evidence = fit_.outcome().evidence)
      parameters += evidence->determined_source + evidence->determined_network;
    return std::max(o_.n_used() - parameters, 1.0);
  }

  void residuals() {
    const int n = o_.n_used();
    const double chi2 = fit_.data.chi2_reduced, spread = kSigmasOfChi2 * std::sqrt(2.0 / n);
    const auto of = [&](double value, int pixels, const char* where) {
      return fmt::format("reduced chi2 {:.4g} in {} {}", value, pixels, where);
    };
    const double per_freedom = chi2 * n / degrees_of_freedom();
    if (per_freedom > threshold(Flag::chi2_high) + spread)
      raise(Flag::chi2_high, of(chi2, n, "used pixels") + fmt::format(", {:.4g} for each of {:.0f} degrees of freedom",
                                                                      per_freedom, degrees_of_freedom()));
    // Without noise in the image, the noise map is a forecast and χ² says nothing.
    if (chi2 < threshold(Flag::chi2_low) - spread && !is_true_image())
      raise(Flag::chi2_low,
            of(chi2, n, "used pixels") +
                (chi2 < kNoiseFree ? ": an image without noise, or a noise map that is far too large" : ""));
    // The squares of pixels with correlated noise are correlated, too: by the squares of the coefficients.
    double together = o_.noise_correlation.empty() ? 1 : 0;
    for (const double v : o_.noise_correlation.values) together += v * v;
    const double arcs_spread =
        checks_.arc_pixels > 0 ? kSigmasOfChi2 * std::sqrt(2.0 * together / checks_.arc_pixels) : 0;
    const bool arcs = checks_.arc_pixels >= kFewestPixels;
    if (arcs && checks_.chi2_arcs > std::max(threshold(Flag::chi2_arcs) * checks_.chi2_floor, 1.0) * (1 + arcs_spread))
      raise(Flag::chi2_arcs, of(checks_.chi2_arcs, checks_.arc_pixels, "pixels of the arcs") +
                                 fmt::format(", {:.4g} elsewhere", checks_.chi2_floor));
    const StageConfig first = fit_.config.optimizer.all_stages().front();
    const double one = threshold(Flag::one_start);
    if (first.name == OptimizerKind::levenberg_marquardt && first.steps > 0 && fit_.starts.size() < 2 &&
        fit_.config.optimizer.starts == 1 && fits_more_than_amplitudes() &&
        (chi2 > one + spread || (arcs && checks_.chi2_arcs > one + arcs_spread)))
      raise(Flag::one_start, "one start, and " + of(chi2, n, "used pixels") +
                                 (arcs ? ", " + of(checks_.chi2_arcs, checks_.arc_pixels, "pixels of the arcs") : ""));
    if (fit_.model.source.empty()) return;
    if (checks_.explained < threshold(Flag::arcs_unexplained))
      raise(Flag::arcs_unexplained,
            fmt::format("the lensed source explains {:.0f} % of the significant light that the lens light leaves",
                        100 * std::max(checks_.explained, 0.0)));
    if (checks_.brightest_arc < threshold(Flag::no_arcs))
      raise(Flag::no_arcs, fmt::format("the lensed source reaches {:.2g} sigma", checks_.brightest_arc));
  }

  /// Where the error bar of κ is known. One pixel in millions is that far off by chance.
  void negative_mass() {
    if (!fit_.error_bars || !fit_.error_bars->fields) return;
    const std::vector<double>&sigma = fit_.error_bars->fields->sigma.convergence, &smooth = fit_.smooth.convergence,
          &network = fit_.network.mean.convergence;
    double lowest = 0;
    std::size_t at = 0;
    int pixels = 0;
    for (std::size_t i = 0; i < sigma.size(); ++i) {
      if (!o_.mask[i] || !(sigma[i] > 0)) continue;
      const double ratio = (smooth[i] + network[i]) / sigma[i];
      pixels += ratio < -threshold(Flag::negative_mass);
      if (ratio < lowest) {
        lowest = ratio;
        at = i;
      }
    }
    if (pixels == 0) return;
    const Vec2<double> place = o_.grid.pixel(static_cast<int>(at));
    raise(Flag::negative_mass,
          fmt::format("the total convergence is {:.2g} ({:.1f} sigma) at x = {:.2f}, y = {:.2f} arcsec, and that far "
                      "below zero in {} pixels",
                      smooth[at] + network[at], lowest, place.x, place.y, pixels));
  }

  void network_and_lens() {
    const bool free = std::any_of(lens_.begin(), lens_.end(), [](const ComponentView& c) {
      return std::any_of(c.scalars.begin(), c.scalars.end(), [](const Scalar& s) { return s.free; });
    });
    const double with = fit_.derived.einstein_radius, without = fit_.derived.smooth_radius;
    if (free && std::abs(with / without - 1) > threshold(Flag::network_moves_lens))
      raise(Flag::network_moves_lens,
            fmt::format("the effective Einstein radius is {:.4g} arcsec, without the network {:.4g}", with, without));
  }

  // ---- data ----

  void source_grid() {
    for (std::size_t c = 0; c < fit_.model.source.size(); ++c) {
      const LightComponent& light = fit_.model.source[c];
      if (light.kind != LightKind::pixelated || !light.pixels_free) continue;
      double edge = 0, all = 0;
      int edges = 0;
      for (int y = 0; y < light.grid.ny; ++y)
        for (int x = 0; x < light.grid.nx; ++x) {
          const double v = std::max(light.pixels[static_cast<std::size_t>(y * light.grid.nx + x)], 0.0);
          all += v;
          if (x > 0 && y > 0 && x + 1 < light.grid.nx && y + 1 < light.grid.ny) continue;
          edge += v;
          ++edges;
        }
      const double ratio = all > 0 ? edge / edges / (all / static_cast<double>(light.pixels.size())) : 0;
      const std::string name = "source." + std::to_string(c);
      if (ratio > threshold(Flag::source_grid))
        raise(Flag::source_grid, fmt::format("the edge pixels of {} have {:.2g} of its mean brightness", name, ratio));
      arcs_from_outside(light.grid, name);
    }
  }
  /// Light that is significant and whose rays miss the grid of the only source.
  /// Between the pixels of a free source its brightness is bilinear. Where a cubic through the same pixels (Catmull &
  /// Rom) would give another image, the grid is too coarse for this source, and the potential makes up for it.
  void coarse_source() {
    Model finer = fit_.models.front();
    bool any = false;
    for (LightComponent& light : finer.source)
      if (light.kind == LightKind::pixelated && light.pixels_free) {
        refine(light);
        any = true;
      }
    if (!any || checks_.arc_pixels < kFewestPixels) return;
    const ModelImages images = model_images(finer, fit_.weights.front(), o_, 1, pool_);
    double squares = 0;
    for (std::size_t i = 0; i < o_.image.size(); ++i) {
      if (!o_.mask[i] || !(fit_.first_images.source[i] > kArcSigmas * noise(i))) continue;
      const double change = (images.source[i] - fit_.first_images.source[i]) / noise(i);
      squares += change * change;
    }
    const double rms = std::sqrt(squares / checks_.arc_pixels);
    if (rms > threshold(Flag::source_coarse))
      raise(Flag::source_coarse,
            fmt::format("a smooth curve through the source pixels changes the arcs by {:.2g} sigma (rms)", rms));
  }

  /// Twice as many pixels along each axis, the new ones by Catmull & Rom: at a midpoint (9 (b + c) − (a + d))/16.
  static void refine(LightComponent& light) {
    const int nx = light.grid.nx, ny = light.grid.ny, width = 2 * nx - 1, height = 2 * ny - 1;
    const auto middle = [](double a, double b, double c, double d) { return (9 * (b + c) - (a + d)) / 16; };
    std::vector<double> rows(static_cast<std::size_t>(width * ny)), all(static_cast<std::size_t>(width * height));
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < width; ++x) {
        const auto at = [&](int k) { return pixel_or_zero(light.pixels.data(), nx, ny, k, y); };
        const int k = x / 2;
        rows[static_cast<std::size_t>(y * width + x)] = x % 2 ? middle(at(k - 1), at(k), at(k + 1), at(k + 2)) : at(k);
      }
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const auto at = [&](int k) { return pixel_or_zero(rows.data(), width, ny, x, k); };
        const int k = y / 2;
        all[static_cast<std::size_t>(y * width + x)] = y % 2 ? middle(at(k - 1), at(k), at(k + 1), at(k + 2)) : at(k);
      }
    light.pixels = std::move(all);
    light.grid.nx = width;
    light.grid.ny = height;
    light.grid.pixel_scale /= 2;
  }

  void arcs_from_outside(const PixelGrid& grid, const std::string& name) {
    if (fit_.model.source.size() > 1) return;
    const std::vector<double> theta = pixel_centers(o_.grid);
    const std::vector<double> beta = source_positions(theta, fit_.smooth, fit_.network.mean);
    const std::size_t n = checks_.light.size();
    int bright = 0, outside = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (!(checks_.light[i] > 2 * kSignificant)) continue;
      ++bright;
      outside += std::abs(beta[i] - grid.center_x) > 0.5 * grid.nx * grid.pixel_scale ||
                 std::abs(beta[n + i] - grid.center_y) > 0.5 * grid.ny * grid.pixel_scale;
    }
    if (outside >= kFewestPixels && outside > 0.05 * bright)
      raise(Flag::source_grid,
            fmt::format("{} of {} bright pixels come from outside the grid of {}", outside, bright, name));
  }

  void mask() {
    if (theta_E_ <= 0 || fit_.model.source.empty()) return;
    const Grid& g = o_.grid;
    const Scalar *x = main_lens_->find("center_x"), *y = main_lens_->find("center_y");
    const Vec2<double> center = x ? Vec2<double>{x->value, y->value} : Vec2<double>{};
    int ring = 0, ring_used = 0, rim = 0, rim_used = 0;
    for (int i = 0; i < g.n_pixels(); ++i) {
      const Vec2<double> theta = g.pixel(i);
      const double r = hypot(theta.x - center.x, theta.y - center.y);
      const bool used = o_.mask[static_cast<std::size_t>(i)] != 0;
      if (r > 0.7 * theta_E_ && r < 1.3 * theta_E_) {
        ++ring;
        ring_used += used;
      }
      const int column = i % g.nx, row = i / g.nx;
      if (column == 0 || row == 0 || column + 1 == g.nx || row + 1 == g.ny) {
        ++rim;
        rim_used += used;
      }
    }
    if (ring < kFewestPixels || ring_used >= threshold(Flag::mask) * ring) return;
    raise(Flag::mask, fmt::format("{} of {} pixels between 0.7 and 1.3 Einstein radii are used", ring_used, ring));
    if (2 * rim_used > rim && !fit_.config.observation.mask.empty())
      raise(Flag::mask_polarity, fmt::format("the mask keeps the rim of the image and leaves out the arcs; try "
                                             "observation.mask_used = {}",
                                             1 - fit_.config.observation.mask_used));
  }

  // ---- rendering ----

  void sampling() {
    const ModelImages fine = model_images(fit_.models.front(), fit_.weights.front(), o_, 2, pool_);
    Problem shifted = problem_;
    double squares = 0, largest = 0;
    std::size_t where = 0;
    for (std::size_t i = 0; i < o_.image.size(); ++i) {
      if (!o_.mask[i]) continue;
      const double change =
          fit_.first_images.source[i] + fit_.first_images.lens_light[i] - fine.source[i] - fine.lens_light[i];
      const double in_noise = change / noise(i);
      squares += in_noise * in_noise;
      shifted.observation.image[i] += change;
      if (std::abs(in_noise) <= largest) continue;
      largest = std::abs(in_noise);
      where = i;
    }
    const double limit = threshold(Flag::undersampled);
    // No parameter moves by more than the root of the sum (Cauchy-Schwarz).
    if (!(std::sqrt(squares) > limit)) return;
    const int nx = o_.grid.nx;
    const std::string pixel = fmt::format("a pixel changes by up to {:.3g} sigma (column {}, row {} from 1)", largest,
                                          static_cast<int>(where) % nx + 1, static_cast<int>(where) / nx + 1);
    const std::string advice = fmt::format("; raise observation.supersampling = {}", o_.grid.supersampling);
    if (!fit_.uncertainties) {
      if (largest > limit && !fits_coarse_light(0, shifted.observation))
        raise(Flag::undersampled, "with twice the supersampling " + pixel + advice);
      return;
    }
    const Uncertainties moved = uncertainties_(shifted, fit_.first_parameters);
    if (fits_coarse_light(fit_.uncertainties->fall - moved.fall, shifted.observation)) return;
    std::size_t most = 0;
    double shift = 0;
    for (std::size_t i = 0; i < moved.step.size(); ++i) {
      const double in_sigma = std::abs(moved.step[i] - fit_.uncertainties->step[i]) / fit_.uncertainties->sigma[i];
      if (!(in_sigma > shift)) continue;
      shift = in_sigma;
      most = i;
    }
    if (shift > limit)
      raise(Flag::undersampled,
            fmt::format("with twice the supersampling {} moves by {:.3g} sigma and ", fit_.layout.names[most], shift) +
                pixel + advice);
  }

  /// Whether the image itself was rendered as coarsely as the model, as mock images are: the model fits, and with a
  /// finer rendering it would fit significantly worse, other parameters included.
  /// @param change  of χ² by the parameters that follow
  bool fits_coarse_light(double change, const Observation& shifted) const {
    if (fit_.data.chi2_reduced > threshold(Flag::chi2_high)) return false;
    for (std::size_t i = 0; i < o_.image.size(); ++i) {
      if (!o_.mask[i]) continue;
      const double before = (o_.image[i] - fit_.image[i]) / noise(i),
                   after = (shifted.image[i] - fit_.image[i]) / noise(i);
      change += after * after - before * before;
    }
    return change > kSignificant * kSignificant;
  }

  void determined() {
    if (!fit_.uncertainties) return;
    for (const Degeneracy& d : fit_.uncertainties->degeneracies)
      raise(Flag::not_determined, in_words(d, fit_.layout.names, fit_.model));
  }

  void members() {
    if (!fit_.error_bars || fit_.error_bars->method != UncertaintyKind::randomized) return;
    const ErrorBars& bars = *fit_.error_bars;
    if (bars.converged < threshold(Flag::members_not_converged) * bars.members)
      raise(Flag::members_not_converged, fmt::format("{} of {} members converged", bars.converged, bars.members));
  }

  const Assessment& fit_;
  const Problem& problem_;
  const Observation& o_;
  ThreadPool& pool_;
  const UncertaintiesOf& uncertainties_;
  std::vector<ComponentView> lens_, source_, lens_light_;
  const ComponentView* main_lens_ = nullptr;
  double theta_E_ = 0;
  ResidualChecks checks_;
  std::vector<RaisedFlag> flags_;
};

/// The name of a degeneracy that is known in the field; "" for others.
std::string known_name(const std::vector<std::string>& parameters, const Model& model) {
  bool sheet = false, only_shears = true, origin = false, source = false, scale = false;
  for (const std::string& name : parameters) {
    const std::string parameter = name.substr(name.rfind('.') + 1);
    const bool of_lens = name.rfind("lens.", 0) == 0;
    const bool of_shear = of_lens && (parameter == "gamma1" || parameter == "gamma2");
    sheet |= of_lens && parameter == "kappa";
    only_shears &= of_shear;
    origin |= of_lens && (parameter == "ra_0" || parameter == "dec_0");
    source |= name.rfind("source.", 0) == 0;
    scale |= parameter == "theta_E" || parameter == "R_sersic" || parameter == "sigma";
  }
  if (sheet && scale) return "the mass-sheet degeneracy: ";
  if (only_shears && parameters.size() > 1 && model.lens.size() > 1)
    return "only the sum of the shears is determined: ";
  if (origin && source) return "the origin of a shear or mass sheet moves the source and nothing else: ";
  return "";
}

}  // namespace

std::string in_words(const Degeneracy& degeneracy, const std::vector<std::string>& names, const Model& model) {
  std::vector<std::string> parameters;
  std::string text;
  for (const Degeneracy::Change& change : degeneracy.changes) {
    const std::string& name = parameters.emplace_back(names[change.parameter]);
    text += (text.empty() ? "" : ", ") + fmt::format("{} by {:+.3g}", name, change.amount);
  }
  if (degeneracy.with_network && parameters.size() == 1)
    return "the network can take the place of " + parameters.front();
  if (degeneracy.with_network) return "the image stays the same when these change together with the network: " + text;
  if (parameters.size() == 1) return "the data do not depend on " + parameters.front();
  return known_name(parameters, model) + "the image stays the same when these change together: " + text;
}

std::vector<RaisedFlag> raise_flags(const Assessment& fit, ThreadPool& pool, const UncertaintiesOf& uncertainties) {
  return Checks(fit, pool, uncertainties).all();
}

}  // namespace einfield
