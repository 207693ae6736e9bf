// Stages of a fit as a backend runs them: the same decisions as a caller who looks at every evaluation, for every
// optimizer, rule and backend; systems that are done rest; a problem that takes the place of one; resuming to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "einfield/backend.hpp"
#include "host/cpu/lbfgs.hpp"
#include "tests/step_problem.hpp"

namespace einfield {
namespace {

struct Parameter {
  std::string backend;
  bool single;
};

/// Problems that differ by their data and initial values, so that they end after different numbers of steps.
std::vector<Problem> problems(int count) {
  std::vector<Problem> all;
  for (int i = 0; i < count; ++i) {
    StepCase c;
    c.nx = 12;
    c.ny = 10;
    c.free_lens = c.free_light = true;
    c.loss = LossKind::chi2;
    c.regularization.weight_decay = 1e-3;
    c.seed = static_cast<std::uint64_t>(3 + i);
    all.push_back(make_problem(c));
    Problem& p = all.back();
    p.held_out.assign(p.observation.mask.size(), 0);
    for (std::size_t k = 0; k < p.held_out.size(); k += 7) p.held_out[k] = 1;
  }
  return all;
}

template <class Real>
std::vector<StageStart<Real>> starts(int count) {
  return std::vector<StageStart<Real>>(static_cast<std::size_t>(count));
}

/// Runs the stage to its end, or for a number of looks.
template <class Real>
std::vector<StageProgress> run_stage(Backend<Real>& backend, std::vector<std::vector<StageRecord>>& records,
                                     int looks = 1000) {
  std::vector<StageProgress> progress;
  for (int i = 0; i < looks; ++i) {
    backend.advance(backend.evaluations_per_look());
    progress = backend.look(records);
    if (std::all_of(progress.begin(), progress.end(), [](const StageProgress& p) { return p.done; })) break;
  }
  return progress;
}

StageRun stage_run(OptimizerKind optimizer, StopRule rule, int steps) {
  StageRun run;
  run.optimizer = optimizer;
  run.schedule.learning_rates = {3e-2};
  run.schedule.clip_norm = 50;
  run.memory = 4;
  run.stop.rule = rule;
  run.stop.steps = steps;
  run.stop.patience = 5;
  run.stop.tolerance = 2e-3;
  run.stop.chi2 = 9.2;
  if (optimizer == OptimizerKind::adam && rule == StopRule::none) run.stop.keep_after = steps - 6;
  run.log_every = 3;
  return run;
}

/// What a caller would do who looks at every evaluation of Adam.
template <class Real>
struct ByHand {
  StageProgress progress;
  std::vector<Real> parameters, best;
  std::vector<std::int64_t> recorded;
};
template <class Real>
ByHand<Real> adam_by_hand(Backend<Real>& backend, int system, const StageRun& run) {
  ByHand<Real> hand;
  backend.begin(run.schedule);
  for (std::int64_t step = 0;; ++step) {
    backend.evaluate(true);
    const StepState state = backend.state(system);
    const Verdict verdict = judge(run.stop, step, state, hand.progress.watch);
    hand.parameters = backend.download(Field::parameters, system);
    if (verdict.best) hand.best = hand.parameters;
    hand.progress.step = step;
    hand.progress.reason = verdict.reason;
    if (verdict.ends) return hand;
    if (step % run.log_every == 0) hand.recorded.push_back(step);
    backend.adam();
  }
}

class Stages : public testing::TestWithParam<Parameter> {
 protected:
  template <class Real>
  std::unique_ptr<Backend<Real>> open() {
    try {
      return make_backend<Real>(GetParam().backend, BackendOptions{2, 0});
    } catch (const BackendUnavailable&) {
      return nullptr;
    }
  }
  template <template <class> class Body>
  void run() {
    GetParam().single ? run_as<float, Body>() : run_as<double, Body>();
  }
  template <class Real, template <class> class Body>
  void run_as() {
    const auto backend = open<Real>();
    if (!backend) GTEST_SKIP() << GetParam().backend << " is not available here";
    Body<Real>::check(*backend);
  }
};

template <class Real>
struct AdamJudgesAsByHand {
  static void check(Backend<Real>& backend) {
    for (const StopRule rule : {StopRule::none, StopRule::chi2, StopRule::held_out, StopRule::plateau})
      for (const int count : {1, 5}) {
        SCOPED_TRACE(std::string(name_of(rule)) + ", " + std::to_string(count) + " systems");
        const std::vector<Problem> all = problems(count);
        const StageRun run = stage_run(OptimizerKind::adam, rule, 24);
        backend.load(all);
        backend.begin_stage(run, starts<Real>(count));
        std::vector<std::vector<StageRecord>> records;
        const std::vector<StageProgress> progress = run_stage(backend, records);
        std::vector<std::vector<Real>> parameters, best;
        for (int i = 0; i < count; ++i) {
          parameters.push_back(backend.download(Field::parameters, i));
          best.push_back(backend.download(Field::best, i));
        }
        bool differ = false;
        for (int i = 0; i < count; ++i) {
          SCOPED_TRACE(i);
          const auto k = static_cast<std::size_t>(i);
          backend.load(all);
          const ByHand<Real> hand = adam_by_hand(backend, i, run);
          EXPECT_TRUE(progress[k].done);
          EXPECT_EQ(progress[k].step, hand.progress.step);
          EXPECT_EQ(progress[k].evaluations, hand.progress.step + 1);
          EXPECT_EQ(progress[k].reason, hand.progress.reason);
          EXPECT_EQ(progress[k].watch.best_step, hand.progress.watch.best_step);
          EXPECT_EQ(progress[k].watch.best_value, hand.progress.watch.best_value);
          EXPECT_EQ(parameters[k], hand.parameters) << "the same bits";
          if (hand.progress.watch.best_step >= 0) {
            EXPECT_EQ(best[k], hand.best) << "the same bits";
          }
          ASSERT_EQ(records[k].size(), hand.recorded.size());
          for (std::size_t r = 0; r < hand.recorded.size(); ++r) EXPECT_EQ(records[k][r].step, hand.recorded[r]);
          const std::size_t first = backend.layout().n_network;
          EXPECT_EQ(static_cast<Real>(records[k][0].free[0]), static_cast<Real>(all[k].initial_parameters[first]));
          differ |= progress[k].step != progress[0].step;
        }
        if (count > 1 && rule != StopRule::none) {
          EXPECT_TRUE(differ) << "no system rested while others went on";
        }
      }
  }
};

/// L-BFGS beside the textbook's recursion on the host, which is told the backend's own evaluations.
template <class Real>
struct LbfgsFollowsTheTextbook {
  static void check(Backend<Real>& backend) {
    constexpr int kCount = 3, kEvaluations = 20;
    const std::vector<Problem> all = problems(kCount);
    StageRun run = stage_run(OptimizerKind::lbfgs, StopRule::none, 1000);
    backend.load(all);
    std::vector<Lbfgs<Real>> searches;
    for (int i = 0; i < kCount; ++i) searches.emplace_back(backend.download(Field::parameters, i), run.memory);
    for (int n = 0; n < kEvaluations; ++n) {
      for (int i = 0; i < kCount; ++i)
        backend.upload(Field::parameters, i, searches[static_cast<std::size_t>(i)].trial());
      backend.evaluate(true);
      for (int i = 0; i < kCount; ++i) {
        const StepState state = backend.state(i);
        searches[static_cast<std::size_t>(i)].tell(state.loss + state.regularization,
                                                   backend.download(Field::gradient, i));
      }
    }
    backend.load(all);
    backend.begin_stage(run, starts<Real>(kCount));
    backend.advance(kEvaluations);
    std::vector<std::vector<StageRecord>> records;
    const std::vector<StageProgress> progress = backend.look(records);
    for (int i = 0; i < kCount; ++i) {
      const auto k = static_cast<std::size_t>(i);
      EXPECT_EQ(progress[k].evaluations, kEvaluations);
      const std::vector<Real> found = backend.download(Field::position, i), &expected = searches[k].position();
      if (backend.name() == "cpu") {
        EXPECT_EQ(found, expected) << "the same bits";
        continue;
      }
      // In single precision the rounding of a sum grows by a factor of some hundred in as many evaluations.
      const double allowed = sizeof(Real) == 4 ? 2e-2 : 1e-9;
      double largest = 0, error = 0;
      for (std::size_t p = 0; p < expected.size(); ++p) {
        largest = std::max(largest, std::abs(static_cast<double>(expected[p])));
        error = std::max(error, std::abs(static_cast<double>(found[p]) - static_cast<double>(expected[p])));
      }
      EXPECT_LE(error, allowed * largest);
    }
  }
};

template <class Real>
struct LbfgsEndsByEveryRule {
  static void check(Backend<Real>& backend) {
    for (const StopRule rule : {StopRule::none, StopRule::chi2, StopRule::held_out, StopRule::plateau}) {
      SCOPED_TRACE(name_of(rule));
      const std::vector<Problem> all = problems(8);
      const StageRun run = stage_run(OptimizerKind::lbfgs, rule, 40);
      backend.load(all);
      backend.begin_stage(run, starts<Real>(8));
      std::vector<std::vector<StageRecord>> records;
      const std::vector<StageProgress> progress = run_stage(backend, records);
      for (std::size_t k = 0; k < all.size(); ++k) {
        SCOPED_TRACE(k);
        const StageProgress& p = progress[k];
        ASSERT_TRUE(p.done);
        EXPECT_LE(p.step, 40);
        EXPECT_GT(p.evaluations, p.step);
        ASSERT_FALSE(records[k].empty());
        const double first = records[k].front().state.loss + records[k].front().state.regularization;
        EXPECT_LT(p.state.loss + p.state.regularization, first);
        for (std::size_t r = 0; r < records[k].size(); ++r)
          EXPECT_EQ(records[k][r].step, static_cast<std::int64_t>(3 * r));
        // The position is what its state says.
        backend.upload(Field::parameters, static_cast<int>(k), backend.download(Field::position, static_cast<int>(k)));
        if (rule == StopRule::chi2 && p.reason == StopReason::chi2) {
          EXPECT_LE(p.state.chi2_reduced, run.stop.chi2);
        }
        if (rule == StopRule::plateau) {
          EXPECT_LE(p.watch.best_step, p.step);
        }
      }
      backend.evaluate(true);
      const std::vector<StepState> states = backend.states();
      for (std::size_t k = 0; k < all.size(); ++k) EXPECT_EQ(states[k].loss, progress[k].state.loss) << "the same bits";
    }
  }
};

template <class Real>
struct SystemsThatDoNotRunRest {
  static void check(Backend<Real>& backend) {
    for (const OptimizerKind optimizer : {OptimizerKind::adam, OptimizerKind::lbfgs}) {
      SCOPED_TRACE(name_of(optimizer));
      const std::vector<Problem> all = problems(5);
      const StageRun run = stage_run(optimizer, StopRule::none, 12);
      const auto ends = [&](const std::vector<StageStart<Real>>& begin) {
        backend.load(all);
        backend.begin_stage(run, begin);
        std::vector<std::vector<StageRecord>> records;
        run_stage(backend, records);
        return backend.download(Field::parameters);
      };
      std::vector<StageStart<Real>> some = starts<Real>(5);
      some[0].runs = some[3].runs = false;
      const std::vector<Real> of_all = ends(starts<Real>(5)), of_some = ends(some);
      const std::size_t n = of_all.size() / 5;
      for (std::size_t k = 0; k < 5; ++k)
        for (std::size_t i = 0; i < n; ++i)
          ASSERT_EQ(of_some[k * n + i],
                    some[k].runs ? of_all[k * n + i] : static_cast<Real>(all[k].initial_parameters[i]))
              << "system " << k << ", parameter " << i;
    }
  }
};

template <class Real>
struct AProblemTakesThePlaceOfOne {
  static void check(Backend<Real>& backend) {
    for (const OptimizerKind optimizer : {OptimizerKind::adam, OptimizerKind::lbfgs}) {
      SCOPED_TRACE(name_of(optimizer));
      std::vector<Problem> all = problems(4);
      const Problem late = problems(9).back();
      const StageRun run = stage_run(optimizer, StopRule::none, 15);
      backend.load(all);
      backend.begin_stage(run, starts<Real>(4));
      std::vector<std::vector<StageRecord>> records;
      run_stage(backend, records);
      const std::vector<Real> before = backend.download(Field::parameters);
      backend.replace(2, late);
      backend.begin_stage(2, {});
      records.clear();
      const std::vector<StageProgress> progress = run_stage(backend, records);
      EXPECT_EQ(progress[2].step, 15);
      EXPECT_EQ(records[2].size(), 5u);
      EXPECT_TRUE(records[0].empty());
      const std::vector<Real> after = backend.download(Field::parameters);

      all[2] = late;
      backend.load(all);
      backend.begin_stage(run, starts<Real>(4));
      records.clear();
      run_stage(backend, records);
      const std::vector<Real> expected = backend.download(Field::parameters);
      const std::size_t n = after.size() / 4;
      for (std::size_t i = 0; i < after.size(); ++i)
        ASSERT_EQ(after[i], i / n == 2 ? expected[i] : before[i]) << "system " << i / n << ", parameter " << i % n;
    }
    const std::vector<Problem> all = problems(2);
    // Between steps without a stage: a rate of its own, no moments, no refused update of the problem before.
    backend.load(all);
    backend.begin({{0.25}, 0, {}});
    backend.step();
    std::vector<Real> bad = backend.download(Field::parameters, 1);
    bad[0] = std::numeric_limits<Real>::quiet_NaN();
    backend.upload(Field::parameters, 1, bad);
    backend.step();
    EXPECT_NE(backend.state(1).bad_step, 0);
    backend.replace(1, problems(9).back());
    EXPECT_EQ(backend.download(Field::first_moment, 1), std::vector<Real>(bad.size()));
    backend.step();
    EXPECT_EQ(backend.state(1).updates, 1);
    EXPECT_EQ(backend.state(1).learning_rate, 0.25);
    EXPECT_EQ(backend.state(0).updates, 3);
    EXPECT_THROW(backend.replace(4, problems(1)[0]), InvalidInput);
    StepCase other;
    other.nx = 11;
    EXPECT_THROW(backend.replace(0, make_problem(other)), InvalidInput);
  }
};

template <class Real>
struct ASearchGoesOnFromItsPairs {
  static void check(Backend<Real>& backend) {
    const std::vector<Problem> all = problems(3);
    StageRun run = stage_run(OptimizerKind::lbfgs, StopRule::none, 26);
    std::vector<std::vector<StageRecord>> records;
    backend.load(all);
    backend.begin_stage(run, starts<Real>(3));
    run_stage(backend, records);
    const std::vector<Real> expected = backend.download(Field::position);
    for (const int first : {1, 3, 9}) {  // fewer pairs than it keeps, and more
      SCOPED_TRACE(first);
      run.stop.steps = first;
      backend.load(all);
      backend.begin_stage(run, starts<Real>(3));
      run_stage(backend, records);
      const std::vector<Real> position = backend.download(Field::position);
      std::vector<StageStart<Real>> rest = starts<Real>(3);
      const std::vector<std::vector<Real>> pairs = backend.pairs();
      for (int i = 0; i < 3; ++i) {
        rest[static_cast<std::size_t>(i)].step = first;
        rest[static_cast<std::size_t>(i)].pairs = pairs[static_cast<std::size_t>(i)];
        EXPECT_EQ(rest[static_cast<std::size_t>(i)].pairs.size(),
                  static_cast<std::size_t>(std::min(first, run.memory)) * 2 * backend.layout().size());
      }
      run.stop.steps = 26;
      backend.load(all);
      backend.upload(Field::parameters, position);
      backend.begin_stage(run, rest);
      run_stage(backend, records);
      EXPECT_EQ(backend.download(Field::position), expected) << "the same bits";
    }
  }
};

template <class Real>
struct NonFiniteNumbersEndASystem {
  static void check(Backend<Real>& backend) {
    for (const OptimizerKind optimizer : {OptimizerKind::adam, OptimizerKind::lbfgs}) {
      SCOPED_TRACE(name_of(optimizer));
      const std::vector<Problem> all = problems(3);
      backend.load(all);
      std::vector<Real> bad = backend.download(Field::parameters, 1);
      bad[0] = std::numeric_limits<Real>::quiet_NaN();
      backend.upload(Field::parameters, 1, bad);
      backend.begin_stage(stage_run(optimizer, StopRule::plateau, 6), starts<Real>(3));
      std::vector<std::vector<StageRecord>> records;
      const std::vector<StageProgress> progress = run_stage(backend, records);
      EXPECT_EQ(progress[1].reason, StopReason::non_finite);
      EXPECT_EQ(progress[1].step, 0);
      for (const std::size_t k : {0u, 2u}) {
        EXPECT_EQ(progress[k].reason, StopReason::steps);
        EXPECT_EQ(progress[k].step, 6);
      }
    }
  }
};

template <class Real>
struct NonsenseIsRefused {
  static void check(Backend<Real>& backend) {
    backend.load(problems(2));
    StageRun run = stage_run(OptimizerKind::lbfgs, StopRule::none, 5);
    EXPECT_THROW(backend.begin_stage(0, {}), InvalidInput) << "no stage yet";
    EXPECT_THROW(backend.begin_stage(run, starts<Real>(1)), InvalidInput);
    run.memory = 0;
    EXPECT_THROW(backend.begin_stage(run, starts<Real>(2)), InvalidInput);
    run.memory = 4;
    std::vector<StageStart<Real>> odd = starts<Real>(2);
    odd[1].pairs.assign(7, Real(1));
    EXPECT_THROW(backend.begin_stage(run, odd), InvalidInput);
    backend.begin_stage(run, starts<Real>(2));
    EXPECT_THROW(backend.begin_stage(1, odd[1]), InvalidInput);
    run.optimizer = OptimizerKind::levenberg_marquardt;
    EXPECT_THROW(backend.begin_stage(run, starts<Real>(2)), InvalidInput);
  }
};

TEST_P(Stages, AdamJudgesAsByHand) {
  run<AdamJudgesAsByHand>();
}
TEST_P(Stages, LbfgsFollowsTheTextbook) {
  run<LbfgsFollowsTheTextbook>();
}
TEST_P(Stages, LbfgsEndsByEveryRule) {
  run<LbfgsEndsByEveryRule>();
}
TEST_P(Stages, SystemsThatDoNotRunRest) {
  run<SystemsThatDoNotRunRest>();
}
TEST_P(Stages, AProblemTakesThePlaceOfOne) {
  run<AProblemTakesThePlaceOfOne>();
}
TEST_P(Stages, ASearchGoesOnFromItsPairs) {
  run<ASearchGoesOnFromItsPairs>();
}
TEST_P(Stages, NonFiniteNumbersEndASystem) {
  run<NonFiniteNumbersEndASystem>();
}
TEST_P(Stages, NonsenseIsRefused) {
  run<NonsenseIsRefused>();
}

std::vector<Parameter> parameters() {
  std::vector<Parameter> all{{"cpu", true}, {"cpu", false}};
#ifdef EINFIELD_HAVE_CUDA
  all.push_back({"cuda", true});
  all.push_back({"cuda", false});
#endif
  return all;
}
INSTANTIATE_TEST_SUITE_P(Backends, Stages, testing::ValuesIn(parameters()), [](const auto& tested) {
  return tested.param.backend + (tested.param.single ? "_single" : "_double");
});

}  // namespace
}  // namespace einfield
