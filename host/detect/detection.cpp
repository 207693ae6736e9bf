#include "host/detect/detection.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "einfield/random.hpp"
#include "host/fit/gauss_newton.hpp"
#include "host/fit/perturber_map.hpp"
#include "host/results/error_bars.hpp"

namespace einfield {
namespace {

constexpr int kMostPlaces = 700;        ///< of the map: their products fill 4 MB
constexpr double kCandidate = 3;        ///< significance
constexpr std::size_t kCandidates = 3;  ///< that are fitted
constexpr int kApart = 3;               ///< places between two candidates
constexpr double kMultipole = 0.01;     ///< 1 σ of a multipole, of theta_E: isophotes of ellipticals (Hao et al. 2006)
constexpr double kGradientSpread = 0.01;  ///< 1 σ of ψ_xxx …, of 1/theta_E: an isothermal halo 10 theta_E away whose
                                          ///< shear is 0.05 has 2 · 0.05/(10 theta_E)
constexpr double kScale = 0.5, kScaleSpread = 0.25;   ///< Rs of a truncated NFW and its 1 σ, of theta_E
constexpr double kLeastScale = 0.05, kMostScale = 2;  ///< its bounds, of theta_E
constexpr int kSectors = 4;                           ///< of the arcs that are held out, one after the other
constexpr int kDraws = 10000;
constexpr double kFalse = 0.05;  ///< share of false positives that the limits allow
constexpr int kStepsOfMock = 12, kStepsOfSector = 6;
constexpr double kNoiseError = 1.04;  ///< reduced χ² of noise that is known to 2 %
constexpr double kSigmasOfChi2 = 3;
constexpr const char* kWithMultipoles = "SIS and multipoles 3 and 4";
constexpr const char* kMultipoles = "multipoles 3 and 4";
constexpr const char* kMoreMultipoles = "multipoles 1, 3 and 4";
constexpr const char* kGradient = "gradient of the shear";

/// The places of the map: every `step`-th pixel of every `step`-th row, if it is used.
struct Lattice {
  explicit Lattice(const Observation& o) : image(o.grid) {
    while (o.n_used() > kMostPlaces * step * step) ++step;
    nx = (image.nx + step - 1) / step;
    ny = (image.ny + step - 1) / step;
    index.assign(static_cast<std::size_t>(nx * ny), -1);
    for (int y = 0; y < ny; ++y)
      for (int x = 0; x < nx; ++x) {
        const int pixel =
            std::min(y * step + step / 2, image.ny - 1) * image.nx + std::min(x * step + step / 2, image.nx - 1);
        if (!o.mask[static_cast<std::size_t>(pixel)]) continue;
        index[static_cast<std::size_t>(y * nx + x)] = static_cast<int>(places.size());
        places.push_back(image.pixel(pixel));
      }
  }
  /// The grid of its maps. @param angle  unit [arcsec]
  PixelGrid grid(double angle) const {
    const double scale = image.pixel_scale;
    const double x = image.center_x + (0.5 * (nx - 1) * step + step / 2 - 0.5 * (image.nx - 1)) * scale;
    const double y = image.center_y + (0.5 * (ny - 1) * step + step / 2 - 0.5 * (image.ny - 1)) * scale;
    return {nx, ny, step * scale * angle, x * angle, y * angle};
  }
  std::vector<double> map(const std::function<double(std::size_t)>& value) const {
    std::vector<double> result;
    for (const int k : index) result.push_back(k < 0 ? std::nan("") : value(static_cast<std::size_t>(k)));
    return result;
  }

