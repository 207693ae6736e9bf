// Samples the posterior of a fit by Hamiltonian Monte Carlo, and compares its means and widths in the arcs with those
// of members of `randomized` and of `laplace`. Built on request only:
//
//     cmake --build build/cpu --target posterior_chain
//     einfield simulate examples/subhalo.toml && build/cpu/tests/posterior_chain examples/subhalo.toml
//
// The posterior is exp(−F/2) with F of host/fit/joint_model.hpp (1), the objective that members are minima of:
// penalties of the network as its prior, none on signs, source and lens known. Chains start from the first members, so
// that they begin as far apart as the posterior is wide, and another minimum that members find is seen.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <Eigen/Eigenvalues>
#include <exception>
#include <iostream>

#include "einfield/units.hpp"
#include "host/app/fit_run.hpp"
#include "host/fields/psf_smoothing.hpp"
#include "host/fit/laplace.hpp"
#include "host/fit/member_objective.hpp"
#include "host/fit/randomized.hpp"
#include "tests/hmc.hpp"

namespace einfield {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> changes;
  int members = 256, chains = 2, warmup = 400, samples = 4000, every = 4, threads = 2;
  double length = 3, minutes = 15;
};

/// What makes the fit a posterior that can be sampled: proper priors that are Gaussian where the network is linear.
const std::vector<Override> kPosterior = {{"network.ensemble", "1"},
                                          {"regularization.negative_convergence", "0.0"},
                                          {"regularization.negative_total_convergence", "0.0"},
                                          {"regularization.weight_decay", "0.3"}};

/// ψ minus its mean over the arcs, α and κ at the pixels of the arcs, and κ behind the PSF; one after the other.
class ArcMaps {
 public:
  static constexpr const char* kNames[] = {"ψ", "α_x", "α_y", "κ", "κ, PSF"};
  static constexpr std::size_t kMaps = 5;

  ArcMaps(const LoadedProblem& loaded, const Units& units)
      : problem_(loaded.problem),
        units_(units),
        layout_(problem_.model),
        arcs_(region(problem_.observation, &loaded.truth->image)),
        theta_(pixel_centers(problem_.observation.grid)),
        smooth_(problem_.observation) {}

  const std::vector<std::size_t>& arcs() const { return arcs_; }
  /// Weights of the pixels in the mean of ψ.
  std::vector<double> weights() const {
    std::vector<double> weights(theta_.size() / 2, 0.0);
    for (const std::size_t i : arcs_) weights[i] = 1;
    return weights;
  }
  std::vector<double> in_data_units(const std::vector<double>& x) const {
    return parameters_in_data_units(problem_.model, layout_, x, units_);
  }
  /// @param x  flat vector in the units of the fit
  Eigen::VectorXd operator()(const std::vector<double>& x) {
    const std::vector<double> flat = in_data_units(x);
    ThreadPool alone(1);
    LensFields fields = network_fields<double>(
        *problem_.model.network, {flat.begin(), flat.begin() + static_cast<std::ptrdiff_t>(layout_.n_network)}, theta_,
        alone);
    const std::vector<double> blurred = smooth_(fields.convergence);
    Eigen::VectorXd maps = of(fields, blurred);
    maps.head(static_cast<Eigen::Index>(arcs_.size())).array() -=
        maps.head(static_cast<Eigen::Index>(arcs_.size())).mean();
    return maps;
  }
  /// @param blurred  for the last map
  Eigen::VectorXd of(const LensFields& fields, const std::vector<double>& blurred) const {
    const std::size_t n = arcs_.size(), pixels = theta_.size() / 2;
    Eigen::VectorXd maps(static_cast<Eigen::Index>(kMaps * n));
    for (std::size_t k = 0; k < n; ++k) {
      const std::size_t i = arcs_[k];
      const double values[] = {fields.potential[i], fields.deflection[i], fields.deflection[pixels + i],
                               fields.convergence[i], blurred[i]};
      for (std::size_t map = 0; map < kMaps; ++map) maps[static_cast<Eigen::Index>(map * n + k)] = values[map];
    }
    return maps;
  }

