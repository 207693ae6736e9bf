// Philox4x32-10: Salmon et al. (2011); inverse normal distribution: Wichura (1988), algorithm AS 241, PPND16.
#include "einfield/random.hpp"

#include <cmath>

namespace einfield {
namespace {

double polynomial(const double (&coefficient)[8], double x) {
  double sum = 0;
  for (int i = 7; i >= 0; --i) sum = sum * x + coefficient[i];
  return sum;
}

}  // namespace

double inverse_normal(double p) {
  constexpr double kMiddleTop[8] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                                    1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                                    3.3430575583588128105e4, 2.5090809287301226727e3};
  constexpr double kMiddleBottom[8] = {1.0,
                                       4.2313330701600911252e1,
                                       6.8718700749205790830e2,
                                       5.3941960214247511077e3,
                                       2.1213794301586595867e4,
                                       3.9307895800092710610e4,
                                       2.8729085735721942674e4,
                                       5.2264952788528545610e3};
  constexpr double kTailTop[8] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                                  3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                                  2.27238449892691845833e-2, 7.74545014278341407640e-4};
  constexpr double kTailBottom[8] = {1.0,
                                     2.05319162663775882187e0,
                                     1.67638483018380384940e0,
                                     6.89767334985100004550e-1,
                                     1.48103976427480074590e-1,
                                     1.51986665636164571966e-2,
                                     5.47593808499534494600e-4,
                                     1.05075007164441684324e-9};
  constexpr double kFarTop[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                 2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                 2.71155556874348757815e-5, 2.01033439929228813265e-7};
  constexpr double kFarBottom[8] = {1.0,
                                    5.99832206555887937690e-1,
                                    1.36929880922735805310e-1,
                                    1.48753612908506148525e-2,
                                    7.86869131145613259100e-4,
                                    1.84631831751005468180e-5,
                                    1.42151175831644588870e-7,
                                    2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(kMiddleTop, r) / polynomial(kMiddleBottom, r);
  }
  const double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
  const double tail = r <= 5 ? polynomial(kTailTop, r - 1.6) / polynomial(kTailBottom, r - 1.6)
                             : polynomial(kFarTop, r - 5) / polynomial(kFarBottom, r - 5);
  return q < 0 ? -tail : tail;
}

Philox::Block Philox::operator()(std::uint64_t counter, std::uint64_t stream) const {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  Block x{{low(counter), high(counter), low(stream), high(stream)}};
  std::uint32_t key0 = low(key), key1 = high(key);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * x.word[0], product1 = kMultiplier1 * x.word[2];
    x = {{high(product1) ^ x.word[1] ^ key0, low(product1), high(product0) ^ x.word[3] ^ key1, low(product0)}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return x;
}

double Philox::uniform(std::uint64_t counter, std::uint64_t stream) const {
  const Block block = (*this)(counter, stream);
  const std::uint64_t bits = (static_cast<std::uint64_t>(block.word[1]) << 32 | block.word[0]) >> 11;
  // Zero has no normal quantile; it becomes half of the next number.
  return bits == 0 ? 0x1p-54 : static_cast<double>(bits) * 0x1p-53;
}

double Philox::normal(std::uint64_t counter, std::uint64_t stream) const {
  return inverse_normal(uniform(counter, stream));
}

}  // namespace einfield
