// Root mean squares over regions of pixels, summed in pixel order.
#include "host/fields/metrics.hpp"

#include <cmath>
#include <limits>

namespace einfield {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// Mean of a map over pixels.
double mean(const std::vector<std::size_t>& pixels, const std::vector<double>& map) {
  double sum = 0;
  for (const std::size_t i : pixels) sum += map[i];
  return sum / static_cast<double>(pixels.size());
}

/// Root of the mean of f(pixel)² over a region; NaN for an empty one.
template <class F>
double rms(const std::vector<std::size_t>& pixels, F&& f) {
  double sum = 0;
  for (const std::size_t i : pixels) sum += f(i) * f(i);
  return std::sqrt(sum / static_cast<double>(pixels.size()));
}

/// NaN where the truth is zero: there is no relative error.
double ratio(double error, double truth) {
  return truth > 0 ? error / truth : kNone;
}

RegionErrors region_errors(const std::vector<std::size_t>& pixels, const Truth& truth, const LensFields& fit) {
  RegionErrors errors{kNone, kNone, kNone};
  if (!truth.potential.empty()) {
    const double fit_mean = mean(pixels, fit.potential), true_mean = mean(pixels, truth.potential);
    const auto true_psi = [&](std::size_t i) { return truth.potential[i] - true_mean; };
    errors.psi_relative_rms = ratio(
        rms(pixels, [&](std::size_t i) { return fit.potential[i] - fit_mean - true_psi(i); }), rms(pixels, true_psi));
  }
  if (!truth.deflection.empty()) {
    const std::size_t n = truth.deflection.size() / 2;
    const auto error = [&](std::size_t i) { return fit.deflection[i] - truth.deflection[i]; };
    errors.alpha_relative_rms =
        ratio(rms(pixels, [&](std::size_t i) { return std::hypot(error(i), error(n + i)); }),
              rms(pixels, [&](std::size_t i) { return std::hypot(truth.deflection[i], truth.deflection[n + i]); }));
  }
  if (!truth.convergence.empty())
    errors.kappa_rms = rms(pixels, [&](std::size_t i) { return fit.convergence[i] - truth.convergence[i]; });
  return errors;
}

}  // namespace

std::vector<std::size_t> region(const Observation& observation, const std::vector<double>* truth_image) {
  std::vector<std::size_t> pixels;
  for (std::size_t i = 0; i < observation.mask.size(); ++i)
    if (observation.mask[i] && (!truth_image || (*truth_image)[i] > kArcSignalToNoise * observation.noise[i]))
      pixels.push_back(i);
  return pixels;
}

TruthErrors truth_errors(const Observation& observation, const Truth& truth, const std::vector<double>& model,
                         const LensFields& correction) {
  const std::vector<std::size_t> used = region(observation, nullptr);
  TruthErrors errors{kNone, region_errors(used, truth, correction), {kNone, kNone, kNone}};
  if (truth.image.empty()) return errors;
  errors.image_rms_over_sigma =
      rms(used, [&](std::size_t i) { return (model[i] - truth.image[i]) / observation.noise[i]; });
  errors.arc = region_errors(region(observation, &truth.image), truth, correction);
  return errors;
}

}  // namespace einfield
