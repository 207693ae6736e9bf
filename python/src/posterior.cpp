// One point is computed by all threads; of several points each is computed by one thread. The bits are the same.
#include "python/src/posterior.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <utility>

#include "einfield/backend.hpp"
#include "einfield/error.hpp"
#include "host/cpu/thread_pool.hpp"
#include "host/files/text.hpp"
#include "python/src/transforms.hpp"

namespace einfield::python {

/// Threads, and a backend for each of them.
class Posterior::Workers {
 public:
  Workers(const Problem& problem, int threads) : problem_(problem), pool_(threads) {}

  /// Calls f(point, worker) for all points. @param n  number of points
  template <class F>
  void run(std::size_t n, F&& f) {
    const std::lock_guard<std::mutex> lock(busy_);
    if (n == 1) {
      if (!wide_) wide_ = loaded(pool_.threads());
      return f(std::size_t(0), kWide);
    }
    EINFIELD_REQUIRE(n <= static_cast<std::size_t>(std::numeric_limits<int>::max()),
                     "theta: too many points, found " + std::to_string(n) + ", expected fewer than 2^31");
    narrow_.resize(static_cast<std::size_t>(pool_.threads()));
    pool_.parallel_for(static_cast<int>(n), [&](int point, int worker) {
      auto& backend = narrow_[static_cast<std::size_t>(worker)];
      if (!backend) backend = loaded(1);
      f(static_cast<std::size_t>(point), worker);
    });
  }

  static constexpr int kWide = -1;  ///< the worker that has all threads
  Backend<double>& backend(int worker) { return worker == kWide ? *wide_ : *narrow_[static_cast<std::size_t>(worker)]; }
  bool of_this_process() const { return owner_ == getpid(); }

 private:
  std::unique_ptr<Backend<double>> loaded(int threads) const {
    auto backend = make_backend<double>("cpu", {threads, {}});
    backend->load({problem_});
    return backend;
  }

