// A block of outputs: tiles of up to six input rows by four weight rows, accumulated in registers along k.
//
// Long rows go piece by piece, each piece over the whole block, so that the inputs' piece stays in the first-level
// cache. Between pieces the lanes of a chain rest in memory: what is added, and in which order, is the same as in one
// go.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "cpu/gemm.h"
#include "cpu/gemm_step.h"

namespace eagle::cpu {

constexpr int64_t kMaxStep = 64;             // elements; a multiple of every instruction set's steps
constexpr int64_t kInputBytes = 24 << 10;    // of a piece, over all rows: half a first-level cache
constexpr int64_t kMinPiece = 1 << 10;       // bytes of a weight row; beginnings and ends of shorter ones cost too much
constexpr int64_t kMaxPieceRows = 24;        // more rows are bound by arithmetic
constexpr int64_t kFetchedAhead = 16 << 10;  // bytes: what a memory delivers within its latency, and some

// Packed input rows: tile by tile, in a tile step by step along k, in a step row by row.
struct Inputs {
  float* data;  // or bfloat16, packed twice as densely
  int64_t rows, inner;

  int64_t padded() const { return (inner + kMaxStep - 1) / kMaxStep * kMaxStep; }
};

// Input rows in tiles of nearly one size: 8 rows are 4 + 4, not 6 + 2.
template <class Step>
struct RowTiles {
  int64_t rows, count = (rows + Step::kMaxRows - 1) / Step::kMaxRows;
  int64_t size = rows / count, smaller = count - rows % count;  // the tiles behind the smaller ones have a row more

  int64_t begin(int64_t tile) const { return tile * size + std::max<int64_t>(tile - smaller, 0); }
  int64_t of(int64_t row) const {
    const int64_t rest = row - smaller * size;
    return rest < 0 ? row / size : smaller + rest / (size + 1);
  }
};

// Weights to be read soon, asked for evenly: many at once would delay what is read now.
struct Fetch {
  const char* next;
  int64_t stride, advance;

  // kBytes in each of kPlaces places.
  template <int kPlaces, int kBytes>
  EAGLE_INLINE void step() {
#pragma GCC unroll 4
    for (int place = 0; place < kPlaces; ++place)
#pragma GCC unroll 2
      for (int byte = 0; byte < kBytes; byte += 64) __builtin_prefetch(next + place * stride + byte);
    next += advance;
  }
};

// The lanes of one input row's chains with four weight rows.
template <int kLanes>
struct Chains {
  typename Lanes<kLanes>::Float lanes[Product::kTileOutputs];
};

struct Piece {
  int64_t size;
  bool first, last;
};

// One row needs no pieces: four weight rows take four times its place in the cache.
template <class Step>
int64_t piece_size(const Inputs& in) {
  const int64_t whole = std::max<int64_t>(in.inner, 1);  // without elements, sums are zero all the same
  if (in.rows == 1 || in.rows > kMaxPieceRows) return whole;
  const int64_t input_bytes = in.rows * in.inner * static_cast<int64_t>(sizeof(typename Step::Packed));
  const int64_t row_bytes = in.inner * static_cast<int64_t>(sizeof(typename Step::Element));
  const int64_t pieces = std::min((input_bytes + kInputBytes - 1) / kInputBytes, row_bytes / kMinPiece);
  if (pieces < 2) return whole;
  return ((in.inner + pieces - 1) / pieces + kMaxStep - 1) / kMaxStep * kMaxStep;
}

// kRows packed input rows times four weight rows, over a piece of both, while kFetched of four weight rows are fetched.
template <class Step, int kRows, int kFetched>
EAGLE_INLINE void multiply_tile(const typename Step::Packed* x, const typename Step::Element* const* weight,
                                const Piece& piece, Fetch fetch, Chains<Step::kLanes>* chains, float* out) {
  using Element = typename Step::Element;
  constexpr int kTileOutputs = Product::kTileOutputs, kWidth = Step::kWidth;
  Accumulators<Step::kLanes, kRows> acc;
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int t = 0; t < kTileOutputs; ++t)
      acc[r][t] = piece.first ? typename Lanes<Step::kLanes>::Float{} : chains[r].lanes[t];
  int64_t k = 0;
  for (; k + kWidth <= piece.size; k += kWidth, x += kRows * kWidth) {
    fetch.step<kFetched, kWidth * sizeof(Element)>();
    Step::template accumulate<kRows>(acc, x, weight, k);
  }
  if (k < piece.size) {
    Element rest[kTileOutputs][kWidth] = {};  // nothing past the row is read
    const Element* rests[kTileOutputs];
    for (int t = 0; t < kTileOutputs; ++t) {
      std::memcpy(rest[t], weight[t] + k, (piece.size - k) * sizeof(Element));
      rests[t] = rest[t];
    }
    Step::template accumulate<kRows>(acc, x, rests, 0);
  }
  if (piece.last) {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) store_sums<Step::kLanes>(acc[r], out + r * Product::kMaxBlock);
  } else {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < kTileOutputs; ++t) chains[r].lanes[t] = acc[r][t];
  }
}

