// Files from examples/ and tests/golden/ that CMake embeds in the library, so that the program needs no source tree.
#pragma once

namespace einfield::biggio2021 {

extern const char* const kSieNoisy;      ///< examples/sie_noisy.toml
extern const char* const kShearNoisy;    ///< examples/shear_noisy.toml
extern const char* const kSieNoiseless;  ///< examples/sie_noiseless.toml
extern const char* const kSieOverfit;    ///< examples/sie_overfit.toml
extern const char* const kReference;     ///< tests/golden/biggio2021_jax.csv

}  // namespace einfield::biggio2021
