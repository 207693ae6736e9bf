// Every start is a descent. They advance independently between the halvings, where the slowest one is waited for.
#include "host/fit/starts.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

namespace einfield {
namespace {

constexpr int kMaxParameters = 1024, kMaxAttempts = 64;
constexpr double kLargestEllipticity = 0.8;
// Widths of the draws without a prior: the table of drawn_scalars().
constexpr double kThetaESpread = 0.2, kLengthSpread = 0.5, kLogisticSpread = 0.5, kEllipticitySpread = 0.15,
                 kAngleSpread = 1, kMultipoleSpread = 0.01, kCenterSpread = 0.1, kShearSpread = 0.05,
                 kFlexionSpread = 0.01;

/// Description and prior of a free scalar.
struct Known {
  ParameterInfo info;
  ParameterPrior prior;
};

Known known(const Model& model, int slot) {
  const auto component = static_cast<std::size_t>(slot / kMaxProfileParameters);
  const auto parameter = static_cast<std::size_t>(slot % kMaxProfileParameters);
  const auto of = [parameter](const ProfileInfo& info, const std::vector<ParameterPrior>& priors) {
    return Known{info.parameters[parameter], priors.empty() ? ParameterPrior{} : priors[parameter]};
  };
  if (component < model.lens.size()) {
    const LensComponent& c = model.lens[component];
    return of(lens_info(c.kind), c.priors);
  }
  const std::size_t light = component - model.lens.size();
  const LightComponent& c =
      light < model.source.size() ? model.source[light] : model.lens_light[light - model.source.size()];
  return of(light_info(c.kind), c.priors);
}

/// Mean of the Gaussian prior of a free scalar. @param values  of all free scalars
double mean_of(const ParameterLayout& layout, std::size_t scalar, const std::vector<double>& values) {
  for (const GaussianPrior<double>& prior : layout.priors)
    if (prior.free == static_cast<int>(scalar))
      return prior.other < 0 ? prior.mean : prior.factor * values[static_cast<std::size_t>(prior.other)] + prior.mean;
  return values[scalar];
}

double largest_radius(const Model& model) {
  double largest = 0;
  for (const LensComponent& c : model.lens) {
    const int i = lens_info(c.kind).index_of("theta_E");
    if (i >= 0) largest = std::max(largest, c.values[static_cast<std::size_t>(i)]);
  }
  return largest > 0 ? largest : 1;
}

}  // namespace

std::vector<double> drawn_scalars(const Model& model, const ScalarModel& scalars, std::uint64_t seed, int start,
                                  int attempt) {
  const ParameterLayout& layout = scalars.layout();
  const Philox philox{seed};
  const double theta_E = largest_radius(model);
  std::vector<double> values = layout.physical(scalars.initial_scalars().data());
  std::vector<std::size_t> in_logistic;  // drawn in the unconstrained coordinate
  std::vector<double> shift(values.size(), 0.0);
  for (std::size_t m = scalars.n_linear(); m < scalars.moving().size(); ++m) {
    const auto i = static_cast<std::size_t>(scalars.moving()[m]);
    const auto [info, prior] = known(model, layout.free[i].slot);
    const std::uint64_t counter =
        ((static_cast<std::uint64_t>(start) * kMaxAttempts + static_cast<std::uint64_t>(attempt)) * kMaxParameters +
         i) *
        kMaxAttempts;
    const double normal = philox.normal(counter, random_stream::kStarts);
    double& value = values[i];
    if (prior.gaussian()) {
      const double mean = mean_of(layout, i, values);
      value = mean + prior.sigma * normal;
      const double lower = std::max(prior.lower, info.lower), upper = std::min(prior.upper, info.upper);
      const auto inside = [&] { return value > lower && value < upper; };
      for (int k = 1; k < kMaxAttempts && !inside(); ++k)
        value = mean + prior.sigma * philox.normal(counter + static_cast<std::uint64_t>(k), random_stream::kStarts);
      // The Gaussian lies outside the range.
      if (!inside()) value = layout.physical(scalars.initial_scalars().data())[i];
      continue;
    }
    if (prior.bounded()) {
      value = prior.lower + (prior.upper - prior.lower) * philox.uniform(counter, random_stream::kStarts);
      continue;
    }
    const std::string name = info.name, unit = info.unit;
    switch (info.range) {
      case Range::positive:
        value *= std::exp((name == "theta_E" ? kThetaESpread : kLengthSpread) * normal);
        break;
      case Range::interval:
        in_logistic.push_back(i);
        shift[i] = kLogisticSpread * normal;
        break;
      case Range::ellipticity:
        value += kEllipticitySpread * normal;
        break;
      case Range::unbounded:
        value += normal * (unit == "rad"        ? kAngleSpread
                           : name == "a_m"      ? kMultipoleSpread * theta_E
                           : unit == "arcsec"   ? kCenterSpread * theta_E
                           : unit == "arcsec-1" ? kFlexionSpread / theta_E
                                                : kShearSpread);
        break;
      case Range::integer:
      case Range::reference:
        break;
    }
  }
  // The two components of an ellipticity may together lie outside the disk, also with bounds or priors.
  for (std::size_t i = 0; i < values.size(); ++i) {
    const FreeParameter<double>& f = layout.free[i];
    if (f.kind != TransformKind::disk) continue;
    const double limit = kLargestEllipticity * f.upper;
    if (f.partner < 0) {
      values[i] = std::clamp(values[i], -limit, limit);
    } else if (static_cast<int>(i) < f.partner) {
      double& other = values[static_cast<std::size_t>(f.partner)];
      const double length = std::hypot(values[i], other);
      if (length > limit) {
        values[i] *= limit / length;
        other *= limit / length;
      }
    }
  }
  std::vector<double> u = layout.unconstrained(values);
  for (const std::size_t i : in_logistic) u[i] += shift[i];
  // Scalars that do not move keep their bits.
  std::vector<std::uint8_t> moves(u.size(), false);
  for (const int i : scalars.moving()) moves[static_cast<std::size_t>(i)] = true;
  for (std::size_t i = 0; i < u.size(); ++i)
    if (!moves[i]) u[i] = scalars.initial_scalars()[i];
  return u;
}

namespace {

/// The starts of one system on their way.
class Search {
 public:
  Search(const ScalarModel& scalars, int system, const StartsPlan& plan)
      : scalars_(scalars), system_(system), plan_(plan), descents_(static_cast<std::size_t>(plan.count)) {
    result_.starts.resize(descents_.size());
    active_.resize(descents_.size());
    std::iota(active_.begin(), active_.end(), std::size_t{0});
    for (const std::size_t i : active_) draw(i);
  }