// The same for a number of rows that a tile can have.
template <class Step, int kFetched, class... Arguments>
EAGLE_INLINE void multiply_rows(int64_t rows, const Arguments&... arguments) {
  switch (rows) {
    case 1:
      return multiply_tile<Step, 1, kFetched>(arguments...);
    case 2:
      return multiply_tile<Step, 2, kFetched>(arguments...);
    case 3:
      return multiply_tile<Step, 3, kFetched>(arguments...);
  }
  if constexpr (Step::kMaxRows > 3) {
    if (rows == 4) return multiply_tile<Step, 4, kFetched>(arguments...);
  }
  if constexpr (Step::kMaxRows > 4) {
    switch (rows) {
      case 5:
        return multiply_tile<Step, 5, kFetched>(arguments...);
      case 6:
        return multiply_tile<Step, 6, kFetched>(arguments...);
    }
  }
}

// Weight rows begin..end-1 times all input rows. Each tile of input rows fetches kFetched of four weight rows to come,
// until all four are fetched. Wide: Step, or Step::Widened to convert the weights once for all tiles.
template <class Step, int kFetched, class Wide>
EAGLE_INLINE void multiply_fetching(const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out) {
  using Element = typename Step::Element;
  using WideElement = typename Wide::Element;
  constexpr bool kWidens = !std::is_same_v<Step, Wide>;
  constexpr int64_t kTileOutputs = Product::kTileOutputs, kSize = sizeof(Element), kBytes = Step::kWidth * kSize;
  alignas(64) Chains<Step::kLanes> chains[kMaxPieceRows * Product::kMaxBlock / kTileOutputs];  // for several pieces
  const auto* x = reinterpret_cast<const typename Step::Packed*>(in.data);
  const Element* rows = static_cast<const Element*>(weight.data) + begin * in.inner;
  const RowTiles<Step> tiles{in.rows};
  const int64_t outputs = end - begin, stride = in.inner * kSize, size = piece_size<Step>(in);
  const std::unique_ptr<WideElement[]> widened(kWidens ? new WideElement[kTileOutputs * size] : nullptr);
  const int64_t share = kTileOutputs * stride / tiles.count, share_of_step = kTileOutputs * kBytes / tiles.count;
  const int64_t ahead = kTileOutputs * std::max<int64_t>(1, kFetchedAhead / (kTileOutputs * size * kSize));
  for (int64_t k = 0; k == 0 || k < in.inner; k += size) {
    const Piece piece{std::min(size, in.inner - k), k == 0, k + size >= in.inner};
    for (int64_t o = 0; o < outputs; o += kTileOutputs) {
      const WideElement* tile[kTileOutputs];
      for (int t = 0; t < kTileOutputs; ++t) {
        const Element* row = rows + std::min(o + t, outputs - 1) * in.inner + k;
        if constexpr (kWidens) {
          Step::widen(row, piece.size, &widened[t * size]);
          tile[t] = &widened[t * size];
        } else {
          tile[t] = row;
        }
      }
      int64_t later = (o + ahead) * in.inner + k;  // of this piece, else of the next one, else of the next block
      if (o + ahead >= outputs) later += piece.last ? -k : size - outputs * in.inner;
      for (int64_t i = 0; i < tiles.count; ++i) {
        const int64_t row = tiles.begin(i), count = tiles.begin(i + 1) - row;
        const auto* from = reinterpret_cast<const char*>(rows + later);
        Fetch fetch{from + i * kFetched * stride, stride, kBytes};
        if (i * kFetched >= kTileOutputs) fetch = {reinterpret_cast<const char*>(rows), 0, 0};  // all are: none
        if (size == in.inner)  // whole rows lie one after the other: each tile its share of them
          fetch = {from + i * share, kBytes, share_of_step};
        multiply_rows<Wide, kFetched>(count, x + row * in.padded() + k * count, tile, piece, fetch,
                                      chains + o / kTileOutputs * in.rows + row, out + row * Product::kMaxBlock + o);
      }
    }
  }
}

template <class Step>
EAGLE_INLINE void multiply_block(const Inputs& in, const Weight& weight, int64_t begin, int64_t end, float* out) {
  switch (RowTiles<Step>{in.rows}.count) {
    case 1:
      return multiply_fetching<Step, 4, Step>(in, weight, begin, end, out);
    case 2:
    case 3:
      return multiply_fetching<Step, 2, typename Step::Widened>(in, weight, begin, end, out);
    default:
      return multiply_fetching<Step, 1, typename Step::Widened>(in, weight, begin, end, out);
  }
}

}  // namespace eagle::cpu
