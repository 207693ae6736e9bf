// A register-blocked product. The source is compiled once per instruction set; nothing here allocates.
#include "host/fit/block_product.hpp"

#include "host/cpu/vector_targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/fit/block_product.cpp"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace einfield::block_product::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Tag = hn::ScalableTag<double>;
using Vec = hn::Vec<Tag>;
constexpr int kLanes = static_cast<int>(HWY_LANES(double));
constexpr int kRows = 2 * kLanes, kColumns = 6;  // of a tile: 12 accumulators
static_assert(kBlockSide % kRows == 0 && kBlockSide % kColumns == 0);

void subtract(const double* a, const double* b, double* c, std::size_t stride);
void subtract(const double* a, const double* b, double* c, std::size_t stride) {
  constexpr Tag tag;
  for (int j = 0; j < kBlockSide; j += kColumns)
    for (int i = 0; i < kBlockSide; i += kRows) {
      Vec low[kColumns], high[kColumns];
      EINFIELD_UNROLL
      for (int n = 0; n < kColumns; ++n) low[n] = high[n] = hn::Zero(tag);
      const double *left = a + i, *right = b + j;
      for (int k = 0; k < kBlockSide; ++k, left += kBlockSide, right += kBlockSide) {
        const Vec first = hn::LoadU(tag, left), second = hn::LoadU(tag, left + kLanes);
        EINFIELD_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          const Vec factor = hn::Set(tag, right[n]);
          low[n] = hn::MulAdd(first, factor, low[n]);
          high[n] = hn::MulAdd(second, factor, high[n]);
        }
      }
      EINFIELD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        double* const out = c + static_cast<std::size_t>(j + n) * stride + i;
        hn::StoreU(hn::Sub(hn::LoadU(tag, out), low[n]), tag, out);
        hn::StoreU(hn::Sub(hn::LoadU(tag, out + kLanes), high[n]), tag, out + kLanes);
      }
    }
}

}  // namespace einfield::block_product::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace einfield {
namespace block_product {
HWY_EXPORT(subtract);
}  // namespace block_product

void subtract_product(const double* a, const double* b, double* c, std::size_t stride) {
  HWY_DYNAMIC_DISPATCH(block_product::subtract)(a, b, c, stride);
}

}  // namespace einfield
#endif  // HWY_ONCE