  Grid image;
  int step = 2, nx = 0, ny = 0;
  std::vector<int> index;  ///< (ny, nx): of the place, or −1
  std::vector<Vec2<double>> places;
};

/// The largest theta_E of the lens, and where its center is.
struct MainLens {
  explicit MainLens(const Model& model) {
    for (const LensComponent& lens : model.lens) {
      const ProfileInfo& info = lens_info(lens.kind);
      if (std::string(info.parameters[0].name) != "theta_E" || !(lens.values[0] > theta_E)) continue;
      const auto center = static_cast<std::size_t>(lens_center(lens.kind));
      theta_E = lens.values[0];
      at = {lens.values[center], lens.values[center + 1]};
    }
  }
  double theta_E = 0;
  Vec2<double> at{};
};

LensComponent fixed_lens(LensKind kind, std::vector<double> values) {
  const std::size_t n = values.size();
  return {kind, std::move(values), std::vector<std::uint8_t>(n, 0), {}};
}

/// A unit of the parameters of lenses, in units of the fit. @param angle  unit of the fit [arcsec]
double size_of(const std::string& unit, double angle) {
  return unit == "arcsec" ? angle : unit == "arcsec-1" ? 1 / angle : 1;
}

std::string number(double v, int digits = 3) {
  return fmt::format("{:.{}g}", v, digits);
}

class Detector {
 public:
  Detector(const Explanation& smooth, double angle, const DetectionSettings& settings, ThreadPool& pool,
           const std::function<void(const std::string&)>& say, const std::function<bool()>& interrupted)
      : smooth_(smooth),
        angle_(angle),
        settings_(settings),
        pool_(pool),
        say_(say),
        interrupted_(interrupted),
        lattice_(smooth.problem.observation),
        main_(smooth.model) {}

  Detection run(std::vector<NullMock> done, const std::function<void(const std::vector<NullMock>&)>& keep) {
    found_.chi2_reduced = smooth_.chi2 / fitted_pixels(smooth_.problem);
    found_.log_evidence = smooth_.log_evidence;
    found_.converged = smooth_.converged;
    found_.chi2_allowed = kNoiseError + kSigmasOfChi2 * std::sqrt(2.0 / fitted_pixels(smooth_.problem));
    map_ = map_of(smooth_);
    found_.highest = map_.highest();
    const std::vector<double> chance = highest_by_chance(map_, kDraws, settings_.seed);
    found_.by_chance = double(chance.end() - std::lower_bound(chance.begin(), chance.end(), found_.highest)) / kDraws;
    found_.seen = chance[static_cast<std::size_t>((1 - kFalse) * kDraws)];
    say_(fmt::format(
        "map: {} places {:.3g} arcsec apart, the highest has {:.1f} sigma; 5 % of maps without a perturber "
        "have more than {:.1f} where the model is right",
        lattice_.places.size(), lattice_.step * lattice_.image.pixel_scale * angle_, found_.highest, found_.seen));
    nulls(std::move(done), keep);
    fill_maps();
    find_candidates();
    find_alternatives();
    inject();
    return std::move(found_);
  }

 private:
  PerturberMap map_of(const Explanation& lens) {
    JointModel model(lens.problem, {}, pool_);
    return perturber_map(model, lens.x, lens.problem.regularization, LensKind::sis, lattice_.places, pool_);
  }

  /// Fits mocks of the smooth lens in the same way; the strengths of the source's prior stay. Every second lens has
  /// multipoles that the fit lacks.
  void nulls(std::vector<NullMock> done, const std::function<void(const std::vector<NullMock>&)>& keep) {
    found_.nulls = std::move(done);
    if (!found_.nulls.empty())
      say_(fmt::format("mocks without a perturber: {} from the earlier run", found_.nulls.size()));
    while (static_cast<int>(found_.nulls.size()) < settings_.nulls) {
      const std::size_t k = found_.nulls.size();
      NullMock mock{k % 2 == 1, 0};
      mock.significance = refit(mock_of(smooth_, mock.multipoles ? drawn_multipoles(k) : std::vector<LensComponent>{},
                                        settings_.seed, k))
                              .highest();
      found_.nulls.push_back(mock);
      keep(found_.nulls);
      say_(fmt::format("mock {} of {} without a perturber{}: {:.1f} sigma", k + 1, settings_.nulls,
                       mock.multipoles ? ", with multipoles" : "", mock.significance));
    }
    found_.nulls.resize(static_cast<std::size_t>(settings_.nulls));
    // The level that mocks reach counts, where there are enough of them and they come farther than the model says.
    std::vector<double> highest;
    for (const NullMock& mock : found_.nulls) highest.push_back(mock.significance);
    std::sort(highest.begin(), highest.end());
    const auto rank = static_cast<std::size_t>(std::ceil((1 - kFalse) * double(highest.size() + 1)));
    if (rank >= 1 && rank <= highest.size()) found_.seen = std::max(found_.seen, highest[rank - 1]);
  }

  PerturberMap refit(const Problem& mock) {
    return map_of(explain("mock", mock, {.steps = kStepsOfMock, .tolerance = 3e-4}, pool_, interrupted_));
  }

