// toml++ without its assumptions about the text. Version 3.3 takes for granted that a table header begins with a key:
// on
// "[[[" it aborts with asserts on and is undefined under Clang. The checks that follow there find the mistake as well.
#pragma once

#include <toml++/impl/preprocessor.h>
#undef TOML_ASSERT_ASSUME
#define TOML_ASSERT_ASSUME(expr) static_assert(true)
#include <toml++/toml.h>
