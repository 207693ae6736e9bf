// toml++ with its internal assertions turned off. Version 3.3 assumes that a table header begins with a key, so
// "[[[" aborts with assertions and is undefined behavior with Clang. Without the assertion, a later check in toml++
// reports the mistake.
#pragma once

#include <toml++/impl/preprocessor.h>
#undef TOML_ASSERT_ASSUME
#define TOML_ASSERT_ASSUME(expr) static_assert(true)
#include <toml++/toml.h>
