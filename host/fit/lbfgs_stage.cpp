// A stage of L-BFGS: a step is a line search. The trial points of all systems are evaluated together.
#include <utility>

#include "host/cpu/thread_pool.hpp"
#include "host/fit/track.hpp"

namespace einfield::stages {
namespace {

/// The inverse of flattened(). @param n  parameters
template <class Real>
std::vector<typename Lbfgs<Real>::Pair> pairs_of(const std::vector<Real>& flat, std::size_t n) {
  std::vector<typename Lbfgs<Real>::Pair> pairs;
  const auto length = static_cast<std::ptrdiff_t>(n);
  for (auto at = flat.begin(); at != flat.end(); at += 2 * length)
    pairs.push_back({{at, at + length}, {at + length, at + 2 * length}});
  return pairs;
}

/// Passes the evaluations to the searches, those of all systems in parallel.
template <class Real>
void advance_searches(FitRun<Real>& run, ThreadPool& pool) {
  struct Evaluated {
    Track<Real>* track;
    std::vector<Real> gradient;
  };
  std::vector<Evaluated> all;
  run.each_active([&](int i, Track<Real>& track) {
    track.evaluated = run.backend().state(i);
    track.evaluated.learning_rate = 0;
    if (track.started || is_finite(track.evaluated))
      all.push_back({&track, run.backend().download(Field::gradient, i)});
  });
  pool.parallel_for(static_cast<int>(all.size()), [&all](int i, int) {
    const auto& [track, gradient] = all[static_cast<std::size_t>(i)];
    track->answer = track->search->tell(track->evaluated.loss + track->evaluated.regularization, gradient);
  });
}

/// Draws the consequences of the answer of a search. @return whether a snapshot is due
template <class Real>
bool follow_answer(FitRun<Real>& run, int i, Track<Real>& track) {
  StepState& state = track.evaluated;
  Snapshot<Real>& now = track.now;
  ++now.evaluations;
  const bool start = !std::exchange(track.started, true);
  if (start && !is_finite(state)) {
    state.bad_loss = !has_finite_loss(state);
    track.fail(state, now.step + 1);
    run.record(i, state, now.step, now.parameters);
    track.end(StopReason::non_finite);
    return false;
  }
  using Answer = typename Lbfgs<Real>::Answer;
  const Answer answer = track.answer;
  if (answer == Answer::searching) return false;
  const bool moved = track.search->position() != now.parameters;
  if (!start && moved) {
    ++now.step;
    ++now.stage_step;
    now.parameters = track.search->position();
  }
  now.time_s = run.elapsed(track);
  if (!moved && !start) {  // the line search ended where it began
    track.end(StopReason::converged);
    return false;
  }
  track.accepted = state;
  const std::optional<StopReason> reason = run.verdict(track, now.stage_step, state, [&] { return now.parameters; });
  const bool last = reason || now.stage_step >= run.stage().steps || answer == Answer::stuck;
  if (run.logs(now.stage_step)) run.record(i, state, now.step, now.parameters);
  if (last) track.end(reason.value_or(answer == Answer::stuck ? StopReason::converged : StopReason::steps));
  return run.is_due(now.stage_step) && !start && !last;
}

}  // namespace

template <class Real>
std::vector<Real> flattened(const std::vector<typename Lbfgs<Real>::Pair>& pairs) {
  std::vector<Real> flat;
  for (const auto& pair : pairs) {
    flat.insert(flat.end(), pair.move.begin(), pair.move.end());
    flat.insert(flat.end(), pair.change.begin(), pair.change.end());
  }
  return flat;
}

template <class Real>
void run_lbfgs(FitRun<Real>& run) {
  run.each_active([&](int, Track<Real>& track) {
    track.search = std::make_unique<Lbfgs<Real>>(track.now.parameters, run.stage().memory,
                                                 pairs_of(track.now.memory, track.now.parameters.size()));
  });
  ThreadPool pool(std::min(ThreadPool::resolve(run.settings().threads), run.count()));
  while (!run.all_done() && !run.interrupted()) {
    run.each_active(
        [&](int i, Track<Real>& track) { run.backend().upload(Field::parameters, i, track.search->trial()); });
    run.backend().evaluate(true);
    advance_searches(run, pool);
    bool save = false, first = true;
    run.each_active([&](int i, Track<Real>& track) {
      const bool due = follow_answer(run, i, track);
      if (std::exchange(first, false)) save = due;  // the systems reach a step one after the other: once is enough
    });
    if (save) run.checkpoint();
    run.ask_interrupted();
  }
  for (int i = 0; i < run.count(); ++i) {
    Track<Real>& track = run.track(i);
    if (!track.search) continue;
    if (!track.done) track.end(StopReason::interrupted);
    if (!track.failed) run.record(i, track.accepted, track.now.step, track.now.parameters);
    track.now.memory = flattened<Real>(track.search->pairs());
    track.search.reset();
  }
}

template std::vector<float> flattened<float>(const std::vector<Lbfgs<float>::Pair>&);
template std::vector<double> flattened<double>(const std::vector<Lbfgs<double>::Pair>&);
template void run_lbfgs(FitRun<float>&);
template void run_lbfgs(FitRun<double>&);

}  // namespace einfield::stages
