// Means over blocks of pixels, and their levels.
#include "host/batch/thumbnails.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "host/fields/frame.hpp"
#include "host/model/median.hpp"
#include "host/report/picture.hpp"

namespace einfield {
namespace {

constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr char kUnused = '.';
constexpr int kLevels = 64;

/// Blocks of pixels of an image.
struct Blocks {
  Frame frame;
  int side = 1;  ///< pixels of a block
  int nx = 1, ny = 1;
  int width = 1;  ///< columns of the image
  const std::vector<std::uint8_t>* used;

  explicit Blocks(const Observation& o)
      : frame(frame_of(o.mask, o.grid.nx, o.grid.ny)), width(o.grid.nx), used(&o.mask) {
    const auto count = [](int n, int of) { return (n + of - 1) / of; };
    side = count(std::max(frame.nx, frame.ny), Thumbnails::kSide);
    nx = count(frame.nx, side);
    ny = count(frame.ny, side);
  }

  /// For every block the sum over its used pixels, divided by their number to a power; NaN without a used pixel.
  std::vector<double> reduce(const std::function<double(std::size_t)>& value, double power) const {
    std::vector<double> result;
    for (int row = 0; row < ny; ++row)
      for (int column = 0; column < nx; ++column) {
        double sum = 0;
        int n = 0;
        for (int y = row * side; y < std::min((row + 1) * side, frame.ny); ++y)
          for (int x = column * side; x < std::min((column + 1) * side, frame.nx); ++x) {
            const auto i = static_cast<std::size_t>((frame.y + y) * width + frame.x + x);
            if (!(*used)[i]) continue;
            sum += value(i);
            ++n;
          }
        result.push_back(n > 0 ? sum / std::pow(n, power) : std::numeric_limits<double>::quiet_NaN());
      }
    return result;
  }
};

/// Data and model on one scale: linear around the noise, logarithmic above.
void add_brightness(Thumbnails& to, const Assessment& fit, const Blocks& blocks) {
  constexpr double kSoftening = 3;  // σ of a block
  const Observation& o = fit.loaded.problem.observation;
  std::vector<double> data = blocks.reduce([&o](std::size_t i) { return o.image[i]; }, 1);
  std::vector<double> model = blocks.reduce([&fit](std::size_t i) { return fit.image[i]; }, 1);
  std::vector<double> noise;
  for (std::size_t i = 0; i < o.mask.size(); ++i)
    if (o.mask[i]) noise.push_back(o.noise[i]);
  const double softening = kSoftening * upper_median(noise) / blocks.side;
  for (std::vector<double>* map : {&data, &model})
    for (double& v : *map) v = std::asinh(v / softening);
  const ColorRange range = quantile_range(data, 0.01, 0.998);
  to.data = levels_of(data, range.low, range.high);
  to.model = levels_of(model, range.low, range.high);
}

}  // namespace

std::string levels_of(const std::vector<double>& values, double low, double high) {
  std::string text;
  for (const double value : values) {
    const double place = high > low ? (value - low) / (high - low) : 0;
    text += std::isnan(value) ? kUnused
                              : kDigits[static_cast<int>(std::clamp(std::floor(place * kLevels), 0.0, kLevels - 1.0))];
  }
  return text;
}

Thumbnails thumbnails_of(const Assessment& fit) {
  const Observation& o = fit.loaded.problem.observation;
  const Blocks blocks(o);
  Thumbnails result;
  result.nx = blocks.nx;
  result.ny = blocks.ny;
  add_brightness(result, fit, blocks);
  const std::vector<double> residual =
      blocks.reduce([&](std::size_t i) { return (o.image[i] - fit.image[i]) / o.noise[i]; }, 0.5);
  result.residual = levels_of(residual, -Thumbnails::kResidualRange, Thumbnails::kResidualRange);
  if (!fit.model.network) return result;
  const std::vector<double>& kappa = fit.kappa_psf.empty() ? fit.network.mean.convergence : fit.kappa_psf;
  const std::vector<double> mean = blocks.reduce([&kappa](std::size_t i) { return kappa[i]; }, 1);
  double highest = 0;
  for (const double v : mean)
    if (v > highest) highest = v;
  result.kappa = levels_of(mean, 0, highest);
  return result;
}

}  // namespace einfield