  /// Two for each order, the second turned so that both together have any angle. @param values  of theta_E
  std::vector<LensComponent> multipoles(const std::vector<int>& orders, const std::vector<double>& values,
                                        bool free) const {
    std::vector<LensComponent> lenses;
    for (std::size_t k = 0; k < 2 * orders.size(); ++k) {
      const int m = orders[k / 2];
      const double amplitude = values.empty() ? 0 : values[k];
      LensComponent& lens = lenses.emplace_back(
          fixed_lens(LensKind::multipole, {double(m), amplitude * main_.theta_E, k % 2 == 0 ? 0.0 : kPi / (2 * m),
                                           main_.at.x, main_.at.y, main_.theta_E}));
      if (!free) continue;
      lens.free[1] = 1;
      lens.priors.resize(lens.values.size());
      lens.priors[1] = {-kInfinity, kInfinity, 0, kMultipole * main_.theta_E};
    }
    return lenses;
  }
  std::vector<LensComponent> drawn_multipoles(std::size_t k) const {
    const Philox philox{settings_.seed + 1};
    std::vector<double> values(4);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = kMultipole * philox.normal(i, k);
    return multipoles({3, 4}, values, false);
  }

  void fill_maps() {
    found_.grid = lattice_.grid(angle_);
    found_.theta_E = lattice_.map([this](std::size_t k) { return map_.mass(k) * angle_; });
    found_.sigma = lattice_.map([this](std::size_t k) { return map_.sigma(k) * angle_; });
    found_.significance = lattice_.map([this](std::size_t k) { return map_.significance(k); });
    found_.limit = lattice_.map([this](std::size_t k) { return found_.seen * map_.sigma(k) * angle_; });
  }

  void find_candidates() {
    std::vector<std::pair<double, int>> order;
    for (std::size_t cell = 0; cell < lattice_.index.size(); ++cell)
      if (found_.significance[cell] > kCandidate)
        order.emplace_back(-found_.significance[cell], static_cast<int>(cell));
    std::sort(order.begin(), order.end());
    std::vector<int> taken;
    for (const auto& [minus, cell] : order) {
      const bool near = std::any_of(taken.begin(), taken.end(), [&, c = cell](int other) {
        return std::abs(other % lattice_.nx - c % lattice_.nx) < kApart &&
               std::abs(other / lattice_.nx - c / lattice_.nx) < kApart;
      });
      if (near || taken.size() == kCandidates) continue;
      taken.push_back(cell);
      const auto k = static_cast<std::size_t>(lattice_.index[static_cast<std::size_t>(cell)]);
      place_.push_back(k);
      found_.candidates.push_back(candidate(map_, k));
    }
  }

  Candidate candidate(const PerturberMap& map, std::size_t k) const {
    return {angle_ * lattice_.places[k], map.significance(k), map.mass(k) * angle_,
            found_.seen * map_.sigma(k) * angle_};
  }

  static std::size_t highest_place(const PerturberMap& map) {
    std::size_t best = 0;
    for (std::size_t k = 1; k < map.places.size(); ++k)
      if (map.significance(k) > map.significance(best)) best = k;
    return best;
  }

  /// What a perturber that is free to move over the whole image has at most, and where it begins.
  struct Free {
    double most;  ///< theta_E
    ParameterPrior x, y;
    Vec2<double> at;
  };
  Free free_at(Vec2<double> place) const {
    const Grid& g = lattice_.image;
    const double half_x = 0.5 * g.nx * g.pixel_scale, half_y = 0.5 * g.ny * g.pixel_scale;
    return {main_.theta_E > 0 ? main_.theta_E / 2 : half_x / 2,
            {g.center_x - half_x, g.center_x + half_x},
            {g.center_y - half_y, g.center_y + half_y},
            place};
  }

  /// An SIS at a place of the map.
  LensComponent sis(const Candidate& candidate) const {
    // Places are rays. There the deflection jumps, and has no derivative with respect to the center.
    const double aside = lattice_.image.pixel_scale / lattice_.image.supersampling;
    const Free free = free_at({candidate.place.x / angle_ + 0.31 * aside, candidate.place.y / angle_ + 0.23 * aside});
    const double theta_E = std::min(candidate.theta_E / angle_, 0.9 * free.most);
    return {LensKind::sis, {theta_E, free.at.x, free.at.y}, {1, 1, 1}, {{0, free.most}, free.x, free.y}};
  }

