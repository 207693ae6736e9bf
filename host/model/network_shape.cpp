// Shape checks and initial weights of a network.
#include "einfield/network.hpp"

#include <algorithm>
#include <cmath>

namespace einfield {

void NetworkShape::validate() const {
  EINFIELD_REQUIRE(
      fourier_features >= 0 && fourier_features <= kMaxWidth / 2,
      "fourier_features = " + std::to_string(fourier_features) + ", expected 0 to " + std::to_string(kMaxWidth / 2));
  const int most = kMaxHiddenLayers - fixed_layers();
  EINFIELD_REQUIRE(!hidden.empty() || fourier_features > 0,
                   "hidden has 0 layers, expected 1 to " + std::to_string(most) + ", or Fourier features");
  EINFIELD_REQUIRE(hidden.size() <= static_cast<std::size_t>(most),
                   "hidden has " + std::to_string(hidden.size()) + " layers, expected at most " + std::to_string(most) +
                       (fourier_features > 0 ? " beside the Fourier features" : ""));
  for (std::size_t i = 0; i < hidden.size(); ++i)
    EINFIELD_REQUIRE(hidden[i] >= 1 && hidden[i] <= kMaxWidth, "hidden[" + std::to_string(i) +
                                                                   "] = " + std::to_string(hidden[i]) +
                                                                   ", expected 1 to " + std::to_string(kMaxWidth));
  EINFIELD_REQUIRE(std::isfinite(input_scale) && input_scale > 0,
                   "input_scale = " + std::to_string(input_scale) + " per arcsec, expected a finite number > 0");
}

namespace {

constexpr double kPi = 3.14159265358979323846;

/// Layer 0: the frequencies of spectrum, once for the sines and once for the cosines.
void fill_encoding(const NetworkShape& shape, const FourierSpectrum& spectrum, const Philox& philox,
                   std::uint64_t stream, std::vector<double>& weights) {
  EINFIELD_REQUIRE(std::isfinite(spectrum.scale) && spectrum.scale > 0,
                   "fourier_scale = " + std::to_string(spectrum.scale) + " arcsec, expected a finite number > 0");
  constexpr double kGoldenSection = 0.61803398874989485;  // (√5 − 1)/2
  const auto features = static_cast<std::size_t>(shape.fourier_features);
  const double first_angle = philox.uniform(0, stream);
  for (std::size_t f = 0; f < features; ++f) {
    const std::size_t x = f, y = 2 * features + f;  // in the kernel (2 × 2F), which begins at 0
    if (spectrum.frequencies == Frequencies::even) {
      const double radius = 2 / spectrum.scale * std::sqrt((double(f) + 0.5) / double(features));
      const double angle = kPi * (first_angle + kGoldenSection * double(f));
      weights[x] = radius * std::cos(angle);
      weights[y] = radius * std::sin(angle);
    } else {
      weights[x] = philox.normal(x, stream) / spectrum.scale;
      weights[y] = philox.normal(y, stream) / spectrum.scale;
    }
    weights[x + features] = weights[x];
    weights[y + features] = weights[y];
  }
  std::fill_n(weights.begin() + static_cast<std::ptrdiff_t>(shape.bias_offset(0) + features), features, kPi / 2);
}

}  // namespace

std::vector<double> initial_weights(const NetworkShape& shape, std::uint64_t seed, bool last_layer_zero,
                                    const FourierSpectrum& spectrum, std::uint64_t stream) {
  shape.validate();
  constexpr double kBelow = 0.022750131948179207200;  // Φ(−2): the truncated normal is drawn between Φ(−2) and Φ(2)
  constexpr double kDeviation = 0.87962566103423978;  // standard deviation of a unit normal truncated at ±2
  const Philox philox{seed};
  std::vector<double> weights(shape.size(), 0.0);
  if (shape.fourier_features > 0) fill_encoding(shape, spectrum, philox, stream + random_stream::kFrequencies, weights);
  for (int layer = shape.fixed_layers(); layer < shape.layers(); ++layer) {
    if (last_layer_zero && layer + 1 == shape.layers()) break;
    const double sigma = std::sqrt(1.0 / shape.inputs(layer)) / kDeviation;
    for (std::size_t i = shape.kernel_offset(layer); i < shape.bias_offset(layer); ++i) {
      const double z = inverse_normal(kBelow + (1 - 2 * kBelow) * philox.uniform(i, stream));
      weights[i] = sigma * std::clamp(z, -2.0, 2.0);
    }
  }
  return weights;
}

}  // namespace einfield
