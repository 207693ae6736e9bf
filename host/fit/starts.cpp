// Every start is a descent; a sweep is one step of every descent that has not ended.
#include "host/fit/starts.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

namespace einfield {
namespace {

constexpr int kMaxParameters = 1024, kMaxAttempts = 64;
constexpr double kLargestEllipticity = 0.8;
// Widths of the draws without a prior: the table of drawn_scalars().
constexpr double kThetaESpread = 0.2, kLengthSpread = 0.5, kLogisticSpread = 0.5, kEllipticitySpread = 0.15,
                 kAngleSpread = 1, kMultipoleSpread = 0.01, kCenterSpread = 0.1, kShearSpread = 0.05;

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
      value = prior.mean + prior.sigma * normal;
      const double lower = std::max(prior.lower, info.lower), upper = std::min(prior.upper, info.upper);
      const auto inside = [&] { return value > lower && value < upper; };
      for (int k = 1; k < kMaxAttempts && !inside(); ++k)
        value =
            prior.mean + prior.sigma * philox.normal(counter + static_cast<std::uint64_t>(k), random_stream::kStarts);
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
        value += normal * (unit == "rad"      ? kAngleSpread
                           : name == "a_m"    ? kMultipoleSpread * theta_E
                           : unit == "arcsec" ? kCenterSpread * theta_E
                                              : kShearSpread);
        break;
      case Range::integer:
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

StartsResult run_starts(const Model& model, const ScalarModel& scalars, int count, std::uint64_t seed, int steps,
                        ThreadPool& pool, const std::function<bool()>& interrupted) {
  StartsResult result;
  const auto n = static_cast<std::size_t>(count);
  // One descent uses all threads; several descents use one thread each.
  const bool alone = count == 1;
  std::vector<std::unique_ptr<ThreadPool>> pools;
  std::vector<std::unique_ptr<ScalarEvaluator>> evaluators;
  for (int k = 0; k < (alone ? 1 : std::min(pool.threads(), count)); ++k) {
    if (!alone) pools.push_back(std::make_unique<ThreadPool>(1));
    evaluators.push_back(std::make_unique<ScalarEvaluator>(scalars, alone ? pool : *pools.back()));
  }
  const auto for_each = [&](const std::vector<std::size_t>& which, const auto& work) {
    if (alone) {
      for (const std::size_t i : which) work(i, *evaluators.front());
      return;
    }
    // One loop per evaluator; loop k handles starts k, k + n, k + 2n, …
    const std::size_t lanes = evaluators.size();
    pool.parallel_for(static_cast<int>(lanes), [&](int lane, int) {
      for (auto k = static_cast<std::size_t>(lane); k < which.size(); k += lanes)
        work(which[k], *evaluators[static_cast<std::size_t>(lane)]);
    });
  };

  result.starts.resize(n);
  std::vector<std::optional<LevenbergMarquardt>> descents(n);
  std::vector<std::size_t> active(n);
  std::iota(active.begin(), active.end(), std::size_t{0});
  for_each(active, [&](std::size_t i, ScalarEvaluator& evaluator) {
    for (int attempt = 0; attempt <= kRedraws; ++attempt) {
      const std::vector<double> u = i == 0 && attempt == 0
                                        ? scalars.initial_scalars()
                                        : drawn_scalars(model, scalars, seed, static_cast<int>(i), attempt);
      descents[i].emplace(evaluator, scalars, u);
      if (descents[i]->alive() || alone) break;
      ++result.starts[i].redrawn;
    }
  });
  std::erase_if(active, [&](std::size_t i) { return !descents[i]->alive(); });

  std::size_t halving = 0;
  for (int sweep = 0; sweep < steps; ++sweep) {
    std::vector<std::size_t> moving = active;
    std::erase_if(moving, [&](std::size_t i) { return descents[i]->converged(); });
    if (moving.empty()) break;
    for_each(moving, [&](std::size_t i, ScalarEvaluator& evaluator) { descents[i]->step(evaluator); });
    if (interrupted && interrupted()) {
      result.interrupted = true;
      break;
    }
    if (halving < std::size(kHalvings) && sweep + 1 == kHalvings[halving]) {
      ++halving;
      const std::size_t kept = std::max(kAtLeast, (active.size() + 1) / 2);
      if (kept >= active.size()) continue;
      std::stable_sort(active.begin(), active.end(), [&](std::size_t a, std::size_t b) {
        return descents[a]->point().value() < descents[b]->point().value();
      });
      active.resize(kept);
      std::sort(active.begin(), active.end());
    }
  }

  std::size_t best = n;
  for (std::size_t i = 0; i < n; ++i) {
    const LevenbergMarquardt& descent = *descents[i];
    StartRecord& record = result.starts[i];
    const ScalarPoint& point = descent.point();
    record.alive = descent.alive();
    record.value = point.value();
    record.chi2_reduced = point.chi2_reduced;
    record.steps = descent.alive() ? descent.steps() : 0;
    record.finished = std::find(active.begin(), active.end(), i) != active.end();
    record.free = scalars.layout().physical(point.u.data());
    result.evaluations += descent.evaluations();
    if (descent.alive() && (best == n || point.value() < result.starts[best].value)) best = i;
  }
  if (best < n) {
    result.starts[best].best = true;
    result.best = std::move(descents[best]);
  }
  return result;
}

}  // namespace einfield