  /// The descents that want to know a point, after halvings that are due. None = the search has ended.
  std::vector<std::size_t> waiting() {
    for (;;) {
      std::vector<std::size_t> list;
      for (const std::size_t i : active_)
        if (!settled(*descents_[i])) list.push_back(i);
      if (!list.empty() || !next_halving()) return list;
    }
  }
  const ScalarRequest* ask(std::size_t i) { return descents_[i]->ask(); }
  void tell(std::size_t i, ScalarAnswer answer) {
    LevenbergMarquardt& descent = *descents_[i];
    const bool first = !descent.started();
    descent.tell(std::move(answer));
    if (!first || descent.alive() || plan_.count == 1) return;
    if (result_.starts[i].redrawn++ < kRedraws)
      draw(i);
    else
      std::erase(active_, i);
  }
  /// Steps of all descents that have ended.
  int searches() const {
    int n = 0;
    for (const std::optional<LevenbergMarquardt>& descent : descents_) n += descent->searches();
    return n;
  }
  /// How many starts have ended, and the lowest reduced χ² so far.
  StartsProgress progress() const {
    StartsProgress now{0, static_cast<int>(descents_.size() - active_.size()), plan_.count, kInfinity};
    for (const std::size_t i : active_) now.ended += ended(*descents_[i]);
    double lowest = kInfinity;
    for (const std::optional<LevenbergMarquardt>& descent : descents_) {
      if (!descent->alive() || !(descent->point().value() < lowest)) continue;
      lowest = descent->point().value();
      now.chi2_reduced = descent->point().chi2_reduced;
    }
    return now;
  }
  StartsResult finish(bool interrupted);