  /// A point mass in the place of a fitted SIS, with the same mass inside the radius of two pixels.
  LensComponent point_mass(const LensComponent& sis) const {
    const Free free = free_at({sis.values[1], sis.values[2]});
    const double theta_E = std::sqrt(sis.values[0] * 2 * lattice_.image.pixel_scale);
    return {LensKind::point_mass,
            {std::min(theta_E, 0.9 * free.most), free.at.x, free.at.y},
            {1, 1, 1},
            {{0, free.most}, free.x, free.y}};
  }

  /// A truncated NFW halo in the place of a fitted SIS, which deflects as much at Rs.
  LensComponent truncated_nfw(const LensComponent& sis) const {
    const Free free = free_at({sis.values[1], sis.values[2]});
    const double unit = main_.theta_E;
    return {LensKind::tnfw,
            {kScale * unit, sis.values[0], unit, free.at.x, free.at.y},
            {1, 1, 0, 1, 1},
            {{kLeastScale * unit, kMostScale * unit, kScale * unit, kScaleSpread * unit},
             {0, free.most},
             {},
             free.x,
             free.y}};
  }

  /// What masses outside the image do beyond a shear.
  LensComponent gradient() const {
    const ParameterPrior prior{-kInfinity, kInfinity, 0, kGradientSpread / main_.theta_E};
    return {LensKind::flexion,
            {0, 0, 0, 0, main_.at.x, main_.at.y},
            {1, 1, 1, 1, 0, 0},
            {prior, prior, prior, prior, {}, {}}};
  }

  /// A fitted explanation.
  struct Weighed {
    Alternative result;
    Explanation fit;
  };

  /// Fits an explanation. @param from  an explanation that it begins from, and that has fewer lenses
  Weighed weigh(const std::string& name, const Explanation& from, const std::vector<LensComponent>& added) {
    Weighed w{{},
              explain(name, with_lenses(from, added), {.choose_weights = true, .errors = true}, pool_, interrupted_)};
    const Explanation& fit = w.fit;
    Alternative& result = w.result;
    result.name = name;
    result.evidence_gain = fit.log_evidence - smooth_.log_evidence;
    result.chi2_fall = smooth_.chi2 - fit.chi2;
    result.chi2_reduced = fit.chi2 / fitted_pixels(fit.problem);
    result.converged = fit.converged;
    const ParameterLayout layout(fit.problem.model);
    for (std::size_t c = smooth_.model.lens.size(); c < fit.model.lens.size(); ++c) {
      AddedLens& entry = result.added.emplace_back();
      entry.lens = fit.model.lens[c];
      const ProfileInfo& info = lens_info(entry.lens.kind);
      for (std::size_t i = 0; i < entry.lens.values.size(); ++i)
        entry.lens.values[i] *= size_of(info.parameters[i].unit, angle_);
      for (std::size_t i = 0; i < layout.n_free(); ++i) {
        const int slot = layout.free[i].slot;
        if (slot / kMaxProfileParameters != static_cast<int>(c)) continue;
        const auto parameter = static_cast<std::size_t>(slot % kMaxProfileParameters);
        entry.names.emplace_back(info.parameters[parameter].name);
        entry.values.push_back(entry.lens.values[parameter]);
        entry.sigma.push_back(fit.sigma.empty() ? std::nan("")
                                                : fit.sigma[i] * size_of(info.parameters[parameter].unit, angle_));
        ++result.parameters;
      }
    }
    result.bic_change = double(result.parameters) * std::log(fitted_pixels(fit.problem)) - result.chi2_fall;
    say_(fmt::format("{}: ln evidence {:+.1f}, chi2 {:+.1f}, BIC {:+.1f} compared with the smooth lens{}", name,
                     result.evidence_gain, -result.chi2_fall, result.bic_change,
                     fit.converged ? "" : ", not converged"));
    return w;
  }