  const Problem& problem_;
  pid_t owner_ = getpid();
  std::mutex busy_;
  ThreadPool pool_;
  std::unique_ptr<Backend<double>> wide_;
  std::vector<std::unique_ptr<Backend<double>>> narrow_;
};

namespace {

Problem of_likelihood(Problem problem) {
  if (problem.loss != LossKind::chi2) problem.regularization = {};  // weights that belong to another loss
  problem.loss = LossKind::chi2;
  problem.network_math = NetworkMath::fp32;
  problem.held_out.clear();
  problem.model.prior_weight = 1;
  return problem;
}

std::string range_of(const FreeParameter<double>& f) {
  switch (f.kind) {
    case TransformKind::exponential:
      return "> " + to_text(f.lower);
    case TransformKind::logistic:
      return "> " + to_text(f.lower) + " and < " + to_text(f.upper);
    case TransformKind::disk:
      return f.partner < 0 ? "a magnitude < " + to_text(f.upper) : "e1^2 + e2^2 < 1";
    case TransformKind::identity:
      break;
  }
  return "a finite number";
}

}  // namespace

Posterior::Posterior(Problem problem, int threads)
    : problem_(of_likelihood(std::move(problem))),
      layout_(problem_.model),
      threads_(threads),
      scale_(-0.5 * fitted_pixels(problem_)) {
  validate_problems({problem_});
  ThreadPool::resolve(threads);
}

std::shared_ptr<Posterior::Workers> Posterior::workers() {
  const std::lock_guard<std::mutex> lock(mutex_);
  // After a fork the threads are gone and a mutex may be locked for good: what was there is left alone, not destroyed.
  if (workers_ && !workers_->of_this_process()) new std::shared_ptr<Workers>(std::move(workers_));
  if (!workers_) workers_ = std::make_shared<Workers>(problem_, threads_);
  return workers_;
}

bool Posterior::supported(const double* theta) const {
  for (std::size_t i = 0; i < layout_.n_free(); ++i)
    if (!in_support(layout_, i, theta + layout_.n_network)) return false;
  return true;
}

std::vector<double> Posterior::flat(const double* theta, Space space) const {
  std::vector<double> result(theta, theta + size());
  const double* const scalars = theta + layout_.n_network;
  if (space == Space::unconstrained) return result;
  for (std::size_t i = 0; i < layout_.n_free(); ++i)
    EINFIELD_REQUIRE(in_support(layout_, i, scalars), "theta: " + layout_.names[i] + " = " + to_text(scalars[i]) +
                                                          ", expected " + range_of(layout_.free[i]));
  const std::vector<double> u = layout_.unconstrained({scalars, scalars + layout_.n_free()});
  std::copy(u.begin(), u.end(), result.begin() + static_cast<std::ptrdiff_t>(layout_.n_network));
  return result;
}

std::vector<double> Posterior::constrained(const double* flat) const {
  std::vector<double> theta(flat, flat + size());
  const std::vector<double> values = layout_.physical(flat + layout_.n_network);
  std::copy(values.begin(), values.end(), theta.begin() + static_cast<std::ptrdiff_t>(layout_.n_network));
  return theta;
}

void Posterior::evaluate_point(Workers& workers, int worker, const double* theta, const Request& request, double* value,
                               double* gradient) const {
  const auto give_up = [&](double v, double g) {
    *value = v;
    if (gradient) std::fill_n(gradient, size(), g);
  };
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  if (!std::all_of(theta, theta + size(), [](double t) { return std::isfinite(t); })) return give_up(kNan, kNan);
  const bool physical = request.space == Space::constrained;
  if (physical && !supported(theta)) return give_up(-kInfinity, 0);
  const std::vector<double> at = flat(theta, request.space);
  const double* const u = at.data() + layout_.n_network;
  if (!physical)  // e^u and its like end at infinity, which is outside of the support
    for (const double p : layout_.physical(u))
      if (!std::isfinite(p)) return give_up(-kInfinity, 0);

  Backend<double>& backend = workers.backend(worker);
  backend.upload(Field::parameters, 0, at);
  backend.evaluate(gradient != nullptr);
  const StepState state = backend.state(0);
  *value = scale_ * (state.loss + (request.priors ? state.regularization : 0));
  if (gradient) {
    const std::vector<double> of_loss = backend.download(Field::gradient, 0);
    for (std::size_t i = 0; i < size(); ++i) gradient[i] = scale_ * of_loss[i];
  }
  double* const of_scalars = gradient ? gradient + layout_.n_network : nullptr;
  if (!physical && request.volume) *value += log_volume(layout_, u, of_scalars);
  if (!physical || !gradient) return;
  const std::vector<double> of_u(of_scalars, of_scalars + layout_.n_free());
  for (std::size_t j = 0; j < layout_.n_free(); ++j)
    of_scalars[j] = constrained_gradient(layout_, j, theta + layout_.n_network, of_u.data());
}

void Posterior::evaluate(Workers& workers, const double* theta, std::size_t n, const Request& request, double* value,
                         double* gradient) const {
  if (n == 0) return;
  EINFIELD_REQUIRE(request.priors || !gradient, "the gradient of the likelihood alone, expected that of the posterior");
  workers.run(n, [&](std::size_t point, int worker) {
    evaluate_point(workers, worker, theta + point * size(), request, value + point,
                   gradient ? gradient + point * size() : nullptr);
  });
}

void Posterior::images(Workers& workers, const double* theta, std::size_t n, Space space, double* images) const {
  if (n == 0) return;
  const auto pixels = static_cast<std::size_t>(problem_.observation.grid.n_pixels());
  workers.run(n, [&](std::size_t point, int worker) {
    Backend<double>& backend = workers.backend(worker);
    backend.upload(Field::parameters, 0, flat(theta + point * size(), space));
    backend.evaluate(false);
    const std::vector<double> image = backend.download(Field::model, 0);
    std::copy(image.begin(), image.end(), images + point * pixels);
  });
}

}  // namespace einfield::python