 private:
  void draw(std::size_t i) {
    const int attempt = result_.starts[i].redrawn;
    std::vector<double> begin;
    if (attempt == 0 && i < plan_.given.size())
      begin = plan_.given[i];
    else if (attempt == 0 && i == 0)
      begin = scalars_.initial_scalars();
    else
      begin = drawn_scalars(*plan_.model, scalars_, plan_.seed, static_cast<int>(i), attempt);
    descents_[i].emplace(scalars_, system_, std::move(begin));
  }
  bool ended(const LevenbergMarquardt& descent) const {
    return descent.started() && (!descent.alive() || descent.converged() || descent.searches() >= plan_.steps);
  }
  bool halves() const { return halving_ < std::size(kHalvings) && kHalvings[halving_] <= plan_.steps; }
  /// Steps after which a descent waits for the others.
  int limit() const { return halves() ? kHalvings[halving_] : plan_.steps; }
  bool settled(const LevenbergMarquardt& descent) const {
    return descent.started() && (!descent.alive() || descent.converged() || descent.searches() >= limit());
  }
  /// Gives up the worse half. False when nothing is left to do.
  bool next_halving() {
    const bool reached = std::any_of(active_.begin(), active_.end(),
                                     [this](std::size_t i) { return descents_[i]->searches() == limit(); });
    if (!reached || !halves()) return false;
    ++halving_;
    const std::size_t kept = std::max(kAtLeast, (active_.size() + 1) / 2);
    if (kept >= active_.size()) return true;
    std::stable_sort(active_.begin(), active_.end(), [&](std::size_t a, std::size_t b) {
      return descents_[a]->point().value() < descents_[b]->point().value();
    });
    active_.resize(kept);
    std::sort(active_.begin(), active_.end());
    return true;
  }

  const ScalarModel& scalars_;
  int system_;
  StartsPlan plan_;
  std::vector<std::optional<LevenbergMarquardt>> descents_;
  std::vector<std::size_t> active_;
  std::size_t halving_ = 0;
  StartsResult result_;
};

StartsResult Search::finish(bool interrupted) {
  result_.interrupted = interrupted;
  std::size_t best = descents_.size();
  for (std::size_t i = 0; i < descents_.size(); ++i) {
    const LevenbergMarquardt& descent = *descents_[i];
    StartRecord& record = result_.starts[i];
    const ScalarPoint& point = descent.point();
    record.alive = descent.alive();
    record.value = point.value();
    record.chi2_reduced = point.chi2_reduced;
    record.steps = descent.alive() ? descent.steps() : 0;
    record.finished = descent.alive() && std::find(active_.begin(), active_.end(), i) != active_.end();
    record.free = scalars_.layout().physical(point.u.data());
    result_.evaluations += descent.evaluations();
    if (descent.alive() && (best == descents_.size() || point.value() < result_.starts[best].value)) best = i;
  }
  if (best < descents_.size()) {
    result_.starts[best].best = true;
    result_.best = std::move(descents_[best]);
  }
  return std::move(result_);
}

}  // namespace

std::vector<std::size_t> lowest_valleys(const std::vector<StartRecord>& starts, std::size_t most) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < starts.size(); ++i)
    if (starts[i].alive && starts[i].finished) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&starts](std::size_t a, std::size_t b) { return starts[a].value < starts[b].value; });
  std::vector<std::size_t> valleys;
  for (const std::size_t i : order) {
    if (valleys.size() == most) break;
    if (valleys.empty() || starts[i].value > starts[valleys.back()].value * (1 + kSameValley)) valleys.push_back(i);
  }
  return valleys;
}