  void find_alternatives() {
    if (found_.candidates.empty()) return;
    std::vector<Weighed> single{weigh("SIS", smooth_, {sis(found_.candidates[0])})};
    PerturberMap left = map_of(single[0].fit);
    for (std::size_t k = 1; k < found_.candidates.size(); ++k)
      if (left.significance(place_[k]) > kCandidate)
        single.push_back(weigh("SIS", smooth_, {sis(found_.candidates[k])}));
    const auto better = [](const Weighed& a, const Weighed& b) {
      return a.result.evidence_gain > b.result.evidence_gain;
    };
    const auto first = std::min_element(single.begin(), single.end(), better);
    if (first != single.begin()) left = map_of(first->fit);
    std::stable_sort(single.begin(), single.end(), better);
    std::vector<Alternative>& all = found_.alternatives;
    for (const Weighed& weighed : single) all.push_back(weighed.result);
    const Explanation& best = single[0].fit;
    const LensComponent& at = best.model.lens.back();
    all.push_back(weigh("point mass", smooth_, {point_mass(at)}).result);
    if (const std::size_t second = highest_place(left); left.significance(second) > kCandidate)
      all.push_back(weigh("two SIS", best, {sis(candidate(left, second))}).result);
    if (!(main_.theta_E > 0)) return;
    all.push_back(weigh("truncated NFW", smooth_, {truncated_nfw(at)}).result);
    const Weighed bare = weigh(kMultipoles, smooth_, multipoles({3, 4}, {}, true));
    all.push_back(bare.result);
    const std::size_t of_bare = all.size() - 1;
    all.push_back(weigh(kWithMultipoles, bare.fit, {at}).result);
    all.push_back(weigh(kMoreMultipoles, bare.fit, multipoles({1}, {}, true)).result);
    all.push_back(weigh(kGradient, smooth_, {gradient()}).result);
    hold_out(best, bare.fit, all[of_bare]);
  }

  /// χ² of sectors of the arcs that are predicted by fits to the other sectors.
  void hold_out(const Explanation& perturber, const Explanation& multipoles, Alternative& of_multipoles) {
    const double smooth = held_out_chi2(smooth_);
    found_.held_out_chi2 = smooth / fitted_pixels(smooth_.problem);
    found_.alternatives.front().held_out_fall = smooth - held_out_chi2(perturber);
    of_multipoles.held_out_fall = smooth - held_out_chi2(multipoles);
    say_(
        fmt::format("arcs held out in {} sectors: reduced chi2 of the smooth lens {:.4g}; chi2 {:+.1f} with the SIS, "
                    "{:+.1f} with {}",
                    kSectors, *found_.held_out_chi2, -*found_.alternatives.front().held_out_fall,
                    -*of_multipoles.held_out_fall, kMultipoles));
  }

  /// Sum of squared residuals of all used pixels, each predicted by a fit that did not see its sector. The source's
  /// prior stays as strong as it was.
  double held_out_chi2(const Explanation& explanation) {
    const Observation& o = explanation.problem.observation;
    double sum = 0;
    for (int sector = 0; sector < kSectors; ++sector) {
      Problem problem = explanation.problem;
      problem.held_out.assign(o.mask.size(), 0);
      for (int i = 0; i < o.grid.n_pixels(); ++i) {
        const Vec2<double> from = o.grid.pixel(i) - main_.at;
        const double turn = std::atan2(from.y, from.x) / (2 * kPi) + 0.5;  // 0 to 1
        problem.held_out[static_cast<std::size_t>(i)] =
            std::min(static_cast<int>(turn * kSectors), kSectors - 1) == sector;
      }
      const double share = double(fitted_pixels(problem)) / fitted_pixels(explanation.problem);
      if (share == 1 || share == 0) continue;
      problem.regularization.source_gradient /= share;
      problem.regularization.source_curvature /= share;
      const std::vector<double> predicted =
          image_of(explain("held out", problem, {.steps = kStepsOfSector, .tolerance = 3e-3}, pool_, interrupted_));
      for (std::size_t i = 0; i < predicted.size(); ++i) {
        if (!o.mask[i] || !problem.held_out[i]) continue;
        const double residual = (predicted[i] - o.image[i]) / o.noise[i];
        sum += residual * residual;
      }
    }
    return sum;
  }

  /// Perturbers of the mass that the map says would just have been seen, at places of every sensitivity up to the
  /// median.
  void inject() {
    std::vector<std::size_t> order(map_.places.size());
    for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
    std::sort(order.begin(), order.end(),
              [this](std::size_t a, std::size_t b) { return map_.sigma(a) < map_.sigma(b); });
    for (int i = 0; i < settings_.injections && !order.empty(); ++i) {
      const std::size_t k =
          order[order.size() / 2 * static_cast<std::size_t>(i) / static_cast<std::size_t>(settings_.injections)];
      const Vec2<double> at = map_.places[k];
      const double theta_E = found_.seen * map_.sigma(k);
      const std::uint64_t stream = 1000000 + static_cast<std::uint64_t>(i);
      const PerturberMap map =
          refit(mock_of(smooth_, {fixed_lens(LensKind::sis, {theta_E, at.x, at.y})}, settings_.seed, stream));
      found_.injections.push_back({angle_ * at, theta_E * angle_, found_.seen, map.significance(k)});
      say_(fmt::format("injection {} of {}: theta_E = {:.3g} arcsec at ({:.2f}, {:.2f}): {:.1f} sigma, expected {:.1f}",
                       i + 1, settings_.injections, theta_E * angle_, angle_ * at.x, angle_ * at.y, map.significance(k),
                       found_.seen));
    }
  }

