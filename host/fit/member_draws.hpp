// What a member of a randomized fit draws anew: noise and priors (randomized maximum likelihood: Oliver, He & Reynolds
// 1996). Every number depends on seed, member and place only.
#pragma once

#include <cstdint>

#include "einfield/problem.hpp"
#include "einfield/random.hpp"

namespace einfield {

/// Standard normal numbers of one member.
class MemberDraws {
 public:
  enum Kind : std::uint64_t {
    noise,
    scalar_priors,
    source_pixels,
    convergence,
    shape,
    weights,
    biases,
    lens_directions
  };

  MemberDraws(std::uint64_t seed, int member)
      : philox_{seed}, first_(random_stream::kMembers * (static_cast<std::uint64_t>(member) + 1)) {}
  double operator()(Kind kind, std::uint64_t counter) const { return philox_.normal(counter, first_ + kind); }

 private:
  Philox philox_;
  std::uint64_t first_;
};

/// Adds a draw of the noise to the data of all used pixels, data + σ ε, with the correlation of the noise.
void redraw_noise(Observation& observation, const MemberDraws& draws);

/// redraw_noise(), and a draw of their Gaussian prior is added to the means of the priors of free scalars, mean +
/// sigma ε: what needs nothing but another Problem.
void redraw(Problem& problem, const MemberDraws& draws);

}  // namespace einfield