std::vector<StartRecord> continued_starts(std::vector<StartRecord> before, const std::vector<std::size_t>& continued,
                                          const std::vector<StartRecord>& after) {
  std::vector<std::size_t> valley(before.size(), continued.size());
  for (std::size_t i = 0; i < before.size(); ++i)
    for (std::size_t k = 0; k < continued.size(); ++k) {
      const double lowest = before[continued[k]].value;
      if (before[i].alive && before[i].value >= lowest && before[i].value <= lowest * (1 + kSameValley) &&
          valley[i] == continued.size())
        valley[i] = k;
    }
  for (std::size_t i = 0; i < before.size(); ++i) {
    StartRecord& record = before[i];
    record.best = false;
    record.finished = valley[i] < continued.size();
    if (!record.finished) continue;
    const StartRecord& end = after[valley[i]];
    record.value = end.value;
    record.chi2_reduced = end.chi2_reduced;
    record.steps += end.steps;
    record.alive = end.alive;
    record.free = end.free;
    record.best = end.best && continued[valley[i]] == i;
  }
  return before;
}

std::vector<StartsResult> run_starts(ScalarBatch& batch, const std::vector<StartsPlan>& plans, ThreadPool& pool,
                                     const std::function<bool()>& interrupted,
                                     const std::function<void(std::size_t, const StartsProgress&)>& progress) {
  const auto n = plans.size();
  std::vector<Search> searches;
  for (std::size_t i = 0; i < n; ++i)
    searches.emplace_back(batch.model(static_cast<int>(i)), static_cast<int>(i), plans[i]);
  const auto ended = [&] {
    return std::accumulate(searches.begin(), searches.end(), 0,
                           [](int sum, const Search& s) { return sum + s.searches(); });
  };
  std::vector<std::vector<std::size_t>> who(n);  // starts of every search that wait for an answer
  std::vector<std::vector<ScalarRequest>> asked(n);
  bool stopped = false;
  std::vector<int> starts_ended(n, 0);
  const auto report = [&] {
    for (std::size_t k = 0; k < n; ++k) {
      const StartsProgress now = searches[k].progress();
      if (now.ended > std::exchange(starts_ended[k], now.ended)) progress(k, now);
    }
  };
  for (int before = 0; !stopped;) {
    pool.parallel_for(static_cast<int>(n), [&](int index, int) {
      const auto k = static_cast<std::size_t>(index);
      who[k].clear();
      asked[k].clear();
      for (const std::size_t i : searches[k].waiting())
        if (const ScalarRequest* point = searches[k].ask(i)) {
          who[k].push_back(i);
          asked[k].push_back(*point);
        }
    });
    std::vector<ScalarRequest> points;
    std::vector<std::size_t> first(n);
    for (std::size_t k = 0; k < n; ++k) {
      first[k] = points.size();
      points.insert(points.end(), asked[k].begin(), asked[k].end());
    }
    if (points.empty() && ended() == before) break;
    std::vector<ScalarAnswer> answers = batch.evaluate(points);
    pool.parallel_for(static_cast<int>(n), [&](int index, int) {
      const auto k = static_cast<std::size_t>(index);
      for (std::size_t j = 0; j < who[k].size(); ++j) searches[k].tell(who[k][j], std::move(answers[first[k] + j]));
    });
    if (progress) report();
    const int now = ended();
    if (now > before) stopped = interrupted && interrupted();
    before = now;
  }
  std::vector<StartsResult> results;
  for (Search& search : searches) results.push_back(search.finish(stopped));
  return results;
}

}  // namespace einfield
