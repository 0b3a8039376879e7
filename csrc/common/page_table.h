// Paged caches: where a position of a request lies. A contiguous cache is one page a request, and needs no table.
#pragma once
#include <bit>
#include <cstdint>

#include "common/host_device.h"

namespace eagle {

constexpr int64_t kMaxPosition = INT32_MAX;

// Caches of shape [num_pages, heads, page_size, head_dim] in which position t of request b lies in row t % page_size of
// page ids[b, t / page_size]. The division is a product and a shift (Granlund and Montgomery, PLDI 1994, section 4):
// exact for positions below 2^31.
struct PageTable {
  const int32_t* ids;  // [batch, columns]; null: request b is page b
  int64_t columns, num_pages, page_size;
  uint32_t factor;
  int shift;

  // Positions that a request has room for.
  int64_t length() const { return columns * page_size < kMaxPosition ? columns * page_size : kMaxPosition; }
};

inline PageTable make_page_table(const int32_t* ids, int64_t columns, int64_t num_pages, int64_t page_size) {
  const uint64_t divisor = page_size > 0 ? page_size : 1;
  const int shift = 31 + std::bit_width(divisor - 1);
  return {ids, columns, num_pages, page_size, static_cast<uint32_t>(((uint64_t{1} << shift) - 1) / divisor + 1), shift};
}

// [batch, heads, length, head_dim].
inline PageTable contiguous_pages(int64_t batch, int64_t length) { return make_page_table(nullptr, 1, batch, length); }

// The first and the third index of a cache; zeros where the cache has no such row.
struct CacheRow {
  int64_t page, row;
  bool there;
};

// A position of a cache that has a table. Neither the table nor the pool is left, whatever the position and the ids
// are.
EAGLE_HOST_DEVICE CacheRow locate_in_pages(const PageTable& t, int64_t b, int64_t position) {
  if (static_cast<uint64_t>(position) > kMaxPosition) return {};
  const int64_t column = (uint64_t{static_cast<uint32_t>(position)} * t.factor) >> t.shift;
  if (column >= t.columns) return {};
  const int64_t page = t.ids[b * t.columns + column];
  if (page < 0 || page >= t.num_pages) return {};
  return {page, position - column * t.page_size, true};
}

EAGLE_HOST_DEVICE CacheRow locate(const PageTable& t, int64_t b, int64_t position) {
  if (t.ids) return locate_in_pages(t, b, position);
  return position >= 0 && position < t.page_size ? CacheRow{b, position, true} : CacheRow{};
}

}  // namespace eagle