 private:
  const Problem& problem_;
  Units units_;
  ParameterLayout layout_;
  std::vector<std::size_t> arcs_;
  std::vector<double> theta_;
  PsfSmoothing smooth_;
};

/// Mean and scatter of maps.
struct Moments {
  Eigen::VectorXd sum, squares;
  double count = 0;

  void add(const Eigen::VectorXd& maps) {
    if (count == 0) sum = squares = Eigen::VectorXd::Zero(maps.size());
    sum += maps;
    squares += maps.cwiseAbs2();
    ++count;
  }
  void add(const Moments& more) {
    if (count == 0) sum = squares = Eigen::VectorXd::Zero(more.sum.size());
    sum += more.sum;
    squares += more.squares;
    count += more.count;
  }
  Eigen::VectorXd mean() const { return sum / count; }
  Eigen::VectorXd sigma() const { return ((squares / count - mean().cwiseAbs2()) * count / (count - 1)).cwiseSqrt(); }
};

/// One chain: moments of the maps, and series of a few numbers.
struct ChainResult {
  hmc::Summary summary;
  Moments moments;
  std::vector<std::vector<double>> series;  ///< of each map at kProbes pixels; then F
};
constexpr std::size_t kProbes = 12;

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

double processor_seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

ChainResult sample(const JointModel& model, const std::vector<double>& center, const Eigen::MatrixXd& root,
                   const std::vector<double>& start, const LoadedProblem& loaded, const Options& options, int number) {
  ArcMaps maps(loaded, units_of(loaded.problem));
  const PixelPrior none(model);
  MemberObjective objective(model, none, std::nullopt);
  MemberObjective::Point at;
  const auto density = [&](const Eigen::VectorXd& displacement, Eigen::VectorXd& gradient) {
    at.x = objective.moved(center, 1, displacement);
    objective.evaluate(at);
    gradient = -at.gradient;
    return -at.value / 2;
  };
  Eigen::VectorXd from(root.rows());
  for (std::size_t k = 0; k < model.rest().size(); ++k)
    from[static_cast<Eigen::Index>(k)] = start[model.rest()[k]] - center[model.rest()[k]];
  ChainResult result;
  result.series.resize(ArcMaps::kMaps * kProbes + 1);
  const std::size_t n = maps.arcs().size();
  int seen = 0;
  const double end = processor_seconds() + 60 * options.minutes;
  const auto record = [&](const Eigen::VectorXd& displacement) {
    if (++seen % options.every != 0) return;
    MemberObjective::Point here{objective.moved(center, 1, displacement), 0, {}};
    const Eigen::VectorXd values = maps(here.x);
    result.moments.add(values);
    for (std::size_t map = 0; map < ArcMaps::kMaps; ++map)
      for (std::size_t p = 0; p < kProbes; ++p)
        result.series[map * kProbes + p].push_back(
            values[static_cast<Eigen::Index>(map * n + (2 * p + 1) * n / (2 * kProbes))]);
    objective.evaluate(here);
    result.series.back().push_back(here.value);
  };
  result.summary = hmc::run(density, from, root,
                            {.warmup = options.warmup,
                             .samples = options.samples,
                             .length = options.length,
                             .seed = static_cast<std::uint64_t>(number) + 1},
                            record, [end] { return processor_seconds() < end; });
  return result;
}

/// A line of the table: how a method compares with the chains, for one map.
void compare(const char* method, std::size_t map, std::size_t n, const Eigen::VectorXd& mean,
             const Eigen::VectorXd& sigma, const Moments& chains) {
  const Eigen::VectorXd true_mean = chains.mean(), true_sigma = chains.sigma();
  std::vector<double> shift, ratio, off;
  for (std::size_t k = 0; k < n; ++k) {
    const auto i = static_cast<Eigen::Index>(map * n + k);
    shift.push_back(std::abs(mean[i] - true_mean[i]) / true_sigma[i]);
    ratio.push_back(sigma[i] / true_sigma[i]);
    off.push_back(std::abs(ratio.back() - 1));
  }
  std::printf("| %s | %s | %.2f | %.2f | %.0f %% |\n", ArcMaps::kNames[map], method, median(shift), median(ratio),
              100 * median(off));
}

