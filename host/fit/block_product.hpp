// The product inside a Cholesky factorization by blocks, which is nearly all of its work. Vector instructions are
// chosen at run time (Google Highway): Eigen compiled for every processor has a third of the speed.
#pragma once

#include <cstddef>

namespace einfield {

/// Side of a block: a multiple of the tiles of every instruction set.
inline constexpr int kBlockSide = 96;

/// C −= A Bᵀ of square blocks of side kBlockSide.
/// @param a, b    column after column, without gaps
/// @param c       column after column
/// @param stride  from one column of C to the next
void subtract_product(const double* a, const double* b, double* c, std::size_t stride);

}  // namespace einfield
