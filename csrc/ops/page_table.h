// The caches of an op and, where they are paged, the table of their pages.
#pragma once
#include <optional>

#include "common/page_table.h"
#include "ops/match.h"

namespace eagle::ops {

inline const char* cache_shape(const std::optional<Tensor>& page_table) {
  return page_table ? "N Hkv S d" : "B Hkv L d";
}

// To be called when B and the sizes of cache_shape are bound.
inline PageTable match_page_table(Match& m, const std::optional<Tensor>& page_table) {
  if (!page_table) return contiguous_pages(m["B"], m["L"]);
  m.tensor("page_table", *page_table, "B C", Kind::kInt32);
  return make_page_table(page_table->const_data_ptr<int32_t>(), m["C"], m["N"], m["S"]);
}

}  // namespace eagle::ops