void report(const ArcMaps& maps, const std::vector<ChainResult>& chains, const RandomizedFit& fit,
            const std::vector<Eigen::VectorXd>& members, const Eigen::VectorXd& center,
            const Eigen::VectorXd& laplace) {
  Moments all, scatter;
  for (const ChainResult& chain : chains) {
    all.add(chain.moments);
    std::printf("chain: step %.3f, acceptance %.2f, %d divergent, %ld evaluations\n", chain.summary.step,
                chain.summary.acceptance, chain.summary.divergent, chain.summary.evaluations);
  }
  Eigen::VectorXd squares = Eigen::VectorXd::Zero(center.size());
  int converged = 0;
  for (std::size_t m = 0; m < members.size(); ++m) {
    scatter.add(members[m]);
    squares += (members[m] - center).cwiseAbs2() / static_cast<double>(members.size());
    converged += fit.members[m].converged;
  }
  std::printf("members: %d of %zu converged\n", converged, members.size());
  const auto effective = [&](std::size_t series) {
    std::vector<std::vector<double>> of_chains;
    for (const ChainResult& chain : chains) of_chains.push_back(chain.series[series]);
    return hmc::effective_samples(of_chains);
  };
  std::printf("effective samples of %.0f recorded ones, least and median of %zu arc pixels:", all.count, kProbes);
  for (std::size_t map = 0; map < ArcMaps::kMaps; ++map) {
    std::vector<double> found;
    for (std::size_t p = 0; p < kProbes; ++p) found.push_back(effective(map * kProbes + p));
    std::printf(" %s %.0f, %.0f;", ArcMaps::kNames[map], *std::min_element(found.begin(), found.end()), median(found));
  }
  std::printf(" F %.0f\n", effective(ArcMaps::kMaps * kProbes));
  std::printf("| map | method | difference of means, σ of the chains | width over that of the chains | off by |\n");
  for (std::size_t map = 0; map < ArcMaps::kMaps; ++map) {
    const std::size_t n = maps.arcs().size();
    compare("randomized, mean of members", map, n, scatter.mean(), scatter.sigma(), all);
    compare("randomized, as reported", map, n, center, squares.cwiseSqrt(), all);
    compare("laplace", map, n, center, laplace, all);
  }
}

/// F of each chain in quarters, and of the members without their draws.
void report_objective(const JointModel& model, const std::vector<ChainResult>& chains, const RandomizedFit& fit) {
  const PixelPrior none(model);
  MemberObjective objective(model, none, std::nullopt);
  const auto value = [&](const std::vector<double>& x) {
    MemberObjective::Point at{x, 0, {}};
    objective.evaluate(at);
    return at.value;
  };
  const double least = value(fit.center.x);
  std::vector<double> of_members;
  for (const RandomizedMember& member : fit.members) of_members.push_back(value(member.x) - least);
  std::printf("F is %.1f at the fit of %zu weights; members without their draws: median %.0f more\n", least,
              model.rest().size(), median(of_members));
  for (const ChainResult& chain : chains) {
    const std::vector<double>& f = chain.series.back();
    std::printf("chain, medians of F in four parts:");
    for (std::size_t part = 0; part < 4; ++part) {
      const auto at = [&](std::size_t k) { return f.begin() + static_cast<std::ptrdiff_t>(k * f.size() / 4); };
      std::printf(" %.0f", median({at(part), at(part + 1)}) - least);
    }
    std::printf(" more\n");
  }
}