  const Explanation& smooth_;
  double angle_;
  const DetectionSettings& settings_;
  ThreadPool& pool_;
  const std::function<void(const std::string&)>& say_;
  const std::function<bool()>& interrupted_;
  Lattice lattice_;
  MainLens main_;
  PerturberMap map_;
  std::vector<std::size_t> place_;  ///< of the candidates
  Detection found_;
};

}  // namespace

std::optional<double> Detection::p_value() const {
  if (nulls.empty()) return std::nullopt;
  const auto as_high =
      std::count_if(nulls.begin(), nulls.end(), [this](const NullMock& mock) { return mock.significance >= highest; });
  return double(as_high + 1) / double(nulls.size() + 1);
}

const Alternative* Detection::named(const std::string& name) const {
  const auto at =
      std::find_if(alternatives.begin(), alternatives.end(), [&](const Alternative& a) { return a.name == name; });
  return at == alternatives.end() ? nullptr : &*at;
}

const Alternative* Detection::best() const {
  return named("SIS");  // the candidates' are sorted
}

bool Detection::found() const {
  const Alternative *perturber = best(), *bare = named(kMultipoles), *both = named(kWithMultipoles);
  if (!perturber || !(perturber->evidence_gain > kStrongEvidence) || !(highest > seen) || !fits()) return false;
  if (bare && !(both->evidence_gain - bare->evidence_gain > kStrongEvidence)) return false;
  const double most = std::max(perturber->evidence_gain, both ? both->evidence_gain : perturber->evidence_gain);
  for (const char* name : {kMoreMultipoles, kGradient})
    if (const Alternative* smooth = named(name); smooth && !(most - smooth->evidence_gain > kStrongEvidence))
      return false;
  return true;
}

std::vector<std::string> Detection::as_good() const {
  std::vector<std::string> names;
  for (const Alternative& a : alternatives)
    if (a.name != "SIS" && a.name != kWithMultipoles && a.evidence_gain > best()->evidence_gain - kStrongEvidence)
      names.push_back(a.name);
  return names;
}

bool Detection::fits() const {
  double least = chi2_reduced;
  for (const Alternative& a : alternatives) least = std::min(least, a.chi2_reduced);
  return least <= chi2_allowed;
}

std::size_t detection_bytes(const Problem& problem, int threads) {
  const std::size_t data = static_cast<std::size_t>(fitted_pixels(problem)), places = kMostPlaces,
                    pixels = ParameterLayout(problem.model).free_pixels.size();
  // The map: derivatives by the masses twice, their products with those by the pixels thrice, with each other twice.
  return gauss_newton_bytes(problem, threads) + 8 * places * (2 * data + 3 * pixels + 2 * places);
}

Detection detect(const Explanation& smooth, double angle, const DetectionSettings& settings, ThreadPool& pool,
                 std::vector<NullMock> done, const std::function<void(const std::string&)>& say,
                 const std::function<void(const std::vector<NullMock>&)>& keep,
                 const std::function<bool()>& interrupted) {
  return Detector(smooth, angle, settings, pool, say, interrupted).run(std::move(done), keep);
}

double mass_within_kpc(const Cosmology& cosmology, const LensComponent& lens) {
  // A circular lens deflects by α(R): inside R is the mass of π α R square arcseconds of the critical density.
  const double radius = 1e-3 / cosmology.distance(0, cosmology.z_lens) * 180 * 3600 / kPi;
  const auto center = static_cast<std::size_t>(lens_center(lens.kind));
  const Vec2<double> at{lens.values[center] + radius, lens.values[center + 1]};
  return cosmology.mass_per_square_arcsec() * kPi * radius * lens_deflection(lens.kind, lens.values.data(), at).x;
}

double mass_within_kpc(const Cosmology& cosmology, double theta_E) {
  return mass_within_kpc(cosmology, fixed_lens(LensKind::sis, {theta_E, 0, 0}));
}

std::string in_words(const Detection& d, const std::optional<Cosmology>& cosmology) {
  const auto mass = [&](double theta_E) {
    return cosmology ? " (" + number(mass_within_kpc(*cosmology, theta_E), 2) + " solar masses within 1 kpc)" : "";
  };
  std::string text;
  const Alternative* best = d.best();
  if (best) {
    const AddedLens& lens = best->added.front();
    const auto with_error = [&](std::size_t i) {
      return std::isfinite(lens.sigma[i]) ? number(lens.values[i]) + " ± " + number(lens.sigma[i], 2)
                                          : number(lens.values[i]);
    };
    text += fmt::format(
        "{} perturber{}: an SIS with theta_E = {} arcsec{} at x = {}, y = {} arcsec, at the redshift of "
        "the lens, changes ln evidence by {:+.1f}. ",
        d.found() ? "A" : "No", d.found() ? "" : " is found. The best", with_error(0), mass(lens.values[0]),
        with_error(1), with_error(2), best->evidence_gain);
    if (const Alternative* bare = d.named(kMultipoles), *both = d.named(kWithMultipoles); bare && both)
      text += fmt::format(
          "Multipoles of orders 3 and 4 of the main lens change it by {:+.1f}; with them, the SIS changes "
          "it by another {:+.1f}. ",
          bare->evidence_gain, both->evidence_gain - bare->evidence_gain);
    if (const Alternative* point = d.named("point mass"))
      text += fmt::format("A point mass instead changes it by {:+.1f}. ", point->evidence_gain);
    if (const Alternative* two = d.named("two SIS"))
      text += fmt::format("Two SIS change it by {:+.1f}. ", two->evidence_gain);
    if (const Alternative* halo = d.named("truncated NFW"))
      text += fmt::format("A truncated NFW halo instead changes it by {:+.1f}. ", halo->evidence_gain);
    if (const Alternative* more = d.named(kMoreMultipoles), *slope = d.named(kGradient); more && slope)
      text += fmt::format("Multipoles of orders 1, 3 and 4 change it by {:+.1f}, a gradient of the shear by {:+.1f}. ",
                          more->evidence_gain, slope->evidence_gain);
    if (const std::vector<std::string> names = d.as_good(); !names.empty())
      text += fmt::format("As good an explanation as the SIS: {}. ", fmt::join(names, ", "));
    if (best->held_out_fall)
      text += fmt::format(
          "In arcs that were not fitted, chi2 changes by {:+.1f} with the SIS and by {:+.1f} with the "
          "multipoles of orders 3 and 4. ",
          -*best->held_out_fall, -d.named(kMultipoles)->held_out_fall.value_or(0));
  } else {
    text += fmt::format("No perturber is found: no place of the map is above {:g} σ. ", kCandidate);
  }
  const auto as_high = std::count_if(d.nulls.begin(), d.nulls.end(),
                                     [&](const NullMock& mock) { return mock.significance >= d.highest; });
  if (!d.nulls.empty())
    text += fmt::format(
        "The highest place of the map has {:.1f} σ; {} of {} mocks without a perturber come as far "
        "(p = {:.2g}). ",
        d.highest, as_high, d.nulls.size(), *d.p_value());
  else
    text += fmt::format(
        "The highest place of the map has {:.1f} σ; where the model is right, {:.2g} of maps without a "
        "perturber come as far. No mocks were fitted. ",
        d.highest, d.by_chance);
  std::vector<double> limits;
  for (const double v : d.limit)
    if (std::isfinite(v)) limits.push_back(v);
  std::sort(limits.begin(), limits.end());
  if (!limits.empty()) {
    const double least = limits.front(), middle = limits[limits.size() / 2];
    text += fmt::format(
        "An SIS of theta_E = {} arcsec{} would have been seen at the most sensitive place, and one of {} "
        "arcsec{} over half of the image.",
        number(least), mass(least), number(middle), mass(middle));
  }
  if (!d.fits())
    text += fmt::format(
        " No explanation fits the data to the noise (reduced chi2 of the smooth lens {:.3g}, expected at "
        "most {:.3g}), so nothing here is significant: the source may need finer pixels, the lens light or "
        "the mass a richer model.",
        d.chi2_reduced, d.chi2_allowed);
  if (!d.converged) text += " The fit of the smooth lens has not converged.";
  return text;
}

}  // namespace einfield