void run(const Options& options) {
  std::vector<Override> changes;
  for (const std::string& change : options.changes) {
    const std::size_t equals = std::min(change.find('='), change.size() - 1);
    changes.push_back({change.substr(0, equals), change.substr(equals + 1)});
  }
  for (const Override& own : kPosterior)
    if (std::none_of(changes.begin(), changes.end(), [&](const Override& given) { return given.key == own.key; }))
      changes.push_back(own);
  const Config config = read_config(options.config, changes, false);
  RunOptions how;
  how.backend = "cpu";
  how.threads = options.threads;
  how.double_precision = true;
  Log log = log_of(config, how);
  FitRun<double> fitted(config, how, log);
  if (!fitted.loaded().truth)
    throw InvalidInput(options.config + ": no [truth], expected one: it says where the arcs are");
  if (ParameterLayout(fitted.loaded().problem.model).n_network != ParameterLayout(fitted.loaded().problem.model).size())
    throw InvalidInput(options.config + ": lens or source are free, expected only a network");
  fitted.load();
  fitted.fit(std::nullopt, nullptr);
  const Problem& problem = fitted.plan().problems.front();
  ThreadPool pool(options.threads);
  double clock = processor_seconds();
  const auto lap = [&clock](const char* what) {
    const double now = processor_seconds();
    std::printf("%s: %.0f s of processor time\n", what, now - clock);
    std::fflush(stdout);
    clock = now;
  };
  // The minimum, closer than members need it.
  const std::vector<double> minimum = randomized_fit(problem, fitted.results().front().parameters,
                                                     {.members = 1, .steps = 1000, .tolerance = 1e-2}, pool)
                                          .center.x;
  lap("minimum");
  const RandomizedFit fit = randomized_fit(problem, minimum, {.members = options.members}, pool);
  lap("members");

  ArcMaps maps(fitted.loaded(), units_of(fitted.loaded().problem));
  std::vector<Eigen::VectorXd> members;
  for (const RandomizedMember& member : fit.members) members.push_back(maps(member.x));
  const FieldErrors errors =
      Laplace(fitted.loaded().problem, maps.in_data_units(fit.center.x), pool).fields(maps.weights());
  JointModel model(problem, {}, pool);
  const Linearization l = model.linearize(fit.center.x);
  const DataNormal normal(l, 0, pool);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(
      JointPosterior(model, l, normal, problem.regularization, pool).schur());
  const Eigen::MatrixXd root = eigen.eigenvectors() * eigen.eigenvalues().cwiseSqrt().cwiseInverse().asDiagonal();
  std::vector<ChainResult> chains(static_cast<std::size_t>(options.chains));
  pool.parallel_for(options.chains, [&](int c, int) {
    const auto k = static_cast<std::size_t>(c);
    chains[k] = sample(model, fit.center.x, root, fit.members[k % fit.members.size()].x, fitted.loaded(), options, c);
  });
  lap("chains");
  for (const ChainResult& chain : chains)
    if (chain.moments.count < 8) throw Error("a chain ended in its warm-up, expected a higher --minutes");
  report_objective(model, chains, fit);
  report(maps, chains, fit, members, maps(fit.center.x), maps.of(errors.sigma, errors.kappa_psf));
}

}  // namespace
}  // namespace einfield

int main(int argc, char** argv) {
  einfield::Options options;
  CLI::App app("Compares the error bars of a fit with samples of its posterior");
  app.add_option("config", options.config, "configuration with a network, a known source and a truth")->required();
  app.add_option("--set", options.changes, "SECTION.KEY=VALUE");
  app.add_option("--members", options.members, "of randomized");
  app.add_option("--chains", options.chains);
  app.add_option("--warmup", options.warmup, "samples of each chain that do not count");
  app.add_option("--samples", options.samples, "of each chain");
  app.add_option("--every", options.every, "samples from one that is recorded to the next");
  app.add_option("--length", options.length, "of the longest trajectory, about in sigma");
  app.add_option("--minutes", options.minutes, "of processor time after which all chains end");
  app.add_option("--threads", options.threads);
  CLI11_PARSE(app, argc, argv);
  try {
    einfield::run(options);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
